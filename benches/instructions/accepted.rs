//! The counts that were accepted last, in a file beside this one, and how far above them is too far.

use crate::{ACCEPT, Outcome};
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// What was accepted last.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// What it was counted with.
    pub(crate) toolchain: String,
    counts: BTreeMap<String, f64>,
}

/// What a count is beside what was accepted.
#[derive(Debug)]
pub(crate) enum Judged {
    /// Nothing was accepted for it.
    Unknown,
    /// It is above the ceiling.
    Over { accepted: f64, change: f64 },
    /// It is not.
    Within { accepted: f64, change: f64 },
}

// === impl Accepted ===

impl Accepted {
    /// Reads the file.
    pub(crate) fn read() -> Outcome<Accepted> {
        let file = file();
        let text = fs::read_to_string(&file)
            .map_err(|error| format!("cannot read {}: {error}; write it: {ACCEPT}", file.display()))?;
        let mut accepted = Accepted { toolchain: String::new(), counts: BTreeMap::new() };
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let wrong = || format!("{}: cannot read `{line}`; write it anew: {ACCEPT}", file.display());
            let (name, value) = line.split_once(" = ").ok_or_else(wrong)?;
            if name == TOOLCHAIN {
                value.trim_matches('"').clone_into(&mut accepted.toolchain);
            } else {
                accepted.counts.insert(name.trim_matches('"').to_owned(), value.parse().map_err(|_| wrong())?);
            }
        }
        Ok(accepted)
    }

    /// What there is a ceiling for.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.counts.keys().map(String::as_str)
    }

    /// Compares a count with what was accepted.
    pub(crate) fn judge(&self, name: &str, count: f64) -> Judged {
        let Some(&accepted) = self.counts.get(name) else { return Judged::Unknown };
        let change = count / accepted - 1.0;
        if count > ceiling(accepted) { Judged::Over { accepted, change } } else { Judged::Within { accepted, change } }
    }
}

// === impl Judged ===

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (accepted, change, verdict) = match *self {
            Judged::Unknown => return write!(f, "{:>12} {:>12} {:>8}  NEW", "", "", ""),
            Judged::Over { accepted, change } => (accepted, change, "  TOO MANY"),
            Judged::Within { accepted, change } if change < -SLACK => {
                (accepted, change, "  fewer: accept it, to keep it")
            }
            Judged::Within { accepted, change } => (accepted, change, ""),
        };
        write!(f, "{accepted:>12.1} {:>12.1} {:>+7.1}%{verdict}", ceiling(accepted), change * 100.0)
    }
}

/// Writes the file.
pub(crate) fn write(toolchain: &str, counted: &[(&str, f64)]) -> Outcome<()> {
    let lines = counted.iter().map(|(name, count)| format!("\"{name}\" = {count:.1}\n"));
    let text = format!("{HEADING}\n{TOOLCHAIN} = \"{toolchain}\"\n{}", lines.collect::<String>());
    Ok(fs::write(file(), text)?)
}

/// The most that may be counted where this was accepted.
fn ceiling(accepted: f64) -> f64 {
    accepted * (1.0 + SLACK)
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions/accepted.toml")
}

/// How far above what was accepted a count may be. Counts of the same code repeat to within a tenth of this; what it leaves
/// room for is that the compiler lays the same function out otherwise when its neighbours change.
const SLACK: f64 = 0.03;

const TOOLCHAIN: &str = "toolchain";

const HEADING: &str = "\
# User instructions of each step on a request's way, as last accepted. `./test` fails where one takes 3 % more.
# Written by: cargo bench --profile guard --bench instructions -- --accept
";
