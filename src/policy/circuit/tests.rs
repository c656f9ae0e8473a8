use super::*;
use proptest::prelude::*;

const TERMS: Terms = Terms {
    failure_threshold: 5,
    failure_rate: 0.5,
    window: Duration::from_secs(10),
    minimum_requests: 20,
    recovery_timeout: Duration::from_secs(5),
    max_recovery_timeout: Duration::from_secs(60),
    half_open_requests: 1,
    success_threshold: 2,
};

/// The jitter that changes nothing.
const NONE: f64 = 0.5;

const FAILURE: Verdict = Verdict::Failure("reset");

/// A circuit and the time that passes for it.
struct Scene {
    circuit: Circuit,
    start: Instant,
    now: Instant,
}

impl Scene {
    fn new(terms: Terms) -> Self {
        let start = crate::clock::now();
        Scene { circuit: Circuit::new(terms, start), start, now: start }
    }

    fn opened() -> Self {
        let mut scene = Scene::new(TERMS);
        (0..5).for_each(|_| scene.attempt(FAILURE));
        scene
    }

    fn pass(&mut self, milliseconds: u64) {
        self.now += Duration::from_millis(milliseconds);
    }

    fn admit(&mut self) -> Permit {
        self.circuit.admit(self.now).expect("a permit")
    }

    fn report(&mut self, permit: Permit, verdict: Verdict) {
        self.circuit.report(permit, verdict, self.now, NONE);
    }

    fn attempt(&mut self, verdict: Verdict) {
        let permit = self.admit();
        self.report(permit, verdict);
    }

    fn last_why(&self) -> String {
        self.circuit.history().next_back().expect("a transition").why.to_string()
    }

    /// When the circuit may be probed, in milliseconds from now.
    fn wait(&self) -> u128 {
        (self.circuit.retry_at().expect("an open circuit") - self.now).as_millis()
    }
}

#[test]
fn failures_in_a_row_open_it_and_a_success_between_them_does_not_let_them() {
    let mut scene = Scene::new(TERMS);
    for _ in 0..4 {
        scene.attempt(FAILURE);
    }
    scene.attempt(Verdict::Success);
    for _ in 0..4 {
        scene.attempt(FAILURE);
    }
    assert_eq!(scene.circuit.state(), State::Closed);
    scene.attempt(Verdict::Uncounted);
    scene.attempt(Verdict::Failure("timeout"));
    assert_eq!(scene.circuit.state(), State::Open);
    assert_eq!(scene.last_why(), "5 failures in a row, the last: timeout");
    assert_eq!(scene.circuit.opened_at(), Some(scene.now));
    assert_eq!(scene.circuit.last_failure_at(), Some(scene.now));
    assert_eq!(scene.circuit.failures(), 5);
}

#[test]
fn a_share_of_failures_opens_it_once_there_are_enough_attempts() {
    let mut scene = Scene::new(TERMS);
    // Three failures and two successes in turn: 60 %, never five in a row.
    for at in 0..20 {
        assert_eq!(scene.circuit.state(), State::Closed, "{at}");
        scene.attempt(if at % 5 < 2 { Verdict::Success } else { FAILURE });
        scene.pass(100);
    }
    assert_eq!(scene.last_why(), "12 of 20 failed within 10 s");
}

#[test]
fn failures_that_the_window_has_forgotten_do_not_open_it() {
    let mut scene = Scene::new(TERMS);
    for at in 0..100 {
        scene.attempt(if at % 5 < 2 { Verdict::Success } else { FAILURE });
        scene.pass(600);
    }
    assert_eq!(scene.circuit.state(), State::Closed, "never twenty attempts in a window");
}

