//! What an operator does with networks and their members.

use picket_proto::wire::admin::{
    AdmitMemberRequest, AdoptNetworkRequest, EnforceNetworkRequest, GetNetworkRequest, ListMembersRequest,
    ListNetworksRequest, Member, MemberObservation, Network, NetworkForm, RevokeMemberRequest,
    member_service_client::MemberServiceClient, network_service_client::NetworkServiceClient,
};
use picket_zerotier::{
    NetworkId, NodeId,
    controller::{Controller as _, NewNetwork, V4Range},
};
use tonic::Status;

use super::{Site, until};
use crate::host::Host;

impl Site {
    /// Makes a network on a machine's controller, past Picket, and waits until the master sees it.
    pub async fn network_on(&self, host: &Host) -> NetworkId {
        let range: V4Range = "10.147.20.0/24".parse().expect("a range");
        let new = NewNetwork {
            name: "lab".to_owned(),
            v4: Some(range),
            ..NewNetwork::default()
        };
        let network = host
            .controller()
            .create_network(&new)
            .await
            .expect("a running controller makes a network");
        network.id
    }

    /// Adopts a network as soon as the master sees it, and returns how many members became grants.
    pub async fn adopt(&self, network: NetworkId) -> u32 {
        until(&format!("the master to adopt {network}"), async || {
            let adopted = self.try_adopt(network).await;
            adopted.map_err(|status| status.message().to_owned())
        })
        .await
    }

    /// Adopts a network, and returns how many members became grants.
    ///
    /// # Errors
    /// What the master refuses.
    pub async fn try_adopt(&self, network: NetworkId) -> Result<u32, Status> {
        let asked = AdoptNetworkRequest {
            id: network.to_string(),
            ..Default::default()
        };
        let adopt = async |channel| NetworkServiceClient::new(channel).adopt_network(asked).await;
        Ok(self.ask(adopt).await?.imported)
    }

    /// Starts repairs on a network.
    pub async fn enforce(&self, network: NetworkId) {
        let enforced = self.try_enforce(network).await;
        enforced.unwrap_or_else(|status| panic!("enforce: {}", status.message()));
    }

    /// Starts repairs on a network.
    ///
    /// # Errors
    /// What the master refuses.
    pub async fn try_enforce(&self, network: NetworkId) -> Result<(), Status> {
        let asked = EnforceNetworkRequest {
            id: network.to_string(),
        };
        self.ask(async |channel| NetworkServiceClient::new(channel).enforce_network(asked).await)
            .await
            .map(drop)
    }

    /// A network of a machine's controller, adopted and enforced.
    pub async fn governed_network_on(&self, host: &Host) -> NetworkId {
        let network = self.network_on(host).await;
        self.adopt(network).await;
        self.enforce(network).await;
        network
    }

    /// A network as lists show it.
    pub async fn network(&self, network: NetworkId) -> Network {
        let list = async |channel| {
            NetworkServiceClient::new(channel)
                .list_networks(ListNetworksRequest {})
                .await
        };
        let networks = self.told(list).await.networks;
        let found = networks
            .into_iter()
            .find(|listed| listed.id == network.to_string());
        found.unwrap_or_else(|| panic!("the master has no network {network}"))
    }

    /// The settings of a network, as they are to be.
    pub async fn form(&self, network: NetworkId) -> NetworkForm {
        let asked = GetNetworkRequest {
            id: network.to_string(),
        };
        let get = async |channel| NetworkServiceClient::new(channel).get_network(asked).await;
        let network = self.told(get).await.network.expect("an answer has a network");
        network
            .form
            .expect("a network that is looked at has its settings")
    }

    /// Waits until a network cannot be read, and returns why.
    pub async fn until_problem(&self, network: NetworkId) -> String {
        until(&format!("{network} to have a problem"), async || {
            let problem = self.network(network).await.problem;
            if problem.is_empty() {
                Err("none")
            } else {
                Ok(problem)
            }
        })
        .await
    }

    /// Admits a node or a host to a network.
    ///
    /// # Errors
    /// What the master refuses.
    pub async fn try_admit(&self, network: NetworkId, node: impl ToString) -> Result<(), Status> {
        let asked = AdmitMemberRequest {
            network_id: network.to_string(),
            node: node.to_string(),
            reason: "a story".to_owned(),
            lasts: None,
        };
        self.ask(async |channel| MemberServiceClient::new(channel).admit_member(asked).await)
            .await
            .map(drop)
    }

    /// Admits a node or a host to a network.
    pub async fn admit(&self, network: NetworkId, node: impl ToString) {
        self.try_admit(network, node)
            .await
            .unwrap_or_else(|status| panic!("admit: {}", status.message()));
    }

    /// Takes a node's or a host's permission away.
    pub async fn revoke(&self, network: NetworkId, node: impl ToString) {
        let asked = RevokeMemberRequest {
            network_id: network.to_string(),
            node: node.to_string(),
            reason: "a story".to_owned(),
        };
        self.told(async |channel| MemberServiceClient::new(channel).revoke_member(asked).await)
            .await;
    }

    /// The members of a network.
    pub async fn members(&self, network: NetworkId) -> Vec<Member> {
        let asked = ListMembersRequest {
            network_id: network.to_string(),
            ..Default::default()
        };
        self.told(async |channel| MemberServiceClient::new(channel).list_members(asked).await)
            .await
            .members
    }

    /// Waits until the controller says so of a node, as far as the master knows, and returns the member.
    pub async fn until_member(
        &self,
        network: NetworkId,
        node: NodeId,
        observed: MemberObservation,
    ) -> Member {
        until(&format!("{node} to be {observed:?} on {network}"), async || {
            let members = self.members(network).await;
            let found = members.iter().find(|member| member.node_id == node.to_string());
            match found {
                Some(member) if member.observed() == observed => Ok(member.clone()),
                Some(member) => Err(format!("{member:?}")),
                None => Err(format!("{} members and not this one", members.len())),
            }
        })
        .await
    }
}
