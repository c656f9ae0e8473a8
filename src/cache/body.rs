//! A body that is read by many while it comes in.
//!
//! One [`Filling`] appends; any number of [`Reader`]s follow, each at its own pace, and wait where they have caught up. While
//! the whole is kept it can be given to everyone who comes later. Once it grows beyond what may be kept (the route's
//! `max_object`, or what all bodies that are coming in may hold together), it is only passed on: what every reader has read
//! is let go, the writer waits for the slowest of them, and nobody else can join. In either case what is held is bounded.
//!
//! Who reads alone sets its own pace. Where somebody has read all there is and waits for more, each of the others may keep
//! the writer waiting for [`SLOW_READER`] per [`WINDOW`] that it reads: whoever stands last and has used that up is left
//! behind, and sees that the body is cut. So the one that does not keep up loses, and not those who do.
//!
//! It ends whole or cut, and readers can tell which.
//!
//! What came counts for as long as anybody holds it. A client may read for hours what the store has let go of long ago, and
//! a thousand such clients would hold a thousand bodies: once all pieces take more than there may be, nothing more is kept.

use super::sync::{Arc, Mutex, MutexGuard};
use crate::instant::Instant;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// What bodies that are coming in may hold together, and what there is of all bodies.
#[derive(Debug)]
pub struct Space {
    total: AtomicU64,
    used: AtomicU64,
    /// Bytes of bodies that are only passed on: each is bounded by [`WINDOW`], and takes nothing of the others' room.
    passing: AtomicU64,
    /// Bytes of all pieces there may be: those that come in, are kept, and are read still.
    whole: AtomicU64,
    alive: AtomicU64,
}

/// Bytes of a body. They count until nobody holds them any more.
#[derive(Debug)]
struct Piece {
    bytes: Box<[u8]>,
    space: std::sync::Arc<Space>,
}

/// The writing end. Dropping it before [`Filling::complete`] cuts the body.
#[derive(Debug)]
pub struct Filling {
    shared: Arc<Shared>,
    over: bool,
}

/// A reading end.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    id: u64,
    /// Bytes of the piece in hand that were used.
    used: usize,
    piece: Bytes,
    /// The number of the next piece.
    next: u64,
}

/// Where readers come from, while the body comes in.
#[derive(Debug, Clone)]
pub struct Source {
    shared: Arc<Shared>,
}

/// Whether more may be added to a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// There is room.
    There,
    /// Its readers have to read first, which wakes the writer. At this time it is to ask again whatever happens: somebody may
    /// have to be left behind then.
    Awaited(Option<Instant>),
}

/// The body ended before it was whole, or went on without who reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body ended before it was whole")]
pub struct Cut;

/// Nobody reads a body that cannot be kept: there is no use in going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unwanted;

#[derive(Debug)]
struct Shared {
    space: std::sync::Arc<Space>,
    /// Bytes up to which it is kept whole.
    max: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Pieces that are held, from number `front` on.
    pieces: VecDeque<Bytes>,
    front: u64,
    /// Bytes of them, with what each costs besides.
    held: u64,
    /// Bytes that ever came.
    len: u64,
    /// It is kept whole, so far.
    whole: bool,
    end: Option<Result<(), Cut>>,
    readers: Vec<Place>,
    next_reader: u64,
    writer: Option<Waker>,
    /// Since when the writer waits while somebody has read all there is and waits for more.
    starved: Option<Instant>,
}

/// Where a reader stands.
#[derive(Debug)]
struct Place {
    id: u64,
    /// The number of the piece it takes next.
    next: u64,
    waker: Option<Waker>,
    /// It has read all there is, and waits for more.
    starves: bool,
    /// It had something to read when the time was last noted.
    behind: bool,
    /// For how long others had nothing to read because of those who have, this one among them; and bytes it took meanwhile,
    /// with what each piece costs besides. Both begin anew with each [`WINDOW`], and where it has caught up.
    held_up: Duration,
    taken: u64,
}

// === impl Space ===

impl Space {
    /// This many bytes.
    #[must_use]
    pub fn new(total: u64) -> std::sync::Arc<Self> {
        let [used, passing, alive] = [(); 3].map(|()| AtomicU64::new(0));
        std::sync::Arc::new(Space {
            total: AtomicU64::new(total),
            used,
            passing,
            whole: AtomicU64::new(u64::MAX),
            alive,
        })
    }

    /// Another bound from now on.
    pub fn set_total(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
    }

