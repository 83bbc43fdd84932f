//! Operators, as the master keeps them.

use picket_pki::{Bundle, Csr, Holder, Identity, Key, lifetime};
use picket_proto::{
    to_wire_time,
    wire::admin::{self as wire, operator_service_server::OperatorService},
};
use tonic::{Request, Response, Status};

use super::{Answer, FakeMaster, PAGE, State};
use crate::office::MASTER;

/// Who calls, and from where: the office has one bundle.
const CALLER: (&str, &str) = ("admin", "desk");

impl State {
    fn operator(&mut self, name: &str) -> Result<&mut wire::Operator, Status> {
        self.operators
            .get_mut(name)
            .ok_or_else(|| Status::not_found(format!("there is no operator `{name}`")))
    }
}

fn reason(reason: &str) -> Result<(), Status> {
    match reason {
        "" => Err(Status::invalid_argument("reason: is missing; say why")),
        _ => Ok(()),
    }
}

#[tonic::async_trait]
impl OperatorService for FakeMaster {
    async fn add_operator(
        &self,
        request: Request<wire::AddOperatorRequest>,
    ) -> Answer<wire::AddOperatorResponse> {
        let request = request.into_inner();
        let holder = Holder::Operator {
            name: request
                .name
                .parse()
                .map_err(|error| Status::invalid_argument(format!("name: {error}")))?,
        };
        let mut state = self.open().await?;
        let (key, now) = (Key::generate().unwrap(), self.clock.now());
        let issued = self
            .authority
            .issue(key.public(), &holder.identity(), lifetime::OPERATOR, now)
            .unwrap();
        let ends = Some(to_wire_time(issued.not_after));
        let added = wire::Operator {
            name: request.name.clone(),
            role: request.role,
            state: wire::OperatorState::Active.into(),
            added_at: Some(to_wire_time(now)),
            added_by: CALLER.0.into(),
            ..Default::default()
        };
        if !state.operators.contains_key(&request.name) && request.role == 0 {
            return Err(Status::invalid_argument(format!(
                "role: is missing for {}, who is new",
                request.name
            )));
        }
        let operator = state.operators.entry(request.name.clone()).or_insert(added);
        if operator
            .devices
            .iter()
            .any(|device| device.name == request.device)
        {
            let message = format!(
                "operator {} has a device `{}` already",
                request.name, request.device
            );
            return Err(Status::already_exists(message));
        }
        operator.devices.push(wire::OperatorDevice {
            name: request.device,
            state: wire::OperatorState::Active.into(),
            // The same in every run, for whoever compares what is printed.
            fingerprint: "ab".repeat(32),
            issued_at: Some(to_wire_time(now)),
            expires_at: ends,
            ..Default::default()
        });
        let bundle = Bundle {
            holder,
            trust_domain: self.authority.trust_domain().clone(),
            masters: vec![MASTER.to_owned()],
            authorities: vec![self.authority.certificate().to_vec()],
            certificate: issued.der,
            key,
        };
        Ok(Response::new(wire::AddOperatorResponse {
            operator: Some(operator.clone()),
            bundle: bundle.encode().unwrap().as_bytes().to_vec().into(),
            authority_fingerprint: self.authority.fingerprint().to_string(),
            bundle_expires_at: ends,
        }))
    }

    async fn list_operators(
        &self,
        request: Request<wire::ListOperatorsRequest>,
    ) -> Answer<wire::ListOperatorsResponse> {
        let after = request.into_inner().page_token;
        let state = self.open().await?;
        let mut all = state.operators.values().filter(|operator| operator.name > after);
        let operators: Vec<_> = all.by_ref().take(PAGE).cloned().collect();
        let last = operators.last().map(|operator| operator.name.clone());
        let next_page_token = last.filter(|_| all.next().is_some()).unwrap_or_default();
        Ok(Response::new(wire::ListOperatorsResponse {
            operators,
            next_page_token,
        }))
    }

    async fn get_operator(
        &self,
        request: Request<wire::GetOperatorRequest>,
    ) -> Answer<wire::GetOperatorResponse> {
        let operator = self.open().await?.operator(&request.into_inner().name)?.clone();
        Ok(Response::new(wire::GetOperatorResponse {
            operator: Some(operator),
        }))
    }

    async fn get_self(&self, _: Request<wire::GetSelfRequest>) -> Answer<wire::GetSelfResponse> {
        drop(self.open().await?);
        let operator = wire::Operator {
            name: CALLER.0.into(),
            role: wire::OperatorRole::Admin.into(),
            state: wire::OperatorState::Active.into(),
            ..Default::default()
        };
        Ok(Response::new(wire::GetSelfResponse {
            operator: Some(operator),
            device: CALLER.1.into(),
        }))
    }

    async fn change_operator(
        &self,
        request: Request<wire::ChangeOperatorRequest>,
    ) -> Answer<wire::ChangeOperatorResponse> {
        let request = request.into_inner();
        reason(&request.reason)?;
        let mut state = self.open().await?;
        let operator = state.operator(&request.name)?;
        operator.role = request.role;
        Ok(Response::new(wire::ChangeOperatorResponse {
            operator: Some(operator.clone()),
        }))
    }

    async fn revoke_operator(
        &self,
        request: Request<wire::RevokeOperatorRequest>,
    ) -> Answer<wire::RevokeOperatorResponse> {
        let request = request.into_inner();
        reason(&request.reason)?;
        let mut state = self.open().await?;
        let still_authorized = match request.device.as_str() {
            "" => state.still_authorized(&format!("person/{}", request.name)),
            _ => Vec::new(),
        };
        let operator = state.operator(&request.name)?;
        for device in &mut operator.devices {
            if request.device.is_empty() || device.name == request.device {
                device.set_state(wire::OperatorState::Revoked);
            }
        }
        if request.device.is_empty() {
            operator.set_state(wire::OperatorState::Revoked);
            operator.revoked_at = Some(to_wire_time(self.clock.now()));
            operator.revoked_by = CALLER.0.into();
            operator.reason = request.reason;
        }
        Ok(Response::new(wire::RevokeOperatorResponse {
            operator: Some(operator.clone()),
            still_authorized,
        }))
    }

    async fn renew_operator(
        &self,
        request: Request<wire::RenewOperatorRequest>,
    ) -> Answer<wire::RenewOperatorResponse> {
        drop(self.open().await?);
        let csr = Csr::parse(&request.into_inner().csr)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let identity = Identity::Operator(CALLER.0.parse().unwrap());
        let issued = self
            .authority
            .issue(csr.public_key(), &identity, lifetime::OPERATOR, self.clock.now());
        Ok(Response::new(wire::RenewOperatorResponse {
            certificate: issued.unwrap().der.into(),
            authorities: vec![self.authority.certificate().to_vec().into()],
        }))
    }
}
