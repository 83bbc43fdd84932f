//! One JSON line per interaction.
//!
//! What a peer sent appears only as [`Text`]: bounded, and escaped down to printable ASCII, so that neither a
//! terminal nor a log pipeline can be reached through it.

use std::{
    fmt,
    io::{self, Write},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use jiff::Timestamp;
use picket_clock::Clock;
use serde::{Serialize, Serializer};
use tokio::sync::mpsc;

use crate::bounds::{RECORDS, TEXT_BYTES};

/// What a peer sent, fit to be printed: at most [`TEXT_BYTES`] of it, printable ASCII as it is, a backslash doubled,
/// anything else as `\xNN`; `\+N` at the end says how many bytes were left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(String);

impl Text {
    /// Takes bytes as they came.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        use fmt::Write as _;
        let kept = &bytes[..bytes.len().min(TEXT_BYTES)];
        let mut text = String::with_capacity(kept.len());
        for &byte in kept {
            match byte {
                b'\\' => text.push_str("\\\\"),
                b' '..=b'~' => text.push(char::from(byte)),
                0..=0x1f | 0x7f..=0xff => {
                    write!(text, "\\x{byte:02x}").expect("writing to a String cannot fail");
                }
            }
        }
        if kept.len() < bytes.len() {
            write!(text, "\\+{}", bytes.len() - kept.len()).expect("writing to a String cannot fail");
        }
        Self(text)
    }

    /// The escaped form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "happened", rename_all = "kebab-case")]
pub enum Happened {
    /// Someone connected.
    Connect,
    /// Someone connected and was turned away at once: too many connections.
    Refuse,
    /// An SSH client named its software.
    Version {
        /// Its version line.
        client: Text,
    },
    /// An SSH client listed what it can do; the lists tell client programs apart.
    Algorithms {
        /// Key exchanges.
        key_exchange: Text,
        /// Host keys.
        host_key: Text,
        /// Ciphers, client to server.
        cipher: Text,
        /// Message authentication, client to server.
        mac: Text,
    },
    /// Someone tried a user name and a password.
    Login {
        /// The name.
        user: Text,
        /// The password.
        password: Text,
    },
    /// An HTTP request.
    Request {
        /// GET, POST, ...
        method: Text,
        /// The target as sent.
        path: Text,
        /// The `User-Agent` header; empty without one.
        user_agent: Text,
        /// The `Host` header; empty without one.
        host: Text,
        /// The status of the answer.
        status: u16,
    },
    /// Another command of a dialogue.
    Command {
        /// The line.
        line: Text,
    },
    /// The connection is over.
    Close {
        /// Why, in one or two words.
        because: &'static str,
        /// Bytes that came from the peer.
        received: u64,
    },
    /// Records were left out here, because stdout did not take them in time.
    Lost {
        /// How many.
        records: u64,
    },
}

#[derive(Serialize)]
struct Line<'a> {
    time: Timestamp,
    service: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<u64>,
    #[serde(flatten)]
    happened: &'a Happened,
}

/// Where records go. Clones share one queue; recording never waits.
#[derive(Clone)]
pub struct Recorder {
    service: &'static str,
    clock: Clock,
    queue: mpsc::Sender<String>,
    lost: Arc<AtomicU64>,
}

impl Recorder {
    /// A recorder and the queue of finished lines it feeds.
    #[must_use]
    pub fn new(service: &'static str, clock: Clock) -> (Self, mpsc::Receiver<String>) {
        let (queue, lines) = mpsc::channel(RECORDS);
        (
            Self {
                service,
                clock,
                queue,
                lost: Arc::default(),
            },
            lines,
        )
    }

    /// The recorder of one connection.
    #[must_use]
    pub fn connection(&self, number: u64, peer: SocketAddr) -> ConnectionRecorder {
        ConnectionRecorder {
            recorder: self.clone(),
            number,
            peer,
        }
    }

