//! Field lines as the library takes them.
//!
//! Heads repeat: most say what the one before them said, but for a few fields that are each message's own. To check names
//! and values and to lay them out costs much more than to find that they are known, so each worker keeps what it made of
//! heads that came twice, and of lines that did, for heads that are not known as a whole.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use std::cell::RefCell;
use std::ops::Range;

/// What a worker keeps.
struct Kept {
    forms: Vec<Slot<Form>>,
    lines: Vec<Slot<Line>>,
}

/// Where what has the same place is kept.
struct Slot<T> {
    known: Option<T>,
    /// The hash of what came last and is not known: should it come again, it takes the place.
    next: u64,
}

/// A head, and what was made of it: others differ from it only in the values that are their own.
struct Form {
    /// The lines up to such a value, and the name of its field.
    own: Vec<(Box<[u8]>, HeaderName)>,
    /// The lines behind them.
    rest: Box<[u8]>,
    /// The fields; those values are empty.
    map: HeaderMap,
}

/// A line, and what was made of it.
struct Line {
    hash: u64,
    bytes: Bytes,
    name: HeaderName,
    value: HeaderValue,
}

// === impl Slot ===

impl<T> Slot<T> {
    fn empty() -> Self {
        Slot { known: None, next: 0 }
    }
}

// === impl Form ===

impl Form {
    /// Of a head that says `map`; `None` where it has more values of its own than can be told apart.
    fn new(lines: &[u8], map: &HeaderMap) -> Option<Self> {
        let (mut map, mut own, mut start) = (map.clone(), Vec::new(), 0);
        for line in split(lines) {
            let colon = line.start + lines[line.clone()].iter().position(|byte| *byte == b':')?;
            let (name, true) = name(&lines[line.start..colon])? else { continue };
            if map.get_all(&name).iter().count() != 1 {
                return None;
            }
            map.insert(&name, HeaderValue::from_static(""));
            own.push((lines.get(start..colon + 2)?.into(), name));
            start = line.end;
        }
        (own.len() <= OWN_VALUES).then(|| Form { own, rest: lines[start..].into(), map })
    }

    /// What these lines say, where they are of this form.
    fn fill(&self, mut lines: &[u8]) -> Option<HeaderMap> {
        let mut values = [&lines[..0]; OWN_VALUES];
        for (value, (before, _)) in values.iter_mut().zip(&self.own) {
            lines = lines.strip_prefix(&before[..])?;
            (*value, lines) = lines.split_at(memchr::memchr(b'\r', lines)?);
        }
        if lines != &self.rest[..] {
            return None;
        }
        let mut map = self.map.clone();
        for (value, (_, name)) in values.into_iter().zip(&self.own) {
            *map.get_mut(name)? = own_value(value)?;
        }
        Some(map)
    }
}

/// What field lines say: `name: value` and CR LF each, as [`crate::http1::encode::field`] writes them.
pub fn map(lines: &[u8]) -> HeaderMap {
    KEPT.with_borrow_mut(|kept| {
        kept.forms.resize_with(FORMS_KEPT, Slot::empty);
        kept.lines.resize_with(LINES_KEPT, Slot::empty);
        let begin = &lines[..lines.len().min(FORM_BEGIN)];
        let slot = &mut kept.forms[place(hash(lines.len() as u64, begin), FORMS_KEPT)];
        if let Some(map) = slot.known.as_ref().and_then(|form| form.fill(lines)) {
            return map;
        }
        let (map, hash) = read_all(&mut kept.lines, lines);
        if slot.next == hash && lines.len() <= FORM_BYTES {
            slot.known = Form::new(lines, &map);
        }
        slot.next = hash;
        map
    })
}

/// The fields of all lines, and a hash of those that may come again.
fn read_all(slots: &mut [Slot<Line>], lines: &[u8]) -> (HeaderMap, u64) {
    let (mut map, mut all) = (HeaderMap::with_capacity(FIELDS_EXPECTED), 0);
    for line in split(lines) {
        let line = &lines[line];
        let hash = hash(line.len() as u64, line);
        // They were checked where they came from; what HTTP/2 cannot say all the same is left out.
        if let Some((name, value)) = field(slots, line, hash) {
            if !value.is_sensitive() {
                all = mix(all, hash);
            }
            let _: Result<bool, _> = map.try_append(name, value);
        }
    }
    (map, all)
}

/// Where the lines are, without their ends.
fn split(lines: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    memchr::memchr_iter(b'\n', lines).map(move |end| std::mem::replace(&mut start, end + 1)..end - 1)
}

/// The field of a line that has this hash.
fn field(slots: &mut [Slot<Line>], line: &[u8], hash: u64) -> Option<(HeaderName, HeaderValue)> {
    if line.len() > LINE_BYTES {
        return read(line);
    }
    let slot = &mut slots[place(hash, LINES_KEPT)];
    if let Some(known) = &slot.known
        && known.hash == hash
        && known.bytes == line
    {
        return Some((known.name.clone(), known.value.clone()));
    }
    let (name, value) = read(line)?;
    if slot.next == hash && !value.is_sensitive() {
        slot.known = Some(Line { hash, bytes: Bytes::copy_from_slice(line), name: name.clone(), value: value.clone() });
    }
    slot.next = hash;
    Some((name, value))
}

