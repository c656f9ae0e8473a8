//! Many who want the same are one request to a provider, and nobody's fate is another's.

use super::{FRESH, ask, before, get, is_told, numbered, origin, reply, told, with};
use crate::world::{BEFORE, Extra, Gate, Gateway, PREAMBLE, Provider, Wire, wait_until};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

/// Who ask at once, for one thing after the other.
const CLIENTS: usize = 8;
const KEYS: usize = 300;

/// Bytes of a chunk, and chunks of a body that is far more than sockets hold.
const CHUNK: usize = 64 << 10;
const CHUNKS: usize = 512;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A provider that answers request `n` with `answer(n)` once the gate is open; nothing closes the connection.
fn held(gate: &Gate, answer: impl Fn(usize) -> Option<String> + Send + Sync + 'static) -> Provider {
    let (gate, count, answer) = (gate.clone(), AtomicUsize::new(0), Arc::new(answer));
    Provider::scripted(move |peer| {
        while peer.request().is_some() {
            let number = count.fetch_add(1, Ordering::SeqCst);
            gate.pass();
            match answer(number) {
                Some(answer) if peer.wire.try_send(&answer).is_ok() => {}
                _ => return,
            }
        }
    })
}

fn asking(gateway: &Gateway, count: usize, request: &str) -> Vec<Wire> {
    let begin = |_| {
        let mut client = gateway.connect();
        client.send(request);
        client
    };
    (0..count).map(begin).collect()
}

fn in_flight(gateway: &Gateway, count: usize) {
    gateway.wait_for_metric("sluice_requests_in_flight", &[("route", "all")], count as f64);
}

#[test]
fn a_thousand_equal_misses_at_once_are_one_request() {
    let gate = Gate::default();
    let alpha = held(&gate, |number| Some(reply("200 OK", FRESH, &number.to_string())));
    let gateway = before(&alpha);
    let clients = asking(&gateway, 1000, GET);
    in_flight(&gateway, 1000);
    gate.open();
    let mut collapsed = 0;
    for mut client in clients {
        let (body, status) = told(&client.answer());
        assert_eq!(body, "0");
        collapsed += usize::from(status == "sluice; fwd=uri-miss; collapsed");
    }
    assert_eq!((alpha.requests().len(), collapsed), (1, 999));
    gateway.wait_for_metric("sluice_cache_requests_total", &[("result", "collapsed")], 999.0);
}

#[test]
fn whoever_comes_just_as_it_is_kept_asks_nobody_either() {
    let alpha = numbered(FRESH);
    let yaml = format!("{PREAMBLE}{BEFORE}").replace("workers: 1", "workers: 4");
    let yaml = yaml.replace("{listener}", "").replace("{provider}", "").replace("{route}", ", cache: {}");
    let gateway = Gateway::start(&yaml, &[("alpha", alpha.address())]);
    let together = Barrier::new(CLIENTS);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = gateway.connect();
                for key in 0..KEYS {
                    together.wait();
                    client.send(format!("GET /{key} HTTP/1.1\r\nHost: a\r\n\r\n"));
                    assert_eq!(client.answer().text(), key.to_string());
                }
            });
        }
    });
    assert_eq!(alpha.requests().len(), KEYS);
}

#[test]
fn what_one_is_told_for_himself_keeps_the_others_from_nothing() {
    let gate = Gate::default();
    let hold = gate.clone();
    let alpha = origin(move |_, request| {
        if request.value("cookie").is_some() {
            return reply("200 OK", "", "own");
        }
        hold.pass();
        reply("200 OK", "", "all")
    });
    let gateway = with(alpha.address(), "ttl: 60s");
    is_told(&get(&gateway, "Cookie: id=1\r\n"), "own", "sluice; fwd=uri-miss");
    let clients = asking(&gateway, 20, GET);
    in_flight(&gateway, 20);
    gate.open();
    for mut client in clients {
        assert_eq!(client.answer().text(), "all");
    }
    assert_eq!(alpha.requests().len(), 2);
}

