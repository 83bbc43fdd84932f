//! The settings file of a network: its shape, and every problem with it by its key. What the values may be is said by the
//! form that it becomes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use jiff::{SignedDuration, fmt::friendly};
use picket_proto::{
    form::{Allowed, Form},
    host::Labels,
    rules::Unknown,
    stay::Join,
};
use picket_zerotier::settings::NetworkSettings;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_norway::{Mapping, Value};

use super::problem::problem;
use crate::{
    cli::span,
    document::{Document, Kind},
    print::{Cell, Page},
    words::{count, pairs},
};

/// What `picketctl network apply --help` says of the file.
pub(crate) const FORMAT: &str = "\
A settings file is YAML. What is left out has the default that is shown, and of the settings what is
left out is not managed: it stays as somebody made it at the controller.

  id: 8056c2e21c000001           # or as an argument
  settings:                      # none is managed by default
    name: decoys
    routes:                      # all of them
      - target: 10.147.20.0/24
      - target: 10.20.0.0/16
        via: 10.147.20.1
    pools:                       # ranges that addresses are given from
      - start: 10.147.20.10
        end: 10.147.20.250
    v4_assign: true              # IPv4 from the pools; zt_v6: IPv6 from the pools
    rfc4193: false
    sixplane: false
    dns:
      domain: decoys.example.org
      servers: [10.147.20.1]
    mtu: 2800
    multicast_limit: 32
    broadcast: true              # rules, tags, capabilities: lists in the controller's own words
  members:
    labels:                      # hosts with all of these are members; none by default
      site: oslo
  allow:                         # nodes that nobody enrolled; none by default
    - node: '39966434ba'         # an id, or an RFC4193 or 6PLANE address
      name: ana's laptop
      addresses: [10.147.20.5]   # the controller's choice by default
  approvals: 0                   # 0, 1 or 2; 0: an operator admits directly
  approvers: []                  # operators who may approve; everybody with the role by default
  unknown: report                # members that nobody registered: report or deauthorize
  activation:
    default: 1h
    most: 24h
  request_expiry: 7d
  join:                          # how hosts are on it
    managed: true                # take addresses and routes
    global: false                # those that are not private too
    default: false               # a default route
    dns: false
  witnesses: false               # members listen whether a killed one is silent

The file is all that is wanted: a node that is not in it is no member by it.";

/// Ten thousand nodes with names and addresses have less than half of it.
pub(crate) const KIND: Kind = Kind {
    noun: "settings file",
    longest: 4 * 1024 * 1024,
    when_longer: "a network has at most 10000 allowed nodes",
    format: "picketctl network apply --help",
};

/// The most problems that are named at once.
const MOST_PROBLEMS: usize = 20;

/// What an operator writes of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NetworkFile {
    pub(crate) id: Option<String>,
    pub(crate) form: Form,
}

impl NetworkFile {
    /// Reads a settings file, or tells everything that is wrong with it.
    pub(crate) fn parse(document: &Document) -> Result<Self, crate::fault::Fault> {
        read(&document.text).map_err(|mut problems| {
            problems.truncate(MOST_PROBLEMS);
            document.fault(&problems)
        })
    }
}

