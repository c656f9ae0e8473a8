//! RFC 9113 §8: requests and answers in frames. A malformed request is a stream error of type PROTOCOL_ERROR.

use super::compression::{block, literal};
use super::frames::*;
use crate::wire::text;

const METHOD: (&str, &str) = (":method", "GET");
const SCHEME: (&str, &str) = (":scheme", "http");
const PATH: (&str, &str) = (":path", "/");
const AUTHORITY: (&str, &str) = (":authority", "a.example");

/// Each of these requests, on a stream of its own, is malformed; the connection goes on and serves the next.
fn are_malformed(requests: &[&[(&str, &str)]]) {
    each(requests, Frames::expect_malformed);
}

/// Each of these requests gets 400; the connection goes on and serves the next.
fn are_refused(requests: &[&[(&str, &str)]]) {
    each(requests, |client, stream| client.is_refused(stream, 400));
}

fn each(requests: &[&[(&str, &str)]], expect: impl Fn(&mut Frames, u32)) {
    let mut client = Frames::start();
    let mut stream = 1;
    for request in requests {
        client.request(stream, request);
        expect(&mut client, stream);
        stream += 2;
    }
    client.get(stream, "/");
    client.is_answered(stream);
}

/// A GET with each of these fields is malformed.
fn are_malformed_with(fields: &[(&str, &str)]) {
    let mut client = Frames::start();
    let mut stream = 1;
    for (name, value) in fields {
        client.get_with(stream, name, value);
        client.expect_malformed(stream);
        stream += 2;
    }
    client.get(stream, "/");
    client.is_answered(stream);
}

/// Each of these blocks is malformed in a way that the field decoder sees before there is a request: the connection fails,
/// as §5.4.1 permits for whatever is a stream error.
fn fail_the_connection(blocks: &[Vec<u8>]) {
    let first = Frames::start();
    for block in blocks {
        let mut client = first.another();
        client.headers(1, END_STREAM | END_HEADERS, block);
        client.expect_goaway(PROTOCOL_ERROR);
        assert_eq!(first.behind().begun(), 0, "the provider was asked: {}", text(block));
    }
}

/// The block of a GET with one more field.
fn get_with(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    [get("/"), literal(name, value)].concat()
}

// --- 8.1 framing ---

#[test]
fn section_8_1_a_get_and_a_head_without_a_body_are_answered() {
    let mut client = Frames::start();
    client.get(1, "/");
    assert_eq!(client.is_answered(1).text(), "hello");
    client.request(3, &[(":method", "HEAD"), SCHEME, PATH, AUTHORITY]);
    let answer = client.is_answered(3);
    assert_eq!((answer.text().as_str(), answer.value("content-length")), ("", Some("5")));
}

#[test]
fn section_8_1_a_post_with_a_body_is_answered() {
    let mut client = Frames::start();
    client.post(1);
    client.data(1, END_STREAM, "hello");
    client.is_answered(1);
    assert_eq!(client.behind().requests()[0].text(), "hello");
}

#[test]
fn section_8_1_a_post_with_trailers_is_answered() {
    let mut client = Frames::start();
    client.post_with(1, "trailer", "x-checksum");
    client.data(1, 0, "hello");
    client.headers(1, END_STREAM | END_HEADERS, block(&[("x-checksum", "5d41402a")]));
    client.is_answered(1);
    let request = &client.behind().requests()[0];
    assert_eq!(request.trailers, [("x-checksum".to_owned(), "5d41402a".to_owned())]);
}

#[test]
fn section_8_1_trailers_that_do_not_end_the_stream_are_malformed() {
    let mut client = Frames::start();
    client.post(1);
    client.data(1, 0, "hello");
    client.headers(1, END_HEADERS, block(&[("x-trailer", "1")]));
    client.expect_reset(1, PROTOCOL_ERROR);
    client.get(3, "/");
    client.is_answered(3);
}

