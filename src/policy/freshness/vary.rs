//! Which requests a stored reply was chosen for: `Vary` (RFC 9111 §4.1).
//!
//! Two requests match in a field when what they say in it is the same once it is normalised: the lines of a field joined,
//! spaces around the elements of its list gone, empty elements too. `Accept`, `Accept-Charset`, `Accept-Encoding` and
//! `Accept-Language` are compared in lower case besides; in `Accept-Encoding` the order of elements means nothing, so it is
//! sorted. In `Accept-Language` some servers read an order of preference, so that it stays.

use super::directives::split_unquoted;
use crate::http1::fields::Fields;

/// The fields a reply varies by, with what the request it was made for said in them.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Vary {
    /// By their names, each once.
    fields: Vec<Nominated>,
}

/// A field that a reply varies by.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Nominated {
    /// In lower case.
    name: Box<[u8]>,
    /// What the request said in it, as it was written, if it did in one line.
    raw: Option<Box<[u8]>>,
    /// The same normalised; `None` where it said nothing.
    said: Option<Box<[u8]>>,
}

// === impl Vary ===

impl Vary {
    /// What the reply with the fields `reply` to the request with the fields `request` varies by. `None` where no other
    /// request can match: by `*`, or by what is another for each request.
    #[must_use]
    pub fn read(reply: &Fields, request: &Fields) -> Option<Self> {
        let mut names: Vec<Box<[u8]>> = Vec::new();
        for value in reply.named(VARY) {
            for name in split_unquoted(value, b',') {
                names.push(name.to_ascii_lowercase().into());
            }
        }
        names.sort_unstable();
        names.dedup();
        if names.iter().any(|name| matches_nothing(name)) {
            return None;
        }
        // The host is a part of every key.
        names.retain(|name| name.as_ref() != b"host");
        let nominated = |name: Box<[u8]>| Nominated {
            raw: only_line(request, &name).map(Into::into),
            said: normalised(request, &name),
            name,
        };
        Some(Vary { fields: names.into_iter().map(nominated).collect() })
    }

    /// Whether there is nothing that it varies by.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Whether a request with these fields would have been given the reply.
    #[must_use]
    pub fn matches(&self, request: &Fields) -> bool {
        self.fields.iter().all(|field| match &field.said {
            None => request.named(&field.name).next().is_none(),
            // Most requests spell it alike, and are compared without being normalised.
            Some(said) => {
                let is_alike = field.raw.is_some() && only_line(request, &field.name) == field.raw.as_deref();
                is_alike || normalised(request, &field.name).as_ref() == Some(said)
            }
        })
    }

    /// Adds to a key what a request says in these fields, so that requests which match share it: followers whose leader was
    /// given a reply for others can wait for one of their own kind.
    pub fn write(&self, request: &Fields, key: &mut Vec<u8>) {
        for field in &self.fields {
            key.push(0);
            key.extend_from_slice(&field.name);
            if let Some(said) = normalised(request, &field.name) {
                key.push(b':');
                key.extend_from_slice(&said);
            }
        }
    }

    /// Whether it holds for the same requests as another: the newer of two such replies takes the place of the older.
    #[must_use]
    pub fn is_same(&self, other: &Vary) -> bool {
        let said =
            |vary: &Vary| vary.fields.iter().map(|field| (field.name.clone(), field.said.clone())).collect::<Vec<_>>();
        said(self) == said(other)
    }

    /// Bytes it takes in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let len = |text: &Option<Box<[u8]>>| text.as_ref().map_or(0, |text| text.len());
        let each = |field: &Nominated| size_of::<Nominated>() + field.name.len() + len(&field.raw) + len(&field.said);
        self.fields.iter().map(each).sum()
    }
}

fn matches_nothing(name: &[u8]) -> bool {
    name == b"*" || EACH_TIME.contains(&name)
}

/// What the one line of a field says; `None` where it has none, or several.
fn only_line<'f>(request: &'f Fields, name: &'f [u8]) -> Option<&'f [u8]> {
    let mut lines = request.named(name);
    lines.next().filter(|_| lines.next().is_none())
}

/// What a request says in the fields of this name; `None` where it has none.
fn normalised(request: &Fields, name: &[u8]) -> Option<Box<[u8]>> {
    let mut lines = request.named(name).peekable();
    lines.peek()?;
    let mut parts: Vec<Vec<u8>> = Vec::new();
    let folds = ANY_CASE.contains(&name);
    for part in lines.flat_map(|line| split_unquoted(line, b',')) {
        // `gzip; q=1` and `gzip;q=1` are the same.
        let mut part = if folds { part.to_ascii_lowercase() } else { part.to_vec() };
        if folds {
            part.retain(|byte| !byte.is_ascii_whitespace());
        }
        parts.push(part);
    }
    if name == b"accept-encoding" {
        parts.sort_unstable();
    }
    Some(parts.join(&b',').into())
}

const VARY: &[u8] = b"vary";
/// Fields whose case means nothing, nor space within an element.
const ANY_CASE: [&[u8]; 4] = [b"accept", b"accept-charset", b"accept-encoding", b"accept-language"];
/// Fields that the gateway writes anew, and differently for each request or client.
const EACH_TIME: [&[u8]; 7] =
    [b"forwarded", b"x-forwarded-for", b"x-real-ip", b"x-request-id", b"traceparent", b"tracestate", b"via"];
