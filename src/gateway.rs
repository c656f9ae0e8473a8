//! The composition root: builds everything from a configuration, replaces it by another, and takes it down again.
//!
//! A reload is: read, parse, check, build, swap one snapshot. Everything that can fail comes before the swap, so that a
//! configuration that is rejected changes nothing. Reloads come one at a time; requests never wait for one.

mod figures;

use crate::admin::{
    self, BalanceView, CacheView, CachedRoute, Check, CircuitView, ConfigStatus, Control, DegradationView, Dependency,
    Forget, OnDisk, ProviderView, QueueView, Readiness, Rejected, Reloaded, Reloading, RetryView, Version, WaitingView,
};
use crate::cache::reply::Cache;
use crate::cache::store::{Purge, RouteFigures};
use crate::clock;
use crate::config::{self, Bind, Config, Environment, Inputs, Loaded, Problems, UnknownEnvironment};
use crate::observe::Exposition;
use crate::observe::families::UNROUTED;
use crate::observe::logs::{Logs, Prepared};
use crate::observe::metrics::Metrics;
use crate::overrides::{self, Overrides, Shown};
use crate::policy::overrides::{Setting, Target};
use crate::proxy::Shared;
use crate::proxy::frame;
use crate::proxy::snapshot::Snapshot;
use crate::server::inherited::{Address, Inherited, Role, Sockets};
use crate::server::limits;
use crate::server::port::{Opened, Port};
use crate::server::tls::Terminator;
use crate::server::worker::{self, Order, Worker};
use crate::store::{self, Embedded};
use crate::upstream::discover::Found;
use crate::upstream::registry::{Registry, Upkeep};
use arc_swap::ArcSwap;
use figures::Figures;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot, watch};

/// Where the configuration comes from.
#[derive(Clone)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// What `${…}` in it refers to.
    pub environment: Arc<dyn Environment + Send + Sync>,
}

/// A gateway that runs, in threads of its own.
#[derive(Debug)]
pub struct Gateway {
    core: Arc<Core>,
    admin_address: SocketAddr,
    /// The admin listener's socket once more, to be handed to another process; whether a service manager holds it too.
    admin_socket: (TcpListener, bool),
    admin_stop: watch::Sender<bool>,
    /// Dropped, it ends what goes on beside requests.
    upkeep: oneshot::Sender<()>,
    threads: Vec<JoinHandle<()>>,
}

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration has problems; their text shows all.
    #[error("{0}")]
    Config(Problems),
    /// Something the configuration asks for cannot be had.
    #[error("{0}")]
    Build(String),
}

/// What a reload works on, and the admin listener looks at.
struct Core {
    me: Weak<Core>,
    source: Source,
    /// What was applied first; what only a start takes over is as it says.
    first: Arc<Config>,
    shared: Arc<Shared>,
    workers: Vec<mpsc::Sender<Order>>,
    overrides: Arc<Overrides>,
    /// Off the list of those who take traffic, while it still takes what comes.
    unready: AtomicBool,
    /// A new process is on its way, and reads the file itself.
    handing_over: AtomicBool,
    /// Whoever reloads holds it, so that reloads come one after the other. A std mutex, never held across an await.
    reloading: Mutex<()>,
    /// A std mutex: held for moments, also by a reload, which reads and builds beside it. Only whoever reloads writes.
    state: Mutex<State>,
}

/// What is applied now.
struct State {
    registry: Arc<Registry>,
    ports: Vec<Arc<Port>>,
    /// Ports that accept no more, while they still have connections.
    leaving: Vec<Arc<Port>>,
    applied: Version,
    on_disk: OnDisk,
    /// What the latest attempt was read from.
    seen: Arc<Inputs>,
}

/// Where each worker takes orders.
type Inboxes = Vec<mpsc::Sender<Order>>;

/// Everything a configuration needs, ready to be swapped in.
struct Built {
    registry: Registry,
    snapshot: Arc<Snapshot>,
    log: Prepared,
    opened: Vec<Opened>,
    terminators: Terminators,
}

/// TLS of the listeners that speak it.
type Terminators = HashMap<Bind, Arc<Terminator>>;

// === impl Source ===

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("path", &self.path).finish_non_exhaustive()
    }
}

// === impl Gateway ===

impl Gateway {
    /// Reads the configuration and starts everything it asks for.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left running.
    pub fn start(source: Source) -> Result<Gateway, StartError> {
        Gateway::start_with(source, &mut Inherited::default())
    }

