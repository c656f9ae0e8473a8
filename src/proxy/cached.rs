//! A request that what is kept may answer, and what is kept of what answers it.
//!
//! The order is RFC 9111's: look, decide, and only then ask a provider; of many who ask for the same at once, one does. The
//! parts are in [`crate::cache`] and [`crate::policy::freshness`]; here they meet a request.

mod deliver;
mod fetch;
mod key;

use super::attempt::Lent;
use super::dispatch::{self, Errand};
use super::exchange::{Answered, Broken, Seen, Spare};
use super::identity::Identity;
use super::record::Record;
use super::replay::Replay;
use super::respond::{Came, Refusal, Refused};
use super::{Here, Stop, forward, verdict, waiting};
use crate::cache::answer::Answer;
use crate::cache::coalesce::{Followed, Follower, Joined, Leader};
use crate::cache::key::Key;
use crate::cache::reply::{Cache, Failure, Reply};
use crate::cache::status::{Done, Forwarded, Status, Ttl, Why};
use crate::cache::store::{About, Head, Stored};
use crate::clock;
use crate::config;
use crate::http1::fields::{Fields, Known};
use crate::http1::framing::Length;
use crate::http1::head::ResponseHead;
use crate::instant::Instant;
use crate::policy::class::Class;
use crate::policy::freshness::{Asked, Method, Terms, Times, Use, invalidation};
use crate::policy::ladder::{Kind, Trigger};
use crate::upstream::pool::Pool;
use bytes::Bytes;
use deliver::{Beside, Content};
use fetch::{Fetch, Told, Wait};
use std::borrow::Cow;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

/// A request and what a cache sees in it.
#[derive(Debug)]
pub struct Question<'a> {
    errand: &'a Errand<'a>,
    here: &'a Here<'a>,
    pool: &'a Pool,
    cache: &'a Cache,
    rules: &'a config::Cache,
    asked: Asked,
    /// Its fields as far as they concern providers.
    fields: Cow<'a, Fields>,
    /// What its answer is found by.
    key: Vec<u8>,
    /// Its body, where that is in its key.
    body: Option<Bytes>,
    /// When its time began.
    started: Instant,
    /// What is kept for it, once that was looked for.
    look: Option<Look>,
}

/// What is kept for a question.
#[derive(Debug)]
struct Look {
    /// What answers it.
    hit: Option<(Arc<Stored>, Use)>,
    /// Why a provider is to be asked.
    why: Why,
    /// What may be good still, the latest first.
    kept: Vec<Arc<Stored>>,
    /// Until when the latest may be given in place of an error.
    stale_until: Option<Instant>,
}

/// A request that goes to a provider by itself.
#[derive(Debug)]
struct Alone<'a> {
    question: &'a Question<'a>,
    look: &'a Look,
    requested: Instant,
}

/// A request that may change what is kept.
#[derive(Debug)]
struct Writing<'a> {
    errand: &'a Errand<'a>,
    cache: &'a Cache,
}

/// Sends a request on that may change what other routes keep, on a route that keeps nothing (RFC 9111 §4.4).
///
/// # Errors
/// See [`Stop`].
pub async fn write(
    errand: &Errand<'_>,
    (pool, cache): (&Pool, &Cache),
    lent: &mut Lent<'_>,
    record: &mut Record<'_>,
) -> Result<Answered, Stop> {
    let writing = Writing { errand, cache };
    dispatch::send(&Errand { seen: Some(&writing), ..*errand }, pool, lent, record).await
}

// === impl Question ===

impl<'a> Question<'a> {
    /// A request on a route that keeps answers by these rules.
    ///
    /// # Errors
    /// There is no cache.
    pub fn new(errand: &'a Errand<'a>, rules: &'a config::Cache, here: &'a Here<'a>) -> Result<Self, Stop> {
        let (Some(pool), Some(cache)) = (&errand.route.pool, here.shared.cache.get()) else {
            // A route that keeps answers has a pool, and the cache is there before its snapshot is.
            return Err(Refused::new(Refusal::Internal, "There is no cache.").into());
        };
        let fields = &errand.request.head.fields;
        let ours = errand.caller.key_fields;
        let name = |known: Known| if known == Known::Authorization { &b"authorization"[..] } else { b"x-api-key" };
        // A key that we take out is nothing that a provider could answer by, and neither is what was for one hop only.
        let stays_here = |field: &[u8]| {
            ours.into_iter().flatten().any(|known| field.eq_ignore_ascii_case(name(known)))
                || forward::is_nominated(field, fields)
        };
        let any_stays = fields.has(Known::Connection) && fields.iter().any(|(_, field, _)| stays_here(field));
        let fields = if ours == [None, None] && !any_stays {
            Cow::Borrowed(fields)
        } else {
            Cow::Owned(fields.without(&stays_here))
        };
        let asked = Asked::read(errand.request.method, &fields);
        let started = errand.started;
        let (key, body, look) = (Vec::new(), None, None);
        Ok(Question { errand, here, pool, cache, rules, asked, fields, key, body, started, look })
    }

