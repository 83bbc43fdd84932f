//! A transit engine that has the CA's key.

use std::time::Duration;

use picket_transit::{
    Place,
    fake::{Fake, Life, Policy},
};

use crate::site::Site;

const HOUR: Duration = Duration::from_secs(3600);

/// An engine with a key for the CA, and what a master's settings say about it.
pub struct Transit {
    /// The engine.
    pub fake: Fake,
    /// The token that opens it.
    pub token: String,
    /// The lines of `master.toml`.
    pub lines: String,
    _dir: tempfile::TempDir,
}

impl Default for Transit {
    fn default() -> Self {
        Self::new()
    }
}

impl Transit {
    /// An engine that signs.
    ///
    /// # Panics
    /// When its files cannot be written.
    #[must_use]
    pub fn new() -> Self {
        let (fake, dir) = (Fake::start(), tempfile::tempdir().expect("a temporary folder"));
        fake.make_key("picket-ca", "ecdsa-p256");
        let token = fake.make_token(Policy::Sign, Life::Periodic(HOUR));
        let Place {
            address,
            authority,
            token: file,
            ..
        } = fake
            .place(dir.path(), "picket-ca", &token)
            .expect("the files can be written");
        let lines = format!(
            "[ca]\nkey = \"transit\"\n[ca.transit]\naddress = \"{address}\"\nauthority = {authority:?}\n\
             token_file = {:?}\ntimeout = \"5s\"",
            file.path()
        );
        Self {
            fake,
            token,
            lines,
            _dir: dir,
        }
    }

    /// How many signatures were asked for, and given.
    #[must_use]
    pub fn signatures(&self) -> usize {
        let asked = self.fake.asked();
        asked
            .iter()
            .filter(|asked| asked.contains("/sign/") && asked.ends_with("200"))
            .count()
    }

    /// Waits until one more was given than `before`.
    ///
    /// # Panics
    /// When none is for ten minutes.
    pub async fn until_signed(&self, site: &Site, before: usize) {
        for _ in 0..60 {
            if self.signatures() > before {
                return;
            }
            site.wait(Duration::from_secs(10)).await;
        }
        panic!("nothing was signed in ten minutes: {:?}", self.fake.asked());
    }
}
