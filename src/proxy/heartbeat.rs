//! Signs of life for a client that waits in a queue for an event stream.
//!
//! Clients, and proxies before us, give up on an answer that does not begin. So the head of a stream goes out while its
//! request waits, and then a comment now and then, which every reader of event streams skips (WHATWG HTML §9.2.6). From then
//! on the status is said: a provider's stream goes on behind the comments, and whatever else comes is told as a last event.

use super::attempt::Lent;
use super::dispatch::Errand;
use super::forward::{self, Back};
use super::respond;
use crate::clock;
use crate::http1::fields::{Fields, elements};
use crate::http1::framing::Length;
use crate::http1::head::{HeadError, ResponseHead, Version};
use crate::instant::Instant;
use crate::upstream::pool::Pool;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

/// An answer whose head went out before any provider had answered.
#[derive(Debug, Clone, Copy)]
pub struct Opened {
    /// The client was told that its connection stays open.
    pub keep_alive: bool,
}

/// The pulse of one request that waits.
#[derive(Debug)]
pub struct Heartbeat<'a> {
    errand: &'a Errand<'a>,
    every: Duration,
    due: Instant,
}

// === impl Heartbeat ===

impl<'a> Heartbeat<'a> {
    /// For a request that waits from now on, where its pool has heartbeats and its client understands them.
    pub fn of(errand: &'a Errand<'a>, pool: &Pool, lent: &Lent<'_>) -> Option<Self> {
        let every = pool.config.queue.heartbeat?;
        let request = errand.request;
        let fields = &request.head.fields;
        let plain = matches!(request.method, "GET" | "POST")
            && request.head.version != Version::Http10
            && !request.upgrade
            // To one that has not sent its body yet, a final head would say that nobody wants it.
            && (!request.expects_continue || lent.continued)
            && !forward::is_grpc(fields)
            && fields.named(b"range").next().is_none();
        let fits = plain && fields.named(b"accept").flat_map(elements).any(is_event_stream);
        fits.then(|| Heartbeat { errand, every, due: clock::after(lent.now, every) })
    }

    /// Does what is due, and wakes up for what is next.
    ///
    /// # Errors
    /// The client takes nothing any more.
    pub fn poll(&mut self, lent: &mut Lent<'_>, cx: &mut Context<'_>) -> io::Result<()> {
        loop {
            let now = clock::now();
            if lent.timer.poll(cx, self.due, now).is_pending() {
                break;
            }
            self.beat(lent, cx)?;
            self.due = clock::after(now, self.every);
        }
        match lent.client.poll_flush(cx) {
            Poll::Ready(flushed) => flushed,
            Poll::Pending => Ok(()),
        }
    }

    fn beat(&self, lent: &mut Lent<'_>, cx: &mut Context<'_>) -> io::Result<()> {
        if lent.opened.is_none() {
            lent.opened = Some(self.open(lent));
        }
        match lent.client.poll_send_whole(cx, COMMENT) {
            Poll::Ready(sent) => sent,
            // Who has not taken the earlier ones needs no more of them.
            Poll::Pending => Ok(()),
        }
    }

    /// Writes the head of the stream.
    fn open(&self, lent: &mut Lent<'_>) -> Opened {
        let Errand { request, route, identity, .. } = *self.errand;
        let keep_alive = self.errand.keeps_alive(&lent.client);
        let mut head = ResponseHead::default();
        // It is one, so it can be read.
        let _: Result<(), HeadError> = head.parse(HEAD, HEAD.len());
        let back = Back {
            rewrite: &route.config.rewrite,
            identity,
            length: Length::Chunked,
            version: request.head.version,
            keep_alive,
            upgrade: false,
            degraded: None,
            trail: None,
            cached: None,
        };
        forward::answer_head(lent.client.out(), &head, &back);
        lent.client.send_head(respond::OPENED, false);
        lent.client.begin_answer(Length::Chunked, true);
        Opened { keep_alive }
    }
}

/// Whether the body of this answer can go on where comments were sent: its head is dropped, so nothing in it may be needed
/// to understand the body.
pub fn goes_on_with(answer: &ResponseHead) -> bool {
    let fields = &answer.fields;
    (200..300).contains(&answer.status)
        && fields.named(b"content-type").next().is_some_and(is_event_stream)
        && !is_encoded(fields)
}

fn is_encoded(fields: &Fields) -> bool {
    fields.named(b"content-encoding").flat_map(elements).any(|coding| !coding.eq_ignore_ascii_case(b"identity"))
}

/// Whether a media type, whatever its parameters, is that of event streams.
pub fn is_event_stream(media: &[u8]) -> bool {
    let kind = media.split(|byte| *byte == b';').next().unwrap_or_default();
    kind.trim_ascii().eq_ignore_ascii_case(EVENT_STREAM)
}

/// Says what every event stream's head says. More is not known yet.
const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-store\r\n\r\n";

const EVENT_STREAM: &[u8] = b"text/event-stream";

/// The empty line is for readers that take a stream apart by those.
const COMMENT: &[u8] = b": waiting\n\n";
