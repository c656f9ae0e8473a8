//! The other direction: a provider that speaks HTTP/2 and breaks it. Its client gets 502, or an answer that visibly breaks
//! off where its head was passed on already; towards the provider the error is the one that the RFC demands.

use super::compression::{block, literal};
use super::frames::*;
use crate::wire::{Message, Wire};
use crate::world::{Gateway, Provider};

/// A client that has asked, and the provider that its request came to.
#[derive(Debug)]
struct Asked {
    client: Wire,
    provider: Frames,
    stream: u32,
    _gateway: Gateway,
    alpha: Provider,
}

const OK: (&str, &str) = (":status", "200");

impl Asked {
    /// By GET.
    fn for_get() -> Self {
        Asked::by("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", &[])
    }

    /// By this request of HTTP/1, before a provider with these SETTINGS.
    fn by(request: &str, values: &[(u16, u32)]) -> Self {
        let alpha = Provider::by_hand();
        let gateway = Gateway::start(H2C, &[("alpha", alpha.address())]);
        let mut client = gateway.connect();
        client.send(request);
        let mut provider = Frames::accept(alpha.accept(), values);
        let stream = provider.requested(0);
        Asked { client, provider, stream, _gateway: gateway, alpha }
    }

    /// The provider answers with a head.
    fn head(&mut self, flags: u8, fields: &[(&str, &str)]) {
        self.provider.headers(self.stream, END_HEADERS | flags, block(fields));
    }

    /// The client gets 502.
    fn is_bad_gateway(&mut self) -> Message {
        let answer = self.client.answer();
        assert_eq!(answer.status(), 502, "{}", answer.text());
        answer
    }

    /// The stream fails, and the client gets 502.
    fn is_reset(&mut self, code: u32) {
        self.provider.expect_reset(self.stream, code);
        self.is_bad_gateway();
    }

    /// The connection fails, and the client gets 502.
    fn fails(&mut self, code: u32) {
        self.provider.expect_goaway(code);
        self.is_bad_gateway();
    }

    /// The client's answer breaks off behind this much of its body, or was never begun.
    fn breaks_off(&mut self) {
        let rest = String::from_utf8_lossy(&self.client.rest()).into_owned();
        let (head, body) = rest.split_once("\r\n\r\n").expect("a head");
        if head.starts_with("HTTP/1.1 502 ") {
            return;
        }
        assert!(head.starts_with("HTTP/1.1 200 "), "{rest}");
        let length =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned));
        match length {
            Some(length) => assert!(body.len() < length.parse().expect("a length"), "a whole answer: {rest}"),
            None => assert!(!body.ends_with("0\r\n\r\n"), "a whole answer: {rest}"),
        }
    }
}

/// An answer whose head is this is malformed: its client gets 502, and a stream that has not ended by itself is reset.
fn is_malformed(fields: &[(&str, &str)]) {
    let mut asked = Asked::for_get();
    asked.head(END_STREAM, fields);
    asked.is_bad_gateway();
    let mut asked = Asked::for_get();
    asked.head(0, fields);
    asked.is_reset(PROTOCOL_ERROR);
}

/// An answer whose head is this is malformed in a way that the field decoder sees: the connection fails (§5.4.1).
fn fails_the_connection(fields: &[(&str, &str)]) {
    let mut asked = Asked::for_get();
    asked.head(END_STREAM, fields);
    asked.fails(PROTOCOL_ERROR);
}

// --- what we say ---

#[test]
fn section_3_4_and_8_3_1_a_request_of_ours_is_well_formed() {
    let request = "POST /path?query HTTP/1.1\r\nHost: a.example\r\nConnection: X-Hop\r\nX-Hop: 1\r\nX-Test: Kept\r\n\
                   Cookie: a=1; b=2\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 5d41\r\n\r\n";
    let mut asked = Asked::by(request, &[]);
    let stream = asked.stream;
    asked.provider.wait("the request", |provider| provider.stream(stream).ended);
    let request = asked.provider.stream(stream);
    let fields = &request.heads[0];
    let pseudo: Vec<&str> =
        fields.iter().map(|(name, _)| name.as_str()).take_while(|name| name.starts_with(':')).collect();
    assert_eq!(pseudo.len(), 4, "{fields:?}");
    let value = |name: &str| fields.iter().find(|(candidate, _)| candidate == name).map(|(_, value)| value.as_str());
    assert_eq!((value(":method"), value(":scheme"), value(":path")), (Some("POST"), Some("http"), Some("/path?query")));
    assert_eq!(value("x-test"), Some("Kept"));
    for name in ["host", "connection", "x-hop", "transfer-encoding", "upgrade", "keep-alive"] {
        assert_eq!(value(name), None, "{fields:?}");
    }
    assert!(fields[4..].iter().all(|(name, _)| !name.starts_with(':') && *name == name.to_lowercase()));
    assert_eq!(request.text(), "hello");
    assert_eq!(request.trailers(), [("x-sum".to_owned(), "5d41".to_owned())]);
}

