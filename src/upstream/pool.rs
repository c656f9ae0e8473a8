//! Pools, and the lease: the one seam between a request and the provider it may use.
//!
//! Everything that decides who may send what where meets in [`Pool::lease`] and nowhere else. Retries, fallbacks, hedges and
//! jobs take another lease.

use super::buffers::{Buffers, Held, Part};
use super::endpoint::Endpoint;
use super::line::{Aftermath, Line, Ousted, Place, Slot, Supply};
use super::locked;
use super::spending::Spending;
use super::state::{Grant, Prospect, Purpose, State};
use crate::clock;
use crate::config;
use crate::instant::Instant;
use crate::net::timer::Timer;
use crate::observe::metrics::{PoolMetrics, ProviderMetrics};
use crate::policy::balance::{Balance, Field, Look};
use crate::policy::circuit::Verdict;
use crate::policy::class::Class;
use crate::policy::outcome::Outcome;
use crate::policy::queue::{Queue, Terms, Waiter};
use arc_swap::ArcSwap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Notify;

pub use super::state::{Probe, ProviderId};

/// One provider as a snapshot sees it: what the file says, and what is alive.
#[derive(Debug)]
pub struct Provider {
    /// What it is called: the file's name, and `@ADDRESS` behind it where it was discovered.
    pub name: Arc<str>,
    /// What the file says.
    pub config: Arc<config::Provider>,
    /// Where it is reached.
    pub endpoint: Arc<Endpoint>,
    /// Its series.
    pub metrics: ProviderMetrics,
    /// What is alive of it.
    pub state: Arc<State>,
}

/// Providers that can stand in for each other, as a snapshot sees them.
#[derive(Debug)]
pub struct Pool {
    /// What the file calls it.
    pub name: Arc<str>,
    /// What the file says.
    pub config: Arc<config::Pool>,
    live: Arc<Live>,
}

/// What is alive of a pool. Found again by name after a reload.
#[derive(Debug)]
pub struct Live {
    line: Arc<Line<Members>>,
    /// The same that the line has, to be read without its mutex.
    members: ArcSwap<Members>,
    alarm: Mutex<Alarm>,
    /// The alarm is earlier than it was.
    earlier: Arc<Notify>,
    /// What the waiters were last judged by, while nobody was in service.
    judged: Mutex<Option<Outlook>>,
    buffers: Arc<Buffers>,
    part: Arc<Part>,
    spending: Spending,
    /// Leases given to who had waited.
    dispatched: AtomicU64,
    /// By [`Refused::index`].
    shed: [AtomicU64; Refused::REASONS.len()],
    /// Waiters whose client left.
    gone: AtomicU64,
    metrics: PoolMetrics,
}

/// Who may be leased through a pool, and by which rule.
#[derive(Debug)]
pub struct Members {
    each: Vec<Member>,
    balance: Balance,
    /// The balance goes by latency.
    by_latency: bool,
    /// The longest wait.
    timeout: Duration,
}

/// One of them.
#[derive(Debug)]
pub struct Member {
    /// Who.
    pub provider: Arc<Provider>,
    /// Its share beside the others.
    pub weight: u32,
    /// It is for when no other has room.
    pub backup: bool,
}

/// When what only time makes room for is looked at next.
#[derive(Debug, Default)]
struct Alarm {
    at: Option<Instant>,
    /// A task is there that waits for it.
    running: bool,
}

/// What a waiter wants of the members, and what operators want to know of it.
#[derive(Debug)]
pub struct Wish {
    key: Option<u64>,
    tried: Box<[ProviderId]>,
    risky: bool,
    wait: Wait,
    /// When it stops waiting.
    until: Instant,
    /// When an answer is of no use to it any more.
    deadline: Instant,
    label: Label,
}

/// The members as one request meets them now.
struct View<'a> {
    members: &'a Members,
    tried: &'a [ProviderId],
    /// Those will not do at all.
    elsewhere: bool,
    /// It is to be spared from being a probe.
    spared: bool,
    queued: bool,
    now: Instant,
}

/// What there is to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Outlook {
    /// Somebody is in service: he has room, or will when a lease is given back.
    in_service: bool,
    /// When the first has rested.
    rested: Option<Instant>,
    /// When the first circuit may be probed, or the first check may find its provider well.
    probed: Option<Instant>,
    /// When to look again, as nobody will tell us.
    alarm: Option<Instant>,
}