    /// Answers it at once, where a fresh reply is kept that can go out in one write. Most hits are such, and need none of
    /// what a request waits with.
    pub fn answer_at_once(&mut self, lent: &mut Lent<'_>, record: &mut Record<'_>) -> Option<Answered> {
        if self.passes_by().is_some() || self.asked.method == Method::Post {
            return None;
        }
        self.key = key::of(self.errand, None)?;
        self.look = Some(self.look(lent.now));
        let (stored, Use::Fresh) = self.look.as_ref()?.hit.as_ref()? else { return None };
        let (now, wall) = (lent.now, self.wall());
        let answer = Answer::of(&stored.head, Some(stored.len), (&self.asked, &self.fields), (now, wall), 0)?;
        let cached = told(&stored.head, Done::Hit, None, answer.age());
        let beside = Beside { cached: &cached, ..Beside::default() };
        let answered = deliver::give_at_once(self.errand, &answer, stored, &beside, lent)?;
        record.cache = Some("hit");
        self.count("hit");
        Some(answered)
    }

    /// Answers it from what is kept, or has a provider answer it.
    ///
    /// # Errors
    /// See [`Stop`].
    pub async fn serve(mut self, lent: &mut Lent<'_>, record: &mut Record<'_>) -> Result<Answered, Stop> {
        if let Some(why) = self.passes_by() {
            return self.alone(&Look::without(why), lent, record).await;
        }
        if self.asked.method == Method::Post && !self.read_body(lent).await? {
            return self.alone(&Look::without(Why::Bypass), lent, record).await;
        }
        if self.look.is_none() {
            match key::of(self.errand, self.body.as_deref()) {
                Some(key) => self.key = key,
                None => return self.alone(&Look::without(Why::Bypass), lent, record).await,
            }
        }
        let look = self.look.take().unwrap_or_else(|| self.look(lent.now));
        self.answer(look, lent, record).await
    }

    /// The wall clock, where the request says anything that is compared with it.
    fn wall(&self) -> SystemTime {
        if self.asked.conditional || self.asked.range { clock::wall() } else { SystemTime::UNIX_EPOCH }
    }

    /// Why nothing that is kept can have to do with it, if so.
    fn passes_by(&self) -> Option<Why> {
        let request = self.errand.request;
        let bodiless = matches!(request.length, Length::None | Length::Exact(0));
        // A GET with a body asks by something that is in no key.
        match self.asked.method {
            _ if request.upgrade => Some(Why::Bypass),
            Method::Get | Method::Head if !bodiless => Some(Why::Bypass),
            Method::Other => Some(Why::Method),
            Method::Post if !self.rules.post => Some(Why::Method),
            Method::Post if forward::is_grpc(&request.head.fields) => Some(Why::Method),
            _ if self.asked.for_origin => Some(Why::Bypass),
            _ => None,
        }
    }

    /// Reads the whole body, as far as it may be kept; whether that is all of it.
    async fn read_body(&mut self, lent: &mut Lent<'_>) -> Result<bool, Stop> {
        let request = self.errand.request;
        let room = self.errand.route.config.retry.replay_bytes;
        if !matches!(request.length, Length::None | Length::Exact(0)) {
            lent.replay = Replay::new(room, self.pool.hold(0, self.errand.caller.part));
        }
        let begun = lent.now;
        let kept = waiting::for_body(self.errand, None, lent).await?;
        // A client's own time is nobody else's.
        self.started = clock::after(self.started, lent.now.saturating_duration_since(begun));
        if kept {
            self.body = Some(lent.replay.copy().into());
        }
        Ok(kept)
    }

