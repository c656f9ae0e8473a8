//! One fault at a time, under a steady load.

use crate::Outcome;
use crate::contenders::{Contender, Job, Kind, Running};
use crate::ladder::Moments;
use crate::ledger::{Duplicates, Ledger};
use crate::load::{Pace, Shape, Shot, percentile};
use crate::process::{Cores, now};
use crate::provider::{Behaviour, Provider};
use sluice::instant::Instant;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Fault {
    /// One provider refuses connections
    Refuses,
    /// One takes requests and says nothing
    Hangs,
    /// One breaks the connection once it has a request
    Resets,
    /// One answers 503
    Unavailable,
    /// One answers 429 with Retry-After
    LimitedWithHint,
    /// One answers 429 without
    Limited,
    /// One sends half of each answer
    Truncates,
    /// One goes and comes back every second
    Flaps,
    /// One takes 20 times as long
    Slow,
    /// All refuse connections for three seconds
    Outage,
    /// All refuse connections for a minute
    LongOutage,
}

/// How long what goes on, and how much is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    /// Requests a second, for each contender.
    pub(crate) rate: f64,
    /// All is well.
    pub(crate) before: Duration,
    /// A fault of one provider.
    pub(crate) fault: Duration,
    /// A long outage.
    pub(crate) long_outage: Duration,
    /// All is well again.
    pub(crate) after: Duration,
    /// Of an outage with something to fall back on.
    pub(crate) moments: Moments,
}

/// Where a trial takes place.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    /// For files.
    pub(crate) scratch: PathBuf,
    /// Who runs where.
    pub(crate) cores: Cores,
    /// How long, how much.
    pub(crate) timing: Timing,
}

/// What a fault came to for one contender.
#[derive(Debug, Clone)]
pub(crate) struct Trial {
    /// What went wrong.
    pub(crate) fault: Fault,
    /// What was asked.
    pub(crate) method: &'static str,
    /// Who was asked.
    pub(crate) kind: Kind,
    /// The share of requests that succeeded, of those that had not ended when the fault began.
    pub(crate) success: f64,
    /// Times of all of these, whatever came of them: p50, p99 and the longest, in milliseconds.
    pub(crate) times: [f64; 3],
    /// From the fault's beginning to the last request that failed, in seconds.
    pub(crate) last_error: Option<f64>,
    /// Requests that the bad provider was sent while it was bad; a provider that refuses connections sees none.
    pub(crate) wasted: usize,
    /// What was done more than once.
    pub(crate) duplicates: Duplicates,
    /// What the providers that failed got in the first second after it, against their share of what was asked.
    pub(crate) recovery: f64,
    /// Requests that failed before anything was wrong.
    pub(crate) before: usize,
}

// === impl Fault ===

impl Fault {
    /// In the order they are shown.
    pub(crate) const ALL: [Fault; 11] = [
        Fault::Refuses,
        Fault::Hangs,
        Fault::Resets,
        Fault::Unavailable,
        Fault::LimitedWithHint,
        Fault::Limited,
        Fault::Truncates,
        Fault::Flaps,
        Fault::Slow,
        Fault::Outage,
        Fault::LongOutage,
    ];

    /// For people.
    pub(crate) fn title(self, timing: &Timing) -> String {
        match self {
            Fault::Refuses => "refuses connections".into(),
            Fault::Hangs => "hangs".into(),
            Fault::Resets => "resets".into(),
            Fault::Unavailable => "503".into(),
            Fault::LimitedWithHint => "429, Retry-After".into(),
            Fault::Limited => "429".into(),
            Fault::Truncates => "truncates answers".into(),
            Fault::Flaps => "flaps every second".into(),
            Fault::Slow => "20 times slower".into(),
            Fault::Outage | Fault::LongOutage => format!("all down for {} s", self.span(timing).as_secs()),
        }
    }

    /// Whether it befalls every provider.
    fn is_outage(self) -> bool {
        matches!(self, Fault::Outage | Fault::LongOutage)
    }

    fn span(self, timing: &Timing) -> Duration {
        match self {
            Fault::Outage => OUTAGE,
            Fault::LongOutage => timing.long_outage,
            _ => timing.fault,
        }
    }

