//! Hosts, as the admin API asks for them.

use super::*;

#[tonic::async_trait]
impl host::HostService for FakeMaster {
    async fn enroll_host(
        &self,
        request: Request<wire::EnrollHostRequest>,
    ) -> Answer<wire::EnrollHostResponse> {
        let wire::EnrollHostRequest { name, labels, csr } = request.into_inner();
        let mut state = self.open().await?;
        if state.hosts.contains_key(&name) {
            return Err(Status::already_exists(format!(
                "there is a host `{name}` already"
            )));
        }
        name.parse::<picket_proto::host::Name>()
            .map_err(|error| Status::invalid_argument(format!("name: {error}")))?;
        let now = self.clock.now();
        let host = wire::Host {
            id: Uuid::from_u128(state.hosts.len() as u128 + 1).to_string(),
            name: name.clone(),
            labels,
            state: wire::HostState::NeverSeen.into(),
            enrolled_at: Some(to_wire_time(now)),
            ..wire::Host::default()
        };
        state.hosts.insert(name.clone(), host.clone());
        let (bundle, expires) = self.bundle_for(&host, &csr);
        Ok(Response::new(wire::EnrollHostResponse {
            host: Some(host),
            bundle,
            authority_fingerprint: self.authority.fingerprint().to_string(),
            bundle_expires_at: expires,
        }))
    }

    async fn unban_host(&self, request: Request<wire::UnbanHostRequest>) -> Answer<wire::UnbanHostResponse> {
        let request = request.into_inner();
        reason(&request.reason)?;
        let mut state = self.open().await?;
        let host = state.host(&request.name)?;
        if host.state() == wire::HostState::Banned {
            host.set_state(wire::HostState::Offline);
        }
        Ok(Response::new(wire::UnbanHostResponse {
            host: Some(host.clone()),
        }))
    }

    async fn bundle_host(
        &self,
        request: Request<wire::BundleHostRequest>,
    ) -> Answer<wire::BundleHostResponse> {
        let request = request.into_inner();
        let mut state = self.open().await?;
        let host = state.host(&request.name)?.clone();
        let (bundle, expires) = self.bundle_for(&host, &request.csr);
        Ok(Response::new(wire::BundleHostResponse {
            host: Some(host),
            bundle,
            authority_fingerprint: self.authority.fingerprint().to_string(),
            bundle_expires_at: expires,
        }))
    }

    async fn list_hosts(&self, request: Request<wire::ListHostsRequest>) -> Answer<wire::ListHostsResponse> {
        let request = request.into_inner();
        let state = self.open().await?;
        let mut hosts = state
            .hosts
            .values()
            .filter(|host| {
                request
                    .labels
                    .iter()
                    .all(|(key, value)| host.labels.get(key) == Some(value))
            })
            .filter(|host| host.name > request.page_token)
            .cloned();
        let page: Vec<_> = hosts.by_ref().take(PAGE).collect();
        let more = hosts.next().is_some();
        let next_page_token = page
            .last()
            .filter(|_| more)
            .map(|host| host.name.clone())
            .unwrap_or_default();
        Ok(Response::new(wire::ListHostsResponse {
            hosts: page,
            next_page_token,
        }))
    }

    async fn get_host(&self, request: Request<wire::GetHostRequest>) -> Answer<wire::GetHostResponse> {
        let host = self.open().await?.host(&request.into_inner().name)?.clone();
        let is_seen = host.last_seen_at.is_some();
        let expires_at = Some(to_wire_time(self.clock.now() + lifetime::HOST));
        let standing = if host.node_id.is_empty() {
            wire::HostNodeStanding::Unspecified
        } else {
            wire::HostNodeStanding::Proven
        };
        Ok(Response::new(wire::GetHostResponse {
            node: Some(wire::HostNode {
                id: host.node_id.clone(),
                standing: standing.into(),
                ..wire::HostNode::default()
            }),
            pins: vec![wire::Pin {
                kind: if is_seen { "current" } else { "bundle" }.into(),
                fingerprint: "ab".repeat(32),
                expires_at,
            }],
            documents: vec![wire::HostDocument {
                kind: "shard".into(),
                wanted_generation: 4,
                attempted_generation: 4,
                outcome: "failed".into(),
                problems: vec!["image `picket-decoy:9` is not allowed by agent.toml".into()],
            }],
            networks: vec![wire::HostNetwork {
                network_id: "8056c2e21c000001".into(),
                status: "OK".into(),
                addresses: vec!["10.147.17.7/24".into()],
                managed: true,
            }],
            hostname: "edge-07.oslo".into(),
            os: "Debian GNU/Linux 13".into(),
            kernel: "6.12.1".into(),
            machine_id: "0f0f".into(),
            host: Some(host),
        }))
    }

