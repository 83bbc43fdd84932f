//! Which CAs this agent trusts, and how others take their place: vouched for, kept on disk, then acknowledged.

use std::time::Duration;

use picket_pki::{Authorities, Fingerprint};
use picket_proto::session::Trust;

use crate::identity::{Identity, IdentityError};

/// Within what time a certificate is renewed that another CA signed than the one that signs. A fleet does not come all
/// at once.
const MOVE: Duration = Duration::from_secs(3600);
/// The same, when the CA that signed it is to be trusted no more: the master takes little else than the renewal.
const MOVE_SOON: Duration = Duration::from_secs(30);

impl Identity {
    /// The CAs to trust when these are offered, with what vouches for them.
    ///
    /// # Errors
    /// When one of them is not vouched for by one that is trusted.
    pub fn offered(
        &self,
        authorities: &[Vec<u8>],
        vouchers: &[Vec<u8>],
    ) -> Result<Vec<Vec<u8>>, IdentityError> {
        Ok(picket_pki::accept(
            &self.trust_domain,
            &self.authorities,
            authorities,
            vouchers,
        )?)
    }

    /// The same identity, trusting what it is offered.
    ///
    /// # Errors
    /// As [`Self::offered`].
    pub fn trusting(&self, trust: &Trust) -> Result<Self, IdentityError> {
        let der = |list: &[bytes::Bytes]| list.iter().map(|der| der.to_vec()).collect::<Vec<_>>();
        let authorities = self.offered(&der(&trust.authorities), &der(&trust.cross_signed))?;
        Ok(Self {
            authorities,
            ..self.clone()
        })
    }

    /// SHA-256 of each CA that it trusts.
    pub(crate) fn authority_digests(&self) -> Vec<[u8; 32]> {
        let digest = |der: &Vec<u8>| *Fingerprint::of(der).as_bytes();
        self.authorities.iter().map(digest).collect()
    }

    /// Within what time the certificate is to be renewed whatever its age, because another CA signs than the one that
    /// signed it.
    pub(crate) fn moves_within(&self) -> Option<Duration> {
        let signed = |authorities: &[Vec<u8>]| {
            Authorities::new(self.trust_domain.clone(), authorities.to_vec())
                .is_ok_and(|authorities| authorities.signed(&self.certificate))
        };
        let first = self.authorities.get(..1)?;
        if signed(first) {
            None
        } else if signed(&self.authorities) {
            Some(MOVE)
        } else {
            Some(MOVE_SOON)
        }
    }
}

#[cfg(test)]
mod tests {
    use picket_pki::{Authority, Bundle, Holder, Key, lifetime};
    use uuid::Uuid;

    use super::*;
    use crate::identity::IdentityStore;

    #[test]
    fn an_offered_ca_is_on_disk_before_it_is_acknowledged_and_a_strangers_is_not() {
        let (old, new, strangers) = (ca(), ca(), ca());
        let root = tempfile::tempdir().unwrap();
        let store = IdentityStore::open(root.path().join("identity")).unwrap();
        store.keep_next(&identity(&old)).unwrap();
        store.promote().unwrap();

        let stranger = Trust {
            authorities: vec![der(&strangers)],
            cross_signed: vec![old.cross_sign(new.certificate(), now()).unwrap().into()],
        };
        let refused = store.trust(&stranger).unwrap_err().to_string();
        assert!(
            refused.contains("no CA that is trusted here vouches for it"),
            "{refused}"
        );
        assert_eq!(kept(&store), [old.certificate()]);

        let both = Trust {
            authorities: vec![der(&old), der(&new)],
            ..stranger
        };
        let taken = store.trust(&both).unwrap();
        assert_eq!(kept(&store), [old.certificate(), new.certificate()]);
        assert_eq!(taken.authority_digests().len(), 2);
        let again = store.trust(&both).unwrap();
        assert_eq!(again.authorities, taken.authorities, "a second time is harmless");

        let without = Trust {
            authorities: vec![der(&new)],
            cross_signed: Vec::new(),
        };
        store.trust(&without).unwrap();
        assert_eq!(kept(&store), [new.certificate()]);
        assert!(
            store.trust(&both).is_err(),
            "what was retired does not come back by itself"
        );
    }

    #[test]
    fn a_certificate_moves_to_the_ca_that_signs_and_sooner_when_its_own_is_gone() {
        let (old, new) = (ca(), ca());
        let mut identity = identity(&old);
        assert_eq!(identity.moves_within(), None);
        identity.authorities = vec![old.certificate().to_vec(), new.certificate().to_vec()];
        assert_eq!(identity.moves_within(), None, "the new one does not sign yet");
        identity.authorities.reverse();
        assert_eq!(identity.moves_within(), Some(MOVE));
        identity.authorities.pop();
        assert_eq!(identity.moves_within(), Some(MOVE_SOON));
    }

    fn kept(store: &IdentityStore) -> Vec<Vec<u8>> {
        store.load().unwrap().current.unwrap().authorities
    }

    fn identity(ca: &Authority) -> Identity {
        let (key, host) = (Key::generate().unwrap(), Uuid::from_u128(7));
        let issued = ca.issue(
            key.public(),
            &picket_pki::Identity::Host(host),
            lifetime::HOST,
            now(),
        );
        let bundle = Bundle {
            holder: Holder::Host {
                id: host,
                name: "oslo".to_owned(),
            },
            trust_domain: ca.trust_domain().clone(),
            masters: vec!["master.example.org:7443".to_owned()],
            authorities: vec![ca.certificate().to_vec()],
            certificate: issued.unwrap().der,
            key,
        };
        Identity::from_bundle(&bundle).unwrap().unwrap()
    }

    fn ca() -> Authority {
        Authority::create(&"example.org".parse().unwrap(), now()).unwrap()
    }

    fn der(ca: &Authority) -> bytes::Bytes {
        ca.certificate().to_vec().into()
    }

    fn now() -> jiff::Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }
}
