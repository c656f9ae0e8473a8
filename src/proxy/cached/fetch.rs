//! Bringing a reply for everyone who asks for it.
//!
//! A fetch is a task of its own: what becomes of the client that it was begun for is nothing to the others. It goes the way
//! of every request, through [`dispatch`], without the client's conditions and range, so that what comes is the whole. Its
//! client is inside this process, and takes the answer: the [`Fill`]. The head decides: a reply that may be kept is published
//! at once, and kept when it is complete.

use crate::cache::body::{Filling, Reader, Room};
use crate::cache::coalesce::Leader;
use crate::cache::key::Key;
use crate::cache::reply::{Cache, Failure, Reply};
use crate::cache::store::{About, Head, Stored};
use crate::clock;
use crate::config::{self, Listener};
use crate::http1::fields::{Fields, Known};
use crate::http1::framing::{self, Length};
use crate::http1::head::{HeadError, RequestHead, ResponseHead, Version};
use crate::instant::Instant;
use crate::net::inside::{Inside, Taker};
use crate::net::side::Side;
use crate::net::timer::Timer;
use crate::policy::class::Class;
use crate::policy::freshness::validators::{conditions, is_condition};
use crate::policy::freshness::{Asked, Terms, Times};
use crate::policy::ladder::{Kind, Trigger};
use crate::proxy::attempt::Lent;
use crate::proxy::client::Caller;
use crate::proxy::dispatch::{self, Errand};
use crate::proxy::exchange::{ANSWER_FIELDS, Answered, Seen, Spare};
use crate::proxy::frame;
use crate::proxy::heartbeat::is_event_stream;
use crate::proxy::identity::{self, Identity, Peer};
use crate::proxy::record::{Account, Record};
use crate::proxy::replay::Replay;
use crate::proxy::respond::{self, Refused};
use crate::proxy::snapshot::Snapshot;
use crate::proxy::{Shared, Stop};
use bytes::Bytes;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// What is to be fetched, and for whom. It holds everything that a request borrows elsewhere.
#[derive(Debug)]
pub(super) struct Fetch {
    pub(super) shared: Arc<Shared>,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) listener: Arc<Listener>,
    pub(super) peer: Peer,
    pub(super) identity: Identity,
    /// Its place in the snapshot.
    pub(super) route: usize,
    pub(super) rules: config::Cache,
    /// The request as its client sent it.
    pub(super) head: RequestHead,
    /// Its fields as far as they concern providers.
    pub(super) fields: Fields,
    pub(super) asked: Asked,
    pub(super) body: Bytes,
    /// Its body is in its key.
    pub(super) keyed: bool,
    pub(super) key: Key,
    /// What is kept, and perhaps good still.
    pub(super) kept: Vec<Arc<Stored>>,
    /// Until when the latest may be given in place of an error.
    pub(super) stale_until: Option<Instant>,
    /// Another was begun for the same before it, and failed.
    pub(super) after: bool,
    pub(super) worker: usize,
    pub(super) started: Instant,
}

/// What a fetch came to, for the client that it was begun for.
#[derive(Debug)]
pub(super) enum Told {
    /// An interim head, as it was written for the client; the rest follows.
    Interim {
        /// Its status.
        status: u16,
        /// It.
        written: Vec<u8>,
    },
    /// What was kept is good still; with fields that are for this client alone.
    Good(Arc<Stored>, Fields),
    /// A reply for everyone.
    Reply {
        /// It.
        reply: Arc<Reply>,
        /// This client's end of its body.
        reader: Option<Reader>,
        /// Fields that are for this client alone.
        own: Fields,
        /// Our own account of failed attempts.
        trail: Option<String>,
    },
    /// An answer for this client alone.
    Passed {
        /// Its head, as it was written for the client.
        head: Box<ResponseHead>,
        /// Its body.
        reader: Option<Reader>,
    },
    /// A provider's error, in whose place the latest of what is kept may be given.
    Failed(Failure),
    /// No answer.
    Refused(Box<Refused>),
    /// It broke off, and nobody said why.
    Broken,
}

