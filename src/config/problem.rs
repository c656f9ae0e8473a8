//! What is wrong with a file, where, and what to do about it; and how that is shown.
//!
//! Every problem carries its source line with the secrets in it already masked, so that whoever prints, logs or serves
//! it cannot leak one. Where the file could be read, its shape says which values are secret; where it could not, any
//! value is masked whose key is not known to be harmless.

use super::excerpt::{Excerpt, Lines};
use super::inputs::Inputs;
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

/// One thing wrong with the configuration, or worth knowing about it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// Line in the file, from 1; 0 where the problem is the file itself.
    pub line: usize,
    /// Column in characters, from 1; 0 where the problem is the file itself.
    pub column: usize,
    /// Keys on the way there: `providers.alpha.url`. Empty for the file as a whole.
    pub path: String,
    /// What is wrong. Never holds a secret or an expanded value.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The source line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Excerpt>,
    /// It stops nothing.
    #[serde(skip)]
    pub note: bool,
}

/// Every problem of one file, by position. Its `Display` is what `sluice check` prints.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problems {
    /// The file's name, as it was given.
    pub file: String,
    /// The problems, first line first.
    pub problems: Vec<Problem>,
    /// Further problems, not listed.
    pub more: usize,
    /// What was read, as far as reading came.
    #[serde(skip)]
    pub inputs: Arc<Inputs>,
}

/// A part of the file: lines and columns count from 1, the end is exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Span {
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) end_line: u32,
    pub(super) end_column: u32,
}

/// Collects problems while a file is read.
#[derive(Debug, Default)]
pub(super) struct Report {
    found: Vec<Found>,
    notes: Vec<Found>,
    /// Problems by place and words.
    said: HashSet<(Span, String)>,
    more: usize,
    /// Values that no excerpt may show; `None` while nobody has looked.
    secrets: Option<Vec<Span>>,
}

/// A problem before its excerpt is cut.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Found {
    span: Span,
    message: String,
    path: String,
    help: Option<String>,
}

// === impl Span ===

impl Span {
    /// The first character of the file.
    pub(super) const START: Span = Span { line: 1, column: 1, end_line: 1, end_column: 2 };
    /// The file itself.
    pub(super) const FILE: Span = Span { line: 0, column: 0, end_line: 0, end_column: 0 };

    /// One character.
    pub(super) fn at(line: usize, column: usize) -> Self {
        let (line, column) = (line as u32, column as u32);
        Span { line, column, end_line: line, end_column: column + 1 }
    }

    /// From the first character of `from` to just before `to`.
    pub(super) fn between(from: Span, to: Span) -> Self {
        Span { end_line: to.line, end_column: to.column, ..from }
    }
}

// === impl Report ===

impl Report {
    /// Adds a problem.
    pub(super) fn add(
        &mut self,
        span: Span,
        path: impl Into<String>,
        message: impl Into<Cow<'static, str>>,
        help: Option<String>,
    ) {
        let (message, path) = (message.into().into_owned(), path.into());
        // What stands in the defaults is wrong once, however many things it is laid under.
        let tail = message.split_once(": ").map_or(&*message, |(_, tail)| tail).to_owned();
        if !self.said.insert((span, tail)) {
            return;
        }
        if self.found.len() >= PROBLEMS_MAX {
            self.more += 1;
            return;
        }
        self.found.push(Found { span, message, path, help });
    }

    /// Adds a problem that ends the reading.
    pub(super) fn add_unparsed(&mut self, span: Span, message: Cow<'static, str>, help: Option<String>) {
        self.add(span, "", message, help);
    }

    /// Adds something worth knowing that stops nothing.
    pub(super) fn note(&mut self, span: Span, path: impl Into<String>, message: String, help: Option<String>) {
        let tail = message.split_once(": ").map_or(&*message, |(_, tail)| tail).to_owned();
        if self.notes.len() < PROBLEMS_MAX && self.said.insert((span, tail)) {
            self.notes.push(Found { span, message, path: path.into(), help });
        }
    }

    /// From here on, masks what [`Report::secret`] names instead of every value that might be one.
    pub(super) fn shape_known(&mut self) {
        self.secrets.get_or_insert_default();
    }

    /// Masks `span` in every excerpt.
    pub(super) fn secret(&mut self, span: Span) {
        self.secrets.get_or_insert_default().push(span);
    }

    /// The lines that have a problem so far, in order.
    pub(super) fn lines(&self) -> Vec<u32> {
        let mut lines: Vec<u32> = self.found.iter().map(|found| found.span.line).collect();
        lines.sort_unstable();
        lines
    }

    /// The problems, if there are any, and else the notes.
    pub(super) fn finish(self, file: &str, text: &str) -> Result<Vec<Problem>, Problems> {
        let wanted = self.found.iter().chain(&self.notes).map(|found| found.span.line).collect();
        let lines = Lines::new(text, &wanted, self.secrets);
        if self.found.is_empty() {
            return Ok(problems(self.notes, &lines, true));
        }
        let problems = problems(self.found, &lines, false);
        Err(Problems { file: file.to_owned(), problems, more: self.more, inputs: Arc::default() })
    }
}

// === impl Problem ===

impl Problem {
    /// The problem as text, as a compiler would show it, ending in a line feed.
    #[must_use]
    pub fn render(&self, file: &str) -> String {
        let kind = if self.note { "note: " } else { "" };
        let mut text = match self.line {
            0 => format!("{file}: {kind}{}\n", self.message),
            line => format!("{file}:{line}:{}: {kind}{}\n", self.column, self.message),
        };
        let help = self.help.as_deref().unwrap_or("");
        if let Some(source) = &self.source {
            let (pad, marks) = (" ".repeat(source.start), "^".repeat(source.width));
            let gutter = self.line.to_string().len().max(5);
            let shown = format!("{:gutter$} | {}\n{:gutter$} | {pad}{marks} {help}", self.line, source.text, "");
            text.push_str(shown.trim_end());
            text.push('\n');
        } else if !help.is_empty() {
            text.extend(["      = ", help, "\n"]);
        }
        text
    }
}

// === impl Problems ===

impl Problems {
    /// One problem of the file as a whole.
    pub(super) fn of_file(file: &str, message: String, help: &str) -> Self {
        let mut report = Report::default();
        report.add(Span::FILE, "", message, Some(help.to_owned()));
        match report.finish(file, "") {
            Err(problems) => problems,
            Ok(problems) => Problems { file: file.to_owned(), problems, more: 0, inputs: Arc::default() },
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            f.write_str(&problem.render(&self.file))?;
        }
        if self.more > 0 {
            writeln!(f, "{}: and {} more problems", self.file, self.more)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Sorts what was found and gives each its excerpt.
fn problems(mut found: Vec<Found>, lines: &Lines<'_>, note: bool) -> Vec<Problem> {
    found.sort();
    let whole = |Found { span, message, path, help }| {
        let source = lines.excerpt(span);
        Problem { line: span.line as usize, column: span.column as usize, path, message, help, source, note }
    };
    found.into_iter().map(whole).collect()
}

/// `text` in backticks for a message: control characters escaped, long text cut.
pub(super) fn shown(text: &str) -> String {
    let mut out = String::from("`");
    for (count, c) in text.chars().enumerate() {
        if count == SHOWN_MAX {
            out.push('…');
            break;
        }
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out.push('`');
    out
}

/// What stands for a secret.
pub(super) const MASK: &str = "***";
/// Problems kept; the rest are counted.
const PROBLEMS_MAX: usize = 1000;
/// Characters of a value in a message.
const SHOWN_MAX: usize = 60;
