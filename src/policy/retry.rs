//! Whether a failed attempt may be followed by another one, and after what wait.
//!
//! Four questions, each with an answer of its own, so that a retry that is not made says why: is this how attempts end that
//! are worth repeating (`on`)? Is one left (`attempts`)? May the request be sent twice, or was nothing done the first time
//! (`methods`, `refused`)? Is there still something to send, and time to send it in? Whether the pool can afford it is
//! [`Budget`](super::budget::Budget)'s question, and the last to be asked: it takes something.
//!
//! Going to another provider needs no wait; [`wait`] is for going to one that was tried already. It is drawn from zero up to
//! a bound that grows ("full jitter", Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015): requests
//! that failed together do not come back together.

use std::fmt;
use std::time::Duration;

/// When attempts are made again, as a route has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// At most so many attempts, the first one counted.
    pub attempts: u32,
    /// How an attempt ends that is worth repeating.
    pub on: Conditions,
    /// Which requests may be sent twice.
    pub methods: Methods,
    /// Whether any request that carries an `Idempotency-Key` may be sent twice too.
    pub idempotency_key: bool,
    /// Statuses by which a provider says that it did nothing: with these any method may go elsewhere, if they are in `on`.
    pub refused: Vec<u16>,
    /// The wait before a provider that was tried already.
    pub backoff: Backoff,
}

/// How attempts end: statuses, and three ways to have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Conditions {
    /// An answer with one of these.
    pub statuses: Statuses,
    /// No connection came about.
    pub connect: bool,
    /// The connection or stream broke before the answer was whole.
    pub reset: bool,
    /// Nothing came in time.
    pub timeout: bool,
}

/// A set of statuses from 100 to 599.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Statuses {
    bits: [u64; STATUS_WORDS],
}

/// Which word of a list of conditions is wrong, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Wrong {
    /// Its place in the list, from 0.
    pub at: usize,
    /// What is wrong with it.
    pub why: Why,
}

/// Why a word is no condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// Neither a known word nor a status.
    #[error("expected `connect`, `reset`, `timeout`, a status from 200 to 599, or a class of them like `5xx`")]
    Unknown,
    /// 1xx: such an answer is followed by another and ends nothing.
    #[error("an interim answer (1xx) ends no attempt")]
    Interim,
    /// All of it, or for a class some of it, stands before it in the list already.
    #[error("this repeats what stands before it")]
    Repeated,
}

/// Methods by which a request may be sent twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Methods {
    /// Those of which twice does the same as once: RFC 9110, section 9.2.2.
    Idempotent,
    /// Every one.
    All,
    /// Exactly these; case matters, as in HTTP.
    These(Vec<String>),
}

/// A bound on waits that grows from one to the next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    /// Of the first wait.
    pub initial: Duration,
    /// From each to the next, at least 1.
    pub multiplier: f64,
    /// However often it grows.
    pub max: Duration,
    /// What is made of the bound.
    pub jitter: Jitter,
}

/// How a wait comes from its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Jitter {
    /// Anything from zero to the bound, evenly.
    Full,
    /// The bound itself.
    None,
}

/// How an attempt ended that brought no answer for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ended {
    /// The provider answered with this.
    Status(u16),
    /// No connection came about, so nothing was sent.
    Connect,
    /// Nothing came in time.
    Timeout,
    /// The connection or stream broke.
    Reset,
    /// The provider did nothing with it and says so, or it was never sent: REFUSED_STREAM, or a GOAWAY below the stream
    /// (RFC 9113, sections 8.7 and 6.8).
    Refused,
}

/// How far a request has come when one of its attempts ended.
#[derive(Debug, Clone, Copy)]
pub struct So<'a> {
    /// Attempts so far, at least 1.
    pub attempts_made: u32,
    /// The request's.
    pub method: &'a str,
    /// Whether it carries an `Idempotency-Key`.
    pub keyed: bool,
    /// Whether all of its body that was read is still there.
    pub replayable: bool,
    /// Whether this attempt ended before a byte of the request left.
    pub nothing_sent: bool,
    /// Until the request's deadline.
    pub left: Duration,
}

