//! Parts of what is kept (RFC 9110 §14, RFC 9111 §3.3): ranges from a whole, and smaller ranges from a part.

use super::validators::Tag;
use super::{Asked, Method, Terms, date};
use crate::http1::fields::{Fields, elements};
use std::ops::Range;
use std::time::{Duration, SystemTime};

/// Which bytes of a representation a `206` holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Where they stand in it.
    pub bytes: Range<u64>,
    /// How many it has in all.
    pub of: u64,
}

/// How much of a kept reply answers a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Portion {
    /// All of it, with its own status.
    Whole,
    /// Bytes of the representation, as `206`: one range, or several in a `multipart/byteranges`, in the order asked for.
    Ranges(Vec<Range<u64>>),
    /// None: `416`, with `Content-Range: bytes */LENGTH`.
    Unsatisfiable,
}

// === impl Part ===

impl Part {
    /// Reads a `206`. `None` where it is in several parts, has no `Content-Range` of bytes, or does not say how many there
    /// are in all: such a part answers nobody else.
    #[must_use]
    pub fn read(reply: &Fields) -> Option<Self> {
        let value = str::from_utf8(reply.named(b"content-range").next()?).ok()?.trim_ascii();
        let (unit, rest) = value.split_once(' ')?;
        let (range, of) = rest.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let (first, last, of) = (number(first)?, number(last)?, number(of)?);
        let fits = unit.eq_ignore_ascii_case("bytes") && first <= last && last < of;
        fits.then(|| Part { bytes: first..last + 1, of })
    }

    /// Bytes of the representation as a place in what is kept of it; `None` where some of them are not.
    #[must_use]
    pub fn place(&self, range: &Range<u64>) -> Option<Range<u64>> {
        let holds = self.bytes.start <= range.start && range.end <= self.bytes.end;
        holds.then(|| range.start - self.bytes.start..range.end - self.bytes.start)
    }
}

/// How much of a kept reply answers a request. `len`: of the whole representation, if that is known already.
///
/// `None` where only a part is kept and it is not enough.
#[must_use]
pub fn portion(
    asked: &Asked,
    request: &Fields,
    (status, terms): (u16, &Terms),
    len: Option<u64>,
    wall: SystemTime,
) -> Option<Portion> {
    let len = terms.part.as_ref().map(|part| part.of).or(len);
    let partial = terms.part.is_some();
    let whole = (!partial).then_some(Portion::Whole);
    // Only what a GET would bring in whole has parts (RFC 9110 §14.2).
    let has_parts = asked.range && asked.method == Method::Get && (status == 200 || partial);
    let Some(len) = len.filter(|_| has_parts && may_be_cut(request, terms, wall)) else { return whole };
    let mut lines = request.named(b"range");
    let (Some(line), None) = (lines.next(), lines.next()) else { return whole };
    let Some(ranges) = parse(line, len) else { return whole };
    if ranges.is_empty() {
        // Only the whole knows for sure that nothing is there.
        return Some(Portion::Unsatisfiable);
    }
    if let Some(part) = &terms.part
        && !ranges.iter().all(|range| part.place(range).is_some())
    {
        return None;
    }
    Some(Portion::Ranges(ranges))
}

/// Whether `If-Range` allows a part (RFC 9110 §13.1.5): there is none, or it names exactly this representation.
fn may_be_cut(request: &Fields, terms: &Terms, wall: SystemTime) -> bool {
    let Some(condition) = request.named(b"if-range").next().map(<[u8]>::trim_ascii) else { return true };
    if condition.starts_with(b"\"") || condition.starts_with(b"W/") {
        return terms.tag.as_ref().is_some_and(|own: &Tag| own.is_identical_to(condition));
    }
    // A date is a strong validator if it was a while ago when the reply was made (RFC 9110 §8.8.2.2).
    let Some(modified) = terms.last_modified else { return false };
    let is_strong = terms.date.duration_since(modified).is_ok_and(|age| age >= STRONG_AFTER);
    is_strong && date::parse(condition, wall) == Some(modified)
}

/// The bytes that a `Range` of bytes asks for, as far as they are there; `None` where it is to be ignored: another unit, no
/// proper set, too many, or made to make work (RFC 9110 §14.2, §17.15).
fn parse(line: &[u8], len: u64) -> Option<Vec<Range<u64>>> {
    let line = str::from_utf8(line).ok()?.trim_ascii();
    let (unit, set) = line.split_once('=')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let mut ranges: Vec<Range<u64>> = Vec::new();
    let mut count = 0;
    for spec in elements(set.as_bytes()) {
        count += 1;
        if count > RANGES {
            return None;
        }
        let (first, last) = str::from_utf8(spec).ok()?.split_once('-')?;
        let range = match (first.trim_ascii(), last.trim_ascii()) {
            ("", suffix) => len.saturating_sub(number(suffix)?)..len,
            (first, "") => number(first)?..len,
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                if last < first {
                    return None;
                }
                first..last.saturating_add(1).min(len)
            }
        };
        if range.start < range.end {
            ranges.push(range);
        }
    }
    if count == 0 {
        return None;
    }
    let overlaps = |(index, range): (usize, &Range<u64>)| {
        ranges[index + 1..].iter().any(|other| other.start < range.end && range.start < other.end)
    };
    if ranges.iter().enumerate().any(overlaps) { None } else { Some(ranges) }
}

/// Digits only; more than can be counted are as many as can be.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX - 1))
}

/// Ranges in one request. More are answered with the whole.
const RANGES: usize = 16;
/// A modification this long before the reply was made is the only one in its second, whatever clocks say.
const STRONG_AFTER: Duration = Duration::from_secs(60);
