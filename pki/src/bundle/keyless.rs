//! A bundle without a key, for sites whose policy forbids one in transit: the worker made its own and sent a request.

use data_encoding::BASE64;
use zeroize::Zeroizing;

use super::{Bundle, BundleError, Data, Holder, LONGEST, NodeSecret, PLAIN, Said, VERSION, seal};
use crate::{Key, TrustDomain};

/// What was carried to a machine.
#[derive(Debug, Clone)]
pub enum Carried {
    /// A bundle with everything in it.
    Whole(Bundle),
    /// One that carries the identity of the machine's ZeroTier node, too.
    WithNode(Bundle, NodeSecret),
    /// One whose key is where it was made.
    Keyless(Keyless),
}

/// Everything a host needs to speak with its master but for the key, which never left its machine.
#[derive(Debug, Clone)]
pub struct Keyless {
    /// Whose it is.
    pub holder: Holder,
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// Where the master is dialled, each `host:port`, in this order.
    pub masters: Vec<String>,
    /// The CA certificates to trust (DER), the one that signed first.
    pub authorities: Vec<Vec<u8>>,
    /// The certificate for the key that the machine has (DER).
    pub certificate: Vec<u8>,
}

impl Carried {
    /// Reads a bundle with or without a key, and refuses one that is not byte for byte what was written. What it says is
    /// then still to be [checked](Bundle::check).
    ///
    /// # Errors
    ///
    /// [`BundleError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        let version = seal::version(bytes)?;
        if version > u64::from(VERSION) {
            return Err(BundleError::NewerVersion(version));
        }
        if version < u64::from(PLAIN) || bytes.len() > LONGEST {
            return Err(BundleError::NotABundle);
        }
        let text = seal::open(bytes)?;
        let start = text.find("\n{").ok_or(BundleError::Edited)?;
        let data: Data = serde_json::from_str(&text[start..]).map_err(|_| BundleError::Edited)?;
        let der = |text: &str| BASE64.decode(text.as_bytes()).map_err(|_| BundleError::Edited);
        let keyless = Keyless {
            holder: data.holder.clone(),
            trust_domain: data.trust_domain.clone(),
            masters: data.masters.clone(),
            authorities: data
                .authorities
                .iter()
                .map(|text| der(text))
                .collect::<Result<_, _>>()?,
            certificate: der(&data.certificate)?,
        };
        let key = match &data.key {
            Some(text) => {
                let key = Zeroizing::new(der(text)?);
                Some(Key::from_pkcs8(&key).map_err(BundleError::Key)?)
            }
            None => None,
        };
        let node = data.node.as_deref().map(NodeSecret::new).transpose()?;
        // The lines for people must say what the data says, or comparing fingerprints would be for show.
        if keyless.said().write(key.as_ref(), node.as_ref())?.as_bytes() != bytes {
            return Err(BundleError::Edited);
        }
        match (key, node) {
            (Some(key), Some(node)) => Ok(Self::WithNode(keyless.with_key(key), node)),
            (Some(key), None) => Ok(Self::Whole(keyless.with_key(key))),
            (None, None) => Ok(Self::Keyless(keyless)),
            // Where no key may travel, no identity does.
            (None, Some(_)) => Err(BundleError::Edited),
        }
    }
}

impl Keyless {
    /// Writes the file's text.
    ///
    /// # Errors
    ///
    /// As [`Bundle::encode`].
    pub fn encode(&self) -> Result<Zeroizing<String>, BundleError> {
        self.said().write(None, None)
    }

    /// The whole bundle, with the key that its machine has. Whether that is the right one is for [`Bundle::check`] to
    /// say.
    #[must_use]
    pub fn with_key(self, key: Key) -> Bundle {
        Bundle {
            holder: self.holder,
            trust_domain: self.trust_domain,
            masters: self.masters,
            authorities: self.authorities,
            certificate: self.certificate,
            key,
        }
    }

    fn said(&self) -> Said<'_> {
        Said {
            holder: &self.holder,
            trust_domain: &self.trust_domain,
            masters: &self.masters,
            authorities: &self.authorities,
            certificate: &self.certificate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::tests::bundle;

    fn keyless() -> Keyless {
        let Bundle {
            holder,
            trust_domain,
            masters,
            authorities,
            certificate,
            ..
        } = bundle();
        Keyless {
            holder,
            trust_domain,
            masters,
            authorities,
            certificate,
        }
    }

    #[test]
    fn a_bundle_without_a_key_reads_back_as_it_was_written_and_is_no_whole_one() {
        let text = keyless().encode().unwrap();
        let Carried::Keyless(back) = Carried::parse(text.as_bytes()).unwrap() else {
            panic!("it has no key")
        };
        assert_eq!(back.encode().unwrap(), text);
        assert!(!text.contains("\"key\""), "{}", *text);
        assert!(matches!(
            Bundle::parse(text.as_bytes()).unwrap_err(),
            BundleError::NoKey
        ));
        let whole = bundle().encode().unwrap();
        assert!(matches!(
            Carried::parse(whole.as_bytes()).unwrap(),
            Carried::Whole(_)
        ));
    }

    #[test]
    fn a_bundle_whose_key_was_taken_out_is_an_edited_one() {
        let whole = bundle().encode().unwrap();
        let start = whole.find(",\n  \"key\"").unwrap();
        let end = whole.find("\n}").unwrap();
        let mut forged = format!("{}{}", &whole[..start], &whole[end..]);
        forged.truncate(forged.rfind("sha256 ").unwrap());
        seal::close(&mut forged);
        assert!(matches!(
            Carried::parse(forged.as_bytes()).unwrap_err(),
            BundleError::Edited
        ));
    }

    #[test]
    fn a_key_that_was_made_for_another_request_does_not_fit() {
        let other = keyless().with_key(Key::generate().unwrap());
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        assert!(matches!(
            other.check(now).unwrap_err(),
            BundleError::KeyDoesNotMatch
        ));
    }
}
