//! HTTP/2 connections to one provider, each shared by many requests.
//!
//! Every worker has a set of its own for each provider, because a connection belongs to the runtime that drives it. A
//! request takes a [`Seat`]: one stream's place on one of the set's connections. How many there are on a connection is what
//! the provider allows, and at most `connections.streams`. The oldest connection with a free place is used first, so that
//! those a lull leaves over stay empty, and end.
//!
//! Where no place is free, requests wait for the connection that is being opened instead of opening one each: at most as
//! many are opened at once as the waiting fill, by tasks of their own, so that a client who leaves stops nobody else's
//! connection. A place goes from hand to hand: whatever frees one (a stream that ends, a connection that opens, SETTINGS
//! that allow more) gives it to whoever has waited longest, and a seat that its waiter no longer wants goes on to the next.
//! When few places are left, the next connection is opened ahead of need.
//!
//! A connection leaves the set when it is idle or old, when the provider sends GOAWAY, and when it breaks. The streams on
//! it run on; it closes after the last of them.

use super::connect::{ConnectError, Target, connect, connect_http1};
use crate::clock;
use crate::config::ProviderConnections;
use crate::instant::Instant;
use crate::net::io::Io;
use crate::net::proxy_header::Announce;
use bytes::Bytes;
use driver::{BeginError, Driver};
use h2::SendStream;
use h2::client::{ResponseFuture, SendRequest};
use http::Request;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use crate::http2::fault::{Broke, judge};

mod driver;

/// Where a provider is reached and what it speaks there; shared by the sets of all workers.
#[derive(Debug)]
pub(super) struct Approach {
    target: Target,
    speaks: Speaks,
    terms: Terms,
    /// What the last connection turned out to speak: [`UNKNOWN`], [`HTTP1`] or [`HTTP2`].
    known: AtomicU8,
    /// How many places the last HTTP/2 connection had.
    places: AtomicUsize,
}

/// What a provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    /// HTTP/1, without asking.
    Http1,
    /// HTTP/2 from the first byte (RFC 9113 §3.3).
    Http2,
    /// What ALPN chooses.
    Alpn {
        /// Whether HTTP/1 will do.
        http1: bool,
    },
}

/// The bounds of a provider's HTTP/2 connections.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    /// Streams on one connection at most.
    pub(super) streams: usize,
    /// Connections without a stream that each worker keeps.
    pub(super) idle: usize,
    /// How long it keeps one.
    pub(super) idle_timeout: Duration,
    /// How old one gets.
    pub(super) max_age: Duration,
    /// How long nothing may be heard before a PING asks; `None` never asks.
    pub(super) ping: Option<Duration>,
    /// How long its answer may take.
    pub(super) ping_answer: Duration,
}

/// One worker's HTTP/2 connections to one provider, in cache lines of their own.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Multiplex {
    approach: Arc<Approach>,
    /// Only the worker's thread takes it, and the thread that drops the endpoint.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Connections that take new streams, the oldest first.
    open: Vec<Arc<Shared>>,
    /// How many are being opened.
    opening: usize,
    /// Who waits for a place, the longest first.
    waiting: VecDeque<oneshot::Sender<Result<Given, ConnectError>>>,
    /// How long opening a connection may take, as it was last asked for.
    patience: Duration,
    /// None is opened ahead of need before this instant.
    pause: Option<Instant>,
    closed: bool,
}

/// A connection, as those who use it see it.
#[derive(Debug)]
struct Shared {
    sender: SendRequest<Bytes>,
    /// Changed under the set's lock only, as everything here.
    seats: Mutex<Seats>,
}

#[derive(Debug)]
struct Seats {
    taken: usize,
    places: usize,
    /// How many there were in its life.
    ever: u32,
    /// Since when none is taken.
    idle_since: Option<Instant>,
}

/// One stream's place on a connection that others share. It is given back when it is dropped; a stream must not outlive
/// its seat.
#[derive(Debug)]
pub struct Seat {
    set: Arc<Multiplex>,
    shared: Arc<Shared>,
}

/// What somebody who waited for a place is given.
#[derive(Debug)]
pub(super) enum Given {
    /// A place.
    Seat(Seat),
    /// The provider speaks HTTP/1 now: here is a connection.
    Http1(Io),
    /// The provider speaks HTTP/1 now: open your own.
    Direct,
}

/// A connection that nobody else uses.
pub(super) enum Alone {
    /// It speaks HTTP/1.
    Http1(Io),
    /// It speaks HTTP/2 as long as the future is polled, which ends once everything of the connection was dropped.
    Http2(SendRequest<Bytes>, Pin<Box<dyn Future<Output = ()> + Send>>),
}

