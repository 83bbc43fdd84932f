//! Hosts: their ids, names and labels.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::WireError;

/// A host's id: a UUID that stays with it for life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HostId(pub Uuid);

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for HostId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        text.parse().map(Self).map_err(|_| NameError {
            what: "host id",
            given: text.to_owned(),
            want: "a UUID such as 6f1c2a52-9c1f-4f3e-8a77-0c7a5f1e2d3b",
        })
    }
}

/// A name people give to a host, a decky, a deployment or a decky network.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// The most characters a name has; what DNS allows for one label.
    pub const MOST: usize = 63;

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An id or a name with wrong letters or length.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is no {what}: {want}", .given.chars().take(80).collect::<String>().escape_debug())]
pub struct NameError {
    what: &'static str,
    given: String,
    want: &'static str,
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let inner = |c: char| edge(c) || c == '-' || c == '.';
        let fits = (1..=Self::MOST).contains(&text.len())
            && text.chars().all(inner)
            && text.starts_with(edge)
            && text.ends_with(edge);
        if fits {
            return Ok(Self(text.to_owned()));
        }
        Err(NameError {
            what: "name",
            given: text.to_owned(),
            want: "use 1 to 63 of a-z, 0-9, '-' and '.', beginning and ending with a letter or digit",
        })
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

/// The labels of a host: sorted `key=value` pairs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// The most labels one host carries.
    pub const MOST: usize = 64;

    /// Labels from pairs; each key and value is checked.
    ///
    /// # Errors
    /// A key or value with other letters than a-z, A-Z, 0-9, '-', '_', '.', '/', or too long, or too many of them.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, WireError> {
        let mut labels = BTreeMap::new();
        for (key, value) in pairs {
            if !label_text(&key) || key.is_empty() || !label_text(&value) {
                return Err(WireError::new(
                    "labels",
                    format_args!(
                        "`{}={}`: use key=value with at most 63 of a-z, A-Z, 0-9, '-', '_', '.', '/' on each side",
                        key.escape_debug(),
                        value.escape_debug()
                    ),
                ));
            }
            labels.insert(key, value);
        }
        if labels.len() > Self::MOST {
            return Err(WireError::new(
                "labels",
                format_args!("{} labels, at most {}", labels.len(), Self::MOST),
            ));
        }
        Ok(Self(labels))
    }

    /// These labels with `set` put in and `remove` taken out.
    ///
    /// # Errors
    /// As [`Labels::new`].
    pub fn changed(&self, set: &Self, remove: &[String]) -> Result<Self, WireError> {
        let mut pairs = self.0.clone();
        pairs.extend(set.0.clone());
        pairs.retain(|key, _| !remove.contains(key));
        Self::new(pairs)
    }

    /// Whether all of `wanted` are here with the same values.
    #[must_use]
    pub fn include(&self, wanted: &Self) -> bool {
        wanted.0.iter().all(|(key, value)| self.0.get(key) == Some(value))
    }

    /// The pairs, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &String)> {
        self.0.iter()
    }
}

fn label_text(text: &str) -> bool {
    text.len() <= 63
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_dns_would_not_take_are_refused_with_the_rule() {
        for bad in ["", "Edge", "edge_07", "-edge", "edge-", "a b", &"a".repeat(64)] {
            let error = bad.parse::<Name>().unwrap_err().to_string();
            assert!(error.contains("a-z, 0-9"), "{error}");
        }
        for good in ["a", "edge-07", "edge-07.oslo", &"a".repeat(63)] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
    }

    #[test]
    fn setting_and_removing_labels_leaves_the_others() {
        let pairs = |list: &[(&str, &str)]| {
            Labels::new(list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))).unwrap()
        };
        let labels = pairs(&[("site", "oslo"), ("tier", "1")]);
        let changed = labels
            .changed(&pairs(&[("tier", "2")]), &["site".to_owned()])
            .unwrap();
        assert_eq!(changed, pairs(&[("tier", "2")]));
    }
}
