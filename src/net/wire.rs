//! One side of an HTTP/1 exchange: a stream, what was read from it, what is to be written to it.

use super::buffer::{FOR_ANSWERS, FOR_REQUESTS, Inbound, LARGE};
use super::io::Io;
use crate::http1::encode::{self, Encoder};
use crate::http1::fields::Fields;
use crate::http1::framing::{Decoder, FramingError, Length, Next};
use crate::http1::head::{HeadError, Scan};
use std::io;
use std::task::{Context, Poll, ready};

/// A stream with its read and write buffers and the framing of the body each way.
#[derive(Debug)]
pub struct Wire {
    io: Io,
    inbound: Inbound,
    decoder: Decoder,
    scan: Scan,
    outbound: Vec<u8>,
    sent: usize,
    encoder: Encoder,
    ended: bool,
    read_limit: u64,
    /// Bytes of body taken from here, framing not counted.
    pub body_read: u64,
    /// Bytes of body sent from here, framing not counted.
    pub body_written: u64,
    /// Whether any byte at all was written since the last [`Wire::begin`].
    pub touched: bool,
    /// Bytes written to the stream in its whole life.
    departed: u64,
}

/// Why no more of a body can be read.
#[derive(Debug)]
pub enum ReadError {
    /// The stream ended before the body did.
    Ended,
    /// The framing is broken.
    Framing(FramingError),
    /// The body is larger than allowed.
    TooLarge,
    /// The stream broke.
    Io(io::Error),
}

/// A whole head at the front, and how long it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadFound {
    /// It has been read.
    Read(usize),
    /// It has to be read, or something is wrong with it.
    Unread(usize),
}

/// Why no head came.
#[derive(Debug)]
pub enum HeadReadError {
    /// The stream ended; says whether part of a head had come.
    Ended {
        /// Bytes were there.
        partial: bool,
    },
    /// It is not a head we accept.
    Malformed(HeadError),
    /// It is longer than allowed.
    TooLong,
    /// The stream broke.
    Io(io::Error),
    /// The peer says that it did nothing with the request.
    Refused,
}

// === impl HeadFound ===

impl HeadFound {
    /// How long it is.
    #[allow(clippy::len_without_is_empty, reason = "a head is never empty")]
    pub fn len(self) -> usize {
        let (HeadFound::Read(len) | HeadFound::Unread(len)) = self;
        len
    }
}

// === impl Wire ===

impl Wire {
    /// Wraps a client's stream.
    pub fn to_client(io: Io) -> Self {
        Wire::new(io, FOR_REQUESTS)
    }

    /// Wraps a provider's stream.
    pub fn to_provider(io: Io) -> Self {
        Wire::new(io, FOR_ANSWERS)
    }

    fn new(io: Io, first: usize) -> Self {
        Wire {
            io,
            inbound: Inbound::new(first),
            decoder: Decoder::Done,
            scan: Scan::default(),
            outbound: Vec::new(),
            sent: 0,
            encoder: Encoder::Done,
            ended: false,
            read_limit: u64::MAX,
            body_read: 0,
            body_written: 0,
            touched: false,
            departed: 0,
        }
    }

    /// The stream, once the buffers are no longer needed. `None` where unread bytes would be lost.
    pub fn into_idle(self) -> Option<Io> {
        (self.inbound.is_empty() && self.sent == self.outbound.len()).then_some(self.io)
    }

    /// The stream and what was read from it, for another protocol.
    pub fn into_parts(self) -> (Io, Vec<u8>) {
        let unread = self.inbound.filled().to_vec();
        (self.io, unread)
    }

    /// The stream.
    pub fn io(&self) -> &Io {
        &self.io
    }

    /// Forgets the last exchange; unread bytes (a pipelined request) stay.
    pub fn begin(&mut self) {
        self.decoder = Decoder::Done;
        self.encoder = Encoder::Done;
        self.scan = Scan::default();
        self.read_limit = u64::MAX;
        self.body_read = 0;
        self.body_written = 0;
        self.touched = false;
    }

    // --- reading ---

