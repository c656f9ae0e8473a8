//! How busy, how fast and how new a provider is: what balancing, hedging and operators go by.
//!
//! All of it is recent, small and of fixed size, and is shared between threads without a lock. Where two threads meet,
//! one observation may be lost or land in the neighbouring second; none of these figures is a count that has to add up.

use crate::instant::Instant;
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Recent latency that believes bad news at once and good news slowly: a longer time than it holds replaces it, shorter
/// ones are averaged in with a time constant of [`LATENCY_DECAY`] (Finagle's Peak EWMA).
///
/// It fades while nothing is observed. That is how a slow member of a pool is found again: nobody asks it, what is held
/// against it fades until it looks as good as the others, and it is asked once.
///
/// Observe answers only: a provider that fails fast is not a fast one.
#[derive(Debug)]
pub struct PeakEwma {
    base: Instant,
    /// The seconds, as the 31 bits of a positive `f32`; below them the tick of the last observation.
    word: AtomicU64,
}

/// Quantiles of recent latency, right to 3.2 % (a histogram whose buckets are a sixteenth of their power of two wide).
///
/// Recent is what was observed in this [`GENERATION`] and the one before it. Times are taken in microseconds; those
/// from [`TIME_MAX`] on count as that.
pub struct Quantiles {
    base: Instant,
    /// Generations that have passed. The even ones are counted in the first histogram, the odd ones in the second.
    generation: AtomicU64,
    counts: [[AtomicU32; BUCKETS]; 2],
}

/// For which share of the last [`SECONDS`] a provider was at its limit.
#[derive(Debug)]
pub struct Utilisation {
    base: Instant,
    /// Since when it is at its limit, in nanoseconds after `base` and one more; 0 while it is not.
    full_since: AtomicU64,
    /// Which second, and how many nanoseconds of it were spent at the limit in its low [`NANOS_BITS`].
    seconds: [AtomicU64; SECONDS as usize + 1],
}

// === impl PeakEwma ===

impl PeakEwma {
    /// Nothing is known yet. No instant it is told of later should be before `now`.
    pub fn new(now: Instant) -> Self {
        PeakEwma { base: now, word: AtomicU64::new(0) }
    }

    /// An answer took `took`. In one tick (16 ms) only the longest counts.
    pub fn observe(&self, took: Duration, now: Instant) {
        let (took, tick) = (took.as_secs_f32().max(LATENCY_MIN), self.tick(now));
        let next = |word: u64| {
            let (value, last) = unpack(word);
            if took > value {
                return Some(pack(took, tick));
            }
            let kept = kept(last, tick);
            (kept < 1.0).then(|| pack(value * kept + took * (1.0 - kept), tick))
        };
        // An error means that there is nothing to change.
        self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok();
    }

    /// Seconds; 0 as long as nothing was observed, and only then.
    pub fn value(&self, now: Instant) -> f64 {
        match self.word.load(Ordering::Relaxed) {
            0 => 0.0,
            word => {
                let (value, last) = unpack(word);
                f64::from((value * kept(last, self.tick(now))).max(LATENCY_MIN))
            }
        }
    }

    /// Seconds, as they were when the last answer was observed; 0 as long as none was.
    pub fn last(&self) -> f64 {
        f64::from(unpack(self.word.load(Ordering::Relaxed)).0)
    }

    fn tick(&self, now: Instant) -> u64 {
        (now.nanoseconds_since(self.base) / TICK.as_nanos() as u64) & TICK_MASK
    }
}

fn pack(value: f32, tick: u64) -> u64 {
    u64::from(value.to_bits()) << TICK_BITS | tick
}

fn unpack(word: u64) -> (f32, u64) {
    (f32::from_bits((word >> TICK_BITS) as u32), word & TICK_MASK)
}

/// What is left of a value after the ticks from `last` to `tick`. Ticks wrap around; half of their range lies ahead,
/// and the other half is a thread that was overtaken.
fn kept(last: u64, tick: u64) -> f32 {
    match tick.wrapping_sub(last) & TICK_MASK {
        passed if passed <= TICK_MASK / 2 => (-(passed as f32) * TICK.div_duration_f32(LATENCY_DECAY)).exp(),
        _ => 1.0,
    }
}

// === impl Quantiles ===

