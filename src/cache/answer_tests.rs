use super::*;
use crate::clock;
use crate::policy::freshness::{Rules, Terms, Times};
use std::time::Duration;

type Lines<'a> = &'a [(&'a str, &'a str)];

fn fields(lines: Lines<'_>) -> Fields {
    let mut fields = Fields::default();
    for (name, value) in lines {
        fields.push(name.as_bytes(), value.as_bytes());
    }
    fields
}

fn kept(status: u16, lines: Lines<'_>, body: &[&'static str]) -> Stored {
    let reply = fields(&[&[("Cache-Control", "max-age=60"), ("ETag", "\"1\"")], lines].concat());
    let rules = Rules { ttl: None, stale_while_revalidate: Duration::ZERO, stale_if_error: Duration::ZERO };
    let now = clock::now();
    let times = Times { requested: now, received: now, wall: SystemTime::UNIX_EPOCH };
    let read = Terms::read((&Asked::default(), &Fields::default()), false, (status, &reply), &rules, times);
    let terms = read.expect("may be kept");
    let body = body.iter().map(|piece| Bytes::from_static(piece.as_bytes())).collect();
    Stored::new(Head { status, fields: terms.kept(&reply), terms }, body)
}

/// Status, fields and body of what it gives to a GET with these lines, seven seconds after it came.
fn given(stored: &Stored, request: Lines<'_>) -> Option<(u16, Vec<String>, String)> {
    let request = fields(request);
    let asked = Asked::read("GET", &request);
    let now = stored.head.terms.received() + Duration::from_secs(7);
    let answer = Answer::of(&stored.head, Some(stored.len), (&asked, &request), (now, SystemTime::UNIX_EPOCH), 0xabc)?;
    let mut fields = Vec::new();
    answer.each_field(|name, value| {
        fields.push(format!("{}: {}", String::from_utf8_lossy(name), String::from_utf8_lossy(value)));
    });
    let body = answer.pieces(stored).concat();
    Some((answer.status, fields, String::from_utf8(body).expect("text")))
}

fn strings(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

#[test]
fn section_4_of_rfc_9111_a_whole_reply_is_sent_with_its_age() {
    let stored = kept(404, &[("Age", "3"), ("X", "1")], &["abc", "def"]);
    let fields = strings(&["Cache-Control: max-age=60", "ETag: \"1\"", "X: 1", "age: 10"]);
    assert_eq!(given(&stored, &[]), Some((404, fields, "abcdef".to_owned())));
}

#[test]
fn section_15_4_5_of_rfc_9110_a_304_has_what_guides_caches_and_no_body() {
    let lines = [("Content-Type", "a/b"), ("Content-Encoding", "x"), ("Vary", "Foo"), ("Content-Location", "/y")];
    let fields = strings(&["Cache-Control: max-age=60", "ETag: \"1\"", "Vary: Foo", "Content-Location: /y", "age: 7"]);
    let stored = kept(200, &lines, &["abc"]);
    assert_eq!(given(&stored, &[("If-None-Match", "\"1\"")]), Some((304, fields, String::new())));
}

#[test]
fn section_15_3_7_of_rfc_9110_one_range_is_cut_across_pieces() {
    let stored = kept(200, &[("Content-Type", "a/b")], &["abc", "", "def", "ghi"]);
    let (status, fields, body) = given(&stored, &[("Range", "bytes=2-6")]).expect("the whole is there");
    assert_eq!((status, body.as_str()), (206, "cdefg"));
    assert_eq!(fields[2..], strings(&["Content-Type: a/b", "age: 7", "content-range: bytes 2-6/9"]));
}

#[test]
fn section_15_3_7_2_of_rfc_9110_several_ranges_have_heads_of_their_own_and_no_content_range_for_all() {
    let stored = kept(200, &[("Content-Type", "a/b")], &["abcdef"]);
    let (status, fields, body) = given(&stored, &[("Range", "bytes=4-, 0-0")]).expect("the whole is there");
    assert_eq!(status, 206);
    let kind = "content-type: multipart/byteranges; boundary=sluice-0000000000000abc";
    assert_eq!(fields[2..], strings(&["age: 7", kind]));
    let part = |range: &str, text: &str| {
        format!("\r\n--sluice-0000000000000abc\r\nContent-Type: a/b\r\nContent-Range: bytes {range}/6\r\n\r\n{text}")
    };
    let whole = part("4-5", "ef") + &part("0-0", "a") + "\r\n--sluice-0000000000000abc--\r\n";
    assert_eq!(body, whole);
}

#[test]
fn section_15_5_17_of_rfc_9110_what_is_not_there_is_told_the_length() {
    let stored = kept(200, &[("Content-Type", "a/b")], &["abc"]);
    let given = given(&stored, &[("Range", "bytes=3-")]);
    assert_eq!(given, Some((416, strings(&["content-range: bytes */3"]), String::new())));
}

#[test]
fn section_3_3_of_rfc_9111_a_smaller_range_is_cut_from_a_part() {
    let stored = kept(206, &[("Content-Range", "bytes 4-8/10")], &["01", "234"]);
    let (status, fields, body) = given(&stored, &[("Range", "bytes=6-7")]).expect("it is there");
    assert_eq!((status, body.as_str()), (206, "23"));
    assert_eq!(fields.last().map(String::as_str), Some("content-range: bytes 6-7/10"));
    assert_eq!(given(&stored, &[]), None);
    assert_eq!(given(&stored, &[("Range", "bytes=0-5")]), None);
}