    /// Unread bytes are there.
    pub fn has_unread(&self) -> bool {
        !self.inbound.is_empty()
    }

    /// The first byte not read yet.
    pub fn first_unread(&self) -> Option<u8> {
        self.inbound.filled().first().copied()
    }

    /// The bytes of the head that [`Wire::poll_head`] found.
    pub fn head(&self, len: usize) -> &[u8] {
        &self.inbound.filled()[..len]
    }

    /// Drops the head that was parsed.
    pub fn use_head(&mut self, len: usize) {
        self.inbound.consume(len);
        self.scan = Scan::default();
    }

    /// The body that follows the head has this length, and may be at most `limit` bytes long.
    pub fn begin_body(&mut self, length: Length, limit: u64) {
        self.decoder = Decoder::new(length);
        self.read_limit = limit;
    }

    /// Refuses bytes behind the end of the answer that just began: nobody asked for them, so nobody knows what they are.
    ///
    /// # Errors
    /// Says so, where there are any.
    pub fn refuse_surplus(&self, length: Length) -> Result<(), FramingError> {
        let there = self.inbound.filled().len() as u64;
        match length {
            Length::None if there > 0 => Err("bytes after an answer that has no body"),
            Length::Exact(bytes) if there > bytes => Err("bytes after the end of the answer"),
            _ => Ok(()),
        }
    }

    /// Drops one empty line before a request line, as RFC 9112 §2.2 asks for; says whether there was one.
    pub fn skip_empty_line(&mut self) -> bool {
        let empty = self.inbound.filled().starts_with(b"\r\n");
        if empty {
            self.inbound.consume(2);
            self.scan = Scan::default();
        }
        empty
    }

