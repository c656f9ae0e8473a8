//! Where the demo writes: a line that is redrawn on a terminal, plain lines anywhere else.

use std::io::{self, IsTerminal, Write};

/// Standard output, and what it can show.
pub(super) struct Screen {
    out: Box<dyn Write + Send>,
    redraws: bool,
    colours: bool,
    drawn: bool,
    closed: bool,
}

// === impl Screen ===

impl Screen {
    /// Looks at standard output, `TERM` and `NO_COLOR` (any text in it means no colour).
    pub(super) fn of_this_process() -> Self {
        let redraws = io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let colours = redraws && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Screen { out: Box::new(io::stdout()), redraws, colours, drawn: false, closed: false }
    }

    /// Whether whoever read our output has gone; there is nobody left to show anything.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Writes lines that stay.
    pub(super) fn say(&mut self, text: &str) {
        self.put(text, true);
    }

    /// Writes a heading that stays.
    pub(super) fn title(&mut self, text: &str) {
        let text = if self.colours { format!("\x1b[1;36m{text}\x1b[0m") } else { text.to_owned() };
        self.put(&text, true);
    }

    /// Writes a line that the next one replaces, where that can be done.
    pub(super) fn show(&mut self, text: &str) {
        self.put(text, !self.redraws);
    }

    fn put(&mut self, text: &str, stays: bool) {
        let start = if self.drawn { "\r\x1b[2K" } else { "" };
        let end = if stays { "\n" } else { "" };
        self.drawn = !stays;
        let written = write!(self.out, "{start}{text}{end}").and_then(|()| self.out.flush());
        self.closed |= written.is_err();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::sync::{Arc, Mutex, PoisonError};

    /// What a screen in memory was told.
    #[derive(Debug, Clone, Default)]
    pub(in super::super) struct Written(Arc<Mutex<Vec<u8>>>);

    // === impl Written ===

    impl Written {
        pub(in super::super) fn text(&self) -> String {
            String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
        }
    }

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Screen {
        pub(in super::super) fn in_memory() -> (Self, Written) {
            let written = Written::default();
            let out = Box::new(written.clone());
            (Screen { out, redraws: false, colours: false, drawn: false, closed: false }, written)
        }
    }

    #[test]
    fn a_shown_line_is_replaced_on_a_terminal_and_stays_elsewhere() {
        for (redraws, expected) in [(true, "a\r\x1b[2Kb\r\x1b[2Kc\nd\n"), (false, "a\nb\nc\nd\n")] {
            let (mut screen, written) = Screen::in_memory();
            screen.redraws = redraws;
            screen.show("a");
            screen.show("b");
            screen.say("c");
            screen.say("d");
            assert_eq!(written.text(), expected);
        }
    }

    #[test]
    fn a_reader_that_left_is_noticed() {
        let (mut screen, _) = Screen::in_memory();
        screen.out = Box::new(&mut [][..]);
        assert!(!screen.is_closed());
        screen.say("anyone?");
        assert!(screen.is_closed());
    }
}