    /// Looks at what is kept.
    fn look(&self, now: Instant) -> Look {
        let mut look = Look::without(Why::UriMiss);
        let Some(group) = self.cache.store.find(&self.key) else { return look };
        look.why = Why::VaryMiss;
        for stored in group.matching(&self.fields) {
            let terms = &stored.head.terms;
            let used = terms.decide(&self.asked, now);
            match used {
                Use::Unusable => {
                    if look.why == Why::VaryMiss {
                        look.why = Why::Miss;
                    }
                }
                _ if terms.part.is_some() => look.why = Why::Partial,
                Use::MustValidate { stale_if_error } => {
                    if look.kept.is_empty() {
                        look.why = if terms.is_fresh(now) { Why::Request } else { Why::Stale };
                        look.stale_until = stale_if_error;
                    }
                    look.kept.push(Arc::clone(stored));
                }
                // The latest counts, and what is older only for what it says of itself (RFC 9111 §4).
                Use::Fresh | Use::Stale | Use::StaleWhileRevalidate if look.kept.is_empty() => {
                    group.hit();
                    look.hit = Some((Arc::clone(stored), used));
                    return look;
                }
                Use::Fresh | Use::Stale | Use::StaleWhileRevalidate => {}
            }
        }
        look
    }

    /// Answers it from what is kept; where nothing answers it, by what one request for all brings.
    async fn answer(&self, mut look: Look, lent: &mut Lent<'_>, record: &mut Record<'_>) -> Result<Answered, Stop> {
        if let Some((stored, used)) = look.hit.take() {
            return self.hit(&stored, used, lent, record).await;
        }
        let ask = &self.asked.directives;
        if ask.only_if_cached {
            record.cache = Some("miss");
            self.count("miss");
            return Err(Refused::new(Refusal::NotCached, "Nothing that is kept answers this request.").into());
        }
        let by_itself = self.asked.method == Method::Head || ask.no_store || (self.asked.range && look.kept.is_empty());
        if by_itself {
            return self.alone(&look, lent, record).await;
        }
        // Where nobody is in service, who comes is no more than a probe; what is kept is there at once.
        if self.errand.route.ladder.is_none()
            && self.pool.is_down(lent.now)
            && let Some(failure) = failure(&Refused::new(Refusal::NoProvider, "No provider is in service."))
            && let Some(stored) = look.in_place_of(&failure)
        {
            // Only a probe that could be made is begun: otherwise each of these would be refused one in the background.
            if self.pool.may_be_probed(lent.now) {
                self.refresh(&look, lent.now);
            }
            return self.stale(stored, &failure, lent, record).await;
        }
        self.join(&look, lent, record).await
    }

    /// Brings the reply for all who want the same, or is given what another brings.
    async fn join(&self, look: &Look, lent: &mut Lent<'_>, record: &mut Record<'_>) -> Result<Answered, Stop> {
        let mut flight = self.flight(self.errand.caller.class);
        if self.asked.authorised || self.asked.cookie {
            // What one of these brings is mostly for nobody else, and says nothing of the others.
            flight.extend_from_slice(PERSONAL);
        }
        // Varying replies send a request on once for each kind that is under way just then.
        for _ in 0..FLIGHTS {
            let reply = match self.cache.flights.join(&flight, clock::now()) {
                Joined::Alone => break,
                Joined::Published(reply) => reply,
                Joined::Lead(leader) => return self.lead(leader, false, lent, record).await,
                Joined::Follow(follower) => match self.follow(follower, lent).await? {
                    Some(Followed::Alone) => break,
                    Some(Followed::Published(reply)) => reply,
                    Some(Followed::Lead(leader)) => return self.lead(leader, true, lent, record).await,
                    None => return self.late(look, lent, record).await,
                },
            };
            let terms = match &*reply {
                Reply::Kept(stored) => &stored.head.terms,
                Reply::Coming { head, .. } => &head.terms,
                Reply::Failed(failure) => match look.in_place_of(failure) {
                    Some(stored) => return self.stale(stored, failure, lent, record).await,
                    None => break,
                },
            };
            if !terms.vary.matches(&self.fields) {
                terms.vary.write(&self.fields, &mut flight);
                continue;
            }
            let now = clock::now();
            // What has to be validated for each use was for its own client only.
            let answers = match terms.decide(&self.asked, now) {
                Use::Fresh | Use::Stale | Use::StaleWhileRevalidate => true,
                // It wants what is new, and this is.
                Use::MustValidate { .. } => terms.is_fresh(now) && terms.received() >= self.started,
                Use::Unusable => false,
            };
            if !answers {
                break;
            }
            let reader = match &*reply {
                Reply::Kept(_) | Reply::Failed(_) => None,
                Reply::Coming { source, .. } => match source.reader() {
                    Some(reader) => Some(reader),
                    None => break,
                },
            };
            record.cache = Some("collapsed");
            self.count("collapsed");
            let done = Forwarded { why: look.why, status: None, stored: false, collapsed: true };
            return self.give_reply(&reply, reader, Done::Forwarded(done), (None, None), lent).await;
        }
        self.alone(look, lent, record).await
    }

