use super::*;
use crate::config::UnknownEnvironment;
use crate::observe::metrics::Metrics;
use crate::policy::circuit::Forced;
use crate::upstream::registry::Registry;
use std::sync::atomic::AtomicUsize;

/// Pools over providers, as a gateway has them, and reloads of it.
struct World {
    registry: Registry,
    pools: Vec<Arc<Pool>>,
    metrics: Metrics,
}

impl World {
    fn new(providers_and_pools: &str) -> Self {
        let mut world = World { registry: Registry::default(), pools: Vec::new(), metrics: Metrics::new() };
        world.reload(providers_and_pools);
        world
    }

    /// One provider `a` and one pool `p` over it.
    fn single(limits: &str, queue: &str) -> Self {
        World::new(&single(limits, queue))
    }

    fn reload(&mut self, providers_and_pools: &str) {
        let pool =
            providers_and_pools.split("pools: { ").nth(1).and_then(|rest| rest.split(':').next()).expect("a pool");
        let text = format!(
            "listeners: [{{ name: l, bind: \"127.0.0.1:0\" }}]\nroutes: [{{ name: r, pool: {pool} }}]\n{providers_and_pools}\n"
        );
        let loaded = config::parse("", text.as_bytes(), &UnknownEnvironment).unwrap_or_else(|error| panic!("{error}"));
        let (registry, pools) = self.registry.build(&loaded.config, 1, &self.metrics).expect("it can be built");
        registry.take_effect(&self.registry, clock::now());
        (self.registry, self.pools) = (registry, pools);
    }

    fn pool(&self) -> &Pool {
        &self.pools[0]
    }

    fn provider(&self, name: &str) -> &Provider {
        self.registry.provider(name).expect("it is configured")
    }

    fn in_flight(&self, name: &str) -> u32 {
        self.provider(name).state.in_flight()
    }

    /// Opens the circuit of `name`: it failed as often as it may.
    fn fail(&self, name: &str, times: usize) {
        for _ in 0..times {
            let lease = now(self.pool().lease(&ask()));
            assert_eq!(&*lease.provider.name, name);
            lease.finish(Report { outcome: Outcome::Failure, ..WELL }, clock::now());
        }
    }
}

fn single(limits: &str, queue: &str) -> String {
    format!(
        "providers: {{ a: {{ url: \"http://127.0.0.1:1\", {limits} }} }}\npools: {{ p: {{ providers: [a], queue: {{ {queue} }} }} }}"
    )
}

fn label() -> Label {
    Label { request_id: "id".into(), client: "c".into(), route: "r".into(), method: "GET".into(), path: "/".into() }
}

fn ask() -> Ask<'static> {
    let now = clock::now();
    Ask {
        class: Class::Normal,
        client: 0,
        share: 1,
        key: None,
        tried: &[],
        again: false,
        risky: false,
        bytes: 0,
        deadline: now + Duration::from_secs(20),
        wait: Wait::QueueForProbe,
        now,
        label: &label,
    }
}

fn now(leasing: Result<Leasing, Refused>) -> Lease {
    match leasing {
        Ok(Leasing::Now(lease)) => lease,
        other => panic!("{other:?}"),
    }
}

fn wait(leasing: Result<Leasing, Refused>) -> Waiting {
    match leasing {
        Ok(Leasing::Wait(waiting)) => waiting,
        other => panic!("{other:?}"),
    }
}

fn refused(leasing: Result<Leasing, Refused>) -> &'static str {
    leasing.map_or_else(|refused| refused.as_str(), |leasing| panic!("{leasing:?}"))
}

const WELL: Report = Report { outcome: Outcome::Success, why: "", head_after: None, cooldown: None };

