//! What a request and a reply say to caches: `Cache-Control` (RFC 9111 §5.2), and `CDN-Cache-Control` in its place where there
//! is one (RFC 9213).
//!
//! The two look alike and are read differently. `Cache-Control` is read with patience: either form of an argument, any case,
//! what is unknown or malformed is passed over. A targeted field is a structured dictionary (RFC 8941 §3.2): the first error
//! makes the whole field count as absent.

use crate::http1::fields::{Fields, elements};
use std::time::Duration;

/// What a reply says to a shared cache.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Reply {
    /// `no-store`.
    pub no_store: bool,
    /// `no-cache` without names.
    pub no_cache: bool,
    /// `private` without names.
    pub private: bool,
    /// `public`.
    pub public: bool,
    /// `must-revalidate`.
    pub must_revalidate: bool,
    /// `proxy-revalidate`.
    pub proxy_revalidate: bool,
    /// `must-understand`.
    pub must_understand: bool,
    /// `max-age`.
    pub max_age: Option<Span>,
    /// `s-maxage`.
    pub s_maxage: Option<Span>,
    /// `stale-while-revalidate` (RFC 5861 §3).
    pub stale_while_revalidate: Option<Span>,
    /// `stale-if-error` (RFC 5861 §4).
    pub stale_if_error: Option<Span>,
    /// Fields that `no-cache="…"` and `private="…"` name, in lower case: they are not kept.
    pub withheld: Vec<Box<[u8]>>,
    /// It was read from a targeted field, beside which `Cache-Control` and `Expires` say nothing.
    pub targeted: bool,
}

/// What a request says to caches.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Ask {
    /// `no-cache`, or `Pragma: no-cache` in its place.
    pub no_cache: bool,
    /// `no-store`.
    pub no_store: bool,
    /// `only-if-cached`.
    pub only_if_cached: bool,
    /// `max-age`.
    pub max_age: Option<Span>,
    /// `min-fresh`.
    pub min_fresh: Option<Span>,
    /// `max-stale`; one without an argument is [`Span::FOREVER`].
    pub max_stale: Option<Span>,
    /// `stale-if-error` (RFC 5861 §4).
    pub stale_if_error: Option<Span>,
}

/// The argument of a directive that takes seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// So many, at most 2³¹ (RFC 9111 §1.2.2).
    Seconds(u32),
    /// No number at all.
    Invalid,
}

/// The value of a member of a structured dictionary, as far as directives need it.
#[derive(Debug, PartialEq, Eq)]
enum Item {
    True,
    False,
    Integer(i64),
    /// A string, without quotes and escapes, or a token.
    Text(Vec<u8>),
    /// Something else that is well formed.
    Other,
}

// === impl Span ===

impl Span {
    /// Longer than anything is kept.
    pub const FOREVER: Span = Span::Seconds(SECONDS_MAX);

    /// As a duration; what is invalid has none.
    #[must_use]
    pub fn duration(self) -> Option<Duration> {
        match self {
            Span::Seconds(seconds) => Some(Duration::from_secs(seconds.into())),
            Span::Invalid => None,
        }
    }

    /// Digits only; as many as there are.
    pub(super) fn parse(text: &[u8]) -> Span {
        if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
            return Span::Invalid;
        }
        let add = |sum: u32, digit: &u8| sum.saturating_mul(10).saturating_add(u32::from(digit - b'0'));
        Span::Seconds(text.iter().fold(0, add).min(SECONDS_MAX))
    }
}

// === impl Reply ===

impl Reply {
    /// Reads a reply's fields: the targeted field where it is valid and says something, else `Cache-Control`.
    #[must_use]
    pub fn read(fields: &Fields) -> Self {
        Reply::targeted(fields).unwrap_or_else(|| {
            let mut reply = Reply::default();
            for value in fields.named(CACHE_CONTROL) {
                each_directive(value, |name, argument| reply.say(name, argument));
            }
            reply
        })
    }

    /// Whether a caller that shares what it has may keep the answer to an authorised request (RFC 9111 §3.5).
    #[must_use]
    pub fn permits_authorised(&self) -> bool {
        self.public || self.must_revalidate || matches!(self.s_maxage, Some(Span::Seconds(_)))
    }

    fn targeted(fields: &Fields) -> Option<Self> {
        let lines: Vec<&[u8]> = fields.named(TARGETED).collect();
        if lines.is_empty() {
            return None;
        }
        let line = lines.join(&b", "[..]);
        let members = dictionary(&line)?;
        let mut reply = Reply { targeted: true, ..Reply::default() };
        for (name, item) in &members {
            reply.say_structured(name, item)?;
        }
        (!members.is_empty()).then_some(reply)
    }

