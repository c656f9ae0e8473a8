//! One HTTP/2 connection to a provider, driven by a task of its own until it ends.
//!
//! The task ends with the connection, and the connection with its last user: once it has left the set and no seat is taken,
//! the library sends GOAWAY and closes. What a provider may make us hold is bounded by the constants below.

use super::{Multiplex, Shared, Terms};
use crate::clock;
use crate::instant::Instant;
use crate::net::timer::Timer;
use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use h2::{Ping, PingPong};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream of bytes that notes when something was read from it.
#[derive(Debug)]
struct Watched<T> {
    io: T,
    heard: Arc<AtomicBool>,
}

/// A connection whose provider has sent its first SETTINGS.
pub(super) struct Driver<T> {
    connection: Connection<Watched<T>, Bytes>,
    pings: PingPong,
    heard: Arc<AtomicBool>,
    terms: Terms,
    timer: Timer,
    /// When something was last read.
    heard_at: Instant,
    /// When the PING was sent that has no answer yet.
    asked_at: Option<Instant>,
    /// No new streams from this instant on.
    old_at: Instant,
    /// When the last user left.
    left_at: Option<Instant>,
}

/// Why there is no connection although the bytes could flow.
#[derive(Debug)]
pub(super) enum BeginError {
    /// The provider hung up before its SETTINGS.
    Ended,
    /// It allows no streams at all.
    NoStreams,
    /// Something else came instead of them, or the connection broke.
    Broken(h2::Error),
}

/// What is to be done about a connection now.
enum Verdict {
    /// Nothing before this instant.
    Until(Instant),
    /// Close it without another word.
    GiveUp,
}

/// Speaks HTTP/2 over `io`: returns once the provider's SETTINGS are there, so that its limit of streams is known and
/// whoever does not speak HTTP/2 is found out before a request is sent to it.
///
/// # Errors
/// See [`BeginError`].
pub(super) async fn begin<T>(io: T, terms: &Terms) -> Result<(SendRequest<Bytes>, Driver<T>), BeginError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let heard = Arc::new(AtomicBool::new(false));
    let watched = Watched { io, heard: Arc::clone(&heard) };
    let (sender, mut connection) = builder(terms).handshake(watched).await.map_err(BeginError::Broken)?;
    poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
        Poll::Ready(Ok(())) => Poll::Ready(Err(BeginError::Ended)),
        Poll::Ready(Err(error)) => Poll::Ready(Err(BeginError::Broken(error))),
        Poll::Pending => match connection.max_concurrent_send_streams() {
            UNTOLD => Poll::Pending,
            0 => Poll::Ready(Err(BeginError::NoStreams)),
            _ => Poll::Ready(Ok(())),
        },
    })
    .await?;
    // It is the first to ask, so the library has it to give.
    let pings = connection.ping_pong().ok_or(BeginError::Ended)?;
    let now = clock::now();
    let driver = Driver {
        connection,
        pings,
        heard,
        terms: terms.clone(),
        timer: Timer::default(),
        heard_at: now,
        asked_at: None,
        old_at: clock::after(now, younger(terms.max_age)),
        left_at: None,
    };
    Ok((sender, driver))
}

/// How this side of a connection is set up.
fn builder(terms: &Terms) -> Builder {
    let connection_window = connection_window(terms.streams);
    let mut builder = Builder::new();
    builder
        .initial_max_send_streams(UNTOLD)
        .enable_push(false)
        .max_header_list_size(HEADER_LIST)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(connection_window)
        .data_frame_budget(2 * connection_window as usize)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(RESETS_REMEMBERED)
        .reset_stream_duration(RESET_MEMORY)
        .max_local_error_reset_streams(Some(MALFORMED_MAX));
    builder
}

/// A window in which every stream has room for all of its own, so that clients who do not read hold up nobody else.
pub(super) fn connection_window(streams: usize) -> u32 {
    let all = u32::try_from(streams).unwrap_or(u32::MAX).saturating_mul(STREAM_WINDOW);
    all.clamp(STREAM_WINDOW, CONNECTION_WINDOW_MAX)
}

/// Up to a tenth less, so that connections opened together do not end together.
pub(super) fn younger(age: Duration) -> Duration {
    age.saturating_sub((age / AGE_JITTER).mul_f64(fastrand::f64()))
}

// === impl Driver ===

impl<T: AsyncRead + AsyncWrite + Unpin> Driver<T> {
    /// How many streams the connection may carry at once.
    pub(super) fn places(&self) -> usize {
        self.terms.streams.min(self.connection.max_concurrent_send_streams())
    }

    /// Drives the connection to its end.
    pub(super) async fn run(mut self: Box<Self>, set: Weak<Multiplex>, shared: Weak<Shared>) {
        poll_fn(|cx| self.poll(cx, &set, &shared)).await;
        if let (Some(set), Some(shared)) = (set.upgrade(), shared.upgrade()) {
            set.retire(&shared);
        }
        // Where it did not end by itself, this closes it, and its streams break.
    }

