//! Asking providers whether they are well, beside the requests.
//!
//! Each provider that has a `health_check` has one task, whatever the number of workers: it opens a connection as requests
//! do (TLS, unix socket, HTTP/2, PROXY header), sends one GET, looks at the answer and closes the connection. A connection
//! of its own each time, because the question is also whether the provider still takes any. What it finds goes to the
//! provider's [`State`] and nowhere else: checks count neither in its circuit nor in the metrics of requests.

use super::connect::ConnectError;
use super::endpoint::Endpoint;
use super::locked;
use super::multiplex::Alone;
use super::pool::Provider;
use super::state::State;
use crate::clock;
use crate::config::{HealthCheck, HostRule};
use crate::http1::encode;
use crate::http1::framing;
use crate::http1::head::{HeadError, ResponseHead};
use crate::http2::lines;
use crate::instant::Instant;
use crate::net::io::Io;
use crate::net::wire::{HeadReadError, ReadError, Wire};
use crate::policy::health::{Health, Terms};
use bytes::Bytes;
use h2::client::SendRequest;
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::{sleep, sleep_until, timeout_at};

/// The checks of one provider. They end when this is dropped.
#[derive(Debug)]
pub struct Checks {
    plan: Arc<Plan>,
    task: AbortHandle,
}

/// Whom to ask, and what.
struct Plan {
    name: Arc<str>,
    check: HealthCheck,
    question: Question,
    endpoint: Arc<Endpoint>,
    state: Arc<State>,
    /// Nobody is to hear any more of what is found. Held while somebody does.
    over: Mutex<bool>,
}

/// A request for a provider's opinion of itself.
#[derive(PartialEq, Eq)]
struct Question {
    tls: bool,
    target: Vec<u8>,
    host: Vec<u8>,
    /// All other fields, as lines.
    fields: Vec<u8>,
}

/// What is wrong with a provider.
#[derive(Debug)]
enum Unwell {
    /// No connection to it.
    Connect(ConnectError),
    /// No whole answer in time.
    Late(Duration),
    /// An answer that says so.
    Status(u16),
    /// It went away, or what came is no answer.
    Broken(String),
}

// === impl Checks ===

impl Checks {
    /// Checks `provider` from now on; `None` where nothing says how.
    pub fn start(provider: &Provider, runtime: &Handle) -> Option<Checks> {
        let plan = Arc::new(Plan::new(provider)?);
        let task = runtime.spawn(run(Arc::clone(&plan))).abort_handle();
        Some(Checks { plan, task })
    }

    /// Whether they are what `provider` wants, and what they know holds for it.
    pub fn suit(&self, provider: &Provider) -> bool {
        let (plan, config) = (&self.plan, &provider.config);
        Arc::ptr_eq(&plan.state, &provider.state)
            && Arc::ptr_eq(&plan.endpoint, &provider.endpoint)
            && config.health_check.as_ref() == Some(&plan.check)
            && Question::new(provider, &plan.check) == plan.question
    }

    /// Ends them for good: nobody is to be asked any more, so the provider counts as well.
    pub fn forget(self, now: Instant) {
        let state = Arc::clone(&self.plan.state);
        drop(self);
        state.set_healthy(true, None, now);
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        // A task that runs at this moment goes on to its next wait, and others may know better by then.
        *locked(&self.plan.over) = true;
        self.task.abort();
    }
}

async fn run(plan: Arc<Plan>) {
    let HealthCheck { interval, timeout, healthy_after, unhealthy_after, .. } = plan.check;
    let mut health = Health::new(Terms { healthy_after, unhealthy_after }, clock::now());
    sleep(interval.min(SPREAD).mul_f64(fastrand::f64())).await;
    loop {
        let began = clock::now();
        let found = plan.ask(clock::after(began, timeout)).await;
        let now = clock::now();
        let next = clock::after(began, interval).max(now);
        let since = health.since();
        let changed = health.checked(found.is_ok(), now);
        if changed || !health.is_well() {
            let over = locked(&plan.over);
            if *over {
                return;
            }
            plan.state.set_healthy(health.is_well(), health.well_at(next, interval), now);
        }
        if changed {
            plan.tell(&found, now.saturating_duration_since(since));
        }
        sleep_until(next.into()).await;
    }
}

