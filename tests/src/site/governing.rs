//! What an operator does with networks as a whole: making them, their settings, their repairs, their end.

use picket_proto::wire::admin::{
    AdmitMemberRequest, AdoptNetworkRequest, AllowedNode, ApplyNetworkRequest, ApplyNetworkResponse,
    CreateNetworkRequest, CreateNetworkResponse, DeleteNetworkRequest, LabelHostRequest, ListNetworksRequest,
    NetworkForm, PlanNetworkRequest, PlanNetworkResponse, ReconcileNetworkRequest, ReconcileNetworkResponse,
    ResumeNetworkRequest, host_service_client::HostServiceClient, member_service_client::MemberServiceClient,
    network_service_client::NetworkServiceClient,
};
use picket_zerotier::NetworkId;
use tonic::Status;

use super::{Site, until};
use crate::host::Host;

/// A form whose members are the hosts with this label.
#[must_use]
pub fn members_by_label(key: &str, value: &str) -> NetworkForm {
    NetworkForm {
        member_labels: [(key.to_owned(), value.to_owned())].into(),
        ..NetworkForm::default()
    }
}

/// A form that names these nodes.
#[must_use]
pub fn naming(nodes: &[String]) -> NetworkForm {
    let allowed = |node: &String| AllowedNode {
        node: node.clone(),
        ..AllowedNode::default()
    };
    NetworkForm {
        allow: nodes.iter().map(allowed).collect(),
        ..NetworkForm::default()
    }
}

impl Site {
    /// Makes a network on a machine's controller.
    ///
    /// # Errors
    /// What the master refuses.
    pub async fn try_create(&self, host: &Host, id: &str, form: NetworkForm) -> Result<NetworkId, Status> {
        let asked = CreateNetworkRequest {
            controller_host: host.name.clone(),
            central: false,
            id: id.to_owned(),
            form: Some(form),
        };
        let answer = self
            .ask(async |channel| NetworkServiceClient::new(channel).create_network(asked).await)
            .await?;
        let network = answer.network.expect("an answer has a network");
        Ok(network.id.parse().expect("a network has an id"))
    }

    /// Makes a network on a machine's controller.
    pub async fn create(&self, host: &Host, form: NetworkForm) -> NetworkId {
        let created = self.try_create(host, "", form).await;
        created.unwrap_or_else(|status| panic!("create: {}", status.message()))
    }

    /// Makes a network of this id, or one that is chosen when it is empty, and returns all of the answer.
    pub async fn made(&self, host: &Host, id: &str) -> CreateNetworkResponse {
        let asked = CreateNetworkRequest {
            controller_host: host.name.clone(),
            id: id.to_owned(),
            form: Some(NetworkForm::default()),
            ..CreateNetworkRequest::default()
        };
        self.told(async |channel| NetworkServiceClient::new(channel).create_network(asked).await)
            .await
    }

    /// Makes a network in ZeroTier Central.
    ///
    /// # Errors
    /// What the master refuses.
    pub async fn try_create_in_central(&self, form: NetworkForm) -> Result<NetworkId, Status> {
        let asked = CreateNetworkRequest {
            central: true,
            form: Some(form),
            ..CreateNetworkRequest::default()
        };
        let answer = self
            .ask(async |channel| NetworkServiceClient::new(channel).create_network(asked).await)
            .await?;
        let network = answer.network.expect("an answer has a network");
        Ok(network.id.parse().expect("a network has an id"))
    }

    /// Makes a network in ZeroTier Central.
    pub async fn create_in_central(&self, form: NetworkForm) -> NetworkId {
        let created = self.try_create_in_central(form).await;
        created.unwrap_or_else(|status| panic!("create in Central: {}", status.message()))
    }

    /// Adopts a network of ZeroTier Central, and returns how many members became grants.
    pub async fn adopt_in_central(&self, network: NetworkId) -> u32 {
        let asked = AdoptNetworkRequest {
            id: network.to_string(),
            central: true,
            ..AdoptNetworkRequest::default()
        };
        self.told(async |channel| NetworkServiceClient::new(channel).adopt_network(asked).await)
            .await
            .imported
    }

