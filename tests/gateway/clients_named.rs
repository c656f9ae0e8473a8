//! Clients that the configuration names: how they are known, what they may ask for, and what no provider sees of it.

use crate::world::{Gateway, Provider};
use std::net::SocketAddr;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const BUSY: &str = "HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy";

/// A gateway that knows `mobile` by its key, and whoever this address range is as `inside`.
fn world(alpha: &Provider, inside: &str) -> Gateway {
    Gateway::start(&YAML.replace("{inside}", inside), &[("alpha", alpha.address())])
}

/// Sends a GET with these fields; gives the access log's line and what the provider saw last.
fn ask(gateway: &Gateway, alpha: &Provider, fields: &str) -> (serde_json::Value, Vec<(String, String)>) {
    let before = gateway.access_log().len();
    let mut client = gateway.connect();
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    client.answer();
    let line = gateway.wait_for_access_log(before + 1)[before].clone();
    let seen = alpha.requests().last().expect("a request").head.fields.clone();
    (line, seen.into_iter().map(|(name, value)| (name.to_lowercase(), value)).collect())
}

fn has(fields: &[(String, String)], name: &str) -> bool {
    fields.iter().any(|(field, _)| field == name)
}

#[test]
fn a_client_is_known_by_its_key_which_no_provider_sees() {
    let alpha = Provider::answering(OK);
    let gateway = world(&alpha, "192.0.2.0/24");
    for (fields, client, passes) in [
        ("Authorization: Bearer mobile-key\r\n", "mobile", &[][..]),
        ("authorization: bearer mobile-key\r\n", "mobile", &[]),
        ("X-API-Key: mobile-key\r\n", "mobile", &[]),
        ("Authorization: Bearer other\r\nX-API-Key: mobile-key\r\n", "mobile", &["authorization"]),
        ("Authorization: Bearer mobile-key\r\nX-API-Key: mobile-key\r\n", "mobile", &[]),
        ("Authorization: Bearer mobile-key\r\nX-API-Key: other\r\n", "mobile", &["x-api-key"]),
        ("Authorization: Basic mobile-key\r\n", "anonymous", &["authorization"]),
        ("Authorization: Bearer mobile-ke\r\n", "anonymous", &["authorization"]),
        ("X-API-Key: MOBILE-KEY\r\n", "anonymous", &["x-api-key"]),
        ("", "anonymous", &[]),
    ] {
        let (line, seen) = ask(&gateway, &alpha, fields);
        assert_eq!(line["client"], client, "{fields}");
        for name in ["authorization", "x-api-key"] {
            assert_eq!(has(&seen, name), passes.contains(&name), "{name} of {fields}");
        }
    }
}

#[test]
fn a_client_is_known_by_its_address_unless_it_shows_a_key() {
    let alpha = Provider::answering(OK);
    let gateway = world(&alpha, "127.0.0.0/8");
    assert_eq!(ask(&gateway, &alpha, "").0["client"], "inside");
    assert_eq!(ask(&gateway, &alpha, "X-API-Key: mobile-key\r\n").0["client"], "mobile");
    assert_eq!(ask(&gateway, &alpha, "X-API-Key: unknown\r\n").0["client"], "inside");
}

#[test]
fn a_request_is_as_urgent_as_it_says_up_to_what_its_client_may() {
    let alpha = Provider::answering(OK);
    let gateway = world(&alpha, "192.0.2.0/24");
    for (fields, named, stranger) in [
        ("", "low", "low"),
        ("X-Class: high\r\n", "high", "normal"),
        ("X-Class: 1\r\n", "normal", "normal"),
        ("X-Class: urgent\r\n", "low", "low"),
        ("Priority: u=0\r\n", "high", "normal"),
        ("Priority: u=3, i\r\n", "normal", "normal"),
        ("Priority: i, u=7\r\n", "low", "low"),
        ("Priority: u=9\r\n", "low", "low"),
        ("X-Class: low\r\nPriority: u=0\r\n", "low", "low"),
    ] {
        assert_eq!(ask(&gateway, &alpha, &format!("X-API-Key: mobile-key\r\n{fields}")).0["class"], named, "{fields}");
        assert_eq!(ask(&gateway, &alpha, fields).0["class"], stranger, "{fields}");
    }
}

