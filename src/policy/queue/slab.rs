//! Values at numbers that stay the same while the value is there. A number that became vacant is used again, so that a
//! table which has reached its size allocates nothing more.

use std::ops::{Index, IndexMut};

/// A table of values by number.
#[derive(Debug)]
pub(super) struct Slab<T> {
    entries: Vec<Option<T>>,
    /// Numbers without a value, the one to be used next at the end.
    vacant: Vec<u32>,
}

// === impl Slab ===

impl<T> Slab<T> {
    pub(super) fn new() -> Self {
        Slab { entries: Vec::new(), vacant: Vec::new() }
    }

    /// Keeps `value` and says at which number. There may be as many as fit a `u32`; the caller sees to that.
    pub(super) fn insert(&mut self, value: T) -> u32 {
        if let Some(number) = self.vacant.pop() {
            self.entries[number as usize] = Some(value);
            return number;
        }
        self.entries.push(Some(value));
        self.entries.len() as u32 - 1
    }

    /// Takes the value at `number` out, where there must be one.
    pub(super) fn remove(&mut self, number: u32) -> T {
        self.vacant.push(number);
        // As for `index`.
        self.entries[number as usize].take().expect("a value at this number")
    }

    pub(super) fn get(&self, number: u32) -> Option<&T> {
        self.entries.get(number as usize)?.as_ref()
    }

    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.vacant.len()
    }

    /// Every value with its number.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(&self.entries).filter_map(|(number, entry)| Some((number, entry.as_ref()?)))
    }
}

// === impl Index ===

impl<T> Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, number: u32) -> &T {
        // Whoever holds a number holds it no longer than the value is there.
        self.entries[number as usize].as_ref().expect("a value at this number")
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, number: u32) -> &mut T {
        // As for `index`.
        self.entries[number as usize].as_mut().expect("a value at this number")
    }
}
