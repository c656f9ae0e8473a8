//! Finding the end of a head, and parsing it.
//!
//! Two passes, each over bytes that are in cache. [`Scan`] finds the empty line and refuses a bare LF; it remembers where it
//! stopped, so that a head which arrives byte by byte costs linear time. Then httparse reads the head once, complete.

use super::fields::Fields;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Where the search for the end of a head stands.
#[derive(Debug, Default, Clone, Copy)]
pub struct Scan {
    /// Everything before this has been looked at.
    seen: usize,
    /// Where the current line began.
    line: usize,
}

/// The version of HTTP a message came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    /// HTTP/1.0: no chunks, no 1xx, no persistence unless asked for.
    Http10,
    /// HTTP/1.1.
    #[default]
    Http11,
    /// HTTP/2: framing and persistence are not in the head, and 1xx is known.
    Http2,
}

/// A parsed request head. Reused from request to request.
#[derive(Debug, Default, Clone)]
pub struct RequestHead {
    /// The fields, in order.
    pub fields: Fields,
    /// Its version.
    pub version: Version,
    /// The frame that carried it said that nothing follows. Only HTTP/2 says so beside the fields.
    pub ends: bool,
    method: Range<usize>,
    target: Range<usize>,
}

/// A parsed answer head. Reused from answer to answer.
#[derive(Debug, Default, Clone)]
pub struct ResponseHead {
    /// The fields, in order.
    pub fields: Fields,
    /// Its version.
    pub version: Version,
    /// The frame that carried it said that nothing follows. Only HTTP/2 says so beside the fields.
    pub ends: bool,
    /// 100 to 599.
    pub status: u16,
    reason: Range<usize>,
}

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadError {
    /// It is not HTTP/1 as we accept it; says what is wrong.
    Malformed(&'static str),
    /// More fields than allowed.
    TooManyFields,
}

// === impl Scan ===

impl Scan {
    /// Looks for the end of the head in `buf`, which may only grow between calls.
    ///
    /// `Ok(Some(n))`: the head is `buf[..n]`, empty line included. `Ok(None)`: not there yet.
    ///
    /// # Errors
    /// A line that ends in a bare LF (RFC 9112 §2.2 allows to accept it; we do not).
    pub fn find(&mut self, buf: &[u8]) -> Result<Option<usize>, HeadError> {
        while let Some(found) = memchr::memchr(b'\n', &buf[self.seen..]) {
            let at = self.seen + found;
            if at == 0 || buf[at - 1] != b'\r' {
                return Err(HeadError::Malformed("a line ends in a bare LF"));
            }
            let empty = at == self.line + 1;
            self.seen = at + 1;
            self.line = at + 1;
            if empty {
                return Ok(Some(at + 1));
            }
        }
        self.seen = buf.len();
        Ok(None)
    }
}

// === impl RequestHead ===

impl RequestHead {
    /// Forgets what was parsed, keeps the memory.
    pub fn clear(&mut self) {
        self.fields.clear();
        self.version = Version::default();
        self.ends = false;
        self.method = 0..0;
        self.target = 0..0;
    }

    /// Parses the complete head `bytes`, allowing `max` fields. What is refused leaves an empty head behind.
    ///
    /// # Errors
    /// See [`HeadError`].
    pub fn parse(&mut self, bytes: &[u8], max: usize) -> Result<(), HeadError> {
        // The spans of the head before this one mean nothing in these bytes.
        self.clear();
        self.read(bytes, max).inspect_err(|_| self.clear())
    }

    fn read(&mut self, bytes: &[u8], max: usize) -> Result<(), HeadError> {
        self.fields.adopt(bytes);
        let mut inline = [const { MaybeUninit::uninit() }; INLINE_FIELDS];
        let mut larger = Vec::new();
        let slots = slots(&mut inline, &mut larger, bytes, max);
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(bytes, slots) {
            Ok(httparse::Status::Complete(len)) if len == bytes.len() => {}
            Ok(_) => return Err(HeadError::Malformed("the head ends in the middle of a line")),
            // Whoever set up a balancer, and not yet the listener behind it, looks for these words.
            Err(_) if bytes.starts_with(b"PROXY ") => return Err(HeadError::Malformed(UNEXPECTED_PROXY)),
            Err(error) => return Err(explain(error)),
        }
        let (Some(method), Some(target)) = (request.method, request.path) else {
            return Err(HeadError::Malformed("the request line is incomplete"));
        };
        self.method = span(bytes, method.as_bytes());
        self.target = span(bytes, target.as_bytes());
        self.version = version(request.version);
        note_all(&mut self.fields, bytes, request.headers)
    }

    /// Begins a head that came in HTTP/2, already taken apart; its fields are pushed one by one.
    pub fn begin(&mut self, method: &str, target: &[u8], ends: bool) {
        self.clear();
        self.version = Version::Http2;
        self.ends = ends;
        self.method = self.fields.lay(method.as_bytes());
        self.target = self.fields.lay(target);
    }

    /// The same with another method, without the fields that are `withheld`, and with `more` behind the others.
    #[must_use]
    pub fn changed(&self, method: &str, withheld: &dyn Fn(&[u8]) -> bool, more: &[(&[u8], Vec<u8>)]) -> RequestHead {
        let mut changed = RequestHead::default();
        changed.begin(method, self.target(), self.ends);
        changed.version = self.version;
        for (_, name, value) in self.fields.iter().filter(|(_, name, _)| !withheld(name)) {
            changed.fields.push(name, value);
        }
        for (name, value) in more {
            changed.fields.push(name, value);
        }
        changed
    }

    /// The method as written.
    pub fn method(&self) -> &str {
        std::str::from_utf8(&self.fields.bytes()[self.method.clone()]).unwrap_or("")
    }

    /// The request-target as written.
    pub fn target(&self) -> &[u8] {
        &self.fields.bytes()[self.target.clone()]
    }
}

// === impl ResponseHead ===

impl ResponseHead {
    /// Forgets what was parsed, keeps the memory.
    pub fn clear(&mut self) {
        self.fields.clear();
        self.version = Version::default();
        self.ends = false;
        self.status = 0;
        self.reason = 0..0;
    }

    /// Parses the complete head `bytes`, allowing `max` fields. What is refused leaves an empty head behind.
    ///
    /// # Errors
    /// See [`HeadError`]; a status outside 100 to 599 is malformed (RFC 9110 §15).
    pub fn parse(&mut self, bytes: &[u8], max: usize) -> Result<(), HeadError> {
        self.clear();
        self.read(bytes, max).inspect_err(|_| self.clear())
    }

    fn read(&mut self, bytes: &[u8], max: usize) -> Result<(), HeadError> {
        self.fields.adopt(bytes);
        let mut inline = [const { MaybeUninit::uninit() }; INLINE_FIELDS];
        let mut larger = Vec::new();
        let slots = slots(&mut inline, &mut larger, bytes, max);
        let mut response = httparse::Response::new(&mut []);
        let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut response, bytes, slots);
        match parsed {
            Ok(httparse::Status::Complete(len)) if len == bytes.len() => {}
            Ok(_) => return Err(HeadError::Malformed("the head ends in the middle of a line")),
            Err(error) => return Err(explain(error)),
        }
        self.status = response.code.unwrap_or(0);
        if !(100..=599).contains(&self.status) {
            return Err(HeadError::Malformed("the status is not between 100 and 599"));
        }
        self.reason = response.reason.map_or(0..0, |reason| span(bytes, reason.as_bytes()));
        self.version = version(response.version);
        note_all(&mut self.fields, bytes, response.headers)
    }

    /// Begins a head that came in HTTP/2, already taken apart; its fields are pushed one by one.
    pub fn begin(&mut self, status: u16, ends: bool) {
        self.clear();
        self.version = Version::Http2;
        self.ends = ends;
        self.status = status;
    }

    /// Begins a head that nobody sent as it is, in HTTP/1.1; its fields are pushed one by one.
    pub fn compose(&mut self, status: u16, reason: &str) {
        self.clear();
        self.status = status;
        self.reason = self.fields.lay(reason.as_bytes());
    }

    /// The reason phrase as written; may be empty.
    pub fn reason(&self) -> &[u8] {
        self.fields.bytes().get(self.reason.clone()).unwrap_or(b"")
    }
}

