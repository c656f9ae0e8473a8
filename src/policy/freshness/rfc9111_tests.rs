//! RFC 9111, one test for each requirement that these decisions can break, by section. Keys, several stored replies and bodies
//! are `cache`'s.

use super::directives::Reply;
use super::ranges::{Part, Portion, portion};
use super::validators::{self, AfterHead, after_head, is_not_modified, selected, updated};
use super::*;
use crate::clock;
use jiff::Timestamp;
use jiff::tz::Offset;
use proptest::prelude::*;

pub(super) type Lines<'a> = &'a [(&'a str, &'a str)];

pub(super) const NONE: Rules =
    Rules { ttl: None, stale_while_revalidate: Duration::ZERO, stale_if_error: Duration::ZERO };
/// 2026-11-21 14:00:00 UTC.
const WALL: u64 = 1_795_269_600;

pub(super) fn wall() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(WALL)
}

pub(super) fn start() -> Instant {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *START.get_or_init(clock::now)
}

/// A date so many seconds from when replies come.
pub(super) fn date(seconds: i64) -> String {
    let moment = Timestamp::from_second(WALL.cast_signed() + seconds).expect("a time");
    Offset::UTC.to_datetime(moment).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

pub(super) fn fields(lines: Lines<'_>) -> Fields {
    let mut fields = Fields::default();
    for (name, value) in lines {
        fields.push(name.as_bytes(), value.as_bytes());
    }
    fields
}

pub(super) fn lines(fields: &Fields) -> Vec<(String, String)> {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    fields.iter().map(|(_, name, value)| (text(name), text(value))).collect()
}

fn at_once() -> Times {
    Times { requested: start(), received: start(), wall: wall() }
}

pub(super) fn read(
    method: &str,
    request: Lines<'_>,
    status: u16,
    reply: Lines<'_>,
    rules: &Rules,
) -> Result<Terms, Unstorable> {
    let (request, reply) = (fields(request), fields(reply));
    Terms::read((&Asked::read(method, &request), &request), false, (status, &reply), rules, at_once())
}

/// What may be kept of a GET with these lines, answered 200 with those.
fn answered(request: Lines<'_>, reply: Lines<'_>) -> Result<Terms, Unstorable> {
    read("GET", request, 200, reply, &NONE)
}

/// The terms of a plain GET answered with these lines, which are good enough to be kept.
pub(super) fn kept(reply: Lines<'_>) -> Terms {
    read("GET", &[], 200, reply, &NONE).expect("may be kept")
}

pub(super) fn status(status: u16, reply: Lines<'_>) -> Result<Terms, Unstorable> {
    read("GET", &[], status, reply, &NONE)
}

/// What it is good for so many seconds after it came, for a GET with these lines.
pub(super) fn after(terms: &Terms, seconds: u64, request: Lines<'_>) -> Use {
    terms.decide(&Asked::read("GET", &fields(request)), start() + Duration::from_secs(seconds))
}

/// For how many seconds after it came it is fresh.
pub(super) fn fresh_for(terms: &Terms) -> u64 {
    terms.lifetime().saturating_sub(terms.age(start())).as_secs()
}

pub(super) fn one(range: std::ops::Range<u64>) -> Portion {
    Portion::Ranges(vec![range])
}

/// Whether a provider has to be asked first, whatever is done if it fails.
fn wants_validation(use_: Use) -> bool {
    matches!(use_, Use::MustValidate { .. })
}

pub(super) const VALIDATE: Use = Use::MustValidate { stale_if_error: None };
const AGE: (&str, &str) = ("Cache-Control", "max-age=100");
const TAG: (&str, &str) = ("ETag", "\"1\"");

#[test]
fn section_1_2_2_a_number_too_large_is_a_very_large_one() {
    for value in ["max-age=2147483648", "max-age=99999999999", "max-age=99999999999999999999999999999999"] {
        assert_eq!(kept(&[("Cache-Control", value)]).lifetime(), Duration::from_secs(1 << 31), "{value}");
    }
}

#[test]
fn section_3_only_answers_to_methods_that_are_understood_are_kept() {
    assert!(read("GET", &[], 200, &[AGE], &NONE).is_ok());
    for method in ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "get", "FOO"] {
        assert_eq!(read(method, &[], 200, &[AGE], &NONE), Err(Unstorable::Method), "{method}");
    }
}

#[test]
fn section_3_an_answer_to_post_is_kept_only_with_its_body_in_the_key() {
    let (request, reply) = (fields(&[]), fields(&[AGE]));
    let asked = Asked::read("POST", &request);
    let post = |keyed| Terms::read((&asked, &request), keyed, (200, &reply), &NONE, at_once());
    assert_eq!(post(false), Err(Unstorable::Method));
    assert!(post(true).is_ok());
    assert!(asked.may_be_answered(true) && !asked.may_be_answered(false));
}

#[test]
fn section_3_only_final_answers_are_kept() {
    for code in [100, 101, 103, 304] {
        assert_eq!(status(code, &[AGE]), Err(Unstorable::Status), "{code}");
    }
    for code in [200, 201, 203, 204, 299, 301, 302, 400, 403, 404, 410, 499, 500, 502, 503, 504, 599] {
        assert!(status(code, &[AGE]).is_ok(), "{code}");
    }
}

#[test]
fn section_3_what_says_no_store_is_not_kept() {
    assert_eq!(answered(&[], &[("Cache-Control", "max-age=100, no-store")]), Err(Unstorable::NoStore));
    assert_eq!(answered(&[], &[AGE, ("cache-control", "No-Store")]), Err(Unstorable::NoStore));
}

#[test]
fn section_3_what_is_private_is_not_kept() {
    assert_eq!(answered(&[], &[("Cache-Control", "private, max-age=100")]), Err(Unstorable::Private));
    assert_eq!(answered(&[], &[("Cache-Control", "private=\"\", max-age=100")]), Err(Unstorable::Private));
}

