//! What is alive of one provider: its room, its circuit, its pace, how fast it is. It is found again by name after a reload,
//! and everything here may be asked and told by all workers at once.

use super::breaker::Breaker;
use super::line::{Owner, Permit, Room};
use super::locked;
use super::pool::{Live, Provider};
use crate::clock;
use crate::config;
use crate::instant::Instant;
use crate::policy::circuit::{self, Forced, Peek, Verdict};
use crate::policy::cooldown::Cooldown;
use crate::policy::load::{self, PeakEwma, Quantiles, Utilisation, slow_start};
use crate::policy::pace::{self, Pace};
use arc_swap::ArcSwap;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

/// Tells one provider's live state from another's, for as long as the process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProviderId(u32);

/// One provider, alive.
#[derive(Debug)]
pub struct State {
    /// Tells it from every other.
    pub id: ProviderId,
    /// Its circuit.
    pub breaker: Breaker,
    /// How long its recent answers took to their heads.
    pub quantiles: Quantiles,
    room: Room,
    /// Since when its room is being opened step by step, in nanoseconds since `base`; 0 is not.
    eased_since: AtomicU64,
    /// Those of one provider that was discovered share it.
    pace: Arc<Pace>,
    cooldown: Cooldown,
    latency: PeakEwma,
    /// The median time to a head as it was last known, in nanoseconds; 0 is never. During an outage it is remembered by this.
    usual: AtomicU64,
    utilisation: Utilisation,
    /// Why it gets nothing new: [`UNHEALTHY`], [`DRAINING`], [`REMOVED`]; 0 is in service.
    out: AtomicU8,
    /// When its checks may find it well at the soonest.
    well_at: Mutex<Option<Instant>>,
    base: Instant,
    /// When its slow start began, in nanoseconds since `base`; 0 is never.
    slow_since: AtomicU64,
    /// By [`Purpose`].
    attempts: [AtomicU64; 3],
    /// The lines that may wait for it.
    lines: ArcSwap<Vec<Weak<Live>>>,
    /// Which of them is told first: the one behind the last that was served.
    turn: AtomicUsize,
}

/// What an attempt is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A request's first try.
    First,
    /// Another one.
    Retry,
    /// Another one while the first is under way.
    Hedge,
}

/// Permission to use a provider, not used yet. Dropping it leaves no trace.
#[derive(Debug)]
pub struct Grant {
    // In this order: the circuit is told before the room is free for the next.
    /// What the circuit let it through as; `None` once it was told what came of it.
    admitted: Option<circuit::Permit>,
    /// A turn of the pace was taken for it.
    paced: bool,
    place: Permit<Provider>,
}

/// What an attempt shows of its provider while a circuit waits for that: lent by the lease, so that it can be told before the
/// attempt is over. One that is dropped shows nothing, and the next attempt may.
#[derive(Debug)]
pub struct Probe {
    /// When the attempt began.
    pub since: Instant,
    permit: Option<circuit::Permit>,
    provider: Arc<Provider>,
}

/// One provider's figures, for operators.
#[derive(Debug, Clone, PartialEq)]
pub struct StateView {
    /// Leases that are out.
    pub in_flight: u32,
    /// As many as there may be.
    pub limit: u32,
    /// What its checks say.
    pub healthy: bool,
    /// An operator wants it to get nothing new.
    pub draining: bool,
    /// The share of the last seconds that it was at its limit.
    pub utilisation: f64,
    /// The median, the 95th and the 99th of the times to a head; `None` where too few are known.
    pub latency: [Option<Duration>; 3],
    /// Until when it is left alone.
    pub cooldown_until: Option<Instant>,
    /// Attempts so far: first tries, retries, hedges.
    pub attempts: [u64; 3],
}

// === impl State ===

