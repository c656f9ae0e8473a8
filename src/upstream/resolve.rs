//! From the host of a provider's URL to addresses, in the order to try them.
//!
//! One [`Resolver`] belongs to one provider and is shared by all workers. Names go to the system's resolver
//! (`getaddrinfo`), so that `/etc/hosts`, search domains and whatever else the machine is set up with hold here too. That
//! call tells no time-to-live, so an answer is kept for a few seconds: new connections follow DNS closely, and a burst of
//! them costs one lookup.
//!
//! A lookup blocks a thread and cannot be called off. It therefore belongs to nobody: whoever needs one starts it, anyone
//! may wait for it, and when they all leave it still ends and leaves its answer. There is never more than one per provider.
//! While it runs, and when it fails, the last good answer is used as long as it is not too old: a nameserver that is down
//! for a minute must not take down providers that are up.
//!
//! The decisions are `State::step` and `State::outcome`, which are told what time it is; the rest is waiting.

use crate::instant::Instant;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// The addresses of one host and port, kept up to date on demand.
#[derive(Debug)]
pub struct Resolver(Source);

/// Asks for the addresses of a name, blocking its thread; the seam for tests.
pub trait Lookup: Send + Sync {
    /// The addresses of `host` with `port` filled in, best first.
    ///
    /// # Errors
    /// When there is no answer, or the answer is that there is none.
    fn lookup(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
}

/// The machine's own way to resolve names.
#[derive(Debug)]
pub(super) struct System;

#[derive(Debug)]
enum Source {
    /// The URL holds an address; nothing is ever asked.
    Literal(Arc<[SocketAddr]>),
    Name(Arc<Name>),
}

struct Name {
    host: Box<str>,
    port: u16,
    lookup: Box<dyn Lookup>,
    /// A watch channel, because every change of the state is also what somebody may be waiting for.
    state: watch::Sender<State>,
}

/// What is known about a name.
#[derive(Debug, Default)]
struct State {
    /// The last answer with addresses.
    good: Option<Good>,
    /// How the latest lookup failed; `None` if it succeeded.
    failure: Option<Failure>,
    /// Whether a lookup is under way.
    looking: bool,
}

#[derive(Debug, Clone)]
struct Good {
    addresses: Arc<[SocketAddr]>,
    /// When the lookup was started: an answer cannot be newer than its question.
    at: Instant,
}

/// An [`io::Error`] that everyone who waited can have a copy of.
#[derive(Debug, Clone)]
struct Failure {
    kind: io::ErrorKind,
    message: Arc<str>,
    at: Instant,
}

/// What someone who needs addresses does next.
#[derive(Debug)]
enum Step {
    Use(Arc<[SocketAddr]>),
    Fail(io::Error),
    /// Start a lookup; these addresses will do if it is slow.
    Begin(Option<Arc<[SocketAddr]>>),
    /// Somebody else's lookup is under way, and nothing else will do.
    Wait,
}

/// A lookup under way. Dropped without an answer (a panic, a runtime that ends) it counts as failed, so that nobody waits
/// for it for ever.
struct Running {
    name: Arc<Name>,
    at: Instant,
    ended: bool,
}

// === impl Resolver ===

impl Resolver {
    /// For `host`, a name or an IP literal without brackets, by the machine's resolver.
    #[must_use]
    pub fn new(host: &str, port: u16) -> Self {
        Resolver::with_lookup(host, port, Box::new(System))
    }

    /// As [`Resolver::new`], with another way to look up names.
    #[must_use]
    pub fn with_lookup(host: &str, port: u16, lookup: Box<dyn Lookup>) -> Self {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Resolver::literal(SocketAddr::new(ip, port));
        }
        let state = watch::Sender::new(State::default());
        Resolver(Source::Name(Arc::new(Name { host: host.into(), port, lookup, state })))
    }

    /// For one address, which is never asked for.
    #[must_use]
    pub fn literal(address: SocketAddr) -> Self {
        Resolver(Source::Literal(Arc::new([address])))
    }

