//! What the admin listener may know and do: plain values, so that its views never see live types.

use crate::config;
use crate::instant::Instant;
use crate::observe::{Exposition, Metrics};
use crate::overrides::{self, Shown};
use crate::policy::circuit::{self, Circuit};
use crate::policy::class::Class;
use crate::policy::degrade::{Degradation, Totals};
use crate::policy::ladder::Kind;
use crate::policy::overrides::{Setting, Target};
use serde_json::Value;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The gateway, as operators reach it.
pub trait Control: Send + Sync + 'static {
    /// The tokens and host names of the moment; asked for each request, so that a reload changes them at once.
    fn admin(&self) -> Arc<config::Admin>;

    /// The gateway's metrics.
    fn metrics(&self) -> Arc<Metrics>;

    /// Every metric as it is now, with its content type.
    fn page(&self, format: Exposition) -> (&'static str, String) {
        self.metrics().render(format)
    }

    /// Whether it takes requests.
    fn readiness(&self) -> Readiness;

    /// Every provider, in the order of the file; in the place of one that was discovered, its members.
    fn providers(&self) -> Vec<ProviderView>;

    /// The circuit of each of them.
    fn circuits(&self) -> Vec<CircuitView>;

    /// The queue of every pool, in the order of the file.
    fn queues(&self) -> Vec<QueueView>;

    /// Who waits in the queue of this pool, who came first in front, at most so many; `None` where there is no such pool.
    fn waiting(&self, pool: &str, limit: usize) -> Option<Vec<WaitingView>>;

    /// Takes one out of the queue of this pool; whether there was such a one.
    fn cancel(&self, pool: &str, id: u64) -> bool;

    /// How every pool spreads its attempts.
    fn balances(&self) -> Vec<BalanceView>;

    /// Who tried again, who did not, and what is left to spend on it.
    fn retries(&self) -> RetryView;

    /// Every route that has a ladder, in the order of the file.
    fn degradations(&self) -> Vec<DegradationView>;

    /// What is kept of answers; `None` where no route keeps any.
    fn cache(&self) -> Option<CacheView>;

    /// Forgets some of it; says how many replies that were.
    fn forget(&self, what: &Forget) -> u64;

    /// What Sluice itself depends on.
    fn dependencies(&self) -> Vec<Dependency>;

    /// What operators changed at runtime.
    fn overrides(&self) -> Vec<Shown>;

    /// Makes an override, for `ttl` if that is said. It is on disk when this returns, or shown as not durable.
    ///
    /// # Errors
    /// Nothing has changed then.
    fn override_by(&self, setting: Setting, name: &str, ttl: Option<Duration>) -> Result<Shown, overrides::Refused>;

    /// Takes an override back and returns it; `None` where there is none.
    ///
    /// # Errors
    /// Nothing has changed then.
    fn take_back(&self, target: &Target) -> Result<Option<Shown>, overrides::Refused>;

    /// What is applied, and what the file says.
    fn config(&self) -> ConfigStatus;

    /// Reads the file and applies it. It runs to its end also if the caller goes away.
    fn reload(&self) -> Reloading;

    /// Checks `yaml` as a reload would, without reading a file or the environment for its caller. Returns notes.
    ///
    /// # Errors
    /// All problems of the text.
    fn check(&self, yaml: &[u8]) -> Result<Vec<Value>, Rejected>;
}

/// A reload under way.
pub type Reloading = Pin<Box<dyn Future<Output = Result<Reloaded, Rejected>> + Send>>;

/// Whether requests are taken, and why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// Configured, listening, not draining.
    pub ready: bool,
    /// On its way out.
    pub draining: bool,
    /// The parts of the answer.
    pub checks: Vec<Check>,
}

/// One part of readiness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// Whether it is well.
    pub ok: bool,
    /// What was found, for people.
    pub detail: String,
}

/// One provider, for people and scripts.
#[derive(Debug, Clone, PartialEq)]
pub struct ProviderView {
    /// Its name.
    pub name: String,
    /// Its URL, which holds no secret.
    pub url: String,
    /// What its checks say.
    pub healthy: bool,
    /// It is to get nothing new.
    pub draining: bool,
    /// Where its circuit stands.
    pub circuit: circuit::State,
    /// Attempts under way.
    pub in_flight: u32,
    /// Attempts at once.
    pub concurrency: u32,
    /// Attempts a second.
    pub rate: Option<f64>,
    /// The share of the last seconds that it was at its limit.
    pub utilisation: f64,
    /// The median, the 95th and the 99th of the times to a head; `None` where too few are known.
    pub latency: [Option<Duration>; 3],
    /// Until when it is left alone.
    pub cooldown_until: Option<SystemTime>,
    /// Attempts so far: first tries, retries, hedges.
    pub attempts: [u64; 3],
}

/// A circuit, and when it was looked at.
#[derive(Debug, Clone)]
pub struct CircuitView {
    /// Whose it is.
    pub provider: String,
    /// A copy.
    pub circuit: Circuit,
    /// By the clock that the circuit goes by.
    pub now: Instant,
    /// The same by the wall clock.
    pub at: SystemTime,
}

