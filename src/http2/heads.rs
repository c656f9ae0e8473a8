//! Heads between the two versions: RFC 9113 §8, RFC 8441 §5.

use crate::http1::encode;
use crate::http1::fields::{Fields, Known};
use crate::http1::head::{HeadError, RequestHead, ResponseHead};
use h2::ext::Protocol;
use http::header::{self, HeaderMap, HeaderName};
use http::{Method, StatusCode, request, response};

/// Fills `head` with a request that came in HTTP/2; `ends` where its frame said that nothing follows.
///
/// The authority becomes Host, crumbs of Cookie become one field (RFC 9113 §8.2.3), and the extended CONNECT that opens a
/// WebSocket becomes the GET with `Upgrade` that it stands for (RFC 8441 §5); `key` draws what that one needs of randomness.
///
/// # Errors
/// What HTTP/2 does not allow in a request, or more than `max` fields.
pub fn request(
    head: &mut RequestHead,
    parts: &request::Parts,
    ends: bool,
    max: usize,
    key: impl FnOnce() -> u128,
) -> Result<(), HeadError> {
    let protocol = parts.extensions.get::<Protocol>();
    let method = if protocol.is_some() { "GET" } else { parts.method.as_str() };
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    // An answer to a refusal needs the method and the target.
    head.begin(method, target.as_bytes(), ends);
    if parts.headers.len() > max {
        return Err(HeadError::TooManyFields);
    }
    if parts.method == Method::CONNECT && protocol.is_none() {
        head.begin("CONNECT", b"", ends);
        return Ok(());
    }
    if target.is_empty() {
        return Err(HeadError::Malformed("the request has no :path"));
    }
    if parts.uri.scheme_str().is_some_and(|scheme| !scheme.starts_with(|first: char| first.is_ascii_alphabetic())) {
        return Err(HeadError::Malformed(":scheme is no scheme"));
    }
    fields(&mut head.fields, parts, protocol.is_some())?;
    match protocol.map(Protocol::as_str) {
        None => connection_is_not_named(&head.fields),
        Some("websocket") => {
            connection_is_not_named(&head.fields)?;
            head.fields.push(b"upgrade", b"websocket");
            head.fields.push(b"connection", b"upgrade");
            head.fields.push(b"sec-websocket-key", websocket_key(key()).as_bytes());
            Ok(())
        }
        Some(_) => Err(HeadError::Malformed("the only protocol that a stream can be switched to is websocket")),
    }
}

/// The size of a request's fields, pseudo-fields included, as RFC 9113 §6.5.2 measures it.
pub fn list_size(parts: &request::Parts) -> usize {
    let entry = |name: usize, value: usize| name + value + ENTRY_OVERHEAD;
    let uri = &parts.uri;
    let pseudo = [
        Some((":method", parts.method.as_str())),
        uri.scheme_str().map(|scheme| (":scheme", scheme)),
        uri.authority().map(|authority| (":authority", authority.as_str())),
        uri.path_and_query().map(|target| (":path", target.as_str())),
    ];
    let pseudo = pseudo.iter().flatten().map(|(name, value)| entry(name.len(), value.len()));
    let fields = parts.headers.iter().map(|(name, value)| entry(name.as_str().len(), value.len()));
    pseudo.chain(fields).sum()
}

/// The fields of a request, Host first. The authority is the Host; where a Host came as well, both have to agree (RFC 9113
/// §8.3.1).
fn fields(fields: &mut Fields, parts: &request::Parts, opens_websocket: bool) -> Result<(), HeadError> {
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    if let Some(authority) = authority {
        fields.push(b"host", authority);
    }
    let (mut hosts, mut cookie) = (0, Vec::new());
    for (name, value) in &parts.headers {
        let (text, value) = (name.as_str().as_bytes(), value.as_bytes());
        is_valid(name, value).map_err(HeadError::Malformed)?;
        if *name == header::HOST {
            hosts += 1;
            match authority {
                _ if hosts > 1 => return Err(HeadError::Malformed("Host is given more than once")),
                Some(authority) if !authority.eq_ignore_ascii_case(value) => {
                    return Err(HeadError::Malformed(":authority names another host than Host"));
                }
                Some(_) => {}
                None => fields.push(text, value),
            }
        } else if *name == header::COOKIE {
            // An empty crumb says nothing, and at the end it would leave a blank there, which HTTP/2 does not allow.
            if !cookie.is_empty() && !value.is_empty() {
                cookie.extend_from_slice(b"; ");
            }
            cookie.extend_from_slice(value);
        } else if !(opens_websocket && *name == header::SEC_WEBSOCKET_KEY) {
            fields.push(text, value);
        }
    }
    if authority.is_none() && hosts == 0 {
        return Err(HeadError::Malformed("neither :authority nor Host is there"));
    }
    if !cookie.is_empty() {
        fields.push(b"cookie", &cookie);
    }
    Ok(())
}

