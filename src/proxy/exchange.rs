//! One exchange between two sides: the request goes up while the answer comes down, in one task.
//!
//! Each poll moves what can be moved both ways, looks whether the client is still there, and then asks one timer. Nothing is
//! decided here that a caller could decide: an exchange ends with what happened, and whose doing it was.

use super::DRAIN_BYTES;
use super::forward::{self, Back};
use super::frame::Request;
use super::heartbeat::{self, Opened};
use super::identity::Identity;
use super::replay::{Replay, Upload};
use super::{respond, verdict};
use crate::clock;
use crate::config::{Commit, HeaderRules, Rewrite};
use crate::http1::fields::{CONNECTION_OPTIONS, Known, elements};
use crate::http1::framing::{self, Length};
use crate::http1::head::{HeadError, ResponseHead, Version};
use crate::http2::heads;
use crate::instant::Instant;
use crate::net::pump::{Flow, Pump};
use crate::net::side::Side;
use crate::net::timer::Timer;
use crate::net::wire::{HeadReadError, ReadError};
use crate::policy::ladder::Kind;
use crate::policy::retry::Skip;
use crate::upstream::pool::Probe;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

/// What an exchange has to keep to.
#[derive(Clone, Copy)]
pub struct Terms<'a> {
    /// The request.
    pub request: &'a Request<'a>,
    /// What it is called.
    pub identity: &'a Identity,
    /// The route's changes.
    pub rewrite: &'a Rewrite,
    /// What the provider is called.
    pub provider: &'a str,
    /// The provider's changes.
    pub headers: &'a HeaderRules,
    /// Turns true when the client's connection may not stay open after the answer, whatever the client wants.
    pub closing: &'a AtomicBool,
    /// When the route's `timeout` is over, if the client kept nobody waiting.
    pub deadline: Instant,
    /// From the beginning of this attempt to then is as long as an attempt can ever have.
    pub full: bool,
    /// When this attempt's time is over, if its request was sent at once: a long upload has only the route's.
    pub attempt_deadline: Instant,
    /// The rung that answers, where that is not the route's own pool.
    pub degraded: Option<Kind>,
    /// What attempts before this one came to.
    pub trail: &'a str,
    /// Who sees the final head before anybody is told of it, where a cache was asked.
    pub seen: Option<&'a dyn Seen>,
    /// Whether an answer of this status is withheld, because another is to be had: by the next attempt, or with why there is
    /// none by the route's ladder. Is told whether the request is still whole, and how long its client has been awaited in
    /// this exchange.
    pub elsewhere: &'a (dyn Fn(u16, bool, Duration) -> Result<Option<Skip>, Skip> + Sync),
    /// How small answers are held until they are whole.
    pub commit: Commit,
    /// Turns true when the answer is committed, where somebody else looks at that.
    pub committed: Option<&'a AtomicBool>,
    /// The client has the head of an event stream already.
    pub opened: Option<Opened>,
    /// For the whole of a committed answer.
    pub stream_timeout: Option<Duration>,
    /// From the request sent to the answer's head.
    pub first_byte: Duration,
    /// Without any movement between us and the provider.
    pub provider_idle: Duration,
    /// Without the client taking anything.
    pub client_idle: Duration,
    /// Bytes a second that the request body has to come at; 0 is off.
    pub min_body_rate: u64,
}

/// What a cache that was asked first has to do with the answer.
pub trait Seen: std::fmt::Debug + Send + Sync {
    /// Sees the final head at the last moment before it goes out. `trail` is our own account of failed attempts, if there
    /// were any, and `degraded` the rung that answers, where that is not the route's own pool. Gives what `Cache-Status` says.
    fn see(&self, head: &ResponseHead, trail: Option<&str>, degraded: Option<Kind>) -> Option<String>;

    /// What is kept for the request and could answer it where nobody else does.
    fn spare(&self, _: Instant) -> Option<Spare> {
        None
    }
}

/// What is kept for a request that a provider is asked to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spare {
    /// How long ago it expired.
    pub expired_for: Duration,
    /// It may be given in place of an error without a rung that says so (`stale-if-error`).
    pub may_replace_errors: bool,
}

/// How an exchange came to its end.
#[derive(Debug)]
pub enum Ended {
    /// The client has its answer.
    Answered(Answered),
    /// The client has nothing of it: another provider is to be asked, or it is nothing that the client could still be given.
    /// The answer's head is where it was parsed to.
    Withheld(Withheld),
}