    /// What brings its reply for others is known by. Who is urgent does not wait behind who is not.
    fn flight(&self, class: Class) -> Vec<u8> {
        [&self.key[..], b"\0", class.as_str().as_bytes()].concat()
    }

    /// Waits for who brings the reply; `None` where the time is over before.
    async fn follow(
        &self,
        mut follower: Follower<Reply>,
        lent: &mut Lent<'_>,
    ) -> Result<Option<Followed<Reply>>, Stop> {
        let waits = tokio::time::timeout_at(self.deadline().into(), poll_fn(|cx| follower.poll(cx)));
        let waited = Box::pin(waiting::watching(waits, lent)).await?;
        Ok(waited.ok())
    }

    /// Its time was over while another brought the reply.
    async fn late(&self, look: &Look, lent: &mut Lent<'_>, record: &mut Record<'_>) -> Result<Answered, Stop> {
        let refused = verdict::refuse_broken(&Broken::Deadline { full: true });
        record.cache = Some("miss");
        if let Some(failure) = failure(&refused)
            && let Some(stored) = look.in_place_of(&failure)
        {
            return self.stale(stored, &failure, lent, record).await;
        }
        self.count("miss");
        Err(refused.into())
    }

    /// When its time is over.
    fn deadline(&self) -> Instant {
        let (own, route) = (self.errand.caller.timeout, self.errand.route.config.timeout);
        clock::after(self.started, own.map_or(route, |own| own.min(route)))
    }

    /// Brings the reply for all. `after`: whoever was to do it has failed.
    async fn lead(
        &self,
        leader: Leader<Reply>,
        after: bool,
        lent: &mut Lent<'_>,
        record: &mut Record<'_>,
    ) -> Result<Answered, Stop> {
        // Whoever led a moment ago may have brought it.
        let now = clock::now();
        let mut look = self.look(now);
        if let Some((stored, used)) = look.hit.take() {
            drop(leader);
            return self.hit(&stored, used, lent, record).await;
        }
        let fetch = Fetch { after, ..self.fetch(&look, self.errand.identity.clone(), self.started) };
        let wait = fetch::begin(fetch, leader, false);
        // A client in a hurry has less time than the request that is made for all.
        let hurries = self.errand.caller.timeout.is_some_and(|own| own < self.errand.route.config.timeout);
        let until = hurries.then(|| self.deadline().into());
        let told = loop {
            let told = async {
                match until {
                    Some(until) => tokio::time::timeout_at(until, wait.told()).await.ok(),
                    None => Some(wait.told().await),
                }
            };
            let Some(told) = Box::pin(waiting::watching(told, lent)).await? else {
                return self.late(&look, lent, record).await;
            };
            match told {
                Told::Interim { status, written } => {
                    lent.client.out().extend_from_slice(&written);
                    lent.client.send_interim(status);
                    // What does not go out at once goes with what follows.
                    let _: Poll<io::Result<()>> = poll_fn(|cx| Poll::Ready(lent.client.poll_flush(cx))).await;
                }
                told => break told,
            }
        };
        let answered = self.take(told, &look, lent, record).await;
        if let Some(account) = wait.account() {
            record.enter(account);
        }
        answered
    }

