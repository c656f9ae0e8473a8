//! One request, in order. [`handle`] is its whole life on one screen; the modules are its steps, in the order it takes them.

pub mod attempt;
pub mod dispatch;
pub mod exchange;
pub mod forward;
pub mod frame;
pub mod identity;
pub mod path;
pub mod record;
pub mod respond;
pub mod rewrite;
pub mod route;
pub mod snapshot;

use crate::clock;
use crate::config::{Action, Listener};
use crate::http1::head::{RequestHead, ResponseHead, Version};
use crate::net::timer::Timer;
use crate::net::wire::Wire;
use crate::observe::logs::Logs;
use crate::observe::metrics::Metrics;
use arc_swap::ArcSwap;
use attempt::Lent;
use dispatch::Errand;
use exchange::Answered;
use frame::{Invalid, Request};
use identity::{Identity, Peer};
use record::{Final, Record};
use respond::{Answer, Circumstances, Refusal, Why};
use route::{Asked, Found};
use snapshot::Snapshot;
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What all workers share.
#[derive(Debug)]
pub struct Shared {
    /// The applied configuration; a request loads it once.
    pub snapshot: ArcSwap<Snapshot>,
    /// The numbers.
    pub metrics: Arc<Metrics>,
    /// The logs.
    pub logs: Arc<Logs>,
    /// The gateway is going: answers close their connections.
    pub draining: AtomicBool,
}

/// A client's connection as it is lent to a request.
#[derive(Debug)]
pub struct Client {
    /// The stream; unread bytes of later requests stay in it.
    pub wire: Wire,
    /// The request's head.
    pub head: RequestHead,
    /// The answer's head.
    pub answer: ResponseHead,
    /// The connection's one timer.
    pub timer: Timer,
    /// Who is at the other end.
    pub peer: Peer,
    /// Where a path is spelled anew.
    pub scratch: String,
}

/// Where a request came in.
#[derive(Debug, Clone, Copy)]
pub struct Here<'a> {
    /// What all workers share.
    pub shared: &'a Shared,
    /// The configuration as this request sees it.
    pub snapshot: &'a Snapshot,
    /// The listener that took it.
    pub listener: &'a Listener,
    /// Which worker this is.
    pub worker: usize,
    /// Turns true when the listener goes: from then on answers close their connections.
    pub closing: &'a AtomicBool,
}

/// What is to become of the client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// The next request may come.
    KeepAlive,
    /// It ends, once what was written has arrived.
    Close,
    /// It ends at once and visibly broken: the answer is not complete.
    Abort,
}

/// Why a request gets no answer from a provider.
#[derive(Debug)]
pub enum Stop {
    /// We answer ourselves.
    Refused(Box<Refused>),
    /// There is nobody left to answer.
    Gone,
    /// The answer broke after its head had gone out.
    Cut,
}

/// An answer of our own that is a problem.
#[derive(Debug)]
pub struct Refused {
    refusal: Refusal,
    detail: Cow<'static, str>,
    trail: Option<String>,
    error: Option<&'static str>,
    allow: Option<String>,
}

/// Takes a request, whose parsed head of `head_len` bytes still stands in the wire, to its one answer.
pub async fn handle(client: &mut Client, head_len: usize, here: &Here<'_>) -> After {
    let started = clock::now();
    let Client { wire, head, answer, timer, peer, scratch } = client;
    let identity = Identity::new(&head.fields, peer.trusted, (fastrand::u128(..), fastrand::u64(..)));
    let mut record = Record::begin(started, here.shared.logs.access_enabled());
    let mut lent = Lent { client: wire, answer, timer, worker: here.worker };

    let checked = frame::check(head, scratch);
    let served = match &checked {
        Ok(request) => {
            lent.client.begin_body(head_len, request.length, here.listener.limits.body_bytes);
            serve(request, &identity, peer, here, &mut lent, &mut record).await
        }
        Err(invalid) => {
            record.routed("none", &here.snapshot.unrouted);
            Err(refuse_invalid(*invalid))
        }
    };
    let keep_alive = checked.as_ref().is_ok_and(|request| here.keeps_alive(request));
    let version = head.version;
    let after = match served {
        Ok(answered) => conclude(&answered, &mut record),
        Err(Stop::Refused(refused)) => {
            record.reason = Some(refused.refusal.reason());
            record.status = Some(refused.refusal.status());
            let circumstances = Circumstances {
                identity: Some(&identity),
                version,
                keep_alive: keep_alive && refused.spares_connection() && is_drainable(lent.client, &checked),
                to_head: head.method() == "HEAD",
            };
            refused.write(lent.client, &circumstances);
            if circumstances.keep_alive { After::KeepAlive } else { After::Close }
        }
        Err(Stop::Gone) => After::Abort,
        Err(Stop::Cut) => {
            record.status = Some(lent.answer.status);
            After::Abort
        }
    };
    let host = checked.as_ref().map_or("", |request| request.host.as_ref());
    let (bytes_in, bytes_out) = (lent.client.body_read, lent.client.body_written);
    record.log(
        &here.shared.logs,
        &Final { head, host, identity: &identity, peer, listener: &here.listener.name, bytes_in, bytes_out },
    );
    after
}

