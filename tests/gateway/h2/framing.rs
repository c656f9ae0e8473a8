//! RFC 9113 §4: frames, their size, field blocks.

use super::compression::{block, indexed, literal, literal_indexed};
use super::frames::*;

#[test]
fn section_4_1_a_frame_of_an_unknown_type_is_ignored() {
    let mut client = Frames::start();
    for (kind, stream) in [(0x16, 0), (0xff, 0), (0x16, 1), (0x0a, 7)] {
        client.frame(kind, 0xff, stream, "what it says nobody knows");
    }
    client.lives();
    client.get(1, "/");
    client.is_answered(1);
}

#[test]
fn section_4_1_flags_that_a_type_does_not_define_are_ignored() {
    let mut client = Frames::start();
    client.frame(PING, !ACK, 0, *b"flagged!");
    client.wait("the PING with undefined flags", |client| client.pongs().contains(b"flagged!"));
    client.headers(1, !(PADDED | WITH_PRIORITY), get("/"));
    client.is_answered(1);
    client.post(3);
    client.data(3, !PADDED, "hello");
    client.is_answered(3);
}

#[test]
fn section_4_1_the_reserved_bit_of_a_stream_identifier_is_ignored() {
    let mut client = Frames::start();
    client.frame(PING, 0, 1 << 31, *b"reserved");
    client.wait("the PING with the reserved bit", |client| client.pongs().contains(b"reserved"));
    client.headers(1 << 31 | 1, END_STREAM | END_HEADERS, get("/"));
    client.is_answered(1);
}

#[test]
fn section_4_2_a_frame_of_16384_octets_is_taken() {
    let mut client = Frames::start();
    client.post(1);
    client.data(1, END_STREAM, [b'a'; 16_384]);
    client.is_answered(1);
    client.headers(3, END_STREAM | END_HEADERS, large_get(16_384));
    client.is_answered(3);
}

#[test]
fn section_4_2_data_larger_than_our_max_frame_size_is_a_frame_size_error() {
    // A stream error would be permitted too; ours is the connection's.
    let mut client = Frames::start();
    let most = client.setting(MAX_FRAME_SIZE).unwrap_or(16_384);
    client.post(1);
    client.data(1, END_STREAM, vec![0; usize::try_from(most).expect("24 bits") + 1]);
    client.expect_goaway(FRAME_SIZE_ERROR);
}

#[test]
fn section_4_2_headers_larger_than_our_max_frame_size_are_a_frame_size_error() {
    // They change the state of the whole connection, and so must their error.
    let mut client = Frames::start();
    let most = client.setting(MAX_FRAME_SIZE).unwrap_or(16_384);
    client.headers(1, END_STREAM | END_HEADERS, large_get(usize::try_from(most).expect("24 bits") + 1));
    client.expect_goaway(FRAME_SIZE_ERROR);
}

#[test]
fn section_4_2_settings_larger_than_our_max_frame_size_are_a_frame_size_error() {
    let mut client = Frames::start();
    client.frame(SETTINGS, 0, 0, settings(&[(INITIAL_WINDOW_SIZE, 65_535)]).repeat(3000));
    client.expect_goaway(FRAME_SIZE_ERROR);
}

#[test]
fn section_4_3_a_field_block_that_cannot_be_decoded_is_a_compression_error() {
    let mut client = Frames::start();
    // A literal whose value is said to be longer than the block.
    client.headers(1, END_STREAM | END_HEADERS, [get("/"), b"\x00\x01a\x7f\xff\xff\xff\x03".to_vec()].concat());
    client.expect_undecodable();
}

#[test]
fn section_4_3_a_field_block_that_breaks_off_is_a_compression_error() {
    let first = Frames::start();
    for length in (1..get("/").len()).filter(|length| !is_whole(*length)) {
        let mut client = first.another();
        client.headers(1, END_STREAM | END_HEADERS, &get("/")[..length]);
        client.expect_undecodable();
    }
}

#[test]
fn section_4_3_a_field_block_of_a_stream_that_is_refused_still_changes_the_table() {
    // The malformed request adds an entry that the next request uses.
    let mut client = Frames::start();
    let entry = literal_indexed("x-kept", "in the table");
    client.headers(1, END_STREAM | END_HEADERS, [get("/"), entry, literal("connection", "close")].concat());
    client.expect_malformed(1);
    client.headers(3, END_STREAM | END_HEADERS, [get("/"), indexed(62)].concat());
    client.is_answered(3);
}

#[test]
fn section_4_3_a_priority_frame_inside_a_field_block_is_a_protocol_error() {
    let mut client = Frames::start();
    client.headers(1, END_STREAM, get("/"));
    client.priority(1, 0, 15);
    client.frame(CONTINUATION, END_HEADERS, 1, block(&[("x-late", "1")]));
    client.expect_goaway(PROTOCOL_ERROR);
}

#[test]
fn section_4_3_headers_of_another_stream_inside_a_field_block_are_a_protocol_error() {
    let mut client = Frames::start();
    client.headers(1, END_STREAM, get("/"));
    client.headers(3, END_STREAM | END_HEADERS, get("/"));
    client.expect_goaway(PROTOCOL_ERROR);
}

/// A GET whose block has this many octets.
fn large_get(length: usize) -> Vec<u8> {
    let rest = length - get("/").len();
    // Three octets of the field are its name and the type, four the length of its value.
    let whole = [get("/"), literal("x", vec![b'a'; rest - 6])].concat();
    assert_eq!(whole.len(), length);
    whole
}

/// Whether the first octets of a GET's block, this many of them, are whole fields.
fn is_whole(length: usize) -> bool {
    let fields = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a.example")];
    (1..=fields.len()).any(|count| block(&fields[..count]).len() == length)
}
