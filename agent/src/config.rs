//! Settings: `agent.toml`, the environment, and what they become.

use std::{
    collections::BTreeSet,
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use ipnet::Ipv4Net;
use picket_proto::shard::Driver;
use picket_settings::{Settings, SettingsError};
use picket_zerotier::{NetworkId, NodeId};
use tracing::level_filters::LevelFilter;

use crate::deckies::{
    allow::{self, Allowed, GatewayRule, ImageRule, NetworkRule, PortRule},
    form::BaseImage,
};

/// Where the configuration is looked for unless `--config` names another file.
pub const DEFAULT_FILE: &str = "/etc/picket/agent.toml";
const ENVIRONMENT: &str = "PICKET_AGENT_";

/// Everything an operator may set, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where keys, documents and status are kept.
    pub state_dir: PathBuf,
    /// What is logged, and how.
    pub log: Log,
    /// Dialled instead of the addresses in the bundle, when not empty.
    pub masters: Vec<String>,
    /// The local ZeroTier service, unless it is switched off.
    pub zerotier: Option<ZeroTier>,
    /// The Docker socket, unless Docker is switched off.
    pub docker: Option<PathBuf>,
    /// What the master may run here.
    pub deckies: Allowed,
    /// What holds a decky's network namespace.
    pub base_image: String,
    /// Which ZeroTier networks the master may put this host on.
    pub networks: Networks,
    /// What these may give to this machine beside addresses and routes that are private.
    pub take: BTreeSet<Take>,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// The least level.
    pub level: LevelFilter,
    /// One JSON object a line.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where the local ZeroTier service is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZeroTier {
    /// Its home, with its token and port.
    pub home: PathBuf,
    /// Where it listens, when that is not loopback.
    pub address: Option<IpAddr>,
}

/// Which ZeroTier networks the master may put this host on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Networks {
    /// Every one.
    Any,
    /// These, and those that these controllers govern. By default there is none.
    Only {
        /// Networks.
        networks: Vec<NetworkId>,
        /// Controllers.
        controllers: Vec<NodeId>,
    },
}

/// What a network may give to a machine beside addresses and routes that are private.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Take {
    /// Addresses and routes of the public internet (`allowGlobal`).
    Global,
    /// A default route (`allowDefault`).
    Default,
    /// Name servers (`allowDNS`).
    Dns,
}

impl Take {
    /// All of it.
    pub const ALL: [Self; 3] = [Self::Global, Self::Default, Self::Dns];

    /// What it is, for a sentence.
    pub(crate) fn means(self) -> &'static str {
        match self {
            Self::Global => "public addresses and routes",
            Self::Default => "a default route",
            Self::Dns => "name servers",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Default => "default",
            Self::Dns => "dns",
        }
    }
}

impl fmt::Display for Take {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl FromStr for Take {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|take| take.word() == text)
            .ok_or_else(|| format!("`{text}` is nothing that a network gives: use global, default or dns"))
    }
}

impl Networks {
    /// Whether the master may put this host on `network`.
    #[must_use]
    pub fn allow(&self, network: NetworkId) -> bool {
        match self {
            Self::Any => true,
            Self::Only {
                networks,
                controllers,
            } => networks.contains(&network) || controllers.contains(&network.controller()),
        }
    }
}

impl Config {
    /// Reads `file`, or [`DEFAULT_FILE`] when none is named, and the environment variables that begin with
    /// `PICKET_AGENT_`. Without a file at the default place every setting has its default.
    ///
    /// # Errors
    /// Every problem at once.
    pub fn load(file: Option<&Path>) -> Result<Self, SettingsError> {
        let settings = match file {
            Some(file) => Settings::load(file, ENVIRONMENT, &[]),
            None if Path::new(DEFAULT_FILE).exists() => {
                Settings::load(Path::new(DEFAULT_FILE), ENVIRONMENT, &[])
            }
            None => {
                // An empty file: the environment still counts.
                Settings::load(Path::new("/dev/null"), ENVIRONMENT, &[])
            }
        };
        Self::resolve(settings?)
    }

