//! RFC 8441: WebSocket and its kind over one stream.

use super::compression::block;
use super::frames::*;

const CONNECT: (&str, &str) = (":method", "CONNECT");
const PROTOCOL: (&str, &str) = (":protocol", "websocket");
const SCHEME: (&str, &str) = (":scheme", "http");
const PATH: (&str, &str) = (":path", "/socket");
const AUTHORITY: (&str, &str) = (":authority", "a.example");

#[test]
fn section_3_our_settings_say_that_extended_connect_is_understood() {
    let client = Frames::start();
    assert_eq!(client.setting(ENABLE_CONNECT_PROTOCOL), Some(1));
}

#[test]
fn section_4_a_protocol_without_connect_or_without_scheme_path_or_authority_is_malformed() {
    let mut client = Frames::start();
    let malformed: [&[(&str, &str)]; 4] = [
        &[(":method", "GET"), PROTOCOL, SCHEME, PATH, AUTHORITY],
        &[CONNECT, PROTOCOL, PATH, AUTHORITY],
        &[CONNECT, PROTOCOL, SCHEME, AUTHORITY],
        &[CONNECT, PROTOCOL, PROTOCOL, SCHEME, PATH, AUTHORITY],
    ];
    for (stream, request) in (1..).step_by(2).zip(malformed) {
        client.headers(stream, END_HEADERS, block(request));
        client.expect_malformed(stream);
    }
    client.headers(101, END_HEADERS, block(&[CONNECT, PROTOCOL, SCHEME, PATH]));
    client.is_refused(101, 400);
}

#[test]
fn section_4_a_protocol_that_nobody_here_speaks_is_refused() {
    let mut client = Frames::start();
    for (stream, protocol) in [(1, "connect-udp"), (3, "")] {
        client.headers(stream, END_HEADERS, block(&[CONNECT, (":protocol", protocol), SCHEME, PATH, AUTHORITY]));
        client.is_refused(stream, 400);
    }
}

#[test]
fn section_4_and_5_a_websocket_passes_bytes_both_ways_and_each_end_by_itself() {
    let mut client = Frames::start();
    client.headers(
        1,
        END_HEADERS,
        block(&[CONNECT, PROTOCOL, SCHEME, PATH, AUTHORITY, ("sec-websocket-version", "13")]),
    );
    client.wait("200", |client| !client.stream(1).heads.is_empty());
    let answer = client.stream(1);
    assert_eq!((answer.status(), answer.value("sec-websocket-accept"), answer.ended), (200, None, false));
    client.data(1, 0, "there");
    client.wait("an echo", |client| client.stream(1).text() == "there");
    client.data(1, END_STREAM, " and back");
    assert_eq!(client.is_answered(1).text(), "there and back");
    let request = &client.behind().requests()[0];
    assert_eq!(request.head.line, "GET /socket HTTP/1.1");
    assert_eq!((request.value("upgrade"), request.value("connection")), (Some("websocket"), Some("upgrade")));
    assert!(request.value("sec-websocket-key").is_some_and(|key| key.len() == 24), "{request:?}");
}
