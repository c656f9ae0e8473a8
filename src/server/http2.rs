//! A client connection in HTTP/2: one task drives it, and each of its requests is answered by another.
//!
//! The driver accepts streams, watches what the peer owes, and ends the connection in two steps, so that no request that was
//! on its way is lost: a GOAWAY that names no last stream, and, once the peer has shown that it saw it, one that does (RFC
//! 9113 §6.8). A request is answered by the same [`proxy::handle`] as in HTTP/1.

use super::clerk;
use super::connection::{Connection, HEAD_TOO_LONG, LAST_CALL, PART_TIME, refuse_malformed};
use super::contain::contain;
use crate::clock;
use crate::config::Listener;
use crate::http1::fields::Fields;
use crate::http1::head::ResponseHead;
use crate::http2::heads;
use crate::instant::Instant;
use crate::net::frames::{Frames, Handle};
use crate::net::io::Io;
use crate::net::side::Side;
use crate::net::stream::{SEND_BYTES, Stream};
use crate::net::timer::Timer;
use crate::proxy::forward;
use crate::proxy::identity::Peer;
use crate::proxy::respond::Refusal;
use crate::proxy::snapshot::Snapshot;
use crate::proxy::{self, After, DRAIN_BYTES, Desk, Here, Shared};
use arc_swap::ArcSwap;
use arc_swap::cache::Cache;
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::Request;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::timeout_at;

/// Looks for a newer snapshot with one load, and counts references only when there is one.
type Snapshots<'a> = Cache<&'a ArcSwap<Snapshot>, Arc<Snapshot>>;

/// What a connection's requests share with its driver.
#[derive(Debug)]
struct Common {
    connection: Connection,
    /// Requests that are being answered.
    requests: AtomicUsize,
    /// Requests that the client gave up at once and unanswered, since the driver last looked.
    given_up: AtomicU64,
}

/// A request counted in [`Common::requests`] until it is dropped.
struct Counted(Arc<Common>);

/// One request, as it was accepted.
pub(super) struct Accepted {
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    common: Counted,
    snapshot: Arc<Snapshot>,
    listener: Arc<Listener>,
    peer: Arc<Peer>,
    since: Instant,
}

/// Drives a connection.
struct Driver<'a> {
    h2: h2::server::Connection<Frames, Bytes>,
    common: &'a Arc<Common>,
    frames: Handle,
    listener: Arc<Listener>,
    /// The client, as that listener judges it.
    peer: Arc<Peer>,
    /// How many the client was told that it may have under way at once.
    streams: u32,
    timer: Timer,
    /// What [`Handle::moved`] said last, and when that changed.
    moved: (u64, Instant),
    /// Since when the peer owes the rest of a header block.
    owing: Option<Instant>,
    ending: Ending,
}

/// How far the end of a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// It goes on.
    No,
    /// The peer was told to open no more streams.
    Told(Instant),
    /// Nothing more is said on it.
    Closed(Instant),
}

/// Serves a connection whose first bytes are HTTP/2's; `before` are those that were read already. The rest of the preface
/// has to come until `by`.
pub(super) async fn serve(mut connection: Connection, io: Io, before: Vec<u8>, by: Instant) {
    connection.place.speaks_http2();
    connection.place.is_reached_at(&io);
    let (stream, frames) = Frames::new(io, before, PREFACE_BYTES, clock::now());
    let listener = Arc::clone(&connection.listener);
    let streams = listener.limits.h2_streams;
    let handshake = builder(&listener).handshake(stream);
    let Ok(Ok(h2)) = timeout_at(by.into(), handshake).await else { return };
    let common = Arc::new(Common { connection, requests: AtomicUsize::new(0), given_up: AtomicU64::new(0) });
    let (port, worker) = (common.connection.place.port(), &common.connection.worker);
    let mut peer = Peer::new(common.connection.place.origin().clone(), common.connection.scheme());
    peer.judge(&listener);
    let mut driver = Driver {
        h2,
        common: &common,
        frames,
        listener,
        peer: Arc::new(peer),
        streams,
        timer: Timer::default(),
        moved: (0, clock::now()),
        owing: None,
        ending: Ending::No,
    };
    driver.frames.gather();
    let mut closes = pin!(port.closes());
    let mut snapshots = Cache::new(&worker.shared.snapshot);
    poll_fn(|cx| {
        let closing = common.connection.place.closing().load(Ordering::Acquire) || closes.as_mut().poll(cx).is_ready();
        driver.poll(closing, &mut snapshots, cx)
    })
    .await;
}