/// The file as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Shape {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    settings: NetworkSettings,
    members: Members,
    allow: Vec<Allowed>,
    approvals: u32,
    approvers: BTreeSet<String>,
    unknown: Unknown,
    activation: Activation,
    request_expiry: Span,
    join: Join,
    witnesses: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Members {
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Activation {
    default: Span,
    most: Span,
}

impl Default for Activation {
    fn default() -> Self {
        let form = Form::default();
        Self {
            default: Span(form.default_activation),
            most: Span(form.most_activation),
        }
    }
}

impl Default for Shape {
    fn default() -> Self {
        Self::from(&Form::default())
    }
}

impl From<&Form> for Shape {
    fn from(form: &Form) -> Self {
        let labels = form.member_labels.iter();
        Self {
            id: None,
            settings: form.settings.clone(),
            members: Members {
                labels: labels.map(|(key, value)| (key.clone(), value.clone())).collect(),
            },
            allow: form.allow.clone(),
            approvals: form.approvals.into(),
            approvers: form.approvers.clone(),
            unknown: form.unknown,
            activation: Activation {
                default: Span(form.default_activation),
                most: Span(form.most_activation),
            },
            request_expiry: Span(form.request_expiry),
            join: form.join,
            witnesses: form.witnesses,
        }
    }
}

impl Shape {
    /// The form as people read it.
    pub(super) fn page(&self, page: &mut Page) {
        let listed =
            |each: &BTreeSet<String>| Cell::or_dash(Some(Vec::from_iter(each.iter().cloned()).join(", ")));
        let join = [
            ("managed", self.join.managed),
            ("global", self.join.global),
            ("default", self.join.default_route),
            ("dns", self.join.dns),
        ];
        let takes: Vec<&str> = join
            .iter()
            .filter(|(_, taken)| *taken)
            .map(|(word, _)| *word)
            .collect();
        page.title("Rules");
        page.facts([
            (
                "Hosts that are members",
                Cell::or_dash(Some(pairs(&self.members.labels))),
            ),
            ("Allowed nodes", self.allow.len().to_string().into()),
            ("Approvals", self.approvals.to_string().into()),
            ("Approvers", listed(&self.approvers)),
            (
                "Unknown members",
                match self.unknown {
                    Unknown::Report => "reported".into(),
                    Unknown::Deauthorize => "deauthorized".into(),
                },
            ),
            (
                "Activations",
                format!("{}, at most {}", self.activation.default, self.activation.most).into(),
            ),
            ("Requests wait", self.request_expiry.to_string().into()),
            ("Hosts take", Cell::or_dash(Some(takes.join(", ")))),
            ("Witnesses", if self.witnesses { "yes" } else { "no" }.into()),
        ]);
        let rows: Vec<Vec<Cell>> = managed(&self.settings)
            .into_iter()
            .map(|(key, value)| vec![key.into(), value.into()])
            .collect();
        if !rows.is_empty() {
            page.title("Settings");
            page.table(&["SETTING", "VALUE"], rows);
        }
    }
}

/// The settings that are managed, each in one line.
fn managed(settings: &NetworkSettings) -> Vec<(&'static str, String)> {
    fn listed<T: fmt::Display>(each: &[T]) -> String {
        let each: Vec<String> = each.iter().map(ToString::to_string).collect();
        if each.is_empty() {
            "none".to_owned()
        } else {
            each.join(", ")
        }
    }
    let entries = |each: &Vec<serde_json::Value>| count(each.len(), "entry", "entries");
    let NetworkSettings {
        name,
        routes,
        pools,
        v4_assign,
        rfc4193,
        sixplane,
        zt_v6,
        dns,
        mtu,
        multicast_limit,
        broadcast,
        rules,
        tags,
        capabilities,
    } = settings;
    let each = [
        ("name", name.clone()),
        ("routes", routes.as_deref().map(listed)),
        ("pools", pools.as_deref().map(listed)),
        ("v4_assign", v4_assign.map(|is| is.to_string())),
        ("rfc4193", rfc4193.map(|is| is.to_string())),
        ("sixplane", sixplane.map(|is| is.to_string())),
        ("zt_v6", zt_v6.map(|is| is.to_string())),
        ("dns", dns.as_ref().map(ToString::to_string)),
        ("mtu", mtu.map(|mtu| mtu.to_string())),
        ("multicast_limit", multicast_limit.map(|limit| limit.to_string())),
        ("broadcast", broadcast.map(|is| is.to_string())),
        ("rules", rules.as_ref().map(entries)),
        ("tags", tags.as_ref().map(entries)),
        ("capabilities", capabilities.as_ref().map(entries)),
    ];
    each.into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect()
}

/// A span of time as people write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DAY: u64 = 24 * 3600;
        let seconds = self.0.as_secs();
        if seconds > DAY && seconds.is_multiple_of(DAY) && self.0.subsec_nanos() == 0 {
            return write!(f, "{}d", seconds / DAY);
        }
        static PRINTER: friendly::SpanPrinter = friendly::SpanPrinter::new();
        let span = SignedDuration::try_from(self.0).unwrap_or(SignedDuration::MAX);
        let text = PRINTER.duration_to_string(&span);
        f.write_str(&text.replace(' ', ""))
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        span(&text).map(Self).map_err(de::Error::custom)
    }
}

