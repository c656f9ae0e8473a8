//! Header fields as an ordered list of slices over one buffer, with the ones the proxy reads recognised once.
//!
//! A `HeaderMap` would hash and allocate per field and lose order and case; a proxy mostly copies fields through. The list
//! keeps what was received byte for byte, and a bit set answers "is there one?" for the names in [`Known`] without a search.

use super::line::{self, Plain};
use std::ops::Range;

/// Fields the proxy itself reads or replaces. Everything else is [`Known::Other`] and passes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "each is the field of that name")]
pub enum Known {
    Other,
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    KeepAlive,
    ProxyConnection,
    Upgrade,
    Te,
    Trailer,
    Expect,
    Via,
    Forwarded,
    XForwarded,
    XForwardedFor,
    XForwardedHost,
    XForwardedProto,
    XRealIp,
    XRequestId,
    Traceparent,
    Tracestate,
    Date,
    Authorization,
    XApiKey,
    Priority,
    SluiceTimeout,
    SluiceAttempts,
    Http2Settings,
    /// A name that [`reads_as`] one of the above: it would smuggle a forged `X-Forwarded-For` past us. And `Proxy`, which
    /// CGI hands on as the variable `HTTP_PROXY`: it would choose the proxy that a provider's own requests go through.
    Disguised,
}

/// One field: where its name and value stand in the buffer.
#[derive(Debug, Clone, Copy)]
struct Field {
    name_at: u32,
    value_at: u32,
    value_len: u32,
    name_len: u16,
    known: Known,
}

/// An ordered list of fields. Reused from message to message: clearing keeps the memory.
#[derive(Debug, Default, Clone)]
pub struct Fields {
    bytes: Vec<u8>,
    list: Vec<Field>,
    present: u32,
}

// === impl Fields ===

impl Fields {
    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.list.clear();
        self.present = 0;
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Bytes of their names and values, and of what else the head held.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether a field of this name is there.
    #[inline]
    pub fn has(&self, known: Known) -> bool {
        self.present & (1 << known as u8) != 0
    }

    /// The value of the first field of this name.
    #[inline]
    pub fn get(&self, known: Known) -> Option<&[u8]> {
        if !self.has(known) {
            return None;
        }
        self.values(known).next()
    }

    /// The values of every field of this name, in order.
    pub fn values(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        let list = if self.has(known) { &self.list[..] } else { &[] };
        list.iter().filter(move |field| field.known == known).map(|field| self.value(field))
    }

    /// The values of every field called `name` (any case), in order; slower than [`Fields::values`].
    pub fn named<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(move |(_, candidate, _)| candidate.eq_ignore_ascii_case(name)).map(|(_, _, value)| value)
    }

    /// Every field in order: what it is, its name as written, its value without surrounding space.
    pub fn iter(&self) -> impl Iterator<Item = (Known, &[u8], &[u8])> {
        self.list.iter().map(|field| (field.known, self.name(field), self.value(field)))
    }

    /// Adds a field to the end.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        let name_at = self.bytes.len();
        self.bytes.extend_from_slice(name);
        let value_at = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.note(recognise(name), name_at..value_at, value_at..self.bytes.len());
    }

    /// Whether the comma-separated list in the fields of this name has `token` (any case), as `Connection: close` has.
    pub fn lists(&self, known: Known, token: &[u8]) -> bool {
        // Mostly it is all there is.
        let has = |list: &[u8]| {
            list.eq_ignore_ascii_case(token) || elements(list).any(|element| element.eq_ignore_ascii_case(token))
        };
        self.has(known) && self.values(known).any(has)
    }

    /// Whether the lists in the fields of this name have more than `max` elements together, empty ones included.
    pub fn lists_more_than(&self, known: Known, max: usize) -> bool {
        let elements = |value| <[u8]>::split(value, |byte| *byte == b',');
        self.has(known) && self.values(known).flat_map(elements).nth(max).is_some()
    }

    /// The fields whose names are not `withheld`, in order.
    #[must_use]
    pub fn without(&self, withheld: &dyn Fn(&[u8]) -> bool) -> Fields {
        let mut kept = Fields::default();
        for (_, name, value) in self.iter().filter(|(_, name, _)| !withheld(name)) {
            kept.push(name, value);
        }
        kept
    }

    /// Keeps bytes of a head that belong to no field, and says where.
    pub(super) fn lay(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len()
    }

    /// Takes over the bytes of a head, to which the spans noted before refer.
    pub(super) fn adopt(&mut self, head: &[u8]) {
        self.bytes.clear();
        self.bytes.extend_from_slice(head);
    }

    /// The bytes of the head that was adopted.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Adds a field of which it is known what it is and where it will stand in the bytes.
    #[inline]
    pub(super) fn note(&mut self, known: Known, name: Range<usize>, value: Range<usize>) {
        self.present |= 1 << known as u8;
        self.list.push(Field {
            name_at: name.start as u32,
            value_at: value.start as u32,
            value_len: value.len() as u32,
            name_len: name.len() as u16,
            known,
        });
    }

    #[inline]
    fn name(&self, field: &Field) -> &[u8] {
        &self.bytes[field.name_at as usize..field.name_at as usize + usize::from(field.name_len)]
    }

    #[inline]
    fn value(&self, field: &Field) -> &[u8] {
        &self.bytes[field.value_at as usize..field.value_at as usize + field.value_len as usize]
    }
}

