//! Heads as httparse reads them, and as we do: the same parts, the same refusals, however the bytes come.
//!
//! Where [`Scan`] finds the end of a head, the two agree in everything. Of bytes that it refuses, or has not seen, httparse
//! also takes lines that end in a bare LF, and empty lines before the first one; we do not.

use super::fields::{Fields, Known, recognise};
use super::head::{HeadError, RequestHead, ResponseHead, Scan, Version, parse_trailers};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// What a reader makes of a head: its first line, and its fields.
type Parts<First> = Result<(First, Vec<Field>), HeadError>;
/// What a field is, its name and its value.
type Field = (Known, Vec<u8>, Vec<u8>);
type RequestLine = (Vec<u8>, Vec<u8>, Version);
type StatusLine = (u16, Vec<u8>, Version);

// === as httparse reads ===

fn request(bytes: &[u8], max: usize) -> Parts<RequestLine> {
    let mut slots = vec![httparse::EMPTY_HEADER; max];
    let mut request = httparse::Request::new(&mut slots);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) if len == bytes.len() => {}
        Ok(_) => return Err(HeadError::Malformed("the head ends in the middle of a line")),
        Err(_) if bytes.starts_with(b"PROXY ") => {
            return Err(HeadError::Malformed(
                "it begins with a PROXY header, which is read with proxy_protocol and from trusted_proxies only",
            ));
        }
        Err(error) => return Err(explain(error)),
    }
    let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    Ok(((method.into(), target.into(), version(request.version)), fields(request.headers)))
}

fn answer(bytes: &[u8], max: usize) -> Parts<StatusLine> {
    let mut slots = vec![httparse::EMPTY_HEADER; max];
    let mut response = httparse::Response::new(&mut slots);
    match response.parse(bytes) {
        Ok(httparse::Status::Complete(len)) if len == bytes.len() => {}
        Ok(_) => return Err(HeadError::Malformed("the head ends in the middle of a line")),
        Err(error) => return Err(explain(error)),
    }
    let status = response.code.unwrap_or_default();
    if !(100..=599).contains(&status) {
        return Err(HeadError::Malformed("the status is not between 100 and 599"));
    }
    Ok(((status, response.reason.unwrap_or_default().into(), version(response.version)), fields(response.headers)))
}

fn trailers(bytes: &[u8]) -> Parts<()> {
    let mut slots = [httparse::EMPTY_HEADER; 64];
    match httparse::parse_headers(bytes, &mut slots) {
        Ok(httparse::Status::Complete((len, headers))) if len == bytes.len() => Ok(((), fields(headers))),
        Ok(_) => Err(HeadError::Malformed("the trailer section ends in the middle of a line")),
        Err(error) => Err(explain(error)),
    }
}

