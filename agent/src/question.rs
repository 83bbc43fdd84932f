//! A question that one task asks another: it is answered by what that one does after it was asked.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, oneshot};

/// What came of it; the error is a sentence.
pub(crate) type Answer = Result<(), String>;

/// A question, at both of its ends. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Question(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Whoever waits. A session has one question open at a time, and those of sessions that ended are dropped.
    waiting: Mutex<Vec<oneshot::Sender<Answer>>>,
    asked: Notify,
}

impl Question {
    /// Asks, and waits for the answer.
    pub(crate) async fn ask(&self) -> Answer {
        let (answer, answered) = oneshot::channel();
        {
            let mut waiting = self.waiting();
            waiting.retain(|waits| !waits.is_closed());
            waiting.push(answer);
        }
        self.0.asked.notify_one();
        answered
            .await
            .unwrap_or_else(|_| Err("the agent stops".to_owned()))
    }

    /// Returns when somebody asks.
    pub(crate) async fn asked(&self) {
        self.0.asked.notified().await;
    }

    /// Takes those who wait. Whoever asks later is answered by what is done later.
    pub(crate) fn take(&self) -> Asked {
        Asked(mem::take(&mut *self.waiting()))
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<oneshot::Sender<Answer>>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Those who wait for one answer.
#[derive(Debug)]
pub(crate) struct Asked(Vec<oneshot::Sender<Answer>>);

impl Asked {
    /// Answers. Whoever is gone does not hear it.
    pub(crate) fn answer(self, answer: &Answer) {
        for waits in self.0 {
            drop(waits.send(answer.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::task::TaskTracker;

    use super::*;

    #[tokio::test]
    async fn whoever_asks_while_somebody_is_answered_is_answered_by_what_follows() {
        let question = Question::default();
        let (first, second) = (question.clone(), question.clone());
        let tasks = TaskTracker::new();
        let early = tasks.spawn(async move { first.ask().await });
        question.asked().await;
        let asked = question.take();
        let late = tasks.spawn(async move { second.ask().await });
        question.asked().await;
        asked.answer(&Ok(()));
        assert_eq!(early.await.unwrap(), Ok(()));
        question.take().answer(&Err("it is off".to_owned()));
        assert_eq!(late.await.unwrap(), Err("it is off".to_owned()));
    }
}
