//! From a route to an answer: lease a provider, make the attempt, report how it ended, and again elsewhere where that helps;
//! where nothing does, down the route's ladder.

mod descent;

use super::attempt::{self, Cause, Failed, Lent};
use super::client::{self, Caller};
use super::exchange::{Answered, Broken, Ended, Seen, Terms, Withheld};
use super::forward::Onward;
use super::frame::Request;
use super::heartbeat::{Heartbeat, Opened};
use super::hedge::{self, Done, Scout};
use super::identity::{Identity, Peer};
use super::record::Record;
use super::replay::Replay;
use super::respond::{Kept, Refused};
use super::snapshot::Route;
use super::{Stop, is_drainable, verdict, waiting};
use crate::clock;
use crate::config::{self, HedgeAfter, Listener};
use crate::http1::framing::Length;
use crate::instant::Instant;
use crate::net::side::Side;
use crate::net::timer::Timer;
use crate::policy::ladder::Trigger;
use crate::policy::outcome::Outcome;
use crate::policy::retry::{self, Again, Methods, Skip, So};
use crate::upstream::buffers::Held;
use crate::upstream::pool::{self, Ask, Label, Lease, Leasing, Pool, Provider, ProviderId, Wait};
use descent::Descent;
use std::fmt::Write;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

/// A request that is to be sent to a pool.
#[derive(Debug, Clone, Copy)]
pub struct Errand<'a> {
    /// The request.
    pub request: &'a Request<'a>,
    /// Its route.
    pub route: &'a Route,
    /// What it is called.
    pub identity: &'a Identity,
    /// Who asks, and how urgently.
    pub caller: &'a Caller<'a>,
    /// Who sent it.
    pub peer: &'a Peer,
    /// The listener that took it.
    pub listener: &'a Listener,
    /// Turns true when that listener goes.
    pub closing: &'a AtomicBool,
    /// When its head was complete.
    pub started: Instant,
    /// Who sees its answer's head, where a cache was asked.
    pub seen: Option<&'a dyn Seen>,
    /// Nobody waits for its answer: no rung is for it.
    pub background: bool,
}

/// A request on its way through a pool.
#[derive(Debug)]
struct Trip<'a> {
    errand: &'a Errand<'a>,
    retry: &'a config::Retry,
    /// When the whole time is over.
    whole: Instant,
    /// Of the way it is on: the pool that is asked,
    pool: &'a Pool,
    /// until when,
    deadline: Instant,
    /// how long that can be at most,
    longest: Duration,
    /// how many attempts there were before it,
    begun: u32,
    /// how many there may be in all by its end,
    ceiling: u32,
    /// and whether even its first is paid as a retry.
    repeats: bool,
    /// Where it is on its route's ladder, if there is one.
    descent: Option<Descent<'a>>,
    /// What a pool that keeps a key with its provider goes by.
    key: Option<u64>,
    made: u32,
    /// Whose attempts brought nothing.
    tried: Vec<ProviderId>,
    /// What the attempts came to: `alpha 503 12ms; beta reset 3ms`.
    trail: String,
    /// Why another attempt is to follow.
    again: Option<retry::Ended>,
    /// The pool that had nobody for it, if there was no attempt on that way.
    lacking: Option<&'a Pool>,
    /// How the latest attempt ended that brought nothing.
    ended: Option<retry::Ended>,
    /// The latest answer, while another provider is asked for a better one.
    kept: Option<Kept>,
    /// What the latest attempt means for the client, if it gave no answer to keep; where there was none, why.
    refused: Option<Refused>,
    /// See [`Lent::opened`].
    opened: Option<Opened>,
}

/// What is next for a request.
#[derive(Debug)]
enum Next {
    /// An attempt, on the way it is on.
    Attempt,
    /// What its rung does.
    Rung,
    /// Its way has ended without an answer. Says for which rungs that is; `None` where it is for none.
    Lost(Option<Trigger>),
    /// Nothing: the client has its answer.
    Done(Answered),
}

/// An attempt that ended beside the one that counts.
#[derive(Debug)]
struct Beside {
    provider: Arc<Provider>,
    word: String,
    took: Duration,
    failed: bool,
}

/// A second attempt that is over or has the head of its answer, with its lease.
type Scouted = (Lease, Result<Scout, Failed>);

