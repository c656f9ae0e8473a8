//! A client connection in HTTP/1, until it closes or turns out to speak HTTP/2.
//!
//! A connection is either busy or idle. Busy, it owns buffers, heads and a timer, and answers one request after the other
//! without allocating. Quiet for a moment, it gives all that back and waits as little more than a socket: ten thousand of
//! them should cost what a proxy written for idle connections would pay.

use super::connection::{Begun, Connection, HEAD_TOO_LONG, LAST_CALL, PART_TIME, refuse_malformed};
use super::contain::contain;
use super::http2;
use crate::clock;
use crate::config::Listener;
use crate::instant::Instant;
use crate::net::io::Io;
use crate::net::side::Side;
use crate::net::timer::Timer;
use crate::net::wire::{HeadFound, HeadReadError, Wire};
use crate::proxy::identity::Peer;
use crate::proxy::respond::Refusal;
use crate::proxy::{self, After, DRAIN_BYTES, Desk, Here};
use arc_swap::Cache;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

/// A busy connection: what answers its requests, one after the other.
struct Client {
    /// Unread bytes of later requests stay in it.
    wire: Wire,
    desk: Desk,
    peer: Peer,
}

/// What came of waiting for a request.
enum Next {
    /// A head of this many bytes stands in the wire.
    Head(HeadFound),
    /// Nothing came for a while.
    Idle,
    /// Nobody is there any more, or nobody who said anything.
    Silence,
    /// What came is no head.
    Refused(Refusal, &'static str),
}

/// What a connection is once it is no longer busy.
enum Left {
    /// Quiet.
    Idle(Io),
    /// Another protocol: these bytes of it were read.
    Http2(Io, Vec<u8>),
    /// At its end.
    Over,
}

/// Serves a connection to its end, if there is one.
pub(super) fn serve(begun: Option<Begun>) -> impl Future<Output = ()> + Send {
    // Taken apart out here: within, the whole would stay beside its parts for as long as the connection lives.
    let (mut connection, mut io) = begun.map_or((None, None), |begun| (Some(begun.connection), Some(begun.io)));
    async move {
        let Some(by) = connection.as_ref().map(Connection::head_by) else { return };
        let (mut is_first, mut idle_until) = (true, by);
        let before = loop {
            let (Some(alive), Some(quiet)) = (connection.as_mut(), io.as_ref()) else { return };
            if !alive.wait(quiet, idle_until).await {
                return;
            }
            let Some(readable) = io.take() else { return };
            // Only the first head has a deadline that began before its first byte.
            let busy = Box::pin(alive.busy(readable, std::mem::take(&mut is_first).then_some(by)));
            match busy.await {
                Left::Idle(idle) => io = Some(idle),
                Left::Http2(other, before) => {
                    io = Some(other);
                    break before;
                }
                Left::Over => return,
            }
            idle_until = alive.idle_until(clock::now());
        };
        if let (Some(connection), Some(io)) = (connection.take(), io.take()) {
            Box::pin(http2::serve(connection, io, before, by)).await;
        }
    }
}

/// Refuses a connection whose first bytes, which were read already, are not for this port: says why, and ends it.
pub(super) async fn refuse(connection: Connection, io: Io, detail: &'static str) {
    let mut client = Client {
        wire: Wire::to_client(io),
        desk: Desk::default(),
        peer: Peer::new(connection.place.origin().clone(), connection.scheme()),
    };
    let worker = &connection.worker;
    let snapshot = worker.shared.snapshot.load_full();
    let here = Here {
        shared: &worker.shared,
        snapshot: &snapshot,
        listener: &connection.listener,
        peer: &client.peer,
        worker: worker.index,
        closing: connection.place.port().closed(),
    };
    proxy::refuse_head(&mut Side::Http1(&mut client.wire), &client.desk.head, Refusal::BadRequest, detail, &here);
    part(&mut client, &connection.listener).await;
}

// === impl Connection ===

impl Connection {
    /// How long it may be idle from `now` on.
    fn idle_until(&self, now: Instant) -> Instant {
        let until = clock::after(now, self.listener.limits.idle_timeout.saturating_sub(LINGER));
        // Not at once when it is old: the client may be about to send its next request, whose answer tells it.
        self.place.ends_at().map_or(until, |ends_at| until.min(ends_at.max(now + LAST_CALL)))
    }

    /// Waits, holding as little as possible, until something can be read; false if the connection is to be closed instead.
    ///
    /// A draining gateway gives a quiet connection a last call: a request may be on its way. It will be answered, and told
    /// that the connection closes.
    async fn wait(&self, io: &Io, until: Instant) -> bool {
        let mut closes = pin!(self.place.port().closes());
        let mut sleep = pin!(tokio::time::sleep_until(until.into()));
        let mut last_call = false;
        // It owns what it works with, which would else stand beside it in every connection's task.
        poll_fn(move |cx| {
            if let Poll::Ready(readable) = io.poll_read_ready(cx) {
                return Poll::Ready(readable.is_ok());
            }
            if !last_call && (self.place.port().is_closing() || closes.as_mut().poll(cx).is_ready()) {
                last_call = true;
                sleep.as_mut().reset((clock::now() + LAST_CALL).into());
            }
            sleep.as_mut().poll(cx).map(|()| false)
        })
        .await
    }

