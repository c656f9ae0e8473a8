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
    /// Where the call came from; `None`, shown as `unix:`, where that is behind a unix socket.
    pub client_address: Option<IpAddr>,
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
        match self.client_address {
            // Writing to a Vec never fails.
            Some(address) => drop(std::io::Write::write_fmt(out, format_args!("{address}"))),
            None => out.extend_from_slice(b"unix:"),
        }
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
    if let Some(value) = value {
        text(out, name, value);
    } else {
        key(out, name);
        out.extend_from_slice(b"null");
    }
}

/// `12.345ms`.
fn milliseconds(out: &mut Vec<u8>, span: Duration) {
    let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    // Writing to a Vec never fails.
    let _ = std::io::Write::write_fmt(out, format_args!("{}.{:03}ms", micros / 1000, micros % 1000));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::lines::VALUE_BYTES_MAX;
    use proptest::prelude::*;
    use serde_json::Value;
    use std::net::Ipv4Addr;
    use std::time::UNIX_EPOCH;

    fn attempts() -> Vec<AttemptRecord> {
        let attempt = |provider: &str, outcome, millis| AttemptRecord {
            provider: provider.into(),
            outcome,
            seconds: Duration::from_millis(millis),
        };
        vec![attempt("beta", Outcome::Failure, 3), attempt("alpha", Outcome::Success, 1250)]
    }

    fn record(attempts: &[AttemptRecord]) -> Access<'_> {
        Access {
            at: UNIX_EPOCH + Duration::from_millis(1_795_247_254_123),
            request_id: "r-1",
            trace_id: "0af7651916cd43dd8448eb211c80319c",
            client: "mobile",
            client_address: Some(Ipv4Addr::new(192, 0, 2, 7).into()),
            class: "normal",
            listener: "web",
            route: "api",
            method: "GET",
            host: "example.com",
            path: "/api/things",
            protocol: "HTTP/1.1",
            status: 200,
            bytes_in: 0,
            bytes_out: 1024,
            seconds: Duration::from_micros(1_253_042),
            queue_seconds: Duration::ZERO,
            provider: Some("alpha"),
            attempts,
            cache: None,
            degraded: None,
            reason: None,
            error: None,
        }
    }

    fn json(record: &Access<'_>) -> String {
        let mut out = Vec::new();
        record.write_json(&mut out);
        String::from_utf8(out).expect("every part is text")
    }

    fn text(record: &Access<'_>) -> String {
        let mut out = Vec::new();
        record.write_text(&mut out, false);
        String::from_utf8(out).expect("every part is text")
    }

    #[test]
    fn a_request_is_one_json_object_with_the_names_of_the_contract() {
        let expected = concat!(
            r#"{"at":"2026-11-21T07:47:34.123Z","request_id":"r-1","trace_id":"0af7651916cd43dd8448eb211c80319c","#,
            r#""client":"mobile","client_address":"192.0.2.7","class":"normal","listener":"web","route":"api","#,
            r#""method":"GET","host":"example.com","path":"/api/things","protocol":"HTTP/1.1","status":200,"#,
            r#""bytes_in":0,"bytes_out":1024,"seconds":1.253042,"queue_seconds":0.000000,"provider":"alpha","#,
            r#""attempts":[{"provider":"beta","outcome":"failure","seconds":0.003000},"#,
            r#"{"provider":"alpha","outcome":"success","seconds":1.250000}],"cache":null,"degraded":null}"#,
            "\n"
        );
        assert_eq!(json(&record(&attempts())), expected);
    }

    #[test]
    fn a_refusal_tells_its_reason_and_error() {
        let refusal = Access { status: 503, reason: Some("no_provider"), error: Some("alpha: refused"), ..record(&[]) };
        let line = json(&refusal);
        assert!(line.ends_with(",\"reason\":\"no_provider\",\"error\":\"alpha: refused\"}\n"), "{line}");
    }

    #[test]
    fn a_text_line_is_short_and_quotes_only_what_needs_it() {
        let line = text(&Access { error: Some("connection refused"), ..record(&[]) });
        let expected = "2026-11-21T07:47:34.123Z 200 GET example.com/api/things HTTP/1.1 1253.042ms route=api \
                        provider=alpha client=mobile error=\"connection refused\" id=r-1\n";
        assert_eq!(line, expected);
    }

    #[test]
    fn a_terminal_cannot_be_steered_by_a_path() {
        let line = text(&Access { path: "/\u{1b}[2J\u{9b}31m\u{202e}\r\n", ..record(&[]) });
        assert!(line.contains("/\\u001b[2J\\u009b31m\\u202e\\r\\n HTTP/1.1"), "{line}");
    }

    #[test]
    fn a_value_without_end_is_cut_at_a_character() {
        let path = "é".repeat(VALUE_BYTES_MAX);
        let line = json(&Access { path: &path, ..record(&[]) });
        let value: Value = serde_json::from_str(&line).expect("still JSON");
        let shown = value["path"].as_str().expect("still text");
        assert_eq!(shown.chars().count(), VALUE_BYTES_MAX / 2 + 1);
        assert!(shown.ends_with("é…"));
    }

    proptest! {
        #[test]
        fn every_line_is_one_valid_json_object_that_says_what_went_in(
            path in any::<String>(), host in any::<String>(), error in proptest::option::of(any::<String>()),
            bytes in proptest::collection::vec(any::<u8>(), 0..64), status in any::<u16>(), bytes_in in any::<u64>(),
            micros in any::<u64>(), at in any::<u64>(),
        ) {
            let client = String::from_utf8_lossy(&bytes);
            let at = UNIX_EPOCH + Duration::from_millis(at >> 12);
            let seconds = Duration::from_micros(micros);
            let attempts = attempts();
            let sent = Access {
                at, path: &path, host: &host, error: error.as_deref(), client: &client, status, bytes_in, seconds,
                ..record(&attempts)
            };
            let line = json(&sent);
            prop_assert_eq!(line.lines().count(), 1);
            prop_assert_eq!(line.matches(['\u{2028}', '\u{2029}', '\u{85}', '\r']).count(), 0);
            let value: Value = serde_json::from_str(&line).expect("valid JSON");
            prop_assert_eq!(value["path"].as_str(), Some(&*path));
            prop_assert_eq!(value["host"].as_str(), Some(&*host));
            prop_assert_eq!(value["client"].as_str(), Some(&*client));
            prop_assert_eq!(value["error"].as_str(), error.as_deref());
            prop_assert_eq!(value["status"].as_u64(), Some(u64::from(status)));
            prop_assert_eq!(value["bytes_in"].as_u64(), Some(bytes_in));
            prop_assert_eq!(text(&sent).matches('\n').count(), 1);
        }
    }
}
