//! Who sent a request and what it is called: forwarding fields, request id, trace.
//!
//! From a peer that is not trusted all of these are written anew, because everything behind us believes them: whoever can
//! choose `X-Forwarded-For` passes every allow-list, and whoever can choose a request id can hide in the logs.

use crate::clock;
use crate::config::Listener;
use crate::http1::encode::{self, HEX};
use crate::http1::fields::{Fields, Known, elements};
use std::cell::RefCell;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::UNIX_EPOCH;

/// The other end of a client's connection.
#[derive(Debug)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// Whether its forwarding fields are believed.
    pub trusted: bool,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The address without its port, as people write it.
    text: String,
}

/// What a request is called in fields, logs and traces.
#[derive(Debug)]
pub struct Identity {
    /// 32 hexadecimal digits, or what a trusted peer called it.
    request_id: Name,
    /// 32 hexadecimal digits.
    trace_id: [u8; 32],
    /// 16 hexadecimal digits: our own span, the parent of whatever the provider records.
    span_id: [u8; 16],
    /// Trace flags as they came.
    flags: [u8; 2],
}

/// A request id, on the stack.
#[derive(Debug)]
struct Name {
    bytes: [u8; REQUEST_ID_BYTES],
    len: usize,
}

// === impl Peer ===

impl Peer {
    /// A peer that nothing is known of yet but its address.
    pub fn new(address: SocketAddr, scheme: &'static str) -> Self {
        Peer { address, trusted: false, scheme, text: address.ip().to_canonical().to_string() }
    }

    /// Whether this listener believes it.
    pub fn judge(&mut self, listener: &Listener) {
        self.trusted = is_trusted(listener, self.address.ip());
    }

    /// The address as text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The address of whoever the request came from: the peer itself or, where that is trusted, the nearest address in
    /// `X-Forwarded-For` that is not. What stands before that one is only claimed by it.
    pub fn client_address(&self, fields: &Fields, listener: &Listener) -> IpAddr {
        let mut nearest = None;
        if self.trusted {
            for text in fields.values(Known::XForwardedFor).flat_map(elements) {
                nearest = match (parse_address(text), nearest) {
                    (Some(ip), Some(_)) if is_trusted(listener, ip) => nearest,
                    (found, _) => found,
                };
            }
        }
        nearest.unwrap_or_else(|| self.address.ip()).to_canonical()
    }

    /// Appends `Forwarded` (RFC 7239) and the `X-Forwarded-*` family.
    pub fn write_fields(&self, out: &mut Vec<u8>, fields: &Fields, authority: &[u8]) {
        self.write_for(out, fields);
        self.write_kept(out, fields, Known::XForwardedHost, b"x-forwarded-host", authority);
        self.write_kept(out, fields, Known::XForwardedProto, b"x-forwarded-proto", self.scheme.as_bytes());
        out.extend_from_slice(b"forwarded: ");
        if self.trusted {
            for value in fields.values(Known::Forwarded) {
                out.extend_from_slice(value);
                out.extend_from_slice(b", ");
            }
        }
        let ipv6 = self.text.contains(':');
        out.extend_from_slice(if ipv6 { b"for=\"[" } else { b"for=" });
        out.extend_from_slice(self.text.as_bytes());
        out.extend_from_slice(if ipv6 { b"]\"" } else { b"" });
        if !authority.is_empty() {
            // A Host has no quote and no backslash: it was checked.
            out.extend_from_slice(b";host=\"");
            out.extend_from_slice(authority);
            out.push(b'"');
        }
        out.extend_from_slice(b";proto=");
        out.extend_from_slice(self.scheme.as_bytes());
        out.extend_from_slice(b"\r\n");
    }

    fn write_for(&self, out: &mut Vec<u8>, fields: &Fields) {
        out.extend_from_slice(b"x-forwarded-for: ");
        if self.trusted {
            for element in fields.values(Known::XForwardedFor).flat_map(elements) {
                out.extend_from_slice(element);
                out.extend_from_slice(b", ");
            }
        }
        out.extend_from_slice(self.text.as_bytes());
        out.extend_from_slice(b"\r\n");
    }

    /// The field as a trusted peer sent it, or ours.
    fn write_kept(&self, out: &mut Vec<u8>, fields: &Fields, known: Known, name: &[u8], ours: &[u8]) {
        let theirs = if self.trusted { fields.get(known) } else { None };
        let value = theirs.unwrap_or(ours);
        if !value.is_empty() {
            encode::field(out, name, value);
        }
    }
}

// === impl Identity ===

