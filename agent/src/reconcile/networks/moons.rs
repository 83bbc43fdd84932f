//! Orbits the moons a document names, and leaves those that only we orbited.
//!
//! A definition is put into the service's home where it can be, so that the service knows the moon before it has reached
//! its root; then the node is told to orbit it, at which it takes the definition in. Where the home cannot be written, the
//! service asks the root for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use picket_clock::Clock;
use picket_durable::{FileError, Owner};
use picket_proto::{
    document::Problem,
    stay::{Moon, Stay},
};
use picket_zerotier::{
    NodeId,
    home::Home,
    node::Node,
    service::Error,
    world::{MAX_BYTES, World, WorldId},
};

use super::Trouble;
use crate::{
    managed::Managed,
    moon::OwnMoon,
    sentence,
    zerotier::{Told, ZeroTierError, is_away},
};

/// The service reads its definitions as a user of its own.
const MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o755;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// Forget a definition that is not the newest, so that the next orbit takes in what is in the home.
    Reload(NodeId),
    /// Put a definition into the home.
    Write(NodeId, World),
    /// Orbit a moon, whose definition its first root has.
    Orbit(NodeId, NodeId),
    /// Orbit a moon no longer, and take its definition away.
    Leave(NodeId),
}

/// What is there of moons.
#[derive(Debug, Default)]
struct Have {
    /// The moons whose definitions the node has, and of when these are.
    orbited: BTreeMap<NodeId, u64>,
    /// The definitions in the home; none when there is no home.
    files: Option<BTreeMap<NodeId, World>>,
}

/// Returns the steps that make a node orbit what is wanted, departures first, and the moons whose definition would
/// replace one that another key signs for.
///
/// A moon that somebody orbits by hand is not ours to leave or to change. One that is waited for is not listed, and is
/// asked for again.
fn plan(
    want: &BTreeMap<NodeId, World>,
    have: &Have,
    ours: &BTreeSet<NodeId>,
) -> (Vec<Step>, BTreeSet<NodeId>) {
    let gone = ours.iter().filter(|id| !want.contains_key(id));
    let mut steps: Vec<_> = gone.copied().map(Step::Leave).collect();
    let mut foreign = BTreeSet::new();
    for (id, world) in want {
        let orbited = have.orbited.get(id);
        if orbited.is_some() && !ours.contains(id) {
            continue;
        }
        let old = have.files.as_ref().map(|files| files.get(id));
        let put = match old {
            None => false,
            Some(None) => true,
            Some(Some(old)) if world.timestamp() <= old.timestamp() => false,
            Some(Some(old)) if world.check_update(old).is_ok() => true,
            Some(Some(_)) => {
                foreign.insert(*id);
                continue;
            }
        };
        let stale = orbited.is_some_and(|timestamp| *timestamp < world.timestamp());
        if put && stale {
            steps.push(Step::Reload(*id));
        }
        if put {
            steps.push(Step::Write(*id, world.clone()));
        }
        if orbited.is_none() || (put && stale) {
            let seed = world.roots().first().map_or(*id, |root| root.identity.node());
            steps.push(Step::Orbit(*id, seed));
        }
    }
    (steps, foreign)
}

/// Reads and checks a definition that is to be of moon `id`.
fn verified(id: u64, moon: &Moon) -> Result<(NodeId, World), String> {
    let id = NodeId::new(id).map_err(|error| error.to_string())?;
    let world = World::parse(&moon.definition).map_err(|error| error.to_string())?;
    if world.id() != WorldId::Moon(id) {
        return Err("it is of another moon".to_owned());
    }
    world.check().map_err(|error| error.to_string())?;
    Ok((id, world))
}

/// Makes what a document says of moons true.
#[derive(Debug)]
pub(crate) struct Moons {
    /// Where definitions are put, unless ZeroTier is switched off.
    pub(crate) home: Option<Home>,
    /// The moons that we told the node to orbit.
    pub(crate) managed: Managed<NodeId>,
    pub(crate) own: OwnMoon,
    /// Told of the moon that this host is the root of.
    pub(crate) told: Told,
    pub(crate) clock: Clock,
}

