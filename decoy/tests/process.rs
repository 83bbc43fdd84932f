//! The binary as it runs in a container: one JSON line per interaction on stdout, and gone at SIGTERM.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

/// What a stop may take.
const STOP: Duration = Duration::from_secs(1);
/// What anything else may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_login_is_one_line_on_stdout_and_a_sigterm_ends_it_within_a_second() {
    let address = free_address();
    let mut decoy = Running::start(&["telnet", "--listen", &address.to_string(), "--hostname", "web-03"]);
    let mut peer = connect(address);
    peer.write_all(b"root\r\nhunter2\r\n").expect("type");
    let mut lines = BufReader::new(decoy.child.stdout.take().expect("piped")).lines();
    let login = lines
        .find(|line| line.as_ref().is_ok_and(|line| line.contains("\"login\"")))
        .expect("a login");
    let login: serde_json::Value = serde_json::from_str(&login.expect("text")).expect("JSON");
    assert_eq!(
        (login["user"].as_str(), login["password"].as_str()),
        (Some("root"), Some("hunter2"))
    );
    decoy.stop();
    let last = lines.last().expect("another line").expect("text");
    assert!(last.contains(r#""because":"stopping""#), "{last}");
}

#[test]
fn the_base_does_nothing_until_a_sigterm_ends_it() {
    let mut base = Running::start(&["base"]);
    base.settle();
    base.stop();
}

#[test]
fn a_reader_that_stalls_does_not_delay_the_stop() {
    let address = free_address();
    // Nobody reads this pipe, which holds 64 KiB.
    let mut decoy = Running::start(&["http", "--listen", &address.to_string()]);
    let request = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1000));
    for _ in 0..16 {
        let mut peer = connect(address);
        for _ in 0..32 {
            peer.write_all(request.as_bytes()).expect("ask");
        }
        peer.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        peer.read_to_end(&mut Vec::new()).expect("answers and the end");
    }
    decoy.stop();
}

#[test]
fn a_port_in_use_and_a_banner_of_two_lines_are_refused_in_a_sentence() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let output = run(&["ftp", "--listen", &address]);
    assert_eq!(output.0, Some(1));
    assert!(
        output
            .1
            .starts_with(&format!("picket-decoy: listen on {address}; name a free address")),
        "{}",
        output.1
    );
    let output = run(&["ssh", "--banner", "SSH-2.0-x\r\nmore"]);
    assert_eq!(output.0, Some(2));
    assert!(
        output.1.contains("1 to 200 printable ASCII characters"),
        "{}",
        output.1
    );
}

struct Running {
    child: Child,
}

impl Running {
    fn start(arguments: &[&str]) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_picket-decoy"))
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the decoy");
        Self { child }
    }

    /// Waits until it handles signals, as far as this can be seen from outside: SIGTERM and SIGINT are caught.
    fn settle(&self) {
        let status = format!("/proc/{}/status", self.child.id());
        for _ in 0..2000 {
            let caught = std::fs::read_to_string(&status).expect("it runs");
            let caught = caught
                .lines()
                .find_map(|line| line.strip_prefix("SigCgt:\t"))
                .expect("a mask");
            let caught = u64::from_str_radix(caught, 16).expect("hex");
            // Signal 15 is bit 14.
            if caught >> 14 & 1 == 1 {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("it never caught SIGTERM");
    }

    /// Sends SIGTERM and waits.
    fn stop(&mut self) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .expect("kill")
                .success()
        );
        let (send, ended) = mpsc::channel();
        thread::scope(|scope| {
            let child = &mut self.child;
            let waiting = scope.spawn(move || send.send(child.wait()));
            let status = ended.recv_timeout(STOP);
            if status.is_err() {
                drop(Command::new("kill").args(["-KILL", &pid]).status());
            }
            waiting.join().expect("it waits").ok();
            let status = status.expect("it ends within a second").expect("a status");
            assert!(status.success(), "{status}");
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Ended already, unless a test failed.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_picket-decoy"))
        .args(arguments)
        .output()
        .expect("run the decoy");
    (
        output.status.code(),
        String::from_utf8(output.stderr).expect("text"),
    )
}

/// An address that was free a moment ago.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .expect("a port")
        .local_addr()
        .expect("an address")
}

fn connect(address: SocketAddr) -> TcpStream {
    for _ in 0..PATIENCE.as_millis() / 10 {
        if let Ok(stream) = TcpStream::connect(address) {
            return stream;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("nobody listens on {address}");
}
