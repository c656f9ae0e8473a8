//! What is kept of answers: looking at it, and having some of it forgotten.

use super::control::{CacheView, Forget};
use serde_json::{Value, json};

/// What is to be forgotten: `key=`, `prefix=` or `route=`, one of them, once. A key is a whole URL.
///
/// # Errors
/// Says what is wrong with the query.
pub(super) fn forget(query: &str) -> Result<Forget, &'static str> {
    let mut said = None;
    for (name, value) in form_urlencoded(query) {
        let one = match &*name {
            _ if value.is_empty() => return Err(WANTED),
            // A mere path would be found nowhere, and silently so.
            "key" | "prefix" if !value.contains("://") => return Err(WANTED),
            "key" => Forget::Key(value),
            "prefix" => Forget::Prefix(value),
            "route" => Forget::Route(value),
            _ => return Err(WANTED),
        };
        if said.replace(one).is_some() {
            return Err(WANTED);
        }
    }
    said.ok_or(WANTED)
}

pub(super) fn view(cache: &CacheView) -> Value {
    let routes = cache.routes.iter().map(
        |route| json!({ "route": route.route, "entries": route.entries, "bytes": route.bytes, "hits": route.hits }),
    );
    json!({
        "entries": cache.entries,
        "bytes": cache.bytes,
        "arriving_bytes": cache.arriving_bytes,
        "capacity_bytes": cache.capacity,
        "under_way": cache.under_way,
        "declined": cache.declined,
        "routes": routes.collect::<Vec<_>>(),
    })
}

/// The pairs of a query, percent-decoded. A `+` stays what it is: in a URL's path it means nothing else.
fn form_urlencoded(query: &str) -> impl Iterator<Item = (String, String)> {
    query.split('&').filter(|part| !part.is_empty()).map(|part| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        (name.to_owned(), decoded(value))
    })
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let pair = after.get(..2).and_then(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok());
        let escaped = pair.filter(|_| *first == b'%');
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

const WANTED: &str = "say what is to be forgotten, percent-encoded: ?key=http://host/path?query, or ?prefix=http://host/, or ?route=NAME";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_forgotten_and_it_has_to_be_said() {
        let key = |text: &str| Ok(Forget::Key(text.to_owned()));
        assert_eq!(forget("key=http%3A%2F%2Fa%2F%3Fq%26r%3D1+2"), key("http://a/?q&r=1+2"));
        assert_eq!(forget("key=http://a/?q=%2541"), key("http://a/?q=%41"));
        assert_eq!(forget("prefix=http://a/"), Ok(Forget::Prefix("http://a/".into())));
        assert_eq!(forget("route=api"), Ok(Forget::Route("api".into())));
        for wrong in
            ["", "key=", "key", "route=a&route=b", "key=http://a/&prefix=http://a/", "all=1", "key=/list", "prefix=a/"]
        {
            assert_eq!(forget(wrong), Err(WANTED), "{wrong}");
        }
    }
}
