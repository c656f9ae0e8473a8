//! Whether a route is degraded: on which rung of its ladder its requests begin, since when, why, and what came of it.
//!
//! A route is degraded for one of three causes. An operator *forces* it onto a rung. A rung's *thresholds* put it there
//! before requests fail: it enters when one of its measures reaches the `enter` level and leaves when all of them are down at
//! their `leave` levels, which lie lower; in between everything stays as it is, so that a measure that swings about one level
//! does not move the route to and fro (hysteresis, as in a Schmitt trigger). Of several rungs entered the lowest one counts.
//! Or requests *fall*: their own way failed and a rung answered; such a route is called degraded until no request has fallen
//! for [`LINGER`].
//!
//! While thresholds keep a route off its pool, nothing would show that the pool is well again. So one request in
//! [`TRIAL_EVERY`] still goes the ordinary way. A route that nobody asks for anything is let go: there is nobody to be hurt.
//!
//! From the first cause to the end of the last it is one [`Spell`], told once when it begins and once when it is over.

use super::ladder::{Kind, Trigger};
use crate::instant::Instant;
use std::collections::VecDeque;
use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// Levels of the three measures; `None` is no level.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Levels {
    /// The share of the queue's places that are taken.
    pub queue: Option<f64>,
    /// What 95 of 100 answers do not exceed.
    pub latency: Option<Duration>,
    /// The share of requests that fail.
    pub error_rate: Option<f64>,
}

/// When a route begins on a rung, and when it no longer does. Both have levels of the same measures, those of `leave` lower.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Terms {
    /// One of these reached.
    pub enter: Levels,
    /// All of these kept.
    pub leave: Levels,
}

/// A rung as far as it is of interest here.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rung {
    /// What it does.
    pub kind: Kind,
    /// Its thresholds, if it has some.
    pub terms: Option<Terms>,
}

/// How the ordinary way is doing.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Measures {
    /// The share of the queue's places that are taken.
    pub queue: f64,
    /// What 95 of 100 recent answers did not exceed, if there were any.
    pub latency: Option<Duration>,
    /// The share of recent requests that failed, if there were any.
    pub error_rate: Option<f64>,
    /// How many recent requests these two are of.
    pub samples: u64,
    /// Nobody has asked for anything lately.
    pub idle: bool,
}

/// An operator's word: where the route is to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forced {
    /// On its first rung.
    First,
    /// On its first rung of this kind; without effect where it has none.
    On(Kind),
}

/// Why a route is degraded. In words with `Display`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Why {
    /// An operator said so.
    Forced,
    /// Its queue is as full as this.
    Queue(f64),
    /// Its answers take as long as this.
    Latency(Duration),
    /// As large a share of its requests fails.
    ErrorRate(f64),
    /// Requests failed for this reason, and rungs answered.
    Fell(Trigger),
}

/// What rungs came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Answers, in the order of [`Kind::ALL`].
    pub answers: [u64; Kind::ALL.len()],
    /// Requests for which the ladder had no answer.
    pub failed: u64,
}

/// One time during which a route was degraded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spell {
    /// When it began.
    pub since: Instant,
    /// When it ended; of one that goes on, how far it is known to reach.
    pub until: Instant,
    /// What began it.
    pub why: Why,
    /// What came of it.
    pub totals: Totals,
}

/// The latest request that fell: when, and why.
pub type Fall = (Instant, Trigger);

/// What is worth telling, once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Told {
    /// The route is degraded.
    Began(Why),
    /// It is well again.
    Ended(Spell),
}

/// The degradation of one route.
#[derive(Debug, Clone)]
pub struct Degradation {
    rungs: Vec<Rung>,
    /// By rung: why the route is on it, if thresholds put it there.
    entered: Vec<Option<Why>>,
    forced: Option<Forced>,
    spell: Option<Spell>,
    /// What the spells that are over came to.
    before: Totals,
    /// When the last of them was.
    over: Instant,
    past: VecDeque<Spell>,
    spells: u64,
}

// === impl Levels ===

impl Levels {
    /// What of `measures` reaches one of these levels, if there is enough to go by.
    fn reached(&self, measures: &Measures) -> Option<Why> {
        let enough = measures.samples >= MINIMUM;
        let latency = measures.latency.filter(|_| enough);
        let error_rate = measures.error_rate.filter(|_| enough);
        let queue = self.queue.filter(|level| measures.queue >= *level).map(|_| Why::Queue(measures.queue));
        let slow = || self.latency.and_then(|level| latency.filter(|latency| *latency >= level)).map(Why::Latency);
        let failing = || self.error_rate.and_then(|level| error_rate.filter(|rate| *rate >= level)).map(Why::ErrorRate);
        queue.or_else(slow).or_else(failing)
    }

