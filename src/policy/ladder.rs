//! The ladder of a route: what answers a request that its pool cannot answer.
//!
//! A ladder is a list of *rungs*, in the operator's order. A request goes the *ordinary way* first: to the route's pool, with
//! all of its attempts. When that ends without an answer it has ended for one of five reasons, the [`Trigger`]s, and the
//! request goes to the first rung that is for this reason and can answer it; from there on it only goes down. Each rung is
//! stepped on at most once, so the walk ends.
//!
//! Two kinds of rung ask a provider (`pool`, `reduced`), and a request that may not be sent twice does not reach them unless
//! nobody can have acted on it. The other two (`stale`, `static`) are answers that are there already; by default they answer
//! those who only want to read.
//!
//! *Time.* Where a ladder has rungs that ask a provider, the last fifth of the request's time is kept for them, and they
//! share it evenly: a rung that hangs leaves the next its part. *Attempts.* Such a rung makes one attempt.
//!
//! A route that is degraded (see [`degrade`](super::degrade)) begins on a rung instead of its pool. That rung then is what
//! its pool would have been: it has the route's attempts, and four fifths of the time if others follow. Where no rung from
//! there on can answer, the request goes the ordinary way: a degraded route serves nobody worse than a failing one.

use super::retry::{Methods, Skip};
use std::time::Duration;

/// What a rung does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Asks a provider of another pool.
    Pool,
    /// Asks a provider for less.
    Reduced,
    /// Answers with a stored copy that is too old to be used otherwise.
    Stale,
    /// Answers with what the operator wrote.
    Static,
}

/// Why a way to answer a request has ended without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trigger {
    /// No provider could take it.
    NoProvider,
    /// The queue had no place for it.
    QueueFull,
    /// None became free while it waited.
    QueueTimeout,
    /// Attempts failed, and no other may follow.
    AttemptsExhausted,
    /// The whole time is over.
    Deadline,
}

/// A set of reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Triggers(u8);

/// One step of a ladder.
#[derive(Debug, Clone, PartialEq)]
pub struct Rung {
    /// What it does.
    pub kind: Kind,
    /// Reasons it is for. Never [`Trigger::Deadline`] where it asks a provider.
    pub on: Triggers,
    /// Requests that a `stale` or `static` rung answers; the others go by the route's `retry`.
    pub methods: Methods,
    /// How old, counted from its expiry, a copy may be that a `stale` rung answers with.
    pub max_age: Duration,
}

/// The rungs of a route, the first one first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Ladder {
    rungs: Vec<Rung>,
}

/// What rungs have to know about a request.
#[derive(Debug, Clone, Copy)]
pub struct So<'a> {
    /// Its method.
    pub method: &'a str,
    /// Whether it may be sent to a provider (again): see [`retry::may_be_sent`](super::retry::may_be_sent).
    pub sendable: Result<(), Skip>,
    /// Attempts are left of those that the client itself allows.
    pub attempts_left: bool,
    /// Its answer has begun: only what goes on behind that is of use to it, and no answer that is there as a whole.
    pub begun: bool,
    /// How long ago the stored copy expired that could answer it, if there is one.
    pub stale_for: Option<Duration>,
}

/// A request on its way down the ladder.
#[derive(Debug, Clone, Copy)]
pub struct Walk {
    /// The rung it is on; `None` on the ordinary way.
    at: Option<usize>,
    /// It began there.
    first: bool,
    /// The first of the rungs below.
    below: usize,
}

/// What one way to answer a request may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Attempts, at most.
    pub attempts: u32,
    /// Time, at most.
    pub time: Duration,
}

// === impl Kind ===

impl Kind {
    /// All of them, in the order tables show them.
    pub const ALL: [Kind; 4] = [Kind::Pool, Kind::Reduced, Kind::Stale, Kind::Static];

