//! What an operator sees happen.

use picket_proto::wire::admin::{Event, ListEventsRequest, event_service_client::EventServiceClient};

use super::{Site, until};

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
}
