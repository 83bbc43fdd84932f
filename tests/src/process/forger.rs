//! Certificates that a CA never wrote, under its name.

use picket_pki::{Identity, Key, TrustDomain};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose, SanType};

/// Signs a certificate for `identity` with a CA key of its own, under the very name of the CA whose certificate is
/// `authority`. Returns the certificate (DER) and its key.
///
/// # Panics
/// When `authority` is no CA's certificate.
#[must_use]
pub fn twin(authority: &[u8], domain: &TrustDomain, identity: &Identity) -> (Vec<u8>, Key) {
    let pair = |key: &Key| KeyPair::from_pem(&key.to_pem()).expect("a key of ours is a key");
    let generate = || Key::generate().expect("the system has randomness");
    let issuer = Issuer::from_ca_cert_der(&authority.into(), pair(&generate()))
        .expect("a CA's certificate can be read");
    let mut params = CertificateParams::default();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2099, 1, 1);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![match identity {
        Identity::Master => ExtendedKeyUsagePurpose::ServerAuth,
        Identity::Host(_) | Identity::Operator(_) => ExtendedKeyUsagePurpose::ClientAuth,
    }];
    params.use_authority_key_identifier_extension = true;
    params.subject_alt_names = vec![SanType::URI(
        identity.uri(domain).as_str().try_into().expect("an URI is ASCII"),
    )];
    let key = generate();
    let certificate = params
        .signed_by(&pair(&key), &issuer)
        .expect("a certificate can be signed");
    (certificate.der().to_vec(), key)
}
