//! The ratios as a picture: horizontal bars, one panel for processor time and one for user instructions. Readable on light
//! and on dark ground.

use crate::contenders::Kind;
use crate::report::{Report, microseconds};
use crate::spread::{ENOUGH, Spread};
use crate::table::{escape, thousands};
use std::fmt::Write as _;

/// Bars that are read against the same line.
struct Panel {
    head: &'static str,
    note: String,
    /// Under the workload's title one bar a contender.
    groups: Vec<(&'static str, Vec<Bar>)>,
}

struct Bar {
    kind: Kind,
    ratio: Spread,
    /// Beside the ratio.
    figure: String,
}

/// From a ratio to its place.
struct Scale {
    pixels_per_unit: f64,
    /// Longer bars are cut here.
    longest: f64,
}

// === impl Report ===

impl Report {
    /// The picture, whole.
    pub(crate) fn svg(&self) -> String {
        let panels: Vec<Panel> = [self.time_panel(), self.instruction_panel()]
            .into_iter()
            .filter(|panel| !panel.groups.is_empty())
            .collect();
        let bars = panels.iter().flat_map(|panel| &panel.groups).flat_map(|(_, bars)| bars);
        let longest = bars.map(|bar| bar.ratio.high).fold(1.0, f64::max).min(LONGEST);
        let longest = (longest * 4.0).ceil() / 4.0;
        let scale = Scale { pixels_per_unit: (WIDTH - LEFT - RIGHT) / longest, longest };
        let mut body = String::new();
        let mut y = 0.0;
        for panel in &panels {
            y = scale.panel(&mut body, panel, y);
        }
        let height = y + 30.0;
        format!("{}{body}{}</svg>\n", picture_head(height), picture_foot(height, &self.facts))
    }

    fn time_panel(&self) -> Panel {
        let interval = if self.plan.rounds < ENOUGH { "range" } else { "95 % interval" };
        let mut groups = Vec::new();
        for timing in &self.timings {
            let bar = |kind: &Kind| {
                let figure = format!("{} µs", microseconds(timing.median(*kind, |sample| sample.cpu)));
                Some(Bar { kind: *kind, ratio: timing.ratio(*kind, Kind::Nginx)?, figure })
            };
            groups.push((timing.workload.title, timing.samples.keys().filter_map(bar).collect()));
        }
        let note = format!("Shorter is better. Median of {} interleaved rounds with its {interval}.", self.plan.rounds);
        Panel { head: "Processor time per request, nginx = 1", note, groups }
    }

    fn instruction_panel(&self) -> Panel {
        let mut groups = Vec::new();
        for (workload, counts) in &self.instructions {
            let Some(nginx) = counts.get(&Kind::Nginx) else { continue };
            let bar = |(kind, count): (&Kind, &f64)| {
                let median = count / nginx;
                Bar { kind: *kind, ratio: Spread { median, low: median, high: median }, figure: thousands(*count) }
            };
            groups.push((workload.title, counts.iter().map(bar).collect()));
        }
        let note = "Shorter is better. Counted one connection at a time, without the kernel's part.".to_owned();
        Panel { head: "User instructions per request, nginx = 1", note, groups }
    }
}

// === impl Scale ===

impl Scale {
    fn x(&self, ratio: f64) -> f64 {
        LEFT + ratio.min(self.longest) * self.pixels_per_unit
    }

    /// Draws `panel` below `y`; where it ends.
    fn panel(&self, body: &mut String, panel: &Panel, y: f64) -> f64 {
        let _ = writeln!(body, r#"<text x="16" y="{:.0}" class="head">{}</text>"#, y + 24.0, panel.head);
        let _ = writeln!(body, r#"<text x="16" y="{:.0}" class="note">{}</text>"#, y + 42.0, panel.note);
        let top = y + 60.0;
        let mut y = top;
        for (title, bars) in &panel.groups {
            let _ = writeln!(body, r#"<text x="16" y="{:.0}" class="title">{title}</text>"#, y + 14.0);
            y += 22.0;
            for bar in bars {
                *body += &self.bar(y, bar);
                y += ROW;
            }
            y += 12.0;
        }
        let _ = writeln!(body, r#"<path class="one" d="M{:.1} {top:.1}V{y:.1}"/>"#, self.x(1.0));
        y
    }

    fn bar(&self, y: f64, Bar { kind, ratio, figure }: &Bar) -> String {
        let middle = y + ROW / 2.0;
        let (low, end, high) = (self.x(ratio.low), self.x(ratio.median), self.x(ratio.high));
        let mut text = format!(
            r#"<text x="{:.0}" y="{:.1}" class="name">{}</text>
<rect x="{LEFT:.0}" y="{:.1}" width="{:.1}" height="{:.1}" rx="2" class="{}"/>
<text x="{:.1}" y="{:.1}">{:.2} · {figure}</text>
"#,
            LEFT - 8.0,
            middle + 4.0,
            kind.name(),
            y + 3.0,
            end - LEFT,
            ROW - 6.0,
            kind.name().to_lowercase(),
            WIDTH - RIGHT + 16.0,
            middle + 4.0,
            ratio.median,
        );
        if ratio.median > self.longest {
            // A gap tells that it goes on.
            let _ = writeln!(text, r#"<path class="cut" d="M{:.1} {:.1}l-6 {ROW:.0}"/>"#, end - 10.0, y);
        } else if high > low {
            let _ = writeln!(
                text,
                r#"<path class="whisker" d="M{low:.1} {middle:.1}H{high:.1}M{low:.1} {0:.1}v8M{high:.1} {0:.1}v8"/>"#,
                middle - 4.0
            );
        }
        text
    }
}

fn picture_head(height: f64) -> String {
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0} {height:.0}" role="img" aria-label="Processor time and user instructions per request against nginx">
<style>
text {{ font: 12px system-ui, sans-serif; fill: #1f2328 }}
.title, .head {{ font-weight: 600 }} .head {{ font-size: 14px }} .name {{ text-anchor: end }} .note {{ fill: #59636e }}
.sluice {{ fill: #0969da }} .nginx, .varnish {{ fill: #9aa4ae }} .haproxy {{ fill: #c3cad1 }}
.whisker {{ stroke: #1f2328; stroke-width: 1.5; fill: none }} .one {{ stroke: #59636e; stroke-dasharray: 3 3 }}
.cut {{ stroke: #ffffff; stroke-width: 4 }}
@media (prefers-color-scheme: dark) {{
text {{ fill: #e6edf3 }} .note {{ fill: #9198a1 }}
.sluice {{ fill: #4493f8 }} .nginx, .varnish {{ fill: #6e7681 }} .haproxy {{ fill: #484f58 }}
.whisker {{ stroke: #e6edf3 }} .one {{ stroke: #9198a1 }} .cut {{ stroke: #0d1117 }}
}}
</style>
"#
    )
}

fn picture_foot(height: f64, facts: &[(&str, String)]) -> String {
    let wanted = ["date", "contenders", "settings"];
    let words: Vec<&str> =
        facts.iter().filter(|(name, _)| wanted.contains(name)).map(|(_, value)| value.as_str()).collect();
    format!("<text x=\"16\" y=\"{:.0}\" class=\"note\">{}</text>\n", height - 14.0, escape(&words.join(" · ")))
}

/// The picture's measures, in pixels.
const WIDTH: f64 = 760.0;
const LEFT: f64 = 96.0;
const RIGHT: f64 = 150.0;
const ROW: f64 = 20.0;

/// The largest ratio that is drawn to scale.
const LONGEST: f64 = 2.0;
