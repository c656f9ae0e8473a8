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
//! The decisions are [`State::step`] and [`State::outcome`], which are told what time it is; the rest is waiting.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};
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
struct System;

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
            return Resolver(Source::Literal(Arc::new([SocketAddr::new(ip, port)])));
        }
        let state = watch::Sender::new(State::default());
        Resolver(Source::Name(Arc::new(Name { host: host.into(), port, lookup, state })))
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
