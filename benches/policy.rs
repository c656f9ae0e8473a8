//! Nanoseconds of the pure decisions on a request's way: `cargo bench --bench policy`.
//!
//! Each line is the median of several rounds and their spread. The requests of a round cycle through
//! many different routes, so that large indexes are measured with the cache misses they cause.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(missing_docs, reason = "nothing here is called by others")]

use sluice::clock;
use sluice::config::{self, Action, HostPattern, Match, PathPattern, Route, UnknownEnvironment};
use sluice::http1::target;
use sluice::observe::metrics::Metrics;
use sluice::policy::balance::{Algorithm, Balance, Look, hash_key};
use sluice::policy::budget::Budget;
use sluice::policy::circuit::{self, Verdict};
use sluice::policy::class::Class;
use sluice::policy::cooldown::{self, Cooldown};
use sluice::policy::load::{PeakEwma, Quantiles, Utilisation};
use sluice::policy::outcome::Outcome;
use sluice::policy::pace::{self, Pace};
use sluice::policy::queue::{self, Offered, Queue, Ticket, Waiter};
use sluice::policy::retry::{self, Backoff, Conditions, Ended, Jitter, Methods, Policy, So};
use sluice::proxy::path;
use sluice::proxy::route::{Asked, Found, Routes};
use sluice::upstream::breaker::Breaker;
use sluice::upstream::pool::{Ask, Leasing, Report, Wait};
use sluice::upstream::registry::Registry;
use std::hint::black_box;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

fn main() {
    println!("{:<44} {:>10} {:>12}", "", "ns/op", "spread");
    for count in [10, 1_000, 10_000] {
        for kind in Kind::ALL {
            lookups(kind, count);
        }
    }
    paths();
    targets();
    queues();
    circuits();
    for count in [3, 10, 100] {
        choices(count);
    }
    loads();
    paces();
    cooldowns();
    retries();
    for count in [3, 100] {
        leases(count);
    }
}

/// What tells the routes of a table apart.
#[derive(Clone, Copy)]
enum Kind {
    ExactPath,
    Prefix,
    ExactHost,
    WildcardHost,
    Missing,
}

impl Kind {
    const ALL: [Kind; 5] = [Kind::ExactPath, Kind::Prefix, Kind::ExactHost, Kind::WildcardHost, Kind::Missing];

    fn name(self) -> &'static str {
        match self {
            Kind::ExactPath => "exact path",
            Kind::Prefix => "prefix",
            Kind::ExactHost => "exact host, prefix",
            Kind::WildcardHost => "wildcard host, prefix",
            Kind::Missing => "no route",
        }
    }

    fn pattern(self, number: usize) -> (HostPattern, PathPattern) {
        let below_api = PathPattern::Prefix("/api".into());
        match self {
            Kind::ExactPath => (HostPattern::Any, PathPattern::Exact(format!("/service-{number}/v1/status"))),
            Kind::Prefix | Kind::Missing => (HostPattern::Any, PathPattern::Prefix(format!("/service-{number}/v1"))),
            Kind::ExactHost => (HostPattern::Exact(format!("tenant-{number}.example.com")), below_api),
            Kind::WildcardHost => (HostPattern::Wildcard(format!(".tenant-{number}.example.com")), below_api),
        }
    }

    fn asked(self, number: usize) -> (String, String) {
        match self {
            Kind::ExactPath => ("www.example.com".into(), format!("/service-{number}/v1/status")),
            Kind::Prefix => ("www.example.com".into(), format!("/service-{number}/v1/items/42")),
            Kind::ExactHost => (format!("tenant-{number}.example.com"), "/api/items/42".into()),
            Kind::WildcardHost => (format!("eu.tenant-{number}.example.com"), "/api/items/42".into()),
            Kind::Missing => ("www.example.com".into(), format!("/service-{number}/v2/items/42")),
        }
    }
}

fn lookups(kind: Kind, count: usize) {
    let routes: Vec<Arc<Route>> = (0..count).map(|number| route(number, kind.pattern(number))).collect();
    let index = Routes::compile(&routes);
    let requests: Vec<(String, String)> = (0..REQUESTS).map(|at| kind.asked(scattered(at) % count)).collect();
    measure(&format!("route, {count} by {}", kind.name()), |turn| {
        let (host, path) = &requests[turn % REQUESTS];
        let asked = Asked { host, path, query: None, method: "GET", headers: &Vec::new() };
        let found = index.find(black_box(&asked));
        assert_eq!(matches!(found, Found::Route(_)), !matches!(kind, Kind::Missing));
        black_box(found);
    });
}