/// What came of two attempts at once.
struct Pair {
    /// How the first ended; `None` where it was given up for the second.
    ended: Option<Result<Ended, Failed>>,
    /// What the second has, where that is what counts or may yet.
    scouted: Result<Option<Scouted>, Stop>,
    /// The second, where it is over already.
    beside: Option<Beside>,
}

/// Sends a request to providers of `pool`, one after the other, and then down the ladder of its route, until its client has
/// an answer or none can be had.
///
/// # Errors
/// See [`Stop`].
pub async fn send(
    errand: &Errand<'_>,
    pool: &Pool,
    lent: &mut Lent<'_>,
    record: &mut Record<'_>,
) -> Result<Answered, Stop> {
    if has_left(&mut lent.client).await {
        return Err(Stop::Gone);
    }
    let mut trip = Trip::new(errand, pool);
    if lent.replay.kept() == 0 {
        lent.replay = trip.replay();
    }
    let mut next = trip.set_out(lent);
    loop {
        next = match next {
            Next::Attempt => match trip.lease(lent, record).await? {
                Ok(lease) => {
                    let (lease, ended) = trip.attempt(lease, lent, record).await?;
                    trip.report(lease, &ended, lent, record);
                    trip.settle(ended, lent, record)?
                }
                Err(refused) => trip.give_up(&refused, lent),
            },
            Next::Lost(why) => trip.fall(why, lent, record)?,
            // Apart, because every request would carry the room for it.
            Next::Rung => Box::pin(trip.step(lent, record)).await?,
            Next::Done(answered) => return Ok(answered),
        }
    }
}

/// Whether the client gave its request up before anybody was asked. Only where that costs no system call: a reset that came
/// right behind a request in HTTP/2 is known by now.
async fn has_left(client: &mut Side<'_>) -> bool {
    client.says_that_it_leaves() && poll_fn(|cx| Poll::Ready(client.poll_gone(cx).is_ready())).await
}

/// Whether an attempt brought nothing that the client could have.
fn is_lost(ended: &Result<Ended, Failed>) -> bool {
    match ended {
        Ok(ended) => matches!(ended, Ended::Withheld(_)),
        Err(failed) => failed.kind().is_some(),
    }
}

/// What is left until then, where the client was awaited for so long.
fn left(until: Instant, awaited: Duration, now: Instant) -> Duration {
    clock::after(until, awaited).saturating_duration_since(now)
}

// === impl Errand ===

impl Errand<'_> {
    /// The client's address, as far as the peer is believed.
    pub fn address(&self) -> Option<IpAddr> {
        self.peer.client_address(&self.request.head.fields, &self.listener.trusted_proxies)
    }

    /// Who waits, for operators to see.
    fn label(&self) -> Label {
        Label {
            request_id: self.identity.request_id_text().into(),
            client: Arc::clone(&self.caller.client.name),
            route: Arc::clone(&self.route.config.name),
            method: self.request.method.into(),
            path: self.request.path.chars().take(LABEL_PATH).collect::<String>().into(),
        }
    }

    /// Whether the client's connection stays open after an answer that leaves its body unread.
    pub fn keeps_alive(&self, client: &Side<'_>) -> bool {
        self.request.keep_alive && !self.closing.load(Ordering::Relaxed) && is_drainable(self.request, client)
    }
}

// === impl Trip ===

impl<'a> Trip<'a> {
    fn new(errand: &'a Errand<'a>, pool: &'a Pool) -> Self {
        let (route, caller) = (&errand.route.config, errand.caller);
        let timeout = caller.timeout.map_or(route.timeout, |own| own.min(route.timeout));
        let deadline = clock::after(errand.started, timeout);
        Trip {
            errand,
            retry: &route.retry,
            whole: deadline,
            pool,
            deadline,
            longest: route.timeout,
            begun: 0,
            ceiling: caller.attempts.map_or(route.retry.attempts, |own| own.min(route.retry.attempts)),
            repeats: false,
            descent: None,
            key: pool.hashes_by().and_then(|by| client::hash(by, errand)),
            made: 0,
            tried: Vec::new(),
            trail: String::new(),
            again: None,
            lacking: None,
            ended: None,
            kept: None,
            refused: None,
            opened: None,
        }
    }