    /// At least one address, in the order to try them; families alternate (RFC 8305 §4). The caller bounds the wait.
    ///
    /// # Errors
    /// When the name has no address now and had none lately.
    pub async fn resolve(&self, now: Instant) -> io::Result<Arc<[SocketAddr]>> {
        match &self.0 {
            Source::Literal(addresses) => Ok(Arc::clone(addresses)),
            Source::Name(name) => name.resolve(now).await,
        }
    }
}

// === impl Name ===

impl Name {
    async fn resolve(self: &Arc<Self>, now: Instant) -> io::Result<Arc<[SocketAddr]>> {
        match self.step(now) {
            Step::Use(addresses) => return Ok(addresses),
            Step::Fail(error) => return Err(error),
            Step::Wait => self.ended().await,
            Step::Begin(None) => {
                self.begin(now);
                self.ended().await;
            }
            Step::Begin(Some(last)) => {
                self.begin(now);
                if timeout(PATIENCE, self.ended()).await.is_err() {
                    return Ok(last);
                }
            }
        }
        self.state.borrow().outcome(now)
    }

    /// Reading alone is enough nearly always, and does not keep the other workers out.
    fn step(&self, now: Instant) -> Step {
        if let Some(step) = self.state.borrow().settled(now) {
            return step;
        }
        let mut step = Step::Wait;
        self.state.send_if_modified(|state| {
            step = state.step(now);
            false
        });
        step
    }

    fn begin(self: &Arc<Self>, now: Instant) {
        let running = Running { name: Arc::clone(self), at: now, ended: false };
        tokio::task::spawn_blocking(move || running.run());
    }

    async fn ended(&self) {
        // An error would mean that the sender is gone; it is a field of `self`.
        let _ = self.state.subscribe().wait_for(|state| !state.looking).await;
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Name").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

// === impl State ===

impl State {
    /// What to do if no lookup needs to be started.
    fn settled(&self, now: Instant) -> Option<Step> {
        let latest_was_good = self.failure.is_none();
        let at = if latest_was_good { self.good.as_ref()?.at } else { self.failure.as_ref()?.at };
        let rest = if latest_was_good { FRESH } else { RETRY };
        let usable = self.usable(now);
        if now.saturating_duration_since(at) < rest {
            return Some(self.outcome(now).map_or_else(Step::Fail, Step::Use));
        }
        self.looking.then(|| usable.map_or(Step::Wait, Step::Use))
    }

    /// What to do; after [`Step::Begin`] the lookup counts as under way.
    fn step(&mut self, now: Instant) -> Step {
        if let Some(step) = self.settled(now) {
            return step;
        }
        if self.looking {
            return Step::Wait;
        }
        self.looking = true;
        Step::Begin(self.usable(now))
    }

    /// What the latest lookup means for someone who needs addresses now.
    fn outcome(&self, now: Instant) -> io::Result<Arc<[SocketAddr]>> {
        match (&self.failure, &self.good, self.usable(now)) {
            (None, Some(good), _) => Ok(Arc::clone(&good.addresses)),
            (Some(_), _, Some(addresses)) => Ok(addresses),
            (Some(failure), _, None) => Err(failure.error()),
            (None, None, _) => Err(io::Error::other("the name was never looked up")),
        }
    }

    /// The last good answer, while it may stand in for a newer one.
    fn usable(&self, now: Instant) -> Option<Arc<[SocketAddr]>> {
        let good = self.good.as_ref()?;
        (now.saturating_duration_since(good.at) < KEEP).then(|| Arc::clone(&good.addresses))
    }

    /// Notes how the lookup that was started at `at` ended.
    fn end(&mut self, answer: io::Result<Vec<SocketAddr>>, at: Instant) {
        self.looking = false;
        match answer {
            Ok(found) if found.is_empty() => {
                self.failure = Some(Failure::new(&io::Error::other("the name exists, but has no address"), at));
            }
            Ok(found) => {
                self.good = Some(Good { addresses: interleave(&found).into(), at });
                self.failure = None;
            }
            Err(error) => self.failure = Some(Failure::new(&error, at)),
        }
    }
}

// === impl Failure ===

impl Failure {
    fn new(error: &io::Error, at: Instant) -> Self {
        Failure { kind: error.kind(), message: error.to_string().into(), at }
    }

    fn error(&self) -> io::Error {
        io::Error::new(self.kind, &*self.message)
    }
}

// === impl Running ===

impl Running {
    fn run(mut self) {
        let answer = self.name.lookup.lookup(&self.name.host, self.name.port);
        self.end(answer);
    }

    fn end(&mut self, answer: io::Result<Vec<SocketAddr>>) {
        self.ended = true;
        self.name.state.send_modify(|state| state.end(answer, self.at));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            self.end(Err(io::Error::new(io::ErrorKind::Interrupted, "the lookup was broken off")));
        }
    }
}

// === impl System ===

impl Lookup for System {
    fn lookup(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        (host, port).to_socket_addrs().map(Iterator::collect)
    }
}

/// Alternates between the families, starting with the resolver's favourite and keeping its order within each; repeated
/// addresses go, and what exceeds [`ADDRESSES`] is never tried.
fn interleave(found: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut unique: Vec<SocketAddr> = Vec::new();
    for address in found {
        if !unique.contains(address) && unique.len() < ADDRESSES {
            unique.push(*address);
        }
    }
    let first_is_v6 = unique.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = unique.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut order = Vec::new();
    loop {
        let pair = [first.next(), second.next()];
        if pair == [None, None] {
            return order;
        }
        order.extend(pair.into_iter().flatten());
    }
}

/// How long an answer is used without asking again.
const FRESH: Duration = Duration::from_secs(5);

/// How long after a failed lookup was started the next may start; until then its failure is everyone's answer.
const RETRY: Duration = Duration::from_secs(1);

/// How long the last good answer stands in for one that is late or failed. Beyond it, connecting somewhere that DNS may
/// long have given to someone else is worse than an error.
const KEEP: Duration = Duration::from_mins(5);

/// How long the one who starts a lookup waits for it where the last good answer would do: long enough for a nameserver
/// that is well, short enough not to be felt when it is not.
const PATIENCE: Duration = Duration::from_millis(250);

/// Addresses kept of one answer. More could not be tried within any sensible connect timeout, 250 ms apart.
const ADDRESSES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    type Answer = io::Result<Vec<SocketAddr>>;

