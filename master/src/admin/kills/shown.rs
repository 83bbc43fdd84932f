//! A kill on the wire.

use picket_proto::{to_wire_time, wire::admin as wire};

use super::subject::{scope_of, shown_subject};
use crate::{
    desk::Desk,
    kill::{
        Proof,
        progress::{Member, View},
    },
    record::network::KillRecord,
};

/// The most members of one kill that are shown: an answer stays under the 4 MiB that clients take.
pub(super) const MOST_SHOWN: usize = 8000;
/// The most of each when kills are listed.
pub(super) const MOST_LISTED: usize = 250;

/// A kill with how far it has come. With more than `most` members, those that are not done come first, and how many are
/// left out is a caution.
pub(super) fn shown(desk: &Desk, record: &KillRecord, view: &View, most: usize) -> wire::Kill {
    let lifted = record.lifted.as_ref();
    let host = view.host.as_ref();
    let mut kill = wire::Kill {
        id: record.id.clone(),
        scope: scope_of(&record.scope).into(),
        subject: shown_subject(desk, &record.scope),
        by: record.by.clone(),
        reason: record.reason.clone(),
        at: Some(to_wire_time(record.at)),
        lifted_at: lifted.map(|lifted| to_wire_time(lifted.at)),
        lifted_by: lifted.map(|lifted| lifted.by.clone()).unwrap_or_default(),
        lifted_because: lifted.map(|lifted| lifted.reason.clone()).unwrap_or_default(),
        members: Vec::new(),
        done: view.done,
        banned: host.map(|host| proof(host.banned)),
        shard_removed: host.map(|host| proof(host.shard_removed)),
        cautions: view.cautions.clone(),
    };
    let mut members: Vec<&Member> = view.members.iter().collect();
    if members.len() > most {
        let all = members.len();
        members.sort_by_key(|member| member.standing.done);
        members.truncate(most);
        kill.cautions.push(format!(
            "{} of {all} members are not shown here; those that are not done come first",
            all - most
        ));
    }
    kill.members = members.into_iter().map(member).collect();
    kill
}

fn member(member: &Member) -> wire::KilledMember {
    let standing = &member.standing;
    wire::KilledMember {
        network_id: member.network.to_string(),
        node_id: member.node.to_string(),
        name: member.name.clone(),
        deauthorized: Some(proof(standing.deauthorized)),
        left: Some(proof(standing.left)),
        silent: Some(proof(standing.silent)),
        unconfirmed_until: standing.unconfirmed_until.map(to_wire_time),
        problem: standing.problem.clone(),
    }
}

fn proof(proof: Proof) -> wire::Proof {
    let (state, at) = match proof {
        Proof::None => (wire::ProofState::None, None),
        Proof::Waiting => (wire::ProofState::Waiting, None),
        Proof::Confirmed(at) => (wire::ProofState::Confirmed, Some(at)),
        Proof::Unreachable => (wire::ProofState::Unreachable, None),
    };
    wire::Proof {
        state: state.into(),
        at: at.map(to_wire_time),
    }
}