    /// Gives the client what was brought for it.
    async fn take(
        &self,
        told: Told,
        look: &Look,
        lent: &mut Lent<'_>,
        record: &mut Record<'_>,
    ) -> Result<Answered, Stop> {
        let forwarded = Forwarded { why: look.why, status: None, stored: false, collapsed: false };
        record.cache = Some("miss");
        let refused = match told {
            Told::Good(stored, own) => {
                record.cache = Some("revalidated");
                self.count("revalidated");
                let done = Done::Forwarded(Forwarded { status: Some(304), stored: true, ..forwarded });
                let beside = Beside { fetched: true, own: Some(&own), ..Beside::default() };
                return self.give(&stored, done, None, beside, lent).await;
            }
            Told::Reply { reply, reader, own, trail } => {
                self.count("miss");
                let done = Done::Forwarded(Forwarded { stored: true, ..forwarded });
                return self.give_reply(&reply, reader, done, (trail.as_deref(), Some(&own)), lent).await;
            }
            Told::Passed { head, reader } => {
                self.count("miss");
                let mut cached = String::new();
                Status { done: Done::Forwarded(forwarded), ttl: None, detail: None }.write(&mut cached);
                let content = reader.map_or_else(|| Content::pieces(Vec::new()), Content::Coming);
                return deliver::pass_on(self.errand, *head, content, &cached, lent).await;
            }
            Told::Failed(failure) => match look.kept.first() {
                Some(stored) => return self.stale(stored, &failure, lent, record).await,
                None => verdict::unkept(),
            },
            Told::Refused(refused) => {
                if let Some(failure) = failure(&refused)
                    && let Some(stored) = look.in_place_of(&failure)
                {
                    return self.stale(stored, &failure, lent, record).await;
                }
                *refused
            }
            Told::Broken | Told::Interim { .. } => verdict::refuse_broken(&Broken::Reset { silent: false }),
        };
        self.count("miss");
        Err(refused.into())
    }

    /// Everything that a fetch needs of it.
    fn fetch(&self, look: &Look, identity: Identity, started: Instant) -> Fetch {
        let (here, errand) = (self.here, self.errand);
        let is_own = |route: &super::snapshot::Route| std::ptr::eq(route, errand.route);
        Fetch {
            shared: Arc::clone(here.shared),
            snapshot: Arc::clone(here.snapshot),
            listener: Arc::clone(here.listener),
            peer: errand.peer.clone(),
            identity,
            route: here.snapshot.routes.iter().position(is_own).unwrap_or_default(),
            rules: *self.rules,
            head: errand.request.head.clone(),
            fields: self.fields.clone().into_owned(),
            asked: Asked { method: if self.body.is_some() { Method::Post } else { Method::Get }, ..self.asked.clone() },
            body: self.body.clone().unwrap_or_default(),
            keyed: self.body.is_some(),
            key: Key::new(&self.key),
            kept: look.kept.clone(),
            stale_until: look.stale_until,
            after: false,
            worker: here.worker,
            started,
        }
    }

    /// Answers from what is kept.
    async fn hit(
        &self,
        stored: &Arc<Stored>,
        used: Use,
        lent: &mut Lent<'_>,
        record: &mut Record<'_>,
    ) -> Result<Answered, Stop> {
        let (result, detail) = match used {
            Use::StaleWhileRevalidate => ("stale", Some("stale-while-revalidate")),
            Use::Stale => ("stale", Some("max-stale")),
            _ => ("hit", None),
        };
        record.cache = Some(result);
        self.count(result);
        if used == Use::StaleWhileRevalidate {
            // Whoever comes after this time follows this fetch, and is not to wait until a circuit may be probed either.
            let stale_until = stored.head.terms.stale_if_error_until(&self.asked, lent.now);
            let look = Look { kept: vec![Arc::clone(stored)], stale_until, ..Look::without(Why::Stale) };
            self.refresh(&look, lent.now);
        }
        self.give(stored, Done::Hit, detail, Beside::default(), lent).await
    }

    /// Has a provider asked in the background, unless one is.
    fn refresh(&self, look: &Look, now: Instant) {
        if let Joined::Lead(leader) = self.cache.flights.join(&self.flight(Class::Low), now) {
            let random = (fastrand::u128(..), fastrand::u64(..));
            let fetch = self.fetch(look, Identity::new(&Fields::default(), false, random), now);
            let _: Wait = fetch::begin(fetch, leader, true);
        }
    }

    /// Answers with what is kept in place of an error, or because a rung says so: both are the ladder's `stale`.
    async fn stale(
        &self,
        stored: &Arc<Stored>,
        failure: &Failure,
        lent: &mut Lent<'_>,
        record: &mut Record<'_>,
    ) -> Result<Answered, Stop> {
        let route = self.errand.route;
        record.cache = Some("stale");
        self.count("stale");
        record.degraded = Some(Kind::Stale.as_str());
        record.reason = failure.fell.map(Trigger::as_str);
        route.metrics.degraded(Kind::Stale);
        if let Some(ladder) = &route.ladder {
            ladder.live.answered(Kind::Stale, failure.fell, clock::now());
        }
        let forwarded = Forwarded { why: Why::Stale, status: failure.status, stored: false, collapsed: false };
        let done = if failure.status.is_some() { Done::Forwarded(forwarded) } else { Done::Hit };
        let detail = if failure.placed { "stale" } else { "stale-if-error" };
        let beside = Beside { trail: failure.trail.as_deref(), degraded: Some(Kind::Stale), ..Beside::default() };
        self.give(stored, done, Some(detail), beside, lent).await
    }

