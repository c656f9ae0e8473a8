//! One run: what is measured, one thing after the other.

use crate::Outcome;
use crate::arguments::Arguments;
use crate::certificates::Key;
use crate::contenders::{Contender, Kind, Running, Setup};
use crate::idle::Idle;
use crate::instructions;
use crate::latency::Latency;
use crate::process;
use crate::progress::Progress;
use crate::report::Report;
use crate::rounds::{Plan, Timing};
use crate::scaling::Scaling;
use crate::stage::{CONNECTIONS, Stage};
use crate::storm::Storm;
use crate::syscalls;
use crate::table;
use crate::tools;
use crate::workloads::{Face, Workload};
use std::collections::{BTreeMap, BTreeSet};

/// One run of the benchmark.
pub(crate) struct Bench {
    arguments: Arguments,
    stage: Stage,
    contenders: Vec<Contender>,
    /// What a contender failed to start for; it is not tried again.
    unable: BTreeSet<(Kind, Face)>,
    progress: Progress,
    report: Report,
}

/// What counts something about one request.
type PerRequest<T> = fn(&Contender, &'static Workload, &Setup, &mut Progress) -> Outcome<T>;

// === impl Bench ===

impl Bench {
    /// Everything there has to be before the first figure.
    pub(crate) fn prepare(arguments: Arguments) -> Outcome<Bench> {
        let files = tools::raise_open_files();
        let stage = Stage::set(arguments.settings)?;
        let mut report = Report::empty(arguments.plan());
        if let Err(error) = arguments.install_programs() {
            // What cannot be had is left out, or ends the run with a message of its own, below.
            report.warnings.push(error.to_string());
        }
        if !stage.cores.apart() {
            report.warnings.push("there is one core only; a contender shares it with its load".to_owned());
        }
        if arguments.idle && files < (arguments.idle_connections + CONNECTIONS) as u64 {
            report.warnings.push(format!("only {files} files may be open; raise `ulimit -n` or run as root"));
        }
        let (contenders, unable) = (Vec::new(), BTreeSet::new());
        let mut bench = Bench { arguments, stage, contenders, unable, progress: Progress::new(), report };
        bench.find_contenders()?;
        bench.report.facts = tools::facts(&bench.contenders);
        bench.report.facts.push(("settings", bench.arguments.settings.describe()));
        Ok(bench)
    }

    /// Measures all that was asked for, and shows it.
    pub(crate) fn run(&mut self) -> Outcome<()> {
        self.time_all();
        self.count_all();
        self.trace_all();
        self.pace_all();
        self.hold_all();
        self.scale_all();
        self.storm_all();
        if process::abandoned() {
            return Err("interrupted".into());
        }
        self.show()
    }

    /// Those whose programs run; whether they do the job, is seen when they are started for it.
    fn find_contenders(&mut self) -> Outcome<()> {
        let faces = self.arguments.workloads_by_face();
        let kinds = if self.arguments.alone { &Kind::ALL[..1] } else { &Kind::ALL[..] };
        for kind in kinds.iter().copied().filter(|kind| faces.keys().any(|face| kind.has(*face))) {
            let program = match kind {
                Kind::Sluice => Ok(self.arguments.sluice_program()),
                Kind::Nginx => tools::need("nginx"),
                Kind::Varnish => tools::need("varnishd"),
                Kind::Haproxy => tools::need("haproxy"),
            };
            match program.and_then(|program| Contender::find(kind, &program)) {
                Ok(contender) => self.contenders.push(contender),
                Err(error) => self.report.warnings.push(format!("{} took no part: {error}", kind.name())),
            }
        }
        if self.contenders.is_empty() {
            return Err(self.report.warnings.join("\n").into());
        }
        Ok(())
    }

    /// Starts every contender with this face; one that fails is left out of what is measured with it, and that is told.
    fn start_all(&mut self, face: Face) -> Vec<Running> {
        let mut running = Vec::new();
        for contender in &self.contenders {
            let name = contender.kind.name();
            if !contender.kind.has(face) || self.unable.contains(&(contender.kind, face)) {
                continue;
            }
            self.progress.step(&format!("starting {name} for {}", face.name()));
            match contender.start(&self.stage.setup(face)) {
                Ok(one) => running.push(one),
                Err(error) => {
                    self.progress.note(&format!("{name} is left out of {}: {error}", face.name()));
                    let reason = first_line(&*error);
                    self.report.warnings.push(format!("{name} took no part in {}: {reason}", face.name()));
                    self.unable.insert((contender.kind, face));
                }
            }
        }
        running
    }

    /// The timed rounds. Contenders that are not asked wait in the kernel and cost nothing.
    fn time_all(&mut self) {
        let plan = self.report.plan;
        if plan.rounds == 0 {
            return;
        }
        for (face, workloads) in self.arguments.workloads_by_face() {
            let running = self.start_all(face);
            for workload in workloads {
                if process::abandoned() {
                    return;
                }
                let driver = self.stage.driver();
                let timing = Timing::take(workload, &running, driver, plan, &mut self.progress);
                self.report.warnings.extend(timing.warnings());
                self.report.timings.push(timing);
            }
        }
    }

    /// User instructions of every workload.
    fn count_all(&mut self) {
        if !self.arguments.instructions {
            return;
        }
        self.find_unable();
        for workload in self.arguments.workloads() {
            let counts = self.count(workload, "instructions", instructions::per_request);
            self.report.instructions.push((workload, counts));
        }
    }

    /// System calls of those workloads that tell something about them.
    fn trace_all(&mut self) {
        if !self.arguments.syscalls {
            return;
        }
        self.find_unable();
        for workload in self.arguments.workloads() {
            if syscalls::WORKLOADS.contains(&workload.key) {
                let counts = self.count(workload, "system calls", syscalls::per_request);
                self.report.syscalls.push((workload, counts));
            }
        }
    }

    /// Who cannot do it is found out sooner without an instrument.
    fn find_unable(&mut self) {
        if self.report.plan.rounds == 0 {
            for face in self.arguments.workloads_by_face().into_keys() {
                self.start_all(face);
            }
        }
    }

    /// Something about one request of `workload` that is counted for each contender.
    fn count<T>(&mut self, workload: &'static Workload, what: &str, per_request: PerRequest<T>) -> BTreeMap<Kind, T> {
        let mut counts = BTreeMap::new();
        for contender in &self.contenders {
            if !contender.kind.has(workload.face) || self.unable.contains(&(contender.kind, workload.face)) {
                continue;
            }
            let setup = self.stage.setup(workload.face);
            match per_request(contender, workload, &setup, &mut self.progress) {
                Ok(count) => drop(counts.insert(contender.kind, count)),
                Err(error) => {
                    let (name, title, reason) = (contender.kind.name(), workload.title, first_line(&*error));
                    self.report.warnings.push(format!("{name}, {title}: no {what} counted: {reason}"));
                }
            }
        }
        counts
    }

    /// Latency at a fixed rate, in interleaved rounds.
    fn pace_all(&mut self) {
        if !self.arguments.latency {
            return;
        }
        let running = self.start_all(Face::Http1);
        let plan = Plan { rounds: self.report.plan.rounds.max(1), ..self.report.plan };
        self.report.latency = Latency::take(&running, self.stage.driver(), plan, &mut self.progress);
        self.report.warnings.append(&mut self.report.latency.warnings);
    }

    /// One worker and two, in interleaved rounds.
    fn scale_all(&mut self) {
        if !self.arguments.scaling {
            return;
        }
        let contenders: Vec<&Contender> =
            self.contenders.iter().filter(|contender| contender.kind.has(Face::Http1)).collect();
        let plan = Plan { rounds: self.report.plan.rounds.clamp(1, MOST_SCALINGS), ..self.report.plan };
        let (stage, setup) = (&self.stage, self.stage.setup(Face::Http1));
        let scaling = Scaling::take(&contenders, &setup, stage.cores, stage.driver(), plan, &mut self.progress);
        self.report.scaling = scaling;
        self.report.warnings.append(&mut self.report.scaling.warnings);
    }

    /// Idle connections, one contender at a time.
    fn hold_all(&mut self) {
        if !self.arguments.idle {
            return;
        }
        let connections = self.arguments.idle_connections;
        for contender in self.contenders.iter().filter(|contender| contender.kind.has(Face::Http1)) {
            match Idle::take(contender, &self.stage.setup(Face::Http1), connections, &mut self.progress) {
                Ok(idle) => self.report.idle.push(idle),
                Err(error) => {
                    let name = contender.kind.name();
                    self.report
                        .warnings
                        .push(format!("{name}: {connections} idle connections could not be held: {error}"));
                }
            }
        }
    }

    /// Handshake storms, in interleaved rounds.
    fn storm_all(&mut self) {
        if !self.arguments.storm {
            return;
        }
        let running = self.start_all(Face::Tls(Key::P256));
        let driver = self.stage.driver();
        let plan = Plan { rounds: self.report.plan.rounds.clamp(1, MOST_STORMS), ..self.report.plan };
        self.report.storm = Storm::take(&running, driver, plan, &mut self.progress);
        self.report.warnings.append(&mut self.report.storm.warnings);
    }

    /// That hits were hits: a round or a count in which the upstream was asked has no figures.
    fn tell_hits(&mut self) {
        let hits: f64 = self.report.timings.iter().map(Timing::hits).sum();
        if hits > 0.0 {
            let said = format!("{} answers in timed rounds, of which the upstream saw none", table::thousands(hits));
            self.report.facts.push(("cache hits", said));
        }
    }

    fn show(&mut self) -> Outcome<()> {
        self.tell_hits();
        self.progress.clear();
        if self.arguments.markdown {
            print!("{}", self.report.page().markdown());
        } else {
            print!("{}", self.report.page().plain(table::colour_wanted()));
        }
        if let Some(place) = &self.arguments.svg {
            std::fs::write(place, self.report.svg())
                .map_err(|error| format!("cannot write the picture to {}: {error}", place.display()))?;
        }
        Ok(())
    }
}

/// The rest of what an error says was shown when it happened.
fn first_line(error: &dyn std::error::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// Rounds of one worker and two; each is one for nine processes.
const MOST_SCALINGS: usize = 10;

/// Rounds of storms; each takes several times as long as others.
const MOST_STORMS: usize = 10;
