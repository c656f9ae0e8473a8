//! The handlers, one per path: read the gateway through [`Control`], answer with a view.

use super::cache;
use super::control::{Control, Rejected};
use super::guard;
use super::problem::Problem;
use super::views;
use crate::config::duration;
use crate::observe::Exposition;
use crate::overrides::{Refused, Shown};
use crate::policy::ladder;
use crate::policy::overrides::{Kind, Setting, Target};
use axum::Json;
use axum::body::{Body, HttpBody};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{Router, delete, get, post};
use serde_json::{Value, json};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// What handlers share.
#[derive(Clone)]
struct Desk {
    control: Arc<dyn Control>,
    /// A check may hold 32 MiB and a core, so there is one at a time.
    checks: Arc<Semaphore>,
}

/// Everything the listener answers, behind the guard.
pub(super) fn router(control: Arc<dyn Control>) -> Router {
    let desk = Desk { control, checks: Arc::new(Semaphore::new(CHECKS_AT_ONCE)) };
    let steers = STEERS.into_iter().fold(Router::new(), |router, (path, kind, setting)| {
        router.route(path, post(async move |desk, uri, name| steer(desk, uri, name, kind, setting).await))
    });
    Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics))
        .route("/livez", get(live))
        .route("/health", get(live))
        .route("/health/live", get(live))
        .route("/readyz", get(ready))
        .route("/health/ready", get(ready))
        .route("/health/providers", get(provider_health))
        .route("/health/dependencies", get(dependencies))
        .route("/api/v1/config", get(config))
        .route("/api/v1/config/reload", post(reload))
        .route("/api/v1/config/check", post(check))
        .route("/api/v1/queues", get(queues))
        .route("/api/v1/queues/{pool}", get(queue))
        .route("/api/v1/queues/{pool}/requests", get(waiting))
        .route("/api/v1/queues/{pool}/requests/{id}", delete(cancel))
        .route("/api/v1/circuit-breakers", get(circuits))
        .route("/api/v1/circuit-breakers/{provider}", get(circuit))
        .route("/api/v1/providers", get(providers))
        .route("/api/v1/providers/{provider}", get(provider))
        .route("/api/v1/load-balancing", get(balances))
        .route("/api/v1/retry", get(retries))
        .route("/api/v1/degradation", get(degradations))
        .route("/api/v1/degradation/{route}", get(degradation))
        .route("/api/v1/cache", get(cached).delete(forget))
        .route("/api/v1/overrides", get(overrides))
        .route("/api/v1/overrides/{kind}/{name}", delete(take_back))
        .merge(steers)
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(desk.clone(), guarded))
        .with_state(desk)
}

/// Asks the guard, then lays the fields over the answer that every answer here has.
async fn guarded(State(desk): State<Desk>, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let mut response = match guard::admit(&desk.control.admin(), &head) {
        Ok(()) => next.run(Request::from_parts(head, body)).await,
        Err(problem) => problem.at(head.uri.path()).into_response(),
    };
    for (name, value) in ALWAYS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn index() -> Html<&'static str> {
    Html(include_str!("index.html"))
}

async fn metrics(State(desk): State<Desk>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let format = exposition(accept.unwrap_or(""));
    match aside(&desk, move |control| control.page(format)).await {
        Some((content_type, page)) => ([(header::CONTENT_TYPE, content_type)], page).into_response(),
        None => failed(&desk).into_response(),
    }
}

async fn live() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

async fn ready(State(desk): State<Desk>, uri: Uri) -> Response {
    let Some(readiness) = aside(&desk, Control::readiness).await else {
        return failed(&desk).at(uri.path()).into_response();
    };
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(views::readiness(&readiness, guard::is_verbose(&uri)))).into_response()
}

async fn provider_health(State(desk): State<Desk>, uri: Uri) -> Response {
    list(&desk, &uri, "providers", |control| control.providers().iter().map(views::provider_health).collect()).await
}

async fn dependencies(State(desk): State<Desk>, uri: Uri) -> Response {
    list(&desk, &uri, "dependencies", |control| control.dependencies().iter().map(views::dependency).collect()).await
}

async fn providers(State(desk): State<Desk>, uri: Uri) -> Response {
    list(&desk, &uri, "providers", |control| control.providers().iter().map(views::provider).collect()).await
}