    fn say(&mut self, name: &[u8], argument: Option<&[u8]>) {
        // Of two that differ the first counts (§4.2.1).
        let span = |known: &mut Option<Span>| {
            known.get_or_insert(argument.map_or(Span::Invalid, Span::parse));
        };
        match () {
            () if is(name, b"no-store") => self.no_store = true,
            () if is(name, b"no-cache") => match argument {
                Some(names) if !names.is_empty() => self.withhold(names),
                _ => self.no_cache = true,
            },
            () if is(name, b"private") => match argument {
                Some(names) if !names.is_empty() => self.withhold(names),
                _ => self.private = true,
            },
            () if is(name, b"public") => self.public = true,
            () if is(name, b"must-revalidate") => self.must_revalidate = true,
            () if is(name, b"proxy-revalidate") => self.proxy_revalidate = true,
            () if is(name, b"must-understand") => self.must_understand = true,
            () if is(name, b"max-age") => span(&mut self.max_age),
            () if is(name, b"s-maxage") => span(&mut self.s_maxage),
            () if is(name, b"stale-while-revalidate") => span(&mut self.stale_while_revalidate),
            () if is(name, b"stale-if-error") => span(&mut self.stale_if_error),
            // What is unknown is ignored (§5.2.3).
            () => {}
        }
    }

    /// The same for a member of a dictionary; `None` where its value has the wrong type.
    fn say_structured(&mut self, name: &[u8], item: &Item) -> Option<()> {
        let takes_seconds =
            [&b"max-age"[..], b"s-maxage", b"stale-while-revalidate", b"stale-if-error"].contains(&name);
        let takes_names = [&b"no-cache"[..], b"private"].contains(&name);
        match item {
            Item::Integer(seconds) if takes_seconds && *seconds >= 0 => {
                self.say(name, Some(itoa::Buffer::new().format(*seconds).as_bytes()));
            }
            _ if takes_seconds => return None,
            Item::Text(names) if takes_names => self.say(name, Some(names)),
            Item::True => self.say(name, None),
            _ => {}
        }
        Some(())
    }

    fn withhold(&mut self, names: &[u8]) {
        self.withheld.extend(elements(names).map(|name| name.to_ascii_lowercase().into()));
    }
}

// === impl Ask ===

impl Ask {
    /// Adds what a `Cache-Control` line of the request says.
    pub(super) fn say(&mut self, value: &[u8]) {
        each_directive(value, |name, argument| {
            let span = argument.map_or(Span::Invalid, Span::parse);
            match () {
                () if is(name, b"no-cache") => self.no_cache = true,
                () if is(name, b"no-store") => self.no_store = true,
                () if is(name, b"only-if-cached") => self.only_if_cached = true,
                () if is(name, b"max-age") => self.max_age = self.max_age.or(Some(span)),
                () if is(name, b"min-fresh") => self.min_fresh = self.min_fresh.or(Some(span)),
                () if is(name, b"max-stale") => {
                    let span = argument.map_or(Span::FOREVER, Span::parse);
                    self.max_stale = self.max_stale.or(Some(span));
                }
                () if is(name, b"stale-if-error") => self.stale_if_error = self.stale_if_error.or(Some(span)),
                () => {}
            }
        });
    }
}

fn is(name: &[u8], directive: &[u8]) -> bool {
    name.eq_ignore_ascii_case(directive)
}

/// Calls `say` with the name of each directive of a line and with its argument, in whichever form it was written.
fn each_directive(line: &[u8], mut say: impl FnMut(&[u8], Option<&[u8]>)) {
    for part in split_unquoted(line, b',') {
        let (name, argument) = match part.iter().position(|byte| *byte == b'=') {
            Some(at) => (&part[..at], Some(unquote(&part[at + 1..]))),
            None => (part, None),
        };
        // A name with a space in it is a name of nothing that we know, so `max-age =5` says nothing.
        say(name, argument);
    }
}

/// The parts of `line` between separators that stand outside quotes, without surrounding space and empty ones.
pub(super) fn split_unquoted(line: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    line.split(move |byte| {
        let ends = *byte == separator && !quoted;
        if !std::mem::take(&mut escaped) {
            escaped = quoted && *byte == b'\\';
            quoted ^= *byte == b'"';
        }
        ends
    })
    .map(<[u8]>::trim_ascii)
    .filter(|part| !part.is_empty())
}

/// What stands between quotes, where it does. No directive we know has use for an escape.
fn unquote(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(text)
}

// Structured fields, RFC 8941 §4.2: as far as a dictionary of directives needs them.

/// The members of a dictionary in order, a later one of the same name in place of an earlier; `None` where it is malformed.
fn dictionary(text: &[u8]) -> Option<Vec<(&[u8], Item)>> {
    let mut rest = trim_spaces(text);
    let mut members: Vec<(&[u8], Item)> = Vec::new();
    while !rest.is_empty() {
        let name = key(&mut rest)?;
        let item = if rest.strip_prefix(b"=").is_some() {
            rest = &rest[1..];
            member(&mut rest)?
        } else {
            parameters(&mut rest)?;
            Item::True
        };
        members.retain(|(other, _)| *other != name);
        members.push((name, item));
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            break;
        }
        rest = rest.strip_prefix(b",")?.trim_ascii_start();
        if rest.is_empty() {
            return None;
        }
    }
    Some(members)
}

