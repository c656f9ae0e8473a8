//! The load of the workloads that wrk cannot make, in a process of its own on the driver's core.
//!
//! The benchmark starts itself again with [`ARGUMENT`]. The process opens its connections, says `ready` and waits for a
//! line; then it asks until the time is up, waits for the answers still on their way, and prints its figures as wrk does
//! here. Connections that last are closed only when its input ends. So what a contender uses between the two lines is
//! what the counted requests cost, whole ones only, without opening or closing connections that last.

use crate::Outcome;
use crate::paced;
use crate::process::{Conversation, now, own_program};
use crate::wire::{Dialer, Line};
use crate::workloads::{Visit, Workload};
use sluice::instant::Instant;
use std::cell::RefCell;
use std::ffi::OsString;
use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// The hidden argument; an [`Order`] follows it.
pub(crate) const ARGUMENT: &str = "make-load";

/// What a load process is to do.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    /// What to ask.
    pub(crate) workload: &'static Workload,
    /// Of whom.
    pub(crate) address: SocketAddr,
    /// For how long.
    pub(crate) seconds: u32,
    /// Over how many connections at once.
    pub(crate) connections: u32,
    /// How long each waits between an answer and its next request.
    pub(crate) pause: Duration,
    /// Where certificates are.
    pub(crate) scratch: PathBuf,
}

/// A load process whose connections are open.
#[derive(Debug)]
pub(crate) struct Load {
    process: Conversation,
}

/// When to stop asking.
enum Until {
    Time(Instant),
    Count(u32),
}

/// What all clients of a load share.
struct Tally {
    until: Until,
    /// Microseconds of each request with a good answer.
    took: Vec<u32>,
    failed: u32,
    /// What went wrong first.
    problem: Option<String>,
}

type Shared = Rc<RefCell<Tally>>;

// === impl Order ===

impl Order {
    /// The workload's own connections, asking as fast as they can.
    pub(crate) fn new(workload: &'static Workload, address: SocketAddr, seconds: u32, scratch: &Path) -> Order {
        let scratch = scratch.to_owned();
        Order { workload, address, seconds, connections: workload.connections, pause: Duration::ZERO, scratch }
    }

    fn words(&self) -> [OsString; 7] {
        [
            ARGUMENT.into(),
            self.workload.key.into(),
            self.address.to_string().into(),
            self.seconds.to_string().into(),
            self.connections.to_string().into(),
            self.pause.as_micros().to_string().into(),
            self.scratch.clone().into(),
        ]
    }

    fn parse(words: &[OsString]) -> Option<Order> {
        let [workload, address, seconds, connections, pause, scratch] = words else { return None };
        Some(Order {
            workload: Workload::named(workload.to_str()?)?,
            address: address.to_str()?.parse().ok()?,
            seconds: seconds.to_str()?.parse().ok()?,
            connections: connections.to_str()?.parse().ok()?,
            pause: Duration::from_micros(pause.to_str()?.parse().ok()?),
            scratch: scratch.into(),
        })
    }
}

// === impl Load ===

impl Load {
    /// Starts a load process on `core` and waits until its connections are open.
    pub(crate) fn start(order: &Order, core: usize) -> Outcome<Load> {
        Load::begin(&own_program(), &order.words(), core)
    }

    /// The same, for a load that is to give way to everything else on its core.
    pub(crate) fn start_yielding(order: &Order, core: usize) -> Outcome<Load> {
        let mut words: Vec<OsString> = vec!["-n".into(), "19".into(), own_program().into()];
        words.extend(order.words());
        Load::begin(Path::new("nice"), &words, core)
    }

    /// Starts a load process that asks at a fixed rate.
    pub(crate) fn start_paced(address: SocketAddr, seconds: u32, core: usize) -> Outcome<Load> {
        let words = [paced::ARGUMENT.into(), address.to_string().into(), seconds.to_string().into()];
        Load::begin(&own_program(), &words, core)
    }

    fn begin(program: &Path, words: &[OsString], core: usize) -> Outcome<Load> {
        let mut process = Conversation::start(program, words, core)?;
        match process.hear()?.as_str() {
            READY => Ok(Load { process }),
            other => Err(other.to_owned().into()),
        }
    }

    /// Lets it ask.
    pub(crate) fn go(&mut self) -> Outcome<()> {
        self.process.say("go")
    }

    /// Waits until it has asked; what it printed.
    pub(crate) fn figures(&mut self) -> Outcome<String> {
        self.process.hear()
    }
}

// === the process ===

/// A load process's whole life.
pub(crate) fn make(words: &[OsString]) -> Outcome<()> {
    let order = Order::parse(words).ok_or("a load process was started with an order it cannot read")?;
    // Its other end reads lines, and shows what is no figures.
    if let Err(error) = runtime()?.block_on(in_local_set(converse(&order))) {
        println!("{}", error.to_string().replace('\n', " "));
    }
    Ok(())
}

async fn converse(order: &Order) -> Outcome<()> {
    let clients = within(PATIENCE, open(order)).await?;
    println!("{READY}");
    wait_for_a_line()?;
    let began = now();
    let tally = Tally::until(Until::Time(began + Duration::from_secs(order.seconds.into())));
    let time = Duration::from_secs(order.seconds.into());
    let _open = within(time + PATIENCE, ask_all(clients, order, &tally)).await?;
    let took = now() - began;
    println!("{}", tally.borrow_mut().figures(took));
    std::io::stdout().flush()?;
    wait_for_a_line()
}

