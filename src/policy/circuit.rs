//! A circuit breaker: whether a provider that fails is left alone, and when it is asked again.
//!
//! *Closed*: attempts go through. It opens when a number of attempts in a row failed (a provider that is down is noticed
//! after that many, however little traffic there is), or when a share of those within a window failed, of at least a
//! minimum (one that fails now and then is noticed under traffic). Only a failure opens it; both rules are asked then.
//!
//! *Open*: nothing goes through before [`Circuit::retry_at`].
//!
//! *Half open*: from then on a bounded number of attempts at once, the *probes*, go through. One failure opens it again, so
//! many successes close it. A probe that showed nothing (the client left, the provider asked us to wait) frees its place
//! and counts for nothing.
//!
//! The wait doubles each time a probe opens the circuit again, up to a maximum. It is the first wait again once the
//! circuit has been closed for a whole window; one that opens sooner than that waits as long as the last time. Each wait
//! is up to a tenth shorter or longer, so that circuits which opened together do not probe together; the maximum too.
//!
//! Each stay in a state is a *period*, and a [`Permit`] knows its own: an attempt that began before the circuit opened says
//! nothing about the provider that a probe found afterwards, so a report from an older period changes nothing at all.
//!
//! An operator may *force* it open or closed. Then it stands still: it counts what is reported and decides nothing, until
//! it is left to itself again and goes on from where it was. Only probes are not waited for: a half-open circuit goes on as
//! an open one whose wait is over.

use super::window::{Counts, SPAN_MAX, Window};
use crate::instant::Instant;
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// When a circuit opens and how it closes again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Terms {
    /// It opens after so many failures in a row; at least 1.
    pub failure_threshold: u32,
    /// It opens when this share of the attempts within `window` failed, of 1.
    pub failure_rate: f64,
    /// The time that `failure_rate` is about.
    pub window: Duration,
    /// Fewer attempts than this within `window` say nothing about a rate.
    pub minimum_requests: u32,
    /// The first wait before a probe.
    pub recovery_timeout: Duration,
    /// The longest wait before a probe, but for the jitter.
    pub max_recovery_timeout: Duration,
    /// Probes that may be out at once; at least 1.
    pub half_open_requests: u32,
    /// It closes after so many successful probes; at least 1.
    pub success_threshold: u32,
}

/// Where a circuit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Attempts go through.
    Closed,
    /// Nothing goes through.
    Open,
    /// A few attempts go through, to see whether the provider is well.
    HalfOpen,
}

/// What an operator decided in the circuit's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Forced {
    /// Nothing goes through.
    Open,
    /// Everything goes through.
    Closed,
}

/// What an attempt showed about the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is well.
    Success,
    /// It failed, and how in a word: `connect`, `timeout`, `reset`, `503`, `slow`.
    Failure(&'static str),
    /// Nothing: the client left, we gave up ourselves, or it asked us to wait.
    Uncounted,
}

/// An attempt was let through. It is not copied, so it is reported once; one that is dropped without a report keeps a
/// probe's place until the circuit leaves `half_open`, which may be never.
#[derive(Debug)]
#[must_use = "a permit that is never reported keeps its place"]
pub struct Permit {
    period: u32,
    probe: bool,
}

/// What an attempt would meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peek {
    /// It would go through like any other.
    Closed,
    /// It would be a probe.
    HalfOpenWithRoom,
    /// Nothing goes through before this instant; then a probe does.
    Until(Instant),
    /// As many probes as may be are out. What they show is known when they end.
    Busy,
    /// An operator keeps it open. Nobody knows until when.
    Forced,
}

/// One change of the state, as it shows to others: a forced state is one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Transition {
    /// When.
    pub at: Instant,
    /// The state before.
    pub from: State,
    /// The state after.
    pub to: State,
    /// The reason.
    pub why: Why,
}