/// A connection that was just opened.
enum Fresh {
    Http1(Io),
    Http2(SendRequest<Bytes>, Box<Driver<Stream>>),
}

/// What HTTP/2 is spoken over.
type Stream = Io;

/// A connection on its way. However its task ends, those who wait hear of it.
struct Opening {
    set: Arc<Multiplex>,
    ended: bool,
}

// === impl Approach ===

impl Approach {
    /// To `target`, which speaks so.
    pub(super) fn new(target: Target, speaks: Speaks, terms: Terms) -> Self {
        let places = AtomicUsize::new(terms.streams.min(PLACES_UNTOLD));
        let known = AtomicU8::new(if speaks == Speaks::Http2 { HTTP2 } else { UNKNOWN });
        Approach { target, speaks, terms, known, places }
    }

    /// Whether no connection ever is one to share.
    pub(super) fn never_shares(&self) -> bool {
        matches!(self.speaks, Speaks::Http1)
    }

    /// Whether the next connection may be one to share.
    pub(super) fn may_share(&self) -> bool {
        match self.speaks {
            Speaks::Http1 => false,
            Speaks::Http2 => true,
            // Not known yet: those who come while the first connection is being opened wait for what it will tell.
            Speaks::Alpn { .. } => self.known.load(Ordering::Relaxed) != HTTP1,
        }
    }

    /// Whether a connection is good only for the client it was opened for.
    pub(super) fn is_private(&self) -> bool {
        self.target.is_private()
    }

    /// Opens a connection that only speaks HTTP/1.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub(super) async fn open_http1(&self, announce: &Announce, deadline: Instant) -> Result<Io, ConnectError> {
        connect_http1(&self.target, announce, deadline).await
    }

    /// Opens a connection for one who shares it with nobody, whatever it will speak.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub(super) async fn open_alone(&self, deadline: Instant) -> Result<Alone, ConnectError> {
        Ok(match self.open(deadline).await? {
            Fresh::Http1(io) => Alone::Http1(io),
            Fresh::Http2(sender, driver) => Alone::Http2(sender, Box::pin(driver.run_alone())),
        })
    }

    /// The same way of speaking at one of the addresses of the name.
    pub(super) fn toward(&self, address: SocketAddr) -> Self {
        Approach::new(self.target.toward(address), self.speaks, self.terms.clone())
    }

    /// Opens a connection, whatever it will speak.
    async fn open(&self, deadline: Instant) -> Result<Fresh, ConnectError> {
        let io = connect(&self.target, &Announce::default(), deadline).await?;
        let shares = match self.speaks {
            Speaks::Http1 => false,
            Speaks::Http2 => true,
            Speaks::Alpn { .. } => io.chose_http2(),
        };
        if shares {
            // Large, and rarely there.
            return Box::pin(self.begin(io, deadline)).await;
        }
        if self.speaks == (Speaks::Alpn { http1: false }) {
            let why = io::Error::new(io::ErrorKind::Unsupported, "it does not choose HTTP/2 by ALPN");
            let hint = "let protocols of the provider include http1";
            return Err(ConnectError::http2(&self.target, "tls_protocol_error", hint, why));
        }
        self.known.store(HTTP1, Ordering::Relaxed);
        Ok(Fresh::Http1(io))
    }

    async fn begin(&self, io: Io, deadline: Instant) -> Result<Fresh, ConnectError> {
        match timeout_at(deadline.into(), driver::begin(io, &self.terms)).await {
            Ok(Ok((sender, driver))) => {
                self.known.store(HTTP2, Ordering::Relaxed);
                self.places.store(driver.places(), Ordering::Relaxed);
                Ok(Fresh::Http2(sender, Box::new(driver)))
            }
            Ok(Err(error)) => Err(self.unspoken(&error)),
            Err(_) => Err(ConnectError::late_http2(&self.target)),
        }
    }

    /// The provider took the connection, but HTTP/2 did not begin.
    fn unspoken(&self, error: &BeginError) -> ConnectError {
        let hint = if self.speaks == Speaks::Http2 {
            "does the provider speak HTTP/2 without TLS? http:// is for those that speak HTTP/1"
        } else {
            ""
        };
        let (token, kind, text) = match error {
            BeginError::Ended => ("connection_terminated", io::ErrorKind::ConnectionAborted, "it hung up".to_owned()),
            BeginError::Broken(error) if error.is_io() => {
                ("connection_terminated", io::ErrorKind::ConnectionAborted, error.to_string())
            }
            BeginError::Broken(error) => ("http_protocol_error", io::ErrorKind::InvalidData, error.to_string()),
            BeginError::NoStreams => {
                let text = "its SETTINGS allow no streams".to_owned();
                return ConnectError::http2(&self.target, "destination_unavailable", "", io::Error::other(text));
            }
        };
        ConnectError::http2(&self.target, token, hint, io::Error::new(kind, text))
    }
}

