//! A request on its way down its route's ladder: which rung, what for, what that may take, and what is told of it.
//!
//! Where a way has ended without an answer, [`Trip::fall`] goes to the next rung that can answer, and [`Trip::step`] does
//! what that rung does: it answers, or it makes a way of its own out of it, with a pool, a request, a ceiling and a deadline.

use super::{Errand, Next, Trip};
use crate::clock;
use crate::config::Rewrite;
use crate::instant::Instant;
use crate::observe::metrics::RouteMetrics;
use crate::policy::ladder::{Kind, Share, So, Trigger, Walk};
use crate::policy::retry::{self, Ended, Skip};
use crate::proxy::attempt::Lent;
use crate::proxy::exchange::{Answered, Spare};
use crate::proxy::frame::Request;
use crate::proxy::ladder::{Ladder, Rung, Static};
use crate::proxy::record::Record;
use crate::proxy::reduce::{Body, Reduced};
use crate::proxy::replay::Replay;
use crate::proxy::respond::{Came, Circumstances, Refused};
use crate::proxy::{Stop, client, verdict, waiting};
use crate::upstream::pool::Pool;
use std::sync::Arc;
use std::time::Duration;

/// Where a request is on its route's ladder.
#[derive(Debug)]
pub(super) struct Descent<'a> {
    ladder: &'a Ladder,
    walk: Walk,
    /// Why it came to its rung; `None` where it began there, and on the ordinary way.
    fell: Option<Trigger>,
    /// The request as its rung sends it.
    less: Option<Box<Less<'a>>>,
    /// What was read of the client's body, while the rung sends another.
    replay: Option<Replay>,
}

/// A reduced request.
#[derive(Debug)]
struct Less<'a> {
    request: Request<'a>,
    rewrite: &'a Rewrite,
}

// === impl Descent ===

impl<'a> Descent<'a> {
    fn rung(&self) -> Option<&'a Rung> {
        self.walk.at().map(|at| &self.ladder.rungs[at])
    }

    fn kind(&self) -> Option<Kind> {
        self.walk.at().map(|at| self.ladder.policy.rungs()[at].kind)
    }
}

// === impl Trip ===

impl<'a> Trip<'a> {
    /// Sets out on the ordinary way, or where the route is degraded on a rung.
    pub(super) fn set_out(&mut self, lent: &Lent<'_>) -> Next {
        match &self.errand.route.ladder {
            None => Next::Attempt,
            Some(_) if self.errand.background => Next::Attempt,
            Some(ladder) => self.begin(ladder, ladder.live.begin(lent.now, || self.pool.fullness()), lent),
        }
    }

    /// Begins on the rung `degraded` or the first one below it that can answer, else on the ordinary way.
    fn begin(&mut self, ladder: &'a Ladder, degraded: Option<usize>, lent: &Lent<'_>) -> Next {
        let walk = match degraded {
            None => Walk::ordinary(),
            Some(_) => Walk::begin(&ladder.policy, degraded, &self.so(self.ended, lent)),
        };
        self.descent = Some(Descent { ladder, walk, fell: None, less: None, replay: None });
        if walk.at().is_some() {
            return Next::Rung;
        }
        self.take_share(lent.now);
        Next::Attempt
    }

    /// Goes from a way that has ended without an answer to the next rung that has one, perhaps. Without such a rung the client
    /// gets the latest answer of a provider, or is told why there is none.
    pub(super) fn fall(
        &mut self,
        why: Option<Trigger>,
        lent: &mut Lent<'_>,
        record: &mut Record<'_>,
    ) -> Result<Next, Stop> {
        let (begun, now) = (self.errand.started, lent.now);
        if let (Some(descent), Some(why)) = (&mut self.descent, why) {
            if descent.walk.at().is_none() {
                descent.ladder.live.ended(false, now.saturating_duration_since(begun), now);
            }
            if let Some(replay) = descent.replay.take() {
                lent.replay = replay;
            }
            descent.less = None;
            if self.descend(why, lent) {
                return Ok(Next::Rung);
            }
        }
        if let (Some(descent), Some(_)) = (&self.descent, why)
            && !spare(self.errand, now).is_some_and(|spare| spare.may_replace_errors)
        {
            descent.ladder.live.unanswered();
        }
        if let Some(kind) = self.kept.as_ref().and_then(|kept| kept.degraded) {
            self.label(kind, record);
        }
        self.last_answer(lent).map(Next::Done)
    }

    fn descend(&mut self, why: Trigger, lent: &Lent<'_>) -> bool {
        let so = self.so(self.ended, lent);
        let Some(descent) = &mut self.descent else { return false };
        let Some(at) = descent.walk.descend(&descent.ladder.policy, why, &so) else { return false };
        descent.fell = Some(why);
        let asks = descent.ladder.policy.rungs()[at].kind.asks();
        if let Some(pool) = self.lacking.take().filter(|_| asks) {
            let semicolon = if self.trail.is_empty() { "" } else { "; " };
            self.trail.extend([semicolon, &*pool.name, " ", why.as_str()]);
        }
        // What a rung does is no retry.
        self.again = None;
        true
    }