#[test]
fn followers_read_a_body_while_it_comes_in() {
    let alpha = Provider::by_hand();
    let gateway = before(&alpha);
    let mut first = asking(&gateway, 1, GET);
    let mut provider = alpha.accept();
    provider.request();
    let mut clients = asking(&gateway, 20, GET);
    in_flight(&gateway, 21);
    clients.append(&mut first);
    provider.send(format!("HTTP/1.1 200 OK\r\n{FRESH}transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"));
    for client in &mut clients {
        assert_eq!(client.head().status(), 200);
        assert_eq!(client.chunk().as_deref(), Some(&b"hello"[..]));
    }
    let mut late = asking(&gateway, 1, GET);
    assert_eq!(late[0].head().status(), 200);
    assert_eq!(late[0].chunk().as_deref(), Some(&b"hello"[..]));
    provider.send("2\r\n!!\r\n0\r\n\r\n");
    for client in clients.iter_mut().chain(&mut late) {
        assert_eq!(client.chunk().as_deref(), Some(&b"!!"[..]));
        assert_eq!(client.chunk(), None);
    }
    assert_eq!(alpha.connections(), 1);
}

#[test]
fn who_does_not_read_what_is_too_large_to_keep_loses_it_and_nobody_else_does() {
    let alpha = Provider::by_hand();
    let gateway = with(alpha.address(), "max_object: 64KiB");
    // Whoever it is that the answer was brought for.
    for stops in [0, 1] {
        let mut clients = asking(&gateway, 1, GET);
        let mut provider = alpha.accept();
        provider.request();
        clients.append(&mut asking(&gateway, 1, GET));
        in_flight(&gateway, 2);
        provider.send(format!("HTTP/1.1 200 OK\r\n{FRESH}transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"));
        for client in &mut clients {
            assert_eq!(client.head().status(), 200);
            assert_eq!(client.chunk().as_deref(), Some(&b"hello"[..]));
        }
        let mut slow = clients.remove(stops);
        let sends = std::thread::spawn(move || {
            let chunk = format!("{:x}\r\n{}\r\n", CHUNK, "x".repeat(CHUNK));
            (0..CHUNKS).for_each(|_| provider.send(&chunk));
            provider.send("0\r\n\r\n");
        });
        let mut read = 0;
        while let Some(chunk) = clients[0].chunk() {
            read += chunk.len();
        }
        assert_eq!(read, CHUNK * CHUNKS);
        sends.join().expect("all was taken");
        // That it is not whole shows: the last chunk is missing.
        let rest = slow.rest();
        assert!(rest.len() < CHUNK * CHUNKS && !rest.ends_with(b"0\r\n\r\n"), "{} bytes", rest.len());
        in_flight(&gateway, 0);
        let lines = gateway.wait_for_access_log(2 * (stops + 1));
        let mut told: Vec<_> = lines[2 * stops..].iter().map(|line| (&line["status"], &line["error"])).collect();
        told.sort_by_key(|(status, _)| status.as_u64());
        let gone = (&499.into(), &"client_too_slow".into());
        assert_eq!(told, [(&200.into(), &serde_json::Value::Null), gone]);
        gateway.wait_for_metric("sluice_attempts_total", &[("outcome", "success")], stops as f64 + 1.0);
    }
    gateway.wait_for_metric("sluice_requests_total", &[("status_class", "gone")], 2.0);
}

#[test]
fn when_who_leads_fails_one_of_the_others_leads() {
    let gate = Gate::default();
    let alpha = held(&gate, |number| (number > 0).then(|| reply("200 OK", FRESH, &number.to_string())));
    let gateway = before(&alpha);
    let clients = asking(&gateway, 50, GET);
    in_flight(&gateway, 50);
    gate.open();
    let answers: Vec<_> = clients.into_iter().map(|mut client| client.answer()).collect();
    let failed: Vec<_> = answers.iter().filter(|answer| answer.status() != 200).collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].status(), 502);
    assert!(answers.iter().all(|answer| answer.status() == 502 || answer.text() == "1"));
    assert_eq!(alpha.requests().len(), 2);
}

#[test]
fn when_the_client_leaves_for_whom_it_was_begun_nobody_notices() {
    let gate = Gate::default();
    let alpha = held(&gate, |number| Some(reply("200 OK", FRESH, &number.to_string())));
    let gateway = before(&alpha);
    let first = asking(&gateway, 1, GET);
    alpha.wait_for_requests(1);
    let others = asking(&gateway, 10, GET);
    in_flight(&gateway, 11);
    drop(first);
    in_flight(&gateway, 10);
    gate.open();
    for mut client in others {
        assert_eq!(told(&client.answer()).0, "0");
    }
    assert_eq!(alpha.requests().len(), 1);
}

