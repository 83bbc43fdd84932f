//! The identity files of one host, one for each thing, replaced whole.
//!
//! | file | is |
//! | --- | --- |
//! | `key.json` | a key that a certificate has been, or will be, asked for: written before the request goes out |
//! | `next.json` | a whole identity that the master has signed and has not seen used |
//! | `current.json` | the identity the agent works under |
//! | `previous.json` | the one before it, for a master that was restored from before the renewal |
//! | `request.json` | a key that a certificate request was made with, for a bundle without one |
//! | `bundle` | the fingerprint of the bundle that this machine used up last |
//! | `retired` | there while the machine of a retired host is cleaned up |
//!
//! Whatever step a crash comes after, doing the renewal again from its start ends in the same place.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use data_encoding::BASE64;
use picket_durable::FileError;
use picket_failpoint::{Point, pass};
use picket_pki::{Fingerprint, Key};
use picket_proto::{host::HostId, session::Trust};
use serde::Serialize;
use zeroize::Zeroize;

use super::{
    Identity, IdentityError,
    stored::{Stored, StoredKey, StoredRequest, VERSION, damaged, key},
};

/// The longest identity file that is read. One has about 4 KiB.
const LONGEST: u64 = 64 * 1024;
const KEY: &str = "key.json";
const NEXT: &str = "next.json";
const CURRENT: &str = "current.json";
const PREVIOUS: &str = "previous.json";
const REQUEST: &str = "request.json";
const BUNDLE: &str = "bundle";
const RETIRED: &str = "retired";
/// What the name of a file that was moved aside ends with.
const DAMAGED: &str = ".damaged";

/// The identity files of one host.
#[derive(Debug, Clone)]
pub struct IdentityStore {
    directory: PathBuf,
    /// Held while files change: what a session began to keep may still be on its way when the next one promotes.
    changing: Arc<Mutex<()>>,
}

/// The identities there are, the one to be tried first in front.
#[derive(Debug, Clone)]
pub struct Identities {
    /// Signed, and not yet used.
    pub next: Option<Identity>,
    /// The one to work under.
    pub current: Option<Identity>,
    /// The one before.
    pub previous: Option<Identity>,
}

impl IdentityStore {
    /// The store in `directory`, which is made when it is not there.
    ///
    /// # Errors
    /// When the directory cannot be made or is open to others.
    pub fn open(directory: PathBuf) -> Result<Self, IdentityError> {
        picket_durable::create_private_dir(&directory)?;
        Ok(Self {
            directory,
            changing: Arc::default(),
        })
    }

    /// Reads what there is.
    ///
    /// # Errors
    /// When a file is unreadable or open to others, or the current identity is damaged. Of the others a damaged one is
    /// moved aside and counts as absent: what it held can be had again while the current one is whole.
    pub fn load(&self) -> Result<Identities, IdentityError> {
        Ok(Identities {
            next: self.aside(NEXT, self.read(NEXT))?,
            current: self.read(CURRENT)?,
            previous: self.aside(PREVIOUS, self.read(PREVIOUS))?,
        })
    }

    /// Like [`Self::load`], for a machine that is about to be given another identity: a damaged current one is moved
    /// aside too.
    ///
    /// # Errors
    /// When a file is unreadable or open to others, or cannot be moved.
    pub fn salvage(&self) -> Result<Identities, IdentityError> {
        self.aside(CURRENT, self.read(CURRENT))?;
        self.load()
    }

    /// Moves a damaged file aside.
    fn aside<T>(
        &self,
        name: &str,
        read: Result<Option<T>, IdentityError>,
    ) -> Result<Option<T>, IdentityError> {
        let error = match read {
            Err(error @ IdentityError::Damaged { .. }) => error,
            read => return read,
        };
        let (from, to) = (self.path(name), self.path(&format!("{name}{DAMAGED}")));
        tracing::warn!(%error, to = %to.display(), "moves it aside and goes on without it");
        fs::rename(&from, to).map_err(|cause| IdentityError::Change { path: from, cause })?;
        Ok(None)
    }

    /// Notes that the bundle with this certificate was used up by this machine.
    ///
    /// # Errors
    /// When the note cannot be written.
    pub fn mark_spent(&self, bundle: &Identity) -> Result<(), IdentityError> {
        let text = Fingerprint::of(&bundle.certificate).to_string();
        pass(Point::AgentBeforeSpent);
        picket_durable::write_private(self.path(BUNDLE), text.as_bytes())?;
        pass(Point::AgentAfterSpent);
        match self.read_request()? {
            Some((key, false)) if key.public() == bundle.key.public() => self.write_request(&key, true),
            Some(_) | None => Ok(()),
        }
    }

