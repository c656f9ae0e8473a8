//! What holds for all bytes: however they are split, they mean the same; whatever they are, nothing panics and nothing
//! loops. Beside that, transcripts of the chunked coding at its edges.

use super::chunked::TRAILER_BYTES;
use super::encode;
use super::fields::Fields;
use super::framing::{self, Decoder, FramingError, Length, Next};
use super::head::{HeadError, RequestHead, ResponseHead, Scan, Version, parse_trailers};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// What a decoder made of some bytes.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    /// The body.
    data: Vec<u8>,
    /// The bytes it used, framing included.
    used: usize,
    end: End,
    trailers: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The body is complete.
    Whole,
    /// More bytes are wanted.
    Wanting,
    Broken(FramingError),
}

/// Decodes `pieces` as they come, using at most `appetite` bytes of data at once, as a slow reader would.
fn decode<'a>(length: Length, pieces: impl IntoIterator<Item = &'a [u8]>, appetite: usize) -> Read {
    let mut decoder = Decoder::new(length);
    let mut read = Read { data: Vec::new(), used: 0, end: End::Wanting, trailers: Vec::new() };
    let mut waiting: Vec<u8> = Vec::new();
    for piece in pieces {
        waiting.extend_from_slice(piece);
        read.end = take(&mut decoder, &mut waiting, appetite, &mut read);
        if read.end != End::Wanting {
            break;
        }
    }
    assert_eq!(decoder.is_done(), read.end == End::Whole, "a decoder knows when it is done");
    let trailers = decoder.trailers().into_iter().flat_map(Fields::iter);
    read.trailers = trailers.map(|(_, name, value)| (name.to_vec(), value.to_vec())).collect();
    read
}

/// Takes what can be taken from `waiting`. Every step but the last has to use something, so this ends.
fn take(decoder: &mut Decoder, waiting: &mut Vec<u8>, appetite: usize, read: &mut Read) -> End {
    loop {
        let n = match decoder.next(waiting) {
            Ok(Next::Skip(n)) => n,
            Ok(Next::Data(n)) => {
                assert!((1..=waiting.len()).contains(&n), "{n} bytes of data in {}", waiting.len());
                let n = n.min(appetite);
                read.data.extend_from_slice(&waiting[..n]);
                decoder.used(n);
                n
            }
            Ok(Next::More) => return End::Wanting,
            Ok(Next::End) => return End::Whole,
            Err(why) => return End::Broken(why),
        };
        assert!((1..=waiting.len()).contains(&n), "{n} bytes of {}", waiting.len());
        waiting.drain(..n);
        read.used += n;
    }
}

fn chunked(bytes: &[u8]) -> Read {
    decode(Length::Chunked, [bytes], usize::MAX)
}

/// `bytes` cut at `cuts`, which may be in any order and beyond the end.
fn cut<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|place| place % (bytes.len() + 1)).collect();
    places.sort_unstable();
    places.push(bytes.len());
    let mut pieces = Vec::new();
    let mut from = 0;
    for to in places {
        pieces.push(&bytes[from..to]);
        from = to;
    }
    pieces
}

/// The end of the head as the growing prefixes of `bytes` tell it: the first answer that is not "not there yet".
fn find_growing(bytes: &[u8], cuts: &[usize]) -> Result<Option<usize>, HeadError> {
    let mut scan = Scan::default();
    let mut len = 0;
    for piece in cut(bytes, cuts) {
        len += piece.len();
        match scan.find(&bytes[..len]) {
            Ok(None) => {}
            answer => return answer,
        }
    }
    Ok(None)
}

/// The end of the head, found line by line.
#[expect(clippy::option_option, reason = "an answer, no answer yet, or a refusal")]
fn find_slowly(bytes: &[u8]) -> Option<Option<usize>> {
    let mut line = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if *byte != b'\n' {
            continue;
        }
        match &bytes[line..=at] {
            b"\r\n" => return Some(Some(at + 1)),
            [.., b'\r', b'\n'] => line = at + 1,
            _ => return None,
        }
    }
    Some(None)
}

