//! What is alive, as operators see it: plain values for the admin listener and the metrics.

use crate::admin::{
    BalanceView, CircuitView, DegradationView, MemberView, ProviderView, QueueView, RetryView, WaitingView,
};
use crate::clock;
use crate::config::{self, Action, BalanceRule, Config};
use crate::instant::Instant;
use crate::observe::Metrics;
use crate::observe::metrics::ProviderFigures;
use crate::upstream::degrade;
use crate::upstream::pool::{self, Member, Pool, Provider};
use crate::upstream::registry::Registry;
use std::sync::Arc;
use std::time::SystemTime;

/// One configuration, what is alive of it, and when it is looked at.
pub(super) struct Figures {
    config: Arc<Config>,
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
    now: Instant,
    at: SystemTime,
}

// === impl Figures ===

impl Figures {
    pub(super) fn new(config: Arc<Config>, registry: Arc<Registry>, metrics: Arc<Metrics>) -> Self {
        Figures { config, registry, metrics, now: clock::now(), at: clock::wall() }
    }

    pub(super) fn providers(&self) -> Vec<ProviderView> {
        self.all_providers().iter().map(|provider| self.provider(provider)).collect()
    }

    pub(super) fn circuits(&self) -> Vec<CircuitView> {
        let view = |provider: &Arc<Provider>| CircuitView {
            provider: provider.name.to_string(),
            circuit: provider.state.breaker.view(self.now),
            now: self.now,
            at: self.at,
        };
        self.all_providers().iter().map(view).collect()
    }

    pub(super) fn queues(&self) -> Vec<QueueView> {
        self.pools().iter().map(|pool| self.queue(pool)).collect()
    }

    pub(super) fn waiting(&self, pool: &str, limit: usize) -> Option<Vec<WaitingView>> {
        let waiting = self.registry.find_pool(pool)?.waiting(limit, self.now);
        let view = |one: pool::WaitingView| WaitingView {
            id: one.id,
            request_id: one.label.request_id.into(),
            client: one.label.client.to_string(),
            class: one.class,
            route: one.label.route.to_string(),
            method: one.label.method.into(),
            path: one.label.path.into(),
            again: one.again,
            waited: one.waited,
            left: one.left,
        };
        Some(waiting.into_iter().map(view).collect())
    }

    pub(super) fn balances(&self) -> Vec<BalanceView> {
        let view = |pool: &Pool| BalanceView {
            pool: pool.name.to_string(),
            rule: rule(&pool.config.balance),
            waiting: pool.view(self.now).depth.iter().sum(),
            members: pool.members().iter().map(|member| self.member(member)).collect(),
        };
        self.pools().iter().map(view).collect()
    }

    pub(super) fn retries(&self) -> RetryView {
        let all = self.all_providers();
        let (mut attempts, mut costs) = ([0; 3], None);
        for provider in &all {
            for (purpose, count) in provider.state.attempts().into_iter().enumerate() {
                attempts[purpose] += count;
                if let Some(cost) = provider.config.cost {
                    costs.get_or_insert([0.0; 3])[purpose] += count as f64 * cost;
                }
            }
        }
        let route = |name: &str| {
            let metrics = self.metrics.route(name);
            (name.to_owned(), metrics.retries(), metrics.skips())
        };
        RetryView {
            attempts,
            costs,
            routes: self.config.routes.iter().map(|each| route(&each.name)).collect(),
            budgets: self.pools().iter().map(|pool| (pool.name.to_string(), self.retries_left(pool))).collect(),
        }
    }

    pub(super) fn degradations(&self) -> Vec<DegradationView> {
        let view = |route: &Arc<config::Route>| {
            let degrade::View { degradation, totals } = self.degradation(route)?;
            let ladder = route.degrade.iter().map(|rung| rung.rule.kind).collect();
            Some(DegradationView {
                route: route.name.to_string(),
                ladder,
                degradation,
                totals,
                now: self.now,
                at: self.at,
            })
        };
        self.config.routes.iter().filter_map(view).collect()
    }