impl Quantiles {
    /// Nothing is known yet. No instant it is told of later should be before `now`.
    pub fn new(now: Instant) -> Self {
        let empty = || std::array::from_fn(|_| AtomicU32::new(0));
        Quantiles { base: now, generation: AtomicU64::new(0), counts: [empty(), empty()] }
    }

    /// An answer took `took`.
    pub fn observe(&self, took: Duration, now: Instant) {
        let generation = self.turn(now);
        self.counts[generation][bucket(took)].fetch_add(1, Ordering::Relaxed);
    }

    /// The time that a share of `q` of the recent answers did not exceed; `None` if there are fewer than `at_least`, or
    /// none.
    ///
    /// It reads the whole histogram: half a microsecond.
    pub fn quantile(&self, q: f64, at_least: u32, now: Instant) -> Option<Duration> {
        self.turn(now);
        let counts = || {
            let both = self.counts[0].iter().zip(&self.counts[1]);
            both.map(|(one, other)| u64::from(one.load(Ordering::Relaxed)) + u64::from(other.load(Ordering::Relaxed)))
        };
        let total: u64 = counts().sum();
        if total < u64::from(at_least.max(1)) {
            return None;
        }
        let rank = q * total as f64;
        let mut seen = 0;
        counts()
            .position(|count| {
                seen += count;
                count > 0 && seen as f64 >= rank
            })
            .map(middle)
    }

    /// Makes the generation of `now` the current one, emptying what is too old, and gives its histogram.
    fn turn(&self, now: Instant) -> usize {
        let generation = now.nanoseconds_since(self.base) / GENERATION.as_nanos() as u64;
        let before = self.generation.load(Ordering::Relaxed);
        let passed = generation.saturating_sub(before);
        let histogram = |generation: u64| (generation & 1) as usize;
        // Whoever moves it on empties; what others count there meanwhile may be lost.
        let moves = || self.generation.compare_exchange(before, generation, Ordering::Relaxed, Ordering::Relaxed);
        if passed > 0 && moves().is_ok() {
            for old in 0..passed.min(2) {
                for count in &self.counts[histogram(generation - old)] {
                    count.store(0, Ordering::Relaxed);
                }
            }
        }
        histogram(generation)
    }
}

impl fmt::Debug for Quantiles {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Quantiles").field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// Below 16 µs every microsecond is a bucket, from there on every sixteenth of a power of two.
fn bucket(took: Duration) -> usize {
    let micros = took.min(TIME_MAX).as_micros() as u64;
    match micros.checked_ilog2() {
        Some(power @ 4..) => (power as usize - 3) * 16 + (micros >> (power - 4) & 15) as usize,
        _ => micros as usize,
    }
}

/// The middle of a bucket: at most half its width from anything in it.
fn middle(bucket: usize) -> Duration {
    let micros = match bucket / 16 {
        0 => bucket as u64,
        row => {
            let width = 1 << (row - 1);
            (16 + bucket as u64 % 16) * width + width / 2
        }
    };
    Duration::from_micros(micros)
}

// === impl Utilisation ===

impl Utilisation {
    /// Not at its limit. No instant it is told of later should be before `now`.
    pub fn new(now: Instant) -> Self {
        Utilisation { base: now, full_since: AtomicU64::new(0), seconds: Default::default() }
    }

    /// Whether the provider is at its limit now. To be told whenever something begins or ends there; where nothing has
    /// changed it costs one load.
    pub fn note(&self, full: bool, now: Instant) {
        let since = self.full_since.load(Ordering::Relaxed);
        if full == (since > 0) {
            return;
        }
        let at = self.nanos(now);
        let to = if full { at + 1 } else { 0 };
        let noted = self.full_since.compare_exchange(since, to, Ordering::Relaxed, Ordering::Relaxed);
        if noted.is_ok() && !full {
            self.add(since - 1, at);
        }
    }

    /// The share from 0 to 1, over the last [`SECONDS`] and the begun one, or since it exists. `full` is whether it is
    /// at its limit now: two threads may have told it in the wrong order.
    pub fn share(&self, full: bool, now: Instant) -> f64 {
        let now = self.nanos(now);
        let first = (now / SECOND).saturating_sub(SECONDS);
        let since = match self.full_since.load(Ordering::Relaxed) {
            since if full && since > 0 => (since - 1).max(first * SECOND),
            _ => now,
        };
        let recent = |word: &u64| (first..=now / SECOND).contains(&(word >> NANOS_BITS));
        let words = self.seconds.iter().map(|second| second.load(Ordering::Relaxed));
        let nanos = words.filter(recent).map(|word| word & NANOS_MASK).sum::<u64>() + now.saturating_sub(since);
        let span = (now - first * SECOND).max(1);
        (nanos as f64 / span as f64).min(1.0)
    }

