//! Which member of a pool takes the next request.
//!
//! A choice is made over what can be leased *now*: whoever asks shows the pool as a [`Field`], in which a member at its
//! limit, with an open circuit or in a cooldown is not there. What can be leased comes in tiers ([`Look::lean`]): a
//! member of a higher tier is chosen only where no lower one can be. Nothing here takes a lock or allocates; the same
//! field, turn, key and draw give the same choice.
//!
//! **In turn** (`round_robin`, `weighted`). A smooth order is laid out beforehand (nginx's: 5, 1, 1 gives a a b a c a
//! a) and a shared turn walks it. The turn of a member that cannot be leased is used up, not handed to its neighbour:
//! so the others keep the shares of their weights among each other, and not the one behind the gap gets two. A member
//! in slow start takes a share of its turns, by chance.
//!
//! **`least_connections`**. Whose turn it is takes the request if it is idle; otherwise the member with the least
//! (in flight + 1) ÷ weight. Without the first half a pool with little to do would send everything to its heaviest
//! member.
//!
//! **`peak_ewma`**. The cheaper of two drawn members (the power of two choices: Mitzenmacher 2001), by latency × (in
//! flight + 1) ÷ weight, as in Finagle. Drawing two keeps a crowd from running to the one that looks best. A member
//! nobody has measured yet is tried at once, by one request at a time until it has answered.
//!
//! **`consistent_hash`**. Rendezvous hashing (Thaler and Ravishankar 1998): every member has a score for every key, and
//! the best one takes it. When a member goes, only its keys move, each to its second best; when its weight rises, keys
//! move only to it. Loads are bounded (Mirrokni, Thorup and Zadimoghaddam 2018): a member that has [`LOAD_BOUND`] times
//! its share in flight leaves a key to the next best.
//!
//! Why not a ring, and not `pingora-ketama`: that crate hashes socket addresses, where we have names that stay when
//! addresses change. On any ring a slow start needs other points at every step, the points grow with the weights, and
//! 160 of them for each member leave shares uneven by a tenth. What a ring saves, looking at every member, the bound
//! needs anyway: it is a share of what all of them have in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The members of a pool as they are now, in the order they were given to [`Balance::new`].
pub trait Field {
    /// How many members there are, whether or not they can be leased.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One of them; `None` if it cannot be leased now. May answer differently when it is asked again.
    fn look(&self, index: usize) -> Option<Look>;
}

/// What a choice is made by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Look {
    /// Attempts that are under way there.
    pub in_flight: u32,
    /// The configured weight, times how far a slow start is. Above 0.
    pub weight: f64,
    /// What [`PeakEwma::value`](super::load::PeakEwma::value) says, in seconds; 0 if unknown. Only `peak_ewma` reads
    /// it.
    pub latency: f64,
    /// 0 usually. A higher one is chosen only where nothing lower can be leased.
    pub lean: u8,
}

/// How a pool is balanced, as its file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// One after the other; weights do not matter.
    RoundRobin,
    /// In turn, each as often as its weight says.
    Weighted,
    /// The least in flight for its weight.
    LeastConnections,
    /// The cheaper of two, by latency and what is in flight.
    PeakEwma,
    /// The member a key belongs to.
    ConsistentHash,
}

/// How a pool is balanced, ready to choose.
#[derive(Debug)]
pub struct Balance(Rule);

#[derive(Debug)]
enum Rule {
    InTurn(Order),
    LeastConnections(Order),
    PeakEwma,
    /// The members' names, hashed.
    ConsistentHash(Box<[u64]>),
}

/// Members in the order of their turns.
#[derive(Debug)]
struct Order {
    /// A member as often as its weight says, spread evenly; walked round and round.
    members: Box<[u32]>,
    /// By member.
    weights: Box<[u32]>,
    turn: Arc<AtomicUsize>,
}

// === impl Balance ===

impl Balance {
    /// Balances members of these names and weights. `turn` is that of the pool of this name before, if there was one.
    pub fn new(algorithm: Algorithm, members: &[(&str, u32)], turn: Arc<AtomicUsize>) -> Self {
        let weights = members.iter().map(|&(_, weight)| weight);
        Balance(match algorithm {
            Algorithm::RoundRobin => Rule::InTurn(Order::new(members.iter().map(|_| 1), turn)),
            Algorithm::Weighted => Rule::InTurn(Order::new(weights, turn)),
            Algorithm::LeastConnections => Rule::LeastConnections(Order::new(weights, turn)),
            Algorithm::PeakEwma => Rule::PeakEwma,
            Algorithm::ConsistentHash => {
                Rule::ConsistentHash(members.iter().map(|(name, _)| hash_key(name.as_bytes())).collect())
            }
        })
    }

