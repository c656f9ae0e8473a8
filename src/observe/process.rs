//! The `process_*` family, read from `/proc/self` at each scrape. What cannot be read is left out.

use super::families::{self, Family, Kind};
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, Metric, MetricFamily, MetricType};
use std::collections::HashMap;
use std::fs;

/// Reads the process's own figures when a scraper asks.
#[derive(Debug, Clone)]
pub(super) struct ProcessCollector {
    descriptions: Vec<Desc>,
    /// Seconds since 1970; it never changes, so it is read once.
    started: Option<f64>,
}

/// What `/proc/self/stat` tells.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_seconds: f64,
    threads: f64,
    /// Since the machine started.
    started_seconds: f64,
    virtual_bytes: f64,
    resident_bytes: f64,
}

// === impl ProcessCollector ===

impl ProcessCollector {
    pub(super) fn new() -> Self {
        let describe =
            |family: &Family| Desc::new(family.name.into(), family.help.into(), Vec::new(), HashMap::new()).ok();
        ProcessCollector { descriptions: FAMILIES.iter().filter_map(describe).collect(), started: started() }
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let stat = stat();
        let of_stat = |read: fn(&Stat) -> f64| stat.as_ref().map(read);
        let values = [
            of_stat(|stat| stat.cpu_seconds),
            of_stat(|stat| stat.resident_bytes),
            of_stat(|stat| stat.virtual_bytes),
            open_fds(),
            max_fds(),
            self.started,
            of_stat(|stat| stat.threads),
        ];
        FAMILIES.iter().zip(values).filter_map(|(family, value)| value.map(|v| sample(family, v))).collect()
    }
}

fn sample(family: &Family, value: f64) -> MetricFamily {
    let mut metric = Metric::default();
    let kind = if family.kind == Kind::Counter {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
        MetricType::COUNTER
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
        MetricType::GAUGE
    };
    let mut shown = MetricFamily::default();
    shown.set_name(family.name.into());
    shown.set_help(family.help.into());
    shown.set_field_type(kind);
    shown.set_metric(vec![metric]);
    shown
}

fn stat() -> Option<Stat> {
    parse_stat(&fs::read_to_string("/proc/self/stat").ok()?)
}

/// The second field is the command's name in parentheses and may hold anything, so fields are counted from the last
/// parenthesis: the state, field 3 of proc(5), comes first.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    Some(Stat {
        cpu_seconds: (field(14)? + field(15)?) / ticks,
        threads: field(20)?,
        started_seconds: field(22)? / ticks,
        virtual_bytes: field(23)?,
        resident_bytes: field(24)? * rustix::param::page_size() as f64,
    })
}

fn started() -> Option<f64> {
    let machine = fs::read_to_string("/proc/stat").ok()?;
    let booted: f64 = machine.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(booted + stat()?.started_seconds)
}

fn open_fds() -> Option<f64> {
    // Reading the folder opens one descriptor itself.
    Some(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as f64)
}

fn max_fds() -> Option<f64> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    Some(limit.current? as f64)
}

/// In the order in which [`ProcessCollector`] reads them.
const FAMILIES: [Family; 7] = [
    families::PROCESS_CPU,
    families::PROCESS_RESIDENT,
    families::PROCESS_VIRTUAL,
    families::PROCESS_OPEN_FDS,
    families::PROCESS_MAX_FDS,
    families::PROCESS_START_TIME,
    families::PROCESS_THREADS,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let text =
            "42 (a (b) c) S 1 42 42 0 -1 4194560 100 0 0 0 300 200 0 0 20 0 7 0 5000 1048576 3 18446744073709551615\n";
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let expected = Stat {
            cpu_seconds: 500.0 / ticks,
            threads: 7.0,
            started_seconds: 5000.0 / ticks,
            virtual_bytes: 1_048_576.0,
            resident_bytes: 3.0 * rustix::param::page_size() as f64,
        };
        assert_eq!(parse_stat(text), Some(expected));
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        for text in ["", "42", "42 (a", "42 (a) S 1", "42 (a) S x x x x x x x x x x x x x x x x x x x x x x"] {
            assert_eq!(parse_stat(text), None, "{text}");
        }
    }
}
