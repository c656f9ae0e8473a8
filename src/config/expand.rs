//! `${VAR}`, `${VAR:-default}`, `${VAR:?why}`, `${file:/path}` and `$$`, inside one scalar that was already parsed.
//!
//! Because parsing comes first, a variable can become a number or a token but never a key, a list or a comment. A `$`
//! before anything else is itself, so that a pattern may end in one.

use super::inputs::{Digest, digest};
use super::problem::{Report, Span, shown};
use crate::clock;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Where values from outside the file come from.
pub trait Environment {
    /// The variable's value; `None` where it is not set or is not text.
    fn var(&self, name: &str) -> Option<String>;

    /// The bytes of a file named by the configuration.
    ///
    /// # Errors
    /// Whatever kept it from being read.
    fn read_file(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Whether values are known at all. Where not, `${…}` passes every check and no file is read.
    fn is_known(&self) -> bool {
        true
    }

    /// The time by which a certificate has expired.
    fn now(&self) -> SystemTime {
        clock::wall()
    }
}

/// The process's own variables and files.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessEnvironment;

/// Nobody's: for checking a file on a caller's behalf, who must learn nothing about ours.
#[derive(Debug, Clone, Copy, Default)]
pub struct UnknownEnvironment;

/// How a scalar came to its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// As written.
    Written,
    /// Partly or wholly from outside the file: never shown.
    Expanded,
    /// From outside, and not known here: of the right type, whatever that is.
    Unknown,
}

// === impl ProcessEnvironment ===

impl Environment for ProcessEnvironment {
    fn var(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        // A pipe or a device would block or never end.
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let mut bytes = Vec::new();
        File::open(path)?.take(FILE_MAX as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > FILE_MAX {
            return Err(io::Error::other(format!("larger than {} MiB", FILE_MAX >> 20)));
        }
        Ok(bytes)
    }
}

// === impl UnknownEnvironment ===

impl Environment for UnknownEnvironment {
    fn var(&self, _name: &str) -> Option<String> {
        None
    }

    fn read_file(&self, _path: &Path) -> io::Result<Vec<u8>> {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "files are not read here"))
    }

    fn is_known(&self) -> bool {
        false
    }
}

/// Expands the scalars of one file.
pub(super) struct Expander<'a> {
    /// Where relative paths start.
    base: &'a Path,
    env: &'a dyn Environment,
    /// Bytes that scalars may still expand to.
    left: usize,
    /// Whether anything was expanded.
    pub(super) used: bool,
    /// Files that were read or tried.
    pub(super) files: Vec<(PathBuf, Option<Digest>)>,
}

// === impl Expander ===

impl<'a> Expander<'a> {
    pub(super) fn new(base: &'a Path, env: &'a dyn Environment) -> Self {
        Expander { base, env, left: EXPANDED_MAX, used: false, files: Vec::new() }
    }

    /// Expands `text`; `None` where there is nothing to expand. What fails is reported, and then unknown.
    pub(super) fn expand(&mut self, text: &str, span: Span, report: &mut Report) -> Option<(String, Origin)> {
        if !text.contains("${") && !text.contains("$$") {
            return None;
        }
        self.used = true;
        let mut origin = Origin::Written;
        match pieces(text, &mut origin, self.base, self.env, &mut self.files) {
            Ok(_) if origin == Origin::Unknown => Some((String::new(), Origin::Unknown)),
            Ok(expanded) if expanded.len() <= self.left => {
                self.left -= expanded.len();
                Some((expanded, origin))
            }
            Ok(_) => {
                let message = format!("the values of this file expand to more than {} MiB", EXPANDED_MAX >> 20);
                Some(failed(span, report, message, None))
            }
            Err((message, help)) => Some(failed(span, report, message, Some(help))),
        }
    }
}

fn failed(span: Span, report: &mut Report, message: String, help: Option<String>) -> (String, Origin) {
    report.add(span, "", message, help);
    (String::new(), Origin::Unknown)
}

