use super::*;
use crate::clock;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;
use std::time::Duration;

const DEFAULT: Terms = Terms { capacity: 1000, weights: [16, 4, 1], reserve_high: 0.1 };

fn terms(capacity: usize) -> Terms {
    Terms { capacity, reserve_high: 0.0, ..DEFAULT }
}

fn waiter(class: Class, client: u32) -> Waiter {
    Waiter { class, client, share: 1, bytes: 10, since: clock::now(), again: false }
}

fn retry(class: Class, client: u32) -> Waiter {
    Waiter { again: true, ..waiter(class, client) }
}

fn high(client: u32) -> Waiter {
    waiter(Class::High, client)
}

fn normal(client: u32) -> Waiter {
    waiter(Class::Normal, client)
}

fn low(client: u32) -> Waiter {
    waiter(Class::Low, client)
}

/// Offers what has to find a free place.
fn place<T>(queue: &mut Queue<T>, waiter: Waiter, item: T) -> Ticket {
    match queue.offer(waiter, item) {
        Offered::Placed(ticket) => ticket,
        _ => panic!("no free place for {waiter:?}"),
    }
}

/// Whose place it got; `None` if the newcomer was refused.
fn pushed_out(offered: Offered<&'static str>) -> Option<&'static str> {
    match offered {
        Offered::Placed(_) => panic!("there was a free place"),
        Offered::PlacedFor(_, evicted) => Some(evicted.item),
        Offered::Full(_) => None,
    }
}

fn all<T>(queue: &mut Queue<T>) -> Vec<T> {
    std::iter::from_fn(|| queue.take()).map(|(_, item)| item).collect()
}

/// The clients of the next `count` turns, each of which comes back at once with another request.
fn turns(queue: &mut Queue<()>, count: usize) -> Vec<u32> {
    let turn = |_| {
        let (waiter, ()) = queue.take().expect("somebody waits");
        place(queue, waiter, ());
        waiter.client
    };
    (0..count).map(turn).collect()
}

#[test]
fn one_client_is_served_in_the_order_it_came() {
    let mut queue = Queue::new(DEFAULT);
    for number in 0..100 {
        place(&mut queue, normal(7), number);
    }
    assert_eq!(queue.peek().map(|(_, number)| *number), Some(0));
    assert_eq!(all(&mut queue), (0..100).collect::<Vec<_>>());
    assert!(queue.peek().is_none());
}

#[test]
fn retries_of_a_client_go_before_what_it_has_not_tried_and_not_before_each_other() {
    let mut queue = Queue::new(DEFAULT);
    place(&mut queue, normal(1), "first");
    place(&mut queue, retry(Class::Normal, 1), "retry");
    place(&mut queue, normal(1), "second");
    place(&mut queue, retry(Class::Normal, 1), "another retry");
    place(&mut queue, normal(2), "of somebody else");
    assert_eq!(all(&mut queue), ["retry", "of somebody else", "another retry", "first", "second"]);
}

#[test]
fn clients_that_ask_once_are_served_in_the_order_they_came() {
    let mut queue = Queue::new(DEFAULT);
    for client in [5, 3, 9, 1, 7] {
        place(&mut queue, normal(client), client);
    }
    assert_eq!(all(&mut queue), [5, 3, 9, 1, 7]);
}

#[test]
fn classes_that_always_wait_have_turns_by_weight_and_low_has_its_one_in_each_round() {
    let mut queue = Queue::new(DEFAULT);
    for class in Class::ALL {
        place(&mut queue, waiter(class, class.index() as u32), ());
    }
    let rounds = turns(&mut queue, 21 * 50);
    for round in rounds.chunks(21) {
        let of = |class: Class| round.iter().filter(|&&client| client as usize == class.index()).count();
        assert_eq!(Class::ALL.map(of), [16, 4, 1]);
    }
}

#[test]
fn a_class_alone_has_every_turn_and_saves_nothing_up_for_those_that_come() {
    let mut queue = Queue::new(DEFAULT);
    place(&mut queue, low(2), ());
    assert_eq!(turns(&mut queue, 1000), [2; 1000]);
    place(&mut queue, high(0), ());
    let both = turns(&mut queue, 34);
    assert!(both[..2].contains(&0), "high waits for one turn of low at most: {both:?}");
    assert_eq!(both.iter().filter(|client| **client == 2).count(), 2, "{both:?}");
}

#[test]
fn clients_that_always_wait_have_turns_by_share() {
    let mut queue = Queue::new(DEFAULT);
    for client in 1..=3 {
        place(&mut queue, Waiter { share: client, ..normal(client) }, ());
    }
    for round in turns(&mut queue, 600).chunks(6) {
        assert_eq!(
            (1..=3).map(|client| round.iter().filter(|of| **of == client).count()).collect::<Vec<_>>(),
            [1, 2, 3]
        );
    }
}

#[test]
fn a_client_that_comes_back_after_a_while_has_no_credit() {
    let mut queue = Queue::new(DEFAULT);
    place(&mut queue, normal(1), ());
    place(&mut queue, normal(2), ());
    queue.take();
    turns(&mut queue, 1000);
    place(&mut queue, normal(1), ());
    assert_eq!(turns(&mut queue, 100).iter().filter(|client| **client == 1).count(), 50);
}

#[test]
fn a_client_that_has_one_request_at_a_time_gets_no_more_than_one_with_a_long_line() {
    let mut queue = Queue::new(DEFAULT);
    for _ in 0..200 {
        place(&mut queue, normal(1), ());
    }
    place(&mut queue, normal(2), ());
    let taken: Vec<u32> = turns(&mut queue, 100);
    assert_eq!(taken.iter().filter(|client| **client == 2).count(), 50, "{taken:?}");
}

#[test]
fn cancelling_and_asking_again_brings_no_turn_closer() {
    let mut queue = Queue::new(DEFAULT);
    place(&mut queue, normal(1), ());
    for _ in 0..100 {
        let ticket = place(&mut queue, normal(2), ());
        assert_eq!(queue.remove(ticket), Some(()));
    }
    place(&mut queue, normal(2), ());
    assert_eq!(turns(&mut queue, 4), [1, 2, 1, 2]);
}

#[test]
fn a_flood_of_more_urgent_work_leaves_a_class_its_part_of_the_places_and_so_its_turns() {
    let mut queue = Queue::new(Terms { capacity: 42, weights: [16, 4, 1], reserve_high: 0.0 });
    for _ in 0..42 {
        queue.offer(low(1), "low");
    }
    for _ in 0..100 {
        queue.offer(normal(2), "normal");
        queue.offer(high(3), "high");
    }
    assert_eq!(Class::ALL.map(|class| queue.depth(class)), [32, 8, 2], "as 16 to 4 to 1");
    let mut served = [0; 3];
    for _ in 0..2100 {
        // Whoever is served makes room for one of the flood, which is twice as much as there is.
        let (waiter, _) = queue.take().expect("many wait");
        served[waiter.class.index()] += 1;
        for newcomer in [low(1), normal(2), high(3)] {
            queue.offer(newcomer, "more");
            queue.offer(newcomer, "more");
        }
    }
    assert!(served[2] >= 95, "low has its twenty-first part: {served:?}");
}

#[test]
fn a_higher_class_pushes_out_the_newest_of_the_lowest_and_a_lower_one_nobody() {
    let mut queue = Queue::new(terms(4));
    for (waiter, name) in [(low(1), "a"), (low(2), "b"), (normal(1), "c"), (normal(1), "d")] {
        place(&mut queue, waiter, name);
    }
    assert_eq!(pushed_out(queue.offer(high(1), "e")), Some("b"));
    assert_eq!(pushed_out(queue.offer(normal(1), "f")), Some("a"));
    assert_eq!(pushed_out(queue.offer(low(3), "g")), None);
    assert_eq!(pushed_out(queue.offer(high(1), "h")), Some("f"));
    assert_eq!(all(&mut queue), ["e", "h", "c", "d"]);
}

#[test]
fn of_a_class_that_loses_a_place_it_is_the_client_furthest_above_its_share() {
    let mut queue = Queue::new(terms(6));
    place(&mut queue, low(1), "a");
    for name in ["b", "c", "d"] {
        place(&mut queue, Waiter { share: 4, ..low(2) }, name);
    }
    for name in ["e", "f"] {
        place(&mut queue, Waiter { share: 1, ..low(3) }, name);
    }
    assert_eq!(pushed_out(queue.offer(low(3), "g")), None, "its own client is: 3 for a share of 1");
    assert_eq!(pushed_out(queue.offer(Waiter { share: 4, ..low(2) }, "h")), Some("f"), "2 for 1 is more than 4 for 4");
    assert_eq!(pushed_out(queue.offer(high(1), "i")), Some("h"), "equally far above, it came last");
}

#[test]
fn clients_that_have_the_same_do_not_push_each_other_out() {
    let mut queue = Queue::new(terms(2));
    place(&mut queue, normal(1), "a");
    place(&mut queue, normal(2), "b");
    assert_eq!(pushed_out(queue.offer(normal(3), "c")), None);
    assert_eq!(pushed_out(queue.offer(normal(1), "d")), None);
    assert_eq!(all(&mut queue), ["a", "b"]);
}

#[test]
fn a_retry_takes_the_place_of_what_its_client_has_not_tried_but_not_of_another_retry() {
    let mut queue = Queue::new(terms(2));
    place(&mut queue, normal(1), "a");
    place(&mut queue, normal(1), "b");
    assert_eq!(pushed_out(queue.offer(retry(Class::Normal, 1), "c")), Some("b"));
    assert_eq!(pushed_out(queue.offer(retry(Class::Normal, 1), "d")), Some("a"));
    assert_eq!(pushed_out(queue.offer(retry(Class::Normal, 1), "e")), None);
    assert_eq!(all(&mut queue), ["c", "d"]);
}

#[test]
fn replacing_the_only_one_of_a_client_keeps_its_turn() {
    let mut queue = Queue::new(terms(3));
    place(&mut queue, normal(1), "a");
    place(&mut queue, Waiter { share: 3, ..normal(2) }, "b");
    place(&mut queue, Waiter { share: 3, ..normal(2) }, "c");
    queue.set_terms(terms(1));
    assert_eq!(queue.take().map(|(_, name)| name), Some("b"));
    assert_eq!(queue.take().map(|(_, name)| name), Some("c"));
    // Two thirds of a round have passed. Client 1 is due at the end of it, client 3 half a round from now.
    assert_eq!(pushed_out(queue.offer(retry(Class::Normal, 1), "d")), Some("a"));
    queue.set_terms(terms(2));
    place(&mut queue, Waiter { share: 2, ..normal(3) }, "e");
    assert_eq!(all(&mut queue), ["d", "e"]);
}

#[test]
fn what_is_reserved_for_high_is_left_to_it() {
    let mut queue = Queue::new(Terms { capacity: 10, reserve_high: 0.25, ..DEFAULT });
    for _ in 0..8 {
        place(&mut queue, normal(1), "normal");
    }
    assert_eq!(pushed_out(queue.offer(normal(1), "ninth")), None, "a quarter of 10 is 2 and a half");
    place(&mut queue, high(1), "high");
    place(&mut queue, high(1), "high");
    assert_eq!(pushed_out(queue.offer(normal(2), "modest")), Some("normal"));
    assert_eq!(pushed_out(queue.offer(high(1), "third high")), Some("normal"));
    assert_eq!([queue.depth(Class::High), queue.depth(Class::Normal), queue.depth(Class::Low)], [3, 7, 0]);
}

#[test]
fn places_that_high_does_not_need_beyond_its_reserve_are_for_everyone() {
    let mut queue = Queue::new(Terms { capacity: 10, reserve_high: 0.5, ..DEFAULT });
    for _ in 0..7 {
        place(&mut queue, high(1), "high");
    }
    for _ in 0..3 {
        place(&mut queue, low(1), "low");
    }
    assert_eq!(pushed_out(queue.offer(low(1), "fourth low")), None);
}

#[test]
fn without_places_everyone_is_refused() {
    let mut queue = Queue::new(terms(0));
    assert_eq!(queue.offer(high(1), "high"), Offered::Full("high"));
    assert!(queue.take().is_none());
}

#[test]
fn fewer_places_push_out_nobody_and_more_take_effect_at_once() {
    let mut queue = Queue::new(terms(4));
    for name in ["a", "b", "c", "d"] {
        place(&mut queue, normal(1), name);
    }
    queue.set_terms(terms(2));
    assert_eq!(queue.len(), 4);
    assert_eq!(pushed_out(queue.offer(normal(1), "e")), None);
    queue.take();
    queue.take();
    assert_eq!(pushed_out(queue.offer(normal(1), "f")), None, "two are as many as there may be");
    queue.set_terms(terms(3));
    place(&mut queue, normal(1), "g");
    assert_eq!(all(&mut queue), ["c", "d", "g"]);
}

#[test]
fn a_waiter_that_is_removed_leaves_nothing_behind() {
    let mut queue = Queue::new(DEFAULT);
    let memory = Rc::new(());
    let tickets: Vec<Ticket> = (0..3).map(|_| place(&mut queue, normal(1), Rc::clone(&memory))).collect();
    assert_eq!((queue.bytes(), Rc::strong_count(&memory)), (30, 4));
    assert!(queue.remove(tickets[1]).is_some());
    assert_eq!((queue.bytes(), Rc::strong_count(&memory)), (20, 3));
    assert!(queue.remove(tickets[1]).is_none(), "it has left already");
    assert!(queue.remove(tickets[0]).is_some());
    assert!(queue.remove(tickets[2]).is_some());
    assert_eq!((queue.bytes(), Rc::strong_count(&memory)), (0, 1));
    assert_eq!((queue.len(), queue.clients().count(), queue.oldest(Class::Normal)), (0, 0, None));
}

#[test]
fn a_ticket_does_not_name_who_has_the_place_next() {
    let mut queue = Queue::new(terms(1));
    let before = place(&mut queue, normal(1), "before");
    queue.take();
    let next = place(&mut queue, normal(1), "next");
    assert_eq!(before.place, next.place);
    assert_eq!(queue.remove(before), None);
    assert_eq!(queue.remove(next), Some("next"));
}

#[test]
fn a_queue_that_has_been_as_full_as_it_gets_does_not_grow() {
    let mut queue = Queue::new(terms(10));
    for number in 0..10_000 {
        queue.offer(Waiter { client: number / 3, ..waiter(Class::ALL[number as usize % 3], 0) }, ());
        if number % 5 > 1 {
            queue.take();
        }
    }
    assert!(queue.places.iter().all(|(place, _)| place <= 10), "one more while it makes way");
    for row in &queue.rows {
        assert!(row.lanes.iter().all(|(lane, _)| lane <= 10));
        assert!(row.lane_of.capacity() <= 64, "{}", row.lane_of.capacity());
    }
}

#[test]
fn the_oldest_of_a_class_is_found_among_all_its_clients() {
    let mut queue = Queue::new(DEFAULT);
    let start = clock::now();
    for (client, seconds, again) in [(1, 5, false), (2, 3, true), (2, 2, false), (2, 9, false)] {
        place(&mut queue, Waiter { since: start + Duration::from_secs(seconds), again, ..normal(client) }, ());
    }
    assert_eq!(queue.oldest(Class::Normal), Some(start + Duration::from_secs(2)));
    assert_eq!(queue.oldest(Class::High), None);
}

#[test]
fn who_is_ahead_of_a_newcomer_is_estimated_by_weight_and_share() {
    let mut queue = Queue::new(Terms { capacity: 10_000, ..DEFAULT });
    assert_eq!(queue.ahead_of(&low(1)), 0);
    for _ in 0..1000 {
        place(&mut queue, normal(1), ());
    }
    assert_eq!(queue.ahead_of(&normal(1)), 1000);
    assert_eq!(queue.ahead_of(&retry(Class::Normal, 1)), 0);
    assert_eq!(queue.ahead_of(&normal(2)), 1, "a client that floods is not in the way of others");
    assert_eq!(queue.ahead_of(&low(1)), 4);
    assert_eq!(queue.ahead_of(&high(1)), 0);
    place(&mut queue, high(1), ());
    assert_eq!(queue.ahead_of(&low(1)), 5, "of high there is no more than one");
    place(&mut queue, Waiter { share: 5, ..normal(3) }, ());
    assert_eq!(
        queue.ahead_of(&Waiter { share: 5, ..normal(3) }),
        2,
        "its own and that of high; client 1 has less than a turn until then"
    );
}

/// What may happen to a queue.
#[derive(Debug, Clone)]
enum Act {
    Offer(Waiter),
    Take,
    Remove(prop::sample::Index),
    SetTerms(Terms),
}

fn any_class() -> impl Strategy<Value = Class> {
    prop::sample::select(Class::ALL.to_vec())
}

/// Anyone, of a client whose share is always the same.
fn any_waiter() -> impl Strategy<Value = Waiter> {
    (any_class(), 0..5u32, 0..100usize, prop::bool::weighted(0.2)).prop_map(|(class, client, bytes, again)| Waiter {
        share: [0, 1, 2, 3, 7][client as usize],
        bytes,
        again,
        ..waiter(class, client)
    })
}

fn any_terms() -> impl Strategy<Value = Terms> {
    let weights = prop::sample::select(vec![[16, 4, 1], [1, 1, 1], [7, 5, 3], [1, 0, 9], [u32::MAX, 1000, 1]]);
    (0..12usize, weights, 0..=10u8).prop_map(|(capacity, weights, tenths)| Terms {
        capacity,
        weights,
        reserve_high: f64::from(tenths) / 10.0,
    })
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        12 => any_waiter().prop_map(Act::Offer),
        6 => Just(Act::Take),
        2 => any::<prop::sample::Index>().prop_map(Act::Remove),
        1 => any_terms().prop_map(Act::SetTerms),
    ]
}

