//! Crashes at named points: what was on the disk at that moment is what the daemon starts from, and not a byte that it
//! would have sent later has left it.
//!
//! The process that runs the story cannot be killed, so a crash is these three: the daemon's directory is copied at the
//! point, its lines are cut there, and whatever the daemon does later is done to a directory that is thrown away.

use std::{
    fs,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use picket_failpoint::{Armed, Point, arm};

use crate::{host::Host, site::Site};

/// A crash that is to happen, or has.
#[derive(Debug)]
pub struct Crash {
    _armed: Armed,
    happened: Arc<AtomicBool>,
    /// The directory that the daemon uses.
    used: PathBuf,
    /// What was in it at the point.
    kept: PathBuf,
}

impl Crash {
    fn new(used: PathBuf, point: Point, before: u32, cut: impl FnOnce() + Send + 'static) -> Self {
        let kept = used.with_extension("crashed");
        let (from, to) = (used.clone(), kept.clone());
        let happened = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&happened);
        let armed = arm(point, before, move || {
            copy(&from, &to);
            // The copy is whole, and nobody has noticed anything yet.
            told.store(true, Ordering::Release);
            cut();
        });
        Self {
            _armed: armed,
            happened,
            used,
            kept,
        }
    }

    /// Whether it has happened.
    #[must_use]
    pub fn happened(&self) -> bool {
        self.happened.load(Ordering::Acquire)
    }

    /// Puts the directory back as it was.
    fn restore(self) {
        if self.used.exists() {
            fs::remove_dir_all(&self.used).expect("the story's directory is its own");
        }
        if self.kept.exists() {
            fs::rename(&self.kept, &self.used).expect("and so is the copy");
        }
    }
}

impl Host {
    /// Has the agent, or its enrolment, crash at a point that it passed `before` times.
    #[must_use]
    pub fn crashes_at(&self, point: Point, before: u32) -> Crash {
        let line = self.line.clone();
        Crash::new(self.state(), point, before, move || line.cut())
    }

    /// The machine after a crash: nothing runs on it, and its line is whole.
    pub async fn after(&self, crash: Crash) {
        self.end().await;
        crash.restore();
        self.plug_in();
    }
}

impl Site {
    /// Has the master crash at a point that it passed `before` times.
    #[must_use]
    pub fn crashes_at(&self, point: Point, before: u32) -> Crash {
        let pipes = self.pipes.clone();
        Crash::new(self.data_dir(), point, before, move || pipes.cut())
    }

    /// The site with its master started again after a crash.
    pub async fn after(&self, crash: Crash) {
        self.end_master().await;
        crash.restore();
        self.pipes.mend();
        self.start_master().await;
    }
}

fn copy(from: &Path, to: &Path) {
    if !from.exists() {
        return;
    }
    picket_durable::create_private_dir(to).expect("a site's directory takes another one");
    for entry in fs::read_dir(from).expect("a daemon's directory can be read") {
        let entry = entry.expect("and listed");
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().expect("and looked at");
        if kind.is_dir() {
            copy(&path, &target);
        } else if kind.is_file() {
            // A temporary file may be gone since it was listed.
            drop(fs::copy(path, target));
        }
    }
}

/// A future that is dropped after it has waited so many times.
#[derive(Debug)]
pub struct Mortal<F> {
    future: Option<Pin<Box<F>>>,
    waits: u32,
}

impl<F: Future> Mortal<F> {
    /// `future`, dropped when it waits and has waited `waits` times before.
    pub fn new(future: F, waits: u32) -> Self {
        Self {
            future: Some(Box::pin(future)),
            waits,
        }
    }
}

impl<F: Future> Future for Mortal<F> {
    /// `None` when it was dropped.
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let future = self.future.as_mut().expect("nobody asks again after the end");
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if self.waits == 0 => {
                self.future = None;
                Poll::Ready(None)
            }
            Poll::Pending => {
                self.waits -= 1;
                Poll::Pending
            }
        }
    }
}