    /// The word for it: the key in the file, the value of `Sluice-Degraded`, the label in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Pool => "pool",
            Kind::Reduced => "reduced",
            Kind::Stale => "stale",
            Kind::Static => "static",
        }
    }

    /// Reads the word for it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// Its place in [`Kind::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// Whether it asks a provider.
    #[must_use]
    pub fn asks(self) -> bool {
        matches!(self, Kind::Pool | Kind::Reduced)
    }

    /// What caches behind us are told in the place of whatever the answer says about its lifetime.
    ///
    /// What a rung answers stands under the address of something better, so nobody is to keep it. A stale copy may be kept:
    /// it is the real thing, and has to be asked for again before each use, as here (RFC 9111 §5.2.2.4).
    #[must_use]
    pub fn cache_control(self) -> &'static str {
        if self == Kind::Stale { "no-cache" } else { "no-store" }
    }
}

// === impl Trigger ===

impl Trigger {
    /// All of them, in the order tables show them.
    pub const ALL: [Trigger; 5] =
        [Trigger::NoProvider, Trigger::QueueFull, Trigger::QueueTimeout, Trigger::AttemptsExhausted, Trigger::Deadline];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Trigger::NoProvider => "no_provider",
            Trigger::QueueFull => "queue_full",
            Trigger::QueueTimeout => "queue_timeout",
            Trigger::AttemptsExhausted => "attempts_exhausted",
            Trigger::Deadline => "deadline",
        }
    }

    /// Reads the word for it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Trigger> {
        Trigger::ALL.into_iter().find(|trigger| trigger.as_str() == text)
    }

    /// Why a way has ended whose [`Share::time`] is used up.
    #[must_use]
    pub fn of_time(whole_is_over: bool, attempts_made: u32) -> Trigger {
        match (whole_is_over, attempts_made) {
            (true, _) => Trigger::Deadline,
            (false, 0) => Trigger::QueueTimeout,
            (false, _) => Trigger::AttemptsExhausted,
        }
    }

    /// Whether an answer with this status is none as long as a rung has one: by these a provider says that it cannot.
    #[must_use]
    pub fn is_of_status(status: u16) -> bool {
        matches!(status, 429 | 502 | 503 | 504)
    }
}

// === impl Triggers ===

impl Triggers {
    /// Every reason.
    pub const ALL: Triggers = Triggers((1 << Trigger::ALL.len()) - 1);

    /// What a rung is for that does not say so, where `elsewhere` is whether it asks another pool than the route does. In
    /// the same pool, who did not wait or waited in vain would do so again.
    #[must_use]
    pub fn standard(kind: Kind, elsewhere: bool) -> Triggers {
        match (kind.asks(), elsewhere) {
            (false, _) => Triggers::ALL,
            (true, true) => Trigger::ALL.into_iter().filter(|trigger| *trigger != Trigger::Deadline).collect(),
            (true, false) => Triggers::from_iter([Trigger::AttemptsExhausted]),
        }
    }

    /// Whether this is one of them.
    #[must_use]
    pub fn has(self, trigger: Trigger) -> bool {
        self.0 & (1 << trigger as u8) != 0
    }

    /// Whether all of `others` are among them.
    #[must_use]
    pub fn include(self, others: Triggers) -> bool {
        self.0 & others.0 == others.0
    }

    /// All of them, in order.
    pub fn iter(self) -> impl Iterator<Item = Trigger> {
        Trigger::ALL.into_iter().filter(move |trigger| self.has(*trigger))
    }
}

impl FromIterator<Trigger> for Triggers {
    fn from_iter<I: IntoIterator<Item = Trigger>>(triggers: I) -> Self {
        Triggers(triggers.into_iter().fold(0, |bits, trigger| bits | 1 << trigger as u8))
    }
}

// === impl Rung ===

