//! Gathered families as text: the Prometheus format 0.0.4 and OpenMetrics 1.0.
//!
//! One writer makes both, because they differ in four places only: OpenMetrics names a counter's family without
//! `_total`, writes whole bucket bounds with a fraction, escapes quotes in help texts, and ends with `# EOF`.

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};
use std::fmt::{self, Write};

/// A text format that scrapers understand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposition {
    /// `text/plain; version=0.0.4`.
    Prometheus,
    /// `application/openmetrics-text; version=1.0.0`.
    OpenMetrics,
}

/// A writer that knows its format.
struct Page {
    text: String,
    format: Exposition,
}

// === impl Exposition ===

impl Exposition {
    /// The `Content-Type` of the format.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Exposition::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Exposition::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Writes `families` in `format`.
pub(super) fn render(families: &[MetricFamily], format: Exposition) -> String {
    let mut page = Page { text: String::with_capacity(PAGE_BYTES), format };
    // Writing to a String never fails.
    let _ = families.iter().try_for_each(|family| page.family(family));
    if format == Exposition::OpenMetrics {
        page.text.push_str("# EOF\n");
    }
    page.text
}

// === impl Page ===

impl Page {
    fn family(&mut self, family: &MetricFamily) -> fmt::Result {
        let name = family.name();
        let shown = match (self.format, family.get_field_type()) {
            (Exposition::OpenMetrics, MetricType::COUNTER) => name.strip_suffix("_total").unwrap_or(name),
            _ => name,
        };
        write!(self.text, "# HELP {shown} ")?;
        self.escape(family.help(), self.format == Exposition::OpenMetrics);
        writeln!(self.text, "\n# TYPE {shown} {}", type_name(family.get_field_type()))?;
        family.get_metric().iter().try_for_each(|metric| self.metric(name, family.get_field_type(), metric))
    }

    fn metric(&mut self, name: &str, kind: MetricType, metric: &Metric) -> fmt::Result {
        match kind {
            MetricType::COUNTER => self.sample(name, "", metric, None, metric.get_counter().get_value()),
            MetricType::HISTOGRAM => self.histogram(name, metric),
            _ => self.sample(name, "", metric, None, metric.get_gauge().get_value()),
        }
    }

    fn histogram(&mut self, name: &str, metric: &Metric) -> fmt::Result {
        let histogram = metric.get_histogram();
        for bucket in histogram.get_bucket() {
            let bound = bucket.upper_bound();
            self.sample(name, "_bucket", metric, Some(bound), bucket.cumulative_count() as f64)?;
        }
        let count = histogram.get_sample_count() as f64;
        self.sample(name, "_bucket", metric, Some(f64::INFINITY), count)?;
        self.sample(name, "_sum", metric, None, histogram.get_sample_sum())?;
        self.sample(name, "_count", metric, None, count)
    }

    fn sample(&mut self, name: &str, suffix: &str, metric: &Metric, le: Option<f64>, value: f64) -> fmt::Result {
        write!(self.text, "{name}{suffix}")?;
        self.labels(metric.get_label(), le)?;
        write!(self.text, " {value}")?;
        self.text.push('\n');
        Ok(())
    }

    fn labels(&mut self, labels: &[LabelPair], le: Option<f64>) -> fmt::Result {
        let mut separator = '{';
        for label in labels {
            write!(self.text, "{separator}{}=\"", label.name())?;
            self.escape(label.value(), true);
            self.text.push('"');
            separator = ',';
        }
        if let Some(bound) = le {
            write!(self.text, "{separator}le=\"")?;
            self.bound(bound)?;
            self.text.push('"');
            separator = ',';
        }
        if separator == ',' {
            self.text.push('}');
        }
        Ok(())
    }

    fn bound(&mut self, bound: f64) -> fmt::Result {
        if bound == f64::INFINITY {
            return self.text.write_str("+Inf");
        }
        match self.format {
            Exposition::Prometheus => write!(self.text, "{bound}"),
            // `{:?}` writes 1 as 1.0, the canonical form there.
            Exposition::OpenMetrics => write!(self.text, "{bound:?}"),
        }
    }

    fn escape(&mut self, text: &str, quotes: bool) {
        for c in text.chars() {
            match c {
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '"' if quotes => self.text.push_str("\\\""),
                other => self.text.push(other),
            }
        }
    }
}

fn type_name(kind: MetricType) -> &'static str {
    match kind {
        MetricType::COUNTER => "counter",
        MetricType::HISTOGRAM => "histogram",
        _ => "gauge",
    }
}

/// Room for a small configuration's page, so that it is written without growing.
const PAGE_BYTES: usize = 16 * 1024;