    /// What whoever makes a network in Central, adopts one, or lets a node on it for an hour is told beforehand.
    pub async fn cautions_of(&self, network: NetworkId, node: impl ToString) -> [(&'static str, String); 3] {
        let made = CreateNetworkRequest {
            central: true,
            form: Some(NetworkForm::default()),
            ..CreateNetworkRequest::default()
        };
        let made = self.told(async |channel| NetworkServiceClient::new(channel).create_network(made).await);
        let adopted = AdoptNetworkRequest {
            id: network.to_string(),
            central: true,
            ..AdoptNetworkRequest::default()
        };
        let adopt = async |channel| NetworkServiceClient::new(channel).adopt_network(adopted).await;
        let admitted = AdmitMemberRequest {
            network_id: network.to_string(),
            node: node.to_string(),
            reason: "a story".to_owned(),
            lasts: Some(prost_types::Duration {
                seconds: 3600,
                nanos: 0,
            }),
        };
        let admit = async |channel| MemberServiceClient::new(channel).admit_member(admitted).await;
        [
            ("create", made.await.caution),
            ("adopt", self.told(adopt).await.caution),
            ("admit", self.told(admit).await.caution),
        ]
    }

    /// What a form would change.
    pub async fn plan_network(&self, network: NetworkId, form: NetworkForm) -> PlanNetworkResponse {
        let asked = PlanNetworkRequest {
            id: network.to_string(),
            form: Some(form),
        };
        self.told(async |channel| NetworkServiceClient::new(channel).plan_network(asked).await)
            .await
    }

    /// Makes a network follow a form.
    ///
    /// # Errors
    /// What the master refuses.
    pub async fn try_apply(
        &self,
        network: NetworkId,
        form: NetworkForm,
    ) -> Result<ApplyNetworkResponse, Status> {
        let asked = ApplyNetworkRequest {
            id: network.to_string(),
            form: Some(form),
        };
        self.ask(async |channel| NetworkServiceClient::new(channel).apply_network(asked).await)
            .await
    }

    /// Makes a network follow a form.
    pub async fn apply(&self, network: NetworkId, form: NetworkForm) -> ApplyNetworkResponse {
        let applied = self.try_apply(network, form).await;
        applied.unwrap_or_else(|status| panic!("apply: {}", status.message()))
    }

    /// Compares, and repairs unless that is only to be said.
    ///
    /// # Errors
    /// What the master refuses.
    pub async fn try_reconcile(
        &self,
        network: NetworkId,
        dry_run: bool,
    ) -> Result<ReconcileNetworkResponse, Status> {
        let asked = ReconcileNetworkRequest {
            id: network.to_string(),
            dry_run,
        };
        self.ask(async |channel| NetworkServiceClient::new(channel).reconcile_network(asked).await)
            .await
    }

    /// Lets through what the brake holds back.
    pub async fn resume(&self, network: NetworkId) {
        let asked = ResumeNetworkRequest {
            id: network.to_string(),
            reason: "a story".to_owned(),
        };
        self.told(async |channel| NetworkServiceClient::new(channel).resume_network(asked).await)
            .await;
    }

    /// Ends a network; its controller keeps it when that is only to be forgotten.
    ///
    /// # Errors
    /// What the master refuses.
    pub async fn try_delete(&self, network: NetworkId, forget: bool) -> Result<(), Status> {
        let asked = DeleteNetworkRequest {
            id: network.to_string(),
            reason: "a story".to_owned(),
            forget,
        };
        self.ask(async |channel| NetworkServiceClient::new(channel).delete_network(asked).await)
            .await
            .map(drop)
    }

    /// Waits until the master has no network of this id any more.
    pub async fn until_no_network(&self, network: NetworkId) {
        until(&format!("{network} to be gone"), async || {
            let list = async |channel| {
                NetworkServiceClient::new(channel)
                    .list_networks(ListNetworksRequest {})
                    .await
            };
            let networks = self.told(list).await.networks;
            match networks.into_iter().find(|there| there.id == network.to_string()) {
                None => Ok(()),
                Some(there) => Err(format!("{there:?}")),
            }
        })
        .await;
    }

    /// Takes a label away.
    pub async fn unlabel(&self, name: &str, key: &str) {
        let asked = LabelHostRequest {
            name: name.to_owned(),
            remove: vec![key.to_owned()],
            ..LabelHostRequest::default()
        };
        self.told(async |channel| HostServiceClient::new(channel).label_host(asked).await)
            .await;
    }
}