/// What the library lets pass of RFC 9113 §8.1.1 and §8.2.1: space around a value, a quotation mark in a name, and an empty
/// `Content-Length`, which it reads as 0.
fn is_valid(name: &HeaderName, value: &[u8]) -> Result<(), &'static str> {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    if is_space(value.first()) || is_space(value.last()) {
        return Err("a field value begins or ends with white space");
    }
    if name.as_str().bytes().any(|byte| byte == b'"') {
        return Err("a field name is not a token");
    }
    if value.is_empty() && *name == header::CONTENT_LENGTH {
        return Err("Content-Length is empty");
    }
    Ok(())
}

/// Adds the fields of an answer, or trailers.
fn push_all(fields: &mut Fields, map: &HeaderMap) -> Result<(), &'static str> {
    for (name, value) in map {
        is_valid(name, value.as_bytes())?;
        fields.push(name.as_str().as_bytes(), value.as_bytes());
    }
    Ok(())
}

/// RFC 9113 §8.2.2: fields of a connection have no place in HTTP/2, but for `TE: trailers`.
fn connection_is_not_named(fields: &Fields) -> Result<(), HeadError> {
    let forbidden = [
        Known::Connection,
        Known::KeepAlive,
        Known::ProxyConnection,
        Known::TransferEncoding,
        Known::Upgrade,
        Known::Http2Settings,
    ];
    if forbidden.iter().any(|known| fields.has(*known)) {
        return Err(HeadError::Malformed("a field that belongs to a connection stands in an HTTP/2 message"));
    }
    if fields.values(Known::Te).any(|te| !te.eq_ignore_ascii_case(b"trailers")) {
        return Err(HeadError::Malformed("TE may only say trailers in HTTP/2"));
    }
    Ok(())
}

/// Fills `head` with an answer that came in HTTP/2. `asked` is the key of the WebSocket this answers: the 200 that opens it
/// becomes the 101 it stands for.
///
/// # Errors
/// What HTTP/2 does not allow in an answer, or more than `max` fields.
pub fn answer(
    head: &mut ResponseHead,
    parts: &response::Parts,
    ends: bool,
    max: usize,
    asked: Option<&[u8]>,
) -> Result<(), HeadError> {
    if parts.headers.len() > max {
        return Err(HeadError::TooManyFields);
    }
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        // RFC 9113 §8.6.
        return Err(HeadError::Malformed("HTTP/2 has no 101"));
    }
    let opened = asked.filter(|_| parts.status.is_success());
    head.begin(if opened.is_some() { 101 } else { parts.status.as_u16() }, ends);
    push_all(&mut head.fields, &parts.headers).map_err(HeadError::Malformed)?;
    connection_is_not_named(&head.fields)?;
    if let Some(key) = opened {
        head.fields.push(b"upgrade", b"websocket");
        head.fields.push(b"connection", b"upgrade");
        head.fields.push(b"sec-websocket-accept", websocket_accept(key).as_bytes());
    }
    Ok(())
}

/// Whether trailers are what they may be.
///
/// # Errors
/// What is wrong with them.
pub fn are_valid(trailers: &HeaderMap) -> Result<(), &'static str> {
    trailers.iter().try_for_each(|(name, value)| is_valid(name, value.as_bytes()))
}

/// The trailers that came, but for those whose names are `withheld`.
pub fn trailer_fields(map: &HeaderMap, withheld: &dyn Fn(&[u8]) -> bool) -> Fields {
    let mut fields = Fields::default();
    for (name, value) in map.iter().filter(|(name, _)| !withheld(name.as_str().as_bytes())) {
        fields.push(name.as_str().as_bytes(), value.as_bytes());
    }
    fields
}

/// Of the trailers that came in HTTP/2 those that may pass on in it.
pub fn passing_trailers(mut map: HeaderMap, withheld: &dyn Fn(&[u8]) -> bool) -> HeaderMap {
    let stays = |name: &HeaderName| {
        let name = name.as_str().as_bytes();
        !encode::may_trail(name) || withheld(name)
    };
    for name in map.keys().filter(|name| stays(name)).cloned().collect::<Vec<_>>() {
        map.remove(name);
    }
    map
}

/// The trailers that may pass on.
pub fn trailer_map(fields: &Fields) -> HeaderMap {
    let mut lines = Vec::new();
    encode::trailers(&mut lines, fields);
    super::lines::map(&lines)
}