    /// Drives it for somebody who does not share it: to its end, which comes once he has let go of it.
    pub(super) async fn run_alone(mut self: Box<Self>) {
        // How it ended shows on its streams.
        let _: Result<(), h2::Error> = (&mut self.connection).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>, set: &Weak<Multiplex>, shared: &Weak<Shared>) -> Poll<()> {
        if Pin::new(&mut self.connection).poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if self.heard.swap(false, Ordering::Relaxed) {
            self.heard_at = clock::now();
            self.look(cx, set, shared);
        }
        loop {
            let now = clock::now();
            let Verdict::Until(due) = self.tend(cx, now, set, shared) else { return Poll::Ready(()) };
            if self.timer.poll(cx, due, now).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// What the provider has said may have changed how many streams it takes.
    fn look(&mut self, cx: &mut Context<'_>, set: &Weak<Multiplex>, shared: &Weak<Shared>) {
        let (Some(set), Some(shared)) = (set.upgrade(), shared.upgrade()) else { return };
        // After a GOAWAY the library says no to every new stream.
        if matches!(shared.sender.clone().poll_ready(cx), Poll::Ready(Err(_))) {
            set.retire(&shared);
        } else {
            set.resize(&shared, self.places());
        }
    }

    /// Looks after what depends on time.
    fn tend(&mut self, cx: &mut Context<'_>, now: Instant, set: &Weak<Multiplex>, shared: &Weak<Shared>) -> Verdict {
        let Some(shared) = shared.upgrade() else {
            // The library closes by itself, but not if the provider does not take its last bytes.
            let left_at = *self.left_at.get_or_insert(now);
            return if now >= left_at + CLOSING_MAX { Verdict::GiveUp } else { Verdict::Until(left_at + CLOSING_MAX) };
        };
        let idle_until = clock::after(shared.idle_since().unwrap_or(now), self.terms.idle_timeout);
        if (now >= idle_until || now >= self.old_at)
            && let Some(set) = set.upgrade()
        {
            set.retire(&shared);
        }
        let next = if now >= self.old_at { clock::far(now) } else { idle_until.min(self.old_at) };
        match self.ping(cx, now) {
            Verdict::Until(at) => Verdict::Until(at.min(next).max(now + TICK)),
            Verdict::GiveUp => Verdict::GiveUp,
        }
    }

    /// Asks a silent provider whether it is still there.
    fn ping(&mut self, cx: &mut Context<'_>, now: Instant) -> Verdict {
        let Some(every) = self.terms.ping else { return Verdict::Until(clock::far(now)) };
        if self.asked_at.is_some() && self.pings.poll_pong(cx).is_ready() {
            self.asked_at = None;
        }
        let due = clock::after(self.heard_at, every);
        match self.asked_at {
            None if now < due => Verdict::Until(due),
            // The library takes one at a time, and none is on its way.
            None if self.pings.send_ping(Ping::opaque()).is_err() => Verdict::GiveUp,
            None => {
                self.asked_at = Some(now);
                Verdict::Until(now + self.terms.ping_answer)
            }
            Some(asked_at) => {
                // Whoever sends anything is there, with or without a PONG.
                let silent_since = if self.heard_at > asked_at { due } else { asked_at };
                let until = silent_since + self.terms.ping_answer;
                if now >= until { Verdict::GiveUp } else { Verdict::Until(until) }
            }
        }
    }
}

// === impl Watched ===

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.io).poll_read(cx, buf);
        if buf.filled().len() > before {
            this.heard.store(true, Ordering::Relaxed);
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// Stands for "the provider has not said": no SETTINGS can carry it, and none at all leaves the largest number there is.
const UNTOLD: usize = usize::MAX - 1;

/// A provider that has been asked whether it is there has this long to answer.
pub(super) const PING_ANSWER: Duration = Duration::from_secs(10);

/// A provider that does not take our last bytes is waited for this long.
const CLOSING_MAX: Duration = Duration::from_secs(10);

/// No timer is set to less, so that no rounding makes it spin.
const TICK: Duration = Duration::from_millis(1);

/// Chance takes off up to one part in so many of `max_age`.
const AGE_JITTER: u32 = 10;

/// Fields of an answer, decoded (RFC 9113 §6.5.2); as many as of an answer in HTTP/1. A larger head breaks its stream.
const HEADER_LIST: u32 = 64 * 1024;

/// Bytes of one answer that wait here because its client does not read: at most this, then the provider has to wait.
/// It is also what one stream can carry in one round trip.
const STREAM_WINDOW: u32 = 128 * 1024;

/// Bytes of all answers on one connection that wait here, whatever `connections.streams` is. From 128 streams on, clients
/// that do not read can hold up others of the same connection.
const CONNECTION_WINDOW_MAX: u32 = 16 * 1024 * 1024;

/// Bytes of one request's body that the library holds before it has written them.
const SEND_BUFFER: usize = 128 * 1024;

/// Streams reset by us whose late frames are still recognised; those of others count as mistakes of the provider.
const RESETS_REMEMBERED: usize = 1024;

/// For how long they are.
const RESET_MEMORY: Duration = Duration::from_secs(3);

/// Malformed answers, and frames on streams that are long over, in the life of one connection; then it is closed with
/// `ENHANCE_YOUR_CALM`. High, since it takes all streams with it.
const MALFORMED_MAX: usize = 16 * 1024;
