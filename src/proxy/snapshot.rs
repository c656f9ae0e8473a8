//! One applied configuration, compiled: what a request sees from its beginning to its end.

use super::client::Clients;
use super::ladder::Ladder;
use super::route::Routes;
use crate::config::{self, Action, Bind, Config};
use crate::observe::families::UNROUTED;
use crate::observe::metrics::{Metrics, RouteMetrics};
use crate::policy::retry;
use crate::upstream::pool::Pool;
use crate::upstream::registry::Registry;
use std::sync::Arc;

/// Replaced whole by a reload, never changed. A request holds the one it began with.
#[derive(Debug)]
pub struct Snapshot {
    /// What the file says.
    pub config: Arc<Config>,
    /// Finds a route.
    pub index: Routes,
    /// In the order of [`Config::routes`].
    pub routes: Vec<Route>,
    /// Finds the client of a request.
    pub clients: Clients,
    /// The series of requests that no route matched.
    pub unrouted: RouteMetrics,
}

/// A route with what is alive of it.
#[derive(Debug)]
pub struct Route {
    /// What the file says.
    pub config: Arc<config::Route>,
    /// When attempts are made again.
    pub retry: retry::Policy,
    /// Where it sends requests, if it does.
    pub pool: Option<Arc<Pool>>,
    /// What answers where that cannot.
    pub ladder: Option<Ladder>,
    /// Its series.
    pub metrics: RouteMetrics,
}

// === impl Snapshot ===

impl Snapshot {
    /// Compiles `config` over the living `pools`, which are in its order, and what else is alive in `registry`.
    pub fn new(config: Arc<Config>, pools: &[Arc<Pool>], registry: &Registry, metrics: &Metrics) -> Self {
        let route = |route: &Arc<config::Route>| {
            let pool = match route.action {
                Action::Pool(index) => Some(&pools[index]),
                Action::Respond { .. } | Action::Redirect { .. } => None,
            };
            Route {
                config: Arc::clone(route),
                retry: policy(&route.retry),
                pool: pool.map(Arc::clone),
                ladder: pool
                    .zip(registry.route(&route.name))
                    .map(|(own, live)| Ladder::compile(route, own, pools, live)),
                metrics: metrics.route(&route.name),
            }
        };
        Snapshot {
            index: Routes::compile(&config.routes),
            clients: Clients::new(&config.clients),
            routes: config.routes.iter().map(route).collect(),
            unrouted: metrics.route(UNROUTED),
            config,
        }
    }

    /// What the file says of the listener at this address; `None` once a reload has removed it.
    #[inline]
    pub fn listener(&self, bind: &Bind) -> Option<&Arc<config::Listener>> {
        self.config.listeners.iter().find(|listener| listener.bind == *bind)
    }
}

fn policy(retry: &config::Retry) -> retry::Policy {
    let config::Retry { attempts, on, idempotency_key, backoff, .. } = *retry;
    let (methods, refused) = (retry.methods.clone(), retry.refused.clone());
    retry::Policy { attempts, on, methods, idempotency_key, refused, backoff }
}