/// Whether to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Again {
    /// If the budget allows.
    Yes,
    /// No, and why.
    No(Skip),
}

/// Why an attempt was the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Skip {
    /// It ended in a way that is not in `on`.
    NotRetryable,
    /// There were as many as may be.
    Attempts,
    /// The provider may have acted on it, and its method does not allow to ask twice.
    Method,
    /// Its body is too large to be kept, and part of it is gone.
    Body,
    /// The pool has retried too much of late.
    Budget,
    /// There is no time left.
    Deadline,
    /// There is nobody to send it to.
    NoProvider,
}

// === impl Conditions ===

impl Conditions {
    /// Reads words like `connect`, `429` and `5xx`.
    ///
    /// # Errors
    ///
    /// The first word that is no condition, or that repeats what stands before it.
    pub fn parse(words: &[&str]) -> Result<Self, Wrong> {
        let mut conditions = Conditions::default();
        for (at, word) in words.iter().enumerate() {
            conditions.add(word).map_err(|why| Wrong { at, why })?;
        }
        Ok(conditions)
    }

    /// The words that [`Conditions::parse`] reads as this.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let kinds = [(self.connect, "connect"), (self.reset, "reset"), (self.timeout, "timeout")];
        let mut words: Vec<String> = kinds.into_iter().filter(|(on, _)| *on).map(|(_, word)| word.to_owned()).collect();
        for class in 1..=5 {
            let statuses = class * 100..=class * 100 + 99;
            if statuses.clone().all(|status| self.statuses.has(status)) {
                words.push(format!("{class}xx"));
            } else {
                words.extend(statuses.filter(|status| self.statuses.has(*status)).map(|status| status.to_string()));
            }
        }
        words
    }

    /// Whether an attempt that ended so is meant. One that was refused is, wherever `connect` or `reset` are.
    #[must_use]
    pub fn include(&self, ended: Ended) -> bool {
        match ended {
            Ended::Status(status) => self.statuses.has(status),
            Ended::Connect => self.connect,
            Ended::Timeout => self.timeout,
            Ended::Reset => self.reset,
            Ended::Refused => self.connect || self.reset,
        }
    }

    fn add(&mut self, word: &str) -> Result<(), Why> {
        let kind = match word {
            "connect" => &mut self.connect,
            "reset" => &mut self.reset,
            "timeout" => &mut self.timeout,
            _ => return self.add_statuses(word),
        };
        if std::mem::replace(kind, true) { Err(Why::Repeated) } else { Ok(()) }
    }

    fn add_statuses(&mut self, word: &str) -> Result<(), Why> {
        let &[first @ b'0'..=b'9', ref rest @ ..] = word.as_bytes() else { return Err(Why::Unknown) };
        let class = u16::from(first - b'0') * 100;
        let statuses = match *rest {
            [b'x', b'x'] => class..=class + 99,
            [tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => {
                let status = class + u16::from(tens - b'0') * 10 + u16::from(ones - b'0');
                status..=status
            }
            _ => return Err(Why::Unknown),
        };
        match class {
            100 => return Err(Why::Interim),
            200..=500 => {}
            _ => return Err(Why::Unknown),
        }
        let mut repeated = false;
        for status in statuses {
            repeated |= !self.statuses.insert(status);
        }
        if repeated { Err(Why::Repeated) } else { Ok(()) }
    }
}

// === impl Statuses ===

impl Statuses {
    /// Adds a status from 100 to 599, and no other; whether it was missing.
    pub fn insert(&mut self, status: u16) -> bool {
        let Some((word, bit)) = place(status) else { return false };
        let is_new = self.bits[word] & bit == 0;
        self.bits[word] |= bit;
        is_new
    }

    /// Whether `status` is one of them.
    #[must_use]
    pub fn has(&self, status: u16) -> bool {
        place(status).is_some_and(|(word, bit)| self.bits[word] & bit != 0)
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        (STATUS_MIN..=STATUS_MAX).filter(|status| self.has(*status))
    }
}

