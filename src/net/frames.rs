//! The stream under an HTTP/2 connection: what was read before it was known to be one, and a look at every frame.

use super::io::Io;
use crate::clock;
use crate::http2::meter::Meter;
use bytes::{Buf, Bytes};
use h2::Reason;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream whose frames are metered.
#[derive(Debug)]
pub struct Frames {
    io: Io,
    /// Read before.
    before: Bytes,
    meter: Meter,
    gauge: Arc<Gauge>,
    /// Anything was written that has not been flushed.
    unflushed: bool,
}

/// What whoever drives the connection can see of its stream.
#[derive(Debug, Default)]
pub struct Gauge {
    /// Bit set of [`IN_HEADERS`], [`BLOCKED`].
    state: AtomicU8,
    /// The code of [`Gauge::verdict`]; 0 where there is none.
    verdict: AtomicU32,
    /// Reads and writes that moved something.
    moved: AtomicU64,
}

// === impl Frames ===

impl Frames {
    /// Frames of a peer that begin after `preface` bytes; `before` was read already.
    pub fn new(io: Io, before: Vec<u8>, preface: usize, now: Instant) -> Self {
        let gauge = Arc::new(Gauge::default());
        Frames { io, before: before.into(), meter: Meter::new(preface, now), gauge, unflushed: false }
    }

    /// What can be seen of it from outside.
    pub fn gauge(&self) -> Arc<Gauge> {
        Arc::clone(&self.gauge)
    }

    /// Looks at bytes that came; how many of them may be read on.
    fn look(&mut self, bytes: &[u8]) -> usize {
        let good = self.meter.received(bytes);
        self.gauge.moved.fetch_add(1, Ordering::Relaxed);
        if let Some(reason) = self.meter.broken() {
            self.gauge.judge(reason);
        } else if self.meter.owes() && self.meter.is_overdrawn(clock::now()) {
            self.gauge.judge(Reason::ENHANCE_YOUR_CALM);
        }
        self.gauge.set(IN_HEADERS, self.meter.is_in_header_block());
        good
    }

    fn wrote(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(bytes)) => {
                self.meter.sent(*bytes);
                self.gauge.moved.fetch_add(1, Ordering::Relaxed);
                self.unflushed = true;
                self.gauge.set(BLOCKED, false);
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.gauge.set(BLOCKED, true),
        }
        written
    }
}

impl AsyncRead for Frames {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.gauge.verdict().is_some() {
            // Not one frame more is read. Whoever drives the connection says so to the peer.
            return Poll::Pending;
        }
        let start = buf.filled().len();
        if this.before.is_empty() {
            ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        } else {
            let len = this.before.len().min(buf.remaining());
            buf.put_slice(&this.before[..len]);
            this.before.advance(len);
        }
        let came = buf.filled().len() - start;
        let good = this.look(&buf.filled()[start..]);
        buf.set_filled(start + good);
        // Nothing at all would be the end of the stream.
        if good == 0 && came > 0 { Poll::Pending } else { Poll::Ready(Ok(())) }
    }
}

impl AsyncWrite for Frames {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Io::poll_write(&mut self.io, cx, buf);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Io::poll_write_vectored(&mut self.io, cx, bufs);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.unflushed {
            return Poll::Ready(Ok(()));
        }
        let flushed = Io::poll_flush(&mut self.io, cx);
        self.unflushed = flushed.is_pending();
        self.gauge.set(BLOCKED, flushed.is_pending());
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Io::poll_shutdown(&mut self.io, cx)
    }
}

// === impl Gauge ===

impl Gauge {
    /// What the connection has to end with: the peer sent a frame that cannot be, or more frames without traffic than it may
    /// (ENHANCE_YOUR_CALM).
    pub fn verdict(&self) -> Option<Reason> {
        let code = self.verdict.load(Ordering::Relaxed);
        (code != 0).then(|| Reason::from(code))
    }

    /// The peer owes the rest of a header block.
    pub fn is_in_headers(&self) -> bool {
        self.has(IN_HEADERS)
    }

    /// The peer does not take what we have for it.
    pub fn is_blocked(&self) -> bool {
        self.has(BLOCKED)
    }

    /// Grows with every read and write: whether anything moves shows in it.
    pub fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    fn judge(&self, reason: Reason) {
        self.verdict.store(reason.into(), Ordering::Relaxed);
    }

    fn has(&self, bit: u8) -> bool {
        self.state.load(Ordering::Relaxed) & bit != 0
    }

    fn set(&self, bit: u8, on: bool) {
        if self.has(bit) != on {
            self.state.fetch_xor(bit, Ordering::Relaxed);
        }
    }
}

const IN_HEADERS: u8 = 1;

const BLOCKED: u8 = 2;
