//! Waiting for a lease, or for a moment, without losing sight of the client.
//!
//! What has come of the request's body is read meanwhile, as far as it may be kept: that frees the client's connection, and
//! shows when it leaves. Of one whose body is longer, the kernel is asked to tell.

use super::Stop;
use super::attempt::Lent;
use super::dispatch::Errand;
use super::exchange::{Broken, earned};
use super::forward;
use super::frame::Request;
use super::heartbeat::Heartbeat;
use super::verdict;
use crate::clock;
use crate::instant::Instant;
use crate::net::io::HangUp;
use crate::net::wire::ReadError;
use crate::upstream::pool::{Lease, Refused, Waiting};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, ready};

/// A client that waits.
struct Watch<'a, 'side> {
    lent: &'a mut Lent<'side>,
    /// Its body may be read: it does not wait for a 100 first.
    reads: bool,
    heartbeat: Option<Heartbeat<'a>>,
    hang_up: Option<HangUp>,
}

/// Why a client's wait is over.
enum End {
    /// It left, or its body is broken.
    Stop(Stop),
    /// What it sends cannot be kept.
    NoMemory,
}

/// Waits for a place at a provider; the inner error is why there is none.
///
/// # Errors
/// The client left, or its body is broken.
pub async fn for_lease(
    mut place: Waiting,
    request: &Request<'_>,
    heartbeat: Option<Heartbeat<'_>>,
    lent: &mut Lent<'_>,
) -> Result<Result<Lease, Refused>, Stop> {
    let mut watch = Watch { reads: !request.expects_continue, heartbeat, lent, hang_up: None };
    let leased = poll_fn(|cx| match pin!(&mut place).poll(cx) {
        Poll::Ready(leased) => Poll::Ready(Ok(leased)),
        Poll::Pending => watch.poll(cx).map(Err),
    });
    let leased = leased.await;
    lent.now = clock::now();
    match leased {
        Ok(leased) => Ok(leased),
        Err(End::NoMemory) => Ok(Err(place.give_up())),
        Err(End::Stop(stop)) => Err(stop),
    }
}

/// Waits until the whole body of a request is kept, at most `until` then; false where that cannot be. Its client has to send it
/// as fast as any other ([`earned`]).
///
/// # Errors
/// The client left, or its body is broken or too slow.
pub async fn for_body(errand: &Errand<'_>, until: Option<Instant>, lent: &mut Lent<'_>) -> Result<bool, Stop> {
    let (request, limits) = (errand.request, &errand.listener.limits);
    if request.expects_continue && !lent.continued && lent.client.body_read() == 0 {
        forward::go_on(&mut lent.client, request.head.version);
        lent.continued = true;
    }
    let Lent { client, replay, timer, .. } = lent;
    let since = clock::now();
    let (mut read, mut moved) = (client.body_read(), since);
    let kept = poll_fn(|cx| {
        let kept = match client.poll_flush(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(ReadError::Io(error))),
            _ => replay.poll_read_ahead(client, cx),
        };
        if let Poll::Ready(kept) = kept {
            return Poll::Ready(kept.map_err(|error| stop(&error)));
        }
        let now = clock::now();
        if client.body_read() != read {
            (read, moved) = (client.body_read(), now);
        }
        let quiet = clock::after(moved, limits.idle_timeout);
        let slow = match limits.min_body_rate {
            0 => quiet,
            rate => quiet.min(clock::after(since, earned(read, rate))),
        };
        ready!(timer.poll(cx, until.map_or(slow, |until| until.min(slow)), now));
        let too_slow = slow <= clock::now();
        Poll::Ready(if too_slow { Err(verdict::refuse_broken(&Broken::ClientBodyTooSlow).into()) } else { Ok(false) })
    });
    let kept = kept.await;
    lent.now = clock::now();
    Ok(kept? && lent.client.body_is_done() && lent.replay.is_whole())
}

/// Waits for something else, as long as the client is there.
///
/// # Errors
/// The client left.
pub async fn watching<T>(what: impl Future<Output = T>, lent: &mut Lent<'_>) -> Result<T, Stop> {
    let mut watch = Watch { reads: false, heartbeat: None, lent, hang_up: None };
    let mut what = pin!(what);
    let waited = poll_fn(|cx| match what.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Ok(done)),
        Poll::Pending => watch.poll_gone(cx).map(|()| Err(Stop::Gone)),
    });
    let waited = waited.await;
    lent.now = clock::now();
    waited
}

// === impl Watch ===

impl Watch<'_, '_> {
    /// Ready when there is nothing left to wait for.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if let Some(heartbeat) = &mut self.heartbeat
            && heartbeat.poll(self.lent, cx).is_err()
        {
            return Poll::Ready(End::Stop(Stop::Gone));
        }
        if self.reads {
            match self.lent.replay.poll_read_ahead(&mut self.lent.client, cx) {
                Poll::Ready(Ok(true)) => self.reads = false,
                Poll::Ready(Ok(false)) => return Poll::Ready(End::NoMemory),
                Poll::Ready(Err(error)) => return Poll::Ready(End::Stop(stop(&error))),
                Poll::Pending => return Poll::Pending,
            }
        }
        self.poll_gone(cx).map(|()| End::Stop(Stop::Gone))
    }

    /// Ready when the client has left.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.lent.client.says_that_it_leaves() {
            return self.lent.client.poll_gone(cx);
        }
        if self.lent.client.is_watched() {
            let gone = self.lent.client.poll_gone(cx);
            // What it has read by now may be all that it reads.
            if gone.is_ready() || self.lent.client.is_watched() {
                return gone;
            }
        }
        if self.hang_up.is_none() {
            // Without it the client is seen to have left when its turn comes.
            self.hang_up = self.lent.client.socket().and_then(|socket| HangUp::of(socket).ok());
        }
        self.hang_up.as_ref().map_or(Poll::Pending, |hang_up| hang_up.poll(cx))
    }
}

fn stop(error: &ReadError) -> Stop {
    match error {
        ReadError::Ended | ReadError::Io(_) => Stop::Gone,
        ReadError::Framing(why) => verdict::refuse_broken(&Broken::ClientBody(why)).into(),
        ReadError::TooLarge => verdict::refuse_broken(&Broken::ClientBodyTooLarge).into(),
    }
}
