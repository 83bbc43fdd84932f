//! The keys of the CAs on disk: `ca.key` and those of its successors, under one passphrase unless the settings say
//! otherwise.

use std::path::{Path, PathBuf};

use picket_durable::FileError;
use picket_pki::{Key, LockedKeyError, Passphrase};
use picket_transit::Place;
use zeroize::Zeroizing;

use super::{LONGEST, PassphraseFrom, PassphraseFromError, key_path};

/// How the CA's key is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CaKey {
    /// In the data directory, under a passphrase.
    Encrypted(PassphraseFrom),
    /// In the data directory, for whoever can read it.
    Plain,
    /// In the transit engine of a Vault or OpenBao, which never gives it away.
    Transit(Box<Place>),
}

/// Why the CA's key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// Its file cannot be read or written.
    #[error(
        "the file of the CA's key cannot be used; restore ca.pem and ca.key in the data directory from a backup"
    )]
    File(#[from] FileError),
    /// There is no passphrase.
    #[error(transparent)]
    Passphrase(#[from] PassphraseFromError),
    /// The passphrase or the file does not do.
    #[error("{} does not open", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: LockedKeyError,
    },
    /// It could not be encrypted.
    #[error("the CA's key cannot be encrypted with this")]
    Encrypt(#[source] LockedKeyError),
    /// It is no key.
    #[error("{} holds no key of a CA; restore ca.pem and ca.key from a backup", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: picket_pki::KeyError,
    },
    /// It is plain and the settings do not say so.
    #[error("{} is not encrypted; encrypt it with `picket-master ca-key encrypt --data-dir {} --passphrase-file FILE`, or keep it so with ca.key = \"plain\" in the settings, which warns at every start", path.display(), dir(path))]
    Plain {
        /// The file.
        path: PathBuf,
    },
    /// It is encrypted and the settings say it is plain.
    #[error("{} is encrypted; remove ca.key = \"plain\" from the settings, and give its passphrase", path.display())]
    NotPlain {
        /// The file.
        path: PathBuf,
    },
    /// There is nothing to do.
    #[error("{} is encrypted already; another passphrase is given to it with `picket-master ca-key passphrase`", path.display())]
    Already {
        /// The file.
        path: PathBuf,
    },
}

impl KeyFileError {
    /// Whether it says that the key cannot be had any more, and not that a setting is wrong.
    pub(super) fn is_lost(&self) -> bool {
        match self {
            Self::File(FileError::Exposed { .. })
            | Self::Passphrase(_)
            | Self::Encrypt(_)
            | Self::Plain { .. }
            | Self::NotPlain { .. }
            | Self::Already { .. } => false,
            Self::File(_) | Self::Locked { .. } | Self::NoKey { .. } => true,
        }
    }
}

fn dir(path: &Path) -> std::path::Display<'_> {
    path.parent().unwrap_or(path).display()
}

impl CaKey {
    /// Says whether a new key can be kept so, as far as this machine can tell.
    ///
    /// # Errors
    /// When it is to be encrypted and there is no passphrase, or one that is soon guessed.
    pub fn check(&self) -> Result<(), KeyFileError> {
        match self {
            Self::Encrypted(from) => {
                let long = from.read()?.long_enough();
                long.map_err(|cause| KeyFileError::Encrypt(cause.into()))
            }
            Self::Plain | Self::Transit(_) => Ok(()),
        }
    }

    /// The key as the file of `data_dir` has it: in plain, when it is not encrypted and no engine has it.
    ///
    /// For whoever can read the file anyway, and needs it whatever the settings say.
    #[must_use]
    pub fn as_found(&self, data_dir: &Path) -> Self {
        match (self, text(&key_path(data_dir))) {
            (Self::Encrypted(_), Ok(text)) if !Key::is_locked(&text) => Self::Plain,
            (Self::Encrypted(_) | Self::Plain | Self::Transit(_), _) => self.clone(),
        }
    }
}

