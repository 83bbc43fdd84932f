//! Events: listing and watching.

use std::sync::Arc;

use futures::{StreamExt as _, stream::BoxStream};
use picket_proto::{
    to_wire_time,
    wire::admin::{
        self as wire, ListEventsRequest, ListEventsResponse, WatchEventsRequest, WatchEventsResponse,
        event_service_server::EventService,
    },
};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    caller::operator,
    desk::Desk,
    event::{Event, MOST_KEPT, Severity},
    status::behind,
};

/// How many events are listed when the caller does not say.
const USUAL: u32 = 100;

/// The service, over the desk.
#[derive(Debug)]
pub struct EventStreams {
    /// What the services share.
    pub desk: Arc<Desk>,
    /// Streams end when it fires.
    pub stop: CancellationToken,
}

#[tonic::async_trait]
impl EventService for EventStreams {
    type WatchEventsStream = BoxStream<'static, Result<WatchEventsResponse, Status>>;

    async fn list_events(
        &self,
        request: Request<ListEventsRequest>,
    ) -> Result<Response<ListEventsResponse>, Status> {
        operator(&self.desk, &request)?;
        let asked = request.into_inner();
        let limit = if asked.limit == 0 { USUAL } else { asked.limit };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(MOST_KEPT);
        let wanted = |event: &Event| {
            (asked.subject.is_empty() || event.subject == asked.subject)
                && event.kind.starts_with(&asked.kind)
        };
        let events = self.desk.events.list(asked.after, limit, wanted);
        Ok(Response::new(ListEventsResponse {
            events: events.iter().map(|event| shown(event)).collect(),
        }))
    }

    async fn watch_events(
        &self,
        request: Request<WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        operator(&self.desk, &request)?;
        let (before, live) = self.desk.events.watch(request.into_inner().after);
        let last = before.last().map_or(0, |event| event.id);
        let before = futures::stream::iter(before).map(|event| Ok(answer(&event)));
        let live = futures::stream::unfold((Some(live), last), |(live, last)| async move {
            let mut live = live?;
            match live.recv().await {
                Ok(event) => Some((Ok(answer(&event)), (Some(live), event.id))),
                Err(RecvError::Lagged(_)) => Some((Err(behind(last)), (None, last))),
                Err(RecvError::Closed) => None,
            }
        });
        let stream = before.chain(live).take_until(self.stop.clone().cancelled_owned());
        Ok(Response::new(Box::pin(stream)))
    }
}

fn answer(event: &Event) -> WatchEventsResponse {
    WatchEventsResponse {
        event: Some(shown(event)),
    }
}

fn shown(event: &Event) -> wire::Event {
    wire::Event {
        id: event.id,
        time: Some(to_wire_time(event.time)),
        severity: match event.severity {
            Severity::Info => wire::EventSeverity::Info,
            Severity::Notice => wire::EventSeverity::Notice,
            Severity::Warning => wire::EventSeverity::Warning,
            Severity::Alert => wire::EventSeverity::Alert,
        }
        .into(),
        kind: event.kind.clone(),
        subject: event.subject.clone(),
        message: event.message.clone(),
    }
}
