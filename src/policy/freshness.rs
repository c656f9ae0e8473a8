//! What a shared cache may keep and what it may do with it: RFC 9111, with RFC 5861 (stale replies) and RFC 9213 (targeted
//! fields).
//!
//! A request is [read](Asked::read) once. A reply to it that may be kept becomes [`Terms`]; a later request asks these what
//! the kept reply [is good for](Terms::decide). Time passes on the monotonic clock, from when the reply came; the wall clock
//! is looked at once, to compare it with what the origin's clock says.
//!
//! Where the specification leaves a choice:
//! - Where the origin does not say how long, the operator's `ttl` does, and without one a tenth of what a reply is old
//!   already (RFC 9111 §4.2.2), for a day at most. Nobody has said of such a reply that it may be shared, so it is kept only
//!   from requests without `Authorization` and `Cookie`, only if it sets no cookie, and is for such requests only.
//! - `Set-Cookie` does not keep an origin's explicit word from being followed (RFC 9111 §7.3).
//! - `s-maxage` forbids stale replies as `proxy-revalidate` does (§5.2.2.10), unless the same field permits them by
//!   `stale-while-revalidate` or `stale-if-error`: then the origin has said exactly what it wants. `must-revalidate`,
//!   `proxy-revalidate` and `no-cache` allow no exception. What the operator permits gives way to all of these.
//! - Directives of requests are followed, as far as they ask for more than freshness does.
//!
//! The crate `http-cache-semantics` was considered. It keeps one reply for each URL and copies both heads into maps for each
//! question; it knows neither of the two other specifications, nor partial content; it cuts quoted strings at their commas,
//! rewrites `Date`, takes the last of several lines of a field, and allows no stale reply under an operator's rules.

pub mod date;
pub mod directives;
pub mod invalidation;
pub mod ranges;
pub mod validators;
pub mod vary;

#[cfg(test)]
mod rfc5861_tests;
#[cfg(test)]
mod rfc9110_tests;
#[cfg(test)]
mod rfc9111_tests;
#[cfg(test)]
mod rfc9213_tests;

use crate::http1::fields::{Fields, elements};
use crate::instant::Instant;
use directives::{Ask, Reply, Span};
use ranges::Part;
use std::time::{Duration, SystemTime};
use validators::Tag;
use vary::Vary;

/// How a route's replies are kept, by its operator's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// For how long where the origin does not say; `None` leaves it to the age of what is kept.
    pub ttl: Option<Duration>,
    /// How long after it expired a reply may be sent while it is validated, where the origin does not say.
    pub stale_while_revalidate: Duration,
    /// How long after it expired a reply may be sent in place of an error, where the origin does not say.
    pub stale_if_error: Duration,
}

/// What a request is to a cache.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Its method.
    pub method: Method,
    /// What it says to caches.
    pub directives: Ask,
    /// It carries `Authorization`, or an `X-API-Key`, which is the same by another name.
    pub authorised: bool,
    /// It carries a `Cookie`.
    pub cookie: bool,
    /// It asks for a part.
    pub range: bool,
    /// It holds a copy and asks whether that is good still: `If-None-Match` or `If-Modified-Since`.
    pub conditional: bool,
    /// It has a condition that only an origin may evaluate (RFC 9111 §4.3.2): `If-Match` or `If-Unmodified-Since`.
    pub for_origin: bool,
}

/// A method, as far as a cache tells them apart.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// GET.
    #[default]
    Get,
    /// HEAD.
    Head,
    /// POST, which is kept only where an operator asks for it, by a key that holds its body.
    Post,
    /// Any other. Never kept.
    Other,
}

/// When a reply was asked for and when it came.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// When the request was sent to the provider.
    pub requested: Instant,
    /// When the reply's head came.
    pub received: Instant,
    /// The same on the wall clock.
    pub wall: SystemTime,
}

