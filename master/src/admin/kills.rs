//! Kills: a prohibition that beats every permission, and the proof that it is true on the wire.

use std::sync::Arc;

use futures::stream::BoxStream;
use picket_proto::wire::admin::{
    KillRequest, KillResponse, ListKillsRequest, ListKillsResponse, UnkillRequest, UnkillResponse,
    WatchKillRequest, WatchKillResponse, kill_service_server::KillService,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::desk::Desk;

/// The service, over the desk.
#[derive(Debug)]
pub struct Kills {
    /// The desk.
    pub desk: Arc<Desk>,
    /// Fires when the master stops: watchers are told goodbye.
    pub stop: CancellationToken,
}

#[tonic::async_trait]
impl KillService for Kills {
    async fn kill(&self, _: Request<KillRequest>) -> Result<Response<KillResponse>, Status> {
        Err(Status::unimplemented("todo"))
    }

    type WatchKillStream = BoxStream<'static, Result<WatchKillResponse, Status>>;

    async fn watch_kill(
        &self,
        _: Request<WatchKillRequest>,
    ) -> Result<Response<Self::WatchKillStream>, Status> {
        Err(Status::unimplemented("todo"))
    }

    async fn list_kills(&self, _: Request<ListKillsRequest>) -> Result<Response<ListKillsResponse>, Status> {
        Err(Status::unimplemented("todo"))
    }

    async fn unkill(&self, _: Request<UnkillRequest>) -> Result<Response<UnkillResponse>, Status> {
        Err(Status::unimplemented("todo"))
    }
}
