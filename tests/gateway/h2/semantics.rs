//! RFC 9113 §8: requests and answers in frames. A malformed request is a stream error of type PROTOCOL_ERROR.

use super::compression::{block, literal};
use super::frames::*;

const METHOD: (&str, &str) = (":method", "GET");
const SCHEME: (&str, &str) = (":scheme", "http");
const PATH: (&str, &str) = (":path", "/");
const AUTHORITY: (&str, &str) = (":authority", "a.example");

/// Each of these requests, on a stream of its own, is malformed; the connection goes on and serves the next.
fn are_malformed(requests: &[&[(&str, &str)]]) {
    let mut client = Frames::start();
    let mut stream = 1;
    for request in requests {
        client.request(stream, request);
        client.expect_malformed(stream);
        stream += 2;
    }
    client.get(stream, "/");
    client.is_answered(stream);
}

/// A GET with each of these fields is malformed.
fn are_malformed_with<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) {
    let mut client = Frames::start();
    let mut stream = 1;
    for (name, value) in fields {
        client.headers(stream, END_STREAM | END_HEADERS, [get("/"), literal(name, value)].concat());
        client.expect_malformed(stream);
        stream += 2;
    }
    client.get(stream, "/");
    client.is_answered(stream);
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
}

#[test]
fn section_8_1_a_post_with_trailers_is_answered() {
    let mut client = Frames::start();
    client.post_with(1, "trailer", "x-checksum");
    client.data(1, 0, "hello");
    client.headers(1, END_STREAM | END_HEADERS, block(&[("x-checksum", "5d41402a")]));
    client.is_answered(1);
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
fn section_8_1_data_behind_trailers_is_stream_closed() {
    let mut client = Frames::start();
    client.headers(1, END_HEADERS, block(&[(":method", "POST"), SCHEME, (":path", "/held"), AUTHORITY]));
    client.headers(1, END_STREAM | END_HEADERS, block(&[("x-trailer", "1")]));
    client.data(1, END_STREAM, "more");
    client.expect_reset_or_goaway(1, STREAM_CLOSED);
}

#[test]
fn section_8_1_pseudo_fields_in_trailers_are_malformed() {
    for name in [":method", ":path", ":status", ":unknown"] {
        let mut client = Frames::start();
        client.post(1);
        client.data(1, 0, "hello");
        client.headers(1, END_STREAM | END_HEADERS, block(&[("x-trailer", "1"), (name, "200")]));
        client.expect_reset(1, PROTOCOL_ERROR);
        let mut client = Frames::start();
        client.post(1);
        client.headers(1, END_STREAM | END_HEADERS, block(&[(name, "200")]));
        client.expect_reset(1, PROTOCOL_ERROR);
    }
}

#[test]
fn section_8_1_connection_fields_in_trailers_are_malformed() {
    let mut client = Frames::start();
    client.post(1);
    client.headers(1, END_STREAM | END_HEADERS, block(&[("connection", "close")]));
    client.expect_reset(1, PROTOCOL_ERROR);
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
    assert_eq!(client.behind().requests(), 0);
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
    let values = ["five", "", "-1", "+5", "5x", "0x5", "5 ", "5,6", "99999999999999999999999999"];
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
    are_malformed_with(&[("X-Test", "ok"), ("x-Test", "ok"), ("A", "ok"), ("x-tesT", "ok")]);
}

#[test]
fn section_8_2_1_a_name_with_a_control_a_space_or_beyond_ascii_is_malformed() {
    let names: Vec<Vec<u8>> = (0x00..=0x20).chain(0x7f..=0xff).map(|byte| vec![b'x', byte, b'y']).collect();
    let fields: Vec<(Vec<u8>, &str)> = names.into_iter().map(|name| (name, "ok")).collect();
    are_malformed_with(&fields);
}

#[test]
fn section_8_2_1_a_name_with_a_colon_is_malformed() {
    are_malformed_with(&[("x:y", "ok"), ("x:", "ok"), ("::", "ok")]);
}

#[test]
fn section_8_2_1_a_name_that_is_no_token_or_empty_is_malformed() {
    // RFC 9110 §5.1, which RFC 9113 §8.2.1 lets an endpoint check as well.
    are_malformed_with(&[("", "ok"), ("x(y", "ok"), ("x,y", "ok"), ("x/y", "ok"), ("x\"y", "ok"), ("x{y", "ok")]);
}

#[test]
fn section_8_2_1_a_value_with_nul_cr_or_lf_is_malformed() {
    let bad = [b'\0', b'\r', b'\n'];
    let inside = bad.iter().map(|byte| ("x-test", vec![b'a', *byte, b'b']));
    let first = bad.iter().map(|byte| ("x-test", vec![*byte, b'b']));
    let last = bad.iter().map(|byte| ("x-test", vec![b'a', *byte]));
    are_malformed_with(&inside.chain(first).chain(last).collect::<Vec<_>>());
}

#[test]
fn section_8_2_1_a_value_that_begins_or_ends_with_white_space_is_malformed() {
    are_malformed_with(&[("x-test", " a"), ("x-test", "a "), ("x-test", "\ta"), ("x-test", "a\t"), ("x-test", " ")]);
}

#[test]
fn section_8_2_1_a_value_that_is_empty_or_beyond_ascii_or_has_spaces_inside_is_taken() {
    let mut client = Frames::start();
    client.get_with(1, "x-test", "");
    client.is_answered(1);
    client.headers(3, END_STREAM | END_HEADERS, [get("/"), literal("x-test", b"caf\xc3\xa9 \xff\ta b")].concat());
    client.is_answered(3);
}

#[test]
fn section_8_2_1_a_pseudo_field_with_a_bad_value_is_malformed() {
    for bad in ["a\0b", "a\rb", "a\nb", "a b"] {
        let path = format!("/{bad}");
        are_malformed(&[
            &[(":method", bad), SCHEME, PATH, AUTHORITY],
            &[METHOD, (":scheme", bad), PATH, AUTHORITY],
            &[METHOD, SCHEME, (":path", &path), AUTHORITY],
            &[METHOD, SCHEME, PATH, (":authority", bad)],
        ]);
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

// --- 8.3 control data ---

#[test]
fn section_8_3_an_unknown_pseudo_field_is_malformed() {
    are_malformed(&[&[METHOD, SCHEME, PATH, AUTHORITY, (":test", "ok")], &[(":test", "ok"), METHOD, SCHEME, PATH, AUTHORITY]]);
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
    are_malformed(&[&[SCHEME, PATH, AUTHORITY], &[METHOD, PATH, AUTHORITY], &[METHOD, SCHEME, AUTHORITY], &[("x-test", "ok")]]);
}

#[test]
fn section_8_3_1_an_empty_path_is_malformed() {
    are_malformed(&[&[METHOD, SCHEME, (":path", ""), AUTHORITY]]);
}

#[test]
fn section_8_3_1_a_path_that_begins_with_no_slash_is_malformed() {
    are_malformed(&[
        &[METHOD, SCHEME, (":path", "index.html"), AUTHORITY],
        &[METHOD, SCHEME, (":path", "?query"), AUTHORITY],
        &[METHOD, SCHEME, (":path", "*"), AUTHORITY],
        &[METHOD, SCHEME, (":path", "http://a.example/"), AUTHORITY],
        &[METHOD, SCHEME, (":path", "#fragment"), AUTHORITY],
    ]);
}

#[test]
fn section_8_3_1_an_empty_method_or_scheme_is_malformed() {
    are_malformed(&[&[(":method", ""), SCHEME, PATH, AUTHORITY], &[METHOD, (":scheme", ""), PATH, AUTHORITY]]);
}

#[test]
fn section_8_3_1_an_authority_with_user_information_is_malformed() {
    are_malformed(&[&[METHOD, SCHEME, PATH, (":authority", "user@a.example")]]);
    are_malformed(&[&[METHOD, SCHEME, PATH, (":authority", "user:secret@a.example")]]);
}

#[test]
fn section_8_3_1_an_authority_that_is_empty_or_no_host_is_malformed() {
    are_malformed(&[
        &[METHOD, SCHEME, PATH, (":authority", "")],
        &[METHOD, SCHEME, PATH, (":authority", "a.example/path")],
        &[METHOD, SCHEME, PATH, (":authority", "a.example:port")],
        &[METHOD, SCHEME, PATH, (":authority", "a.example,b.example")],
    ]);
}

#[test]
fn section_8_3_1_an_authority_and_a_host_that_disagree_are_malformed() {
    are_malformed(&[
        &[METHOD, SCHEME, PATH, AUTHORITY, ("host", "b.example")],
        &[METHOD, SCHEME, PATH, AUTHORITY, ("host", "a.example:8080")],
        &[METHOD, SCHEME, PATH, AUTHORITY, ("host", "")],
        &[METHOD, SCHEME, PATH, AUTHORITY, ("host", "a.example"), ("host", "b.example")],
    ]);
}

#[test]
fn section_8_3_1_a_request_that_names_no_host_at_all_is_malformed() {
    are_malformed(&[&[METHOD, SCHEME, PATH], &[METHOD, SCHEME, PATH, ("host", "")]]);
    are_malformed(&[&[METHOD, SCHEME, PATH, ("host", "a.example"), ("host", "a.example")]]);
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
fn section_8_5_connect_with_a_scheme_or_a_path_or_without_an_authority_is_malformed() {
    let connect = (":method", "CONNECT");
    are_malformed(&[
        &[connect, SCHEME, PATH, AUTHORITY],
        &[connect, SCHEME, AUTHORITY],
        &[connect, PATH, AUTHORITY],
        &[connect],
    ]);
}
