//! All providers die and come back: who asks for what is kept is given that, and all others what the ladder has.
//!
//! `alpha` and `beta` are the providers of pool `main`, `spare` the one of pool `other`. No time has to pass for a page to
//! expire: it says that it is old already.

use crate::world::{Gateway, Message, Provider, page, wait_until};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const YAML: &str = "
listeners: [ { name: web, bind: \"{web}\" } ]
defaults:
  provider: { circuit_breaker: { failure_threshold: 1, recovery_timeout: 100ms, max_recovery_timeout: 100ms } }
  route: { retry: { attempts: 2, backoff: { initial: 1ms } } }
providers:
  alpha: { url: \"http://{alpha}\" }
  beta: { url: \"http://{beta}\" }
  spare: { url: \"http://{spare}\" }
pools: { main: { providers: [alpha, beta] }, other: { providers: [spare] } }
routes:
  - { name: kept, match: { path: \"/kept\" }, pool: main, cache: { stale_if_error: 1h } }
  - { name: live, match: { path: \"/live\" }, pool: main, degrade: [ { pool: other }, { static: { body: sorry } } ] }
";

/// What a provider does, until it is told otherwise.
#[derive(Debug, Clone, Default)]
struct Mood(Arc<AtomicUsize>);

impl Mood {
    const BREAKS: usize = usize::MAX;
    const UNAVAILABLE: usize = usize::MAX - 1;

    /// One of these, or the number that its answers have from now on.
    fn turn(&self, mood: usize) {
        self.0.store(mood, Ordering::SeqCst);
    }

    fn provider(&self) -> Provider {
        let mood = self.clone();
        Provider::scripted(move |peer| {
            while peer.request().is_some() {
                match mood.0.load(Ordering::SeqCst) {
                    Mood::BREAKS => return,
                    Mood::UNAVAILABLE => peer.answer("503 Busy", "busy"),
                    number => peer.wire.send(format!(
                        "HTTP/1.1 200 OK\r\ncache-control: max-age=10\r\nage: 100\r\ncontent-length: 1\r\n\r\n{number}"
                    )),
                }
            }
        })
    }
}

fn ask(gateway: &Gateway, path: &str) -> Message {
    let mut client = gateway.connect();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    client.answer()
}

/// Status, body, and the rung that answered.
fn told(answer: &Message) -> (u16, String, String) {
    (answer.status(), answer.text(), answer.value("sluice-degraded").unwrap_or("none").to_owned())
}

fn is_told(answer: &Message, body: &str, rung: &str) {
    assert_eq!(told(answer), (200, body.to_owned(), rung.to_owned()));
}

fn live(gateway: &Gateway) -> Value {
    serde_json::from_str(&page(gateway.admin(), "/api/v1/degradation/live")).expect("JSON")
}

/// What becomes of clients while all providers die like this and come back.
fn outlive(death: usize) {
    let (main, other) = (Mood::default(), Mood::default());
    let (alpha, beta, spare) = (main.provider(), main.provider(), other.provider());
    let places = [("alpha", alpha.address()), ("beta", beta.address()), ("spare", spare.address())];
    main.turn(1);
    other.turn(2);
    let gateway = Gateway::start(YAML, &places);
    for path in ["/kept", "/live"] {
        is_told(&ask(&gateway, path), "1", "none");
    }

    main.turn(death);
    for _ in 0..10 {
        is_told(&ask(&gateway, "/kept"), "1", "stale");
        is_told(&ask(&gateway, "/live"), "2", "pool");
    }
    other.turn(death);
    for _ in 0..10 {
        is_told(&ask(&gateway, "/kept"), "1", "stale");
        is_told(&ask(&gateway, "/live"), "sorry", "static");
    }
    wait_until("the count", || live(&gateway)["requests_affected"] == 20);
    assert_eq!(live(&gateway)["degraded"], true);

    main.turn(3);
    other.turn(4);
    wait_until("a new page", || told(&ask(&gateway, "/kept")).1 == "3");
    let mut answers = json!({ "pool": 10, "reduced": 0, "stale": 0, "static": 10 });
    wait_until("a provider of the pool to answer", || {
        let (status, body, rung) = told(&ask(&gateway, "/live"));
        assert_eq!(status, 200);
        if let Some(count) = answers.get_mut(&rung) {
            *count = (count.as_u64().unwrap_or_default() + 1).into();
        }
        body == "3"
    });
    is_told(&ask(&gateway, "/kept"), "3", "none");
    is_told(&ask(&gateway, "/live"), "3", "none");
    wait_until("the end of it", || live(&gateway)["degraded"] == false);
    let now = live(&gateway);
    let past = &now["past"][0];
    assert_eq!((&past["answers"], &past["failed"], &now["events"]), (&answers, &json!(0), &json!(1)), "{now}");
    assert!(past["why"].as_str().is_some_and(|why| why.starts_with("requests failed")), "{now}");
}

#[test]
fn nobody_sees_an_error_while_all_providers_break_off_and_all_is_as_before_once_they_are_back() {
    outlive(Mood::BREAKS);
}

#[test]
fn nobody_sees_an_error_while_all_providers_are_busy_and_all_is_as_before_once_they_are_back() {
    outlive(Mood::UNAVAILABLE);
}
