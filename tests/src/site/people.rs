//! Other operators than the site's admin: what they ask for, approve and activate, each under its own certificate.

use std::time::Duration;

use picket_link::Connected;
use picket_master::{
    record::{
        Record, key,
        network::{KillRecord, KillScope, NetworkRecord},
    },
    store::{Audit, Commit, Guard},
};
use picket_proto::wire::admin::{
    ActivateMemberRequest, AdmitMemberRequest, ApplyNetworkRequest, ApproveMemberRequest,
    CancelMemberRequest, DenyMemberRequest, Device, EndMemberRequest, ExtendMemberRequest, GetMemberRequest,
    GrantKind, ListDevicesRequest, ListMembersRequest, Member, NetworkForm, OperatorRole,
    RegisterDeviceRequest, RemoveDeviceRequest, RequestMemberRequest, RevokeMemberRequest,
    device_service_client::DeviceServiceClient, member_service_client::MemberServiceClient,
    network_service_client::NetworkServiceClient,
};
use picket_zerotier::{NetworkId, NodeId};
use tonic::{Response, Status, transport::Channel};

use super::Site;
use crate::{
    sentence,
    stranger::{Door, Stranger},
};

/// An operator at its own machine.
pub struct Person {
    /// Its name.
    pub name: String,
    machine: Stranger,
}

impl Site {
    /// Adds an operator, who sits down at a machine with the bundle.
    pub async fn person(&self, name: &str, role: OperatorRole) -> Person {
        let bundle = self.operator(name, role).await;
        Person {
            name: name.to_owned(),
            machine: Stranger::with_bundle(self, &bundle),
        }
    }

    /// Changes what the master keeps of a network, behind everybody's back.
    ///
    /// # Panics
    /// When there is no such network.
    pub async fn rule(&self, network: NetworkId, change: impl FnOnce(&mut NetworkRecord)) {
        let (store, at) = (self.store(), key::network(network));
        let entry = store.get(&at).expect("the store reads").expect("it is adopted");
        let mut record = NetworkRecord::of(&entry).expect("that is one");
        change(&mut record);
        self.put(&record, vec![Guard::At(at, entry.revision)]).await;
    }

    /// Kills a node on every network, behind everybody's back.
    pub async fn kill_node(&self, node: NodeId) {
        let kill = KillRecord {
            id: "k3v9x2mq".to_owned(),
            scope: KillScope::Node(node),
            by: "ada".to_owned(),
            reason: "a leak".to_owned(),
            at: self.clock.now(),
            banned: false,
            lifted: None,
        };
        self.put(&kill, Vec::new()).await;
    }

    async fn put(&self, record: &impl Record, guards: Vec<Guard>) {
        let audit = Audit {
            who: "story".to_owned(),
            from: "here".to_owned(),
            what: "story.put".to_owned(),
            subject: record.key().to_string(),
            ..Audit::default()
        };
        let commit = Commit {
            guards,
            writes: vec![record.put()],
            audit,
        };
        self.store().commit(commit).await.expect("the store takes it");
    }
}

/// What a person asks of the master. Each is refused as the master refuses it.
#[allow(clippy::missing_errors_doc, reason = "each says what the master refuses")]
impl Person {
    async fn ask<T>(
        &self,
        call: impl AsyncFnOnce(Channel) -> Result<Response<T>, Status>,
    ) -> Result<T, Status> {
        let connected: Connected = self
            .machine
            .connect(Door::Admin)
            .await
            .unwrap_or_else(|error| panic!("{}: {}", self.name, sentence(&error)));
        let answer = call(connected.channel.clone()).await;
        answer.map(Response::into_inner)
    }

    /// Registers a node for somebody; for itself when nobody is named.
    pub async fn register(&self, node: impl ToString, name: &str, owner: &str) -> Result<Device, Status> {
        let asked = RegisterDeviceRequest {
            node: node.to_string(),
            name: name.to_owned(),
            owner: owner.to_owned(),
        };
        let answer = self.ask(async |channel| DeviceServiceClient::new(channel).register_device(asked).await);
        Ok(answer.await?.device.expect("an answer has a device"))
    }

