//! Sockets for clients: workers, listening, connections, and how all of them end.
//!
//! A worker is a thread with a runtime of its own. Each listens on its own socket of every address (`SO_REUSEPORT`) and
//! on the one socket of every path, and a connection stays with the worker that accepted it until it ends.

pub mod worker;
pub mod listening;
pub mod port;
pub mod addresses;
pub mod arrival;
pub mod proxy_protocol;
pub mod connection;
pub mod tls;
mod http1;
mod http2;
mod clerk;
pub mod contain;
pub mod limits;
pub mod inherited;
pub mod handover;
pub mod systemd;
#[cfg(test)]
mod tests;
