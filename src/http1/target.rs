//! Request-targets and `Host` values: what a request asks for, and of whom.
//!
//! RFC 9112 §3.2 gives a request-target four forms; this file tells them apart and cuts them up without copying. It is
//! strict where two readers could disagree, because a gateway and the provider behind it are two readers.
//!
//! **Which bytes pass.** RFC 3986 has no place for `| ^ [ ]` in a path, nor for those and `` ` { } \ `` in a query. The
//! WHATWG URL standard leaves them bare all the same, so browsers send them; refusing them would refuse real people. We
//! pass exactly what either standard passes, and no more: controls, space, DEL, bytes above 0x7E, `"`, `<`, `>` and `#`
//! are refused everywhere. A backslash in a path is refused too, since some servers take it for a slash (browsers turn
//! it into one before they send it). A stray `%` passes in a query, where browsers leave it; [`crate::proxy::path`]
//! refuses it in a path.
//!
//! **Which hosts pass.** A name of letters, digits, `-`, `_`, `~` and dots, an IPv4 address, or an IPv6 address in
//! brackets. RFC 3986 would also allow percent-encoding and `!$&'()*+,;=` in a name. No host is called that, and an
//! encoded letter or a comma (two Host fields joined by someone before us) is another spelling to be let in by, so
//! both are refused. What comes out has one spelling: lower case, no closing dot, IPv6 in its canonical form.

use std::borrow::Cow;
use std::net::Ipv6Addr;

/// A request-target, cut up. Nothing is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    /// How it was written.
    pub form: Form,
    /// The authority it names, as written: there in absolute and authority form only.
    pub authority: Option<&'a str>,
    /// The path as sent, beginning with `/`; `*` where the server as a whole is meant; empty in authority form.
    pub path: &'a str,
    /// What follows the first `?`, which may be nothing.
    pub query: Option<&'a str>,
}

/// The four ways to write a request-target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `/path?query`.
    Origin,
    /// `http://host/path?query`.
    Absolute {
        /// Whether it said `https`.
        tls: bool,
    },
    /// `*`, for OPTIONS.
    Asterisk,
    /// `host:port`, for CONNECT.
    Authority,
}

/// A host, in the one spelling that is compared, and the port written behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort<'a> {
    /// Lower case, without a closing dot; IPv6 in brackets; empty where the field was.
    pub host: Cow<'a, str>,
    /// The port, where one was written.
    pub port: Option<u16>,
}

/// Cuts a request-target up, without copying.
///
/// # Errors
/// Says, for the client, what is wrong with it: a byte that has no place there, a form that `method` does not take,
/// a scheme that is not HTTP's, an authority that is no host.
pub fn parse<'a>(method: &str, target: &'a [u8]) -> Result<Target<'a>, &'static str> {
    match target {
        _ if method == "CONNECT" => authority_form(target),
        [b'/', ..] => origin_form(target),
        [b'*'] => asterisk_form(method),
        [] => Err("the request-target is empty"),
        _ => absolute_form(method, target),
    }
}

/// Checks a `Host` value, or an authority, and gives it its one spelling. Surrounding blanks are the caller's to trim.
///
/// An empty value is allowed: RFC 9112 §3.2 has clients send it where the URI has no authority. It names no host, so
/// only routes for any host answer it.
///
/// # Errors
/// Says, for the client, what is wrong with it.
pub fn host(value: &[u8]) -> Result<HostPort<'_>, &'static str> {
    // No host can hold one, so that it is looked for only where something is wrong.
    host_and_port(value).map_err(|why| if value.contains(&b'@') { "the host holds user information" } else { why })
}

fn host_and_port(value: &[u8]) -> Result<HostPort<'_>, &'static str> {
    match value {
        [] => Ok(HostPort { host: Cow::Borrowed(""), port: None }),
        [b'[', ..] => ipv6(value),
        _ => name_or_ipv4(value).ok_or_else(|| why_no_name(value)),
    }
}

/// Whether `byte` may stand bare in a path.
#[inline]
#[must_use]
pub fn is_path_byte(byte: u8) -> bool {
    PLACES[byte as usize] & PATH != 0
}

/// Whether `byte` may stand bare in a path and means nothing there but itself: no `/` and no `%`.
#[inline]
#[must_use]
pub fn is_segment_byte(byte: u8) -> bool {
    PLACES[byte as usize] & SEGMENT != 0
}

