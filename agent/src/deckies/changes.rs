//! When it is time to look at Docker again.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt as _, StreamExt as _, stream::BoxStream};
use picket_backoff::Backoff;
use tokio::time;

use super::{
    Owner,
    engine::{Engine, EngineError},
};

/// Between attempts to listen to an engine that went away.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const MOST_WAIT: Duration = Duration::from_secs(5);
/// A stream that lasted this long was a success.
const LASTED: Duration = Duration::from_secs(30);
/// Changes that are there already and told as one.
const MOST_AT_ONCE: usize = 1024;

/// Tells when something of ours changed in Docker, or Docker itself went or came.
pub struct Changes {
    engine: Arc<dyn Engine>,
    owner: Owner,
    stream: Option<BoxStream<'static, Result<(), EngineError>>>,
    backoff: Backoff,
    again: Option<time::Instant>,
    /// When the stream was opened.
    opened: Option<time::Instant>,
    /// The stream has said something.
    greeted: bool,
    /// Docker answered when it was last listened to, or nobody has listened yet.
    answering: bool,
}

impl Changes {
    /// Listens to `engine` about the objects of `owner`, from the first [`Changes::changed`] on.
    #[must_use]
    pub fn new(engine: Arc<dyn Engine>, owner: Owner) -> Self {
        let backoff = Backoff::new(FIRST_WAIT, MOST_WAIT);
        Self {
            engine,
            owner,
            stream: None,
            backoff,
            again: None,
            opened: None,
            greeted: false,
            answering: true,
        }
    }

    /// Returns when something changed; several changes at once are one. Can be dropped and called again.
    pub async fn changed(&mut self) {
        loop {
            if let Some(again) = self.again {
                time::sleep_until(again).await;
                self.again = None;
            }
            let stream = match &mut self.stream {
                Some(stream) => stream,
                None => self.stream.insert(self.engine.events(&self.owner)),
            };
            let opened = *self.opened.get_or_insert_with(time::Instant::now);
            if let Some(Ok(())) = stream.next().await {
                // The first word of a stream only says that it listens. An engine that answers and hangs up again and
                // again is not back.
                if std::mem::replace(&mut self.greeted, true) || opened.elapsed() >= LASTED {
                    self.backoff.reset();
                }
                self.answering = true;
                for _ in 0..MOST_AT_ONCE {
                    if !matches!(stream.next().now_or_never(), Some(Some(Ok(())))) {
                        break;
                    }
                }
                return;
            }
            if opened.elapsed() >= LASTED {
                self.backoff.reset();
            }
            self.stream = None;
            self.opened = None;
            self.greeted = false;
            self.again = Some(time::Instant::now() + self.backoff.next_wait());
            if std::mem::replace(&mut self.answering, false) {
                // Docker went away: that is a change. That it is still away is none.
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use picket_clock::Clock;

    use super::*;
    use crate::deckies::{
        fake::FakeEngine,
        form::BaseImage,
        pass::Deckies,
        plan::tests::{allowed, owner, shard},
    };

    #[tokio::test(start_paused = true)]
    async fn a_change_behind_our_back_is_told_and_somebody_elses_is_not() {
        let engine = Arc::new(FakeEngine::new());
        engine.load_image("picket-decoy:latest");
        let mut deckies = Deckies::new(
            engine.clone(),
            owner(),
            BaseImage::default(),
            allowed(),
            Clock::system(),
        );
        let mut changes = deckies.changes();
        assert!(changes.changed().now_or_never().is_none());
        deckies.pass(&shard(1)).await;
        changes
            .changed()
            .now_or_never()
            .expect("our own steps are changes too");
        assert!(changes.changed().now_or_never().is_none(), "and told once");
        engine.run_foreign("nextcloud");
        engine.kill("nextcloud");
        assert!(changes.changed().now_or_never().is_none());
        engine.kill("picket-6f1c2a52-decky-00_ssh");
        changes.changed().now_or_never().expect("a service died");
        engine.go_away();
        changes.changed().now_or_never().expect("Docker went away");
        assert!(
            time::timeout(Duration::from_secs(60), changes.changed())
                .await
                .is_err(),
            "that is told once"
        );
        engine.come_back();
        let kill_when_listening = async {
            time::sleep(MOST_WAIT).await;
            engine.kill("picket-6f1c2a52-decky-00_http");
        };
        let told = time::timeout(MOST_WAIT * 3, async {
            tokio::join!(changes.changed(), kill_when_listening)
        });
        told.await.expect("it listens again");
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_hangs_up_again_and_again_is_listened_to_seldom() {
        let engine = Arc::new(FakeEngine::new());
        engine.hang_up();
        let mut changes = Changes::new(engine, owner());
        let mut told = 0;
        let minute = time::timeout(Duration::from_secs(60), async {
            loop {
                changes.changed().await;
                told += 1;
            }
        });
        assert!(minute.await.is_err());
        // Twice for each time it is listened to, which is every 2.5 s on average; a wait that is reset gives hundreds.
        assert!((4..150).contains(&told), "{told}");
    }
}
