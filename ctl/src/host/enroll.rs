//! `picketctl host enroll`: the bundle reaches the disk, or nothing was enrolled for nothing.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use jiff::Timestamp;
use picket_durable::FileError;
use picket_pki::{Bundle, Csr, NodeSecret, pem};
use picket_proto::{from_wire_time, wire::admin as wire};
use picket_zerotier::identity::Identity;
use serde::Serialize;

use super::{SEE, view::Host};
use crate::{
    desk::Desk,
    fault::{About, Fault},
    print::Named,
    words::{filled, to_the_second},
};

/// As much of a request as is read: one in PEM has at most half of it.
const LONGEST_REQUEST: u64 = 32 * 1024;

/// When to enroll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// In any case: a name that is taken is a failure.
    Asked,
    /// Unless there is a host of that name.
    Absent,
}

/// What of the machine's secrets travels in its bundle.
#[derive(Debug)]
pub(super) enum Carries {
    /// A key that is used up by the machine's first act.
    Key,
    /// That, and the identity of its ZeroTier node, which stays good.
    KeyAndNode,
    /// None: the machine made its own, and this file is its request.
    NoKey(PathBuf),
}

impl Carries {
    /// The request that the master signs; empty when it makes the key.
    fn request(&self) -> Result<Bytes, Fault> {
        match self {
            Self::Key | Self::KeyAndNode => Ok(Bytes::new()),
            Self::NoKey(file) => requested(file),
        }
    }

    fn worth(&self) -> &'static str {
        match self {
            Self::Key => "secret, for one use",
            Self::KeyAndNode => "secret, also after its one use",
            Self::NoKey(_) => "without a key, for one use on the machine that made the request",
        }
    }
}

/// What came of it, without the secret.
#[derive(Debug, Serialize)]
struct Enrolled {
    host: Host,
    /// Absent, with what follows, when there was nothing to do.
    bundle_file: Option<PathBuf>,
    authority_fingerprint: Option<String>,
    bundle_expires_at: Option<Timestamp>,
    /// The ZeroTier node whose identity the bundle carries.
    node: Option<String>,
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
    carries: Carries,
    out: &Path,
    when: When,
) -> Result<(), Fault> {
    let about = About::changing(format!("enroll the host {name}"), SEE);
    if when == When::Absent
        && let Some(host) = existing(desk, &name).await?
    {
        return absent_is_done(desk, host);
    }
    let csr = carries.request()?;
    let node = match carries {
        Carries::KeyAndNode => Some(node()?),
        Carries::Key | Carries::NoKey(_) => None,
    };
    // The key is made for this one answer and cannot be asked for again: the place for it is taken first.
    let place = Place::take(out)?;
    let mut hosts = desk.hosts().await?;
    let request = wire::EnrollHostRequest {
        name: name.clone(),
        labels,
        csr,
    };
    let answer = match desk.call(&about, hosts.enroll_host(request)).await {
        Err(fault) if when == When::Absent && fault.is_already_exists() => {
            drop(place);
            return match existing(desk, &name).await? {
                Some(host) => absent_is_done(desk, host),
                None => Err(fault),
            };
        }
        answer => answer?,
    };
    match &node {
        Some(node) => keep(place, &name, with_node(&answer.bundle, node, &name)?.as_bytes())?,
        None => keep(place, &name, &answer.bundle)?,
    }
    let enrolled = Enrolled {
        host: Host::from(answer.host.unwrap_or_default()),
        bundle_file: Some(out.to_owned()),
        authority_fingerprint: filled(answer.authority_fingerprint),
        bundle_expires_at: answer.bundle_expires_at.as_ref().and_then(from_wire_time),
        node: node.map(|node| node.node().to_owned()),
    };
    let sentence = told(&enrolled, out, "is enrolled; its bundle is", carries.worth());
    desk.print.done(&enrolled, &sentence)
}

/// Makes another bundle for a host that exists.
pub(super) async fn bundle(
    desk: &mut Desk,
    name: String,
    cut: bool,
    carries: Carries,
    out: &Path,
) -> Result<(), Fault> {
    let about = super::changing(format!("make another bundle for the host {name}"), &name);
    let csr = carries.request()?;
    let place = Place::take(out)?;
    let mut hosts = desk.hosts().await?;
    let request = wire::BundleHostRequest {
        name: name.clone(),
        cut,
        csr,
    };
    let answer = desk.call(&about, hosts.bundle_host(request)).await?;
    keep(place, &name, &answer.bundle)?;
    let enrolled = Enrolled {
        host: Host::from(answer.host.unwrap_or_default()),
        bundle_file: Some(out.to_owned()),
        authority_fingerprint: filled(answer.authority_fingerprint),
        bundle_expires_at: answer.bundle_expires_at.as_ref().and_then(from_wire_time),
        node: None,
    };
    let what = if cut {
        "is cut off until it is enrolled with its new bundle"
    } else {
        "has another bundle, and the one before it opens nothing; it is"
    };
    let sentence = told(&enrolled, out, what, carries.worth());
    desk.print.done(&enrolled, &sentence)
}