#[test]
fn section_5_1_1_our_streams_are_odd_and_grow() {
    let mut asked = Asked::for_get();
    asked.head(END_STREAM, &[OK]);
    assert_eq!(asked.client.answer().status(), 200);
    asked.client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    let next = asked.provider.requested(1);
    assert!(asked.stream % 2 == 1 && next == asked.stream + 2, "{} and {next}", asked.stream);
}

#[test]
fn section_6_5_2_push_is_disabled_in_our_settings() {
    let asked = Asked::for_get();
    assert_eq!(asked.provider.setting(ENABLE_PUSH), Some(0));
}

#[test]
fn section_6_9_our_body_keeps_to_the_providers_windows_and_frame_size() {
    let request = format!("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 20000\r\n\r\n{}", "a".repeat(20_000));
    let mut asked = Asked::by(&request, &[(INITIAL_WINDOW_SIZE, 10)]);
    let stream = asked.stream;
    asked.provider.wait("DATA", |provider| !provider.stream(stream).body.is_empty());
    asked.provider.lives();
    assert_eq!(asked.provider.stream(stream).body.len(), 10);
    asked.provider.window(stream, 20_000);
    asked.provider.wait("the body", |provider| provider.stream(stream).ended);
    let request = asked.provider.stream(stream);
    assert_eq!(request.body.len(), 20_000);
    assert!(request.chunks.iter().all(|chunk| *chunk <= 16_384), "{:?}", request.chunks);
}

#[test]
fn section_6_7_a_ping_of_the_providers_comes_back() {
    let mut asked = Asked::for_get();
    asked.provider.lives();
    asked.head(END_STREAM, &[OK]);
    assert_eq!(asked.client.answer().status(), 200);
}

// --- answers that are whole ---

#[test]
fn section_8_1_an_answer_in_frames_comes_to_the_client_of_http_1() {
    let mut asked = Asked::for_get();
    asked.head(0, &[(":status", "103"), ("link", "</a>")]);
    asked.head(0, &[OK, ("content-length", "5"), ("x-test", "Kept")]);
    asked.provider.data(asked.stream, 0, "hel");
    asked.provider.data(asked.stream, PADDED, b"\x02lo\0\0");
    asked.provider.data(asked.stream, END_STREAM, "");
    assert!(asked.client.head().line.contains(" 103 "));
    let answer = asked.client.answer();
    assert_eq!((answer.status(), answer.text().as_str(), answer.value("x-test")), (200, "hello", Some("Kept")));
}

#[test]
fn section_4_1_and_5_5_unknown_frames_and_priorities_of_the_provider_are_ignored() {
    let mut asked = Asked::for_get();
    asked.provider.frame(0x16, 0xff, asked.stream, "unknown");
    asked.provider.priority(asked.stream, 0, 1);
    asked.provider.frame(PRIORITY_UPDATE, 0, 0, b"\0\0\0\x01u=1");
    asked.head(END_STREAM, &[OK]);
    assert_eq!(asked.client.answer().status(), 200);
}

// --- malformed answers ---

#[test]
fn section_8_3_2_an_answer_without_a_status_is_malformed() {
    is_malformed(&[("content-length", "0")]);
}

#[test]
fn section_8_3_2_a_status_that_is_none_or_comes_twice_is_malformed() {
    is_malformed(&[OK, OK]);
    for status in ["", "abc", "99", "1000", "2 0"] {
        fails_the_connection(&[(":status", status)]);
    }
}

#[test]
fn section_8_3_pseudo_fields_that_are_unknown_late_or_of_requests_are_malformed() {
    is_malformed(&[("x-test", "1"), OK]);
    fails_the_connection(&[OK, (":unknown", "1")]);
}

#[test]
fn section_8_3_pseudo_fields_of_requests_in_an_answer_go_no_further() {
    // They too are malformed. The library takes them off and tells nobody, so that all we see to is that they end here.
    let mut asked = Asked::for_get();
    asked.head(END_STREAM, &[OK, (":path", "/admin"), (":method", "PUT"), ("x-test", "1")]);
    let answer = asked.client.answer();
    assert_eq!((answer.status(), answer.value("x-test")), (200, Some("1")));
    assert!(answer.head.names().iter().all(|name| !name.contains("path") && !name.contains("method")));
}