    /// Keeps the request's body as far as it may be sent again.
    fn replay(&self) -> Replay {
        let bodiless = matches!(self.errand.request.length, Length::None | Length::Exact(0));
        if bodiless {
            return Replay::default();
        }
        // One attempt needs no replay, but what waits is read all the same.
        Replay::new(self.retry.replay_bytes, self.pool.hold(0, self.errand.caller.part))
    }

    /// Leases a provider, at once or after waiting for one; the inner error is that none is to be had.
    async fn lease(
        &mut self,
        lent: &mut Lent<'_>,
        record: &mut Record<'_>,
    ) -> Result<Result<Lease, pool::Refused>, Stop> {
        let label = || self.errand.label();
        if self.made > 0 {
            record.goes_on();
        }
        if self.is_retry() {
            if let Some(lease) = self.pool.take(&self.ask(lent.now, Wait::Elsewhere, &label)) {
                return Ok(Ok(lease));
            }
            // Who is left has failed already or has no room: waiting a little may help with either.
            let pause = retry::wait(&self.retry.backoff, self.made, fastrand::f64());
            if clock::after(lent.now, pause) >= self.deadline {
                return Ok(Err(pool::Refused::QueueTimeout { retry_after: pause, waited: Duration::ZERO }));
            }
            Box::pin(waiting::watching(tokio::time::sleep(pause), lent)).await?;
        }
        let ask = self.ask(lent.now, Wait::Queue, &label);
        if let Some(lease) = self.pool.take(&ask) {
            return Ok(Ok(lease));
        }
        // What is there for it answers sooner than a circuit that may be probed.
        let wait = if self.has_fallback(lent) { Wait::Queue } else { Wait::QueueForProbe };
        match self.pool.queue(&Ask { wait, ..ask }) {
            Ok(Leasing::Now(lease)) => Ok(Ok(lease)),
            Ok(Leasing::Wait(place)) => {
                let since = lent.now;
                let heartbeat = Heartbeat::of(self.errand, self.pool, lent);
                let leased = Box::pin(waiting::for_lease(place, self.errand.request, heartbeat, lent)).await;
                self.opened = lent.opened;
                record.queued(lent.now.saturating_duration_since(since));
                leased
            }
            Err(refused) => Ok(Err(refused)),
        }
    }

    fn ask<'b>(&'b self, now: Instant, wait: Wait, label: &'b (dyn Fn() -> Label + Sync)) -> Ask<'b> {
        let caller = self.errand.caller;
        Ask {
            class: caller.class,
            client: caller.id,
            share: caller.client.share,
            key: self.key,
            tried: &self.tried,
            again: self.is_retry(),
            risky: !self.errand.route.retry.methods.allow(self.errand.request.method),
            bytes: 0,
            deadline: self.deadline,
            wait,
            now,
            label,
        }
    }

    /// Whether the next attempt repeats one at this pool.
    fn is_retry(&self) -> bool {
        self.made > self.begun || self.repeats
    }

    /// Makes one attempt, or two where the first is slow; with the lease of the one that counts.
    async fn attempt(
        &mut self,
        mut lease: Lease,
        lent: &mut Lent<'_>,
        record: &mut Record<'_>,
    ) -> Result<(Lease, Result<Ended, Failed>), Stop> {
        self.made += 1;
        if let Some(why) = self.again.take() {
            self.errand.route.metrics.retried(why.as_str());
        }
        if self.made >= self.ceiling {
            if !self.may_ask_below() {
                lent.replay.rewind_for_good();
            }
        } else if let Some(hedge) = self.hedges(&lease, lent) {
            return self.hedged(lease, hedge, lent, record).await;
        }
        lent.probe = lease.take_probe();
        let trip = &*self;
        let elsewhere = |status, whole, awaited| trip.may_replace(status, whole, awaited, trip.made);
        let (terms, onward) = trip.terms(&lease.provider, lease.since, &elsewhere);
        let ended = attempt::attempt(lent, &terms, &onward, &lease.provider).await;
        lease.put_back(lent.probe.take());
        self.was_awaited(lent);
        Ok((lease, ended))
    }