/// A head's fields as they would be written.
fn written(fields: &Fields) -> Vec<u8> {
    let mut out = Vec::new();
    for (_, name, value) in fields.iter() {
        encode::field(&mut out, name, value);
    }
    out
}

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// Whether nothing in a field could be taken for the end of a line, and no space is left around its value.
fn is_harmless(name: &[u8], value: &[u8]) -> bool {
    let visible = value.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f));
    is_token(name) && visible && value.trim_ascii() == value
}

/// Bytes as they matter to heads.
fn head_bytes() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        4 => select(vec![&b"\r\n"[..], b"\n", b"\r", b" ", b":", b"\t", b"\0", b"\r\n\r\n"]).prop_map(<[u8]>::to_vec),
        4 => select(vec![
            &b"GET / HTTP/1.1\r\n"[..],
            b"POST /a?b HTTP/1.0\r\n",
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.0 404\r\n",
            b"Host: a\r\n",
            b"content-length: 5\r\n",
            b"X:\r\n",
            b"a_b: \t c \t\r\n",
            b" folded\r\n",
        ])
        .prop_map(<[u8]>::to_vec),
        1 => vec(any::<u8>(), 0..4),
    ];
    vec(part, 0..8).prop_map(|parts| parts.concat())
}

/// Bytes as they matter to the chunked coding: valid pieces, edges of them, and noise.
fn chunked_bytes() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        3 => vec(any::<u8>(), 1..20).prop_map(|data| {
            let mut out = Vec::new();
            encode::chunk(&mut out, &data);
            out
        }),
        2 => select(vec![
            &b"0\r\n"[..],
            b"\r\n",
            b"0\r\n\r\n",
            b"5;a=b\r\nhello\r\n",
            b"1 ; a=\"b\"\r\nx\r\n",
            b"X-T: 1\r\n",
            b"1\r;\r\n",
            b"\n",
            b"\r",
            b"fffffffffffffff\r\n",
            b"1000000000000000\r\n",
            b" ",
        ])
        .prop_map(<[u8]>::to_vec),
        1 => vec(any::<u8>(), 0..4),
    ];
    vec(part, 0..8).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn a_chunked_body_means_the_same_however_it_is_split(
        bytes in chunked_bytes(), cuts in vec(any::<usize>(), 0..12), appetite in 1_usize..8
    ) {
        let whole = chunked(&bytes);
        prop_assert_eq!(&decode(Length::Chunked, cut(&bytes, &cuts), appetite), &whole);
        prop_assert_eq!(&decode(Length::Chunked, bytes.chunks(1), usize::MAX), &whole);
    }

    #[test]
    fn a_body_of_known_length_ends_there_however_it_is_split(
        bytes in vec(any::<u8>(), 0..40), length in 0_u64..50, cuts in vec(any::<usize>(), 0..6), appetite in 1_usize..8
    ) {
        let read = decode(Length::Exact(length), cut(&bytes, &cuts), appetite);
        let there = bytes.len().min(usize::try_from(length).expect("it is small"));
        prop_assert_eq!(&read.data[..], &bytes[..there]);
        prop_assert_eq!(read.end == End::Whole, bytes.len() as u64 >= length);
    }

    #[test]
    fn what_was_encoded_in_chunks_is_decoded_as_it_was(
        pieces in vec(vec(any::<u8>(), 1..300), 0..8),
        trailers in vec(("[A-Za-z][A-Za-z-]{0,12}", "[!-~]([ -~]{0,10}[!-~])?"), 0..4),
        after in vec(any::<u8>(), 0..8),
        cuts in vec(any::<usize>(), 0..8),
    ) {
        let mut fields = Fields::default();
        for (name, value) in &trailers {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        let mut bytes = Vec::new();
        for piece in &pieces {
            encode::chunk(&mut bytes, piece);
        }
        encode::last_chunk(&mut bytes, Some(&fields));
        let body = bytes.len();
        bytes.extend_from_slice(&after);
        let read = decode(Length::Chunked, cut(&bytes, &cuts), usize::MAX);
        prop_assert_eq!(read.end, End::Whole);
        prop_assert_eq!(read.used, body, "the bytes after the body are not its own");
        prop_assert_eq!(read.data, pieces.concat());
        // Some trailers are dropped on purpose; those that pass keep their order and their bytes.
        let passed: Vec<_> = trailers.iter().map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec()))
            .filter(|field| read.trailers.contains(field)).collect();
        prop_assert_eq!(&read.trailers, &passed);
        let mut again = Vec::new();
        encode::last_chunk(&mut again, Some(&fields));
        prop_assert!(bytes[..body].ends_with(&again));
    }

    #[test]
    fn the_end_of_a_head_is_found_however_it_is_split(bytes in head_bytes(), cuts in vec(any::<usize>(), 0..12)) {
        let whole = Scan::default().find(&bytes);
        prop_assert_eq!(whole.ok(), find_slowly(&bytes));
        prop_assert_eq!(find_growing(&bytes, &cuts), whole);
        prop_assert_eq!(find_growing(&bytes, &(0..bytes.len()).collect::<Vec<_>>()), whole);
    }

    #[test]
    fn a_request_head_that_is_accepted_is_written_and_read_back_as_itself(bytes in head_bytes()) {
        let mut head = RequestHead::default();
        if head.parse(&bytes, 100).is_ok() {
            prop_assert!(is_token(head.method().as_bytes()));
            prop_assert!(!head.target().is_empty() && !head.target().contains(&b' '));
            for (_, name, value) in head.fields.iter() {
                prop_assert!(is_harmless(name, value), "{:?}: {:?}", name, value);
            }
            let version = if head.version == Version::Http10 { "HTTP/1.0" } else { "HTTP/1.1" };
            let mut out = [head.method().as_bytes(), b" ", head.target(), b" ", version.as_bytes(), b"\r\n"].concat();
            out.extend(written(&head.fields));
            out.extend_from_slice(b"\r\n");
            let mut again = RequestHead::default();
            prop_assert_eq!(again.parse(&out, 100), Ok(()));
            prop_assert_eq!((again.method(), again.target()), (head.method(), head.target()));
            prop_assert_eq!(written(&again.fields), written(&head.fields));
        }
    }

    #[test]
    fn an_answer_head_that_is_accepted_has_a_status_and_harmless_fields(bytes in head_bytes()) {
        let mut head = ResponseHead::default();
        if head.parse(&bytes, 100).is_ok() {
            prop_assert!((100..=599).contains(&head.status));
            prop_assert!(!head.reason().iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
            for (_, name, value) in head.fields.iter() {
                prop_assert!(is_harmless(name, value), "{:?}: {:?}", name, value);
            }
        }
    }

    #[test]
    fn a_head_is_parsed_as_if_nothing_had_been_parsed_before(first in head_bytes(), second in head_bytes()) {
        let (mut used, mut fresh) = (RequestHead::default(), RequestHead::default());
        let _ = used.parse(&first, 100);
        prop_assert_eq!(used.parse(&second, 100), fresh.parse(&second, 100));
        prop_assert_eq!((used.method(), used.target(), used.version), (fresh.method(), fresh.target(), fresh.version));
        prop_assert_eq!(written(&used.fields), written(&fresh.fields));
        let (mut used, mut fresh) = (ResponseHead::default(), ResponseHead::default());
        let _ = used.parse(&first, 100);
        prop_assert_eq!(used.parse(&second, 100), fresh.parse(&second, 100));
        prop_assert_eq!((used.status, used.reason(), used.version), (fresh.status, fresh.reason(), fresh.version));
        prop_assert_eq!(written(&used.fields), written(&fresh.fields));
    }

    #[test]
    fn a_content_length_is_one_to_eighteen_digits_and_nothing_else(value in "[0-9]{0,20}|[0-9]{1,3}[ +,.x-][0-9]{0,2}") {
        let mut fields = Fields::default();
        fields.push(b"Content-Length", value.as_bytes());
        let plain = (1..=18).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_digit());
        let expected = plain.then(|| Length::Exact(value.parse().expect("18 digits fit")));
        prop_assert_eq!(framing::request(&fields, Version::Http11).ok(), expected);
    }
}

