//! Counting, without a label lookup on the way of a request.
//!
//! A label is looked up once, when a configuration is built: [`Metrics::route`] and its siblings return handles that
//! hold the resolved series, and a request only adds to atomics, those of each request to its worker's own. The same name
//! always gives the same handle, so counts survive a reload; [`Metrics::retain`] removes the series of names that are gone, so
//! the label sets stay as large as the configuration. What an old request still reports through a removed handle goes nowhere,
//! which is right: its series has been withdrawn.

use super::exposition::{self, Exposition};
use super::families::{self, CACHE_RESULTS, Family, LIMIT_KINDS, SECONDS, SHED_REASONS, STATUS_CLASSES};
use super::process::ProcessCollector;
use super::tally::{Tallies, Tally};
use crate::policy::circuit;
use crate::policy::class::Class;
use crate::policy::ladder;
use crate::policy::outcome::Outcome;
use crate::policy::retry::Skip;
use prometheus::core::Collector;
use prometheus::{
    Counter, CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Every metric of one gateway, in a registry of its own, so that tests may run many gateways in one process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Tallies<{ STATUS_CLASSES.len() }>,
    attempts: Tallies<{ Outcome::ALL.len() }>,
    request_queue: HistogramVec,
    queue_depth: IntGaugeVec,
    queue_capacity: IntGaugeVec,
    queue_shed: IntCounterVec,
    circuit_state: IntGaugeVec,
    circuit_transitions: IntCounterVec,
    cooldown: GaugeVec,
    provider_healthy: IntGaugeVec,
    provider_limit: GaugeVec,
    retries: IntCounterVec,
    retries_skipped: IntCounterVec,
    retry_budget: GaugeVec,
    cost: CounterVec,
    degraded: IntGaugeVec,
    degraded_responses: IntCounterVec,
    cache_requests: IntCounterVec,
    cache_bytes: IntGauge,
    connections: IntGaugeVec,
    connections_refused: IntCounterVec,
    tls_handshakes: IntCounterVec,
    tls_certificate_expiry: IntGaugeVec,
    panics: IntCounter,
    reload_successful: IntGauge,
    reload_success_time: Gauge,
    log_lines_dropped: IntCounter,
    open_files_limit: IntGauge,
    workers: IntGauge,
    // A std mutex: touched when a configuration is built and when a connection opens, never per request.
    resolved: Mutex<Resolved>,
}

/// The handles given out so far, by name: what `retain` compares with.
#[derive(Debug, Default)]
struct Resolved {
    routes: HashMap<Box<str>, RouteMetrics>,
    providers: HashMap<Box<str>, ProviderMetrics>,
    pools: HashMap<Box<str>, PoolMetrics>,
    listeners: HashMap<Box<str>, ListenerMetrics>,
}

/// The series of one route.
#[derive(Debug, Clone)]
pub struct RouteMetrics(Arc<RouteSeries>);

#[derive(Debug)]
struct RouteSeries {
    name: Box<str>,
    requests: Arc<Tally<{ STATUS_CLASSES.len() }>>,
    retries: IntCounterVec,
    // Reasons seen so far: a handful, all written in our source.
    by_reason: Mutex<Vec<(&'static str, IntCounter)>>,
    by_skip: [IntCounter; Skip::ALL.len()],
    degraded: IntGauge,
    by_rung: [IntCounter; ladder::Kind::ALL.len()],
    cost: CounterVec,
    cache_requests: IntCounterVec,
    // Only of routes that keep answers.
    by_cache: OnceLock<[IntCounter; CACHE_RESULTS.len()]>,
    // By provider, of those that cost something and were tried.
    costs: Mutex<Vec<(Box<str>, Counter)>>,
    /// A reload removed its name: nothing is to appear under it any more. Looked at under the locks above.
    withdrawn: AtomicBool,
}

/// The series of one provider.
#[derive(Debug, Clone)]
pub struct ProviderMetrics(Arc<ProviderSeries>);

#[derive(Debug)]
struct ProviderSeries {
    name: Box<str>,
    attempts: Arc<Tally<{ Outcome::ALL.len() }>>,
    by_state: [IntGauge; circuit::State::ALL.len()],
    transitions: [IntCounter; circuit::State::ALL.len()],
    cooldown: Gauge,
    healthy: IntGauge,
    limits: GaugeVec,
    /// A reload removed its name.
    withdrawn: AtomicBool,
}

/// What a provider is like now; asked for when the metrics are read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProviderFigures {
    /// Where its circuit stands.
    pub circuit: circuit::State,
    /// How often it became so, in the order of [`circuit::State::ALL`].
    pub entered: [u64; 3],
    /// For how long it is still left alone.
    pub cooldown: Duration,
    /// What its checks say.
    pub healthy: bool,
    /// Attempts at once.
    pub concurrency: u32,
    /// Attempts a second.
    pub rate: Option<f64>,
}

/// The series of one pool.
#[derive(Debug, Clone)]
pub struct PoolMetrics(Arc<PoolSeries>);

#[derive(Debug)]
struct PoolSeries {
    name: Box<str>,
    queued: [Histogram; Class::ALL.len()],
    depth: [IntGauge; Class::ALL.len()],
    shed: [[IntCounter; SHED_REASONS.len()]; Class::ALL.len()],
    capacity: IntGauge,
    budget: GaugeVec,
    /// A reload removed its name.
    withdrawn: AtomicBool,
}

