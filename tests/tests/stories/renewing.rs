//! `picketctl` against a master: an operator's bundle is renewed as it is used, and no step of that locks anybody out.

#![allow(
    clippy::unwrap_used,
    reason = "a story that fails here says where, which is all there is to say"
)]

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use jiff::SignedDuration;
use picket_link::Wire;
use picket_pki::{Bundle, Key, Refusal};
use picket_tests::{
    OperatorRole::Viewer,
    Site,
    stranger::{Door, Stranger},
};
use picketctl::{Exit, Terminals, World};

#[tokio::test(start_paused = true)]
async fn a_bundle_past_half_its_life_is_renewed_in_its_place_and_the_old_one_ends_with_the_next_command() {
    let (site, desk) = begin().await;
    let first = desk.bytes();
    desk.types(0, "host list").await.done();
    assert_eq!(desk.bytes(), first, "it is not due");
    desk.types(16, "host list").await.done();
    assert_ne!(desk.bytes(), first);
    assert_eq!(desk.files(), ["ana.bundle", "ana.bundle.previous"]);
    assert_eq!(desk.mode(), 0o600);
    let old = Stranger::with_bundle(&site, &first);
    old.connect(Door::Admin)
        .await
        .expect("it is good until the new one is used");
    let renewed = desk.bytes();
    desk.types(0, "host list").await.done();
    assert_eq!(old.refused_at(Door::Admin).await, Refusal::Spent);
    assert_eq!(desk.files(), ["ana.bundle"], "what was used needs none before it");
    assert_eq!(desk.bytes(), renewed);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_was_killed_after_any_of_its_steps_is_finished_by_the_next_command() {
    let (_site, desk) = begin().await;
    let first = desk.bytes();
    let key = Key::generate().unwrap();
    // The key is on disk and the request is not out, or its answer is lost.
    desk.write("ana.bundle.key", key.to_pem().as_bytes());
    desk.types(16, "host list").await.done();
    let renewed = Bundle::parse(&desk.bytes()).unwrap();
    assert_eq!(
        renewed.key.public(),
        key.public(),
        "the same key, so that the master gives the same certificate"
    );
    // The old bundle is put aside and the new one is not in its place.
    let second = desk.bytes();
    desk.write("ana.bundle", &first);
    desk.write("ana.bundle.key", key.to_pem().as_bytes());
    desk.types(16, "host list").await.done();
    assert_eq!(desk.bytes(), second);
    // The new one is in its place, and its key is still there.
    desk.write("ana.bundle.key", key.to_pem().as_bytes());
    desk.types(0, "host list").await.done();
    let said = desk.types(16, "host list").await.done();
    assert_eq!(said.err, "", "{}", said.err);
}

#[tokio::test(start_paused = true)]
async fn a_bundle_that_the_master_does_not_know_gives_way_to_the_one_before_it() {
    let (site, desk) = begin().await;
    let first = desk.bytes();
    // The master was restored from before the renewal: it never pinned what is in the file.
    let other = site
        .unpinned_operator("ana", SignedDuration::from_hours(24))
        .encode()
        .unwrap();
    let other = other.as_bytes();
    desk.write("ana.bundle", other);
    desk.write("ana.bundle.previous", &first);
    desk.types(0, "host list").await.done();
    assert_ne!(desk.bytes(), other, "it is renewed at once");
    desk.types(0, "host list").await.done();
    assert_eq!(desk.files(), ["ana.bundle"]);
}

#[tokio::test(start_paused = true)]
async fn a_bundle_in_a_place_that_cannot_be_written_is_used_with_one_remark() {
    let (_site, desk) = begin().await;
    // A directory in the place of the key keeps root out as well.
    fs::create_dir(desk.path("ana.bundle.key")).unwrap();
    let first = desk.bytes();
    let said = desk.types(16, "host list").await.done();
    assert_eq!(desk.bytes(), first);
    assert_eq!(
        said.err.matches("could not be renewed").count(),
        1,
        "{}",
        said.err
    );
}

struct Office {
    dir: tempfile::TempDir,
    clock: picket_clock::Clock,
    wire: Wire,
}

async fn begin() -> (Site, Office) {
    let site = Site::new().await;
    site.bundle("oslo").await;
    let desk = Office {
        dir: tempfile::tempdir().unwrap(),
        clock: site.clock.clone(),
        wire: site.office(),
    };
    desk.write("ana.bundle", &site.operator("ana", Viewer).await);
    (site, desk)
}

struct Said {
    exit: Exit,
    err: String,
}

impl Said {
    fn done(self) -> Self {
        assert_eq!(self.exit, Exit::Done, "{}", self.err);
        self
    }
}

#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<u8>>>);

impl io::Write for Heard {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Office {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.path("ana.bundle")).unwrap()
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        picket_durable::write_private(self.path(name), bytes).unwrap();
    }

    fn mode(&self) -> u32 {
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        mode(&self.path("ana.bundle")) | mode(&self.path("ana.bundle.previous"))
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Types this with the clock here ahead by so many days.
    async fn types(&self, days: i64, line: &str) -> Said {
        let err = Heard::default();
        let world = World {
            stdin: Box::new(io::empty()),
            stdout: Box::new(io::sink()),
            stderr: Box::new(err.clone()),
            terminals: Terminals::default(),
            no_color: true,
            home: None,
            clock: self.clock.skewed(SignedDuration::from_hours(24 * days).as_secs()),
            dial: Arc::new(self.wire.clone()),
        };
        let bundle = self.path("ana.bundle").display().to_string();
        let words = ["picketctl", "--bundle", &bundle]
            .into_iter()
            .chain(line.split(' '));
        let exit = picketctl::run_within(words.map(Into::into), world).await;
        let err = String::from_utf8(err.0.lock().unwrap().clone()).unwrap();
        Said { exit, err }
    }
}
