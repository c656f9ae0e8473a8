//! One try at one provider: a connection, the exchange over it, and what became of both.

use super::exchange::{Broken, Ended, Exchange, KeepFor, Terms};
use super::forward::{self, Onward};
use super::heartbeat::Opened;
use super::replay::Replay;
use crate::clock;
use crate::config::Scheme;
use crate::http1::framing::Length;
use crate::http1::head::ResponseHead;
use crate::http2::fault::Broke;
use crate::instant::Instant;
use crate::net::proxy_header::Announce;
use crate::net::side::Side;
use crate::net::stream::Stream;
use crate::net::timer::Timer;
use crate::policy::outcome::Outcome;
use crate::policy::retry::{self, Methods};
use crate::upstream::connect::{ConnectError, ConnectErrorKind};
use crate::upstream::endpoint::{Connection, Hand};
use crate::upstream::multiplex::Seat;
use crate::upstream::pool::{Probe, Provider};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

/// What a client's connection lends to an attempt.
#[derive(Debug)]
pub struct Lent<'a> {
    /// The client's side.
    pub client: Side<'a>,
    /// Where the answer's head is parsed into.
    pub answer: &'a mut ResponseHead,
    /// The task's timer.
    pub timer: &'a mut Timer,
    /// Another, for a second attempt beside the first.
    pub hedge_timer: &'a mut Timer,
    /// What was read of the request's body.
    pub replay: Replay,
    /// A provider's 100 was passed on: the client sends its body.
    pub continued: bool,
    /// The client has the head of an event stream, and perhaps comments, while it waits.
    pub opened: Option<Opened>,
    /// How long the attempt waited for the client's body, which is no time of anybody else's.
    pub awaited: Duration,
    /// Of the lease, where a circuit waits for what this attempt shows.
    pub probe: Option<Probe>,
    /// Which worker this is.
    pub worker: usize,
    /// The time as it was last read; reading it again and again would cost more than it tells.
    pub now: Instant,
}