/// The series of one listener.
#[derive(Debug, Clone)]
pub struct ListenerMetrics(Arc<ListenerSeries>);

#[derive(Debug)]
struct ListenerSeries {
    name: Box<str>,
    connections: IntGaugeVec,
    by_reason: [IntCounter; ConnectionRefused::ALL.len()],
    // Protocols seen so far: a handful, all written in our source.
    by_protocol: Mutex<Vec<(&'static str, IntGauge)>>,
    tls_handshakes: IntCounterVec,
    // Results seen so far: also few, also ours.
    by_result: Mutex<Vec<(&'static str, IntCounter)>>,
    tls_certificate_expiry: IntGaugeVec,
    // Labels of the certificates shown now.
    certificates: Mutex<Vec<Box<str>>>,
}

/// Why a client's connection is closed before its first request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionRefused {
    /// `limits.connections_per_address` are open from its address.
    PerAddress,
    /// It had to begin with a PROXY header and did not.
    ProxyHeader,
}

// === impl ConnectionRefused ===

impl ConnectionRefused {
    /// All of them.
    pub const ALL: [ConnectionRefused; 2] = [ConnectionRefused::PerAddress, ConnectionRefused::ProxyHeader];

    /// As the label `reason` shows it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ConnectionRefused::PerAddress => "connections_per_address",
            ConnectionRefused::ProxyHeader => "proxy_header",
        }
    }
}

// === impl Metrics ===