/// Routes a valid request and has it answered.
async fn serve<'snapshot>(
    request: &Request<'_>,
    identity: &Identity,
    peer: &Peer,
    here: &Here<'snapshot>,
    lent: &mut Lent<'_>,
    record: &mut Record<'snapshot>,
) -> Result<Answered, Stop> {
    let asked = Asked {
        host: &request.host,
        path: request.path,
        query: request.query,
        method: request.method,
        headers: &request.head.fields,
    };
    let route = match here.snapshot.index.find(&asked) {
        Found::Route(index) => &here.snapshot.routes[index],
        found => {
            record.routed("none", &here.snapshot.unrouted);
            return Err(refuse_unrouted(found));
        }
    };
    record.routed(&route.config.name, &route.metrics);
    if lent.client.body_remaining().is_some_and(|bytes| bytes > here.listener.limits.body_bytes) {
        return Err(Refused::body_too_large().into());
    }
    let local = match (&route.config.action, &route.pool) {
        (Action::Respond { status, headers, body }, _) => Answer::configured(*status, headers, body),
        (Action::Redirect { to, status }, _) => {
            Answer::redirect(*status, &rewrite::location(to, &request.host, request.path, request.query))
        }
        (Action::Pool(_), Some(pool)) => {
            let errand = Errand {
                request,
                route,
                identity,
                peer,
                listener: here.listener,
                closing: here.closing,
                started: record.started(),
            };
            return dispatch::send(&errand, pool, lent, record).await;
        }
        // A snapshot gives every route that names a pool its pool.
        (Action::Pool(_), None) => return Err(Refused::new(Refusal::NoProvider, "The route has no pool.").into()),
    };
    let keep_alive = here.keeps_alive(request) && is_body_drainable(lent.client, request);
    let circumstances = Circumstances {
        identity: Some(identity),
        version: request.head.version,
        keep_alive,
        to_head: request.method == "HEAD",
    };
    local.write(lent.client.out(), &circumstances);
    Ok(Answered { status: local.status, reusable: None, keep_alive })
}

/// Notes the status of an answer that is complete.
fn conclude(answered: &Answered, record: &mut Record<'_>) -> After {
    record.status = Some(answered.status);
    if answered.keep_alive { After::KeepAlive } else { After::Close }
}

/// Answers what never became a request: a head that is broken, too large or too slow.
pub fn refuse_head(client: &mut Client, refusal: Refusal, detail: &'static str, here: &Here<'_>) {
    let identity = Identity::new(&client.head.fields, false, (fastrand::u128(..), fastrand::u64(..)));
    let mut record = Record::begin(clock::now(), here.shared.logs.access_enabled());
    record.routed("none", &here.snapshot.unrouted);
    record.status = Some(refusal.status());
    record.reason = Some(refusal.reason());
    record.error = Some(detail.to_owned());
    write_last(client, &identity, refusal, detail);
    let (bytes_in, bytes_out) = (0, client.wire.body_written);
    let (head, peer) = (&client.head, &client.peer);
    record.log(
        &here.shared.logs,
        &Final { head, host: "", identity: &identity, peer, listener: &here.listener.name, bytes_in, bytes_out },
    );
}

