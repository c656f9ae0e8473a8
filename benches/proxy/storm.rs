//! What a handshake storm does to those who are connected already.
//!
//! A few clients with established TLS connections ask now and then while many others shake hands, ask once and leave, as
//! fast as they can. The storm's clients run at the lowest priority of the driver's core, so that they do not stand in
//! the way of the clients whose latency is taken. The same is measured without the storm, just before.

use crate::Outcome;
use crate::contenders::{Kind, Running};
use crate::load::Order;
use crate::progress::Progress;
use crate::rounds::{Driver, Plan, figure};
use crate::spread::median_of;
use crate::table::{Table, plain, thousands};
use crate::workloads::Workload;
use std::collections::BTreeMap;
use std::time::Duration;

/// One round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// Microseconds of latency without the storm: median and 99th percentile.
    pub(crate) quiet: [f64; 2],
    /// The same while it goes on.
    pub(crate) stormy: [f64; 2],
    /// Handshakes per second of the storm.
    pub(crate) handshakes: f64,
}

/// All rounds.
#[derive(Debug, Default)]
pub(crate) struct Storm {
    /// One entry a contender.
    pub(crate) samples: BTreeMap<Kind, Vec<Sample>>,
    /// What went wrong.
    pub(crate) warnings: Vec<String>,
}

// === impl Storm ===

impl Storm {
    /// Storms every contender in turn, over and over.
    pub(crate) fn take(running: &[Running], driver: Driver, plan: Plan, progress: &mut Progress) -> Storm {
        let mut storm = Storm::default();
        let mut out = Vec::new();
        for round in 0..plan.rounds {
            for turn in 0..running.len() {
                let one = &running[(round + turn) % running.len()];
                if out.contains(&one.kind) {
                    continue;
                }
                progress.step(&format!("storm: round {}/{} {}", round + 1, plan.rounds, one.kind.name()));
                match storm_once(one, driver, plan.seconds, &mut storm.warnings) {
                    Ok(sample) => storm.samples.entry(one.kind).or_default().push(sample),
                    Err(error) => {
                        storm.samples.remove(&one.kind);
                        storm.warnings.push(format!("handshake storm, {}: left out: {error}", one.kind.name()));
                        out.push(one.kind);
                    }
                }
            }
        }
        storm
    }

    /// The latency of those who were there before.
    pub(crate) fn table(&self) -> Table {
        let rounds = self.samples.values().map(Vec::len).max().unwrap_or(0);
        let title = format!(
            "Latency on established TLS connections, quiet and while {MANY} clients shake hands; medians of {rounds} rounds"
        );
        let row = |(kind, samples): (&Kind, &Vec<Sample>)| {
            let middle = |of: fn(&Sample) -> f64| {
                plain(thousands(median_of(samples.iter().map(of).collect()).unwrap_or(f64::NAN)))
            };
            let worst = samples.iter().map(|sample| sample.stormy[1]).fold(0.0, f64::max);
            vec![
                plain("handshake storm"),
                plain(kind.name()),
                middle(|sample| sample.quiet[0]),
                middle(|sample| sample.quiet[1]),
                middle(|sample| sample.stormy[0]),
                middle(|sample| sample.stormy[1]),
                plain(thousands(worst)),
                middle(|sample| sample.handshakes),
            ]
        };
        let header =
            ["workload", "proxy", "quiet p50 µs", "quiet p99", "storm p50", "storm p99", "its worst", "handshakes/s"];
        let rows = self.samples.iter().map(row).collect();
        Table { title, header: header.map(str::to_owned).into(), rows }
    }
}

fn storm_once(one: &Running, driver: Driver, seconds: u32, warnings: &mut Vec<String>) -> Outcome<Sample> {
    let known = |key| Workload::named(key).ok_or("a workload of the storm is gone");
    let order = |workload, seconds| Order::new(workload, one.address, seconds, driver.scratch());
    let calm = Order { connections: ASKING, pause: BETWEEN, ..order(known("tls-1k")?, seconds) };
    // The storm begins before the latency is taken and goes on until after it.
    let many = Order { connections: MANY, ..order(known("tls-full")?, seconds + 2) };

    let mut asking = driver.start(&calm)?;
    asking.go()?;
    let quiet = asking.figures()?;
    drop(asking);
    let (mut asking, mut storm) = (driver.start(&calm)?, driver.start_yielding(&many)?);
    storm.go()?;
    crate::process::pause(Duration::from_secs(1));
    asking.go()?;
    let (stormy, storm) = (asking.figures()?, storm.figures()?);

    let figure = |printed: &str, name| figure(printed, name).ok_or_else(|| format!("the load printed:\n{printed}"));
    for (printed, who) in [(&quiet, "before"), (&stormy, "during"), (&storm, "in")] {
        if figure(printed, "failed")? > 0.0 {
            warnings.push(format!("requests {who} the handshake storm failed, {}: {printed}", one.kind.name()));
        }
    }
    Ok(Sample {
        quiet: [figure(&quiet, "p50")?, figure(&quiet, "p99")?],
        stormy: [figure(&stormy, "p50")?, figure(&stormy, "p99")?],
        handshakes: figure(&storm, "requests")? / figure(&storm, "microseconds")? * 1e6,
    })
}

/// Clients that shake hands at once.
const MANY: u32 = 64;

/// Clients whose latency is taken.
const ASKING: u32 = 4;

/// Between their requests.
const BETWEEN: Duration = Duration::from_millis(1);
