//! Both sides in one process, over a real pair of sockets; and processes that are no Sluice.

use super::message::{self, Message};
use super::successor::{HandoverError, Program, Successor};
use super::{Predecessor, VERSION};
use crate::server::inherited::{Address, Inherited, Role, Sockets};
use std::ffi::OsString;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

fn address(bind: &str) -> Address {
    Address { role: Role::Listener, bind: bind.to_owned() }
}

/// This many sockets of one port, and where they listen.
fn sockets(count: usize) -> (Vec<OwnedFd>, SocketAddr) {
    let first = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let local = first.local_addr().expect("it listens");
    let open = (0..count).map(|_| first.try_clone().expect("a descriptor").into()).collect();
    (open, local)
}

fn program(path: &str, arguments: &[&str]) -> Program {
    let arguments = arguments.iter().map(OsString::from).collect();
    Program { path: path.into(), arguments, without: Vec::new() }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// The running process says `words`; what the new one makes of it.
fn inherit(words: &[(Message, Vec<OwnedFd>)]) -> (Result<Inherited, String>, OwnedFd) {
    let (ours, theirs) = message::pair().expect("two sockets");
    for (word, sockets) in words {
        message::send(ours.as_fd(), word, sockets).expect("there is room");
    }
    (Predecessor::at(theirs).inherit(), ours)
}

#[test]
fn sockets_arrive_with_their_addresses_however_many_there_are() {
    let (many, local) = sockets(100);
    let (one, other) = sockets(1);
    let mut many = many.into_iter();
    let first: Vec<_> = many.by_ref().take(message::SOCKETS_PER_MESSAGE).collect();
    let word = |bind: &str, kept| Message::Sockets { address: address(bind), kept };
    let (inherited, _ours) = inherit(&[
        (Message::Hello { version: VERSION }, Vec::new()),
        (word("127.0.0.1:1", true), first),
        (word("127.0.0.1:1", true), many.collect()),
        (word("127.0.0.1:2", false), one),
        (Message::All, Vec::new()),
    ]);
    let mut inherited = inherited.expect("a hand-over");
    for (bind, count, kept, local) in [("127.0.0.1:2", 1, false, other), ("127.0.0.1:1", 100, true, local)] {
        let Sockets { open, kept: is_kept } = inherited.take(Role::Listener, "web", bind).expect("it was handed over");
        assert_eq!((open.len(), is_kept), (count, kept));
        for socket in open {
            assert_eq!(TcpListener::from(socket).local_addr().expect("it listens"), local);
        }
    }
}

#[test]
fn another_version_is_refused_by_both_with_what_to_do() {
    let (inherited, ours) = inherit(&[(Message::Hello { version: VERSION + 1 }, Vec::new())]);
    let why = inherited.expect_err("a version from the future");
    assert!(why.contains("stop the running one and start this one instead"), "{why}");
    let (answer, _) = message::receive(ours.as_fd()).expect("an answer");
    assert_eq!(answer, Message::Failed { why });
}

#[test]
fn a_process_before_that_ends_in_the_middle_is_no_hand_over() {
    let (ours, theirs) = message::pair().expect("two sockets");
    message::send(ours.as_fd(), &Message::Hello { version: VERSION }, &[]).expect("there is room");
    drop(ours);
    let why = Predecessor::at(theirs).inherit().expect_err("it has ended");
    assert!(why.contains("does not hand over any more"), "{why}");
}

#[test]
fn a_reason_of_any_length_is_told() {
    let (ours, theirs) = message::pair().expect("two sockets");
    Predecessor::at(theirs).failed(&"ä".repeat(1024 * 1024));
    let (Message::Failed { why }, _) = message::receive(ours.as_fd()).expect("a message") else { panic!("a reason") };
    assert!(why.chars().all(|letter| letter == 'ä') && !why.is_empty());
}

/// What becomes of a hand-over to `program` within `limit`, and how that process ended by itself.
fn hand_over(program: &Program, limit: Duration) -> (Option<HandoverError>, Option<i32>, bool) {
    runtime().block_on(async {
        let mut successor = Successor::start(program).expect("it can be started");
        let (open, _) = sockets(70);
        let mut released = false;
        let sockets = vec![(address("127.0.0.1:1"), Sockets { open, kept: false })];
        let takes = successor.takes_over(sockets, async || released = true);
        let took = tokio::time::timeout(limit, takes).await;
        let failed = took.ok().map(|took| took.expect_err("it is no Sluice"));
        (failed, successor.end().await.and_then(|status| status.code()), released)
    })
}

#[test]
fn a_process_that_stays_silent_is_given_up_and_killed() {
    let (failed, code, released) = hand_over(&program("/bin/sleep", &["1000"]), Duration::from_millis(50));
    assert!(failed.is_none() && code.is_none() && !released, "{failed:?} {code:?}");
}

#[test]
fn a_process_that_ends_is_noticed_at_once() {
    let (failed, code, released) = hand_over(&program("/bin/sh", &["-c", "exit 3"]), Duration::from_secs(20));
    assert!(matches!(failed, Some(HandoverError::Ended)), "{failed:?}");
    assert_eq!((code, released), (Some(3), false));
}

#[test]
fn a_process_that_speaks_something_else_is_told_apart() {
    let (failed, code, _) = hand_over(&program("/bin/sh", &["-c", "echo hello >&0; exit 0"]), Duration::from_secs(20));
    assert!(matches!(failed, Some(HandoverError::Unexpected(_))), "{failed:?}");
    assert_eq!(code, Some(0));
}

#[test]
fn a_process_that_ends_without_listening_is_asked_for_its_reason() {
    let script = r#"echo '{"message":"failed","why":"another version"}' >&0; exit 1"#;
    let (failed, code, _) = hand_over(&program("/bin/sh", &["-c", script]), Duration::from_secs(20));
    assert_eq!(failed.expect("it failed").to_string(), "it says: another version");
    assert_eq!(code, Some(1));
}

#[test]
fn what_only_one_may_hold_is_let_go_of_after_the_check_and_before_the_new_one_builds() {
    let script = r#"echo '{"message":"checked"}' >&0; echo '{"message":"failed","why":"locked"}' >&0; exec sleep 1000"#;
    let (failed, _, released) = hand_over(&program("/bin/sh", &["-c", script]), Duration::from_secs(20));
    assert!(released);
    assert_eq!(failed.expect("it failed").to_string(), "it says: locked");
}
