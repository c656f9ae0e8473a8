//! What is alive, found again by name after a reload.

use super::buffers::Buffers;
use super::degrade;
use super::discover::{self, Family, Found, Search};
use super::endpoint::Endpoint;
use super::health::Checks;
use super::locked;
use super::pool::{Live, Member, Members, Pool, Provider};
use super::resolve::System;
use super::state::{self, State};
use super::tls::TlsError;
use crate::clock;
use crate::config::{self, BalanceRule, Config};
use crate::instant::Instant;
use crate::observe::metrics::Metrics;
use crate::overrides::Steered;
use crate::policy::balance::{Algorithm, Balance};
use crate::policy::degrade::Rung;
use crate::policy::overrides::{Change, Kind, Target};
use crate::policy::pace::Pace;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, Weak};
use tokio::runtime::{EnterGuard, Handle};
use tokio::sync::mpsc;

/// The live state of everything that has a name. Only a reload touches it, one at a time; requests see snapshots.
#[derive(Debug)]
pub struct Registry {
    endpoints: HashMap<Arc<str>, (config::Provider, Arc<Endpoint>)>,
    providers: HashMap<Arc<str>, Arc<Provider>>,
    /// Those of them whose addresses are members.
    families: HashMap<Arc<str>, Arc<Family>>,
    pools: HashMap<Arc<str>, Alive>,
    /// Routes that have a ladder, with the rungs they are to have once this registry is current.
    routes: HashMap<Arc<str>, (Vec<Rung>, Arc<degrade::Live>)>,
    buffers: Arc<Buffers>,
    /// `memory.buffers`.
    total: usize,
    /// By the name of who is checked. They are there once this registry is current.
    checks: Mutex<HashMap<Arc<str>, Checks>>,
    upkeep: Option<Upkeep>,
}

/// Where what goes on beside requests does: checks and discovery.
#[derive(Debug, Clone)]
pub struct Upkeep {
    /// Whose threads it takes.
    pub runtime: Handle,
    /// Takes what was discovered; whoever reads it tells [`Registry::discovered`] of the registry that is current then.
    pub found: mpsc::Sender<Found>,
}

/// A pool, and what it is to be once this registry is current.
#[derive(Debug)]
struct Alive {
    config: Arc<config::Pool>,
    live: Arc<Live>,
    /// In the configuration's order.
    providers: Vec<Arc<Provider>>,
    turn: Arc<AtomicUsize>,
}

/// A provider that cannot be built.
#[derive(Debug, thiserror::Error)]
#[error("provider `{provider}`: {source}")]
pub struct BuildError {
    provider: Arc<str>,
    source: TlsError,
}

// === impl Registry ===

impl Registry {
    /// An empty one, whose successors check and discover there. Without that nobody does.
    #[must_use]
    pub fn kept_up(upkeep: Upkeep) -> Self {
        Registry { upkeep: Some(upkeep), ..Registry::default() }
    }