    /// Whether all measures are down at these levels. One of which nothing is known is, if that is because nobody asks.
    fn kept(&self, measures: &Measures) -> bool {
        let latency = |level| measures.latency.map_or(measures.idle, |latency| latency <= level);
        let error_rate = |level| measures.error_rate.map_or(measures.idle, |rate| rate <= level);
        self.queue.is_none_or(|level| measures.queue <= level)
            && self.latency.is_none_or(latency)
            && self.error_rate.is_none_or(error_rate)
    }
}

// === impl Why ===

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Forced => f.write_str("an operator forced it"),
            Why::Queue(full) => write!(f, "its queue was {:.0}% full", full * 100.0),
            Why::Latency(latency) => write!(f, "5% of its answers took longer than {}ms", latency.as_millis()),
            Why::ErrorRate(rate) => write!(f, "{:.0}% of its requests failed", rate * 100.0),
            Why::Fell(trigger) => write!(f, "requests failed ({}), and its ladder answered", trigger.as_str()),
        }
    }
}

// === impl Totals ===

impl Totals {
    /// Requests that did not get what they would have got.
    #[must_use]
    pub fn affected(&self) -> u64 {
        self.answers.iter().sum::<u64>() + self.failed
    }
}

impl Add for Totals {
    type Output = Totals;

    fn add(self, more: Totals) -> Totals {
        let answers = std::array::from_fn(|kind| self.answers[kind] + more.answers[kind]);
        Totals { answers, failed: self.failed + more.failed }
    }
}

impl Sub for Totals {
    type Output = Totals;

    fn sub(self, before: Totals) -> Totals {
        let answers = std::array::from_fn(|kind| self.answers[kind].saturating_sub(before.answers[kind]));
        Totals { answers, failed: self.failed.saturating_sub(before.failed) }
    }
}

// === impl Spell ===

impl Spell {
    /// How long it was.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.until.saturating_duration_since(self.since)
    }
}

// === impl Degradation ===

impl Degradation {
    /// Of a route with these rungs, which is well.
    #[must_use]
    pub fn new(rungs: Vec<Rung>, now: Instant) -> Self {
        let entered = vec![None; rungs.len()];
        let (past, before) = (VecDeque::new(), Totals::default());
        Degradation { rungs, entered, forced: None, spell: None, before, over: now, past, spells: 0 }
    }

    /// Other rungs from now on. A rung that stays what it is stays entered.
    pub fn set_rungs(&mut self, rungs: Vec<Rung>) {
        let stays = |at: &usize| {
            rungs[*at].terms.is_some() && self.rungs.get(*at).is_some_and(|old| old.kind == rungs[*at].kind)
        };
        let why = |at: usize| Some(at).filter(stays).and_then(|at| self.entered[at]);
        self.entered = (0..rungs.len()).map(why).collect();
        self.rungs = rungs;
    }

    /// An operator decides, or with `None` no longer does. [`Degradation::look`] says what comes of it.
    pub fn force(&mut self, forced: Option<Forced>, now: Instant) {
        if let Some(spell) = self.spell.as_mut().filter(|_| self.forced.is_some()) {
            spell.until = spell.until.max(now);
        }
        self.forced = forced;
    }

    /// What an operator decided.
    #[must_use]
    pub fn forced(&self) -> Option<Forced> {
        self.forced
    }

