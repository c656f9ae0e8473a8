//! The ratios as a picture.

use crate::contenders::Kind;
use crate::report::{Report, microseconds};
use crate::rounds::Timing;
use crate::spread::{ENOUGH, Spread};
use crate::table::escape;
use std::fmt::Write as _;

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

/// The picture's measures, in pixels.
const WIDTH: f64 = 760.0;
const LEFT: f64 = 96.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 60.0;
const ROW: f64 = 20.0;
