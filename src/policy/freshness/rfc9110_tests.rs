//! RFC 9110 §13 and §14, as far as a cache answers for an origin: parts of what is kept.

use super::ranges::{Portion, portion};
use super::rfc9111_tests::*;
use super::validators::Tag;
use super::*;

const LEN: u64 = 10;

fn cut(method: &str, request: Lines<'_>, reply: Lines<'_>) -> Portion {
    let terms = kept(&[&[("Cache-Control", "max-age=99")], reply].concat());
    let request = fields(request);
    let asked = Asked::read(method, &request);
    portion(&asked, &request, (200, &terms), Some(LEN), wall()).expect("the whole is there")
}

fn ranges(range: &str) -> Portion {
    cut("GET", &[("Range", range)], &[])
}

#[test]
fn section_8_8_3_2_tags_are_compared_weakly_and_strongly() {
    for (one, other, weakly, strongly) in [
        ("W/\"1\"", "W/\"1\"", true, false),
        ("W/\"1\"", "W/\"2\"", false, false),
        ("W/\"1\"", "\"1\"", true, false),
        ("\"1\"", "\"1\"", true, true),
    ] {
        let tag = Tag::new(one.as_bytes());
        assert_eq!(tag.is_as_good_as(other.as_bytes()), weakly, "{one} {other}");
        assert_eq!(tag.is_identical_to(other.as_bytes()), strongly, "{one} {other}");
    }
}

#[test]
fn section_14_1_2_ranges_are_first_to_last_first_to_end_and_the_last_so_many() {
    for (range, bytes) in [
        ("bytes=0-0", 0..1),
        ("bytes=2-5", 2..6),
        ("bytes=2-", 2..10),
        ("bytes=-3", 7..10),
        ("bytes=-99", 0..10),
        ("bytes=5-99999999999999999999999", 5..10),
        ("BYTES= 2-5", 2..6),
    ] {
        assert_eq!(ranges(range), Portion::Ranges(vec![bytes]), "{range}");
    }
    assert_eq!(ranges("bytes=8-9, 0-1,,4-5"), Portion::Ranges(vec![8..10, 0..2, 4..6]));
}

#[test]
fn section_14_2_a_range_that_is_invalid_or_of_another_unit_is_ignored() {
    for range in [
        "items=0-1",
        "bytes",
        "bytes=",
        "bytes=a-b",
        "bytes=5-2",
        "bytes=0-1-2",
        "bytes=--1",
        "bytes=0-1, x",
        "bytes 0-1",
    ] {
        assert_eq!(ranges(range), Portion::Whole, "{range}");
    }
    assert_eq!(cut("GET", &[("Range", "bytes=0-1"), ("Range", "bytes=2-3")], &[]), Portion::Whole);
}

#[test]
fn section_14_2_a_range_means_something_only_in_get() {
    assert_eq!(cut("HEAD", &[("Range", "bytes=0-1")], &[]), Portion::Whole);
    let terms = status(404, &[("Cache-Control", "max-age=9")]).expect("may be kept");
    let request = fields(&[("Range", "bytes=0-1")]);
    let asked = Asked::read("GET", &request);
    assert_eq!(portion(&asked, &request, (404, &terms), Some(LEN), wall()), Some(Portion::Whole), "no success");
    assert_eq!(
        portion(&asked, &request, (200, &kept(&[("Cache-Control", "max-age=9")])), None, wall()),
        Some(Portion::Whole)
    );
}

#[test]
fn section_14_4_what_is_not_there_is_unsatisfiable() {
    for range in ["bytes=10-", "bytes=10-11", "bytes=-0", "bytes=99-,50-60"] {
        assert_eq!(ranges(range), Portion::Unsatisfiable, "{range}");
    }
    assert_eq!(ranges("bytes=99-, 0-1"), one(0..2), "what is there is sent");
}

#[test]
fn section_17_15_many_or_overlapping_ranges_are_not_worked_for() {
    assert_eq!(ranges("bytes=0-5,5-9"), Portion::Whole);
    assert_eq!(ranges("bytes=0-,0-,0-"), Portion::Whole);
    let many: Vec<&str> = ["0-0"].repeat(17);
    assert_eq!(ranges(&format!("bytes={}", many.join(","))), Portion::Whole);
}

#[test]
fn section_13_1_5_if_range_allows_a_part_only_of_the_identical_representation() {
    let (modified, other) = (date(-100), date(-99));
    let reply = [("ETag", "\"1\""), ("Last-Modified", modified.as_str())];
    let conditional = |condition: &str, reply: Lines<'_>| {
        cut("GET", &[("Range", "bytes=0-1"), ("If-Range", condition)], reply) == one(0..2)
    };
    assert!(conditional("\"1\"", &reply));
    assert!(!conditional("\"2\"", &reply));
    assert!(!conditional("W/\"1\"", &reply), "a weak tag is not enough");
    assert!(!conditional("W/\"1\"", &[("ETag", "W/\"1\"")]), "on either side");
    assert!(conditional(&modified, &reply));
    assert!(!conditional(&other, &reply), "the date must be the same, not later");
    let recent = date(-10);
    let just_now = [("Last-Modified", recent.as_str())];
    assert!(!conditional(&recent, &just_now), "it may have changed twice in that second");
    assert!(!conditional(&modified, &[]));
    assert!(!conditional("x", &reply));
}
