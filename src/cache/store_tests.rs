use super::super::key::Parts;
use super::*;
use crate::clock;
use crate::instant::Instant;
use proptest::prelude::*;
use std::time::{Duration, SystemTime};

type Lines<'a> = &'a [(&'a str, &'a str)];

const RULES: Rules = Rules { ttl: None, stale_while_revalidate: Duration::ZERO, stale_if_error: Duration::ZERO };
const PARTS: Parts<'_> =
    Parts { route: "api", place: b"", scheme: "http", authority: b"a.example", path: "/x", query: None, body: None };
const AGE: (&str, &str) = ("Cache-Control", "max-age=60");

fn key(parts: &Parts<'_>) -> Key {
    let mut written = Vec::new();
    parts.write(&mut written);
    Key::new(&written)
}

fn path(path: &str) -> Key {
    key(&Parts { path, ..PARTS })
}

fn fields(lines: Lines<'_>) -> Fields {
    let mut fields = Fields::default();
    for (name, value) in lines {
        fields.push(name.as_bytes(), value.as_bytes());
    }
    fields
}

fn wall() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_269_600)
}

fn times(now: Instant) -> Times {
    Times { requested: now, received: now, wall: wall() }
}

/// Asks as a GET with these lines does.
fn about<T>(method: &str, request: Lines<'_>, ask: impl FnOnce(&About<'_>) -> T) -> T {
    let request = fields(request);
    let asked = Asked::read(method, &request);
    ask(&About { asked: &asked, request: &request, keyed: false, rules: &RULES, times: times(clock::now()) })
}

fn stored(status: u16, request: Lines<'_>, reply: Lines<'_>, body: &'static [u8]) -> Stored {
    let reply = fields(reply);
    about("GET", request, |about| {
        let read = Terms::read((about.asked, about.request), false, (status, &reply), &RULES, about.times);
        let terms = read.expect("may be kept");
        let body = if body.is_empty() { Vec::new() } else { vec![Bytes::from_static(body)] };
        Stored::new(Head { status, fields: terms.kept(&reply), terms }, body)
    })
}

fn found(store: &Store, key: &Key, request: Lines<'_>) -> Option<Vec<u8>> {
    let group = store.find(key.as_ref())?;
    group.matching(&fields(request)).next().map(|stored| stored.body.concat())
}

fn value(stored: &Stored, name: &str) -> Option<String> {
    stored.head.fields.named(name.as_bytes()).next().map(|value| String::from_utf8_lossy(value).into_owned())
}

fn store() -> Store {
    Store::new(64 * 1024 * 1024)
}

#[test]
fn what_is_kept_is_found_under_its_key_only() {
    let store = store();
    assert!(store.keep(path("/x"), stored(200, &[], &[AGE], b"one")));
    assert_eq!(found(&store, &path("/x"), &[]), Some(b"one".to_vec()));
    assert_eq!(found(&store, &path("/y"), &[]), None);
    assert_eq!(found(&store, &key(&Parts { route: "other", ..PARTS }), &[]), None);
}

#[test]
fn section_4_of_rfc_9111_the_latest_of_several_that_fit_is_used() {
    let store = store();
    let dated = |date, vary| [AGE, ("Date", date), ("Vary", vary)];
    let (early, late) = ("Sat, 21 Nov 2026 13:59:50 GMT", "Sat, 21 Nov 2026 13:59:55 GMT");
    store.keep(path("/x"), stored(200, &[("A", "1"), ("B", "1")], &dated(late, "A"), b"late"));
    store.keep(path("/x"), stored(200, &[("A", "1"), ("B", "1")], &dated(early, "B"), b"early"));
    assert_eq!(found(&store, &path("/x"), &[("A", "1"), ("B", "1")]), Some(b"late".to_vec()));
    assert_eq!(found(&store, &path("/x"), &[("B", "1")]), Some(b"early".to_vec()));
}

#[test]
fn section_4_1_of_rfc_9111_what_says_what_it_varies_by_is_used_before_what_does_not() {
    let store = store();
    let dated = |date| [AGE, ("Date", date), ("Vary", "A")];
    let (early, late) = ("Sat, 21 Nov 2026 13:59:50 GMT", "Sat, 21 Nov 2026 13:59:55 GMT");
    store.keep(path("/x"), stored(200, &[("A", "1")], &dated(early), b"for one"));
    store.keep(path("/x"), stored(200, &[], &dated(late)[..2], b"for all"));
    assert_eq!(found(&store, &path("/x"), &[("A", "1")]), Some(b"for one".to_vec()));
    assert_eq!(found(&store, &path("/x"), &[("A", "2")]), Some(b"for all".to_vec()));
    assert_eq!(found(&store, &path("/x"), &[]), Some(b"for all".to_vec()));
}

