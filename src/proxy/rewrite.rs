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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn target(prefix: &str, strip: Option<&str>, add: Option<&str>, path: &str, query: Option<&str>) -> String {
        let rewrite = Rewrite {
            strip_prefix: strip.map(str::to_owned),
            add_prefix: add.map(str::to_owned),
            ..Rewrite::default()
        };
        let mut out = b"GET ".to_vec();
        upstream_target(prefix, &rewrite, path, query, &mut out);
        String::from_utf8(out).expect("the parts are text").split_off("GET ".len())
    }

    #[test]
    fn a_path_goes_as_it_is_where_nothing_says_otherwise() {
        assert_eq!(target("", None, None, "/a/b", Some("c=d")), "/a/b?c=d");
        assert_eq!(target("", None, None, "/", None), "/");
        assert_eq!(target("", None, None, "/a", Some("")), "/a?");
    }

    #[test]
    fn prefixes_are_cut_as_whole_segments_and_laid_before() {
        for (prefix, strip, add, path, expected) in [
            ("", Some("/api"), None, "/api/x", "/x"),
            ("", Some("/api"), None, "/api", "/"),
            ("", Some("/api"), None, "/api/", "/"),
            ("", Some("/api/"), None, "/api/x", "/x"),
            ("", Some("/api"), None, "/apis/x", "/apis/x"),
            ("", Some("/"), None, "/x", "/x"),
            ("/v1", Some("/api"), None, "/api", "/v1"),
            ("/v1", Some("/api"), None, "/api/", "/v1/"),
            ("/v1", None, None, "/", "/v1/"),
            ("/v1", Some("/api"), Some("/lite"), "/api/x", "/v1/lite/x"),
            ("", None, Some("/"), "/x", "/x"),
        ] {
            assert_eq!(target(prefix, strip, add, path, None), expected, "{prefix} {strip:?} {add:?} {path}");
        }
    }

    #[test]
    fn an_asterisk_stays_one() {
        assert_eq!(target("/v1", Some("/api"), Some("/x"), "*", None), "*");
    }

    #[test]
    fn a_redirect_takes_over_host_path_and_query() {
        let to = "https://{host}/new{path}{query}";
        assert_eq!(location(to, "a.com", "/b", Some("c=d")), "https://a.com/new/b?c=d");
        assert_eq!(location(to, "a.com", "/b", None), "https://a.com/new/b");
        assert_eq!(location(to, "a.com", "/b", Some("")), "https://a.com/new/b");
        assert_eq!(location("/x?from={path}{query}", "a.com", "/b", Some("c=d")), "/x?from=/b&c=d");
    }

    #[test]
    fn what_a_client_sends_is_not_expanded_again() {
        assert_eq!(location("{path}{query}", "a.com", "/b", Some("{host}")), "/b?%7Bhost%7D");
    }

    #[test]
    fn a_location_is_always_a_safe_field_value() {
        let split = location("/a\r\nx: y\u{e9} {unknown}{path}", "", "/b\\\u{7f}\"", None);
        assert_eq!(split, "/a%0D%0Ax:%20y%C3%A9%20%7Bunknown%7D/b%5C%7F%22");
    }

    proptest! {
        #[test]
        fn no_text_makes_an_unsafe_location(to in "(.|\\{host\\}|\\{path\\}|\\{query\\}){0,10}", path in ".{0,9}", query in ".{0,9}") {
            let url = location(&to, "a.com", &path, Some(&query));
            let unsafe_byte = |byte: u8| !byte.is_ascii_graphic() || b"\"<>\\^`{|}".contains(&byte);
            prop_assert!(!url.bytes().any(unsafe_byte));
        }

        #[test]
        fn a_normal_path_gives_a_normal_target(
            path in "(/[a-c.]{1,3}){0,3}/?", strip in proptest::option::of("(/[a-c]{1,2}){0,2}"), prefix in "(/v1)?"
        ) {
            let mut scratch = String::new();
            if let Ok(path) = crate::proxy::path::normalise(&path, &mut scratch) {
                let target = target(&prefix, strip.as_deref(), None, path, None);
                let mut again = String::new();
                prop_assert_eq!(crate::proxy::path::normalise(&target, &mut again), Ok(target.as_str()));
            }
        }
    }
}
