//! What must always hold, kept apart from the rooms it is about: everything here is counted anew from what is seen to happen.

use super::gateway::{Gateway, PoolTerms, ProviderTerms, Report};
use sluice::instant::Instant;
use sluice::policy::circuit::{State, Verdict};
use sluice::policy::class::Class;
use sluice::policy::pace;
use sluice::policy::queue::Waiter;
use std::collections::HashMap;
use std::time::Duration;

/// What was seen of everybody.
pub struct Laws {
    providers: Vec<Seen>,
    pools: Vec<Line>,
}

/// What was seen of one provider.
struct Seen {
    terms: ProviderTerms,
    /// Leases given and not given back.
    out: u32,
    /// How often its circuit changed its state, and the state since.
    stay: u64,
    state: State,
    since: Instant,
    /// Of this stay: failures in a row, all failures and successes, probes that are out.
    row: u32,
    failures: u64,
    successes: u64,
    probes: u32,
    /// How often the wait of its circuit has doubled, and when the wait is over at the soonest.
    doubled: u32,
    closed_until: Instant,
    /// Its cooldown.
    rests_until: Instant,
    /// Attempts that its pace would let go.
    tokens: f64,
    tokens_at: Instant,
}

/// What was seen of one pool's queue and budget.
struct Line {
    start: Instant,
    weights: [u32; 3],
    capacity: usize,
    not_high: usize,
    ratio: f64,
    min_per_second: f64,
    /// By class and client, how many wait.
    waiting: HashMap<(Class, u32), usize>,
    depths: [usize; 3],
    /// Turns of others since each class that waits had one, or came.
    passed: [u64; 3],
    /// A client that waits, and the turns of others of its class since it came or had one.
    watched: Option<(Waiter, HashMap<u32, u64>)>,
    requests: u64,
    retries: u64,
    /// Requests of about the last ten seconds: each is worth e^(-age / 10 s).
    recent: f64,
    recent_at: Instant,
    /// Retries there may have been at an instant in the future, at most: set when all providers have recovered.
    storm: Option<(Instant, f64)>,
}

/// What an attempt has to show when it ends.
#[derive(Clone, Copy)]
pub struct Attempt {
    stay: u64,
    probe: bool,
}

// === impl Laws ===

impl Laws {
    pub fn new(providers: &[ProviderTerms], pools: &[PoolTerms], now: Instant) -> Self {
        let seen = |terms: &ProviderTerms| Seen {
            terms: *terms,
            out: 0,
            stay: 0,
            state: State::Closed,
            since: now,
            row: 0,
            failures: 0,
            successes: 0,
            probes: 0,
            doubled: 0,
            closed_until: now,
            rests_until: now,
            tokens: most_tokens(terms),
            tokens_at: now,
        };
        let line = |terms: &PoolTerms| Line {
            start: now,
            weights: terms.queue.weights,
            capacity: terms.queue.capacity,
            not_high: terms.queue.capacity - (terms.queue.capacity as f64 * terms.queue.reserve_high) as usize,
            ratio: terms.ratio,
            min_per_second: terms.min_per_second,
            waiting: HashMap::new(),
            depths: [0; 3],
            passed: [0; 3],
            watched: None,
            requests: 0,
            retries: 0,
            recent: 0.0,
            recent_at: now,
            storm: None,
        };
        Laws { providers: providers.iter().map(seen).collect(), pools: pools.iter().map(line).collect() }
    }

    /// A request came to this pool.
    pub fn came(&mut self, pool: usize, now: Instant) {
        let line = &mut self.pools[pool];
        line.requests += 1;
        line.recent = line.recent(now) + 1.0;
        line.recent_at = now;
    }

    /// The budget allowed a retry.
    pub fn retried(&mut self, pool: usize, now: Instant) {
        let line = &mut self.pools[pool];
        line.retries += 1;
        let seconds = now.duration_since(line.start).as_secs_f64();
        let most = line.ratio * line.requests as f64 + line.min_per_second * (seconds + KEPT);
        assert!(line.retries as f64 <= most + SLACK, "{} retries where {most} are allowed", line.retries);
        if let Some((_, most)) = line.storm.filter(|(until, _)| now <= *until) {
            let most = most + line.ratio * line.requests as f64;
            assert!(line.retries as f64 <= most + SLACK, "a storm: {} retries instead of {most}", line.retries);
        }
    }

    /// Everybody is well from now on: what the first second may bring is what the budget had saved up.
    pub fn recover(&mut self, now: Instant) {
        for line in &mut self.pools {
            let saved = line.ratio * STORM * line.recent(now) + line.min_per_second * KEPT;
            let most = line.retries as f64 + saved + line.min_per_second - line.ratio * line.requests as f64;
            line.storm = Some((now + Duration::from_secs(1), most));
        }
    }

