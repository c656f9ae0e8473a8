//! `src/upstream/line.rs` over loom's atomics and mutexes: every order in which threads can meet, up to a bound of
//! preemptions, is tried. Nobody is forgotten (loom reports a thread that nobody wakes), no place is given twice, and in the
//! end all have come back.
#![allow(missing_docs, reason = "nothing here is called by others")]
#![allow(dead_code, unreachable_pub, reason = "the file under test is used in part")]

mod instant {
    pub(crate) use sluice::instant::Instant;
}

mod policy {
    pub(crate) use sluice::policy::{flow, queue};
}

#[path = "../src/upstream"]
mod upstream {
    pub mod sync {
        pub(in crate::upstream) use loom::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
        pub(in crate::upstream) use loom::sync::{Arc, Mutex, MutexGuard};
    }
    pub mod line;
}

use loom::sync::Arc;
use loom::thread;
use policy::queue::{Terms, Waiter};
use sluice::clock;
use sluice::instant::Instant;
use sluice::policy::class::Class;
use std::future::poll_fn;
use std::sync::RwLock;
use std::sync::atomic::{AtomicU32, Ordering};
use upstream::line::{Aftermath, Line, Ousted, Owner, Permit, Place, Room, Supply};

/// A provider: a room, and the lines to tell.
struct Provider {
    room: Room,
    // Written before and after the threads run only, so that loom need not know of it.
    lines: RwLock<Vec<Arc<Line<Pool>>>>,
    /// Places in use, counted beside the room. Not loom's: it is a check, not a part.
    used: AtomicU32,
    most: AtomicU32,
}

/// A pool with one or more of them.
struct Pool {
    providers: Vec<Arc<Provider>>,
}

/// A place in use.
struct Used {
    _counted: Counted,
    _permit: Permit<Provider>,
}

struct Counted(Arc<Provider>);

impl Owner for Provider {
    fn room(&self) -> &Room {
        &self.room
    }

    fn freed(&self) {
        let count = self.lines.read().expect("not poisoned").len();
        for index in 0..count {
            let line = Arc::clone(&self.lines.read().expect("not poisoned")[index]);
            finish(&line, line.dispatch(now()));
        }
    }
}

impl Provider {
    fn new(limit: u32) -> Arc<Self> {
        let (used, most) = (AtomicU32::new(0), AtomicU32::new(limit));
        Arc::new(Provider { room: Room::new(limit), lines: RwLock::default(), used, most })
    }

    fn with_line(limit: u32) -> (Arc<Self>, Arc<Line<Pool>>) {
        let provider = Provider::new(limit);
        let line = Provider::line(&provider);
        (provider, line)
    }

    fn line(provider: &Arc<Self>) -> Arc<Line<Pool>> {
        let line = Arc::new(Line::new(TERMS, Arc::new(Pool { providers: vec![Arc::clone(provider)] })));
        provider.lines.write().expect("not poisoned").push(Arc::clone(&line));
        line
    }

    fn take(provider: &Arc<Self>, queued: bool) -> Option<Used> {
        let permit = Permit::take(provider, queued, u32::MAX)?;
        let before = provider.used.fetch_add(1, Ordering::SeqCst);
        assert!(before < provider.most.load(Ordering::SeqCst), "a place was given twice");
        Some(Used { _counted: Counted(Arc::clone(provider)), _permit: permit })
    }

