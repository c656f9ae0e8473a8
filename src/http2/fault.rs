//! What an error of an HTTP/2 stream means for the request that it ends.
//!
//! The one question that matters is whether the provider may have acted on the request. It has not where it says so:
//! `REFUSED_STREAM`, and a GOAWAY whose last stream is below ours, are promises that nothing was processed (RFC 9113 §8.7),
//! and such a request may go elsewhere whatever its method.

use h2::{Error, Reason};
use std::fmt;

/// How a stream ended that should have gone on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broke {
    /// The provider has not processed the request, and says so: always safe to send again. With the code of its GOAWAY, or
    /// `REFUSED_STREAM`; `NO_ERROR` where the connection was gone before the request was sent.
    Refused(Reason),
    /// The provider reset the stream with this code; it may have acted on the request.
    Reset(Reason),
    /// The connection ended or broke; the provider may have acted on the request.
    Lost,
    /// The provider broke HTTP/2, on this stream or on the whole connection; with the code we told it.
    Protocol(Reason),
    /// We ended the stream, or tried what HTTP/2 does not allow, such as a `Connection` field.
    Ours,
}

/// Says what an error of `h2`'s client side means.
///
/// It hands out an error *from the provider's GOAWAY* in two places only: on streams above the last one that the provider
/// will process, and on requests that were not sent because of it. Streams at or below run on, and end as
/// [`Broke::Lost`] if the provider closes the connection under them.
pub fn judge(error: &Error) -> Broke {
    let Some(reason) = error.reason() else {
        return if error.is_io() { Broke::Lost } else { Broke::Ours };
    };
    if error.is_remote() {
        let unprocessed = error.is_go_away() || reason == Reason::REFUSED_STREAM;
        if unprocessed { Broke::Refused(reason) } else { Broke::Reset(reason) }
    } else if error.is_library() {
        Broke::Protocol(reason)
    } else {
        Broke::Ours
    }
}

// === impl Broke ===

impl Broke {
    /// Whether the provider has certainly not processed the request.
    #[must_use]
    pub fn is_unprocessed(self) -> bool {
        matches!(self, Broke::Refused(_))
    }
}

impl fmt::Display for Broke {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broke::Refused(code) => write!(f, "the provider refused the stream unprocessed ({code:?})"),
            Broke::Reset(code) => write!(f, "the provider reset the stream ({code:?})"),
            Broke::Lost => f.write_str("the connection to the provider was lost"),
            Broke::Protocol(code) => write!(f, "the provider broke HTTP/2 ({code:?})"),
            Broke::Ours => f.write_str("the stream was ended here"),
        }
    }
}