    async fn label_host(&self, request: Request<wire::LabelHostRequest>) -> Answer<wire::LabelHostResponse> {
        let request = request.into_inner();
        let mut state = self.open().await?;
        let host = state.host(&request.name)?;
        host.labels.extend(request.set);
        host.labels.retain(|key, _| !request.remove.contains(key));
        Ok(Response::new(wire::LabelHostResponse {
            host: Some(host.clone()),
        }))
    }

    async fn note_host(&self, request: Request<wire::NoteHostRequest>) -> Answer<wire::NoteHostResponse> {
        let request = request.into_inner();
        let mut state = self.open().await?;
        let host = state.host(&request.name)?;
        host.note = request.note;
        Ok(Response::new(wire::NoteHostResponse {
            host: Some(host.clone()),
        }))
    }

    async fn ban_host(&self, request: Request<wire::BanHostRequest>) -> Answer<wire::BanHostResponse> {
        let request = request.into_inner();
        reason(&request.reason)?;
        let mut state = self.open().await?;
        let host = state.host(&request.name)?;
        let session_cut = host.state() == wire::HostState::Online;
        host.set_state(wire::HostState::Banned);
        Ok(Response::new(wire::BanHostResponse {
            host: Some(host.clone()),
            session_cut,
        }))
    }

    async fn accept_host_node(
        &self,
        request: Request<wire::AcceptHostNodeRequest>,
    ) -> Answer<wire::AcceptHostNodeResponse> {
        let request = request.into_inner();
        reason(&request.reason)?;
        let mut state = self.open().await?;
        let host = state.host(&request.name)?;
        let left = std::mem::replace(&mut host.node_id, request.node_id.clone());
        let remark = format!(
            "node {left} may still be on 8056c2e21c000001; `picketctl member revoke {left} --network ...` ends that"
        );
        Ok(Response::new(wire::AcceptHostNodeResponse {
            host: Some(host.clone()),
            node: None,
            remarks: (!left.is_empty() && left != request.node_id)
                .then_some(remark)
                .into_iter()
                .collect(),
        }))
    }

    async fn retire_host(
        &self,
        request: Request<wire::RetireHostRequest>,
    ) -> Answer<wire::RetireHostResponse> {
        let request = request.into_inner();
        reason(&request.reason)?;
        let mut state = self.open().await?;
        let host = state.host(&request.name)?;
        let told = host.state() == wire::HostState::Online;
        host.set_state(wire::HostState::Retired);
        let host = state.hosts.remove(&request.name);
        Ok(Response::new(wire::RetireHostResponse { host, told }))
    }
}

impl FakeMaster {
    fn bundle_for(
        &self,
        host: &wire::Host,
        csr: &[u8],
    ) -> (prost::bytes::Bytes, Option<prost_types::Timestamp>) {
        let key = Key::generate().unwrap();
        let requested = (!csr.is_empty()).then(|| Csr::parse(csr).unwrap());
        let public = requested.as_ref().map_or(key.public(), Csr::public_key);
        let holder = Holder::Host {
            id: host.id.parse().unwrap(),
            name: host.name.clone(),
        };
        let issued = self
            .authority
            .issue(public, &holder.identity(), lifetime::BUNDLE, self.clock.now())
            .unwrap();
        let keyless = Keyless {
            holder,
            trust_domain: self.authority.trust_domain().clone(),
            masters: vec![MASTER.replace("7444", "7443")],
            authorities: vec![self.authority.certificate().to_vec()],
            certificate: issued.der,
        };
        let text = match requested {
            Some(_) => keyless.encode(),
            None => keyless.with_key(key).encode(),
        };
        let text = text.unwrap().as_bytes().to_vec();
        (text.into(), Some(to_wire_time(issued.not_after)))
    }
}
