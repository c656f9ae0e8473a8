//! One of many equal requests brings the reply for all.
//!
//! The first becomes the [`Leader`]; whoever comes after it while it is under way is a [`Follower`]. A leader
//! [publishes](Leader::publish) what it is given as soon as the head shows that others may have it, and from then on everyone
//! who comes is given it at once; or it [declines](Leader::decline), and everyone goes alone, for a while also those who come
//! later: waiting would only have cost them time. A leader that is dropped without a word has failed, and the follower that
//! waits longest leads in its place, so that a request's fate is never another's.
//!
//! What becomes of a flight is decided under its own mutex. The table's mutex is taken before it, never while it is held.
//! Wakers are called when neither is.

use super::sync::{Arc, Mutex, MutexGuard};
use crate::instant::Instant;
use std::collections::hash_map::{Entry, RandomState};
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::{OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// The requests that are under way for others, by their keys.
#[derive(Debug)]
pub struct Flights<T> {
    shards: Vec<Arc<Shard<T>>>,
}

/// What a request is to do.
#[derive(Debug)]
pub enum Joined<T> {
    /// Bring the reply for all.
    Lead(Leader<T>),
    /// Wait for who does.
    Follow(Follower<T>),
    /// The reply is there, or coming in.
    Published(Arc<T>),
    /// Go alone: replies to this key were not for others, a moment ago.
    Alone,
}

/// What a follower waited for.
#[derive(Debug)]
pub enum Followed<T> {
    /// The reply is there, or coming in. Whether it was chosen for this request too is to be looked at.
    Published(Arc<T>),
    /// Who led has failed: lead.
    Lead(Leader<T>),
    /// The reply is not for others.
    Alone,
}

/// The duty to bring a reply. Dropping it hands the duty on, unless something was published.
#[derive(Debug)]
pub struct Leader<T> {
    seat: Seat<T>,
}

/// A place among those who wait.
#[derive(Debug)]
pub struct Follower<T> {
    seat: Seat<T>,
    id: u64,
    over: bool,
}

/// What leader and followers share.
#[derive(Debug)]
struct Seat<T> {
    shard: Arc<Shard<T>>,
    flight: Arc<Flight<T>>,
    key: Box<[u8]>,
}

#[derive(Debug)]
struct Shard<T> {
    table: Mutex<Table<T>>,
}

#[derive(Debug)]
struct Table<T> {
    flights: HashMap<Box<[u8]>, Arc<Flight<T>>>,
    /// Keys whose replies are not for others, by their hashes, and until when that is taken for granted. Keys are as long as
    /// clients write them, and here nobody bounds their bytes; of two that share a hash, one goes alone for nothing.
    declined: HashMap<u64, Instant>,
}

#[derive(Debug)]
struct Flight<T> {
    inner: Mutex<Inner<T>>,
}

#[derive(Debug)]
struct Inner<T> {
    state: State<T>,
    /// In the order in which they came.
    waiting: VecDeque<(u64, Option<Waker>)>,
    next_id: u64,
    /// What it brings must not be kept: something has changed since it was asked for.
    outdated: bool,
}

#[derive(Debug)]
enum State<T> {
    /// Somebody leads.
    Led,
    /// This follower is to lead, and does not know it yet.
    Elected(u64),
    /// The reply.
    Published(Arc<T>),
    /// The reply is not for others.
    Declined,
    /// Nobody is there any more.
    Over,
}

// === impl Flights ===

impl<T> Default for Flights<T> {
    fn default() -> Self {
        let shard = || Shard { table: Mutex::new(Table { flights: HashMap::new(), declined: HashMap::new() }) };
        Flights { shards: (0..SHARDS).map(|_| Arc::new(shard())).collect() }
    }
}

impl<T> Flights<T> {
    /// Joins those who want what `key` names.
    pub fn join(&self, key: &[u8], now: Instant) -> Joined<T> {
        let hash = hash(key);
        let shard = &self.shards[hash as usize % SHARDS];
        let mut table = shard.lock();
        if let Some(until) = table.declined.get(&hash) {
            if *until > now {
                return Joined::Alone;
            }
            table.declined.remove(&hash);
        }
        let seat =
            |flight: &Arc<Flight<T>>| Seat { shard: Arc::clone(shard), flight: Arc::clone(flight), key: key.into() };
        if let Some(flight) = table.flights.get(key) {
            let mut inner = flight.lock();
            match &inner.state {
                State::Led | State::Elected(_) => {
                    let id = inner.next_id;
                    inner.next_id += 1;
                    inner.waiting.push_back((id, None));
                    return Joined::Follow(Follower { seat: seat(flight), id, over: false });
                }
                State::Published(reply) => return Joined::Published(Arc::clone(reply)),
                State::Declined => return Joined::Alone,
                // Its last one is about to take it out of the table.
                State::Over => {}
            }
        }
        let flight = Arc::new(Flight::new());
        let leader = Leader { seat: seat(&flight) };
        table.flights.insert(key.into(), flight);
        Joined::Lead(leader)
    }

    /// Replies to this key are for others again: who comes next waits for who brings one.
    pub fn forgive(&self, key: &[u8]) {
        let hash = hash(key);
        self.shards[hash as usize % SHARDS].lock().declined.remove(&hash);
    }

    /// What is under way for the keys that `concerns` says yes to must not be kept, and who comes from now on asks anew: what
    /// they name has changed. Says how many that were.
    pub fn outdate(&self, concerns: impl Fn(&[u8]) -> bool) -> u64 {
        let mut count = 0;
        for shard in &self.shards {
            let mut table = shard.lock();
            table.flights.retain(|key, flight| {
                let is_concerned = concerns(key);
                if is_concerned {
                    flight.lock().outdated = true;
                    count += 1;
                }
                !is_concerned
            });
        }
        count
    }

    /// How many are under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().flights.len()).sum()
    }

    /// Keys whose replies are taken not to be for others.
    #[must_use]
    pub fn declined(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().declined.len()).sum()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

// === impl Leader ===

impl<T> Leader<T> {
    /// Gives the reply, whose body may still be coming in, to everyone who waits and to everyone who comes before this is
    /// dropped. Drop it once the reply is in the store, or is not going to be.
    pub fn publish(&self, reply: Arc<T>) {
        self.settle(State::Published(reply));
    }

    /// The reply is not for others: everyone goes alone, and so do those who come within [`DECLINED_FOR`].
    pub fn decline(self, now: Instant) {
        self.settle(State::Declined);
        let mut table = self.seat.shard.lock();
        table.remember_declined(&self.seat.key, now);
    }

    /// There is nothing to wait for: everyone goes alone. Who comes later begins anew.
    pub fn release(self) {
        self.settle(State::Declined);
    }

    /// Whether what it brings must not be kept.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        self.seat.flight.lock().outdated
    }

    /// How many wait for it.
    #[must_use]
    pub fn followers(&self) -> usize {
        self.seat.flight.lock().waiting.len()
    }

    fn settle(&self, state: State<T>) {
        let mut inner = self.seat.flight.lock();
        inner.state = state;
        // Nobody has to find its place in a long line only to leave it.
        let waiting = std::mem::take(&mut inner.waiting);
        drop(inner);
        waiting.into_iter().filter_map(|(_, waker)| waker).for_each(Waker::wake);
    }
}

