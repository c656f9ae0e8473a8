//! One pool's queue, whose providers have a place each now and then: everybody who could be overtaken, lost, counted twice or
//! forgotten is. Terms change under way, which they do not in the larger world.

use super::story::{Story, Word};
use fastrand::Rng;
use sluice::clock;
use sluice::instant::Instant;
use sluice::policy::class::Class;
use sluice::policy::queue::{Evicted, Offered, Queue, Terms, Ticket, Waiter};
use std::collections::BTreeMap;
use std::time::Duration;

/// Clients that ask, and one pool whose providers have a place each now and then.
pub struct World<'a> {
    story: &'a mut Story,
    rng: Rng,
    start: Instant,
    now: Instant,
    terms: Terms,
    queue: Queue<u64>,
    clients: Vec<Client>,
    /// Who waits, by the number of the request.
    waiting: BTreeMap<u64, Waiting>,
    /// When attempts end that are under way, and how many there may be at once.
    busy: Vec<Instant>,
    places: usize,
    asked: u64,
    served: u64,
    left: u64,
    late: u64,
    refused: u64,
    pushed_out: u64,
    /// Turns of others since each class that waits had one, or came.
    passed: [u64; 3],
    /// What `passed` may be.
    bound: [u64; 3],
}

struct Client {
    share: u32,
    class: Class,
    /// Chance to be the next one that asks, in proportion to the others'.
    eager: u32,
}

struct Waiting {
    ticket: Ticket,
    waiter: Waiter,
    until: Instant,
}

// === impl World ===

