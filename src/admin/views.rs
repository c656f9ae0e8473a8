//! How the gateway's state looks as JSON. ◇

use super::advice::{advice, shares};
use super::control::{
    BalanceView, CircuitView, ConfigStatus, Counts, DegradationView, Dependency, ProviderView, QueueView, Readiness,
    Reloaded, RetryView, WaitingView,
};
use crate::instant::Instant;
use crate::observe::timestamp;
use crate::overrides::Shown;
use crate::policy::circuit::{self, State};
use crate::policy::class::Class;
use crate::policy::degrade::{Forced, Totals};
use crate::policy::ladder::Kind;
use serde_json::{Map, Value, json};
use std::time::{Duration, SystemTime};

pub(super) fn readiness(readiness: &Readiness, verbose: bool) -> Value {
    let status = match readiness {
        Readiness { draining: true, .. } => "draining",
        Readiness { ready: true, .. } => "ready",
        Readiness { .. } => "not_ready",
    };
    let mut view = json!({ "status": status });
    if verbose {
        let checks = readiness.checks.iter();
        let checks = checks.map(|check| json!({ "name": check.name, "ok": check.ok, "detail": check.detail }));
        view["checks"] = checks.collect();
    }
    view
}

pub(super) fn provider(provider: &ProviderView) -> Value {
    let [p50, p95, p99] = provider.latency.map(seconds);
    json!({
        "name": provider.name,
        "url": provider.url,
        "healthy": provider.healthy,
        "draining": provider.draining,
        "circuit": provider.circuit.as_str(),
        "in_flight": provider.in_flight,
        "utilisation": provider.utilisation,
        "latency": { "p50": p50, "p95": p95, "p99": p99 },
        "cooldown_until": provider.cooldown_until.map(timestamp),
        "limits": { "concurrency": provider.concurrency, "rate": provider.rate },
        // Nothing is learned from rejections yet: what holds is what the file says.
        "learned": {
            "status": "normal",
            "consecutive_429s": null,
            "reduction_pct": 0,
            "rate": provider.rate,
            "concurrency": provider.concurrency,
            "evidence": [],
        },
        "attempts": tries(provider.attempts),
    })
}

/// One provider in a few words, for whoever asks whether all are well.
pub(super) fn provider_health(provider: &ProviderView) -> Value {
    let rests = provider.cooldown_until.is_some();
    json!({
        "name": provider.name,
        "url": provider.url,
        "healthy": provider.healthy,
        "available": provider.healthy && !provider.draining && !rests && provider.circuit != State::Open,
        "draining": provider.draining,
        "circuit": provider.circuit.as_str(),
        "in_flight": provider.in_flight,
    })
}

pub(super) fn circuit(view: &CircuitView) -> Value {
    let circuit = &view.circuit;
    let at = |instant: Instant| timestamp(wall(instant, view.now, view.at));
    let counts = circuit.counts();
    let history = circuit.history().map(|step| {
        json!({ "at": at(step.at), "from": step.from.as_str(), "to": step.to.as_str(), "why": step.why.to_string() })
    });
    json!({
        "provider": view.provider,
        "state": circuit.state().as_str(),
        "forced": circuit.forced().map(circuit::Forced::as_str),
        "failures": circuit.failures(),
        "counts": { "successes": counts.successes, "failures": counts.failures },
        "probes": circuit.probes(),
        "last_failure_at": circuit.last_failure_at().map(at),
        "opened_at": circuit.opened_at().map(at),
        "half_opened_at": circuit.half_opened_at().map(at),
        "retry_at": circuit.retry_at().map(at),
        "history": history.collect::<Vec<_>>(),
    })
}

pub(super) fn queue(queue: &QueueView) -> Value {
    let by_class =
        |of: [Value; 3]| Class::ALL.iter().map(|class| class.as_str().to_owned()).zip(of).collect::<Map<_, _>>();
    let clients = queue
        .clients
        .iter()
        .map(|(class, client, waiting)| json!({ "client": client, "class": class.as_str(), "waiting": waiting }));
    json!({
        "pool": queue.pool,
        "depth": by_class(queue.depth.map(Value::from)),
        "oldest_seconds": by_class(queue.oldest.map(|age| seconds(age).into())),
        "clients": clients.collect::<Vec<_>>(),
        "in_flight": queue.in_flight,
        "capacity": queue.capacity,
        "paused": queue.paused,
        "shed": by_reason(&queue.shed),
        "gone": queue.gone,
        "dispatched_total": queue.dispatched,
        "dispatch_rate": queue.rate,
        "estimated_wait_seconds": seconds(queue.estimated_wait),
        "held_bytes": queue.held,
    })
}

pub(super) fn waiting(one: &WaitingView) -> Value {
    json!({
        "id": one.id,
        "request_id": one.request_id,
        "client": one.client,
        "class": one.class.as_str(),
        "route": one.route,
        "method": one.method,
        "path": one.path,
        "again": one.again,
        "waited_seconds": one.waited.as_secs_f64(),
        "left_seconds": one.left.as_secs_f64(),
    })
}

