//! One request, in order. [`handle`] is its whole life on one screen; the modules are its steps, in the order it takes them.

pub mod snapshot;
pub mod identity;
pub mod frame;
pub mod path;
pub mod route;
pub mod rewrite;
pub mod client;
pub mod cached;
pub mod dispatch;
pub mod waiting;
pub mod heartbeat;
pub mod hedge;
pub mod attempt;
pub mod exchange;
pub mod replay;
pub mod ladder;
pub mod reduce;
pub mod verdict;
pub mod forward;
pub mod respond;
pub mod record;

use crate::cache::reply::Cache;
use crate::clock;
use crate::config::{Action, Listener};
use crate::http1::head::{RequestHead, ResponseHead, Version};
use crate::net::side::Side;
use crate::net::timer::Timer;
use crate::observe::families::UNROUTED;
use crate::observe::logs::Logs;
use crate::observe::metrics::Metrics;
use arc_swap::ArcSwap;
use attempt::Lent;
use dispatch::Errand;
use exchange::Answered;
use frame::Request;
use identity::{Identity, Peer};
use record::{Final, Record};
use replay::Replay;
use respond::{Answer, Circumstances, Refusal, Refused};
use route::Found;
use snapshot::{Route, Snapshot};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

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
    /// What is kept of answers; empty until a route keeps any.
    pub cache: OnceLock<Cache>,
}

/// What a request is worked on with. A connection in HTTP/1 has one for all its requests, one after the other.
#[derive(Debug, Default)]
pub struct Desk {
    /// The request's head.
    pub head: RequestHead,
    /// The answer's head.
    pub answer: ResponseHead,
    /// The task's timer.
    pub timer: Timer,
    /// Another, for a second attempt beside the first.
    pub hedge_timer: Timer,
    /// Where a path is spelled anew.
    pub scratch: String,
}

/// Where a request came in.
#[derive(Debug, Clone, Copy)]
pub struct Here<'a> {
    /// What all workers share.
    pub shared: &'a Arc<Shared>,
    /// The configuration as this request sees it.
    pub snapshot: &'a Arc<Snapshot>,
    /// The listener that took it.
    pub listener: &'a Arc<Listener>,
    /// Who sent it.
    pub peer: &'a Peer,
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
    /// The client took its answer so slowly that others who get the same would have had to wait for it.
    TooSlow,
}

/// Takes a request, whose head lies parsed on the desk, to its one answer.
pub async fn handle(client: Side<'_>, desk: &mut Desk, here: &Here<'_>) -> After {
    let Desk { head, answer, timer, hedge_timer, scratch } = desk;
    let identity = Identity::new(&head.fields, here.peer.trusted, (fastrand::u128(..), fastrand::u64(..)));
    let now = clock::now();
    let mut record = Record::begin(now, here.shared.logs.access_enabled());
    let mut lent = Lent {
        probe: None,
        client,
        answer,
        timer,
        hedge_timer,
        replay: Replay::default(),
        continued: false,
        opened: None,
        awaited: Duration::ZERO,
        worker: here.worker,
        now,
    };

    let checked = frame::check(head, scratch);
    let served = match &checked {
        Ok(request) => {
            lent.client.begin_body(request.length, here.listener.limits.body_bytes);
            serve(request, &identity, here, &mut lent, &mut record).await
        }
        Err(invalid) => {
            record.routed(UNROUTED, &here.snapshot.unrouted);
            record.error = invalid.why().map(str::to_owned);
            Err(Refused::invalid(*invalid).into())
        }
    };
    let in_step = checked.as_ref().is_ok_and(|request| here.keeps_alive(request, &lent.client));
    let after = match served {
        Ok(answered) => conclude(&answered, &mut record),
        Err(Stop::Refused(refused)) => refuse(&refused, head, &identity, in_step, &mut lent, &mut record),
        Err(Stop::Cut) => cut(lent.opened.map_or(lent.answer.status, |_| respond::OPENED), &mut record),
        Err(Stop::Gone) => After::Abort,
        Err(Stop::TooSlow) => {
            record.error = Some(TOO_SLOW.to_owned());
            After::Abort
        }
    };
    let host = checked.as_ref().map_or("", |request| request.host.as_ref());
    let (bytes_in, bytes_out) = (lent.client.body_read(), lent.client.body_written());
    let last = Final { head, host, identity: &identity, peer: here.peer, listener: here.listener, bytes_in, bytes_out };
    record.log(&here.shared.logs, &last);
    after
}

