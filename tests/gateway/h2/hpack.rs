//! RFC 7541: field compression.

use super::compression::*;
use super::frames::*;

/// A GET in the shortest form: method, scheme and path from the static table.
const GET: &[u8] = b"\x82\x86\x84";

/// The request with this block on stream 1 is a connection error.
fn is_a_compression_error(block: &[u8]) {
    let mut client = Frames::start();
    client.headers(1, END_STREAM | END_HEADERS, block);
    client.expect_undecodable();
}

/// The request with this block, its authority added, is answered.
fn is_taken(client: &mut Frames, stream: u32, block: &[u8]) {
    let authority = [integer(WITHOUT_INDEXING, 4, 1), string("a.example")].concat();
    client.headers(stream, END_STREAM | END_HEADERS, [GET, &authority, block].concat());
    client.is_answered(stream);
}

// --- 2.3.3 ---

#[test]
fn section_2_3_3_an_indexed_field_with_an_index_beyond_the_tables_is_a_decoding_error() {
    is_a_compression_error(&[GET, &indexed(70)].concat());
    is_a_compression_error(&[GET, &indexed(62)].concat());
    is_a_compression_error(&[GET, &indexed(1 << 30)].concat());
}

#[test]
fn section_2_3_3_a_literal_whose_name_has_an_index_beyond_the_tables_is_a_decoding_error() {
    is_a_compression_error(&[GET, &integer(INCREMENTAL, 6, 70), &string("value")].concat());
    is_a_compression_error(&[GET, &integer(WITHOUT_INDEXING, 4, 70), &string("value")].concat());
    is_a_compression_error(&[GET, &integer(NEVER_INDEXED, 4, 62), &string("value")].concat());
}

// --- 2.3.2 and 4: the dynamic table ---

#[test]
fn section_2_3_2_what_one_request_adds_to_the_table_the_next_one_can_use() {
    let mut client = Frames::start();
    is_taken(&mut client, 1, &literal_indexed("x-kept", "one"));
    is_taken(&mut client, 3, &[literal_indexed("x-kept", "two"), indexed(63)].concat());
    is_taken(&mut client, 5, &[indexed(62), indexed(63)].concat());
}

#[test]
fn section_4_2_a_table_size_update_behind_a_field_is_a_decoding_error() {
    is_a_compression_error(&[GET, &table_size(1)].concat());
}

#[test]
fn section_4_2_table_size_updates_before_the_first_field_are_taken() {
    let mut client = Frames::start();
    let block = [table_size(128), table_size(4096), get("/")].concat();
    client.headers(1, END_STREAM | END_HEADERS, block);
    client.is_answered(1);
}

#[test]
fn section_4_3_entries_are_evicted_when_the_table_shrinks() {
    let mut client = Frames::start();
    is_taken(&mut client, 1, &literal_indexed("x-kept", "one"));
    client.headers(3, END_STREAM | END_HEADERS, [table_size(0), table_size(4096), get("/"), indexed(62)].concat());
    client.expect_undecodable();
}

#[test]
fn section_4_4_a_field_larger_than_the_table_empties_it_and_is_no_error() {
    let mut client = Frames::start();
    is_taken(&mut client, 1, &literal_indexed("x-kept", "one"));
    is_taken(&mut client, 3, &literal_indexed("x-large", "a".repeat(5000)));
    client.headers(5, END_STREAM | END_HEADERS, [get("/"), indexed(62)].concat());
    client.expect_undecodable();
}

#[test]
fn section_4_2_our_encoder_keeps_to_the_table_size_that_the_peer_allows() {
    // Its answers are read by a decoder that has no table and refuses every entry.
    let mut client = Frames::with_settings(&[(HEADER_TABLE_SIZE, 0)]);
    client.allow_table(0);
    for stream in [1, 3, 5] {
        client.get(stream, "/");
        client.is_answered(stream);
    }
}

// --- 5.1 integers ---

