//! RFC 9113 §5: the states of a stream, identifiers, concurrency, errors, extensions.

use super::compression::block;
use super::frames::*;

// --- 5.1 states: idle ---

#[test]
fn section_5_1_data_on_an_idle_stream_is_a_protocol_error() {
    let mut client = Frames::start();
    client.data(1, END_STREAM, "hello");
    client.expect_goaway(PROTOCOL_ERROR);
}

#[test]
fn section_5_1_rst_stream_on_an_idle_stream_is_a_protocol_error() {
    let mut client = Frames::start();
    client.reset(1, CANCEL);
    client.expect_goaway(PROTOCOL_ERROR);
}

#[test]
fn section_5_1_window_update_on_an_idle_stream_is_a_protocol_error() {
    let mut client = Frames::start();
    client.window(1, 100);
    client.expect_goaway(PROTOCOL_ERROR);
}

#[test]
fn section_5_1_continuation_on_an_idle_stream_is_a_protocol_error() {
    let mut client = Frames::start();
    client.frame(CONTINUATION, END_HEADERS, 1, get("/"));
    client.expect_goaway(PROTOCOL_ERROR);
}

#[test]
fn section_5_1_data_on_an_idle_stream_of_the_servers_is_a_protocol_error() {
    let mut client = Frames::start();
    client.data(2, END_STREAM, "hello");
    client.expect_goaway(PROTOCOL_ERROR);
}

#[test]
fn section_5_1_priority_on_an_idle_stream_is_taken() {
    let mut client = Frames::start();
    client.priority(1, 0, 255);
    client.priority(2, 0, 255);
    client.get(1, "/");
    client.is_answered(1);
}

// --- 5.1 states: half-closed (remote) ---
//
// STREAM_CLOSED is what the RFC names for frames behind the end of a request. The library takes some of them for broken
// trailers and ends the connection with PROTOCOL_ERROR, which costs a client that breaks the protocol more, and nobody else
// anything. Which of the two is pinned here for each.

#[test]
fn section_5_1_data_behind_the_end_of_a_request_ends_the_connection() {
    let mut client = Frames::start();
    client.get(1, "/held");
    client.data(1, END_STREAM, "more");
    client.expect_goaway(PROTOCOL_ERROR);
}

#[test]
fn section_5_1_headers_behind_the_end_of_a_request_end_the_connection() {
    let mut client = Frames::start();
    client.get(1, "/held");
    client.get(1, "/held");
    client.expect_goaway(PROTOCOL_ERROR);
}

#[test]
fn section_5_1_continuation_behind_the_end_of_a_request_is_a_protocol_error() {
    // STREAM_CLOSED would be permitted too; that no field block is open is what we see first.
    let mut client = Frames::start();
    client.get(1, "/held");
    client.frame(CONTINUATION, END_HEADERS, 1, block(&[("x", "1")]));
    client.expect_goaway(PROTOCOL_ERROR);
}

#[test]
fn section_5_1_window_update_on_a_half_closed_stream_is_taken() {
    let mut client = Frames::start();
    client.get(1, "/held");
    client.window(1, 100);
    client.lives();
    client.behind().release();
    client.is_answered(1);
}

#[test]
fn section_5_1_priority_on_a_half_closed_stream_is_taken() {
    let mut client = Frames::start();
    client.get(1, "/held");
    client.priority(1, 0, 10);
    client.lives();
    client.behind().release();
    client.is_answered(1);
}

#[test]
fn section_5_1_rst_stream_on_a_half_closed_stream_is_taken() {
    let mut client = Frames::start();
    client.get(1, "/held");
    client.reset(1, CANCEL);
    client.lives();
    client.get(3, "/");
    client.is_answered(3);
    assert!(client.is_open(1), "an answer on a stream that was reset: {}", client.seen());
}

// --- 5.1 states: closed ---

#[test]
fn section_5_1_data_behind_rst_stream_is_stream_closed() {
    let mut client = Frames::start();
    client.post(1);
    client.reset(1, CANCEL);
    client.data(1, END_STREAM, "hello");
    client.expect_reset_or_goaway(1, STREAM_CLOSED);
}

