//! One try at one provider: a connection, the exchange over it, and what became of both.

use super::exchange::{Answered, Broken, Exchange, Terms};
use super::forward::{self, Onward};
use crate::clock;
use crate::http1::head::ResponseHead;
use crate::net::side::Side;
use crate::net::timer::Timer;
use crate::policy::outcome::Outcome;
use crate::upstream::connect::{ConnectError, ConnectErrorKind};
use crate::upstream::endpoint::Connection;
use crate::upstream::pool::Provider;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Instant;

/// What a client's connection lends to an attempt.
#[derive(Debug)]
pub struct Lent<'a> {
    /// The client's side.
    pub client: Side<'a>,
    /// Where the answer's head is parsed into.
    pub answer: &'a mut ResponseHead,
    /// The task's timer.
    pub timer: &'a mut Timer,
    /// Which worker this is.
    pub worker: usize,
    /// The time as it was last read; reading it again and again would cost more than it tells.
    pub now: Instant,
}

/// Why an attempt brought no complete answer.
#[derive(Debug)]
pub struct Failed {
    /// What happened.
    pub cause: Cause,
    /// The answer's head was on its way to the client: nothing can be said any more.
    pub committed: bool,
}

/// What happened to an attempt.
#[derive(Debug)]
pub enum Cause {
    /// There was no connection.
    Connect(ConnectError),
    /// The exchange broke.
    Exchange(Broken),
}

/// Makes one attempt. A pooled connection that turns out to be dead is replaced once, as part of the same attempt, where
/// sending again is safe.
///
/// # Errors
/// See [`Failed`].
pub async fn attempt(
    lent: &mut Lent<'_>,
    terms: &Terms<'_>,
    onward: &Onward<'_>,
    provider: &Provider,
) -> Result<Answered, Failed> {
    let mut connection = match provider.endpoint.reuse(lent.worker, lent.now) {
        Some(connection) => connection,
        None => open(lent, terms, onward, provider).await?,
    };
    loop {
        connection.wire.begin();
        forward::request_head(connection.wire.out(), onward);
        connection.wire.begin_answer(terms.request.length);
        let mut exchange =
            Exchange::new(lent.client.lend(), Side::Http1(&mut connection.wire), lent.answer, *terms, lent.now);
        let ended = exchange.run(lent.timer).await;
        let committed = exchange.committed;
        lent.now = clock::now();
        match ended {
            Ok(answered) => {
                keep(provider, connection, &answered, lent, terms.request.method == "HEAD");
                return Ok(answered);
            }
            Err(Broken::Reset { silent: true }) if may_send_again(&connection, &lent.client, terms) => {
                connection = open(lent, terms, onward, provider).await?;
            }
            Err(broken) => return Err(Failed { cause: Cause::Exchange(broken), committed }),
        }
    }
}

/// Opens a connection, unless the client leaves first.
async fn open(
    lent: &mut Lent<'_>,
    terms: &Terms<'_>,
    onward: &Onward<'_>,
    provider: &Provider,
) -> Result<Connection, Failed> {
    let own = clock::after(lent.now, provider.config.timeouts.connect);
    let announce = onward.peer.announce();
    let mut opening = pin!(provider.endpoint.open_http1(&announce, own.min(terms.deadline)));
    let opened = poll_fn(|cx| match opening.as_mut().poll(cx) {
        Poll::Ready(opened) => Poll::Ready(opened.map_err(Cause::Connect)),
        Poll::Pending => lent.client.poll_gone(cx).map(|()| Err(Cause::Exchange(Broken::ClientGone))),
    });
    let opened = opened.await;
    lent.now = clock::now();
    opened.map_err(|cause| match cause {
        Cause::Connect(error) if error.kind() == ConnectErrorKind::Timeout && terms.deadline < own => {
            Broken::Deadline.into()
        }
        cause => Failed { cause, committed: false },
    })
}

/// Keeps the provider's connection for another exchange, if it is fit for one.
fn keep(provider: &Provider, connection: Connection, answered: &Answered, lent: &Lent<'_>, to_head: bool) {
    match answered.reusable {
        Some(keep) if to_head => provider.endpoint.rest(lent.worker, connection, keep.0),
        Some(keep) => provider.endpoint.keep(lent.worker, connection, keep.0, lent.now),
        None => {}
    }
}

/// A provider closes idle connections when it likes, and our request may cross its FIN. Sending again is safe where nothing
/// of the body is gone, and the method is idempotent or not one byte had left (RFC 9110 §9.2.2, RFC 9112 §9.3.1).
fn may_send_again(connection: &Connection, client: &Side<'_>, terms: &Terms<'_>) -> bool {
    connection.reused && client.body_read() == 0 && (is_idempotent(terms.request.method) || !connection.wire.touched)
}

/// RFC 9110 §9.2.2.
fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE")
}

// === impl Failed ===

impl Failed {
    /// Whose doing it was.
    pub fn outcome(&self) -> Outcome {
        match &self.cause {
            Cause::Connect(error) if error.is_ours() => Outcome::LocalRefusal,
            Cause::Connect(_) => Outcome::Failure,
            Cause::Exchange(broken) => match broken {
                Broken::ClientGone => Outcome::ClientGone,
                // Of the last two: the provider did not have its full time, or answers longer than we care to wait.
                Broken::ClientBody(_)
                | Broken::ClientBodyTooLarge
                | Broken::ClientBodyTooSlow
                | Broken::Deadline
                | Broken::StreamTimeout => Outcome::LocalRefusal,
                Broken::Refused | Broken::Reset { .. } | Broken::Protocol(_) | Broken::FirstByte | Broken::Idle => {
                    Outcome::Failure
                }
            },
        }
    }

    /// One word for the trail in `Proxy-Status`.
    pub fn word(&self) -> &'static str {
        match &self.cause {
            Cause::Connect(error) => error.token(),
            Cause::Exchange(broken) => match broken {
                Broken::ClientGone => "client_gone",
                Broken::ClientBody(_) => "client_body",
                Broken::ClientBodyTooLarge => "client_body_too_large",
                Broken::ClientBodyTooSlow => "client_body_too_slow",
                Broken::Deadline => "deadline",
                Broken::StreamTimeout => "stream_timeout",
                Broken::Refused => "refused",
                Broken::Reset { .. } => "reset",
                Broken::Protocol(_) => "protocol",
                Broken::FirstByte => "first_byte_timeout",
                Broken::Idle => "idle_timeout",
            },
        }
    }

    /// What happened, for the log.
    pub fn describe(&self) -> String {
        match &self.cause {
            Cause::Connect(error) => error.to_string(),
            Cause::Exchange(Broken::Protocol(why)) => format!("the provider broke HTTP: {why}"),
            Cause::Exchange(Broken::ClientBody(why)) => format!("the client's body is broken: {why}"),
            Cause::Exchange(_) => self.word().to_owned(),
        }
    }
}

impl From<Broken> for Failed {
    fn from(broken: Broken) -> Self {
        Failed { cause: Cause::Exchange(broken), committed: false }
    }
}
