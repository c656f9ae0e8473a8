//! Clients that ask at a steady pace, whatever becomes of the answers.
//!
//! The load is open: each request has a moment at which it is to be sent, and its time is measured from there. A contender
//! that stalls cannot slow its clients down and so hide that it stalled (what is called coordinated omission).

use crate::ledger::Ledger;
use crate::process::now;
use crate::provider::{ANSWER, MADE, NUMBER, made_at};
use crate::timer;
use sluice::instant::Instant;
use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// What is asked, and how often.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Requests a second.
    pub(crate) rate: f64,
    /// How many in all.
    pub(crate) count: usize,
    /// Shapes a request by its number.
    pub(crate) shape: fn(usize) -> Shape,
}

/// One request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// `GET`, or `POST` with a small body.
    pub(crate) method: &'static str,
    /// What for.
    pub(crate) path: &'static str,
    /// What to say in `x-priority`, if anything.
    pub(crate) class: Option<&'static str>,
    /// How long its client waits.
    pub(crate) patience: Duration,
}

/// What became of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shot {
    /// Its number.
    pub(crate) number: usize,
    /// When it was to be sent.
    pub(crate) at: Instant,
    /// From then until its client knew.
    pub(crate) took: Duration,
    /// How it ended.
    pub(crate) ended: Ended,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// A whole answer came.
    Answered(Answer),
    /// The connection broke, or what came was no whole answer.
    Broken,
    /// Its client lost patience.
    Left,
}

/// A whole answer, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: u16,
    /// What it says of where it came from.
    pub(crate) source: Source,
    /// When a provider made it, if one did.
    pub(crate) made: Option<Instant>,
}

/// Where an answer comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// A provider of the pool, now or a moment ago.
    Fresh,
    /// A cache, which says that its time is over.
    Stale,
    /// A provider that stands in for those of the pool.
    Spare,
    /// The configuration.
    Static,
}

/// Clients of one contender, who share connections to it.
#[derive(Debug)]
pub(crate) struct Clients {
    address: SocketAddr,
    idle: Mutex<Vec<TcpStream>>,
    ledger: Arc<Ledger>,
}

// === impl Pace ===

impl Pace {
    /// So many a second, for this long.
    pub(crate) fn steady(rate: f64, span: Duration, shape: fn(usize) -> Shape) -> Pace {
        #[allow(clippy::cast_sign_loss, reason = "neither factor is negative")]
        let count = (rate * span.as_secs_f64()).round() as usize;
        Pace { rate, count, shape }
    }
}

// === impl Shot ===

impl Shot {
    /// Whether the client got what it asked for.
    pub(crate) fn is_success(&self) -> bool {
        matches!(self.ended, Ended::Answered(answer) if answer.status == 200)
    }
}

// === impl Source ===

impl Source {
    /// What the fields of an answer say, which `value` finds by their names in small letters.
    fn told<'a>(value: impl Fn(&str) -> Option<&'a str>) -> Source {
        // Sluice says it by itself, and of another contender its configuration has to.
        let rung = value("sluice-degraded").or_else(|| value("x-degraded"));
        let is_old = value("cache-status").is_some_and(|status| status.contains("ttl=-"));
        match rung {
            Some("pool") => Source::Spare,
            Some("static") => Source::Static,
            Some("stale") => Source::Stale,
            _ if is_old => Source::Stale,
            _ => Source::Fresh,
        }
    }
}

// === impl Clients ===

impl Clients {
    /// Clients of the contender at `address`.
    pub(crate) fn of(address: SocketAddr, ledger: &Arc<Ledger>) -> Arc<Clients> {
        Arc::new(Clients { address, idle: Mutex::default(), ledger: Arc::clone(ledger) })
    }