    /// Makes a configuration from settings.
    ///
    /// # Errors
    /// Every problem at once.
    pub fn resolve(mut settings: Settings) -> Result<Self, SettingsError> {
        let s = &mut settings;
        let state_dir = absolute(s, "state_dir", "/var/lib/picket-agent");
        let level = s.parsed::<Level>("log.level", "info");
        let format = s.parsed::<LogFormat>("log.format", "text");
        let masters = s.list::<Address>("master.addresses", "[\"master.example.org:7443\"]");
        let zerotier_enabled = s.truth("zerotier.enabled").unwrap_or(true);
        let home = absolute(s, "zerotier.home", "/var/lib/zerotier-one");
        let address = s.parsed("zerotier.address", "127.0.0.1");
        let docker_enabled = s.truth("docker.enabled").unwrap_or(true);
        let socket = absolute(s, "docker.socket", "/var/run/docker.sock");
        let images = s.list::<ImageRule>("deckies.images", "[\"picket-decoy:*\"]");
        let ports = s.list::<PortRule>("deckies.ports", "[\"1-65535\"]");
        let base_image = s.text("deckies.base_image", "picket-decoy:latest");
        let most = s.parsed::<usize>("deckies.most", "64");
        let decky_networks = decky_networks(s);
        let take = s.list::<Take>("networks.take", "[\"dns\"]");
        let allow = s.list::<Allow>("networks.allow", "[\"8056c2e21c000001\"]");
        let config = Self {
            state_dir,
            log: Log {
                level: level.map_or(LevelFilter::INFO, |level| level.0),
                format: format.unwrap_or(LogFormat::Text),
            },
            masters: masters
                .unwrap_or_default()
                .into_iter()
                .map(|address| address.0)
                .collect(),
            zerotier: zerotier_enabled.then_some(ZeroTier { home, address }),
            docker: docker_enabled.then_some(socket),
            deckies: Allowed {
                images: images.unwrap_or_else(|| vec![ImageRule::Prefix("picket-decoy:".to_owned())]),
                networks: decky_networks,
                // A port is where a decoy listens in a namespace of its own; it takes none of the machine's.
                ports: ports.unwrap_or_else(|| vec![PortRule(1..=u16::MAX)]),
                most: most.unwrap_or(allow::MOST),
            },
            base_image: base_image.unwrap_or_else(|| BaseImage::default().image),
            networks: allowed(allow),
            take: take.unwrap_or_default().into_iter().collect(),
        };
        settings.finish(|| Some(config))
    }
}

/// A path that does not depend on where the agent was started.
fn absolute(s: &mut Settings, key: &str, default: &str) -> PathBuf {
    match s.path(key, default) {
        Some(path) if path.is_absolute() => path,
        Some(path) => {
            s.problem(
                key,
                format_args!(
                    "{} is not an absolute path; for example {key} = \"{default}\"",
                    path.display()
                ),
            );
            path
        }
        None => default.into(),
    }
}

fn decky_networks(s: &mut Settings) -> Vec<NetworkRule> {
    let mut networks = Vec::new();
    for table in s.tables("deckies.networks") {
        let keys = ["driver", "parent", "subnet", "gateway"].map(|name| table.key(name));
        let driver = s.parsed::<Driver>(&keys[0], "bridge");
        let driver = s.required(driver, &keys[0], "bridge");
        let parent = s.text(&keys[1], "eth0");
        let subnet = s.parsed::<Ipv4Net>(&keys[2], "10.77.0.0/24");
        let subnet = s.required(subnet, &keys[2], "10.77.0.0/24");
        let gateway = s.parsed::<GatewayRule>(&keys[3], "10.77.0.1").unwrap_or_default();
        match (driver, &parent) {
            (Some(Driver::Bridge), Some(_)) => s.problem(&keys[1], "a bridge has none; leave it out"),
            (Some(driver @ (Driver::Macvlan | Driver::Ipvlan)), None) => s.problem(
                &keys[1],
                format_args!(
                    "is missing: {driver} needs the interface to live on, such as parent = \"eth0\""
                ),
            ),
            (Some(Driver::Bridge), None) | (Some(Driver::Macvlan | Driver::Ipvlan), Some(_)) | (None, _) => {}
        }
        if let (Some(driver), Some(subnet)) = (driver, subnet) {
            networks.push(NetworkRule {
                driver,
                parent,
                subnet,
                gateway,
            });
        }
    }
    networks
}

/// Without a word of this machine's operator, none: a network is a wire into the machine.
fn allowed(list: Option<Vec<Allow>>) -> Networks {
    let (mut networks, mut controllers) = (Vec::new(), Vec::new());
    for entry in list.unwrap_or_default() {
        match entry {
            Allow::Any => return Networks::Any,
            Allow::Controller(node) => controllers.push(node),
            Allow::Network(id) => networks.push(id),
        }
    }
    Networks::Only {
        networks,
        controllers,
    }
}

enum Allow {
    Any,
    Controller(NodeId),
    Network(NetworkId),
}

impl FromStr for Allow {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let said = |error: picket_zerotier::IdError| error.to_string();
        match text.strip_suffix('*') {
            Some("") => Ok(Self::Any),
            Some(controller) => controller.parse().map(Self::Controller).map_err(said),
            None => text.parse().map(Self::Network).map_err(said),
        }
    }
}

