//! An operator's office: a master, a way to it, a directory, and what was said.

use std::{
    fmt,
    io::{self, Cursor, Write},
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::Timestamp;
use picket_clock::Clock;
use picket_link::{Dial, Pipes};
use picket_pki::{
    Authorities, Authority, Bundle, Fingerprint, Holder, Identity, Key, PinKind, Pins, Presented, Role,
    Standing, TrustDomain, lifetime,
};
use picketctl::{Exit, Terminals, World};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::master::{FakeMaster, serve};

/// Where the master listens.
pub(crate) const MASTER: &str = "master.example.org:7444";

/// The list of pins, on which everybody stands who is not said to stand elsewhere.
#[derive(Debug, Default)]
pub(crate) struct List(Mutex<Option<Standing>>);

impl Pins for List {
    fn standing(&self, _: &Fingerprint) -> Standing {
        self.0
            .lock()
            .unwrap()
            .unwrap_or(Standing::Pinned(PinKind::Operator))
    }
}

pub(crate) struct Office {
    pub(crate) authority: Arc<Authority>,
    pub(crate) clock: Clock,
    pub(crate) pipes: Pipes,
    pub(crate) master: FakeMaster,
    pub(crate) dir: TempDir,
    pins: Arc<List>,
    tasks: JoinSet<()>,
    stdin: String,
    terminals: Terminals,
    no_color: bool,
    dial: Arc<dyn Dial>,
}

impl Office {
    /// An office with a master that knows nobody, at a quarter past six.
    pub(crate) fn open() -> Self {
        let clock = Clock::simulated("2026-11-22T18:15:00Z".parse().unwrap());
        let domain: TrustDomain = "example.org".parse().unwrap();
        let authority = Arc::new(Authority::create(&domain, clock.now()).unwrap());
        let pipes = Pipes::new();
        let dial = Arc::new(pipes.wire(SocketAddr::from(([192, 0, 2, 7], 40000))));
        let mut office = Self {
            master: FakeMaster::new(authority.clone(), clock.clone()),
            authority,
            clock,
            pipes,
            dir: tempfile::tempdir().unwrap(),
            pins: Arc::new(List::default()),
            tasks: JoinSet::new(),
            stdin: String::new(),
            terminals: Terminals::default(),
            no_color: false,
            dial,
        };
        office.bundle("admin.bundle", &office.operator());
        office.listen(MASTER, Identity::Master, &office.authority.clone());
        office
    }

    /// Lets whoever has this identity, of this CA, listen in place of whoever listened there.
    pub(crate) fn listen(&mut self, address: &str, identity: Identity, authority: &Authority) {
        let key = Key::generate().unwrap();
        let issued = authority
            .issue(key.public(), &identity, lifetime::MASTER, self.clock.now())
            .unwrap();
        let domain = self.authority.trust_domain().clone();
        let authorities = Authorities::new(domain, vec![self.authority.certificate().to_vec()]).unwrap();
        let clock = self.clock.clone();
        let config = picket_pki::server_config(
            Arc::new(Presented::new(&issued.der, &key).unwrap()),
            Arc::new(authorities),
            Role::Operator,
            self.pins.clone(),
            Arc::new(move || clock.unix()),
        )
        .unwrap();
        self.tasks.spawn(serve(
            self.master.clone(),
            self.pipes.listen(address),
            Arc::new(config),
        ));
    }

    /// The bundle of an operator, fresh.
    pub(crate) fn operator(&self) -> Bundle {
        let holder = Holder::Operator {
            name: "admin".parse().unwrap(),
        };
        self.bundle_of(&self.authority, holder, lifetime::OPERATOR)
    }

    pub(crate) fn bundle_of(
        &self,
        authority: &Authority,
        holder: Holder,
        lives: jiff::SignedDuration,
    ) -> Bundle {
        let key = Key::generate().unwrap();
        let issued = authority
            .issue(key.public(), &holder.identity(), lives, self.clock.now())
            .unwrap();
        Bundle {
            holder,
            trust_domain: authority.trust_domain().clone(),
            masters: vec![MASTER.to_owned()],
            authorities: vec![authority.certificate().to_vec()],
            certificate: issued.der,
            key,
        }
    }

    /// Writes a bundle to the office's directory.
    pub(crate) fn bundle(&self, name: &str, bundle: &Bundle) {
        picket_durable::write_private(self.path(name), bundle.encode().unwrap().as_bytes()).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn file(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    pub(crate) fn mode(&self, name: &str) -> u32 {
        std::fs::metadata(self.path(name)).unwrap().permissions().mode() & 0o7777
    }

    /// The names of the files in the directory.
    pub(crate) fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// What the master's list says of everybody from here on.
    pub(crate) fn stand(&self, standing: Standing) {
        *self.pins.0.lock().unwrap() = Some(standing);
    }

    /// Somebody sits there and answers this.
    pub(crate) fn someone_answers(&mut self, text: &str) {
        self.stdin = text.to_owned();
        self.terminals.stdin = true;
        self.terminals.stderr = true;
    }

    /// This is piped in.
    pub(crate) fn pipe_in(&mut self, text: &str) {
        self.stdin = text.to_owned();
    }

    /// The result goes to a terminal.
    pub(crate) fn on_a_screen(&mut self, no_color: bool) {
        self.terminals.stdout = true;
        self.no_color = no_color;
    }

    /// Moves this machine's clock and leaves the master's.
    pub(crate) fn skew(&mut self, seconds: i64) {
        self.clock = self.clock.skewed(seconds);
    }

    /// Time passes.
    pub(crate) async fn wait(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    /// Types `picketctl` and this, with the office's bundle.
    pub(crate) async fn types(&self, line: &str) -> Said {
        self.types_all(&format!(
            "--bundle {} {line}",
            self.path("admin.bundle").display()
        ))
        .await
    }

    /// Types `picketctl` and this.
    pub(crate) async fn types_all(&self, line: &str) -> Said {
        let (world, heard) = self.world();
        let exit = picketctl::run_within(words(line), world).await;
        heard.said(exit, self)
    }

    /// Types this and walks away when the output has grown so long or so many seconds are over.
    pub(crate) async fn types_and_leaves(&self, line: &str, seconds: u64) -> Said {
        let (world, heard) = self.world();
        let line = format!("--bundle {} {line}", self.path("admin.bundle").display());
        let left = tokio::time::timeout(
            Duration::from_secs(seconds),
            picketctl::run_within(words(&line), world),
        );
        let exit = left.await.unwrap_or(Exit::Done);
        heard.said(exit, self)
    }

    /// As [`Self::types`], with a reader that closes the output after so many bytes.
    pub(crate) async fn types_into_head(&self, line: &str, bytes: usize) -> Said {
        let (mut world, heard) = self.world();
        world.stdout = Box::new(Head { left: bytes });
        let line = format!("--bundle {} {line}", self.path("admin.bundle").display());
        let exit = picketctl::run_within(words(&line), world).await;
        heard.said(exit, self)
    }

    fn world(&self) -> (World, Heard) {
        let heard = Heard::default();
        let world = World {
            stdin: Box::new(Cursor::new(self.stdin.clone().into_bytes())),
            stdout: Box::new(heard.out.clone()),
            stderr: Box::new(heard.err.clone()),
            terminals: self.terminals,
            no_color: self.no_color,
            home: Some(self.dir.path().to_owned()),
            clock: self.clock.clone(),
            dial: self.dial.clone(),
        };
        (world, heard)
    }
}

/// Splits a line at spaces; what stands in single quotes stays together.
fn words(line: &str) -> Vec<std::ffi::OsString> {
    let mut words = vec!["picketctl".into()];
    for (number, part) in line.split('\'').enumerate() {
        if number % 2 == 1 {
            words.push(part.into());
        } else {
            words.extend(part.split_whitespace().map(Into::into));
        }
    }
    words
}

#[derive(Clone, Default)]
struct Stream(Arc<Mutex<Vec<u8>>>);

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Head {
    left: usize,
}

impl Write for Head {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let taken = bytes.len().min(self.left);
        self.left -= taken;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Default)]
struct Heard {
    out: Stream,
    err: Stream,
}

impl Heard {
    fn said(&self, exit: Exit, office: &Office) -> Said {
        let text = |stream: &Stream| {
            let text = String::from_utf8(stream.0.lock().unwrap().clone()).unwrap();
            let text = text.replace(&office.dir.path().display().to_string(), "[DIR]");
            text.replace(&office.authority.fingerprint().grouped(), "[CA]")
                .replace(&office.authority.fingerprint().to_string(), "[CA]")
        };
        Said {
            exit,
            out: text(&self.out),
            err: text(&self.err),
        }
    }
}

/// What came of a command.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) exit: Exit,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit {}", self.exit.code())?;
        for (name, text) in [("stdout", &self.out), ("stderr", &self.err)] {
            if !text.is_empty() {
                write!(f, "\n--- {name}\n{}", text.replace('\x1b', "␛"))?;
            }
        }
        Ok(())
    }
}

impl Said {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self}"))
    }

    pub(crate) fn done(self) -> Self {
        assert_eq!(self.exit, Exit::Done, "{self}");
        self
    }
}

/// A moment before now, as the wire has it.
pub(crate) fn before(now: Timestamp, seconds: i64) -> Option<prost_types::Timestamp> {
    Some(picket_proto::to_wire_time(
        now - jiff::SignedDuration::from_secs(seconds),
    ))
}
