//! The last things that happened in a world, to be told if it breaks.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// What happened last. It is told often and hardly ever printed, so words and numbers meet only then.
#[derive(Debug, Default)]
pub struct Story(VecDeque<(Duration, &'static str, [Word; 3])>);

/// What stands for a `{}`.
#[derive(Debug, Clone, Copy, Default)]
pub enum Word {
    #[default]
    Nothing,
    Number(u64),
    Text(&'static str),
}

// === impl Story ===

impl Story {
    /// Something happened. Each `{}` in `what` stands for one of the words.
    pub fn note(&mut self, at: Duration, what: &'static str, words: [Word; 3]) {
        if self.0.len() == LENGTH {
            self.0.pop_front();
        }
        self.0.push_back((at, what, words));
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, what, words) in &self.0 {
            let said = words.iter().fold((*what).to_owned(), |said, word| said.replacen("{}", &word.to_string(), 1));
            writeln!(f, "{:>11.6} s  {said}", at.as_secs_f64())?;
        }
        Ok(())
    }
}

// === impl Word ===

impl From<usize> for Word {
    fn from(number: usize) -> Self {
        Word::Number(number as u64)
    }
}

impl From<u64> for Word {
    fn from(number: u64) -> Self {
        Word::Number(number)
    }
}

impl From<&'static str> for Word {
    fn from(text: &'static str) -> Self {
        Word::Text(text)
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Word::Nothing => Ok(()),
            Word::Number(number) => number.fmt(f),
            Word::Text(text) => f.write_str(text),
        }
    }
}

/// How much is remembered.
const LENGTH: usize = 100;
