//! RFC 9113 §3: how a connection begins.

use super::frames::*;
use crate::wire::text;

#[test]
fn section_3_4_a_client_that_sends_its_preface_is_served() {
    let mut client = Frames::start();
    client.lives();
    client.get(1, "/");
    assert_eq!(client.is_answered(1).text(), "hello");
}

#[test]
fn section_3_4_settings_are_the_first_frame_of_the_server_too() {
    let mut client = Frames::unsaid();
    client.send(PREFACE);
    client.settings(&[]);
    // `is_settled` looks at what came first.
    client.is_settled();
    assert!(client.setting(MAX_CONCURRENT_STREAMS).is_some_and(|most| most > 0));
    assert!(client.setting(MAX_HEADER_LIST_SIZE).is_some());
}

#[test]
fn section_3_4_a_client_need_not_wait_for_the_servers_settings() {
    let mut client = Frames::unsaid();
    let settings = frame(SETTINGS, 0, 0, []);
    let request = frame(HEADERS, END_STREAM | END_HEADERS, 1, get("/"));
    client.send([PREFACE, &settings, &request].concat());
    client.is_answered(1);
}

#[test]
fn section_3_4_a_preface_that_comes_byte_by_byte_is_understood() {
    let mut client = Frames::unsaid();
    for byte in PREFACE {
        client.send([*byte]);
    }
    client.settings(&[]);
    client.is_settled();
    client.get(1, "/");
    client.is_answered(1);
}

#[test]
fn section_3_4_a_preface_that_goes_wrong_ends_the_connection() {
    // Both are as long as the preface. The first is no HTTP at all, the second goes wrong in its last bytes.
    for preface in ["INVALID CONNECTION PREFACE\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\t"] {
        let mut client = Frames::unsaid();
        client.send(preface);
        // A GOAWAY may be left out here; an answer in HTTP/1 is ours where the bytes are no preface from the first on.
        let said = client.wire().rest();
        assert!(!text(&said).contains(" 200 "), "{}", text(&said));
        assert_eq!(client.behind().begun(), 0);
    }
}

#[test]
fn section_3_4_a_first_frame_that_is_no_settings_is_a_protocol_error() {
    for first in [frame(PING, 0, 0, [0; 8]), frame(HEADERS, END_STREAM | END_HEADERS, 1, get("/"))] {
        let mut client = Frames::unsaid();
        client.send([PREFACE, &first].concat());
        client.expect_goaway(PROTOCOL_ERROR);
        assert_eq!(client.behind().begun(), 0);
    }
}

#[test]
fn section_3_1_an_upgrade_to_h2c_is_ignored_and_answered_in_http_1() {
    // RFC 9113 took the upgrade of RFC 7540 §3.2 away.
    let mut client = Frames::unsaid();
    client.send(
        "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
    );
    let answer = client.wire().answer();
    assert_eq!((answer.status(), answer.text().as_str()), (200, "hello"));
    assert_eq!(answer.value("upgrade"), None);
}
