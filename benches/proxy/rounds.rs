//! Timed rounds: every contender in turn, over and over, so that whatever disturbs the machine disturbs them alike.
//!
//! A round is one run of a load generator against one contender: wrk, or what `load.rs` makes. What the contender's
//! processes used of their core between its start and its end, divided by the answers it counted, is the processor time
//! of one request. Ratios are taken inside a round, between neighbours in time, and only then summed up.

use crate::Outcome;
use crate::contenders::{Kind, Running};
use crate::load::{Load, Order};
use crate::process::{self, Cores, Usage};
use crate::progress::Progress;
use crate::spread::{Spread, median_of};
use crate::tools;
use crate::upstream;
use crate::workloads::{Face, MANY_ROUTES, Workload};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// How long and how often.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Rounds of each workload.
    pub(crate) rounds: usize,
    /// Seconds of one round.
    pub(crate) seconds: u32,
}

/// One contender's round.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sample {
    /// Microseconds of processor time per request, user and system.
    pub(crate) cpu: f64,
    /// Answers per second.
    pub(crate) rate: f64,
    /// Median latency in microseconds.
    pub(crate) p50: f64,
    /// 99th percentile of latency in microseconds.
    pub(crate) p99: f64,
    /// Answers that were counted.
    pub(crate) answers: f64,
    /// Requests without a good answer.
    pub(crate) failed: f64,
    /// Memory after the round, in KiB.
    pub(crate) memory: f64,
}

/// All rounds of one workload; each contender has as many samples as the others, in the same order.
#[derive(Debug)]
pub(crate) struct Timing {
    /// What was asked.
    pub(crate) workload: &'static Workload,
    /// What came of it.
    pub(crate) samples: BTreeMap<Kind, Vec<Sample>>,
    /// Who was left out, and why.
    problems: BTreeMap<Kind, String>,
}

/// What makes the load, on the driver's core.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Driver<'a> {
    scratch: &'a Path,
    upstream: SocketAddr,
    core: usize,
}

// === impl Timing ===

impl Timing {
    /// Runs all rounds of `workload`. A contender that fails in one has no figures at all; why, is among the warnings.
    pub(crate) fn take(
        workload: &'static Workload,
        running: &[Running],
        driver: Driver,
        plan: Plan,
        progress: &mut Progress,
    ) -> Timing {
        let mut timing = Timing { workload, samples: BTreeMap::new(), problems: BTreeMap::new() };
        for one in running {
            progress.step(&format!("{}: warming up {}", workload.key, one.kind.name()));
            match driver.round(workload, one, 1) {
                Ok(_) => drop(timing.samples.insert(one.kind, Vec::new())),
                Err(error) => timing.leave_out(one.kind, &error.to_string()),
            }
        }
        for round in 0..plan.rounds {
            for turn in 0..running.len() {
                // Each begins a round as often as the others.
                let one = &running[(round + turn) % running.len()];
                let Some(samples) = timing.samples.get_mut(&one.kind) else { continue };
                progress.step(&format!("{}: round {}/{} {}", workload.key, round + 1, plan.rounds, one.kind.name()));
                match driver.round(workload, one, plan.seconds) {
                    Ok(sample) => samples.push(sample),
                    Err(error) => timing.leave_out(one.kind, &error.to_string()),
                }
            }
        }
        timing
    }

    fn leave_out(&mut self, kind: Kind, problem: &str) {
        self.samples.remove(&kind);
        self.problems.insert(kind, problem.to_owned());
    }

    /// A contender's figures, one a round.
    pub(crate) fn figures(&self, kind: Kind, of: impl Fn(&Sample) -> f64) -> Vec<f64> {
        self.samples.get(&kind).map(|samples| samples.iter().map(of).collect()).unwrap_or_default()
    }

    /// The median of a contender's figures.
    pub(crate) fn median(&self, kind: Kind, of: impl Fn(&Sample) -> f64) -> f64 {
        median_of(self.figures(kind, of)).unwrap_or(f64::NAN)
    }

    /// Processor time of `kind` against `peer`, round by round. `None` if one of them did not take part.
    pub(crate) fn ratio(&self, kind: Kind, peer: Kind) -> Option<Spread> {
        Spread::of_ratios(&self.figures(kind, |sample| sample.cpu), &self.figures(peer, |sample| sample.cpu))
    }

    /// Answers in all rounds that came from a cache, as all do where there is one.
    pub(crate) fn hits(&self) -> f64 {
        let answers = self.samples.values().flatten().map(|sample| sample.answers);
        if self.workload.face == Face::Cache { answers.sum() } else { 0.0 }
    }

    /// What makes a figure doubtful.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let failed = |kind: &Kind| self.figures(*kind, |sample| sample.failed).iter().sum::<f64>();
        let bad = self.samples.keys().filter(|kind| failed(kind) > 0.0);
        let title = self.workload.title;
        let say = |kind: &Kind| format!("{title}, {}: {} requests failed", kind.name(), failed(kind));
        let left_out = |(kind, problem): (&Kind, &String)| format!("{title}, {}: left out: {problem}", kind.name());
        bad.map(say).chain(self.problems.iter().map(left_out)).collect()
    }
}

// === impl Driver ===

