//! HTTP/1 bytes, without IO: finding and parsing heads, framing bodies, encoding both.
//!
//! Everything here works on slices the caller already has, so that it can be tested by byte transcripts, split at every
//! position, and fuzzed. Ambiguity is an error by design (RFC 9112 leaves room for leniency; request smuggling lives in that
//! room): a bare LF, two lengths, a length beside a transfer coding, folded lines.

pub mod head;
mod line;
pub mod fields;
pub mod names;
pub mod target;
pub mod framing;
pub mod chunked;
pub mod encode;
#[cfg(test)]
mod head_tests;
#[cfg(test)]
mod tests;
