//! Operators: adding, looking, changing, revoking, renewing.

use std::sync::Arc;

use picket_pki::{Csr, OperatorName};
use picket_proto::{
    to_wire_time,
    wire::admin::{
        self as wire, AddOperatorRequest, AddOperatorResponse, ChangeOperatorRequest, ChangeOperatorResponse,
        GetOperatorRequest, GetOperatorResponse, GetSelfRequest, GetSelfResponse, ListOperatorsRequest,
        ListOperatorsResponse, RenewOperatorRequest, RenewOperatorResponse, RevokeOperatorRequest,
        RevokeOperatorResponse, operator_service_server::OperatorService,
    },
};
use tonic::{Request, Response, Status};

use super::{devices, name, reason};
use crate::{
    caller::{operator, operator_peer},
    desk::{Actor, Desk},
    event::Severity,
    gate, operators,
    record::{DeviceRecord, OperatorRecord, OperatorRole, Record as _, Revocation, key},
    refused::Refused,
    renewal::Renewal,
    signer::Bundled,
    store::{CommitError, Guard},
};

/// The most operators on one page.
const MOST_ON_A_PAGE: u32 = 1000;

/// The service, over the desk.
#[derive(Debug)]
pub struct Operators {
    /// What the services share.
    pub desk: Arc<Desk>,
    /// Where operators dial, as bundles say it.
    pub addresses: Vec<String>,
}

#[tonic::async_trait]
impl OperatorService for Operators {
    async fn add_operator(
        &self,
        request: Request<AddOperatorRequest>,
    ) -> Result<Response<AddOperatorResponse>, Status> {
        let actor = operator(&self.desk, &request)?;
        let asked = request.into_inner();
        let operator = operator_name("name", &asked.name)?;
        let role = role(asked.role)?;
        let device = name("device", &asked.device)?;
        let desk = &self.desk;
        desk.may_approve()?;
        let now = desk.now();
        let (name, addresses) = (operator.clone(), self.addresses.clone());
        let signed = desk
            .signer
            .sign(move |signer| signer.operator_bundle(name, &addresses, now));
        let Bundled { bundle, pin } = signed.await.map_err(Refused::Authority)?;
        // What signs may be far away, and nobody's revocation waits for it.
        let _turn = desk.turn.lock().await;
        still_admin(desk, &actor)?;
        let text = bundle.encode().map_err(Refused::Bundle)?;
        let expires = pin.not_after;
        let device = operators::device(&device, pin, now);
        let at = key::operator(operator.as_str());
        let entry = desk.store.get(&at).map_err(Refused::Read)?;
        let known = entry
            .as_ref()
            .map(OperatorRecord::of)
            .transpose()
            .map_err(Refused::Record)?;
        let guard = entry.map_or(Guard::Absent(at.clone()), |entry| Guard::At(at, entry.revision));
        let device_name = device.name.clone();
        let (record, what) = added(known, operator.as_str(), role, device, &actor, now)?;
        let audit = actor.does("operator.add", &operator, device_name.as_str());
        match desk.commit(vec![guard], vec![record.put()], audit).await {
            Ok(_) => {}
            Err(CommitError::Conflict { .. }) => {
                let busy = format!("operator {operator} was changed by somebody else just now; try again");
                return Err(Refused::NotNow(busy).into());
            }
            Err(error) => return Err(Refused::Commit(error).into()),
        }
        let message = format!("{what} by {}, for {device_name}", actor.name());
        desk.say(Severity::Notice, "operator.added", operator.as_str(), &message);
        Ok(Response::new(AddOperatorResponse {
            operator: Some(shown(&record, now)),
            bundle: text.as_bytes().to_vec().into(),
            authority_fingerprint: desk.signer.fingerprint().to_string(),
            bundle_expires_at: Some(to_wire_time(expires)),
        }))
    }

    async fn list_operators(
        &self,
        request: Request<ListOperatorsRequest>,
    ) -> Result<Response<ListOperatorsResponse>, Status> {
        operator(&self.desk, &request)?;
        let asked = request.into_inner();
        let after = match asked.page_token.as_str() {
            "" => None,
            token => Some(operator_name("page_token", token)?),
        };
        let size = match asked.page_size {
            0 => MOST_ON_A_PAGE,
            size => size.min(MOST_ON_A_PAGE),
        };
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let now = self.desk.now();
        let views = self.desk.views.read();
        let mut all = views
            .roster
            .operators_after(after.as_ref().map(OperatorName::as_str));
        let operators: Vec<_> = all.by_ref().take(size).map(|record| shown(record, now)).collect();
        let last = operators.last().map(|operator| operator.name.clone());
        let next_page_token = last.filter(|_| all.next().is_some()).unwrap_or_default();
        Ok(Response::new(ListOperatorsResponse {
            operators,
            next_page_token,
        }))
    }