impl<'a> World<'a> {
    /// How many requests ended, and how.
    pub fn ended(&self) -> BTreeMap<&'static str, u64> {
        let counts = [self.served, self.left, self.late, self.refused, self.pushed_out];
        SIGHTS.into_iter().zip(counts).filter(|(_, count)| *count > 0).collect()
    }

    /// Lives a world to its end.
    pub fn run(seed: u64, story: &'a mut Story) -> Self {
        let mut world = World::new(Rng::with_seed(seed), story);
        for _ in 0..STEPS {
            world.step();
            world.check();
        }
        world.drain();
        world
    }

    fn new(mut rng: Rng, story: &'a mut Story) -> Self {
        let (start, terms) = (clock::now(), any_terms(&mut rng));
        let mut client = |_| Client {
            share: rng.u32(1..5),
            class: rng.choice(Class::ALL).expect("a class"),
            eager: if rng.u8(..10) == 0 { 100 } else { rng.u32(1..10) },
        };
        let clients = (0..CLIENTS).map(&mut client).collect();
        let places = rng.usize(1..20);
        World {
            story,
            rng,
            start,
            now: start,
            terms,
            queue: Queue::new(terms),
            clients,
            waiting: BTreeMap::new(),
            busy: Vec::new(),
            places,
            asked: 0,
            served: 0,
            left: 0,
            late: 0,
            refused: 0,
            pushed_out: 0,
            passed: [0; 3],
            bound: bound(&terms),
        }
    }

    /// One thing happens, and then what follows from it.
    fn step(&mut self) {
        match self.rng.u32(..1000) {
            0..600 => self.ask(),
            600..660 => self.leave(),
            660..664 => self.reload(),
            _ => self.pass(),
        }
        self.time_out();
        self.dispatch();
    }

    /// Somebody asks.
    fn ask(&mut self) {
        let eagerness: u32 = self.clients.iter().map(|client| client.eager).sum();
        let mut drawn = self.rng.u32(..eagerness);
        let is_drawn = |client: &Client| {
            let is_here = drawn < client.eager;
            drawn = drawn.saturating_sub(client.eager);
            is_here
        };
        let client = self.clients.iter().position(is_drawn).expect("the sum is of all");
        let Client { share, class, .. } = self.clients[client];
        let class = if self.rng.u8(..4) == 0 { Class::Normal.max(class) } else { class };
        let again = self.rng.u8(..10) == 0;
        let bytes = self.rng.usize(..1 << 20);
        let waiter = Waiter { class, client: client as u32, share, bytes, since: self.now, again };
        let until = self.now + Duration::from_millis(self.rng.u64(1..2000));
        let request = self.asked;
        self.asked += 1;
        let ticket = match self.queue.offer(waiter, request) {
            Offered::Full(refused) => {
                assert_eq!(refused, request);
                self.refused += 1;
                self.note("request {} of class {} is refused", [request.into(), class.as_str().into()]);
                return;
            }
            Offered::Placed(ticket) => ticket,
            Offered::PlacedFor(ticket, Evicted { waiter: evicted, item }) => {
                assert!(evicted.class >= class, "a more urgent one was pushed out");
                assert!(self.waiting.remove(&item).is_some(), "{item} was pushed out and did not wait");
                self.pushed_out += 1;
                self.note("request {} makes way for {}", [item.into(), request.into()]);
                ticket
            }
        };
        self.note("request {} of class {} waits", [request.into(), class.as_str().into()]);
        self.waiting.insert(request, Waiting { ticket, waiter, until });
    }

    /// A client hangs up.
    fn leave(&mut self) {
        if !self.waiting.is_empty() {
            let nth = self.rng.usize(..self.waiting.len());
            let request = *self.waiting.keys().nth(nth).expect("one of those that wait");
            self.gone(request);
            self.left += 1;
        }
    }

    /// The configuration changes.
    fn reload(&mut self) {
        self.terms = any_terms(&mut self.rng);
        self.note("there are {} places now", [self.terms.capacity.into(), Word::Nothing]);
        self.queue.set_terms(self.terms);
        // The next turn of a class that waits is due by its old weight, while others go on by their new ones.
        self.bound = [2 * u64::from(MOST_WEIGHT + 1); 3];
    }

    /// Time passes.
    fn pass(&mut self) {
        self.now += Duration::from_micros(self.rng.u64(1..50_000));
        self.busy.retain(|until| *until > self.now);
    }

    fn time_out(&mut self) {
        let late = |(request, waiting): (&u64, &Waiting)| (waiting.until <= self.now).then_some(*request);
        let late: Vec<u64> = self.waiting.iter().filter_map(late).collect();
        for request in late {
            self.gone(request);
            self.late += 1;
        }
    }

    fn gone(&mut self, request: u64) {
        self.note("request {} waits no longer", [request.into(), Word::Nothing]);
        let waiting = self.waiting.remove(&request).expect("it waits");
        assert_eq!(self.queue.remove(waiting.ticket), Some(request));
        assert_eq!(self.queue.remove(waiting.ticket), None, "nobody leaves twice");
    }

    fn dispatch(&mut self) {
        self.forget(|_, depth| depth == 0);
        while self.busy.len() < self.places {
            let Some((waiter, request)) = self.queue.take() else { break };
            self.served += 1;
            self.note("request {} of class {} is served", [request.into(), waiter.class.as_str().into()]);
            let taken = self.waiting.remove(&request).expect("it waited");
            assert_eq!(taken.waiter, waiter);
            let own = |waiting: &&Waiting| {
                (waiting.waiter.class, waiting.waiter.client, waiting.waiter.again)
                    == (waiter.class, waiter.client, waiter.again)
            };
            assert!(
                self.waiting.values().filter(own).all(|other| other.ticket > taken.ticket),
                "first come, first served"
            );
            self.passed.iter_mut().for_each(|passed| *passed += 1);
            self.forget(|class, depth| class == waiter.class || depth == 0);
            self.busy.push(self.now + Duration::from_micros(self.rng.u64(1..100_000)));
        }
    }

    /// Counts anew for classes that had a turn, or that do not wait.
    fn forget(&mut self, which: impl Fn(Class, usize) -> bool) {
        for class in Class::ALL.into_iter().filter(|class| which(*class, self.queue.depth(*class))) {
            self.passed[class.index()] = 0;
            self.bound[class.index()] = bound(&self.terms)[class.index()];
        }
    }

    fn note(&mut self, what: &'static str, [one, other]: [Word; 2]) {
        self.story.note(self.now - self.start, what, [one, other, Word::Nothing]);
    }

    /// What must hold after each step.
    fn check(&self) {
        assert_eq!(self.queue.len(), self.waiting.len());
        let ended: u64 = self.ended().values().sum();
        assert_eq!(self.asked, ended + self.waiting.len() as u64, "each request ends once, or waits");
        assert!(self.busy.len() == self.places || self.queue.is_empty(), "nobody waits while there is room");
        for class in Class::ALL {
            let (passed, bound) = (self.passed[class.index()], self.bound[class.index()]);
            assert!(passed <= bound, "{class:?} let {passed} others go before it, at {:?}", self.now - self.start);
        }
        let waiters = self.waiting.values().map(|waiting| waiting.waiter);
        assert_eq!(self.queue.bytes(), waiters.map(|waiter| waiter.bytes).sum::<usize>());
    }

    /// Nobody asks any more: all that wait are served.
    fn drain(&mut self) {
        while !self.queue.is_empty() {
            self.busy.clear();
            self.dispatch();
        }
        self.check();
    }
}

fn any_terms(rng: &mut Rng) -> Terms {
    let weights = std::array::from_fn(|_| rng.u32(1..=MOST_WEIGHT));
    Terms { capacity: rng.usize(1..200), weights, reserve_high: f64::from(rng.u8(..10)) / 10.0 }
}

/// How many turns of others a class waits for at most: see `src/policy/queue.rs`.
fn bound(terms: &Terms) -> [u64; 3] {
    let weight = |class: Class| u64::from(terms.weights[class.index()]);
    Class::ALL.map(|class| {
        let others = Class::ALL.into_iter().filter(|other| *other != class);
        others.map(|other| weight(other) / weight(class) + 1).sum()
    })
}

/// How requests end.
pub const SIGHTS: [&str; 5] = ["served", "left", "late", "refused", "pushed out"];
/// What happens in each world.
const STEPS: usize = 2_000;
/// How many ask.
const CLIENTS: usize = 12;
/// The largest weight of a class.
const MOST_WEIGHT: u32 = 20;