    /// Adds the time from one instant to another to the seconds it was spent in.
    fn add(&self, from: u64, to: u64) {
        let first = (from / SECOND).max((to / SECOND).saturating_sub(SECONDS));
        for second in first..=to / SECOND {
            let spent = to.min((second + 1) * SECOND).saturating_sub(from.max(second * SECOND));
            let next = |word: u64| match word >> NANOS_BITS {
                newer if newer > second => None,
                same if same == second => Some(second << NANOS_BITS | ((word & NANOS_MASK) + spent).min(SECOND)),
                _ => Some(second << NANOS_BITS | spent),
            };
            let slot = &self.seconds[(second % (SECONDS + 1)) as usize];
            // An error means that the second is over for everybody else.
            slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok();
        }
    }

    fn nanos(&self, now: Instant) -> u64 {
        now.nanoseconds_since(self.base)
    }
}

/// What part of its weight a provider has `now` that came back at `since`: from a tenth, rising evenly to 1 after
/// `over`.
#[must_use]
pub fn slow_start(since: Instant, now: Instant, over: Duration) -> f64 {
    let passed = now.saturating_duration_since(since);
    if passed >= over {
        return 1.0;
    }
    SLOW_START_FROM + (1.0 - SLOW_START_FROM) * passed.div_duration_f64(over)
}

/// Places that a provider has `now` that came back at `since`, and when it has more: everybody may have waited for it, and
/// nobody knows how much it bears. [`EASE_FROM`] at first, twice as many with every [`EASE_STEP`]; `None` once that is more
/// than `places`.
#[must_use]
pub fn eased(since: Instant, now: Instant, places: u32) -> Option<(u32, Instant)> {
    let steps = now.saturating_duration_since(since).as_millis() / EASE_STEP.as_millis();
    let steps = u32::try_from(steps).ok().filter(|steps| *steps < EASE_FROM.leading_zeros())?;
    let open = EASE_FROM << steps;
    (open < places).then(|| (open, since + EASE_STEP * (steps + 1)))
}

/// Places that a provider begins with when it comes back.
pub const EASE_FROM: u32 = 4;

/// How long it takes until they are twice as many.
pub const EASE_STEP: Duration = Duration::from_millis(250);

/// After this long without an observation a latency counts for 1/e (37 %) of what it was.
pub const LATENCY_DECAY: Duration = Duration::from_secs(10);

/// The least latency there is, in seconds: 0 means unknown.
const LATENCY_MIN: f32 = 1e-6;

/// What time is counted in beside a latency. Averages move by a six-hundredth in it, which 24 bits can hold.
const TICK: Duration = Duration::from_millis(16);

/// Four years of ticks.
const TICK_BITS: u32 = 33;

const TICK_MASK: u64 = (1 << TICK_BITS) - 1;

/// How long answers are counted together.
pub const GENERATION: Duration = Duration::from_secs(30);

/// The longest time that is told apart: 71 minutes and 34 seconds.
pub const TIME_MAX: Duration = Duration::from_micros((1 << 32) - 1);

/// One for each microsecond below 16, and 16 for each of the 28 powers of two from there to [`TIME_MAX`].
const BUCKETS: usize = 29 * 16;

/// How many whole seconds a share of time is taken over.
pub const SECONDS: u64 = 10;

/// Nanoseconds in one.
const SECOND: u64 = 1_000_000_000;

/// Enough for [`SECOND`].
const NANOS_BITS: u32 = 30;

const NANOS_MASK: u64 = (1 << NANOS_BITS) - 1;

/// Where a slow start begins: enough to be noticed, too little to hurt.
const SLOW_START_FROM: f64 = 0.1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use proptest::prelude::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn is_near(value: f64, expected: f64) -> bool {
        (value - expected).abs() <= 0.01 * expected
    }

    #[test]
    fn a_latency_is_unknown_until_something_was_observed() {
        let start = clock::now();
        let latency = PeakEwma::new(start);
        assert!(latency.value(start + seconds(3600)) == 0.0);
        latency.observe(Duration::ZERO, start);
        assert!(latency.value(start + seconds(3600)) > 0.0, "the shortest time is known all the same");
    }