    /// It waits.
    pub fn joined(&mut self, pool: usize, waiter: &Waiter) {
        let line = &mut self.pools[pool];
        let (class, waiting) = (waiter.class, line.waiting.entry((waiter.class, waiter.client)).or_default());
        *waiting += 1;
        line.depths[class.index()] += 1;
        if line.depths[class.index()] == 1 {
            line.passed[class.index()] = 0;
        }
        if *waiting == 1 && line.watched.is_none() {
            line.watched = Some((*waiter, HashMap::new()));
        }
    }

    /// It waits no longer, and did not have a turn.
    pub fn left(&mut self, pool: usize, waiter: &Waiter) {
        let line = &mut self.pools[pool];
        line.depths[waiter.class.index()] -= 1;
        let waiting = line.waiting.get_mut(&(waiter.class, waiter.client)).expect("it waited");
        *waiting -= 1;
        if *waiting == 0 {
            line.waiting.remove(&(waiter.class, waiter.client));
            line.watched.take_if(|(watched, _)| (watched.class, watched.client) == (waiter.class, waiter.client));
        }
    }

    /// It had its turn: nobody starves (the bound is in `src/policy/queue.rs`).
    pub fn had_a_turn(&mut self, pool: usize, waiter: &Waiter) {
        self.left(pool, waiter);
        let line = &mut self.pools[pool];
        for class in Class::ALL.into_iter().filter(|class| line.depths[class.index()] > 0) {
            let passed = &mut line.passed[class.index()];
            *passed = if class == waiter.class { 0 } else { *passed + 1 };
            let weight = |class: Class| u64::from(line.weights[class.index()]);
            let others = Class::ALL.into_iter().filter(|other| *other != class);
            let bound = others.map(|other| weight(other) / weight(class) + 1).sum();
            assert!(*passed <= bound, "{class:?} let {passed} others go before it, not {bound}");
        }
        let Some((watched, turns)) = line.watched.as_mut().filter(|(watched, _)| watched.class == waiter.class) else {
            return;
        };
        if watched.client == waiter.client {
            line.watched = None;
            return;
        }
        let turns = turns.entry(waiter.client).or_default();
        *turns += 1;
        let bound = u64::from(waiter.share / watched.share) + 1;
        assert!(*turns <= bound, "client {} let {turns} of {} go before it", watched.client, waiter.client);
    }

    /// An attempt begins: there is room, the circuit lets it through, the pace and the cooldown too.
    pub fn began(&mut self, provider: usize, probe: bool, state: State, now: Instant) -> Attempt {
        let seen = &mut self.providers[provider];
        seen.out += 1;
        assert!(seen.out <= seen.terms.limit, "{} attempts at once at provider {provider}", seen.out);
        assert!(now >= seen.rests_until, "provider {provider} is to be left alone");
        if state != seen.state {
            assert_eq!((seen.state, state), (State::Open, State::HalfOpen), "only a wait ends by an attempt");
            assert!(now >= seen.closed_until, "provider {provider} is probed too early");
            seen.enter(state, now);
        }
        match state {
            State::Open => panic!("an attempt at provider {provider} while its circuit is open"),
            State::Closed => assert!(!probe),
            State::HalfOpen => {
                assert!(probe);
                seen.probes += 1;
                assert!(seen.probes <= seen.terms.circuit.half_open_requests, "{} probes at once", seen.probes);
            }
        }
        if let Some(pace) = seen.terms.pace {
            let passed = now.duration_since(seen.tokens_at).as_secs_f64();
            let tokens = seen.tokens + passed * per_second(&pace);
            seen.tokens = tokens.min(most_tokens(&seen.terms)) - 1.0;
            seen.tokens_at = now;
            assert!(seen.tokens > -1e-3, "provider {provider} gets more than its rate");
        }
        Attempt { stay: seen.stay, probe }
    }

    /// An attempt ended; how the circuit of its provider stands now, and until when that is left alone.
    pub fn ended(
        &mut self,
        provider: usize,
        attempt: Attempt,
        report: &Report,
        (state, rests_until): (State, Option<Instant>),
        now: Instant,
    ) {
        let seen = &mut self.providers[provider];
        seen.out -= 1;
        if let Some(hint) = report.cooldown {
            let until = rests_until.unwrap_or(now);
            assert!(until >= seen.rests_until, "a cooldown of provider {provider} shortened");
            let hint = hint.filter(|hint| !hint.is_zero());
            let asked = hint.or_else(|| (seen.rests_until <= now).then_some(Duration::from_secs(1)));
            let asked = now + asked.unwrap_or_default().min(seen.terms.max_cooldown);
            assert!(until >= asked, "provider {provider} asked for more");
            assert!(
                until <= seen.rests_until.max(now + seen.terms.max_cooldown + MICROSECOND),
                "a wait beyond the cap"
            );
            seen.rests_until = until;
        }
        seen.judge(attempt, report.verdict, state, now);
    }

