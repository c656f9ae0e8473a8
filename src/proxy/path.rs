//! Path normalisation: one spelling for each path, so that what a route was written for is what it gets.
//!
//! A route protects or directs a path only if no other spelling of that path walks around it. The path is therefore
//! brought to one form before routing, and that form, not the client's, goes to the provider: whatever the provider
//! would have made of the other spelling never reaches it.
//!
//! - Percent-encoded unreserved characters are decoded (`%7E` is `~`), the rest keep their encoding in upper case.
//!   A broken encoding and `%00` are refused: servers read them in different ways.
//! - Dot-segments are resolved, however they are encoded. One that would leave the root is refused rather than
//!   clamped; nobody sends it by accident.
//! - `%2F` and `%5C` stay encoded and separate nothing. Some servers decode them before they resolve dots, so a dot
//!   segment hidden between them (`..%2Fadmin`) is refused, and so is one with a parameter (`/..;/`, `/..%3B/`), which
//!   Java servers cut off before resolving. Names that merely contain these, such as `group%2Fproject`, pass.
//! - Repeated slashes become one. Most servers treat `//admin` as `/admin`, so leaving them would let it past a route
//!   for `/admin/*`; and a redirect to `{path}` would send `//evil.example` somewhere else altogether. Envoy leaves
//!   them by default, for providers that give an empty segment a meaning; nginx merges them by default, and so do we.
//!   The price is that a URL inside a path (`/fetch/https://…`) loses a slash unless it is encoded.
//!   They are merged before dots are resolved: `/a//../b` is `/b`.
//!
//! Doing it twice changes nothing, as nothing that decoding produces can be read as an encoding (`%25` stays).

use crate::http1::target::{is_path_byte, is_segment_byte};

/// The one spelling of `path`: `path` itself where it is written so already (seen in one scan, without a copy), else
/// written into `scratch`, which is cleared first and can be kept for the next request.
///
/// # Errors
/// Says, for the client, why the path is refused.
#[inline]
pub fn normalise<'a>(path: &'a str, scratch: &'a mut String) -> Result<&'a str, &'static str> {
    let Some(doubtful) = plain_until(path.as_bytes())? else { return Ok(path) };
    scratch.clear();
    scratch.push_str(&path[..doubtful]);
    resolve(&path[doubtful + 1..], scratch)?;
    Ok(scratch)
}

/// Scans for anything that might need work. Gives the slash that begins the segment with it, or `None`.
fn plain_until(path: &[u8]) -> Result<Option<usize>, &'static str> {
    if path.first() != Some(&b'/') {
        return Err("the path does not begin with a slash");
    }
    let mut segment = 0;
    for (at, &byte) in path.iter().enumerate() {
        match byte {
            _ if is_segment_byte(byte) => {}
            b'/' if matches!(path.get(at + 1), Some(b'/' | b'.')) => return doubtful(path, at),
            b'/' => segment = at,
            b'%' => return doubtful(path, segment),
            _ => return Err(BAD_BYTE),
        }
    }
    Ok(None)
}

/// The slash at `segment`, once the bytes that the scan has not seen are known to belong in a path.
#[cold]
fn doubtful(path: &[u8], segment: usize) -> Result<Option<usize>, &'static str> {
    if path[segment..].iter().all(|&byte| is_path_byte(byte)) { Ok(Some(segment)) } else { Err(BAD_BYTE) }
}

/// Appends the segments of `rest` to `out`, which is normal and ends just before the slash that stood before `rest`.
fn resolve(rest: &str, out: &mut String) -> Result<(), &'static str> {
    let mut segments = rest.split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        let start = out.len();
        out.push('/');
        decode(segment, out)?;
        match &out[start + 1..] {
            "" | "." => out.truncate(if last { start + 1 } else { start }),
            ".." => {
                let parent = out[..start].rfind('/').ok_or("the path leaves the root")?;
                out.truncate(if last { parent + 1 } else { parent });
            }
            segment if hides_dots(segment) => return Err("the path hides a dot-segment"),
            _ => {}
        }
    }
    Ok(())
}

