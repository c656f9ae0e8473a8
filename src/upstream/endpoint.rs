//! One address, and the connections to it: those of HTTP/1 that wait to be used again, those of HTTP/2 that are shared.

use super::connect::{ConnectError, Target};
use super::idle::Idle;
use super::multiplex::{Alone, Approach, Given, Multiplex, Seat, Speaks, Terms};
use super::tls::TlsError;
use crate::clock;
use crate::config::{self, Protocols, Scheme};
use crate::instant::Instant;
use crate::net::io::Io;
use crate::net::proxy_header::Announce;
use crate::net::wire::Wire;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Where a provider is reached. Shared by all workers; each has a stack of idle connections of its own, because a
/// connection belongs to the runtime it was opened in.
#[derive(Debug)]
pub struct Endpoint {
    approach: Arc<Approach>,
    keep: Duration,
    workers: Box<[Shelf]>,
    /// Whom to tell that a connection could not be opened.
    lost: Option<Arc<Notify>>,
}

/// One worker's connections. The lock is never contended: only that worker's thread takes it. Nor does it share a cache line
/// with its neighbour's; processors fetch two at a time.
#[derive(Debug)]
#[repr(align(128))]
struct Shelf {
    idle: Mutex<Idle<Box<Wire>>>,
    /// Those of HTTP/2, in use and idle.
    shared: Arc<Multiplex>,
    /// A task is there that closes what has waited too long.
    tidied: AtomicBool,
    /// Connections that are not idle yet, see [`Endpoint::rest`].
    resting: AtomicUsize,
}

/// A connection to a provider, fit for one exchange.
#[derive(Debug)]
pub struct Connection {
    /// The stream. Boxed, because it goes from hand to hand with every request.
    pub wire: Box<Wire>,
    /// Whether it has carried an exchange before: the provider may have closed it by now without our having seen it.
    pub reused: bool,
    born: Instant,
}

/// What a request is sent on.
#[derive(Debug)]
pub enum Hand {
    /// A connection of its own.
    Http1(Connection),
    /// A stream's place on one that others share.
    Http2(Seat),
}

// === impl Endpoint ===

impl Endpoint {
    /// An endpoint without connections, for this many workers.
    ///
    /// # Errors
    /// A certificate or name that cannot be used.
    pub fn new(provider: &config::Provider, workers: usize) -> Result<Self, TlsError> {
        let target = Target::new(&provider.url, &provider.tls)?;
        let (speaks, offers): (_, &[&[u8]]) = match (provider.url.scheme, provider.protocols) {
            (Scheme::H2c, _) => (Speaks::Http2, &[]),
            (Scheme::Https, Protocols { http2: true, http1: true }) => {
                (Speaks::Alpn { http1: true }, &[b"h2", b"http/1.1"])
            }
            (Scheme::Https, Protocols { http2: true, http1: false }) => (Speaks::Alpn { http1: false }, &[b"h2"]),
            (Scheme::Http | Scheme::Https, _) => (Speaks::Http1, &[b"http/1.1"]),
        };
        let target = target.offering(offers).announcing(provider.proxy_protocol);
        let approach = Approach::new(target, speaks, Terms::new(&provider.connections));
        Ok(Endpoint::with(approach, &provider.connections, workers))
    }

    /// An endpoint that is reached so.
    pub(super) fn with(approach: Approach, connections: &config::ProviderConnections, workers: usize) -> Self {
        let approach = Arc::new(approach);
        let shelf = || Shelf {
            idle: Mutex::new(Idle::new(connections)),
            shared: Arc::new(Multiplex::new(Arc::clone(&approach))),
            tidied: AtomicBool::new(false),
            resting: AtomicUsize::new(0),
        };
        let workers = (0..workers).map(|_| shelf()).collect();
        Endpoint { approach, keep: connections.idle_timeout, workers, lost: None }
    }

    /// An endpoint without connections that leads to one of the addresses of this one's name. `lost` is told when it can
    /// not be reached.
    pub(super) fn toward(
        &self,
        address: SocketAddr,
        connections: &config::ProviderConnections,
        lost: Arc<Notify>,
    ) -> Self {
        let approach = self.approach.toward(address);
        let mut endpoint = Endpoint::with(approach, connections, self.workers.len());
        endpoint.lost = Some(lost);
        endpoint
    }

    /// A free place on what is open now: on a shared connection, else an idle connection of HTTP/1.
    ///
    /// Where few places are left, the next connection is opened in the background.
    pub fn acquire(&self, worker: usize, now: Instant) -> Option<Hand> {
        let seat = if self.approach.never_shares() { None } else { self.workers[worker].shared.seat(now) };
        seat.map(Hand::Http2).or_else(|| self.reuse(worker, now).map(Hand::Http1))
    }

