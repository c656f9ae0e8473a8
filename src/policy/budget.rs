//! How many retries a pool can afford: a share of its requests, and a few in any case.
//!
//! While one provider in a hundred fails, trying again costs nothing; while all fail, it multiplies the load on what is
//! already too weak. So a retry takes a token, each request brings a part of one (`ratio`), and each second a few more
//! (`min_per_second`), so that a pool with little traffic may retry at all. Tokens are kept for about ten seconds: an hour of
//! calm does not pay for a storm. This is Finagle's `RetryBudget` (twitter/finagle, finagle-core), which instead counts the
//! tokens of each second of the last ten.
//!
//! Nothing is done when a request comes: it is counted anyway, and the budget looks at the counter when it is asked. How
//! many came in the last ten seconds is then an average that forgets at that pace.

use crate::instant::Instant;
use std::time::Duration;

/// Tokens for retries. A hedge's budget is another one.
///
/// Whatever happens, the tokens taken are at most `ratio` for each request, `min_per_second` for each second, and what ten
/// seconds of nothing bring, with which it begins.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    tokens: f64,
    /// Requests of about the last ten seconds.
    recent: f64,
    requests_total: u64,
    at: Instant,
}

// === impl Budget ===

impl Budget {
    /// A budget that begins `now`, when `requests_total` had been counted, with what ten quiet seconds bring.
    #[must_use]
    pub fn new(requests_total: u64, min_per_second: f64, now: Instant) -> Self {
        Budget { tokens: min_per_second * KEPT.as_secs_f64(), recent: 0.0, requests_total, at: now }
    }

    /// Takes a token for one retry, if there is one. `requests_total` counts the requests that came, without their retries.
    pub fn withdraw(&mut self, requests_total: u64, ratio: f64, min_per_second: f64, now: Instant) -> bool {
        *self = self.settled(requests_total, ratio, min_per_second, now);
        let affordable = self.tokens >= 1.0;
        if affordable {
            self.tokens -= 1.0;
        }
        affordable
    }

    /// Puts a token back whose retry was not made.
    pub fn give_back(&mut self) {
        self.tokens += 1.0;
    }

    /// The tokens there are.
    #[must_use]
    pub fn remaining(&self, requests_total: u64, ratio: f64, min_per_second: f64, now: Instant) -> f64 {
        self.settled(requests_total, ratio, min_per_second, now).tokens
    }

    /// The budget with everything that came since it was last asked.
    fn settled(&self, requests_total: u64, ratio: f64, min_per_second: f64, now: Instant) -> Budget {
        let elapsed = now.saturating_duration_since(self.at);
        let requests = requests_total.saturating_sub(self.requests_total) as f64;
        let kept = KEPT.as_secs_f64();
        // Requests that came evenly over `span` (in units of what is kept) are each worth e^(-age) by now.
        let span = elapsed.as_secs_f64() / kept;
        let worth = if span > 0.0 { -(-span).exp_m1() / span } else { 1.0 };
        let recent = self.recent * (-span).exp() + requests * worth;
        let came = ratio * requests + min_per_second * elapsed.as_secs_f64();
        let bound = ratio * recent + min_per_second * kept;
        Budget {
            tokens: (self.tokens + came).min(bound),
            recent,
            requests_total: requests_total.max(self.requests_total),
            at: now.max(self.at),
        }
    }
}

