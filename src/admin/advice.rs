//! What an operator might do about how a pool spreads its attempts, in plain words. ◇
//!
//! Each piece of advice says what was seen, in figures, and what to change. What is as it should be is not mentioned, and
//! what the figures are too few to tell is not either.

use super::control::{BalanceView, MemberView};
use crate::policy::circuit::State;
use std::time::Duration;

/// A member's part of what all members have that are no backup.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Share {
    /// Of the attempts so far.
    pub(super) of_attempts: f64,
    /// Of the weights.
    pub(super) of_weights: f64,
}

/// The share of each member; `None` for a backup, and where nobody was tried yet.
pub(super) fn shares(balance: &BalanceView) -> Vec<Option<Share>> {
    let regular = || balance.members.iter().filter(|member| !member.backup);
    let attempts: u64 = regular().map(attempts).sum();
    let weights: u64 = regular().map(|member| u64::from(member.weight)).sum();
    let share = |member: &MemberView| Share {
        of_attempts: attempts_of(member) / attempts as f64,
        of_weights: f64::from(member.weight) / weights as f64,
    };
    balance.members.iter().map(|member| (!member.backup && attempts > 0).then(|| share(member))).collect()
}

/// What there is to say, the most urgent first.
pub(super) fn advice(balance: &BalanceView) -> Vec<String> {
    let members = &balance.members;
    let mut said = Vec::new();
    let nobody = members.iter().all(|member| out(member).is_some());
    if nobody {
        said.push("no provider takes requests: GET /health/providers shows each".to_owned());
    }
    for member in members {
        let name = &member.provider.name;
        if let Some(why) = out(member) {
            said.push(format!("{name} {why}{}", if nobody { "" } else { "; the others take its share" }));
        }
        if member.provider.utilisation > SATURATED {
            let part = percent(member.provider.utilisation);
            let limit = member.provider.concurrency;
            said.push(format!(
                "{name} was at its limit of {limit} for {part} of the last seconds: raise `limits.concurrency` if it can take more, or add a provider"
            ));
        }
    }
    let room = |member: &MemberView| member.provider.in_flight < member.provider.concurrency;
    if balance.waiting > 0 && !nobody && members.iter().all(room) {
        let waiting = balance.waiting;
        said.push(format!(
            "{waiting} wait although no provider is at its limit: is the queue paused, or a `rate` used up?"
        ));
    }
    if let [only] = &members[..] {
        let name = &only.provider.name;
        said.push(format!("{name} is alone: with a second provider, one may fail"));
    }
    said.extend(uneven(balance));
    said.extend(slow(balance));
    said
}

/// Members whose share of the attempts is far from their weight. Only rules that go by weight alone promise it.
fn uneven(balance: &BalanceView) -> Vec<String> {
    let promised = matches!(balance.rule, "round_robin" | "weighted");
    if !promised || !enough(balance) {
        return Vec::new();
    }
    let far = |(member, share): (&MemberView, Option<Share>)| {
        let (name, share) = (&member.provider.name, share?);
        let fair = if balance.rule == "round_robin" { 1.0 / regular(balance) as f64 } else { share.of_weights };
        ((share.of_attempts - fair).abs() > UNEVEN).then(|| {
            let (got, fair) = (percent(share.of_attempts), percent(fair));
            format!("{name} got {got} of the attempts, by the rule it would be {fair}: was it out for long, or does it serve other pools too?")
        })
    };
    balance.members.iter().zip(shares(balance)).filter_map(far).collect()
}

/// Members that are much slower than the fastest, where the rule does not look at that.
fn slow(balance: &BalanceView) -> Option<String> {
    let looked_at = matches!(balance.rule, "peak_ewma" | "least_connections" | "consistent_hash");
    if looked_at || !enough(balance) {
        return None;
    }
    let median = |member: &MemberView| member.provider.latency[0].map(|median| (median, member.provider.name.clone()));
    let known: Vec<(Duration, String)> = balance.members.iter().filter_map(median).collect();
    let (fastest, slowest) = (known.iter().min()?, known.iter().max()?);
    let times = slowest.0.as_secs_f64() / fastest.0.as_secs_f64().max(1e-6);
    (times >= SLOWER && slowest.0 >= SLOW_AT_ALL).then(|| {
        let (slow, fast) = (&slowest.1, &fastest.1);
        format!("{slow} takes {times:.0} times as long as {fast}: `balance: peak_ewma` would send it less")
    })
}

/// Why a member gets nothing now.
fn out(member: &MemberView) -> Option<&'static str> {
    let provider = &member.provider;
    match provider.circuit {
        _ if provider.draining => Some("is drained"),
        _ if !provider.healthy => Some("fails its health checks"),
        State::Open => Some("is behind an open circuit"),
        _ if provider.cooldown_until.is_some() => Some("asked for a pause"),
        State::Closed | State::HalfOpen => None,
    }
}

fn regular(balance: &BalanceView) -> usize {
    balance.members.iter().filter(|member| !member.backup).count().max(1)
}

/// Whether there were attempts enough to tell something by.
fn enough(balance: &BalanceView) -> bool {
    balance.members.iter().map(attempts).sum::<u64>() >= ATTEMPTS_MIN
}

fn attempts(member: &MemberView) -> u64 {
    member.provider.attempts.iter().sum()
}

fn attempts_of(member: &MemberView) -> f64 {
    attempts(member) as f64
}

fn percent(part: f64) -> String {
    format!("{:.0} %", part * 100.0)
}