/// Why a reply is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unstorable {
    /// The request's method.
    Method,
    /// The request says `no-store`.
    RequestNoStore,
    /// The reply's status, which is not final, or which says `must-understand` and is not understood.
    Status,
    /// It is a part, but not one that can be used for others.
    Partial,
    /// The reply says `no-store`.
    NoStore,
    /// The reply says `private`.
    Private,
    /// The request was authorised, and the reply does not say that it is for others too.
    Authorised,
    /// Request or reply carries a cookie, and nothing says that the reply is for others too.
    Cookie,
    /// It says `Vary: *`, or varies by what is different in each request.
    Vary,
    /// Nothing says for how long, and its status is not one to assume anything for.
    Silent,
    /// It could never be sent again.
    Useless,
}

/// On what terms a kept reply may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    received: Instant,
    /// Its age when it came (RFC 9111 §4.2.3).
    initial_age: Duration,
    lifetime: Duration,
    /// `no-cache`: each use is validated.
    always_validate: bool,
    /// It must not be sent once it expired, whatever a request says.
    never_stale: bool,
    stale_while_revalidate: Duration,
    stale_if_error: Duration,
    /// Nobody said that it is for everybody: not for requests that tell who sends them.
    assumed: bool,
    /// Which requests it was chosen for.
    pub vary: Vary,
    /// Its entity tag.
    pub tag: Option<Tag>,
    /// When it was last modified, if that is a date.
    pub last_modified: Option<SystemTime>,
    /// When it was made; when it came, if it does not say.
    pub date: SystemTime,
    /// Which part of a representation it is; `None` where it is the whole.
    pub part: Option<Part>,
    /// Fields that must not be kept, in lower case.
    withheld: Vec<Box<[u8]>>,
}

/// What a kept reply is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// It is fresh.
    Fresh,
    /// It has expired, and the client said that it takes it so.
    Stale,
    /// It has expired and may be sent, while somebody validates it.
    StaleWhileRevalidate,
    /// It may be sent after it was validated. Where that ends in an error it may be sent until then all the same.
    MustValidate {
        /// The last moment.
        stale_if_error: Option<Instant>,
    },
    /// Not for this request, whatever a provider would say.
    Unusable,
}

// === impl Method ===

impl Method {
    /// By its name.
    #[must_use]
    pub fn of(name: &str) -> Self {
        match name {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "POST" => Method::Post,
            _ => Method::Other,
        }
    }
}

// === impl Asked ===

impl Asked {
    /// Reads a request.
    #[must_use]
    pub fn read(method: &str, fields: &Fields) -> Self {
        let mut asked = Asked { method: Method::of(method), ..Asked::default() };
        let (mut pragma, mut controlled) = (false, false);
        for (_, name, value) in fields.iter() {
            let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
            match name.len() {
                5 if is(b"range") => asked.range = true,
                6 if is(b"cookie") => asked.cookie = true,
                6 if is(b"pragma") => pragma |= elements(value).any(|word| word.eq_ignore_ascii_case(b"no-cache")),
                8 if is(b"if-match") => asked.for_origin = true,
                9 if is(b"x-api-key") => asked.authorised = true,
                13 if is(b"authorization") => asked.authorised = true,
                13 if is(b"if-none-match") => asked.conditional = true,
                13 if is(directives::CACHE_CONTROL) => {
                    controlled = true;
                    asked.directives.say(value);
                }
                17 if is(b"if-modified-since") => asked.conditional = true,
                19 if is(b"if-unmodified-since") => asked.for_origin = true,
                // A provider may take it for another method than it says.
                13 if is(b"x-http-method") => asked.for_origin = true,
                17 if is(b"x-method-override") => asked.for_origin = true,
                22 if is(b"x-http-method-override") => asked.for_origin = true,
                _ => {}
            }
        }
        asked.directives.no_cache |= pragma && !controlled;
        asked
    }

    /// Whether a kept reply may answer it at all. `keyed`: its body is in the key.
    #[must_use]
    pub fn may_be_answered(&self, keyed: bool) -> bool {
        let known = match self.method {
            Method::Get | Method::Head => true,
            Method::Post => keyed,
            Method::Other => false,
        };
        known && !self.for_origin
    }

