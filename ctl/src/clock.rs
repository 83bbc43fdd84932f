//! `picketctl clock`: the master's time.

use clap::Subcommand;
use jiff::{SignedDuration, Timestamp};
use picket_proto::{from_wire_time, wire::admin as wire};
use serde::Serialize;

use crate::{
    desk::Desk,
    fault::{About, Fault},
    print::{Cell, Named, Page, Tone, View},
    words::to_the_second,
};

const SEE: &str = "picketctl clock show";

/// What can be done with the master's clock.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show the time the master goes by, and whether it believes its machine's clock
    #[command(after_help = "Example:\n  picketctl clock show")]
    Show,
    /// Take the clock of the master's machine for right after it jumped
    #[command(
        long_about = "Take the clock of the master's machine for right after it jumped.\n\n\
            While it is not believed nothing is approved, and time goes on by what has passed since the machine started. \
            Set a clock that is wrong; that needs no word of yours. Where the clock is behind the master's time, that \
            stands still until the clock has caught up, unless you let it go back.",
        after_help = "Examples:\n  picketctl clock accept --reason 'the machine had booted with a wrong clock'\n  \
            picketctl clock accept --go-back --reason 'the clock was a year ahead'"
    )]
    Accept {
        /// Why, for the audit
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Let the master's time go back: what has ended since may hold again
        #[arg(long)]
        go_back: bool,
    },
}

pub(crate) async fn run(verb: Verb, desk: &mut Desk) -> Result<(), Fault> {
    match verb {
        Verb::Show => {
            let about = About::reading("show the clock", SEE);
            let mut clock = desk.clocks().await?;
            let answer = desk
                .call(&about, clock.get_clock(wire::GetClockRequest {}))
                .await?;
            let clock = MasterClock::from(answer.clock.unwrap_or_default());
            desk.print.show(&clock, desk.clock.now())
        }
        Verb::Accept { reason, go_back } => {
            let about = About::changing("accept the clock", SEE);
            let mut clock = desk.clocks().await?;
            let request = wire::AcceptClockRequest { reason, go_back };
            let answer = desk.call(&about, clock.accept_clock(request)).await?;
            let clock = MasterClock::from(answer.clock.unwrap_or_default());
            let sentence = clock.sentence();
            desk.print.done(&clock, &sentence)
        }
    }
}

/// Two times of one moment.
#[derive(Debug, Serialize)]
struct MasterClock {
    time: Option<Timestamp>,
    machine_time: Option<Timestamp>,
    ahead_seconds: Option<i64>,
    held: bool,
    held_since: Option<Timestamp>,
}

impl MasterClock {
    /// What there is to say of it.
    fn sentence(&self) -> String {
        if self.held {
            return "the machine's clock is not believed: nothing is approved until it is set right, or until \
                    `picketctl clock accept --reason REASON`"
                .to_owned();
        }
        match self.ahead_seconds {
            Some(ahead) if ahead < -1 => format!(
                "the machine's clock is believed; the master's time stands still for {} s, until the clock has caught up",
                -ahead
            ),
            Some(_) | None => "the machine's clock is believed".to_owned(),
        }
    }
}

impl From<wire::MasterClock> for MasterClock {
    fn from(clock: wire::MasterClock) -> Self {
        let time = clock.time.as_ref().and_then(from_wire_time);
        let machine_time = clock.machine_time.as_ref().and_then(from_wire_time);
        let ahead = time
            .zip(machine_time)
            .map(|(time, machine)| machine.duration_since(time));
        Self {
            time,
            machine_time,
            ahead_seconds: ahead.map(|ahead: SignedDuration| ahead.as_secs()),
            held: clock.held,
            held_since: clock.held_since.as_ref().and_then(from_wire_time),
        }
    }
}

impl Named for MasterClock {
    fn name(&self) -> String {
        "clock".to_owned()
    }
}

impl View for MasterClock {
    fn page(&self, _: Timestamp) -> Page {
        let mut page = Page::default();
        let tone = if self.held { Tone::Bad } else { Tone::Good };
        page.facts([
            ("Time", Cell::or_dash(self.time.map(to_the_second))),
            ("Machine", Cell::or_dash(self.machine_time.map(to_the_second))),
            (
                "Ahead",
                Cell::or_dash(self.ahead_seconds.map(|ahead| format!("{ahead} s"))),
            ),
            ("Held since", Cell::or_dash(self.held_since.map(to_the_second))),
            ("Standing", Cell::new(self.sentence(), tone)),
        ]);
        page
    }
}