#[test]
fn a_provider_with_room_is_leased_at_once_and_has_its_place_back_afterwards() {
    let world = World::single("limits: { concurrency: 2 }", "");
    let (one, other) = (now(world.pool().lease(&ask())), now(world.pool().lease(&ask())));
    assert_eq!((world.in_flight("a"), one.queued), (2, Duration::ZERO));
    one.finish(WELL, clock::now());
    assert_eq!(world.in_flight("a"), 1);
    drop(other);
    assert_eq!((world.in_flight("a"), world.provider("a").metrics.in_flight()), (0, 0));
    assert_eq!(world.provider("a").state.view(clock::now()).attempts, [2, 0, 0]);
}

#[tokio::test]
async fn who_waits_is_given_what_others_give_back_the_more_urgent_first() {
    let world = World::single("limits: { concurrency: 1 }", "");
    let lease = now(world.pool().lease(&ask()));
    let low = wait(world.pool().lease(&Ask { class: Class::Low, ..ask() }));
    let high = wait(world.pool().lease(&Ask { class: Class::High, ..ask() }));
    assert_eq!(world.pool().view(clock::now()).depth, [1, 0, 1]);
    lease.finish(WELL, clock::now());
    let lease = high.await.expect("its turn");
    assert_eq!(world.pool().view(clock::now()).depth, [0, 0, 1]);
    drop(lease);
    low.await.expect("its turn").finish(WELL, clock::now());
    let view = world.pool().view(clock::now());
    assert_eq!((view.dispatched, view.in_flight, view.depth), (2, 0, [0, 0, 0]));
}

#[tokio::test]
async fn who_leaves_is_gone_at_once_and_what_it_was_given_is_given_to_the_next() {
    let world = World::single("limits: { concurrency: 1 }", "");
    let lease = now(world.pool().lease(&ask()));
    let (gone, given, next) =
        (wait(world.pool().lease(&ask())), wait(world.pool().lease(&ask())), wait(world.pool().lease(&ask())));
    drop(gone);
    assert_eq!(world.pool().view(clock::now()).depth, [0, 2, 0]);
    drop(lease);
    // It has been given its place and does not know yet.
    assert_eq!((world.pool().view(clock::now()).depth, world.in_flight("a")), ([0, 1, 0], 1));
    drop(given);
    drop(next.await.expect("its turn"));
    let view = world.pool().view(clock::now());
    assert_eq!((view.gone, world.in_flight("a"), view.depth), (2, 0, [0, 0, 0]));
}

#[tokio::test]
async fn who_waits_for_too_long_is_told_so_and_a_full_queue_refuses() {
    let world = World::single("limits: { concurrency: 1 }", "capacity: 2, reserve_high: 0, timeout: 10ms");
    let lease = now(world.pool().lease(&ask()));
    let (one, other) = (wait(world.pool().lease(&ask())), wait(world.pool().lease(&ask())));
    assert_eq!(refused(world.pool().lease(&ask())), "queue_full");
    let urgent = wait(world.pool().lease(&Ask { class: Class::High, ..ask() }));
    assert_eq!(other.await.expect_err("displaced").as_str(), "queue_full");
    let Err(Refused::QueueTimeout { waited, .. }) = one.await else { panic!("it waited on") };
    assert!(waited >= Duration::from_millis(10));
    assert_eq!(urgent.await.expect_err("late").as_str(), "queue_timeout");
    assert_eq!(refused(world.pool().lease(&Ask { wait: Wait::Never, ..ask() })), "busy");
    drop(lease);
    let shed = world.pool().view(clock::now()).shed;
    assert_eq!(shed[..4], [("queue_full", 2), ("queue_timeout", 2), ("no_provider", 0), ("busy", 1)]);
}

#[tokio::test]
async fn a_cooldown_is_waited_for_if_it_ends_in_time() {
    let world = World::single("limits: { concurrency: 4 }", "");
    let lease = now(world.pool().lease(&ask()));
    let hint = Duration::from_millis(30);
    let rejected = Report { outcome: Outcome::Rejected, cooldown: Some(Some(hint)), ..WELL };
    let end = clock::now() + hint;
    lease.finish(rejected, clock::now());
    let waiting = wait(world.pool().lease(&Ask { wait: Wait::Queue, ..ask() }));
    let impatient = Ask { deadline: clock::now() + hint / 10, ..ask() };
    assert_eq!(refused(world.pool().lease(&impatient)), "no_provider");
    drop(waiting.await.expect("the cooldown ends"));
    assert!(clock::now() >= end);
}

