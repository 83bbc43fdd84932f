//! The master's time: looking at it, and accepting a clock that jumped.

use std::sync::Arc;

use picket_proto::{
    to_wire_time,
    wire::admin::{
        self as wire, AcceptClockRequest, AcceptClockResponse, GetClockRequest, GetClockResponse,
        clock_service_server::ClockService,
    },
};
use tonic::{Request, Response, Status};

use super::reason;
use crate::{caller::operator, desk::Desk, time::Back};

/// The service, over the desk.
#[derive(Debug)]
pub struct Clocks(pub Arc<Desk>);

#[tonic::async_trait]
impl ClockService for Clocks {
    async fn get_clock(
        &self,
        request: Request<GetClockRequest>,
    ) -> Result<Response<GetClockResponse>, Status> {
        operator(&self.0, &request)?;
        Ok(Response::new(GetClockResponse {
            clock: Some(shown(&self.0)),
        }))
    }

    async fn accept_clock(
        &self,
        request: Request<AcceptClockRequest>,
    ) -> Result<Response<AcceptClockResponse>, Status> {
        let actor = operator(&self.0, &request)?;
        let asked = request.into_inner();
        let back = if asked.go_back {
            Back::GoBack
        } else {
            Back::StandStill
        };
        self.0.accept_clock(&actor, &reason(&asked.reason)?, back).await?;
        Ok(Response::new(AcceptClockResponse {
            clock: Some(shown(&self.0)),
        }))
    }
}

fn shown(desk: &Desk) -> wire::MasterClock {
    let look = desk.time.look();
    wire::MasterClock {
        time: Some(to_wire_time(look.now)),
        machine_time: Some(to_wire_time(look.machine)),
        held: look.jumped.is_some(),
        held_since: look.held_since.map(to_wire_time),
    }
}