#[test]
fn what_nobody_wants_any_more_is_given_up() {
    let alpha = Provider::by_hand();
    let gateway = before(&alpha);
    let clients = asking(&gateway, 1, GET);
    let mut provider = alpha.accept();
    provider.request();
    drop(clients);
    provider.end();
    gateway.wait_for_metric("sluice_in_flight", &[], 0.0);
}

#[test]
fn followers_leave_as_soon_as_the_head_says_that_it_is_for_one_and_later_ones_do_not_wait() {
    let gate = Gate::default();
    let (hold, rest) = (gate.clone(), Gate::default());
    let ends = rest.clone();
    let count = AtomicUsize::new(0);
    let alpha = Provider::scripted(move |peer| {
        while peer.request().is_some() {
            let number = count.fetch_add(1, Ordering::SeqCst);
            if number > 0 {
                peer.answer("200 OK", &number.to_string());
                continue;
            }
            hold.pass();
            peer.wire.send("HTTP/1.1 200 OK\r\ncache-control: private\r\ncontent-length: 2\r\n\r\n0");
            ends.pass();
            peer.wire.send("!");
        }
    });
    let route = "cache: {}, retry: { attempts: 1, commit: { within: 1ms } }";
    let gateway = Gateway::before_with(&alpha, Extra { route, ..Extra::default() });
    let mut first = asking(&gateway, 1, GET);
    alpha.wait_for_requests(1);
    let others = asking(&gateway, 10, GET);
    in_flight(&gateway, 11);
    gate.open();
    let mut bodies: Vec<String> = others.into_iter().map(|mut client| told(&client.answer()).0).collect();
    bodies.sort();
    let all: std::collections::BTreeSet<&String> = bodies.iter().collect();
    assert_eq!(all.len(), 10, "each has its own: {bodies:?}");
    assert_eq!(get(&gateway, "").status(), 200);
    rest.open();
    assert_eq!(first[0].answer().text(), "0!");
    assert_eq!(alpha.requests().len(), 12);
}

#[test]
fn each_kind_of_a_varying_reply_is_brought_once() {
    let gate = Gate::default();
    let alpha = {
        let gate = gate.clone();
        Provider::scripted(move |peer| {
            while let Some(request) = peer.request() {
                gate.pass();
                let language = request.value("accept-language").unwrap_or_default();
                peer.wire.send(reply("200 OK", "cache-control: max-age=60\r\nvary: accept-language\r\n", language));
            }
        })
    };
    let gateway = before(&alpha);
    let asked = |language: &str| format!("GET / HTTP/1.1\r\nHost: a\r\nAccept-Language: {language}\r\n\r\n");
    let mut clients = asking(&gateway, 1, &asked("de"));
    alpha.wait_for_requests(1);
    clients.extend(asking(&gateway, 20, &asked("de")));
    let others = asking(&gateway, 20, &asked("fr"));
    in_flight(&gateway, 41);
    gate.open();
    for mut client in clients {
        assert_eq!(client.answer().text(), "de");
    }
    for mut client in others {
        assert_eq!(client.answer().text(), "fr");
    }
    assert_eq!(alpha.requests().len(), 2);
}

#[test]
fn what_has_just_expired_is_given_while_it_is_asked_for_in_the_background() {
    let gate = Gate::default();
    let alpha = {
        let gate = gate.clone();
        origin(move |number, request| {
            if number == 0 {
                return reply("200 OK", "cache-control: max-age=10\r\nage: 11\r\netag: \"0\"\r\n", "0");
            }
            assert_eq!(request.value("if-none-match"), Some("\"0\""));
            gate.pass();
            reply("200 OK", FRESH, &number.to_string())
        })
    };
    let gateway = with(alpha.address(), "stale_while_revalidate: 1h");
    is_told(&get(&gateway, ""), "0", "sluice; fwd=uri-miss; stored");
    for _ in 0..20 {
        is_told(&get(&gateway, ""), "0", "sluice; hit; detail=stale-while-revalidate");
    }
    alpha.wait_for_requests(2);
    gate.open();
    wait_until("the new one", || told(&get(&gateway, "")).0 == "1");
    assert_eq!(alpha.requests().len(), 2);
    gateway.wait_for_metric("sluice_requests_in_flight", &[], 0.0);
}

