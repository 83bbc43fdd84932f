//! What an operator does with hosts.

use picket_proto::wire::admin::{
    BanHostRequest, BanHostResponse, BundleHostRequest, EnrollHostRequest, GetHostRequest, GetHostResponse,
    Host, HostState, LabelHostRequest, ListHostsRequest, RetireHostRequest, RetireHostResponse,
    UnbanHostRequest, host_service_client::HostServiceClient,
};
use tonic::Status;

use super::{Site, until};

impl Site {
    /// Makes a host and returns the bundle to carry there.
    ///
    /// # Errors
    /// What the master refuses.
    pub async fn try_bundle(&self, name: &str) -> Result<Vec<u8>, Status> {
        let asked = EnrollHostRequest {
            name: name.to_owned(),
            ..Default::default()
        };
        let answer = self
            .ask(async |channel| HostServiceClient::new(channel).enroll_host(asked).await)
            .await?;
        Ok(answer.bundle.to_vec())
    }

    /// Makes a host and returns the bundle to carry there.
    pub async fn bundle(&self, name: &str) -> Vec<u8> {
        self.try_bundle(name)
            .await
            .unwrap_or_else(|status| panic!("enroll {name}: {}", status.message()))
    }

    /// Makes a host for a certificate request that its worker made, and returns the bundle to carry there.
    ///
    /// # Errors
    /// What the master refuses.
    pub async fn try_bundle_for(&self, name: &str, request: &[u8]) -> Result<Vec<u8>, Status> {
        let asked = EnrollHostRequest {
            name: name.to_owned(),
            csr: request.to_vec().into(),
            ..Default::default()
        };
        let answer = self
            .ask(async |channel| HostServiceClient::new(channel).enroll_host(asked).await)
            .await?;
        Ok(answer.bundle.to_vec())
    }

    /// All hosts, by name.
    pub async fn hosts(&self) -> Vec<Host> {
        let asked = ListHostsRequest::default();
        self.told(async |channel| HostServiceClient::new(channel).list_hosts(asked).await)
            .await
            .hosts
    }

    /// One host with its pins and documents.
    ///
    /// # Errors
    /// When the master has none of that name.
    pub async fn try_host(&self, name: &str) -> Result<GetHostResponse, Status> {
        let asked = GetHostRequest {
            name: name.to_owned(),
        };
        self.ask(async |channel| HostServiceClient::new(channel).get_host(asked).await)
            .await
    }

    /// One host as lists show it.
    pub async fn host(&self, name: &str) -> Host {
        let found = self.try_host(name).await;
        found
            .unwrap_or_else(|status| panic!("{name}: {}", status.message()))
            .host
            .expect("an answer has a host")
    }

    /// Waits until a host is in a state.
    pub async fn until(&self, name: &str, state: HostState) {
        until(&format!("{name} to be {state:?}"), async || {
            let seen = self.host(name).await.state();
            if seen == state {
                Ok(())
            } else {
                Err(format!("{seen:?}"))
            }
        })
        .await;
    }

    /// Waits until a host has a condition that contains `words`, and returns it.
    pub async fn until_condition(&self, name: &str, words: &str) -> String {
        until(&format!("{name} to have the condition {words:?}"), async || {
            let conditions = self.host(name).await.conditions;
            let found = conditions
                .iter()
                .find(|condition| condition.contains(words))
                .cloned();
            found.ok_or_else(|| format!("{conditions:?}"))
        })
        .await
    }

    /// Waits until a host's agent ended its try at the newest document of a kind so, and returns what it said.
    pub async fn until_outcome(&self, name: &str, kind: &str, outcome: &str) -> Vec<String> {
        until(&format!("{name}'s {kind} to be {outcome}"), async || {
            let host = self
                .try_host(name)
                .await
                .map_err(|status| status.message().to_owned())?;
            let found = host.documents.into_iter().find(|document| document.kind == kind);
            let document = found.ok_or("there is no such document")?;
            let newest = document.wanted_generation == document.attempted_generation;
            if newest && document.outcome == outcome {
                Ok(document.problems)
            } else {
                Err(format!("{document:?}"))
            }
        })
        .await
    }

