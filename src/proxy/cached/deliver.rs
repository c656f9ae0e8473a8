//! Giving a client what is kept, or what is brought for it and others.

use crate::cache::answer::Answer;
use crate::cache::body::Reader;
use crate::cache::store::Stored;
use crate::clock;
use crate::http1::encode;
use crate::http1::fields::{Fields, Known};
use crate::http1::framing::{self, Length};
use crate::http1::head::{ResponseHead, Version};
use crate::net::pump::{Flow, Pump, Source};
use crate::net::side::Side;
use crate::net::wire::ReadError;
use crate::policy::ladder::Kind;
use crate::proxy::Stop;
use crate::proxy::attempt::Lent;
use crate::proxy::dispatch::Errand;
use crate::proxy::exchange::Answered;
use crate::proxy::forward::{self, Back};
use crate::proxy::respond;
use bytes::Bytes;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

/// Where the body of an answer comes from.
#[derive(Debug)]
pub(super) enum Content {
    /// It is there, in pieces that are not empty.
    Pieces(VecDeque<Bytes>),
    /// It comes in.
    Coming(Reader),
}

/// What is said of an answer beside what is in it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Beside<'a> {
    /// `Cache-Status`.
    pub(super) cached: &'a str,
    /// A provider has just said it, or that it is good still.
    pub(super) fetched: bool,
    /// Fields that are for this client alone: none but the one that it was brought for is given them.
    pub(super) own: Option<&'a Fields>,
    /// Our own account of failed attempts.
    pub(super) trail: Option<&'a str>,
    /// The rung that answers, where one does.
    pub(super) degraded: Option<Kind>,
}

/// Gives what a kept reply comes to. `length` is that of its content, where that is known.
pub(super) async fn give(
    errand: &Errand<'_>,
    answer: &Answer<'_>,
    (length, content): (Option<u64>, Content),
    beside: &Beside<'_>,
    lent: &mut Lent<'_>,
) -> Result<Answered, Stop> {
    let (length, keep_alive) = write_head(errand, answer, length, beside, lent);
    send(errand, answer.status, (length, content), keep_alive, lent).await
}

/// Gives a kept reply at once, where that takes nothing to wait for: it is small, and all that is sent, or nothing of it is.
pub(super) fn give_at_once(
    errand: &Errand<'_>,
    answer: &Answer<'_>,
    stored: &Stored,
    beside: &Beside<'_>,
    lent: &mut Lent<'_>,
) -> Option<Answered> {
    if answer.plain_age().is_none() || stored.len > AT_ONCE {
        return None;
    }
    let (length, keep_alive) = write_head(errand, answer, Some(stored.len), beside, lent);
    let ends = matches!(length, Length::None | Length::Exact(0));
    lent.client.send_head(answer.status, ends);
    if !ends {
        lay(&mut lent.client, &stored.body);
    }
    Some(Answered { status: answer.status, reusable: None, keep_alive, head_at: None, skipped: None })
}

/// Writes the head. Says how the content ends, and whether the connection stays open.
fn write_head(
    errand: &Errand<'_>,
    answer: &Answer<'_>,
    length: Option<u64>,
    beside: &Beside<'_>,
    lent: &mut Lent<'_>,
) -> (Length, bool) {
    let to_head = errand.request.method == "HEAD";
    let bodiless = to_head || matches!(answer.status, 204 | 304);
    let (framed, keep_alive) = frame(errand, bodiless, length, &lent.client);
    let back = Back {
        rewrite: &errand.route.config.rewrite,
        identity: errand.identity,
        length: framed,
        version: errand.request.head.version,
        keep_alive,
        upgrade: false,
        degraded: beside.degraded,
        trail: beside.trail,
        cached: Some(beside.cached),
    };
    // An age says that nobody was asked (RFC 9111 §5.1).
    let says_age = |age: &u64| !(beside.fetched && *age == 0);
    if let (false, None, Some(age)) = (to_head, beside.own, answer.plain_age()) {
        lent.answer.status = answer.status;
        let fields = (answer.fields(), |name: &[u8]| answer.takes(name));
        forward::kept_head(lent.client.out(), answer.status, fields, Some(age).filter(says_age), &back);
        return (framed, keep_alive);
    }
    lent.answer.compose(answer.status, respond::phrase(answer.status));
    let fields = &mut lent.answer.fields;
    answer.each_field(|name, value| {
        if !(beside.fetched && name == b"age" && value == b"0") {
            fields.push(name, value);
        }
    });
    for (_, name, value) in beside.own.iter().flat_map(|own| own.iter()) {
        fields.push(name, value);
    }
    if let (true, Some(length)) = (to_head && !matches!(answer.status, 204 | 304), length) {
        fields.push(b"content-length", itoa::Buffer::new().format(length).as_bytes());
    }
    forward::answer_head(lent.client.out(), lent.answer, &back);
    (framed, keep_alive)
}

