//! What is alive, found again by name after a reload.

use super::endpoint::Endpoint;
use super::pool::{Pool, Provider, ProviderId};
use super::tls::TlsError;
use crate::config::{self, Config};
use crate::observe::metrics::Metrics;
use crate::overrides::Steered;
use crate::policy::overrides::{Change, Kind, Target};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// The live state of everything that has a name. Only a reload touches it, one at a time; requests see snapshots.
#[derive(Debug, Default)]
pub struct Registry {
    endpoints: HashMap<Arc<str>, (config::Provider, Arc<Endpoint>)>,
    turns: HashMap<Arc<str>, Arc<AtomicUsize>>,
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
        let mut next = Registry::default();
        let mut providers = Vec::with_capacity(config.providers.len());
        for provider in &config.providers {
            let endpoint = self.endpoint(provider, workers)?;
            next.endpoints.insert(Arc::clone(&provider.name), (provider.as_ref().clone(), Arc::clone(&endpoint)));
            let metrics = metrics.provider(&provider.name);
            let (name, id) = (Arc::clone(&provider.name), ProviderId(providers.len() as u32));
            providers.push(Arc::new(Provider { name, config: Arc::clone(provider), endpoint, metrics, id }));
        }
        let pools = config.pools.iter().map(|pool| {
            let turn = self.turns.get(&pool.name).cloned().unwrap_or_default();
            next.turns.insert(Arc::clone(&pool.name), Arc::clone(&turn));
            let members = pool.members.iter().map(|member| Arc::clone(&providers[member.provider])).collect();
            Arc::new(Pool::new(Arc::clone(&pool.name), members, turn))
        });
        let pools = pools.collect();
        Ok((next, pools))
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
            Kind::Circuit | Kind::Provider => self.endpoints.contains_key(&*target.name),
            Kind::Queue => self.turns.contains_key(&*target.name),
        }
    }

    fn apply(&self, _change: &Change<'_>) {}
}

/// Whether connections opened for `old` may serve `new`.
fn same_place(old: &config::Provider, new: &config::Provider) -> bool {
    (old.url.scheme, &old.url.address) == (new.url.scheme, &new.url.address)
        && (old.protocols, old.proxy_protocol) == (new.protocols, new.proxy_protocol)
        && old.tls == new.tls
        && old.connections == new.connections
}
