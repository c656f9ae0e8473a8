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

const STATUS_WORDS: usize = 8;
