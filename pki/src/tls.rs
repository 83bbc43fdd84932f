//! What both ends of a connection share: TLS 1.3 alone, one crypto provider, HTTP/2, no resumption, time from outside.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    crypto::{CryptoProvider, aws_lc_rs},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    time_provider::TimeProvider,
};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::Key;

pub(crate) mod client;
pub(crate) mod server;

/// HTTP/2 and nothing else.
pub(crate) const ALPN: &[u8] = b"h2";

/// Tells the time that certificates are checked at. It comes from whoever owns the clock.
pub type Time = Arc<dyn Fn() -> UnixTime + Send + Sync>;

/// Why a TLS configuration cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The key is not the one the certificate is for, or one of them cannot be used.
    #[error("the certificate and the key for TLS are no pair; restore both, or make a new identity")]
    Identity(#[source] rustls::Error),
    /// The TLS library refused its settings.
    #[error("set up TLS")]
    Library(#[source] rustls::Error),
}

/// The provider: a hybrid with ML-KEM first, so that what is recorded today stays closed to a later quantum computer.
pub(crate) fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
            aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
            aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![
            aws_lc_rs::kx_group::X25519MLKEM768,
            aws_lc_rs::kx_group::X25519,
            aws_lc_rs::kx_group::SECP256R1,
        ],
        ..aws_lc_rs::default_provider()
    }
}

/// The certificate and key that a listener shows, exchangeable while connections go on.
#[derive(Debug)]
pub struct Presented(ArcSwap<CertifiedKey>);

impl Presented {
    /// Shows this certificate (DER) with its key.
    ///
    /// # Errors
    ///
    /// [`TlsError::Identity`] when they are no pair.
    pub fn new(certificate: &[u8], key: &Key) -> Result<Self, TlsError> {
        Ok(Self(ArcSwap::from_pointee(certified(certificate, key)?)))
    }

    /// Shows this one from the next handshake on.
    ///
    /// # Errors
    ///
    /// [`TlsError::Identity`] when they are no pair; then nothing changes.
    pub fn replace(&self, certificate: &[u8], key: &Key) -> Result<(), TlsError> {
        self.replace_chain(certificate, key, &[])
    }

    /// Shows this one from the next handshake on, and behind it the certificates (DER) by which those who trust an
    /// earlier CA find the way to the one that signed it.
    ///
    /// # Errors
    ///
    /// [`TlsError::Identity`] when certificate and key are no pair; then nothing changes.
    pub fn replace_chain(&self, certificate: &[u8], key: &Key, way: &[Vec<u8>]) -> Result<(), TlsError> {
        let mut certified = certified(certificate, key)?;
        certified
            .cert
            .extend(way.iter().map(|der| CertificateDer::from(der.clone())));
        self.0.store(Arc::new(certified));
        Ok(())
    }
}

impl ResolvesServerCert for Presented {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

pub(crate) fn certified(certificate: &[u8], key: &Key) -> Result<CertifiedKey, TlsError> {
    let signer = aws_lc_rs::sign::any_ecdsa_type(&key.to_rustls()).map_err(TlsError::Identity)?;
    let certified = CertifiedKey::new(vec![CertificateDer::from(certificate.to_vec())], signer);
    certified.keys_match().map_err(TlsError::Identity)?;
    Ok(certified)
}

/// A closure as rustls takes time.
pub(crate) struct Told(pub(crate) Time);

impl TimeProvider for Told {
    fn current_time(&self) -> Option<UnixTime> {
        Some((self.0)())
    }
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Told")
    }
}
