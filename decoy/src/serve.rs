//! Accepting connections within bounds, and ending on time.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::JoinSet,
    time,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Persona,
    bounds::{CONNECTION_TIME, CONNECTIONS, CONNECTIONS_PER_PEER},
    conversation::{Conversation, End},
    ftp, http,
    record::{ConnectionRecorder, Happened, Recorder},
    ssh, telnet,
};

/// How long to wait when the machine has no descriptor left for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The services there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Version lines and algorithm lists.
    Ssh,
    /// A login page.
    Http,
    /// A login prompt.
    Telnet,
    /// USER and PASS.
    Ftp,
}

impl Service {
    /// Its name in records and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ssh => "ssh",
            Self::Http => "http",
            Self::Telnet => "telnet",
            Self::Ftp => "ftp",
        }
    }

    /// The port it is expected at.
    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Self::Ssh => 22,
            Self::Http => 80,
            Self::Telnet => 23,
            Self::Ftp => 21,
        }
    }

    /// The banner when the operator names none.
    #[must_use]
    pub fn banner(self) -> &'static str {
        match self {
            Self::Ssh => ssh::BANNER,
            Self::Http => http::BANNER,
            Self::Telnet => telnet::BANNER,
            Self::Ftp => ftp::BANNER,
        }
    }

    async fn talk<S>(
        self,
        talk: &mut Conversation<S>,
        persona: &Persona,
        recorder: &ConnectionRecorder,
    ) -> End
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        match self {
            Self::Ssh => ssh::talk(talk, persona, recorder).await,
            Self::Http => http::talk(talk, persona, recorder).await,
            Self::Telnet => telnet::talk(talk, persona, recorder).await,
            Self::Ftp => ftp::talk(talk, persona, recorder).await,
        }
    }
}

/// Serves until told to stop. Connections that are open then are closed, and recorded as such.
pub async fn serve(
    listener: TcpListener,
    service: Service,
    persona: Arc<Persona>,
    recorder: Recorder,
    stop: CancellationToken,
) {
    let mut connections = JoinSet::new();
    let places = Places::default();
    let mut number = 0;
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                number += 1;
                let recorder = recorder.connection(number, peer);
                let Some(place) = places.take(peer.ip()) else {
                    recorder.record(&Happened::Refuse);
                    continue;
                };
                let (persona, stop) = (persona.clone(), stop.clone());
                connections.spawn(async move {
                    converse(stream, service, &persona, &recorder, &stop).await;
                    drop(place);
                });
            }
            Err(error) => pause_after(&error).await,
        }
    }
    while connections.join_next().await.is_some() {}
}

/// One connection from the first byte to the record of its end.
async fn converse<S>(
    stream: S,
    service: Service,
    persona: &Persona,
    recorder: &ConnectionRecorder,
    stop: &CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    recorder.record(&Happened::Connect);
    let mut talk = Conversation::new(stream);
    let end = tokio::select! {
        () = stop.cancelled() => End::Stopping,
        () = time::sleep(CONNECTION_TIME) => End::TooSlow,
        end = service.talk(&mut talk, persona, recorder) => end,
    };
    recorder.record(&Happened::Close {
        because: end.because(),
        received: talk.received(),
    });
}

/// A peer that is gone again costs nothing; running out of descriptors gets better only with time.
async fn pause_after(error: &io::Error) {
    if !matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    ) {
        time::sleep(ACCEPT_PAUSE).await;
    }
}

/// The places for connections, counted in all and by address.
#[derive(Clone, Default)]
struct Places(Arc<Mutex<HashMap<IpAddr, usize>>>);

struct Place {
    places: Places,
    peer: IpAddr,
}

impl Places {
    fn take(&self, peer: IpAddr) -> Option<Place> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.values().sum::<usize>() >= CONNECTIONS {
            return None;
        }
        let of_peer = taken.entry(peer).or_default();
        if *of_peer >= CONNECTIONS_PER_PEER {
            return None;
        }
        *of_peer += 1;
        Some(Place {
            places: self.clone(),
            peer,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_peer) = taken.get_mut(&self.peer) {
            *of_peer -= 1;
            if *of_peer == 0 {
                taken.remove(&self.peer);
            }
        }
    }
}

/// Opens the listener.
///
/// # Errors
/// When the address is taken, not this machine's, or a port that this user may not open.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address)
        .await
        .map_err(|cause| ListenError { address, cause })
}

/// The listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error(
    "listen on {address}; name a free address of this machine with --listen, and for a port under 1024 as an \
     unprivileged user set net.ipv4.ip_unprivileged_port_start=0 in the network namespace"
)]
pub struct ListenError {
    address: SocketAddr,
    #[source]
    cause: io::Error,
}