/// What a request asks of a pool.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// How urgent it is, capped already.
    pub class: Class,
    /// Who asks: an index into the configuration's clients.
    pub client: u32,
    /// That client's share beside the others of its class; at least 1.
    pub share: u32,
    /// What consistent hashing goes by; `None` where the request has none.
    pub key: Option<u64>,
    /// Those it has tried already. Another is taken where there is one.
    pub tried: &'a [ProviderId],
    /// It is a retry or a hedge. One that waits goes to the front of its client's line.
    pub again: bool,
    /// It may not be sent twice: it is the last to be used as a probe.
    pub risky: bool,
    /// Bytes of its body to account for while it waits; the lease then carries them as [`Lease::held`]. 0 where the caller
    /// accounts for them itself.
    pub bytes: usize,
    /// When a lease is of no use any more.
    pub deadline: Instant,
    /// What to do where no provider has room.
    pub wait: Wait,
    /// Now.
    pub now: Instant,
    /// Who waits, for operators to see. Only called where it waits.
    pub label: &'a (dyn Fn() -> Label + Sync),
}

/// What to do where no provider has room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Nothing: refused as [`Refused::Busy`]. So do jobs.
    Never,
    /// The same, and only who was not tried yet will do.
    Elsewhere,
    /// The same, for a hedge.
    Hedge,
    /// Wait in the queue, unless all that is left is to wait for a circuit.
    Queue,
    /// Wait in the queue, also for a circuit that may be probed in time.
    QueueForProbe,
}

/// A waiting request as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// `X-Request-Id`.
    pub request_id: Box<str>,
    /// What the client is called.
    pub client: Arc<str>,
    /// What the route is called.
    pub route: Arc<str>,
    /// Its method.
    pub method: Box<str>,
    /// Its path, without the query; of a long one the beginning.
    pub path: Box<str>,
}

/// What became of an [`Ask`].
#[derive(Debug)]
pub enum Leasing {
    /// A provider had room.
    Now(Lease),
    /// It is in the queue.
    Wait(Waiting),
}

/// A place in the queue. Dropping it leaves the queue at once.
#[derive(Debug)]
pub struct Waiting {
    live: Arc<Live>,
    place: Place<Members>,
    since: Instant,
    until: Instant,
    timer: Timer,
    held: Option<Held>,
    purpose: Purpose,
    class: Class,
    over: bool,
}

/// One who waits, as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingView {
    /// By which it can be cancelled; no other of its pool has it.
    pub id: u64,
    /// How urgent it is.
    pub class: Class,
    /// How long it has been waiting.
    pub waited: Duration,
    /// How long it will at most.
    pub left: Duration,
    /// It is a retry.
    pub again: bool,
    /// What it is.
    pub label: Label,
}

/// A pool's queue, as operators see it.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolView {
    /// How many wait, by class.
    pub depth: [usize; 3],
    /// How long the oldest of each class has been waiting.
    pub oldest: [Option<Duration>; 3],
    /// Who waits: class, client (an index into the configuration's), how many.
    pub clients: Vec<(Class, u32, usize)>,
    /// Places in the queue.
    pub capacity: usize,
    /// Leases that are out at its members, for whatever pool.
    pub in_flight: u32,
    /// Nothing is handed out.
    pub paused: bool,
    /// Leases given to who had waited, so far.
    pub dispatched: u64,
    /// How many are served in a second while some wait; `None` where it is not known.
    pub rate: Option<f64>,
    /// How long a newcomer of class `normal` would wait, of the client for which that is longest; `None` where it is not
    /// known.
    pub estimated_wait: Option<Duration>,
    /// Refused so far, by reason.
    pub shed: Vec<(&'static str, u64)>,
    /// Left the queue because the client was gone.
    pub gone: u64,
    /// Bytes of bodies that its waiters hold.
    pub held: usize,
}

/// The permission to make one attempt at one provider. Giving it back reports how the attempt ended; a lease that is
/// dropped without a word means that the client left.
#[derive(Debug)]
pub struct Lease {
    /// The provider to use.
    pub provider: Arc<Provider>,
    /// When the lease was given.
    pub since: Instant,
    /// How long it was waited for.
    pub queued: Duration,
    /// The attempt decides whether a circuit closes.
    pub probe: bool,
    /// What [`Ask::bytes`] accounted for; take it out to keep it longer than the lease.
    pub held: Option<Held>,
    /// `None` once it was given back.
    grant: Option<Grant>,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    /// In one word. Only [`Outcome::Failure`] counts against the circuit: what the provider's `failures` leave out is for
    /// the caller to report as something else.
    pub outcome: Outcome,
    /// Why, for the circuit's history: `connect`, `timeout`, `reset`, `503`.
    pub why: &'static str,
    /// From the lease to the head of the answer, where one came; of an attempt that we gave up for another, as long as none
    /// had come.
    pub head_after: Option<Duration>,
    /// The provider asked us to wait: `Some(None)` where it did not say how long.
    pub cooldown: Option<Option<Duration>>,
}

