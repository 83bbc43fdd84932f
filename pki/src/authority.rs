//! The certificate authority: one key, one self-signed certificate, and what it signs.

use std::{net::IpAddr, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, date_time_ymd, string::Ia5String,
};
use rustls_pki_types::CertificateDer;

use crate::{
    AuthorityKey, Certificate, CertificateError, Fingerprint, Identity, IdentityError, Key, KeyError,
    PublicKey, SignError, TrustDomain, certificate,
    lifetime::{self, Validity},
    pem,
    signing::Pen,
};

/// Why a CA could not be made, loaded or used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The CA's key cannot be made or read.
    #[error("the CA's key is of no use")]
    Key(#[from] KeyError),
    /// The CA's certificate cannot be read.
    #[error("this is no CA certificate of ours; restore the file from a snapshot")]
    Certificate(#[from] CertificateError),
    /// The certificate is not a CA's.
    #[error("the certificate is not a CA's; restore the CA certificate from a snapshot")]
    NotAnAuthority,
    /// The CA certificate names no trust domain.
    #[error("the CA certificate names no trust domain; restore it from a snapshot")]
    TrustDomain(#[source] IdentityError),
    /// Certificate and key belong to different CAs.
    #[error("the CA certificate {0} is not for the CA's key; restore both from the same snapshot")]
    KeyDoesNotMatch(Fingerprint),
    /// The CA has ended, or has not begun.
    #[error("the CA certificate holds from {} until {}; at {now} it signs nothing, check the clock or rotate the CA",
        validity.not_before, validity.not_after)]
    OutOfTime {
        /// When something should have been signed.
        now: Timestamp,
        /// When the CA signs.
        validity: Validity,
    },
    /// The other CA is another trust domain's.
    #[error(
        "the other CA is of the trust domain {theirs}, and this one is of {ours}; nothing is vouched for"
    )]
    OtherTrustDomain {
        /// This CA's.
        ours: TrustDomain,
        /// The other's.
        theirs: TrustDomain,
    },
    /// A name for the master is neither a DNS name nor an address.
    #[error("{0:?} is neither a DNS name nor an IP address")]
    Name(String),
    /// The cryptographic library refused.
    #[error("sign a certificate")]
    Sign(#[source] rcgen::Error),
    /// What holds the CA's key did not sign.
    #[error("the CA's key signed nothing")]
    Unsigned(#[source] SignError),
    /// What holds the CA's key signed with another key, or something else.
    #[error(
        "the signature is not that of the CA's key {0}; nothing was issued, look at what holds the CA's key before you go on"
    )]
    WrongSignature(Fingerprint),
}

/// How many CAs may stand between a CA and what one of its successors signs: whoever slept through this many rotations
/// still finds the way.
pub(crate) const SUCCESSORS: u8 = 4;

/// A certificate that was just signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedCertificate {
    /// The certificate.
    pub der: Vec<u8>,
    /// SHA-256 of it.
    pub fingerprint: Fingerprint,
    /// From when it holds.
    pub not_before: Timestamp,
    /// Until when it holds.
    pub not_after: Timestamp,
}

/// A CA that can sign.
#[derive(Debug)]
pub struct Authority {
    key: Arc<dyn AuthorityKey>,
    der: Vec<u8>,
    trust_domain: TrustDomain,
    validity: Validity,
}

impl Authority {
    /// Makes a new CA for `trust_domain` with a new key in memory, which is gone when the value is dropped.
    ///
    /// # Errors
    ///
    /// [`AuthorityError::Key`] or [`AuthorityError::Sign`], when the system gives no randomness.
    pub fn create(trust_domain: &TrustDomain, now: Timestamp) -> Result<Self, AuthorityError> {
        Self::create_with(Arc::new(Key::generate()?), trust_domain, now)
    }

    /// Makes a new CA for `trust_domain` that holds for [`lifetime::CA`] and signs with `key`.
    ///
    /// # Errors
    ///
    /// [`AuthorityError::Unsigned`] and [`AuthorityError::WrongSignature`], when the key does not sign.
    pub fn create_with(
        key: Arc<dyn AuthorityKey>,
        trust_domain: &TrustDomain,
        now: Timestamp,
    ) -> Result<Self, AuthorityError> {
        // A common name has at most 64 characters, and the name must differ from that of an earlier CA of the same
        // domain, so that verifiers which look an issuer up by name find the right one.
        let unique: String = key.public().fingerprint().to_string().chars().take(8).collect();
        let domain: String = trust_domain.as_str().chars().take(44).collect();
        let mut params = params(
            &format!("Picket CA {domain} {unique}"),
            Validity::starting(now, lifetime::CA),
        )?;
        authority(&mut params, trust_domain)?;
        let pen = Pen::new(&*key);
        let der = pen.made(params.self_signed(&pen))?.der().to_vec();
        Self::load_der(der, key)
    }