    /// The bound of all pieces, kept ones included, from now on. At first there is none.
    pub fn set_whole(&self, whole: u64) {
        self.whole.store(whole, Ordering::Relaxed);
    }

    /// Bytes of all pieces that anybody holds, the store and slow clients included.
    #[must_use]
    pub fn alive(&self) -> u64 {
        self.alive.load(Ordering::Relaxed)
    }

    /// Bytes there are.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Bytes held now.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed) + self.passing.load(Ordering::Relaxed)
    }

    /// `small`: the body has gone to its clients' sockets as soon as it is there, so that none of them can hold it here.
    fn take(&self, bytes: u64, small: bool) -> bool {
        if !small && self.alive() + bytes > self.whole.load(Ordering::Relaxed) {
            return false;
        }
        let total = self.total.load(Ordering::Relaxed);
        let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= total);
        // It counts and guards nothing else.
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    /// Gives back what is held of a body that was kept `whole` so far, or only passed on.
    fn give_back(&self, bytes: u64, whole: bool) {
        if whole { &self.used } else { &self.passing }.fetch_sub(bytes, Ordering::Relaxed);
    }
}

// === impl Piece ===

impl Piece {
    fn share(bytes: Box<[u8]>, space: &std::sync::Arc<Space>) -> Bytes {
        space.alive.fetch_add(bytes.len() as u64 + PIECE_COST, Ordering::Relaxed);
        Bytes::from_owner(Piece { bytes, space: std::sync::Arc::clone(space) })
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.space.alive.fetch_sub(self.bytes.len() as u64 + PIECE_COST, Ordering::Relaxed);
    }
}

// === impl Filling ===

impl Filling {
    /// An empty body that is kept up to `max` bytes.
    #[must_use]
    pub fn new(space: &std::sync::Arc<Space>, max: u64) -> Self {
        let state = State {
            pieces: VecDeque::new(),
            front: 0,
            held: 0,
            len: 0,
            whole: true,
            end: None,
            readers: Vec::new(),
            next_reader: 0,
            writer: None,
            starved: None,
        };
        let shared = Shared { space: std::sync::Arc::clone(space), max, state: Mutex::new(state) };
        Filling { shared: Arc::new(shared), over: false }
    }

    /// Where readers come from.
    #[must_use]
    pub fn source(&self) -> Source {
        Source { shared: Arc::clone(&self.shared) }
    }

    /// Whether there is room for more, as of `now`: always while the whole is kept. Who keeps others waiting for too long is
    /// left behind.
    pub fn poll_room(&mut self, cx: &mut Context<'_>, now: Instant) -> Room {
        let mut state = self.shared.lock();
        if state.whole {
            return Room::There;
        }
        state.note_time(now);
        let (freed, left_behind) = state.leave_behind();
        let room = if state.has_room() {
            state.writer = None;
            Room::There
        } else {
            state.writer = Some(cx.waker().clone());
            Room::Awaited(state.starved.map(|_| now + state.patience()))
        };
        drop(state);
        self.shared.space.give_back(freed, false);
        left_behind.into_iter().filter_map(|place| place.waker).for_each(Waker::wake);
        room
    }

    /// Adds a copy of `bytes`, once [`Filling::poll_room`] found room.
    ///
    /// # Errors
    /// See [`Unwanted`].
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), Unwanted> {
        if bytes.is_empty() {
            return Ok(());
        }
        let cost = bytes.len() as u64 + PIECE_COST;
        let mut state = self.shared.lock();
        let (space, len) = (&self.shared.space, state.len + bytes.len() as u64);
        let fits = state.whole && len <= self.shared.max && space.take(cost, len <= PIECE as u64);
        if !fits {
            if std::mem::take(&mut state.whole) {
                space.give_back(state.held, true);
                space.passing.fetch_add(state.held, Ordering::Relaxed);
            }
            if state.readers.is_empty() {
                return Err(Unwanted);
            }
            space.passing.fetch_add(cost, Ordering::Relaxed);
        }
        state.len = len;
        state.held += cost;
        state.pieces.push_back(Piece::share(bytes.into(), &self.shared.space));
        let freed = state.let_go();
        let wakers = state.feed();
        drop(state);
        self.shared.space.give_back(freed, false);
        wakers.into_iter().for_each(Waker::wake);
        Ok(())
    }

    /// Whether somebody reads, or the whole can still be kept: else there is no use in going on.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        let state = self.shared.lock();
        state.whole || !state.readers.is_empty()
    }

    /// How many read it.
    #[must_use]
    pub fn readers(&self) -> usize {
        self.shared.lock().readers.len()
    }

    /// The body is whole. Gives it, in pieces of a good size, where it was kept.
    pub fn complete(mut self) -> Option<Vec<Bytes>> {
        self.over = true;
        let pieces = self.shared.end(Ok(()))?;
        Some(merged(&pieces, &self.shared.space))
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        if !self.over {
            let _: Option<Vec<Bytes>> = self.shared.end(Err(Cut));
        }
    }
}

