//! What an operator sees happen.

use picket_proto::wire::admin::{
    Event, ListEventsRequest, WatchEventsRequest, WatchEventsResponse,
    event_service_client::EventServiceClient,
};

use tokio::time;
use tonic::Streaming;

use super::{PATIENCE, Site, until};

impl Site {
    /// All events whose kind begins so, oldest first.
    pub async fn events(&self, kind: &str) -> Vec<Event> {
        let asked = ListEventsRequest {
            limit: 10_000,
            kind: kind.to_owned(),
            ..Default::default()
        };
        self.told(async |channel| EventServiceClient::new(channel).list_events(asked).await)
            .await
            .events
    }

    /// Waits until there is an event of a kind, and returns the newest.
    pub async fn until_event(&self, kind: &str) -> Event {
        until(&format!("an event {kind}"), async || {
            let newest = self.events(kind).await.pop();
            if let Some(event) = newest {
                return Ok(event);
            }
            let all = self.events("").await;
            Err(all
                .iter()
                .map(|event| format!("{} {}", event.kind, event.subject))
                .collect::<Vec<_>>()
                .join(", "))
        })
        .await
    }

    /// Watches events from here on, as `picketctl event watch` does.
    pub async fn watch(&self) -> Watch {
        let asked = WatchEventsRequest::default();
        let watch = async |channel| EventServiceClient::new(channel).watch_events(asked).await;
        Watch(self.told(watch).await)
    }
}

/// Events as they happen.
pub struct Watch(Streaming<WatchEventsResponse>);

impl Watch {
    /// Waits for the next event of a kind.
    ///
    /// # Panics
    /// When there is none for a while, or the stream ends.
    pub async fn until(&mut self, kind: &str) -> Event {
        let heard = time::timeout(PATIENCE, async {
            loop {
                let response = self.0.message().await.unwrap_or_else(|status| panic!("{status}"));
                let event = response
                    .and_then(|response| response.event)
                    .expect("the stream goes on");
                if event.kind == kind {
                    return event;
                }
            }
        });
        heard
            .await
            .unwrap_or_else(|_| panic!("no event {kind} within {PATIENCE:?}"))
    }
}
