//! Where the parts of a line end, sixteen bytes at a time.
//!
//! What is asked of each byte of a block has no branches and no way out, so that the compiler makes vector instructions of it;
//! the answers come back as a number, in which the first byte is lowest.

/// The end of a field value that begins at `from`: the first control character other than a tab, or the end of `bytes`.
#[inline]
pub(super) fn value_end(bytes: &[u8], from: usize) -> usize {
    let mut at = end(bytes, from, is_text);
    // Tabs are rarer than blocks.
    while bytes.get(at) == Some(&b'\t') {
        at = end(bytes, at + 1, is_text);
    }
    at
}

/// The end of a request-target that begins at `at`: the first byte that is neither visible nor beyond ASCII.
#[inline]
pub(super) fn target_end(bytes: &[u8], at: usize) -> usize {
    end(bytes, at, |byte| is_text(byte) && byte != b' ')
}

/// The end of a token that begins at `at`.
pub(super) fn token_end(bytes: &[u8], mut at: usize) -> usize {
    loop {
        at = end(bytes, at, is_plain);
        match bytes.get(at) {
            Some(byte) if SIGNS.contains(byte) => at += 1,
            _ => return at,
        }
    }
}

/// A name of at most 16 letters, digits and hyphens that a colon follows; most are like that.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plain {
    pub(super) len: usize,
    /// The name in lower case, as [`words`] gives it.
    pub(super) words: [u64; 2],
}

/// The plain name at `at`, if there is one.
#[inline]
pub(super) fn plain_name(bytes: &[u8], at: usize) -> Option<Plain> {
    let block = block(bytes, at)?;
    let [front, back] = halves(each(block, |byte| if is_plain(byte) { 0 } else { 0xff }));
    // For these bytes this is lower case.
    let lower = halves(each(block, |byte| byte | 0x20));
    let (len, words) = if front != 0 {
        (first(front), [lower[0] & below(front), 0])
    } else {
        (8 + first(back), [lower[0], lower[1] & below(back)])
    };
    (len > 0 && bytes.get(at + len) == Some(&b':')).then_some(Plain { len, words })
}

/// The first 16 bytes of a name as two numbers; a shorter one is filled up with zeros.
pub(super) const fn words(name: &[u8]) -> [u64; 2] {
    let mut words = [0, 0];
    let mut at = 0;
    while at < name.len() && at < 16 {
        words[at / 8] |= (name[at] as u64) << (at % 8 * 8);
        at += 1;
    }
    words
}

// === blocks ===

/// The first byte from `at` on that does not belong; the last few are asked one by one.
#[inline]
fn end(bytes: &[u8], mut at: usize, belongs: impl Fn(u8) -> bool) -> usize {
    while let Some(block) = block(bytes, at) {
        let [front, back] = halves(each(block, |byte| if belongs(byte) { 0 } else { 0xff }));
        if front != 0 {
            return at + first(front);
        }
        if back != 0 {
            return at + 8 + first(back);
        }
        at += block.len();
    }
    bytes[at..].iter().position(|byte| !belongs(*byte)).map_or(bytes.len(), |n| at + n)
}

#[inline]
fn block(bytes: &[u8], at: usize) -> Option<&[u8; 16]> {
    bytes.get(at..)?.first_chunk()
}

/// What `asked` gives for each byte. A loop, because the compiler keeps `map` of an array together only where it sees the whole
/// program at once.
#[inline]
fn each(block: &[u8; 16], asked: impl Fn(u8) -> u8) -> [u8; 16] {
    let mut answers = [0; 16];
    for (answer, byte) in answers.iter_mut().zip(block) {
        *answer = asked(*byte);
    }
    answers
}

#[inline]
fn halves(block: [u8; 16]) -> [u64; 2] {
    // Without this the compiler sees through to the numbers, and puts them together byte by byte.
    let whole = u128::from_le_bytes(std::hint::black_box(block));
    [whole as u64, (whole >> 64) as u64]
}

/// Which byte is the first that is marked; 8 where none is.
#[inline]
fn first(marks: u64) -> usize {
    marks.trailing_zeros() as usize / 8
}

/// All bits of the bytes before the first that is marked; of all bytes where none is.
#[inline]
fn below(marks: u64) -> u64 {
    !marks & marks.wrapping_sub(1)
}

// === bytes ===

#[inline]
fn is_text(byte: u8) -> bool {
    byte >= b' ' && byte != 0x7f
}

#[inline]
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

/// What a token holds beside letters, digits and hyphens (RFC 9110 §5.6.2).
const SIGNS: &[u8] = b"!#$%&'*+.^_`|~";

#[cfg(test)]
mod tests {
    use super::*;

    /// `byte` at each place of a word, before and behind bytes of either kind.
    fn placed(byte: u8) -> impl Iterator<Item = (usize, Vec<u8>)> {
        (0..40).map(move |at| {
            let mut bytes = vec![b'a'; 48];
            bytes[at] = byte;
            (at, bytes)
        })
    }

    #[test]
    fn every_byte_ends_what_it_should_at_every_place() {
        for byte in 0..=255_u8 {
            let is_token = byte.is_ascii_alphanumeric() || byte == b'-' || SIGNS.contains(&byte);
            let ends_value = (byte < b' ' && byte != b'\t') || byte == 0x7f;
            let ends_target = byte <= b' ' || byte == 0x7f;
            for (at, bytes) in placed(byte) {
                let end = |ends| if ends { at } else { bytes.len() };
                assert_eq!(value_end(&bytes, 0), end(ends_value), "{byte:#x} at {at}");
                assert_eq!(target_end(&bytes, 0), end(ends_target), "{byte:#x} at {at}");
                assert_eq!(token_end(&bytes, 0), end(!is_token), "{byte:#x} at {at}");
                // With fewer bytes than a word behind it.
                assert_eq!(value_end(&bytes[..=at], 0), at + usize::from(!ends_value), "{byte:#x} at {at}");
                assert_eq!(target_end(&bytes[..=at], 0), at + usize::from(!ends_target), "{byte:#x} at {at}");
                assert_eq!(token_end(&bytes[..=at], 0), at + usize::from(is_token), "{byte:#x} at {at}");
            }
        }
    }

    #[test]
    fn a_plain_name_is_read_as_the_words_it_is_known_by() {
        let bytes = |name: &[u8]| [name, b": a\r\n\r\n", &[b'x'; 16]].concat();
        for len in 1..=16 {
            for byte in 0..=255_u8 {
                for at in 0..len {
                    let mut name = b"Content-Length-9"[..len].to_vec();
                    name[at] = byte;
                    let read = plain_name(&bytes(&name), 0);
                    if byte.is_ascii_alphanumeric() || byte == b'-' {
                        let read = read.expect("it is plain");
                        assert_eq!((read.len, read.words), (len, words(&name.to_ascii_lowercase())), "{name:?}");
                    } else {
                        // A colon ends it sooner.
                        assert_eq!(read.map(|read| read.len), (byte == b':' && at > 0).then_some(at), "{name:?}");
                    }
                }
            }
        }
        assert!(plain_name(&bytes(b""), 0).is_none());
        assert!(plain_name(&bytes(&[b'a'; 17]), 0).is_none());
    }
}