#[test]
fn section_4_1_of_rfc_9111_variants_are_kept_beside_each_other_and_replaced_by_their_like() {
    let store = store();
    let vary = [AGE, ("Vary", "Foo")];
    store.keep(path("/x"), stored(200, &[("Foo", "1")], &vary, b"one"));
    store.keep(path("/x"), stored(200, &[("Foo", "2")], &vary, b"two"));
    store.keep(path("/x"), stored(200, &[("foo", " 1 ")], &vary, b"new"));
    assert_eq!(found(&store, &path("/x"), &[("Foo", "1")]), Some(b"new".to_vec()));
    assert_eq!(found(&store, &path("/x"), &[("Foo", "2")]), Some(b"two".to_vec()));
    assert_eq!(found(&store, &path("/x"), &[]), None);
    assert_eq!(store.figures().entries, 2);
}

#[test]
fn variants_of_one_url_are_bounded() {
    let store = store();
    for number in 0..REPLIES + 10 {
        let said = number.to_string();
        store.keep(path("/x"), stored(200, &[("Foo", &said)], &[AGE, ("Vary", "Foo")], b"x"));
    }
    assert_eq!(store.figures().entries, REPLIES as u64);
}

#[test]
fn section_3_3_of_rfc_9111_a_part_does_not_take_the_place_of_the_whole() {
    let store = store();
    store.keep(path("/x"), stored(206, &[], &[AGE, ("Content-Range", "bytes 0-1/4")], b"ab"));
    store.keep(path("/x"), stored(206, &[], &[AGE, ("Content-Range", "bytes 2-3/4")], b"cd"));
    assert_eq!(store.figures().entries, 2);
    store.keep(path("/x"), stored(200, &[], &[AGE], b"abcd"));
    assert_eq!(store.figures().entries, 1, "the whole takes the place of its parts");
    store.keep(path("/x"), stored(206, &[], &[AGE, ("Content-Range", "bytes 0-1/4")], b"ab"));
    assert_eq!(store.figures().entries, 2);
}

#[test]
fn section_4_3_4_of_rfc_9111_a_304_updates_what_it_is_about() {
    let store = store();
    let reply = [AGE, ("ETag", "\"1\""), ("X", "old"), ("Y", "kept")];
    store.keep(path("/x"), stored(200, &[], &reply, b"body"));
    let update = fields(&[("ETag", "\"1\""), ("X", "new"), ("Cache-Control", "max-age=600"), ("Content-Length", "0")]);
    let refreshed =
        about("GET", &[], |about| store.refresh(&path("/x"), &update, about)).expect("it is about this one");
    assert_eq!((refreshed.body.concat(), refreshed.head.status), (b"body".to_vec(), 200));
    let group = store.find(path("/x").as_ref()).expect("kept");
    let now = &group.replies()[0];
    assert_eq!(value(now, "x").as_deref(), Some("new"));
    assert_eq!(value(now, "y").as_deref(), Some("kept"));
    assert_eq!(now.head.terms.lifetime(), Duration::from_secs(600));
}

#[test]
fn section_4_3_4_of_rfc_9111_a_304_about_something_else_updates_nothing() {
    let store = store();
    store.keep(path("/x"), stored(200, &[], &[AGE, ("ETag", "\"1\"")], b"body"));
    let refreshed = about("GET", &[], |about| store.refresh(&path("/x"), &fields(&[("ETag", "\"2\"")]), about));
    assert!(refreshed.is_none());
    let vary = [AGE, ("ETag", "\"3\""), ("Vary", "Foo")];
    store.keep(path("/y"), stored(200, &[("Foo", "1")], &vary, b"body"));
    let refreshed =
        about("GET", &[("Foo", "2")], |about| store.refresh(&path("/y"), &fields(&[("ETag", "\"3\"")]), about));
    assert!(refreshed.is_none(), "it was chosen for others");
}

#[test]
fn a_304_that_forbids_to_keep_what_it_is_about_is_obeyed() {
    let store = store();
    store.keep(path("/x"), stored(200, &[], &[AGE, ("ETag", "\"1\"")], b"body"));
    let update = fields(&[("Cache-Control", "no-store")]);
    let refreshed = about("GET", &[], |about| store.refresh(&path("/x"), &update, about));
    assert_eq!(refreshed.map(|stored| stored.body.concat()), Some(b"body".to_vec()), "good for who asked");
    assert_eq!(found(&store, &path("/x"), &[]), None);
}

