//! Who has the least key, where keys change all the time: a binary heap that knows where everybody is in it.

/// Numbers with a key each; the least comes first. Setting and removing cost `O(log n)`, nothing is allocated once it has
/// reached its size.
#[derive(Debug)]
pub(super) struct Ranking<K> {
    /// No entry has a lesser key than the one at half its place.
    heap: Vec<(K, u32)>,
    /// Where in `heap` each number is, or [`NOWHERE`].
    place_of: Vec<usize>,
}

// === impl Ranking ===

impl<K: Ord + Copy> Ranking<K> {
    pub(super) fn new() -> Self {
        Ranking { heap: Vec::new(), place_of: Vec::new() }
    }

    /// The least key and whose it is.
    pub(super) fn first(&self) -> Option<(K, u32)> {
        self.heap.first().copied()
    }

    /// Gives `number` this key, whether or not it had one.
    pub(super) fn set(&mut self, number: u32, key: K) {
        let number_at = number as usize;
        if number_at >= self.place_of.len() {
            self.place_of.resize(number_at + 1, NOWHERE);
        }
        let mut place = self.place_of[number_at];
        if place == NOWHERE {
            place = self.heap.len();
            self.heap.push((key, number));
        }
        self.heap[place].0 = key;
        self.settle(place);
    }

    /// Takes `number` out, if it is there.
    pub(super) fn remove(&mut self, number: u32) {
        let Some(place) = self.place_of.get_mut(number as usize) else { return };
        let place = std::mem::replace(place, NOWHERE);
        if place != NOWHERE {
            self.heap.swap_remove(place);
            if place < self.heap.len() {
                self.settle(place);
            }
        }
    }

    /// Moves the entry at `place`, the only one that may be out of order, to where it belongs.
    fn settle(&mut self, mut place: usize) {
        while place > 0 && self.heap[place].0 < self.heap[(place - 1) / 2].0 {
            place = self.swap(place, (place - 1) / 2);
        }
        loop {
            let below = (2 * place + 1..2 * place + 3).filter(|&below| below < self.heap.len());
            match below.min_by_key(|&below| self.heap[below].0) {
                Some(least) if self.heap[least].0 < self.heap[place].0 => place = self.swap(place, least),
                _ => break,
            }
        }
        self.place_of[self.heap[place].1 as usize] = place;
    }

    /// Exchanges two entries, notes where the other one is now, and says where the first one is.
    fn swap(&mut self, place: usize, other: usize) -> usize {
        self.heap.swap(place, other);
        self.place_of[self.heap[place].1 as usize] = place;
        other
    }
}

/// The place of a number without a key.
const NOWHERE: usize = usize::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn it_agrees_with_a_sorted_map(
            acts in proptest::collection::vec((0..40u32, proptest::option::of(0..30u32)), 1..300),
        ) {
            let mut ranking = Ranking::new();
            let mut model: BTreeMap<u32, u32> = BTreeMap::new();
            for (number, key) in acts {
                if let Some(key) = key {
                    ranking.set(number, (key, number));
                    model.insert(number, key);
                } else {
                    ranking.remove(number);
                    model.remove(&number);
                }
                let least = model.iter().map(|(&number, &key)| (key, number)).min();
                prop_assert_eq!(ranking.first(), least.map(|key| (key, key.1)));
                prop_assert_eq!(ranking.heap.len(), model.len());
            }
        }
    }
}