/// Why there is no lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The queue has no place for it, or had to give its place to a more urgent one.
    QueueFull {
        /// When a place is likely to be free.
        retry_after: Duration,
    },
    /// It waited for as long as it may, or would have: then `waited` is zero.
    QueueTimeout {
        /// When the queue is likely to be short enough.
        retry_after: Duration,
        /// How long it waited.
        waited: Duration,
    },
    /// Every provider is out: circuit, cooldown, health or drain.
    NoProvider {
        /// When the first may be back, where that is known.
        retry_after: Option<Duration>,
    },
    /// Nobody has room now, and it does not wait.
    Busy,
    /// Its body does not fit into what is left of `memory.buffers`.
    Buffers {
        /// When the queue is likely to be short enough.
        retry_after: Duration,
    },
    /// An operator took it out of the queue.
    Cancelled,
}

// === impl Provider ===

impl Provider {
    /// Tells it from every other of this process, also after a reload.
    pub fn id(&self) -> ProviderId {
        self.state.id
    }
}

// === impl Pool ===

impl Pool {
    /// A pool as configured, over what is alive of it.
    pub(super) fn new(config: Arc<config::Pool>, live: Arc<Live>) -> Self {
        Pool { name: Arc::clone(&config.name), config, live }
    }

    /// Leases a provider that has room, or a place in the queue.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn lease(&self, ask: &Ask<'_>) -> Result<Leasing, Refused> {
        match self.take(ask) {
            Some(lease) => Ok(Leasing::Now(lease)),
            None if matches!(ask.wait, Wait::Elsewhere | Wait::Hedge) => Err(Refused::Busy),
            None => self.queue(ask),
        }
    }

    /// Leases a provider that has room, if nobody waits for one: a few atomics, and no lock.
    pub fn take(&self, ask: &Ask<'_>) -> Option<Lease> {
        if !self.live.line.may_pass() {
            return None;
        }
        let grant = self.live.members.load().pass(ask)?;
        self.live.spending.leased(ask.purpose());
        self.live.metrics.leased(ask.class, Duration::ZERO);
        Some(Lease::begin(grant, ask.purpose(), Duration::ZERO, None, ask.now))
    }

    /// Leases a place in the queue, or a provider that has room by now.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn queue(&self, ask: &Ask<'_>) -> Result<Leasing, Refused> {
        self.live.queue(ask).map_err(|refused| self.live.count(ask.class, refused))
    }

    /// What it keeps with one provider, if it does.
    pub fn hashes_by(&self) -> Option<&config::HashBy> {
        match &self.config.balance {
            config::BalanceRule::ConsistentHash { by } => Some(by),
            _ => None,
        }
    }

    /// Its budgets for attempts beside the first.
    pub fn spending(&self) -> &Spending {
        &self.live.spending
    }

    /// Stops handing out, or goes on. Who waits goes on waiting, for as long as it may.
    pub fn set_paused(&self, paused: bool, now: Instant) {
        self.live.set_paused(paused, now);
    }

    /// Takes the waiter with this number out of the queue; false where there is none.
    pub fn cancel(&self, id: u64) -> bool {
        self.live.line.oust(Ousted::Cancelled, |_, slot| slot.id == id) > 0
    }

    /// Who waits, at most `limit` of them, the one that came first in front.
    pub fn waiting(&self, limit: usize, now: Instant) -> Vec<WaitingView> {
        // What is copied is copied once the queue is free again.
        let copies =
            |queue: &Queue<Arc<Slot<Members>>>| queue.iter().map(|(_, one, slot)| (*one, Arc::clone(slot))).collect();
        let mut all: Vec<_> = self.live.line.look(|queue, _| copies(queue));
        all.sort_unstable_by_key(|(_, slot)| slot.id);
        let view = |(waiter, slot): (Waiter, Arc<Slot<Members>>)| WaitingView {
            id: slot.id,
            class: waiter.class,
            waited: now.saturating_duration_since(waiter.since),
            left: slot.wish.until.saturating_duration_since(now),
            again: waiter.again,
            label: slot.wish.label.clone(),
        };
        all.into_iter().take(limit).map(view).collect()
    }

    /// Its queue in figures.
    pub fn view(&self, now: Instant) -> PoolView {
        let live = &self.live;
        let (depth, oldest, clients, estimate, gap) = live.line.look(|queue, gap| {
            let age = |class| queue.oldest(class).map(|since| now.saturating_duration_since(since));
            let ahead_of = |client| queue.ahead_of(&waiter(Class::Normal, client, 1, now));
            let normal = queue.clients().filter(|(class, ..)| *class == Class::Normal);
            let ahead = normal.map(|(_, client, _)| ahead_of(client)).max().unwrap_or_else(|| ahead_of(u32::MAX));
            let estimate = if queue.is_empty() { Some(Duration::ZERO) } else { gap.map(|gap| times(gap, ahead + 1)) };
            let depth = Class::ALL.map(|class| queue.depth(class));
            (depth, Class::ALL.map(age), queue.clients().collect(), estimate, gap)
        });
        let shed = Refused::REASONS.iter().zip(&live.shed);
        PoolView {
            depth,
            oldest,
            clients,
            capacity: self.config.queue.terms.capacity,
            in_flight: self.members().iter().map(|member| member.provider.state.in_flight()).sum(),
            paused: live.line.is_paused(),
            dispatched: live.dispatched.load(Ordering::Relaxed),
            rate: gap.map(|gap| 1.0 / gap.as_secs_f64().max(1e-6)),
            estimated_wait: estimate,
            shed: shed.map(|(reason, count)| (*reason, count.load(Ordering::Relaxed))).collect(),
            gone: live.gone.load(Ordering::Relaxed),
            held: live.part.used(),
        }
    }

    /// The share of the places in its queue that are taken.
    pub fn fullness(&self) -> f64 {
        self.live.line.waiting() as f64 / self.config.queue.terms.capacity.max(1) as f64
    }

    /// Whether nobody of it is in service: who asks now gets nothing, or is a probe.
    pub fn is_down(&self, now: Instant) -> bool {
        !self.live.members.load().iter().any(|member| member.provider.state.is_in_service(now))
    }

    /// Whether an attempt could be made now, by who is in service or as a probe.
    pub fn may_be_probed(&self, now: Instant) -> bool {
        self.live.members.load().iter().any(|member| member.provider.state.open_to(false, now).is_some())
    }

    /// Who is in it now, also those that were discovered since the file was read.
    pub fn members(&self) -> Arc<Members> {
        self.live.members.load_full()
    }

    /// Bytes of a body to hold beside what waits, for a client that holds `own`; `None` where they cannot be had.
    pub fn hold(&self, bytes: usize, own: &Arc<Part>) -> Option<Held> {
        self.live.buffers.take_for(bytes, &self.live.part, own)
    }
}

