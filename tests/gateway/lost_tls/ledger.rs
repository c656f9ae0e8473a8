//! Who has asked what, and what became of it.

use crate::world::{PATIENCE, lock};
use aws_lc_rs::digest::{SHA256, digest};
use sluice::clock;
use sluice::instant::Instant;
use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// What everyone in the test knows.
#[derive(Debug)]
pub(super) struct Ledger {
    next: AtomicU64,
    /// How often each number has reached a provider.
    seen: Mutex<HashMap<u64, u32>>,
    answered: Mutex<Vec<u64>>,
    /// How long everything took that a person would wait for: requests without a stream, and new connections.
    took: Mutex<Vec<Took>>,
    /// Numbers that nobody may have seen: the gateway has said that it did not take them.
    never_taken: Mutex<HashSet<u64>>,
    /// What went wrong.
    failures: Mutex<Vec<String>>,
    /// The clients are to end.
    over: AtomicBool,
    /// How many events each long stream is to have sent; [`END`] ends it.
    events: watch::Sender<u64>,
    /// The latest event of each long stream that is followed.
    followed: Mutex<Vec<(&'static str, Arc<AtomicU64>)>>,
    /// Odd while the listener that comes and goes may be gone.
    goings: AtomicU64,
    counts: Mutex<HashMap<&'static str, u64>>,
}

/// When something began and ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Took {
    pub(super) what: What,
    pub(super) begun: Instant,
    pub(super) ended: Instant,
}

/// What somebody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// A connection, with its handshake.
    Connection,
    /// An answer that is no stream.
    Answer,
}

/// What a provider is to answer.
#[derive(Debug)]
pub(super) enum Reply {
    Whole(Vec<u8>),
    /// So many events, a moment apart.
    Short(u64),
    /// Every event that is due, until the last.
    Long(watch::Receiver<u64>),
}

/// A request as clients make it up.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) number: u64,
    /// The answer is a stream.
    pub(super) streams: bool,
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) digest: String,
    pub(super) body: Vec<u8>,
    /// What has to come back.
    pub(super) expected: Vec<u8>,
}

// === impl Ledger ===

