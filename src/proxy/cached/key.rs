//! What the answer to a request is found by: everything that a provider, or we, could answer by.

use crate::cache::key::{self, Parts};
use crate::http1::fields::{Fields, Known};
use crate::http1::target;
use crate::proxy::dispatch::Errand;
use std::borrow::Cow;

/// The key, if there is one. What a trusted peer says of the client's own request stands in it as the provider will read it.
pub(super) fn of(errand: &Errand<'_>, body: Option<&[u8]>) -> Option<Vec<u8>> {
    let (request, peer) = (errand.request, errand.peer);
    let told = |known| if peer.trusted { request.head.fields.get(known) } else { None };
    let scheme = match told(Known::XForwardedProto) {
        None => peer.scheme,
        Some(b"http") => "http",
        Some(b"https") => "https",
        Some(_) => return None,
    };
    let own = request.authority;
    let authority = match told(Known::XForwardedHost) {
        None => Cow::Borrowed(own),
        Some(host) if host.eq_ignore_ascii_case(own) => Cow::Borrowed(own),
        // Both may be what the provider goes by; a comma stands in no host.
        Some(host) => {
            target::host(host).ok()?;
            Cow::Owned([host, own].join(&b','))
        }
    };
    // What a body means is a part of it.
    let meant =
        |name: &'static [u8]| request.head.fields.named(name).flat_map(|value| [b"\0", value]).chain([&b"\n"[..]]);
    let hash = body.map(|body| key::body_hash(MEANING.into_iter().flat_map(meant).chain([body])));
    let mut place = Vec::new();
    if peer.trusted {
        told_beside(&request.head.fields, &mut place);
    }
    let parts = Parts {
        route: &errand.route.config.name,
        place: &place,
        scheme,
        authority: &authority,
        path: request.path,
        query: request.query,
        body: hash.as_ref(),
    };
    let mut key = Vec::with_capacity(KEY_EXPECTED);
    parts.write(&mut key);
    Some(key)
}

/// What a trusted peer tells providers of the way before it, but for who the client is: a provider may answer by it.
fn told_beside(fields: &Fields, out: &mut Vec<u8>) {
    for (known, name, value) in fields.iter() {
        if known == Known::XForwarded {
            out.extend([name, b":", value, b"\n"].concat());
        }
        if known == Known::Forwarded {
            let pairs = value.split(|byte| matches!(byte, b',' | b';')).map(<[u8]>::trim_ascii);
            let is_of_node = |pair: &[u8]| [&b"for="[..], b"by="].iter().any(|name| starts_with(pair, name));
            for pair in pairs.filter(|pair| !is_of_node(pair)) {
                out.extend([pair, b"\n"].concat());
            }
        }
    }
}

fn starts_with(text: &[u8], begin: &[u8]) -> bool {
    text.get(..begin.len()).is_some_and(|part| part.eq_ignore_ascii_case(begin))
}

/// Fields that say what the bytes of a body mean. None of their values holds a NUL or an end of a line.
const MEANING: [&[u8]; 3] = [b"content-type", b"content-encoding", b"content-language"];

/// Room made for a key.
const KEY_EXPECTED: usize = 128;
