//! What is kept is forgotten: because something was written, and because an operator says so.

use super::{FRESH, ask, before, get, is_told, numbered, origin, reply};
use crate::world::{Extra, Gate, Gateway, Message, Provider, Wire, page};
use serde_json::Value;

fn forget(gateway: &Gateway, query: &str) -> Message {
    let mut admin = Wire::connect(gateway.admin());
    admin.send(format!("DELETE /api/v1/cache?{query} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"));
    admin.answer()
}

fn is_get(request: &Message) -> bool {
    request.head.line.starts_with("GET")
}

fn kept(gateway: &Gateway) -> Value {
    serde_json::from_str(&page(gateway.admin(), "/api/v1/cache")).expect("JSON")
}

#[test]
fn what_was_written_is_not_given_as_it_was() {
    for (method, status, is_forgotten) in [
        ("POST", "200 OK", true),
        ("PUT", "201 Created", true),
        ("DELETE", "303 See Other", true),
        ("POST", "404 Not Found", false),
        ("OPTIONS", "200 OK", false),
    ] {
        let alpha =
            origin(
                move |number, request| {
                    if is_get(request) { reply("200 OK", FRESH, &number.to_string()) } else { reply(status, "", "") }
                },
            );
        let gateway = before(&alpha);
        get(&gateway, "");
        is_told(&ask(&gateway, &format!("{method} /"), ""), "", "sluice; fwd=method");
        let again = get(&gateway, "");
        assert_eq!(again.text(), if is_forgotten { "2" } else { "0" }, "{method} {status}");
    }
}

#[test]
fn so_is_what_the_answer_names_if_it_is_of_the_same_origin() {
    for (field, is_forgotten) in [
        ("location: /list", true),
        ("content-location: http://a/list", true),
        ("location: http://b/list", false),
        ("location: https://a/list", false),
    ] {
        let alpha = origin(move |number, request| {
            if is_get(request) {
                reply("200 OK", FRESH, &number.to_string())
            } else {
                reply("201 Created", &format!("{field}\r\n"), "")
            }
        });
        let gateway = before(&alpha);
        ask(&gateway, "GET /list", "");
        ask(&gateway, "POST /new", "");
        assert_eq!(ask(&gateway, "GET /list", "").text(), if is_forgotten { "2" } else { "0" }, "{field}");
    }
}

#[test]
fn it_does_not_matter_by_which_route_it_was_written() {
    let alpha =
        origin(
            move |number, request| {
                if is_get(request) { reply("200 OK", FRESH, &number.to_string()) } else { reply("200 OK", "", "") }
            },
        );
    let gateway = Gateway::start(
        "
listeners: [ { name: web, bind: \"{web}\" } ]
providers: { alpha: { url: \"http://{alpha}\" } }
pools: { main: { providers: [alpha] } }
routes:
  - { name: reads, match: { path: \"/*\", methods: [GET] }, pool: main, cache: {} }
  - { name: writes, match: { path: \"/*\", methods: [POST] }, pool: main }
",
        &[("alpha", alpha.address())],
    );
    get(&gateway, "");
    assert_eq!(ask(&gateway, "POST /", "").value("cache-status"), None);
    assert_eq!(get(&gateway, "").text(), "2");
}

#[test]
fn what_was_asked_for_before_something_was_written_is_not_kept() {
    let gate = Gate::default();
    let hold = gate.clone();
    let alpha = origin(move |number, request| {
        if !is_get(request) {
            return reply("200 OK", "", "");
        }
        if number == 0 {
            hold.pass();
        }
        reply("200 OK", FRESH, &number.to_string())
    });
    let gateway = before(&alpha);
    let mut early = gateway.connect();
    early.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    alpha.wait_for_requests(1);
    ask(&gateway, "POST /", "");
    gate.open();
    assert_eq!(early.answer().text(), "0");
    assert_eq!(get(&gateway, "").text(), "2");
}

#[test]
fn operators_have_a_url_a_folder_or_a_route_forgotten() {
    let alpha = numbered(FRESH);
    let gateway = before(&alpha);
    let all = ["/a", "/a?q", "/b"];
    let fill = || all.iter().for_each(|path| drop(ask(&gateway, &format!("GET {path}"), "")));
    let hits = || all.iter().map(|path| ask(&gateway, &format!("GET {path}"), "")).filter(is_hit).count();
    for (query, count) in [
        ("key=http://a/a", 1),
        ("key=http%3A%2F%2Fa%2Fa%3Fq", 1),
        ("prefix=http://a/a", 2),
        ("route=all", 3),
        ("route=b", 0),
    ] {
        fill();
        let told = forget(&gateway, query);
        assert_eq!((told.status(), &told.json()["forgotten"]), (200, &count.into()), "{query}");
        assert_eq!(hits(), 3 - count, "{query}");
    }
    assert_eq!(forget(&gateway, "").status(), 400);
    let shown = kept(&gateway);
    assert_eq!((&shown["entries"], &shown["routes"][0]["route"]), (&3.into(), &"all".into()));
    assert!(shown["bytes"].as_u64() > Some(0) && shown["routes"][0]["hits"].as_u64() > Some(0), "{shown}");
}

fn is_hit(answer: &Message) -> bool {
    answer.value("cache-status").is_some_and(|said| said.starts_with("sluice; hit"))
}

#[test]
fn without_a_cache_there_is_nothing_to_see() {
    let alpha = Provider::answering("HTTP/1.1 204 No Content\r\n\r\n");
    let gateway = Gateway::before(&alpha);
    let mut admin = Wire::connect(gateway.admin());
    admin.send("GET /api/v1/cache HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    assert_eq!(admin.answer().status(), 404);
    assert_eq!(forget(&gateway, "route=all").json()["forgotten"], 0);
}

#[test]
fn what_is_forgotten_is_found_however_its_url_is_spelt() {
    let alpha = numbered(FRESH);
    let gateway = before(&alpha);
    for url in ["http://A:80/x/%7Eb?q", "http://a//x/./~b?q", "HTTP://a/x/~b?q"] {
        ask(&gateway, "GET /x/~b?q", "");
        let told = forget(&gateway, &format!("key={}", url.replace('%', "%25")));
        assert_eq!(told.json()["forgotten"], 1, "{url}");
    }
    assert_eq!(forget(&gateway, "key=/x").status(), 400, "no URL");
}

#[test]
fn what_is_forgotten_is_found_by_the_host_that_clients_ask_for() {
    let alpha = numbered(FRESH);
    let listener = "trusted_proxies: [127.0.0.0/8]";
    let gateway = Gateway::before_with(&alpha, Extra { listener, route: "cache: {}", ..Extra::default() });
    for what in ["key=http://shop.example/", "key=http://a/", "prefix=http://shop.example/"] {
        get(&gateway, "X-Forwarded-Host: shop.example\r\n");
        assert_eq!(forget(&gateway, what).json()["forgotten"], 1, "{what}");
    }
}