    /// The member that takes the next request; `None` if none can be leased.
    ///
    /// `field` has the members this was built with. `key` is the [`hash_key`] by which `consistent_hash` chooses; a
    /// request without one goes anywhere. `draw` is 64 random bits.
    pub fn choose(&self, field: &(impl Field + ?Sized), key: Option<u64>, draw: u64) -> Option<usize> {
        match &self.0 {
            _ if field.is_empty() => None,
            // Nobody has to be chosen.
            _ if field.len() == 1 => field.look(0).map(|_| 0),
            Rule::InTurn(order) => order.next(field, draw).map(|(index, _)| index),
            Rule::LeastConnections(order) => least_connections(order, field, draw),
            Rule::PeakEwma => peak_ewma(field, draw),
            Rule::ConsistentHash(names) => consistent_hash(names, field, key.unwrap_or(draw)),
        }
    }
}

// === impl Order ===

impl Order {
    fn new(weights: impl Iterator<Item = u32>, turn: Arc<AtomicUsize>) -> Self {
        let weights: Box<[u32]> = weights.map(|weight| weight.max(1)).collect();
        Order { members: smooth(&reduced(&weights)), weights, turn }
    }

    /// Takes turns until one falls to a member that can be leased, in the lowest tier that can be.
    fn next(&self, field: &(impl Field + ?Sized), draw: u64) -> Option<(usize, Look)> {
        let mut lowest = None;
        let scan = || least(field, |_, _| (0.0, 0.0)).map_or(0, |(_, look)| look.lean);
        let mut turns = (0..TURNS_MAX).filter_map(|nth| self.take_turn(field, draw.wrapping_add(nth)));
        let found = turns.find(|(_, look)| look.lean == 0 || look.lean <= *lowest.get_or_insert_with(scan));
        // Few can be leased where this many turns find none; then a draw by weight gives the same shares.
        found.or_else(|| least(field, |index, look| (0.0, race(shuffled(draw, index), look.weight))))
    }

    /// Takes a turn: its member, if it can be leased and has come so far in its slow start.
    fn take_turn(&self, field: &(impl Field + ?Sized), draw: u64) -> Option<(usize, Look)> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let index = self.members[turn.checked_rem(self.members.len())?] as usize;
        let look = field.look(index)?;
        let share = look.weight / f64::from(self.weights[index]);
        (share >= 1.0 || unit(mix(draw)) < share).then_some((index, look))
    }
}

// === impl Field ===

/// A field that stands still, for tests and simulations.
impl Field for [Option<Look>] {
    fn len(&self) -> usize {
        <[Option<Look>]>::len(self)
    }

    fn look(&self, index: usize) -> Option<Look> {
        self[index]
    }
}

/// A hash of `key` that is the same in every process, on every machine and in every release: FNV-1a with 64 bits (RFC
/// 9923).
///
/// Gateways that share providers send a key to the same one. It is no secret: who can choose keys can choose their
/// provider, and the bounded load limits what that is good for.
#[must_use]
pub fn hash_key(key: &[u8]) -> u64 {
    key.iter().fold(FNV_OFFSET, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME))
}

fn least_connections(order: &Order, field: &(impl Field + ?Sized), draw: u64) -> Option<usize> {
    let (turn, look) = order.next(field, draw)?;
    if look.in_flight == 0 {
        return Some(turn);
    }
    let found = least(field, |index, look| {
        let tie = if index == turn { 0.0 } else { unit(shuffled(draw, index)) };
        (load(look), tie)
    });
    Some(found.map_or(turn, |(index, _)| index))
}

