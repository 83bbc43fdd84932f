//! What was seen of a journal the last time: its newest head, kept in the operator's home, one for each trust domain. A
//! master whose whole disk was rewritten cannot change it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use picket_pki::{Head, SignedHead, TrustDomain, head};

use crate::fault::Fault;

/// The newest head that was checked.
pub(super) struct Memory {
    /// Nobody has a home here, so nothing is remembered.
    path: Option<PathBuf>,
}

impl Memory {
    pub(super) fn of(home: Option<&Path>, domain: &TrustDomain) -> Self {
        Self {
            path: home.map(|home| home.join(".config/picket").join(format!("audit-head.{domain}"))),
        }
    }

    /// What was remembered. It was checked when it was written, and only its owner can write it, so that neither a CA that
    /// has been rotated since nor the master of today has a say in it.
    pub(super) fn recall(&self) -> Result<Option<Head>, Fault> {
        let Some(path) = self.path.as_deref().filter(|path| path.exists()) else {
            return Ok(None);
        };
        let limit = u64::try_from(head::LONGEST).unwrap_or(u64::MAX);
        let bytes = picket_durable::read_private(path, limit)?;
        let text = String::from_utf8_lossy(&bytes);
        match text.trim_end().parse::<SignedHead>() {
            Ok(signed) => Ok(Some(signed.unchecked().clone())),
            Err(error) => Err(Fault::Failed(format!(
                "{} cannot be read ({error}), and with it what was seen of the journal before; find out who changed it, \
                 and begin anew with `picketctl audit verify --forget`",
                path.display()
            ))),
        }
    }

    /// Remembers a head that was checked.
    pub(super) fn keep(&self, signed: &SignedHead) -> Result<(), Fault> {
        let Some(path) = &self.path else { return Ok(()) };
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)
                .map_err(|cause| Fault::Failed(format!("cannot make {}: {cause}", dir.display())))?;
        }
        Ok(picket_durable::write_private(
            path,
            format!("{signed}\n").as_bytes(),
        )?)
    }
}