fn paths() {
    let spellings = [
        ("normal, short", "/api/items/42"),
        (
            "normal, 100 bytes",
            "/api/v1/organisations/0123456789abcdef/projects/0123456789abcdef/issues/0123456789/comments/42/body",
        ),
        ("an encoded blank", "/files/annual%20report.pdf"),
        ("dots and encodings", "/api/./items/../%69tems//%34%32"),
    ];
    let mut scratch = String::new();
    for (name, spelling) in spellings {
        measure(&format!("path, {name}"), |_| {
            black_box(path::normalise(black_box(spelling), &mut scratch)).ok();
        });
    }
}

fn targets() {
    let target: &[u8] = b"/api/items/42?page=2&sort=name";
    measure("request-target", |_| {
        black_box(target::parse("GET", black_box(target))).ok();
    });
    let host: &[u8] = b"www.example.com:8080";
    measure("host", |_| {
        black_box(target::host(black_box(host))).ok();
    });
}

/// A decision is to take at most 50 ns. Time goes on by a microsecond a turn, so that windows move on as they do in life.
fn circuits() {
    let start = clock::now();
    let at = |turn: usize| start + Duration::from_micros(turn as u64);
    let terms = circuit::Terms {
        failure_threshold: 5,
        failure_rate: 0.5,
        window: Duration::from_secs(10),
        minimum_requests: 20,
        recovery_timeout: Duration::from_secs(5),
        max_recovery_timeout: Duration::from_secs(60),
        half_open_requests: 1,
        success_threshold: 2,
    };
    let breaker = Breaker::new("alpha".into(), terms, start);
    let attempt = |verdict, now| {
        let permit = breaker.admit(now).expect("a closed circuit admits");
        breaker.report(permit, verdict, now);
    };
    measure("circuit, closed: peek", |turn| {
        black_box(breaker.peek(black_box(at(turn))));
    });
    measure("circuit, closed: admit, success", |turn| attempt(Verdict::Success, at(turn)));
    measure("circuit, closed: admit, one in 10 fails", |turn| {
        attempt(if turn % 10 == 0 { Verdict::Failure("reset") } else { Verdict::Success }, at(turn));
    });
    for _ in 0..terms.failure_threshold {
        attempt(Verdict::Failure("reset"), at(TURNS));
    }
    measure("circuit, open: refused", |turn| {
        assert!(breaker.admit(black_box(at(turn))).is_none());
    });
    let breaker = Breaker::new("beta".into(), circuit::Terms { success_threshold: u32::MAX, ..terms }, start);
    for _ in 0..terms.failure_threshold {
        breaker.report(breaker.admit(start).expect("closed"), Verdict::Failure("reset"), start);
    }
    measure("circuit, half open: a probe, success", |turn| {
        let now = at(turn) + terms.recovery_timeout * 2;
        breaker.report(breaker.admit(now).expect("room for a probe"), Verdict::Success, now);
    });
}

fn route(number: usize, (host, path): (HostPattern, PathPattern)) -> Arc<Route> {
    Arc::new(Route {
        name: format!("route-{number}").into(),
        matches: Match {
            hosts: vec![host],
            path,
            path_regex: None,
            methods: None,
            headers: Vec::new(),
            query: Vec::new(),
        },
        action: Action::Pool(0),
        ..standard().clone()
    })
}

/// A queue with 100,000 waiters of 1,000 clients, a third of them in each class.
fn queues() {
    let start = clock::now();
    let waiter = |turn: usize| {
        let number = scattered(turn);
        let (class, client) = (Class::ALL[number % 3], (number % CLIENTS) as u32);
        Waiter { class, client, share: 1 + client % 3, bytes: 1024, since: start, again: false }
    };
    let full = || {
        let mut queue = Queue::new(queue::Terms { capacity: WAITERS, weights: [16, 4, 1], reserve_high: 0.0 });
        // With no turn among the offers, so that a place's neighbours in line are far away in memory.
        let tickets: Vec<Ticket> = (0..WAITERS).map(|turn| placed(&queue.offer(waiter(turn), turn))).collect();
        (queue, tickets)
    };
    let (mut queue, _) = full();
    measure("queue, take and offer", |_| {
        // Of the class that was taken, so that none runs empty.
        let (taken, turn) = queue.take().expect("many wait");
        black_box(queue.offer(Waiter { client: waiter(turn + 1).client, ..taken }, turn + 1));
    });
    let (mut queue, _) = full();
    measure("queue, offer when full", |turn| {
        black_box(queue.offer(Waiter { class: Class::Low, ..waiter(turn + 1) }, turn));
    });
    let (mut queue, mut tickets) = full();
    measure("queue, remove and offer", |turn| {
        let ticket = &mut tickets[scattered(turn) % WAITERS];
        let turn = queue.remove(*ticket).expect("it waits");
        *ticket = placed(&queue.offer(waiter(turn), turn));
    });
    let (queue, _) = full();
    measure("queue, who is ahead of a newcomer", |turn| {
        black_box(queue.ahead_of(&waiter(turn)));
    });
    let mut queue = Queue::new(queue::Terms { capacity: WAITERS, weights: [16, 4, 1], reserve_high: 0.1 });
    measure("queue, offer and take with nobody waiting", |turn| {
        black_box(queue.offer(waiter(turn), turn));
        black_box(queue.take());
    });
}