/// Parses a trailer section: field lines up to and including the empty line.
///
/// # Errors
/// See [`HeadError`].
pub fn parse_trailers(bytes: &[u8], fields: &mut Fields) -> Result<(), HeadError> {
    fields.adopt(bytes);
    let mut slots = [httparse::EMPTY_HEADER; TRAILER_FIELDS];
    match httparse::parse_headers(bytes, &mut slots) {
        Ok(httparse::Status::Complete((len, headers))) if len == bytes.len() => note_all(fields, bytes, headers),
        Ok(_) => Err(HeadError::Malformed("the trailer section ends in the middle of a line")),
        Err(error) => Err(explain(error)),
    }
}

/// Room for the fields of `bytes`, at most `max`: on the stack where that is enough.
fn slots<'s, T: Copy>(
    inline: &'s mut [MaybeUninit<T>],
    larger: &'s mut Vec<MaybeUninit<T>>,
    bytes: &[u8],
    max: usize,
) -> &'s mut [MaybeUninit<T>] {
    // A field is a line at least; where many are allowed, few come all the same.
    let needed = if max <= inline.len() { max } else { max.min(memchr::memchr_iter(b'\n', bytes).count()) };
    if needed <= inline.len() {
        return &mut inline[..needed];
    }
    larger.resize(needed, MaybeUninit::uninit());
    larger
}

