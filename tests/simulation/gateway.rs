//! The gateway, small: the rooms of `src/policy/` put together as `src/upstream/` does it, for one thread. What it decides
//! about requests comes out as [`News`], in the order in which it was decided.

use fastrand::Rng;
use sluice::instant::Instant;
use sluice::policy::balance::{Balance, Field, Look};
use sluice::policy::budget::Budget;
use sluice::policy::circuit::{self, Circuit, Peek, Permit, State, Verdict};
use sluice::policy::cooldown::Cooldown;
use sluice::policy::load::{PeakEwma, slow_start};
use sluice::policy::pace::{self, Pace};
use sluice::policy::queue::{self, Evicted, Offered, Queue, Ticket, Waiter};
use std::collections::VecDeque;
use std::time::Duration;

/// Everything that is alive in it.
pub struct Gateway {
    pub providers: Vec<Provider>,
    pub pools: Vec<Pool>,
    pub news: VecDeque<News>,
    /// Which pool is told first of a place that was given back.
    turn: usize,
}

/// What a file says of a provider.
#[derive(Clone, Copy)]
pub struct ProviderTerms {
    pub limit: u32,
    pub pace: Option<pace::Terms>,
    pub circuit: circuit::Terms,
    pub max_cooldown: Duration,
    pub slow_start: Option<Duration>,
}

/// What is alive of one: `src/upstream/state.rs`.
pub struct Provider {
    pub terms: ProviderTerms,
    pub in_flight: u32,
    pub circuit: Circuit,
    pub cooldown: Cooldown,
    pace: Pace,
    latency: PeakEwma,
    slow_since: Option<Instant>,
    /// Pools in which somebody waits that have it as a member.
    wanted: u32,
}

/// What a file says of a pool.
pub struct PoolTerms {
    pub members: Vec<Member>,
    pub balance: Balance,
    pub by_latency: bool,
    pub queue: queue::Terms,
    pub timeout: Duration,
    pub ratio: f64,
    pub min_per_second: f64,
}

#[derive(Clone, Copy, Debug)]
pub struct Member {
    pub provider: usize,
    pub weight: u32,
    pub backup: bool,
}

/// What is alive of one: `src/upstream/pool.rs`, `line.rs` and `spending.rs`.
pub struct Pool {
    pub terms: PoolTerms,
    pub queue: Queue<Wish>,
    /// Its members know that somebody waits.
    wanting: bool,
    alarm: Option<Instant>,
    judged: Option<Outlook>,
    requests: u64,
    budget: Option<Budget>,
}

/// What a waiter wants, beside what the queue knows.
pub struct Wish {
    pub request: usize,
    key: Option<u64>,
    tried: Vec<usize>,
    risky: bool,
    until: Instant,
}

/// What a request asks of a pool.
pub struct Ask<'a> {
    pub request: usize,
    pub waiter: Waiter,
    pub key: Option<u64>,
    pub tried: &'a [usize],
    pub risky: bool,
    pub deadline: Instant,
    /// It queues where nobody has room.
    pub waits: bool,
}

pub enum Leasing {
    Now(Grant),
    Waits(Ticket, Instant),
    Full,
    NoProvider,
    Busy,
}

/// A place at a provider, to be given back.
pub struct Grant {
    pub provider: usize,
    pub permit: Permit,
}

/// How an attempt ended.
pub struct Report {
    pub verdict: Verdict,
    pub head_after: Option<Duration>,
    #[expect(clippy::option_option, reason = "as in the gateway: asked to wait or not, with a hint or without")]
    pub cooldown: Option<Option<Duration>>,
}

pub enum News {
    /// It waits.
    Joined(usize, Waiter),
    /// It had its turn, and has a provider.
    Granted(usize, Waiter, Grant),
    /// A more urgent one has its place.
    Displaced(usize, Waiter),
    /// Nobody will have room for it in time.
    Hopeless(usize, Waiter),
    /// This pool is to be looked after at that instant.
    Alarm(usize, Instant),
}

/// What keeps a provider from being leased.
enum Prospect {
    Ready,
    Full,
    Rested(Instant),
    Probe(Instant),
    Told(Instant),
}