    /// Whether it tells who sends it.
    fn is_personal(&self) -> bool {
        self.authorised || self.cookie
    }
}

// === impl Terms ===

impl Terms {
    /// On what terms a reply may be kept that came in answer to a request.
    ///
    /// `keyed`: the request's body is in its key.
    ///
    /// # Errors
    /// Why it may not.
    pub fn read(
        (asked, request): (&Asked, &Fields),
        keyed: bool,
        (status, reply): (u16, &Fields),
        rules: &Rules,
        times: Times,
    ) -> Result<Self, Unstorable> {
        let said = Reply::read(reply);
        permit(asked, keyed, status, &said)?;
        let part = match status {
            206 => Some(Part::read(reply).ok_or(Unstorable::Partial)?),
            _ => None,
        };
        let vary = Vary::read(reply, request).ok_or(Unstorable::Vary)?;
        let first = |name: &'static [u8]| reply.named(name).next();
        let moment = |name: &'static [u8]| date::parse(first(name)?, times.wall);
        let date = moment(b"date").unwrap_or(times.wall);
        let last_modified = moment(b"last-modified");
        let explicit = explicit_lifetime(&said, reply, date, times.wall);
        let assumed = explicit.is_none() && !said.public;
        if explicit.is_none() {
            if !said.public && !HEURISTIC.contains(&status) {
                return Err(Unstorable::Silent);
            }
            if assumed && (asked.is_personal() || first(b"set-cookie").is_some()) {
                return Err(if asked.authorised { Unstorable::Authorised } else { Unstorable::Cookie });
            }
        }
        let lifetime = explicit
            .or(rules.ttl)
            .or_else(|| Some((date.duration_since(last_modified?).ok()? / HEURISTIC_PART).min(HEURISTIC_MAX)));
        let strict = said.no_cache || said.must_revalidate || said.proxy_revalidate;
        let bounded = said.s_maxage.is_some();
        let stale = |own: Option<Span>, operators: Duration| match own.and_then(Span::duration) {
            _ if strict => Duration::ZERO,
            Some(own) => own,
            None if bounded => Duration::ZERO,
            None => operators,
        };
        let terms = Terms {
            received: times.received,
            initial_age: initial_age(reply, date, times),
            lifetime: lifetime.unwrap_or_default(),
            always_validate: said.no_cache,
            never_stale: strict || bounded,
            stale_while_revalidate: stale(said.stale_while_revalidate, rules.stale_while_revalidate),
            stale_if_error: stale(said.stale_if_error, rules.stale_if_error),
            assumed,
            vary,
            tag: first(b"etag").map(Tag::new),
            last_modified,
            date,
            part,
            withheld: said.withheld,
        };
        if terms.is_of_use() { Ok(terms) } else { Err(Unstorable::Useless) }
    }

    /// What the reply is good for, for a request that it matches.
    #[must_use]
    pub fn decide(&self, asked: &Asked, now: Instant) -> Use {
        if self.assumed && asked.is_personal() {
            return Use::Unusable;
        }
        let ask = &asked.directives;
        if self.always_validate {
            return Use::MustValidate { stale_if_error: None };
        }
        let seconds = |span: Option<Span>| span.and_then(Span::duration);
        let age = self.age(now);
        // A client prefers what was validated, and an old reply to an error (RFC 9111 §4.2.4, §5.2.1.4).
        if ask.no_cache {
            return self.must_validate(age, ask, now);
        }
        let too_old = seconds(ask.max_age).is_some_and(|max| age > max);
        let too_brief = seconds(ask.min_fresh).is_some_and(|min| self.lifetime < age.saturating_add(min));
        let Some(overdue) = age.checked_sub(self.lifetime) else {
            return if too_old || too_brief { self.must_validate(age, ask, now) } else { Use::Fresh };
        };
        if !too_old && !too_brief {
            if !self.never_stale && seconds(ask.max_stale).is_some_and(|max| overdue <= max) {
                return Use::Stale;
            }
            // Who says how old it may be does not want it stale, unless that is said too (RFC 9111 §5.2.1.1).
            let wants_fresh = seconds(ask.max_age).is_some() && ask.max_stale.is_none();
            if overdue < self.stale_while_revalidate && !wants_fresh {
                return Use::StaleWhileRevalidate;
            }
        }
        self.must_validate(age, ask, now)
    }

