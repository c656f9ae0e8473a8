//! How fast a line of waiting requests moves, for estimates of how long a newcomer would wait.
//!
//! Places rarely come free evenly: providers that began together end together, and a dozen places may come free within a
//! moment and then none for a whole service time. So what counts is how many were served in how long, over *periods* that are
//! long enough to hold several such rounds, and never one gap by itself. Time in which nobody waited does not count.

use crate::instant::Instant;
use std::time::Duration;

/// How fast one line moves while somebody waits in it.
#[derive(Debug, Clone, Default)]
pub struct Flow {
    /// The last period that was whole.
    usual: Option<Period>,
    /// The one that is under way.
    current: Period,
    /// When the last was served, or the line began.
    last: Option<Instant>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Period {
    served: u32,
    took: Duration,
    /// The longest between two that were served.
    longest: Duration,
}

// === impl Flow ===

impl Flow {
    /// The first waiter of a line that was empty has come.
    pub fn begin(&mut self, now: Instant) {
        if self.last.is_none_or(|last| now.saturating_duration_since(last) > MEMORY) {
            self.forget();
        }
        self.last = Some(now);
    }

    /// One was served.
    pub fn served(&mut self, now: Instant) {
        let gap = self.last.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        self.last = Some(now);
        // A stall says little about how fast the line goes on after it.
        if self.usual.is_some_and(|usual| gap > usual.longest * STALL + PERIOD) {
            self.current = Period::default();
            return;
        }
        let current = &mut self.current;
        current.served += 1;
        current.took += gap;
        current.longest = current.longest.max(gap);
        if current.served >= MINIMUM && current.took >= PERIOD {
            self.usual = Some(std::mem::take(current));
        }
    }

    /// Nobody is served for a while, and what comes after that is another matter.
    pub fn forget(&mut self) {
        (self.usual, self.current) = (None, Period::default());
    }

    /// The usual time between two that are served, once it is known.
    #[must_use]
    pub fn gap(&self) -> Option<Duration> {
        let begun = Some(self.current).filter(|current| current.served >= MINIMUM);
        self.usual.or(begun).map(|period| period.took / period.served)
    }
}

/// A period is at least as long as this, in time and in requests served.
const PERIOD: Duration = Duration::from_secs(1);
const MINIMUM: u32 = 16;

/// A gap that is longer than so many times the longest of the last period, and a period, is a stall.
const STALL: u32 = 4;

/// A line that was empty for longer begins anew.
const MEMORY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    /// A line that has been served at these milliseconds.
    fn served(at: impl IntoIterator<Item = u64>) -> Flow {
        let (base, mut flow) = (clock::now(), Flow::default());
        flow.begin(base);
        at.into_iter().for_each(|at| flow.served(base + Duration::from_millis(at)));
        flow
    }

    fn gap(flow: &Flow) -> u128 {
        flow.gap().expect("it is known").as_micros()
    }

    #[test]
    fn too_few_say_nothing() {
        assert_eq!(served(1..16).gap(), None);
        assert_eq!(gap(&served(1..=16)), 1_000);
    }

    #[test]
    fn places_that_come_free_together_count_as_those_that_come_one_by_one() {
        let evenly = served((1..=3_000).map(|n| n * 2));
        let together = served((1..=3_000).map(|n| n / 50 * 100));
        assert_eq!(gap(&evenly), 2_000);
        assert!((1_900..=2_100).contains(&gap(&together)), "{together:?}");
    }

    #[test]
    fn what_is_slower_or_faster_from_some_moment_on_is_known_a_period_later() {
        let slower = served((1..=1_000).map(|n| n * 2).chain((1..=200).map(|n| 2_000 + n * 10)));
        assert_eq!(gap(&slower), 10_000);
        let faster = served((1..=200).map(|n| n * 10).chain((1..=1_000).map(|n| 2_000 + n * 2)));
        assert_eq!(gap(&faster), 2_000);
    }

    #[test]
    fn a_stall_changes_nothing_and_what_comes_after_it_counts() {
        let moving = || (1..=1_500).map(|n| n * 2);
        assert_eq!(gap(&served(moving().chain([30_000]))), 2_000);
        let after = (1..=1_000).map(|n| 30_000 + n * 4);
        assert_eq!(gap(&served(moving().chain(after))), 4_000);
    }

    #[test]
    fn a_slow_line_is_known_by_its_rounds_however_long_they_are() {
        let rounds = served((1..=40).map(|n| n / 4 * 5_000));
        assert!((1_100_000..=1_400_000).contains(&gap(&rounds)), "{rounds:?}");
    }

    #[test]
    fn time_in_which_nobody_waits_does_not_count_and_after_long_the_line_begins_anew() {
        let base = clock::now();
        let mut flow = Flow::default();
        for turn in 0..16 {
            let at = base + Duration::from_secs(9 * turn);
            flow.begin(at);
            flow.served(at + Duration::from_millis(3));
        }
        assert_eq!(gap(&flow), 3_000);
        flow.begin(base + Duration::from_secs(9 * 15 + 11));
        assert_eq!(flow.gap(), None);
    }
}