impl fmt::Debug for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl FromIterator<u16> for Statuses {
    fn from_iter<I: IntoIterator<Item = u16>>(statuses: I) -> Self {
        let mut set = Statuses::default();
        for status in statuses {
            set.insert(status);
        }
        set
    }
}

// === impl Methods ===

impl Methods {
    /// Whether a request with this method may be sent twice.
    #[must_use]
    pub fn allow(&self, method: &str) -> bool {
        match self {
            Methods::Idempotent => IDEMPOTENT.contains(&method),
            Methods::All => true,
            Methods::These(these) => these.iter().any(|this| this == method),
        }
    }
}

// === impl Backoff ===

impl Backoff {
    /// The bound of the `nth` wait, counted from 1.
    fn bound(&self, nth: u32) -> Duration {
        let growth = self.multiplier.powi(i32::try_from(nth.saturating_sub(1)).unwrap_or(i32::MAX));
        let seconds = self.initial.as_secs_f64() * growth;
        // What is too large for a duration, or no number (nothing, grown without end), is beyond the maximum or nothing.
        match Duration::try_from_secs_f64(seconds) {
            Ok(bound) => bound.min(self.max),
            Err(_) if self.initial.is_zero() => Duration::ZERO,
            Err(_) => self.max,
        }
    }
}

// === impl Ended ===

impl Ended {
    /// Every word for one, in the order tables show them.
    pub const WORDS: [&str; 13] =
        ["connect", "timeout", "reset", "refused", "429", "500", "502", "503", "504", "2xx", "3xx", "4xx", "5xx"];

    /// The word for it in metrics and logs: one of a short list, whatever a provider answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Ended::Connect => "connect",
            Ended::Timeout => "timeout",
            Ended::Reset => "reset",
            Ended::Refused => "refused",
            Ended::Status(429) => "429",
            Ended::Status(500) => "500",
            Ended::Status(502) => "502",
            Ended::Status(503) => "503",
            Ended::Status(504) => "504",
            Ended::Status(200..=299) => "2xx",
            Ended::Status(300..=399) => "3xx",
            Ended::Status(400..=499) => "4xx",
            Ended::Status(_) => "5xx",
        }
    }

    /// Whether the provider cannot have acted on the request, going by what happened alone.
    fn did_nothing(self, refused: &[u16]) -> bool {
        match self {
            Ended::Status(status) => refused.contains(&status),
            Ended::Connect | Ended::Refused => true,
            Ended::Timeout | Ended::Reset => false,
        }
    }
}

// === impl Skip ===

impl Skip {
    /// Every reason, in the order tables show them.
    pub const ALL: [Skip; 7] =
        [Skip::NotRetryable, Skip::Attempts, Skip::Method, Skip::Body, Skip::Budget, Skip::Deadline, Skip::NoProvider];

    /// The word for it in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Skip::NotRetryable => "not_retryable",
            Skip::Attempts => "attempts",
            Skip::Method => "method",
            Skip::Body => "body",
            Skip::Budget => "budget",
            Skip::Deadline => "deadline",
            Skip::NoProvider => "no_provider",
        }
    }
}

/// Whether a request whose attempt `ended` is to be tried again, as far as the request itself goes: neither its pool's budget
/// nor who could take it is asked here.
///
/// The first reason against it is the one that is named, in the order of [`Skip::ALL`].
#[must_use]
pub fn again(policy: &Policy, ended: Ended, so: &So<'_>) -> Again {
    if !policy.on.include(ended) {
        Again::No(Skip::NotRetryable)
    } else if so.attempts_made >= policy.attempts {
        Again::No(Skip::Attempts)
    } else {
        may_be_sent(policy, Some(ended), so).map_or_else(Again::No, |()| Again::Yes)
    }
}