/// Routes a valid request and has it answered: by its route's pool, or here.
async fn serve<'snapshot>(
    request: &Request<'_>,
    identity: &Identity,
    here: &Here<'snapshot>,
    lent: &mut Lent<'_>,
    record: &mut Record<'snapshot>,
) -> Result<Answered, Stop> {
    let route = route(request, here, record)?;
    admit_body(here.listener, &lent.client)?;
    let caller =
        here.snapshot.clients.identify(request, &route.config.class, here.peer, &here.listener.trusted_proxies);
    record.asked_by(&caller.client.name, caller.class);
    let errand = Errand {
        request,
        route,
        identity,
        caller: &caller,
        peer: here.peer,
        listener: here.listener,
        closing: here.closing,
        started: record.started(),
        seen: None,
        background: false,
    };
    match &route.pool {
        Some(pool) => match &route.config.cache {
            None => match here.shared.cache.get() {
                Some(cache) if !request.is_safe() => cached::write(&errand, (pool, cache), lent, record).await,
                _ => dispatch::send(&errand, pool, lent, record).await,
            },
            Some(rules) => {
                let mut question = cached::Question::new(&errand, rules, here)?;
                match question.answer_at_once(lent, record) {
                    Some(answered) => Ok(answered),
                    // Apart, because every request would carry the room for it.
                    None => Box::pin(question.serve(lent, record)).await,
                }
            }
        },
        None => Ok(answer_here(&errand, here, &mut lent.client)),
    }
}

/// Finds the route, and notes it.
fn route<'snapshot>(
    request: &Request<'_>,
    here: &Here<'snapshot>,
    record: &mut Record<'snapshot>,
) -> Result<&'snapshot Route, Stop> {
    match here.snapshot.index.find(&request.asked()) {
        Found::Route(index) => {
            let route = &here.snapshot.routes[index];
            record.routed(&route.config.name, &route.metrics);
            Ok(route)
        }
        found => {
            record.routed(UNROUTED, &here.snapshot.unrouted);
            Err(Refused::unrouted(found).into())
        }
    }
}

/// Refuses a body that says it is too large; one that does not say is watched while it is read.
fn admit_body(listener: &Listener, client: &Side<'_>) -> Result<(), Stop> {
    let over = client.body_remaining().is_some_and(|bytes| bytes > listener.limits.body_bytes);
    if over { Err(Refused::body_too_large().into()) } else { Ok(()) }
}

/// Gives the answer that the route itself holds.
fn answer_here(errand: &Errand<'_>, here: &Here<'_>, client: &mut Side<'_>) -> Answered {
    let request = errand.request;
    let location;
    let answer = match &errand.route.config.action {
        Action::Respond { status, headers, body } => Answer::configured(*status, headers, body),
        Action::Redirect { to, status } => {
            location = rewrite::location(to, &request.host, request.path, request.query);
            Answer::redirect(*status, &location)
        }
        // A snapshot gives every route that names a pool its pool, so this one is not asked.
        Action::Pool(_) => Answer::configured(Refusal::NoProvider.status(), &[], b""),
    };
    let keep_alive = here.keeps_alive(request, client);
    let (version, to_head) = (request.head.version, request.method == "HEAD");
    let circumstances = Circumstances { identity: Some(errand.identity), version, keep_alive, to_head };
    answer.write(client, &circumstances);
    Answered { status: answer.status, reusable: None, keep_alive, head_at: None, skipped: None }
}

/// An answer is complete.
fn conclude(answered: &Answered, record: &mut Record<'_>) -> After {
    record.status = Some(answered.status);
    if answered.keep_alive { After::KeepAlive } else { After::Close }
}

