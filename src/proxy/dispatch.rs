//! From a route to an answer: lease a provider, make the attempt, report how it ended, say what that means.
//!
//! One attempt for now. Retries, fallback pools and hedges become "take another lease" right here.

use super::Stop;
use super::attempt::{self, Cause, Failed, Lent};
use super::exchange::{Answered, Broken, Terms};
use super::forward::Onward;
use super::frame::Request;
use super::identity::{Identity, Peer};
use super::record::Record;
use super::respond::{Refusal, Refused};
use super::snapshot::Route;
use crate::clock;
use crate::config::Listener;
use crate::http1::fields::Known;
use crate::net::side::Side;
use crate::policy::class::Class;
use crate::policy::outcome::Outcome;
use crate::upstream::connect::ConnectErrorKind;
use crate::upstream::pool::{self, Ask, Label, Lease, Leasing, Pool, Report, Wait};
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::Poll;
use std::time::Instant;

/// A request that is to be sent to a pool.
#[derive(Debug, Clone, Copy)]
pub struct Errand<'a> {
    /// The request.
    pub request: &'a Request<'a>,
    /// Its route.
    pub route: &'a Route,
    /// What it is called.
    pub identity: &'a Identity,
    /// Who sent it.
    pub peer: &'a Peer,
    /// The listener that took it.
    pub listener: &'a Listener,
    /// Turns true when that listener goes.
    pub closing: &'a AtomicBool,
    /// When its head was complete.
    pub started: Instant,
}

/// Sends a request to a provider of `pool` and its answer to the client.
///
/// # Errors
/// See [`Stop`].
pub async fn send<'snapshot>(
    errand: &Errand<'_>,
    pool: &'snapshot Pool,
    lent: &mut Lent<'_>,
    record: &mut Record<'snapshot>,
) -> Result<Answered, Stop> {
    if has_left(&mut lent.client).await {
        return Err(Stop::Gone);
    }
    let lease = errand.lease(pool).await.map_err(|_| no_provider(pool))?;
    let provider = &lease.provider;
    let (terms, onward) = errand.for_provider(&lease);
    let attempted = attempt::attempt(lent, &terms, &onward, provider).await;
    let now = lent.now;
    let outcome = match &attempted {
        Ok(answered) => judge(answered, lent),
        Err(failed) => failed.outcome(),
    };
    let took = now.saturating_duration_since(lease.since);
    record.attempted(provider, outcome, took, now);
    let name = Arc::clone(&provider.name);
    let head_after = attempted.is_ok().then_some(took);
    lease.finish(Report { outcome, why: outcome.as_str(), head_after, cooldown: None }, now);
    attempted.map_err(|failed| {
        record.error = Some(failed.describe());
        let trail = format!("{name} {} {}ms", failed.word(), took.as_millis());
        stop(failed, trail)
    })
}

// === impl Errand ===

impl Errand<'_> {
    /// Permission to make the attempt, once somebody has room.
    async fn lease(&self, pool: &Pool) -> Result<Lease, pool::Refused> {
        let label = || Label {
            request_id: self.identity.request_id_text().into(),
            client: "anonymous".into(),
            route: Arc::clone(&self.route.config.name),
            method: self.request.method.into(),
            path: self.request.path.into(),
        };
        let leasing = pool.lease(&Ask {
            class: Class::Normal,
            client: 0,
            share: 1,
            key: None,
            tried: &[],
            again: false,
            risky: false,
            bytes: 0,
            deadline: clock::after(self.started, self.route.config.timeout),
            wait: Wait::QueueForProbe,
            now: self.started,
            label: &label,
        });
        match leasing? {
            Leasing::Now(lease) => Ok(lease),
            Leasing::Wait(waiting) => waiting.await,
        }
    }

    /// What the exchange has to keep to, and what shapes the request, for the leased provider.
    fn for_provider<'a>(&'a self, lease: &'a Lease) -> (Terms<'a>, Onward<'a>) {
        let (route, provider) = (&self.route.config, &lease.provider.config);
        let terms = Terms {
            request: self.request,
            identity: self.identity,
            rewrite: &route.rewrite,
            provider: &provider.name,
            headers: &provider.headers,
            closing: self.closing,
            deadline: clock::after(self.started, route.timeout),
            stream_timeout: route.stream_timeout,
            first_byte: provider.timeouts.first_byte,
            provider_idle: provider.timeouts.idle,
            client_idle: self.listener.limits.idle_timeout,
            min_body_rate: self.listener.limits.min_body_rate,
        };
        let onward = Onward {
            request: self.request,
            rewrite: &route.rewrite,
            provider,
            peer: self.peer,
            identity: self.identity,
        };
        (terms, onward)
    }
}

/// Whether the client gave its request up before anybody was asked. Only where that costs no system call: a reset that came
/// right behind a request in HTTP/2 is known by now.
async fn has_left(client: &mut Side<'_>) -> bool {
    client.says_that_it_leaves() && poll_fn(|cx| Poll::Ready(client.poll_gone(cx).is_ready())).await
}

/// How an answer counts for its provider (contract §3, "Outcomes").
fn judge(answered: &Answered, lent: &Lent<'_>) -> Outcome {
    match answered.status {
        429 => Outcome::Rejected,
        503 if is_hinted(lent) => Outcome::Rejected,
        500.. => Outcome::Failure,
        _ => Outcome::Success,
    }
}

/// Whether the provider said when to come again.
fn is_hinted(lent: &Lent<'_>) -> bool {
    let fields = &lent.answer.fields;
    let hint = |(known, name, _): (Known, &[u8], &[u8])| {
        known == Known::Other
            && (name.eq_ignore_ascii_case(b"retry-after") || name.eq_ignore_ascii_case(b"retry-after-ms"))
    };
    fields.iter().any(hint)
}

fn no_provider(pool: &Pool) -> Stop {
    Refused::new(Refusal::NoProvider, format!("No provider of pool `{}` can take the request now.", pool.name)).into()
}

/// What a failed attempt means for the client.
fn stop(failed: Failed, trail: String) -> Stop {
    if let Cause::Exchange(Broken::ClientGone) = failed.cause {
        return Stop::Gone;
    }
    if failed.committed {
        return Stop::Cut;
    }
    let refused = match failed.cause {
        Cause::Connect(error) => {
            let refusal =
                if error.kind() == ConnectErrorKind::Timeout { Refusal::TimedOut } else { Refusal::Unreachable };
            Refused::new(refusal, "No connection to a provider could be opened.").error(error.token())
        }
        Cause::Exchange(broken) => refuse(&broken),
    };
    refused.trail(trail).into()
}

fn refuse(broken: &Broken) -> Refused {
    match broken {
        Broken::ClientBody(why) => Refused::new(Refusal::BadRequest, format!("The request body is broken: {why}.")),
        Broken::ClientBodyTooLarge => Refused::body_too_large(),
        Broken::ClientBodyTooSlow => {
            Refused::new(Refusal::BodyTimeout, "The request body came more slowly than this gateway waits for.")
        }
        Broken::Deadline => {
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
        Broken::FirstByte | Broken::Idle => Refused::new(Refusal::TimedOut, "The provider did not answer in time."),
        Broken::Refused | Broken::Reset { .. } | Broken::ClientGone | Broken::StreamTimeout => {
            Refused::new(Refusal::Unreachable, "The provider broke the connection before it answered.")
                .error("http_response_incomplete")
        }
    }
}