// === impl Plan ===

impl Plan {
    fn new(provider: &Provider) -> Option<Self> {
        let check = provider.config.health_check.clone()?;
        let question = Question::new(provider, &check);
        let (endpoint, state) = (Arc::clone(&provider.endpoint), Arc::clone(&provider.state));
        Some(Plan { name: Arc::clone(&provider.name), check, question, endpoint, state, over: Mutex::default() })
    }

    async fn ask(&self, deadline: Instant) -> Result<(), Unwell> {
        let late = || Unwell::Late(self.check.timeout);
        let status = match self.endpoint.open_alone(deadline).await.map_err(Unwell::Connect)? {
            Alone::Http1(io) => {
                let answered = timeout_at(deadline.into(), self.question.over_http1(io)).await;
                answered.map_err(|_| late())?
            }
            Alone::Http2(sender, driver) => {
                // The driver ends once the exchange has, by saying goodbye; a provider that does not take that loses it.
                let answered = timeout_at(deadline.into(), self.question.over_http2(sender));
                let farewell = timeout_at(clock::after(deadline, GOODBYE).into(), driver);
                let (answered, _) = tokio::join!(answered, farewell);
                answered.map_err(|_| late())?
            }
        };
        let status = status.map_err(Unwell::Broken)?;
        if self.check.status.contains(&status) { Ok(()) } else { Err(Unwell::Status(status)) }
    }

    fn tell(&self, found: &Result<(), Unwell>, before: Duration) {
        let (provider, path) = (&self.name, &self.check.path);
        match found {
            Ok(()) => tracing::info!(%provider, %path, after = ?before, "its checks find that the provider is well"),
            Err(reason) => {
                tracing::warn!(%provider, %path, %reason, "the provider is not well and gets no requests; see to it, or to its `health_check`");
            }
        }
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan").field("name", &self.name).field("check", &self.check).finish_non_exhaustive()
    }
}

// === impl Question ===

impl Question {
    /// As requests ask it, as far as they are all alike: the prefix before the path, the fields it is to have.
    fn new(provider: &Provider, check: &HealthCheck) -> Self {
        let config = &provider.config;
        let mut host = Vec::new();
        match (&check.host, &config.host) {
            (Some(name), _) | (None, HostRule::Name(name)) => host.extend_from_slice(name.as_bytes()),
            (None, HostRule::Upstream | HostRule::Preserve) => {
                host.extend_from_slice(config.url.authority().as_bytes());
            }
        }
        let (mut fields, rules) = (Vec::new(), &config.headers);
        for (name, value) in OURS {
            if !rules.remove().iter().chain(rules.set().iter().map(|(set, _)| set)).any(|named| named == name) {
                encode::field(&mut fields, name.as_bytes(), value.as_bytes());
            }
        }
        for (name, value) in rules.set() {
            encode::field(&mut fields, name.as_bytes(), value.expose().as_bytes());
        }
        let target = [config.url.prefix.as_bytes(), check.path.as_bytes()].concat();
        Question { tls: config.url.scheme.is_tls(), target, host, fields }
    }