/// Why the state changed. In words with `Display`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Why {
    /// Attempts failed one after the other.
    InARow {
        /// So many.
        failures: u32,
        /// How the last one failed.
        last: &'static str,
    },
    /// A share of the attempts failed.
    Rate {
        /// So many failed.
        failed: u64,
        /// Of so many.
        of: u64,
        /// In this time.
        within: Duration,
    },
    /// The wait was over when an attempt came.
    Due,
    /// A probe failed, and how.
    ProbeFailed(&'static str),
    /// So many probes succeeded.
    Probed(u32),
    /// An operator decided.
    Forced,
    /// An operator left the circuit to itself again.
    Released,
}

/// The circuit of one provider.
#[derive(Debug, Clone)]
pub struct Circuit {
    terms: Terms,
    /// Its own state, whatever is forced. Never half open while something is.
    state: State,
    forced: Option<Forced>,
    /// Counts the stays in a state.
    period: u32,
    window: Window,
    failures: u32,
    /// Probes that are out.
    probes: u32,
    /// Probes of this period that succeeded.
    probed: u32,
    /// How often the wait has doubled.
    doubled: u32,
    /// Since when its own state is what it is.
    since: Instant,
    /// Until when an open circuit waits.
    until: Instant,
    last_failure_at: Option<Instant>,
    opened_at: Option<Instant>,
    half_opened_at: Option<Instant>,
    history: VecDeque<Transition>,
    entered: [u64; 3],
}

// === impl Circuit ===

impl Circuit {
    /// A closed one.
    #[must_use]
    pub fn new(terms: Terms, now: Instant) -> Self {
        Circuit {
            terms,
            state: State::Closed,
            forced: None,
            period: 0,
            window: Window::new(terms.window, now),
            failures: 0,
            probes: 0,
            probed: 0,
            doubled: 0,
            since: now,
            until: now,
            last_failure_at: None,
            opened_at: None,
            half_opened_at: None,
            history: VecDeque::new(),
            entered: [0; 3],
        }
    }

    /// Other terms from now on; the state stays. A window of another length begins empty, and nobody waits longer than the
    /// new maximum.
    pub fn set_terms(&mut self, terms: Terms, now: Instant) {
        if terms.window != self.terms.window {
            self.window = Window::new(terms.window, now);
        }
        self.until = self.until.min(self.since + terms.max_recovery_timeout.min(SPAN_MAX));
        self.terms = terms;
    }

    /// What an attempt would meet now.
    #[must_use]
    pub fn peek(&self, now: Instant) -> Peek {
        match (self.forced, self.state) {
            (Some(Forced::Open), _) => Peek::Forced,
            (Some(Forced::Closed), _) | (None, State::Closed) => Peek::Closed,
            (None, State::Open) if now < self.until => Peek::Until(self.until),
            (None, State::HalfOpen) if self.probes >= self.terms.half_open_requests => Peek::Busy,
            (None, State::Open | State::HalfOpen) => Peek::HalfOpenWithRoom,
        }
    }

    /// Lets an attempt through, or does not.
    pub fn admit(&mut self, now: Instant) -> Option<Permit> {
        let probe = match self.peek(now) {
            Peek::Closed => false,
            Peek::HalfOpenWithRoom => true,
            Peek::Until(_) | Peek::Busy | Peek::Forced => return None,
        };
        if probe && self.state == State::Open {
            self.enter(State::HalfOpen, Why::Due, now);
        }
        self.probes += u32::from(probe);
        Some(Permit { period: self.period, probe })
    }

    /// What an attempt showed. `jitter`, in 0..1, is chance: it spreads the wait if this opens the circuit.
    #[expect(clippy::needless_pass_by_value, reason = "a permit is used up by its report")]
    pub fn report(&mut self, permit: Permit, verdict: Verdict, now: Instant, jitter: f64) {
        if permit.period != self.period {
            return;
        }
        self.probes -= u32::from(permit.probe);
        match verdict {
            Verdict::Success => self.succeeded(now),
            Verdict::Failure(how) => self.failed(how, now, jitter),
            Verdict::Uncounted => {}
        }
    }

    fn succeeded(&mut self, now: Instant) {
        self.window.roll(now);
        self.window.add(Counts { successes: 1, failures: 0 });
        self.failures = 0;
        if self.state == State::HalfOpen {
            self.probed += 1;
            if self.probed >= self.terms.success_threshold {
                self.enter(State::Closed, Why::Probed(self.probed), now);
            }
        }
    }

