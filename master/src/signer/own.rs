//! The master's own certificate. When the CA's key is elsewhere, it is kept beside the store: a master that starts while
//! the engine is sealed shows the one it has, and its hosts come back.

use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use picket_pki::{Authorities, Authority, Certificate, Identity, Key, Root, lifetime, pem};

use super::{LONGEST, Signer, SignerError};

/// A kept certificate that ends within this time is not shown: the engine has to sign another.
const LEFT: SignedDuration = SignedDuration::from_hours(24);

/// A certificate of the master's, with its key.
#[derive(Debug, Clone)]
pub struct Own {
    /// The certificate (DER).
    pub der: Vec<u8>,
    /// Until when it holds.
    pub not_after: Timestamp,
    /// Its key.
    pub key: Key,
}

/// Where it is kept: certificate, key and the names it was made for.
fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("master.identity")
}

impl Signer {
    /// A certificate of this CA to show. Where the key is elsewhere it is the kept one until half of its life is over,
    /// and after that as long as the engine does not sign another. It may take as long as a network does.
    ///
    /// # Errors
    /// When there is none to show and none can be signed or kept.
    pub fn own(
        &self,
        authority: &Authority,
        data_dir: &Path,
        names: &[String],
        now: Timestamp,
    ) -> Result<Own, SignerError> {
        if self.health().is_none() {
            return made(authority, names, now);
        }
        let kept = kept(&[authority.certificate()], data_dir, names, now);
        if let Some(kept) = &kept
            && now < kept.due()
        {
            return Ok(kept.clone());
        }
        let own = match (made(authority, names, now), kept) {
            (Ok(own), _) => own,
            (Err(_), Some(kept)) => return Ok(kept),
            (Err(error), None) => return Err(error),
        };
        let text = format!(
            "# names: {}\n{}{}",
            names.join(" "),
            pem::certificate_to_pem(&own.der),
            *own.key.to_pem()
        );
        picket_durable::write_private(path(data_dir), zeroize::Zeroizing::new(text).as_bytes())?;
        Ok(own)
    }

    /// The kept certificate when one of these CAs (DER) signed it: for a master that starts while no other can be signed.
    #[must_use]
    pub fn own_of_earlier(
        &self,
        trusted: &[&[u8]],
        data_dir: &Path,
        names: &[String],
        now: Timestamp,
    ) -> Option<Own> {
        self.health()?;
        kept(trusted, data_dir, names, now)
    }

    /// As [`Self::own`], of the CA that signs.
    ///
    /// # Errors
    /// As that.
    pub fn own_of_active(
        &self,
        data_dir: &Path,
        names: &[String],
        now: Timestamp,
    ) -> Result<Own, SignerError> {
        self.own(&self.authority.load(), data_dir, names, now)
    }
}

impl Own {
    /// When it is to be replaced.
    #[must_use]
    pub fn due(&self) -> Timestamp {
        self.not_after - lifetime::MASTER / 2
    }
}

fn made(authority: &Authority, names: &[String], now: Timestamp) -> Result<Own, SignerError> {
    let key = Key::generate()?;
    let issued = authority.issue_master(key.public(), names, now)?;
    Ok(Own {
        der: issued.der,
        not_after: issued.not_after,
        key,
    })
}

/// The kept certificate, when it is for the same names, of one of these CAs, for its key, and has a day left.
fn kept(authorities: &[&[u8]], data_dir: &Path, names: &[String], now: Timestamp) -> Option<Own> {
    // Whatever is wrong with the file, a new certificate replaces it.
    let text = picket_durable::read_private(path(data_dir), LONGEST).ok()?;
    let text = zeroize::Zeroizing::new(text);
    let first = text.split(|byte| *byte == b'\n').next()?;
    if first != format!("# names: {}", names.join(" ")).as_bytes() {
        return None;
    }
    let der = pem::certificates_from_pem(&text)?.into_iter().next()?;
    let key = Key::from_pem(&text).ok()?;
    let parsed = Certificate::parse(&der).ok()?;
    let domain = Root::parse(authorities.first()?).ok()?.trust_domain;
    let trust = Authorities::new(domain, authorities.iter().map(|der| der.to_vec()).collect()).ok()?;
    let good = parsed.identity == Identity::Master
        && parsed.public_key == *key.public()
        && trust.signed(&der)
        && parsed.not_before <= now
        && now + LEFT < parsed.not_after;
    good.then_some(Own {
        der,
        not_after: parsed.not_after,
        key,
    })
}