// === impl Live ===

impl Live {
    /// An empty line.
    pub(super) fn new(terms: Terms, members: Arc<Members>, buffers: Arc<Buffers>, metrics: PoolMetrics) -> Arc<Self> {
        Arc::new(Live {
            line: Arc::new(Line::new(terms, Arc::clone(&members))),
            members: ArcSwap::new(members),
            alarm: Mutex::default(),
            earlier: Arc::default(),
            judged: Mutex::default(),
            buffers,
            part: Arc::default(),
            spending: Spending::default(),
            dispatched: AtomicU64::new(0),
            shed: Default::default(),
            gone: AtomicU64::new(0),
            metrics,
        })
    }

    /// Other members and terms from now on; who waits goes on waiting, and is served by those.
    pub(super) fn follow(self: &Arc<Self>, terms: Terms, members: Arc<Members>, now: Instant) {
        self.members.store(Arc::clone(&members));
        let after = self.line.follow(terms, members, now);
        self.finish(after, now);
    }

    pub(super) fn set_paused(self: &Arc<Self>, paused: bool, now: Instant) {
        let after = self.line.pause(paused, now);
        self.finish(after, now);
    }

    /// Hands out what there is to who waits, and looks after those that are left. Whether anybody got something.
    pub(super) fn dispatch(self: &Arc<Self>, now: Instant) -> bool {
        let after = self.line.dispatch(now);
        let served = after.served();
        self.finish(after, now);
        served
    }

    fn finish(self: &Arc<Self>, mut after: Aftermath<Members>, now: Instant) {
        while after.more {
            after = self.line.dispatch(now);
        }
        if after.waiting {
            drop(after);
            self.look_ahead(now);
        }
    }

