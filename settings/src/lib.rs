//! Settings in layers: flag over environment over file over default, and every problem at once.
//!
//! A daemon's `config.rs` takes its keys one by one from [`Settings`] and asks [`Settings::finish`] at the end; what
//! was wrong comes together, each with its key, where the value came from and a value that would do. Keys nobody took
//! are refused.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use figment::{
    Figment, Provider,
    providers::{Env, Format as _, Toml},
    value::{Dict, Value},
};

/// Values by dotted key, each with where it came from.
#[derive(Debug)]
pub struct Settings {
    values: BTreeMap<String, (Value, String)>,
    taken: BTreeSet<String>,
    problems: Vec<Problem>,
}

/// One thing that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The dotted key.
    pub key: String,
    /// The file, the environment variable or the flag it came from.
    pub source: String,
    /// What is wrong, and a value that would do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, source, message } = self;
        if source.is_empty() {
            write!(f, "{key}: {message}")
        } else {
            write!(f, "{key} (from {source}): {message}")
        }
    }
}

/// Why settings could not be resolved.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("read the configuration at {}; name another with --config FILE", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: std::io::Error,
    },
    /// The file is no TOML.
    #[error("{} is not TOML: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what.
        message: String,
    },
    /// Keys are unknown, missing, or have values that do not do.
    #[error("{} {} in the settings:\n{}", .0.len(), if .0.len() == 1 { "problem" } else { "problems" },
        .0.iter().map(|problem| format!("  {problem}")).collect::<Vec<_>>().join("\n"))]
    Problems(Vec<Problem>),
}

impl Settings {
    /// Reads `file`, then the environment variables that begin with `prefix` (`PICKET_MASTER_LOG__LEVEL` is `log.level`),
    /// then `flags` as dotted keys.
    ///
    /// # Errors
    /// When the file cannot be read or is no TOML.
    pub fn load(file: &Path, prefix: &str, flags: &[(&str, Option<String>)]) -> Result<Self, SettingsError> {
        let text = std::fs::read_to_string(file).map_err(|cause| SettingsError::Unreadable {
            path: file.to_owned(),
            cause,
        })?;
        let environment = Env::prefixed(prefix).split("__");
        Self::from_layers(&text, file, environment, flags)
    }

    /// As [`Settings::load`], where there is no file.
    ///
    /// # Errors
    /// When the environment holds nonsense.
    pub fn without_file(prefix: &str, flags: &[(&str, Option<String>)]) -> Result<Self, SettingsError> {
        Self::from_layers("", Path::new("nowhere"), Env::prefixed(prefix).split("__"), flags)
    }

    /// As [`Settings::load`], from a file's text alone.
    ///
    /// # Errors
    /// When the text is no TOML.
    pub fn from_text(text: &str, file: &Path) -> Result<Self, SettingsError> {
        Self::from_layers(text, file, Toml::string(""), &[])
    }

    /// As [`Settings::load`], from a file's text and any environment.
    ///
    /// # Errors
    /// When the text is no TOML.
    pub fn from_layers(
        text: &str,
        file: &Path,
        environment: impl Provider,
        flags: &[(&str, Option<String>)],
    ) -> Result<Self, SettingsError> {
        let mut settings = Self {
            values: BTreeMap::new(),
            taken: BTreeSet::new(),
            problems: Vec::new(),
        };
        let syntax = |error: figment::Error| SettingsError::Syntax {
            path: file.to_owned(),
            message: error.to_string(),
        };
        let from_file: Dict = Figment::from(Toml::string(text)).extract().map_err(syntax)?;
        settings.put("", Value::from(from_file), &file.display().to_string());
        let from_environment: Dict = Figment::from(environment).extract().map_err(syntax)?;
        settings.put("", Value::from(from_environment), "the environment");
        for (key, value) in flags {
            if let Some(value) = value {
                settings.put(
                    key,
                    Value::from(value.as_str()),
                    &format!("--{}", key.replace(['.', '_'], "-")),
                );
            }
        }
        Ok(settings)
    }

    fn put(&mut self, key: &str, value: Value, source: &str) {
        if let Value::Dict(_, dict) = value {
            for (inner, value) in dict {
                let key = if key.is_empty() {
                    inner
                } else {
                    format!("{key}.{inner}")
                };
                self.put(&key, value, source);
            }
        } else {
            self.values.insert(key.to_owned(), (value, source.to_owned()));
        }
    }

