//! From one worker to two.
//!
//! The second worker's core is the one of the upstream and the generator, so two workers cannot show twice the requests
//! per second here. What can be seen is what a request costs: locks and cache lines that two workers fight over make it
//! dearer with two than with one that may use the same two cores.

use crate::contenders::{Contender, Kind, Running, Setup};
use crate::process::{Cores, abandoned};
use crate::progress::Progress;
use crate::report::ratio_cell;
use crate::rounds::{Driver, Plan, Sample};
use crate::spread::{Spread, median_of};
use crate::table::{Table, plain, thousands};
use crate::workloads::GET_1K;
use std::collections::BTreeMap;

/// How many workers there are, and where they may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    /// One, on the contender's core: as in all other figures.
    Alone,
    /// One, wherever there is room.
    Loose,
    /// Two, wherever there is room.
    Two,
}

/// All rounds.
#[derive(Debug, Default)]
pub(crate) struct Scaling {
    samples: BTreeMap<(Kind, Form), Vec<Sample>>,
    /// What went wrong.
    pub(crate) warnings: Vec<String>,
}

// === impl Form ===

impl Form {
    const ALL: [Form; 3] = [Form::Alone, Form::Loose, Form::Two];

    fn setup<'a>(self, setup: &Setup<'a>, cores: Cores) -> Setup<'a> {
        let both = format!("{},{}", cores.contender, cores.driver);
        let (workers, cores) = match self {
            Form::Alone => (1, cores.contender.to_string()),
            Form::Loose => (1, both),
            Form::Two => (2, both),
        };
        Setup { cores, workers, ..setup.clone() }
    }

    fn name(self) -> &'static str {
        match self {
            Form::Alone => "1 worker on its core",
            Form::Loose => "1 worker on both cores",
            Form::Two => "2 workers on both cores",
        }
    }
}

// === impl Scaling ===

impl Scaling {
    /// Starts every contender in every form, and asks all of them in interleaved rounds.
    pub(crate) fn take(
        contenders: &[&Contender],
        setup: &Setup,
        cores: Cores,
        driver: Driver,
        plan: Plan,
        progress: &mut Progress,
    ) -> Scaling {
        let mut scaling = Scaling::default();
        let mut running: Vec<(Form, Running)> = Vec::new();
        for (contender, form) in contenders.iter().flat_map(|one| Form::ALL.map(|form| (one, form))) {
            progress.step(&format!("scaling: starting {}, {}", contender.kind.name(), form.name()));
            match contender.start(&form.setup(setup, cores)) {
                Ok(one) => running.push((form, one)),
                Err(error) => scaling.leave_out(contender.kind, form, &error.to_string()),
            }
        }
        for round in 0..=plan.rounds {
            for turn in 0..running.len() {
                let (form, one) = &running[(round + turn) % running.len()];
                if abandoned() || scaling.samples.get(&(one.kind, *form)).is_none_or(Vec::is_empty) && round > 1 {
                    continue;
                }
                progress.step(&format!("scaling: round {round}/{} {}", plan.rounds, one.kind.name()));
                match driver.round(&GET_1K, one, plan.seconds) {
                    // The first round is there to warm up.
                    Ok(_) if round == 0 => {}
                    Ok(sample) => scaling.samples.entry((one.kind, *form)).or_default().push(sample),
                    Err(error) => scaling.leave_out(one.kind, *form, &error.to_string()),
                }
            }
        }
        scaling
    }

    fn leave_out(&mut self, kind: Kind, form: Form, problem: &str) {
        self.samples.remove(&(kind, form));
        self.warnings.push(format!("scaling, {}, {}: left out: {problem}", kind.name(), form.name()));
    }

    fn figures(&self, kind: Kind, form: Form, of: fn(&Sample) -> f64) -> Vec<f64> {
        self.samples.get(&(kind, form)).map(|samples| samples.iter().map(of).collect()).unwrap_or_default()
    }

    /// What a request costs in each form.
    pub(crate) fn table(&self) -> Table {
        let rounds = self.samples.values().map(Vec::len).max().unwrap_or(0);
        let title = format!(
            "One worker and two, GET 1 KiB; medians of {rounds} rounds. The generator needs the second core, too: compare \
             the processor time"
        );
        let header = ["proxy", "workers", "CPU µs", "/ 1 on both", "requests/s"].map(str::to_owned).into();
        let row = |(kind, form): &(Kind, Form)| {
            let median = |of| median_of(self.figures(*kind, *form, of)).unwrap_or(f64::NAN);
            let cpu = |form| self.figures(*kind, form, |sample| sample.cpu);
            let ratio = match form {
                Form::Loose => plain("1"),
                Form::Alone | Form::Two => ratio_cell(Spread::of_ratios(&cpu(*form), &cpu(Form::Loose))),
            };
            let (used, rate) = (median(|sample| sample.cpu), median(|sample| sample.rate));
            vec![plain(kind.name()), plain(form.name()), plain(format!("{used:.1}")), ratio, plain(thousands(rate))]
        };
        Table { title, header, rows: self.samples.keys().map(row).collect() }
    }
}
