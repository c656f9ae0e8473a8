//! Counting, without a label lookup on the way of a request.
//!
//! A label is looked up once, when a configuration is built: [`Metrics::route`] and its siblings return handles that
//! hold the resolved series, and a request only adds to atomics. The same name always gives the same handle, so counts
//! survive a reload; [`Metrics::retain`] removes the series of names that are gone, so the label sets stay as large as
//! the configuration. What an old request still reports through a removed handle goes nowhere, which is right: its
//! series has been withdrawn.

use super::exposition::{self, Exposition};
use super::families::{self, Family, SECONDS, STATUS_CLASSES};
use super::process::ProcessCollector;
use crate::policy::outcome::Outcome;
use crate::policy::retry::{Ended, Skip};
use prometheus::core::Collector;
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Every metric of one gateway, in a registry of its own, so that tests may run many gateways in one process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    request_duration: HistogramVec,
    requests_in_flight: IntGaugeVec,
    retries: IntCounterVec,
    retries_skipped: IntCounterVec,
    attempts: IntCounterVec,
    attempt_duration: HistogramVec,
    in_flight: IntGaugeVec,
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
    listeners: HashMap<Box<str>, ListenerMetrics>,
}

/// The series of one route.
#[derive(Debug, Clone)]
pub struct RouteMetrics(Arc<RouteSeries>);

#[derive(Debug)]
struct RouteSeries {
    retries: [IntCounter; Ended::WORDS.len()],
    retries_skipped: [IntCounter; Skip::ALL.len()],
    by_class: [IntCounter; STATUS_CLASSES.len()],
    duration: Histogram,
    in_flight: IntGauge,
}

/// The series of one provider.
#[derive(Debug, Clone)]
pub struct ProviderMetrics(Arc<ProviderSeries>);

#[derive(Debug)]
struct ProviderSeries {
    by_outcome: [IntCounter; Outcome::ALL.len()],
    duration: Histogram,
    in_flight: IntGauge,
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
            requests: counters(&registry, families::REQUESTS),
            request_duration: histograms(&registry, families::REQUEST_DURATION),
            requests_in_flight: gauges(&registry, families::REQUESTS_IN_FLIGHT),
            retries: counters(&registry, families::RETRIES),
            retries_skipped: counters(&registry, families::RETRIES_SKIPPED),
            attempts: counters(&registry, families::ATTEMPTS),
            attempt_duration: histograms(&registry, families::ATTEMPT_DURATION),
            in_flight: gauges(&registry, families::IN_FLIGHT),
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

    /// The handle of the listener `name`.
    #[must_use = "resolving is the costly part: keep the handle"]
    pub fn listener(&self, name: &str) -> ListenerMetrics {
        self.resolved().listeners.entry(name.into()).or_insert_with(|| self.resolve_listener(name)).clone()
    }