fn builder(listener: &Listener) -> h2::server::Builder {
    let limits = &listener.limits;
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(limits.h2_streams)
        .max_header_list_size(u32::try_from(limits.header_bytes.saturating_add(HEAD_HEADROOM)).unwrap_or(u32::MAX))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BYTES)
        .max_pending_accept_reset_streams(2 * limits.h2_streams as usize)
        .max_local_error_reset_streams(Some(BROKEN_STREAMS))
        .enable_connect_protocol();
    builder
}

// === impl Driver ===

impl Driver<'_> {
    /// Ready once the connection is over.
    fn poll(&mut self, closing: bool, snapshots: &mut Snapshots<'_>, cx: &mut Context<'_>) -> Poll<()> {
        if self.common.given_up.load(Ordering::Relaxed) > 0 {
            self.frames.given_up(self.common.given_up.swap(0, Ordering::Relaxed), self.streams);
        }
        self.frames.begin_turn();
        let mut begun = 0;
        loop {
            if begun == BEGUN_AT_ONCE {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match self.h2.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    begun += 1;
                    self.begin(request, respond, snapshots);
                }
                Poll::Ready(Some(Err(error))) => {
                    tracing::debug!(%error, "an HTTP/2 connection broke");
                    return Poll::Ready(());
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => {
                    let now = clock::now();
                    if !self.ends(closing, now) {
                        if let Poll::Ready(Err(error)) = self.frames.poll_flush(cx) {
                            tracing::debug!(%error, "an HTTP/2 connection broke");
                            return Poll::Ready(());
                        }
                        return self.watch_time(now, cx);
                    }
                }
            }
        }
    }

    /// Has a request answered beside the others.
    fn begin(&mut self, request: Request<RecvStream>, respond: SendResponse<Bytes>, snapshots: &mut Snapshots<'_>) {
        let snapshot = snapshots.load();
        if let Some(listener) = snapshot.listener(&self.common.connection.place.port().bind)
            && !Arc::ptr_eq(listener, &self.listener)
        {
            self.listener = Arc::clone(listener);
            Arc::make_mut(&mut self.peer).judge(listener);
        }
        self.common.requests.fetch_add(1, Ordering::Relaxed);
        clerk::answer(Accepted {
            request,
            respond,
            common: Counted(Arc::clone(self.common)),
            snapshot: Arc::clone(snapshot),
            listener: Arc::clone(&self.listener),
            peer: Arc::clone(&self.peer),
            since: clock::now(),
        });
    }

    /// Begins to end the connection where that is due; whether it did so just now.
    fn ends(&mut self, closing: bool, now: Instant) -> bool {
        let moved = self.frames.moved();
        if moved != self.moved.0 || self.is_busy() {
            self.moved = (moved, now);
        }
        if self.frames.is_parting() && !matches!(self.ending, Ending::Closed(_)) {
            self.ending = Ending::Closed(now);
        }
        match (self.ending, self.frames.verdict()) {
            (Ending::No | Ending::Told(_), Some(reason)) => {
                tracing::debug!(%reason, "an HTTP/2 connection is closed for the frames that came on it");
                self.h2.abrupt_shutdown(reason);
                self.ending = Ending::Closed(now);
                true
            }
            (Ending::No, None) if closing || self.is_due(now) => {
                self.h2.graceful_shutdown();
                self.ending = Ending::Told(now);
                true
            }
            (Ending::Told(since), None) if !self.is_held_up() && self.last_call(since) <= now => {
                // It has not come to what it was told. Whatever it sends meanwhile is not taken, and it has to know.
                self.h2.abrupt_shutdown(Reason::NO_ERROR);
                self.ending = Ending::Closed(now);
                true
            }
            _ => false,
        }
    }

    fn is_busy(&self) -> bool {
        self.common.requests.load(Ordering::Relaxed) > 0
    }

    /// Something is under way, or was answered and still waits for the peer to take it.
    fn is_held_up(&self) -> bool {
        self.is_busy() || self.frames.is_blocked()
    }

    /// Until when a peer that was told `since` may still send requests.
    fn last_call(&self, since: Instant) -> Instant {
        clock::after(since.max(self.moved.1), LAST_CALL)
    }

    /// When nothing will have moved for the listener's `idle_timeout`, with no request under way.
    fn idle_at(&self) -> Instant {
        clock::after(self.moved.1, self.listener.limits.idle_timeout)
    }

    /// Whether the connection has waited or lived long enough. By the same `now` that its deadlines are held against: an end
    /// that is only due by a later one would be a cut.
    fn is_due(&self, now: Instant) -> bool {
        self.idle_at() <= now || self.common.connection.place.ends_at().is_some_and(|ends_at| ends_at <= now)
    }

    /// Whether the peer's time is up; wakes up for the next deadline.
    fn watch_time(&mut self, now: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.next_deadline(now);
        if deadline <= now {
            return Poll::Ready(());
        }
        if self.timer.poll(cx, deadline, now).is_ready() {
            // Only just now, and perhaps not the deadline: ask again, with the time it is.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// When the connection is cut, as far as can be said now.
    fn next_deadline(&mut self, now: Instant) -> Instant {
        self.owing = if self.frames.is_in_headers() { self.owing.or(Some(now)) } else { None };
        let idle = self.idle_at();
        let mut deadline = match self.ending {
            Ending::No => self.common.connection.place.ends_at().map_or(idle, |ends_at| idle.min(ends_at)),
            Ending::Told(_) if self.is_held_up() => idle,
            Ending::Told(since) => self.last_call(since),
            Ending::Closed(since) => clock::after(since, PART_TIME),
        };
        if let Some(since) = self.owing {
            deadline = deadline.min(clock::after(since, self.listener.limits.header_timeout));
        }
        deadline
    }
}

// === impl Accepted ===

impl Accepted {
    /// Takes the request to its one answer.
    pub(super) async fn answer(self, desk: &mut Desk) {
        let Accepted { request, respond, common, snapshot, listener, peer, since } = self;
        let (parts, body) = request.into_parts();
        let ends = body.is_end_stream();
        let mut stream = Stream::of_client(respond, body, ends);
        let connection = &common.0.connection;
        let here = Here {
            shared: &connection.worker.shared,
            snapshot: &snapshot,
            listener: &listener,
            peer: &peer,
            worker: connection.worker.index,
            closing: connection.place.closing(),
        };
        let limits = &listener.limits;
        let read = heads::request(&mut desk.head, &parts, ends, limits.headers, || fastrand::u128(..))
            .map_err(|error| refuse_malformed(&error));
        let too_large = heads::list_size(&parts) > limits.header_bytes;
        let after = match if too_large { Err((Refusal::HeadTooLarge, HEAD_TOO_LONG)) } else { read } {
            Ok(()) => handle(&mut stream, desk, &here).await,
            Err((refusal, detail)) => {
                proxy::refuse_head(&mut Side::Http2(&mut stream), &desk.head, refusal, detail, &here);
                After::Close
            }
        };
        drop(parts);
        if after == After::Abort && !stream.touched {
            common.0.note_given_up(since);
        }
        match after {
            After::Abort => break_off(&mut stream, &desk.answer).await,
            After::KeepAlive | After::Close => finish(&mut stream, &listener, &mut desk.timer).await,
        }
    }
}

// === impl Common ===

impl Common {
    /// A client gave a request up that came at `since`, or is gone. What was under way for a while held one of the client's
    /// streams for as long, and that is what deadlines and people do.
    fn note_given_up(&self, since: Instant) {
        if clock::now().saturating_duration_since(since) < AT_ONCE {
            self.given_up.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Has the request answered. A panic on the way is answered too, where nothing else was yet.
async fn handle(stream: &mut Stream, desk: &mut Desk, here: &Here<'_>) -> After {
    let handled = {
        // Made where it stays: it is large, and would be copied on its way.
        #[cfg(not(test))]
        let request = pin!(proxy::handle(Side::Http2(stream), desk, here));
        #[cfg(test)]
        let request = pin!(super::tests::handle(Side::Http2(stream), desk, here));
        contain(request).await
    };
    match handled {
        Ok(after) => after,
        Err(panicked) => {
            report(&panicked.message, here.shared);
            if stream.touched {
                return After::Abort;
            }
            proxy::answer_panicked(&mut Side::Http2(stream), &desk.head);
            After::Close
        }
    }
}

/// Ends a stream whose answer is not complete, visibly: by a reset, or for gRPC by a status, without which its clients take
/// the failure for a defect that trying again would not mend.
async fn break_off(stream: &mut Stream, answer: &ResponseHead) {
    if forward::is_grpc(&answer.fields) && stream.may_still_trail() {
        let mut status = Fields::default();
        status.push(b"grpc-status", GRPC_UNAVAILABLE);
        status.push(b"grpc-message", b"the answer of the provider broke off");
        return stream.finish(Some(&status));
    }
    // What came before the break is the client's to have: a reset takes back what its connection has not written yet.
    tokio::task::yield_now().await;
    stream.reset(Reason::INTERNAL_ERROR);
}

/// Ends a stream whose answer was written.
async fn finish(stream: &mut Stream, listener: &Listener, timer: &mut Timer) {
    if !stream.is_complete() && !see_off(stream, listener, timer).await {
        return stream.reset(Reason::CANCEL);
    }
    if stream.has_heard_all() {
        return;
    }
    // There are clients that take a stream for failed where it is given up before all of their body was read, as RFC 9113
    // §8.1 allows after a complete answer. A little of it costs less than the misunderstanding.
    let until = clock::after(clock::now(), SETTLE_TIME);
    let max = stream.body_read + DRAIN_BYTES;
    let emptied = poll_fn(|cx| {
        if stream.poll_drain(cx, max).is_ready() {
            return Poll::Ready(());
        }
        timer.poll(cx, until, clock::now())
    });
    emptied.await;
}

/// Hands over what waits, as long as the client goes on taking some; whether all of it was.
async fn see_off(stream: &mut Stream, listener: &Listener, timer: &mut Timer) -> bool {
    let mut until = clock::after(clock::now(), listener.limits.idle_timeout);
    let mut departed = stream.departed();
    let sent = poll_fn(|cx| {
        if let Poll::Ready(sent) = stream.poll_flush(cx) {
            return Poll::Ready(sent.is_ok());
        }
        let now = clock::now();
        if stream.departed() != departed {
            departed = stream.departed();
            until = clock::after(now, listener.limits.idle_timeout);
        }
        timer.poll(cx, until, now).map(|()| false)
    });
    sent.await
}

fn report(panic: &str, shared: &Shared) {
    shared.metrics.panicked();
    tracing::error!(%panic, "a request panicked; please report this with the lines above");
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Requests that are begun before those begun already get their turn. A peer that has its streams reset as fast as it opens
/// them is held by no limit on streams; what is begun for nothing has to be able to end.
const BEGUN_AT_ONCE: usize = 32;

/// Streams that we had to reset for what the peer did, in the life of one connection; then it is closed with
/// ENHANCE_YOUR_CALM. What is kept of each until then is memory that the peer decides about.
const BROKEN_STREAMS: usize = 512;

/// A request given up within this time was begun for nothing. With 128 streams whoever waits as long for each opens no more
/// than some thousand a second, which he can as well have answered.
const AT_ONCE: Duration = Duration::from_millis(100);

/// `UNAVAILABLE` among gRPC's status codes.
const GRPC_UNAVAILABLE: &[u8] = b"14";

/// For reading the rest of a request's body.
const SETTLE_TIME: Duration = Duration::from_secs(5);

/// So much larger than a listener's `header_bytes` a head may be and still be answered as every refusal is; beyond that the
/// library refuses it with a bare 431.
const HEAD_HEADROOM: usize = 16 * 1024;

/// Bytes of the client's preface (RFC 9113 §3.4).
const PREFACE_BYTES: usize = 24;

/// Bytes of a request's body that wait for a provider.
const STREAM_WINDOW: u32 = 128 * 1024;

/// The same for all requests of a connection together.
const CONNECTION_WINDOW: u32 = 512 * 1024;