/// Writes down where each parsed field stands.
fn note_all(fields: &mut Fields, bytes: &[u8], headers: &[httparse::Header<'_>]) -> Result<(), HeadError> {
    for header in headers {
        let name = span(bytes, header.name.as_bytes());
        // A field keeps its name's length in 16 bits; cut short, a name would be another one.
        if name.len() > usize::from(u16::MAX) {
            return Err(HeadError::Malformed("a field name is longer than 64 KiB"));
        }
        let value = span(bytes, header.value);
        fields.note(name.start, name.len(), value.start, value.len());
    }
    Ok(())
}

/// Where `part`, a slice of `whole`, stands in it. An empty part may point anywhere.
fn span(whole: &[u8], part: &[u8]) -> Range<usize> {
    if part.is_empty() {
        return 0..0;
    }
    let start = part.as_ptr() as usize - whole.as_ptr() as usize;
    start..start + part.len()
}

fn version(minor: Option<u8>) -> Version {
    if minor == Some(0) { Version::Http10 } else { Version::Http11 }
}

/// What is wrong, in words an operator can act on.
fn explain(error: httparse::Error) -> HeadError {
    HeadError::Malformed(match error {
        httparse::Error::HeaderName => "a field name is not a token, or has space before its colon",
        httparse::Error::HeaderValue => "a field value has a control character, a bare CR, or is folded",
        httparse::Error::NewLine => "a line does not end in CR LF",
        httparse::Error::Status => "the status line is not valid",
        httparse::Error::Token => "the request line is not `METHOD target HTTP/1.1`",
        httparse::Error::TooManyHeaders => return HeadError::TooManyFields,
        httparse::Error::Version => "the version is not HTTP/1.0 or HTTP/1.1",
    })
}

/// What is said of a PROXY header that nobody took off the connection.
const UNEXPECTED_PROXY: &str =
    "it begins with a PROXY header, which is read with proxy_protocol and from trusted_proxies only";

/// Fields whose slots live on the stack while a head is parsed; a higher limit uses the heap.
const INLINE_FIELDS: usize = 256;

/// Fields in a trailer section; more is malformed.
const TRAILER_FIELDS: usize = 64;