/// What there is to wait for.
#[derive(Clone, Copy, PartialEq, Default)]
struct Outlook {
    in_service: bool,
    soonest: Option<Instant>,
    alarm: Option<Instant>,
}

/// The members as one request meets them.
struct View<'a> {
    providers: &'a [Provider],
    pool: &'a PoolTerms,
    tried: &'a [usize],
    spared: bool,
    queued: bool,
    now: Instant,
}

// === impl Gateway ===

impl Gateway {
    pub fn new(providers: Vec<ProviderTerms>, pools: Vec<PoolTerms>, now: Instant) -> Self {
        let provider = |terms: ProviderTerms| Provider {
            in_flight: 0,
            circuit: Circuit::new(terms.circuit, now),
            cooldown: Cooldown::new(now),
            pace: Pace::new(terms.pace, now),
            latency: PeakEwma::new(now),
            slow_since: None,
            wanted: 0,
            terms,
        };
        let pool = |terms: PoolTerms| Pool {
            queue: Queue::new(terms.queue),
            terms,
            wanting: false,
            alarm: None,
            judged: None,
            requests: 0,
            budget: None,
        };
        Gateway {
            providers: providers.into_iter().map(provider).collect(),
            pools: pools.into_iter().map(pool).collect(),
            news: VecDeque::new(),
            turn: 0,
        }
    }

    /// A request came.
    pub fn came(&mut self, pool: usize) {
        self.pools[pool].requests += 1;
    }

    /// Takes one retry from the budget, if it can be afforded.
    pub fn may_retry(&mut self, pool: usize, now: Instant) -> bool {
        let Pool { terms: PoolTerms { ratio, min_per_second, .. }, requests, budget, .. } = &mut self.pools[pool];
        let budget = budget.get_or_insert_with(|| Budget::new(*requests, *min_per_second, now));
        budget.withdraw(*requests, *ratio, *min_per_second, now)
    }

    /// Whether somebody that is not in `tried` is in service.
    pub fn has_untried(&self, pool: usize, tried: &[usize], now: Instant) -> bool {
        let mut untried = self.pools[pool].terms.members.iter().filter(|member| !tried.contains(&member.provider));
        untried.any(|member| matches!(self.providers[member.provider].prospect(now), Prospect::Ready | Prospect::Full))
    }

    /// A provider that has room, or a place in the queue.
    pub fn lease(&mut self, pool: usize, ask: &Ask<'_>, rng: &mut Rng, now: Instant) -> Leasing {
        if self.pools[pool].queue.is_empty()
            && let Some(grant) = self.take(pool, (ask.key, ask.tried, ask.risky), false, rng, now)
        {
            return Leasing::Now(grant);
        }
        let outlook = self.outlook(pool, now);
        let until = ask.deadline.min(now + self.pools[pool].terms.timeout);
        if !outlook.serves(until) {
            return Leasing::NoProvider;
        }
        if !ask.waits {
            return Leasing::Busy;
        }
        let Ask { request, key, risky, .. } = *ask;
        let wish = Wish { request, key, tried: ask.tried.to_vec(), risky, until };
        let ticket = match self.pools[pool].queue.offer(ask.waiter, wish) {
            Offered::Full(_) => return Leasing::Full,
            Offered::Placed(ticket) => {
                self.news.push_back(News::Joined(request, ask.waiter));
                ticket
            }
            Offered::PlacedFor(ticket, Evicted { waiter, item }) => {
                self.news.push_back(News::Joined(request, ask.waiter));
                self.news.push_back(News::Displaced(item.request, waiter));
                ticket
            }
        };
        // Where others wait already there was nothing for them: whoever makes room looks after all.
        if !self.pools[pool].wanting {
            self.dispatch(pool, rng, now);
        }
        Leasing::Waits(ticket, until)
    }

    /// Takes who waits no longer out of the queue.
    pub fn leave(&mut self, pool: usize, ticket: Ticket) {
        let left = self.pools[pool].queue.remove(ticket);
        assert!(left.is_some(), "who waits is in the queue");
        assert!(self.pools[pool].queue.remove(ticket).is_none(), "nobody leaves twice");
        self.settle(pool);
    }