/// An answer that the client did not get.
#[derive(Debug)]
pub struct Withheld {
    /// Its body, where it was small and came at once.
    pub body: Option<Vec<u8>>,
    /// Why no other attempt is to follow it; `None` where one is.
    pub skipped: Option<Skip>,
    /// How long the provider's connection may be kept; `None` where it must not be used again.
    pub reusable: Option<KeepFor>,
}

/// An answer that the client got.
#[derive(Debug)]
pub struct Answered {
    /// The status that the client was told.
    pub status: u16,
    /// How long the provider's connection may be kept; `None` where it must not be used again.
    pub reusable: Option<KeepFor>,
    /// The client was told that its connection stays open.
    pub keep_alive: bool,
    /// When the head came, where the rest took longer.
    pub head_at: Option<Instant>,
    /// Why nobody else was asked, if the answer is a failure.
    pub skipped: Option<Skip>,
}

/// What the provider says of keeping its connection.
#[derive(Debug, Clone, Copy)]
pub struct KeepFor(pub Option<Duration>);

/// Why an exchange did not come to its end.
#[derive(Debug)]
pub enum Broken {
    /// The client left.
    ClientGone,
    /// The client's body is broken; says how.
    ClientBody(&'static str),
    /// The client's body is larger than allowed.
    ClientBodyTooLarge,
    /// The client's body came too slowly.
    ClientBodyTooSlow,
    /// The route's `timeout` was over before an answer came.
    Deadline {
        /// The attempt had as much of it as any can have.
        full: bool,
    },
    /// The attempt's own time was over before an answer came.
    Attempt,
    /// A committed answer took longer than `stream_timeout`.
    StreamTimeout,
    /// The provider broke the connection. `silent`: not one byte of an answer had come.
    Reset {
        /// Nothing came before.
        silent: bool,
    },
    /// The provider says that it did nothing with the request: sending it again is safe, whatever it is.
    Refused,
    /// The provider speaks HTTP/2 and cannot be asked to leave it.
    NoUpgrade,
    /// The request has no form in the version that the provider speaks.
    Unsayable,
    /// The provider does not speak HTTP as we accept it; says where.
    Protocol(&'static str),
    /// The provider sent no head within `first_byte`.
    FirstByte,
    /// Nothing moved for the provider's `idle`.
    Idle,
}

/// One exchange in progress.
#[derive(Debug)]
pub struct Exchange<'a> {
    client: Side<'a>,
    replay: &'a mut Replay,
    provider: Side<'a>,
    answer: &'a mut ResponseHead,
    terms: &'a Terms<'a>,
    up: Up,
    up_pump: Pump,
    down_pump: Pump,
    phase: Phase,
    began: Instant,
    /// It was only just begun: it is as late as it was then.
    is_new: bool,
    interims: u32,
    /// Bytes of all their heads.
    interim_bytes: usize,
    /// A 100 was passed on, in this exchange or before: the client sends its body.
    pub continued: bool,
    /// The provider of a tunnel was told that the client sends no more.
    half_closed: bool,
    times: Times,
    /// The body of an answer that is withheld.
    withheld: Vec<u8>,
    skipped: Option<Skip>,
    keep_alive: bool,
    /// Where a circuit waits for what the answer's head says of its provider.
    pub probe: Option<&'a mut Option<Probe>>,
    /// Set once the head of the final answer was written towards the client: there is no way back.
    pub committed: bool,
}

/// Where the request's body stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Up {
    /// Waiting for the client.
    AwaitClient,
    /// Waiting for the provider to take it.
    AwaitProvider,
    /// All of it is sent.
    Sent,
    /// The provider takes no more of it; its answer may still come.
    Refused,
}

/// Where the answer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The head of the final answer has not come.
    Head,
    /// It has, and nobody has looked at it.
    Scouted,
    /// It has, and goes out once the whole body is there, or its time is over.
    Hold { len: usize, until: Instant },
    /// It has, and the client will get another; this one's body is kept while it is small and comes soon.
    Withhold { until: Instant },
    /// The body comes. `on_client`: the client is who we wait for.
    Body { on_client: bool },
    /// HTTP is over: bytes pass both ways.
    Tunnel,
}

/// What the deadlines are counted from.
#[derive(Debug)]
struct Times {
    /// When something last moved between us and the provider, or to the client.
    moved: Instant,
    /// When the whole request was sent, or no more of it was taken.
    sent: Option<Instant>,
    /// When the answer was committed.
    committed: Option<Instant>,
    /// Since when the client's body is awaited.
    awaiting_client: Option<Instant>,
    /// How long it was awaited before.
    awaited: Duration,
    /// When to look next whether the client is there, while nothing is read from it.
    look: Instant,
}

// === impl Terms ===