    /// The status of the answer, once all of it that is read has come.
    async fn over_http1(&self, io: Io) -> Result<u16, String> {
        let mut wire = Wire::to_provider(io);
        for part in [b"GET ", &*self.target, b" HTTP/1.1\r\nhost: ", &self.host, b"\r\nconnection: close\r\n"] {
            wire.out().extend_from_slice(part);
        }
        wire.out().extend_from_slice(&self.fields);
        wire.out().extend_from_slice(b"\r\n");
        poll_fn(|cx| wire.poll_flush(cx)).await.map_err(text)?;
        let (mut answer, mut room) = (ResponseHead::default(), HEAD_BYTES);
        loop {
            let len = poll_fn(|cx| wire.poll_head(cx, room)).await.map_err(headless)?;
            answer.parse(wire.head(len), FIELDS).map_err(malformed)?;
            wire.use_head(len);
            room -= len;
            match answer.status {
                101 => return Err("its answer is 101, which nobody asked for".to_owned()),
                100..=199 => {}
                _ => break,
            }
        }
        let length = framing::response(answer.status, false, &answer.fields, answer.version).map_err(text)?;
        wire.begin_body(length, u64::MAX);
        while wire.body_read < BODY_BYTES {
            match poll_fn(|cx| wire.poll_body(cx)).await.map_err(bodiless)? {
                0 => break,
                read => wire.use_body(read),
            }
        }
        // For TLS it is a word more; a provider that does not take it has answered all the same.
        let _: std::io::Result<()> = poll_fn(|cx| wire.poll_shutdown(cx)).await;
        Ok(answer.status)
    }

    async fn over_http2(&self, sender: SendRequest<Bytes>) -> Result<u16, String> {
        let scheme = if self.tls { "https" } else { "http" };
        let uri = http::Uri::builder().scheme(scheme).authority(&*self.host).path_and_query(&*self.target);
        let mut request = http::Request::get(uri.build().map_err(text)?).body(()).map_err(text)?;
        *request.headers_mut() = lines::map(&self.fields);
        let (answer, _) = sender.ready().await.map_err(text)?.send_request(request, true).map_err(text)?;
        let (head, mut body) = answer.await.map_err(text)?.into_parts();
        let mut read = 0;
        while read < BODY_BYTES {
            let Some(data) = body.data().await else { break };
            let data = data.map_err(text)?;
            read += data.len() as u64;
            body.flow_control().release_capacity(data.len()).map_err(text)?;
        }
        Ok(head.status.as_u16())
    }
}

// === impl Unwell ===

impl fmt::Display for Unwell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unwell::Connect(error) => error.fmt(f),
            Unwell::Late(after) => write!(f, "no whole answer within {after:?}"),
            Unwell::Status(status) => write!(f, "it answered {status}"),
            Unwell::Broken(why) => f.write_str(why),
        }
    }
}

fn text(error: impl fmt::Display) -> String {
    error.to_string()
}

fn malformed(error: HeadError) -> String {
    match error {
        HeadError::Malformed(why) => format!("its answer is not HTTP: {why}"),
        HeadError::TooManyFields => format!("its answer has more than {FIELDS} fields"),
    }
}

fn headless(error: HeadReadError) -> String {
    match error {
        HeadReadError::Ended { .. } | HeadReadError::Refused => "it hung up without an answer".to_owned(),
        HeadReadError::Malformed(error) => malformed(error),
        HeadReadError::TooLong => format!("the head of its answer is longer than {HEAD_BYTES} bytes"),
        HeadReadError::Io(error) => error.to_string(),
    }
}

fn bodiless(error: ReadError) -> String {
    match error {
        ReadError::Ended | ReadError::TooLarge => "it hung up in the middle of its answer".to_owned(),
        ReadError::Framing(why) => why.to_owned(),
        ReadError::Io(error) => error.to_string(),
    }
}

/// Fields of every check, unless the provider's `headers` say otherwise.
const OURS: [(&str, &str); 2] = [("user-agent", "sluice-health"), ("accept", "*/*")];

/// The first checks of all providers are spread over so much time, or over their interval where that is shorter: then a
/// thousand of them do not fall on one moment, neither then nor later.
const SPREAD: Duration = Duration::from_secs(1);

/// For the last bytes of a connection whose check has ended.
const GOODBYE: Duration = Duration::from_secs(1);

/// Bytes of an answer's head, together with those of interim answers before it. A longer one is none.
const HEAD_BYTES: usize = 64 * 1024;

/// Fields of an answer. One with more is none.
const FIELDS: usize = 256;

/// Bytes of an answer's body that are waited for: a short one has to be whole. The rest of a longer one is left unread.
const BODY_BYTES: u64 = 64 * 1024;
