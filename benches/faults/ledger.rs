//! Which provider was sent what, what it did of it, and whose client had left by then.

use sluice::instant::Instant;
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Shared by the providers of one contender and its clients.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<Pages>);

#[derive(Debug, Default)]
struct Pages {
    arrivals: Vec<(usize, Instant)>,
    done: HashMap<usize, Done>,
    /// Requests whose clients did not wait for the answer.
    left: HashSet<usize>,
    /// Of those, the ones that a provider began after that.
    in_vain: usize,
}

/// How often a request was carried out.
#[derive(Debug, Default, Clone, Copy)]
struct Done {
    surely: usize,
    perhaps: usize,
}

/// Whether a provider carried a request out, as far as anybody outside of it can know.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Did {
    /// It said so.
    Surely,
    /// It had the request and did not say.
    Perhaps,
}

/// Requests carried out more often than they were asked for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Duplicates {
    /// By providers that all said so.
    pub(crate) sure: usize,
    /// By providers of which at least one did not say.
    pub(crate) possible: usize,
}

// === impl Ledger ===

impl Ledger {
    /// A provider has read a request.
    pub(crate) fn arrived(&self, place: usize, number: usize, now: Instant) {
        let mut pages = self.lock();
        pages.arrivals.push((place, now));
        pages.in_vain += usize::from(pages.left.contains(&number));
    }

    /// A provider is through with a request.
    pub(crate) fn did(&self, number: usize, did: Did) {
        let mut pages = self.lock();
        let done = pages.done.entry(number).or_default();
        match did {
            Did::Surely => done.surely += 1,
            Did::Perhaps => done.perhaps += 1,
        }
    }

    /// A client does not wait for this request any more.
    pub(crate) fn left(&self, number: usize) {
        self.lock().left.insert(number);
    }

    /// Requests read between two moments by the providers that `which` names.
    pub(crate) fn arrivals(&self, from: Instant, to: Instant, which: impl Fn(usize) -> bool) -> usize {
        let pages = self.lock();
        pages.arrivals.iter().filter(|(place, at)| which(*place) && (from..to).contains(at)).count()
    }

    /// What was done more than once.
    pub(crate) fn duplicates(&self) -> Duplicates {
        let mut sum = Duplicates::default();
        for done in self.lock().done.values() {
            let sure = done.surely.saturating_sub(1);
            sum.sure += sure;
            sum.possible += (done.surely + done.perhaps).saturating_sub(1) - sure;
        }
        sum
    }

    /// Requests that a provider began after their clients had left.
    pub(crate) fn in_vain(&self) -> usize {
        self.lock().in_vain
    }

    fn lock(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
