//! What a pool spends on attempts beside the first: its budgets for retries and for hedges, and what they were spent on.

use super::locked;
use super::state::Purpose;
use crate::config::BudgetTerms;
use crate::instant::Instant;
use crate::policy::budget::Budget;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

/// The budgets of one pool.
#[derive(Debug, Default)]
pub struct Spending {
    /// Requests that had a first attempt. What was refused brings nothing: an overload must not pay for retries.
    requests: AtomicU64,
    retries: Purse,
    hedges: Purse,
}

/// One budget. Asked for only where an attempt has failed or is slow, so that its lock is never in the way of the rest.
#[derive(Debug, Default)]
struct Purse(Mutex<Option<Budget>>);

// === impl Spending ===

impl Spending {
    /// An attempt was leased for this.
    #[inline]
    pub fn leased(&self, purpose: Purpose) {
        if purpose == Purpose::First {
            self.requests.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes one retry from the budget, if it can be afforded.
    pub fn retry(&self, terms: &BudgetTerms, now: Instant) -> bool {
        self.retries.withdraw(self.requests.load(Ordering::Relaxed), terms, now)
    }

    /// Takes one hedge from their budget, which is a share of the requests.
    pub fn hedge(&self, ratio: f64, now: Instant) -> bool {
        let terms = BudgetTerms { ratio, min_per_second: HEDGES_PER_SECOND };
        self.hedges.withdraw(self.requests.load(Ordering::Relaxed), &terms, now)
    }

    /// Gives back what was taken for a retry that found nobody to go to.
    pub fn unspent_retry(&self) {
        self.retries.give_back();
    }

    /// The same for a hedge.
    pub fn unspent_hedge(&self) {
        self.hedges.give_back();
    }

    /// Retries that can be afforded now.
    pub fn retries_left(&self, terms: &BudgetTerms, now: Instant) -> f64 {
        let requests = self.requests.load(Ordering::Relaxed);
        let budget = self.retries.budget();
        let fresh = Budget::new(requests, terms.min_per_second, now);
        budget.as_ref().unwrap_or(&fresh).remaining(requests, terms.ratio, terms.min_per_second, now)
    }
}

// === impl Purse ===

impl Purse {
    fn budget(&self) -> MutexGuard<'_, Option<Budget>> {
        locked(&self.0)
    }

    fn give_back(&self) {
        self.budget().as_mut().map(Budget::give_back);
    }

    fn withdraw(&self, requests: u64, terms: &BudgetTerms, now: Instant) -> bool {
        let mut budget = self.budget();
        let budget = budget.get_or_insert_with(|| Budget::new(requests, terms.min_per_second, now));
        budget.withdraw(requests, terms.ratio, terms.min_per_second, now)
    }
}

/// Hedges a second that a pool with little traffic may have all the same.
const HEDGES_PER_SECOND: f64 = 0.1;
