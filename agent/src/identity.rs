//! Who this machine is: a host's certificate and key, the CAs it trusts and where its master is dialled.

mod store;
mod stored;

use std::{fmt, io, path::PathBuf, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use picket_clock::Clock;
use picket_durable::FileError;
use picket_pki::{
    Authorities, AuthoritiesError, Bundle, Certificate, CertificateError, Key, KeyError, Purpose, TlsError,
    TrustDomain, VouchError,
};
use picket_proto::host::HostId;
use rustls::ClientConfig;

pub use store::{Identities, IdentityStore};

/// Everything a host needs to speak with its master.
#[derive(Clone)]
pub struct Identity {
    /// Its id.
    pub host: HostId,
    /// Its name, as the master called it when the bundle was made.
    pub name: String,
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// Where the master is dialled.
    pub masters: Vec<String>,
    /// The CA certificates to trust (DER).
    pub authorities: Vec<Vec<u8>>,
    /// The host's certificate (DER).
    pub certificate: Vec<u8>,
    /// The key it is for.
    pub key: Key,
    /// When the certificate begins.
    pub not_before: Timestamp,
    /// When it ends.
    pub not_after: Timestamp,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("host", &self.host)
            .field("name", &self.name)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// Why an identity cannot be read, kept or used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file is there and is not what was written.
    #[error("{} is damaged: {what}; enroll again with a new bundle (`picketctl host bundle NAME`)", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// There is no identity.
    #[error(
        "this machine is not enrolled; get a bundle with `picketctl host enroll NAME` and run `picket-agent enroll FILE`"
    )]
    NotEnrolled,
    /// An enrolment stopped half-way.
    #[error(
        "an enrolment of this machine was begun and not finished; run `picket-agent enroll FILE` again with the same bundle"
    )]
    HalfEnrolled,
    /// A file cannot be moved or removed.
    #[error("change {}", path.display())]
    Change {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// A key cannot be made.
    #[error("make a key for this host")]
    Key(#[from] KeyError),
    /// The certificate is no host's.
    #[error("the certificate is of no use")]
    Certificate(#[from] CertificateError),
    /// The certificate is not for this host and this key.
    #[error("the certificate that came is not for this host and its key; tell the operator of the master")]
    NotOurs,
    /// The CA certificates cannot be used.
    #[error("the CA certificates are of no use")]
    Authorities(#[from] AuthoritiesError),
    /// They are not vouched for.
    #[error(transparent)]
    Vouch(#[from] VouchError),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Identity {
    /// The identity that is in a host's bundle; `None` when it is an operator's.
    ///
    /// # Errors
    /// When the certificate in it cannot be read.
    pub fn from_bundle(bundle: &Bundle) -> Result<Option<Self>, IdentityError> {
        let picket_pki::Holder::Host { id, name } = &bundle.holder else {
            return Ok(None);
        };
        let certificate = Certificate::parse(&bundle.certificate)?;
        Ok(Some(Self {
            host: HostId(*id),
            name: name.clone(),
            trust_domain: bundle.trust_domain.clone(),
            masters: bundle.masters.clone(),
            authorities: bundle.authorities.clone(),
            certificate: bundle.certificate.clone(),
            key: bundle.key.clone(),
            not_before: certificate.not_before,
            not_after: certificate.not_after,
        }))
    }

    /// The same host under a new key and certificate. An empty list of CAs keeps those it has.
    ///
    /// # Errors
    /// When the certificate is not for this host, this key and a client, or a CA is of another trust domain.
    pub fn renewed(
        &self,
        key: Key,
        certificate: Vec<u8>,
        authorities: Vec<Vec<u8>>,
    ) -> Result<Self, IdentityError> {
        let read = Certificate::parse(&certificate)?;
        let ours = read.identity == picket_pki::Identity::Host(self.host.0)
            && read.trust_domain == self.trust_domain
            && read.purpose == Purpose::Client
            && &read.public_key == key.public();
        if !ours {
            return Err(IdentityError::NotOurs);
        }
        let authorities = if authorities.is_empty() {
            self.authorities.clone()
        } else {
            Authorities::new(self.trust_domain.clone(), authorities.clone())?;
            authorities
        };
        Ok(Self {
            key,
            certificate,
            authorities,
            not_before: read.not_before,
            not_after: read.not_after,
            ..self.clone()
        })
    }

    /// When to renew: at half life, moved by `jitter` (-1 to 1) times a tenth of the life.
    #[must_use]
    pub fn renew_at(&self, jitter: f64) -> Timestamp {
        let life = self.not_after.duration_since(self.not_before);
        let share = 0.5 + 0.1 * jitter.clamp(-1.0, 1.0);
        let wait = SignedDuration::try_from_secs_f64(life.as_secs_f64() * share).unwrap_or(life / 2);
        self.not_before.checked_add(wait).unwrap_or(self.not_after)
    }

    /// TLS under this identity, with the time of `clock`.
    ///
    /// # Errors
    /// [`IdentityError::Authorities`] and [`IdentityError::Tls`].
    pub fn tls(&self, clock: &Clock) -> Result<Arc<ClientConfig>, IdentityError> {
        let authorities = Arc::new(Authorities::new(
            self.trust_domain.clone(),
            self.authorities.clone(),
        )?);
        let clock = clock.clone();
        let time: picket_pki::Time = Arc::new(move || clock.unix());
        Ok(Arc::new(picket_pki::client_config(
            authorities,
            &self.certificate,
            &self.key,
            time,
        )?))
    }
}
#[cfg(test)]
mod tests {
    use picket_pki::{Authority, Csr, lifetime};
    use uuid::Uuid;

    use super::*;

    pub(in crate::identity) const HOST: HostId = HostId(Uuid::from_u128(7));

    pub(in crate::identity) struct Ca(Authority, Timestamp);

    impl Ca {
        pub(in crate::identity) fn new() -> Self {
            let now = "2026-11-22T12:00:00Z".parse().unwrap();
            Self(
                Authority::create(&"example.org".parse().unwrap(), now).unwrap(),
                now,
            )
        }

        pub(in crate::identity) fn sign(&self, key: &Key) -> Vec<u8> {
            let csr = Csr::parse(&key.csr().unwrap()).unwrap();
            let identity = picket_pki::Identity::Host(HOST.0);
            self.0
                .issue(csr.public_key(), &identity, lifetime::HOST, self.1)
                .unwrap()
                .der
        }

        /// Names this CA and others, for each of which it vouches.
        pub(in crate::identity) fn trust(&self, others: &[&Self]) -> picket_proto::session::Trust {
            let der = |ca: &Self| bytes::Bytes::copy_from_slice(ca.0.certificate());
            let vouch = |ca: &&Self| self.0.cross_sign(ca.0.certificate(), self.1).unwrap().into();
            picket_proto::session::Trust {
                authorities: std::iter::once(self)
                    .chain(others.iter().copied())
                    .map(der)
                    .collect(),
                cross_signed: others.iter().map(vouch).collect(),
            }
        }

        pub(in crate::identity) fn identity(&self) -> Identity {
            let key = Key::generate().unwrap();
            let certificate = self.sign(&key);
            let bundle = Bundle {
                holder: picket_pki::Holder::Host {
                    id: HOST.0,
                    name: "edge-07".into(),
                },
                trust_domain: "example.org".parse().unwrap(),
                masters: vec!["master.example.org:7443".into()],
                authorities: vec![self.0.certificate().to_vec()],
                certificate,
                key,
            };
            Identity::from_bundle(&bundle).unwrap().unwrap()
        }
    }

    #[test]
    fn a_certificate_for_another_key_is_not_taken() {
        let ca = Ca::new();
        let base = ca.identity();
        let other = ca.sign(&Key::generate().unwrap());
        let error = base
            .renewed(Key::generate().unwrap(), other, Vec::new())
            .unwrap_err();
        assert!(matches!(error, IdentityError::NotOurs));
    }

    #[test]
    fn renewal_comes_at_half_life_give_or_take_a_tenth() {
        let identity = Ca::new().identity();
        let life = identity.not_after.duration_since(identity.not_before).as_secs();
        for (jitter, want) in [(-1.0, 40), (0.0, 50), (1.0, 60)] {
            let at = identity
                .renew_at(jitter)
                .duration_since(identity.not_before)
                .as_secs();
            assert_eq!((at * 100 + life / 2) / life, want);
        }
    }
}
