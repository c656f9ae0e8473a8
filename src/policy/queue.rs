//! Who waits for a pool's providers, whose turn it is, and who has to go when there is no place left.
//!
//! # Turns
//!
//! Between classes by weight, inside a class between clients by share, and first come, first served for one client; its
//! retries before everything it has not tried yet. Both times by *self-clocked fair queueing* (Golestani, "A self-clocked
//! fair queueing scheme for broadband applications", INFOCOM 1994): there is a virtual time, and whoever waits has an
//! instant of it at which a turn is *due*. Whoever begins to wait with weight `w` is due `ROUND / w` from now. The turn
//! is of the one that is due first; virtual time is then when that was due, and who still waits is due `ROUND / w` later.
//! So each has turns in proportion to its weight while it waits.
//!
//! Nothing has to be remembered of who does not wait. A client that comes back is due a whole step from now, however long
//! it was away, so it saved nothing up; and since virtual time is never before its own last turn, it owes nothing either.
//!
//! **Nobody starves.** While a class of weight `w` waits, it sees at most the sum of `⌊v / w⌋ + 1` over the weights `v` of
//! the other classes go before its next turn. For it was due at most `ROUND / w` after what was then now; whoever goes
//! before it was due in that span; and what one class is due, leaving and coming back included, lies `ROUND / v` apart, so
//! that at most `⌊v / w⌋ + 1` of it fit in. With weights 16, 4 and 1, `low` waits for no more than 17 + 5 others. The same
//! holds for clients and their shares, among the turns of their class.
//!
//! # Places
//!
//! All waiters together have [`Terms::capacity`] places, and those that are not `high` may hold no more of them than are
//! not reserved. Where a newcomer finds no place, somebody of the lowest class that waits is pushed out for it, if that is
//! below its own and has more places than its weight's part of them, or else of its own class: the client that is furthest above its share there (has the most waiting for
//! its share, the newcomer counted) loses its newest. That may be the newcomer, which then is refused. Of clients equally
//! far above it is the one that came last. So a client that floods a class loses places only to those that
//! have fewer, and nobody pushes out a more urgent class. That a class keeps its weight's part of the places is what turns
//! are worth under load: one that is pushed out whenever there is more urgent work would have its turns, and nobody there.
//!
//! A queue with `n` clients waiting takes `O(log n)` for each operation, and allocates nothing once it has been as full as
//! it gets.

mod ranking;
mod slab;
#[cfg(test)]
mod tests;

use super::class::Class;
use crate::instant::Instant;
use ranking::Ranking;
use slab::Slab;
use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::BuildHasherDefault;

/// How many may wait, and how classes share the turns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Terms {
    /// Places for all waiters together.
    pub capacity: usize,
    /// Turns of each class in proportion to the others', by [`Class::index`]. 0 counts as 1.
    pub weights: [u32; 3],
    /// The share of the places, 0 to 1, that only `high` may hold. A fraction of a place is not reserved.
    pub reserve_high: f64,
}

/// What the queue needs to know of one who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiter {
    /// How urgent it is.
    pub class: Class,
    /// Whose request it is: a number for each client, the same one as long as it has anything waiting.
    pub client: u32,
    /// Turns and places of this client in proportion to the others'. 0 counts as 1; of one client's waiters the latest
    /// is right.
    pub share: u32,
    /// Memory that it holds on to.
    pub bytes: usize,
    /// Since when it has been waiting.
    pub since: Instant,
    /// Whether it is a retry: it goes before what its client has not tried yet.
    pub again: bool,
}

/// Names one waiter in one queue, for good: no later one has the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    arrival: u64,
    place: u32,
}

/// What became of an offer.
#[derive(Debug, PartialEq, Eq)]
pub enum Offered<T> {
    /// It waits.
    Placed(Ticket),
    /// It waits in the place of somebody else, who has to be told.
    PlacedFor(Ticket, Evicted<T>),
    /// There is no place for it, and nobody has to make way.
    Full(T),
}

