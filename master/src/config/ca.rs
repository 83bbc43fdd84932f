//! The settings of the CA's key: `[ca]` and `[ca.transit]`.

use std::{ffi::OsString, fmt, os::unix::ffi::OsStringExt as _, path::PathBuf, time::Duration};

use picket_durable::SecretFile;
use picket_pki::Passphrase;
use picket_settings::Settings;
use picket_transit::{Address, Name, Place};
use zeroize::Zeroizing;

use crate::signer::{CREDENTIAL, CaKey, PassphraseFrom, VARIABLE};

/// The credential with the token of the transit engine, when no file is named.
const TOKEN_CREDENTIAL: &str = "ca-token";
/// The longest and the shortest time that one request to the engine may be given.
const TIMEOUTS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));

/// What the process was given beside its settings.
#[derive(Default)]
pub struct Given {
    /// Where the service manager put its credentials.
    pub credentials: Option<PathBuf>,
    /// The passphrase, as the environment has it.
    pub passphrase: Option<Zeroizing<Vec<u8>>>,
}

impl Given {
    /// What this process was given.
    #[must_use]
    pub fn to_this_process() -> Self {
        let bytes = |text: OsString| Zeroizing::new(text.into_vec());
        Self {
            credentials: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
            passphrase: std::env::var_os(VARIABLE).map(bytes),
        }
    }

    /// A credential of this name, when there is one.
    pub(super) fn credential(&self, name: &str) -> Option<SecretFile> {
        let path = self.credentials.as_ref()?.join(name);
        path.exists().then_some(SecretFile::Credential(path))
    }
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Given")
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

/// How the settings want the CA's key kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    Encrypted,
    Plain,
    Transit,
}

impl std::str::FromStr for Kept {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "encrypted" => Ok(Self::Encrypted),
            "plain" => Ok(Self::Plain),
            "transit" => Ok(Self::Transit),
            other => Err(format!("`{other}` is neither encrypted, plain nor transit")),
        }
    }
}

/// Takes the settings of the CA's key.
pub(super) fn resolve(from: &mut Settings, given: &Given) -> Option<CaKey> {
    let kept = from.parsed("ca.key", "encrypted").unwrap_or(Kept::Encrypted);
    let file = from.path("ca.passphrase_file", "/etc/picket/ca.passphrase");
    let place = place(from, given, kept);
    match kept {
        Kept::Encrypted => {
            let file = file
                .map(SecretFile::Named)
                .or_else(|| given.credential(CREDENTIAL));
            let environment = given.passphrase.as_ref().map(|bytes| Passphrase::new(bytes));
            Some(CaKey::Encrypted(PassphraseFrom { file, environment }))
        }
        Kept::Plain => {
            if file.is_some() {
                from.problem(
                    "ca.passphrase_file",
                    "is of no use with ca.key = \"plain\"; remove one of them",
                );
            }
            Some(CaKey::Plain)
        }
        Kept::Transit => {
            if file.is_some() {
                from.problem(
                    "ca.passphrase_file",
                    "is of no use with ca.key = \"transit\"; remove it",
                );
            }
            place.map(|place| CaKey::Transit(Box::new(place)))
        }
    }
}

