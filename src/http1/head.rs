//! Finding the end of a head, and parsing it.
//!
//! Most heads come whole and are right: those are read in one pass, which finds their end on the way (`read_front`). Whatever
//! else comes is for [`Scan`] to judge first: it finds the empty line and refuses a bare LF, and remembers where it stopped,
//! so that a head which arrives byte by byte costs linear time. The head it finds is read by the same code (`parse`), and
//! what is wrong with it is then said.

use super::fields::{Fields, recognise, recognise_plain};
use super::line::{plain_name, target_end, token_end, value_end};
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

/// Why a head cannot be read.
enum Fault {
    /// The bytes end before it does.
    Cut,
    Bad(&'static str),
    TooManyFields,
}

/// Whether the names of all fields are short enough to be noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    Fit,
    TooLong,
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

    /// Whether nothing of the head has been looked at.
    pub fn is_new(&self) -> bool {
        self.seen == 0
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
        let refused = match self.read(bytes, max) {
            Ok((end, names)) if end == bytes.len() => match names.fit() {
                Ok(()) => return Ok(()),
                Err(error) => error,
            },
            // Whoever set up a balancer, and not yet the listener behind it, looks for these words.
            Err(Fault::Bad(_) | Fault::TooManyFields) if bytes.starts_with(b"PROXY ") => {
                HeadError::Malformed(UNEXPECTED_PROXY)
            }
            Ok(_) => HeadError::Malformed(CUT),
            Err(fault) => fault.explain(CUT),
        };
        self.clear();
        Err(refused)
    }

    /// Parses the head at the front of `bytes`, if it is whole within `len` bytes and nothing is wrong with it, and says how
    /// long it is. Anything may stand behind those bytes: the more there is, the less has to be looked at byte by byte.
    pub fn read_front(&mut self, bytes: &[u8], len: usize, max: usize) -> Option<usize> {
        match self.read(bytes, max) {
            // Every byte up to the end was looked at, and no other.
            Ok((end, Names::Fit)) if end <= len => Some(end),
            _ => {
                self.clear();
                None
            }
        }
    }

    /// Reads a head and says where it ends.
    #[inline]
    fn read(&mut self, bytes: &[u8], max: usize) -> Result<(usize, Names), Fault> {
        // The spans of the head before this one mean nothing in these bytes.
        self.clear();
        let method = if bytes.starts_with(b"GET ") { 3 } else { method_end(bytes)? };
        let start = method + 1;
        let end = target_end(bytes, start);
        match bytes.get(end) {
            Some(b' ') if end > start && is_text(&bytes[start..end]) => {}
            Some(_) => return Err(Fault::Bad(REQUEST_LINE)),
            None => return Err(Fault::Cut),
        }
        self.version = version(bytes, end + 1)?;
        let (at, last) = line_break(bytes, end + 1 + VERSION_BYTES, LINE_END)?;
        let read = read_fields(&mut self.fields, bytes, at, last, max)?;
        self.method = 0..method;
        self.target = start..end;
        self.fields.adopt(&bytes[..read.0]);
        Ok(read)
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
        match &self.fields.bytes()[self.method.clone()] {
            // Asked several times for each request, and mostly this.
            b"GET" => "GET",
            b"POST" => "POST",
            other => str::from_utf8(other).unwrap_or(""),
        }
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
        let refused = match self.read(bytes, max) {
            Ok((end, _)) if end != bytes.len() => HeadError::Malformed(CUT),
            Ok(_) if !self.has_valid_status() => HeadError::Malformed("the status is not between 100 and 599"),
            Ok((_, names)) => match names.fit() {
                Ok(()) => return Ok(()),
                Err(error) => error,
            },
            Err(fault) => fault.explain(CUT),
        };
        self.clear();
        Err(refused)
    }

    /// Parses the head at the front of `bytes`, if it is whole within `len` bytes and nothing is wrong with it, and says how
    /// long it is. Anything may stand behind those bytes.
    pub fn read_front(&mut self, bytes: &[u8], len: usize, max: usize) -> Option<usize> {
        match self.read(bytes, max) {
            Ok((end, Names::Fit)) if end <= len && self.has_valid_status() => Some(end),
            _ => {
                self.clear();
                None
            }
        }
    }