impl Metrics {
    /// All families, registered and at zero.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let metrics = Metrics {
            requests: register(
                &registry,
                Tallies::new(
                    families::REQUESTS,
                    families::REQUEST_DURATION,
                    families::REQUESTS_IN_FLIGHT,
                    STATUS_CLASSES,
                ),
            ),
            attempts: register(
                &registry,
                Tallies::new(
                    families::ATTEMPTS,
                    families::ATTEMPT_DURATION,
                    families::IN_FLIGHT,
                    Outcome::ALL.map(Outcome::as_str),
                ),
            ),
            request_queue: histograms(&registry, families::REQUEST_QUEUE),
            queue_depth: gauges(&registry, families::QUEUE_DEPTH),
            queue_capacity: gauges(&registry, families::QUEUE_CAPACITY),
            queue_shed: counters(&registry, families::QUEUE_SHED),
            circuit_state: gauges(&registry, families::CIRCUIT_STATE),
            circuit_transitions: counters(&registry, families::CIRCUIT_TRANSITIONS),
            cooldown: float_gauges(&registry, families::COOLDOWN),
            provider_healthy: gauges(&registry, families::PROVIDER_HEALTHY),
            provider_limit: float_gauges(&registry, families::PROVIDER_LIMIT),
            retries: counters(&registry, families::RETRIES),
            retries_skipped: counters(&registry, families::RETRIES_SKIPPED),
            retry_budget: float_gauges(&registry, families::RETRY_BUDGET),
            cost: float_counters(&registry, families::COST),
            degraded: gauges(&registry, families::DEGRADED),
            degraded_responses: counters(&registry, families::DEGRADED_RESPONSES),
            cache_requests: counters(&registry, families::CACHE_REQUESTS),
            cache_bytes: gauge(&registry, families::CACHE_BYTES),
            connections: gauges(&registry, families::CONNECTIONS),
            connections_refused: counters(&registry, families::CONNECTIONS_REFUSED),
            tls_handshakes: counters(&registry, families::TLS_HANDSHAKES),
            tls_certificate_expiry: gauges(&registry, families::TLS_CERTIFICATE_EXPIRY),
            panics: counter(&registry, families::PANICS),
            reload_successful: gauge(&registry, families::RELOAD_SUCCESSFUL),
            reload_success_time: float_gauge(&registry, families::RELOAD_SUCCESS_TIME),
            log_lines_dropped: counter(&registry, families::LOG_LINES_DROPPED),
            open_files_limit: gauge(&registry, families::OPEN_FILES_LIMIT),
            workers: gauge(&registry, families::WORKERS),
            resolved: Mutex::default(),
            registry,
        };
        gauges(&metrics.registry, families::BUILD_INFO).with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        register(&metrics.registry, ProcessCollector::new());
        // It is there from the start, like those of configured routes.
        let _ = metrics.route(families::UNROUTED);
        metrics
    }

    /// The handle of the route `name`; [`families::UNROUTED`] is the one for requests that no route took.
    #[must_use = "resolving is the costly part: keep the handle"]
    pub fn route(&self, name: &str) -> RouteMetrics {
        self.resolved().routes.entry(name.into()).or_insert_with(|| self.resolve_route(name)).clone()
    }

    /// The handle of the provider `name`.
    #[must_use = "resolving is the costly part: keep the handle"]
    pub fn provider(&self, name: &str) -> ProviderMetrics {
        self.resolved().providers.entry(name.into()).or_insert_with(|| self.resolve_provider(name)).clone()
    }

    /// The handle of the pool `name`.
    #[must_use = "resolving is the costly part: keep the handle"]
    pub fn pool(&self, name: &str) -> PoolMetrics {
        self.resolved().pools.entry(name.into()).or_insert_with(|| self.resolve_pool(name)).clone()
    }

    /// The handle of the listener `name`.
    #[must_use = "resolving is the costly part: keep the handle"]
    pub fn listener(&self, name: &str) -> ListenerMetrics {
        self.resolved().listeners.entry(name.into()).or_insert_with(|| self.resolve_listener(name)).clone()
    }

    /// Removes the series of every name not listed, after a reload. Name a listener until its last connection closed.
    pub fn retain(&self, routes: &[&str], providers: &[&str], pools: &[&str], listeners: &[&str]) {
        let mut resolved = self.resolved();
        for (name, route) in remove_absent(&mut resolved.routes, routes, Some(families::UNROUTED)) {
            self.remove_route(&name, &route);
        }
        for (name, provider) in remove_absent(&mut resolved.providers, providers, None) {
            provider.0.withdrawn.store(true, Ordering::SeqCst);
            self.remove_provider(&name);
            for route in resolved.routes.values() {
                locked(&route.0.costs).retain(|(provider, _)| *provider != name);
                let _ = self.cost.remove_label_values(&[&*route.0.name, &*name]);
            }
        }
        for (name, pool) in remove_absent(&mut resolved.pools, pools, None) {
            pool.0.withdrawn.store(true, Ordering::SeqCst);
            self.remove_pool(&name);
        }
        let gone: Vec<_> = resolved.listeners.extract_if(|name, _| !listeners.contains(&&**name)).collect();
        for (name, listener) in gone {
            // Only a series that is not there can fail to be removed.
            for (protocol, _) in locked(&listener.0.by_protocol).iter() {
                let _ = self.connections.remove_label_values(&[&*name, protocol]);
            }
            for reason in ConnectionRefused::ALL {
                let _ = self.connections_refused.remove_label_values(&[&*name, reason.as_str()]);
            }
            for (result, _) in locked(&listener.0.by_result).iter() {
                let _ = self.tls_handshakes.remove_label_values(&[&*name, result]);
            }
            listener.certificates(&[]);
        }
    }

    /// A panic was contained.
    pub fn panicked(&self) {
        self.panics.inc();
    }

    /// A log line was dropped.
    pub fn log_line_dropped(&self) {
        self.log_lines_dropped.inc();
    }

    /// Several log lines were dropped.
    pub fn log_lines_dropped(&self, lines: u64) {
        self.log_lines_dropped.inc_by(lines);
    }

    /// A configuration was applied (also the first one) or rejected, at `at`.
    pub fn reloaded(&self, ok: bool, at: SystemTime) {
        self.reload_successful.set(i64::from(ok));
        if ok {
            let since_1970 = at.duration_since(UNIX_EPOCH).unwrap_or_default();
            self.reload_success_time.set(since_1970.as_secs_f64());
        }
    }

    /// How many workers serve requests.
    pub fn set_workers(&self, n: usize) {
        self.workers.set(i64::try_from(n).unwrap_or(i64::MAX));
    }

    /// Bytes that kept replies take.
    pub fn set_cache_bytes(&self, n: u64) {
        self.cache_bytes.set(i64::try_from(n).unwrap_or(i64::MAX));
    }

    /// How many files the process may open; "unlimited" is shown as the largest number.
    pub fn set_open_files_limit(&self, n: u64) {
        self.open_files_limit.set(i64::try_from(n).unwrap_or(i64::MAX));
    }

    /// Everything as text, with its content type.
    #[must_use]
    pub fn render(&self, format: Exposition) -> (&'static str, String) {
        (format.content_type(), exposition::render(&self.registry.gather(), format))
    }

    fn resolved(&self) -> MutexGuard<'_, Resolved> {
        // A map of handles is whole after any panic, so a poisoned lock is still good.
        self.resolved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn resolve_route(&self, name: &str) -> RouteMetrics {
        RouteMetrics(Arc::new(RouteSeries {
            name: name.into(),
            requests: self.requests.of(name),
            retries: self.retries.clone(),
            by_reason: Mutex::default(),
            by_skip: Skip::ALL.map(|skip| self.retries_skipped.with_label_values(&[name, skip.as_str()])),
            degraded: self.degraded.with_label_values(&[name]),
            by_rung: ladder::Kind::ALL.map(|rung| self.degraded_responses.with_label_values(&[name, rung.as_str()])),
            cost: self.cost.clone(),
            cache_requests: self.cache_requests.clone(),
            by_cache: OnceLock::new(),
            costs: Mutex::default(),
            withdrawn: AtomicBool::new(false),
        }))
    }

    fn resolve_provider(&self, name: &str) -> ProviderMetrics {
        use circuit::State;
        ProviderMetrics(Arc::new(ProviderSeries {
            name: name.into(),
            attempts: self.attempts.of(name),
            by_state: State::ALL.map(|state| self.circuit_state.with_label_values(&[name, state.as_str()])),
            transitions: State::ALL.map(|to| self.circuit_transitions.with_label_values(&[name, to.as_str()])),
            cooldown: self.cooldown.with_label_values(&[name]),
            healthy: self.provider_healthy.with_label_values(&[name]),
            limits: self.provider_limit.clone(),
            withdrawn: AtomicBool::new(false),
        }))
    }

    fn resolve_pool(&self, name: &str) -> PoolMetrics {
        let shed = |class: Class| {
            SHED_REASONS.map(|reason| self.queue_shed.with_label_values(&[name, class.as_str(), reason]))
        };
        PoolMetrics(Arc::new(PoolSeries {
            name: name.into(),
            queued: Class::ALL.map(|class| self.request_queue.with_label_values(&[name, class.as_str()])),
            depth: Class::ALL.map(|class| self.queue_depth.with_label_values(&[name, class.as_str()])),
            shed: Class::ALL.map(shed),
            capacity: self.queue_capacity.with_label_values(&[name]),
            budget: self.retry_budget.clone(),
            withdrawn: AtomicBool::new(false),
        }))
    }

    fn resolve_listener(&self, name: &str) -> ListenerMetrics {
        ListenerMetrics(Arc::new(ListenerSeries {
            name: name.into(),
            connections: self.connections.clone(),
            by_reason: ConnectionRefused::ALL
                .map(|reason| self.connections_refused.with_label_values(&[name, reason.as_str()])),
            by_protocol: Mutex::default(),
            tls_handshakes: self.tls_handshakes.clone(),
            by_result: Mutex::default(),
            tls_certificate_expiry: self.tls_certificate_expiry.clone(),
            certificates: Mutex::default(),
        }))
    }

    // Only a series that is not there can fail to be removed, here and below.
    fn remove_route(&self, name: &str, route: &RouteMetrics) {
        route.0.withdrawn.store(true, Ordering::SeqCst);
        self.requests.remove(name);
        for (reason, _) in locked(&route.0.by_reason).iter() {
            let _ = self.retries.remove_label_values(&[name, reason]);
        }
        for skip in Skip::ALL {
            let _ = self.retries_skipped.remove_label_values(&[name, skip.as_str()]);
        }
        let _ = self.degraded.remove_label_values(&[name]);
        for rung in ladder::Kind::ALL {
            let _ = self.degraded_responses.remove_label_values(&[name, rung.as_str()]);
        }
        remove_cached(&self.cache_requests, name);
        for (provider, _) in locked(&route.0.costs).iter() {
            let _ = self.cost.remove_label_values(&[name, provider]);
        }
    }

    fn remove_provider(&self, name: &str) {
        self.attempts.remove(name);
        for state in circuit::State::ALL {
            let _ = self.circuit_state.remove_label_values(&[name, state.as_str()]);
            let _ = self.circuit_transitions.remove_label_values(&[name, state.as_str()]);
        }
        let _ = self.cooldown.remove_label_values(&[name]);
        let _ = self.provider_healthy.remove_label_values(&[name]);
        for kind in LIMIT_KINDS {
            let _ = self.provider_limit.remove_label_values(&[name, kind]);
        }
    }

    fn remove_pool(&self, name: &str) {
        for class in Class::ALL.map(Class::as_str) {
            let _ = self.request_queue.remove_label_values(&[name, class]);
            let _ = self.queue_depth.remove_label_values(&[name, class]);
            for reason in SHED_REASONS {
                let _ = self.queue_shed.remove_label_values(&[name, class, reason]);
            }
        }
        let _ = self.queue_capacity.remove_label_values(&[name]);
        let _ = self.retry_budget.remove_label_values(&[name]);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}