    fn take(&mut self, key: &str) -> Option<(Value, String)> {
        self.taken.insert(key.to_owned());
        self.values.get(key).cloned()
    }

    /// Notes that the value of `key` does not do.
    pub fn problem(&mut self, key: &str, message: impl fmt::Display) {
        let source = self
            .values
            .get(key)
            .map(|(_, source)| source.clone())
            .unwrap_or_default();
        self.problems.push(Problem {
            key: key.to_owned(),
            source,
            message: message.to_string(),
        });
    }

    /// Takes a text and reads it as `T`. `example` is a value that would do.
    pub fn parsed<T>(&mut self, key: &str, example: &str) -> Option<T>
    where
        T: std::str::FromStr,
        T::Err: fmt::Display,
    {
        let (value, _) = self.take(key)?;
        let Some(text) = scalar(&value) else {
            self.problem(key, format_args!("want one value, such as {key} = \"{example}\""));
            return None;
        };
        match text.parse() {
            Ok(read) => Some(read),
            Err(error) => {
                self.problem(key, format_args!("{error}; for example {key} = \"{example}\""));
                None
            }
        }
    }

    /// Takes a text.
    pub fn text(&mut self, key: &str, example: &str) -> Option<String> {
        self.parsed(key, example)
    }

    /// Takes a path.
    pub fn path(&mut self, key: &str, example: &str) -> Option<PathBuf> {
        self.parsed(key, example)
    }

    /// Takes a span of time with its unit: `500ms`, `45s`, `10m`, `2h`, `7d`.
    pub fn span(&mut self, key: &str, example: &str) -> Option<Duration> {
        self.parsed::<Span>(key, example).map(|span| span.0)
    }

    /// Takes a truth value.
    pub fn truth(&mut self, key: &str) -> Option<bool> {
        self.parsed(key, "true")
    }

    /// Takes a list of texts, each read as `T`.
    pub fn list<T>(&mut self, key: &str, example: &str) -> Option<Vec<T>>
    where
        T: std::str::FromStr,
        T::Err: fmt::Display,
    {
        let (value, _) = self.take(key)?;
        let texts = match &value {
            Value::Array(_, items) => items.iter().map(scalar).collect::<Option<Vec<_>>>(),
            Value::String(_, text) => Some(text.split(',').map(|part| part.trim().to_owned()).collect()),
            Value::Char(..) | Value::Bool(..) | Value::Num(..) | Value::Empty(..) | Value::Dict(..) => None,
        };
        let Some(texts) = texts else {
            self.problem(key, format_args!("want a list, such as {key} = {example}"));
            return None;
        };
        let mut read = Vec::with_capacity(texts.len());
        for text in texts {
            match text.parse() {
                Ok(item) => read.push(item),
                Err(error) => self.problem(key, format_args!("{error}; for example {key} = {example}")),
            }
        }
        Some(read)
    }

    /// The tables of an array of tables (`[[key]]`), each as settings of its own under `key[n]`.
    pub fn tables(&mut self, key: &str) -> Vec<Table> {
        let Some((value, source)) = self.take(key) else {
            return Vec::new();
        };
        let Value::Array(_, items) = value else {
            self.problem(key, format_args!("want tables, each beginning with [[{key}]]"));
            return Vec::new();
        };
        let mut tables = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            let prefix = format!("{key}[{index}]");
            if !matches!(item, Value::Dict(..)) {
                self.problem(key, format_args!("want tables, each beginning with [[{key}]]"));
                continue;
            }
            self.put(&prefix, item, &source);
            tables.push(Table { prefix });
        }
        tables
    }

    /// `found`, or a noted problem that `key` is missing.
    pub fn required<T>(&mut self, found: Option<T>, key: &str, example: &str) -> Option<T> {
        if found.is_none() && !self.problems.iter().any(|problem| problem.key == key) {
            self.problem(key, format_args!("is missing; for example {key} = \"{example}\""));
        }
        found
    }

    /// The end: `build` makes the configuration from what was taken.
    ///
    /// # Errors
    /// Every problem that was noted, and every key that nobody took.
    pub fn finish<T>(mut self, build: impl FnOnce() -> Option<T>) -> Result<T, SettingsError> {
        let unknown: Vec<_> = self
            .values
            .keys()
            .filter(|key| !self.taken.contains(*key))
            .cloned()
            .collect();
        for key in unknown {
            let near = self.taken.iter().find(|known| close(known, &key)).cloned();
            match near {
                Some(known) => self.problem(&key, format_args!("is no setting; did you mean {known}?")),
                None => self.problem(&key, "is no setting; remove it"),
            }
        }
        if self.problems.is_empty()
            && let Some(built) = build()
        {
            return Ok(built);
        }
        Err(SettingsError::Problems(self.problems))
    }
}