impl<T> Drop for Leader<T> {
    fn drop(&mut self) {
        self.seat.hand_on();
    }
}

// === impl Follower ===

impl<T> Follower<T> {
    /// Waits.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Followed<T>> {
        let mut inner = self.seat.flight.lock();
        let followed = match &inner.state {
            State::Published(reply) => Followed::Published(Arc::clone(reply)),
            State::Elected(id) if *id == self.id => {
                inner.state = State::Led;
                Followed::Lead(Leader { seat: self.seat.clone() })
            }
            State::Declined | State::Over => Followed::Alone,
            State::Led | State::Elected(_) => {
                if let Some((_, waker)) = inner.place(self.id).and_then(|place| inner.waiting.get_mut(place)) {
                    match waker {
                        Some(waker) => waker.clone_from(cx.waker()),
                        None => *waker = Some(cx.waker().clone()),
                    }
                }
                return Poll::Pending;
            }
        };
        inner.leave(self.id);
        self.over = true;
        Poll::Ready(followed)
    }
}

impl<T> Drop for Follower<T> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let mut inner = self.seat.flight.lock();
        inner.leave(self.id);
        let was_elected = matches!(&inner.state, State::Elected(id) if *id == self.id);
        if was_elected {
            inner.state = State::Led;
        }
        drop(inner);
        if was_elected {
            self.seat.hand_on();
        }
    }
}

