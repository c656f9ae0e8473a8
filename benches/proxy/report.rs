//! The figures as a table for a terminal, as a table for a README, and as a picture.

use crate::contenders::Kind;
use crate::idle::Idle;
use crate::rounds::{Plan, Timing};
use crate::spread::{ENOUGH, Spread, median_of};
use crate::storm::{self, Storm};
use crate::table::{Cell, Page, Table, Tone, escape, plain, thousands};
use crate::workloads::{Face, Workload};
use std::collections::BTreeMap;
use std::fmt::Write as _;

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
        let (instructions, idle, storm) = (Vec::new(), Vec::new(), Storm::default());
        Report { facts, plan, timings, instructions, idle, storm, warnings }
    }

    /// All of it in words and figures.
    pub(crate) fn page(&self) -> Page<'_> {
        // Hits have one peer more.
        let tables = vec![
            self.timing_table(Face::Http1),
            self.timing_table(Face::Cache),
            self.instruction_table(Face::Http1),
            self.instruction_table(Face::Cache),
            self.idle_table(),
            self.storm_table(),
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

    fn idle_table(&self) -> Table {
        let connections = self.idle.first().map_or(0, |idle| idle.connections);
        let title = format!(
            "Memory with {} idle keep-alive connections, each after one request",
            thousands(connections as f64)
        );
        let mebibytes = |kib: u64| plain(format!("{:.1}", kib as f64 / 1024.0));
        let row = |idle: &Idle| {
            let bytes = |value| plain(thousands(value));
            let words = [plain("idle connections"), plain(idle.kind.name())];
            let figures =
                [bytes(idle.with_set_aside()), bytes(idle.grown()), mebibytes(idle.small), mebibytes(idle.with)];
            words.into_iter().chain(figures).collect()
        };
        let header =
            ["workload", "proxy", "bytes each", "of it grown", "MiB without", "MiB with"].map(str::to_owned).into();
        Table { title, header, rows: self.idle.iter().map(row).collect() }
    }
}