/// Appends one segment with its encodings in their one spelling.
fn decode(segment: &str, out: &mut String) -> Result<(), &'static str> {
    let mut rest = segment;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        match encoded(&rest.as_bytes()[at + 1..]).ok_or("the path holds a broken percent-encoding")? {
            0 => return Err("the path holds an encoded NUL"),
            byte if is_unreserved(byte) => out.push(char::from(byte)),
            byte => out.extend(['%', upper_hex(byte >> 4), upper_hex(byte & 15)]),
        }
        // Two hexadecimal digits follow the sign, or `encoded` had refused.
        rest = &rest[at + 3..];
    }
    out.push_str(rest);
    Ok(())
}

/// Whether a server that decodes slashes early, or cuts parameters off, would find a dot-segment in here.
fn hides_dots(segment: &str) -> bool {
    let mut parts = segment.split("%2F").flat_map(|part| part.split("%5C"));
    (segment.starts_with('.') || segment.contains('%'))
        && parts
            .any(|part| matches!(part.split(';').next().and_then(|name| name.split("%3B").next()), Some("." | "..")))
}

/// The byte that two hexadecimal digits at the front of `digits` stand for.
pub(crate) fn encoded(digits: &[u8]) -> Option<u8> {
    let [high, low, ..] = digits else { return None };
    let high = char::from(*high).to_digit(16)?;
    let low = char::from(*low).to_digit(16)?;
    u8::try_from(high * 16 + low).ok()
}

/// One upper-case hexadecimal digit.
pub(crate) fn upper_hex(nibble: u8) -> char {
    char::from(b"0123456789ABCDEF"[usize::from(nibble & 15)])
}

/// RFC 3986 §2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