/// Reads a CA's key; `from` is where its passphrase comes from, or nothing when it is to be plain.
pub(super) fn read(path: &Path, from: Option<&PassphraseFrom>) -> Result<Key, KeyFileError> {
    let (path, text) = (path.to_owned(), text(path)?);
    match (from, Key::is_locked(&text)) {
        (Some(from), true) => open(path, &text, &from.read()?),
        (Some(_), false) if Key::from_pem(&text).is_ok() => Err(KeyFileError::Plain { path }),
        (None, true) => Err(KeyFileError::NotPlain { path }),
        (Some(_) | None, false) => Key::from_pem(&text).map_err(|cause| KeyFileError::NoKey { path, cause }),
    }
}

/// What is to be written for `key`.
pub(super) fn written(key: &Key, passphrase: Option<&Passphrase>) -> Result<Zeroizing<String>, KeyFileError> {
    match passphrase {
        Some(passphrase) => key.to_locked_pem(passphrase).map_err(KeyFileError::Encrypt),
        None => Ok(key.to_pem()),
    }
}

/// Puts the plain keys of `data_dir` under a passphrase. A master that runs goes on with the key it has.
///
/// # Errors
/// When all are encrypted already, or one cannot be written; then that one stays as it is.
pub fn encrypt(data_dir: &Path, to: &PassphraseFrom) -> Result<(), KeyFileError> {
    let mut plain = Vec::new();
    for path in files(data_dir)? {
        let text = text(&path)?;
        if !Key::is_locked(&text) {
            let key = Key::from_pem(&text).map_err(|cause| KeyFileError::NoKey {
                path: path.clone(),
                cause,
            })?;
            plain.push((path, key));
        }
    }
    if plain.is_empty() {
        let path = key_path(data_dir);
        return Err(KeyFileError::Already { path });
    }
    let passphrase = to.read()?;
    plain
        .iter()
        .try_for_each(|(path, key)| replace(path, key, &passphrase))
}

/// Gives the keys of `data_dir` another passphrase. A master that runs goes on with the key it has.
///
/// # Errors
/// When the old one does not open one of them; then all stay as they are. When one cannot be written, it and those after
/// it have the old one still.
pub fn change_passphrase(
    data_dir: &Path,
    from: &PassphraseFrom,
    to: &PassphraseFrom,
) -> Result<(), KeyFileError> {
    let mut opened = Vec::new();
    for path in files(data_dir)? {
        let text = text(&path)?;
        if !Key::is_locked(&text) {
            return Err(KeyFileError::Plain { path });
        }
        let key = open(path.clone(), &text, &from.read()?)?;
        opened.push((path, key));
    }
    let passphrase = to.read()?;
    opened
        .iter()
        .try_for_each(|(path, key)| replace(path, key, &passphrase))
}

/// The key files of the CAs: the first one's, which there must be, and those of its successors.
fn files(data_dir: &Path) -> Result<Vec<PathBuf>, KeyFileError> {
    let first = key_path(data_dir);
    let listed = std::fs::read_dir(data_dir).map_err(|cause| FileError::Read {
        path: data_dir.to_owned(),
        cause,
    })?;
    let is_successors = |name: &str| name.starts_with("ca-") && name.ends_with(".key");
    let mut files: Vec<PathBuf> = listed
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(is_successors)
        })
        .collect();
    files.sort();
    files.insert(0, first);
    Ok(files)
}

fn replace(path: &Path, key: &Key, passphrase: &Passphrase) -> Result<(), KeyFileError> {
    let text = written(key, Some(passphrase))?;
    Ok(picket_durable::write_private(path, text.as_bytes())?)
}

fn open(path: PathBuf, text: &[u8], passphrase: &Passphrase) -> Result<Key, KeyFileError> {
    Key::from_locked_pem(text, passphrase).map_err(|cause| KeyFileError::Locked { path, cause })
}

