//! Errors of conversions from the wire: each names the bad field.

use std::{fmt::Display, str::FromStr};

use jiff::Timestamp;

/// A message that does not make sense, by the field that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct WireError {
    /// Which field, `message.field`.
    pub field: String,
    /// What is wrong with it and what would do.
    pub problem: String,
}

impl WireError {
    /// An error about `field`. What a peer sent may stand in either: both are cut, and control characters replaced.
    pub fn new(field: impl Into<String>, problem: impl Display) -> Self {
        Self {
            field: plain(&field.into(), MOST_FIELD),
            problem: plain(&problem.to_string(), MOST_TOLD),
        }
    }

    /// The same problem seen from one level further out: `outer.field`.
    #[must_use]
    pub fn within(self, outer: &str) -> Self {
        Self {
            field: format!("{outer}.{}", self.field),
            problem: self.problem,
        }
    }
}

/// The longest field and problem that are told.
const MOST_FIELD: usize = 160;
const MOST_TOLD: usize = 512;

/// At most `most` characters of a text, with nothing in it that a terminal or a log would act on.
#[must_use]
pub fn plain(text: &str, most: usize) -> String {
    let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().take(most).map(shown).collect()
}

pub(crate) fn parse<T>(field: &str, text: &str) -> Result<T, WireError>
where
    T: FromStr,
    T::Err: Display,
{
    text.parse().map_err(|error| WireError::new(field, error))
}

pub(crate) fn present<T>(field: &str, value: Option<T>) -> Result<T, WireError> {
    value.ok_or_else(|| WireError::new(field, "is missing"))
}

pub(crate) fn array<const N: usize>(field: &str, bytes: &[u8]) -> Result<[u8; N], WireError> {
    bytes
        .try_into()
        .map_err(|_| WireError::new(field, format_args!("{} bytes, want {N}", bytes.len())))
}

pub(crate) fn text(field: &str, value: String, most: usize) -> Result<String, WireError> {
    if value.chars().count() > most {
        return Err(WireError::new(
            field,
            format_args!("{} characters, at most {most}", value.chars().count()),
        ));
    }
    if let Some(bad) = value.chars().find(|c| c.is_control() && *c != '\n' && *c != '\t') {
        return Err(WireError::new(
            field,
            format_args!("has the control character {bad:?}"),
        ));
    }
    Ok(value)
}

/// A wire timestamp from a moment.
#[must_use]
pub fn to_wire_time(at: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: at.as_second(),
        nanos: at.subsec_nanosecond(),
    }
}

pub(crate) fn time(field: &str, value: Option<prost_types::Timestamp>) -> Result<Timestamp, WireError> {
    let value = present(field, value)?;
    from_wire_time(&value)
        .ok_or_else(|| WireError::new(field, "is not a moment between the years -9999 and 9999"))
}

/// A moment from a wire timestamp; `None` when it is out of range.
#[must_use]
pub fn from_wire_time(value: &prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::new(value.seconds, value.nanos).ok()
}

pub(crate) fn span(field: &str, value: prost_types::Duration) -> Result<std::time::Duration, WireError> {
    value
        .try_into()
        .map_err(|_| WireError::new(field, "is not a positive span of time"))
}

pub(crate) fn to_wire_span(value: std::time::Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(value.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(value.subsec_nanos()).unwrap_or(0),
    }
}