#[test]
fn section_5_1_headers_behind_rst_stream_end_the_connection() {
    let mut client = Frames::start();
    client.post(1);
    client.reset(1, CANCEL);
    client.get(1, "/");
    client.expect_goaway(PROTOCOL_ERROR);
}

#[test]
fn section_5_1_continuation_behind_rst_stream_is_a_protocol_error() {
    let mut client = Frames::start();
    client.post(1);
    client.reset(1, CANCEL);
    client.frame(CONTINUATION, END_HEADERS, 1, block(&[("x", "1")]));
    client.expect_goaway(PROTOCOL_ERROR);
}

#[test]
fn section_5_1_data_on_a_stream_that_both_have_ended_is_stream_closed() {
    let mut client = Frames::start();
    client.get(1, "/");
    client.is_answered(1);
    client.data(1, END_STREAM, "more");
    client.expect_reset_or_goaway(1, STREAM_CLOSED);
}

#[test]
fn section_5_1_headers_on_a_stream_that_both_have_ended_end_the_connection() {
    // RFC 9113 §5.1.1 lets an identifier that is not above all others be a PROTOCOL_ERROR.
    let mut client = Frames::start();
    client.get(1, "/");
    client.is_answered(1);
    client.get(1, "/");
    client.expect_goaway(PROTOCOL_ERROR);
    assert_eq!(client.behind().begun(), 1);
}

#[test]
fn section_5_1_continuation_on_a_stream_that_both_have_ended_is_a_protocol_error() {
    let mut client = Frames::start();
    client.get(1, "/");
    client.is_answered(1);
    client.frame(CONTINUATION, END_HEADERS, 1, block(&[("x", "1")]));
    client.expect_goaway(PROTOCOL_ERROR);
}

#[test]
fn section_5_1_priority_window_update_and_rst_stream_on_a_closed_stream_are_taken() {
    // They may have been under way when the answer ended.
    let mut client = Frames::start();
    client.get(1, "/");
    client.is_answered(1);
    client.priority(1, 0, 10);
    client.window(1, 100);
    client.reset(1, CANCEL);
    client.lives();
    client.get(3, "/");
    client.is_answered(3);
}

#[test]
fn section_5_1_frames_under_way_on_a_stream_that_the_server_reset_are_ignored() {
    let mut client = Frames::start();
    client.post_with(1, "connection", "close");
    client.data(1, 0, "under way");
    client.window(1, 100);
    client.headers(1, END_STREAM | END_HEADERS, block(&[("x-trailer", "1")]));
    client.expect_malformed(1);
    client.get(3, "/");
    client.is_answered(3);
}

// --- 5.1.1 identifiers ---

#[test]
fn section_5_1_1_a_request_on_an_even_stream_is_a_protocol_error() {
    let mut client = Frames::start();
    client.get(2, "/");
    client.expect_goaway(PROTOCOL_ERROR);
}

#[test]
fn section_5_1_1_a_request_on_a_stream_below_one_used_before_is_a_connection_error() {
    // The identifiers between were closed by the use of a larger one: PROTOCOL_ERROR by §5.1.1, STREAM_CLOSED by §5.1.
    // Ours is PROTOCOL_ERROR.
    let mut client = Frames::start();
    client.get(5, "/");
    client.is_answered(5);
    client.get(3, "/");
    client.expect_goaway(PROTOCOL_ERROR);
    assert_eq!(client.behind().begun(), 1);
}

#[test]
fn section_5_1_1_streams_may_be_left_out() {
    let mut client = Frames::start();
    client.get(1, "/");
    client.is_answered(1);
    client.get(1001, "/");
    client.is_answered(1001);
}

#[test]
fn section_5_1_1_the_last_identifier_of_all_can_be_used() {
    let mut client = Frames::start();
    client.get(MOST, "/");
    client.is_answered(MOST);
}

// --- 5.1.2 concurrency ---

