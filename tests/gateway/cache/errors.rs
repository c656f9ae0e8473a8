//! What is kept stands in for an error, as long as origin and operator allow it (RFC 5861 §4).

use super::{EXPIRED, get, is_told, origin, reply, with};
use crate::world::{Gateway, Provider, page, refusing, wait_until};
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
fn all_who_wait_for_one_that_fails_are_given_what_is_kept() {
    let gate = crate::world::Gate::default();
    let hold = gate.clone();
    let alpha = once(move |peer| {
        hold.pass();
        peer.answer("503 No", "error");
    });
    let gateway = with(alpha.address(), "stale_if_error: 1h");
    get(&gateway, "");
    let mut clients: Vec<_> = (0..100).map(|_| gateway.connect()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    gateway.wait_for_metric("sluice_requests_in_flight", &[("route", "all")], 100.0);
    gate.open();
    for client in &mut clients {
        assert_eq!(client.answer().text(), "kept");
    }
    assert_eq!(alpha.requests().len(), 2);
}