#[tokio::test]
async fn a_circuit_is_waited_for_by_those_only_who_want_to() {
    let breaker = "circuit_breaker: { failure_threshold: 2, recovery_timeout: 40ms, success_threshold: 1 }";
    let world = World::single(&format!("limits: {{ concurrency: 2 }}, {breaker}"), "");
    let held = [now(world.pool().lease(&ask())), now(world.pool().lease(&ask()))];
    let (gives_up, stays) =
        (wait(world.pool().lease(&Ask { wait: Wait::Queue, ..ask() })), wait(world.pool().lease(&ask())));
    for lease in held {
        lease.finish(Report { outcome: Outcome::Failure, why: "reset", ..WELL }, clock::now());
    }
    // The first place that was given back went to who came first; the circuit was closed then.
    let first = gives_up.await.expect("it was served before the circuit opened");
    assert_eq!(refused(world.pool().lease(&Ask { wait: Wait::Queue, ..ask() })), "no_provider");
    let probe = stays.await.expect("a probe");
    assert!(probe.probe && !first.probe);
    let second = wait(world.pool().lease(&ask()));
    probe.finish(WELL, clock::now());
    assert!(!second.await.expect("the circuit has closed").probe);
    drop(first);
    assert_eq!(world.in_flight("a"), 0);
}

#[tokio::test]
async fn who_waits_is_sent_away_when_everybody_goes_out_of_service() {
    let world = World::single("limits: { concurrency: 1 }", "");
    let lease = now(world.pool().lease(&ask()));
    let waiting = wait(world.pool().lease(&ask()));
    world.provider("a").state.force(Some(Forced::Open), clock::now());
    assert_eq!(waiting.await.expect_err("forced"), Refused::NoProvider { retry_after: None });
    world.provider("a").state.force(None, clock::now());
    let waiting = wait(world.pool().lease(&ask()));
    world.provider("a").state.set_draining(true);
    assert_eq!(waiting.await.expect_err("drained").as_str(), "no_provider");
    world.provider("a").state.set_draining(false);
    world.provider("a").state.set_healthy(false, None, clock::now());
    assert_eq!(refused(world.pool().lease(&ask())), "no_provider");
    world.provider("a").state.set_healthy(true, None, clock::now());
    let waiting = wait(world.pool().lease(&ask()));
    drop(lease);
    drop(waiting.await.expect("in service again"));
}

#[tokio::test]
async fn a_rate_is_kept_by_those_who_wait() {
    let world = World::single("limits: { rate: 100/s, burst: 1 }", "");
    let start = clock::now();
    let mut leases = Vec::new();
    for _ in 0..6 {
        match world.pool().lease(&ask()).expect("in time") {
            Leasing::Now(lease) => leases.push(lease),
            Leasing::Wait(waiting) => leases.push(waiting.await.expect("in time")),
        }
    }
    assert!(clock::now() - start >= Duration::from_millis(40), "five intervals of 10 ms, less the tolerance");
}

#[tokio::test]
async fn a_reload_finds_who_waits_and_what_is_in_flight() {
    let mut world = World::single("limits: { concurrency: 1 }", "");
    let lease = now(world.pool().lease(&ask()));
    let (one, other) = (wait(world.pool().lease(&ask())), wait(world.pool().lease(&ask())));
    world.reload(&single("limits: { concurrency: 2 }", ""));
    let raised = one.await.expect("the limit was raised");
    assert_eq!(world.in_flight("a"), 2);
    world.reload("providers: { b: { url: \"http://127.0.0.1:1\" } }\npools: { p: { providers: [b] } }");
    let moved = other.await.expect("there is somebody new");
    assert_eq!(&*moved.provider.name, "b");
    assert_eq!(&*now(world.pool().lease(&ask())).provider.name, "b");
    drop((lease, raised));
}

