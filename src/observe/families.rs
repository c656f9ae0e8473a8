//! The one table of metric families: every name, its labels and its help text.
//!
//! Units are base units (seconds, bytes), counters end in `_total`, and every label takes its values from the
//! configuration or from a fixed list, so that no client can make a new series.

/// One metric family.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// The full name.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// Label names, in the order in which values are given.
    pub labels: &'static [&'static str],
    /// One sentence for people.
    pub help: &'static str,
}

/// What a family counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Durations in [`SECONDS`] buckets.
    Histogram,
}

// === impl Family ===

impl Family {
    const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Family { name, kind: Kind::Counter, labels, help }
    }

    const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Family { name, kind: Kind::Gauge, labels, help }
    }

    const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Family { name, kind: Kind::Histogram, labels, help }
    }
}

/// Upper bounds of the duration buckets. The two finest show what the gateway itself costs in front of a fast
/// provider; the rest spread over what slow APIs need, up to the minute after which most callers have given up.
pub const SECONDS: [f64; 18] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0,
];

/// The classes of `status_class`; the last is for clients that left first.
pub const STATUS_CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "gone"];

/// Why a request was refused instead of getting a lease: the `reason` of `sluice_queue_shed_total`.
pub const SHED_REASONS: [&str; 5] = ["queue_full", "queue_timeout", "no_provider", "buffers", "cancelled"];

/// What a cache does for a request: the `result` of `sluice_cache_requests_total`.
pub const CACHE_RESULTS: [&str; 6] = ["hit", "stale", "revalidated", "collapsed", "miss", "bypass"];

/// The `kind` of `sluice_provider_limit`.
pub(super) const LIMIT_KINDS: [&str; 2] = ["concurrency", "rate"];

/// The `route` of a request that no route took.
pub const UNROUTED: &str = "none";

#[rustfmt::skip]
mod table {
    use super::Family;

    pub(in crate::observe) const REQUESTS: Family = Family::counter("sluice_requests_total", &["route", "status_class"],
        "Requests answered, by route and class of the status; gone: the client left first.");
    pub(in crate::observe) const REQUEST_DURATION: Family = Family::histogram("sluice_request_duration_seconds", &["route"],
        "From the request's head to the end of its answer.");
    pub(in crate::observe) const REQUESTS_IN_FLIGHT: Family = Family::gauge("sluice_requests_in_flight", &["route"],
        "Requests being handled now.");
    pub(in crate::observe) const ATTEMPTS: Family = Family::counter("sluice_attempts_total", &["provider", "outcome"],
        "Attempts that ended, by provider and outcome.");
    pub(in crate::observe) const ATTEMPT_DURATION: Family = Family::histogram("sluice_attempt_duration_seconds", &["provider"],
        "From the lease to the end of an attempt.");
    pub(in crate::observe) const IN_FLIGHT: Family = Family::gauge("sluice_in_flight", &["provider"],
        "Attempts under way now.");
    pub(in crate::observe) const REQUEST_QUEUE: Family = Family::histogram("sluice_request_queue_seconds", &["pool", "class"],
        "From asking for a lease to getting one; nearly 0 where there was room.");
    pub(in crate::observe) const QUEUE_DEPTH: Family = Family::gauge("sluice_queue_depth", &["pool", "class"],
        "Requests waiting now.");
    pub(in crate::observe) const QUEUE_CAPACITY: Family = Family::gauge("sluice_queue_capacity", &["pool"],
        "Requests that may wait at once.");
    pub(in crate::observe) const QUEUE_SHED: Family = Family::counter("sluice_queue_shed_total", &["pool", "class", "reason"],
        "Requests that got no lease, by reason.");
    pub(in crate::observe) const CIRCUIT_STATE: Family = Family::gauge("sluice_circuit_state", &["provider", "state"],
        "1 for the state the circuit is in, forced or not; 0 for the others.");
    pub(in crate::observe) const CIRCUIT_TRANSITIONS: Family = Family::counter("sluice_circuit_transitions_total", &["provider", "to"],
        "How often the circuit became closed, open and half_open.");
    pub(in crate::observe) const COOLDOWN: Family = Family::gauge("sluice_cooldown_seconds", &["provider"],
        "For how long the provider is still left alone, because it asked for it.");
    pub(in crate::observe) const PROVIDER_HEALTHY: Family = Family::gauge("sluice_provider_healthy", &["provider"],
        "Whether its checks find it well (1), or it has none.");
    pub(in crate::observe) const PROVIDER_LIMIT: Family = Family::gauge("sluice_provider_limit", &["provider", "kind"],
        "What it may get: attempts at once (concurrency), attempts a second (rate, where there is one).");
    pub(in crate::observe) const RETRIES: Family = Family::counter("sluice_retries_total", &["route", "reason"],
        "Attempts after the first, by how the one before ended.");
    pub(in crate::observe) const RETRIES_SKIPPED: Family = Family::counter("sluice_retries_skipped_total", &["route", "reason"],
        "Failed attempts that no other followed, by reason.");
    pub(in crate::observe) const CACHE_REQUESTS: Family = Family::counter("sluice_cache_requests_total", &["route", "result"],
        "Requests on routes with `cache`, by what it did for them.");
    pub(in crate::observe) const CACHE_BYTES: Family = Family::gauge("sluice_cache_bytes", &[],
        "Bytes that kept replies take, those that are coming in included.");
    pub(in crate::observe) const RETRY_BUDGET: Family = Family::gauge("sluice_retry_budget_remaining", &["pool"],
        "Retries that the pool could afford now, by the budget of the first route to it.");
    pub(in crate::observe) const COST: Family = Family::counter("sluice_cost_total", &["route", "provider"],
        "What attempts at providers with a cost came to, in the operator's own unit.");
    pub(in crate::observe) const DEGRADED: Family = Family::gauge("sluice_degraded", &["route"],
        "Whether the route is degraded (1): forced, on a rung by its thresholds, or answered by its ladder of late.");
    pub(in crate::observe) const DEGRADED_RESPONSES: Family = Family::counter("sluice_degraded_responses_total", &["route", "rung"],
        "Answers of the route's ladder, by rung.");
    pub(in crate::observe) const CONNECTIONS: Family = Family::gauge("sluice_connections", &["listener", "protocol"],
        "Client connections open now.");
    pub(in crate::observe) const CONNECTIONS_REFUSED: Family = Family::counter("sluice_connections_refused_total", &["listener", "reason"],
        "Client connections closed before their first request, by reason.");
    pub(in crate::observe) const TLS_HANDSHAKES: Family = Family::counter("sluice_tls_handshakes_total", &["listener", "result"],
        "Handshakes with clients that ended: full, resumed, or why they failed.");
    pub(in crate::observe) const TLS_CERTIFICATE_EXPIRY: Family = Family::gauge("sluice_tls_certificate_expiry_timestamp_seconds", &["listener", "certificate"],
        "When a listener's certificate ends, in seconds since 1970.");
    pub(in crate::observe) const PANICS: Family = Family::counter("sluice_panics_total", &[],
        "Panics that were contained; each one is a defect worth reporting.");
    pub(in crate::observe) const RELOAD_SUCCESSFUL: Family = Family::gauge("sluice_config_last_reload_successful", &[],
        "Whether the latest reload was applied (1) or rejected (0).");
    pub(in crate::observe) const RELOAD_SUCCESS_TIME: Family = Family::gauge("sluice_config_last_reload_success_timestamp_seconds", &[],
        "When a configuration was last applied, in seconds since 1970.");
    pub(in crate::observe) const BUILD_INFO: Family = Family::gauge("sluice_build_info", &["version"],
        "Always 1; the label tells the version.");
    pub(in crate::observe) const LOG_LINES_DROPPED: Family = Family::counter("sluice_log_lines_dropped_total", &[],
        "Log lines dropped because the log could not be written fast enough.");
    pub(in crate::observe) const OPEN_FILES_LIMIT: Family = Family::gauge("sluice_open_files_limit", &[],
        "Files and sockets the process may have open, after the limit was raised at start.");
    pub(in crate::observe) const WORKERS: Family = Family::gauge("sluice_workers", &[],
        "Worker threads that serve requests.");

