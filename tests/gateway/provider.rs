//! A provider that a test drives by hand, or that follows a script. It keeps every byte it receives.

use super::wire::{Head, Message, Wire, lock, wait_until};
use socket2::{Domain, Socket, Type};
use std::io::ErrorKind;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

/// A provider on a port of its own.
#[derive(Debug)]
pub(crate) struct Provider {
    address: SocketAddr,
    listener: TcpListener,
    seen: Arc<Seen>,
}

/// What a provider has seen.
#[derive(Debug, Default)]
struct Seen {
    /// Bytes, by connection.
    received: Mutex<Vec<Arc<Mutex<Vec<u8>>>>>,
    /// Sockets, to end them with the provider.
    sockets: Mutex<Vec<Weak<TcpStream>>>,
    /// Whole requests, in the order of their ends.
    requests: Mutex<Vec<Message>>,
    failures: Mutex<Vec<String>>,
    stopping: AtomicBool,
}

/// A scripted provider's end of one connection.
#[derive(Debug)]
pub(crate) struct Peer {
    /// The connection, for everything a script does by hand.
    pub(crate) wire: Wire,
    seen: Arc<Seen>,
}

/// An address where nobody listens, kept from everyone else while the socket lives.
pub(crate) fn refusing() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    let address = socket.local_addr().expect("a bound socket").as_socket().expect("an IP address");
    (socket, address)
}

/// An address that answers nothing: a listener that never accepts, its backlog full, while the sockets live.
pub(crate) fn silent() -> (Vec<Socket>, SocketAddr) {
    let (listener, address) = refusing();
    listener.listen(0).expect("it is bound");
    let mut sockets = vec![listener];
    for _ in 0..8 {
        let filler = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        filler.set_nonblocking(true).expect("a socket option");
        // "In progress" is the usual answer; those beyond the backlog stay so.
        let _: std::io::Result<()> = filler.connect(&address.into());
        sockets.push(filler);
    }
    (sockets, address)
}

// === impl Provider ===

impl Provider {
    /// A provider that does nothing by itself: the test takes each connection with [`Provider::accept`].
    pub(crate) fn by_hand() -> Self {
        Provider::on(TcpListener::bind(("127.0.0.1", 0)).expect("a free port"))
    }

    fn on(listener: TcpListener) -> Self {
        let address = listener.local_addr().expect("a bound socket");
        listener.set_nonblocking(true).expect("a socket option");
        Provider { address, listener, seen: Arc::default() }
    }

    /// A provider that follows `script` on each connection, in a thread of its own. When the script returns, the
    /// connection is closed. A script that panics fails the test when the provider is dropped.
    pub(crate) fn scripted(script: impl Fn(&mut Peer) + Send + Sync + 'static) -> Self {
        Provider::by_hand().following(script)
    }

    /// As [`Provider::scripted`], where a moment ago nobody listened; see [`refusing`].
    pub(crate) fn scripted_at(socket: Socket, script: impl Fn(&mut Peer) + Send + Sync + 'static) -> Self {
        socket.listen(128).expect("it is bound");
        Provider::on(socket.into()).following(script)
    }

    fn following(self, script: impl Fn(&mut Peer) + Send + Sync + 'static) -> Self {
        let provider = self;
        let (seen, script) = (Arc::clone(&provider.seen), Arc::new(script));
        let listener = provider.listener.try_clone().expect("a descriptor");
        // Blocking or not is a setting of the socket, which both handles share.
        listener.set_nonblocking(false).expect("a socket option");
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if seen.stopping.load(Ordering::SeqCst) {
                    break;
                }
                let (seen, script) = (Arc::clone(&seen), Arc::clone(&script));
                let peer = Peer { wire: seen.enter(stream), seen };
                std::thread::spawn(move || peer.follow(&*script));
            }
        });
        provider
    }

    /// A provider that answers every request with these bytes and keeps its connections.
    pub(crate) fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Provider::scripted(move |peer| {
            while peer.request().is_some() {
                peer.wire.send(&answer);
            }
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection, by hand.
    pub(crate) fn accept(&self) -> Wire {
        let mut accepted = None;
        wait_until("the gateway connects to the provider", || {
            accepted = self.listener.accept().ok();
            accepted.is_some()
        });
        self.seen.enter(accepted.unwrap_or_else(|| unreachable!("it was waited for")).0)
    }

    /// Nobody has connected that was not accepted yet. Only meaningful after something that would have come later.
    pub(crate) fn is_lonely(&self) -> bool {
        matches!(self.listener.accept(), Err(error) if error.kind() == ErrorKind::WouldBlock)
    }

    /// How many connections it has taken.
    pub(crate) fn connections(&self) -> usize {
        lock(&self.seen.received).len()
    }

    /// Every byte it has read, by connection.
    pub(crate) fn received(&self) -> Vec<Vec<u8>> {
        lock(&self.seen.received).iter().map(|bytes| lock(bytes).clone()).collect()
    }

    /// The whole requests that its script has read, in the order of their ends.
    pub(crate) fn requests(&self) -> Vec<Message> {
        lock(&self.seen.requests).clone()
    }

    /// Waits until its script has read this many whole requests.
    pub(crate) fn wait_for_requests(&self, count: usize) {
        wait_until("requests at the provider", || lock(&self.seen.requests).len() >= count);
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.seen.stopping.store(true, Ordering::SeqCst);
        for socket in lock(&self.seen.sockets).iter().filter_map(Weak::upgrade) {
            // One that has ended already needs no ending.
            let _: std::io::Result<()> = socket.shutdown(Shutdown::Both);
        }
        // Wakes the accepting thread of a scripted provider.
        drop(TcpStream::connect_timeout(&self.address, Duration::from_secs(1)));
        let failures = lock(&self.seen.failures);
        assert!(failures.is_empty() || std::thread::panicking(), "a provider's script failed: {failures:?}");
    }
}

// === impl Seen ===

impl Seen {
    fn enter(&self, stream: TcpStream) -> Wire {
        let mut received = lock(&self.received);
        let wire = Wire::new(stream, received.len());
        received.push(wire.record());
        lock(&self.sockets).push(wire.handle());
        wire
    }
}

// === impl Peer ===

impl Peer {
    /// Reads a request to its end; `None` where the gateway closed the connection instead.
    pub(crate) fn request(&mut self) -> Option<Message> {
        let request = self.wire.request()?;
        lock(&self.seen.requests).push(request.clone());
        Some(request)
    }

    /// Reads the rest of a request whose head was read, and counts it.
    pub(crate) fn keep(&mut self, head: Head) -> Message {
        let request = self.wire.body(head, false);
        lock(&self.seen.requests).push(request.clone());
        request
    }

    /// Sends an answer of known length.
    pub(crate) fn answer(&mut self, status: &str, body: &str) {
        self.wire.send(format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
    }

    fn follow(mut self, script: &dyn Fn(&mut Peer)) {
        let followed = catch_unwind(AssertUnwindSafe(|| script(&mut self)));
        if let (Err(panic), false) = (followed, self.seen.stopping.load(Ordering::SeqCst)) {
            let message = panic.downcast_ref::<String>().cloned();
            lock(&self.seen.failures).push(message.unwrap_or_else(|| "a panic".to_owned()));
        }
    }
}
