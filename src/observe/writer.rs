//! The one thread that writes log lines, behind a bounded queue.
//!
//! A line costs its producer one short lock and a copy: the queue is one byte buffer, which the writer swaps for an empty
//! one and writes in one call. After the first line the writer lingers a moment for more, so that a busy gateway wakes
//! it some fifty times a second and not once a request. A target that blocks (a pipe nobody reads) or fails (a full
//! disk) only ever holds up this thread: the queue fills, further lines are dropped and counted, and when the target
//! takes lines again a warning says how many are missing. Why a target fails is told on standard error.

use super::metrics::Metrics;
use crate::clock;
use crate::instant::Instant;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// The producers' end. Dropping it lets the thread write what is queued and end.
#[derive(Debug)]
pub(super) struct Writer(Arc<Shared>);

/// Spells the warning about dropped lines, in the format of the moment.
pub(super) type Notice = Box<dyn Fn(u64, &mut Vec<u8>) + Send>;

#[derive(Debug)]
struct Shared {
    // A std mutex, held for the copy of one line or the swap of two buffers; never across a write or an await.
    queue: Mutex<Queue>,
    /// Tells the writer to look.
    work: Condvar,
    /// Tells those who flush that everything is written.
    drained: Condvar,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    lines: usize,
    /// Dropped since the writer last took the queue.
    dropped: u64,
    next: Option<Turn>,
    phase: Phase,
    flushing: bool,
    closing: bool,
}

/// A new target, and where in the queue its lines begin.
#[derive(Debug)]
struct Turn {
    at: usize,
    file: File,
}

/// What the writer is doing, so that a producer wakes it only when that helps.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Waits for a line.
    #[default]
    Idle,
    /// Has a line and waits a moment for more.
    Lingering,
    /// Writes, and looks again when it is done.
    Writing,
}

/// What the writer took from the queue for one round.
struct Round {
    dropped: u64,
    next: Option<Turn>,
    closing: bool,
}

/// The place lines go to.
struct Target {
    file: File,
    /// A write ended inside a line, so the next one must begin with a line feed.
    torn: bool,
    /// It has been told that writes fail; they have since.
    failing: bool,
}

// === impl Writer ===

impl Writer {
    /// Starts the thread, writing to `file`.
    ///
    /// # Errors
    /// The system refused a thread.
    pub(super) fn start(file: File, metrics: Arc<Metrics>, notice: Notice) -> io::Result<Self> {
        let shared =
            Arc::new(Shared { queue: Mutex::default(), work: Condvar::new(), drained: Condvar::new(), metrics });
        let theirs = Arc::clone(&shared);
        thread::Builder::new().name("log".into()).spawn(move || write_lines(&theirs, file, &notice))?;
        Ok(Writer(shared))
    }

    /// Queues `line`, which ends in a line feed, or drops and counts it. Never waits for the target.
    pub(super) fn push(&self, line: &[u8]) {
        let mut queue = self.0.queue();
        if queue.lines >= QUEUE_LINES_MAX || queue.bytes.len() + line.len() > QUEUE_BYTES_MAX {
            queue.dropped += 1;
            drop(queue);
            self.0.metrics.log_line_dropped();
            return;
        }
        queue.bytes.extend_from_slice(line);
        queue.lines += 1;
        let wake = match queue.phase {
            Phase::Idle => true,
            Phase::Lingering => queue.is_pressing(),
            Phase::Writing => false,
        };
        drop(queue);
        if wake {
            self.0.work.notify_one();
        }
    }

    /// Sends later lines to `file`; what is queued still goes to the old target. Of two turns before the writer comes
    /// round, the second takes what was meant for the first.
    pub(super) fn redirect(&self, file: File) {
        let mut queue = self.0.queue();
        let at = queue.next.as_ref().map_or(queue.bytes.len(), |turn| turn.at);
        queue.next = Some(Turn { at, file });
        drop(queue);
        self.0.work.notify_one();
    }

