//! Pools, and the lease: the one seam between a request and the provider it may use.
//!
//! Everything that decides who may send what where meets in [`Pool::lease`] and nowhere else. Retries, fallbacks, hedges and
//! jobs take another lease.

use super::buffers::Held;
use super::endpoint::Endpoint;
use super::spending::Spending;
use crate::clock;
use crate::config;
use crate::observe::metrics::ProviderMetrics;
use crate::policy::class::Class;
use crate::policy::outcome::Outcome;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// One provider as a snapshot sees it: what the file says, and what is alive.
#[derive(Debug)]
pub struct Provider {
    /// What it is called: the file's name, and `@ADDRESS` behind it where it was discovered.
    pub name: Arc<str>,
    /// What the file says.
    pub config: Arc<config::Provider>,
    /// Where it is reached.
    pub endpoint: Arc<Endpoint>,
    /// Its series.
    pub metrics: ProviderMetrics,
    /// Tells it from every other of this process.
    pub id: ProviderId,
}

/// Tells one provider's live state from another's, for as long as the process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProviderId(pub(super) u32);

/// Providers that can stand in for each other.
#[derive(Debug)]
pub struct Pool {
    /// What the file calls it.
    pub name: Arc<str>,
    /// In file order; never empty.
    providers: Vec<Arc<Provider>>,
    /// What it may spend on retries. Shared with the pool of that name in the snapshot before, as the turn is.
    pub spending: Arc<Spending>,
    /// Whose turn it is. Shared with the pool of that name in the snapshot before.
    turn: Arc<AtomicUsize>,
}

/// What a request asks of a pool.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// How urgent it is, capped already.
    pub class: Class,
    /// Who asks: an index into the configuration's clients.
    pub client: u32,
    /// That client's share beside the others of its class; at least 1.
    pub share: u32,
    /// What consistent hashing goes by; `None` where the request has none.
    pub key: Option<u64>,
    /// Those it has tried already. Another is taken where there is one.
    pub tried: &'a [ProviderId],
    /// It is a retry or a hedge. One that waits goes to the front of its client's line.
    pub again: bool,
    /// It may not be sent twice: it is the last to be used as a probe.
    pub risky: bool,
    /// Bytes of its body to account for while it waits; the lease then carries them as [`Lease::held`]. 0 where the caller
    /// accounts for them itself.
    pub bytes: usize,
    /// When a lease is of no use any more.
    pub deadline: Instant,
    /// What to do where no provider has room.
    pub wait: Wait,
    /// Now.
    pub now: Instant,
    /// Who waits, for operators to see. Only called where it waits.
    pub label: &'a (dyn Fn() -> Label + Sync),
}

/// What to do where no provider has room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Nothing: refused as [`Refused::Busy`]. So do hedges.
    Never,
    /// Wait in the queue, unless all that is left is to wait for a circuit.
    Queue,
    /// Wait in the queue, also for a circuit that may be probed in time.
    QueueForProbe,
}

/// A waiting request as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// `X-Request-Id`.
    pub request_id: Box<str>,
    /// What the client is called.
    pub client: Arc<str>,
    /// What the route is called.
    pub route: Arc<str>,
    /// Its method.
    pub method: Box<str>,
    /// Its path, without the query.
    pub path: Box<str>,
}

/// What became of an [`Ask`].
#[derive(Debug)]
pub enum Leasing {
    /// A provider had room.
    Now(Lease),
    /// It is in the queue.
    Wait(Waiting),
}

/// A place in the queue. Dropping it leaves the queue at once.
#[derive(Debug)]
pub struct Waiting {}

