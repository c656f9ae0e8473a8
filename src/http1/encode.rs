//! Putting messages on the wire: heads field by field, bodies in the framing we chose.

use super::fields::{Fields, Known, recognise};
use super::framing::Length;

/// Puts the framing on a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoder {
    /// Plain bytes. Whoever reads them knows their number, and that it is kept to is for the decoder on the other side.
    Exact,
    /// Chunks.
    Chunked,
    /// Plain bytes until we close.
    Close,
    /// Nothing may be written any more.
    Done,
}

// === impl Encoder ===

impl Encoder {
    /// An encoder for a body of this length.
    pub fn new(length: Length) -> Self {
        match length {
            Length::None => Encoder::Done,
            Length::Exact(_) => Encoder::Exact,
            Length::Chunked => Encoder::Chunked,
            Length::Close => Encoder::Close,
        }
    }

    /// Whether data goes out as it is, without anything around it.
    #[inline]
    pub fn is_plain(self) -> bool {
        matches!(self, Encoder::Exact | Encoder::Close)
    }
}

/// `name: value` and a line end.
#[inline]
pub fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The field that announces a body of this length, or nothing where none is needed.
#[inline]
pub fn length_field(out: &mut Vec<u8>, length: Length) {
    match length {
        Length::Exact(bytes) => field(out, b"content-length", itoa::Buffer::new().format(bytes).as_bytes()),
        Length::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Length::None | Length::Close => {}
    }
}

/// One chunk around `data`, which must not be empty: an empty one would end the body.
pub fn chunk(out: &mut Vec<u8>, data: &[u8]) {
    out.reserve(data.len() + 20);
    hexadecimal(out, data.len());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// The last chunk, the trailer fields that may pass, and the empty line.
pub fn last_chunk(out: &mut Vec<u8>, trailers: Option<&Fields>) {
    out.extend_from_slice(b"0\r\n");
    if let Some(fields) = trailers {
        self::trailers(out, fields);
    }
    out.extend_from_slice(b"\r\n");
}

/// The trailer fields that may pass, a line each.
pub fn trailers(out: &mut Vec<u8>, trailers: &Fields) {
    for (known, name, value) in trailers.iter() {
        if known == Known::Other && !is_refused_behind(name) {
            field(out, name, value);
        }
    }
}

/// Whether a field may stand in a trailer section: not framing, routing, authentication or what we write ourselves
/// (RFC 9110 §6.5.1).
pub fn may_trail(name: &[u8]) -> bool {
    recognise(name) == Known::Other && !is_refused_behind(name)
}

/// Of the fields that we do not treat apart, those that may not.
fn is_refused_behind(name: &[u8]) -> bool {
    let refused: [&[u8]; 11] = [
        b"authorization",
        b"cache-control",
        b"content-encoding",
        b"content-range",
        b"content-type",
        b"cookie",
        b"set-cookie",
        b"max-forwards",
        b"range",
        b"proxy-authorization",
        b"www-authenticate",
    ];
    refused.iter().any(|refused| name.eq_ignore_ascii_case(refused))
}

/// `number` in lower-case hexadecimal without leading zeros.
fn hexadecimal(out: &mut Vec<u8>, number: usize) {
    let digits = (usize::BITS - number.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        out.push(HEX[number >> (place * 4) & 0xf]);
    }
}

/// Lower-case hexadecimal digits.
const HEX: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_sized_in_hexadecimal() {
        for (len, head) in [(1, "1"), (15, "f"), (16, "10"), (255, "ff"), (65_536, "10000")] {
            let mut out = Vec::new();
            chunk(&mut out, &vec![b'x'; len]);
            assert!(out.starts_with(format!("{head}\r\n").as_bytes()), "{len}");
            assert!(out.ends_with(b"x\r\n"));
        }
    }

    #[test]
    fn trailers_that_could_reframe_or_authenticate_are_dropped() {
        let mut trailers = Fields::default();
        trailers.push(b"Content-Length", b"5");
        trailers.push(b"Authorization", b"x");
        trailers.push(b"X-Checksum", b"abc");
        let mut out = Vec::new();
        last_chunk(&mut out, Some(&trailers));
        assert_eq!(out, b"0\r\nX-Checksum: abc\r\n\r\n");
    }
}
