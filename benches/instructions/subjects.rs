//! What is counted: the steps that every request takes, one by one, and the whole of it.

use crate::{Outcome, gateway};
use bytes::Bytes;
use sluice::cache::key::{Key, Parts};
use sluice::cache::store::{Head, Store, Stored};
use sluice::clock;
use sluice::config::{self, Config, HostPattern, Match, PathPattern, Route, UnknownEnvironment};
use sluice::http1::framing::Length;
use sluice::http1::head::{RequestHead, ResponseHead, Scan, Version};
use sluice::observe::metrics::Metrics;
use sluice::policy::class::Class;
use sluice::policy::freshness::{Asked, Rules, Terms, Times, Use};
use sluice::policy::outcome::Outcome as Ended;
use sluice::proxy::forward::{self, Back, Onward};
use sluice::proxy::frame;
use sluice::proxy::identity::{Identity, Peer};
use sluice::proxy::route::{self, Found, Routes};
use sluice::upstream::pool::{Ask, Leasing, Report, Wait};
use sluice::upstream::registry::Registry;
use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// Something that is counted.
#[derive(Debug)]
pub(crate) struct Subject {
    /// What it is called.
    pub(crate) name: &'static str,
    /// How often it is done in one run: so often that what differs between two starts of a process does not show.
    pub(crate) turns: u64,
    /// Sets it up, and does it so often.
    run: fn(u64),
}

/// Everything that is counted, in the order of a request's way.
pub(crate) const ALL: [Subject; 12] = [
    Subject { name: "parse a request's head", turns: 20_000, run: parse_request },
    Subject { name: "check a request", turns: 20_000, run: check },
    Subject { name: "find a route among 10", turns: 20_000, run: |turns| find_route(10, 64, turns) },
    Subject { name: "find a route among 10,000", turns: 20_000, run: |turns| find_route(10_000, 1, turns) },
    Subject { name: "take a lease and give it back", turns: 20_000, run: lease },
    Subject { name: "write the head for a provider", turns: 20_000, run: write_request },
    Subject { name: "parse an answer's head", turns: 20_000, run: parse_answer },
    Subject { name: "write the head for the client", turns: 20_000, run: write_answer },
    Subject { name: "find a kept reply by its key", turns: 20_000, run: find_kept },
    Subject { name: "a whole GET", turns: 2_000, run: |turns| gateway::ask("/passed", turns) },
    Subject { name: "a whole POST of 4 KiB", turns: 2_000, run: |turns| gateway::send("/passed", 4096, turns) },
    Subject { name: "a whole GET of what is kept", turns: 2_000, run: |turns| gateway::ask("/kept", turns) },
];

/// Does what `name` says so often.
pub(crate) fn run(name: &str, turns: &str) -> Outcome<()> {
    let subject = ALL.iter().find(|subject| subject.name == name);
    let names = || ALL.map(|subject| subject.name).join("\n  ");
    let subject = subject.ok_or_else(|| format!("there is no `{name}`; there are:\n  {}", names()))?;
    let turns = turns.parse().map_err(|_| format!("`{turns}` is no number of turns"))?;
    fastrand::seed(SEED);
    (subject.run)(turns);
    Ok(())
}

fn parse_request(turns: u64) {
    let mut head = RequestHead::default();
    for _ in 0..turns {
        let bytes = black_box(REQUEST);
        let end = Scan::default().find(bytes).expect("no bare LF").expect("it is whole");
        head.parse(&bytes[..end], FIELDS).expect("a valid head");
        black_box(&head);
    }
}

fn check(turns: u64) {
    let (head, mut scratch) = (request(), String::new());
    for _ in 0..turns {
        black_box(frame::check(black_box(&head), &mut scratch)).expect("a valid request");
    }
}