/// Whether `byte` may stand bare in a query.
#[inline]
#[must_use]
pub fn is_query_byte(byte: u8) -> bool {
    PLACES[byte as usize] & QUERY != 0
}

// === impl Target ===

impl Target<'_> {
    /// Whether the target names the same host and port as the `Host` field. A target without an authority agrees with
    /// any; a port left out is the scheme's.
    #[must_use]
    pub fn agrees(&self, field: &HostPort<'_>) -> bool {
        let Some(authority) = self.authority else { return true };
        let usual = if self.form == (Form::Absolute { tls: true }) { 443 } else { 80 };
        host(authority.as_bytes())
            .is_ok_and(|own| own.host == field.host && own.port.unwrap_or(usual) == field.port.unwrap_or(usual))
    }
}

// The four forms.

fn origin_form(target: &[u8]) -> Result<Target<'_>, &'static str> {
    let (path, query) = path_and_query(target)?;
    Ok(Target { form: Form::Origin, authority: None, path, query })
}

fn asterisk_form(method: &str) -> Result<Target<'static>, &'static str> {
    if method != "OPTIONS" {
        return Err("the request-target * is for OPTIONS only");
    }
    Ok(Target { form: Form::Asterisk, authority: None, path: "*", query: None })
}

fn absolute_form<'a>(method: &str, target: &'a [u8]) -> Result<Target<'a>, &'static str> {
    let (tls, rest) = scheme(target)?;
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let authority = authority(&rest[..end])?;
    let (path, query) = path_and_query(&rest[end..])?;
    let path = match (path, query) {
        // RFC 9112 §3.2.4: this is how OPTIONS * reaches a proxy.
        ("", None) if method == "OPTIONS" => "*",
        ("", _) => "/",
        _ => path,
    };
    Ok(Target { form: Form::Absolute { tls }, authority: Some(authority), path, query })
}

fn authority_form(target: &[u8]) -> Result<Target<'_>, &'static str> {
    let authority = authority(target)?;
    if host(target)?.port.is_none() {
        return Err("CONNECT needs a host and a port");
    }
    Ok(Target { form: Form::Authority, authority: Some(authority), path: "", query: None })
}

// Their parts.

/// Splits off `http://` or `https://`; true for the latter. Schemes have no case.
fn scheme(target: &[u8]) -> Result<(bool, &[u8]), &'static str> {
    let after = |scheme: &str| {
        let (head, rest) = target.split_at_checked(scheme.len())?;
        head.eq_ignore_ascii_case(scheme.as_bytes()).then_some(rest)
    };
    if let Some(rest) = after("http://") {
        return Ok((false, rest));
    }
    if let Some(rest) = after("https://") {
        return Ok((true, rest));
    }
    Err("the request-target is neither a path nor an http or https URL")
}

/// An authority that must name somebody, as text.
fn authority(bytes: &[u8]) -> Result<&str, &'static str> {
    if bytes.is_empty() {
        return Err("the request-target names no host");
    }
    host(bytes)?;
    str::from_utf8(bytes).map_err(|_| BAD_HOST)
}

/// Cuts at the first `?` and checks every byte on either side.
fn path_and_query(bytes: &[u8]) -> Result<(&str, Option<&str>), &'static str> {
    let end = bytes.iter().position(|&byte| !is_path_byte(byte)).unwrap_or(bytes.len());
    let (path, rest) = bytes.split_at(end);
    let query = match rest {
        [] => None,
        [b'?', query @ ..] => Some(query),
        [b'#', ..] => return Err(FRAGMENT),
        [b'\\', ..] => return Err("the path holds a backslash"),
        _ => return Err("the path holds a byte that must be percent-encoded"),
    };
    let query = query.map(checked_query).transpose()?;
    Ok((str::from_utf8(path).map_err(|_| "the path is not ASCII")?, query))
}

fn checked_query(query: &[u8]) -> Result<&str, &'static str> {
    match query.iter().find(|&&byte| !is_query_byte(byte)) {
        None => str::from_utf8(query).map_err(|_| "the query is not ASCII"),
        Some(b'#') => Err(FRAGMENT),
        Some(_) => Err("the query holds a byte that must be percent-encoded"),
    }
}