fn placed(offered: &Offered<usize>) -> Ticket {
    let Offered::Placed(ticket) = offered else { panic!("a queue with places refused") };
    *ticket
}

/// A route that says nothing of its own.
fn standard() -> &'static Route {
    static ROUTE: LazyLock<Arc<Route>> = LazyLock::new(|| {
        let text = b"listeners: [{ name: a, bind: \"127.0.0.1:0\" }]\nroutes: [{ name: a, respond: {} }]";
        config::parse("", text, &UnknownEnvironment).expect("valid").config.routes[0].clone()
    });
    &ROUTE
}

/// Every algorithm over members that are all a little busy, and in turn where one of two is out.
fn choices(count: usize) {
    let names: Vec<String> = (0..count).map(|number| format!("provider-{number}")).collect();
    let members: Vec<(&str, u32)> = names.iter().map(|name| (name.as_str(), 1 + name.len() as u32 % 3)).collect();
    let look = |number: usize| Look {
        in_flight: 1 + (scattered(number) % 7) as u32,
        weight: f64::from(members[number].1),
        latency: 0.01 * (1 + scattered(number) % 5) as f64,
        lean: 0,
    };
    let all: Vec<Option<Look>> = (0..count).map(|number| Some(look(number))).collect();
    let half: Vec<Option<Look>> = (0..count).map(|number| (number % 2 == 0).then(|| look(number))).collect();
    let cases = [
        ("round_robin", Algorithm::RoundRobin, &all),
        ("round_robin, half of them out", Algorithm::RoundRobin, &half),
        ("weighted", Algorithm::Weighted, &all),
        ("least_connections", Algorithm::LeastConnections, &all),
        ("peak_ewma", Algorithm::PeakEwma, &all),
        ("consistent_hash", Algorithm::ConsistentHash, &all),
    ];
    for (name, algorithm, field) in cases {
        let balance = Balance::new(algorithm, &members, Arc::default());
        measure(&format!("{name}, {count} members"), |turn| {
            let bits = scattered(turn) as u64;
            black_box(balance.choose(black_box(&field[..]), Some(bits), bits));
        });
    }
}

fn loads() {
    let start = clock::now();
    let at = |turn: usize| start + Duration::from_micros(turn as u64);
    let key = "0b8ee1a4-3e0d-4f6c-9d53-2b5f1b6c7a90".as_bytes();
    measure("hash_key, 36 bytes", |_| {
        black_box(hash_key(black_box(key)));
    });
    let latency = PeakEwma::new(start);
    measure("latency, observe and value", |turn| {
        latency.observe(Duration::from_micros(scattered(turn) as u64 % 5_000), at(turn));
        black_box(latency.value(at(turn)));
    });
    let quantiles = Quantiles::new(start);
    measure("quantiles, observe", |turn| {
        quantiles.observe(Duration::from_micros(scattered(turn) as u64 % 50_000), at(turn));
    });
    measure("quantiles, p95", |turn| {
        black_box(quantiles.quantile(0.95, 20, at(turn)));
    });
    let busy = Utilisation::new(start);
    measure("utilisation, nothing new", |turn| busy.note(false, black_box(at(turn))));
    measure("utilisation, at the limit and back", |turn| {
        busy.note(true, at(turn));
        busy.note(false, at(turn + 1));
    });
}

fn paces() {
    let start = clock::now();
    let every = Pace::new(Some(pace::Terms { count: 1_000_000_000, per: Duration::from_secs(1), burst: 1 }), start);
    measure("pace, there is room", |turn| {
        black_box(every.take(black_box(start + Duration::from_nanos(turn as u64)))).ok();
    });
    let slow = Pace::new(Some(pace::Terms { count: 1, per: Duration::from_secs(1), burst: 1 }), start);
    measure("pace, there is none", |_| {
        black_box(slow.take(black_box(start))).ok();
    });
}