#[tokio::test]
async fn a_removed_provider_gets_nothing_new_also_from_an_old_snapshot() {
    let mut world = World::single("limits: { concurrency: 1 }", "");
    let old = Arc::clone(&world.pools[0]);
    world.reload("providers: { b: { url: \"http://127.0.0.1:1\" } }\npools: { q: { providers: [b] } }");
    assert_eq!(refused(old.lease(&ask())), "no_provider");
}

#[tokio::test]
async fn a_paused_queue_hands_out_nothing_and_shows_who_waits() {
    let world = World::single("limits: { concurrency: 9 }", "");
    world.pool().set_paused(true, clock::now());
    let (one, other) = (wait(world.pool().lease(&ask())), wait(world.pool().lease(&Ask { again: true, ..ask() })));
    let shown = world.pool().waiting(9, clock::now());
    assert_eq!(shown.iter().map(|waiting| (waiting.id, waiting.again)).collect::<Vec<_>>(), [(1, false), (2, true)]);
    assert_eq!(shown[0].label, label());
    assert!(world.pool().view(clock::now()).paused);
    assert!(world.pool().cancel(1) && !world.pool().cancel(1));
    assert_eq!(one.await.expect_err("cancelled"), Refused::Cancelled);
    world.pool().set_paused(false, clock::now());
    drop(other.await.expect("it goes on"));
    drop(now(world.pool().lease(&ask())));
}

#[tokio::test]
async fn two_pools_at_one_provider_take_turns() {
    let world = World::new(
        "providers: { a: { url: \"http://127.0.0.1:1\", limits: { concurrency: 1 } } }\n\
         pools: { p: { providers: [a] }, q: { providers: [a] } }",
    );
    let mut lease = now(world.pools[0].lease(&ask()));
    let mut waiting: Vec<[Waiting; 2]> =
        (0..8).map(|_| [0, 1].map(|pool| wait(world.pools[pool].lease(&ask())))).collect();
    let depth = |pool: usize| world.pools[pool].view(clock::now()).depth[1];
    for _ in 0..8 {
        for _ in 0..2 {
            lease.finish(WELL, clock::now());
            let mut given = waiting.iter_mut().flatten().map(|waiting| waiting.place.peek());
            let grant = given.find_map(|decided| decided).expect("one of them").expect("a place");
            lease = Lease::begin(grant, Purpose::First, Duration::ZERO, None, clock::now());
        }
        assert_eq!(depth(0), depth(1));
    }
    // Who may pass does not while the other pool waits.
    waiting.clear();
    let other = wait(world.pools[1].lease(&ask()));
    drop(lease);
    drop(other.await.expect("its turn"));
    assert_eq!(world.in_flight("a"), 0);
}

#[test]
fn one_that_was_not_tried_comes_first_and_a_backup_before_one_that_was() {
    let world = World::new(
        "providers: { a: { url: \"http://127.0.0.1:1\" }, b: { url: \"http://127.0.0.1:1\" }, c: { url: \"http://127.0.0.1:1\" } }\n\
         pools: { p: { providers: [a, b, { name: c, backup: true }] } }",
    );
    let id = |name| world.provider(name).id();
    let leased = |tried: &[ProviderId]| now(world.pool().lease(&Ask { tried, ..ask() })).provider.name.to_string();
    for _ in 0..4 {
        assert_ne!(leased(&[]), "c");
        assert_eq!(leased(&[id("a")]), "b");
        assert_eq!(leased(&[id("a"), id("b")]), "c");
        assert_ne!(leased(&[id("a"), id("b"), id("c")]), "c");
    }
    let elsewhere = || {
        let tried = &[id("a"), id("b")];
        world
            .pool()
            .lease(&Ask { tried, wait: Wait::Elsewhere, ..ask() })
            .map(|leased| now(Ok(leased)).provider.name.to_string())
    };
    assert_eq!(elsewhere(), Ok("c".to_owned()));
    world.provider("c").state.set_draining(true);
    assert_eq!(elsewhere(), Err(Refused::Busy), "only those are left that were tried");
}