impl State {
    /// For a provider as configured. `pace` is shared with those it has a rate in common with. `slowly`: it begins with a
    /// slow start, where it has one.
    pub fn new(name: Arc<str>, config: &config::Provider, pace: Arc<Pace>, slowly: bool, now: Instant) -> Arc<Self> {
        Arc::new(State {
            id: ProviderId(NEXT_ID.fetch_add(1, Ordering::Relaxed)),
            breaker: Breaker::new(name, config.circuit_breaker.terms, now),
            quantiles: Quantiles::new(now),
            room: Room::new(config.limits.concurrency),
            eased_since: AtomicU64::new(0),
            pace,
            cooldown: Cooldown::new(now),
            latency: PeakEwma::new(now),
            usual: AtomicU64::new(0),
            utilisation: Utilisation::new(now),
            out: AtomicU8::new(0),
            well_at: Mutex::new(None),
            base: now,
            slow_since: AtomicU64::new(u64::from(slowly)),
            attempts: Default::default(),
            lines: ArcSwap::default(),
            turn: AtomicUsize::new(0),
        })
    }

    /// Goes on with other limits and terms. Who waits is told by [`State::changed`].
    pub(super) fn follow(&self, config: &config::Provider, now: Instant) {
        self.room.set_limit(config.limits.concurrency);
        self.pace.set(pace_terms(config));
        self.breaker.set_terms(config.circuit_breaker.terms, now);
        self.out.fetch_and(!REMOVED, Ordering::AcqRel);
    }

    /// Its pace, for those it has a rate in common with.
    pub(super) fn pace(&self) -> Arc<Pace> {
        Arc::clone(&self.pace)
    }

    /// Gets nothing new: no configuration names it any more.
    pub(super) fn remove(&self) {
        self.set_out(REMOVED, true);
    }

    /// What its checks found. Where it is not well, `well_at` is when they may say otherwise at the soonest.
    pub fn set_healthy(&self, healthy: bool, well_at: Option<Instant>, now: Instant) {
        *locked(&self.well_at) = well_at;
        let was = self.out.load(Ordering::Acquire) & UNHEALTHY == 0;
        if healthy && !was {
            self.start_slowly(now);
        }
        self.set_out(UNHEALTHY, !healthy);
    }

    /// Gets nothing new from now on, or does again. What is under way goes on.
    pub fn set_draining(&self, draining: bool) {
        self.set_out(DRAINING, draining);
    }

    /// An operator decides about its circuit, or with `None` no longer does.
    pub fn force(&self, forced: Option<Forced>, now: Instant) {
        self.breaker.force(forced, now);
        self.changed();
    }

    /// Takes over what an operator wants of `other`, before anybody uses it.
    pub(super) fn obey_as(&self, other: &State, now: Instant) {
        self.breaker.force(other.breaker.view(now).forced(), now);
        self.out.fetch_or(other.out.load(Ordering::Acquire) & DRAINING, Ordering::AcqRel);
    }

    /// Its figures.
    pub fn view(&self, now: Instant) -> StateView {
        let ((in_flight, _), limit) = (self.room.look(), self.room.limit());
        let out = self.out.load(Ordering::Acquire);
        StateView {
            in_flight,
            limit,
            healthy: out & UNHEALTHY == 0,
            draining: out & DRAINING != 0,
            utilisation: self.utilisation.share(in_flight >= limit, now),
            latency: [0.5, 0.95, 0.99].map(|q| self.quantiles.quantile(q, QUANTILE_MINIMUM, now)),
            cooldown_until: self.cooldown.until(now),
            attempts: self.attempts(),
        }
    }

    /// Attempts so far: first tries, retries, hedges.
    pub fn attempts(&self) -> [u64; 3] {
        std::array::from_fn(|purpose| self.attempts[purpose].load(Ordering::Relaxed))
    }

    /// Leases that are out.
    pub fn in_flight(&self) -> u32 {
        self.room.look().0
    }

    /// It may have become possible to lease it, or impossible for good: whoever waits for it looks again.
    pub(super) fn changed(&self) {
        if self.room.is_wanted() {
            self.freed();
        }
    }

