//! `src/cache/coalesce.rs` and `src/cache/body.rs` over loom's mutexes: every order in which threads can meet, up to a bound of
//! preemptions, is tried. Nobody waits for ever (loom reports a thread that nobody wakes), two never lead at once, and nothing
//! is left in the end.
#![allow(missing_docs, reason = "nothing here is called by others")]
#![allow(dead_code, unreachable_pub, reason = "the files under test are used in part")]

mod instant {
    pub(crate) use sluice::instant::Instant;
}

#[path = "../src/cache"]
mod cache {
    pub mod sync {
        pub(in crate::cache) use loom::sync::{Arc, Mutex, MutexGuard};
    }
    pub mod body;
    pub mod coalesce;
}

use cache::body::{Cut, Filling, Reader, Room, SLOW_READER, Space, WINDOW};
use cache::coalesce::{Flights, Followed, Follower, Joined, Leader};
use loom::future::block_on;
use loom::sync::Arc;
use loom::thread;
use sluice::clock;
use sluice::instant::Instant;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;

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

/// Requests for one key, with a count of who leads. Not loom's: it is a check, not a part.
#[derive(Default)]
struct Requests {
    flights: Flights<u32>,
    leading: AtomicU32,
    led: AtomicU32,
}

impl Requests {
    fn new() -> Arc<Self> {
        Arc::new(Requests::default())
    }

    fn leader(&self) -> Leader<u32> {
        match self.flights.join(b"k", now()) {
            Joined::Lead(leader) => leader,
            other => panic!("{other:?}"),
        }
    }

    fn follower(&self) -> Follower<u32> {
        match self.flights.join(b"k", now()) {
            Joined::Follow(follower) => follower,
            other => panic!("{other:?}"),
        }
    }

    /// One request from beginning to end; whoever leads does `lead`. Says what it was given.
    fn request(&self, lead: impl Fn(&Leader<u32>)) -> Option<u32> {
        match self.flights.join(b"k", now()) {
            Joined::Lead(leader) => self.lead(leader, lead),
            Joined::Follow(follower) => self.wait(follower, lead),
            Joined::Published(reply) => Some(*reply),
            Joined::Alone => None,
        }
    }

    fn wait(&self, mut follower: Follower<u32>, lead: impl Fn(&Leader<u32>)) -> Option<u32> {
        match block_on(poll_fn(|cx| follower.poll(cx))) {
            Followed::Published(reply) => Some(*reply),
            Followed::Lead(leader) => self.lead(leader, lead),
            Followed::Alone => None,
        }
    }

    #[allow(clippy::needless_pass_by_value, reason = "whoever leads ends here")]
    fn lead(&self, leader: Leader<u32>, lead: impl Fn(&Leader<u32>)) -> Option<u32> {
        assert_eq!(self.leading.fetch_add(1, Ordering::SeqCst), 0, "two lead at once");
        self.led.fetch_add(1, Ordering::SeqCst);
        lead(&leader);
        self.leading.fetch_sub(1, Ordering::SeqCst);
        drop(leader);
        None
    }

    fn end(&self) {
        assert!(self.flights.is_empty());
    }
}

fn publish(leader: &Leader<u32>) {
    leader.publish(Arc::new(7));
}

fn fail(_: &Leader<u32>) {}

#[test]
fn who_comes_while_the_leader_publishes_is_given_the_reply_or_asks_anew() {
    every_order(3, || {
        let requests = Requests::new();
        let leader = requests.leader();
        let comes = {
            let requests = Arc::clone(&requests);
            thread::spawn(move || requests.request(fail))
        };
        publish(&leader);
        drop(leader);
        let given = comes.join().expect("no panic");
        assert!(given == Some(7) || requests.led.load(Ordering::SeqCst) == 1);
        requests.end();
    });
}

#[test]
fn who_comes_while_the_leader_fails_leads() {
    every_order(3, || {
        let requests = Requests::new();
        let leader = requests.leader();
        let comes = {
            let requests = Arc::clone(&requests);
            thread::spawn(move || requests.request(publish))
        };
        drop(leader);
        comes.join().expect("no panic");
        assert_eq!(requests.led.load(Ordering::SeqCst), 1);
        requests.end();
    });
}

#[test]
fn of_two_that_wait_while_the_leader_fails_one_leads_and_the_other_is_given_its_reply() {
    every_order(2, || {
        let requests = Requests::new();
        let leader = requests.leader();
        let waits = [(); 2].map(|()| {
            let (requests, follower) = (Arc::clone(&requests), requests.follower());
            thread::spawn(move || requests.wait(follower, publish))
        });
        drop(leader);
        let mut given = waits.map(|wait| wait.join().expect("no panic"));
        given.sort_unstable();
        assert_eq!(given, [None, Some(7)]);
        assert_eq!(requests.led.load(Ordering::SeqCst), 1);
        requests.end();
    });
}

#[test]
fn who_leaves_in_the_moment_it_is_elected_hands_the_duty_on() {
    every_order(2, || {
        let requests = Requests::new();
        let leader = requests.leader();
        let leaves = requests.follower();
        let stays = requests.follower();
        let left = thread::spawn(move || drop(leaves));
        let failed = thread::spawn(move || drop(leader));
        assert_eq!(requests.wait(stays, fail), None);
        left.join().expect("no panic");
        failed.join().expect("no panic");
        assert_eq!(requests.led.load(Ordering::SeqCst), 1);
        requests.end();
    });
}

