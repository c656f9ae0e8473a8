//! Thousands of clients, a gateway, and providers that misbehave until they all recover: a heap of events in simulated time.

use super::gateway::{Ask, Gateway, Grant, Leasing, Member, News, PoolTerms, ProviderTerms, Report};
use super::laws::{Attempt, Laws};
use super::outside::{Fate, Outside, WALL, Weather};
use super::story::{Story, Word};
use fastrand::Rng;
use sluice::clock;
use sluice::instant::Instant;
use sluice::policy::balance::{Algorithm, Balance};
use sluice::policy::circuit::{self, State, Verdict};
use sluice::policy::class::Class;
use sluice::policy::cooldown;
use sluice::policy::pace;
use sluice::policy::queue::{self, Ticket, Waiter};
use sluice::policy::retry::{self, Again, Backoff, Conditions, Ended, Jitter, Methods, Skip, So};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// One world.
pub struct World<'a> {
    rng: Rng,
    story: &'a mut Story,
    start: Instant,
    now: Instant,
    /// What will happen, in the order in which it will.
    events: BTreeMap<(Instant, u64), Event>,
    scheduled: u64,
    terms: Terms,
    clients: Vec<Client>,
    outside: Vec<Outside>,
    gateway: Gateway,
    laws: Laws,
    requests: Vec<Request>,
    open: usize,
    /// How fast clients ask now, in proportion to what is usual.
    mood: f64,
    /// The weather changes no more, but for the recovery.
    settled: bool,
    /// Attempts that may begin in the first second after the recovery.
    allowed: Option<(Instant, usize)>,
    /// What was seen in it.
    pub seen: BTreeMap<&'static str, u64>,
}

/// What holds for the whole of a world.
struct Terms {
    retry: retry::Policy,
    attempt_timeout: Duration,
    timeout: Duration,
    /// Requests a second, usually.
    rate: f64,
    /// Requests until everybody recovers.
    requests: usize,
    /// Bad weather that comes and goes, of one and of all.
    weather: Duration,
    outage: Duration,
}

struct Client {
    share: u32,
    class: Class,
}

/// One request on its way.
struct Request {
    pool: usize,
    client: u32,
    class: Class,
    method: &'static str,
    keyed: bool,
    /// Its body is kept, to be sent again.
    whole: bool,
    deadline: Instant,
    made: u32,
    tried: Vec<usize>,
    /// It may not be sent again, as far as those outside can tell.
    spent: bool,
    phase: Phase,
    /// How many phases it has had: what was scheduled in an earlier one means nothing.
    turn: u32,
}

enum Phase {
    New,
    Waiting(Ticket, Waiter),
    Pausing,
    Attempting(Under),
    Over,
}

/// An attempt that is under way.
struct Under {
    grant: Grant,
    attempt: Attempt,
    fate: Fate,
    since: Instant,
}

#[derive(Clone, Copy)]
enum Event {
    /// Somebody asks.
    Asks,
    /// Clients become more or less eager.
    Mood,
    /// A client hangs up.
    Leaves(usize),
    /// An attempt is over, a pause, a wait.
    Attempted(usize, u32),
    Paused(usize, u32),
    Waited(usize, u32),
    /// A pool is to be looked after.
    Alarm(usize),
    /// The weather of a provider changes.
    Weather(usize),
    /// Everybody is down; is back; is down until the recovery; is well for good.
    Outage,
    Back,
    Collapse,
    Recovery,
}

/// What there is to see.
pub const SIGHTS: [&str; 27] = [
    "answer",
    "429 passed on",
    "5xx passed on",
    "client left waiting",
    "client left pausing",
    "client left an attempt",
    "queue full",
    "queue timeout",
    "no provider",
    "pushed out",
    "hopeless",
    "deadline",
    "failed",
    "nobody else",
    "retry",
    "not_retryable",
    "attempts",
    "method",
    "body",
    "budget",
    "probe",
    "circuit opened",
    "circuit closed",
    "cooldown",
    "queued and served",
    "another at once",
    "pause",
];

// === impl World ===

