//! The heads among the events on the disk, held against the journal: `picket-master verify`.

use std::{
    fmt,
    fs::File,
    io::{BufRead as _, BufReader},
    path::Path,
};

use picket_pki::{Authorities, Root, SignedHead};
use picket_proto::audit::{
    Hash, Lineage,
    chain::{Broken, Chain, Head},
};

use super::head::KIND;
use crate::{
    event::{self, Event},
    store::{Revision, Trail, Unreadable, VerifyError},
};

/// What the heads say of the journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Witnessed {
    /// How many heads of this journal fit.
    pub fit: u64,
    /// How many are signed by somebody else, and say nothing.
    pub foreign: u64,
    /// What does not fit.
    pub problem: Option<Broken>,
}

/// Holds the journal of a data directory against the heads among its events. A master may be running.
///
/// # Errors
/// When the journal cannot be read.
pub fn witnessed(data_dir: &Path) -> Result<Witnessed, VerifyError> {
    // First the heads: the journal of a running master only grows meanwhile.
    let (heads, foreign) = heads(data_dir);
    let mut walk = Trail::of(data_dir)?.forward(Revision(0))?;
    let mut chain = Chain::against(heads);
    let checked = loop {
        match walk.step() {
            Ok(Some(entry)) => {
                if let Err(broken) = chain.take(&entry) {
                    break Err(broken);
                }
            }
            Ok(None) => break chain.end(),
            Err(error) => return Err(Unreadable::into(error)),
        }
    };
    Ok(Witnessed {
        fit: chain.witnessed(),
        foreign,
        problem: checked.err(),
    })
}

/// The heads that a master of this CA signed, and how many there are besides.
fn heads(data_dir: &Path) -> (Vec<Head>, u64) {
    let authorities = authorities(data_dir);
    let (mut heads, mut foreign) = (Vec::new(), 0);
    for path in event::files(data_dir) {
        let Ok(file) = File::open(path) else { continue };
        for line in BufReader::new(file).split(b'\n').map_while(Result::ok) {
            let event = serde_json::from_slice::<Event>(&line).ok();
            let Some(event) = event.filter(|event| event.kind == KIND) else {
                continue;
            };
            let signed = event.message.parse::<SignedHead>().ok();
            let checked = signed
                .as_ref()
                .zip(authorities.as_ref())
                .and_then(|(signed, authorities)| signed.checked(authorities).ok());
            match checked {
                Some(head) => heads.push(Head {
                    lineage: Lineage(head.lineage),
                    revision: head.revision,
                    hash: Hash(head.hash),
                }),
                None => foreign += 1,
            }
        }
    }
    (heads, foreign)
}

/// Every CA whose certificate is here: one that was retired signed the heads of its time.
fn authorities(data_dir: &Path) -> Option<Authorities> {
    let is_ca = |name: &str| name == "ca.pem" || name.starts_with("ca-") && name.ends_with(".pem");
    let mut ders: Vec<Vec<u8>> = std::fs::read_dir(data_dir)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(is_ca))
        .filter_map(|path| picket_pki::pem::certificates_from_pem(&std::fs::read(path).ok()?))
        .flatten()
        .collect();
    ders.sort();
    ders.dedup();
    let domain = Root::parse(ders.first()?).ok()?.trust_domain;
    Authorities::new(domain, ders).ok()
}

impl fmt::Display for Witnessed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problem {
            None => write!(f, "{} signed heads among the events fit the journal.", self.fit)?,
            Some(broken) => write!(
                f,
                "The events have a signed head that does not fit the journal: {broken}. Keep the data directory as it is."
            )?,
        }
        if self.foreign > 0 {
            write!(f, " {} others are not of this CA and say nothing.", self.foreign)?;
        }
        Ok(())
    }
}