/// One table of an array of tables.
#[derive(Debug, Clone)]
pub struct Table {
    prefix: String,
}

impl Table {
    /// The full key of `name` in this table.
    #[must_use]
    pub fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(_, text) => Some(text.clone()),
        Value::Char(_, letter) => Some(letter.to_string()),
        Value::Bool(_, truth) => Some(truth.to_string()),
        Value::Num(_, number) => number
            .to_i128()
            .map(|n| n.to_string())
            .or_else(|| number.to_u128().map(|n| n.to_string()))
            .or_else(|| number.to_f64().map(|n| n.to_string())),
        Value::Empty(..) | Value::Dict(..) | Value::Array(..) => None,
    }
}

/// One letter more, less or other.
fn close(known: &str, given: &str) -> bool {
    let (a, b): (Vec<char>, Vec<char>) = (known.chars().collect(), given.chars().collect());
    if a.len().abs_diff(b.len()) > 2 {
        return false;
    }
    let head = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let tail = a
        .iter()
        .rev()
        .zip(b.iter().rev())
        .take_while(|(x, y)| x == y)
        .count();
    a.len().max(b.len()).saturating_sub(head + tail) <= 2
}

/// A span of time with its unit.
struct Span(Duration);

impl std::str::FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is no span of time: write a whole number and its unit (ms, s, m, h, d)");
        let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, unit) = text.split_at(split);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let millis = match unit.trim() {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        number
            .checked_mul(millis)
            .map(|millis| Self(Duration::from_millis(millis)))
            .ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str, environment: &str, flags: &[(&str, Option<String>)]) -> Settings {
        Settings::from_layers(text, Path::new("master.toml"), Toml::string(environment), flags).unwrap()
    }

    #[test]
    fn a_flag_beats_the_environment_and_the_environment_beats_the_file() {
        let text = "late_after = \"45s\"\nname = \"file\"\nother = \"file\"";
        let mut layered = settings(
            text,
            "name = \"environment\"\nother = \"environment\"",
            &[("other", Some("flag".into()))],
        );
        assert_eq!(layered.span("late_after", "45s"), Some(Duration::from_secs(45)));
        assert_eq!(layered.text("name", "x").as_deref(), Some("environment"));
        assert_eq!(layered.text("other", "x").as_deref(), Some("flag"));
        layered.finish(|| Some(())).unwrap();
    }

    #[test]
    fn every_problem_comes_at_once_with_its_key_and_a_value_that_would_do() {
        let mut bad = settings("late_after = \"45\"\nlatee = 1\n[log]\nlevel = [1]", "", &[]);
        let late = bad.span("late_after", "45s");
        assert_eq!(late, None);
        assert_eq!(bad.text("log.level", "info"), None);
        let name = bad.text("name", "x");
        bad.required(name, "name", "master.example.org");
        let error = bad.finish(|| Some(())).unwrap_err().to_string();
        for wanted in [
            "4 problems",
            "late_after (from master.toml): `45` is no span of time",
            "latee (from master.toml): is no setting; remove it",
            "log.level (from master.toml): want one value",
            "name: is missing; for example name = \"master.example.org\"",
        ] {
            assert!(error.contains(wanted), "{wanted} not in {error}");
        }
    }

    #[test]
    fn a_misspelled_key_is_told_its_neighbour() {
        let mut bad = settings("late_aftr = \"45s\"", "", &[]);
        bad.span("late_after", "45s");
        let error = bad.finish(|| Some(())).unwrap_err().to_string();
        assert!(error.contains("did you mean late_after?"), "{error}");
    }

    #[test]
    fn unknown_keys_inside_tables_are_refused_too() {
        let mut nets = settings(
            "[[networks]]\ndriver = \"bridge\"\nsubnte = \"10.0.0.0/8\"",
            "",
            &[],
        );
        let tables = nets.tables("networks");
        assert_eq!(
            nets.text(&tables[0].key("driver"), "bridge").as_deref(),
            Some("bridge")
        );
        let error = nets.finish(|| Some(())).unwrap_err().to_string();
        assert!(error.contains("networks[0].subnte"), "{error}");
    }
}
