//! What is managed of a network's settings, on the wire.

use picket_zerotier::settings::{Dns, NetworkSettings, Pool, Route};
use serde_json::Value;

use crate::{
    WireError,
    field::{parse, text},
    wire::agent as wire,
};

/// The longest JSON of rules, tags or capabilities.
pub const MOST_OPAQUE: usize = 256 * 1024;
/// The most entries of one list; what a setting may really have is for its own check to say.
const MOST_LIST: usize = 1024;
/// The longest text.
const MOST_TEXT: usize = 256;

impl From<&NetworkSettings> for wire::NetworkSettings {
    fn from(settings: &NetworkSettings) -> Self {
        let opaque = |values: &Option<Vec<Value>>| {
            values
                .as_ref()
                .map(|values| Value::Array(values.clone()).to_string())
        };
        Self {
            name: settings.name.clone(),
            routes: settings.routes.as_ref().map(|routes| wire::NetworkRoutes {
                routes: routes
                    .iter()
                    .map(|route| wire::NetworkRoute {
                        target: route.target.to_string(),
                        via: route.via.map(|via| via.to_string()).unwrap_or_default(),
                    })
                    .collect(),
            }),
            pools: settings.pools.as_ref().map(|pools| wire::NetworkPools {
                pools: pools
                    .iter()
                    .map(|pool| wire::NetworkPool {
                        start: pool.start.to_string(),
                        end: pool.end.to_string(),
                    })
                    .collect(),
            }),
            assign_v4: settings.v4_assign,
            rfc4193: settings.rfc4193,
            sixplane: settings.sixplane,
            assign_v6: settings.zt_v6,
            dns: settings.dns.as_ref().map(|dns| wire::NetworkDns {
                domain: dns.domain.clone(),
                servers: dns.servers.clone(),
            }),
            mtu: settings.mtu,
            multicast_limit: settings.multicast_limit,
            broadcast: settings.broadcast,
            rules: opaque(&settings.rules),
            tags: opaque(&settings.tags),
            capabilities: opaque(&settings.capabilities),
        }
    }
}

/// Reads settings from the wire. Whether they make sense together is for [`NetworkSettings::validate`] to say.
///
/// # Errors
/// A field that is no such thing at all.
pub fn from_wire(settings: wire::NetworkSettings) -> Result<NetworkSettings, WireError> {
    let route = |route: wire::NetworkRoute| {
        let via = (!route.via.is_empty()).then(|| parse("settings.routes", &route.via));
        Ok(Route {
            target: parse("settings.routes", &route.target)?,
            via: via.transpose()?,
        })
    };
    let pool = |pool: wire::NetworkPool| {
        Ok(Pool {
            start: parse("settings.pools", &pool.start)?,
            end: parse("settings.pools", &pool.end)?,
        })
    };
    let dns = |dns: wire::NetworkDns| {
        Ok::<_, WireError>(Dns {
            domain: text("settings.dns", dns.domain, MOST_TEXT)?,
            servers: few("settings.dns", dns.servers)?
                .into_iter()
                .map(|server| text("settings.dns", server, MOST_TEXT))
                .collect::<Result<_, _>>()?,
        })
    };
    let routes = settings.routes.map(|list| {
        few("settings.routes", list.routes)?
            .into_iter()
            .map(route)
            .collect()
    });
    let pools = settings
        .pools
        .map(|list| few("settings.pools", list.pools)?.into_iter().map(pool).collect());
    let name = settings.name.map(|name| text("settings.name", name, MOST_TEXT));
    Ok(NetworkSettings {
        name: name.transpose()?,
        routes: routes.transpose()?,
        pools: pools.transpose()?,
        v4_assign: settings.assign_v4,
        rfc4193: settings.rfc4193,
        sixplane: settings.sixplane,
        zt_v6: settings.assign_v6,
        dns: settings.dns.map(dns).transpose()?,
        mtu: settings.mtu,
        multicast_limit: settings.multicast_limit,
        broadcast: settings.broadcast,
        rules: opaque("settings.rules", settings.rules)?,
        tags: opaque("settings.tags", settings.tags)?,
        capabilities: opaque("settings.capabilities", settings.capabilities)?,
    })
}

fn few<T>(field: &str, list: Vec<T>) -> Result<Vec<T>, WireError> {
    if list.len() > MOST_LIST {
        let problem = format_args!("{} entries, at most {MOST_LIST}", list.len());
        return Err(WireError::new(field, problem));
    }
    Ok(list)
}

fn opaque(field: &str, json: Option<String>) -> Result<Option<Vec<Value>>, WireError> {
    let Some(json) = json else { return Ok(None) };
    if json.len() > MOST_OPAQUE {
        let problem = format_args!("{} bytes, at most {MOST_OPAQUE}", json.len());
        return Err(WireError::new(field, problem));
    }
    serde_json::from_str(&json)
        .map(Some)
        .map_err(|error| WireError::new(field, format_args!("is no JSON array: {error}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_read_back_as_they_were_written_and_an_absent_field_stays_absent() {
        let settings = NetworkSettings {
            name: Some("lab".into()),
            routes: Some(vec![Route {
                target: "10.147.20.0/24".parse().unwrap(),
                via: None,
            }]),
            pools: Some(Vec::new()),
            rfc4193: Some(false),
            rules: Some(vec![json!({"type": "ACTION_ACCEPT"})]),
            ..NetworkSettings::default()
        };
        for settings in [settings, NetworkSettings::default()] {
            assert_eq!(
                from_wire(wire::NetworkSettings::from(&settings)).unwrap(),
                settings
            );
        }
    }

    #[test]
    fn rules_that_are_no_list_are_refused_by_name() {
        let settings = wire::NetworkSettings {
            rules: Some("{}".into()),
            ..Default::default()
        };
        assert_eq!(from_wire(settings).unwrap_err().field, "settings.rules");
    }
}