#[test]
fn section_8_1_data_behind_trailers_ends_the_connection() {
    // STREAM_CLOSED by §5.1; see `streams`.
    let mut client = Frames::start();
    client.headers(1, END_HEADERS, block(&[(":method", "POST"), SCHEME, (":path", "/held"), AUTHORITY]));
    client.headers(1, END_STREAM | END_HEADERS, block(&[("x-trailer", "1")]));
    client.data(1, END_STREAM, "more");
    client.expect_goaway(PROTOCOL_ERROR);
}

#[test]
fn section_8_1_pseudo_fields_in_trailers_are_malformed() {
    for name in [":method", ":path", ":status"] {
        let mut client = Frames::start();
        client.post(1);
        client.data(1, 0, "hello");
        client.headers(1, END_STREAM | END_HEADERS, block(&[("x-trailer", "1"), (name, "200")]));
        client.expect_reset(1, PROTOCOL_ERROR);
    }
    let mut client = Frames::start();
    client.post(1);
    client.headers(1, END_STREAM | END_HEADERS, block(&[(":unknown", "1")]));
    client.expect_goaway(PROTOCOL_ERROR);
}

#[test]
fn section_8_1_pseudo_fields_at_the_head_of_trailers_go_no_further() {
    // They too are malformed. The library takes them off and tells nobody, so that all we see to is that they end here.
    let mut client = Frames::start();
    client.post(1);
    client.data(1, 0, "hello");
    client.headers(1, END_STREAM | END_HEADERS, block(&[(":method", "PUT"), (":path", "/admin"), ("x-trailer", "1")]));
    client.is_answered(1);
    let request = &client.behind().requests()[0];
    assert_eq!(request.head.line, "POST / HTTP/1.1");
    assert_eq!(request.trailers, [("x-trailer".to_owned(), "1".to_owned())]);
}

#[test]
fn section_8_1_and_rfc_9110_section_6_5_1_fields_of_framing_and_routing_are_no_trailers() {
    let mut client = Frames::start();
    client.post(1);
    client.data(1, 0, "hello");
    let trailers = [("content-length", "7"), ("host", "b.example"), ("x-trailer", "1")];
    client.headers(1, END_STREAM | END_HEADERS, block(&trailers));
    client.is_answered(1);
    assert_eq!(client.behind().requests()[0].trailers, [("x-trailer".to_owned(), "1".to_owned())]);
}

#[test]
fn section_8_1_connection_fields_in_trailers_are_malformed() {
    let mut client = Frames::start();
    client.post(1);
    client.headers(1, END_STREAM | END_HEADERS, block(&[("connection", "close")]));
    client.expect_reset(1, PROTOCOL_ERROR);
}

#[test]
fn section_8_1_interim_answers_come_before_the_final_one() {
    let mut client = Frames::start();
    client.get(1, "/interim");
    let answer = client.is_answered(1);
    let links: Vec<&(String, String)> = answer.heads[..2].iter().flatten().filter(|(name, _)| name == "link").collect();
    assert_eq!(links.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>(), ["</a>", "</b>"]);
    assert!(answer.heads[..2].iter().all(|head| head[0] == (":status".to_owned(), "103".to_owned())));
    assert_eq!((answer.heads.len(), answer.text().as_str()), (3, "hello"));
}

#[test]
fn section_8_1_trailers_of_an_answer_come_behind_its_body() {
    let mut client = Frames::start();
    client.get(1, "/trailers");
    let answer = client.is_answered(1);
    assert_eq!(answer.text(), "hello");
    assert_eq!(answer.trailers(), [("x-sum".to_owned(), "5d41".to_owned())]);
}

#[test]
fn section_8_1_an_answer_that_has_no_body_ends_with_its_head() {
    let mut client = Frames::start();
    for (stream, path, status) in [(1, "/204", 204), (3, "/304", 304)] {
        client.get(stream, path);
        let answer = client.expect_answer(stream);
        assert_eq!((answer.status(), answer.chunks.len()), (status, 0), "{}", client.seen());
    }
}