    /// Time has passed that it may have been waited for. Who has it alone sees that for itself.
    pub(super) fn rested(&self, now: Instant) {
        if self.lines.load().len() > 1 && self.prospect(now) == Prospect::Ready {
            self.changed();
        }
    }

    /// The lines that may wait for it, from now on.
    pub(super) fn set_lines(&self, lines: Vec<Weak<Live>>) {
        self.lines.store(Arc::new(lines));
    }

    /// The lines that may wait for it.
    pub(super) fn lines(&self) -> Vec<Weak<Live>> {
        self.lines.load().to_vec()
    }

    /// One more line waits for a place, or one less.
    pub(super) fn want(&self, wanted: bool) {
        self.room.want(wanted);
    }

    /// What part of its weight it has now.
    pub(super) fn warmth(&self, over: Duration, now: Instant) -> f64 {
        match self.slow_since.load(Ordering::Relaxed) {
            0 => 1.0,
            since => slow_start(self.base + Duration::from_nanos(since), now, over),
        }
    }

    /// Whether it could be leased now, by somebody who has queued or has not: how many it has, and whether it would be a
    /// probe.
    #[inline]
    pub(super) fn open_to(&self, queued: bool, now: Instant) -> Option<(u32, bool)> {
        if self.out.load(Ordering::Acquire) != 0 || self.cooldown.until(now).is_some() {
            return None;
        }
        let (in_flight, wanted) = self.room.look();
        if in_flight >= self.room.limit().min(self.most(now)) || (wanted && !queued) {
            return None;
        }
        let probe = match self.breaker.peek(now) {
            Peek::Closed => false,
            Peek::HalfOpenWithRoom => true,
            Peek::Until(_) | Peek::Busy | Peek::Forced => return None,
        };
        self.pace.peek(now).ok().map(|()| (in_flight, probe))
    }

    /// Whether it is well, and its circuit closed. It may have no room all the same.
    pub(super) fn is_in_service(&self, now: Instant) -> bool {
        self.out.load(Ordering::Acquire) == 0 && matches!(self.breaker.peek(now), Peek::Closed)
    }

    /// The peak EWMA of its latency, in seconds; 0 if unknown.
    pub(super) fn latency(&self, now: Instant) -> f64 {
        self.latency.value(now)
    }

    /// What keeps it from being leased now, and until when.
    pub(super) fn prospect(&self, now: Instant) -> Prospect {
        let out = self.out.load(Ordering::Acquire);
        if out & (DRAINING | REMOVED) != 0 {
            return Prospect::Never;
        }
        let rested = self.cooldown.until(now).unwrap_or(now).max(self.pace.peek(now).err().unwrap_or(now));
        if out & UNHEALTHY != 0 {
            let well_at = *locked(&self.well_at);
            return well_at.map_or(Prospect::Never, |well_at| Prospect::Told(well_at.max(rested)));
        }
        let (in_flight, _) = self.room.look();
        let eased = self.eased(now).filter(|(most, _)| in_flight >= *most);
        let full = in_flight >= self.room.limit() || eased.is_some();
        match self.breaker.peek(now) {
            Peek::Forced => Prospect::Never,
            Peek::Busy => Prospect::Told(rested),
            Peek::Until(at) => Prospect::Probe(at.max(rested)),
            Peek::HalfOpenWithRoom if rested > now => Prospect::Probe(rested),
            Peek::Closed if rested > now => Prospect::Rested(rested),
            Peek::HalfOpenWithRoom if full => Prospect::Told(now),
            Peek::Closed if full => eased.map_or(Prospect::Full, |(_, next)| Prospect::Eased(next)),
            Peek::HalfOpenWithRoom | Peek::Closed => Prospect::Ready,
        }
    }

    /// An attempt began.
    pub(super) fn began(&self, purpose: Purpose, now: Instant) {
        self.attempts[purpose as usize].fetch_add(1, Ordering::Relaxed);
        self.note_use(now);
    }

    pub(super) fn note_use(&self, now: Instant) {
        self.utilisation.note(self.room.look().0 >= self.room.limit(), now);
    }

