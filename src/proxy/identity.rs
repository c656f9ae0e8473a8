//! Who sent a request and what it is called: forwarding fields, request id, trace.
//!
//! From a peer that is not trusted all of these are written anew, because everything behind us believes them: whoever can
//! choose `X-Forwarded-For` passes every allow-list, and whoever can choose a request id can hide in the logs.

use crate::clock;
use crate::config::{Cidr, Listener};
use crate::http1::encode;
use crate::http1::fields::{Fields, Known, elements};
use crate::net::io::{Address, Socket};
use crate::net::proxy_header::Announce;
use std::cell::RefCell;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

/// Where a client's connection comes from: the socket's other end, or what a trusted balancer announced for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Where the client is.
    pub address: Address,
    /// Where it connected to, if a balancer announced that; else it is our own end of the socket.
    /// Apart, because few connections have one and all would make room for it.
    pub local: Option<Box<SocketAddr>>,
    /// A balancer passes on somebody it cannot name. `address` is the balancer's, whose trust is not theirs.
    pub anonymous: bool,
}

/// The other end of a client's connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where it is.
    pub origin: Origin,
    /// Whether its forwarding fields are believed.
    pub trusted: bool,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The address without its port, as people write it; `unknown` for a unix socket (RFC 7239 §6.2).
    text: String,
    /// What providers are told of it where it is not trusted: what stands before, between and behind the two places of the
    /// request's Host.
    around: [String; 3],
}

/// What a request is called in fields, logs and traces.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The fields that tell it, as they are written; the request id in them is the trace id, where nobody chose another.
    lines: [u8; LINES.len()],
    /// What a trusted peer called it.
    request_id: Option<Name>,
}

/// A request id, on the stack.
#[derive(Debug, Clone)]
struct Name {
    bytes: [u8; REQUEST_ID_BYTES],
    len: usize,
}

// === impl Origin ===

impl From<Address> for Origin {
    fn from(address: Address) -> Self {
        Origin { address, local: None, anonymous: false }
    }
}

impl From<SocketAddr> for Origin {
    fn from(address: SocketAddr) -> Self {
        Address::Ip(address).into()
    }
}

// === impl Peer ===

impl Peer {
    /// A peer that nothing is known of yet but its address.
    pub fn new(origin: impl Into<Origin>, scheme: &'static str) -> Self {
        let origin = origin.into();
        let text = origin.address.ip().map_or_else(|| "unknown".to_owned(), |ip| ip.to_string());
        let mut node = Vec::new();
        write_node(&mut node, &text);
        let node = String::from_utf8_lossy(&node);
        let around = [
            format!("x-forwarded-for: {text}\r\nx-forwarded-host: "),
            format!("\r\nx-forwarded-proto: {scheme}\r\nforwarded: {node};host=\""),
            format!("\";proto={scheme}\r\n"),
        ];
        Peer { origin, trusted: false, scheme, text, around }
    }

    /// Whether this listener believes it.
    pub fn judge(&mut self, listener: &Listener) {
        self.trusted = !self.origin.anonymous && is_trusted(listener, self.origin.address);
    }

    /// What a provider is told of the connection by a PROXY header; `socket` is our end of it, where the request has one.
    pub fn announce(&self, socket: Option<&Socket>) -> Announce {
        let client = match self.origin.address {
            Address::Ip(client) if !self.origin.anonymous => Some(client),
            _ => None,
        };
        Announce { client, local: self.origin.local.as_deref().copied().or_else(|| socket.and_then(Socket::local)) }
    }

    /// The address as text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The address of whoever the request came from: the peer, or, where the peer is trusted, the last address in
    /// `X-Forwarded-For` that is not itself trusted. Reading from the right, because whoever is trusted appends there, and
    /// what stands further left may be anyone's invention.
    /// `None` where that is behind a unix socket.
    pub fn client_address(&self, fields: &Fields, trusted: &[Cidr]) -> Option<IpAddr> {
        let peer = self.origin.address.ip();
        if !self.trusted {
            return peer;
        }
        let mut client = peer;
        for element in fields.values(Known::XForwardedFor).flat_map(elements).collect::<Vec<_>>().into_iter().rev() {
            let Some(address) = parse_address(element) else { break };
            client = Some(address.to_canonical());
            if !trusted.iter().any(|range| range.contains(address)) {
                break;
            }
        }
        client
    }

