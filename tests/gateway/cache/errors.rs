//! What is kept stands in for an error, as long as origin and operator allow it (RFC 5861 §4).

use super::{EXPIRED, FRESH, get, is_told, origin, reply, with};
use crate::world::{Extra, Gateway, Provider, page, refusing, wait_until};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const STALE: &str = "sluice; hit; detail=stale-if-error";

/// A provider that answers once and then does `then`.
fn once(then: impl Fn(&mut crate::world::Peer) + Send + Sync + 'static) -> Provider {
    let count = AtomicUsize::new(0);
    Provider::scripted(move |peer| {
        while peer.request().is_some() {
            if count.fetch_add(1, Ordering::SeqCst) > 0 {
                return then(peer);
            }
            peer.wire.send(reply("200 OK", EXPIRED, "kept"));
        }
    })
}

#[test]
fn it_stands_in_for_a_server_error_but_not_for_another() {
    for status in [500, 502, 503, 504] {
        let alpha = once(move |peer| peer.answer(&format!("{status} No"), "error"));
        let gateway = with(alpha.address(), "stale_if_error: 1h");
        get(&gateway, "");
        let stale = get(&gateway, "");
        is_told(&stale, "kept", &format!("sluice; fwd=stale; fwd-status={status}; detail=stale-if-error"));
        assert!(stale.value("cache-status").is_some_and(|said| said.contains("ttl=-9")), "{stale:?}");
        assert_eq!(gateway.wait_for_access_log(2)[1]["cache"], "stale");
    }
    for status in [404, 501, 505] {
        let alpha = once(move |peer| peer.answer(&format!("{status} No"), "error"));
        let gateway = with(alpha.address(), "stale_if_error: 1h");
        get(&gateway, "");
        assert_eq!(get(&gateway, "").status(), status);
    }
}

#[test]
fn it_stands_in_where_nobody_can_be_reached() {
    let alpha = once(|_| {});
    let gateway = with(alpha.address(), "stale_if_error: 1h");
    get(&gateway, "");
    is_told(&get(&gateway, ""), "kept", STALE);
    drop(alpha);
    is_told(&get(&gateway, ""), "kept", STALE);
    let (_held, nobody) = refusing();
    assert_eq!(get(&with(nobody, "stale_if_error: 1h"), "").status(), 502);
}

#[test]
fn it_does_not_where_origin_or_operator_forbid_it() {
    for (kept, cache) in [
        ("cache-control: max-age=10, must-revalidate\r\nage: 100\r\netag: \"1\"\r\n", "stale_if_error: 1h"),
        (EXPIRED, "stale_if_error: 0s"),
        (EXPIRED, "stale_if_error: 60s"),
    ] {
        let alpha = origin(move |number, _| match number {
            0 => reply("200 OK", kept, "kept"),
            _ => reply("503 No", "", "error"),
        });
        let gateway = with(alpha.address(), cache);
        get(&gateway, "");
        assert_eq!(get(&gateway, "").status(), 503, "{kept} {cache}");
    }
}

