//! What a kept reply is found by: everything that chooses who answers and what.
//!
//! RFC 9111 §2 wants the method and the URL. The method is always GET, but for POST by an operator's word: then a hash of the
//! body is in the key. The route is in it because routing looks at more than the URL (fields, the query, flags): two requests
//! for one URL that different routes take are different requests, and none can be given what the other's provider said. So
//! is whatever else chose between providers that may not say the same: the candidate of a rollout, say.

use aws_lc_rs::digest::{Context, SHA256};
use std::borrow::Borrow;

/// What goes into a key.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// The route's name.
    pub route: &'a str,
    /// What else chose who answers; empty where nothing did.
    pub place: &'a str,
    /// `http` or `https`, as the provider is told.
    pub scheme: &'a str,
    /// Host and port, as the provider is told.
    pub authority: &'a [u8],
    /// The normalised path.
    pub path: &'a str,
    /// The query, if there is a question mark.
    pub query: Option<&'a str>,
    /// SHA-256 of the request's body, where that is a part of the question.
    pub body: Option<&'a [u8; 32]>,
}

/// A key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key(Box<[u8]>);

// === impl Parts ===

impl Parts<'_> {
    /// Writes the key to `out`, which is cleared first and may be kept for the next request.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.clear();
        // None of these can hold a NUL: names are checked, and the others came through the request's grammar.
        for part in [self.route, "\0", self.place, "\0", self.scheme, "://"] {
            out.extend_from_slice(part.as_bytes());
        }
        let port = if self.scheme == "https" { &b":443"[..] } else { b":80" };
        let authority = self.authority.strip_suffix(port).unwrap_or(self.authority);
        out.extend(authority.iter().map(u8::to_ascii_lowercase));
        out.extend_from_slice(self.path.as_bytes());
        if let Some(query) = self.query {
            out.push(b'?');
            out.extend_from_slice(query.as_bytes());
        }
        if let Some(body) = self.body {
            out.push(0);
            out.extend_from_slice(body);
        }
    }
}

// === impl Key ===

impl Key {
    /// From what [`Parts::write`] wrote.
    #[must_use]
    pub fn new(written: &[u8]) -> Self {
        Key(written.into())
    }

    /// The route's name.
    #[must_use]
    pub fn route(&self) -> &[u8] {
        route(&self.0)
    }

    /// All that stands before the URL.
    pub(super) fn front(&self) -> &[u8] {
        let nul = |byte: &u8| *byte == 0;
        let end = self.0.iter().enumerate().filter(|(_, byte)| nul(byte)).nth(1).map_or(0, |(at, _)| at + 1);
        &self.0[..end]
    }

    /// The URL.
    #[must_use]
    pub fn url(&self) -> &[u8] {
        url(&self.0)
    }

    /// Bytes it takes in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.len()
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// The hash of a request's body, in the pieces in which it came. Nobody can make two bodies that share one, and so give
/// others the answer to a question that they did not ask.
#[must_use]
pub fn body_hash<'b>(pieces: impl IntoIterator<Item = &'b [u8]>) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    pieces.into_iter().for_each(|piece| context.update(piece));
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// The route's name in what [`Parts::write`] wrote.
pub(super) fn route(key: &[u8]) -> &[u8] {
    key.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// The URL in what [`Parts::write`] wrote.
pub(super) fn url(key: &[u8]) -> &[u8] {
    key.split(|byte| *byte == 0).nth(2).unwrap_or_default()
}

/// Whether the URL in what [`Parts::write`] wrote is one that `is` says yes to. Where a trusted peer names a host beside its
/// own (`told,own`), a client may have asked for either.
pub(super) fn is_asked_for_as(key: &[u8], is: impl Fn(&[u8]) -> bool) -> bool {
    let url = url(key);
    if is(url) {
        return true;
    }
    let begins = url.windows(3).position(|part| part == b"://").map_or(0, |at| at + 3);
    let (scheme, rest) = url.split_at(begins);
    let (hosts, target) = rest.split_at(rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len()));
    let is_comma = |byte: &u8| *byte == b',';
    hosts.contains(&b',') && hosts.split(is_comma).any(|host| is(&[scheme, host, target].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTS: Parts<'_> = Parts {
        route: "api",
        place: "",
        scheme: "http",
        authority: b"A.example:80",
        path: "/x",
        query: Some("q"),
        body: None,
    };

    fn key(parts: &Parts<'_>) -> Key {
        let mut written = Vec::new();
        parts.write(&mut written);
        Key::new(&written)
    }

    #[test]
    fn section_2_of_rfc_9111_whatever_chooses_the_answer_is_in_the_key() {
        let keys = [
            PARTS,
            Parts { route: "other", ..PARTS },
            Parts { place: "candidate", ..PARTS },
            Parts { scheme: "https", ..PARTS },
            Parts { authority: b"b.example", ..PARTS },
            Parts { path: "/y", ..PARTS },
            Parts { query: Some(""), ..PARTS },
            Parts { query: None, ..PARTS },
            Parts { body: Some(&[7; 32]), ..PARTS },
            Parts { body: Some(&[8; 32]), ..PARTS },
        ];
        for (index, one) in keys.iter().enumerate() {
            for other in &keys[index + 1..] {
                assert_ne!(key(one), key(other));
            }
        }
    }

    #[test]
    fn a_host_is_the_same_in_any_case_and_with_the_port_it_has_anyway() {
        assert_eq!(key(&PARTS), key(&Parts { authority: b"a.example", ..PARTS }));
        assert_ne!(key(&PARTS), key(&Parts { authority: b"a.example:443", ..PARTS }));
    }

    #[test]
    fn a_body_has_one_hash_however_it_came() {
        assert_eq!(body_hash([&b"ab"[..], b"", b"c"]), body_hash([&b"abc"[..]]));
        assert_eq!(body_hash([&b"abc"[..]])[..4], [0xba, 0x78, 0x16, 0xbf]);
        assert_ne!(body_hash([&b"abd"[..]]), body_hash([&b"abc"[..]]));
    }

    #[test]
    fn what_a_peer_names_beside_its_own_host_is_found_by_either() {
        let key = key(&Parts { authority: b"shop.example,origin:81", ..PARTS });
        for (url, is_found) in [
            ("http://shop.example/x?q", true),
            ("http://origin:81/x?q", true),
            ("http://shop.example,origin:81/x?q", true),
            ("https://shop.example/x?q", false),
            ("http://shop.example/x", false),
        ] {
            assert_eq!(is_asked_for_as(key.as_ref(), |asked| asked == url.as_bytes()), is_found, "{url}");
        }
        let plain = self::key(&Parts { query: Some("a,b"), ..PARTS });
        assert!(!is_asked_for_as(plain.as_ref(), |asked| asked == b"http://a.example/x?b"));
    }

    #[test]
    fn route_and_url_are_found_in_a_key() {
        let key = key(&Parts { place: "candidate", body: Some(&[0; 32]), ..PARTS });
        assert_eq!(key.route(), b"api");
        assert_eq!(key.url(), b"http://a.example/x?q");
    }
}
