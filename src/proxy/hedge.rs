//! A second attempt while the first is slow. Whichever has an answer first goes on; the other is given up upstream.
//!
//! The first attempt has the client, as any attempt has. The second goes without it as far as the head of its answer: it is
//! a [`Scout`]. If its head comes while the first has none, the first is dropped, which closes its connection or resets its
//! stream, and the scout's answer is passed on like any other. Only requests that may be sent twice and whose whole body is
//! at hand are hedged, and a hedge never queues (Dean and Barroso, "The Tail at Scale", CACM 56(2), 2013).

use super::attempt::{self, Failed};
use super::exchange::{Broken, Ended, Terms};
use super::forward::Onward;
use crate::clock;
use crate::http1::framing::Length;
use crate::http1::head::ResponseHead;
use crate::instant::Instant;
use crate::net::pump::{Flow, Pump, Source};
use crate::net::side::Side;
use crate::net::wire::ReadError;
use crate::policy::outcome::Outcome;
use crate::upstream::pool::{Lease, Provider, Report};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

/// An attempt without a client that has the head of its answer.
#[derive(Debug)]
pub struct Scout {
    /// What carries it.
    pub sent: attempt::Sent,
    /// The head.
    pub answer: ResponseHead,
}

/// The lease of an attempt that may be given up at any moment, for no fault of its provider.
#[derive(Debug)]
pub struct Hedged(Option<Lease>);

/// A body that is at hand.
struct Whole<'a>(&'a [u8]);

/// What came of two attempts first.
#[derive(Debug)]
pub enum Done<T> {
    /// The first ended.
    First(Result<Ended, Failed>),
    /// The first has begun to answer the client: the second counts no more.
    Committed,
    /// The second ended.
    Second(T),
}

/// Waits for the first of two attempts to be done, or to be `committed`.
pub async fn race<T>(
    mut first: Pin<&mut impl Future<Output = Result<Ended, Failed>>>,
    mut second: Pin<&mut Option<impl Future<Output = T>>>,
    committed: &AtomicBool,
) -> Done<T> {
    let both = |cx: &mut Context<'_>| {
        if let Poll::Ready(ended) = first.as_mut().poll(cx) {
            return Poll::Ready(Done::First(ended));
        }
        if committed.load(Ordering::Relaxed) {
            return Poll::Ready(Done::Committed);
        }
        poll_if_there(second.as_mut(), cx).map(Done::Second)
    };
    poll_fn(both).await
}

/// Polls a second attempt that may have been given up.
pub fn poll_if_there<T>(second: Pin<&mut Option<impl Future<Output = T>>>, cx: &mut Context<'_>) -> Poll<T> {
    second.as_pin_mut().map_or(Poll::Pending, |second| second.poll(cx))
}

/// Sends a request with this body, and waits for the head of the final answer.
///
/// # Errors
/// See [`Failed`].
pub async fn scout(
    terms: &Terms<'_>,
    onward: &Onward<'_>,
    provider: &Provider,
    body: &[u8],
    worker: usize,
) -> Result<Scout, Failed> {
    let now = clock::now();
    let (endpoint, timeouts) = (&provider.endpoint, &provider.config.timeouts);
    let (end, own) = (terms.end(), clock::after(now, timeouts.connect));
    // Not on a connection that was idle: one that turned out to be dead would be the provider's failure.
    let opened = endpoint.open(worker, timeouts.connect, own.min(end)).await;
    let hand = opened.map_err(|error| attempt::unopened(error, own, terms))?;
    let mut sent = attempt::begin(hand, terms, onward, false)?;
    let mut answer = ResponseHead::default();
    let (mut pump, mut whole) = (Pump::default(), Whole(body));
    let head = poll_fn(|cx| {
        let mut side = sent.side();
        // Whether the provider takes no more shows when reading.
        let _: Flow = pump.run(&mut whole, &mut side, &|_| false, cx);
        poll_head(&mut side, &mut answer, cx)
    });
    let patience = clock::after(clock::now(), timeouts.first_byte);
    match tokio::time::timeout_at(patience.min(end).into(), head).await {
        Ok(Ok(())) => Ok(Scout { sent, answer }),
        Ok(Err(broken)) => Err(broken.into()),
        Err(_) if end < patience => Err(terms.over().into()),
        Err(_) => Err(Broken::FirstByte.into()),
    }
}

/// The head of the final answer. Interim ones are for a client that nobody has here.
fn poll_head(side: &mut Side<'_>, answer: &mut ResponseHead, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
    loop {
        match side.poll_answer(cx, answer, super::exchange::ANSWER_HEAD_BYTES, super::exchange::ANSWER_FIELDS) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken::Reset { silent: false })),
            Poll::Ready(Ok(_)) if answer.status == 101 => {
                return Poll::Ready(Err(Broken::Protocol("a 101 that was not asked for")));
            }
            Poll::Ready(Ok(_)) if answer.status < 200 => side.begin_body(Length::None, u64::MAX),
            Poll::Ready(Ok(_)) => return Poll::Ready(Ok(())),
        }
    }
}

// === impl Hedged ===

impl Hedged {
    /// Holds it.
    pub fn new(lease: Lease) -> Self {
        Hedged(Some(lease))
    }

    /// The lease, for who sees the attempt to its end.
    pub fn into_lease(mut self) -> Lease {
        self.0.take().unwrap_or_else(|| unreachable!("only this and the drop take it"))
    }
}

impl Drop for Hedged {
    fn drop(&mut self) {
        if let Some(lease) = self.0.take() {
            overtaken(lease, clock::now());
        }
    }
}

// === impl Whole ===

impl Source for Whole<'_> {
    fn poll_body(&mut self, _: &mut Context<'_>) -> Poll<Result<usize, ReadError>> {
        Poll::Ready(Ok(self.0.len()))
    }

    fn poll_send_to(&self, cx: &mut Context<'_>, sink: &mut Side<'_>, len: usize) -> Poll<io::Result<usize>> {
        sink.poll_send(cx, &self.0[..len])
    }

    fn use_body(&mut self, n: usize) {
        self.0 = &self.0[n..];
    }
}

/// Gives back the lease of an attempt that the other of two was faster than.
pub fn overtaken(lease: Lease, now: Instant) {
    let head_after = Some(now.saturating_duration_since(lease.since));
    lease.finish(Report { outcome: Outcome::LocalRefusal, why: "overtaken", head_after, cooldown: None }, now);
}