    /// Removes a device.
    pub async fn remove(&self, device: impl ToString) -> Result<Device, Status> {
        let asked = RemoveDeviceRequest {
            device: device.to_string(),
            reason: "a story".to_owned(),
        };
        let answer = self.ask(async |channel| DeviceServiceClient::new(channel).remove_device(asked).await);
        Ok(answer.await?.device.expect("an answer has a device"))
    }

    /// The devices that it sees, removed ones among them.
    pub async fn devices(&self) -> Vec<Device> {
        let asked = ListDevicesRequest {
            removed: true,
            ..Default::default()
        };
        let answer = self.ask(async |channel| DeviceServiceClient::new(channel).list_devices(asked).await);
        answer.await.unwrap_or_else(|status| panic!("{status}")).devices
    }

    /// The members that it sees.
    pub async fn members(&self, network: NetworkId) -> Vec<Member> {
        let asked = ListMembersRequest {
            network_id: network.to_string(),
            ..Default::default()
        };
        self.list_members(asked).await.0
    }

    /// A page of members, and what asks for the next one.
    pub async fn list_members(&self, asked: ListMembersRequest) -> (Vec<Member>, String) {
        let answer = self.ask(async |channel| MemberServiceClient::new(channel).list_members(asked).await);
        let page = answer.await.unwrap_or_else(|status| panic!("{status}"));
        (page.members, page.next_page_token)
    }

    /// A page of devices, and what asks for the next one.
    pub async fn list_devices(&self, asked: ListDevicesRequest) -> (Vec<Device>, String) {
        let answer = self.ask(async |channel| DeviceServiceClient::new(channel).list_devices(asked).await);
        let page = answer.await.unwrap_or_else(|status| panic!("{status}"));
        (page.devices, page.next_page_token)
    }

    /// One node on a network.
    pub async fn member(&self, network: NetworkId, node: impl ToString) -> Result<Member, Status> {
        let asked = GetMemberRequest {
            network_id: network.to_string(),
            node: node.to_string(),
        };
        let answer = self.ask(async |channel| MemberServiceClient::new(channel).get_member(asked).await);
        Ok(answer.await?.member.expect("an answer has a member"))
    }

    /// Makes a network follow a form.
    pub async fn apply(&self, network: NetworkId, form: NetworkForm) -> Result<(), Status> {
        let asked = ApplyNetworkRequest {
            id: network.to_string(),
            form: Some(form),
        };
        let answer = self.ask(async |channel| NetworkServiceClient::new(channel).apply_network(asked).await);
        answer.await.map(drop)
    }

    /// Asks that a node be let on.
    pub async fn request(&self, network: NetworkId, node: impl ToString) -> Result<Member, Status> {
        Ok(self.request_because(network, node, "a story").await?.0)
    }

    /// Asks that a node be let on for a reason, and returns what is remarked.
    pub async fn request_because(
        &self,
        network: NetworkId,
        node: impl ToString,
        reason: &str,
    ) -> Result<(Member, String), Status> {
        let asked = RequestMemberRequest {
            network_id: network.to_string(),
            node: node.to_string(),
            reason: reason.to_owned(),
        };
        let answer = self.ask(async |channel| MemberServiceClient::new(channel).request_member(asked).await);
        let answer = answer.await?;
        Ok((answer.member.expect("an answer has a member"), answer.remark))
    }

    /// Approves.
    pub async fn approve(
        &self,
        network: NetworkId,
        node: impl ToString,
        grant: GrantKind,
    ) -> Result<Member, Status> {
        let asked = ApproveMemberRequest {
            network_id: network.to_string(),
            node: node.to_string(),
            reason: "a story".to_owned(),
            grant: grant.into(),
        };
        let answer = self.ask(async |channel| MemberServiceClient::new(channel).approve_member(asked).await);
        Ok(answer.await?.member.expect("an answer has a member"))
    }