    /// Gives a lease back. How the circuit stands after the report, before anybody else uses the place.
    pub fn finish(&mut self, grant: Grant, report: &Report, rng: &mut Rng, now: Instant) -> State {
        let number = grant.provider;
        let provider = &mut self.providers[number];
        if report.verdict == Verdict::Success {
            provider.cooldown.succeeded(now);
            if let Some(head_after) = report.head_after {
                provider.latency.observe(head_after, now);
            }
        }
        if let Some(hint) = report.cooldown {
            provider.cooldown.rejected(hint, provider.terms.max_cooldown, now);
        }
        let probe = grant.permit.is_probe();
        provider.circuit.report(grant.permit, report.verdict, now, rng.f64());
        if probe && provider.circuit.peek(now) == Peek::Closed {
            provider.slow_since = Some(now);
        }
        let state = provider.circuit.state();
        provider.in_flight -= 1;
        if provider.wanted > 0 {
            self.turn += 1;
            for step in 0..self.pools.len() {
                let pool = (self.turn + step) % self.pools.len();
                if self.pools[pool].terms.members.iter().any(|member| member.provider == number) {
                    self.dispatch(pool, rng, now);
                }
            }
        }
        state
    }

    /// The alarm of a pool.
    pub fn ring(&mut self, pool: usize, rng: &mut Rng, now: Instant) {
        self.pools[pool].alarm.take_if(|at| *at <= now);
        self.dispatch(pool, rng, now);
    }

    /// Somebody whose turn it is could be served now, and is not.
    pub fn is_stuck(&self, pool: usize, now: Instant) -> bool {
        let Pool { queue, terms, .. } = &self.pools[pool];
        let is_open = |member: &Member| self.providers[member.provider].open_to(true, now).is_some();
        !queue.is_empty() && terms.members.iter().any(is_open)
    }

    fn dispatch(&mut self, pool: usize, rng: &mut Rng, now: Instant) {
        self.settle(pool);
        while let Some((waiter, wish)) = self.pools[pool].queue.peek() {
            let (next, waiter, tried) = (wish.request, *waiter, wish.tried.clone());
            let Some(grant) = self.take(pool, (wish.key, &tried, wish.risky), true, rng, now) else { break };
            let (taken, wish) = self.pools[pool].queue.take().expect("somebody's turn");
            assert!(taken == waiter && wish.request == next, "whose turn it is does not depend on who asks");
            self.news.push_back(News::Granted(wish.request, waiter, grant));
            self.settle(pool);
        }
        if self.pools[pool].wanting {
            self.look_ahead(pool, now);
        }
    }

    fn settle(&mut self, pool: usize) {
        let Pool { queue, wanting, terms, .. } = &mut self.pools[pool];
        if *wanting == queue.is_empty() {
            *wanting = !*wanting;
            for member in &terms.members {
                let wanted = &mut self.providers[member.provider].wanted;
                if *wanting { *wanted += 1 } else { *wanted -= 1 }
            }
        }
    }

    /// Arms the alarm for what only time will bring, and sends those away for whom nothing comes in time.
    fn look_ahead(&mut self, number: usize, now: Instant) {
        let outlook = self.outlook(number, now);
        let pool = &mut self.pools[number];
        if let Some(at) = outlook.alarm.filter(|at| pool.alarm.is_none_or(|armed| armed > *at)) {
            pool.alarm = Some(at);
            self.news.push_back(News::Alarm(number, at));
        }
        let judgement = (!outlook.in_service).then_some(outlook);
        if std::mem::replace(&mut pool.judged, judgement) != judgement && judgement.is_some() {
            let hopeless = |(ticket, waiter, wish): (Ticket, &Waiter, &Wish)| {
                (!outlook.serves(wish.until)).then_some((ticket, *waiter, wish.request))
            };
            let leaving: Vec<_> = pool.queue.iter().filter_map(hopeless).collect();
            for (ticket, waiter, request) in leaving {
                self.leave(number, ticket);
                self.news.push_back(News::Hopeless(request, waiter));
            }
        }
    }

