//! Where a message ends: RFC 9112 §6.3, with every ambiguity refused.

use super::chunked::{Chunked, Step};
use super::fields::{Fields, Known};
use super::head::Version;

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// There is no body.
    None,
    /// This many bytes.
    Exact(u64),
    /// Until the last chunk.
    Chunked,
    /// Until the connection ends: answers to and from HTTP/1.0.
    Close,
}

/// What is wrong with a framing, in words.
pub type FramingError = &'static str;

/// How the body of a request ends.
///
/// # Errors
/// Transfer-Encoding beside Content-Length, more than one of either, a coding other than `chunked`, a transfer coding in
/// HTTP/1.0, a length that is not plain digits.
pub fn request(fields: &Fields, version: Version) -> Result<Length, FramingError> {
    match declared(fields, version)? {
        Some(length) => Ok(length),
        None => Ok(Length::None),
    }
}

/// How the body of an answer ends, given the request it answers.
///
/// # Errors
/// As for a request; and a 204 or 1xx that declares a body.
pub fn response(status: u16, to_head: bool, fields: &Fields, version: Version) -> Result<Length, FramingError> {
    let declared = declared(fields, version)?;
    if status < 200 || status == 204 {
        return match declared {
            None | Some(Length::Exact(0)) => Ok(Length::None),
            Some(_) => Err("an answer that cannot have a body declares one"),
        };
    }
    if to_head || status == 304 {
        return Ok(Length::None);
    }
    Ok(declared.unwrap_or(Length::Close))
}

/// What Content-Length and Transfer-Encoding say together.
#[inline]
fn declared(fields: &Fields, version: Version) -> Result<Option<Length>, FramingError> {
    let coded = fields.has(Known::TransferEncoding);
    let sized = fields.has(Known::ContentLength);
    match (coded, sized) {
        (false, false) => Ok(None),
        (true, true) => Err("both Content-Length and Transfer-Encoding are given"),
        (true, false) => chunked(fields, version).map(Some),
        (false, true) => exact(fields).map(Some),
    }
}

fn chunked(fields: &Fields, version: Version) -> Result<Length, FramingError> {
    if version == Version::Http10 {
        return Err("HTTP/1.0 has no Transfer-Encoding");
    }
    let mut values = fields.values(Known::TransferEncoding);
    match (values.next(), values.next()) {
        (Some(value), None) if value.eq_ignore_ascii_case(b"chunked") => Ok(Length::Chunked),
        (_, Some(_)) => Err("Transfer-Encoding is given more than once"),
        _ => Err("the Transfer-Encoding is not exactly `chunked`"),
    }
}

fn exact(fields: &Fields) -> Result<Length, FramingError> {
    let mut values = fields.values(Known::ContentLength);
    match (values.next(), values.next()) {
        (Some(value), None) => digits(value).map(Length::Exact).ok_or("the Content-Length is not a plain number"),
        _ => Err("Content-Length is given more than once"),
    }
}

/// A number of 1 to 18 decimal digits and nothing else: no sign, no space, no list. 18 digits cannot overflow.
fn digits(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 18 {
        return None;
    }
    value.iter().try_fold(0_u64, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0')))
}

/// Takes the framing off a body, incrementally: told what bytes are there, it says what they are.
#[derive(Debug)]
pub enum Decoder {
    /// Bytes until the length is reached.
    Exact(u64),
    /// Chunks, then trailers.
    Chunked(Chunked),
    /// Everything until the stream ends.
    Close,
    /// The body has ended.
    Done,
}

/// What the next bytes of a body are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// This many bytes of framing: drop them, ask again.
    Skip(usize),
    /// This many bytes of data, at least one: use some, say so with [`Decoder::used`].
    Data(usize),
    /// Nothing to say before more bytes come.
    More,
    /// The body is complete.
    End,
}

// === impl Decoder ===

impl Decoder {
    /// A decoder for a body of this length.
    pub fn new(length: Length) -> Self {
        match length {
            Length::None | Length::Exact(0) => Decoder::Done,
            Length::Exact(bytes) => Decoder::Exact(bytes),
            Length::Chunked => Decoder::Chunked(Chunked::default()),
            Length::Close => Decoder::Close,
        }
    }