struct Level(LevelFilter);

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = ["off", "error", "warn", "info", "debug", "trace"].contains(&text);
        let wrong = || format!("`{text}` is no level: use off, error, warn, info, debug or trace");
        if !known {
            return Err(wrong());
        }
        text.parse().map(Self).map_err(|_| wrong())
    }
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(format!("`{other}` is no format: use text or json")),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

struct Address(String);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no address: use HOST:PORT");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let bracketed = host.starts_with('[') && host.ends_with(']');
        if host.is_empty() || host.contains(char::is_whitespace) || (host.contains(':') && !bracketed) {
            return Err(wrong());
        }
        match port.parse::<u16>() {
            Ok(0) | Err(_) => Err(wrong()),
            Ok(_) => Ok(Self(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use figment::providers::{Format as _, Toml};

    use super::*;

    fn config(text: &str) -> Result<Config, SettingsError> {
        Config::resolve(Settings::from_layers(text, Path::new("agent.toml"), Toml::string(""), &[]).unwrap())
    }

    #[test]
    fn an_empty_file_gives_defaults_that_put_nothing_on_a_real_wire() {
        let config = config("").unwrap();
        assert_eq!(config.state_dir, Path::new("/var/lib/picket-agent"));
        assert_eq!(config.deckies.images, ["picket-decoy:*".parse().unwrap()]);
        assert!(config.deckies.networks.is_empty());
        assert_eq!(config.deckies.most, 64);
        assert!(!config.networks.allow("5350d87547c880cb".parse().unwrap()));
        assert!(config.zerotier.is_some() && config.docker.is_some());
    }

    #[test]
    fn every_problem_comes_at_once() {
        let text = r#"
            state_dir = "relative"
            statedir = "x"
            [log]
            level = "loud"
            [master]
            addresses = ["nowhere", "master:7443"]
            [networks]
            allow = ["5350d87547c880"]
            [[deckies.networks]]
            driver = "macvlan"
            subnet = "10.77.0.0/24"
            [zerotier]
            adress = "127.0.0.1"
        "#;
        let error = config(text).unwrap_err().to_string();
        for wanted in [
            "state_dir (from agent.toml): relative is not an absolute path",
            "statedir (from agent.toml): is no setting",
            "`loud` is no level",
            "`nowhere` is no address",
            "a network id has 16 hex digits",
            "macvlan needs the interface",
            "zerotier.adress (from agent.toml): is no setting",
        ] {
            assert!(error.contains(wanted), "{wanted:?} not in {error}");
        }
    }

    #[test]
    fn only_listed_networks_are_allowed_unless_a_star_is_listed() {
        let network: NetworkId = "5350d87547c880cb".parse().unwrap();
        let other: NetworkId = "5350d87547c880cc".parse().unwrap();
        let listed = config("networks.allow = [\"5350d87547c880cb\"]")
            .unwrap()
            .networks;
        assert!(listed.allow(network) && !listed.allow(other));
        assert!(!config("networks.allow = []").unwrap().networks.allow(network));
        assert!(config("networks.allow = [\"*\"]").unwrap().networks.allow(other));
        let controller = config("networks.allow = [\"5350d87547*\"]").unwrap().networks;
        assert!(controller.allow(network) && controller.allow(other));
        assert!(!controller.allow("5350d87548c880cb".parse().unwrap()));
        assert!(config("networks.allow = [\"5350*\"]").is_err());
    }

    #[test]
    fn a_network_gives_private_addresses_and_what_is_listed_beside_them() {
        assert!(config("").unwrap().take.is_empty());
        let listed = config("networks.take = [\"dns\", \"global\"]").unwrap().take;
        assert_eq!(listed, [Take::Global, Take::Dns].into());
        let error = config("networks.take = [\"managed\"]").unwrap_err().to_string();
        assert!(error.contains("use global, default or dns"), "{error}");
    }

    #[test]
    fn a_way_out_is_named_by_the_network_and_so_is_how_many_deckies_there_may_be() {
        let gateway = |line: &str| {
            let text = format!(
                "deckies.most = 3\n[[deckies.networks]]\ndriver = \"bridge\"\nsubnet = \"10.77.0.0/24\"\n{line}"
            );
            let deckies = config(&text).unwrap().deckies;
            (deckies.most, deckies.networks[0].gateway)
        };
        assert_eq!(gateway(""), (3, GatewayRule::Never));
        assert_eq!(gateway("gateway = true"), (3, GatewayRule::Any));
        assert_eq!(
            gateway("gateway = \"10.77.0.1\""),
            (3, GatewayRule::At([10, 77, 0, 1].into()))
        );
    }
}
