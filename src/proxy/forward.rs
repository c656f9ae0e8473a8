//! The heads that go on: to a provider, and back to the client. One pass over the fields, bytes copied into one buffer.

use super::frame::Request;
use super::identity::{Identity, Peer};
use super::{ladder, respond, rewrite};
use crate::config::{HeaderRules, HostRule, OUR_FIELDS, Provider, Rewrite};
use crate::http1::encode;
use crate::http1::fields::{Fields, Known, elements, reads_as};
use crate::http1::framing::Length;
use crate::http1::head::{ResponseHead, Version};
use crate::http2::{heads, lines};
use crate::net::side::Side;
use crate::policy::ladder::Kind;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Uri};
use std::time::Duration;

/// Everything that shapes a request on its way to one provider.
#[derive(Debug, Clone, Copy)]
pub struct Onward<'a> {
    /// The request.
    pub request: &'a Request<'a>,
    /// The route's changes.
    pub rewrite: &'a Rewrite,
    /// The provider's changes.
    pub provider: &'a Provider,
    /// Who sent it.
    pub peer: &'a Peer,
    /// What it is called.
    pub identity: &'a Identity,
    /// The fields that showed keys of clients to us.
    pub key_fields: [Option<Known>; 2],
    /// What is left of the request's time.
    pub left: Duration,
    /// The answer is to come without a content coding: its head is dropped, which would tell of one.
    pub plain: bool,
}

/// Appends the head of a request for a provider, as HTTP/1.1 has it.
pub fn request_head(out: &mut Vec<u8>, onward: &Onward<'_>) {
    out.extend_from_slice(onward.request.method.as_bytes());
    out.push(b' ');
    target(out, onward);
    out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    authority(out, onward);
    out.extend_from_slice(b"\r\n");
    request_fields(out, onward, Version::Http11);
    out.extend_from_slice(b"\r\n");
}

/// The head of a request for a provider, as HTTP/2 has it. An upgrade becomes the extended CONNECT of RFC 8441.
///
/// # Errors
/// What has no form in HTTP/2: a target that is no URI by its strict rules.
pub fn request_parts(onward: &Onward<'_>) -> Result<http::Request<()>, http::Error> {
    let (mut path, mut host, mut lines) = (Vec::new(), Vec::new(), Vec::with_capacity(HEAD_EXPECTED));
    target(&mut path, onward);
    authority(&mut host, onward);
    request_fields(&mut lines, onward, Version::Http2);
    let upgrade = onward.request.upgrade;
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(if onward.provider.url.scheme.is_tls() { Scheme::HTTPS } else { Scheme::HTTP });
    uri.authority = Some(Authority::from_maybe_shared(host)?);
    uri.path_and_query = Some(PathAndQuery::from_maybe_shared(path)?);
    let mut request = http::Request::new(());
    *request.method_mut() = if upgrade { Method::CONNECT } else { onward.request.method.parse()? };
    *request.uri_mut() = Uri::from_parts(uri)?;
    *request.headers_mut() = lines::map(&lines);
    if upgrade {
        heads::drop_upgrade(request.headers_mut());
        request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    }
    Ok(request)
}

/// The path and query for a provider.
fn target(out: &mut Vec<u8>, onward: &Onward<'_>) {
    let Onward { request, rewrite, provider, .. } = *onward;
    rewrite::upstream_target(&provider.url.prefix, rewrite, request.path, request.query, out);
}