impl Rung {
    /// Whether it can answer this request, whatever the reason.
    #[must_use]
    pub fn can_answer(&self, so: &So<'_>) -> bool {
        match self.kind {
            Kind::Pool | Kind::Reduced => so.sendable.is_ok() && so.attempts_left,
            Kind::Stale | Kind::Static if so.begun => false,
            Kind::Stale => self.methods.allow(so.method) && so.stale_for.is_some_and(|age| age <= self.max_age),
            Kind::Static => self.methods.allow(so.method),
        }
    }
}

// === impl Ladder ===

impl Ladder {
    /// One of these rungs.
    #[must_use]
    pub fn new(rungs: Vec<Rung>) -> Self {
        Ladder { rungs }
    }

    /// Its rungs.
    #[must_use]
    pub fn rungs(&self) -> &[Rung] {
        &self.rungs
    }

    /// Rungs from `from` on that ask a provider.
    fn askers(&self, from: usize) -> u32 {
        self.rungs.iter().skip(from).filter(|rung| rung.kind.asks()).count() as u32
    }

    fn first(&self, from: usize, takes: impl Fn(&Rung) -> bool) -> Option<usize> {
        (from..self.rungs.len()).find(|at| takes(&self.rungs[*at]))
    }
}

// === impl Walk ===

impl Walk {
    /// Begins on the ordinary way.
    #[must_use]
    pub fn ordinary() -> Self {
        Walk { at: None, first: true, below: 0 }
    }

    /// Begins on the ordinary way, or on the rung `degraded` or the first one below it that can answer.
    #[must_use]
    pub fn begin(ladder: &Ladder, degraded: Option<usize>, so: &So<'_>) -> Self {
        let at = degraded.and_then(|from| ladder.first(from, |rung| rung.can_answer(so)));
        Walk { at, first: true, below: at.map_or(0, |at| at + 1) }
    }

    /// The rung it is on; `None` on the ordinary way.
    #[must_use]
    pub fn at(&self) -> Option<usize> {
        self.at
    }

    /// The rung to which a way that has ended for this `reason` leads; nothing changes. While one is there for
    /// [`Trigger::NoProvider`], nobody has to wait until a provider may be probed; while one is there for
    /// [`Trigger::AttemptsExhausted`], an answer by which a provider says that it cannot is not the client's.
    #[must_use]
    pub fn peek(&self, ladder: &Ladder, reason: Trigger, so: &So<'_>) -> Option<usize> {
        ladder.first(self.below, |rung| rung.on.has(reason) && rung.can_answer(so))
    }

    /// Goes there. `None` is the end of the ladder: the client gets the latest answer of a provider, or the reason.
    pub fn descend(&mut self, ladder: &Ladder, reason: Trigger, so: &So<'_>) -> Option<usize> {
        let next = self.peek(ladder, reason, so)?;
        *self = Walk { at: Some(next), first: false, below: next + 1 };
        Some(next)
    }

    /// Whether a rung below asks a provider once an attempt of this way has failed: until then the request has to be kept.
    #[must_use]
    pub fn asks_below(&self, ladder: &Ladder) -> bool {
        ladder.first(self.below, |rung| rung.kind.asks() && rung.on.has(Trigger::AttemptsExhausted)).is_some()
    }

    /// What the way it is on may take of what is `left` until the whole time is over. `attempts` are the route's.
    #[must_use]
    pub fn share(&self, ladder: &Ladder, attempts: u32, left: Duration) -> Share {
        let follow = ladder.askers(self.below);
        if !self.first {
            return Share { attempts: 1, time: left / (follow + 1) };
        }
        let kept = if follow == 0 { Duration::ZERO } else { left / KEPT };
        Share { attempts, time: left.saturating_sub(kept) }
    }
}

/// What an answer of a rung is called in, with [`Kind::as_str`].
pub const DEGRADED_FIELD: &str = "sluice-degraded";

/// Fields by which an answer says how long it may be kept (RFC 9111 §5.2 and §5.3, RFC 9213, and what came before it). None
/// of them goes with an answer of a rung: [`Kind::cache_control`] takes their place.
pub const LIFETIME_FIELDS: [&str; 5] = ["cache-control", "expires", "cdn-cache-control", "surrogate-control", "pragma"];