    /// Waits until all lines are written, at most until `deadline`. Whether they are.
    pub(super) fn flush(&self, deadline: Instant) -> bool {
        let mut queue = self.0.queue();
        queue.flushing = true;
        self.0.work.notify_one();
        while !queue.is_drained() {
            let left = deadline.saturating_duration_since(clock::now());
            if left.is_zero() {
                break;
            }
            queue = self.0.drained.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        queue.flushing = false;
        queue.is_drained()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.queue().closing = true;
        self.0.work.notify_one();
    }
}

// === impl Shared ===

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Every change to the queue is whole before the next statement can panic, so a poisoned lock is still good.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for lines and swaps them for the empty `batch`.
    fn take(&self, batch: &mut Vec<u8>) -> Round {
        let mut queue = self.queue();
        while queue.is_empty() && !queue.closing {
            queue.phase = Phase::Idle;
            self.drained.notify_all();
            queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.phase = Phase::Lingering;
        let lingered = self.work.wait_timeout_while(queue, LINGER, |queue| !queue.is_pressing());
        let mut queue = lingered.unwrap_or_else(PoisonError::into_inner).0;
        queue.phase = Phase::Writing;
        std::mem::swap(&mut queue.bytes, batch);
        queue.lines = 0;
        Round { dropped: std::mem::take(&mut queue.dropped), next: queue.next.take(), closing: queue.closing }
    }
}

// === impl Queue ===

impl Queue {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.next.is_none() && self.dropped == 0
    }

    fn is_drained(&self) -> bool {
        self.is_empty() && self.phase == Phase::Idle
    }

    /// Whether the writer should not linger.
    fn is_pressing(&self) -> bool {
        self.bytes.len() >= PRESSING_BYTES || self.flushing || self.closing || self.next.is_some()
    }
}

// === impl Target ===

impl Target {
    fn new(file: File) -> Self {
        Target { file, torn: false, failing: false }
    }

    /// Writes `batch` and returns how many of its lines were lost.
    fn write(&mut self, batch: &[u8]) -> u64 {
        if batch.is_empty() {
            return 0;
        }
        if self.torn && self.write_all(b"\n").is_err() {
            return lines_of(batch);
        }
        match self.write_all(batch) {
            Ok(()) => {
                (self.torn, self.failing) = (false, false);
                0
            }
            Err(written) => {
                self.torn = written > 0 && batch[written - 1] != b'\n';
                lines_of(&batch[written..])
            }
        }
    }

    /// Writes everything, or fails with the number of bytes written.
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), usize> {
        let mut written = 0;
        let mut stalls = 0;
        while written < bytes.len() {
            match self.file.write(&bytes[written..]) {
                Ok(0) => {
                    self.complain(&ErrorKind::WriteZero.into());
                    return Err(written);
                }
                Ok(n) => (written, stalls) = (written + n, 0),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Somebody who shares the pipe made it non-blocking: give its reader a moment.
                Err(error) if error.kind() == ErrorKind::WouldBlock && stalls < STALLS_MAX => {
                    stalls += 1;
                    thread::park_timeout(STALL);
                }
                Err(error) => {
                    self.complain(&error);
                    return Err(written);
                }
            }
        }
        Ok(())
    }

    /// Says on standard error why lines are lost, once until a write succeeds: the log itself is no place for it.
    fn complain(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.failing, true) {
            // With standard error gone as well, the metric still counts what is lost.
            let _: io::Result<()> =
                writeln!(io::stderr(), "sluice: the log cannot be written: {error}; lines are dropped until it can");
        }
    }
}

/// The thread: takes what is queued, writes it, says what is missing, until the producers' end is dropped.
fn write_lines(shared: &Shared, file: File, notice: &Notice) {
    let mut target = Target::new(file);
    let mut batch = Vec::new();
    let mut unreported = 0;
    loop {
        let round = shared.take(&mut batch);
        let lost = write_batch(&mut target, &batch, round.next);
        shared.metrics.log_lines_dropped(lost);
        unreported += round.dropped + lost;
        if unreported > 0 && lost == 0 {
            batch.clear();
            notice(unreported, &mut batch);
            if target.write(&batch) == 0 {
                unreported = 0;
            }
        }
        batch.clear();
        batch.shrink_to(BATCH_BYTES_KEPT);
        if round.closing {
            return;
        }
    }
}

/// Writes `batch`, turning to another target where it says so, and returns how many lines were lost.
fn write_batch(target: &mut Target, batch: &[u8], next: Option<Turn>) -> u64 {
    let Some(Turn { at, file }) = next else { return target.write(batch) };
    let (before, after) = batch.split_at(at.min(batch.len()));
    let lost = target.write(before);
    *target = Target::new(file);
    lost + target.write(after)
}

