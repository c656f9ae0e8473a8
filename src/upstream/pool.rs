//! Pools, and the lease: the one seam between a request and the provider it may use.
//!
//! Everything that decides who may send what where meets in [`Pool::lease`] and nowhere else: today whose turn it is, with
//! the coming capabilities queues, capacity, circuits, cooldowns and learned limits. Retries, fallbacks and hedges take
//! another lease.

use super::endpoint::Endpoint;
use crate::clock;
use crate::config;
use crate::observe::metrics::ProviderMetrics;
use crate::policy::outcome::Outcome;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// One provider as a snapshot sees it: what the file says, and what is alive.
#[derive(Debug)]
pub struct Provider {
    /// What the file says.
    pub config: Arc<config::Provider>,
    /// Where it is reached.
    pub endpoint: Arc<Endpoint>,
    /// Its series.
    pub metrics: ProviderMetrics,
}

/// Providers that can stand in for each other.
#[derive(Debug)]
pub struct Pool {
    /// What the file calls it.
    pub name: Arc<str>,
    /// In file order; never empty.
    pub providers: Vec<Arc<Provider>>,
    /// Whose turn it is. Shared with the pool of that name in the snapshot before.
    turn: Arc<AtomicUsize>,
}

/// What a request asks of a pool.
#[derive(Debug)]
pub struct Ask<'a> {
    /// Names of providers it has tried already; they are passed over.
    pub tried: &'a [Arc<str>],
    /// Now.
    pub now: Instant,
}

/// The permission to make one attempt at one provider. Giving it back reports how the attempt ended; a lease that is
/// dropped without a word means that the client left.
#[derive(Debug)]
pub struct Lease<'pool> {
    /// The provider to use.
    pub provider: &'pool Provider,
    /// When the lease was taken.
    pub since: Instant,
    returned: bool,
}

/// Why there is no lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// No provider of the pool can take the request.
    NoProvider,
}

// === impl Pool ===

impl Pool {
    /// A pool over these providers; `turn` is that of the pool of this name before, if there was one.
    pub fn new(name: Arc<str>, providers: Vec<Arc<Provider>>, turn: Arc<AtomicUsize>) -> Self {
        Pool { name, providers, turn }
    }

    /// Leases the provider whose turn it is, passing over those that were tried.
    ///
    /// # Errors
    /// [`Refused::NoProvider`] where every provider was tried.
    #[expect(clippy::unused_async, reason = "waiting in the pool's queue happens here")]
    pub async fn lease(&self, ask: &Ask<'_>) -> Result<Lease<'_>, Refused> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let count = self.providers.len();
        let mut order = (0..count).map(|step| &self.providers[first.wrapping_add(step) % count]);
        let free = |provider: &&Arc<Provider>| !ask.tried.contains(&provider.config.name);
        let provider = order.find(free).ok_or(Refused::NoProvider)?;
        provider.metrics.begin();
        Ok(Lease { provider, since: ask.now, returned: false })
    }
}

// === impl Lease ===

impl Lease<'_> {
    /// Gives the lease back and reports how the attempt ended.
    pub fn finish(mut self, outcome: Outcome, now: Instant) {
        self.give_back(outcome, now);
    }

    fn give_back(&mut self, outcome: Outcome, now: Instant) {
        if !self.returned {
            self.returned = true;
            self.provider.metrics.end(outcome, now.saturating_duration_since(self.since));
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if !self.returned {
            self.give_back(Outcome::ClientGone, clock::now());
        }
    }
}
