//! What the log and the admin API tell an operator about the configuration and about the end.

use crate::world::{BEFORE, Gate, Gateway, Provider, Sluice, page, wait_until};
use rustix::process::Signal;
use serde_json::Value;

/// A gateway that answers `word` to everyone. Nothing watches its file.
fn saying(word: &str, workers: u8) -> String {
    format!(
        "
version: 1
workers: {workers}
admin: {{ bind: \"{{admin}}\" }}
reload: {{ watch: false }}
log: {{ format: json, file: \"{{dir}}/log\" }}
listeners: [ {{ name: web, bind: \"{{web}}\" }} ]
routes: [ {{ name: all, match: {{ path: \"/*\" }}, respond: {{ body: {word} }} }} ]
"
    )
}

fn status(gateway: &Gateway) -> Value {
    serde_json::from_str(&page(gateway.admin(), "/api/v1/config")).expect("JSON")
}

fn messages(sluice: &Sluice) -> Vec<String> {
    sluice.log().iter().filter_map(|line| line["message"].as_str().map(str::to_owned)).collect()
}

fn line(sluice: &Sluice, message: &str) -> Value {
    sluice.log().into_iter().find(|line| line["message"] == message).unwrap_or_default()
}

#[test]
fn a_file_that_nobody_has_applied_yet_is_not_in_sync() {
    let gateway = Gateway::start(&saying("one", 1), &[]);
    assert_eq!(status(&gateway)["in_sync"], true);
    gateway.rewrite(&saying("two", 1));
    let after = status(&gateway);
    assert_eq!((&after["in_sync"], &after["on_disk"]["error"]), (&Value::from(false), &Value::Null));
    assert_ne!(after["on_disk"]["hash"], after["applied"]["hash"]);
    assert_eq!(after["diff"][0]["path"], "routes[all].respond.body");
    gateway.reload().expect("a file without a mistake");
    assert_eq!(status(&gateway)["in_sync"], true);
}

#[test]
fn what_is_wrong_with_a_file_is_shown_before_anybody_applies_it() {
    let gateway = Gateway::start(&saying("one", 1), &[]);
    gateway.rewrite(&saying("one", 1).replace("routes:", "rooutes:"));
    let after = status(&gateway);
    assert_eq!(after["in_sync"], false);
    let message = after["on_disk"]["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("did you mean `routes`?"), "{after}");
}

#[test]
fn what_waits_for_a_restart_is_told_at_every_reload_and_in_the_log() {
    let sluice = Sluice::spawn(&saying("one", 1), &[]);
    let restart = "`workers` has changed; it takes effect at the next start";
    for (count, word) in ["two", "three"].into_iter().enumerate() {
        sluice.rewrite(&saying(word, 2));
        sluice.signal(Signal::HUP);
        wait_until("the note in the log", || messages(&sluice).iter().filter(|said| *said == restart).count() > count);
    }
    wait_until("the reload in the log", || !line(&sluice, "the configuration is applied").is_null());
    assert_eq!(line(&sluice, "the configuration is applied")["changed"], "workers, routes[all].respond.body");
}

#[test]
fn the_log_says_how_many_connections_a_second_signal_cut() {
    let gate = Gate::default();
    let alpha = Provider::scripted({
        let gate = gate.clone();
        move |peer| {
            if peer.request().is_some() {
                gate.pass();
            }
        }
    });
    let mut sluice = Sluice::spawn(BEFORE, &[("alpha", alpha.address())]);
    let mut client = sluice.connect();
    client.send("GET /a HTTP/1.1\r\nHost: example.com\r\n\r\n");
    wait_until("the request is under way", || alpha.requests().len() == 1);
    sluice.signal(Signal::TERM);
    wait_until("the drain has begun", || messages(&sluice).iter().any(|said| said.starts_with("draining")));
    sluice.signal(Signal::TERM);
    assert_eq!(sluice.wait_for_exit(), 1);
    assert_eq!(line(&sluice, "a second signal; what is still under way is cut")["connections"], 1);
    gate.open();
}

#[test]
fn a_log_that_takes_nothing_is_told_on_standard_error_once() {
    let sluice = Sluice::spawn(&saying("one", 1).replace("{dir}/log", "/dev/full"), &[]);
    let told = || sluice.output().matches("the log cannot be written: No space left on device").count();
    wait_until("standard error says so", || told() == 1);
    let lost = || sluice.metric("sluice_log_lines_dropped_total", &[]);
    let before = lost();
    let mut client = sluice.connect();
    client.send("GET /a HTTP/1.1\r\nHost: example.com\r\n\r\n");
    assert_eq!(client.answer().status(), 200);
    wait_until("the access line is lost as well", || lost() > before);
    assert_eq!(told(), 1);
}