    /// The time in which the client was awaited is nobody else's.
    fn was_awaited(&mut self, lent: &mut Lent<'_>) {
        let awaited = std::mem::take(&mut lent.awaited);
        if awaited.is_zero() {
            return;
        }
        self.deadline = clock::after(self.deadline, awaited);
        self.whole = clock::after(self.whole, awaited);
    }

    /// Whether an answer with this status is withheld instead of passed on, after so many attempts: for another provider, or
    /// for a rung, and then says why for no other provider.
    fn may_replace(&self, status: u16, whole: bool, awaited: Duration, made: u32) -> Result<Option<Skip>, Skip> {
        let now = clock::now();
        let left = left(self.deadline, awaited, now);
        let again = self.may_go_on(retry::Ended::Status(status), whole, left, made, now);
        again.map(|()| None).or_else(|skip| self.or_falls(skip, status, whole, awaited, made))
    }

    fn or_falls(
        &self,
        skip: Skip,
        status: u16,
        whole: bool,
        awaited: Duration,
        made: u32,
    ) -> Result<Option<Skip>, Skip> {
        let left = left(self.whole, awaited, clock::now());
        if self.may_fall_after(status, whole, left, made) { Ok(Some(skip)) } else { Err(skip) }
    }

    /// After what time a second attempt is made beside this one, and what its copy of the body holds; `None` where it never
    /// is.
    fn hedges(&self, lease: &Lease, lent: &Lent<'_>) -> Option<(Duration, Option<Held>)> {
        let request = self.errand.request;
        let hedge = self.retry.hedge?;
        let fits = Methods::Idempotent.allow(request.method) && !request.upgrade && lent.client.body_is_done();
        // A connection that announces its client cannot be had without one.
        if !fits || !lent.replay.is_whole() || lease.provider.config.proxy_protocol.is_some() {
            return None;
        }
        let after = match hedge.after {
            HedgeAfter::Time(after) => after,
            HedgeAfter::Quantile(part) => lease.provider.state.quantiles.quantile(part, HEDGE_MINIMUM, lent.now)?,
        };
        match lent.replay.kept() {
            0 => Some((after, None)),
            bytes => Some((after, Some(self.pool.hold(bytes, self.errand.caller.part)?))),
        }
    }

    /// Makes an attempt, and another beside it once it takes longer than `after`; `_held` is its copy of the body.
    async fn hedged(
        &mut self,
        mut lease: Lease,
        (after, _held): (Duration, Option<Held>),
        lent: &mut Lent<'_>,
        record: &mut Record<'_>,
    ) -> Result<(Lease, Result<Ended, Failed>), Stop> {
        let begun = OnceLock::new();
        lent.probe = lease.take_probe();
        let mut alarm = std::mem::take(lent.hedge_timer);
        let Pair { ended, scouted, mut beside } = self.both(&lease, (after, &mut alarm), &begun, lent, record).await;
        *lent.hedge_timer = alarm;
        lease.put_back(lent.probe.take());
        if begun.get().is_some() {
            lent.now = clock::now();
        }
        self.was_awaited(lent);
        self.made += u32::from(begun.get().is_some());
        if let (Ok(None), None, Some(begun)) = (&scouted, &beside, begun.get()) {
            beside = Some(self.overtaken(begun, lent.now, record));
        }
        if let Some(Beside { provider, word, took, failed }) = beside {
            self.note(&provider.name, &word, took);
            self.tried.extend(failed.then(|| provider.id()));
        }
        let Some(ended) = ended else {
            self.cancel(lease, lent.now, record);
            return self.go_on(scouted?, lent).await;
        };
        if let Ok(None) = scouted {
            return Ok((lease, ended));
        }
        self.report(lease, &ended, lent, record);
        if let Ok(Ended::Withheld(withheld)) = ended {
            self.keep(withheld, lent);
        }
        self.go_on(scouted?, lent).await
    }