    async fn get_operator(
        &self,
        request: Request<GetOperatorRequest>,
    ) -> Result<Response<GetOperatorResponse>, Status> {
        operator(&self.desk, &request)?;
        let operator = operator_name("name", &request.into_inner().name)?;
        Ok(Response::new(GetOperatorResponse {
            operator: Some(shown(&self.record(&operator)?, self.desk.now())),
        }))
    }

    async fn get_self(&self, request: Request<GetSelfRequest>) -> Result<Response<GetSelfResponse>, Status> {
        let (operator, peer) = operator_peer(&self.desk, &request)?;
        let record = self.record(&operator)?;
        let device = operators::device_of(&record, &peer.fingerprint);
        Ok(Response::new(GetSelfResponse {
            operator: Some(shown(&record, self.desk.now())),
            device: device.map(|device| device.name.to_string()).unwrap_or_default(),
        }))
    }

    async fn change_operator(
        &self,
        request: Request<ChangeOperatorRequest>,
    ) -> Result<Response<ChangeOperatorResponse>, Status> {
        let actor = operator(&self.desk, &request)?;
        let asked = request.into_inner();
        let (operator, reason) = (operator_name("name", &asked.name)?, reason(&asked.reason)?);
        let role = role(asked.role)?.ok_or_else(|| {
            Refused::invalid("role", "is missing; use requester, viewer, operator or admin")
        })?;
        let desk = &self.desk;
        // Two admins who take each other's role away take turns, and the second is no admin when it is its turn.
        let _turn = desk.turn.lock().await;
        still_admin(desk, &actor)?;
        not_oneself(&actor, &operator, "change its own role")?;
        let why = format!("{role}: {reason}");
        let mut before = role;
        let change = |record: &mut OperatorRecord| {
            if record.revoked.is_some() {
                return Err(revoked(&record.name));
            }
            before = record.role;
            record.role = role;
            Ok(before != role)
        };
        let audit = actor.does("operator.change", &operator, &why);
        let (record, changed) = desk.change_operator(operator.as_str(), audit, change).await?;
        if changed {
            let message = format!("is {role} and was {before}, says {}: {reason}", actor.name());
            desk.say(Severity::Alert, "operator.changed", operator.as_str(), &message);
        }
        Ok(Response::new(ChangeOperatorResponse {
            operator: Some(shown(&record, desk.now())),
        }))
    }

    async fn revoke_operator(
        &self,
        request: Request<RevokeOperatorRequest>,
    ) -> Result<Response<RevokeOperatorResponse>, Status> {
        let actor = operator(&self.desk, &request)?;
        let (_, peer) = operator_peer(&self.desk, &request)?;
        let asked = request.into_inner();
        let (operator, reason) = (operator_name("name", &asked.name)?, reason(&asked.reason)?);
        let device = match asked.device.as_str() {
            "" => None,
            device => Some(name("device", device)?),
        };
        let desk = &self.desk;
        let _turn = desk.turn.lock().await;
        still_admin(desk, &actor)?;
        let revocation = Revocation {
            at: desk.now(),
            by: actor.name().to_owned(),
            reason: reason.clone(),
        };
        let revoke = |record: &mut OperatorRecord| match &device {
            None => {
                not_oneself(&actor, &operator, "revoke itself")?;
                let was_good = record.revoked.is_none();
                if was_good {
                    record.revoked = Some(revocation.clone());
                }
                Ok(was_good)
            }
            Some(device) => {
                let own = operators::device_of(record, &peer.fingerprint);
                if own.is_some_and(|own| &own.name == device) {
                    return Err(Refused::NotNow(format!(
                        "{device} is the device this call comes from, and an operator does not lock itself out; revoke it \
                         from another device, or ask another admin"
                    )));
                }
                operators::revoke_device(record, device, &revocation)
            }
        };
        let why = device
            .as_ref()
            .map_or_else(|| reason.clone(), |device| format!("{device}: {reason}"));
        let audit = actor.does("operator.revoke", &operator, &why);
        let (record, changed) = desk.change_operator(operator.as_str(), audit, revoke).await?;
        if changed {
            let what = device
                .as_ref()
                .map_or_else(String::new, |device| format!("its device {device} is "));
            let message = format!("{what}revoked by {}: {reason}", actor.name());
            desk.say(Severity::Alert, "operator.revoked", operator.as_str(), &message);
        }
        let still_authorized = match device {
            None => devices::still_authorized(desk, operator.as_str()),
            Some(_) => Vec::new(),
        };
        Ok(Response::new(RevokeOperatorResponse {
            operator: Some(shown(&record, desk.now())),
            still_authorized,
        }))
    }

