//! When a provider that is asked whether it is well counts as well.
//!
//! Checks come one at a time, beside the requests. One that goes wrong may be a hiccup, and one that goes right may be
//! luck: it takes a few in a row to change an opinion. There is no opinion before the first check, which therefore decides
//! at once; until it has, the provider is taken for well, as one without checks is.

use crate::instant::Instant;
use std::time::Duration;

/// How many checks it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Good ones in a row after which it is well; at least 1.
    pub healthy_after: u32,
    /// Bad ones in a row after which it is not; at least 1.
    pub unhealthy_after: u32,
}

/// What the checks of one provider have shown.
#[derive(Debug, Clone)]
pub struct Health {
    terms: Terms,
    /// `None` before the first check.
    well: Option<bool>,
    /// The latest checks, in a row, that speak against `well`.
    against: u32,
    since: Instant,
}

// === impl Health ===

impl Health {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(terms: Terms, now: Instant) -> Self {
        Health { terms, well: None, against: 0, since: now }
    }

    /// A check ended, `good` or not. Says whether that changed the opinion; the first check always does.
    pub fn checked(&mut self, good: bool, now: Instant) -> bool {
        if self.well == Some(good) {
            self.against = 0;
            return false;
        }
        self.against += 1;
        let changes = self.well.is_none() || self.against >= self.needed(good);
        if changes {
            (self.well, self.against, self.since) = (Some(good), 0, now);
        }
        changes
    }

    /// Whether requests may go there.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.well.unwrap_or(true)
    }

    /// Since when that is so.
    #[must_use]
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Where it is not well: when it may be at the soonest, if the next check begins at `next` and they are `interval`
    /// apart.
    #[must_use]
    pub fn well_at(&self, next: Instant, interval: Duration) -> Option<Instant> {
        if self.is_well() {
            return None;
        }
        let after_next = self.needed(true).saturating_sub(self.against + 1);
        next.checked_add(interval.saturating_mul(after_next))
    }

    fn needed(&self, good: bool) -> u32 {
        if good { self.terms.healthy_after } else { self.terms.unhealthy_after }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use proptest::prelude::*;

    const TERMS: Terms = Terms { healthy_after: 2, unhealthy_after: 3 };
    const SECOND: Duration = Duration::from_secs(1);

    /// Checks a second apart, and what is thought after each of them.
    fn opinions(terms: Terms, checks: &[bool]) -> Vec<bool> {
        let base = clock::now();
        let mut health = Health::new(terms, base);
        let opinion = |(n, good): (u32, &bool)| {
            let before = health.is_well();
            let changed = health.checked(*good, base + SECOND * n);
            assert_eq!(changed, n == 1 || before != health.is_well(), "a change is told, and nothing else is");
            assert_eq!(changed, health.since() == base + SECOND * n, "and its time is known");
            health.is_well()
        };
        (1..).zip(checks).map(opinion).collect()
    }

    #[test]
    fn before_the_first_check_it_is_taken_for_well_and_the_first_one_decides() {
        let now = clock::now();
        assert!(Health::new(TERMS, now).is_well());
        assert_eq!(opinions(TERMS, &[false]), [false]);
        assert_eq!(opinions(TERMS, &[true]), [true]);
    }

    #[test]
    fn it_takes_so_many_in_a_row_to_change_an_opinion() {
        assert_eq!(
            opinions(TERMS, &[true, false, false, true, false, false, false]),
            [true, true, true, true, true, true, false]
        );
        assert_eq!(opinions(TERMS, &[false, true, false, true, true]), [false, false, false, false, true]);
    }

    #[test]
    fn one_that_is_unwell_says_when_it_may_be_well_again_at_the_soonest() {
        let now = clock::now();
        let mut health = Health::new(Terms { healthy_after: 3, ..TERMS }, now);
        assert_eq!(health.well_at(now, SECOND), None, "it is");
        health.checked(false, now);
        assert_eq!(health.well_at(now, SECOND), Some(now + 2 * SECOND));
        health.checked(true, now);
        assert_eq!(health.well_at(now, SECOND), Some(now + SECOND));
        health.checked(true, now);
        assert_eq!(health.well_at(now, SECOND), Some(now), "the very next one");
        health.checked(false, now);
        assert_eq!(health.well_at(now, SECOND), Some(now + 2 * SECOND), "not in a row any more");
        assert_eq!(health.well_at(now, Duration::MAX), None, "nobody lives to see it");
    }

    proptest! {
        /// The last run of equal checks decides if it is long enough; else what was thought before it stays.
        #[test]
        fn the_opinion_is_that_of_the_last_run_that_was_long_enough(
            healthy_after in 1_u32..5,
            unhealthy_after in 1_u32..5,
            checks in prop::collection::vec(any::<bool>(), 1..60),
        ) {
            let seen = opinions(Terms { healthy_after, unhealthy_after }, &checks);
            let enough = |run: &[bool]| run.len() >= if run[0] { healthy_after } else { unhealthy_after } as usize;
            for end in 1..=checks.len() {
                let mut runs = checks[..end].chunk_by(|a, b| a == b);
                let decided = runs.clone().rfind(|run| enough(run)).or_else(|| runs.next());
                prop_assert_eq!(Some(seen[end - 1]), decided.map(|run| run[0]));
            }
        }
    }
}
