//! Dates of HTTP (RFC 9110 §5.6.7), read as strictly as a cache must: what is not exactly one of the three forms is invalid,
//! and an invalid `Expires` is in the past (RFC 9111 §5.3). Only the case of letters does not matter (§4.2).

use std::time::{Duration, SystemTime};

/// The moment that `text` names; `wall` tells which century two digits of a year mean.
///
/// `None` where it is in none of the three forms, in another zone than GMT, no day of the calendar, or before 1970.
#[must_use]
pub fn parse(text: &[u8], wall: SystemTime) -> Option<SystemTime> {
    let text = text.trim_ascii();
    let (day, month, year, time) = match text.len() {
        // Sun, 06 Nov 1994 08:49:37 GMT
        29 => {
            let shape = expect(text, b"???, ?? ??? ???? ??:??:?? gmt")?;
            weekday(&shape[..3], 3)?;
            (number(&shape[5..7])?, &shape[8..11], number(&shape[12..16])?, &shape[17..25])
        }
        // Sun Nov  6 08:49:37 1994
        24 => {
            let shape = expect(text, b"??? ??? ?? ??:??:?? ????")?;
            weekday(&shape[..3], 3)?;
            let day = shape[8..10].strip_prefix(b" ").unwrap_or(&shape[8..10]);
            (number(day)?, &shape[4..7], number(&shape[20..24])?, &shape[11..19])
        }
        // Sunday, 06-Nov-94 08:49:37 GMT
        _ => {
            let comma = text.iter().position(|byte| *byte == b',')?;
            weekday(&text[..comma], usize::MAX)?;
            let shape = expect(&text[comma..], b", ??-???-?? ??:??:?? gmt")?;
            let year = full_year(number(&shape[9..11])?, wall);
            (number(&shape[2..4])?, &shape[5..8], year, &shape[12..20])
        }
    };
    let month = (1..).zip(MONTHS).find(|(_, name)| name.as_bytes().eq_ignore_ascii_case(month))?.0;
    let [hour, minute, second] = [&time[..2], &time[3..5], &time[6..8]].map(number);
    let (hour, minute, second) = (hour?, minute?, second?);
    // A leap second is a valid date (60), and is counted as the one before it.
    if hour > 23 || minute > 59 || second > 60 || year < 1970 || day < 1 || day > days_in(month, year) {
        return None;
    }
    let days = days_before(year) + (1..month).map(|month| days_in(month, year)).sum::<u64>() + day - 1;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second.min(59);
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// `text`, if it looks like `shape`, where `?` stands for any byte.
fn expect<'t>(text: &'t [u8], shape: &[u8]) -> Option<&'t [u8]> {
    let fits = |(byte, wanted): (&u8, &u8)| *wanted == b'?' || byte.eq_ignore_ascii_case(wanted);
    (text.len() == shape.len() && text.iter().zip(shape).all(fits)).then_some(text)
}

/// A day's name, or the first `len` letters of one. Whether it is the right one is not checked.
fn weekday(text: &[u8], len: usize) -> Option<()> {
    WEEKDAYS.iter().any(|name| name.as_bytes()[..len.min(name.len())].eq_ignore_ascii_case(text)).then_some(())
}

/// A number that is digits only.
fn number(text: &[u8]) -> Option<u64> {
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    if is_number { str::from_utf8(text).ok()?.parse().ok() } else { None }
}

/// The year that ends in these two digits: the latest that is not more than fifty years ahead.
fn full_year(digits: u64, wall: SystemTime) -> u64 {
    let seconds = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let this = 1970 + seconds / SECONDS_IN_YEAR;
    let latest = this + 50;
    let year = latest - latest % 100 + digits;
    if year > latest { year - 100 } else { year }
}

/// Days from the beginning of 1970 to that of `year`, which is not before.
fn days_before(year: u64) -> u64 {
    let leap_years = |year: u64| year / 4 - year / 100 + year / 400;
    (year - 1970) * 365 + leap_years(year - 1) - leap_years(1969)
}

fn days_in(month: u64, year: u64) -> u64 {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 => 28 + u64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
/// On average, which is enough to tell a century.
const SECONDS_IN_YEAR: u64 = 31_556_952;

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use jiff::tz::Offset;
    use proptest::prelude::*;

    /// 2026-11-21 14:00:00 UTC.
    const WALL: u64 = 1_795_269_600;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn read(text: &str) -> Option<u64> {
        let read = parse(text.as_bytes(), at(WALL))?;
        Some(read.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs())
    }

    #[test]
    fn section_5_6_7_of_rfc_9110_all_three_forms_are_understood() {
        for text in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(read(text), Some(784_111_777), "{text}");
        }
        assert_eq!(read("Wed Nov 16 08:49:37 1994"), Some(784_111_777 + 10 * 86_400));
    }

    #[test]
    fn section_5_6_7_of_rfc_9110_a_year_of_two_digits_is_at_most_fifty_years_ahead() {
        let year = |text: &str| read(text).map(|seconds| 1970 + seconds / SECONDS_IN_YEAR);
        assert_eq!(year("Monday, 05-Jul-76 08:49:37 GMT"), Some(2076));
        assert_eq!(year("Monday, 05-Jul-77 08:49:37 GMT"), Some(1977));
    }

    #[test]
    fn section_4_2_case_does_not_matter() {
        for text in ["SUN, 06 NOV 1994 08:49:37 GMT", "sun, 06 nov 1994 08:49:37 gMT", "SUN NOV  6 08:49:37 1994"] {
            assert_eq!(read(text), Some(784_111_777), "{text}");
        }
    }

    #[test]
    fn section_4_2_what_is_not_exactly_a_date_in_gmt_is_invalid() {
        for text in [
            "0",
            "-1",
            "",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 EST",
            "Sun, 06 Nov 1994 08:49:37 +0000",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun 06 Nov 1994 08:49:37 GMT",
            "Sun, 06  Nov  1994 08:49:37 GMT",
            "Sun, 06-Nov-1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08.49.37 GMT",
            "Sun, 06 Nov 1994 8:49:37 GMT",
            "Sun, 31 Nov 1994 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Wed, 29 Feb 2023 08:49:37 GMT",
            "Foo, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1969 08:49:37 GMT",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        assert!(read("Thu, 29 Feb 2024 08:49:37 GMT").is_some());
        assert!(read("Sat, 31 Dec 2016 23:59:60 GMT").is_some(), "a leap second");
        assert!(read("Fri, 31 Dec 9999 23:59:59 GMT").is_some());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

        #[test]
        fn a_date_is_read_as_it_was_written(second in 0..200_000_000_000_u64) {
            let date = Offset::UTC.to_datetime(Timestamp::from_second(second.cast_signed()).expect("a time"));
            for form in ["%a, %d %b %Y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"] {
                prop_assert_eq!(read(&date.strftime(form).to_string()), Some(second));
            }
        }

        #[test]
        fn whatever_is_written_is_a_date_or_none(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _: Option<SystemTime> = parse(&text, at(WALL));
        }
    }
}