// === impl Terms ===

impl Terms {
    /// As configured.
    pub(super) fn new(connections: &ProviderConnections) -> Self {
        Terms {
            streams: connections.streams,
            idle: connections.idle,
            idle_timeout: connections.idle_timeout,
            max_age: connections.max_age,
            ping: connections.ping,
            ping_answer: driver::PING_ANSWER,
        }
    }

    /// Whether a connection that nobody uses yet is worth having.
    fn keeps_idle(&self) -> bool {
        self.idle > 0 && !self.idle_timeout.is_zero()
    }
}

// === impl Multiplex ===

impl Multiplex {
    /// A set without connections.
    pub(super) fn new(approach: Arc<Approach>) -> Self {
        Multiplex { approach, state: Mutex::default() }
    }

    /// A free place on what is open now.
    pub(super) fn seat(self: &Arc<Self>, now: Instant) -> Option<Seat> {
        let (shared, ahead) = {
            let mut state = self.lock();
            let shared = state.take()?;
            let ahead = shared.seats().is_filling() && self.begin_ahead(&mut state, now);
            (shared, ahead)
        };
        self.spawn(usize::from(ahead));
        Some(Seat { set: Arc::clone(self), shared })
    }

    /// A place, on a connection that has to be opened for it if need be, by `deadline`. Opening one may take `patience`.
    ///
    /// Dropping the future leaves no trace: a place that it was given is given back.
    ///
    /// # Errors
    /// Why the connection that it waited for could not be opened.
    pub(super) async fn wait(self: &Arc<Self>, patience: Duration, deadline: Instant) -> Result<Given, ConnectError> {
        if let Some(seat) = self.seat(clock::now()) {
            return Ok(Given::Seat(seat));
        }
        let given = {
            let mut state = self.lock();
            let (give, given) = oneshot::channel();
            state.patience = patience;
            state.waiting.push_back(give);
            given
        };
        self.open_for_waiting();
        match timeout_at(deadline.into(), given).await {
            Ok(Ok(given)) => given,
            // Too late; or nobody is there any more who could open one, because the runtime ends.
            Ok(Err(_)) | Err(_) => Err(ConnectError::late_http2(&self.approach.target)),
        }
    }