/// The rules of the module's head over a plain list.
struct Model {
    terms: Terms,
    /// In the order in which they came.
    waiting: Vec<(Waiter, Ticket, u32)>,
    now: u128,
    due: [u128; 3],
    now_in: [u128; 3],
    /// Of each class and client that waits: when it is due, and behind whom of those due with it.
    due_in: BTreeMap<(Class, u32), (u128, u64)>,
}

impl Model {
    fn of(&self, class: Class) -> impl Iterator<Item = &(Waiter, Ticket, u32)> {
        self.waiting.iter().filter(move |(waiter, ..)| waiter.class == class)
    }

    fn of_client(&self, class: Class, client: u32) -> impl Iterator<Item = &(Waiter, Ticket, u32)> {
        self.of(class).filter(move |(waiter, ..)| waiter.client == client)
    }

    fn has_place(&self, class: Class) -> bool {
        let not_high = self.of(Class::Normal).count() + self.of(Class::Low).count();
        let unreserved = self.terms.capacity - self.terms.reserved();
        self.waiting.len() < self.terms.capacity && (class == Class::High || not_high < unreserved)
    }

    /// How far above its share a client is, and when its latest came that has not left a lane of its own behind.
    fn makes_way(&self, newcomer: &Waiter, latest: &BTreeMap<(Class, u32), usize>) -> Option<Ticket> {
        let all: u64 = self.terms.weights.iter().map(|weight| u64::from(*weight.max(&1))).sum();
        let part =
            |class: Class| self.terms.capacity * self.terms.weights[class.index()].max(1) as usize / all as usize;
        let classes = self.waiting.iter().map(|(waiter, ..)| waiter.class);
        let mut losing = classes.filter(|class| *class <= newcomer.class || self.of(*class).count() > part(*class));
        let lowest = losing.by_ref().max()?;
        if lowest < newcomer.class {
            return None;
        }
        let excess = |client: u32, share: u32| {
            let is_own = lowest == newcomer.class && client == newcomer.client;
            let waiting = self.of_client(lowest, client).count() + usize::from(is_own);
            let latest = if is_own { usize::MAX } else { latest[&(lowest, client)] };
            // Shares are 1, 2, 3 and 7 here, so that a multiple of 42 is exact.
            (waiting * 42 / share.max(1) as usize, latest)
        };
        let clients = self.of(lowest).map(|(waiter, ..)| (waiter.client, waiter.share));
        let own = (lowest == newcomer.class).then_some((newcomer.client, newcomer.share));
        let (client, _) = clients.chain(own).max_by_key(|(client, share)| excess(*client, *share))?;
        let is_own = lowest == newcomer.class && client == newcomer.client;
        let newest = |again: bool| {
            self.of_client(lowest, client)
                .filter(|(waiter, ..)| waiter.again == again)
                .last()
                .map(|(_, ticket, _)| *ticket)
        };
        match (is_own, newcomer.again) {
            (false, _) => newest(false).or(newest(true)),
            (true, true) => newest(false),
            (true, false) => None,
        }
    }