#[test]
fn what_may_not_be_sent_twice_is_seldom_a_probe() {
    let breaker = "circuit_breaker: { failure_threshold: 1, recovery_timeout: 10ms, half_open_requests: 1000 }";
    let world = World::new(&format!(
        "providers: {{ a: {{ url: \"http://127.0.0.1:1\", {breaker} }}, b: {{ url: \"http://127.0.0.1:1\" }} }}\n\
         pools: {{ p: {{ providers: [a, b], balance: round_robin }} }}"
    ));
    let lease = now(world.pool().lease(&Ask { tried: &[world.provider("b").id()], ..ask() }));
    lease.finish(Report { outcome: Outcome::Failure, why: "reset", ..WELL }, clock::now());
    let later = clock::now() + Duration::from_secs(1);
    let probes = |risky| {
        let asks = (0..200).map(|_| now(world.pool().lease(&Ask { risky, now: later, ..ask() })));
        asks.filter(|lease| lease.probe).count()
    };
    assert_eq!(probes(false), 100);
    assert!(probes(true) < 40);
}

#[tokio::test]
async fn what_cannot_be_served_in_time_is_refused_at_once() {
    let world = World::single("limits: { concurrency: 1 }", "timeout: 10s");
    let mut lease = now(world.pool().lease(&ask()));
    let waiting: Vec<_> = (0..60).map(|_| wait(world.pool().lease(&ask()))).collect();
    let mut waiting = waiting.into_iter();
    // Before it has been seen to move, nobody is refused for what it might do.
    for waiting in waiting.by_ref().take(40) {
        lease.finish(WELL, clock::now());
        lease = waiting.await.expect("its turn");
    }
    let view = world.pool().view(clock::now());
    // Twenty still wait, all of one client: another of that one would be served after them.
    let (rate, estimate) = (view.rate.expect("known"), view.estimated_wait.expect("known"));
    assert!((rate * estimate.as_secs_f64() - 21.0).abs() < 0.1, "{view:?}");
    let hurried = Ask { deadline: clock::now(), ..ask() };
    let Err(Refused::QueueTimeout { waited, retry_after }) = world.pool().lease(&hurried) else { panic!("it waits") };
    assert_eq!((waited, retry_after), (Duration::ZERO, RETRY_SOONEST));
}

#[tokio::test]
async fn what_is_refused_brings_no_retries() {
    let world = World::single("limits: { concurrency: 1 }", "capacity: 2, reserve_high: 0");
    let terms = config::BudgetTerms { ratio: 1.0, min_per_second: 0.0 };
    let spending = world.pool().spending();
    assert!(!spending.retry(&terms, clock::now()), "it begins with nothing");
    let lease = now(world.pool().lease(&ask()));
    let waiting = wait(world.pool().lease(&ask()));
    let again = wait(world.pool().lease(&Ask { again: true, ..ask() }));
    for _ in 0..100 {
        assert_eq!(refused(world.pool().lease(&ask())), "queue_full");
    }
    drop(lease);
    drop(again.await.expect("it goes first"));
    drop(waiting.await.expect("its turn"));
    let affordable = (0..10).filter(|_| spending.retry(&terms, clock::now())).count();
    // What came a moment ago is worth a little less than one each.
    assert!((1..=2).contains(&affordable), "{affordable}");
}

#[tokio::test]
async fn the_first_to_wait_finds_out_whether_a_line_that_was_slow_still_is() {
    let world = World::single("limits: { concurrency: 1 }", "");
    let mut lease = now(world.pool().lease(&ask()));
    let waiting: Vec<_> = (0..20).map(|_| wait(world.pool().lease(&ask()))).collect();
    // It is slow once: five milliseconds for each of them at least.
    tokio::time::sleep(Duration::from_millis(100)).await;
    for waiting in waiting {
        lease.finish(WELL, clock::now());
        lease = waiting.await.expect("its turn");
    }
    let hurried = || Ask { deadline: clock::now() + Duration::from_millis(1), ..ask() };
    let _first = wait(world.pool().lease(&hurried()));
    assert_eq!(refused(world.pool().lease(&hurried())), "queue_timeout");
}