#[test]
fn nothing_goes_through_before_its_time_and_then_one_probe_at_once() {
    let mut scene = Scene::opened();
    scene.pass(4_999);
    assert!(scene.circuit.admit(scene.now).is_none());
    assert_eq!(scene.circuit.peek(scene.now), Peek::Until(scene.start + Duration::from_secs(5)));
    scene.pass(1);
    assert_eq!(scene.circuit.peek(scene.now), Peek::HalfOpenWithRoom);
    assert_eq!(scene.circuit.state(), State::Open, "looking changes nothing");
    let probe = scene.admit();
    assert!(probe.is_probe());
    assert_eq!(scene.circuit.state(), State::HalfOpen);
    assert_eq!(scene.circuit.half_opened_at(), Some(scene.now));
    assert_eq!(scene.circuit.peek(scene.now), Peek::Busy);
    assert!(scene.circuit.admit(scene.now).is_none());
    scene.report(probe, Verdict::Uncounted);
    assert_eq!(scene.circuit.state(), State::HalfOpen, "it showed nothing");
    scene.attempt(Verdict::Success);
    assert_eq!(scene.circuit.state(), State::HalfOpen, "one of two");
    scene.attempt(Verdict::Success);
    assert_eq!(scene.circuit.state(), State::Closed);
    assert_eq!(scene.circuit.failures(), 0);
    let whys: Vec<String> = scene.circuit.history().map(|transition| transition.why.to_string()).collect();
    assert_eq!(whys, ["5 failures in a row, the last: reset", "it was time for a probe", "2 probes succeeded"]);
    assert_eq!(scene.circuit.entered(), [1, 1, 1]);
}

#[test]
fn the_wait_doubles_with_each_failed_probe_up_to_the_maximum() {
    let mut scene = Scene::opened();
    let mut waits = vec![scene.wait()];
    for _ in 0..40 {
        scene.now = scene.circuit.retry_at().expect("open");
        scene.attempt(Verdict::Failure("503"));
        waits.push(scene.wait());
    }
    assert_eq!(waits[..6], [5_000, 10_000, 20_000, 40_000, 60_000, 60_000]);
    assert_eq!(waits[40], 60_000, "however often");
    assert_eq!(scene.last_why(), "a probe failed: 503");
}

#[test]
fn the_wait_is_the_first_again_once_it_was_closed_for_a_whole_window() {
    for (closed_for, wait) in [(9_999, 10_000), (10_000, 5_000)] {
        let mut scene = Scene::opened();
        scene.pass(5_000);
        scene.attempt(FAILURE);
        assert_eq!(scene.wait(), 10_000);
        scene.pass(10_000);
        (0..2).for_each(|_| scene.attempt(Verdict::Success));
        scene.pass(closed_for);
        (0..5).for_each(|_| scene.attempt(FAILURE));
        assert_eq!(scene.wait(), wait, "closed for {closed_for} ms");
    }
}

#[test]
fn chance_makes_a_wait_a_tenth_shorter_or_longer() {
    for (jitter, wait) in [(0.0, 4_500), (0.25, 4_750), (0.75, 5_250), (1.0, 5_500)] {
        let mut scene = Scene::new(Terms { failure_threshold: 1, ..TERMS });
        let permit = scene.admit();
        scene.circuit.report(permit, FAILURE, scene.now, jitter);
        assert_eq!(scene.wait(), wait);
        assert_eq!(scene.last_why(), "1 failure: reset");
    }
}

#[test]
fn a_late_report_changes_nothing() {
    let mut scene = Scene::new(TERMS);
    let late: Vec<Permit> = (0..40).map(|_| scene.admit()).collect();
    (0..5).for_each(|_| scene.attempt(FAILURE));
    scene.pass(5_000);
    let probe = scene.admit();
    let before = format!("{:?}", scene.circuit);
    for (at, permit) in late.into_iter().enumerate() {
        scene.report(permit, if at % 2 == 0 { Verdict::Success } else { FAILURE });
        assert_eq!(format!("{:?}", scene.circuit), before);
    }
    scene.report(probe, FAILURE);
    assert_eq!(scene.circuit.state(), State::Open);
}

#[test]
fn a_probe_that_ends_after_another_one_failed_is_late() {
    let mut scene = Scene::new(Terms { half_open_requests: 2, success_threshold: 1, failure_threshold: 1, ..TERMS });
    scene.attempt(FAILURE);
    scene.pass(5_000);
    let (first, second) = (scene.admit(), scene.admit());
    scene.report(first, FAILURE);
    scene.report(second, Verdict::Success);
    assert_eq!(scene.circuit.state(), State::Open);
}

#[test]
fn forced_open_lets_nothing_through_and_leaves_the_rest_as_it_was() {
    let mut scene = Scene::new(TERMS);
    let out = scene.admit();
    scene.circuit.force(Some(Forced::Open), scene.now);
    assert_eq!((scene.circuit.state(), scene.circuit.peek(scene.now)), (State::Open, Peek::Forced));
    assert_eq!(scene.circuit.retry_at(), None);
    scene.pass(3_600_000);
    assert!(scene.circuit.admit(scene.now).is_none());
    assert_eq!(scene.last_why(), "forced by an operator");
    scene.report(out, FAILURE);
    assert_eq!(scene.circuit.failures(), 1, "what began before still counts");
    scene.circuit.force(None, scene.now);
    assert_eq!((scene.circuit.state(), scene.circuit.peek(scene.now)), (State::Closed, Peek::Closed));
    assert_eq!(scene.last_why(), "no longer forced by an operator");
}

