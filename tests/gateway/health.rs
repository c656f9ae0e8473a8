//! Providers that are asked whether they are well, beside the requests; and those whose every address is a member.

use crate::authority::Authority;
use crate::tls::server;
use crate::world::{Gateway, Message, Peer, Provider, Sluice, Wire, wait_until};
use rustls::{ServerConnection, Stream};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tempfile::TempDir;

/// What a provider says of itself, and how often it was asked.
#[derive(Debug, Default)]
struct Mood {
    well: AtomicBool,
    /// Checks that were answered with 200, and with 503.
    good: AtomicUsize,
    bad: AtomicUsize,
}

impl Mood {
    fn new(well: bool) -> Arc<Self> {
        Arc::new(Mood { well: well.into(), ..Mood::default() })
    }

    fn set(&self, well: bool) {
        self.well.store(well, Ordering::SeqCst);
    }

    fn good(&self) -> usize {
        self.good.load(Ordering::SeqCst)
    }

    fn bad(&self) -> usize {
        self.bad.load(Ordering::SeqCst)
    }

    /// Waits for so many more checks of either kind.
    fn wait_for(&self, count: usize) {
        let before = self.good() + self.bad();
        wait_until("checks at the provider", || self.good() + self.bad() >= before + count);
    }

    /// What it answers to a request that begins so: whether it is well to checks, `name` to all others.
    fn answer(&self, line: &str, name: &str) -> String {
        if !line.starts_with("GET /healthz ") {
            return format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
        }
        if self.well.load(Ordering::SeqCst) {
            self.good.fetch_add(1, Ordering::SeqCst);
            return "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_owned();
        }
        self.bad.fetch_add(1, Ordering::SeqCst);
        "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_owned()
    }
}

fn provider(name: &'static str, mood: &Arc<Mood>) -> Provider {
    let mood = Arc::clone(mood);
    Provider::scripted(move |peer: &mut Peer| {
        while let Some(request) = peer.request() {
            peer.wire.send(mood.answer(&request.head.line, name));
        }
    })
}

fn ask(gateway: SocketAddr) -> Message {
    let mut wire = Wire::connect(gateway);
    wire.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    wire.answer()
}

/// Requests that were no checks.
fn asked(provider: &Provider) -> usize {
    provider.requests().iter().filter(|request| !request.head.line.starts_with("GET /healthz ")).count()
}

