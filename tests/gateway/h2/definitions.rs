//! RFC 9113 §6: each type of frame.

use super::compression::block;
use super::frames::*;
use crate::world::PATIENCE;

// --- 6.1 DATA ---

#[test]
fn section_6_1_data_in_one_frame_or_in_several_is_taken() {
    let mut client = Frames::start();
    client.post(1);
    client.data(1, END_STREAM, "whole");
    client.is_answered(1);
    client.post(3);
    client.data(3, 0, "in");
    client.data(3, 0, "");
    client.data(3, 0, "parts");
    client.data(3, END_STREAM, "");
    client.is_answered(3);
}

#[test]
fn section_6_1_padding_of_data_is_taken_off() {
    let mut client = Frames::start();
    client.post_with(1, "content-length", "5");
    client.data(1, END_STREAM | PADDED, b"\x06hello\0\0\0\0\0\0");
    client.is_answered(1);
    client.post_with(3, "content-length", "0");
    client.data(3, END_STREAM | PADDED, b"\x02\0\0");
    client.is_answered(3);
    client.post_with(5, "content-length", "2");
    client.data(5, END_STREAM | PADDED, b"\0no");
    client.is_answered(5);
}

#[test]
fn section_6_1_padding_counts_for_flow_control() {
    // 256 octets of each frame are padding and its length: more than the window in all, were it not given back.
    let mut client = Frames::start();
    client.post(1);
    for _ in 0..3 * 65_535 / 257 {
        client.data(1, PADDED, [&[255, b'a'][..], &[0; 255]].concat());
        client.lives();
    }
    client.data(1, END_STREAM, "");
    client.is_answered(1);
}

#[test]
fn section_6_1_data_on_stream_0_is_a_protocol_error() {
    let mut client = Frames::start();
    client.data(0, END_STREAM, "hello");
    client.expect_goaway(PROTOCOL_ERROR);
}

#[test]
fn section_6_1_padding_as_long_as_the_frame_is_a_protocol_error() {
    for payload in [&b"\x05hello"[..], b"\x06hello", b"\xff"] {
        let mut client = Frames::start();
        client.post(1);
        client.data(1, END_STREAM | PADDED, payload);
        if payload.len() == 6 && payload[0] == 5 {
            // Five octets of padding and no data: as long as what is left, which is allowed.
            client.is_answered(1);
        } else {
            client.expect_goaway(PROTOCOL_ERROR);
        }
    }
}

#[test]
fn section_6_1_padded_data_without_room_for_its_pad_length_is_an_error() {
    // FRAME_SIZE_ERROR by §4.2 where it is too small for what it must hold.
    let mut client = Frames::start();
    client.post(1);
    client.data(1, END_STREAM | PADDED, "");
    client.expect_goaway(FRAME_SIZE_ERROR);
}

// --- 6.2 HEADERS ---

#[test]
fn section_6_2_padding_of_headers_is_taken_off() {
    let mut client = Frames::start();
    client.headers(1, END_STREAM | END_HEADERS | PADDED, [vec![6], get("/"), vec![0; 6]].concat());
    client.is_answered(1);
    client.headers(3, END_STREAM | END_HEADERS | PADDED, [vec![0], get("/")].concat());
    client.is_answered(3);
}

#[test]
fn section_6_2_headers_with_priority_and_padding_are_taken() {
    let mut client = Frames::start();
    let priority = [0, 0, 0, 0, 255];
    client.headers(1, END_STREAM | END_HEADERS | WITH_PRIORITY, [priority.to_vec(), get("/")].concat());
    client.is_answered(1);
    let flags = END_STREAM | END_HEADERS | WITH_PRIORITY | PADDED;
    client.headers(3, flags, [vec![4], priority.to_vec(), get("/"), vec![0; 4]].concat());
    client.is_answered(3);
}

#[test]
fn section_6_2_headers_on_stream_0_are_a_protocol_error() {
    let mut client = Frames::start();
    client.get(0, "/");
    client.expect_goaway(PROTOCOL_ERROR);
}

#[test]
fn section_6_2_padding_longer_than_the_block_is_a_protocol_error() {
    let mut client = Frames::start();
    let block = get("/");
    let longer = u8::try_from(block.len() + 1).expect("a short block");
    client.headers(1, END_STREAM | END_HEADERS | PADDED, [vec![longer], block].concat());
    client.expect_goaway(PROTOCOL_ERROR);
}

