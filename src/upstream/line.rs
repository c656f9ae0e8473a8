//! A line of waiting requests, and the room they wait for.
//!
//! The whole of what could lose a wake-up or give a place twice is here, over a shim of atomics and mutexes, so that
//! `tests/line_model.rs` can try every interleaving. What a place is a place *at* comes in through [`Supply`].
//!
//! **Nobody waits beside free room.** A [`Room`] is one atomic word: how many places are taken, and how many lines want one.
//! Who waits says so in the word and then looks for a place once more; who gives a place back learns from the same word, in
//! the same step, whether somebody wants it, and then hands it on. All changes of one word have one order, so one of the two
//! sees the other. Whatever else makes room (a circuit that closes, a higher limit) is stored first, and then the word is
//! asked in the same way.
//!
//! **No place is given twice, and none is lost.** A place is a permit, one value that gives back when it is dropped. It is
//! handed over under the line's mutex, to a waiter that is still in the queue and therefore still there: who leaves takes
//! itself out under that mutex, or finds the permit it was given and drops it.
//!
//! **Nothing that may come back here happens under the mutex.** Wakers are called, and permits dropped, after it is free.

use super::sync::{Arc, AtomicU32, AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering};
use crate::instant::Instant;
use crate::policy::flow::Flow;
use crate::policy::queue::{Offered, Queue, Terms, Ticket, Waiter};
use std::fmt;
use std::sync::PoisonError;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Room at one provider.
#[derive(Debug)]
pub struct Room {
    /// Places taken in the lower half, lines that want one in the upper.
    word: AtomicU64,
    /// Places there are.
    limit: AtomicU32,
}

/// Who has a room.
pub trait Owner {
    /// The room.
    fn room(&self) -> &Room;

    /// A place has become free and somebody wants one: every line that does is to be told.
    fn freed(&self);
}

/// A place in a room, taken until this is dropped.
pub struct Permit<O: Owner> {
    owner: Arc<O>,
}

/// Where a line's permits come from.
pub trait Supply {
    /// What is handed over. Dropping it gives it back.
    type Permit;
    /// What a waiter wants of it, beside what the queue knows.
    type Wish;

    /// Says at every room that this line wants a place, or no longer does.
    fn want(&self, wanted: bool);

    /// A permit for `waiter` where there is one now. What turned out to be of no use on the way is put into `spoilt`: it
    /// must not be dropped yet.
    fn take(
        &self,
        waiter: &Waiter,
        wish: &Self::Wish,
        now: Instant,
        spoilt: &mut Vec<Self::Permit>,
    ) -> Option<Self::Permit>;

    /// Whether so little of its time is left that a permit would be of no use to it.
    fn is_late(&self, wish: &Self::Wish, now: Instant) -> bool;
}

/// Requests that wait for what a supply has.
pub struct Line<S: Supply> {
    /// How many wait, and [`PAUSED`]: whether a newcomer may pass.
    gate: AtomicUsize,
    inner: Mutex<Inner<S>>,
}

/// What the mutex guards.
struct Inner<S: Supply> {
    queue: Queue<Arc<Slot<S>>>,
    supply: Arc<S>,
    /// The supply was told that we want.
    wanting: bool,
    paused: bool,
    flow: Flow,
    /// Numbers the waiters, for operators.
    next: u64,
}

/// Where a waiter finds what was decided about it.
pub struct Slot<S: Supply> {
    /// Tells it from every other of its line.
    pub id: u64,
    /// What it wants of the supply.
    pub wish: S::Wish,
    standing: Mutex<Standing<S::Permit>>,
}

enum Standing<P> {
    Waiting(Option<Waker>),
    Given(P),
    Ousted(Ousted),
    /// The waiter knows.
    Told,
}

/// Why a waiter had to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ousted {
    /// A more urgent one, or one of a client with less, has its place.
    Displaced,
    /// Nobody will have room for it in time.
    Hopeless,
    /// Whoever took it on now would not be done in time.
    Late,
    /// An operator took it out.
    Cancelled,
}

/// A place in a line. Dropping it leaves the line; what it was given by then is given back.
pub struct Place<S: Supply> {
    line: Arc<Line<S>>,
    slot: Arc<Slot<S>>,
    ticket: Ticket,
    over: bool,
}

/// What is left to be done once the mutex is free: dropping this does it.
#[must_use = "it wakes whoever was given something"]
pub struct Aftermath<S: Supply> {
    wakers: [Option<Waker>; BATCH],
    count: usize,
    spoilt: Vec<S::Permit>,
    /// Somebody still waits.
    pub waiting: bool,
    /// There may be more to give: dispatch again.
    pub more: bool,
}