    /// The length of the head at the front, once it is all there; at most `max` bytes.
    ///
    /// # Errors
    /// See [`HeadReadError`].
    pub fn poll_head(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Result<usize, HeadReadError>> {
        let found = ready!(self.poll_read_head(cx, max, |_, _| None))?;
        Poll::Ready(Ok(found.len()))
    }

    /// The same; but the first bytes that come are given to `read`, once: mostly that is a whole head and nothing is wrong with
    /// it, so that it need not be searched for its end before it is read. `read` is told how many of its bytes count.
    ///
    /// # Errors
    /// See [`HeadReadError`].
    pub fn poll_read_head(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
        mut read: impl FnMut(&[u8], usize) -> Option<usize>,
    ) -> Poll<Result<HeadFound, HeadReadError>> {
        loop {
            let filled = self.inbound.filled();
            if !filled.is_empty() {
                if self.scan.is_new()
                    && let Some(len) = read(self.inbound.with_slack(), filled.len().min(max))
                {
                    return Poll::Ready(Ok(HeadFound::Read(len)));
                }
                match self.scan.find(filled).map_err(HeadReadError::Malformed)? {
                    Some(len) if len <= max => return Poll::Ready(Ok(HeadFound::Unread(len))),
                    None if filled.len() < max => {}
                    _ => return Poll::Ready(Err(HeadReadError::TooLong)),
                }
            }
            let partial = !filled.is_empty();
            if ready!(self.poll_more(cx, max)).map_err(HeadReadError::Io)? == 0 {
                return Poll::Ready(Err(HeadReadError::Ended { partial }));
            }
        }
    }

    /// Reads more raw bytes; 0 is the end of the stream. Pending, without a wake-up, where `max` bytes wait already.
    ///
    /// # Errors
    /// What the stream says.
    #[inline]
    pub fn poll_more(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Ok(0));
        }
        let read = ready!(self.inbound.poll_fill(&mut self.io, cx, max))?;
        self.ended = read == 0;
        Poll::Ready(Ok(read))
    }

    /// How many bytes of body are ready to be used; 0 is the end of a complete body.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, ReadError>> {
        loop {
            match self.decoder.next(self.inbound.filled()).map_err(ReadError::Framing)? {
                Next::Skip(n) => self.inbound.consume(n),
                Next::End => return Poll::Ready(Ok(0)),
                Next::Data(n) => {
                    let over = self.body_read + n as u64 > self.read_limit;
                    return Poll::Ready(if over { Err(ReadError::TooLarge) } else { Ok(n) });
                }
                Next::More => {
                    self.inbound.prepare_for_bulk();
                    if ready!(self.poll_more(cx, LARGE)).map_err(ReadError::Io)? == 0 {
                        let whole = self.decoder.ends_with_stream();
                        return Poll::Ready(if whole { Ok(0) } else { Err(ReadError::Ended) });
                    }
                }
            }
        }
    }

    /// Ready once the whole body, which is `len` bytes long by its head, is there.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn poll_whole(&mut self, cx: &mut Context<'_>, len: usize) -> Poll<Result<(), ReadError>> {
        while self.inbound.filled().len() < len {
            if ready!(self.poll_more(cx, len)).map_err(ReadError::Io)? == 0 {
                return Poll::Ready(Err(ReadError::Ended));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The bytes of body that [`Wire::poll_body`] announced.
    #[inline]
    pub fn body(&self, len: usize) -> &[u8] {
        &self.inbound.filled()[..len]
    }

    /// Says that `n` bytes of body were used.
    #[inline]
    pub fn use_body(&mut self, n: usize) {
        self.inbound.consume(n);
        self.decoder.used(n);
        self.body_read += n as u64;
    }

    /// Drops everything that was read.
    pub fn drop_unread(&mut self) {
        self.inbound.consume(usize::MAX);
    }

    /// Whether the body has been read to its end.
    pub fn body_is_done(&self) -> bool {
        self.decoder.is_done()
    }

    /// Bytes of body still to come, where its framing says.
    pub fn body_remaining(&self) -> Option<u64> {
        self.decoder.remaining()
    }

    /// The trailers of a complete chunked body.
    pub fn trailers(&self) -> Option<&Fields> {
        self.decoder.trailers()
    }

    /// Whether the stream is open and silent. Bytes that nobody asked for, an end or an error all make it useless.
    pub fn is_quiet(&mut self) -> bool {
        !self.has_unread() && !self.ended && self.io.is_silent()
    }

    /// Ready when the peer has gone. What it sends meanwhile (a pipelined request) is kept, up to a bound; beyond that the
    /// peer is not watched any more until some of it was used.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match ready!(self.poll_more(cx, PIPELINE_BYTES)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
    }

    /// Whether [`Wire::poll_gone`] still watches the peer.
    pub fn is_watched(&self) -> bool {
        self.inbound.filled().len() < PIPELINE_BYTES
    }

    /// Bytes pass through unframed from here on, both ways: after a 101.
    pub fn become_tunnel(&mut self) {
        self.decoder = Decoder::Close;
        self.encoder = Encoder::Close;
        self.read_limit = u64::MAX;
    }

    // --- writing ---

    /// Where a head is written to; what is written goes out with the next flush.
    pub fn out(&mut self) -> &mut Vec<u8> {
        &mut self.outbound
    }

    /// The body that follows has this length.
    pub fn begin_answer(&mut self, length: Length) {
        self.encoder = Encoder::new(length);
    }

    /// Sends some of `data` and says how much. Small pieces are gathered with what waits; large ones go straight out.
    ///
    /// # Errors
    /// What the stream says.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.outbound.len() - self.sent >= GATHER_BYTES {
            ready!(self.poll_flush(cx))?;
        }
        let sent = if !self.encoder.is_plain() {
            let piece = &data[..data.len().min(CHUNK_BYTES)];
            encode::chunk(&mut self.outbound, piece);
            piece.len()
        } else if data.len() >= DIRECT_BYTES {
            ready!(self.poll_send_directly(cx, data))?
        } else {
            self.outbound.extend_from_slice(data);
            data.len()
        };
        self.body_written += sent as u64;
        Poll::Ready(Ok(sent))
    }

    /// The rest of a chunked body goes out with the next flush.
    pub fn lay_end(&mut self, rest: &[u8]) {
        encode::chunk(&mut self.outbound, rest);
        self.body_written += rest.len() as u64;
        self.finish(None);
    }

    /// Ends the body: the last chunk and its trailers, where there are chunks.
    pub fn finish(&mut self, trailers: Option<&Fields>) {
        if self.encoder == Encoder::Chunked {
            encode::last_chunk(&mut self.outbound, trailers);
        }
        self.encoder = Encoder::Done;
    }

    /// Writes out everything that waits.
    ///
    /// # Errors
    /// What the stream says.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.outbound.len() {
            let n = ready!(self.io.poll_write(cx, &self.outbound[self.sent..]))?;
            self.left(n)?;
            self.sent += n;
        }
        self.outbound.clear();
        self.sent = 0;
        self.io.poll_flush(cx)
    }

    /// Ends our direction of the stream.
    ///
    /// # Errors
    /// What the stream says.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        self.io.poll_shutdown(cx)
    }

    /// Whether the peer would take a close for the end of the answer.
    pub fn ends_answer_by_closing(&self) -> bool {
        self.encoder == Encoder::Close
    }

    /// Bytes that have left for the socket in the stream's whole life: whether the peer takes anything shows in these.
    pub fn departed(&self) -> u64 {
        self.departed
    }

    /// Everything written has left for the socket.
    pub fn is_flushed(&self) -> bool {
        self.sent == self.outbound.len()
    }

    /// Gives back everything it does not need while nothing is to be read from it for a while.
    pub fn rest(&mut self) {
        self.inbound.rest();
        self.shrink();
    }

    /// Gives back what a large head or body needed, as far as nothing waits in it.
    pub fn shrink(&mut self) {
        self.inbound.shrink();
        if self.is_flushed() && self.outbound.capacity() > GATHER_BYTES {
            self.outbound = Vec::new();
            self.sent = 0;
        }
    }

    /// `data` in one system call together with what waits before it.
    fn poll_send_directly(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_flushed() {
            let n = ready!(self.io.poll_write(cx, data))?;
            self.left(n)?;
            return Poll::Ready(Ok(n));
        }
        let waiting = self.outbound.len() - self.sent;
        let slices = [io::IoSlice::new(&self.outbound[self.sent..]), io::IoSlice::new(data)];
        let n = ready!(self.io.poll_write_vectored(cx, &slices))?;
        self.left(n)?;
        if n < waiting {
            self.sent += n;
            return self.poll_send_directly(cx, data);
        }
        self.outbound.clear();
        self.sent = 0;
        if n == waiting { self.poll_send_directly(cx, data) } else { Poll::Ready(Ok(n - waiting)) }
    }

    /// `n` bytes were written to the stream.
    fn left(&mut self, n: usize) -> io::Result<()> {
        if n == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.touched = true;
        self.departed += n as u64;
        Ok(())
    }
}