#[test]
fn section_6_2_padding_that_leaves_no_room_for_the_priority_is_a_protocol_error() {
    let mut client = Frames::start();
    let flags = END_STREAM | END_HEADERS | PADDED | WITH_PRIORITY;
    client.headers(1, flags, b"\x04\x00\x00\x00\x00\xff");
    client.expect_goaway(PROTOCOL_ERROR);
}

#[test]
fn section_6_2_headers_too_short_for_their_priority_are_a_frame_size_error() {
    let mut client = Frames::start();
    client.headers(1, END_STREAM | END_HEADERS | WITH_PRIORITY, b"\x00\x00\x00");
    client.expect_goaway(FRAME_SIZE_ERROR);
}

// --- 6.3 PRIORITY ---

#[test]
fn section_6_3_priority_on_stream_0_is_a_protocol_error() {
    let mut client = Frames::start();
    client.priority(0, 1, 10);
    client.expect_goaway(PROTOCOL_ERROR);
}

#[test]
fn section_6_3_priority_with_a_length_other_than_5_is_a_frame_size_error() {
    // The stream's by the RFC; an endpoint may let it be the connection's (§5.4).
    for payload in [&b"\x80\x00\x00\x01"[..], b"\x80\x00\x00\x01\x01\x01", b""] {
        let mut client = Frames::start();
        client.get(1, "/held");
        client.frame(PRIORITY, 0, 1, payload);
        client.expect_reset_or_goaway(1, FRAME_SIZE_ERROR);
    }
}

// --- 6.4 RST_STREAM ---

#[test]
fn section_6_4_rst_stream_ends_a_stream_and_nothing_else() {
    let mut client = Frames::start();
    client.post(1);
    client.reset(1, CANCEL);
    client.lives();
    client.get(3, "/");
    client.is_answered(3);
}

#[test]
fn section_6_4_rst_stream_on_stream_0_is_a_protocol_error() {
    let mut client = Frames::start();
    client.reset(0, CANCEL);
    client.expect_goaway(PROTOCOL_ERROR);
}

#[test]
fn section_6_4_rst_stream_with_a_length_other_than_4_is_a_frame_size_error() {
    for payload in [&b"\x00\x00\x00"[..], b"\x00\x00\x00\x08\x00", b""] {
        let mut client = Frames::start();
        client.get(1, "/held");
        client.frame(RST_STREAM, 0, 1, payload);
        client.expect_goaway(FRAME_SIZE_ERROR);
    }
}

// --- 6.5 SETTINGS ---

#[test]
fn section_6_5_an_acknowledgement_that_says_something_is_a_frame_size_error() {
    let mut client = Frames::start();
    client.frame(SETTINGS, ACK, 0, settings(&[(INITIAL_WINDOW_SIZE, 1)]));
    client.expect_goaway(FRAME_SIZE_ERROR);
}

#[test]
fn section_6_5_settings_on_a_stream_are_a_protocol_error() {
    let mut client = Frames::start();
    client.get(1, "/held");
    client.frame(SETTINGS, 0, 1, settings(&[(INITIAL_WINDOW_SIZE, 1)]));
    client.expect_goaway(PROTOCOL_ERROR);
}

#[test]
fn section_6_5_a_settings_frame_with_a_length_that_is_no_multiple_of_six_is_a_frame_size_error() {
    for length in [1, 5, 7] {
        let mut client = Frames::start();
        client.frame(SETTINGS, 0, 0, vec![0; length]);
        client.expect_goaway(FRAME_SIZE_ERROR);
    }
}

#[test]
fn section_6_5_2_enable_push_other_than_0_and_1_is_a_protocol_error() {
    for value in [2, u32::MAX] {
        let mut client = Frames::start();
        client.settings(&[(ENABLE_PUSH, value)]);
        client.expect_goaway(PROTOCOL_ERROR);
    }
}

#[test]
fn section_6_5_2_enable_push_with_0_or_1_is_taken() {
    let mut client = Frames::with_settings(&[(ENABLE_PUSH, 1)]);
    client.settings(&[(ENABLE_PUSH, 0)]);
    client.is_acknowledged(2);
    client.get(1, "/");
    client.is_answered(1);
}

