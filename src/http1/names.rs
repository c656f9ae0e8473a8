//! A set of field names, as far as one number can hold it.

/// Names of fields that something is to be done with. It never misses one, and seldom takes another for one: so most fields
/// of a message are known to be none of them without being compared with any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Names(u64);

// === impl Names ===

impl Names {
    /// The set of these alone.
    #[must_use]
    pub const fn of(names: &[&str]) -> Names {
        let (mut all, mut at) = (0, 0);
        while at < names.len() {
            all |= 1 << place(names[at].as_bytes());
            at += 1;
        }
        Names(all)
    }

    /// Whether it can be that one of them reads as `name`, in the sense of [`super::fields::reads_as`].
    #[inline]
    #[must_use]
    pub const fn may_hold(self, name: &[u8]) -> bool {
        self.0 >> place(name) & 1 == 1
    }
}

/// One of 64 places, the same for all names that read as each other: by length, first and last byte.
#[inline]
const fn place(name: &[u8]) -> usize {
    match name {
        [] => 0,
        [first, .., last] => (name.len() + 5 * folded(*first) + 11 * folded(*last)) & 63,
        [only] => (1 + 16 * folded(*only)) & 63,
    }
}

/// What stays of a byte where neither its case counts nor, if it is no letter or digit, which one it is.
#[inline]
const fn folded(byte: u8) -> usize {
    if byte.is_ascii_alphanumeric() { (byte & 0x1f) as usize } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::fields::reads_as;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_name_that_reads_as_one_of_them_is_never_missed(name in "[a-z0-9_.-]{1,20}", mask in any::<u32>()) {
            let other: String = name.chars().enumerate().map(|(at, char)| match (mask >> at & 1, char) {
                (1, '-' | '_' | '.') => '~',
                (1, char) => char.to_ascii_uppercase(),
                (_, char) => char,
            }).collect();
            prop_assert!(reads_as(other.as_bytes(), name.as_bytes()));
            prop_assert!(Names::of(&[&name, "x-other"]).may_hold(other.as_bytes()));
        }
    }

    #[test]
    fn names_that_have_little_in_common_are_told_apart() {
        let rules = Names::of(&["x-powered-by", "server"]);
        let others = ["x-request-id", "content-type", "content-length", "date", "via", "etag", "cache-control"];
        assert_eq!(others.iter().filter(|name| rules.may_hold(name.as_bytes())).count(), 0);
        assert!(!Names::default().may_hold(b"x"));
    }
}
