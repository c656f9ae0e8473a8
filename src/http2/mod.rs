//! HTTP/2 as far as it is ours, without IO: heads in the form the proxy works with, and what a peer's frames may cost.
//!
//! The `h2` crate does the framing, the header compression and the flow control, on both sides. What arrives as a
//! [`http::HeaderMap`] becomes the same [`crate::http1::fields::Fields`] that HTTP/1 heads are parsed into, so that everything
//! behind a connection knows one kind of head; what leaves has been written as field lines, and is read from those.

pub mod heads;
pub mod lines;
pub mod fault;
pub mod meter;