impl<'a> World<'a> {
    /// Lives a world to its end.
    pub fn run(seed: u64, story: &'a mut Story) -> Self {
        let mut world = World::new(Rng::with_seed(seed), story);
        while let Some(((at, _), event)) = world.events.pop_first() {
            assert!(at >= world.now, "time does not go back");
            world.now = at;
            world.happen(event);
            world.check();
        }
        assert_eq!(world.open, 0, "every request ends");
        world.laws.check_end();
        world
    }

    fn new(mut rng: Rng, story: &'a mut Story) -> Self {
        let start = clock::now();
        let rng = &mut rng;
        let (terms, providers, pools, outside) = any_terms(rng, start);
        let count = if rng.u8(..10) == 0 { rng.usize(1_000..5_000) } else { rng.usize(1..200) };
        let client = |_| Client { share: rng.u32(1..5), class: rng.choice(Class::ALL).expect("a class") };
        let clients = (0..count).map(client).collect();
        let laws = Laws::new(&providers, &pools, start);
        let mut world = World {
            story,
            start,
            now: start,
            events: BTreeMap::new(),
            scheduled: 0,
            clients,
            outside,
            gateway: Gateway::new(providers, pools, start),
            laws,
            requests: Vec::new(),
            open: 0,
            mood: 1.0,
            settled: false,
            allowed: None,
            terms,
            seen: BTreeMap::new(),
            rng: rng.fork(),
        };
        world.after(Duration::ZERO, Event::Asks);
        world.after(Duration::ZERO, Event::Mood);
        let outage = world.some(world.terms.outage);
        world.after(outage, Event::Outage);
        for provider in 0..world.outside.len() {
            let soon = world.some(world.terms.weather);
            world.after(soon, Event::Weather(provider));
        }
        world
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Asks => self.ask(),
            Event::Leaves(request) => self.leave(request),
            Event::Attempted(request, turn) if self.is_in(request, turn) => self.attempted(request, false),
            Event::Paused(request, turn) if self.is_in(request, turn) => self.queue(request),
            Event::Waited(request, turn) if self.is_in(request, turn) => {
                self.stop_waiting(request);
                self.end(request, "queue timeout");
            }
            Event::Attempted(..) | Event::Paused(..) | Event::Waited(..) => {}
            Event::Mood | Event::Weather(_) | Event::Outage | Event::Back if self.settled => {}
            Event::Alarm(pool) => {
                self.gateway.ring(pool, &mut self.rng, self.now);
                self.hear();
            }
            Event::Mood => {
                self.mood = if self.rng.u8(..3) == 0 { self.rng.f64() * 5.0 + 0.1 } else { 1.0 };
                let soon = self.some(self.terms.weather);
                self.after(soon, Event::Mood);
            }
            Event::Weather(provider) => {
                let weather = if self.rng.u8(..5) < 3 { Weather::Well } else { Weather::any(&mut self.rng) };
                self.turn(provider, weather);
                let soon = self.some(self.terms.weather);
                self.after(soon, Event::Weather(provider));
            }
            Event::Outage => {
                let weather = Weather::any(&mut self.rng);
                (0..self.outside.len()).for_each(|provider| self.turn(provider, weather));
                let soon = self.some(Duration::from_secs(3));
                self.after(soon, Event::Back);
            }
            Event::Back => {
                (0..self.outside.len()).for_each(|provider| self.turn(provider, Weather::Well));
                let soon = self.some(self.terms.outage);
                self.after(soon, Event::Outage);
            }
            Event::Collapse => {
                let weather = Weather::any(&mut self.rng);
                (0..self.outside.len()).for_each(|provider| self.turn(provider, weather));
                self.settled = true;
            }
            Event::Recovery => {
                (0..self.outside.len()).for_each(|provider| self.turn(provider, Weather::Well));
                (self.settled, self.mood) = (true, 1.0);
                self.laws.recover(self.now);
                let is_due = |that: &&Request| matches!(that.phase, Phase::Waiting(..) | Phase::Pausing);
                let due = self.requests.iter().filter(is_due).count();
                self.allowed = Some((self.now + SECOND, due));
            }
        }
    }

    /// In the first second after the recovery nothing begins but what waits, what comes, and what the budget allows.
    fn allow(&mut self) {
        if let Some((_, allowed)) = self.allowed.as_mut() {
            *allowed += 1;
        }
    }

    fn is_no_storm(&mut self) {
        if let Some((_, allowed)) = self.allowed.as_mut().filter(|(until, _)| *until >= self.now) {
            *allowed = allowed.checked_sub(1).expect("a storm: more attempts than anybody asked for");
        }
    }

    /// Somebody asks, and somebody else will.
    fn ask(&mut self) {
        let collapse = self.terms.requests - self.terms.requests / 5;
        if self.requests.len() == self.terms.requests {
            self.happen(Event::Recovery);
        } else if self.requests.len() == collapse && self.rng.bool() {
            self.happen(Event::Collapse);
        }
        self.allow();
        let client = self.rng.u32(..self.clients.len() as u32);
        let Client { class, .. } = self.clients[client as usize];
        let method = self.rng.choice(["GET", "GET", "GET", "PUT", "POST", "POST"]).expect("a method");
        let request = self.requests.len();
        let pool = self.rng.usize(..self.gateway.pools.len());
        self.requests.push(Request {
            pool,
            client,
            class: if self.rng.u8(..4) == 0 { Class::Normal.max(class) } else { class },
            method,
            keyed: self.rng.u8(..4) == 0,
            whole: self.rng.u8(..10) != 0,
            deadline: self.now + self.terms.timeout,
            made: 0,
            tried: Vec::new(),
            spent: false,
            phase: Phase::New,
            turn: 0,
        });
        self.open += 1;
        self.gateway.came(pool);
        self.laws.came(pool, self.now);
        self.note("request {} comes to pool {}", [request.into(), pool.into(), Word::Nothing]);
        if self.rng.u8(..8) == 0 {
            let patience = self.some(self.terms.timeout / 2);
            self.after(patience, Event::Leaves(request));
        }
        self.queue(request);
        if self.goes_on() {
            let gap = -self.rng.f64().max(1e-9).ln() / (self.terms.rate * self.mood);
            self.after(Duration::from_secs_f64(gap), Event::Asks);
        }
    }

    /// Somebody asks until everybody has recovered and every circuit has closed.
    fn goes_on(&self) -> bool {
        let calm = self.requests.len().saturating_sub(self.terms.requests);
        let members = self.gateway.pools.iter().flat_map(|pool| &pool.terms.members);
        // A backup is not asked while the others are well.
        let asked = members.filter(|member| !member.backup).map(|member| member.provider);
        let all_closed = self.laws.all_closed(asked);
        let since = self.allowed.map_or(Duration::ZERO, |(second, _)| (self.now + SECOND).duration_since(second));
        assert!(all_closed || since < CALM_MOST, "all have been well for {since:?}, and a circuit is not closed");
        calm < CALM_LEAST || since < SECOND || !all_closed
    }

    /// A first try, or another one after a pause.
    fn queue(&mut self, request: usize) {
        match self.lease(request, true) {
            Leasing::Now(grant) => self.begin(request, grant),
            Leasing::Waits(ticket, until) => {
                let waiter = self.waiter(request);
                self.requests[request].phase = Phase::Waiting(ticket, waiter);
                let turn = self.next(request);
                self.at(until, Event::Waited(request, turn));
                self.note("request {} waits", [request.into(), Word::Nothing, Word::Nothing]);
            }
            Leasing::Full => self.end(request, "queue full"),
            Leasing::NoProvider => self.end(request, "no provider"),
            Leasing::Busy => unreachable!("who waits is not told that all are busy"),
        }
        self.hear();
    }

    fn lease(&mut self, request: usize, waits: bool) -> Leasing {
        let waiter = self.waiter(request);
        let Request { pool, client, method, ref tried, deadline, .. } = self.requests[request];
        let risky = !self.terms.retry.methods.allow(method);
        // Who has no key goes anywhere: so everybody is asked now and then, also where no client belongs to it.
        let key = (!request.is_multiple_of(8)).then(|| client.into());
        let ask = Ask { request, waiter, key, tried, risky, deadline, waits };
        self.gateway.lease(pool, &ask, &mut self.rng, self.now)
    }

    fn waiter(&self, request: usize) -> Waiter {
        let Request { client, class, made, .. } = self.requests[request];
        Waiter { class, client, share: self.clients[client as usize].share, bytes: 0, since: self.now, again: made > 0 }
    }

    /// What the gateway has decided meanwhile.
    fn hear(&mut self) {
        while let Some(news) = self.gateway.news.pop_front() {
            match news {
                News::Joined(request, waiter) => self.laws.joined(self.requests[request].pool, &waiter),
                News::Granted(request, waiter, grant) => {
                    self.laws.had_a_turn(self.requests[request].pool, &waiter);
                    assert!(matches!(self.requests[request].phase, Phase::Waiting(..)), "only who waits has a turn");
                    self.saw("queued and served", 1);
                    self.begin(request, grant);
                }
                News::Displaced(request, waiter) => {
                    self.laws.left(self.requests[request].pool, &waiter);
                    self.end(request, "pushed out");
                }
                News::Hopeless(request, waiter) => {
                    self.laws.left(self.requests[request].pool, &waiter);
                    self.end(request, "hopeless");
                }
                News::Alarm(pool, at) => self.at(at.max(self.now), Event::Alarm(pool)),
            }
        }
    }

    /// An attempt begins.
    fn begin(&mut self, request: usize, grant: Grant) {
        let (provider, probe) = (grant.provider, grant.permit.is_probe());
        let as_what = if probe { ", as a probe" } else { "" };
        self.note("request {} goes to provider {}{}", [request.into(), provider.into(), as_what.into()]);
        let state = self.gateway.providers[provider].circuit.state();
        let attempt = self.laws.began(provider, probe, state, self.now);
        self.saw("probe", u64::from(probe));
        self.is_no_storm();
        let fate = self.outside[provider].meet(&mut self.rng, self.now);
        let (most, now) = (self.terms.retry.attempts, self.now);
        let that = &mut self.requests[request];
        that.made += 1;
        assert!(that.made <= most, "more attempts than there may be");
        assert!(!that.spent, "request {request} is sent twice");
        assert!(now <= that.deadline, "request {request} is late");
        let until = (now + fate.after.min(self.terms.attempt_timeout)).min(that.deadline);
        that.phase = Phase::Attempting(Under { grant, attempt, fate, since: now });
        let turn = self.next(request);
        self.at(until, Event::Attempted(request, turn));
    }

    /// An attempt is over: `src/proxy/verdict.rs` and `dispatch.rs`.
    fn attempted(&mut self, request: usize, client_left: bool) {
        let phase = std::mem::replace(&mut self.requests[request].phase, Phase::New);
        let Phase::Attempting(under) = phase else { panic!("request {request} makes no attempt") };
        let took = self.now.duration_since(under.since);
        let fate = under.fate;
        // `None`: we gave up for a reason of our own.
        let ended = match () {
            () if client_left => None,
            () if took >= fate.after => Some(fate.ended),
            () if took >= self.terms.attempt_timeout => Some(Ended::Timeout),
            () => None,
        };
        let (report, harmless) = self.judge(ended, took, fate);
        let terms = &self.terms.retry;
        let that = &mut self.requests[request];
        let twice = that.whole && (terms.methods.allow(that.method) || (terms.idempotency_key && that.keyed));
        that.spent |= fate.sent && !(twice || (harmless && that.whole));
        let answered = match ended {
            Some(Ended::Status(status)) => self.may_go_on(request, Ended::Status(status)).is_err().then_some(status),
            _ => None,
        };
        let provider = under.grant.provider;
        let word = ended.map_or("nothing", Ended::as_str);
        self.note("request {} is back from provider {}: {}", [request.into(), provider.into(), word.into()]);
        let before = self.gateway.providers[provider].circuit.entered();
        let state = self.gateway.finish(under.grant, &report, &mut self.rng, self.now);
        let until = self.gateway.providers[provider].cooldown.until(self.now);
        self.laws.ended(provider, under.attempt, &report, (state, until), self.now);
        let after = self.gateway.providers[provider].circuit.entered();
        for (state, sight) in [(State::Open, "circuit opened"), (State::Closed, "circuit closed")] {
            self.saw(sight, after[state as usize] - before[state as usize]);
        }
        self.saw("cooldown", u64::from(report.cooldown.is_some()));
        self.hear();
        match (ended, answered) {
            (_, Some(status)) => {
                let how = if status == 429 {
                    "429 passed on"
                } else if status < 500 {
                    "answer"
                } else {
                    "5xx passed on"
                };
                self.end(request, how);
            }
            (None, None) if client_left => self.end(request, "client left an attempt"),
            (None, None) => self.end(request, "deadline"),
            (Some(Ended::Status(_)), None) => self.again(request, provider),
            (Some(ended), None) => match self.may_go_on(request, ended) {
                Ok(()) => self.again(request, provider),
                Err(_) => self.end(request, "failed"),
            },
        }
    }

    /// How an attempt counts for its provider, and whether that cannot have acted on it.
    fn judge(&self, ended: Option<Ended>, took: Duration, fate: Fate) -> (Report, bool) {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(WALL) + self.now.duration_since(self.start);
        let field =
            |name: &[u8]| fate.hint.filter(|(own, _)| own.as_bytes() == name).map(|(_, value)| value.as_bytes());
        let hint = |status| cooldown::hint(status, field, wall);
        let report = |verdict, cooldown| Report { verdict, head_after: Some(took), cooldown };
        let harmless = |status| self.terms.retry.refused.contains(&status);
        match ended {
            None => (report(Verdict::Uncounted, None), false),
            Some(Ended::Status(429)) => (report(Verdict::Uncounted, Some(hint(429))), harmless(429)),
            Some(Ended::Status(503)) if let Some(wait) = hint(503) => {
                (report(Verdict::Uncounted, Some(Some(wait))), harmless(503))
            }
            Some(Ended::Status(status)) if status >= 500 => (report(Verdict::Failure("5xx"), None), harmless(status)),
            Some(Ended::Status(status)) => (report(Verdict::Success, None), harmless(status)),
            Some(other) => (report(Verdict::Failure(other.as_str()), None), false),
        }
    }

    /// Whether another attempt may follow one that ended so; it is taken from the budget.
    fn may_go_on(&mut self, request: usize, ended: Ended) -> Result<(), Skip> {
        let that = &self.requests[request];
        let so = So {
            attempts_made: that.made,
            method: that.method,
            keyed: that.keyed,
            replayable: that.whole,
            nothing_sent: matches!(ended, Ended::Connect | Ended::Refused),
            left: that.deadline.saturating_duration_since(self.now),
        };
        let pool = that.pool;
        let so = match retry::again(&self.terms.retry, ended, &so) {
            Again::No(skip) => Err(skip),
            Again::Yes if self.gateway.may_retry(pool, self.now) => Ok(()),
            Again::Yes => Err(Skip::Budget),
        };
        match so {
            Ok(()) => {
                self.laws.retried(pool, self.now);
                self.allow();
                self.saw("retry", 1);
            }
            Err(skip) => self.saw(skip.as_str(), 1),
        }
        so
    }

    /// Another provider, at once where there is one; else a pause.
    fn again(&mut self, request: usize, provider: usize) {
        self.requests[request].tried.push(provider);
        let Request { pool, made, deadline, ref tried, .. } = self.requests[request];
        if self.gateway.has_untried(pool, tried, self.now)
            && let Leasing::Now(grant) = self.lease(request, false)
        {
            self.saw("another at once", 1);
            return self.begin(request, grant);
        }
        let pause = retry::wait(&self.terms.retry.backoff, made, self.rng.f64());
        if self.now + pause >= deadline {
            return self.end(request, "nobody else");
        }
        self.saw("pause", 1);
        self.requests[request].phase = Phase::Pausing;
        let turn = self.next(request);
        self.after(pause, Event::Paused(request, turn));
    }

    /// A client hangs up.
    fn leave(&mut self, request: usize) {
        match self.requests[request].phase {
            Phase::New => unreachable!("nothing happens in between"),
            Phase::Waiting(..) => {
                self.stop_waiting(request);
                self.end(request, "client left waiting");
            }
            Phase::Pausing => self.end(request, "client left pausing"),
            Phase::Attempting(_) => self.attempted(request, true),
            Phase::Over => {}
        }
    }

    fn stop_waiting(&mut self, request: usize) {
        let Request { pool, ref phase, .. } = self.requests[request];
        let Phase::Waiting(ticket, ref waiter) = *phase else { panic!("request {request} does not wait") };
        self.gateway.leave(pool, ticket);
        self.laws.left(pool, waiter);
    }

    /// A request ends, once.
    fn end(&mut self, request: usize, how: &'static str) {
        self.note("request {} ends: {}", [request.into(), how.into(), Word::Nothing]);
        let (that, now) = (&mut self.requests[request], self.now);
        assert!(!matches!(that.phase, Phase::Over), "request {request} ends twice");
        assert!(now <= that.deadline, "request {request} ends late");
        that.phase = Phase::Over;
        self.next(request);
        self.open -= 1;
        self.saw(how, 1);
    }

    fn turn(&mut self, provider: usize, weather: Weather) {
        self.note("provider {} {}", [provider.into(), weather.as_str().into(), Word::Nothing]);
        self.outside[provider].turn(weather, self.now);
    }

    /// What must hold after each step.
    fn check(&mut self) {
        self.laws.check(&self.gateway);
        // What else happens at this very instant may be what makes room known.
        if self.events.first_key_value().is_none_or(|((at, _), _)| *at > self.now) {
            for pool in 0..self.gateway.pools.len() {
                assert!(!self.gateway.is_stuck(pool, self.now), "somebody waits in pool {pool} while there is room");
            }
        }
    }

    fn is_in(&self, request: usize, turn: u32) -> bool {
        self.requests[request].turn == turn
    }

    /// The next phase of a request has begun.
    fn next(&mut self, request: usize) -> u32 {
        self.requests[request].turn += 1;
        self.requests[request].turn
    }

    fn after(&mut self, span: Duration, event: Event) {
        self.at(self.now + span, event);
    }

    fn at(&mut self, at: Instant, event: Event) {
        self.events.insert((at, self.scheduled), event);
        self.scheduled += 1;
    }

    /// Up to twice as long.
    fn some(&mut self, span: Duration) -> Duration {
        span.mul_f64(self.rng.f64() * 2.0) + Duration::from_millis(1)
    }

    fn saw(&mut self, what: &'static str, times: u64) {
        if times > 0 {
            *self.seen.entry(what).or_default() += times;
        }
    }

    fn note(&mut self, what: &'static str, words: [Word; 3]) {
        self.story.note(self.now.duration_since(self.start), what, words);
    }
}