async fn provider(State(desk): State<Desk>, uri: Uri, Path(name): Path<String>) -> Response {
    let one = move |control: &dyn Control| {
        control.providers().iter().find(|provider| provider.name == name).map(views::provider)
    };
    single(&desk, &uri, "provider", one).await
}

async fn circuits(State(desk): State<Desk>, uri: Uri) -> Response {
    list(&desk, &uri, "circuit_breakers", |control| control.circuits().iter().map(views::circuit).collect()).await
}

async fn circuit(State(desk): State<Desk>, uri: Uri, Path(name): Path<String>) -> Response {
    let one = move |control: &dyn Control| {
        control.circuits().iter().find(|circuit| circuit.provider == name).map(views::circuit)
    };
    single(&desk, &uri, "provider", one).await
}

async fn queues(State(desk): State<Desk>, uri: Uri) -> Response {
    list(&desk, &uri, "queues", |control| control.queues().iter().map(views::queue).collect()).await
}

async fn queue(State(desk): State<Desk>, uri: Uri, Path(name): Path<String>) -> Response {
    let one = move |control: &dyn Control| control.queues().iter().find(|queue| queue.pool == name).map(views::queue);
    single(&desk, &uri, "pool", one).await
}

async fn waiting(State(desk): State<Desk>, uri: Uri, Path(name): Path<String>) -> Response {
    let one = move |control: &dyn Control| {
        let waiting = control.waiting(&name, WAITING_SHOWN)?;
        Some(json!({ "requests": waiting.iter().map(views::waiting).collect::<Vec<_>>() }))
    };
    single(&desk, &uri, "pool", one).await
}

async fn cancel(State(desk): State<Desk>, uri: Uri, Path((pool, id)): Path<(String, String)>) -> Response {
    let id: Option<u64> = id.parse().ok();
    match aside(&desk, move |control| id.filter(|id| control.cancel(&pool, *id))).await {
        Some(Some(id)) => Json(json!({ "cancelled": id })).into_response(),
        Some(None) => {
            let detail = "nobody with that id waits there (any more); GET the path without it lists who does";
            Problem::new(StatusCode::NOT_FOUND, "not_found", detail).at(uri.path()).into_response()
        }
        None => failed(&desk).at(uri.path()).into_response(),
    }
}

async fn balances(State(desk): State<Desk>, uri: Uri) -> Response {
    list(&desk, &uri, "pools", |control| control.balances().iter().map(views::balance).collect()).await
}

async fn retries(State(desk): State<Desk>, uri: Uri) -> Response {
    single(&desk, &uri, "", |control| Some(views::retries(&control.retries()))).await
}

async fn degradations(State(desk): State<Desk>, uri: Uri) -> Response {
    list(&desk, &uri, "degradation", |control| control.degradations().iter().map(views::degradation).collect()).await
}

async fn degradation(State(desk): State<Desk>, uri: Uri, Path(name): Path<String>) -> Response {
    let one = move |control: &dyn Control| {
        control.degradations().iter().find(|route| route.route == name).map(views::degradation)
    };
    single(&desk, &uri, LADDER, one).await
}

async fn cached(State(desk): State<Desk>, uri: Uri) -> Response {
    match aside(&desk, |control| control.cache().as_ref().map(cache::view)).await {
        Some(Some(view)) => Json(view).into_response(),
        Some(None) => no_cache().at(uri.path()).into_response(),
        None => failed(&desk).at(uri.path()).into_response(),
    }
}

async fn forget(State(desk): State<Desk>, uri: Uri) -> Response {
    let what = match cache::forget(uri.query().unwrap_or("")) {
        Ok(what) => what,
        Err(detail) => return bad_request(detail).at(uri.path()).into_response(),
    };
    match aside(&desk, move |control| control.forget(&what)).await {
        Some(count) => Json(json!({ "forgotten": count })).into_response(),
        None => failed(&desk).at(uri.path()).into_response(),
    }
}

/// Everything of a kind, under its name.
async fn list(
    desk: &Desk,
    uri: &Uri,
    name: &str,
    look: impl FnOnce(&dyn Control) -> Vec<Value> + Send + 'static,
) -> Response {
    match aside(desk, look).await {
        Some(all) => Json(json!({ name: all })).into_response(),
        None => failed(desk).at(uri.path()).into_response(),
    }
}

