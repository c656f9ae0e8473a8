//! An outage second by second: what became of everything that was asked, as a picture.

use crate::contenders::Kind;
use crate::ladder::{Got, Ladder, Page, Pages, Way};
use crate::report::Report;
use crate::table::escape;
use std::fmt::Write as _;

/// A field for each way to fail, contender and kind of pages; a bar in it for each second.
pub(crate) fn svg(report: &Report) -> String {
    let columns: Vec<(usize, Kind)> = (0..Page::ALL.len())
        .flat_map(|page| Kind::ALL.into_iter().filter(|kind| kind.keeps()).map(move |kind| (page, kind)))
        .collect();
    let ways: Vec<Way> =
        Way::ALL.into_iter().filter(|way| report.ladders.iter().any(|ladder| ladder.way == *way)).collect();
    let width = LEFT + columns.len() as f64 * COLUMN;
    let height = TOP + ways.len() as f64 * ROW + 24.0;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" \
         aria-label=\"What clients get while all providers fail, second by second\">\n{STYLE}"
    );
    legend(&mut text);
    for (column, (page, kind)) in columns.iter().enumerate() {
        let x = LEFT + column as f64 * COLUMN;
        let title = format!("{}: {}", kind.name(), Page::ALL[*page].title());
        let _ = writeln!(text, r#"<text x="{x:.0}" y="{:.0}" class="head">{}</text>"#, TOP - 8.0, escape(&title));
    }
    for (row, way) in ways.iter().enumerate() {
        let y = TOP + row as f64 * ROW;
        let _ = writeln!(text, r#"<text x="16" y="{:.0}">{}</text>"#, y + FIELD / 2.0, escape(way.title()));
        for (column, (page, kind)) in columns.iter().enumerate() {
            let x = LEFT + column as f64 * COLUMN;
            let held = |ladder: &&Ladder| ladder.way == *way && ladder.kind == *kind;
            if let Some(ladder) = report.ladders.iter().find(held) {
                bars(&mut text, &ladder.pages[*page], x, y);
                moments(&mut text, report, x, y);
            }
        }
    }
    let date = report.facts.iter().find(|(name, _)| *name == "date").map_or("", |(_, date)| date.as_str());
    let note = format!("{date} · {:.0} requests/s, half of them for either kind of pages", report.timing.rate);
    let _ = writeln!(text, r#"<text x="16" y="{:.0}" class="note">{}</text></svg>"#, height - 10.0, escape(&note));
    text
}

fn legend(text: &mut String) {
    for (at, got) in Got::ALL.into_iter().enumerate() {
        let x = LEFT + at as f64 * KEY;
        let _ = writeln!(
            text,
            r#"<rect x="{x:.0}" y="34" width="11" height="11" class="{title}"/><text x="{:.0}" y="44">{title}</text>"#,
            x + 16.0,
            title = got.title()
        );
    }
}

/// What was asked for in each second, from below in the order of [`Got::ALL`].
fn bars(text: &mut String, pages: &Pages, x: f64, y: f64) {
    let width = (COLUMN - GAP) / pages.seconds.len() as f64;
    for (second, counts) in pages.seconds.iter().enumerate() {
        let all = counts.iter().sum::<usize>().max(1) as f64;
        let mut top = y + FIELD;
        for (got, count) in Got::ALL.into_iter().zip(counts).filter(|(_, count)| **count > 0) {
            let height = *count as f64 / all * FIELD;
            top -= height;
            let _ = write!(
                text,
                r#"<rect x="{:.1}" y="{top:.1}" width="{:.1}" height="{height:.1}" class="{}"/>"#,
                x + second as f64 * width,
                width - 0.5,
                got.title()
            );
        }
        text.push('\n');
    }
}

/// When something happened.
fn moments(text: &mut String, report: &Report, x: f64, y: f64) {
    let moments = report.timing.moments;
    for moment in [moments.down, moments.spare_down, moments.back] {
        let at = x + moment.as_secs_f64() / moments.end.as_secs_f64() * (COLUMN - GAP) - 0.25;
        let _ = writeln!(
            text,
            r#"<path d="M{at:.1} {:.0}V{:.0}"/><text x="{at:.1}" y="{:.0}" class="note middle">{} s</text>"#,
            y - 2.0,
            y + FIELD + 3.0,
            y + FIELD + 14.0,
            moment.as_secs()
        );
    }
}

const STYLE: &str = "<style>
text { font: 12px system-ui, sans-serif; fill: #1f2328 } path { stroke: #59636e }
.head { font-weight: 600 } .middle { text-anchor: middle } .note { font-size: 11px; fill: #59636e }
.fresh { fill: #4ac26b } .stale { fill: #54aeff } .spare { fill: #d4a72c } .static { fill: #afb8c1 } .error { fill: #cf222e }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } path { stroke: #9198a1 } .note { fill: #9198a1 }
.fresh { fill: #238636 } .stale { fill: #1f6feb } .spare { fill: #9e6a03 } .static { fill: #6e7681 } .error { fill: #f85149 }
}
</style>
<text x=\"16\" y=\"22\" class=\"head\">What clients get, second by second, while all providers fail</text>
";

/// The picture's measures, in pixels.
const LEFT: f64 = 140.0;
const TOP: f64 = 78.0;
const COLUMN: f64 = 200.0;
const GAP: f64 = 16.0;
const ROW: f64 = 84.0;
const FIELD: f64 = 60.0;
const KEY: f64 = 70.0;