fn any_terms(rng: &mut Rng, now: Instant) -> (Terms, Vec<ProviderTerms>, Vec<PoolTerms>, Vec<Outside>) {
    let requests = if rng.u8(..20) == 0 { rng.usize(5_000..10_000) } else { rng.usize(200..1_000) };
    let seconds = 2.0 + rng.f64() * 20.0;
    let rate = requests as f64 / seconds;
    let count = rng.usize(1..7);
    // From idle to three times what there is room for.
    let load = 0.2 + rng.f64() * rng.f64() * 2.8;
    let mut outside = Vec::new();
    let providers: Vec<ProviderTerms> = (0..count)
        .map(|_| {
            let latency = Duration::from_secs_f64(0.005 + 0.3 * rng.f64() * rng.f64());
            outside.push(Outside::new(latency, now));
            let room = rate * latency.as_secs_f64() / load / count as f64;
            any_provider(rng, room.ceil() as u32 + 1, rate / count as f64)
        })
        .collect();
    let pools = (0..if rng.u8(..3) == 0 { 2 } else { 1 }).map(|_| any_pool(rng, count)).collect();
    let refused: &[u16] = rng.choice([&[][..], &[429], &[429, 503]]).expect("some");
    let on = ["connect", "reset", "timeout", "429", "502", "503", "504"];
    let retry = retry::Policy {
        attempts: rng.u32(1..6),
        on: Conditions::parse(&on[..if rng.u8(..4) == 0 { 3 } else { on.len() }]).expect("conditions"),
        methods: match rng.u8(..5) {
            0 => Methods::All,
            1 => Methods::These(vec!["POST".to_owned()]),
            _ => Methods::Idempotent,
        },
        idempotency_key: rng.bool(),
        refused: refused.to_vec(),
        backoff: Backoff {
            initial: Duration::from_millis(rng.u64(0..100)),
            multiplier: 2.0,
            max: Duration::from_secs(1),
            jitter: if rng.u8(..4) == 0 { Jitter::None } else { Jitter::Full },
        },
    };
    let terms = Terms {
        retry,
        // Whoever is well keeps to it.
        attempt_timeout: Duration::from_millis(rng.u64(1_250..2_500)),
        timeout: Duration::from_millis(rng.u64(500..6_000)),
        rate,
        requests,
        weather: Duration::from_secs_f64(seconds * (0.02 + rng.f64() * 0.3)),
        outage: Duration::from_secs_f64(seconds * (0.2 + rng.f64())),
    };
    (terms, providers, pools, outside)
}

