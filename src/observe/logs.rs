//! Logs that never hold up a request: what happened to the gateway, and one line for each request.
//!
//! Both kinds go through one bounded queue to one writer thread (`writer.rs`). What an operator may change while the
//! gateway runs (level, format, access lines, file) is a handful of atomics, read for each line, so a reload needs no
//! new subscriber. The formatter is our own and not `tracing_subscriber::fmt`, whose format is part of its type: this
//! one changes from JSON to text on a reload, uses the escapes and time stamps of the access log, and fills a buffer
//! that each thread uses again.

use super::access::Access;
use super::lines::{Escaped, Place, quoted, rfc3339, word};
use super::metrics::Metrics;
use super::writer::{Notice, Writer};
use crate::clock;
use crate::config::{self, LogFormat};
use crate::instant::Instant;
use rustix::fs::OFlags;
use std::cell::Cell;
use std::fmt::Write;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::{Interest, SetGlobalDefaultError};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;

/// Where everything that is logged goes in.
#[derive(Debug)]
pub struct Logs {
    writer: Writer,
    style: Arc<Style>,
    /// The open log file's path; `None` is standard output. Held by reloads and reopens only.
    file: Mutex<Option<PathBuf>>,
}

/// A log configuration whose file is open: applying it cannot fail. Made by [`Logs::prepare`].
#[derive(Debug)]
pub struct Prepared {
    config: config::Log,
    target: Option<File>,
}

/// The settings read for each line. Relaxed loads are enough: a line in the old style right after a reload is fine.
#[derive(Debug)]
struct Style {
    /// 1 (error) to 5 (trace), as in [`config::Level`].
    level: AtomicU8,
    json: AtomicBool,
    colour: AtomicBool,
    access: AtomicBool,
}

/// The tracing layer that turns events into lines.
struct Lines(Arc<Logs>);

/// Writes an event's fields behind what `out` already has.
struct Fields<'a> {
    out: &'a mut Vec<u8>,
    json: bool,
}

// === impl Logs ===

impl Logs {
    /// Opens the target and starts the writer thread. [`Logs::install`] makes it the process's log.
    ///
    /// # Errors
    /// The file cannot be opened (the message names it), or the system refused a thread.
    pub fn start(config: &config::Log, metrics: Arc<Metrics>) -> io::Result<Arc<Logs>> {
        let target = open(config.file.as_deref())?;
        let style = Arc::new(Style::new(config));
        let writer = Writer::start(target, metrics, dropped_notice(Arc::clone(&style)))?;
        Ok(Arc::new(Logs { writer, style, file: Mutex::new(config.file.clone()) }))
    }

    /// Makes this the log of the whole process: every `tracing` event goes here from now on.
    ///
    /// # Errors
    /// Another log was installed before.
    pub fn install(self: &Arc<Self>) -> Result<(), SetGlobalDefaultError> {
        tracing::subscriber::set_global_default(self.subscriber())
    }

    /// A subscriber that logs here, for a part of a process.
    pub fn subscriber(self: &Arc<Self>) -> impl Subscriber + Send + Sync + use<> {
        Registry::default().with(Lines(Arc::clone(self)))
    }

    /// Whether requests leave a line; if not, there is no need to gather one.
    #[inline]
    #[must_use]
    pub fn access_enabled(&self) -> bool {
        self.style.access.load(Ordering::Relaxed)
    }

    /// Logs one request, if access lines are on.
    pub fn access(&self, record: &Access<'_>) {
        if self.access_enabled() {
            self.line(|out| {
                if self.style.is_json() {
                    record.write_json(out);
                } else {
                    record.write_text(out, self.style.has_colour());
                }
            });
        }
    }

    /// Opens what `config` names, without changing anything yet. A reload prepares first and applies once all else is
    /// ready.
    ///
    /// # Errors
    /// The file cannot be opened; the message names it.
    pub fn prepare(&self, config: &config::Log) -> io::Result<Prepared> {
        let unchanged = *self.file.lock().unwrap_or_else(PoisonError::into_inner) == config.file;
        let target = if unchanged { None } else { Some(open(config.file.as_deref())?) };
        Ok(Prepared { config: config.clone(), target })
    }