    /// Loads a CA from its certificate and its key, both PEM.
    ///
    /// # Errors
    ///
    /// [`AuthorityError`], when they are not a CA of ours that belong together.
    pub fn load(certificate: &[u8], key: &[u8]) -> Result<Self, AuthorityError> {
        Self::load_with(certificate, Arc::new(Key::from_pem(key)?))
    }

    /// Loads a CA from its certificate as PEM, and what signs for it.
    ///
    /// # Errors
    ///
    /// [`AuthorityError`], when they are not a CA of ours that belong together.
    pub fn load_with(certificate: &[u8], key: Arc<dyn AuthorityKey>) -> Result<Self, AuthorityError> {
        let mut certificates = pem::certificates_from_pem(certificate)
            .unwrap_or_default()
            .into_iter();
        let (Some(der), None) = (certificates.next(), certificates.next()) else {
            return Err(CertificateError::Unreadable.into());
        };
        Self::load_der(der, key)
    }

    fn load_der(der: Vec<u8>, key: Arc<dyn AuthorityKey>) -> Result<Self, AuthorityError> {
        let Root {
            trust_domain,
            validity,
            public_key,
        } = Root::parse(&der)?;
        if &public_key != key.public() {
            return Err(AuthorityError::KeyDoesNotMatch(Fingerprint::of(&der)));
        }
        Ok(Self {
            key,
            der,
            trust_domain,
            validity,
        })
    }

    /// The CA's certificate (DER).
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.der
    }

    /// The CA's certificate as PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        pem::certificate_to_pem(&self.der)
    }

    /// SHA-256 of the CA's certificate, for people to compare.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.der)
    }

    /// The trust domain this CA speaks for.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// From when until when this CA signs.
    #[must_use]
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// Signs a certificate for `key` that speaks for `identity`, holds from five minutes ago for `lifetime`, and never
    /// outlives this CA. It is for a server when the identity is the master's, and for a client otherwise.
    ///
    /// # Errors
    ///
    /// [`AuthorityError::OutOfTime`] and [`AuthorityError::Sign`].
    pub fn issue(
        &self,
        key: &PublicKey,
        identity: &Identity,
        lifetime: SignedDuration,
        now: Timestamp,
    ) -> Result<IssuedCertificate, AuthorityError> {
        self.sign(key, identity, &[], lifetime, now)
    }

    /// Signs the master's certificate, for [`lifetime::MASTER`], with the DNS names and addresses it is reached at.
    /// Our own clients do not look at those.
    ///
    /// # Errors
    ///
    /// As [`Self::issue`], and [`AuthorityError::Name`].
    pub fn issue_master(
        &self,
        key: &PublicKey,
        names: &[String],
        now: Timestamp,
    ) -> Result<IssuedCertificate, AuthorityError> {
        self.sign(key, &Identity::Master, names, lifetime::MASTER, now)
    }

    /// Vouches for the CA whose certificate (DER) `successor` is: signs its name and its key, so that whoever trusts this
    /// CA and no other finds the way to what the successor signs. It holds for as long as the successor.
    ///
    /// # Errors
    ///
    /// [`AuthorityError::OutOfTime`] when this CA has ended, [`AuthorityError::TrustDomain`] and the others when
    /// `successor` is no CA of the same trust domain, [`AuthorityError::Sign`].
    pub fn cross_sign(&self, successor: &[u8], now: Timestamp) -> Result<Vec<u8>, AuthorityError> {
        if now < self.validity.not_before || now >= self.validity.not_after {
            return Err(AuthorityError::OutOfTime {
                now,
                validity: self.validity,
            });
        }
        let root = Root::parse(successor)?;
        if root.trust_domain != self.trust_domain {
            return Err(AuthorityError::OtherTrustDomain {
                ours: self.trust_domain.clone(),
                theirs: root.trust_domain,
            });
        }
        let mut params = params(&common_name(successor)?, root.validity)?;
        authority(&mut params, &self.trust_domain)?;
        params.use_authority_key_identifier_extension = true;
        self.signed(&params, &root.public_key.info())
    }

    fn sign(
        &self,
        key: &PublicKey,
        identity: &Identity,
        names: &[String],
        lifetime: SignedDuration,
        now: Timestamp,
    ) -> Result<IssuedCertificate, AuthorityError> {
        let out_of_time = AuthorityError::OutOfTime {
            now,
            validity: self.validity,
        };
        if now < self.validity.not_before || now >= self.validity.not_after {
            return Err(out_of_time);
        }
        let Some(validity) = Validity::starting(now, lifetime).within(&self.validity) else {
            return Err(out_of_time);
        };
        let mut params = params(&identity.to_string(), validity)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match identity {
            Identity::Master => ExtendedKeyUsagePurpose::ServerAuth,
            Identity::Host(_) | Identity::Operator(_) => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        params.use_authority_key_identifier_extension = true;
        params.subject_alt_names = vec![SanType::URI(ascii(&identity.uri(&self.trust_domain))?)];
        for name in names {
            params.subject_alt_names.push(server_name(name)?);
        }
        let der = self.signed(&params, &key.info())?;
        Ok(IssuedCertificate {
            fingerprint: Fingerprint::of(&der),
            der,
            not_before: validity.not_before,
            not_after: validity.not_after,
        })
    }

    /// A certificate (DER) for `subject`, signed by this CA, its signature checked.
    fn signed(
        &self,
        params: &CertificateParams,
        subject: &impl PublicKeyData,
    ) -> Result<Vec<u8>, AuthorityError> {
        let pen = Pen::new(&*self.key);
        let issuer = Issuer::from_ca_cert_der(&CertificateDer::from(self.der.as_slice()), &pen)
            .map_err(AuthorityError::Sign)?;
        let certificate = pen.made(params.signed_by(subject, &issuer))?;
        Ok(certificate.der().to_vec())
    }
}