fn ipv6(value: &[u8]) -> Result<HostPort<'_>, &'static str> {
    let text = str::from_utf8(value).map_err(|_| BAD_HOST)?;
    let (bracketed, rest) = text.split_at(text.find(']').ok_or(BAD_HOST)? + 1);
    let port = match rest.as_bytes() {
        [] => None,
        [b':', digits @ ..] => port(digits).ok_or(BAD_PORT)?,
        _ => return Err(BAD_HOST),
    };
    let address: Ipv6Addr = bracketed[1..bracketed.len() - 1].parse().map_err(|_| "the host is not an IPv6 address")?;
    let spelling = format!("[{address}]");
    let host = if spelling == bracketed { Cow::Borrowed(bracketed) } else { Cow::Owned(spelling) };
    Ok(HostPort { host, port })
}

/// A host that is no IPv6 address, and its port, in one pass over the bytes.
fn name_or_ipv4(value: &[u8]) -> Option<HostPort<'_>> {
    let mut upper = false;
    let mut previous = b'.';
    let mut end = 0;
    for &byte in value {
        if PLACES[byte as usize] & NAME == 0 {
            break;
        }
        if byte == b'.' && previous == b'.' {
            return None;
        }
        upper |= byte.is_ascii_uppercase();
        previous = byte;
        end += 1;
    }
    let port = match &value[end..] {
        [] => None,
        [b':', digits @ ..] => port(digits)?,
        _ => return None,
    };
    let name = value[..end].strip_suffix(b".").unwrap_or(&value[..end]);
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return None;
    }
    let name = str::from_utf8(name).ok()?;
    let host = if upper { Cow::Owned(name.to_ascii_lowercase()) } else { Cow::Borrowed(name) };
    Some(HostPort { host, port })
}

#[cold]
fn why_no_name(value: &[u8]) -> &'static str {
    let digits = value.iter().position(|byte| *byte == b':').map(|colon| &value[colon + 1..]);
    if str::from_utf8(value).is_ok() && digits.is_some_and(|digits| port(digits).is_none()) {
        BAD_PORT
    } else {
        BAD_HOST
    }
}

/// A port. `host:` is allowed and means none. `parse` would take a sign and any number of leading zeros.
#[expect(clippy::option_option, reason = "a port, none, or a refusal")]
fn port(digits: &[u8]) -> Option<Option<u16>> {
    if digits.is_empty() {
        return Some(None);
    }
    if digits.len() > PORT_DIGITS_MAX {
        return None;
    }
    let number =
        digits.iter().try_fold(0_u32, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u32::from(byte - b'0')));
    number.and_then(|number| u16::try_from(number).ok()).map(Some)
}

/// For each byte, the places where it may stand bare.
const fn places() -> [u8; 256] {
    let mut places = [0; 256];
    mark(&mut places, UNRESERVED, PATH | QUERY | NAME);
    mark(&mut places, RESERVED, PATH | QUERY);
    mark(&mut places, LEFT_BARE_BY_BROWSERS, PATH | QUERY);
    mark(&mut places, b"?`{}\\", QUERY);
    let mut byte = 0;
    while byte < places.len() {
        if places[byte] & PATH != 0 && byte != b'/' as usize && byte != b'%' as usize {
            places[byte] |= SEGMENT;
        }
        byte += 1;
    }
    places
}

const fn mark(places: &mut [u8; 256], bytes: &[u8], place: u8) {
    let mut at = 0;
    while at < bytes.len() {
        places[bytes[at] as usize] |= place;
        at += 1;
    }
}

static PLACES: [u8; 256] = places();

/// RFC 3986 §2.3.
const UNRESERVED: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
/// RFC 3986 §3.3: what a path holds besides, the slash, and the sign that begins an encoding.
const RESERVED: &[u8] = b"!$&'()*+,;=:@/%";
/// Bare in the path and query of browsers all the same; see the top.
const LEFT_BARE_BY_BROWSERS: &[u8] = b"|^[]";

/// Bits of [`PLACES`].
const PATH: u8 = 1;
const QUERY: u8 = 2;
const NAME: u8 = 4;
/// As in a path, but neither the slash nor the sign that begins an encoding.
const SEGMENT: u8 = 8;

/// Bytes of a host name: DNS carries 253 (RFC 1035 §2.3.4). A longer one is refused; it bounds the search for a route.
const NAME_BYTES_MAX: usize = 253;