    /// Joins the line, if there is something to wait for.
    fn queue(self: &Arc<Self>, ask: &Ask<'_>) -> Result<Leasing, Refused> {
        let (members, now) = (self.members.load_full(), ask.now);
        let outlook = members.outlook(now);
        let until = ask.deadline.min(clock::after(now, members.timeout));
        if !outlook.serves(until, ask.wait) {
            return Err(outlook.refuse(now));
        }
        if ask.wait == Wait::Never {
            return Err(Refused::Busy);
        }
        let waiter = Waiter { bytes: ask.bytes, again: ask.again, ..waiter(ask.class, ask.client, ask.share, now) };
        // Whoever is the first to wait finds out how long that takes: an estimate that turned everybody away could not change.
        let estimate = self
            .line
            .look(|queue, gap| gap.filter(|_| !queue.is_empty()).map(|gap| times(gap, queue.ahead_of(&waiter) + 1)));
        let left = until.saturating_duration_since(now);
        // While nobody is in service it says nothing: a line that waits for a probe moves all at once.
        let told = estimate.filter(|_| outlook.in_service);
        if let Some(late) = told.and_then(|told| told.checked_sub(left)).filter(|late| !late.is_zero()) {
            return Err(Refused::QueueTimeout { retry_after: members.polite(Some(late)), waited: Duration::ZERO });
        }
        let held = match ask.bytes {
            0 => None,
            bytes => {
                let held = self.buffers.take(bytes, &self.part);
                Some(held.ok_or(Refused::Buffers { retry_after: members.polite(estimate) })?)
            }
        };
        let wish = Wish {
            key: ask.key,
            tried: ask.tried.into(),
            risky: ask.risky,
            wait: ask.wait,
            until,
            deadline: ask.deadline,
            label: (ask.label)(),
        };
        let (joined, after) = Place::join(&self.line, waiter, wish, now);
        self.finish(after, now);
        let mut place = joined.map_err(|_| Refused::QueueFull { retry_after: members.polite(estimate) })?;
        let decided = place.peek();
        let (live, timer, purpose, class) = (Arc::clone(self), Timer::default(), ask.purpose(), ask.class);
        let mut waiting = Waiting { live, place, since: now, until, timer, held, purpose, class, over: false };
        if let Some(decided) = decided {
            return waiting.settle(decided, now).map(Leasing::Now);
        }
        // Whoever was taken out of service since we looked may have been so before we were seen to wait.
        let outlook = self.members.load().outlook(now);
        if outlook.serves(until, ask.wait) {
            return Ok(Leasing::Wait(waiting));
        }
        waiting.over = true;
        Err(outlook.refuse(now))
    }

    /// Arms the alarm for what only time will bring, and sends those away for whom nothing comes in time.
    fn look_ahead(self: &Arc<Self>, now: Instant) {
        let outlook = self.members.load().outlook(now);
        if let Some(at) = outlook.alarm {
            self.arm(at);
        }
        let judgement = (!outlook.in_service).then_some(outlook);
        if std::mem::replace(&mut *locked(&self.judged), judgement) != judgement && judgement.is_some() {
            self.line.stall();
            self.line.oust(Ousted::Hopeless, |_, slot| !outlook.serves(slot.wish.until, slot.wish.wait));
        }
    }

    /// Looks again at `at`, or earlier. Outside of a runtime nobody can; there nobody waits either.
    fn arm(self: &Arc<Self>, at: Instant) {
        let mut alarm = locked(&self.alarm);
        if alarm.at.is_some_and(|armed| armed <= at) && alarm.running {
            return;
        }
        alarm.at = Some(at);
        if alarm.running {
            self.earlier.notify_one();
        } else if let Ok(runtime) = Handle::try_current() {
            alarm.running = true;
            // A runtime that is ending drops the task at once, and the task locks the alarm to say so.
            drop(alarm);
            runtime.spawn(ring(Ringing { live: Arc::downgrade(self), over: false }, Arc::clone(&self.earlier)));
        }
    }

    fn count(&self, class: Class, refused: Refused) -> Refused {
        self.metrics.shed(class, refused.as_str());
        self.shed[refused.index()].fetch_add(1, Ordering::Relaxed);
        refused
    }
}

/// Waits for a line's alarms, until there are none.
async fn ring(mut ringing: Ringing, earlier: Arc<Notify>) {
    while let Some(at) = ringing.next() {
        tokio::select! {
            () = tokio::time::sleep_until(at.into()) => {}
            () = earlier.notified() => continue,
        }
        let Some(live) = ringing.live.upgrade() else { return };
        let now = clock::now();
        locked(&live.alarm).at.take_if(|at| *at <= now);
        // Other pools wait for the same moment, and it may be their turn.
        live.members.load().iter().for_each(|member| member.provider.state.rested(now));
        live.dispatch(now);
    }
}

/// The task that waits for a line's alarms.
struct Ringing {
    live: Weak<Live>,
    /// It ends by itself, and the alarm knows.
    over: bool,
}

impl Ringing {
    /// The next one. Where there is none, the task is over.
    fn next(&mut self) -> Option<Instant> {
        let live = self.live.upgrade()?;
        let mut alarm = locked(&live.alarm);
        alarm.running = alarm.at.is_some();
        self.over = !alarm.running;
        alarm.at
    }
}