    /// As [`Gateway::start`], with what of `inherited` the configuration names.
    ///
    /// # Errors
    /// Those of [`Gateway::start`], and a socket of a service manager that is not named.
    pub fn start_with(source: Source, inherited: &mut Inherited) -> Result<Gateway, StartError> {
        let loaded = config::load(&source.path, source.environment.as_ref()).map_err(StartError::Config)?;
        inherited.checked().map_err(StartError::Build)?;
        let admin = bind_admin(loaded.config.admin.bind, inherited)?;
        let again = admin.0.try_clone().map_err(|error| StartError::Build(error.to_string()))?;
        let admin_socket = (again, admin.1);
        let admin = admin.0;
        let metrics = Arc::new(Metrics::new());
        let logs = Logs::start(&loaded.config.log, Arc::clone(&metrics))
            .map_err(|error| StartError::Build(format!("log: {error}")))?;
        // What happens before the logs are installed for the whole process belongs into them as well.
        let subscriber = logs.subscriber();
        let runtime = own_runtime().map_err(|error| StartError::Build(error.to_string()))?;
        let (found, discovered) = mpsc::channel(FOUND);
        let upkeep = Upkeep { runtime: runtime.handle().clone(), found };
        let start = || Core::start(source, loaded, metrics, logs, inherited, upkeep);
        let (core, threads) = tracing::subscriber::with_default(subscriber, start)?;
        runtime.spawn(take_in(Arc::downgrade(&core), discovered));
        let (upkeep, end) = oneshot::channel();
        let mut gateway = Gateway {
            admin_address: admin.local_addr().unwrap_or_else(|_| core.config().admin.bind),
            core,
            admin_socket,
            admin_stop: watch::Sender::new(false),
            upkeep,
            threads,
        };
        gateway.threads.push(keep_up(runtime, end).map_err(|error| StartError::Build(error.to_string()))?);
        let control = Arc::clone(&gateway.core);
        let stop = gateway.admin_stop.subscribe();
        gateway.threads.push(serve_admin(admin, control, stop).map_err(|error| StartError::Build(error.to_string()))?);
        Ok(gateway)
    }

    /// Where the listener of this name really listens.
    pub fn address(&self, listener: &str) -> Option<SocketAddr> {
        let config = self.core.config();
        let bind = &config.listeners.iter().find(|candidate| &*candidate.name == listener)?.bind;
        self.core.state().ports.iter().find(|port| port.bind == *bind)?.local.tcp()
    }

    /// Where the admin listener really listens.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// What is applied.
    pub fn config(&self) -> Arc<Config> {
        self.core.config()
    }

    /// The logs.
    pub fn logs(&self) -> &Arc<Logs> {
        &self.core.shared.logs
    }

    /// Notes how many files may be open, for the metrics.
    pub fn set_open_files_limit(&self, limit: u64) {
        self.core.shared.metrics.set_open_files_limit(limit);
    }

    /// Reads the file again and applies it, or says why not.
    ///
    /// # Errors
    /// All problems; nothing has changed then.
    pub fn reload(&self) -> Result<Reloaded, Rejected> {
        self.core.reload_now()
    }

    /// A handle that reloads when the file has changed, for a watcher.
    pub fn reloader(&self) -> impl Fn() + Send + use<> {
        let core = Arc::clone(&self.core);
        move || core.reload_if_changed()
    }

    /// Says which files make up the configuration, for a watcher: those it is applied from, and those of an attempt that
    /// was rejected, which may be put right.
    pub fn files(&self) -> impl Fn() -> Vec<PathBuf> + Send + Sync + use<> {
        let core = Arc::clone(&self.core);
        move || {
            let applied = core.config();
            let state = core.state();
            let tried = state.seen.files().map(std::path::Path::to_owned);
            std::iter::once(core.source.path.clone()).chain(tried).chain(applied.files.iter().cloned()).collect()
        }
    }

    /// Client connections open now, on all listeners.
    pub fn connections(&self) -> usize {
        let state = self.core.state();
        state.ports.iter().chain(&state.leaving).map(|port| port.open()).sum()
    }

    /// Asks every worker whether it takes orders: what this gives returns when all have said so, and never while one hangs.
    pub fn workers_answer(&self) -> impl AsyncFn() + Send + use<> {
        let workers = self.core.workers.clone();
        async move || worker::all_answer(&workers).await
    }

    /// Every listening socket, for a process that takes over. No reload changes them from here on, until
    /// [`Gateway::keep`] says that it did not.
    ///
    /// # Errors
    /// No more descriptors.
    pub fn share(&self) -> io::Result<Vec<(Address, Sockets)>> {
        self.core.handing_over.store(true, Ordering::Relaxed);
        // One that began before ends before.
        let _turn = self.core.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let (admin, kept) = &self.admin_socket;
        let bind = self.core.first.admin.bind.to_string();
        let admin = Sockets { open: vec![admin.try_clone()?.into()], kept: *kept };
        let mut shared = vec![(Address { role: Role::Admin, bind }, admin)];
        for port in &self.core.state().ports {
            shared.push((address(port), port.share()?));
        }
        Ok(shared)
    }