#[test]
fn section_6_5_2_an_initial_window_above_the_largest_is_a_flow_control_error() {
    for value in [MOST + 1, u32::MAX] {
        let mut client = Frames::start();
        client.settings(&[(INITIAL_WINDOW_SIZE, value)]);
        client.expect_goaway(FLOW_CONTROL_ERROR);
    }
}

#[test]
fn section_6_5_2_a_max_frame_size_out_of_bounds_is_a_protocol_error() {
    for value in [0, 16_383, 1 << 24, u32::MAX] {
        let mut client = Frames::start();
        client.settings(&[(MAX_FRAME_SIZE, value)]);
        client.expect_goaway(PROTOCOL_ERROR);
    }
}

#[test]
fn section_6_5_2_every_value_in_its_bounds_is_taken() {
    let mut client = Frames::start();
    let values = [
        [(HEADER_TABLE_SIZE, 0), (MAX_CONCURRENT_STREAMS, 0), (INITIAL_WINDOW_SIZE, MOST), (MAX_FRAME_SIZE, 16_384)],
        [
            (HEADER_TABLE_SIZE, u32::MAX),
            (MAX_CONCURRENT_STREAMS, u32::MAX),
            (INITIAL_WINDOW_SIZE, 65_535),
            (MAX_FRAME_SIZE, (1 << 24) - 1),
        ],
    ];
    for (count, values) in values.iter().enumerate() {
        client.settings(values);
        client.is_acknowledged(count + 2);
    }
    client.get(1, "/");
    client.is_answered(1);
}

#[test]
fn section_6_5_2_an_unknown_setting_is_ignored() {
    let mut client = Frames::start();
    client.settings(&[(0xff, 1), (0, 7), (u16::MAX, u32::MAX)]);
    client.is_acknowledged(2);
    client.get(1, "/");
    client.is_answered(1);
}

#[test]
fn section_6_5_3_settings_are_applied_in_order_and_acknowledged_once() {
    let mut client = Frames::start();
    client.settings(&[(INITIAL_WINDOW_SIZE, 100), (INITIAL_WINDOW_SIZE, 1)]);
    client.is_acknowledged(2);
    client.get(1, "/");
    client.wait("DATA", |client| !client.stream(1).chunks.is_empty());
    client.lives();
    assert_eq!(client.stream(1).chunks, [1]);
    client.window(1, 100);
    assert_eq!(client.is_answered(1).text(), "hello");
}

#[test]
fn section_6_5_3_every_settings_frame_is_acknowledged() {
    let mut client = Frames::start();
    for count in 2..6 {
        client.settings(&[(MAX_CONCURRENT_STREAMS, 100)]);
        client.is_acknowledged(count);
    }
}

#[test]
fn section_6_5_3_an_acknowledgement_of_nothing_is_no_reason_to_answer() {
    // The RFC does not say what it is; ours is a PROTOCOL_ERROR where it does harm and nothing where it does none.
    let mut client = Frames::start();
    client.frame(SETTINGS, ACK, 0, []);
    assert!(!client.read() || !client.goaways().is_empty() || client.is_open(1), "{}", client.seen());
}

// --- 6.6 PUSH_PROMISE, 8.4 ---

#[test]
fn section_8_4_a_push_promise_from_a_client_is_a_protocol_error() {
    let mut client = Frames::start();
    client.get(1, "/held");
    client.frame(PUSH_PROMISE, END_HEADERS, 1, [2_u32.to_be_bytes().to_vec(), get("/")].concat());
    client.expect_goaway(PROTOCOL_ERROR);
}

// --- 6.7 PING ---

#[test]
fn section_6_7_a_ping_comes_back_with_what_it_said() {
    let mut client = Frames::start();
    client.frame(PING, 0, 0, *b"h2 test!");
    client.wait("the PING", |client| !client.pongs().is_empty());
    assert_eq!(client.pongs(), [*b"h2 test!"]);
}

#[test]
fn section_6_7_a_ping_that_acknowledges_is_not_answered() {
    let mut client = Frames::start();
    client.frame(PING, ACK, 0, *b"unasked!");
    client.frame(PING, 0, 0, *b"asked...");
    client.lives();
    assert_eq!(client.pongs()[0], *b"asked...", "{}", client.seen());
    assert_eq!(client.pongs().len(), 2);
}