impl Drop for Ringing {
    /// Also when its runtime ends before the alarms do: whoever looks ahead next then starts another.
    fn drop(&mut self) {
        if !self.over
            && let Some(live) = self.live.upgrade()
        {
            *locked(&live.alarm) = Alarm::default();
        }
    }
}

// === impl Members ===

impl Members {
    /// These, chosen from by this rule.
    pub(super) fn new(each: Vec<Member>, balance: Balance, by_latency: bool, timeout: Duration) -> Arc<Self> {
        Arc::new(Members { each, balance, by_latency, timeout })
    }

    /// Each of them, in the order of the file.
    pub fn iter(&self) -> std::slice::Iter<'_, Member> {
        self.each.iter()
    }

    /// Takes one for a request that has not queued.
    fn pass(&self, ask: &Ask<'_>) -> Option<Grant> {
        let spared = ask.risky && fastrand::u8(..) >= RISKY_PROBES;
        let elsewhere = matches!(ask.wait, Wait::Elsewhere | Wait::Hedge);
        let view = View { members: self, tried: ask.tried, elsewhere, spared, queued: false, now: ask.now };
        (0..TAKES).find_map(|_| {
            let index = self.balance.choose(&view, ask.key, fastrand::u64(..))?;
            Grant::take(&self.each[index].provider, false, ask.now).ok()
        })
    }

    /// When a client may come again that found too many before it: they are all gone, served or not, after the longest
    /// wait.
    fn polite(&self, wait: Option<Duration>) -> Duration {
        polite(wait.map(|wait| wait.min(self.timeout)))
    }

    fn outlook(&self, now: Instant) -> Outlook {
        let mut outlook = Outlook::default();
        for member in &self.each {
            let (slot, at, alarm) = match member.provider.state.prospect(now) {
                Prospect::Never => continue,
                Prospect::Full => {
                    outlook.in_service = true;
                    continue;
                }
                // Somebody was faster, or a place was seen that was gone when it was to be taken.
                Prospect::Ready => {
                    outlook.in_service = true;
                    outlook.alarm = Some(sooner(outlook.alarm, now + SOON));
                    continue;
                }
                Prospect::Eased(at) => {
                    outlook.in_service = true;
                    outlook.alarm = Some(sooner(outlook.alarm, at));
                    continue;
                }
                Prospect::Rested(at) => (&mut outlook.rested, at, true),
                Prospect::Probe(at) => (&mut outlook.probed, at, true),
                Prospect::Told(at) => (&mut outlook.probed, at, false),
            };
            *slot = Some(sooner(*slot, at));
            if alarm {
                outlook.alarm = Some(sooner(outlook.alarm, at));
            }
        }
        outlook
    }
}

impl<'a> IntoIterator for &'a Members {
    type Item = &'a Member;
    type IntoIter = std::slice::Iter<'a, Member>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Supply for Members {
    type Permit = Grant;
    type Wish = Wish;

    fn want(&self, wanted: bool) {
        for member in &self.each {
            member.provider.state.want(wanted);
        }
    }

    fn take(&self, _: &Waiter, wish: &Wish, now: Instant, spoilt: &mut Vec<Grant>) -> Option<Grant> {
        let spared = wish.risky && fastrand::u8(..) >= RISKY_PROBES;
        let view = View { members: self, tried: &wish.tried, elsewhere: false, spared, queued: true, now };
        (0..TAKES).find_map(|_| {
            let index = self.balance.choose(&view, wish.key, fastrand::u64(..))?;
            Grant::take(&self.each[index].provider, true, now).map_err(|grant| spoilt.extend(grant)).ok()
        })
    }
    /// As far as the members' usual times tell: one that answers in time is enough.
    fn is_late(&self, wish: &Wish, now: Instant) -> bool {
        let left = wish.deadline.saturating_duration_since(now);
        let mut known =
            self.each.iter().filter_map(|member| member.provider.state.answers_within(left, now)).peekable();
        known.peek().is_some() && !known.any(|in_time| in_time)
    }
}

// === impl View ===

impl Field for View<'_> {
    fn len(&self) -> usize {
        self.members.each.len()
    }

    #[inline]
    fn look(&self, index: usize) -> Option<Look> {
        let Member { provider, weight, backup } = &self.members.each[index];
        let (in_flight, probe) = provider.state.open_to(self.queued, self.now)?;
        let warmth = provider.config.slow_start.map_or(1.0, |over| provider.state.warmth(over, self.now));
        // A request that failed already is spared as well, unless there is nobody else.
        let tried = !self.tried.is_empty() && self.tried.contains(&provider.state.id);
        if tried && self.elsewhere {
            return None;
        }
        let probes = probe && (self.spared || !self.tried.is_empty());
        Some(Look {
            in_flight,
            weight: f64::from(*weight) * warmth,
            latency: if self.members.by_latency { provider.state.latency(self.now) } else { 0.0 },
            lean: u8::from(*backup) | u8::from(tried) << 1 | u8::from(probes) << 2,
        })
    }
}