/// Who was pushed out.
#[derive(Debug, PartialEq, Eq)]
pub struct Evicted<T> {
    /// What the queue knew of it.
    pub waiter: Waiter,
    /// What was offered with it.
    pub item: T,
}

/// Waiters with an item each, in no more places than its [`Terms`] allow.
#[derive(Debug)]
pub struct Queue<T> {
    terms: Terms,
    places: Slab<Place<T>>,
    /// By [`Class::index`].
    rows: [Row; 3],
    /// Virtual time among the classes.
    now: Due,
    /// How many have ever been placed.
    arrivals: u64,
    bytes: usize,
}

/// Everyone of one class.
#[derive(Debug)]
struct Row {
    lanes: Slab<Lane>,
    /// The lane of each client that waits. The hasher has no random key: clients do not choose their numbers.
    lane_of: HashMap<u32, u32, BuildHasherDefault<DefaultHasher>>,
    /// Lanes by when their turn is due among the lanes; of those due together, by who was there first.
    turns: Ranking<(Due, u64)>,
    /// Lanes by how far they are above their share.
    excess: Ranking<Reverse<Excess>>,
    /// Virtual time among the clients of this class.
    now: Due,
    /// When the next turn of this class is due among the classes. Means nothing while nobody waits.
    due: Due,
    waiting: usize,
    /// The sum of the shares of all lanes.
    shares: u64,
}

/// What one client has waiting in one class; at least one waiter.
#[derive(Debug)]
struct Lane {
    client: u32,
    share: u32,
    waiting: usize,
    /// The arrival of the latest that came into this lane.
    latest: u64,
    /// Retries, then everything else.
    lines: [Line; 2],
}

/// Places in the order in which they were taken, linked both ways. `None` twice where there are none.
#[derive(Debug, Clone, Copy, Default)]
struct Line {
    front: Option<u32>,
    back: Option<u32>,
}

/// One waiter and where it stands.
#[derive(Debug)]
struct Place<T> {
    waiter: Waiter,
    item: T,
    arrival: u64,
    lane: u32,
    before: Option<u32>,
    behind: Option<u32>,
}

/// How many a client has waiting for its share. With the same for both, it is more for who came later.
#[derive(Debug, Clone, Copy)]
struct Excess {
    waiting: usize,
    share: u32,
    latest: u64,
}

/// An instant of virtual time. A step adds at most [`ROUND`], so it takes 2^64 turns to overflow.
type Due = u128;

// === impl Terms ===

impl Terms {
    /// Places that no more urgent class takes from this one: its weight's part of all, rounded down.
    fn kept(&self, class: Class) -> usize {
        let weight = |class: Class| u128::from(self.weights[class.index()].max(1));
        let all: u128 = Class::ALL.into_iter().map(weight).sum();
        (self.capacity.min(MOST_PLACES) as u128 * weight(class) / all) as usize
    }

    /// How many places only `high` may hold.
    #[must_use]
    #[expect(clippy::cast_sign_loss, reason = "neither factor is negative")]
    pub fn reserved(&self) -> usize {
        (self.capacity as f64 * self.reserve_high.clamp(0.0, 1.0)) as usize
    }
}

// === impl Queue ===

impl<T> Queue<T> {
    /// An empty queue. Nothing is allocated before somebody waits.
    #[must_use]
    pub fn new(terms: Terms) -> Self {
        let rows = std::array::from_fn(|_| Row::new());
        Queue { terms, places: Slab::new(), rows, now: 0, arrivals: 0, bytes: 0 }
    }

    /// Goes on with other terms. Where there are fewer places now than are taken, nobody loses one: until enough have left,
    /// a newcomer needs somebody to make way. Weights count from each class's next turn on.
    pub fn set_terms(&mut self, terms: Terms) {
        self.terms = terms;
    }

