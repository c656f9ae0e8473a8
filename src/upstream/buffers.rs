//! What waits may hold in memory: one bound, `memory.buffers`, shared by all pools so that none can take it all.
//!
//! A pool may hold at most as much as is still free. One pool alone gets half of it; two that want everything get a third
//! each, and a third stays free; whoever comes next finds room at once. No pool has to be told its part, and none can keep
//! another from getting one. That is the dynamic threshold of Choudhury and Hahne, "Dynamic Queue Length Thresholds for
//! Shared-Memory Packet Switches" (IEEE/ACM Transactions on Networking 6(2), 1998), with a factor of one.
//!
//! What a pool may still hold is shared by its clients in the same way: one may hold at most as much as is left of it. One
//! client alone gets a third of everything, two of one pool get a fifth each, and the next finds as much.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The bytes that all pools may hold together.
#[derive(Debug)]
pub struct Buffers {
    /// `memory.buffers`, in bytes.
    total: AtomicUsize,
    /// Bytes held now.
    used: AtomicUsize,
}

/// What one pool, or one client, holds of them.
#[derive(Debug, Default)]
pub struct Part {
    used: AtomicUsize,
}

/// Bytes that are held until this is dropped.
#[derive(Debug)]
pub struct Held {
    buffers: Arc<Buffers>,
    part: Arc<Part>,
    /// The client's, where it is known.
    own: Option<Arc<Part>>,
    bytes: usize,
}

// === impl Buffers ===

impl Buffers {
    /// This many bytes, all free.
    #[must_use]
    pub fn new(total: usize) -> Arc<Self> {
        Arc::new(Buffers { total: AtomicUsize::new(total), used: AtomicUsize::new(0) })
    }

    /// Another bound, from now on. What is held beyond a smaller one stays held.
    pub fn set_total(&self, total: usize) {
        self.total.store(total, Ordering::Relaxed);
    }

    /// `bytes` for the pool that `part` belongs to; `None` where that is more than is still free, or would make the pool
    /// hold more than that.
    #[must_use]
    pub fn take(self: &Arc<Self>, bytes: usize, part: &Arc<Part>) -> Option<Held> {
        self.hold(bytes, part, None)
    }

    /// The same for a client that holds `own` of them; `None` also where that is more than its pool may still hold.
    #[must_use]
    pub fn take_for(self: &Arc<Self>, bytes: usize, part: &Arc<Part>, own: &Arc<Part>) -> Option<Held> {
        self.hold(bytes, part, Some(Arc::clone(own)))
    }

    fn hold(self: &Arc<Self>, bytes: usize, part: &Arc<Part>, own: Option<Arc<Part>>) -> Option<Held> {
        let mut held = Held { buffers: Arc::clone(self), part: Arc::clone(part), own, bytes: 0 };
        held.grow(bytes).then_some(held)
    }

    /// Bytes held now, by all pools.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn reserve(&self, bytes: usize, part: &Part, own: Option<&Part>) -> bool {
        let total = self.total.load(Ordering::Relaxed);
        if bytes > total {
            return false;
        }
        // The pool's own part first: where two of one pool come at once, both are counted when either looks.
        let in_pool = part.add(bytes);
        let its_own = own.map_or(0, |own| own.add(bytes));
        let fits = |used: usize| {
            let free = total.checked_sub(used)?;
            let left = free.checked_sub(in_pool)?;
            (bytes <= free && its_own <= left).then(|| used + bytes)
        };
        let taken = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).is_ok();
        if !taken {
            [Some(part), own].into_iter().flatten().for_each(|part| part.subtract(bytes));
        }
        taken
    }
}

// === impl Part ===

impl Part {
    /// Bytes it holds now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Adds to them, and says how many they are then.
    fn add(&self, bytes: usize) -> usize {
        self.used.fetch_add(bytes, Ordering::AcqRel) + bytes
    }

    fn subtract(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
    }
}

// === impl Held ===

impl Held {
    /// Holds `bytes` more; false, and nothing has changed, where they cannot be had.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        let grown = self.buffers.reserve(bytes, &self.part, self.own.as_deref());
        if grown {
            self.bytes += bytes;
        }
        grown
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        [Some(&self.part), self.own.as_ref()].into_iter().flatten().for_each(|part| part.subtract(self.bytes));
        self.buffers.used.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_pool_alone_gets_half_and_leaves_room_for_the_next() {
        let (buffers, one, other) = (Buffers::new(1200), Arc::default(), Arc::default());
        let mut all = buffers.take(400, &one).expect("free");
        assert!(all.grow(200), "half of it");
        assert!(!all.grow(1), "it held more than is free");
        assert_eq!((all.bytes(), one.used(), buffers.used()), (600, 600, 600));
        let next = buffers.take(300, &other).expect("what the first had to leave");
        assert!(buffers.take(1, &other).is_none(), "300 are free, and it holds 300");
        drop(all);
        assert!(buffers.take(300, &other).is_some());
        drop(next);
        assert_eq!((one.used(), other.used(), buffers.used()), (0, 0, 0));
    }

    #[test]
    fn a_client_alone_gets_a_third_and_leaves_room_for_the_next_of_its_pool() {
        let (buffers, pool, [one, other]) = (Buffers::new(1200), Arc::default(), <[Arc<Part>; 2]>::default());
        let mut all = buffers.take_for(300, &pool, &one).expect("free");
        assert!(all.grow(100) && !all.grow(101), "it held more than is left of what the pool may hold");
        assert_eq!((one.used(), pool.used(), buffers.used()), (400, 400, 400));
        let next = buffers.take_for(200, &pool, &other).expect("what the first had to leave");
        assert!(buffers.take_for(1, &pool, &one).is_none());
        drop((all, next));
        assert_eq!((one.used(), other.used(), pool.used(), buffers.used()), (0, 0, 0, 0));
    }

    #[test]
    fn what_is_beyond_a_smaller_bound_stays_and_nothing_comes_to_it() {
        let (buffers, pool) = (Buffers::new(1000), Arc::default());
        let held = buffers.take(400, &pool).expect("free");
        buffers.set_total(100);
        assert!(buffers.take(0, &pool).is_none());
        drop(held);
        assert!(buffers.take(50, &pool).is_some());
    }

    #[test]
    fn sizes_that_no_memory_has_are_refused() {
        let (buffers, pool) = (Buffers::new(1000), Arc::default());
        let held = buffers.take(10, &pool).expect("free");
        assert!(buffers.take(usize::MAX, &pool).is_none());
        assert_eq!((pool.used(), buffers.used()), (10, 10));
        drop(held);
    }

    proptest! {
        #[test]
        fn no_pool_ever_takes_what_the_bound_leaves_free(wants in prop::collection::vec((0..4usize, 1..400usize), 1..60)) {
            let buffers = Buffers::new(1000);
            let parts: [Arc<Part>; 4] = Default::default();
            let mut held = Vec::new();
            for (pool, bytes) in wants {
                let free = 1000 - buffers.used();
                let fits = bytes <= free && parts[pool].used() + bytes <= free;
                let taken = buffers.take(bytes, &parts[pool]);
                prop_assert_eq!(taken.is_some(), fits);
                held.extend(taken);
                prop_assert_eq!(buffers.used(), parts.iter().map(|part| part.used()).sum::<usize>());
            }
            drop(held);
            prop_assert_eq!(buffers.used(), 0);
        }
    }
}