    /// Logs as prepared from now on. Lines queued before still go to the old target.
    pub fn apply(&self, prepared: Prepared) {
        if let Some(target) = prepared.target {
            self.writer.redirect(target);
            self.file.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&prepared.config.file);
        }
        self.style.set(&prepared.config);
        // Callsites remember whether anybody listens; the level may have changed that.
        tracing::callsite::rebuild_interest_cache();
    }

    /// Prepares and applies `config`.
    ///
    /// # Errors
    /// The file cannot be opened; then nothing has changed.
    pub fn reconfigure(&self, config: &config::Log) -> io::Result<()> {
        self.apply(self.prepare(config)?);
        Ok(())
    }

    /// Opens the log file anew, after something moved it away (USR1). Standard output needs no reopening.
    ///
    /// # Errors
    /// The file cannot be opened; the old one stays in use.
    pub fn reopen(&self) -> io::Result<()> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if file.is_some() {
            self.writer.redirect(open(file.as_deref())?);
        }
        Ok(())
    }

    /// Waits until every line is written, at most until `deadline`; whether they are. It blocks the thread: for exits.
    pub fn flush(&self, deadline: Instant) -> bool {
        self.writer.flush(deadline)
    }

    fn line(&self, write: impl FnOnce(&mut Vec<u8>)) {
        // Taken out and put back, so that a line logged while another is being written just starts a buffer of its own.
        let mut buffer = BUFFER.take();
        buffer.clear();
        write(&mut buffer);
        self.writer.push(&buffer);
        buffer.shrink_to(BUFFER_BYTES_KEPT);
        BUFFER.set(buffer);
    }
}

// === impl Style ===

impl Style {
    fn new(config: &config::Log) -> Self {
        let style = Style {
            level: AtomicU8::new(0),
            json: AtomicBool::new(true),
            colour: AtomicBool::new(false),
            access: AtomicBool::new(false),
        };
        style.set(config);
        style
    }

    fn set(&self, config: &config::Log) {
        let terminal = config.file.is_none() && io::stdout().is_terminal();
        let json = match config.format {
            LogFormat::Auto => !terminal,
            LogFormat::Json => true,
            LogFormat::Text => false,
        };
        self.json.store(json, Ordering::Relaxed);
        self.colour.store(terminal && wants_colour(), Ordering::Relaxed);
        self.access.store(config.access, Ordering::Relaxed);
        self.level.store(rank_of(config.level), Ordering::Relaxed);
    }

    fn is_json(&self) -> bool {
        self.json.load(Ordering::Relaxed)
    }

    fn has_colour(&self) -> bool {
        self.colour.load(Ordering::Relaxed)
    }

    /// Whether an event of `level` from `target` is written. Of libraries, only what must be acted upon, until
    /// everything is asked for.
    fn shows(&self, level: Level, target: &str) -> bool {
        let shown = self.level.load(Ordering::Relaxed);
        let ours = target.starts_with(env!("CARGO_CRATE_NAME"));
        rank(level) <= shown && (ours || level <= Level::WARN || shown == TRACE)
    }

    /// Begins a line: time, level, where from.
    fn begin(&self, out: &mut Vec<u8>, level: Level, target: &str) {
        if self.is_json() {
            out.extend_from_slice(b"{\"at\":\"");
            rfc3339(out, clock::wall());
            out.extend_from_slice(b"\",\"level\":\"");
            out.extend_from_slice(name_of(level).to_ascii_lowercase().as_bytes());
            out.extend_from_slice(b"\",\"target\":");
            quoted(out, target);
            return;
        }
        rfc3339(out, clock::wall());
        out.push(b' ');
        if self.has_colour() {
            out.extend_from_slice(colour_of(level));
        }
        // Writing to a Vec never fails.
        let _ = io::Write::write_fmt(out, format_args!("{:<5}", name_of(level)));
        if self.has_colour() {
            out.extend_from_slice(b"\x1b[0m");
        }
    }

    fn end(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(if self.is_json() { b"}\n" } else { b"\n" });
    }
}

// === impl Lines ===

impl<S: Subscriber> Layer<S> for Lines {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.0.style.shows(*metadata.level(), metadata.target()) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.0.style.shows(*metadata.level(), metadata.target())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let shown = self.0.style.level.load(Ordering::Relaxed);
        let levels = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
        levels.into_iter().rfind(|level| rank(*level) <= shown).map(LevelFilter::from_level)
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let style = &self.0.style;
        self.0.line(|out| {
            style.begin(out, *event.metadata().level(), event.metadata().target());
            event.record(&mut Fields { out, json: style.is_json() });
            style.end(out);
        });
    }
}

// === impl Fields ===

