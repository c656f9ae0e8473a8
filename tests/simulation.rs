//! Small worlds by chance, again and again: decisions of `src/policy/` put together, in simulated time, with what must
//! always hold checked after each step. No clock is read, nothing sleeps, and a world is made of its seed and nothing else.
//!
//! One simulation is of a queue alone. In the other clients, a small gateway (`simulation/gateway.rs`: the rooms as
//! `src/upstream/` and `src/proxy/dispatch.rs` put them together) and providers outside of it meet, until all providers
//! recover at once; `simulation/laws.rs` counts everything anew from what is seen to happen. Not in it: hedges, health
//! checks, bodies that stream, and threads.
//!
//! A world that breaks says its seed and the last things that happened in it. `SLUICE_SEED=7 cargo test --test simulation`
//! replays that one, and `SLUICE_SEEDS=20000 cargo test --test simulation` runs as many as that, with every overflow
//! checked. LONGRUN
#![allow(clippy::print_stderr, clippy::print_stdout, reason = "a world that broke says its seed")]
#![allow(clippy::cast_sign_loss, reason = "nothing is negative here")]
#![allow(unreachable_pub, reason = "a test is no crate that others use")]

#[path = "simulation/gateway.rs"]
mod gateway;
#[path = "simulation/laws.rs"]
mod laws;
#[path = "simulation/outside.rs"]
mod outside;
#[path = "simulation/queue.rs"]
mod queue;
#[path = "simulation/story.rs"]
mod story;
#[path = "simulation/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use story::Story;

#[test]
fn what_must_hold_of_a_queue_holds_in_every_world() {
    let seen = in_every_world(QUEUES, |seed, story| queue::World::run(seed, story).ended());
    assert_everything_happens(&queue::SIGHTS, &seen);
}

#[test]
fn what_must_hold_of_requests_and_providers_holds_in_every_world() {
    let seen = in_every_world(WORLDS, |seed, story| world::World::run(seed, story).seen);
    assert_everything_happens(&world::SIGHTS, &seen);
}

/// How often something was seen to happen.
type Seen = BTreeMap<&'static str, u64>;

/// A simulation in which something never happens shows little.
fn assert_everything_happens(sights: &[&str], seen: &Seen) {
    if number("SLUICE_SEED").is_none() {
        let never: Vec<_> = sights.iter().filter(|sight| !seen.contains_key(*sight)).collect();
        assert!(never.is_empty(), "these never happened: {never:?}");
    }
    println!("{seen:?}");
}

/// Runs a world for each seed, on all cores, and adds up what was seen. The first that breaks is told.
fn in_every_world(usual: u64, run: impl Fn(u64, &mut Story) -> Seen + Sync) -> Seen {
    let seeds = match number("SLUICE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SLUICE_SEEDS").unwrap_or(usual),
    };
    let (next, broken) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let work = || {
        let mut sum = Seen::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end || broken.load(Ordering::Relaxed) {
                return sum;
            }
            let mut story = Story::default();
            let world = catch_unwind(AssertUnwindSafe(|| run(seed, &mut story))).unwrap_or_else(|panic| {
                if !broken.swap(true, Ordering::Relaxed) {
                    eprintln!("{story}The world of seed {seed} broke, after that.");
                    eprintln!("See it again: SLUICE_SEED={seed} cargo test --test simulation");
                }
                resume_unwind(panic)
            });
            add(&mut sum, world);
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        let mut sum = Seen::new();
        for thread in threads {
            add(&mut sum, thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        sum
    })
}

fn add(sum: &mut Seen, seen: Seen) {
    for (sight, count) in seen {
        *sum.entry(sight).or_default() += count;
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("SLUICE_SEED(S) is a number"))
}

/// Worlds of an ordinary run: of queues alone,
const QUEUES: u64 = 100;
/// and of everything.
const WORLDS: u64 = 300;