    /// How a route is, if it has a ladder.
    fn degradation(&self, route: &config::Route) -> Option<degrade::View> {
        let live = self.registry.route(&route.name)?;
        let Action::Pool(index) = route.action else { return None };
        let pool = self.registry.find_pool(&self.config.pools[index].name);
        Some(live.view(pool.map_or(0.0, |pool| pool.fullness()), self.now))
    }

    /// Brings the metrics up to now that are not counted as things happen.
    pub(super) fn show(&self) {
        for provider in self.all_providers() {
            let (view, circuit) = (provider.state.view(self.now), provider.state.breaker.view(self.now));
            provider.metrics.show(&ProviderFigures {
                circuit: circuit.state(),
                entered: circuit.entered(),
                cooldown: view.cooldown_until.map(|at| at.saturating_duration_since(self.now)).unwrap_or_default(),
                healthy: view.healthy,
                concurrency: view.limit,
                rate: rate(&provider),
            });
        }
        for pool in self.pools() {
            let view = pool.view(self.now);
            self.metrics.pool(&pool.name).show(view.depth, view.capacity, self.retries_left(&pool));
        }
        for route in &self.config.routes {
            if let Some(view) = self.degradation(route) {
                self.metrics.route(&route.name).show_degraded(view.degradation.spell().is_some());
            }
        }
    }

    /// How many retries a pool could afford now. Its routes share what there is; how much that is depends on who asks, and
    /// the first of them is taken for all.
    fn retries_left(&self, pool: &Pool) -> Option<f64> {
        let named = |action: &Action| matches!(action, Action::Pool(at) if self.config.pools[*at].name == pool.name);
        let route = self.config.routes.iter().find(|route| named(&route.action))?;
        Some(pool.spending().retries_left(&route.retry.budget, self.now))
    }

    fn pools(&self) -> Vec<Pool> {
        self.config.pools.iter().filter_map(|pool| self.registry.find_pool(&pool.name)).collect()
    }

    /// Those of the file, in its order; in the place of one that was discovered, its members.
    fn all_providers(&self) -> Vec<Arc<Provider>> {
        self.config.providers.iter().flat_map(|provider| self.registry.behind(&provider.name)).collect()
    }

    fn provider(&self, provider: &Provider) -> ProviderView {
        let view = provider.state.view(self.now);
        ProviderView {
            name: provider.name.to_string(),
            url: provider.config.url.to_string(),
            healthy: view.healthy,
            draining: view.draining,
            circuit: provider.state.breaker.view(self.now).state(),
            in_flight: view.in_flight,
            concurrency: view.limit,
            rate: rate(provider),
            utilisation: view.utilisation,
            latency: view.latency,
            cooldown_until: view.cooldown_until.map(|until| self.at + until.saturating_duration_since(self.now)),
            attempts: view.attempts,
        }
    }

    fn member(&self, member: &Member) -> MemberView {
        MemberView { weight: member.weight, backup: member.backup, provider: self.provider(&member.provider) }
    }

    fn queue(&self, pool: &Pool) -> QueueView {
        let view = pool.view(self.now);
        let client = |index: u32| {
            let client = self.config.clients.get(index as usize);
            client.map_or_else(|| "of a configuration before".to_owned(), |client| client.name.to_string())
        };
        QueueView {
            pool: pool.name.to_string(),
            depth: view.depth,
            oldest: view.oldest,
            clients: view.clients.iter().map(|(class, index, waiting)| (*class, client(*index), *waiting)).collect(),
            in_flight: view.in_flight,
            capacity: view.capacity,
            paused: view.paused,
            shed: view.shed,
            gone: view.gone,
            dispatched: view.dispatched,
            rate: view.rate,
            estimated_wait: view.estimated_wait,
            held: view.held,
        }
    }
}

/// Attempts a second.
fn rate(provider: &Provider) -> Option<f64> {
    provider.config.limits.rate.map(|rate| f64::from(rate.count) / rate.per.as_secs_f64())
}

/// As the file says it.
fn rule(balance: &BalanceRule) -> &'static str {
    match balance {
        BalanceRule::RoundRobin => "round_robin",
        BalanceRule::Weighted => "weighted",
        BalanceRule::LeastConnections => "least_connections",
        BalanceRule::PeakEwma => "peak_ewma",
        BalanceRule::ConsistentHash { .. } => "consistent_hash",
    }
}
