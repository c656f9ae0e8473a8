//! Floods: what a hostile client sends in masses, each against the real binary.
//!
//! While each of them runs, a polite client asks on a connection of its own and every request of it succeeds, and the
//! process grows by less than [`GROWTH`]. The flood's connection ends with ENHANCE_YOUR_CALM, or the test says which bound
//! holds it.

use super::behind::{Behind, Script};
use super::compression::{block, indexed, literal, literal_indexed, table_size};
use super::frames::*;
use crate::world::{BEFORE, Extra, Provider, Sluice, wait_until};
use sluice::clock;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// The real binary under attack, and a polite client beside the attacker.
#[derive(Debug)]
struct Siege {
    sluice: Sluice,
    _alpha: Provider,
    script: Arc<Script>,
    before: u64,
    over: Arc<AtomicBool>,
    polite: Option<JoinHandle<usize>>,
    served: Arc<AtomicUsize>,
}

impl Siege {
    fn lay() -> Self {
        let script = Arc::new(Script::default());
        let follows = Arc::clone(&script);
        let alpha = Provider::scripted(move |peer| follows.follow(peer));
        let sluice = Sluice::spawn(BEFORE, &[("alpha", alpha.address())]);
        let (over, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (ends, counts, web) = (Arc::clone(&over), Arc::clone(&served), sluice.web());
        let polite = std::thread::spawn(move || is_polite(web, &ends, &counts));
        // What the first requests make it allocate is no growth of a flood.
        wait_until("the polite client is served", || served.load(Ordering::SeqCst) >= 200 || polite.is_finished());
        let before = memory(&sluice, "VmRSS");
        Siege { sluice, _alpha: alpha, script, before, over, polite: Some(polite), served }
    }

    /// A connection of the attacker, its handshake done.
    fn attacker(&self) -> Frames {
        let mut attacker = Frames::connect(self.sluice.web());
        attacker.wire().patience(STALLED);
        attacker
    }

    /// How many requests for `/flood` the provider has heard.
    fn reached(&self) -> usize {
        self.script.flooded()
    }

    /// The polite client was served throughout, and is still; memory did not grow.
    fn lift(mut self) {
        let served = self.served.load(Ordering::SeqCst);
        wait_until("the polite client is served", || self.served.load(Ordering::SeqCst) > served + 20 || self.failed());
        self.over.store(true, Ordering::SeqCst);
        let polite = self.polite.take().map(JoinHandle::join);
        assert!(matches!(polite, Some(Ok(_))), "the polite client failed: {polite:?}");
        let peak = memory(&self.sluice, "VmHWM");
        let grown = peak.saturating_sub(self.before);
        assert!(grown < GROWTH, "the process grew by {grown} KiB from {} KiB", self.before);
    }

    fn failed(&self) -> bool {
        self.polite.as_ref().is_some_and(JoinHandle::is_finished)
    }
}

/// One GET after the other until it is over; how many. Fails with the first that is not answered with 200.
fn is_polite(web: SocketAddr, over: &AtomicBool, served: &AtomicUsize) -> usize {
    let mut stream = 1;
    let mut client = Frames::connect(web);
    while !over.load(Ordering::SeqCst) {
        client.get(stream, "/polite");
        client.is_answered(stream);
        client.forget(stream);
        client.window(0, 5);
        stream += 2;
        served.fetch_add(1, Ordering::SeqCst);
    }
    usize::try_from(stream / 2).expect("a count")
}

/// A line of `/proc/PID/status`, in KiB.
fn memory(sluice: &Sluice, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", sluice.pid())).expect("the process is there");
    let line = status.lines().find(|line| line.starts_with(name)).expect("a line of that name");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

/// Sends `count` floods' worth of `frames(number)`, reading what comes back. Ends where the peer takes no more.
fn flood(attacker: &mut Frames, count: u32, frames: impl Fn(u32) -> Vec<u8>) -> u32 {
    for start in (0..count).step_by(BATCH) {
        let bytes: Vec<u8> = (start..count.min(start + BATCH as u32)).flat_map(&frames).collect();
        if attacker.wire().try_send(bytes).is_err() || !attacker.drain() {
            return start;
        }
    }
    count
}

fn stream(number: u32) -> u32 {
    number * 2 + 1
}

#[test]
fn rapid_reset_reaches_the_provider_with_few_requests() {
    let siege = Siege::lay();
    let mut attacker = siege.attacker();
    let sent = flood(&mut attacker, 10_000, given_up);
    attacker.expect_goaway(ENHANCE_YOUR_CALM);
    assert!(siege.reached() <= 4, "{} of {sent} reached the provider", siege.reached());
    siege.lift();
}

#[test]
fn a_reset_right_behind_its_request_keeps_it_from_the_provider() {
    // One pair after the other, each surely taken: no flood at any moment, so no bound on bursts holds it.
    let siege = Siege::lay();
    let mut attacker = siege.attacker();
    let mut number = 0;
    while attacker.goaways().is_empty() && number < 10_000 {
        attacker.send(given_up(number));
        attacker.pinged();
        number += 1;
    }
    attacker.expect_goaway(ENHANCE_YOUR_CALM);
    assert!(siege.reached() <= 4, "{} of {number} reached the provider", siege.reached());
    siege.lift();
}

#[test]
fn a_client_may_give_up_all_that_it_has_under_way_twice_in_a_row() {
    // As somebody does who leaves a page before it is there, and the next one.
    let siege = Siege::lay();
    let mut browser = siege.attacker();
    let most = browser.setting(MAX_CONCURRENT_STREAMS).expect("a limit");
    for number in 0..most {
        browser.get(stream(number), "/flood");
    }
    browser.send((0..most).flat_map(|number| reset(stream(number))).collect::<Vec<u8>>());
    // The second time they come together, as from a network that stood still for a moment.
    browser.send((most..2 * most).flat_map(given_up).collect::<Vec<u8>>());
    browser.lives();
    browser.get(stream(2 * most), "/");
    browser.is_answered(stream(2 * most));
    siege.lift();
}

/// A request, and its reset right behind it.
fn given_up(number: u32) -> Vec<u8> {
    let stream = stream(number);
    [frame(HEADERS, END_STREAM | END_HEADERS, stream, get("/flood")), reset(stream)].concat()
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, CANCEL.to_be_bytes())
}

#[test]
fn rapid_reset_in_step_with_the_server_is_closed_too() {
    // Each reset only when the request was surely taken: slower, and it may reach the provider until the count is full.
    let siege = Siege::lay();
    let mut attacker = siege.attacker();
    let (mut number, start) = (0, clock::now());
    while attacker.goaways().is_empty() && number < 10_000 {
        attacker.get(stream(number), "/flood");
        attacker.pinged();
        attacker.reset(stream(number), CANCEL);
        number += 1;
    }
    attacker.expect_goaway(ENHANCE_YOUR_CALM);
    // A client that waits is let through until its account is empty: twice the streams that it may have, and a few more
    // each second; on a machine so slow that a tenth of a second passes before the reset, ten of those.
    let seconds = usize::try_from((clock::now() - start).as_secs()).expect("a while");
    let most = 2 * 128 + 32 + 32 * seconds;
    assert!(siege.reached() <= most, "{} of {number} reached the provider", siege.reached());
    siege.lift();
}

/// What makes the server reset a stream.
type Provocation = fn(u32) -> Vec<u8>;

#[test]
fn requests_whose_resets_the_client_provokes_are_closed_too() {
    // MadeYouReset: the server resets, the client only makes it do so.
    let provocations: [(&str, Provocation); 4] = [
        ("a window that overflows", |stream| frame(WINDOW_UPDATE, 0, stream, MOST.to_be_bytes())),
        ("an increment of zero", |stream| frame(WINDOW_UPDATE, 0, stream, 0_u32.to_be_bytes())),
        ("a priority on itself", |stream| frame(PRIORITY, 0, stream, [&stream.to_be_bytes()[..], &[1]].concat())),
        ("data behind the end", |stream| frame(DATA, END_STREAM, stream, "more")),
    ];
    for (what, provoke) in provocations {
        let siege = Siege::lay();
        let mut attacker = siege.attacker();
        let sent = flood(&mut attacker, 10_000, |number| {
            let stream = stream(number);
            [frame(HEADERS, END_STREAM | END_HEADERS, stream, get("/flood")), provoke(stream)].concat()
        });
        let code = attacker.expect_any_goaway().code;
        let reached = siege.reached();
        // Where the first is an error of the connection, that is its end.
        assert!([ENHANCE_YOUR_CALM, PROTOCOL_ERROR].contains(&code), "{what}: {}", attacker.seen());
        assert!(reached <= 128, "{what}: {reached} of {sent} reached the provider");
        siege.lift();
    }
}

#[test]
fn malformed_requests_in_masses_are_closed() {
    let siege = Siege::lay();
    let mut attacker = siege.attacker();
    flood(&mut attacker, 100_000, |number| {
        let block = [get("/flood"), block(&[("connection", "close")])].concat();
        frame(HEADERS, END_STREAM | END_HEADERS, stream(number), block)
    });
    attacker.expect_goaway(ENHANCE_YOUR_CALM);
    assert_eq!(siege.reached(), 0);
    siege.lift();
}

#[test]
fn a_continuation_flood_is_closed() {
    let siege = Siege::lay();
    let mut attacker = siege.attacker();
    attacker.headers(1, END_STREAM, get("/flood"));
    flood(&mut attacker, 100_000, |_| frame(CONTINUATION, 0, 1, block(&[("x-more", "and more")])));
    attacker.expect_goaway(ENHANCE_YOUR_CALM);
    let mut attacker = siege.attacker();
    attacker.headers(1, END_STREAM, get("/flood"));
    flood(&mut attacker, 100_000, |_| frame(CONTINUATION, 0, 1, []));
    attacker.expect_goaway(ENHANCE_YOUR_CALM);
    assert_eq!(siege.reached(), 0);
    siege.lift();
}

#[test]
fn a_ping_flood_is_closed() {
    let siege = Siege::lay();
    let mut attacker = siege.attacker();
    flood(&mut attacker, 1_000_000, |number| frame(PING, 0, 0, [number.to_be_bytes(), [0; 4]].concat()));
    attacker.expect_goaway(ENHANCE_YOUR_CALM);
    siege.lift();
}

#[test]
fn a_ping_flood_of_a_client_that_does_not_read_is_bounded() {
    let siege = Siege::lay();
    let mut attacker = siege.attacker();
    let pings = frame(PING, 0, 0, [7; 8]).repeat(1000);
    // Closed, or no more is taken: both end the flood.
    for _ in 0..2000 {
        if attacker.wire().try_send(&pings).is_err() {
            break;
        }
    }
    siege.lift();
}

#[test]
fn a_settings_flood_is_closed() {
    let siege = Siege::lay();
    let mut attacker = siege.attacker();
    flood(&mut attacker, 1_000_000, |_| frame(SETTINGS, 0, 0, settings(&[(INITIAL_WINDOW_SIZE, 65_535)])));
    attacker.expect_goaway(ENHANCE_YOUR_CALM);
    let mut attacker = siege.attacker();
    flood(&mut attacker, 1_000_000, |_| frame(SETTINGS, 0, 0, []));
    attacker.expect_goaway(ENHANCE_YOUR_CALM);
    siege.lift();
}

#[test]
fn a_flood_of_empty_data_is_closed() {
    let siege = Siege::lay();
    let mut attacker = siege.attacker();
    attacker.headers(1, END_HEADERS, post());
    flood(&mut attacker, 1_000_000, |_| frame(DATA, 0, 1, []));
    attacker.expect_goaway(ENHANCE_YOUR_CALM);
    // Padding alone is as empty.
    let mut attacker = siege.attacker();
    attacker.headers(1, END_HEADERS, post());
    flood(&mut attacker, 1_000_000, |_| frame(DATA, PADDED, 1, [3, 0, 0, 0]));
    attacker.expect_goaway(ENHANCE_YOUR_CALM);
    siege.lift();
}

#[test]
fn a_window_update_flood_is_closed() {
    let siege = Siege::lay();
    let mut attacker = siege.attacker();
    flood(&mut attacker, 1_000_000, |_| frame(WINDOW_UPDATE, 0, 0, 1_u32.to_be_bytes()));
    attacker.expect_goaway(ENHANCE_YOUR_CALM);
    siege.lift();
}

#[test]
fn a_priority_flood_is_closed() {
    let siege = Siege::lay();
    for kind in [PRIORITY, PRIORITY_UPDATE, 0xee] {
        let mut attacker = siege.attacker();
        flood(&mut attacker, 1_000_000, |number| {
            let on = if kind == PRIORITY { stream(number) } else { 0 };
            frame(kind, 0, on, [0, 0, 0, 0, 16])
        });
        attacker.expect_goaway(ENHANCE_YOUR_CALM);
    }
    siege.lift();
}

#[test]
fn a_bomb_of_one_large_field_named_often_is_refused() {
    // 4 KiB in the table, named by one octet each: 16 KiB of them are 64 MiB of fields.
    let siege = Siege::lay();
    let mut attacker = siege.attacker();
    let field = literal_indexed("x-bomb", "a".repeat(4000));
    let bomb = [get("/flood"), field, indexed(62).repeat(12_000)].concat();
    attacker.headers(1, END_STREAM | END_HEADERS, bomb);
    attacker.expect_goaway(ENHANCE_YOUR_CALM);
    assert_eq!(siege.reached(), 0);
    siege.lift();
}

#[test]
fn a_head_just_above_the_limit_is_refused_with_431() {
    let siege = Siege::lay();
    let mut attacker = siege.attacker();
    let most = usize::try_from(attacker.setting(MAX_HEADER_LIST_SIZE).expect("a limit")).expect("32 bits");
    let fields = (0..=most / 1000).flat_map(|_| literal("x-large", vec![b'a'; 1000 - 39])).collect::<Vec<u8>>();
    let whole = [get("/flood"), fields].concat();
    for (number, part) in whole.chunks(16_384).enumerate() {
        let last = if (number + 1) * 16_384 >= whole.len() { END_HEADERS } else { 0 };
        let (kind, flags) = if number == 0 { (HEADERS, END_STREAM | last) } else { (CONTINUATION, last) };
        attacker.frame(kind, flags, 1, part);
    }
    attacker.wait("431", |attacker| !attacker.stream(1).heads.is_empty());
    assert_eq!(attacker.stream(1).status(), 431);
    attacker.lives();
    assert_eq!(siege.reached(), 0);
    siege.lift();
}

#[test]
fn more_fields_than_the_limit_are_refused_with_431() {
    let siege = Siege::lay();
    let mut attacker = siege.attacker();
    let many = (0..101).flat_map(|_| block(&[("x", "1")])).collect::<Vec<u8>>();
    attacker.headers(1, END_STREAM | END_HEADERS, [get("/flood"), many].concat());
    attacker.wait("431", |attacker| !attacker.stream(1).heads.is_empty());
    assert_eq!(attacker.stream(1).status(), 431);
    attacker.lives();
    assert_eq!(siege.reached(), 0);
    siege.lift();
}

#[test]
fn changes_of_the_table_size_in_masses_cost_nothing() {
    // Each block may hold as many as its frame has room for; the bound is the frame's.
    let siege = Siege::lay();
    let mut attacker = siege.attacker();
    let changes = [table_size(0), table_size(4096)].concat().repeat(3000);
    for number in 0..50 {
        attacker.headers(stream(number), END_STREAM | END_HEADERS, [changes.clone(), get("/")].concat());
        attacker.is_answered(stream(number));
    }
    siege.lift();
}

#[test]
fn a_setting_of_the_table_size_in_masses_is_closed() {
    let siege = Siege::lay();
    let mut attacker = siege.attacker();
    flood(&mut attacker, 1_000_000, |number| {
        frame(SETTINGS, 0, 0, settings(&[(HEADER_TABLE_SIZE, if number % 2 == 0 { 0 } else { u32::MAX })]))
    });
    attacker.expect_goaway(ENHANCE_YOUR_CALM);
    siege.lift();
}

#[test]
fn a_client_that_reads_one_octet_at_a_time_holds_no_more_than_its_window() {
    // The bound is what is buffered for each stream, times the streams that may be open.
    let siege = Siege::lay();
    let mut attacker = siege.attacker();
    attacker.settings(&[(INITIAL_WINDOW_SIZE, 0)]);
    attacker.is_acknowledged(2);
    let most = attacker.setting(MAX_CONCURRENT_STREAMS).expect("a limit").min(100);
    for number in 0..most {
        attacker.get(stream(number), "/bytes/10000000");
    }
    for number in 0..most {
        attacker.wait("a head", |attacker| !attacker.stream(stream(number)).heads.is_empty());
    }
    for _ in 0..20 {
        for number in 0..most {
            attacker.window(stream(number), 1);
        }
        attacker.lives();
    }
    assert!((0..most).all(|number| attacker.is_open(stream(number))), "{}", attacker.seen());
    siege.lift();
}

#[test]
fn a_client_that_never_opens_its_window_is_given_up_after_the_idle_timeout() {
    let settings = Extra { listener: "limits: { idle_timeout: 1s }", ..Extra::default() };
    let mut attacker = Frames::before(Behind::with(settings));
    attacker.send(PREFACE);
    attacker.settings(&[(INITIAL_WINDOW_SIZE, 0)]);
    attacker.is_settled();
    attacker.get(1, "/bytes/10000000");
    attacker.wait("a head", |attacker| !attacker.stream(1).heads.is_empty());
    let given_up = |attacker: &Frames| attacker.stream(1).reset.is_some() || !attacker.goaways().is_empty();
    while !given_up(&attacker) && attacker.read() {}
    assert!(!attacker.stream(1).ended, "{}", attacker.seen());
}

#[test]
fn requests_beyond_the_streams_that_may_be_open_are_refused_and_reach_nobody() {
    let siege = Siege::lay();
    let mut attacker = siege.attacker();
    let most = attacker.setting(MAX_CONCURRENT_STREAMS).expect("a limit");
    flood(&mut attacker, most, |number| frame(HEADERS, END_HEADERS, stream(number), post_to("/flood")));
    attacker.lives();
    let reached = siege.reached();
    flood(&mut attacker, 20_000, |number| frame(HEADERS, END_HEADERS, stream(most + number), post_to("/flood")));
    attacker.expect_goaway(ENHANCE_YOUR_CALM);
    assert!(siege.reached() <= usize::try_from(most).expect("32 bits").max(reached));
    siege.lift();
}

/// In KiB. Without optimisation everything that is kept for a stream is larger.
const GROWTH: u64 = if cfg!(debug_assertions) { 16 * 1024 } else { 8 * 1024 };

/// How many frames are sent before what came back is read.
const BATCH: usize = 100;

/// For a peer that takes no more.
const STALLED: Duration = Duration::from_secs(5);