#[test]
fn forced_closed_lets_everything_through_and_still_counts() {
    let mut scene = Scene::opened();
    scene.circuit.force(Some(Forced::Closed), scene.now);
    for _ in 0..100 {
        scene.attempt(FAILURE);
    }
    assert_eq!((scene.circuit.state(), scene.circuit.failures()), (State::Closed, 105));
    scene.circuit.force(None, scene.now);
    assert_eq!((scene.circuit.state(), scene.wait()), (State::Open, 5_000));

    let mut scene = Scene::new(TERMS);
    scene.circuit.force(Some(Forced::Closed), scene.now);
    for _ in 0..100 {
        scene.attempt(FAILURE);
    }
    assert_eq!(scene.circuit.history().count(), 0, "closed it was, and closed it stays");
    scene.circuit.force(None, scene.now);
    assert_eq!(scene.circuit.state(), State::Closed, "only a failure opens it");
    scene.attempt(FAILURE);
    assert_eq!(scene.last_why(), "101 failures in a row, the last: reset");
}

#[test]
fn forcing_a_half_open_circuit_forgets_its_probes() {
    for forced in [Forced::Open, Forced::Closed] {
        let mut scene = Scene::opened();
        scene.pass(5_000);
        let probe = scene.admit();
        scene.circuit.force(Some(forced), scene.now);
        scene.report(probe, FAILURE);
        scene.circuit.force(None, scene.now);
        assert_eq!(scene.circuit.peek(scene.now), Peek::HalfOpenWithRoom, "the wait is over as it was: {forced:?}");
        assert!(scene.admit().is_probe());
    }
}

#[test]
fn other_terms_leave_the_state_and_shorten_a_wait() {
    let mut scene = Scene::opened();
    scene.circuit.set_terms(Terms { recovery_timeout: Duration::from_mins(5), ..TERMS }, scene.now);
    assert_eq!((scene.circuit.state(), scene.wait()), (State::Open, 5_000));
    scene.circuit.set_terms(Terms { max_recovery_timeout: Duration::from_secs(1), ..TERMS }, scene.now);
    assert_eq!((scene.circuit.state(), scene.wait()), (State::Open, 1_000));

    let mut scene = Scene::new(TERMS);
    (0..4).for_each(|_| scene.attempt(FAILURE));
    scene.circuit.set_terms(Terms { window: Duration::from_secs(20), ..TERMS }, scene.now);
    assert_eq!(scene.circuit.counts(), Counts::default(), "another window begins empty");
    scene.attempt(FAILURE);
    assert_eq!(scene.circuit.state(), State::Open, "the row goes on");
}

#[test]
fn absurd_terms_do_not_overflow() {
    let absurd = Terms {
        failure_threshold: 1,
        window: Duration::MAX,
        recovery_timeout: Duration::MAX,
        max_recovery_timeout: Duration::MAX,
        ..TERMS
    };
    let mut scene = Scene::new(absurd);
    scene.attempt(FAILURE);
    scene.circuit.set_terms(absurd, scene.now);
    assert!(scene.wait() > 1_000_000_000_000 / 2, "{}", scene.wait());
}

#[test]
fn the_history_is_bounded_and_the_counts_are_not() {
    let mut scene = Scene::opened();
    for _ in 0..100 {
        scene.now = scene.circuit.retry_at().expect("open");
        scene.attempt(FAILURE);
    }
    assert_eq!(scene.circuit.history().count(), HISTORY_MAX);
    assert_eq!(scene.circuit.entered(), [0, 101, 100]);
}

#[test]
fn spans_are_spelled_with_a_blank() {
    let spelled = [10_000, 1_500, 250].map(|span| spaced(Duration::from_millis(span)));
    assert_eq!(spelled, ["10 s", "1.5 s", "250 ms"]);
    assert_eq!(spaced(Duration::from_micros(3)), "3 µs");
}

