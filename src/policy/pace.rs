//! A steady rate: when the next attempt may go to a provider that takes so many a second.
//!
//! This is the generic cell rate algorithm (ITU-T I.371, annex A, "virtual scheduling"): one instant, the *theoretical
//! arrival time*, moves on by an interval with each attempt, and who comes further ahead of it than a tolerance has to
//! wait. It is a bucket of tokens without the bucket: nothing is refilled, nobody has to come by, and the instant at which
//! there is room is known to the nanosecond. One atomic word holds it, so that threads agree without a lock.
//!
//! The tolerance is `burst - 1` intervals, and a little more ([`LATE`]): who waits is woken by a timer of the runtime, which
//! counts in milliseconds, and so does the kernel's sleep under it. Without that, a wake-up that is late would be room lost
//! for good, and 1,000 a second could not be kept by timers at all. The price: more than `burst` may go at once where the
//! interval is shorter than that. The rate itself is never exceeded.

use crate::instant::Instant;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How many attempts, in what time, and how many of them at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// At least 1.
    pub count: u32,
    /// The time in which `count` may go, more than zero.
    pub per: Duration,
    /// How many may go at once after a pause, at least 1.
    pub burst: u32,
}

/// One provider's pace, shared by all who send to it. Times are nanoseconds since `base`: enough for five centuries.
#[derive(Debug)]
pub struct Pace {
    base: Instant,
    /// The theoretical arrival time.
    arrival: AtomicU64,
    /// Between two attempts; 0 without a rate.
    interval: AtomicU64,
    /// How far ahead of the theoretical arrival one may come.
    tolerance: AtomicU64,
}

// === impl Pace ===

impl Pace {
    /// A pace that has not been used. `base` is any instant before those it will be asked about.
    #[must_use]
    pub fn new(terms: Option<Terms>, base: Instant) -> Self {
        let [arrival, interval, tolerance] = Default::default();
        let pace = Pace { base, arrival, interval, tolerance };
        pace.set(terms);
        pace
    }

    /// Goes on with other terms; without any, everything may go. What went before still counts, but nobody waits for it
    /// more than a second longer than if it had gone under these.
    pub fn set(&self, terms: Option<Terms>) {
        let (interval, tolerance) = terms.map_or((0, 0), |terms| {
            // Rounded up: a rate is a promise not to send more.
            let interval = nanoseconds(terms.per).div_ceil(u64::from(terms.count.max(1))).max(1);
            let ahead = interval.saturating_mul(u64::from(terms.burst.saturating_sub(1)));
            (interval, ahead.saturating_add(nanoseconds(LATE)))
        });
        // Whoever reads between the two stores decides once with one of each, which does no harm.
        self.interval.store(interval, Ordering::Relaxed);
        self.tolerance.store(tolerance, Ordering::Relaxed);
    }