#[test]
fn section_5_1_an_integer_that_never_ends_is_a_decoding_error() {
    is_a_compression_error(&[GET, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"].concat());
    is_a_compression_error(&[GET, b"\x00\x7f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"].concat());
}

#[test]
fn section_5_1_an_integer_may_be_written_longer_than_it_need_be() {
    let mut client = Frames::start();
    // The length 127 as 127 and then nothing more, in two octets where one is enough.
    let value = [b"\x7f\x80\x00".to_vec(), vec![b'a'; 127]].concat();
    is_taken(&mut client, 1, &[vec![0], string("x"), value].concat());
}

// --- 5.2 strings ---

#[test]
fn section_5_2_huffman_padding_of_more_than_seven_bits_is_a_decoding_error() {
    // `a` is 00011; then eleven bits of one.
    is_a_compression_error(&[GET, b"\x00\x01x", b"\x82\x1f\xff"].concat());
}

#[test]
fn section_5_2_huffman_padding_that_is_not_the_beginning_of_eos_is_a_decoding_error() {
    is_a_compression_error(&[GET, b"\x00\x01x", b"\x81\x18"].concat());
}

#[test]
fn section_5_2_eos_inside_a_huffman_string_is_a_decoding_error() {
    is_a_compression_error(&[GET, b"\x00\x01x", b"\x84\xff\xff\xff\xff"].concat());
    is_a_compression_error(&[GET, b"\x00\x01x", b"\x85\x1f\xff\xff\xff\xf8"].concat());
}

#[test]
fn section_5_2_a_string_longer_than_the_block_is_a_decoding_error() {
    is_a_compression_error(&[GET, b"\x00\x05x"].concat());
    is_a_compression_error(&[GET, b"\x00\x01x\x0aabc"].concat());
}

// --- 6 representations ---

#[test]
fn section_6_1_an_indexed_field_with_index_0_is_a_decoding_error() {
    is_a_compression_error(&[GET, &indexed(0)].concat());
}

#[test]
fn section_6_1_an_indexed_field_is_taken() {
    // accept-encoding: gzip, deflate
    is_taken(&mut Frames::start(), 1, &indexed(16));
}

#[test]
fn section_6_2_1_a_literal_that_enters_the_table_is_taken_in_each_form() {
    is_taken_in_each_form(INCREMENTAL, 6);
}

#[test]
fn section_6_2_2_a_literal_that_does_not_enter_the_table_is_taken_in_each_form() {
    is_taken_in_each_form(WITHOUT_INDEXING, 4);
}

#[test]
fn section_6_2_3_a_literal_that_is_never_indexed_is_taken_in_each_form() {
    is_taken_in_each_form(NEVER_INDEXED, 4);
}

/// A literal with these first bits: its name by index or written out, with and without the Huffman code.
fn is_taken_in_each_form(pattern: u8, bits: u32) {
    const USER_AGENT: usize = 58;
    let mut client = Frames::start();
    is_taken(&mut client, 1, &[integer(pattern, bits, USER_AGENT), string("sluice")].concat());
    is_taken(&mut client, 3, &[integer(pattern, bits, USER_AGENT), huffman_string("sluice")].concat());
    is_taken(&mut client, 5, &[vec![pattern], string("x-name"), string("value")].concat());
    is_taken(&mut client, 7, &[vec![pattern], huffman_string("x-name"), huffman_string("value")].concat());
}

#[test]
fn section_6_3_a_table_size_beyond_what_our_settings_allow_is_a_decoding_error() {
    let mut client = Frames::start();
    let allowed = client.setting(HEADER_TABLE_SIZE).unwrap_or(4096);
    let beyond = table_size(usize::try_from(allowed).expect("32 bits") + 1);
    client.headers(1, END_STREAM | END_HEADERS, [beyond, get("/")].concat());
    client.expect_undecodable();
}

#[test]
fn section_6_3_a_table_size_update_is_taken() {
    let mut client = Frames::start();
    for (stream, size) in [(1, 4096), (3, 0), (5, 1), (7, 4095)] {
        client.headers(stream, END_STREAM | END_HEADERS, [table_size(size), get("/")].concat());
        client.is_answered(stream);
    }
}