    /// Lets go of what only one process may hold: the store. What it says keeps holding; nothing new is taken.
    pub async fn release(&self) {
        let overrides = Arc::clone(&self.core.overrides);
        // It returns nothing, and a panic has been told by whoever panicked.
        let _: Result<(), _> = tokio::task::spawn_blocking(move || overrides.release()).await;
    }

    /// No other process has taken over: all goes on as before.
    pub fn keep(&self) {
        self.core.overrides.resume(&*self.core.registry(), clock::wall());
        self.core.handing_over.store(false, Ordering::Relaxed);
        self.core.reload_if_changed();
    }

    /// Another process accepts on `adopted`: this one leaves those to it, and accepts no more on the others.
    pub fn hand_over(&self, adopted: &[Address]) {
        for port in &self.core.state().ports {
            if adopted.contains(&address(port)) {
                port.hand_over();
            }
        }
        if adopted.iter().any(|address| address.role == Role::Admin) {
            let _: Result<(), _> = self.admin_stop.send(true);
        }
        self.core.close();
    }

    /// The process before accepts no more: what it left is this one's.
    pub fn own(&self) {
        for port in &self.core.state().ports {
            port.take_file();
        }
    }

    /// Whoever asks whether it is ready is told that it is not. It still takes what comes, and still reloads.
    pub fn leave(&self) {
        self.core.unready.store(true, Ordering::Relaxed);
    }

    /// Accepts no more, lets what is under way end, for at most `grace`; whether all of it did.
    pub async fn drain(&self, grace: Duration) -> bool {
        let ports = self.core.close();
        let ended = async {
            for port in &ports {
                port.is_empty().await;
            }
        };
        tokio::time::timeout(grace, ended).await.is_ok()
    }

    /// Ends everything now.
    pub fn stop(self) {
        self.core.close();
        // It is to refuse whoever connects once nobody answers there.
        drop(self.admin_socket);
        for worker in &self.core.workers {
            // A full inbox or a gone worker has nothing left to stop.
            let _: Result<(), _> = worker.try_send(Order::Stop);
        }
        let _: Result<(), _> = self.admin_stop.send(true);
        drop(self.upkeep);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the gateway had panicked");
            }
        }
        // Closed in order, it needs no look at its contents when it is opened next.
        self.core.overrides.release();
        self.core.shared.logs.flush(clock::after(clock::now(), FLUSH_TIME));
    }
}

// === impl Core ===

