//! Connections that wait for their next request.
//!
//! A stack: the connection used last is used next. It is the one most likely to be alive still, its congestion window is
//! the warmest, and those a lull leaves over sink to the bottom and expire, which a queue would keep alive in turn. Bounded
//! by number and by time: when it is full the one that waited longest makes way.
//!
//! Each worker has a stack of its own per provider, so that taking a connection crosses no thread. What that multiplies: up
//! to `workers × connections.idle` sockets may be idle towards one provider.
//!
//! Nothing here reads a clock or a socket. Whether the peer has hung up in the meantime is for the user to see.

use crate::config::ProviderConnections;
use crate::instant::Instant;
use std::collections::VecDeque;
use std::time::Duration;

/// Idle connections of one worker to one provider, the latest on top.
#[derive(Debug)]
pub struct Idle<T> {
    /// The one that has waited longest is in front.
    waiting: VecDeque<Waiting<T>>,
    limit: usize,
    max_age: Duration,
}

#[derive(Debug)]
struct Waiting<T> {
    connection: T,
    born: Instant,
    /// Not used from this instant on.
    until: Instant,
}

// === impl Idle ===

impl<T> Idle<T> {
    /// Empty, with the bounds of `limits`. Nothing is allocated before the first [`Idle::put`].
    #[must_use]
    pub fn new(limits: &ProviderConnections) -> Self {
        Idle { waiting: VecDeque::new(), limit: limits.idle, max_age: limits.max_age }
    }

    /// Keeps `connection`, opened at `born`, for `keep` or until it is too old, whichever is first.
    ///
    /// It is dropped at once where no time is left or nothing may be kept. Where the stack is full, the connection that
    /// has waited longest is dropped for it.
    pub fn put(&mut self, connection: T, born: Instant, now: Instant, keep: Duration) {
        let until = crate::clock::after(now, keep).min(crate::clock::after(born, self.max_age));
        if self.limit == 0 || until <= now {
            return;
        }
        while self.waiting.len() >= self.limit {
            self.waiting.pop_front();
        }
        self.waiting.push_back(Waiting { connection, born, until });
    }

    /// The connection put last that may still be used, and when it was opened. Expired ones above it are dropped.
    pub fn take(&mut self, now: Instant) -> Option<(T, Instant)> {
        while let Some(top) = self.waiting.pop_back() {
            if now < top.until {
                return Some((top.connection, top.born));
            }
        }
        None
    }

    /// Drops what has expired and says when the next one will; `None` if nothing is left.
    pub fn expire(&mut self, now: Instant) -> Option<Instant> {
        self.waiting.retain(|waiting| now < waiting.until);
        self.waiting.iter().map(|waiting| waiting.until).min()
    }

    /// How many wait, expired ones that nobody has dropped yet included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    /// A connection that writes its number down when it is closed.
    struct Connection(u32, Rc<RefCell<Vec<u32>>>);

    impl Drop for Connection {
        fn drop(&mut self) {
            self.1.borrow_mut().push(self.0);
        }
    }

