//! What is alive, found again by name after a reload.

use super::buffers::Buffers;
use super::endpoint::Endpoint;
use super::pool::{Live, Member, Members, Pool, Provider};
use super::state::{self, State};
use super::tls::TlsError;
use crate::clock;
use crate::config::{self, BalanceRule, Config};
use crate::observe::metrics::Metrics;
use crate::policy::balance::{Algorithm, Balance};
use crate::policy::pace::Pace;
use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Weak};
use std::time::Instant;

/// The live state of everything that has a name. Only a reload touches it, one at a time; requests see snapshots.
#[derive(Debug)]
pub struct Registry {
    endpoints: HashMap<Arc<str>, (config::Provider, Arc<Endpoint>)>,
    providers: HashMap<Arc<str>, Arc<Provider>>,
    pools: HashMap<Arc<str>, Alive>,
    buffers: Arc<Buffers>,
    /// `memory.buffers`.
    total: usize,
}

/// A pool, and what it is to be once this registry is current.
#[derive(Debug)]
struct Alive {
    config: Arc<config::Pool>,
    live: Arc<Live>,
    members: Arc<Members>,
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
        let mut next = Registry { buffers, total, ..Registry::default() };
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
            next.providers.insert(Arc::clone(&provider.name), Arc::clone(&provider));
            providers.push(provider);
        }
        let pools = config.pools.iter().map(|pool| {
            let alive = self.pool(pool, &providers);
            let live = Arc::clone(&alive.live);
            next.pools.insert(Arc::clone(&pool.name), alive);
            Arc::new(Pool::new(Arc::clone(pool), live))
        });
        let pools = pools.collect();
        Ok((next, pools))
    }

    /// What this configuration says comes true for what is alive: limits, terms and members, at once; who waits is
    /// served by them. What only `before` knows gets nothing new. Call it when the snapshots are swapped.
    pub fn take_effect(&self, before: &Registry, now: Instant) {
        self.buffers.set_total(self.total);
        for provider in self.providers.values() {
            provider.state.follow(&provider.config, now);
            provider.state.set_lines(self.lines_of(&provider.state));
        }
        for alive in self.pools.values() {
            alive.live.follow(alive.config.queue.terms, Arc::clone(&alive.members), now);
        }
        // Only now: whoever still waits for one of these has others by this time, if there are any.
        for (name, provider) in &before.providers {
            if !self.providers.contains_key(name) {
                provider.state.remove();
            }
        }
        for provider in self.providers.values() {
            provider.state.changed();
        }
    }

    /// The live state of the provider with this name, for whoever checks or steers it.
    pub fn provider(&self, name: &str) -> Option<&Arc<Provider>> {
        self.providers.get(name)
    }

    /// The lines that may wait for this provider: of its pools, and of those that are gone but not empty yet.
    fn lines_of(&self, state: &Arc<State>) -> Vec<Weak<Live>> {
        let is_in = |alive: &&Alive| alive.members.iter().any(|member| Arc::ptr_eq(&member.provider.state, state));
        let is_kept = |line: &Arc<Live>| self.pools.values().any(|alive| Arc::ptr_eq(&alive.live, line));
        let leaving = state.lines().into_iter().filter(|line| line.upgrade().is_some_and(|line| !is_kept(&line)));
        self.pools.values().filter(is_in).map(|alive| Arc::downgrade(&alive.live)).chain(leaving).collect()
    }

    /// The live state of this provider, if there is one.
    fn state(&self, provider: &config::Provider, now: Instant) -> Arc<State> {
        match self.providers.get(&provider.name) {
            Some(alive) => Arc::clone(&alive.state),
            None => {
                let pace = Arc::new(Pace::new(state::pace_terms(provider), now));
                // At the start all are new, and somebody has to take what comes.
                let slowly = !self.providers.is_empty();
                State::new(Arc::clone(&provider.name), provider, pace, slowly, now)
            }
        }
    }

    /// The line of this pool, if there is one, and the members it is to have.
    fn pool(&self, config: &Arc<config::Pool>, providers: &[Arc<Provider>]) -> Alive {
        let before = self.pools.get(&config.name);
        let turn = before.map_or_else(Arc::default, |alive| Arc::clone(&alive.turn));
        let member = |member: &config::Member| Member {
            provider: Arc::clone(&providers[member.provider]),
            weight: member.weight,
            backup: member.backup,
        };
        let members: Vec<Member> = config.members.iter().map(member).collect();
        let named: Vec<_> = members.iter().map(|member| (&*member.provider.name, member.weight)).collect();
        let algorithm = algorithm(&config.balance);
        let balance = Balance::new(algorithm, &named, Arc::clone(&turn));
        let members = Members::new(members, balance, algorithm == Algorithm::PeakEwma, config.queue.timeout);
        let live = match before {
            Some(alive) => Arc::clone(&alive.live),
            None => Live::new(config.queue.terms, Arc::clone(&members), Arc::clone(&self.buffers)),
        };
        Alive { config: Arc::clone(config), live, members, turn }
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

impl Default for Registry {
    fn default() -> Self {
        let (endpoints, providers, pools) = Default::default();
        Registry { endpoints, providers, pools, buffers: Buffers::new(0), total: 0 }
    }
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