fn fields(headers: &[httparse::Header<'_>]) -> Vec<Field> {
    headers.iter().map(|field| (recognise(field.name.as_bytes()), field.name.into(), field.value.into())).collect()
}

fn version(minor: Option<u8>) -> Version {
    if minor == Some(0) { Version::Http10 } else { Version::Http11 }
}

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

// === as we read ===

fn own_fields(fields: &Fields) -> Vec<Field> {
    fields.iter().map(|(known, name, value)| (known, name.to_vec(), value.to_vec())).collect()
}

fn own_request(head: &RequestHead) -> (RequestLine, Vec<Field>) {
    ((head.method().into(), head.target().into(), head.version), own_fields(&head.fields))
}

fn own_answer(head: &ResponseHead) -> (StatusLine, Vec<Field>) {
    ((head.status, head.reason().into(), head.version), own_fields(&head.fields))
}

/// Asks that a reader agrees with httparse about `bytes`. `parse` is given a complete head; `front`, bytes that may begin
/// with one within so many of them, and says how long it is.
fn agree<First: PartialEq + std::fmt::Debug>(
    bytes: &[u8],
    parse: impl Fn(&[u8]) -> Parts<First>,
    front: impl Fn(&[u8], usize) -> Option<(usize, Parts<First>)>,
    reference: impl Fn(&[u8]) -> Parts<First>,
) -> Result<(), TestCaseError> {
    let found = Scan::default().find(bytes);
    if let Ok(Some(len)) = found {
        prop_assert_eq!(parse(&bytes[..len]), reference(&bytes[..len]), "{:?}", bytes.escape_ascii().to_string());
    }
    let unseen = parse(bytes);
    prop_assert!(unseen.is_err() || unseen == reference(bytes), "{:?}", bytes.escape_ascii().to_string());
    for there in 0..=bytes.len() {
        let whole = found.ok().flatten().filter(|len| *len <= there);
        let expected = whole.map(|len| (len, parse(&bytes[..len]))).filter(|(_, parts)| parts.is_ok());
        prop_assert_eq!(&front(bytes, there), &expected, "{:?}", bytes[..there].escape_ascii().to_string());
        prop_assert_eq!(front(&bytes[..there], there), expected, "{:?}", bytes[..there].escape_ascii().to_string());
    }
    Ok(())
}

fn requests_agree(bytes: &[u8], max: usize) -> Result<(), TestCaseError> {
    let parse = |bytes: &[u8]| {
        let mut head = RequestHead::default();
        head.parse(bytes, max).map(|()| own_request(&head))
    };
    let front = |bytes: &[u8], len| {
        let mut head = RequestHead::default();
        head.read_front(bytes, len, max).map(|len| (len, Ok(own_request(&head))))
    };
    agree(bytes, parse, front, |bytes| request(bytes, max))
}

fn answers_agree(bytes: &[u8], max: usize) -> Result<(), TestCaseError> {
    let parse = |bytes: &[u8]| {
        let mut head = ResponseHead::default();
        head.parse(bytes, max).map(|()| own_answer(&head))
    };
    let front = |bytes: &[u8], len| {
        let mut head = ResponseHead::default();
        head.read_front(bytes, len, max).map(|len| (len, Ok(own_answer(&head))))
    };
    agree(bytes, parse, front, |bytes| answer(bytes, max))
}

fn trailers_agree(bytes: &[u8]) -> Result<(), TestCaseError> {
    let Ok(Some(len)) = Scan::default().find(bytes) else { return Ok(()) };
    let mut own = Fields::default();
    let read = parse_trailers(&bytes[..len], &mut own).map(|()| ((), own_fields(&own)));
    prop_assert_eq!(read, trailers(&bytes[..len]), "{:?}", bytes.escape_ascii().to_string());
    Ok(())
}

// === what is read ===

fn field() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![
        2 => select(vec![
            "Host", "content-length", "Transfer-Encoding", "X_Forwarded_For", "X-Forwarded-Server", "x-forwarded-", "via",
            "Proxy", "TE", "Sluice-Attempts", "X-Forwarded!Proto",
        ]).prop_map(str::to_owned),
        3 => "[A-Za-z0-9-]{1,20}",
        1 => "[!#$%&'*+.^_`|~A-Za-z0-9-]{1,40}",
    ];
    let text = prop_oneof![3 => "[ -~]{0,20}", 1 => "[ \t]{0,3}[!-~ \t]{0,100}[ \t]{0,3}"];
    let value = (text, vec(select(b"\t \x80\xff".to_vec()), 0..2));
    (name, select(vec!["", " ", "\t", "  "]), value).prop_map(|(name, blank, (text, more))| {
        [name.as_bytes(), b":", blank.as_bytes(), text.as_bytes(), &more].concat()
    })
}

fn first_line() -> impl Strategy<Value = Vec<u8>> {
    let target = prop_oneof![8 => "/[!-~]{0,20}", 1 => "/\u{e9}[!-~]{0,9}", 1 => "[*]", 1 => "http://a[!-~]{0,9}"];
    let version = select(vec!["HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/1.2", "HTTP/2.0"]);
    let request = ("GET|POST|PROXY|[A-Z!_-]{1,12}", target, version.clone());
    let answer = (version, "[0-6][0-9]{2}", prop_oneof![1 => "", 4 => " [ -~\t]{0,40}", 1 => " [ -~\u{e9}]{0,9}"]);
    prop_oneof![
        request.prop_map(|(method, target, version)| format!("{method} {target} {version}").into()),
        answer.prop_map(|(version, status, reason)| format!("{version} {status}{reason}").into()),
    ]
}

