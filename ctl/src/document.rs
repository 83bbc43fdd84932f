//! Files that an operator writes: read whole, within a bound, from a path or from standard input.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use clap::Args;

use crate::{desk::Desk, fault::Fault};

/// Where a file is.
#[derive(Debug, Args)]
pub(crate) struct FromFile {
    /// The file; `-` reads it from standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: PathBuf,
}

/// What kind of file it is.
pub(crate) struct Kind {
    /// `site file`.
    pub(crate) noun: &'static str,
    pub(crate) longest: u64,
    /// What to do about one that is longer.
    pub(crate) when_longer: &'static str,
    /// The command whose help shows the format.
    pub(crate) format: &'static str,
}

/// A file's text, and what to call it.
pub(crate) struct Document {
    kind: &'static Kind,
    shown: String,
    pub(crate) text: String,
}

impl Document {
    pub(crate) fn read(desk: &mut Desk, path: &Path, kind: &'static Kind) -> Result<Self, Fault> {
        let is_stdin = path == Path::new("-");
        let shown = if is_stdin {
            "standard input".to_owned()
        } else {
            path.display().to_string()
        };
        let Kind { noun, longest, .. } = *kind;
        let unreadable =
            |cause: std::io::Error| Fault::Usage(format!("cannot read the {noun} {shown}: {cause}"));
        let mut bytes = Vec::new();
        let mut take = |from: &mut dyn Read| from.take(longest + 1).read_to_end(&mut bytes);
        if is_stdin {
            take(&mut desk.stdin).map_err(unreadable)?;
        } else {
            take(&mut File::open(path).map_err(unreadable)?).map_err(unreadable)?;
        }
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > longest {
            let when_longer = kind.when_longer;
            return Err(Fault::Usage(format!(
                "{shown} is longer than {longest} bytes; {when_longer}"
            )));
        }
        let text = String::from_utf8(bytes).map_err(|_| {
            Fault::Usage(format!(
                "{shown} is not text in UTF-8; it should be a YAML {noun}"
            ))
        })?;
        Ok(Self { kind, shown, text })
    }

    /// That it is not what it should be.
    pub(crate) fn fault(&self, problems: &[String]) -> Fault {
        let problems: Vec<String> = problems.iter().map(|problem| format!("  {problem}")).collect();
        let Kind { noun, format, .. } = self.kind;
        Fault::Usage(format!(
            "{} is no {noun}:\n{}\n`{format}` shows the format. Nothing was changed",
            self.shown,
            problems.join("\n")
        ))
    }
}