fn trim_spaces(mut text: &[u8]) -> &[u8] {
    while let Some(rest) = text.strip_prefix(b" ") {
        text = rest;
    }
    while let Some(rest) = text.strip_suffix(b" ") {
        text = rest;
    }
    text
}

/// Cuts what satisfies `is_part` off the front.
fn take_while<'t>(rest: &mut &'t [u8], is_part: impl Fn(u8) -> bool) -> &'t [u8] {
    let end = rest.iter().position(|byte| !is_part(*byte)).unwrap_or(rest.len());
    let (taken, left) = rest.split_at(end);
    *rest = left;
    taken
}

fn key<'t>(rest: &mut &'t [u8]) -> Option<&'t [u8]> {
    rest.first().filter(|byte| byte.is_ascii_lowercase() || **byte == b'*')?;
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte);
    Some(take_while(rest, is_part))
}

/// An item or an inner list, with its parameters, which mean nothing here.
fn member(rest: &mut &[u8]) -> Option<Item> {
    let item = match rest.strip_prefix(b"(") {
        None => bare_item(rest)?,
        Some(inner) => {
            *rest = inner;
            loop {
                *rest = trim_front(rest);
                if let Some(after) = rest.strip_prefix(b")") {
                    *rest = after;
                    break Item::Other;
                }
                bare_item(rest)?;
                parameters(rest)?;
                if !matches!(rest.first(), Some(b' ' | b')')) {
                    return None;
                }
            }
        }
    };
    parameters(rest)?;
    Some(item)
}

fn trim_front(mut text: &[u8]) -> &[u8] {
    while let Some(rest) = text.strip_prefix(b" ") {
        text = rest;
    }
    text
}

fn parameters(rest: &mut &[u8]) -> Option<()> {
    while let Some(after) = rest.strip_prefix(b";") {
        *rest = trim_front(after);
        key(rest)?;
        if let Some(after) = rest.strip_prefix(b"=") {
            *rest = after;
            bare_item(rest)?;
        }
    }
    Some(())
}

fn bare_item(rest: &mut &[u8]) -> Option<Item> {
    match rest.first()? {
        b'-' | b'0'..=b'9' => number(rest),
        b'"' => string(rest),
        b'?' => {
            let item = match rest.get(1)? {
                b'0' => Item::False,
                b'1' => Item::True,
                _ => return None,
            };
            *rest = &rest[2..];
            Some(item)
        }
        b':' => {
            *rest = &rest[1..];
            take_while(rest, |byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
            *rest = rest.strip_prefix(b":")?;
            Some(Item::Other)
        }
        first if first.is_ascii_alphabetic() || *first == b'*' => {
            let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte);
            Some(Item::Text(take_while(rest, is_part).to_vec()))
        }
        _ => None,
    }
}

fn number(rest: &mut &[u8]) -> Option<Item> {
    let sign = rest.strip_prefix(b"-");
    let negative = sign.is_some();
    *rest = sign.unwrap_or(rest);
    let digits = take_while(rest, |byte| byte.is_ascii_digit());
    if digits.is_empty() || digits.len() > 15 {
        return None;
    }
    if let Some(after) = rest.strip_prefix(b".") {
        *rest = after;
        let fraction = take_while(rest, |byte| byte.is_ascii_digit());
        return (digits.len() <= 12 && (1..=3).contains(&fraction.len())).then_some(Item::Other);
    }
    let number: i64 = str::from_utf8(digits).ok()?.parse().ok()?;
    Some(Item::Integer(if negative { -number } else { number }))
}

fn string(rest: &mut &[u8]) -> Option<Item> {
    let mut text = Vec::new();
    let mut bytes = rest.iter().enumerate().skip(1);
    loop {
        match bytes.next()? {
            (at, b'"') => {
                *rest = &rest[at + 1..];
                return Some(Item::Text(text));
            }
            (_, b'\\') => match bytes.next()? {
                (_, escaped @ (b'"' | b'\\')) => text.push(*escaped),
                _ => return None,
            },
            (_, byte @ 0x20..=0x7e) => text.push(*byte),
            _ => return None,
        }
    }
}

/// What a number of seconds is taken for that is larger (RFC 9111 §1.2.2).
const SECONDS_MAX: u32 = 1 << 31;
pub(super) const CACHE_CONTROL: &[u8] = b"cache-control";
/// The one targeted field that we are a target of (RFC 9213 §3.1).
pub(super) const TARGETED: &[u8] = b"cdn-cache-control";
