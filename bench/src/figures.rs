//! What was measured of one server under one load, and the figures it makes.

use std::{fmt, time::Duration};

use comfy_table::{CellAlignment, Table, presets};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::process::Machine;

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The yardstick.
    Bare,
    /// `picket-master`.
    Master,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Bare => "bare",
            Self::Master => "master",
        })
    }
}

/// One run: the load, the raw numbers, and where they come from. One line of JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Which server.
    pub server: Kind,
    /// When it began.
    pub at: Timestamp,
    /// What was built.
    pub commit: String,
    /// Where.
    pub machine: Machine,
    /// The machine's load average before the run, and after.
    pub load: [f64; 2],
    /// How many hosts.
    pub hosts: u32,
    /// Of each.
    pub deckies: u16,
    /// Of each, the full one included.
    pub beats: u32,
    /// Between two beats of an agent; zero when flat out.
    pub interval_ms: u64,
    /// The raw numbers.
    pub raw: Raw,
}

/// Times in microseconds, memory in KiB; processor time and memory are the server's alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Raw {
    /// Processor time from the first connection until all sessions are open and the server is at rest.
    pub connect_cpu_us: u64,
    /// The same on the wall.
    pub connect_wall_us: u64,
    /// Processor time for one full beat of each host, and the outcomes of its documents.
    pub report_cpu_us: u64,
    /// Unchanged beats that were acknowledged.
    pub beats: u64,
    /// Processor time for these.
    pub beats_cpu_us: u64,
    /// The same on the wall.
    pub beats_wall_us: u64,
    /// Half of these were acknowledged within this.
    pub ack_p50_us: u64,
    /// All but one in a hundred.
    pub ack_p99_us: u64,
    /// The longest.
    pub ack_most_us: u64,
    /// Resident when the server knows no host.
    pub empty_kib: u64,
    /// Resident when it knows every host and none is connected.
    pub start_kib: u64,
    /// With every session open.
    pub open_kib: u64,
    /// How many beats each host had sent when the next was read; 12 unless there were fewer.
    pub memory_beats: u32,
    /// After these.
    pub beats_kib: u64,
    /// At the end.
    pub end_kib: u64,
}

/// A figure of a run, by its name and unit, and its value.
pub type Figure = (&'static str, f64);

impl Measured {
    /// What the run comes to, each thing for one host, connection or beat.
    #[must_use]
    pub fn figures(&self) -> Vec<Figure> {
        let raw = &self.raw;
        let hosts = f64::from(self.hosts);
        let beats = number(raw.beats).max(1.0);
        let each = |cpu: u64, of: f64| number(cpu) / of;
        let grown = |to: u64, from: u64| (number(to) - number(from)) / hosts;
        let mut figures = vec![
            (
                "CPU per connection, session open, us",
                each(raw.connect_cpu_us, hosts),
            ),
            (
                "CPU per first beat with outcomes, us",
                each(raw.report_cpu_us, hosts),
            ),
            ("CPU per unchanged beat, us", each(raw.beats_cpu_us, beats)),
            (
                "memory per host, session open, KiB",
                grown(raw.open_kib, raw.start_kib),
            ),
            (
                "memory per host after beats, KiB",
                grown(raw.beats_kib, raw.start_kib),
            ),
            (
                "memory per host at the end, KiB",
                grown(raw.end_kib, raw.start_kib),
            ),
            (
                "after beats, with what is kept at rest, KiB",
                grown(raw.beats_kib, raw.empty_kib),
            ),
            ("acknowledged within, p50, ms", number(raw.ack_p50_us) / 1e3),
            ("acknowledged within, p99, ms", number(raw.ack_p99_us) / 1e3),
        ];
        if self.interval_ms == 0 {
            figures.push((
                "beats per second, flat out",
                beats / number(raw.beats_wall_us).max(1.0) * 1e6,
            ));
        }
        figures
    }

    /// The load in one line.
    #[must_use]
    pub fn load_line(&self) -> String {
        let Self {
            hosts,
            deckies,
            beats,
            interval_ms,
            ..
        } = self;
        let pace = match interval_ms {
            0 => "flat out".to_owned(),
            ms => format!("one every {} s", number(*ms) / 1e3),
        };
        format!("{hosts} hosts, {deckies} deckies each, {beats} beats {pace}")
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine {
            processor,
            cores,
            memory,
            kernel,
        } = &self.machine;
        writeln!(f, "{}: {}", self.server, self.load_line())?;
        writeln!(
            f,
            "{processor}, {cores} cores, {memory} MiB, kernel {kernel}, commit {}",
            self.commit
        )?;
        writeln!(
            f,
            "{}, load average {:.1} before, {:.1} after",
            self.at, self.load[0], self.load[1]
        )?;
        let rows = self
            .figures()
            .into_iter()
            .map(|(name, value)| vec![name.to_owned(), format!("{value:.1}")]);
        write!(f, "{}", table(&["figure", &self.server.to_string()], rows))
    }
}

/// A table of figures: the first column in words, the others in numbers.
pub(crate) fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::ASCII_MARKDOWN)
        .set_header(head)
        .add_rows(rows);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// The share `percent` of `sorted` lies at or below this.
#[must_use]
pub fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or_default()
}

/// Microseconds as a whole number.
#[must_use]
pub fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// For dividing. Whatever is measured here is far below 2^52.
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn measured(server: Kind, connect_cpu_us: u64) -> Measured {
        Measured {
            server,
            at: Timestamp::UNIX_EPOCH,
            commit: "abc".to_owned(),
            machine: Machine {
                processor: "a processor".to_owned(),
                cores: 2,
                memory: 4096,
                kernel: "6.1".to_owned(),
            },
            load: [0.5, 1.5],
            hosts: 100,
            deckies: 10,
            beats: 12,
            interval_ms: 0,
            raw: Raw {
                connect_cpu_us,
                beats: 1100,
                beats_cpu_us: 44_000,
                beats_wall_us: 500_000,
                empty_kib: 9_000,
                start_kib: 10_000,
                beats_kib: 15_000,
                ..Raw::default()
            },
        }
    }

    #[test]
    fn figures_are_for_one_host_and_one_beat() {
        let measured = measured(Kind::Bare, 40_000);
        let figure = |name: &str| {
            let found = measured
                .figures()
                .into_iter()
                .find(|(have, _)| have.contains(name));
            found.unwrap().1
        };
        assert_eq!(figure("CPU per connection"), 400.0);
        assert_eq!(figure("CPU per unchanged beat"), 40.0);
        assert_eq!(figure("memory per host after beats"), 50.0);
        assert_eq!(figure("at rest"), 60.0);
        assert_eq!(figure("beats per second"), 2200.0);
    }

    #[test]
    fn a_run_survives_its_line_of_json() {
        let measured = measured(Kind::Master, 1);
        let line = serde_json::to_string(&measured).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Measured>(&line).unwrap(), measured);
    }

    #[test]
    fn the_99th_percentile_of_a_hundred_is_the_one_before_the_longest() {
        let waits: Vec<_> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(percentile(&waits, 99), Duration::from_millis(99));
        assert_eq!(percentile(&waits, 50), Duration::from_millis(50));
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }
}