/// Text and references in turn. An error is a message and what to do.
fn pieces(
    text: &str,
    origin: &mut Origin,
    base: &Path,
    env: &dyn Environment,
    files: &mut Vec<(PathBuf, Option<Digest>)>,
) -> Result<String, (String, String)> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let help = "close it with `}`; for a dollar sign before a brace write `$$`".to_owned();
            let end = after.find('}').ok_or_else(|| ("`${` is not closed".to_owned(), help))?;
            let value = reference(&after[..end], base, env, files)?;
            *origin = if value.is_none() || *origin == Origin::Unknown { Origin::Unknown } else { Origin::Expanded };
            out.push_str(&value.unwrap_or_default());
            rest = &after[end + 1..];
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// What stands between the braces; `None` where it cannot be known.
fn reference(
    inside: &str,
    base: &Path,
    env: &dyn Environment,
    files: &mut Vec<(PathBuf, Option<Digest>)>,
) -> Result<Option<String>, (String, String)> {
    if let Some(path) = inside.strip_prefix("file:") {
        return file(path, base, env, files);
    }
    let end = inside.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(inside.len());
    let (name, rest) = inside.split_at(end);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(malformed(inside));
    }
    let fallback = match (rest, rest.get(..2)) {
        ("", _) => None,
        (_, Some(":-")) => Some(Ok(&rest[2..])),
        (_, Some(":?")) => Some(Err(&rest[2..])),
        _ => return Err(malformed(inside)),
    };
    if !env.is_known() {
        return Ok(None);
    }
    // As in a shell: with `:-` and `:?` an empty variable counts as unset.
    let value = env.var(name).filter(|value| fallback.is_none() || !value.is_empty());
    match (value, fallback) {
        (Some(value), _) => Ok(Some(value)),
        (None, Some(Ok(default))) => Ok(Some(default.to_owned())),
        (None, Some(Err(why))) if !why.is_empty() => {
            Err((format!("${{{name}}} is not set or empty: {why}"), set_it(name)))
        }
        (None, Some(Err(_))) => Err((format!("${{{name}}} is not set or empty"), set_it(name))),
        (None, None) => Err((format!("${{{name}}} is not set"), set_it(name))),
    }
}

fn set_it(name: &str) -> String {
    format!("set the variable {name}, or write ${{{name}:-default}}")
}

fn malformed(inside: &str) -> (String, String) {
    // Only the name is shown: what follows may be a default that is a secret.
    let name = inside.split([':', '-', '?', '=', ' ']).next().unwrap_or_default();
    let help = "write ${VAR}, ${VAR:-default}, ${VAR:?why} or ${file:/path}; for a plain `${` write `$${`".to_owned();
    (format!("{} cannot be expanded", shown(&format!("${{{name}…}}"))), help)
}

/// A file's text without its last line feed.
fn file(
    path: &str,
    base: &Path,
    env: &dyn Environment,
    files: &mut Vec<(PathBuf, Option<Digest>)>,
) -> Result<Option<String>, (String, String)> {
    if !env.is_known() {
        return Ok(None);
    }
    let trouble = |why: String| {
        let help = "check the path and who may read it; a relative path starts at this file's folder".to_owned();
        (format!("the file {} cannot be read: {why}", shown(path)), help)
    };
    let whole = base.join(path);
    let read = env.read_file(&whole);
    files.push((whole, read.as_ref().ok().map(|bytes| digest(bytes))));
    let bytes = read.map_err(|error| trouble(error.to_string()))?;
    let mut text = String::from_utf8(bytes).map_err(|_| trouble("it is not UTF-8".to_owned()))?;
    if text.ends_with('\n') {
        text.pop();
    }
    if text.ends_with('\r') {
        text.pop();
    }
    Ok(Some(text))
}

/// The largest file a configuration may name, 1 MiB.
const FILE_MAX: usize = 1 << 20;
/// All that the scalars of a file may expand to, 64 MiB.
const EXPANDED_MAX: usize = 64 << 20;