    /// The pools of `config`, in its order, over what is alive; and the registry that will be current if this
    /// configuration is applied. Nothing changes before that: a configuration that is rejected leaves no trace.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn build(
        &self,
        config: &Config,
        workers: usize,
        metrics: &Metrics,
    ) -> Result<(Registry, Vec<Arc<Pool>>), BuildError> {
        let now = clock::now();
        let (buffers, total) = (Arc::clone(&self.buffers), config.memory.buffers);
        let mut next = Registry { buffers, total, upkeep: self.upkeep.clone(), ..Registry::default() };
        let mut providers = Vec::with_capacity(config.providers.len());
        for provider in &config.providers {
            let endpoint = self.endpoint(provider, workers)?;
            next.endpoints.insert(Arc::clone(&provider.name), (provider.as_ref().clone(), Arc::clone(&endpoint)));
            let provider = Arc::new(Provider {
                name: Arc::clone(&provider.name),
                config: Arc::clone(provider),
                endpoint,
                metrics: metrics.provider(&provider.name),
                state: self.state(provider, now),
            });
            if provider.config.discover_dns {
                next.families.insert(Arc::clone(&provider.name), self.family(&provider));
            }
            next.providers.insert(Arc::clone(&provider.name), Arc::clone(&provider));
            providers.push(provider);
        }
        let pools = config.pools.iter().map(|pool| {
            let alive = self.pool(pool, &providers, &next, metrics);
            let live = Arc::clone(&alive.live);
            next.pools.insert(Arc::clone(&pool.name), alive);
            Arc::new(Pool::new(Arc::clone(pool), live))
        });
        let pools = pools.collect();
        for route in config.routes.iter().filter(|route| !route.degrade.is_empty()) {
            let rungs = rungs(route);
            let live = self.route(&route.name);
            let live =
                live.unwrap_or_else(|| Arc::new(degrade::Live::new(Arc::clone(&route.name), rungs.clone(), now)));
            next.routes.insert(Arc::clone(&route.name), (rungs, live));
        }
        Ok((next, pools))
    }

    /// What this configuration says comes true for what is alive: limits, terms and members, at once; who waits is
    /// served by them. What only `before` knows gets nothing new. Call it when the snapshots are swapped.
    pub fn take_effect(&self, before: &Registry, now: Instant) {
        let _upkeep = self.enter();
        self.buffers.set_total(self.total);
        self.settle(&before.everyone(), &before.checks, now);
        for (rungs, live) in self.routes.values() {
            live.follow(rungs.clone(), now);
        }
        let Some(Upkeep { runtime, found }) = &self.upkeep else { return };
        for (name, family) in &self.families {
            let url = &self.providers[name].config.url;
            let (host, port) = (url.host().into(), url.port().unwrap_or_default());
            let (every, pause) = (discover::EVERY, discover::PAUSE);
            let search = Search { name: Arc::clone(name), host, port, lookup: Arc::new(System), every, pause };
            family.start(search, found.clone(), runtime);
        }
    }

    /// A provider has these addresses now, if it still is one of this registry.
    pub fn discovered(&self, family: &Arc<Family>, addresses: &[SocketAddr], metrics: &Metrics, now: Instant) {
        let name = self.families.iter().find_map(|(name, own)| Arc::ptr_eq(own, family).then_some(name));
        if let Some(provider) = name.and_then(|name| self.providers.get(name)) {
            let before = self.everyone();
            family.set_addresses(provider, addresses, metrics, now);
            self.settle(&before, &self.checks, now);
        }
    }

    /// What is in this registry comes true for what is alive, where before it were these and those were checked.
    fn settle(&self, before: &[Arc<Provider>], checks: &Mutex<HashMap<Arc<str>, Checks>>, now: Instant) {
        let everyone = self.everyone();
        let pools: Vec<_> = self
            .pools
            .values()
            .map(|alive| (alive, self.members(&alive.config, &alive.providers, &alive.turn)))
            .collect();
        for provider in &everyone {
            provider.state.follow(&provider.config, now);
            provider.state.set_lines(lines_of(&provider.state, &pools));
        }
        for (alive, members) in pools {
            alive.live.follow(alive.config.queue.terms, members, now);
        }
        // Only now: whoever still waits for one of these has others by this time, if there are any.
        for provider in before {
            if !everyone.iter().any(|other| Arc::ptr_eq(&other.state, &provider.state)) {
                provider.state.remove();
            }
        }
        for provider in &everyone {
            provider.state.changed();
        }
        // They may be our own, so that lock has to be gone by then.
        let checks = std::mem::take(&mut *locked(checks));
        self.check(&everyone, checks, now);
    }

    /// Checks who is to be checked; `before` are the checks there were.
    fn check(&self, everyone: &[Arc<Provider>], mut before: HashMap<Arc<str>, Checks>, now: Instant) {
        let Some(upkeep) = &self.upkeep else { return };
        let mut checks = locked(&self.checks);
        for provider in everyone {
            let old = before.remove(&provider.name);
            let kept = match old {
                Some(old) if old.suit(provider) => Some(old),
                Some(old) if provider.config.health_check.is_none() => {
                    old.forget(now);
                    None
                }
                _ => Checks::start(provider, &upkeep.runtime),
            };
            if let Some(kept) = kept {
                checks.insert(Arc::clone(&provider.name), kept);
            }
        }
    }

    /// Everyone who may be leased: providers, and instead of those that are discovered their members.
    #[must_use]
    pub fn everyone(&self) -> Vec<Arc<Provider>> {
        self.providers.values().flat_map(|provider| self.relatives(provider)).collect()
    }

    /// Who may be leased of the provider with this name: itself, or instead of it the members that were discovered.
    #[must_use]
    pub fn behind(&self, name: &str) -> Vec<Arc<Provider>> {
        self.provider(name).map(|provider| self.relatives(provider)).unwrap_or_default()
    }

    fn relatives(&self, provider: &Arc<Provider>) -> Vec<Arc<Provider>> {
        match self.families.get(&provider.name) {
            Some(family) => family.providers(provider),
            None => vec![Arc::clone(provider)],
        }
    }

    /// Has an operator's order done to the provider with this name, and to its members.
    fn steer(&self, name: &str, order: impl Fn(&State)) {
        match self.families.get(name) {
            Some(family) => family.steer(order),
            None => drop(self.provider(name).inspect(|provider| order(&provider.state))),
        }
    }

    /// Whoever waits for a moment from here on is woken there, whatever thread this is.
    fn enter(&self) -> Option<EnterGuard<'_>> {
        self.upkeep.as_ref().map(|upkeep| upkeep.runtime.enter())
    }

    /// The live state of the provider with this name, for whoever checks or steers it.
    pub fn provider(&self, name: &str) -> Option<&Arc<Provider>> {
        self.providers.get(name)
    }

    /// The pool with this name.
    pub fn find_pool(&self, name: &str) -> Option<Pool> {
        let alive = self.pools.get(name)?;
        Some(Pool::new(Arc::clone(&alive.config), Arc::clone(&alive.live)))
    }

    /// The degradation of the route with this name, if it has a ladder.
    #[must_use]
    pub fn route(&self, name: &str) -> Option<Arc<degrade::Live>> {
        self.routes.get(name).map(|(_, live)| Arc::clone(live))
    }

    /// The live state of this provider, if there is one.
    fn state(&self, provider: &config::Provider, now: Instant) -> Arc<State> {
        if let Some(alive) = self.providers.get(&provider.name) {
            return Arc::clone(&alive.state);
        }
        let pace = Arc::new(Pace::new(state::pace_terms(provider), now));
        // At the start all are new, and somebody has to take what comes.
        let slowly = !self.providers.is_empty();
        State::new(Arc::clone(&provider.name), provider, pace, slowly, now)
    }

    /// The family of this provider: the living one if its name still leads to the same place.
    fn family(&self, provider: &Provider) -> Arc<Family> {
        let before = self.families.get(&provider.name).filter(|family| family.is_at(&provider.endpoint));
        before.map_or_else(|| Family::new(Arc::clone(&provider.endpoint), Arc::clone(&provider.state)), Arc::clone)
    }

    /// The line of this pool, if there is one, else one with the members it has in `next`.
    fn pool(
        &self,
        config: &Arc<config::Pool>,
        providers: &[Arc<Provider>],
        next: &Registry,
        metrics: &Metrics,
    ) -> Alive {
        let before = self.pools.get(&config.name);
        let turn = before.map_or_else(Arc::default, |alive| Arc::clone(&alive.turn));
        let providers: Vec<_> = config.members.iter().map(|member| Arc::clone(&providers[member.provider])).collect();
        let live = if let Some(alive) = before {
            Arc::clone(&alive.live)
        } else {
            let (members, buffers) = (next.members(config, &providers, &turn), Arc::clone(&self.buffers));
            Live::new(config.queue.terms, members, buffers, metrics.pool(&config.name))
        };
        Alive { config: Arc::clone(config), live, providers, turn }
    }

    /// The members that a pool of these providers has now, and how it chooses among them.
    fn members(&self, config: &config::Pool, providers: &[Arc<Provider>], turn: &Arc<AtomicUsize>) -> Arc<Members> {
        let of_one = |(member, provider): (&config::Member, &Arc<Provider>)| {
            let (weight, backup) = (member.weight, member.backup);
            self.relatives(provider).into_iter().map(move |provider| Member { provider, weight, backup })
        };
        let members: Vec<Member> = config.members.iter().zip(providers).flat_map(of_one).collect();
        let named: Vec<_> = members.iter().map(|member| (&*member.provider.name, member.weight)).collect();
        let algorithm = algorithm(&config.balance);
        let balance = Balance::new(algorithm, &named, Arc::clone(turn));
        Members::new(members, balance, algorithm == Algorithm::PeakEwma, config.queue.timeout)
    }

    /// The endpoint of this provider: the living one if it still leads to the same place in the same way.
    fn endpoint(&self, provider: &config::Provider, workers: usize) -> Result<Arc<Endpoint>, BuildError> {
        match self.endpoints.get(&provider.name) {
            Some((old, endpoint)) if same_place(old, provider) => Ok(Arc::clone(endpoint)),
            _ => Endpoint::new(provider, workers)
                .map(Arc::new)
                .map_err(|source| BuildError { provider: Arc::clone(&provider.name), source }),
        }
    }
}