    async fn renew_operator(
        &self,
        request: Request<RenewOperatorRequest>,
    ) -> Result<Response<RenewOperatorResponse>, Status> {
        let actor = operator(&self.desk, &request)?;
        let (operator, peer) = operator_peer(&self.desk, &request)?;
        let csr = Csr::parse(&request.into_inner().csr).map_err(Refused::Csr)?;
        let key = csr.public_key().fingerprint();
        let desk = &self.desk;
        let now = desk.now();
        // What signs may be far away, and a commit waits for nobody.
        let record = self.record(&operator)?;
        let signed = match operators::renew(&record, &peer.fingerprint, &key, now) {
            Renewal::Issue => {
                let device = operators::device_of(&record, &peer.fingerprint);
                let device = device.map(|device| (record.name.clone(), device.name.clone()));
                if device.is_some_and(|device| !desk.device_pace.allows(device, desk.clock.monotonic())) {
                    let many =
                        "many certificates were made for this device within a few minutes; wait a minute";
                    return Err(Refused::NotNow(many.to_owned()).into());
                }
                let (name, from) = (operator.clone(), actor.from.clone());
                let signed = desk
                    .signer
                    .sign(move |signer| signer.operator(&name, &csr, &from, now));
                Some(signed.await.map_err(Refused::Authority)?)
            }
            Renewal::Again(_)
            | Renewal::BundleKey
            | Renewal::BundleUsed { .. }
            | Renewal::TooSoon
            | Renewal::NotPinned => None,
        };
        let mut answer = None;
        let renew =
            |record: &mut OperatorRecord| match operators::renew(record, &peer.fingerprint, &key, desk.now())
            {
                Renewal::Again(pin) => {
                    answer = Some(pin);
                    Ok(false)
                }
                Renewal::Issue => {
                    let Some(pin) = signed.clone() else {
                        return Err(Refused::NotNow(
                            "this operator was changed just now; try again".to_owned(),
                        ));
                    };
                    operators::offer(record, &peer.fingerprint, pin.clone());
                    answer = Some(pin);
                    Ok(true)
                }
                Renewal::BundleKey | Renewal::BundleUsed { .. } => Err(Refused::Denied(
                    "the key in a bundle travelled; renew with a key made here".to_owned(),
                )),
                Renewal::TooSoon => Err(Refused::NotNow(
                    "a certificate with another key was made for this device a moment ago; wait a minute"
                        .to_owned(),
                )),
                Renewal::NotPinned => Err(Refused::Denied(
                    "the certificate of this call is not pinned any more".to_owned(),
                )),
            };
        let audit = actor.does("operator.renew", &operator, "");
        desk.change_operator(operator.as_str(), audit, renew).await?;
        let pin = answer.ok_or_else(|| Refused::NotNow("no certificate was made; try again".to_owned()))?;
        let certificate = data_encoding::HEXLOWER
            .decode(pin.certificate.as_bytes())
            .map_err(|_| {
                Refused::NotNow(
                    "the stored certificate cannot be read; run `picket-master verify`".to_owned(),
                )
            })?;
        Ok(Response::new(RenewOperatorResponse {
            certificate: certificate.into(),
            authorities: desk.ca.trust().authorities,
        }))
    }
}

impl Operators {
    fn record(&self, operator: &OperatorName) -> Result<OperatorRecord, Refused> {
        let views = self.desk.views.read();
        let known = views.roster.operator(operator.as_str());
        known
            .map(|(record, _)| record.clone())
            .ok_or_else(|| Refused::no_operator(operator))
    }
}

/// An operator with one more device, and what to say of it.
fn added(
    known: Option<OperatorRecord>,
    name: &str,
    role: Option<OperatorRole>,
    device: DeviceRecord,
    actor: &Actor,
    now: jiff::Timestamp,
) -> Result<(OperatorRecord, String), Refused> {
    let missing = || {
        Refused::invalid(
            "role",
            format_args!("is missing for {name}, who is new; use requester, viewer, operator or admin"),
        )
    };
    match known {
        None => {
            let role = role.ok_or_else(missing)?;
            let record = operators::new(name, role, device, actor.name(), now);
            Ok((record, format!("added as {role}")))
        }
        Some(mut record) if record.revoked.is_some() => {
            record.role = role.ok_or_else(missing)?;
            operators::start_over(&mut record);
            (record.added_at, record.added_by) = (Some(now), actor.name().to_owned());
            let role = record.role;
            operators::add_device(&mut record, device, now)?;
            Ok((record, format!("added again as {role}")))
        }
        Some(mut record) => {
            if let Some(other) = role.filter(|role| *role != record.role) {
                return Err(Refused::NotNow(format!(
                    "operator {name} exists and is {}; leave the role out to add a device, or change it with \
                     `picketctl operator role {name} {other} --reason ...`",
                    record.role
                )));
            }
            operators::add_device(&mut record, device, now)?;
            Ok((record, "given another device".to_owned()))
        }
    }
}

