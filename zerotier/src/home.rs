//! The home directory of a `zerotier-one`: where its token and its port are found.

use std::{
    fmt, fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    dial::Tcp,
    service::{Service, Slots},
};

/// The file that holds the token of the API.
const TOKEN: &str = "authtoken.secret";
/// The file that holds the node's identity with its private keys.
#[cfg(feature = "identity")]
const IDENTITY: &str = "identity.secret";
/// The file that holds the port a running service has bound.
const PORT: &str = "zerotier-one.port";
/// A token is 24 characters; a file much longer than that is something else.
const MAX_TOKEN: usize = 256;

/// A home directory, and the address its service is reached at. The clients that clones give share a limit of requests
/// under way.
#[derive(Debug, Clone)]
pub struct Home {
    directory: PathBuf,
    address: IpAddr,
    slots: Slots,
}

/// The secret that opens a service's API. It is never shown.
#[derive(Clone)]
pub struct Token(String);

/// Why a home directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// The directory is not there.
    #[error("no ZeroTier home at {}; install and start zerotier-one, or set the directory it runs in", path.display())]
    NoDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// The directory is there and a file in it is not.
    #[error("no {} yet; a zerotier-one that has run in this directory has written it, so start the service", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A file is there and may not be read.
    #[error("read {}; run as root, or give this user access to the file", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The file of the node's identity holds something else.
    #[cfg(feature = "identity")]
    #[error("{} holds no identity that can be used; stop zerotier-one, bring the file back from a backup, or remove it and identity.public for a new identity, and start it", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        cause: crate::identity::IdentityError,
    },
    /// A file does not hold what it should.
    #[error("{} holds {what}; restart zerotier-one so that it writes the file again", path.display())]
    Nonsense {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
}

impl Home {
    /// Names a home directory whose service is reached over loopback.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            slots: Slots::default(),
        }
    }

    /// Reaches the service at another address than loopback.
    ///
    /// A service answers there only when its `local.conf` lists the caller in `settings.allowManagementFrom`.
    #[must_use]
    pub fn reached_at(self, address: IpAddr) -> Self {
        Self { address, ..self }
    }

    /// Returns the directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Reads the token.
    ///
    /// # Errors
    /// Fails when the directory or the file is missing, unreadable, or holds something else.
    pub fn token(&self) -> Result<Token, HomeError> {
        let text = self.read(TOKEN)?;
        Token::new(text.trim()).ok_or_else(|| HomeError::Nonsense {
            path: self.directory.join(TOKEN),
            what: "no token: a token is one word of plain characters",
        })
    }

    /// Reads where the service listens.
    ///
    /// # Errors
    /// Fails when the directory or the file is missing, unreadable, or holds no port.
    pub fn place(&self) -> Result<SocketAddr, HomeError> {
        let port = port(&self.read(PORT)?).ok_or_else(|| HomeError::Nonsense {
            path: self.directory.join(PORT),
            what: "no port: a port is a number from 1 to 65535",
        })?;
        Ok(SocketAddr::new(self.address, port))
    }

    /// Reads the node's identity with its private keys.
    ///
    /// # Errors
    /// Fails when the directory or the file is missing, unreadable, or holds something else.
    #[cfg(feature = "identity")]
    pub fn identity(&self) -> Result<crate::identity::Identity, HomeError> {
        let text = zeroize::Zeroizing::new(self.read(IDENTITY)?);
        text.trim_end().parse().map_err(|cause| HomeError::Identity {
            path: self.directory.join(IDENTITY),
            cause,
        })
    }

    /// Reads token and port and returns a client of the service.
    ///
    /// Both may change when the service is installed again: read them anew when a call is refused or reaches nobody.
    ///
    /// # Errors
    /// Fails when either cannot be read.
    pub fn service(&self) -> Result<Service, HomeError> {
        let dial = Arc::new(Tcp::new(self.place()?));
        Ok(Service::new(dial, self.token()?).sharing(self.slots.clone()))
    }

    fn read(&self, name: &str) -> Result<String, HomeError> {
        let path = self.directory.join(name);
        fs::read_to_string(&path).map_err(|cause| {
            if cause.kind() != io::ErrorKind::NotFound {
                HomeError::Unreadable { path, cause }
            } else if self.directory.exists() {
                HomeError::Missing { path }
            } else {
                HomeError::NoDirectory {
                    path: self.directory.clone(),
                }
            }
        })
    }
}

