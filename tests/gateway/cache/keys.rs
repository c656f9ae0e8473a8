//! Nobody is given what another's request chose: whatever chooses an answer is in its key, or keeps it from being kept.

use super::{FRESH, ask, before, get, is_told, numbered, origin, reply, with};
use crate::world::{Extra, Gateway, Message, Provider, pause};
use std::time::Duration;

fn asked(gateway: &Gateway, request: &str) -> Message {
    let mut client = gateway.connect();
    client.send(request);
    client.answer()
}

/// A provider that repeats what it was told about its client and its own name.
fn gullible() -> Provider {
    origin(|_, request| {
        let said = ["x-forwarded-host", "x-forwarded-proto", "host"].map(|name| request.value(name).unwrap_or("-"));
        reply("200 OK", FRESH, &format!("{} {}", said.join(" "), String::from_utf8_lossy(&request.body)))
    })
}

#[test]
fn hosts_queries_and_paths_are_told_apart() {
    let alpha = numbered(FRESH);
    let gateway = before(&alpha);
    let lines = [
        "GET / HTTP/1.1\r\nHost: a",
        "GET / HTTP/1.1\r\nHost: b",
        "GET /? HTTP/1.1\r\nHost: a",
        "GET /?a HTTP/1.1\r\nHost: a",
        "GET /A HTTP/1.1\r\nHost: a",
    ];
    for round in 0..2 {
        for (place, line) in lines.iter().enumerate() {
            assert_eq!(asked(&gateway, &format!("{line}\r\n\r\n")).text(), place.to_string(), "{round}");
        }
    }
    for same in [
        "GET / HTTP/1.1\r\nHost: A",
        "GET / HTTP/1.1\r\nHost: a:80",
        "GET /x/.. HTTP/1.1\r\nHost: a",
        "GET http://a/ HTTP/1.1\r\nHost: a",
    ] {
        assert_eq!(asked(&gateway, &format!("{same}\r\n\r\n")).text(), "0", "{same}");
    }
}

#[test]
fn what_a_stranger_says_of_its_way_reaches_neither_provider_nor_key() {
    let alpha = gullible();
    let gateway = before(&alpha);
    let poison =
        "X-Forwarded-Host: evil\r\nX-Forwarded-Proto: https\r\nForwarded: host=evil\r\nX_Forwarded_Host: evil\r\n";
    let first = get(&gateway, poison);
    assert!(!first.text().contains("evil"), "{}", first.text());
    assert_eq!(get(&gateway, "").text(), first.text());
    assert_eq!(alpha.requests().len(), 1);
}

#[test]
fn what_a_trusted_peer_says_is_in_the_key_as_the_provider_is_told() {
    let alpha = gullible();
    let listener = "trusted_proxies: [127.0.0.0/8]";
    let gateway = Gateway::before_with(&alpha, Extra { listener, route: "cache: {}", ..Extra::default() });
    let kinds = [
        "",
        "X-Forwarded-Host: b\r\n",
        "X-Forwarded-Host: a/x\r\n",
        "X-Forwarded-Proto: https\r\n",
        "X-Forwarded-Host: b, c\r\n",
    ];
    let bodies = || kinds.map(|fields| get(&gateway, fields).text());
    let first = bodies();
    assert!(first[1].starts_with("b http ") && first[3].starts_with("a https "), "{first:?}");
    assert_eq!(bodies(), first);
    // What is no host is in no key, and so is not kept.
    assert_eq!(alpha.requests().len(), 5 + 2);
}

#[test]
fn a_get_with_a_body_is_neither_kept_nor_answered_from_what_is_kept() {
    let alpha = gullible();
    let gateway = before(&alpha);
    let fat = get(&gateway, "Content-Length: 4\r\n\r\nevil");
    assert!(fat.text().contains("evil"));
    assert_eq!(fat.value("cache-status"), Some("sluice; fwd=bypass"));
    assert!(!get(&gateway, "").text().contains("evil"));
}

