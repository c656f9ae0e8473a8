//! How one log line is spelled, into a buffer that is used again: RFC 3339 times, seconds, escaped text. ◇
//!
//! Both JSON and text keep to one line and to printable characters, so nothing that a client sends can end a line,
//! begin another, or steer a terminal.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Writes text, escaped, as it is formatted.
///
/// It counts what it takes: beyond [`VALUE_BYTES_MAX`] the rest is cut and `…` says so.
#[derive(Debug)]
pub(super) struct Escaped<'a> {
    out: &'a mut Vec<u8>,
    place: Place,
    left: usize,
    cut: bool,
}

/// Where escaped text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Between quotes, in JSON or in a text line.
    Quoted,
    /// In a text line: quotes and backslashes are left alone.
    Plain,
    /// The message of a text line: further lines of it are indented, so they cannot pass for lines of the log.
    Message,
}

// === impl Escaped ===

impl<'a> Escaped<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>, place: Place) -> Self {
        Escaped { out, place, left: VALUE_BYTES_MAX, cut: false }
    }

    fn cut_to_bound<'t>(&mut self, text: &'t str) -> &'t str {
        if text.len() <= self.left {
            self.left -= text.len();
            return text;
        }
        self.cut = true;
        &text[..text.floor_char_boundary(self.left)]
    }
}

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.cut {
            return Ok(());
        }
        let text = self.cut_to_bound(text);
        escape(self.out, text, self.place);
        if self.cut {
            self.out.extend_from_slice("…".as_bytes());
        }
        Ok(())
    }
}

/// Appends `text`, escaped and bounded, without quotes around it.
pub(super) fn escaped(out: &mut Vec<u8>, text: &str, place: Place) {
    // Writing to a Vec never fails.
    let _ = fmt::Write::write_str(&mut Escaped::new(out, place), text);
}

/// Appends `"text"`.
pub(super) fn quoted(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    escaped(out, text, Place::Quoted);
    out.push(b'"');
}

/// Appends `name=value` for a text line, quoted where the value would not read as one word.
pub(super) fn word(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.push(b'=');
    if value.is_empty() || value.contains([' ', '"', '=']) {
        quoted(out, value);
    } else {
        escaped(out, value, Place::Plain);
    }
}

fn escape(out: &mut Vec<u8>, text: &str, place: Place) {
    let bytes = text.as_bytes();
    if is_plain(bytes) {
        return out.extend_from_slice(bytes);
    }
    let mut clean = 0;
    for (at, c) in text.char_indices().filter(|(_, c)| must_escape(*c, place)) {
        out.extend_from_slice(&bytes[clean..at]);
        escape_char(out, c, place);
        clean = at + c.len_utf8();
    }
    out.extend_from_slice(&bytes[clean..]);
}

/// Nearly every value is printable ASCII. Counting looks at all of it without a branch, so it runs many bytes at a time.
fn is_plain(bytes: &[u8]) -> bool {
    let special = |b: u8| !(b' '..=b'~').contains(&b) || b == b'"' || b == b'\\';
    bytes.iter().filter(|b| special(**b)).count() == 0
}

/// JSON demands control characters, quotes and backslashes; the others end lines for some readers (U+0085, U+2028,
/// U+2029) or steer a terminal (C1, the bidirectional overrides).
fn must_escape(c: char, place: Place) -> bool {
    match c {
        '"' | '\\' => place == Place::Quoted,
        ' '..='~' => false,
        '\0'..='\u{9f}' => true,
        _ => matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'),
    }
}

fn escape_char(out: &mut Vec<u8>, c: char, place: Place) {
    match c {
        '\n' if place == Place::Message => out.extend_from_slice(b"\n    "),
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        other => {
            let code = u32::from(other);
            out.extend_from_slice(b"\\u");
            for shift in [12, 8, 4, 0] {
                out.push(HEX[(code >> shift & 0xf) as usize]);
            }
        }
    }
}