/// Tells bytes apart, mostly. They are compared as well: whoever finds two of one value has gained nothing.
fn hash(start: u64, bytes: &[u8]) -> u64 {
    let (words, _) = bytes.as_chunks();
    let last = bytes.last_chunk().copied().unwrap_or_default();
    mix(words.iter().fold(start, |hash, word| mix(hash, u64::from_le_bytes(*word))), u64::from_le_bytes(last))
}

fn mix(hash: u64, word: u64) -> u64 {
    (hash ^ word).wrapping_mul(FACTOR).rotate_left(32)
}

fn place(hash: u64, places: usize) -> usize {
    hash as usize % places
}

fn read(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, unlike) = name(&line[..colon])?;
    let value = line.get(colon + 2..)?;
    Some((name, if unlike { own_value(value) } else { HeaderValue::from_bytes(value).ok() }?))
}

/// A value that stands in no other message.
fn own_value(value: &[u8]) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_bytes(value).ok()?;
    value.set_sensitive(true);
    Some(value)
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
    static KEPT: RefCell<Kept> = const { RefCell::new(Kept { forms: Vec::new(), lines: Vec::new() }) };
}

/// Forms of heads that each worker keeps.
const FORMS_KEPT: usize = 32;

/// Bytes of a head whose form is kept.
const FORM_BYTES: usize = 2 * 1024;

/// Bytes at the beginning of a head that tell, with its length, where its form is kept.
const FORM_BEGIN: usize = 24;

/// Values of its own that a head may have: those that [`name`] knows.
const OWN_VALUES: usize = 3;

/// Lines that each worker keeps.
const LINES_KEPT: usize = 64;

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
            for number in 0..4 * LINES_KEPT {
                let (text, own) = (number.to_string(), format!("{round} {number}"));
                let fields = [("etag", &*text), ("X-Long", &long), ("own", &own), ("authorization", &text)];
                let map = said(&fields);
                for (name, value) in fields {
                    assert_eq!(map[name], value);
                }
                assert!(map["authorization"].is_sensitive() && !map["etag"].is_sensitive());
            }
        }
        KEPT.with_borrow(|kept| assert!(kept.lines.iter().any(|slot| slot.known.is_some()), "some are kept"));
    }

    #[test]
    fn a_head_that_is_known_is_filled_with_its_own_values_only() {
        let head = |id: &str, agent: &str, trace: &str| {
            let trace = [("traceparent", trace)];
            let fields =
                [("te", "trailers"), ("x-request-id", id), ("user-agent", agent), ("accept", "a"), ("accept", "b")];
            let all = [&fields[..], if trace[0].1.is_empty() { &[] } else { &trace }].concat();
            let map = said(&all);
            let listed = map.iter().map(|(name, value)| (name.as_str(), value.to_str().expect("text")));
            let mut expected = all.clone();
            // As a map has them: those of one name together, where the first stood.
            expected
                .sort_by_key(|(name, _)| fields.iter().position(|(first, _)| first == name).unwrap_or(fields.len()));
            assert_eq!(listed.collect::<Vec<_>>(), expected);
            assert!(map["x-request-id"].is_sensitive() && !map["user-agent"].is_sensitive());
        };
        for round in 0..4 {
            for agent in ["one", "two", "other"] {
                for trace in ["", "00-1-2-01", "00-3-4-00"] {
                    head(&format!("id {round}"), agent, trace);
                    head(&format!("id {agent}"), agent, trace);
                }
            }
        }
        KEPT.with_borrow(|kept| assert!(kept.forms.iter().any(|slot| slot.known.is_some()), "some are kept"));
    }

    #[test]
    fn what_is_secret_or_never_comes_again_is_not_kept() {
        for _ in 0..3 {
            said(&[("authorization", "Bearer of a secret"), ("x-request-id", "0123456789abcdef")]);
        }
        KEPT.with_borrow(|kept| {
            assert!(kept.lines.iter().all(|slot| slot.known.is_none()));
            let forms: Vec<_> = kept.forms.iter().filter_map(|slot| slot.known.as_ref()).collect();
            let [Form { own, rest, map }] = &forms[..] else { panic!("one is kept") };
            let before: Vec<_> = own.iter().map(|(before, _)| &before[..]).collect();
            assert_eq!((&before[..], &rest[..]), (&[&b"authorization: "[..], b"\r\nx-request-id: "][..], &b"\r\n"[..]));
            assert!(map.len() == 2 && map.values().all(HeaderValue::is_empty));
        });
    }

    #[test]
    fn what_cannot_be_said_is_left_out_of_a_head_that_is_known() {
        for (id, can_be) in [("one", true), ("two", true), ("\u{7f}..", false), ("a\rb", false), ("six", true)] {
            let map = said(&[("te", "trailers"), ("x-request-id", id), ("via", "us")]);
            assert_eq!(map.get("x-request-id").is_some_and(|said| said == id), can_be, "{id:?}");
            assert_eq!(map.len(), if can_be { 3 } else { 2 });
            assert_eq!(map["via"], "us");
        }
        for _ in 0..3 {
            let twice = said(&[("authorization", "a"), ("authorization", "b")]);
            assert_eq!(twice.get_all("authorization").iter().collect::<Vec<_>>(), ["a", "b"]);
        }
    }
}
