//! What is kept, whole, in memory.
//!
//! Entries are found by their key; each is a group of replies to the same URL that differ in what they
//! [vary by](crate::policy::freshness::vary). Groups never change: a change makes another group of the same replies, so who
//! reads one holds on to it without a lock.
//!
//! What goes when there is no more room is `quick_cache`'s to say: Clock-PRO in shards, by weight. It is scan-resistant (what
//! is asked for once does not push out what is asked for often, and what was pushed out and comes back is believed), a hit
//! takes a shared lock and writes one counter, and the weights are the bytes that an entry really takes, its overhead
//! included. Writing that again would be the larger half of this room.

use super::body::{PIECE_COST, Space};
use super::key::{self, Key};
use crate::http1::fields::Fields;
use crate::policy::freshness::validators::{self, AfterHead};
use crate::policy::freshness::{Asked, Method, Rules, Terms, Times, Unstorable};
use bytes::Bytes;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};
use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// All replies that are kept.
#[derive(Debug)]
pub struct Store {
    cache: Cache<Key, Arc<Group>, Weight, RandomState>,
    /// Changes of groups, one after the other.
    changes: Mutex<()>,
    /// By what stands before the URL in keys. There are as many as there were routes since the start, and at most
    /// [`PLACES`] more: what else chose who answers may be anybody's invention.
    routes: Mutex<BTreeMap<Box<[u8]>, Arc<Counts>>>,
    /// What bodies that are still coming in may hold beside.
    pub space: Arc<Space>,
}

/// The replies to one URL.
#[derive(Debug)]
pub struct Group {
    /// The latest first.
    replies: Vec<Arc<Stored>>,
    weight: u64,
    counts: Arc<Counts>,
}

/// The head of a reply as it is kept.
#[derive(Debug, Clone)]
pub struct Head {
    /// Its status.
    pub status: u16,
    /// Its fields, as far as they are kept.
    pub fields: Fields,
    /// On what terms it may be used.
    pub terms: Terms,
}

/// A reply that is kept.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its head.
    pub head: Head,
    /// Its body.
    pub body: Vec<Bytes>,
    /// Bytes of its body.
    pub len: u64,
}

/// What was asked, of a provider that has answered about a kept reply.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// The request.
    pub asked: &'a Asked,
    /// Its fields.
    pub request: &'a Fields,
    /// Whether its body is in its key.
    pub keyed: bool,
    /// The route's rules.
    pub rules: &'a Rules,
    /// When the answer came.
    pub times: Times,
}

/// What is to be purged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purge<'a> {
    /// Everything under this URL.
    Url(&'a str),
    /// Everything under URLs that begin so.
    Prefix(&'a str),
    /// Everything of this route.
    Route(&'a str),
}

/// What the store holds, for operators.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Figures {
    /// Replies.
    pub entries: u64,
    /// Bytes they take.
    pub bytes: u64,
    /// Bytes of bodies that are coming in.
    pub arriving_bytes: u64,
    /// Bytes there may be of both: `memory.cache`.
    pub capacity: u64,
    /// By route, in the order of their names.
    pub routes: Vec<RouteFigures>,
}

/// The same for one route.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct RouteFigures {
    /// Its name.
    pub route: String,
    /// Replies.
    pub entries: u64,
    /// Bytes they take.
    pub bytes: u64,
    /// Requests that were answered from them, ever.
    pub hits: u64,
}

/// What becomes of a kept reply that was updated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Replace,
    Leave,
    Remove,
}

#[derive(Debug, Default)]
struct Counts {
    hits: AtomicU64,
}

#[derive(Debug, Clone)]
struct Weight;

// === impl Store ===

