//! A site of real `zerotier-one` processes, each in a home and a network namespace of its own.
//!
//! For tests and demonstrations on Linux. It needs root, `ip` and `/dev/net/tun`, and no internet: the site has its own
//! root node, and a `planet` file in every home names that one instead of the public ones. The machine's own ZeroTier
//! is not touched.
//!
//! ```text
//! this namespace ── veth ──┐
//! root   in its own ─ veth ┤ bridge in the hub's namespace, 10.231.X.0/24
//! node 0 in its own ─ veth ┤
//! node 1 in its own ─ veth ┘
//! ```
//!
//! The bridge has a namespace of its own because a machine with Docker filters what crosses bridges in its first one.
//!
//! A service answers on its node's address in the hub, and `settings.allowManagementFrom` of its `local.conf` lists this
//! side of the veth, so [`Site::home`] carries an address and nothing has to run inside a namespace to call it. The same
//! service still answers on loopback inside its namespace, which is where an agent finds it when it is started with
//! `ip netns exec` and [`Site::namespace`].

use std::{
    fs::{self, File},
    io,
    net::{IpAddr, Ipv4Addr},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::{self, Instant};

use crate::{
    home::Home,
    ids::{IdError, NetworkId, NodeId},
    service::Service,
};

/// How long a node may take from its start until it has heard from the root.
const ONLINE_WITHIN: Duration = Duration::from_secs(60);
/// How often it is asked meanwhile.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// How many nodes a site may have: as many as its addresses, less the root and this side.
const MAX_NODES: usize = 200;
/// The UDP and TCP port of every service; each has a namespace, so they do not meet.
const PORT: u16 = 9993;
/// The second UDP port. Left alone it is random, and members go on sending to a restarted controller's old one.
const SECOND_PORT: u16 = 9994;
/// The id of the site's planet; any but the public one's.
const PLANET: &str = "7069636b6574";

/// A site of real nodes. Dropping it ends its processes and removes its namespaces; the homes stay.
#[derive(Debug)]
pub struct Site {
    binary: PathBuf,
    /// The third octet of the hub's range, which also makes the names of this site's namespaces its own.
    octet: u8,
    root: Resident,
    nodes: Vec<Resident>,
    /// Last, so that it is dropped last: whoever claims the range next finds nothing of this site.
    hub: Namespace,
}

/// Why a site of real nodes cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// The site would have no nodes, or too many.
    #[error("a site of {0} nodes; have 1 to {MAX_NODES}")]
    Count(usize),
    /// All ranges are in use.
    #[error(
        "every range 10.231.X.0/24 is in use on this machine; remove left-over namespaces (`ip netns list`)"
    )]
    NoRange,
    /// A command could not be started.
    #[error("run `{command}`; install what it needs, and run as root")]
    Start {
        /// The command.
        command: String,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// A command said no.
    #[error("`{command}` failed: {said}; run as root on a machine with /dev/net/tun")]
    Failed {
        /// The command.
        command: String,
        /// Its last words.
        said: String,
    },
    /// A file of a home could not be written or read.
    #[error("{}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The tool that makes identities and worlds said something else than expected.
    #[error("`zerotier-one -i {0}` printed something else than expected; try version 1.14.1")]
    Tool(&'static str),
    /// An identity starts with something that is no node id.
    #[error("read an identity that zerotier-one made")]
    Identity(#[source] IdError),
    /// A node is not up in time.
    #[error("the node in {} was not online within {ONLINE_WITHIN:?}; see its zerotier.log", home.display())]
    NotOnline {
        /// Its home.
        home: PathBuf,
    },
}

/// A node: its home, its namespace, its process.
#[derive(Debug)]
struct Resident {
    namespace: Namespace,
    home: PathBuf,
    address: Ipv4Addr,
    id: NodeId,
    process: Option<Child>,
}

/// A network namespace that is removed when this is dropped.
#[derive(Debug)]
struct Namespace(String);

impl Site {
    /// Starts a root and `count` nodes with homes below `directory`, and returns when all are online.
    ///
    /// Blocks while it runs `ip` and makes identities, up to a second for each node.
    ///
    /// # Errors
    /// Fails without the rights or the tools for it; what was made by then is removed.
    pub async fn start(binary: &Path, directory: &Path, count: usize) -> Result<Self, SiteError> {
        if !(1..=MAX_NODES).contains(&count) {
            return Err(SiteError::Count(count));
        }
        // Commands run in other directories than this process.
        let whole = |path: &Path| {
            std::path::absolute(path).map_err(|cause| SiteError::File {
                path: path.to_owned(),
                cause,
            })
        };
        let directory = &whole(directory)?;
        let binary = &if binary.components().count() > 1 {
            whole(binary)?
        } else {
            binary.to_owned()
        };
        let (octet, hub) = claim()?;
        let tag = &hub.0;
        run("ip", &["-n", tag, "link", "set", "lo", "up"])?;
        run("ip", &["-n", tag, "link", "add", "br0", "type", "bridge"])?;
        run("ip", &["-n", tag, "link", "set", "br0", "up"])?;
        let here = format!("pz{octet}");
        run(
            "ip",
            &[
                "link", "add", &here, "type", "veth", "peer", "name", "here", "netns", tag,
            ],
        )?;
        run("ip", &["-n", tag, "link", "set", "here", "master", "br0", "up"])?;
        run(
            "ip",
            &[
                "addr",
                "add",
                &format!("{}/24", Self::here_in(octet)),
                "dev",
                &here,
            ],
        )?;
        run("ip", &["link", "set", &here, "up"])?;

        let root = Resident::settle(binary, &hub, directory.join("root"), octet, 1)?;
        let planet = planet(binary, &root)?;
        let nodes = (0..count)
            .map(|index| {
                let host = u8::try_from(index + 2).map_err(|_| SiteError::Count(count))?;
                Resident::settle(binary, &hub, directory.join(format!("node-{index}")), octet, host)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let mut site = Self {
            binary: binary.clone(),
            octet,
            hub,
            root,
            nodes,
        };
        for resident in std::iter::once(&mut site.root).chain(&mut site.nodes) {
            let path = resident.home.join("planet");
            fs::write(&path, &planet).map_err(|cause| SiteError::File { path, cause })?;
            resident.run(&site.binary)?;
        }
        for index in 0..count {
            site.online(index).await?;
        }
        Ok(site)
    }

    /// Returns the home of a node, reached through the hub.
    ///
    /// # Panics
    /// When there is no such node; as do all methods that take an index.
    #[must_use]
    pub fn home(&self, index: usize) -> Home {
        self.nodes[index].home()
    }

    /// Returns the id of a node.
    #[must_use]
    pub fn id(&self, index: usize) -> NodeId {
        self.nodes[index].id
    }

    /// Returns the namespace a node runs in, for `ip netns exec`.
    #[must_use]
    pub fn namespace(&self, index: usize) -> &str {
        &self.nodes[index].namespace.0
    }

    /// Returns this side's address in the hub: where a daemon listens that agents in the namespaces are to reach.
    #[must_use]
    pub fn here(&self) -> Ipv4Addr {
        Self::here_in(self.octet)
    }

    /// Returns the namespace of the bridge.
    #[must_use]
    pub fn hub(&self) -> &str {
        &self.hub.0
    }

    /// Ends the process of a node.
    pub fn stop(&mut self, index: usize) {
        self.nodes[index].kill();
    }

    /// Starts the process of a node, unless it runs, and returns when it is online.
    ///
    /// # Errors
    /// Fails when the process cannot be started or does not come online.
    pub async fn start_again(&mut self, index: usize) -> Result<(), SiteError> {
        let binary = self.binary.clone();
        self.nodes[index].run(&binary)?;
        self.online(index).await
    }

    /// Opens a TCP connection from a node to an address on a ZeroTier network, where another node's service listens as on
    /// all its addresses, and returns whether that went through within a second. Blocks meanwhile.
    ///
    /// # Errors
    /// Fails when the probe cannot be run.
    pub fn reaches(&self, from: usize, to: IpAddr) -> Result<bool, SiteError> {
        // Every Linux machine has bash; ping is missing on small ones, and needs rights of its own.
        let probe = format!("exec 3<>/dev/tcp/{to}/{PORT}");
        let arguments = [
            "netns",
            "exec",
            self.namespace(from),
            "timeout",
            "1",
            "bash",
            "-c",
            &probe,
        ];
        Ok(output("ip", &arguments)?.status.success())
    }

    /// Returns the first managed IPv4 address of a node on a network, once it has one.
    pub async fn address(&self, index: usize, network: NetworkId) -> Option<IpAddr> {
        let joined = self
            .home(index)
            .service()
            .ok()?
            .node()
            .network(network)
            .await
            .ok()?;
        let addresses = joined
            .addresses
            .iter()
            .filter_map(|address| address.split('/').next()?.parse().ok());
        addresses.into_iter().find(IpAddr::is_ipv4)
    }

    fn here_in(octet: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 231, octet, 254)
    }

    async fn online(&self, index: usize) -> Result<(), SiteError> {
        let home = self.home(index);
        let deadline = Instant::now() + ONLINE_WITHIN;
        while Instant::now() < deadline {
            // Until the files are there and the port answers, there is nobody to ask.
            if let Ok(service) = home.service()
                && is_online(&service).await
            {
                return Ok(());
            }
            time::sleep(ASK_EVERY).await;
        }
        Err(SiteError::NotOnline {
            home: home.directory().to_owned(),
        })
    }
}

async fn is_online(service: &Service) -> bool {
    service.node().status().await.is_ok_and(|status| status.online)
}

impl Resident {
    /// Makes a namespace with a link to the hub, and a home with an identity and a configuration.
    fn settle(binary: &Path, hub: &Namespace, home: PathBuf, octet: u8, host: u8) -> Result<Self, SiteError> {
        let namespace = Namespace::make(format!("{}-{host}", hub.0))?;
        let address = Ipv4Addr::new(10, 231, octet, host);
        let (inside, port) = (namespace.0.as_str(), format!("port{host}"));
        run("ip", &["-n", inside, "link", "set", "lo", "up"])?;
        run(
            "ip",
            &[
                "-n", inside, "link", "add", "up0", "type", "veth", "peer", "name", &port, "netns", &hub.0,
            ],
        )?;
        run("ip", &["-n", &hub.0, "link", "set", &port, "master", "br0", "up"])?;
        run(
            "ip",
            &[
                "-n",
                inside,
                "addr",
                "add",
                &format!("{address}/24"),
                "dev",
                "up0",
            ],
        )?;
        run("ip", &["-n", inside, "link", "set", "up0", "up"])?;

        let file = |path: PathBuf| move |cause| SiteError::File { path, cause };
        fs::create_dir_all(&home).map_err(file(home.clone()))?;
        let (secret, public) = (home.join("identity.secret"), home.join("identity.public"));
        if !secret.exists() {
            tool(
                binary,
                &["generate", &secret.to_string_lossy(), &public.to_string_lossy()],
                &home,
            )?;
        }
        let identity = fs::read_to_string(&public).map_err(file(public))?;
        let id = identity
            .split(':')
            .next()
            .unwrap_or_default()
            .parse()
            .map_err(SiteError::Identity)?;
        let conf = json!({ "settings": {
            "primaryPort": PORT, "secondaryPort": SECOND_PORT, "portMappingEnabled": false,
            "allowTcpFallbackRelay": false, "softwareUpdate": "disable",
            "allowManagementFrom": [format!("{}/32", Site::here_in(octet))],
        }});
        let path = home.join("local.conf");
        fs::write(&path, conf.to_string()).map_err(file(path))?;
        Ok(Self {
            namespace,
            home,
            address,
            id,
            process: None,
        })
    }

    fn home(&self) -> Home {
        Home::new(&self.home).reached_at(self.address.into())
    }

    fn run(&mut self, binary: &Path) -> Result<(), SiteError> {
        if self.process.is_some() {
            return Ok(());
        }
        let log = self.home.join("zerotier.log");
        let open = || File::options().create(true).append(true).open(&log);
        let (out, err) = open()
            .and_then(|out| Ok((out, open()?)))
            .map_err(|cause| SiteError::File {
                path: log.clone(),
                cause,
            })?;
        let mut command = Command::new("ip");
        // `ip netns exec` becomes the command it is given, so what is killed later is the service itself.
        command
            .args(["netns", "exec", &self.namespace.0])
            .arg(binary)
            .arg("-U")
            .arg(&self.home);
        let started = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn();
        self.process = Some(started.map_err(|cause| SiteError::Start {
            command: format!("{command:?}"),
            cause,
        })?);
        Ok(())
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended by itself; either way it is gone after the wait.
            drop(process.kill());
            drop(process.wait());
        }
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Namespace {
    fn make(name: String) -> Result<Self, SiteError> {
        run("ip", &["netns", "add", &name])?;
        Ok(Self(name))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Nothing is left to do about a namespace that does not go; its name says whose it was.
        drop(output("ip", &["netns", "delete", &self.0]));
    }
}

/// Claims a range nobody uses: whoever makes the namespace named for it has it.
fn claim() -> Result<(u8, Namespace), SiteError> {
    let taken = output("ip", &["-o", "-4", "addr"])?;
    let taken = String::from_utf8_lossy(&taken.stdout).into_owned();
    let first = u8::try_from(std::process::id() % 250).unwrap_or_default();
    for step in 0..250 {
        let octet = (first + step) % 250;
        if taken.contains(&format!(" 10.231.{octet}.")) {
            continue;
        }
        match Namespace::make(format!("picket-zt{octet}")) {
            Ok(hub) => return Ok((octet, hub)),
            // Another site has it.
            Err(SiteError::Failed { said, .. }) if said.contains("File exists") => {}
            Err(error) => return Err(error),
        }
    }
    Err(SiteError::NoRange)
}

/// Makes a signed world whose only root is this node, to be put in the place of the public one.
fn planet(binary: &Path, root: &Resident) -> Result<Vec<u8>, SiteError> {
    let public = root.home.join("identity.public");
    let made = tool(binary, &["initmoon", &public.to_string_lossy()], &root.home)?;
    let mut world: Value = serde_json::from_slice(&made.stdout).map_err(|_| SiteError::Tool("initmoon"))?;
    world["worldType"] = "planet".into();
    world["id"] = PLANET.into();
    world["roots"][0]["stableEndpoints"] = json!([format!("{}/{PORT}", root.address)]);
    let path = root.home.join("world.json");
    fs::write(&path, world.to_string()).map_err(|cause| SiteError::File {
        path: path.clone(),
        cause,
    })?;
    let made = tool(binary, &["genmoon", &path.to_string_lossy()], &root.home);
    // It holds the key that signs worlds, which this site needs once.
    fs::remove_file(&path).map_err(|cause| SiteError::File { path, cause })?;
    made?;
    let path = root.home.join(format!("{PLANET:0>16}.moon"));
    fs::read(&path).map_err(|cause| SiteError::File { path, cause })
}

fn tool(binary: &Path, arguments: &[&str], directory: &Path) -> Result<Output, SiteError> {
    let mut command = Command::new(binary);
    checked(command.arg("-i").args(arguments).current_dir(directory))
}

fn run(program: &str, arguments: &[&str]) -> Result<(), SiteError> {
    checked(Command::new(program).args(arguments)).map(drop)
}

fn checked(command: &mut Command) -> Result<Output, SiteError> {
    let done = command.stdin(Stdio::null()).process_group(0).output();
    let done = done.map_err(|cause| SiteError::Start {
        command: format!("{command:?}"),
        cause,
    })?;
    if done.status.success() {
        return Ok(done);
    }
    let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    Err(SiteError::Failed {
        command: format!("{command:?}"),
        said,
    })
}

fn output(program: &str, arguments: &[&str]) -> Result<Output, SiteError> {
    let mut command = Command::new(program);
    // A group of its own: a signal to ours, which makes us clean up, must not end the commands that do it.
    command.process_group(0);
    let done = command.args(arguments).stdin(Stdio::null()).output();
    done.map_err(|cause| SiteError::Start {
        command: format!("{command:?}"),
        cause,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_site_without_nodes_or_with_more_than_it_has_addresses_is_refused() {
        for count in [0, MAX_NODES + 1] {
            let site = Site::start(Path::new("zerotier-one"), Path::new("."), count).await;
            assert!(matches!(site, Err(SiteError::Count(refused)) if refused == count));
        }
    }
}