    /// Sends requests, numbered from `first`, beginning at `start`; returns when the last of them has ended.
    pub(crate) async fn ask(self: Arc<Self>, pace: Pace, first: usize, start: Instant) -> Vec<Shot> {
        let mut under_way = JoinSet::new();
        for index in 0..pace.count {
            let at = start + Duration::from_secs_f64(index as f64 / pace.rate);
            // A request whose moment has come is sent at once: at high rates several are due at every tick of the timer.
            if at > now() {
                timer::sleep_until(at).await.expect("a timer of the system");
            }
            let (clients, number) = (Arc::clone(&self), first + index);
            under_way.spawn(async move { clients.shoot(number, at, (pace.shape)(number)).await });
        }
        under_way.join_all().await
    }

    async fn shoot(&self, number: usize, at: Instant, shape: Shape) -> Shot {
        let ended = match tokio::time::timeout_at((at + shape.patience).into(), self.exchange(number, shape)).await {
            Ok(Ok(answer)) => Ended::Answered(answer),
            Ok(Err(_)) => Ended::Broken,
            Err(_) => {
                self.ledger.left(number);
                Ended::Left
            }
        };
        Shot { number, at, took: now().saturating_duration_since(at), ended }
    }

    async fn exchange(&self, number: usize, shape: Shape) -> Result<Answer> {
        let mut stream = match self.reuse() {
            Some(stream) => stream,
            None => TcpStream::connect(self.address).await?,
        };
        stream.set_nodelay(true)?;
        let class = shape.class.map_or(String::new(), |class| format!("x-priority: {class}\r\n"));
        let body = if shape.method == "POST" { "content-length: 4\r\n\r\nbody" } else { "\r\n" };
        let Shape { method, path, .. } = shape;
        let request = format!("{method} {path} HTTP/1.1\r\nhost: bench\r\n{NUMBER}: {number}\r\n{class}{body}");
        stream.write_all(request.as_bytes()).await?;
        let (answer, keep) = answer(&mut stream).await?;
        if keep {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
        }
        Ok(answer)
    }

    /// A connection that is still open.
    fn reuse(&self) -> Option<TcpStream> {
        loop {
            let stream = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            let open = stream.try_read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
            if open {
                return Some(stream);
            }
        }
    }
}

/// Reads a whole answer, and whether the connection can be used again.
async fn answer(stream: &mut TcpStream) -> Result<(Answer, bool)> {
    let mut buffer = Vec::with_capacity(ANSWER * 2);
    let head = loop {
        match memchr::memmem::find(&buffer, b"\r\n\r\n") {
            Some(at) => break at + 4,
            None if stream.read_buf(&mut buffer).await? == 0 => return Err(ErrorKind::UnexpectedEof.into()),
            None => {}
        }
    };
    let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| Error::other("no status"))?;
    let value = |name: &str| {
        let mut fields = text.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(key, _)| *key == name).map(|(_, value)| value.trim())
    };
    let length = value("content-length").and_then(|length| length.parse::<usize>().ok());
    let keep = value("connection").is_none_or(|option| option != "close");
    let made = value(MADE).and_then(|made| made.parse().ok()).map(made_at);
    let answer = Answer { status, source: Source::told(value), made };
    let whole = |buffer: &[u8]| match length {
        Some(length) => buffer.len() >= head + length,
        None if text.contains("chunked") => buffer.ends_with(b"\r\n0\r\n\r\n"),
        None => false,
    };
    while !whole(&buffer) {
        if stream.read_buf(&mut buffer).await? == 0 {
            // Without a length the end of the connection is the end of the answer.
            let plain = length.is_none() && !text.contains("chunked");
            return if plain { Ok((answer, false)) } else { Err(ErrorKind::UnexpectedEof.into()) };
        }
    }
    if status == 200 && answer.source != Source::Static && length.is_some_and(|length| length != ANSWER) {
        return Err(Error::other("an answer of another length"));
    }
    Ok((answer, keep))
}

/// The time that so many per cent of them do not exceed, in milliseconds.
pub(crate) fn percentile(times: &mut [Duration], percent: usize) -> f64 {
    times.sort_unstable();
    let rank = (times.len() * percent).div_ceil(100).saturating_sub(1);
    times.get(rank).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
}