    /// Until when it may be given to this request in place of an error (RFC 5861 §4); `None` where it may not.
    #[must_use]
    pub fn stale_if_error_until(&self, asked: &Asked, now: Instant) -> Option<Instant> {
        self.in_place_of_errors(self.age(now), &asked.directives, now)
    }

    /// How old it is: what an `Age` field says.
    #[must_use]
    pub fn age(&self, now: Instant) -> Duration {
        self.initial_age.saturating_add(now.saturating_duration_since(self.received))
    }

    /// For how long it is fresh, counted from when it was made.
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Whether it may be sent as it is, if a request asks for no more.
    #[must_use]
    pub fn is_fresh(&self, now: Instant) -> bool {
        !self.always_validate && self.age(now) < self.lifetime
    }

    /// How long ago it expired; `None` where it has not.
    #[must_use]
    pub fn expired_for(&self, now: Instant) -> Option<Duration> {
        self.age(now).checked_sub(self.lifetime)
    }

    /// When it came.
    #[must_use]
    pub fn received(&self) -> Instant {
        self.received
    }

    /// The origin forbids to send it once it expired (`no-cache`, `must-revalidate`, `proxy-revalidate`, `s-maxage`): no
    /// operator's permission helps.
    #[must_use]
    pub fn forbids_stale(&self) -> bool {
        self.never_stale && self.stale_if_error.is_zero()
    }

    /// It has to be validated before the next use, whatever it said (RFC 9111 §4.3.5, §4.4).
    pub fn invalidate(&mut self) {
        self.always_validate = true;
    }

    /// The fields of a reply that are kept (RFC 9111 §3.1): not those that belong to the connection it came over, not those
    /// that it withholds, and neither its age nor its length, which are written anew with each use.
    #[must_use]
    pub fn kept(&self, reply: &Fields) -> Fields {
        self.part(reply, false)
    }

    /// The fields of a reply that it withholds: they are for who asked for it, and nobody else (RFC 9111 §5.2.2.4, §5.2.2.7).
    #[must_use]
    pub fn withheld(&self, reply: &Fields) -> Fields {
        self.part(reply, true)
    }

    /// Bytes it takes in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let withheld: usize = self.withheld.iter().map(|name| name.len() + size_of::<Box<[u8]>>()).sum();
        size_of::<Terms>() + self.vary.bytes() + self.tag.as_ref().map_or(0, Tag::bytes) + withheld
    }

    fn part(&self, reply: &Fields, withheld: bool) -> Fields {
        let options: Vec<&[u8]> = reply.named(b"connection").flat_map(elements).collect();
        reply.without(&|name| {
            let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
            NEVER_KEPT.iter().any(|other| is(other))
                || options.iter().any(|other| is(other))
                || self.withheld.iter().any(|other| is(other)) != withheld
        })
    }

    fn must_validate(&self, age: Duration, ask: &Ask, now: Instant) -> Use {
        Use::MustValidate { stale_if_error: self.in_place_of_errors(age, ask, now) }
    }

    fn in_place_of_errors(&self, age: Duration, ask: &Ask, now: Instant) -> Option<Instant> {
        let own = ask.stale_if_error.and_then(Span::duration).filter(|_| !self.never_stale);
        let until = self.lifetime.saturating_add(own.unwrap_or(self.stale_if_error)).saturating_sub(age);
        (!until.is_zero()).then(|| now.checked_add(until)).flatten()
    }

    /// Whether there can be a request that it answers.
    fn is_of_use(&self) -> bool {
        let can_be_validated = self.tag.is_some() || self.last_modified.is_some();
        let can_be_fresh = !self.always_validate && self.lifetime > self.initial_age;
        let can_be_stale = !self.stale_while_revalidate.is_zero() || !self.stale_if_error.is_zero();
        can_be_validated || can_be_fresh || can_be_stale
    }
}

