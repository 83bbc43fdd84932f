//! `picketctl ca`: the CA, and how another takes its place.

use std::path::Path;

use clap::Subcommand;
use jiff::Timestamp;
use picket_pki::{Authorities, Bundle, Fingerprint};
use picket_proto::{from_wire_time, wire::admin as wire};
use serde::Serialize;

use crate::{
    desk::Desk,
    fault::{About, Fault},
    print::{Cell, Named, Page, Tone, View},
    words::{count, to_the_second},
};

/// The command that shows how things stand.
const SEE: &str = "picketctl ca status";
/// As much of a fingerprint as tells CAs apart in a table.
const DIGITS: usize = 16;
/// The most hosts that a sentence names.
const MOST_NAMED: usize = 20;

/// What can be done with the CA.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show every CA, how far it has come, and which hosts lack what
    #[command(
        after_help = "Examples:\n  picketctl ca status\n  picketctl ca status -o json | jq -r '.stragglers[].name'"
    )]
    Status,
    /// Put another CA in the place of the one that signs; nobody enrolls again
    #[command(
        long_about = "Put another CA in the place of the one that signs, in three steps; nobody enrolls again.\n\n\
            `prepare` makes it, and hosts come to trust it. `activate` makes it the one that signs, and hosts move to \
            certificates of it within the hour. `retire` ends the one before: hosts trust it no more, and what it signed \
            may only renew. A host that was off during any of it finds its way back.\n\n\
            Where the CA's key is in wrong hands, `activate --compromised` does it at once, and every certificate from \
            before opens nothing: operators get in with `picket-master admin-bundle`, hosts with `picketctl host bundle`.",
        after_help = "Examples:\n  picketctl ca rotate prepare\n  picketctl ca status\n  picketctl ca rotate activate\n  \
            picketctl ca rotate retire",
        arg_required_else_help = true,
        subcommand_value_name = "STEP",
        subcommand_help_heading = "Steps"
    )]
    Rotate {
        #[command(subcommand)]
        step: Step,
    },
}

/// The steps of a rotation.
#[derive(Debug, Subcommand)]
pub(crate) enum Step {
    /// Make the next CA, and have hosts trust it too
    Prepare,
    /// Make the prepared CA the one that signs; refused while hosts lack it
    Activate {
        /// Although hosts lack it; they find the way to it when they come back
        #[arg(long)]
        force: bool,
        /// The CA's key is in wrong hands: replace it on the spot, and let nothing in that it signed
        #[arg(long)]
        compromised: bool,
        /// Do not ask whether this is meant
        #[arg(long)]
        yes: bool,
    },
    /// End the CA before the active one; refused while hosts work under it
    Retire {
        /// Although hosts work under it; they may only renew then
        #[arg(long)]
        force: bool,
        /// Its key is in wrong hands: let nothing in that it signed
        #[arg(long)]
        compromised: bool,
        /// Do not ask whether this is meant
        #[arg(long)]
        yes: bool,
    },
}

pub(crate) async fn run(verb: Verb, desk: &mut Desk) -> Result<(), Fault> {
    match verb {
        Verb::Status => {
            let about = About::reading("show the CA", SEE);
            let mut cas = desk.cas().await?;
            let answer = desk.call(&about, cas.get_ca(wire::GetCaRequest {})).await?;
            let succession = Succession::from(answer);
            desk.print.show(&succession, desk.clock.now())
        }
        Verb::Rotate { step } => match step {
            Step::Prepare => prepare(desk).await,
            Step::Activate {
                force,
                compromised,
                yes,
            } => activate(desk, force, compromised, yes).await,
            Step::Retire {
                force,
                compromised,
                yes,
            } => retire(desk, force, compromised, yes).await,
        },
    }
}

