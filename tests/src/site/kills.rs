//! What an operator kills, lifts, and sees of it.

use picket_proto::wire::admin::{
    Kill, KillRequest, KillScope, KilledMember, ListKillsRequest, UnkillRequest, WatchKillRequest,
    WatchKillResponse, kill_service_client::KillServiceClient,
};
use picket_zerotier::NodeId;
use tokio::time;
use tonic::{Status, Streaming};

use super::{PATIENCE, Site, until};

impl Site {
    /// Kills.
    ///
    /// # Errors
    /// What the master refuses.
    pub async fn try_kill(&self, scope: KillScope, subject: impl ToString) -> Result<Kill, Status> {
        self.ask_kill(scope, subject.to_string(), false).await
    }

    /// Kills.
    pub async fn kill(&self, scope: KillScope, subject: impl ToString) -> Kill {
        let killed = self.try_kill(scope, subject).await;
        killed.unwrap_or_else(|status| panic!("kill: {}", status.message()))
    }

    /// Asks what a kill would do.
    pub async fn drill(&self, scope: KillScope, subject: impl ToString) -> Kill {
        let drilled = self.ask_kill(scope, subject.to_string(), true).await;
        drilled.unwrap_or_else(|status| panic!("drill: {}", status.message()))
    }

    async fn ask_kill(&self, scope: KillScope, subject: String, drill: bool) -> Result<Kill, Status> {
        let asked = KillRequest {
            scope: scope.into(),
            subject,
            reason: "a story".to_owned(),
            drill,
        };
        let answer = self
            .ask(async |channel| KillServiceClient::new(channel).kill(asked).await)
            .await?;
        Ok(answer.kill.expect("an answer has a kill"))
    }

    /// Lifts a kill.
    ///
    /// # Errors
    /// What the master refuses.
    pub async fn try_unkill(&self, scope: KillScope, subject: impl ToString) -> Result<Kill, Status> {
        let asked = UnkillRequest {
            scope: scope.into(),
            subject: subject.to_string(),
            reason: "a story".to_owned(),
        };
        let answer = self
            .ask(async |channel| KillServiceClient::new(channel).unkill(asked).await)
            .await?;
        Ok(answer.kill.expect("an answer has a kill"))
    }

    /// Lifts a kill.
    pub async fn unkill(&self, scope: KillScope, subject: impl ToString) -> Kill {
        let lifted = self.try_unkill(scope, subject).await;
        lifted.unwrap_or_else(|status| panic!("unkill: {}", status.message()))
    }

    /// The kills that hold, and those that were lifted when asked.
    pub async fn kills(&self, lifted: bool) -> Vec<Kill> {
        let asked = ListKillsRequest { lifted };
        self.told(async |channel| KillServiceClient::new(channel).list_kills(asked).await)
            .await
            .kills
    }

    /// A kill as it stands.
    pub async fn kill_by_id(&self, id: &str) -> Kill {
        let kills = self.kills(true).await;
        let found = kills.into_iter().find(|kill| kill.id == id);
        found.unwrap_or_else(|| panic!("there is no kill {id}"))
    }

    /// Waits until a kill stands so, and returns it.
    pub async fn until_kill(&self, id: &str, what: &str, is: impl Fn(&Kill) -> bool) -> Kill {
        until(&format!("kill {id} to be {what}"), async || {
            let kill = self.kill_by_id(id).await;
            if is(&kill) {
                Ok(kill)
            } else {
                Err(format!("{kill:#?}"))
            }
        })
        .await
    }

    /// Waits until nothing more of a kill is waited for, and returns it.
    pub async fn until_killed(&self, id: &str) -> Kill {
        self.until_kill(id, "done", |kill| kill.done).await
    }

    /// Watches a kill.
    pub async fn watch_kill(&self, id: &str) -> KillWatch {
        let asked = WatchKillRequest { id: id.to_owned() };
        let watch = async |channel| KillServiceClient::new(channel).watch_kill(asked).await;
        KillWatch(self.told(watch).await)
    }
}

/// A kill as it goes on.
pub struct KillWatch(Streaming<WatchKillResponse>);

impl KillWatch {
    /// Every look at it, until the stream ends.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn to_its_end(mut self) -> Vec<Kill> {
        let all = time::timeout(PATIENCE, async {
            let mut seen = Vec::new();
            while let Some(answer) = self.0.message().await.unwrap_or_else(|status| panic!("{status}")) {
                seen.extend(answer.kill);
            }
            seen
        });
        all.await
            .unwrap_or_else(|_| panic!("the stream does not end within {PATIENCE:?}"))
    }
}

/// What a kill says of a node.
///
/// # Panics
/// When it is not about that one, or about it on several networks.
#[must_use]
pub fn killed(kill: &Kill, node: NodeId) -> &KilledMember {
    let node = node.to_string();
    let mut members = kill.members.iter().filter(|member| member.node_id == node);
    let found = members
        .next()
        .unwrap_or_else(|| panic!("{node} is not killed: {kill:#?}"));
    assert!(members.next().is_none(), "{kill:#?}");
    found
}