/// One of a kind, if there is one of that name.
async fn single(
    desk: &Desk,
    uri: &Uri,
    kind: &str,
    look: impl FnOnce(&dyn Control) -> Option<Value> + Send + 'static,
) -> Response {
    match aside(desk, look).await {
        Some(Some(view)) => Json(view).into_response(),
        Some(None) => unknown_name(kind).at(uri.path()).into_response(),
        None => failed(desk).at(uri.path()).into_response(),
    }
}

async fn config(State(desk): State<Desk>, uri: Uri) -> Response {
    match aside(&desk, |control| views::config(&control.config())).await {
        Some(view) => Json(view).into_response(),
        None => failed(&desk).at(uri.path()).into_response(),
    }
}

/// Looks at the gateway from a thread that may wait: for a reload under way, or for a large file to be read. Liveness must
/// not wait with it. `None` is a panic.
async fn aside<T: Send + 'static>(desk: &Desk, look: impl FnOnce(&dyn Control) -> T + Send + 'static) -> Option<T> {
    let control = Arc::clone(&desk.control);
    tokio::task::spawn_blocking(move || look(&*control)).await.ok()
}

async fn reload(State(desk): State<Desk>, uri: Uri) -> Response {
    // A task of its own: a caller who hangs up must not leave a reload half done.
    match tokio::spawn(desk.control.reload()).await {
        Ok(Ok(reloaded)) => Json(views::reloaded(&reloaded)).into_response(),
        Ok(Err(rejected)) => self::rejected(rejected, "nothing was changed").at(uri.path()).into_response(),
        Err(_) => failed(&desk).at(uri.path()).into_response(),
    }
}

async fn check(State(desk): State<Desk>, uri: Uri, headers: HeaderMap, body: Body) -> Response {
    match checked(&desk, &headers, body).await {
        Ok(notes) => Json(json!({ "valid": true, "notes": notes })).into_response(),
        Err(problem) => problem.at(uri.path()).into_response(),
    }
}

async fn checked(desk: &Desk, headers: &HeaderMap, body: Body) -> Result<Vec<Value>, Problem> {
    if announced_length(headers) > YAML_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let Ok(_turn) = desk.checks.clone().try_acquire_owned() else {
        let busy = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "another check is running; try again");
        return Err(busy.with_field(header::RETRY_AFTER, "1"));
    };
    let yaml = match timeout(BODY_TIME_MAX, read(body)).await {
        Ok(read) => read?,
        Err(_) => return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "deadline", "the body took too long")),
    };
    let control = Arc::clone(&desk.control);
    match tokio::task::spawn_blocking(move || control.check(&yaml)).await {
        Ok(Ok(notes)) => Ok(notes),
        Ok(Err(rejected)) => Err(self::rejected(rejected, "it would be rejected")),
        Err(_) => Err(failed(desk)),
    }
}

async fn overrides(State(desk): State<Desk>, uri: Uri) -> Response {
    list(&desk, &uri, "overrides", |control| control.overrides().iter().map(views::overriding).collect()).await
}

async fn take_back(State(desk): State<Desk>, uri: Uri, Path((kind, name)): Path<(String, String)>) -> Response {
    let taken = match Kind::parse(&kind) {
        Some(kind) => cleared(&desk, Target { kind, name }).await,
        None => Err(no_override()),
    };
    match taken {
        Ok(None) => no_override().at(uri.path()).into_response(),
        Ok(Some(shown)) => said("cleared", Some(&shown)),
        Err(problem) => problem.at(uri.path()).into_response(),
    }
}

/// One of [`STEERS`]: makes an override, or takes it back.
async fn steer(
    State(desk): State<Desk>,
    uri: Uri,
    Path(name): Path<String>,
    kind: Kind,
    setting: Option<Setting>,
) -> Response {
    let target = Target { kind, name };
    let done = match said_by(uri.query().unwrap_or(""), setting) {
        Err(problem) => Err(problem),
        Ok((Some(_), None)) => {
            Err(bad_request("nothing is set here that could end: `ttl` belongs to what is to be taken back later"))
        }
        Ok((ttl, Some(setting))) => made(&desk, setting, target, ttl).await.map(|shown| ("override", Some(shown))),
        Ok((None, None)) => cleared(&desk, target).await.map(|shown| ("cleared", shown)),
    };
    match done {
        Ok((what, shown)) => said(what, shown.as_ref()),
        Err(problem) => problem.at(uri.path()).into_response(),
    }
}

