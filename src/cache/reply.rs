//! What many requests are given at once, and the cache as a whole.

use super::body::Source;
use super::coalesce::Flights;
use super::store::{Head, Purge, Store, Stored};
use crate::policy::ladder::Trigger;
use std::sync::Arc;

/// The cache: what is kept, and what is on its way there.
#[derive(Debug)]
pub struct Cache {
    /// What is kept.
    pub store: Store,
    /// What is on its way.
    pub flights: Flights<Reply>,
}

/// A reply that was brought for everyone who asks.
#[derive(Debug)]
pub enum Reply {
    /// All of it is there.
    Kept(Arc<Stored>),
    /// Its body is coming in.
    Coming {
        /// Its head.
        head: Arc<Head>,
        /// Bytes of its body, where its head says.
        len: Option<u64>,
        /// Its body.
        source: Source,
    },
    /// None: what is kept already is what there is.
    Failed(Failure),
}

/// Why what is kept is given although it would have to be validated.
#[derive(Debug, Clone, Default)]
pub struct Failure {
    /// Why there is no answer; `None` where the route begins with what is kept.
    pub fell: Option<Trigger>,
    /// Its route's ladder puts it there, so that its own permission is not asked for.
    pub placed: bool,
    /// The status of a provider's answer that is not passed on.
    pub status: Option<u16>,
    /// Our own account of failed attempts.
    pub trail: Option<String>,
}

// === impl Cache ===

impl Cache {
    /// An empty one for `bytes` in all.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        Cache { store: Store::new(bytes), flights: Flights::default() }
    }

    /// Another bound from now on; what is too much is let go.
    pub fn set_bytes(&self, bytes: u64) {
        self.store.set_bytes(bytes);
    }

    /// What is kept under a URL is not what it was (RFC 9111 §4.4), and neither is what is on its way.
    pub fn invalidate(&self, url: &str) -> u64 {
        self.flights.outdate(|key| Purge::Url(url).concerns(key));
        self.store.invalidate(url)
    }

    /// Forgets what was asked for, and says how many replies that were.
    pub fn purge(&self, what: &Purge<'_>) -> u64 {
        self.flights.outdate(|key| what.concerns(key));
        self.store.purge(what)
    }
}
