//! Whether a route is degraded, as it lives: shared by every worker, found again by its name after a reload.
//!
//! [`Degradation`] decides, behind a mutex. Beside it stands one atomic *word* that says what a request meets. It is zero
//! where a route has no thresholds and is well, and then reading it is all that a request costs. Otherwise whoever begins
//! looks again, one worker at a time and at most every [`LOOK_EVERY`]: so measures need no task of their own, and a recovery
//! is seen by the first request after it. Where no request comes, whoever reads the figures sees it.

use super::locked;
use crate::instant::Instant;
use crate::policy::degrade::{
    Degradation, Fall, Forced, LATENCY_PART, Measures, Rung, TRIAL_EVERY, Told, Totals, WINDOW,
};
use crate::policy::ladder::{Kind, Trigger};
use crate::policy::load::Quantiles;
use crate::policy::window::{Counts, Window};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The live degradation of one route that has a ladder.
#[derive(Debug)]
pub struct Live {
    route: Arc<str>,
    /// What all times here count from, in nanoseconds.
    base: Instant,
    /// The number of the rung that requests begin on, counted from 1, with [`TRIALS`], [`MEASURED`], [`SPELL`]. Written under
    /// the lock.
    word: AtomicU32,
    /// When the next look is due.
    due: AtomicU64,
    /// When a request began that had to look at the word's bits.
    asked_at: AtomicU64,
    /// Such requests while thresholds keep them off the pool.
    turn: AtomicU64,
    /// Ordinary ways that ended well, and those that did not, since they were counted last.
    well: AtomicU64,
    failed: AtomicU64,
    latency: Quantiles,
    /// By [`Kind::index`], for good.
    answers: [AtomicU64; Kind::ALL.len()],
    /// Requests without an answer while the route was degraded, for good.
    unanswered: AtomicU64,
    /// When the latest request fell; 0 is never.
    fell_at: AtomicU64,
    /// Why, by its place in [`Trigger::ALL`].
    fell_for: AtomicU8,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    degradation: Degradation,
    window: Window,
    /// How full the queue was when somebody knew.
    queue: f64,
}

/// A route's degradation, to look at.
#[derive(Debug, Clone)]
pub struct View {
    /// A copy.
    pub degradation: Degradation,
    /// What rungs have come to, for good.
    pub totals: Totals,
}

// === impl Live ===

impl Live {
    /// A route with these rungs, which is well; the log will call it by its name.
    #[must_use]
    pub fn new(route: Arc<str>, rungs: Vec<Rung>, now: Instant) -> Self {
        let degradation = Degradation::new(rungs, now);
        let state = State { degradation, window: Window::new(WINDOW, now), queue: 0.0 };
        let live = Live {
            route,
            base: now,
            word: AtomicU32::new(0),
            due: AtomicU64::new(0),
            asked_at: AtomicU64::new(0),
            turn: AtomicU64::new(0),
            well: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            latency: Quantiles::new(now),
            answers: Default::default(),
            unanswered: AtomicU64::new(0),
            fell_at: AtomicU64::new(0),
            fell_for: AtomicU8::new(0),
            state: Mutex::new(state),
        };
        live.change(None, now, |_| ());
        live
    }

    /// A request begins: the rung it begins on, or `None` for the ordinary way. `queue` is the share of the places that are
    /// taken in the queue of the route's pool, and asked for rarely.
    #[inline]
    pub fn begin(&self, now: Instant, queue: impl FnOnce() -> f64) -> Option<usize> {
        if self.word.load(Ordering::Relaxed) == 0 { None } else { self.consider(now, queue) }
    }

    #[cold]
    fn consider(&self, now: Instant, queue: impl FnOnce() -> f64) -> Option<usize> {
        let (at, due) = (self.nanoseconds(now), self.due.load(Ordering::Relaxed));
        self.asked_at.store(at, Ordering::Relaxed);
        let next = at + LOOK_EVERY.as_nanos() as u64;
        if at >= due && self.due.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.change(Some(queue()), now, |_| ());
        }
        let word = self.word.load(Ordering::Relaxed);
        let rung = (word & RUNG).checked_sub(1)? as usize;
        let is_trial =
            word & TRIALS != 0 && (self.turn.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(TRIAL_EVERY);
        (!is_trial).then_some(rung)
    }

    /// The ordinary way of a request has ended, after `took` since it began: with an answer, or with a failure of ours or of
    /// a provider. One whose client left shows nothing and is not told.
    #[inline]
    pub fn ended(&self, well: bool, took: Duration, now: Instant) {
        if self.word.load(Ordering::Relaxed) & MEASURED == 0 {
            return;
        }
        if well { &self.well } else { &self.failed }.fetch_add(1, Ordering::Relaxed);
        self.latency.observe(took, now);
    }

    /// A rung of this kind has answered a request that fell for this reason, or that began there: then `None`.
    pub fn answered(&self, kind: Kind, fell: Option<Trigger>, now: Instant) {
        self.answers[kind.index()].fetch_add(1, Ordering::Relaxed);
        let Some(trigger) = fell else { return };
        self.fell_for.store(trigger as u8, Ordering::Relaxed);
        // In this order: whoever reads a time finds a reason for it.
        self.fell_at.store(self.nanoseconds(now).max(1), Ordering::Release);
        if self.word.load(Ordering::Relaxed) & SPELL == 0 {
            self.change(None, now, |_| ());
        }
    }

