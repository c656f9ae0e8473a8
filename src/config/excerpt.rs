//! Source lines as messages show them: their secrets masked, long lines cut, the part that is meant marked.

use super::problem::{MASK, Span};
use super::shape;
use std::collections::{BTreeSet, HashMap};

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

/// The lines that problems point at, masked.
pub(super) struct Lines<'a> {
    lines: HashMap<u32, &'a str>,
    /// Columns to mask by line, sorted; from 0, the end exclusive.
    masks: HashMap<u32, Vec<(usize, usize)>>,
}

// === impl Lines ===

impl<'a> Lines<'a> {
    /// Finds the lines `wanted` in `text`, and what to mask in them: `secrets`, or what may be one where those are not
    /// known.
    pub(super) fn new(text: &'a str, wanted: &BTreeSet<u32>, secrets: Option<Vec<Span>>) -> Self {
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

    /// The line of `span`, masked and cut to a width that fits.
    pub(super) fn excerpt(&self, span: Span) -> Option<Excerpt> {
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

/// Bytes of a source line that can have an excerpt: each costs a walk along its line.
const SCAN_MAX: usize = 64 << 10;
/// Characters of a source line in an excerpt.
const LINE_MAX: usize = 160;