    /// Two attempts until it is clear which of them counts.
    async fn both(
        &self,
        lease: &Lease,
        (after, alarm): (Duration, &mut Timer),
        begun: &OnceLock<(Arc<Provider>, Instant)>,
        lent: &mut Lent<'_>,
        record: &mut Record<'_>,
    ) -> Pair {
        let (committed, second_failed, relied) = <(AtomicBool, AtomicBool, AtomicBool)>::default();
        let (body, worker) = (lent.replay.copy(), lent.worker);
        let is_good = |scout: &Scout| !self.errand.route.retry.on.include(retry::Ended::Status(scout.answer.status));
        let elsewhere = |status, whole, awaited| {
            let failed = second_failed.load(Ordering::Relaxed);
            if begun.get().is_none() || failed {
                return self.may_replace(status, whole, awaited, self.made + u32::from(failed));
            }
            // Another is asked already, and was paid for.
            let time = left(self.deadline, awaited, clock::now());
            match self.helps(retry::Ended::Status(status), whole, time, self.made) {
                Ok(()) => relied.store(true, Ordering::Relaxed),
                Err(skip) => return self.or_falls(skip, status, whole, awaited, self.made),
            }
            Ok(None)
        };
        let mut second =
            pin!(Some(self.second((lease.since, after, alarm), lease.provider.id(), &body, worker, begun)));
        let Pair { ended, scouted, beside } = {
            let (mut terms, onward) = self.terms(&lease.provider, lease.since, &elsewhere);
            terms.committed = Some(&committed);
            let mut first = pin!(attempt::attempt(lent, &terms, &onward, &lease.provider));
            match hedge::race(first.as_mut(), second.as_mut(), &committed).await {
                Done::First(ended) => Pair { ended: Some(ended), scouted: Ok(None), beside: None },
                Done::Second((own, Ok(scout))) if is_good(&scout) => {
                    Pair { ended: None, scouted: Ok(Some((own, Ok(scout)))), beside: None }
                }
                // The first keeps its answer back, because this one was under way.
                Done::Second(scouted) if relied.load(Ordering::Relaxed) => {
                    Pair { ended: Some(first.await), scouted: Ok(Some(scouted)), beside: None }
                }
                // What either holds is given back now: the first may go on for long.
                Done::Second((own, scouted)) => {
                    second_failed.store(true, Ordering::Relaxed);
                    let beside = Some(self.spend(own, scouted, clock::now(), record));
                    Pair { ended: Some(first.await), scouted: Ok(None), beside }
                }
                Done::Committed => {
                    second.set(None);
                    let beside = begun.get().map(|begun| self.overtaken(begun, clock::now(), record));
                    Pair { ended: Some(first.await), scouted: Ok(None), beside }
                }
            }
        };
        // Where the first is lost and the second under way, that is what another attempt would be.
        let is_alone = beside.is_none() && matches!(scouted, Ok(None)) && begun.get().is_some();
        if is_alone && ended.as_ref().is_some_and(is_lost) {
            let second = poll_fn(|cx| hedge::poll_if_there(second.as_mut(), cx));
            return Pair { ended, scouted: waiting::watching(second, lent).await.map(Some), beside };
        }
        Pair { ended, scouted, beside }
    }

    /// The attempt beside the first, once that has taken so long.
    async fn second(
        &self,
        (since, after, alarm): (Instant, Duration, &mut Timer),
        first: ProviderId,
        body: &[u8],
        worker: usize,
        begun: &OnceLock<(Arc<Provider>, Instant)>,
    ) -> Scouted {
        let (due, mut just_begun) = (clock::after(since, after), Some(since));
        poll_fn(|cx| alarm.poll(cx, due, just_begun.take().unwrap_or_else(clock::now))).await;
        // Apart, because every request would carry the room for it, and hardly any comes this far.
        Box::pin(self.beside(first, body, worker, begun)).await
    }

    /// Takes a lease if one is to be had, and goes as far as the head.
    async fn beside(
        &self,
        first: ProviderId,
        body: &[u8],
        worker: usize,
        begun: &OnceLock<(Arc<Provider>, Instant)>,
    ) -> Scouted {
        let now = clock::now();
        let affordable = self.retry.hedge.is_some_and(|hedge| self.pool.spending().hedge(hedge.budget, now));
        let label = || self.errand.label();
        let tried = [&self.tried[..], &[first]].concat();
        let ask = Ask { tried: &tried, again: true, ..self.ask(now, Wait::Hedge, &label) };
        let Some(lease) = affordable.then(|| self.pool.take(&ask)).flatten() else {
            if affordable {
                self.pool.spending().unspent_hedge();
            }
            // Nothing more comes of it; the first goes on alone.
            return std::future::pending().await;
        };
        let (provider, since) = begun.get_or_init(|| (Arc::clone(&lease.provider), lease.since));
        let lease = hedge::Hedged::new(lease);
        let (terms, onward) = self.terms(provider, *since, &|_, _, _| Err(Skip::NotRetryable));
        let scouted = hedge::scout(&terms, &onward, provider, body, worker).await;
        (lease.into_lease(), scouted)
    }

