//! The last things that happened in a world, to be told if it breaks.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// What happened last. It is told often and hardly ever printed, so words and numbers meet only then.
#[derive(Debug, Default)]
pub struct Story(VecDeque<(Duration, &'static str, [u64; 3])>);

// === impl Story ===

impl Story {
    /// Something happened. Each `{}` in `what` stands for one of the numbers.
    pub fn note(&mut self, at: Duration, what: &'static str, numbers: [u64; 3]) {
        if self.0.len() == LENGTH {
            self.0.pop_front();
        }
        self.0.push_back((at, what, numbers));
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, what, numbers) in &self.0 {
            let said = numbers.iter().fold((*what).to_owned(), |said, number| said.replacen("{}", &number.to_string(), 1));
            writeln!(f, "{:>11.6} s  {said}", at.as_secs_f64())?;
        }
        Ok(())
    }
}

/// How much is remembered.
const LENGTH: usize = 100;
