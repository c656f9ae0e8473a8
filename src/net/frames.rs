//! The stream under an HTTP/2 connection: what was read before it was known to be one, and a look at every frame.

use super::io::Io;
use crate::clock;
use crate::http2::meter::Meter;
use bytes::{Buf, Bytes};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
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
#[derive(Debug)]
pub struct Gauge {
    /// Bit set of [`OVERDRAWN`], [`IN_HEADERS`], [`BLOCKED`].
    state: AtomicU8,
    /// Reads and writes that moved something.
    moved: AtomicU64,
}

// === impl Frames ===

impl Frames {
    /// Frames of a peer that begin after `preface` bytes; `before` was read already.
    pub fn new(io: Io, before: Vec<u8>, preface: usize, now: Instant) -> Self {
        let gauge = Arc::new(Gauge { state: AtomicU8::new(0), moved: AtomicU64::new(0) });
        Frames { io, before: before.into(), meter: Meter::new(preface, now), gauge, unflushed: false }
    }

    /// What can be seen of it from outside.
    pub fn gauge(&self) -> Arc<Gauge> {
        Arc::clone(&self.gauge)
    }

    fn look(&mut self, bytes: &[u8]) {
        self.meter.received(bytes);
        self.gauge.moved.fetch_add(1, Ordering::Relaxed);
        if self.meter.owes() && self.meter.is_overdrawn(clock::now()) {
            self.gauge.set(OVERDRAWN, true);
        }
        self.gauge.set(IN_HEADERS, self.meter.is_in_header_block());
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
        if this.gauge.is_overdrawn() {
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
        this.look(&buf.filled()[start..]);
        Poll::Ready(Ok(()))
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
    /// The peer sent more frames without traffic than it may.
    pub fn is_overdrawn(&self) -> bool {
        self.has(OVERDRAWN)
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

    fn has(&self, bit: u8) -> bool {
        self.state.load(Ordering::Relaxed) & bit != 0
    }

    fn set(&self, bit: u8, on: bool) {
        if self.has(bit) != on {
            self.state.fetch_xor(bit, Ordering::Relaxed);
        }
    }
}

const OVERDRAWN: u8 = 1;

const IN_HEADERS: u8 = 2;

const BLOCKED: u8 = 4;