#[tokio::test]
async fn nobody_is_told_to_stay_away_for_longer_than_those_before_may_wait() {
    let world = World::single("limits: { concurrency: 1 }", "capacity: 3000, timeout: 5s");
    let mut lease = now(world.pool().lease(&ask()));
    let waiting: Vec<_> = (0..2000).map(|_| wait(world.pool().lease(&ask()))).collect();
    // Five milliseconds for each of these at least, so more than nine seconds for all.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut waiting = waiting.into_iter();
    for waiting in waiting.by_ref().take(20) {
        lease.finish(WELL, clock::now());
        lease = waiting.await.expect("its turn");
    }
    let Err(Refused::QueueTimeout { retry_after, .. }) = world.pool().lease(&ask()) else { panic!("it waits") };
    assert!((RETRY_SOONEST..=Duration::from_secs(5)).contains(&retry_after), "{retry_after:?}");
}

#[tokio::test]
async fn bodies_of_who_waits_are_bounded_together() {
    let world = World::new(
        "memory: { buffers: 1MiB }\nproviders: { a: { url: \"http://127.0.0.1:1\", limits: { concurrency: 1 } } }\n\
         pools: { p: { providers: [a] } }",
    );
    let lease = now(world.pool().lease(&ask()));
    let big = Ask { bytes: 400 * 1024, ..ask() };
    let waiting = wait(world.pool().lease(&big));
    assert_eq!(refused(world.pool().lease(&big)), "buffers");
    assert_eq!(world.pool().view(clock::now()).held, big.bytes);
    drop(lease);
    let mut lease = waiting.await.expect("its turn");
    assert_eq!(lease.held.take().map(|held| held.bytes()), Some(big.bytes));
    assert_eq!(world.pool().view(clock::now()).held, 0);
}

#[test]
fn a_failing_provider_is_left_alone_and_its_attempts_are_counted() {
    let world = World::single("circuit_breaker: { failure_threshold: 3 }", "");
    world.fail("a", 3);
    assert_eq!(refused(world.pool().lease(&Ask { wait: Wait::Queue, ..ask() })), "no_provider");
    assert_eq!(world.provider("a").state.view(clock::now()).attempts, [3, 0, 0]);
}

#[test]
fn under_many_threads_all_places_come_back_and_none_is_given_twice() {
    let world = World::new(
        "providers: { a: { url: \"http://127.0.0.1:1\", limits: { concurrency: 3 } }, b: { url: \"http://127.0.0.1:1\", limits: { concurrency: 2 } } }\n\
         pools: { p: { providers: [a, b], queue: { capacity: 8 } }, q: { providers: [b], queue: { capacity: 8 } } }",
    );
    let (most, served) = (AtomicU64::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let (world, most, served) = (&world, &most, &served);
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                let mut random = fastrand::Rng::with_seed(thread);
                runtime.block_on(async {
                    for turn in 0..2_000 {
                        let pool = &world.pools[random.usize(0..2)];
                        let class = Class::ALL[random.usize(0..3)];
                        let ask = Ask { class, client: thread as u32 % 3, again: turn % 7 == 0, ..ask() };
                        let lease = match pool.lease(&ask) {
                            Ok(Leasing::Now(lease)) => lease,
                            Ok(Leasing::Wait(waiting)) if random.u8(..) < 64 => {
                                drop(waiting);
                                continue;
                            }
                            Ok(Leasing::Wait(waiting)) => match waiting.await {
                                Ok(lease) => lease,
                                Err(Refused::QueueFull { .. }) => continue,
                                Err(other) => panic!("{other:?}"),
                            },
                            Err(Refused::QueueFull { .. }) => continue,
                            Err(other) => panic!("{other:?}"),
                        };
                        most.fetch_max(u64::from(lease.provider.state.in_flight()), Ordering::Relaxed);
                        served.fetch_add(1, Ordering::Relaxed);
                        if random.bool() {
                            tokio::task::yield_now().await;
                        }
                        if random.bool() { lease.finish(WELL, clock::now()) } else { drop(lease) }
                    }
                });
            });
        }
    });
    assert!(most.load(Ordering::Relaxed) <= 3, "{most:?}");
    assert!(served.load(Ordering::Relaxed) > 100, "{served:?}");
    for name in ["a", "b"] {
        assert_eq!((world.in_flight(name), world.provider(name).metrics.in_flight()), (0, 0));
    }
    for pool in &world.pools {
        let view = pool.view(clock::now());
        assert_eq!((view.depth, view.in_flight), ([0, 0, 0], 0));
        drop(now(pool.lease(&ask())));
    }
}

