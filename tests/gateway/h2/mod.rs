//! HTTP/2 frame by frame: what RFC 9113, RFC 7541, RFC 8441 and RFC 9218 demand of an endpoint, one test for each MUST that
//! it can break, named by its section. They cover each case of the public conformance suite and what RFC 9113 added to it.
//!
//! A connection error is a GOAWAY with the code and then the end of the connection; a stream error is a `RST_STREAM` with the
//! code on a connection that goes on. Where the RFC leaves a choice, the test's comment says which one is ours.
//!
//! Where the library decides and we can only watch, the tests pin what it does:
//!
//! - What its field decoder refuses (names, most values, unknown pseudo fields) is an error of the connection, which §5.4.1
//!   permits. It says PROTOCOL_ERROR also where the RFC says COMPRESSION_ERROR, and for some frames behind the end of a
//!   request where it says STREAM_CLOSED. Codes that can be told from a frame's head are set right by our own layer.
//! - Pseudo fields at the head of trailers, those of requests in an answer, and a fragment in `:path` are taken off without
//!   a word. They go no further.

mod compression; // HPACK for tests, written from the RFC
mod frames; // one HTTP/2 connection as a test holds it
mod behind; // what such a connection leads to

mod preface; // §3: how a connection begins
mod framing; // §4: frames, their size, field blocks
mod streams; // §5: states, identifiers, concurrency, errors, extensions
mod definitions; // §6: each type of frame
mod errors; // §7: error codes
mod semantics; // §8: requests and answers in frames
mod hpack; // RFC 7541
mod extended_connect; // RFC 8441

mod providers; // the other direction: providers that break HTTP/2
mod floods; // what a hostile client sends in masses
mod leaving; // §6.8: connections that end, and those that are cut