#[test]
fn section_6_7_a_ping_on_a_stream_is_a_protocol_error() {
    let mut client = Frames::start();
    client.get(1, "/held");
    client.frame(PING, 0, 1, [0; 8]);
    client.expect_goaway(PROTOCOL_ERROR);
}

#[test]
fn section_6_7_a_ping_with_a_length_other_than_8_is_a_frame_size_error() {
    for length in [0, 6, 7, 9] {
        let mut client = Frames::start();
        client.frame(PING, 0, 0, vec![0; length]);
        client.expect_goaway(FRAME_SIZE_ERROR);
    }
}

// --- 6.8 GOAWAY ---

#[test]
fn section_6_8_goaway_on_a_stream_is_a_protocol_error() {
    let mut client = Frames::start();
    client.get(1, "/held");
    client.frame(GOAWAY, 0, 1, [0; 8]);
    client.expect_goaway(PROTOCOL_ERROR);
}

#[test]
fn section_6_8_what_is_under_way_when_the_client_says_goaway_is_answered() {
    let mut client = Frames::start();
    client.get(1, "/held");
    client.frame(GOAWAY, 0, 0, [&[0; 8][..], b"debug data"].concat());
    client.behind().release();
    assert_eq!(client.is_answered(1).text(), "hello");
}

#[test]
fn section_6_8_a_gateway_that_drains_says_goaway_in_two_steps_and_loses_nothing() {
    let mut client = Frames::start();
    client.get(1, "/held");
    client.lives();
    let behind = client.shared();
    let drains = std::thread::spawn(move || behind.gateway().drain(PATIENCE));
    client.wait("the first GOAWAY", |client| !client.goaways().is_empty());
    assert_eq!(client.goaways(), [Goaway { last: MOST, code: NO_ERROR }]);
    // Still on its way when the gateway said so: it has not seen us answer the PING behind its GOAWAY.
    client.get(3, "/");
    client.is_answered(3);
    client.wait("the second GOAWAY", |client| client.goaways().len() == 2);
    assert_eq!(client.goaways()[1], Goaway { last: 3, code: NO_ERROR });
    client.behind().release();
    client.is_answered(1);
    client.expect_end();
    assert!(drains.join().expect("no panic"), "the drain was not clean");
}

#[test]
fn section_6_8_goaway_too_short_for_its_fields_is_a_frame_size_error() {
    let mut client = Frames::start();
    client.frame(GOAWAY, 0, 0, [0; 7]);
    client.expect_goaway(FRAME_SIZE_ERROR);
}

// --- 6.9 WINDOW_UPDATE ---

#[test]
fn section_6_9_an_increment_of_0_on_the_connection_is_a_protocol_error() {
    let mut client = Frames::start();
    client.window(0, 0);
    client.expect_goaway(PROTOCOL_ERROR);
}

#[test]
fn section_6_9_an_increment_of_0_on_a_stream_is_a_protocol_error() {
    // The stream's by the RFC; an endpoint may let it be the connection's (§5.4).
    let mut client = Frames::start();
    client.get(1, "/held");
    client.window(1, 0);
    client.expect_reset_or_goaway(1, PROTOCOL_ERROR);
}

#[test]
fn section_6_9_window_update_with_a_length_other_than_4_is_a_frame_size_error() {
    for length in [0, 3, 5] {
        let mut client = Frames::start();
        client.frame(WINDOW_UPDATE, 0, 0, vec![1; length]);
        client.expect_goaway(FRAME_SIZE_ERROR);
    }
}

#[test]
fn section_6_9_the_reserved_bit_of_an_increment_is_ignored() {
    let mut client = Frames::start();
    client.window(0, 1 << 31 | 1);
    client.get(1, "/held");
    client.window(1, 1 << 31 | 1);
    client.lives();
    client.behind().release();
    client.is_answered(1);
}

#[test]
fn section_6_9_1_no_more_is_sent_than_the_window_of_the_stream_allows() {
    let mut client = Frames::with_settings(&[(INITIAL_WINDOW_SIZE, 1)]);
    client.get(1, "/");
    client.wait("DATA", |client| !client.stream(1).chunks.is_empty());
    client.lives();
    assert_eq!((client.stream(1).text().as_str(), client.is_open(1)), ("h", true));
    client.window(1, 3);
    client.wait("more DATA", |client| client.stream(1).body.len() >= 4);
    client.lives();
    assert_eq!((client.stream(1).text().as_str(), client.is_open(1)), ("hell", true));
    client.window(1, 1);
    assert_eq!(client.is_answered(1).text(), "hello");
}

