//! What the real binary does when it is told: HUP, TERM, INT, QUIT, USR1, and the codes it exits with.

use crate::world::{BEFORE, Gate, Provider, Sluice, Wire, wait_until};
use rustix::process::Signal;
use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;

/// A binary in front of a provider that answers `/held` once the gate is open.
fn start(shutdown: &str, gate: &Gate) -> (Sluice, Provider) {
    let gate = gate.clone();
    let alpha = Provider::scripted(move |peer| {
        while let Some(request) = peer.request() {
            if request.head.line.contains("/held") {
                gate.pass();
            }
            peer.answer("200 OK", "done");
        }
    });
    let sluice = Sluice::spawn(&format!("{BEFORE}{shutdown}"), &[("alpha", alpha.address())]);
    (sluice, alpha)
}

fn refuses(sluice: &Sluice) -> bool {
    TcpStream::connect(sluice.web()).is_err()
}

fn ask(sluice: &Sluice) {
    let mut client = sluice.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    assert_eq!(client.answer().text(), "done");
    client.closes();
}

#[test]
fn term_lets_what_is_under_way_end_and_exits_with_0() {
    let gate = Gate::default();
    let (mut sluice, alpha) = start("", &gate);
    let mut held = sluice.connect();
    held.send("GET /held HTTP/1.1\r\nhost: a\r\n\r\n");
    alpha.wait_for_requests(1);
    let mut idle = sluice.connect();
    idle.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(idle.answer().text(), "done");
    sluice.signal(Signal::TERM);
    wait_until("nobody listens", || refuses(&sluice));
    idle.closes();
    assert!(sluice.runs() && held.is_silent());
    gate.open();
    let answer = held.answer();
    assert_eq!((answer.value("connection"), answer.text().as_str()), (Some("close"), "done"));
    held.closes();
    assert_eq!(sluice.wait_for_exit(), 0, "{}", sluice.output());
}

#[test]
fn when_the_grace_is_over_what_is_under_way_is_cut_and_the_code_is_1() {
    let gate = Gate::default();
    let (mut sluice, alpha) = start("shutdown: { grace: 100ms }\n", &gate);
    let mut held = sluice.connect();
    held.send("GET /held HTTP/1.1\r\nhost: a\r\n\r\n");
    alpha.wait_for_requests(1);
    sluice.signal(Signal::TERM);
    held.end();
    assert_eq!(sluice.wait_for_exit(), 1, "{}", sluice.output());
    gate.open();
}

#[test]
fn a_second_signal_stops_at_once() {
    let gate = Gate::default();
    let (mut sluice, alpha) = start("shutdown: { grace: 1h }\n", &gate);
    let mut held = sluice.connect();
    held.send("GET /held HTTP/1.1\r\nhost: a\r\n\r\n");
    alpha.wait_for_requests(1);
    sluice.signal(Signal::TERM);
    wait_until("nobody listens", || refuses(&sluice));
    assert!(sluice.runs() && held.is_silent());
    sluice.signal(Signal::INT);
    held.end();
    assert_eq!(sluice.wait_for_exit(), 1, "{}", sluice.output());
    gate.open();
}

#[test]
fn during_the_delay_it_is_not_ready_and_takes_what_comes_and_a_second_signal_stops_at_once() {
    let (mut sluice, _alpha) = start("shutdown: { delay: 1h }\n", &Gate::default());
    let mut idle = sluice.connect();
    idle.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(idle.answer().text(), "done");
    sluice.signal(Signal::TERM);
    wait_until("it says that it drains", || {
        let mut probe = Wire::connect(sluice.admin());
        probe.send("GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let ready = probe.answer();
        ready.status() == 503 && ready.text().contains("draining")
    });
    ask(&sluice);
    idle.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(idle.answer().value("connection"), None, "a connection is kept as before");
    sluice.signal(Signal::TERM);
    idle.end();
    assert_eq!(sluice.wait_for_exit(), 1, "{}", sluice.output());
}

#[test]
fn after_the_delay_comes_the_drain() {
    let (mut sluice, _alpha) = start("shutdown: { delay: 50ms }\n", &Gate::default());
    sluice.signal(Signal::TERM);
    assert_eq!(sluice.wait_for_exit(), 0, "{}", sluice.output());
    let log = sluice.log().iter().map(ToString::to_string).collect::<String>();
    let at = |text: &str| log.find(text).unwrap_or_else(|| panic!("{text} is not in {log}"));
    assert!(at("still accepting") < at("draining; a second signal"));
}

#[test]
fn int_and_quit_drain_as_term_does() {
    for signal in [Signal::INT, Signal::QUIT] {
        let (mut sluice, _alpha) = start("", &Gate::default());
        ask(&sluice);
        sluice.signal(signal);
        assert_eq!(sluice.wait_for_exit(), 0, "{signal:?}: {}", sluice.output());
    }
}

#[test]
fn hup_applies_the_file_and_a_broken_file_leaves_it_running() {
    let (mut sluice, _alpha) = start("", &Gate::default());
    sluice.rewrite("nonsense: true\n");
    sluice.signal(Signal::HUP);
    wait_until("the reload is rejected", || sluice.metric("sluice_config_last_reload_successful", &[]) < 1.0);
    ask(&sluice);
    sluice.rewrite(&BEFORE.replace("pool: main", "respond: { status: 418 }"));
    sluice.signal(Signal::HUP);
    wait_until("the reload is applied", || sluice.metric("sluice_config_last_reload_successful", &[]) > 0.0);
    let mut client = sluice.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.answer().status(), 418);
    assert!(sluice.runs());
}

#[test]
fn usr1_turns_to_a_new_log_file_after_the_old_one_was_renamed() {
    let (sluice, _alpha) = start("", &Gate::default());
    let log = sluice.path().with_file_name("log");
    let rotated = log.with_extension("1");
    let lines = |path: &PathBuf| fs::read_to_string(path).unwrap_or_default().matches("\"path\":\"/\"").count();
    ask(&sluice);
    wait_until("the line of the request", || lines(&log) == 1);
    fs::rename(&log, &rotated).expect("a rename in one folder");
    // Until it is told, it goes on writing to the file it has.
    ask(&sluice);
    wait_until("the line of the request", || lines(&rotated) == 2);
    assert!(!log.exists());
    sluice.signal(Signal::USR1);
    // The new file is there a moment before it is written to.
    let mut asked = 2;
    wait_until("a line in the new file", || {
        ask(&sluice);
        asked += 1;
        lines(&log) > 0
    });
    wait_until("every line in one of the two", || lines(&rotated) + lines(&log) == asked);
}