// === impl Room ===

impl Room {
    /// A room of `limit` places.
    pub fn new(limit: u32) -> Self {
        Room { word: AtomicU64::new(0), limit: AtomicU32::new(limit) }
    }

    /// Takes a place, if no more than `most` are taken then. Who has not queued takes none that somebody waits for.
    pub fn take(&self, queued: bool, most: u32) -> bool {
        let taken = |word: u64| {
            let limit = self.limit.load(Ordering::Acquire).min(most);
            let free = places(word) < limit && (queued || wants(word) == 0);
            free.then(|| word + PLACE)
        };
        self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, taken).is_ok()
    }

    /// Gives a place back. True: somebody wants one, and has to be told.
    #[must_use]
    pub fn give_back(&self) -> bool {
        wants(self.word.fetch_sub(PLACE, Ordering::AcqRel)) > 0
    }

    /// Whether somebody wants a place, seen by whoever has just made some by other means. (Adding nothing is a change of
    /// the word, and has its place in the order of all changes; a mere look has not.)
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        wants(self.word.fetch_add(0, Ordering::AcqRel)) > 0
    }

    /// One more line wants a place, or one less.
    pub fn want(&self, wanted: bool) {
        if wanted {
            self.word.fetch_add(WANT, Ordering::AcqRel);
        } else {
            self.word.fetch_sub(WANT, Ordering::AcqRel);
        }
    }

    /// How many places there are from now on; then ask [`Room::is_wanted`].
    pub fn set_limit(&self, limit: u32) {
        self.limit.store(limit, Ordering::Release);
    }

    /// Places there are.
    pub fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Places taken, and whether somebody wants one, at a glance.
    pub fn look(&self) -> (u32, bool) {
        let word = self.word.load(Ordering::Acquire);
        (places(word), wants(word) > 0)
    }
}

fn places(word: u64) -> u32 {
    word as u32
}

fn wants(word: u64) -> u32 {
    (word >> 32) as u32
}

// === impl Permit ===

impl<O: Owner> Permit<O> {
    /// Takes a place as [`Room::take`] does.
    pub fn take(owner: &Arc<O>, queued: bool, most: u32) -> Option<Self> {
        owner.room().take(queued, most).then(|| Permit { owner: Arc::clone(owner) })
    }

    /// Whose room it is.
    pub fn owner(&self) -> &Arc<O> {
        &self.owner
    }
}

impl<O: Owner> Drop for Permit<O> {
    fn drop(&mut self) {
        if self.owner.room().give_back() {
            self.owner.freed();
        }
    }
}

// === impl Line ===

impl<S: Supply> Line<S> {
    /// Nobody waits yet.
    pub fn new(terms: Terms, supply: Arc<S>) -> Self {
        let flow = Flow::default();
        let inner = Inner { queue: Queue::new(terms), supply, wanting: false, paused: false, flow, next: 1 };
        Line { gate: AtomicUsize::new(0), inner: Mutex::new(inner) }
    }

    /// Whether a newcomer may look for a place without queueing. (A [`Room`] says so once more, for each place.)
    pub fn may_pass(&self) -> bool {
        self.gate.load(Ordering::Acquire) == 0
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.gate.load(Ordering::Acquire) & !PAUSED
    }

    /// Hands out what the supply has, in the queue's order.
    pub fn dispatch(&self, now: Instant) -> Aftermath<S> {
        let mut after = Aftermath::none();
        if self.waiting() > 0 {
            self.serve(&mut self.lock(), now, &mut after);
        }
        after
    }

    /// Stops handing out, or goes on.
    pub fn pause(&self, paused: bool, now: Instant) -> Aftermath<S> {
        let mut after = Aftermath::none();
        let mut inner = self.lock();
        inner.paused = paused;
        self.serve(&mut inner, now, &mut after);
        drop(inner);
        after
    }

    /// Another supply and other terms from now on; who waits goes on waiting.
    pub fn follow(&self, terms: Terms, supply: Arc<S>, now: Instant) -> Aftermath<S> {
        let mut after = Aftermath::none();
        let mut inner = self.lock();
        inner.queue.set_terms(terms);
        if inner.wanting {
            supply.want(true);
            inner.supply.want(false);
        }
        inner.supply = supply;
        self.serve(&mut inner, now, &mut after);
        drop(inner);
        after
    }