    /// Reads a head and says where it ends.
    #[inline]
    fn read(&mut self, bytes: &[u8], max: usize) -> Result<(usize, Names), Fault> {
        self.clear();
        let Some((line, _)) = bytes.split_first_chunk::<STATUS_LINE_BYTES>() else {
            return Err(cut_status_line(bytes));
        };
        self.version = version(line, 0).map_err(|fault| leading_break(bytes).unwrap_or(fault))?;
        let [.., b' ', hundreds, tens, ones, behind] = *line else { return Err(Fault::Bad(VERSION)) };
        for digit in [hundreds, tens, ones] {
            if !digit.is_ascii_digit() {
                return Err(Fault::Bad(STATUS_LINE));
            }
            self.status = self.status * 10 + u16::from(digit - b'0');
        }
        let start = match behind {
            b' ' => STATUS_LINE_BYTES,
            b'\r' => STATUS_LINE_BYTES - 1,
            _ => return Err(Fault::Bad(STATUS_LINE)),
        };
        let end = value_end(bytes, start);
        let (at, last) = line_break(bytes, end, STATUS_LINE)?;
        let read = read_fields(&mut self.fields, bytes, at, last, max)?;
        // Nobody knows what bytes beyond ASCII mean in a reason, so that it is dropped.
        self.reason = if bytes[start..end].is_ascii() { start..end } else { 0..0 };
        self.fields.adopt(&bytes[..read.0]);
        Ok(read)
    }