/// Answers a request whose handling panicked, where nothing was said yet. Its record has counted it already.
pub fn answer_panicked(client: &mut Client) {
    let identity = Identity::new(&client.head.fields, false, (fastrand::u128(..), fastrand::u64(..)));
    client.wire.out().clear();
    write_last(client, &identity, Refusal::Internal, "Something went wrong inside this gateway.");
}

/// Writes a refusal after which the connection ends.
fn write_last(client: &mut Client, identity: &Identity, refusal: Refusal, detail: &'static str) {
    let circumstances =
        Circumstances { identity: Some(identity), version: Version::Http11, keep_alive: false, to_head: false };
    Refused::new(refusal, detail).write(&mut client.wire, &circumstances);
}

fn refuse_invalid(invalid: Invalid) -> Stop {
    match invalid {
        Invalid::Bad(why) => Refused::new(Refusal::BadRequest, format!("The request is not valid: {why}.")).into(),
        Invalid::Method => {
            let mut refused = Refused::new(Refusal::WrongMethod, "This gateway does not take CONNECT or TRACE.");
            refused.allow = Some("DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT".to_owned());
            refused.into()
        }
    }
}

fn refuse_unrouted(found: Found) -> Stop {
    match found {
        Found::WrongMethod(allow) => {
            let mut refused = Refused::new(Refusal::WrongMethod, format!("Here the methods are {allow}."));
            refused.allow = Some(allow);
            refused.into()
        }
        Found::None | Found::Route(_) => Refused::new(Refusal::NoRoute, "No route takes this host and path.").into(),
    }
}

/// Whether what is left of the request's body can be read and dropped, so that the next request can follow.
fn is_body_drainable(client: &Wire, request: &Request<'_>) -> bool {
    let rest = client.body_remaining();
    rest == Some(0) || (!request.expects_continue && rest.is_some_and(|bytes| bytes <= DRAIN_BYTES))
}

fn is_drainable(client: &Wire, checked: &Result<Request<'_>, Invalid>) -> bool {
    checked.as_ref().is_ok_and(|request| is_body_drainable(client, request))
}

// === impl Here ===

impl Here<'_> {
    /// Whether the client's connection may stay open after the answer.
    fn keeps_alive(&self, request: &Request<'_>) -> bool {
        request.keep_alive && !self.closing.load(Ordering::Relaxed)
    }
}

// === impl Refused ===

impl Refused {
    /// A refusal with a sentence for the client.
    pub fn new(refusal: Refusal, detail: impl Into<Cow<'static, str>>) -> Self {
        Refused { refusal, detail: detail.into(), trail: None, error: None, allow: None }
    }

    /// The one for a body over the listener's limit.
    pub fn body_too_large() -> Self {
        Refused::new(Refusal::BodyTooLarge, "The request body is larger than this listener takes.")
    }

    /// With a more exact error type of RFC 9209.
    #[must_use]
    pub fn error(mut self, token: &'static str) -> Self {
        self.error = Some(token);
        self
    }

    /// With what the attempts came to.
    #[must_use]
    pub fn trail(mut self, trail: String) -> Self {
        self.trail = Some(trail);
        self
    }

    /// Whether the connection is still in step after this refusal.
    fn spares_connection(&self) -> bool {
        !matches!(self.refusal, Refusal::BadRequest | Refusal::BodyTooLarge | Refusal::BodyTimeout | Refusal::Internal)
    }

    fn write(&self, wire: &mut Wire, circumstances: &Circumstances<'_>) {
        let why =
            Why { detail: &self.detail, trail: self.trail.as_deref(), error: self.error, allow: self.allow.as_deref() };
        let mut body = String::new();
        let answer = Answer::problem(self.refusal, &why, circumstances.identity, &mut body);
        answer.write(wire.out(), circumstances);
        wire.body_written += if circumstances.to_head { 0 } else { answer.body.len() as u64 };
    }
}

impl From<Refused> for Stop {
    fn from(refused: Refused) -> Self {
        Stop::Refused(Box::new(refused))
    }
}

/// Bytes of an unread request body that are read and dropped to keep a connection; a longer one costs the connection.
pub const DRAIN_BYTES: u64 = 256 * 1024;