pub(super) fn balance(balance: &BalanceView) -> Value {
    let members = balance.members.iter().zip(shares(balance)).map(|(member, share)| {
        json!({
            "provider": member.provider.name,
            "weight": member.weight,
            "backup": member.backup,
            "attempts": tries(member.provider.attempts),
            "share": share.map(|share| share.of_attempts),
            "share_by_weight": share.map(|share| share.of_weights),
            "in_flight": member.provider.in_flight,
            "utilisation": member.provider.utilisation,
        })
    });
    json!({
        "pool": balance.pool,
        "balance": balance.rule,
        "waiting": balance.waiting,
        "providers": members.collect::<Vec<_>>(),
        "recommendations": advice(balance),
    })
}

pub(super) fn retries(view: &RetryView) -> Value {
    let routes = view.routes.iter().map(|(route, retries, skipped)| {
        json!({ "route": route, "retries": by_reason(retries), "skipped": by_reason(skipped) })
    });
    let pools = view.budgets.iter().map(|(pool, left)| json!({ "pool": pool, "budget_remaining": left }));
    json!({
        "attempts": tries(view.attempts),
        "costs": view.costs.map(tries),
        "routes": routes.collect::<Vec<_>>(),
        "pools": pools.collect::<Vec<_>>(),
    })
}

pub(super) fn degradation(view: &DegradationView) -> Value {
    let degradation = &view.degradation;
    let at = |instant: Instant| timestamp(wall(instant, view.now, view.at));
    let spell = degradation.spell();
    let past = degradation.past().rev().map(|spell| {
        json!({
            "since": at(spell.since),
            "until": at(spell.until),
            "seconds": spell.length().as_secs_f64(),
            "why": spell.why.to_string(),
            "answers": by_rung(&spell.totals),
            "requests_affected": spell.totals.affected(),
            "failed": spell.totals.failed,
        })
    });
    json!({
        "route": view.route,
        "ladder": view.ladder.iter().map(|rung| rung.as_str()).collect::<Vec<_>>(),
        "degraded": spell.is_some(),
        "rung": degradation.kind().map(Kind::as_str),
        "forced": degradation.forced().map(|forced| match forced {
            Forced::First => "first",
            Forced::On(rung) => rung.as_str(),
        }),
        "since": spell.map(|spell| at(spell.since)),
        "why": spell.map(|spell| spell.why.to_string()),
        "requests_affected": spell.map_or(0, |spell| spell.totals.affected()),
        "answers_total": by_rung(&view.totals),
        "failed_total": view.totals.failed,
        "events": degradation.spells(),
        "past": past.collect::<Vec<_>>(),
    })
}

fn by_rung(totals: &Totals) -> Value {
    Kind::ALL
        .iter()
        .map(|rung| (rung.as_str().to_owned(), totals.answers[rung.index()].into()))
        .collect::<Map<_, _>>()
        .into()
}

fn tries<T: Into<Value>>([first, retry, hedge]: [T; 3]) -> Value {
    json!({ "first": first.into(), "retry": retry.into(), "hedge": hedge.into() })
}

fn by_reason(counts: &Counts) -> Value {
    counts.iter().map(|(reason, count)| ((*reason).to_owned(), Value::from(*count))).collect::<Map<_, _>>().into()
}

fn seconds(span: Option<Duration>) -> Option<f64> {
    span.map(|span| span.as_secs_f64())
}

/// What the wall clock says at `instant`, if it says `at` now.
fn wall(instant: Instant, now: Instant, at: SystemTime) -> SystemTime {
    let then = if instant >= now { at.checked_add(instant - now) } else { at.checked_sub(now - instant) };
    then.unwrap_or(at)
}

pub(super) fn dependency(dependency: &Dependency) -> Value {
    json!({
        "name": dependency.name,
        "state": dependency.state,
        "latency_seconds": dependency.latency.map(|latency| latency.as_secs_f64()),
        "detail": dependency.detail,
    })
}

pub(super) fn overriding(shown: &Shown) -> Value {
    json!({
        "id": shown.target.to_string(),
        "kind": shown.target.kind.as_str(),
        "name": shown.target.name,
        "setting": shown.made.setting.as_str(),
        "since": timestamp(shown.made.since),
        "until": shown.made.until.map(timestamp),
        "unused": !shown.used,
        "durable": shown.durable,
    })
}

pub(super) fn config(status: &ConfigStatus) -> Value {
    let same_file = status.on_disk.hash.as_deref() == Some(&*status.applied.hash);
    let in_sync = same_file && status.on_disk.error.is_none() && status.diff.is_empty();
    json!({
        "applied": {
            "hash": status.applied.hash,
            "at": timestamp(status.applied.at),
            "effective": status.applied.effective,
        },
        "on_disk": {
            "hash": status.on_disk.hash,
            "seen_at": timestamp(status.on_disk.seen_at),
            "error": status.on_disk.error,
        },
        "in_sync": in_sync,
        "diff": status.diff,
    })
}

pub(super) fn reloaded(reloaded: &Reloaded) -> Value {
    json!({ "hash": reloaded.hash, "changes": reloaded.changes, "notes": reloaded.notes })
}