/// Heads as they come in the world, a few bytes of them gone wrong, and something behind them.
fn almost_heads() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![3 => select(b"\r\n\t :\0\x7f_/\x80".to_vec()), 1 => any::<u8>()];
    let wrong = (any::<usize>(), 0..3_u8, byte);
    let after =
        prop_oneof![3 => Just(Vec::new()), 1 => vec(any::<u8>(), 0..20), 1 => Just(b"GET / HTTP/1.1\r\n\r\n".to_vec())];
    (first_line(), vec(field(), 0..6), vec(wrong, 0..3), after).prop_map(|(first, fields, wrongs, after)| {
        let lines: Vec<Vec<u8>> = [first].into_iter().chain(fields).chain([Vec::new()]).collect();
        let mut bytes: Vec<u8> = lines.iter().flat_map(|line| [&line[..], b"\r\n"].concat()).collect();
        for (place, what, byte) in wrongs {
            let place = place % bytes.len();
            match what {
                0 => bytes[place] = byte,
                1 => bytes.insert(place, byte),
                _ => drop(bytes.remove(place)),
            }
        }
        [bytes, after].concat()
    })
}

/// No head at all, of the bytes that heads are made of.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let part = select(vec![
        &b"\r\n"[..],
        b"\r",
        b"\n",
        b"\r\n\r\n",
        b" ",
        b":",
        b"\t",
        b"\0",
        b"a",
        b"a: b",
        b"GET ",
        b"GET / HTTP/1.1\r\n",
        b"/",
        b"HTTP/1.1",
        b"HTTP/1.",
        b" 200",
        b" OK",
        b"PROXY ",
        b"\x80",
        b"x-forwarded-for",
    ]);
    vec(part, 0..9).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: ProptestConfig::default().cases.max(2_000), ..ProptestConfig::default() })]

    #[test]
    fn a_head_is_what_httparse_takes_it_for(bytes in prop_oneof![4 => almost_heads(), 1 => noise()], max in 0_usize..8) {
        requests_agree(&bytes, max)?;
        answers_agree(&bytes, max)?;
    }

    #[test]
    fn trailers_are_what_httparse_takes_them_for(fields in vec(field(), 0..5), noise in noise()) {
        let bytes = fields.iter().flat_map(|field| [&field[..], b"\r\n"].concat()).chain(noise).chain(*b"\r\n\r\n");
        trailers_agree(&bytes.collect::<Vec<u8>>())?;
    }
}

#[test]
fn a_byte_of_any_kind_at_any_place_is_judged_as_httparse_judges_it() {
    let judge = |head: &[u8], agree: &dyn Fn(&[u8]) -> bool| {
        for (place, byte) in (0..head.len()).flat_map(|place| (0..=255).map(move |byte| (place, byte))) {
            let (mut other, mut longer) = (head.to_vec(), head.to_vec());
            other[place] = byte;
            longer.insert(place, byte);
            assert!(agree(&other) && agree(&longer), "{byte:#x} at {place} of {}", head.escape_ascii());
        }
    };
    let found = |bytes: &[u8]| Scan::default().find(bytes).ok().flatten();
    for head in REQUESTS {
        judge(head.as_bytes(), &|bytes| {
            let mut head = RequestHead::default();
            found(bytes).is_none_or(|len| {
                head.parse(&bytes[..len], 9).map(|()| own_request(&head)) == request(&bytes[..len], 9)
                    && head.read_front(bytes, bytes.len(), 9).is_none_or(|front| front == len)
            })
        });
    }
    for head in ANSWERS {
        judge(head.as_bytes(), &|bytes| {
            let mut head = ResponseHead::default();
            found(bytes).is_none_or(|len| {
                head.parse(&bytes[..len], 9).map(|()| own_answer(&head)) == answer(&bytes[..len], 9)
                    && head.read_front(bytes, bytes.len(), 9).is_none_or(|front| front == len)
            })
        });
    }
}

const REQUESTS: &[&str] = &[
    "GET /a?b HTTP/1.1\r\nHost: example.com\r\nContent-Length:5\r\nX_a:\t b \r\nAccess-Control-Allow-Origin: *\r\nA:\r\n\r\n",
    "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n\r\n",
];
const ANSWERS: &[&str] = &[
    "HTTP/1.1 200 OK\r\nServer: a\r\nSet-Cookie: abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz\r\n\r\n",
    "HTTP/1.0 404\r\nA: b\r\n\r\n",
];