/// Digits of the largest port.
const PORT_DIGITS_MAX: usize = 5;

const BAD_HOST: &str = "the host is neither a name nor an address";
const BAD_PORT: &str = "the port is not a number from 0 to 65535";
const FRAGMENT: &str = "the request-target holds a #";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn get(target: &str) -> Result<Target<'_>, &'static str> {
        parse("GET", target.as_bytes())
    }

    fn one_host(value: &str) -> Result<(String, Option<u16>), &'static str> {
        host(value.as_bytes()).map(|found| (found.host.into_owned(), found.port))
    }

    #[test]
    fn an_origin_form_is_cut_at_its_first_question_mark() {
        let found = get("/a/b?c=d?e");
        assert_eq!(found, Ok(Target { form: Form::Origin, authority: None, path: "/a/b", query: Some("c=d?e") }));
        assert_eq!(get("/?").map(|target| target.query), Ok(Some("")));
        assert_eq!(get("/").map(|target| target.query), Ok(None));
    }

    #[test]
    fn an_absolute_form_gives_its_authority_and_a_root_where_it_has_no_path() {
        let found = get("HTTP://Example.com:80/a?b");
        assert_eq!(
            found,
            Ok(Target {
                form: Form::Absolute { tls: false },
                authority: Some("Example.com:80"),
                path: "/a",
                query: Some("b")
            })
        );
        assert_eq!(get("http://a").map(|target| target.path), Ok("/"));
        assert_eq!(get("https://a?b").map(|target| (target.path, target.query)), Ok(("/", Some("b"))));
    }

    #[test]
    fn options_may_ask_about_the_server_in_two_ways() {
        assert_eq!(parse("OPTIONS", b"*").map(|target| (target.form, target.path)), Ok((Form::Asterisk, "*")));
        assert_eq!(parse("OPTIONS", b"http://a").map(|target| target.path), Ok("*"));
        assert_eq!(parse("OPTIONS", b"http://a/").map(|target| target.path), Ok("/"));
        assert_eq!(get("*"), Err("the request-target * is for OPTIONS only"));
    }

    #[test]
    fn connect_takes_a_host_and_port_and_nothing_else_takes_them() {
        let found = parse("CONNECT", b"example.com:443");
        assert_eq!(
            found,
            Ok(Target { form: Form::Authority, authority: Some("example.com:443"), path: "", query: None })
        );
        assert_eq!(parse("CONNECT", b"example.com"), Err("CONNECT needs a host and a port"));
        assert_eq!(parse("CONNECT", b"/a"), Err(BAD_HOST));
        assert_eq!(parse("CONNECT", b""), Err("the request-target names no host"));
        assert_eq!(get("example.com:443"), Err("the request-target is neither a path nor an http or https URL"));
    }

    #[test]
    fn what_is_no_target_is_refused_with_its_reason() {
        let neither = "the request-target is neither a path nor an http or https URL";
        let byte = "the path holds a byte that must be percent-encoded";
        for (target, reason) in [
            ("", "the request-target is empty"),
            ("a", neither),
            ("ftp://a/", neither),
            ("http:/a", neither),
            ("**", neither),
            ("http://", "the request-target names no host"),
            ("http:///a", "the request-target names no host"),
            ("http://me@a/", "the host holds user information"),
            ("http://a\\b/", BAD_HOST),
            ("http://a#b", BAD_HOST),
            ("/a b", byte),
            ("/a\tb", byte),
            ("/a\0", byte),
            ("/a\u{7f}", byte),
            ("/\u{e9}", byte),
            ("/a\"", byte),
            ("/<a>", byte),
            ("/{a}", byte),
            ("/`a`", byte),
            ("/a\\b", "the path holds a backslash"),
            ("/a#b", FRAGMENT),
            ("/a?b#c", FRAGMENT),
            ("/a?b c", "the query holds a byte that must be percent-encoded"),
            ("/a?\"b\"", "the query holds a byte that must be percent-encoded"),
            ("/a?<b>", "the query holds a byte that must be percent-encoded"),
            ("/a?\u{e9}", "the query holds a byte that must be percent-encoded"),
        ] {
            assert_eq!(get(target), Err(reason), "{target:?}");
        }
    }

    #[test]
    fn what_browsers_leave_bare_passes() {
        assert!(get("/a|b^c[d]'e'?f={g}&h=`i`|j^k[l]\\m'n'100%").is_ok());
    }

    #[test]
    fn a_host_has_one_spelling() {
        for (written, host, port) in [
            ("example.com", "example.com", None),
            ("EXAMPLE.Com:8080", "example.com", Some(8080)),
            ("example.com.", "example.com", None),
            ("example.com.:1", "example.com", Some(1)),
            ("example.com:", "example.com", None),
            ("my_service-1", "my_service-1", None),
            ("127.0.0.1:80", "127.0.0.1", Some(80)),
            ("[::1]", "[::1]", None),
            ("[0:0:0:0:0:0:0:1]:65535", "[::1]", Some(65535)),
            ("[2001:DB8::A]:080", "[2001:db8::a]", Some(80)),
            ("", "", None),
        ] {
            assert_eq!(one_host(written), Ok((host.to_owned(), port)), "{written:?}");
        }
    }

    #[test]
    fn a_host_that_is_none_is_refused() {
        let long = format!("{}.com", "a".repeat(250));
        for written in [
            ":80",
            ".",
            "..",
            ".a",
            "a..b",
            "a b",
            "a,b",
            "a%41",
            "a/b",
            "a?b",
            "a\\b",
            "a\tb",
            "a\0",
            "\u{e9}",
            "[::1",
            "::1",
            "[]",
            "[::1]x",
            "[::1%25eth0]",
            "[127.0.0.1]",
            "[v1.a]",
            "a]",
            "me@a",
            "a:b",
            "a:-1",
            "a:+1",
            "a:1:2",
            "a:65536",
            "a:000080",
            "a: 80",
            &long,
        ] {
            assert!(one_host(written).is_err(), "{written:?}");
        }
        assert!(host(b"a\xff").is_err());
    }

    #[test]
    fn a_lower_case_host_is_not_copied() {
        assert!(matches!(host(b"example.com:80").map(|found| found.host), Ok(Cow::Borrowed("example.com"))));
    }

    #[test]
    fn an_authority_agrees_with_the_same_host_and_port_only() {
        for (target, field, agrees) in [
            ("/a", "anything", true),
            ("http://a.com/", "a.com", true),
            ("http://A.com./", "a.COM", true),
            ("http://a.com:80/", "a.com", true),
            ("https://a.com/", "a.com:443", true),
            ("https://a.com/", "a.com:80", false),
            ("http://a.com/", "a.com:8080", false),
            ("http://a.com/", "b.com", false),
            ("http://a.com/", "", false),
            ("http://[::1]/", "[0::1]", true),
        ] {
            let parsed = get(target).expect("the targets above are valid");
            let field = host(field.as_bytes()).expect("the hosts above are valid");
            assert_eq!(parsed.agrees(&field), agrees, "{target} {field:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_what_passes_is_clean(bytes: Vec<u8>, method in "GET|OPTIONS|CONNECT") {
            if let Ok(target) = parse(&method, &bytes) {
                let whole = [target.path, target.query.unwrap_or_default()].concat();
                prop_assert!(whole.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#'));
            }
            host(&bytes).ok();
        }

        #[test]
        fn the_parts_of_a_target_are_the_target(bytes in "[/?%a-c|{}#\\\\ :.]{0,12}") {
            let written = format!("/{bytes}");
            if let Ok(target) = parse("GET", written.as_bytes()) {
                let query = target.query.map(|query| format!("?{query}")).unwrap_or_default();
                prop_assert_eq!(format!("{}{}", target.path, query), written.as_str());
                let bare = target.path.contains(['?', '#', '\\', ' ', '{', '}']);
                prop_assert!(!bare);
            } else {
                let bad = written.contains(['#', '\\', ' ', '{', '}']);
                prop_assert!(bad);
            }
        }

        #[test]
        fn the_spelling_of_a_host_is_its_own_spelling(written in "[a-cA-C.:0-9_\\[\\]-]{0,12}|\\[[0-9a-f:]{2,12}\\]") {
            if let Ok(first) = host(written.as_bytes()) {
                prop_assert!(first.host.len() <= written.len().max(41));
                let again = host(first.host.as_bytes());
                prop_assert_eq!(again, Ok(HostPort { host: Cow::Borrowed(first.host.as_ref()), port: None }));
            }
        }
    }
}