impl Identity {
    /// Names a request: by what a trusted peer called it, else at random. `random` are 192 bits.
    pub fn new(fields: &Fields, trusted: bool, random: (u128, u64)) -> Self {
        let fresh: [u8; 32] = hexadecimal(random.0);
        let mut identity = Identity {
            request_id: Name::new(&fresh),
            trace_id: fresh,
            span_id: hexadecimal(u128::from(random.1)),
            flags: *b"00",
        };
        if trusted {
            identity.believe(fields);
        }
        identity
    }

    /// The request id.
    pub fn request_id(&self) -> &[u8] {
        &self.request_id.bytes[..self.request_id.len]
    }

    /// The request id, for logs.
    pub fn request_id_text(&self) -> &str {
        std::str::from_utf8(self.request_id()).unwrap_or("")
    }

    /// The trace id, for logs.
    pub fn trace_id_text(&self) -> &str {
        std::str::from_utf8(&self.trace_id).unwrap_or("")
    }

    /// Appends `X-Request-Id` and `traceparent` (W3C Trace Context §3.2).
    pub fn write_fields(&self, out: &mut Vec<u8>) {
        encode::field(out, b"x-request-id", self.request_id());
        out.extend_from_slice(b"traceparent: 00-");
        out.extend_from_slice(&self.trace_id);
        out.push(b'-');
        out.extend_from_slice(&self.span_id);
        out.push(b'-');
        out.extend_from_slice(&self.flags);
        out.extend_from_slice(b"\r\n");
    }

    fn believe(&mut self, fields: &Fields) {
        if let Some(id) = fields.get(Known::XRequestId).filter(|id| is_safe_id(id)) {
            self.request_id = Name::new(id);
        }
        if let Some(parent) = fields.get(Known::Traceparent).and_then(parse_traceparent) {
            self.trace_id.copy_from_slice(parent.0);
            self.flags.copy_from_slice(parent.1);
        }
    }
}

// === impl Name ===

impl Name {
    fn new(text: &[u8]) -> Self {
        let mut bytes = [0; REQUEST_ID_BYTES];
        let len = text.len().min(REQUEST_ID_BYTES);
        bytes[..len].copy_from_slice(&text[..len]);
        Name { bytes, len }
    }
}

fn is_trusted(listener: &Listener, ip: IpAddr) -> bool {
    listener.trusted_proxies.iter().any(|range| range.contains(ip))
}

/// An address as proxies write it: alone, in brackets, or with a port.
fn parse_address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse().ok().map(|socket: SocketAddr| socket.ip()))
}

/// Appends a `Date` field of now. The text is made once a second for each worker.
pub fn date_field(out: &mut Vec<u8>) {
    thread_local! {
        static LAST: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let second = clock::wall().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    LAST.with_borrow_mut(|(made, text)| {
        if *made != second {
            *made = second;
            text.clear();
            write_date(text, second);
        }
        encode::field(out, b"date", text.as_bytes());
    });
}

/// An HTTP date (RFC 9110 §5.6.7).
fn write_date(text: &mut String, second: u64) {
    let stamp = jiff::Timestamp::from_second(i64::try_from(second).unwrap_or(0)).unwrap_or_default();
    let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&stamp);
    // Writing to a String cannot fail.
    let _: std::fmt::Result = text.write_str(date.as_deref().unwrap_or("Thu, 01 Jan 1970 00:00:00 GMT"));
}

/// Visible ASCII without quotes and separators, of a length that a log line can carry.
fn is_safe_id(id: &[u8]) -> bool {
    let safe =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'/' | b'+' | b'=');
    !id.is_empty() && id.len() <= REQUEST_ID_BYTES && id.iter().all(safe)
}

/// Trace id and flags of a valid version-00 `traceparent`.
fn parse_traceparent(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let hex = |part: &[u8]| part.iter().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte));
    let zero = |part: &[u8]| part.iter().all(|byte| *byte == b'0');
    if value.len() != 55 || !value.starts_with(b"00-") || value[35] != b'-' || value[52] != b'-' {
        return None;
    }
    let (trace, span, flags) = (&value[3..35], &value[36..52], &value[53..]);
    (hex(trace) && hex(span) && hex(flags) && !zero(trace) && !zero(span)).then_some((trace, flags))
}

/// The lowest `4 × N` bits in lower-case hexadecimal.
fn hexadecimal<const N: usize>(number: u128) -> [u8; N] {
    std::array::from_fn(|place| HEX[(number >> (4 * (N - 1 - place)) & 0xf) as usize])
}

/// Bytes of a request id that a trusted peer may choose; a longer one is replaced.
const REQUEST_ID_BYTES: usize = 64;