/// A request that is on its way.
#[derive(Debug)]
pub enum Sent {
    /// On a connection of its own.
    Http1(Connection),
    /// As a stream of a shared connection, with its place there. Boxed, so that the other is not moved as if it were as large.
    Http2(Box<Stream>, Seat),
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

/// Makes one attempt. A connection that turns out to be dead, or that takes no more, is replaced once, as part of the same
/// attempt, where sending again is safe.
///
/// # Errors
/// See [`Failed`].
pub async fn attempt(
    lent: &mut Lent<'_>,
    terms: &Terms<'_>,
    onward: &Onward<'_>,
    provider: &Provider,
) -> Result<Ended, Failed> {
    let at_hand = acquire(lent, terms, provider);
    let (mut used_before, mut replaced) = (at_hand.is_some(), false);
    let mut hand = match at_hand {
        Some(hand) => hand,
        None => open(lent, terms, onward, provider).await?,
    };
    loop {
        let (ended, unsent) = match begin(hand, terms, onward, lent.client.may_trail()) {
            Ok(sent) => finish(sent, lent, terms, provider, false).await,
            Err(failed) => (Err(failed), true),
        };
        match ended {
            Err(Failed { cause: Cause::Exchange(broken), .. })
                if !replaced && may_send_again(&broken, used_before, unsent, lent, terms) =>
            {
                // Not one that waits beside the dead one: the provider may have closed them all.
                hand = open(lent, terms, onward, provider).await?;
                used_before = false;
                replaced = true;
            }
            ended => return ended,
        }
    }
}

/// What is open already, and fit for this request.
fn acquire(lent: &Lent<'_>, terms: &Terms<'_>, provider: &Provider) -> Option<Hand> {
    let endpoint = &provider.endpoint;
    if terms.request.upgrade && !is_http2_only(provider) {
        return endpoint.reuse(lent.worker, lent.now).map(Hand::Http1);
    }
    endpoint.acquire(lent.worker, lent.now)
}

/// Whether the provider is never spoken to in HTTP/1.
fn is_http2_only(provider: &Provider) -> bool {
    let config = &provider.config;
    config.url.scheme == Scheme::H2c || (config.url.scheme == Scheme::Https && !config.protocols.http1)
}

/// Begins to send the request. `trailers`: some may come behind its body.
///
/// # Errors
/// The request has no form there, or the connection takes no more.
pub fn begin(hand: Hand, terms: &Terms<'_>, onward: &Onward<'_>, trailers: bool) -> Result<Sent, Failed> {
    let request = terms.request;
    let mut seat = match hand {
        Hand::Http1(mut connection) => {
            connection.wire.begin();
            forward::request_head(connection.wire.out(), onward);
            connection.wire.begin_answer(request.length);
            return Ok(Sent::Http1(connection));
        }
        Hand::Http2(seat) => seat,
    };
    if request.upgrade && !(request.is_websocket() && seat.takes_extended_connect()) {
        return Err(Broken::NoUpgrade.into());
    }
    let head = forward::request_parts(onward).map_err(|_| Broken::Unsayable)?;
    let bodiless = matches!(request.length, Length::None | Length::Exact(0));
    let (answer, body) = seat.send(head, bodiless && !request.upgrade).map_err(|broke| match broke {
        Broke::Ours => Broken::Unsayable,
        _ => Broken::Refused,
    })?;
    let key = request.upgrade.then(|| request.head.fields.named(b"sec-websocket-key").next()).flatten();
    let mut stream = Stream::to_provider(answer, body, !bodiless, key);
    stream.begin_answer(request.length, trailers);
    Ok(Sent::Http2(Box::new(stream), seat))
}

/// Goes on to the end, and keeps the connection where it is fit for another exchange. `scouted`: the request is sent, and the
/// answer's head is there. Says beside the outcome whether not one byte had left.
pub async fn finish(
    mut sent: Sent,
    lent: &mut Lent<'_>,
    terms: &Terms<'_>,
    provider: &Provider,
    scouted: bool,
) -> (Result<Ended, Failed>, bool) {
    let ended = exchange(sent.side(), lent, terms, scouted).await;
    let Sent::Http1(connection) = sent else { return (ended, false) };
    let unsent = !connection.wire.touched;
    if let Ok(Some(keep_for)) = ended.as_ref().map(Ended::reusable) {
        keep(provider, connection, keep_for, lent, terms.request.method == "HEAD");
    }
    (ended, unsent)
}

/// Runs the exchange to its end.
async fn exchange(provider: Side<'_>, lent: &mut Lent<'_>, terms: &Terms<'_>, scouted: bool) -> Result<Ended, Failed> {
    let Lent { client, replay, answer, now, probe, .. } = lent;
    let mut exchange = Exchange::new(client.lend(), replay, provider, answer, terms, *now);
    if scouted {
        exchange.go_on();
    }
    exchange.continued = lent.continued;
    exchange.probe = Some(probe);
    let ended = exchange.run(lent.timer).await;
    let Exchange { committed, continued, .. } = exchange;
    *now = clock::now();
    lent.awaited += exchange.awaited(*now);
    lent.continued = continued;
    ended.map_err(|broken| Failed { cause: Cause::Exchange(broken), committed })
}

/// Opens a connection, unless the client leaves first.
async fn open(
    lent: &mut Lent<'_>,
    terms: &Terms<'_>,
    onward: &Onward<'_>,
    provider: &Provider,
) -> Result<Hand, Failed> {
    let announce = match provider.config.proxy_protocol {
        Some(_) => onward.peer.announce(lent.client.socket()),
        None => Announce::default(),
    };
    let patience = provider.config.timeouts.connect;
    let own = clock::after(lent.now, patience);
    let (endpoint, deadline, worker) = (&provider.endpoint, own.min(terms.end()), lent.worker);
    let mut opening = pin!(async {
        // A connection that announces a client is that client's alone.
        let alone = provider.config.proxy_protocol.is_some() || (terms.request.upgrade && !is_http2_only(provider));
        if alone {
            return endpoint.open_http1(&announce, deadline).await.map(Hand::Http1);
        }
        endpoint.open(worker, patience, deadline).await
    });
    let opened = poll_fn(|cx| match opening.as_mut().poll(cx) {
        Poll::Ready(opened) => Poll::Ready(opened.map_err(Cause::Connect)),
        Poll::Pending => lent.client.poll_gone(cx).map(|()| Err(Cause::Exchange(Broken::ClientGone))),
    });
    let opened = opened.await;
    lent.now = clock::now();
    opened.map_err(|cause| match cause {
        Cause::Connect(error) => unopened(error, own, terms),
        Cause::Exchange(broken) => broken.into(),
    })
}

/// What it means that there is no connection, where `own` is until when it might have taken: it may not have had that time.
pub fn unopened(error: ConnectError, own: Instant, terms: &Terms<'_>) -> Failed {
    if error.kind() == ConnectErrorKind::Timeout && terms.end() < own {
        return terms.over().into();
    }
    Failed { cause: Cause::Connect(error), committed: false }
}

/// Keeps the provider's connection for another exchange.
fn keep(provider: &Provider, connection: Connection, keep: KeepFor, lent: &Lent<'_>, to_head: bool) {
    if to_head {
        provider.endpoint.rest(lent.worker, connection, keep.0);
    } else {
        provider.endpoint.keep(lent.worker, connection, keep.0, lent.now);
    }
}

/// A provider closes idle connections when it likes, and our request may cross its FIN. Sending again is safe where all of
/// the body that was read is kept, and the method is idempotent or not one byte had left (RFC 9110 §9.2.2, RFC 9112
/// §9.3.1), or where the provider says that it did nothing (RFC 9113 §8.7). The latter also of a connection that was waited
/// for: it may be one that others had used before, and that its provider was about to end.
fn may_send_again(broken: &Broken, used_before: bool, unsent: bool, lent: &Lent<'_>, terms: &Terms<'_>) -> bool {
    let safe = match broken {
        Broken::Refused => true,
        Broken::Reset { silent: true } => used_before && (unsent || Methods::Idempotent.allow(terms.request.method)),
        _ => false,
    };
    safe && lent.replay.is_whole()
}

// === impl Sent ===

impl Sent {
    /// The provider's side of the exchange.
    pub fn side(&mut self) -> Side<'_> {
        match self {
            Sent::Http1(connection) => Side::Http1(&mut connection.wire),
            Sent::Http2(stream, _) => Side::Http2(stream),
        }
    }
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
                // Of the deadlines: the provider did not have its full time, or answers longer than we care to wait.
                Broken::ClientBody(_)
                | Broken::ClientBodyTooLarge
                | Broken::ClientBodyTooSlow
                | Broken::Deadline { full: false }
                | Broken::StreamTimeout
                | Broken::NoUpgrade
                | Broken::Unsayable => Outcome::LocalRefusal,
                Broken::Refused
                | Broken::Reset { .. }
                | Broken::Protocol(_)
                | Broken::FirstByte
                | Broken::Idle
                | Broken::Attempt
                // Of two times the shorter is the full one.
                | Broken::Deadline { full: true } => Outcome::Failure,
            },
        }
    }

    /// What that is for a retry; `None` where another attempt would not help, or nobody could be told of it.
    pub fn kind(&self) -> Option<retry::Ended> {
        if self.committed {
            return None;
        }
        match &self.cause {
            Cause::Connect(_) => Some(retry::Ended::Connect),
            Cause::Exchange(broken) => match broken {
                Broken::Refused => Some(retry::Ended::Refused),
                Broken::Reset { .. } | Broken::Protocol(_) => Some(retry::Ended::Reset),
                Broken::FirstByte | Broken::Idle | Broken::Attempt => Some(retry::Ended::Timeout),
                Broken::ClientGone
                | Broken::ClientBody(_)
                | Broken::ClientBodyTooLarge
                | Broken::ClientBodyTooSlow
                | Broken::Deadline { .. }
                | Broken::StreamTimeout
                | Broken::NoUpgrade
                | Broken::Unsayable => None,
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
                Broken::Deadline { .. } => "deadline",
                Broken::Attempt => "attempt_timeout",
                Broken::StreamTimeout => "stream_timeout",
                Broken::Refused => "refused",
                Broken::NoUpgrade => "no_upgrade",
                Broken::Unsayable => "unsayable",
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
            Cause::Exchange(Broken::NoUpgrade) => {
                "the provider speaks HTTP/2 and does not offer the upgrade there (RFC 8441)".to_owned()
            }
            Cause::Exchange(Broken::Unsayable) => "the request has no form in HTTP/2".to_owned(),
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