#[test]
fn section_6_9_1_no_more_is_sent_than_the_window_of_the_connection_allows() {
    let mut client = Frames::with_settings(&[(INITIAL_WINDOW_SIZE, MOST)]);
    // 13,107 answers of five octets are the whole window of 65,535.
    client.get(1, "/bytes/65534");
    assert_eq!(client.is_answered(1).body.len(), 65_534);
    client.get(3, "/");
    client.wait("DATA", |client| !client.stream(3).body.is_empty());
    client.lives();
    assert_eq!((client.stream(3).text().as_str(), client.is_open(3)), ("h", true));
    client.window(0, 4);
    assert_eq!(client.is_answered(3).text(), "hello");
}

#[test]
fn section_6_9_1_a_window_of_the_connection_above_the_largest_is_a_flow_control_error() {
    let mut client = Frames::start();
    client.window(0, MOST);
    client.window(0, MOST);
    client.expect_goaway(FLOW_CONTROL_ERROR);
}

#[test]
fn section_6_9_1_a_window_of_a_stream_above_the_largest_is_a_flow_control_error_of_the_stream() {
    let mut client = Frames::start();
    client.get(1, "/held");
    client.window(1, MOST);
    client.window(1, MOST);
    client.expect_reset(1, FLOW_CONTROL_ERROR);
    client.get(3, "/");
    client.is_answered(3);
}

#[test]
fn section_6_9_1_data_beyond_the_window_of_a_stream_is_a_flow_control_error() {
    // The provider does not read, so nothing gives the window back. The stream's error or the connection's.
    let mut client = Frames::start();
    let window = client.setting(INITIAL_WINDOW_SIZE).unwrap_or(65_535);
    client.headers(
        1,
        END_HEADERS,
        block(&[(":method", "POST"), (":scheme", "http"), (":path", "/unread"), (":authority", "a")]),
    );
    // However much is buffered on the way, a client that never looks at its window meets it.
    let mut sent = 0;
    while client.goaways().is_empty() && client.stream(1).reset.is_none() && sent < 64 << 20 {
        for _ in 0..64 {
            client.data(1, 0, [b'a'; 16_384]);
        }
        sent += 64 * 16_384;
        if sent > window {
            client.frame(PING, 0, 0, sent.to_be_bytes().repeat(2));
            client.wait("a reaction", |client| !client.pongs().is_empty() || !client.goaways().is_empty());
        }
    }
    // Both: the stream, and the connection of a client that does not stop.
    client.wait("an error", |client| client.stream(1).reset.is_some() || !client.goaways().is_empty());
    let codes = client.stream(1).reset.into_iter().chain(client.goaways().iter().map(|goaway| goaway.code));
    assert!(codes.into_iter().all(|code| code == FLOW_CONTROL_ERROR), "{}", client.seen());
}

#[test]
fn section_6_9_2_a_change_of_the_initial_window_changes_the_windows_of_open_streams() {
    let mut client = Frames::with_settings(&[(INITIAL_WINDOW_SIZE, 0)]);
    client.get(1, "/");
    client.wait("a head", |client| !client.stream(1).heads.is_empty());
    client.lives();
    assert_eq!(client.stream(1).text(), "");
    client.settings(&[(INITIAL_WINDOW_SIZE, 1)]);
    client.wait("DATA", |client| !client.stream(1).chunks.is_empty());
    client.lives();
    assert_eq!(client.stream(1).text(), "h");
    client.settings(&[(INITIAL_WINDOW_SIZE, 5)]);
    assert_eq!(client.is_answered(1).text(), "hello");
}

