//! RFC 9213: `CDN-Cache-Control`, a structured dictionary that takes the place of `Cache-Control` and `Expires`.

use super::directives::Reply;
use super::rfc9111_tests::*;
use super::*;

fn targeted(value: &str, others: Lines<'_>) -> Result<Terms, Unstorable> {
    status(200, &[&[("CDN-Cache-Control", value)], others].concat())
}

fn fresh(value: &str, others: Lines<'_>) -> u64 {
    fresh_for(&targeted(value, others).expect("may be kept"))
}

/// Whether the field was heard: beside it `Cache-Control` forbids to keep the reply.
fn is_heard(value: &str) -> bool {
    let fields = fields(&[("CDN-Cache-Control", value), ("Cache-Control", "no-store")]);
    Reply::read(&fields).targeted
}

#[test]
fn section_2_1_directives_mean_what_they_mean_in_cache_control() {
    assert_eq!(fresh("max-age=60", &[]), 60);
    assert_eq!(fresh("max-age=60, s-maxage=30", &[]), 30);
    assert_eq!(fresh("max-age=60", &[("Age", "20")]), 40);
    assert_eq!(fresh("foobar, max-age=60", &[]), 60, "what is unknown is ignored");
    assert_eq!(targeted("no-store", &[]), Err(Unstorable::NoStore));
    assert_eq!(targeted("private, max-age=5", &[]), Err(Unstorable::Private));
    let no_cache = targeted("no-cache, max-age=60", &[("ETag", "\"1\"")]).expect("may be kept");
    assert_eq!(after(&no_cache, 1, &[]), VALIDATE);
    let strict = targeted("max-age=60, must-revalidate", &[]).expect("may be kept");
    assert_eq!(after(&strict, 60, &[("Cache-Control", "max-stale")]), VALIDATE);
    let stale = targeted("max-age=60, stale-while-revalidate=5", &[]).expect("may be kept");
    assert_eq!(after(&stale, 62, &[]), Use::StaleWhileRevalidate);
}

#[test]
fn section_2_1_fields_are_named_in_a_string() {
    let reply = [("CDN-Cache-Control", "max-age=60, no-cache=\"a\""), ("A", "1"), ("B", "1")];
    let terms = kept(&reply);
    assert_eq!(lines(&terms.kept(&fields(&reply))).len(), 2);
}

#[test]
fn section_2_1_numbers_are_as_large_as_a_structured_field_has_them() {
    assert_eq!(fresh("max-age=99999999999", &[]), 1 << 31);
    assert!(!is_heard("max-age=9999999999999999"), "sixteen digits");
}

#[test]
fn section_2_1_parameters_are_ignored() {
    assert_eq!(fresh("max-age=60;a;b=1;c=\"x;y\", foo;x", &[]), 60);
}

#[test]
fn section_2_1_a_later_member_takes_the_place_of_an_earlier() {
    assert_eq!(fresh("max-age=1, max-age=60", &[]), 60);
    let two = [("CDN-Cache-Control", "max-age=1"), ("CDN-Cache-Control", "max-age=60")];
    assert_eq!(fresh_for(&kept(&two)), 60);
}

#[test]
fn section_2_1_what_is_malformed_or_of_the_wrong_type_or_empty_counts_as_absent() {
    for value in [
        "",
        "   ",
        "max-age=10000, &&&&&",
        "max-age=\"10000\"",
        "max-age=10000,",
        "max-age",
        "max-age=-1",
        "max-age=1.5",
        "max-age =100",
        "max-age= 100",
        "MaX-aGe=3600",
        "max-age=100 foo",
        "foo=(a b",
        "foo=\"a",
        "foo=?2",
        "foo=:a",
        "foo=\"\u{e9}\"",
    ] {
        assert!(!is_heard(value), "{value}");
        assert_eq!(targeted(value, &[("Cache-Control", "no-store")]), Err(Unstorable::NoStore), "{value}");
    }
    for value in
        ["foo", "foo=(a \"b\";c 1)", "foo=:YWI=:;x", "foo=?0", "foo=-1.5", "*a=b/c", "foo=\"\\\"\\\\\"", "a=1 , b"]
    {
        assert!(is_heard(value), "{value}");
    }
}

#[test]
fn section_2_2_it_takes_the_place_of_cache_control_and_expires() {
    assert_eq!(fresh("max-age=60", &[("Cache-Control", "max-age=1")]), 60);
    assert_eq!(fresh("max-age=1", &[("Cache-Control", "max-age=60, s-maxage=90")]), 1);
    assert_eq!(fresh("max-age=60", &[("Cache-Control", "no-store, private, no-cache")]), 60);
    assert_eq!(fresh("max-age=60", &[("Expires", "0")]), 60);
    let (expires, tag) = (date(100), ("ETag", "\"1\""));
    assert_eq!(fresh("max-age=0", &[("Expires", &expires), tag]), 0);
    assert_eq!(
        fresh("foo", &[("Expires", &expires), ("Cache-Control", "max-age=60"), tag]),
        0,
        "heard, though it says nothing"
    );
}

#[test]
fn section_2_2_permission_for_the_authorised_is_read_from_it_alone() {
    let authorised = |cdn, general| {
        let reply = [("CDN-Cache-Control", cdn), ("Cache-Control", general)];
        read("GET", &[("Authorization", "x")], 200, &reply, &NONE)
    };
    assert!(authorised("public, max-age=5", "private").is_ok());
    assert_eq!(authorised("max-age=5", "public, s-maxage=5"), Err(Unstorable::Authorised));
}

#[test]
fn section_3_1_only_fields_whose_target_we_are_are_heard() {
    let fields = fields(&[("Surrogate-Control", "max-age=60"), ("Foo-Cache-Control", "max-age=60")]);
    assert_eq!(Reply::read(&fields), Reply::default());
}
