//! One address, and the connections to it that wait to be used again.

use super::connect::{self, ConnectError, Target};
use super::idle::Idle;
use super::tls::TlsError;
use crate::clock;
use crate::config;
use crate::net::proxy_header::Announce;
use crate::net::wire::Wire;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Where a provider is reached. Shared by all workers; each has a stack of idle connections of its own, because a
/// connection belongs to the runtime it was opened in.
#[derive(Debug)]
pub struct Endpoint {
    target: Target,
    keep: Duration,
    workers: Box<[Shelf]>,
}

/// One worker's idle connections. The lock is never contended: only that worker's thread takes it.
#[derive(Debug)]
struct Shelf {
    idle: Mutex<Idle<Wire>>,
    /// A task is there that closes what has waited too long.
    tidied: AtomicBool,
    /// Connections that are not idle yet, see [`Endpoint::rest`].
    resting: AtomicUsize,
}

/// A connection to a provider, fit for one exchange.
#[derive(Debug)]
pub struct Connection {
    /// The stream.
    pub wire: Wire,
    /// Whether it has carried an exchange before: the provider may have closed it by now without our having seen it.
    pub reused: bool,
    born: Instant,
}

// === impl Endpoint ===

impl Endpoint {
    /// An endpoint without connections, for this many workers.
    ///
    /// # Errors
    /// A certificate or name that cannot be used.
    pub fn new(provider: &config::Provider, workers: usize) -> Result<Self, TlsError> {
        let shelf = || Shelf {
            idle: Mutex::new(Idle::new(&provider.connections)),
            tidied: AtomicBool::new(false),
            resting: AtomicUsize::new(0),
        };
        Ok(Endpoint {
            target: Target::new(&provider.url, &provider.tls)?.announcing(provider.proxy_protocol),
            keep: provider.connections.idle_timeout,
            workers: (0..workers).map(|_| shelf()).collect(),
        })
    }

    /// An idle connection of this worker that is still alive, the youngest first.
    pub fn reuse(&self, worker: usize, now: Instant) -> Option<Connection> {
        let mut waiting = self.workers[worker].idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((mut wire, born)) = waiting.take(now) {
            if wire.is_quiet() {
                return Some(Connection { wire, reused: true, born });
            }
        }
        None
    }

    /// A new connection, for the client that `announce` names.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn open(&self, announce: &Announce, deadline: Instant) -> Result<Connection, ConnectError> {
        let io = connect::connect(&self.target, announce, deadline).await?;
        Ok(Connection { wire: Wire::to_provider(io), reused: false, born: clock::now() })
    }

    /// As [`Endpoint::keep`], once the connection has been silent for a moment; for answers to HEAD.
    ///
    /// There are providers that send the body all the same, right behind the head. Used at once, the connection would
    /// carry the next request, and that body, which whoever wrote the resource chose, would pass for its answer.
    pub fn rest(self: &Arc<Self>, worker: usize, connection: Connection, hint: Option<Duration>) {
        if self.target.is_private() {
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
        if keep.is_zero() || self.target.is_private() || !connection.wire.is_quiet() {
            return;
        }
        connection.wire.shrink();
        let place = &self.workers[worker];
        place.idle.lock().unwrap_or_else(PoisonError::into_inner).put(connection.wire, connection.born, now, keep);
        if !place.tidied.swap(true, Ordering::AcqRel) {
            tokio::spawn(tidy(Arc::clone(self), worker));
        }
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