    /// Turns a request down.
    pub async fn deny(&self, network: NetworkId, node: impl ToString) -> Result<Member, Status> {
        let asked = DenyMemberRequest {
            network_id: network.to_string(),
            node: node.to_string(),
            reason: "a story".to_owned(),
        };
        let answer = self.ask(async |channel| MemberServiceClient::new(channel).deny_member(asked).await);
        Ok(answer.await?.member.expect("an answer has a member"))
    }

    /// Takes its request back.
    pub async fn cancel(&self, network: NetworkId, node: impl ToString) -> Result<Member, Status> {
        let asked = CancelMemberRequest {
            network_id: network.to_string(),
            node: node.to_string(),
            reason: String::new(),
        };
        let answer = self.ask(async |channel| MemberServiceClient::new(channel).cancel_member(asked).await);
        Ok(answer.await?.member.expect("an answer has a member"))
    }

    /// Lets a node on in one call.
    pub async fn admit(
        &self,
        network: NetworkId,
        node: impl ToString,
        lasts: Option<Duration>,
    ) -> Result<Member, Status> {
        let asked = AdmitMemberRequest {
            network_id: network.to_string(),
            node: node.to_string(),
            reason: "a story".to_owned(),
            lasts: lasts.map(span),
        };
        let answer = self.ask(async |channel| MemberServiceClient::new(channel).admit_member(asked).await);
        Ok(answer.await?.member.expect("an answer has a member"))
    }

    /// Takes a permission away.
    pub async fn revoke(&self, network: NetworkId, node: impl ToString) -> Result<Member, Status> {
        let asked = RevokeMemberRequest {
            network_id: network.to_string(),
            node: node.to_string(),
            reason: "a story".to_owned(),
        };
        let answer = self.ask(async |channel| MemberServiceClient::new(channel).revoke_member(asked).await);
        Ok(answer.await?.member.expect("an answer has a member"))
    }

    /// Starts an activation.
    pub async fn activate(
        &self,
        network: NetworkId,
        node: impl ToString,
        lasts: Option<Duration>,
    ) -> Result<Member, Status> {
        Ok(self.activate_and_hear(network, node, lasts).await?.0)
    }

    /// Starts an activation, and returns what is remarked.
    pub async fn activate_and_hear(
        &self,
        network: NetworkId,
        node: impl ToString,
        lasts: Option<Duration>,
    ) -> Result<(Member, String), Status> {
        let asked = ActivateMemberRequest {
            network_id: network.to_string(),
            node: node.to_string(),
            reason: "a story".to_owned(),
            lasts: lasts.map(span),
        };
        let answer = self.ask(async |channel| MemberServiceClient::new(channel).activate_member(asked).await);
        let answer = answer.await?;
        Ok((answer.member.expect("an answer has a member"), answer.remark))
    }

    /// Moves the end of an activation.
    pub async fn extend(
        &self,
        network: NetworkId,
        node: impl ToString,
        lasts: Duration,
    ) -> Result<Member, Status> {
        let asked = ExtendMemberRequest {
            network_id: network.to_string(),
            node: node.to_string(),
            reason: "a story".to_owned(),
            lasts: Some(span(lasts)),
        };
        let answer = self.ask(async |channel| MemberServiceClient::new(channel).extend_member(asked).await);
        Ok(answer.await?.member.expect("an answer has a member"))
    }

    /// Ends an activation.
    pub async fn end(&self, network: NetworkId, node: impl ToString) -> Result<Member, Status> {
        let asked = EndMemberRequest {
            network_id: network.to_string(),
            node: node.to_string(),
            reason: String::new(),
        };
        let answer = self.ask(async |channel| MemberServiceClient::new(channel).end_member(asked).await);
        Ok(answer.await?.member.expect("an answer has a member"))
    }
}

fn span(span: Duration) -> prost_types::Duration {
    span.try_into().expect("a story's spans are short")
}