fn peak_ewma(field: &(impl Field + ?Sized), draw: u64) -> Option<usize> {
    let count = field.len();
    let first = below(mix(draw), count);
    let second = (first + 1 + below(shuffled(draw, first), count - 1)) % count;
    let pair = match (field.look(first), field.look(second)) {
        (Some(one), Some(other)) if one.lean == 0 && other.lean == 0 => ((first, one), (second, other)),
        // Any two that can be leased: the first two of all, shuffled by bits that had no part in the first draw.
        _ => {
            let place = |index| unit(shuffled(!draw, index));
            let one = least(field, |index, _| (0.0, place(index)))?;
            let other = least(field, |index, _| (if index == one.0 { 1.0 } else { 0.0 }, place(index)));
            (one, other.unwrap_or(one))
        }
    };
    let ((first, one), (second, other)) = pair;
    Some(if cost(&other) < cost(&one) { second } else { first })
}

fn consistent_hash(names: &[u64], field: &(impl Field + ?Sized), key: u64) -> Option<usize> {
    let score = |index: usize, look: &Look| race(mix(key ^ names[index]), look.weight);
    let (mut lean, mut in_flight, mut weight) = (u8::MAX, 1.0, 0.0);
    let (index, look) = least(field, |index, look| {
        if look.lean < lean {
            (lean, in_flight, weight) = (look.lean, 1.0, 0.0);
        }
        in_flight += f64::from(look.in_flight);
        weight += look.weight;
        (0.0, score(index, look))
    })?;
    let bound = |look: &Look| (LOAD_BOUND * in_flight * look.weight / weight).ceil().max(LOAD_FREE);
    let is_full = |look: &Look| f64::from(look.in_flight) >= bound(look);
    if !is_full(&look) {
        return Some(index);
    }
    let found = least(field, |index, look| (if is_full(look) { 1.0 } else { 0.0 }, score(index, look)));
    found.map(|(index, _)| index)
}

/// The least by `rank` in the lowest tier that can be leased. `rank` is asked in order of the members, also for those
/// of a higher tier while nothing lower was found.
fn least(field: &(impl Field + ?Sized), mut rank: impl FnMut(usize, &Look) -> (f64, f64)) -> Option<(usize, Look)> {
    let mut best: Option<(usize, Look, (f64, f64))> = None;
    for index in 0..field.len() {
        let Some(look) = field.look(index) else { continue };
        let lean = best.map_or(look.lean, |(_, best, _)| best.lean);
        if look.lean <= lean {
            let rank = rank(index, &look);
            if best.is_none_or(|(.., least)| look.lean < lean || rank < least) {
                best = Some((index, look, rank));
            }
        }
    }
    best.map(|(index, look, _)| (index, look))
}

/// What would be in flight for a unit of weight.
fn load(look: &Look) -> f64 {
    (f64::from(look.in_flight) + 1.0) / look.weight
}

/// How long a request might wait there, in seconds.
fn cost(look: &Look) -> f64 {
    match look.latency {
        known if known > 0.0 => known * load(look),
        _ if look.in_flight == 0 => 0.0,
        _ => UNKNOWN_SECONDS * load(look),
    }
}

/// The time at which a clock of rate `weight` first ticks, by `bits`: of several the least is each with a chance in
/// proportion to its weight, and a weight that rises only ever makes its own earlier (Efraimidis and Spirakis 2006).
fn race(bits: u64, weight: f64) -> f64 {
    -unit(bits).ln() / weight
}

/// Bits for one of several members, from one draw.
fn shuffled(draw: u64, index: usize) -> u64 {
    mix(mix(draw) ^ index as u64)
}

