//! What is told while something takes longer than a second: bars where a person looks on, plain lines elsewhere.

use std::{collections::BTreeMap, time::Duration};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use picket_clock::{Clock, Instant};

use crate::{print::Print, words::shown};

/// What takes no longer than this needs no progress.
const PATIENCE: Duration = Duration::from_secs(1);

/// How many bars fit on a screen; of the rest only changes are told.
const MOST_BARS: usize = 20;

/// Things that are under way, each by a name.
pub(crate) struct Progress {
    since: Instant,
    told: BTreeMap<String, String>,
    bars: Option<Bars>,
}

struct Bars {
    all: MultiProgress,
    each: BTreeMap<String, ProgressBar>,
}

impl Progress {
    pub(crate) fn begin(clock: &Clock, print: &Print) -> Self {
        let bars = print.draws().then(|| Bars {
            all: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()),
            each: BTreeMap::new(),
        });
        Self {
            since: clock.monotonic(),
            told: BTreeMap::new(),
            bars,
        }
    }

    /// How long it has taken.
    pub(crate) fn elapsed(&self, clock: &Clock) -> Duration {
        clock.monotonic().duration_since(self.since)
    }

    /// Tells how each of these stands, where that has changed.
    pub(crate) fn tell<'a>(
        &mut self,
        clock: &Clock,
        print: &mut Print,
        states: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) {
        if self.elapsed(clock) < PATIENCE {
            return;
        }
        for (name, state) in states {
            if self.told.get(name).is_some_and(|told| told == state) {
                continue;
            }
            self.told.insert(name.to_owned(), state.to_owned());
            let line = format!("{}: {}", shown(name), shown(state));
            match &mut self.bars {
                Some(bars) => bars.tell(name, line),
                None => print.note(&line),
            }
        }
    }

    /// Takes the bars off the screen.
    pub(crate) fn end(self) {
        if let Some(bars) = self.bars {
            bars.each.values().for_each(ProgressBar::finish_and_clear);
        }
    }
}

impl Bars {
    fn tell(&mut self, name: &str, line: String) {
        if let Some(bar) = self.each.get(name) {
            bar.set_message(line);
        } else if self.each.len() < MOST_BARS {
            let bar = self.all.add(ProgressBar::new_spinner().with_message(line));
            bar.set_style(ProgressStyle::default_spinner());
            bar.enable_steady_tick(Duration::from_millis(120));
            self.each.insert(name.to_owned(), bar);
        } else {
            // A screen that is full scrolls; a line above the bars is as good. A terminal that is gone reads nothing.
            drop(self.all.println(line));
        }
    }
}