/// Whether anything forbids to keep the reply (RFC 9111 §3).
fn permit(asked: &Asked, keyed: bool, status: u16, said: &Reply) -> Result<(), Unstorable> {
    let method = match asked.method {
        Method::Get => true,
        Method::Post => keyed,
        Method::Head | Method::Other => false,
    };
    // What has to be understood is, or is not kept; and where it is, `no-store` is for those who do not know that much.
    let no_store = said.no_store && !said.must_understand;
    let understood = (200..=599).contains(&status)
        && status != 304
        && !OF_ONE_CLIENT.contains(&status)
        && (!said.must_understand || UNDERSTOOD.contains(&status));
    let reasons = [
        (!method, Unstorable::Method),
        (asked.directives.no_store, Unstorable::RequestNoStore),
        (!understood, Unstorable::Status),
        (no_store, Unstorable::NoStore),
        (said.private, Unstorable::Private),
        (asked.authorised && !said.permits_authorised(), Unstorable::Authorised),
    ];
    reasons.into_iter().find(|(holds, _)| *holds).map_or(Ok(()), |(_, why)| Err(why))
}

/// For how long the origin says that the reply is fresh (RFC 9111 §4.2.1); what it says wrongly means not at all.
fn explicit_lifetime(said: &Reply, reply: &Fields, date: SystemTime, wall: SystemTime) -> Option<Duration> {
    if let Some(span) = said.s_maxage.or(said.max_age) {
        return Some(span.duration().unwrap_or_default());
    }
    if said.targeted {
        return None;
    }
    let expires = reply.named(b"expires").next()?;
    Some(date::parse(expires, wall).and_then(|expires| expires.duration_since(date).ok()).unwrap_or_default())
}

/// How old the reply was when it came (RFC 9111 §4.2.3).
fn initial_age(reply: &Fields, date: SystemTime, times: Times) -> Duration {
    let apparent = times.wall.duration_since(date).unwrap_or_default();
    // A list's first member counts, and what is no number does not (§5.1).
    let told = reply.named(b"age").next().and_then(|value| value.split(|byte| *byte == b',').next());
    let told = told.and_then(|value| Span::parse(value.trim_ascii()).duration()).unwrap_or_default();
    let delay = times.received.saturating_duration_since(times.requested);
    apparent.max(told + delay)
}

/// Statuses that may be kept where nothing says for how long (RFC 9110 §15.1).
const HEURISTIC: [u16; 12] = [200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501];
/// Statuses whose meaning for caches is followed here (RFC 9111 §5.2.2.3).
const UNDERSTOOD: [u16; 17] = [200, 203, 204, 206, 300, 301, 302, 303, 307, 308, 400, 404, 405, 410, 414, 451, 501];
/// What these say is about one client, and kept for nobody, whatever else is said (RFC 6585 §3 to §6).
const OF_ONE_CLIENT: [u16; 4] = [428, 429, 431, 511];
/// A reply that says nothing is fresh for a tenth of the time since it was last modified.
const HEURISTIC_PART: u32 = 10;
/// At most for a day: beyond that RFC 9111 §4.2.2 would have had a warning.
const HEURISTIC_MAX: Duration = Duration::from_hours(24);
/// Fields that are about one connection or one proxy (RFC 9111 §3.1), or that are written anew.
const NEVER_KEPT: [&[u8]; 12] = [
    b"connection",
    b"keep-alive",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
    b"proxy-authenticate",
    b"proxy-authentication-info",
    b"proxy-authorization",
    b"age",
    b"content-length",
];