    fn place(&mut self, waiter: Waiter, ticket: Ticket, item: u32) {
        let at = waiter.class.index();
        if self.of(waiter.class).next().is_none() {
            self.due[at] = self.now + step(self.terms.weights[at]);
        }
        let due = (self.now_in[at] + step(waiter.share), ticket.arrival);
        self.due_in.entry((waiter.class, waiter.client)).or_insert(due);
        self.waiting.push((waiter, ticket, item));
    }

    fn remove(&mut self, ticket: Ticket) -> Option<(Waiter, u32)> {
        let at = self.waiting.iter().position(|(_, held, _)| *held == ticket)?;
        let (waiter, _, item) = self.waiting.remove(at);
        if self.of_client(waiter.class, waiter.client).next().is_none() {
            self.due_in.remove(&(waiter.class, waiter.client));
        }
        Some((waiter, item))
    }

    fn first_of(&self, class: Class, client: u32) -> Option<Ticket> {
        self.of_client(class, client)
            .min_by_key(|(waiter, ticket, _)| (!waiter.again, ticket.arrival))
            .map(|held| held.1)
    }

    fn take(&mut self) -> Option<u32> {
        let waits = |class: &Class| self.of(*class).next().is_some();
        let class = Class::ALL.into_iter().filter(waits).min_by_key(|class| (self.due[class.index()], *class))?;
        let of_class = self.due_in.iter().filter(|((of, _), _)| *of == class);
        let (&(_, client), &(due, _)) = of_class.min_by_key(|(_, due)| **due)?;
        let (waiter, item) = self.remove(self.first_of(class, client)?)?;
        self.now = self.due[class.index()];
        self.due[class.index()] += step(self.terms.weights[class.index()]);
        self.now_in[class.index()] = due;
        if let Some(first) = self.first_of(class, client) {
            self.due_in.insert((class, client), (due + step(waiter.share), first.arrival));
        }
        Some(item)
    }
}