impl Core {
    /// Builds the first configuration, starts the workers and lets them listen.
    fn start(
        source: Source,
        loaded: Loaded,
        metrics: Arc<Metrics>,
        logs: Arc<Logs>,
        inherited: &mut Inherited,
        upkeep: Upkeep,
    ) -> Result<(Arc<Core>, Vec<JoinHandle<()>>), StartError> {
        let count = loaded.config.workers.map_or_else(limits::cores, usize::from);
        let notes: Vec<Value> = loaded.notes.iter().map(value).collect();
        let version = version(&loaded);
        let seen = Arc::clone(&loaded.inputs);
        let built = build(loaded, &Registry::kept_up(upkeep), &[], count, &metrics, &logs, inherited)
            .map_err(StartError::Build)?;
        inherited.used_up().map_err(StartError::Build)?;
        let first = Arc::clone(&built.snapshot.config);
        let overrides = Arc::new(Overrides::new(Arc::new(Embedded::new(&first.store.path))));
        overrides.load(&built.registry, clock::wall());
        let shared = Arc::new(Shared {
            snapshot: ArcSwap::new(Arc::clone(&built.snapshot)),
            metrics,
            logs,
            draining: AtomicBool::new(false),
            cache: OnceLock::new(),
        });
        let (workers, threads) = spawn_workers(count, &shared).map_err(|error| StartError::Build(error.to_string()))?;
        let on_disk = OnDisk { hash: Some(version.hash.clone()), seen_at: version.at, error: None };
        let state = State {
            registry: Arc::default(),
            ports: Vec::new(),
            leaving: Vec::new(),
            applied: version.clone(),
            on_disk,
            seen,
        };
        let core = Arc::new_cyclic(|me| Core {
            me: Weak::clone(me),
            source,
            first,
            shared,
            workers,
            overrides,
            unready: AtomicBool::new(false),
            handing_over: AtomicBool::new(false),
            reloading: Mutex::new(()),
            state: Mutex::new(state),
        });
        core.shared.metrics.set_workers(count);
        core.apply(&mut core.state(), built, version).map_err(StartError::Build)?;
        warn_of(&notes);
        tracing::info!(workers = count, "the gateway is ready");
        Ok((core, threads))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at what is alive of the configuration that is applied.
    fn figures(&self) -> Figures {
        let state = self.state();
        Figures::new(self.config(), Arc::clone(&state.registry), Arc::clone(&self.shared.metrics))
    }

    fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.state().registry)
    }

    fn config(&self) -> Arc<Config> {
        Arc::clone(&self.shared.snapshot.load().config)
    }

    fn reload_now(&self) -> Result<Reloaded, Rejected> {
        let _turn = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        if self.shared.draining.load(Ordering::Relaxed) {
            return Err(rejection(GOING));
        }
        if self.handing_over.load(Ordering::Relaxed) {
            return Err(rejection(HANDING_OVER));
        }
        let loaded = config::load(&self.source.path, self.source.environment.as_ref());
        // What was read, not what stands there by now: what is written meanwhile must look new to whoever compares.
        let seen = Arc::clone(inputs(&loaded));
        let result = loaded.map_err(|problems| rejected(&problems)).and_then(|loaded| self.replace(loaded));
        let now = clock::wall();
        self.shared.metrics.reloaded(result.is_ok(), now);
        let mut state = self.state();
        let hash = seen.hash();
        state.seen = seen;
        match &result {
            Ok(reloaded) => {
                state.on_disk = OnDisk { hash, seen_at: now, error: None };
                warn_of(&reloaded.notes);
                let changed = paths(&reloaded.changes);
                tracing::info!(hash = %reloaded.hash, %changed, "the configuration is applied");
            }
            Err(rejected) => {
                state.on_disk = OnDisk { hash, seen_at: now, error: Some(shown(rejected)) };
                tracing::error!(problems = %rejected.rendered.trim_end(), "the configuration is rejected; the one before stays applied");
            }
        }
        result
    }

    /// What a watcher calls: something has happened around the files, perhaps one of them has changed.
    fn reload_if_changed(&self) {
        let seen = Arc::clone(&self.state().seen);
        if !self.config().reload_watch || !seen.have_changed(self.source.environment.as_ref()) {
            return;
        }
        // The outcome is in the log, the metrics and the API.
        let _: Result<Reloaded, Rejected> = self.reload_now();
    }

    /// Builds `loaded` beside what is applied, then swaps.
    fn replace(&self, loaded: Loaded) -> Result<Reloaded, Rejected> {
        let version = version(&loaded);
        let (registry, ports, before) = self.applied();
        let changes = changes(&before.effective, &version.effective);
        let mut notes: Vec<Value> = loaded.notes.iter().map(value).collect();
        notes.extend(self.needs_restart(&loaded.config));
        let (metrics, logs) = (&self.shared.metrics, &self.shared.logs);
        let built = build(loaded, &registry, &ports, self.workers.len(), metrics, logs, &mut Inherited::default())
            // Names that came as far as a series of their own.
            .inspect_err(|_| self.forget(&self.state()));
        // What is new is steered before it is used. A name that stays keeps the live state that is steered already.
        let built = built.inspect(|built| self.overrides.lay_over(&built.registry));
        let applied = built.and_then(|built| self.apply(&mut self.state(), built, version.clone()));
        applied.map_err(|message| Rejected { problems: vec![json!({ "message": message })], rendered: message })?;
        Ok(Reloaded { hash: version.hash, changes, notes })
    }

    /// What a new configuration is built beside.
    fn applied(&self) -> (Arc<Registry>, Vec<Arc<Port>>, Version) {
        let state = self.state();
        (Arc::clone(&state.registry), state.ports.clone(), state.applied.clone())
    }

    /// Swaps the snapshot; from here on nothing can fail but an order to a worker that hangs.
    fn apply(&self, state: &mut State, built: Built, version: Version) -> Result<(), String> {
        if self.shared.draining.load(Ordering::Relaxed) {
            // It would let in clients whom nobody waits for any more. A drain that begins from here on waits for `state`.
            return Err(GOING.to_owned());
        }
        let config = Arc::clone(&built.snapshot.config);
        // First, so that whoever waits at what is new is found by what becomes free there.
        built.registry.take_effect(&state.registry, clock::now());
        if config.routes.iter().any(|route| route.cache.is_some()) {
            self.shared.cache.get_or_init(|| Cache::new(config.memory.cache)).set_bytes(config.memory.cache);
        }
        self.shared.snapshot.store(built.snapshot);
        self.shared.logs.apply(built.log);
        state.registry = Arc::new(built.registry);
        state.applied = version;
        let stays = |port: &Arc<Port>| config.listeners.iter().any(|listener| listener.bind == port.bind);
        let (stay, leave) = state.ports.drain(..).partition(stays);
        state.ports = stay;
        for port in &leave {
            port.close();
        }
        state.leaving.retain(|port| !port.is_over());
        state.leaving.extend(leave);
        for port in state.ports.iter().chain(built.opened.iter().map(|(port, _)| port)) {
            for listener in config.listeners.iter().filter(|listener| listener.bind == port.bind) {
                let metrics = self.shared.metrics.listener(&listener.name);
                let terminator = built.terminators.get(&port.bind).cloned();
                metrics.certificates(&[]);
                if let Some(terminator) = &terminator {
                    terminator.announce(clock::wall());
                }
                port.follow(listener, metrics, terminator);
            }
        }
        for (port, sockets) in built.opened {
            for (worker, (door, socket)) in self.workers.iter().cycle().zip(sockets) {
                let order = Order::Accept(door, socket);
                worker.try_send(order).map_err(|_| "a worker does not take orders; restart the gateway".to_owned())?;
            }
            tracing::info!(listener = %port.listener().name, address = %port.local, "listening");
            state.ports.push(port);
        }
        self.forget(state);
        self.shared.metrics.reloaded(true, clock::wall());
        Ok(())
    }

    /// Drops the series of what neither the applied configuration names nor a connection still uses.
    fn forget(&self, state: &State) {
        let config = self.config();
        let mut routes: Vec<&str> = config.routes.iter().map(|route| &*route.name).collect();
        routes.push(UNROUTED);
        // A provider that was discovered has none of its own: they would stand at 0 for good.
        let members = state.registry.everyone();
        let providers: Vec<&str> = members.iter().map(|member| &*member.name).collect();
        let pools: Vec<&str> = config.pools.iter().map(|pool| &*pool.name).collect();
        let leaving: Vec<_> = state.leaving.iter().map(|port| port.listener()).collect();
        let listeners: Vec<&str> = config.listeners.iter().chain(&leaving).map(|listener| &*listener.name).collect();
        self.shared.metrics.retain(&routes, &providers, &pools, &listeners);
    }

    /// What differs from how the process was started and no reload can change, as notes.
    fn needs_restart(&self, new: &Config) -> Vec<Value> {
        let restart =
            |what: &str| json!({ "message": format!("`{what}` has changed; it takes effect at the next start") });
        let workers = (self.first.workers != new.workers).then(|| restart("workers"));
        let admin = (self.first.admin.bind != new.admin.bind).then(|| restart("admin.bind"));
        let store = (self.first.store.path != new.store.path).then(|| restart("store.path"));
        workers.into_iter().chain(admin).chain(store).collect()
    }

    /// Tells every port to accept no more, and every answer to close its connection.
    fn close(&self) -> Vec<Arc<Port>> {
        self.shared.draining.store(true, Ordering::Relaxed);
        let state = self.state();
        let ports: Vec<_> = state.ports.iter().chain(&state.leaving).cloned().collect();
        for port in &ports {
            port.close();
        }
        ports
    }
}

