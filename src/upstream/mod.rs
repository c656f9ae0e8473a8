//! Providers as they live: connections kept, calls in flight, whose turn it is. This state outlives any configuration.
//!
//! A configuration names providers and pools; what is alive is found by that name again after a reload. An [`Endpoint`](endpoint::Endpoint) (an
//! address and the connections to it) lives on as long as everything that decides where a connection leads is unchanged, so
//! that no connection is ever reused for another address or another certificate check.

pub mod registry;
pub mod pool;
pub mod spending;
pub mod state;
pub mod line;
mod sync;
pub mod buffers;
pub mod breaker;
pub mod degrade;
pub mod health;
pub mod discover;
pub mod endpoint;
pub mod multiplex;
pub mod idle;
pub mod connect;
pub mod resolve;
pub mod tls;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks one of the room's mutexes. None is held for more than moments, and what one guards is whole between two statements:
/// a thread that panicked with it left nothing half done.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
