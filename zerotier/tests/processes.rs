//! The two programs that make a site for other processes, run as such.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use picket_zerotier::{
    NetworkId,
    controller::Controller as _,
    home::Home,
    node::{Admission, Settings},
};
use tokio::time::{self, Instant};

#[tokio::test]
async fn the_fake_says_it_is_simulated_serves_its_homes_and_ends_at_a_signal() {
    let root = tempfile::tempdir().unwrap();
    let homes = [root.path().join("one"), root.path().join("two")];
    let mut program = Program::start(
        Command::new(env!("CARGO_BIN_EXE_picket-fake-zerotier"))
            .args(["--create-network", "demo", "--home"])
            .arg(&homes[0])
            .arg("--home")
            .arg(&homes[1]),
    );
    assert!(
        program.said[0].starts_with("SIMULATED ZeroTier"),
        "{:?}",
        program.said
    );
    joins_and_is_admitted(&program, &Home::new(&homes[0]), &Home::new(&homes[1])).await;

    let first = Home::new(&homes[0])
        .service()
        .unwrap()
        .node()
        .status()
        .await
        .unwrap()
        .address;
    program.end();
    assert!(
        Home::new(&homes[0])
            .service()
            .unwrap()
            .node()
            .status()
            .await
            .is_err()
    );

    let again = Program::start(
        Command::new(env!("CARGO_BIN_EXE_picket-fake-zerotier"))
            .arg("--home")
            .arg(&homes[0]),
    );
    let home = Home::new(&homes[0]);
    let service = home.service().unwrap();
    let same = service.node().status().await.unwrap().address;
    assert_eq!(same, first, "a home keeps its node");
    let controller = service.controller(same);
    let kept = controller.networks().await.unwrap();
    assert_eq!(kept.len(), 1, "and the networks of its controller");
    let members = controller.members(kept[0]).await.unwrap().by_node;
    assert_eq!(
        (members.len(), members.values().all(|member| member.authorized)),
        (1, true)
    );
    drop(again);
}

#[test]
fn the_fake_without_a_home_says_how_it_is_used() {
    let done = Command::new(env!("CARGO_BIN_EXE_picket-fake-zerotier"))
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&done.stderr).contains("--home <DIR>"));
}

#[tokio::test]
async fn the_real_site_serves_its_homes_and_leaves_no_namespace_behind() {
    let Some(binary) = env::var_os("PICKET_ZEROTIER_ONE") else {
        writeln!(
            std::io::stderr(),
            "NOT RUN: real ZeroTier; PICKET_ZEROTIER_ONE names no zerotier-one"
        )
        .unwrap();
        return;
    };
    let root = tempfile::tempdir().unwrap();
    let mut program = Program::start(
        Command::new(env!("CARGO_BIN_EXE_picket-real-zerotier"))
            .args(["--count", "2", "--create-network", "demo", "--binary"])
            .arg(binary)
            .arg("--directory")
            .arg(root.path()),
    );
    assert!(program.said[0].starts_with("REAL ZeroTier"), "{:?}", program.said);
    let nodes: Vec<&str> = program
        .said
        .iter()
        .filter(|line| line.starts_with("node "))
        .map(String::as_str)
        .collect();
    let home = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let address: std::net::SocketAddr = words[3].parse().unwrap();
        Home::new(words[5]).reached_at(address.ip())
    };
    joins_and_is_admitted(&program, &home(nodes[0]), &home(nodes[1])).await;
    let namespace = nodes[0].rsplit(' ').next().unwrap();
    assert!(Path::new("/run/netns").join(namespace).exists());
    let gone = Path::new("/run/netns").join(namespace);
    program.end();
    assert!(!gone.exists());
}

/// Has the second node join the network that the program made on the first.
async fn joins_and_is_admitted(program: &Program, first: &Home, second: &Home) {
    let network = program.said.iter().find_map(|line| line.strip_prefix("network "));
    let network: NetworkId = network.unwrap().parse().unwrap();
    let (first, second) = (first.service().unwrap(), second.service().unwrap());
    let member = second.node().status().await.unwrap().address;
    let controller = first.controller(first.node().status().await.unwrap().address);
    controller.authorize(network, member, true).await.unwrap();
    second.node().join(network, Settings::default()).await.unwrap();
    let begun = Instant::now();
    while second.node().network(network).await.unwrap().status != Admission::Ok {
        assert!(begun.elapsed() < Duration::from_secs(10), "not admitted");
        time::sleep(Duration::from_millis(100)).await;
    }
}

/// A running program and what it said until it was ready.
struct Program {
    process: Child,
    said: Vec<String>,
}

impl Program {
    fn start(command: &mut Command) -> Self {
        let process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut program = Self {
            process,
            said: Vec::new(),
        };
        let out = BufReader::new(program.process.stdout.take().unwrap());
        for line in out.lines() {
            program.said.push(line.unwrap());
            if program.said.last().is_some_and(|line| line == "ready") {
                return program;
            }
        }
        panic!("the program ended before it was ready: {:?}", program.said);
    }

    /// Sends SIGTERM and waits for an orderly end.
    fn end(&mut self) {
        self.terminate();
        assert!(self.process.wait().unwrap().success());
    }

    fn terminate(&self) {
        let kill = Command::new("kill")
            .arg(self.process.id().to_string())
            .status()
            .unwrap();
        assert!(kill.success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // By signal, so that a program that made namespaces removes them when a test fails too.
        if matches!(self.process.try_wait(), Ok(None)) {
            self.terminate();
            drop(self.process.wait());
        }
    }
}
