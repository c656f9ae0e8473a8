use super::*;
use crate::clock;
use crate::policy::circuit::State;
use crate::policy::window::Counts;
use std::sync::Barrier;
use std::sync::atomic::AtomicUsize;
use std::thread;

const TERMS: Terms = Terms {
    failure_threshold: 5,
    failure_rate: 0.5,
    window: Duration::from_secs(10),
    minimum_requests: 20,
    recovery_timeout: Duration::from_secs(5),
    max_recovery_timeout: Duration::from_secs(60),
    half_open_requests: 3,
    success_threshold: 2,
};

fn breaker(terms: Terms, now: Instant) -> Breaker {
    Breaker::new("alpha".into(), terms, now)
}

fn attempt(breaker: &Breaker, verdict: Verdict, now: Instant) {
    let permit = breaker.admit(now).expect("a permit");
    breaker.report(permit, verdict, now);
}

/// Walks a live circuit and a plain one through the same, and compares all that shows.
fn walk(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let start = clock::now();
    let (live, mut plain, mut now) = (breaker(TERMS, start), Circuit::new(TERMS, start), start);
    let (mut out, mut health) = (Vec::new(), 0.5);
    for step in 0..1_000 {
        let here = format!("seed {seed}, step {step}");
        match random.u32(0..100) {
            0..45 => {
                let (one, other) = (live.admit(now), plain.admit(now));
                assert_eq!(format!("{one:?}"), format!("{other:?}"), "{here}");
                out.extend(one.zip(other));
            }
            45..90 if !out.is_empty() => {
                let (one, other) = out.swap_remove(random.usize(..out.len()));
                let verdict = match random.f64() {
                    draw if draw < 0.1 => Verdict::Uncounted,
                    _ if random.f64() < health => Verdict::Success,
                    _ => Verdict::Failure("reset"),
                };
                // The live one draws its own jitter; this makes both draw the same.
                fastrand::seed(seed);
                live.report(one, verdict, now);
                fastrand::seed(seed);
                plain.report(other, verdict, now, fastrand::f64());
            }
            90..91 => {
                let forced = [None, None, Some(Forced::Open), Some(Forced::Closed)][random.usize(..4)];
                live.force(forced, now);
                plain.force(forced, now);
            }
            91..92 => {
                let terms = Terms { half_open_requests: random.u32(1..5), ..TERMS };
                live.set_terms(terms, now);
                plain.set_terms(terms, now);
            }
            92..93 => health = [0.0, 0.3, 0.9, 1.0][random.usize(..4)],
            _ => now += Duration::from_millis(random.u64(0..3_000)),
        }
        assert_eq!(live.peek(now), plain.peek(now), "{here}");
        if random.u32(0..10) == 0 {
            plain.settle(now);
            let view = live.view(now);
            assert_eq!((view.state(), view.retry_at()), (plain.state(), plain.retry_at()), "{here}");
            assert_eq!((view.counts(), view.failures()), (plain.counts(), plain.failures()), "{here}");
            assert!(view.history().eq(plain.history()), "{here}");
        }
    }
}

#[test]
fn alone_it_decides_exactly_as_the_pure_circuit_does() {
    (0..200).for_each(walk);
}

#[test]
fn words_come_back_as_they_went() {
    let words = [
        Word::Clean { period: u32::MAX, successes: SUCCESSES_MAX },
        Word::Clean { period: 0, successes: 1 },
        Word::Closed { period: 7 },
        Word::Open { until: UNTIL_MAX },
        Word::HalfOpen,
        Word::Busy,
        Word::Forced,
    ];
    for word in words {
        assert_eq!(Word::unpack(word.pack()), word);
    }
}

#[test]
fn successes_need_no_lock_while_nothing_fails() {
    let start = clock::now();
    let breaker = breaker(TERMS, start);
    // Whoever took the lock now would wait for ever.
    let circuit = breaker.circuit.lock().expect("a lock");
    for _ in 0..1_000 {
        assert_eq!(breaker.peek(start), Peek::Closed);
        attempt(&breaker, Verdict::Success, start);
        attempt(&breaker, Verdict::Uncounted, start);
    }
    drop(circuit);
    assert_eq!(breaker.view(start).counts(), Counts { successes: 1_000, failures: 0 });
}

#[test]
fn refusals_of_an_open_circuit_need_no_lock() {
    let start = clock::now();
    let breaker = breaker(TERMS, start);
    (0..5).for_each(|_| attempt(&breaker, Verdict::Failure("connect"), start));
    let circuit = breaker.circuit.lock().expect("a lock");
    assert!(breaker.admit(start).is_none());
    assert!(matches!(breaker.peek(start), Peek::Until(_)));
    drop(circuit);
    breaker.force(Some(Forced::Open), start);
    let _circuit = breaker.circuit.lock().expect("a lock");
    assert!(breaker.admit(start).is_none());
    assert_eq!(breaker.peek(start), Peek::Forced);
}

#[test]
fn a_word_that_is_full_gives_its_successes_to_the_circuit() {
    let start = clock::now();
    let breaker = breaker(TERMS, start);
    breaker.word.store(Word::Clean { period: 0, successes: SUCCESSES_MAX }.pack(), Ordering::Release);
    attempt(&breaker, Verdict::Success, start);
    assert_eq!(breaker.view(start).counts(), Counts { successes: SUCCESSES_MAX + 1, failures: 0 });
}

#[test]
fn no_report_is_lost_between_threads() {
    let start = clock::now();
    // Never opens, so that everything must be found in the window.
    let breaker = breaker(Terms { failure_threshold: u32::MAX, failure_rate: 2.0, ..TERMS }, start);
    let start_together = Barrier::new(4);
    thread::scope(|scope| {
        for thread in 0..4 {
            let (breaker, start_together) = (&breaker, &start_together);
            scope.spawn(move || {
                start_together.wait();
                for at in 0..200_000 {
                    let failure = at % 8 == thread;
                    attempt(breaker, if failure { Verdict::Failure("reset") } else { Verdict::Success }, start);
                }
            });
        }
    });
    assert_eq!(breaker.view(start).counts(), Counts { successes: 700_000, failures: 100_000 });
}

#[test]
fn threads_never_hold_more_probes_than_may_be_out() {
    let start = clock::now();
    let breaker = breaker(Terms { success_threshold: u32::MAX, ..TERMS }, start);
    (0..5).for_each(|_| attempt(&breaker, Verdict::Failure("connect"), start));
    let (now, out, most) = (start + Duration::from_secs(6), AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..5_000 {
                    let Some(permit) = breaker.admit(now) else { continue };
                    most.fetch_max(out.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    thread::yield_now();
                    out.fetch_sub(1, Ordering::SeqCst);
                    breaker.report(permit, Verdict::Success, now);
                }
            });
        }
    });
    let most = most.into_inner();
    assert!((1..=3).contains(&most), "{most} at once");
    let view = breaker.view(now);
    assert_eq!((view.state(), view.probes()), (State::HalfOpen, 0));
}