    /// Whether thresholds are to be looked at.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.rungs.iter().any(|rung| rung.terms.is_some())
    }

    /// The rung on which requests begin, and whether it is left by itself once things are well.
    #[must_use]
    pub fn rung(&self) -> Option<(usize, bool)> {
        let forced = self.forced_rung().map(|at| (at, false));
        forced.or_else(|| self.entered.iter().rposition(Option::is_some).map(|at| (at, true)))
    }

    fn forced_rung(&self) -> Option<usize> {
        match self.forced? {
            Forced::First => (!self.rungs.is_empty()).then_some(0),
            Forced::On(kind) => self.rungs.iter().position(|rung| rung.kind == kind),
        }
    }

    /// What it does on which requests begin.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        self.rung().map(|(at, _)| self.rungs[at].kind)
    }

    /// Looks at the measures and at the latest fall, and says what has changed. `totals` are all answers so far.
    pub fn look(&mut self, measures: &Measures, totals: Totals, fall: Option<Fall>, now: Instant) -> Option<Told> {
        let was_steered = self.steered().is_some();
        for (rung, entered) in self.rungs.iter().zip(&mut self.entered) {
            let Some(terms) = rung.terms else { continue };
            match entered {
                None => *entered = terms.enter.reached(measures),
                Some(_) if terms.leave.kept(measures) => *entered = None,
                Some(_) => {}
            }
        }
        let steered = self.steered();
        let recent = fall.filter(|(at, _)| now.saturating_duration_since(*at) < LINGER);
        let why = steered.or(recent.map(|(_, trigger)| Why::Fell(trigger)));
        // After a fall it counts as degraded for a while, but the spell reaches no further than those who fell.
        let reaches = if was_steered || steered.is_some() { now } else { fall.map_or(self.over, |(at, _)| at) };
        let totals = totals - self.before;
        match (why, self.spell) {
            (None, None) => None,
            (Some(why), None) => {
                let since = reaches.max(self.over);
                self.spell = Some(Spell { since, until: since, why, totals });
                Some(Told::Began(why))
            }
            (why, Some(spell)) => {
                let spell = Spell { until: spell.until.max(reaches), totals, ..spell };
                self.spell = why.map(|_| spell);
                why.is_none().then(|| self.end(spell))
            }
        }
    }

    fn end(&mut self, spell: Spell) -> Told {
        self.before = self.before + spell.totals;
        self.over = spell.until;
        self.spells += 1;
        if self.past.len() == SPELLS_MAX {
            self.past.pop_front();
        }
        self.past.push_back(spell);
        Told::Ended(spell)
    }

    /// What keeps requests off the ordinary way now.
    fn steered(&self) -> Option<Why> {
        if self.forced_rung().is_some() {
            return Some(Why::Forced);
        }
        self.entered.iter().rev().find_map(|entered| *entered)
    }

    /// The spell that goes on.
    #[must_use]
    pub fn spell(&self) -> Option<&Spell> {
        self.spell.as_ref()
    }

    /// Those that are over, the oldest first; the last [`SPELLS_MAX`] of them.
    pub fn past(&self) -> impl DoubleEndedIterator<Item = &Spell> {
        self.past.iter()
    }

    /// How many are over, those that are forgotten too.
    #[must_use]
    pub fn spells(&self) -> u64 {
        self.spells
    }
}

/// For how long a route counts as degraded after the latest request that fell: long enough that one that fails now and then
/// is one spell and not many.
pub const LINGER: Duration = Duration::from_secs(10);

/// The time that `error_rate` is about.
pub const WINDOW: Duration = Duration::from_secs(10);

/// Fewer recent requests than this put a route nowhere.
pub const MINIMUM: u64 = 20;

/// Of the requests of a route that thresholds keep off its pool, one in so many goes there all the same.
pub const TRIAL_EVERY: u64 = 10;

/// The part of the answers that `latency` is about.
pub const LATENCY_PART: f64 = 0.95;