impl Control for Core {
    fn admin(&self) -> Arc<config::Admin> {
        Arc::new(self.config().admin.clone())
    }

    fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.shared.metrics)
    }

    fn readiness(&self) -> Readiness {
        let closed = self.shared.draining.load(Ordering::Relaxed);
        let draining = closed || self.unready.load(Ordering::Relaxed);
        let taking = match (closed, draining) {
            (true, _) => "draining",
            (false, true) => "taking requests until shutdown.delay is over; then it drains",
            (false, false) => "taking requests",
        };
        let state = self.state();
        let listening = !state.ports.is_empty();
        let addresses: Vec<_> = state.ports.iter().map(|port| port.local.to_string()).collect();
        let error = state.on_disk.error.is_some();
        let latest =
            if error { "the latest reload was rejected; see /api/v1/config" } else { "the latest reload was applied" };
        let check = |name, ok, detail: String| Check { name, ok, detail };
        Readiness {
            ready: listening && !draining,
            draining,
            checks: vec![
                check("configured", true, format!("applied {}", state.applied.hash)),
                check("listening", listening, addresses.join(", ")),
                check("accepting", !draining, taking.to_owned()),
                check("configuration", !error, latest.to_owned()),
            ],
        }
    }

    fn page(&self, format: Exposition) -> (&'static str, String) {
        self.figures().show();
        self.shared.metrics.set_cache_bytes(self.shared.cache.get().map_or(0, |cache| cache.store.bytes()));
        self.shared.metrics.render(format)
    }

    fn providers(&self) -> Vec<ProviderView> {
        self.figures().providers()
    }

    fn circuits(&self) -> Vec<CircuitView> {
        self.figures().circuits()
    }

    fn queues(&self) -> Vec<QueueView> {
        self.figures().queues()
    }

    fn waiting(&self, pool: &str, limit: usize) -> Option<Vec<WaitingView>> {
        self.figures().waiting(pool, limit)
    }

    fn cancel(&self, pool: &str, id: u64) -> bool {
        self.registry().find_pool(pool).is_some_and(|pool| pool.cancel(id))
    }

    fn balances(&self) -> Vec<BalanceView> {
        self.figures().balances()
    }

    fn retries(&self) -> RetryView {
        self.figures().retries()
    }

    fn degradations(&self) -> Vec<DegradationView> {
        self.figures().degradations()
    }

    fn cache(&self) -> Option<CacheView> {
        let cache = self.shared.cache.get()?;
        let kept = cache.store.figures();
        let route = |route: RouteFigures| {
            let RouteFigures { route, entries, bytes, hits } = route;
            CachedRoute { route, entries, bytes, hits }
        };
        Some(CacheView {
            entries: kept.entries,
            bytes: kept.bytes,
            arriving_bytes: kept.arriving_bytes,
            capacity: kept.capacity,
            under_way: cache.flights.len(),
            declined: cache.flights.declined(),
            routes: kept.routes.into_iter().map(route).collect(),
        })
    }

    fn forget(&self, what: &Forget) -> u64 {
        let url = match what {
            Forget::Key(url) => frame::spelled(url),
            Forget::Prefix(_) | Forget::Route(_) => None,
        };
        let what = match what {
            Forget::Key(written) => Purge::Url(url.as_deref().unwrap_or(written)),
            Forget::Prefix(prefix) => Purge::Prefix(prefix),
            Forget::Route(route) => Purge::Route(route),
        };
        let count = self.shared.cache.get().map_or(0, |cache| cache.purge(&what));
        tracing::info!(?what, replies = count, "kept replies are forgotten");
        count
    }

    fn dependencies(&self) -> Vec<Dependency> {
        let store = self.overrides.store();
        let (state, detail) = match store.state {
            store::State::Unused => ("unused", format!("{}: nothing had to be stored yet", store.place)),
            store::State::Works => ("ok", store.place),
            store::State::Fails(error) => ("failing", format!("{error}; until then overrides are kept in memory only")),
        };
        vec![Dependency { name: "store", state, detail, latency: store.latency }]
    }

    fn overrides(&self) -> Vec<Shown> {
        self.overrides.list(&*self.registry())
    }

    fn override_by(&self, setting: Setting, name: &str, ttl: Option<Duration>) -> Result<Shown, overrides::Refused> {
        let now = clock::wall();
        // A year beyond what the clock can say has no end worth noting.
        let until = ttl.and_then(|ttl| now.checked_add(ttl));
        self.overrides.put(&*self.registry(), setting, name, until, now)
    }

    fn take_back(&self, target: &Target) -> Result<Option<Shown>, overrides::Refused> {
        self.overrides.clear(&*self.registry(), target, clock::wall())
    }

    fn config(&self) -> ConfigStatus {
        let file = config::load(&self.source.path, self.source.environment.as_ref());
        let inputs = Arc::clone(inputs(&file));
        let hash = inputs.hash();
        let state = self.state();
        let known = inputs == state.seen;
        let (error, diff) = match file {
            // What only an attempt to apply it shows, such as an address in use, is known from the latest attempt.
            Ok(loaded) => (
                state.on_disk.error.clone().filter(|_| known),
                changes(&state.applied.effective, &config::effective(&loaded.config)),
            ),
            Err(problems) => (Some(shown(&rejected(&problems))), Vec::new()),
        };
        let seen_at = if known { state.on_disk.seen_at } else { now() };
        ConfigStatus { applied: state.applied.clone(), on_disk: OnDisk { hash, seen_at, error }, diff }
    }

    fn reload(&self) -> Reloading {
        let core = Weak::clone(&self.me);
        Box::pin(async move {
            let core = core.upgrade().ok_or_else(|| rejection(GOING))?;
            tokio::task::spawn_blocking(move || core.reload_now()).await.unwrap_or_else(|_| Err(rejection(GOING)))
        })
    }

    fn check(&self, yaml: &[u8]) -> Result<Vec<Value>, Rejected> {
        let loaded =
            config::parse("request body", yaml, &UnknownEnvironment).map_err(|problems| rejected(&problems))?;
        verify(&loaded.config)
            .map_err(|message| Rejected { problems: vec![json!({ "message": message })], rendered: message })?;
        Ok(loaded.notes.iter().map(value).collect())
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("path", &self.source.path).finish_non_exhaustive()
    }
}