    /// Lets one attempt go.
    ///
    /// # Errors
    ///
    /// When to come again, if it may not go `now`.
    pub fn take(&self, now: Instant) -> Result<(), Instant> {
        let interval = self.interval.load(Ordering::Relaxed);
        if interval == 0 {
            return Ok(());
        }
        let at = self.since_base(now);
        let tolerance = self.tolerance.load(Ordering::Relaxed);
        // The word guards nothing but itself, so no ordering with other memory is needed.
        let mut seen = self.arrival(at, interval, tolerance);
        while at >= seen.saturating_sub(tolerance) {
            let next = seen.max(at).saturating_add(interval);
            match self.arrival.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(other) => seen = other,
            }
        }
        Err(self.instant(seen - tolerance))
    }

    /// What [`Pace::take`] would answer, without letting anything go.
    ///
    /// # Errors
    ///
    /// When to come, if nothing may go `now`.
    pub fn peek(&self, now: Instant) -> Result<(), Instant> {
        let interval = self.interval.load(Ordering::Relaxed);
        if interval == 0 {
            return Ok(());
        }
        let at = self.since_base(now);
        let tolerance = self.tolerance.load(Ordering::Relaxed);
        let earliest = self.arrival(at, interval, tolerance).saturating_sub(tolerance);
        if at >= earliest { Ok(()) } else { Err(self.instant(earliest)) }
    }

    /// Undoes a [`Pace::take`] whose attempt did not go after all: as if it had not been.
    pub fn give_back(&self) {
        let interval = self.interval.load(Ordering::Relaxed);
        let back = |arrival: u64| Some(arrival.saturating_sub(interval));
        // The closure never declines.
        self.arrival.fetch_update(Ordering::Relaxed, Ordering::Relaxed, back).ok();
    }

    /// The theoretical arrival time, brought back where only what went under other terms can have put it.
    fn arrival(&self, at: u64, interval: u64, tolerance: u64) -> u64 {
        let arrival = self.arrival.load(Ordering::Relaxed);
        let furthest = at.saturating_add(tolerance).saturating_add(interval).saturating_add(nanoseconds(BEHIND));
        if arrival <= furthest {
            return arrival;
        }
        self.arrival.fetch_min(furthest, Ordering::Relaxed);
        furthest
    }

    fn since_base(&self, now: Instant) -> u64 {
        nanoseconds(now.saturating_duration_since(self.base))
    }

    fn instant(&self, nanoseconds: u64) -> Instant {
        self.base + Duration::from_nanos(nanoseconds)
    }
}

