//! Validators: answering conditional requests from what is kept (RFC 9111 §4.3.2), asking a provider whether what is kept is
//! good still (§4.3.1), and what its answer changes (§4.3.4, §4.3.5, §3.2).

use super::directives::split_unquoted;
use super::{Asked, Method, Terms, date};
use crate::http1::fields::Fields;
use std::time::SystemTime;

/// An entity tag, with the mark of a weak one where it has it. What is no proper tag is compared as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag(Box<[u8]>);

/// What the answer to a HEAD request makes of a kept reply to GET.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterHead {
    /// It is of the same representation: its fields replace those that are kept.
    Update,
    /// It is not: what is kept has to be validated before its next use.
    Invalidate,
}

// === impl Tag ===

impl Tag {
    /// From a field's value.
    #[must_use]
    pub fn new(value: &[u8]) -> Self {
        Tag(value.trim_ascii().into())
    }

    /// As it was written.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether it says only that two representations are as good as each other.
    #[must_use]
    pub fn is_weak(&self) -> bool {
        self.0.starts_with(b"W/")
    }

    /// The weak comparison: whether one is as good as the other (RFC 9110 §8.8.3.2).
    #[must_use]
    pub fn is_as_good_as(&self, other: &[u8]) -> bool {
        opaque(&self.0) == opaque(other)
    }

    /// The strong comparison: whether both are the same to the last byte.
    #[must_use]
    pub fn is_identical_to(&self, other: &[u8]) -> bool {
        !self.is_weak() && *self.0 == *other
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.len()
    }
}

/// A tag without the mark of a weak one.
fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// Whether the client's copy is good still, so that `304 Not Modified` is all it needs. `If-None-Match` goes before
/// `If-Modified-Since`; neither means anything where the kept reply is no success.
#[must_use]
pub fn is_not_modified(asked: &Asked, request: &Fields, status: u16, terms: &Terms, wall: SystemTime) -> bool {
    let reads = matches!(asked.method, Method::Get | Method::Head);
    if !asked.conditional || !reads || !(200..300).contains(&status) {
        return false;
    }
    let mut tags = request.named(b"if-none-match").flat_map(|line| split_unquoted(line, b',')).peekable();
    if tags.peek().is_some() {
        return tags.any(|tag| tag == b"*" || terms.tag.as_ref().is_some_and(|own| own.is_as_good_as(tag)));
    }
    // One that is no date, or that stands there twice, is ignored (RFC 9110 §13.1.3).
    let mut since = request.named(b"if-modified-since");
    let (Some(since), None) = (since.next(), since.next()) else { return false };
    date::parse(since, wall).is_some_and(|since| terms.last_modified.unwrap_or(terms.date) <= since)
}

/// Whether a field of a kept reply belongs into a `304` made from it (RFC 9110 §15.4.5): what describes a body that is not
/// sent stays out, except where it may guide a cache.
#[must_use]
pub fn is_for_not_modified(name: &[u8]) -> bool {
    !NOT_WITHOUT_BODY.iter().any(|other| name.eq_ignore_ascii_case(other))
}

/// The fields by which a provider is asked whether any of these kept replies is good still, and by which the client's own
/// conditions are replaced: `If-None-Match` with every tag, and `If-Modified-Since` where only one is asked about. A part's
/// tag is sent only where the part is all that is asked for: pass those only.
#[must_use]
pub fn conditions(kept: &[(&Terms, &Fields)]) -> Vec<(&'static [u8], Vec<u8>)> {
    let mut conditions = Vec::new();
    let mut tags: Vec<&[u8]> = kept.iter().filter_map(|(terms, _)| terms.tag.as_ref()).map(Tag::as_bytes).collect();
    tags.dedup();
    if !tags.is_empty() {
        conditions.push((&b"if-none-match"[..], tags.join(&b", "[..])));
    }
    if let [(terms, fields)] = kept
        && terms.last_modified.is_some()
        && let Some(value) = fields.named(b"last-modified").next()
    {
        conditions.push((&b"if-modified-since"[..], value.to_vec()));
    }
    conditions
}

