//! `picketctl host enroll`: the bundle reaches the disk, or nothing was enrolled for nothing.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use picket_durable::FileError;
use picket_proto::{from_wire_time, wire::admin as wire};
use serde::Serialize;

use super::{SEE, view::Host};
use crate::{
    desk::Desk,
    fault::{About, Fault},
    print::Named,
    words::to_the_second,
};

/// When to enroll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// In any case: a name that is taken is a failure.
    Asked,
    /// Unless there is a host of that name.
    Absent,
}

/// What came of it, without the secret.
#[derive(Debug, Serialize)]
struct Enrolled {
    host: Host,
    bundle_file: PathBuf,
    authority_fingerprint: String,
    bundle_expires_at: Option<Timestamp>,
}

impl Named for Enrolled {
    fn name(&self) -> String {
        self.host.name.clone()
    }
}

pub(super) async fn enroll(
    desk: &mut Desk,
    name: String,
    labels: BTreeMap<String, String>,
    out: &Path,
    when: When,
) -> Result<(), Fault> {
    let about = About::changing(format!("enroll the host {name}"), SEE);
    if when == When::Absent
        && let Some(host) = existing(desk, &name).await?
    {
        return absent_is_done(desk, &host);
    }
    // The key is made for this one answer and cannot be asked for again: the place for it is taken first.
    let place = Place::take(out)?;
    let mut hosts = desk.hosts().await?;
    let request = wire::EnrollHostRequest {
        name: name.clone(),
        labels,
    };
    let answer = match desk.call(&about, hosts.enroll_host(request)).await {
        Err(fault) if when == When::Absent && fault.is_already_exists() => {
            drop(place);
            return match existing(desk, &name).await? {
                Some(host) => absent_is_done(desk, &host),
                None => Err(fault),
            };
        }
        answer => answer?,
    };
    place.fill(&answer.bundle).map_err(|cause| {
        Fault::Failed(format!(
            "the host {name} is enrolled, and its bundle could not be kept: {}; make room, run `picketctl host retire {name} --reason 'bundle lost' --yes`, and enroll again",
            chain(&cause)
        ))
    })?;
    let enrolled = Enrolled {
        host: Host::from(answer.host.unwrap_or_default()),
        bundle_file: out.to_owned(),
        authority_fingerprint: answer.authority_fingerprint,
        bundle_expires_at: answer.bundle_expires_at.as_ref().and_then(from_wire_time),
    };
    let sentence = told(&enrolled);
    desk.print.done(&enrolled, &sentence)
}

async fn existing(desk: &mut Desk, name: &str) -> Result<Option<Host>, Fault> {
    let about = About::reading(format!("look for the host {name}"), SEE);
    let mut hosts = desk.hosts().await?;
    match desk
        .call(
            &about,
            hosts.get_host(wire::GetHostRequest {
                name: name.to_owned(),
            }),
        )
        .await
    {
        Ok(answer) => Ok(Some(Host::from(answer.host.unwrap_or_default()))),
        Err(fault) if fault.is_not_found() => Ok(None),
        Err(fault) => Err(fault),
    }
}

fn absent_is_done(desk: &mut Desk, host: &Host) -> Result<(), Fault> {
    let sentence = format!(
        "host {} is enrolled already; nothing was changed and no bundle was written",
        host.name
    );
    desk.print.done(host, &sentence)
}

fn told(enrolled: &Enrolled) -> String {
    let Enrolled {
        host,
        bundle_file,
        authority_fingerprint,
        bundle_expires_at,
    } = enrolled;
    let file = bundle_file.display();
    let base = bundle_file
        .file_name()
        .map_or_else(|| file.to_string(), |name| name.to_string_lossy().into_owned());
    let expires =
        bundle_expires_at.map_or_else(|| "at a time the master did not say".to_owned(), to_the_second);
    let name = &host.name;
    format!(
        "host {name} is enrolled; its bundle is {file}: secret, for one use, until {expires}\n\
         CA fingerprint (compare it with what `picket-agent enroll` shows):\n  {}\n\
         next:\n  scp -p {file} root@{name}:/root/{base}\n  ssh root@{name} picket-agent enroll /root/{base}\n  rm {file}\n  picketctl host show {name}",
        grouped(authority_fingerprint)
    )
}

/// A fingerprint as bundles and agents show it: groups of four that two people can read to each other.
fn grouped(fingerprint: &str) -> String {
    match fingerprint.parse::<picket_pki::Fingerprint>() {
        Ok(fingerprint) => fingerprint.grouped(),
        Err(_) => fingerprint.to_owned(),
    }
}

fn chain(error: &FileError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// An empty file where the bundle will be. It goes away again unless it is filled.
struct Place<'a> {
    path: &'a Path,
    filled: bool,
}

impl<'a> Place<'a> {
    fn take(path: &'a Path) -> Result<Self, Fault> {
        match OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
        {
            Ok(_) => Ok(Self { path, filled: false }),
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => Err(Fault::Failed(format!(
                "{} is there already and is not replaced; move it away or give another name with `--out`. Nothing was enrolled",
                path.display()
            ))),
            Err(cause) => Err(Fault::Failed(format!(
                "{} cannot be written: {cause}; give another place with `--out`. Nothing was enrolled",
                path.display()
            ))),
        }
    }

    fn fill(mut self, bundle: &[u8]) -> Result<(), FileError> {
        picket_durable::write_private(self.path, bundle)?;
        self.filled = true;
        Ok(())
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.filled {
            // An empty file that will not go away does no harm, and there is nobody here to tell.
            drop(fs::remove_file(self.path));
        }
    }
}