#[test]
fn a_real_request_is_read_at_every_split() {
    let bytes = b"POST /a/b?c=d HTTP/1.1\r\nHost: example.com\r\nX-Empty:\r\nContent-Length: 3\r\n\r\nabc";
    for first in 0..bytes.len() {
        for second in first..bytes.len() {
            assert_eq!(find_growing(bytes, &[first, second]), Ok(Some(bytes.len() - 3)), "{first} {second}");
        }
    }
    let mut head = RequestHead::default();
    assert_eq!(head.parse(&bytes[..bytes.len() - 3], 3), Ok(()));
    assert_eq!((head.method(), head.target(), head.fields.len()), ("POST", &b"/a/b?c=d"[..], 3));
    assert_eq!(head.parse(&bytes[..bytes.len() - 3], 2), Err(HeadError::TooManyFields));
}

#[test]
fn a_real_chunked_body_is_read_at_every_split() {
    let bytes = b"4\r\nWiki\r\n6;a=\"b\"\r\npedia \r\nE\r\nin \r\n\r\nchunks.\r\n0\r\nX-Sum: 1\r\nX-End: 2\r\n\r\n";
    let expected = Read {
        data: b"Wikipedia in \r\n\r\nchunks.".to_vec(),
        used: bytes.len(),
        end: End::Whole,
        trailers: vec![(b"X-Sum".to_vec(), b"1".to_vec()), (b"X-End".to_vec(), b"2".to_vec())],
    };
    for first in 0..bytes.len() {
        for second in first..bytes.len() {
            assert_eq!(decode(Length::Chunked, cut(bytes, &[first, second]), 3), expected, "{first} {second}");
        }
    }
}