    /// Wall time, for services that show it.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn line(&self, peer: Option<SocketAddr>, connection: Option<u64>, happened: &Happened) -> String {
        let line = Line {
            time: self.clock.now(),
            service: self.service,
            peer,
            connection,
            happened,
        };
        serde_json::to_string(&line).expect("a record is strings and numbers")
    }

    fn record(&self, peer: SocketAddr, connection: u64, happened: &Happened) {
        let lost = self.lost.load(Ordering::Relaxed);
        if lost > 0
            && self
                .queue
                .try_send(self.line(None, None, &Happened::Lost { records: lost }))
                .is_ok()
        {
            self.lost.fetch_sub(lost, Ordering::Relaxed);
        }
        if self
            .queue
            .try_send(self.line(Some(peer), Some(connection), happened))
            .is_err()
        {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Records what happens in one connection.
#[derive(Clone)]
pub struct ConnectionRecorder {
    recorder: Recorder,
    number: u64,
    peer: SocketAddr,
}

impl ConnectionRecorder {
    /// Records one thing that happened.
    pub fn record(&self, happened: &Happened) {
        self.recorder.record(self.peer, self.number, happened);
    }

    /// Records a login attempt.
    pub fn login(&self, user: &[u8], password: &[u8]) {
        self.record(&Happened::Login {
            user: Text::new(user),
            password: Text::new(password),
        });
    }

    /// Wall time, for services that show it.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.recorder.now()
    }
}

/// Writes lines until the queue ends. Blocks when `out` does; meant for a thread of its own.
///
/// # Errors
/// When `out` cannot be written to.
pub fn write_lines(mut lines: mpsc::Receiver<String>, mut out: impl Write) -> io::Result<()> {
    while let Some(mut line) = lines.blocking_recv() {
        line.push('\n');
        out.write_all(line.as_bytes())?;
        out.flush()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn recorder() -> (Recorder, mpsc::Receiver<String>) {
        Recorder::new("ssh", Clock::system())
    }

    fn peer() -> SocketAddr {
        "192.0.2.7:4711".parse().unwrap()
    }

    proptest! {
        #[test]
        fn whatever_a_peer_sends_stays_one_bounded_line_of_printable_ascii(bytes: Vec<u8>) {
            let (recorder, mut lines) = recorder();
            recorder.connection(1, peer()).login(&bytes, &bytes);
            let line = lines.try_recv().unwrap();
            prop_assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            prop_assert!(line.len() < 10 * TEXT_BYTES + 200);
            let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
            let text = Text::new(&bytes);
            prop_assert_eq!(parsed["user"].as_str().unwrap(), text.as_str());
        }
    }

    #[test]
    fn two_different_inputs_never_look_the_same() {
        assert_ne!(Text::new(b"\\x00"), Text::new(b"\0"));
        assert_ne!(Text::new(b"\\+5"), Text::new(&[b'a'; TEXT_BYTES + 5]));
        assert!(Text::new(&[b'a'; TEXT_BYTES + 5]).as_str().ends_with("a\\+5"));
    }

    #[test]
    fn a_slow_reader_loses_records_and_is_told_how_many() {
        let (recorder, mut lines) = recorder();
        let connection = recorder.connection(1, peer());
        for _ in 0..RECORDS + 3 {
            connection.record(&Happened::Connect);
        }
        for _ in 0..RECORDS {
            lines.try_recv().unwrap();
        }
        assert!(lines.try_recv().is_err());
        connection.record(&Happened::Connect);
        let line = lines.try_recv().unwrap();
        assert!(line.contains(r#""happened":"lost","records":3"#), "{line}");
        assert!(lines.try_recv().unwrap().contains(r#""happened":"connect""#));
    }

    #[test]
    fn a_line_says_when_who_where_and_what() {
        let epoch: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let clock = runtime.block_on(async { Clock::simulated(epoch) });
        let (recorder, _lines) = Recorder::new("telnet", clock);
        let line = recorder.line(
            Some(peer()),
            Some(3),
            &Happened::Login {
                user: Text::new(b"root"),
                password: Text::new(b"pass\nword"),
            },
        );
        assert!(line.starts_with(r#"{"time":"2026-01-01T00:00:00"#), "{line}");
        assert!(
            line.ends_with(
                r#""service":"telnet","peer":"192.0.2.7:4711","connection":3,"happened":"login","user":"root","password":"pass\\x0aword"}"#
            ),
            "{line}"
        );
    }
}