impl Fields<'_> {
    /// Begins `name`; names are written in our source and need no escape.
    fn name(&mut self, field: &Field) {
        let name = field.name().trim_start_matches("r#");
        let taken = matches!(name, "at" | "level" | "target");
        self.out.extend_from_slice(if self.json { b",\"" } else { b" " });
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(if taken { b"_" } else { b"" });
        self.out.extend_from_slice(if self.json { b"\":" } else { b"=" });
    }

    fn bare(&mut self, field: &Field, value: &dyn std::fmt::Display) {
        self.name(field);
        // Writing to a Vec never fails.
        let _ = io::Write::write_fmt(self.out, format_args!("{value}"));
    }

    fn formatted(&mut self, value: &dyn std::fmt::Debug, place: Place) {
        // A value whose own formatting fails is logged as far as it came.
        let _ = write!(Escaped::new(self.out, place), "{value:?}");
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if self.json {
            self.name(field);
            self.out.push(b'"');
            self.formatted(value, Place::Quoted);
            self.out.push(b'"');
        } else if field.name() == "message" {
            self.out.push(b' ');
            self.formatted(value, Place::Message);
        } else if field.name() == "problems" {
            // As `sluice check` shows them: each with its source line, below what was said of them.
            self.out.extend_from_slice(b"\n    ");
            self.formatted(value, Place::Message);
        } else {
            self.name(field);
            self.formatted(value, Place::Plain);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if self.json {
            self.name(field);
            quoted(self.out, value);
        } else if field.name() == "message" {
            self.out.push(b' ');
            self.formatted(&format_args!("{value}"), Place::Message);
        } else {
            self.out.push(b' ');
            word(self.out, field.name(), value);
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.bare(field, &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.bare(field, &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.bare(field, &value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.bare(field, &value);
        } else {
            // JSON has no such number.
            self.record_debug(field, &value);
        }
    }
}

/// Opens a log file for appending, or standard output.
fn open(path: Option<&Path>) -> io::Result<File> {
    let Some(path) = path else {
        return Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?));
    };
    // Without NONBLOCK, opening a named pipe would wait for its reader; on a plain file it means nothing.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let opened = OpenOptions::new().append(true).create(true).mode(FILE_MODE).custom_flags(flags).open(path);
    opened.map_err(|error| {
        let what = format!("cannot open the log file {}: {error}; check `log.file` and its folder", path.display());
        io::Error::new(error.kind(), what)
    })
}

fn dropped_notice(style: Arc<Style>) -> Notice {
    Box::new(move |lines, out| {
        style.begin(out, Level::WARN, module_path!());
        let text = format!("{lines} log {} dropped", if lines == 1 { "line was" } else { "lines were" });
        if style.is_json() {
            out.extend_from_slice(b",\"message\":");
            quoted(out, &text);
            out.extend_from_slice(format!(",\"lines\":{lines}").as_bytes());
        } else {
            out.push(b' ');
            out.extend_from_slice(text.as_bytes());
        }
        style.end(out);
    })
}

/// See <https://no-color.org>; a dumb terminal has no colours either.
fn wants_colour() -> bool {
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !no_colour && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

fn rank_of(level: config::Level) -> u8 {
    match level {
        config::Level::Error => 1,
        config::Level::Warn => 2,
        config::Level::Info => 3,
        config::Level::Debug => 4,
        config::Level::Trace => TRACE,
    }
}

fn rank(level: Level) -> u8 {
    match level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => TRACE,
    }
}

fn name_of(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARN",
        Level::INFO => "INFO",
        Level::DEBUG => "DEBUG",
        Level::TRACE => "TRACE",
    }
}

fn colour_of(level: Level) -> &'static [u8] {
    match level {
        Level::ERROR => b"\x1b[31m",
        Level::WARN => b"\x1b[33m",
        Level::INFO => b"\x1b[32m",
        Level::DEBUG | Level::TRACE => b"\x1b[2m",
    }
}

