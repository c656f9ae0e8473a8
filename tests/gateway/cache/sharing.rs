//! One cache for all clients and all versions, across reloads, within its bound.

use super::{EXPIRED, FRESH, ask, before, get, is_told, numbered, origin, reply};
use crate::http2::{Client, Http2Provider};
use crate::world::{BEFORE, Extra, Gateway, page};

#[test]
fn what_one_version_brought_is_given_to_the_other() {
    let alpha = numbered("cache-control: max-age=60\r\netag: \"1\"\r\n");
    let gateway = before(&alpha);
    let client = Client::connect(gateway.web());
    let authority = gateway.web().to_string();
    let first = client.ask("GET", "/", &[], None);
    assert_eq!(
        (first.text(), first.value("cache-status").map(|said| said.starts_with("sluice; fwd=uri-miss; stored"))),
        ("0".to_owned(), Some(true))
    );
    let mut wire = gateway.connect();
    wire.send(format!("GET / HTTP/1.1\r\nHost: {authority}\r\n\r\n"));
    is_told(&wire.answer(), "0", "sluice; hit");
    let hit = client.ask("GET", "/", &[], None);
    assert_eq!((hit.text(), hit.value("content-length")), ("0".to_owned(), Some("1")));
    assert!(hit.value("cache-status").is_some_and(|said| said.starts_with("sluice; hit")));
    assert_eq!(client.ask("GET", "/", &[("if-none-match", "\"1\"")], None).status, 304);
    let head = client.ask("HEAD", "/", &[], None);
    assert_eq!((head.text(), head.value("content-length")), (String::new(), Some("1")));
}

#[test]
fn a_large_one_goes_to_both_versions() {
    let body = "0123456789".repeat(50_000);
    let sent = body.clone();
    let alpha = origin(move |_, _| reply("200 OK", FRESH, &sent));
    let gateway = before(&alpha);
    let client = Client::connect(gateway.web());
    for _ in 0..3 {
        assert_eq!(client.get("/").text(), body);
    }
    assert_eq!(alpha.requests().len(), 1);
}

#[test]
fn a_provider_that_speaks_http2_is_kept_like_any_other() {
    let alpha = Http2Provider::answering("hello");
    let yaml = BEFORE
        .replace("http://", "h2c://")
        .replace("{listener}", "")
        .replace("{provider}", "")
        .replace("{route}", ", cache: { ttl: 60s }");
    let gateway = Gateway::start(&yaml, &[("alpha", alpha.address())]);
    is_told(&get(&gateway, ""), "hello", "sluice; fwd=uri-miss; stored");
    is_told(&get(&gateway, ""), "hello", "sluice; hit");
    assert_eq!(alpha.requests().len(), 1);
}

#[test]
fn http_1_0_is_answered_from_what_is_kept() {
    let alpha = numbered(FRESH);
    let gateway = before(&alpha);
    get(&gateway, "");
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().text(), "0");
    client.closes();
}

#[test]
fn requests_follow_each_other_on_one_connection_whatever_answers_them() {
    let alpha = numbered(FRESH);
    let gateway = before(&alpha);
    let mut client = gateway.connect();
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    client.send([request("/a"), request("/a"), request("/b"), request("/a")].concat());
    let bodies: Vec<String> = (0..4).map(|_| client.answer().text()).collect();
    assert_eq!(bodies, ["0", "0", "1", "0"]);
}

#[test]
fn a_reload_keeps_what_is_kept_and_what_the_new_rules_are_counts() {
    let alpha = numbered(FRESH);
    let extra = Extra { route: "cache: {}", ..Extra::default() };
    let gateway = Gateway::before_with(&alpha, extra);
    get(&gateway, "");
    let yaml = BEFORE.replace("{listener}", "").replace("{provider}", "");
    let with = |route: &str| format!("{}\nmemory: {{ cache: 64MiB }}\n", yaml.replace("{route}", route));
    gateway.rewrite(&with(", cache: { ttl: 1s }, rewrite: { response_headers: { set: { x-new: \"1\" } } }"));
    gateway.reload().expect("it is good");
    let hit = get(&gateway, "");
    is_told(&hit, "0", "sluice; hit");
    assert_eq!(hit.value("x-new"), Some("1"));
    let shown: serde_json::Value = serde_json::from_str(&page(gateway.admin(), "/api/v1/cache")).expect("JSON");
    assert_eq!(shown["capacity_bytes"], 64 << 20);
}

#[test]
fn what_is_kept_stays_within_its_bound() {
    let body = "x".repeat(20_000);
    let alpha = origin(move |_, _| reply("200 OK", FRESH, &body));
    let yaml = BEFORE.replace("{listener}", "").replace("{provider}", "").replace("{route}", ", cache: {}");
    let gateway = Gateway::start(&format!("{yaml}\nmemory: {{ cache: 1MiB }}\n"), &[("alpha", alpha.address())]);
    for number in 0..200 {
        assert_eq!(ask(&gateway, &format!("GET /{number}"), "").text().len(), 20_000);
    }
    let bytes = gateway.metric("sluice_cache_bytes", &[]);
    assert!(bytes > 100_000.0 && bytes <= f64::from(1 << 20), "{bytes}");
    is_told(&ask(&gateway, "GET /199", ""), &"x".repeat(20_000), "sluice; hit");
}

#[test]
fn a_retry_that_helped_is_told_and_what_it_brought_is_kept() {
    let alpha = origin(|number, _| match number {
        0 => reply("503 No", "", "no"),
        _ => reply("200 OK", FRESH, &number.to_string()),
    });
    let route = "cache: {}, retry: { attempts: 2, backoff: { initial: 1ms } }";
    let gateway = Gateway::before_with(&alpha, Extra { route, ..Extra::default() });
    let first = get(&gateway, "");
    is_told(&first, "1", "sluice; fwd=uri-miss; stored");
    assert!(first.value("proxy-status").is_some_and(|told| told.contains("alpha 503")));
    let hit = get(&gateway, "");
    is_told(&hit, "1", "sluice; hit");
    assert_eq!(hit.value("proxy-status"), None);
    let line = &gateway.wait_for_access_log(1)[0];
    assert_eq!(line["attempts"].as_array().map(Vec::len), Some(2), "{line}");
}

#[test]
fn an_error_that_passes_through_says_what_was_tried() {
    let alpha = origin(|number, _| match number {
        0 => reply("200 OK", EXPIRED, "kept"),
        _ => reply("503 No", "x-own: 1\r\n", "no"),
    });
    let route = "cache: { stale_if_error: 0s }, retry: { attempts: 1 }";
    let gateway = Gateway::before_with(&alpha, Extra { route, ..Extra::default() });
    get(&gateway, "");
    let failed = get(&gateway, "");
    assert_eq!((failed.status(), failed.value("x-own")), (503, Some("1")));
    is_told(&failed, "no", "sluice; fwd=stale");
    assert!(failed.value("proxy-status").is_some_and(|told| told.contains("alpha 503")), "{failed:?}");
}