/// Two providers in turn, the other where the circuit of one is open; the first fails between two instants. What each was
/// asked, in which second, and how often it failed.
fn share(providers: usize, fails: std::ops::Range<u64>) -> (Vec<[u64; 2]>, u64) {
    let start = crate::clock::now();
    let mut circuits: Vec<Circuit> = (0..providers).map(|_| Circuit::new(TERMS, start)).collect();
    let (mut asked, mut failed) = (vec![[0; 2]; 90], 0);
    for at in (0..90_000).step_by(10) {
        let now = start + Duration::from_millis(at);
        let mut order = (0..providers).map(|turn| (turn + at as usize / 10) % providers);
        let Some((provider, permit)) = order.find_map(|at| Some((at, circuits[at].admit(now)?))) else { continue };
        asked[at as usize / 1_000][provider] += 1;
        let is_broken = provider == 0 && fails.contains(&at);
        failed += u64::from(is_broken);
        circuits[provider].report(permit, if is_broken { FAILURE } else { Verdict::Success }, now, NONE);
    }
    (asked, failed)
}

#[test]
fn of_two_providers_the_healthy_one_takes_everything_while_the_other_is_down() {
    let (asked, failed) = share(2, 1_000..30_000);
    assert_eq!(failed, 5 + 2, "five open it; probes after 5 and 10 s more, the next finds it well");
    assert_eq!(asked[0], [50, 50]);
    assert_eq!(asked[3], [0, 100], "nobody is refused");
    assert!(asked.iter().all(|asked| asked[0] + asked[1] == 100), "never: {asked:?}");
    assert_eq!(asked[40], [50, 50], "and then they share again");
}

#[test]
fn a_provider_alone_is_asked_again_in_time_and_recovers() {
    let (asked, failed) = share(1, 1_000..30_000);
    assert_eq!(failed, 5 + 2);
    assert_eq!(asked[3], [0, 0]);
    assert_eq!(asked[40], [100, 0]);
}

/// The rules once more, as naively as possible: everything that was reported in this period is a list.
struct Model {
    terms: Terms,
    state: State,
    forced: Option<Forced>,
    period: u32,
    /// When in milliseconds, and whether it went well.
    reports: Vec<(u64, bool)>,
    row: u32,
    probes: u32,
    good: u32,
    wait: u64,
    since: u64,
    until: u64,
}

impl Model {
    fn new(terms: Terms) -> Self {
        let (state, forced, reports) = (State::Closed, None, Vec::new());
        Model { terms, state, forced, period: 0, reports, row: 0, probes: 0, good: 0, wait: 0, since: 0, until: 0 }
    }

    fn go(&mut self, state: State, at: u64) {
        self.state = state;
        self.period += 1;
        self.reports.clear();
        (self.probes, self.good, self.since) = (0, 0, at);
    }

    /// The permit's period, and whether it is a probe.
    fn admit(&mut self, at: u64) -> Option<(u32, bool)> {
        match self.forced {
            Some(Forced::Open) => return None,
            Some(Forced::Closed) => return Some((self.period, false)),
            None => {}
        }
        if self.state == State::Closed {
            return Some((self.period, false));
        }
        if self.state == State::Open && at >= self.until {
            self.go(State::HalfOpen, at);
        }
        let has_room = self.state == State::HalfOpen && self.probes < self.terms.half_open_requests;
        self.probes += u32::from(has_room);
        has_room.then_some((self.period, true))
    }

    fn report(&mut self, (period, probe): (u32, bool), good: Option<bool>, at: u64) {
        if period != self.period {
            return;
        }
        self.probes -= u32::from(probe);
        let Some(good) = good else { return };
        self.reports.push((at, good));
        self.row = if good { 0 } else { self.row + 1 };
        let milliseconds = |span: Duration| span.as_millis() as u64;
        let window = milliseconds(self.terms.window);
        let lately = self.reports.iter().filter(|(then, _)| then * 10 / window + 10 > at * 10 / window);
        let (all, bad) = lately.fold((0, 0), |(all, bad), (_, good)| (all + 1, bad + u32::from(!good)));
        let too_many = all >= self.terms.minimum_requests && f64::from(bad) / f64::from(all) >= self.terms.failure_rate;
        let first = milliseconds(self.terms.recovery_timeout);
        match self.state {
            _ if self.forced.is_some() => return,
            State::HalfOpen if good => {
                self.good += 1;
                if self.good == self.terms.success_threshold {
                    self.go(State::Closed, at);
                }
                return;
            }
            State::HalfOpen => self.wait *= 2,
            State::Closed if !good && (self.row >= self.terms.failure_threshold || too_many) => {
                let is_calm = self.wait == 0 || at - self.since >= window;
                self.wait = if is_calm { first } else { self.wait };
            }
            State::Closed | State::Open => return,
        }
        self.wait = self.wait.min(milliseconds(self.terms.max_recovery_timeout));
        self.until = at + self.wait;
        self.go(State::Open, at);
    }

