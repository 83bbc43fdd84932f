//! What an operator does with the ZeroTier nodes of hosts.

use picket_proto::wire::admin::{AcceptHostNodeRequest, HostNode, host_service_client::HostServiceClient};
use picket_zerotier::NodeId;
use tonic::Status;

use super::{Site, until};

impl Site {
    /// What is believed of a host's node, and what waits.
    pub async fn node_of(&self, name: &str) -> HostNode {
        let found = self.try_host(name).await;
        found
            .unwrap_or_else(|status| panic!("{name}: {}", status.message()))
            .node
            .expect("an answer says what is believed")
    }

    /// Waits until a host is believed to be this node.
    pub async fn until_believed(&self, name: &str, node: NodeId) -> HostNode {
        until(&format!("{name} to be node {node}"), async || {
            let seen = self.node_of(name).await;
            if seen.id == node.to_string() {
                Ok(seen)
            } else {
                Err(format!("{seen:?}"))
            }
        })
        .await
    }

    /// Waits until a host's claim to be this node waits for an operator.
    pub async fn until_waiting(&self, name: &str, node: NodeId) -> HostNode {
        until(&format!("{name}'s claim to be {node} to wait"), async || {
            let seen = self.node_of(name).await;
            if seen.claimed_id == node.to_string() && !seen.waiting.is_empty() {
                Ok(seen)
            } else {
                Err(format!("{seen:?}"))
            }
        })
        .await
    }

    /// Waits until what a host claims is proven, and waits all the same.
    pub async fn until_proven_claim(&self, name: &str) -> HostNode {
        until(&format!("{name}'s claim to be proven"), async || {
            let seen = self.node_of(name).await;
            if seen.claimed_proven {
                Ok(seen)
            } else {
                Err(format!("{seen:?}"))
            }
        })
        .await
    }

    /// Accepts that a host is this node.
    ///
    /// # Errors
    /// What the master refuses.
    pub async fn try_accept_node(&self, name: &str, node: NodeId) -> Result<Vec<String>, Status> {
        self.decide_node(name, node.to_string()).await
    }

    /// Accepts that a host is this node, and returns what the operator is told besides.
    pub async fn accept_node(&self, name: &str, node: NodeId) -> Vec<String> {
        let accepted = self.try_accept_node(name, node).await;
        accepted.unwrap_or_else(|status| panic!("accept {node} of {name}: {}", status.message()))
    }

    /// Believes nothing of a host's node any more, and returns what the operator is told besides.
    pub async fn forget_node(&self, name: &str) -> Vec<String> {
        let forgotten = self.decide_node(name, String::new()).await;
        forgotten.unwrap_or_else(|status| panic!("forget the node of {name}: {}", status.message()))
    }

    async fn decide_node(&self, name: &str, node_id: String) -> Result<Vec<String>, Status> {
        let asked = AcceptHostNodeRequest {
            name: name.to_owned(),
            node_id,
            reason: "a story".to_owned(),
        };
        let answer = self
            .ask(async |channel| HostServiceClient::new(channel).accept_host_node(asked).await)
            .await?;
        Ok(answer.remarks)
    }
}
