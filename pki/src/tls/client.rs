//! The end of an agent or an operator: the master is who our CA says is the master, wherever it was dialled.

use std::{fmt, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature},
    sign::SingleCertAndKey,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{ALPN, Time, TlsError, Told, certified, provider, server::check_time};
use crate::{Authorities, Identity, Key, Purpose};

/// The TLS configuration of a client that shows `certificate` (DER) and talks to the master of this trust domain alone.
/// Names and addresses are not checked: they only say where to dial.
///
/// # Errors
///
/// [`TlsError::Identity`] when certificate and key are no pair.
pub fn client_config(
    authorities: Arc<Authorities>,
    certificate: &[u8],
    key: &Key,
    time: Time,
) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(provider());
    let algorithms = provider.signature_verification_algorithms;
    let mut config = ClientConfig::builder_with_details(provider, Arc::new(Told(time)))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Library)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(MasterVerifier {
            authorities,
            algorithms,
        }))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified(certificate, key)?)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    // The name would travel in the clear, and nobody looks at it.
    config.enable_sni = false;
    Ok(config)
}

/// Decides in this order: chain, role, trust domain, time.
struct MasterVerifier {
    authorities: Arc<Authorities>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl MasterVerifier {
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), CertificateError> {
        self.authorities
            .check_chain(leaf, intermediates, &self.algorithms)?;
        let certificate = Authorities::read(leaf)?;
        if certificate.purpose != Purpose::Server || certificate.identity != Identity::Master {
            return Err(CertificateError::InvalidPurpose);
        }
        if &certificate.trust_domain != self.authorities.trust_domain() {
            return Err(CertificateError::NotValidForName);
        }
        check_time(&certificate, now)
    }
}

impl ServerCertVerifier for MasterVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(leaf, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
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

impl fmt::Debug for MasterVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterVerifier")
    }
}