impl Terms<'_> {
    /// When all time is over, whatever the provider may have had beside it.
    pub fn end(&self) -> Instant {
        self.deadline.min(self.attempt_deadline)
    }

    /// What it means that it is.
    pub fn over(&self) -> Broken {
        if self.attempt_deadline < self.deadline { Broken::Attempt } else { Broken::Deadline { full: self.full } }
    }
}

impl std::fmt::Debug for Terms<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Terms")
            .field("request", &self.request)
            .field("provider", &self.provider)
            .finish_non_exhaustive()
    }
}

// === impl Exchange ===

impl<'a> Exchange<'a> {
    /// An exchange whose request head waits in the provider's wire, to be sent with the first poll.
    pub fn new(
        client: Side<'a>,
        replay: &'a mut Replay,
        provider: Side<'a>,
        answer: &'a mut ResponseHead,
        terms: &'a Terms<'a>,
        now: Instant,
    ) -> Self {
        replay.rewind();
        Exchange {
            client,
            replay,
            provider,
            answer,
            up: Up::AwaitProvider,
            up_pump: Pump::default(),
            down_pump: Pump::default(),
            phase: Phase::Head,
            began: now,
            is_new: true,
            interims: 0,
            interim_bytes: 0,
            continued: false,
            half_closed: false,
            times: Times {
                moved: now,
                sent: None,
                committed: None,
                awaiting_client: None,
                awaited: Duration::ZERO,
                look: clock::after(now, LOOK_EVERY),
            },
            withheld: Vec::new(),
            skipped: None,
            keep_alive: false,
            probe: None,
            committed: false,
            terms,
        }
    }