    fn has_valid_status(&self) -> bool {
        (100..=599).contains(&self.status)
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

// === impl Fault ===

impl Fault {
    /// What is wrong, in words an operator can act on; `cut` is said of what is not whole.
    fn explain(self, cut: &'static str) -> HeadError {
        match self {
            Fault::Cut => HeadError::Malformed(cut),
            Fault::Bad(why) => HeadError::Malformed(why),
            Fault::TooManyFields => HeadError::TooManyFields,
        }
    }
}

// === impl Names ===

impl Names {
    fn fit(self) -> Result<(), HeadError> {
        match self {
            Names::Fit => Ok(()),
            Names::TooLong => Err(HeadError::Malformed("a field name is longer than 64 KiB")),
        }
    }
}

/// Parses a trailer section: field lines up to and including the empty line. What is refused leaves no fields behind.
///
/// # Errors
/// See [`HeadError`].
pub fn parse_trailers(bytes: &[u8], fields: &mut Fields) -> Result<(), HeadError> {
    fields.clear();
    let empty = bytes.starts_with(b"\r\n");
    let refused = match read_fields(fields, bytes, if empty { 2 } else { 0 }, empty, TRAILER_FIELDS) {
        Ok((end, names)) if end == bytes.len() => match names.fit() {
            Ok(()) => {
                fields.adopt(bytes);
                return Ok(());
            }
            Err(error) => error,
        },
        Ok(_) => HeadError::Malformed(CUT_TRAILERS),
        Err(fault) => fault.explain(CUT_TRAILERS),
    };
    fields.clear();
    Err(refused)
}

/// Reads field lines from `at` on, up to and including the empty line, and says where that ends; if it was the `last` line
/// that ended at `at`, there are none. The fields are noted where they stand in `bytes`.
#[inline]
fn read_fields(
    fields: &mut Fields,
    bytes: &[u8],
    mut at: usize,
    mut last: bool,
    max: usize,
) -> Result<(usize, Names), Fault> {
    let mut names = Names::Fit;
    while !last {
        let (name_end, known) = if let Some(name) = plain_name(bytes, at) {
            (at + name.len, recognise_plain(name))
        } else {
            let end = field_name_end(bytes, at)?;
            // A field keeps its name's length in 16 bits; cut short, a name would be another one.
            if end - at > usize::from(u16::MAX) {
                names = Names::TooLong;
            }
            (end, recognise(&bytes[at..end]))
        };
        let mut start = name_end + 1;
        while matches!(bytes.get(start), Some(b' ' | b'\t')) {
            start += 1;
        }
        let end = value_end(bytes, start);
        let next;
        (next, last) = line_break(bytes, end, FIELD_VALUE)?;
        if fields.len() >= max {
            return Err(Fault::TooManyFields);
        }
        let mut value = &bytes[start..end];
        while let [rest @ .., b' ' | b'\t'] = value {
            value = rest;
        }
        fields.note(known, at..name_end, start..start + value.len());
        at = next;
    }
    Ok((at, names))
}

/// The end of a field name that begins at `at`: where its colon is.
#[inline(never)]
fn field_name_end(bytes: &[u8], at: usize) -> Result<usize, Fault> {
    let end = token_end(bytes, at);
    match bytes.get(end) {
        Some(b':') if end > at => Ok(end),
        Some(b'\r') if end == at => Err(leading_break(&bytes[at..]).unwrap_or(Fault::Bad(FIELD_NAME))),
        Some(_) => Err(Fault::Bad(FIELD_NAME)),
        None => Err(Fault::Cut),
    }
}

/// Takes the line break at `at`; says where the next line begins, and whether it was empty and has been taken too. What is
/// there instead is `wrong`.
#[inline]
fn line_break(bytes: &[u8], at: usize, wrong: &'static str) -> Result<(usize, bool), Fault> {
    let rest = bytes.get(at..).unwrap_or_default();
    match rest.first_chunk().map(|four| u32::from_le_bytes(*four)) {
        Some(LAST_BREAK) => Ok((at + 4, true)),
        Some(four) if four & 0xffff == LAST_BREAK & 0xffff => Ok((at + 2, false)),
        _ => match rest {
            [b'\r', b'\n', ..] => Ok((at + 2, false)),
            [] | [b'\r'] => Err(Fault::Cut),
            _ => Err(Fault::Bad(wrong)),
        },
    }
}

/// What is wrong with a line that begins with a CR and should not.
#[cold]
fn leading_break(line: &[u8]) -> Option<Fault> {
    match line {
        [b'\r'] | [b'\r', b'\n', ..] => Some(Fault::Cut),
        [b'\r', ..] => Some(Fault::Bad(LINE_END)),
        _ => None,
    }
}

/// The end of the method at the front.
#[inline(never)]
fn method_end(bytes: &[u8]) -> Result<usize, Fault> {
    let end = token_end(bytes, 0);
    match bytes.get(end) {
        Some(b' ') if end > 0 => Ok(end),
        Some(_) => Err(leading_break(bytes).unwrap_or(Fault::Bad(REQUEST_LINE))),
        None => Err(Fault::Cut),
    }
}

/// Whether a target is text; only then it has a place in logs.
#[inline]
fn is_text(target: &[u8]) -> bool {
    target.is_ascii() || str::from_utf8(target).is_ok()
}

#[inline]
fn version(bytes: &[u8], at: usize) -> Result<Version, Fault> {
    let rest = bytes.get(at..).unwrap_or_default();
    match rest.first_chunk::<VERSION_BYTES>() {
        Some(b"HTTP/1.1") => Ok(Version::Http11),
        Some(b"HTTP/1.0") => Ok(Version::Http10),
        None if b"HTTP/1.".starts_with(rest) => Err(Fault::Cut),
        _ => Err(Fault::Bad(VERSION)),
    }
}

/// What is wrong with a status line that is too short to be one.
#[cold]
fn cut_status_line(bytes: &[u8]) -> Fault {
    match (version(bytes, 0), bytes.get(VERSION_BYTES)) {
        (Err(fault), _) => leading_break(bytes).unwrap_or(fault),
        (Ok(_), None | Some(b' ')) => Fault::Cut,
        (Ok(_), Some(_)) => Fault::Bad(VERSION),
    }
}

// What is wrong, in words an operator can act on.
const CUT: &str = "the head ends in the middle of a line";
const CUT_TRAILERS: &str = "the trailer section ends in the middle of a line";
const FIELD_NAME: &str = "a field name is not a token, or has space before its colon";
const FIELD_VALUE: &str = "a field value has a control character, a bare CR, or is folded";
const LINE_END: &str = "a line does not end in CR LF";
const STATUS_LINE: &str = "the status line is not valid";
const REQUEST_LINE: &str = "the request line is not `METHOD target HTTP/1.1`";
const VERSION: &str = "the version is not HTTP/1.0 or HTTP/1.1";

/// What is said of a PROXY header that nobody took off the connection.
const UNEXPECTED_PROXY: &str =
    "it begins with a PROXY header, which is read with proxy_protocol and from trusted_proxies only";

/// Two line breaks, of which the second ends an empty line.
const LAST_BREAK: u32 = u32::from_le_bytes(*b"\r\n\r\n");

/// Bytes of a version: `HTTP/1.1`.
const VERSION_BYTES: usize = 8;

/// Bytes of a status line up to what follows the status.
const STATUS_LINE_BYTES: usize = VERSION_BYTES + 5;

/// Fields in a trailer section; more is malformed.
const TRAILER_FIELDS: usize = 64;
