//! How urgent a request is: `high`, `normal` or `low`.
//!
//! Who may call itself urgent is for the route and the client to say; see [`Class::capped`].

/// How urgent a request is. The more urgent class is the lesser one: `High < Normal < Low`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Somebody waits for it and it matters.
    High,
    /// Everything that says nothing else.
    Normal,
    /// It can wait; it is slower under load, but never starved.
    Low,
}

// === impl Class ===

impl Class {
    /// Every class, the most urgent first.
    pub const ALL: [Class; 3] = [Class::High, Class::Normal, Class::Low];

    /// The class that a field's value names: `high`, `normal`, `low` in any case, or `0`, `1`, `2`.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Class> {
        let is_named = |class: &Class| {
            value.eq_ignore_ascii_case(class.as_str().as_bytes()) || value == [b'0' + class.index() as u8]
        };
        Class::ALL.into_iter().find(is_named)
    }

    /// The class of an urgency: `u=0` to 2 is high, 3 and 4 normal, 5 to 7 low. There is no other urgency, and a value
    /// that is out of range is to be ignored (RFC 9218 §4).
    #[must_use]
    pub fn from_urgency(urgency: u8) -> Option<Class> {
        match urgency {
            0..=2 => Some(Class::High),
            3..=4 => Some(Class::Normal),
            5..=7 => Some(Class::Low),
            _ => None,
        }
    }

    /// This class, or `max` where this one is more urgent than that.
    #[must_use]
    pub fn capped(self, max: Class) -> Class {
        Ord::max(self, max)
    }

    /// The word for it in configurations, metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Class::High => "high",
            Class::Normal => "normal",
            Class::Low => "low",
        }
    }

    /// Its place in [`Class::ALL`], for tables with an entry for each class.
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_found_by_its_word_and_by_its_number_and_by_nothing_else() {
        for (class, number) in Class::ALL.into_iter().zip([b"0", b"1", b"2"]) {
            assert_eq!(Class::parse(class.as_str().as_bytes()), Some(class));
            assert_eq!(Class::parse(number), Some(class));
            assert_eq!(Class::ALL[class.index()], class);
        }
        assert_eq!(Class::parse(b"High"), Some(Class::High));
        for other in ["", "3", "-1", "00", " high", "highest", "hig", "urgent"] {
            assert_eq!(Class::parse(other.as_bytes()), None, "{other:?}");
        }
    }

    #[test]
    fn an_urgency_out_of_range_has_no_class() {
        use Class::{High, Low, Normal};
        let classes: Vec<Class> = (0..=u8::MAX).map_while(Class::from_urgency).collect();
        assert_eq!(classes, [High, High, High, Normal, Normal, Low, Low, Low]);
        assert_eq!((8..=u8::MAX).find_map(Class::from_urgency), None);
    }

    #[test]
    fn a_cap_makes_a_request_less_urgent_and_never_more() {
        assert_eq!(Class::High.capped(Class::Normal), Class::Normal);
        assert_eq!(Class::Low.capped(Class::Normal), Class::Low);
        assert_eq!(Class::High.capped(Class::High), Class::High);
    }
}