impl Moons {
    pub(super) async fn pass(&self, node: &Node, stay: &Stay) -> Vec<Trouble> {
        let mut troubles = Vec::new();
        let mut want = BTreeMap::new();
        for (id, moon) in &stay.moons {
            match verified(*id, moon) {
                Ok((id, world)) => drop(want.insert(id, world)),
                Err(why) => {
                    let message = format!("does not orbit it, its definition is of no use: {why}");
                    troubles.push(Trouble::Refused(Problem::new(moon_name(*id), message)));
                }
            }
        }
        match self.own(node, stay).await {
            Ok(own) => {
                self.told.own_moon(own.as_ref());
                want.extend(own);
            }
            Err(trouble) => troubles.push(trouble),
        }
        let ours = self.managed.current();
        if want.is_empty() && ours.is_empty() {
            return troubles;
        }
        let have = match self.observe(node, want.keys().copied()).await {
            Ok(have) => have,
            Err(error) => {
                let error = ZeroTierError::from(error);
                troubles.push(Trouble::InTheWay(Problem::new("moons", sentence(&error))));
                return troubles;
            }
        };
        let (steps, foreign) = plan(&want, &have, &ours);
        for id in foreign {
            let message = format!(
                "does not replace its definition in {}: another key signs for that one; remove the file and restart zerotier-one if the moon was made again on purpose",
                self.file(id).unwrap_or_default().display()
            );
            troubles.push(Trouble::Refused(Problem::new(moon_name(id.to_u64()), message)));
        }
        let asked_before = |step: &Step| matches!(step, Step::Orbit(id, _) if ours.contains(id));
        if !steps.iter().all(asked_before) {
            self.told.poke();
        }
        for step in steps {
            match self.take(node, step, stay.root_of_moon.is_some()).await {
                Ok(None) => {}
                Ok(Some(trouble)) => troubles.push(trouble),
                Err(Stumble { id, what, away }) => {
                    troubles.push(Trouble::InTheWay(Problem::new(moon_name(id.to_u64()), what)));
                    if away {
                        break;
                    }
                }
            }
        }
        troubles
    }

    /// The moon that this host is the root of.
    async fn own(&self, node: &Node, stay: &Stay) -> Result<Option<(NodeId, World)>, Trouble> {
        let Some(endpoints) = stay.root_of_moon.clone() else {
            return Ok(None);
        };
        let in_the_way = |message| Trouble::InTheWay(Problem::new("own moon", message));
        let status = node
            .status()
            .await
            .map_err(|error| in_the_way(sentence(&ZeroTierError::from(error))))?;
        let identity = status.public_identity.as_deref().unwrap_or_default().parse();
        let identity = identity.map_err(|error| {
            in_the_way(format!(
                "the service says no public identity that can be used ({error}); restart zerotier-one"
            ))
        })?;
        let (own, now) = (self.own.clone(), self.clock.now());
        let defined = tokio::task::spawn_blocking(move || own.define(identity, &endpoints, now))
            .await
            .expect("signing and writing a file does not panic");
        let world = defined.map_err(|error| in_the_way(sentence(&error)))?;
        Ok(Some((identity.node(), world)))
    }

    async fn observe(&self, node: &Node, wanted: impl Iterator<Item = NodeId>) -> Result<Have, Error> {
        let moons = node.moons().await?;
        let listed = moons.into_iter().filter(|moon| !moon.waiting);
        let orbited = listed.map(|moon| (moon.id, moon.timestamp)).collect();
        let there = self.home.as_ref().is_some_and(|home| home.directory().is_dir());
        // One that cannot be read is put there anew.
        let read = |id: NodeId| {
            let bytes = picket_durable::read_bounded(self.file(id)?, MAX_BYTES as u64).ok()?;
            Some((id, World::parse(&bytes).ok()?))
        };
        let files = there.then(|| wanted.filter_map(read).collect());
        Ok(Have { orbited, files })
    }

    fn file(&self, id: NodeId) -> Option<PathBuf> {
        let name = format!("{:016x}.moon", id.to_u64());
        let home = self.home.as_ref()?;
        Some(home.directory().join("moons.d").join(name))
    }