/// Nobody is locked out by an RPC: whoever changes others is an admin at that moment, and leaves itself alone.
fn still_admin(desk: &Desk, actor: &Actor) -> Result<(), Refused> {
    match gate::role(desk, actor.name()) {
        Some(OperatorRole::Admin) => Ok(()),
        Some(OperatorRole::Requester | OperatorRole::Viewer | OperatorRole::Operator) | None => {
            Err(Refused::Denied(format!("{} is no admin any more", actor.name())))
        }
    }
}

fn not_oneself(actor: &Actor, operator: &OperatorName, what: &str) -> Result<(), Refused> {
    if actor.name() == operator.as_str() {
        return Err(Refused::NotNow(format!(
            "an admin does not {what}, so that there is always one left; ask another admin, or run `picket-master \
             admin-bundle` on the master's machine to make one"
        )));
    }
    Ok(())
}

fn revoked(name: &str) -> Refused {
    Refused::NotNow(format!(
        "operator {name} is revoked; `picketctl operator add {name} --role ROLE --device DEVICE --out FILE` takes it in \
         again"
    ))
}

fn operator_name(field: &str, text: &str) -> Result<OperatorName, Refused> {
    text.parse().map_err(|error| Refused::invalid(field, error))
}

fn role(value: i32) -> Result<Option<OperatorRole>, Refused> {
    match wire::OperatorRole::try_from(value) {
        Ok(wire::OperatorRole::Unspecified) => Ok(None),
        Ok(wire::OperatorRole::Requester) => Ok(Some(OperatorRole::Requester)),
        Ok(wire::OperatorRole::Viewer) => Ok(Some(OperatorRole::Viewer)),
        Ok(wire::OperatorRole::Operator) => Ok(Some(OperatorRole::Operator)),
        Ok(wire::OperatorRole::Admin) => Ok(Some(OperatorRole::Admin)),
        Err(_) => Err(Refused::invalid(
            "role",
            format_args!("{value} is none this master knows"),
        )),
    }
}

fn shown(record: &OperatorRecord, now: jiff::Timestamp) -> wire::Operator {
    let role = match record.role {
        OperatorRole::Requester => wire::OperatorRole::Requester,
        OperatorRole::Viewer => wire::OperatorRole::Viewer,
        OperatorRole::Operator => wire::OperatorRole::Operator,
        OperatorRole::Admin => wire::OperatorRole::Admin,
    };
    let state = if record.revoked.is_some() {
        wire::OperatorState::Revoked
    } else {
        wire::OperatorState::Active
    };
    let revoked = record.revoked.as_ref();
    wire::Operator {
        name: record.name.clone(),
        role: role.into(),
        state: state.into(),
        devices: record
            .devices
            .iter()
            .map(|device| shown_device(device, record, now))
            .collect(),
        added_at: record.added_at.map(to_wire_time),
        added_by: record.added_by.clone(),
        revoked_at: revoked.map(|revoked| to_wire_time(revoked.at)),
        revoked_by: revoked.map(|revoked| revoked.by.clone()).unwrap_or_default(),
        reason: revoked.map(|revoked| revoked.reason.clone()).unwrap_or_default(),
    }
}

fn shown_device(device: &DeviceRecord, of: &OperatorRecord, now: jiff::Timestamp) -> wire::OperatorDevice {
    let state = if of.revoked.is_some() || device.revoked.is_some() {
        wire::OperatorState::Revoked
    } else if device.has_ended(now) {
        wire::OperatorState::Expired
    } else {
        wire::OperatorState::Active
    };
    let ends = device.current.not_after;
    wire::OperatorDevice {
        name: device.name.to_string(),
        state: state.into(),
        fingerprint: device.current.fingerprint.to_string(),
        issued_at: device.issued_at.map(to_wire_time),
        expires_at: (ends != DeviceRecord::END_NOT_KEPT).then(|| to_wire_time(ends)),
        pending_fingerprint: device
            .pending
            .as_ref()
            .map(|pin| pin.fingerprint.to_string())
            .unwrap_or_default(),
    }
}