    #[test]
    fn a_longer_time_is_believed_at_once_and_a_shorter_one_slowly() {
        let start = clock::now();
        let latency = PeakEwma::new(start);
        latency.observe(millis(10), start);
        latency.observe(millis(500), start);
        assert!(is_near(latency.value(start), 0.5));
        // What is left of the peak after its time constant, and what the observation brings for the rest.
        let later = start + LATENCY_DECAY;
        latency.observe(millis(10), later);
        assert!(is_near(latency.value(later), 0.5 * 0.3679 + 0.01 * 0.6321), "{}", latency.value(later));
        latency.observe(millis(10), later);
        assert!(is_near(latency.value(later), 0.5 * 0.3679 + 0.01 * 0.6321), "a tick counts once");
    }

    #[test]
    fn many_short_times_move_it_as_far_as_few() {
        let start = clock::now();
        let (often, seldom) = (PeakEwma::new(start), PeakEwma::new(start));
        for latency in [&often, &seldom] {
            latency.observe(seconds(1), start);
        }
        for step in 1..=20_000 {
            often.observe(millis(900), start + millis(step));
        }
        for step in 1..=20 {
            seldom.observe(millis(900), start + seconds(step));
        }
        let now = start + seconds(20);
        let expected = 0.9 + 0.1 * (-2.0_f64).exp();
        assert!(is_near(seldom.value(now), expected), "{}", seldom.value(now));
        assert!(is_near(often.value(now), expected), "{}", often.value(now));
    }

    #[test]
    fn a_latency_fades_while_nobody_asks() {
        let start = clock::now();
        let latency = PeakEwma::new(start);
        latency.observe(seconds(2), start);
        assert!(is_near(latency.value(start + seconds(30)), 2.0 * (-3.0_f64).exp()));
    }

    #[test]
    fn a_thread_that_was_overtaken_does_not_make_time_run_backwards() {
        let start = clock::now();
        let latency = PeakEwma::new(start);
        latency.observe(seconds(1), start + seconds(60));
        latency.observe(millis(1), start + seconds(50));
        assert!(is_near(latency.value(start + seconds(40)), 1.0));
    }

    proptest! {
        #[test]
        fn a_latency_stays_between_what_was_observed_last_and_the_longest(
            times in proptest::collection::vec((0..10_000_u64, 0..20_000_u64), 1..50),
        ) {
            let mut now = clock::now();
            let latency = PeakEwma::new(now);
            let mut longest = 0;
            for (took, pause) in times {
                now += millis(pause);
                longest = longest.max(took);
                let before = latency.value(now);
                latency.observe(millis(took), now);
                let value = latency.value(now);
                let took = millis(took).as_secs_f64();
                prop_assert!(value >= took.min(before) * 0.99, "{value}");
                prop_assert!(value <= (longest as f64 / 1000.0).max(1e-6) * 1.01, "{value}");
            }
        }

        #[test]
        fn a_quantile_is_right_to_its_bound(
            mut times in proptest::collection::vec(0..200_000_000_u64, 1..300),
            q in 0.0..=1.0_f64,
        ) {
            let now = clock::now();
            let latency = Quantiles::new(now);
            for &micros in &times {
                latency.observe(Duration::from_micros(micros), now);
            }
            times.sort_unstable();
            let due = q * times.len() as f64;
            let (exact, _) = times.into_iter().zip(1..).find(|&(_, rank)| f64::from(rank) >= due).expect("a time");
            let exact = exact as f64;
            let found = latency.quantile(q, 1, now).expect("a quantile").as_micros() as f64;
            prop_assert!((found - exact).abs() <= exact * 0.032, "{found} for {exact}");
        }

        #[test]
        fn every_time_is_in_the_bucket_whose_middle_is_next_to_it(micros in any::<u64>()) {
            for micros in [micros, micros >> 32, micros >> 48] {
                let took = Duration::from_micros(micros);
                let found = middle(bucket(took)).as_micros() as f64;
                let exact = took.min(TIME_MAX).as_micros() as f64;
                prop_assert!((found - exact).abs() <= exact / 31.0, "{found} for {exact}");
            }
        }
    }

