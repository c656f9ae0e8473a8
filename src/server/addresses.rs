//! How many connections are open from each address.
//!
//! Somebody with one IPv6 prefix has 2^64 addresses, so those are counted by their first 64 bits: what one customer, one
//! home or one machine is given. The table has an entry for each address from which a connection is open, so it is bounded
//! by the listener's `limits.connections`, and an entry goes with the last connection.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The counts of one port.
#[derive(Debug, Default)]
pub struct Addresses {
    /// A std mutex, held for one look-up when a connection begins and one when it ends. The map's hash is keyed at random:
    /// who chooses addresses cannot choose collisions.
    open: Mutex<HashMap<IpAddr, usize>>,
}

// === impl Addresses ===

impl Addresses {
    /// Counts a connection from `ip`, unless `limit` (at least 1) are open from there already; whether it did.
    pub fn enter(&self, ip: IpAddr, limit: usize) -> bool {
        let mut open = self.open();
        let count = open.entry(key(ip)).or_default();
        let may = *count < limit;
        *count += usize::from(may);
        may
    }

    /// A connection from `ip` that was counted has ended.
    pub fn leave(&self, ip: IpAddr) {
        if let Entry::Occupied(mut count) = self.open().entry(key(ip)) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // Counts are whole after any panic.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an address is counted for.
fn key(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        ipv4 @ IpAddr::V4(_) => ipv4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn each_address_has_its_own_count_and_none_once_its_last_connection_ended() {
        let addresses = Addresses::default();
        assert!(addresses.enter(ip("192.0.2.1"), 2));
        assert!(addresses.enter(ip("::ffff:192.0.2.1"), 2), "however it is written");
        assert!(!addresses.enter(ip("192.0.2.1"), 2));
        assert!(addresses.enter(ip("192.0.2.2"), 2));
        addresses.leave(ip("192.0.2.1"));
        assert!(addresses.enter(ip("192.0.2.1"), 2));
        addresses.leave(ip("::ffff:192.0.2.1"));
        addresses.leave(ip("192.0.2.1"));
        assert_eq!(addresses.open().len(), 1);
    }

    #[test]
    fn ipv6_is_counted_by_its_first_64_bits() {
        let addresses = Addresses::default();
        assert!(addresses.enter(ip("2001:db8:1:2::1"), 1));
        assert!(!addresses.enter(ip("2001:db8:1:2:ffff::9"), 1));
        assert!(addresses.enter(ip("2001:db8:1:3::1"), 1));
        addresses.leave(ip("2001:db8:1:2::1"));
        assert_eq!(addresses.open().len(), 1);
    }
}
