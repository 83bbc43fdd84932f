//! The master's own certificate. When the CA's key is elsewhere, it is kept beside the store: a master that starts while
//! the engine is sealed shows the one it has, and its hosts come back.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use picket_pki::{Authorities, Certificate, Identity, Key, pem};

use super::{LONGEST, Signer, SignerError};

/// A kept certificate that ends within this time is not shown: the engine has to sign another.
const LEFT: SignedDuration = SignedDuration::from_hours(24);

/// A certificate of the master's, with its key.
#[derive(Debug)]
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
    /// A certificate to show: the kept one while it does, or a new one.
    ///
    /// # Errors
    /// When there is none to show and none can be signed.
    pub async fn own(
        self: &Arc<Self>,
        data_dir: &Path,
        names: &[String],
        now: Timestamp,
    ) -> Result<Own, SignerError> {
        if self.health().is_some()
            && let Some(own) = self.kept(data_dir, names, now)
        {
            return Ok(own);
        }
        self.renew_own(data_dir, names, now).await
    }

    /// A new certificate to show, kept when the CA's key is elsewhere.
    ///
    /// # Errors
    /// When it cannot be signed or kept.
    pub async fn renew_own(
        self: &Arc<Self>,
        data_dir: &Path,
        names: &[String],
        now: Timestamp,
    ) -> Result<Own, SignerError> {
        let named = names.to_vec();
        let (issued, key) = self.sign(move |signer| signer.master(&named, now)).await?;
        if self.health().is_some() {
            let text = format!(
                "# names: {}\n{}{}",
                names.join(" "),
                pem::certificate_to_pem(&issued.der),
                *key.to_pem()
            );
            picket_durable::write_private(path(data_dir), zeroize::Zeroizing::new(text).as_bytes())?;
        }
        Ok(Own {
            der: issued.der,
            not_after: issued.not_after,
            key,
        })
    }

    /// The kept certificate, when it is for the same names, of this CA, for its key, and has a day left.
    fn kept(&self, data_dir: &Path, names: &[String], now: Timestamp) -> Option<Own> {
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
        let trust = Authorities::new(self.trust_domain().clone(), vec![self.certificate().to_vec()]).ok()?;
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
}