    #[test]
    fn the_longest_time_there_is_has_a_bucket() {
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
        assert_eq!(bucket(Duration::ZERO), 0);
        assert!((1..BUCKETS).all(|index| bucket(middle(index)) == index), "no bucket is skipped");
    }

    #[test]
    fn there_is_no_quantile_of_too_few() {
        let now = clock::now();
        let latency = Quantiles::new(now);
        assert_eq!(latency.quantile(0.5, 0, now), None);
        for _ in 0..19 {
            latency.observe(millis(7), now);
        }
        assert_eq!(latency.quantile(0.5, 20, now), None);
        latency.observe(millis(7), now);
        let median = latency.quantile(0.5, 20, now).expect("there are twenty");
        assert!(median.abs_diff(millis(7)) < Duration::from_micros(225), "{median:?}");
    }

    #[test]
    fn a_quantile_forgets_what_is_two_generations_old() {
        let start = clock::now();
        let latency = Quantiles::new(start);
        latency.observe(seconds(9), start);
        let one = start + GENERATION;
        latency.observe(millis(1), one);
        let longest = |now| latency.quantile(1.0, 1, now).map(|time| time.as_secs());
        assert_eq!(longest(one), Some(9), "the generation before counts");
        assert_eq!(longest(one + GENERATION), Some(0), "the one before that does not");
        latency.observe(seconds(5), start + GENERATION * 2);
        assert_eq!(longest(start + GENERATION * 4), None, "after a pause nothing is left");
    }

    #[test]
    fn an_observation_that_comes_late_does_not_bring_an_old_generation_back() {
        let start = clock::now();
        let latency = Quantiles::new(start);
        let now = start + GENERATION * 3;
        latency.observe(millis(3), now);
        latency.observe(millis(3), start + GENERATION * 2);
        assert!(latency.quantile(0.5, 2, now).is_some(), "both count, and nothing was emptied");
    }

    #[test]
    fn utilisation_is_the_share_of_time_at_the_limit() {
        let start = clock::now();
        let busy = Utilisation::new(start);
        assert!(busy.share(false, start) == 0.0);
        for tenth in 0..100 {
            let at = start + millis(tenth * 100);
            busy.note(true, at);
            busy.note(true, at + millis(10));
            busy.note(false, at + millis(40));
        }
        let share = busy.share(false, start + seconds(10));
        assert!(is_near(share, 0.4), "{share}");
        let share = busy.share(false, start + seconds(16));
        assert!(is_near(share, 0.16), "six of ten seconds were idle: {share}");
        assert!(busy.share(false, start + seconds(60)) == 0.0);
    }

    #[test]
    fn time_at_the_limit_counts_before_it_ends() {
        let start = clock::now();
        let busy = Utilisation::new(start);
        busy.note(true, start + seconds(5));
        assert!(is_near(busy.share(true, start + seconds(10)), 0.5));
        assert!(is_near(busy.share(true, start + seconds(3600)), 1.0));
        assert!(busy.share(false, start + seconds(3600)) == 0.0, "who asks knows better");
        busy.note(false, start + seconds(3600));
        assert!(is_near(busy.share(false, start + seconds(3600)), 1.0));
    }

    #[test]
    fn a_slow_start_rises_evenly_from_a_tenth() {
        let since = clock::now();
        let at = |passed| slow_start(since, since + millis(passed), seconds(30));
        assert!(is_near(at(0), 0.1) && is_near(at(15_000), 0.55) && is_near(at(29_999), 1.0));
        assert!(at(30_000) >= 1.0 && at(90_000) <= 1.0);
        assert!(slow_start(since, since, Duration::ZERO) >= 1.0);
    }

    #[test]
    fn who_comes_back_has_few_places_at_first_and_twice_as_many_with_every_step() {
        let since = clock::now();
        let after = |steps: u32| since + EASE_STEP * steps;
        assert_eq!(eased(since, since, 1024), Some((4, after(1))));
        assert_eq!(eased(since, since + EASE_STEP.mul_f64(0.99), 1024), Some((4, after(1))));
        assert_eq!(eased(since, after(1), 1024), Some((8, after(2))));
        assert_eq!(eased(since, after(7), 1024), Some((512, after(8))));
        assert_eq!((eased(since, after(8), 1024), eased(since, since, 4)), (None, None), "it has all it may have");
        assert_eq!(eased(since, after(100_000), u32::MAX), None);
    }
}