    /// A connection of the caller's own where the provider is known to speak HTTP/1; a place on it, and the rest for
    /// everybody, where it turns out to speak HTTP/2.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub(super) async fn direct(self: &Arc<Self>, patience: Duration, deadline: Instant) -> Result<Given, ConnectError> {
        self.lock().patience = patience;
        match self.approach.open(deadline).await? {
            Fresh::Http1(io) => Ok(Given::Http1(io)),
            Fresh::Http2(sender, driver) => {
                let shared = self.add(sender, driver, 1);
                self.hand_out();
                Ok(Given::Seat(Seat { set: Arc::clone(self), shared }))
            }
        }
    }

    /// Takes no new streams from now on. Those that run may end, then their connections close.
    pub(super) fn close(&self) {
        let open = {
            let mut state = self.lock();
            state.closed = true;
            std::mem::take(&mut state.open)
        };
        drop(open);
    }

    /// A connection takes no new streams from now on. Where it was in use, the next is opened.
    fn retire(self: &Arc<Self>, shared: &Arc<Shared>) {
        let (removed, ahead) = {
            let mut state = self.lock();
            let removed = state.remove(shared);
            let ahead = removed.is_some() && shared.seats().taken > 0 && self.begin_ahead(&mut state, clock::now());
            (removed, ahead)
        };
        drop(removed);
        self.spawn(usize::from(ahead));
    }

    /// The provider allows so many streams on a connection now.
    fn resize(self: &Arc<Self>, shared: &Arc<Shared>, places: usize) {
        let before = std::mem::replace(&mut shared.seats().places, places);
        if places != before {
            self.approach.places.store(places, Ordering::Relaxed);
        }
        if places > before {
            self.hand_out();
        }
    }

    /// A connection that is now open to all, with so many seats taken already.
    fn add(self: &Arc<Self>, sender: SendRequest<Bytes>, driver: Box<Driver<Stream>>, taken: usize) -> Arc<Shared> {
        let idle_since = (taken == 0).then(clock::now);
        let seats = Seats { taken, places: driver.places(), ever: taken as u32, idle_since };
        let shared = Arc::new(Shared { sender, seats: Mutex::new(seats) });
        {
            let mut state = self.lock();
            if !state.closed {
                state.open.push(Arc::clone(&shared));
            }
        }
        tokio::spawn(driver.run(Arc::downgrade(self), Arc::downgrade(&shared)));
        shared
    }

    /// Gives free places to those who wait.
    fn hand_out(self: &Arc<Self>) {
        loop {
            let (give, shared) = {
                let mut state = self.lock();
                let Some(give) = state.next_waiting() else { return };
                let Some(shared) = state.take() else {
                    state.waiting.push_front(give);
                    return;
                };
                (give, shared)
            };
            // Where nobody takes it after all, dropping the seat gives it to the next.
            let _ = give.send(Ok(Given::Seat(Seat { set: Arc::clone(self), shared })));
        }
    }

    /// A seat is free again.
    fn give_back(self: &Arc<Self>, shared: &Arc<Shared>) {
        let (removed, wanted) = {
            let mut state = self.lock();
            let idle = {
                let mut seats = shared.seats();
                seats.taken -= 1;
                seats.idle_since = (seats.taken == 0).then(clock::now);
                seats.taken == 0
            };
            state.forget_gone();
            let wanted = !state.waiting.is_empty();
            let surplus = idle && !wanted && state.idle() > self.approach.terms.idle;
            (if surplus { state.remove(shared) } else { None }, wanted)
        };
        drop(removed);
        if wanted {
            self.hand_out();
            self.open_for_waiting();
        }
    }

    /// Opens as many connections as those who wait need, as far as none is on its way already.
    fn open_for_waiting(self: &Arc<Self>) {
        let count = {
            let mut state = self.lock();
            state.forget_gone();
            let each = self.approach.places.load(Ordering::Relaxed).max(1);
            let most = if self.approach.known.load(Ordering::Relaxed) == HTTP2 { OPENING_MAX } else { 1 };
            let count = state.waiting.len().div_ceil(each).min(most).saturating_sub(state.opening);
            state.opening += count;
            count
        };
        self.spawn(count);
    }

    /// Whether a connection is to be opened before somebody needs it; counts it as being opened.
    fn begin_ahead(&self, state: &mut State, now: Instant) -> bool {
        let few = (self.approach.places.load(Ordering::Relaxed) / AHEAD_SHARE).max(1);
        let wanted = !state.closed
            && state.opening == 0
            && self.approach.terms.keeps_idle()
            && state.pause.is_none_or(|pause| pause <= now)
            && state.free() < few;
        state.opening += usize::from(wanted);
        wanted
    }

    /// Opens so many connections that are counted already.
    fn spawn(self: &Arc<Self>, count: usize) {
        for _ in 0..count {
            let opening = Opening { set: Arc::clone(self), ended: false };
            tokio::spawn(async move {
                let patience = opening.set.lock().patience;
                let opened = opening.set.approach.open(clock::after(clock::now(), patience)).await;
                opening.end(opened);
            });
        }
    }

    fn opened(self: &Arc<Self>, opened: Result<Fresh, ConnectError>) {
        match opened {
            Ok(Fresh::Http2(sender, driver)) => {
                self.add(sender, driver, 0);
                self.lock().opening -= 1;
                self.hand_out();
                self.open_for_waiting();
            }
            Ok(Fresh::Http1(io)) => {
                let mut waiting = self.end_opening(true).into_iter();
                if let Some(give) = waiting.next() {
                    let _ = give.send(Ok(Given::Http1(io)));
                }
                for give in waiting {
                    let _ = give.send(Ok(Given::Direct));
                }
            }
            Err(error) => {
                // While another is on its way there is hope.
                for give in self.end_opening(false) {
                    let _ = give.send(Err(error.again()));
                }
            }
        }
    }

    /// One connection less is on its way, and there will be no places on it. Those who waited, where all are to be told or
    /// it was the last.
    fn end_opening(&self, tell_all: bool) -> VecDeque<oneshot::Sender<Result<Given, ConnectError>>> {
        let mut state = self.lock();
        state.opening -= 1;
        state.pause = Some(clock::now() + AHEAD_PAUSE);
        if tell_all || state.opening == 0 {
            state.forget_gone();
            return std::mem::take(&mut state.waiting);
        }
        VecDeque::new()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    /// A place on the oldest connection that has one free.
    fn take(&mut self) -> Option<Arc<Shared>> {
        let index = self.open.iter().position(|shared| shared.seats().take())?;
        let used_up = self.open[index].seats().ever >= STREAMS_EVER;
        Some(if used_up { self.open.remove(index) } else { Arc::clone(&self.open[index]) })
    }

    fn remove(&mut self, shared: &Arc<Shared>) -> Option<Arc<Shared>> {
        let index = self.open.iter().position(|open| Arc::ptr_eq(open, shared))?;
        Some(self.open.remove(index))
    }

    /// Drops those who no longer wait; all of them, where nothing is opened any more.
    fn forget_gone(&mut self) {
        let closed = self.closed;
        self.waiting.retain(|give| !closed && !give.is_closed());
    }

    fn next_waiting(&mut self) -> Option<oneshot::Sender<Result<Given, ConnectError>>> {
        loop {
            let give = self.waiting.pop_front()?;
            if !give.is_closed() {
                return Some(give);
            }
        }
    }

    /// Free places on all connections.
    fn free(&self) -> usize {
        self.open.iter().map(|shared| shared.seats().free()).sum()
    }

    /// Connections without a stream.
    fn idle(&self) -> usize {
        self.open.iter().filter(|shared| shared.seats().taken == 0).count()
    }
}