#[test]
fn who_may_not_have_its_answer_kept_changes_nothing_that_is() {
    let store = store();
    for request in [("Cache-Control", "no-store"), ("Authorization", "x")] {
        store.keep(path("/x"), stored(200, &[], &[AGE, ("ETag", "\"1\""), ("X", "old")], b"body"));
        let update = fields(&[("X", "new")]);
        let refreshed = about("GET", &[request], |about| store.refresh(&path("/x"), &update, about));
        assert_eq!(value(&refreshed.expect("good for who asked"), "x").as_deref(), Some("new"));
        let group = store.find(path("/x").as_ref()).expect("kept");
        assert_eq!(value(&group.replies()[0], "x").as_deref(), Some("old"), "{request:?}");
    }
}

#[test]
fn section_4_3_5_of_rfc_9111_an_answer_to_head_updates_or_invalidates_what_is_kept() {
    let store = store();
    store.keep(path("/x"), stored(200, &[], &[AGE, ("ETag", "\"1\""), ("X", "old")], b"body"));
    let agrees = fields(&[("ETag", "\"1\""), ("Content-Length", "4"), ("X", "new"), AGE]);
    about("HEAD", &[], |about| store.after_head(&path("/x"), &agrees, about));
    let group = store.find(path("/x").as_ref()).expect("kept");
    assert_eq!(value(&group.replies()[0], "x").as_deref(), Some("new"));
    assert!(group.replies()[0].head.terms.expired_for(clock::now()).is_none());
    let differs = fields(&[("ETag", "\"1\""), ("Content-Length", "5")]);
    about("HEAD", &[], |about| store.after_head(&path("/x"), &differs, about));
    let group = store.find(path("/x").as_ref()).expect("kept");
    let verdict = group.replies()[0].head.terms.decide(&Asked::default(), clock::now());
    assert_eq!(verdict, crate::policy::freshness::Use::MustValidate { stale_if_error: None });
}

#[test]
fn section_4_4_of_rfc_9111_what_was_changed_is_forgotten_whichever_route_and_place_it_came_by() {
    let store = store();
    let keys =
        [PARTS, Parts { route: "other", ..PARTS }, Parts { place: b"candidate", ..PARTS }].map(|parts| key(&parts));
    for key in &keys {
        store.keep(key.clone(), stored(200, &[], &[AGE], b"x"));
    }
    store.keep(path("/y"), stored(200, &[], &[AGE], b"x"));
    assert_eq!(store.invalidate("http://a.example/x"), 3);
    assert_eq!(store.figures().entries, 1);
    assert!(keys.iter().all(|key| store.find(key.as_ref()).is_none()));
}

#[test]
fn purges_count_what_they_forget() {
    let fill = || {
        let store = store();
        for (route, path) in [("a", "/x"), ("a", "/x/y"), ("b", "/x"), ("b", "/z")] {
            store.keep(key(&Parts { route, path, ..PARTS }), stored(200, &[], &[AGE], b"x"));
        }
        store
    };
    for (purge, count) in [
        (Purge::Url("http://a.example/x"), 2),
        (Purge::Prefix("http://a.example/x"), 3),
        (Purge::Prefix("http://a.example/"), 4),
        (Purge::Prefix("http://b.example/"), 0),
        (Purge::Route("b"), 2),
        (Purge::Route("c"), 0),
    ] {
        let store = fill();
        assert_eq!(store.purge(&purge), count, "{purge:?}");
        assert_eq!(store.figures().entries, 4 - count);
    }
}

#[test]
fn figures_tell_entries_bytes_and_hits_of_each_route() {
    let store = store();
    store.keep(key(&Parts { route: "b", ..PARTS }), stored(200, &[], &[AGE], b"0123456789"));
    store.keep(key(&Parts { route: "a", ..PARTS }), stored(200, &[], &[AGE], b""));
    let group = store.find(key(&Parts { route: "b", ..PARTS }).as_ref()).expect("kept");
    group.hit();
    group.hit();
    let figures = store.figures();
    let of: Vec<_> = figures.routes.iter().map(|route| (route.route.as_str(), route.entries, route.hits)).collect();
    assert_eq!(of, [("a", 1, 0), ("b", 1, 2)]);
    assert_eq!(figures.bytes, figures.routes.iter().map(|route| route.bytes).sum::<u64>());
    assert!(figures.routes[1].bytes > figures.routes[0].bytes + 10);
    assert_eq!(figures.capacity, 64 * 1024 * 1024);
}