fn any_provider(rng: &mut Rng, limit: u32, rate: f64) -> ProviderTerms {
    let recovery_timeout = Duration::from_millis(rng.u64(50..1_500));
    let circuit = circuit::Terms {
        failure_threshold: rng.u32(1..8),
        failure_rate: 0.2 + 0.6 * rng.f64(),
        window: Duration::from_millis(rng.u64(200..5_000)),
        minimum_requests: rng.u32(3..30),
        recovery_timeout,
        max_recovery_timeout: recovery_timeout * rng.u32(1..9),
        half_open_requests: rng.u32(1..4),
        success_threshold: rng.u32(1..4),
    };
    let count = (rate * (0.5 + rng.f64())).ceil() as u32 + 1;
    let pace = pace::Terms { count, per: Duration::from_secs(1), burst: rng.u32(1..20) };
    ProviderTerms {
        limit,
        pace: (rng.u8(..3) == 0).then_some(pace),
        circuit,
        max_cooldown: Duration::from_millis(rng.u64(100..5_000)),
        slow_start: rng.bool().then(|| Duration::from_millis(rng.u64(100..5_000))),
    }
}

fn any_pool(rng: &mut Rng, providers: usize) -> PoolTerms {
    let rules = [
        Algorithm::RoundRobin,
        Algorithm::Weighted,
        Algorithm::LeastConnections,
        Algorithm::PeakEwma,
        Algorithm::ConsistentHash,
    ];
    let rule = rng.choice(rules).expect("a rule");
    let mut members = Vec::new();
    for provider in 0..providers {
        let backup = !members.is_empty() && rng.u8(..6) == 0;
        if provider == 0 || rng.u8(..6) > 0 {
            members.push(Member { provider, weight: rng.u32(1..4), backup });
        }
    }
    let names: Vec<String> = members.iter().map(|member| format!("provider-{}", member.provider)).collect();
    let weighted: Vec<(&str, u32)> =
        names.iter().map(String::as_str).zip(members.iter().map(|member| member.weight)).collect();
    PoolTerms {
        balance: Balance::new(rule, &weighted, Arc::default()),
        members,
        by_latency: rule == Algorithm::PeakEwma,
        queue: queue::Terms {
            capacity: rng.usize(1..200),
            weights: std::array::from_fn(|_| rng.u32(1..20)),
            reserve_high: f64::from(rng.u8(..8)) / 10.0,
        },
        timeout: Duration::from_millis(rng.u64(100..5_000)),
        ratio: f64::from(rng.u8(..5)) / 10.0,
        min_per_second: f64::from(rng.u8(..20)) / if rng.bool() { 10.0 } else { 1.0 },
    }
}

const SECOND: Duration = Duration::from_secs(1);
/// Requests in calm weather, at least.
const CALM_LEAST: usize = 100;
/// By then every circuit is closed. No cooldown is longer than 5 s, no wait of a circuit than 13.2 s; then a few have to be
/// chosen, of which a slow answer that `peak_ewma` remembers keeps requests away for some more.
const CALM_MOST: Duration = Duration::from_secs(60);