#[test]
fn section_8_2_1_a_name_with_an_uppercase_letter_in_an_answer_is_malformed() {
    fails_the_connection(&[OK, ("X-Test", "1")]);
}

#[test]
fn section_8_2_1_a_value_that_could_split_an_answer_of_http_1_is_malformed() {
    for value in ["a\r\nset-cookie: b", "a\nb", "a\0b"] {
        fails_the_connection(&[OK, ("x-test", value)]);
    }
}

#[test]
fn section_8_2_1_a_value_with_white_space_around_it_in_an_answer_is_malformed() {
    is_malformed(&[OK, ("x-test", " a")]);
    is_malformed(&[OK, ("x-test", "a\t")]);
}

#[test]
fn section_8_2_2_connection_specific_fields_in_an_answer_are_malformed() {
    for field in
        [("connection", "close"), ("keep-alive", "timeout=5"), ("transfer-encoding", "chunked"), ("upgrade", "h2c")]
    {
        is_malformed(&[OK, field]);
    }
}

#[test]
fn section_8_6_an_answer_with_101_is_malformed() {
    is_malformed(&[(":status", "101")]);
}

#[test]
fn section_8_1_an_interim_answer_that_ends_the_stream_is_malformed() {
    let mut asked = Asked::for_get();
    asked.head(END_STREAM, &[(":status", "103")]);
    asked.is_bad_gateway();
}

#[test]
fn section_8_1_1_a_body_longer_than_the_answers_content_length_is_malformed() {
    let mut asked = Asked::for_get();
    asked.head(0, &[OK, ("content-length", "4")]);
    asked.provider.data(asked.stream, END_STREAM, "hello");
    asked.provider.expect_reset(asked.stream, PROTOCOL_ERROR);
    asked.breaks_off();
}

#[test]
fn section_8_1_1_a_body_shorter_than_the_answers_content_length_is_malformed() {
    let mut asked = Asked::for_get();
    asked.head(0, &[OK, ("content-length", "6")]);
    asked.provider.data(asked.stream, END_STREAM, "hello");
    asked.breaks_off();
    let mut asked = Asked::for_get();
    asked.head(END_STREAM, &[OK, ("content-length", "6")]);
    asked.is_bad_gateway();
}

#[test]
fn section_8_1_1_a_content_length_of_an_answer_that_is_none_is_malformed() {
    for value in ["five", "-1", "+5", "5, 6", ""] {
        is_malformed(&[OK, ("content-length", value)]);
    }
    is_malformed(&[OK, ("content-length", "0"), ("content-length", "1")]);
}

// --- answers that end where they should not ---

#[test]
fn section_8_1_an_answer_whose_end_never_comes_breaks_off() {
    let mut asked = Asked::for_get();
    asked.head(0, &[OK]);
    asked.provider.data(asked.stream, 0, "hello");
    asked.provider.wire().half_close();
    asked.breaks_off();
}

#[test]
fn section_5_4_2_an_answer_that_is_reset_breaks_off_whatever_the_code() {
    for code in [NO_ERROR, CANCEL, INTERNAL_ERROR, 0xffff] {
        let mut asked = Asked::for_get();
        asked.head(0, &[OK]);
        asked.provider.data(asked.stream, 0, "hello");
        asked.provider.reset(asked.stream, code);
        asked.breaks_off();
    }
}

#[test]
fn section_5_4_2_a_request_that_is_reset_before_its_answer_gets_502() {
    for code in [NO_ERROR, CANCEL, PROTOCOL_ERROR] {
        let mut asked = Asked::for_get();
        asked.provider.reset(asked.stream, code);
        asked.is_bad_gateway();
    }
}

// --- frames that break the connection ---

#[test]
fn section_8_1_data_before_the_head_of_an_answer_is_a_protocol_error() {
    let mut asked = Asked::for_get();
    asked.provider.data(asked.stream, END_STREAM, "hello");
    asked.fails(PROTOCOL_ERROR);
}

#[test]
fn section_8_4_a_push_promise_although_push_is_disabled_is_a_protocol_error() {
    let mut asked = Asked::for_get();
    let promise = [2_u32.to_be_bytes().to_vec(), get("/pushed")].concat();
    asked.provider.frame(PUSH_PROMISE, END_HEADERS, asked.stream, promise);
    asked.fails(PROTOCOL_ERROR);
}