// === impl Source ===

impl Source {
    /// Another reader, from the beginning; `None` where the beginning is gone, or the end will not come.
    #[must_use]
    pub fn reader(&self) -> Option<Reader> {
        let mut state = self.shared.lock();
        if state.front > 0 || state.end == Some(Err(Cut)) {
            return None;
        }
        let id = state.next_reader;
        state.next_reader += 1;
        let held_up = Duration::ZERO;
        state.readers.push(Place { id, next: 0, waker: None, starves: false, behind: false, held_up, taken: 0 });
        drop(state);
        Some(Reader { shared: Arc::clone(&self.shared), id, used: 0, piece: Bytes::new(), next: 0 })
    }
}

// === impl Reader ===

impl Reader {
    /// Bytes that are there to be used, all that follow on what was [used](Reader::advance); none at the end of a whole body.
    ///
    /// # Errors
    /// See [`Cut`].
    pub fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Result<&[u8], Cut>> {
        if self.used == self.piece.len() {
            let mut state = self.shared.lock();
            let Some(index) = state.index(self.id) else { return Poll::Ready(Err(Cut)) };
            let ahead = self.next - state.front;
            if let Some(piece) = state.pieces.get(ahead as usize).cloned() {
                (self.piece, self.used) = (piece, 0);
                self.next += 1;
                let place = &mut state.readers[index];
                place.next = self.next;
                place.taken += self.piece.len() as u64 + PIECE_COST;
                let keeps_up = place.taken >= WINDOW;
                let freed = state.let_go();
                // That it keeps up is to be noted when it does, or it would have its time once more.
                let writer = if keeps_up || state.has_room() { state.writer.take() } else { None };
                drop(state);
                self.shared.space.give_back(freed, false);
                if let Some(writer) = writer {
                    writer.wake();
                }
            } else if let Some(end) = state.end {
                return Poll::Ready(end.map(|()| &[][..]));
            } else {
                let place = &mut state.readers[index];
                (place.waker, place.starves) = (Some(cx.waker().clone()), true);
                // From now on the writer keeps somebody waiting.
                let writer = if state.starved.is_none() { state.writer.take() } else { None };
                drop(state);
                if let Some(writer) = writer {
                    writer.wake();
                }
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(&self.piece[self.used..]))
    }

    /// Ready once it was left behind. For whoever cannot use what is in hand, and does not ask for more.
    pub fn poll_left_behind(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.shared.lock();
        let Some(index) = state.index(self.id) else { return Poll::Ready(()) };
        let place = &mut state.readers[index];
        (place.waker, place.starves) = (Some(cx.waker().clone()), false);
        Poll::Pending
    }

    /// The same bytes once more, as they were last announced.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        self.piece.slice(self.used..)
    }

    /// Says that so many of them were used.
    pub fn advance(&mut self, bytes: usize) {
        self.used = (self.used + bytes).min(self.piece.len());
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if let Some(index) = state.index(self.id) {
            state.readers.remove(index);
        }
        // Perhaps there is room now, and perhaps nobody is kept waiting any more.
        let (freed, writer) = (state.let_go(), state.writer.take());
        drop(state);
        self.shared.space.give_back(freed, false);
        if let Some(writer) = writer {
            writer.wake();
        }
    }
}

// === impl Shared ===

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // What a panic could leave half done is a body that nobody completes, which its readers see.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the body, tells everyone, and gives its pieces where the whole is there.
    fn end(&self, how: Result<(), Cut>) -> Option<Vec<Bytes>> {
        let mut state = self.lock();
        state.end = Some(how);
        let pieces = (state.whole && how.is_ok()).then(|| state.pieces.iter().cloned().collect());
        // It is no longer coming in: a client that reads it slowly keeps nobody else's from being kept.
        let arrived = if pieces.is_some() { std::mem::take(&mut state.held) } else { 0 };
        let wakers = state.feed();
        drop(state);
        self.space.give_back(arrived, true);
        wakers.into_iter().for_each(Waker::wake);
        pieces
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let (held, whole) = {
            let state = self.lock();
            (state.held, state.whole)
        };
        self.space.give_back(held, whole);
    }
}