    /// Takes a step; some that fail are no more than worth a word.
    async fn take(&self, node: &Node, step: Step, is_root: bool) -> Result<Option<Trouble>, Stumble> {
        match step {
            Step::Reload(id) => node.deorbit(id).await.map_err(|error| Stumble::of(id, error))?,
            Step::Write(id, world) => {
                if let Err(error) = self.put(id, world).await {
                    let name = moon_name(id.to_u64());
                    let why = sentence(&error);
                    return Ok(Some(if is_root {
                        let message = format!(
                            "{why}; the moon's root has nothing else to know it from: let the agent write there, as picket-agent.service says"
                        );
                        Trouble::InTheWay(Problem::new(name, message))
                    } else {
                        let message = format!("{why}; the service asks the moon's root for the definition");
                        Trouble::Remark(Problem::new(name, message))
                    }));
                }
            }
            Step::Orbit(id, seed) => {
                // Listed first: a crash in between must not leave a moon behind that nobody would ever leave.
                let listed = self.managed.add(id).await;
                listed.map_err(|error| Stumble::file(id, &error))?;
                tracing::info!(moon = %id, "orbits");
                node.orbit(id, seed)
                    .await
                    .map_err(|error| Stumble::of(id, error))?;
            }
            Step::Leave(id) => {
                tracing::info!(moon = %id, "orbits no longer");
                node.deorbit(id).await.map_err(|error| Stumble::of(id, error))?;
                // The service removes the file as well; one that it did not know of would bring the moon back.
                if let Some(path) = self.file(id)
                    && let Err(cause) = fs::remove_file(&path)
                    && !is_absent(&cause)
                {
                    return Err(Stumble::file(id, &FileError::Write { path, cause }));
                }
                let listed = self.managed.remove(id).await;
                listed.map_err(|error| Stumble::file(id, &error))?;
            }
        }
        Ok(None)
    }

    async fn put(&self, id: NodeId, world: World) -> Result<(), FileError> {
        let (Some(home), Some(path)) = (self.home.clone(), self.file(id)) else {
            return Ok(());
        };
        tokio::task::spawn_blocking(move || put(home.directory(), &path, &world.to_bytes()))
            .await
            .expect("writing a file does not panic")
    }
}

/// Writes a definition for whoever owns the home. One that cannot be given away can be read all the same.
fn put(home: &Path, path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let owner = Owner::of(home)?;
    if let Some(directory) = path.parent()
        && !directory.exists()
    {
        let made = fs::DirBuilder::new().mode(DIRECTORY_MODE).create(directory);
        made.map_err(|cause| FileError::Directory {
            path: directory.to_owned(),
            cause,
        })?;
        // The service makes files of its own there.
        drop(owner.take(directory));
    }
    match picket_durable::write_for(owner, path, bytes, MODE) {
        Err(FileError::Write { cause, .. }) if cause.kind() == io::ErrorKind::PermissionDenied => {
            picket_durable::write(path, bytes, MODE)
        }
        written => written,
    }
}