    /// Lets a newcomer wait, in the place of another one if need be.
    pub fn offer(&mut self, newcomer: Waiter, item: T) -> Offered<T> {
        if self.has_place(newcomer.class) {
            return Offered::Placed(self.place(newcomer, item));
        }
        let Some(place) = self.makes_way(&newcomer) else { return Offered::Full(item) };
        // In this order: a client that replaces the only one it has waiting keeps its turn.
        let ticket = self.place(newcomer, item);
        let Place { waiter, item, .. } = self.vacate(place);
        Offered::PlacedFor(ticket, Evicted { waiter, item })
    }

    /// Whose turn it is: the one that [`Queue::take`] would take.
    #[must_use]
    pub fn peek(&self) -> Option<(&Waiter, &T)> {
        let place = &self.places[self.first()?];
        Some((&place.waiter, &place.item))
    }

    /// Takes the one whose turn it is as if it had left: the turn is the next one's.
    pub fn skip(&mut self) -> Option<(Waiter, T)> {
        let Place { waiter, item, .. } = self.vacate(self.first()?);
        Some((waiter, item))
    }

    /// Takes the one whose turn it is.
    pub fn take(&mut self) -> Option<(Waiter, T)> {
        let row = self.next()?;
        let ((due, _), lane) = row.turns.first()?;
        let place = row.lanes[lane].first()?;
        let Place { waiter, item, .. } = self.vacate(place);
        let row = &mut self.rows[waiter.class.index()];
        self.now = row.due;
        row.due += step(self.terms.weights[waiter.class.index()]);
        row.now = due;
        if let Some(first) = row.lanes.get(lane).and_then(Lane::first) {
            row.turns.set(lane, (due + step(row.lanes[lane].share), self.places[first].arrival));
        }
        Some((waiter, item))
    }

    /// Takes out the one that has this ticket, if it still waits.
    pub fn remove(&mut self, ticket: Ticket) -> Option<T> {
        let place = self.places.get(ticket.place)?;
        (place.arrival == ticket.arrival).then(|| self.vacate(ticket.place).item)
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many of this class wait.
    #[must_use]
    pub fn depth(&self, class: Class) -> usize {
        self.rows[class.index()].waiting
    }

    /// Memory that all waiters together hold on to.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Since when the one of this class that has waited longest waits, given that each client's requests came in the order
    /// of their instants. Looks at every client that waits.
    #[must_use]
    pub fn oldest(&self, class: Class) -> Option<Instant> {
        let lanes = self.rows[class.index()].lanes.iter();
        let fronts = lanes.flat_map(|(_, lane)| lane.lines.iter().filter_map(|line| line.front));
        fronts.map(|place| self.places[place].waiter.since).min()
    }

    /// Who waits, in no particular order: class, client, how many.
    pub fn clients(&self) -> impl Iterator<Item = (Class, u32, usize)> {
        let lanes = |class: Class| self.rows[class.index()].lanes.iter().map(move |(_, lane)| (class, lane));
        Class::ALL.into_iter().flat_map(lanes).map(|(class, lane)| (class, lane.client, lane.waiting))
    }

    /// Every waiter, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (Ticket, &Waiter, &T)> {
        let named = |(place, held)| {
            let Place { waiter, item, arrival, .. }: &Place<T> = held;
            (Ticket { arrival: *arrival, place }, waiter, item)
        };
        self.places.iter().map(named)
    }

