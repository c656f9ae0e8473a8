//! A route's ladder, compiled: what its rungs do, over living pools, and what their answers say of themselves.
//!
//! Which rung a request goes to is decided in [`policy::ladder`](crate::policy::ladder). An answer that is not the one the
//! client would have got says so (`Sluice-Degraded`), and nobody behind us keeps it for what it is not.

use super::reduce::Reduced;
use super::respond::{Answer, Refused};
use crate::config::{self, Fallback, StaticAnswer};
use crate::http1::encode;
use crate::policy::ladder::{self, DEGRADED_FIELD, Kind, LIFETIME_FIELDS};
use crate::upstream::degrade::Live;
use crate::upstream::pool::Pool;
use std::sync::Arc;

/// The ladder of a route.
#[derive(Debug)]
pub struct Ladder {
    /// Which rung is for whom.
    pub policy: ladder::Ladder,
    /// What each of them does, in the same order.
    pub rungs: Vec<Rung>,
    /// Whether the route is degraded.
    pub live: Arc<Live>,
}

/// What a rung does.
#[derive(Debug)]
pub enum Rung {
    /// Asks a provider of this pool.
    Pool(Arc<Pool>),
    /// Asks a provider of this pool, which may be the route's own, for less.
    Reduced(Arc<Pool>, Box<Reduced>),
    /// Answers with a stored copy.
    Stale,
    /// Answers this.
    Static(Static),
}

/// An answer that is ready but for what failed before it.
#[derive(Debug)]
pub struct Static {
    status: u16,
    fields: Vec<u8>,
    body: Arc<[u8]>,
}

// === impl Ladder ===

impl Ladder {
    /// The ladder of this route, whose own pool is `own`; `pools` are in the order of the configuration.
    pub fn compile(route: &config::Route, own: &Arc<Pool>, pools: &[Arc<Pool>], live: Arc<Live>) -> Self {
        let rung = |rung: &config::Rung| match &rung.what {
            Fallback::Pool(index) => Rung::Pool(Arc::clone(&pools[*index])),
            Fallback::Reduced(reduced) => {
                let pool = reduced.pool.map_or(own, |index| &pools[index]);
                Rung::Reduced(Arc::clone(pool), Box::new(Reduced::compile(&route.rewrite, reduced)))
            }
            Fallback::Stale => Rung::Stale,
            Fallback::Static(answer) => Rung::Static(Static::compile(answer)),
        };
        Ladder {
            policy: ladder::Ladder::new(route.degrade.iter().map(|rung| rung.rule.clone()).collect()),
            rungs: route.degrade.iter().map(rung).collect(),
            live,
        }
    }
}

// === impl Static ===

impl Static {
    fn compile(answer: &StaticAnswer) -> Self {
        let StaticAnswer { status, headers, body, .. } = answer;
        let Answer { mut fields, .. } = Answer::configured(*status, headers, body);
        // Whoever writes one of these answers for how long it is kept.
        let says_lifetime =
            headers.iter().any(|(name, _)| LIFETIME_FIELDS.iter().any(|field| name.eq_ignore_ascii_case(field)));
        if !says_lifetime {
            encode::field(&mut fields, b"cache-control", Kind::Static.cache_control().as_bytes());
        }
        encode::field(&mut fields, DEGRADED_FIELD.as_bytes(), Kind::Static.as_str().as_bytes());
        Static { status: *status, fields, body: Arc::clone(body) }
    }

    /// The answer to a request that failed for this reason, or that began on this rung: then `None`.
    #[must_use]
    pub fn answer(&self, why: Option<&Refused>) -> Answer<'_> {
        let mut fields = self.fields.clone();
        if let Some(why) = why {
            encode::field(&mut fields, b"proxy-status", why.proxy_status().as_bytes());
        }
        Answer { status: self.status, fields, body: &self.body }
    }
}

/// Appends what an answer of such a rung says of itself. [`is_lifetime`] says which of its own fields it loses.
pub fn mark(out: &mut Vec<u8>, kind: Kind) {
    encode::field(out, b"cache-control", kind.cache_control().as_bytes());
    encode::field(out, DEGRADED_FIELD.as_bytes(), kind.as_str().as_bytes());
}

/// Whether a field says for how long an answer may be kept, or that it is an answer of a rung: ours say that anew.
#[must_use]
pub fn is_lifetime(name: &[u8]) -> bool {
    LIFETIME_FIELDS.iter().chain([&DEGRADED_FIELD]).any(|field| name.eq_ignore_ascii_case(field.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;
    use crate::proxy::respond::Refusal;

    fn answer(headers: &[(&str, &str)], body: &str) -> StaticAnswer {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value))).collect();
        StaticAnswer { status: 200, headers, body: body.as_bytes().into(), file: None }
    }

    fn fields(answer: &StaticAnswer, why: Option<&Refused>) -> String {
        String::from_utf8(Static::compile(answer).answer(why).fields).expect("text")
    }

    #[test]
    fn a_static_answer_says_what_it_is_and_that_nobody_is_to_keep_it() {
        let json = answer(&[("content-type", "application/json")], "{}");
        let expected = "content-type: application/json\r\ncache-control: no-store\r\nsluice-degraded: static\r\n";
        assert_eq!(fields(&json, None), expected);
        let ready = Static::compile(&json);
        let told = ready.answer(None);
        assert_eq!((told.status, told.body), (200, &b"{}"[..]));
    }

    #[test]
    fn an_operator_who_says_how_long_it_may_be_kept_is_believed() {
        for name in ["Cache-Control", "Expires"] {
            let fields = fields(&answer(&[(name, "of the operator")], ""), None);
            assert_eq!(fields, format!("{name}: of the operator\r\nsluice-degraded: static\r\n"));
        }
    }

    #[test]
    fn a_static_answer_in_the_place_of_a_failure_tells_of_it() {
        let why = Refused::new(Refusal::NoProvider, "nobody").trail("alpha 503 12ms".to_owned());
        let fields = fields(&answer(&[], "sorry"), Some(&why));
        let told = r#"proxy-status: sluice; error=destination_unavailable; details="no_provider: alpha 503 12ms""#;
        assert!(fields.ends_with(&format!("sluice-degraded: static\r\n{told}\r\n")), "{fields}");
        assert!(fields.starts_with("content-type: text/plain; charset=utf-8\r\n"), "{fields}");
    }

    #[test]
    fn what_an_answer_said_of_its_lifetime_gives_way_to_ours() {
        let said = ["Cache-Control", "expires", "CDN-Cache-Control", "Surrogate-Control", "Pragma", "Sluice-Degraded"];
        assert!(said.iter().all(|name| is_lifetime(name.as_bytes())));
        assert!(!["age", "date", "vary", "etag", "cache-status"].iter().any(|name| is_lifetime(name.as_bytes())));
        let mut out = Vec::new();
        mark(&mut out, Kind::Stale);
        assert_eq!(out, b"cache-control: no-cache\r\nsluice-degraded: stale\r\n");
    }
}