impl Report {
    fn storm_table(&self) -> Table {
        let rounds = self.storm.samples.values().map(Vec::len).max().unwrap_or(0);
        let title = format!(
            "Latency on established TLS connections, quiet and while {} clients shake hands; medians of {rounds} rounds",
            storm::MANY
        );
        let row = |(kind, samples): (&Kind, &Vec<storm::Sample>)| {
            let middle = |of: fn(&storm::Sample) -> f64| {
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
        let rows = self.storm.samples.iter().map(row).collect();
        Table { title, header: header.map(str::to_owned).into(), rows }
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

// === the picture ===

impl Report {
    /// Horizontal bars: processor time against nginx's, with intervals. Readable on light and on dark ground.
    pub(crate) fn svg(&self) -> String {
        let highest = self
            .timings
            .iter()
            .flat_map(|timing| timing.samples.keys().filter_map(|kind| ratio_to_nginx(timing, *kind)));
        let top = highest.map(|spread| spread.high).fold(1.0, f64::max);
        let scale = Scale { pixels_per_unit: (WIDTH - LEFT - RIGHT) / ((top * 4.0).ceil() / 4.0) };
        let mut body = String::new();
        let mut y = TOP;
        for timing in &self.timings {
            let _ =
                writeln!(body, r#"<text x="16" y="{:.0}" class="title">{}</text>"#, y + 14.0, timing.workload.title);
            y += 22.0;
            for kind in timing.samples.keys() {
                if let Some(spread) = ratio_to_nginx(timing, *kind) {
                    body += &scale.bar(y, *kind, spread, timing.median(*kind, |sample| sample.cpu));
                    y += ROW;
                }
            }
            y += 12.0;
        }
        let height = y + 30.0;
        let head = picture_head(height, self.plan.rounds);
        format!("{head}{body}{}{}</svg>\n", scale.line_at_one(TOP, y), picture_foot(height, &self.facts))
    }
}

struct Scale {
    pixels_per_unit: f64,
}

// === impl Scale ===

impl Scale {
    fn x(&self, ratio: f64) -> f64 {
        LEFT + ratio * self.pixels_per_unit
    }

    fn bar(&self, y: f64, kind: Kind, spread: Spread, cpu: f64) -> String {
        let middle = y + ROW / 2.0;
        let (low, high) = (self.x(spread.low), self.x(spread.high));
        let mut text = format!(
            r#"<text x="{:.0}" y="{:.1}" class="name">{}</text>
<rect x="{LEFT:.0}" y="{:.1}" width="{:.1}" height="{:.1}" rx="2" class="{}"/>
<text x="{:.1}" y="{:.1}">{:.2} · {} µs</text>
"#,
            LEFT - 8.0,
            middle + 4.0,
            kind.name(),
            y + 3.0,
            spread.median * self.pixels_per_unit,
            ROW - 6.0,
            kind.name().to_lowercase(),
            WIDTH - RIGHT + 16.0,
            middle + 4.0,
            spread.median,
            microseconds(cpu),
        );
        if high > low {
            let _ = writeln!(
                text,
                r#"<path class="whisker" d="M{low:.1} {middle:.1}H{high:.1}M{low:.1} {0:.1}v8M{high:.1} {0:.1}v8"/>"#,
                middle - 4.0
            );
        }
        text
    }

    fn line_at_one(&self, from: f64, to: f64) -> String {
        format!("<path class=\"one\" d=\"M{:.1} {from:.1}V{to:.1}\"/>\n", self.x(1.0))
    }
}

fn ratio_to_nginx(timing: &Timing, kind: Kind) -> Option<Spread> {
    timing.ratio(kind, Kind::Nginx)
}

fn picture_head(height: f64, rounds: usize) -> String {
    let interval = if rounds < ENOUGH { "range" } else { "95 % interval" };
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0} {height:.0}" role="img" aria-label="Processor time per request against nginx">
<style>
text {{ font: 12px system-ui, sans-serif; fill: #1f2328 }}
.title, .head {{ font-weight: 600 }} .head {{ font-size: 14px }} .name {{ text-anchor: end }} .note {{ fill: #59636e }}
.sluice {{ fill: #0969da }} .nginx, .varnish {{ fill: #9aa4ae }} .haproxy {{ fill: #c3cad1 }}
.whisker {{ stroke: #1f2328; stroke-width: 1.5; fill: none }} .one {{ stroke: #59636e; stroke-dasharray: 3 3 }}
@media (prefers-color-scheme: dark) {{
text {{ fill: #e6edf3 }} .note {{ fill: #9198a1 }}
.sluice {{ fill: #4493f8 }} .nginx, .varnish {{ fill: #6e7681 }} .haproxy {{ fill: #484f58 }}
.whisker {{ stroke: #e6edf3 }} .one {{ stroke: #9198a1 }}
}}
</style>
<text x="16" y="24" class="head">Processor time per request, nginx = 1</text>
<text x="16" y="42" class="note">Shorter is better. Median of {rounds} interleaved rounds with its {interval}.</text>
"#
    )
}

fn picture_foot(height: f64, facts: &[(&str, String)]) -> String {
    let wanted = ["date", "contenders", "settings"];
    let words: Vec<&str> =
        facts.iter().filter(|(name, _)| wanted.contains(name)).map(|(_, value)| value.as_str()).collect();
    format!("<text x=\"16\" y=\"{:.0}\" class=\"note\">{}</text>\n", height - 14.0, escape(&words.join(" · ")))
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

fn ratio_cell(spread: Option<Spread>) -> Cell {
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
fn microseconds(value: f64) -> String {
    if value < 100.0 { format!("{value:.1}") } else { thousands(value) }
}

/// The picture's measures, in pixels.
const WIDTH: f64 = 760.0;
const LEFT: f64 = 96.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 60.0;
const ROW: f64 = 20.0;