// === impl State ===

impl State {
    /// Where a reader stands in the list, which is in the order of their numbers: thousands may read, and each looks.
    fn index(&self, id: u64) -> Option<usize> {
        self.readers.binary_search_by_key(&id, |place| place.id).ok()
    }

    /// There is something for those who wait for more.
    fn feed(&mut self) -> Vec<Waker> {
        let waits = |place: &mut Place| if std::mem::take(&mut place.starves) { place.waker.take() } else { None };
        self.readers.iter_mut().filter_map(waits).collect()
    }

    fn has_room(&self) -> bool {
        self.held < WINDOW || self.readers.is_empty()
    }

    /// Notes for how long somebody was kept waiting, up to `now`, and by whom.
    fn note_time(&mut self, now: Instant) {
        let lately = self.starved.take().map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let end = self.front + self.pieces.len() as u64;
        for place in &mut self.readers {
            if std::mem::replace(&mut place.behind, place.next < end) {
                place.held_up += lately;
            }
            if !place.behind || place.taken >= WINDOW {
                (place.held_up, place.taken) = (Duration::ZERO, 0);
            }
        }
        let starves = self.readers.iter().any(|place| place.starves);
        self.starved = (starves && !self.has_room()).then_some(now);
    }

    /// Goes on without those who stand last and have kept others waiting for too long, until there is room. Gives how much
    /// was let go, and where they stood.
    fn leave_behind(&mut self) -> (u64, Vec<Place>) {
        let (mut freed, mut left_behind) = (0, Vec::new());
        while self.starved.is_some() && !self.has_room() {
            let (last, before) = (self.last(), left_behind.len());
            let is_slow = |place: &mut Place| place.next == last && place.held_up >= SLOW_READER;
            left_behind.extend(self.readers.extract_if(.., is_slow));
            if left_behind.len() == before {
                break;
            }
            freed += self.let_go();
        }
        (freed, left_behind)
    }

    /// How long somebody who stands last may yet keep others waiting.
    fn patience(&self) -> Duration {
        let last = self.last();
        let longest = self.readers.iter().filter(|place| place.next == last).map(|place| place.held_up).max();
        SLOW_READER.saturating_sub(longest.unwrap_or_default())
    }

    /// The number of the next piece of those who stand last.
    fn last(&self) -> u64 {
        self.readers.iter().map(|place| place.next).min().unwrap_or(u64::MAX)
    }

    /// Lets go of what every reader has taken, where the whole is not kept; says how much that was.
    fn let_go(&mut self) -> u64 {
        if self.whole {
            return 0;
        }
        let (last, before) = (self.last(), self.held);
        while self.front < last
            && let Some(piece) = self.pieces.pop_front()
        {
            self.front += 1;
            self.held -= piece.len() as u64 + PIECE_COST;
        }
        before - self.held
    }
}

/// The same bytes in fewer pieces: what came in small ones would cost more to hold and to write.
fn merged(pieces: &[Bytes], space: &std::sync::Arc<Space>) -> Vec<Bytes> {
    let mut merged = Vec::new();
    let mut small: Vec<u8> = Vec::new();
    let flush = |small: &mut Vec<u8>, merged: &mut Vec<Bytes>| {
        if !small.is_empty() {
            merged.push(Piece::share(std::mem::take(small).into_boxed_slice(), space));
        }
    };
    for piece in pieces {
        if piece.len() + small.len() > PIECE {
            flush(&mut small, &mut merged);
        }
        if piece.len() >= PIECE / 2 || pieces.len() == 1 {
            flush(&mut small, &mut merged);
            merged.push(piece.clone());
        } else {
            small.extend_from_slice(piece);
        }
    }
    flush(&mut small, &mut merged);
    merged
}

/// Bytes of a body that is only passed on which may wait for its slowest reader.
pub const WINDOW: u64 = 256 * 1024;
/// Bytes that a piece costs beside its own: its handles, its counts, the allocator.
pub const PIECE_COST: u64 = 96;
/// Bytes of a piece that is worth a write of its own.
pub const PIECE: usize = 64 * 1024;
/// For how long a reader may keep others waiting before it has read a [`WINDOW`]: 51 KiB a second, where others are faster.
pub const SLOW_READER: Duration = Duration::from_secs(5);