/// The part of the time that is kept for rungs that ask a provider: one in so many.
const KEPT: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rung(kind: Kind) -> Rung {
        let methods = Methods::These(vec!["GET".into(), "HEAD".into()]);
        Rung { kind, on: Triggers::standard(kind, true), methods, max_age: SECOND }
    }

    fn ladder(kinds: &[Kind]) -> Ladder {
        Ladder::new(kinds.iter().map(|kind| rung(*kind)).collect())
    }

    const GET: So<'static> =
        So { method: "GET", sendable: Ok(()), attempts_left: true, begun: false, stale_for: Some(SECOND) };
    /// One that a provider may have acted on.
    const POST: So<'static> = So { method: "POST", sendable: Err(Skip::Method), ..GET };

    /// The rungs that a request steps on while each way ends for this reason.
    fn walked(ladder: &Ladder, reason: Trigger, so: &So<'_>) -> Vec<usize> {
        let mut walk = Walk::begin(ladder, None, so);
        assert_eq!(walk.at(), None);
        std::iter::from_fn(|| walk.descend(ladder, reason, so)).take(100).collect()
    }

    #[test]
    fn rungs_are_taken_in_the_order_of_the_file() {
        let all = ladder(&Kind::ALL);
        assert_eq!(walked(&all, Trigger::NoProvider, &GET), [0, 1, 2, 3]);
        assert_eq!(walked(&all, Trigger::Deadline, &GET), [2, 3], "nobody can be asked any more");
        assert_eq!(walked(&Ladder::default(), Trigger::NoProvider, &GET), [0_usize; 0]);
    }

    #[test]
    fn a_rung_is_for_the_reasons_it_names() {
        let mut rungs = vec![rung(Kind::Pool), rung(Kind::Static), rung(Kind::Static)];
        rungs[0].on = Triggers::from_iter([Trigger::QueueFull]);
        rungs[1].on = Triggers::from_iter([Trigger::Deadline, Trigger::QueueTimeout]);
        let ladder = Ladder::new(rungs);
        assert_eq!(walked(&ladder, Trigger::QueueFull, &GET), [0, 2]);
        assert_eq!(walked(&ladder, Trigger::QueueTimeout, &GET), [1, 2]);
        assert_eq!(walked(&ladder, Trigger::AttemptsExhausted, &GET), [2]);
        let mut walk = Walk::begin(&ladder, None, &GET);
        assert_eq!(walk.descend(&ladder, Trigger::QueueFull, &GET), Some(0));
        assert_eq!(walk.descend(&ladder, Trigger::Deadline, &GET), Some(1), "the reason is the latest one");
    }

    #[test]
    fn what_may_not_be_sent_twice_gets_only_answers_that_are_there() {
        let mut rungs: Vec<_> = Kind::ALL.into_iter().map(rung).collect();
        assert_eq!(walked(&Ladder::new(rungs.clone()), Trigger::AttemptsExhausted, &POST), [0_usize; 0]);
        let unsent = So { sendable: Ok(()), ..POST };
        assert_eq!(walked(&Ladder::new(rungs.clone()), Trigger::QueueFull, &unsent), [0, 1]);
        rungs[3].methods = Methods::All;
        assert_eq!(walked(&Ladder::new(rungs), Trigger::AttemptsExhausted, &POST), [3]);
    }

    #[test]
    fn a_client_that_allows_no_further_attempt_gets_none() {
        let spent = So { attempts_left: false, ..GET };
        assert_eq!(walked(&ladder(&Kind::ALL), Trigger::AttemptsExhausted, &spent), [2, 3]);
    }

    #[test]
    fn an_answer_that_has_begun_goes_on_with_a_providers_only() {
        let begun = So { begun: true, ..GET };
        assert_eq!(walked(&ladder(&Kind::ALL), Trigger::AttemptsExhausted, &begun), [0, 1]);
    }

    #[test]
    fn a_request_is_kept_while_a_rung_may_send_it_again() {
        let all = ladder(&[Kind::Static, Kind::Pool, Kind::Static]);
        let mut walk = Walk::begin(&all, None, &GET);
        assert!(walk.asks_below(&all));
        walk.descend(&all, Trigger::QueueFull, &GET);
        walk.descend(&all, Trigger::QueueFull, &GET);
        assert_eq!((walk.at(), walk.asks_below(&all)), (Some(1), false));
        let mut only = rung(Kind::Pool);
        only.on = Triggers::from_iter([Trigger::QueueFull]);
        let ladder = Ladder::new(vec![only]);
        assert!(!Walk::begin(&ladder, None, &GET).asks_below(&ladder), "after an attempt it is for nobody");
    }

    #[test]
    fn a_copy_that_is_too_old_or_not_there_is_passed_over() {
        let all = ladder(&Kind::ALL);
        for stale_for in [None, Some(SECOND + Duration::from_nanos(1))] {
            assert_eq!(walked(&all, Trigger::NoProvider, &So { stale_for, ..GET }), [0, 1, 3]);
        }
    }

    #[test]
    fn a_degraded_route_begins_on_its_rung_or_the_first_below_that_can_answer() {
        let all = ladder(&Kind::ALL);
        let begun = |from, so: &So<'_>| Walk::begin(&all, Some(from), so).at();
        assert_eq!(begun(1, &GET), Some(1));
        assert_eq!(begun(2, &So { stale_for: None, ..GET }), Some(3));
        assert_eq!(begun(2, &POST), None, "whom no rung can answer goes the ordinary way");
        assert_eq!(begun(7, &GET), None, "a reload took the rung away");
        let mut walk = Walk::begin(&all, Some(2), &POST);
        let unsent = So { sendable: Ok(()), ..POST };
        assert_eq!(walk.descend(&all, Trigger::NoProvider, &unsent), Some(0), "and has all of the ladder before it");
    }

    #[test]
    fn a_degraded_route_begins_on_a_rung_whatever_that_is_for() {
        let mut only = rung(Kind::Static);
        only.on = Triggers::from_iter([Trigger::QueueFull]);
        assert_eq!(Walk::begin(&Ladder::new(vec![only]), Some(0), &GET).at(), Some(0));
    }

    #[test]
    fn the_last_fifth_is_for_rungs_that_ask_and_they_share_it() {
        let all = ladder(&[Kind::Pool, Kind::Static, Kind::Reduced]);
        let mut walk = Walk::begin(&all, None, &GET);
        assert_eq!(walk.share(&all, 3, 30 * SECOND), Share { attempts: 3, time: 24 * SECOND });
        walk.descend(&all, Trigger::AttemptsExhausted, &GET);
        assert_eq!(walk.share(&all, 3, 6 * SECOND), Share { attempts: 1, time: 3 * SECOND });
        walk.descend(&all, Trigger::Deadline, &GET);
        walk.descend(&all, Trigger::AttemptsExhausted, &GET);
        assert_eq!(walk.at(), Some(2));
        assert_eq!(walk.share(&all, 3, 5 * SECOND), Share { attempts: 1, time: 5 * SECOND });
    }

    #[test]
    fn nothing_is_kept_where_no_rung_asks() {
        let ladder = ladder(&[Kind::Stale, Kind::Static]);
        let share = Walk::begin(&ladder, None, &GET).share(&ladder, 3, 30 * SECOND);
        assert_eq!(share, Share { attempts: 3, time: 30 * SECOND });
    }

    #[test]
    fn the_rung_a_degraded_route_begins_on_is_what_its_pool_would_have_been() {
        let all = ladder(&[Kind::Pool, Kind::Reduced]);
        let share = |from| Walk::begin(&all, Some(from), &GET).share(&all, 3, 30 * SECOND);
        assert_eq!(share(0), Share { attempts: 3, time: 24 * SECOND });
        assert_eq!(share(1), Share { attempts: 3, time: 30 * SECOND });
    }

    #[test]
    fn time_that_is_used_up_is_told_by_what_it_was_used_for() {
        assert_eq!(Trigger::of_time(false, 0), Trigger::QueueTimeout);
        assert_eq!(Trigger::of_time(false, 2), Trigger::AttemptsExhausted);
        assert_eq!(Trigger::of_time(true, 0), Trigger::Deadline);
        let statuses: Vec<u16> = (100..600).filter(|status| Trigger::is_of_status(*status)).collect();
        assert_eq!(statuses, [429, 502, 503, 504]);
    }

    #[test]
    fn defaults_are_the_reasons_that_make_sense() {
        let words =
            |kind, elsewhere| Triggers::standard(kind, elsewhere).iter().map(Trigger::as_str).collect::<Vec<_>>();
        let asking = ["no_provider", "queue_full", "queue_timeout", "attempts_exhausted"];
        assert_eq!((words(Kind::Pool, true), words(Kind::Reduced, true)), (asking.to_vec(), asking.to_vec()));
        assert_eq!(words(Kind::Reduced, false), ["attempts_exhausted"]);
        assert_eq!(words(Kind::Stale, true).len() + words(Kind::Static, true).len(), 2 * Trigger::ALL.len());
    }

    #[test]
    fn words_are_read_as_they_are_written() {
        assert_eq!(Kind::ALL.map(|kind| Kind::parse(kind.as_str())), Kind::ALL.map(Some));
        assert_eq!(Kind::ALL.map(Kind::index), [0, 1, 2, 3]);
        assert_eq!(Trigger::ALL.map(|trigger| Trigger::parse(trigger.as_str())), Trigger::ALL.map(Some));
        assert_eq!((Kind::parse("cache"), Trigger::parse("")), (None, None));
    }

    #[test]
    fn nobody_downstream_keeps_what_a_rung_answered() {
        assert_eq!(Kind::ALL.map(Kind::cache_control), ["no-store", "no-store", "no-cache", "no-store"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever the ladder, and however each way ends.
        #[test]
        fn a_walk_goes_down_and_keeps_to_its_attempts_and_its_time(
            kinds in prop::collection::vec((0..4_usize, 0_u8..32), 0..8),
            reasons in prop::collection::vec((0..5_usize, any::<bool>(), 0.0..=1.0), 0..20),
            degraded in prop::option::of(0..9_usize), attempts in 1_u32..5, seconds in 0_u64..100
        ) {
            let rungs = kinds.iter().map(|(kind, on)| Rung { on: Triggers(*on), ..rung(Kind::ALL[*kind]) });
            let ladder = Ladder::new(rungs.collect());
            let askers = ladder.askers(0);
            let mut walk = Walk::begin(&ladder, degraded, &GET);
            let (mut left, mut made, mut seen) = (Duration::from_secs(seconds), 0, Vec::new());
            for (reason, sendable, used) in reasons {
                let so = So { sendable: if sendable { Ok(()) } else { Err(Skip::Method) }, ..GET };
                if walk.at().is_none_or(|at| ladder.rungs()[at].kind.asks()) {
                    let share = walk.share(&ladder, attempts, left);
                    prop_assert!(share.time <= left);
                    let follow = ladder.askers(walk.below);
                    prop_assert!(follow == 0 || left.is_zero() || share.time < left, "something is left for those below");
                    left -= share.time.mul_f64(used).min(share.time);
                    made += share.attempts;
                }
                let Some(next) = walk.descend(&ladder, Trigger::ALL[reason], &so) else { break };
                prop_assert!(seen.last().is_none_or(|last| next > *last));
                prop_assert!(ladder.rungs()[next].on.has(Trigger::ALL[reason]));
                seen.push(next);
            }
            prop_assert!(made <= attempts + askers);
        }
    }
}