/// An answer broke after its head had gone out.
fn cut(status: u16, record: &mut Record<'_>) -> After {
    record.status = Some(status);
    After::Abort
}

/// Answers with a problem, or ends with it what was begun as an event stream.
fn refuse(
    refused: &Refused,
    head: &RequestHead,
    identity: &Identity,
    in_step: bool,
    lent: &mut Lent<'_>,
    record: &mut Record<'_>,
) -> After {
    record.status = Some(refused.refusal.status());
    record.reason = Some(refused.refusal.reason());
    let mut keep_alive = in_step && refused.spares_connection();
    if let Some(opened) = lent.opened {
        record.status = Some(respond::OPENED);
        keep_alive &= opened.keep_alive;
        refused.write_event(identity, &mut lent.client);
    } else {
        let (version, to_head) = (head.version, head.method() == "HEAD");
        let circumstances = Circumstances { identity: Some(identity), version, keep_alive, to_head };
        refused.write(&mut lent.client, &circumstances);
    }
    if keep_alive { After::KeepAlive } else { After::Close }
}

/// Answers what never became a request: a head that is broken, too large or too slow.
pub fn refuse_head(client: &mut Side<'_>, head: &RequestHead, refusal: Refusal, detail: &'static str, here: &Here<'_>) {
    let identity = Identity::new(&head.fields, false, (fastrand::u128(..), fastrand::u64(..)));
    let mut record = Record::begin(clock::now(), here.shared.logs.access_enabled());
    record.routed(UNROUTED, &here.snapshot.unrouted);
    record.status = Some(refusal.status());
    record.reason = Some(refusal.reason());
    record.error = Some(detail.to_owned());
    write_last(client, head, &identity, refusal, detail);
    let (bytes_in, bytes_out) = (0, client.body_written());
    let (peer, listener) = (here.peer, here.listener);
    record.log(&here.shared.logs, &Final { head, host: "", identity: &identity, peer, listener, bytes_in, bytes_out });
}

/// Answers a request whose handling panicked, where nothing was said yet. Its record has counted it already.
pub fn answer_panicked(client: &mut Side<'_>, head: &RequestHead) {
    let identity = Identity::new(&head.fields, false, (fastrand::u128(..), fastrand::u64(..)));
    client.out().clear();
    write_last(client, head, &identity, Refusal::Internal, "Something went wrong inside this gateway.");
}

/// Writes a refusal after which the connection ends.
fn write_last(client: &mut Side<'_>, head: &RequestHead, identity: &Identity, refusal: Refusal, detail: &'static str) {
    let version = if matches!(client, Side::Http1(_)) { Version::Http11 } else { Version::Http2 };
    let to_head = head.method() == "HEAD";
    let circumstances = Circumstances { identity: Some(identity), version, keep_alive: false, to_head };
    Refused::new(refusal, detail).write(client, &circumstances);
}

/// Whether what is left of the request's body can be read and dropped, so that the next request can follow.
fn is_drainable(request: &Request<'_>, client: &Side<'_>) -> bool {
    let rest = client.body_remaining();
    rest == Some(0) || (!request.expects_continue && rest.is_some_and(|bytes| bytes <= DRAIN_BYTES))
}

// === impl Here ===

impl Here<'_> {
    /// Whether client and gateway both mean to go on after this request.
    fn stays_open(&self, request: &Request<'_>) -> bool {
        request.keep_alive && !self.closing.load(Ordering::Relaxed)
    }

    /// The same after an answer of our own, which leaves the request's body unread.
    fn keeps_alive(&self, request: &Request<'_>, client: &Side<'_>) -> bool {
        self.stays_open(request) && is_drainable(request, client)
    }
}

impl From<Refused> for Stop {
    fn from(refused: Refused) -> Self {
        Stop::Refused(Box::new(refused))
    }
}

/// What the log says of a client that others need not wait for.
const TOO_SLOW: &str = "client_too_slow";

/// Bytes of an unread request body that are read and dropped to keep a connection; a longer one costs the connection.
pub const DRAIN_BYTES: u64 = 256 * 1024;
