//! The settings of `picket-master`.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use picket_settings::{Settings, SettingsError};

use crate::{liveness::Grace, signer::CaKey};

mod ca;
mod central;

pub use ca::Given;
pub use central::{Account, Api, MOST_TOKEN};

/// Environment variables that begin so are settings: `PICKET_MASTER_LOG__LEVEL` is `log.level`.
const PREFIX: &str = "PICKET_MASTER_";

/// The largest fleet that was measured, and a third more.
const MOST_CONNECTIONS: u32 = 20_000;

/// Everything that can be set, resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What this master is called in its log.
    pub name: String,
    /// The CA, the journal and its index.
    pub data_dir: PathBuf,
    /// How the CA's key is kept.
    pub ca: CaKey,
    /// The account in ZeroTier Central, where there is one.
    pub central: Option<Account>,
    /// Where agents dial, as written into new bundles. Empty: what `init` was told.
    pub advertise: Vec<String>,
    /// Between two beats of an agent, before jitter.
    pub beat_interval: Duration,
    /// The agents' listener.
    pub agents: SocketAddr,
    /// How many connections agents may have open.
    pub most_connections: u32,
    /// The operators' listener.
    pub admin: SocketAddr,
    /// The listener of metrics and health.
    pub metrics: SocketAddr,
    /// How long a host may be silent.
    pub grace: Grace,
    /// How the log is written.
    pub log: Log,
}

/// How the log is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// error, warn, info, debug or trace.
    pub level: tracing::Level,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

impl std::str::FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(format!("`{other}` is neither text nor json")),
        }
    }
}

impl Config {
    /// Resolves the settings: flags over environment over `file` over defaults.
    ///
    /// # Errors
    /// Every problem at once.
    pub fn load(file: &Path, flags: &[(&str, Option<String>)]) -> Result<Self, SettingsError> {
        Self::resolve_given(Settings::load(file, PREFIX, flags)?, &Given::to_this_process())
    }

    /// Resolves the settings of a machine that has no configuration: flags over environment over defaults.
    ///
    /// # Errors
    /// Every problem at once.
    pub fn without_file(flags: &[(&str, Option<String>)]) -> Result<Self, SettingsError> {
        Self::resolve_given(Settings::without_file(PREFIX, flags)?, &Given::to_this_process())
    }

    /// What is not as it should be about what the settings name, and keeps no master from running.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = self.data_dir.display();
        // One that is not there yet is made for its owner alone.
        let mode = std::fs::metadata(&self.data_dir).map_or(0, |found| found.permissions().mode() & 0o7777);
        let open = (mode & 0o077 != 0).then(|| {
            format!(
                "data_dir {dir} has the mode {mode:04o}: others than its owner may look into it or change it, and the journal, \
                 the events and the CA are in there; run `chmod 700 {dir}`"
            )
        });
        open.into_iter().collect()
    }

    /// Takes every setting.
    ///
    /// # Errors
    /// Every problem at once.
    pub fn resolve(from: Settings) -> Result<Self, SettingsError> {
        Self::resolve_given(from, &Given::default())
    }

    /// Takes every setting, and what the process was given beside them.
    ///
    /// # Errors
    /// Every problem at once.
    pub fn resolve_given(mut from: Settings, given: &Given) -> Result<Self, SettingsError> {
        let socket = |from: &mut Settings, key: &str, usual: &str| {
            let found = from.parsed::<SocketAddr>(key, usual);
            found.or_else(|| usual.parse().ok())
        };
        let name = from.text("name", "master").unwrap_or_else(|| "master".to_owned());
        let data_dir = from
            .path("data_dir", "/var/lib/picket")
            .unwrap_or_else(|| "/var/lib/picket".into());
        let advertise = from
            .list::<String>("advertise", "[\"master.example.org:7443\"]")
            .unwrap_or_default();
        for address in &advertise {
            if !dialable(address) {
                from.problem(
                    "advertise",
                    format_args!("`{address}` is no host:port, such as master.example.org:7443"),
                );
            }
        }
        let beat_interval = from
            .span("beat_interval", "30s")
            .unwrap_or(Duration::from_secs(30));
        if !(Duration::from_secs(1)..=Duration::from_secs(600)).contains(&beat_interval) {
            from.problem(
                "beat_interval",
                "is not between 1s and 10m; for example beat_interval = \"30s\"",
            );
        }
        let agents = socket(&mut from, "agents.listen", "0.0.0.0:7443");
        let most_connections = from
            .parsed("agents.most_connections", "20000")
            .unwrap_or(MOST_CONNECTIONS);
        if !(16..=1_000_000).contains(&most_connections) {
            from.problem(
                "agents.most_connections",
                "is not between 16 and 1000000; one for each host and some more, for example most_connections = 20000",
            );
        }
        let admin = socket(&mut from, "admin.listen", "127.0.0.1:7444");
        let metrics = socket(&mut from, "metrics.listen", "127.0.0.1:7445");
        let doors = [("admin.listen", admin), ("metrics.listen", metrics)];
        for (at, (key, door)) in doors.iter().enumerate() {
            let before = [agents]
                .into_iter()
                .chain(doors[..at].iter().map(|(_, before)| *before));
            let clash = |other: SocketAddr, door: SocketAddr| {
                let meet =
                    other.ip() == door.ip() || other.ip().is_unspecified() || door.ip().is_unspecified();
                other.port() == door.port() && door.port() != 0 && meet
            };
            if let Some(door) = door
                && before.flatten().any(|other| clash(other, *door))
            {
                from.problem(
                    key,
                    format_args!("another listener has port {}; give each its own", door.port()),
                );
            }
        }
        let usual = Grace::default();
        let grace = Grace {
            late: from.span("liveness.late_after", "45s").unwrap_or(usual.late),
            offline: from
                .span("liveness.offline_after", "100s")
                .unwrap_or(usual.offline),
        };
        if grace.late <= beat_interval + beat_interval / 10 {
            from.problem(
                "liveness.late_after",
                format_args!(
                    "is not longer than the beat interval of {} s and its jitter of a tenth",
                    beat_interval.as_secs()
                ),
            );
        }
        if grace.offline <= grace.late {
            from.problem(
                "liveness.offline_after",
                "is not longer than late_after; for example offline_after = \"100s\"",
            );
        }
        let ca = ca::resolve(&mut from, given);
        let central = central::resolve(&mut from, given);
        let level = from.parsed("log.level", "info").unwrap_or(tracing::Level::INFO);
        let format = from.parsed("log.format", "text").unwrap_or(LogFormat::Text);
        from.finish(|| {
            Some(Self {
                name,
                data_dir,
                ca: ca?,
                central,
                advertise,
                beat_interval,
                agents: agents?,
                most_connections,
                admin: admin?,
                metrics: metrics?,
                grace,
                log: Log { level, format },
            })
        })
    }
}

