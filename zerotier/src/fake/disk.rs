//! What a simulated controller keeps in its home, in the files of a real one: a change is there before it is answered, so
//! that a process that is killed is found again as it was. Nothing else of a node outlives its process, but who it is.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    coerce::{Record, dump, integer},
    controller::Hosted,
};
use crate::ids::NetworkId;

/// The files of a controller's networks and members.
#[derive(Debug)]
pub(super) struct Disk {
    root: PathBuf,
    /// The revision that is in each file.
    written: BTreeMap<PathBuf, u64>,
}

impl Disk {
    /// The files in a home directory.
    pub(super) fn of(home: &Path) -> Self {
        Self {
            root: home.join("controller.d").join("network"),
            written: BTreeMap::new(),
        }
    }

    /// Reads what is there. Nobody has asked for anything yet.
    pub(super) fn read(&self) -> BTreeMap<NetworkId, Hosted> {
        let mut hosted = BTreeMap::new();
        for (name, record) in records(&self.root) {
            let Ok(id) = name.parse() else { continue };
            let members = records(&self.root.join(&name).join("member"));
            let by_node = members
                .into_iter()
                .filter_map(|(name, record)| Some((name.parse().ok()?, record)));
            let network = Hosted {
                record,
                members: by_node.collect(),
                seen: BTreeMap::new(),
            };
            hosted.insert(id, network);
        }
        hosted
    }

    /// Writes what has changed, and takes away what is no more.
    pub(super) fn write(&mut self, hosted: &BTreeMap<NetworkId, Hosted>) -> io::Result<()> {
        let mut there = BTreeMap::new();
        for (id, network) in hosted {
            there.insert(self.root.join(format!("{id}.json")), &network.record);
            let members = self.root.join(id.to_string()).join("member");
            for (node, record) in &network.members {
                there.insert(members.join(format!("{node}.json")), record);
            }
        }
        for (path, record) in &there {
            let revision = record.get("revision").map_or(0, |value| integer(value, 0));
            if self.written.get(path) != Some(&revision) {
                put(path, record)?;
                self.written.insert(path.clone(), revision);
            }
        }
        let gone = self.written.keys().filter(|path| !there.contains_key(*path));
        for path in gone.cloned().collect::<Vec<_>>() {
            fs::remove_file(&path)?;
            self.written.remove(&path);
        }
        Ok(())
    }
}

/// Whole, or not at all: a process is killed at any moment.
fn put(path: &Path, record: &Record) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let half = path.with_extension("half");
    fs::write(&half, dump(&record.clone().into()))?;
    fs::rename(half, path)
}

/// The records in a directory by the names of their files; what makes no sense is passed over, as a real service does.
fn records(directory: &Path) -> Vec<(String, Record)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let files = entries.map(|entry| entry.path());
    files
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .filter_map(|path| {
            let name = path.file_stem()?.to_str()?.to_owned();
            Some((name, serde_json::from_slice(&fs::read(&path).ok()?).ok()?))
        })
        .collect()
}