/// Spells that are remembered; the oldest is forgotten for a new one.
pub const SPELLS_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn watched(kind: Kind, enter: f64, leave: f64) -> Rung {
        let level = |level| Levels { queue: Some(level), ..Levels::default() };
        Rung { kind, terms: Some(Terms { enter: level(enter), leave: level(leave) }) }
    }

    fn full(queue: f64) -> Measures {
        Measures { queue, ..Measures::default() }
    }

    fn answers(of_static: u64) -> Totals {
        Totals { answers: [0, 0, 0, of_static], failed: 0 }
    }

    fn rung(kind: Kind) -> Rung {
        Rung { kind, terms: None }
    }

    /// With nothing but thresholds at work.
    fn looked(route: &mut Degradation, measures: &Measures, now: Instant) -> Option<Told> {
        route.look(measures, Totals::default(), None, now)
    }

    #[test]
    fn a_route_enters_at_one_level_and_leaves_at_a_lower_one() {
        let now = crate::clock::now();
        let mut route = Degradation::new(vec![rung(Kind::Pool), watched(Kind::Static, 0.8, 0.4)], now);
        assert!(route.is_watched());
        assert_eq!((looked(&mut route, &full(0.79), now), route.rung()), (None, None));
        assert_eq!(looked(&mut route, &full(0.8), now), Some(Told::Began(Why::Queue(0.8))));
        assert_eq!((route.rung(), route.kind()), (Some((1, true)), Some(Kind::Static)));
        assert_eq!(looked(&mut route, &full(0.41), now + SECOND), None);
        assert_eq!(route.rung(), Some((1, true)));
        let Some(Told::Ended(spell)) = looked(&mut route, &full(0.4), now + 2 * SECOND) else { panic!("it has left") };
        assert_eq!((spell.length(), spell.why, route.rung()), (2 * SECOND, Why::Queue(0.8), None));
        assert_eq!(looked(&mut route, &full(0.4), now + 3 * SECOND), None, "told once");
        assert_eq!((route.past().count(), route.spells()), (1, 1));
    }

    #[test]
    fn the_lowest_rung_that_is_entered_counts() {
        let now = crate::clock::now();
        let rungs = vec![watched(Kind::Reduced, 0.5, 0.2), watched(Kind::Static, 0.9, 0.6)];
        let mut route = Degradation::new(rungs, now);
        let mut on = |full| {
            looked(&mut route, &self::full(full), now);
            route.kind()
        };
        assert_eq!(
            [0.5, 0.9, 0.6, 0.5, 0.1].map(&mut on),
            [Some(Kind::Reduced), Some(Kind::Static), Some(Kind::Reduced), Some(Kind::Reduced), None]
        );
        assert_eq!(route.spells(), 1, "it was degraded all the time");
    }

    #[test]
    fn few_requests_put_a_route_nowhere_and_one_may_bring_it_back() {
        let now = crate::clock::now();
        let level = |rate, latency| Levels { error_rate: Some(rate), latency: Some(latency), queue: None };
        let terms = Terms { enter: level(0.5, 2 * SECOND), leave: level(0.1, SECOND) };
        let mut route = Degradation::new(vec![Rung { kind: Kind::Stale, terms: Some(terms) }], now);
        let bad = Measures { error_rate: Some(1.0), latency: Some(9 * SECOND), samples: MINIMUM - 1, ..full(0.0) };
        assert_eq!(looked(&mut route, &bad, now), None);
        let slow = Measures { error_rate: Some(0.0), samples: MINIMUM, ..bad };
        assert_eq!(looked(&mut route, &slow, now), Some(Told::Began(Why::Latency(9 * SECOND))));
        let unknown = Measures { error_rate: None, latency: Some(SECOND), samples: 0, ..full(0.0) };
        assert_eq!(looked(&mut route, &unknown, now), None, "nothing shows that it is well");
        let well = Measures { error_rate: Some(0.1), samples: 1, ..unknown };
        assert!(matches!(looked(&mut route, &well, now), Some(Told::Ended(_))));
        looked(&mut route, &slow, now);
        let idle = Measures { idle: true, ..full(0.0) };
        assert!(matches!(looked(&mut route, &idle, now), Some(Told::Ended(_))), "nobody is there to be hurt");
    }

    #[test]
    fn an_operator_is_above_thresholds_and_may_name_a_rung() {
        let now = crate::clock::now();
        let rungs = vec![rung(Kind::Pool), rung(Kind::Stale), watched(Kind::Static, 0.5, 0.1)];
        let mut route = Degradation::new(rungs, now);
        looked(&mut route, &full(0.5), now);
        route.force(Some(Forced::On(Kind::Stale)), now);
        assert_eq!(route.rung(), Some((1, false)));
        route.force(Some(Forced::First), now);
        assert_eq!(route.rung(), Some((0, false)));
        route.force(Some(Forced::On(Kind::Reduced)), now);
        assert_eq!(route.rung(), Some((2, true)), "there is none of that kind");
        route.force(None, now);
        assert_eq!((route.rung(), route.forced()), (Some((2, true)), None));
    }

    #[test]
    fn what_was_forced_is_a_spell_until_it_is_handed_back() {
        let now = crate::clock::now();
        let mut route = Degradation::new(vec![rung(Kind::Static)], now);
        route.force(Some(Forced::First), now + SECOND);
        let began = route.look(&full(0.0), Totals::default(), None, now + SECOND);
        assert_eq!(began, Some(Told::Began(Why::Forced)));
        route.force(None, now + 61 * SECOND);
        let Some(Told::Ended(spell)) = route.look(&full(0.0), answers(600), None, now + 61 * SECOND) else {
            panic!("it is over")
        };
        assert_eq!((spell.length(), spell.totals.affected()), (60 * SECOND, 600));
    }

    #[test]
    fn requests_that_fall_make_one_spell_from_the_first_to_the_last() {
        let now = crate::clock::now();
        let mut route = Degradation::new(vec![rung(Kind::Static)], now);
        let at = |seconds: u32| now + seconds * SECOND;
        let fell = |seconds| Some((at(seconds), Trigger::NoProvider));
        let look =
            |route: &mut Degradation, count, fall, seconds| route.look(&full(0.0), answers(count), fall, at(seconds));
        assert_eq!(look(&mut route, 1, fell(5), 5), Some(Told::Began(Why::Fell(Trigger::NoProvider))));
        assert_eq!(route.rung(), None, "requests still begin at the pool");
        assert_eq!(look(&mut route, 40, fell(9), 12), None);
        assert_eq!(look(&mut route, 50, fell(18), 27), None);
        let Some(Told::Ended(spell)) = look(&mut route, 50, fell(18), 28) else { panic!("ten seconds without") };
        assert_eq!((spell.since, spell.until, spell.totals.affected()), (at(5), at(18), 50));
        assert_eq!(look(&mut route, 50, fell(18), 40), None);
        assert!(look(&mut route, 51, fell(41), 41).is_some());
        assert_eq!(route.spell().map(|spell| spell.totals.affected()), Some(1));
    }

    #[test]
    fn a_reload_keeps_a_rung_that_stays_what_it_is() {
        let now = crate::clock::now();
        let mut route = Degradation::new(vec![rung(Kind::Stale), watched(Kind::Static, 0.5, 0.1)], now);
        looked(&mut route, &full(0.5), now);
        route.set_rungs(vec![rung(Kind::Pool), watched(Kind::Static, 0.9, 0.3)]);
        assert_eq!(route.rung(), Some((1, true)));
        route.set_rungs(vec![watched(Kind::Static, 0.9, 0.3)]);
        assert_eq!(route.rung(), None);
        assert!(matches!(looked(&mut route, &full(0.8), now), Some(Told::Ended(_))));
    }

    #[test]
    fn the_history_has_a_bound() {
        let now = crate::clock::now();
        let mut route = Degradation::new(vec![watched(Kind::Static, 0.5, 0.1)], now);
        for _ in 0..=SPELLS_MAX {
            looked(&mut route, &full(1.0), now);
            looked(&mut route, &full(0.0), now);
        }
        assert_eq!((route.past().count(), route.spells()), (SPELLS_MAX, SPELLS_MAX as u64 + 1));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// A measure that stays between the levels never moves the route, wherever it is.
        #[test]
        fn between_the_levels_nothing_changes(
            enter in 0.2..1.0_f64, part in 0.1..0.9_f64, first in 0.0..1.0_f64, steps in prop::collection::vec(0.001..0.999_f64, 1..50)
        ) {
            let (now, leave) = (crate::clock::now(), enter * part);
            let mut route = Degradation::new(vec![watched(Kind::Static, enter, leave)], now);
            looked(&mut route, &full(first), now);
            let before = route.rung();
            for step in steps {
                let told = looked(&mut route, &full(leave + (enter - leave) * step), now);
                prop_assert_eq!((told, route.rung()), (None, before));
            }
        }

        /// Whatever happens: spells are one after the other, each is told at its beginning and at its end, and what they
        /// came to is what there was.
        #[test]
        fn spells_add_up(
            steps in prop::collection::vec((0_u64..20, 0..5_usize, 0_u64..9), 1..60)
        ) {
            let start = crate::clock::now();
            let mut route = Degradation::new(vec![rung(Kind::Stale), watched(Kind::Static, 0.8, 0.4)], start);
            let (mut now, mut totals, mut fall, mut level) = (start, Totals::default(), None, 0.0);
            let (mut began, mut ended) = (0, 0);
            for (wait, what, count) in steps {
                now += Duration::from_secs(wait);
                match what {
                    0 => level = count as f64 / 8.0,
                    1 => route.force(Some(Forced::First), now),
                    2 => route.force(None, now),
                    3 => {
                        fall = Some((now, Trigger::QueueFull));
                        totals.answers[3] += count + 1;
                    }
                    _ if route.spell().is_some() => totals.failed += count,
                    _ => {}
                }
                match route.look(&full(level), totals, fall, now) {
                    Some(Told::Began(_)) => began += 1,
                    Some(Told::Ended(_)) => ended += 1,
                    None => {}
                }
                prop_assert_eq!(began - ended, u64::from(route.spell().is_some()));
                prop_assert!(route.rung().is_none() || route.spell().is_some());
                let all: Vec<Spell> = route.past().chain(route.spell()).copied().collect();
                prop_assert!(all.iter().all(|spell| spell.since <= spell.until && spell.until <= now));
                prop_assert!(all.windows(2).all(|pair| pair[0].until <= pair[1].since));
                let length: Duration = all.iter().map(Spell::length).sum();
                prop_assert!(length <= now - start);
                prop_assert_eq!(all.iter().map(|spell| spell.totals.affected()).sum::<u64>(), totals.affected());
            }
        }
    }
}
