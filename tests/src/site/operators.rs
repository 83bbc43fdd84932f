//! What an admin does with operators.

use jiff::SignedDuration;
use picket_master::{
    operators,
    record::{OperatorRole as Role, Pin, Record as _},
    signer,
    store::{Audit, Commit},
};
use picket_pki::{Authority, Bundle, Fingerprint, Holder, Key};
use picket_proto::wire::admin::{
    AddOperatorRequest, ChangeOperatorRequest, GetOperatorRequest, Operator, OperatorRole,
    RevokeOperatorRequest, RevokeOperatorResponse, operator_service_client::OperatorServiceClient,
};
use tonic::{Status, transport::Channel};

use super::{ADMIN, Site};

impl Site {
    /// Adds an operator, or a device of one, and returns the device's bundle.
    ///
    /// # Errors
    /// What the master refuses.
    pub async fn try_operator(
        &self,
        name: &str,
        role: OperatorRole,
        device: &str,
    ) -> Result<Vec<u8>, Status> {
        let asked = AddOperatorRequest {
            name: name.to_owned(),
            role: role.into(),
            device: device.to_owned(),
        };
        let answer = self
            .ask(async |channel| OperatorServiceClient::new(channel).add_operator(asked).await)
            .await?;
        Ok(answer.bundle.to_vec())
    }

    /// Adds an operator with a device and returns its bundle.
    pub async fn operator(&self, name: &str, role: OperatorRole) -> Vec<u8> {
        self.try_operator(name, role, "laptop")
            .await
            .unwrap_or_else(|status| panic!("add {name}: {}", status.message()))
    }

    /// One operator, as the master shows it.
    pub async fn shown_operator(&self, name: &str) -> Operator {
        let asked = GetOperatorRequest {
            name: name.to_owned(),
        };
        let answer = self.told(async |channel| OperatorServiceClient::new(channel).get_operator(asked).await);
        answer.await.operator.expect("an answer has an operator")
    }

    /// The site's admin gives an operator another role.
    pub async fn change_role(&self, name: &str, role: OperatorRole) {
        self.told(async |channel| change_role(channel, name, role).await.map(tonic::Response::new))
            .await;
    }

    /// The site's admin asks for another role of an operator.
    ///
    /// # Errors
    /// What the master refuses.
    pub async fn ask_to_change(&self, name: &str, role: OperatorRole) -> Result<(), Status> {
        self.ask(async |channel| change_role(channel, name, role).await.map(tonic::Response::new))
            .await
    }

    /// The site's admin revokes an operator, or one device of it.
    ///
    /// # Errors
    /// What the master refuses.
    pub async fn revoke_operator(&self, name: &str, device: &str) -> Result<RevokeOperatorResponse, Status> {
        self.ask(async |channel| revoke(channel, name, device).await.map(tonic::Response::new))
            .await
    }

    /// Signs a certificate for an operator, past the services, and pins it nowhere.
    ///
    /// # Panics
    /// When the CA does not sign.
    #[must_use]
    pub fn unpinned_operator(&self, name: &str, life: SignedDuration) -> Bundle {
        let dir = self.data_dir();
        let read = |path| std::fs::read(path).expect("the CA is in the data directory");
        let authority = Authority::load(
            &read(signer::certificate_path(&dir)),
            &read(signer::key_path(&dir)),
        );
        let authority = authority.expect("the CA can be loaded");
        let key = Key::generate().expect("a key");
        let holder = Holder::Operator {
            name: name.parse().expect("a name"),
        };
        let issued = authority.issue(key.public(), &holder.identity(), life, self.clock.now());
        Bundle {
            holder,
            trust_domain: authority.trust_domain().clone(),
            masters: vec![ADMIN.to_owned()],
            authorities: vec![authority.certificate().to_vec()],
            certificate: issued.expect("the CA signs").der,
            key,
        }
    }

    /// Signs and pins a certificate for an operator that lives only so long, past the services; they give 30 days.
    ///
    /// # Panics
    /// When the CA does not sign, or the store does not take it.
    pub async fn short_lived_operator(&self, name: &str, life: SignedDuration) -> Vec<u8> {
        let (bundle, now) = (self.unpinned_operator(name, life), self.clock.now());
        let pin = Pin {
            fingerprint: Fingerprint::of(&bundle.certificate),
            key: bundle.key.public().fingerprint(),
            not_after: now + life,
            certificate: String::new(),
            from: String::new(),
        };
        let device = operators::device(&"laptop".parse().expect("a name"), pin, now);
        let record = operators::new(name, Role::Viewer, device, "a story", now);
        let store = self.store();
        let committed = store.commit(Commit {
            guards: Vec::new(),
            writes: vec![record.put()],
            audit: Audit {
                who: "story".to_owned(),
                from: "here".to_owned(),
                what: "operator.pin".to_owned(),
                subject: name.to_owned(),
                ..Audit::default()
            },
        });
        committed.await.expect("the store takes it");
        bundle.encode().expect("it can be written").as_bytes().to_vec()
    }
}

/// An admin at this connection gives an operator another role.
///
/// # Errors
/// What the master refuses.
pub async fn change_role(channel: Channel, name: &str, role: OperatorRole) -> Result<(), Status> {
    let asked = ChangeOperatorRequest {
        name: name.to_owned(),
        role: role.into(),
        reason: "a story".to_owned(),
    };
    OperatorServiceClient::new(channel)
        .change_operator(asked)
        .await
        .map(drop)
}

/// An admin at this connection revokes an operator, or one device of it.
///
/// # Errors
/// What the master refuses.
pub async fn revoke(channel: Channel, name: &str, device: &str) -> Result<RevokeOperatorResponse, Status> {
    let asked = RevokeOperatorRequest {
        name: name.to_owned(),
        device: device.to_owned(),
        reason: "a story".to_owned(),
    };
    OperatorServiceClient::new(channel)
        .revoke_operator(asked)
        .await
        .map(tonic::Response::into_inner)
}