/// Routes as tenants of one gateway have them: half of them by host, half by path. Where names come to lie in a table of hashes
/// differs from one table to the next, and shows where there are few; so several tables take turns.
fn find_route(count: usize, tables: usize, turns: u64) {
    let config = configuration("routes: [{ name: r, respond: {} }]\n");
    let route = |number: usize| {
        let (host, path) = match number % 2 {
            0 => (HostPattern::Exact(format!("h{number}.example.com")), "/api".into()),
            _ => (HostPattern::Any, format!("/service-{number}/v1")),
        };
        let one = &config.routes[0];
        let matches = Match { hosts: vec![host], path: PathPattern::Prefix(path), ..one.matches.clone() };
        Arc::new(Route { name: format!("r{number}").into(), matches, ..Route::clone(one) })
    };
    let routes: Vec<Arc<Route>> = (0..count).map(route).collect();
    let tables: Vec<Routes> = (0..tables).map(|_| Routes::compile(&routes)).collect();
    let asked = |at: usize| match (at * STRIDE % count, at * STRIDE % count % 2) {
        (number, 0) => (number, format!("h{number}.example.com"), "/api/items/42".to_owned()),
        (number, _) => (number, format!("w{number}.example.com"), format!("/service-{number}/v1/items/42")),
    };
    let requests: Vec<(usize, String, String)> = (0..REQUESTS).map(asked).collect();
    for (table, (number, host, path)) in tables.iter().cycle().zip(requests.iter().cycle()).take(turns as usize) {
        let asked = route::Asked { host, path, query: None, method: "GET", headers: &Vec::new() };
        let found = table.find(black_box(&asked));
        assert!(matches!(found, Found::Route(index) if index == *number), "{host}{path}: {found:?}");
    }
}

/// Among three providers, by the default rule.
fn lease(turns: u64) {
    let config = configuration(
        "routes: [{ name: r, pool: p }]\npools: { p: { providers: [a, b, c] } }\nproviders:\n  \
         a: { url: \"http://127.0.0.1:1\" }\n  b: { url: \"http://127.0.0.1:2\" }\n  c: { url: \"http://127.0.0.1:3\" }\n",
    );
    let (registry, pools) = Registry::default().build(&config, 1, &Metrics::new()).expect("it can be built");
    let start = clock::now();
    registry.take_effect(&Registry::default(), start);
    for turn in 0..turns {
        // Time goes on as it does between requests.
        let now = start + Duration::from_micros(100 * turn);
        let label = || unreachable!("nobody waits");
        let ask = Ask {
            class: Class::Normal,
            client: 0,
            share: 1,
            key: None,
            tried: &[],
            again: false,
            risky: false,
            bytes: 0,
            deadline: now + Duration::from_secs(30),
            wait: Wait::Queue,
            now,
            label: &label,
        };
        let Ok(Leasing::Now(lease)) = pools[0].lease(black_box(&ask)) else { panic!("there is room") };
        let head_after = Some(Duration::from_micros(50));
        lease.finish(Report { outcome: Ended::Success, why: "", head_after, cooldown: None }, now);
    }
}

fn write_request(turns: u64) {
    let (head, mut scratch) = (request(), String::new());
    let request = frame::check(&head, &mut scratch).expect("a valid request");
    let config = one_provider();
    let (peer, identity) = (peer(), identity(&head));
    let onward = Onward {
        request: &request,
        rewrite: &config.routes[0].rewrite,
        provider: &config.providers[0],
        peer: &peer,
        identity: &identity,
        key_fields: [None, None],
        left: Duration::from_secs(30),
        plain: false,
    };
    let mut out = Vec::new();
    for _ in 0..turns {
        out.clear();
        forward::request_head(&mut out, black_box(&onward));
        black_box(&out);
    }
}

fn parse_answer(turns: u64) {
    let mut head = ResponseHead::default();
    for _ in 0..turns {
        let bytes = black_box(ANSWER);
        let end = Scan::default().find(bytes).expect("no bare LF").expect("it is whole");
        head.parse(&bytes[..end], FIELDS).expect("a valid head");
        black_box(&head);
    }
}

fn write_answer(turns: u64) {
    let (request, head, config) = (request(), answer(), one_provider());
    let back = Back {
        rewrite: &config.routes[0].rewrite,
        identity: &identity(&request),
        length: Length::Exact(1024),
        version: Version::Http11,
        keep_alive: true,
        upgrade: false,
        degraded: None,
        trail: None,
        cached: None,
    };
    let mut out = Vec::new();
    for _ in 0..turns {
        out.clear();
        forward::answer_head(&mut out, black_box(&head), black_box(&back));
        black_box(&out);
    }
}

