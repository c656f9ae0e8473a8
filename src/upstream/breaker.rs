//! The circuit of a provider as it lives: shared by every worker, and nearly always without a lock.
//!
//! [`Circuit`] decides, behind a mutex that is held for some tens of nanoseconds. Beside it stands one atomic *word* that
//! says what an attempt would meet, so that admitting to a closed circuit and being refused by an open one only read it. In
//! a closed circuit a success changes nothing but a number as long as no failure stands before it (*clean*), and that
//! number is in the word too: counting is one compare-and-swap, which fails where the state has changed in between, so
//! that no success is ever counted for another period. Whoever takes the lock next takes the number along. Once for each
//! bucket of the circuit's window a success takes the lock to begin the next bucket.

use crate::instant::Instant;
use crate::policy::circuit::{Circuit, Forced, Peek, Permit, Terms, Transition, Verdict};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The live circuit of one provider.
#[derive(Debug)]
pub struct Breaker {
    provider: Arc<str>,
    /// What `word` and `bucket_ends` count from.
    base: Instant,
    /// See [`Word`]. Only a success is counted without the lock; everything else in it changes under the lock.
    word: AtomicU64,
    /// Nanoseconds after `base` until when successes are counted in the word.
    bucket_ends: AtomicU64,
    circuit: Mutex<Circuit>,
}

/// What the circuit says to one who has no lock. The lowest three bits tell which it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// Closed, in this period (the upper half), and so many successes (29 bits) that the circuit has not heard of.
    Clean { period: u32, successes: u64 },
    /// Closed, in this period; reports have to take the lock.
    Closed { period: u32 },
    /// Open until so many nanoseconds after the base (61 bits: seventy years).
    Open { until: u64 },
    /// Half open, with room for a probe.
    HalfOpen,
    /// Half open, and as many probes out as may be.
    Busy,
    /// Forced open.
    Forced,
}

// === impl Breaker ===

impl Breaker {
    /// A closed circuit; the log will call it by its provider's name.
    #[must_use]
    pub fn new(provider: Arc<str>, terms: Terms, now: Instant) -> Self {
        let circuit = Mutex::new(Circuit::new(terms, now));
        let word = AtomicU64::new(Word::Closed { period: 0 }.pack());
        let breaker = Breaker { provider, base: now, word, bucket_ends: AtomicU64::new(0), circuit };
        breaker.locked(now, |_| ());
        breaker
    }

    /// What an attempt would meet now. Nothing changes, nothing is locked.
    #[must_use]
    pub fn peek(&self, now: Instant) -> Peek {
        match Word::unpack(self.word.load(Ordering::Acquire)) {
            Word::Clean { .. } | Word::Closed { .. } => Peek::Closed,
            Word::Open { until } if self.nanoseconds(now) < until => {
                Peek::Until(self.base + Duration::from_nanos(until))
            }
            Word::Open { .. } | Word::HalfOpen => Peek::HalfOpenWithRoom,
            Word::Busy => Peek::Busy,
            Word::Forced => Peek::Forced,
        }
    }

    /// Lets an attempt through, or does not. Only a probe takes the lock.
    pub fn admit(&self, now: Instant) -> Option<Permit> {
        match Word::unpack(self.word.load(Ordering::Acquire)) {
            Word::Clean { period, .. } | Word::Closed { period } => Some(Permit::normal(period)),
            Word::Open { until } if self.nanoseconds(now) < until => None,
            Word::Open { .. } | Word::HalfOpen => self.locked(now, |circuit| circuit.admit(now)),
            Word::Busy | Word::Forced => None,
        }
    }

    /// What an attempt showed.
    pub fn report(&self, permit: Permit, verdict: Verdict, now: Instant) {
        let is_done = match verdict {
            Verdict::Success => self.count_success(&permit, now),
            Verdict::Uncounted => !permit.is_probe(),
            Verdict::Failure(_) => false,
        };
        if !is_done {
            self.locked(now, |circuit| circuit.report(permit, verdict, now, fastrand::f64()));
        }
    }