    /// About how many would have their turn before this newcomer if nobody else came: what its client has waiting, and of
    /// the others what weights and shares give them until then. It may be too many, where clients have less waiting than
    /// their shares are good for; it is too few by one turn for each client and class at most, where it met them just
    /// before theirs.
    #[must_use]
    pub fn ahead_of(&self, newcomer: &Waiter) -> usize {
        let row = &self.rows[newcomer.class.index()];
        let (waiting, share) = row.lane(newcomer.client).map_or((0, 0), |lane| (lane.waiting, lane.share));
        let own = if newcomer.again { 0 } else { waiting };
        let others = turns_of(row.shares - u64::from(share), own + 1, newcomer.share).min(row.waiting - waiting);
        let of_class = own + others;
        let weights = self.terms.weights;
        let of_other = |class: Class| {
            let turns = turns_of(weights[class.index()].into(), of_class + 1, weights[newcomer.class.index()]);
            turns.min(self.depth(class))
        };
        of_class + Class::ALL.into_iter().filter(|class| *class != newcomer.class).map(of_other).sum::<usize>()
    }

    /// Whether there is a place for one more of this class.
    fn has_place(&self, class: Class) -> bool {
        let capacity = self.terms.capacity.min(MOST_PLACES);
        let not_high = self.len() - self.depth(Class::High);
        self.len() < capacity && (class == Class::High || not_high < capacity.saturating_sub(self.terms.reserved()))
    }

    /// Whose place a newcomer gets that finds none; `None` if it is the one to go.
    fn makes_way(&self, newcomer: &Waiter) -> Option<u32> {
        let mut from_below = Class::ALL.into_iter().rev().take_while(|class| *class >= newcomer.class);
        let may_lose =
            |class: &Class| self.depth(*class) > if *class > newcomer.class { self.terms.kept(*class) } else { 0 };
        let class = from_below.find(may_lose)?;
        let row = &self.rows[class.index()];
        let (Reverse(most), furthest) = row.excess.first()?;
        let own = row.lane(newcomer.client);
        let waiting = own.map_or(0, |lane| lane.waiting) + 1;
        let with_it = Excess { waiting, share: newcomer.share.max(1), latest: self.arrivals };
        if class > newcomer.class || most > with_it {
            return row.lanes[furthest].last();
        }
        // Its own client has to lose its newest, which a retry is not.
        own.filter(|_| newcomer.again)?.lines[NEW].back
    }

    /// Where the one is whose turn it is.
    fn first(&self) -> Option<u32> {
        let row = self.next()?;
        let (_, lane) = row.turns.first()?;
        row.lanes[lane].first()
    }

    /// The class whose turn it is.
    fn next(&self) -> Option<&Row> {
        // Of those due together it is the first, which is the most urgent.
        self.rows.iter().filter(|row| row.waiting > 0).min_by_key(|row| row.due)
    }

    /// Gives `waiter` a place at the end of its line.
    fn place(&mut self, waiter: Waiter, item: T) -> Ticket {
        let arrival = self.arrivals;
        let row = &mut self.rows[waiter.class.index()];
        if row.waiting == 0 {
            row.due = self.now + step(self.terms.weights[waiter.class.index()]);
        }
        let number = row.enter(&waiter, arrival);
        let line = row.lanes[number].line_of(&waiter);
        let place = Place { waiter, item, arrival, lane: number, before: line.back, behind: None };
        let place = self.places.insert(place);
        match line.back.replace(place) {
            Some(before) => self.places[before].behind = Some(place),
            None => line.front = Some(place),
        }
        self.arrivals += 1;
        self.bytes += waiter.bytes;
        Ticket { arrival, place }
    }

    /// Takes who is at `place` out of its line.
    fn vacate(&mut self, place: u32) -> Place<T> {
        let gone = self.places.remove(place);
        let row = &mut self.rows[gone.waiter.class.index()];
        let line = row.lanes[gone.lane].line_of(&gone.waiter);
        match gone.before {
            Some(before) => self.places[before].behind = gone.behind,
            None => line.front = gone.behind,
        }
        match gone.behind {
            Some(behind) => self.places[behind].before = gone.before,
            None => line.back = gone.before,
        }
        row.leave(gone.lane);
        self.bytes -= gone.waiter.bytes;
        gone
    }
}

// === impl Row ===

