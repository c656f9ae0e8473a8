//! What happens now, on standard error.

use crate::process::now;
use sluice::instant::Instant;
use std::io::{IsTerminal, Write};

/// A line that is rewritten on a terminal; elsewhere one line a chapter.
#[derive(Debug)]
pub(crate) struct Progress {
    terminal: bool,
    began: Instant,
    chapter: String,
}

// === impl Progress ===

impl Progress {
    /// Nothing shown yet.
    pub(crate) fn new() -> Progress {
        Progress { terminal: std::io::stderr().is_terminal(), began: now(), chapter: String::new() }
    }

    /// Shows `text`; what stands before its colon is the chapter.
    pub(crate) fn step(&mut self, text: &str) {
        let seconds = (now() - self.began).as_secs();
        let chapter = text.split(':').next().unwrap_or(text);
        if self.terminal {
            // Progress that cannot be shown is no reason to stop measuring.
            let _ = write!(std::io::stderr(), "\r\x1b[K[{seconds:>4} s] {text}");
        } else if chapter != self.chapter {
            eprintln!("[{seconds:>4} s] {chapter}");
        }
        chapter.clone_into(&mut self.chapter);
    }

    /// Leaves `text` standing.
    pub(crate) fn note(&mut self, text: &str) {
        self.clear();
        eprintln!("{text}");
    }

    /// Takes the line away.
    pub(crate) fn clear(&mut self) {
        if self.terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
