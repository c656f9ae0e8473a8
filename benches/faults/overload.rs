//! Three times as much as the providers can do, from clients of three classes, some of whom do not wait.

use crate::Outcome;
use crate::contenders::{Contender, Job, Kind, PLACES};
use crate::ledger::Ledger;
use crate::load::{Clients, Ended, Pace, Shape, Shot, percentile};
use crate::process::{Cores, now};
use crate::provider::Provider;
use crate::rows::{PROVIDERS, SERVICE};
use sluice::instant::Instant;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// What overload came to for one contender.
#[derive(Debug, Clone)]
pub(crate) struct Overload {
    /// Who was asked.
    pub(crate) kind: Kind,
    /// Answers a second that the providers can give, asked directly.
    pub(crate) capacity: f64,
    /// Successes a second while it lasted, against that.
    pub(crate) goodput: f64,
    /// For each of [`CLASSES`]: the share of patient clients that succeeded, and the p99 of those in milliseconds.
    pub(crate) classes: [(f64, f64); 3],
    /// What the rest were told, and how fast: p50 and p99 in milliseconds.
    pub(crate) refusals: (usize, [f64; 2]),
    /// Neither served nor refused: connections that broke, clients that gave up waiting.
    pub(crate) lost: usize,
    /// The share that succeeded of what was asked in the three seconds after.
    pub(crate) after: f64,
    /// How much larger it became, in MiB.
    pub(crate) grown: f64,
    /// Clients that left early, and what was begun for them after that.
    pub(crate) left: (usize, usize),
}

impl Overload {
    /// Overloads `contender` for `span`.
    pub(crate) async fn hold(contender: &Contender, span: Duration, scratch: &Path, cores: Cores) -> Outcome<Overload> {
        let ledger = Arc::<Ledger>::default();
        let providers: Vec<Provider> =
            (0..PROVIDERS).map(|place| Provider::start(place, SERVICE, &ledger)).collect::<Result<_, _>>()?;
        let addresses: Vec<SocketAddr> = providers.iter().map(|provider| provider.address).collect();
        let capacity = capacity(&addresses).await?;
        let running = contender.start(Job::Overload, &addresses, scratch, cores).await?;
        let clients = running.clients(&ledger);
        let calm = Pace::steady(capacity * CALM, AROUND, shape);

        let quiet = Arc::clone(&clients).ask(calm, 0, now()).await;
        let before = running.group.usage()?.memory_kib;
        let start = now();
        let pace = Pace::steady(capacity * TIMES, span, shape);
        let mut asking = tokio::spawn(Arc::clone(&clients).ask(pace, quiet.len(), start));
        // The clients of the last moment still wait while the next begin, as in life.
        let most = peak(&running.group, start + span).await?.max(before);
        let late = Arc::clone(&clients).ask(calm, LATE, start + span).await;
        let shots = (&mut asking).await?;

        let patient = |shots: &[Shot]| -> Vec<Shot> {
            shots.iter().filter(|shot| shape(shot.number).patience == PATIENCE).copied().collect()
        };
        let (patient, late) = (patient(&shots), patient(&late));
        let by_class = |class: &str| -> Vec<Shot> {
            patient.iter().filter(|shot| shape(shot.number).class == Some(class)).copied().collect()
        };
        let refused = |shot: &&Shot| matches!(shot.ended, Ended::Answered(answer) if answer.status != 200);
        let mut refusals: Vec<Duration> = shots.iter().filter(refused).map(|shot| shot.took).collect();
        let in_time = |shot: &&Shot| shot.is_success() && shot.at + shot.took < start + span;
        let succeeded = shots.iter().filter(in_time).count();
        let lost = |shot: &&Shot| matches!(shot.ended, Ended::Broken | Ended::Left);
        Ok(Overload {
            kind: contender.kind,
            capacity,
            goodput: succeeded as f64 / span.as_secs_f64() / capacity,
            classes: CLASSES.map(|class| served(&by_class(class))),
            refusals: (refusals.len(), [50, 99].map(|percent| percentile(&mut refusals, percent))),
            lost: patient.iter().filter(lost).count(),
            after: served(&late).0,
            grown: (most - before) as f64 / 1024.0,
            left: (shots.iter().filter(|shot| shot.ended == Ended::Left).count(), ledger.in_vain()),
        })
    }
}

/// The share that succeeded, and the p99 of those in milliseconds.
fn served(shots: &[Shot]) -> (f64, f64) {
    let mut times: Vec<Duration> = shots.iter().filter(|shot| shot.is_success()).map(|shot| shot.took).collect();
    (times.len() as f64 / shots.len() as f64, percentile(&mut times, 99))
}

/// The most memory a group has until then.
async fn peak(group: &crate::process::Group, until: Instant) -> Outcome<u64> {
    let mut most = 0;
    while now() < until {
        most = most.max(group.usage()?.memory_kib);
        tokio::time::sleep_until((now() + BETWEEN_LOOKS).min(until).into()).await;
    }
    Ok(most)
}

/// What the providers can do: each has as many clients as it has places, and each of those asks again at once.
async fn capacity(addresses: &[SocketAddr]) -> Outcome<f64> {
    // What is asked here is no business of the ledger that counts later.
    let (ledger, until) = (Arc::<Ledger>::default(), now() + CALIBRATION);
    let mut loops = JoinSet::new();
    for address in addresses {
        let clients = Clients::of(*address, &ledger);
        for _ in 0..PLACES {
            let clients = Arc::clone(&clients);
            loops.spawn(async move {
                let mut count = 0;
                while now() < until {
                    let pace = Pace { rate: 1.0, count: 1, shape };
                    count += Arc::clone(&clients).ask(pace, 0, now()).await.len();
                }
                count
            });
        }
    }
    let answers: usize = loops.join_all().await.into_iter().sum();
    Ok(answers as f64 / CALIBRATION.as_secs_f64())
}

/// The class and the patience of request `number`.
fn shape(number: usize) -> Shape {
    let class = match number * 37 % 100 {
        0..15 => "high",
        15..45 => "normal",
        _ => "low",
    };
    let leaves = (number * 61 + number / 100).is_multiple_of(20);
    Shape { method: "GET", path: "/", class: Some(class), patience: if leaves { IMPATIENCE } else { PATIENCE } }
}

/// From the most urgent.
pub(crate) const CLASSES: [&str; 3] = ["high", "normal", "low"];

/// Offered load, in capacities.
const TIMES: f64 = 3.0;

/// The same before and after it.
const CALM: f64 = 0.5;

/// How long before and after it.
const AROUND: Duration = Duration::from_secs(3);

/// Numbers of the requests after it begin here.
const LATE: usize = 1_000_000_000;

/// How long most clients wait.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long one in twenty waits.
const IMPATIENCE: Duration = Duration::from_millis(100);

/// For finding out what the providers can do.
const CALIBRATION: Duration = Duration::from_secs(2);

/// Between two looks at the memory.
const BETWEEN_LOOKS: Duration = Duration::from_millis(250);