/// What a CA certificate of ours says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// The trust domain it speaks for.
    pub trust_domain: TrustDomain,
    /// From when until when.
    pub validity: Validity,
    /// The key that signs.
    pub public_key: PublicKey,
}

impl Root {
    /// Reads a CA certificate (DER).
    ///
    /// # Errors
    ///
    /// [`AuthorityError`], when it is not a CA of ours.
    pub fn parse(der: &[u8]) -> Result<Self, AuthorityError> {
        let parsed = certificate::read(der)?;
        if !parsed.is_ca() {
            return Err(AuthorityError::NotAnAuthority);
        }
        let uri = certificate::only_uri(&parsed)?;
        let domain = uri.strip_prefix("spiffe://").unwrap_or(uri);
        Ok(Self {
            trust_domain: domain.parse().map_err(AuthorityError::TrustDomain)?,
            validity: certificate::validity(&parsed)?,
            public_key: PublicKey::from_spki(parsed.public_key().raw)?,
        })
    }
}

impl IssuedCertificate {
    /// Reads back what was signed.
    ///
    /// # Errors
    ///
    /// [`CertificateError`], which would be an error in [`Authority`].
    pub fn parse(&self) -> Result<Certificate, CertificateError> {
        Certificate::parse(&self.der)
    }
}

fn params(name: &str, validity: Validity) -> Result<CertificateParams, AuthorityError> {
    let epoch = date_time_ymd(1970, 1, 1);
    let at = |time: Timestamp| {
        epoch + std::time::Duration::from_secs(u64::try_from(time.as_second()).unwrap_or_default())
    };
    let mut serial = [0; 16];
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut serial)
        .map_err(|_| KeyError::Library("make a serial number"))?;
    let mut params = CertificateParams::default();
    params.not_before = at(validity.not_before);
    params.not_after = at(validity.not_after);
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}

/// Makes it a CA's certificate.
fn authority(params: &mut CertificateParams, trust_domain: &TrustDomain) -> Result<(), AuthorityError> {
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(SUCCESSORS));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.subject_alt_names = vec![SanType::URI(ascii(&format!("spiffe://{trust_domain}"))?)];
    Ok(())
}

/// The one name of a CA of ours.
fn common_name(der: &[u8]) -> Result<String, AuthorityError> {
    let parsed = certificate::read(der)?;
    let mut names = parsed.subject().iter_common_name();
    match (names.next().and_then(|name| name.as_str().ok()), names.next()) {
        (Some(name), None) => Ok(name.to_owned()),
        (Some(_) | None, _) => Err(AuthorityError::NotAnAuthority),
    }
}