    /// Passes on the answer of a second attempt, if there is one.
    async fn go_on(
        &self,
        scouted: Option<Scouted>,
        lent: &mut Lent<'_>,
    ) -> Result<(Lease, Result<Ended, Failed>), Stop> {
        let (mut lease, scouted) = scouted.ok_or(Stop::Gone)?;
        lent.probe = lease.take_probe();
        let ended = match scouted {
            Ok(scout) => {
                *lent.answer = scout.answer;
                let elsewhere = |status, whole, awaited| self.may_replace(status, whole, awaited, self.made);
                let (terms, _) = self.terms(&lease.provider, lease.since, &elsewhere);
                attempt::finish(scout.sent, lent, &terms, &lease.provider, true).await.0
            }
            Err(failed) => Err(failed),
        };
        lease.put_back(lent.probe.take());
        Ok((lease, ended))
    }

    /// A second attempt has failed while the first goes on.
    fn spend(&self, lease: Lease, ended: Result<Scout, Failed>, now: Instant, record: &mut Record<'_>) -> Beside {
        let took = now.saturating_duration_since(lease.since);
        let breaker = &lease.provider.config.circuit_breaker;
        let (report, word) = match ended {
            Ok(scout) => (verdict::by_answer(&scout.answer, took, breaker), scout.answer.status.to_string()),
            Err(failed) => (verdict::by_failure(&failed, breaker), failed.word().to_owned()),
        };
        let provider = Arc::clone(&lease.provider);
        record.attempted(&provider, report.outcome, took, now);
        self.pay(&provider);
        lease.finish(report, now);
        Beside { provider, word, took, failed: true }
    }

    /// A second attempt was slower than the first, and is given up; its lease knows.
    fn overtaken(&self, begun: &(Arc<Provider>, Instant), now: Instant, record: &mut Record<'_>) -> Beside {
        let (provider, took) = (Arc::clone(&begun.0), now.saturating_duration_since(begun.1));
        record.attempted(&provider, Outcome::LocalRefusal, took, now);
        self.pay(&provider);
        Beside { provider, word: "overtaken".to_owned(), took, failed: false }
    }

    /// The first attempt was slower than the second, and is given up.
    fn cancel(&mut self, lease: Lease, now: Instant, record: &mut Record<'_>) {
        let took = now.saturating_duration_since(lease.since);
        self.note(&lease.provider.name, "overtaken", took);
        record.attempted(&lease.provider, Outcome::LocalRefusal, took, now);
        self.pay(&lease.provider);
        hedge::overtaken(lease, now);
    }