/// A gateway before `alpha` alone; `more` is what else `alpha` is to have.
fn before(url: &str, more: &str) -> String {
    format!(
        "
listeners: [ {{ name: web, bind: \"{{web}}\" }} ]
providers: {{ alpha: {{ url: \"{url}\", {more} }} }}
pools: {{ main: {{ providers: [alpha] }} }}
routes: [ {{ name: all, match: {{ path: \"/*\" }}, pool: main, retry: {{ attempts: 1 }} }} ]
"
    )
}

const TWO: &str = "
listeners: [ { name: web, bind: \"{web}\" } ]
providers:
  alpha: { url: \"http://{alpha}\", health_check: { interval: 100ms, timeout: 100ms, healthy_after: 2, unhealthy_after: 3 } }
  beta: { url: \"http://{beta}\" }
pools: { main: { providers: [alpha, beta], balance: round_robin } }
routes: [ { name: all, match: { path: \"/*\" }, pool: main } ]
";

const CHECKED: &str = "health_check: { interval: 50ms, timeout: 50ms }";

/// It takes so many good checks until this one is well again that no request waits for it.
const SLOW_TO_TRUST: &str = "health_check: { interval: 100ms, timeout: 100ms, healthy_after: 1000 }";

#[test]
fn a_provider_that_fails_its_checks_gets_no_request_until_enough_of_them_are_good() {
    let mood = Mood::new(false);
    let (alpha, beta) = (provider("alpha", &mood), provider("beta", &Mood::new(true)));
    let places = [("alpha", alpha.address()), ("beta", beta.address())];
    let gateway = Gateway::start(TWO, &places);
    let spared = |count: usize| (0..count).all(|_| ask(gateway.web()).text() == "beta");
    wait_until("the first check to count", || spared(4));
    let before = asked(&alpha);
    mood.wait_for(5);
    assert!(spared(20));
    assert_eq!(asked(&alpha), before);

    mood.set(true);
    wait_until("it to be well", || ask(gateway.web()).text() == "alpha");
    assert!(mood.good() >= 2, "after {} good checks", mood.good());

    let before = mood.bad();
    mood.set(false);
    wait_until("it to be unwell", || spared(4));
    assert!(mood.bad() >= before + 3, "after {} bad checks", mood.bad() - before);

    // Not one of all the checks is among the attempts.
    let attempts = (asked(&alpha) + asked(&beta)) as f64;
    gateway.wait_for_metric("sluice_attempts_total", &[], attempts);
}

#[test]
fn an_unwell_provider_alone_in_its_pool_is_no_provider_and_a_reload_forgets_nothing() {
    let mood = Mood::new(false);
    let alpha = provider("alpha", &mood);
    let yaml = before("http://{alpha}", SLOW_TO_TRUST);
    let gateway = Gateway::start(&yaml, &[("alpha", alpha.address())]);
    wait_until("the first check to count", || ask(gateway.web()).status() == 503);
    let answer = ask(gateway.web());
    assert_eq!(answer.json()["reason"], "no_provider");
    assert!(answer.value("retry-after").is_some());

    // Whoever began anew would believe the very first of these.
    mood.set(true);
    gateway.rewrite(&yaml.replace("attempts: 1", "attempts: 2"));
    gateway.reload().expect("a valid file");
    mood.wait_for(20);
    assert_eq!(ask(gateway.web()).status(), 503);

    // Other settings are another question.
    gateway.rewrite(&yaml.replace("healthy_after: 1000", "healthy_after: 1"));
    gateway.reload().expect("a valid file");
    wait_until("it to be well", || ask(gateway.web()).text() == "alpha");
}

#[test]
fn a_provider_that_is_not_checked_any_more_counts_as_well() {
    let mood = Mood::new(false);
    let alpha = provider("alpha", &mood);
    let yaml = before("http://{alpha}", SLOW_TO_TRUST);
    let gateway = Gateway::start(&yaml, &[("alpha", alpha.address())]);
    wait_until("the first check to count", || ask(gateway.web()).status() == 503);
    gateway.rewrite(&yaml.replace(SLOW_TO_TRUST, ""));
    gateway.reload().expect("a valid file");
    assert_eq!(ask(gateway.web()).text(), "alpha");
}

#[test]
fn a_check_looks_like_a_request_and_brings_what_the_provider_is_to_have() {
    let alpha = Provider::by_hand();
    let more = "headers: { set: { authorization: Bearer key } }, health_check: { path: \"/ping?deep=1\", host: checks.test, interval: 20s, timeout: 20s }";
    let gateway = Gateway::start(&before("http://{alpha}/v1", more), &[("alpha", alpha.address())]);
    let mut wire = alpha.accept();
    let request = wire.request().expect("a check");
    assert_eq!(request.head.line, "GET /v1/ping?deep=1 HTTP/1.1");
    let values = ["host", "user-agent", "connection", "authorization"].map(|name| request.value(name));
    assert_eq!(values, [Some("checks.test"), Some("sluice-health"), Some("close"), Some("Bearer key")]);
    wire.send("HTTP/1.1 204 No Content\r\n\r\n");
    wire.closes();
    drop(gateway);
}

#[test]
fn a_provider_that_does_not_answer_whole_and_in_time_is_not_well() {
    for answer in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok"] {
        let alpha = Provider::scripted(move |peer| {
            while let Some(request) = peer.request() {
                if request.head.line.starts_with("GET /healthz ") {
                    peer.wire.send(answer);
                } else {
                    peer.answer("200 OK", "alpha");
                }
            }
        });
        let gateway = Gateway::start(&before("http://{alpha}", SLOW_TO_TRUST), &[("alpha", alpha.address())]);
        wait_until("the first check to count", || ask(gateway.web()).status() == 503);
    }
}

#[test]
fn more_than_is_read_of_an_answer_does_no_harm() {
    let checks = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&checks);
    let alpha = Provider::scripted(move |peer| {
        while let Some(request) = peer.request() {
            if !request.head.line.starts_with("GET /healthz ") {
                peer.answer("200 OK", "alpha");
            } else if count.fetch_add(1, Ordering::SeqCst) == 0 {
                peer.answer("503 Service Unavailable", "");
            } else {
                // No end in sight: whoever waited for it would find the provider late.
                peer.wire.send("HTTP/1.1 200 OK\r\ncontent-length: 100000000000\r\n\r\n");
                while peer.wire.try_send([b'x'; 4096]).is_ok() {}
                return;
            }
        }
    });
    let more = "health_check: { interval: 500ms, timeout: 500ms, healthy_after: 1 }";
    let gateway = Gateway::start(&before("http://{alpha}", more), &[("alpha", alpha.address())]);
    wait_until("the second check, so that the first has counted", || checks.load(Ordering::SeqCst) > 1);
    assert_eq!(ask(gateway.web()).text(), "alpha");
}

#[test]
fn an_https_provider_is_checked_over_tls() {
    let (authority, mood) = (Authority::new(), Mood::new(false));
    let (config, says) = (Arc::new(server(&authority.sign("p", &["p.test"]), None)), Arc::clone(&mood));
    let alpha = Provider::scripted(move |peer| {
        let socket = peer.wire.handle().upgrade().expect("a connection");
        let mut session = ServerConnection::new(Arc::clone(&config)).expect("a server");
        let mut socket = &*socket;
        let mut stream = Stream::new(&mut session, &mut socket);
        let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(read @ 1..) = stream.read(&mut buffer) {
            request.extend_from_slice(&buffer[..read]);
            if request.ends_with(b"\r\n\r\n") {
                let answer = says.answer(&String::from_utf8_lossy(&request), "secret");
                request.clear();
                if stream.write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
        }
    });
    let tls = format!("tls: {{ ca: \"{}\", server_name: p.test }}, {CHECKED}", authority.path().display());
    let gateway = Gateway::start(&before("https://{alpha}", &tls), &[("alpha", alpha.address())]);
    comes_and_goes(&gateway, &mood, "secret");
}

#[test]
fn a_provider_behind_a_unix_socket_is_checked_there() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("s.sock");
    let (listener, mood) = (UnixListener::bind(&path).expect("a free path"), Mood::new(false));
    let says = Arc::clone(&mood);
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let says = Arc::clone(&says);
            std::thread::spawn(move || {
                let mut wire = Wire::on_unix(stream);
                while let Some(request) = wire.request() {
                    assert_eq!(request.value("host"), Some("localhost"));
                    wire.send(says.answer(&request.head.line, "near"));
                }
            });
        }
    });
    let gateway = Gateway::start(&before(&format!("http://unix:{}", path.display()), CHECKED), &[]);
    comes_and_goes(&gateway, &mood, "near");
}

/// A provider alone that is unwell, then well, then unwell again.
fn comes_and_goes(gateway: &Gateway, mood: &Mood, name: &str) {
    gateway.wait_for_metric("sluice_provider_healthy", &[("provider", "alpha")], 0.0);
    mood.set(true);
    wait_until("it to be well", || ask(gateway.web()).text() == name);
    assert!(mood.good() >= 2, "after {} good checks", mood.good());
    mood.set(false);
    mood.wait_for(4);
    mood.set(true);
    // Those who come while it is unwell wait for it, as it may be well in time.
    assert_eq!(ask(gateway.web()).text(), name);
}

#[test]
fn each_change_is_logged_once_with_its_reason() {
    let mood = Mood::new(false);
    let alpha = provider("alpha", &mood);
    // A machine that is busy does not make it change its mind.
    let more = "health_check: { interval: 300ms, timeout: 300ms, healthy_after: 1, unhealthy_after: 100 }";
    let sluice = Sluice::spawn(&before("http://{alpha}", more), &[("alpha", alpha.address())]);
    let said = |word: &str| -> Vec<_> {
        sluice
            .log()
            .into_iter()
            .filter(|line| line["message"].as_str().is_some_and(|text| text.contains(word)))
            .collect()
    };
    mood.wait_for(3);
    wait_until("the log to say why", || !said("is not well").is_empty());
    let lines = said("is not well");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!((&lines[0]["level"], &lines[0]["provider"]), (&"warn".into(), &"alpha".into()), "{lines:?}");
    assert_eq!(lines[0]["reason"], "it answered 503");
    mood.set(true);
    wait_until("the log to say so", || !said("is well").is_empty());
    mood.wait_for(3);
    assert_eq!(said("is well").len(), 1);
    assert_eq!(said("is not well").len(), 1);
}

#[test]
fn each_address_of_a_name_is_a_member_with_a_name_of_its_own() {
    let alpha = Provider::answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let url = format!("http://localhost:{}", alpha.address().port());
    let gateway = Gateway::start(&before(&url, "discover: dns"), &[]);
    let member = format!("alpha@{}", alpha.address());
    let mut requests = 0;
    wait_until("the name to be resolved", || {
        requests += 1;
        ask(gateway.web());
        let line = gateway.wait_for_access_log(requests).pop().expect("a line");
        line["provider"] == member.as_str()
    });
    let request = alpha.requests().pop().expect("a request");
    assert_eq!(request.value("host"), Some(&*format!("localhost:{}", alpha.address().port())));
    // What it does is counted for itself.
    let counted = || gateway.metric("sluice_attempts_total", &[("provider", &member), ("outcome", "success")]);
    wait_until("an attempt to be counted", || counted() >= 1.0);

    // A reload keeps its members.
    let last = requests;
    gateway.rewrite(&before(&url, "discover: dns, limits: { concurrency: 7 }"));
    gateway.reload().expect("a valid file");
    assert_eq!(ask(gateway.web()).text(), "ok");
    let line = gateway.wait_for_access_log(last + 1).pop().expect("a line");
    assert_eq!(line["provider"], member.as_str());
}
