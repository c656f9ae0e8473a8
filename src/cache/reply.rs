//! What many requests are given at once, and the cache as a whole.

use super::body::Source;
use super::coalesce::Flights;
use super::store::{Head, Purge, Store, Stored};
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

// === impl Reply ===

impl Reply {
    /// Its head.
    #[must_use]
    pub fn head(&self) -> &Head {
        match self {
            Reply::Kept(stored) => &stored.head,
            Reply::Coming { head, .. } => head,
        }
    }

    /// Bytes of its body, where that is known.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        match self {
            Reply::Kept(stored) => Some(stored.len),
            Reply::Coming { len, .. } => *len,
        }
    }
}
