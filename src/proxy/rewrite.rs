//! What is asked of a provider instead, and where a redirect points.
//!
//! Both work on the normalised path. Whole segments are cut and whole prefixes laid before, so no dot-segment and no
//! double slash can come into being here.

use super::path::upper_hex;
use crate::config::Rewrite;

/// Appends to `out` the origin-form target for a provider: its URL's `prefix`, then the route's `add_prefix`, then what
/// `strip_prefix` leaves of `path`, then the query. A closing slash is there if the client wrote one: with `/api`
/// stripped and a prefix of `/v1`, `/api` becomes `/v1` and `/api/` becomes `/v1/`.
///
/// `path` is normalised, or `*` for `OPTIONS *`, which no prefix changes.
pub fn upstream_target(prefix: &str, rewrite: &Rewrite, path: &str, query: Option<&str>, out: &mut Vec<u8>) {
    let start = out.len();
    if path == "*" {
        out.push(b'*');
        return;
    }
    out.extend_from_slice(without_slash(prefix).as_bytes());
    if let Some(added) = &rewrite.add_prefix {
        out.extend_from_slice(without_slash(added).as_bytes());
    }
    let rest = rewrite.strip_prefix.as_deref().map_or(path, |prefix| strip(prefix, path));
    out.extend_from_slice(rest.as_bytes());
    if out.len() == start {
        out.push(b'/');
    }
    if let Some(query) = query {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
}

/// Where a redirect points: `to` with `{host}`, `{path}` and `{query}` replaced, once each time they occur.
///
/// `{query}` brings its own `?`, or `&` where `to` has a query already, and is nothing where the request had none.
/// Whatever is not a character of a URI is percent-encoded, so that the result is always a safe field value.
#[must_use]
pub fn location(to: &str, host: &str, path: &str, query: Option<&str>) -> String {
    let mut url = String::with_capacity(to.len() + host.len() + path.len() + query.map_or(0, str::len));
    let mut rest = to;
    while let Some(at) = rest.find('{') {
        push_encoded(&rest[..at], &mut url);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("{host}") {
            push_encoded(host, &mut url);
            rest = after;
        } else if let Some(after) = rest.strip_prefix("{path}") {
            push_encoded(path, &mut url);
            rest = after;
        } else if let Some(after) = rest.strip_prefix("{query}") {
            push_query(query, &mut url);
            rest = after;
        } else {
            push_encoded("{", &mut url);
            rest = &rest[1..];
        }
    }
    push_encoded(rest, &mut url);
    url
}

/// What is left of `path` without `prefix`, where that stands at its front as whole segments; else all of it.
fn strip<'a>(prefix: &str, path: &'a str) -> &'a str {
    match path.strip_prefix(without_slash(prefix)) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => rest,
        _ => path,
    }
}

/// A prefix is the same with and without a closing slash.
fn without_slash(prefix: &str) -> &str {
    prefix.strip_suffix('/').unwrap_or(prefix)
}

fn push_query(query: Option<&str>, url: &mut String) {
    let Some(query) = query.filter(|query| !query.is_empty()) else { return };
    url.push(if url.contains('?') { '&' } else { '?' });
    push_encoded(query, url);
}

/// Appends `text`, percent-encoding what RFC 3986 has no place for.
fn push_encoded(text: &str, url: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&byte) {
            url.push(char::from(byte));
        } else {
            url.extend(['%', upper_hex(byte >> 4), upper_hex(byte & 15)]);
        }
    }
}