    /// The ladder had no answer for a request.
    pub fn unanswered(&self) {
        // Before it is degraded, that is a failure like any other.
        if self.word.load(Ordering::Relaxed) & SPELL != 0 {
            self.unanswered.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// An operator decides, or with `None` no longer does.
    pub fn force(&self, forced: Option<Forced>, now: Instant) {
        self.change(None, now, |degradation| degradation.force(forced, now));
    }

    /// Goes on with other rungs.
    pub fn follow(&self, rungs: Vec<Rung>, now: Instant) {
        self.change(None, now, |degradation| degradation.set_rungs(rungs));
    }

    /// How it is now, with the share of the places that are taken in the queue of the route's pool.
    #[must_use]
    pub fn view(&self, queue: f64, now: Instant) -> View {
        self.change(Some(queue), now, |_| ());
        let state = locked(&self.state);
        View { degradation: state.degradation.clone(), totals: self.totals() }
    }

    /// Changes something, looks at everything, and says in the word and in the log what came of it.
    fn change(&self, queue: Option<f64>, now: Instant, act: impl FnOnce(&mut Degradation)) {
        let mut state = locked(&self.state);
        state.queue = queue.unwrap_or(state.queue);
        act(&mut state.degradation);
        let (measures, totals) = (self.measures(&mut state, now), self.totals());
        let told = state.degradation.look(&measures, totals, self.fall(), now);
        self.word.store(word(&state.degradation), Ordering::Relaxed);
        drop(state);
        if let Some(told) = told {
            self.tell(&told);
        }
    }

    fn measures(&self, state: &mut State, now: Instant) -> Measures {
        if !state.degradation.is_watched() {
            return Measures::default();
        }
        state.window.roll(now);
        let (successes, failures) = (self.well.swap(0, Ordering::Relaxed), self.failed.swap(0, Ordering::Relaxed));
        state.window.add(Counts { successes, failures });
        let Counts { successes, failures } = state.window.counts();
        let samples = successes + failures;
        let since_asked = self.nanoseconds(now).saturating_sub(self.asked_at.load(Ordering::Relaxed));
        Measures {
            queue: state.queue,
            latency: self.latency.quantile(LATENCY_PART, 1, now),
            error_rate: (samples > 0).then(|| failures as f64 / samples as f64),
            samples,
            idle: since_asked > WINDOW.as_nanos() as u64,
        }
    }

    fn totals(&self) -> Totals {
        let answers = std::array::from_fn(|kind| self.answers[kind].load(Ordering::Relaxed));
        Totals { answers, failed: self.unanswered.load(Ordering::Relaxed) }
    }

    fn fall(&self) -> Option<Fall> {
        let at = Some(self.fell_at.load(Ordering::Acquire)).filter(|at| *at > 0)?;
        let trigger = Trigger::ALL[usize::from(self.fell_for.load(Ordering::Relaxed))];
        Some((self.base + Duration::from_nanos(at), trigger))
    }

    fn tell(&self, told: &Told) {
        let route = &self.route;
        match told {
            Told::Began(why) => tracing::warn!(%route, %why, "a route is degraded"),
            Told::Ended(spell) => {
                let (seconds, affected) = (spell.length().as_secs_f64(), spell.totals.affected());
                tracing::info!(%route, seconds, affected, failed = spell.totals.failed, "a route has recovered");
            }
        }
    }

    /// Nanoseconds from the base to `instant`, none if it is earlier. They fit for five hundred years.
    fn nanoseconds(&self, instant: Instant) -> u64 {
        instant.nanoseconds_since(self.base)
    }
}

fn word(degradation: &Degradation) -> u32 {
    let rung = degradation.rung().map_or(0, |(at, by_itself)| (at as u32 + 1) | if by_itself { TRIALS } else { 0 });
    let measured = if degradation.is_watched() { MEASURED } else { 0 };
    let spell = if degradation.spell().is_some() { SPELL } else { 0 };
    rung | measured | spell
}

/// The part of the word that is a rung's number.
const RUNG: u32 = 0xff;
/// Some requests go the ordinary way all the same.
const TRIALS: u32 = 1 << 8;
/// There are thresholds: ordinary ways are counted.
const MEASURED: u32 = 1 << 9;
/// The route is degraded.
const SPELL: u32 = 1 << 10;

/// The shortest time between two looks that requests take.
pub const LOOK_EVERY: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::policy::degrade::{LINGER, Levels, MINIMUM, Terms, Why};

    const SECOND: Duration = Duration::from_secs(1);

    /// A route whose second rung is entered at these levels, and left at half of them.
    fn live(enter: Option<Levels>, now: Instant) -> Live {
        let terms = enter.map(|enter| Terms {
            enter,
            leave: Levels {
                queue: enter.queue.map(|level| level / 2.0),
                latency: enter.latency.map(|level| level / 2),
                error_rate: enter.error_rate.map(|level| level / 2.0),
            },
        });
        let rungs = vec![Rung { kind: Kind::Stale, terms: None }, Rung { kind: Kind::Static, terms }];
        Live::new("api".into(), rungs, now)
    }

    fn never() -> f64 {
        panic!("nobody has to ask")
    }

    #[test]
    fn where_nothing_is_degraded_a_request_reads_one_word() {
        let now = clock::now();
        let live = live(None, now);
        assert_eq!(live.word.load(Ordering::Relaxed), 0);
        assert_eq!(live.begin(now, never), None);
        live.ended(false, SECOND, now);
        live.unanswered();
        assert_eq!((live.failed.load(Ordering::Relaxed), live.totals()), (0, Totals::default()));
    }

    #[test]
    fn a_full_queue_degrades_and_an_emptier_one_lets_go() {
        let now = clock::now();
        let live = live(Some(Levels { queue: Some(0.8), ..Levels::default() }), now);
        assert_eq!(live.begin(now, || 0.9), Some(1));
        assert_eq!(live.begin(now + LOOK_EVERY / 2, never), Some(1), "the next look is not due");
        assert_eq!(live.begin(now + LOOK_EVERY, || 0.5), Some(1));
        assert_eq!(live.begin(now + 2 * LOOK_EVERY, || 0.4), None);
        assert_eq!(live.view(0.4, now + SECOND).degradation.spells(), 1);
    }

    #[test]
    fn failures_degrade_and_trials_show_that_it_is_over() {
        let now = clock::now();
        let live = live(Some(Levels { error_rate: Some(0.5), ..Levels::default() }), now);
        for _ in 0..MINIMUM {
            assert_eq!(live.begin(now, || 0.0), None);
            live.ended(false, SECOND, now);
        }
        let later = now + SECOND;
        let begun: Vec<_> = (0..2 * TRIAL_EVERY).map(|_| live.begin(later, || 0.0)).collect();
        assert_eq!(begun.iter().filter(|rung| **rung == Some(1)).count() as u64, 2 * TRIAL_EVERY - 2);
        let after = now + WINDOW + SECOND;
        assert_eq!(live.begin(after, || 0.0), Some(1), "nothing is known any more");
        live.ended(true, SECOND, after);
        assert_eq!(live.begin(after + LOOK_EVERY, || 0.0), None);
    }

    #[test]
    fn slow_answers_degrade() {
        let now = clock::now();
        let live = live(Some(Levels { latency: Some(2 * SECOND), ..Levels::default() }), now);
        for _ in 0..MINIMUM {
            live.ended(true, 3 * SECOND, now);
        }
        assert_eq!(live.begin(now, || 0.0), Some(1));
        let view = live.view(0.0, now);
        assert!(matches!(view.degradation.spell().map(|spell| spell.why), Some(Why::Latency(_))));
    }

    #[test]
    fn an_operator_degrades_every_request_until_it_is_handed_back() {
        let now = clock::now();
        let live = live(None, now);
        live.force(Some(Forced::On(Kind::Static)), now);
        assert!((0..3 * TRIAL_EVERY).all(|_| live.begin(now, || 0.0) == Some(1)));
        live.answered(Kind::Static, None, now);
        live.unanswered();
        live.force(None, now + SECOND);
        assert_eq!(live.begin(now + SECOND, never), None);
        let view = live.view(0.0, now + SECOND);
        let past: Vec<_> = view.degradation.past().map(|spell| (spell.length(), spell.totals.affected())).collect();
        assert_eq!(past, [(SECOND, 2)]);
    }

    #[test]
    fn requests_that_fall_leave_the_way_open_and_the_next_sees_the_recovery() {
        let now = clock::now();
        let live = live(None, now);
        live.answered(Kind::Stale, Some(Trigger::NoProvider), now + SECOND);
        assert_eq!(live.begin(now + 2 * SECOND, || 0.0), None);
        live.answered(Kind::Static, Some(Trigger::QueueFull), now + 3 * SECOND);
        assert_ne!(live.word.load(Ordering::Relaxed), 0);
        let well = now + 3 * SECOND + LINGER;
        assert_eq!(live.begin(well, || 0.0), None);
        assert_eq!(live.word.load(Ordering::Relaxed), 0);
        let view = live.view(0.0, well);
        let spell = view.degradation.past().next().expect("one is over");
        assert_eq!((spell.why, spell.length()), (Why::Fell(Trigger::NoProvider), 2 * SECOND));
        assert_eq!((spell.totals.answers, view.totals.answers), ([0, 0, 1, 1], [0, 0, 1, 1]));
    }

    #[test]
    fn a_reload_that_takes_the_thresholds_away_lets_go() {
        let now = clock::now();
        let live = live(Some(Levels { queue: Some(0.8), ..Levels::default() }), now);
        assert_eq!(live.begin(now, || 1.0), Some(1));
        live.follow(vec![Rung { kind: Kind::Static, terms: None }], now);
        assert_eq!((live.begin(now, never), live.word.load(Ordering::Relaxed)), (None, 0));
    }
}