#[test]
fn chunked_bodies_at_the_edge_are_still_whole() {
    let longest_line = [&b"1;"[..], &[b'x'; 252], b"\r\na\r\n0\r\n\r\n"].concat();
    let longest_trailer = [&b"0\r\nx: "[..], &[b'y'; TRAILER_BYTES - 7], b"\r\n\r\n"].concat();
    let most_trailers = [&b"0\r\n"[..], &b"x: y\r\n".repeat(64), b"\r\n"].concat();
    for (bytes, data) in [
        (&b"0\r\n\r\n"[..], &b""[..]),
        (b"000\r\n\r\n", b""),
        (b"0;last\r\n\r\n", b""),
        (b"000000000000001\r\na\r\n0\r\n\r\n", b"a"),
        (b"a\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        (b"1;\r\na\r\n0\r\n\r\n", b"a"),
        (b"1 \t;a=b\r\na\r\n0\r\n\r\n", b"a"),
        (b"1;a=\"b;\\\"c\"\r\na\r\n0\r\n\r\n", b"a"),
        (b"1;a=\xff\r\na\r\n0\r\n\r\n", b"a"),
        (b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n"),
        (b"5\r\n0\r\n\r\n\r\n0\r\n\r\n", b"0\r\n\r\n"),
        (b"0\r\nA:\r\nB: c \r\n\r\n", b""),
        (&longest_line, b"a"),
        (&longest_trailer, b""),
        (&most_trailers, b""),
    ] {
        let read = chunked(bytes);
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]);
        assert_eq!((read.end, &read.data[..], read.used), (End::Whole, data, bytes.len()), "{shown:?}");
    }
}

