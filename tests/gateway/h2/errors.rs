//! RFC 9113 §7: error codes.

use super::frames::*;

#[test]
fn section_7_goaway_with_an_unknown_code_is_no_error_of_its_own() {
    let mut client = Frames::start();
    client.get(1, "/held");
    client.frame(GOAWAY, 0, 0, b"\x00\x00\x00\x00\x00\x00\x00\xff");
    // What is under way is answered; nothing new is expected of a peer that says goodbye, and so the end may follow.
    client.behind().release();
    client.is_answered(1);
    assert!(client.goaways().iter().all(|goaway| goaway.code == NO_ERROR), "{}", client.seen());
}

#[test]
fn section_7_rst_stream_with_an_unknown_code_ends_its_stream_and_nothing_else() {
    let mut client = Frames::start();
    client.get(1, "/held");
    client.reset(1, 0xff);
    client.reset(1, u32::MAX);
    client.lives();
    client.get(3, "/");
    client.is_answered(3);
}