    fn failed(&mut self, how: &'static str, now: Instant, jitter: f64) {
        self.window.roll(now);
        self.window.add(Counts { successes: 0, failures: 1 });
        self.failures = self.failures.saturating_add(1);
        self.last_failure_at = Some(now);
        let why = match (self.forced, self.state) {
            (None, State::Closed) => self.reason_to_open(how),
            (None, State::HalfOpen) => Some(Why::ProbeFailed(how)),
            // Begun while it was forced closed.
            (None, State::Open) | (Some(_), _) => None,
        };
        if let Some(why) = why {
            self.open(why, now, jitter);
        }
    }

    fn reason_to_open(&self, last: &'static str) -> Option<Why> {
        let Terms { failure_threshold, failure_rate, window, minimum_requests, .. } = self.terms;
        let Counts { successes, failures } = self.window.counts();
        let of = successes + failures;
        if self.failures >= failure_threshold {
            Some(Why::InARow { failures: self.failures, last })
        } else if of >= u64::from(minimum_requests) && failures as f64 >= failure_rate * of as f64 {
            Some(Why::Rate { failed: failures, of, within: window })
        } else {
            None
        }
    }

    fn open(&mut self, why: Why, now: Instant, jitter: f64) {
        if self.state == State::HalfOpen {
            self.doubled = (self.doubled + 1).min(DOUBLED_MAX);
        } else if now.saturating_duration_since(self.since) >= self.terms.window {
            self.doubled = 0;
        }
        let wait = self.terms.recovery_timeout.saturating_mul(1 << self.doubled);
        let wait = wait.min(self.terms.max_recovery_timeout).min(SPAN_MAX);
        self.until = now + wait.mul_f64(1.0 - JITTER + 2.0 * JITTER * jitter);
        self.enter(State::Open, why, now);
    }

    /// Begins a period.
    fn enter(&mut self, to: State, why: Why, now: Instant) {
        let from = std::mem::replace(&mut self.state, to);
        self.period = self.period.wrapping_add(1);
        self.since = now;
        (self.probes, self.probed) = (0, 0);
        self.window.clear();
        self.note(Transition { at: now, from, to, why });
    }

    fn note(&mut self, transition: Transition) {
        match transition.to {
            State::Closed => {}
            State::Open => self.opened_at = Some(transition.at),
            State::HalfOpen => self.half_opened_at = Some(transition.at),
        }
        self.entered[transition.to as usize] += 1;
        if self.history.len() == HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back(transition);
    }

    /// An operator decides, or with `None` no longer does.
    pub fn force(&mut self, forced: Option<Forced>, now: Instant) {
        let from = self.state();
        if forced.is_some() && self.state == State::HalfOpen {
            self.state = State::Open;
            self.period = self.period.wrapping_add(1);
            self.probes = 0;
        }
        self.forced = forced;
        let to = self.state();
        if from != to {
            let why = if forced.is_some() { Why::Forced } else { Why::Released };
            self.note(Transition { at: now, from, to, why });
        }
    }

    /// Where it stands; what is forced wins.
    #[must_use]
    pub fn state(&self) -> State {
        match self.forced {
            Some(Forced::Open) => State::Open,
            Some(Forced::Closed) => State::Closed,
            None => self.state,
        }
    }

    /// What an operator decided.
    #[must_use]
    pub fn forced(&self) -> Option<Forced> {
        self.forced
    }

    /// Of an open circuit that nobody forced, when a probe may go. May be past: then nothing has come since.
    #[must_use]
    pub fn retry_at(&self) -> Option<Instant> {
        (self.forced.is_none() && self.state == State::Open).then_some(self.until)
    }

