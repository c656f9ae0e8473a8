//! Providers whose every address is a member of its own: `discover: dns`.
//!
//! A [`Family`] is one such provider. A task asks for the addresses of its name again and again; an address that is new
//! becomes a member, one that is no longer told is drained. Each has connections, a circuit, a concurrency, checks and series
//! of its own; the rate is that of all together. Until the first answer the provider is its only member, and goes to whatever
//! its name leads to then. What operators say of the provider holds for every member, also for those that come later.
//!
//! What is known outlives an answer that fails or is empty: a nameserver that is down must not take down providers that are
//! up.

use super::endpoint::Endpoint;
use super::locked;
use super::pool::Provider;
use super::resolve::Lookup;
use super::state::State;
use crate::clock;
use crate::instant::Instant;
use crate::observe::metrics::{Metrics, ProviderMetrics};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{sleep, sleep_until};

/// One provider, and the members that its addresses are.
#[derive(Debug)]
pub struct Family {
    /// The provider as if it were one, with the pace of all.
    own: Arc<Endpoint>,
    /// Its pace is that of all, and so are an operator's orders.
    whole: Arc<State>,
    /// By address, in order. A std mutex: held for moments.
    members: Mutex<Vec<Relative>>,
    /// A member could not be reached: perhaps it has moved.
    lost: Arc<Notify>,
    task: OnceLock<AbortHandle>,
}

/// One of them.
#[derive(Debug, Clone)]
struct Relative {
    address: SocketAddr,
    name: Arc<str>,
    endpoint: Arc<Endpoint>,
    metrics: ProviderMetrics,
    state: Arc<State>,
}

/// A family has other addresses now.
#[derive(Debug)]
pub struct Found {
    /// Which.
    pub family: Weak<Family>,
    /// All of them, in order, at least one.
    pub addresses: Vec<SocketAddr>,
}

/// What becomes of addresses.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference {
    /// Those that stay.
    pub keep: Vec<SocketAddr>,
    /// Those that are new.
    pub add: Vec<SocketAddr>,
    /// Those that are gone.
    pub remove: Vec<SocketAddr>,
}

/// What has to be known to ask for a family's addresses.
pub(super) struct Search {
    pub(super) name: Arc<str>,
    pub(super) host: Box<str>,
    pub(super) port: u16,
    pub(super) lookup: Arc<dyn Lookup>,
    /// From one answer to the next question.
    pub(super) every: Duration,
    /// The same after a member could not be reached, at least.
    pub(super) pause: Duration,
}

/// What becomes of the addresses `old`, where there is no other than `new`. Each list in the order it came in, and nothing
/// twice.
#[must_use]
pub fn difference(old: &[SocketAddr], new: &[SocketAddr]) -> Difference {
    let (keep, remove) = old.iter().partition(|address| new.contains(address));
    let mut add = Vec::new();
    for address in new {
        if !old.contains(address) && !add.contains(address) {
            add.push(*address);
        }
    }
    Difference { keep, add, remove }
}

// === impl Family ===

impl Family {
    /// A family of one: `provider` itself.
    pub(super) fn new(own: Arc<Endpoint>, state: Arc<State>) -> Arc<Self> {
        let (members, lost, task) = Default::default();
        Arc::new(Family { own, whole: state, members, lost, task })
    }

    /// Whether it leads where `own` does.
    pub(super) fn is_at(&self, own: &Arc<Endpoint>) -> bool {
        Arc::ptr_eq(&self.own, own)
    }

    /// Its members, where `provider` is what the file says of all of them.
    pub(super) fn providers(&self, provider: &Arc<Provider>) -> Vec<Arc<Provider>> {
        let members = self.members();
        if members.is_empty() {
            return vec![Arc::clone(provider)];
        }
        let member = |relative: &Relative| {
            Arc::new(Provider {
                name: Arc::clone(&relative.name),
                config: Arc::clone(&provider.config),
                endpoint: Arc::clone(&relative.endpoint),
                metrics: relative.metrics.clone(),
                state: Arc::clone(&relative.state),
            })
        };
        members.iter().map(member).collect()
    }

