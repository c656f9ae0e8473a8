//! How the gateway's state looks as JSON. ◇

use super::control::{ConfigStatus, Dependency, ProviderView, Readiness, Reloaded};
use crate::observe::timestamp;
use crate::overrides::Shown;
use serde_json::{Value, json};

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
    json!({
        "name": provider.name,
        "url": provider.url,
        "in_flight": provider.in_flight,
    })
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
