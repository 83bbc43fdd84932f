//! Which connections have a call open. One that has none for a while is closed, whoever it belongs to.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use picket_link::Peer;
use tonic::codegen::{Body, Service, http};
use tower::Layer;

use crate::sessions::{Call, Sessions};

/// Notes the calls of a server's connections. A call is open until its answer has been sent, or given up.
#[derive(Debug, Clone)]
pub struct CallLayer(pub Arc<Sessions>);

impl<S> Layer<S> for CallLayer {
    type Service = Noting<S>;

    fn layer(&self, inner: S) -> Noting<S> {
        Noting {
            inner,
            sessions: Arc::clone(&self.0),
        }
    }
}

/// A service whose calls are noted.
#[derive(Debug, Clone)]
pub struct Noting<S> {
    inner: S,
    sessions: Arc<Sessions>,
}

impl<S, B, R> Service<http::Request<B>> for Noting<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>>,
    S::Future: Send + 'static,
    R: Send + 'static,
{
    type Response = http::Response<Noted<R>>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let peer = request.extensions().get::<Peer>();
        let call = peer.map(|peer| self.sessions.call(&peer.identity, peer.connection));
        let answer = self.inner.call(request);
        Box::pin(async move { Ok(answer.await?.map(|body| Noted { body, _call: call })) })
    }
}

/// The body of an answer, whose call ends with it.
#[derive(Debug)]
pub struct Noted<R> {
    body: R,
    _call: Option<Call>,
}

impl<R: Body + Unpin> Body for Noted<R> {
    type Data = R::Data;
    type Error = R::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<R::Data>, R::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}
