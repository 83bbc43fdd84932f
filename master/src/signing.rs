//! What is told about the CA's key: that it lies in plain, that the engine which has it does not answer, that the token
//! for that engine ends.

use std::sync::Arc;

use picket_transit::{Health, TokenHealth};
use tokio_util::sync::CancellationToken;

use crate::{desk::Desk, event::Severity, signer::SignerError, status::chain};

/// Says at the start how the CA's key is kept when that is not as it should be, and then every change of the engine's
/// health, until `stop`.
pub(crate) async fn watch_signer(desk: Arc<Desk>, stop: CancellationToken) {
    if desk.signer.is_plain() {
        let message = "ca.key is not encrypted: whoever reads the data directory or a backup of it can sign; \
                       `picket-master ca-key encrypt` encrypts it";
        desk.say(Severity::Warning, "ca.plain-key", "ca", message);
    }
    let Some(mut health) = desk.signer.health() else {
        return stop.cancelled().await;
    };
    let looked = tokio::select! {
        () = stop.cancelled() => return,
        looked = desk.signer.sign(|signer| signer.look()) => looked,
    };
    say_look(&desk, looked);
    let mut told = Health::default();
    loop {
        let seen = health.borrow_and_update().clone();
        for (severity, kind, message) in news(&told, &seen) {
            desk.say(severity, kind, "ca", &message);
        }
        told = seen;
        tokio::select! {
            () = stop.cancelled() => return,
            changed = health.changed() => if changed.is_err() {
                // The engine's thread is gone; every signature says so.
                return stop.cancelled().await;
            },
        }
    }
}

fn say_look(desk: &Desk, looked: Result<Vec<&'static str>, SignerError>) {
    match looked {
        Ok(loose) if loose.is_empty() => {}
        Ok(loose) => {
            let message = format!(
                "the CA's key in the transit engine can be taken out or deleted there ({}); make the next one without",
                loose.join(", ")
            );
            desk.say(Severity::Warning, "ca.loose-key", "ca", &message);
        }
        Err(error) => {
            let message = format!(
                "the CA's key cannot be used: {}; hosts go on, and no certificate is issued until it can",
                chain(&error)
            );
            desk.say(Severity::Alert, "ca.signing", "ca", &message);
        }
    }
}

/// What to say when the engine's health turned from `before` to `after`.
fn news(before: &Health, after: &Health) -> Vec<(Severity, &'static str, String)> {
    let mut news = Vec::new();
    match (&before.token, &after.token) {
        (before, after) if before == after => {}
        (_, TokenHealth::Unknown) | (TokenHealth::Unknown, TokenHealth::Good) => {}
        (_, TokenHealth::Good) => {
            news.push((
                Severity::Notice,
                "ca.token",
                "the token for the transit engine is good again".to_owned(),
            ));
        }
        (_, TokenHealth::Ends { at, soon }) => {
            let severity = if *soon { Severity::Alert } else { Severity::Warning };
            let message = format!(
                "the token for the transit engine ends at {at} and cannot be renewed; put another in its file before"
            );
            news.push((severity, "ca.token", message));
        }
        (_, TokenHealth::Lost(why)) => news.push((Severity::Alert, "ca.token", why.clone())),
    }
    match (&before.signing, &after.signing) {
        (None, Some(why)) => news.push((
            Severity::Alert,
            "ca.signing",
            format!("a certificate could not be signed: {why}"),
        )),
        (Some(_), None) => {
            news.push((
                Severity::Notice,
                "ca.signing",
                "certificates are signed again".to_owned(),
            ));
        }
        (Some(_), Some(_)) | (None, None) => {}
    }
    news
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn health(token: TokenHealth, signing: Option<&str>) -> Health {
        Health {
            token,
            signing: signing.map(str::to_owned),
        }
    }

    #[test]
    fn a_good_start_is_no_news_and_every_turn_is() {
        let told = |before: &Health, after: &Health| -> Vec<_> {
            news(before, after)
                .into_iter()
                .map(|(severity, kind, _)| (severity, kind))
                .collect()
        };
        let (start, good) = (Health::default(), health(TokenHealth::Good, None));
        assert!(told(&start, &good).is_empty());
        let at = Timestamp::UNIX_EPOCH;
        let (early, late) = (
            health(TokenHealth::Ends { at, soon: false }, None),
            health(TokenHealth::Ends { at, soon: true }, None),
        );
        assert_eq!(told(&good, &early), [(Severity::Warning, "ca.token")]);
        assert_eq!(told(&early, &late), [(Severity::Alert, "ca.token")]);
        let lost = health(TokenHealth::Lost("refused".to_owned()), Some("refused"));
        assert_eq!(
            told(&late, &lost),
            [(Severity::Alert, "ca.token"), (Severity::Alert, "ca.signing")]
        );
        assert!(told(&lost, &lost.clone()).is_empty());
        assert_eq!(
            told(&lost, &good),
            [(Severity::Notice, "ca.token"), (Severity::Notice, "ca.signing")]
        );
    }
}