#[tokio::test]
async fn who_waits_for_one_that_is_drained_is_told_at_once_as_often_as_that_happens() {
    let world = World::single("limits: { concurrency: 1 }", "");
    let _lease = now(world.pool().lease(&ask()));
    for _ in 0..3 {
        let waiting = [wait(world.pool().lease(&ask())), wait(world.pool().lease(&Ask { wait: Wait::Queue, ..ask() }))];
        world.provider("a").state.set_draining(true);
        for waiting in waiting {
            assert_eq!(waiting.await.expect_err("drained"), Refused::NoProvider { retry_after: None });
        }
        assert_eq!(refused(world.pool().lease(&ask())), "no_provider");
        world.provider("a").state.set_draining(false);
    }
    assert_eq!(world.in_flight("a"), 1, "what is under way goes on");
}

#[tokio::test]
async fn who_begins_to_wait_while_a_provider_is_drained_is_told_too() {
    let world = World::single("limits: { concurrency: 1 }", "");
    let _lease = now(world.pool().lease(&ask()));
    for _ in 0..2000 {
        let start = std::sync::Barrier::new(2);
        let leasing = std::thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                world.provider("a").state.set_draining(true);
            });
            start.wait();
            world.pool().lease(&ask())
        });
        if let Ok(leasing) = leasing {
            let mut waiting = wait(Ok(leasing));
            let told = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut waiting).poll(cx))).await;
            assert!(matches!(told, Poll::Ready(Err(Refused::NoProvider { .. }))), "{told:?}");
        }
        world.provider("a").state.set_draining(false);
    }
}

#[tokio::test]
async fn who_waits_for_one_that_a_reload_removes_is_told_at_once() {
    let mut world = World::single("limits: { concurrency: 1 }", "");
    let lease = now(world.pool().lease(&ask()));
    let waiting = wait(world.pool().lease(&ask()));
    world.reload("providers: { b: { url: \"http://127.0.0.1:1\" } }\npools: { q: { providers: [b] } }");
    assert_eq!(waiting.await.expect_err("removed"), Refused::NoProvider { retry_after: None });
    lease.finish(WELL, clock::now());
}

#[tokio::test]
async fn what_a_probe_shows_is_told_before_its_lease_is_given_back() {
    let breaker = "circuit_breaker: { failure_threshold: 1, recovery_timeout: 10ms, success_threshold: 1 }";
    let world = World::single(&format!("limits: {{ concurrency: 2 }}, {breaker}"), "");
    world.fail("a", 1);
    let mut lease = wait(world.pool().lease(&ask())).await.expect("a probe");
    let other = wait(world.pool().lease(&ask()));
    // What says nothing about the provider is not told, and what is put back is told in the end.
    let probe = lease.take_probe().expect("its circuit waits");
    assert!(lease.take_probe().is_none(), "there is one");
    let probe = probe.report(&Report { outcome: Outcome::Rejected, why: "429", ..WELL }, clock::now());
    lease.put_back(probe);
    let probe = lease.take_probe().expect("it is back");
    assert!(probe.report(&WELL, clock::now()).is_none());
    let mut other = other.await.expect("the circuit has closed, and the first lease is out");
    assert!(!other.probe && other.take_probe().is_none());
    assert_eq!(world.in_flight("a"), 2);
    lease.finish(Report { outcome: Outcome::Failure, why: "reset", ..WELL }, clock::now());
    assert_eq!(world.provider("a").state.breaker.view(clock::now()).failures(), 0, "a permit is used once");
}