#[test]
fn chunked_bodies_that_two_readers_could_read_differently_are_refused() {
    let number = "a chunk size is not a hexadecimal number";
    let large = "a chunk size is too large";
    let other = "a chunk size is followed by something that is not an extension";
    let bare = "a chunk size line ends in a bare LF";
    let long = "a chunk size line is too long";
    let data = "a chunk's data is not followed by CR LF";
    let control = "a field value has a control character, a bare CR, or is folded";
    let name = "a field name is not a token, or has space before its colon";
    let too_long_line = [&b"1;"[..], &[b'x'; 253], b"\r\na\r\n0\r\n\r\n"].concat();
    let too_long_trailer = [&b"0\r\nx: "[..], &[b'y'; TRAILER_BYTES - 6], b"\r\n\r\n"].concat();
    let too_many_trailers = [&b"0\r\n"[..], &b"x: y\r\n".repeat(65), b"\r\n"].concat();
    for (bytes, why) in [
        (&b"\r\n"[..], number),
        (b"x\r\n", number),
        (b" 1\r\na\r\n", number),
        (b"+1\r\na\r\n", number),
        (b"-1\r\na\r\n", number),
        (b";a\r\n", number),
        (b"0x1\r\na\r\n", other),
        (b"1 \r\na\r\n", other),
        (b"1 a\r\na\r\n", other),
        (b"1,1\r\na\r\n", other),
        (b"1;a\0\r\na\r\n", other),
        (b"1;a\x7f\r\na\r\n", other),
        (b"1;a\rb\r\na\r\n", other),
        (b"1\r;a\r\na\r\n", other),
        (b"1\r\r\na\r\n", other),
        (b"1\x0c;a\r\na\r\n", other),
        (b"1\x0b;a\r\na\r\n", other),
        (b"1000000000000000\r\n", large),
        (b"ffffffffffffffff\r\n", large),
        (b"10000000000000000\r\n", large),
        (b"0000000000000001\r\na\r\n", large),
        (b"1\na\r\n", bare),
        (b"\n", bare),
        (b"1;a\n\r\n", bare),
        (b"0\n\r\n", bare),
        (&too_long_line, long),
        (&[b'0'; 256], long),
        (b"1\r\nab\r\n", data),
        (b"1\r\na\n", data),
        (b"1\r\na\r\r\n", data),
        (b"1\r\na0\r\n\r\n", data),
        (b"0\r\n\n", "a trailer line ends in a bare LF"),
        (b"0\r\nA: b\n\r\n", "a trailer line ends in a bare LF"),
        (b"0\r\nA: b\r\n c\r\n\r\n", name),
        (b"0\r\nA: b\0\r\n\r\n", control),
        (b"0\r\nA : b\r\n\r\n", name),
        (b"0\r\n: b\r\n\r\n", name),
        (b"0\r\nA\r\n\r\n", name),
        (&too_long_trailer, "the trailer section is too long"),
        (&too_many_trailers, "the trailer section has too many fields"),
    ] {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]);
        assert_eq!(chunked(bytes).end, End::Broken(why), "{shown:?}");
        assert_eq!(decode(Length::Chunked, bytes.chunks(1), 1).end, End::Broken(why), "{shown:?}, byte by byte");
    }
}

#[test]
fn every_cut_off_chunked_body_wants_more_and_is_never_whole() {
    let bytes = b"5;a\r\nhello\r\n0\r\nA: b\r\n\r\n";
    for len in 0..bytes.len() {
        assert_eq!(chunked(&bytes[..len]).end, End::Wanting, "{len}");
    }
}

#[test]
fn the_largest_chunk_size_does_not_overflow() {
    let read = chunked(b"fffffffffffffff\r\nabc");
    assert_eq!((read.end, &read.data[..]), (End::Wanting, &b"abc"[..]));
}

