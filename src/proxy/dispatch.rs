//! From a route to an answer: lease a provider, make the attempt, report how it ended, and again elsewhere where that helps.

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
use crate::net::side::Side;
use crate::policy::outcome::Outcome;
use crate::policy::retry::{self, Again, Methods, Skip, So};
use crate::upstream::buffers::Held;
use crate::upstream::pool::{self, Ask, Label, Lease, Leasing, Pool, Provider, ProviderId, Wait};
use std::fmt::Write;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::{Duration, Instant};

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
}

/// A request on its way through a pool.
#[derive(Debug)]
struct Trip<'a> {
    errand: &'a Errand<'a>,
    pool: &'a Pool,
    retry: &'a config::Retry,
    deadline: Instant,
    /// Attempts there may be in all.
    ceiling: u32,
    /// What a pool that keeps a key with its provider goes by.
    key: Option<u64>,
    made: u32,
    /// Whose attempts brought nothing.
    tried: Vec<ProviderId>,
    /// What the attempts came to: `alpha 503 12ms; beta reset 3ms`.
    trail: String,
    /// Why another attempt is to follow.
    again: Option<retry::Ended>,
    /// The latest answer, while another provider is asked for a better one.
    kept: Option<Kept>,
    /// What the latest attempt means for the client, if it gave no answer to keep.
    refused: Option<Refused>,
    /// See [`Lent::opened`].
    opened: Option<Opened>,
}

/// An attempt that ended beside the one that counts.
#[derive(Debug)]
struct Beside {
    provider: Arc<Provider>,
    word: String,
    took: Duration,
    failed: bool,
}