    /// Answers requests until the connection ends, or has been quiet for a while: then the stream comes back.
    async fn busy(&mut self, io: Io, mut head_by: Option<Instant>) -> Left {
        let mut client = Client {
            wire: Wire::to_client(io),
            desk: Desk::default(),
            peer: Peer::new(self.place.origin().clone(), self.scheme()),
        };
        let worker = Arc::clone(&self.worker);
        // Looks for a newer snapshot with one load, and counts references only when there is one.
        let mut snapshots = Cache::new(&worker.shared.snapshot);
        loop {
            client.wire.begin();
            let first = head_by.is_some();
            let next = next_head(&mut client, &self.listener, head_by.take()).await;
            let snapshot = snapshots.load();
            self.follow(snapshot);
            client.peer.judge(&self.listener);
            let here = Here {
                shared: &worker.shared,
                snapshot,
                listener: &self.listener,
                peer: &client.peer,
                worker: worker.index,
                closing: self.place.closing(),
            };
            let (wire, desk) = (&mut client.wire, &mut client.desk);
            let after = match next {
                Next::Head(found) if first && self.takes_preface() && wire.head(found.len()) == PREFACE => {
                    let (io, before) = client.wire.into_parts();
                    return Left::Http2(io, before);
                }
                Next::Head(_) if !self.listener.protocols.http1 => {
                    desk.head.clear();
                    proxy::refuse_head(&mut Side::Http1(wire), &desk.head, Refusal::BadRequest, ONLY_HTTP2, &here);
                    After::Close
                }
                Next::Head(found) => answer(wire, desk, found, &here).await,
                Next::Refused(refusal, detail) => {
                    // What the head before this one said is not what is refused.
                    desk.head.clear();
                    proxy::refuse_head(&mut Side::Http1(wire), &desk.head, refusal, detail, &here);
                    After::Close
                }
                Next::Idle => return client.wire.into_idle().map_or(Left::Over, Left::Idle),
                Next::Silence => return Left::Over,
            };
            match after {
                After::KeepAlive if settle(&mut client, &self.listener).await => client.wire.shrink(),
                After::KeepAlive | After::Close => {
                    part(&mut client, &self.listener).await;
                    return Left::Over;
                }
                After::Abort => {
                    abort(&client);
                    return Left::Over;
                }
            }
        }
    }
}

/// Waits for the next head. `head_by` is when the first head of a connection has to be there; of a later one the clock
/// starts with its first byte.
async fn next_head(client: &mut Client, listener: &Listener, head_by: Option<Instant>) -> Next {
    let limits = &listener.limits;
    let (mut head_by, mut idle_until) = (head_by, None);
    let mut empty_lines = 0;
    let Client { wire, desk: Desk { timer, head, .. }, .. } = client;
    poll_fn(|cx| {
        loop {
            let read = |front: &[u8], len| head.read_front(front, len, limits.headers);
            match wire.poll_read_head(cx, limits.header_bytes, read) {
                Poll::Ready(Ok(HeadFound::Unread(2))) if empty_lines < EMPTY_LINES => {
                    empty_lines += 1;
                    wire.skip_empty_line();
                    continue;
                }
                Poll::Ready(found) => return Poll::Ready(judge(&found)),
                Poll::Pending => {}
            }
            let first = wire.first_unread();
            if let Some(refused) = first.and_then(refuse_first) {
                return Poll::Ready(refused);
            }
            let now = clock::now();
            if first.is_some() && head_by.is_none() {
                head_by = Some(clock::after(now, limits.header_timeout));
            }
            let quiet_until = *idle_until.get_or_insert_with(|| clock::after(now, LINGER.min(limits.idle_timeout)));
            let deadline = head_by.unwrap_or(quiet_until);
            return timer.poll(cx, deadline, now).map(|()| match first {
                Some(_) => Next::Refused(Refusal::HeadTimeout, "The request head did not arrive in time."),
                None if head_by.is_some() => Next::Silence,
                None => Next::Idle,
            });
        }
    })
    .await
}

fn judge(found: &Result<HeadFound, HeadReadError>) -> Next {
    match found {
        Ok(found) => Next::Head(*found),
        Err(HeadReadError::Ended { .. } | HeadReadError::Io(_) | HeadReadError::Refused) => Next::Silence,
        Err(HeadReadError::TooLong) => Next::Refused(Refusal::HeadTooLarge, HEAD_TOO_LONG),
        Err(HeadReadError::Malformed(error)) => {
            let (refusal, why) = refuse_malformed(error);
            Next::Refused(refusal, why)
        }
    }
}

/// What can be refused by its first byte, without waiting for a line that may never end.
fn refuse_first(byte: u8) -> Option<Next> {
    match byte {
        0x16 => Some(Next::Refused(Refusal::BadRequest, "This is TLS, and the listener speaks cleartext HTTP.")),
        b'\r' => None,
        byte if byte.is_ascii_alphabetic() || b"!#$%&'*+-.^_`|~0123456789".contains(&byte) => None,
        _ => Some(Next::Refused(Refusal::BadRequest, "A request begins with a method.")),
    }
}

/// Parses the head, unless it has been read, and has the request answered. A panic on the way is answered too, where nothing
/// else was yet.
async fn answer(wire: &mut Wire, desk: &mut Desk, found: HeadFound, here: &Here<'_>) -> After {
    let len = found.len();
    if found == HeadFound::Unread(len)
        && let Err(error) = desk.head.parse(wire.head(len), here.listener.limits.headers)
    {
        let (refusal, detail) = refuse_malformed(&error);
        proxy::refuse_head(&mut Side::Http1(wire), &desk.head, refusal, detail, here);
        return After::Close;
    }
    wire.use_head(len);
    let handled = {
        // Made where it stays: it is large, and would be copied on its way.
        #[cfg(not(test))]
        let request = pin!(proxy::handle(Side::Http1(wire), desk, here));
        #[cfg(test)]
        let request = pin!(super::tests::handle(Side::Http1(wire), desk, here));
        contain(request).await
    };
    match handled {
        Ok(after) => after,
        Err(panicked) => {
            here.shared.metrics.panicked();
            tracing::error!(panic = %panicked.message, "a request panicked; please report this with the lines above");
            if wire.touched {
                return After::Abort;
            }
            proxy::answer_panicked(&mut Side::Http1(wire), &desk.head);
            After::Close
        }
    }
}

/// Gets a connection ready for its next request: what was answered is written out, what is left of the body is read and
/// dropped. False if that does not succeed within its bounds.
async fn settle(client: &mut Client, listener: &Listener) -> bool {
    let Client { wire, desk: Desk { timer, .. }, .. } = client;
    if !wire.is_flushed() {
        let flushed = within(timer, listener.limits.idle_timeout, poll_fn(|cx| wire.poll_flush(cx))).await;
        if !matches!(flushed, Some(Ok(()))) {
            return false;
        }
    }
    if wire.body_is_done() {
        return true;
    }
    let mut dropped = 0;
    let emptied = poll_fn(|cx| {
        loop {
            match ready!(wire.poll_body(cx)) {
                Ok(0) => return Poll::Ready(true),
                Ok(n) if dropped <= DRAIN_BYTES => {
                    wire.use_body(n);
                    dropped += n as u64;
                }
                _ => return Poll::Ready(false),
            }
        }
    });
    within(timer, SETTLE_TIME, emptied).await.unwrap_or(false)
}

/// Ends a connection so that the last answer arrives. Closing a socket with unread bytes sends a reset, which can destroy
/// an answer on its way; so we end our direction, then read and drop a bounded amount for a bounded time (RFC 9112 §9.6).
async fn part(client: &mut Client, listener: &Listener) {
    let wire = &mut client.wire;
    let flushed =
        within(&mut client.desk.timer, listener.limits.idle_timeout, poll_fn(|cx| wire.poll_shutdown(cx))).await;
    if !matches!(flushed, Some(Ok(()))) {
        return;
    }
    let mut dropped = 0;
    let drained = poll_fn(|cx| {
        loop {
            wire.drop_unread();
            match wire.poll_more(cx, crate::net::buffer::LARGE) {
                Poll::Ready(Ok(n)) if n > 0 && dropped < PART_BYTES => dropped += n as u64,
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    });
    within(&mut client.desk.timer, PART_TIME, drained).await;
}

/// Ends a connection visibly broken. Where the end of the connection would be the end of the answer, only a reset says so.
fn abort(client: &Client) {
    if client.wire.ends_answer_by_closing() {
        client.wire.io().socket().reset_on_close();
    }
}

/// `future`, unless `span` passes first.
async fn within<T>(timer: &mut Timer, span: Duration, future: impl Future<Output = T>) -> Option<T> {
    let deadline = clock::after(clock::now(), span);
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => timer.poll(cx, deadline, clock::now()).map(|()| None),
    })
    .await
}

/// How long a connection stays busy without a request: long enough that a client in full swing finds everything in place,
/// short enough that thousands of quiet ones never hold their buffers at the same time.
const LINGER: Duration = Duration::from_millis(10);

/// Empty lines dropped before a request line (RFC 9112 §2.2 asks for at least one).
const EMPTY_LINES: u32 = 2;

/// For reading the rest of a request's body.
const SETTLE_TIME: Duration = Duration::from_secs(5);

/// Bytes read and dropped meanwhile.
const PART_BYTES: u64 = 4 * DRAIN_BYTES;

/// What stands for a head where the client begins to speak HTTP/2 (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

const ONLY_HTTP2: &str = "This listener speaks HTTP/2 only.";
