//! Succession: which CAs to trust when those that are trusted vouch for others.
//!
//! A master may say at any time which CAs are to be trusted. Nobody takes its word for one: a CA that is not trusted
//! already must be vouched for by one that is, with a certificate that only the key of that CA can have made. A master
//! whose own key was stolen can therefore make nobody trust anything else.

use x509_parser::certificate::X509Certificate;

use crate::{Authorities, AuthoritiesError, AuthorityError, Fingerprint, Root, TrustDomain, certificate};

/// The most certificates that are looked at to find the way to a CA.
const MOST_VOUCHERS: usize = 64;

/// Why the CAs that were offered are not taken.
#[derive(Debug, thiserror::Error)]
pub enum VouchError {
    /// They are no CAs of this trust domain.
    #[error("the CAs that came cannot be trusted")]
    Authorities(#[from] AuthoritiesError),
    /// One of them is a stranger.
    #[error(
        "the CA {0} came, and no CA that is trusted here vouches for it; if the CA was made anew on purpose, get a new bundle with `picketctl host bundle NAME`, and if not, somebody plays master"
    )]
    Stranger(Fingerprint),
    /// There is more than anybody needs.
    #[error("{0} certificates came to vouch for CAs; at most {MOST_VOUCHERS} are looked at")]
    TooMany(usize),
}

/// Returns the CAs to trust from here on: those `offered`, in their order, when each of them is `trusted` already or
/// vouched for by one of `vouchers`, directly or through others that are. All are certificates in DER.
///
/// # Errors
///
/// [`VouchError`]; then what was trusted stays.
pub fn accept(
    domain: &TrustDomain,
    trusted: &[Vec<u8>],
    offered: &[Vec<u8>],
    vouchers: &[Vec<u8>],
) -> Result<Vec<Vec<u8>>, VouchError> {
    if vouchers.len() > MOST_VOUCHERS {
        return Err(VouchError::TooMany(vouchers.len()));
    }
    // They are all CAs of this trust domain, and few.
    Authorities::new(domain.clone(), offered.to_vec())?;
    let mut known: Vec<Vec<u8>> = trusted.to_vec();
    // A way leads over a CA that is itself to be trusted no more, so each voucher counts as what it vouches for. Every
    // round finds one at least, or is the last.
    loop {
        let found = vouchers
            .iter()
            .find(|voucher| !known.contains(voucher) && is_signed_by_one(voucher, domain, &known));
        match found {
            Some(voucher) => known.push(voucher.clone()),
            None => break,
        }
    }
    for root in offered {
        let is_known = known.contains(root) || known.iter().any(|known| is_same_authority(known, root));
        if !is_known {
            return Err(VouchError::Stranger(Fingerprint::of(root)));
        }
    }
    Ok(offered.to_vec())
}

/// Whether `voucher` is a CA certificate of this domain that a CA in `known` signed.
fn is_signed_by_one(voucher: &[u8], domain: &TrustDomain, known: &[Vec<u8>]) -> bool {
    let Ok(root) = Root::parse(voucher) else {
        return false;
    };
    let Ok(parsed) = certificate::read(voucher) else {
        return false;
    };
    &root.trust_domain == domain && known.iter().any(|known| signed(voucher, &parsed, known).is_ok())
}

/// Whether the CA `by` signed `certificate`, which is `der`.
fn signed(der: &[u8], certificate: &X509Certificate<'_>, by: &[u8]) -> Result<(), AuthorityError> {
    let by = certificate::read(by)?;
    if certificate.issuer().as_raw() != by.subject().as_raw() {
        return Err(AuthorityError::NotAnAuthority);
    }
    let spelled = crate::csr::ends_as_written(
        der,
        certificate.tbs_certificate.as_ref(),
        &certificate.signature_value.data,
    );
    if !spelled {
        return Err(AuthorityError::NotAnAuthority);
    }
    certificate
        .verify_signature(Some(by.public_key()))
        .map_err(|_| AuthorityError::NotAnAuthority)
}