async fn made(desk: &Desk, setting: Setting, target: Target, ttl: Option<Duration>) -> Result<Shown, Problem> {
    let name = target.name.clone();
    let made = aside(desk, move |control| {
        let missing = missing_rung(control, setting, &name);
        missing.map_or_else(|| Ok(control.override_by(setting, &name, ttl)), Err)
    });
    made.await.ok_or_else(|| failed(desk))??.map_err(|refused| not_done(refused, &target))
}

/// What is wrong with forcing a route onto a rung that its ladder does not have.
fn missing_rung(control: &dyn Control, setting: Setting, name: &str) -> Option<Problem> {
    let Setting::Degraded(Some(rung)) = setting else { return None };
    let route = control.degradations().into_iter().find(|route| route.route == name)?;
    let has: Vec<&str> = route.ladder.iter().map(|rung| rung.as_str()).collect();
    let detail = format!("rung: the ladder of this route has no `{}`; it has {}", rung.as_str(), has.join(", "));
    (!route.ladder.contains(&rung)).then(|| bad_request(detail))
}

async fn cleared(desk: &Desk, target: Target) -> Result<Option<Shown>, Problem> {
    let whose = target.clone();
    let taken = aside(desk, move |control| control.take_back(&whose)).await;
    taken.ok_or_else(|| failed(desk))?.map_err(|refused| not_done(refused, &target))
}

/// What was made or taken back; and that a restart would not know of it, where it is so.
fn said(what: &str, shown: Option<&Shown>) -> Response {
    let mut view = json!({ what: shown.map(views::overriding) });
    if shown.is_some_and(|shown| !shown.durable) {
        view["warning"] =
            "done, in memory only: a restart will not know of it; GET /health/dependencies says why".into();
    }
    Json(view).into_response()
}

fn not_done(refused: Refused, target: &Target) -> Problem {
    match refused {
        Refused::Unknown if target.name.contains('@') => {
            let detail =
                "addresses of a provider that was discovered are steered together: say the name before the `@`";
            Problem::new(StatusCode::NOT_FOUND, "unknown_name", detail)
        }
        Refused::Unknown => unknown_name(match target.kind {
            Kind::Queue => "pool",
            Kind::Degradation => LADDER,
            Kind::Circuit | Kind::Provider => "provider",
        }),
        Refused::Full => {
            let detail = "there are as many overrides as there may be; DELETE some of GET /api/v1/overrides";
            Problem::new(StatusCode::CONFLICT, "too_many_overrides", detail)
        }
        Refused::Released => {
            let detail = "a new process is taking over; ask again, and it will do it";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "handing_over", detail).with_field(header::RETRY_AFTER, "1")
        }
    }
}

fn unknown_name(kind: &str) -> Problem {
    let detail = format!(
        "there is no {kind} of that name; GET /api/v1/{} lists those there are",
        match kind {
            "pool" => "queues",
            LADDER => "degradation",
            _ => "providers",
        }
    );
    Problem::new(StatusCode::NOT_FOUND, "unknown_name", detail)
}

fn no_cache() -> Problem {
    let detail = "nothing is kept: no route of the configuration has `cache`";
    Problem::new(StatusCode::NOT_FOUND, "not_found", detail)
}

fn no_override() -> Problem {
    let detail = "there is no such override; GET /api/v1/overrides lists those there are";
    Problem::new(StatusCode::NOT_FOUND, "not_found", detail)
}

fn bad_request(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad_request", detail)
}

/// `ttl=10m` and, where a route is forced onto a rung, `rung=static`: all that a query may say. What is mistyped must not be
/// an override for ever.
fn said_by(query: &str, mut setting: Option<Setting>) -> Result<(Option<Duration>, Option<Setting>), Problem> {
    let mut ttl = None;
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        match (name, setting) {
            ("ttl", _) if ttl.is_none() => ttl = Some(span(value)?),
            ("rung", Some(Setting::Degraded(None))) => {
                let words = "rung: write `pool`, `reduced`, `stale` or `static`, or leave it out for the first one";
                let rung = ladder::Kind::parse(value).ok_or_else(|| bad_request(words))?;
                setting = Some(Setting::Degraded(Some(rung)));
            }
            (_, Some(Setting::Degraded(_))) => {
                return Err(bad_request(
                    "the query may say `rung` and `ttl`, each once, and nothing else: ?rung=static&ttl=10m",
                ));
            }
            _ => return Err(bad_request("the query may say `ttl`, once, and nothing else: ?ttl=10m")),
        }
    }
    Ok((ttl, setting))
}

