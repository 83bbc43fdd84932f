//! The files of the CAs: `ca.pem` and `ca.key` for the first one, `ca-<8 digits of its fingerprint>` for each later one.
//!
//! They are on disk before a record says that there is such a CA. One that no record names is of a crash in between, or
//! of a store that was restored from before; it is taken up by the next rotation, and removed by nobody.

use std::{
    io,
    path::{Path, PathBuf},
};

use jiff::{SignedDuration, Timestamp};
use picket_pki::{Authority, Fingerprint, lifetime, pem};

use super::{CaRecord, Phase};
use crate::signer::{self, Signer, SignerError};

/// A CA that was left over is taken up when no more of its life than this is over.
const FRESH: SignedDuration = SignedDuration::from_hours(90 * 24);

/// Where the certificate and the key of a CA are, other than the first one's.
#[must_use]
pub fn paths(data_dir: &Path, ca: Fingerprint) -> (PathBuf, PathBuf) {
    let digits: String = ca.to_string().chars().take(8).collect();
    let stem = format!("ca-{digits}");
    (
        data_dir.join(format!("{stem}.pem")),
        data_dir.join(format!("{stem}.key")),
    )
}

/// Loads the CA with this fingerprint.
///
/// # Errors
/// When its files are missing, readable by others, or another CA's.
pub fn load(signer: &Signer, data_dir: &Path, ca: Fingerprint) -> Result<Authority, SignerError> {
    let (mut certificate, mut key) = paths(data_dir, ca);
    let first = signer::certificate_path(data_dir);
    if is(&first, ca) {
        (certificate, key) = (first, signer::key_path(data_dir));
    }
    let authority = signer.open(&certificate, &key)?;
    if authority.fingerprint() != ca {
        return Err(SignerError::OtherCa {
            path: certificate,
            wanted: ca,
            seen: authority.fingerprint(),
        });
    }
    Ok(authority)
}

/// Why the key of a CA cannot be had any more; nothing when it can, or when that cannot be told at the moment.
#[must_use]
pub fn lost(signer: &Signer, data_dir: &Path, ca: Fingerprint) -> Option<SignerError> {
    let found = load(signer, data_dir, ca).and_then(|authority| signer.has(&authority));
    found.err().filter(SignerError::is_lost)
}

/// Moves the files of a CA out of the way whose key cannot be had, so that nothing that opens all keys stops at them.
pub fn put_aside(data_dir: &Path, ca: Fingerprint) {
    let (certificate, key) = paths(data_dir, ca);
    for path in [certificate, key] {
        let to = path.with_extension(match path.extension() {
            Some(kind) => format!("{}.lost", kind.display()),
            None => "lost".to_owned(),
        });
        match std::fs::rename(&path, &to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, path = %path.display(), "stays where it is, and is of no use");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// Makes another CA and keeps it, or takes up one that a crash left over, unless its key was there when another one was
/// stolen.
///
/// # Errors
/// When it cannot be made or kept.
pub fn next(
    signer: &Signer,
    data_dir: &Path,
    record: &CaRecord,
    now: Timestamp,
) -> Result<Authority, SignerError> {
    match left_over(signer, data_dir, record, now) {
        Some(found) => Ok(found),
        None => create(signer, data_dir, record, now),
    }
}

/// Makes another CA and keeps it.
///
/// # Errors
/// When it cannot be made or kept.
pub fn create(
    signer: &Signer,
    data_dir: &Path,
    record: &CaRecord,
    now: Timestamp,
) -> Result<Authority, SignerError> {
    let known: Vec<_> = record
        .roots
        .iter()
        .map(|root| root.certificate.0.clone())
        .collect();
    let (authority, text) = signer.make(&signer.trust_domain(), &known, now)?;
    let (certificate, key) = paths(data_dir, authority.fingerprint());
    if let Some(text) = text {
        picket_durable::create_private(&key, text.as_bytes())?;
    }
    picket_durable::write_private(&certificate, authority.certificate_pem().as_bytes())?;
    Ok(authority)
}

fn left_over(signer: &Signer, data_dir: &Path, record: &CaRecord, now: Timestamp) -> Option<Authority> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(data_dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            name.starts_with("ca-") && name.ends_with(".pem")
        })
        .collect();
    found.sort();
    let stolen = record.roots.iter().filter(|root| root.phase == Phase::Distrusted);
    let stolen_at = stolen.filter_map(|root| root.retired_at).max();
    let usable = |path: &PathBuf| {
        let authority = signer.open(path, &path.with_extension("key")).ok()?;
        let made_at = authority.validity().not_after - lifetime::CA;
        let is_fresh = now.duration_since(made_at) < FRESH && stolen_at.is_none_or(|at| made_at > at);
        let is_new = !record
            .roots
            .iter()
            .any(|root| root.fingerprint == authority.fingerprint());
        let is_whole = paths(data_dir, authority.fingerprint()).0 == *path;
        (is_new && is_whole && is_fresh && authority.trust_domain() == &signer.trust_domain())
            .then_some(authority)
    };
    found.iter().find_map(usable)
}