    /// An answer's head came after so long.
    pub(super) fn answered(&self, head_after: Duration, now: Instant) {
        self.latency.observe(head_after, now);
        self.quantiles.observe(head_after, now);
    }

    /// No answer's head had come after so long, and nobody waits for it any more. So its latency is that or more.
    pub(super) fn was_silent(&self, silent_for: Duration, now: Instant) {
        if silent_for.as_secs_f64() > self.latency.value(now) {
            self.latency.observe(silent_for, now);
        }
    }

    /// It succeeded.
    pub(super) fn succeeded(&self, now: Instant) {
        self.cooldown.succeeded(now);
    }

    /// It asked us to wait.
    pub(super) fn rejected(&self, hint: Option<Duration>, max: Duration, now: Instant) {
        self.cooldown.rejected(hint, max, now);
    }

    /// Tells its circuit what an attempt showed.
    fn judge(&self, permit: circuit::Permit, verdict: Verdict, now: Instant) {
        let probe = permit.is_probe();
        self.breaker.report(permit, verdict, now);
        if probe && self.breaker.peek(now) == Peek::Closed {
            self.start_slowly(now);
        }
    }

    /// It is back. Everybody may have waited for that, so its room is opened step by step.
    fn start_slowly(&self, now: Instant) {
        let since = now.nanoseconds_since(self.base).max(1);
        self.slow_since.store(since, Ordering::Relaxed);
        self.eased_since.store(since, Ordering::Relaxed);
    }

    /// Places that it has while its room is opened step by step, and when the next step comes.
    #[inline]
    fn eased(&self, now: Instant) -> Option<(u32, Instant)> {
        match self.eased_since.load(Ordering::Relaxed) {
            0 => None,
            since => self.eased_from(since, now),
        }
    }

    fn eased_from(&self, since: u64, now: Instant) -> Option<(u32, Instant)> {
        let eased = load::eased(self.base + Duration::from_nanos(since), now, self.room.limit());
        if eased.is_none() {
            // Unless it has come back once more meanwhile.
            let _ = self.eased_since.compare_exchange(since, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
        eased
    }

    /// Places that it has now.
    #[inline]
    fn most(&self, now: Instant) -> u32 {
        self.eased(now).map_or(u32::MAX, |(most, _)| most)
    }

    /// Whether it usually answers within `left`; `None` where it has not answered yet.
    pub(super) fn answers_within(&self, left: Duration, now: Instant) -> Option<bool> {
        let last = Some(self.latency.last()).filter(|last| *last > 0.0)?;
        // What is above the peak needs no look at the histogram.
        if left.as_secs_f64() >= last {
            return Some(true);
        }
        if let Some(median) = self.quantiles.quantile(0.5, QUANTILE_MINIMUM, now) {
            self.usual.store(median.as_nanos() as u64, Ordering::Relaxed);
        }
        let usual = Some(self.usual.load(Ordering::Relaxed)).filter(|usual| *usual > 0);
        Some(usual.is_some_and(|usual| left >= Duration::from_nanos(usual)))
    }

    fn set_out(&self, bit: u8, out: bool) {
        if out {
            self.out.fetch_or(bit, Ordering::AcqRel);
        } else {
            self.out.fetch_and(!bit, Ordering::AcqRel);
        }
        self.changed();
    }

    /// A place has become free: the lines that want one are told in turn, so that none of several pools is always the first.
    fn freed(&self) {
        let (lines, now) = (self.lines.load(), clock::now());
        let first = self.turn.load(Ordering::Relaxed);
        for at in (0..lines.len()).map(|step| first.wrapping_add(step) % lines.len()) {
            if lines[at].upgrade().is_some_and(|line| line.dispatch(now)) {
                self.turn.store(at + 1, Ordering::Relaxed);
            }
        }
    }
}

impl Owner for Provider {
    fn room(&self) -> &Room {
        &self.state.room
    }

    fn freed(&self) {
        self.state.freed();
    }
}

// === impl Prospect ===

/// What keeps a provider from being leased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prospect {
    /// Nothing.
    Ready,
    /// Its limit: somebody will give a place back.
    Full,
    /// Its limit, as long as it comes back from an outage; it is higher then.
    Eased(Instant),
    /// Its pace or a cooldown, until then.
    Rested(Instant),
    /// Its circuit, which may be probed then.
    Probe(Instant),
    /// Its circuit or its checks; not before then, and we will be told.
    Told(Instant),
    /// Nobody knows when it will be back.
    Never,
}

// === impl Grant ===

impl Grant {
    /// Takes a place at `provider`.
    ///
    /// # Errors
    /// Where there is none; with what was taken in vain, which gives itself back when it is dropped.
    pub(super) fn take(provider: &Arc<Provider>, queued: bool, now: Instant) -> Result<Grant, Option<Grant>> {
        let state = &provider.state;
        let place = Permit::take(provider, queued, state.most(now)).ok_or(None)?;
        let mut grant = Grant { admitted: None, paced: false, place };
        grant.admitted = state.breaker.admit(now);
        grant.paced = grant.admitted.is_some() && state.pace.take(now).is_ok();
        if grant.paced { Ok(grant) } else { Err(Some(grant)) }
    }