fn server_name(name: &str) -> Result<SanType, AuthorityError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let plain =
        rustls_pki_types::DnsName::try_from(name).map_err(|_| AuthorityError::Name(name.to_owned()))?;
    Ok(SanType::DnsName(ascii(plain.as_ref())?))
}

fn ascii(text: &str) -> Result<Ia5String, AuthorityError> {
    Ia5String::try_from(text).map_err(|_| AuthorityError::Name(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;
    use x509_parser::extensions::{GeneralName, ParsedExtension};

    use super::*;
    use crate::{Authorities, Csr, Purpose};

    #[test]
    fn a_hosts_certificate_is_for_a_client_of_one_name_and_signs_nothing() {
        let authority = authority();
        let key = Key::generate().unwrap();
        let host = Identity::Host(Uuid::from_u128(7));
        let issued = authority
            .issue(key.public(), &host, lifetime::HOST, now())
            .unwrap();
        let parsed = issued.parse().unwrap();
        assert_eq!(
            (&parsed.identity, &parsed.trust_domain),
            (&host, authority.trust_domain())
        );
        assert_eq!(
            (parsed.purpose, &parsed.public_key),
            (Purpose::Client, key.public())
        );
        assert_eq!(parsed.not_before, now() - SignedDuration::from_mins(5));
        assert_eq!(parsed.not_after, now() + SignedDuration::from_hours(7 * 24));
        assert_eq!(parsed.fingerprint, issued.fingerprint);

        let x509 = certificate::read(&issued.der).unwrap();
        let usage = x509.key_usage().unwrap().unwrap();
        assert!(usage.critical);
        assert_eq!(usage.value.flags, 1, "digital signature alone");
        assert!(!x509.basic_constraints().unwrap().unwrap().value.ca);
        let names = &x509
            .subject_alternative_name()
            .unwrap()
            .unwrap()
            .value
            .general_names;
        assert!(matches!(names[..], [GeneralName::URI(_)]), "{names:?}");
    }

    #[test]
    fn the_masters_certificate_is_for_a_server_and_carries_its_names() {
        let authority = authority();
        let names = [
            "master.example.org".to_owned(),
            "192.0.2.1".to_owned(),
            "2001:db8::1".to_owned(),
        ];
        let issued = authority
            .issue_master(Key::generate().unwrap().public(), &names, now())
            .unwrap();
        let parsed = issued.parse().unwrap();
        assert_eq!(
            (parsed.identity, parsed.purpose),
            (Identity::Master, Purpose::Server)
        );
        let x509 = certificate::read(&issued.der).unwrap();
        assert_eq!(
            x509.subject_alternative_name()
                .unwrap()
                .unwrap()
                .value
                .general_names
                .len(),
            4
        );
        let error = authority.issue_master(Key::generate().unwrap().public(), &["a b".to_owned()], now());
        assert!(matches!(error.unwrap_err(), AuthorityError::Name(_)));
    }

    #[test]
    fn what_the_ca_signs_names_the_ca_and_has_a_serial_of_its_own() {
        let authority = authority();
        let root = certificate::read(authority.certificate()).unwrap();
        let mut serials = std::collections::BTreeSet::new();
        for _ in 0..20 {
            let issued = authority
                .issue_master(Key::generate().unwrap().public(), &[], now())
                .unwrap();
            let x509 = certificate::read(&issued.der).unwrap();
            assert_eq!(x509.issuer().as_raw(), root.subject().as_raw());
            assert_eq!(authority_key(&x509), subject_key(&root));
            x509.verify_signature(Some(root.public_key())).unwrap();
            assert!(
                x509.raw_serial().len() <= 17,
                "128 bits and perhaps a leading zero"
            );
            serials.insert(x509.raw_serial().to_vec());
        }
        assert_eq!(serials.len(), 20);
    }

    #[test]
    fn the_ca_may_sign_certificates_and_no_further_ca() {
        let authority = authority();
        let root = certificate::read(authority.certificate()).unwrap();
        let constraints = root.basic_constraints().unwrap().unwrap();
        assert!(constraints.critical && constraints.value.ca);
        assert_eq!(constraints.value.path_len_constraint, Some(u32::from(SUCCESSORS)));
        let usage = root.key_usage().unwrap().unwrap().value;
        assert!(usage.key_cert_sign() && usage.crl_sign() && !usage.digital_signature());
        assert!(subject_key(&root).is_some());
        assert!(
            Certificate::parse(authority.certificate()).is_err(),
            "a CA is nobody's identity"
        );
    }

    #[test]
    fn nothing_outlives_the_ca_and_an_ended_ca_signs_nothing() {
        let authority = authority();
        let key = Key::generate().unwrap();
        let end = authority.validity().not_after;
        let late = end - SignedDuration::from_hours(1);
        let issued = authority
            .issue(key.public(), &Identity::Master, lifetime::MASTER, late)
            .unwrap();
        assert_eq!(issued.not_after, end);
        for outside in [
            end,
            end + SignedDuration::from_hours(1),
            now() - SignedDuration::from_hours(1),
        ] {
            let error = authority
                .issue(key.public(), &Identity::Master, lifetime::MASTER, outside)
                .unwrap_err();
            assert!(
                matches!(error, AuthorityError::OutOfTime { .. }),
                "{outside}: {error}"
            );
        }
    }

    #[test]
    fn a_ca_reads_back_from_its_files_and_not_with_the_key_of_another() {
        let (key, other) = (Key::generate().unwrap(), Key::generate().unwrap());
        let domain = "example.org".parse().unwrap();
        let one = Authority::create_with(Arc::new(key.clone()), &domain, now()).unwrap();
        let back = Authority::load(one.certificate_pem().as_bytes(), key.to_pem().as_bytes()).unwrap();
        assert_eq!(
            (back.fingerprint(), back.trust_domain()),
            (one.fingerprint(), one.trust_domain())
        );
        let signed = back
            .issue(
                Key::generate().unwrap().public(),
                &Identity::Master,
                lifetime::MASTER,
                now(),
            )
            .unwrap();
        let trust = Authorities::new(one.trust_domain().clone(), vec![one.certificate().to_vec()]).unwrap();
        assert!(trust.signed(&signed.der));
        let error = Authority::load(one.certificate_pem().as_bytes(), other.to_pem().as_bytes()).unwrap_err();
        assert!(matches!(error, AuthorityError::KeyDoesNotMatch(_)), "{error}");
        let leaf = pem::certificate_to_pem(&signed.der);
        assert!(Authority::load(leaf.as_bytes(), key.to_pem().as_bytes()).is_err());
    }

    #[test]
    fn two_cas_of_one_domain_have_different_names() {
        let (one, other) = (authority(), authority());
        let subject = |authority: &Authority| {
            certificate::read(authority.certificate())
                .unwrap()
                .subject()
                .to_string()
        };
        assert_ne!(subject(&one), subject(&other));
    }

    #[test]
    fn a_certificate_is_signed_for_the_key_of_a_request() {
        let key = Key::generate().unwrap();
        let csr = Csr::parse(&key.csr().unwrap()).unwrap();
        let ana = Identity::Operator("ana".parse().unwrap());
        let issued = authority()
            .issue(csr.public_key(), &ana, lifetime::OPERATOR, now())
            .unwrap();
        assert_eq!(issued.parse().unwrap().public_key, *key.public());
    }

    #[test]
    fn the_longest_trust_domain_and_operator_still_give_certificates() {
        let domain: TrustDomain = "d".repeat(128).parse().unwrap();
        let authority = Authority::create(&domain, now()).unwrap();
        let ana = Identity::Operator("o".repeat(48).parse().unwrap());
        let issued = authority
            .issue(Key::generate().unwrap().public(), &ana, lifetime::OPERATOR, now())
            .unwrap();
        assert_eq!(issued.parse().unwrap().identity, ana);
        for der in [authority.certificate(), &issued.der] {
            let x509 = certificate::read(der).unwrap();
            let name = x509
                .subject()
                .iter_common_name()
                .next()
                .unwrap()
                .as_str()
                .unwrap();
            assert!(name.len() <= 64, "{name}");
        }
    }

    fn subject_key(x509: &x509_parser::certificate::X509Certificate<'_>) -> Option<Vec<u8>> {
        x509.iter_extensions().find_map(|extension| {
            let ParsedExtension::SubjectKeyIdentifier(id) = extension.parsed_extension() else {
                return None;
            };
            Some(id.0.to_vec())
        })
    }

    fn authority_key(x509: &x509_parser::certificate::X509Certificate<'_>) -> Option<Vec<u8>> {
        x509.iter_extensions().find_map(|extension| {
            let ParsedExtension::AuthorityKeyIdentifier(id) = extension.parsed_extension() else {
                return None;
            };
            id.key_identifier.as_ref().map(|id| id.0.to_vec())
        })
    }

    fn authority() -> Authority {
        Authority::create(&"example.org".parse().unwrap(), now()).unwrap()
    }

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }
}
