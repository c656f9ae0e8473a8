//! What an error of a stream or a connection means.

use h2::{Error, Reason};

/// What happened to a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The peer said that it did nothing with the stream: REFUSED_STREAM, or a GOAWAY that names an earlier one as its last
    /// (RFC 9113 §8.7). Sending the request again is safe, whatever it is.
    Refused,
    /// The peer gave the stream up, for this reason.
    Reset(Reason),
    /// The connection ended or broke.
    Lost,
    /// The peer did not keep to the protocol; says so in the code we answered with.
    Broke(Reason),
}

// === impl Fault ===

impl Fault {
    /// Judges an error of a stream.
    pub fn of(error: &Error) -> Self {
        let reason = error.reason().unwrap_or(Reason::NO_ERROR);
        if error.is_remote() {
            // Streams that a GOAWAY leaves alive do not end with it.
            return if error.is_go_away() || reason == Reason::REFUSED_STREAM {
                Fault::Refused
            } else {
                Fault::Reset(reason)
            };
        }
        if error.is_library() { Fault::Broke(reason) } else { Fault::Lost }
    }
}
