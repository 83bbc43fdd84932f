//! One request over HTTPS and its answer. Nothing here tries again.
//!
//! Each request has a connection of its own: a CA signs a few times a minute, and a connection that was kept would have
//! to be watched for having been closed at the other end.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use tokio::{net::TcpStream, time};
use tokio_rustls::TlsConnector;

use crate::{Place, TransitError, token::Token};

/// The longest answer that is read. A key with a thousand versions has 300 KiB.
const MAX_ANSWER: usize = 1 << 20;
/// The longest file of CA certificates; a whole system's has 250 KiB.
const MAX_AUTHORITY: u64 = 4 << 20;

/// One request, named for messages.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) body: Option<String>,
    /// The version of the key that is to sign.
    pub(crate) version: Option<u32>,
}

impl Ask {
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            body: None,
            version: None,
        }
    }

    pub(crate) fn post(path: impl Into<String>, body: &serde_json::Value) -> Self {
        Self {
            method: Method::POST,
            path: path.into(),
            body: Some(body.to_string()),
            version: None,
        }
    }

    /// The method and path, as messages name it.
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// The TLS of the client: 1.3 alone, and only a server that `ca.transit.authority` vouches for.
pub(crate) fn tls(place: &Place) -> Result<Arc<ClientConfig>, TransitError> {
    let text =
        picket_durable::read_bounded(&place.authority, MAX_AUTHORITY).map_err(TransitError::Authority)?;
    let certificates = CertificateDer::pem_slice_iter(&text).filter_map(Result::ok);
    let mut roots = RootCertStore::empty();
    // A system's bundle may hold a certificate that this library does not read; the others count.
    let (taken, _) = roots.add_parsable_certificates(certificates);
    if taken == 0 {
        return Err(TransitError::NoAuthority(place.authority.clone()));
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TransitError::Library)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Sends one request with `token` and reads its answer, in the time that one request has.
pub(crate) async fn exchange(
    place: &Place,
    tls: Arc<ClientConfig>,
    token: &Token,
    ask: &Ask,
    within: Duration,
) -> Result<(StatusCode, Bytes), TransitError> {
    match time::timeout(within, talk(place, tls, token, ask)).await {
        Ok(answered) => answered,
        Err(_) => Err(TransitError::TimedOut {
            ask: ask.name(),
            place: place.address.to_string(),
            after: within,
        }),
    }
}

async fn talk(
    place: &Place,
    tls: Arc<ClientConfig>,
    token: &Token,
    ask: &Ask,
) -> Result<(StatusCode, Bytes), TransitError> {
    let at = place.address.to_string();
    let unreachable = |cause| TransitError::Unreachable {
        ask: ask.name(),
        place: at.clone(),
        cause,
    };
    let nonsense = |why: String| TransitError::Nonsense {
        ask: ask.name(),
        place: at.clone(),
        why,
    };
    let request = request(place, token, ask).map_err(|error| nonsense(error.to_string()))?;
    let dialled = (place.address.host().to_str().into_owned(), place.address.port());
    let stream = TcpStream::connect(dialled).await.map_err(unreachable)?;
    let stream = TlsConnector::from(tls)
        .connect(place.address.host().clone(), stream)
        .await
        .map_err(|cause| match cause.get_ref() {
            Some(inner) if inner.is::<rustls::Error>() => TransitError::Tls {
                place: at.clone(),
                cause,
            },
            Some(_) | None => unreachable(cause),
        })?;
    let cut = |error: hyper::Error| {
        if error.is_parse() || error.is_parse_status() {
            nonsense(format!("it is not HTTP ({error})"))
        } else {
            unreachable(io::Error::other(error))
        }
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(cut)?;
    let answer = async {
        let (head, body) = sender.send_request(request).await.map_err(cut)?.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map_err(|error| match error.downcast::<hyper::Error>() {
            Ok(error) => cut(*error),
            Err(error) if error.is::<LengthLimitError>() => {
                nonsense(format!("it is longer than {MAX_ANSWER} bytes"))
            }
            Err(error) => nonsense(error.to_string()),
        })?;
        Ok((head.status, body.to_bytes()))
    };
    tokio::pin!(answer);
    // The connection is driven here, not by a task of its own: dropping the call drops all of it.
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        ended = connection => tokio::select! {
            biased;
            // An answer that ends with the connection is complete by now; otherwise this is what ended it.
            answer = &mut answer => answer,
            () = std::future::ready(()) => Err(match ended {
                Err(error) => cut(error),
                Ok(()) => unreachable(io::ErrorKind::UnexpectedEof.into()),
            }),
        },
    }
}

fn request(place: &Place, token: &Token, ask: &Ask) -> Result<Request<Full<Bytes>>, http::Error> {
    let mut secret = HeaderValue::from_str(token.expose())?;
    secret.set_sensitive(true);
    let mut head = Request::builder()
        .method(ask.method.clone())
        .uri(format!("/v1/{}", ask.path))
        .header(header::HOST, format!("{}:{}", place.address.name(), place.address.port()))
        .header(header::CONNECTION, "close")
        // A proxy of theirs may be told to ask for this, so that no browser is tricked into sending requests.
        .header("X-Vault-Request", "true")
        .header("X-Vault-Token", secret);
    if let Some(namespace) = &place.namespace {
        head = head.header("X-Vault-Namespace", namespace.to_string());
    }
    match &ask.body {
        Some(body) => head
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.clone()))),
        None => head.body(Full::default()),
    }
}