    fn take(
        &mut self,
        pool: usize,
        (key, tried, risky): (Option<u64>, &[usize], bool),
        queued: bool,
        rng: &mut Rng,
        now: Instant,
    ) -> Option<Grant> {
        let spared = risky && rng.u8(..) >= RISKY_PROBES;
        let terms = &self.pools[pool].terms;
        let view = View { providers: &self.providers, pool: terms, tried, spared, queued, now };
        let index = terms.balance.choose(&view, key, rng.u64(..))?;
        let number = terms.members[index].provider;
        let provider = &mut self.providers[number];
        let permit = provider.circuit.admit(now).expect("a circuit lets through what it said it would");
        provider.pace.take(now).expect("a pace lets go what it said it would");
        provider.in_flight += 1;
        Some(Grant { provider: number, permit })
    }

    fn outlook(&self, pool: usize, now: Instant) -> Outlook {
        let mut outlook = Outlook::default();
        for member in &self.pools[pool].terms.members {
            let (at, alarm) = match self.providers[member.provider].prospect(now) {
                Prospect::Ready | Prospect::Full => {
                    outlook.in_service = true;
                    continue;
                }
                Prospect::Rested(at) | Prospect::Probe(at) => (at, true),
                Prospect::Told(at) => (at, false),
            };
            let sooner = |one: Option<Instant>| Some(one.map_or(at, |one| one.min(at)));
            outlook.soonest = sooner(outlook.soonest);
            outlook.alarm = if alarm { sooner(outlook.alarm) } else { outlook.alarm };
        }
        outlook
    }
}

// === impl Provider ===

impl Provider {
    /// Whether it could be leased now: how many it has, and whether it would be a probe.
    fn open_to(&self, queued: bool, now: Instant) -> Option<(u32, bool)> {
        if self.cooldown.until(now).is_some() || self.in_flight >= self.terms.limit || (self.wanted > 0 && !queued) {
            return None;
        }
        let probe = match self.circuit.peek(now) {
            Peek::Closed => false,
            Peek::HalfOpenWithRoom => true,
            Peek::Until(_) | Peek::Busy | Peek::Forced => return None,
        };
        self.pace.peek(now).ok().map(|()| (self.in_flight, probe))
    }

    fn prospect(&self, now: Instant) -> Prospect {
        let rested = self.cooldown.until(now).unwrap_or(now).max(self.pace.peek(now).err().unwrap_or(now));
        let full = self.in_flight >= self.terms.limit;
        match self.circuit.peek(now) {
            Peek::Forced | Peek::Busy => Prospect::Told(rested),
            Peek::Until(at) => Prospect::Probe(at.max(rested)),
            Peek::HalfOpenWithRoom if rested > now => Prospect::Probe(rested),
            Peek::Closed if rested > now => Prospect::Rested(rested),
            Peek::HalfOpenWithRoom if full => Prospect::Told(now),
            Peek::Closed if full => Prospect::Full,
            Peek::HalfOpenWithRoom | Peek::Closed => Prospect::Ready,
        }
    }
}

// === impl Outlook ===

impl Outlook {
    fn serves(&self, until: Instant) -> bool {
        self.in_service || self.soonest.is_some_and(|at| at < until)
    }
}

// === impl View ===

impl Field for View<'_> {
    fn len(&self) -> usize {
        self.pool.members.len()
    }

    fn look(&self, index: usize) -> Option<Look> {
        let Member { provider: number, weight, backup } = self.pool.members[index];
        let provider = &self.providers[number];
        let (in_flight, probe) = provider.open_to(self.queued, self.now)?;
        let warmth = match (provider.terms.slow_start, provider.slow_since) {
            (Some(over), Some(since)) => slow_start(since, self.now, over),
            _ => 1.0,
        };
        let tried = self.tried.contains(&number);
        let probes = probe && (self.spared || !self.tried.is_empty());
        Some(Look {
            in_flight,
            weight: f64::from(weight) * warmth,
            latency: if self.pool.by_latency { provider.latency.value(self.now) } else { 0.0 },
            lean: u8::from(backup) | u8::from(tried) << 1 | u8::from(probes) << 2,
        })
    }
}

/// Of 256 requests that may not be sent twice, so many may be probes all the same.
const RISKY_PROBES: u8 = 4;
