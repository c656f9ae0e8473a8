//! The only place that chooses a status Sluice makes itself.
//!
//! Each [`Refusal`] is one line of a table: status, reason, title and the RFC 9209 error type that stands in `Proxy-Status`.
//! Whoever refuses says why in a sentence; how that looks on the wire is decided here.

use super::dispatch::Errand;
use super::forward::{self, Back};
use super::frame::Invalid;
use super::identity::{Identity, date_field};
use super::route::Found;
use crate::config::Secret;
use crate::http1::encode;
use crate::http1::framing::Length;
use crate::http1::head::{ResponseHead, Version};
use crate::net::side::Side;
use crate::policy::ladder::{Kind, Trigger};
use std::borrow::Cow;
use std::time::Duration;

/// Why Sluice answers itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The request is ambiguous or broken.
    BadRequest,
    /// Its head took too long.
    HeadTimeout,
    /// Its body took too long.
    BodyTimeout,
    /// Its head is too large, or has too many fields.
    HeadTooLarge,
    /// Its body is larger than the listener takes.
    BodyTooLarge,
    /// No route matches.
    NoRoute,
    /// A route matches, but not with this method.
    WrongMethod,
    /// No provider of the pool can take it.
    NoProvider,
    /// Too many wait for one already.
    QueueFull,
    /// None became free in time.
    QueueTimeout,
    /// An operator took it out of the queue.
    Cancelled,
    /// Every attempt failed without an answer, the last not by time.
    Unreachable,
    /// Every attempt failed without an answer, the last by time.
    TimedOut,
    /// A provider answered, but not with the event stream that the client was promised while it waited.
    NoStream,
    /// The route's whole `timeout` has passed.
    Deadline,
    /// The client wants what is kept or nothing (`only-if-cached`), and nothing is.
    NotCached,
    /// A defect of ours.
    Internal,
}

/// What stands on the wire for a refusal.
#[derive(Debug, Clone, Copy)]
struct Row {
    status: u16,
    reason: &'static str,
    title: &'static str,
    /// An error type registered by RFC 9209 §2.3.
    error: &'static str,
}

/// A refusal with everything that is to be said about it.
#[derive(Debug)]
pub struct Refused {
    /// What kind it is.
    pub refusal: Refusal,
    /// A sentence for the client.
    pub detail: Cow<'static, str>,
    trail: Option<String>,
    error: Option<&'static str>,
    retry_after: Option<Duration>,
    /// The methods there are, for a 405.
    pub allow: Option<String>,
    /// Set where a `stale` rung answers in its place: how the request came there.
    pub stale: Option<Came>,
}

/// How a request came to its rung.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Came {
    /// It began there: its route is degraded.
    First,
    /// Its way ended for this reason.
    Fell(Trigger),
}

/// A provider's answer that another was asked for instead.
#[derive(Debug)]
pub struct Kept {
    /// Its head.
    pub head: ResponseHead,
    /// The whole body.
    pub body: Vec<u8>,
    /// The rung it is of, where that was not the route's own pool.
    pub degraded: Option<Kind>,
}

/// An answer of our own, before it is put on the wire.
#[derive(Debug)]
pub struct Answer<'a> {
    /// 200 to 599.
    pub status: u16,
    /// Fields beside those of framing and identity.
    pub fields: Vec<u8>,
    /// The body.
    pub body: &'a [u8],
}

/// The circumstances an answer of ours is given in.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances<'a> {
    /// What the request is called; unknown where its head could not be read.
    pub identity: Option<&'a Identity>,
    /// The client's version.
    pub version: Version,
    /// Whether the connection stays open.
    pub keep_alive: bool,
    /// The body is only announced.
    pub to_head: bool,
}

// === impl Refusal ===

impl Refusal {
    /// The status a client sees.
    pub fn status(self) -> u16 {
        self.row().status
    }

