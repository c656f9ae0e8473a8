use super::coalesce::{DECLINED, DECLINED_FOR, Flights, Followed, Follower, Joined, Leader};
use crate::clock;
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

type Number = Arc<u32>;

fn lead(joined: Joined<u32>) -> Leader<u32> {
    match joined {
        Joined::Lead(leader) => leader,
        other => panic!("{other:?}"),
    }
}

fn follow(joined: Joined<u32>) -> Follower<u32> {
    match joined {
        Joined::Follow(follower) => follower,
        other => panic!("{other:?}"),
    }
}

fn poll(follower: &mut Follower<u32>) -> Poll<Followed<u32>> {
    follower.poll(&mut Context::from_waker(Waker::noop()))
}

fn is_pending(follower: &mut Follower<u32>) -> bool {
    poll(follower).is_pending()
}

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_thousand_who_miss_at_once_are_one_request() {
    let flights = Flights::default();
    let leader = lead(flights.join(b"k", clock::now()));
    let mut followers: Vec<_> = (0..999).map(|_| follow(flights.join(b"k", clock::now()))).collect();
    assert!(followers.iter_mut().all(is_pending));
    assert_eq!(leader.followers(), 999);
    leader.publish(Number::new(7));
    for follower in &mut followers {
        assert!(matches!(poll(follower), Poll::Ready(Followed::Published(reply)) if *reply == 7));
    }
    assert!(matches!(flights.join(b"k", clock::now()), Joined::Published(_)), "its body may be coming in still");
    drop(leader);
    assert!(flights.is_empty());
}

#[test]
fn other_keys_are_other_requests() {
    let flights: Flights<u32> = Flights::default();
    let _one = lead(flights.join(b"k", clock::now()));
    let _other = lead(flights.join(b"l", clock::now()));
}

#[test]
fn when_the_leader_fails_the_one_that_waits_longest_leads() {
    let flights = Flights::default();
    let leader = lead(flights.join(b"k", clock::now()));
    let [mut first, mut second] = [(); 2].map(|()| follow(flights.join(b"k", clock::now())));
    let woken = [(); 2].map(|()| Arc::new(Woken::default()));
    for (follower, woken) in [&mut first, &mut second].into_iter().zip(&woken) {
        assert!(follower.poll(&mut Context::from_waker(&Waker::from(Arc::clone(woken)))).is_pending());
    }
    drop(leader);
    assert_eq!(woken.each_ref().map(|woken| woken.0.load(Ordering::Relaxed)), [1, 0], "only one is woken");
    assert!(is_pending(&mut second));
    let Poll::Ready(Followed::Lead(leader)) = poll(&mut first) else { panic!("it leads") };
    leader.publish(Number::new(7));
    assert!(matches!(poll(&mut second), Poll::Ready(Followed::Published(_))));
}

#[test]
fn who_is_elected_and_leaves_hands_the_duty_on() {
    let flights = Flights::default();
    let leader = lead(flights.join(b"k", clock::now()));
    let [first, mut second] = [(); 2].map(|()| follow(flights.join(b"k", clock::now())));
    drop(leader);
    drop(first);
    assert!(matches!(poll(&mut second), Poll::Ready(Followed::Lead(_))));
    assert!(flights.is_empty(), "the last of them was dropped");
}

#[test]
fn followers_that_leave_change_nothing() {
    let flights = Flights::default();
    let leader = lead(flights.join(b"k", clock::now()));
    let follower = follow(flights.join(b"k", clock::now()));
    drop(follower);
    assert_eq!(leader.followers(), 0);
    drop(leader);
    assert!(flights.is_empty());
    let _leader = lead(flights.join(b"k", clock::now()));
}

#[test]
fn what_is_not_for_others_lets_everyone_go_alone_for_a_minute() {
    let flights = Flights::default();
    let now = clock::now();
    let leader = lead(flights.join(b"k", now));
    let mut follower = follow(flights.join(b"k", now));
    leader.decline(now);
    assert!(matches!(poll(&mut follower), Poll::Ready(Followed::Alone)));
    assert!(matches!(flights.join(b"k", now), Joined::Alone));
    assert!(matches!(flights.join(b"k", now + DECLINED_FOR / 2), Joined::Alone));
    let _leader = lead(flights.join(b"k", now + DECLINED_FOR));
}

#[test]
fn keys_that_are_remembered_are_bounded() {
    let flights: Flights<u32> = Flights::default();
    let now = clock::now();
    let decline = |number: usize, now| lead(flights.join(&number.to_be_bytes(), now)).decline(now);
    for number in 0..DECLINED * 2 {
        decline(number, now);
    }
    let remembered = flights.declined();
    assert!((DECLINED / 2..=DECLINED).contains(&remembered), "{remembered}");
    for number in DECLINED * 2..DECLINED * 3 {
        decline(number, now + DECLINED_FOR);
    }
    let later = flights.declined();
    assert!((DECLINED / 2..=DECLINED).contains(&later), "{later}: those that are over make room");
}

#[test]
fn what_has_changed_meanwhile_is_not_kept_and_not_given_to_who_comes_later() {
    let flights = Flights::default();
    let now = clock::now();
    let [leader, other] = [b"k", b"l"].map(|key| lead(flights.join(key, now)));
    let mut before = follow(flights.join(b"k", now));
    assert_eq!(flights.outdate(|key| key == b"k"), 1);
    assert!(leader.is_outdated() && !other.is_outdated());
    let later = lead(flights.join(b"k", now));
    leader.publish(Number::new(1));
    assert!(matches!(poll(&mut before), Poll::Ready(Followed::Published(_))), "it asked before");
    drop(leader);
    let _waits_for_the_later = follow(flights.join(b"k", now));
    assert_eq!(later.followers(), 1);
    assert!(!later.is_outdated());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn there_is_one_leader_as_long_as_anybody_is_there(steps in proptest::collection::vec((0..6_u8, 0..8_usize), 1..80)) {
        let flights: Flights<u32> = Flights::default();
        let now = clock::now();
        let mut leader: Option<Leader<u32>> = None;
        let mut followers: Vec<Follower<u32>> = Vec::new();
        for (what, which) in steps {
            match what {
                0..=2 => match flights.join(b"k", now) {
                    Joined::Lead(new) => {
                        prop_assert!(leader.is_none() && followers.is_empty(), "a second leader");
                        leader = Some(new);
                    }
                    Joined::Follow(follower) => followers.push(follower),
                    other => prop_assert!(false, "{:?}", other),
                },
                3 => leader = None,
                4 if which < followers.len() => drop(followers.remove(which)),
                5 if which < followers.len() => match poll(&mut followers[which]) {
                    Poll::Ready(Followed::Lead(new)) => {
                        prop_assert!(leader.is_none(), "a second leader");
                        leader = Some(new);
                        drop(followers.remove(which));
                    }
                    Poll::Ready(other) => prop_assert!(false, "{:?}", other),
                    Poll::Pending => {}
                },
                _ => {}
            }
            prop_assert_eq!(flights.is_empty(), leader.is_none() && followers.is_empty());
        }
        if leader.is_none() && !followers.is_empty() {
            let leads = |follower: &mut Follower<u32>| matches!(poll(follower), Poll::Ready(Followed::Lead(_)));
            prop_assert!(followers.iter_mut().any(leads), "nobody leads");
        }
    }
}