    /// Does what its rung does.
    ///
    /// # Errors
    /// See [`Stop`].
    pub(super) async fn step(&mut self, lent: &mut Lent<'_>, record: &mut Record<'_>) -> Result<Next, Stop> {
        let stands = match self.descent.as_ref().and_then(Descent::rung) {
            Some(Rung::Static(answer)) => return Ok(Next::Done(self.say(answer, lent, record))),
            Some(Rung::Pool(pool)) => {
                self.go_to(pool, lent.now);
                true
            }
            Some(Rung::Reduced(pool, reduced)) => {
                self.go_to(pool, lent.now);
                self.reduce(reduced, lent).await? && self.affords(pool, lent.now)
            }
            // Whoever keeps the copy gives it.
            Some(Rung::Stale) => return Err(self.leave_to_copy().into()),
            None => false,
        };
        Ok(if stands { Next::Attempt } else { self.pass_over(lent) })
    }

    /// Makes a way of its own out of its rung.
    fn go_to(&mut self, pool: &'a Pool, now: Instant) {
        self.pool = pool;
        self.key = pool.hashes_by().and_then(|by| client::hash(by, self.errand));
        self.repeats = false;
        self.take_share(now);
    }

    /// What the way it is on may take.
    fn take_share(&mut self, now: Instant) {
        let Some(Descent { ladder, walk, fell, .. }) = &self.descent else { return };
        let (route, own) = (&self.errand.route.config, self.errand.caller.attempts);
        let share = |left| walk.share(&ladder.policy, route.retry.attempts, left);
        let Share { attempts, time } = share(self.whole.saturating_duration_since(now));
        self.deadline = clock::after(now, time);
        self.begun = self.made;
        self.ceiling = self.made + attempts;
        self.ceiling = own.map_or(self.ceiling, |own| own.min(self.ceiling));
        self.longest = if fell.is_none() { share(route.timeout).time } else { route.timeout };
    }

    /// Asking the route's own pool once more is paid like a retry.
    fn affords(&mut self, pool: &Arc<Pool>, now: Instant) -> bool {
        self.repeats = self.made > 0 && self.errand.route.pool.as_ref().is_some_and(|own| Arc::ptr_eq(own, pool));
        let affords = !self.repeats || pool.spending().retry(&self.retry.budget, now);
        if !affords {
            self.series().skipped(Skip::Budget);
        }
        affords
    }

    /// Makes the request what a rung sends; false where that cannot be done.
    async fn reduce(&mut self, reduced: &'a Reduced, lent: &mut Lent<'_>) -> Result<bool, Stop> {
        let errand = self.errand;
        let mut body = Body::Same;
        if reduced.wants_body(errand.request) {
            if !waiting::for_body(errand, Some(self.deadline), lent).await? {
                return Ok(false);
            }
            body = reduced.body(errand.request, lent.replay.bytes());
        }
        let changed = match body {
            Body::Unfit => return Ok(false),
            Body::Same => None,
            Body::Changed(changed) => Some(changed),
        };
        let request = reduced.request(errand.request, changed.as_deref());
        let Some(descent) = &mut self.descent else { return Ok(false) };
        if let Some(changed) = changed {
            let Some(held) = self.pool.hold(changed.len(), errand.caller.part) else { return Ok(false) };
            descent.replay = Some(std::mem::replace(&mut lent.replay, Replay::of(changed, Some(held))));
        }
        descent.less = Some(Box::new(Less { request, rewrite: &reduced.rewrite }));
        Ok(true)
    }

    /// Leaves a rung that cannot answer after all.
    fn pass_over(&mut self, lent: &Lent<'_>) -> Next {
        let Some(descent) = &self.descent else { return Next::Attempt };
        if descent.fell.is_some() {
            return Next::Lost(descent.fell);
        }
        let (ladder, below) = (descent.ladder, descent.walk.at().map(|at| at + 1));
        // What is left may be the ordinary way, and this was not its pool.
        if let Some(own) = &self.errand.route.pool {
            self.go_to(own, lent.now);
        }
        self.begin(ladder, below, lent)
    }

    /// Answers with what the operator wrote.
    fn say(&mut self, answer: &Static, lent: &mut Lent<'_>, record: &mut Record<'_>) -> Answered {
        let Errand { request, identity, .. } = *self.errand;
        let fell = self.descent.as_ref().and_then(|descent| descent.fell);
        let why = fell.map(|_| self.why());
        let keep_alive = self.errand.keeps_alive(&lent.client);
        let (version, to_head) = (request.head.version, request.method == "HEAD");
        let answer = answer.answer(why.as_ref());
        answer.write(&mut lent.client, &Circumstances { identity: Some(identity), version, keep_alive, to_head });
        self.answered(None, lent.now, record);
        Answered { status: answer.status, reusable: None, keep_alive, head_at: None, skipped: None }
    }

