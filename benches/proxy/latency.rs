//! What a contender adds to latency while it has little to do: requests at a fixed rate, to the upstream directly and
//! through each contender, in interleaved rounds.

use crate::Outcome;
use crate::contenders::{Kind, Running};
use crate::paced;
use crate::progress::Progress;
use crate::rounds::{Driver, Plan, figure};
use crate::spread::{Spread, median_of};
use crate::table::{Cell, Table, Tone, plain};
use crate::workloads::Face;
use std::collections::BTreeMap;

/// Microseconds at each of [`QUANTILES`], one a round; nobody stands for the upstream itself.
#[derive(Debug, Default)]
pub(crate) struct Latency {
    samples: BTreeMap<Option<Kind>, Vec<[f64; 3]>>,
    /// What went wrong.
    pub(crate) warnings: Vec<String>,
}

/// What is looked at: what it is called, and what the load calls it.
pub(crate) const QUANTILES: [(&str, &str); 3] = [("p50", "p50"), ("p99", "p99"), ("p99.9", "p999")];

// === impl Latency ===

impl Latency {
    /// Asks everyone in turn, over and over.
    pub(crate) fn take(running: &[Running], driver: Driver, plan: Plan, progress: &mut Progress) -> Latency {
        let mut latency = Latency::default();
        let mut targets = vec![(None, driver.upstream())];
        targets.extend(running.iter().map(|one| (Some(one.kind), one.address)));
        let mut out = Vec::new();
        for round in 0..plan.rounds {
            for turn in 0..targets.len() {
                let (kind, address) = targets[(round + turn) % targets.len()];
                if out.contains(&kind) {
                    continue;
                }
                progress.step(&format!("latency: round {}/{} {}", round + 1, plan.rounds, name(kind)));
                match driver.paced(address, plan.seconds).and_then(|printed| read(&printed)) {
                    Ok(sample) => latency.samples.entry(kind).or_default().push(sample),
                    Err(error) => {
                        latency.samples.remove(&kind);
                        latency.warnings.push(format!("latency, {}: left out: {error}", name(kind)));
                        out.push(kind);
                    }
                }
            }
        }
        latency
    }

    /// What `kind` has more than `other` at the `at`-th of [`QUANTILES`], round by round, in microseconds.
    pub(crate) fn difference(&self, kind: Option<Kind>, other: Option<Kind>, at: usize) -> Option<Spread> {
        let (ours, theirs) = (self.samples.get(&kind)?, self.samples.get(&other)?);
        Spread::of(ours.iter().zip(theirs).map(|(ours, theirs)| ours[at] - theirs[at]).collect())
    }

    /// What was seen of each, and what is left of it without the upstream's own.
    pub(crate) fn table(&self) -> Table {
        let rounds = self.samples.values().map(Vec::len).max().unwrap_or(0);
        let title = format!(
            "Latency at {} requests/s over {} connections, counted from when each was due; medians of {rounds} rounds",
            paced::RATE,
            paced::CONNECTIONS
        );
        let mut header: Vec<String> = ["workload", "proxy"].map(str::to_owned).into();
        header.extend(QUANTILES.iter().map(|(name, _)| format!("{name} µs")));
        header.extend(QUANTILES.iter().map(|(name, _)| format!("added {name}")));
        let row = |(kind, samples): (&Option<Kind>, &Vec<[f64; 3]>)| {
            let mut row = vec![plain(WHAT), plain(name(*kind))];
            row.extend((0..QUANTILES.len()).map(|at| {
                plain(tenths(median_of(samples.iter().map(|sample| sample[at]).collect()).unwrap_or(f64::NAN)))
            }));
            row.extend((0..QUANTILES.len()).map(|at| match self.difference(*kind, None, at) {
                Some(added) if kind.is_some() => plain(tenths(added.median)),
                _ => plain("–"),
            }));
            row
        };
        Table { title, header, rows: self.samples.iter().map(row).collect() }
    }

    /// Sluice's less each peer's.
    pub(crate) fn comparison(&self) -> Table {
        let title =
            "Sluice's latency less a peer's, µs; paired medians with their interval, which reaches zero where it \
                     is no worse"
                .to_owned();
        let peers: Vec<Kind> =
            Kind::peers(Face::Http1).filter(|kind| self.samples.contains_key(&Some(*kind))).collect();
        let mut header: Vec<String> = ["workload", "quantile"].map(str::to_owned).into();
        header.extend(peers.iter().map(|peer| format!("− {}", peer.name())));
        let mut rows = Vec::new();
        for (at, (quantile, _)) in QUANTILES.iter().enumerate() {
            let cells: Option<Vec<Cell>> = peers
                .iter()
                .map(|peer| self.difference(Some(Kind::Sluice), Some(*peer), at).map(difference_cell))
                .collect();
            if let Some(cells) = cells.filter(|cells| !cells.is_empty()) {
                rows.push([plain(WHAT), plain(*quantile)].into_iter().chain(cells).collect());
            }
        }
        Table { title, header, rows }
    }
}

/// A difference with its interval; green where it is surely below zero, yellow where it is surely above.
pub(crate) fn difference_cell(spread: Spread) -> Cell {
    let text = format!("{} [{} to {}]", tenths(spread.median), tenths(spread.low), tenths(spread.high));
    let tone = match spread {
        Spread { high, .. } if high < 0.0 => Tone::Better,
        Spread { low, .. } if low > 0.0 => Tone::Worse,
        _ => Tone::Plain,
    };
    Cell { text, tone }
}

fn read(printed: &str) -> Outcome<[f64; 3]> {
    let mut sample = [0.0; 3];
    for (place, (_, name)) in sample.iter_mut().zip(QUANTILES) {
        *place = figure(printed, name).ok_or_else(|| format!("the load printed: {printed}"))?;
    }
    Ok(sample)
}

/// How it was asked.
fn name(kind: Option<Kind>) -> &'static str {
    kind.map_or("directly", Kind::name)
}

/// With the sign that tables have.
fn tenths(value: f64) -> String {
    format!("{value:.1}").replace('-', "−")
}

/// The first column.
const WHAT: &str = "GET, 1 KiB, fixed rate";