/// Reads what a service writes of the port it has bound.
#[must_use]
pub fn port(text: &str) -> Option<u16> {
    text.trim().parse().ok().filter(|port| *port != 0)
}

/// Reads the second port that a `local.conf` chooses; none where it chooses none.
///
/// # Errors
/// When the text is no JSON: the service then goes by none of it.
pub fn secondary_port(local_conf: &str) -> Result<Option<u16>, serde_json::Error> {
    let conf: serde_json::Value = serde_json::from_str(local_conf)?;
    let chosen = conf.pointer("/settings/secondaryPort");
    let port = chosen.and_then(serde_json::Value::as_u64);
    Ok(port
        .and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port != 0))
}

impl Token {
    /// Takes a token, unless it cannot be one: empty, over 256 bytes, or with blanks or control characters in it.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let plain =
            !text.is_empty() && text.len() <= MAX_TOKEN && text.bytes().all(|byte| byte.is_ascii_graphic());
        plain.then(|| Self(text.to_owned()))
    }

    /// Returns the secret itself, to be put into a request and nowhere else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::AT_ONCE;

    #[test]
    fn a_missing_directory_a_missing_file_and_a_bad_file_are_told_apart() {
        let root = tempfile::tempdir().unwrap();
        let home = Home::new(root.path().join("nowhere"));
        assert!(matches!(home.token(), Err(HomeError::NoDirectory { .. })));

        let home = Home::new(root.path());
        assert!(matches!(home.token(), Err(HomeError::Missing { path }) if path.ends_with(TOKEN)));
        fs::write(root.path().join(TOKEN), "two words\n").unwrap();
        assert!(matches!(home.token(), Err(HomeError::Nonsense { .. })));
        fs::write(root.path().join(TOKEN), "abc123\n").unwrap();
        assert_eq!(home.token().unwrap().expose(), "abc123");

        assert!(matches!(home.place(), Err(HomeError::Missing { path }) if path.ends_with(PORT)));
        fs::write(root.path().join(PORT), "70000").unwrap();
        assert!(matches!(home.place(), Err(HomeError::Nonsense { .. })));
        fs::write(root.path().join(PORT), "9993").unwrap();
        assert_eq!(home.place().unwrap(), "127.0.0.1:9993".parse().unwrap());
        let away = home.reached_at("10.1.2.3".parse().unwrap());
        assert_eq!(away.place().unwrap(), "10.1.2.3:9993".parse().unwrap());
    }

    #[test]
    fn all_clients_of_one_home_share_its_limit_of_requests_under_way() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join(TOKEN), "abc123\n").unwrap();
        fs::write(root.path().join(PORT), "9993").unwrap();
        let home = Home::new(root.path());
        let [one, other] = [home.clone(), home].map(|home| home.service().unwrap());
        let places: Vec<_> = (0..AT_ONCE).map(|_| one.place_for_one().unwrap()).collect();
        assert!(other.place_for_one().is_none());
        drop(places);
        assert!(other.place_for_one().is_some());
    }

    #[test]
    fn a_file_that_is_there_and_cannot_be_read_is_unreadable() {
        let root = tempfile::tempdir().unwrap();
        // A directory in the file's place: unreadable for root too.
        fs::create_dir(root.path().join(TOKEN)).unwrap();
        assert!(matches!(
            Home::new(root.path()).token(),
            Err(HomeError::Unreadable { .. })
        ));
    }

    #[cfg(feature = "fake")]
    #[test]
    fn an_identity_is_read_with_or_without_a_newline_and_damage_names_the_file() {
        let root = tempfile::tempdir().unwrap();
        let (home, file) = (Home::new(root.path()), root.path().join(IDENTITY));
        assert!(matches!(home.identity(), Err(HomeError::Missing { .. })));
        let lab = crate::fake::Lab::new();
        let identity = lab.secret(lab.grow()).unwrap();
        for end in ["", "\n"] {
            fs::write(&file, format!("{}{end}", *identity.to_secret_text())).unwrap();
            assert_eq!(home.identity().unwrap().public(), identity.public());
        }
        fs::write(&file, identity.public().to_string()).unwrap();
        let error = home.identity().unwrap_err();
        assert!(error.to_string().contains("identity.secret"), "{error}");
    }

    #[test]
    fn a_token_does_not_show_in_debug_output() {
        let token = Token::new("hush24").unwrap();
        assert!(!format!("{token:?}").contains("hush"));
    }
}