    /// What the bytes at the front of `buf` are.
    ///
    /// # Errors
    /// Bad chunk framing.
    #[inline]
    pub fn next(&mut self, buf: &[u8]) -> Result<Next, FramingError> {
        match self {
            Decoder::Done => Ok(Next::End),
            // Before asking for more: nothing follows the last chunk on a connection that is kept.
            Decoder::Chunked(chunked) if chunked.is_done() => Ok(Next::End),
            _ if buf.is_empty() => Ok(Next::More),
            Decoder::Exact(left) => Ok(Next::Data(usize::try_from(*left).unwrap_or(usize::MAX).min(buf.len()))),
            Decoder::Close => Ok(Next::Data(buf.len())),
            Decoder::Chunked(chunked) => match chunked.step(buf)? {
                Step::Next(next) => Ok(next),
                Step::Last => {
                    // The trailers stay in the chunked decoder until they are taken; `is_done` already says yes.
                    Ok(Next::End)
                }
            },
        }
    }

    /// Says that `n` bytes of data were used.
    #[inline]
    pub fn used(&mut self, n: usize) {
        match self {
            Decoder::Exact(left) => {
                *left = left.saturating_sub(n as u64);
                if *left == 0 {
                    *self = Decoder::Done;
                }
            }
            Decoder::Chunked(chunked) => chunked.used(n),
            Decoder::Close | Decoder::Done => {}
        }
    }

    /// Whether the body is complete as its framing says.
    pub fn is_done(&self) -> bool {
        match self {
            Decoder::Done => true,
            Decoder::Chunked(chunked) => chunked.is_done(),
            Decoder::Exact(_) | Decoder::Close => false,
        }
    }

    /// Whether the end of the stream here is the end of the body.
    pub fn ends_with_stream(&self) -> bool {
        matches!(self, Decoder::Close) || self.is_done()
    }

    /// Bytes of data still to come, where the framing says.
    pub fn remaining(&self) -> Option<u64> {
        match self {
            Decoder::Exact(left) => Some(*left),
            Decoder::Chunked(chunked) if !chunked.is_done() => None,
            Decoder::Chunked(_) | Decoder::Done => Some(0),
            Decoder::Close => None,
        }
    }

    /// The trailer fields of a chunked body that is complete.
    pub fn trailers(&self) -> Option<&Fields> {
        match self {
            Decoder::Chunked(chunked) => chunked.trailers(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(list: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::default();
        for (name, value) in list {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        fields
    }

    #[test]
    fn a_chunked_body_is_complete_where_its_bytes_end() {
        let mut decoder = Decoder::new(Length::Chunked);
        assert_eq!(decoder.next(b"0\r\n\r\n"), Ok(Next::Skip(3)));
        assert_eq!(decoder.remaining(), None);
        assert_eq!(decoder.next(b"\r\n"), Ok(Next::Skip(2)));
        assert_eq!(decoder.next(b""), Ok(Next::End));
        assert_eq!(decoder.remaining(), Some(0));
    }

    #[test]
    fn a_request_without_length_has_no_body() {
        assert_eq!(request(&fields(&[]), Version::Http11), Ok(Length::None));
    }

    #[test]
    fn every_ambiguous_request_framing_is_refused() {
        let cases: &[&[(&str, &str)]] = &[
            &[("Content-Length", "1"), ("Transfer-Encoding", "chunked")],
            &[("Content-Length", "1"), ("Content-Length", "1")],
            &[("Content-Length", "1, 1")],
            &[("Content-Length", "+1")],
            &[("Content-Length", "0x1")],
            &[("Content-Length", "")],
            &[("Content-Length", "1234567890123456789")],
            &[("Transfer-Encoding", "gzip, chunked")],
            &[("Transfer-Encoding", "chunked, chunked")],
            &[("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "chunked")],
            &[("Transfer-Encoding", "identity")],
            &[("Transfer-Encoding", "")],
            &[("Transfer-Encoding", "xchunked")],
        ];
        for case in cases {
            assert!(request(&fields(case), Version::Http11).is_err(), "{case:?}");
        }
        assert!(request(&fields(&[("Transfer-Encoding", "chunked")]), Version::Http10).is_err());
    }

    #[test]
    fn answers_that_have_no_body_may_not_declare_one() {
        assert!(response(204, false, &fields(&[("Content-Length", "3")]), Version::Http11).is_err());
        assert!(response(204, false, &fields(&[("Transfer-Encoding", "chunked")]), Version::Http11).is_err());
        assert_eq!(response(204, false, &fields(&[("Content-Length", "0")]), Version::Http11), Ok(Length::None));
        assert_eq!(response(304, false, &fields(&[("Content-Length", "3")]), Version::Http11), Ok(Length::None));
        assert_eq!(response(200, true, &fields(&[("Content-Length", "3")]), Version::Http11), Ok(Length::None));
        assert_eq!(response(200, false, &fields(&[]), Version::Http11), Ok(Length::Close));
    }
}
