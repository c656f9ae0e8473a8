//! The listener over real sockets, in front of a gateway that is only pretended.

use super::*;
use crate::clock;
use crate::config::{Admin, Role, Secret, Token};
use crate::observe::Metrics;
use crate::overrides::{self, Overrides, Shown, Steered};
use crate::policy::circuit::{Circuit, State, Terms, Verdict};
use crate::policy::class::Class;
use crate::policy::degrade::{Degradation, Forced, Measures, Rung, Totals};
use crate::policy::ladder::{Kind, Trigger};
use crate::policy::overrides::{Change, Setting, Target};
use crate::store::Embedded;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// A gateway that answers what a test told it to.
struct Pretended {
    admin: Admin,
    metrics: Arc<Metrics>,
    draining: AtomicBool,
    rejects: AtomicBool,
    reloads: Arc<AtomicUsize>,
    /// A reload waits for it, where a test set `slow`.
    go_on: Arc<Notify>,
    slow: AtomicBool,
    /// Looking at readiness and configuration waits for it.
    busy: Mutex<()>,
    overrides: Overrides,
    alpha: Alpha,
    folder: TempDir,
}

/// One thing of each kind is there, and is called `alpha`.
#[derive(Default)]
struct Alpha {
    told: Mutex<Vec<String>>,
}

impl Steered for Alpha {
    fn has(&self, target: &Target) -> bool {
        target.name == "alpha"
    }

    fn apply(&self, change: &Change<'_>) {
        self.told.lock().expect("nobody panicked").push(format!("{change:?}"));
    }
}

/// A running listener.
struct World {
    gateway: Arc<Pretended>,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    server: JoinHandle<std::io::Result<()>>,
}

/// A whole answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Control for Pretended {
    fn admin(&self) -> Arc<Admin> {
        Arc::new(self.admin.clone())
    }

    fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    fn readiness(&self) -> Readiness {
        drop(self.busy.lock());
        let draining = self.draining.load(Ordering::SeqCst);
        let check = Check { name: "listeners", ok: !draining, detail: "1 listening".into() };
        Readiness { ready: !draining, draining, checks: vec![check] }
    }

    fn providers(&self) -> Vec<ProviderView> {
        vec![provider()]
    }

    fn circuits(&self) -> Vec<CircuitView> {
        let start = clock::now();
        let terms = Terms {
            failure_threshold: 1,
            failure_rate: 0.5,
            window: Duration::from_secs(10),
            minimum_requests: 20,
            recovery_timeout: Duration::from_secs(5),
            max_recovery_timeout: Duration::from_secs(60),
            half_open_requests: 1,
            success_threshold: 2,
        };
        let mut circuit = Circuit::new(terms, start);
        let permit = circuit.admit(start + Duration::from_secs(1)).expect("it is closed");
        circuit.report(permit, Verdict::Failure("503"), start + Duration::from_secs(1), 0.5);
        let (now, at) = (start + Duration::from_secs(3), UNIX_EPOCH + Duration::from_secs(3));
        vec![CircuitView { provider: "alpha".into(), circuit, now, at }]
    }

    fn queues(&self) -> Vec<QueueView> {
        vec![QueueView {
            pool: "main".into(),
            depth: [0, 2, 1],
            oldest: [None, Some(Duration::from_millis(1500)), Some(Duration::from_secs(2))],
            clients: vec![(Class::Normal, "mobile".into(), 2), (Class::Low, "anonymous".into(), 1)],
            in_flight: 64,
            capacity: 1000,
            paused: true,
            shed: vec![("queue_full", 3), ("queue_timeout", 0)],
            gone: 4,
            dispatched: 50,
            rate: Some(2.5),
            estimated_wait: None,
            held: 1024,
        }]
    }

    fn waiting(&self, pool: &str, limit: usize) -> Option<Vec<WaitingView>> {
        assert!(limit > 0);
        let one = WaitingView {
            id: 7,
            request_id: "r-7".into(),
            client: "mobile".into(),
            class: Class::Normal,
            route: "api".into(),
            method: "POST".into(),
            path: "/api/x".into(),
            again: false,
            waited: Duration::from_millis(1500),
            left: Duration::from_millis(3500),
        };
        (pool == "main").then(|| vec![one])
    }

    fn cancel(&self, pool: &str, id: u64) -> bool {
        (pool, id) == ("main", 7)
    }

    fn balances(&self) -> Vec<BalanceView> {
        let member = MemberView { weight: 3, backup: false, provider: provider() };
        vec![BalanceView { pool: "main".into(), rule: "weighted", waiting: 0, members: vec![member] }]
    }

    fn retries(&self) -> RetryView {
        RetryView {
            attempts: [90, 9, 1],
            costs: Some([4.5, 0.5, 0.0]),
            routes: vec![("api".into(), vec![("503", 9)], vec![("budget", 2)])],
            budgets: vec![("main".into(), Some(7.5))],
        }
    }

    fn degradations(&self) -> Vec<DegradationView> {
        let start = clock::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let ladder = vec![Kind::Pool, Kind::Static];
        let rungs = ladder.iter().map(|kind| Rung { kind: *kind, terms: None });
        let mut degradation = Degradation::new(rungs.collect(), start);
        let totals = |pool, of_static| Totals { answers: [pool, 0, 0, of_static], failed: pool };
        let look = |degradation: &mut Degradation, totals, fall, now| {
            degradation.look(&Measures::default(), totals, fall, now);
        };
        look(&mut degradation, totals(1, 2), Some((at(1), Trigger::QueueFull)), at(1));
        look(&mut degradation, totals(1, 2), None, at(30));
        degradation.force(Some(Forced::On(Kind::Static)), at(60));
        look(&mut degradation, totals(1, 9), None, at(60));
        let (now, at) = (at(61), UNIX_EPOCH + Duration::from_secs(61));
        vec![DegradationView { route: "alpha".into(), ladder, degradation, totals: totals(1, 9), now, at }]
    }

    fn cache(&self) -> Option<CacheView> {
        let routes = vec![CachedRoute { route: "api".into(), entries: 2, bytes: 900, hits: 7 }];
        let (entries, bytes, arriving_bytes, capacity) = (2, 900, 10, 4096);
        Some(CacheView { entries, bytes, arriving_bytes, capacity, under_way: 1, declined: 3, routes })
    }

    fn forget(&self, what: &Forget) -> u64 {
        if *what == Forget::Route("api".into()) { 2 } else { 0 }
    }

    fn dependencies(&self) -> Vec<Dependency> {
        let latency = Some(Duration::from_millis(1500));
        vec![Dependency { name: "store", state: "ok", detail: "data/sluice.redb".into(), latency }]
    }

    fn overrides(&self) -> Vec<Shown> {
        self.overrides.list(&self.alpha)
    }

    fn override_by(&self, setting: Setting, name: &str, ttl: Option<Duration>) -> Result<Shown, overrides::Refused> {
        self.overrides.put(&self.alpha, setting, name, ttl.map(|ttl| UNIX_EPOCH + ttl), UNIX_EPOCH)
    }

    fn take_back(&self, target: &Target) -> Result<Option<Shown>, overrides::Refused> {
        self.overrides.clear(&self.alpha, target, UNIX_EPOCH)
    }

    fn config(&self) -> ConfigStatus {
        drop(self.busy.lock());
        ConfigStatus {
            applied: Version { hash: "aa".into(), at: UNIX_EPOCH, effective: json!({ "version": 1 }) },
            on_disk: OnDisk { hash: Some("bb".into()), seen_at: UNIX_EPOCH, error: Some(json!("wrong")) },
            diff: vec![json!({ "path": "routes" })],
        }
    }

    fn reload(&self) -> Reloading {
        let (reloads, go_on) = (Arc::clone(&self.reloads), Arc::clone(&self.go_on));
        let (rejects, slow) = (self.rejects.load(Ordering::SeqCst), self.slow.load(Ordering::SeqCst));
        Box::pin(async move {
            if slow {
                go_on.notified().await;
            }
            reloads.fetch_add(1, Ordering::SeqCst);
            if rejects { Err(rejected()) } else { Ok(Reloaded { hash: "bb".into(), changes: vec![], notes: vec![] }) }
        })
    }

    fn check(&self, yaml: &[u8]) -> Result<Vec<Value>, Rejected> {
        match yaml {
            b"version: 1\n" => Ok(vec![json!("a note")]),
            b"panic" => panic!("a defect"),
            _ => Err(rejected()),
        }
    }
}