/// The end of a fetch that a client holds. Dropping it says that the client has left.
#[derive(Debug)]
pub(super) struct Wait(Arc<Slot>);

/// What a fetch and its client tell each other.
#[derive(Debug, Default)]
struct Slot(Mutex<Line>);

#[derive(Debug, Default)]
struct Line {
    interims: VecDeque<(u16, Vec<u8>)>,
    told: Option<Told>,
    /// Something was told already.
    over: bool,
    account: Option<Account>,
    client: Option<Waker>,
    fetch: Option<Waker>,
    /// The client has left.
    left: bool,
}

/// The fetch's end of it. Dropping it says what there is to say.
#[derive(Debug)]
struct Teller {
    slot: Arc<Slot>,
    shared: Arc<Shared>,
}

/// Takes the answer.
#[derive(Debug)]
struct Fill {
    fetch: Fetch,
    slot: Arc<Slot>,
    /// Goes on without any client.
    alone: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    leader: Option<Leader<Reply>>,
    /// When the provider was asked.
    requested: Instant,
    /// It was asked whether what is kept is good still.
    conditional: bool,
    /// How long its answer is was not said: it may have no end.
    endless: bool,
    /// What was seen, until the written head follows.
    sight: Option<Sight>,
    phase: Phase,
    dropped: usize,
}

/// An answer's head before it was written for the client.
#[derive(Debug)]
struct Sight {
    /// As the provider sent it.
    head: ResponseHead,
    /// Our own account of failed attempts.
    trail: Option<String>,
    /// A rung answers: that is the best there was for one moment, nothing to keep and no word on what is kept.
    degraded: bool,
}

/// What becomes of the answer.
#[derive(Debug)]
enum Phase {
    /// Its head has not come.
    Head,
    /// It is kept, once it is complete.
    Keep(Filling, Arc<Head>),
    /// It is passed on to one client.
    Pass(Filling),
    /// What was kept is good still; with fields that are for its client alone.
    Good(Arc<Stored>, Fields),
    /// It says that something is good still that we do not have: ask once more, for all of it.
    Again,
    /// It is dropped.
    Drop,
}

#[derive(Debug)]
struct Take(Arc<Fill>, Timer);

/// Begins a fetch. `alone`: it is for nobody who waits.
pub(super) fn begin(fetch: Fetch, leader: Leader<Reply>, alone: bool) -> Wait {
    let slot = Arc::new(Slot::default());
    let teller = Teller { slot: Arc::clone(&slot), shared: Arc::clone(&fetch.shared) };
    let state = State {
        leader: Some(leader),
        requested: fetch.started,
        conditional: false,
        endless: false,
        sight: None,
        phase: Phase::Head,
        dropped: 0,
    };
    let fill = Arc::new(Fill { fetch, slot: Arc::clone(&slot), alone, state: Mutex::new(state) });
    // A request's future is large: boxed, it is moved once on its way to where it runs.
    tokio::spawn(Box::pin(run(fill, teller)));
    Wait(slot)
}

async fn run(fill: Arc<Fill>, teller: Teller) {
    let kept: Vec<(&Terms, &Fields)> =
        fill.fetch.kept.iter().map(|stored| (&stored.head.terms, &stored.head.fields)).collect();
    let mut asks = conditions(&kept);
    let sent = loop {
        fill.state().conditional = !asks.is_empty();
        let sent = ask(&fill, &asks, &teller).await;
        let again = matches!(fill.state().phase, Phase::Again);
        if !again || asks.is_empty() {
            break sent;
        }
        fill.state().phase = Phase::Head;
        asks.clear();
    };
    fill.conclude(sent, &teller);
}