    /// The kinds of the pins a host has: current, pending, bundle, then spent.
    pub async fn pins(&self, name: &str) -> Vec<String> {
        let host = self.try_host(name).await;
        let pins = host
            .unwrap_or_else(|status| panic!("{name}: {}", status.message()))
            .pins;
        pins.into_iter().map(|pin| pin.kind).collect()
    }

    /// The fingerprint of the certificate a host works under.
    pub async fn current_pin(&self, name: &str) -> String {
        let host = self.try_host(name).await;
        let pins = host
            .unwrap_or_else(|status| panic!("{name}: {}", status.message()))
            .pins;
        let current = pins.into_iter().find(|pin| pin.kind == "current");
        current
            .unwrap_or_else(|| panic!("{name} has no current pin"))
            .fingerprint
    }

    /// Waits until no session is open.
    pub async fn until_gone(&self) {
        until("all sessions to be closed", async || {
            let open = self.metric("master_sessions").await;
            if open == 0 { Ok(()) } else { Err(open) }
        })
        .await;
    }

    /// Sets a label.
    pub async fn label(&self, name: &str, key: &str, value: &str) {
        let labelled = self.try_label(name, key, value).await;
        labelled.unwrap_or_else(|status| panic!("label {name}: {}", status.message()));
    }

    /// Sets a label.
    ///
    /// # Errors
    /// What the master refuses.
    pub async fn try_label(&self, name: &str, key: &str, value: &str) -> Result<(), Status> {
        self.labels(name, key, value, false).await
    }

    /// Sets a label, whatever it cuts.
    pub async fn label_by_force(&self, name: &str, key: &str, value: &str) {
        let labelled = self.labels(name, key, value, true).await;
        labelled.unwrap_or_else(|status| panic!("label {name}: {}", status.message()));
    }

    async fn labels(&self, name: &str, key: &str, value: &str, force: bool) -> Result<(), Status> {
        let set = [(key.to_owned(), value.to_owned())].into();
        let asked = LabelHostRequest {
            name: name.to_owned(),
            set,
            remove: Vec::new(),
            force,
        };
        self.ask(async |channel| HostServiceClient::new(channel).label_host(asked).await)
            .await
            .map(drop)
    }

    /// Bans a host.
    pub async fn ban(&self, name: &str, reason: &str) -> BanHostResponse {
        let asked = BanHostRequest {
            name: name.to_owned(),
            reason: reason.to_owned(),
        };
        self.told(async |channel| HostServiceClient::new(channel).ban_host(asked).await)
            .await
    }

    /// Retires a host.
    pub async fn retire(&self, name: &str, reason: &str) -> RetireHostResponse {
        let asked = RetireHostRequest {
            name: name.to_owned(),
            reason: reason.to_owned(),
        };
        self.told(async |channel| HostServiceClient::new(channel).retire_host(asked).await)
            .await
    }

    /// Lets a banned host in again.
    pub async fn unban(&self, name: &str) {
        self.try_unban(name)
            .await
            .unwrap_or_else(|status| panic!("unban {name}: {}", status.message()));
    }

    /// Lets a banned host in again.
    ///
    /// # Errors
    /// What the master refuses.
    pub async fn try_unban(&self, name: &str) -> Result<(), Status> {
        let asked = UnbanHostRequest {
            name: name.to_owned(),
            reason: "a story".to_owned(),
        };
        self.ask(async |channel| HostServiceClient::new(channel).unban_host(asked).await)
            .await
            .map(drop)
    }

    /// Makes another bundle for a host, and takes its certificate away when `cut`.
    pub async fn another_bundle(&self, name: &str, cut: bool) -> Vec<u8> {
        self.try_another_bundle(name, cut)
            .await
            .unwrap_or_else(|status| panic!("another bundle for {name}: {}", status.message()))
    }

    /// Makes another bundle for a host, and takes its certificate away when `cut`.
    ///
    /// # Errors
    /// What the master refuses.
    pub async fn try_another_bundle(&self, name: &str, cut: bool) -> Result<Vec<u8>, Status> {
        let asked = BundleHostRequest {
            name: name.to_owned(),
            cut,
            ..Default::default()
        };
        let answer = self.ask(async |channel| HostServiceClient::new(channel).bundle_host(asked).await);
        Ok(answer.await?.bundle.to_vec())
    }
}