/// Everything of a request's head but its first line and Host.
fn request_fields(out: &mut Vec<u8>, onward: &Onward<'_>, version: Version) {
    let Onward { request, rewrite, provider, peer, identity, key_fields, left, plain } = *onward;
    let rules = [&rewrite.headers, &provider.headers];
    let changes = changes_any(&request.head.fields, rules);
    // Whoever writes this field as well would set the provider's deadline.
    let deadline = provider.deadline_header.as_ref().map_or(&b""[..], String::as_bytes);
    for (known, name, value) in request.head.fields.iter() {
        let is_kept_here = key_fields.contains(&Some(known))
            || reads_as(name, deadline)
            || (changes && is_changed(name, &request.head.fields, rules))
            || (plain && name.eq_ignore_ascii_case(b"accept-encoding"));
        if passes_up(known, peer.trusted) && !is_kept_here {
            encode::field(out, name, value);
        }
    }
    if request.expects_continue {
        out.extend_from_slice(b"expect: 100-continue\r\n");
    }
    if version == Version::Http2 {
        if request.head.fields.lists(Known::Te, b"trailers") {
            out.extend_from_slice(b"te: trailers\r\n");
        }
    } else {
        connection_fields(out, &request.head.fields, request.upgrade);
    }
    length_field(out, request.length, version);
    let ours = out.len();
    peer.write_fields(out, &request.head.fields, request.authority);
    identity.write_fields(out);
    if plain {
        out.extend_from_slice(b"accept-encoding: identity\r\n");
    }
    via(out, &request.head.fields, request.head.version);
    drop_named(out, ours, rules);
    if !deadline.is_empty() {
        let milliseconds = left.as_secs() * 1000 + u64::from(left.subsec_millis());
        encode::field(out, deadline, itoa::Buffer::new().format(milliseconds).as_bytes());
    }
    out.extend_from_slice(rewrite.headers.lines());
    out.extend_from_slice(provider.headers.lines());
}

/// The field that tells a body's length, where that version needs one.
pub fn length_field(out: &mut Vec<u8>, length: Length, version: Version) {
    if version != Version::Http2 || matches!(length, Length::Exact(_)) {
        encode::length_field(out, length);
    }
}

/// How an answer goes to the client.
#[derive(Debug, Clone, Copy)]
pub struct Back<'a> {
    /// The route's changes.
    pub rewrite: &'a Rewrite,
    /// What the request is called.
    pub identity: &'a Identity,
    /// How the body will be framed.
    pub length: Length,
    /// The client's version.
    pub version: Version,
    /// Whether the connection stays open after it.
    pub keep_alive: bool,
    /// Whether it is the 101 that ends HTTP on this connection.
    pub upgrade: bool,
    /// The rung that answers, where that is not the route's own pool.
    pub degraded: Option<Kind>,
    /// Our own account of failed attempts, if there were any.
    pub trail: Option<&'a str>,
    /// What `Cache-Status` says, where a cache was asked.
    pub cached: Option<&'a str>,
}

/// Appends the head of a provider's final answer for the client.
pub fn answer_head(out: &mut Vec<u8>, head: &ResponseHead, back: &Back<'_>) {
    // HTTP/2 has no reason phrases; providers that speak it leave us the usual one to say.
    let reason = if head.version == Version::Http2 { respond::phrase(head.status).as_bytes() } else { head.reason() };
    status_line(out, back.version, head.status, reason);
    answer_fields(out, (head.status, head.version), (&head.fields, |_| true), None, back);
}

/// Appends the head of an answer made of what is kept: those of its fields that are to be sent, and its age.
pub fn kept_head<'f>(
    out: &mut Vec<u8>,
    status: u16,
    fields: (&'f Fields, impl Fn(&'f [u8]) -> bool),
    age: Option<u64>,
    back: &Back<'_>,
) {
    status_line(out, back.version, status, respond::phrase(status).as_bytes());
    answer_fields(out, (status, Version::Http11), fields, age, back);
}