#[test]
fn a_head_that_finds_what_has_just_expired_has_the_whole_asked_for() {
    let alpha = origin(|number, request| {
        assert!(request.head.line.starts_with("GET"), "{}", request.head.line);
        let fields = if number == 0 { "cache-control: max-age=10\r\nage: 11\r\n" } else { FRESH };
        reply("200 OK", fields, &number.to_string())
    });
    let gateway = with(alpha.address(), "stale_while_revalidate: 1h");
    get(&gateway, "");
    let head = ask(&gateway, "HEAD /", "");
    assert_eq!((head.status(), head.value("content-length")), (200, Some("1")));
    alpha.wait_for_requests(2);
    wait_until("the new one", || told(&get(&gateway, "")).0 == "1");
}

#[test]
fn what_is_for_others_again_is_kept_again() {
    let alpha = origin(|number, _| {
        let fields = if number == 0 { "cache-control: no-store\r\n" } else { FRESH };
        reply("200 OK", fields, &number.to_string())
    });
    let gateway = before(&alpha);
    is_told(&get(&gateway, ""), "0", "sluice; fwd=uri-miss");
    is_told(&get(&gateway, ""), "1", "sluice; fwd=uri-miss");
    is_told(&get(&gateway, ""), "2", "sluice; fwd=uri-miss; stored");
    is_told(&get(&gateway, ""), "2", "sluice; hit");
}

#[test]
fn an_answer_that_breaks_off_is_never_kept() {
    let broken =
        [("content-length: 100000\r\n\r\n", "only this"), ("transfer-encoding: chunked\r\n\r\n", "9\r\nonly this\r\n")];
    for (framing, sent) in broken {
        let count = AtomicUsize::new(0);
        let alpha = Provider::scripted(move |peer| {
            while peer.request().is_some() {
                if count.fetch_add(1, Ordering::SeqCst) == 0 {
                    peer.wire.send(format!("HTTP/1.1 200 OK\r\n{FRESH}{framing}{sent}"));
                    return;
                }
                peer.wire.send(reply("200 OK", FRESH, "whole"));
            }
        });
        let gateway = before(&alpha);
        let mut client = gateway.connect();
        client.send(GET);
        assert_eq!(client.head().status(), 200);
        client.expect(sent);
        client.end();
        is_told(&get(&gateway, ""), "whole", "sluice; fwd=uri-miss; stored");
    }
}

#[test]
fn after_two_failures_nobody_waits_for_a_third() {
    let (begin, end, count) = (Gate::default(), Gate::default(), AtomicUsize::new(0));
    let (begins, ends) = (begin.clone(), end.clone());
    let alpha = Provider::scripted(move |peer| {
        while peer.request().is_some() {
            match count.fetch_add(1, Ordering::SeqCst) {
                0 => return begins.pass(),
                1 => return,
                _ => ends.pass(),
            }
            peer.wire.send(reply("200 OK", "cache-control: no-store\r\n", "own"));
        }
    });
    let gateway = before(&alpha);
    let clients = asking(&gateway, 50, GET);
    in_flight(&gateway, 50);
    begin.open();
    wait_until("everyone to ask", || alpha.requests().len() == 50);
    end.open();
    let own = clients.into_iter().map(|mut client| client.answer()).filter(|answer| answer.text() == "own").count();
    assert_eq!(own, 48);
}

#[test]
fn who_is_urgent_does_not_wait_behind_who_is_not() {
    let gate = Gate::default();
    let hold = gate.clone();
    let alpha = origin(move |number, _| {
        if number == 0 {
            hold.pass();
        }
        reply("200 OK", FRESH, &number.to_string())
    });
    let gateway = Gateway::start(
        "
listeners: [ { name: web, bind: \"{web}\" } ]
clients: { shop: { keys: [dev-key], max_class: high } }
providers: { alpha: { url: \"http://{alpha}\" } }
pools: { main: { providers: [alpha] } }
routes: [ { name: all, match: { path: \"/*\" }, pool: main, cache: {}, class: { default: normal, header: x-priority } } ]
",
        &[("alpha", alpha.address())],
    );
    let mut patient = asking(&gateway, 1, GET);
    wait_until("the first to be asked for", || alpha.requests().len() == 1);
    assert_eq!(get(&gateway, "X-API-Key: dev-key\r\nX-Priority: high\r\n").text(), "1");
    gate.open();
    assert_eq!(patient[0].answer().text(), "0");
}
