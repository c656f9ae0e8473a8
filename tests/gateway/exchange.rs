//! One request and its answer between a client and a provider: framing, order, and that nothing is held back.

use crate::world::{End, Gateway, Provider, Wire};

/// A gateway before a provider by hand, and a client's connection.
fn world() -> (Provider, Gateway, Wire) {
    let alpha = Provider::by_hand();
    let gateway = Gateway::before(&alpha);
    let client = gateway.connect();
    (alpha, gateway, client)
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

// --- connections ---

#[test]
fn one_provider_connection_serves_one_request_after_the_other() {
    let (alpha, gateway, mut client) = world();
    client.send(GET);
    let mut provider = alpha.accept();
    provider.request();
    provider.send(OK);
    assert_eq!(client.answer().text(), "ok");
    for _ in 0..20 {
        client.send(GET);
        provider.request();
        provider.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
        assert_eq!(client.answer().text(), "ok");
    }
    // Another client's requests use it too.
    let mut other = gateway.connect();
    other.send(GET);
    provider.request();
    provider.send(OK);
    assert_eq!(other.answer().text(), "ok");
    assert!(alpha.is_lonely());
    assert_eq!(alpha.connections(), 1);
}

#[test]
fn a_provider_connection_is_used_no_more_once_its_provider_says_so() {
    for answer in [
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nkeep-alive: timeout=1\r\ncontent-length: 2\r\n\r\nok",
    ] {
        let (alpha, _gateway, mut client) = world();
        client.send(GET);
        let mut first = alpha.accept();
        first.request();
        first.send(answer);
        assert_eq!(client.answer().text(), "ok");
        first.closes();
        client.send(GET);
        let mut second = alpha.accept();
        second.request();
        second.send(OK);
        assert_eq!(client.answer().text(), "ok");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order_one_at_a_time() {
    let (alpha, _gateway, mut client) = world();
    client.send(
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\
         POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n\
         GET /4 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /5 HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    let mut provider = alpha.accept();
    for number in 1..=4 {
        let request = provider.request().expect("a request");
        assert!(request.head.line.contains(&format!("/{number} ")), "{}", request.head.line);
        assert!(provider.is_silent(), "the next request waits for this one's answer");
        provider.send(format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{number}"));
        assert_eq!(client.answer().text(), number.to_string());
    }
    client.closes();
    assert!(provider.is_silent(), "nothing follows Connection: close");
}

#[test]
fn many_pipelined_requests_are_all_answered_in_order() {
    let alpha = Provider::scripted(|peer| {
        while let Some(request) = peer.request() {
            peer.answer("200 OK", &request.head.line);
        }
    });
    let gateway = Gateway::before(&alpha);
    let mut client = gateway.connect();
    // More than a gateway keeps for later, so that it has to come back for the rest.
    let request = |number| format!("GET /{number} HTTP/1.1\r\nHost: a\r\nX-Pad: {}\r\n\r\n", "x".repeat(300));
    client.send((0..300).map(request).collect::<String>());
    for number in 0..300 {
        assert_eq!(client.answer().text(), format!("GET /{number} HTTP/1.1"));
    }
    assert_eq!(alpha.connections(), 1);
}

#[test]
fn the_clients_connection_closes_where_it_asks_and_says_so() {
    let (alpha, gateway, mut client) = world();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n\r\n");
    let mut provider = alpha.accept();
    assert_eq!(provider.request().expect("a request").value("connection"), None);
    provider.send(OK);
    assert_eq!(client.answer().value("connection"), Some("close"));
    client.closes();
    // HTTP/1.0 closes unless it asks otherwise.
    for (asked, told) in [("", "close"), ("Connection: keep-alive\r\n", "keep-alive")] {
        let mut client = gateway.connect();
        client.send(format!("GET / HTTP/1.0\r\n{asked}\r\n"));
        provider.request();
        provider.send(OK);
        assert_eq!(client.answer().value("connection"), Some(told));
        if told == "close" {
            client.closes();
        } else {
            client.send("GET / HTTP/1.0\r\n\r\n");
            provider.request();
            provider.send(OK);
            assert_eq!(client.answer().text(), "ok");
        }
    }
}

// --- bodies ---

#[test]
fn a_body_of_known_length_stays_one_each_way() {
    let (alpha, _gateway, mut client) = world();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello");
    let mut provider = alpha.accept();
    assert_eq!(provider.head().value("content-length"), Some("11"));
    provider.expect("hello");
    client.send(" world");
    provider.expect(" world");
    provider.send("HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello");
    assert_eq!(client.head().value("content-length"), Some("11"));
    client.expect("hello");
    provider.send(" world");
    client.expect(" world");
}

#[test]
fn chunks_and_trailers_pass_both_ways() {
    let (alpha, _gateway, mut client) = world();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: Chunked\r\nTrailer: X-Sum\r\n\r\n");
    let mut provider = alpha.accept();
    let head = provider.head();
    assert_eq!((head.value("transfer-encoding"), head.value("content-length")), (Some("chunked"), None));
    client.send("5;name=value\r\nhello\r\n");
    provider.expect("5\r\nhello\r\n");
    client.send("00006\r\n world\r\n000\r\nX-Sum: 42\r\nContent-Length: 5\r\nHost: evil\r\nx-More:y\r\n\r\n");
    provider.expect("6\r\n world\r\n0\r\nX-Sum: 42\r\nx-More: y\r\n\r\n");
    provider.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n");
    assert_eq!(client.head().value("trailer"), Some("X-Sum"));
    provider.send("B\r\nhello world\r\n");
    client.expect("b\r\nhello world\r\n");
    provider.send("0\r\nX-Sum: 7\r\nSet-Cookie: a=b\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.expect("0\r\nX-Sum: 7\r\n\r\n");
    client.send(GET);
    assert!(provider.request().is_some(), "both connections are in step");
}

#[test]
fn an_answer_that_ends_with_its_connection_becomes_chunks_for_1_1_and_a_close_for_1_0() {
    let (alpha, gateway, mut client) = world();
    client.send(GET);
    let mut provider = alpha.accept();
    provider.request();
    provider.send("HTTP/1.1 200 OK\r\n\r\nhello");
    let head = client.head();
    assert_eq!((head.value("transfer-encoding"), head.value("connection")), (Some("chunked"), None));
    client.expect("5\r\nhello\r\n");
    provider.send(" world");
    client.expect("6\r\n world\r\n");
    drop(provider);
    client.expect("0\r\n\r\n");

    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut provider = alpha.accept();
    provider.request();
    provider.send("HTTP/1.0 200 OK\r\n\r\nold");
    drop(provider);
    assert_eq!(client.answer().text(), "old");

    let mut client = gateway.connect();
    client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let mut provider = alpha.accept();
    provider.request();
    provider.send("HTTP/1.1 200 OK\r\n\r\nhello");
    let head = client.head();
    assert_eq!((head.value("transfer-encoding"), head.value("connection")), (None, Some("close")));
    client.expect("hello");
    drop(provider);
    client.closes();
}

#[test]
fn chunks_for_a_1_0_client_lose_their_framing_and_end_with_a_close() {
    let (alpha, _gateway, mut client) = world();
    client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let mut provider = alpha.accept();
    provider.request();
    provider.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.value("transfer-encoding"), answer.value("connection")), (None, Some("close")));
    assert_eq!(answer.text(), "hello");
}

#[test]
fn answers_without_body_end_with_their_head_and_keep_both_connections() {
    // The provider's connection rests after HEAD, so each has a world of its own.
    for (framing, announced) in [("Content-Length: 1234", Some("1234")), ("Transfer-Encoding: chunked", None)] {
        let (alpha, _gateway, mut client) = world();
        client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut provider = alpha.accept();
        assert!(provider.request().expect("a request").head.line.starts_with("HEAD"));
        provider.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n"));
        let answer = client.answer_to("HEAD");
        assert_eq!((answer.value("content-length"), answer.value("connection")), (announced, None));
    }

    let (alpha, _gateway, mut client) = world();
    client.send(GET);
    let mut provider = alpha.accept();
    provider.request();
    provider.send("HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\nETag: \"x\"\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.status(), answer.value("content-length")), (304, Some("1234")));

    client.send(GET);
    provider.request();
    provider.send("HTTP/1.1 204 No Content\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.value("content-length"), answer.value("transfer-encoding")), (None, None));

    client.send(GET);
    provider.request();
    provider.send("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.answer().value("content-length"), None, "RFC 9110 section 8.6 forbids it");

    client.send(GET);
    provider.request();
    provider.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.answer().value("content-length"), Some("0"));
    assert_eq!(alpha.connections(), 1);
}

#[test]
fn a_large_body_passes_unchanged_each_way() {
    let large: Vec<u8> = (0..3_000_000_u32).map(|place| (place % 251) as u8).collect();
    let answer = [b"HTTP/1.1 200 OK\r\ncontent-length: 3000000\r\n\r\n".as_slice(), &large].concat();
    let alpha = Provider::answering(answer);
    let gateway = Gateway::before(&alpha);
    for framing in ["Content-Length: 3000000", "Transfer-Encoding: chunked"] {
        let mut client = gateway.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"));
        if framing.contains("chunked") {
            for piece in large.chunks(100_000) {
                client.send(format!("{:x}\r\n", piece.len()));
                client.send(piece);
                client.send("\r\n");
            }
            client.send("0\r\n\r\n");
        } else {
            client.send(&large);
        }
        assert!(client.answer().body == large, "the answer came unchanged");
    }
    assert!(alpha.requests().iter().all(|request| request.body == large), "the request came unchanged");
}

// --- streams ---

#[test]
fn each_piece_of_a_stream_arrives_before_the_next_is_sent() {
    let (alpha, _gateway, mut client) = world();
    client.send(GET);
    let mut provider = alpha.accept();
    provider.request();
    provider.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(client.head().value("content-type"), Some("text/event-stream"), "the head does not wait for a body");
    for number in 0..50 {
        provider.send_chunk(&format!("data: {number}\n\n"));
        assert_eq!(client.chunk(), Some(format!("data: {number}\n\n").into_bytes()));
    }
    // A piece of a chunk is passed on as well.
    provider.send("a\r\nhalf");
    client.expect("4\r\nhalf\r\n");
    provider.send(" gone \r\n0\r\n\r\n");
    client.expect("6\r\n gone \r\n0\r\n\r\n");
}

#[test]
fn a_request_streams_up_while_its_answer_streams_down() {
    let (alpha, _gateway, mut client) = world();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut provider = alpha.accept();
    provider.head();
    provider.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.head();
    for number in 0..20 {
        client.send_chunk(&format!("ping {number}"));
        let echoed = provider.chunk().expect("a chunk");
        provider.send_chunk(&String::from_utf8_lossy(&echoed));
        assert_eq!(client.chunk(), Some(format!("ping {number}").into_bytes()));
    }
    client.send("0\r\n\r\n");
    assert_eq!((provider.chunk(), provider.trailers().len()), (None, 0));
    provider.send("0\r\n\r\n");
    assert_eq!((client.chunk(), client.trailers().len()), (None, 0));
    client.send(GET);
    assert!(provider.request().is_some(), "both connections are in step");
}

// --- interim answers ---

#[test]
fn expect_100_continue_is_passed_on_and_so_is_the_100() {
    let (alpha, _gateway, mut client) = world();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 5\r\n\r\n");
    let mut provider = alpha.accept();
    assert_eq!(provider.head().value("expect"), Some("100-continue"));
    provider.send("HTTP/1.1 100 Continue\r\n\r\n");
    client.expect("HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hello");
    provider.expect("hello");
    provider.send(OK);
    assert_eq!(client.answer().text(), "ok");
    client.send(GET);
    assert!(provider.request().is_some(), "both connections are in step");
}

#[test]
fn a_client_that_does_not_wait_for_its_100_keeps_its_connection() {
    let (alpha, _gateway, mut client) = world();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello");
    let mut provider = alpha.accept();
    assert_eq!(provider.request().expect("a request").text(), "hello");
    provider.send(OK);
    assert_eq!(client.answer().value("connection"), None);
    client.send(GET);
    assert!(provider.request().is_some(), "both connections are in step");
}

#[test]
fn a_final_answer_instead_of_the_100_ends_the_connection_that_could_go_on_either_way() {
    // Other interim answers are no leave to send the body.
    for before in ["", "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"] {
        let (alpha, _gateway, mut client) = world();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
        let mut provider = alpha.accept();
        provider.head();
        provider.send(format!("{before}HTTP/1.1 417 Expectation Failed\r\ncontent-length: 2\r\n\r\nno"));
        let answer = client.answer();
        assert_eq!((answer.status(), answer.value("connection")), (417, Some("close")));
        client.closes();
        provider.closes();
    }
}

#[test]
fn an_expectation_without_a_body_is_nobodys_to_wait_for() {
    let (alpha, _gateway, mut client) = world();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n");
    let mut provider = alpha.accept();
    assert_eq!(provider.head().value("expect"), None);
    provider.send(OK);
    assert_eq!(client.answer().value("connection"), None);
}

#[test]
fn interim_answers_are_passed_on_before_the_final_one() {
    let (alpha, _gateway, mut client) = world();
    client.send(GET);
    let mut provider = alpha.accept();
    provider.request();
    provider.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: x\r\nX: gone\r\n\r\n");
    client.expect("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n");
    provider.send("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 More\r\nLink: x\r\n\r\n");
    client.expect("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 More\r\nLink: x\r\n\r\n");
    provider.send(OK);
    assert_eq!(client.answer().text(), "ok");
    assert_eq!(alpha.connections(), 1);
}

#[test]
fn a_1_0_client_gets_no_interim_answer() {
    let (alpha, _gateway, mut client) = world();
    client.send("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello");
    let mut provider = alpha.accept();
    assert_eq!(provider.request().expect("a request").value("expect"), None);
    provider.send(format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n{OK}"));
    client.expect("HTTP/1.1 200 OK\r\n");
}

// --- answers that come early ---

#[test]
fn an_early_answer_reaches_a_client_that_still_sends() {
    let (alpha, _gateway, mut client) = world();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\n");
    let mut provider = alpha.accept();
    provider.head();
    client.send(vec![b'x'; 100_000]);
    provider.take(100_000);
    provider.send("HTTP/1.1 413 Content Too Large\r\nconnection: close\r\ncontent-length: 3\r\n\r\nbig");
    let answer = client.answer();
    assert_eq!((answer.status(), answer.text().as_str()), (413, "big"));
    assert_eq!(answer.value("connection"), Some("close"));
    // The connection ends in order although much of the body is still to come.
    let mut sent = 0;
    while sent < 600_000 && client.try_send(vec![b'x'; 10_000]).is_ok() {
        sent += 10_000;
    }
    assert_eq!(client.end(), End::Closed);
    assert_eq!(provider.rest().iter().filter(|byte| **byte != b'x').count(), 0);
}

#[test]
fn a_body_of_unknown_length_is_dropped_up_to_a_bound_after_an_early_answer() {
    for (more, kept) in [(100_000, true), (2_000_000, false)] {
        let (alpha, _gateway, mut client) = world();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        let mut first = alpha.accept();
        first.head();
        first.send("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno");
        assert_eq!(client.answer().status(), 403);
        first.closes();
        let rest = format!("{more:x}\r\n{}\r\n0\r\n\r\n{GET}", "x".repeat(more));
        // A client that sends too much may find the connection gone.
        let sent = client.try_send(rest);
        if kept {
            let mut second = alpha.accept();
            second.request();
            second.send(OK);
            assert_eq!(client.answer().text(), "ok");
        } else {
            assert!(sent.is_err() || !client.rest().contains(&b'H'));
            assert!(alpha.is_lonely());
        }
    }
}

#[test]
fn an_early_answer_to_a_small_body_keeps_the_clients_connection_in_step() {
    let (alpha, _gateway, mut client) = world();
    client.send("POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
    let mut first = alpha.accept();
    first.head();
    first.send("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno");
    assert_eq!(client.answer().status(), 403);
    // Not used again: it still waits for the rest of a body.
    assert_eq!(crate::world::text(&first.rest()), "hello");
    client.send("worldGET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut second = alpha.accept();
    assert_eq!(second.request().expect("a request").head.line, "GET /2 HTTP/1.1");
    second.send(OK);
    assert_eq!(client.answer().text(), "ok");
}

#[test]
fn a_provider_that_answers_and_hangs_up_during_an_upload_has_answered() {
    let (alpha, _gateway, mut client) = world();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\n");
    let mut provider = alpha.accept();
    provider.head();
    provider.send("HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy");
    drop(provider);
    let mut sent = 0;
    while sent < 5_000_000 && client.try_send(vec![b'x'; 50_000]).is_ok() {
        sent += 50_000;
    }
    let answer = client.answer();
    assert_eq!((answer.status(), answer.text().as_str()), (503, "busy"));
    let trail = answer.value("proxy-status").expect("an attempt has failed");
    let told =
        trail.strip_prefix("sluice; received-status=503; details=\"alpha 503 ").expect("the provider and its status");
    let took = told.strip_suffix("ms; not retried: method\"").expect("how long it took, and why it was the last");
    assert!(took.parse::<u32>().is_ok(), "{trail}");
}

#[test]
fn a_local_answer_drops_a_small_body_and_keeps_the_connection() {
    let yaml = "
listeners: [ { name: web, bind: \"{web}\" } ]
routes: [ { name: fixed, match: { path: \"/*\" }, respond: { status: 201, headers: { x-a: b }, body: made } } ]
";
    let gateway = Gateway::start(yaml, &[]);
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
    let answer = client.answer();
    assert_eq!((answer.status(), answer.text().as_str(), answer.value("x-a")), (201, "made", Some("b")));
    client.send("worldHEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer_to("HEAD").value("content-length"), Some("4"));
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 400000\r\n\r\n");
    assert_eq!(client.answer().value("connection"), Some("close"));
    client.closes();
}