/// The permission to make one attempt at one provider. Giving it back reports how the attempt ended; a lease that is
/// dropped without a word means that the client left.
#[derive(Debug)]
pub struct Lease {
    /// The provider to use.
    pub provider: Arc<Provider>,
    /// When the lease was given.
    pub since: Instant,
    /// How long it was waited for.
    pub queued: Duration,
    /// The attempt decides whether a circuit closes.
    pub probe: bool,
    /// What [`Ask::bytes`] accounted for; take it out to keep it longer than the lease.
    pub held: Option<Held>,
    returned: bool,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    /// In one word. Only [`Outcome::Failure`] counts against the circuit: what the provider's `failures` leave out is for
    /// the caller to report as something else.
    pub outcome: Outcome,
    /// Why, for the circuit's history: `connect`, `timeout`, `reset`, `503`.
    pub why: &'static str,
    /// From the lease to the head of the answer, where one came.
    pub head_after: Option<Duration>,
    /// The provider asked us to wait: `Some(None)` where it did not say how long.
    pub cooldown: Option<Option<Duration>>,
}

/// Why there is no lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The queue has no place for it, or had to give its place to a more urgent one.
    QueueFull {
        /// When a place is likely to be free.
        retry_after: Duration,
    },
    /// It waited for as long as it may, or would have: then `waited` is zero.
    QueueTimeout {
        /// When the queue is likely to be short enough.
        retry_after: Duration,
        /// How long it waited.
        waited: Duration,
    },
    /// Every provider is out: circuit, cooldown, health or drain.
    NoProvider {
        /// When the first may be back, where that is known.
        retry_after: Option<Duration>,
    },
    /// Nobody has room now, and it does not wait.
    Busy,
    /// Its body does not fit into what is left of `memory.buffers`.
    Buffers {
        /// When the queue is likely to be short enough.
        retry_after: Duration,
    },
    /// An operator took it out of the queue.
    Cancelled,
}

// === impl Refused ===

impl Refused {
    /// When to ask again, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match *self {
            Refused::QueueFull { retry_after }
            | Refused::QueueTimeout { retry_after, .. }
            | Refused::Buffers { retry_after } => Some(retry_after),
            Refused::NoProvider { retry_after } => retry_after,
            Refused::Busy | Refused::Cancelled => None,
        }
    }
}

// === impl Pool ===

impl Pool {
    /// A pool over these providers; `turn` is that of the pool of this name before, if there was one.
    pub fn new(name: Arc<str>, providers: Vec<Arc<Provider>>, turn: Arc<AtomicUsize>) -> Self {
        Pool { name, providers, spending: Arc::default(), turn }
    }

    /// Leases a provider that has room, or a place in the queue.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn lease(&self, ask: &Ask<'_>) -> Result<Leasing, Refused> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let count = self.providers.len();
        let mut order = (0..count).map(|step| &self.providers[first.wrapping_add(step) % count]);
        let free = |provider: &&Arc<Provider>| !ask.tried.contains(&provider.id);
        let provider = order.find(free).ok_or(Refused::NoProvider { retry_after: None })?;
        provider.metrics.begin();
        let provider = Arc::clone(provider);
        let (since, queued) = (ask.now, Duration::ZERO);
        Ok(Leasing::Now(Lease { provider, since, queued, probe: false, held: None, returned: false }))
    }

    /// What it keeps with one provider, if it does.
    pub fn hashes_by(&self) -> Option<&config::HashBy> {
        None
    }

    /// Whether a provider that is not in `tried` is in service, so that a retry need not wait before it asks for a lease.
    pub fn has_untried(&self, tried: &[ProviderId], _now: Instant) -> bool {
        self.providers.iter().any(|provider| !tried.contains(&provider.id))
    }
}

// === impl Waiting ===

impl Future for Waiting {
    type Output = Result<Lease, Refused>;

    fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Err(Refused::NoProvider { retry_after: None }))
    }
}

// === impl Lease ===

impl Lease {
    /// Gives the lease back and reports how the attempt ended.
    pub fn finish(mut self, report: Report, now: Instant) {
        self.give_back(report.outcome, now);
    }

    fn give_back(&mut self, outcome: Outcome, now: Instant) {
        if !self.returned {
            self.returned = true;
            self.provider.metrics.end(outcome, now.saturating_duration_since(self.since));
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.returned {
            self.give_back(Outcome::ClientGone, clock::now());
        }
    }
}

// === impl Ask ===

impl fmt::Debug for Ask<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ask").field("class", &self.class).field("wait", &self.wait).finish_non_exhaustive()
    }
}