/// Whether a request may go to a provider (once more), wherever that is and whatever it is worth: `ended` is how its latest
/// attempt did, `None` where there was none.
///
/// # Errors
/// Why not: [`Skip::Method`], [`Skip::Body`] or [`Skip::Deadline`].
pub fn may_be_sent(policy: &Policy, ended: Option<Ended>, so: &So<'_>) -> Result<(), Skip> {
    let nothing_sent = so.nothing_sent || ended.is_none();
    let harmless = nothing_sent || ended.is_some_and(|ended| ended.did_nothing(&policy.refused));
    let keyed = policy.idempotency_key && so.keyed;
    if !harmless && !keyed && !policy.methods.allow(so.method) {
        Err(Skip::Method)
    } else if !so.replayable && !nothing_sent {
        Err(Skip::Body)
    } else if so.left.is_zero() {
        Err(Skip::Deadline)
    } else {
        Ok(())
    }
}

/// The wait before the `nth` time, counted from 1, that a request goes to a provider it was at already. `draw` is chance,
/// from 0 to 1.
#[must_use]
pub fn wait(backoff: &Backoff, nth: u32, draw: f64) -> Duration {
    let bound = backoff.bound(nth);
    match backoff.jitter {
        Jitter::Full => bound.mul_f64(draw.clamp(0.0, 1.0)),
        Jitter::None => bound,
    }
}

/// Word and bit of a status.
fn place(status: u16) -> Option<(usize, u64)> {
    let at = usize::from(status.checked_sub(STATUS_MIN).filter(|_| status <= STATUS_MAX)?);
    Some((at / 64, 1 << (at % 64)))
}