#[test]
fn section_5_1_2_a_stream_beyond_the_limit_is_refused() {
    // PROTOCOL_ERROR would be permitted too; REFUSED_STREAM tells the client that it may try again.
    let mut client = Frames::start();
    let most = client.setting(MAX_CONCURRENT_STREAMS).expect("a limit");
    for number in 0..most {
        client.get(number * 2 + 1, "/held");
    }
    client.lives();
    client.get(most * 2 + 1, "/");
    client.expect_reset(most * 2 + 1, REFUSED_STREAM);
    client.behind().release();
    for number in 0..most {
        client.is_answered(number * 2 + 1);
    }
    client.get(most * 2 + 3, "/");
    client.is_answered(most * 2 + 3);
}

// --- 5.3 priority ---

#[test]
fn section_5_3_2_priority_signals_are_read_and_ignored() {
    let mut client = Frames::start();
    client.headers(1, END_STREAM | END_HEADERS | WITH_PRIORITY, [b"\x80\x00\x00\x0b\xff".to_vec(), get("/")].concat());
    client.is_answered(1);
    for (stream, on, weight) in [(3, 0, 0), (3, 0, 255), (5, 3, 15), (7, 1 << 31 | 5, 15), (9, 7, 0)] {
        client.priority(stream, on, weight);
    }
    client.lives();
    client.get(3, "/");
    client.is_answered(3);
}

#[test]
fn section_5_3_a_stream_that_depends_on_itself_is_a_protocol_error_of_that_stream() {
    // RFC 7540 §5.3.1; RFC 9113 took it away and permits it to be ignored as well.
    let mut client = Frames::start();
    client.headers(1, END_STREAM | END_HEADERS | WITH_PRIORITY, [b"\x00\x00\x00\x01\xff".to_vec(), get("/")].concat());
    client.expect_malformed(1);
    client.get(3, "/held");
    client.priority(3, 3, 10);
    client.expect_reset(3, PROTOCOL_ERROR);
}

// --- 5.4 errors ---

#[test]
fn section_5_4_1_goaway_names_the_last_stream_that_was_taken_and_the_connection_ends() {
    let mut client = Frames::start();
    client.get(1, "/");
    client.is_answered(1);
    client.get(5, "/held");
    client.lives();
    client.frame(PING, 0, 0, b"short");
    let goaway = client.expect_goaway(FRAME_SIZE_ERROR);
    assert_eq!(goaway.last, 5);
}

#[test]
fn section_5_4_2_rst_stream_is_not_answered_with_rst_stream() {
    let mut client = Frames::start();
    client.get(1, "/held");
    client.reset(1, PROTOCOL_ERROR);
    client.lives();
    client.get(3, "/");
    client.is_answered(3);
    assert_eq!(client.stream(1).reset, None, "{}", client.seen());
}

// --- 5.5 extensions ---

#[test]
fn section_5_5_an_unknown_frame_inside_a_field_block_is_a_protocol_error() {
    let mut client = Frames::start();
    client.headers(1, END_STREAM, get("/"));
    client.frame(0x16, 0, 1, "unknown");
    client.frame(CONTINUATION, END_HEADERS, 1, block(&[("x", "1")]));
    client.expect_goaway(PROTOCOL_ERROR);
}

#[test]
fn section_5_5_an_unknown_frame_between_frames_of_a_stream_is_ignored() {
    let mut client = Frames::start();
    client.post(1);
    client.frame(0x16, 0xff, 1, "unknown");
    client.data(1, 0, "hel");
    client.frame(0xf0, 0, 1, "");
    client.data(1, END_STREAM, "lo");
    client.is_answered(1);
}

#[test]
fn section_5_5_and_rfc_9218_a_priority_update_is_tolerated() {
    let mut client = Frames::start();
    client.frame(PRIORITY_UPDATE, 0, 0, [&1_u32.to_be_bytes()[..], b"u=1, i"].concat());
    client.get(1, "/");
    client.is_answered(1);
    client.get_with(3, "priority", "u=0, i");
    client.is_answered(3);
}
