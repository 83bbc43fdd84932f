//! Where the passphrase of the CA's key comes from: a file, a credential of the service manager, the environment.

use picket_durable::{FileError, SecretFile};
use picket_pki::{Passphrase, PassphraseError};
use zeroize::Zeroizing;

/// The name of the credential, as `LoadCredential=` in the unit has it.
pub const CREDENTIAL: &str = "ca-passphrase";
/// The environment variable. It is no setting, so that it appears in no report about settings.
pub const VARIABLE: &str = "PICKET_CA_PASSPHRASE";
/// The longest file that is read for one.
const LONGEST: u64 = 4096;

/// Where a passphrase is looked for. The first that is named counts, whether it holds one or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PassphraseFrom {
    /// A file, as the settings name it, or the service manager's credential.
    pub file: Option<SecretFile>,
    /// What the environment says.
    pub environment: Option<Result<Passphrase, PassphraseError>>,
}

/// Why there is no passphrase.
#[derive(Debug, thiserror::Error)]
pub enum PassphraseFromError {
    /// Nobody gave one.
    #[error(
        "no passphrase for the CA's key is given; name a file with ca.passphrase_file or --passphrase-file, hand the service a credential {CREDENTIAL}, or set {VARIABLE}"
    )]
    None,
    /// Its file cannot be read.
    #[error("the file with the passphrase of the CA's key cannot be read")]
    File(#[from] FileError),
    /// What is in the file is none.
    #[error("{} holds no passphrase for the CA's key", path.display())]
    InFile {
        /// The file.
        path: std::path::PathBuf,
        /// Why it is none.
        #[source]
        cause: PassphraseError,
    },
    /// What is in the environment is none.
    #[error("{VARIABLE} holds no passphrase for the CA's key")]
    InEnvironment(#[source] PassphraseError),
}

impl PassphraseFrom {
    /// A passphrase from this file, and from nowhere else.
    #[must_use]
    pub fn file(path: impl Into<std::path::PathBuf>) -> Self {
        Self {
            file: Some(SecretFile::Named(path.into())),
            environment: None,
        }
    }

    /// Reads it.
    ///
    /// # Errors
    /// When there is none.
    pub fn read(&self) -> Result<Passphrase, PassphraseFromError> {
        match (&self.file, &self.environment) {
            (Some(file), _) => {
                let bytes = Zeroizing::new(file.read(LONGEST)?);
                Passphrase::new(&bytes).map_err(|cause| PassphraseFromError::InFile {
                    path: file.path().to_owned(),
                    cause,
                })
            }
            (None, Some(given)) => given.clone().map_err(PassphraseFromError::InEnvironment),
            (None, None) => Err(PassphraseFromError::None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_file_comes_before_the_environment_and_others_may_not_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passphrase");
        picket_durable::write_private(&path, b"from the file\n").unwrap();
        let from = PassphraseFrom {
            environment: Some(Passphrase::new(b"from the environment")),
            ..PassphraseFrom::file(&path)
        };
        assert_eq!(from.read().unwrap(), Passphrase::new(b"from the file").unwrap());
        let alone = PassphraseFrom {
            file: None,
            ..from.clone()
        };
        assert_eq!(
            alone.read().unwrap(),
            Passphrase::new(b"from the environment").unwrap()
        );
        assert!(matches!(
            PassphraseFrom::default().read(),
            Err(PassphraseFromError::None)
        ));

        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            from.read(),
            Err(PassphraseFromError::File(FileError::Exposed { .. }))
        ));
        // A credential's mode shows the access list by which the service reads it.
        let credential = PassphraseFrom {
            file: Some(SecretFile::Credential(path)),
            environment: None,
        };
        credential.read().unwrap();
    }

    #[test]
    fn a_file_without_a_passphrase_is_not_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passphrase");
        picket_durable::write_private(&path, b"\n").unwrap();
        let from = PassphraseFrom {
            environment: Some(Passphrase::new(b"from the environment")),
            ..PassphraseFrom::file(&path)
        };
        let error = from.read().unwrap_err();
        assert!(
            matches!(
                error,
                PassphraseFromError::InFile {
                    cause: PassphraseError::Empty,
                    ..
                }
            ),
            "{error}"
        );
    }
}