impl Row {
    fn new() -> Self {
        Row {
            lanes: Slab::new(),
            lane_of: HashMap::default(),
            turns: Ranking::new(),
            excess: Ranking::new(),
            now: 0,
            due: 0,
            waiting: 0,
            shares: 0,
        }
    }

    fn lane(&self, client: u32) -> Option<&Lane> {
        self.lane_of.get(&client).map(|lane| &self.lanes[*lane])
    }

    /// Counts one more in its client's lane, and says which lane that is.
    fn enter(&mut self, waiter: &Waiter, arrival: u64) -> u32 {
        let share = waiter.share.max(1);
        let number = *self.lane_of.entry(waiter.client).or_insert_with(|| {
            let lane = self.lanes.insert(Lane::new(waiter.client));
            self.turns.set(lane, (self.now + step(share), arrival));
            lane
        });
        let lane = &mut self.lanes[number];
        self.shares = self.shares - u64::from(lane.share) + u64::from(share);
        lane.share = share;
        lane.latest = arrival;
        lane.waiting += 1;
        self.waiting += 1;
        self.excess.set(number, Reverse(lane.excess()));
        number
    }

    /// Counts one less in this lane, which ends with the last one.
    fn leave(&mut self, number: u32) {
        let lane = &mut self.lanes[number];
        lane.waiting -= 1;
        self.waiting -= 1;
        if lane.waiting > 0 {
            self.excess.set(number, Reverse(lane.excess()));
            return;
        }
        let lane = self.lanes.remove(number);
        self.shares -= u64::from(lane.share);
        self.lane_of.remove(&lane.client);
        self.turns.remove(number);
        self.excess.remove(number);
    }
}

// === impl Lane ===

impl Lane {
    fn new(client: u32) -> Self {
        Lane { client, share: 0, waiting: 0, latest: 0, lines: [Line::default(); 2] }
    }

    fn line_of(&mut self, waiter: &Waiter) -> &mut Line {
        &mut self.lines[if waiter.again { RETRIES } else { NEW }]
    }

    /// The place whose turn is next.
    fn first(&self) -> Option<u32> {
        self.lines[RETRIES].front.or(self.lines[NEW].front)
    }

    /// The place that is lost first.
    fn last(&self) -> Option<u32> {
        self.lines[NEW].back.or(self.lines[RETRIES].back)
    }

    fn excess(&self) -> Excess {
        Excess { waiting: self.waiting, share: self.share, latest: self.latest }
    }
}

// === impl Excess ===

impl Ord for Excess {
    fn cmp(&self, other: &Self) -> Ordering {
        // Neither factor exceeds 32 bits.
        let crosswise = |ours: &Excess, theirs: &Excess| ours.waiting as u64 * u64::from(theirs.share);
        crosswise(self, other).cmp(&crosswise(other, self)).then(self.latest.cmp(&other.latest))
    }
}

impl PartialOrd for Excess {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Excess {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Excess {}

/// How far apart in virtual time the turns of a weight or share are.
fn step(weight: u32) -> Due {
    Due::from(ROUND / u64::from(weight.max(1)))
}

/// How many turns weights of `theirs` have while a weight of `ours` has `turns`.
fn turns_of(theirs: u64, turns: usize, ours: u32) -> usize {
    let exact = u128::from(theirs) * turns as u128 / u128::from(ours.max(1));
    usize::try_from(exact).unwrap_or(usize::MAX)
}

/// Virtual time between the turns of who has a weight of 1. It exceeds the square of any weight, so that rounding the
/// others down adds no turn to the bound above.
const ROUND: u64 = u64::MAX;
/// No queue has more, whatever its terms say: places have numbers of 32 bits. Memory ends long before.
const MOST_PLACES: usize = 1 << 31;
/// The line of a lane's retries, which go first.
const RETRIES: usize = 0;
/// The line of everything else.
const NEW: usize = 1;
