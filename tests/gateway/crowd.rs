//! Many wait, and then something happens to all of them: nobody is forgotten, nothing is lost, and others do not notice.

use crate::http2::Client;
use crate::world::{Extra, Gate, Gateway, Provider, Sluice, Wire, page, wait_until};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A provider with one place, and bodies of which little is kept.
const NARROW: Extra<'_> =
    Extra { listener: "", provider: "limits: { concurrency: 1 }", route: "retry: { replay_bytes: 16KiB }" };

/// A provider that answers once the gate is open.
fn held(gate: &Gate) -> Provider {
    let gate = gate.clone();
    Provider::scripted(move |peer| {
        while peer.request().is_some() {
            gate.pass();
            if peer.wire.try_send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone").is_err() {
                return;
            }
        }
    })
}

fn look(gateway: &Gateway, path: &str) -> Value {
    serde_json::from_str(&page(gateway.admin(), &format!("/api/v1/{path}"))).expect("JSON")
}

fn order(gateway: &Gateway, path: &str) {
    let mut wire = Wire::connect(gateway.admin());
    wire.send(format!("POST /api/v1/{path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"));
    assert_eq!(wire.answer().status(), 200, "{path}");
}

fn waiting(gateway: &Gateway, pool: &str, count: u64) {
    wait_until(&format!("{count} to wait in {pool}"), || {
        let depth = &look(gateway, &format!("queues/{pool}"))["depth"];
        ["high", "normal", "low"].iter().filter_map(|class| depth[*class].as_u64()).sum::<u64>() == count
    });
}

fn is_over(gateway: &Gateway) {
    gateway.wait_for_metric("sluice_in_flight", &[], 0.0);
    gateway.wait_for_metric("sluice_requests_in_flight", &[], 0.0);
}

fn all_are_answered(clients: Vec<JoinHandle<()>>) {
    for client in clients {
        client.join().expect("every answer came");
    }
}

fn get(gateway: &Gateway, path: &str) -> Wire {
    let mut client = gateway.connect();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    client
}

#[test]
fn a_crowd_that_leaves_is_out_at_once_whatever_it_had_sent_and_loses_no_place() {
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 90000000\r\n\r\n";
    let cases = [
        ("nothing more", GET, 0),
        ("requests behind it", GET, 40_000),
        ("some of a body", post, 100),
        ("all of a body that is kept", post, 16 * 1024),
        ("a little more than is kept", post, 17 * 1024),
        ("as much as the buffers take", post, 40_000),
        ("more than that", post, 150_000),
        (
            "a body that nobody asked for",
            "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 90000\r\n\r\n",
            0,
        ),
    ];
    for (what, request, more) in cases {
        for resets in [false, true] {
            let gate = Gate::default();
            let alpha = held(&gate);
            let gateway = Gateway::before_with(&alpha, NARROW);
            let mut first = get(&gateway, "/");
            alpha.wait_for_requests(1);
            let mut crowd: Vec<_> = (0..CROWD).map(|_| gateway.connect()).collect();
            for client in &mut crowd {
                client.send(request);
            }
            waiting(&gateway, "main", CROWD);
            let piece = if request == GET { GET.repeat(more / GET.len()).into_bytes() } else { vec![b'x'; more] };
            for client in &mut crowd {
                client.send(&piece);
            }
            // What they sent has come as far as it will.
            waiting(&gateway, "main", CROWD);
            for client in crowd {
                if resets { client.reset() } else { drop(client) }
            }
            waiting(&gateway, "main", 0);
            assert_eq!(look(&gateway, "queues/main")["gone"], CROWD, "{what}");
            assert_eq!(alpha.requests().len(), 1, "{what}");
            gate.open();
            assert_eq!(first.answer().status(), 200);
            is_over(&gateway);
            assert_eq!(get(&gateway, "/").answer().status(), 200, "{what}");
            assert_eq!(look(&gateway, "queues/main")["held_bytes"].as_u64().unwrap_or(0), 0, "{what}");
        }
    }
}

