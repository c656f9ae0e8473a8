//! What somebody would try who wants others to get what they must not get, or nobody to get anything.

use super::{FRESH, ask, get, is_told, numbered, origin, reply, with};
use crate::world::{Extra, Gate, Gateway, Provider};

/// A gateway that keeps answers, with a ladder that asks `spare`, and `more` of the route's keys.
fn with_spare(alpha: &Provider, spare: &Provider, more: &str) -> Gateway {
    let file = "
listeners: [ { name: web, bind: \"{web}\" } ]
providers: { alpha: { url: \"http://{alpha}\" }, spare: { url: \"http://{spare}\" } }
pools: { main: { providers: [alpha] }, other: { providers: [spare] } }
routes:
  - { name: all, match: { path: \"/*\" }, pool: main, retry: { attempts: 1 }, cache: {}, degrade: [ { pool: other } ]{more} }
";
    let file = file.replace("{more}", more);
    Gateway::start(&file, &[("alpha", alpha.address()), ("spare", spare.address())])
}

#[test]
fn what_is_for_one_hop_only_chose_nothing() {
    let alpha = origin(|_, request| {
        let fields = "cache-control: max-age=60\r\nvary: accept-language\r\n";
        reply("200 OK", fields, request.value("accept-language").unwrap_or("none"))
    });
    let gateway = with(alpha.address(), "");
    get(&gateway, "Accept-Language: de\r\nConnection: accept-language\r\n");
    assert_eq!(get(&gateway, "Accept-Language: de\r\n").text(), "de", "and not what the provider said to nobody");
}

#[test]
fn a_session_is_nobody_elses_unless_the_provider_says_that_it_is_for_all() {
    // A lifetime is such a word, also beside a cookie (RFC 9111 §7.3).
    for (fields, body) in [
        ("", "1"),
        ("set-cookie: id=1\r\n", "1"),
        ("cache-control: private, max-age=60\r\n", "1"),
        ("cache-control: max-age=60\r\n", "0"),
    ] {
        let alpha = numbered(fields);
        let gateway = with(alpha.address(), "");
        get(&gateway, "Cookie: id=1\r\n");
        assert_eq!(get(&gateway, "Cookie: id=2\r\n").text(), body, "{fields}");
    }
}

#[test]
fn section_4_of_rfc_6585_what_is_about_one_client_is_kept_for_nobody() {
    for status in ["428 Precondition Required", "429 Too Many Requests", "431 Too Large", "511 Log In First"] {
        let alpha = origin(move |number, _| {
            reply(if number == 0 { status } else { "200 OK" }, "cache-control: public, max-age=60\r\n", "")
        });
        let gateway = with(alpha.address(), "");
        get(&gateway, "");
        assert_eq!(get(&gateway, "").status(), 200, "{status}");
    }
}

#[test]
fn whatever_a_trusted_peer_passes_on_of_its_way_is_in_the_key() {
    for field in ["forwarded: for=192.0.2.1;host=evil;proto=https", "x-forwarded-prefix: /evil", "x-forwarded-port: 1"]
    {
        let name = field.split(':').next().unwrap_or_default();
        let alpha = origin(move |_, request| reply("200 OK", FRESH, request.value(name).unwrap_or("none")));
        let listener = "trusted_proxies: [127.0.0.0/8]";
        let gateway = Gateway::before_with(&alpha, Extra { listener, route: "cache: {}", ..Extra::default() });
        let (poisoned, plain) = (get(&gateway, &format!("{field}\r\n")).text(), get(&gateway, "").text());
        assert_ne!(plain, poisoned, "{field}");
    }
}

#[test]
fn one_body_of_two_types_is_two_questions() {
    for field in ["Content-Type", "Content-Encoding"] {
        let alpha =
            origin(move |_, request| reply("200 OK", FRESH, request.value(&field.to_lowercase()).unwrap_or("none")));
        let gateway = with(alpha.address(), "post: true");
        let post = |kind: &str| ask(&gateway, "POST /", &format!("{field}: {kind}\r\nContent-Length: 0\r\n")).text();
        assert_eq!([post("a/b"), post("c/d")], ["a/b", "c/d"]);
        let other = if field == "Content-Type" { "Content-Encoding" } else { "Content-Type" };
        let swapped = ask(&gateway, "POST /", &format!("{other}: a/b\r\nContent-Length: 0\r\n"));
        assert_eq!(swapped.text(), "none");
    }
}

#[test]
fn what_a_rung_answers_is_not_kept_where_the_operator_hides_its_label() {
    let alpha = origin(|number, _| reply(if number == 0 { "503 No" } else { "200 OK" }, "", "real"));
    let spare = numbered("cache-control: max-age=600\r\n");
    let gateway = with_spare(&alpha, &spare, ", rewrite: { response_headers: { remove: [sluice-degraded] } }");
    assert_eq!(get(&gateway, "").text(), "0");
    assert_eq!(get(&gateway, "").text(), "real");
}

#[test]
fn what_a_rung_says_to_head_changes_nothing_that_is_kept() {
    // Of the same length, and fresh: it would make what has expired as good as new. Of another: it would spoil it.
    for length in [4, 5] {
        let alpha = origin(|number, _| match number {
            0 => reply("200 OK", "cache-control: max-age=10\r\nage: 100\r\n", "real"),
            _ => "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n".to_owned(),
        });
        let head = format!("HTTP/1.1 200 OK\r\ncache-control: max-age=600\r\ncontent-length: {length}\r\n\r\n");
        let spare = origin(move |number, _| if number == 0 { head.clone() } else { reply("503 No", "", "") });
        let gateway = with_spare(&alpha, &spare, "");
        get(&gateway, "");
        assert_eq!(ask(&gateway, "HEAD /", "").value("sluice-degraded"), Some("pool"));
        let after = get(&gateway, "");
        assert_eq!((after.text(), after.value("sluice-degraded")), ("real".to_owned(), Some("stale")), "{length}");
    }
}

#[test]
fn no_body_without_an_end_outlives_who_reads_it() {
    for kind in ["text/event-stream", "application/x-ndjson"] {
        let alpha = Provider::scripted(move |peer| {
            peer.request();
            peer.wire.send(format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n"));
            loop {
                std::thread::park_timeout(std::time::Duration::from_millis(20));
                peer.wire.send("3\r\n:\n\n\r\n");
            }
        });
        let gateway = with(alpha.address(), "");
        let mut client = gateway.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client.head();
        gateway.wait_for_metric("sluice_in_flight", &[("provider", "alpha")], 1.0);
        drop(client);
        gateway.wait_for_metric("sluice_in_flight", &[("provider", "alpha")], 0.0);
    }
}

#[test]
fn a_session_without_a_word_of_the_provider_is_nobody_elses() {
    let alpha = numbered("set-cookie: id=1\r\n");
    let gateway = with(alpha.address(), "ttl: 60s");
    get(&gateway, "");
    is_told(&get(&gateway, ""), "1", "sluice; fwd=uri-miss");
}

#[test]
fn what_answers_a_reduced_request_is_no_part_of_the_whole_and_no_word_on_it() {
    let alpha = origin(|number, request| {
        let is_lite = request.head.line.contains("/lite");
        match request.value("if-none-match").or(request.value("range")) {
            Some(_) if is_lite => "HTTP/1.1 304 Not Modified\r\netag: \"1\"\r\n\r\n".to_owned(),
            _ if is_lite => reply("200 OK", "etag: \"1\"\r\n", "lite"),
            _ if number == 0 => reply("200 OK", "cache-control: max-age=10\r\nage: 100\r\netag: \"1\"\r\n", "real"),
            _ => reply("503 No", "", ""),
        }
    });
    let route = "retry: { attempts: 1 }, cache: { stale_if_error: 0s }, degrade: [ { reduced: { path: /lite } } ]";
    let gateway = Gateway::before_with(&alpha, Extra { route, ..Extra::default() });
    get(&gateway, "");
    // The first asks whether what is kept is good still; the others what their clients ask.
    for fields in ["", "Range: bytes=0-1\r\n", "Cache-Control: no-store\r\nIf-None-Match: \"1\"\r\n"] {
        let lite = get(&gateway, fields);
        assert_eq!((lite.text(), lite.value("sluice-degraded")), ("lite".to_owned(), Some("reduced")), "{fields}");
    }
}

#[test]
fn a_rungs_word_that_what_is_kept_is_good_is_not_kept() {
    let alpha = origin(|number, _| match number {
        0 => reply("200 OK", "cache-control: max-age=10\r\nage: 100\r\netag: \"1\"\r\n", "real"),
        _ => reply("503 No", "", ""),
    });
    let spare = origin(|_, request| match request.value("if-none-match") {
        Some(_) => "HTTP/1.1 304 Good\r\netag: \"1\"\r\ncache-control: max-age=600\r\n\r\n".to_owned(),
        None => reply("200 OK", "", "spare"),
    });
    let gateway = with_spare(&alpha, &spare, "");
    get(&gateway, "");
    for _ in 0..2 {
        let answer = get(&gateway, "");
        assert_eq!((answer.text(), answer.value("sluice-degraded")), ("spare".to_owned(), Some("pool")));
    }
}

#[test]
fn a_client_in_a_hurry_hurries_nobody_else() {
    let asked = Gate::default();
    let (begun, go) = (asked.clone(), Gate::default());
    let slow = go.clone();
    let alpha = origin(move |number, _| {
        if number > 0 {
            begun.open();
            slow.pass();
        }
        reply("200 OK", "cache-control: max-age=10\r\nage: 100\r\netag: \"1\"\r\n", &number.to_string())
    });
    let file = "
listeners: [ { name: web, bind: \"{web}\" } ]
clients: { hasty: { keys: [dev-key] } }
providers: { alpha: { url: \"http://{alpha}\" } }
pools: { main: { providers: [alpha] } }
routes: [ { name: all, match: { path: \"/*\" }, pool: main, retry: { attempts: 1 }, cache: {} } ]
";
    let gateway = Gateway::start(file, &[("alpha", alpha.address())]);
    get(&gateway, "");
    let mut hasty = gateway.connect();
    hasty.send("GET / HTTP/1.1\r\nHost: a\r\nX-API-Key: dev-key\r\nSluice-Timeout: 100ms\r\n\r\n");
    asked.pass();
    let mut patient = gateway.connect();
    patient.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(hasty.answer().value("sluice-degraded"), Some("stale"));
    go.open();
    assert_eq!(patient.answer().value("sluice-degraded"), None, "there was time enough");
}

#[test]
fn what_a_provider_may_take_for_another_method_is_kept_for_nobody() {
    for name in ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"] {
        let alpha = origin(|number, _| reply(if number == 0 { "404 Gone" } else { "200 OK" }, FRESH, ""));
        let gateway = with(alpha.address(), "");
        get(&gateway, &format!("{name}: DELETE\r\n"));
        assert_eq!(get(&gateway, "").status(), 200, "{name}");
    }
}

#[test]
fn who_asks_for_what_is_new_at_once_with_others_is_given_what_was_brought_since() {
    let gate = Gate::default();
    let hold = gate.clone();
    let alpha = origin(move |number, _| {
        if number > 0 {
            hold.pass();
        }
        reply("200 OK", FRESH, &number.to_string())
    });
    let gateway = with(alpha.address(), "");
    get(&gateway, "");
    let mut reloading: Vec<_> = (0..30).map(|_| gateway.connect()).collect();
    for client in &mut reloading {
        client.send("GET / HTTP/1.1\r\nHost: a\r\nCache-Control: no-cache\r\n\r\n");
    }
    gateway.wait_for_metric("sluice_requests_in_flight", &[("route", "all")], 30.0);
    gate.open();
    for client in &mut reloading {
        assert_eq!(client.answer().text(), "1");
    }
    assert_eq!(alpha.requests().len(), 2);
}

#[test]
fn what_nobody_waits_for_walks_no_ladder() {
    let stale = "cache-control: max-age=10, stale-while-revalidate=600\r\nage: 100\r\n";
    let alpha = origin(move |number, _| match number {
        0 => reply("200 OK", stale, "kept"),
        _ => reply("503 No", "", ""),
    });
    let spare = numbered(FRESH);
    let gateway = with_spare(&alpha, &spare, "");
    get(&gateway, "");
    is_told(&get(&gateway, ""), "kept", "sluice; hit; detail=stale-while-revalidate");
    gateway.wait_for_metric("sluice_attempts_total", &[("provider", "alpha")], 2.0);
    gateway.wait_for_metric("sluice_in_flight", &[("provider", "alpha")], 0.0);
    assert_eq!((alpha.requests().len(), spare.connections()), (2, 0));
    let nobody = gateway.metric("sluice_degraded_responses_total", &[("route", "all")]);
    assert!(nobody < 1.0, "{nobody}");
}
