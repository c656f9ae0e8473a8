//! The shapes a body takes in the demo: bytes at hand, a run of filler, or events spread over time.
//!
//! One type serves the sample providers' answers and the load's requests. Nothing is ever held but the next piece, so a
//! body of any length costs the same memory.

use super::providers::Sample;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Interval;

/// A body to send.
#[derive(Debug)]
pub(super) enum Content {
    /// These bytes, until they are taken.
    Whole(Option<Bytes>),
    /// So many bytes of filler still to come.
    Filler(u64),
    /// Server-sent events.
    Events(Events),
}

/// Server-sent events at a steady pace; the first comes at once.
#[derive(Debug)]
pub(super) struct Events {
    from: Sample,
    sent: u32,
    total: u32,
    pace: Interval,
}

// === impl Content ===

impl Content {
    /// A body of these bytes.
    pub(super) fn of(bytes: impl Into<Bytes>) -> Self {
        Content::Whole(Some(bytes.into()))
    }

    /// No body at all.
    pub(super) fn empty() -> Self {
        Content::Whole(None)
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let piece = match &mut *self {
            Content::Whole(bytes) => bytes.take(),
            Content::Filler(left) => filler(left),
            Content::Events(events) => ready!(events.poll_next(cx)),
        };
        Poll::Ready(piece.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Content::Whole(bytes) => bytes.is_none(),
            Content::Filler(left) => *left == 0,
            Content::Events(events) => events.sent == events.total,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Content::Filler(left) => SizeHint::with_exact(*left),
            Content::Events(_) => SizeHint::default(),
        }
    }
}

// === impl Events ===

impl Events {
    /// `total` events from `from`, one each `every`.
    pub(super) fn new(from: Sample, total: u32, every: Duration) -> Self {
        Events { from, sent: 0, total, pace: tokio::time::interval(every.max(SHORTEST_PACE)) }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.sent == self.total {
            return Poll::Ready(None);
        }
        ready!(self.pace.poll_tick(cx));
        self.sent += 1;
        let (n, from) = (self.sent, self.from.name());
        let text = format!("id: {n}\nevent: tick\ndata: {{\"from\":\"{from}\",\"n\":{n},\"of\":{}}}\n\n", self.total);
        Poll::Ready(Some(text.into()))
    }
}

fn filler(left: &mut u64) -> Option<Bytes> {
    // The filler is 64 KiB, so the shorter of the two lengths fits a usize on every platform.
    let length = (*left).min(FILLER.len() as u64) as usize;
    *left -= length as u64;
    (length > 0).then(|| Bytes::from_static(&FILLER[..length]))
}

/// `tokio::time::interval` refuses an empty period.
const SHORTEST_PACE: Duration = Duration::from_millis(1);

static FILLER: [u8; 64 * 1024] = [b'.'; 64 * 1024];