fn text(path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    picket_durable::read_private(path, LONGEST).map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Home {
        dir: tempfile::TempDir,
        key: Key,
    }

    impl Home {
        fn plain() -> Self {
            let home = Self {
                dir: tempfile::tempdir().unwrap(),
                key: Key::generate().unwrap(),
            };
            picket_durable::write_private(key_path(home.dir.path()), home.key.to_pem().as_bytes()).unwrap();
            home
        }

        fn passphrase(&self, text: &str) -> PassphraseFrom {
            let path = self.dir.path().join(text.replace(' ', "-"));
            picket_durable::write_private(&path, text.as_bytes()).unwrap();
            PassphraseFrom::file(path)
        }

        fn opens(&self, from: Option<&PassphraseFrom>) -> Result<(), KeyFileError> {
            let key = read(&key_path(self.dir.path()), from)?;
            assert_eq!(key.as_pkcs8(), self.key.as_pkcs8());
            Ok(())
        }
    }

    #[test]
    fn a_plain_key_is_refused_until_it_is_encrypted_or_allowed() {
        let home = Home::plain();
        let passphrase = home.passphrase("a long passphrase");
        home.opens(None).unwrap();
        let refused = home.opens(Some(&passphrase)).unwrap_err();
        assert!(
            refused.to_string().contains("picket-master ca-key encrypt"),
            "{refused}"
        );
        encrypt(home.dir.path(), &passphrase).unwrap();
        home.opens(Some(&passphrase)).unwrap();
        assert!(matches!(home.opens(None), Err(KeyFileError::NotPlain { .. })));
        assert!(matches!(
            encrypt(home.dir.path(), &passphrase),
            Err(KeyFileError::Already { .. })
        ));
    }

    #[test]
    fn a_changed_passphrase_opens_and_the_one_before_does_not() {
        let home = Home::plain();
        let (old, new) = (
            home.passphrase("the old passphrase"),
            home.passphrase("the new passphrase"),
        );
        let early = change_passphrase(home.dir.path(), &old, &new).unwrap_err();
        assert!(matches!(early, KeyFileError::Plain { .. }), "{early}");
        encrypt(home.dir.path(), &old).unwrap();
        let wrong = change_passphrase(home.dir.path(), &new, &old).unwrap_err();
        assert!(
            matches!(
                wrong,
                KeyFileError::Locked {
                    cause: LockedKeyError::WrongPassphrase,
                    ..
                }
            ),
            "{wrong}"
        );
        home.opens(Some(&old)).unwrap();
        change_passphrase(home.dir.path(), &old, &new).unwrap();
        home.opens(Some(&new)).unwrap();
        assert!(matches!(home.opens(Some(&old)), Err(KeyFileError::Locked { .. })));
    }

    #[test]
    fn the_keys_of_all_cas_have_one_passphrase() {
        let home = Home::plain();
        let second = home.dir.path().join("ca-0123abcd.key");
        let key = Key::generate().unwrap();
        picket_durable::write_private(&second, key.to_pem().as_bytes()).unwrap();
        let (old, new) = (
            home.passphrase("the old passphrase"),
            home.passphrase("the new passphrase"),
        );
        encrypt(home.dir.path(), &old).unwrap();
        change_passphrase(home.dir.path(), &old, &new).unwrap();
        home.opens(Some(&new)).unwrap();
        assert_eq!(read(&second, Some(&new)).unwrap().as_pkcs8(), key.as_pkcs8());
    }

    #[test]
    fn a_key_is_not_encrypted_with_a_passphrase_that_is_soon_guessed() {
        let home = Home::plain();
        let error = encrypt(home.dir.path(), &home.passphrase("short")).unwrap_err();
        assert!(matches!(error, KeyFileError::Encrypt(_)), "{error}");
        home.opens(None).unwrap();
    }
}