fn provider() -> ProviderView {
    ProviderView {
        name: "alpha".into(),
        url: "http://127.0.0.1:9001".into(),
        healthy: true,
        draining: false,
        circuit: State::Open,
        in_flight: 2,
        concurrency: 64,
        rate: Some(500.0),
        utilisation: 0.25,
        latency: [Some(Duration::from_millis(250)), Some(Duration::from_millis(500)), None],
        cooldown_until: Some(UNIX_EPOCH + Duration::from_secs(1)),
        attempts: [9, 1, 0],
    }
}

fn rejected() -> Rejected {
    Rejected { rendered: "gateway.yaml:1:1: no".into(), problems: vec![json!({ "line": 1 })] }
}

impl World {
    fn start(tokens: &[(&str, Role)]) -> World {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("port 0 is free");
        let address = listener.local_addr().expect("bound");
        let token = |&(text, role): &(&str, Role)| Token { name: text.into(), secret: Secret::new(text), role };
        let folder = TempDir::new().expect("a folder");
        let gateway = Arc::new(Pretended {
            admin: Admin {
                bind: address,
                tokens: tokens.iter().map(token).collect(),
                hosts: vec!["gateway.example".into()],
            },
            metrics: Arc::default(),
            draining: AtomicBool::default(),
            rejects: AtomicBool::default(),
            reloads: Arc::default(),
            go_on: Arc::default(),
            slow: AtomicBool::default(),
            busy: Mutex::default(),
            overrides: Overrides::new(Arc::new(Embedded::new(folder.path()))),
            alpha: Alpha::default(),
            folder,
        });
        let (stop, stopped) = watch::channel(false);
        let server = tokio::spawn(serve(listener, gateway.clone(), stopped));
        World { gateway, address, stop, server }
    }

    /// Sends `request` as it stands and reads to the end of the connection.
    async fn raw(&self, request: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.expect("accepted");
        stream.write_all(request).await.expect("sent");
        read_answer(&mut stream).await
    }