    /// Nothing may be left of what the threads did.
    fn end(&self) {
        assert_eq!(self.room.look(), (0, false));
        assert_eq!(self.used.load(Ordering::SeqCst), 0);
        // The lines know the provider and it knows them.
        let lines = std::mem::take(&mut *self.lines.write().expect("not poisoned"));
        assert!(lines.iter().all(|line| line.waiting() == 0));
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Supply for Pool {
    type Permit = Used;
    type Wish = ();

    fn want(&self, wanted: bool) {
        for provider in &self.providers {
            provider.room.want(wanted);
        }
    }

    fn take(&self, _: &Waiter, (): &(), _: Instant, _: &mut Vec<Used>) -> Option<Used> {
        self.providers.iter().find_map(|provider| Provider::take(provider, true))
    }

    fn is_late(&self, (): &(), _: Instant) -> bool {
        false
    }
}

/// One who waits until it has a place.
fn wait(line: &Arc<Line<Pool>>) -> Result<Used, Ousted> {
    let mut place = join(line)?;
    loom::future::block_on(poll_fn(|cx| place.poll(cx)))
}

fn join(line: &Arc<Line<Pool>>) -> Result<Place<Pool>, Ousted> {
    let (joined, after) = Place::join(line, waiter(), (), now());
    finish(line, after);
    joined
}

/// What every caller of a line does with what is left to be done.
fn finish(line: &Line<Pool>, mut after: Aftermath<Pool>) {
    while after.more {
        after = line.dispatch(now());
    }
}

fn waiter() -> Waiter {
    Waiter { class: Class::Normal, client: 0, share: 1, bytes: 0, since: now(), again: false }
}

fn now() -> Instant {
    static NOW: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *NOW.get_or_init(clock::now)
}

/// Tries every order with up to `preemptions` of them.
fn every_order(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

#[test]
fn who_comes_to_the_line_while_the_only_place_is_given_back_gets_it() {
    every_order(3, || {
        let (provider, line) = Provider::with_line(1);
        let used = Provider::take(&provider, false).expect("free");
        let gives = thread::spawn(move || drop(used));
        drop(wait(&line).expect("a place"));
        gives.join().expect("no panic");
        provider.end();
    });
}

#[test]
fn two_who_come_for_one_place_have_it_one_after_the_other() {
    every_order(2, || {
        let (provider, line) = Provider::with_line(1);
        let used = Provider::take(&provider, false).expect("free");
        let other = {
            let line = Arc::clone(&line);
            thread::spawn(move || drop(wait(&line).expect("a place")))
        };
        let gives = thread::spawn(move || drop(used));
        drop(wait(&line).expect("a place"));
        other.join().expect("no panic");
        gives.join().expect("no panic");
        provider.end();
    });
}

#[test]
fn who_leaves_in_the_moment_it_is_given_a_place_hands_it_to_the_next() {
    every_order(2, || {
        let (provider, line) = Provider::with_line(1);
        let used = Provider::take(&provider, false).expect("free");
        let first = join(&line).expect("a place in the line");
        let leaves = thread::spawn(move || drop(first));
        let gives = thread::spawn(move || drop(used));
        drop(wait(&line).expect("a place"));
        leaves.join().expect("no panic");
        gives.join().expect("no panic");
        provider.end();
    });
}

#[test]
fn who_runs_out_of_time_in_the_moment_it_is_given_a_place_may_use_it() {
    every_order(2, || {
        let (provider, line) = Provider::with_line(1);
        let used = Provider::take(&provider, false).expect("free");
        let mut first = join(&line).expect("a place in the line");
        let late = thread::spawn(move || match first.leave() {
            Some(Ok(used)) => drop(used),
            Some(Err(why)) => panic!("sent away: {why:?}"),
            None => {}
        });
        let gives = thread::spawn(move || drop(used));
        late.join().expect("no panic");
        gives.join().expect("no panic");
        drop(wait(&line).expect("a place"));
        provider.end();
    });
}

#[test]
fn two_lines_at_one_provider_are_both_served() {
    every_order(2, || {
        let (provider, line) = Provider::with_line(1);
        let beside = Provider::line(&provider);
        let used = Provider::take(&provider, false).expect("free");
        let other = thread::spawn(move || drop(wait(&beside).expect("a place")));
        let gives = thread::spawn(move || drop(used));
        drop(wait(&line).expect("a place"));
        other.join().expect("no panic");
        gives.join().expect("no panic");
        provider.end();
    });
}

#[test]
fn who_passes_takes_nothing_from_who_waits() {
    every_order(2, || {
        let (provider, line) = Provider::with_line(1);
        let used = Provider::take(&provider, false).expect("free");
        let place = join(&line).expect("a place in the line");
        let passes = {
            let (provider, line) = (Arc::clone(&provider), Arc::clone(&line));
            thread::spawn(move || {
                let passed = line.may_pass().then(|| Provider::take(&provider, false)).flatten();
                assert!(passed.is_none(), "somebody waits");
            })
        };
        drop(used);
        passes.join().expect("no panic");
        drop(place);
        provider.end();
    });
}

#[test]
fn a_place_that_a_higher_limit_makes_is_found() {
    every_order(3, || {
        let (provider, line) = Provider::with_line(1);
        let used = Provider::take(&provider, false).expect("free");
        let raises = {
            let provider = Arc::clone(&provider);
            thread::spawn(move || {
                provider.most.store(2, Ordering::SeqCst);
                provider.room.set_limit(2);
                if provider.room.is_wanted() {
                    provider.freed();
                }
            })
        };
        drop(wait(&line).expect("a place"));
        raises.join().expect("no panic");
        drop(used);
        provider.end();
    });
}

#[test]
fn who_is_sent_away_in_the_moment_it_is_given_a_place_learns_one_of_the_two() {
    every_order(2, || {
        let (provider, line) = Provider::with_line(1);
        let used = Provider::take(&provider, false).expect("free");
        let cancels = {
            let line = Arc::clone(&line);
            thread::spawn(move || line.oust(Ousted::Cancelled, |_, _| true))
        };
        let gives = thread::spawn(move || drop(used));
        match wait(&line) {
            Ok(used) => drop(used),
            Err(why) => assert_eq!(why, Ousted::Cancelled),
        }
        assert!(cancels.join().expect("no panic") <= 1);
        gives.join().expect("no panic");
        provider.end();
    });
}

#[test]
fn a_line_that_goes_on_after_a_pause_finds_what_was_given_back_meanwhile() {
    every_order(2, || {
        let (provider, line) = Provider::with_line(1);
        let used = Provider::take(&provider, false).expect("free");
        finish(&line, line.pause(true, now()));
        let resumes = {
            let line = Arc::clone(&line);
            thread::spawn(move || finish(&line, line.pause(false, now())))
        };
        let gives = thread::spawn(move || drop(used));
        drop(wait(&line).expect("a place"));
        resumes.join().expect("no panic");
        gives.join().expect("no panic");
        provider.end();
    });
}

#[test]
fn who_waits_while_the_pool_changes_is_served_by_its_new_provider() {
    every_order(2, || {
        let (provider, line) = Provider::with_line(1);
        let other = Provider::new(1);
        other.lines.write().expect("not poisoned").push(Arc::clone(&line));
        let (used, kept) =
            (Provider::take(&other, false).expect("free"), Provider::take(&provider, false).expect("free"));
        let changes = {
            let (line, other) = (Arc::clone(&line), Arc::clone(&other));
            thread::spawn(move || finish(&line, line.follow(TERMS, Arc::new(Pool { providers: vec![other] }), now())))
        };
        let gives = thread::spawn(move || drop(used));
        drop(wait(&line).expect("a place"));
        changes.join().expect("no panic");
        gives.join().expect("no panic");
        drop(kept);
        provider.end();
        other.end();
    });
}

/// Room for all who come.
const TERMS: Terms = Terms { capacity: 10, weights: [16, 4, 1], reserve_high: 0.0 };
