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
//!   segment hidden between them (`..%2Fadmin`) is refused, and so is one with a parameter (`/..;/`), which Java
//!   servers cut off before resolving. Names that merely contain these, such as `group%2Fproject`, pass.
//! - Repeated slashes become one. Most servers treat `//admin` as `/admin`, so leaving them would let it past a route
//!   for `/admin/*`; and a redirect to `{path}` would send `//evil.example` somewhere else altogether. Envoy leaves
//!   them by default, for providers that give an empty segment a meaning; nginx merges them by default, and so do we.
//!   The price is that a URL inside a path (`/fetch/https://…`) loses a slash unless it is encoded.
//!   They are merged before dots are resolved: `/a//../b` is `/b`.
//!
//! Doing it twice changes nothing, as nothing that decoding produces can be read as an encoding (`%25` stays).

use crate::http1::target::is_path_byte;

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
            b'/' if matches!(path.get(at + 1), Some(b'/' | b'.')) => return doubtful(path, at),
            b'/' => segment = at,
            b'%' => return doubtful(path, segment),
            _ if is_path_byte(byte) => {}
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
        && parts.any(|part| matches!(part.split(';').next(), Some("." | "..")))
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
