//! The master's end: nobody's bytes are read before the pin is found.

use std::{fmt, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, ServerConfig,
    SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature},
    server::{
        NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::{ALPN, Presented, Time, TlsError, Told, provider};
use crate::{Authorities, Certificate, PinKind, Pins, Purpose, Role, Standing, lifetime};

/// The TLS configuration of a listener that takes callers of one role: TLS 1.3, HTTP/2, a pinned client certificate
/// always, no resumption.
///
/// # Errors
///
/// [`TlsError::Library`], which would be an error in this crate.
pub fn server_config(
    presented: Arc<Presented>,
    authorities: Arc<Authorities>,
    role: Role,
    pins: Arc<dyn Pins>,
    time: Time,
) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(provider());
    let algorithms = provider.signature_verification_algorithms;
    let verifier = ClientVerifier {
        authorities,
        role,
        pins,
        algorithms,
    };
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(Told(time)))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Library)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(presented);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// Decides in this order: chain, role, trust domain, pin, time. Each step has its own alert, so that a banned host is
/// told of the ban, whatever its certificate's end.
struct ClientVerifier {
    authorities: Arc<Authorities>,
    role: Role,
    pins: Arc<dyn Pins>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientVerifier {
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), CertificateError> {
        self.authorities
            .check_chain(leaf, intermediates, &self.algorithms)?;
        let certificate = Authorities::read(leaf)?;
        if certificate.purpose != Purpose::Client || certificate.identity.role() != Some(self.role) {
            return Err(CertificateError::InvalidPurpose);
        }
        if &certificate.trust_domain != self.authorities.trust_domain() {
            return Err(CertificateError::NotValidForName);
        }
        let pin = check_standing(self.pins.standing(&certificate.fingerprint), self.role)?;
        check_time(&certificate, judged_at(pin, &certificate, now))
    }
}

/// The alerts that these errors become: `access_denied`, `certificate_revoked`, `certificate_unknown`.
fn check_standing(standing: Standing, role: Role) -> Result<PinKind, CertificateError> {
    match standing {
        Standing::Pinned(kind) if kind.role() == role => Ok(kind),
        Standing::Pinned(_) => Err(CertificateError::InvalidPurpose),
        Standing::Spent => Err(CertificateError::ApplicationVerificationFailure),
        Standing::Banned | Standing::Retired => Err(CertificateError::Revoked),
        Standing::Unknown => Err(CertificateError::Other(OtherError(Arc::new(NeverPinned)))),
    }
}

/// The time that a certificate is judged at. Expired is not lost: the one a host works under is judged no later than at
/// its end while [`lifetime::EXPIRED`] lasts. What such a caller may do is for the listener to decide.
fn judged_at(pin: PinKind, certificate: &Certificate, now: UnixTime) -> UnixTime {
    match pin {
        PinKind::Current => {
            let end = unix(certificate.not_after);
            let kept = u64::try_from(lifetime::EXPIRED.as_secs()).unwrap_or(0);
            if now.as_secs() <= end.as_secs().saturating_add(kept) {
                now.min(end)
            } else {
                now
            }
        }
        PinKind::Bundle | PinKind::Pending | PinKind::Operator => now,
    }
}

fn unix(time: jiff::Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(
        u64::try_from(time.as_second()).unwrap_or(0),
    ))
}

pub(crate) fn check_time(certificate: &Certificate, now: UnixTime) -> Result<(), CertificateError> {
    let (not_before, not_after) = (unix(certificate.not_before), unix(certificate.not_after));
    if now < not_before {
        return Err(CertificateError::NotValidYetContext {
            time: now,
            not_before,
        });
    }
    if now > not_after {
        return Err(CertificateError::ExpiredContext { time: now, not_after });
    }
    Ok(())
}

#[derive(Debug, thiserror::Error)]
#[error("the certificate was never pinned")]
struct NeverPinned;

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(leaf, intermediates, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl fmt::Debug for ClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientVerifier")
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}
