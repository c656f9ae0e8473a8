//! Moving a body from one side to the other, in one direction.

use super::side::Side;
use super::wire::ReadError;
use std::io;
use std::task::{Context, Poll};

/// One direction of an exchange.
#[derive(Debug, Default)]
pub struct Pump {
    /// The source is complete and its end was handed to the sink.
    ended: bool,
    /// The sink took something since this was last asked.
    moved: bool,
}

/// Where a direction stands.
#[derive(Debug)]
pub enum Flow {
    /// Everything was read, and written out.
    Done,
    /// Waiting for the source to send.
    AwaitSource,
    /// Waiting for the sink to take.
    AwaitSink,
    /// The source broke before its end.
    SourceFailed(ReadError),
    /// The sink broke.
    SinkFailed(io::Error),
}

/// Where a body comes from.
pub trait Source {
    /// How many bytes of body are ready to be used; 0 is the end of a complete body.
    ///
    /// # Errors
    /// See [`ReadError`].
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, ReadError>>;

    /// Sends some of the `len` bytes that are ready to `sink` and says how many.
    ///
    /// # Errors
    /// What the sink says.
    fn poll_send_to(&self, cx: &mut Context<'_>, sink: &mut Side<'_>, len: usize) -> Poll<io::Result<usize>>;

    /// Says that `n` bytes of body were used.
    fn use_body(&mut self, n: usize);

    /// Ends the body at `sink`, with the trailers that came behind it but for those whose names are `withheld`.
    fn end_at(&mut self, sink: &mut Side<'_>, _withheld: &dyn Fn(&[u8]) -> bool) {
        sink.finish(None);
    }
}

// === impl Pump ===

impl Pump {
    /// Moves what can be moved now. Whatever waits in the sink is flushed before this returns: nothing is held back.
    /// Trailers whose names are `withheld` stay here.
    pub fn run(
        &mut self,
        source: &mut impl Source,
        sink: &mut Side<'_>,
        withheld: &dyn Fn(&[u8]) -> bool,
        cx: &mut Context<'_>,
    ) -> Flow {
        let before = sink.departed();
        let flow = self.drive(source, sink, withheld, cx);
        self.moved |= sink.departed() != before;
        flow
    }

    /// Whether the sink took bytes since this was last asked; a head and what waited in front of the body count as well.
    pub fn progressed(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    fn drive(
        &mut self,
        source: &mut impl Source,
        sink: &mut Side<'_>,
        withheld: &dyn Fn(&[u8]) -> bool,
        cx: &mut Context<'_>,
    ) -> Flow {
        loop {
            if self.ended {
                return flush(sink, cx, Flow::Done);
            }
            match source.poll_body(cx) {
                Poll::Ready(Ok(0)) => {
                    source.end_at(sink, withheld);
                    self.ended = true;
                }
                Poll::Ready(Ok(n)) => match source.poll_send_to(cx, sink, n) {
                    Poll::Ready(Ok(sent)) => source.use_body(sent),
                    Poll::Ready(Err(error)) => return Flow::SinkFailed(error),
                    Poll::Pending => return Flow::AwaitSink,
                },
                Poll::Ready(Err(error)) => {
                    // What came before the break is the peer's to have.
                    let _: Flow = flush(sink, cx, Flow::Done);
                    return Flow::SourceFailed(error);
                }
                Poll::Pending => return flush(sink, cx, Flow::AwaitSource),
            }
        }
    }
}

/// `then`, once the sink holds nothing any more.
fn flush(sink: &mut Side<'_>, cx: &mut Context<'_>, then: Flow) -> Flow {
    match sink.poll_flush(cx) {
        Poll::Ready(Ok(())) => then,
        Poll::Ready(Err(error)) => Flow::SinkFailed(error),
        Poll::Pending => Flow::AwaitSink,
    }
}