/// Everything that can fail, before anything is changed.
fn build(
    loaded: Loaded,
    registry: &Registry,
    ports: &[Arc<Port>],
    workers: usize,
    metrics: &Metrics,
    logs: &Logs,
    inherited: &mut Inherited,
) -> Result<Built, String> {
    let config = Arc::new(loaded.config);
    let (registry, pools) = registry.build(&config, workers, metrics).map_err(|error| error.to_string())?;
    let terminators = terminators(&config, ports, metrics)?;
    let log = logs.prepare(&config.log).map_err(|error| format!("log: {error}"))?;
    let mut opened: Vec<Opened> = Vec::new();
    for listener in &config.listeners {
        if !ports.iter().any(|port| port.bind == listener.bind) {
            let mut ours = ports.iter().chain(opened.iter().map(|(port, _)| port));
            let given = inherited.take(Role::Listener, &listener.name, &listener.bind.to_string());
            let number = |bind: &Bind| bind.tcp().map(|address| address.port());
            let beside_ours = ours.any(|port| number(&port.local) == number(&listener.bind))
                || inherited.ports().any(|port| Some(port) == number(&listener.bind));
            let port = Port::listen(listener, workers, metrics.listener(&listener.name), beside_ours, given);
            opened.push(port.map_err(|error| cannot_listen(&listener.name, &listener.bind, &error))?);
        }
    }
    let snapshot = Arc::new(Snapshot::new(config, &pools, &registry, metrics));
    Ok(Built { registry, snapshot, log, opened, terminators })
}