    /// Takes these addresses for all there are.
    pub(super) fn set_addresses(&self, provider: &Provider, addresses: &[SocketAddr], metrics: &Metrics, now: Instant) {
        let mut members = self.members();
        let old: Vec<SocketAddr> = members.iter().map(|member| member.address).collect();
        let Difference { keep, add, remove } = difference(&old, addresses);
        // The first ones have to take what comes.
        let slowly = !members.is_empty();
        members.retain(|member| keep.contains(&member.address));
        for address in &add {
            let name: Arc<str> = format!("{}@{address}", provider.name).into();
            let lost = Arc::clone(&self.lost);
            let endpoint = Arc::new(self.own.toward(*address, &provider.config.connections, lost));
            let state = State::new(Arc::clone(&name), &provider.config, self.whole.pace(), slowly, now);
            // The lock is held since before: an order given meanwhile reaches it here or in `steer`.
            state.obey_as(&self.whole, now);
            members.push(Relative { address: *address, metrics: metrics.provider(&name), name, endpoint, state });
        }
        members.sort_unstable_by_key(|member| member.address);
        drop(members);
        let (provider, added, removed) = (&provider.name, named(&add), named(&remove));
        tracing::info!(%provider, %added, %removed, kept = keep.len(), "the provider has other addresses");
    }

    /// Has an operator's order done to the provider, all its members, and those that come later.
    pub(super) fn steer(&self, order: impl Fn(&State)) {
        let members = self.members();
        order(&self.whole);
        for member in &*members {
            order(&member.state);
        }
    }

    /// Looks for its addresses from now on, for as long as it lives. Only the first call does anything.
    pub(super) fn start(self: &Arc<Self>, search: Search, found: mpsc::Sender<Found>, runtime: &Handle) {
        let (family, lost) = (Arc::downgrade(self), Arc::clone(&self.lost));
        self.task.get_or_init(|| runtime.spawn(search.run(family, lost, found)).abort_handle());
    }

    fn members(&self) -> MutexGuard<'_, Vec<Relative>> {
        locked(&self.members)
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

// === impl Search ===

impl Search {
    async fn run(self, family: Weak<Family>, lost: Arc<Notify>, found: mpsc::Sender<Found>) {
        let (mut known, mut failing) = (Vec::new(), false);
        loop {
            let asked = clock::now();
            match self.ask().await {
                Ok(addresses) => {
                    if std::mem::take(&mut failing) {
                        tracing::info!(provider = %self.name, "DNS knows the provider again");
                    }
                    if addresses != known {
                        known.clone_from(&addresses);
                        let family = Weak::clone(&family);
                        if found.send(Found { family, addresses }).await.is_err() {
                            return;
                        }
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        let (provider, host) = (&self.name, &self.host);
                        tracing::warn!(%provider, %host, %error, "DNS does not know the provider; the addresses it had are used on until it does, see to its name");
                    }
                }
            }
            tokio::select! {
                () = sleep(self.every) => {}
                () = lost.notified() => sleep_until(clock::after(asked, self.pause).into()).await,
            }
        }
    }

    /// What DNS says now, in order, and nothing twice.
    async fn ask(&self) -> io::Result<Vec<SocketAddr>> {
        let (lookup, host, port) = (Arc::clone(&self.lookup), self.host.clone(), self.port);
        let mut found = tokio::task::spawn_blocking(move || lookup.lookup(&host, port)).await??;
        found.sort_unstable();
        found.dedup();
        if found.len() > MEMBERS {
            tracing::warn!(provider = %self.name, addresses = found.len(), "more addresses than members; the first {MEMBERS} are used");
            found.truncate(MEMBERS);
        }
        if found.is_empty() {
            return Err(io::Error::other("the name exists, but has no address"));
        }
        Ok(found)
    }
}

impl fmt::Debug for Search {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Search").field("name", &self.name).field("host", &self.host).finish_non_exhaustive()
    }
}

