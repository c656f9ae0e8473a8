//! What is shown: tables for a terminal and for Markdown, and a picture.

use crate::contenders::Kind;
use crate::ladder::{Got, Ladder, Moments, Page as Pages};
use crate::overload::{CLASSES, Overload};
use crate::rows::{Fault, Timing, Trial};
use crate::table::{Cell, Page, Table, Tone, escape, plain, thousands};
use std::fmt::Write as _;

/// Everything one run found out.
#[derive(Debug)]
pub(crate) struct Report {
    /// Where the figures come from.
    pub(crate) facts: Vec<(&'static str, String)>,
    /// How faults were made.
    pub(crate) timing: Timing,
    /// One for each fault, method and contender.
    pub(crate) trials: Vec<Trial>,
    /// One for each contender with a queue.
    pub(crate) overloads: Vec<Overload>,
    /// One for each way to fail and contender with a cache.
    pub(crate) ladders: Vec<Ladder>,
    /// What a reader must know before believing the figures.
    pub(crate) warnings: Vec<String>,
}

// === impl Report ===

impl Report {
    /// All of it in words and figures.
    pub(crate) fn page(&self) -> Page<'_> {
        let tables = vec![self.fault_table(), self.overload_table(), self.ladder_table()];
        Page { facts: &self.facts, tables, warnings: &self.warnings }
    }

    fn fault_table(&self) -> Table {
        let Timing { rate, fault, after, .. } = self.timing;
        let title = format!(
            "Faults under {rate:.0} requests/s; figures from the fault's beginning ({} s, and {} s after it)",
            fault.as_secs_f64(),
            after.as_secs_f64()
        );
        let header = [
            "fault",
            "proxy",
            "success",
            "p50 ms",
            "p99 ms",
            "max ms",
            "last error s",
            "to the bad",
            "done twice",
            "maybe twice",
            "recovery",
        ];
        let rows = self.trials.iter().map(|trial| self.fault_row(trial)).collect();
        Table { title, header: header.map(str::to_owned).into(), rows }
    }

    fn fault_row(&self, trial: &Trial) -> Vec<Cell> {
        let count = |count: usize| plain(thousands(count as f64));
        let unseen = matches!(trial.fault, Fault::Refuses | Fault::Outage | Fault::LongOutage);
        vec![
            plain(self.name(trial)),
            plain(trial.kind.name()),
            Cell { text: percent(trial.success), tone: tone(trial.success) },
            plain(milliseconds(trial.times[0])),
            plain(milliseconds(trial.times[1])),
            plain(milliseconds(trial.times[2])),
            plain(trial.last_error.map_or("–".to_owned(), |seconds| format!("{seconds:.2}"))),
            if unseen { plain("–") } else { count(trial.wasted) },
            count(trial.duplicates.sure),
            count(trial.duplicates.possible),
            plain(format!("{:.2}", trial.recovery)),
        ]
    }

    fn name(&self, trial: &Trial) -> String {
        format!("{}, {}", trial.fault.title(&self.timing), trial.method)
    }

    fn overload_table(&self) -> Table {
        let capacity = self.overloads.iter().map(|one| one.capacity).sum::<f64>() / self.overloads.len() as f64;
        let title = format!("Overload: three times the capacity of {} requests/s", thousands(capacity));
        let mut header = vec!["workload".to_owned(), "proxy".to_owned(), "goodput".to_owned()];
        header.extend(CLASSES.iter().flat_map(|class| [class.to_string(), "p99 ms".to_owned()]));
        header.extend(
            ["refused", "p50 ms", "p99 ms", "lost", "3 s after", "MiB grown", "left", "begun for them"]
                .map(str::to_owned),
        );
        Table { title, header, rows: self.overloads.iter().map(overload_row).collect() }
    }

    fn ladder_table(&self) -> Table {
        let Moments { down, spare_down, back, .. } = self.timing.moments;
        let title = format!(
            "All providers of the pool fail at {} s and the spare one at {} s, all are back at {} s; what clients got of {:.0} requests/s until then",
            down.as_secs(),
            spare_down.as_secs(),
            back.as_secs(),
            self.timing.rate
        );
        let mut header = vec!["outage".to_owned(), "proxy".to_owned()];
        header.extend(Got::ALL.map(|got| got.title().to_owned()));
        header.extend(["p50 ms", "p99 ms", "max ms", "ended s", "called over s"].map(str::to_owned));
        let rows = Pages::ALL
            .iter()
            .enumerate()
            .flat_map(|(at, page)| self.ladders.iter().map(move |one| ladder_row(one, at, *page)));
        Table { title, header, rows: rows.collect() }
    }

    // === the picture ===