#[cfg(test)]
pub(crate) mod tests {
    use picket_clock::Clock;
    use serde_json::Value;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        net::TcpStream,
        sync::mpsc,
    };

    use super::*;

    #[tokio::test]
    async fn a_stop_closes_open_connections_and_records_it() {
        let house = House::open(Service::Telnet).await;
        let mut peer = house.connect().await;
        assert_eq!(peer.read_u8().await.unwrap(), 255);
        let records = house.stop().await;
        assert_eq!(happened(&records), ["connect", "close"]);
        assert_eq!(records[1]["because"], "stopping");
        let mut rest = Vec::new();
        peer.read_to_end(&mut rest).await.unwrap();
    }

    #[tokio::test]
    async fn one_peer_has_so_many_connections_and_gets_a_place_back_when_it_leaves() {
        let house = House::open(Service::Ftp).await;
        let mut peers = Vec::new();
        for _ in 0..CONNECTIONS_PER_PEER {
            let mut peer = house.connect().await;
            assert_eq!(peer.read_u8().await.unwrap(), b'2');
            peers.push(peer);
        }
        let mut refused = house.connect().await;
        assert!(refused.read_u8().await.is_err(), "one too many is closed at once");
        drop(peers);
        let served = time::timeout(Duration::from_secs(10), async {
            while house.connect().await.read_u8().await.is_err() {
                tokio::task::yield_now().await;
            }
        });
        served.await.expect("a place is free again");
        assert!(happened(&house.stop().await).contains(&"refuse".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_dribbles_is_ended() {
        let (near, mut peer) = duplex(1024);
        let (recorder, lines) = connection_recorder(Service::Ftp);
        let dribble = async {
            loop {
                time::sleep(Duration::from_secs(20)).await;
                if peer.write_u8(b'a').await.is_err() {
                    break;
                }
            }
        };
        let (persona, stop) = (persona(Service::Ftp), CancellationToken::new());
        tokio::join!(dribble, async {
            converse(near, Service::Ftp, &persona, &recorder, &stop).await
        });
        drop(recorder);
        assert_eq!(read(lines).await[1]["because"], "took too long");
    }

    #[tokio::test]
    async fn a_taken_address_is_named_with_what_to_do() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = listen(address).await.unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with(&format!("listen on {address}; name a free address"))
        );
    }

    struct House {
        address: SocketAddr,
        lines: mpsc::Receiver<String>,
        stop: CancellationToken,
        serving: JoinSet<()>,
    }

    impl House {
        async fn open(service: Service) -> Self {
            let listener = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
            let address = listener.local_addr().unwrap();
            let (recorder, lines) = Recorder::new(service.name(), Clock::system());
            let stop = CancellationToken::new();
            let mut serving = JoinSet::new();
            serving.spawn(serve(
                listener,
                service,
                Arc::new(persona(service)),
                recorder,
                stop.clone(),
            ));
            Self {
                address,
                lines,
                stop,
                serving,
            }
        }

        async fn connect(&self) -> TcpStream {
            TcpStream::connect(self.address).await.unwrap()
        }

        async fn stop(mut self) -> Vec<Value> {
            self.stop.cancel();
            time::timeout(Duration::from_secs(5), self.serving.join_next())
                .await
                .unwrap()
                .unwrap()
                .unwrap();
            read(self.lines).await
        }
    }

    fn connection_recorder(service: Service) -> (ConnectionRecorder, mpsc::Receiver<String>) {
        let (recorder, lines) = Recorder::new(service.name(), Clock::system());
        (recorder.connection(1, "192.0.2.1:4000".parse().unwrap()), lines)
    }

    fn persona(service: Service) -> Persona {
        Persona {
            banner: service.banner().to_owned(),
            hostname: "web-03".to_owned(),
        }
    }

    async fn read(mut lines: mpsc::Receiver<String>) -> Vec<Value> {
        let mut records = Vec::new();
        while let Some(line) = lines.recv().await {
            records.push(serde_json::from_str(&line).unwrap());
        }
        records
    }

    /// What a service says to a peer that sends `typed` and then listens until the end, and what it records.
    pub(crate) async fn exchange_with(service: Service, typed: &[u8]) -> (Vec<u8>, Vec<Value>) {
        let (near, mut peer) = duplex(64 * 1024);
        let (recorder, lines) = connection_recorder(service);
        let (persona, stop) = (persona(service), CancellationToken::new());
        let mut said = Vec::new();
        let type_and_listen = async {
            peer.write_all(typed).await.unwrap();
            peer.read_to_end(&mut said).await.unwrap();
        };
        tokio::join!(type_and_listen, async {
            converse(near, service, &persona, &recorder, &stop).await
        });
        drop(recorder);
        let records = read(lines).await;
        (said, records)
    }

    /// The `happened` of each record.
    pub(crate) fn happened(records: &[Value]) -> Vec<String> {
        records
            .iter()
            .map(|record| record["happened"].as_str().unwrap().to_owned())
            .collect()
    }
}