/// Unread bytes kept for a client that sends its next request before it has its answer.
const PIPELINE_BYTES: usize = 16 * 1024;

/// Bytes gathered before they are written: beyond this a write costs less than a copy.
const GATHER_BYTES: usize = 32 * 1024;

/// A piece at least this long is written from where it lies instead of being copied.
const DIRECT_BYTES: usize = 8 * 1024;

/// The longest chunk we make: it bounds what is copied at once.
const CHUNK_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{Future, poll_fn};
    use std::pin::pin;
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    #[tokio::test]
    async fn a_task_that_has_used_up_its_budget_still_sees_that_a_connection_is_not_quiet() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let mut provider = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("it listens");
        let (near, _) = listener.accept().await.expect("a connection");
        let mut wire = Wire::to_provider(near.into());
        assert!(wire.is_quiet());
        provider.write_all(b"HTTP/1.1 200 OK").await.expect("it reads");
        poll_fn(|cx| wire.io().socket().poll_read_ready(cx)).await.expect("bytes are there");
        poll_fn(|cx| {
            while pin!(tokio::task::coop::consume_budget()).poll(cx).is_ready() {}
            assert!(!wire.is_quiet(), "bytes that nobody asked for would answer the next request");
            Poll::Ready(())
        })
        .await;
    }
}