/// Everything of an answer's head but its first line.
fn answer_fields<'f>(
    out: &mut Vec<u8>,
    (status, version): (u16, Version),
    (fields, sent): (&'f Fields, impl Fn(&'f [u8]) -> bool),
    age: Option<u64>,
    back: &Back<'_>,
) {
    let rules = [&back.rewrite.response_headers];
    let changes = changes_any(fields, rules);
    for (known, name, value) in fields.iter() {
        if !sent(name) || (back.degraded.is_some() && ladder::is_lifetime(name)) {
            continue;
        }
        // What a GET would have got: an answer to HEAD and a 304 say so. A 101 and a 204 have no body to speak of.
        let could_have = !matches!(status, ..200 | 204);
        let announced = known == Known::ContentLength && back.length == Length::None && could_have;
        if (passes_down(known) || announced) && !(changes && is_changed(name, fields, rules)) {
            encode::field(out, name, value);
        }
    }
    let ours = out.len();
    if let Some(age) = age {
        encode::field(out, b"age", itoa::Buffer::new().format(age).as_bytes());
    }
    if !fields.has(Known::Date) {
        super::identity::date_field(out);
    }
    if back.upgrade {
        connection_fields(out, fields, true);
    } else {
        connection_field(out, back.version, back.keep_alive);
        length_field(out, back.length, back.version);
    }
    via(out, fields, version);
    back.identity.write_request_id(out);
    if let Some(trail) = back.trail {
        encode::field(out, b"proxy-status", trail.as_bytes());
    }
    if let Some(cached) = back.cached {
        encode::field(out, b"cache-status", cached.as_bytes());
    }
    if let Some(rung) = back.degraded {
        ladder::mark(out, rung);
    }
    drop_named(out, ours, rules);
    out.extend_from_slice(back.rewrite.response_headers.lines());
    end_head(out, back.version);
}

/// Appends an interim answer (1xx, not 101) for the client. What the route takes out of answers is taken out of these too;
/// what it sets is for the final one.
pub fn interim_head(out: &mut Vec<u8>, head: &ResponseHead, version: Version, rewrite: &Rewrite) {
    status_line(out, version, head.status, head.reason());
    for (known, name, value) in head.fields.iter() {
        if passes_down(known) && !is_changed(name, &head.fields, [&rewrite.response_headers]) {
            encode::field(out, name, value);
        }
    }
    end_head(out, version);
}

/// Says to a client that waits for it that its body is wanted (RFC 9110 §15.2.1).
pub fn go_on(client: &mut Side<'_>, version: Version) {
    status_line(client.out(), version, 100, b"Continue");
    end_head(client.out(), version);
    client.send_interim(100);
}

/// `HTTP/1.1 status reason`; HTTP/2 says the status beside the fields.
pub fn status_line(out: &mut Vec<u8>, version: Version, status: u16, reason: &[u8]) {
    if version == Version::Http2 {
        return;
    }
    let digit = |place: u16| b'0' + (status / place % 10) as u8;
    let mut line = *b"HTTP/1.1 000 ";
    line[9..12].copy_from_slice(&[digit(100), digit(10), digit(1)]);
    out.extend_from_slice(&line);
    out.extend_from_slice(reason);
    out.extend_from_slice(b"\r\n");
}

/// The empty line, where the version has one.
pub fn end_head(out: &mut Vec<u8>, version: Version) {
    if version != Version::Http2 {
        out.extend_from_slice(b"\r\n");
    }
}

/// What the client has to know about the connection. That it closes is also said to HTTP/1.0: our status line says
/// HTTP/1.1, from which a client may conclude that it stays open.
pub fn connection_field(out: &mut Vec<u8>, version: Version, keep_alive: bool) {
    match (version, keep_alive) {
        (Version::Http11, true) | (Version::Http2, _) => {}
        (Version::Http10, true) => out.extend_from_slice(b"connection: keep-alive\r\n"),
        (_, false) => out.extend_from_slice(b"connection: close\r\n"),
    }
}

/// Whether a request field passes as it is. What does not is ours to write, concerns one connection only, or is a forgery
/// unless a trusted peer sent it.
#[inline]
fn passes_up(known: Known, trusted: bool) -> bool {
    match known {
        Known::Other | Known::Date | Known::Trailer | Known::Authorization | Known::XApiKey | Known::Priority => true,
        Known::XForwarded | Known::XRealIp | Known::Tracestate => trusted,
        _ => false,
    }
}