/// Whether the certificate in a file is this CA's.
fn is(path: &Path, ca: Fingerprint) -> bool {
    let text: io::Result<Vec<u8>> = std::fs::read(path);
    text.ok()
        .and_then(|text| pem::certificates_from_pem(&text))
        .and_then(|found| found.first().map(|der| Fingerprint::of(der) == ca))
        .unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use picket_clock::Clock;

    use super::*;
    use crate::signer::CaKey;

    #[tokio::test]
    async fn a_ca_that_a_crash_left_over_is_taken_up_and_one_on_record_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let signer = signer(&dir.path().join("ca")).await;
        picket_durable::create_private_dir(dir.path().join("data")).unwrap();
        let data = dir.path().join("data");
        let record = CaRecord::first(b"first", now());
        let made = next(&signer, &data, &record, now()).unwrap();
        let again = next(&signer, &data, &record, now()).unwrap();
        assert_eq!(made.fingerprint(), again.fingerprint());
        let on_record = CaRecord::first(made.certificate(), now());
        let other = next(&signer, &data, &on_record, now()).unwrap();
        assert_ne!(other.fingerprint(), made.fingerprint());
        assert_eq!(
            load(&signer, &data, made.fingerprint()).unwrap().fingerprint(),
            made.fingerprint()
        );
    }

    #[tokio::test]
    async fn half_a_ca_and_an_old_one_are_not_taken_up() {
        let dir = tempfile::tempdir().unwrap();
        let signer = signer(&dir.path().join("ca")).await;
        let data = dir.path().join("data");
        picket_durable::create_private_dir(&data).unwrap();
        let record = CaRecord::first(b"first", now());
        let half = create(&signer, &data, &record, now()).unwrap();
        std::fs::remove_file(paths(&data, half.fingerprint()).0).unwrap();
        let old = create(
            &signer,
            &data,
            &record,
            now() - SignedDuration::from_hours(91 * 24),
        )
        .unwrap();
        let made = next(&signer, &data, &record, now()).unwrap();
        assert!(made.fingerprint() != half.fingerprint() && made.fingerprint() != old.fingerprint());
    }

    #[tokio::test]
    async fn what_lay_beside_a_stolen_key_is_not_taken_up() {
        let dir = tempfile::tempdir().unwrap();
        let signer = signer(&dir.path().join("ca")).await;
        let data = dir.path().join("data");
        picket_durable::create_private_dir(&data).unwrap();
        let mut record = CaRecord::first(b"first", now());
        let beside = create(&signer, &data, &record, now()).unwrap();
        record.replace(b"second", now() + SignedDuration::from_secs(60));
        let made = next(&signer, &data, &record, now() + SignedDuration::from_secs(120)).unwrap();
        assert_ne!(made.fingerprint(), beside.fingerprint());
    }

    #[tokio::test]
    async fn a_key_that_is_damaged_or_gone_is_lost_and_one_that_others_can_read_is_not() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let signer = signer(&dir.path().join("ca")).await;
        let data = dir.path().join("data");
        picket_durable::create_private_dir(&data).unwrap();
        let made = create(&signer, &data, &CaRecord::first(b"first", now()), now()).unwrap();
        let ca = made.fingerprint();
        let lost = || lost(&signer, &data, ca).map(|error| crate::status::chain(&error));
        assert_eq!(lost(), None);
        let key = paths(&data, ca).1;
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(lost(), None, "chmod brings it back");
        picket_durable::write_private(&key, b"half a ke").unwrap();
        assert!(lost().unwrap().contains("holds no key"), "{:?}", lost());
        put_aside(&data, ca);
        assert!(lost().is_some() && !key.exists());
        assert_eq!(std::fs::read_dir(&data).unwrap().count(), 2, "nothing is removed");
    }

    #[tokio::test]
    async fn a_ca_that_is_not_there_is_asked_for_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let signer = signer(&dir.path().join("ca")).await;
        let error = load(&signer, dir.path(), Fingerprint::of(b"gone")).unwrap_err();
        assert!(
            crate::status::chain(&error).contains("ca-"),
            "{}",
            crate::status::chain(&error)
        );
    }

    async fn signer(dir: &Path) -> Signer {
        picket_durable::create_private_dir(dir).unwrap();
        let (domain, clock) = ("example.org".parse().unwrap(), Clock::simulated(now()));
        Signer::create(dir, &CaKey::Plain, &domain, &clock).await.unwrap()
    }

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }
}