#[test]
fn section_8_1_an_answer_that_breaks_off_is_reset_and_never_ended() {
    let mut client = Frames::start();
    client.get(1, "/broken");
    client.wait("a reset", |client| client.stream(1).reset.is_some() || client.stream(1).ended);
    let answer = client.stream(1);
    assert!(!answer.ended && answer.reset != Some(NO_ERROR), "{}", client.seen());
    client.get(3, "/");
    client.is_answered(3);
}

#[test]
fn section_8_1_every_answer_begins_with_its_status_and_has_lowercase_names() {
    let mut client = Frames::start();
    client.get(1, "/");
    let answer = client.is_answered(1);
    assert_eq!(answer.head()[0].0, ":status");
    assert!(answer.head()[1..].iter().all(|(name, _)| !name.starts_with(':') && *name == name.to_lowercase()));
    assert_eq!(answer.value("x-served"), Some("yes"));
}

// --- 8.1.1 malformed messages ---

#[test]
fn section_8_1_1_a_body_shorter_than_its_content_length_is_malformed() {
    let mut client = Frames::start();
    client.post_with(1, "content-length", "6");
    client.data(1, END_STREAM, "hello");
    client.expect_reset(1, PROTOCOL_ERROR);
    client.post_with(3, "content-length", "6");
    client.data(3, 0, "hel");
    client.data(3, END_STREAM, "lo");
    client.expect_reset(3, PROTOCOL_ERROR);
    client.post_with(5, "content-length", "1");
    client.headers(5, END_STREAM | END_HEADERS, block(&[("x-trailer", "1")]));
    client.expect_reset(5, PROTOCOL_ERROR);
    assert!(client.behind().requests().is_empty(), "the provider took a cut body for a whole one");
}

#[test]
fn section_8_1_1_a_body_longer_than_its_content_length_is_malformed() {
    let mut client = Frames::start();
    client.post_with(1, "content-length", "4");
    client.data(1, END_STREAM, "hello");
    client.expect_reset(1, PROTOCOL_ERROR);
    client.post_with(3, "content-length", "4");
    client.data(3, 0, "hel");
    client.data(3, 0, "lo");
    client.expect_reset(3, PROTOCOL_ERROR);
    client.post_with(5, "content-length", "0");
    client.data(5, END_STREAM, "a");
    client.expect_reset(5, PROTOCOL_ERROR);
}

#[test]
fn section_8_1_1_a_content_length_without_a_body_is_malformed() {
    let mut client = Frames::start();
    client.get_with(1, "content-length", "5");
    client.expect_malformed(1);
    client.get_with(3, "content-length", "0");
    client.is_answered(3);
}

#[test]
fn section_8_1_1_a_content_length_that_is_none_is_malformed() {
    // Where the library reads nothing as 0, our own layer does not.
    let mut client = Frames::start();
    client.get_with(1, "content-length", "");
    client.is_refused(1, 400);
    let values = ["five", "-1", "+5", "5x", "0x5", "5 ", "5,6", "99999999999999999999999999"];
    for value in values {
        let mut client = Frames::start();
        client.post_with(1, "content-length", value);
        client.data(1, END_STREAM, "hello");
        client.expect_malformed(1);
    }
}

#[test]
fn section_8_1_1_two_different_content_lengths_are_malformed() {
    let mut client = Frames::start();
    client.headers(1, END_HEADERS, [post(), block(&[("content-length", "5"), ("content-length", "6")])].concat());
    client.data(1, END_STREAM, "hello");
    client.expect_malformed(1);
}

// --- 8.2.1 field validity ---

#[test]
fn section_8_2_1_a_name_with_an_uppercase_letter_is_malformed() {
    fail_the_connection(&["X-Test", "x-Test", "A", "x-tesT"].map(|name| get_with(name, "ok")));
}