    /// The key that this machine's certificate request was made with, if there was one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn request_key(&self) -> Result<Option<Key>, IdentityError> {
        Ok(self.read_request()?.map(|(key, _)| key))
    }

    /// The key to make a certificate request with; it is on disk when this returns. It is the same until a bundle for it
    /// was used up.
    ///
    /// # Errors
    /// When it cannot be made, written or read.
    pub fn key_to_request(&self) -> Result<Key, IdentityError> {
        match self.aside(REQUEST, self.read_request())? {
            Some((key, false)) => Ok(key),
            Some((_, true)) | None => self.another_key_to_request(),
        }
    }

    /// Like [`Self::key_to_request`], and always another one: a bundle for the one before is good for nothing here.
    ///
    /// # Errors
    /// When it cannot be made or written.
    pub fn another_key_to_request(&self) -> Result<Key, IdentityError> {
        let key = Key::generate()?;
        self.write_request(&key, false)?;
        Ok(key)
    }

    /// Whether the bundle with this certificate is the one that this machine used up last.
    #[must_use]
    pub fn is_spent(&self, bundle: &Identity) -> bool {
        let spent = picket_durable::read_private(self.path(BUNDLE), LONGEST);
        spent.is_ok_and(|text| *text == *Fingerprint::of(&bundle.certificate).to_string().as_bytes())
    }

    /// Notes that the host is retired and its machine not clean yet.
    ///
    /// # Errors
    /// When the note cannot be written.
    pub fn mark_retired(&self) -> Result<(), IdentityError> {
        Ok(picket_durable::write_private(self.path(RETIRED), b"")?)
    }

    /// Forgets that a host was retired that nothing is left of.
    ///
    /// # Errors
    /// When the note cannot be removed.
    pub fn forget_retired(&self) -> Result<(), IdentityError> {
        self.remove(RETIRED)
    }

    /// Whether the host is retired and its machine not clean yet.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.path(RETIRED).exists()
    }

    /// The key to ask a certificate for. It is on disk when this returns, and is the same at every call until
    /// [`Self::promote`].
    ///
    /// # Errors
    /// When it cannot be made, written or read.
    pub fn next_key(&self, host: HostId) -> Result<Key, IdentityError> {
        let _changing = self.changing();
        // A key that already has the current certificate is a leftover of a renewal that was completed.
        let used = self.read(CURRENT)?.map(|current| current.key);
        let is_used = |key: &Key| used.as_ref().is_some_and(|used| used.public() == key.public());
        if let Some((owner, key)) = self.aside(KEY, self.read_key())?
            && owner == host
            && !is_used(&key)
        {
            return Ok(key);
        }
        let key = Key::generate()?;
        let stored = StoredKey {
            version: VERSION,
            host,
            key: BASE64.encode(key.as_pkcs8()),
        };
        pass(Point::AgentBeforeKey);
        self.write(KEY, &stored)?;
        pass(Point::AgentAfterKey);
        Ok(key)
    }

    /// Keeps an identity that the master has signed and not yet seen.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep_next(&self, identity: &Identity) -> Result<(), IdentityError> {
        let _changing = self.changing();
        pass(Point::AgentBeforeCertificate);
        self.write(NEXT, &Stored::from(identity))?;
        pass(Point::AgentAfterCertificate);
        Ok(())
    }

    /// Makes the next identity the current one, after the master has seen it used.
    ///
    /// # Errors
    /// When a file cannot be written or moved. Calling again is safe.
    pub fn promote(&self) -> Result<(), IdentityError> {
        let _changing = self.changing();
        pass(Point::AgentBeforePromotion);
        if let Some(current) = self.read(CURRENT)? {
            self.write(PREVIOUS, &Stored::from(&current))?;
            pass(Point::AgentAfterPrevious);
        }
        // A rename that a power loss undoes is done again: the next identity is tried first at every start.
        let (from, to) = (self.path(NEXT), self.path(CURRENT));
        fs::rename(&from, to).map_err(|cause| IdentityError::Change { path: from, cause })?;
        pass(Point::AgentAfterCurrent);
        self.remove(KEY)?;
        pass(Point::AgentAfterPromotion);
        Ok(())
    }

    /// Trusts these CAs from here on. They are on disk when this returns the current identity, which trusts them.
    ///
    /// # Errors
    /// When one of them is not vouched for by one that is trusted, or a file cannot be written. Calling again is safe.
    pub fn trust(&self, trust: &Trust) -> Result<Identity, IdentityError> {
        let _changing = self.changing();
        let current = self.read(CURRENT)?.ok_or(IdentityError::NotEnrolled)?;
        let trusting = current.trusting(trust)?;
        if trusting.authorities != current.authorities {
            self.write(CURRENT, &Stored::from(&trusting))?;
        }
        // The identity before is left as it is: it is for a master that was restored from before.
        if let Some(next) = self.aside(NEXT, self.read(NEXT))?
            && next.authorities != trusting.authorities
        {
            let authorities = trusting.authorities.clone();
            self.write(NEXT, &Stored::from(&Identity { authorities, ..next }))?;
        }
        Ok(trusting)
    }

    /// Forgets an identity that the master will not take any more.
    ///
    /// # Errors
    /// When the files cannot be removed.
    pub fn drop_next(&self) -> Result<(), IdentityError> {
        let _changing = self.changing();
        self.remove(NEXT)?;
        self.remove(KEY)
    }

    /// Removes every key and certificate: the host is retired.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn clear(&self) -> Result<(), IdentityError> {
        self.clear_host()?;
        self.remove_whole(REQUEST)
    }

    /// Removes every key and certificate of the host that this machine was. The key of a request is the machine's, and a
    /// bundle for it may be what makes it another host.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn clear_host(&self) -> Result<(), IdentityError> {
        let _changing = self.changing();
        for name in [KEY, NEXT, PREVIOUS, CURRENT] {
            self.remove_whole(name)?;
        }
        self.remove(BUNDLE)?;
        self.remove(RETIRED)
    }

    fn remove_whole(&self, name: &str) -> Result<(), IdentityError> {
        self.remove(name)?;
        // It may hold a key all the same.
        self.remove(&format!("{name}{DAMAGED}"))
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn read(&self, name: &str) -> Result<Option<Identity>, IdentityError> {
        let path = self.path(name);
        let Some(mut bytes) = read(&path)? else {
            return Ok(None);
        };
        let stored = serde_json::from_slice::<Stored>(&bytes).map_err(|error| damaged(&path, &error));
        bytes.zeroize();
        stored?.read(&path).map(Some)
    }

    fn read_key(&self) -> Result<Option<(HostId, Key)>, IdentityError> {
        let path = self.path(KEY);
        let Some(mut bytes) = read(&path)? else {
            return Ok(None);
        };
        let stored = serde_json::from_slice::<StoredKey>(&bytes).map_err(|error| damaged(&path, &error));
        bytes.zeroize();
        let stored = stored?;
        Ok(Some((stored.host, key(&path, &stored.key)?)))
    }

    fn read_request(&self) -> Result<Option<(Key, bool)>, IdentityError> {
        let path = self.path(REQUEST);
        let Some(mut bytes) = read(&path)? else {
            return Ok(None);
        };
        let stored = serde_json::from_slice::<StoredRequest>(&bytes).map_err(|error| damaged(&path, &error));
        bytes.zeroize();
        let stored = stored?;
        Ok(Some((key(&path, &stored.key)?, stored.used)))
    }

    fn write_request(&self, key: &Key, used: bool) -> Result<(), IdentityError> {
        let stored = StoredRequest {
            version: VERSION,
            key: BASE64.encode(key.as_pkcs8()),
            used,
        };
        self.write(REQUEST, &stored)
    }

    fn write(&self, name: &str, value: &impl Serialize) -> Result<(), IdentityError> {
        let path = self.path(name);
        let mut bytes = serde_json::to_vec_pretty(value).map_err(|error| damaged(&path, &error))?;
        let written = picket_durable::write_private(&path, &bytes);
        bytes.zeroize();
        Ok(written?)
    }

    fn remove(&self, name: &str) -> Result<(), IdentityError> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(IdentityError::Change { path, cause })
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, IdentityError> {
    match picket_durable::read_private(path, LONGEST) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(FileError::Read { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::{Ca, HOST};

    fn store(root: &tempfile::TempDir) -> IdentityStore {
        IdentityStore::open(root.path().join("identity")).unwrap()
    }

    /// One renewal; `crash_after` stops it after so many of its steps. Returns whether it came to its end.
    fn renew(store: &IdentityStore, ca: &Ca, base: &Identity, crash_after: usize) -> bool {
        if crash_after == 0 {
            return false;
        }
        let key = store.next_key(HOST).unwrap();
        if crash_after == 1 {
            return false;
        }
        let next = base.renewed(key.clone(), ca.sign(&key), Vec::new()).unwrap();
        store.keep_next(&next).unwrap();
        if crash_after == 2 {
            return false;
        }
        store.promote().unwrap();
        true
    }

    #[test]
    fn whatever_step_a_crash_comes_after_the_renewal_ends_under_the_key_that_was_stored_first() {
        let ca = Ca::new();
        let bundle = ca.identity();
        for crash_after in 0..3 {
            let root = tempfile::tempdir().unwrap();
            assert!(!renew(&store(&root), &ca, &bundle, crash_after));
            let stored = (crash_after > 0).then(|| store(&root).next_key(HOST).unwrap());
            assert!(renew(&store(&root), &ca, &bundle, 9));
            let found = store(&root).load().unwrap();
            let current = found.current.unwrap();
            if let Some(stored) = stored {
                assert_eq!(current.key.public(), stored.public());
            }
            assert!(found.next.is_none() && found.previous.is_none());
        }
    }

    #[test]
    fn a_crash_inside_the_promotion_loses_neither_identity() {
        let ca = Ca::new();
        let root = tempfile::tempdir().unwrap();
        let store = store(&root);
        renew(&store, &ca, &ca.identity(), 9);
        let first = store.load().unwrap().current.unwrap();
        renew(&store, &ca, &first, 2);
        let second = store.load().unwrap().next.unwrap();
        // The promotion has moved the files and died before it removed the key.
        picket_durable::write_private(store.path(PREVIOUS), &fs::read(store.path(CURRENT)).unwrap()).unwrap();
        fs::rename(store.path(NEXT), store.path(CURRENT)).unwrap();
        let found = store.load().unwrap();
        assert_eq!(found.current.unwrap().key.public(), second.key.public());
        assert_eq!(found.previous.unwrap().key.public(), first.key.public());
        // The key that is in use is not asked another certificate for.
        assert_ne!(store.next_key(HOST).unwrap().public(), second.key.public());
    }

    #[test]
    fn cas_that_are_kept_while_the_next_session_promotes_do_not_bring_the_identity_before_back() {
        let (ca, root) = (Ca::new(), tempfile::tempdir().unwrap());
        let store = store(&root);
        renew(&store, &ca, &ca.identity(), 9);
        let [one, two] = [ca.trust(&[]), ca.trust(&[&Ca::new()])];
        std::thread::scope(|threads| {
            let late = threads.spawn(|| {
                for _ in 0..40 {
                    store.trust(&two).unwrap();
                    store.trust(&one).unwrap();
                }
            });
            while !late.is_finished() {
                let base = store.load().unwrap().current.unwrap();
                let key = store.next_key(HOST).unwrap();
                let next = base.renewed(key.clone(), ca.sign(&key), Vec::new()).unwrap();
                store.keep_next(&next).unwrap();
                store.promote().unwrap();
                let found = store.load().unwrap();
                assert_eq!(found.current.unwrap().key.public(), key.public());
                assert!(
                    found.next.is_none(),
                    "what was promoted is not there a second time"
                );
            }
        });
    }

    #[test]
    fn the_key_of_a_request_is_the_same_until_it_was_used_and_outlives_the_host_that_the_machine_was() {
        let ca = Ca::new();
        let root = tempfile::tempdir().unwrap();
        let store = store(&root);
        let key = store.key_to_request().unwrap();
        assert_eq!(store.key_to_request().unwrap().public(), key.public());
        renew(&store, &ca, &ca.identity(), 9);
        store.mark_spent(&ca.identity()).unwrap();
        store.clear_host().unwrap();
        assert!(store.load().unwrap().current.is_none());
        assert_eq!(
            store.key_to_request().unwrap().public(),
            key.public(),
            "another bundle was used up, not one for this key"
        );
        let used = Identity {
            key: key.clone(),
            ..ca.identity()
        };
        store.mark_spent(&used).unwrap();
        assert_eq!(store.request_key().unwrap().unwrap().public(), key.public());
        assert_ne!(store.key_to_request().unwrap().public(), key.public());
        store.clear().unwrap();
        assert!(store.request_key().unwrap().is_none());
    }

    #[test]
    fn the_previous_identity_stays_until_the_next_renewal() {
        let ca = Ca::new();
        let root = tempfile::tempdir().unwrap();
        let store = store(&root);
        let mut keys = Vec::new();
        for _ in 0..3 {
            let base = store.load().unwrap().current.unwrap_or_else(|| ca.identity());
            assert!(renew(&store, &ca, &base, 9));
            let found = store.load().unwrap();
            let previous = found.previous.map(|identity| identity.key.public().clone());
            assert_eq!(previous.as_ref(), keys.last());
            keys.push(found.current.unwrap().key.public().clone());
        }
        store.clear().unwrap();
        assert!(store.load().unwrap().current.is_none());
    }

    #[test]
    fn a_damaged_file_is_named_and_an_exposed_one_is_refused() {
        let ca = Ca::new();
        let root = tempfile::tempdir().unwrap();
        let store = store(&root);
        renew(&store, &ca, &ca.identity(), 9);
        let path = store.path(CURRENT);
        let text = fs::read_to_string(&path).unwrap();
        picket_durable::write(&path, text.as_bytes(), 0o644).unwrap();
        assert!(matches!(
            store.load(),
            Err(IdentityError::File(FileError::Exposed { .. }))
        ));
        picket_durable::write_private(&path, &text.as_bytes()[..200]).unwrap();
        let error = store.load().unwrap_err().to_string();
        assert!(error.contains("current.json is damaged"), "{error}");
    }
}