impl Store {
    /// An empty store for `bytes` in all, bodies that are coming in included.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let capacity = kept_of(bytes);
        let shards = if capacity >= SHARD_MIN * SHARDS { SHARDS } else { 1 };
        let options = OptionsBuilder::new()
            .shards(shards as usize)
            .weight_capacity(capacity)
            .estimated_items_capacity((capacity / TYPICAL) as usize)
            .build()
            .expect("both capacities are given");
        let space = Space::new(bytes - capacity);
        space.set_whole(bytes);
        Store {
            cache: Cache::with_options(options, Weight, RandomState::new(), DefaultLifecycle::default()),
            changes: Mutex::default(),
            routes: Mutex::default(),
            space,
        }
    }

    /// Another bound from now on; what is too much is let go.
    pub fn set_bytes(&self, bytes: u64) {
        let capacity = kept_of(bytes);
        self.cache.set_capacity(capacity);
        self.space.set_total(bytes - capacity);
        self.space.set_whole(bytes);
    }

    /// The most that all replies to one URL may take together.
    #[must_use]
    pub fn largest(&self) -> u64 {
        self.cache.shard_capacity() / 2
    }

    /// The replies under a key, as [`Parts::write`](super::key::Parts::write) wrote it.
    #[must_use]
    pub fn find(&self, key: &[u8]) -> Option<Arc<Group>> {
        self.cache.get(key)
    }

    /// Keeps a reply, in place of those it was chosen like. Says whether there was room.
    pub fn keep(&self, key: Key, stored: Stored) -> bool {
        let _changes = self.change();
        let mut replies = self.replies(&key);
        replies.retain(|other| !stored.replaces(other));
        replies.push(Arc::new(stored));
        self.put(key, replies)
    }

    /// Brings kept replies up to date with a `304` (RFC 9111 §4.3.4), and gives the one that the request asked for; `None`
    /// where it is about none that is kept, so that the request has to be sent again without conditions.
    #[must_use]
    pub fn refresh(&self, key: &Key, update: &Fields, about: &About<'_>) -> Option<Arc<Stored>> {
        let _changes = self.change();
        let mut replies = self.replies(key);
        let nominated: Vec<usize> =
            (0..replies.len()).filter(|place| replies[*place].head.terms.vary.matches(about.request)).collect();
        let terms: Vec<&Terms> = nominated.iter().map(|place| &replies[*place].head.terms).collect();
        let selected = validators::selected(&terms, update, about.times.wall);
        let mut first = None;
        // From the back, so that places in front stay what they are.
        for place in selected.into_iter().map(|index| nominated[index]).rev() {
            let (stored, then) = replies[place].updated(update, about);
            let stored = Arc::new(stored);
            then.apply(&mut replies, place, &stored);
            first = Some(stored);
        }
        if first.is_some() {
            self.put(key.clone(), replies);
        }
        first
    }

    /// Takes an answer to HEAD into account (RFC 9111 §4.3.5).
    pub fn after_head(&self, key: &Key, head: &Fields, about: &About<'_>) {
        let _changes = self.change();
        let mut replies = self.replies(key);
        if replies.is_empty() {
            return;
        }
        for place in (0..replies.len()).rev() {
            let stored = &replies[place];
            let terms = &stored.head.terms;
            if stored.head.status != 200 || !terms.vary.matches(about.request) {
                continue;
            }
            let (changed, then) = match validators::after_head(terms, Some(stored.len), head, about.times.wall) {
                AfterHead::Update => stored.updated(head, about),
                AfterHead::Invalidate => {
                    let mut stored = Stored::clone(stored);
                    stored.head.terms.invalidate();
                    (stored, Then::Replace)
                }
            };
            then.apply(&mut replies, place, &Arc::new(changed));
        }
        self.put(key.clone(), replies);
    }

    /// Forgets the answers to GET under a URL, whatever route they came by (RFC 9111 §4.4: an unsafe request may be routed
    /// elsewhere than those that read). Says how many that were. What is on its way has to be
    /// [outdated](super::coalesce::Flights::outdate) first, with [`Purge::Url`].
    ///
    /// This costs a look for each route, where a purge looks at everything: it happens with every request that writes.
    pub fn invalidate(&self, url: &str) -> u64 {
        let fronts: Vec<Box<[u8]>> = self.routes().keys().cloned().collect();
        fronts.iter().map(|front| self.forget(&[front, url.as_bytes()].concat())).sum()
    }

    /// Forgets what was asked for, and says how many replies that were. What is on its way has to be
    /// [outdated](super::coalesce::Flights::outdate) first, with [`Purge::concerns`].
    pub fn purge(&self, what: &Purge<'_>) -> u64 {
        let _changes = self.change();
        let count = AtomicU64::new(0);
        self.cache.retain(|key, group| {
            let is_concerned = what.concerns(key.as_ref());
            if is_concerned {
                count.fetch_add(group.replies.len() as u64, Ordering::Relaxed);
            }
            !is_concerned
        });
        count.into_inner()
    }

    /// Forgets what is kept under one key; says how many replies that were.
    pub fn forget(&self, key: &[u8]) -> u64 {
        let _changes = self.change();
        self.cache.remove(key).map_or(0, |(_, group)| group.replies.len() as u64)
    }

    /// What it holds.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let mut routes: BTreeMap<Box<[u8]>, RouteFigures> = BTreeMap::new();
        for (front, counts) in self.routes().iter() {
            let route = key::route(front);
            let figures = routes.entry(route.into()).or_default();
            figures.route = String::from_utf8_lossy(route).into_owned();
            figures.hits += counts.hits.load(Ordering::Relaxed);
        }
        for (key, group) in self.cache.iter() {
            let Some(route) = routes.get_mut(key.route()) else { continue };
            route.entries += group.replies.len() as u64;
            route.bytes += group.weight;
        }
        let routes: Vec<RouteFigures> = routes.into_values().collect();
        Figures {
            entries: routes.iter().map(|route| route.entries).sum(),
            bytes: self.cache.weight(),
            arriving_bytes: self.space.used(),
            capacity: self.cache.capacity() + self.space.total(),
            routes,
        }
    }

    /// Bytes that are held now, bodies that are coming in or that somebody still reads included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        (self.cache.weight() + self.space.used()).max(self.space.alive())
    }

    fn replies(&self, key: &Key) -> Vec<Arc<Stored>> {
        self.cache.peek(key.as_ref()).map(|group| group.replies.clone()).unwrap_or_default()
    }

    /// Puts a group into the place of the one there was, its oldest replies left out where it would be too large.
    fn put(&self, key: Key, mut replies: Vec<Arc<Stored>>) -> bool {
        replies.sort_by_key(|stored| std::cmp::Reverse((stored.head.terms.date, stored.head.terms.received())));
        let own = key.bytes() as u64 + GROUP_COST;
        let (mut weight, largest) = (own, self.largest());
        let before = replies.len();
        replies.truncate(REPLIES);
        replies.retain(|stored| {
            let fits = weight + stored.weight() <= largest;
            weight += if fits { stored.weight() } else { 0 };
            fits
        });
        if replies.is_empty() {
            self.cache.remove(key.as_ref());
            return before == 0;
        }
        let Some(counts) = self.counts(&key) else {
            self.cache.remove(key.as_ref());
            return false;
        };
        self.cache.insert(key, Arc::new(Group { replies, weight, counts }));
        true
    }

    /// Where what answers this key is counted; `None` where there is no room for another place. Each of them is looked at with
    /// every request that writes, so that they have to be few.
    fn counts(&self, key: &Key) -> Option<Arc<Counts>> {
        let (front, mut routes) = (key.front(), self.routes());
        if let Some(counts) = routes.get(front) {
            return Some(Arc::clone(counts));
        }
        let is_place = |front: &[u8]| !front.ends_with(b"\0\0");
        let places = |routes: &BTreeMap<Box<[u8]>, _>| routes.keys().filter(|front| is_place(front)).count();
        if is_place(front) && places(&routes) >= PLACES {
            routes.retain(|front, counts| !is_place(front) || Arc::strong_count(counts) > 1);
            if places(&routes) >= PLACES {
                return None;
            }
        }
        Some(Arc::clone(routes.entry(front.into()).or_default()))
    }

    fn change(&self) -> MutexGuard<'_, ()> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn routes(&self) -> MutexGuard<'_, BTreeMap<Box<[u8]>, Arc<Counts>>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Group ===