/// Appends a whole number.
pub(super) fn number(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends seconds with six decimals: `0.012345`.
pub(super) fn seconds(out: &mut Vec<u8>, span: Duration) {
    number(out, span.as_secs());
    let mut fraction = *b".000000";
    digits(&mut fraction[1..], span.subsec_micros());
    out.extend_from_slice(&fraction);
}

/// Appends `2026-11-21T07:47:34.123Z`. Times before 1970 are shown as 1970; those beyond the year 9999, as its end.
pub(super) fn rfc3339(out: &mut Vec<u8>, at: SystemTime) {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, millis) =
        if since.as_secs() > LAST_SECOND { (LAST_SECOND, 999) } else { (since.as_secs(), since.subsec_millis()) };
    let (year, month, day) = civil(seconds / 86_400);
    let in_day = (seconds % 86_400) as u32;
    let mut text = *b"0000-00-00T00:00:00.000Z";
    digits(&mut text[0..4], year);
    digits(&mut text[5..7], month);
    digits(&mut text[8..10], day);
    digits(&mut text[11..13], in_day / 3600);
    digits(&mut text[14..16], in_day / 60 % 60);
    digits(&mut text[17..19], in_day % 60);
    digits(&mut text[20..23], millis);
    out.extend_from_slice(&text);
}

/// `2026-11-21T07:47:34.123Z`, for answers and files.
#[must_use]
pub fn timestamp(at: SystemTime) -> String {
    let mut text = Vec::with_capacity(24);
    rfc3339(&mut text, at);
    text.into_iter().map(char::from).collect()
}

/// Year, month and day of a day counted from 1970-01-01.
///
/// Years are counted from March, so that the leap day is the last of its year, and in eras of 400 years, which all have
/// 146,097 days. 153 days are the five months March to July, whose lengths repeat.
fn civil(days: u64) -> (u32, u32, u32) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let from_march = (5 * day + 2) / 153;
    let day = day - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    (year as u32, month as u32, day as u32)
}

/// Fills `places` with the last digits of `value`.
fn digits(places: &mut [u8], mut value: u32) {
    for place in places.iter_mut().rev() {
        *place = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Bytes of one value on a line; longer ones are cut. A head may have 64 KiB, and a log is not its archive.
pub(super) const VALUE_BYTES_MAX: usize = 8 * 1024;

/// 9999-12-31T23:59:59Z, the last second that RFC 3339 can write.
const LAST_SECOND: u64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("every part is text")
    }

    #[test]
    fn times_outside_the_years_that_can_be_written_are_shown_as_the_nearest() {
        assert_eq!(timestamp(UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00.000Z");
        let far = UNIX_EPOCH + Duration::from_secs(LAST_SECOND + 1);
        assert_eq!(timestamp(far), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn seconds_have_six_decimals() {
        assert_eq!(text(|out| seconds(out, Duration::from_micros(12_345))), "0.012345");
        assert_eq!(text(|out| seconds(out, Duration::from_secs(61))), "61.000000");
    }

    #[test]
    fn a_word_is_quoted_where_it_would_be_read_as_several() {
        assert_eq!(text(|out| word(out, "name", "plain/\\")), "name=plain/\\");
        assert_eq!(text(|out| word(out, "name", "two words")), "name=\"two words\"");
        assert_eq!(text(|out| word(out, "name", "")), "name=\"\"");
        assert_eq!(text(|out| word(out, "name", "a=b \"c\"")), "name=\"a=b \\\"c\\\"\"");
    }

    #[test]
    fn further_lines_of_a_message_are_indented() {
        assert_eq!(text(|out| escaped(out, "two\nlines \"here\"\r", Place::Message)), "two\n    lines \"here\"\\r");
    }

    #[test]
    fn a_value_written_in_pieces_is_cut_once() {
        let shown = text(|out| {
            let mut value = Escaped::new(out, Place::Quoted);
            for _ in 0..VALUE_BYTES_MAX {
                fmt::Write::write_str(&mut value, "abc").expect("never fails");
            }
        });
        assert_eq!(shown.len(), VALUE_BYTES_MAX + "…".len());
        assert!(shown.ends_with("ab…"), "{}", &shown[shown.len() - 8..]);
    }

    proptest! {
        #[test]
        fn times_are_those_of_a_calendar(millis in 0..(LAST_SECOND + 1) * 1000) {
            let at = UNIX_EPOCH + Duration::from_millis(millis);
            let calendar = jiff::Timestamp::try_from(at).expect("within the calendar");
            prop_assert_eq!(timestamp(at), format!("{calendar:.3}"));
        }
    }
}