    /// Removes the series of every name not listed, after a reload. Name a listener until its last connection closed.
    pub fn retain(&self, routes: &[&str], providers: &[&str], listeners: &[&str]) {
        let mut resolved = self.resolved();
        for name in remove_absent(&mut resolved.routes, routes, Some(families::UNROUTED)) {
            self.remove_route(&name);
        }
        for name in remove_absent(&mut resolved.providers, providers, None) {
            self.remove_provider(&name);
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
            retries: Ended::WORDS.map(|reason| self.retries.with_label_values(&[name, reason])),
            retries_skipped: Skip::ALL.map(|skip| self.retries_skipped.with_label_values(&[name, skip.as_str()])),
            by_class: STATUS_CLASSES.map(|class| self.requests.with_label_values(&[name, class])),
            duration: self.request_duration.with_label_values(&[name]),
            in_flight: self.requests_in_flight.with_label_values(&[name]),
        }))
    }

    fn resolve_provider(&self, name: &str) -> ProviderMetrics {
        ProviderMetrics(Arc::new(ProviderSeries {
            by_outcome: Outcome::ALL.map(|outcome| self.attempts.with_label_values(&[name, outcome.as_str()])),
            duration: self.attempt_duration.with_label_values(&[name]),
            in_flight: self.in_flight.with_label_values(&[name]),
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
    fn remove_route(&self, name: &str) {
        for class in STATUS_CLASSES {
            let _ = self.requests.remove_label_values(&[name, class]);
        }
        for reason in Ended::WORDS {
            let _ = self.retries.remove_label_values(&[name, reason]);
        }
        for skip in Skip::ALL {
            let _ = self.retries_skipped.remove_label_values(&[name, skip.as_str()]);
        }
        let _ = self.request_duration.remove_label_values(&[name]);
        let _ = self.requests_in_flight.remove_label_values(&[name]);
    }

    fn remove_provider(&self, name: &str) {
        for outcome in Outcome::ALL {
            let _ = self.attempts.remove_label_values(&[name, outcome.as_str()]);
        }
        let _ = self.attempt_duration.remove_label_values(&[name]);
        let _ = self.in_flight.remove_label_values(&[name]);
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
        self.0.in_flight.inc();
    }

    /// An attempt is made again for this reason.
    pub fn retried(&self, reason: Ended) {
        let at = Ended::WORDS.iter().position(|word| *word == reason.as_str());
        if let Some(at) = at {
            self.0.retries[at].inc();
        }
    }

    /// An attempt is not made again for this reason.
    pub fn retry_skipped(&self, reason: Skip) {
        if let Some(at) = Skip::ALL.iter().position(|skip| *skip == reason) {
            self.0.retries_skipped[at].inc();
        }
    }

    /// It ended with `status`, or with `None` because the client left first.
    #[inline]
    pub fn end(&self, status: Option<u16>, took: Duration) {
        self.0.in_flight.dec();
        self.0.by_class[status_class(status)].inc();
        self.0.duration.observe(took.as_secs_f64());
    }
}

// === impl ProviderMetrics ===

impl ProviderMetrics {
    /// An attempt began.
    #[inline]
    pub fn begin(&self) {
        self.0.in_flight.inc();
    }

    /// It ended.
    #[inline]
    pub fn end(&self, outcome: Outcome, took: Duration) {
        self.0.in_flight.dec();
        self.0.by_outcome[outcome_index(outcome)].inc();
        self.0.duration.observe(took.as_secs_f64());
    }

    /// Attempts under way now.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        u64::try_from(self.0.in_flight.get()).unwrap_or(0)
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

/// Takes out of `map` what is neither in `keep` nor `always`, and names it.
fn remove_absent<T>(map: &mut HashMap<Box<str>, T>, keep: &[&str], always: Option<&str>) -> Vec<Box<str>> {
    let keep: std::collections::HashSet<&str> = keep.iter().copied().chain(always).collect();
    map.extract_if(|name, _| !keep.contains(&**name)).map(|(name, _)| name).collect()
}

const VALID: &str = "the table's families are valid and unique, which `every_family_of_the_table_is_shown` tests";

fn counters(registry: &Registry, family: Family) -> IntCounterVec {
    register(registry, IntCounterVec::new(Opts::new(family.name, family.help), family.labels).expect(VALID))
}

fn gauges(registry: &Registry, family: Family) -> IntGaugeVec {
    register(registry, IntGaugeVec::new(Opts::new(family.name, family.help), family.labels).expect(VALID))
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
        let _ = metrics.provider("alpha");
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

    #[test]
    fn names_that_a_reload_kept_keep_their_counts_and_the_others_vanish() {
        let metrics = Metrics::new();
        for name in ["kept", "removed"] {
            metrics.route(name).end(Some(200), Duration::ZERO);
            metrics.provider(name).end(Outcome::Success, Duration::ZERO);
            metrics.listener(name).opened("http1");
            metrics.listener(name).handshake("full");
            metrics.listener(name).certificates(&[("example.com", UNIX_EPOCH + Duration::from_secs(7))]);
        }
        let stale = metrics.route("removed");
        metrics.retain(&["kept"], &["kept"], &["kept"]);
        stale.end(Some(200), Duration::ZERO);
        assert!(!page(&metrics).contains("removed"), "{}", page(&metrics));
        metrics.route("kept").end(Some(200), Duration::ZERO);
        assert_shows(
            &metrics,
            &[
                "sluice_requests_total{route=\"kept\",status_class=\"2xx\"} 2",
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
