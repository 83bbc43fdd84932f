//! One member's record beside what it is to be, and why they differ.

use std::{collections::BTreeSet, net::IpAddr};

use jiff::Timestamp;
use picket_proto::{repair::Why, rules::Rule};
use picket_zerotier::controller::{Member, MemberChange};
use serde::{Deserialize, Serialize};

/// What a record is to be at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Target {
    #[serde(rename = "on")]
    pub(crate) authorized: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) name: String,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) addresses: BTreeSet<IpAddr>,
}

/// One part of a change and why it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) why: Why,
    pub(crate) change: MemberChange,
}

impl Target {
    /// What the rule asks for at `now`, on a network that is killed when `closed`.
    pub(crate) fn of(rule: &Rule, closed: bool, now: Timestamp) -> Self {
        Self {
            authorized: !closed && rule.holds(now),
            name: rule.name.clone(),
            addresses: rule.addresses.clone(),
        }
    }

    /// What a record lacks, in parts, each with its reason: what was true before was changed by somebody else, and the
    /// rest was decided since. `cut_off` is the reason for a deauthorization that was not true before.
    ///
    /// A node without a record is not on the network already.
    pub(crate) fn lacks(&self, before: Option<&Self>, have: Option<&Member>, cut_off: Why) -> Vec<Part> {
        let why = |same: fn(&Self, &Self) -> bool, otherwise| match before {
            Some(before) if same(before, self) => Why::Drift,
            Some(_) | None => otherwise,
        };
        let authorized = |otherwise| why(|a, b| a.authorized == b.authorized, otherwise);
        let Some(have) = have else {
            if !self.authorized {
                return Vec::new();
            }
            let change = MemberChange {
                authorized: Some(true),
                name: (!self.name.is_empty()).then(|| self.name.clone()),
                addresses: (!self.addresses.is_empty()).then(|| texts(&self.addresses)),
            };
            let why = authorized(Why::Decided);
            return vec![Part { why, change }];
        };
        let mut parts = Vec::new();
        if have.authorized != self.authorized {
            let otherwise = if self.authorized { Why::Decided } else { cut_off };
            parts.push(Part {
                why: authorized(otherwise),
                change: MemberChange::authorized(self.authorized),
            });
        }
        if !self.name.is_empty() && have.name.as_deref() != Some(&self.name) {
            parts.push(Part {
                why: why(|a, b| a.name == b.name, Why::Decided),
                change: MemberChange {
                    name: Some(self.name.clone()),
                    ..MemberChange::default()
                },
            });
        }
        if let Some(addresses) = self.other_addresses(&have.addresses) {
            parts.push(Part {
                why: why(|a, b| a.addresses == b.addresses, Why::Decided),
                change: MemberChange {
                    addresses: Some(addresses),
                    ..MemberChange::default()
                },
            });
        }
        parts
    }

    /// The addresses a record is to have instead of those it has. Of a kind that no address is given of, the controller
    /// gives one by itself: those stay, or the two of us would go on for ever.
    fn other_addresses(&self, have: &[String]) -> Option<Vec<String>> {
        let given = |v4: bool| self.addresses.iter().any(|address| address.is_ipv4() == v4);
        let have: BTreeSet<IpAddr> = have.iter().filter_map(|text| text.parse().ok()).collect();
        let (ruled, free): (BTreeSet<_>, BTreeSet<_>) =
            have.into_iter().partition(|address| given(address.is_ipv4()));
        (ruled != self.addresses).then(|| texts(&self.addresses.union(&free).copied().collect()))
    }
}

fn texts(addresses: &BTreeSet<IpAddr>) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

/// One change made of several.
pub(crate) fn together<'a>(parts: impl IntoIterator<Item = &'a Part>) -> MemberChange {
    let mut whole = MemberChange::default();
    for Part { change, .. } in parts {
        whole.authorized = change.authorized.or(whole.authorized);
        whole.name = change.name.clone().or(whole.name);
        whole.addresses = change.addresses.clone().or(whole.addresses);
    }
    whole
}

/// A record, as far as a change is about it, in words.
pub(crate) fn words(change: &MemberChange) -> String {
    let mut words = Vec::new();
    match change.authorized {
        Some(true) => words.push("authorized".to_owned()),
        Some(false) => words.push("deauthorized".to_owned()),
        None => {}
    }
    if let Some(name) = &change.name {
        words.push(format!("name={name}"));
    }
    if let Some(addresses) = &change.addresses {
        words.push(format!("addresses={}", addresses.join(" ")));
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn member(authorized: bool, name: &str, addresses: &[&str]) -> Member {
        serde_json::from_value(json!({
            "id": "39966434ba", "nwid": "5350d87547c880cb", "authorized": authorized, "name": name,
            "ipAssignments": addresses,
        }))
        .unwrap()
    }

    fn target(authorized: bool, name: &str, addresses: &[&str]) -> Target {
        Target {
            authorized,
            name: name.to_owned(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        }
    }

    fn lacks(target: &Target, before: Option<&Target>, have: Option<&Member>) -> Vec<(Why, String)> {
        let parts = target.lacks(before, have, Why::Decided);
        parts.iter().map(|part| (part.why, words(&part.change))).collect()
    }

    #[test]
    fn what_was_true_before_was_changed_by_somebody_else_and_the_rest_was_decided() {
        let want = target(true, "oslo", &["10.0.0.5"]);
        let have = member(false, "bern", &["10.0.0.5"]);
        assert_eq!(
            lacks(&want, Some(&target(true, "rome", &["10.0.0.5"])), Some(&have)),
            [
                (Why::Drift, "authorized".to_owned()),
                (Why::Decided, "name=oslo".to_owned())
            ]
        );
        assert!(
            lacks(&want, None, Some(&have))
                .iter()
                .all(|(why, _)| *why == Why::Decided)
        );
    }

    #[test]
    fn a_name_and_addresses_that_no_rule_gives_are_the_controllers_own_business() {
        let have = member(true, "whatever", &["10.0.0.9"]);
        assert_eq!(lacks(&target(true, "", &[]), None, Some(&have)), []);
    }

    #[test]
    fn an_address_of_a_kind_that_is_not_given_stays_and_a_surplus_one_of_a_kind_that_is_goes() {
        let have = member(true, "", &["10.0.0.9", "fd00::9"]);
        assert_eq!(
            lacks(&target(true, "", &["fd00::1"]), None, Some(&have)),
            [(Why::Decided, "addresses=10.0.0.9 fd00::1".to_owned())]
        );
        assert_eq!(lacks(&target(true, "", &["10.0.0.9"]), None, Some(&have)), []);
    }

    #[test]
    fn a_node_without_a_record_is_off_already_and_is_let_on_ahead_with_all_it_is_given() {
        assert_eq!(lacks(&target(false, "", &[]), None, None), []);
        assert_eq!(
            lacks(&target(true, "oslo", &["10.0.0.5"]), None, None),
            [(
                Why::Decided,
                "authorized, name=oslo, addresses=10.0.0.5".to_owned()
            )]
        );
    }
}
