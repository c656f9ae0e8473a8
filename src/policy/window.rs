//! How many attempts succeeded and failed lately.
//!
//! The window is cut into [`BUCKETS`] of equal length, and the oldest is forgotten whole when a new one begins. So it
//! covers between nine and ten tenths of its span, in a few hundred bytes whatever the traffic. An exponential average
//! would be smaller still, but could not say "12 of 20", and a burst would count differently from the same attempts
//! spread out.
//!
//! Time that goes backwards (threads read the clock before they take a lock) counts as the latest seen.

use crate::instant::Instant;
use std::time::Duration;

/// Successes and failures within the span before now.
#[derive(Debug, Clone)]
pub struct Window {
    start: Instant,
    /// Nanoseconds that a bucket covers.
    step: u64,
    /// The number of the bucket that is being filled, counted from the start.
    current: u64,
    buckets: [Counts; BUCKETS],
    /// The sum of the buckets.
    total: Counts,
}

/// So many of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Attempts that went well.
    pub successes: u64,
    /// Attempts that did not.
    pub failures: u64,
}

// === impl Window ===

impl Window {
    /// Empty, over `span`, which is cut to [`SPAN_MAX`].
    #[must_use]
    pub fn new(span: Duration, now: Instant) -> Self {
        // Fits: SPAN_MAX is less than 2^60 ns.
        let step = (span.min(SPAN_MAX).as_nanos() as u64 / BUCKETS as u64).max(1);
        Window { start: now, step, current: 0, buckets: [Counts::default(); BUCKETS], total: Counts::default() }
    }

    /// Forgets the buckets that are too old by now. Whoever reads or adds has to do this first.
    pub fn roll(&mut self, now: Instant) {
        let number = nanoseconds(self.start, now) / self.step;
        let steps = number.saturating_sub(self.current).min(BUCKETS as u64);
        for step in 1..=steps {
            let oldest = std::mem::take(&mut self.buckets[slot(self.current + step)]);
            self.total.successes -= oldest.successes;
            self.total.failures -= oldest.failures;
        }
        self.current = self.current.max(number);
    }

    /// When the bucket that is being filled is full.
    #[must_use]
    pub fn bucket_ends(&self) -> Instant {
        self.start + Duration::from_nanos(self.step.saturating_mul(self.current + 1))
    }

    /// Adds to the bucket that is being filled.
    pub fn add(&mut self, more: Counts) {
        for counts in [&mut self.buckets[slot(self.current)], &mut self.total] {
            counts.successes += more.successes;
            counts.failures += more.failures;
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.buckets = [Counts::default(); BUCKETS];
        self.total = Counts::default();
    }

    /// What is within the span.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.total
    }
}

/// Where the bucket of this number is kept.
fn slot(number: u64) -> usize {
    (number % BUCKETS as u64) as usize
}

/// Nanoseconds from `start` to `now`, none if it is earlier. They fit for five hundred years.
fn nanoseconds(start: Instant, now: Instant) -> u64 {
    now.nanoseconds_since(start)
}

/// Buckets of a window: what it forgets at once is a tenth of it.
const BUCKETS: usize = 10;

/// The longest span: thirty years. A longer one is cut, so that no instant overflows.
pub const SPAN_MAX: Duration = Duration::from_hours(30 * 365 * 24);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SUCCESS: Counts = Counts { successes: 1, failures: 0 };
    const FAILURE: Counts = Counts { successes: 0, failures: 1 };

    fn milliseconds(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn what_happened_counts_until_its_bucket_is_a_whole_span_old() {
        let start = crate::clock::now();
        let mut window = Window::new(Duration::from_secs(10), start);
        window.roll(start + milliseconds(999));
        window.add(FAILURE);
        window.roll(start + milliseconds(9_999));
        assert_eq!(window.counts(), FAILURE);
        window.roll(start + milliseconds(10_000));
        assert_eq!(window.counts(), Counts::default());
    }

    #[test]
    fn an_instant_earlier_than_the_latest_counts_as_the_latest() {
        let start = crate::clock::now();
        let mut window = Window::new(Duration::from_secs(10), start);
        window.roll(start + milliseconds(5_000));
        window.roll(start);
        window.add(SUCCESS);
        assert_eq!(window.bucket_ends(), start + milliseconds(6_000));
        window.roll(start + milliseconds(14_999));
        assert_eq!(window.counts(), SUCCESS);
        window.roll(start + milliseconds(15_000));
        assert_eq!(window.counts(), Counts::default());
    }

    #[test]
    fn absurd_spans_neither_divide_by_nothing_nor_overflow() {
        let start = crate::clock::now();
        for span in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
            let mut window = Window::new(span, start);
            window.roll(start + SPAN_MAX);
            window.add(SUCCESS);
            assert_eq!(window.counts(), SUCCESS, "{span:?}");
            assert!(window.bucket_ends() > start + SPAN_MAX, "{span:?}");
        }
    }

    proptest! {
        #[test]
        fn it_counts_like_a_list_of_everything_that_happened(
            span in 10..200u64,
            events in proptest::collection::vec((0..60u64, any::<bool>()), 1..200),
        ) {
            let start = crate::clock::now();
            // A span of tens, so that a bucket is a whole number of milliseconds.
            let (mut window, mut list, mut passed) = (Window::new(milliseconds(span * 10), start), Vec::new(), 0);
            for (gap, success) in events {
                // Long gaps are rare, short ones keep several buckets filled.
                passed += if gap < 50 { gap } else { gap * 20 };
                window.roll(start + milliseconds(passed));
                window.add(if success { SUCCESS } else { FAILURE });
                list.push((passed / span, success));
                let within = |wanted: bool| {
                    let lately = |&&(bucket, success): &&(u64, bool)| bucket + 10 > passed / span && success == wanted;
                    list.iter().filter(lately).count() as u64
                };
                prop_assert_eq!(window.counts(), Counts { successes: within(true), failures: within(false) });
            }
        }
    }
}