/// The parser stops at the first problem of a value, so each value is read by itself.
fn read(text: &str) -> Result<NetworkFile, Vec<String>> {
    let value: Value = serde_norway::from_str(text).map_err(|cause| vec![cause.to_string()])?;
    let mapping = match value {
        Value::Mapping(mapping) if !mapping.is_empty() => mapping,
        Value::Null | Value::Mapping(_) => return Err(vec!["there is nothing in it".to_owned()]),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Sequence(_) | Value::Tagged(_) => {
            return Err(vec!["want a mapping, with keys such as `settings`".to_owned()]);
        }
    };
    let (mut wrong, mut sound) = (Vec::new(), Mapping::new());
    for (key, value) in mapping {
        let problems = problems(&key, &value);
        if problems.is_empty() {
            sound.insert(key, value);
        }
        wrong.extend(problems);
    }
    let shape: Shape =
        serde_norway::from_value(Value::Mapping(sound)).map_err(|cause| vec![cause.to_string()])?;
    match form(shape) {
        Ok(file) if wrong.is_empty() => Ok(file),
        Ok(_) => Err(wrong),
        Err(more) => {
            wrong.extend(more);
            Err(wrong)
        }
    }
}

/// What is wrong with the shape of one key.
fn problems(key: &Value, value: &Value) -> Vec<String> {
    let name = key_name(key);
    match (name.as_str(), value) {
        ("settings" | "members" | "activation" | "join", Value::Mapping(inner)) => {
            let each = inner.iter().flat_map(|(inner_key, inner_value)| {
                let place = format!("{name}.{}", key_name(inner_key));
                let wrong = |value: &Value| problem::<Shape>(&one(key, &one(inner_key, value)));
                // Of a list, each entry that is wrong.
                if let Value::Sequence(entries) = inner_value
                    && wrong(&Value::Sequence(Vec::new())).is_none()
                {
                    let each = entries.iter().enumerate().filter_map(|(number, entry)| {
                        let problem = wrong(&Value::Sequence(vec![entry.clone()]))?;
                        Some(format!("{place}[{number}]: {problem}"))
                    });
                    let each: Vec<String> = each.collect();
                    if !each.is_empty() {
                        return each;
                    }
                }
                let problem = wrong(inner_value);
                problem
                    .map(|problem| format!("{place}: {problem}"))
                    .into_iter()
                    .collect()
            });
            each.collect()
        }
        ("allow", Value::Sequence(nodes)) => {
            let each = nodes.iter().enumerate().filter_map(|(number, node)| {
                let problem = problem::<Allowed>(node)?;
                let node = node.get("node").and_then(Value::as_str);
                let which = node.map_or_else(String::new, |node| format!(" ({node})"));
                Some(format!("allow[{number}]{which}: {problem}"))
            });
            each.collect()
        }
        _ => problem::<Shape>(&one(key, value))
            .map(|problem| format!("{name}: {problem}"))
            .into_iter()
            .collect(),
    }
}

fn one(key: &Value, value: &Value) -> Value {
    Value::Mapping(Mapping::from_iter([(key.clone(), value.clone())]))
}

fn key_name(key: &Value) -> String {
    match key {
        Value::String(text) => text.clone(),
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::Sequence(_)
        | Value::Mapping(_)
        | Value::Tagged(_) => "a key that is no text".to_owned(),
    }
}