#[test]
fn what_is_too_large_is_not_kept_and_takes_the_older_with_it() {
    let store = Store::new(64 * 1024);
    let body: &'static [u8] = Box::leak(vec![0; 40_000].into_boxed_slice());
    store.keep(path("/x"), stored(200, &[], &[AGE], b"old"));
    assert!(!store.keep(path("/x"), stored(200, &[], &[AGE], body)));
    assert_eq!(found(&store, &path("/x"), &[]), None, "the old one is outdated all the same");
    assert!(!Store::new(0).keep(path("/x"), stored(200, &[], &[AGE], b"x")), "no room at all");
}

#[test]
fn a_smaller_bound_lets_go_at_once() {
    let store = Store::new(1024 * 1024);
    for number in 0..500 {
        store.keep(path(&format!("/{number}")), stored(200, &[], &[AGE], &[0; 1024]));
    }
    assert!(store.bytes() > 500 * 1024);
    store.set_bytes(128 * 1024);
    assert!(store.bytes() <= 128 * 1024);
}

#[test]
fn a_scan_does_not_push_out_what_is_asked_for_often() {
    let store = Store::new(1024 * 1024);
    let often: Vec<Key> = (0..100).map(|number| path(&format!("/often/{number}"))).collect();
    for key in &often {
        store.keep(key.clone(), stored(200, &[], &[AGE], &[0; 1024]));
    }
    for number in 0..20_000 {
        assert!(store.find(often[number % 100].as_ref()).is_some() || number > 0);
        store.keep(path(&format!("/once/{number}")), stored(200, &[], &[AGE], &[0; 1024]));
    }
    let left = often.iter().filter(|key| store.find(key.as_ref()).is_some()).count();
    assert!(left >= 95, "{left} of 100");
}

#[test]
fn two_hundred_thousand_random_keys_of_any_size_stay_within_the_bound() {
    static ZEROS: [u8; 65_536] = [0; 65_536];
    let bound = 8 * 1024 * 1024;
    let store = Store::new(bound);
    let like = stored(200, &[], &[AGE, ("ETag", "\"1\"")], &[]);
    let mut random = fastrand::Rng::with_seed(9111);
    for _ in 0..200_000 {
        // Mostly small, some large, as they are.
        let most = 1 << random.u32(0..=16);
        let len = random.usize(..most);
        let key = path(&format!("/{:x}/{}", random.u64(..), "y".repeat(random.usize(0..200))));
        store.keep(key, Stored::new(like.head.clone(), vec![Bytes::from_static(&ZEROS[..len])]));
        assert!(store.bytes() <= bound, "{}", store.bytes());
    }
    let figures = store.figures();
    assert!(figures.bytes > bound / 2, "{figures:?}");
    assert_eq!(figures.bytes, figures.routes.iter().map(|route| route.bytes).sum::<u64>());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(40) })]

    #[test]
    fn whatever_is_kept_the_bound_holds_and_figures_agree(
        steps in proptest::collection::vec((0..60_u32, 0..4_u32, 0..30_000_usize, 0..12_u8), 1..300)
    ) {
        static ZEROS: [u8; 30_000] = [0; 30_000];
        let store = Store::new(256 * 1024);
        for (name, variant, len, what) in steps {
            let (key, said) = (path(&format!("/{name}")), variant.to_string());
            match what {
                0 => { store.purge(&Purge::Prefix("http://a.example/1")); }
                1 => { store.forget(key.as_ref()); }
                2 => drop(store.find(key.as_ref())),
                _ => {
                    let stored = stored(200, &[("Foo", &said)], &[AGE, ("Vary", "Foo")], &ZEROS[..len]);
                    store.keep(key, stored);
                }
            }
            prop_assert!(store.bytes() <= 256 * 1024);
        }
        let figures = store.figures();
        prop_assert_eq!(figures.bytes, figures.routes.iter().map(|route| route.bytes).sum::<u64>());
        store.purge(&Purge::Route("api"));
        prop_assert_eq!((store.bytes(), store.figures().entries), (0, 0));
    }
}

#[test]
fn whatever_peers_invent_writing_costs_a_bounded_number_of_looks() {
    let store = Store::new(1 << 20);
    let keep = |place: &[u8]| store.keep(key(&Parts { place, ..PARTS }), stored(200, &[], &[AGE], b"x"));
    for place in 0..PLACES {
        assert!(keep(format!("x-forwarded-prefix:{place}").as_bytes()), "{place}");
    }
    assert!(!keep(b"another"));
    assert!(keep(b""), "who says nothing of the sort is served as ever");
    assert_eq!(store.routes().len(), PLACES + 1);
    assert_eq!(store.invalidate("http://a.example/x"), PLACES as u64 + 1);
    assert!(keep(b"another"), "what nothing is kept of makes room");
    assert_eq!(store.routes().len(), 2);
}