    /// A nameserver that answers when the test does.
    struct Manual {
        asked: Arc<AtomicUsize>,
        answers: Mutex<mpsc::Receiver<Answer>>,
    }

    impl Lookup for Manual {
        fn lookup(&self, host: &str, port: u16) -> Answer {
            assert_eq!((host, port), ("api.test", 80));
            self.asked.fetch_add(1, Ordering::SeqCst);
            let answer = self.answers.lock().expect("no test panics here").recv();
            answer.unwrap_or_else(|_| Err(io::Error::other("the test is over")))
        }
    }

    struct World {
        resolver: Arc<Resolver>,
        asked: Arc<AtomicUsize>,
        answers: mpsc::Sender<Answer>,
        start: Instant,
    }

    impl World {
        fn new() -> Self {
            let (answers, receiver) = mpsc::channel();
            let asked = Arc::new(AtomicUsize::new(0));
            let lookup = Manual { asked: Arc::clone(&asked), answers: Mutex::new(receiver) };
            let resolver = Arc::new(Resolver::with_lookup("api.test", 80, Box::new(lookup)));
            World { resolver, asked, answers, start: crate::clock::now() }
        }

        fn answer(&self, answer: Answer) {
            self.answers.send(answer).expect("the resolver is alive");
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::SeqCst)
        }

        async fn at(&self, millis: u64) -> Result<Vec<SocketAddr>, String> {
            let now = self.start + Duration::from_millis(millis);
            self.resolver.resolve(now).await.map(|found| found.to_vec()).map_err(|error| error.to_string())
        }

