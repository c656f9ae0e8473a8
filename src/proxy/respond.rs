//! The only place that chooses a status Sluice makes itself.
//!
//! Each [`Refusal`] is one line of a table: status, reason, title and the RFC 9209 error type that stands in `Proxy-Status`.
//! Whoever refuses says why in a sentence; how that looks on the wire is decided here.

use super::forward;
use super::identity::{Identity, date_field};
use crate::config::Secret;
use crate::http1::encode;
use crate::http1::framing::Length;
use crate::http1::head::Version;
use std::fmt::Write as _;

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
    /// Every attempt failed without an answer, the last not by time.
    Unreachable,
    /// Every attempt failed without an answer, the last by time.
    TimedOut,
    /// The route's whole `timeout` has passed.
    Deadline,
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
            Refusal::Unreachable => row(502, "attempts_exhausted", "No provider answered", "destination_unavailable"),
            Refusal::TimedOut => {
                row(504, "attempts_exhausted", "No provider answered in time", "http_response_timeout")
            }
            Refusal::Deadline => row(504, "deadline", "The time for this request is over", "http_response_timeout"),
            Refusal::Internal => row(500, "internal", "Internal error", "proxy_internal_error"),
        }
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

    /// A problem document (RFC 9457); `body` is where it is written. `error` is a more exact RFC 9209 type, where the
    /// failure itself has one; `allow` the methods there are, for a 405.
    pub fn problem(refusal: Refusal, why: &Why<'_>, identity: Option<&Identity>, body: &'a mut String) -> Self {
        let row = refusal.row();
        write_problem(body, row, why.detail, identity);
        let mut fields = Vec::new();
        encode::field(&mut fields, b"content-type", b"application/problem+json");
        let status = format!(
            "sluice; error={}; details={}",
            why.error.unwrap_or(row.error),
            quoted(&[row.reason, why.trail.unwrap_or("")].join(if why.trail.is_some() { ": " } else { "" }))
        );
        encode::field(&mut fields, b"proxy-status", status.as_bytes());
        if let Some(allow) = why.allow {
            encode::field(&mut fields, b"allow", allow.as_bytes());
        }
        if row.status == 503 {
            encode::field(&mut fields, b"retry-after", b"1");
        }
        Answer { status: row.status, fields, body: body.as_bytes() }
    }

    /// Appends the whole answer.
    pub fn write(&self, out: &mut Vec<u8>, circumstances: &Circumstances<'_>) {
        forward::status_line(out, self.status, phrase(self.status).as_bytes());
        date_field(out);
        out.extend_from_slice(&self.fields);
        if let Some(identity) = circumstances.identity {
            encode::field(out, b"x-request-id", identity.request_id());
        }
        forward::connection_field(out, circumstances.version, circumstances.keep_alive);
        let bodiless = self.status == 204 || self.status == 304;
        if !bodiless {
            encode::length_field(out, Length::Exact(self.body.len() as u64));
        }
        out.extend_from_slice(b"\r\n");
        if !bodiless && !circumstances.to_head {
            out.extend_from_slice(self.body);
        }
    }
}

/// What is known about a refusal beyond its kind.
#[derive(Debug, Clone, Copy, Default)]
pub struct Why<'a> {
    /// A sentence for the client.
    pub detail: &'a str,
    /// What the attempts came to: `alpha connection_refused 2ms`.
    pub trail: Option<&'a str>,
    /// A more exact RFC 9209 error type.
    pub error: Option<&'static str>,
    /// The methods there are, for a 405.
    pub allow: Option<&'a str>,
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

fn write_problem(body: &mut String, row: Row, detail: &str, identity: Option<&Identity>) {
    body.clear();
    let id = identity.map_or("", Identity::request_id_text);
    // Writing to a String cannot fail; serde_json escapes what a client made us repeat.
    let _: std::fmt::Result = write!(
        body,
        r#"{{"type":"urn:sluice:problem:{reason}","title":"{title}","status":{status},"detail":{detail},"#,
        reason = row.reason,
        title = row.title,
        status = row.status,
        detail = serde_json::Value::from(detail),
    );
    if !id.is_empty() {
        let _: std::fmt::Result = write!(body, r#""instance":"urn:sluice:request:{id}","request_id":"{id}","#);
    }
    let _: std::fmt::Result = writeln!(body, r#""reason":"{}"}}"#, row.reason);
}

/// The usual reason phrase; HTTP/1.1 clients ignore it, people do not.
fn phrase(status: u16) -> &'static str {
    hyper::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("")
}