/// Whether two CA certificates are for one name and one key.
fn is_same_authority(one: &[u8], other: &[u8]) -> bool {
    let (Ok(one), Ok(other)) = (certificate::read(one), certificate::read(other)) else {
        return false;
    };
    one.subject().as_raw() == other.subject().as_raw() && one.public_key().raw == other.public_key().raw
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::CertificateDer;

    use super::*;
    use crate::{Authority, Identity, Issuer, Key, lifetime};

    #[test]
    fn a_ca_that_a_trusted_one_vouches_for_is_taken_and_any_other_is_not() {
        let (old, new, strangers) = (ca(), ca(), ca());
        let vouched = old.cross_sign(new.certificate(), now()).unwrap();
        let both = [der(&new), der(&old)];
        assert_eq!(accept(&domain(), &[der(&old)], &both, &[vouched]).unwrap(), both);

        let forged = strangers.cross_sign(new.certificate(), now()).unwrap();
        for vouchers in [vec![], vec![forged]] {
            let refused = accept(&domain(), &[der(&old)], &both, &vouchers).unwrap_err();
            assert!(matches!(refused, VouchError::Stranger(who) if who == new.fingerprint()));
        }
    }

    #[test]
    fn a_voucher_for_one_ca_is_none_for_another() {
        let (old, new, strangers) = (ca(), ca(), ca());
        let vouched = old.cross_sign(new.certificate(), now()).unwrap();
        let refused = accept(&domain(), &[der(&old)], &[der(&strangers)], &[vouched]).unwrap_err();
        assert!(matches!(refused, VouchError::Stranger(_)), "{refused}");
    }

    #[test]
    fn a_voucher_with_any_byte_changed_vouches_for_nothing() {
        let (old, new) = (ca(), ca());
        let vouched = old.cross_sign(new.certificate(), now()).unwrap();
        for at in 0..vouched.len() {
            let mut changed = vouched.clone();
            changed[at] ^= 0x01;
            let refused = accept(&domain(), &[der(&old)], &[der(&new)], &[changed]);
            assert!(refused.is_err(), "byte {at}");
        }
    }

    #[test]
    fn who_slept_through_several_rotations_finds_the_way_over_cas_that_are_no_more() {
        let line: Vec<Authority> = (0..5).map(|_| ca()).collect();
        let mut vouchers: Vec<Vec<u8>> = line
            .windows(2)
            .map(|pair| pair[0].cross_sign(pair[1].certificate(), now()).unwrap())
            .collect();
        vouchers.reverse();
        let newest = der(&line[4]);
        let taken = accept(
            &domain(),
            &[der(&line[0])],
            std::slice::from_ref(&newest),
            &vouchers,
        );
        assert_eq!(taken.unwrap(), [newest]);

        // The same way leads through a handshake.
        let trust = Authorities::new(domain(), vec![der(&line[0])]).unwrap();
        let leaf = line[4]
            .issue(
                Key::generate().unwrap().public(),
                &Identity::Master,
                lifetime::MASTER,
                now(),
            )
            .unwrap()
            .der;
        let algorithms = crate::tls::provider().signature_verification_algorithms;
        let way: Vec<_> = vouchers
            .iter()
            .map(|der| CertificateDer::from(der.as_slice()))
            .collect();
        let check = |way: &[CertificateDer<'_>]| {
            trust.check_chain(&CertificateDer::from(leaf.as_slice()), way, &algorithms)
        };
        assert!(check(&way).is_ok());
        assert!(check(&way[1..]).is_err(), "a missing step is no way");
        assert!(!trust.signed(&leaf), "it did not sign it itself");
    }

    #[test]
    fn a_leaf_vouches_for_nobody() {
        let (old, new) = (ca(), ca());
        let leaf = old
            .issue(
                Key::generate().unwrap().public(),
                &Identity::Master,
                lifetime::MASTER,
                now(),
            )
            .unwrap()
            .der;
        assert!(accept(&domain(), &[der(&old)], &[der(&new)], &[leaf]).is_err());
    }

    #[test]
    fn a_ca_of_another_trust_domain_is_neither_vouched_for_nor_taken() {
        let ours = ca();
        let theirs = Authority::create(&"example.com".parse().unwrap(), now()).unwrap();
        let refused = ours.cross_sign(theirs.certificate(), now()).unwrap_err();
        assert!(
            matches!(refused, AuthorityError::OtherTrustDomain { .. }),
            "{refused}"
        );
        let refused = accept(&domain(), &[der(&ours)], &[der(&theirs)], &[]).unwrap_err();
        assert!(matches!(refused, VouchError::Authorities(_)), "{refused}");
    }

    #[test]
    fn a_certificate_names_the_ca_that_signed_it() {
        let (one, two) = (ca(), ca());
        let issued = one.issue(
            Key::generate().unwrap().public(),
            &Identity::Master,
            lifetime::MASTER,
            now(),
        );
        let issuer = issued.unwrap().parse().unwrap().issuer;
        assert_eq!(issuer, Issuer::of_authority(one.certificate()).unwrap());
        assert_ne!(issuer, Issuer::of_authority(two.certificate()).unwrap());
    }

    fn ca() -> Authority {
        Authority::create(&domain(), now()).unwrap()
    }

    fn der(ca: &Authority) -> Vec<u8> {
        ca.certificate().to_vec()
    }

    fn domain() -> TrustDomain {
        "example.org".parse().unwrap()
    }

    fn now() -> jiff::Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }
}