// === impl RouteMetrics ===

impl RouteMetrics {
    /// A request began.
    #[inline]
    pub fn begin(&self) {
        self.0.requests.begin();
    }

    /// It ended with `status`, or with `None` because the client left first.
    #[inline]
    pub fn end(&self, status: Option<u16>, took: Duration) {
        self.0.requests.end(status_class(status), took);
    }

    /// Another attempt follows one that ended for this reason: a word of a short list in our source.
    pub fn retried(&self, reason: &'static str) {
        let mut known = locked(&self.0.by_reason);
        if let Some((_, counter)) = known.iter().find(|(name, _)| *name == reason) {
            return counter.inc();
        }
        if self.0.withdrawn.load(Ordering::SeqCst) {
            return;
        }
        let counter = self.0.retries.with_label_values(&[&*self.0.name, reason]);
        counter.inc();
        known.push((reason, counter));
    }

    /// None does, for this reason.
    pub fn skipped(&self, why: Skip) {
        let place = Skip::ALL.iter().position(|known| *known == why);
        if let Some(place) = place {
            self.0.by_skip[place].inc();
        }
    }

    /// A rung of the route's ladder answered.
    pub fn degraded(&self, rung: ladder::Kind) {
        self.0.by_rung[rung.index()].inc();
    }

    /// Shows whether the route is degraded now.
    pub fn show_degraded(&self, degraded: bool) {
        self.0.degraded.set(i64::from(degraded));
    }

    /// What a cache did for a request, by a word of [`CACHE_RESULTS`].
    pub fn cached(&self, result: &'static str) {
        let (name, counters) = (&*self.0.name, &self.0.cache_requests);
        let known = self.0.by_cache.get_or_init(|| {
            let known = CACHE_RESULTS.map(|one| counters.with_label_values(&[name, one]));
            // Whoever removed the name before did not find these.
            if self.0.withdrawn.load(Ordering::SeqCst) {
                remove_cached(counters, name);
            }
            known
        });
        if let Some(place) = CACHE_RESULTS.iter().position(|one| *one == result) {
            known[place].inc();
        }
    }

    /// An attempt at `provider` cost so much.
    pub fn spent(&self, provider: &ProviderMetrics, cost: f64) {
        let provider = &provider.0;
        let mut known = locked(&self.0.costs);
        if let Some((_, counter)) = known.iter().find(|(name, _)| *name == provider.name) {
            return counter.inc_by(cost);
        }
        if self.0.withdrawn.load(Ordering::SeqCst) || provider.withdrawn.load(Ordering::SeqCst) {
            return;
        }
        let counter = self.0.cost.with_label_values(&[&*self.0.name, &*provider.name]);
        counter.inc_by(cost);
        known.push((provider.name.clone(), counter));
    }

