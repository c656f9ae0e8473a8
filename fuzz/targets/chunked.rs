//! Chunked bodies: the same data, the same end, the same trailers and the same error however the bytes are split.
//!
//! Input: two bytes that say how the rest is split and how much is used at once, then the bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice::http1::encode;
use sluice::http1::fields::Fields;
use sluice::http1::framing::{Decoder, FramingError, Length, Next};

/// What a decoder made of some bytes.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    data: Vec<u8>,
    used: usize,
    /// `None`: more bytes are wanted.
    end: Option<Result<(), FramingError>>,
    trailers: Vec<u8>,
}

fuzz_target!(|input: &[u8]| {
    let [stride, appetite, bytes @ ..] = input else { return };
    let whole = decode([bytes], usize::MAX);
    let pieces = decode(bytes.chunks(usize::from(*stride).max(1)), usize::from(*appetite).max(1));
    assert_eq!(whole, pieces, "read otherwise when it came in pieces");
    if whole.end == Some(Ok(())) {
        judge_again(&whole);
    }
});

fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, appetite: usize) -> Read {
    let mut decoder = Decoder::new(Length::Chunked);
    let mut read = Read { data: Vec::new(), used: 0, end: None, trailers: Vec::new() };
    let mut waiting: Vec<u8> = Vec::new();
    for piece in pieces {
        waiting.extend_from_slice(piece);
        read.end = take(&mut decoder, &mut waiting, appetite, &mut read);
        if read.end.is_some() {
            break;
        }
    }
    assert_eq!(decoder.is_done(), read.end == Some(Ok(())));
    read.trailers = decoder.trailers().map(written).unwrap_or_default();
    read
}

fn take(
    decoder: &mut Decoder,
    waiting: &mut Vec<u8>,
    appetite: usize,
    read: &mut Read,
) -> Option<Result<(), FramingError>> {
    loop {
        let n = match decoder.next(waiting) {
            Ok(Next::Skip(n)) => n,
            Ok(Next::Data(n)) => {
                let n = n.min(appetite);
                read.data.extend_from_slice(&waiting[..n]);
                decoder.used(n);
                n
            }
            Ok(Next::More) => return None,
            Ok(Next::End) => return Some(Ok(())),
            Err(why) => return Some(Err(why)),
        };
        assert!(n > 0, "a step that uses nothing would be taken for ever");
        waiting.drain(..n);
        read.used += n;
    }
}

/// What was read, framed by us, has to be read as the same.
fn judge_again(whole: &Read) {
    let mut out = Vec::new();
    if !whole.data.is_empty() {
        encode::chunk(&mut out, &whole.data);
    }
    encode::last_chunk(&mut out, None);
    let again = decode([&out[..]], usize::MAX);
    assert_eq!((again.end, again.used), (Some(Ok(())), out.len()));
    assert_eq!(again.data, whole.data);
}

fn written(fields: &Fields) -> Vec<u8> {
    let mut out = Vec::new();
    for (_, name, value) in fields.iter() {
        encode::field(&mut out, name, value);
    }
    out
}
