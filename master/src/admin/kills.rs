//! Kills: a prohibition that beats every permission, and the proof that it is true on the wire.

mod shown;
mod subject;

use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt as _};
use picket_proto::wire::admin::{
    self as wire, KillRequest, KillResponse, ListKillsRequest, ListKillsResponse, UnkillRequest,
    UnkillResponse, WatchKillRequest, WatchKillResponse, kill_service_server::KillService,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use self::{
    shown::{MOST_LISTED, MOST_SHOWN, shown},
    subject::{killed, subject, words},
};
use super::reason;
use crate::{
    ban,
    caller::operator,
    desk::{Actor, Desk},
    event::Severity,
    kill::{
        counted,
        progress::{self, View},
        say::scope_word,
    },
    membership::{Because, Decision},
    networks::Kept,
    record::{
        HostRecord, HostStanding, Record as _, Revocation, key,
        network::{KillRecord, KillScope, NetworkMode},
    },
    refused::Refused,
    store::{CommitError, Guard},
};

/// What ids are made of: nothing that reads like something else.
const ALPHABET: &[u8] = b"23456789abcdefghjkmnpqrstuvwxyz";
/// How often a change is tried again when the same host is changed meanwhile.
const MOST_TRIES: usize = 16;

/// The service, over the desk.
#[derive(Debug)]
pub struct KillSwitch {
    /// The desk.
    pub desk: Arc<Desk>,
    /// Fires when the master stops: watchers are told goodbye.
    pub stop: CancellationToken,
}

#[tonic::async_trait]
impl KillService for KillSwitch {
    async fn kill(&self, request: Request<KillRequest>) -> Result<Response<KillResponse>, Status> {
        let actor = operator(&self.desk, &request)?;
        let asked = request.into_inner();
        let (scope, reason) = (
            subject(&self.desk, asked.scope, &asked.subject)?,
            reason(&asked.reason)?,
        );
        let kill = if asked.drill {
            self.drill(&actor, scope, reason)
        } else {
            self.make(&actor, scope, reason).await?
        };
        Ok(Response::new(KillResponse { kill: Some(kill) }))
    }

    type WatchKillStream = BoxStream<'static, Result<WatchKillResponse, Status>>;

    async fn watch_kill(
        &self,
        request: Request<WatchKillRequest>,
    ) -> Result<Response<Self::WatchKillStream>, Status> {
        operator(&self.desk, &request)?;
        let id = request.into_inner().id;
        current(&self.desk, &id)?;
        let changes = self.desk.kills.watch();
        let start = (Arc::clone(&self.desk), id, changes, None, false);
        let stream = stream::unfold(start, |(desk, id, mut changes, last, over)| async move {
            if over {
                return None;
            }
            loop {
                changes.mark_unchanged();
                let kill = match current(&desk, &id) {
                    Ok(kill) => kill,
                    Err(refused) => return Some((Err(refused.into()), (desk, id, changes, last, true))),
                };
                if last.as_ref() != Some(&kill) {
                    let over = kill.done || kill.lifted_at.is_some();
                    let answer = WatchKillResponse {
                        kill: Some(kill.clone()),
                    };
                    return Some((Ok(answer), (desk, id, changes, Some(kill), over)));
                }
                if changes.changed().await.is_err() {
                    return None;
                }
            }
        });
        let stream = stream.take_until(self.stop.clone().cancelled_owned());
        Ok(Response::new(Box::pin(stream)))
    }

    async fn list_kills(
        &self,
        request: Request<ListKillsRequest>,
    ) -> Result<Response<ListKillsResponse>, Status> {
        operator(&self.desk, &request)?;
        let lifted = request.into_inner().lifted;
        let mut records: Vec<_> = {
            let views = self.desk.views.read();
            let kills = views.networks.kills().map(|kill| &kill.record);
            let wanted = kills.filter(|kill| lifted || kill.lifted.is_none());
            wanted.cloned().collect()
        };
        records.sort_by(|a, b| a.at.cmp(&b.at).then(a.id.cmp(&b.id)));
        let shown = |record: KillRecord| {
            let view = self.desk.kills.view(&record.id).unwrap_or_default();
            shown(&self.desk, &record, &view, MOST_LISTED)
        };
        Ok(Response::new(ListKillsResponse {
            kills: records.into_iter().map(shown).collect(),
        }))
    }

    async fn unkill(&self, request: Request<UnkillRequest>) -> Result<Response<UnkillResponse>, Status> {
        let actor = operator(&self.desk, &request)?;
        let asked = request.into_inner();
        let why = reason(&asked.reason)?;
        self.desk.may_approve()?;
        let kill = killed(&self.desk, asked.scope, &asked.subject)?;
        let kill = self.lift(&actor, kill, why).await?;
        Ok(Response::new(UnkillResponse { kill: Some(kill) }))
    }
}

impl KillSwitch {
    /// What a kill would be. A kill of the same scope that holds already is that one.
    fn drill(&self, actor: &Actor, scope: KillScope, reason: String) -> wire::Kill {
        let desk = &self.desk;
        let holds = desk.views.read().networks.kill_of(&scope).cloned();
        if let Some(kill) = holds {
            let view = desk.kills.view(&kill.record.id).unwrap_or_default();
            return shown(desk, &kill.record, &view, MOST_SHOWN);
        }
        let (_, view) = progress::drill(desk, &scope);
        let record = KillRecord {
            id: String::new(),
            scope,
            by: actor.name().to_owned(),
            reason,
            at: desk.now(),
            banned: false,
            lifted: None,
        };
        shown(desk, &record, &view, MOST_SHOWN)
    }

    /// Makes a kill. The second of a scope is the first, and bans its host again when somebody let that in.
    async fn make(&self, actor: &Actor, scope: KillScope, reason: String) -> Result<wire::Kill, Refused> {
        let desk = &self.desk;
        // Two at once are one: no guard names a kill by its scope.
        let _turn = desk.kills.turn.lock().await;
        let (members, _) = progress::drill(desk, &scope);
        for _ in 0..MOST_TRIES {
            let holds = desk.views.read().networks.kill_of(&scope).cloned();
            let host = match scope {
                KillScope::Host(id) => desk
                    .store
                    .get(&key::host(id))?
                    .map(|entry| HostRecord::of(&entry).map(|record| (record, entry.revision)))
                    .transpose()?,
                KillScope::Node(_) | KillScope::Network(_) | KillScope::Owner(_) | KillScope::All => None,
            };
            let mut kill = match &holds {
                Some(kill) => kill.record.clone(),
                None => KillRecord {
                    id: new_id(),
                    scope: scope.clone(),
                    by: actor.name().to_owned(),
                    reason: reason.clone(),
                    at: desk.now(),
                    banned: false,
                    lifted: None,
                },
            };
            let at = key::kill(&kill.id);
            let mut guards = vec![match &holds {
                Some(kill) => Guard::At(at, kill.revision),
                None => Guard::Absent(at),
            }];
            let mut banned = None;
            let mut writes = Vec::new();
            if let Some((mut host, revision)) = host {
                guards.push(Guard::At(key::host(host.id), revision));
                // By the kill's own time: that is how lifting it knows its own ban.
                if ban::ban(&mut host, kill.at, &reason) {
                    kill.banned = true;
                    writes.push(host.put());
                    banned = Some(host.name);
                }
            }
            if holds.is_some() && writes.is_empty() {
                return current(desk, &kill.id);
            }
            writes.push(kill.put());
            let what = format!("kill.{}", scope_word(&scope));
            let about = words(desk, &scope);
            match desk
                .commit(guards, writes, actor.does(&what, &about, &reason))
                .await
            {
                Ok(_) => {}
                Err(CommitError::Conflict { .. }) => continue,
                Err(error) => return Err(error.into()),
            }
            if let Some(name) = banned {
                ban::say_banned(desk, name.as_str(), actor.name(), &reason);
            }
            if holds.is_none() {
                let count = counted(members.len(), "member", "members");
                let message = format!(
                    "{about} killed by {} (kill {}, {count}): {reason}",
                    actor.name(),
                    kill.id
                );
                desk.say(Severity::Alert, "kill", &about, &message);
            }
            desk.kills.begin(&kill.id, members);
            progress::look(desk);
            return current(desk, &kill.id);
        }
        Err(Refused::NotNow(
            "the host is being changed by many at once; kill it again".to_owned(),
        ))
    }

    /// Lifts a kill: what the grants say holds again. Lifting one that was lifted changes nothing.
    async fn lift(&self, actor: &Actor, kill: Kept<KillRecord>, why: String) -> Result<wire::Kill, Refused> {
        let desk = &self.desk;
        if kill.record.lifted.is_some() {
            return Ok(shown(desk, &kill.record, &View::default(), MOST_SHOWN));
        }
        let _turn = desk.kills.turn.lock().await;
        let view = desk.kills.view(&kill.record.id).unwrap_or_default();
        for _ in 0..MOST_TRIES {
            let entry = desk.store.get(&key::kill(&kill.record.id))?;
            let entry = entry.ok_or_else(|| subject::unknown(&kill.record.id))?;
            let mut record = KillRecord::of(&entry)?;
            if record.lifted.is_some() {
                return Ok(shown(desk, &record, &View::default(), MOST_SHOWN));
            }
            record.lifted = Some(Revocation {
                at: desk.now(),
                by: actor.name().to_owned(),
                reason: why.clone(),
            });
            let mut guards = vec![Guard::At(key::kill(&record.id), entry.revision)];
            let mut writes = vec![record.put()];
            let mut let_in = None;
            if let KillScope::Host(id) = record.scope
                && record.banned
                && let Some(entry) = desk.store.get(&key::host(id))?
            {
                let mut host = HostRecord::of(&entry)?;
                let ours = matches!(host.standing, HostStanding::Banned { at, .. } if at == record.at);
                if ours && ban::unban(&mut host) {
                    guards.push(Guard::At(key::host(id), entry.revision));
                    writes.push(host.put());
                    let_in = Some(host.name);
                }
            }
            let about = words(desk, &record.scope);
            match desk
                .commit(guards, writes, actor.does("kill.lift", &about, &why))
                .await
            {
                Ok(_) => {}
                Err(CommitError::Conflict { .. }) => continue,
                Err(error) => return Err(error.into()),
            }
            if let Some(name) = let_in {
                ban::say_unbanned(desk, name.as_str(), actor.name(), &why);
            }
            let message = format!("kill {} of {about} lifted by {}: {why}", record.id, actor.name());
            desk.say(Severity::Notice, "kill.lifted", &about, &message);
            progress::look(desk);
            let mut kill = shown(desk, &record, &View::default(), MOST_SHOWN);
            kill.cautions = remains(desk, &record.scope, &view);
            return Ok(kill);
        }
        Err(Refused::NotNow(
            "the host is being changed by many at once; lift the kill again".to_owned(),
        ))
    }
}

/// What lifting a kill does not bring back.
fn remains(desk: &Desk, scope: &KillScope, before: &View) -> Vec<String> {
    let views = desk.views.read();
    let now = desk.now();
    let pairs = before.members.iter().map(|member| (member.network, member.node));
    let mut cautions = Vec::new();
    if let KillScope::Host(id) = scope
        && let Some(host) = views.roster.host(*id).map(|host| &host.record)
    {
        let name = &host.name;
        match &host.standing {
            HostStanding::Active => {}
            HostStanding::Banned { reason, .. } => cautions.push(format!(
                "host {name} stays banned, which the kill did not do: {reason}; `picketctl host unban {name}` lets it in"
            )),
            HostStanding::Retired { .. } => cautions.push(format!("host {name} is retired, and stays that")),
        }
    }
    let mut others = std::collections::BTreeMap::<String, usize>::new();
    let mut observed = std::collections::BTreeMap::<_, usize>::new();
    for (network, node) in pairs {
        match views.networks.decide(&views.roster, network, node, now) {
            Decision::Denied(Because::Killed { id, .. }) => *others.entry(id).or_default() += 1,
            Decision::Authorized { .. } => {
                let mode = views.networks.network(network).map(|kept| kept.record.mode);
                if mode == Some(NetworkMode::Observe) {
                    *observed.entry(network).or_default() += 1;
                }
            }
            Decision::Denied(_) | Decision::Unknown => {}
        }
    }
    for (id, count) in others {
        let members = counted(count, "member stays killed", "members stay killed");
        cautions.push(format!("{members} by kill {id}"));
    }
    for (network, count) in observed {
        let members = counted(count, "member", "members");
        cautions.push(format!(
            "network {network} is only observed, so the {members} that its grants admit are not authorized there again; do it \
             at the controller, or run `picketctl network enforce {network}`"
        ));
    }
    cautions
}

/// A kill as it stands.
fn current(desk: &Desk, id: &str) -> Result<wire::Kill, Refused> {
    let record = {
        let views = desk.views.read();
        views.networks.kill(id).map(|kill| kill.record.clone())
    };
    let record = record.ok_or_else(|| subject::unknown(id))?;
    let view = desk.kills.view(id).unwrap_or_default();
    Ok(shown(desk, &record, &view, MOST_SHOWN))
}

/// 8 characters that can be read out.
fn new_id() -> String {
    let letter = |_| char::from(ALPHABET[fastrand::usize(..ALPHABET.len())]);
    (0..8).map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_eight_characters_that_can_be_read_out() {
        let ids: std::collections::BTreeSet<_> = (0..100).map(|_| new_id()).collect();
        assert_eq!(ids.len(), 100);
        for id in ids {
            assert_eq!(id.len(), 8, "{id}");
            assert!(!id.contains(['0', '1', 'i', 'l', 'o']), "{id}");
        }
    }
}
