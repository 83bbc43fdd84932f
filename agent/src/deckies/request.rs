//! How containers and networks are asked for at the Engine. Pure.
//!
//! What every container of ours is subject to stands here in one place: no capabilities, no new privileges, limits on
//! memory, processors, processes and logs. Ports under 1024 need no capability: the base opens them to every user of
//! its own network namespace (`net.ipv4.ip_unprivileged_port_start=0`), in which nothing but decoys lives, so that no
//! container holds a capability, whatever its user.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HostConfig, HostConfigLogConfig, Ipam,
    IpamConfig, NetworkCreateRequest, NetworkingConfig, RestartPolicy, RestartPolicyNameEnum,
};
use picket_proto::shard::Driver;

use super::{
    engine::Image,
    form::{ContainerForm, NetworkForm, Place, Role},
    inventory::ContainerId,
};

const MEBIBYTE: i64 = 1024 * 1024;
/// A process that does nothing needs less than 4 MiB; a busy engine's own overhead is counted in.
const BASE_MEMORY: i64 = 32 * MEBIBYTE;
const BASE_PIDS: i64 = 16;
const BASE_NANO_CPUS: i64 = 100_000_000;
/// Enough for interpreted honeypots, too little to serve somebody else's purposes.
const SERVICE_MEMORY: i64 = 256 * MEBIBYTE;
const SERVICE_PIDS: i64 = 128;
const SERVICE_NANO_CPUS: i64 = 500_000_000;
const LOG_SIZE: &str = "10m";
const LOG_FILES: &str = "3";

/// A network.
pub(super) fn network_request(form: &NetworkForm) -> NetworkCreateRequest {
    let network = &form.network;
    let mut options = HashMap::new();
    if let Some(parent) = &network.parent {
        options.insert("parent".to_owned(), parent.clone());
    }
    if network.driver == Driver::Ipvlan {
        options.insert("ipvlan_mode".to_owned(), "l2".to_owned());
    }
    NetworkCreateRequest {
        name: form.docker_name.clone(),
        driver: Some(network.driver.to_string()),
        // A bridge without a way out: this machine reaches the deckies, and they reach nothing.
        internal: Some(network.driver == Driver::Bridge && network.gateway.is_none()),
        ipam: Some(Ipam {
            driver: Some("default".to_owned()),
            config: Some(vec![IpamConfig {
                subnet: Some(network.subnet.to_string()),
                gateway: network.gateway.map(|gateway| gateway.to_string()),
                ..Default::default()
            }]),
            options: None,
        }),
        options: Some(options),
        labels: Some(form.labels.clone().into_iter().collect()),
        ..Default::default()
    }
}

/// A container; a service joins the namespace of `base`.
pub(super) fn container_body(
    form: &ContainerForm,
    base: Option<&ContainerId>,
    image: Image,
) -> ContainerCreateBody {
    let is_base = form.role == Role::Base;
    let (memory, pids, nano_cpus) = if is_base {
        (BASE_MEMORY, BASE_PIDS, BASE_NANO_CPUS)
    } else {
        (SERVICE_MEMORY, SERVICE_PIDS, SERVICE_NANO_CPUS)
    };
    let mut host = HostConfig {
        privileged: Some(false),
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges:true".to_owned()]),
        readonly_rootfs: Some(image.read_only),
        ipc_mode: Some("private".to_owned()),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::UNLESS_STOPPED),
            maximum_retry_count: None,
        }),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([
                ("max-size".to_owned(), LOG_SIZE.to_owned()),
                ("max-file".to_owned(), LOG_FILES.to_owned()),
            ])),
        }),
        memory: Some(memory),
        // The same as memory: no swap.
        memory_swap: Some(memory),
        nano_cpus: Some(nano_cpus),
        pids_limit: Some(pids),
        ..Default::default()
    };
    let mut body = ContainerCreateBody {
        image: Some(form.image.clone()),
        cmd: (!form.command.is_empty()).then(|| form.command.clone()),
        env: Some(
            form.environment
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect(),
        ),
        labels: Some(form.labels.clone().into_iter().collect()),
        ..Default::default()
    };
    match &form.place {
        Place::Network {
            network,
            address,
            hostname,
        } => {
            host.network_mode = Some(network.clone());
            host.sysctls = Some(HashMap::from([(
                "net.ipv4.ip_unprivileged_port_start".to_owned(),
                "0".to_owned(),
            )]));
            body.hostname = Some(hostname.to_string());
            let endpoint = EndpointSettings {
                ipam_config: Some(EndpointIpamConfig {
                    ipv4_address: Some(address.to_string()),
                    ..Default::default()
                }),
                ..Default::default()
            };
            body.networking_config = Some(NetworkingConfig {
                endpoints_config: Some(HashMap::from([(network.clone(), endpoint)])),
            });
        }
        // The Engine refuses Hostname, ExposedPorts, MacAddress and NetworkingConfig beside this.
        Place::Base => {
            host.network_mode = base.map(|base| format!("container:{}", base.0));
        }
    }
    body.host_config = Some(host);
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deckies::{
        form::{BaseImage, forms},
        plan::tests::{owner, shard},
    };

    fn bodies() -> Vec<ContainerCreateBody> {
        let forms = forms(&shard(1), &owner(), &BaseImage::default());
        let base = ContainerId("abc".to_owned());
        let decky = forms.deckies.values().next().unwrap();
        decky
            .containers()
            .map(|form| container_body(form, Some(&base), Image { read_only: true }))
            .collect()
    }

    #[test]
    fn no_container_has_a_capability_or_a_way_to_the_host() {
        for body in bodies() {
            let host = body.host_config.unwrap();
            assert_eq!(host.cap_drop, Some(vec!["ALL".to_owned()]));
            assert_eq!(host.cap_add, None);
            assert_eq!(host.privileged, Some(false));
            assert_eq!(host.security_opt, Some(vec!["no-new-privileges:true".to_owned()]));
            assert_eq!((host.binds, host.mounts, host.devices), (None, None, None));
            assert_eq!(
                (host.pid_mode, host.uts_mode, host.userns_mode),
                (None, None, None)
            );
            assert!(host.memory.is_some_and(|bytes| bytes > 0) && host.memory == host.memory_swap);
            assert!(host.pids_limit.is_some_and(|pids| pids > 0));
            assert!(host.network_mode.is_some_and(|mode| mode != "host"));
        }
    }

    #[test]
    fn a_service_sets_nothing_that_the_engine_refuses_in_a_joined_namespace() {
        for body in &bodies()[1..] {
            assert_eq!(
                (&body.hostname, &body.exposed_ports, &body.networking_config),
                (&None, &None, &None)
            );
            assert_eq!(
                body.host_config.as_ref().unwrap().network_mode.as_deref(),
                Some("container:abc")
            );
        }
    }
}