#[test]
fn it_stands_in_for_an_open_circuit() {
    let alpha = once(|peer| peer.answer("500 No", "error"));
    let gateway = with(alpha.address(), "stale_if_error: 1h");
    get(&gateway, "");
    let mut admin = crate::world::Wire::connect(gateway.admin());
    admin.send("POST /api/v1/circuit-breakers/alpha/open HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    assert_eq!(admin.answer().status(), 200);
    is_told(&get(&gateway, ""), "kept", STALE);
    assert_eq!(alpha.requests().len(), 1);
    // What is not kept has nothing to stand in for it.
    assert_eq!(super::ask(&gateway, "GET /other", "").status(), 503);
}

#[test]
fn it_stands_in_for_what_was_shed() {
    let busy = Arc::new(AtomicBool::new(false));
    let holds = Arc::clone(&busy);
    let alpha = Provider::scripted(move |peer| {
        while let Some(request) = peer.request() {
            if request.head.line.contains("/slow") {
                holds.store(true, Ordering::SeqCst);
                peer.wire.rest();
                return;
            }
            peer.wire.send(reply("200 OK", EXPIRED, "kept"));
        }
    });
    let gateway = Gateway::start(
        "
listeners: [ { name: web, bind: \"{web}\" } ]
providers: { alpha: { url: \"http://{alpha}\", limits: { concurrency: 1 } } }
pools: { main: { providers: [alpha], queue: { capacity: 1, timeout: 60s, reserve_high: 0 } } }
routes: [ { name: all, match: { path: \"/*\" }, pool: main, cache: { stale_if_error: 1h } } ]
",
        &[("alpha", alpha.address())],
    );
    get(&gateway, "");
    let mut slow = Vec::new();
    for path in ["/slow/1", "/slow/2"] {
        let mut client = gateway.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        slow.push(client);
    }
    wait_until("one is asked and one waits", || {
        let queue: serde_json::Value =
            serde_json::from_str(&page(gateway.admin(), "/api/v1/queues/main")).expect("JSON");
        busy.load(Ordering::SeqCst) && queue["depth"]["normal"] == 1
    });
    is_told(&get(&gateway, ""), "kept", STALE);
    assert_eq!(super::ask(&gateway, "GET /other", "").json()["reason"], "queue_full");
}

#[test]
fn it_is_labelled_as_what_a_ladder_answers() {
    let alpha = once(|peer| peer.answer("503 No", "error"));
    let gateway = with(alpha.address(), "stale_if_error: 1h");
    assert_eq!(get(&gateway, "").value("sluice-degraded"), None);
    let stale = get(&gateway, "");
    assert_eq!((stale.value("sluice-degraded"), stale.value("cache-control")), (Some("stale"), Some("no-cache")));
    gateway.wait_for_metric("sluice_degraded_responses_total", &[("route", "all"), ("rung", "stale")], 1.0);
    let line = &gateway.wait_for_access_log(2)[1];
    assert_eq!((&line["degraded"], &line["reason"]), (&"stale".into(), &"attempts_exhausted".into()));
    drop(alpha);
    let unreachable = get(&gateway, "");
    let told = unreachable.value("proxy-status").unwrap_or_default();
    // A connection that was kept may be found broken first.
    assert!(told.starts_with("sluice; error=") && told.contains("alpha "), "{told}");
}

#[test]
fn a_client_that_wants_it_new_gets_it_old_rather_than_an_error() {
    let alpha = once(|peer| peer.answer("503 No", "error"));
    let gateway = with(alpha.address(), "ttl: 60s");
    get(&gateway, "");
    let stale = get(&gateway, "Cache-Control: no-cache\r\n");
    assert_eq!((stale.text().as_str(), stale.value("sluice-degraded")), ("kept", Some("stale")));
}

#[test]
fn nobody_who_can_have_it_waits_for_a_circuit() {
    let alpha = once(|peer| peer.answer("500 No", "error"));
    let gateway = Gateway::start(
        "
listeners: [ { name: web, bind: \"{web}\" } ]
providers: { alpha: { url: \"http://{alpha}\", circuit_breaker: { failure_threshold: 1, recovery_timeout: 20s } } }
pools: { main: { providers: [alpha], queue: { timeout: 30s } } }
routes: [ { name: all, match: { path: \"/*\" }, pool: main, cache: {}, retry: { attempts: 1 } } ]
",
        &[("alpha", alpha.address())],
    );
    get(&gateway, "");
    is_told(&get(&gateway, ""), "kept", "sluice; fwd=stale; fwd-status=500; detail=stale-if-error");
    // Who has nothing to fall back on waits until the circuit may be probed.
    let mut waits = gateway.connect();
    waits.send("GET /other HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("one to wait", || {
        let queue: serde_json::Value =
            serde_json::from_str(&page(gateway.admin(), "/api/v1/queues/main")).expect("JSON");
        queue["depth"]["normal"] == 1
    });
    is_told(&get(&gateway, ""), "kept", STALE);
    assert_eq!(alpha.requests().len(), 2);
}

/// A gateway that keeps what `alpha` answers, and gives it in place of no error but where a rung says so.
fn placed(alpha: &Provider, rungs: &str) -> Gateway {
    let route = format!(
        "retry: {{ attempts: 1 }}, cache: {{ stale_if_error: 0s, stale_while_revalidate: 0s }}, degrade: [ {rungs} ]"
    );
    Gateway::before_address(alpha.address(), Extra { route: &route, ..Extra::default() })
}

const READY: &str = "{ static: { body: ready } }";

#[test]
fn a_stale_rung_gives_what_the_cache_would_not_up_to_the_age_its_operator_allows() {
    // It expired 90 s ago.
    for (max_age, text, rung) in [("91s", "kept", "stale"), ("89s", "ready", "static")] {
        let alpha = once(|peer| peer.answer("503 No", "error"));
        let gateway = placed(&alpha, &format!("{{ stale: {{ max_age: {max_age} }} }}, {READY}"));
        get(&gateway, "");
        for _ in 0..2 {
            let answer = get(&gateway, "");
            assert_eq!((answer.text().as_str(), answer.value("sluice-degraded")), (text, Some(rung)));
            let told = answer.value("proxy-status").unwrap_or_default();
            assert!(told.starts_with("sluice; error=") && told.contains("alpha 503"), "{told}");
        }
        let line = &gateway.wait_for_access_log(3)[1];
        assert_eq!((&line["degraded"], &line["reason"]), (&rung.into(), &"attempts_exhausted".into()));
        let labels = [("route", "all"), ("rung", rung)];
        gateway.wait_for_metric("sluice_degraded_responses_total", &labels, 2.0);
        let now: serde_json::Value =
            serde_json::from_str(&page(gateway.admin(), "/api/v1/degradation/all")).expect("JSON");
        assert_eq!((&now["degraded"], &now["answers_total"][rung]), (&true.into(), &2.into()), "{now}");
    }
}

#[test]
fn a_stale_rung_obeys_an_origin_that_forbids_stale_answers() {
    let strict = "cache-control: max-age=10, must-revalidate\r\nage: 100\r\netag: \"1\"\r\n";
    let alpha = origin(move |number, _| match number {
        0 => reply("200 OK", strict, "kept"),
        _ => reply("503 No", "", "error"),
    });
    let gateway = placed(&alpha, &format!("{{ stale: {{ max_age: 1h }} }}, {READY}"));
    get(&gateway, "");
    assert_eq!(get(&gateway, "").text(), "ready");
}

#[test]
fn rungs_above_and_below_a_stale_one_keep_their_order() {
    let alpha = once(|peer| peer.answer("503 No", "error"));
    let spare = origin(|number, _| match number {
        0 => reply("200 OK", FRESH, "spare"),
        _ => reply("503 No", "", "spare has none"),
    });
    let gateway = Gateway::start(
        "
listeners: [ { name: web, bind: \"{web}\" } ]
providers: { alpha: { url: \"http://{alpha}\" }, spare: { url: \"http://{spare}\" } }
pools: { main: { providers: [alpha] }, other: { providers: [spare] } }
routes:
  - name: all
    match: { path: \"/*\" }
    pool: main
    retry: { attempts: 1 }
    cache: {}
    degrade: [ { pool: other }, { stale: {} }, { static: { body: ready } } ]
",
        &[("alpha", alpha.address()), ("spare", spare.address())],
    );
    get(&gateway, "");
    let told = |answer: crate::world::Message| {
        (answer.text(), answer.value("sluice-degraded").map(str::to_owned).unwrap_or_default())
    };
    assert_eq!(told(get(&gateway, "")), ("spare".to_owned(), "pool".to_owned()));
    // What a rung brought was for one moment: nobody kept it.
    assert_eq!(told(get(&gateway, "")), ("kept".to_owned(), "stale".to_owned()));
    assert_eq!(told(super::ask(&gateway, "GET /other", "")), ("ready".to_owned(), "static".to_owned()));
    let lines = gateway.wait_for_access_log(4);
    let degraded: Vec<_> = lines.iter().map(|line| line["degraded"].as_str().unwrap_or("none")).collect();
    assert_eq!(degraded, ["none", "pool", "stale", "static"]);
}

#[test]
fn a_route_that_is_put_on_its_stale_rung_asks_nobody_for_what_is_kept() {
    let alpha = origin(|_, _| reply("200 OK", EXPIRED, "kept"));
    let gateway = placed(&alpha, "{ stale: { max_age: 1h } }");
    get(&gateway, "");
    let mut admin = crate::world::Wire::connect(gateway.admin());
    admin
        .send("POST /api/v1/degradation/all/force?rung=stale HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    assert_eq!(admin.answer().status(), 200);
    let stale = get(&gateway, "");
    is_told(&stale, "kept", "sluice; hit; detail=stale");
    assert_eq!((stale.value("sluice-degraded"), stale.value("proxy-status")), (Some("stale"), None));
    assert_eq!(alpha.requests().len(), 1);
    // What is not kept goes the ordinary way.
    assert_eq!(super::ask(&gateway, "GET /other", "").value("sluice-degraded"), None);
    assert_eq!(alpha.requests().len(), 2);
}

#[test]
fn all_who_wait_for_one_that_fails_are_given_what_is_kept_or_what_a_rung_gives() {
    let kept = |alpha: &Provider| with(alpha.address(), "stale_if_error: 1h");
    let by_rung = |alpha: &Provider| placed(alpha, "{ stale: { max_age: 1h } }");
    for begin in [&kept as &dyn Fn(&Provider) -> Gateway, &by_rung] {
        let gate = crate::world::Gate::default();
        let hold = gate.clone();
        let alpha = once(move |peer| {
            hold.pass();
            peer.answer("503 No", "error");
        });
        let gateway = begin(&alpha);
        get(&gateway, "");
        let mut clients: Vec<_> = (0..100).map(|_| gateway.connect()).collect();
        for client in &mut clients {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        }
        gateway.wait_for_metric("sluice_requests_in_flight", &[("route", "all")], 100.0);
        gate.open();
        for client in &mut clients {
            let answer = client.answer();
            assert_eq!((answer.text().as_str(), answer.value("sluice-degraded")), ("kept", Some("stale")));
        }
        assert_eq!(alpha.requests().len(), 2);
    }
}

#[test]
fn nobody_waits_for_a_circuit_behind_what_is_asked_in_the_background() {
    let alpha = origin(|number, _| match number {
        0 => reply("200 OK", "cache-control: max-age=10, stale-while-revalidate=600\r\nage: 100\r\n", "kept"),
        _ => reply("503 No", "", "error"),
    });
    let gateway = Gateway::start(
        "
listeners: [ { name: web, bind: \"{web}\" } ]
providers:
  alpha: { url: \"http://{alpha}\", circuit_breaker: { failure_threshold: 1, recovery_timeout: 4s } }
pools: { main: { providers: [alpha] } }
routes: [ { name: all, match: { path: \"/*\" }, pool: main, retry: { attempts: 1 }, cache: { stale_if_error: 1h } } ]
",
        &[("alpha", alpha.address())],
    );
    get(&gateway, "");
    assert_eq!(super::ask(&gateway, "GET /other", "").status(), 503, "it opens the circuit");
    is_told(&get(&gateway, ""), "kept", "sluice; hit; detail=stale-while-revalidate");
    // In life its time would be over now.
    is_told(&get(&gateway, "Cache-Control: max-age=0\r\n"), "kept", STALE);
    assert_eq!(alpha.requests().len(), 2, "nobody has waited for the probe");
}

#[test]
fn nobody_is_a_probe_who_can_have_what_is_kept() {
    let gate = crate::world::Gate::default();
    let (hold, count) = (gate.clone(), AtomicUsize::new(0));
    let alpha = Provider::scripted(move |peer| {
        while peer.request().is_some() {
            match count.fetch_add(1, Ordering::SeqCst) {
                0 => peer.wire.send(reply("200 OK", EXPIRED, "kept")),
                1 => peer.wire.send(reply("500 No", "", "error")),
                // The probe hangs, for as long as nobody lets it go.
                _ => {
                    hold.pass();
                    peer.wire.send(reply("200 OK", FRESH, "new"));
                }
            }
        }
    });
    let gateway = Gateway::start(
        "
listeners: [ { name: web, bind: \"{web}\" } ]
providers:
  alpha: { url: \"http://{alpha}\", circuit_breaker: { failure_threshold: 1, recovery_timeout: 1ms, success_threshold: 1 } }
pools: { main: { providers: [alpha] } }
routes: [ { name: all, match: { path: \"/*\" }, pool: main, cache: {}, retry: { attempts: 1 } } ]
",
        &[("alpha", alpha.address())],
    );
    get(&gateway, "");
    is_told(&get(&gateway, ""), "kept", "sluice; fwd=stale; fwd-status=500; detail=stale-if-error");
    wait_until("the probe", || {
        is_told(&get(&gateway, ""), "kept", STALE);
        alpha.requests().len() == 3
    });
    is_told(&get(&gateway, ""), "kept", STALE);
    gate.open();
    wait_until("what the probe brought", || get(&gateway, "").text() == "new");
    assert_eq!(alpha.requests().len(), 3);
}
