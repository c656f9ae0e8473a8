//! The stream under an HTTP/2 connection: what was read before it was known to be one, a look at every frame that comes, and
//! one write for the frames that go.
//!
//! The library writes and flushes frame by frame where they carry more than a little data. Whoever drives a connection knows
//! better when a turn is over: until then, frames are gathered here.

use super::io::Io;
use crate::clock;
use crate::http2::meter::Meter;
use crate::instant::Instant;
use bytes::{Buf, Bytes};
use h2::Reason;
use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream whose frames are metered, for the library.
#[derive(Debug)]
pub struct Frames(Arc<Shared>);

/// The same, for whoever drives the connection.
#[derive(Debug)]
pub struct Handle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Never contended: the library and the driver are polled by one task.
    line: Mutex<Line>,
    gauge: Gauge,
}

#[derive(Debug)]
struct Line {
    io: Io,
    /// Read before.
    before: Bytes,
    meter: Meter,
    /// Frames are gathered until the driver flushes.
    gathers: bool,
    /// All that has come was read in this turn: the next is announced by a wake-up.
    dry: bool,
    held: Vec<u8>,
    /// How much of what is held was written.
    sent: usize,
    /// Anything was written that TLS may still hold.
    unflushed: bool,
    /// Bytes dropped since our direction ended.
    dropped: usize,
}

/// What can be seen of a stream without touching it.
#[derive(Debug, Default)]
struct Gauge {
    /// Bit set of [`IN_HEADERS`], [`BLOCKED`], [`PARTING`].
    state: AtomicU8,
    /// The code of [`Handle::verdict`]; 0 where there is none.
    verdict: AtomicU32,
    /// Reads and writes that moved something.
    moved: AtomicU64,
}

// === impl Frames ===

impl Frames {
    /// Frames of a peer that begin after `preface` bytes; `before` was read already.
    pub fn new(io: Io, before: Vec<u8>, preface: usize, now: Instant) -> (Frames, Handle) {
        let line = Line {
            io,
            before: before.into(),
            meter: Meter::new(preface, now),
            gathers: false,
            dry: false,
            held: Vec::new(),
            sent: 0,
            unflushed: false,
            dropped: 0,
        };
        let shared = Arc::new(Shared { line: Mutex::new(line), gauge: Gauge::default() });
        (Frames(Arc::clone(&shared)), Handle(shared))
    }
}

impl AsyncRead for Frames {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Shared { gauge, .. } = &*self.0;
        if gauge.verdict().is_some() {
            // Not one frame more is read. Whoever drives the connection says so to the peer.
            return Poll::Pending;
        }
        let mut line = self.0.line();
        let start = buf.filled().len();
        if line.dry {
            return Poll::Pending;
        }
        if line.before.is_empty() {
            let read = Pin::new(&mut line.io).poll_read(cx, buf);
            line.dry = line.gathers && read.is_pending();
            ready!(read)?;
        } else {
            let len = line.before.len().min(buf.remaining());
            buf.put_slice(&line.before[..len]);
            line.before.advance(len);
        }
        let came = buf.filled().len() - start;
        let good = line.look(&buf.filled()[start..], gauge);
        buf.set_filled(start + good);
        // Nothing at all would be the end of the stream.
        if good == 0 && came > 0 { Poll::Pending } else { Poll::Ready(Ok(())) }
    }
}

impl AsyncWrite for Frames {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.line().take(&[io::IoSlice::new(buf)], &self.0.gauge, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.line().take(bufs, &self.0.gauge, cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut line = self.0.line();
        if line.gathers { Poll::Ready(Ok(())) } else { line.poll_flush(&self.0.gauge, cx) }
    }

    /// Ends our direction, then drops what still comes, up to a bound, until the peer ends its own: closing a socket with
    /// unread bytes would reset it, and a GOAWAY on its way with it. How long that may take is for the driver to say.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut line = self.0.line();
        ready!(line.poll_flush(&self.0.gauge, cx))?;
        ready!(line.io.poll_shutdown(cx))?;
        self.0.gauge.set(PARTING, true);
        line.poll_drop_rest(cx).map(Ok)
    }
}

// === impl Shared ===

impl Shared {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Line ===

impl Line {
    /// Looks at bytes that came; how many of them may be read on.
    fn look(&mut self, bytes: &[u8], gauge: &Gauge) -> usize {
        let good = self.meter.received(bytes);
        gauge.moved.fetch_add(1, Ordering::Relaxed);
        if let Some(reason) = self.meter.broken() {
            gauge.judge(reason);
        } else if self.meter.owes() && self.meter.is_overdrawn(clock::now()) {
            gauge.judge(Reason::ENHANCE_YOUR_CALM);
        }
        gauge.set(IN_HEADERS, self.meter.is_in_header_block());
        good
    }