/// Options in the `Connection` fields of one message; more is malformed. Every field is compared with every option, so
/// without a bound a head of 64 KiB could ask for millions of comparisons. Real messages have two or three.
pub const CONNECTION_OPTIONS: usize = 32;

/// The elements of a comma-separated list (RFC 9110 §5.6.1), without space and without empty ones.
pub fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// Which of the fields we know this is. The length picks at most three candidates and the first letter, which is the same
/// however a name is spelled, leaves one: so most names cost one comparison or none.
pub(super) fn recognise(name: &[u8]) -> Known {
    let begins_as = |other: &[u8]| name.first().is_some_and(|first| first.eq_ignore_ascii_case(&other[0]));
    for candidate in candidates(name.len()) {
        if begins_as(candidate.lower) {
            if is_token(name, candidate.lower) {
                return candidate.known;
            }
            if reads_as(name, candidate.lower) {
                return Known::Disguised;
            }
        }
    }
    if name.len() <= FAMILY.len() || !begins_as(FAMILY) {
        return Known::Other;
    }
    match &name[..FAMILY.len()] {
        front if front.eq_ignore_ascii_case(FAMILY) => Known::XForwarded,
        front if reads_as(front, FAMILY) => Known::Disguised,
        _ => Known::Other,
    }
}

/// The same for a name without signs that could disguise it.
#[inline]
pub(super) fn recognise_plain(name: Plain) -> Known {
    let Plain { len, words: [front, back] } = name;
    for candidate in candidates(len) {
        if candidate.words == [front, back] {
            return candidate.known;
        }
    }
    let [family, rest] = line::words(FAMILY);
    if front == family && back & u64::from(u32::MAX) == rest && len > FAMILY.len() {
        return Known::XForwarded;
    }
    Known::Other
}

/// Whether a name is `lower`, which is in lower case, in any case of its own. A name has no control characters, so setting the
/// bit by which the cases of a letter differ makes nothing else the same.
#[inline]
fn is_token(name: &[u8], lower: &[u8]) -> bool {
    name.len() == lower.len() && name.iter().zip(lower).all(|(byte, lower)| byte | 0x20 == *lower)
}

/// Whether a CGI-style server takes two field names for the same. It gives its program `HTTP_X_REAL_IP` for `X-Real-IP` and
/// for `x_real_ip`, and some (lighttpd) make an underscore of whatever is no letter or digit: `X.Real.IP`.
#[inline]
#[must_use]
pub fn reads_as(name: &[u8], other: &[u8]) -> bool {
    let same =
        |(a, b): (&u8, &u8)| a.eq_ignore_ascii_case(b) || !(a.is_ascii_alphanumeric() || b.is_ascii_alphanumeric());
    name.len() == other.len() && name.iter().zip(other).all(same)
}

/// What every name of the `X-Forwarded-*` family begins with.
const FAMILY: &[u8] = b"x-forwarded-";

/// A name that means something to us.
struct Name {
    lower: &'static [u8],
    /// Of a name of up to 16 bytes, all of it.
    words: [u64; 2],
    known: Known,
}

const fn name(lower: &'static [u8], known: Known) -> Name {
    Name { lower, words: line::words(lower), known }
}

/// The names of this length.
#[inline]
fn candidates(len: usize) -> &'static [Name] {
    NAMES.get(len).copied().unwrap_or(&[])
}