#[test]
fn section_5_1_frames_on_a_stream_that_nobody_opened_are_a_protocol_error() {
    for stream in [101, 2] {
        let mut asked = Asked::for_get();
        asked.provider.headers(stream, END_HEADERS | END_STREAM, block(&[OK]));
        asked.fails(PROTOCOL_ERROR);
    }
}

#[test]
fn section_6_5_2_settings_that_a_server_may_not_send_fail_the_connection() {
    let settings = [(ENABLE_PUSH, 2), (MAX_FRAME_SIZE, 1), (MAX_FRAME_SIZE, 1 << 24)];
    for setting in settings {
        let mut asked = Asked::for_get();
        asked.provider.settings(&[setting]);
        asked.fails(PROTOCOL_ERROR);
    }
}

#[test]
fn section_6_9_1_windows_that_overflow_fail_the_stream_or_the_connection() {
    let mut asked = Asked::by("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\n", &[]);
    asked.provider.window(asked.stream, MOST);
    asked.is_reset(FLOW_CONTROL_ERROR);
    let mut asked = Asked::for_get();
    asked.provider.window(0, MOST);
    asked.provider.window(0, MOST);
    asked.fails(FLOW_CONTROL_ERROR);
}

#[test]
fn section_4_2_a_frame_larger_than_we_allow_is_a_frame_size_error() {
    let mut asked = Asked::for_get();
    let most = usize::try_from(asked.provider.setting(MAX_FRAME_SIZE).unwrap_or(16_384)).expect("24 bits");
    asked.head(0, &[OK]);
    asked.provider.data(asked.stream, END_STREAM, vec![0; most + 1]);
    asked.provider.expect_goaway(FRAME_SIZE_ERROR);
    asked.breaks_off();
}

#[test]
fn section_4_3_an_answer_that_cannot_be_decoded_fails_the_connection() {
    // PROTOCOL_ERROR for COMPRESSION_ERROR: as `Frames::expect_undecodable` says.
    let mut asked = Asked::for_get();
    asked.provider.headers(asked.stream, END_HEADERS | END_STREAM, [block(&[OK]), vec![0xff; 12]].concat());
    asked.fails(PROTOCOL_ERROR);
}

#[test]
fn section_3_4_a_provider_that_speaks_no_http_2_gets_502_for_its_client() {
    for said in ["HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", "\0\0\x08\x06\0\0\0\0\0pingpong"] {
        let alpha = Provider::by_hand();
        let gateway = Gateway::start(H2C, &[("alpha", alpha.address())]);
        let mut client = gateway.connect();
        client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
        let mut provider = alpha.accept();
        provider.expect(PREFACE);
        provider.send(said);
        provider.half_close();
        assert_eq!(client.answer().status(), 502);
    }
}

#[test]
fn section_10_5_a_head_larger_than_we_allow_gets_502() {
    let mut asked = Asked::for_get();
    let fields = literal("x-large", vec![b'a'; 8_000]).repeat(40);
    let whole = [block(&[OK]), fields].concat();
    for (number, part) in whole.chunks(16_384).enumerate() {
        let last = if (number + 1) * 16_384 >= whole.len() { END_HEADERS } else { 0 };
        let (kind, flags) = if number == 0 { (HEADERS, END_STREAM | last) } else { (CONTINUATION, last) };
        asked.provider.frame(kind, flags, asked.stream, part);
    }
    asked.is_bad_gateway();
}

#[test]
fn section_6_8_a_goaway_that_leaves_our_stream_out_says_that_it_was_not_processed() {
    let mut asked = Asked::for_get();
    asked.provider.frame(GOAWAY, 0, 0, [0; 8]);
    // So it comes once more, on another connection, and no third time.
    let mut provider = Frames::accept(asked.alpha.accept(), &[]);
    provider.requested(0);
    provider.frame(GOAWAY, 0, 0, [0; 8]);
    asked.is_bad_gateway();
}

#[test]
fn section_6_8_a_goaway_that_includes_our_stream_lets_it_be_answered() {
    let mut asked = Asked::for_get();
    asked.provider.frame(GOAWAY, 0, 0, [asked.stream.to_be_bytes(), [0; 4]].concat());
    asked.head(END_STREAM, &[OK, ("x-last", "1")]);
    assert_eq!(asked.client.answer().value("x-last"), Some("1"));
}

/// A gateway before a provider that speaks cleartext HTTP/2.
const H2C: &str = "
listeners: [ { name: web, bind: \"{web}\" } ]
providers: { alpha: { url: \"h2c://{alpha}\" } }
pools: { main: { providers: [alpha] } }
routes: [ { name: all, match: { path: \"/*\" }, pool: main } ]
";
