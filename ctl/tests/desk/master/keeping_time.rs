//! The master's time.

use jiff::SignedDuration;
use picket_proto::{
    to_wire_time,
    wire::admin::{self as wire, clock_service_server::ClockService},
};
use tonic::{Request, Status};

use super::{Answer, FakeMaster};

impl FakeMaster {
    fn told(&self, held: bool) -> wire::MasterClock {
        let now = self.clock.now();
        let machine = now + SignedDuration::from_secs(self.state().jumped);
        let time = if held { now } else { machine.max(now) };
        wire::MasterClock {
            time: Some(to_wire_time(time)),
            machine_time: Some(to_wire_time(machine)),
            held,
            held_since: held.then(|| to_wire_time(now)),
        }
    }
}

#[tonic::async_trait]
impl ClockService for FakeMaster {
    async fn get_clock(&self, _: Request<wire::GetClockRequest>) -> Answer<wire::GetClockResponse> {
        let held = self.open().await?.jumped != 0;
        Ok(wire::GetClockResponse {
            clock: Some(self.told(held)),
        }
        .into())
    }

    async fn accept_clock(
        &self,
        request: Request<wire::AcceptClockRequest>,
    ) -> Answer<wire::AcceptClockResponse> {
        drop(self.open().await?);
        if request.into_inner().reason.is_empty() {
            return Err(Status::invalid_argument("reason: is missing"));
        }
        let clock = self.told(false);
        self.state().jumped = 0;
        Ok(wire::AcceptClockResponse { clock: Some(clock) }.into())
    }
}
