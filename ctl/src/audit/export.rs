//! `picketctl audit export`, and the stream that `verify` reads too.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufWriter, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use picket_proto::{
    audit::Line,
    wire::admin::{self as wire, export_audit_response},
};
use tonic::Streaming;

use super::{SEE, read};
use crate::{
    desk::Desk,
    fault::{About, Fault},
};

/// The lines of an export, as the master sends them.
pub(super) struct Lines {
    stream: Streaming<wire::ExportAuditResponse>,
    about: About,
}

impl Lines {
    pub(super) async fn after(desk: &mut Desk, after: u64) -> Result<Self, Fault> {
        let about = About::reading("export the audit trail", SEE);
        let mut client = desk.audit().await?;
        let request = wire::ExportAuditRequest { after };
        let stream = desk.call(&about, client.export_audit(request)).await?;
        Ok(Self { stream, about })
    }

    /// The next line; the last one is a head.
    pub(super) async fn next(&mut self, desk: &Desk) -> Result<Line, Fault> {
        match desk
            .next(&self.about, &mut self.stream)
            .await?
            .and_then(|answer| answer.line)
        {
            Some(export_audit_response::Line::Entry(entry)) => Ok(Line::Entry(Box::new(read(entry)?))),
            Some(export_audit_response::Line::Head(head)) => Ok(Line::Head(head)),
            None => Err(Fault::Ended(
                "the master ended the export before its end; try again".to_owned(),
            )),
        }
    }
}

pub(super) async fn export(desk: &mut Desk, out: Option<&Path>, after: u64) -> Result<(), Fault> {
    let mut lines = Lines::after(desk, after).await?;
    let mut file = out.map(Beside::create).transpose()?;
    let mut entries = 0_u64;
    loop {
        let line = lines.next(desk).await?;
        let text = line.encode() + "\n";
        match &mut file {
            Some(file) => file.write(&text)?,
            None => desk.print.text(&text)?,
        }
        match line {
            Line::Entry(_) => entries += 1,
            Line::Head(_) => break,
        }
    }
    if let Some(file) = file {
        let path = file.settle()?;
        desk.print.note(&format!(
            "{entries} entries are in {}; check them with `picketctl audit verify --file {}`",
            path.display(),
            path.display()
        ));
    }
    Ok(())
}

/// A file that takes its place when it is whole, for its owner alone.
struct Beside {
    file: BufWriter<File>,
    beside: PathBuf,
    path: PathBuf,
}

impl Beside {
    fn create(path: &Path) -> Result<Self, Fault> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".part");
        let beside = PathBuf::from(beside);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)
            .map_err(|cause| unwritten(path, &cause))?;
        Ok(Self {
            file: BufWriter::new(file),
            beside,
            path: path.to_owned(),
        })
    }

    fn write(&mut self, text: &str) -> Result<(), Fault> {
        self.file
            .write_all(text.as_bytes())
            .map_err(|cause| unwritten(&self.path, &cause))
    }

    fn settle(mut self) -> Result<PathBuf, Fault> {
        let settled = self
            .file
            .flush()
            .and_then(|()| self.file.get_ref().sync_all())
            .and_then(|()| fs::rename(&self.beside, &self.path));
        settled.map_err(|cause| unwritten(&self.path, &cause))?;
        Ok(self.path)
    }
}

fn unwritten(path: &Path, cause: &std::io::Error) -> Fault {
    Fault::Failed(format!(
        "cannot write {}: {cause}; give another place with `--out FILE`",
        path.display()
    ))
}
