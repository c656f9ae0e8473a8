//! One side of an exchange, whichever version it speaks.

use super::inside::Inside;
use super::io::Socket;
use super::pump::Source;
use super::stream::Stream;
use super::wire::{HeadFound, HeadReadError, ReadError, Wire};
use crate::http1::fields::Fields;
use crate::http1::framing::{FramingError, Length};
use crate::http1::head::ResponseHead;
use bytes::Bytes;
use std::io;
use std::task::{Context, Poll, ready};

/// A client or a provider, as an exchange sees it: a connection of its own, a stream of a shared one, or somebody in here.
#[derive(Debug)]
pub enum Side<'a> {
    /// HTTP/1.
    Http1(&'a mut Wire),
    /// HTTP/2.
    Http2(&'a mut Stream),
    /// No connection at all; only ever a client.
    Inside(&'a mut Inside),
}

/// Says the same of both kinds of connection, and something of what is none.
macro_rules! either {
    ($self:ident, $side:ident => $said:expr, $inside:pat => $else:expr) => {
        match $self {
            Side::Http1($side) => $said,
            Side::Http2($side) => $said,
            Side::Inside($inside) => $else,
        }
    };
    ($self:ident, $side:ident => $said:expr) => {
        either!($self, $side => $said, $side => $said)
    };
}

// === impl Side ===

impl Side<'_> {
    /// The same side, lent on.
    pub fn lend(&mut self) -> Side<'_> {
        match self {
            Side::Http1(wire) => Side::Http1(wire),
            Side::Http2(stream) => Side::Http2(stream),
            Side::Inside(inside) => Side::Inside(inside),
        }
    }

    // --- reading ---

    /// Reads a provider's next head into `head`: at most `bytes` long, of at most `fields` fields. Says how long it was.
    ///
    /// # Errors
    /// See [`HeadReadError`]. The head is empty then.
    pub fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        head: &mut ResponseHead,
        bytes: usize,
        fields: usize,
    ) -> Poll<Result<usize, HeadReadError>> {
        match self {
            Side::Http1(wire) => {
                let found = ready!(wire.poll_read_head(cx, bytes, |front, len| head.read_front(front, len, fields)))?;
                let len = found.len();
                if found == HeadFound::Unread(len) {
                    head.parse(wire.head(len), fields).map_err(HeadReadError::Malformed)?;
                }
                wire.use_head(len);
                Poll::Ready(Ok(len))
            }
            Side::Http2(stream) => stream.poll_answer(cx, head, fields).map_ok(|()| head.fields.size()),
            Side::Inside(_) => Poll::Ready(Err(HeadReadError::Ended { partial: false })),
        }
    }

    /// The body that follows the head has this length, and may be at most `limit` bytes long.
    pub fn begin_body(&mut self, length: Length, limit: u64) {
        either!(self, side => side.begin_body(length, limit), _ => ());
    }

    /// How many bytes of body are ready to be used; 0 is the end of a complete body.
    ///
    /// # Errors
    /// See [`ReadError`].
    #[inline]
    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, ReadError>> {
        either!(self, side => side.poll_body(cx), inside => Poll::Ready(Ok(inside.ready())))
    }

    /// The bytes of body that [`Side::poll_body`] announced.
    #[inline]
    pub fn body(&self, len: usize) -> &[u8] {
        either!(self, side => side.body(len))
    }

    /// Says that `n` bytes of body were used.
    #[inline]
    pub fn use_body(&mut self, n: usize) {
        either!(self, side => side.use_body(n));
    }

    /// Ready once the whole body, which is `len` bytes long by its head, is there. Only for what fits a window.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn poll_whole(&mut self, cx: &mut Context<'_>, len: usize) -> Poll<Result<(), ReadError>> {
        either!(self, side => side.poll_whole(cx, len), _ => Poll::Ready(Ok(())))
    }

    /// Whether the body has been read to its end.
    pub fn body_is_done(&self) -> bool {
        either!(self, side => side.body_is_done(), inside => inside.ready() == 0)
    }

    /// Bytes of body still to come, where that is known.
    pub fn body_remaining(&self) -> Option<u64> {
        either!(self, side => side.body_remaining(), inside => Some(inside.ready() as u64))
    }

    /// Bytes of body that were used.
    pub fn body_read(&self) -> u64 {
        either!(self, side => side.body_read)
    }

    /// Whether trailers may come behind the body.
    pub fn may_trail(&self) -> bool {
        matches!(self, Side::Http2(_))
    }

    /// Refuses bytes behind the end of the answer that just began.
    ///
    /// # Errors
    /// Says so, where there are any.
    pub fn refuse_surplus(&self, length: Length) -> Result<(), FramingError> {
        match self {
            Side::Http1(wire) => wire.refuse_surplus(length),
            // A stream has an end of its own.
            Side::Http2(_) | Side::Inside(_) => Ok(()),
        }
    }

    /// Bytes are there that were not asked for yet.
    pub fn has_unread(&self) -> bool {
        match self {
            Side::Http1(wire) => wire.has_unread(),
            Side::Http2(_) | Side::Inside(_) => false,
        }
    }

    /// Ready when the peer has gone.
    #[inline]
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        either!(self, side => side.poll_gone(cx))
    }

    /// Whether [`Side::poll_gone`] would notice now that the peer leaves.
    pub fn is_watched(&self) -> bool {
        match self {
            Side::Http1(wire) => wire.is_watched(),
            Side::Http2(_) | Side::Inside(_) => true,
        }
    }

    /// Whether [`Side::poll_gone`] tells that the peer leaves at any time, whatever is unread.
    #[inline]
    pub fn says_that_it_leaves(&self) -> bool {
        matches!(self, Side::Http2(_) | Side::Inside(_))
    }

    /// The socket underneath, where it is this side's alone.
    pub fn socket(&self) -> Option<&Socket> {
        match self {
            Side::Http1(wire) => Some(wire.io().socket()),
            Side::Http2(_) | Side::Inside(_) => None,
        }
    }

    /// Whether the peer has left, where it is not watched.
    pub fn has_hung_up(&self) -> bool {
        match self {
            Side::Http1(wire) => wire.io().has_hung_up(),
            Side::Http2(_) | Side::Inside(_) => false,
        }
    }

    /// Bytes pass through unframed from here on, both ways.
    pub fn become_tunnel(&mut self) {
        either!(self, side => side.become_tunnel(), _ => ());
    }

    // --- writing ---

    /// Where a head is written to, in the form its version wants; [`Side::send_head`] or [`Side::send_interim`] follows.
    pub fn out(&mut self) -> &mut Vec<u8> {
        either!(self, side => side.out())
    }

    /// The final head is written; nothing follows it if `ends`.
    pub fn send_head(&mut self, status: u16, ends: bool) {
        match self {
            // It goes with what follows.
            Side::Http1(_) => {}
            Side::Http2(stream) => stream.send_head(status, ends),
            Side::Inside(inside) => inside.send_head(status),
        }
    }

    /// The head of an interim answer is written.
    pub fn send_interim(&mut self, status: u16) {
        match self {
            Side::Http1(_) => {}
            Side::Http2(stream) => stream.send_interim(status),
            Side::Inside(inside) => inside.send_interim(status),
        }
    }

    /// The body that follows has this length. `trailers`: some may come behind it.
    pub fn begin_answer(&mut self, length: Length, trailers: bool) {
        match self {
            Side::Http1(wire) => wire.begin_answer(length),
            Side::Http2(stream) => stream.begin_answer(length, trailers),
            Side::Inside(_) => {}
        }
    }

    /// The whole body of an answer of our own, which is not empty, goes out with the next flush.
    pub fn lay_body(&mut self, body: &[u8]) {
        match self {
            Side::Http1(wire) => {
                wire.out().extend_from_slice(body);
                wire.body_written += body.len() as u64;
            }
            Side::Http2(stream) => stream.lay_body(body),
            Side::Inside(inside) => inside.lay_body(body),
        }
    }

    /// Sends some of `data` and says how much.
    ///
    /// # Errors
    /// What the connection or stream says.
    #[inline]
    pub fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, side => side.poll_send(cx, data))
    }

    /// The same for bytes that need not be copied.
    ///
    /// # Errors
    /// What the connection or stream says.
    pub fn poll_send_shared(&mut self, cx: &mut Context<'_>, data: &Bytes) -> Poll<io::Result<usize>> {
        match self {
            Side::Http2(stream) => stream.poll_send_shared(cx, data.clone(), false),
            side => side.poll_send(cx, data),
        }
    }

    /// Sends all of `data`, which is short, or none of it while the peer takes nothing.
    ///
    /// # Errors
    /// What the connection or stream says.
    pub fn poll_send_whole(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<()>> {
        match self {
            // What is shorter than a chunk may be is gathered whole.
            Side::Http1(wire) => wire.poll_send(cx, data).map_ok(drop),
            Side::Http2(stream) => stream.poll_send_whole(cx, data),
            Side::Inside(inside) => inside.poll_send(cx, data).map_ok(drop),
        }
    }

    /// The rest of a body that has begun, which is not empty, goes out with the next flush.
    pub fn lay_end(&mut self, rest: &[u8]) {
        match self {
            Side::Http1(wire) => wire.lay_end(rest),
            Side::Http2(stream) => stream.lay_body(rest),
            Side::Inside(inside) => inside.lay_body(rest),
        }
    }

    /// Ends the body, with trailers where there are some and they can be told.
    pub fn finish(&mut self, trailers: Option<&Fields>) {
        either!(self, side => side.finish(trailers), _ => ());
    }

    /// Hands over everything that waits.
    ///
    /// # Errors
    /// What the connection or stream says.
    #[inline]
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, side => side.poll_flush(cx))
    }

    /// Ends our direction of a tunnel.
    ///
    /// # Errors
    /// What the connection says.
    pub fn poll_half_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Side::Http1(wire) => wire.poll_shutdown(cx),
            Side::Http2(stream) => {
                stream.finish(None);
                Poll::Ready(Ok(()))
            }
            Side::Inside(_) => Poll::Ready(Ok(())),
        }
    }

    /// Bytes of body that were sent.
    pub fn body_written(&self) -> u64 {
        either!(self, side => side.body_written)
    }

    /// Bytes that were handed over in its whole life.
    pub fn departed(&self) -> u64 {
        either!(self, side => side.departed())
    }

    /// Gives back what a large head or body needed.
    pub fn shrink(&mut self) {
        match self {
            Side::Http1(wire) => wire.shrink(),
            // The library holds what there is.
            Side::Http2(_) | Side::Inside(_) => {}
        }
    }
}

impl Source for Side<'_> {
    #[inline]
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, ReadError>> {
        Side::poll_body(self, cx)
    }

    #[inline]
    fn poll_send_to(&self, cx: &mut Context<'_>, sink: &mut Side<'_>, len: usize) -> Poll<io::Result<usize>> {
        match (sink, self) {
            (Side::Http2(sink), Side::Http2(source)) => {
                sink.poll_send_shared(cx, source.shared_body(len), source.ends_with(len))
            }
            (sink, source) => sink.poll_send(cx, source.body(len)),
        }
    }

    #[inline]
    fn use_body(&mut self, n: usize) {
        Side::use_body(self, n);
    }

    fn end_at(&mut self, sink: &mut Side<'_>, withheld: &dyn Fn(&[u8]) -> bool) {
        match (sink, self) {
            (Side::Http2(sink), Side::Http2(source)) => sink.finish_with(source.passing_trailers(withheld)),
            (sink, Side::Http2(source)) => sink.finish(source.trailers(withheld).as_ref()),
            (sink, Side::Http1(source)) => {
                sink.finish(source.trailers().map(|trailers| trailers.without(withheld)).as_ref());
            }
            (sink, Side::Inside(_)) => sink.finish(None),
        }
    }
}
