//! What people read: facts, tables and lines, laid out without lines around them, coloured where that helps.

use std::fmt::Write as _;

use comfy_table::{Table, TableComponent, presets};

use crate::words::shown;

/// Stands between the cells of a laid out row, so that they can be found again. No cell contains it.
const BOUNDARY: char = '\u{1f}';

/// How a word is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Good,
    Fair,
    Bad,
    Dim,
}

/// A few words with a tone.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// Words that came from anywhere; control characters are taken out.
    pub(crate) fn new(text: impl AsRef<str>, tone: Tone) -> Self {
        Self {
            text: shown(text.as_ref()),
            tone,
        }
    }

    /// The words, or a dash where there are none.
    pub(crate) fn or_dash(text: Option<impl AsRef<str>>) -> Self {
        match text {
            Some(text) if !text.as_ref().is_empty() => Self::new(text, Tone::Plain),
            Some(_) | None => Self::new("-", Tone::Dim),
        }
    }

    fn paint(&self, text: &str, color: bool) -> String {
        let code = match self.tone {
            Tone::Plain => return text.to_owned(),
            Tone::Good => "32",
            Tone::Fair => "33",
            Tone::Bad => "31",
            Tone::Dim => "2",
        };
        if color {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text.into(), Tone::Plain)
    }
}

/// What is shown of one thing.
#[derive(Debug, Default)]
pub(crate) struct Page {
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Facts(Vec<(&'static str, Cell)>),
    Title(String),
    Table(&'static [&'static str], Vec<Vec<Cell>>),
    Line(Cell),
}

impl Page {
    /// Names with values, one per line, the values below each other. Facts that follow facts stand below them.
    pub(crate) fn facts(&mut self, facts: impl IntoIterator<Item = (&'static str, Cell)>) -> &mut Self {
        match self.parts.last_mut() {
            Some(Part::Facts(before)) => before.extend(facts),
            Some(Part::Title(_) | Part::Table(..) | Part::Line(_)) | None => {
                self.parts.push(Part::Facts(facts.into_iter().collect()));
            }
        }
        self
    }

    /// An empty line and a heading.
    pub(crate) fn title(&mut self, title: impl Into<String>) -> &mut Self {
        self.parts.push(Part::Title(title.into()));
        self
    }

    /// A table; none when there are no rows.
    pub(crate) fn table(&mut self, headers: &'static [&'static str], rows: Vec<Vec<Cell>>) -> &mut Self {
        if !rows.is_empty() {
            self.parts.push(Part::Table(headers, rows));
        }
        self
    }

    /// One line.
    pub(crate) fn line(&mut self, line: impl Into<Cell>) -> &mut Self {
        self.parts.push(Part::Line(line.into()));
        self
    }

    /// A heading with sentences below it; nothing when there are none.
    pub(crate) fn sentences(&mut self, title: &str, sentences: &[String], tone: Tone) -> &mut Self {
        if !sentences.is_empty() {
            self.title(title);
            let lines = sentences
                .iter()
                .map(|sentence| Part::Line(Cell::new(format!("- {sentence}"), tone)));
            self.parts.extend(lines);
        }
        self
    }

    pub(crate) fn render(&self, color: bool) -> String {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Facts(facts) => {
                    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 1;
                    for (name, cell) in facts {
                        let name = format!("{name}:");
                        let line = format!("{name:<width$}  {}", cell.paint(&cell.text, color));
                        push(&mut text, line.trim_end());
                    }
                }
                Part::Title(title) => {
                    if !text.is_empty() {
                        text.push('\n');
                    }
                    push(&mut text, &shown(title));
                }
                Part::Line(cell) => push(&mut text, &cell.paint(&cell.text, color)),
                Part::Table(headers, rows) => lay_out(&mut text, headers, rows, color),
            }
        }
        text
    }
}

/// Cells behind each other, as they are when nobody knows what follows.
pub(crate) fn line(cells: &[Cell], color: bool) -> String {
    let painted: Vec<String> = cells.iter().map(|cell| cell.paint(&cell.text, color)).collect();
    painted.join("  ")
}

fn lay_out(text: &mut String, headers: &[&str], rows: &[Vec<Cell>], color: bool) {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_style(TableComponent::VerticalLines, BOUNDARY);
    table.set_header(headers.iter().copied());
    for row in rows {
        table.add_row(row.iter().map(|cell| cell.text.as_str()));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for (number, line) in table.lines().enumerate() {
        let row = number.checked_sub(1).and_then(|number| rows.get(number));
        let mut out = String::new();
        for (column, padded) in line.split(BOUNDARY).enumerate() {
            match row.and_then(|row| row.get(column)) {
                // The colour ends with the word, so that nothing coloured trails off.
                Some(cell) => {
                    let word = padded.trim_end();
                    let space = &padded[word.len()..];
                    out += &cell.paint(word, color && !word.is_empty());
                    out += space;
                }
                None => out += padded,
            }
        }
        push(text, out.trim_end());
    }
}

fn push(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("writing to a string cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Page {
        let mut page = Page::default();
        page.facts([
            ("name", Cell::from("edge-07")),
            ("last seen", Cell::or_dash(None::<&str>)),
        ]);
        page.title("Pins");
        page.table(
            &["KIND", "STATE"],
            vec![
                vec![Cell::from("bundle"), Cell::new("spent", Tone::Bad)],
                vec![Cell::from("current"), Cell::new("høy", Tone::Good)],
            ],
        );
        page
    }

    #[test]
    fn columns_stand_below_each_other_without_trailing_space() {
        insta::assert_snapshot!(page().render(false), @r"
        name:       edge-07
        last seen:  -

        Pins
        KIND     STATE
        bundle   spent
        current  høy
        ");
    }

    #[test]
    fn colour_changes_no_letter_and_no_place() {
        let (plain, colored) = (page().render(false), page().render(true));
        assert!(colored.contains("\x1b[31mspent\x1b[0m"), "{colored}");
        let mut stripped = colored;
        for code in ["\x1b[31m", "\x1b[32m", "\x1b[2m", "\x1b[0m"] {
            stripped = stripped.replace(code, "");
        }
        assert_eq!(stripped, plain);
    }

    #[test]
    fn what_a_worker_says_cannot_steer_the_terminal() {
        let mut page = Page::default();
        page.table(&["NOTE"], vec![vec![Cell::from("a\x1b[2Jb\nc\u{1f}d")]]);
        assert_eq!(page.render(false), "NOTE\na\u{fffd}[2Jb c\u{fffd}d\n");
    }
}