    /// The word for it in problems, logs and metrics.
    pub fn reason(self) -> &'static str {
        self.row().reason
    }

    /// Which rungs are for it; `None` where it is the request's own fault, or an operator's word.
    pub fn trigger(self) -> Option<Trigger> {
        match self {
            Refusal::NoProvider => Some(Trigger::NoProvider),
            Refusal::QueueFull => Some(Trigger::QueueFull),
            Refusal::QueueTimeout => Some(Trigger::QueueTimeout),
            Refusal::Unreachable | Refusal::TimedOut | Refusal::NoStream => Some(Trigger::AttemptsExhausted),
            Refusal::Deadline => Some(Trigger::Deadline),
            Refusal::BadRequest
            | Refusal::HeadTimeout
            | Refusal::BodyTimeout
            | Refusal::HeadTooLarge
            | Refusal::BodyTooLarge
            | Refusal::NoRoute
            | Refusal::WrongMethod
            | Refusal::Cancelled
            | Refusal::NotCached
            | Refusal::Internal => None,
        }
    }

    /// The table.
    fn row(self) -> Row {
        let row = |status, reason, title, error| Row { status, reason, title, error };
        match self {
            Refusal::BadRequest => row(400, "bad_request", "Bad request", "http_request_error"),
            Refusal::HeadTimeout => row(408, "head_timeout", "The request head took too long", "http_request_error"),
            Refusal::BodyTimeout => row(408, "body_timeout", "The request body came too slowly", "http_request_error"),
            Refusal::HeadTooLarge => row(431, "head_too_large", "The request head is too large", "http_request_error"),
            Refusal::BodyTooLarge => row(413, "body_too_large", "The request body is too large", "http_request_denied"),
            Refusal::NoRoute => row(404, "no_route", "No route matches", "destination_not_found"),
            Refusal::WrongMethod => row(405, "wrong_method", "Method not allowed", "http_request_denied"),
            Refusal::NoProvider => row(503, "no_provider", "No provider can take this now", "destination_unavailable"),
            Refusal::QueueFull => row(503, "queue_full", "Too many requests wait already", "connection_limit_reached"),
            Refusal::QueueTimeout => row(503, "queue_timeout", "No provider became free in time", "connection_timeout"),
            Refusal::Cancelled => row(503, "cancelled", "Taken out of the queue", "http_request_denied"),
            Refusal::Unreachable => row(502, "attempts_exhausted", "No provider answered", "destination_unavailable"),
            Refusal::TimedOut => {
                row(504, "attempts_exhausted", "No provider answered in time", "http_response_timeout")
            }
            Refusal::NoStream => row(502, "no_event_stream", "The answer is no event stream", "http_protocol_error"),
            Refusal::Deadline => row(504, "deadline", "The time for this request is over", "http_response_timeout"),
            Refusal::NotCached => row(504, "not_cached", "Nothing is kept for this", "destination_unavailable"),
            Refusal::Internal => row(500, "internal", "Internal error", "proxy_internal_error"),
        }
    }
}

// === impl Refused ===

impl Refused {
    /// A refusal with a sentence for the client.
    pub fn new(refusal: Refusal, detail: impl Into<Cow<'static, str>>) -> Self {
        Refused {
            refusal,
            detail: detail.into(),
            trail: None,
            error: None,
            retry_after: None,
            allow: None,
            stale: None,
        }
    }

    /// The one for a request that did not pass the checks.
    pub fn invalid(invalid: Invalid) -> Self {
        match invalid {
            Invalid::Bad(why) => Refused::new(Refusal::BadRequest, format!("The request is not valid: {why}.")),
            Invalid::Method => Refused::new(Refusal::WrongMethod, "This gateway does not take CONNECT or TRACE.")
                .allow(METHODS.to_owned()),
        }
    }