    /// A field for each fault and contender: the share of requests that succeeded, and how long they took.
    pub(crate) fn svg(&self) -> String {
        let mut names: Vec<String> = self.trials.iter().map(|trial| self.name(trial)).collect();
        names.dedup();
        let height = TOP + names.len() as f64 * ROW + 30.0;
        let width = LEFT + Kind::ALL.len() as f64 * COLUMN + 16.0;
        let mut text = format!("{}{STYLE}", picture_head(width, height));
        for (column, kind) in Kind::ALL.into_iter().enumerate() {
            let x = LEFT + column as f64 * COLUMN + COLUMN / 2.0;
            let _ =
                writeln!(text, r#"<text x="{x:.0}" y="{:.0}" class="head middle">{}</text>"#, TOP - 8.0, kind.name());
        }
        for (row, name) in names.iter().enumerate() {
            let y = TOP + row as f64 * ROW;
            let _ = writeln!(text, r#"<text x="16" y="{:.1}">{}</text>"#, y + 15.0, escape(name));
            for trial in self.trials.iter().filter(|trial| self.name(trial) == *name) {
                let column = Kind::ALL.iter().position(|kind| *kind == trial.kind).unwrap_or(0);
                let x = LEFT + column as f64 * COLUMN;
                let figures = format!("{} · {} ms", percent(trial.success), milliseconds(trial.times[1]));
                let _ = writeln!(
                    text,
                    r#"<rect x="{:.0}" y="{:.1}" width="{:.0}" height="{:.0}" rx="3" class="{}"/><text x="{:.0}" y="{:.1}" class="middle">{}</text>"#,
                    x + 2.0,
                    y + 1.0,
                    COLUMN - 4.0,
                    ROW - 2.0,
                    grade(trial.success),
                    x + COLUMN / 2.0,
                    y + 15.0,
                    escape(&figures),
                );
            }
        }
        let wanted = ["date", "contenders"];
        let facts: Vec<&str> =
            self.facts.iter().filter(|(name, _)| wanted.contains(name)).map(|(_, value)| value.as_str()).collect();
        let _ = writeln!(
            text,
            r#"<text x="16" y="{:.0}" class="note">{}</text></svg>"#,
            height - 10.0,
            escape(&facts.join(" · "))
        );
        text
    }
}

fn overload_row(one: &Overload) -> Vec<Cell> {
    let mut row = vec![plain("overload"), plain(one.kind.name()), plain(percent(one.goodput))];
    for (success, p99) in one.classes {
        row.extend([plain(percent(success)), plain(milliseconds(p99))]);
    }
    let (refused, [p50, p99]) = one.refusals;
    row.extend([
        plain(thousands(refused as f64)),
        plain(milliseconds(p50)),
        plain(milliseconds(p99)),
        plain(thousands(one.lost as f64)),
        plain(percent(one.after)),
        plain(format!("{:.1}", one.grown)),
        plain(thousands(one.left.0 as f64)),
        plain(thousands(one.left.1 as f64)),
    ]);
    row
}

fn ladder_row(one: &Ladder, at: usize, page: Pages) -> Vec<Cell> {
    let pages = &one.pages[at];
    let mut row = vec![plain(format!("{}, {}", page.title(), one.way.title())), plain(one.kind.name())];
    row.extend(pages.outage.map(|count| plain(thousands(count as f64))));
    if let Some(errors) = row.last_mut() {
        errors.tone = if errors.text == "0" { Tone::Better } else { Tone::Worse };
    }
    row.extend(pages.times.map(|time| plain(milliseconds(time))));
    row.push(plain(format!("{:.2}", pages.ended)));
    let called = one.recovered.filter(|_| page == Pages::Live);
    row.push(plain(called.map_or("–".to_owned(), |seconds| format!("{seconds:.1}"))));
    row
}

fn picture_head(width: f64, height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" \
         aria-label=\"Requests that succeed while providers fail\">\n"
    )
}

/// Rounded down, so that only what is whole is called so.
fn percent(share: f64) -> String {
    if share.is_nan() { "–".to_owned() } else { format!("{:.1} %", (share * 1000.0).floor() / 10.0) }
}

fn milliseconds(value: f64) -> String {
    if value < 10.0 { format!("{value:.1}") } else { thousands(value) }
}

fn tone(success: f64) -> Tone {
    match grade(success) {
        "all" => Tone::Better,
        "some" => Tone::Worse,
        _ => Tone::Plain,
    }
}

fn grade(success: f64) -> &'static str {
    if success >= 1.0 {
        "all"
    } else if success >= NEARLY {
        "nearly"
    } else {
        "some"
    }
}

/// From here on nearly all requests succeed.
const NEARLY: f64 = 0.99;

const STYLE: &str = "<style>
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.head { font-weight: 600 } .middle { text-anchor: middle } .note { fill: #59636e }
.all { fill: #aceebb } .nearly { fill: #fae17d } .some { fill: #ffcecb }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .note { fill: #9198a1 }
.all { fill: #033a16 } .nearly { fill: #4b2900 } .some { fill: #67060c }
}
</style>
<text x=\"16\" y=\"22\" class=\"head\">Requests that succeed while providers fail, and their p99</text>
";

/// The picture's measures, in pixels.
const LEFT: f64 = 190.0;
const TOP: f64 = 60.0;
const ROW: f64 = 22.0;
const COLUMN: f64 = 130.0;