// === impl Outlook ===

impl Outlook {
    /// Whether there is something to wait for until then.
    fn serves(&self, until: Instant, wait: Wait) -> bool {
        let in_time = |at: Option<Instant>| at.is_some_and(|at| at < until);
        self.in_service || in_time(self.rested) || (wait == Wait::QueueForProbe && in_time(self.probed))
    }

    fn refuse(&self, now: Instant) -> Refused {
        let soonest = [self.rested, self.probed].into_iter().flatten().min();
        let retry_after = soonest.map(|at| polite(Some(at.saturating_duration_since(now))));
        Refused::NoProvider { retry_after }
    }
}

// === impl Waiting ===

impl Waiting {
    /// Since when it waits.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Leaves the queue, because its body does not fit into what is left of `memory.buffers`.
    pub fn give_up(mut self) -> Refused {
        self.over = true;
        let gap = self.live.line.look(|_, gap| gap);
        let retry_after = self.live.members.load().polite(gap);
        self.live.count(self.class, Refused::Buffers { retry_after })
    }

    fn settle(&mut self, decided: Result<Grant, Ousted>, now: Instant) -> Result<Lease, Refused> {
        self.over = true;
        let (live, queued) = (&self.live, now.saturating_duration_since(self.since));
        match decided {
            Ok(grant) => {
                live.dispatched.fetch_add(1, Ordering::Relaxed);
                live.spending.leased(self.purpose);
                live.metrics.leased(self.class, queued);
                Ok(Lease::begin(grant, self.purpose, queued, self.held.take(), now))
            }
            Err(Ousted::Displaced) => {
                let gap = live.line.look(|_, gap| gap);
                Err(Refused::QueueFull { retry_after: live.members.load().polite(gap) })
            }
            Err(Ousted::Hopeless) => Err(live.members.load().outlook(now).refuse(now)),
            Err(Ousted::Late) => Err(self.timeout(now)),
            Err(Ousted::Cancelled) => Err(Refused::Cancelled),
        }
    }

    /// Its time is over; but what it was given in this very moment is used.
    fn expire(&mut self, now: Instant) -> Result<Lease, Refused> {
        if let Some(decided) = self.place.leave() {
            return self.settle(decided, now);
        }
        self.over = true;
        Err(self.timeout(now))
    }

    fn timeout(&self, now: Instant) -> Refused {
        let late = self.live.line.look(|queue, gap| gap.map(|gap| times(gap, queue.len())));
        let waited = now.saturating_duration_since(self.since);
        Refused::QueueTimeout { retry_after: self.live.members.load().polite(late), waited }
    }
}

impl Future for Waiting {
    type Output = Result<Lease, Refused>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let now = clock::now();
        let ended = match this.place.poll(cx) {
            Poll::Ready(decided) => this.settle(decided, now),
            Poll::Pending if this.timer.poll(cx, this.until, now).is_ready() => this.expire(now),
            Poll::Pending => return Poll::Pending,
        };
        Poll::Ready(ended.map_err(|refused| this.live.count(this.class, refused)))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.over {
            self.live.gone.fetch_add(1, Ordering::Relaxed);
        }
    }
}

// === impl Lease ===

impl Lease {
    fn begin(grant: Grant, purpose: Purpose, queued: Duration, held: Option<Held>, now: Instant) -> Self {
        let provider = Arc::clone(grant.provider());
        provider.metrics.begin();
        provider.state.began(purpose, now);
        Lease { provider, since: now, queued, probe: grant.is_probe(), held, grant: Some(grant) }
    }

    /// Lends what the attempt shows of its provider to who knows it before the end, where a circuit waits for that.
    #[inline]
    pub fn take_probe(&mut self) -> Option<Probe> {
        if !self.probe {
            return None;
        }
        self.grant.as_mut()?.take_probe(self.since)
    }

    /// Takes back what was lent and not told.
    #[inline]
    pub fn put_back(&mut self, probe: Option<Probe>) {
        if let Some(probe) = probe
            && let Some(grant) = &mut self.grant
        {
            grant.put_back(probe);
        }
    }

    /// Gives the lease back and reports how the attempt ended.
    pub fn finish(mut self, report: Report, now: Instant) {
        self.give_back(report, now);
    }