#[test]
fn who_floods_a_class_waits_for_its_own_flood() {
    let gate = Gate::default();
    let alpha = held(&gate);
    let yaml = "
clients: { loud: { keys: [loud-key-of-32-characters-000000] }, calm: { keys: [calm-key-of-32-characters-000000] } }
listeners: [ { name: web, bind: \"{web}\" } ]
providers: { alpha: { url: \"http://{alpha}\", limits: { concurrency: 1 } } }
pools: { main: { providers: [alpha], queue: { capacity: 20 } } }
routes: [ { name: all, match: { path: \"/*\" }, pool: main } ]
";
    let gateway = Gateway::start(yaml, &[("alpha", alpha.address())]);
    let send = |who: &str, number: usize| {
        let mut client = gateway.connect();
        client.send(format!(
            "GET /{who}/{number} HTTP/1.1\r\nHost: a\r\nX-Api-Key: {who}-key-of-32-characters-000000\r\n\r\n"
        ));
        client
    };
    let mut first = send("loud", 0);
    alpha.wait_for_requests(1);
    let loud: Vec<_> = (1..=50).map(|number| send("loud", number)).collect();
    let shed = || look(&gateway, "queues/main")["shed"]["queue_full"].as_u64();
    // A tenth of the places is for those who are more urgent.
    wait_until("the flood is refused", || shed() == Some(32));
    waiting(&gateway, "main", 18);
    let mut calm: Vec<_> = (0..3).map(|number| send("calm", number)).collect();
    wait_until("the flood makes way", || shed() == Some(35));
    gate.open();
    assert_eq!(first.answer().status(), 200);
    assert!(calm.iter_mut().all(|client| client.answer().status() == 200));
    let answers: Vec<_> = loud.into_iter().map(|mut client| client.answer().status()).collect();
    assert_eq!(answers.iter().filter(|status| **status == 200).count(), 15);
    let requests = alpha.requests();
    let at = requests.iter().rposition(|request| request.head.line.contains("/calm/")).expect("it was served");
    assert!(at <= 7, "three of each in turn, behind the first: {at}");
    is_over(&gateway);
}

#[test]
fn bodies_that_come_while_their_requests_wait_arrive_whole() {
    let gate = Gate::default();
    let alpha = held(&gate);
    let gateway = Gateway::before_with(&alpha, NARROW);
    let mut first = get(&gateway, "/");
    alpha.wait_for_requests(1);
    // Less than is kept, about as much, and far more.
    let lengths = [1_000, 16 * 1024, 16 * 1024 + 1, 200_000];
    let mut crowd: Vec<_> = lengths
        .iter()
        .map(|length| {
            let mut client = gateway.connect();
            client.send(format!("PUT /{length} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"));
            client
        })
        .collect();
    waiting(&gateway, "main", 4);
    let body: Vec<u8> = (0..200_000_u32).map(|at| (at % 251) as u8).collect();
    for (client, length) in crowd.iter_mut().zip(lengths) {
        client.send(&body[..length / 2]);
    }
    waiting(&gateway, "main", 4);
    gate.open();
    assert_eq!(first.answer().status(), 200);
    for (client, length) in crowd.iter_mut().zip(lengths) {
        client.send(&body[length / 2..length]);
        assert_eq!(client.answer().status(), 200, "{length}");
    }
    for request in &alpha.requests()[1..] {
        assert!(request.body == body[..request.body.len()], "{}", request.head.line);
        assert!(request.head.line.contains(&format!("/{} ", request.body.len())), "{}", request.head.line);
    }
    is_over(&gateway);
}

#[test]
fn a_crowd_of_streams_that_is_reset_is_out_at_once() {
    let gate = Gate::default();
    let alpha = held(&gate);
    let gateway = Gateway::before_with(&alpha, NARROW);
    let mut first = get(&gateway, "/");
    alpha.wait_for_requests(1);
    let clients: Vec<_> = (0..9).map(|_| Client::connect(gateway.web())).collect();
    for lost in [false, true] {
        let calls: Vec<_> = clients
            .iter()
            .flat_map(|client| {
                (0..CROWD / 9).map(move |at| client.begin(client.request("POST", "/", &[]), at % 2 == 0))
            })
            .collect();
        waiting(&gateway, "main", CROWD);
        if lost {
            break;
        }
        calls.into_iter().for_each(crate::http2::Call::cancel);
        waiting(&gateway, "main", 0);
    }
    clients.into_iter().for_each(Client::lose);
    waiting(&gateway, "main", 0);
    assert_eq!(look(&gateway, "queues/main")["gone"], 2 * CROWD);
    gate.open();
    assert_eq!(first.answer().status(), 200);
    is_over(&gateway);
    assert_eq!(alpha.requests().len(), 1);
}

#[test]
fn who_waits_goes_where_a_reload_sends_it_also_when_that_is_a_matter_of_time() {
    let (gate, alpha, tired) = (Gate::default(), Provider::by_hand(), Arc::new(AtomicBool::new(true)));
    let gamma = held(&gate);
    let said = Arc::clone(&tired);
    let beta = Provider::scripted(move |peer| {
        while peer.request().is_some() {
            if said.swap(false, Ordering::SeqCst) {
                peer.answer("429 Too Many\r\nretry-after: 2", "");
            } else {
                peer.answer("200 OK", "beta");
            }
        }
    });
    let places = [("alpha", alpha.address()), ("beta", beta.address()), ("gamma", gamma.address())];
    let yaml = |members: &str, capacity: usize| {
        SHARED.replace("{members}", members).replace("{capacity}", &capacity.to_string())
    };
    let gateway = Gateway::start(&yaml("alpha", 100), &places);
    let mut first = get(&gateway, "/main");
    let mut provider = alpha.accept();
    provider.request();
    let mut crowd: Vec<_> = (0..20).map(|_| get(&gateway, "/main")).collect();
    waiting(&gateway, "main", 20);
    assert_eq!(get(&gateway, "/other").answer().status(), 429);
    // Fewer places than are taken, and another member, which rests for a while: nobody has to go.
    gateway.rewrite(&yaml("beta", 1));
    gateway.reload().expect("it is valid");
    for client in &mut crowd {
        assert_eq!(client.answer().text(), "beta");
    }
    provider.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(first.answer().status(), 200);
    assert_eq!(alpha.connections(), 1);
    is_over(&gateway);
}

#[test]
fn two_pools_that_share_one_place_both_go_on() {
    let beta = Provider::answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let places = [("alpha", beta.address()), ("beta", beta.address()), ("gamma", beta.address())];
    let gateway = Gateway::start(&SHARED.replace("{members}", "beta").replace("{capacity}", "100"), &places);
    let clients: Vec<_> = (0..16)
        .map(|number| {
            let mut client = gateway.connect();
            let path = if number % 2 == 0 { "/main" } else { "/other" };
            std::thread::spawn(move || {
                for _ in 0..100 {
                    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
                    assert_eq!(client.answer().status(), 200, "{path}");
                }
            })
        })
        .collect();
    all_are_answered(clients);
    is_over(&gateway);
}

#[test]
fn two_pools_that_share_a_rate_take_turns() {
    let beta = Provider::answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let yaml = "
listeners: [ { name: web, bind: \"{web}\" } ]
providers: { beta: { url: \"http://{beta}\", limits: { rate: 50/s, burst: 1 } } }
pools: { main: { providers: [beta] }, other: { providers: [beta] } }
routes:
  - { name: main, match: { path: /main }, pool: main, timeout: 300s }
  - { name: other, match: { path: /other }, pool: other, timeout: 300s }
";
    let gateway = Gateway::start(yaml, &[("beta", beta.address())]);
    order(&gateway, "queues/main/pause");
    order(&gateway, "queues/other/pause");
    let clients: Vec<_> =
        ["/main", "/other"].map(|path| (0..60).map(|_| get(&gateway, path)).collect::<Vec<_>>()).into();
    waiting(&gateway, "main", 60);
    waiting(&gateway, "other", 60);
    order(&gateway, "queues/main/resume");
    order(&gateway, "queues/other/resume");
    beta.wait_for_requests(60);
    let of_main = beta.requests()[..60].iter().filter(|request| request.head.line.contains("/main")).count();
    assert!((20..=40).contains(&of_main), "{of_main} of 60");
    drop(clients);
    is_over(&gateway);
}

#[test]
fn a_pool_that_has_taken_its_memory_leaves_the_others_theirs() {
    let gate = Gate::default();
    let (alpha, gamma) = (held(&gate), held(&gate));
    let yaml = "
memory: { buffers: 1MiB }
listeners: [ { name: web, bind: \"{web}\" } ]
providers:
  alpha: { url: \"http://{alpha}\", limits: { concurrency: 1 } }
  gamma: { url: \"http://{gamma}\", limits: { concurrency: 1 } }
pools: { greedy: { providers: [alpha] }, modest: { providers: [gamma] } }
routes:
  - { name: greedy, match: { path: /greedy }, pool: greedy }
  - { name: modest, match: { path: /modest }, pool: modest }
";
    let gateway = Gateway::start(yaml, &[("alpha", alpha.address()), ("gamma", gamma.address())]);
    let mut firsts = [get(&gateway, "/greedy"), get(&gateway, "/modest")];
    alpha.wait_for_requests(1);
    gamma.wait_for_requests(1);
    let post = |path: &str| {
        let mut client = gateway.connect();
        client.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 40000\r\n\r\n"));
        client.send(vec![b'x'; 40_000]);
        client
    };
    let shed = || look(&gateway, "queues/greedy")["shed"]["buffers"].as_u64().expect("a count");
    let mut greedy = Vec::new();
    while shed() == 0 {
        greedy.push(post("/greedy"));
        let sent = greedy.len() as u64;
        wait_until("it waits or is refused", || {
            look(&gateway, "queues/greedy")["depth"]["normal"].as_u64().unwrap_or(0) + shed() == sent
        });
    }
    assert_eq!(look(&gateway, "queues/greedy")["gone"], 0);
    let refused = greedy.pop().expect("one was refused").answer();
    assert_eq!(refused.status(), 503);
    let mut modest = post("/modest");
    waiting(&gateway, "modest", 1);
    gate.open();
    for client in firsts.iter_mut().chain(&mut greedy).chain([&mut modest]) {
        assert_eq!(client.answer().status(), 200);
    }
    is_over(&gateway);
}

#[test]
fn a_client_that_has_taken_its_memory_leaves_the_others_of_its_pool_theirs() {
    let gate = Gate::default();
    let alpha = held(&gate);
    let yaml = "
memory: { buffers: 1MiB }
clients: { loud: { keys: [loud-key-of-32-characters-000000] }, calm: { keys: [calm-key-of-32-characters-000000] } }
listeners: [ { name: web, bind: \"{web}\" } ]
providers: { alpha: { url: \"http://{alpha}\", limits: { concurrency: 1 } } }
pools: { main: { providers: [alpha], queue: { timeout: 60s } } }
routes: [ { name: all, match: { path: \"/*\" }, pool: main, timeout: 60s } ]
";
    let gateway = Gateway::start(yaml, &[("alpha", alpha.address())]);
    let mut first = get(&gateway, "/");
    alpha.wait_for_requests(1);
    let post = |who: &str| {
        let mut client = gateway.connect();
        client.send(format!(
            "POST /{who} HTTP/1.1\r\nHost: a\r\nX-Api-Key: {who}-key-of-32-characters-000000\r\nContent-Length: 40000\r\n\r\n"
        ));
        client.send(vec![b'x'; 40_000]);
        client
    };
    let view = || look(&gateway, "queues/main");
    let shed = || view()["shed"]["buffers"].as_u64().expect("a count");
    let is_kept = |count: u64| view()["held_bytes"].as_u64() == Some(count * 40_000);
    let mut loud = Vec::new();
    while shed() == 0 {
        loud.push(post("loud"));
        let sent = loud.len() as u64;
        wait_until("it waits or is refused", || shed() == 1 || is_kept(sent));
    }
    assert_eq!(loud.pop().expect("one was refused").answer().status(), 503);
    let kept = loud.len() as u64;
    let mut calm: Vec<_> = (0..3).map(|_| post("calm")).collect();
    wait_until("they wait", || is_kept(kept + 3) || shed() > 1);
    gate.open();
    for client in [&mut first].into_iter().chain(&mut loud).chain(&mut calm) {
        assert_eq!(client.answer().status(), 200);
    }
    is_over(&gateway);
    assert_eq!(view()["held_bytes"], 0);
}

#[test]
fn a_drain_lets_those_who_wait_have_their_turn() {
    let gate = Gate::default();
    let alpha = held(&gate);
    let gateway = Gateway::before_with(&alpha, NARROW);
    let mut crowd: Vec<_> = (0..20).map(|_| get(&gateway, "/")).collect();
    waiting(&gateway, "main", 19);
    let drained = std::thread::scope(|scope| {
        let drain = scope.spawn(|| gateway.drain(Duration::from_secs(20)));
        wait_until("it drains", || std::net::TcpStream::connect(gateway.web()).is_err());
        gate.open();
        for client in &mut crowd {
            assert_eq!(client.answer().status(), 200);
        }
        drain.join().expect("it ends")
    });
    assert!(drained);
}

#[test]
fn a_paused_queue_under_load_goes_on_where_it_stopped() {
    let alpha = Provider::answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let gateway = Gateway::before_with(&alpha, Extra { provider: "limits: { concurrency: 2 }", ..Extra::default() });
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let mut client = gateway.connect();
            std::thread::spawn(move || {
                for _ in 0..200 {
                    client.send(GET);
                    assert_eq!(client.answer().status(), 200);
                }
            })
        })
        .collect();
    while !clients.iter().all(JoinHandle::is_finished) {
        order(&gateway, "queues/main/pause");
        order(&gateway, "queues/main/resume");
    }
    all_are_answered(clients);
    is_over(&gateway);
}

#[test]
fn a_provider_alone_that_asks_for_a_second_gets_it_and_then_who_waits() {
    let tired = AtomicBool::new(true);
    let alpha = Provider::scripted(move |peer| {
        while peer.request().is_some() {
            if tired.swap(false, Ordering::SeqCst) {
                peer.answer("429 Too Many\r\nretry-after: 1", "");
            } else {
                peer.answer("200 OK", "fresh");
            }
        }
    });
    let gateway = Gateway::before_with(&alpha, Extra { route: "retry: { attempts: 1 }", ..Extra::default() });
    assert_eq!(get(&gateway, "/").answer().status(), 429);
    let mut crowd: Vec<_> = (0..20).map(|_| get(&gateway, "/")).collect();
    waiting(&gateway, "main", 20);
    assert_eq!(alpha.requests().len(), 1);
    for client in &mut crowd {
        assert_eq!(client.answer().status(), 200);
    }
    is_over(&gateway);
}

#[test]
fn a_rate_spreads_a_burst_and_nobody_is_forgotten() {
    let alpha = Provider::answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let extra = Extra { provider: "limits: { rate: 100/s, burst: 5 }", ..Extra::default() };
    let gateway = Gateway::before_with(&alpha, extra);
    let begun = sluice::clock::now();
    let mut crowd: Vec<_> = (0..100).map(|_| get(&gateway, "/")).collect();
    for client in &mut crowd {
        assert_eq!(client.answer().status(), 200);
    }
    is_over(&gateway);
    // Five may go at once; the others are ten milliseconds apart, or a timer's grain less.
    let span = sluice::clock::now().saturating_duration_since(begun);
    assert!(span >= Duration::from_millis(900), "{span:?}");
}

#[test]
fn throughput_never_stops_while_many_want_one_place() {
    let broken = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&broken);
    let alpha = Provider::scripted(move |peer| {
        while let Some(request) = peer.request() {
            // Half of a circuit's threshold at a time, then all of it.
            if request.head.line.contains("/flap") && count.fetch_add(1, Ordering::SeqCst) % 50 < 3 {
                peer.answer("500 Oh", "");
            } else {
                peer.answer("200 OK", "ok");
            }
        }
    });
    for (path, provider) in [
        ("/", "limits: { concurrency: 1 }"),
        ("/", "limits: { concurrency: 1, rate: 2000/s, burst: 1 }"),
        (
            "/flap",
            "limits: { concurrency: 1 }, circuit_breaker: { failure_threshold: 3, recovery_timeout: 10ms, max_recovery_timeout: 20ms }",
        ),
    ] {
        let yaml = format!("version: 1\nworkers: 2\nadmin: {{ bind: \"{{admin}}\" }}\n{}", crate::world::BEFORE)
            .replace("{provider}", &format!(", {provider}"));
        let sluice = Sluice::spawn(&yaml, &[("alpha", alpha.address())]);
        let end = sluice::clock::now() + HUNT;
        let clients: Vec<_> = (0..64)
            .map(|_| {
                let mut client = sluice.connect();
                std::thread::spawn(move || {
                    while sluice::clock::now() < end {
                        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
                        let status = client.answer().status();
                        // One that is forgotten waits until its time in the queue is over, and gets 503.
                        assert!([200, 500].contains(&status), "{status}");
                    }
                })
            })
            .collect();
        all_are_answered(clients);
        wait_until("nothing is under way", || sluice.metric("sluice_in_flight", &[]) < 1.0);
    }
}

const CROWD: u64 = 90;

/// How long each hunt for a lost wake-up takes.
const HUNT: Duration = Duration::from_secs(2);

const SHARED: &str = "
listeners: [ { name: web, bind: \"{web}\" } ]
providers:
  alpha: { url: \"http://{alpha}\", limits: { concurrency: 1 } }
  beta: { url: \"http://{beta}\", limits: { concurrency: 1 } }
  gamma: { url: \"http://{gamma}\" }
pools:
  main: { providers: [{members}], queue: { capacity: {capacity} } }
  other: { providers: [beta] }
  rest: { providers: [alpha, gamma] }
routes:
  - { name: main, match: { path: /main }, pool: main }
  - { name: other, match: { path: /other }, pool: other, retry: { attempts: 1 } }
  - { name: rest, match: { path: /rest }, pool: rest }
";