#[test]
fn who_comes_while_the_last_one_leaves_is_not_lost() {
    every_order(2, || {
        let requests = Requests::new();
        let leader = requests.leader();
        let follower = requests.follower();
        let left = thread::spawn(move || drop(follower));
        let comes = {
            let requests = Arc::clone(&requests);
            thread::spawn(move || requests.request(fail))
        };
        drop(leader);
        left.join().expect("no panic");
        comes.join().expect("no panic");
        assert_eq!(requests.led.load(Ordering::SeqCst), 1);
        requests.end();
    });
}

#[test]
fn who_waits_while_the_leader_declines_goes_alone() {
    every_order(2, || {
        let requests = Requests::new();
        let leader = requests.leader();
        let follower = requests.follower();
        let declines = thread::spawn(move || leader.decline(now()));
        assert_eq!(requests.wait(follower, fail), None);
        declines.join().expect("no panic");
        assert_eq!(requests.led.load(Ordering::SeqCst), 0);
        requests.end();
    });
}

#[test]
fn who_comes_while_what_it_wants_changes_waits_for_the_right_one() {
    every_order(2, || {
        let requests = Requests::new();
        let leader = requests.leader();
        let changes = {
            let requests = Arc::clone(&requests);
            thread::spawn(move || requests.flights.outdate(|_| true))
        };
        let given = requests.follower_or_leader();
        publish(&leader);
        drop(leader);
        changes.join().expect("no panic");
        drop(given);
        requests.end();
    });
}

impl Requests {
    fn follower_or_leader(&self) -> Joined<u32> {
        let joined = self.flights.join(b"k", now());
        assert!(matches!(joined, Joined::Follow(_) | Joined::Lead(_)));
        joined
    }
}

/// Reads to the end; says how many bytes came.
fn read(mut reader: Reader) -> Result<usize, Cut> {
    let mut total = 0;
    loop {
        let some = block_on(poll_fn(|cx| match reader.poll_bytes(cx) {
            Poll::Ready(bytes) => Poll::Ready(bytes.map(<[u8]>::len)),
            Poll::Pending => Poll::Pending,
        }))?;
        if some == 0 {
            return Ok(total);
        }
        reader.advance(some);
        total += some;
    }
}

#[test]
fn a_reader_sees_every_byte_and_the_end() {
    every_order(3, || {
        let mut filling = Filling::new(&Space::new(1 << 20), 1 << 20);
        let reader = filling.source().reader().expect("the beginning is there");
        let reads = thread::spawn(move || read(reader));
        filling.append(b"ab").expect("wanted");
        filling.append(b"c").expect("wanted");
        assert!(filling.complete().is_some());
        assert_eq!(reads.join().expect("no panic"), Ok(3));
    });
}

#[test]
fn a_reader_sees_that_the_writer_is_gone() {
    every_order(3, || {
        let mut filling = Filling::new(&Space::new(1 << 20), 1 << 20);
        let reader = filling.source().reader().expect("the beginning is there");
        let reads = thread::spawn(move || read(reader));
        filling.append(b"ab").expect("wanted");
        drop(filling);
        assert_eq!(reads.join().expect("no panic"), Err(Cut));
    });
}

#[test]
fn a_writer_that_waits_for_a_reader_goes_on_when_it_reads_and_when_it_leaves() {
    for leaves in [false, true] {
        every_order(2, move || {
            let space = Space::new(0);
            let mut filling = Filling::new(&space, 0);
            let reader = filling.source().reader().expect("the beginning is there");
            filling.append(&vec![0; WINDOW as usize]).expect("somebody reads");
            let reads = thread::spawn(move || if leaves { drop(reader) } else { read(reader).map_or((), |_| ()) });
            block_on(poll_fn(|cx| match filling.poll_room(cx, now()) {
                Room::There => Poll::Ready(()),
                Room::Awaited(_) => Poll::Pending,
            }));
            drop(filling);
            reads.join().expect("no panic");
            assert_eq!(space.used(), 0);
        });
    }
}

#[test]
fn a_writer_that_waits_for_two_goes_on_with_the_one_that_reads() {
    every_order(2, || {
        let space = Space::new(0);
        let mut filling = Filling::new(&space, 0);
        let source = filling.source();
        let [fast, mut slow] = [(); 2].map(|()| source.reader().expect("the beginning is there"));
        filling.append(&vec![0; WINDOW as usize]).expect("somebody reads");
        let reads = thread::spawn(move || read(fast));
        // Time passes when the writer waits for it, and for nothing else.
        let mut time = now();
        block_on(poll_fn(|cx| {
            loop {
                match filling.poll_room(cx, time) {
                    Room::There => return Poll::Ready(()),
                    Room::Awaited(None) => return Poll::Pending,
                    Room::Awaited(Some(until)) => time = until,
                }
            }
        }));
        assert_eq!(time, now() + SLOW_READER);
        filling.append(b"more").expect("somebody reads");
        assert!(filling.complete().is_none());
        assert_eq!(reads.join().expect("no panic"), Ok(WINDOW as usize + 4));
        assert!(block_on(poll_fn(|cx| Poll::Ready(slow.poll_bytes(cx).is_ready()))));
        drop((slow, source));
        assert_eq!(space.used(), 0);
    });
}
