//! One line for each request, spelled by hand into a buffer that is used again: no tree, no allocation.

use super::lines::{Place, escaped, number, quoted, rfc3339, seconds, word};
use crate::policy::outcome::Outcome;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// What is told about one request. The names are those of the JSON fields.
#[derive(Debug, Clone)]
pub struct Access<'a> {
    /// When the request's head was complete.
    pub at: SystemTime,
    /// As in `X-Request-Id`.
    pub request_id: &'a str,
    /// The trace the request belongs to, in lower-case hex.
    pub trace_id: &'a str,
    /// Who called, by the configuration's name.
    pub client: &'a str,
    /// Where the call came from.
    pub client_address: IpAddr,
    /// `high`, `normal` or `low`.
    pub class: &'static str,
    /// The listener that accepted it.
    pub listener: &'a str,
    /// The route that took it, or `none`.
    pub route: &'a str,
    /// The method as sent.
    pub method: &'a str,
    /// The host as routed.
    pub host: &'a str,
    /// The path as sent, without the query, which may hold secrets.
    pub path: &'a str,
    /// `HTTP/1.1` and its like.
    pub protocol: &'static str,
    /// What was answered; 499 where the client left first.
    pub status: u16,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// From the head to the end of the answer.
    pub seconds: Duration,
    /// Of these, waiting for a lease.
    pub queue_seconds: Duration,
    /// Who answered, if a provider did.
    pub provider: Option<&'a str>,
    /// Every attempt, in order.
    pub attempts: &'a [AttemptRecord],
    /// What the cache said, if it was asked.
    pub cache: Option<&'a str>,
    /// The rung that answered, if one did.
    pub degraded: Option<&'a str>,
    /// Why Sluice refused, if it did.
    pub reason: Option<&'static str>,
    /// What went wrong, for operators only.
    pub error: Option<&'a str>,
}

/// One attempt of a request.
#[derive(Debug, Clone)]
pub struct AttemptRecord {
    /// The provider asked.
    pub provider: Arc<str>,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took.
    pub seconds: Duration,
}

// === impl Access ===

impl Access<'_> {
    /// Appends one line of JSON, with its line feed.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"at\":\"");
        rfc3339(out, self.at);
        out.push(b'"');
        self.write_who(out);
        self.write_what(out);
        self.write_result(out);
        self.write_attempts(out);
        nullable(out, "cache", self.cache);
        nullable(out, "degraded", self.degraded);
        for (name, value) in [("reason", self.reason), ("error", self.error)] {
            if let Some(value) = value {
                text(out, name, value);
            }
        }
        out.extend_from_slice(b"}\n");
    }

    /// Appends one compact line for people, with its line feed.
    pub fn write_text(&self, out: &mut Vec<u8>, colour: bool) {
        rfc3339(out, self.at);
        out.push(b' ');
        self.write_status(out, colour);
        for (separator, text) in [(" ", self.method), (" ", self.host), ("", self.path), (" ", self.protocol)] {
            out.extend_from_slice(separator.as_bytes());
            escaped(out, text, Place::Plain);
        }
        out.push(b' ');
        milliseconds(out, self.seconds);
        for (name, value) in [
            ("route", Some(self.route)),
            ("provider", self.provider),
            ("client", Some(self.client)),
            ("cache", self.cache),
            ("degraded", self.degraded),
            ("reason", self.reason),
            ("error", self.error),
            ("id", Some(self.request_id)),
        ] {
            if let Some(value) = value {
                out.push(b' ');
                word(out, name, value);
            }
        }
        out.push(b'\n');
    }

    fn write_who(&self, out: &mut Vec<u8>) {
        text(out, "request_id", self.request_id);
        text(out, "trace_id", self.trace_id);
        text(out, "client", self.client);
        key(out, "client_address");
        out.push(b'"');
        // Writing to a Vec never fails.
        let _ = std::io::Write::write_fmt(out, format_args!("{}", self.client_address));
        out.push(b'"');
        text(out, "class", self.class);
    }

    fn write_what(&self, out: &mut Vec<u8>) {
        text(out, "listener", self.listener);
        text(out, "route", self.route);
        text(out, "method", self.method);
        text(out, "host", self.host);
        text(out, "path", self.path);
        text(out, "protocol", self.protocol);
    }

    fn write_result(&self, out: &mut Vec<u8>) {
        for (name, value) in
            [("status", u64::from(self.status)), ("bytes_in", self.bytes_in), ("bytes_out", self.bytes_out)]
        {
            key(out, name);
            number(out, value);
        }
        key(out, "seconds");
        seconds(out, self.seconds);
        key(out, "queue_seconds");
        seconds(out, self.queue_seconds);
        nullable(out, "provider", self.provider);
    }

    fn write_attempts(&self, out: &mut Vec<u8>) {
        key(out, "attempts");
        out.push(b'[');
        for (i, attempt) in self.attempts.iter().enumerate() {
            out.extend_from_slice(if i == 0 { b"{\"provider\":" } else { b",{\"provider\":" });
            quoted(out, &attempt.provider);
            text(out, "outcome", attempt.outcome.as_str());
            key(out, "seconds");
            seconds(out, attempt.seconds);
            out.push(b'}');
        }
        out.push(b']');
    }

    fn write_status(&self, out: &mut Vec<u8>, colour: bool) {
        if colour {
            out.extend_from_slice(match self.status {
                0..400 => b"\x1b[32m",
                400..500 => b"\x1b[33m",
                _ => b"\x1b[31m",
            });
        }
        number(out, u64::from(self.status));
        if colour {
            out.extend_from_slice(b"\x1b[0m");
        }
    }
}

/// Appends `,"name":`; the names are ours and need no escape.
fn key(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn text(out: &mut Vec<u8>, name: &str, value: &str) {
    key(out, name);
    quoted(out, value);
}

/// `null` where there is nothing.
fn nullable(out: &mut Vec<u8>, name: &str, value: Option<&str>) {
    match value {
        Some(value) => text(out, name, value),
        None => {
            key(out, name);
            out.extend_from_slice(b"null");
        }
    }
}

/// `12.345ms`.
fn milliseconds(out: &mut Vec<u8>, span: Duration) {
    let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    // Writing to a Vec never fails.
    let _ = std::io::Write::write_fmt(out, format_args!("{}.{:03}ms", micros / 1000, micros % 1000));
}
