//! The metrics page of a master, read over plain HTTP.

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(5);

/// What the page said, by series: `master_handshakes_total{listener="agents",outcome="accepted"}`.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Reads the page at `address`.
    ///
    /// # Errors
    /// When nobody answers there.
    pub fn read(address: SocketAddr) -> io::Result<Self> {
        let page = get(address, "/metrics")?;
        let series = page
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| {
                let (series, value) = line.rsplit_once(' ')?;
                Some((series.to_owned(), value.parse().ok()?))
            });
        Ok(Self(series.collect()))
    }

    /// The value of a series; 0 when it is not on the page, since a count that never counted is not.
    #[must_use]
    pub fn of(&self, series: &str) -> f64 {
        self.0.get(series).copied().unwrap_or_default()
    }

    /// How many handshakes a listener answered so.
    #[must_use]
    pub fn handshakes(&self, listener: &str, outcome: &str) -> f64 {
        self.of(&format!(
            "master_handshakes_total{{listener=\"{listener}\",outcome=\"{outcome}\"}}"
        ))
    }
}

/// The body of an answer, whatever its status.
pub(crate) fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    Ok(body.to_owned())
}
