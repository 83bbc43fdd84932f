//! An operator who types `picketctl`, in this process.

use std::{
    io::{self, Cursor, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use picket_pki::Bundle;
use picketctl::{Exit, Terminals, World, run_within};
use tempfile::TempDir;

use crate::site::Site;

/// An operator's machine with a bundle on it.
pub struct Office {
    dir: TempDir,
}

/// What came of a command.
pub struct Said {
    /// How it ended.
    pub exit: Exit,
    /// All that was printed, results and remarks.
    pub text: String,
}

impl Office {
    /// The office of whoever has the first admin bundle.
    ///
    /// # Panics
    /// When the bundle cannot be copied.
    #[must_use]
    pub fn with_admin_bundle(site: &Site) -> Self {
        let office = Self {
            dir: tempfile::tempdir().expect("the machine has room for a bundle"),
        };
        let text = std::fs::read(site.data_dir().join("admin.bundle")).expect("`init` wrote one");
        picket_durable::write_private(office.bundle(), &text).expect("a directory takes a file");
        office
    }

    /// Types `picketctl` and this.
    pub async fn types(&self, site: &Site, line: &str) -> Said {
        let heard = Heard::default();
        let world = World {
            stdin: Box::new(Cursor::new(Vec::new())),
            stdout: Box::new(heard.clone()),
            stderr: Box::new(heard.clone()),
            terminals: Terminals::default(),
            no_color: true,
            home: Some(self.dir.path().to_owned()),
            clock: site.clock.clone(),
            dial: Arc::new(
                site.pipes
                    .wire(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 50_001)),
            ),
        };
        let bundle = self.bundle().into_os_string();
        let words = ["picketctl".into(), "--bundle".into(), bundle].into_iter();
        let exit = run_within(words.chain(line.split_whitespace().map(Into::into)), world).await;
        Said {
            exit,
            text: heard.text(),
        }
    }

    /// The CA certificates in the bundle.
    ///
    /// # Panics
    /// When the bundle is none any more.
    #[must_use]
    pub fn authorities(&self) -> Vec<Vec<u8>> {
        let text = std::fs::read(self.bundle()).expect("the bundle is there");
        Bundle::parse(&text).expect("and is whole").authorities
    }

    /// A file in the operator's home, with this in it.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).expect("a directory takes a file");
        path
    }

    fn bundle(&self) -> PathBuf {
        self.dir.path().join("admin.bundle")
    }
}

/// What was printed.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<u8>>>);

impl Heard {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Write for Heard {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
