//! What was acknowledged outlives the process that acknowledged it.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, Command, Stdio},
};

use super::*;

/// Set for the process that is killed; names its data directory.
const CHILD: &str = "PICKET_TEST_STORE_CHILD";
const ROUNDS: u64 = 10;
const COMMITTERS: u64 = 8;

#[test]
fn acknowledged_commits_survive_kill_9() {
    if let Some(dir) = std::env::var_os(CHILD) {
        return commit_until_killed(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async { fresh(dir.path()).await.close().await });
    let mut acknowledged = Expected::new();
    for round in 0..ROUNDS {
        let mut child = Killed::start(dir.path());
        // The first rounds are killed at once, the later ones in the middle of their work.
        child.acknowledge(&mut acknowledged, usize::try_from(round * 30 + 1).unwrap());
        child.kill(&mut acknowledged);
        runtime.block_on(async {
            let store = open(dir.path()).await.unwrap();
            let found = contents(&store);
            for (key, (value, revision)) in &acknowledged {
                let (there, at) = found
                    .get(key)
                    .unwrap_or_else(|| panic!("round {round}: {key} is missing"));
                // A later write may have reached the disk and not its acknowledgement.
                assert!(
                    at >= revision,
                    "round {round}: {key} is at {at}, before {revision}"
                );
                assert!(
                    at > revision || there == value,
                    "round {round}: {key} has another value"
                );
            }
            store.close().await;
        });
    }
    assert!(acknowledged.len() > 20, "{} keys", acknowledged.len());
}

/// The process that is killed: commits as fast as it can, and prints what was acknowledged.
fn commit_until_killed(dir: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = open(dir).await.unwrap();
        let mut committers = tokio::task::JoinSet::new();
        for committer in 0..COMMITTERS {
            let store = store.clone();
            committers.spawn(async move {
                for n in 0_u64.. {
                    let (name, value) = (
                        format!("c/{committer}/{}", n % 40),
                        format!("{n}-{}", fastrand::u64(..)),
                    );
                    let revision = store
                        .commit(commit(vec![], vec![put(&name, &value)]))
                        .await
                        .unwrap();
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "acknowledged {name} {value} {revision}").unwrap();
                    out.flush().unwrap();
                }
            });
        }
        committers.join_all().await;
    });
}

struct Killed {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Killed {
    fn start(dir: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "killed::acknowledged_commits_survive_kill_9",
                "--nocapture",
            ])
            .env(CHILD, dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Reads that many acknowledgements, or all there are.
    fn acknowledge(&mut self, into: &mut Expected, count: usize) -> usize {
        let mut seen = 0;
        while seen < count {
            let Some(Ok(line)) = self.lines.next() else { break };
            // The last line may be cut, and others are the test harness's own.
            let words: Vec<&str> = line.split(' ').collect();
            let ["acknowledged", name, value, revision] = words[..] else {
                continue;
            };
            let Ok(revision) = revision.parse() else { continue };
            into.insert(name.to_owned(), (value.as_bytes().to_vec(), Revision(revision)));
            seen += 1;
        }
        seen
    }

    fn kill(mut self, into: &mut Expected) {
        self.child.kill().unwrap();
        self.acknowledge(into, usize::MAX);
        self.child.wait().unwrap();
    }
}