async fn prepare(desk: &mut Desk) -> Result<(), Fault> {
    let about = About::changing("prepare a CA", SEE);
    let mut cas = desk.cas().await?;
    let answer = desk
        .call(&about, cas.prepare_ca(wire::PrepareCaRequest {}))
        .await?;
    let ca = Ca::from(answer.ca.unwrap_or_default());
    let done = match (answer.made, answer.replaced.as_str()) {
        (true, "") => "is prepared; hosts are told as they are online".to_owned(),
        (true, lost) => format!(
            "is prepared in place of {lost}, whose key cannot be used; hosts are told as they are online"
        ),
        (false, _) => "was prepared before".to_owned(),
    };
    let sentence = format!(
        "the CA {} {done}\n`picketctl ca status` says which hosts have it; then `picketctl ca rotate activate`",
        ca.fingerprint
    );
    desk.print.done(&ca, &sentence)
}

async fn activate(desk: &mut Desk, force: bool, compromised: bool, yes: bool) -> Result<(), Fault> {
    if compromised && !yes {
        desk.confirm(
            "Every host and every operator, you too, will need a new bundle. Replace the CA at once?",
        )?;
    }
    let about = About::changing("activate the CA", SEE);
    let mut cas = desk.cas().await?;
    let request = wire::ActivateCaRequest { force, compromised };
    let answer = desk.call(&about, cas.activate_ca(request)).await?;
    let activated = Activated {
        ca: Ca::from(answer.ca.unwrap_or_default()),
        lacking: answer.lacking,
        need_bundle: answer.need_bundle,
    };
    let mut sentence = format!("the CA {} signs from here on", activated.ca.fingerprint);
    if compromised {
        sentence.push_str(
            "\nyour own bundle opens nothing any more: run `picket-master admin-bundle` on the master's machine",
        );
        sentence.push_str(&needing(&activated.need_bundle));
    } else {
        if !activated.lacking.is_empty() {
            let hosts = named(&activated.lacking);
            sentence.push_str(&format!(
                "\nnot acknowledged by {hosts}; they find the way when they come back"
            ));
        }
        sentence.push_str("\nhosts move to it within the hour; then `picketctl ca rotate retire`");
    }
    desk.print.done(&activated, &sentence)
}

async fn retire(desk: &mut Desk, force: bool, compromised: bool, yes: bool) -> Result<(), Fault> {
    if compromised && !yes {
        desk.confirm("Whoever works under a certificate of an earlier CA will need a new bundle. Go on?")?;
    }
    let about = About::changing("retire the CA before the active one", SEE);
    let mut cas = desk.cas().await?;
    let request = wire::RetireCaRequest { force, compromised };
    let answer = desk.call(&about, cas.retire_ca(request)).await?;
    let retired = Retirement {
        cas: answer.cas.into_iter().map(Ca::from).collect(),
        behind: answer.behind,
        need_bundle: answer.need_bundle,
        operators_need_bundle: answer.operators_need_bundle,
    };
    let mut sentence = count(retired.cas.len(), "CA is", "CAs are");
    sentence.push_str(if compromised {
        " trusted no more, for nothing"
    } else {
        " retired"
    });
    if !retired.behind.is_empty() {
        let hosts = named(&retired.behind);
        sentence.push_str(&format!(
            "\nstill under it: {hosts}; they renew when they come back"
        ));
    }
    sentence.push_str(&needing(&retired.need_bundle));
    if !retired.operators_need_bundle.is_empty() {
        sentence.push_str(&format!(
            "\nthese operators get in no more until their device is added again: {}",
            named(&retired.operators_need_bundle)
        ));
    }
    desk.print.done(&retired, &sentence)
}

fn needing(hosts: &[String]) -> String {
    if hosts.is_empty() {
        return String::new();
    }
    format!(
        "\n{} a new bundle (`picketctl host bundle NAME`): {}",
        count(hosts.len(), "host needs", "hosts need"),
        named(hosts)
    )
}

