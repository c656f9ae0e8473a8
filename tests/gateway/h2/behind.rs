//! What a connection under test leads to: a gateway, and behind it a provider that speaks HTTP/1.
//!
//! The path of a request says what becomes of it: [`answer`] lists them.

use crate::provider::{Peer, Provider};
use crate::wire::{Gate, Message, lock};
use crate::world::{Extra, Gateway};
use sluice::http2::heads::websocket_accept;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// A gateway and its provider.
#[derive(Debug)]
pub(super) struct Behind {
    gateway: Gateway,
    /// Dropped behind the gateway, which then has no more to say to it.
    _alpha: Provider,
    script: Arc<Script>,
}

/// What the provider does, and what it has seen.
#[derive(Debug, Default)]
pub(super) struct Script {
    gate: Gate,
    begun: AtomicUsize,
    flooded: AtomicUsize,
    requests: Mutex<Vec<Message>>,
}

// === impl Behind ===

impl Behind {
    pub(super) fn start() -> Self {
        Behind::with(Extra::default())
    }

    /// As [`Behind::start`], with more settings.
    pub(super) fn with(extra: Extra<'_>) -> Self {
        let script = Arc::new(Script::default());
        let follows = Arc::clone(&script);
        let alpha = Provider::scripted(move |peer| follows.follow(peer));
        Behind { gateway: Gateway::before_with(&alpha, extra), _alpha: alpha, script }
    }

    /// Where it takes clients.
    pub(super) fn address(&self) -> SocketAddr {
        self.gateway.web()
    }

    /// The gateway.
    pub(super) fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// Lets everything go on that is held.
    pub(super) fn release(&self) {
        self.script.gate.open();
    }

    /// How many requests the provider has heard the head of.
    pub(super) fn begun(&self) -> usize {
        self.script.begun.load(Ordering::SeqCst)
    }

    /// The requests that the provider has read to their end.
    pub(super) fn requests(&self) -> Vec<Message> {
        lock(&self.script.requests).clone()
    }
}

// === impl Script ===

impl Script {
    /// How many requests for `/flood` it has heard the head of; it answers none of them.
    pub(super) fn flooded(&self) -> usize {
        self.flooded.load(Ordering::SeqCst)
    }

    /// Answers each request on a connection.
    pub(super) fn follow(&self, peer: &mut Peer) {
        while peer.wire.begins() {
            let head = peer.wire.head();
            self.begun.fetch_add(1, Ordering::SeqCst);
            if head.line.contains(" /flood ") {
                self.flooded.fetch_add(1, Ordering::SeqCst);
            }
            if head.line.contains(" /unread ") {
                self.gate.pass();
            }
            // That a body breaks off is what some tests are about.
            let Ok(request) = catch_unwind(AssertUnwindSafe(|| peer.wire.body(head, false))) else { return };
            let mut line = request.head.line.split(' ').map(str::to_owned);
            let (method, path) = (line.next().unwrap_or_default(), line.next().unwrap_or_default());
            let key = request.value("sec-websocket-key").map(str::to_owned);
            if path != "/polite" {
                lock(&self.requests).push(request);
            }
            if path == "/flood" {
                // Nobody waits for an answer.
                continue;
            }
            if path == "/held" {
                self.gate.pass();
            }
            if let Some(key) = key {
                return echo(peer, &key);
            }
            let mut answer = answer(&path);
            if method == "HEAD" {
                let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head");
                answer.truncate(head + 4);
            }
            if peer.wire.try_send(answer).is_err() || path == "/broken" {
                return;
            }
        }
    }
}

/// Opens a WebSocket, as far as a gateway looks, and sends back every byte.
fn echo(peer: &mut Peer, key: &str) {
    let accept = websocket_accept(key.as_bytes());
    let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n";
    peer.wire.send(format!("{head}Sec-WebSocket-Accept: {accept}\r\n\r\n"));
    while peer.wire.begins() {
        let byte = peer.wire.take(1);
        peer.wire.send(byte);
    }
}

/// What the provider answers to a path. Whatever is not here gets `hello`; `/held` gets it when the test releases it, and
/// of `/unread` the body is not even read before that.
fn answer(path: &str) -> Vec<u8> {
    let sized = |body: Vec<u8>| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nX-Served: yes\r\n\r\n", body.len());
        [head.into_bytes(), body].concat()
    };
    match path {
        "/interim" => [INTERIM.as_bytes().to_vec(), sized(b"hello".to_vec())].concat(),
        "/trailers" => TRAILERS.as_bytes().to_vec(),
        "/connection" => CONNECTION.as_bytes().to_vec(),
        "/204" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        "/304" => b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n".to_vec(),
        "/broken" => b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello".to_vec(),
        path => match path.strip_prefix("/bytes/") {
            Some(count) => sized(vec![b'a'; count.parse().expect("a count")]),
            None => sized(b"hello".to_vec()),
        },
    }
}

const INTERIM: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </b>\r\n\r\n";

const TRAILERS: &str =
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 5d41\r\n\r\n";

/// Fields that belong to one HTTP/1 connection, and one that `Connection` names.
const CONNECTION: &str = "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\nX-Hop: here\r\n\
    Proxy-Connection: keep-alive\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
