//! The chunked transfer coding (RFC 9112 §7.1), read incrementally and strictly.
//!
//! Whole lines only: a size line or trailer section is judged once it is complete, so the result cannot depend on how the
//! bytes were split. Lines are short by bound, so judging again from their start costs nothing worth saving.

use super::fields::Fields;
use super::framing::{FramingError, Next};
use super::head::{HeadError, Scan, parse_trailers};

/// Where in a chunked body we are.
#[derive(Debug, Default)]
pub struct Chunked {
    at: At,
    trailers: Option<Box<Fields>>,
}

#[derive(Debug, Default, Clone, Copy)]
enum At {
    /// Before a chunk's size line.
    #[default]
    Size,
    /// In a chunk's data, with this many bytes to come (never 0).
    Data(u64),
    /// Before the line end that closes a chunk's data.
    DataEnd,
    /// After the last chunk: trailer fields, or the empty line.
    Trailers,
    /// After the empty line.
    Done,
}

/// What one step found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Not the end.
    Next(Next),
    /// The body is complete.
    Last,
}

// === impl Chunked ===

impl Chunked {
    /// What the bytes at the front of `buf` are; `buf` is not empty.
    pub(super) fn step(&mut self, buf: &[u8]) -> Result<Step, FramingError> {
        match self.at {
            At::Size => self.size_line(buf),
            At::Data(left) => Ok(Step::Next(Next::Data(usize::try_from(left).unwrap_or(usize::MAX).min(buf.len())))),
            At::DataEnd => self.data_end(buf),
            At::Trailers => self.trailer_section(buf),
            At::Done => Ok(Step::Last),
        }
    }

    /// Says that `n` bytes of a chunk's data were used.
    pub(super) fn used(&mut self, n: usize) {
        if let At::Data(left) = self.at {
            let left = left.saturating_sub(n as u64);
            self.at = if left == 0 { At::DataEnd } else { At::Data(left) };
        }
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.at, At::Done)
    }

    pub(super) fn trailers(&self) -> Option<&Fields> {
        self.trailers.as_deref()
    }

    fn size_line(&mut self, buf: &[u8]) -> Result<Step, FramingError> {
        let Some(end) = line_end(buf, SIZE_LINE_BYTES)? else {
            return Ok(Step::Next(Next::More));
        };
        let size = chunk_size(&buf[..end - 2])?;
        self.at = if size == 0 { At::Trailers } else { At::Data(size) };
        Ok(Step::Next(Next::Skip(end)))
    }

    fn data_end(&mut self, buf: &[u8]) -> Result<Step, FramingError> {
        match buf {
            [b'\r', b'\n', ..] => {
                self.at = At::Size;
                Ok(Step::Next(Next::Skip(2)))
            }
            [b'\r'] => Ok(Step::Next(Next::More)),
            _ => Err("a chunk's data is not followed by CR LF"),
        }
    }

    fn trailer_section(&mut self, buf: &[u8]) -> Result<Step, FramingError> {
        let found = Scan::default().find(&buf[..buf.len().min(TRAILER_BYTES)]);
        let Some(end) = found.map_err(|_| "a trailer line ends in a bare LF")? else {
            return if buf.len() >= TRAILER_BYTES {
                Err("the trailer section is too long")
            } else {
                Ok(Step::Next(Next::More))
            };
        };
        if end > 2 {
            let mut fields = Box::<Fields>::default();
            parse_trailers(&buf[..end], &mut fields).map_err(|error| match error {
                HeadError::Malformed(why) => why,
                HeadError::TooManyFields => "the trailer section has too many fields",
            })?;
            self.trailers = Some(fields);
        }
        self.at = At::Done;
        Ok(Step::Next(Next::Skip(end)))
    }
}

/// The length of the line at the front of `buf`, CR LF included, where it is all there.
fn line_end(buf: &[u8], max: usize) -> Result<Option<usize>, FramingError> {
    let window = &buf[..buf.len().min(max)];
    match memchr::memchr(b'\n', window) {
        Some(at) if at > 0 && window[at - 1] == b'\r' => Ok(Some(at + 1)),
        Some(_) => Err("a chunk size line ends in a bare LF"),
        None if buf.len() >= max => Err("a chunk size line is too long"),
        None => Ok(None),
    }
}

/// The size in a chunk size line: 1 to 15 hexadecimal digits, then nothing or an extension. Extensions are dropped, as
/// RFC 9112 §7.1.1 asks of whoever does not know them; one with a control character is refused.
fn chunk_size(line: &[u8]) -> Result<u64, FramingError> {
    let (mut size, mut digits) = (0, 0);
    for byte in line {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            _ => break,
        };
        size = size << 4 | u64::from(digit);
        digits += 1;
    }
    match digits {
        0 => return Err("a chunk size is not a hexadecimal number"),
        1..=15 if digits == line.len() => return Ok(size),
        1..=15 => {}
        _ => return Err("a chunk size is too large"),
    }
    // RFC 9112 §7.1.1 has us bear blanks before an extension. Nothing else is a blank, a bare CR least of all.
    let blanks = line[digits..].iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let extension = &line[digits + blanks..];
    let harmless = extension.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f));
    if extension.first() == Some(&b';') && harmless {
        Ok(size)
    } else {
        Err("a chunk size is followed by something that is not an extension")
    }
}

/// Bytes of a chunk size line with its extensions; more is an error. Extensions are rare and short; a long one is an attack
/// that makes us read many bytes for each byte of data.
const SIZE_LINE_BYTES: usize = 256;

/// Bytes of a trailer section; more is an error. It is judged whole, so this is also what a buffer has to hold of it.
pub const TRAILER_BYTES: usize = 8 * 1024;