#[test]
fn section_8_2_1_a_name_with_a_control_a_space_or_beyond_ascii_is_malformed() {
    let bad = (0x00..=0x20).chain(0x7f..=0xff);
    fail_the_connection(&bad.map(|byte| get_with([b'x', byte, b'y'], "ok")).collect::<Vec<_>>());
}

#[test]
fn section_8_2_1_a_name_with_a_colon_is_malformed() {
    fail_the_connection(&["x:y", "x:", "::"].map(|name| get_with(name, "ok")));
}

#[test]
fn section_8_2_1_a_name_that_is_no_token_or_empty_is_malformed() {
    // RFC 9110 §5.1, which RFC 9113 §8.2.1 lets an endpoint check as well.
    fail_the_connection(
        &["", "x(y", "x)y", "x,y", "x/y", "x;y", "x<y", "x=y", "x>y", "x?y", "x@y", "x[y", "x\\y", "x]y", "x{y", "x}y"]
            .map(|name| get_with(name, "ok")),
    );
    let mut client = Frames::start();
    client.get_with(1, "x\"y", "ok");
    client.is_refused(1, 400);
}

#[test]
fn section_8_2_1_a_value_with_nul_cr_or_lf_is_malformed() {
    for byte in ["\0", "\r", "\n"] {
        let values = [format!("a{byte}b"), format!("{byte}b"), format!("a{byte}"), byte.to_owned()];
        fail_the_connection(&values.map(|value| get_with("x-test", value)));
    }
}

#[test]
fn section_8_2_1_a_value_that_begins_or_ends_with_white_space_is_malformed() {
    let mut client = Frames::start();
    for (stream, value) in (1..).step_by(2).zip([" a", "a ", "\ta", "a\t", " "]) {
        client.get_with(stream, "x-test", value);
        client.is_refused(stream, 400);
    }
    client.post(101);
    client.headers(101, END_STREAM | END_HEADERS, block(&[("x-trailer", " a")]));
    assert_eq!(client.expect_answer(101).status(), 400);
    assert!(client.behind().requests().is_empty(), "the provider took a cut body for a whole one");
}

#[test]
fn section_8_2_1_a_value_that_is_empty_or_beyond_ascii_or_has_spaces_inside_is_taken() {
    let mut client = Frames::start();
    client.headers(1, END_STREAM | END_HEADERS, get_with("x-test", ""));
    client.is_answered(1);
    client.headers(3, END_STREAM | END_HEADERS, get_with("x-test", b"caf\xc3\xa9 \xff\ta b"));
    client.is_answered(3);
    assert_eq!(client.behind().requests()[0].value("x-test"), Some(""));
}

#[test]
fn section_8_2_1_a_pseudo_field_with_a_bad_value_is_malformed() {
    for bad in ["a\0b", "a\rb", "a\nb", "a b"] {
        let path = format!("/{bad}");
        are_malformed(&[
            &[METHOD, (":scheme", bad), PATH, AUTHORITY],
            &[METHOD, SCHEME, (":path", &path), AUTHORITY],
            &[METHOD, SCHEME, PATH, (":authority", bad)],
        ]);
        fail_the_connection(&[block(&[(":method", bad), SCHEME, PATH, AUTHORITY])]);
    }
}

// --- 8.2.2 connection-specific fields ---

#[test]
fn section_8_2_2_connection_specific_fields_are_malformed() {
    are_malformed_with(&[
        ("connection", "keep-alive"),
        ("connection", "close"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "identity"),
        ("upgrade", "websocket"),
    ]);
}

#[test]
fn section_8_2_2_te_with_anything_other_than_trailers_is_malformed() {
    are_malformed_with(&[("te", "gzip"), ("te", "trailers, deflate;q=0.5"), ("te", ""), ("te", "chunked")]);
}

#[test]
fn section_8_2_2_te_with_trailers_is_taken() {
    let mut client = Frames::start();
    client.get_with(1, "te", "trailers");
    client.is_answered(1);
}