/// The client's fields that must not stand beside [`conditions`], nor in a request whose whole answer is to be kept.
#[must_use]
pub fn is_condition(name: &[u8]) -> bool {
    CONDITIONS.iter().any(|other| name.eq_ignore_ascii_case(other))
}

/// Which of the kept replies a `304` with these fields is about (RFC 9111 §4.3.4), by their places; none must be updated
/// where none is named. Of several by a weak validator it is the one that came last.
#[must_use]
pub fn selected(kept: &[&Terms], update: &Fields, wall: SystemTime) -> Vec<usize> {
    let latest = |fits: &dyn Fn(&Terms) -> bool| {
        let fitting = kept.iter().enumerate().filter(|(_, terms)| fits(terms));
        fitting.max_by_key(|(_, terms)| terms.received()).map(|(place, _)| place).into_iter().collect()
    };
    if let Some(tag) = update.named(b"etag").next().map(Tag::new) {
        if tag.is_weak() {
            return latest(&|terms| terms.tag.as_ref().is_some_and(|own| own.is_as_good_as(tag.as_bytes())));
        }
        let is_identical = |terms: &Terms| terms.tag.as_ref().is_some_and(|own| own.is_identical_to(tag.as_bytes()));
        let same: Vec<usize> = (0..kept.len()).filter(|place| is_identical(kept[*place])).collect();
        // A weak tag of ours that differs only by its mark was what the provider was asked about.
        if same.is_empty() {
            return latest(&|terms| {
                terms.tag.as_ref().is_some_and(|own| own.is_weak() && own.is_as_good_as(tag.as_bytes()))
            });
        }
        return same;
    }
    if let Some(modified) = update.named(b"last-modified").next() {
        let modified = date::parse(modified, wall);
        return latest(&|terms| modified.is_some() && terms.last_modified == modified);
    }
    // A 304 without a validator means the only reply that was asked about.
    if kept.len() == 1 { vec![0] } else { Vec::new() }
}

/// The fields of a kept reply after it was validated (RFC 9111 §3.2): each that the update has replaces all of its name,
/// except those that describe the body which is kept. With the update's `Age`, from which new [`Terms`] are read.
#[must_use]
pub fn updated(kept: &Fields, update: &Fields) -> Fields {
    let is_ours = |name: &[u8]| OF_THE_BODY.iter().any(|other| name.eq_ignore_ascii_case(other));
    let mut fields = kept.without(&|name| !is_ours(name) && update.named(name).next().is_some());
    for (_, name, value) in update.iter().filter(|(_, name, _)| !is_ours(name)) {
        fields.push(name, value);
    }
    fields
}

/// What the answer to HEAD makes of a kept reply whose body has this length (RFC 9111 §4.3.5): they are of the same
/// representation if neither validator nor length says otherwise.
#[must_use]
pub fn after_head(terms: &Terms, len: Option<u64>, head: &Fields, wall: SystemTime) -> AfterHead {
    let first = |name: &'static [u8]| head.named(name).next();
    let tag = first(b"etag").is_none_or(|tag| terms.tag.as_ref().is_some_and(|own| own.as_bytes() == tag.trim_ascii()));
    let modified = first(b"last-modified").is_none_or(|value| terms.last_modified == date::parse(value, wall));
    let length = first(b"content-length").is_none_or(|value| {
        let told = str::from_utf8(value).ok().and_then(|value| value.trim_ascii().parse::<u64>().ok());
        told.is_some() && told == len
    });
    if tag && modified && length { AfterHead::Update } else { AfterHead::Invalidate }
}

const CONDITIONS: [&[u8]; 6] =
    [b"if-none-match", b"if-modified-since", b"if-range", b"range", b"if-match", b"if-unmodified-since"];
/// Fields that say what the kept body is: it stays as it is.
const OF_THE_BODY: [&[u8]; 4] = [b"content-length", b"content-encoding", b"content-range", b"transfer-encoding"];
const NOT_WITHOUT_BODY: [&[u8]; 6] = [
    b"content-type",
    b"content-length",
    b"content-encoding",
    b"content-language",
    b"content-range",
    b"transfer-encoding",
];
