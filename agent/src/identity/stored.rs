//! What stands in an identity file.

use std::{fmt, path::Path};

use data_encoding::BASE64;
use picket_pki::{Certificate, Key, TrustDomain};
use picket_proto::host::HostId;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use super::{Identity, IdentityError};

/// The version of the files that is read and written.
pub(super) const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stored {
    version: u32,
    host: HostId,
    name: String,
    trust_domain: TrustDomain,
    masters: Vec<String>,
    authorities: Vec<String>,
    certificate: String,
    key: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoredKey {
    pub(super) version: u32,
    pub(super) host: HostId,
    pub(super) key: String,
}

/// A key that was made here for a request, and whether a bundle for it was used up.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoredRequest {
    pub(super) version: u32,
    pub(super) key: String,
    pub(super) used: bool,
}

impl Drop for StoredRequest {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl Drop for StoredKey {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

pub(super) fn damaged(path: &Path, what: &impl fmt::Display) -> IdentityError {
    IdentityError::Damaged {
        path: path.to_owned(),
        what: what.to_string(),
    }
}

pub(super) fn key(path: &Path, text: &str) -> Result<Key, IdentityError> {
    let mut der = BASE64
        .decode(text.as_bytes())
        .map_err(|error| damaged(path, &error))?;
    let key = Key::from_pkcs8(&der);
    der.zeroize();
    key.map_err(|error| damaged(path, &error))
}

impl From<&Identity> for Stored {
    fn from(identity: &Identity) -> Self {
        Self {
            version: VERSION,
            host: identity.host,
            name: identity.name.clone(),
            trust_domain: identity.trust_domain.clone(),
            masters: identity.masters.clone(),
            authorities: identity
                .authorities
                .iter()
                .map(|der| BASE64.encode(der))
                .collect(),
            certificate: BASE64.encode(&identity.certificate),
            key: BASE64.encode(identity.key.as_pkcs8()),
        }
    }
}

impl Stored {
    pub(super) fn read(self, path: &Path) -> Result<Identity, IdentityError> {
        if self.version != VERSION {
            return Err(damaged(
                path,
                &format_args!("it has version {}, and this agent reads {VERSION}", self.version),
            ));
        }
        let der = |text: &String| {
            BASE64
                .decode(text.as_bytes())
                .map_err(|error| damaged(path, &error))
        };
        let certificate = der(&self.certificate)?;
        let read = Certificate::parse(&certificate).map_err(|error| damaged(path, &error))?;
        let key = key(path, &self.key)?;
        if &read.public_key != key.public() || read.identity != picket_pki::Identity::Host(self.host.0) {
            return Err(damaged(path, &"key, certificate and host do not belong together"));
        }
        Ok(Identity {
            host: self.host,
            name: self.name.clone(),
            trust_domain: self.trust_domain.clone(),
            masters: self.masters.clone(),
            authorities: self.authorities.iter().map(der).collect::<Result<_, _>>()?,
            certificate,
            key,
            not_before: read.not_before,
            not_after: read.not_after,
        })
    }
}