fn is_absent(cause: &io::Error) -> bool {
    matches!(
        cause.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// How a moon is named to people, as in its file's name.
fn moon_name(id: u64) -> String {
    format!("moon {id:016x}")
}

/// Why a step was not taken.
struct Stumble {
    id: NodeId,
    what: String,
    /// Nobody can be asked anything at present.
    away: bool,
}

impl Stumble {
    fn of(id: NodeId, error: Error) -> Self {
        Self {
            id,
            away: is_away(&error),
            what: sentence(&ZeroTierError::from(error)),
        }
    }

    fn file(id: NodeId, error: &FileError) -> Self {
        Self {
            id,
            what: sentence(error),
            away: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use picket_zerotier::{
        fake::Lab,
        identity::PublicIdentity,
        world::{Root, WorldKey},
    };

    use super::*;

    fn root(identity: PublicIdentity) -> Vec<Root> {
        vec![Root {
            identity,
            endpoints: vec!["192.0.2.1:9993".parse().unwrap()],
        }]
    }

    fn a_moon(key: &WorldKey) -> (NodeId, World) {
        let lab = Lab::new();
        let node = lab.grow();
        let identity = *lab.secret(node).unwrap().public();
        (
            node,
            World::make(WorldId::Moon(node), 1000, root(identity), key).unwrap(),
        )
    }

    fn with_home(files: impl IntoIterator<Item = (NodeId, World)>) -> Have {
        Have {
            files: Some(files.into_iter().collect()),
            ..Have::default()
        }
    }

    #[test]
    fn a_moon_is_written_and_orbited_and_then_there_is_nothing_to_do() {
        let (id, world) = a_moon(&WorldKey::generate().unwrap());
        let want = [(id, world.clone())].into();
        let (steps, _) = plan(&want, &with_home([]), &BTreeSet::new());
        assert_eq!(steps, [Step::Write(id, world.clone()), Step::Orbit(id, id)]);
        let mut have = with_home([(id, world)]);
        let (steps, _) = plan(&want, &have, &[id].into());
        assert_eq!(
            steps,
            [Step::Orbit(id, id)],
            "one that is waited for is not listed"
        );
        have.orbited.insert(id, 1000);
        assert!(plan(&want, &have, &[id].into()).0.is_empty());
        let (steps, _) = plan(&BTreeMap::new(), &have, &[id].into());
        assert_eq!(steps, [Step::Leave(id)]);
    }

    #[test]
    fn a_newer_definition_is_taken_in_at_once_and_an_older_one_not_at_all() {
        let key = WorldKey::generate().unwrap();
        let (id, old) = a_moon(&key);
        let new = old.update(2000, old.roots().to_vec(), &key).unwrap();
        let mut have = with_home([(id, old.clone())]);
        have.orbited.insert(id, 1000);
        let (steps, _) = plan(&[(id, new.clone())].into(), &have, &[id].into());
        assert_eq!(
            steps,
            [
                Step::Reload(id),
                Step::Write(id, new.clone()),
                Step::Orbit(id, id)
            ]
        );
        let mut have = with_home([(id, new)]);
        have.orbited.insert(id, 2000);
        assert!(plan(&[(id, old)].into(), &have, &[id].into()).0.is_empty());
    }

    #[test]
    fn a_moon_that_somebody_orbits_by_hand_is_neither_changed_nor_left() {
        let key = WorldKey::generate().unwrap();
        let (id, old) = a_moon(&key);
        let new = old.update(2000, old.roots().to_vec(), &key).unwrap();
        let mut have = with_home([(id, old)]);
        have.orbited.insert(id, 1000);
        assert!(plan(&[(id, new)].into(), &have, &BTreeSet::new()).0.is_empty());
        assert!(plan(&BTreeMap::new(), &have, &BTreeSet::new()).0.is_empty());
    }

    #[test]
    fn a_definition_that_another_key_signed_replaces_none() {
        let (id, old) = a_moon(&WorldKey::generate().unwrap());
        let forged = World::make(
            old.id(),
            2000,
            old.roots().to_vec(),
            &WorldKey::generate().unwrap(),
        );
        let want = [(id, forged.unwrap())].into();
        let (steps, foreign) = plan(&want, &with_home([(id, old)]), &BTreeSet::new());
        assert!(steps.is_empty());
        assert_eq!(foreign, [id].into());
    }

    #[test]
    fn a_definition_that_was_changed_or_is_of_another_moon_is_refused() {
        let (id, world) = a_moon(&WorldKey::generate().unwrap());
        let moon = |bytes: Vec<u8>| Moon {
            definition: bytes.into(),
        };
        assert!(verified(id.to_u64(), &moon(world.to_bytes())).is_ok());
        assert!(verified(id.to_u64() + 1, &moon(world.to_bytes())).is_err());
        let mut bytes = world.to_bytes();
        bytes[10] ^= 1;
        assert!(
            verified(id.to_u64(), &moon(bytes))
                .unwrap_err()
                .contains("signature")
        );
    }

    #[test]
    fn a_definition_is_put_into_the_home_where_the_service_looks_and_can_be_read() {
        use std::os::unix::fs::PermissionsExt as _;
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("moons.d/0000008fee13b48c.moon");
        put(home.path(), &path, b"a moon").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"a moon");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
        assert_eq!(Owner::of(&path).unwrap(), Owner::of(home.path()).unwrap());
    }
}
