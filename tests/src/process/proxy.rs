//! The wire between an agent and its master, in the hands of a test: it can be cut, and it can go silent in one
//! direction or in both, as a network does that drops packets without a word.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// How often a pump that waits for bytes looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(20);

/// One direction of a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// What the agent sends.
    ToMaster,
    /// What the master sends.
    ToAgent,
}

/// A wire to a master. It ends when this is dropped.
#[derive(Debug)]
pub struct Proxy {
    /// Where to dial instead.
    pub address: SocketAddr,
    wire: Arc<Wire>,
}

#[derive(Debug, Default)]
struct Wire {
    ended: AtomicBool,
    silent: [AtomicBool; 2],
    open: Mutex<Vec<TcpStream>>,
    opened: AtomicUsize,
}

impl Proxy {
    /// A wire from a free port at `at` to `master`.
    ///
    /// # Panics
    /// When there is no port.
    #[must_use]
    pub fn new(at: Ipv4Addr, master: SocketAddr) -> Self {
        let listener = TcpListener::bind((at, 0)).expect("loopback has free ports");
        let address = listener.local_addr().expect("a listener has an address");
        let wire = Arc::new(Wire::default());
        let shared = Arc::clone(&wire);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.ended.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(near) = stream else { continue };
                // A master that is away refuses, and so does its wire.
                let Ok(far) = TcpStream::connect(master) else {
                    continue;
                };
                shared.opened.fetch_add(1, Ordering::SeqCst);
                Wire::join(&shared, near, far);
            }
        });
        Self { address, wire }
    }

    /// Cuts every connection there is. New ones may be made.
    pub fn cut(&self) {
        self.wire.cut();
    }

    /// Lets nothing through in a direction, on connections there are and on new ones, without a word to either end.
    pub fn silence(&self, flow: Flow) {
        self.wire.silent(flow).store(true, Ordering::SeqCst);
    }

    /// Lets everything through.
    pub fn heal(&self) {
        for silent in &self.wire.silent {
            silent.store(false, Ordering::SeqCst);
        }
    }

    /// How many connections were made through it.
    #[must_use]
    pub fn opened(&self) -> usize {
        self.wire.opened.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.wire.ended.store(true, Ordering::SeqCst);
        self.wire.cut();
        // The listener wakes up once more, and leaves.
        drop(TcpStream::connect(self.address));
    }
}

impl Wire {
    fn silent(&self, flow: Flow) -> &AtomicBool {
        match flow {
            Flow::ToMaster => &self.silent[0],
            Flow::ToAgent => &self.silent[1],
        }
    }

    fn cut(&self) {
        for stream in self.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // Whoever is gone already is cut.
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    fn join(wire: &Arc<Self>, near: TcpStream, far: TcpStream) {
        let twin = |stream: &TcpStream| stream.try_clone().expect("a socket can be shared");
        wire.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend([twin(&near), twin(&far)]);
        for (from, to, flow) in [
            (twin(&near), twin(&far), Flow::ToMaster),
            (far, near, Flow::ToAgent),
        ] {
            let wire = Arc::clone(wire);
            thread::spawn(move || wire.pump(from, to, flow));
        }
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream, flow: Flow) {
        drop((from.set_read_timeout(Some(LOOK)), to.set_nodelay(true)));
        let mut bytes = vec![0; 64 * 1024];
        loop {
            let count = match from.read(&mut bytes) {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if self.ended.load(Ordering::SeqCst) {
                        break;
                    }
                    continue;
                }
                Ok(count) => count,
                Err(_) => 0,
            };
            // What is sent into the silence, the end of the connection included, arrives when it is over, as TCP has it.
            while self.silent(flow).load(Ordering::SeqCst) && !self.ended.load(Ordering::SeqCst) {
                thread::sleep(LOOK);
            }
            if count == 0 || to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        drop((to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both)));
    }
}
