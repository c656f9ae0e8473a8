//! What a valid request is: everything that is checked before anyone is asked what to do with it.

use crate::http1::fields::{CONNECTION_OPTIONS, Fields, Known, elements};
use crate::http1::framing::{self, Length};
use crate::http1::head::{RequestHead, Version};
use crate::http1::target::{self, Form, HostPort};
use crate::proxy::path;
use crate::proxy::route::{self, Asked};
use std::borrow::Cow;

/// A request whose head passed every check. It borrows from the head; the path may be spelled anew.
#[derive(Debug)]
pub struct Request<'a> {
    /// The head as it came.
    pub head: &'a RequestHead,
    /// The method as written.
    pub method: &'a str,
    /// The Host in its one spelling, without a port; empty where HTTP/1.0 sent none.
    pub host: Cow<'a, str>,
    /// The Host as written, for providers and forwarding fields.
    pub authority: &'a [u8],
    /// The normalised path, or `*`.
    pub path: &'a str,
    /// What followed the `?`, as written.
    pub query: Option<&'a str>,
    /// How its body ends.
    pub length: Length,
    /// Whether the client lets the connection stay open.
    pub keep_alive: bool,
    /// Whether it asks to leave HTTP (`Connection: upgrade` and an `Upgrade` field).
    pub upgrade: bool,
    /// Whether the client waits for a 100 before it sends the body.
    pub expects_continue: bool,
}

/// What is wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalid {
    /// It is ambiguous or broken; says how.
    Bad(&'static str),
    /// CONNECT and TRACE are refused whatever the route.
    Method,
}

// === impl Invalid ===

impl Invalid {
    /// What is wrong, where it is more than the method.
    pub fn why(self) -> Option<&'static str> {
        match self {
            Invalid::Bad(why) => Some(why),
            Invalid::Method => None,
        }
    }
}

/// Checks a parsed head. `scratch` holds the path where it has to be spelled anew.
///
/// # Errors
/// See [`Invalid`].
pub fn check<'a>(head: &'a RequestHead, scratch: &'a mut String) -> Result<Request<'a>, Invalid> {
    let method = head.method();
    if method == "CONNECT" || method == "TRACE" {
        return Err(Invalid::Method);
    }
    if head.fields.lists_more_than(Known::Connection, CONNECTION_OPTIONS) {
        return Err(Invalid::Bad("Connection has too many options"));
    }
    let length = length(head)?;
    let target = target::parse(method, head.target()).map_err(Invalid::Bad)?;
    let (authority, host) = host(head, &target)?;
    let path = if target.form == Form::Asterisk {
        "*"
    } else {
        path::normalise(target.path, scratch).map_err(Invalid::Bad)?
    };
    let fields = &head.fields;
    Ok(Request {
        head,
        method,
        host: host.host,
        authority,
        path,
        query: target.query,
        length,
        keep_alive: keeps_alive(fields, head.version),
        upgrade: asks_upgrade(fields, head.version),
        expects_continue: expects_continue(fields, head.version, length)?,
    })
}

/// A URL in the spelling in which requests for it are told apart: its scheme's own port left out, host and path in their one
/// spelling. `None` where no request could ask for it.
#[must_use]
pub fn spelled(url: &str) -> Option<String> {
    let target = target::parse("GET", url.as_bytes()).ok()?;
    let Form::Absolute { tls } = target.form else { return None };
    let (scheme, port) = if tls { ("https", ":443") } else { ("http", ":80") };
    let authority = target.authority?.to_ascii_lowercase();
    let authority = authority.strip_suffix(port).unwrap_or(&authority);
    let mut scratch = String::new();
    let path = path::normalise(target.path, &mut scratch).ok()?;
    let query = target.query.map(|query| format!("?{query}")).unwrap_or_default();
    Some(format!("{scheme}://{authority}{path}{query}"))
}