    /// Appends `Forwarded` (RFC 7239) and the `X-Forwarded-*` family.
    pub fn write_fields(&self, out: &mut Vec<u8>, fields: &Fields, authority: &[u8]) {
        // Mostly all of it but the Host is known since the connection came.
        if !self.trusted && !authority.is_empty() {
            let [before, between, behind] = &self.around;
            for part in [before.as_bytes(), authority, between.as_bytes(), authority, behind.as_bytes()] {
                out.extend_from_slice(part);
            }
            return;
        }
        self.write_for(out, fields);
        self.write_kept(out, fields, Known::XForwardedHost, b"x-forwarded-host", authority);
        self.write_kept(out, fields, Known::XForwardedProto, b"x-forwarded-proto", self.scheme.as_bytes());
        out.extend_from_slice(b"forwarded: ");
        if self.trusted {
            write_forwarded_before(out, fields);
        }
        write_node(out, &self.text);
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

/// What a trusted peer says of the way before it: its own `Forwarded`, or the same told by its `X-Forwarded-*` where it
/// writes only those. Otherwise a provider that prefers `Forwarded` would take the peer for the client, and `https` for
/// `http`.
fn write_forwarded_before(out: &mut Vec<u8>, fields: &Fields) {
    for value in fields.values(Known::Forwarded) {
        out.extend_from_slice(value);
        out.extend_from_slice(b", ");
    }
    if fields.has(Known::Forwarded) {
        return;
    }
    let proto = fields.get(Known::XForwardedProto).filter(|proto| [&b"http"[..], b"https"].contains(proto));
    for (place, element) in fields.values(Known::XForwardedFor).flat_map(elements).enumerate() {
        match parse_address(element) {
            Some(address) => write_node(out, &address.to_canonical().to_string()),
            None => out.extend_from_slice(b"for=unknown"),
        }
        // Only what the client itself used is told by those fields, and the client stands first.
        if let (0, Some(proto)) = (place, proto) {
            out.extend_from_slice(b";proto=");
            out.extend_from_slice(proto);
        }
        out.extend_from_slice(b", ");
    }
}

/// `for=` and an address; IPv6 in brackets and quotes (RFC 7239 §6).
fn write_node(out: &mut Vec<u8>, address: &str) {
    let ipv6 = address.contains(':');
    out.extend_from_slice(if ipv6 { b"for=\"[" } else { b"for=" });
    out.extend_from_slice(address.as_bytes());
    out.extend_from_slice(if ipv6 { b"]\"" } else { b"" });
}

// === impl Identity ===

impl Identity {
    /// Names a request: by what a trusted peer called it, else at random. `random` are 192 bits.
    pub fn new(fields: &Fields, trusted: bool, random: (u128, u64)) -> Self {
        let mut identity = Identity { lines: *LINES, request_id: None };
        let (trace, span) = (hexadecimal(random.0), hexadecimal(u128::from(random.1)));
        identity.lines[REQUEST_ID].copy_from_slice(&trace);
        identity.lines[TRACE_ID].copy_from_slice(&trace);
        identity.lines[SPAN_ID].copy_from_slice(&span[16..]);
        if trusted {
            identity.believe(fields);
        }
        identity
    }

    /// The request id.
    pub fn request_id(&self) -> &[u8] {
        self.request_id.as_ref().map_or(&self.lines[REQUEST_ID], Name::as_bytes)
    }

    /// The request id, for logs.
    pub fn request_id_text(&self) -> &str {
        std::str::from_utf8(self.request_id()).unwrap_or("")
    }

    /// The trace id, for logs.
    pub fn trace_id_text(&self) -> &str {
        std::str::from_utf8(&self.lines[TRACE_ID]).unwrap_or("")
    }

    /// Appends `X-Request-Id` and `traceparent` (W3C Trace Context §3.2). The span id in it is our own, the parent of
    /// whatever the provider records.
    pub fn write_fields(&self, out: &mut Vec<u8>) {
        if self.request_id.is_none() {
            out.extend_from_slice(&self.lines);
            return;
        }
        self.write_request_id(out);
        out.extend_from_slice(&self.lines[REQUEST_ID_LINE.end..]);
    }

    /// Appends `X-Request-Id`.
    pub fn write_request_id(&self, out: &mut Vec<u8>) {
        match &self.request_id {
            None => out.extend_from_slice(&self.lines[REQUEST_ID_LINE]),
            Some(name) => encode::field(out, b"x-request-id", name.as_bytes()),
        }
    }

    fn believe(&mut self, fields: &Fields) {
        self.request_id = fields.get(Known::XRequestId).filter(|id| is_safe_id(id)).map(Name::new);
        if let Some((trace, flags)) = fields.get(Known::Traceparent).and_then(parse_traceparent) {
            self.lines[TRACE_ID].copy_from_slice(trace);
            self.lines[FLAGS].copy_from_slice(flags);
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

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Whether this listener believes what stands in the forwarding fields of whoever is there.
pub fn is_trusted(listener: &Listener, address: Address) -> bool {
    match address {
        Address::Ip(address) => listener.trusted_proxies.iter().any(|range| range.contains(address.ip())),
        // Who may connect is decided by the mode of a file; who may say on whose behalf has to be written.
        Address::Unix => listener.trusts_unix,
    }
}

/// Appends a `Date` field of now. The text is made once a second for each worker.
pub fn date_field(out: &mut Vec<u8>) {
    thread_local! {
        static LAST: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let second = clock::wall_second();
    LAST.with_borrow_mut(|(made, text)| {
        if *made != second {
            *made = second;
            text.clear();
            text.push_str("date: ");
            write_date(text, second);
            text.push_str("\r\n");
        }
        out.extend_from_slice(text.as_bytes());
    });
}

/// An HTTP date (RFC 9110 §5.6.7).
fn write_date(text: &mut String, second: u64) {
    let stamp = jiff::Timestamp::from_second(i64::try_from(second).unwrap_or(0)).unwrap_or_default();
    let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&stamp);
    // Writing to a String cannot fail.
    let _: std::fmt::Result = text.write_str(date.as_deref().unwrap_or("Thu, 01 Jan 1970 00:00:00 GMT"));
}

/// An address as proxies write it: bare, in brackets, or with a port.
fn parse_address(element: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(element).ok()?.trim_matches('"');
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
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

/// The 32 lower-case hexadecimal digits of a number, eight at a time: each four bits get a byte of their own, and those above
/// nine are moved on to the letters.
fn hexadecimal(number: u128) -> [u8; 32] {
    let mut text = [0; 32];
    for (place, eight) in text.chunks_exact_mut(8).enumerate() {
        let mut digits = u64::from((number >> (96 - 32 * place)) as u32);
        digits = (digits | digits << 16) & 0x0000_ffff_0000_ffff;
        digits = (digits | digits << 8) & 0x00ff_00ff_00ff_00ff;
        digits = (digits | digits << 4) & 0x0f0f_0f0f_0f0f_0f0f;
        let letters = ((digits + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
        let text = digits + 0x3030_3030_3030_3030 + letters * u64::from(b'a' - b'9' - 1);
        eight.copy_from_slice(&text.to_be_bytes());
    }
    text
}

/// What a request is called, before it is called anything.
const LINES: &[u8; 118] = b"x-request-id: 00000000000000000000000000000000\r\n\
    traceparent: 00-00000000000000000000000000000000-0000000000000000-00\r\n";

/// Where in the lines the first of them is, and the 32 digits in it.
const REQUEST_ID_LINE: Range<usize> = 0..48;
const REQUEST_ID: Range<usize> = 14..46;

/// Where in the second are the trace id, our span's id, and the trace flags as they came.
const TRACE_ID: Range<usize> = 64..96;
const SPAN_ID: Range<usize> = 97..113;
const FLAGS: Range<usize> = 114..116;

/// Bytes of a request id that a trusted peer may choose; a longer one is replaced.
const REQUEST_ID_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, trusted: bool, forwarded: &[&str]) -> String {
        let mut fields = Fields::default();
        for value in forwarded {
            fields.push(b"X-Forwarded-For", value.as_bytes());
        }
        let mut peer = Peer::new(SocketAddr::new(peer.parse().expect("an address"), 1), "http");
        peer.trusted = trusted;
        let range = Cidr { address: IpAddr::from([10, 0, 0, 0]), bits: 8 };
        peer.client_address(&fields, &[range]).expect("an address").to_string()
    }

    #[test]
    fn a_stranger_is_who_it_is_whatever_it_says() {
        assert_eq!(client("192.0.2.1", false, &["10.9.9.9"]), "192.0.2.1");
    }

    #[test]
    fn behind_trusted_proxies_the_client_is_the_last_address_that_is_not_one_of_them() {
        assert_eq!(client("10.0.0.1", true, &["6.6.6.6, 192.0.2.7, 10.0.0.2", "10.0.0.3"]), "192.0.2.7");
        assert_eq!(client("10.0.0.1", true, &["[2001:db8::1]:443"]), "2001:db8::1");
        assert_eq!(client("10.0.0.1", true, &["::ffff:192.0.2.9"]), "192.0.2.9");
    }

    #[test]
    fn what_is_no_address_ends_the_search_where_it_stands() {
        assert_eq!(client("10.0.0.1", true, &["192.0.2.7, unknown, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(client("10.0.0.1", true, &[]), "10.0.0.1");
    }

    #[test]
    fn what_a_trusted_proxy_tells_by_x_forwarded_alone_is_told_by_forwarded_too() {
        let mut fields = Fields::default();
        fields.push(b"X-Forwarded-For", b"192.0.2.7, 2001:db8::1, nobody");
        fields.push(b"X-Forwarded-Proto", b"https");
        let mut peer = Peer::new(SocketAddr::from(([10, 0, 0, 1], 1)), "http");
        let written = |peer: &Peer| {
            let mut out = Vec::new();
            peer.write_fields(&mut out, &fields, b"a");
            let text = String::from_utf8(out).expect("text");
            text.lines().find_map(|line| line.strip_prefix("forwarded: ").map(str::to_owned)).expect("a Forwarded")
        };
        assert_eq!(written(&peer), "for=10.0.0.1;host=\"a\";proto=http");
        peer.trusted = true;
        let before = "for=192.0.2.7;proto=https, for=\"[2001:db8::1]\", for=unknown";
        assert_eq!(written(&peer), format!("{before}, for=10.0.0.1;host=\"a\";proto=http"));
    }

    #[test]
    fn a_request_is_told_by_its_two_lines_whoever_named_it() {
        let told = |identity: &Identity| {
            let mut out = Vec::new();
            identity.write_fields(&mut out);
            String::from_utf8(out).expect("text")
        };
        let mut fields = Fields::default();
        fields.push(b"x-request-id", b"their-id");
        let random = (0x0123_4567_89ab_cdef_fedc_ba98_7654_3210, 0x0009_0abc_def1);
        let (trace, span) = ("0123456789abcdeffedcba9876543210", "000000090abcdef1");
        let ours = told(&Identity::new(&fields, false, random));
        assert_eq!(ours, format!("x-request-id: {trace}\r\ntraceparent: 00-{trace}-{span}-00\r\n"));
        let theirs = told(&Identity::new(&fields, true, random));
        assert_eq!(theirs, format!("x-request-id: their-id\r\ntraceparent: 00-{trace}-{span}-00\r\n"));
    }

    #[test]
    fn a_number_is_spelled_as_the_standard_library_spells_it() {
        for number in [0, u128::MAX, 0x0f0f_9a9a_a9a9_f0f0_1234_5678_9abc_def0, 10, 9 << 100] {
            assert_eq!(String::from_utf8_lossy(&hexadecimal(number)), format!("{number:032x}"));
        }
    }

    #[test]
    fn a_trace_is_continued_only_for_trusted_peers_and_only_if_it_is_valid() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let mut fields = Fields::default();
        fields.push(b"traceparent", parent.as_bytes());
        fields.push(b"x-request-id", b"their-id");
        let trusted = Identity::new(&fields, true, (1, 2));
        assert_eq!(trusted.trace_id_text(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(trusted.request_id_text(), "their-id");
        let stranger = Identity::new(&fields, false, (1, 2));
        assert_eq!(stranger.trace_id_text(), "00000000000000000000000000000001");
        assert_eq!(stranger.request_id_text(), "00000000000000000000000000000001");
        for broken in ["00-0-0-0", "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", ""] {
            assert!(parse_traceparent(broken.as_bytes()).is_none(), "{broken}");
        }
    }
}