/// Reads what a request is to a cache, writes its key, finds the reply among 1,000 and decides that it is fresh.
fn find_kept(turns: u64) {
    let (request, answer) = (request(), answer());
    let rules = Rules { ttl: None, stale_while_revalidate: Duration::ZERO, stale_if_error: Duration::ZERO };
    let asked = Asked::read("GET", &request.fields);
    let now = clock::now();
    let times = Times { requested: now, received: now, wall: UNIX_EPOCH + DATE };
    let terms = Terms::read((&asked, &request.fields), false, (answer.status, &answer.fields), &rules, times);
    let terms = terms.expect("it may be kept");
    let head = Head { status: answer.status, fields: terms.kept(&answer.fields), terms };
    let stored = Stored::new(head, vec![Bytes::from_static(&[b'x'; 1024])]);
    let store = Store::new(64 * 1024 * 1024);
    let paths: Vec<String> = (0..KEPT).map(|number| format!("/items/{number:04}")).collect();
    let parts = |path| Parts {
        route: "items",
        place: b"",
        scheme: "http",
        authority: b"www.example.com",
        path,
        query: Some("page=2"),
        body: None,
    };
    let mut key = Vec::new();
    for path in &paths {
        parts(path.as_str()).write(&mut key);
        assert!(store.keep(Key::new(&key), stored.clone()), "there is room");
    }
    for path in paths.iter().cycle().take(turns as usize) {
        let asked = Asked::read("GET", black_box(&request.fields));
        parts(path.as_str()).write(&mut key);
        let group = store.find(black_box(&key)).expect("it is kept");
        let stored = group.matching(&request.fields).next().expect("it fits");
        assert_eq!(stored.head.terms.decide(&asked, now), Use::Fresh);
    }
}

/// A configuration with a listener and this.
pub(crate) fn configuration(more: &str) -> Config {
    let text = format!("listeners: [{{ name: web, bind: \"127.0.0.1:0\" }}]\nlog: {{ access: false }}\n{more}");
    match config::parse("gateway.yaml", text.as_bytes(), &UnknownEnvironment) {
        Ok(loaded) => loaded.config,
        Err(problems) => panic!("{problems}"),
    }
}

fn one_provider() -> Config {
    configuration(
        "routes: [{ name: r, pool: p }]\npools: { p: { providers: [a] } }\n\
         providers: { a: { url: \"http://127.0.0.1:8081\" } }\n",
    )
}

fn request() -> RequestHead {
    let mut head = RequestHead::default();
    head.parse(REQUEST, FIELDS).expect("a valid head");
    head
}

fn answer() -> ResponseHead {
    let mut head = ResponseHead::default();
    head.parse(ANSWER, FIELDS).expect("a valid head");
    head
}

fn peer() -> Peer {
    Peer::new(SocketAddr::from((Ipv4Addr::new(192, 0, 2, 7), 40_000)), "http")
}

fn identity(head: &RequestHead) -> Identity {
    Identity::new(&head.fields, false, (u128::from(SEED), SEED))
}

/// What a program sends that calls an interface.
const REQUEST: &[u8] = b"GET /items/42?page=2&sort=name HTTP/1.1\r\n\
    Host: www.example.com\r\n\
    User-Agent: python-requests/2.32.3\r\n\
    Accept: application/json\r\n\
    Accept-Encoding: gzip, deflate, br\r\n\
    Accept-Language: en-GB,en;q=0.8\r\n\
    X-Tenant: 7d3f0c1e\r\n\
    Connection: keep-alive\r\n\r\n";

/// What it gets.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Date: Sat, 21 Nov 2026 14:00:30 GMT\r\n\
    Content-Type: application/json\r\n\
    Content-Length: 1024\r\n\
    Cache-Control: public, max-age=86400\r\n\
    ETag: \"5f2c-61a8\"\r\n\
    Server: uvicorn\r\n\
    X-Frame-Options: DENY\r\n\r\n";

/// Its date.
const DATE: Duration = Duration::from_secs(1_795_269_630);

/// Fields that may be in a head: the default of `limits.headers`.
const FIELDS: usize = 100;

/// Different requests that look for a route.
const REQUESTS: usize = 512;

/// A prime, so that those do not walk the table in the order in which it was built.
const STRIDE: usize = 7_919;

/// Replies that are kept.
const KEPT: usize = 1_000;

/// For whatever is drawn at random.
const SEED: u64 = 0x51_1c_e0;
