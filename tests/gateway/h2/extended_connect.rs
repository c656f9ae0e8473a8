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
    let requests: [&[(&str, &str)]; 6] = [
        &[(":method", "GET"), PROTOCOL, SCHEME, PATH, AUTHORITY],
        &[CONNECT, PROTOCOL, PATH, AUTHORITY],
        &[CONNECT, PROTOCOL, SCHEME, AUTHORITY],
        &[CONNECT, PROTOCOL, SCHEME, PATH],
        &[CONNECT, PROTOCOL, PROTOCOL, SCHEME, PATH, AUTHORITY],
        &[CONNECT, (":protocol", ""), SCHEME, PATH, AUTHORITY],
    ];
    for (stream, request) in (1..).step_by(2).zip(requests) {
        client.headers(stream, END_HEADERS, block(request));
        client.expect_malformed(stream);
    }
}