    fn force(&mut self, forced: Option<Forced>) {
        if forced.is_some() && self.state == State::HalfOpen {
            (self.state, self.period, self.probes) = (State::Open, self.period + 1, 0);
        }
        self.forced = forced;
    }

    fn shown(&self) -> State {
        match self.forced {
            Some(Forced::Open) => State::Open,
            Some(Forced::Closed) => State::Closed,
            None => self.state,
        }
    }
}

#[derive(Debug, Clone)]
enum Act {
    Admit,
    Report { which: usize, good: Option<bool> },
    Force(Option<Forced>),
    Pass(u64),
}

fn act() -> impl Strategy<Value = Act> {
    let verdict = prop_oneof![4 => Just(Some(true)), 5 => Just(Some(false)), 1 => Just(None)];
    let forced = prop_oneof![2 => Just(None), 1 => Just(Some(Forced::Open)), 1 => Just(Some(Forced::Closed))];
    prop_oneof![
        30 => Just(Act::Admit),
        30 => (any::<usize>(), verdict).prop_map(|(which, good)| Act::Report { which, good }),
        1 => forced.prop_map(Act::Force),
        6 => (1..700u64).prop_map(Act::Pass),
        2 => (1_000..15_000u64).prop_map(Act::Pass),
    ]
}

fn terms() -> impl Strategy<Value = Terms> {
    let counts = (1..8u32, 1..10u32, 1..4u32, 1..4u32);
    (counts, 1..10u8, 1..30u64, 1..4u64).prop_map(|((row, minimum, probes, good), rate, window, wait)| Terms {
        failure_threshold: row,
        failure_rate: f64::from(rate) / 10.0,
        window: Duration::from_secs(window),
        minimum_requests: minimum,
        recovery_timeout: Duration::from_secs(wait),
        max_recovery_timeout: Duration::from_secs(wait * 5),
        half_open_requests: probes,
        success_threshold: good,
    })
}

proptest! {
    #[test]
    fn it_decides_like_the_rules_written_down_naively(
        terms in terms(),
        acts in proptest::collection::vec(act(), 1..300),
    ) {
        let start = crate::clock::now();
        let (mut circuit, mut model) = (Circuit::new(terms, start), Model::new(terms));
        let (mut out, mut at) = (Vec::new(), 0);
        for act in acts {
            let now = start + Duration::from_millis(at);
            match act {
                Act::Pass(span) => at += span,
                Act::Admit => {
                    let (permit, expected) = (circuit.admit(now), model.admit(at));
                    prop_assert_eq!(permit.as_ref().map(|permit| (permit.period, permit.probe)), expected);
                    out.extend(permit.zip(expected));
                }
                Act::Report { which, good } => {
                    if out.is_empty() {
                        continue;
                    }
                    let (permit, expected) = out.swap_remove(which % out.len());
                    let verdict = match good {
                        Some(true) => Verdict::Success,
                        Some(false) => FAILURE,
                        None => Verdict::Uncounted,
                    };
                    circuit.report(permit, verdict, now, NONE);
                    model.report(expected, good, at);
                }
                Act::Force(forced) => {
                    circuit.force(forced, now);
                    model.force(forced);
                }
            }
            let is_open = model.forced.is_none() && model.state == State::Open;
            let retry_at = is_open.then(|| start + Duration::from_millis(model.until));
            prop_assert_eq!((circuit.state(), circuit.retry_at()), (model.shown(), retry_at));
            prop_assert_eq!((circuit.failures(), circuit.probes()), (model.row, model.probes));
        }
    }
}