/// What the shape says, when all of it can be had.
fn form(shape: Shape) -> Result<NetworkFile, Vec<String>> {
    let mut problems: Vec<String> = shape
        .settings
        .validate()
        .into_iter()
        .map(|problem| format!("settings.{}: {}", problem.field, problem.sentence))
        .collect();
    let mut or_default = |read: Result<Labels, picket_proto::WireError>| {
        read.unwrap_or_else(|error| {
            problems.push(format!("members.{error}"));
            Labels::default()
        })
    };
    let member_labels = or_default(Labels::new(shape.members.labels));
    let approvals = u8::try_from(shape.approvals).unwrap_or(u8::MAX);
    let form = Form {
        settings: shape.settings,
        member_labels,
        allow: shape.allow,
        approvals,
        approvers: shape.approvers,
        unknown: shape.unknown,
        default_activation: shape.activation.default.0,
        most_activation: shape.activation.most.0,
        request_expiry: shape.request_expiry.0,
        join: shape.join,
        witnesses: shape.witnesses,
    };
    // Of the settings every problem was named before.
    let rest = Form {
        settings: NetworkSettings::default(),
        ..form.clone()
    };
    if let Err(error) = Form::from_wire(rest.to_wire()) {
        let text = error.to_string();
        let text = text.replace("default_activation", "activation.default");
        problems.push(text.replace("most_activation", "activation.most"));
    }
    if problems.is_empty() {
        let id = shape.id;
        Ok(NetworkFile { id, form })
    } else {
        Err(problems)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../../docs/examples/network.yaml");

    #[test]
    fn the_example_and_the_help_are_settings_files() {
        let example = read(EXAMPLE).unwrap();
        assert_eq!(example.form.approvals, 1);
        let (_, indented) = FORMAT.split_once("\n\n").unwrap();
        let (indented, _) = indented.split_once("\n\nThe file").unwrap();
        let shown = read(indented).unwrap();
        assert_eq!(shown.id.as_deref(), Some("8056c2e21c000001"));
        // What the help shows as defaults are the defaults.
        let plain = Form {
            settings: NetworkSettings::default(),
            member_labels: Labels::default(),
            allow: Vec::new(),
            ..shown.form
        };
        assert_eq!(plain, Form::default());
    }

    #[test]
    fn what_is_printed_of_a_form_reads_back_as_that_form() {
        let example = read(EXAMPLE).unwrap();
        let printed = serde_norway::to_string(&Shape::from(&example.form)).unwrap();
        assert_eq!(read(&printed).unwrap().form, example.form, "{printed}");
    }

    #[test]
    fn every_problem_is_named_with_its_key() {
        let wrong = "id: 8056000000000001\n\
            setings: {}\n\
            settings:\n  mtu: 100\n  name: [a]\n  route: []\n  routes:\n    - target: 10.0.0.0/33\n    - 10.0.0.0/8\n\
            members:\n  labels: {rack: 4}\n  label: {}\n\
            allow:\n  - node: 1234567890\n  - nodes: x\n  - node: '39966434ba'\n    addresses: [10.147.20]\n\
            approvals: two\n\
            unknown: ignore\n\
            activation:\n  most: soon\n\
            join: true\n";
        insta::assert_snapshot!(read(wrong).unwrap_err().join("\n"), @r#"
        id: the number 8056000000000001 is there, and a text is wanted; put it in quotes
        setings: there is no key `setings`; there are `id`, `settings`, `members`, `allow`, `approvals`, `approvers`, `unknown`, `activation`, `request_expiry`, `join`, `witnesses`
        settings.name: a list is there, and a text is wanted
        settings.route: there is no key `route`; there are `name`, `routes`, `pools`, `v4_assign`, `rfc4193`, `sixplane`, `zt_v6`, `dns`, `mtu`, `multicast_limit`, `broadcast`, `rules`, `tags`, `capabilities`
        settings.routes[0]: invalid IP address syntax
        settings.routes[1]: the text "10.0.0.0/8" is there, and a mapping of keys is wanted
        members.labels: the number 4 is there, and a text is wanted; put it in quotes
        members.label: there is no key `label`; there is `labels`
        allow[0]: the number 1234567890 is there, and a text is wanted; put it in quotes
        allow[1]: there is no key `nodes`; there are `node`, `name`, `addresses`
        allow[2] (39966434ba): invalid IP address syntax
        approvals: the text "two" is there, and a whole number is wanted
        unknown: there is no `ignore`; there is `report` or `deauthorize`
        activation.most: want a positive span such as `10s` or `5m`
        join: true is there, and a mapping of keys is wanted
        "#);
    }

    #[test]
    fn every_value_that_will_not_do_is_named_with_its_key() {
        let wrong = "settings:\n  mtu: 100\n  routes: [{target: 10.147.20.7/24}]\n  pools: [{start: 10.1.0.1, end: 10.1.0.9}]\n\
            members:\n  labels: {'a b': c}\n\
            activation: {default: 2h, most: 1h}\n";
        insta::assert_snapshot!(read(wrong).unwrap_err().join("\n"), @r"
        settings.routes[0]: 10.147.20.7/24 has host bits set; write 10.147.20.0/24
        settings.pools[0]: 10.1.0.1-10.1.0.9 is inside none of the routes; addresses are only assigned inside one
        settings.mtu: 100 is none of 1280 to 10000
        members.labels: `a b=c`: use key=value with at most 63 of a-z, A-Z, 0-9, '-', '_', '.', '/' on each side
        activation.default: is longer than activation.most
        ");
        for (wrong, key) in [
            ("approvals: 3\n", "approvals"),
            ("activation: {most: 25h}\n", "activation.most"),
            ("approvals: 2\napprovers: [ana]\n", "approvers"),
            ("request_expiry: 100d\n", "request_expiry"),
        ] {
            let problems = read(wrong).unwrap_err();
            assert!(problems[0].starts_with(&format!("{key}: ")), "{problems:?}");
        }
    }

    #[test]
    fn what_is_no_yaml_or_no_mapping_is_refused() {
        for wrong in ["", "- a\n", "id: [", "id\n", "approvals: 1\napprovals: 2\n"] {
            let problems = read(wrong).unwrap_err();
            assert_eq!(problems.len(), 1, "{wrong:?}: {problems:?}");
        }
    }
}