/// As many as fit.
fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// How far the `now` of one thread may be behind that of another without being taken for a change of terms.
const BEHIND: Duration = Duration::from_secs(1);
/// How late a timer may wake somebody without room being lost: a millisecond by which the runtime rounds up, and one by which
/// the kernel's sleep does.
pub const LATE: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    fn paced(count: u32, per: Duration, burst: u32, start: Instant) -> Pace {
        Pace::new(Some(Terms { count, per, burst }), start)
    }

    /// How many may go at once.
    fn drain(pace: &Pace, now: Instant) -> usize {
        (0..100_000).take_while(|_| pace.take(now).is_ok()).count()
    }

    #[test]
    fn a_burst_goes_at_once_and_then_one_in_each_interval() {
        let start = clock::now();
        let pace = paced(10, Duration::from_secs(1), 5, start);
        assert_eq!(drain(&pace, start), 5);
        assert_eq!(pace.take(start), Err(start + 98 * MS));
        assert_eq!(pace.take(start + 97 * MS), Err(start + 98 * MS), "asking moves nothing");
        assert_eq!(drain(&pace, start + 100 * MS), 1);
        assert_eq!(drain(&pace, start + 400 * MS), 3);
        assert_eq!(drain(&pace, start + Duration::from_secs(60)), 5, "a pause earns a burst and no more");
    }

    #[test]
    fn without_a_rate_everything_goes() {
        let start = clock::now();
        let pace = Pace::new(None, start);
        assert_eq!((drain(&pace, start), pace.peek(start)), (100_000, Ok(())));
    }

    #[test]
    fn a_rate_is_kept_by_timers_that_wake_late() {
        for (count, late) in [(500, 1_999), (500, 1), (1_000, 1_500), (20_000, 2_000), (3, 2_000)] {
            let start = clock::now();
            let pace = paced(count, Duration::from_secs(1), 1, start);
            let (mut now, mut taken) = (start, 0);
            while now < start + Duration::from_secs(100) {
                match pace.take(now) {
                    Ok(()) => taken += 1,
                    Err(at) => now = at + Duration::from_micros(late),
                }
            }
            let due = 100 * count;
            assert!(taken + 1 >= due, "{taken} of {due} with wake-ups {late} µs late");
        }
    }

    #[test]
    fn looking_lets_nothing_go() {
        let start = clock::now();
        let pace = paced(1, Duration::from_secs(1), 1, start);
        assert_eq!((pace.peek(start), pace.peek(start), pace.take(start)), (Ok(()), Ok(()), Ok(())));
        assert_eq!(pace.peek(start), pace.take(start));
        assert!(pace.peek(start).is_err());
    }

    #[test]
    fn what_did_not_go_is_given_back() {
        let start = clock::now();
        let pace = paced(10, Duration::from_secs(1), 2, start);
        assert_eq!(drain(&pace, start), 2);
        pace.give_back();
        assert_eq!(drain(&pace, start), 1);
        let later = start + Duration::from_secs(9);
        assert_eq!(pace.take(later), Ok(()));
        pace.give_back();
        assert_eq!(drain(&pace, later), 2);
    }

    #[test]
    fn other_terms_count_at_once_and_nobody_waits_for_old_ones() {
        let start = clock::now();
        let pace = paced(1, Duration::from_secs(3600), 100, start);
        assert_eq!(drain(&pace, start), 100);
        pace.set(Some(Terms { count: 10, per: Duration::from_secs(1), burst: 1 }));
        let at = pace.take(start).expect_err("it has just sent a hundred");
        assert_eq!((at, pace.peek(start)), (start + 100 * MS + BEHIND, Err(at)));
        assert_eq!(pace.take(at), Ok(()));
        pace.set(None);
        assert!(pace.take(at).is_ok());
    }

    #[test]
    fn terms_and_instants_at_their_ends_do_no_harm() {
        let start = clock::now();
        let slowest = paced(1, Duration::MAX, u32::MAX, start + Duration::from_secs(9));
        assert_eq!(drain(&slowest, start), 100_000);
        let fastest = paced(u32::MAX, Duration::from_nanos(1), 1, start);
        assert!(drain(&fastest, start) > 1);
        let single = paced(1, Duration::MAX, 1, start);
        assert_eq!(single.take(start), Ok(()));
        single.give_back();
        single.give_back();
        assert_eq!(single.take(start), Ok(()));
    }

    #[test]
    fn threads_never_let_more_go_together_than_one_alone() {
        let start = clock::now();
        let pace = paced(1_000, Duration::from_secs(1), 500, start);
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| drain(&pace, start))).collect();
            threads.into_iter().map(|thread| thread.join().expect("a count")).sum()
        });
        assert_eq!(taken, 502, "the burst, and two within the tolerance");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn as_many_go_as_a_leaking_bucket_has_room_for(
            count in 1_u32..5_000, burst in 1_u32..50, steps in vec((0..20_000_u64, 0..60_usize), 1..80)
        ) {
            let start = clock::now();
            let pace = paced(count, Duration::from_secs(1), burst, start);
            let interval = 1_000_000_000_u64.div_ceil(u64::from(count));
            let tolerance = interval * u64::from(burst - 1) + LATE.as_nanos() as u64;
            // The algorithm's other description: a bucket that leaks steadily and must not overflow.
            let (mut now, mut full) = (0, 0_u64);
            for (microseconds, tries) in steps {
                let pause = microseconds * 1_000;
                (now, full) = (now + pause, full.saturating_sub(pause));
                let at = start + Duration::from_nanos(now);
                for _ in 0..tries {
                    let fits = full <= tolerance;
                    prop_assert_eq!(pace.peek(at).is_ok(), fits);
                    prop_assert_eq!(pace.take(at).is_ok(), fits);
                    full += if fits { interval } else { 0 };
                }
            }
        }

        #[test]
        fn who_comes_when_told_may_go_and_not_a_nanosecond_before(
            count in 1_u32..5_000, burst in 1_u32..50, steps in vec(0..5_000_u64, 1..80)
        ) {
            let start = clock::now();
            let pace = paced(count, Duration::from_secs(1), burst, start);
            let mut now = start;
            for microseconds in steps {
                now += Duration::from_micros(microseconds);
                if let Err(at) = pace.take(now) {
                    prop_assert!(at > now);
                    let before = now + (at - now).saturating_sub(Duration::from_nanos(1));
                    prop_assert_eq!(pace.peek(before), Err(at));
                    prop_assert_eq!(pace.take(at), Ok(()));
                    now = at;
                }
            }
        }
    }
}