    /// Retries so far, by reason.
    #[must_use]
    pub fn retries(&self) -> Vec<(&'static str, u64)> {
        locked(&self.0.by_reason).iter().map(|(reason, counter)| (*reason, counter.get())).collect()
    }

    /// Retries that were not made so far, by reason.
    #[must_use]
    pub fn skips(&self) -> Vec<(&'static str, u64)> {
        Skip::ALL.iter().zip(&self.0.by_skip).map(|(skip, counter)| (skip.as_str(), counter.get())).collect()
    }
}

// === impl ProviderMetrics ===

impl ProviderMetrics {
    /// An attempt began.
    #[inline]
    pub fn begin(&self) {
        self.0.attempts.begin();
    }

    /// It ended.
    #[inline]
    pub fn end(&self, outcome: Outcome, took: Duration) {
        self.0.attempts.end(outcome_index(outcome), took);
    }

    /// Attempts under way now.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.0.attempts.under_way()
    }

    /// Shows what it is like now.
    pub fn show(&self, figures: &ProviderFigures) {
        let series = &*self.0;
        if series.withdrawn.load(Ordering::SeqCst) {
            return;
        }
        for (state, gauge) in circuit::State::ALL.into_iter().zip(&series.by_state) {
            gauge.set(i64::from(state == figures.circuit));
        }
        for (entered, counter) in figures.entered.into_iter().zip(&series.transitions) {
            counter.inc_by(entered.saturating_sub(counter.get()));
        }
        series.cooldown.set(figures.cooldown.as_secs_f64());
        series.healthy.set(i64::from(figures.healthy));
        for (kind, limit) in LIMIT_KINDS.into_iter().zip([Some(f64::from(figures.concurrency)), figures.rate]) {
            match limit {
                Some(limit) => series.limits.with_label_values(&[&*series.name, kind]).set(limit),
                // There may have been one before.
                None => drop(series.limits.remove_label_values(&[&*series.name, kind])),
            }
        }
    }
}

// === impl PoolMetrics ===

impl PoolMetrics {
    /// A request got a lease after so long.
    #[inline]
    pub fn leased(&self, class: Class, queued: Duration) {
        self.0.queued[class.index()].observe(queued.as_secs_f64());
    }

    /// A request got none, for a reason that is one of [`SHED_REASONS`].
    pub fn shed(&self, class: Class, reason: &'static str) {
        let place = SHED_REASONS.iter().position(|known| *known == reason);
        if let Some(place) = place {
            self.0.shed[class.index()][place].inc();
        }
    }

    /// Shows what it is like now: who waits by class, how many may, and how many retries it can afford where it has a
    /// budget.
    pub fn show(&self, depth: [usize; 3], capacity: usize, budget: Option<f64>) {
        if self.0.withdrawn.load(Ordering::SeqCst) {
            return;
        }
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        for (depth, gauge) in depth.into_iter().zip(&self.0.depth) {
            gauge.set(count(depth));
        }
        self.0.capacity.set(count(capacity));
        match budget {
            Some(budget) => self.0.budget.with_label_values(&[&*self.0.name]).set(budget),
            // There may have been one before.
            None => drop(self.0.budget.remove_label_values(&[&*self.0.name])),
        }
    }

    /// Leases given so far.
    #[must_use]
    pub fn dispatched(&self) -> u64 {
        self.0.queued.iter().map(Histogram::get_sample_count).sum()
    }

    /// Requests that got none so far, by reason.
    #[must_use]
    pub fn sheds(&self) -> Vec<(&'static str, u64)> {
        let of = |place: usize| self.0.shed.iter().map(|by_reason| by_reason[place].get()).sum();
        SHED_REASONS.into_iter().enumerate().map(|(place, reason)| (reason, of(place))).collect()
    }
}

// === impl ListenerMetrics ===

impl ListenerMetrics {
    /// A connection that speaks `protocol` opened.
    pub fn opened(&self, protocol: &'static str) {
        self.0.gauge(protocol).inc();
    }

    /// A connection that was `opened` with the same `protocol` closed.
    pub fn closed(&self, protocol: &'static str) {
        self.0.gauge(protocol).dec();
    }

    /// A connection was closed before its first request.
    pub fn refused(&self, reason: ConnectionRefused) {
        let place = ConnectionRefused::ALL.iter().position(|known| *known == reason);
        if let Some(place) = place {
            self.0.by_reason[place].inc();
        }
    }

    /// A handshake ended like this.
    pub fn handshake(&self, result: &'static str) {
        let mut known = locked(&self.0.by_result);
        if let Some((_, counter)) = known.iter().find(|(name, _)| *name == result) {
            return counter.inc();
        }
        let counter = self.0.tls_handshakes.with_label_values(&[&*self.0.name, result]);
        counter.inc();
        known.push((result, counter));
    }

    /// These are its certificates now, and when they end; those shown before are not any more.
    pub fn certificates(&self, certificates: &[(&str, SystemTime)]) {
        let mut shown = locked(&self.0.certificates);
        for label in shown.drain(..) {
            // Only a series that is not there can fail to be removed.
            let _ = self.0.tls_certificate_expiry.remove_label_values(&[&*self.0.name, &*label]);
        }
        for (label, ends) in certificates {
            let seconds = ends.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let gauge = self.0.tls_certificate_expiry.with_label_values(&[&*self.0.name, label]);
            gauge.set(i64::try_from(seconds).unwrap_or(i64::MAX));
            shown.push((*label).into());
        }
    }
}