/// For how long a token is kept.
const KEPT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const RATIO: f64 = 0.2;
    const MIN: f64 = 10.0;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// How many tokens can be taken one after the other.
    fn drain(budget: &mut Budget, requests_total: u64, min_per_second: f64, now: Instant) -> usize {
        (0..1_000_000).take_while(|_| budget.withdraw(requests_total, RATIO, min_per_second, now)).count()
    }

    #[test]
    fn it_begins_with_what_ten_quiet_seconds_bring() {
        let start = clock::now();
        let mut budget = Budget::new(7, MIN, start);
        assert_eq!(drain(&mut budget, 7, MIN, start), 100);
        assert_eq!(drain(&mut budget, 7, MIN, start + seconds(0.3)), 3);
    }

    #[test]
    fn each_request_brings_its_share() {
        let start = clock::now();
        let mut budget = Budget::new(0, MIN, start);
        assert_eq!(drain(&mut budget, 0, MIN, start), 100);
        assert_eq!(drain(&mut budget, 1_000, MIN, start), 200);
        assert_eq!(drain(&mut budget, 1_004, MIN, start), 0, "four fifths of a token are none");
        assert_eq!(drain(&mut budget, 1_005, MIN, start), 1);
    }

    #[test]
    fn under_a_steady_load_of_failures_retries_are_the_ratio() {
        let start = clock::now();
        let mut budget = Budget::new(0, 0.0, start);
        let retries = (1..=100_000_u64)
            .filter(|total| budget.withdraw(*total, RATIO, 0.0, start + Duration::from_millis(*total)))
            .count();
        assert!((19_990..=20_000).contains(&retries), "{retries} of 100,000");
    }

    #[test]
    fn an_hour_of_calm_does_not_pay_for_a_storm() {
        let start = clock::now();
        let mut budget = Budget::new(0, MIN, start);
        // 1,000 requests a second bring 200 tokens a second; ten seconds of that and of the minimum are kept.
        let after = start + Duration::from_secs(3600);
        let kept = drain(&mut budget, 3_600_000, MIN, after);
        assert_eq!(kept, 2_100);
        // And of an hour without requests, nothing but the minimum.
        assert_eq!(drain(&mut budget, 3_600_000, MIN, after + Duration::from_secs(3600)), 100);
    }

    #[test]
    fn looking_takes_nothing() {
        let start = clock::now();
        let mut budget = Budget::new(0, MIN, start);
        assert!((budget.remaining(50, RATIO, MIN, start) - 110.0).abs() < 1e-6);
        assert!((budget.remaining(50, RATIO, MIN, start) - 110.0).abs() < 1e-6);
        assert!(budget.withdraw(50, RATIO, MIN, start));
        assert!((budget.remaining(50, RATIO, MIN, start) - 109.0).abs() < 1e-6);
    }

    #[test]
    fn lower_terms_count_at_once() {
        let start = clock::now();
        let mut budget = Budget::new(0, MIN, start);
        assert_eq!(drain(&mut budget, 0, 1.0, start), 10);
        assert!(!budget.withdraw(1_000, 0.0, 0.0, start));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_taken_never_exceeds_what_came(
            steps in vec((0..30_000_u64, 0..5_000_u64, 0..200_usize), 1..60), ratio in 0.0..2.0, min in 0.0..50.0
        ) {
            let start = clock::now();
            let (mut now, mut total, mut taken) = (start, 0, 0_u32);
            let mut budget = Budget::new(0, min, start);
            for (milliseconds, requests, tries) in steps {
                now += Duration::from_millis(milliseconds);
                total += requests;
                for _ in 0..tries {
                    let is_affordable = budget.remaining(total, ratio, min, now) >= 1.0;
                    prop_assert_eq!(budget.withdraw(total, ratio, min, now), is_affordable);
                    taken += u32::from(is_affordable);
                }
                let came = ratio * total as f64 + min * (10.0 + (now - start).as_secs_f64());
                prop_assert!(f64::from(taken) <= came + 1e-6, "{taken} of {came}");
            }
        }

        #[test]
        fn a_clock_or_counter_that_goes_back_brings_nothing(back in 0..10_000_u64, total in 0..1_000_u64) {
            let before = clock::now();
            let start = before + Duration::from_millis(back);
            let mut budget = Budget::new(1_000, MIN, start);
            prop_assert_eq!(drain(&mut budget, 1_000, MIN, start), 100);
            prop_assert_eq!(drain(&mut budget, total, MIN, before), 0);
            prop_assert_eq!(drain(&mut budget, 1_000, MIN, start), 0, "nor is it counted twice later");
        }
    }
}