impl Group {
    /// The replies that were chosen for requests like this one, the latest first (RFC 9111 §4), those last that do not say
    /// what they vary by: where others do, that was forgotten (§4.1).
    pub fn matching<'g>(&'g self, request: &'g Fields) -> impl Iterator<Item = &'g Arc<Stored>> {
        let vary = |stored: &'g Arc<Stored>| &stored.head.terms.vary;
        let varying =
            self.replies.iter().filter(move |stored| !vary(stored).is_empty() && vary(stored).matches(request));
        varying.chain(self.replies.iter().filter(move |stored| vary(stored).is_empty()))
    }

    /// All replies, the latest first.
    #[must_use]
    pub fn replies(&self) -> &[Arc<Stored>] {
        &self.replies
    }

    /// Counts a request that was answered from it.
    pub fn hit(&self) {
        self.counts.hits.fetch_add(1, Ordering::Relaxed);
    }
}

// === impl Stored ===

impl Stored {
    /// A reply with this body.
    #[must_use]
    pub fn new(head: Head, body: Vec<Bytes>) -> Self {
        let len = body.iter().map(|piece| piece.len() as u64).sum();
        Stored { head, body, len }
    }

    /// Bytes it takes in memory.
    #[must_use]
    pub fn weight(&self) -> u64 {
        let head = self.head.fields.size() + self.head.fields.len() * FIELD_COST + self.head.terms.bytes();
        head as u64 + REPLY_COST + self.len + self.body.len() as u64 * PIECE_COST
    }