#[test]
fn heads_that_two_readers_could_read_differently_are_refused() {
    for head in [
        "GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b\rc\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b\0\r\n\r\n",
        "GET / HTTP/1.1\r\nA : b\r\n\r\n",
        "GET / HTTP/1.1\r\n A: b\r\n\r\n",
        "GET / HTTP/1.1\r\n: b\r\n\r\n",
        "GET / HTTP/1.1\r\nA\r\n\r\n",
        "GET / HTTP/1.1\r\r\nA: b\r\n\r\n",
        "GET  / HTTP/1.1\r\n\r\n",
        "GET /  HTTP/1.1\r\n\r\n",
        "GET /\tHTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1 \r\n\r\n",
        "GET / HTTP/2.0\r\n\r\n",
        "GET / HTTP/1.2\r\n\r\n",
        "GET / HTTP/1.10\r\n\r\n",
        "GET / http/1.1\r\n\r\n",
        "GET /\r\n\r\n",
        "GET\r\n\r\n",
        "G(T / HTTP/1.1\r\n\r\n",
        " GET / HTTP/1.1\r\n\r\n",
        "\r\n",
        "GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    ] {
        assert!(RequestHead::default().parse(head.as_bytes(), 100).is_err(), "{head:?}");
    }
    for head in [
        "HTTP/1.1 099 A\r\n\r\n",
        "HTTP/1.1 600 A\r\n\r\n",
        "HTTP/1.1 20 A\r\n\r\n",
        "HTTP/1.1 2000 A\r\n\r\n",
        "HTTP/1.1  200 A\r\n\r\n",
        "HTTP/2 200 A\r\n\r\n",
        "HTTP/1.1 200 A\rB\r\n\r\n",
        "HTTP/1.1 200 A\r\nB : c\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
    ] {
        assert!(ResponseHead::default().parse(head.as_bytes(), 100).is_err(), "{head:?}");
    }
}

#[test]
fn a_refused_head_shows_nothing_of_the_one_before() {
    let mut head = RequestHead::default();
    assert_eq!(head.parse(b"DELETE /a/long/target HTTP/1.1\r\nHost: a\r\n\r\n", 100), Ok(()));
    assert!(head.parse(b"?\r\n\r\n", 100).is_err());
    assert_eq!((head.method(), head.target(), head.fields.len()), ("", &b""[..], 0));
}

#[test]
fn a_field_name_is_never_shortened_to_another() {
    let head = |len: usize| [b"GET / HTTP/1.1\r\nHost", &vec![b'x'; len - 4][..], b": a\r\n\r\n"].concat();
    let mut longest = RequestHead::default();
    assert_eq!(longest.parse(&head(65_535), 100), Ok(()));
    assert_eq!(longest.fields.iter().next().map(|(_, name, _)| name.len()), Some(65_535));
    let too_long = RequestHead::default().parse(&head(65_540), 100);
    assert_eq!(too_long, Err(HeadError::Malformed("a field name is longer than 64 KiB")));
}

#[test]
fn trailers_are_refused_whole_or_read_whole() {
    let mut fields = Fields::default();
    assert_eq!(parse_trailers(b"A: b\r\n\r\n", &mut fields), Ok(()));
    assert_eq!(written(&fields), b"A: b\r\n");
    assert!(parse_trailers(b"A: b\r\n", &mut fields).is_err());
    assert!(parse_trailers(b"A: b\r\n\r\nC: d\r\n\r\n", &mut fields).is_err());
}

#[test]
fn as_many_fields_are_read_as_are_allowed_wherever_there_is_room_for_them() {
    for (fields, max) in [(99, 100), (100, 100), (101, 100), (100, 200), (101, 200), (200, 200), (201, 200)] {
        let lines = "a: b\r\n".repeat(fields);
        let wanted = if fields <= max { Ok(()) } else { Err(HeadError::TooManyFields) };
        let (mut request, mut response) = (RequestHead::default(), ResponseHead::default());
        assert_eq!(
            request.parse(format!("GET / HTTP/1.1\r\n{lines}\r\n").as_bytes(), max),
            wanted,
            "{fields} of {max}"
        );
        assert_eq!(
            response.parse(format!("HTTP/1.1 200 OK\r\n{lines}\r\n").as_bytes(), max),
            wanted,
            "{fields} of {max}"
        );
        let read = if wanted.is_ok() { fields } else { 0 };
        assert_eq!((request.fields.iter().count(), response.fields.iter().count()), (read, read), "{fields} of {max}");
    }
}
