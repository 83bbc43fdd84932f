//! The Docker Engine that deckies run on: the one that is there, or one of this test's own.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use serde_json::Value;

use super::program::{Said, run, run_within};

/// The image is built from source, in a target folder of its own, where nobody made it before.
const SCRIPT: Duration = Duration::from_secs(900);

/// An engine that answers, with the image of the decoy services in it.
#[derive(Debug)]
pub struct Engine {
    folder: PathBuf,
    address: String,
}

/// A container as the engine knows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// When it was started last.
    pub started: String,
    /// running, exited, ...
    pub state: String,
}

impl Engine {
    /// Finds an engine, or starts one that ends with this; then makes the image, unless it is there.
    ///
    /// # Panics
    /// When there is none and none can be started, or the image cannot be made.
    #[must_use]
    #[track_caller]
    pub fn get() -> Arc<Self> {
        static SHARED: Mutex<Weak<Engine>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = shared.upgrade() {
            return engine;
        }
        let engine = Arc::new(Self::find());
        *shared = Arc::downgrade(&engine);
        engine
    }

    #[track_caller]
    fn find() -> Self {
        // A short path: the engine's sockets lie deeper in it.
        let folder = std::env::temp_dir().join(format!("picket-engine-{}", std::process::id()));
        let mut engine = Self {
            folder,
            address: String::new(),
        };
        drop(engine.script("docker-engine", &["start"]).ok());
        let said = engine.script("docker-engine", &["env"]).ok();
        let address = said
            .stdout
            .trim()
            .strip_prefix("export DOCKER_HOST=")
            .map(|address| address.replace('\\', ""));
        engine.address = address.expect("the script tells where the engine is");
        // Two tests that make the image at once would both build it.
        let lock = File::create(std::env::temp_dir().join("picket-decoy-image.lock"))
            .expect("a temporary file can be written");
        lock.lock().expect("a file can be locked");
        drop(engine.script("decoy-image", &[]).ok());
        engine
    }

    /// Its socket.
    ///
    /// # Panics
    /// When it is reached over something else.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.address
            .strip_prefix("unix://")
            .expect("the engine is on this machine")
            .into()
    }

    /// What `docker` answers.
    #[must_use]
    #[track_caller]
    pub fn docker(&self, args: &[&str]) -> Said {
        run(Command::new("docker")
            .args(args)
            .env("DOCKER_HOST", &self.address))
    }

    /// The containers that carry a label, by name.
    ///
    /// # Panics
    /// When the engine does not say.
    #[must_use]
    #[track_caller]
    pub fn containers(&self, label: &str) -> Vec<Container> {
        let listed = self
            .docker(&[
                "ps",
                "--all",
                "--quiet",
                "--no-trunc",
                "--filter",
                &format!("label={label}"),
            ])
            .ok();
        let ids: Vec<&str> = listed.stdout.split_whitespace().collect();
        if ids.is_empty() {
            return Vec::new();
        }
        // One that goes meanwhile is left out, and the others are told of all the same.
        let said = self.docker(&[&["inspect"], ids.as_slice()].concat());
        let found: Vec<Value> = serde_json::from_str(&said.stdout).expect("docker inspect answers JSON");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut containers: Vec<Container> = found
            .iter()
            .map(|one| Container {
                name: text(&one["Name"]).trim_start_matches('/').to_owned(),
                id: text(&one["Id"]),
                started: text(&one["State"]["StartedAt"]),
                state: text(&one["State"]["Status"]),
            })
            .collect();
        containers.sort();
        containers
    }

    /// Removes every container and network that carries a label.
    pub fn clear(&self, label: &str) {
        let filter = format!("label={label}");
        let ids = |said: Said| {
            said.stdout
                .split_whitespace()
                .map(ToOwned::to_owned)
                .collect::<Vec<_>>()
        };
        for id in ids(self.docker(&["ps", "--all", "--quiet", "--filter", &filter])) {
            drop(self.docker(&["rm", "--force", "--volumes", &id]));
        }
        for id in ids(self.docker(&["network", "ls", "--quiet", "--filter", &filter])) {
            drop(self.docker(&["network", "rm", &id]));
        }
    }

    fn script(&self, name: &str, args: &[&str]) -> Said {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .expect("this crate lies in the workspace");
        let mut command = Command::new(root.join("scripts").join(name));
        command
            .args(args)
            .env("PICKET_DOCKER_DIR", &self.folder)
            .env_remove("CARGO_TARGET_DIR")
            .env_remove("RUSTFLAGS");
        if !self.address.is_empty() {
            command.env("DOCKER_HOST", &self.address);
        }
        run_within(&mut command, SCRIPT)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Ends what `start` started, which is nothing when an engine was there.
        if fs::exists(&self.folder).unwrap_or(false) {
            drop(self.script("docker-engine", &["stop"]));
        }
    }
}
