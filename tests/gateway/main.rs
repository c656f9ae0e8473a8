//! The gateway as its neighbours meet it: real sockets, byte transcripts, a real binary.
//!
//! A transcript says what a client sends, what a provider sees and does *not* see, and what the client gets back. Nothing
//! here sleeps; everything waits for a condition, for a generous while.
#![allow(dead_code, unused_imports, reason = "the test world offers more than each build of it uses")]

mod exchange; // a request and its answer: framing, order, streams, interim and early answers
mod forwarding; // which fields and bytes of a message go on
mod gone; // clients that leave, in every phase
mod provider; // a provider that a test drives, or a script
mod refusals; // bad input: what the client gets, what the provider does not see
mod regression; // one test for each defect that was found from outside
mod smoke; // the test world itself
mod upgrade; // WebSocket and what else leaves HTTP
mod wire; // one TCP connection, either end of it
mod world; // a gateway to test: in this process, or the real binary