/// TLS of each listener that speaks it; what has to outlive a reload is taken over from its port.
fn terminators(config: &Config, ports: &[Arc<Port>], metrics: &Metrics) -> Result<Terminators, String> {
    let mut terminators = Terminators::new();
    for listener in &config.listeners {
        let Some(tls) = &listener.tls else { continue };
        let port = ports.iter().find(|port| port.bind == listener.bind);
        let before = port.and_then(|port| port.terminator());
        let metrics = metrics.listener(&listener.name);
        let terminator = Terminator::build(&listener.name, tls, listener.protocols, metrics, before.as_deref())
            .map_err(|error| format!("listener `{}`: {error}", listener.name))?;
        terminators.insert(listener.bind.clone(), Arc::new(terminator));
    }
    Ok(terminators)
}

/// Whether everything that `config` names can be built, without touching anything that is shared: no address, no log file.
/// What a reload would still find out is whether the machine has those to give.
///
/// # Errors
/// What a reload would say.
pub fn verify(config: &Config) -> Result<(), String> {
    let metrics = Metrics::new();
    Registry::default().build(config, 1, &metrics).map_err(|error| error.to_string())?;
    terminators(config, &[], &metrics).map(drop)
}

fn cannot_listen(name: &str, bind: &Bind, error: &io::Error) -> String {
    use io::ErrorKind as E;
    let next = match (bind, error.kind()) {
        (_, E::AddrInUse) => "another process has it: stop that one, or choose another `bind`",
        (Bind::Tcp(_), E::PermissionDenied) => {
            "ports below 1024 need CAP_NET_BIND_SERVICE: grant it, or choose a higher port"
        }
        (Bind::Tcp(_), E::AddrNotAvailable) => "this machine does not have that address: choose another `bind`",
        (Bind::Unix(_), E::NotFound) => "create its folder, or choose another `bind`",
        (Bind::Unix(_), E::PermissionDenied) => {
            "the user that runs the gateway has to be able to write to its folder, and to connect to a socket that is there"
        }
        (Bind::Unix(_), E::AlreadyExists) => "it is not removed: choose another `bind`, or remove it yourself",
        _ => "choose another `bind`",
    };
    format!("listener `{name}` cannot listen on {bind}: {error}; {next}")
}

/// The admin listener's socket, and whether a service manager holds it too.
fn bind_admin(bind: SocketAddr, inherited: &mut Inherited) -> Result<(TcpListener, bool), StartError> {
    if let Some(Sockets { mut open, kept }) = inherited.take(Role::Admin, "admin", &bind.to_string())
        && let Some(socket) = open.pop()
    {
        return Ok((socket.into(), kept));
    }
    let problem = |error| StartError::Build(cannot_listen("admin", &Bind::Tcp(bind), &error));
    Ok((TcpListener::bind(bind).map_err(problem)?, false))
}

/// A port as another process knows it.
fn address(port: &Port) -> Address {
    Address { role: Role::Listener, bind: port.bind.to_string() }
}

fn spawn_workers(count: usize, shared: &Arc<Shared>) -> io::Result<(Inboxes, Vec<JoinHandle<()>>)> {
    let spawned: io::Result<Vec<_>> =
        (0..count).map(|index| worker::spawn(Worker { index, shared: Arc::clone(shared) })).collect();
    Ok(spawned?.into_iter().unzip())
}

/// The admin listener has a thread and a runtime of its own: whatever it does, requests do not wait for it.
fn serve_admin(listener: TcpListener, control: Arc<Core>, stop: watch::Receiver<bool>) -> io::Result<JoinHandle<()>> {
    let runtime = own_runtime()?;
    runtime.spawn(look_at_certificates(Arc::downgrade(&control)));
    runtime.spawn(end_overrides(Arc::downgrade(&control), Arc::clone(&control.overrides)));
    std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
        if let Err(error) = runtime.block_on(admin::serve(listener, control, stop)) {
            tracing::error!(%error, "the admin listener has ended; restart the gateway");
        }
    })
}