    /// The one for a request that no route takes.
    pub fn unrouted(found: Found) -> Self {
        match found {
            Found::WrongMethod(allow) => {
                Refused::new(Refusal::WrongMethod, format!("Here the methods are {allow}.")).allow(allow)
            }
            Found::None | Found::Route(_) => Refused::new(Refusal::NoRoute, "No route takes this host and path."),
        }
    }

    /// The one for a body over the listener's limit.
    pub fn body_too_large() -> Self {
        Refused::new(Refusal::BodyTooLarge, "The request body is larger than this listener takes.")
    }

    /// With a more exact error type of RFC 9209.
    #[must_use]
    pub fn error(mut self, token: &'static str) -> Self {
        self.error = Some(token);
        self
    }

    /// With what the attempts came to: `alpha connection_refused 2ms`.
    #[must_use]
    pub fn trail(mut self, trail: String) -> Self {
        self.trail = Some(trail);
        self
    }

    /// With a `stale` rung that answers in its place.
    #[must_use]
    pub fn stale(mut self, came: Came) -> Self {
        self.stale = Some(came);
        self
    }

    /// With when to come again.
    #[must_use]
    pub fn retry_after(mut self, wait: Option<Duration>) -> Self {
        self.retry_after = wait;
        self
    }

    /// Whether the connection is still in step after this refusal.
    pub fn spares_connection(&self) -> bool {
        !matches!(self.refusal, Refusal::BadRequest | Refusal::BodyTooLarge | Refusal::BodyTimeout | Refusal::Internal)
    }

    /// Writes the whole answer, a problem document (RFC 9457), to go out with the next flush.
    pub fn write(&self, client: &mut Side<'_>, circumstances: &Circumstances<'_>) {
        let row = self.refusal.row();
        let body = problem(row, &self.detail, circumstances.identity);
        let answer = Answer { status: row.status, fields: self.fields(row), body: body.as_bytes() };
        answer.write(client, circumstances);
    }

    /// Ends an event stream that was begun while its request waited: the problem is its last event.
    pub fn write_event(&self, identity: &Identity, client: &mut Side<'_>) {
        let problem = problem(self.refusal.row(), &self.detail, Some(identity));
        client.lay_end(format!("event: error\ndata: {problem}\n").as_bytes());
    }

    fn allow(mut self, methods: String) -> Self {
        self.allow = Some(methods);
        self
    }

    /// Our member of `Proxy-Status` (RFC 9209): why, and what the attempts came to.
    pub fn proxy_status(&self) -> String {
        let row = self.refusal.row();
        let trail = self.trail.as_ref().map_or_else(String::new, |trail| format!(": {trail}"));
        let details = quoted(&format!("{}{trail}", row.reason));
        format!("sluice; error={}; details={details}", self.error.unwrap_or(row.error))
    }

    fn fields(&self, row: Row) -> Vec<u8> {
        let mut fields = Vec::new();
        encode::field(&mut fields, b"content-type", b"application/problem+json");
        encode::field(&mut fields, b"proxy-status", self.proxy_status().as_bytes());
        if let Some(allow) = &self.allow {
            encode::field(&mut fields, b"allow", allow.as_bytes());
        }
        if row.status == 503 {
            let seconds = self.retry_after.map_or(1, |wait| wait.as_millis().div_ceil(1000)).max(1);
            encode::field(&mut fields, b"retry-after", itoa::Buffer::new().format(seconds).as_bytes());
        }
        fields
    }
}

// === impl Answer ===

impl<'a> Answer<'a> {
    /// The answer a route gives by itself.
    pub fn configured(status: u16, headers: &[(String, Secret)], body: &'a [u8]) -> Self {
        let mut fields = Vec::new();
        let typed = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        if !typed && !body.is_empty() {
            encode::field(&mut fields, b"content-type", b"text/plain; charset=utf-8");
        }
        for (name, value) in headers {
            encode::field(&mut fields, name.as_bytes(), value.expose().as_bytes());
        }
        Answer { status, fields, body }
    }