/// Every bit of the result depends on every bit of `bits`: SplitMix64 (Steele, Lea and Flood 2014). Part of what keys
/// are placed by, so it stays as it is.
fn mix(bits: u64) -> u64 {
    let bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// A number between 0 and 1, and neither.
fn unit(bits: u64) -> f64 {
    ((bits >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
}

/// A number from 0 to `count` - 1 (Lemire 2019); 0 where there is none.
fn below(bits: u64, count: usize) -> usize {
    ((u128::from(bits) * count as u128) >> 64) as usize
}

/// Weights of the same proportions, as small as can be, and so that their sum is about [`ORDER_MAX`] at most.
fn reduced(weights: &[u32]) -> Vec<u32> {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let sum: u64 = weights.iter().map(|&weight| u64::from(weight / divisor)).sum();
    let scale = |weight: u32| match u64::from(weight / divisor) {
        weight if sum <= ORDER_MAX => weight,
        weight => (weight * ORDER_MAX / sum).max(1),
    };
    weights.iter().map(|&weight| scale(weight) as u32).collect()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Every member as often as its weight says, as evenly spread as nginx does it: in each step all earn their weight, and
/// who has earned most goes next and pays for it with what all have earned.
fn smooth(weights: &[u32]) -> Box<[u32]> {
    let sum: i64 = weights.iter().copied().map(i64::from).sum();
    let mut earned = vec![0; weights.len()];
    let next = |_| {
        let mut most = 0;
        for (index, &weight) in weights.iter().enumerate() {
            earned[index] += i64::from(weight);
            if earned[index] > earned[most] {
                most = index;
            }
        }
        earned[most] -= sum;
        most as u32
    };
    (0..sum).map(next).collect()
}

/// The longest order, beyond one turn for each member: shares are right to a part in 4,096, and laying it out for a
/// hundred members takes less than a millisecond. Weights that would need a longer one are scaled down to it.
const ORDER_MAX: u64 = 4096;

/// Turns a choice takes at most before it draws instead.
const TURNS_MAX: u64 = 16;

/// How many times its share a member may have in flight before a key goes to its next best.
pub const LOAD_BOUND: f64 = 1.25;

/// What a member may have in flight whatever its share is. With a handful of requests under way the shares are below
/// two, and every second request of a busy key would leave its member for nothing.
const LOAD_FREE: f64 = 4.0;

/// What an unknown latency counts as while the first answer is awaited: more than any that is known.
const UNKNOWN_SECONDS: f64 = 3600.0;

/// Where FNV-1a with 64 bits begins, and what it multiplies by (RFC 9923).
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::instant::Instant;
    use crate::policy::load::PeakEwma;
    use proptest::prelude::*;
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::time::Duration;

    const ALGORITHMS: [Algorithm; 5] = [
        Algorithm::RoundRobin,
        Algorithm::Weighted,
        Algorithm::LeastConnections,
        Algorithm::PeakEwma,
        Algorithm::ConsistentHash,
    ];

    const IDLE: Look = Look { in_flight: 0, weight: 1.0, latency: 0.0, lean: 0 };

    fn balance(algorithm: Algorithm, weights: &[u32]) -> Balance {
        let names: Vec<String> = (0..weights.len()).map(|index| format!("provider-{index}")).collect();
        let members: Vec<(&str, u32)> = names.iter().map(String::as_str).zip(weights.iter().copied()).collect();
        Balance::new(algorithm, &members, Arc::default())
    }

    /// Idle members of these weights.
    fn field(weights: &[u32]) -> Vec<Option<Look>> {
        weights.iter().map(|&weight| Some(Look { weight: f64::from(weight), ..IDLE })).collect()
    }

    /// How often each member is chosen of `count` requests with different keys and draws.
    fn chosen(balance: &Balance, field: &[Option<Look>], count: u64) -> Vec<u64> {
        let mut chosen = vec![0; field.len()];
        for number in 0..count {
            chosen[balance.choose(field, Some(mix(number)), mix(!number)).expect("a member")] += 1;
        }
        chosen
    }

    fn sequence(balance: &Balance, field: &[Option<Look>], count: u64) -> Vec<usize> {
        (0..count).map(|draw| balance.choose(field, None, draw).expect("a member")).collect()
    }

    fn assert_near(chosen: &[u64], shares: &[f64], tolerance: f64) {
        let count: u64 = chosen.iter().sum();
        for (&chosen, share) in chosen.iter().zip(shares) {
            assert!((chosen as f64 / count as f64 - share).abs() <= tolerance, "{chosen} of {count} for {share}");
        }
    }

    #[test]
    fn the_smooth_order_is_that_of_nginx() {
        assert_eq!(*smooth(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(*smooth(&[1, 1, 1]), [0, 1, 2]);
        assert_eq!(*smooth(&[2, 1]), [0, 1, 0]);
    }

    #[test]
    fn weights_with_a_common_divisor_give_a_short_order() {
        assert_eq!(reduced(&[300, 200, 100]), [3, 2, 1]);
        assert_eq!(reduced(&[u32::MAX, u32::MAX]), [1, 1]);
        assert!(reduced(&[]).is_empty());
    }

    #[test]
    fn weights_that_would_give_a_long_order_are_scaled_down() {
        let weights = reduced(&[u32::MAX, 1, 2_000_000_000]);
        assert!(weights.iter().sum::<u32>() <= ORDER_MAX as u32 + 3);
        assert_eq!(weights[1], 1, "the lightest keeps a turn");
        let shares = f64::from(weights[0]) / f64::from(weights[2]);
        assert!((shares - f64::from(u32::MAX) / 2e9).abs() < 0.01, "{shares}");
    }

    #[test]
    fn round_robin_goes_round() {
        let balance = balance(Algorithm::RoundRobin, &[1, 1, 1]);
        assert_eq!(sequence(&balance, &field(&[1, 1, 1]), 7), [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn the_turn_goes_on_where_the_balance_before_was() {
        let turn = Arc::new(AtomicUsize::new(0));
        let members = [("a", 1), ("b", 1)];
        let before = Balance::new(Algorithm::RoundRobin, &members, Arc::clone(&turn));
        assert_eq!(before.choose(&field(&[1, 1])[..], None, 0), Some(0));
        let after = Balance::new(Algorithm::RoundRobin, &members, turn);
        assert_eq!(after.choose(&field(&[1, 1])[..], None, 0), Some(1));
    }

    #[test]
    fn the_neighbour_of_a_member_that_is_out_does_not_take_its_turns() {
        let round_robin = balance(Algorithm::RoundRobin, &[1, 1, 1]);
        let mut members = field(&[1, 1, 1]);
        members[1] = None;
        assert_eq!(sequence(&round_robin, &members, 6), [0, 2, 0, 2, 0, 2]);
        let weighted = balance(Algorithm::Weighted, &[5, 1, 1]);
        let mut members = field(&[5, 1, 1]);
        members[0] = None;
        assert_eq!(sequence(&weighted, &members, 6), [1, 2, 1, 2, 1, 2]);
    }

    #[test]
    fn one_of_a_hundred_is_found_and_the_two_left_of_a_hundred_share() {
        for algorithm in ALGORITHMS {
            let balance = balance(algorithm, &[1; 100]);
            let mut members: Vec<Option<Look>> = vec![None; 100];
            members[77] = Some(IDLE);
            assert_eq!(sequence(&balance, &members, 5), [77; 5], "{algorithm:?}");
            members[78] = Some(IDLE);
            let chosen = chosen(&balance, &members, 10_000);
            assert_near(&chosen[77..79], &[0.5, 0.5], 0.03);
        }
    }

    #[test]
    fn weights_are_shares_where_nobody_is_busy() {
        for algorithm in [Algorithm::Weighted, Algorithm::LeastConnections, Algorithm::ConsistentHash] {
            let balance = balance(algorithm, &[5, 3, 2]);
            let chosen = chosen(&balance, &field(&[5, 3, 2]), 20_000);
            assert_near(&chosen, &[0.5, 0.3, 0.2], 0.015);
        }
    }

    #[test]
    fn a_member_in_slow_start_takes_its_part() {
        for algorithm in
            [Algorithm::RoundRobin, Algorithm::Weighted, Algorithm::LeastConnections, Algorithm::ConsistentHash]
        {
            let balance = balance(algorithm, &[1, 1, 1]);
            let mut members = field(&[1, 1, 1]);
            members[1] = Some(Look { weight: 0.25, ..IDLE });
            let chosen = chosen(&balance, &members, 30_000);
            assert_near(&chosen, &[4.0 / 9.0, 1.0 / 9.0, 4.0 / 9.0], 0.015);
        }
        let pair = balance(Algorithm::PeakEwma, &[1, 1]);
        let busy = Look { in_flight: 3, latency: 0.01, ..IDLE };
        let members = [Some(busy), Some(Look { in_flight: 0, weight: 0.2, ..busy })];
        assert_eq!(chosen(&pair, &members, 100), [100, 0], "four in flight for one are less than one for a fifth");
    }

    #[test]
    fn all_in_slow_start_share_as_if_none_were() {
        for algorithm in [Algorithm::RoundRobin, Algorithm::Weighted, Algorithm::LeastConnections] {
            let balance = balance(algorithm, &[1, 1]);
            let chosen = chosen(&balance, &[Some(Look { weight: 0.1, ..IDLE }); 2], 20_000);
            assert_near(&chosen, &[0.5, 0.5], 0.015);
        }
    }

    #[test]
    fn a_higher_tier_is_used_only_where_no_lower_one_can_be() {
        for algorithm in ALGORITHMS {
            let balance = balance(algorithm, &[1; 4]);
            let busy = Look { in_flight: 1000, latency: 60.0, ..IDLE };
            let mut members = [2, 0, 1, 1].map(|lean| Some(Look { lean, ..busy }));
            members[0] = Some(Look { lean: 2, ..IDLE });
            assert_eq!(chosen(&balance, &members, 200), [0, 200, 0, 0], "{algorithm:?}");
            members[1] = None;
            assert_near(&chosen(&balance, &members, 4_000)[2..], &[0.5, 0.5], 0.04);
            members[2] = None;
            assert_eq!(chosen(&balance, &members, 200), [0, 0, 0, 200], "{algorithm:?}");
            members[3] = None;
            assert_eq!(chosen(&balance, &members, 200), [200, 0, 0, 0], "{algorithm:?}");
            members[0] = None;
            assert_eq!(balance.choose(&members[..], Some(1), 1), None, "{algorithm:?}");
        }
    }

    #[test]
    fn a_pool_without_members_has_no_choice() {
        for algorithm in ALGORITHMS {
            assert_eq!(balance(algorithm, &[]).choose(&[][..], Some(1), 1), None);
        }
    }

    #[test]
    fn least_connections_takes_whose_turn_it_is_while_that_one_is_idle() {
        let balance = balance(Algorithm::LeastConnections, &[1, 1, 1]);
        assert_eq!(sequence(&balance, &field(&[1, 1, 1]), 6), [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn least_connections_takes_the_least_for_its_weight() {
        let balance = balance(Algorithm::LeastConnections, &[4, 1, 1]);
        let with = |in_flight: [u32; 3]| {
            let weights = [4.0, 1.0, 1.0];
            let look = |(in_flight, weight)| Some(Look { in_flight, weight, ..IDLE });
            in_flight.into_iter().zip(weights).map(look).collect::<Vec<_>>()
        };
        assert_eq!(chosen(&balance, &with([10, 3, 2]), 60), [60, 0, 0]);
        assert_eq!(chosen(&balance, &with([12, 3, 2]), 60), [0, 0, 60]);
        let tied = chosen(&balance, &with([40, 5, 5]), 3_000);
        assert_near(&tied[1..], &[0.5, 0.5], 0.04);
    }

    #[test]
    fn equal_connections_go_by_turn() {
        let balance = balance(Algorithm::LeastConnections, &[1, 1]);
        let members = [Some(Look { in_flight: 7, ..IDLE }); 2];
        assert_eq!(sequence(&balance, &members, 4), [0, 1, 0, 1]);
    }

    #[test]
    fn a_member_nobody_has_measured_gets_one_request_until_it_answers() {
        let balance = balance(Algorithm::PeakEwma, &[1, 1]);
        let known = Look { in_flight: 9, latency: 2.0, ..IDLE };
        assert_eq!(chosen(&balance, &[Some(known), Some(IDLE)], 50), [0, 50]);
        assert_eq!(chosen(&balance, &[Some(known), Some(Look { in_flight: 1, ..IDLE })], 50), [50, 0]);
    }

    #[test]
    fn two_are_drawn_from_those_that_can_be_leased_alike() {
        for out in [None, Some(2)] {
            let balance = balance(Algorithm::PeakEwma, &[1; 6]);
            let mut members = vec![Some(Look { latency: 0.1, ..IDLE }); 6];
            if let Some(out) = out {
                members[out] = None;
            }
            let mut chosen = chosen(&balance, &members, 60_000);
            chosen.retain(|&count| count > 0);
            let even = 1.0 / chosen.len() as f64;
            assert_eq!(chosen.len(), 6 - usize::from(out.is_some()));
            assert_near(&chosen, &vec![even; chosen.len()], 0.01);
        }
    }

    /// Members with a latency, a request every two milliseconds; who was chosen in `span` from `start` on.
    fn run(balance: &Balance, ewmas: &[PeakEwma], start: Instant, span: Duration, latency: [u64; 3]) -> Vec<u64> {
        let mut in_flight = [0; 3];
        let mut answers: BTreeMap<(Instant, u64), (usize, Duration)> = BTreeMap::new();
        let mut chosen = vec![0; 3];
        for number in 0..(span.as_millis() / 2) as u64 {
            let now = start + Duration::from_millis(2 * number);
            while let Some(first) = answers.first_entry().filter(|first| first.key().0 <= now) {
                let at = first.key().0;
                let (member, took) = first.remove();
                in_flight[member] -= 1;
                ewmas[member].observe(took, at);
            }
            let look =
                |member: usize| Some(Look { in_flight: in_flight[member], latency: ewmas[member].value(now), ..IDLE });
            let field: Vec<_> = (0..3).map(look).collect();
            let member = balance.choose(&field[..], None, mix(number)).expect("a member");
            let took = Duration::from_millis(latency[member]);
            in_flight[member] += 1;
            chosen[member] += 1;
            answers.insert((now + took, number), (member, took));
        }
        chosen
    }

    #[test]
    fn peak_ewma_shuns_a_slow_member_and_finds_it_again() {
        let balance = balance(Algorithm::PeakEwma, &[1; 3]);
        let start = clock::now();
        let ewmas: Vec<PeakEwma> = (0..3).map(|_| PeakEwma::new(start)).collect();
        let minute = Duration::from_mins(1);
        let slow = run(&balance, &ewmas, start, minute, [10, 10, 400]);
        let slow_share = slow[2] as f64 / 30_000.0;
        assert!(slow_share < 0.005, "{slow:?}");
        assert!(slow[2] >= 2, "it is asked now and then: {slow:?}");
        run(&balance, &ewmas, start + minute, minute, [10, 10, 10]);
        let healed = run(&balance, &ewmas, start + minute * 2, minute, [10, 10, 10]);
        assert_near(&healed, &[1.0 / 3.0; 3], 0.05);
    }

    /// To whom each of some keys belongs, by name.
    fn owners<'a>(members: &[(&'a str, u32)]) -> Vec<&'a str> {
        let balance = Balance::new(Algorithm::ConsistentHash, members, Arc::default());
        let weights: Vec<u32> = members.iter().map(|&(_, weight)| weight).collect();
        let owner = |number: u32| {
            let key = hash_key(format!("user-{number}").as_bytes());
            members[balance.choose(&field(&weights)[..], Some(key), u64::from(number)).expect("a member")].0
        };
        (0..4_000).map(owner).collect()
    }

    #[test]
    fn keys_of_a_member_that_goes_move_and_no_others() {
        let all = owners(&[("alpha", 1), ("beta", 1), ("gamma", 1), ("delta", 1)]);
        let without = owners(&[("delta", 1), ("alpha", 1), ("gamma", 1)]);
        let mut taken: BTreeMap<&str, u64> = BTreeMap::new();
        for (before, after) in all.iter().zip(&without) {
            assert!(before == after || *before == "beta", "from {before} to {after}");
            if before != after {
                *taken.entry(after).or_default() += 1;
            }
        }
        // All the others take them over, not just a neighbour.
        assert_near(&taken.into_values().collect::<Vec<_>>(), &[1.0 / 3.0; 3], 0.06);
    }

    #[test]
    fn keys_move_only_to_the_member_whose_weight_rises() {
        let before = owners(&[("alpha", 1), ("beta", 1), ("gamma", 1)]);
        let after = owners(&[("alpha", 1), ("beta", 2), ("gamma", 1)]);
        let moved: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
        assert!(moved.iter().all(|(_, after)| **after == "beta"));
        assert_near(&[moved.len() as u64, 4_000 - moved.len() as u64], &[1.0 / 6.0, 5.0 / 6.0], 0.02);
    }

    #[test]
    fn a_request_without_a_key_goes_anywhere() {
        let balance = balance(Algorithm::ConsistentHash, &[1, 1]);
        let mut chosen = [0, 0];
        for draw in 0..10_000 {
            chosen[balance.choose(&field(&[1, 1])[..], None, draw).expect("a member")] += 1;
        }
        assert_near(&chosen, &[0.5, 0.5], 0.02);
    }

    /// Where keys go, and how keys are hashed, may not change: gateways of two releases share providers.
    #[test]
    fn keys_stay_where_they_are_from_release_to_release() {
        // The test vectors of FNV-1a's authors.
        assert_eq!(hash_key(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash_key(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(hash_key(b"foobar"), 0x8594_4171_f739_67e8);
        // SplitMix64 from a seed of 0 and of 1234567, as published.
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(mix(1_234_567), 6_457_827_717_110_365_317);
        let owners = owners(&[("alpha", 1), ("beta", 2), ("gamma", 1)]);
        assert_eq!(owners[..8], PLACED);
    }

    /// Where the first of the keys went when this was written.
    const PLACED: [&str; 8] = ["alpha", "gamma", "gamma", "alpha", "gamma", "gamma", "beta", "gamma"];

    /// A field in which one key's requests pile up.
    fn pile(balance: &Balance, weights: &[u32], keys: impl Iterator<Item = u64>) -> Vec<u32> {
        let members = RefCell::new(field(weights));
        for key in keys {
            let index = balance.choose(&members.borrow()[..], Some(key), 0).expect("a member");
            if let Some(look) = &mut members.borrow_mut()[index] {
                look.in_flight += 1;
            }
        }
        members.into_inner().into_iter().flatten().map(|look| look.in_flight).collect()
    }

    #[test]
    fn a_busy_key_stays_with_its_member_until_that_has_its_bound() {
        let balance = balance(Algorithm::ConsistentHash, &[1; 4]);
        let mut few = pile(&balance, &[1; 4], std::iter::repeat_n(7, 4));
        few.sort_unstable();
        assert_eq!(few, [0, 0, 0, 4], "a handful stays together");
        let mut many = pile(&balance, &[1; 4], std::iter::repeat_n(7, 400));
        many.sort_unstable();
        assert_eq!(many, [25, 125, 125, 125], "1.25 times a share of a hundred, in the order of preference");
    }

    proptest! {
        #[test]
        fn no_member_exceeds_its_bound(
            weights in proptest::collection::vec(1..10_u32, 1..8),
            keys in proptest::collection::vec(0..20_u64, 1..400),
        ) {
            let balance = balance(Algorithm::ConsistentHash, &weights);
            let sum: u32 = weights.iter().sum();
            let count = keys.len() as f64;
            for (in_flight, &weight) in pile(&balance, &weights, keys.into_iter()).into_iter().zip(&weights) {
                let bound = (LOAD_BOUND * count * f64::from(weight) / f64::from(sum)).ceil().max(LOAD_FREE);
                prop_assert!(f64::from(in_flight) <= bound, "{in_flight} of {count} for {weight} of {sum}");
            }
        }

        #[test]
        fn a_smooth_order_gives_everyone_its_turns_and_spreads_them(
            weights in proptest::collection::vec(1..30_u32, 1..8),
        ) {
            let order = smooth(&weights);
            let sum: u32 = weights.iter().sum();
            prop_assert_eq!(order.len(), sum as usize);
            let mut turns = vec![0_u32; weights.len()];
            for (step, &member) in (1_u32..).zip(&order) {
                turns[member as usize] += 1;
                for (&turns, &weight) in turns.iter().zip(&weights) {
                    let due = f64::from(step * weight) / f64::from(sum);
                    prop_assert!((f64::from(turns) - due).abs() < 1.5, "{} turns where {} are due", turns, due);
                }
            }
            prop_assert_eq!(turns, weights);
        }

        #[test]
        fn what_is_chosen_can_be_leased_and_is_in_the_lowest_tier(
            members in proptest::collection::vec(
                proptest::option::weighted(0.6, (0..5_u32, 1..5_u32, 0..3_u8, 0.0..2.0_f64)),
                1..12,
            ),
            key in proptest::option::of(any::<u64>()),
            draws in proptest::collection::vec(any::<u64>(), 1..20),
        ) {
            let weights: Vec<u32> = members.iter().map(|member| member.map_or(1, |(_, weight, ..)| weight)).collect();
            let look = |(in_flight, weight, lean, latency): (u32, u32, u8, f64)| {
                Look { in_flight, weight: f64::from(weight) * 0.7, lean, latency }
            };
            let members: Vec<Option<Look>> = members.into_iter().map(|member| member.map(look)).collect();
            let lowest = members.iter().flatten().map(|look| look.lean).min();
            for algorithm in ALGORITHMS {
                let (one, same) = (balance(algorithm, &weights), balance(algorithm, &weights));
                for &draw in &draws {
                    let chosen = one.choose(&members[..], key, draw);
                    let lean = chosen.map(|index| members[index].expect("it can be leased").lean);
                    prop_assert_eq!(lean, lowest, "{:?}", algorithm);
                    prop_assert_eq!(chosen, same.choose(&members[..], key, draw), "the same again");
                }
            }
        }
    }
}