#[test]
fn section_8_2_2_an_answer_has_no_connection_specific_fields() {
    // The provider's answer has all of them, and names one more in `Connection`.
    let mut client = Frames::start();
    client.get(1, "/connection");
    let answer = client.is_answered(1);
    assert_eq!(answer.text(), "hello");
    let names: Vec<&str> = answer.head().iter().map(|(name, _)| name.as_str()).collect();
    for name in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "te", "x-hop"] {
        assert!(!names.contains(&name), "{name} in {names:?}");
    }
}

// --- 8.2.3 cookies ---

#[test]
fn section_8_2_3_cookie_crumbs_become_one_field() {
    let mut client = Frames::start();
    let crumbs = block(&[("cookie", "a=1"), ("x-between", "yes"), ("cookie", "b=2; c=3"), ("cookie", "d=4")]);
    client.headers(1, END_STREAM | END_HEADERS, [get("/"), crumbs].concat());
    client.is_answered(1);
    assert_eq!(client.behind().requests()[0].value("cookie"), Some("a=1; b=2; c=3; d=4"));
}

// --- 8.3 control data ---

#[test]
fn section_8_3_an_unknown_pseudo_field_is_malformed() {
    fail_the_connection(&[
        block(&[METHOD, SCHEME, PATH, AUTHORITY, (":test", "ok")]),
        block(&[(":test", "ok"), METHOD, SCHEME, PATH, AUTHORITY]),
        block(&[METHOD, SCHEME, AUTHORITY, (":Path", "/")]),
        block(&[METHOD, SCHEME, PATH, AUTHORITY, (":", "ok")]),
    ]);
}

#[test]
fn section_8_3_a_pseudo_field_of_answers_is_malformed_in_a_request() {
    are_malformed(&[&[METHOD, SCHEME, PATH, AUTHORITY, (":status", "200")]]);
}

#[test]
fn section_8_3_a_pseudo_field_behind_an_ordinary_one_is_malformed() {
    are_malformed(&[
        &[METHOD, SCHEME, AUTHORITY, ("x-test", "ok"), PATH],
        &[("x-test", "ok"), METHOD, SCHEME, PATH, AUTHORITY],
        &[METHOD, SCHEME, PATH, ("x-test", "ok"), AUTHORITY],
    ]);
}

#[test]
fn section_8_3_a_pseudo_field_that_comes_twice_is_malformed() {
    are_malformed(&[
        &[METHOD, METHOD, SCHEME, PATH, AUTHORITY],
        &[METHOD, (":method", "POST"), SCHEME, PATH, AUTHORITY],
        &[METHOD, SCHEME, SCHEME, PATH, AUTHORITY],
        &[METHOD, SCHEME, PATH, PATH, AUTHORITY],
        &[METHOD, SCHEME, PATH, AUTHORITY, AUTHORITY],
        &[METHOD, SCHEME, PATH, AUTHORITY, (":authority", "b.example")],
    ]);
}

#[test]
fn section_8_3_1_a_request_without_method_scheme_or_path_is_malformed() {
    are_malformed(&[
        &[SCHEME, PATH, AUTHORITY],
        &[METHOD, PATH, AUTHORITY],
        &[METHOD, SCHEME, AUTHORITY],
        &[("x-test", "ok")],
    ]);
}

#[test]
fn section_8_3_1_an_empty_path_is_malformed() {
    are_malformed(&[&[METHOD, SCHEME, (":path", ""), AUTHORITY]]);
}

#[test]
fn section_8_3_1_a_path_that_begins_with_no_slash_is_malformed() {
    are_malformed(&[
        &[METHOD, SCHEME, (":path", "index.html"), AUTHORITY],
        &[METHOD, SCHEME, (":path", "http://a.example/"), AUTHORITY],
    ]);
    are_refused(&[&[METHOD, SCHEME, (":path", "?query"), AUTHORITY], &[METHOD, SCHEME, (":path", "*"), AUTHORITY]]);
}