#[test]
fn section_6_9_2_a_window_can_become_negative() {
    let mut client = Frames::with_settings(&[(INITIAL_WINDOW_SIZE, 3)]);
    client.get(1, "/");
    client.wait("DATA", |client| client.stream(1).body.len() == 3);
    // The window is 0 and becomes -2; three more make it 1.
    client.settings(&[(INITIAL_WINDOW_SIZE, 1)]);
    client.window(1, 2);
    client.lives();
    assert_eq!(client.stream(1).text(), "hel");
    client.window(1, 1);
    client.wait("DATA", |client| client.stream(1).body.len() == 4);
    client.lives();
    assert_eq!((client.stream(1).text().as_str(), client.is_open(1)), ("hell", true));
    client.window(1, 1);
    client.is_answered(1);
}

#[test]
fn section_6_9_2_an_initial_window_that_lets_a_streams_window_overflow_is_a_flow_control_error() {
    let mut client = Frames::start();
    client.get(1, "/held");
    client.window(1, MOST - 65_535);
    client.lives();
    client.settings(&[(INITIAL_WINDOW_SIZE, 65_536)]);
    client.expect_goaway(FLOW_CONTROL_ERROR);
}

// --- 6.10 CONTINUATION ---

#[test]
fn section_6_10_a_field_block_in_several_frames_is_taken() {
    let mut client = Frames::start();
    client.headers(1, END_STREAM, get("/"));
    client.frame(CONTINUATION, 0, 1, block(&[("x-one", "1")]));
    client.frame(CONTINUATION, 0, 1, []);
    client.frame(CONTINUATION, END_HEADERS, 1, block(&[("x-two", "2")]));
    client.is_answered(1);
}

#[test]
fn section_6_10_a_field_block_may_be_cut_anywhere() {
    let mut client = Frames::start();
    let block = get("/");
    for (number, cut) in (1..block.len()).enumerate() {
        let stream = u32::try_from(number).expect("a short block") * 2 + 1;
        client.headers(stream, END_STREAM, &block[..cut]);
        client.frame(CONTINUATION, END_HEADERS, stream, &block[cut..]);
        client.is_answered(stream);
    }
}

#[test]
fn section_6_10_headers_without_a_block_may_be_followed_by_it() {
    let mut client = Frames::start();
    client.headers(1, END_STREAM, []);
    client.frame(CONTINUATION, END_HEADERS, 1, get("/"));
    client.is_answered(1);
}

#[test]
fn section_6_10_any_other_frame_inside_a_field_block_is_a_protocol_error() {
    let others = [
        frame(DATA, END_STREAM, 1, "hello"),
        frame(HEADERS, END_HEADERS, 1, get("/")),
        frame(RST_STREAM, 0, 1, CANCEL.to_be_bytes()),
        frame(SETTINGS, 0, 0, []),
        frame(PING, 0, 0, [0; 8]),
        frame(WINDOW_UPDATE, 0, 0, 1_u32.to_be_bytes()),
        frame(CONTINUATION, END_HEADERS, 3, []),
    ];
    for other in others {
        let mut client = Frames::start();
        client.headers(1, 0, get("/"));
        client.frame(CONTINUATION, 0, 1, block(&[("x-one", "1")]));
        client.send(&other);
        client.expect_goaway(PROTOCOL_ERROR);
    }
}

#[test]
fn section_6_10_continuation_on_stream_0_is_a_protocol_error() {
    let mut client = Frames::start();
    client.headers(1, END_STREAM, get("/"));
    client.frame(CONTINUATION, END_HEADERS, 0, []);
    client.expect_goaway(PROTOCOL_ERROR);
}

#[test]
fn section_6_10_continuation_behind_the_end_of_a_field_block_is_a_protocol_error() {
    let mut client = Frames::start();
    client.headers(1, END_HEADERS, get("/"));
    client.frame(CONTINUATION, END_HEADERS, 1, block(&[("x", "1")]));
    client.expect_goaway(PROTOCOL_ERROR);
    let mut client = Frames::start();
    client.headers(1, 0, get("/"));
    client.frame(CONTINUATION, END_HEADERS, 1, block(&[("x", "1")]));
    client.frame(CONTINUATION, END_HEADERS, 1, block(&[("y", "1")]));
    client.expect_goaway(PROTOCOL_ERROR);
}

#[test]
fn section_6_10_continuation_behind_data_is_a_protocol_error() {
    let mut client = Frames::start();
    client.headers(1, 0, get("/"));
    client.data(1, 0, "hello");
    client.frame(CONTINUATION, END_HEADERS, 1, block(&[("x", "1")]));
    client.expect_goaway(PROTOCOL_ERROR);
}
