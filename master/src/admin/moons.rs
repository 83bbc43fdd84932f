//! Moons: roots of our own.

use std::sync::Arc;

use picket_proto::wire::admin::{
    CreateMoonRequest, CreateMoonResponse, ListMoonsRequest, ListMoonsResponse, RemoveMoonRequest,
    RemoveMoonResponse, moon_service_server::MoonService,
};
use tonic::{Request, Response, Status};

use crate::desk::Desk;

/// The service, over the desk.
#[derive(Debug)]
pub struct Moons(pub Arc<Desk>);

#[tonic::async_trait]
impl MoonService for Moons {
    async fn create_moon(
        &self,
        _: Request<CreateMoonRequest>,
    ) -> Result<Response<CreateMoonResponse>, Status> {
        Err(Status::unimplemented("todo"))
    }

    async fn list_moons(&self, _: Request<ListMoonsRequest>) -> Result<Response<ListMoonsResponse>, Status> {
        Err(Status::unimplemented("todo"))
    }

    async fn remove_moon(
        &self,
        _: Request<RemoveMoonRequest>,
    ) -> Result<Response<RemoveMoonResponse>, Status> {
        Err(Status::unimplemented("todo"))
    }
}