#[test]
fn section_8_3_1_a_fragment_in_a_path_goes_no_further() {
    let mut client = Frames::start();
    client.get(1, "/path?query#fragment");
    client.is_answered(1);
    assert_eq!(client.behind().requests()[0].head.line, "GET /path?query HTTP/1.1");
}

#[test]
fn section_8_3_1_an_empty_method_or_scheme_is_malformed() {
    are_refused(&[&[METHOD, (":scheme", ""), PATH, AUTHORITY], &[METHOD, (":scheme", "1a"), PATH, AUTHORITY]]);
    fail_the_connection(&["", "G(T"].map(|method| block(&[(":method", method), SCHEME, PATH, AUTHORITY])));
}

#[test]
fn section_8_3_1_an_authority_with_user_information_is_malformed() {
    are_refused(&[&[METHOD, SCHEME, PATH, (":authority", "user@a.example")]]);
    are_refused(&[&[METHOD, SCHEME, PATH, (":authority", "user:secret@a.example")]]);
}

#[test]
fn section_8_3_1_an_authority_that_is_empty_or_no_host_is_malformed() {
    let with = |authority: &'static str| [METHOD, SCHEME, PATH, (":authority", authority)];
    are_malformed(&[&with(""), &with("a.example/path"), &with("[::1"), &with("a%20b")]);
    are_refused(&[&with("a.example:port"), &with("a.example:99999"), &with(":80"), &with("a.example,b.example")]);
}

#[test]
fn section_8_3_1_an_authority_and_a_host_that_disagree_are_refused() {
    are_refused(&[
        &[METHOD, SCHEME, PATH, AUTHORITY, ("host", "b.example")],
        &[METHOD, SCHEME, PATH, AUTHORITY, ("host", "a.example:8080")],
        &[METHOD, SCHEME, PATH, AUTHORITY, ("host", "")],
        &[METHOD, SCHEME, PATH, AUTHORITY, ("host", "a.example"), ("host", "b.example")],
    ]);
}

#[test]
fn section_8_3_1_a_request_that_names_no_host_at_all_is_malformed() {
    are_refused(&[&[METHOD, SCHEME, PATH], &[METHOD, SCHEME, PATH, ("host", "")]]);
    are_refused(&[&[METHOD, SCHEME, PATH, ("host", "a.example"), ("host", "a.example")]]);
}

#[test]
fn section_8_3_1_a_host_without_an_authority_or_equal_to_it_is_taken() {
    let mut client = Frames::start();
    client.request(1, &[METHOD, SCHEME, PATH, ("host", "a.example")]);
    client.is_answered(1);
    client.request(3, &[METHOD, SCHEME, PATH, AUTHORITY, ("host", "a.example")]);
    client.is_answered(3);
    client.request(5, &[METHOD, SCHEME, PATH, AUTHORITY, ("host", "A.EXAMPLE")]);
    client.is_answered(5);
}

#[test]
fn section_8_3_1_options_for_the_whole_server_is_taken() {
    let mut client = Frames::start();
    client.request(1, &[(":method", "OPTIONS"), SCHEME, (":path", "*"), AUTHORITY]);
    client.expect_answer(1);
}

// --- 8.5 CONNECT ---

#[test]
fn section_8_5_connect_with_a_scheme_or_a_path_is_malformed() {
    let connect = (":method", "CONNECT");
    are_malformed(&[&[connect, SCHEME, PATH, AUTHORITY], &[connect, SCHEME, AUTHORITY], &[connect, PATH, AUTHORITY]]);
}

#[test]
fn section_8_5_connect_is_refused_as_in_http_1() {
    // Without an authority it would be malformed; what is refused in any case is not looked at any closer.
    let mut client = Frames::start();
    for (stream, request) in
        [(1, &[(":method", "CONNECT"), (":authority", "a.example:443")][..]), (3, &[(":method", "CONNECT")])]
    {
        client.request(stream, request);
        client.is_refused(stream, 405);
    }
}
