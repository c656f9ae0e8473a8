//! What is told about a request once it is over: one line in the access log, and its route's series.

use super::frame::Request;
use super::identity::{Identity, Peer};
use crate::clock;
use crate::config::{self, Listener};
use crate::http1::head::RequestHead;
use crate::instant::Instant;
use crate::observe::access::{Access, AttemptRecord};
use crate::observe::families::UNROUTED;
use crate::observe::logs::Logs;
use crate::observe::metrics::RouteMetrics;
use crate::policy::class::Class;
use crate::policy::outcome::Outcome;
use crate::upstream::pool::Provider;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Gathers what a request comes to. Dropping it counts the request, also where its task was cancelled or panicked.
#[derive(Debug)]
pub struct Record<'a> {
    /// The final status; `None` while there is none, and for good where the client left.
    pub status: Option<u16>,
    /// Why we refused.
    pub reason: Option<&'static str>,
    /// What went wrong, for operators.
    pub error: Option<String>,
    /// What the cache did, if it was asked.
    pub cache: Option<&'static str>,
    /// The rung that answered.
    pub degraded: Option<&'static str>,
    started: Instant,
    at: SystemTime,
    /// When the last attempt ended; an answer is complete by then.
    ended: Option<Instant>,
    logged: bool,
    route: &'a str,
    series: Option<&'a RouteMetrics>,
    provider: Option<Arc<str>>,
    attempts: Vec<AttemptRecord>,
    queued: Duration,
    client: &'a str,
    class: &'static str,
}

/// What was done for a request by somebody who did it for others too.
#[derive(Debug)]
pub struct Account {
    error: Option<String>,
    degraded: Option<&'static str>,
    reason: Option<&'static str>,
    provider: Option<Arc<str>>,
    attempts: Vec<AttemptRecord>,
    queued: Duration,
}

/// What only the end of a request knows.
#[derive(Debug, Clone, Copy)]
pub struct Final<'a> {
    /// Its head.
    pub head: &'a RequestHead,
    /// The host it was routed by, if it came so far.
    pub host: &'a str,
    /// What it was called.
    pub identity: &'a Identity,
    /// Who sent it.
    pub peer: &'a Peer,
    /// The listener that took it.
    pub listener: &'a Listener,
    /// Bytes of its body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
}

// === impl Record ===

impl<'a> Record<'a> {
    /// Begins to record. `logged`: whether there will be a line in the access log.
    pub fn begin(started: Instant, logged: bool) -> Self {
        Record {
            status: None,
            reason: None,
            error: None,
            cache: None,
            degraded: None,
            started,
            at: if logged { clock::wall() } else { SystemTime::UNIX_EPOCH },
            ended: None,
            logged,
            route: UNROUTED,
            series: None,
            provider: None,
            attempts: Vec::new(),
            queued: Duration::ZERO,
            client: config::ANONYMOUS,
            class: Class::Normal.as_str(),
        }
    }

    /// The request belongs to this route (or to none, with the series of those).
    pub fn routed(&mut self, route: &'a str, series: &'a RouteMetrics) {
        self.route = route;
        self.series = Some(series);
        series.begin();
    }

    /// When the request's head was complete.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The request is this client's, and of this class.
    pub fn asked_by(&mut self, client: &'a str, class: Class) {
        self.client = client;
        self.class = class.as_str();
    }

    /// It waited so long for a provider.
    pub fn queued(&mut self, time: Duration) {
        self.queued += time;
    }

    /// Another attempt is to follow: the end of the last one was not the end.
    pub fn goes_on(&mut self) {
        self.ended = None;
    }

    /// An attempt has ended.
    pub fn attempted(&mut self, provider: &Provider, outcome: Outcome, took: Duration, now: Instant) {
        self.ended = Some(now);
        if self.logged {
            self.provider = Some(Arc::clone(&provider.name));
            self.attempts.push(AttemptRecord { provider: Arc::clone(&provider.name), outcome, seconds: took });
        }
    }

    /// What was noted of attempts, for whoever had them made.
    pub fn account(&mut self) -> Account {
        Account {
            error: self.error.take(),
            degraded: self.degraded,
            reason: self.reason,
            provider: self.provider.take(),
            attempts: std::mem::take(&mut self.attempts),
            queued: self.queued,
        }
    }

    /// Takes that over. The request goes on until its client has its answer.
    pub fn enter(&mut self, account: Account) {
        self.ended = None;
        self.error = account.error.or(self.error.take());
        self.degraded = self.degraded.or(account.degraded);
        self.reason = self.reason.or(account.reason);
        self.provider = account.provider.or(self.provider.take());
        self.attempts.extend(account.attempts);
        self.queued += account.queued;
    }

    fn took(&self) -> Duration {
        self.ended.unwrap_or_else(clock::now).saturating_duration_since(self.started)
    }

    /// Writes the access log's line.
    pub fn log(&self, logs: &Logs, last: &Final<'_>) {
        if !self.logged {
            return;
        }
        let path = last.head.target().split(|byte| *byte == b'?').next().unwrap_or(b"");
        logs.access(&Access {
            at: self.at,
            request_id: last.identity.request_id_text(),
            trace_id: last.identity.trace_id_text(),
            client: self.client,
            client_address: last.peer.client_address(&last.head.fields, &last.listener.trusted_proxies),
            class: self.class,
            listener: &last.listener.name,
            route: self.route,
            method: last.head.method(),
            host: last.host,
            path: &String::from_utf8_lossy(path),
            protocol: Request::protocol(last.head.version),
            status: self.status.unwrap_or(CLIENT_GONE),
            bytes_in: last.bytes_in,
            bytes_out: last.bytes_out,
            seconds: self.took(),
            queue_seconds: self.queued,
            provider: self.provider.as_deref(),
            attempts: &self.attempts,
            cache: self.cache,
            degraded: self.degraded,
            reason: self.reason,
            // One that left while it waited had no attempt that would say so.
            error: self.error.as_deref().or_else(|| self.status.is_none().then_some(GONE)),
        });
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        if let Some(series) = self.series {
            let status = if std::thread::panicking() { Some(500) } else { self.status };
            series.end(status, self.took());
        }
    }
}

/// What the log shows where the client left before its answer, as nginx has it.
const CLIENT_GONE: u16 = 499;

/// The same in a word.
const GONE: &str = "client_gone";
