//! The settings of ZeroTier Central: `[central]`.

use std::{fmt, path::PathBuf, str::FromStr};

use http::Uri;
use picket_durable::SecretFile;
use picket_settings::Settings;

use super::Given;

/// The credential with the token, when no file is named.
const CREDENTIAL: &str = "central-token";
/// Where Central answers.
const API: &str = "https://api.zerotier.com";
/// Who vouches for the public server: the list that Debian's `ca-certificates` makes.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// An account in ZeroTier Central.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Where its API is.
    pub api: Api,
    /// Where its token is read from, at every pass: another one may be put there at any time.
    pub token: SecretFile,
    /// Who vouches for the server: a file with CA certificates as PEM.
    pub authorities: PathBuf,
}

/// A host and a port over HTTPS. The paths there are those of API v1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Api {
    host: String,
    port: u16,
}

impl Api {
    /// The name that the server's certificate must have.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for Api {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Not what was written: somebody may have put a password into it.
        let wrong = || {
            "is no address over HTTPS: write https://HOST or https://HOST:PORT and nothing after it"
                .to_owned()
        };
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let authority = uri.authority().ok_or_else(wrong)?;
        if uri.scheme_str() != Some("https")
            || !matches!(uri.path(), "" | "/")
            || uri.query().is_some()
            || authority.as_str().contains('@')
        {
            return Err(wrong());
        }
        Ok(Self {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(443),
        })
    }
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", super::with_port(&self.host, self.port))
    }
}

/// Takes the settings of Central. There is an account when there is a token.
pub(super) fn resolve(from: &mut Settings, given: &Given) -> Option<Account> {
    let token = from.path("central.token_file", "/etc/picket/central.token");
    let api = from.parsed::<Api>("central.api", API);
    let authorities = from.path("central.ca_file", AUTHORITIES);
    let token = token
        .map(SecretFile::Named)
        .or_else(|| given.credential(CREDENTIAL));
    let Some(token) = token else {
        for (key, set) in [
            ("central.api", api.is_some()),
            ("central.ca_file", authorities.is_some()),
        ] {
            if set {
                from.problem(
                    key,
                    "is of no use without central.token_file; set that, or remove this",
                );
            }
        }
        return None;
    };
    if let SecretFile::Named(path) = &token
        && path.exists()
        && let Err(error) = token.read(MOST_TOKEN)
    {
        from.problem("central.token_file", error);
    }
    Some(Account {
        api: api.or_else(|| API.parse().ok())?,
        token,
        authorities: authorities.unwrap_or_else(|| AUTHORITIES.into()),
    })
}

/// The longest token that is read.
pub const MOST_TOKEN: u64 = 4096;

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt as _, path::Path};

    use super::*;
    use crate::config::Config;

    fn resolved(text: &str) -> Result<Option<Account>, String> {
        let settings = Settings::from_text(text, Path::new("master.toml")).unwrap();
        Config::resolve(settings)
            .map(|config| config.central)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn there_is_no_account_without_a_token_and_its_other_settings_say_so() {
        assert_eq!(resolved("").unwrap(), None);
        let error =
            resolved("[central]\napi = \"https://central.example.org\"\nca_file = \"/x\"").unwrap_err();
        for key in ["central.api", "central.ca_file", "2 problems"] {
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn an_account_needs_nothing_but_its_token() {
        let account = resolved("central.token_file = \"/nowhere/central.token\"")
            .unwrap()
            .unwrap();
        assert_eq!(account.api.to_string(), "https://api.zerotier.com:443");
        assert_eq!(account.api.host(), "api.zerotier.com");
    }

    #[test]
    fn an_api_is_https_and_has_no_password_in_it() {
        for wrong in [
            "http://central.example.org",
            "https://central.example.org/api/v1",
            "https://me:secret@central.example.org",
            "central",
        ] {
            let error = resolved(&format!("[central]\ntoken_file = \"/t\"\napi = \"{wrong}\"")).unwrap_err();
            assert!(error.contains("is no address over HTTPS"), "{error}");
        }
    }

    #[test]
    fn a_token_that_others_can_read_is_refused_and_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("central.token");
        std::fs::write(&file, "hunter2hunter2").unwrap();
        let text = format!("central.token_file = {file:?}");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = resolved(&text).unwrap_err();
        assert!(
            error.contains("central.token_file") && !error.contains("hunter2"),
            "{error}"
        );
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let account = resolved(&text).unwrap();
        assert!(!format!("{account:?}").contains("hunter2"));
    }
}