    /// One request with `Connection: close`, a Host and more fields.
    async fn ask(&self, line: &str, fields: &[&str], body: &str) -> Answer {
        let host = if fields.iter().any(|field| field.starts_with("Host:")) { "" } else { "Host: localhost\r\n" };
        let fields: String = fields.iter().flat_map(|field| [*field, "\r\n"]).collect();
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let request = format!("{line} HTTP/1.1\r\n{host}Connection: close\r\n{fields}{length}\r\n{body}");
        self.raw(request.as_bytes()).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path}"), &[], "").await
    }
}

impl Answer {
    fn field(&self, name: &str) -> Option<&str> {
        let line = |line: &'_ str| line.split_once(": ").is_some_and(|(field, _)| field.eq_ignore_ascii_case(name));
        self.head.lines().find(|text| line(text)).and_then(|text| text.split_once(": ")).map(|(_, value)| value)
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("a JSON body")
    }

    #[track_caller]
    fn is_problem(&self, status: u16, reason: &str) -> &Self {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.field("content-type"), Some("application/problem+json"), "{self:?}");
        let body = self.json();
        assert_eq!((&body["status"], &body["reason"]), (&json!(status), &json!(reason)));
        self
    }
}

async fn read_answer(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.expect("readable to its end");
    let text = String::from_utf8(bytes).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head.get(9..12).expect("a status line").parse().expect("a status");
    Answer { status, head: head.into(), body: body.into() }
}

/// Looks until `condition` holds.
async fn until(mut condition: impl FnMut() -> bool) {
    let deadline = clock::now() + Duration::from_secs(10);
    while !condition() {
        assert!(clock::now() < deadline, "the condition never held");
        tokio::task::yield_now().await;
    }
}

const TOKENS: &[(&str, Role)] = &[("reads", Role::Read), ("operates", Role::Operate), ("evaluates", Role::Evaluate)];

#[tokio::test]
async fn operators_see_what_is_kept_and_have_it_forgotten() {
    let world = World::start(&[]);
    let shown = json!({
        "entries": 2, "bytes": 900, "arriving_bytes": 10, "capacity_bytes": 4096, "under_way": 1, "declined": 3,
        "routes": [{ "route": "api", "entries": 2, "bytes": 900, "hits": 7 }],
    });
    assert_eq!(world.get("/api/v1/cache").await.json(), shown);
}

#[tokio::test]
async fn the_probes_tell_that_it_lives_and_whether_it_is_ready() {
    let world = World::start(&[]);
    for path in ["/livez", "/health", "/health/live"] {
        let answer = world.get(path).await;
        assert_eq!((answer.status, answer.json()), (200, json!({ "status": "ok" })));
    }
    for path in ["/readyz", "/health/ready"] {
        let answer = world.get(path).await;
        assert_eq!((answer.status, answer.json()), (200, json!({ "status": "ready" })));
    }
    world.gateway.draining.store(true, Ordering::SeqCst);
    assert_eq!(world.get("/livez").await.status, 200);
    let answer = world.get("/readyz?verbose").await;
    let checks = json!([{ "name": "listeners", "ok": false, "detail": "1 listening" }]);
    assert_eq!((answer.status, answer.json()), (503, json!({ "status": "draining", "checks": checks })));
}

#[tokio::test]
async fn every_answer_forbids_caching_sniffing_and_framing() {
    let world = World::start(&[]);
    for answer in [world.get("/livez").await, world.get("/nowhere").await] {
        assert_eq!(answer.field("cache-control"), Some("no-store"));
        assert_eq!(answer.field("x-content-type-options"), Some("nosniff"));
        assert!(answer.field("content-security-policy").is_some_and(|policy| policy.contains("default-src 'none'")));
    }
}

