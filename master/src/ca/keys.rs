//! The files of the CAs: `ca.pem` and `ca.key` for the first one, `ca-<8 digits of its fingerprint>` for each later one.
//!
//! They are on disk before a record says that there is such a CA. One that no record names is of a crash in between, or
//! of a store that was restored from before; it is taken up by the next rotation, and removed by nobody.

use std::{
    io,
    path::{Path, PathBuf},
};

use jiff::{SignedDuration, Timestamp};
use picket_pki::{Authority, Fingerprint, TrustDomain, lifetime, pem};

use super::{CaRecord, Phase};
use crate::signer::{self, SignerError};

/// The longest CA file that is read.
const LONGEST: u64 = 16 * 1024;
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
pub fn load(data_dir: &Path, ca: Fingerprint) -> Result<Authority, SignerError> {
    let (mut certificate, mut key) = paths(data_dir, ca);
    let first = signer::certificate_path(data_dir);
    if is(&first, ca) {
        (certificate, key) = (first, signer::key_path(data_dir));
    }
    let authority = read(&certificate, &key)?;
    if authority.fingerprint() != ca {
        return Err(SignerError::OtherCa {
            path: certificate,
            wanted: ca,
            seen: authority.fingerprint(),
        });
    }
    Ok(authority)
}

/// Makes another CA and keeps it, or takes up one that a crash left over, unless its key was there when another one was
/// stolen.
///
/// # Errors
/// When it cannot be made or kept.
pub fn next(
    data_dir: &Path,
    domain: &TrustDomain,
    record: &CaRecord,
    now: Timestamp,
) -> Result<Authority, SignerError> {
    match left_over(data_dir, domain, record, now) {
        Some(found) => Ok(found),
        None => create(data_dir, domain, now),
    }
}

/// Makes another CA and keeps it.
///
/// # Errors
/// When it cannot be made or kept.
pub fn create(data_dir: &Path, domain: &TrustDomain, now: Timestamp) -> Result<Authority, SignerError> {
    let authority = Authority::create(domain, now)?;
    let (certificate, key) = paths(data_dir, authority.fingerprint());
    picket_durable::create_private(&key, authority.key_pem().as_bytes())?;
    picket_durable::write_private(&certificate, authority.certificate_pem().as_bytes())?;
    Ok(authority)
}

fn left_over(data_dir: &Path, domain: &TrustDomain, record: &CaRecord, now: Timestamp) -> Option<Authority> {
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
        let authority = read(path, &path.with_extension("key")).ok()?;
        let made_at = authority.validity().not_after - lifetime::CA;
        let is_fresh = now.duration_since(made_at) < FRESH && stolen_at.is_none_or(|at| made_at > at);
        let is_new = !record
            .roots
            .iter()
            .any(|root| root.fingerprint == authority.fingerprint());
        let is_whole = paths(data_dir, authority.fingerprint()).0 == *path;
        (is_new && is_whole && is_fresh && authority.trust_domain() == domain).then_some(authority)
    };
    found.iter().find_map(usable)
}

fn read(certificate: &Path, key: &Path) -> Result<Authority, SignerError> {
    let key = picket_durable::read_private(key, LONGEST)?;
    let certificate = picket_durable::read_private(certificate, LONGEST)?;
    Ok(Authority::load(&certificate, &key)?)
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
    use super::*;

    #[test]
    fn a_ca_that_a_crash_left_over_is_taken_up_and_one_on_record_is_not() {
        let dir = tempfile::tempdir().unwrap();
        picket_durable::create_private_dir(dir.path().join("data")).unwrap();
        let data = dir.path().join("data");
        let record = CaRecord::first(b"first", now());
        let made = next(&data, &domain(), &record, now()).unwrap();
        let again = next(&data, &domain(), &record, now()).unwrap();
        assert_eq!(made.fingerprint(), again.fingerprint());
        let on_record = CaRecord::first(made.certificate(), now());
        let other = next(&data, &domain(), &on_record, now()).unwrap();
        assert_ne!(other.fingerprint(), made.fingerprint());
        assert_eq!(
            load(&data, made.fingerprint()).unwrap().fingerprint(),
            made.fingerprint()
        );
    }

    #[test]
    fn half_a_ca_and_an_old_one_are_not_taken_up() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        picket_durable::create_private_dir(&data).unwrap();
        let record = CaRecord::first(b"first", now());
        let half = create(&data, &domain(), now()).unwrap();
        std::fs::remove_file(paths(&data, half.fingerprint()).0).unwrap();
        let old = create(&data, &domain(), now() - SignedDuration::from_hours(91 * 24)).unwrap();
        let made = next(&data, &domain(), &record, now()).unwrap();
        assert!(made.fingerprint() != half.fingerprint() && made.fingerprint() != old.fingerprint());
    }

    #[test]
    fn what_lay_beside_a_stolen_key_is_not_taken_up() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        picket_durable::create_private_dir(&data).unwrap();
        let mut record = CaRecord::first(b"first", now());
        let beside = create(&data, &domain(), now()).unwrap();
        record.replace(b"second", now() + SignedDuration::from_secs(60));
        let made = next(&data, &domain(), &record, now() + SignedDuration::from_secs(120)).unwrap();
        assert_ne!(made.fingerprint(), beside.fingerprint());
    }

    #[test]
    fn a_ca_that_is_not_there_is_asked_for_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let error = load(dir.path(), Fingerprint::of(b"gone")).unwrap_err();
        assert!(
            crate::status::chain(&error).contains("ca-"),
            "{}",
            crate::status::chain(&error)
        );
    }

    fn domain() -> TrustDomain {
        "example.org".parse().unwrap()
    }

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }
}