fn keep(place: Place<'_>, name: &str, bundle: &[u8]) -> Result<(), Fault> {
    place.fill(bundle).map_err(|cause| {
        Fault::Failed(format!(
            "the master made a bundle for the host {name}, and it could not be kept: {}; make room, and run `picketctl host bundle {name} --out FILE`",
            chain(&cause)
        ))
    })
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

fn absent_is_done(desk: &mut Desk, host: Host) -> Result<(), Fault> {
    let sentence = format!(
        "host {} is enrolled already; nothing was changed and no bundle was written",
        host.name
    );
    let enrolled = Enrolled {
        host,
        bundle_file: None,
        authority_fingerprint: None,
        bundle_expires_at: None,
        node: None,
    };
    desk.print.done(&enrolled, &sentence)
}

/// The request in a file, in PEM or DER, as the master takes it.
fn requested(path: &Path) -> Result<Bytes, Fault> {
    let unusable = |why: &dyn std::fmt::Display| {
        Fault::Usage(format!(
            "{}: {why}; `picket-agent request --out FILE`, run on the worker, makes one. Nothing was enrolled",
            path.display()
        ))
    };
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST_REQUEST).read_to_end(&mut text));
    read.map_err(|cause| unusable(&cause))?;
    let der = pem::request_from_pem(&text).unwrap_or(text);
    Csr::parse(&der).map_err(|cause| unusable(&cause))?;
    Ok(der.into())
}

/// Makes the identity of a node. It takes some hundred milliseconds, and nothing else goes on meanwhile.
fn node() -> Result<NodeSecret, Fault> {
    let unmade = |cause: &dyn std::fmt::Display| {
        Fault::Failed(format!(
            "no ZeroTier identity could be made: {cause}. Nothing was enrolled"
        ))
    };
    let identity = Identity::generate().map_err(|cause| unmade(&cause))?;
    NodeSecret::new(&identity.to_secret_text()).map_err(|cause| unmade(&cause))
}

/// The master's bundle with the identity of a node in it, which the master never sees.
fn with_node(bundle: &[u8], node: &NodeSecret, name: &str) -> Result<zeroize::Zeroizing<String>, Fault> {
    let bundle = Bundle::parse(bundle).and_then(|bundle| bundle.encode_with(node));
    bundle.map_err(|cause| {
        Fault::Failed(format!(
            "the master enrolled the host {name}, and its answer is no bundle that a ZeroTier identity can be put into: {cause}; get another with `picketctl host bundle {name} --out FILE`, whose machine then makes an identity of its own"
        ))
    })
}

fn told(enrolled: &Enrolled, out: &Path, what: &str, worth: &str) -> String {
    let name = &enrolled.host.name;
    let file = quoted(&out.display().to_string());
    let fingerprint = enrolled
        .authority_fingerprint
        .as_deref()
        .unwrap_or("(the master did not say)");
    let expires = enrolled.bundle_expires_at;
    let expires = expires.map_or_else(|| "at a time the master did not say".to_owned(), to_the_second);
    let node = enrolled.node.as_deref().map_or_else(String::new, |node| {
        format!(
            "it carries the identity of ZeroTier node {node}: whoever has a copy can be that node, for as long as it is let on anywhere\n"
        )
    });
    format!(
        "host {name} {what} {file}: {worth}, until {expires}\n{node}\
         CA fingerprint (compare it with what `picket-agent enroll` shows):\n  {}\n\
         next:\n  scp -p {file} root@{name}:{name}.bundle\n  \
         ssh root@{name} picket-agent enroll {name}.bundle\n  rm {file}\n  picketctl host show {name}",
        grouped(fingerprint)
    )
}

/// A fingerprint as bundles and agents show it: groups of four that two people can read to each other.
pub(crate) fn grouped(fingerprint: &str) -> String {
    match fingerprint.parse::<picket_pki::Fingerprint>() {
        Ok(fingerprint) => fingerprint.grouped(),
        Err(_) => fingerprint.to_owned(),
    }
}

/// A path as a shell takes it for one word.
pub(crate) fn quoted(path: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./+,:@%".contains(&b);
    if path.bytes().all(plain) {
        path.to_owned()
    } else {
        format!("'{}'", path.replace('\'', "'\\''"))
    }
}

pub(crate) fn chain(error: &FileError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// An empty file where the bundle will be. It goes away again unless it is filled.
pub(crate) struct Place<'a> {
    path: &'a Path,
    filled: bool,
}

impl<'a> Place<'a> {
    fn take(path: &'a Path) -> Result<Self, Fault> {
        Self::take_or(path, "Nothing was enrolled")
    }

    /// Takes the place, or says what was `not_done`.
    pub(crate) fn take_or(path: &'a Path, not_done: &str) -> Result<Self, Fault> {
        match OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
        {
            Ok(_) => Ok(Self { path, filled: false }),
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => Err(Fault::Failed(format!(
                "{} is there already and is not replaced; move it away or give another name with `--out`. {not_done}",
                path.display()
            ))),
            Err(cause) => Err(Fault::Failed(format!(
                "{} cannot be written: {cause}; give another place with `--out`. {not_done}",
                path.display()
            ))),
        }
    }

    /// Fills it.
    pub(crate) fn fill(mut self, bundle: &[u8]) -> Result<(), FileError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_can_be_pasted_into_a_shell() {
        assert_eq!(quoted("out/edge-07.bundle"), "out/edge-07.bundle");
        assert_eq!(quoted("my bundles/a"), "'my bundles/a'");
        assert_eq!(quoted("it's; rm -rf"), r"'it'\''s; rm -rf'");
    }
}
