//! The TLS listener of the simulated server, and the thread it runs on.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError, mpsc},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use rustls::{ServerConfig, crypto::aws_lc_rs};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::{
    State,
    routes::{self, Answer, Asked},
};

/// The longest request that is read.
const MAX_REQUEST: usize = 1 << 20;

/// Starts the thread; returns the address, the CA as PEM, and what stops it when dropped.
pub(super) fn start(state: Arc<Mutex<State>>) -> (SocketAddr, String, oneshot::Sender<()>) {
    let (authority, config) = tls();
    let (stop, stopped) = oneshot::channel();
    let (tell, told) = mpsc::channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("the system gives a runtime");
    std::thread::Builder::new()
        .name("fake-transit".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
                    .await
                    .expect("loopback listens");
                let address = listener.local_addr().expect("a listener has an address");
                tell.send(address).expect("somebody waits for the address");
                let acceptor = TlsAcceptor::from(Arc::new(config));
                tokio::select! {
                    () = accept(listener, acceptor, state) => {}
                    // Nobody sends anything; it ends when the other end is dropped.
                    _ = stopped => {}
                }
            });
        })
        .expect("the system gives a thread");
    let address = told.recv().expect("the thread tells its address");
    (address, authority, stop)
}

/// A CA of its own, and a server's certificate of that for loopback.
fn tls() -> (String, ServerConfig) {
    let pair = || KeyPair::generate().expect("the system gives randomness");
    let mut params = CertificateParams::new(Vec::new()).expect("no names are fine");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = CertifiedIssuer::self_signed(params, pair()).expect("a CA signs itself");
    let key = pair();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let params = CertificateParams::new(names).expect("these are names");
    let certificate = params.signed_by(&key, &authority).expect("the CA signs");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .and_then(|builder| {
            builder
                .with_no_client_auth()
                .with_single_cert(vec![certificate.der().clone()], key)
        })
        .expect("the certificate is for the key");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    (authority.pem(), config)
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, state: Arc<Mutex<State>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(serve(stream, acceptor.clone(), Arc::clone(&state)));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, state: Arc<Mutex<State>>) {
    let Ok(stream) = acceptor.accept(stream).await else {
        return;
    };
    let answer = service_fn(|request| respond(&state, request));
    // A connection that breaks is its client's affair.
    drop(
        http1::Builder::new()
            .serve_connection(TokioIo::new(stream), answer)
            .await,
    );
}

/// The connection is to be closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("closed")]
struct Closed;

async fn respond(state: &Mutex<State>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Closed> {
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, MAX_REQUEST).collect().await {
        Ok(body) => body.to_bytes().to_vec(),
        Err(_) => return Err(Closed),
    };
    let asked = Asked {
        method: head.method,
        path: head.uri.path().to_owned(),
        headers: head.headers,
        body,
    };
    let answer = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = routes::answer(&mut state, &asked);
        let status = match &answer {
            Answer::Json(status, _) => status.as_str().to_owned(),
            Answer::Babble | Answer::Silence | Answer::Closed => "-".to_owned(),
        };
        state
            .asked
            .push(format!("{} {} {status}", asked.method, asked.path));
        answer
    };
    let (status, text) = match answer {
        Answer::Json(status, value) => (status, value.to_string()),
        Answer::Babble => (StatusCode::OK, "<html>It works!</html>".to_owned()),
        Answer::Closed => return Err(Closed),
        Answer::Silence => match std::future::pending::<Infallible>().await {},
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json"),
    );
    Ok(response)
}