    async fn give_reply(
        &self,
        reply: &Reply,
        reader: Option<crate::cache::body::Reader>,
        done: Done,
        (trail, own): (Option<&str>, Option<&Fields>),
        lent: &mut Lent<'_>,
    ) -> Result<Answered, Stop> {
        let (head, len) = match reply {
            Reply::Kept(stored) => {
                let beside = Beside { fetched: true, trail, ..Beside::default() };
                return self.give(stored, done, None, beside, lent).await;
            }
            Reply::Coming { head, len, .. } => (head, *len),
            Reply::Failed(_) => return Err(verdict::unkept().into()),
        };
        let (now, wall) = (clock::now(), clock::wall());
        // A part is cut from what is whole, and this is not yet.
        let asked = Asked { range: false, ..self.asked.clone() };
        let Some(answer) = Answer::of(head, len, (&asked, &self.fields), (now, wall), 0) else {
            return Err(verdict::unkept().into());
        };
        let content = match reader {
            Some(reader) if answer.is_whole() => Content::Coming(reader),
            _ => Content::pieces(Vec::new()),
        };
        let cached = told(head, done, None, answer.age());
        let beside = Beside { cached: &cached, fetched: true, own, trail, degraded: None };
        deliver::give(self.errand, &answer, (len, content), &beside, lent).await
    }

    /// Gives what a kept reply comes to.
    async fn give(
        &self,
        stored: &Arc<Stored>,
        done: Done,
        detail: Option<&'static str>,
        beside: Beside<'_>,
        lent: &mut Lent<'_>,
    ) -> Result<Answered, Stop> {
        let (now, wall) = (clock::now(), clock::wall());
        let asked = (&self.asked, &*self.fields);
        let Some(answer) = Answer::of(&stored.head, Some(stored.len), asked, (now, wall), fastrand::u64(..)) else {
            return Err(verdict::unkept().into());
        };
        let cached = told(&stored.head, done, detail, answer.age());
        let pieces = answer.pieces(stored);
        let length = pieces.iter().map(|piece| piece.len() as u64).sum();
        let beside = Beside { cached: &cached, ..beside };
        deliver::give(self.errand, &answer, (Some(length), Content::pieces(pieces)), &beside, lent).await
    }

    /// Sends it to a provider by itself.
    async fn alone(&self, look: &Look, lent: &mut Lent<'_>, record: &mut Record<'_>) -> Result<Answered, Stop> {
        let alone = Alone { question: self, look, requested: clock::now() };
        let errand = Errand { seen: Some(&alone), started: self.started, ..*self.errand };
        let result = if matches!(look.why, Why::Bypass | Why::Method) { "bypass" } else { "miss" };
        record.cache = Some(result);
        let sent = dispatch::send(&errand, self.pool, lent, record).await;
        if let (Err(Stop::Refused(refused)), None) = (&sent, lent.opened)
            && let Some(failure) = failure(refused)
            && let Some(stored) = look.in_place_of(&failure)
        {
            return self.stale(stored, &failure, lent, record).await;
        }
        self.count(result);
        sent
    }

    fn count(&self, result: &'static str) {
        self.errand.route.metrics.cached(result);
    }
}

// === impl Look ===

impl Look {
    /// Nothing is kept that has to do with it.
    fn without(why: Why) -> Self {
        Look { hit: None, why, kept: Vec::new(), stale_until: None }
    }

    /// What may be given because of a failure.
    fn in_place_of(&self, failure: &Failure) -> Option<&Arc<Stored>> {
        let (stored, spare) = spare(&self.kept, self.stale_until, clock::now())?;
        (failure.placed || spare.may_replace_errors).then_some(stored)
    }
}

// === impl Alone ===