    /// What the exchange has to keep to, and what shapes the request, for the leased provider.
    fn terms<'b>(
        &'b self,
        provider: &'b Provider,
        since: Instant,
        elsewhere: &'b (dyn Fn(u16, bool, Duration) -> Result<Option<Skip>, Skip> + Sync),
    ) -> (Terms<'b>, Onward<'b>) {
        let (errand, provider) = (self.errand, &provider.config);
        let route = &errand.route.config;
        let (request, rewrite) = self.sent();
        let left = self.deadline.saturating_duration_since(since);
        let terms = Terms {
            request,
            identity: errand.identity,
            rewrite,
            degraded: self.rung(),
            provider: &provider.name,
            headers: &provider.headers,
            closing: errand.closing,
            deadline: self.deadline,
            // Less by what came before: a client's own time, a wait in the queue, another attempt.
            full: left.as_nanos() * 10 >= self.longest.as_nanos() * 9,
            attempt_deadline: clock::after(since, self.retry.attempt_timeout),
            trail: &self.trail,
            seen: errand.seen,
            elsewhere,
            commit: self.retry.commit,
            committed: None,
            opened: self.opened,
            stream_timeout: route.stream_timeout,
            first_byte: provider.timeouts.first_byte,
            provider_idle: provider.timeouts.idle,
            client_idle: errand.listener.limits.idle_timeout,
            min_body_rate: errand.listener.limits.min_body_rate,
        };
        let onward = Onward {
            request,
            rewrite,
            provider,
            peer: errand.peer,
            identity: errand.identity,
            key_fields: errand.caller.key_fields,
            left,
            plain: self.opened.is_some(),
        };
        (terms, onward)
    }

    /// Whether another attempt may follow one that ended so, after so many; it is taken from the pool's budget.
    fn may_go_on(&self, ended: retry::Ended, whole: bool, left: Duration, made: u32, now: Instant) -> Result<(), Skip> {
        self.helps(ended, whole, left, made)?;
        if self.pool.spending().retry(&self.retry.budget, now) { Ok(()) } else { Err(Skip::Budget) }
    }

    /// The same, whatever it costs.
    fn helps(&self, ended: retry::Ended, whole: bool, left: Duration, made: u32) -> Result<(), Skip> {
        match retry::again(&self.errand.route.retry, ended, &self.state(Some(ended), whole, left, made)) {
            Again::No(skip) => Err(skip),
            Again::Yes if made >= self.ceiling => Err(Skip::Attempts),
            Again::Yes => Ok(()),
        }
    }

    /// How far it has come.
    fn state(&self, ended: Option<retry::Ended>, whole: bool, left: Duration, made: u32) -> So<'a> {
        let (request, route) = (self.errand.request, self.errand.route);
        So {
            attempts_made: made,
            method: request.method,
            keyed: route.retry.idempotency_key && request.head.fields.named(b"idempotency-key").next().is_some(),
            replayable: whole,
            // Who refuses a stream may have been sent part of its body before.
            nothing_sent: ended == Some(retry::Ended::Connect),
            left,
        }
    }

    /// Gives the lease back and notes how the attempt ended.
    fn report(&mut self, lease: Lease, ended: &Result<Ended, Failed>, lent: &Lent<'_>, record: &mut Record<'_>) {
        let report = verdict::report(ended, &lease, lent);
        let took = lent.now.saturating_duration_since(lease.since);
        record.attempted(&lease.provider, report.outcome, took, lent.now);
        let word = match ended {
            Ok(Ended::Answered(_)) => None,
            Ok(Ended::Withheld(_)) => Some(lent.answer.status.to_string()),
            Err(failed) => Some(failed.word().to_owned()),
        };
        record.error = ended.as_ref().err().map(Failed::describe);
        if let Some(word) = word {
            self.tried.push(lease.provider.id());
            self.note(&lease.provider.name, &word, took);
        }
        self.pay(&lease.provider);
        lease.finish(report, lent.now);
    }

    /// Every attempt costs, however it ends.
    fn pay(&self, provider: &Provider) {
        if let Some(cost) = provider.config.cost {
            self.errand.route.metrics.spent(&provider.metrics, cost);
        }
    }

    /// What comes of an attempt that has ended.
    fn settle(
        &mut self,
        ended: Result<Ended, Failed>,
        lent: &mut Lent<'_>,
        record: &mut Record<'_>,
    ) -> Result<Next, Stop> {
        let series = &self.errand.route.metrics;
        let failed = match ended {
            Ok(Ended::Answered(answered)) => {
                answered.skipped.inspect(|skip| series.skipped(*skip));
                self.answered(Some(lent.answer.status), answered.head_at.unwrap_or(lent.now), record);
                return Ok(Next::Done(answered));
            }
            Ok(Ended::Withheld(withheld)) => {
                let status = lent.answer.status;
                let skipped = withheld.skipped;
                self.keep(withheld, lent);
                return Ok(self.lost(retry::Ended::Status(status), skipped));
            }
            Err(failed) => failed,
        };
        if failed.committed {
            self.broke(failed.outcome() == Outcome::Failure, lent.now, record);
            return Err(verdict::stop(&failed, &self.trail));
        }
        if let Some(kind) = failed.kind() {
            let time = self.deadline.saturating_duration_since(lent.now);
            let skipped = self.may_go_on(kind, lent.replay.is_whole(), time, self.made, lent.now).err();
            self.refused = Some(verdict::refuse(&failed.cause));
            return Ok(self.lost(kind, skipped));
        }
        match failed.cause {
            Cause::Exchange(Broken::Deadline { .. }) => {
                self.ended = Some(retry::Ended::Timeout);
                let why = Trigger::of_time(self.whole <= lent.now, self.made - self.begun);
                // Time that was kept for rungs is left over where none takes it.
                let told = if why == Trigger::Deadline { &failed.cause } else { &Cause::Exchange(Broken::Attempt) };
                self.refused = Some(verdict::refuse(told));
                Ok(Next::Lost(Some(why)))
            }
            Cause::Exchange(Broken::NoUpgrade) => {
                self.refused = Some(verdict::refuse(&failed.cause));
                Ok(Next::Lost(Some(Trigger::AttemptsExhausted)))
            }
            _ => Err(verdict::stop(&failed, &self.trail)),
        }
    }

    /// An attempt has ended so without an answer for the client, and another follows unless it is `skipped`.
    fn lost(&mut self, ended: retry::Ended, skipped: Option<Skip>) -> Next {
        self.ended = Some(ended);
        let Some(skip) = skipped else {
            self.again = self.ended;
            return Next::Attempt;
        };
        self.errand.route.metrics.skipped(skip);
        self.note_skip(skip);
        let passes = matches!(ended, retry::Ended::Status(status) if !Trigger::is_of_status(status));
        Next::Lost((!passes).then_some(Trigger::AttemptsExhausted))
    }

    /// Keeps an answer, should there be no better one.
    fn keep(&mut self, withheld: Withheld, lent: &mut Lent<'_>) {
        let head = std::mem::take(lent.answer);
        self.refused = Some(verdict::unkept());
        // Nothing of it can be said to a client that has a head already, but what it was.
        if self.opened.is_some() {
            self.refused = Some(verdict::no_stream(head.status));
        }
        let degraded = self.rung();
        self.kept = withheld.body.map(|body| Kept { head, body, degraded });
    }

    /// No provider is to be had (any more).
    fn give_up(&mut self, refused: &pool::Refused, lent: &Lent<'_>) -> Next {
        if self.is_retry() {
            self.pool.spending().unspent_retry();
            let skip = match refused {
                pool::Refused::QueueTimeout { .. } => Skip::Deadline,
                _ => Skip::NoProvider,
            };
            self.errand.route.metrics.skipped(skip);
            self.note_skip(skip);
        }
        let told = verdict::not_leased(refused, &self.pool.name);
        let made = self.made - self.begun;
        self.lacking = (made == 0).then_some(self.pool);
        let why = told.refusal.trigger().map(|why| match why {
            Trigger::QueueTimeout => Trigger::of_time(self.whole <= lent.now, made),
            why if made == 0 => why,
            _ => Trigger::AttemptsExhausted,
        });
        // What a provider did says more, and so does what was in the way first.
        self.refused.get_or_insert(told);
        Next::Lost(why)
    }

    /// Passes the last real answer on; where there was none, a problem of ours.
    fn last_answer(&mut self, lent: &mut Lent<'_>) -> Result<Answered, Stop> {
        if let Some(kept) = self.kept.take() {
            if self.opened.is_some() {
                return Err(verdict::no_stream(kept.head.status).into());
            }
            let keep_alive = self.errand.keeps_alive(&lent.client);
            let status = kept.write(self.errand, &self.trail, keep_alive, &mut lent.client);
            return Ok(Answered { status, reusable: None, keep_alive, head_at: None, skipped: None });
        }
        Err(self.why().into())
    }

    fn note(&mut self, provider: &str, word: &str, took: Duration) {
        let semicolon = if self.trail.is_empty() { "" } else { "; " };
        // Writing to a string does not fail.
        let _: std::fmt::Result = write!(self.trail, "{semicolon}{provider} {word} {}ms", took.as_millis());
    }

    fn note_skip(&mut self, skip: Skip) {
        if let Some(why) = verdict::not_retried(skip) {
            self.trail.push_str("; ");
            self.trail.push_str(why);
        }
    }
}

/// Letters of a path by which operators tell who waits: a client may send a thousand times as many, in each of its requests.
const LABEL_PATH: usize = 256;

/// Fewer recent answers than this say nothing about what is slow.
const HEDGE_MINIMUM: u32 = 20;