/// Whether an answer field passes as it is.
#[inline]
fn passes_down(known: Known) -> bool {
    !matches!(
        known,
        Known::ContentLength
            | Known::TransferEncoding
            | Known::Connection
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::Upgrade
            | Known::Te
            | Known::Via
            | Known::XRequestId
            | Known::Http2Settings
    )
}

/// Whether a field is removed or replaced by configuration, under its own name or one that the provider may read as that;
/// or was nominated by `Connection` as belonging to one hop.
#[inline]
pub fn is_changed<const N: usize>(name: &[u8], fields: &Fields, rules: [&HeaderRules; N]) -> bool {
    is_named(name, rules) || is_nominated(name, fields)
}

#[inline]
fn is_named<const N: usize>(name: &[u8], rules: [&HeaderRules; N]) -> bool {
    rules.iter().any(|rules| rules.name(name))
}

/// Whether [`is_changed`] can hold for any field: mostly not, and asked once instead of for each.
#[inline]
fn changes_any<const N: usize>(fields: &Fields, rules: [&HeaderRules; N]) -> bool {
    fields.has(Known::Connection) || rules.iter().any(|rules| !rules.is_empty())
}

/// Takes out again, of the field lines from `start` on, what the configuration removes or sets: its word is the last, also
/// on what we write ourselves.
fn drop_named<const N: usize>(out: &mut Vec<u8>, start: usize, rules: [&HeaderRules; N]) {
    if !rules.iter().any(|rules| rules.name_ours()) {
        debug_assert!(
            split(&out[start..]).all(|line| OUR_FIELDS.iter().any(|ours| ours.as_bytes() == name_of(line))),
            "a field that we write is missing in OUR_FIELDS"
        );
        return;
    }
    let stays = |line: &&[u8]| !is_named(name_of(line), rules);
    // Rules for others of them cost no copy.
    if split(&out[start..]).all(|line| stays(&line)) {
        return;
    }
    let ours = out.split_off(start);
    for line in split(&ours).filter(stays) {
        out.extend_from_slice(line);
    }
}

fn split(lines: &[u8]) -> impl Iterator<Item = &[u8]> {
    lines.split_inclusive(|byte| *byte == b'\n')
}

fn name_of(line: &[u8]) -> &[u8] {
    line.split(|byte| *byte == b':').next().unwrap_or_default()
}

/// Whether a message belongs to a call of gRPC.
pub fn is_grpc(fields: &Fields) -> bool {
    fields.named(b"content-type").any(|kind| kind.starts_with(b"application/grpc"))
}

/// RFC 9110 §7.6.1: what `Connection` names goes no further.
#[inline]
pub fn is_nominated(name: &[u8], fields: &Fields) -> bool {
    fields.has(Known::Connection) && fields.lists(Known::Connection, name)
}

/// The Host that the provider sees.
fn authority(out: &mut Vec<u8>, onward: &Onward<'_>) {
    match &onward.provider.host {
        HostRule::Name(name) => out.extend_from_slice(name.as_bytes()),
        HostRule::Preserve if !onward.request.authority.is_empty() => out.extend_from_slice(onward.request.authority),
        HostRule::Preserve | HostRule::Upstream => {
            out.extend_from_slice(onward.provider.url.authority().as_bytes());
        }
    }
}

/// `Connection` and what it nominates, written anew: an upgrade under way, and `TE: trailers`.
fn connection_fields(out: &mut Vec<u8>, fields: &Fields, upgrade: bool) {
    let trailers = fields.lists(Known::Te, b"trailers");
    if upgrade {
        for value in fields.values(Known::Upgrade) {
            encode::field(out, b"upgrade", value);
        }
    }
    match (upgrade, trailers) {
        (true, true) => out.extend_from_slice(b"te: trailers\r\nconnection: upgrade, te\r\n"),
        (true, false) => out.extend_from_slice(b"connection: upgrade\r\n"),
        (false, true) => out.extend_from_slice(b"te: trailers\r\nconnection: te\r\n"),
        (false, false) => {}
    }
}

