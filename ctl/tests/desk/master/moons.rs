//! Moons, as the admin API asks for them.

use picket_proto::stay;

use super::*;

/// How long an agent takes to sign one.
const SIGNING: Duration = Duration::from_secs(2);

/// A moon, and since when it is wanted.
pub(crate) struct Wanted {
    moon: wire::Moon,
    since: Instant,
}

impl Wanted {
    fn view(&self) -> wire::Moon {
        let signed = self.since.elapsed() >= SIGNING;
        wire::Moon {
            signed,
            signed_at: if signed { self.moon.signed_at } else { None },
            orbiting: if signed { 2 } else { 0 },
            waiting: if signed { 1 } else { 3 },
            ..self.moon.clone()
        }
    }
}

#[tonic::async_trait]
impl moon::MoonService for FakeMaster {
    async fn create_moon(
        &self,
        request: Request<wire::CreateMoonRequest>,
    ) -> Answer<wire::CreateMoonResponse> {
        let request = request.into_inner();
        stay::endpoints(&request.endpoints).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let now = self.clock.now();
        let mut state = self.open().await?;
        let node = state.host(&request.host)?.node_id.clone();
        if node.is_empty() {
            return Err(Status::failed_precondition(format!(
                "host {} has no node that is believed; see `picketctl host show {}`",
                request.host, request.host
            )));
        }
        let moon = wire::Moon {
            world_id: format!("000000{node}"),
            host: request.host.clone(),
            endpoints: request.endpoints,
            signed_at: Some(to_wire_time(now)),
            ..wire::Moon::default()
        };
        let wanted = Wanted {
            moon,
            since: Instant::now(),
        };
        let view = wanted.view();
        state.moons.insert(request.host, wanted);
        Ok(Response::new(wire::CreateMoonResponse { moon: Some(view) }))
    }

    async fn list_moons(&self, _: Request<wire::ListMoonsRequest>) -> Answer<wire::ListMoonsResponse> {
        let moons = self.open().await?.moons.values().map(Wanted::view).collect();
        Ok(Response::new(wire::ListMoonsResponse { moons }))
    }

    async fn remove_moon(
        &self,
        request: Request<wire::RemoveMoonRequest>,
    ) -> Answer<wire::RemoveMoonResponse> {
        let request = request.into_inner();
        reason(&request.reason)?;
        let mut state = self.open().await?;
        state
            .moons
            .remove(&request.host)
            .ok_or_else(|| Status::not_found(format!("host {} is the root of no moon", request.host)))?;
        Ok(Response::new(wire::RemoveMoonResponse {}))
    }
}
