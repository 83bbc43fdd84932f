//! What an operator does with moons.

use picket_proto::wire::admin::{
    CreateMoonRequest, ListMoonsRequest, Moon, RemoveMoonRequest, moon_service_client::MoonServiceClient,
};
use tonic::Status;

use super::{Site, until};

impl Site {
    /// Makes a host the root of a moon at these endpoints.
    ///
    /// # Errors
    /// What the master refuses.
    pub async fn try_moon(&self, host: &str, endpoints: &[&str]) -> Result<Moon, Status> {
        let asked = CreateMoonRequest {
            host: host.to_owned(),
            endpoints: endpoints.iter().map(ToString::to_string).collect(),
        };
        let answer = self
            .ask(async |channel| MoonServiceClient::new(channel).create_moon(asked).await)
            .await?;
        Ok(answer.moon.expect("an answer has a moon"))
    }

    /// Makes a host the root of a moon at these endpoints.
    pub async fn moon(&self, host: &str, endpoints: &[&str]) -> Moon {
        let made = self.try_moon(host, endpoints).await;
        made.unwrap_or_else(|status| panic!("a moon on {host}: {}", status.message()))
    }

    /// Every moon.
    pub async fn moons(&self) -> Vec<Moon> {
        self.told(async |channel| {
            MoonServiceClient::new(channel)
                .list_moons(ListMoonsRequest {})
                .await
        })
        .await
        .moons
    }

    /// Waits until the moon of a host stands so, and returns it.
    pub async fn until_moon(&self, host: &str, what: &str, is: impl Fn(&Moon) -> bool) -> Moon {
        until(&format!("the moon of {host} to be {what}"), async || {
            let moons = self.moons().await;
            let found = moons.iter().find(|moon| moon.host == host && is(moon));
            found.cloned().ok_or_else(|| format!("{moons:?}"))
        })
        .await
    }

    /// Ends the moon of a host.
    ///
    /// # Errors
    /// What the master refuses.
    pub async fn try_remove_moon(&self, host: &str) -> Result<(), Status> {
        let asked = RemoveMoonRequest {
            host: host.to_owned(),
            reason: "a story".to_owned(),
        };
        self.ask(async |channel| MoonServiceClient::new(channel).remove_moon(asked).await)
            .await
            .map(drop)
    }
}