#[test]
fn section_3_something_has_to_say_that_an_answer_may_be_kept() {
    let explicit = ["public, no-cache", "max-age=5", "s-maxage=5"].map(|value| ("Cache-Control", value));
    let expires = date(60);
    for line in [&explicit[..], &[("Expires", expires.as_str())]].concat() {
        assert!(status(403, &[line, TAG]).is_ok(), "{line:?}");
    }
    for code in [201, 202, 302, 303, 307, 400, 403, 500, 502, 503, 504, 599] {
        assert_eq!(status(code, &[TAG]), Err(Unstorable::Silent), "{code}");
    }
    for code in [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501] {
        assert!(status(code, &[TAG]).is_ok(), "{code}");
    }
}

#[test]
fn section_3_what_could_never_be_sent_again_is_not_kept() {
    assert_eq!(answered(&[], &[]), Err(Unstorable::Useless));
    assert_eq!(answered(&[], &[("Cache-Control", "no-cache")]), Err(Unstorable::Useless));
    assert_eq!(answered(&[], &[("Cache-Control", "max-age=0")]), Err(Unstorable::Useless));
}

#[test]
fn section_3_1_what_belongs_to_a_connection_or_a_proxy_is_not_kept() {
    let reply = [
        AGE,
        ("Connection", "x-one, X-Two"),
        ("X-One", "1"),
        ("x-two", "2"),
        ("X-Three", "3"),
        ("Keep-Alive", "5"),
        ("TE", "x"),
        ("Transfer-Encoding", "chunked"),
        ("Upgrade", "x"),
        ("Proxy-Connection", "x"),
        ("Proxy-Authenticate", "x"),
        ("Proxy-Authentication-Info", "x"),
        ("Proxy-Authorization", "x"),
    ];
    let left = lines(&kept(&reply).kept(&fields(&reply)));
    assert_eq!(left, [AGE, ("X-Three", "3")].map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[test]
fn section_3_1_all_other_fields_are_kept_known_or_not() {
    let reply =
        [AGE, ("Set-Cookie", "a=b"), ("Set-Cookie", "c=d"), ("WWW-Authenticate", "x"), ("X-Frame-Options", "deny")];
    assert_eq!(lines(&kept(&reply).kept(&fields(&reply))).len(), reply.len());
}

#[test]
fn section_3_2_an_update_replaces_every_line_of_its_fields_and_leaves_the_others() {
    let before = fields(&[("A", "1"), ("B", "1"), ("a", "2"), ("C", "1")]);
    let update = fields(&[("a", "3"), ("D", "1"), ("D", "2")]);
    let now: Vec<_> = lines(&updated(&before, &update)).into_iter().map(|(name, value)| name + &value).collect();
    assert_eq!(now, ["B1", "C1", "a3", "D1", "D2"]);
}

#[test]
fn section_3_2_an_update_does_not_change_what_describes_the_kept_body() {
    let before = fields(&[("Content-Encoding", "gzip"), ("Content-Type", "a/b")]);
    let update = fields(&[
        ("Content-Length", "0"),
        ("Content-Encoding", "br"),
        ("Content-Range", "bytes 0-1/2"),
        ("Content-Type", "c/d"),
    ]);
    let now = lines(&updated(&before, &update));
    assert_eq!(now, [("Content-Encoding", "gzip"), ("Content-Type", "c/d")].map(|(a, b)| (a.to_owned(), b.to_owned())));
}

#[test]
fn section_3_2_what_an_update_says_of_freshness_holds_from_then_on() {
    let before = fields(&[("Cache-Control", "max-age=1"), ("Date", &date(-500)), TAG]);
    let merged = updated(&before, &fields(&[("Cache-Control", "max-age=3600"), ("Date", &date(0)), ("Age", "7")]));
    let request = fields(&[]);
    let terms = Terms::read((&Asked::read("GET", &request), &request), false, (200, &merged), &NONE, at_once());
    assert_eq!(fresh_for(&terms.expect("may be kept")), 3593);
}

#[test]
fn section_3_3_a_part_answers_only_what_lies_in_it() {
    let asked = |range: &str| {
        let terms = status(206, &[AGE, ("Content-Range", "bytes 4-8/10")]).expect("may be kept");
        let request = fields(&[("Range", range)]);
        portion(&Asked::read("GET", &request), &request, (206, &terms), None, wall())
    };
    assert_eq!(asked("bytes=6-7"), Some(one(6..8)));
    assert_eq!(asked("bytes=4-8"), Some(one(4..9)));
    for range in ["bytes=3-8", "bytes=4-", "bytes=-1", "bytes=0-", "bytes=4-5,9-9", "foo=4-5", "bytes=5-4"] {
        assert_eq!(asked(range), None, "{range}");
    }
    let terms = status(206, &[AGE, ("Content-Range", "bytes 4-8/10")]).expect("may be kept");
    assert_eq!(portion(&Asked::default(), &fields(&[]), (206, &terms), None, wall()), None, "the whole is not there");
    assert_eq!(terms.part, Some(Part { bytes: 4..9, of: 10 }));
    assert_eq!(terms.part.and_then(|part| part.place(&(6..8))), Some(2..4));
}

#[test]
fn section_3_3_a_part_that_is_not_understood_is_not_kept() {
    for range in ["bytes 4-8/*", "items 4-8/10", "bytes */10", "bytes 8-4/10", "bytes 4-10/10", "x"] {
        assert_eq!(status(206, &[AGE, ("Content-Range", range)]), Err(Unstorable::Partial), "{range}");
    }
    assert_eq!(status(206, &[AGE, ("Content-Type", "multipart/byteranges; boundary=x")]), Err(Unstorable::Partial));
}

#[test]
fn section_3_5_an_answer_to_who_is_authorised_needs_permission() {
    let authorised = [("Authorization", "Basic x")];
    assert_eq!(answered(&authorised, &[AGE]), Err(Unstorable::Authorised));
    assert_eq!(answered(&authorised, &[("Expires", &date(60))]), Err(Unstorable::Authorised));
    assert_eq!(answered(&[("X-API-Key", "x")], &[AGE]), Err(Unstorable::Authorised));
    for permission in ["public, max-age=1", "must-revalidate, max-age=1", "s-maxage=1"] {
        assert!(answered(&authorised, &[("Cache-Control", permission)]).is_ok(), "{permission}");
    }
}

#[test]
fn section_4_only_get_and_head_are_answered_and_unsafe_methods_are_written_through() {
    for (method, may) in
        [("GET", true), ("HEAD", true), ("POST", false), ("PUT", false), ("OPTIONS", false), ("X", false)]
    {
        assert_eq!(Asked::read(method, &fields(&[])).may_be_answered(false), may, "{method}");
    }
}

#[test]
fn section_4_an_age_is_told_that_grows() {
    let terms = kept(&[AGE, ("Age", "30"), ("Date", &date(0))]);
    assert_eq!(terms.age(start() + Duration::from_millis(2500)), Duration::from_millis(32_500));
}

fn varied(reply: Lines<'_>, first: Lines<'_>, second: Lines<'_>) -> bool {
    let terms = answered(first, &[&[AGE], reply].concat()).expect("may be kept");
    terms.vary.matches(&fields(second))
}

#[test]
fn section_4_1_all_fields_that_vary_names_must_match() {
    let foo = [("Vary", "Foo")];
    assert!(varied(&foo, &[("Foo", "1")], &[("foo", "1"), ("Other", "2")]));
    assert!(!varied(&foo, &[("Foo", "1")], &[("Foo", "2")]));
    assert!(!varied(&foo, &[("Foo", "1")], &[]));
    assert!(!varied(&foo, &[], &[("Foo", "1")]));
    assert!(varied(&foo, &[], &[]));
    for both in [&[("Vary", "Foo, Bar")][..], &[("Vary", "foo"), ("vary", "BAR")]] {
        assert!(varied(both, &[("Foo", "1"), ("Bar", "2")], &[("Bar", "2"), ("Foo", "1")]));
        assert!(!varied(both, &[("Foo", "1"), ("Bar", "2")], &[("Foo", "1"), ("Bar", "3")]));
        assert!(!varied(both, &[("Foo", "1"), ("Bar", "2")], &[("Foo", "1")]));
    }
}

#[test]
fn section_4_1_values_match_once_they_are_normalised() {
    let foo = [("Vary", "Foo")];
    assert!(varied(&foo, &[("Foo", "1, 2")], &[("Foo", "1"), ("Foo", "2")]), "combined lines");
    assert!(varied(&foo, &[("Foo", "1,2")], &[("Foo", " 1 ,\t2 ")]), "space");
    assert!(!varied(&foo, &[("Foo", "1, 2")], &[("Foo", "2, 1")]), "order may mean something");
    assert!(!varied(&foo, &[("Foo", "a")], &[("Foo", "A")]), "case may mean something");
    assert!(!varied(&foo, &[("Foo", "\"1 , 2\"")], &[("Foo", "\"1,2\"")]), "what is quoted is no list");
    assert!(varied(&foo, &[("Foo", "")], &[("Foo", " ")]));
    assert!(!varied(&foo, &[("Foo", "")], &[]), "empty is not absent");
    let encoding = [("Vary", "Accept-Encoding")];
    assert!(varied(&encoding, &[("Accept-Encoding", "gzip, BR;q=1")], &[("Accept-Encoding", "br; q=1,gzip")]));
    let language = [("Vary", "Accept-Language")];
    assert!(varied(&language, &[("Accept-Language", "en-US, de")], &[("Accept-Language", "EN-us,de")]));
    assert!(!varied(&language, &[("Accept-Language", "en, de")], &[("Accept-Language", "de, en")]));
}

#[test]
fn section_4_1_requests_that_match_share_a_key() {
    let terms = answered(&[("Foo", "1")], &[AGE, ("Vary", "Foo, Bar")]).expect("may be kept");
    let key = |request: Lines<'_>| {
        let mut key = b"k".to_vec();
        terms.vary.write(&fields(request), &mut key);
        key
    };
    assert_eq!(key(&[("Foo", "1, 2")]), key(&[("foo", "1"), ("Foo", "2")]));
    let others: [Lines<'_>; 4] = [&[], &[("Foo", "")], &[("Bar", "1")], &[("Foo", "1"), ("Bar", "1")]];
    for (index, one) in others.iter().enumerate() {
        assert!(others[index + 1..].iter().all(|other| key(one) != key(other)), "{one:?}");
    }
}

#[test]
fn section_4_1_a_star_matches_nothing() {
    for value in ["*", "*, *", ", *", "*, Foo", "Foo, *"] {
        assert_eq!(answered(&[], &[AGE, ("Vary", value)]), Err(Unstorable::Vary), "{value}");
    }
    assert_eq!(answered(&[], &[AGE, ("Vary", ""), ("Vary", "*")]), Err(Unstorable::Vary));
}

#[test]
fn section_4_1_what_the_gateway_writes_anew_for_each_request_matches_nothing() {
    for name in ["X-Forwarded-For", "Forwarded", "X-Request-Id", "traceparent", "Via"] {
        assert_eq!(answered(&[], &[AGE, ("Vary", name)]), Err(Unstorable::Vary), "{name}");
    }
    assert!(varied(&[("Vary", "Host")], &[("Host", "a")], &[("Host", "b")]), "the key has it");
}

#[test]
fn section_4_2_a_reply_is_fresh_until_its_age_is_its_lifetime() {
    let terms = kept(&[AGE]);
    assert_eq!(after(&terms, 99, &[]), Use::Fresh);
    assert_eq!(after(&terms, 100, &[]), VALIDATE);
}

#[test]
fn section_4_2_1_the_first_that_is_there_of_s_maxage_max_age_and_expires_counts() {
    let expires = date(1000);
    let of = |value| fresh_for(&kept(&[("Cache-Control", value), ("Expires", &expires), ("Date", &date(0)), TAG]));
    assert_eq!(of("max-age=10, s-maxage=20"), 20);
    assert_eq!(of("s-maxage=0, max-age=10"), 0);
    assert_eq!(of("max-age=10"), 10);
    assert_eq!(of("max-age=0"), 0);
    assert_eq!(of("foo"), 1000);
}

#[test]
fn section_4_2_1_expires_counts_from_the_date_of_the_reply() {
    let (expires, then) = (date(100), date(-20));
    let terms = kept(&[("Expires", &expires), ("Date", &then)]);
    assert_eq!(terms.lifetime(), Duration::from_secs(120));
    assert_eq!(fresh_for(&terms), 100);
    assert_eq!(fresh_for(&kept(&[("Expires", &expires)])), 100, "without a date from when it came");
}

#[test]
fn section_4_2_1_of_two_that_differ_the_first_counts() {
    assert_eq!(fresh_for(&kept(&[("Cache-Control", "max-age=10, max-age=20")])), 10);
    assert_eq!(fresh_for(&kept(&[("Cache-Control", "max-age=20"), ("Cache-Control", "max-age=10")])), 20);
    assert_eq!(fresh_for(&kept(&[("Expires", &date(10)), ("Expires", &date(20))])), 10);
}

#[test]
fn section_4_2_1_of_directives_in_conflict_the_stricter_holds() {
    assert_eq!(after(&kept(&[("Cache-Control", "max-age=100, no-cache"), TAG]), 1, &[]), VALIDATE);
    assert_eq!(answered(&[], &[("Cache-Control", "public, private, max-age=100")]), Err(Unstorable::Private));
}

#[test]
fn section_4_2_1_what_is_no_number_is_stale() {
    for value in [
        "max-age=abc",
        "max-age=a100",
        "max-age=100a",
        "max-age=1.5",
        "max-age=-1",
        "max-age='100'",
        "max-age=",
        "max-age",
    ] {
        let terms = kept(&[("Cache-Control", value), ("Expires", &date(100)), TAG]);
        assert_eq!(after(&terms, 0, &[]), VALIDATE, "{value}");
    }
    let s_maxage = kept(&[("Cache-Control", "s-maxage=x, max-age=100"), TAG]);
    assert_eq!(after(&s_maxage, 0, &[]), VALIDATE);
}

#[test]
fn section_4_2_2_nothing_is_assumed_where_the_origin_says_how_long() {
    let (day_ago, now) = (date(-86_400), date(0));
    for explicit in [("Cache-Control", "max-age=0"), ("Cache-Control", "s-maxage=0"), ("Expires", now.as_str())] {
        let terms = read(
            "GET",
            &[],
            200,
            &[explicit, ("Last-Modified", &day_ago), ("Date", &now)],
            &Rules { ttl: Some(Duration::from_secs(60)), ..NONE },
        );
        assert_eq!(fresh_for(&terms.expect("may be kept")), 0, "{explicit:?}");
    }
}

#[test]
fn section_4_2_2_a_reply_that_says_nothing_is_fresh_for_a_tenth_of_its_age_and_a_day_at_most() {
    let of = |seconds: i64| fresh_for(&kept(&[("Last-Modified", &date(-seconds)), ("Date", &date(0))]));
    assert_eq!(of(1000), 100);
    assert_eq!(of(86_400), 8640);
    assert_eq!(of(86_400 * 365), 86_400);
    assert_eq!(of(-1000), 0, "modified in the future");
}

#[test]
fn section_4_2_2_nothing_is_assumed_for_other_statuses_unless_they_are_public() {
    let day_ago = date(-86_400);
    for code in [201, 202, 302, 403, 500, 502, 503, 504, 599] {
        assert_eq!(status(code, &[("Last-Modified", &day_ago)]), Err(Unstorable::Silent), "{code}");
        let public = status(code, &[("Last-Modified", &day_ago), ("Cache-Control", "public")]);
        assert_eq!(fresh_for(&public.expect("may be kept")), 8640, "{code}");
    }
}

#[test]
fn section_4_2_2_where_the_origin_says_nothing_the_operator_does() {
    let rules = Rules { ttl: Some(Duration::from_secs(60)), ..NONE };
    let day_ago = date(-86_400);
    assert_eq!(fresh_for(&read("GET", &[], 200, &[("Last-Modified", &day_ago)], &rules).expect("may be kept")), 60);
    assert_eq!(fresh_for(&read("GET", &[], 404, &[], &rules).expect("may be kept")), 60);
    assert_eq!(read("GET", &[], 500, &[], &rules), Err(Unstorable::Silent));
}

#[test]
fn what_nobody_says_is_for_all_is_neither_kept_from_nor_given_to_who_tells_who_it_is() {
    let rules = Rules { ttl: Some(Duration::from_secs(60)), ..NONE };
    let assumed = |request, reply| read("GET", request, 200, reply, &rules);
    let (cookie, authorised) = ([("Cookie", "a=b")], [("Authorization", "x")]);
    assert_eq!(assumed(&cookie, &[]), Err(Unstorable::Cookie));
    assert_eq!(assumed(&authorised, &[]), Err(Unstorable::Authorised));
    assert_eq!(assumed(&[], &[("Set-Cookie", "a=b")]), Err(Unstorable::Cookie));
    let terms = assumed(&[], &[]).expect("may be kept");
    assert_eq!(after(&terms, 1, &[]), Use::Fresh);
    assert_eq!(after(&terms, 1, &cookie), Use::Unusable);
    assert_eq!(after(&terms, 1, &authorised), Use::Unusable);
    let public = assumed(&cookie, &[("Cache-Control", "public")]).expect("may be kept");
    assert_eq!(after(&public, 1, &cookie), Use::Fresh);
}

#[test]
fn section_7_3_a_cookie_does_not_keep_the_origins_word_from_being_followed() {
    assert!(answered(&[], &[AGE, ("Set-Cookie", "a=b")]).is_ok());
    assert_eq!(
        after(&answered(&[("Cookie", "a=b")], &[AGE]).expect("may be kept"), 1, &[("Cookie", "c=d")]),
        Use::Fresh
    );
}

#[test]
fn section_4_2_3_an_age_counts_what_is_told_what_the_date_shows_and_what_the_way_took() {
    let age = |reply: Lines<'_>, delay: u64| {
        let (request, reply) = (fields(&[]), fields(&[&[("Cache-Control", "max-age=9999")], reply].concat()));
        let received = start() + Duration::from_secs(delay);
        let times = Times { requested: start(), received, wall: wall() };
        let terms = Terms::read((&Asked::read("GET", &request), &request), false, (200, &reply), &NONE, times);
        terms.expect("may be kept").age(received + Duration::from_secs(5)).as_secs()
    };
    assert_eq!(age(&[("Age", "30"), ("Date", &date(0))], 0), 35);
    assert_eq!(age(&[("Age", "30"), ("Date", &date(0))], 4), 39, "the way counts");
    assert_eq!(age(&[("Age", "30"), ("Date", &date(-100))], 4), 105, "the date shows more");
    assert_eq!(age(&[("Date", &date(100))], 0), 5, "a date in the future shows nothing");
    assert_eq!(age(&[], 2), 7);
}

#[test]
fn section_4_2_4_a_stale_reply_is_not_sent_unless_somebody_permits_it() {
    assert_eq!(after(&kept(&[AGE]), 101, &[]), VALIDATE);
}

#[test]
fn section_4_2_4_nobody_permits_what_the_origin_forbids() {
    let rules = Rules { stale_while_revalidate: HOUR, stale_if_error: HOUR, ..NONE };
    for prohibition in ["no-cache", "must-revalidate", "proxy-revalidate", "s-maxage=10"] {
        let value = format!("max-age=10, {prohibition}");
        let terms = read("GET", &[], 200, &[("Cache-Control", &value), TAG], &rules).expect("may be kept");
        let request = [("Cache-Control", "max-stale, stale-if-error=99")];
        assert_eq!(after(&terms, 11, &request), VALIDATE, "{prohibition}");
        assert!(terms.forbids_stale());
    }
    let terms = read("GET", &[], 200, &[("Cache-Control", "max-age=10")], &rules).expect("may be kept");
    assert!(!terms.forbids_stale());
}

const HOUR: Duration = Duration::from_hours(1);

fn conditions(replies: &[Lines<'_>]) -> Vec<(String, String)> {
    let heads: Vec<Fields> = replies.iter().map(|reply| fields(reply)).collect();
    let terms: Vec<Terms> = replies.iter().map(|reply| kept(reply)).collect();
    let kept: Vec<(&Terms, &Fields)> = terms.iter().zip(&heads).collect();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    validators::conditions(&kept).into_iter().map(|(name, value)| (text(name), text(&value))).collect()
}

#[test]
fn section_4_3_1_every_tag_is_sent_and_a_date_where_one_reply_is_asked_about() {
    let (modified, other) = (date(-10), date(-20));
    let one: Lines<'_> = &[AGE, TAG, ("Last-Modified", &modified)];
    let two: Lines<'_> = &[AGE, ("ETag", "W/\"2\""), ("Last-Modified", &other)];
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(conditions(&[one]), [pair("if-none-match", "\"1\""), pair("if-modified-since", &modified)]);
    assert_eq!(conditions(&[one, two]), [pair("if-none-match", "\"1\", W/\"2\"")]);
    assert_eq!(conditions(&[&[AGE, ("Last-Modified", &other)]]), [pair("if-modified-since", &other)]);
    assert_eq!(conditions(&[&[AGE]]), []);
}

fn not_modified(reply: Lines<'_>, request: Lines<'_>) -> bool {
    let (terms, request) = (kept(&[&[AGE], reply].concat()), fields(request));
    is_not_modified(&Asked::read("GET", &request), &request, 200, &terms, wall())
}

#[test]
fn section_4_3_2_if_none_match_is_compared_weakly_with_any_of_its_tags() {
    let strong = [("ETag", "\"a,b\"")];
    for value in ["\"a,b\"", "W/\"a,b\"", "\"x\", \"a,b\"", "\"x\" , W/\"a,b\",\"y\"", "*"] {
        assert!(not_modified(&strong, &[("If-None-Match", value)]), "{value}");
    }
    assert!(not_modified(&[("ETag", "W/\"a\"")], &[("If-None-Match", "\"a\"")]));
    assert!(not_modified(&strong, &[("If-None-Match", "\"x\""), ("If-None-Match", "\"a,b\"")]));
    for value in ["\"a\"", "\"A,B\"", "w/\"a,b\"", "a,b"] {
        assert!(!not_modified(&strong, &[("If-None-Match", value)]), "{value}");
    }
    assert!(!not_modified(&[], &[("If-None-Match", "\"a\"")]));
}

#[test]
fn section_4_3_2_if_none_match_goes_before_if_modified_since() {
    let (modified, later) = (date(-5000), date(-1));
    let reply = [TAG, ("Last-Modified", modified.as_str())];
    assert!(!not_modified(&reply, &[("If-None-Match", "\"2\""), ("If-Modified-Since", &later)]));
    let earlier = date(-9000);
    assert!(not_modified(&reply, &[("If-None-Match", "\"1\""), ("If-Modified-Since", &earlier)]));
}

#[test]
fn section_4_3_2_if_modified_since_is_compared_with_last_modified_or_the_date_or_when_it_came() {
    let (earlier, same, later) = (date(-80), date(-50), date(-20));
    for reply in [("Last-Modified", same.as_str()), ("Date", same.as_str())] {
        let answers =
            |since: &str| not_modified(&[reply, ("Cache-Control", "max-age=999")], &[("If-Modified-Since", since)]);
        assert!(!answers(&earlier), "{reply:?}");
        assert!(answers(&same) && answers(&later), "{reply:?}");
    }
    assert!(not_modified(&[], &[("If-Modified-Since", &date(0))]));
    assert!(!not_modified(&[], &[("If-Modified-Since", &date(-1))]));
    assert!(!not_modified(&[("Last-Modified", &same)], &[("If-Modified-Since", "yesterday")]), "no date");
    let twice = [("If-Modified-Since", later.as_str()), ("If-Modified-Since", later.as_str())];
    assert!(!not_modified(&[("Last-Modified", &same)], &twice));
}

#[test]
fn section_4_3_2_conditions_mean_nothing_for_errors_and_other_methods() {
    let request = fields(&[("If-None-Match", "\"1\"")]);
    let terms = status(404, &[AGE, TAG]).expect("may be kept");
    assert!(!is_not_modified(&Asked::read("GET", &request), &request, 404, &terms, wall()));
    assert!(!is_not_modified(&Asked::read("POST", &request), &request, 200, &terms, wall()));
    assert!(is_not_modified(&Asked::read("HEAD", &request), &request, 200, &terms, wall()));
}

#[test]
fn section_4_3_2_what_only_an_origin_may_evaluate_is_left_to_it() {
    for line in [("If-Match", "\"1\""), ("If-Unmodified-Since", "x")] {
        assert!(!Asked::read("GET", &fields(&[line])).may_be_answered(false), "{line:?}");
    }
}

fn chosen(replies: &[Lines<'_>], update: Lines<'_>) -> Vec<usize> {
    let terms: Vec<Terms> = (0_u64..)
        .zip(replies)
        .map(|(at, reply)| Terms { received: start() + Duration::from_secs(at), ..kept(reply) })
        .collect();
    selected(&terms.iter().collect::<Vec<_>>(), &fields(update), wall())
}

#[test]
fn section_4_3_4_a_strong_validator_selects_all_that_have_it_and_nothing_else() {
    let replies: [Lines<'_>; 3] = [&[AGE, TAG], &[AGE, ("ETag", "\"2\"")], &[AGE, TAG]];
    assert_eq!(chosen(&replies, &[TAG]), [0, 2]);
    assert_eq!(chosen(&replies, &[("ETag", "\"3\"")]), [0; 0]);
    assert_eq!(chosen(&replies[..1], &[("ETag", "\"3\"")]), [0; 0], "even if there is only one");
}

#[test]
fn section_4_3_4_a_weak_validator_selects_the_latest_that_has_it() {
    let weak: Lines<'_> = &[AGE, ("ETag", "W/\"1\"")];
    assert_eq!(chosen(&[weak, weak, &[AGE, ("ETag", "W/\"2\"")]], &[("ETag", "W/\"1\"")]), [1]);
    let (old, new) = (date(-100), date(-50));
    let modified = |value| [AGE, ("Last-Modified", value)];
    let (one, two) = (modified(old.as_str()), modified(new.as_str()));
    assert_eq!(chosen(&[&one, &two, &one], &[("Last-Modified", &old)]), [2]);
    assert_eq!(chosen(&[&one], &[("Last-Modified", &new)]), [0; 0]);
}

#[test]
fn section_4_3_4_without_a_validator_the_only_reply_is_meant() {
    assert_eq!(chosen(&[&[AGE, TAG]], &[]), [0]);
    assert_eq!(chosen(&[&[AGE], &[AGE]], &[]), [0; 0]);
}

#[test]
fn section_4_3_5_an_answer_to_head_updates_what_it_agrees_with_and_invalidates_the_rest() {
    let modified = date(-100);
    let terms = kept(&[AGE, TAG, ("Last-Modified", &modified)]);
    let head = |lines: Lines<'_>| after_head(&terms, Some(10), &fields(lines), wall());
    assert_eq!(head(&[]), AfterHead::Update);
    assert_eq!(head(&[TAG, ("Last-Modified", &modified), ("Content-Length", "10")]), AfterHead::Update);
    assert_eq!(head(&[("ETag", "\"2\"")]), AfterHead::Invalidate);
    assert_eq!(head(&[("Last-Modified", &date(-99))]), AfterHead::Invalidate);
    assert_eq!(head(&[TAG, ("Content-Length", "11")]), AfterHead::Invalidate);
    let mut stale = terms.clone();
    stale.invalidate();
    assert_eq!(after(&stale, 1, &[]), VALIDATE);
}

#[test]
fn section_4_4_what_an_unsafe_request_may_have_changed_is_invalidated_unless_it_failed() {
    for method in ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "FOO"] {
        for (code, does) in [(200, true), (204, true), (303, true), (400, false), (500, false)] {
            assert_eq!(invalidation::invalidates(method, code), does, "{method} {code}");
        }
    }
    for method in ["GET", "HEAD", "OPTIONS", "TRACE"] {
        assert!(!invalidation::invalidates(method, 200), "{method}");
    }
}

#[test]
fn section_4_4_other_urls_are_invalidated_only_within_the_origin() {
    let also = |name, value| -> Vec<String> {
        invalidation::also(&fields(&[(name, value)]), "http", "a.example", "/dir/page").collect()
    };
    for (value, path) in [
        ("/x?y#z", "/x?y"),
        ("x", "/dir/x"),
        ("../x", "/x"),
        ("./", "/dir/"),
        ("?q", "/dir/page?q"),
        ("http://a.example/x", "/x"),
        ("HTTP://A.example:80", "/"),
        ("//a.example/x/../y", "/y"),
    ] {
        assert_eq!(also("Location", value), [path], "{value}");
        assert_eq!(also("Content-Location", value), [path], "{value}");
    }
    for value in ["https://a.example/x", "http://b.example/x", "//b.example/x", "http://a.example:81/x", "mailto:x", ""]
    {
        assert_eq!(also("Location", value), [""; 0], "{value}");
    }
}

#[test]
fn section_5_1_of_an_age_the_first_counts_and_what_is_no_number_does_not() {
    let age = |values: &[&str]| {
        let reply: Vec<(&str, &str)> =
            [("Cache-Control", "max-age=9999")].into_iter().chain(values.iter().map(|value| ("Age", *value))).collect();
        kept(&reply).age(start()).as_secs()
    };
    assert_eq!(age(&["7"]), 7);
    assert_eq!(age(&["7, 9"]), 7);
    assert_eq!(age(&["0", "7"]), 0);
    for value in ["abc", "-7", "7.0", "", "+7"] {
        assert_eq!(age(&[value]), 0, "{value}");
    }
}

#[test]
fn section_5_2_directives_are_read_in_any_case_and_in_either_form() {
    for value in ["MaX-aGe=100", "max-age=\"100\"", "foo, max-age=100", "max-age=00100", "a=\"b, c\" ,, max-age=100"] {
        assert_eq!(fresh_for(&kept(&[("Cache-Control", value)])), 100, "{value}");
    }
}

#[test]
fn section_5_2_what_is_quoted_is_no_directive() {
    for value in
        ["x=\"max-age=3600\", max-age=1", "max-age=1, x=\"max-age=3600\"", "x=\"\\\", max-age=3600\", max-age=1"]
    {
        assert_eq!(fresh_for(&kept(&[("Cache-Control", value)])), 1, "{value}");
    }
    assert!(answered(&[], &[("Cache-Control", "x=\"no-store\", max-age=1")]).is_ok());
}

#[test]
fn section_5_2_no_space_stands_around_the_equals_sign() {
    assert_eq!(answered(&[], &[("Cache-Control", "max-age =100")]), Err(Unstorable::Useless));
    assert_eq!(after(&kept(&[("Cache-Control", "max-age= 100"), TAG]), 0, &[]), VALIDATE);
}

#[test]
fn section_5_2_1_1_max_age_of_a_request_wants_nothing_older() {
    let terms = kept(&[AGE, ("Age", "50")]);
    assert_eq!(after(&terms, 0, &[("Cache-Control", "max-age=50")]), Use::Fresh);
    assert!(wants_validation(after(&terms, 0, &[("Cache-Control", "max-age=49")])));
    assert!(wants_validation(after(&terms, 1, &[("Cache-Control", "max-age=0")])));
}

#[test]
fn section_5_2_1_2_max_stale_takes_what_expired_no_longer_ago() {
    let terms = kept(&[AGE]);
    assert_eq!(after(&terms, 110, &[("Cache-Control", "max-stale=10")]), Use::Stale);
    assert_eq!(after(&terms, 111, &[("Cache-Control", "max-stale=10")]), VALIDATE);
    assert_eq!(after(&terms, 99_999, &[("Cache-Control", "max-stale")]), Use::Stale);
    assert_eq!(after(&terms, 101, &[("Cache-Control", "max-stale=x")]), VALIDATE);
    assert_eq!(after(&terms, 110, &[("Cache-Control", "max-stale=100, max-age=105")]), VALIDATE);
}

#[test]
fn section_5_2_1_3_min_fresh_wants_what_stays_fresh() {
    let terms = kept(&[AGE]);
    assert_eq!(after(&terms, 60, &[("Cache-Control", "min-fresh=40")]), Use::Fresh);
    assert!(wants_validation(after(&terms, 61, &[("Cache-Control", "min-fresh=40")])));
}

#[test]
fn section_5_2_1_4_no_cache_of_a_request_wants_validation() {
    let rules = Rules { stale_if_error: HOUR, stale_while_revalidate: HOUR, ..NONE };
    let terms = read("GET", &[], 200, &[AGE], &rules).expect("may be kept");
    let used = after(&terms, 1, &[("Cache-Control", "no-cache")]);
    // Where that cannot be had, an old reply is better than an error.
    assert!(matches!(used, Use::MustValidate { stale_if_error: Some(_) }), "{used:?}");
}

#[test]
fn section_5_2_1_5_no_store_of_a_request_keeps_its_answer_out_but_not_others() {
    assert_eq!(answered(&[("Cache-Control", "no-store")], &[AGE]), Err(Unstorable::RequestNoStore));
    assert_eq!(after(&kept(&[AGE]), 1, &[("Cache-Control", "no-store")]), Use::Fresh);
}

#[test]
fn section_5_2_1_7_only_if_cached_is_seen() {
    assert!(Asked::read("GET", &fields(&[("Cache-Control", "only-if-cached")])).directives.only_if_cached);
}

#[test]
fn section_5_2_2_2_must_revalidate_forbids_what_is_stale() {
    let terms = kept(&[("Cache-Control", "max-age=10, must-revalidate, stale-while-revalidate=60, stale-if-error=60")]);
    assert_eq!(after(&terms, 9, &[]), Use::Fresh);
    assert_eq!(after(&terms, 10, &[("Cache-Control", "max-stale")]), VALIDATE);
}

#[test]
fn section_5_2_2_3_must_understand_keeps_out_what_is_not_understood_and_overrides_no_store_where_it_is() {
    let value = [("Cache-Control", "must-understand, no-store, max-age=10")];
    assert!(status(200, &value).is_ok());
    assert_eq!(status(599, &value), Err(Unstorable::Status));
    assert_eq!(status(418, &[("Cache-Control", "must-understand, max-age=10")]), Err(Unstorable::Status));
}

#[test]
fn section_5_2_2_4_no_cache_is_validated_each_time() {
    let terms = kept(&[("Cache-Control", "no-cache, max-age=100"), TAG]);
    assert_eq!(after(&terms, 0, &[("Cache-Control", "max-stale")]), VALIDATE);
}

#[test]
fn section_5_2_2_4_fields_that_no_cache_names_are_not_kept() {
    let reply = [("Cache-Control", "max-age=9, no-cache=\"a, B\""), ("A", "1"), ("b", "2"), ("c", "3")];
    let terms = kept(&reply);
    assert_eq!(after(&terms, 1, &[]), Use::Fresh);
    assert_eq!(lines(&terms.kept(&fields(&reply))).last().map(|line| line.0.clone()), Some("c".to_owned()));
    assert_eq!(lines(&terms.kept(&fields(&reply))).len(), 2);
    let unquoted = [("Cache-Control", "max-age=9, no-cache=a"), ("a", "1")];
    assert_eq!(lines(&kept(&unquoted).kept(&fields(&unquoted))).len(), 1);
}

#[test]
fn section_5_2_2_7_fields_that_private_names_are_not_kept() {
    let reply = [("Cache-Control", "max-age=9, private=\"Set-Cookie\""), ("Set-Cookie", "1"), ("c", "3")];
    assert_eq!(lines(&kept(&reply).kept(&fields(&reply))).len(), 2);
}

#[test]
fn section_5_2_2_8_proxy_revalidate_is_must_revalidate_here() {
    let terms = kept(&[("Cache-Control", "max-age=10, proxy-revalidate")]);
    assert_eq!(after(&terms, 9, &[]), Use::Fresh);
    assert_eq!(after(&terms, 10, &[("Cache-Control", "max-stale")]), VALIDATE);
}

#[test]
fn section_5_2_2_10_s_maxage_forbids_what_is_stale() {
    let terms = kept(&[("Cache-Control", "s-maxage=10")]);
    assert_eq!(after(&terms, 10, &[("Cache-Control", "max-stale")]), VALIDATE);
}

#[test]
fn section_5_2_3_what_is_unknown_is_ignored() {
    let reply = Reply::read(&fields(&[("Cache-Control", "foo, bar=1, max-age=5, no-storex, x-no-store")]));
    assert_eq!(reply, Reply { max_age: Some(Span::Seconds(5)), ..Reply::default() });
}

#[test]
fn section_5_3_an_expires_that_is_no_date_is_past() {
    for value in ["0", "-1", "never", "Thu, 18 Aug 2050 02:01:18 UTC", "Thu, 18-Aug-2050 02:01:18 GMT", ""] {
        assert_eq!(after(&kept(&[("Expires", value), TAG]), 0, &[]), VALIDATE, "{value}");
    }
    assert_eq!(after(&kept(&[("Expires", "Sun, 21 Nov 2286 04:46:39 GMT")]), 0, &[]), Use::Fresh);
}

#[test]
fn section_5_4_pragma_is_no_cache_where_there_is_no_cache_control() {
    let terms = kept(&[AGE]);
    assert!(matches!(after(&terms, 1, &[("Pragma", "foo, No-Cache")]), Use::MustValidate { .. }));
    assert_eq!(after(&terms, 1, &[("Pragma", "no-cache"), ("Cache-Control", "max-age=50")]), Use::Fresh);
    assert_eq!(after(&kept(&[AGE, ("Pragma", "no-cache")]), 1, &[]), Use::Fresh, "in replies it means nothing");
}

fn words() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("max-age"),
        Just("no-cache"),
        Just("private"),
        Just("public"),
        Just("s-maxage"),
        Just("stale-if-error"),
        Just("="),
        Just("\""),
        Just(","),
        Just(" "),
        Just("10"),
        Just("99999999999"),
        Just("\\"),
        Just("x"),
        Just("*"),
        Just(";"),
        Just("("),
        Just("W/"),
        Just("-"),
        Just("bytes"),
        Just("/"),
    ];
    proptest::collection::vec(word, 0..12).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn whatever_is_said_a_private_or_forbidden_reply_is_not_kept_and_nothing_panics(
        said in words(), other in words(), targeted in words(), passed in 0..1_u64 << 40
    ) {
        let request = fields(&[("Cache-Control", &other), ("If-None-Match", &said), ("Range", &targeted), ("If-Range", &other)]);
        let reply = fields(&[("Cache-Control", &said), ("CDN-Cache-Control", &targeted), ("Vary", &other), ("ETag", &said), ("Age", &other)]);
        let asked = Asked::read("GET", &request);
        let rules = Rules { ttl: Some(HOUR), stale_while_revalidate: HOUR, stale_if_error: HOUR };
        let forbidden = Reply::read(&reply);
        if let Ok(terms) = Terms::read((&asked, &request), false, (200, &reply), &rules, at_once()) {
            prop_assert!(!forbidden.private && (!forbidden.no_store || forbidden.must_understand));
            let now = start() + Duration::from_secs(passed);
            let verdict = terms.decide(&asked, now);
            if verdict == Use::Fresh {
                prop_assert!(terms.expired_for(now).is_none() && !forbidden.no_cache);
            }
            if forbidden.must_revalidate && terms.expired_for(now).is_some() {
                prop_assert_eq!(verdict, VALIDATE);
            }
            let _: bool = is_not_modified(&asked, &request, 200, &terms, wall());
            let _: Option<Portion> = portion(&asked, &request, (200, &terms), Some(100), wall());
            prop_assert!(terms.vary.matches(&request));
        }
    }
}