/// The `Via` that came, and us (RFC 9110 §7.6.3).
fn via(out: &mut Vec<u8>, fields: &Fields, received: Version) {
    let ours = match received {
        Version::Http10 => b"via: 1.0 sluice\r\n",
        Version::Http11 => b"via: 1.1 sluice\r\n",
        Version::Http2 => b"via: 2.0 sluice\r\n",
    };
    if !fields.has(Known::Via) {
        out.extend_from_slice(ours);
        return;
    }
    let (name, us) = ours.split_at(b"via: ".len());
    out.extend_from_slice(name);
    for element in fields.values(Known::Via).flat_map(elements) {
        out.extend_from_slice(element);
        out.extend_from_slice(b", ");
    }
    out.extend_from_slice(us);
}

/// Room made for a head before it is written.
const HEAD_EXPECTED: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    /// The fields, sorted, that a client gets of an answer with these.
    fn fields(said: &str, degraded: Option<Kind>, rewrite: &Rewrite) -> Vec<String> {
        let mut head = ResponseHead::default();
        head.parse(format!("HTTP/1.1 200 OK\r\ndate: now\r\n{said}\r\n").as_bytes(), 20).expect("a head");
        let identity = Identity::new(&head.fields, false, (0, 0));
        let back = Back {
            rewrite,
            identity: &identity,
            length: Length::None,
            version: Version::Http11,
            keep_alive: true,
            upgrade: false,
            degraded,
            trail: None,
            cached: None,
        };
        let mut out = Vec::new();
        answer_head(&mut out, &head, &back);
        let text = String::from_utf8(out).expect("text");
        let ours = ["HTTP/1.1", "date:", "via:", "x-request-id:"];
        let lines = text.lines().filter(|line| !line.is_empty() && !ours.iter().any(|ours| line.starts_with(ours)));
        let mut lines: Vec<String> = lines.map(ToOwned::to_owned).collect();
        lines.sort_unstable();
        lines
    }

    const KEPT: &str = "Cache-Control: max-age=60\r\nCDN-Cache-Control: max-age=60\r\nExpires: later\r\nAge: 3\r\n";

    #[test]
    fn what_a_rung_answers_says_so_and_is_kept_by_nobody() {
        let none = Rewrite::default();
        let reduced = fields(KEPT, Some(Kind::Reduced), &none);
        assert_eq!(reduced, ["Age: 3", "cache-control: no-store", "sluice-degraded: reduced"]);
        let stale = fields(KEPT, Some(Kind::Stale), &none);
        assert_eq!(stale, ["Age: 3", "cache-control: no-cache", "sluice-degraded: stale"]);
        assert_eq!(fields(KEPT, None, &none).len(), 4, "an ordinary answer stays what it is");
    }

    #[test]
    fn a_provider_cannot_call_its_own_answer_degraded_where_ours_is() {
        let fields = fields("Sluice-Degraded: static\r\n", Some(Kind::Pool), &Rewrite::default());
        assert_eq!(fields, ["cache-control: no-store", "sluice-degraded: pool"]);
    }

    #[test]
    fn the_operators_word_on_a_lifetime_is_the_last() {
        let response_headers = HeaderRules::new(vec![("cache-control".into(), Secret::new("max-age=5"))], Vec::new());
        let rewrite = Rewrite { response_headers, ..Rewrite::default() };
        let fields = fields(KEPT, Some(Kind::Pool), &rewrite);
        assert_eq!(fields, ["Age: 3", "cache-control: max-age=5", "sluice-degraded: pool"]);
    }
}