    fn leave_to_copy(&mut self) -> Refused {
        let fell = self.descent.as_ref().and_then(|descent| descent.fell);
        self.why().stale(fell.map_or(Came::First, Came::Fell))
    }

    /// What the client is told where no provider's answer is there for it.
    pub(super) fn why(&mut self) -> Refused {
        let refused = self.refused.take().unwrap_or_else(verdict::unkept);
        if self.trail.is_empty() { refused } else { refused.trail(std::mem::take(&mut self.trail)) }
    }

    /// The client has an answer, a provider's with this status or one of ours, since `at`.
    pub(super) fn answered(&self, status: Option<u16>, at: Instant, record: &mut Record<'_>) {
        let Some(Descent { ladder, fell, .. }) = &self.descent else { return };
        let failed = status.is_some_and(Trigger::is_of_status);
        match self.rung() {
            None => {
                let well = !failed && status.is_none_or(|status| status < 500);
                ladder.live.ended(well, at.saturating_duration_since(self.errand.started), at);
            }
            Some(kind) => {
                self.label(kind, record);
                if !failed {
                    ladder.live.answered(kind, *fell, at);
                }
            }
        }
        if failed {
            ladder.live.unanswered();
        }
    }

    /// An answer broke after its head had gone out; `failed`: that was no client that left.
    pub(super) fn broke(&self, failed: bool, now: Instant, record: &mut Record<'_>) {
        let Some(descent) = &self.descent else { return };
        match self.rung() {
            None if failed => {
                descent.ladder.live.ended(false, now.saturating_duration_since(self.errand.started), now);
            }
            None => {}
            Some(kind) => self.label(kind, record),
        }
    }

    /// The client was told that this kind of rung answers.
    fn label(&self, kind: Kind, record: &mut Record<'_>) {
        self.series().degraded(kind);
        record.degraded = Some(kind.as_str());
        record.reason = self.descent.as_ref().and_then(|descent| descent.fell).map(Trigger::as_str);
    }

    /// The rung it is on; `None` on the ordinary way.
    pub(super) fn rung(&self) -> Option<Kind> {
        self.descent.as_ref().and_then(Descent::kind)
    }

    /// The request as it goes on now, and what is changed about it on the way.
    pub(super) fn sent(&self) -> (&Request<'a>, &'a Rewrite) {
        match self.descent.as_ref().and_then(|descent| descent.less.as_ref()) {
            Some(less) => (&less.request, less.rewrite),
            None => (self.errand.request, &self.errand.route.config.rewrite),
        }
    }

    /// Whether there is an answer for it where there is no provider.
    pub(super) fn has_fallback(&self, lent: &Lent<'_>) -> bool {
        let by_rung = || self.may_fall_so(Trigger::NoProvider, &self.so(self.ended, lent));
        self.descent.is_some() && by_rung()
            || spare(self.errand, lent.now).is_some_and(|spare| spare.may_replace_errors)
    }

    fn may_fall_so(&self, why: Trigger, so: &So<'_>) -> bool {
        self.descent.as_ref().is_some_and(|descent| descent.walk.peek(&descent.ladder.policy, why, so).is_some())
    }

    /// Whether an answer with this status, after so many attempts, is withheld because a rung may have a better one.
    pub(super) fn may_fall_after(&self, status: u16, whole: bool, left: Duration, made: u32) -> bool {
        self.descent.is_some()
            && Trigger::is_of_status(status)
            && self
                .may_fall_so(Trigger::AttemptsExhausted, &self.so_after(Some(Ended::Status(status)), whole, left, made))
    }

    /// Whether the request has to be kept for a rung, should this be the last attempt of its way.
    pub(super) fn may_ask_below(&self) -> bool {
        self.descent.as_ref().is_some_and(|descent| descent.walk.asks_below(&descent.ladder.policy))
    }

    fn so(&self, ended: Option<Ended>, lent: &Lent<'_>) -> So<'a> {
        self.so_after(ended, lent.replay.is_whole(), self.whole.saturating_duration_since(lent.now), self.made)
    }

    /// What rungs have to know, where `left` is until the whole time is over.
    fn so_after(&self, ended: Option<Ended>, whole: bool, left: Duration, made: u32) -> So<'a> {
        let Errand { request, route, caller, .. } = *self.errand;
        let so = self.state(ended, whole, left, made);
        So {
            method: request.method,
            sendable: retry::may_be_sent(&route.retry, ended, &so),
            attempts_left: caller.attempts.is_none_or(|own| made < own),
            begun: self.opened.is_some(),
            stale_for: spare(self.errand, clock::now()).map(|spare| spare.expired_for),
        }
    }

    fn series(&self) -> &'a RouteMetrics {
        &self.errand.route.metrics
    }
}

/// What is kept for this request, if a cache was asked and has something.
fn spare(errand: &Errand<'_>, now: Instant) -> Option<Spare> {
    errand.seen.and_then(|seen| seen.spare(now))
}