/// A provider that was at its limit for more of the time than this needs more room.
const SATURATED: f64 = 0.9;

/// A share that is further from the weight than this is uneven.
const UNEVEN: f64 = 0.25;

/// Fewer attempts say nothing about shares, nor about who is slow.
const ATTEMPTS_MIN: u64 = 100;

/// So many times as slow as the fastest is much slower.
const SLOWER: f64 = 3.0;

/// What takes less than this is not slow, however fast the others are.
const SLOW_AT_ALL: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use super::super::control::ProviderView;
    use super::*;

    fn member(name: &str, weight: u32, attempts: u64) -> MemberView {
        let provider = ProviderView {
            name: name.to_owned(),
            url: "http://127.0.0.1:1".to_owned(),
            healthy: true,
            draining: false,
            circuit: State::Closed,
            in_flight: 0,
            concurrency: 64,
            rate: None,
            utilisation: 0.0,
            latency: [Some(Duration::from_millis(10)); 3],
            cooldown_until: None,
            attempts: [attempts, 0, 0],
        };
        MemberView { weight, backup: false, provider }
    }

    fn pool(rule: &'static str, members: Vec<MemberView>) -> BalanceView {
        BalanceView { pool: "main".to_owned(), rule, waiting: 0, members }
    }

    #[test]
    fn shares_are_of_those_that_are_no_backup() {
        let backup = MemberView { backup: true, ..member("gamma", 9, 100) };
        let balance = pool("weighted", vec![member("alpha", 3, 60), member("beta", 1, 20), backup]);
        let share = |part| Some(Share { of_attempts: part, of_weights: part });
        assert_eq!(shares(&balance), [share(0.75), share(0.25), None]);
        let fresh = pool("weighted", vec![member("alpha", 3, 0), member("beta", 1, 0)]);
        assert_eq!(shares(&fresh), [None, None]);
    }

    #[test]
    fn a_pool_that_is_well_needs_no_advice() {
        let even = pool("weighted", vec![member("alpha", 3, 7_000), member("beta", 1, 3_000)]);
        assert_eq!(advice(&even), [""; 0]);
        let few = pool("round_robin", vec![member("alpha", 1, 9), member("beta", 1, 1)]);
        assert_eq!(advice(&few), [""; 0]);
        let timed = |median, member: MemberView| {
            let latency = [Some(Duration::from_micros(median)); 3];
            MemberView { provider: ProviderView { latency, ..member.provider }, weight: 1, backup: false }
        };
        let just_begun = [timed(10_000, member("alpha", 1, 9)), timed(500_000, member("beta", 1, 9))];
        assert_eq!(advice(&pool("round_robin", just_begun.into())), [""; 0]);
        let fast = [timed(100, member("alpha", 1, 900)), timed(1_900, member("beta", 1, 900))];
        assert_eq!(advice(&pool("round_robin", fast.into())), [""; 0]);
        let by_latency = pool("peak_ewma", vec![member("alpha", 1, 9_000), member("beta", 1, 1_000)]);
        assert_eq!(advice(&by_latency), [""; 0]);
    }

    #[test]
    fn who_waits_is_explained_by_what_is_so_now() {
        let mut full = member("alpha", 1, 10);
        full.provider.in_flight = full.provider.concurrency;
        let busy = BalanceView { waiting: 7, ..pool("weighted", vec![full, member("beta", 1, 10)]) };
        assert_eq!(advice(&busy), [""; 0], "it was not at its limit for long, but it is now");
        let mut rests = member("alpha", 1, 10);
        rests.provider.cooldown_until = Some(std::time::SystemTime::UNIX_EPOCH);
        let rested = BalanceView { waiting: 7, ..pool("weighted", vec![rests, member("beta", 1, 10)]) };
        assert_eq!(
            advice(&rested),
            [
                "alpha asked for a pause; the others take its share",
                "7 wait although no provider is at its limit: is the queue paused, or a `rate` used up?",
            ]
        );
    }

    #[test]
    fn what_is_seen_is_said_in_figures_with_what_to_change() {
        let mut busy = member("alpha", 1, 900);
        busy.provider.utilisation = 0.95;
        let mut slow = member("beta", 1, 100);
        slow.provider.latency = [Some(Duration::from_millis(50)); 3];
        let mut open = member("gamma", 1, 900);
        open.provider.circuit = State::Open;
        assert_eq!(
            advice(&pool("round_robin", vec![busy, slow, open])),
            [
                "alpha was at its limit of 64 for 95 % of the last seconds: raise `limits.concurrency` if it can take more, or add a provider",
                "gamma is behind an open circuit; the others take its share",
                "beta got 5 % of the attempts, by the rule it would be 33 %: was it out for long, or does it serve other pools too?",
                "beta takes 5 times as long as alpha: `balance: peak_ewma` would send it less",
            ]
        );
        let mut drained = member("alpha", 1, 10);
        drained.provider.draining = true;
        let mut unwell = member("beta", 1, 10);
        unwell.provider.healthy = false;
        let waiting = BalanceView { waiting: 7, ..pool("weighted", vec![drained, unwell]) };
        assert_eq!(
            advice(&waiting),
            [
                "no provider takes requests: GET /health/providers shows each",
                "alpha is drained",
                "beta fails its health checks",
            ]
        );
        assert_eq!(
            advice(&pool("weighted", vec![member("alpha", 1, 0)])),
            ["alpha is alone: with a second provider, one may fail"]
        );
    }
}
