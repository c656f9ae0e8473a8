//! The figures as tables, for a terminal or for a README.

use crate::contenders::Kind;
use crate::idle::{self, Idle};
use crate::latency::Latency;
use crate::rounds::{Plan, Timing};
use crate::scaling::Scaling;
use crate::spread::{ENOUGH, Spread};
use crate::storm::Storm;
use crate::syscalls;
use crate::table::{Cell, Page, Table, Tone, plain, thousands};
use crate::targets;
use crate::workloads::{Face, Workload};
use std::collections::BTreeMap;

/// Everything one run found out.
#[derive(Debug)]
pub(crate) struct Report {
    /// Where the figures come from.
    pub(crate) facts: Vec<(&'static str, String)>,
    /// How the timed rounds were made.
    pub(crate) plan: Plan,
    /// Timed rounds, one entry a workload.
    pub(crate) timings: Vec<Timing>,
    /// User instructions per request.
    pub(crate) instructions: Vec<(&'static Workload, BTreeMap<Kind, f64>)>,
    /// Memory of idle connections.
    pub(crate) idle: Vec<Idle>,
    /// System calls per request.
    pub(crate) syscalls: syscalls::Counts,
    /// Latency at a fixed rate.
    pub(crate) latency: Latency,
    /// One worker and two.
    pub(crate) scaling: Scaling,
    /// Latency during handshake storms.
    pub(crate) storm: Storm,
    /// What a reader must know before believing the figures.
    pub(crate) warnings: Vec<String>,
}

// === impl Report ===

impl Report {
    /// Nothing found out yet.
    pub(crate) fn empty(plan: Plan) -> Report {
        let (facts, timings, warnings) = (Vec::new(), Vec::new(), Vec::new());
        let (instructions, idle, syscalls) = (Vec::new(), Vec::new(), Vec::new());
        let (latency, scaling, storm) = (Latency::default(), Scaling::default(), Storm::default());
        Report { facts, plan, timings, instructions, idle, syscalls, latency, scaling, storm, warnings }
    }

    /// All of it in words and figures.
    pub(crate) fn page(&self) -> Page<'_> {
        // Hits have one peer more.
        let tables = vec![
            self.timing_table(Face::Http1),
            self.timing_table(Face::Cache),
            self.instruction_table(Face::Http1),
            self.instruction_table(Face::Cache),
            syscalls::table(&self.syscalls),
            self.latency.table(),
            self.latency.comparison(),
            idle::table(&self.idle),
            self.scaling.table(),
            self.storm.table(),
            targets::table(self),
        ];
        Page { facts: &self.facts, tables, warnings: &self.warnings }
    }

    /// Of the workloads whose peers are the same as at `face`.
    fn timing_table(&self, face: Face) -> Table {
        let interval = if self.plan.rounds < ENOUGH { "whole range" } else { "95 % interval" };
        let title = format!(
            "Processor time per request or handshake; medians of {} rounds of {} s, paired ratios with {interval}",
            self.plan.rounds, self.plan.seconds
        );
        let mut header = words(&["workload", "proxy", "CPU µs"]);
        header.extend(against_peers(face));
        header.extend(words(&["requests/s", "p50 µs", "p99 µs", "MiB"]));
        let timings = self.timings.iter().filter(|timing| are_like(face, timing.workload));
        let rows = timings.flat_map(|timing| timing.samples.keys().map(|kind| timing_row(timing, *kind)));
        Table { title, header, rows: rows.collect() }
    }

    fn instruction_table(&self, face: Face) -> Table {
        let title = "User instructions per request or handshake (one connection, counted by cachegrind)".to_owned();
        let mut rows = Vec::new();
        for (workload, counts) in self.instructions.iter().filter(|(workload, _)| are_like(face, workload)) {
            for (kind, count) in counts {
                let against = |peer| match counts.get(&peer) {
                    Some(_) if *kind == peer => plain("1"),
                    Some(peer) => plain(format!("{:.2}", count / peer)),
                    None => plain("–"),
                };
                let mut row = vec![plain(workload.title), plain(kind.name()), plain(thousands(*count))];
                row.extend(Kind::peers(face).map(against));
                rows.push(row);
            }
        }
        let mut header = words(&["workload", "proxy", "instructions"]);
        header.extend(against_peers(face));
        Table { title, header, rows }
    }
}

fn timing_row(timing: &Timing, kind: Kind) -> Vec<Cell> {
    let median = |of: fn(&crate::rounds::Sample) -> f64| timing.median(kind, of);
    let ratio = |peer| if kind == peer { plain("1") } else { ratio_cell(timing.ratio(kind, peer)) };
    let mut row =
        vec![plain(timing.workload.title), plain(kind.name()), plain(microseconds(median(|sample| sample.cpu)))];
    row.extend(Kind::peers(timing.workload.face).map(ratio));
    row.extend([
        plain(thousands(median(|sample| sample.rate))),
        plain(thousands(median(|sample| sample.p50))),
        plain(thousands(median(|sample| sample.p99))),
        plain(format!("{:.1}", median(|sample| sample.memory) / 1024.0)),
    ]);
    row
}

// === small things ===

/// Whether a workload's contenders are those of `face`.
fn are_like(face: Face, workload: &Workload) -> bool {
    (face == Face::Cache) == (workload.face == Face::Cache)
}

/// Headers of the columns with ratios.
fn against_peers(face: Face) -> impl Iterator<Item = String> {
    Kind::peers(face).map(|peer| format!("/ {}", peer.name()))
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A ratio with its interval; green where it is surely below one, yellow where it is surely above.
pub(crate) fn ratio_cell(spread: Option<Spread>) -> Cell {
    match spread {
        None => plain("–"),
        Some(spread) => Cell {
            text: format!("{:.2} [{:.2}–{:.2}]", spread.median, spread.low, spread.high),
            tone: tone_of(spread),
        },
    }
}

fn tone_of(spread: Spread) -> Tone {
    match spread {
        Spread { high, .. } if high < 1.0 => Tone::Better,
        Spread { low, .. } if low > 1.0 => Tone::Worse,
        _ => Tone::Plain,
    }
}

/// Three figures that count.
pub(crate) fn microseconds(value: f64) -> String {
    if value < 100.0 { format!("{value:.1}") } else { thousands(value) }
}