    /// Whether it takes the place of another of the same group: it was chosen for the same requests, and holds as much.
    fn replaces(&self, other: &Stored) -> bool {
        let (own, other) = (&self.head.terms, &other.head.terms);
        own.vary.is_same(&other.vary) && (own.part.is_none() || own.part == other.part)
    }

    /// The same body with the fields of an update; and what becomes of what is kept.
    fn updated(&self, update: &Fields, about: &About<'_>) -> (Stored, Then) {
        let fields = validators::updated(&self.head.fields, update);
        let status = self.head.status;
        // The answer to HEAD speaks of a GET.
        let method = if about.asked.method == Method::Head { Method::Get } else { about.asked.method };
        let asked = Asked { method, ..about.asked.clone() };
        let read = Terms::read((&asked, about.request), about.keyed, (status, &fields), about.rules, about.times);
        let (terms, then) = match read {
            Ok(terms) => (terms, Then::Replace),
            // Who asks does not want its answer kept, or may not have it kept for others: what was kept before stays.
            Err(Unstorable::RequestNoStore | Unstorable::Authorised | Unstorable::Cookie) => {
                (self.head.terms.clone(), Then::Leave)
            }
            Err(_) => (self.head.terms.clone(), Then::Remove),
        };
        let fields = terms.kept(&fields);
        (Stored { head: Head { status, fields, terms }, body: self.body.clone(), len: self.len }, then)
    }
}

// === impl Then ===

impl Then {
    fn apply(self, replies: &mut Vec<Arc<Stored>>, place: usize, changed: &Arc<Stored>) {
        match self {
            Then::Replace => replies[place] = Arc::clone(changed),
            Then::Leave => {}
            Then::Remove => {
                replies.remove(place);
            }
        }
    }
}

// === impl Purge ===

impl Purge<'_> {
    /// Whether it is about what a key names.
    #[must_use]
    pub fn concerns(&self, written: &[u8]) -> bool {
        match self {
            Purge::Url(url) => key::is_asked_for_as(written, |asked| asked == url.as_bytes()),
            Purge::Prefix(prefix) => key::is_asked_for_as(written, |asked| asked.starts_with(prefix.as_bytes())),
            Purge::Route(route) => key::route(written) == route.as_bytes(),
        }
    }
}

// === impl Weight ===

impl Weighter<Key, Arc<Group>> for Weight {
    fn weight(&self, _: &Key, group: &Arc<Group>) -> u64 {
        group.weight
    }
}

/// What is whole may take of all bytes; bodies that are coming in have the rest.
fn kept_of(bytes: u64) -> u64 {
    bytes - bytes / ARRIVING_PART
}

/// One part in so many of all bytes is for bodies that are coming in.
const ARRIVING_PART: u64 = 8;
/// Replies to one URL that are kept beside each other; the oldest go.
pub const REPLIES: usize = 64;
/// Places of all routes of which anything is kept.
pub const PLACES: usize = 256;
/// Tables with a lock of their own, where each is large enough for large bodies.
const SHARDS: u64 = 4;
/// Bytes of a table that is worth a lock of its own.
const SHARD_MIN: u64 = 32 * 1024 * 1024;
/// Bytes of a typical entry, from which the number of entries is guessed that are remembered after they went.
const TYPICAL: u64 = 8 * 1024;
/// Bytes of a group beside its key and replies: its places in the tables, its counts, the allocator.
const GROUP_COST: u64 = 256;
/// Bytes of a reply beside its head and body.
const REPLY_COST: u64 = 192;
/// Bytes of a field beside its name and value.
const FIELD_COST: usize = 20;

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
