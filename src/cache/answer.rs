//! What a kept reply gives to one request: all of it, parts, or the word that the client's own copy is good.

use super::store::{Head, Stored};
use crate::http1::fields::Fields;
use crate::instant::Instant;
use crate::policy::freshness::Asked;
use crate::policy::freshness::ranges::{Portion, portion};
use crate::policy::freshness::validators::{is_for_not_modified, is_not_modified};
use bytes::Bytes;
use std::ops::Range;
use std::time::{Duration, SystemTime};

/// An answer made of a kept reply.
#[derive(Debug)]
pub struct Answer<'a> {
    /// Its status: the reply's, 206, 304 or 416.
    pub status: u16,
    head: &'a Head,
    age: Duration,
    content: Content,
}

/// What is sent of the body.
#[derive(Debug, PartialEq, Eq)]
enum Content {
    /// All of it.
    Whole,
    /// Nothing: the client has it.
    NotModified,
    /// One range.
    Range { range: Range<u64>, of: u64 },
    /// Several, each with a head of its own.
    Ranges { ranges: Vec<Range<u64>>, of: u64, boundary: String },
    /// Nothing: there is none of what it asks for.
    Unsatisfiable { of: u64 },
}

// === impl Answer ===

impl<'a> Answer<'a> {
    /// What a reply gives to a request. `len`: of its body, if that is all there. `chance` tells the parts of a body from
    /// each other; any number will do that was not known before.
    ///
    /// `None` where only a part is kept, and it is not enough.
    #[must_use]
    pub fn of(
        head: &'a Head,
        len: Option<u64>,
        (asked, request): (&Asked, &Fields),
        (now, wall): (Instant, SystemTime),
        chance: u64,
    ) -> Option<Self> {
        let age = head.terms.age(now);
        let answer = |status, content| Some(Answer { status, head, age, content });
        if is_not_modified(asked, request, head.status, &head.terms, wall) {
            return answer(304, Content::NotModified);
        }
        let of = head.terms.part.as_ref().map(|part| part.of).or(len);
        match (portion(asked, request, (head.status, &head.terms), len, wall)?, of) {
            (Portion::Unsatisfiable, Some(of)) => answer(416, Content::Unsatisfiable { of }),
            (Portion::Ranges(mut ranges), Some(of)) => match ranges.pop() {
                Some(range) if ranges.is_empty() => answer(206, Content::Range { range, of }),
                Some(range) => {
                    ranges.push(range);
                    answer(206, Content::Ranges { ranges, of, boundary: format!("sluice-{chance:016x}") })
                }
                None => answer(head.status, Content::Whole),
            },
            _ => answer(head.status, Content::Whole),
        }
    }

    /// Its fields in order, `Age` and what describes its content included; not what says how long it is
    /// ([`Answer::pieces`]), nor `Cache-Status`.
    pub fn each_field(&self, mut field: impl FnMut(&[u8], &[u8])) {
        let unsatisfiable = matches!(self.content, Content::Unsatisfiable { .. });
        for (_, name, value) in self.head.fields.iter().filter(|(_, name, _)| self.takes(name)) {
            field(name, value);
        }
        if !unsatisfiable {
            field(b"age", itoa::Buffer::new().format(self.age.as_secs()).as_bytes());
        }
        match &self.content {
            Content::Range { range, of } => field(b"content-range", content_range(range, *of).as_bytes()),
            Content::Unsatisfiable { of } => field(b"content-range", format!("bytes */{of}").as_bytes()),
            Content::Ranges { boundary, .. } => {
                field(b"content-type", format!("multipart/byteranges; boundary={boundary}").as_bytes());
            }
            Content::Whole | Content::NotModified => {}
        }
    }

    /// Whether a field of the reply stands in it.
    #[must_use]
    pub fn takes(&self, name: &[u8]) -> bool {
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        match self.content {
            Content::Whole => true,
            Content::NotModified => is_for_not_modified(name),
            Content::Range { .. } => !is(b"content-range"),
            Content::Ranges { .. } => !is(b"content-range") && !is(b"content-type"),
            Content::Unsatisfiable { .. } => is(b"date") || is(b"via"),
        }
    }

    /// The reply's fields, of which it [takes](Answer::takes) some.
    #[must_use]
    pub fn fields(&self) -> &'a Fields {
        &self.head.fields
    }

    /// How old it is.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.age
    }

    /// How old it is, in seconds, where that is the only field beside those that it takes of the reply.
    #[must_use]
    pub fn plain_age(&self) -> Option<u64> {
        matches!(self.content, Content::Whole | Content::NotModified).then_some(self.age.as_secs())
    }

    /// Whether it is all of the reply: then its body is [`Stored::body`], or still coming in.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.content == Content::Whole
    }

    /// The body, as GET has it; its length is what the pieces have together.
    #[must_use]
    pub fn pieces(&self, stored: &Stored) -> Vec<Bytes> {
        let cut = |range: &Range<u64>| match &self.head.terms.part {
            Some(part) => part.place(range).map(|place| cut(&stored.body, place)).unwrap_or_default(),
            None => cut(&stored.body, range.clone()),
        };
        match &self.content {
            Content::Whole => stored.body.clone(),
            Content::NotModified | Content::Unsatisfiable { .. } => Vec::new(),
            Content::Range { range, .. } => cut(range),
            Content::Ranges { ranges, of, boundary } => {
                let kind = self.head.fields.named(b"content-type").next();
                let mut pieces = Vec::new();
                for range in ranges {
                    let mut head = format!("\r\n--{boundary}\r\n").into_bytes();
                    if let Some(kind) = kind {
                        head.extend([b"Content-Type: ", kind, b"\r\n"].concat());
                    }
                    head.extend(format!("Content-Range: {}\r\n\r\n", content_range(range, *of)).into_bytes());
                    pieces.push(head.into());
                    pieces.extend(cut(range));
                }
                pieces.push(format!("\r\n--{boundary}--\r\n").into());
                pieces
            }
        }
    }
}

fn content_range(range: &Range<u64>, of: u64) -> String {
    format!("bytes {}-{}/{of}", range.start, range.end - 1)
}

/// Some bytes of a body in pieces, without copying them.
fn cut(body: &[Bytes], range: Range<u64>) -> Vec<Bytes> {
    let mut at = 0;
    let mut pieces = Vec::new();
    for piece in body {
        let len = piece.len() as u64;
        let (start, end) = (range.start.clamp(at, at + len), range.end.clamp(at, at + len));
        if start < end {
            pieces.push(piece.slice((start - at) as usize..(end - at) as usize));
        }
        at += len;
    }
    pieces
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