    fn behaviour(self) -> Behaviour {
        match self {
            Fault::Refuses | Fault::Flaps | Fault::Outage | Fault::LongOutage => Behaviour::Refuses,
            Fault::Hangs => Behaviour::Hangs,
            Fault::Resets => Behaviour::Resets,
            Fault::Unavailable => Behaviour::Unavailable,
            Fault::LimitedWithHint => Behaviour::LimitedWithHint,
            Fault::Limited => Behaviour::Limited,
            Fault::Truncates => Behaviour::Truncates,
            Fault::Slow => Behaviour::Slow,
        }
    }

    /// Lets it happen until `until`; then all is well.
    async fn happen(self, providers: &[Provider], until: Instant) {
        let bad = &providers[..if self.is_outage() { providers.len() } else { 1 }];
        let turn = |behaviour| bad.iter().for_each(|provider| provider.turn(behaviour));
        if self == Fault::Flaps {
            while now() < until {
                for behaviour in [Behaviour::Refuses, Behaviour::Well] {
                    turn(behaviour);
                    tokio::time::sleep_until((now() + FLAP).min(until).into()).await;
                }
            }
        } else {
            turn(self.behaviour());
            tokio::time::sleep_until(until.into()).await;
        }
        turn(Behaviour::Well);
    }
}

// === impl Trial ===

impl Trial {
    /// Lets `fault` happen to providers behind `contender`. The contender is still running when this returns: stopping it
    /// takes time that others may need.
    pub(crate) async fn hold(
        contender: Contender,
        fault: Fault,
        method: &'static str,
        stage: Stage,
    ) -> Outcome<(Trial, Running)> {
        let (timing, ledger) = (stage.timing, Arc::<Ledger>::default());
        let providers: Vec<Provider> =
            (0..PROVIDERS).map(|place| Provider::start(place, SERVICE, &ledger)).collect::<Result<_, _>>()?;
        let addresses: Vec<SocketAddr> = providers.iter().map(|provider| provider.address).collect();
        let running = contender.start(Job::Faults, &addresses, &stage.scratch, stage.cores).await?;

        let span = timing.before + fault.span(&timing) + timing.after;
        let shape = if method == "GET" { get } else { post };
        let start = now();
        let (from, to) = (start + timing.before, start + timing.before + fault.span(&timing));
        let asking = tokio::spawn(running.clients(&ledger).ask(Pace::steady(timing.rate, span, shape), 0, start));
        tokio::time::sleep_until(from.into()).await;
        fault.happen(&providers, to).await;
        let shots = asking.await?;

        // What was under way at that moment is hit as well.
        let (early, late): (Vec<Shot>, Vec<Shot>) = shots.iter().partition(|shot| shot.at + shot.took < from);
        let mut times: Vec<Duration> = late.iter().map(|shot| shot.took).collect();
        let failed = late.iter().filter(|shot| !shot.is_success());
        let bad = |place| fault.is_outage() || place == 0;
        let part = if fault.is_outage() { 1.0 } else { 1.0 / PROVIDERS as f64 };
        let recovering = ledger.arrivals(to, to + Duration::from_secs(1), bad);
        let trial = Trial {
            fault,
            method,
            kind: contender.kind,
            success: 1.0 - failed.clone().count() as f64 / late.len() as f64,
            times: [50, 99, 100].map(|percent| percentile(&mut times, percent)),
            last_error: failed.map(|shot| shot.at.saturating_duration_since(from).as_secs_f64()).reduce(f64::max),
            wasted: ledger.arrivals(from, to, bad),
            duplicates: ledger.duplicates(),
            recovery: recovering as f64 / (timing.rate * part),
            before: early.iter().filter(|shot| !shot.is_success()).count(),
        };
        Ok((trial, running))
    }
}

fn get(_: usize) -> Shape {
    Shape { method: "GET", path: "/", class: None, patience: PATIENCE }
}

fn post(_: usize) -> Shape {
    Shape { method: "POST", path: "/", class: None, patience: PATIENCE }
}

/// Providers of each contender.
pub(crate) const PROVIDERS: usize = 3;

/// What a request takes at a provider that is well.
pub(crate) const SERVICE: Duration = Duration::from_millis(20);

/// How long a client waits; longer than any contender is configured to try.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The short outage.
const OUTAGE: Duration = Duration::from_secs(3);

/// How long a flapping provider stays as it is.
const FLAP: Duration = Duration::from_secs(1);
