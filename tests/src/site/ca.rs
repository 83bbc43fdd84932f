//! What an operator does with the CA, and what is seen of it.

use picket_proto::wire::admin::{
    ActivateCaRequest, ActivateCaResponse, CaPhase, GetCaRequest, GetCaResponse, PrepareCaRequest,
    PrepareCaResponse, RetireCaRequest, RetireCaResponse, ca_service_client::CaServiceClient,
};
use tonic::Status;

use super::{Site, until};

impl Site {
    /// The CAs there were, and who is not where the rotation is.
    pub async fn ca(&self) -> GetCaResponse {
        let asked = GetCaRequest {};
        self.told(async |channel| CaServiceClient::new(channel).get_ca(asked).await)
            .await
    }

    /// The phases of all CAs, the oldest first.
    pub async fn ca_phases(&self) -> Vec<CaPhase> {
        self.ca().await.cas.iter().map(|ca| ca.phase()).collect()
    }

    /// The fingerprint of the CA that signs.
    pub async fn active_ca(&self) -> String {
        let cas = self.ca().await.cas;
        let active = cas.into_iter().find(|ca| ca.phase() == CaPhase::Active);
        active.expect("one CA is active").fingerprint
    }

    /// Prepares another CA.
    pub async fn prepare_ca(&self) {
        let prepared = self.try_prepare_ca().await;
        prepared.unwrap_or_else(|status| panic!("prepare a CA: {}", status.message()));
    }

    /// Prepares another CA.
    ///
    /// # Errors
    /// What the master refuses.
    pub async fn try_prepare_ca(&self) -> Result<PrepareCaResponse, Status> {
        let asked = PrepareCaRequest {};
        self.ask(async |channel| CaServiceClient::new(channel).prepare_ca(asked).await)
            .await
    }

    /// Makes the prepared CA the one that signs.
    ///
    /// # Errors
    /// What the master refuses.
    pub async fn activate_ca(&self, force: bool) -> Result<ActivateCaResponse, Status> {
        let asked = ActivateCaRequest {
            force,
            compromised: false,
        };
        self.ask(async |channel| CaServiceClient::new(channel).activate_ca(asked).await)
            .await
    }

    /// Retires the CA before the active one.
    ///
    /// # Errors
    /// What the master refuses.
    pub async fn retire_ca(&self, force: bool) -> Result<RetireCaResponse, Status> {
        let asked = RetireCaRequest {
            force,
            compromised: false,
        };
        self.ask(async |channel| CaServiceClient::new(channel).retire_ca(asked).await)
            .await
    }

    /// Retires the CAs before the active one since a key of theirs is in wrong hands. The connection of the operator may
    /// end with it.
    pub async fn distrust_earlier_cas(&self) -> RetireCaResponse {
        let asked = RetireCaRequest {
            force: false,
            compromised: true,
        };
        let answer = self
            .told(async |channel| CaServiceClient::new(channel).retire_ca(asked).await)
            .await;
        *self.channel() = None;
        answer
    }

    /// Puts another CA in the place of one whose key is in wrong hands. The connection of the operator ends with it.
    pub async fn replace_ca(&self) -> ActivateCaResponse {
        let asked = ActivateCaRequest {
            force: false,
            compromised: true,
        };
        let answer = self
            .told(async |channel| CaServiceClient::new(channel).activate_ca(asked).await)
            .await;
        *self.channel() = None;
        answer
    }

    /// The names of the hosts that lack a CA they are to trust.
    pub async fn lacking(&self) -> Vec<String> {
        let stragglers = self.ca().await.stragglers;
        let lacking = stragglers.into_iter().filter(|host| !host.lacks.is_empty());
        lacking.map(|host| host.name).collect()
    }

    /// The names of the hosts that work under a certificate of an earlier CA.
    pub async fn under_earlier(&self) -> Vec<String> {
        let stragglers = self.ca().await.stragglers;
        let behind = stragglers.into_iter().filter(|host| host.under_earlier);
        behind.map(|host| host.name).collect()
    }

    /// Waits until exactly these hosts lack a CA.
    pub async fn until_lacking(&self, names: &[&str]) {
        until(&format!("{names:?} to lack a CA"), async || {
            let lacking = self.lacking().await;
            if lacking == names {
                Ok(())
            } else {
                Err(format!("{lacking:?}"))
            }
        })
        .await;
    }

    /// Waits until exactly these hosts work under a certificate of an earlier CA. Agents take up to an hour.
    pub async fn until_under_earlier(&self, names: &[&str]) {
        self.wait(std::time::Duration::from_secs(3600)).await;
        until(&format!("{names:?} to work under an earlier CA"), async || {
            let behind = self.under_earlier().await;
            if behind == names {
                Ok(())
            } else {
                Err(format!("{behind:?}"))
            }
        })
        .await;
    }
}