#[test]
fn a_named_client_may_tighten_its_own_attempts_and_no_provider_sees_that_it_did() {
    let alpha = Provider::answering(BUSY);
    let gateway = world(&alpha, "192.0.2.0/24");
    for (fields, attempts) in [
        ("X-API-Key: mobile-key\r\nSluice-Attempts: 1\r\n", 1),
        ("X-API-Key: mobile-key\r\nSluice-Attempts: 9\r\n", 2),
        ("X-API-Key: mobile-key\r\nSluice-Attempts: 0\r\n", 2),
        ("X-API-Key: mobile-key\r\nSluice-Attempts: none\r\n", 2),
        ("Sluice-Attempts: 1\r\n", 2),
    ] {
        let (line, seen) = ask(&gateway, &alpha, fields);
        assert_eq!(line["attempts"].as_array().map(Vec::len), Some(attempts), "{fields}");
        assert!(!has(&seen, "sluice-attempts"), "{fields}");
    }
}

#[test]
fn a_named_client_may_tighten_its_own_timeout_and_no_provider_sees_that_it_did() {
    let alpha = Provider::scripted(|peer| {
        while let Some(request) = peer.request() {
            if request.head.value("x-mute").is_some() {
                peer.wire.rest();
                return;
            }
            peer.wire.send(OK);
        }
    });
    let gateway = world(&alpha, "192.0.2.0/24");
    let (line, seen) = ask(&gateway, &alpha, "X-API-Key: mobile-key\r\nSluice-Timeout: 100ms\r\nX-Mute: 1\r\n");
    assert_eq!((&line["status"], &line["reason"]), (&504.into(), &"deadline".into()));
    assert_eq!(line["attempts"][0]["outcome"], "local_refusal", "a provider is not blamed for its client's haste");
    assert!(!has(&seen, "sluice-timeout"));
    // The provider is told how long there is: it shows whose word counted.
    let left = |fields: &str| {
        let (_, seen) = ask(&gateway, &alpha, fields);
        assert!(!has(&seen, "sluice-timeout"));
        let (_, left) = seen.iter().find(|(name, _)| name == "x-left").expect("the time left").clone();
        left.parse::<u64>().expect("milliseconds")
    };
    assert!(left("X-API-Key: mobile-key\r\nSluice-Timeout: 20s\r\n") <= 20_000);
    for ignored in [
        "X-API-Key: mobile-key\r\nSluice-Timeout: 2h\r\n",
        "Sluice-Timeout: 1s\r\n",
        "X-API-Key: mobile-key\r\nSluice-Timeout: 0s\r\n",
    ] {
        let left = left(ignored);
        assert!((20_001..=60_000).contains(&left), "{left} with {ignored}");
    }
}

#[test]
fn the_time_left_goes_up_in_the_field_of_the_providers_choice_and_a_clients_own_word_does_not() {
    let alpha = Provider::answering(OK);
    let gateway = world(&alpha, "192.0.2.0/24");
    let (_, seen) = ask(&gateway, &alpha, "X-Left: 999999999\r\nX_Left: 999999999\r\n");
    let left: Vec<_> = seen.iter().filter(|(name, _)| name.replace('_', "-") == "x-left").collect();
    assert_eq!(left.len(), 1, "{seen:?}");
    assert!(left[0].1.parse::<u64>().is_ok_and(|left| left <= 60_000), "{left:?}");
}

const YAML: &str = "
listeners: [ { name: web, bind: \"{web}\" } ]
clients:
  mobile: { keys: [mobile-key], max_class: high }
  inside: { addresses: [\"{inside}\"] }
providers: { alpha: { url: \"http://{alpha}\", deadline_header: x-left, circuit_breaker: { failures: [connect] } } }
pools: { main: { providers: [alpha] } }
routes:
  - name: all
    match: { path: \"/*\" }
    pool: main
    class: { default: low, header: x-class }
    timeout: 60s
    retry: { attempts: 2, backoff: { initial: 1ms, max: 1ms } }
";