impl Ledger {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Ledger {
            next: AtomicU64::new(1),
            seen: Mutex::default(),
            answered: Mutex::default(),
            took: Mutex::default(),
            never_taken: Mutex::default(),
            failures: Mutex::default(),
            over: AtomicBool::new(false),
            events: watch::Sender::new(1),
            followed: Mutex::default(),
            goings: AtomicU64::new(1),
            counts: Mutex::default(),
        })
    }

    pub(super) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::SeqCst)
    }

    /// A request: every third has a body, some of them a large one, and some are answered by a stream of events.
    pub(super) fn ask(&self) -> Ask {
        let number = self.number();
        // One provider speaks HTTP/1, the other HTTP/2.
        let provider = if number.is_multiple_of(2) { 'a' } else { 'b' };
        if number % STREAM_EVERY == 1 {
            let expected = (1..=SHORT).fold(String::new(), |text, event| text + &event_text(event)).into_bytes();
            let path = format!("/{provider}/short");
            return Ask { number, streams: true, method: "GET", path, digest: hex(b""), body: Vec::new(), expected };
        }
        let len = match number {
            number if number % LARGE_EVERY == 3 => LARGE,
            number if number.is_multiple_of(3) => usize::try_from(number * 7_919 % SMALL_MAX).unwrap_or(0),
            _ => 0,
        };
        let body: Vec<u8> = number.to_be_bytes().into_iter().cycle().take(len).collect();
        let method = if body.is_empty() { "GET" } else { "POST" };
        let digest = hex(&body);
        let expected = whole_answer(number, &digest, &body);
        Ask { number, streams: false, method, path: format!("/{provider}/whole"), digest, body, expected }
    }

    /// A provider has a whole request, and is told what to answer.
    pub(super) fn receive(&self, path: &str, number: &str, digest: &str, body: &[u8]) -> Reply {
        let Ok(number) = number.parse() else {
            self.fail(format!("a provider got a request without a number for {path}"));
            return Reply::Whole(Vec::new());
        };
        *lock(&self.seen).entry(number).or_default() += 1;
        let found = hex(body);
        if found != digest {
            self.fail(format!("request {number} arrived with another body: {} bytes", body.len()));
        }
        match path.rsplit('/').next() {
            Some("short") => Reply::Short(SHORT),
            Some("long") => Reply::Long(self.events.subscribe()),
            _ => Reply::Whole(whole_answer(number, &found, body)),
        }
    }

    pub(super) fn answered(&self, number: u64) {
        lock(&self.answered).push(number);
    }

    /// It began then, and has ended now.
    pub(super) fn took(&self, what: What, begun: Instant) {
        lock(&self.took).push(Took { what, begun, ended: clock::now() });
    }

    /// How many were answered so far.
    pub(super) fn answers(&self) -> usize {
        lock(&self.answered).len()
    }

    /// How long each thing took, as far as `chosen`, from the shortest on.
    pub(super) fn times(&self, chosen: impl Fn(&Took) -> bool) -> Vec<Duration> {
        let took = lock(&self.took);
        let mut times: Vec<_> = took.iter().filter(|took| chosen(took)).map(|took| took.ended - took.begun).collect();
        times.sort_unstable();
        times
    }

    pub(super) fn never_taken(&self, number: u64) {
        lock(&self.never_taken).insert(number);
    }

    /// One more of these.
    pub(super) fn count(&self, what: &'static str) {
        *lock(&self.counts).entry(what).or_default() += 1;
    }

    pub(super) fn counted(&self, what: &str) -> u64 {
        lock(&self.counts).get(what).copied().unwrap_or(0)
    }

    pub(super) fn counts(&self) -> HashMap<&'static str, u64> {
        lock(&self.counts).clone()
    }

    pub(super) fn fail(&self, what: String) {
        lock(&self.failures).push(what);
        self.end();
    }

    pub(super) fn failures(&self) -> Vec<String> {
        lock(&self.failures).clone()
    }

    /// The clients are to end once what they do is done.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// The listener that comes and goes may be gone from now on, or is there from now on.
    pub(super) fn side_turns(&self) {
        self.goings.fetch_add(1, Ordering::SeqCst);
    }

    /// Differs between any two moments between which [`Ledger::side_turns`]; odd while the listener may be gone.
    pub(super) fn goings(&self) -> u64 {
        self.goings.load(Ordering::SeqCst)
    }

    // Long streams.

    /// One more is followed.
    pub(super) fn follow(&self, name: &'static str) -> Arc<AtomicU64> {
        let progress = Arc::new(AtomicU64::new(0));
        lock(&self.followed).push((name, Arc::clone(&progress)));
        progress
    }

    /// Has every long stream send its next event.
    pub(super) fn next_event(&self) {
        self.events.send_modify(|due| *due += 1);
    }

    /// Has every long stream send its last event.
    pub(super) fn last_event(&self) {
        self.events.send_replace(END);
    }

    /// The long streams that have not brought what is due.
    pub(super) fn behind(&self) -> Vec<&'static str> {
        let due = *self.events.borrow();
        let followed = lock(&self.followed);
        followed.iter().filter(|(_, seen)| seen.load(Ordering::SeqCst) < due).map(|(name, _)| *name).collect()
    }

    /// That each request was answered once and seen once, or never taken and never seen; how many of them there were.
    pub(super) fn settle(&self) -> usize {
        assert_eq!(self.failures(), Vec::<String>::new());
        let (seen, never_taken) = (lock(&self.seen), lock(&self.never_taken));
        let mut answered = HashMap::<u64, u32>::new();
        for number in lock(&self.answered).iter() {
            *answered.entry(*number).or_default() += 1;
        }
        let mut wrong = String::new();
        for number in 1..self.next.load(Ordering::SeqCst) {
            let [seen, answered] = [&seen, &answered].map(|map| map.get(&number).copied().unwrap_or(0));
            let expected = u32::from(!never_taken.contains(&number));
            if (seen, answered) != (expected, expected) {
                let _ = write!(wrong, "\n{number}: seen {seen} times, answered {answered} times");
            }
        }
        assert!(wrong.is_empty(), "lost or sent twice:{wrong}");
        answered.len()
    }
}

/// The text of an event.
pub(super) fn event_text(event: u64) -> String {
    format!("data: {event}\n\n")
}

fn whole_answer(number: u64, digest: &str, body: &[u8]) -> Vec<u8> {
    [format!("{number} {digest}\n").as_bytes(), body].concat()
}

fn hex(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The number of the last event of a long stream.
pub(super) const END: u64 = u64::MAX;

/// Events of a short stream.
const SHORT: u64 = 8;

/// One request in so many is answered by a short stream.
const STREAM_EVERY: u64 = 40;

/// One request in so many has a large body: larger than any window of flow control.
const LARGE_EVERY: u64 = 60;

/// Bytes of a large body.
const LARGE: usize = 300_000;

/// Other bodies have fewer bytes.
const SMALL_MAX: u64 = 20_000;

/// Nothing in the test takes longer.
pub(super) const LIMIT: Duration = PATIENCE;