fn cooldowns() {
    let start = clock::now();
    let cooldown = Cooldown::new(start);
    measure("cooldown, is there one", |_| {
        black_box(cooldown.until(black_box(start)));
    });
    measure("cooldown, a success", |_| cooldown.succeeded(black_box(start)));
    measure("cooldown, a rejection", |_| {
        black_box(cooldown.rejected(None, Duration::from_secs(300), black_box(start)));
    });
    let wall = clock::wall();
    for (kind, name, value) in [
        ("seconds", "retry-after", "120"),
        ("a date", "retry-after", "Sat, 21 Nov 2026 14:00:30 GMT"),
        ("limits", "ratelimit", r#""burst";r=0;t=2, "day";r=500;t=36000"#),
    ] {
        let field = |asked: &[u8]| (asked == name.as_bytes()).then_some(value.as_bytes());
        measure(&format!("hint, {kind}"), |_| {
            black_box(cooldown::hint(429, field, wall));
        });
    }
}

fn retries() {
    let start = clock::now();
    let policy = Policy {
        attempts: 3,
        on: Conditions::parse(&["connect", "reset", "timeout", "429", "502", "503", "504"]).expect("conditions"),
        methods: Methods::Idempotent,
        idempotency_key: false,
        refused: vec![429],
        backoff: Backoff {
            initial: Duration::from_millis(25),
            multiplier: 2.0,
            max: Duration::from_secs(1),
            jitter: Jitter::Full,
        },
    };
    let so = So {
        attempts_made: 1,
        method: "PUT",
        keyed: false,
        replayable: true,
        nothing_sent: false,
        left: Duration::from_secs(1),
    };
    measure("retry, again", |_| {
        black_box(retry::again(&policy, black_box(Ended::Status(503)), &so));
    });
    measure("retry, wait", |turn| {
        black_box(retry::wait(&policy.backoff, turn as u32 % 8, black_box(0.5)));
    });
    let mut budget = Budget::new(0, 10.0, start);
    measure("retry, budget", |turn| {
        let turn = turn as u64;
        black_box(budget.withdraw(turn * 5, 0.2, 10.0, start + Duration::from_micros(turn)));
    });
}

/// A lease with room, taken and given back, over so many providers.
fn leases(count: usize) {
    for balance in ["round_robin", "least_connections", "peak_ewma"] {
        let names: Vec<String> = (0..count).map(|number| format!("p{number}")).collect();
        let providers: Vec<String> =
            names.iter().map(|name| format!("{name}: {{ url: \"http://127.0.0.1:1\" }}")).collect();
        let text = format!(
            "listeners: [{{ name: l, bind: \"127.0.0.1:0\" }}]\nroutes: [{{ name: r, pool: p }}]\nproviders: {{ {} }}\n\
             pools: {{ p: {{ balance: {balance}, providers: [{}] }} }}",
            providers.join(", "),
            names.join(", ")
        );
        let loaded = config::parse("", text.as_bytes(), &UnknownEnvironment).expect("valid");
        let (registry, pools) = Registry::default().build(&loaded.config, 1, &Metrics::new()).expect("it can be built");
        registry.take_effect(&Registry::default(), clock::now());
        let now = clock::now();
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
            deadline: now + Duration::from_secs(3600),
            wait: Wait::Queue,
            now,
            label: &label,
        };
        let head_after = Some(Duration::from_millis(5));
        let report = Report { outcome: Outcome::Success, why: "", head_after, cooldown: None };
        measure(&format!("lease, {balance}, {count} providers"), |_| {
            if let Ok(Leasing::Now(lease)) = pools[0].lease(black_box(&ask)) {
                lease.finish(report, now);
            }
        });
    }
}

/// Spreads neighbouring numbers (a prime stride), so that requests do not walk the table in the order it was built.
fn scattered(at: usize) -> usize {
    at * 7_919
}

/// Times `operation`, which is told its turn, and prints a line.
fn measure(name: &str, mut operation: impl FnMut(usize)) {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = clock::now();
            (0..TURNS).for_each(&mut operation);
            (clock::now() - start).as_secs_f64() * 1e9 / TURNS as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    let spread = format!("{:.0}-{:.0}", rounds[0], rounds[ROUNDS - 1]);
    println!("{name:<44} {:>10.1} {spread:>12}", rounds[ROUNDS / 2]);
}

/// Rounds of each line; odd, so that one of them is the median.
const ROUNDS: usize = 11;
/// Operations a round.
const TURNS: usize = 100_000;
/// Different requests that a round cycles through.
const REQUESTS: usize = 4_096;
/// Who waits in a queue, and of how many clients.
const WAITERS: usize = 100_000;
const CLIENTS: usize = 1_000;