/// By length.
static NAMES: [&[Name]; 18] = [
    &[],
    &[],
    &[name(b"te", Known::Te)],
    &[name(b"via", Known::Via)],
    &[name(b"host", Known::Host), name(b"date", Known::Date)],
    &[name(b"proxy", Known::Disguised)],
    &[name(b"expect", Known::Expect)],
    &[name(b"upgrade", Known::Upgrade), name(b"trailer", Known::Trailer)],
    &[name(b"priority", Known::Priority)],
    &[name(b"forwarded", Known::Forwarded), name(b"x-real-ip", Known::XRealIp), name(b"x-api-key", Known::XApiKey)],
    &[
        name(b"connection", Known::Connection),
        name(b"keep-alive", Known::KeepAlive),
        name(b"tracestate", Known::Tracestate),
    ],
    &[name(b"traceparent", Known::Traceparent)],
    &[name(b"x-request-id", Known::XRequestId)],
    &[name(b"authorization", Known::Authorization)],
    &[
        name(b"content-length", Known::ContentLength),
        name(b"http2-settings", Known::Http2Settings),
        name(b"sluice-timeout", Known::SluiceTimeout),
    ],
    &[name(b"x-forwarded-for", Known::XForwardedFor), name(b"sluice-attempts", Known::SluiceAttempts)],
    &[name(b"proxy-connection", Known::ProxyConnection), name(b"x-forwarded-host", Known::XForwardedHost)],
    &[name(b"transfer-encoding", Known::TransferEncoding), name(b"x-forwarded-proto", Known::XForwardedProto)],
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_recognised_in_any_case_and_kept_as_written() {
        let mut fields = Fields::default();
        fields.push(b"hOsT", b"a");
        fields.push(b"X-Custom", b"b");
        assert_eq!(fields.get(Known::Host), Some(&b"a"[..]));
        let names: Vec<_> = fields.iter().map(|(_, name, _)| name).collect();
        assert_eq!(names, [&b"hOsT"[..], b"X-Custom"]);
    }

    #[test]
    fn no_other_spelling_smuggles_a_forwarding_field() {
        for name in [
            "X_Forwarded_For",
            "x_real_ip",
            "Content_Length",
            "X_Forwarded-Anything",
            "X.Forwarded.For",
            "X-Forwarded!For",
            "X~Real~IP",
            "X.Forwarded.Anything",
        ] {
            let mut fields = Fields::default();
            fields.push(name.as_bytes(), b"1");
            assert!(fields.has(Known::Disguised), "{name}");
        }
        for name in ["my_own_field", "x_", "hos_", "x_forwarded_", "x.forwarde.d-for"] {
            let mut fields = Fields::default();
            fields.push(name.as_bytes(), b"1");
            assert!(!fields.has(Known::Disguised), "{name}");
        }
    }

    #[test]
    fn every_name_stands_at_its_length_and_plain_ones_are_known_by_their_words_too() {
        for (len, names) in NAMES.iter().enumerate() {
            for name in *names {
                assert_eq!(name.lower.len(), len);
                assert_eq!(recognise(name.lower), name.known);
            }
        }
        let others = [&b"x-forwarded-"[..], b"x-forwarded-a", b"x-forwardedx-a", b"hos", b"hosts", b"hose", b"a"];
        for lower in
            NAMES.iter().copied().flatten().map(|name| name.lower).chain(others).filter(|name| name.len() <= 16)
        {
            let plain = Plain { len: lower.len(), words: line::words(lower) };
            assert_eq!(recognise_plain(plain), recognise(lower), "{lower:?}");
        }
    }

    #[test]
    fn lists_are_read_across_fields_and_empty_elements() {
        let mut fields = Fields::default();
        fields.push(b"Connection", b"keep-alive, ,X-Foo");
        fields.push(b"connection", b"Close");
        assert!(fields.lists(Known::Connection, b"close"));
        assert!(fields.lists(Known::Connection, b"x-foo"));
        assert!(!fields.lists(Known::Connection, b"upgrade"));
    }

    #[test]
    fn a_proxy_field_does_not_choose_anyones_proxy() {
        let mut fields = Fields::default();
        fields.push(b"Proxy", b"http://192.0.2.1");
        assert!(fields.has(Known::Disguised));
    }
}