impl<'a> Driver<'a> {
    /// On `cores.driver`; files of this run are in `scratch`, and contenders ask `upstream`.
    pub(crate) fn new(scratch: &'a Path, upstream: SocketAddr, cores: Cores) -> Driver<'a> {
        Driver { scratch, upstream, core: cores.driver }
    }

    /// Where the upstream is.
    pub(crate) fn upstream(self) -> SocketAddr {
        self.upstream
    }

    /// What a load at a fixed rate prints.
    pub(crate) fn paced(self, address: SocketAddr, seconds: u32) -> Outcome<String> {
        let mut load = Load::start_paced(address, seconds, self.core)?;
        load.go()?;
        load.figures()
    }

    /// One round against one contender.
    pub(crate) fn round(self, workload: &'static Workload, one: &Running, seconds: u32) -> Outcome<Sample> {
        let missed = upstream::asked_for_kept(self.upstream)?;
        let made = if workload.by_wrk() { self.wrk(workload, one, seconds) } else { self.own(workload, one, seconds) };
        let (before, printed, after) = made?;
        if upstream::asked_for_kept(self.upstream)? != missed {
            return Err("a request was no hit: the upstream was asked again".into());
        }
        let figure = |name| figure(&printed, name).ok_or_else(|| format!("the load printed no {name}:\n{printed}"));
        let requests = figure("requests")?;
        if requests < 1.0 {
            return Err(format!("not one request was answered:\n{printed}").into());
        }
        // What a thread has used leaves `/proc` with it.
        let used = after.cpu_ns.checked_sub(before.cpu_ns).ok_or("a thread of it ended within a round")?;
        Ok(Sample {
            cpu: used as f64 / 1000.0 / requests,
            answers: requests,
            rate: requests / figure("microseconds")? * 1e6,
            p50: figure("p50")?,
            p99: figure("p99")?,
            failed: figure("failed")?,
            memory: after.memory_kib as f64,
        })
    }

    fn wrk(self, workload: &Workload, one: &Running, seconds: u32) -> Outcome<(Usage, String, Usage)> {
        let script = self.script(workload)?;
        let before = one.group.usage()?;
        let printed = self.run(workload, &script, one, seconds)?;
        Ok((before, printed, one.group.usage()?))
    }

    /// The load of `load.rs`, with its connections still open at both readings.
    fn own(self, workload: &'static Workload, one: &Running, seconds: u32) -> Outcome<(Usage, String, Usage)> {
        let mut load = self.start(&Order::new(workload, one.address, seconds, self.scratch))?;
        let before = one.group.usage()?;
        load.go()?;
        let printed = load.figures()?;
        Ok((before, printed, one.group.usage()?))
    }

    /// Starts a load process.
    pub(crate) fn start(self, order: &Order) -> Outcome<Load> {
        Load::start(order, self.core)
    }

    /// Starts a load process that gives way to everything else on its core.
    pub(crate) fn start_yielding(self, order: &Order) -> Outcome<Load> {
        Load::start_yielding(order, self.core)
    }

    /// Where files of this run are.
    pub(crate) fn scratch(self) -> &'a Path {
        self.scratch
    }

    fn run(self, workload: &Workload, script: &Path, one: &Running, seconds: u32) -> Outcome<String> {
        let args = [
            "--threads=1".to_owned(),
            format!("--connections={}", workload.connections),
            format!("--duration={seconds}s"),
            "--timeout=10s".to_owned(),
            format!("--script={}", script.display()),
            format!("http://{}{}", one.address, workload.path),
        ];
        process::run_pinned(&tools::need("wrk")?, &args, self.core)
    }

    /// What wrk is told to send, and how to print its figures. It makes each request once: no Lua runs per request, but
    /// to choose one where there are many.
    fn script(self, workload: &Workload) -> Outcome<PathBuf> {
        let mut text = String::from(PRINT_FIGURES);
        if workload.body_bytes > 0 {
            writeln!(text, "wrk.method = \"POST\"\nwrk.body = string.rep(\"x\", {})", workload.body_bytes)?;
        }
        if let Some((name, value)) = workload.field.split_once(": ") {
            writeln!(text, "wrk.headers[{name:?}] = {value:?}")?;
        }
        if workload.face == Face::Many {
            let list = (0..MANY_ROUTES).map(|at| format!("{:?}", workload.target(at))).collect::<Vec<_>>().join(", ");
            writeln!(text, "local targets = {{ {list} }}\n{ASK_ALL}")?;
        }
        let file = self.scratch.join(format!("{}.lua", workload.key));
        fs::write(&file, text)?;
        Ok(file)
    }
}

/// The value of `name=` among what a load printed.
pub(crate) fn figure(printed: &str, name: &str) -> Option<f64> {
    let line = printed.lines().find_map(|line| line.strip_prefix("figures "))?;
    line.split(' ').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}

/// Makes the requests once, and gives one after the other.
const ASK_ALL: &str = "\
local requests, at = {}, 0
init = function(args)
  for index, target in ipairs(targets) do requests[index] = wrk.format(nil, target) end
end
request = function()
  at = at % #requests + 1
  return requests[at]
end";

/// What wrk found out.
const PRINT_FIGURES: &str = "\
done = function(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format(\"\\nfigures requests=%d microseconds=%d failed=%d p50=%d p99=%d\\n\",
    summary.requests, summary.duration, failed, latency:percentile(50), latency:percentile(99)))
end
";
