//! Certificates that the site's CA never wrote, under its name or even its key.

use picket_pki::{Identity, Key};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose, SanType};

use crate::site::{Card, Site, domain};

/// Signs under the name of the site's CA, with any key, whatever the CA itself would never sign.
pub(crate) struct Forger(Key);

/// A CA whose name is that of the site's CA, and whose key is not.
pub(crate) fn twin() -> Forger {
    Forger(Key::generate().unwrap())
}

/// Somebody who has the site's CA key and other tools.
pub(crate) fn insider(site: &Site) -> Forger {
    Forger(site.key.clone())
}

impl Forger {
    pub(crate) fn sign(&self, site: &Site, identity: &Identity) -> Card {
        self.sign_changed(site, identity, |_| ())
    }

    pub(crate) fn sign_changed(
        &self,
        site: &Site,
        identity: &Identity,
        change: impl Fn(&mut CertificateParams),
    ) -> Card {
        let signer = KeyPair::from_pem(&self.0.to_pem()).unwrap();
        let issuer = Issuer::from_ca_cert_der(&site.authority.certificate().into(), signer).unwrap();
        let mut params = CertificateParams::default();
        params.not_before = rcgen::date_time_ymd(2025, 12, 1);
        params.not_after = rcgen::date_time_ymd(2026, 2, 1);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match identity {
            Identity::Master => ExtendedKeyUsagePurpose::ServerAuth,
            Identity::Host(_) | Identity::Operator(_) => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        params.use_authority_key_identifier_extension = true;
        params.subject_alt_names = vec![uri(&identity.uri(&domain()))];
        change(&mut params);
        let key = Key::generate().unwrap();
        let pair = KeyPair::from_pem(&key.to_pem()).unwrap();
        let der = params.signed_by(&pair, &issuer).unwrap().der().to_vec();
        Card { key, der }
    }
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}