/// Sends the request on its way; it ends when its answer is complete, or none is to be had.
async fn ask(fill: &Arc<Fill>, asks: &[(&'static [u8], Vec<u8>)], teller: &Teller) -> Result<Answered, Stop> {
    let Fetch { shared, snapshot, listener, peer, identity, .. } = &fill.fetch;
    let is_withheld = |name: &[u8]| is_condition(name) || name.eq_ignore_ascii_case(b"expect");
    let head = &fill.fetch.head;
    // What is asked for to be kept is the whole.
    let method = if head.method() == "HEAD" { "GET" } else { head.method() };
    let head = head.changed(method, &is_withheld, asks);
    let mut scratch = String::new();
    let request = frame::check(&head, &mut scratch).map_err(Refused::invalid)?;
    let route = &snapshot.routes[fill.fetch.route];
    let Some(pool) = &route.pool else { return Err(Stop::Gone) };
    // What its client wants for itself only (`Sluice-Timeout`, `Sluice-Attempts`) is nothing to those who follow.
    let caller = snapshot.clients.identify(&request, &route.config.class, peer, &listener.trusted_proxies);
    // And what nobody waits for is in nobody's way.
    let class = if fill.alone { Class::Low } else { caller.class };
    let caller = Caller { timeout: None, attempts: None, class, ..caller };
    let mut inside = Inside::new(fill.fetch.body.clone(), Box::new(Take(Arc::clone(fill), Timer::default())));
    let (mut answer, closing) = (ResponseHead::default(), AtomicBool::new(false));
    let (mut timer, mut hedge_timer) = <(Timer, Timer)>::default();
    let now = clock::now();
    fill.state().requested = now;
    let errand = Errand {
        request: &request,
        route,
        identity,
        caller: &caller,
        peer,
        listener,
        closing: &closing,
        started: fill.fetch.started,
        seen: Some(&**fill),
        background: fill.alone,
    };
    let mut record = Record::begin(now, shared.logs.access_enabled());
    let mut lent = Lent {
        probe: None,
        client: Side::Inside(&mut inside),
        answer: &mut answer,
        timer: &mut timer,
        hedge_timer: &mut hedge_timer,
        replay: Replay::default(),
        continued: false,
        opened: None,
        awaited: Duration::ZERO,
        worker: fill.fetch.worker,
        now,
    };
    let mut sent = dispatch::send(&errand, pool, &mut lent, &mut record).await;
    if let (Err(Stop::Refused(refused)), Some(opened)) = (&sent, lent.opened) {
        refused.write_event(identity, &mut lent.client);
        let (status, keep_alive) = (respond::OPENED, opened.keep_alive);
        sent = Ok(Answered { status, reusable: None, keep_alive, head_at: None, skipped: None });
    }
    let flushed = poll_fn(|cx| lent.client.poll_flush(cx)).await;
    teller.account(record.account());
    sent.and_then(|answered| flushed.map(|()| answered).map_err(|_| Stop::Gone))
}

// === impl Fill ===

impl Fill {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cache(&self) -> Option<&Cache> {
        self.fetch.shared.cache.get()
    }

    /// The final head: what is to become of what follows.
    fn judge(&self, status: u16, written: &[u8], state: &mut State) -> Option<Phase> {
        let (cache, now) = (self.cache()?, clock::now());
        let sight = state.sight.take();
        if let (304, true, Some(sight)) = (status, state.conditional, &sight) {
            return Some(self.validated(sight, cache, state.times(now)));
        }
        if is_error(status) && self.spare(now).is_some_and(|spare| spare.may_replace_errors) {
            return Some(self.failed(status, sight, state));
        }
        let head = parse(status, written)?;
        let length = match framing::response(status, false, &head.fields, Version::Http11) {
            Ok(Length::Exact(length)) => Some(length),
            Ok(Length::None) => Some(0),
            _ => None,
        };
        state.endless = length.is_none();
        let max = self.fetch.rules.max_object.min(cache.store.largest());
        let degraded = sight.as_ref().is_none_or(|sight| sight.degraded);
        if let Some(sight) = sight.filter(|_| !degraded && length.is_none_or(|length| length <= max))
            && let Some(kept) = self.storable(&sight.head, state, now)
        {
            return Some(self.publish(kept, sight, length, Filling::new(&cache.store.space, max), state));
        }
        if let Some(leader) = state.leader.take() {
            match status {
                _ if degraded => leader.release(),
                429 | 500.. => self.hand_on(leader),
                _ => leader.decline(now),
            }
        }
        let filling = Filling::new(&cache.store.space, 0);
        let reader = filling.source().reader();
        self.slot.tell(Told::Passed { head: Box::new(head), reader });
        Some(Phase::Pass(filling))
    }

    /// What was kept is good still, says the provider.
    fn validated(&self, sight: &Sight, cache: &Cache, times: Times) -> Phase {
        if sight.degraded {
            return Phase::Again;
        }
        let Fetch { asked, fields, keyed, rules, .. } = &self.fetch;
        let about = About { asked, request: fields, keyed: *keyed, rules: &rules.rules, times };
        let refreshed = cache.store.refresh(&self.fetch.key, &dated(&sight.head.fields), &about);
        refreshed.map_or(Phase::Again, |stored| {
            let own = stored.head.terms.withheld(&sight.head.fields);
            Phase::Good(stored, own)
        })
    }

    /// A provider's error, in whose place something is kept.
    fn failed(&self, status: u16, sight: Option<Sight>, state: &mut State) -> Phase {
        let trail = sight.and_then(|sight| sight.trail);
        let failure = Failure { fell: Some(Trigger::AttemptsExhausted), placed: false, status: Some(status), trail };
        if let Some(leader) = state.leader.take() {
            leader.publish(Arc::new(Reply::Failed(failure.clone())));
        }
        self.slot.tell(Told::Failed(failure));
        Phase::Drop
    }

    /// Gives everyone a reply that may be kept, while its body comes in.
    fn publish(&self, kept: Head, sight: Sight, len: Option<u64>, filling: Filling, state: &State) -> Phase {
        let Sight { head: raw, trail, .. } = sight;
        let own = kept.terms.withheld(&raw.fields);
        let kept = Arc::new(kept);
        let reader = filling.source().reader();
        let reply = Arc::new(Reply::Coming { head: Arc::clone(&kept), len, source: filling.source() });
        if let Some(leader) = &state.leader {
            leader.publish(Arc::clone(&reply));
        }
        self.slot.tell(Told::Reply { reply, reader, own, trail });
        Phase::Keep(filling, kept)
    }

    /// The head as it is kept, if it may be.
    fn storable(&self, raw: &ResponseHead, state: &State, now: Instant) -> Option<Head> {
        let Fetch { asked, fields, keyed, rules, .. } = &self.fetch;
        let times = state.times(now);
        // Nobody asked for a part, and a stream of events has no end that would make it whole.
        let endless = raw.fields.named(b"content-type").next().is_some_and(is_event_stream);
        let read = (raw.status != 206 && !endless)
            .then(|| Terms::read((asked, fields), *keyed, (raw.status, &raw.fields), &rules.rules, times).ok());
        let terms = read.flatten()?;
        let fields = terms.kept(&dated(&raw.fields));
        Some(Head { status: raw.status, fields, terms })
    }

    /// The fetch is over.
    fn conclude(&self, sent: Result<Answered, Stop>, teller: &Teller) {
        let (phase, leader) = {
            let mut state = self.state();
            (std::mem::replace(&mut state.phase, Phase::Drop), state.leader.take())
        };
        match (sent, phase) {
            (Ok(_), Phase::Keep(filling, head)) => {
                if let (Some(pieces), Some(leader)) = (filling.complete(), &leader) {
                    self.keep(Arc::unwrap_or_clone(head), pieces, leader);
                }
            }
            (Ok(_), Phase::Pass(filling)) => {
                let _: Option<Vec<Bytes>> = filling.complete();
            }
            (Ok(_), Phase::Good(stored, own)) => {
                if let Some(leader) = &leader {
                    leader.publish(Arc::new(Reply::Kept(Arc::clone(&stored))));
                }
                teller.slot.tell(Told::Good(stored, own));
            }
            (Err(Stop::Refused(refused)), _) => {
                if let Some(leader) = leader {
                    self.tell_failure(leader, &refused);
                }
                teller.slot.tell(Told::Refused(refused));
            }
            // What is dropped here was not whole, and whoever reads it sees that.
            _ => {}
        }
    }

    /// Those who follow get what is kept, where that may be; otherwise one of them leads.
    fn tell_failure(&self, leader: Leader<Reply>, refused: &Refused) {
        let spare = self.spare(clock::now());
        match super::failure(refused) {
            Some(failure) if spare.is_some_and(|spare| failure.placed || spare.may_replace_errors) => {
                leader.publish(Arc::new(Reply::Failed(failure)));
            }
            _ => self.hand_on(leader),
        }
    }

    /// The next leads; after a second failure nobody waits for a third.
    fn hand_on(&self, leader: Leader<Reply>) {
        if self.fetch.after {
            leader.release();
        }
    }

    fn keep(&self, head: Head, pieces: Vec<Bytes>, leader: &Leader<Reply>) {
        let Some(cache) = self.cache() else { return };
        if leader.is_outdated() {
            return;
        }
        cache.store.keep(self.fetch.key.clone(), Stored::new(head, pieces));
        // Who changed it after the first look may have looked here before it was kept.
        if leader.is_outdated() {
            cache.store.forget(self.fetch.key.as_ref());
        }
    }
}

impl Seen for Fill {
    fn see(&self, head: &ResponseHead, trail: Option<&str>, degraded: Option<Kind>) -> Option<String> {
        let degraded = degraded.is_some() || head.fields.named(b"sluice-degraded").next().is_some();
        self.state().sight = Some(Sight { head: head.clone(), trail: trail.map(str::to_owned), degraded });
        None
    }

    fn spare(&self, now: Instant) -> Option<Spare> {
        super::spare(&self.fetch.kept, self.fetch.stale_until, now).map(|(_, spare)| spare)
    }
}

// === impl State ===

impl State {
    fn times(&self, received: Instant) -> Times {
        Times { requested: self.requested, received, wall: clock::wall() }
    }
}

// === impl Take ===

impl Taker for Take {
    fn interim(&mut self, status: u16, written: &[u8]) {
        // Of one that waits to send its body, that was read before.
        if status != 100 && !self.0.alone {
            self.0.slot.tell_interim(status, written);
        }
    }

    fn head(&mut self, status: u16, written: &[u8]) {
        let mut state = self.0.state();
        state.phase = self.0.judge(status, written, &mut state).unwrap_or(Phase::Drop);
    }

    fn poll_take(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.0.state();
        match &mut state.phase {
            Phase::Keep(filling, _) | Phase::Pass(filling) => {
                let now = clock::now();
                if let Room::Awaited(until) = filling.poll_room(cx, now) {
                    if until.is_some_and(|until| self.1.poll(cx, until, now).is_ready()) {
                        cx.waker().wake_by_ref();
                    }
                    return Poll::Pending;
                }
                let taken = filling.append(data).map(|()| data.len());
                Poll::Ready(taken.map_err(|_| io::ErrorKind::BrokenPipe.into()))
            }
            Phase::Head | Phase::Good(..) | Phase::Again | Phase::Drop => {
                state.dropped += data.len();
                let few = state.dropped <= DROPPED_BYTES;
                Poll::Ready(if few { Ok(data.len()) } else { Err(io::ErrorKind::BrokenPipe.into()) })
            }
        }
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let state = self.0.state();
        let is_for_all = match &state.phase {
            Phase::Head | Phase::Pass(_) => false,
            Phase::Keep(filling, _) => !state.endless || filling.readers() > 0,
            Phase::Good(..) | Phase::Again | Phase::Drop => true,
        };
        let followed = || state.leader.as_ref().is_some_and(|leader| leader.followers() > 0);
        if self.0.alone || is_for_all || followed() { Poll::Pending } else { self.0.slot.poll_left(cx) }
    }
}

// === impl Wait ===

impl Wait {
    /// Waits for what comes of it.
    pub(super) async fn told(&self) -> Told {
        poll_fn(|cx| self.0.poll_told(cx)).await
    }

    /// What was noted of attempts so far; all of them once the answer is complete.
    pub(super) fn account(&self) -> Option<Account> {
        self.0.line().account.take()
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let mut line = self.0.line();
        line.left = true;
        let (told, waker) = (line.told.take(), line.fetch.take());
        drop(line);
        drop(told);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

// === impl Slot ===

impl Slot {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says it, unless something was said before.
    fn tell(&self, told: Told) {
        let mut line = self.line();
        if line.over {
            return;
        }
        line.over = true;
        // Of who has left nothing is to be kept waiting.
        let told = if line.left { Some(told) } else { line.told.replace(told) };
        let waker = line.client.take();
        drop(line);
        drop(told);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Says what comes before the rest.
    fn tell_interim(&self, status: u16, written: &[u8]) {
        let mut line = self.line();
        if line.over || line.left {
            return;
        }
        line.interims.push_back((status, written.to_vec()));
        if let Some(waker) = line.client.take() {
            drop(line);
            waker.wake();
        }
    }

    fn poll_told(&self, cx: &mut Context<'_>) -> Poll<Told> {
        let mut line = self.line();
        if let Some((status, written)) = line.interims.pop_front() {
            return Poll::Ready(Told::Interim { status, written });
        }
        if let Some(told) = line.told.take() {
            return Poll::Ready(told);
        }
        line.client = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_left(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut line = self.line();
        if line.left {
            return Poll::Ready(());
        }
        line.fetch = Some(cx.waker().clone());
        Poll::Pending
    }
}

// === impl Teller ===

impl Teller {
    fn account(&self, account: Account) {
        self.slot.line().account = Some(account);
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        // The task ends with it, and whoever waits for it sees that as for any answer that breaks off.
        if std::thread::panicking() {
            self.shared.metrics.panicked();
            tracing::error!("a request for what is kept panicked; please report this with the lines above");
        }
        self.slot.tell(Told::Broken);
    }
}

/// The fields of an answer, with the date when it came where it does not say when it was made (RFC 9110 §6.6.1): for whoever
/// gets it later, and in place of the date of what it updates, which would keep that as old as it was.
pub(super) fn dated(fields: &Fields) -> Cow<'_, Fields> {
    if fields.has(Known::Date) {
        return Cow::Borrowed(fields);
    }
    let (mut dated, mut line) = (fields.clone(), Vec::new());
    identity::date_field(&mut line);
    dated.push(b"date", line.trim_ascii().strip_prefix(b"date: ").unwrap_or_default());
    Cow::Owned(dated)
}

/// Errors in whose place something kept may be given (RFC 5861 §4).
fn is_error(status: u16) -> bool {
    matches!(status, 500 | 502 | 503 | 504)
}

/// Reads a head that we wrote, whichever version it was for.
fn parse(status: u16, written: &[u8]) -> Option<ResponseHead> {
    let mut head = ResponseHead::default();
    let read: Result<(), HeadError> = if written.starts_with(b"HTTP/1.1 ") {
        head.parse(written, FIELDS)
    } else {
        let line = format!("HTTP/1.1 {status} {}\r\n", respond::phrase(status));
        head.parse(&[line.as_bytes(), written, b"\r\n"].concat(), FIELDS)
    };
    read.ok().map(|()| head)
}

/// Bytes that are read of an answer which nobody gets, so that its provider's connection can be kept.
const DROPPED_BYTES: usize = 64 * 1024;

/// Fields of a head that we wrote: a provider's, and our own.
const FIELDS: usize = 2 * ANSWER_FIELDS;
