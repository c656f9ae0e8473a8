//! What operators change at runtime: it works at once, outlives the process, and never stops the gateway.

use crate::handover::Line;
use crate::world::{BEFORE, Gateway, PREAMBLE, Provider, Sluice, Wire, free_address, page, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use tempfile::TempDir;

const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

/// A gateway before `alpha` whose store lies in this folder.
fn stored_in(folder: &Path) -> String {
    format!("{PREAMBLE}store: {{ path: \"{}\" }}\n{BEFORE}", folder.display())
}

fn ask(admin: SocketAddr, line: &str) -> (u16, Value) {
    let mut wire = Wire::connect(admin);
    wire.send(format!("{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"));
    let answer = wire.answer();
    (answer.status(), serde_json::from_str(&answer.text()).expect("JSON"))
}

/// Changes something, which has to work.
fn change(admin: SocketAddr, line: &str) -> Value {
    let (status, answer) = ask(admin, line);
    assert_eq!(status, 200, "{line}: {answer}");
    answer
}

/// The ids of what is overridden, and whether a restart would know.
fn overridden(admin: SocketAddr) -> Vec<(String, bool)> {
    let (_, answer) = ask(admin, "GET /api/v1/overrides");
    let one = |one: &Value| {
        (one["id"].as_str().expect("an id").to_owned(), one["durable"].as_bool().expect("known to last or not"))
    };
    answer["overrides"].as_array().expect("a list").iter().map(one).collect()
}

/// What is said about the store: its state and the details.
fn store(admin: SocketAddr) -> (String, String) {
    let (_, answer) = ask(admin, "GET /health/dependencies");
    let store = &answer["dependencies"][0];
    assert_eq!(store["name"], "store");
    let text = |member: &str| store[member].as_str().expect("text").to_owned();
    (text("state"), text("detail"))
}

fn status(web: SocketAddr) -> u16 {
    let mut client = Wire::connect(web);
    client.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    client.answer().status()
}

#[test]
fn a_gateway_that_is_left_alone_stores_nothing() {
    let alpha = Provider::answering(HELLO);
    let folder = TempDir::new().expect("a folder");
    let data = folder.path().join("data");
    let gateway = Gateway::start(&stored_in(&data), &[("alpha", alpha.address())]);
    assert_eq!(status(gateway.web()), 200);
    assert_eq!(overridden(gateway.admin()), []);
    assert_eq!(store(gateway.admin()).0, "unused");
    assert_eq!(ask(gateway.admin(), "POST /api/v1/providers/nobody/drain").0, 404);
    gateway.reload().expect("applied");
    page(gateway.admin(), "/metrics");
    gateway.stop();
    assert!(!data.exists());
}

#[test]
fn an_override_outlives_a_process_that_is_killed() {
    let alpha = Provider::answering(HELLO);
    let folder = TempDir::new().expect("a folder");
    let yaml = stored_in(folder.path());
    let mut first = Sluice::spawn(&yaml, &[("alpha", alpha.address())]);
    assert_eq!(status(first.web()), 200);
    change(first.admin(), "POST /api/v1/circuit-breakers/alpha/open?ttl=1h");
    assert_eq!(status(first.web()), 503);
    let before = ask(first.admin(), "GET /api/v1/overrides");
    first.signal(Signal::KILL);
    first.wait_for_exit();
    let second = Sluice::spawn(&yaml, &[("alpha", alpha.address())]);
    assert_eq!(ask(second.admin(), "GET /api/v1/overrides"), before);
    assert_eq!(status(second.web()), 503);
    let (state, detail) = store(second.admin());
    assert_eq!((state.as_str(), detail.ends_with("sluice.redb")), ("ok", true), "{detail}");
    let taken = change(second.admin(), "POST /api/v1/circuit-breakers/alpha/auto");
    assert_eq!(taken["cleared"]["setting"], "open");
    assert_eq!(status(second.web()), 200);
}

#[test]
fn an_override_ends_when_its_time_is_over() {
    let alpha = Provider::answering(HELLO);
    let folder = TempDir::new().expect("a folder");
    let gateway = Gateway::start(&stored_in(folder.path()), &[("alpha", alpha.address())]);
    change(gateway.admin(), "POST /api/v1/providers/alpha/drain?ttl=1ms");
    wait_until("the override to end", || overridden(gateway.admin()).is_empty());
    assert_eq!(status(gateway.web()), 200);
}

#[test]
fn a_provider_that_comes_back_by_a_reload_is_still_overridden() {
    let alpha = Provider::answering(HELLO);
    let folder = TempDir::new().expect("a folder");
    let yaml = stored_in(folder.path());
    let gateway = Gateway::start(&yaml, &[("alpha", alpha.address())]);
    change(gateway.admin(), "POST /api/v1/circuit-breakers/alpha/open");
    gateway.rewrite(&yaml.replace("alpha: {", "beta: {").replace("[alpha]", "[beta]"));
    gateway.reload().expect("applied");
    assert_eq!(status(gateway.web()), 200, "nobody said anything about beta");
    let (_, listed) = ask(gateway.admin(), "GET /api/v1/overrides");
    assert_eq!((&listed["overrides"][0]["unused"], &listed["overrides"][0]["durable"]), (&json!(true), &json!(true)));
    gateway.rewrite(&yaml);
    gateway.reload().expect("applied");
    assert_eq!(status(gateway.web()), 503);
    change(gateway.admin(), "DELETE /api/v1/overrides/circuit/alpha");
    assert_eq!(status(gateway.web()), 200);
}

#[test]
fn the_process_that_takes_over_takes_the_store_too() {
    let alpha = Provider::answering(HELLO);
    let folder = TempDir::new().expect("a folder");
    let line = Line::start(Sluice::spawn(&stored_in(folder.path()), &[("alpha", alpha.address())]));
    let admin = line.first.admin();
    change(admin, "POST /api/v1/circuit-breakers/alpha/open");
    line.replace();
    assert_eq!(overridden(admin), [("circuit/alpha".to_owned(), true)]);
    assert_eq!(status(line.first.web()), 503);
    let made = change(admin, "POST /api/v1/providers/alpha/drain");
    assert_eq!(made["override"]["durable"], true);
    line.replace();
    let both = [("circuit/alpha".to_owned(), true), ("provider/alpha".to_owned(), true)];
    assert_eq!(overridden(admin), both);
}

#[test]
fn a_process_that_goes_on_after_all_has_its_store_again() {
    let alpha = Provider::answering(HELLO);
    let folder = TempDir::new().expect("a folder");
    let yaml = stored_in(folder.path());
    let line = Line::start(Sluice::spawn(&yaml, &[("alpha", alpha.address())]));
    let admin = line.first.admin();
    change(admin, "POST /api/v1/circuit-breakers/alpha/open");
    // The new process checks the file, is left the store, and then cannot listen.
    let taken = free_address();
    let _socket = TcpListener::bind(taken).expect("it is free");
    let more = format!("listeners: [ {{ name: more, bind: \"{taken}\" }}, ");
    line.first.rewrite(&yaml.replace("listeners: [ ", &more));
    assert!(line.replace_in_vain().contains("cannot listen"));
    assert_eq!(overridden(admin), [("circuit/alpha".to_owned(), true)]);
    assert_eq!(status(line.first.web()), 503);
    assert_eq!(change(admin, "POST /api/v1/providers/alpha/drain")["override"]["durable"], true);
}

#[test]
fn two_gateways_with_one_store_both_serve_and_one_says_that_it_has_none() {
    let alpha = Provider::answering(HELLO);
    let folder = TempDir::new().expect("a folder");
    let yaml = stored_in(folder.path());
    let first = Gateway::start(&yaml, &[("alpha", alpha.address())]);
    change(first.admin(), "POST /api/v1/circuit-breakers/alpha/close");
    let second = Gateway::start(&yaml, &[("alpha", alpha.address())]);
    assert_eq!(status(second.web()), 200);
    let (state, detail) = store(second.admin());
    assert_eq!(state, "failing");
    assert!(detail.contains("in use by another process") && detail.contains("`store.path`"), "{detail}");
    let made = change(second.admin(), "POST /api/v1/circuit-breakers/alpha/open");
    assert_eq!(made["override"]["durable"], false);
    assert!(made["warning"].is_string(), "{made}");
    assert_eq!(status(second.web()), 503);
    assert_eq!(status(first.web()), 200);
    first.stop();
    assert_eq!(change(second.admin(), "POST /api/v1/providers/alpha/drain")["override"]["durable"], true);
    assert!(overridden(second.admin()).iter().all(|(_, durable)| *durable));
}

#[test]
fn a_broken_store_is_said_to_be_and_does_not_keep_the_gateway_from_serving() {
    let alpha = Provider::answering(HELLO);
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("sluice.redb");
    fs::write(&file, "not a store").expect("written");
    let gateway = Gateway::start(&stored_in(folder.path()), &[("alpha", alpha.address())]);
    assert_eq!(status(gateway.web()), 200);
    let (state, detail) = store(gateway.admin());
    assert_eq!(state, "failing");
    assert!(detail.contains("move it away"), "{detail}");
    assert_eq!(change(gateway.admin(), "POST /api/v1/circuit-breakers/alpha/open")["override"]["durable"], false);
    assert_eq!(status(gateway.web()), 503);
    assert_eq!(fs::read(&file).expect("it is there"), b"not a store");
    // As the message says.
    fs::rename(&file, folder.path().join("away")).expect("moved");
    assert_eq!(change(gateway.admin(), "POST /api/v1/providers/alpha/drain")["override"]["durable"], true);
    assert_eq!(store(gateway.admin()).0, "ok");
}
