//! Field lines as the library takes them.
//!
//! Heads repeat: most lines of an answer stood in the one before it. To check a name and a value and to lay them out costs
//! much more than to find that they are known, so each worker keeps what it made of lines that came twice.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use std::cell::RefCell;

/// Where lines of one hash value are kept.
#[derive(Default)]
struct Slot {
    known: Option<Known>,
    /// The hash of another line that came: should it come again, it takes the place.
    next: u64,
}

/// A line, and what was made of it.
struct Known {
    hash: u64,
    line: Bytes,
    name: HeaderName,
    value: HeaderValue,
}

/// What field lines say: `name: value` and CR LF each, as [`crate::http1::encode::field`] writes them.
pub fn map(lines: &[u8]) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(FIELDS_EXPECTED);
    let mut start = 0;
    SLOTS.with_borrow_mut(|slots| {
        slots.resize_with(SLOTS_KEPT, Slot::default);
        for end in memchr::memchr_iter(b'\n', lines) {
            // They were checked where they came from; what HTTP/2 cannot say all the same is left out.
            if let Some((name, value)) = field(slots, &lines[start..end - 1]) {
                let _: Result<bool, _> = map.try_append(name, value);
            }
            start = end + 1;
        }
    });
    map
}

/// The field of a line.
fn field(slots: &mut [Slot], line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let Some(hash) = hash(line) else { return read(line) };
    let slot = &mut slots[hash as usize % SLOTS_KEPT];
    if let Some(known) = &slot.known
        && known.hash == hash
        && known.line == line
    {
        return Some((known.name.clone(), known.value.clone()));
    }
    let (name, value) = read(line)?;
    if slot.next == hash && !value.is_sensitive() {
        slot.known = Some(Known { hash, line: Bytes::copy_from_slice(line), name: name.clone(), value: value.clone() });
    }
    slot.next = hash;
    Some((name, value))
}

/// Tells lines apart, mostly; `None` for those that are not kept. They are compared as well: whoever finds two of one value
/// has gained nothing.
fn hash(line: &[u8]) -> Option<u64> {
    let last = line.last_chunk().filter(|_| line.len() <= LINE_BYTES)?;
    let mix = |hash: u64, word: &[u8; 8]| (hash ^ u64::from_le_bytes(*word)).wrapping_mul(FACTOR).rotate_left(32);
    let (words, _) = line.as_chunks();
    Some(mix(words.iter().fold(line.len() as u64, mix), last))
}

fn read(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, unlike) = name(&line[..colon])?;
    let mut value = HeaderValue::from_bytes(line.get(colon + 2..)?).ok()?;
    value.set_sensitive(unlike);
    Some((name, value))
}

/// A field's name as the library takes it, and whether its value is that of one message only, or a secret: it would push out
/// of the compression table what comes again, or let it be guessed (RFC 7541 §7.1.3).
fn name(name: &[u8]) -> Option<(HeaderName, bool)> {
    // Those that are in every message; the library would copy them each time.
    static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
    static TRACE: HeaderName = HeaderName::from_static("traceparent");
    Some(match name {
        b"x-request-id" => (REQUEST_ID.clone(), true),
        b"traceparent" => (TRACE.clone(), true),
        name => {
            let name = HeaderName::from_bytes(name).ok()?;
            let secret = name == header::AUTHORIZATION;
            (name, secret)
        }
    })
}

thread_local! {
    static SLOTS: RefCell<Vec<Slot>> = const { RefCell::new(Vec::new()) };
}

/// Lines that each worker keeps.
const SLOTS_KEPT: usize = 64;

/// Bytes of a line that is kept.
const LINE_BYTES: usize = 128;

/// Odd, with its bits well spread (that of splitmix64).
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// Room made for the fields of a head before they are counted; with less of it they get into each other's way.
const FIELDS_EXPECTED: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::encode;

    fn said(fields: &[(&str, &str)]) -> HeaderMap {
        let mut lines = Vec::new();
        for (name, value) in fields {
            encode::field(&mut lines, name.as_bytes(), value.as_bytes());
        }
        map(&lines)
    }

    #[test]
    fn field_lines_become_fields() {
        let map = said(&[("X-One", "a: b"), ("set-cookie", "1"), ("Set-Cookie", ""), ("a b", "no token")]);
        assert_eq!(map["x-one"], "a: b");
        assert_eq!(map.get_all("set-cookie").iter().collect::<Vec<_>>(), ["1", ""]);
        assert_eq!(map.len(), 3);
    }

    #[test]
    fn lines_that_come_again_say_the_same() {
        let long = "x".repeat(LINE_BYTES);
        // More than there is room for, so that they take each other's places.
        for round in 0..4 {
            for number in 0..4 * SLOTS_KEPT {
                let (text, own) = (number.to_string(), format!("{round} {number}"));
                let fields = [("etag", &*text), ("X-Long", &long), ("own", &own), ("authorization", &text)];
                let map = said(&fields);
                for (name, value) in fields {
                    assert_eq!(map[name], value);
                }
                assert!(map["authorization"].is_sensitive() && !map["etag"].is_sensitive());
            }
        }
        SLOTS.with_borrow(|slots| assert!(slots.iter().any(|slot| slot.known.is_some()), "some are kept"));
    }

    #[test]
    fn what_is_secret_or_never_comes_again_is_not_kept() {
        for _ in 0..3 {
            said(&[("authorization", "Bearer of a secret"), ("x-request-id", "0123456789abcdef")]);
        }
        SLOTS.with_borrow(|slots| assert!(slots.iter().all(|slot| slot.known.is_none())));
    }
}