fn span(text: &str) -> Result<Duration, Problem> {
    let span = duration(text).map_err(|help| bad_request(format!("ttl: {help}")))?;
    if span.is_zero() {
        return Err(bad_request("ttl: it would end at once; leave it out for an override without an end"));
    }
    Ok(span)
}

async fn not_found(uri: Uri) -> Problem {
    let detail = "nothing is here; GET / lists what is";
    Problem::new(StatusCode::NOT_FOUND, "not_found", detail).at(uri.path())
}

async fn method_not_allowed(uri: Uri) -> Problem {
    let detail = "the path exists, but not for this method; see Allow";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail).at(uri.path())
}

fn rejected(rejected: Rejected, and_so: &str) -> Problem {
    let count = rejected.problems.len();
    let detail = format!("the configuration has {count} problem{}: {and_so}", if count == 1 { "" } else { "s" });
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "config_rejected", detail)
        .with("problems", rejected.problems.into())
        .with("rendered", rejected.rendered.into())
}

fn failed(desk: &Desk) -> Problem {
    desk.control.metrics().panicked();
    let detail = "the gateway could not answer because of a defect; its log says more";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
}

fn too_large() -> Problem {
    let detail = format!("a configuration has at most {} MiB", YAML_BYTES_MAX >> 20);
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
}

fn announced_length(headers: &HeaderMap) -> u64 {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    length.and_then(|length| length.parse().ok()).unwrap_or(0)
}

async fn read(mut body: Body) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let broken = |_| Problem::new(StatusCode::BAD_REQUEST, "bad_request", "the body broke off");
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        if bytes.len() + data.len() > YAML_BYTES_MAX {
            return Err(too_large());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// The format a scraper asks for: OpenMetrics where it is named and wanted at least as much as plain text.
fn exposition(accept: &str) -> Exposition {
    let wanted = |kind: &str| {
        let ranges = accept.split(',').map(str::trim);
        ranges.filter(|range| media_type(range).eq_ignore_ascii_case(kind)).map(quality).fold(0.0, f32::max)
    };
    let open_metrics = wanted("application/openmetrics-text");
    if open_metrics > 0.0 && open_metrics >= wanted("text/plain") {
        Exposition::OpenMetrics
    } else {
        Exposition::Prometheus
    }
}

fn media_type(range: &str) -> &str {
    range.split(';').next().unwrap_or("").trim()
}

fn quality(range: &str) -> f32 {
    let weight = range.split(';').skip(1).find_map(|parameter| parameter.trim().strip_prefix("q="));
    weight.map_or(1.0, |weight| weight.trim().parse().unwrap_or(0.0))
}

/// What operators can do to what is alive: the path, what it is about, and what lies over that from then on.
const STEERS: [(&str, Kind, Option<Setting>); 9] = [
    ("/api/v1/circuit-breakers/{provider}/open", Kind::Circuit, Some(Setting::Open)),
    ("/api/v1/circuit-breakers/{provider}/close", Kind::Circuit, Some(Setting::Closed)),
    ("/api/v1/circuit-breakers/{provider}/auto", Kind::Circuit, None),
    ("/api/v1/providers/{provider}/drain", Kind::Provider, Some(Setting::Drained)),
    ("/api/v1/providers/{provider}/undrain", Kind::Provider, None),
    ("/api/v1/queues/{pool}/pause", Kind::Queue, Some(Setting::Paused)),
    ("/api/v1/queues/{pool}/resume", Kind::Queue, None),
    ("/api/v1/degradation/{route}/force", Kind::Degradation, Some(Setting::Degraded(None))),
    ("/api/v1/degradation/{route}/auto", Kind::Degradation, None),
];

/// What a name is that `/api/v1/degradation` knows.
const LADDER: &str = "route with a ladder";

/// Answers are of the moment, are what they say they are, and belong into no other page.
const ALWAYS: [(&str, &str); 4] = [
    ("cache-control", "no-store"),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("content-security-policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
];

/// Of those that wait, so many are listed: who came first. The queue's own figures count them all.
const WAITING_SHOWN: usize = 1_000;

/// A configuration's bound, as for the file itself.
const YAML_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Configurations checked at once for callers of the API; a further one is asked to come again.
const CHECKS_AT_ONCE: usize = 1;

/// How long a caller may take to send its body.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);
