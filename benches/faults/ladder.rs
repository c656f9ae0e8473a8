//! Nobody of the pool can answer for a while, nor then the spare one: of two kinds of pages, one is kept by a cache, and the
//! other has a ladder to go down.

use crate::Outcome;
use crate::contenders::{Contender, Job, Kind, Running};
use crate::ledger::Ledger;
use crate::load::{Ended, Pace, Shape, Shot, Source, percentile};
use crate::process::now;
use crate::provider::{Behaviour, Provider};
use crate::rows::{PATIENCE, PROVIDERS, SERVICE, Stage};
use sluice::instant::Instant;
use std::io::Result;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What happens when, from the beginning of the load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moments {
    /// All providers of the pool fail.
    pub(crate) down: Duration,
    /// The spare one too.
    pub(crate) spare_down: Duration,
    /// All are well again.
    pub(crate) back: Duration,
    /// Nothing more is asked.
    pub(crate) end: Duration,
}

/// How they fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    /// They refuse connections.
    Refuse,
    /// They take requests and say nothing.
    Hang,
    /// They answer 503.
    Unavailable,
}

/// Two kinds of pages, half of what is asked each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Page {
    /// Ten of them, which may be kept for a second.
    Kept,
    /// One that is not kept, and has a ladder.
    Live,
}

/// What a client got, for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Got {
    /// An answer from here.
    From(Source),
    /// No answer, or an error.
    Nothing,
}

/// What an outage came to for one contender.
#[derive(Debug, Clone)]
pub(crate) struct Ladder {
    /// Who was asked.
    pub(crate) kind: Kind,
    /// What went wrong.
    pub(crate) way: Way,
    /// For each of [`Page::ALL`].
    pub(crate) pages: [Pages; 2],
    /// From the return of the providers until the contender itself called the outage over, in seconds.
    pub(crate) recovered: Option<f64>,
}

/// The same for one kind of pages.
#[derive(Debug, Clone)]
pub(crate) struct Pages {
    /// What was asked for in each second came to, in the order of [`Got::ALL`].
    pub(crate) seconds: Vec<[usize; 5]>,
    /// The same from the outage's beginning to its end, with what was under way then.
    pub(crate) outage: [usize; 5],
    /// Times of these: p50, p99 and the longest, in milliseconds.
    pub(crate) times: [f64; 3],
    /// From the return of the providers to the last answer that was an error, older than that, or no provider's of the pool;
    /// in seconds.
    pub(crate) ended: f64,
}

// === impl Moments ===

impl Moments {
    /// As they are published, or short ones.
    pub(crate) fn new(quick: bool) -> Moments {
        let [down, spare_down, back, end] =
            if quick { [2, 5, 9, 15] } else { [5, 10, 20, 30] }.map(Duration::from_secs);
        Moments { down, spare_down, back, end }
    }
}

// === impl Way ===

impl Way {
    /// In the order they are shown.
    pub(crate) const ALL: [Way; 3] = [Way::Refuse, Way::Hang, Way::Unavailable];

    /// For people.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Way::Refuse => "connections refused",
            Way::Hang => "hang",
            Way::Unavailable => "503",
        }
    }

    fn behaviour(self) -> Behaviour {
        match self {
            Way::Refuse => Behaviour::Refuses,
            Way::Hang => Behaviour::Hangs,
            Way::Unavailable => Behaviour::Unavailable,
        }
    }
}

// === impl Page ===

impl Page {
    /// In the order they are shown.
    pub(crate) const ALL: [Page; 2] = [Page::Kept, Page::Live];

    /// For people.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Page::Kept => "pages that are kept",
            Page::Live => "pages that are not",
        }
    }

    /// What request `number` asks for.
    fn of(number: usize) -> (Page, &'static str) {
        if number.is_multiple_of(2) { (Page::Kept, KEPT[number / 2 % KEPT.len()]) } else { (Page::Live, "/live") }
    }
}

// === impl Got ===

impl Got {
    /// In the order they are shown.
    pub(crate) const ALL: [Got; 5] = [
        Got::From(Source::Fresh),
        Got::From(Source::Stale),
        Got::From(Source::Spare),
        Got::From(Source::Static),
        Got::Nothing,
    ];