    /// Takes frames over: gathers what is small, writes what is large together with what was gathered.
    fn take(&mut self, bufs: &[io::IoSlice<'_>], gauge: &Gauge, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let len = bufs.iter().map(|buf| buf.len()).sum::<usize>();
        let held = self.held.len() - self.sent;
        let taken = if self.gathers && len <= GATHERED_BYTES && held + len <= GATHER_BYTES {
            if self.held.capacity() == 0 {
                self.held = SPARE.take();
            }
            for buf in bufs {
                self.held.extend_from_slice(buf);
            }
            len
        } else {
            ready!(self.poll_write_out(bufs, gauge, cx))?
        };
        self.meter.sent(taken);
        Poll::Ready(Ok(taken))
    }

    /// Writes what is held, and some of `bufs` behind it; how much of those.
    fn poll_write_out(
        &mut self,
        bufs: &[io::IoSlice<'_>],
        gauge: &Gauge,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let held = self.held.len() - self.sent;
            let written = if held == 0 {
                self.io.poll_write_vectored(cx, bufs)
            } else {
                let mut all = [io::IoSlice::new(&[]); SLICES];
                all[0] = io::IoSlice::new(&self.held[self.sent..]);
                let more = bufs.len().min(SLICES - 1);
                all[1..=more].copy_from_slice(&bufs[..more]);
                self.io.poll_write_vectored(cx, &all[..=more])
            };
            gauge.set(BLOCKED, written.is_pending());
            let written = ready!(written)?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            gauge.moved.fetch_add(1, Ordering::Relaxed);
            self.unflushed = true;
            if written < held {
                self.sent += written;
                continue;
            }
            self.let_go();
            if written > held || bufs.is_empty() {
                return Poll::Ready(Ok(written - held));
            }
        }
    }

    fn poll_flush(&mut self, gauge: &Gauge, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.held.is_empty() {
            ready!(self.poll_write_out(&[], gauge, cx))?;
        }
        if !self.unflushed {
            return Poll::Ready(Ok(()));
        }
        let flushed = self.io.poll_flush(cx);
        self.unflushed = flushed.is_pending();
        gauge.set(BLOCKED, flushed.is_pending());
        flushed
    }

    /// Everything that was held is written: whoever gathers next has the memory.
    fn let_go(&mut self) {
        self.sent = 0;
        if self.held.capacity() > 0 {
            let mut spare = std::mem::take(&mut self.held);
            spare.clear();
            SPARE.set(spare);
        }
    }

    fn poll_drop_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut rest = [0; DROP_PIECE];
        loop {
            match ready!(self.io.poll_read(cx, &mut rest)) {
                Ok(len) if len > 0 && self.dropped < DROP_BYTES => self.dropped += len,
                _ => return Poll::Ready(()),
            }
        }
    }
}

// === impl Handle ===

impl Handle {
    /// From now on frames are gathered until [`Handle::poll_flush`], and what comes is looked for once in each turn; see
    /// [`Handle::begin_turn`].
    pub fn gather(&self) {
        self.0.line().gathers = true;
    }

    /// The task that drives the connection was woken: there may be more to read.
    pub fn begin_turn(&self) {
        self.0.line().dry = false;
    }

    /// Writes out what was gathered.
    ///
    /// # Errors
    /// What the connection says.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.line().poll_flush(&self.0.gauge, cx)
    }

    /// The peer gave this many requests up, of `streams` that it may have under way; see [`Meter::given_up`].
    pub fn given_up(&self, requests: u64, streams: u32) {
        let mut line = self.0.line();
        line.meter.given_up(requests, streams);
        if line.meter.is_overdrawn(clock::now()) {
            self.0.gauge.judge(Reason::ENHANCE_YOUR_CALM);
        }
    }

    /// What the connection has to end with: the peer sent a frame that cannot be, or more frames without traffic than it may
    /// (ENHANCE_YOUR_CALM).
    pub fn verdict(&self) -> Option<Reason> {
        self.0.gauge.verdict()
    }

    /// The peer owes the rest of a header block.
    pub fn is_in_headers(&self) -> bool {
        self.0.gauge.has(IN_HEADERS)
    }

    /// The peer does not take what we have for it.
    pub fn is_blocked(&self) -> bool {
        self.0.gauge.has(BLOCKED)
    }

    /// Our direction has ended, and the peer's is awaited.
    pub fn is_parting(&self) -> bool {
        self.0.gauge.has(PARTING)
    }

    /// Grows with every read and write: whether anything moves shows in it.
    pub fn moved(&self) -> u64 {
        self.0.gauge.moved.load(Ordering::Relaxed)
    }
}

// === impl Gauge ===

impl Gauge {
    fn verdict(&self) -> Option<Reason> {
        let code = self.verdict.load(Ordering::Relaxed);
        (code != 0).then(|| Reason::from(code))
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

thread_local! {
    /// Where this worker's connections gather, one after the other: one that holds nothing needs none.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Bytes of frames that are gathered; beyond it they are written at once.
const GATHER_BYTES: usize = 64 * 1024;

/// Bytes that are worth a copy: more at once are written where they lie, behind what was gathered.
const GATHERED_BYTES: usize = 4 * 1024;

/// Slices of one write.
const SLICES: usize = 16;

/// Bytes that are read at once only to be dropped.
const DROP_PIECE: usize = 4 * 1024;

/// Bytes that are dropped in all.
const DROP_BYTES: usize = 1024 * 1024;

const IN_HEADERS: u8 = 1;

const BLOCKED: u8 = 2;

const PARTING: u8 = 4;