    /// Sends away those of whom `which` says so, and says how many that were.
    pub fn oust(&self, why: Ousted, mut which: impl FnMut(&Waiter, &Slot<S>) -> bool) -> usize {
        let mut wakers = Vec::new();
        let mut guard = self.lock();
        let inner = &mut *guard;
        let leaving: Vec<Ticket> =
            inner.queue.iter().filter(|(_, waiter, slot)| which(waiter, slot)).map(|(ticket, ..)| ticket).collect();
        let count = leaving.len();
        for slot in leaving.into_iter().filter_map(|ticket| inner.queue.remove(ticket)) {
            wakers.extend(slot.oust(why));
        }
        self.settle(inner);
        drop(guard);
        wakers.into_iter().for_each(Waker::wake);
        count
    }

    /// Whether it is paused.
    pub fn is_paused(&self) -> bool {
        self.gate.load(Ordering::Acquire) & PAUSED != 0
    }

    /// Shows the queue, and the usual time between two that are served. Be brief: nobody comes or goes meanwhile.
    pub fn look<R>(&self, at: impl FnOnce(&Queue<Arc<Slot<S>>>, Option<Duration>) -> R) -> R {
        let inner = self.lock();
        at(&inner.queue, inner.flow.gap())
    }

    /// Forgets how fast it went on: nobody is served for a while, and what comes after that is another matter.
    pub fn stall(&self) {
        self.lock().flow.forget();
    }

    /// Serves who waits, as long as there is something to give and a hand free.
    fn serve(&self, inner: &mut Inner<S>, now: Instant, after: &mut Aftermath<S>) {
        self.settle(inner);
        while inner.wanting && after.count < BATCH {
            let Some((waiter, slot)) = inner.queue.peek() else { break };
            // Work that nobody will wait for is not begun; above all it is no probe, which would show nothing.
            if inner.supply.is_late(&slot.wish, now) {
                let late = inner.queue.skip();
                after.wake(late.and_then(|(_, slot)| slot.oust(Ousted::Late)));
                self.settle(inner);
                continue;
            }
            let Some(permit) = inner.supply.take(waiter, &slot.wish, now, &mut after.spoilt) else { break };
            let Some((_, slot)) = inner.queue.take() else { break };
            inner.flow.served(now);
            after.wake(slot.give(permit));
            self.settle(inner);
        }
        after.waiting = inner.wanting;
        after.more = inner.wanting && after.count == BATCH;
    }

    /// Says to newcomers and to the supply what is so now; the gate first, see [`Line::dispatch`].
    fn settle(&self, inner: &mut Inner<S>) {
        self.set_gate(inner);
        let wanting = !inner.queue.is_empty() && !inner.paused;
        if wanting != inner.wanting {
            inner.wanting = wanting;
            inner.supply.want(wanting);
        }
    }