fn lines_of(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

/// Bytes that wait at most; a further line is dropped and counted. Twice this is the memory logs can take.
const QUEUE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Lines that wait at most; a further line is dropped and counted.
const QUEUE_LINES_MAX: usize = 32 * 1024;

/// Enough to be worth a write at once.
const PRESSING_BYTES: usize = 64 * 1024;

/// What an empty buffer keeps of the room that a burst made it take.
const BATCH_BYTES_KEPT: usize = 256 * 1024;

/// How long a line may wait for company.
const LINGER: Duration = Duration::from_millis(20);

/// Between two tries at a pipe that takes nothing.
const STALL: Duration = Duration::from_millis(10);

/// Tries before the lines are given up: one second in all.
const STALLS_MAX: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Exposition;
    use std::io::{BufRead, BufReader};
    use std::os::fd::OwnedFd;

    fn notice() -> Notice {
        Box::new(|lines, out| out.extend_from_slice(format!("{lines} dropped\n").as_bytes()))
    }

    fn dropped(metrics: &Metrics) -> u64 {
        let page = metrics.render(Exposition::Prometheus).1;
        let line = page.lines().find_map(|line| line.strip_prefix("sluice_log_lines_dropped_total "));
        line.expect("the family is there").parse().expect("a number")
    }

    #[test]
    fn a_pipe_nobody_reads_drops_lines_and_says_how_many_once_it_is_read() {
        let (reader, pipe) = io::pipe().expect("a pipe");
        let metrics = Arc::new(Metrics::new());
        let writer = Writer::start(File::from(OwnedFd::from(pipe)), Arc::clone(&metrics), notice()).expect("starts");
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        let mut pushed = 0_u64;
        while dropped(&metrics) < 5 {
            writer.push(&line);
            pushed += 1;
            assert!(pushed < 100_000, "the queue has no bound");
        }
        assert!(!writer.flush(clock::now()), "a blocked pipe cannot be flushed");

        let mut whole = 0;
        let mut said = 0;
        for read in BufReader::new(reader).lines().map(|line| line.expect("readable")) {
            if let Some(count) = read.strip_suffix(" dropped") {
                said += count.parse::<u64>().expect("a number");
            } else {
                assert_eq!(read.len(), 1023);
                whole += 1;
            }
            if whole + said == pushed {
                break;
            }
        }
        assert_eq!(said, dropped(&metrics));
    }

    #[test]
    fn what_is_queued_is_written_before_the_thread_ends() {
        let (reader, pipe) = io::pipe().expect("a pipe");
        let writer = Writer::start(File::from(OwnedFd::from(pipe)), Arc::default(), notice()).expect("starts");
        for n in 0..1000 {
            writer.push(format!("{n}\n").as_bytes());
        }
        drop(writer);
        let lines: Vec<String> = BufReader::new(reader).lines().map(|line| line.expect("readable")).collect();
        assert_eq!(lines, (0..1000).map(|n| n.to_string()).collect::<Vec<_>>());
    }

    #[test]
    fn a_line_larger_than_the_queue_is_dropped_and_reported() {
        let (reader, pipe) = io::pipe().expect("a pipe");
        let writer = Writer::start(File::from(OwnedFd::from(pipe)), Arc::default(), notice()).expect("starts");
        writer.push(&vec![b'x'; QUEUE_BYTES_MAX + 1]);
        assert!(writer.flush(clock::now() + Duration::from_secs(10)));
        drop(writer);
        assert_eq!(io::read_to_string(reader).expect("readable"), "1 dropped\n");
    }

    #[test]
    fn a_line_cut_by_a_failed_write_does_not_run_into_the_next() {
        let (reader, pipe) = io::pipe().expect("a pipe");
        let mut target = Target { torn: true, ..Target::new(File::from(OwnedFd::from(pipe))) };
        assert_eq!(target.write(b"next\n"), 0);
        assert_eq!(target.write(b"last\n"), 0);
        drop(target);
        assert_eq!(io::read_to_string(reader).expect("readable"), "\nnext\nlast\n");
    }
}