    fn limits(idle: usize, max_age: u64) -> ProviderConnections {
        let (idle_timeout, max_age) = (Duration::from_mins(1), Duration::from_secs(max_age));
        ProviderConnections { idle, idle_timeout, max_age, streams: 100, ping: None }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_connection_put_last_is_taken_first_with_its_birth() {
        let start = crate::clock::now();
        let mut idle = Idle::new(&limits(8, 3600));
        idle.put('a', start, start + seconds(1), seconds(60));
        idle.put('b', start + seconds(1), start + seconds(2), seconds(60));
        assert_eq!(idle.take(start + seconds(3)), Some(('b', start + seconds(1))));
        assert_eq!(idle.take(start + seconds(3)), Some(('a', start)));
        assert_eq!(idle.take(start + seconds(3)), None);
    }

    #[test]
    fn a_full_stack_closes_the_connection_that_waited_longest() {
        let (start, closed) = (crate::clock::now(), Rc::default());
        let mut idle = Idle::new(&limits(2, 3600));
        for number in 1..=3 {
            idle.put(Connection(number, Rc::clone(&closed)), start, start, seconds(60));
        }
        assert_eq!(*closed.borrow(), [1]);
        assert_eq!(idle.len(), 2);
    }

    #[test]
    fn a_connection_is_gone_at_the_instant_its_time_is_up() {
        let start = crate::clock::now();
        let mut idle = Idle::new(&limits(8, 3600));
        idle.put('a', start, start, seconds(10));
        assert_eq!(idle.expire(start + Duration::from_nanos(9_999_999_999)), Some(start + seconds(10)));
        assert_eq!(idle.expire(start + seconds(10)), None);
        assert!(idle.is_empty());
    }

    #[test]
    fn age_ends_a_connection_before_its_idle_time_does() {
        let start = crate::clock::now();
        let mut idle = Idle::new(&limits(8, 100));
        idle.put('a', start, start + seconds(95), seconds(60));
        assert_eq!(idle.expire(start + seconds(95)), Some(start + seconds(100)));
        assert_eq!(idle.take(start + seconds(100)), None);
        idle.put('b', start, start + seconds(100), seconds(60));
        assert!(idle.is_empty(), "too old to be kept at all");
    }

    #[test]
    fn a_limit_of_zero_keeps_nothing() {
        let (start, closed) = (crate::clock::now(), Rc::default());
        let mut idle = Idle::new(&limits(0, 3600));
        idle.put(Connection(1, Rc::clone(&closed)), start, start, seconds(60));
        assert_eq!(*closed.borrow(), [1]);
        assert!(idle.is_empty());
    }

    #[test]
    fn a_time_that_cannot_be_represented_means_for_ever() {
        let start = crate::clock::now();
        let mut idle =
            Idle::new(&ProviderConnections { idle_timeout: Duration::MAX, max_age: Duration::MAX, ..limits(1, 0) });
        idle.put('a', start, start, Duration::MAX);
        assert_eq!(idle.take(start + seconds(365 * 24 * 3600)), Some(('a', start)));
    }

    #[derive(Debug, Clone)]
    enum Act {
        Put { age: u64, keep: u64 },
        Take,
        Expire,
        Pass(u64),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            3 => (0..40u64, 0..20u64).prop_map(|(age, keep)| Act::Put { age, keep }),
            2 => Just(Act::Take),
            1 => Just(Act::Expire),
            2 => (1..10u64).prop_map(Act::Pass),
        ]
    }

    /// What one connection of the model is: its number, when it was born, when it ends.
    type Kept = (u32, Instant, Instant);

    proptest! {
        #[test]
        fn it_behaves_like_a_plain_list_and_closes_exactly_what_it_does_not_keep(
            limit in 0..5usize,
            acts in proptest::collection::vec(act(), 1..80),
        ) {
            let start = crate::clock::now();
            let mut passed = 40;
            let closed = Rc::new(RefCell::new(Vec::new()));
            let mut idle = Idle::new(&limits(limit, 30));
            let mut model: Vec<Kept> = Vec::new();
            let mut number = 0;
            for act in acts {
                let now = start + seconds(passed);
                match act {
                    Act::Pass(span) => passed += span,
                    Act::Put { age, keep } => {
                        number += 1;
                        let born = start + seconds(passed - age);
                        idle.put(Connection(number, Rc::clone(&closed)), born, now, seconds(keep));
                        let ends = (now + seconds(keep)).min(born + seconds(30));
                        if limit > 0 && ends > now {
                            // What has expired unseen still holds its place until it is met.
                            model.push((number, born, ends));
                            if model.len() > limit {
                                model.remove(0);
                            }
                        }
                    }
                    Act::Take => {
                        while model.last().is_some_and(|&(.., ends)| ends <= now) {
                            model.pop();
                        }
                        let expected = model.pop().map(|(number, born, _)| (number, born));
                        let taken = idle.take(now).map(|(connection, born)| (connection.0, born));
                        prop_assert_eq!(taken, expected);
                    }
                    Act::Expire => {
                        model.retain(|&(.., ends)| ends > now);
                        let next = model.iter().map(|&(.., ends)| ends).min();
                        prop_assert_eq!(idle.expire(now), next);
                    }
                }
                prop_assert!(idle.len() <= limit);
                prop_assert_eq!(idle.len(), model.len());
                let open: Vec<u32> = (1..=number).filter(|number| !closed.borrow().contains(number)).collect();
                let mut kept: Vec<u32> = model.iter().map(|&(number, ..)| number).collect();
                kept.sort_unstable();
                prop_assert_eq!(open, kept, "what is not kept is closed, and nothing else");
            }
        }
    }
}