const BAD_BYTE: &str = "the path holds a byte that must be percent-encoded";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn normal(path: &str) -> Result<String, &'static str> {
        let mut scratch = String::from("left over");
        normalise(path, &mut scratch).map(str::to_owned)
    }

    /// The same rules, written the slow way: decode everything first, then a stack of segments.
    fn reference(path: &str) -> Option<String> {
        let mut text = path.strip_prefix('/')?.to_owned();
        text.bytes().all(is_path_byte).then_some(())?;
        let mut decoded = String::new();
        while !text.is_empty() {
            let first = text.remove(0);
            if first != '%' {
                decoded.push(first);
                continue;
            }
            let digits: String = text.chars().take(2).filter(char::is_ascii_hexdigit).collect();
            (digits.len() == 2).then_some(())?;
            text.drain(..2);
            match u8::from_str_radix(&digits, 16).ok()? {
                0 => return None,
                byte if char::from(byte).is_ascii_alphanumeric() || "-._~".contains(char::from(byte)) => {
                    decoded.push(char::from(byte));
                }
                _ => decoded.extend(["%", &digits.to_uppercase()]),
            }
        }
        let mut stack: Vec<&str> = Vec::new();
        let mut closed = true;
        for segment in decoded.split('/') {
            closed = matches!(segment, "" | "." | "..");
            match segment {
                "" | "." => {}
                ".." => {
                    stack.pop()?;
                }
                _ if finds_dots(segment) => return None,
                _ => stack.push(segment),
            }
        }
        let closing = if closed && !stack.is_empty() { "/" } else { "" };
        Some(format!("/{}{closing}", stack.join("/")))
    }

    /// What a server finds that decodes slashes before it resolves dots, and cuts parameters off.
    fn finds_dots(path: &str) -> bool {
        let decoded =
            path.replace("%2F", "/").replace("%5C", "/").replace("%2E", ".").replace("%2e", ".").replace("%3B", ";");
        decoded
            .split('/')
            .map(|segment| segment.split(';').next().unwrap_or(""))
            .any(|name| name == "." || name == "..")
    }

    #[test]
    fn a_normal_path_is_given_back_uncopied() {
        let mut scratch = String::new();
        let path = "/api/v1/a.b/~c;d=e,f/$g/@h:i|j/";
        let same = normalise(path, &mut scratch).expect("the path is normal");
        assert!(std::ptr::eq(path, same));
    }

    #[test]
    fn every_spelling_becomes_the_one() {
        for (written, path) in [
            ("/", "/"),
            ("/%7Euser/%41%2d%5f%2E%39", "/~user/A-_.9"),
            ("/%c3%a9%3f", "/%C3%A9%3F"),
            ("/%2521", "/%2521"),
            ("/a%2fb%5cc", "/a%2Fb%5Cc"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/b/.", "/a/b/"),
            ("/a/..", "/"),
            ("/.", "/"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/a/%2e/b", "/a/b"),
            ("/a/b/../../c", "/c"),
            ("//", "/"),
            ("//a///b//", "/a/b/"),
            ("/a//../b", "/b"),
            ("/.well-known/...", "/.well-known/..."),
            ("/..a/.b/c..", "/..a/.b/c.."),
            ("/a;b=c/d;..", "/a;b=c/d;.."),
            ("/a%3B../d%3b..", "/a%3B../d%3B.."),
            ("/group%2Fproject.git", "/group%2Fproject.git"),
        ] {
            assert_eq!(normal(written).as_deref(), Ok(path), "{written}");
        }
    }

    #[test]
    fn what_two_servers_read_differently_is_refused() {
        let broken = "the path holds a broken percent-encoding";
        let hidden = "the path hides a dot-segment";
        let above = "the path leaves the root";
        for (written, reason) in [
            ("/%", broken),
            ("/%4", broken),
            ("/%zz", broken),
            ("/%4g/a", broken),
            ("/%+1", broken),
            ("/%%41", broken),
            ("/a%00b", "the path holds an encoded NUL"),
            ("/..", above),
            ("/../a", above),
            ("/%2e%2e/a", above),
            ("/a/../../b", above),
            ("//..", above),
            ("/a/..%2Fb", hidden),
            ("/a/..%5cb", hidden),
            ("/a%2F..", hidden),
            ("/a%2f%2e%2e%2fb", hidden),
            ("/a%5C.%5Cb", hidden),
            ("/a/..;/b", hidden),
            ("/a/..;x=y/b", hidden),
            ("/a/.;/b", hidden),
            ("/a/..%3b/b", hidden),
            ("/a%2F..%3Bx/b", hidden),
            ("/a/.%3b;/b", hidden),
            ("/a b", BAD_BYTE),
            ("/a%20b\\", BAD_BYTE),
            ("/a/./?b", BAD_BYTE),
            ("/a#", BAD_BYTE),
            ("/\u{e9}", BAD_BYTE),
            ("/./\u{e9}", BAD_BYTE),
            ("/a\r\n", BAD_BYTE),
            ("", "the path does not begin with a slash"),
            ("a", "the path does not begin with a slash"),
            ("*", "the path does not begin with a slash"),
        ] {
            assert_eq!(normal(written), Err(reason), "{written}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn it_agrees_with_the_rules_written_the_slow_way(
            path in "(/|[a.;]|\\.\\.|//|/\\./|/\\.\\./|%2[eEfF]|%5[cC]|%3[bB]|%25|%4[1g]|%00|%|\\\\| |\u{e9}){0,10}"
        ) {
            let path = format!("/{path}");
            prop_assert_eq!(normal(&path).ok(), reference(&path));
        }

        #[test]
        fn no_text_makes_it_panic(path in ".{0,20}") {
            let ours = normal(&path).ok();
            prop_assert_eq!(ours, reference(&path));
        }

        #[test]
        fn once_is_enough_and_no_dots_are_left(
            path in "(/|[a-c.;]|\\.\\.|%2[eEfF]|%5[cC]|%3[bB]|%25|%32|%46){0,12}"
        ) {
            if let Ok(once) = normal(&format!("/{path}")) {
                prop_assert_eq!(normal(&once), Ok(once.clone()));
                prop_assert!(!finds_dots(&once), "{}", once);
                prop_assert!(once.starts_with('/') && !once.contains("//"));
                prop_assert!(once.bytes().all(is_path_byte));
            }
        }
    }
}