impl ListenerSeries {
    fn gauge(&self, protocol: &'static str) -> IntGauge {
        let mut known = locked(&self.by_protocol);
        if let Some((_, gauge)) = known.iter().find(|(name, _)| *name == protocol) {
            return gauge.clone();
        }
        let gauge = self.connections.with_label_values(&[&*self.name, protocol]);
        known.push((protocol, gauge.clone()));
        gauge
    }
}

/// Lists of handles are whole after any panic, so a poisoned lock is still good.
fn locked<T>(list: &Mutex<T>) -> MutexGuard<'_, T> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The index into [`STATUS_CLASSES`]. A status outside 100 to 599 can only be our defect and counts as 5xx; 499 is
/// what the access log calls a client that left.
fn status_class(status: Option<u16>) -> usize {
    match status {
        None | Some(499) => 5,
        Some(100..=199) => 0,
        Some(200..=299) => 1,
        Some(300..=399) => 2,
        Some(400..=498) => 3,
        Some(_) => 4,
    }
}

/// The index into [`Outcome::ALL`].
fn outcome_index(outcome: Outcome) -> usize {
    match outcome {
        Outcome::Success => 0,
        Outcome::Failure => 1,
        Outcome::Rejected => 2,
        Outcome::ClientGone => 3,
        Outcome::LocalRefusal => 4,
    }
}

/// Takes out of `map` what is neither in `keep` nor `always`.
fn remove_absent<T>(map: &mut HashMap<Box<str>, T>, keep: &[&str], always: Option<&str>) -> Vec<(Box<str>, T)> {
    let keep: std::collections::HashSet<&str> = keep.iter().copied().chain(always).collect();
    map.extract_if(|name, _| !keep.contains(&**name)).collect()
}

const VALID: &str = "the table's families are valid and unique, which `every_family_of_the_table_is_shown` tests";

fn counters(registry: &Registry, family: Family) -> IntCounterVec {
    register(registry, IntCounterVec::new(Opts::new(family.name, family.help), family.labels).expect(VALID))
}

fn gauges(registry: &Registry, family: Family) -> IntGaugeVec {
    register(registry, IntGaugeVec::new(Opts::new(family.name, family.help), family.labels).expect(VALID))
}

fn float_counters(registry: &Registry, family: Family) -> CounterVec {
    register(registry, CounterVec::new(Opts::new(family.name, family.help), family.labels).expect(VALID))
}

fn float_gauges(registry: &Registry, family: Family) -> GaugeVec {
    register(registry, GaugeVec::new(Opts::new(family.name, family.help), family.labels).expect(VALID))
}

fn histograms(registry: &Registry, family: Family) -> HistogramVec {
    let options = HistogramOpts::new(family.name, family.help).buckets(SECONDS.to_vec());
    register(registry, HistogramVec::new(options, family.labels).expect(VALID))
}

fn counter(registry: &Registry, family: Family) -> IntCounter {
    register(registry, IntCounter::new(family.name, family.help).expect(VALID))
}

fn gauge(registry: &Registry, family: Family) -> IntGauge {
    register(registry, IntGauge::new(family.name, family.help).expect(VALID))
}

