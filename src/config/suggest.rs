//! "Did you mean …?"

/// Comparisons left, so that a file full of wrong names stays cheap.
#[derive(Debug)]
pub(super) struct Suggest {
    left: usize,
}

// === impl Suggest ===

impl Suggest {
    pub(super) fn new() -> Self {
        Suggest { left: COMPARISONS_MAX }
    }

    /// Whether there is time for a search as long as `comparisons`.
    pub(super) fn may_compare(&mut self, comparisons: usize) -> bool {
        let left = self.left.checked_sub(comparisons);
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }

    /// The candidate most like `word`, if one is like it at all. The first wins a tie.
    pub(super) fn nearest<'a>(&mut self, word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
        if word.len() > WORD_MAX {
            return None;
        }
        let word = fold(word);
        let allowed = (word.chars().count() / 3).max(1);
        let mut best: Option<(usize, &str)> = None;
        for candidate in candidates {
            if self.left == 0 {
                break;
            }
            self.left -= 1;
            if candidate.len().abs_diff(word.len()) > allowed || candidate.len() > WORD_MAX {
                continue;
            }
            let distance = distance(&word, &fold(candidate));
            if distance <= allowed && best.is_none_or(|(least, _)| distance < least) {
                best = Some((distance, candidate));
            }
        }
        best.filter(|(distance, _)| *distance < word.chars().count()).map(|(_, candidate)| candidate)
    }
}

/// `helthCheck`, `helth-check` and `helth_check` are the same slip.
fn fold(word: &str) -> String {
    word.chars().filter(|c| !matches!(c, '-' | '_')).flat_map(char::to_lowercase).collect()
}

/// Letters to insert, remove, replace or swap with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut steps = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                steps = steps.min(before[j - 2] + 1);
            }
            row.push(steps);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

/// Comparisons for one file.
const COMPARISONS_MAX: usize = 200_000;
/// The longest word worth comparing.
const WORD_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_the_word_that_was_meant_and_a_stranger_finds_none() {
        let words = ["health_check", "headers", "host", "url"];
        let nearest = |word| Suggest::new().nearest(word, words.into_iter());
        assert_eq!(nearest("helth_check"), Some("health_check"));
        assert_eq!(nearest("healthCheck"), Some("health_check"));
        assert_eq!(nearest("hots"), Some("host"));
        assert_eq!(nearest("banana"), None);
        assert_eq!(nearest("x"), None);
    }
}
