//! A route keeps answers and gives them to others: RFC 9111 over real sockets.
//!
//! Time does not have to pass for a reply to expire: an `Age` beyond its lifetime says that it has.

mod attacks;
mod coalescing;
mod errors;
mod keys;
mod memory;
mod purging;
mod sharing;
mod suite;

use crate::http2::Client;
use crate::world::{Extra, Gate, Gateway, Message, Provider};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What is fresh for a minute.
const FRESH: &str = "cache-control: max-age=60\r\n";
/// What has expired, may be asked about, and must not be given as it is.
const EXPIRED: &str = "cache-control: max-age=10\r\nage: 100\r\netag: \"1\"\r\n";

/// An answer with these fields.
fn reply(status: &str, fields: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{fields}content-length: {}\r\n\r\n{body}", body.len())
}

/// A provider that answers each request by its number, from 0, and what it is.
fn origin(answer: impl Fn(usize, &Message) -> String + Send + Sync + 'static) -> Provider {
    let (count, answer) = (AtomicUsize::new(0), Arc::new(answer));
    Provider::scripted(move |peer| {
        while let Some(request) = peer.request() {
            let number = count.fetch_add(1, Ordering::SeqCst);
            peer.wire.send(answer(number, &request));
        }
    })
}

/// A provider whose every answer has these fields and its number for a body.
fn numbered(fields: &'static str) -> Provider {
    origin(move |number, _| reply("200 OK", fields, &number.to_string()))
}

/// A gateway that keeps what the provider answers.
fn before(provider: &Provider) -> Gateway {
    with(provider.address(), "")
}

/// The same with settings of `cache`, for an address where there may be no provider.
fn with(provider: SocketAddr, cache: &str) -> Gateway {
    let route = format!("retry: {{ attempts: 1 }}, cache: {{ {cache} }}");
    Gateway::before_address(provider, Extra { route: &route, ..Extra::default() })
}