impl Seen for Alone<'_> {
    fn see(&self, head: &ResponseHead, _: Option<&str>, degraded: Option<Kind>) -> Option<String> {
        let Alone { question, look, requested } = self;
        let Question { errand, cache, rules, asked, fields, key, .. } = question;
        let times = Times { requested: *requested, received: clock::now(), wall: clock::wall() };
        match asked.method {
            // What a rung answers is no word on what is kept.
            Method::Get | Method::Head if degraded.is_some() => {}
            Method::Head if head.status == 200 && !key.is_empty() => {
                let about = About { asked, request: fields, keyed: false, rules: &rules.rules, times };
                cache.store.after_head(&Key::new(key), &fetch::dated(&head.fields), &about);
            }
            Method::Get if !key.is_empty() => {
                let reply = (head.status, &head.fields);
                if Terms::read((asked, fields), false, reply, &rules.rules, times).is_ok() {
                    cache.flights.forgive(&question.flight(errand.caller.class));
                }
            }
            // By the operator's word these change nothing.
            Method::Post if rules.post => {}
            _ => invalidate(errand, cache, head),
        }
        let mut said = String::new();
        let forwarded = Forwarded { why: look.why, status: None, stored: false, collapsed: false };
        Status { done: Done::Forwarded(forwarded), ttl: None, detail: None }.write(&mut said);
        Some(said)
    }

    fn spare(&self, now: Instant) -> Option<Spare> {
        spare(&self.look.kept, self.look.stale_until, now).map(|(_, spare)| spare)
    }
}

// === impl Writing ===

impl Seen for Writing<'_> {
    fn see(&self, head: &ResponseHead, _: Option<&str>, _: Option<Kind>) -> Option<String> {
        invalidate(self.errand, self.cache, head);
        None
    }
}

/// What of `kept`, the latest first, could answer where nobody else does: the latest may replace errors until then, and what
/// its origin does not forbid is there for a rung, however old.
fn spare(kept: &[Arc<Stored>], until: Option<Instant>, now: Instant) -> Option<(&Arc<Stored>, Spare)> {
    let may_replace_errors = until.is_some_and(|until| now <= until);
    let stored = kept.iter().find(|stored| may_replace_errors || !stored.head.terms.forbids_stale())?;
    let expired_for = stored.head.terms.expired_for(now).unwrap_or_default();
    Some((stored, Spare { expired_for, may_replace_errors }))
}

/// The failure that this refusal would tell the client of; `None` where the request itself is at fault.
fn failure(refused: &Refused) -> Option<Failure> {
    let (placed, fell) = match refused.stale {
        Some(Came::First) => (true, None),
        Some(Came::Fell(why)) => (true, Some(why)),
        None if refused.refusal.status() < 500 => return None,
        None => (false, Some(refused.refusal.trigger().unwrap_or(Trigger::AttemptsExhausted))),
    };
    Some(Failure { fell, placed, status: None, trail: fell.map(|_| refused.proxy_status()) })
}

/// What a request names has changed, if its answer is no error, and so has what that names.
fn invalidate(errand: &Errand<'_>, cache: &Cache, answer: &ResponseHead) {
    let request = errand.request;
    if !invalidation::invalidates(request.method, answer.status) {
        return;
    }
    let Some(key) = key::of(errand, None).map(|key| Key::new(&key)) else { return };
    let Ok(url) = str::from_utf8(key.url()) else { return };
    cache.invalidate(url);
    let Some((scheme, rest)) = url.split_once("://") else { return };
    let authority = rest.split('/').next().unwrap_or(rest);
    // A trusted peer may name a host beside its own, and the answer either.
    for host in authority.split(',') {
        for target in invalidation::also(&answer.fields, scheme, host, request.path) {
            cache.invalidate(&format!("{scheme}://{host}{target}"));
        }
    }
}

/// What `Cache-Status` says of a reply that is given.
fn told(head: &Head, done: Done, detail: Option<&'static str>, age: Duration) -> String {
    let lifetime = head.terms.lifetime();
    let ttl = age.checked_sub(lifetime).map_or(Ttl::Left(lifetime.saturating_sub(age)), Ttl::Over);
    let mut said = String::with_capacity(STATUS_EXPECTED);
    Status { done, ttl: Some(ttl), detail }.write(&mut said);
    said
}

/// Kinds of one varying reply that a request waits for, before it goes alone.
const FLIGHTS: usize = 4;

/// What sets the key of requests that tell who sends them apart, while they are under way.
const PERSONAL: &[u8] = b"\0personal";

/// Room made for `Cache-Status`.
const STATUS_EXPECTED: usize = 48;