    /// The request is sent already, and the head of the final answer is where it is parsed to.
    pub fn go_on(&mut self) {
        self.up = Up::Sent;
        self.phase = Phase::Scouted;
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// See [`Broken`].
    pub async fn run(&mut self, timer: &mut Timer) -> Result<Ended, Broken> {
        poll_fn(|cx| self.poll(timer, cx)).await
    }

    fn poll(&mut self, timer: &mut Timer, cx: &mut Context<'_>) -> Poll<Result<Ended, Broken>> {
        self.move_request(cx)?;
        if self.move_answer(cx)? {
            return Poll::Ready(Ok(self.ended()));
        }
        self.watch_client(cx)?;
        self.watch_time(timer, cx)
    }

    /// Sends what there is of the request.
    fn move_request(&mut self, cx: &mut Context<'_>) -> Result<(), Broken> {
        if matches!(self.up, Up::Sent | Up::Refused) {
            self.pass_half_close(cx);
            return Ok(());
        }
        if matches!(self.phase, Phase::Withhold { .. }) {
            // What the client still has is for the provider that is asked next: more than can be kept would be lost.
            return Ok(());
        }
        let Terms { request, rewrite, headers, .. } = *self.terms;
        // Many servers lay trailers over fields: what may not come in a head may not come behind it.
        let withheld = |name: &[u8]| forward::is_changed(name, &request.head.fields, [&rewrite.headers, headers]);
        let mut upload = Upload::new(&mut self.client, self.replay);
        self.up = match self.up_pump.run(&mut upload, &mut self.provider, &withheld, cx) {
            Flow::Done => Up::Sent,
            Flow::AwaitSource => Up::AwaitClient,
            Flow::AwaitSink => Up::AwaitProvider,
            // It may have answered before it hung up: reading will tell.
            Flow::SinkFailed(_) => Up::Refused,
            Flow::SourceFailed(ReadError::Framing(why)) => return Err(Broken::ClientBody(why)),
            Flow::SourceFailed(ReadError::TooLarge) => return Err(Broken::ClientBodyTooLarge),
            Flow::SourceFailed(ReadError::Ended | ReadError::Io(_)) => return Err(Broken::ClientGone),
        };
        if self.up == Up::Sent {
            // While the provider thinks, a large request holds no more than its head.
            self.client.shrink();
            self.provider.shrink();
        }
        self.pass_half_close(cx);
        Ok(())
    }

    /// Where the client has ended its direction of a tunnel, passes that on; TLS may need more than one poll for it. Whether
    /// the provider still listens shows when reading.
    fn pass_half_close(&mut self, cx: &mut Context<'_>) {
        if self.up == Up::Sent && self.phase == Phase::Tunnel && !self.half_closed {
            self.half_closed = self.provider.poll_half_close(cx).is_ready();
        }
    }

    /// Brings what there is of the answer; whether it is complete.
    fn move_answer(&mut self, cx: &mut Context<'_>) -> Result<bool, Broken> {
        if self.phase == Phase::Head && !self.await_head(cx)? {
            return Ok(false);
        }
        if self.phase == Phase::Scouted {
            self.judge(cx)?;
        }
        match self.phase {
            Phase::Withhold { until } => return self.gather(until, cx),
            Phase::Hold { len, until } => {
                if !self.is_whole(len, cx)? && clock::now() < until {
                    return Ok(false);
                }
                self.commit(Length::Exact(len as u64));
            }
            Phase::Head | Phase::Scouted | Phase::Body { .. } | Phase::Tunnel => {}
        }
        let (rewrite, fields) = (self.terms.rewrite, &self.answer.fields);
        let withheld = |name: &[u8]| forward::is_changed(name, fields, [&rewrite.response_headers]);
        match self.down_pump.run(&mut self.provider, &mut self.client, &withheld, cx) {
            Flow::Done => return Ok(true),
            Flow::AwaitSource => self.on_client(false),
            Flow::AwaitSink => self.on_client(true),
            Flow::SinkFailed(_) => return Err(Broken::ClientGone),
            Flow::SourceFailed(ReadError::Framing(why)) => return Err(Broken::Protocol(why)),
            Flow::SourceFailed(_) if self.phase == Phase::Tunnel => return Ok(true),
            Flow::SourceFailed(_) => return Err(Broken::Reset { silent: false }),
        }
        if self.phase == Phase::Tunnel {
            // The 101 may have let the client's first bytes pass.
            self.move_request(cx)?;
        }
        Ok(false)
    }

    fn on_client(&mut self, on_client: bool) {
        if self.phase != Phase::Tunnel {
            self.phase = Phase::Body { on_client };
        }
    }

    /// Whether the whole answer is there.
    fn is_whole(&mut self, len: usize, cx: &mut Context<'_>) -> Result<bool, Broken> {
        match self.provider.poll_whole(cx, len) {
            Poll::Ready(Ok(())) => Ok(true),
            Poll::Ready(Err(ReadError::Framing(why))) => Err(Broken::Protocol(why)),
            Poll::Ready(Err(_)) => Err(Broken::Reset { silent: false }),
            Poll::Pending => Ok(false),
        }
    }

    /// Keeps the body of an answer that the client may yet get, should nobody give a better one; whether that is over.
    fn gather(&mut self, until: Instant, cx: &mut Context<'_>) -> Result<bool, Broken> {
        loop {
            match self.provider.poll_body(cx) {
                Poll::Ready(Ok(0)) => return Ok(true),
                Poll::Ready(Ok(n)) if self.withheld.len() + n <= WITHHELD_BYTES => {
                    self.withheld.extend_from_slice(self.provider.body(n));
                    self.provider.use_body(n);
                }
                // What is too long, breaks or does not come is lost.
                Poll::Ready(_) => return Ok(true),
                Poll::Pending => return Ok(until <= clock::now()),
            }
        }
    }

    /// Reads heads until the final one was judged; whether it was.
    fn await_head(&mut self, cx: &mut Context<'_>) -> Result<bool, Broken> {
        loop {
            let len = match self.provider.poll_answer(cx, self.answer, ANSWER_HEAD_BYTES, ANSWER_FIELDS) {
                Poll::Ready(Ok(len)) => len,
                Poll::Ready(Err(error)) => return Err(self.no_head(&error)),
                Poll::Pending => return self.flush_interims(cx),
            };
            if self.answer.fields.lists_more_than(Known::Connection, CONNECTION_OPTIONS) {
                return Err(Broken::Protocol("the answer's Connection has too many options"));
            }
            match self.answer.status {
                101 => {
                    self.commit_tunnel()?;
                    return Ok(true);
                }
                100..=199 => self.pass_interim(len)?,
                _ => {
                    self.judge(cx)?;
                    return Ok(true);
                }
            }
        }
    }

    fn no_head(&self, error: &HeadReadError) -> Broken {
        let before = self.interims > 0;
        match error {
            HeadReadError::Ended { partial } => Broken::Reset { silent: !partial && !before },
            HeadReadError::Io(_) => Broken::Reset { silent: !self.provider.has_unread() && !before },
            HeadReadError::Refused => Broken::Refused,
            HeadReadError::TooLong => Broken::Protocol("the answer's head is too long"),
            HeadReadError::Malformed(HeadError::TooManyFields) => Broken::Protocol("the answer has too many fields"),
            HeadReadError::Malformed(HeadError::Malformed(why)) => Broken::Protocol(why),
        }
    }

    /// Passes a 1xx on. HTTP/1.0 does not know them.
    fn pass_interim(&mut self, len: usize) -> Result<(), Broken> {
        self.interims += 1;
        self.continued |= self.answer.status == 100;
        self.interim_bytes += len;
        if self.interims > INTERIM_ANSWERS || self.interim_bytes > INTERIM_BYTES {
            return Err(Broken::Protocol("too many interim answers"));
        }
        framing::response(self.answer.status, false, &self.answer.fields, self.answer.version)
            .map_err(Broken::Protocol)?;
        self.provider.begin_body(Length::None, u64::MAX);
        let version = self.terms.request.head.version;
        if version != Version::Http10 && self.terms.opened.is_none() {
            forward::interim_head(self.client.out(), self.answer, version, self.terms.rewrite);
            self.client.send_interim(self.answer.status);
        }
        Ok(())
    }

    fn flush_interims(&mut self, cx: &mut Context<'_>) -> Result<bool, Broken> {
        match self.client.poll_flush(cx) {
            Poll::Ready(Err(_)) => Err(Broken::ClientGone),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(false),
        }
    }

    /// The final head is there: it is withheld, held for a moment, or committed.
    fn judge(&mut self, cx: &mut Context<'_>) -> Result<(), Broken> {
        let length = self.answer_length()?;
        self.provider.begin_body(length, u64::MAX);
        self.provider.refuse_surplus(length).map_err(Broken::Protocol)?;
        if self.answer.status >= 400 {
            let now = clock::now();
            match (self.terms.elsewhere)(self.answer.status, self.replay.is_whole(), self.awaited(now)) {
                Ok(skipped) => {
                    self.skipped = skipped;
                    self.phase = Phase::Withhold { until: clock::after(now, self.terms.commit.within) };
                    return Ok(());
                }
                Err(skip) => self.skipped = Some(skip),
            }
        }
        if self.terms.opened.is_some() && !heartbeat::goes_on_with(self.answer) {
            self.skipped = self.skipped.or(Some(Skip::NotRetryable));
            self.phase = Phase::Withhold { until: clock::after(clock::now(), self.terms.commit.within) };
            return Ok(());
        }
        match length {
            Length::Exact(bytes) if bytes > 0 && bytes <= self.terms.commit.bytes as u64 => {
                let len = bytes as usize;
                // Mostly it came with its head.
                if self.is_whole(len, cx)? {
                    self.commit(length);
                } else {
                    self.phase = Phase::Hold { len, until: clock::after(clock::now(), self.terms.commit.within) };
                }
            }
            _ => self.commit(length),
        }
        Ok(())
    }

    /// Writes the final head of an answer whose body is this long towards the client.
    fn commit(&mut self, length: Length) {
        if let Some(opened) = self.terms.opened {
            // The head is there; the body goes on behind the comments.
            self.keep_alive = opened.keep_alive && !self.terms.closing.load(Ordering::Relaxed);
            self.note_committed();
            self.phase = Phase::Body { on_client: false };
            return;
        }
        let request = self.terms.request;
        let onward = match (length, request.head.version) {
            (Length::Chunked, Version::Http10) => Length::Close,
            (Length::Close, Version::Http11 | Version::Http2) => Length::Chunked,
            (length, _) => length,
        };
        // A client that still waits for its 100 may send its body or may not: nobody could tell what comes next.
        let waits = request.expects_continue && !self.continued && self.client.body_read() == 0;
        // More than is worth reading only to drop it, should the answer end before it does.
        let long = self.client.body_remaining().is_some_and(|bytes| bytes > DRAIN_BYTES);
        // A listener that goes may have begun to while the provider was asked.
        let wanted = request.keep_alive && !self.terms.closing.load(Ordering::Relaxed);
        self.keep_alive = wanted && onward != Length::Close && !waits && !long;
        self.write_head(onward, false);
        self.client.begin_answer(onward, self.provider.may_trail());
        self.phase = Phase::Body { on_client: false };
    }

    /// How the body of the final answer ends.
    fn answer_length(&self) -> Result<Length, Broken> {
        let ResponseHead { status, fields, version, ends, .. } = &*self.answer;
        let to_head = self.terms.request.method == "HEAD";
        let length = framing::response(*status, to_head, fields, *version).map_err(Broken::Protocol)?;
        Ok(if *ends && length == Length::Close { Length::Exact(0) } else { length })
    }

    /// Ends HTTP on both wires, if that was asked for.
    fn commit_tunnel(&mut self) -> Result<(), Broken> {
        if !self.terms.request.upgrade || !self.switches_as_asked() {
            return Err(Broken::Protocol("a 101 that was not asked for"));
        }
        if self.up != Up::Sent {
            return Err(Broken::Protocol("a 101 before the end of the request"));
        }
        framing::response(101, false, &self.answer.fields, self.answer.version).map_err(Broken::Protocol)?;
        if matches!(self.client, Side::Http2(_)) && !self.accepts_key() {
            return Err(Broken::Protocol("a 101 that does not answer the key of the WebSocket"));
        }
        self.provider.begin_body(Length::None, u64::MAX);
        self.keep_alive = false;
        self.write_head(Length::None, true);
        self.provider.become_tunnel();
        self.client.become_tunnel();
        self.up = Up::AwaitClient;
        self.up_pump = Pump::default();
        self.phase = Phase::Tunnel;
        Ok(())
    }

    /// Whether the 101 names the one protocol it switches to, and the client offered that one (RFC 9110 §7.8). Otherwise a
    /// provider could be talked into HTTP/2, in which we would see none of the requests.
    fn switches_as_asked(&self) -> bool {
        let mut named = self.answer.fields.values(Known::Upgrade).flat_map(elements);
        let asked = &self.terms.request.head.fields;
        matches!((named.next(), named.next()), (Some(one), None) if asked.lists(Known::Upgrade, one))
    }

    /// Whether a WebSocket's opening handshake was understood. A client in HTTP/1 checks that itself (RFC 6455 §4.1); one in
    /// HTTP/2 sees nothing of it.
    fn accepts_key(&self) -> bool {
        let key = self.terms.request.head.fields.named(b"sec-websocket-key").next().unwrap_or(b"");
        let accepted = self.answer.fields.named(b"sec-websocket-accept").next();
        accepted.is_some_and(|accept| accept == heads::websocket_accept(key).as_bytes())
    }

    /// Our account of the attempts, where one of them failed (RFC 9209 §2.1).
    fn trail(&self) -> Option<String> {
        let status = self.answer.status;
        if status < 500 && status != 429 && self.terms.trail.is_empty() {
            return None;
        }
        let took = clock::now().saturating_duration_since(self.began).as_millis();
        let not_retried = self.skipped.and_then(verdict::not_retried);
        Some(respond::trail(self.terms.trail, self.terms.provider, status, took, not_retried))
    }

    fn write_head(&mut self, length: Length, upgrade: bool) {
        let trail = self.trail();
        let cached = self.terms.seen.and_then(|seen| seen.see(self.answer, trail.as_deref(), self.terms.degraded));
        let back = Back {
            rewrite: self.terms.rewrite,
            identity: self.terms.identity,
            length,
            version: self.terms.request.head.version,
            keep_alive: self.keep_alive,
            upgrade,
            degraded: self.terms.degraded,
            trail: trail.as_deref(),
            cached: cached.as_deref(),
        };
        forward::answer_head(self.client.out(), self.answer, &back);
        self.client.send_head(self.answer.status, !upgrade && matches!(length, Length::None | Length::Exact(0)));
        self.note_committed();
    }

    fn note_committed(&mut self) {
        self.committed = true;
        if let Some(committed) = self.terms.committed {
            committed.store(true, Ordering::Relaxed);
        }
    }

    /// A client whose request is complete and that closes, or half-closes, is gone. One whose request is not complete shows
    /// it when its body is read; in HTTP/2 it says so at any time.
    fn watch_client(&mut self, cx: &mut Context<'_>) -> Result<(), Broken> {
        let complete = self.up == Up::Sent && self.phase != Phase::Tunnel;
        if (complete || self.client.says_that_it_leaves()) && self.client.poll_gone(cx).is_ready() {
            Err(Broken::ClientGone)
        } else {
            Ok(())
        }
    }

    /// Whether a deadline has passed; wakes up for the next one.
    fn watch_time(&mut self, timer: &mut Timer, cx: &mut Context<'_>) -> Poll<Result<Ended, Broken>> {
        let now = if std::mem::take(&mut self.is_new) { self.began } else { clock::now() };
        self.note_time(now);
        let (deadline, missed) = self.next_deadline(now);
        if deadline <= now {
            return Poll::Ready(Err(missed));
        }
        let deadline = match self.phase {
            Phase::Hold { until, .. } | Phase::Withhold { until } => deadline.min(until),
            _ => deadline,
        };
        let wake = if self.reads_client() { deadline } else { deadline.min(self.look_for_client(now)?) };
        if timer.poll(cx, wake, now).is_ready() {
            // Only just now, and perhaps not the deadline: ask again, with the time it is.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Whether reading from the client shows that it leaves.
    fn reads_client(&self) -> bool {
        if self.client.says_that_it_leaves() {
            return true;
        }
        match self.up {
            Up::AwaitClient => true,
            Up::Sent => self.client.is_watched(),
            Up::AwaitProvider | Up::Refused => self.phase == Phase::Tunnel,
        }
    }

    /// Looks now and then whether a client is there whose bytes nobody takes; gives when to look again.
    fn look_for_client(&mut self, now: Instant) -> Result<Instant, Broken> {
        if self.times.look <= now {
            if self.client.has_hung_up() {
                return Err(Broken::ClientGone);
            }
            self.times.look = clock::after(now, LOOK_EVERY);
        }
        Ok(self.times.look)
    }

    fn note_time(&mut self, now: Instant) {
        let (up, down) = (self.up_pump.progressed(), self.down_pump.progressed());
        let commits = self.committed && self.times.committed.is_none();
        if commits {
            self.times.committed = Some(now);
            self.tell_probe(now);
        }
        if up || down || commits {
            self.times.moved = now;
        }
        if self.times.sent.is_none() && matches!(self.up, Up::Sent | Up::Refused) {
            self.times.sent = Some(now);
        }
        match (self.awaits_client(), self.times.awaiting_client) {
            (true, None) => self.times.awaiting_client = Some(now),
            (false, Some(since)) => {
                self.times.awaited += now.saturating_duration_since(since);
                self.times.awaiting_client = None;
                // Only now is it the provider's turn.
                self.times.moved = now;
            }
            _ => {}
        }
    }

    /// The answer may go on for hours, and its head says already whether the provider is back.
    fn tell_probe(&mut self, now: Instant) {
        let Some(lent) = self.probe.as_deref_mut() else { return };
        if let Some(probe) = lent.take() {
            let took = now.saturating_duration_since(probe.since);
            let report = verdict::by_answer(self.answer, took, &probe.provider().config.circuit_breaker);
            *lent = probe.report(&report, now);
        }
    }

    /// How long the client kept everyone waiting for its body, up to `now`.
    pub fn awaited(&self, now: Instant) -> Duration {
        let lately = self.times.awaiting_client.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.times.awaited + lately
    }

    /// Whether the client keeps everyone waiting for its body. Not while it waits itself, for the provider's 100.
    fn awaits_client(&self) -> bool {
        let asks = self.terms.request.expects_continue && !self.continued && self.client.body_read() == 0;
        self.up == Up::AwaitClient && !asks
    }

    /// The deadline that comes first, and what it means.
    fn next_deadline(&self, now: Instant) -> (Instant, Broken) {
        let moved = self.times.moved;
        let (at, missed) = match (self.phase, self.up) {
            (Phase::Head, Up::AwaitClient) if self.awaits_client() => return self.body_deadline(now),
            // It need not wait for a 100 for ever (RFC 9110 §10.1.1), and many providers send none before they have the body.
            (Phase::Head, Up::AwaitClient) => (clock::after(moved, self.terms.first_byte), Broken::ClientBodyTooSlow),
            (Phase::Head, Up::AwaitProvider) => (clock::after(moved, self.terms.provider_idle), Broken::Idle),
            (Phase::Head, _) => (clock::after(moved, self.terms.first_byte), Broken::FirstByte),
            // What comes soon or goes on as it is has its own end.
            (Phase::Scouted | Phase::Hold { .. } | Phase::Withhold { .. }, _) => (clock::far(now), Broken::Idle),
            // Those for whom it is brought into this process have deadlines of their own, and go on without who is too slow.
            (Phase::Body { on_client: true }, _) if matches!(self.client, Side::Inside(_)) => {
                (clock::far(now), Broken::ClientGone)
            }
            (Phase::Body { on_client: true }, _) => (clock::after(moved, self.terms.client_idle), Broken::ClientGone),
            // An answer has begun, but it is the client's turn: the provider is not to blame for waiting too.
            (Phase::Body { on_client: false }, Up::AwaitClient) if self.awaits_client() => {
                // Nor is the client, as long as the answer goes on: it may rightly have stopped sending.
                let (slow, missed) = self.body_deadline(now);
                (slow.max(clock::after(moved, self.terms.provider_idle)), missed)
            }
            (Phase::Body { on_client: false } | Phase::Tunnel, _) => {
                (clock::after(moved, self.terms.provider_idle), Broken::Idle)
            }
        };
        let (whole, over) = if self.committed {
            let since = self.times.committed.unwrap_or(now);
            let end = self.terms.stream_timeout.map_or(clock::far(now), |whole| clock::after(since, whole));
            (end, Broken::StreamTimeout)
        } else {
            let route = clock::after(self.terms.deadline, self.times.awaited);
            let sending = self.times.sent.map(|sent| sent.saturating_duration_since(self.began));
            let attempt = sending.map(|sending| clock::after(self.terms.attempt_deadline, sending));
            match attempt.filter(|attempt| *attempt < route) {
                Some(attempt) => (attempt, Broken::Attempt),
                // Who was not sent all of the request had no time for it.
                None => (route, Broken::Deadline { full: self.terms.full && self.times.sent.is_some() }),
            }
        };
        if whole < at { (whole, over) } else { (at, missed) }
    }

    /// Until when the client has to send more: as long as its average stays above the minimum. Time in which the provider
    /// did not take what was there does not count against it. Calls of gRPC have pauses by nature, and only silence is too
    /// slow there.
    fn body_deadline(&self, now: Instant) -> (Instant, Broken) {
        let since = self.times.awaiting_client.unwrap_or(now);
        // Silence is too slow whatever came before it: a large part sent fast is no credit for hours.
        let quiet = clock::after(since.max(self.times.moved), self.terms.client_idle);
        let rate = self.terms.min_body_rate;
        if rate == 0 || forward::is_grpc(&self.terms.request.head.fields) {
            return (quiet, Broken::ClientBodyTooSlow);
        }
        let allowed = earned(self.client.body_read(), rate).saturating_sub(self.times.awaited);
        (clock::after(since, allowed).min(quiet), Broken::ClientBodyTooSlow)
    }

    fn ended(&mut self) -> Ended {
        let reusable = self.reusable();
        if matches!(self.phase, Phase::Withhold { .. }) {
            let whole = self.provider.body_is_done();
            let body = whole.then(|| std::mem::take(&mut self.withheld));
            return Ended::Withheld(Withheld { body, skipped: self.skipped, reusable });
        }
        let Exchange { keep_alive, skipped, .. } = *self;
        let status = self.terms.opened.map_or(self.answer.status, |_| respond::OPENED);
        let head_at = self.times.committed;
        Ended::Answered(Answered { status, reusable, keep_alive, head_at, skipped })
    }

    /// How long the provider's connection may be kept, if it may be used again.
    fn reusable(&self) -> Option<KeepFor> {
        let whole = self.up == Up::Sent && self.phase != Phase::Tunnel && !self.provider.has_unread();
        let persistent = match self.answer.version {
            // A stream is not used twice, and its connection is not ours to keep.
            Version::Http2 => false,
            Version::Http11 => !self.answer.fields.lists(Known::Connection, b"close"),
            Version::Http10 => self.answer.fields.lists(Known::Connection, b"keep-alive"),
        };
        let reusable = whole && persistent && self.provider.body_is_done();
        reusable.then(|| KeepFor(keep_alive_hint(self.answer)))
    }
}

// === impl Ended ===

impl Ended {
    /// How long the provider's connection may be kept; `None` where it must not be used again.
    pub fn reusable(&self) -> Option<KeepFor> {
        match self {
            Ended::Answered(answered) => answered.reusable,
            Ended::Withheld(withheld) => withheld.reusable,
        }
    }
}

/// For how long a client may have been awaited that has sent so many bytes of a body, at `rate` bytes a second.
pub fn earned(bytes: u64, rate: u64) -> Duration {
    Duration::from_millis(bytes.saturating_mul(1000) / rate).max(BODY_RATE_AFTER)
}

/// `Keep-Alive: timeout=5`: how long the provider keeps its end open.
fn keep_alive_hint(answer: &ResponseHead) -> Option<Duration> {
    let value = answer.fields.get(Known::KeepAlive)?;
    let seconds = elements(value).find_map(|element| element.strip_prefix(b"timeout="))?;
    std::str::from_utf8(seconds).ok()?.parse().ok().map(Duration::from_secs)
}

/// How soon it is noticed that a client has left whose bytes nobody takes.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Bytes of an answer's head; more is a broken answer.
pub const ANSWER_HEAD_BYTES: usize = 64 * 1024;

/// Fields of an answer's head; more is a broken answer.
pub const ANSWER_FIELDS: usize = 256;

/// Interim answers before the final one; more is a broken answer. A provider that reports progress by 102 or 103 sends a
/// handful.
const INTERIM_ANSWERS: u32 = 64;

/// Bytes of all of them; more is a broken answer. They wait in memory for a client that reads slowly.
const INTERIM_BYTES: usize = ANSWER_HEAD_BYTES;

/// Bytes kept of an answer's body while another provider is asked: should none give a better one, it is passed on.
const WITHHELD_BYTES: usize = 16 * 1024;

/// A body's rate is judged once it has been awaited this long: a short pause is no attack.
const BODY_RATE_AFTER: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