proptest! {
    #[test]
    fn it_does_what_the_rules_say_of_a_plain_list(
        terms in any_terms(),
        acts in prop::collection::vec(act(), 1..200),
    ) {
        let mut queue = Queue::new(terms);
        let mut model =
            Model { terms, waiting: Vec::new(), now: 0, due: [0; 3], now_in: [0; 3], due_in: BTreeMap::new() };
        let mut latest = BTreeMap::new();
        let mut tickets = HashSet::new();
        for (number, act) in (0..).zip(acts) {
            let before = (model.waiting.len(), model.waiting.len() - model.of(Class::High).count());
            match act {
                Act::Offer(newcomer) => {
                    let has_place = model.has_place(newcomer.class);
                    let victim = model.makes_way(&newcomer, &latest).filter(|_| !has_place);
                    let ticket = match queue.offer(newcomer, number) {
                        Offered::Placed(ticket) => {
                            prop_assert!(has_place);
                            Some(ticket)
                        }
                        Offered::PlacedFor(ticket, Evicted { waiter, item }) => {
                            let expected = victim.and_then(|victim| {
                                // The newcomer comes first, so that its client keeps its turn.
                                model.place(newcomer, ticket, number);
                                model.remove(victim)
                            });
                            prop_assert_eq!(Some((waiter, item)), expected);
                            prop_assert!(waiter.class >= newcomer.class, "nobody pushes out a more urgent class");
                            latest.insert((newcomer.class, newcomer.client), ticket.arrival as usize);
                            prop_assert!(tickets.insert(ticket));
                            None
                        }
                        Offered::Full(item) => {
                            prop_assert_eq!(item, number);
                            prop_assert!(!has_place && victim.is_none());
                            None
                        }
                    };
                    if let Some(ticket) = ticket {
                        model.place(newcomer, ticket, number);
                        latest.insert((newcomer.class, newcomer.client), ticket.arrival as usize);
                        prop_assert!(tickets.insert(ticket), "no two have the same ticket");
                    }
                }
                Act::Take => {
                    let peeked = queue.peek().map(|(waiter, item)| (*waiter, *item));
                    let taken = queue.take();
                    prop_assert_eq!(taken, peeked);
                    prop_assert_eq!(taken.map(|(_, item)| item), model.take());
                }
                Act::Remove(index) => {
                    if !model.waiting.is_empty() {
                        let (_, ticket, item) = model.waiting[index.index(model.waiting.len())];
                        prop_assert_eq!(queue.remove(ticket), Some(item));
                        prop_assert_eq!(queue.remove(ticket), None);
                        model.remove(ticket);
                    }
                }
                Act::SetTerms(terms) => {
                    queue.set_terms(terms);
                    model.terms = terms;
                }
            }
            // The bounds: what is above them was there before they were lowered.
            let not_high = model.waiting.len() - model.of(Class::High).count();
            prop_assert!(queue.len() <= model.terms.capacity.max(before.0));
            prop_assert!(not_high <= (model.terms.capacity - model.terms.reserved()).max(before.1));
            // Everything that is told about it.
            prop_assert_eq!(queue.len(), model.waiting.len());
            prop_assert_eq!(queue.bytes(), model.waiting.iter().map(|(waiter, ..)| waiter.bytes).sum::<usize>());
            let mut listed: Vec<_> = queue.iter().map(|(ticket, waiter, item)| (*waiter, ticket, *item)).collect();
            listed.sort_by_key(|(_, ticket, _)| *ticket);
            prop_assert_eq!(&listed, &model.waiting);
            let clients: BTreeMap<_, _> = queue.clients().map(|(class, client, waiting)| ((class, client), waiting)).collect();
            let expected = model.due_in.keys().map(|&(class, client)| ((class, client), model.of_client(class, client).count()));
            prop_assert_eq!(clients, expected.collect());
            for class in Class::ALL {
                let row = &queue.rows[class.index()];
                prop_assert_eq!(row.shares, row.lanes.iter().map(|(_, lane)| u64::from(lane.share)).sum::<u64>());
                prop_assert_eq!(queue.depth(class), model.of(class).count());
                prop_assert_eq!(queue.oldest(class), model.of(class).map(|(waiter, ..)| waiter.since).min());
            }
        }
    }

    /// The bounds of the module's head, whatever comes and goes.
    #[test]
    fn nobody_waits_for_more_turns_of_others_than_the_bound(
        weights in prop::array::uniform3(prop_oneof![1..40u32, Just(u32::MAX)]),
        shares in prop::array::uniform4(1..9u32),
        acts in prop::collection::vec((any_class(), 0..4u32, 0..10u8), 1..600),
    ) {
        let mut queue = Queue::new(Terms { capacity: 60, weights, reserve_high: 0.0 });
        // Turns of others since somebody last had one, or came.
        let mut passed: BTreeMap<Class, u64> = BTreeMap::new();
        let mut passed_in: BTreeMap<(Class, u32), u64> = BTreeMap::new();
        let bound = |all: &[u32], at: usize| -> u64 {
            let others = (0..all.len()).filter(|other| *other != at);
            others.map(|other| u64::from(all[other] / all[at]) + 1).sum()
        };
        for (class, client, kind) in acts {
            match kind {
                0..=4 => drop(queue.offer(Waiter { share: shares[client as usize], ..waiter(class, client) }, ())),
                5 => {
                    let newest = queue.iter().filter(|(_, waiter, ())| waiter.class == class).map(|(ticket, ..)| ticket).max();
                    newest.map(|ticket| queue.remove(ticket));
                }
                _ => {
                    if let Some((taken, ())) = queue.take() {
                        for turns in passed.values_mut() {
 *turns += 1;
}
                        passed.remove(&taken.class);
                        let of_class = passed_in.iter_mut().filter(|((of, _), _)| *of == taken.class);
                        of_class.for_each(|(_, turns)| *turns += 1);
                        passed_in.remove(&(taken.class, taken.client));
                    }
                }
            }
            let waiting: BTreeMap<(Class, u32), usize> =
                queue.clients().map(|(class, client, waiting)| ((class, client), waiting)).collect();
            passed.retain(|class, _| queue.depth(*class) > 0);
            passed_in.retain(|who, _| waiting.contains_key(who));
            for &(class, client) in waiting.keys() {
                let turns = *passed.entry(class).or_insert(0);
                prop_assert!(turns <= bound(&weights, class.index()), "{class:?} let {turns} go before it");
                let turns = *passed_in.entry((class, client)).or_insert(0);
                prop_assert!(turns <= bound(&shares, client as usize), "{client} let {turns} go before it");
            }
        }
    }

    #[test]
    fn clients_that_always_wait_are_never_a_turn_apart_by_share(
        shares in prop::collection::vec(1..50u32, 2..8),
        count in 1..500usize,
    ) {
        let mut queue = Queue::new(Terms { capacity: 100, ..DEFAULT });
        for (client, share) in (0..).zip(&shares) {
            place(&mut queue, Waiter { share: *share, ..normal(client) }, ());
        }
        let taken = turns(&mut queue, count);
        let per_share: Vec<(f64, f64)> = (0..).zip(&shares).map(|(client, share)| {
            let turns = taken.iter().filter(|of| **of == client).count();
            (turns as f64 / f64::from(*share), 1.0 / f64::from(*share))
        }).collect();
        for (ours, step) in &per_share {
            for (theirs, their_step) in &per_share {
                prop_assert!((ours - theirs).abs() <= step.max(*their_step) + 1e-9, "{per_share:?}");
            }
        }
    }

    #[test]
    fn no_more_go_before_a_newcomer_than_were_estimated_but_for_a_turn_of_each_other(
        waiters in prop::collection::vec(any_waiter(), 0..80),
        takes in 0..40usize,
        newcomer in any_waiter(),
    ) {
        let mut queue = Queue::new(DEFAULT);
        for waiter in waiters {
            place(&mut queue, waiter, false);
        }
        for _ in 0..takes {
            queue.take();
        }
        if newcomer.again {
            // It goes behind other retries, which the estimate leaves out.
            return Ok(());
        }
        let estimate = queue.ahead_of(&newcomer);
        let weights = queue.terms.weights.map(|weight| weight as usize);
        let lanes = queue.clients().filter(|(class, ..)| *class == newcomer.class).count();
        let steps: usize = weights.iter().map(|weight| lanes * weight / weights[newcomer.class.index()] + 1).sum();
        place(&mut queue, newcomer, true);
        let ahead = std::iter::from_fn(|| queue.take()).take_while(|(_, is_newcomer)| !is_newcomer).count();
        prop_assert!(ahead <= estimate + lanes + steps, "{ahead} went before it, estimated were {estimate}");
    }
}