#[test]
fn what_routes_take_by_fields_is_kept_apart() {
    let alpha = origin(|_, request| reply("200 OK", FRESH, request.value("x-route").unwrap_or("none")));
    let gateway = Gateway::start(
        "
listeners: [ { name: web, bind: \"{web}\" } ]
providers: { alpha: { url: \"http://{alpha}\" } }
pools: { main: { providers: [alpha] } }
routes:
  - { name: beta, match: { path: \"/*\", headers: { x-beta: \"1\" } }, pool: main, cache: {}, rewrite: { headers: { set: { x-route: beta } } } }
  - { name: all, match: { path: \"/*\" }, pool: main, cache: {} }
",
        &[("alpha", alpha.address())],
    );
    for _ in 0..2 {
        assert_eq!(get(&gateway, "X-Beta: 1\r\n").text(), "beta");
        assert_eq!(get(&gateway, "").text(), "none");
    }
    assert_eq!(alpha.requests().len(), 2);
}

#[test]
fn what_answers_one_who_says_who_he_is_is_for_others_only_if_it_says_so() {
    for (fields, is_shared) in
        [(FRESH, false), ("cache-control: public, max-age=60\r\n", true), ("cache-control: s-maxage=60\r\n", true)]
    {
        let alpha = numbered(fields);
        let gateway = before(&alpha);
        get(&gateway, "Authorization: Basic eA==\r\n");
        assert_eq!(get(&gateway, "").text(), if is_shared { "0" } else { "1" }, "{fields}");
    }
}

#[test]
fn a_key_of_our_own_that_no_provider_sees_keeps_nothing_from_being_shared() {
    let alpha = numbered(FRESH);
    let gateway = Gateway::start(
        "
clients: { mobile: { keys: [secret] } }
listeners: [ { name: web, bind: \"{web}\" } ]
providers: { alpha: { url: \"http://{alpha}\" } }
pools: { main: { providers: [alpha] } }
routes: [ { name: all, match: { path: \"/*\" }, pool: main, cache: {} } ]
",
        &[("alpha", alpha.address())],
    );
    is_told(&get(&gateway, "Authorization: Bearer secret\r\n"), "0", "sluice; fwd=uri-miss; stored");
    is_told(&get(&gateway, "X-API-Key: secret\r\n"), "0", "sluice; hit");
    is_told(&get(&gateway, ""), "0", "sluice; hit");
}

#[test]
fn a_post_is_kept_by_its_body_where_the_operator_says_so() {
    let alpha = origin(|number, request| {
        reply("200 OK", FRESH, &format!("{number} {}", String::from_utf8_lossy(&request.body)))
    });
    let gateway = with(alpha.address(), "post: true");
    let post = |fields: &str, body: &str| {
        ask(&gateway, "POST /", &format!("{fields}Content-Length: {}\r\n\r\n{body}", body.len()))
    };
    is_told(&post("", "one"), "0 one", "sluice; fwd=uri-miss; stored");
    is_told(&post("", "two"), "1 two", "sluice; fwd=uri-miss; stored");
    is_told(&post("", "one"), "0 one", "sluice; hit");
    let chunked = ask(&gateway, "POST /", "Transfer-Encoding: chunked\r\n\r\n1\r\no\r\n2\r\nne\r\n0\r\n\r\n");
    is_told(&chunked, "0 one", "sluice; hit");
    is_told(&get(&gateway, ""), "2 ", "sluice; fwd=uri-miss; stored");
    is_told(&post("Expect: 100-continue\r\n", "two"), "1 two", "sluice; hit");
    // Longer than what is kept to be sent again.
    let long = "x".repeat(2 << 20);
    assert_eq!(post("", &long).text().len(), long.len() + 2);
    assert_eq!(post("", &long).value("cache-status"), Some("sluice; fwd=bypass"));
}

#[test]
fn a_post_is_not_kept_where_nobody_says_so() {
    let alpha = numbered(FRESH);
    let gateway = before(&alpha);
    for number in 0..2 {
        is_told(&ask(&gateway, "POST /", "Content-Length: 0\r\n"), &number.to_string(), "sluice; fwd=method");
    }
}

#[test]
fn a_post_whose_body_comes_slowly_takes_none_of_the_routes_time_and_one_that_stops_is_told() {
    let alpha = origin(|_, request| reply("200 OK", FRESH, &String::from_utf8_lossy(&request.body)));
    let extra = Extra {
        listener: "limits: { idle_timeout: 1s }",
        route: "timeout: 300ms, cache: { post: true }",
        ..Extra::default()
    };
    let gateway = Gateway::before_address(alpha.address(), extra);
    let mut slow = gateway.connect();
    slow.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\non");
    pause(Duration::from_millis(500));
    slow.send("ce");
    is_told(&slow.answer(), "once", "sluice; fwd=uri-miss; stored");
    let mut stopped = gateway.connect();
    stopped.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\non");
    let told = stopped.answer();
    assert_eq!((told.status(), told.json()["reason"].as_str()), (408, Some("body_timeout")));
}