fn float_gauge(registry: &Registry, family: Family) -> Gauge {
    register(registry, Gauge::new(family.name, family.help).expect(VALID))
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> C {
    registry.register(Box::new(collector.clone())).expect(VALID);
    collector
}

/// Takes a route's series of `sluice_cache_requests_total` away.
fn remove_cached(counters: &IntCounterVec, name: &str) {
    for result in CACHE_RESULTS {
        let _ = counters.remove_label_values(&[name, result]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn page(metrics: &Metrics) -> String {
        metrics.render(Exposition::Prometheus).1
    }

    fn has(metrics: &Metrics, line: &str) -> bool {
        page(metrics).lines().any(|shown| shown == line)
    }

    #[track_caller]
    fn assert_shows(metrics: &Metrics, lines: &[&str]) {
        for line in lines {
            assert!(has(metrics, line), "no line {line:?} in:\n{}", page(metrics));
        }
    }

    #[test]
    fn every_family_of_the_table_is_shown_and_no_other() {
        let metrics = Metrics::new();
        metrics.listener("web").opened("http1");
        metrics.listener("web").handshake("full");
        metrics.listener("web").certificates(&[("example.com", UNIX_EPOCH)]);
        metrics.provider("alpha").show(&figures());
        metrics.route("api").retried("503");
        metrics.route("api").cached("hit");
        metrics.route("api").spent(&metrics.provider("alpha"), 1.0);
        metrics.pool("main").show([0; 3], 0, Some(1.0));
        let page = page(&metrics);
        let shown: BTreeSet<&str> = page.lines().filter(|line| line.starts_with("# HELP")).collect();
        let table: BTreeSet<String> =
            families::ALL.iter().map(|family| format!("# HELP {} {}", family.name, family.help)).collect();
        assert_eq!(shown, table.iter().map(String::as_str).collect());
    }

    #[test]
    fn a_request_is_counted_by_route_and_class_of_its_status() {
        let metrics = Metrics::new();
        let route = metrics.route("api");
        for status in [Some(101), Some(204), Some(302), Some(404), Some(503), Some(499), None] {
            route.begin();
            route.end(status, Duration::from_millis(3));
        }
        route.begin();
        for (class, count) in [("1xx", 1), ("2xx", 1), ("3xx", 1), ("4xx", 1), ("5xx", 1), ("gone", 2)] {
            let line = format!("sluice_requests_total{{route=\"api\",status_class=\"{class}\"}} {count}");
            assert_shows(&metrics, &[&line]);
        }
        assert_shows(
            &metrics,
            &[
                "sluice_requests_in_flight{route=\"api\"} 1",
                "sluice_request_duration_seconds_bucket{route=\"api\",le=\"0.0025\"} 0",
                "sluice_request_duration_seconds_bucket{route=\"api\",le=\"0.005\"} 7",
                "sluice_request_duration_seconds_bucket{route=\"api\",le=\"+Inf\"} 7",
                "sluice_request_duration_seconds_count{route=\"api\"} 7",
                "sluice_requests_total{route=\"none\",status_class=\"4xx\"} 0",
            ],
        );
    }

    #[test]
    fn an_attempt_is_counted_by_provider_and_outcome() {
        let metrics = Metrics::new();
        let provider = metrics.provider("alpha");
        for outcome in Outcome::ALL {
            provider.begin();
            provider.end(outcome, Duration::from_secs(2));
        }
        provider.begin();
        assert_eq!(provider.in_flight(), 1);
        for outcome in Outcome::ALL {
            let name = outcome.as_str();
            let line = format!("sluice_attempts_total{{provider=\"alpha\",outcome=\"{name}\"}} 1");
            let sorted = format!("sluice_attempts_total{{outcome=\"{name}\",provider=\"alpha\"}} 1");
            assert!(has(&metrics, &line) || has(&metrics, &sorted), "{}", page(&metrics));
        }
        assert_shows(
            &metrics,
            &["sluice_in_flight{provider=\"alpha\"} 1", "sluice_attempt_duration_seconds_sum{provider=\"alpha\"} 10"],
        );
    }

    fn figures() -> ProviderFigures {
        ProviderFigures {
            circuit: circuit::State::Open,
            entered: [1, 2, 1],
            cooldown: Duration::from_millis(1500),
            healthy: false,
            concurrency: 64,
            rate: Some(0.5),
        }
    }

    #[test]
    fn a_provider_is_shown_as_it_is_now() {
        let metrics = Metrics::new();
        let alpha = metrics.provider("alpha");
        alpha.show(&figures());
        alpha.show(&figures());
        assert_shows(
            &metrics,
            &[
                "sluice_circuit_state{provider=\"alpha\",state=\"open\"} 1",
                "sluice_circuit_state{provider=\"alpha\",state=\"closed\"} 0",
                "sluice_circuit_transitions_total{provider=\"alpha\",to=\"open\"} 2",
                "sluice_circuit_transitions_total{provider=\"alpha\",to=\"half_open\"} 1",
                "sluice_cooldown_seconds{provider=\"alpha\"} 1.5",
                "sluice_provider_healthy{provider=\"alpha\"} 0",
                "sluice_provider_limit{kind=\"concurrency\",provider=\"alpha\"} 64",
                "sluice_provider_limit{kind=\"rate\",provider=\"alpha\"} 0.5",
            ],
        );
        alpha.show(&ProviderFigures { circuit: circuit::State::Closed, entered: [2, 2, 2], rate: None, ..figures() });
        assert!(!page(&metrics).contains("kind=\"rate\""), "it has no rate any more");
        assert_shows(
            &metrics,
            &[
                "sluice_circuit_state{provider=\"alpha\",state=\"open\"} 0",
                "sluice_circuit_state{provider=\"alpha\",state=\"closed\"} 1",
                "sluice_circuit_transitions_total{provider=\"alpha\",to=\"closed\"} 2",
            ],
        );
    }

    #[test]
    fn a_pool_counts_who_got_a_lease_and_who_did_not() {
        let metrics = Metrics::new();
        let pool = metrics.pool("main");
        pool.leased(Class::High, Duration::ZERO);
        pool.leased(Class::Low, Duration::from_secs(2));
        pool.shed(Class::Low, "queue_full");
        pool.shed(Class::Normal, "queue_full");
        pool.shed(Class::Normal, "cancelled");
        pool.show([1, 2, 3], 1000, Some(7.5));
        assert_eq!(pool.dispatched(), 2);
        let sheds = [("queue_full", 2), ("queue_timeout", 0), ("no_provider", 0), ("buffers", 0), ("cancelled", 1)];
        assert_eq!(pool.sheds(), sheds);
        assert_shows(
            &metrics,
            &[
                "sluice_request_queue_seconds_sum{class=\"low\",pool=\"main\"} 2",
                "sluice_queue_depth{class=\"low\",pool=\"main\"} 3",
                "sluice_queue_capacity{pool=\"main\"} 1000",
                "sluice_retry_budget_remaining{pool=\"main\"} 7.5",
                "sluice_queue_shed_total{class=\"normal\",pool=\"main\",reason=\"cancelled\"} 1",
                "sluice_queue_shed_total{class=\"high\",pool=\"main\",reason=\"cancelled\"} 0",
            ],
        );
    }

    #[test]
    fn a_route_counts_its_retries_and_what_they_cost() {
        let metrics = Metrics::new();
        let route = metrics.route("api");
        route.retried("503");
        route.retried("connect");
        route.retried("503");
        route.skipped(Skip::Budget);
        let alpha = metrics.provider("alpha");
        route.spent(&alpha, 0.25);
        route.spent(&alpha, 0.5);
        assert_eq!(route.retries(), [("503", 2), ("connect", 1)]);
        assert!(route.skips().contains(&("budget", 1)));
        assert_shows(
            &metrics,
            &[
                "sluice_retries_total{reason=\"503\",route=\"api\"} 2",
                "sluice_retries_skipped_total{reason=\"budget\",route=\"api\"} 1",
                "sluice_retries_skipped_total{reason=\"deadline\",route=\"api\"} 0",
                "sluice_cost_total{provider=\"alpha\",route=\"api\"} 0.75",
            ],
        );
    }

    #[test]
    fn names_that_a_reload_kept_keep_their_counts_and_the_others_vanish() {
        let metrics = Metrics::new();
        for name in ["kept", "removed"] {
            metrics.route(name).end(Some(200), Duration::ZERO);
            metrics.provider(name).end(Outcome::Success, Duration::ZERO);
            metrics.provider(name).show(&figures());
            metrics.route(name).retried("503");
            metrics.route(name).skipped(Skip::Budget);
            metrics.route(name).cached("hit");
            metrics.route(name).spent(&metrics.provider("kept"), 2.0);
            metrics.route(name).spent(&metrics.provider("removed"), 2.0);
            metrics.pool(name).shed(Class::Low, "queue_full");
            metrics.pool(name).leased(Class::Low, Duration::ZERO);
            metrics.listener(name).opened("http1");
            metrics.listener(name).handshake("full");
            metrics.listener(name).certificates(&[("example.com", UNIX_EPOCH + Duration::from_secs(7))]);
        }
        let (stale, stale_provider) = (metrics.route("removed"), metrics.provider("removed"));
        let late = metrics.route("removed, and never cached");
        metrics.retain(&["kept"], &["kept"], &["kept"], &["kept"]);
        stale.end(Some(200), Duration::ZERO);
        stale.retried("connect");
        stale.cached("miss");
        late.cached("miss");
        stale.spent(&metrics.provider("kept"), 1.0);
        metrics.route("kept").spent(&stale_provider, 1.0);
        stale_provider.show(&figures());
        assert!(!page(&metrics).contains("removed"), "{}", page(&metrics));
        metrics.route("kept").end(Some(200), Duration::ZERO);
        assert_shows(
            &metrics,
            &[
                "sluice_requests_total{route=\"kept\",status_class=\"2xx\"} 2",
                "sluice_cost_total{provider=\"kept\",route=\"kept\"} 2",
                "sluice_retries_total{reason=\"503\",route=\"kept\"} 1",
                "sluice_cache_requests_total{result=\"hit\",route=\"kept\"} 1",
                "sluice_queue_shed_total{class=\"low\",pool=\"kept\",reason=\"queue_full\"} 1",
                "sluice_connections{listener=\"kept\",protocol=\"http1\"} 1",
                "sluice_tls_handshakes_total{listener=\"kept\",result=\"full\"} 1",
                "sluice_tls_certificate_expiry_timestamp_seconds{certificate=\"example.com\",listener=\"kept\"} 7",
                "sluice_requests_total{route=\"none\",status_class=\"2xx\"} 0",
            ],
        );
        metrics.route("removed").end(Some(200), Duration::ZERO);
        assert_shows(&metrics, &["sluice_requests_total{route=\"removed\",status_class=\"2xx\"} 1"]);
    }

    #[test]
    fn a_rejected_reload_keeps_the_time_of_the_last_good_one() {
        let metrics = Metrics::new();
        metrics.reloaded(true, UNIX_EPOCH + Duration::from_millis(1_500));
        metrics.reloaded(false, UNIX_EPOCH + Duration::from_secs(9));
        assert_shows(
            &metrics,
            &["sluice_config_last_reload_successful 0", "sluice_config_last_reload_success_timestamp_seconds 1.5"],
        );
    }

    #[test]
    fn the_process_is_described_in_plausible_figures() {
        let metrics = Metrics::new();
        let page = page(&metrics);
        let value = |name: &str| -> f64 {
            let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.expect("the family is there").parse().expect("a number")
        };
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!(value("process_open_fds") >= 3.0 && value("process_open_fds") <= value("process_max_fds"));
        assert!(value("process_threads") >= 1.0);
        assert!(value("process_cpu_seconds_total") >= 0.0);
        let now = crate::clock::wall().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
        let started = value("process_start_time_seconds");
        assert!(started <= now + 1.0 && started > now - 86_400.0, "started {started}, now {now}");
    }

    #[test]
    fn open_metrics_names_counters_without_total_and_ends_with_eof() {
        let metrics = Metrics::new();
        metrics.route("a\\\"b").end(Some(200), Duration::from_secs(1));
        let (content_type, page) = metrics.render(Exposition::OpenMetrics);
        assert_eq!(content_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
        assert!(page.ends_with("\n# EOF\n"));
        for line in [
            "# TYPE sluice_requests counter",
            "sluice_requests_total{route=\"a\\\\\\\"b\",status_class=\"2xx\"} 1",
            "sluice_request_duration_seconds_bucket{route=\"a\\\\\\\"b\",le=\"1.0\"} 1",
            "sluice_request_duration_seconds_bucket{route=\"a\\\\\\\"b\",le=\"0.5\"} 0",
            "# TYPE process_cpu_seconds counter",
        ] {
            assert!(page.lines().any(|shown| shown == line), "no {line:?} in:\n{page}");
        }
        assert!(!page.contains("_total counter"));
    }
}
