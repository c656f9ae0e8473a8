//! RFC 5861: stale replies, while they are validated and in place of errors.

use super::rfc9111_tests::*;
use super::*;

const OPERATOR: Rules =
    Rules { ttl: None, stale_while_revalidate: Duration::from_secs(30), stale_if_error: Duration::from_secs(300) };

fn on_error(terms: &Terms, seconds: u64, request: Lines<'_>) -> Option<u64> {
    match after(terms, seconds, request) {
        Use::MustValidate { stale_if_error } => stale_if_error.map(|until| (until - start()).as_secs()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn section_3_a_stale_reply_may_be_sent_while_it_is_validated_up_to_so_long() {
    let terms = kept(&[("Cache-Control", "max-age=10, stale-while-revalidate=5")]);
    assert_eq!(after(&terms, 9, &[]), Use::Fresh);
    assert_eq!(after(&terms, 10, &[]), Use::StaleWhileRevalidate);
    assert_eq!(after(&terms, 14, &[]), Use::StaleWhileRevalidate);
    assert_eq!(after(&terms, 15, &[]), VALIDATE);
}

#[test]
fn section_3_who_asks_for_something_fresher_is_not_given_what_is_stale() {
    let terms = kept(&[("Cache-Control", "max-age=10, stale-while-revalidate=50")]);
    // Even who takes it as old as it is: of stale replies nothing was said (RFC 9111 §5.2.1.1).
    for value in ["max-age=5", "min-fresh=1", "no-cache", "max-age=0", "max-age=100"] {
        assert!(matches!(after(&terms, 12, &[("Cache-Control", value)]), Use::MustValidate { .. }), "{value}");
    }
    assert_eq!(after(&terms, 12, &[("Cache-Control", "max-age=100, max-stale=1")]), Use::StaleWhileRevalidate);
}

#[test]
fn section_4_a_stale_reply_may_be_sent_in_place_of_an_error_up_to_so_long() {
    let terms = kept(&[("Cache-Control", "max-age=10, stale-if-error=5")]);
    assert_eq!(on_error(&terms, 12, &[]), Some(15));
    assert_eq!(on_error(&terms, 15, &[]), None);
}

#[test]
fn section_4_a_fresh_reply_that_a_client_wants_fresher_stands_in_for_an_error_too() {
    let terms = kept(&[("Cache-Control", "max-age=10, stale-if-error=5")]);
    assert_eq!(on_error(&terms, 3, &[("Cache-Control", "max-age=1")]), Some(15));
}

#[test]
fn section_4_a_request_may_permit_it_too() {
    let terms = kept(&[("Cache-Control", "max-age=10")]);
    assert_eq!(on_error(&terms, 12, &[]), None);
    assert_eq!(on_error(&terms, 12, &[("Cache-Control", "stale-if-error=20")]), Some(30));
    let strict = kept(&[("Cache-Control", "max-age=10, must-revalidate")]);
    assert_eq!(on_error(&strict, 12, &[("Cache-Control", "stale-if-error=20")]), None);
}

#[test]
fn the_operator_permits_where_the_origin_does_not_say() {
    let terms = read("GET", &[], 200, &[("Cache-Control", "max-age=10")], &OPERATOR).expect("may be kept");
    assert_eq!(after(&terms, 39, &[]), Use::StaleWhileRevalidate);
    assert_eq!(on_error(&terms, 40, &[]), Some(310));
    let own = [("Cache-Control", "max-age=10, stale-while-revalidate=0, stale-if-error=0")];
    let terms = read("GET", &[], 200, &own, &OPERATOR).expect("may be kept");
    assert_eq!(after(&terms, 10, &[]), VALIDATE);
}

#[test]
fn s_maxage_forbids_what_the_operator_permits_but_not_what_the_origin_does_beside_it() {
    let terms = read("GET", &[], 200, &[("Cache-Control", "s-maxage=10")], &OPERATOR).expect("may be kept");
    assert_eq!(after(&terms, 10, &[]), VALIDATE);
    let both = [("Cache-Control", "s-maxage=10, stale-while-revalidate=5")];
    let terms = read("GET", &[], 200, &both, &OPERATOR).expect("may be kept");
    assert_eq!(after(&terms, 14, &[]), Use::StaleWhileRevalidate);
    assert_eq!(on_error(&terms, 15, &[]), None);
}

#[test]
fn a_reply_that_is_good_only_in_place_of_an_error_is_kept() {
    assert!(read("GET", &[], 200, &[("Cache-Control", "max-age=0")], &OPERATOR).is_ok());
}
