//! What is wrong with a file, where, and what to do about it; and how that is shown.
//!
//! Every problem carries its source line with the secrets in it already masked, so that whoever prints, logs or serves
//! it cannot leak one. Where the file could be read, its shape says which values are secret; where it could not, any
//! value is masked whose key is not known to be harmless.

use super::shape;
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;

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

/// A source line with its secrets masked, and the part of it that is meant.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Excerpt {
    /// The line, or the part of a long line around the problem.
    pub text: String,
    /// Characters before the part that is meant.
    pub start: usize,
    /// Characters of it; at least 1.
    pub width: usize,
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
        if self.notes.len() < PROBLEMS_MAX {
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
        let lines = Lines::new(text, self.found.iter().chain(&self.notes), self.secrets);
        let total = self.found.len();
        if total == 0 {
            return Ok(lines.problems(self.notes, true));
        }
        let problems = lines.problems(self.found, false);
        Err(Problems { file: file.to_owned(), problems, more: self.more })
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
            Ok(problems) => Problems { file: file.to_owned(), problems, more: 0 },
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

/// The lines that problems point at, masked.
struct Lines<'a> {
    lines: HashMap<u32, &'a str>,
    /// Columns to mask by line, sorted; from 0, the end exclusive.
    masks: HashMap<u32, Vec<(usize, usize)>>,
}

// === impl Lines ===

impl<'a> Lines<'a> {
    /// Finds the lines of `found` in `text`, and what to mask in them.
    fn new<'f>(text: &'a str, found: impl Iterator<Item = &'f Found>, secrets: Option<Vec<Span>>) -> Self {
        let wanted: BTreeSet<u32> = found.map(|found| found.span.line).collect();
        let lines: HashMap<u32, &str> =
            (1..).zip(split_lines(text)).filter(|(number, _)| wanted.contains(number)).collect();
        let mut masks: HashMap<u32, Vec<(usize, usize)>> = HashMap::new();
        match secrets {
            None => masks.extend(
                lines
                    .iter()
                    .filter(|(_, line)| line.len() <= SCAN_MAX)
                    .map(|(&number, line)| (number, guess_secrets(line))),
            ),
            Some(secrets) => {
                for span in secrets {
                    for &number in wanted.range(span.line..=span.end_line.max(span.line)) {
                        let from = if number == span.line { span.column as usize - 1 } else { 0 };
                        let to = if number == span.end_line { span.end_column as usize - 1 } else { usize::MAX };
                        masks.entry(number).or_default().push((from, to));
                    }
                }
            }
        }
        Lines { lines, masks }
    }

    /// Sorts, and cuts the excerpts.
    fn problems(&self, mut found: Vec<Found>, note: bool) -> Vec<Problem> {
        found.sort();
        found.into_iter().map(|found| self.problem(found, note)).collect()
    }

    fn problem(&self, found: Found, note: bool) -> Problem {
        let Found { span, message, path, help } = found;
        let source = self.excerpt(span);
        Problem { line: span.line as usize, column: span.column as usize, path, message, help, source, note }
    }

    /// The line of `span`, masked and cut to a width that fits.
    fn excerpt(&self, span: Span) -> Option<Excerpt> {
        let line = self.lines.get(&span.line).filter(|line| line.len() <= SCAN_MAX && !line.trim().is_empty())?;
        let from = (span.column as usize).saturating_sub(1);
        let one_line = span.end_line == span.line && span.end_column > span.column;
        let to = if one_line { trim(line, from, span.end_column as usize - 1) } else { from + 1 };
        let mut masks = fallbacks(line);
        let secrets = self.masks.get(&span.line).into_iter().flatten();
        masks.extend(secrets.map(|&(start, end)| (start, trim(line, start, end))));
        masks.sort_unstable();
        let (text, start, end) = mask(line, &masks, from, to);
        Some(cut(&text, start, end))
    }
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

/// The line of that number, from 1.
pub(super) fn line_of(text: &str, number: usize) -> Option<&str> {
    split_lines(text).nth(number.checked_sub(1)?)
}

/// Lines as YAML breaks them: at CR LF, LF or CR.
pub(super) fn split_lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(at) = text.find(['\n', '\r']) else {
            rest = None;
            return Some(text);
        };
        let skip = if text[at..].starts_with("\r\n") { 2 } else { 1 };
        rest = Some(&text[at + skip..]);
        Some(&text[..at])
    })
}

/// `to` without the spaces before it: the parser counts those behind a quoted text to it.
fn trim(line: &str, from: usize, to: usize) -> usize {
    let spaces = line.chars().skip(from).take(to.saturating_sub(from));
    let text = spaces.enumerate().filter(|(_, c)| !c.is_whitespace()).last();
    text.map_or(from + 1, |(at, _)| from + at + 1)
}

