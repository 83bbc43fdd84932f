//! What a connection does besides being refused: several addresses, silence, breaks, and alerts over real TCP.

use std::{io, sync::Arc, time::Duration};

use crate::site::{MASTER, PATIENCE, Site, address, healthy};
use picket_link::{AcceptError, Failure, Io, LinkError, Options, Tcp, accept, connect};
use picket_pki::{PinKind, Refusal, Role, Standing};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

#[tokio::test(start_paused = true)]
async fn the_first_address_that_answers_is_taken() {
    let site = Site::new();
    let host = site.host();
    site.pin(&host, PinKind::Current);
    let _served = site.serve(site.door(Role::Host, &site.master()));
    let addresses = ["gone:1".to_owned(), MASTER.to_owned(), "later:1".to_owned()];
    let wire = site.pipes.wire(address());
    let connected = connect(&wire, &addresses, site.caller(&host), Options::default())
        .await
        .unwrap();
    assert_eq!(connected.address, MASTER);
    healthy(&connected).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn addresses_that_do_not_answer_are_all_named_with_their_cause() {
    let site = Site::new();
    let addresses = ["one:1".to_owned(), "two:2".to_owned()];
    let wire = site.pipes.wire(address());
    let error = connect(&wire, &addresses, site.caller(&site.host()), Options::default())
        .await
        .unwrap_err();
    let LinkError::Unreachable(failures) = &error else {
        panic!("{error:?}")
    };
    let refused = |one: &Failure| one.cause.kind() == io::ErrorKind::ConnectionRefused;
    assert!(
        failures.len() == 2 && failures.iter().all(refused),
        "{failures:?}"
    );
    assert!(
        error.to_string().contains("one:1 (") && error.to_string().contains("two:2 ("),
        "{error}"
    );
    let none = connect(&wire, &[], site.caller(&site.host()), Options::default())
        .await
        .unwrap_err();
    assert!(matches!(none, LinkError::NoAddress));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_even_when_the_addresses_after_it_are_dead() {
    let site = Site::new();
    let host = site.host();
    site.stand(&host, Standing::Banned);
    let _served = site.serve(site.door(Role::Host, &site.master()));
    let addresses = [MASTER.to_owned(), "gone:1".to_owned()];
    let wire = site.pipes.wire(address());
    let error = connect(&wire, &addresses, site.caller(&host), Options::default())
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            LinkError::Refused {
                cause: Refusal::Revoked,
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_silent_before_or_after_the_handshake_is_given_up_in_time() {
    let site = Site::new();
    let host = site.host();
    site.pin(&host, PinKind::Current);
    let wire = site.pipes.wire(address());
    let mut incoming = site.pipes.listen(MASTER);
    let options = Options::default();
    let addresses = [MASTER.to_owned()];

    let silent = async { incoming.accept().await.unwrap() };
    let (_open, error) = tokio::join!(silent, connect(&wire, &addresses, site.caller(&host), options));
    assert!(matches!(error.unwrap_err(), LinkError::TimedOut { .. }));

    let door = site.door(Role::Host, &site.master());
    let mute = async {
        let (io, from) = incoming.accept().await.unwrap();
        accept(io, from, door, PATIENCE).await.unwrap()
    };
    let (_open, error) = tokio::join!(mute, connect(&wire, &addresses, site.caller(&host), options));
    assert!(matches!(error.unwrap_err(), LinkError::TimedOut { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_never_finishes_the_handshake_is_given_up_in_time() {
    let site = Site::new();
    let mut incoming = site.pipes.listen(MASTER);
    let wire = site.pipes.wire(address());
    let _kept = picket_link::Dial::dial(&wire, MASTER).await.unwrap();
    let (io, from) = incoming.accept().await.unwrap();
    let error = accept(io, from, site.door(Role::Host, &site.master()), PATIENCE)
        .await
        .unwrap_err();
    assert!(matches!(error, AcceptError::TimedOut(_)), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_tls_is_counted_and_let_go() {
    let site = Site::new();
    let mut incoming = site.pipes.listen(MASTER);
    let mut stranger = picket_link::Dial::dial(&site.pipes.wire(address()), MASTER)
        .await
        .unwrap();
    stranger
        .write_all(b"GET / HTTP/1.1\r\nhost: master\r\n\r\n")
        .await
        .unwrap();
    let (io, from) = incoming.accept().await.unwrap();
    let error = accept(io, from, site.door(Role::Host, &site.master()), PATIENCE)
        .await
        .unwrap_err();
    assert_eq!(error.label(), "protocol", "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn after_a_cut_calls_fail_and_nobody_dials_again() {
    let site = Site::new();
    let host = site.host();
    site.pin(&host, PinKind::Current);
    let mut served = site.serve(site.door(Role::Host, &site.master()));
    let wire = site.pipes.wire(address());
    let connected = connect(
        &wire,
        &[MASTER.to_owned()],
        site.caller(&host),
        Options::default(),
    )
    .await
    .unwrap();
    served.outcome().await.unwrap();
    healthy(&connected).await.unwrap();
    wire.cut();
    healthy(&connected).await.unwrap_err();
    wire.mend();
    let again = tokio::time::timeout(PATIENCE, healthy(&connected))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(again.code(), tonic::Code::Unavailable, "{again:?}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_falls_silent_is_noticed_by_pings_on_an_idle_connection() {
    let site = Site::new();
    let host = site.host();
    site.pin(&host, PinKind::Current);
    let mut incoming = site.pipes.listen(MASTER);
    let door = site.door(Role::Host, &site.master());
    // Settings and their acknowledgement, and nothing after that: no answer to any ping.
    let server = async {
        let (io, from) = incoming.accept().await.unwrap();
        let mut stream = accept(io, from, door, PATIENCE).await.unwrap();
        stream
            .write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0])
            .await
            .unwrap();
        stream.flush().await.unwrap();
        stream
    };
    let wire = site.pipes.wire(address());
    let addresses = [MASTER.to_owned()];
    let client = connect(&wire, &addresses, site.caller(&host), Options::default());
    let (mut silent, connected) = tokio::join!(server, client);
    let _connected = connected.unwrap();
    let start = site.clock.monotonic();
    let gone = async { while matches!(silent.read(&mut [0; 1024]).await, Ok(length) if length > 0) {} };
    tokio::time::timeout(Duration::from_secs(60), gone)
        .await
        .expect("the client gives the connection up");
    let took = site.clock.monotonic() - start;
    assert!(
        (Duration::from_secs(20)..=Duration::from_secs(30)).contains(&took),
        "{took:?}"
    );
}

/// A close while bytes lie unread resets a TCP connection, and the reset may overtake the alert.
#[tokio::test(start_paused = true)]
async fn a_refused_caller_that_still_sends_is_listened_to_while_it_reads_why_and_not_for_long() {
    let site = Site::new();
    let mut incoming = site.pipes.listen(MASTER);
    let caller = tokio_rustls::TlsConnector::from(site.caller(&site.host()));
    let mut closed = None;
    let mut patient = None;
    for stays in [false, true] {
        let door = site.door(Role::Host, &site.master());
        let server = async {
            let (io, from) = incoming.accept().await.unwrap();
            accept(io, from, door, PATIENCE).await.unwrap_err()
        };
        let client = async {
            let io = picket_link::Dial::dial(&site.pipes.wire(address()), MASTER)
                .await
                .unwrap();
            let mut stream = caller.connect("master".try_into().unwrap(), io).await.unwrap();
            stream.read_u8().await.unwrap_err();
            let mut io = stream.into_inner().0;
            for _ in 0..10 {
                io.write_all(&[7; 1024])
                    .await
                    .expect("the master listens until the caller has read the alert");
                tokio::task::yield_now().await;
            }
            stays.then_some(io)
        };
        let start = site.clock.monotonic();
        let (refused, _kept) = tokio::join!(server, client);
        assert!(
            matches!(refused, AcceptError::Refused(Refusal::Unknown)),
            "{refused:?}"
        );
        let took = Some(site.clock.monotonic() - start);
        if stays { patient = took } else { closed = took }
    }
    assert_eq!(closed, Some(Duration::ZERO));
    assert!(
        patient > closed && patient <= Some(Duration::from_secs(1)),
        "{patient:?}"
    );
}

#[tokio::test]
async fn the_alert_reaches_a_caller_over_tcp_that_has_already_sent_more() {
    let site = Site::new();
    let host = site.host();
    site.stand(&host, Standing::Spent);
    for _ in 0..20 {
        let (listener, address) = listener().await;
        let door = site.door(Role::Host, &site.master());
        let server = async {
            let (stream, from) = listener.accept().await.unwrap();
            accept(Box::new(stream), from, door, PATIENCE).await.unwrap_err()
        };
        let client = async {
            let tcp = TcpStream::connect(&address).await.unwrap();
            let connector = tokio_rustls::TlsConnector::from(site.caller(&host));
            let mut stream = connector
                .connect("master".try_into().unwrap(), tcp)
                .await
                .unwrap();
            stream.write_all(&[7; 32 * 1024]).await.unwrap();
            stream.flush().await.unwrap();
            stream.read_u8().await.unwrap_err()
        };
        let (refused, seen) = tokio::join!(server, client);
        assert!(
            matches!(refused, AcceptError::Refused(Refusal::Spent)),
            "{refused:?}"
        );
        let tls = seen
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        assert_eq!(tls.and_then(Refusal::of), Some(Refusal::Spent), "{seen:?}");
    }
}

#[tokio::test]
async fn a_connection_over_tcp_is_accepted_and_its_address_known() {
    let site = Site::new();
    let host = site.host();
    site.pin(&host, PinKind::Current);
    let (listener, address) = listener().await;
    let door = site.door(Role::Host, &site.master());
    let server = async {
        let (stream, from) = listener.accept().await.unwrap();
        let stream: Box<dyn Io> = Box::new(stream);
        let mut stream = accept(stream, from, door, PATIENCE).await.unwrap();
        assert!(stream.peer().address.ip().is_loopback());
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        stream.flush().await.unwrap();
        stream
    };
    let (caller, addresses): (_, [String; 1]) = (site.caller(&host), [address]);
    let tcp = Tcp::default();
    let client = connect(&tcp, &addresses, caller, Options::default());
    let (_open, connected) = tokio::join!(server, client);
    assert_eq!(connected.unwrap().address, addresses[0]);
}

#[tokio::test]
async fn a_dead_tcp_port_and_an_address_without_port_are_unreachable() {
    let site = Site::new();
    let (listener, dead) = listener().await;
    drop(listener);
    let addresses = [dead, "127.0.0.1".to_owned()];
    let caller = Arc::clone(&site.caller(&site.host()));
    let error = connect(&Tcp::default(), &addresses, caller, Options::default())
        .await
        .unwrap_err();
    assert!(
        matches!(&error, LinkError::Unreachable(failures) if failures.len() == 2),
        "{error:?}"
    );
}

async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}
