//! TLS over another way to connect, to a server that a given authority vouches for.

use std::{fmt, io, sync::Arc};

use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio_rustls::TlsConnector;

use super::{Dial, Dialing, Wire};

/// Speaks TLS 1.3 over connections of another kind.
pub struct Tls {
    under: Arc<dyn Dial>,
    name: ServerName<'static>,
    connector: TlsConnector,
}

/// Why there is no TLS to speak.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The server has no name that a certificate could be for.
    #[error("`{0}` is no name of a server; write one like api.zerotier.com")]
    Name(String),
    /// There are no certificates in the text.
    #[error(
        "the file of authorities holds no certificates as PEM; a system keeps its own in /etc/ssl/certs/ca-certificates.crt"
    )]
    NoAuthority,
    /// A certificate in the text is none.
    #[error("certificate {0} in the file of authorities cannot be read")]
    Authority(usize),
    /// TLS itself could not be set up.
    #[error("set up TLS")]
    Setup(#[source] rustls::Error),
}

/// Reads the authorities that vouch for servers from certificates in PEM.
///
/// # Errors
/// [`TlsError::NoAuthority`] and [`TlsError::Authority`].
pub fn authorities(pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for (index, certificate) in CertificateDer::pem_slice_iter(pem).enumerate() {
        let unreadable = TlsError::Authority(index + 1);
        let Ok(certificate) = certificate else {
            return Err(unreadable);
        };
        roots.add(certificate).map_err(|_| unreadable)?;
    }
    if roots.is_empty() {
        return Err(TlsError::NoAuthority);
    }
    Ok(roots)
}

impl Tls {
    /// Returns a dialer that reaches the server `name` through `under`, and nobody whom `authorities` do not vouch for.
    ///
    /// # Errors
    /// [`TlsError::Name`] and [`TlsError::Setup`].
    pub fn new(under: Arc<dyn Dial>, name: &str, authorities: RootCertStore) -> Result<Self, TlsError> {
        let server = ServerName::try_from(name.to_owned()).map_err(|_| TlsError::Name(name.to_owned()))?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?
            .with_root_certificates(authorities)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            under,
            name: server,
            connector: TlsConnector::from(Arc::new(config)),
        })
    }
}

impl Dial for Tls {
    fn dial(&self) -> Dialing<'_> {
        Box::pin(async {
            let wire = self.under.dial().await?;
            let stream = self.connector.connect(self.name.clone(), wire).await?;
            Ok::<_, io::Error>(Box::new(stream) as Box<dyn Wire>)
        })
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.under, f)
    }
}