    pub(in crate::observe) const PROCESS_CPU: Family = Family::counter("process_cpu_seconds_total", &[],
        "User and system CPU time spent.");
    pub(in crate::observe) const PROCESS_RESIDENT: Family = Family::gauge("process_resident_memory_bytes", &[],
        "Resident memory.");
    pub(in crate::observe) const PROCESS_VIRTUAL: Family = Family::gauge("process_virtual_memory_bytes", &[],
        "Virtual memory.");
    pub(in crate::observe) const PROCESS_OPEN_FDS: Family = Family::gauge("process_open_fds", &[],
        "Open file descriptors.");
    pub(in crate::observe) const PROCESS_MAX_FDS: Family = Family::gauge("process_max_fds", &[],
        "File descriptors the process may have open.");
    pub(in crate::observe) const PROCESS_START_TIME: Family = Family::gauge("process_start_time_seconds", &[],
        "When the process started, in seconds since 1970.");
    pub(in crate::observe) const PROCESS_THREADS: Family = Family::gauge("process_threads", &[],
        "Threads of the process.");
}

pub(super) use table::*;

/// Every family, for tests and tables.
pub const ALL: &[Family] = &[
    REQUESTS,
    REQUEST_DURATION,
    REQUESTS_IN_FLIGHT,
    ATTEMPTS,
    RETRIES,
    RETRIES_SKIPPED,
    CACHE_REQUESTS,
    CACHE_BYTES,
    ATTEMPT_DURATION,
    IN_FLIGHT,
    REQUEST_QUEUE,
    QUEUE_DEPTH,
    QUEUE_CAPACITY,
    QUEUE_SHED,
    CIRCUIT_STATE,
    CIRCUIT_TRANSITIONS,
    COOLDOWN,
    PROVIDER_HEALTHY,
    PROVIDER_LIMIT,
    RETRY_BUDGET,
    COST,
    DEGRADED,
    DEGRADED_RESPONSES,
    CONNECTIONS,
    CONNECTIONS_REFUSED,
    TLS_HANDSHAKES,
    TLS_CERTIFICATE_EXPIRY,
    PANICS,
    RELOAD_SUCCESSFUL,
    RELOAD_SUCCESS_TIME,
    BUILD_INFO,
    LOG_LINES_DROPPED,
    OPEN_FILES_LIMIT,
    WORKERS,
    PROCESS_CPU,
    PROCESS_RESIDENT,
    PROCESS_VIRTUAL,
    PROCESS_OPEN_FDS,
    PROCESS_MAX_FDS,
    PROCESS_START_TIME,
    PROCESS_THREADS,
];
