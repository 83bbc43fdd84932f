//! A certificate request for a bundle without a key: the key is made here and never leaves this machine.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use picket_durable::FileError;
use picket_pki::pem;

use crate::{
    config::Config,
    identity::{IdentityError, IdentityStore},
    state::{StateDir, StateError},
};

/// A request holds no secret.
const PUBLIC: u32 = 0o644;

/// Which key a request is made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The one of the request before, unless a bundle for it was used up.
    Same,
    /// Another one: a bundle for the request before is good for nothing then.
    New,
}

/// Why no request was made.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Something else is in its place.
    #[error("{} is there already and is no certificate request; give another name with `--out`", .0.display())]
    Taken(PathBuf),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The key cannot be made, kept or used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Writes a certificate request to `out`, for a key that is on this machine's disk when this returns.
///
/// # Errors
/// [`RequestError`]. Calling again is safe, and writes a request for the same key.
pub fn request(out: &Path, config: &Config, which: Which) -> Result<(), RequestError> {
    match fs::read(out) {
        Ok(text) if !pem::is_request(&text) => return Err(RequestError::Taken(out.to_owned())),
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
            let path = out.to_owned();
            return Err(FileError::Read { path, cause }.into());
        }
        Ok(_) | Err(_) => {}
    }
    let store = IdentityStore::open(StateDir::open(&config.state_dir)?.identity())?;
    let key = match which {
        Which::Same => store.key_to_request()?,
        Which::New => store.another_key_to_request()?,
    };
    let der = key.csr().map_err(IdentityError::from)?;
    picket_durable::write(out, pem::request_to_pem(&der).as_bytes(), PUBLIC)?;
    Ok(())
}