// === impl Seat ===

impl<T> Seat<T> {
    /// Who led does so no longer: the next leads, or the flight ends.
    fn hand_on(&self) {
        let mut inner = self.flight.lock();
        if matches!(inner.state, State::Led) {
            if let Some((id, waker)) = inner.waiting.front_mut() {
                let (id, waker) = (*id, waker.take());
                inner.state = State::Elected(id);
                drop(inner);
                if let Some(waker) = waker {
                    waker.wake();
                }
                return;
            }
            inner.state = State::Over;
        }
        drop(inner);
        // Who joined meanwhile has put another flight into this one's place.
        let mut table = self.shard.lock();
        if let Entry::Occupied(entry) = table.flights.entry(self.key.clone())
            && Arc::ptr_eq(entry.get(), &self.flight)
        {
            entry.remove();
        }
    }
}

impl<T> Clone for Seat<T> {
    fn clone(&self) -> Self {
        Seat { shard: Arc::clone(&self.shard), flight: Arc::clone(&self.flight), key: self.key.clone() }
    }
}

// === impl Shard ===

impl<T> Shard<T> {
    fn lock(&self) -> MutexGuard<'_, Table<T>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Table ===

impl<T> Table<T> {
    /// Where there is no room to remember it, the next who come wait once more for nothing.
    fn remember_declined(&mut self, key: &[u8], now: Instant) {
        if self.declined.len() >= DECLINED / SHARDS {
            self.declined.retain(|_, until| *until > now);
        }
        if self.declined.len() < DECLINED / SHARDS
            && let Some(until) = now.checked_add(DECLINED_FOR)
        {
            self.declined.insert(hash(key), until);
        }
    }
}

// === impl Inner ===

impl<T> Inner<T> {
    /// Where who has this number stands in the line. Numbers are given in its order: thousands may wait, and each looks.
    fn place(&self, id: u64) -> Option<usize> {
        self.waiting.binary_search_by_key(&id, |(id, _)| *id).ok()
    }

    fn leave(&mut self, id: u64) {
        if let Some(place) = self.place(id) {
            self.waiting.remove(place);
        }
    }
}

// === impl Flight ===

impl<T> Flight<T> {
    fn new() -> Self {
        let inner = Inner { state: State::Led, waiting: VecDeque::new(), next_id: 0, outdated: false };
        Flight { inner: Mutex::new(inner) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nobody outside can tell which keys share a table. One for the process: the model replays what it did before.
fn hash(key: &[u8]) -> u64 {
    static HASHER: OnceLock<RandomState> = OnceLock::new();
    HASHER.get_or_init(RandomState::new).hash_one(key)
}

/// How long everyone who asks for a key goes alone, after a reply to it was not for others.
pub const DECLINED_FOR: Duration = Duration::from_secs(60);
/// Such keys that are remembered, shared out evenly among the tables.
pub const DECLINED: usize = 16_384;
/// Tables, so that requests for different keys seldom meet.
const SHARDS: usize = 16;