/// RFC 9110, section 9.2.2. The idempotent ones of WebDAV are for a route to name: few servers behind a gateway mean them so.
const IDEMPOTENT: [&str; 6] = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"];
const STATUS_MIN: u16 = 100;
const STATUS_MAX: u16 = 599;
/// 500 bits and a few to spare.
const STATUS_WORDS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::btree_set;
    use proptest::prelude::*;

    fn policy() -> Policy {
        Policy {
            attempts: 3,
            on: Conditions::parse(&["connect", "reset", "timeout", "429", "502", "503", "504"]).expect("conditions"),
            methods: Methods::Idempotent,
            idempotency_key: false,
            refused: vec![429],
            backoff: BACKOFF,
        }
    }

    const BACKOFF: Backoff = Backoff {
        initial: Duration::from_millis(25),
        multiplier: 2.0,
        max: Duration::from_secs(1),
        jitter: Jitter::None,
    };

    /// After the first attempt of a small request that was sent.
    const SENT: So<'static> = So {
        attempts_made: 1,
        method: "GET",
        keyed: false,
        replayable: true,
        nothing_sent: false,
        left: Duration::from_secs(10),
    };

    const POST: So<'static> = So { method: "POST", ..SENT };

    #[test]
    fn conditions_are_words_statuses_and_classes() {
        let on = Conditions::parse(&["reset", "429", "5xx"]).expect("conditions");
        assert!(on.reset && !on.connect && !on.timeout);
        assert_eq!(on.statuses, [429].into_iter().chain(500..=599).collect());
        assert_eq!(on.words(), ["reset", "429", "5xx"]);
        assert_eq!(Conditions::parse(&[]), Ok(Conditions::default()));
    }

    #[test]
    fn a_word_that_is_no_condition_is_named_by_its_place() {
        for (words, at, why) in [
            (&["connect", "refused"][..], 1, Why::Unknown),
            (&["5XX"], 0, Why::Unknown),
            (&["6xx"], 0, Why::Unknown),
            (&["099"], 0, Why::Unknown),
            (&["5000"], 0, Why::Unknown),
            (&["+50"], 0, Why::Unknown),
            (&[""], 0, Why::Unknown),
            (&["ä"], 0, Why::Unknown),
            (&["503", "1xx"], 1, Why::Interim),
            (&["101"], 0, Why::Interim),
            (&["reset", "reset"], 1, Why::Repeated),
            (&["5xx", "429", "503"], 2, Why::Repeated),
            (&["503", "5xx"], 1, Why::Repeated),
        ] {
            assert_eq!(Conditions::parse(words), Err(Wrong { at, why }), "{words:?}");
        }
    }

    #[test]
    fn what_may_be_repeated_depends_on_how_it_ended() {
        let again = |ended, so| again(&policy(), ended, so);
        for ended in [Ended::Connect, Ended::Reset, Ended::Timeout, Ended::Refused, Ended::Status(503)] {
            assert_eq!(again(ended, &SENT), Again::Yes, "{ended:?}");
        }
        for status in [100, 200, 404, 500, 501, 600, 0, u16::MAX] {
            assert_eq!(again(Ended::Status(status), &SENT), Again::No(Skip::NotRetryable), "{status}");
        }
    }

    #[test]
    fn what_a_provider_may_have_done_is_asked_for_twice_only_where_that_does_no_harm() {
        let not = Again::No(Skip::Method);
        let mut policy = policy();
        for ended in [Ended::Reset, Ended::Timeout, Ended::Status(502), Ended::Status(503)] {
            assert_eq!(again(&policy, ended, &POST), not, "{ended:?}");
            assert_eq!(again(&policy, ended, &So { nothing_sent: true, ..POST }), Again::Yes, "{ended:?}");
        }
        for ended in [Ended::Connect, Ended::Refused, Ended::Status(429)] {
            assert_eq!(again(&policy, ended, &POST), Again::Yes, "{ended:?}");
        }
        let keyed = So { keyed: true, ..POST };
        assert_eq!(again(&policy, Ended::Reset, &keyed), not, "a key alone does not say that providers honour it");
        policy.idempotency_key = true;
        assert_eq!(again(&policy, Ended::Reset, &keyed), Again::Yes);
        assert_eq!(again(&policy, Ended::Reset, &POST), not);
        policy.methods = Methods::These(vec!["POST".into()]);
        assert_eq!(again(&policy, Ended::Reset, &POST), Again::Yes);
        assert_eq!(again(&policy, Ended::Reset, &So { method: "post", ..SENT }), not);
        assert_eq!(again(&policy, Ended::Reset, &SENT), not, "a list replaces the idempotent ones");
        policy.methods = Methods::All;
        assert_eq!(again(&policy, Ended::Reset, &So { method: "BREW", ..SENT }), Again::Yes);
    }

    #[test]
    fn a_refused_status_is_repeated_only_where_it_is_a_condition() {
        let policy = Policy { refused: vec![409], ..policy() };
        assert_eq!(again(&policy, Ended::Status(409), &POST), Again::No(Skip::NotRetryable));
        assert_eq!(again(&policy, Ended::Status(429), &POST), Again::No(Skip::Method));
        let policy = Policy { on: Conditions::parse(&["503"]).expect("a condition"), ..policy };
        assert_eq!(again(&policy, Ended::Refused, &SENT), Again::No(Skip::NotRetryable));
    }

    #[test]
    fn a_body_that_is_partly_gone_cannot_be_sent_again_unless_nothing_of_it_went() {
        let large = So { replayable: false, ..SENT };
        assert_eq!(again(&policy(), Ended::Status(503), &large), Again::No(Skip::Body));
        assert_eq!(again(&policy(), Ended::Refused, &large), Again::No(Skip::Body), "part of it may have been read");
        assert_eq!(again(&policy(), Ended::Connect, &So { nothing_sent: true, ..large }), Again::Yes);
    }

    #[test]
    fn what_was_never_sent_may_be_sent_whatever_it_is() {
        let policy = policy();
        let waited = So { attempts_made: 0, replayable: false, ..POST };
        assert_eq!(may_be_sent(&policy, None, &waited), Ok(()));
        assert_eq!(may_be_sent(&policy, Some(Ended::Status(429)), &POST), Ok(()), "a status that need not be in `on`");
        assert_eq!(may_be_sent(&policy, Some(Ended::Status(500)), &POST), Err(Skip::Method));
        assert_eq!(may_be_sent(&policy, Some(Ended::Status(500)), &SENT), Ok(()));
        assert_eq!(may_be_sent(&policy, None, &So { left: Duration::ZERO, ..waited }), Err(Skip::Deadline));
    }

    #[test]
    fn the_ceiling_and_the_deadline_hold_for_everything() {
        let last = So { attempts_made: 3, nothing_sent: true, ..SENT };
        assert_eq!(again(&policy(), Ended::Connect, &last), Again::No(Skip::Attempts));
        let late = So { left: Duration::ZERO, nothing_sent: true, ..SENT };
        assert_eq!(again(&policy(), Ended::Connect, &late), Again::No(Skip::Deadline));
    }

    #[test]
    fn the_idempotent_methods_are_those_of_the_standard() {
        for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"] {
            assert!(Methods::Idempotent.allow(method), "{method}");
        }
        for method in ["POST", "PATCH", "CONNECT", "get", ""] {
            assert!(!Methods::Idempotent.allow(method), "{method}");
        }
    }

    #[test]
    fn waits_double_up_to_their_maximum() {
        let milliseconds: Vec<u128> = (1..=8).map(|nth| wait(&BACKOFF, nth, 0.5).as_millis()).collect();
        assert_eq!(milliseconds, [25, 50, 100, 200, 400, 800, 1000, 1000]);
        assert_eq!(wait(&BACKOFF, u32::MAX, 0.5), BACKOFF.max);
        let none = Backoff { initial: Duration::ZERO, ..BACKOFF };
        assert_eq!([1, 2, u32::MAX].map(|nth| wait(&none, nth, 1.0)), [Duration::ZERO; 3]);
    }

    #[test]
    fn full_jitter_is_anything_up_to_the_bound() {
        let full = Backoff { jitter: Jitter::Full, ..BACKOFF };
        assert_eq!(wait(&full, 3, 0.0), Duration::ZERO);
        assert_eq!(wait(&full, 3, 0.25), Duration::from_millis(25));
        assert_eq!(wait(&full, 3, 1.0), Duration::from_millis(100));
    }

    #[test]
    fn each_reason_has_a_word_of_its_own() {
        let words: std::collections::BTreeSet<&str> = Skip::ALL.into_iter().map(Skip::as_str).collect();
        assert_eq!(words.len(), Skip::ALL.len());
        let endings =
            (100..=599).map(Ended::Status).chain([Ended::Connect, Ended::Reset, Ended::Timeout, Ended::Refused]);
        let words: std::collections::BTreeSet<&str> = endings.map(Ended::as_str).collect();
        assert!(words.len() <= 13, "a label has few values: {words:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn conditions_are_read_as_they_are_written(
            connect: bool, reset: bool, timeout: bool, statuses in btree_set(200_u16..=599, 0..400), whole in 2_u16..=5
        ) {
            let statuses = statuses.into_iter().chain(whole * 100..=whole * 100 + 99).collect();
            let conditions = Conditions { statuses, connect, reset, timeout };
            let words = conditions.words();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            prop_assert_eq!(Conditions::parse(&words), Ok(conditions));
        }

        #[test]
        fn any_wait_is_within_its_maximum(
            initial in 0..u64::MAX, multiplier in 1.0..f64::MAX, max in 0..u64::MAX, nth: u32, draw in 0.0..=1.0
        ) {
            let (initial, max) = (Duration::from_millis(initial), Duration::from_millis(max));
            let backoff = Backoff { initial, multiplier, max, jitter: Jitter::Full };
            prop_assert!(wait(&backoff, nth, draw) <= max);
        }

        #[test]
        fn attempts_never_exceed_their_ceiling(attempts in 1_u32..10, made in 1_u32..20, status in 500_u16..600) {
            let policy = Policy { attempts, ..policy() };
            let so = So { attempts_made: made, ..SENT };
            prop_assert!(made < attempts || again(&policy, Ended::Status(status), &so) != Again::Yes);
        }
    }
}
