//! The bundle in use is renewed in its place, when half the life of its certificate is over.
//!
//! | file | is |
//! | --- | --- |
//! | `FILE` | the bundle in use |
//! | `FILE.key` | a key that a certificate was, or will be, asked for: written before the request goes out |
//! | `FILE.previous` | the bundle before, until the one in `FILE` has been used |
//!
//! Each is replaced whole and for its owner alone. Whatever step a crash comes after, the next command goes on from there:
//! the same key gets the same certificate, and the certificate before it ends with the first call under the new one. A
//! renewal that fails is a remark and never the command's failure.

use std::{
    fs,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use picket_durable::FileError;
use picket_pki::{Bundle, BundleError, Certificate, Key, KeyError, bundle};
use picket_proto::wire::admin::{
    GetSelfRequest, RenewOperatorRequest, RenewOperatorResponse,
    operator_service_client::OperatorServiceClient,
};
use tonic::{Code, transport::Channel};

use crate::{
    desk::Desk,
    fault::{About, Fault},
};

/// A key file has about 240 bytes.
const LONGEST_KEY: u64 = 4096;

/// A bundle and the file it is in.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) file: PathBuf,
    pub(crate) bundle: Bundle,
    pub(crate) certificate: Certificate,
    /// It is the one before the one in the file, which the master does not take.
    pub(crate) is_previous: bool,
}

/// Why a bundle is not renewed.
#[derive(Debug, thiserror::Error)]
enum NotRenewed {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("what the master answered is of no use: {0}")]
    Answer(#[from] BundleError),
    #[error("{0}")]
    Refused(Fault),
    /// The master is not asked in vain again and again: it does not know how, or was asked a moment ago.
    #[error("not just now")]
    Later,
}

impl Kept {
    fn beside(&self, ending: &str) -> PathBuf {
        let mut name = self.file.clone().into_os_string();
        name.push(ending);
        name.into()
    }

    fn key_file(&self) -> PathBuf {
        self.beside(".key")
    }

    fn previous_file(&self) -> PathBuf {
        self.beside(".previous")
    }

    /// The bundle before this one, where it is of the same operator and still good.
    pub(crate) fn previous(&self, now: Timestamp) -> Option<Self> {
        let limit = u64::try_from(bundle::LONGEST).unwrap_or(u64::MAX);
        let bytes = picket_durable::read_private(self.previous_file(), limit).ok()?;
        let bundle = Bundle::parse(&bytes).ok()?;
        let certificate = bundle.check(now).ok()?;
        let same = bundle.holder == self.bundle.holder && bundle.trust_domain == self.bundle.trust_domain;
        same.then(|| Self {
            file: self.file.clone(),
            bundle,
            certificate,
            is_previous: true,
        })
    }

    /// Whether half of the certificate's life is over.
    fn is_due(&self, now: Timestamp) -> bool {
        let Certificate {
            not_before,
            not_after,
            ..
        } = self.certificate;
        now >= not_before + not_after.duration_since(not_before) / 2
    }

    /// The key to ask a certificate for: the one of a renewal that was not finished, or another one, on disk.
    fn next_key(&self) -> Result<Key, NotRenewed> {
        if let Some(key) = self.unfinished() {
            return Ok(key);
        }
        let (path, key) = (self.key_file(), Key::generate()?);
        if picket_durable::create_private(&path, key.to_pem().as_bytes()).is_ok() {
            return Ok(key);
        }
        // Another command was faster, and both ask for the same certificate; or what is there is of no use.
        if let Some(first) = self.unfinished() {
            return Ok(first);
        }
        picket_durable::write_private(&path, key.to_pem().as_bytes())?;
        Ok(key)
    }

    fn unfinished(&self) -> Option<Key> {
        let pem = picket_durable::read_private(self.key_file(), LONGEST_KEY).ok()?;
        let key = Key::from_pem(&pem).ok()?;
        // One that is in use is of a renewal that stopped before its last step.
        (key.public() != self.bundle.key.public()).then_some(key)
    }

    /// Puts the renewed bundle in the place of this one.
    fn replace(&self, renewed: &Bundle) -> Result<(), NotRenewed> {
        picket_durable::write_private(self.previous_file(), self.bundle.encode()?.as_bytes())?;
        picket_durable::write_private(&self.file, renewed.encode()?.as_bytes())?;
        remove(&self.key_file());
        Ok(())
    }
}

/// Renews the bundle over the connection that was made with it, when it is due; the connection goes on as it is.
pub(crate) async fn renew(desk: &mut Desk, channel: &Channel, kept: &Kept) {
    if !kept.is_previous && kept.previous_file().exists() {
        settle(desk, channel, kept).await;
    }
    if !kept.is_previous && !kept.is_due(desk.clock.now()) {
        return;
    }
    match renewed(desk, channel, kept).await {
        Ok(()) | Err(NotRenewed::Later) => {}
        Err(error) => {
            let why = chain(&error);
            desk.print.note(&format!(
                "picketctl: the bundle {} could not be renewed: {why}. It is good until {}; before then make the file and \
                 its directory writable for you alone, or let an admin add this device again",
                kept.file.display(),
                kept.certificate.not_after
            ));
        }
    }
}

/// The bundle before is of no use once this one has been used.
async fn settle(desk: &Desk, channel: &Channel, kept: &Kept) {
    let about = About::reading("show who you are", "picketctl operator show");
    let mut operators = OperatorServiceClient::new(channel.clone());
    let used = desk.call(&about, operators.get_self(GetSelfRequest {})).await;
    if used.is_ok() {
        remove(&kept.previous_file());
    }
}

async fn renewed(desk: &Desk, channel: &Channel, kept: &Kept) -> Result<(), NotRenewed> {
    let key = kept.next_key()?;
    let about = About::changing("renew the bundle", "picketctl operator show");
    let mut operators = OperatorServiceClient::new(channel.clone());
    let asked = RenewOperatorRequest {
        csr: key.csr()?.into(),
    };
    let answer = desk.call(&about, operators.renew_operator(asked)).await;
    // Which CAs are trusted is not the master's word alone: see `Desk::follow`.
    let RenewOperatorResponse { certificate, .. } = answer.map_err(|fault| {
        let later = matches!(
            fault,
            Fault::Refused {
                code: Code::Unimplemented | Code::FailedPrecondition,
                ..
            }
        );
        if later {
            NotRenewed::Later
        } else {
            NotRenewed::Refused(fault)
        }
    })?;
    let next = Bundle {
        certificate: certificate.to_vec(),
        key,
        ..kept.bundle.clone()
    };
    next.check(desk.clock.now())?;
    kept.replace(&next)
}

fn remove(path: &Path) {
    // One that will not go away is tried again by the next renewal, and opens nothing meanwhile.
    drop(fs::remove_file(path));
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