    /// Whose it is.
    pub(super) fn provider(&self) -> &Arc<Provider> {
        self.place.owner()
    }

    /// Whether it decides over a circuit.
    pub(super) fn is_probe(&self) -> bool {
        self.admitted.as_ref().is_some_and(circuit::Permit::is_probe)
    }

    /// It was used, and this is what it showed.
    pub(super) fn report(&mut self, verdict: Verdict, now: Instant) {
        self.paced = false;
        if let Some(permit) = self.admitted.take() {
            self.provider().state.judge(permit, verdict, now);
        }
    }

    /// Lends what it shows of a circuit that waits for it.
    pub(super) fn take_probe(&mut self, since: Instant) -> Option<Probe> {
        let permit = Some(self.admitted.take_if(|permit| permit.is_probe())?);
        Some(Probe { since, permit, provider: Arc::clone(self.provider()) })
    }

    /// Takes it back: nothing was told yet.
    pub(super) fn put_back(&mut self, mut probe: Probe) {
        self.admitted = probe.permit.take();
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        let state = &self.place.owner().state;
        if self.paced {
            state.pace.give_back();
        }
        if let Some(permit) = self.admitted.take() {
            let now = if permit.is_probe() { clock::now() } else { state.base };
            state.breaker.report(permit, Verdict::Uncounted, now);
        }
    }
}

// === impl Probe ===

impl Probe {
    /// Whose circuit waits.
    pub fn provider(&self) -> &Provider {
        &self.provider
    }

    /// Tells it, and whoever waits for that provider.
    pub(super) fn judge(mut self, verdict: Verdict, now: Instant) {
        self.tell(verdict, now);
    }

    fn tell(&mut self, verdict: Verdict, now: Instant) {
        if let Some(permit) = self.permit.take() {
            self.provider.state.judge(permit, verdict, now);
            self.provider.state.changed();
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if self.permit.is_some() {
            self.tell(Verdict::Uncounted, clock::now());
        }
    }
}

/// A provider's rate, as its file says.
pub(super) fn pace_terms(config: &config::Provider) -> Option<pace::Terms> {
    let burst = config.limits.burst;
    config.limits.rate.map(|rate| pace::Terms { count: rate.count, per: rate.per, burst })
}

/// Numbers the states of this process.
static NEXT_ID: AtomicU32 = AtomicU32::new(0);

/// Its checks fail.
const UNHEALTHY: u8 = 1;

/// An operator takes it out of service.
const DRAINING: u8 = 2;

/// No configuration names it.
const REMOVED: u8 = 4;

/// Fewer answers than this have no quantiles worth showing.
const QUANTILE_MINIMUM: u32 = 1;
