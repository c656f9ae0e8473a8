//! Who may do what on the admin listener: decided from the request's head, before any handler runs. ◇
//!
//! Three questions, in this order. Is the request meant for us? A page in somebody's browser can reach a loopback
//! address under a name of its own (DNS rebinding), so `Host` must be an address, `localhost` or a configured name,
//! unless the caller holds a token, which such a page does not. Was it sent by a page of ours? `Origin`, where there is
//! one, must be the `Host`. And does the token allow it?

use super::problem::Problem;
use crate::config::{Admin, Role};
use aws_lc_rs::{constant_time, digest};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header, request::Parts, uri::Authority};
use std::net::{IpAddr, Ipv6Addr};

/// Who called, as far as tokens tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    /// Showed no token.
    Unknown,
    /// Showed something that is no token of ours.
    Mistaken,
    /// May do what the role allows.
    Known(Role),
}

/// Lets a request through, or says why not.
pub(super) fn admit(admin: &Admin, head: &Parts) -> Result<(), Problem> {
    let caller = identify(admin, &head.headers);
    let host = host_of(head)?;
    if let Some(host) = &host
        && !matches!(caller, Caller::Known(_))
        && !is_ours(host, &admin.hosts)
    {
        return Err(misdirected(host));
    }
    same_origin(&head.headers, host.as_ref())?;
    match needed(&head.method, &head.uri) {
        Some(role) if !admin.tokens.is_empty() => allow(caller, role, &head.method),
        _ => Ok(()),
    }
}

/// Whether a query asks for details.
pub(super) fn is_verbose(uri: &Uri) -> bool {
    let query = uri.query().unwrap_or("");
    query.split('&').any(|part| matches!(part, "verbose" | "verbose=" | "verbose=true" | "verbose=1"))
}

/// Every token is compared, by digests and in constant time, so the time taken tells nothing about any of them.
fn identify(admin: &Admin, headers: &HeaderMap) -> Caller {
    let mut shown = headers.get_all(header::AUTHORIZATION).iter();
    let Some(first) = shown.next() else { return Caller::Unknown };
    let token = first.as_bytes().split_at_checked(7).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer "));
    let (Some((_, token)), None) = (token, shown.next()) else { return Caller::Mistaken };
    let shown = digest::digest(&digest::SHA256, token.trim_ascii());
    let mut caller = Caller::Mistaken;
    for known in &admin.tokens {
        let text = known.secret.expose().as_bytes();
        let same =
            constant_time::verify_slices_are_equal(shown.as_ref(), digest::digest(&digest::SHA256, text).as_ref());
        if same.is_ok() && !text.is_empty() {
            caller = Caller::Known(known.role);
        }
    }
    caller
}

/// The host the request names, without doubt; `None` where HTTP/1.0 named none.
fn host_of(head: &Parts) -> Result<Option<Authority>, Problem> {
    let mut fields = head.headers.get_all(header::HOST).iter();
    let (first, second) = (fields.next(), fields.next());
    let host = match (first, second) {
        (None, _) if head.version < axum::http::Version::HTTP_11 => return Ok(head.uri.authority().cloned()),
        (Some(host), None) => host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()),
        _ => None,
    };
    let host = host.filter(|host| !host.as_str().contains('@'));
    let Some(host) = host else { return Err(bad_host("a request needs exactly one valid Host field")) };
    match head.uri.authority() {
        Some(target) if *target != host => Err(bad_host("Host and the request's target disagree")),
        _ => Ok(Some(host)),
    }
}

fn is_ours(host: &Authority, configured: &[String]) -> bool {
    let name = host.host();
    let bracketed = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let literal = match bracketed {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
        None => name.parse::<IpAddr>().is_ok(),
    };
    literal || name.eq_ignore_ascii_case("localhost") || configured.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// Browsers send `Origin` with everything that could change something.
fn same_origin(headers: &HeaderMap, host: Option<&Authority>) -> Result<(), Problem> {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let Some(origin) = origins.next() else { return Ok(()) };
    let origin = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok());
    match (origin, host, origins.next()) {
        (Some(origin), Some(host), None) if is_same(&origin, host) => Ok(()),
        _ => Err(Problem::new(
            StatusCode::FORBIDDEN,
            "foreign_origin",
            "the request comes from a page of another site: Origin must match Host",
        )),
    }
}

/// Whether host and port agree. A port left out is the default of the origin's scheme, which the client saw: there may
/// be TLS in front of us.
fn is_same(origin: &Uri, host: &Authority) -> bool {
    let default = match origin.scheme_str() {
        Some("http") => 80,
        Some("https") => 443,
        _ => return false,
    };
    origin.authority().is_some_and(|theirs| {
        theirs.host().eq_ignore_ascii_case(host.host())
            && theirs.port_u16().unwrap_or(default) == host.port_u16().unwrap_or(default)
    })
}

/// The role a request needs; `None` is open to everybody. Open are the page (it has no figures of its own) and the
/// probes without details, which supervisors ask for without a token.
fn needed(method: &Method, uri: &Uri) -> Option<Role> {
    if !method.is_safe() {
        return Some(Role::Operate);
    }
    match uri.path() {
        "/" | "/livez" | "/health" | "/health/live" => None,
        "/readyz" | "/health/ready" if !is_verbose(uri) => None,
        _ => Some(Role::Read),
    }
}

fn allow(caller: Caller, needs: Role, method: &Method) -> Result<(), Problem> {
    match caller {
        Caller::Known(role) if role >= needs => Ok(()),
        Caller::Known(role) => Err(forbidden(role, needs, method)),
        Caller::Unknown => Err(unauthorized("send a token: Authorization: Bearer <token>", "Bearer realm=\"sluice\"")),
        Caller::Mistaken => Err(unauthorized(
            "the token is neither admin.token nor one of admin.tokens, or Authorization is not a single Bearer token",
            "Bearer realm=\"sluice\", error=\"invalid_token\"",
        )),
    }
}

fn misdirected(host: &Authority) -> Problem {
    let detail = format!(
        "{} is not a name of this listener: use its address or localhost, add the name to admin.hosts, or send a token",
        host.host()
    );
    Problem::new(StatusCode::MISDIRECTED_REQUEST, "unknown_host", detail)
}

fn bad_host(detail: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad_request", detail)
}

fn unauthorized(detail: &str, challenge: &'static str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail).with_field(header::WWW_AUTHENTICATE, challenge)
}

fn forbidden(role: Role, needs: Role, method: &Method) -> Problem {
    let detail =
        format!("{method} needs a token of role {}; this one has the role {}", role_name(needs), role_name(role));
    let challenge = match needs {
        Role::Evaluate => "Bearer realm=\"sluice\", error=\"insufficient_scope\", scope=\"evaluate\"",
        Role::Read => "Bearer realm=\"sluice\", error=\"insufficient_scope\", scope=\"read\"",
        Role::Operate => "Bearer realm=\"sluice\", error=\"insufficient_scope\", scope=\"operate\"",
    };
    Problem::new(StatusCode::FORBIDDEN, "forbidden", detail).with_field(header::WWW_AUTHENTICATE, challenge)
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Evaluate => "evaluate",
        Role::Read => "read",
        Role::Operate => "operate",
    }
}