/// The first of them, and how many more.
fn named(addresses: &[SocketAddr]) -> String {
    let first: Vec<String> = addresses.iter().take(NAMED).map(SocketAddr::to_string).collect();
    let more = addresses.len().saturating_sub(NAMED);
    if more == 0 { first.join(", ") } else { format!("{} and {more} more", first.join(", ")) }
}

/// From one answer to the next question: as often as a record with a short time to live changes.
pub(super) const EVERY: Duration = Duration::from_secs(10);

/// The same after a member could not be reached: a member that is down is not a reason to ask all the time.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// Members of one provider. Further addresses are left out, the last in order first, so that all gateways leave out the same.
const MEMBERS: usize = 256;

/// Addresses that a log line names.
const NAMED: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{HashSet, VecDeque};

    type Answers = VecDeque<Result<Vec<u16>, &'static str>>;

    /// A nameserver that gives these answers, one after the other, then says that it has none.
    struct Scripted(Mutex<Answers>);

    impl Lookup for Scripted {
        fn lookup(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
            assert_eq!((host, port), ("a.test", 80));
            let next = self.0.lock().expect("nobody panicked").pop_front().unwrap_or(Err("no more"));
            next.map(addresses).map_err(io::Error::other)
        }
    }

    fn addresses(ports: impl IntoIterator<Item = u16>) -> Vec<SocketAddr> {
        ports.into_iter().map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect()
    }

    fn search(answers: Answers, every: Duration) -> (mpsc::Receiver<Found>, Arc<Notify>) {
        let lookup = Arc::new(Scripted(Mutex::new(answers)));
        let search = Search { name: "a".into(), host: "a.test".into(), port: 80, lookup, every, pause: Duration::ZERO };
        let ((found, discovered), lost) = (mpsc::channel(1), Arc::<Notify>::default());
        tokio::spawn(search.run(Weak::new(), Arc::clone(&lost), found));
        (discovered, lost)
    }

    async fn next(discovered: &mut mpsc::Receiver<Found>) -> Vec<SocketAddr> {
        let found = tokio::time::timeout(Duration::from_secs(20), discovered.recv()).await;
        found.expect("long before this").expect("the search goes on").addresses
    }

    proptest! {
        #[test]
        fn a_difference_is_all_there_is_and_all_there_was(
            old in prop::collection::hash_set(0_u16..12, 0..12),
            new in prop::collection::vec(0_u16..12, 0..20),
        ) {
            let (old, new) = (addresses(old), addresses(new));
            let Difference { keep, add, remove } = difference(&old, &new);
            prop_assert_eq!([&keep[..], &remove[..]].concat().into_iter().collect::<HashSet<_>>(), old.iter().copied().collect());
            let now = [&keep[..], &add[..]].concat();
            prop_assert_eq!(now.iter().collect::<HashSet<_>>(), new.iter().collect());
            prop_assert_eq!(now.len(), now.iter().collect::<HashSet<_>>().len(), "nothing twice");
            prop_assert!(add.iter().all(|address| !old.contains(address)));
        }
    }

    #[tokio::test]
    async fn an_answer_that_fails_or_is_empty_or_says_the_same_changes_nothing() {
        let answers = [Ok(vec![2, 1, 2]), Err("down"), Ok(vec![]), Err("down"), Ok(vec![1, 2]), Ok(vec![3])];
        let (mut discovered, _) = search(answers.into(), Duration::from_millis(1));
        assert_eq!(next(&mut discovered).await, addresses([1, 2]));
        assert_eq!(next(&mut discovered).await, addresses([3]));
    }

    #[tokio::test]
    async fn a_member_that_cannot_be_reached_is_a_reason_to_ask_again() {
        let (mut discovered, lost) = search([Ok(vec![1]), Ok(vec![2])].into(), Duration::from_hours(1));
        assert_eq!(next(&mut discovered).await, addresses([1]));
        lost.notify_one();
        assert_eq!(next(&mut discovered).await, addresses([2]));
    }

    #[tokio::test]
    async fn there_are_no_more_members_than_that() {
        let (mut discovered, _) = search([Ok((0..1000).collect())].into(), Duration::from_hours(1));
        assert_eq!(next(&mut discovered).await, addresses(0..256));
    }
}