impl Steered for Registry {
    fn has(&self, target: &Target) -> bool {
        match target.kind {
            Kind::Circuit | Kind::Provider => self.providers.contains_key(&*target.name),
            Kind::Queue => self.pools.contains_key(&*target.name),
            Kind::Degradation => self.routes.contains_key(&*target.name),
        }
    }

    fn apply(&self, change: &Change<'_>) {
        let _upkeep = self.enter();
        match *change {
            Change::Circuit(name, forced) => self.steer(name, |state| state.force(forced, clock::now())),
            Change::Drain(name, drained) => self.steer(name, |state| state.set_draining(drained)),
            Change::Pause(name, paused) => {
                self.pools.get(name).inspect(|alive| alive.live.set_paused(paused, clock::now()));
            }
            Change::Degrade(name, forced) => {
                self.routes.get(name).inspect(|(_, live)| live.force(forced, clock::now()));
            }
        }
    }
}

impl Default for Registry {
    fn default() -> Self {
        let (endpoints, providers, families, pools, routes) = Default::default();
        let (checks, upkeep, buffers) = (Mutex::default(), None, Buffers::new(0));
        Registry { endpoints, providers, families, pools, routes, buffers, total: 0, checks, upkeep }
    }
}

/// The lines that may wait for this provider: of `pools`, and of those that are gone but not empty yet.
fn lines_of(state: &Arc<State>, pools: &[(&Alive, Arc<Members>)]) -> Vec<Weak<Live>> {
    let is_in = |members: &Members| members.iter().any(|member| Arc::ptr_eq(&member.provider.state, state));
    let is_kept = |line: &Arc<Live>| pools.iter().any(|(alive, _)| Arc::ptr_eq(&alive.live, line));
    let leaving = state.lines().into_iter().filter(|line| line.upgrade().is_some_and(|line| !is_kept(&line)));
    let own = pools.iter().filter(|(_, members)| is_in(members)).map(|(alive, _)| Arc::downgrade(&alive.live));
    own.chain(leaving).collect()
}

fn rungs(route: &config::Route) -> Vec<Rung> {
    route.degrade.iter().map(|rung| Rung { kind: rung.rule.kind, terms: rung.thresholds }).collect()
}

fn algorithm(rule: &BalanceRule) -> Algorithm {
    match rule {
        BalanceRule::RoundRobin => Algorithm::RoundRobin,
        BalanceRule::Weighted => Algorithm::Weighted,
        BalanceRule::LeastConnections => Algorithm::LeastConnections,
        BalanceRule::PeakEwma => Algorithm::PeakEwma,
        BalanceRule::ConsistentHash { .. } => Algorithm::ConsistentHash,
    }
}

/// Whether connections opened for `old` may serve `new`.
fn same_place(old: &config::Provider, new: &config::Provider) -> bool {
    (old.url.scheme, &old.url.address) == (new.url.scheme, &new.url.address)
        && (old.protocols, old.proxy_protocol) == (new.protocols, new.proxy_protocol)
        && old.tls == new.tls
        && old.connections == new.connections
}

#[cfg(test)]
mod tests;