fn named(hosts: &[String]) -> String {
    let mut text = hosts
        .iter()
        .take(MOST_NAMED)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    if let Some(more) = hosts.len().checked_sub(MOST_NAMED).filter(|more| *more > 0) {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

/// The bundle with the CAs that the master says are to be trusted: those that the bundle's own vouch for. `None` when
/// there is nothing to change.
pub(crate) fn followed(bundle: &Bundle, answer: &wire::GetCaResponse) -> Option<Bundle> {
    let rank = |ca: &wire::Ca| match ca.phase() {
        wire::CaPhase::Active => Some(0),
        wire::CaPhase::Prepared => Some(1),
        wire::CaPhase::Outgoing => Some(2),
        wire::CaPhase::Unspecified | wire::CaPhase::Retired | wire::CaPhase::Distrusted => None,
    };
    let mut wanted: Vec<_> = answer
        .cas
        .iter()
        .filter_map(|ca| Some((rank(ca)?, ca.certificate.to_vec())))
        .collect();
    wanted.sort_by_key(|(rank, _)| *rank);
    let offered: Vec<Vec<u8>> = wanted.into_iter().map(|(_, der)| der).collect();
    let vouchers = answer.cas.iter().map(|ca| ca.cross_signed.to_vec());
    let vouchers: Vec<Vec<u8>> = vouchers.filter(|der| !der.is_empty()).collect();
    let mut authorities =
        picket_pki::accept(&bundle.trust_domain, &bundle.authorities, &offered, &vouchers).ok()?;
    // Until the operator has a certificate of the new one, the bundle would not hold together without the old.
    let signed = |list: &[Vec<u8>]| {
        Authorities::new(bundle.trust_domain.clone(), list.to_vec())
            .is_ok_and(|authorities| authorities.signed(&bundle.certificate))
    };
    if !signed(&authorities) {
        let own = bundle
            .authorities
            .iter()
            .find(|der| signed(std::slice::from_ref(der)));
        authorities.extend(own.cloned());
    }
    (authorities != bundle.authorities).then(|| Bundle {
        authorities,
        ..bundle.clone()
    })
}

/// Keeps a bundle that follows the master's CAs in the place of the one that does not.
///
/// # Errors
/// When it cannot be written; then the one before is there still.
pub(crate) fn keep(path: &Path, bundle: &Bundle) -> Result<(), Fault> {
    let text = bundle.encode().map_err(|cause| Fault::Bundle {
        path: path.to_owned(),
        cause,
    })?;
    Ok(picket_durable::write_private(path, text.as_bytes())?)
}

/// How far a CA has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    Prepared,
    Active,
    Outgoing,
    Retired,
    Distrusted,
    Unknown,
}

impl Phase {
    fn cell(self) -> Cell {
        match self {
            Self::Prepared => Cell::new("prepared", Tone::Fair),
            Self::Active => Cell::new("active", Tone::Good),
            Self::Outgoing => Cell::new("outgoing", Tone::Fair),
            Self::Retired => Cell::new("retired", Tone::Dim),
            Self::Distrusted => Cell::new("distrusted", Tone::Bad),
            Self::Unknown => Cell::new("unknown", Tone::Dim),
        }
    }
}

/// One CA.
#[derive(Debug, Serialize)]
struct Ca {
    fingerprint: String,
    phase: Phase,
    not_before: Option<Timestamp>,
    not_after: Option<Timestamp>,
    prepared_at: Option<Timestamp>,
    activated_at: Option<Timestamp>,
    retired_at: Option<Timestamp>,
}

impl From<wire::Ca> for Ca {
    fn from(ca: wire::Ca) -> Self {
        let time = |time: &Option<_>| time.as_ref().and_then(from_wire_time);
        Self {
            phase: match ca.phase() {
                wire::CaPhase::Prepared => Phase::Prepared,
                wire::CaPhase::Active => Phase::Active,
                wire::CaPhase::Outgoing => Phase::Outgoing,
                wire::CaPhase::Retired => Phase::Retired,
                wire::CaPhase::Distrusted => Phase::Distrusted,
                wire::CaPhase::Unspecified => Phase::Unknown,
            },
            not_before: time(&ca.not_before),
            not_after: time(&ca.not_after),
            prepared_at: time(&ca.prepared_at),
            activated_at: time(&ca.activated_at),
            retired_at: time(&ca.retired_at),
            fingerprint: ca.fingerprint,
        }
    }
}

impl Named for Ca {
    fn name(&self) -> String {
        self.fingerprint.clone()
    }
}

/// A host that is not where the rotation is.
#[derive(Debug, Serialize)]
struct Straggler {
    name: String,
    lacks: Vec<String>,
    under_earlier: bool,
}

/// Every CA, and who is behind.
#[derive(Debug, Serialize)]
struct Succession {
    cas: Vec<Ca>,
    stragglers: Vec<Straggler>,
}

impl From<wire::GetCaResponse> for Succession {
    fn from(answer: wire::GetCaResponse) -> Self {
        let straggler = |host: wire::CaStraggler| Straggler {
            name: host.name,
            lacks: host.lacks,
            under_earlier: host.under_earlier,
        };
        Self {
            cas: answer.cas.into_iter().map(Ca::from).collect(),
            stragglers: answer.stragglers.into_iter().map(straggler).collect(),
        }
    }
}

impl Named for Succession {
    fn name(&self) -> String {
        let names: Vec<_> = self.cas.iter().map(Ca::name).collect();
        names.join("\n")
    }
}

impl View for Succession {
    fn page(&self, _: Timestamp) -> Page {
        let mut page = Page::default();
        let active = self.cas.iter().find(|ca| ca.phase == Phase::Active);
        let grouped = active.and_then(|ca| ca.fingerprint.parse::<Fingerprint>().ok());
        page.facts([(
            "CA fingerprint",
            Cell::or_dash(grouped.map(|fingerprint| fingerprint.grouped())),
        )]);
        page.title("CAs");
        let when = |time: Option<Timestamp>| Cell::or_dash(time.map(to_the_second));
        let row = |ca: &Ca| {
            vec![
                short(&ca.fingerprint).into(),
                ca.phase.cell(),
                when(ca.prepared_at),
                when(ca.activated_at),
                when(ca.retired_at),
                when(ca.not_after),
            ]
        };
        page.table(
            &["CA", "PHASE", "PREPARED", "ACTIVE", "RETIRED", "ENDS"],
            self.cas.iter().map(row).collect(),
        );
        if self.stragglers.is_empty() {
            return page;
        }
        page.title("Hosts that are not where the rotation is");
        let row = |host: &Straggler| {
            let lacks: Vec<_> = host.lacks.iter().map(|ca| short(ca)).collect();
            vec![
                host.name.as_str().into(),
                Cell::or_dash(Some(lacks.join(", "))),
                if host.under_earlier {
                    Cell::new("of an earlier CA", Tone::Fair)
                } else {
                    Cell::new("of the active CA", Tone::Plain)
                },
            ]
        };
        page.table(
            &["HOST", "LACKS", "CERTIFICATE"],
            self.stragglers.iter().map(row).collect(),
        );
        page
    }
}

/// What came of an activation.
#[derive(Debug, Serialize)]
struct Activated {
    ca: Ca,
    lacking: Vec<String>,
    need_bundle: Vec<String>,
}

impl Named for Activated {
    fn name(&self) -> String {
        self.ca.name()
    }
}

/// What came of a retirement.
#[derive(Debug, Serialize)]
struct Retirement {
    cas: Vec<Ca>,
    behind: Vec<String>,
    need_bundle: Vec<String>,
    operators_need_bundle: Vec<String>,
}

impl Named for Retirement {
    fn name(&self) -> String {
        let names: Vec<_> = self.cas.iter().map(Ca::name).collect();
        names.join("\n")
    }
}

fn short(fingerprint: &str) -> String {
    fingerprint.chars().take(DIGITS).collect()
}