    /// Counts a success in the word, where that is all there is to do.
    fn count_success(&self, permit: &Permit, now: Instant) -> bool {
        // If the next bucket begins between this and the swap, the success is counted there: no matter.
        if permit.is_probe() || self.nanoseconds(now) >= self.bucket_ends.load(Ordering::Relaxed) {
            return false;
        }
        let mut seen = self.word.load(Ordering::Acquire);
        while let Word::Clean { period, successes } = Word::unpack(seen) {
            if period != permit.period() || successes == SUCCESSES_MAX {
                return false;
            }
            let next = Word::Clean { period, successes: successes + 1 }.pack();
            match self.word.compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                Err(other) => seen = other,
            }
        }
        false
    }

    /// Other terms from now on; the state stays.
    pub fn set_terms(&self, terms: Terms, now: Instant) {
        self.locked(now, |circuit| circuit.set_terms(terms, now));
    }

    /// An operator decides, or with `None` no longer does.
    pub fn force(&self, forced: Option<Forced>, now: Instant) {
        self.locked(now, |circuit| circuit.force(forced, now));
    }

    /// A copy of the circuit, to look at.
    #[must_use]
    pub fn view(&self, now: Instant) -> Circuit {
        self.locked(now, |circuit| circuit.clone())
    }

    /// Acts on the circuit, and says in the word and in the log what came of it.
    fn locked<T>(&self, now: Instant, act: impl FnOnce(&mut Circuit) -> T) -> T {
        let mut circuit = self.circuit.lock().unwrap_or_else(PoisonError::into_inner);
        if let Word::Clean { period, .. } = Word::unpack(self.word.load(Ordering::Relaxed)) {
            // Attempts still go through, but from here on nobody counts beside us.
            let before = self.word.swap(Word::Closed { period }.pack(), Ordering::AcqRel);
            if let Word::Clean { successes, .. } = Word::unpack(before) {
                circuit.add_successes(successes);
            }
        }
        circuit.settle(now);
        let entered = circuit.entered();
        let answer = act(&mut circuit);
        let transition = circuit.history().next_back().copied().filter(|_| circuit.entered() != entered);
        self.bucket_ends.store(self.nanoseconds(circuit.settle(now)), Ordering::Relaxed);
        self.word.store(self.word_of(&circuit, now).pack(), Ordering::Release);
        drop(circuit);
        if let Some(transition) = transition {
            self.tell(&transition);
        }
        answer
    }

    fn word_of(&self, circuit: &Circuit, now: Instant) -> Word {
        let period = circuit.period();
        match (circuit.peek(now), circuit.retry_at()) {
            // An open one stays open in the word when its wait is over: whoever reads it has a clock.
            (_, Some(until)) => Word::Open { until: self.nanoseconds(until) },
            (Peek::Closed, None) if circuit.failures() == 0 => Word::Clean { period, successes: 0 },
            (Peek::Closed, None) => Word::Closed { period },
            (Peek::HalfOpenWithRoom, None) => Word::HalfOpen,
            (Peek::Busy, None) => Word::Busy,
            (Peek::Forced | Peek::Until(_), None) => Word::Forced,
        }
    }

    fn tell(&self, &Transition { from, to, why, .. }: &Transition) {
        let (provider, from, to) = (&self.provider, from.as_str(), to.as_str());
        tracing::info!(%provider, from, to, %why, "a circuit changed");
    }

    /// Nanoseconds from the base to `instant`, none if it is earlier. They fit for five hundred years.
    fn nanoseconds(&self, instant: Instant) -> u64 {
        instant.nanoseconds_since(self.base)
    }
}

// === impl Word ===

impl Word {
    fn pack(self) -> u64 {
        match self {
            Word::Clean { period, successes } => u64::from(period) << 32 | successes << KIND_BITS | CLEAN,
            Word::Closed { period } => u64::from(period) << 32 | CLOSED,
            Word::Open { until } => until.min(UNTIL_MAX) << KIND_BITS | OPEN,
            Word::HalfOpen => HALF_OPEN,
            Word::Busy => BUSY,
            Word::Forced => FORCED,
        }
    }

    fn unpack(word: u64) -> Self {
        let period = (word >> 32) as u32;
        match word & KIND {
            CLEAN => Word::Clean { period, successes: (word >> KIND_BITS) & SUCCESSES_MAX },
            CLOSED => Word::Closed { period },
            OPEN => Word::Open { until: word >> KIND_BITS },
            HALF_OPEN => Word::HalfOpen,
            BUSY => Word::Busy,
            _ => Word::Forced,
        }
    }
}

/// Bits that tell the kind of a word.
const KIND_BITS: u32 = 3;
const KIND: u64 = (1 << KIND_BITS) - 1;

const CLEAN: u64 = 0;
const CLOSED: u64 = 1;
const OPEN: u64 = 2;
const HALF_OPEN: u64 = 3;
const BUSY: u64 = 4;
const FORCED: u64 = 5;

/// Successes that fit into a word. The next takes the lock, and the number along.
const SUCCESSES_MAX: u64 = (1 << (32 - KIND_BITS)) - 1;

/// The longest time that fits into a word: seventy years. A circuit waits thirty at most.
const UNTIL_MAX: u64 = u64::MAX >> KIND_BITS;

#[cfg(test)]
mod tests;