/// The answer to a request with these fields, on a connection of its own.
fn ask(gateway: &Gateway, line: &str, fields: &str) -> Message {
    let mut client = gateway.connect();
    client.send(format!("{line} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    client.answer_to(line.split(' ').next().unwrap_or_default())
}

fn get(gateway: &Gateway, fields: &str) -> Message {
    ask(gateway, "GET /", fields)
}

/// Body and `Cache-Status` without its lifetime.
fn told(answer: &Message) -> (String, String) {
    let status = answer.value("cache-status").unwrap_or("none").to_owned();
    let known: Vec<&str> = status.split("; ").filter(|part| !part.starts_with("ttl=")).collect();
    (answer.text(), known.join("; "))
}

fn is_told(answer: &Message, body: &str, status: &str) {
    assert_eq!(told(answer), (body.to_owned(), status.to_owned()), "{}", answer.status());
}

#[test]
fn what_is_fresh_is_given_again_without_asking_anybody() {
    let alpha = numbered("cache-control: max-age=60\r\nx-own: 1\r\n");
    let gateway = before(&alpha);
    let first = get(&gateway, "");
    is_told(&first, "0", "sluice; fwd=uri-miss; stored");
    assert_eq!(first.value("age"), None);
    let again = get(&gateway, "");
    is_told(&again, "0", "sluice; hit");
    assert_eq!(
        (again.value("age"), again.value("x-own"), again.value("content-length")),
        (Some("0"), Some("1"), Some("1"))
    );
    assert!(again.value("x-request-id").is_some() && again.value("date").is_some());
    assert_ne!(first.value("x-request-id"), again.value("x-request-id"));
    assert_eq!(alpha.requests().len(), 1);
    let lines = gateway.wait_for_access_log(2);
    assert_eq!((&lines[0]["cache"], &lines[1]["cache"]), (&"miss".into(), &"hit".into()));
    assert_eq!((&lines[0]["provider"], &lines[1]["provider"]), (&"alpha".into(), &serde_json::Value::Null));
    for result in ["miss", "hit"] {
        gateway.wait_for_metric("sluice_cache_requests_total", &[("route", "all"), ("result", result)], 1.0);
    }
    assert!(gateway.metric("sluice_cache_bytes", &[]) > 0.0);
}

#[test]
fn the_way_back_is_written_anew_for_each_client() {
    let alpha = numbered("cache-control: max-age=60\r\nvia: 1.0 theirs\r\nconnection: x-hop\r\nx-hop: 1\r\n");
    let gateway = before(&alpha);
    for _ in 0..2 {
        let answer = get(&gateway, "");
        assert_eq!((answer.value("via"), answer.value("x-hop")), (Some("1.0 theirs, 1.1 sluice"), None));
    }
    assert_eq!(alpha.requests().len(), 1);
}

#[test]
fn what_must_not_be_kept_is_not() {
    for fields in [
        "cache-control: no-store\r\n",
        "cache-control: private\r\n",
        "cache-control: max-age=60\r\nvary: *\r\n",
        "cache-control: max-age=60\r\nsluice-degraded: pool\r\n",
    ] {
        let alpha = numbered(fields);
        let gateway = before(&alpha);
        is_told(&get(&gateway, ""), "0", "sluice; fwd=uri-miss");
        is_told(&get(&gateway, ""), "1", "sluice; fwd=uri-miss");
    }
}

#[test]
fn a_provider_is_asked_whether_what_has_expired_is_good_still() {
    let alpha = origin(|number, request| match request.value("if-none-match") {
        Some("\"1\"") => {
            "HTTP/1.1 304 Not Modified\r\ncache-control: max-age=60\r\nx-new: 2\r\netag: \"1\"\r\n\r\n".to_owned()
        }
        _ => reply("200 OK", EXPIRED, &number.to_string()),
    });
    let gateway = before(&alpha);
    is_told(&get(&gateway, ""), "0", "sluice; fwd=uri-miss; stored");
    let validated = get(&gateway, "");
    is_told(&validated, "0", "sluice; fwd=stale; fwd-status=304; stored");
    assert_eq!((validated.status(), validated.value("x-new")), (200, Some("2")));
    is_told(&get(&gateway, ""), "0", "sluice; hit");
    assert_eq!(alpha.requests().len(), 2);
    assert_eq!(gateway.wait_for_access_log(3)[1]["cache"], "revalidated");
}

#[test]
fn a_304_about_nothing_that_is_kept_is_followed_by_the_whole() {
    let alpha = origin(|number, request| match request.value("if-none-match") {
        Some(_) => "HTTP/1.1 304 Not Modified\r\netag: \"other\"\r\n\r\n".to_owned(),
        None => reply("200 OK", EXPIRED, &number.to_string()),
    });
    let gateway = before(&alpha);
    is_told(&get(&gateway, ""), "0", "sluice; fwd=uri-miss; stored");
    is_told(&get(&gateway, ""), "2", "sluice; fwd=stale; stored");
}

#[test]
fn a_client_that_has_what_is_kept_is_told_so() {
    let alpha = numbered("cache-control: max-age=60\r\netag: \"1\"\r\n");
    let gateway = before(&alpha);
    let first = get(&gateway, "If-None-Match: \"1\"\r\n");
    assert_eq!((first.status(), first.value("etag")), (304, Some("\"1\"")));
    assert_eq!(alpha.requests()[0].value("if-none-match"), None, "the whole is fetched");
    let second = get(&gateway, "If-None-Match: \"0\", \"1\"\r\n");
    assert_eq!((second.status(), second.body.len()), (304, 0));
    is_told(&get(&gateway, "If-None-Match: \"0\"\r\n"), "0", "sluice; hit");
    assert_eq!(alpha.requests().len(), 1);
}

#[test]
fn what_varies_is_kept_for_each_kind_of_request() {
    let alpha = numbered("cache-control: max-age=60\r\nvary: accept-language\r\n");
    let gateway = before(&alpha);
    is_told(&get(&gateway, "Accept-Language: de\r\n"), "0", "sluice; fwd=uri-miss; stored");
    is_told(&get(&gateway, "Accept-Language: fr\r\n"), "1", "sluice; fwd=vary-miss; stored");
    is_told(&get(&gateway, "Accept-Language: de\r\n"), "0", "sluice; hit");
    is_told(&get(&gateway, "Accept-Language: fr\r\n"), "1", "sluice; hit");
}

#[test]
fn parts_are_cut_from_the_whole_that_is_kept() {
    let alpha = origin(|_, _| reply("200 OK", "cache-control: max-age=60\r\netag: \"1\"\r\n", "0123456789"));
    let gateway = before(&alpha);
    get(&gateway, "");
    let part = get(&gateway, "Range: bytes=2-4\r\n");
    assert_eq!(
        (part.status(), part.text(), part.value("content-range")),
        (206, "234".to_owned(), Some("bytes 2-4/10"))
    );
    assert_eq!(get(&gateway, "Range: bytes=20-\r\n").status(), 416);
    assert_eq!(get(&gateway, "Range: bytes=0-0\r\nIf-Range: \"0\"\r\n").text(), "0123456789");
    assert_eq!(alpha.requests().len(), 1);
}

#[test]
fn a_request_for_a_part_of_what_is_not_kept_goes_on_as_it_is() {
    let alpha = origin(|_, request| {
        assert_eq!(request.value("range"), Some("bytes=0-1"));
        reply("206 Partial Content", "cache-control: max-age=60\r\ncontent-range: bytes 0-1/10\r\n", "01")
    });
    let gateway = before(&alpha);
    for _ in 0..2 {
        let part = get(&gateway, "Range: bytes=0-1\r\n");
        assert_eq!(part.status(), 206);
        is_told(&part, "01", "sluice; fwd=uri-miss");
    }
}

#[test]
fn head_is_answered_from_what_get_brought_and_corrects_it() {
    let alpha = origin(|number, request| {
        if request.head.line.starts_with("HEAD") {
            return format!("HTTP/1.1 200 OK\r\n{FRESH}content-length: 9\r\n\r\n");
        }
        reply("200 OK", FRESH, &number.to_string())
    });
    let gateway = before(&alpha);
    get(&gateway, "");
    let head = ask(&gateway, "HEAD /", "");
    assert_eq!((head.status(), head.value("content-length"), head.value("age")), (200, Some("1"), Some("0")));
    assert_eq!(alpha.requests().len(), 1);
    // It is asked for anew, and is of another length: what is kept has to be validated.
    let head = ask(&gateway, "HEAD /", "Cache-Control: no-cache\r\n");
    assert_eq!((head.value("content-length"), alpha.requests().len()), (Some("9"), 2));
    is_told(&get(&gateway, ""), "2", "sluice; fwd=stale; stored");
}

#[test]
fn only_what_is_kept_answers_a_client_that_wants_nothing_else() {
    let alpha = numbered(FRESH);
    let gateway = before(&alpha);
    let refused = get(&gateway, "Cache-Control: only-if-cached\r\n");
    assert_eq!((refused.status(), refused.json()["reason"].as_str()), (504, Some("not_cached")));
    assert_eq!(alpha.connections(), 0);
    get(&gateway, "");
    is_told(&get(&gateway, "Cache-Control: only-if-cached\r\n"), "0", "sluice; hit");
}

#[test]
fn a_client_that_wants_it_new_gets_it_new() {
    let alpha = numbered(FRESH);
    let gateway = before(&alpha);
    get(&gateway, "");
    is_told(&get(&gateway, "Cache-Control: no-cache\r\n"), "1", "sluice; fwd=request; stored");
    is_told(&get(&gateway, "Cache-Control: no-store\r\n"), "1", "sluice; hit");
}

#[test]
fn the_operators_ttl_counts_where_the_origin_says_nothing() {
    let alpha = numbered("");
    let gateway = with(alpha.address(), "ttl: 60s");
    get(&gateway, "");
    is_told(&get(&gateway, ""), "0", "sluice; hit");
    is_told(&get(&gateway, "Cookie: id=1\r\n"), "1", "sluice; fwd=miss");
}

#[test]
fn what_is_large_is_given_whole_while_and_after_it_comes() {
    let body: String = (0..200_000).map(|at: u32| char::from(b'a' + (at % 23) as u8)).collect();
    let sent = body.clone();
    let alpha = origin(move |_, _| reply("200 OK", FRESH, &sent));
    let gateway = before(&alpha);
    for status in ["sluice; fwd=uri-miss; stored", "sluice; hit"] {
        is_told(&get(&gateway, ""), &body, status);
    }
    assert_eq!(alpha.requests().len(), 1);
}

#[test]
fn a_chunked_answer_is_kept_and_has_a_length_then() {
    let alpha = Provider::answering(
        "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
    );
    let gateway = before(&alpha);
    is_told(&get(&gateway, ""), "abcde", "sluice; fwd=uri-miss; stored");
    let hit = get(&gateway, "");
    is_told(&hit, "abcde", "sluice; hit");
    assert_eq!(hit.value("content-length"), Some("5"));
}

#[test]
fn section_15_2_of_rfc_9110_interim_answers_are_passed_on_while_the_final_one_is_brought_for_all() {
    let gate = Gate::default();
    let opened = gate.clone();
    let alpha = Provider::scripted(move |peer| {
        while peer.request().is_some() {
            peer.wire
                .send("HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n");
            opened.pass();
            peer.wire.send(reply("200 OK", FRESH, "whole"));
        }
    });
    let gateway = before(&alpha);
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let hints = client.head();
    assert_eq!((hints.status(), hints.value("link")), (103, Some("</a>; rel=preload")));
    assert_eq!(client.head().status(), 102);
    gate.open();
    is_told(&client.answer(), "whole", "sluice; fwd=uri-miss; stored");
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let again = client.head();
    assert_eq!(again.status(), 200, "{again:?}");
    let answer = Client::connect(gateway.web()).ask("GET", "/other", &[], None);
    let interims: Vec<u16> = answer.interims.iter().map(|interim| interim.status().as_u16()).collect();
    assert_eq!((interims, answer.text()), (vec![103, 102], "whole".to_owned()));
    assert_eq!(answer.interims[0].headers()["link"], "</a>; rel=preload");
}

#[test]
fn what_is_larger_than_a_route_keeps_passes_through() {
    let body = "x".repeat(100_000);
    let (sized, chunked) = (body.clone(), format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()));
    let alpha = origin(move |number, _| match number {
        0 | 1 => reply("200 OK", FRESH, &sized),
        _ => format!("HTTP/1.1 200 OK\r\n{FRESH}transfer-encoding: chunked\r\n\r\n{chunked}"),
    });
    let gateway = with(alpha.address(), "max_object: 64KiB");
    for _ in 0..4 {
        assert_eq!(get(&gateway, "").text(), body);
    }
    assert_eq!(alpha.requests().len(), 4);
}

#[test]
fn a_route_without_a_cache_says_nothing_of_one() {
    let alpha = numbered(FRESH);
    let gateway = Gateway::before(&alpha);
    is_told(&get(&gateway, ""), "0", "none");
    is_told(&get(&gateway, ""), "1", "none");
    assert!(!gateway.metrics().contains("sluice_cache_requests_total{"));
}