/// Passes an answer on whose head was written for the client already, but for how it ends.
pub(super) async fn pass_on(
    errand: &Errand<'_>,
    head: ResponseHead,
    content: Content,
    cached: &str,
    lent: &mut Lent<'_>,
) -> Result<Answered, Stop> {
    let version = errand.request.head.version;
    let length = match framing::response(head.status, false, &head.fields, Version::Http11) {
        Ok(Length::Exact(length)) => Some(length),
        _ => None,
    };
    let to_head = errand.request.method == "HEAD";
    let bodiless = to_head || matches!(head.status, 204 | 304);
    let (length, keep_alive) = frame(errand, bodiless, length, &lent.client);
    let out = lent.client.out();
    forward::status_line(out, version, head.status, head.reason());
    for (known, name, value) in head.fields.iter() {
        let frames = known == Known::ContentLength && !to_head;
        if !frames && !matches!(known, Known::TransferEncoding | Known::Connection) {
            encode::field(out, name, value);
        }
    }
    encode::field(out, b"cache-status", cached.as_bytes());
    forward::connection_field(out, version, keep_alive);
    forward::length_field(out, length, version);
    forward::end_head(out, version);
    let status = head.status;
    *lent.answer = head;
    send(errand, status, (length, content), keep_alive, lent).await
}

/// How the content ends for this client, and whether its connection stays open.
fn frame(errand: &Errand<'_>, bodiless: bool, length: Option<u64>, client: &Side<'_>) -> (Length, bool) {
    let length = match (length, errand.request.head.version) {
        _ if bodiless => Length::None,
        (Some(length), _) => Length::Exact(length),
        (None, Version::Http10) => Length::Close,
        (None, _) => Length::Chunked,
    };
    (length, errand.keeps_alive(client) && length != Length::Close)
}

/// Sends the head, which is written, and the content.
async fn send(
    errand: &Errand<'_>,
    status: u16,
    (length, mut content): (Length, Content),
    keep_alive: bool,
    lent: &mut Lent<'_>,
) -> Result<Answered, Stop> {
    let answered = Answered { status, reusable: None, keep_alive, head_at: None, skipped: None };
    let ends = matches!(length, Length::None | Length::Exact(0));
    lent.client.send_head(status, ends);
    if ends {
        return Ok(answered);
    }
    if let Content::Pieces(pieces) = &mut content
        && matches!(length, Length::Exact(length) if length <= AT_ONCE)
    {
        lay(&mut lent.client, pieces.make_contiguous());
        return Ok(answered);
    }
    lent.client.begin_answer(length, false);
    let Lent { client, timer, now: moved, .. } = lent;
    let idle = errand.listener.limits.idle_timeout;
    let mut pump = Pump::default();
    *moved = clock::now();
    poll_fn(|cx| {
        let awaits_client = match pump.run(&mut content, client, &|_| false, cx) {
            Flow::Done => return Poll::Ready(Ok(())),
            Flow::SinkFailed(_) => return Poll::Ready(Err(Stop::Gone)),
            // That others need not wait for it comes first: it ends for this client alone.
            Flow::SourceFailed(_) | Flow::AwaitSink if content.poll_left_behind(cx).is_ready() => {
                return Poll::Ready(Err(Stop::TooSlow));
            }
            Flow::SourceFailed(_) => return Poll::Ready(Err(Stop::Cut)),
            Flow::AwaitSource => false,
            Flow::AwaitSink => true,
        };
        if client.poll_gone(cx).is_ready() {
            return Poll::Ready(Err(Stop::Gone));
        }
        let now = clock::now();
        // Of a body that does not come, whoever brings it sees to the end.
        if pump.progressed() || !awaits_client {
            *moved = now;
        }
        let deadline = clock::after(*moved, idle);
        if deadline <= now {
            return Poll::Ready(Err(Stop::Gone));
        }
        if timer.poll(cx, deadline, now).is_ready() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await?;
    Ok(answered)
}

/// Lays a small body behind its head.
fn lay(client: &mut Side<'_>, pieces: &[Bytes]) {
    match pieces {
        [piece] => client.lay_body(piece),
        _ => client.lay_body(&pieces.concat()),
    }
}

// === impl Content ===

impl Content {
    /// What is there.
    pub(super) fn pieces(pieces: Vec<Bytes>) -> Self {
        Content::Pieces(pieces.into_iter().filter(|piece| !piece.is_empty()).collect())
    }

    /// Ready once others who read the same go on without this client.
    fn poll_left_behind(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Content::Pieces(_) => Poll::Pending,
            Content::Coming(reader) => reader.poll_left_behind(cx),
        }
    }
}

impl Source for Content {
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, ReadError>> {
        match self {
            Content::Pieces(pieces) => Poll::Ready(Ok(pieces.front().map_or(0, Bytes::len))),
            Content::Coming(reader) => reader.poll_bytes(cx).map_ok(<[u8]>::len).map_err(|_| ReadError::Ended),
        }
    }

    fn poll_send_to(&self, cx: &mut Context<'_>, sink: &mut Side<'_>, len: usize) -> Poll<io::Result<usize>> {
        let bytes = match self {
            Content::Pieces(pieces) => pieces.front().cloned().unwrap_or_default(),
            Content::Coming(reader) => reader.bytes(),
        };
        sink.poll_send_shared(cx, &bytes.slice(..len))
    }

    fn use_body(&mut self, n: usize) {
        match self {
            Content::Coming(reader) => reader.advance(n),
            Content::Pieces(pieces) => {
                if let Some(piece) = pieces.front_mut() {
                    let _: Bytes = piece.split_to(n);
                    if piece.is_empty() {
                        pieces.pop_front();
                    }
                }
            }
        }
    }
}

/// Bytes of a body that goes out in one write with its head.
const AT_ONCE: u64 = 16 * 1024;