    fn give_back(&mut self, report: Report, now: Instant) {
        let Some(mut grant) = self.grant.take() else { return };
        let (state, config) = (&self.provider.state, &self.provider.config);
        let verdict = report.verdict(config);
        match (report.outcome, report.head_after) {
            (Outcome::Success, head_after) => {
                state.succeeded(now);
                head_after.inspect(|head_after| state.answered(*head_after, now));
            }
            (Outcome::LocalRefusal, Some(silent_for)) => state.was_silent(silent_for, now),
            _ => {}
        }
        if let Some(hint) = report.cooldown {
            state.rejected(hint, config.limits.max_cooldown, now);
        }
        grant.report(verdict, now);
        self.provider.metrics.end(report.outcome, now.saturating_duration_since(self.since));
        // The place last: whoever is given it finds all of this done.
        drop(grant);
        state.note_use(now);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.grant.is_some() {
            let gone = Report { outcome: Outcome::ClientGone, why: "client_gone", head_after: None, cooldown: None };
            self.give_back(gone, clock::now());
        }
    }
}

// === impl Report ===

impl Report {
    /// What that is for the circuit of a provider as configured.
    fn verdict(&self, config: &config::Provider) -> Verdict {
        let slow = |head: Duration| config.circuit_breaker.slow_call.is_some_and(|slow| head > slow);
        match self.outcome {
            Outcome::Success | Outcome::LocalRefusal if self.head_after.is_some_and(slow) => Verdict::Failure("slow"),
            Outcome::Success => Verdict::Success,
            Outcome::Failure => Verdict::Failure(self.why),
            Outcome::Rejected | Outcome::ClientGone | Outcome::LocalRefusal => Verdict::Uncounted,
        }
    }
}

// === impl Probe ===

impl Probe {
    /// Tells the circuit what is known of the attempt by now; what says nothing about the provider is given back.
    pub fn report(self, report: &Report, now: Instant) -> Option<Probe> {
        match report.verdict(&self.provider().config) {
            Verdict::Uncounted => Some(self),
            verdict => {
                self.judge(verdict, now);
                None
            }
        }
    }
}

// === impl Refused ===

impl Refused {
    /// Every reason, in the order of [`Refused::index`].
    pub const REASONS: [&'static str; 6] =
        ["queue_full", "queue_timeout", "no_provider", "busy", "buffers", "cancelled"];

    /// The word for it in answers, metrics and logs.
    pub fn as_str(&self) -> &'static str {
        Self::REASONS[self.index()]
    }

    /// What `Retry-After` should say, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match *self {
            Refused::QueueFull { retry_after }
            | Refused::QueueTimeout { retry_after, .. }
            | Refused::Buffers { retry_after } => Some(retry_after),
            Refused::NoProvider { retry_after } => retry_after,
            Refused::Busy | Refused::Cancelled => None,
        }
    }

    fn index(&self) -> usize {
        match self {
            Refused::QueueFull { .. } => 0,
            Refused::QueueTimeout { .. } => 1,
            Refused::NoProvider { .. } => 2,
            Refused::Busy => 3,
            Refused::Buffers { .. } => 4,
            Refused::Cancelled => 5,
        }
    }
}

// === impl Ask ===

impl Ask<'_> {
    /// What it is for.
    fn purpose(&self) -> Purpose {
        match (self.again, self.wait) {
            (_, Wait::Hedge) => Purpose::Hedge,
            (false, _) => Purpose::First,
            (true, _) => Purpose::Retry,
        }
    }
}

impl fmt::Debug for Ask<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ask").field("class", &self.class).field("wait", &self.wait).finish_non_exhaustive()
    }
}

fn waiter(class: Class, client: u32, share: u32, since: Instant) -> Waiter {
    Waiter { class, client, share, bytes: 0, since, again: false }
}

/// The sooner of the two.
fn sooner(one: Option<Instant>, other: Instant) -> Instant {
    one.map_or(other, |one| one.min(other))
}

/// So many gaps, as far as they can be told.
fn times(gap: Duration, count: usize) -> Duration {
    gap.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX))
}

/// When a client may come again: never at once, and never so late that it is lost.
fn polite(wait: Option<Duration>) -> Duration {
    wait.unwrap_or(RETRY_SOONEST).clamp(RETRY_SOONEST, RETRY_LATEST)
}

/// Looks for a place once more so often, where the one that was chosen had gone to somebody else. Then one that has not
/// queued queues, and one that has is looked after again [`SOON`].
const TAKES: usize = 8;

/// When to look again where a place was seen that could not be taken.
const SOON: Duration = Duration::from_millis(1);

/// Of 256 requests that may not be sent twice, so many may be probes all the same: where there are no others, a circuit has
/// to close too.
const RISKY_PROBES: u8 = 4;

/// The least that `Retry-After` says.
const RETRY_SOONEST: Duration = Duration::from_secs(1);

/// The most that it says.
const RETRY_LATEST: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