#[tokio::test]
async fn metrics_come_in_the_format_the_scraper_wants() {
    let world = World::start(&[]);
    let plain = world.get("/metrics").await;
    assert_eq!(plain.field("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(plain.body.contains("\nsluice_panics_total 0\n"));
    for (accept, open) in [
        ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1", true),
        ("application/openmetrics-text", true),
        ("text/plain, application/openmetrics-text;q=0.5", false),
        ("application/openmetrics-text;q=0", false),
        ("*/*", false),
    ] {
        let answer = world.ask("GET /metrics", &[&format!("Accept: {accept}")], "").await;
        assert_eq!(answer.body.ends_with("# EOF\n"), open, "{accept}");
        assert_eq!(answer.field("content-type").is_some_and(|kind| kind.contains("openmetrics")), open, "{accept}");
    }
}

#[tokio::test]
async fn providers_dependencies_and_the_configuration_are_shown() {
    let world = World::start(&[]);
    let alpha = json!({
        "name": "alpha", "url": "http://127.0.0.1:9001", "healthy": true, "available": false, "draining": false,
        "circuit": "open", "in_flight": 2,
    });
    assert_eq!(world.get("/health/providers").await.json(), json!({ "providers": [alpha] }));
    let store = json!({ "name": "store", "state": "ok", "latency_seconds": 1.5, "detail": "data/sluice.redb" });
    assert_eq!(world.get("/health/dependencies").await.json(), json!({ "dependencies": [store] }));
    let expected = json!({
        "applied": { "hash": "aa", "at": "1970-01-01T00:00:00.000Z", "effective": { "version": 1 } },
        "on_disk": { "hash": "bb", "seen_at": "1970-01-01T00:00:00.000Z", "error": "wrong" },
        "in_sync": false,
        "diff": [{ "path": "routes" }],
    });
    assert_eq!(world.get("/api/v1/config").await.json(), expected);
}

#[tokio::test]
async fn a_reload_says_what_changed_or_every_problem() {
    let world = World::start(&[]);
    let applied = world.ask("POST /api/v1/config/reload", &[], "").await;
    assert_eq!((applied.status, applied.json()), (200, json!({ "hash": "bb", "changes": [], "notes": [] })));
    world.gateway.rejects.store(true, Ordering::SeqCst);
    let refused = world.ask("POST /api/v1/config/reload", &[], "").await;
    let body = refused.is_problem(422, "config_rejected").json();
    assert_eq!(body["problems"], json!([{ "line": 1 }]));
    assert_eq!(body["rendered"], "gateway.yaml:1:1: no");
    assert_eq!(body["detail"], "the configuration has 1 problem: nothing was changed");
    assert_eq!(body["instance"], "/api/v1/config/reload");
}

#[tokio::test]
async fn a_reload_ends_although_its_caller_hung_up() {
    let world = World::start(&[]);
    world.gateway.slow.store(true, Ordering::SeqCst);
    let mut caller = TcpStream::connect(world.address).await.expect("accepted");
    caller.write_all(b"POST /api/v1/config/reload HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
    // The handler has begun once the reload waits, which it does from then on.
    until(|| Arc::strong_count(&world.gateway.reloads) == 2).await;
    drop(caller);
    // By the time a later connection has its answer, the runtime has seen that the earlier one is gone.
    assert_eq!(world.get("/livez").await.status, 200);
    world.gateway.go_on.notify_one();
    until(|| world.gateway.reloads.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn what_is_alive_is_shown_in_the_shapes_of_the_contract() {
    let world = World::start(&[]);
    let queue = json!({
        "pool": "main",
        "depth": { "high": 0, "normal": 2, "low": 1 },
        "oldest_seconds": { "high": null, "normal": 1.5, "low": 2.0 },
        "clients": [
            { "client": "mobile", "class": "normal", "waiting": 2 },
            { "client": "anonymous", "class": "low", "waiting": 1 },
        ],
        "in_flight": 64,
        "capacity": 1000,
        "paused": true,
        "shed": { "queue_full": 3, "queue_timeout": 0 },
        "gone": 4,
        "dispatched_total": 50,
        "dispatch_rate": 2.5,
        "estimated_wait_seconds": null,
        "held_bytes": 1024,
    });
    let circuit = json!({
        "provider": "alpha",
        "state": "open",
        "forced": null,
        "failures": 1,
        "counts": { "successes": 0, "failures": 0 },
        "probes": 0,
        "last_failure_at": "1970-01-01T00:00:01.000Z",
        "opened_at": "1970-01-01T00:00:01.000Z",
        "half_opened_at": null,
        "retry_at": "1970-01-01T00:00:06.000Z",
        "history": [
            { "at": "1970-01-01T00:00:01.000Z", "from": "closed", "to": "open", "why": "1 failure: 503" },
        ],
    });
    let provider = json!({
        "name": "alpha",
        "url": "http://127.0.0.1:9001",
        "healthy": true,
        "draining": false,
        "circuit": "open",
        "in_flight": 2,
        "utilisation": 0.25,
        "latency": { "p50": 0.25, "p95": 0.5, "p99": null },
        "cooldown_until": "1970-01-01T00:00:01.000Z",
        "limits": { "concurrency": 64, "rate": 500.0 },
        "learned": {
            "status": "normal", "consecutive_429s": null, "reduction_pct": 0, "rate": 500.0, "concurrency": 64,
            "evidence": [],
        },
        "attempts": { "first": 9, "retry": 1, "hedge": 0 },
    });
    for (path, kind, name, one) in [
        ("/api/v1/queues", "queues", "main", queue),
        ("/api/v1/circuit-breakers", "circuit_breakers", "alpha", circuit),
        ("/api/v1/providers", "providers", "alpha", provider),
    ] {
        assert_eq!(world.get(path).await.json(), json!({ kind: [one] }));
        assert_eq!(world.get(&format!("{path}/{name}")).await.json(), one);
        world.get(&format!("{path}/nobody")).await.is_problem(404, "unknown_name");
    }
    let balancing = world.get("/api/v1/load-balancing").await.json();
    let alpha = json!({
        "provider": "alpha", "weight": 3, "backup": false, "attempts": { "first": 9, "retry": 1, "hedge": 0 },
        "share": 1.0, "share_by_weight": 1.0, "in_flight": 2, "utilisation": 0.25,
    });
    let main = &balancing["pools"][0];
    assert_eq!((&main["pool"], &main["balance"], &main["waiting"]), (&json!("main"), &json!("weighted"), &json!(0)));
    assert_eq!(main["providers"], json!([alpha]));
    assert_eq!(main["recommendations"].as_array().map(Vec::len), Some(3), "{main}");
    let retries = json!({
        "attempts": { "first": 90, "retry": 9, "hedge": 1 },
        "costs": { "first": 4.5, "retry": 0.5, "hedge": 0.0 },
        "routes": [{ "route": "api", "retries": { "503": 9 }, "skipped": { "budget": 2 } }],
        "pools": [{ "pool": "main", "budget_remaining": 7.5 }],
    });
    assert_eq!(world.get("/api/v1/retry").await.json(), retries);
}

#[tokio::test]
async fn degraded_routes_are_listed_with_what_they_came_to() {
    let world = World::start(&[]);
    let answers = |pool, of_static| json!({ "pool": pool, "reduced": 0, "stale": 0, "static": of_static });
    let route = json!({
        "route": "alpha", "ladder": ["pool", "static"], "degraded": true, "rung": "static", "forced": "static",
        "since": "1970-01-01T00:01:00.000Z", "why": "an operator forced it", "requests_affected": 7,
        "answers_total": answers(1, 9), "failed_total": 1, "events": 1,
        "past": [{
            "since": "1970-01-01T00:00:01.000Z", "until": "1970-01-01T00:00:01.000Z", "seconds": 0.0,
            "why": "requests failed (queue_full), and its ladder answered", "answers": answers(1, 2),
            "requests_affected": 4, "failed": 1,
        }],
    });
    assert_eq!(world.get("/api/v1/degradation").await.json(), json!({ "degradation": [route] }));
    assert_eq!(world.get("/api/v1/degradation/alpha").await.json(), route);
    world.get("/api/v1/degradation/beta").await.is_problem(404, "unknown_name");
}

#[tokio::test]
async fn a_route_is_forced_onto_a_rung_and_handed_back() {
    let world = World::start(&[]);
    let told = || std::mem::take(&mut *world.gateway.alpha.told.lock().expect("nobody panicked"));
    let force = async |query: &str| world.ask(&format!("POST /api/v1/degradation/alpha/force{query}"), &[], "").await;
    assert_eq!(force("?ttl=10m").await.json()["override"]["id"], "degradation/alpha");
    assert_eq!(force("?rung=static").await.json()["override"]["setting"], "degraded_static");
    world.ask("POST /api/v1/degradation/alpha/auto", &[], "").await;
    let degrade = |forced: &str| format!("Degrade(\"alpha\", {forced})");
    assert_eq!(told(), [degrade("Some(First)"), degrade("Some(On(Static))"), degrade("None")]);
    for query in ["?rung=stale", "?rung=cache", "?rung=static&rung=pool", "?ttl=1m&ttl=2m", "?rung", "?for=1m"] {
        force(query).await.is_problem(400, "bad_request");
    }
    world.ask("POST /api/v1/degradation/alpha/auto?rung=static", &[], "").await.is_problem(400, "bad_request");
    world.ask("POST /api/v1/degradation/beta/force?rung=stale", &[], "").await.is_problem(404, "unknown_name");
    assert_eq!(told(), [""; 0]);
}

#[tokio::test]
async fn who_waits_is_listed_and_can_be_sent_away() {
    let world = World::start(&[]);
    let one = json!({
        "id": 7, "request_id": "r-7", "client": "mobile", "class": "normal", "route": "api", "method": "POST",
        "path": "/api/x", "again": false, "waited_seconds": 1.5, "left_seconds": 3.5,
    });
    assert_eq!(world.get("/api/v1/queues/main/requests").await.json(), json!({ "requests": [one] }));
    world.get("/api/v1/queues/spare/requests").await.is_problem(404, "unknown_name");
    let cancelled = world.ask("DELETE /api/v1/queues/main/requests/7", &[], "").await;
    assert_eq!((cancelled.status, cancelled.json()), (200, json!({ "cancelled": 7 })));
    for path in ["main/requests/8", "main/requests/x", "spare/requests/7"] {
        world.ask(&format!("DELETE /api/v1/queues/{path}"), &[], "").await.is_problem(404, "not_found");
    }
}

#[tokio::test]
async fn an_override_is_made_listed_and_taken_back() {
    let world = World::start(&[]);
    let told = || std::mem::take(&mut *world.gateway.alpha.told.lock().expect("nobody panicked"));
    let made = world.ask("POST /api/v1/circuit-breakers/alpha/open?ttl=10m", &[], "").await;
    let open = json!({
        "id": "circuit/alpha", "kind": "circuit", "name": "alpha", "setting": "open",
        "since": "1970-01-01T00:00:00.000Z", "until": "1970-01-01T00:10:00.000Z", "unused": false, "durable": true,
    });
    assert_eq!((made.status, made.json()), (200, json!({ "override": open })));
    assert_eq!(told(), ["Circuit(\"alpha\", Some(Open))"]);
    for (path, kind, setting, change) in [
        ("circuit-breakers/alpha/close", "circuit", "closed", "Circuit(\"alpha\", Some(Closed))"),
        ("providers/alpha/drain", "provider", "drained", "Drain(\"alpha\", true)"),
        ("queues/alpha/pause", "queue", "paused", "Pause(\"alpha\", true)"),
    ] {
        let made = world.ask(&format!("POST /api/v1/{path}"), &[], "").await.json()["override"].clone();
        let said = [&made["kind"], &made["setting"], &made["until"]];
        assert_eq!(said, [&json!(kind), &json!(setting), &Value::Null]);
        assert_eq!(told(), [change]);
    }
    let listed = world.get("/api/v1/overrides").await.json();
    let ids: Vec<_> = listed["overrides"].as_array().expect("a list").iter().map(|one| one["id"].clone()).collect();
    assert_eq!(ids, ["circuit/alpha", "provider/alpha", "queue/alpha"]);
    for (request, change) in [
        ("POST /api/v1/circuit-breakers/alpha/auto", "Circuit(\"alpha\", None)"),
        ("POST /api/v1/providers/alpha/undrain", "Drain(\"alpha\", false)"),
        ("DELETE /api/v1/overrides/queue/alpha", "Pause(\"alpha\", false)"),
    ] {
        let taken = world.ask(request, &[], "").await;
        assert_eq!((taken.status, &taken.json()["cleared"]["name"]), (200, &json!("alpha")), "{request}");
        assert_eq!(told(), [change]);
    }
    let nothing = world.ask("POST /api/v1/queues/alpha/resume", &[], "").await;
    assert_eq!((nothing.status, nothing.json()), (200, json!({ "cleared": null })));
    assert_eq!(world.get("/api/v1/overrides").await.json(), json!({ "overrides": [] }));
}

#[tokio::test]
async fn what_cannot_be_overridden_is_a_problem_and_changes_nothing() {
    let world = World::start(&[]);
    for path in ["circuit-breakers/beta/open", "circuit-breakers/beta/auto", "queues/beta/pause"] {
        world.ask(&format!("POST /api/v1/{path}"), &[], "").await.is_problem(404, "unknown_name");
    }
    for path in ["overrides/circuit/alpha", "overrides/route/alpha", "overrides/circuit/%FF", "overrides/circuit"] {
        let status = world.ask(&format!("DELETE /api/v1/{path}"), &[], "").await.status;
        assert!([400, 404].contains(&status), "{path}: {status}");
    }
    let open = "circuit-breakers/alpha/open";
    for query in ["ttl", "ttl=", "ttl=10", "ttl=0s", "ttl=9999h", "ttl=1d", "tll=10m", "ttl=1m&ttl=2m", "ttl=1m&x"] {
        let refused = world.ask(&format!("POST /api/v1/{open}?{query}"), &[], "").await;
        refused.is_problem(400, "bad_request");
    }
    world.ask("POST /api/v1/circuit-breakers/alpha/auto?ttl=1m", &[], "").await.is_problem(400, "bad_request");
    world.gateway.overrides.release();
    let leaving = world.ask("POST /api/v1/circuit-breakers/alpha/open", &[], "").await;
    assert_eq!(leaving.is_problem(503, "handing_over").field("retry-after"), Some("1"));
    assert_eq!(world.get("/api/v1/overrides").await.json(), json!({ "overrides": [] }));
    assert_eq!(world.gateway.alpha.told.lock().expect("nobody panicked").len(), 0);
}

#[tokio::test]
async fn an_override_that_cannot_be_stored_is_made_and_says_so() {
    let world = World::start(&[]);
    std::fs::create_dir(world.gateway.folder.path().join("sluice.redb")).expect("made");
    let made = world.ask("POST /api/v1/providers/alpha/drain", &[], "").await;
    let body = made.json();
    assert_eq!((made.status, &body["override"]["durable"]), (200, &json!(false)));
    assert!(body["warning"].as_str().is_some_and(|warning| warning.contains("a restart will not know")), "{body}");
    assert_eq!(world.gateway.alpha.told.lock().expect("nobody panicked").len(), 1);
}

#[tokio::test]
async fn a_check_answers_notes_or_problems_and_bounds_its_body() {
    let world = World::start(&[]);
    let good = world.ask("POST /api/v1/config/check", &[], "version: 1\n").await;
    assert_eq!((good.status, good.json()), (200, json!({ "valid": true, "notes": ["a note"] })));
    world.ask("POST /api/v1/config/check", &[], "version: 2\n").await.is_problem(422, "config_rejected");
    let fields = ["Expect: 100-continue", "Content-Length: 33554433"];
    world.ask("POST /api/v1/config/check", &fields, "").await.is_problem(413, "body_too_large");
}

#[tokio::test]
async fn a_body_without_a_length_is_bounded_too() {
    let world = World::start(&[]);
    let mut stream = TcpStream::connect(world.address).await.expect("accepted");
    let head = b"POST /api/v1/config/check HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head).await.expect("sent");
    let chunk = [b"100000\r\n".as_slice(), &vec![b'x'; 0x10_0000], b"\r\n"].concat();
    for _ in 0..33 {
        // The answer may come, and the connection end, before the last chunk is out.
        if stream.write_all(&chunk).await.is_err() {
            break;
        }
    }
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.expect("an answer before the end");
    assert_eq!(answer, b"HTTP/1.1 413");
}

#[tokio::test]
async fn a_second_check_is_asked_to_come_again_while_one_is_read() {
    let world = World::start(&[]);
    let mut first = TcpStream::connect(world.address).await.expect("accepted");
    let head = b"POST /api/v1/config/check HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\
                 Connection: close\r\nContent-Length: 11\r\n\r\n";
    first.write_all(head).await.expect("sent");
    let mut waits = [0; 25];
    first.read_exact(&mut waits).await.expect("its body is awaited now");
    assert_eq!(&waits, b"HTTP/1.1 100 Continue\r\n\r\n");
    let second = world.ask("POST /api/v1/config/check", &[], "version: 1\n").await;
    assert_eq!(second.is_problem(503, "busy").field("retry-after"), Some("1"));
    first.write_all(b"version: 1\n").await.expect("sent");
    assert_eq!(read_answer(&mut first).await.status, 200);
}

#[tokio::test]
async fn a_defect_in_a_check_is_answered_and_counted() {
    let world = World::start(&[]);
    world.ask("POST /api/v1/config/check", &[], "panic").await.is_problem(500, "internal");
    assert!(world.get("/metrics").await.body.contains("\nsluice_panics_total 1\n"));
}

#[tokio::test]
async fn what_is_not_there_is_a_problem() {
    let world = World::start(&[]);
    let missing = world.get("/api/v2").await;
    assert_eq!(missing.is_problem(404, "not_found").json()["instance"], "/api/v2");
    let wrong = world.ask("DELETE /api/v1/config", &[], "").await;
    assert_eq!(wrong.is_problem(405, "method_not_allowed").field("allow"), Some("GET,HEAD"));
}

#[tokio::test]
async fn head_is_get_without_a_body() {
    let world = World::start(&[]);
    let get = world.get("/livez").await;
    let head = world.ask("HEAD /livez", &[], "").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(head.field("content-length"), get.field("content-length"));
}

#[tokio::test]
async fn only_names_of_the_listener_are_answered_so_that_rebinding_a_name_gains_nothing() {
    let world = World::start(TOKENS);
    for host in ["127.0.0.1", "127.0.0.1:9900", "[::1]:9900", "localhost:1", "LOCALHOST", "Gateway.Example:9900"] {
        assert_eq!(world.ask("GET /livez", &[&format!("Host: {host}")], "").await.status, 200, "{host}");
    }
    for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "0x7f000001"] {
        let answer = world.ask("GET /livez", &[&format!("Host: {host}")], "").await;
        answer.is_problem(421, "unknown_host");
        let fields = [&format!("Host: {host}"), "Authorization: Bearer reads"];
        assert_eq!(world.ask("GET /livez", &fields, "").await.status, 200, "{host} with a token");
        let fields = [&format!("Host: {host}"), "Authorization: Bearer wrong"];
        world.ask("GET /livez", &fields, "").await.is_problem(421, "unknown_host");
    }
}

#[tokio::test]
async fn a_request_names_its_host_exactly_once() {
    let world = World::start(&[]);
    for head in [
        "GET /livez HTTP/1.1\r\n",
        "GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n",
        "GET /livez HTTP/1.1\r\nHost: user@localhost\r\n",
        "GET http://evil.example/livez HTTP/1.1\r\nHost: localhost\r\n",
    ] {
        let answer = world.raw(format!("{head}Connection: close\r\n\r\n").as_bytes()).await;
        answer.is_problem(400, "bad_request");
    }
    assert_eq!(world.raw(b"GET /livez HTTP/1.0\r\n\r\n").await.status, 200);
}

#[tokio::test]
async fn a_page_of_another_site_can_do_nothing() {
    let world = World::start(&[]);
    for (host, origin) in [
        ("localhost:9900", "http://evil.example"),
        ("localhost:9900", "http://localhost:8080"),
        ("localhost:9900", "null"),
        ("localhost", "https://localhost:80"),
        ("localhost", "file://localhost"),
    ] {
        let fields = [&*format!("Host: {host}"), &format!("Origin: {origin}")];
        let answer = world.ask("POST /api/v1/config/reload", &fields, "").await;
        answer.is_problem(403, "foreign_origin");
    }
    assert_eq!(world.gateway.reloads.load(Ordering::SeqCst), 0);
    for (host, origin) in [
        ("localhost:9900", "http://localhost:9900"),
        ("gateway.example", "https://gateway.example"),
        ("gateway.example:443", "https://gateway.example"),
    ] {
        let fields = [&*format!("Host: {host}"), &format!("Origin: {origin}")];
        assert_eq!(world.ask("POST /api/v1/config/reload", &fields, "").await.status, 200, "{origin}");
    }
}

#[tokio::test]
async fn each_role_may_do_what_it_is_for() {
    let world = World::start(TOKENS);
    let ask = async |line: &str, token: &str| world.ask(line, &[&format!("Authorization: bearer {token}")], "").await;
    assert_eq!(ask("GET /metrics", "reads").await.status, 200);
    assert_eq!(ask("GET /metrics", "operates").await.status, 200);
    assert_eq!(ask("POST /api/v1/config/reload", "operates").await.status, 200);
    ask("POST /api/v1/queues/alpha/pause", "reads").await.is_problem(403, "forbidden");
    ask("DELETE /api/v1/overrides/queue/alpha", "reads").await.is_problem(403, "forbidden");
    assert_eq!(ask("POST /api/v1/queues/alpha/pause", "operates").await.status, 200);
    let refused = ask("POST /api/v1/config/reload", "reads").await;
    let detail = refused.is_problem(403, "forbidden").json()["detail"].clone();
    assert_eq!(detail, "POST needs a token of role operate; this one has the role read");
    let challenge = "Bearer realm=\"sluice\", error=\"insufficient_scope\", scope=\"operate\"";
    assert_eq!(refused.field("www-authenticate"), Some(challenge));
    ask("GET /api/v1/config", "evaluates").await.is_problem(403, "forbidden");
}

#[tokio::test]
async fn without_a_token_only_the_page_and_the_plain_probes_are_open() {
    let world = World::start(TOKENS);
    for path in ["/", "/livez", "/health", "/health/live", "/readyz", "/health/ready"] {
        assert_eq!(world.get(path).await.status, 200, "{path}");
    }
    for path in [
        "/metrics",
        "/readyz?verbose",
        "/health/ready?verbose=1",
        "/health/providers",
        "/health/dependencies",
        "/api/v1/config",
        "/nowhere",
    ] {
        let answer = world.get(path).await;
        assert_eq!(answer.is_problem(401, "unauthorized").field("www-authenticate"), Some("Bearer realm=\"sluice\""));
    }
    world.ask("POST /livez", &[], "").await.is_problem(401, "unauthorized");
    let wrong = ["Bearer", "Bearer ", "Bearer operate", "Bearer operatess", "Basic operates", "operates", "b"];
    for authorization in wrong {
        let answer = world.ask("GET /metrics", &[&format!("Authorization: {authorization}")], "").await;
        let challenge = answer.is_problem(401, "unauthorized").field("www-authenticate");
        assert_eq!(challenge, Some("Bearer realm=\"sluice\", error=\"invalid_token\""), "{authorization}");
    }
    let twice = ["Authorization: Bearer reads", "Authorization: Bearer operates"];
    world.ask("GET /metrics", &twice, "").await.is_problem(401, "unauthorized");
}

#[tokio::test]
async fn an_empty_token_opens_nothing() {
    let world = World::start(&[("", Role::Operate)]);
    world.ask("GET /metrics", &["Authorization: Bearer "], "").await.is_problem(401, "unauthorized");
}

#[tokio::test]
async fn the_page_links_only_to_what_is_there() {
    let world = World::start(&[]);
    let page = world.get("/").await;
    assert_eq!(page.field("content-type"), Some("text/html; charset=utf-8"));
    let links: Vec<&str> = page.body.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(links.len() >= 5, "{links:?}");
    for link in links {
        assert_eq!(world.get(link).await.status, 200, "{link}");
    }
}

#[tokio::test]
async fn an_answer_under_way_is_finished_when_the_listener_stops() {
    let world = World::start(&[]);
    world.gateway.slow.store(true, Ordering::SeqCst);
    let mut caller = TcpStream::connect(world.address).await.expect("accepted");
    let mut idle = TcpStream::connect(world.address).await.expect("accepted");
    caller.write_all(b"POST /api/v1/config/reload HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
    until(|| Arc::strong_count(&world.gateway.reloads) == 2).await;
    world.stop.send(true).expect("the listener runs");
    let mut nothing = [0; 1];
    assert_eq!(idle.read(&mut nothing).await.expect("closed in order"), 0);
    world.gateway.go_on.notify_one();
    assert_eq!(read_answer(&mut caller).await.status, 200);
    world.server.await.expect("no panic").expect("ended in order");
    assert!(TcpStream::connect(world.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn the_health_check_of_the_command_line_asks_both_probes() {
    let world = World::start(TOKENS);
    let url = format!("http://{}", world.address);
    let ask = async |url: String| {
        tokio::task::spawn_blocking(move || crate::cli::healthcheck::healthcheck(&url)).await.expect("no panic")
    };
    assert_eq!(ask(url.clone()).await, 0);
    world.gateway.draining.store(true, Ordering::SeqCst);
    assert_eq!(ask(url).await, 1);
}

/// Both wait where a reload is busy with a large file; on the listener's one thread everybody would have waited with them.
#[test]
fn liveness_answers_while_readiness_and_configuration_have_to_wait() {
    let (ready, gateway) = std::sync::mpsc::channel();
    let listener = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let world = World::start(&[]);
            ready.send((Arc::clone(&world.gateway), world.address, world.stop)).expect("the test waits");
            world.server.await.expect("no panic").expect("it served");
        });
    });
    let (gateway, address, stop) = gateway.recv().expect("it starts");
    let busy = gateway.busy.lock().expect("nobody panicked");
    let waiting = ["/readyz", "/api/v1/config"].map(|path| begin(address, path));
    assert!(finish(begin(address, "/livez")).starts_with("HTTP/1.1 200 "));
    drop(busy);
    for stream in waiting {
        assert!(finish(stream).starts_with("HTTP/1.1 200 "));
    }
    stop.send(true).expect("it listens");
    listener.join().expect("it ends");
}

fn begin(address: SocketAddr, path: &str) -> std::net::TcpStream {
    use std::io::Write;
    let mut stream = std::net::TcpStream::connect(address).expect("accepted");
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket option");
    stream
}

fn finish(mut stream: std::net::TcpStream) -> String {
    use std::io::Read;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// Silent connections kept everybody else waiting for half a minute, probes of a supervisor among them.
#[tokio::test]
async fn connections_that_say_nothing_keep_nobody_out() {
    let world = World::start(&[("secret", Role::Read)]);
    let mut silent = Vec::new();
    for _ in 0..server::CONNECTIONS_MAX {
        silent.push(TcpStream::connect(world.address).await.expect("accepted"));
    }
    assert_eq!(world.get("/livez").await.status, 200);
    assert_eq!(silent[0].read(&mut [0]).await.expect("an orderly end"), 0, "the oldest made way");
    let newest = silent.last_mut().expect("there are many");
    let request = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    newest.write_all(request).await.expect("still open");
    assert_eq!(read_answer(newest).await.status, 200);
}
