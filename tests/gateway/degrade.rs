//! What operators see of a route's ladder, and may do to it.

use crate::world::{Gateway, PREAMBLE, Provider, Wire, page};
use serde_json::{Value, json};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use tempfile::TempDir;

/// A route with a ladder, and one without; the store lies in this folder.
fn yaml(folder: &Path) -> String {
    format!(
        "{PREAMBLE}store: {{ path: \"{}\" }}
listeners: [{{ name: web, bind: \"{{web}}\" }}]
providers: {{ alpha: {{ url: \"http://{{alpha}}\" }}, spare: {{ url: \"http://{{alpha}}\" }} }}
pools: {{ main: {{ providers: [alpha] }}, other: {{ providers: [spare] }} }}
routes:
  - name: api
    pool: main
    degrade: [{{ pool: other }}, {{ static: {{ body: sorry }} }}]
  - {{ name: plain, match: {{ path: /plain }}, pool: main }}
",
        folder.display()
    )
}

fn ask(admin: SocketAddr, line: &str) -> Value {
    let mut wire = Wire::connect(admin);
    wire.send(format!("{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"));
    serde_json::from_str(&wire.answer().text()).expect("JSON")
}

/// What `/api/v1/degradation` says of the one route that has a ladder: where it begins, and whether it is degraded.
fn state(admin: SocketAddr) -> (Value, Value) {
    let listed = ask(admin, "GET /api/v1/degradation");
    let routes = listed["degradation"].as_array().expect("a list");
    assert_eq!(routes.len(), 1, "{listed}");
    assert_eq!((&routes[0]["route"], &routes[0]["ladder"]), (&json!("api"), &json!(["pool", "static"])));
    (routes[0]["rung"].clone(), routes[0]["degraded"].clone())
}

fn gauge(admin: SocketAddr) -> Option<String> {
    let page = page(admin, "/metrics");
    let line = page.lines().find_map(|line| line.strip_prefix("sluice_degraded{route=\"api\"} "));
    line.map(ToOwned::to_owned)
}

#[test]
fn a_forced_route_stays_forced_through_reloads_and_restarts_until_it_is_handed_back() {
    let alpha = Provider::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let folder = TempDir::new().expect("a folder");
    let (calm, on_static) = ((Value::Null, json!(false)), (json!("static"), json!(true)));
    let first = Gateway::start(&yaml(folder.path()), &[("alpha", alpha.address())]);
    assert_eq!((state(first.admin()), gauge(first.admin())), (calm.clone(), Some("0".to_owned())));
    let made = ask(first.admin(), "POST /api/v1/degradation/api/force?rung=static");
    assert_eq!((&made["override"]["id"], &made["override"]["durable"]), (&json!("degradation/api"), &json!(true)));
    assert_eq!((state(first.admin()), gauge(first.admin())), (on_static.clone(), Some("1".to_owned())));
    ask(first.admin(), "POST /api/v1/config/reload");
    assert_eq!(state(first.admin()), on_static);
    drop(first);
    let second = Gateway::start(&yaml(folder.path()), &[("alpha", alpha.address())]);
    assert_eq!(state(second.admin()), on_static);
    ask(second.admin(), "POST /api/v1/degradation/api/auto");
    assert_eq!((state(second.admin()), gauge(second.admin())), (calm, Some("0".to_owned())));
    let past = &ask(second.admin(), "GET /api/v1/degradation/api")["past"];
    assert_eq!(past.as_array().map(Vec::len), Some(1));
    assert_eq!((&past[0]["why"], &past[0]["requests_affected"]), (&json!("an operator forced it"), &json!(0)));
}

#[test]
fn only_a_rung_that_is_there_can_be_forced() {
    let alpha = Provider::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let folder = TempDir::new().expect("a folder");
    let gateway = Gateway::start(&yaml(folder.path()), &[("alpha", alpha.address())]);
    let refused = ask(gateway.admin(), "POST /api/v1/degradation/api/force?rung=stale");
    assert_eq!(refused["detail"], "rung: the ladder of this route has no `stale`; it has pool, static");
    for route in ["plain", "nobody"] {
        assert_eq!(ask(gateway.admin(), &format!("POST /api/v1/degradation/{route}/force"))["status"], 404);
    }
    assert_eq!(ask(gateway.admin(), "GET /api/v1/overrides"), json!({ "overrides": [] }));
    assert!(fs::read_dir(folder.path()).expect("a folder").next().is_none(), "nothing had to be stored");
}