fn place(from: &mut Settings, given: &Given, kept: Kept) -> Option<Place> {
    let address = from.parsed::<Address>("ca.transit.address", "https://bao.example.org:8200");
    let mount = from.parsed::<Name>("ca.transit.mount", "transit");
    let key = from.parsed::<Name>("ca.transit.key", "picket-ca");
    let namespace = from.parsed::<Name>("ca.transit.namespace", "team-a");
    let authority = from.path("ca.transit.authority", "/etc/picket/transit-ca.pem");
    let token = from.path("ca.transit.token_file", "/etc/picket/transit.token");
    let timeout = from.span("ca.transit.timeout", "5s");
    if kept != Kept::Transit {
        for (key, set) in [
            ("ca.transit.address", address.is_some()),
            ("ca.transit.mount", mount.is_some()),
            ("ca.transit.key", key.is_some()),
            ("ca.transit.namespace", namespace.is_some()),
            ("ca.transit.authority", authority.is_some()),
            ("ca.transit.token_file", token.is_some()),
            ("ca.transit.timeout", timeout.is_some()),
        ] {
            if set {
                from.problem(
                    key,
                    "is of no use without ca.key = \"transit\"; set that, or remove this",
                );
            }
        }
        return None;
    }
    let address = from.required(address, "ca.transit.address", "https://bao.example.org:8200");
    let authority = from.required(authority, "ca.transit.authority", "/etc/picket/transit-ca.pem");
    let token = token
        .map(SecretFile::Named)
        .or_else(|| given.credential(TOKEN_CREDENTIAL));
    let token = from.required(token, "ca.transit.token_file", "/etc/picket/transit.token");
    let timeout = timeout.unwrap_or(Duration::from_secs(5));
    if !(TIMEOUTS.0..=TIMEOUTS.1).contains(&timeout) {
        from.problem(
            "ca.transit.timeout",
            "is not between 100ms and 60s; for example timeout = \"5s\"",
        );
    }
    Some(Place {
        address: address?,
        mount: mount.or_else(|| "transit".parse().ok())?,
        key: key.or_else(|| "picket-ca".parse().ok())?,
        namespace,
        authority: authority?,
        token: token?,
        timeout,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn resolved(text: &str, given: &Given) -> Result<CaKey, String> {
        let settings = Settings::from_text(text, Path::new("master.toml")).unwrap();
        Config::resolve_given(settings, given)
            .map(|config| config.ca)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_key_is_encrypted_unless_the_settings_say_otherwise() {
        let none = Given::default();
        assert_eq!(
            resolved("", &none).unwrap(),
            CaKey::Encrypted(PassphraseFrom::default())
        );
        assert_eq!(resolved("ca.key = \"plain\"", &none).unwrap(), CaKey::Plain);
        let error = resolved("ca.key = \"none\"", &none).unwrap_err();
        assert!(error.contains("neither encrypted, plain nor transit"), "{error}");
        let error = resolved("[ca]\nkey = \"plain\"\npassphrase_file = \"/x\"", &none).unwrap_err();
        assert!(error.contains("remove one of them"), "{error}");
    }

    #[test]
    fn the_passphrase_is_looked_for_in_the_file_then_the_credential_then_the_environment() {
        let dir = tempfile::tempdir().unwrap();
        let given = Given {
            credentials: Some(dir.path().to_owned()),
            passphrase: Some(Zeroizing::new(b"from the environment".to_vec())),
        };
        let file = |text: &str| match resolved(text, &given).unwrap() {
            CaKey::Encrypted(from) => from.file,
            other @ (CaKey::Plain | CaKey::Transit(_)) => panic!("{other:?}"),
        };
        assert_eq!(file(""), None, "no such credential was given");
        let credential = dir.path().join(CREDENTIAL);
        std::fs::write(&credential, "from the credential").unwrap();
        assert_eq!(file(""), Some(SecretFile::Credential(credential)));
        assert_eq!(
            file("ca.passphrase_file = \"/etc/p\""),
            Some(SecretFile::Named("/etc/p".into()))
        );
    }

    #[test]
    fn a_passphrase_in_the_settings_is_refused_and_not_shown() {
        let error = resolved("ca.passphrase = \"hunter2hunter2\"", &Given::default()).unwrap_err();
        assert!(
            error.contains("ca.passphrase") && !error.contains("hunter2"),
            "{error}"
        );
    }

    #[test]
    fn a_transit_engine_needs_an_address_a_ca_and_a_token() {
        let error = resolved("ca.key = \"transit\"", &Given::default()).unwrap_err();
        for key in [
            "ca.transit.address",
            "ca.transit.authority",
            "ca.transit.token_file",
        ] {
            assert!(error.contains(&format!("{key}: is missing")), "{error}");
        }
        let text = "[ca]\nkey = \"transit\"\n[ca.transit]\naddress = \"https://bao.example.org\"\n\
                    authority = \"/a\"\ntoken_file = \"/t\"";
        let CaKey::Transit(place) = resolved(text, &Given::default()).unwrap() else {
            panic!("no engine");
        };
        assert_eq!(place.address.to_string(), "https://bao.example.org:8200");
        assert_eq!(
            (place.mount.to_string(), place.key.to_string()),
            ("transit".into(), "picket-ca".into())
        );
        assert_eq!(place.timeout, Duration::from_secs(5));
        let error = resolved(&text.replace("https", "http"), &Given::default()).unwrap_err();
        assert!(error.contains("no address over HTTPS"), "{error}");
        let error = resolved("ca.transit.key = \"picket-ca\"", &Given::default()).unwrap_err();
        assert!(error.contains("is of no use without"), "{error}");
    }

    #[test]
    fn no_secret_is_in_what_is_printed() {
        let given = Given {
            credentials: None,
            passphrase: Some(Zeroizing::new(b"hunter2hunter2".to_vec())),
        };
        let config = resolved("", &given).unwrap();
        let printed = format!("{given:?} {config:?}");
        assert!(
            !printed.contains("hunter2") && printed.contains("Passphrase(..)"),
            "{printed}"
        );
    }
}
