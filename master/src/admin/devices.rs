//! Devices: ZeroTier nodes and whose they are.

use std::sync::Arc;

use picket_proto::wire::admin::{
    ListDevicesRequest, ListDevicesResponse, RegisterDeviceRequest, RegisterDeviceResponse,
    RemoveDeviceRequest, RemoveDeviceResponse, device_service_server::DeviceService,
};
use tonic::{Request, Response, Status};

use crate::desk::Desk;

/// The service, over the desk.
#[derive(Debug)]
pub struct Devices(pub Arc<Desk>);

#[tonic::async_trait]
impl DeviceService for Devices {
    async fn register_device(
        &self,
        _: Request<RegisterDeviceRequest>,
    ) -> Result<Response<RegisterDeviceResponse>, Status> {
        Err(Status::unimplemented("todo"))
    }

    async fn list_devices(
        &self,
        _: Request<ListDevicesRequest>,
    ) -> Result<Response<ListDevicesResponse>, Status> {
        Err(Status::unimplemented("todo"))
    }

    async fn remove_device(
        &self,
        _: Request<RemoveDeviceRequest>,
    ) -> Result<Response<RemoveDeviceResponse>, Status> {
        Err(Status::unimplemented("todo"))
    }
}