    /// Whether every circuit of these is closed.
    pub fn all_closed(&self, mut providers: impl Iterator<Item = usize>) -> bool {
        providers.all(|provider| self.providers[provider].state == State::Closed)
    }

    /// What can be seen at any time.
    pub fn check(&self, gateway: &Gateway) {
        for (seen, live) in self.providers.iter().zip(&gateway.providers) {
            assert_eq!(seen.out, live.in_flight, "leases and returns");
            assert_eq!(seen.state, live.circuit.state(), "a circuit changes only by attempts");
        }
        for (line, pool) in self.pools.iter().zip(&gateway.pools) {
            let depths = Class::ALL.map(|class| pool.queue.depth(class));
            assert_eq!(line.depths, depths);
            assert!(depths.iter().sum::<usize>() <= line.capacity, "more wait than there are places");
            assert!(depths[1] + depths[2] <= line.not_high, "the places of `high` are taken");
        }
    }

    /// Nothing is left at the end.
    pub fn check_end(&self) {
        assert!(self.providers.iter().all(|seen| seen.out == 0), "leases were not given back");
        assert!(self.pools.iter().all(|line| line.waiting.is_empty()), "somebody waits for ever");
    }
}

// === impl Seen ===

impl Seen {
    fn judge(&mut self, attempt: Attempt, verdict: Verdict, state: State, now: Instant) {
        if attempt.stay != self.stay {
            assert_eq!(state, self.state, "a late report counts for nothing");
            return;
        }
        self.probes -= u32::from(attempt.probe);
        match verdict {
            Verdict::Success => {
                self.successes += 1;
                self.row = 0;
            }
            Verdict::Failure(_) => {
                self.failures += 1;
                self.row += 1;
            }
            Verdict::Uncounted => {}
        }
        let (terms, failed) = (self.terms.circuit, matches!(verdict, Verdict::Failure(_)));
        if self.state == State::HalfOpen {
            let probed = verdict == Verdict::Success && self.successes >= u64::from(terms.success_threshold);
            let expected = match () {
                () if failed => State::Open,
                () if probed => State::Closed,
                () => State::HalfOpen,
            };
            assert_eq!(state, expected, "a probe decides");
        } else if state == State::Open {
            let of = self.failures + self.successes;
            let rate = of >= u64::from(terms.minimum_requests)
                && self.failures as f64 >= terms.failure_rate * f64::from(terms.minimum_requests);
            assert!(failed && (self.row >= terms.failure_threshold || rate), "a circuit opened for nothing");
        } else {
            assert!(!failed || self.row < terms.failure_threshold, "{} failures in a row", self.row);
        }
        if state != self.state {
            self.enter(state, now);
        }
    }

    fn enter(&mut self, state: State, now: Instant) {
        let terms = &self.terms.circuit;
        if state == State::Open {
            if self.state == State::HalfOpen {
                self.doubled = (self.doubled + 1).min(20);
            } else if now.duration_since(self.since) >= terms.window {
                self.doubled = 0;
            }
            let wait = terms.recovery_timeout * (1 << self.doubled);
            self.closed_until = now + wait.min(terms.max_recovery_timeout).mul_f64(0.9);
        }
        self.stay += 1;
        (self.state, self.since) = (state, now);
        (self.row, self.failures, self.successes, self.probes) = (0, 0, 0, 0);
    }
}

// === impl Line ===

impl Line {
    fn recent(&self, now: Instant) -> f64 {
        self.recent * (-now.duration_since(self.recent_at).as_secs_f64() / KEPT).exp()
    }
}

fn per_second(pace: &pace::Terms) -> f64 {
    f64::from(pace.count) / pace.per.as_secs_f64()
}

/// What may go at once after a pause.
fn most_tokens(terms: &ProviderTerms) -> f64 {
    terms.pace.map_or(0.0, |pace| f64::from(pace.burst) + pace::LATE.as_secs_f64() * per_second(&pace))
}

/// For how long a budget keeps its tokens, in seconds.
const KEPT: f64 = 10.0;
/// A budget takes requests to have come evenly since it was last asked, which may make more of them than they are worth.
const STORM: f64 = 2.0;
/// For sums of fractions.
const SLACK: f64 = 1e-3;
/// What a cooldown is rounded up to.
const MICROSECOND: Duration = Duration::from_micros(1);
