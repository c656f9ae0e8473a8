//! The operators' listener: health, metrics and the configuration, over HTTP/1 on a socket of its own.
//!
//! It is axum on hyper, because convenience matters more than microseconds here; nothing of it is on a request's way.
//! `control.rs` is all it knows of the gateway, `guard.rs` decides who may do what before a handler runs, `api.rs` has
//! the handlers, `views.rs` what they show, `server.rs` the sockets.

mod advice;
mod api;
mod cache;
mod control;
mod guard;
mod problem;
mod server;
mod views;

pub use control::{
    BalanceView, CacheView, CachedRoute, Check, CircuitView, ConfigStatus, Control, Counts, DegradationView,
    Dependency, Forget, MemberView, OnDisk, ProviderView, QueueView, Readiness, Rejected, Reloaded, Reloading,
    RetryView, Version, WaitingView,
};
pub use server::serve;

#[cfg(test)]
mod tests;