#[tokio::test]
async fn a_probe_that_is_lost_makes_room_for_the_next() {
    let breaker = "circuit_breaker: { failure_threshold: 1, recovery_timeout: 10ms, success_threshold: 1 }";
    let world = World::single(&format!("limits: {{ concurrency: 2 }}, {breaker}"), "");
    world.fail("a", 1);
    let mut lease = wait(world.pool().lease(&ask())).await.expect("a probe");
    let other = wait(world.pool().lease(&ask()));
    drop(lease.take_probe());
    assert!(other.await.expect("the next probe").probe);
}

#[test]
fn who_begins_to_wait_for_time_to_pass_while_its_runtime_ends_holds_nobody_up() {
    /// Asks for one more lease when its task is dropped.
    struct Last(World);

    impl Drop for Last {
        fn drop(&mut self) {
            drop(wait(self.0.pool().lease(&ask())));
        }
    }

    let world = World::single("limits: { rate: 1/s, burst: 1 }", "");
    now(world.pool().lease(&ask())).finish(WELL, clock::now());
    let (over, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.spawn(async {
            let _last = Last(world);
            std::future::pending::<()>().await;
        });
        runtime.block_on(tokio::task::yield_now());
        drop(runtime);
        over.send(()).expect("somebody waits for it");
    });
    ended.recv_timeout(Duration::from_secs(10)).expect("the runtime ends");
}

/// What `world` with one provider `a` makes of a failure, after an answer that took `usual`.
fn failed_after(world: &World, usual: Duration) {
    now(world.pool().lease(&ask())).finish(Report { head_after: Some(usual), ..WELL }, clock::now());
    world.fail("a", 1);
}

#[tokio::test]
async fn a_probe_is_for_one_that_has_time_for_it() {
    let world = World::single("circuit_breaker: { failure_threshold: 1, recovery_timeout: 200ms }", "");
    let usual = Duration::from_millis(900);
    failed_after(&world, usual);
    let begun = clock::now();
    let asked = |time| Ask { now: begun, deadline: begun + time, ..ask() };
    assert_eq!(refused(world.pool().lease(&asked(usual / 2))), "queue_timeout", "it would not do even now");
    // It would do now, and will not when the circuit may be probed.
    let late = wait(world.pool().lease(&asked(usual + Duration::from_millis(100))));
    let in_time = wait(world.pool().lease(&asked(usual * 20)));
    assert!(in_time.await.expect("it is the probe").probe);
    assert_eq!(late.await.expect_err("it was given a lease").as_str(), "queue_timeout");
}

#[tokio::test]
async fn one_that_comes_back_is_not_given_all_at_once_that_waited_for_it() {
    let terms = "circuit_breaker: { failure_threshold: 1, recovery_timeout: 10ms, success_threshold: 1 }";
    let world = World::single(&format!("limits: {{ concurrency: 20 }}, {terms}"), "");
    failed_after(&world, Duration::from_millis(1));
    let probe = wait(world.pool().lease(&ask()));
    let waiting: Vec<_> = (0..30).map(|_| wait(world.pool().lease(&ask()))).collect();
    probe.await.expect("the circuit may be probed").finish(WELL, clock::now());
    assert_eq!((world.in_flight("a"), world.pool().view(clock::now()).depth), (4, [0, 26, 0]));
    // Nobody gives anything back: only time makes room.
    let mut leases = Vec::new();
    for waiting in waiting.into_iter().take(20) {
        leases.push(waiting.await.expect("its turn"));
        assert!(world.in_flight("a") <= 20);
    }
    assert_eq!(world.in_flight("a"), 20);
}