    /// Failures in a row. Only a success ends the row, so an open circuit still shows what opened it.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Successes and failures within the window, up to the latest report or [`Circuit::settle`].
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.window.counts()
    }

    /// Probes that are out.
    #[must_use]
    pub fn probes(&self) -> u32 {
        self.probes
    }

    /// When an attempt last failed, of those that counted.
    #[must_use]
    pub fn last_failure_at(&self) -> Option<Instant> {
        self.last_failure_at
    }

    /// When it last became open.
    #[must_use]
    pub fn opened_at(&self) -> Option<Instant> {
        self.opened_at
    }

    /// When it last became half open.
    #[must_use]
    pub fn half_opened_at(&self) -> Option<Instant> {
        self.half_opened_at
    }

    /// The latest transitions, at most [`HISTORY_MAX`], the latest last.
    pub fn history(&self) -> impl DoubleEndedIterator<Item = &Transition> {
        self.history.iter()
    }

    /// How often it became closed, open and half open since it was made, in the order of [`State::ALL`].
    #[must_use]
    pub fn entered(&self) -> [u64; 3] {
        self.entered
    }

    /// The period that a permit would belong to.
    #[must_use]
    pub fn period(&self) -> u32 {
        self.period
    }

    /// Adds successes that were counted elsewhere since the last [`Circuit::settle`], in a period in which nothing failed
    /// since the last success: there the order of successes is of no matter.
    pub fn add_successes(&mut self, successes: u64) {
        self.window.add(Counts { successes, failures: 0 });
    }

    /// Brings the window up to now, and says until when successes may be counted elsewhere.
    pub fn settle(&mut self, now: Instant) -> Instant {
        self.window.roll(now);
        self.window.bucket_ends()
    }
}

// === impl Permit ===

impl Permit {
    /// Whether the attempt is a probe. One whose answer is a stream of hours should be reported once its head is there,
    /// for until then the circuit stays half open.
    #[must_use]
    pub fn is_probe(&self) -> bool {
        self.probe
    }

    /// The period it belongs to.
    #[must_use]
    pub fn period(&self) -> u32 {
        self.period
    }

    /// A permit of an attempt that is no probe, in this period, for a circuit whose word is kept elsewhere.
    pub(crate) fn normal(period: u32) -> Self {
        Permit { period, probe: false }
    }
}

// === impl State ===

impl State {
    /// Every state, in the order tables show them.
    pub const ALL: [State; 3] = [State::Closed, State::Open, State::HalfOpen];

    /// The word for it in the API and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            State::Closed => "closed",
            State::Open => "open",
            State::HalfOpen => "half_open",
        }
    }
}

// === impl Forced ===

impl Forced {
    /// The word for it in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Forced::Open => "open",
            Forced::Closed => "closed",
        }
    }
}

// === impl Why ===

impl fmt::Display for Why {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Why::InARow { failures: 1, last } => write!(formatter, "1 failure: {last}"),
            Why::InARow { failures, last } => write!(formatter, "{failures} failures in a row, the last: {last}"),
            Why::Rate { failed, of, within } => write!(formatter, "{failed} of {of} failed within {}", spaced(within)),
            Why::Due => formatter.write_str("it was time for a probe"),
            Why::ProbeFailed(how) => write!(formatter, "a probe failed: {how}"),
            Why::Probed(1) => formatter.write_str("1 probe succeeded"),
            Why::Probed(successes) => write!(formatter, "{successes} probes succeeded"),
            Why::Forced => formatter.write_str("forced by an operator"),
            Why::Released => formatter.write_str("no longer forced by an operator"),
        }
    }
}

/// `10 s`, `1.5 s`, `250 ms`.
fn spaced(span: Duration) -> String {
    let text = format!("{span:?}");
    let unit = text.find(char::is_alphabetic).unwrap_or(text.len());
    format!("{} {}", &text[..unit], &text[unit..])
}

/// Transitions that are remembered. An older one is forgotten for a newer: a circuit that flaps all day needs no more to
/// show it.
pub const HISTORY_MAX: usize = 32;

/// A wait is up to this share of itself shorter or longer.
const JITTER: f64 = 0.1;

/// More doublings make no difference: two seconds become a hundred years.
const DOUBLED_MAX: u32 = 31;

#[cfg(test)]
mod tests;
