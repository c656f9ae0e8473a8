//! A configuration is replaced whole or not at all, and what did not change does not notice.

use crate::world::{BEFORE, Gate, Gateway, Provider, Sluice, Wire, free_address, page, wait_until};
use rustix::process::Signal;
use serde_json::Value;
use sluice::config::ProcessEnvironment;
use sluice::gateway::{self, Source};
use sluice::watch::Watch;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::sync::Arc;

/// A gateway that answers `word` to everyone, without any provider.
fn saying(word: &str) -> String {
    format!(
        "
listeners: [ {{ name: web, bind: \"{{web}}\" }} ]
routes: [ {{ name: all, match: {{ path: \"/*\" }}, respond: {{ body: {word} }} }} ]
"
    )
}

/// A provider that answers with its name, and `/held` only once the gate is open.
fn named(name: &'static str, gate: &Gate) -> Provider {
    let gate = gate.clone();
    Provider::scripted(move |peer| {
        while let Some(request) = peer.request() {
            if request.head.line.contains("/held") {
                gate.pass();
            }
            peer.answer("200 OK", name);
        }
    })
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut wire = Wire::connect(address);
    wire.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"));
    wire.answer().text()
}

fn json(address: SocketAddr, path: &str) -> Value {
    serde_json::from_str(&page(address, path)).expect("JSON")
}

fn refuses(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_err()
}

#[test]
fn hup_and_the_api_reload_the_file_and_say_what_changed() {
    let sluice = Sluice::spawn(&saying("one"), &[]);
    assert_eq!(get(sluice.web(), "/"), "one");
    sluice.rewrite(&saying("two"));
    sluice.signal(Signal::HUP);
    wait_until("the file is applied", || get(sluice.web(), "/") == "two");

    sluice.rewrite(&saying("three"));
    let mut wire = Wire::connect(sluice.admin());
    wire.send("POST /api/v1/config/reload HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n");
    let answer = wire.answer();
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert!(answer.text().contains("three"), "the change is named: {}", answer.text());
    assert_eq!(get(sluice.web(), "/"), "three");
}

#[test]
fn a_file_that_is_swapped_by_rename_is_seen() {
    let yaml = |word| format!("version: 1\nworkers: 1\nadmin: {{ bind: \"{{admin}}\" }}\n{}", saying(word));
    let sluice = Sluice::spawn(&yaml("one"), &[]);
    for word in ["two", "three", "four"] {
        sluice.rewrite(&yaml(word));
        wait_until("the file is applied", || get(sluice.web(), "/") == word);
    }
}

/// A ConfigMap's folder: `gateway.yaml` points to `..data/gateway.yaml`, and `..data` to a folder that is replaced.
#[test]
fn a_folder_that_kubernetes_swaps_is_seen_each_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let write = |version: u32| {
        let yaml = format!(
            "version: 1\nadmin: {{ bind: \"127.0.0.1:0\" }}\nlog: {{ access: false, file: \"{}\" }}\n{}",
            at("log").display(),
            saying(&format!("v{version}")).replace("{web}", "127.0.0.1:0")
        );
        fs::create_dir(at(&format!("..{version}"))).expect("a folder");
        fs::write(at(&format!("..{version}/gateway.yaml")), yaml).expect("a file");
        symlink(format!("..{version}"), at("..data_tmp")).expect("a link");
        fs::rename(at("..data_tmp"), at("..data")).expect("a rename");
    };
    write(1);
    symlink("..data/gateway.yaml", at("gateway.yaml")).expect("a link");
    let source = Source { path: at("gateway.yaml"), environment: Arc::new(ProcessEnvironment) };
    let gateway = gateway::Gateway::start(source).expect("it starts");
    let watch = Watch::start(gateway.files(), gateway.reloader()).expect("folders can be watched");
    let web = gateway.address("web").expect("a listener");
    for version in 2..5 {
        write(version);
        fs::remove_dir_all(at(&format!("..{}", version - 1))).expect("the old folder goes");
        wait_until("the file is applied", || get(web, "/") == format!("v{version}"));
    }
    drop(watch);
    gateway.stop();
}

#[test]
fn a_rejected_file_changes_nothing_and_is_seen_everywhere() {
    let gateway = Gateway::start(&saying("good"), &[]);
    let before = json(gateway.admin(), "/api/v1/config");
    assert_eq!(before["on_disk"]["error"], Value::Null);
    assert_eq!(before["on_disk"]["hash"], before["applied"]["hash"]);

    gateway.rewrite(&saying("bad").replace("respond", "respont"));
    let rejected = gateway.reload().expect_err("the key does not exist");
    assert!(rejected.rendered.contains("did you mean `respond`"), "{}", rejected.rendered);
    assert_eq!(get(gateway.web(), "/"), "good");
    assert!(gateway.metric("sluice_config_last_reload_successful", &[]) < 1.0);
    let seen = json(gateway.admin(), "/api/v1/config");
    assert_eq!(seen["applied"], before["applied"]);
    assert_ne!(seen["on_disk"]["hash"], before["on_disk"]["hash"]);
    assert!(seen["on_disk"]["error"].to_string().contains("respont"), "{}", seen["on_disk"]);
    // A gateway that runs is ready, whatever its file says by now; who looks closer sees it.
    let ready = page(gateway.admin(), "/health/ready?verbose");
    assert!(ready.contains("the latest reload was rejected"), "{ready}");

    gateway.rewrite(&saying("better"));
    gateway.reload().unwrap_or_else(|rejected| panic!("{}", rejected.rendered));
    assert_eq!(get(gateway.web(), "/"), "better");
    assert!(gateway.metric("sluice_config_last_reload_successful", &[]) > 0.0);
    let mended = json(gateway.admin(), "/api/v1/config");
    assert_eq!(mended["on_disk"]["error"], Value::Null);
    assert_eq!(mended["on_disk"]["hash"], mended["applied"]["hash"]);
}

#[test]
fn a_port_that_is_taken_rejects_the_whole_file() {
    let (free, taken) = (free_address(), free_address());
    let holder = TcpListener::bind(taken).expect("it was free");
    let gateway = Gateway::start(&saying("old"), &[("free", free), ("taken", taken)]);
    gateway.rewrite(
        &saying("new").replace(
            "} ]\nroutes",
            "}, { name: first, bind: \"{free}\" }, { name: second, bind: \"{taken}\" } ]\nroutes",
        ),
    );
    let rejected = gateway.reload().expect_err("the port is taken");
    for part in ["`second`", &taken.to_string(), "another process has it"] {
        assert!(rejected.rendered.contains(part), "{}", rejected.rendered);
    }
    assert_eq!(get(gateway.web(), "/"), "old");
    assert!(refuses(free), "a listener of a rejected file listens");
    assert!(gateway.metric("sluice_config_last_reload_successful", &[]) < 1.0);

    drop(holder);
    gateway.reload().unwrap_or_else(|rejected| panic!("{}", rejected.rendered));
    assert_eq!([gateway.web(), free, taken].map(|address| get(address, "/")), ["new"; 3]);
}

/// Two providers in turn.
const TWO: &str = "
listeners: [ { name: web, bind: \"{web}\" } ]
providers: { alpha: { url: \"http://{alpha}\" }, beta: { url: \"http://{beta}\" } }
pools: { main: { providers: [alpha, beta] } }
routes: [ { name: all, match: { path: \"/*\" }, pool: main } ]
";

#[test]
fn the_turn_of_a_pool_and_its_connections_outlive_a_reload_of_something_else() {
    let (alpha, beta) = (named("alpha", &Gate::default()), named("beta", &Gate::default()));
    let gateway = Gateway::start(TWO, &[("alpha", alpha.address()), ("beta", beta.address())]);
    let mut client = gateway.connect();
    let mut ask = || {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        client.answer().text()
    };
    assert_eq!([ask(), ask(), ask()], ["alpha", "beta", "alpha"]);
    let more = TWO.replace("routes: [", "routes: [ { name: more, match: { path: /more }, respond: {} },");
    gateway.rewrite(&more.replace("name: web,", "name: web, limits: { header_timeout: 7s },"));
    gateway.reload().unwrap_or_else(|rejected| panic!("{}", rejected.rendered));
    assert_eq!([ask(), ask(), ask()], ["beta", "alpha", "beta"], "the pool begins anew");
    assert_eq!((alpha.connections(), beta.connections()), (1, 1), "connections were not used again");
}

#[test]
fn a_provider_that_moves_is_not_reached_over_its_old_connections() {
    let (old, new) = (named("old", &Gate::default()), named("new", &Gate::default()));
    let mut gateway = Gateway::before(&old);
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.answer().text(), "old");
    gateway.place("moved", new.address());
    gateway.rewrite(&BEFORE.replace("{alpha}", "{moved}"));
    gateway.reload().unwrap_or_else(|rejected| panic!("{}", rejected.rendered));
    for _ in 0..3 {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(client.answer().text(), "new");
    }
    assert_eq!((old.requests().len(), new.requests().len()), (1, 3));
}

#[test]
fn a_request_under_way_sees_the_configuration_it_began_with_to_the_end() {
    let gate = Gate::default();
    let alpha = named("alpha", &gate);
    let yaml = |version: &str, path: &str| {
        let rewrite = format!("rewrite: {{ response_headers: {{ set: {{ x-version: \"{version}\" }} }} }}");
        BEFORE.replace("/*", path).replace("pool: main{route}", &format!("pool: main, {rewrite}"))
    };
    let gateway = Gateway::start(&yaml("one", "/*"), &[("alpha", alpha.address())]);
    let mut held = gateway.connect();
    held.send("GET /held HTTP/1.1\r\nhost: a\r\n\r\n");
    alpha.wait_for_requests(1);
    gateway.rewrite(&yaml("two", "/other/*"));
    gateway.reload().unwrap_or_else(|rejected| panic!("{}", rejected.rendered));
    let mut other = gateway.connect();
    other.send("GET /other/ HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(other.answer().value("x-version"), Some("two"));
    gate.open();
    let answer = held.answer();
    assert_eq!((answer.value("x-version"), answer.text().as_str()), (Some("one"), "alpha"));
    // The same connection's next request sees the new one: its route is gone.
    held.send("GET /held HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(held.answer().status(), 404);
}

#[test]
fn connections_of_a_listener_that_goes_get_their_answers() {
    let gate = Gate::default();
    let alpha = named("alpha", &gate);
    let side = free_address();
    let with = BEFORE.replace("} ]\nproviders", "}, { name: side, bind: \"{side}\" } ]\nproviders");
    let gateway = Gateway::start(&with, &[("alpha", alpha.address()), ("side", side)]);
    let mut held = Wire::connect(side);
    held.send("GET /held HTTP/1.1\r\nhost: a\r\n\r\n");
    alpha.wait_for_requests(1);
    let mut idle = Wire::connect(side);
    idle.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(idle.answer().text(), "alpha");
    gateway.rewrite(BEFORE);
    gateway.reload().unwrap_or_else(|rejected| panic!("{}", rejected.rendered));
    wait_until("nobody listens", || refuses(side));
    idle.closes();
    assert!(held.is_silent(), "a request under way was cut");
    gate.open();
    let answer = held.answer();
    assert_eq!((answer.value("connection"), answer.text().as_str()), (Some("close"), "alpha"));
    held.closes();
    // The address can be had again.
    gateway.rewrite(&with);
    gateway.reload().unwrap_or_else(|rejected| panic!("{}", rejected.rendered));
    assert_eq!(get(side, "/"), "alpha");
}
