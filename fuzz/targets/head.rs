//! Heads of requests and answers: found at the same place however the bytes are split, read as httparse reads them, and,
//! where accepted, harmless.
//!
//! Input: one byte that says how the rest is split, then the bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice::http1::encode;
use sluice::http1::fields::Fields;
use sluice::http1::framing;
use sluice::http1::head::{RequestHead, ResponseHead, Scan, Version};
use std::cell::RefCell;

thread_local! {
    /// Reused from input to input, as a connection reuses them from message to message.
    static USED: RefCell<(RequestHead, ResponseHead)> = RefCell::default();
}

fuzz_target!(|input: &[u8]| {
    let Some((&stride, bytes)) = input.split_first() else { return };
    let found = Scan::default().find(bytes);
    assert_eq!(found, find_growing(bytes, usize::from(stride).max(1)), "found elsewhere when it came in pieces");
    let head = match found {
        Ok(Some(len)) => &bytes[..len],
        Ok(None) | Err(_) => bytes,
    };
    USED.with_borrow_mut(|(request, answer)| {
        judge_request(head, request);
        judge_answer(head, answer);
    });
    compare(bytes, found.ok().flatten());
});

/// What httparse makes of the head that ends at `end` is what we make of it, in one step or in two. Where no end is found,
/// nothing is accepted.
fn compare(bytes: &[u8], end: Option<usize>) {
    let (mut request, mut answer) = (RequestHead::default(), ResponseHead::default());
    let whole = &bytes[..end.unwrap_or(0)];
    let accepted = end.filter(|_| request.parse(whole, 100).is_ok());
    let mut slots = [httparse::EMPTY_HEADER; 100];
    let mut reference = httparse::Request::new(&mut slots);
    let complete = reference.parse(whole) == Ok(httparse::Status::Complete(whole.len()));
    assert_eq!(accepted.is_some(), complete, "one reader accepts the request");
    assert_eq!(RequestHead::default().read_front(bytes, bytes.len(), 100), accepted, "read otherwise in one step");
    if complete {
        let line = (request.method(), request.target(), request.version == Version::Http11);
        let path = reference.path.unwrap_or_default().as_bytes();
        assert_eq!(line, (reference.method.unwrap_or_default(), path, reference.version == Some(1)));
        same_fields(&request.fields, reference.headers);
    }
    let accepted = end.filter(|_| answer.parse(whole, 100).is_ok());
    let mut slots = [httparse::EMPTY_HEADER; 100];
    let mut reference = httparse::Response::new(&mut slots);
    let complete = reference.parse(whole) == Ok(httparse::Status::Complete(whole.len()))
        && reference.code.is_some_and(|status| (100..=599).contains(&status));
    assert_eq!(accepted.is_some(), complete, "one reader accepts the answer");
    assert_eq!(ResponseHead::default().read_front(bytes, bytes.len(), 100), accepted, "read otherwise in one step");
    if complete {
        let line = (Some(answer.status), answer.reason(), answer.version == Version::Http11);
        let reason = reference.reason.unwrap_or_default().as_bytes();
        assert_eq!(line, (reference.code, reason, reference.version == Some(1)));
        same_fields(&answer.fields, reference.headers);
    }
}

fn same_fields(own: &Fields, others: &[httparse::Header<'_>]) {
    let own = own.iter().map(|(_, name, value)| (name, value));
    assert!(own.eq(others.iter().map(|field| (field.name.as_bytes(), field.value))), "the fields differ");
}

fn find_growing(bytes: &[u8], stride: usize) -> Result<Option<usize>, sluice::http1::head::HeadError> {
    let mut scan = Scan::default();
    for len in (0..bytes.len()).step_by(stride).chain([bytes.len()]) {
        match scan.find(&bytes[..len]) {
            Ok(None) => {}
            answer => return answer,
        }
    }
    Ok(None)
}

fn judge_request(bytes: &[u8], used: &mut RequestHead) {
    let mut head = RequestHead::default();
    let parsed = head.parse(bytes, 100);
    assert_eq!(parsed, used.parse(bytes, 100), "parsed otherwise after another head");
    let line = |head: &RequestHead| [head.method().as_bytes(), b" ", head.target()].concat();
    assert_eq!(line(&head), line(used));
    assert_eq!(written(&head.fields), written(&used.fields));
    // Whether the framing is accepted is tested elsewhere; here, that it can be asked of anything.
    let _ = framing::request(&head.fields, head.version);
    if parsed.is_err() {
        assert_eq!((line(&head), head.fields.len()), (b" ".to_vec(), 0), "a refused head shows something");
        return;
    }
    judge_fields(&head.fields);
    let version: &[u8] = if head.version == Version::Http10 { b" HTTP/1.0\r\n" } else { b" HTTP/1.1\r\n" };
    let mut out = [&line(&head)[..], version].concat();
    out.extend(written(&head.fields));
    out.extend_from_slice(b"\r\n");
    assert_eq!(Scan::default().find(&out), Ok(Some(out.len())), "it ends elsewhere once written");
    let mut again = RequestHead::default();
    assert_eq!(again.parse(&out, 100), Ok(()));
    assert_eq!((line(&again), written(&again.fields)), (line(&head), written(&head.fields)));
}

fn judge_answer(bytes: &[u8], used: &mut ResponseHead) {
    let mut head = ResponseHead::default();
    let parsed = head.parse(bytes, 100);
    assert_eq!(parsed, used.parse(bytes, 100), "parsed otherwise after another head");
    assert_eq!((head.status, head.reason()), (used.status, used.reason()));
    for to_head in [false, true] {
        let _ = framing::response(head.status, to_head, &head.fields, head.version);
    }
    if parsed.is_ok() {
        assert!((100..=599).contains(&head.status));
        assert!(!head.reason().iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
        judge_fields(&head.fields);
    }
}

/// Nothing in a field may be taken for the end of a line by whoever reads it next.
fn judge_fields(fields: &Fields) {
    for (_, name, value) in fields.iter() {
        assert!(!name.is_empty() && name.iter().all(|byte| byte.is_ascii_graphic() && *byte != b':'), "{name:?}");
        assert!(value.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f)), "{value:?}");
        assert_eq!(value.trim_ascii(), value);
    }
}

fn written(fields: &Fields) -> Vec<u8> {
    let mut out = Vec::new();
    for (_, name, value) in fields.iter() {
        encode::field(&mut out, name, value);
    }
    out
}