        async fn lookup_ended(&self) {
            let Source::Name(name) = &self.resolver.0 else { panic!("a name") };
            name.ended().await;
        }
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| address(text)).collect()
    }

    #[tokio::test]
    async fn an_address_is_its_own_answer_and_nobody_is_asked() {
        struct Never;
        impl Lookup for Never {
            fn lookup(&self, host: &str, _: u16) -> Answer {
                panic!("{host} was looked up");
            }
        }
        for (host, expected) in [("127.0.0.1", "127.0.0.1:81"), ("::1", "[::1]:81")] {
            let resolver = Resolver::with_lookup(host, 81, Box::new(Never));
            let found = resolver.resolve(crate::clock::now()).await.expect("an address");
            assert_eq!(*found, [address(expected)]);
        }
    }

    #[tokio::test]
    async fn the_machines_own_resolver_knows_localhost() {
        let found = Resolver::new("localhost", 81).resolve(crate::clock::now()).await.expect("addresses");
        assert!(!found.is_empty());
        assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 81), "{found:?}");
    }

    #[tokio::test]
    async fn an_answer_is_used_for_five_seconds_and_then_dns_is_followed() {
        let world = World::new();
        world.answer(Ok(addresses(&["10.0.0.1:80"])));
        assert_eq!(world.at(0).await, Ok(addresses(&["10.0.0.1:80"])));
        assert_eq!(world.at(4999).await, Ok(addresses(&["10.0.0.1:80"])));
        assert_eq!(world.asked(), 1);
        world.answer(Ok(addresses(&["10.0.0.2:80"])));
        assert_eq!(world.at(5000).await, Ok(addresses(&["10.0.0.2:80"])));
        assert_eq!(world.asked(), 2);
    }

    #[tokio::test]
    async fn everyone_who_waits_shares_one_lookup() {
        let world = World::new();
        let answer = async { world.answer(Ok(addresses(&["10.0.0.1:80"]))) };
        let (first, second, third, ()) = tokio::join!(biased; world.at(0), world.at(0), world.at(7), answer);
        for found in [first, second, third] {
            assert_eq!(found, Ok(addresses(&["10.0.0.1:80"])));
        }
        assert_eq!(world.asked(), 1);
    }

    #[tokio::test]
    async fn a_slow_lookup_delays_only_the_one_who_started_it_and_only_a_little() {
        let world = World::new();
        world.answer(Ok(addresses(&["10.0.0.1:80"])));
        assert_eq!(world.at(0).await, Ok(addresses(&["10.0.0.1:80"])));
        // The nameserver says nothing now.
        assert_eq!(world.at(6000).await, Ok(addresses(&["10.0.0.1:80"])), "after a moment's patience");
        assert_eq!(world.at(6000).await, Ok(addresses(&["10.0.0.1:80"])), "at once");
        world.answer(Ok(addresses(&["10.0.0.2:80"])));
        world.lookup_ended().await;
        assert_eq!(world.at(6000).await, Ok(addresses(&["10.0.0.2:80"])));
        assert_eq!(world.asked(), 2);
    }

    #[tokio::test]
    async fn a_nameserver_that_is_down_is_bridged_for_five_minutes_and_no_longer() {
        let world = World::new();
        let down = || Err(io::Error::other("the nameserver is down"));
        world.answer(Ok(addresses(&["10.0.0.1:80"])));
        assert_eq!(world.at(0).await, Ok(addresses(&["10.0.0.1:80"])));
        world.answer(down());
        assert_eq!(world.at(6000).await, Ok(addresses(&["10.0.0.1:80"])));
        assert_eq!(world.at(6999).await, Ok(addresses(&["10.0.0.1:80"])));
        assert_eq!(world.asked(), 2, "a failure rests for a second before the next try");
        world.answer(down());
        assert_eq!(world.at(299_999).await, Ok(addresses(&["10.0.0.1:80"])));
        world.answer(down());
        assert_eq!(world.at(301_000).await, Err("the nameserver is down".to_owned()));
        world.answer(Ok(addresses(&["10.0.0.2:80"])));
        assert_eq!(world.at(302_000).await, Ok(addresses(&["10.0.0.2:80"])));
        assert_eq!(world.at(306_999).await, Ok(addresses(&["10.0.0.2:80"])));
        assert_eq!(world.asked(), 5, "the failure before it is forgotten");
    }

    #[tokio::test]
    async fn a_failure_without_an_earlier_answer_is_told_and_tried_again_after_a_second() {
        let world = World::new();
        world.answer(Err(io::Error::other("no such name")));
        assert_eq!(world.at(0).await, Err("no such name".to_owned()));
        assert_eq!(world.at(999).await, Err("no such name".to_owned()));
        assert_eq!(world.asked(), 1);
        world.answer(Ok(addresses(&["10.0.0.1:80"])));
        assert_eq!(world.at(1000).await, Ok(addresses(&["10.0.0.1:80"])));
    }

    #[tokio::test]
    async fn an_answer_without_addresses_is_a_failure() {
        let world = World::new();
        world.answer(Ok(Vec::new()));
        assert_eq!(world.at(0).await, Err("the name exists, but has no address".to_owned()));
    }

    #[tokio::test]
    async fn a_lookup_whose_starter_left_still_leaves_its_answer() {
        let world = World::new();
        {
            let mut starter = Box::pin(world.at(0));
            let polled =
                std::future::poll_fn(|cx| std::task::Poll::Ready(starter.as_mut().poll(cx).is_pending())).await;
            assert!(polled, "nothing was answered yet");
        }
        world.answer(Ok(addresses(&["10.0.0.1:80"])));
        assert_eq!(world.at(0).await, Ok(addresses(&["10.0.0.1:80"])));
        assert_eq!(world.asked(), 1);
    }

    #[tokio::test]
    async fn a_lookup_that_breaks_off_leaves_nobody_waiting() {
        struct Broken;
        impl Lookup for Broken {
            fn lookup(&self, _: &str, _: u16) -> Answer {
                std::panic::resume_unwind(Box::new("broken"));
            }
        }
        let resolver = Resolver::with_lookup("api.test", 80, Box::new(Broken));
        let error = resolver.resolve(crate::clock::now()).await.expect_err("no answer");
        assert_eq!(error.to_string(), "the lookup was broken off");
    }

    #[test]
    fn a_lookup_started_by_one_worker_answers_the_waiters_of_another() {
        let world = World::new();
        let resolver = Arc::clone(&world.resolver);
        let now = world.start;
        let worker = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
            runtime.block_on(resolver.resolve(now)).expect("addresses").to_vec()
        };
        let workers = [std::thread::spawn(worker.clone()), std::thread::spawn(worker)];
        world.answer(Ok(addresses(&["10.0.0.1:80"])));
        for worker in workers {
            assert_eq!(worker.join().expect("a worker ends well"), addresses(&["10.0.0.1:80"]));
        }
        assert_eq!(world.asked(), 1);
    }

    #[test]
    fn families_alternate_starting_with_the_resolvers_favourite() {
        let found = addresses(&["[fd00::1]:1", "[fd00::2]:1", "[fd00::3]:1", "10.0.0.1:1", "10.0.0.2:1"]);
        let order = addresses(&["[fd00::1]:1", "10.0.0.1:1", "[fd00::2]:1", "10.0.0.2:1", "[fd00::3]:1"]);
        assert_eq!(interleave(&found), order);
        let found = addresses(&["10.0.0.1:1", "10.0.0.1:1", "10.0.0.2:1", "[fd00::1]:1"]);
        assert_eq!(interleave(&found), addresses(&["10.0.0.1:1", "[fd00::1]:1", "10.0.0.2:1"]));
    }

    proptest! {
        #[test]
        fn interleaving_loses_nothing_within_the_bound_and_keeps_each_familys_order(
            found in proptest::collection::vec((any::<bool>(), 0..20u16), 0..60),
        ) {
            let found: Vec<SocketAddr> = found
                .into_iter()
                .map(|(v6, port)| SocketAddr::new(if v6 { IpAddr::from([0u8; 16]) } else { IpAddr::from([0u8; 4]) }, port))
                .collect();
            let mut unique: Vec<SocketAddr> = Vec::new();
            for address in &found {
                if !unique.contains(address) {
                    unique.push(*address);
                }
            }
            unique.truncate(ADDRESSES);
            let order = interleave(&found);
            for v6 in [true, false] {
                let of = |list: &[SocketAddr]| list.iter().filter(|a| a.is_ipv6() == v6).copied().collect::<Vec<_>>();
                prop_assert_eq!(of(&order), of(&unique));
            }
            let both = order.iter().filter(|a| a.is_ipv6()).count().min(order.iter().filter(|a| a.is_ipv4()).count());
            for pair in order[..2 * both].windows(2) {
                prop_assert_ne!(pair[0].is_ipv6(), pair[1].is_ipv6());
            }
            prop_assert_eq!(order.first(), unique.first());
        }
    }
}