/// A runtime for a thread of its own.
fn own_runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// What goes on beside requests has a thread of its own, until `end` is dropped: however many checks there are, neither
/// workers nor operators wait for them.
fn keep_up(runtime: Runtime, end: oneshot::Receiver<()>) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("upkeep".to_owned()).spawn(move || {
        // Nothing is ever sent.
        let _: Result<(), oneshot::error::RecvError> = runtime.block_on(end);
        // Not waiting for name look-ups under way: the system may take its time.
        runtime.shutdown_background();
    })
}

/// Lets what was discovered come true.
async fn take_in(core: Weak<Core>, mut discovered: mpsc::Receiver<Found>) {
    while let Some(Found { family, addresses }) = discovered.recv().await {
        let Some(core) = core.upgrade() else { return };
        let state = core.state();
        if let Some(family) = family.upgrade() {
            state.registry.discovered(&family, &addresses, &core.shared.metrics, clock::now());
            core.forget(&state);
        }
    }
}

/// Says once a day which certificates end soon; a reload says it as well.
async fn look_at_certificates(core: Weak<Core>) {
    loop {
        tokio::time::sleep(DAY).await;
        let Some(core) = core.upgrade() else { return };
        let ports = core.state().ports.clone();
        for terminator in ports.iter().filter_map(|port| port.terminator()) {
            terminator.announce(clock::wall());
        }
    }
}

/// Takes overrides back when their time is over.
async fn end_overrides(core: Weak<Core>, overrides: Arc<Overrides>) {
    loop {
        overrides.next_end(clock::wall).await;
        let Some(core) = core.upgrade() else { return };
        // The store may keep it waiting.
        let expire = move || core.overrides.expire(&*core.registry(), clock::wall());
        if let Err(error) = tokio::task::spawn_blocking(expire).await {
            tracing::error!(%error, "overrides do not end by themselves any more; take them back by the API");
            return;
        }
    }
}

fn version(loaded: &Loaded) -> Version {
    Version { hash: loaded.hash.clone(), at: now(), effective: config::effective(&loaded.config) }
}

fn now() -> SystemTime {
    clock::wall()
}

fn changes(old: &Value, new: &Value) -> Vec<Value> {
    config::diff(old, new).iter().map(value).collect()
}

/// Why a gateway takes no new configuration now.
fn rejection(why: &str) -> Rejected {
    Rejected { problems: vec![json!({ "message": why })], rendered: why.to_owned() }
}

fn rejected(problems: &Problems) -> Rejected {
    Rejected { rendered: problems.to_string(), problems: problems.problems.iter().map(value).collect() }
}

/// What is worth knowing about a configuration, in the log: whoever saved a file sees no answer of the API.
fn warn_of(notes: &[Value]) {
    for note in notes {
        tracing::warn!("{}", note["message"].as_str().unwrap_or_default());
    }
}

/// Where the changes are: the first of them, and how many more.
fn paths(changes: &[Value]) -> String {
    let first = changes.iter().take(CHANGES_LOGGED).filter_map(|change| change["path"].as_str());
    let first = first.collect::<Vec<_>>().join(", ");
    match changes.len().saturating_sub(CHANGES_LOGGED) {
        0 if first.is_empty() => "nothing".to_owned(),
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

/// A rejection as the admin API shows it.
fn shown(rejected: &Rejected) -> Value {
    json!({ "message": rejected.rendered, "problems": rejected.problems })
}

/// As JSON; what cannot be shown is left empty rather than failing the request that wanted to see it.
fn value(of: &impl serde::Serialize) -> Value {
    serde_json::to_value(of).unwrap_or_default()
}

/// What was read, whatever came of it.
fn inputs(loaded: &Result<Loaded, Problems>) -> &Arc<Inputs> {
    match loaded {
        Ok(loaded) => &loaded.inputs,
        Err(problems) => &problems.inputs,
    }
}

/// What a reload is told once a drain has begun.
const GOING: &str = "the gateway is going and takes no new configuration";

/// What a reload is told while a new process is on its way.
const HANDING_OVER: &str = "a new process is about to take over and reads the file itself; reload once it has";

/// Answers of DNS that wait to come true; whoever finds more waits.
const FOUND: usize = 64;

/// Between two looks at the certificates.
const DAY: Duration = Duration::from_hours(24);

/// Changes that a log line names.
const CHANGES_LOGGED: usize = 10;

/// For the last log lines to reach their file.
const FLUSH_TIME: Duration = Duration::from_secs(2);
