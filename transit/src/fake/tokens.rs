//! The tokens of the simulated server.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// `update` on `transit/sign/*`, `read` on `transit/keys/*`, and what `default` gives.
    Sign,
    /// `read` on `transit/keys/*` alone, and what `default` gives.
    Read,
    /// What `default` gives: to look at itself and renew itself.
    Default,
}

/// How long a token lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// For ever, as a root token.
    Endless,
    /// For this long; nothing gives it more.
    Fixed(Duration),
    /// For this long after each renewal, for ever.
    Periodic(Duration),
    /// For this long after each renewal, and never longer than the second time after it was made.
    Renewable(Duration, Duration),
}

#[derive(Default)]
pub(super) struct Tokens {
    tokens: BTreeMap<String, Token>,
    made: u64,
}

struct Token {
    policy: Policy,
    life: Life,
    made: Timestamp,
    ends: Option<Timestamp>,
}

fn after(now: Timestamp, span: Duration) -> Timestamp {
    now.saturating_add(span).unwrap_or(Timestamp::MAX)
}

impl Token {
    fn ttl(&self, now: Timestamp) -> Option<Duration> {
        let Some(ends) = self.ends else {
            return Some(Duration::ZERO);
        };
        let left = ends.duration_since(now);
        (left > SignedDuration::ZERO).then(|| left.unsigned_abs())
    }
}

impl Tokens {
    pub(super) fn make(&mut self, policy: Policy, life: Life, now: Timestamp) -> String {
        self.made += 1;
        let ends = match life {
            Life::Endless => None,
            Life::Fixed(span) | Life::Periodic(span) | Life::Renewable(span, _) => Some(after(now, span)),
        };
        let name = format!("hvs.CAESIsecret-of-the-fake-{:04}", self.made);
        let token = Token {
            policy,
            life,
            made: now,
            ends,
        };
        self.tokens.insert(name.clone(), token);
        name
    }

    pub(super) fn revoke(&mut self, token: &str) {
        self.tokens.remove(token);
    }

    pub(super) fn ttl(&self, token: &str, now: Timestamp) -> Option<Duration> {
        self.tokens.get(token)?.ttl(now)
    }

    /// The policy of a token that has not ended.
    pub(super) fn policy(&self, token: &str, now: Timestamp) -> Option<Policy> {
        let token = self.tokens.get(token)?;
        token.ttl(now).map(|_| token.policy)
    }

    /// `GET /auth/token/lookup-self`.
    pub(super) fn look(&self, name: &str, now: Timestamp) -> Option<Value> {
        let token = self.tokens.get(name)?;
        let ttl = token.ttl(now)?;
        let (creation, renewable) = match token.life {
            Life::Endless => (Duration::ZERO, false),
            Life::Fixed(span) => (span, false),
            Life::Periodic(span) | Life::Renewable(span, _) => (span, true),
        };
        let mut about = json!({
            "accessor": "8609694a-cdbc-db9b-d345-e782dbb562ed",
            "creation_time": token.made.as_second(),
            "creation_ttl": creation.as_secs(),
            "display_name": "token",
            "entity_id": "",
            "expire_time": token.ends.map(|ends| ends.to_string()),
            "explicit_max_ttl": 0,
            "id": name,
            "meta": null,
            "num_uses": 0,
            "orphan": true,
            "path": "auth/token/create",
            "policies": ["default"],
            "renewable": renewable,
            "ttl": ttl.as_secs(),
            "type": "service",
        });
        if let Life::Periodic(span) = token.life {
            about["period"] = json!(span.as_secs());
        }
        Some(about)
    }

    /// `POST /auth/token/renew-self`; a refusal is a status and its text.
    pub(super) fn renew(&mut self, name: &str, now: Timestamp) -> Result<Value, (u16, String)> {
        let token = self
            .tokens
            .get_mut(name)
            .ok_or((403, "permission denied".to_owned()))?;
        let (ends, renewable) = match token.life {
            Life::Endless | Life::Fixed(_) => return Err((400, "lease is not renewable".to_owned())),
            Life::Periodic(span) => (after(now, span), true),
            Life::Renewable(span, most) => (after(now, span).min(after(token.made, most)), true),
        };
        token.ends = Some(ends);
        let lease = ends.duration_since(now).unsigned_abs();
        Ok(json!({
            "accessor": "8609694a-cdbc-db9b-d345-e782dbb562ed",
            "client_token": name,
            "entity_id": "",
            "lease_duration": lease.as_secs(),
            "metadata": null,
            "orphan": true,
            "policies": ["default"],
            "renewable": renewable,
            "token_policies": ["default"],
            "token_type": "service",
        }))
    }
}