thread_local! {
    /// The line being written.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The rank of the least severe level.
const TRACE: u8 = 5;

/// What a thread's line buffer keeps of the room that a long line made it take.
const BUFFER_BYTES_KEPT: usize = 8 * 1024;

/// Readable by the owner and the group: lines tell who asked for what.
const FILE_MODE: u32 = 0o640;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Exposition;
    use serde_json::Value;
    use std::time::Duration;
    use tracing::subscriber::with_default;

    fn config(file: &Path, format: LogFormat) -> config::Log {
        config::Log { level: config::Level::Info, format, access: true, file: Some(file.to_owned()) }
    }

    fn written(logs: &Logs, file: &Path) -> String {
        assert!(logs.flush(clock::now() + Duration::from_secs(10)), "the lines were not written in time");
        std::fs::read_to_string(file).expect("the log file is there")
    }

    #[test]
    fn an_event_is_one_json_object_with_its_fields() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("log");
        let logs = Logs::start(&config(&file, LogFormat::Json), Arc::default()).expect("starts");
        with_default(logs.subscriber(), || {
            let refused = io::Error::other("no \"room\"");
            tracing::warn!(route = "a\nb", count = 3, ratio = f64::NAN, ok = true, level = "x", %refused, "two\nlines");
        });
        let text = written(&logs, &file);
        let line: Value = serde_json::from_str(&text).expect("one JSON object");
        assert_eq!(text.matches('\n').count(), 1);
        assert_eq!(line["level"], "warn");
        assert_eq!(line["target"], module_path!());
        assert_eq!(line["message"], "two\nlines");
        assert_eq!(line["route"], "a\nb");
        assert_eq!(line["count"], 3);
        assert_eq!(line["ratio"], "NaN");
        assert_eq!(line["ok"], true);
        assert_eq!(line["level_"], "x");
        assert_eq!(line["refused"], "no \"room\"");
    }

    #[test]
    fn an_event_as_text_reads_like_a_sentence() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("log");
        let logs = Logs::start(&config(&file, LogFormat::Text), Arc::default()).expect("starts");
        with_default(logs.subscriber(), || {
            tracing::info!(listener = "web", address = %"127.0.0.1:1", "listening, \"at last\"");
            tracing::error!(why = "two words", "first\nsecond");
            tracing::error!(problems = %"one\n  ^ help", "wrong");
        });
        let text = written(&logs, &file);
        let lines: Vec<&str> = text.lines().map(|line| line.trim_start_matches(|c| c != ' ')).collect();
        assert_eq!(
            lines,
            [
                " INFO  listening, \"at last\" listener=web address=127.0.0.1:1",
                " ERROR first",
                "    second why=\"two words\"",
                " ERROR wrong",
                "    one",
                "      ^ help",
            ]
        );
    }

    #[test]
    fn the_level_and_the_file_change_on_a_reload_without_losing_a_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        let logs = Logs::start(&config(&old, LogFormat::Json), Arc::default()).expect("starts");
        with_default(logs.subscriber(), || {
            for round in 0..2 {
                tracing::debug!(round, "fine");
                tracing::info!(round, "coarse");
                tracing::debug!(target: "hyper::proto", round, "a library's");
                let debug = config::Log { level: config::Level::Debug, ..config(&new, LogFormat::Json) };
                logs.reconfigure(&debug).expect("the new file can be opened");
            }
        });
        assert_eq!(written(&logs, &old).matches("coarse").count(), 1);
        let new = written(&logs, &new);
        assert_eq!(new.lines().count(), 2, "{new}");
        assert!(new.contains("\"message\":\"fine\",\"round\":1"), "{new}");
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named_and_changes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("log");
        let logs = Logs::start(&config(&file, LogFormat::Json), Arc::default()).expect("starts");
        let wrong = config::Log { access: false, ..config(&folder.path().join("no/such/log"), LogFormat::Text) };
        let error = logs.reconfigure(&wrong).expect_err("the folder is not there");
        assert!(error.to_string().contains("no/such/log: No such file"), "{error}");
        assert!(logs.access_enabled());
        with_default(logs.subscriber(), || tracing::info!("still here"));
        assert!(written(&logs, &file).contains("\"message\":\"still here\""));
    }

    #[test]
    fn a_file_moved_away_is_written_anew_after_a_reopen() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, moved) = (folder.path().join("log"), folder.path().join("log.1"));
        let logs = Logs::start(&config(&file, LogFormat::Json), Arc::default()).expect("starts");
        with_default(logs.subscriber(), || {
            tracing::info!("before");
            std::fs::rename(&file, &moved).expect("moved");
            logs.reopen().expect("reopened");
            tracing::info!("after");
        });
        let (new, old) = (written(&logs, &file), written(&logs, &moved));
        assert!(old.contains("before") && !old.contains("after"), "{old}");
        assert!(new.contains("after") && !new.contains("before"), "{new}");
    }

    #[test]
    fn a_full_disk_loses_lines_counts_them_and_stops_nobody() {
        let metrics = Arc::new(Metrics::new());
        let logs = Logs::start(&config(Path::new("/dev/full"), LogFormat::Json), Arc::clone(&metrics)).expect("starts");
        with_default(logs.subscriber(), || {
            for round in 0..100 {
                tracing::info!(round, "lost");
            }
        });
        assert!(logs.flush(clock::now() + Duration::from_secs(10)));
        let page = metrics.render(Exposition::Prometheus).1;
        assert!(page.contains("\nsluice_log_lines_dropped_total 100\n"), "{page}");
    }
}