/// Takes the fields out of an opening handshake that a WebSocket in HTTP/2 does without (RFC 8441 §5).
pub fn drop_upgrade(map: &mut HeaderMap) {
    map.remove(header::UPGRADE);
    map.remove(header::CONNECTION);
    map.remove(header::SEC_WEBSOCKET_KEY);
    map.remove(header::SEC_WEBSOCKET_ACCEPT);
}

/// A key for an opening handshake (RFC 6455 §4.1): 16 random bytes in Base64.
fn websocket_key(random: u128) -> String {
    base64(&random.to_be_bytes())
}

/// What a server answers to that key (RFC 6455 §4.2.2).
pub fn websocket_accept(key: &[u8]) -> String {
    let mut text = key.to_vec();
    text.extend_from_slice(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    base64(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, &text).as_ref())
}

/// RFC 4648 §4. Used for one field of a handshake; not worth a dependency.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= group.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

/// What each entry of a list of fields counts beside its bytes (RFC 9113 §6.5.2).
const ENTRY_OVERHEAD: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn parsed(request: Request<()>) -> Result<RequestHead, HeadError> {
        let mut head = RequestHead::default();
        let (parts, ()) = request.into_parts();
        super::request(&mut head, &parts, true, 100, || 7).map(|()| head)
    }

    fn get(fields: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::get("https://one.test/a?b");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request")
    }

    fn listed(head: &RequestHead) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        head.fields.iter().map(|(_, name, value)| (text(name), text(value))).collect()
    }

    #[test]
    fn the_authority_becomes_the_host() {
        let head = parsed(get(&[("host", "ONE.test")])).expect("they agree");
        assert_eq!((head.method(), head.target()), ("GET", &b"/a?b"[..]));
        assert_eq!(listed(&head), [("host".to_owned(), "one.test".to_owned())]);
        assert!(parsed(get(&[("host", "two.test")])).is_err());
    }

    #[test]
    fn crumbs_of_a_cookie_become_one_field() {
        let head = parsed(get(&[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2")])).expect("a request");
        assert!(listed(&head).contains(&("cookie".to_owned(), "a=1; b=2".to_owned())));
    }

    #[test]
    fn an_empty_crumb_leaves_nothing_behind() {
        let head = parsed(get(&[("cookie", ""), ("cookie", "a=1"), ("cookie", "")])).expect("a request");
        assert!(listed(&head).contains(&("cookie".to_owned(), "a=1".to_owned())));
    }

    #[test]
    fn fields_of_a_connection_are_refused() {
        for field in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"] {
            assert!(parsed(get(&[(field, "x")])).is_err(), "{field}");
        }
        assert!(parsed(get(&[("te", "gzip")])).is_err());
        assert!(parsed(get(&[("te", "trailers")])).is_ok());
    }

    #[test]
    fn an_extended_connect_is_the_upgrade_it_stands_for() {
        let mut request = Request::connect("https://one.test/chat").body(()).expect("a request");
        request.extensions_mut().insert(Protocol::from_static("websocket"));
        let head = parsed(request).expect("a WebSocket");
        assert_eq!(head.method(), "GET");
        assert!(head.fields.lists(Known::Upgrade, b"websocket") && head.fields.lists(Known::Connection, b"upgrade"));
    }

    #[test]
    fn trailers_that_pass_on_are_the_same_by_either_way() {
        let mut map = HeaderMap::new();
        let names =
            ["grpc-status", "authorization", "x-own", "content-length", "x-request-id", "grpc-message", "x-own"];
        for name in names {
            map.append(name, name.parse().expect("a value"));
        }
        let withheld = |name: &[u8]| name == b"grpc-message";
        let passing = passing_trailers(map.clone(), &withheld);
        assert_eq!(passing.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["grpc-status", "x-own"]);
        assert_eq!(passing.get_all("x-own").iter().count(), 2);
        assert_eq!(passing, trailer_map(&trailer_fields(&map, &withheld)));
    }

    #[test]
    fn trailers_are_held_to_what_fields_are() {
        let trailers =
            |value: &'static str| HeaderMap::from_iter([(header::ETAG, http::HeaderValue::from_static(value))]);
        assert_eq!(are_valid(&trailers("a b")), Ok(()));
        assert!(are_valid(&trailers(" a")).is_err() && are_valid(&trailers("a\t")).is_err());
    }

    #[test]
    fn a_key_is_answered_as_the_standard_shows() {
        assert_eq!(websocket_accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(websocket_key(0).len(), 24);
    }
}