    fn set_gate(&self, inner: &Inner<S>) {
        self.gate.store(inner.queue.len() | if inner.paused { PAUSED } else { 0 }, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Inner<S>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Slot ===

impl<S: Supply> Slot<S> {
    /// Gives a permit; says whom to wake. The line's mutex is held.
    fn give(&self, permit: S::Permit) -> Option<Waker> {
        self.decide(Standing::Given(permit))
    }

    fn oust(&self, why: Ousted) -> Option<Waker> {
        self.decide(Standing::Ousted(why))
    }

    fn decide(&self, decided: Standing<S::Permit>) -> Option<Waker> {
        match std::mem::replace(&mut *self.lock(), decided) {
            Standing::Waiting(waker) => waker,
            // Only who is in the queue is decided about, and that ends with the decision.
            Standing::Given(_) | Standing::Ousted(_) | Standing::Told => None,
        }
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<S::Permit, Ousted>> {
        let mut standing = self.lock();
        match std::mem::replace(&mut *standing, Standing::Told) {
            Standing::Given(permit) => Poll::Ready(Ok(permit)),
            Standing::Ousted(why) => Poll::Ready(Err(why)),
            Standing::Waiting(Some(waker)) if waker.will_wake(cx.waker()) => {
                *standing = Standing::Waiting(Some(waker));
                Poll::Pending
            }
            Standing::Waiting(_) | Standing::Told => {
                *standing = Standing::Waiting(Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }

    /// What was decided by now, if anything was.
    fn decided(&self) -> Option<Result<S::Permit, Ousted>> {
        match std::mem::replace(&mut *self.lock(), Standing::Told) {
            Standing::Given(permit) => Some(Ok(permit)),
            Standing::Ousted(why) => Some(Err(why)),
            Standing::Waiting(_) | Standing::Told => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Standing<S::Permit>> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Place ===

impl<S: Supply> Place<S> {
    /// Joins `line`.
    ///
    /// # Errors
    /// [`Ousted::Displaced`] where there is no place in it.
    pub fn join(
        line: &Arc<Line<S>>,
        waiter: Waiter,
        wish: S::Wish,
        now: Instant,
    ) -> (Result<Self, Ousted>, Aftermath<S>) {
        let mut after = Aftermath::none();
        let mut guard = line.lock();
        let inner = &mut *guard;
        if inner.queue.is_empty() {
            inner.flow.begin(now);
        }
        let slot = Arc::new(Slot { id: inner.next, wish, standing: Mutex::new(Standing::Waiting(None)) });
        inner.next += 1;
        let ticket = match inner.queue.offer(waiter, Arc::clone(&slot)) {
            Offered::Placed(ticket) => ticket,
            Offered::PlacedFor(ticket, evicted) => {
                after.wake(evicted.item.oust(Ousted::Displaced));
                ticket
            }
            Offered::Full(_) => return (Err(Ousted::Displaced), after),
        };
        // Where others wait already the supply knows, and there was nothing for them: whoever makes room tells us.
        if inner.wanting {
            line.set_gate(inner);
        } else {
            line.serve(inner, now, &mut after);
        }
        drop(guard);
        (Ok(Place { line: Arc::clone(line), slot, ticket, over: false }), after)
    }

    /// Ready once it was decided what becomes of the waiter. Not to be asked again after that.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<S::Permit, Ousted>> {
        let decided = self.slot.poll(cx);
        self.over |= decided.is_ready();
        decided
    }

    /// Leaves the line. What was decided by then, perhaps in this very moment, is returned.
    pub fn leave(&mut self) -> Option<Result<S::Permit, Ousted>> {
        if self.over {
            return None;
        }
        self.over = true;
        let mut inner = self.line.lock();
        let left = inner.queue.remove(self.ticket);
        self.line.settle(&mut inner);
        drop(inner);
        // Who is not in the queue any more was decided about, under the mutex that was just ours.
        if left.is_some() { None } else { self.slot.decided() }
    }

    /// What was decided already, without a task to wake.
    pub fn peek(&mut self) -> Option<Result<S::Permit, Ousted>> {
        let mut standing = self.slot.lock();
        if matches!(*standing, Standing::Waiting(_)) {
            return None;
        }
        self.over = true;
        match std::mem::replace(&mut *standing, Standing::Told) {
            Standing::Given(permit) => Some(Ok(permit)),
            Standing::Ousted(why) => Some(Err(why)),
            Standing::Waiting(_) | Standing::Told => None,
        }
    }
}

impl<S: Supply> Drop for Place<S> {
    fn drop(&mut self) {
        // A permit that comes out of it is given back here, where no mutex is held.
        drop(self.leave());
    }
}

// === impl Aftermath ===

impl<S: Supply> Aftermath<S> {
    fn none() -> Self {
        Aftermath { wakers: [const { None }; BATCH], count: 0, spoilt: Vec::new(), waiting: false, more: false }
    }

    /// Whether anybody was given something, or sent away.
    pub fn served(&self) -> bool {
        self.count > 0
    }

    /// Counts also who has no waker yet: what it was given was given.
    fn wake(&mut self, waker: Option<Waker>) {
        if let Some(place) = self.wakers.get_mut(self.count) {
            *place = waker;
        }
        self.count += 1;
    }
}

impl<S: Supply> Drop for Aftermath<S> {
    fn drop(&mut self) {
        self.wakers.iter_mut().filter_map(Option::take).for_each(Waker::wake);
    }
}

// === impl Debug ===

impl<O: Owner> fmt::Debug for Permit<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}

impl<S: Supply> fmt::Debug for Line<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}

impl<S: Supply> fmt::Debug for Slot<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("id", &self.id).finish_non_exhaustive()
    }
}

impl<S: Supply> fmt::Debug for Place<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("slot", &self.slot).finish_non_exhaustive()
    }
}

impl<S: Supply> fmt::Debug for Aftermath<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aftermath").field("count", &self.count).finish_non_exhaustive()
    }
}

/// One place in [`Room::word`].
const PLACE: u64 = 1;

/// One line that wants a place.
const WANT: u64 = 1 << 32;

/// In [`Line::gate`]: nothing is handed out.
const PAUSED: usize = 1 << (usize::BITS - 1);

/// Served in one go; then the mutex is free for a moment, and those who were served are woken.
const BATCH: usize = 16;