/// Sends a request to providers of `pool`, one after the other, until its client has an answer or none can be had.
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
    loop {
        let lease = match trip.lease(lent, record).await? {
            Ok(lease) => lease,
            Err(refused) => return trip.give_up(&refused, lent),
        };
        let (lease, ended) = trip.attempt(lease, lent, record).await?;
        trip.report(lease, &ended, lent, record);
        if let Some(answered) = trip.settle(ended, lent)? {
            return Ok(answered);
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
        Trip {
            errand,
            pool,
            retry: &route.retry,
            deadline: clock::after(errand.started, timeout),
            ceiling: caller.attempts.map_or(route.retry.attempts, |own| own.min(route.retry.attempts)),
            key: pool.hashes_by().and_then(|by| client::hash(by, errand)),
            made: 0,
            tried: Vec::new(),
            trail: String::new(),
            again: None,
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
            if let Ok(Leasing::Now(lease)) = self.pool.lease(&self.ask(lent.now, Wait::Elsewhere, &label)) {
                return Ok(Ok(lease));
            }
            // Who is left has failed already or has no room: waiting a little may help with either.
            let pause = retry::wait(&self.retry.backoff, self.made, fastrand::f64());
            if clock::after(lent.now, pause) >= self.deadline {
                return Ok(Err(pool::Refused::QueueTimeout { retry_after: pause, waited: Duration::ZERO }));
            }
            Box::pin(waiting::watching(tokio::time::sleep(pause), lent)).await?;
        }
        match self.pool.lease(&self.ask(lent.now, Wait::QueueForProbe, &label)) {
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
            again: self.made > 0,
            risky: !self.errand.route.retry.methods.allow(self.errand.request.method),
            bytes: 0,
            deadline: self.deadline,
            wait,
            now,
            label,
        }
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
            lent.replay.rewind_for_good();
        } else if let Some(hedge) = self.hedges(&lease, lent) {
            // Apart, because every request would carry the room for it.
            return Box::pin(self.hedged(lease, hedge, lent, record)).await;
        }
        lent.probe = lease.take_probe();
        let trip = &*self;
        let elsewhere = |status, whole, awaited| trip.may_replace(status, whole, awaited, trip.made);
        let (terms, onward) = trip.terms(&lease.provider, lease.since, &elsewhere);
        let ended = attempt::attempt(lent, &terms, &onward, &lease.provider).await;
        lease.put_back(lent.probe.take());
        self.deadline = clock::after(self.deadline, std::mem::take(&mut lent.awaited));
        Ok((lease, ended))
    }

    /// Whether another provider is asked instead of passing on an answer with this status, after so many attempts.
    fn may_replace(&self, status: u16, whole: bool, awaited: Duration, made: u32) -> Result<(), Skip> {
        let now = clock::now();
        self.may_go_on(retry::Ended::Status(status), whole, self.left(awaited, now), made, now)
    }

    /// What is left of the time, where the client was awaited for so long.
    fn left(&self, awaited: Duration, now: Instant) -> Duration {
        clock::after(self.deadline, awaited).saturating_duration_since(now)
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
        let (committed, second_failed, relied) = <(AtomicBool, AtomicBool, AtomicBool)>::default();
        let begun = OnceLock::new();
        let (body, worker) = (lent.replay.copy(), lent.worker);
        lent.probe = lease.take_probe();
        let tried = [&self.tried[..], &[lease.provider.id()]].concat();
        let trip = &*self;
        let is_good = |scout: &Scout| !trip.errand.route.retry.on.include(retry::Ended::Status(scout.answer.status));
        let elsewhere = |status, whole, awaited| {
            let failed = second_failed.load(Ordering::Relaxed);
            if begun.get().is_none() || failed {
                return trip.may_replace(status, whole, awaited, trip.made + u32::from(failed));
            }
            // Another is asked already, and was paid for.
            trip.helps(retry::Ended::Status(status), whole, trip.left(awaited, clock::now()), trip.made)?;
            relied.store(true, Ordering::Relaxed);
            Ok(())
        };
        let mut beside = None;
        let (ended, scouted) = {
            let mut second = pin!(Some(trip.second(after, &tried, &body, worker, &begun)));
            let (ended, scouted) = {
                let (mut terms, onward) = trip.terms(&lease.provider, lease.since, &elsewhere);
                terms.committed = Some(&committed);
                let mut first = pin!(attempt::attempt(lent, &terms, &onward, &lease.provider));
                match hedge::race(first.as_mut(), second.as_mut(), &committed).await {
                    Done::First(ended) => (Some(ended), None),
                    Done::Second((own, Ok(scout))) if is_good(&scout) => (None, Some((own, Ok(scout)))),
                    // The first keeps its answer back, because this one was under way.
                    Done::Second(scouted) if relied.load(Ordering::Relaxed) => (Some(first.await), Some(scouted)),
                    // What either holds is given back now: the first may go on for long.
                    Done::Second((own, scouted)) => {
                        second_failed.store(true, Ordering::Relaxed);
                        beside = Some(trip.spend(own, scouted, clock::now(), record));
                        (Some(first.await), None)
                    }
                    Done::Committed => {
                        second.set(None);
                        beside = begun.get().map(|begun| trip.overtaken(begun, clock::now(), record));
                        (Some(first.await), None)
                    }
                }
            };
            // Where the first is lost and the second under way, that is what another attempt would be.
            let goes_on = beside.is_none() && scouted.is_none() && begun.get().is_some();
            if goes_on && ended.as_ref().is_some_and(is_lost) {
                let second = poll_fn(|cx| hedge::poll_if_there(second.as_mut(), cx));
                (ended, waiting::watching(second, lent).await.map(Some))
            } else {
                (ended, Ok(scouted))
            }
        };
        lease.put_back(lent.probe.take());
        lent.now = clock::now();
        self.deadline = clock::after(self.deadline, std::mem::take(&mut lent.awaited));
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

    /// The attempt beside the first: waits until it is due, takes a lease if one is to be had, and goes as far as the head.
    async fn second(
        &self,
        after: Duration,
        tried: &[ProviderId],
        body: &[u8],
        worker: usize,
        begun: &OnceLock<(Arc<Provider>, Instant)>,
    ) -> (Lease, Result<Scout, Failed>) {
        tokio::time::sleep(after).await;
        let now = clock::now();
        let affordable = self.retry.hedge.is_some_and(|hedge| self.pool.spending().hedge(hedge.budget, now));
        let label = || self.errand.label();
        let ask = Ask { tried, again: true, ..self.ask(now, Wait::Hedge, &label) };
        let Some(Leasing::Now(lease)) = affordable.then(|| self.pool.lease(&ask).ok()).flatten() else {
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
        scouted: Option<(Lease, Result<Scout, Failed>)>,
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
        elsewhere: &'b (dyn Fn(u16, bool, Duration) -> Result<(), Skip> + Sync),
    ) -> (Terms<'b>, Onward<'b>) {
        let (errand, provider) = (self.errand, &provider.config);
        let route = &errand.route.config;
        let terms = Terms {
            request: errand.request,
            identity: errand.identity,
            rewrite: &route.rewrite,
            provider: &provider.name,
            headers: &provider.headers,
            closing: errand.closing,
            deadline: self.deadline,
            // Less by what came before: a client's own time, a wait in the queue, another attempt.
            full: self.deadline.saturating_duration_since(since) >= route.timeout / 10 * 9,
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
            request: errand.request,
            rewrite: &route.rewrite,
            provider,
            peer: errand.peer,
            identity: errand.identity,
            key_fields: errand.caller.key_fields,
            left: self.deadline.saturating_duration_since(since),
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
        let so = So {
            attempts_made: made,
            method: self.errand.request.method,
            keyed: self.errand.request.head.fields.named(b"idempotency-key").next().is_some(),
            replayable: whole,
            // Who refuses a stream may have been sent part of its body before.
            nothing_sent: ended == retry::Ended::Connect,
            left,
        };
        match retry::again(&self.errand.route.retry, ended, &so) {
            Again::No(skip) => Err(skip),
            Again::Yes if made >= self.ceiling => Err(Skip::Attempts),
            Again::Yes => Ok(()),
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

    /// What the client gets; `None` where another provider is to be asked.
    fn settle(&mut self, ended: Result<Ended, Failed>, lent: &mut Lent<'_>) -> Result<Option<Answered>, Stop> {
        let series = &self.errand.route.metrics;
        let failed = match ended {
            Ok(Ended::Answered(answered)) => {
                answered.skipped.inspect(|skip| series.skipped(*skip));
                return Ok(Some(answered));
            }
            Ok(Ended::Withheld(withheld)) => {
                self.again = Some(retry::Ended::Status(lent.answer.status));
                let skipped = withheld.skipped;
                self.keep(withheld, lent);
                let Some(skip) = skipped else { return Ok(None) };
                series.skipped(skip);
                return self.last_answer(lent).map(Some);
            }
            Err(failed) => failed,
        };
        let Some(kind) = failed.kind() else {
            return match failed.cause {
                Cause::Exchange(Broken::Deadline { .. }) if self.kept.is_some() => self.last_answer(lent).map(Some),
                _ => Err(verdict::stop(&failed, &self.trail)),
            };
        };
        let time = self.deadline.saturating_duration_since(lent.now);
        match self.may_go_on(kind, lent.replay.is_whole(), time, self.made, lent.now) {
            Ok(()) => {
                self.again = Some(kind);
                self.refused = Some(verdict::refuse(&failed.cause));
                Ok(None)
            }
            Err(skip) => {
                series.skipped(skip);
                self.note_skip(skip);
                self.refused = Some(verdict::refuse(&failed.cause));
                self.last_answer(lent).map(Some)
            }
        }
    }

    /// Keeps an answer, should there be no better one.
    fn keep(&mut self, withheld: Withheld, lent: &mut Lent<'_>) {
        let head = std::mem::take(lent.answer);
        self.refused = Some(verdict::unkept());
        // Nothing of it can be said to a client that has a head already, but what it was.
        if self.opened.is_some() {
            self.refused = Some(verdict::no_stream(head.status));
        }
        self.kept = withheld.body.map(|body| Kept { head, body });
    }

    /// No provider is to be had any more.
    fn give_up(&mut self, refused: &pool::Refused, lent: &mut Lent<'_>) -> Result<Answered, Stop> {
        if self.made == 0 {
            return Err(verdict::not_leased(refused, &self.pool.name).into());
        }
        self.pool.spending().unspent_retry();
        let skip = match refused {
            pool::Refused::QueueTimeout { .. } => Skip::Deadline,
            _ => Skip::NoProvider,
        };
        self.errand.route.metrics.skipped(skip);
        self.note_skip(skip);
        self.last_answer(lent)
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
        let refused = self.refused.take().unwrap_or_else(verdict::unkept);
        Err(refused.trail(std::mem::take(&mut self.trail)).into())
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
