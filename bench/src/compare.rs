//! The master held against the bare server: the same load, in one run of the bench, turn and turn about.

use std::{collections::BTreeMap, fmt};

use crate::figures::{Kind, Measured, table};

/// Why nothing can be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// A line is no run.
    #[error("line {line} is no run that `picket-bench bare|master --json` printed")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong with it.
        #[source]
        cause: serde_json::Error,
    },
    /// Ratios need both.
    #[error("there is no load that both the bare server and the master had; run both with the same numbers")]
    NoPair,
}

/// Both servers under one load.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// The load.
    pub load: String,
    /// How many runs of each there are.
    pub runs: [usize; 2],
    /// The median of each figure.
    pub rows: Vec<Row>,
}

/// One figure of both.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its name and unit.
    pub figure: &'static str,
    /// The bare server's median.
    pub bare: f64,
    /// The master's median.
    pub master: f64,
    /// The least and the greatest ratio of a master's run and the bare run of the same turn.
    pub between: [f64; 2],
}

impl Row {
    /// How much more the master takes.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.master / self.bare
    }
}

/// Compares runs, one a line, in the order they ran.
///
/// # Errors
/// When a line is no run, or there is nothing to compare.
pub fn compare(lines: &str) -> Result<Vec<Comparison>, CompareError> {
    let mut loads = BTreeMap::<_, [Vec<Measured>; 2]>::new();
    for (line, text) in (1..)
        .zip(lines.lines())
        .filter(|(_, text)| !text.trim().is_empty())
    {
        let run: Measured = serde_json::from_str(text).map_err(|cause| CompareError::Line { line, cause })?;
        let side = usize::from(run.server == Kind::Master);
        let load = (run.hosts, run.deckies, run.interval_ms, run.beats);
        loads.entry(load).or_default()[side].push(run);
    }
    let compared: Vec<_> = loads
        .into_values()
        .filter_map(|[bare, master]| pair(&bare, &master))
        .collect();
    if compared.is_empty() {
        return Err(CompareError::NoPair);
    }
    Ok(compared)
}

fn pair(bare: &[Measured], master: &[Measured]) -> Option<Comparison> {
    let load = bare.first()?.load_line();
    let figures = |runs: &[Measured]| runs.iter().map(Measured::figures).collect::<Vec<_>>();
    let (bare, master) = (figures(bare), figures(master));
    let row = |(at, (figure, _)): (usize, &(&'static str, f64))| {
        let of = |runs: &[Vec<(&'static str, f64)>]| runs.iter().map(|run| run[at].1).collect::<Vec<_>>();
        let (bare, master) = (of(&bare), of(&master));
        let ratios = || bare.iter().zip(&master).map(|(bare, master)| master / bare);
        Row {
            figure,
            between: [
                ratios().fold(f64::INFINITY, f64::min),
                ratios().fold(0.0, f64::max),
            ],
            bare: median(bare),
            master: median(master),
        }
    };
    Some(Comparison {
        load,
        runs: [bare.len(), master.len()],
        rows: master.first()?.iter().enumerate().map(row).collect(),
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        0 => values[middle - 1].midpoint(values[middle]),
        _ => values[middle],
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [bare, master] = self.runs;
        writeln!(
            f,
            "{}; medians of {bare} bare and {master} master runs",
            self.load
        )?;
        let rows = self.rows.iter().map(|row| {
            let Row {
                figure,
                bare,
                master,
                between: [least, most],
            } = row;
            let ratio = format!("{:.2}", row.ratio());
            vec![
                (*figure).to_owned(),
                format!("{bare:.1}"),
                format!("{master:.1}"),
                ratio,
                format!("{least:.2} to {most:.2}"),
            ]
        });
        write!(
            f,
            "{}",
            table(&["figure", "bare", "master", "master / bare", "each turn"], rows)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::measured;

    fn lines(runs: &[Measured]) -> String {
        runs.iter()
            .map(|run| serde_json::to_string(run).unwrap() + "\n")
            .collect()
    }

    #[test]
    fn a_ratio_is_of_medians_and_every_turn_shows_in_its_range() {
        let bare = [30_000, 40_000, 90_000].map(|cpu| measured(Kind::Bare, cpu));
        let master = [60_000, 60_000, 90_000].map(|cpu| measured(Kind::Master, cpu));
        let turns: Vec<_> = bare
            .into_iter()
            .zip(master)
            .flat_map(|(bare, master)| [bare, master])
            .collect();
        let compared = compare(&lines(&turns)).unwrap();
        let [one] = &compared[..] else {
            panic!("{compared:?}")
        };
        let row = &one.rows[0];
        assert_eq!((row.bare, row.master, row.ratio()), (400.0, 600.0, 1.5));
        assert_eq!((one.runs, row.between), ([3, 3], [1.0, 2.0]));
    }

    #[test]
    fn runs_of_other_loads_are_not_held_against_each_other() {
        let other = Measured {
            hosts: 7,
            ..measured(Kind::Master, 1)
        };
        let error = compare(&lines(&[measured(Kind::Bare, 1), other])).unwrap_err();
        assert!(matches!(error, CompareError::NoPair), "{error}");
    }

    #[test]
    fn a_line_that_is_no_run_is_named() {
        let error = compare("\n{}\n").unwrap_err();
        assert!(matches!(error, CompareError::Line { line: 2, .. }), "{error}");
    }
}