/// How the body ends. HTTP/2 says beside the fields whether there is one.
fn length(head: &RequestHead) -> Result<Length, Invalid> {
    let declared = framing::request(&head.fields, head.version).map_err(Invalid::Bad)?;
    match (head.version, declared) {
        (Version::Http2, Length::None) if !head.ends && !asks_upgrade(&head.fields, head.version) => {
            Ok(Length::Chunked)
        }
        (_, declared) => Ok(declared),
    }
}

/// The one Host, agreeing with an absolute target (RFC 9112 §3.2.2 would let the target win; we refuse instead).
fn host<'a>(head: &'a RequestHead, target: &target::Target<'a>) -> Result<(&'a [u8], HostPort<'a>), Invalid> {
    let mut values = head.fields.values(Known::Host);
    let written = match (values.next(), values.next()) {
        (Some(written), None) => written,
        (Some(_), Some(_)) => return Err(Invalid::Bad("Host is given more than once")),
        (None, _) if head.version == Version::Http10 => target.authority.unwrap_or("").as_bytes(),
        (None, _) => return Err(Invalid::Bad("Host is missing")),
    };
    let host = target::host(written).map_err(Invalid::Bad)?;
    if host.host.is_empty() && head.version != Version::Http10 {
        return Err(Invalid::Bad("Host is empty"));
    }
    if target.authority.is_some() && !target.agrees(&host) {
        return Err(Invalid::Bad("the request-target names another host than Host"));
    }
    Ok((written, host))
}

/// RFC 9112 §9.3.
fn keeps_alive(fields: &Fields, version: Version) -> bool {
    match version {
        Version::Http2 => true,
        Version::Http11 => !fields.lists(Known::Connection, b"close"),
        Version::Http10 => fields.lists(Known::Connection, b"keep-alive") && !fields.lists(Known::Connection, b"close"),
    }
}

/// Whether the request asks to leave HTTP/1 for something else. Never for HTTP/2 or TLS: behind a tunnel we would not see
/// the requests in it, and every rule about them could be walked around.
fn asks_upgrade(fields: &Fields, version: Version) -> bool {
    let hides_requests = |token: &[u8]| {
        let name = token.split(|byte| *byte == b'/').next().unwrap_or(token);
        [&b"h2c"[..], b"h2", b"http", b"tls"].iter().any(|hidden| name.eq_ignore_ascii_case(hidden))
    };
    version != Version::Http10
        && fields.has(Known::Upgrade)
        && fields.lists(Known::Connection, b"upgrade")
        && !fields.values(Known::Upgrade).flat_map(elements).any(hides_requests)
}

/// Whether a 100 is awaited: `Expect` counts only in HTTP/1.1 and before a body (RFC 9110 §10.1.1).
fn expects_continue(fields: &Fields, version: Version, length: Length) -> Result<bool, Invalid> {
    match fields.get(Known::Expect) {
        None => Ok(false),
        Some(value) if value.eq_ignore_ascii_case(b"100-continue") => {
            Ok(version != Version::Http10 && !matches!(length, Length::None | Length::Exact(0)))
        }
        Some(_) => Err(Invalid::Bad("the only expectation there is, is 100-continue")),
    }
}

impl route::Fields for Fields {
    fn any(&self, name: &str, test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.named(name.as_bytes()).any(test)
    }
}

// === impl Request ===

impl Request<'_> {
    /// What it asks of the routes.
    pub fn asked(&self) -> Asked<'_> {
        let Request { method, path, query, .. } = *self;
        Asked { host: &self.host, path, query, method, headers: &self.head.fields }
    }

    /// Whether nothing is meant to change by it (RFC 9110 §9.2.1), as far as we know the method.
    pub fn is_safe(&self) -> bool {
        matches!(self.method, "GET" | "HEAD" | "OPTIONS")
    }

    /// Whether what it asks for instead of HTTP is a WebSocket.
    pub fn is_websocket(&self) -> bool {
        self.head.fields.lists(Known::Upgrade, b"websocket")
    }

    /// How the version is spelled in logs.
    pub fn protocol(version: Version) -> &'static str {
        match version {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
            Version::Http2 => "HTTP/2.0",
        }
    }
}