    /// For people.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Got::From(Source::Fresh) => "fresh",
            Got::From(Source::Stale) => "stale",
            Got::From(Source::Spare) => "spare",
            Got::From(Source::Static) => "static",
            Got::Nothing => "error",
        }
    }

    fn of(shot: &Shot) -> Got {
        match shot.ended {
            Ended::Answered(answer) if answer.status == 200 => Got::From(answer.source),
            _ => Got::Nothing,
        }
    }
}

// === impl Ladder ===

impl Ladder {
    /// Lets all providers behind `contender` fail this way. It is still running when this returns.
    pub(crate) async fn hold(contender: Contender, way: Way, stage: Stage) -> Outcome<(Ladder, Running)> {
        let (Moments { down, spare_down, back, end }, ledger) = (stage.timing.moments, Arc::<Ledger>::default());
        let providers: Vec<Provider> =
            (0..=PROVIDERS).map(|place| Provider::start(place, SERVICE, &ledger)).collect::<Result<_>>()?;
        let addresses: Vec<SocketAddr> = providers.iter().map(|provider| provider.address).collect();
        let running = contender.start(Job::Ladder, &addresses, &stage.scratch, stage.cores).await?;

        let start = now();
        let asking = running.clients(&ledger).ask(Pace::steady(stage.timing.rate, end, shape), 0, start);
        let asking = tokio::spawn(asking);
        let (main, spare) = providers.split_at(PROVIDERS);
        for (at, bad) in [(down, main), (spare_down, spare)] {
            tokio::time::sleep_until((start + at).into()).await;
            for provider in bad {
                provider.turn(way.behaviour());
            }
        }
        tokio::time::sleep_until((start + back).into()).await;
        for provider in &providers {
            provider.turn(Behaviour::Well);
        }
        let recovered =
            if contender.kind == Kind::Sluice { recovered(running.admin, start + back).await } else { None };
        let shots = asking.await?;
        let pages = Page::ALL.map(|page| {
            let of_these = shots.iter().filter(|shot| Page::of(shot.number).0 == page);
            Pages::of(&of_these.copied().collect::<Vec<_>>(), start, &stage.timing.moments)
        });
        Ok((Ladder { kind: contender.kind, way, pages, recovered }, running))
    }
}

// === impl Pages ===

impl Pages {
    fn of(shots: &[Shot], start: Instant, moments: &Moments) -> Pages {
        let (from, to) = (start + moments.down, start + moments.back);
        let mut seconds = vec![[0; 5]; moments.end.as_secs() as usize];
        let (mut outage, mut times, mut ended) = ([0; 5], Vec::new(), 0.0_f64);
        for shot in shots {
            let (got, told) = (Got::of(shot), shot.at + shot.took);
            let sort = Got::ALL.iter().position(|sort| *sort == got).unwrap_or(0);
            let second = (shot.at - start).as_secs() as usize;
            if let Some(second) = seconds.get_mut(second) {
                second[sort] += 1;
            }
            // What was under way at that moment is hit as well.
            if told >= from && shot.at < to {
                outage[sort] += 1;
                times.push(shot.took);
            }
            let made = if let Ended::Answered(answer) = shot.ended { answer.made } else { None };
            let is_well =
                matches!(got, Got::From(Source::Fresh | Source::Stale)) && made.is_some_and(|made| made >= to);
            if told > to && !is_well {
                ended = ended.max((told - to).as_secs_f64());
            }
        }
        Pages { seconds, outage, times: [50, 99, 100].map(|percent| percentile(&mut times, percent)), ended }
    }
}

/// Waits until the admin API calls the route recovered, and says how long that took from `back` on.
async fn recovered(admin: SocketAddr, back: Instant) -> Option<f64> {
    while now() < back + LONGEST_RECOVERY {
        if let Ok(true) = is_over(admin).await {
            return Some(now().saturating_duration_since(back).as_secs_f64());
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
    None
}

async fn is_over(admin: SocketAddr) -> Result<bool> {
    let mut stream = TcpStream::connect(admin).await?;
    let request = b"GET /api/v1/degradation/live HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text.contains("\"degraded\":false"))
}

fn shape(number: usize) -> Shape {
    Shape { method: "GET", path: Page::of(number).1, class: None, patience: PATIENCE }
}

/// Pages that are kept.
const KEPT: [&str; 10] =
    ["/kept/0", "/kept/1", "/kept/2", "/kept/3", "/kept/4", "/kept/5", "/kept/6", "/kept/7", "/kept/8", "/kept/9"];

/// Between two looks at what the admin API says.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// After that nobody looks any more.
const LONGEST_RECOVERY: Duration = Duration::from_secs(30);