/// Makes exactly `requests` requests from this process; one that fails is an error.
pub(crate) fn exactly(order: &Order, requests: u32) -> Outcome<()> {
    runtime()?.block_on(in_local_set(async {
        let clients = within(PATIENCE, open(order)).await?;
        let tally = Tally::until(Until::Count(requests));
        within(PATIENCE * 10, ask_all(clients, order, &tally)).await?;
        match tally.borrow_mut().problem.take() {
            Some(problem) => Err(problem.into()),
            None => Ok(()),
        }
    }))
}

/// What drives a client.
pub(crate) fn runtime() -> Outcome<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// `work`, unless it takes longer than `patience`: a contender that does not answer must not stop the benchmark.
pub(crate) async fn within<T>(patience: Duration, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    tokio::time::timeout(patience, work).await.map_err(|_| format!("no answer within {} s", patience.as_secs()))?
}

async fn in_local_set<T>(work: impl Future<Output = T>) -> T {
    tokio::task::LocalSet::new().run_until(work).await
}

/// Blocks the whole process, on purpose: it has nothing to do until it is told.
fn wait_for_a_line() -> Outcome<()> {
    std::io::stdin().lock().read_line(&mut String::new())?;
    Ok(())
}

// === clients ===

/// One that asks, with its connection if that lasts.
type Client = (Rc<Dialer>, Option<Line>);

/// Everything there has to be before the first request that counts.
async fn open(order: &Order) -> Outcome<Vec<Client>> {
    let mut clients = Vec::new();
    for _ in 0..order.connections {
        let dialer = Rc::new(Dialer::new(order.workload, order.address, &order.scratch)?);
        let mut line = dialer.open_first().await?;
        // The first answer brings settings, and the tickets of the next handshake.
        dialer.ask(&mut line).await?;
        if order.workload.visit != Visit::Stay {
            clients.push((dialer, None));
            continue;
        }
        let others: Vec<Line> = (1..order.workload.streams).filter_map(|_| line.share()).collect();
        clients.extend(others.into_iter().chain([line]).map(|line| (Rc::clone(&dialer), Some(line))));
    }
    Ok(clients)
}

/// Lets all clients ask until it is time to stop; what comes back are the connections that last.
async fn ask_all(clients: Vec<Client>, order: &Order, tally: &Shared) -> Outcome<Vec<Line>> {
    let tasks: Vec<_> = clients
        .into_iter()
        .map(|(dialer, line)| tokio::task::spawn_local(ask_on(dialer, line, order.pause, Rc::clone(tally))))
        .collect();
    let mut kept = Vec::new();
    for task in tasks {
        kept.extend(task.await?);
    }
    Ok(kept)
}

/// One client: its connection comes back, so that it is not closed before the last answer is counted.
async fn ask_on(dialer: Rc<Dialer>, mut line: Option<Line>, pause: Duration, tally: Shared) -> Option<Line> {
    let stays = line.is_some();
    while tally.borrow_mut().another() {
        let began = now();
        match ask_once(&dialer, line.take()).await {
            Ok(used) => {
                tally.borrow_mut().took.push((now() - began).as_micros() as u32);
                line = stays.then_some(used);
            }
            Err(error) => tally.borrow_mut().fail(&error.to_string()),
        }
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
    line
}

/// One request over `line`, or over a new connection; a lasting one that failed is replaced that way.
async fn ask_once(dialer: &Dialer, line: Option<Line>) -> Outcome<Line> {
    let mut line = match line {
        Some(line) => line,
        None => dialer.open().await?,
    };
    dialer.ask(&mut line).await?;
    Ok(line)
}

// === impl Tally ===

impl Tally {
    fn until(until: Until) -> Shared {
        Rc::new(RefCell::new(Tally { until, took: Vec::new(), failed: 0, problem: None }))
    }

    /// Whether to make another request. Failures without end would never come to one.
    fn another(&mut self) -> bool {
        match &mut self.until {
            _ if self.failed >= MOST_FAILURES => false,
            Until::Time(end) => now() < *end,
            Until::Count(left) => {
                let some = *left > 0;
                *left = left.saturating_sub(1);
                some
            }
        }
    }

    fn fail(&mut self, problem: &str) {
        self.failed += 1;
        self.problem.get_or_insert_with(|| problem.to_owned());
    }

    fn figures(&mut self, took: Duration) -> String {
        self.took.sort_unstable();
        let at = |percent: usize| self.took.get(self.took.len() * percent / 100).copied().unwrap_or(0);
        let (requests, microseconds) = (self.took.len(), took.as_micros());
        let (p50, p99) = (at(50), at(99));
        let problem = self.problem.as_deref().unwrap_or("none").replace('\n', " ");
        format!(
            "figures requests={requests} microseconds={microseconds} failed={} p50={p50} p99={p99} problem: {problem}",
            self.failed
        )
    }
}

/// Said when all connections are open.
pub(crate) const READY: &str = "ready";

/// Long enough for any answer, also of an instrumented server on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A contender that fails this often in one round is not worth waiting for.
const MOST_FAILURES: u32 = 1000;