    /// Opens a connection by `deadline`, speaking what the provider speaks; for HTTP/2, as few as all who ask need. Opening
    /// one that others wait for too may take `patience`, whenever the first of them gives up.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn open(&self, worker: usize, patience: Duration, deadline: Instant) -> Result<Hand, ConnectError> {
        self.open_any(worker, patience, deadline).await.inspect_err(|error| self.note(error))
    }

    async fn open_any(&self, worker: usize, patience: Duration, deadline: Instant) -> Result<Hand, ConnectError> {
        let shared = &self.workers[worker].shared;
        let given = if self.approach.may_share() { shared.wait(patience, deadline).await? } else { Given::Direct };
        let given = match given {
            Given::Direct => shared.direct(patience, deadline).await?,
            given => given,
        };
        match given {
            Given::Seat(seat) => Ok(Hand::Http2(seat)),
            Given::Http1(io) => Ok(Hand::Http1(Connection::new(io))),
            // Whoever opens a connection gets it.
            Given::Direct => {
                self.approach.open_http1(&Announce::default(), deadline).await.map(Connection::new).map(Hand::Http1)
            }
        }
    }

    /// A connection for one who shares it with nobody, whatever it will speak.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub(super) async fn open_alone(&self, deadline: Instant) -> Result<Alone, ConnectError> {
        self.approach.open_alone(deadline).await.inspect_err(|error| self.note(error))
    }

    fn note(&self, error: &ConnectError) {
        if let Some(lost) = self.lost.as_ref().filter(|_| !error.is_ours()) {
            lost.notify_one();
        }
    }

    /// A new connection that speaks HTTP/1, for what HTTP/2 does not carry, and for the client that `announce` names. No
    /// worker is named: it is the caller's alone.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn open_http1(&self, announce: &Announce, deadline: Instant) -> Result<Connection, ConnectError> {
        self.approach.open_http1(announce, deadline).await.map(Connection::new).inspect_err(|error| self.note(error))
    }

    /// An idle connection of HTTP/1 of this worker that is still alive, the youngest first.
    pub fn reuse(&self, worker: usize, now: Instant) -> Option<Connection> {
        let mut waiting = self.workers[worker].idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((mut wire, born)) = waiting.take(now) {
            if wire.is_quiet() {
                return Some(Connection { wire, reused: true, born });
            }
        }
        None
    }

    /// As [`Endpoint::keep`], once the connection has been silent for a moment; for answers to HEAD.
    ///
    /// There are providers that send the body all the same, right behind the head. Used at once, the connection would
    /// carry the next request, and that body, which whoever wrote the resource chose, would pass for its answer.
    pub fn rest(self: &Arc<Self>, worker: usize, connection: Connection, hint: Option<Duration>) {
        if self.approach.is_private() {
            return;
        }
        let endpoint = Arc::clone(self);
        if self.workers[worker].resting.fetch_add(1, Ordering::Relaxed) >= RESTING_MAX {
            self.workers[worker].resting.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        tokio::spawn(async move {
            tokio::time::sleep(REST).await;
            endpoint.workers[worker].resting.fetch_sub(1, Ordering::Relaxed);
            endpoint.keep(worker, connection, hint, clock::now());
        });
    }

    /// Keeps a connection whose exchange is complete. `hint` is how long the provider says it will keep it
    /// (`Keep-Alive: timeout=5`); we give up a second earlier, so as not to meet its FIN on the way. A connection that began
    /// with a PROXY header is closed: whatever it carries is that one client's.
    pub fn keep(self: &Arc<Self>, worker: usize, mut connection: Connection, hint: Option<Duration>, now: Instant) {
        let keep = hint.map_or(self.keep, |hint| self.keep.min(hint.saturating_sub(Duration::from_secs(1))));
        if keep.is_zero() || self.approach.is_private() || !connection.wire.is_quiet() {
            return;
        }
        connection.wire.rest();
        let place = &self.workers[worker];
        place.idle.lock().unwrap_or_else(PoisonError::into_inner).put(connection.wire, connection.born, now, keep);
        // Mostly it is, and a look costs less.
        if !place.tidied.load(Ordering::Acquire) && !place.tidied.swap(true, Ordering::AcqRel) {
            tokio::spawn(tidy(Arc::clone(self), worker));
        }
    }
}

impl Drop for Endpoint {
    /// What runs may end; idle connections close at once.
    fn drop(&mut self) {
        for shelf in &self.workers {
            shelf.shared.close();
        }
    }
}

// === impl Connection ===

impl Connection {
    fn new(io: Io) -> Self {
        Connection { wire: Box::new(Wire::to_provider(io)), reused: false, born: clock::now() }
    }
}

/// How long a connection has to stay silent after an answer to HEAD: longer than Linux delays the acknowledgement that a
/// sender without `TCP_NODELAY` waits for between head and body.
const REST: Duration = Duration::from_millis(100);

/// Connections of one worker that rest at one provider; more are closed.
const RESTING_MAX: usize = 256;

/// Closes a worker's idle connections as their time comes; ends when none is left, so that an idle gateway sleeps.
async fn tidy(endpoint: Arc<Endpoint>, worker: usize) {
    loop {
        let next = {
            let shelf = &endpoint.workers[worker];
            let mut waiting = shelf.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let next = waiting.expire(clock::now());
            if next.is_none() {
                // Under the lock, and on the only thread that ever puts: no connection slips in untended.
                shelf.tidied.store(false, Ordering::Release);
            }
            next
        };
        match next {
            // Waking at most once a second also when many expire one after the other.
            Some(at) => tokio::time::sleep_until(at.max(clock::now() + Duration::from_secs(1)).into()).await,
            None => return,
        }
    }
}
