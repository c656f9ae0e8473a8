//! Tables for a terminal and for a README.

use std::fmt::Write as _;
use std::io::IsTerminal;

/// Cells in rows; the first two columns hold words, the others figures, or words where all their cells are.
pub(crate) struct Table {
    /// Above it.
    pub(crate) title: String,
    /// Of the columns.
    pub(crate) header: Vec<String>,
    /// As many cells each as the header has.
    pub(crate) rows: Vec<Vec<Cell>>,
}

pub(crate) struct Cell {
    /// What stands there.
    pub(crate) text: String,
    /// Its colour.
    pub(crate) tone: Tone,
}

/// How sure it is that a ratio is good or bad.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Tone {
    Plain,
    /// The whole interval is below 1.
    Better,
    /// The whole interval is above 1.
    Worse,
}

/// What a run shows: tables, where they come from, and what to know before believing them.
pub(crate) struct Page<'a> {
    /// Names and values.
    pub(crate) facts: &'a [(&'static str, String)],
    /// Those without rows are left out.
    pub(crate) tables: Vec<Table>,
    /// Below it all.
    pub(crate) warnings: &'a [String],
}

// === impl Page ===

impl Page<'_> {
    /// For a terminal.
    pub(crate) fn plain(&self, colour: bool) -> String {
        let mut text = String::from("\n");
        for (name, value) in self.facts {
            let _ = writeln!(text, "{name:<12} {value}");
        }
        for table in self.tables() {
            let _ = write!(text, "\n{}", table.plain(colour));
        }
        for warning in self.warnings {
            let _ = write!(text, "\nwarning: {warning}");
        }
        if !self.warnings.is_empty() {
            text.push('\n');
        }
        text
    }

    /// For a README.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        for table in self.tables() {
            let _ = writeln!(text, "{}", table.markdown());
        }
        let facts: Vec<String> = self.facts.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let _ = writeln!(text, "{}.", facts.join("; "));
        for warning in self.warnings {
            let _ = writeln!(text, "\nWarning: {warning}.");
        }
        text
    }

    fn tables(&self) -> impl Iterator<Item = &Table> {
        self.tables.iter().filter(|table| !table.rows.is_empty())
    }
}

// === impl Table ===

impl Table {
    /// For a terminal.
    pub(crate) fn plain(&self, colour: bool) -> String {
        let widths: Vec<usize> = (0..self.header.len()).map(|column| self.width(column)).collect();
        let mut text = format!("{}\n", paint(&self.title, "1", colour));
        let header: Vec<String> =
            self.header.iter().zip(&widths).enumerate().map(|(at, (cell, width))| self.pad(cell, at, *width)).collect();
        let _ = writeln!(text, "{}", paint(header.join("  ").trim_end(), "2", colour));
        let mut last = "";
        for row in &self.rows {
            let mut cells = Vec::new();
            for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
                // A workload is named once, above its contenders' figures.
                let shown = if at == 0 && cell.text == last { "" } else { &cell.text };
                cells.push(paint(&self.pad(shown, at, *width), cell.tone.code(), colour));
            }
            last = &row[0].text;
            let _ = writeln!(text, "{}", cells.join("  ").trim_end());
        }
        text
    }

    /// For a README.
    pub(crate) fn markdown(&self) -> String {
        let rule: Vec<&str> =
            (0..self.header.len()).map(|at| if self.has_words(at) { "---" } else { "---:" }).collect();
        let mut text = format!("{}:\n\n| {} |\n| {} |\n", self.title, self.header.join(" | "), rule.join(" | "));
        for row in &self.rows {
            let cells: Vec<&str> = row.iter().map(|cell| cell.text.as_str()).collect();
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        }
        text
    }

    /// Whether a column is aligned left.
    fn has_words(&self, column: usize) -> bool {
        let mut cells = self.rows.iter().map(|row| row[column].text.as_str());
        column < FIRST_WORDS || cells.all(|text| text.starts_with(char::is_alphabetic))
    }

    fn pad(&self, text: &str, column: usize, width: usize) -> String {
        if self.has_words(column) { format!("{text:<width$}") } else { format!("{text:>width$}") }
    }

    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().map(|row| row[column].text.chars().count());
        cells.chain([self.header[column].chars().count()]).max().unwrap_or(0)
    }
}

// === impl Tone ===

impl Tone {
    /// The terminal's code for it.
    fn code(self) -> &'static str {
        match self {
            Tone::Plain => "",
            Tone::Better => "32",
            Tone::Worse => "33",
        }
    }
}

// === small things ===

/// Colours on a terminal, unless `NO_COLOR` is set to something.
pub(crate) fn colour_wanted() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A cell without a colour.
pub(crate) fn plain(text: impl Into<String>) -> Cell {
    Cell { text: text.into(), tone: Tone::Plain }
}

/// `19300.4` as `19,300`.
pub(crate) fn thousands(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value <= -0.5 { format!("-{text}") } else { text }
}

/// Text as XML takes it.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn paint(text: &str, code: &str, colour: bool) -> String {
    if colour && !code.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Columns of words that every table begins with.
const FIRST_WORDS: usize = 2;
