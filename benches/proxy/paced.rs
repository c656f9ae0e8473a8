//! Requests at a fixed rate, in a process of its own on the driver's core: when the next one is due does not depend on
//! when the one before was answered.
//!
//! Latency is counted from when a request was due, not from when it was sent. So one that had to wait, because all
//! connections were still waiting for answers, has that in its figure: a contender that stalls is not asked less.
//! A timer of the kernel's says when requests are due. It is exact to its interrupt, unlike a sleep, which the kernel
//! prolongs by up to 50 µs to save a wake-up. Nothing spins here, since the upstream needs the same core.

use crate::Outcome;
use crate::load::{PATIENCE, READY};
use crate::process::now;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};
use sluice::instant::Instant;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{BufRead, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// The hidden argument; the address to ask and the seconds to do it follow.
pub(crate) const ARGUMENT: &str = "make-paced-load";

/// One connection, and the request it waits for.
struct Line {
    stream: TcpStream,
    read: Vec<u8>,
    due: Option<Instant>,
}

/// What is asked, and what came of it.
struct Pace {
    lines: Vec<Line>,
    request: Vec<u8>,
    /// Connections that wait for nothing, the longest idle one first.
    free: VecDeque<usize>,
    /// Requests that are due and have no connection yet.
    waiting: VecDeque<Instant>,
    /// Nanoseconds from due to answered.
    took: Vec<u64>,
}

/// A load process's whole life.
pub(crate) fn make(words: &[OsString]) -> Outcome<()> {
    let [address, seconds] = words else { return Err("a paced load needs an address and seconds".into()) };
    let address = address.to_str().and_then(|word| word.parse().ok()).ok_or("no address")?;
    let seconds: u32 = seconds.to_str().and_then(|word| word.parse().ok()).ok_or("no seconds")?;
    // Its other end reads lines, and shows what is no figures.
    if let Err(error) = converse(address, seconds) {
        println!("{}", error.to_string().replace('\n', " "));
    }
    Ok(())
}

fn converse(address: SocketAddr, seconds: u32) -> Outcome<()> {
    let mut pace = Pace::open(address)?;
    println!("{READY}");
    std::io::stdin().lock().read_line(&mut String::new())?;
    let warming = RATE / 4;
    pace.keep(warming)?;
    pace.took.clear();
    pace.keep(RATE * seconds)?;
    println!("{}", pace.figures());
    std::io::stdout().flush()?;
    std::io::stdin().lock().read_line(&mut String::new())?;
    Ok(())
}

// === impl Pace ===

impl Pace {
    fn open(address: SocketAddr) -> Outcome<Pace> {
        let mut lines = Vec::new();
        for _ in 0..CONNECTIONS {
            let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            lines.push(Line { stream, read: Vec::with_capacity(16 * 1024), due: None });
        }
        let request = format!("GET /1k HTTP/1.1\r\nHost: {address}\r\n\r\n").into_bytes();
        let (free, waiting, took) = ((0..lines.len()).collect(), VecDeque::new(), Vec::new());
        Ok(Pace { lines, request, free, waiting, took })
    }

    /// Makes `count` requests, each when it is due, and waits for all answers.
    fn keep(&mut self, count: u32) -> Outcome<()> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
        let span = Timespec { tv_sec: 0, tv_nsec: INTERVAL.as_nanos() as _ };
        let began = now();
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: span, it_value: span })?;
        let whole = self.took.len() + count as usize;
        let mut due = 0;
        while self.took.len() < whole {
            let ready = self.wait(&timer)?;
            let ticks = expirations(&timer)?.min(u64::from(count - due)) as u32;
            for tick in due + 1..=due + ticks {
                self.waiting.push_back(began + INTERVAL * tick);
            }
            due += ticks;
            for at in ready {
                self.read(at)?;
            }
            self.send()?;
            if now() - began > INTERVAL * count + PATIENCE {
                return Err(format!("{} of {count} requests had no answer", whole - self.took.len()).into());
            }
        }
        Ok(())
    }

    /// Waits until something is due or has come; the connections on which something has.
    fn wait(&self, timer: &OwnedFd) -> Outcome<Vec<usize>> {
        let mut all: Vec<PollFd> = self.lines.iter().map(|line| PollFd::new(&line.stream, PollFlags::IN)).collect();
        all.push(PollFd::new(timer, PollFlags::IN));
        poll(&mut all, None)?;
        let lines = all.iter().take(self.lines.len()).enumerate();
        Ok(lines.filter(|(_, fd)| !fd.revents().is_empty()).map(|(at, _)| at).collect())
    }

    /// Gives what is due to connections that are free.
    fn send(&mut self) -> Outcome<()> {
        while let (Some(&at), Some(&due)) = (self.free.front(), self.waiting.front()) {
            self.free.pop_front();
            self.waiting.pop_front();
            // A request is small, and the one before was read: there always is room for it.
            self.lines[at].stream.write_all(&self.request)?;
            self.lines[at].due = Some(due);
        }
        Ok(())
    }

    fn read(&mut self, at: usize) -> Outcome<()> {
        let line = &mut self.lines[at];
        let mut bytes = [0; 8 * 1024];
        match line.stream.read(&mut bytes) {
            Ok(0) => return Err("a connection was closed".into()),
            Ok(count) => line.read.extend_from_slice(&bytes[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        if whole_answer(&line.read)? {
            line.read.clear();
            let due = line.due.take().ok_or("an answer came that nobody asked for")?;
            self.took.push(now().nanoseconds_since(due));
            self.free.push_back(at);
        }
        Ok(())
    }

    fn figures(&mut self) -> String {
        self.took.sort_unstable();
        let at = |of_thousand: usize| {
            let nanoseconds = self.took.get(self.took.len() * of_thousand / 1000).copied().unwrap_or(0);
            nanoseconds as f64 / 1000.0
        };
        format!("figures requests={} p50={:.1} p99={:.1} p999={:.1}", self.took.len(), at(500), at(990), at(999))
    }
}

/// Whether `bytes` are one answer from its beginning to its end; an error if it is none of the right kind.
fn whole_answer(bytes: &[u8]) -> Outcome<bool> {
    let Some(head) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return Ok(false) };
    let text = std::str::from_utf8(&bytes[..head])?;
    if text.as_bytes().get(9..12) != Some(b"200") {
        return Err(format!("the answer was {:?}", text.lines().next().unwrap_or("")).into());
    }
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    Ok(bytes.len() == head + 4 + length.ok_or("the answer has no length")?)
}

/// How often the timer has run out since it was last asked.
fn expirations(timer: &OwnedFd) -> Outcome<u64> {
    let mut count = [0; 8];
    match rustix::io::read(timer, &mut count) {
        Ok(_) => Ok(u64::from_ne_bytes(count)),
        Err(rustix::io::Errno::AGAIN) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// Requests per second; none of the contenders comes near its limit with so few.
pub(crate) const RATE: u32 = 2000;

/// Connections they are spread over.
pub(crate) const CONNECTIONS: u32 = 16;

/// From one to the next.
const INTERVAL: Duration = Duration::from_micros(1_000_000 / RATE as u64);
