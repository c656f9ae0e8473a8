//! Routing: the index gives the route that comes first among all that match, for any host, path, query and method.
//!
//! Input: lines of method, host, path and query; the rest is the value of the field `x-mode`. The routes are fixed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice::config::{self, UnknownEnvironment};
use sluice::http1::fields::Fields;
use sluice::proxy::route::{Asked, Found, Routes};
use std::sync::LazyLock;

static ROUTES: LazyLock<Routes> = LazyLock::new(|| {
    let loaded = config::parse("routes.yaml", YAML.as_bytes(), &UnknownEnvironment);
    Routes::compile(&loaded.unwrap_or_else(|problems| panic!("{problems}")).config.routes)
});

fuzz_target!(|input: &str| {
    let mut lines = input.splitn(5, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (method, host, path, query, mode) = (line(), line(), line(), line(), line());
    let mut headers = Fields::default();
    headers.push(b"X-Mode", mode.as_bytes());
    let query = (!query.is_empty()).then_some(query);
    let asked = Asked { host, path, query, method, headers: &headers };
    let candidates = ROUTES.candidates(&asked);
    let first = candidates.iter().find(|candidate| candidate.why_not.is_none()).map(|candidate| candidate.route);
    match ROUTES.find(&asked) {
        Found::Route(index) => assert_eq!(first, Some(index), "{candidates:?}"),
        Found::WrongMethod(allow) => {
            assert_eq!(first, None, "{candidates:?}");
            assert!(
                !allow.split(", ").any(|allowed| allowed == method),
                "{method} is refused where {allow} are allowed"
            );
        }
        Found::None => assert_eq!(first, None, "{candidates:?}"),
    }
});

const YAML: &str = r#"
version: 1
listeners: [{ name: web, bind: 127.0.0.1:8080 }]
routes:
  - { name: any, match: { path: "/*" }, respond: { body: any } }
  - { name: a, match: { path: /a }, respond: { body: a } }
  - { name: below-a, match: { path: "/a/*" }, respond: { body: a } }
  - { name: get-a, match: { path: "/a/*", methods: [GET] }, respond: { body: a } }
  - { name: deep, match: { path: "/a/b/c/*", methods: [POST, PUT] }, respond: { body: deep } }
  - { name: host, match: { hosts: [a.example], path: "/*", methods: [GET] }, respond: { body: host } }
  - { name: host-a, match: { hosts: [a.example, b.example], path: "/a/*" }, respond: { body: host } }
  - { name: wild, match: { hosts: ["*.example"], path: "/b/*" }, respond: { body: wild } }
  - { name: longer, match: { hosts: ["*.a.example"], path: "/b", headers: { x-mode: lite } }, respond: { body: wild } }
  - { name: asked, match: { path: "/q/*", query: { a: b } }, respond: { body: asked } }
  - { name: shaped, match: { path: "/r/*", path_regex: "/r/[0-9]+/(x|y)" }, respond: { body: shaped } }
"#;
