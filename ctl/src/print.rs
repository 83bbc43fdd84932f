//! Everything that is printed, results on stdout and the rest on stderr. The only room that writes to either, but for
//! the bars of `progress.rs`.

use std::io::{self, Write};

use clap::ValueEnum;
use jiff::Timestamp;
use serde::Serialize;

use crate::{Exit, config::Terminals, fault::Fault, words::shown};

mod page;

pub(crate) use page::{Cell, Page, Tone};

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For scripts
    Json,
    /// For scripts and people
    Yaml,
    /// Only names, one per line
    Name,
}

/// What can be told from others of its kind by a name.
pub(crate) trait Named: Serialize {
    fn name(&self) -> String;
}

/// One line of a list.
pub(crate) trait Row: Named {
    /// What several of them are called.
    const NOUNS: &'static str;
    const HEADERS: &'static [&'static str];
    fn cells(&self, now: Timestamp) -> Vec<Cell>;
}

/// Something that is shown by itself.
pub(crate) trait View: Named {
    fn page(&self, now: Timestamp) -> Page;
}

/// Something that is told as it happens.
pub(crate) trait Line: Named {
    fn line(&self) -> Vec<Cell>;
}

/// The two streams.
pub(crate) struct Print {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    terminals: Terminals,
    color: bool,
    format: Format,
}

impl Print {
    pub(crate) fn new(
        out: Box<dyn Write + Send>,
        err: Box<dyn Write + Send>,
        terminals: Terminals,
        no_color: bool,
        format: Format,
    ) -> Self {
        Self {
            out,
            err,
            terminals,
            color: terminals.stdout && !no_color,
            format,
        }
    }

    /// Whether people read the result, who may want more than the result.
    pub(crate) fn is_table(&self) -> bool {
        self.format == Format::Table
    }

    /// Whether progress may be drawn rather than told.
    pub(crate) fn draws(&self) -> bool {
        self.terminals.stderr
    }

    /// A list. One with nothing in it says so on stderr.
    pub(crate) fn list<R: Row>(&mut self, rows: &[R], now: Timestamp) -> Result<(), Fault> {
        match self.format {
            Format::Table if rows.is_empty() => {
                self.note(&format!("no {}", R::NOUNS));
                Ok(())
            }
            Format::Table => {
                let cells = rows.iter().map(|row| row.cells(now)).collect();
                let mut page = Page::default();
                page.table(R::HEADERS, cells);
                self.page(&page)
            }
            Format::Name => {
                let names: String = rows.iter().map(|row| row.name() + "\n").collect();
                self.text(&names)
            }
            Format::Json | Format::Yaml => self.data(&rows),
        }
    }

    /// A list that takes the place of the one before it, where the output is a screen.
    pub(crate) fn list_again<R: Row>(&mut self, rows: &[R], now: Timestamp) -> Result<(), Fault> {
        if self.terminals.stdout {
            // Home, then clear to the end: less flicker than the other way round.
            self.text("\x1b[H\x1b[J")?;
        }
        if self.format == Format::Yaml {
            self.text("---\n")?;
        }
        self.list(rows, now)?;
        if !self.terminals.stdout && self.format == Format::Table && !rows.is_empty() {
            self.text("\n")?;
        }
        Ok(())
    }

    /// One thing, with everything about it.
    pub(crate) fn show<V: View>(&mut self, view: &V, now: Timestamp) -> Result<(), Fault> {
        match self.format {
            Format::Table => self.page(&view.page(now)),
            Format::Name => self.text(&(view.name() + "\n")),
            Format::Json | Format::Yaml => self.data(view),
        }
    }

    /// What came of a change: a sentence for people, the thing itself for scripts.
    pub(crate) fn done<N: Named>(&mut self, thing: &N, sentence: &str) -> Result<(), Fault> {
        match self.format {
            Format::Table => self.text(&format!("{}\n", shown_lines(sentence))),
            Format::Name => self.text(&(thing.name() + "\n")),
            Format::Json | Format::Yaml => self.data(thing),
        }
    }

    /// One of many that are told as they happen: a line, also in JSON.
    pub(crate) fn tell<L: Line>(&mut self, thing: &L) -> Result<(), Fault> {
        let line = match self.format {
            Format::Table => page::line(&thing.line(), self.color),
            Format::Name => thing.name(),
            Format::Json => serde_json::to_string(thing).map_err(unprintable)?,
            Format::Yaml => format!(
                "---\n{}",
                serde_norway::to_string(thing).map_err(unprintable)?.trim_end()
            ),
        };
        self.text(&(line + "\n"))
    }

    /// What people are shown beside the result, and scripts are not.
    pub(crate) fn page(&mut self, page: &Page) -> Result<(), Fault> {
        let text = page.render(self.color);
        self.text(&text)
    }

    /// Text as it is.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), Fault> {
        self.out.write_all(text.as_bytes())?;
        Ok(self.out.flush()?)
    }

    fn data(&mut self, data: &impl Serialize) -> Result<(), Fault> {
        let text = if self.format == Format::Yaml {
            serde_norway::to_string(data).map_err(unprintable)?
        } else {
            serde_json::to_string_pretty(data).map_err(unprintable)? + "\n"
        };
        self.text(&text)
    }

    /// A remark, on stderr.
    pub(crate) fn note(&mut self, text: &str) {
        self.complain(&format!("{}\n", shown_lines(text)));
    }

    /// What to know before relying on it, on stderr; nothing where there is nothing.
    pub(crate) fn caution(&mut self, text: &str) {
        if !text.is_empty() {
            self.note(&format!("caution: {text}"));
        }
    }

    /// A question, on stderr; the answer is typed behind it.
    pub(crate) fn ask(&mut self, question: &str) {
        self.complain(&shown_lines(question));
    }

    /// Why the command failed.
    pub(crate) fn fault(&mut self, fault: &Fault) {
        if !matches!(fault, Fault::Closed) {
            self.note(&format!("picketctl: {fault}"));
        }
    }

    /// Help and version on stdout, a mistake in the arguments on stderr.
    pub(crate) fn usage(&mut self, answer: &clap::Error) -> (Exit, Result<(), Fault>) {
        let text = answer.render();
        if answer.use_stderr() {
            // It repeats what was typed.
            self.note(&text.to_string());
            return (Exit::Usage, Ok(()));
        }
        let text = if self.color {
            text.ansi().to_string()
        } else {
            text.to_string()
        };
        (Exit::Done, self.text(&text))
    }

    fn complain(&mut self, text: &str) {
        // Where stderr is gone there is nobody left to tell.
        drop(
            self.err
                .write_all(text.as_bytes())
                .and_then(|()| self.err.flush()),
        );
    }
}

/// What a worker says of itself ends up in our sentences, and so does what was typed, which may have been pasted: neither
/// must steer the terminal.
fn shown_lines(text: &str) -> String {
    text.lines().map(shown).collect::<Vec<_>>().join("\n")
}

fn unprintable(cause: impl std::error::Error + Send + Sync + 'static) -> Fault {
    Fault::Output(io::Error::other(cause))
}
