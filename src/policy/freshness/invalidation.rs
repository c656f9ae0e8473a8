//! What an answered request makes of replies stored before it (RFC 9111 §4.4).

use crate::http1::fields::Fields;

/// Whether a request with this method may have changed what it names, if this is the status of its final answer: the method
/// is not known to be safe, and the answer is no error.
#[must_use]
pub fn invalidates(method: &str, status: u16) -> bool {
    !SAFE.contains(&method) && (200..400).contains(&status)
}

/// Other URLs that such an answer names, as paths with a query, where they are of the same origin as the request: `Location`
/// and `Content-Location`. Those of another origin must not be touched: anybody could empty anybody's cache.
///
/// `scheme`, `authority` and `path` are the request's own.
pub fn also<'f>(
    fields: &'f Fields,
    scheme: &'f str,
    authority: &'f str,
    path: &'f str,
) -> impl Iterator<Item = String> + 'f {
    let values = fields.named(b"location").chain(fields.named(b"content-location"));
    values.filter_map(move |value| same_origin(str::from_utf8(value).ok()?, scheme, authority, path))
}

/// The path and query that a reference means, if it stays within the origin; RFC 3986 §5.2 without a base's query.
fn same_origin(reference: &str, scheme: &str, authority: &str, path: &str) -> Option<String> {
    let reference = reference.split('#').next().unwrap_or_default();
    let rest = match reference.split_once("://") {
        Some((other, rest)) if !other.contains(['/', '?']) => {
            if !other.eq_ignore_ascii_case(scheme) {
                return None;
            }
            Some(rest)
        }
        _ => reference.strip_prefix("//"),
    };
    let target = match rest {
        Some(rest) => {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let (host, target) = rest.split_at(end);
            if !same_authority(host, authority, scheme) {
                return None;
            }
            if target.starts_with('/') { target.to_owned() } else { format!("/{target}") }
        }
        None if reference.starts_with('/') => reference.to_owned(),
        None if reference.is_empty() => return None,
        None if reference.starts_with('?') => format!("{path}{reference}"),
        // `mailto:` and its kin are no places here.
        None if reference.split(['/', '?']).next().is_some_and(|first| first.contains(':')) => return None,
        None => format!("{}/{reference}", path.rsplit_once('/').map_or("", |(folder, _)| folder)),
    };
    Some(without_dots(&target))
}

fn same_authority(one: &str, other: &str, scheme: &str) -> bool {
    let port = if scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
    let plain = |authority: &str| authority.strip_suffix(port).unwrap_or(authority).to_ascii_lowercase();
    plain(one) == plain(other)
}

/// The target with `.` and `..` resolved in its path (RFC 3986 §5.2.4).
fn without_dots(target: &str) -> String {
    let (path, query) = target.find('?').map_or((target, ""), |at| target.split_at(at));
    let mut kept: Vec<&str> = Vec::new();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    for (index, segment) in segments.iter().enumerate() {
        let is_last = index + 1 == segments.len();
        match *segment {
            "." | ".." => {
                if *segment == ".." {
                    kept.pop();
                }
                if is_last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    format!("/{}{query}", kept.join("/"))
}

/// Methods registered as safe (RFC 9110 §9.2.1, RFC 4918, RFC 5323, RFC 3253).
const SAFE: [&str; 8] = ["GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "REPORT", "SEARCH", "QUERY"];