/// One seed's walk: anything may happen at any time; what must always hold is looked at after each step.
fn walk(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let start = crate::clock::now();
    let mut terms = Terms {
        failure_threshold: random.u32(1..6),
        failure_rate: random.f64(),
        minimum_requests: random.u32(1..20),
        half_open_requests: random.u32(1..5),
        success_threshold: random.u32(1..5),
        ..TERMS
    };
    let (mut circuit, mut now) = (Circuit::new(terms, start), start);
    let (mut out, mut admitted, mut reported): (Vec<Permit>, u32, u32) = (Vec::new(), 0, 0);
    let is_current = |circuit: &Circuit, permit: &Permit| permit.is_probe() && permit.period == circuit.period;
    // Providers have good and bad times, or the walk would never see a long recovery.
    let mut health = 0.5;
    for step in 0..1_000 {
        let here = format!("seed {seed}, step {step}");
        let before = circuit.clone();
        match random.u32(0..100) {
            0..45 => {
                let permit = circuit.admit(now);
                admitted += u32::from(permit.is_some());
                match (before.forced, before.retry_at()) {
                    (Some(Forced::Open), _) => assert!(permit.is_none(), "{here}"),
                    (Some(Forced::Closed), _) => assert!(permit.as_ref().is_some_and(|it| !it.probe), "{here}"),
                    (None, Some(until)) => assert_eq!(permit.is_some(), now >= until, "{here}"),
                    (None, None) => {}
                }
                if permit.as_ref().is_some_and(Permit::is_probe) {
                    assert!(circuit.probes() <= terms.half_open_requests, "{here}");
                }
                out.extend(permit);
            }
            45..90 if !out.is_empty() => {
                let permit = out.swap_remove(random.usize(..out.len()));
                let is_late = permit.period != circuit.period;
                let verdict = match random.f64() {
                    draw if draw < 0.1 => Verdict::Uncounted,
                    _ if random.f64() < health => Verdict::Success,
                    _ => FAILURE,
                };
                circuit.report(permit, verdict, now, random.f64());
                reported += 1;
                if is_late {
                    assert_eq!(format!("{circuit:?}"), format!("{before:?}"), "{here}");
                }
                if before.forced.is_some() {
                    assert_eq!(circuit.state, before.state, "{here}");
                }
                if let (Some(until), State::Closed | State::HalfOpen) = (circuit.retry_at(), before.state) {
                    let wait = until - now;
                    assert!(wait >= terms.recovery_timeout.mul_f64(0.9), "{here}: {wait:?}");
                    assert!(wait <= terms.max_recovery_timeout.mul_f64(1.1), "{here}: {wait:?}");
                }
            }
            90..91 => {
                circuit.force([None, None, Some(Forced::Open), Some(Forced::Closed)][random.usize(..4)], now);
            }
            91..92 => {
                terms.half_open_requests = random.u32(1..5);
                circuit.set_terms(terms, now);
            }
            92..93 => health = [0.0, 0.3, 0.9, 1.0][random.usize(..4)],
            _ => now += Duration::from_millis(random.u64(0..5_000)),
        }
        let probes = out.iter().filter(|permit| is_current(&circuit, permit)).count();
        assert_eq!(circuit.probes() as usize, probes, "{here}");
        assert!(probes == 0 || circuit.state == State::HalfOpen, "{here}");
        assert!(circuit.history.len() <= HISTORY_MAX, "{here}");
        let pairs = circuit.history.iter().zip(circuit.history.iter().skip(1));
        assert!(pairs.clone().all(|(one, next)| one.to == next.from && one.at <= next.at), "{here}");
        assert!(circuit.history.iter().all(|transition| transition.from != transition.to), "{here}");
        assert_eq!(circuit.history.back().map_or(State::Closed, |last| last.to), circuit.state(), "{here}");
    }
    // Whatever has happened: once the provider is well and nobody forces it, the circuit closes.
    circuit.force(None, now);
    for permit in out.drain(..) {
        circuit.report(permit, Verdict::Success, now, NONE);
        reported += 1;
    }
    assert_eq!((admitted, circuit.probes()), (reported, 0), "seed {seed}");
    now = circuit.retry_at().map_or(now, |until| until.max(now));
    for _ in 0..terms.success_threshold {
        let permit = circuit.admit(now).unwrap_or_else(|| panic!("seed {seed}: nothing goes through"));
        circuit.report(permit, Verdict::Success, now, NONE);
    }
    assert_eq!(circuit.state(), State::Closed, "seed {seed}");
}

#[test]
fn whatever_happens_the_invariants_hold_and_the_seed_is_told() {
    (0..200).for_each(walk);
}