/// Whether a text is `host:port`.
#[must_use]
pub fn dialable(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| {
        let bare_v6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
        !host.is_empty()
            && !bare_v6
            && !host.contains(char::is_whitespace)
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

/// `host:port` of a name or address.
#[must_use]
pub fn with_port(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use picket_settings::SettingsError;

    use super::*;

    fn resolve(text: &str) -> Result<Config, SettingsError> {
        Config::resolve(Settings::from_text(text, Path::new("master.toml"))?)
    }

    #[test]
    fn two_listeners_cannot_have_one_port() {
        let error = resolve("[metrics]\nlisten = \"127.0.0.1:7443\"")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("1 problem") && error.contains("metrics.listen"),
            "{error}"
        );
    }

    #[test]
    fn an_address_of_version_6_needs_brackets_before_its_port() {
        assert!(dialable("[2001:db8::1]:7443") && dialable("master.example.org:7443"));
        assert!(!dialable("::1") && !dialable("2001:db8::1:7443") && !dialable("nowhere"));
        assert!(dialable(&with_port("2001:db8::1", 7443)));
    }

    #[test]
    fn a_data_directory_that_others_may_look_into_is_remarked_on() {
        use std::os::unix::fs::PermissionsExt as _;
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("picket");
        let config = resolve(&format!("data_dir = {dir:?}")).unwrap();
        assert_eq!(config.remarks(), [""; 0], "it is not there yet");
        std::fs::create_dir(&dir).unwrap();
        for (mode, remarked) in [(0o700, false), (0o750, true), (0o701, true), (0o755, true)] {
            std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(mode)).unwrap();
            let said = config.remarks().join("\n");
            assert_eq!(said.contains(&format!("{mode:04o}")), remarked, "{said}");
            assert_eq!(said.contains("chmod 700"), remarked, "{said}");
        }
    }

    #[test]
    fn an_empty_file_is_a_complete_configuration() {
        let config = resolve("").unwrap();
        assert_eq!(config.agents.port(), 7443);
        assert!(config.admin.ip().is_loopback() && config.metrics.ip().is_loopback());
    }

    #[test]
    fn every_problem_is_named_at_once_with_a_value_that_would_do() {
        let text =
            "beat_interval = \"30\"\nadvertise = [\"nowhere\"]\nbogus = 1\n[liveness]\nlate_after = \"10s\"";
        let error = resolve(text).unwrap_err().to_string();
        for wanted in [
            "4 problems",
            "beat_interval",
            "`nowhere` is no host:port",
            "bogus",
            "liveness.late_after",
        ] {
            assert!(error.contains(wanted), "{wanted} not in {error}");
        }
    }
}