/// Replaces the masked columns by `***` and moves `from..to` along.
fn mask(line: &str, masks: &[(usize, usize)], from: usize, to: usize) -> (String, usize, usize) {
    let (mut text, mut width) = (String::new(), 0);
    let (mut start, mut end) = (None, None);
    let mut masks = masks.iter().peekable();
    let mut covered = 0;
    for (column, c) in line.chars().enumerate() {
        while masks.next_if(|&&(_, mask_end)| mask_end <= column).is_some() {}
        let masked = masks.peek().is_some_and(|&&(mask_start, _)| mask_start <= column);
        if column >= to && end.is_none() {
            end = Some(width);
        }
        if masked && covered == 0 {
            covered = width + 1;
            text.push_str(MASK);
            width += MASK.len();
        }
        if column >= from && start.is_none() {
            start = Some(if masked { covered - 1 } else { width });
        }
        if !masked {
            covered = 0;
            text.push(if c.is_control() { ' ' } else { c });
            width += 1;
        }
    }
    let start = start.unwrap_or(width);
    (text, start, end.unwrap_or(width).max(start + 1))
}

/// The columns of `text` in every `${VAR:-text}`: a value from there is as secret as one from outside.
fn fallbacks(line: &str) -> Vec<(usize, usize)> {
    let (mut masks, mut column) = (Vec::new(), 0);
    let mut rest = line;
    while let Some(at) = rest.find("${") {
        column += rest[..at].chars().count() + 2;
        rest = &rest[at + 2..];
        let inside = &rest[..rest.find('}').unwrap_or(rest.len())];
        let name = inside.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(inside.len());
        let shown = match &inside[name..] {
            after if after.starts_with(":?") || inside.starts_with("file:") => inside.len(),
            after if after.starts_with(":-") => name + 2,
            _ => name,
        };
        if shown < inside.len() {
            let start = column + inside[..shown].chars().count();
            masks.push((start, column + inside.chars().count()));
        }
    }
    masks
}

/// Cuts a long line to what stands around the columns that are meant.
fn cut(text: &str, start: usize, end: usize) -> Excerpt {
    let length = text.chars().count();
    if length <= LINE_MAX {
        let (text, width) = (text.trim_end().to_owned(), (end - start).min(LINE_MAX));
        return Excerpt { text, start, width };
    }
    let first = start.saturating_sub(LINE_MAX / 2);
    let last = (first + LINE_MAX).min(length);
    let middle: String = text.chars().skip(first).take(last - first).collect();
    let (before, after) = (if first > 0 { "…" } else { "" }, if last < length { "…" } else { "" });
    let width = end.min(last).saturating_sub(start).max(1);
    let start = start - first + before.chars().count();
    Excerpt { text: format!("{before}{middle}{after}"), start, width }
}

/// Columns of `line` that may hold a secret, told from its keys alone: for a file that could not be read. From the first
/// value whose key is not known to be harmless, the rest of the line is masked.
fn guess_secrets(line: &str) -> Vec<(usize, usize)> {
    let chars: Vec<char> = line.chars().collect();
    let (mut from, mut harmless) = (0, false);
    for at in 0..chars.len() {
        let ends_key = chars[at] == ':' && chars.get(at + 1).is_none_or(|next| next.is_whitespace());
        if !ends_key {
            continue;
        }
        let is_name = |c: &char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
        let name = chars[from..at].iter().rev().take_while(|c| is_name(c)).count();
        let between = &chars[from..at - name];
        let nested = from == 0 || between.contains(&'{');
        let follows = harmless || (nested && between.iter().all(|c| is_structure(*c)));
        if !follows {
            break;
        }
        harmless = shape::is_harmless(&chars[at - name..at].iter().collect::<String>());
        from = at + 1;
    }
    let rest = chars.get(from..).unwrap_or_default();
    match (harmless, rest.iter().position(|c| !is_structure(*c))) {
        (false, Some(first)) => vec![(from + first, chars.len())],
        _ => Vec::new(),
    }
}

/// Characters that hold a file together and tell nothing.
fn is_structure(c: char) -> bool {
    c.is_whitespace() || matches!(c, '-' | '{' | '}' | '[' | ']' | ',' | ':' | '|' | '>' | '#')
}

/// What stands for a secret.
pub(super) const MASK: &str = "***";
/// Problems kept; the rest are counted.
const PROBLEMS_MAX: usize = 1000;
/// Characters of a value in a message.
const SHOWN_MAX: usize = 60;
/// Bytes of a source line that can have an excerpt: each costs a walk along its line.
const SCAN_MAX: usize = 64 << 10;
/// Characters of a source line in an excerpt.
const LINE_MAX: usize = 160;