// === impl Shared ===

impl Shared {
    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle_since(&self) -> Option<Instant> {
        self.seats().idle_since
    }
}

// === impl Seats ===

impl Seats {
    /// Takes one, if one is free.
    fn take(&mut self) -> bool {
        let free = self.free() > 0;
        if free {
            self.taken += 1;
            self.ever += 1;
            self.idle_since = None;
        }
        free
    }

    fn free(&self) -> usize {
        self.places.saturating_sub(self.taken)
    }

    fn is_filling(&self) -> bool {
        self.free() <= self.places / AHEAD_SHARE
    }
}

// === impl Seat ===

impl Seat {
    /// Sends a request's head on a stream of its own. The seat is good for one.
    ///
    /// # Errors
    /// [`Broke::Refused`] where the connection was gone before anything was sent; [`Broke::Ours`] where HTTP/2 has no such
    /// request.
    pub fn send(
        &mut self,
        request: Request<()>,
        end_of_stream: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), Broke> {
        // A handle of its own: the library lets each have one request that waits for its stream.
        self.shared.sender.clone().send_request(request, end_of_stream).map_err(|error| match judge(&error) {
            Broke::Ours => Broke::Ours,
            broke => {
                self.set.retire(&self.shared);
                // Nothing was sent, whatever ended the connection.
                Broke::Refused(match broke {
                    Broke::Refused(code) => code,
                    _ => h2::Reason::NO_ERROR,
                })
            }
        })
    }

    /// Whether the provider takes `CONNECT` with `:protocol`, which is how a WebSocket begins in HTTP/2 (RFC 8441 §3).
    #[must_use]
    pub fn takes_extended_connect(&self) -> bool {
        self.shared.sender.is_extended_connect_protocol_enabled()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.set.give_back(&self.shared);
    }
}

// === impl Opening ===

impl Opening {
    fn end(mut self, opened: Result<Fresh, ConnectError>) {
        self.ended = true;
        self.set.opened(opened);
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if !self.ended {
            // Its task was dropped: their senders are, too, and that tells them.
            drop(self.set.end_opening(false));
        }
    }
}

/// Nothing is known of what the provider speaks.
const UNKNOWN: u8 = 0;
/// It spoke HTTP/1.
const HTTP1: u8 = 1;
/// It spoke HTTP/2.
const HTTP2: u8 = 2;

/// Places a connection is thought to have before any provider's SETTINGS say so: as many as RFC 9113 §6.5.2 wants at least.
const PLACES_UNTOLD: usize = 100;

/// Connections that one worker opens to one provider at once. Those who wait for more wait a little longer.
const OPENING_MAX: usize = 8;

/// The next connection is opened when less than one in so many of a connection's places is free in all.
const AHEAD_SHARE: usize = 4;

/// After a connection could not be opened, none is opened ahead of need for so long.
const AHEAD_PAUSE: Duration = Duration::from_secs(1);

/// Streams in the life of one connection; there are no more numbers for them (RFC 9113 §5.1.1).
const STREAMS_EVER: u32 = 1 << 30;

#[cfg(test)]
mod tests;
