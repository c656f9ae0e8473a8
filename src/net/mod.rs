//! Sockets as the proxy uses them: one byte stream for every kind of connection, HTTP/1 messages read and written through
//! it, bodies moved between two of them, one lazy timer.
//!
//! Everything is polled by the one task that owns it. There is no lock, no channel and no second task between a client's
//! socket and a provider's, so backpressure is simply not reading.

pub mod io;
pub mod tls;
pub mod buffer;
pub mod wire;
pub mod stream;
pub mod frames;
pub mod inside;
pub mod side;
pub mod pump;
pub mod timer;
pub mod proxy_header;
