//! Connections that wait for their next request.
//!
//! A stack: the connection used last is used next. It is the one most likely to be alive still, its congestion window is
//! the warmest, and those a lull leaves over sink to the bottom and expire, which a queue would keep alive in turn. Bounded
//! by number and by time: when it is full the one that waited longest makes way.
//!
//! Each worker has a stack of its own per provider, so that taking a connection crosses no thread. What that multiplies: up
//! to `workers × connections.idle` sockets may be idle towards one provider.
//!
//! Nothing here reads a clock or a socket. Whether the peer has hung up in the meantime is for the user to see.

use crate::config::ProviderConnections;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Idle connections of one worker to one provider, the latest on top.
#[derive(Debug)]
pub struct Idle<T> {
    /// The one that has waited longest is in front.
    waiting: VecDeque<Waiting<T>>,
    limit: usize,
    max_age: Duration,
}

#[derive(Debug)]
struct Waiting<T> {
    connection: T,
    born: Instant,
    /// Not used from this instant on.
    until: Instant,
}

// === impl Idle ===

impl<T> Idle<T> {
    /// Empty, with the bounds of `limits`. Nothing is allocated before the first [`Idle::put`].
    #[must_use]
    pub fn new(limits: &ProviderConnections) -> Self {
        Idle { waiting: VecDeque::new(), limit: limits.idle, max_age: limits.max_age }
    }

    /// Keeps `connection`, opened at `born`, for `keep` or until it is too old, whichever is first.
    ///
    /// It is dropped at once where no time is left or nothing may be kept. Where the stack is full, the connection that
    /// has waited longest is dropped for it.
    pub fn put(&mut self, connection: T, born: Instant, now: Instant, keep: Duration) {
        let until = crate::clock::after(now, keep).min(crate::clock::after(born, self.max_age));
        if self.limit == 0 || until <= now {
            return;
        }
        while self.waiting.len() >= self.limit {
            self.waiting.pop_front();
        }
        self.waiting.push_back(Waiting { connection, born, until });
    }

    /// The connection put last that may still be used, and when it was opened. Expired ones above it are dropped.
    pub fn take(&mut self, now: Instant) -> Option<(T, Instant)> {
        while let Some(top) = self.waiting.pop_back() {
            if now < top.until {
                return Some((top.connection, top.born));
            }
        }
        None
    }

    /// Drops what has expired and says when the next one will; `None` if nothing is left.
    pub fn expire(&mut self, now: Instant) -> Option<Instant> {
        self.waiting.retain(|waiting| now < waiting.until);
        self.waiting.iter().map(|waiting| waiting.until).min()
    }

    /// How many wait, expired ones that nobody has dropped yet included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