/// A pool's queue.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueView {
    /// Whose it is.
    pub pool: String,
    /// How many wait, by class.
    pub depth: [usize; 3],
    /// How long the oldest of each class has been waiting.
    pub oldest: [Option<Duration>; 3],
    /// Who waits: class, client, how many.
    pub clients: Vec<(Class, String, usize)>,
    /// Attempts under way at its providers, for whatever pool.
    pub in_flight: u32,
    /// Places.
    pub capacity: usize,
    /// Nothing is handed out.
    pub paused: bool,
    /// Refused so far, by reason.
    pub shed: Vec<(&'static str, u64)>,
    /// Left because the client was gone.
    pub gone: u64,
    /// Leases given so far to who had waited.
    pub dispatched: u64,
    /// How many are served in a second while some wait.
    pub rate: Option<f64>,
    /// How long a newcomer of class `normal` would wait, of the client for which that is longest.
    pub estimated_wait: Option<Duration>,
    /// Bytes of bodies that wait.
    pub held: usize,
}

/// One that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingView {
    /// By which it is taken out; no other of its pool has it.
    pub id: u64,
    /// `X-Request-Id`.
    pub request_id: String,
    /// Who sent it.
    pub client: String,
    /// How urgent it is.
    pub class: Class,
    /// What routed it.
    pub route: String,
    /// Its method.
    pub method: String,
    /// Its path, without the query.
    pub path: String,
    /// It failed before.
    pub again: bool,
    /// How long it has been waiting.
    pub waited: Duration,
    /// How long it will at most.
    pub left: Duration,
}

/// How a pool spreads its attempts.
#[derive(Debug, Clone, PartialEq)]
pub struct BalanceView {
    /// The pool.
    pub pool: String,
    /// By which rule, as the file says it.
    pub rule: &'static str,
    /// How many wait.
    pub waiting: usize,
    /// Over whom.
    pub members: Vec<MemberView>,
}

/// A provider as a member of a pool.
#[derive(Debug, Clone, PartialEq)]
pub struct MemberView {
    /// Its share in proportion to the others'.
    pub weight: u32,
    /// It is for when no other has room.
    pub backup: bool,
    /// The provider, with its attempts for all pools.
    pub provider: ProviderView,
}

/// Who tried again, who did not, and what is left to spend on it.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryView {
    /// Attempts so far at all providers: first tries, retries, hedges.
    pub attempts: [u64; 3],
    /// What those came to, at what an attempt costs now; `None` where no provider has a cost.
    pub costs: Option<[f64; 3]>,
    /// By route: retries by how the attempt before ended, and those not made by why.
    pub routes: Vec<(String, Counts, Counts)>,
    /// By pool: how many retries it could afford now, by the terms of the first route that names it; `None` where none
    /// does.
    pub budgets: Vec<(String, Option<f64>)>,
}

/// What is kept of answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheView {
    /// Replies.
    pub entries: u64,
    /// Bytes they take.
    pub bytes: u64,
    /// Bytes of those that are coming in.
    pub arriving_bytes: u64,
    /// Bytes there may be of both.
    pub capacity: u64,
    /// Replies that are being brought for all who want them.
    pub under_way: usize,
    /// Requests whose answers were not for others a moment ago.
    pub declined: usize,
    /// By route.
    pub routes: Vec<CachedRoute>,
}

/// The same for a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedRoute {
    /// Its name.
    pub route: String,
    /// Replies.
    pub entries: u64,
    /// Bytes they take.
    pub bytes: u64,
    /// Requests that were answered from them.
    pub hits: u64,
}

/// What is to be forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forget {
    /// Everything under this URL.
    Key(String),
    /// Everything under URLs that begin so.
    Prefix(String),
    /// Everything of this route.
    Route(String),
}

/// Counts by reason.
pub type Counts = Vec<(&'static str, u64)>;

/// A route that has a ladder, and when it was looked at.
#[derive(Debug, Clone)]
pub struct DegradationView {
    /// Its name.
    pub route: String,
    /// What its rungs do, the first one first.
    pub ladder: Vec<Kind>,
    /// A copy.
    pub degradation: Degradation,
    /// What its rungs have come to so far.
    pub totals: Totals,
    /// By the clock that the copy goes by.
    pub now: Instant,
    /// The same by the wall clock.
    pub at: SystemTime,
}

/// Something that Sluice depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// What it is.
    pub name: &'static str,
    /// `ok`, `unused` or `failing`.
    pub state: &'static str,
    /// What was found, for people.
    pub detail: String,
    /// How long its latest answer took.
    pub latency: Option<Duration>,
}

/// The configuration in force and the one in the file.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigStatus {
    /// In force.
    pub applied: Version,
    /// In the file.
    pub on_disk: OnDisk,
    /// From the applied one to the file's; empty where they agree or the file is wrong.
    pub diff: Vec<Value>,
}

/// A configuration in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    /// Of the file's bytes.
    pub hash: String,
    /// When it was applied.
    pub at: SystemTime,
    /// Every setting with its value, secrets redacted.
    pub effective: Value,
}

/// What the file says.
#[derive(Debug, Clone, PartialEq)]
pub struct OnDisk {
    /// Of its bytes, if it could be read.
    pub hash: Option<String>,
    /// When it was last looked at.
    pub seen_at: SystemTime,
    /// Why it cannot be applied, if it cannot.
    pub error: Option<Value>,
}

/// A reload that was applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Reloaded {
    /// Of the file's bytes.
    pub hash: String,
    /// What changed; empty where the file is as before.
    pub changes: Vec<Value>,
    /// What is worth knowing and no problem.
    pub notes: Vec<Value>,
}

/// A configuration that cannot be applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Rejected {
    /// All problems as text, with the source lines.
    pub rendered: String,
    /// The same, one value each.
    pub problems: Vec<Value>,
}
