//! What the service manager is told: ready, alive, stopping. Without one, nothing.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::{sync::watch, time};
use tokio_util::sync::CancellationToken;

use crate::status::{Connection, State};

/// Tells the service manager how the agent is, and that it is alive when the unit asks, until `stop`.
pub(crate) async fn inform(mut connection: watch::Receiver<Connection>, stop: CancellationToken) {
    tell(&[NotifyState::Ready]);
    let mut micros = 0;
    let asked = sd_notify::watchdog_enabled(false, &mut micros);
    // Twice within the time the unit allows; without a watchdog, seldom.
    let every = if asked {
        Duration::from_micros(micros / 2)
    } else {
        Duration::from_secs(3600)
    };
    loop {
        let words = {
            let connection = connection.borrow_and_update();
            match (&connection.state, &connection.address, &connection.problem) {
                (State::Connected, Some(address), _) => format!("connected to {address}"),
                (_, _, Some(problem)) => problem.clone(),
                (State::Connecting, _, None) => "connecting".to_owned(),
                (_, _, None) => "not connected".to_owned(),
            }
        };
        tell(&[NotifyState::Status(&words)]);
        if asked {
            tell(&[NotifyState::Watchdog]);
        }
        tokio::select! {
            () = stop.cancelled() => break,
            seen = connection.changed() => if seen.is_err() { break },
            () = time::sleep(every) => {}
        }
    }
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, states) {
        tracing::debug!(%error, "the service manager could not be told");
    }
}