    /// A redirect.
    pub fn redirect(status: u16, location: &str) -> Self {
        let mut fields = Vec::new();
        encode::field(&mut fields, b"location", location.as_bytes());
        Answer { status, fields, body: b"" }
    }

    /// Writes the whole answer, to go out with the next flush.
    pub fn write(&self, client: &mut Side<'_>, circumstances: &Circumstances<'_>) {
        let version = circumstances.version;
        let out = client.out();
        forward::status_line(out, version, self.status, phrase(self.status).as_bytes());
        date_field(out);
        out.extend_from_slice(&self.fields);
        if let Some(identity) = circumstances.identity {
            encode::field(out, b"x-request-id", identity.request_id());
        }
        forward::connection_field(out, version, circumstances.keep_alive);
        let bodiless = self.status == 204 || self.status == 304;
        if !bodiless {
            encode::length_field(out, Length::Exact(self.body.len() as u64));
        }
        forward::end_head(out, version);
        let ends = bodiless || circumstances.to_head || self.body.is_empty();
        client.send_head(self.status, ends);
        if !ends {
            client.lay_body(self.body);
        }
    }
}

// === impl Kept ===

impl Kept {
    /// Writes it for the client after all.
    pub fn write(&self, errand: &Errand<'_>, trail: &str, keep_alive: bool, client: &mut Side<'_>) -> u16 {
        let Kept { head, body, degraded } = self;
        let to_head = errand.request.method == "HEAD";
        let bodiless = to_head || matches!(head.status, 204 | 304);
        let length = if bodiless { Length::None } else { Length::Exact(body.len() as u64) };
        let trail = format!("sluice; received-status={}; details={}", head.status, quoted(trail));
        let back = Back {
            rewrite: &errand.route.config.rewrite,
            identity: errand.identity,
            length,
            version: errand.request.head.version,
            keep_alive,
            upgrade: false,
            degraded: *degraded,
            trail: Some(&trail),
            cached: None,
        };
        forward::answer_head(client.out(), head, &back);
        client.send_head(head.status, bodiless || body.is_empty());
        if !bodiless && !body.is_empty() {
            client.lay_body(body);
        }
        head.status
    }
}

/// Our account of attempts of which the last was answered (RFC 9209 §2.1).
pub fn trail(before: &str, provider: &str, status: u16, millis: u128, after: Option<&str>) -> String {
    let semicolon = if before.is_empty() { "" } else { "; " };
    let after = after.map_or_else(String::new, |after| format!("; {after}"));
    let details = quoted(&format!("{before}{semicolon}{provider} {status} {millis}ms{after}"));
    format!("sluice; received-status={status}; details={details}")
}

/// `text` as a structured-field string (RFC 9651 §3.3.3): visible ASCII, quotes and backslashes escaped.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            ' '..='~' => out.push(letter),
            _ => out.push('?'),
        }
    }
    out.push('"');
    out
}

/// A problem document (RFC 9457).
fn problem(row: Row, detail: &str, identity: Option<&Identity>) -> String {
    let id = identity.map_or("", Identity::request_id_text);
    let named = if id.is_empty() {
        String::new()
    } else {
        format!(r#""instance":"urn:sluice:request:{id}","request_id":"{id}","#)
    };
    // serde_json escapes what a client made us repeat.
    let detail = serde_json::Value::from(detail);
    let Row { status, reason, title, .. } = row;
    format!(
        r#"{{"type":"urn:sluice:problem:{reason}","title":"{title}","status":{status},"detail":{detail},{named}"reason":"{reason}"}}"#
    ) + "\n"
}

/// The usual reason phrase; HTTP/1.1 clients ignore it, people do not.
pub fn phrase(status: u16) -> &'static str {
    hyper::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("")
}

/// What a client is told that gets comments while it waits for an event stream.
pub const OPENED: u16 = 200;

/// What this gateway takes where a route does not say otherwise.
const METHODS: &str = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT";
