//! What an ended attempt means: for its provider, for the next attempt, and for the client.

use super::Stop;
use super::attempt::{Cause, Failed, Lent};
use super::exchange::{Broken, Ended};
use super::respond::{Refusal, Refused};
use crate::clock;
use crate::config::CircuitBreaker;
use crate::http1::head::ResponseHead;
use crate::policy::cooldown;
use crate::policy::outcome::Outcome;
use crate::policy::retry::{self, Skip};
use crate::upstream::connect::ConnectErrorKind;
use crate::upstream::pool::{self, Lease, Report};
use std::time::Duration;

/// How an attempt counts for its provider (contract §3, "Outcomes").
pub fn report(ended: &Result<Ended, Failed>, lease: &Lease, lent: &Lent<'_>) -> Report {
    let breaker = &lease.provider.config.circuit_breaker;
    let head_at = match ended {
        Ok(Ended::Answered(answered)) => answered.head_at.unwrap_or(lent.now),
        Ok(Ended::Withheld(_)) => lent.now,
        Err(failed) => return by_failure(failed, breaker),
    };
    by_answer(lent.answer, head_at.saturating_duration_since(lease.since), breaker)
}

/// The same for an answer whose head came after so long.
pub fn by_answer(answer: &ResponseHead, head_after: Duration, breaker: &CircuitBreaker) -> Report {
    let hint = || cooldown::hint(answer.status, |name| answer.fields.named(name).next(), clock::wall());
    let status = retry::Ended::Status(answer.status);
    let (outcome, why, cooldown) = match answer.status {
        429 => (Outcome::Rejected, "429", Some(hint())),
        503 if let Some(wait) = hint() => (Outcome::Rejected, "503", Some(Some(wait))),
        _ if breaker.failures.include(status) => (Outcome::Failure, status.as_str(), None),
        _ => (Outcome::Success, "", None),
    };
    Report { outcome, why, head_after: Some(head_after), cooldown }
}

/// The same for an attempt without an answer.
pub fn by_failure(failed: &Failed, breaker: &CircuitBreaker) -> Report {
    // The time of a request that is over is not to be tried again, but it is a timeout all the same.
    let kind = match failed.cause {
        Cause::Exchange(Broken::Deadline { .. }) => Some(retry::Ended::Timeout),
        _ => failed.kind(),
    };
    let uncounted = kind.is_some_and(|kind| !breaker.failures.include(kind));
    let outcome = match failed.outcome() {
        Outcome::Failure if uncounted => Outcome::Success,
        outcome => outcome,
    };
    Report { outcome, why: failed.word(), head_after: None, cooldown: None }
}

/// What a failed attempt means for the client, where no other can follow.
pub fn stop(failed: &Failed, trail: &str) -> Stop {
    if let Cause::Exchange(Broken::ClientGone) = failed.cause {
        return Stop::Gone;
    }
    if failed.committed {
        return Stop::Cut;
    }
    refuse(&failed.cause).trail(trail.to_owned()).into()
}

/// Why the pool gives no provider.
pub fn not_leased(refused: &pool::Refused, pool: &str) -> Refused {
    let (refusal, detail) = match refused {
        pool::Refused::QueueFull { .. } => (Refusal::QueueFull, format!("The queue of pool `{pool}` is full.")),
        pool::Refused::QueueTimeout { waited: Duration::ZERO, .. } => {
            (Refusal::QueueTimeout, format!("No provider of pool `{pool}` would become free in time."))
        }
        pool::Refused::QueueTimeout { .. } => {
            (Refusal::QueueTimeout, format!("No provider of pool `{pool}` became free in time."))
        }
        pool::Refused::NoProvider { .. } => {
            (Refusal::NoProvider, format!("No provider of pool `{pool}` can take the request now."))
        }
        pool::Refused::Buffers { .. } => {
            (Refusal::QueueFull, format!("The memory for requests that wait in pool `{pool}` is used up."))
        }
        pool::Refused::Busy => (Refusal::NoProvider, format!("No provider of pool `{pool}` has room now.")),
        pool::Refused::Cancelled => (Refusal::Cancelled, format!("An operator took the request out of pool `{pool}`.")),
    };
    Refused::new(refusal, detail).retry_after(refused.retry_after())
}

/// Why an attempt without an answer brought none.
pub fn refuse(cause: &Cause) -> Refused {
    match cause {
        Cause::Connect(error) => {
            let refusal =
                if error.kind() == ConnectErrorKind::Timeout { Refusal::TimedOut } else { Refusal::Unreachable };
            Refused::new(refusal, "No connection to a provider could be opened.").error(error.token())
        }
        Cause::Exchange(broken) => refuse_broken(broken),
    }
}

/// The same for an exchange.
pub fn refuse_broken(broken: &Broken) -> Refused {
    match broken {
        Broken::ClientBody(why) => Refused::new(Refusal::BadRequest, format!("The request body is broken: {why}.")),
        Broken::ClientBodyTooLarge => Refused::body_too_large(),
        Broken::ClientBodyTooSlow => {
            Refused::new(Refusal::BodyTimeout, "The request body came more slowly than this gateway waits for.")
        }
        Broken::Deadline { .. } => {
            Refused::new(Refusal::Deadline, "The time this route gives a request was over before an answer came.")
        }
        Broken::Protocol(_) => {
            Refused::new(Refusal::Unreachable, "The provider's answer was not valid HTTP.").error("http_protocol_error")
        }
        Broken::NoUpgrade => {
            Refused::new(Refusal::Unreachable, "The provider cannot switch to the protocol that was asked for.")
                .error("http_upgrade_failed")
        }
        Broken::Unsayable => Refused::new(Refusal::BadRequest, "The request has no form in HTTP/2."),
        Broken::FirstByte | Broken::Idle | Broken::Attempt => {
            Refused::new(Refusal::TimedOut, "The provider did not answer in time.")
        }
        Broken::Refused | Broken::Reset { .. } | Broken::ClientGone | Broken::StreamTimeout => {
            Refused::new(Refusal::Unreachable, "The provider broke the connection before it answered.")
                .error("http_response_incomplete")
        }
    }
}

/// For a client whose only answers were failures that are too long to be kept.
pub fn unkept() -> Refused {
    Refused::new(Refusal::Unreachable, "Every provider that was asked answered with a failure.")
}

/// For a client that was promised an event stream while it waited.
pub fn no_stream(status: u16) -> Refused {
    Refused::new(
        Refusal::NoStream,
        format!("The provider answered with status {status}, and not with an event stream."),
    )
}

/// What is said of an attempt that was not made, where that is not plain from the rest.
pub fn not_retried(skip: Skip) -> Option<&'static str> {
    match skip {
        Skip::NotRetryable | Skip::Attempts => None,
        Skip::Method => Some("not retried: method"),
        Skip::Body => Some("not retried: body too large to be kept"),
        Skip::Budget => Some("not retried: budget"),
        Skip::Deadline => Some("not retried: no time left"),
        Skip::NoProvider => Some("not retried: no provider"),
    }
}
