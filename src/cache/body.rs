//! A body that is read by many while it comes in.
//!
//! One [`Filling`] appends; any number of [`Reader`]s follow, each at its own pace, and wait where they have caught up. While
//! the whole is kept it can be given to everyone who comes later. Once it grows beyond what may be kept (the route's
//! `max_object`, or what all bodies that are coming in may hold together), it is only passed on: what every reader has read
//! is let go, the writer waits for the slowest of them, and nobody else can join. In either case what is held is bounded.
//!
//! It ends whole or cut, and readers can tell which.
//!
//! What came counts for as long as anybody holds it. A client may read for hours what the store has let go of long ago, and
//! a thousand such clients would hold a thousand bodies: once all pieces take more than there may be, nothing more is kept.

use super::sync::{Arc, Mutex, MutexGuard};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

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

/// The body ended before it was whole.
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
}

/// Where a reader stands.
#[derive(Debug)]
struct Place {
    id: u64,
    /// The number of the piece it takes next.
    next: u64,
    waker: Option<Waker>,
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
        };
        let shared = Shared { space: std::sync::Arc::clone(space), max, state: Mutex::new(state) };
        Filling { shared: Arc::new(shared), over: false }
    }

    /// Where readers come from.
    #[must_use]
    pub fn source(&self) -> Source {
        Source { shared: Arc::clone(&self.shared) }
    }

    /// Waits until there is room for more: at once while the whole is kept.
    pub fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.shared.lock();
        if state.whole || state.readers.is_empty() || state.held < WINDOW {
            return Poll::Ready(());
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Adds a copy of `bytes`, once [`Filling::poll_room`] was ready.
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
        let wakers = state.take_wakers();
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
        state.readers.push(Place { id, next: 0, waker: None });
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
            let index = self.next - state.front;
            if let Some(piece) = state.pieces.get(index as usize).cloned() {
                (self.piece, self.used) = (piece, 0);
                self.next += 1;
                let next = self.next;
                if let Some(place) = state.place(self.id) {
                    place.next = next;
                }
                let (freed, writer) = (state.let_go(), state.writer_if_room());
                drop(state);
                self.shared.space.give_back(freed, false);
                if let Some(writer) = writer {
                    writer.wake();
                }
            } else if let Some(end) = state.end {
                return Poll::Ready(end.map(|()| &[][..]));
            } else {
                if let Some(place) = state.place(self.id) {
                    place.waker = Some(cx.waker().clone());
                }
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(&self.piece[self.used..]))
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
        let (freed, writer) = (state.let_go(), state.writer_if_room());
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
        let wakers = state.take_wakers();
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
    fn place(&mut self, id: u64) -> Option<&mut Place> {
        let index = self.index(id)?;
        self.readers.get_mut(index)
    }

    /// Where a reader stands in the list, which is in the order of their numbers: thousands may read, and each looks.
    fn index(&self, id: u64) -> Option<usize> {
        self.readers.binary_search_by_key(&id, |place| place.id).ok()
    }

    fn take_wakers(&mut self) -> Vec<Waker> {
        self.readers.iter_mut().filter_map(|place| place.waker.take()).collect()
    }

    /// The writer, if it waits and has room now, or has nobody left to wait for.
    fn writer_if_room(&mut self) -> Option<Waker> {
        let has_room = self.held < WINDOW || self.readers.is_empty();
        if has_room { self.writer.take() } else { None }
    }

    /// Lets go of what every reader has taken, where the whole is not kept; says how much that was.
    fn let_go(&mut self) -> u64 {
        if self.whole {
            return 0;
        }
        let behind = self.readers.iter().map(|place| place.next).min().unwrap_or(u64::MAX);
        let before = self.held;
        while self.front < behind
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
