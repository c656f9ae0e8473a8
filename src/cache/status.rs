//! `Cache-Status` (RFC 9211): what this cache did with a request.

use std::time::Duration;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// It was answered from what is kept, and nobody was asked.
    Hit,
    /// A provider was asked.
    Forwarded(Forwarded),
}

/// How a provider came to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forwarded {
    /// Why.
    pub why: Why,
    /// What it answered, where that is not the status of the answer.
    pub status: Option<u16>,
    /// Its answer was kept.
    pub stored: bool,
    /// Another request asked for both.
    pub collapsed: bool,
}

/// Why a provider was asked (RFC 9211 §2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// The cache is not meant to be used.
    Bypass,
    /// The request's method is not for caches.
    Method,
    /// Nothing is kept under this URL.
    UriMiss,
    /// What is kept was chosen for other requests.
    VaryMiss,
    /// Nothing is kept that could be used.
    Miss,
    /// The request wants it so.
    Request,
    /// What is kept has expired.
    Stale,
    /// What is kept is not all that is asked for.
    Partial,
}

/// The member of this cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// What was done.
    pub done: Done,
    /// For how long what was sent is fresh, and by how long it is not.
    pub ttl: Option<Ttl>,
    /// What else there is to say, as a token.
    pub detail: Option<&'static str>,
}

/// Time left of a freshness lifetime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ttl {
    /// It is fresh for so long.
    Left(Duration),
    /// It expired so long ago.
    Over(Duration),
}

// === impl Why ===

impl Why {
    /// Its token.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Why::Bypass => "bypass",
            Why::Method => "method",
            Why::UriMiss => "uri-miss",
            Why::VaryMiss => "vary-miss",
            Why::Miss => "miss",
            Why::Request => "request",
            Why::Stale => "stale",
            Why::Partial => "partial",
        }
    }
}

// === impl Status ===

impl Status {
    /// Adds the member to a field's value: `sluice; hit; ttl=30`.
    pub fn write(&self, out: &mut String) {
        out.push_str("sluice");
        match self.done {
            Done::Hit => out.push_str("; hit"),
            Done::Forwarded(Forwarded { why, status, stored, collapsed }) => {
                out.push_str("; fwd=");
                out.push_str(why.as_str());
                if let Some(status) = status {
                    out.push_str("; fwd-status=");
                    out.push_str(itoa::Buffer::new().format(status));
                }
                out.push_str(if stored { "; stored" } else { "" });
                out.push_str(if collapsed { "; collapsed" } else { "" });
            }
        }
        if let Some(ttl) = self.ttl {
            let (sign, span) = match ttl {
                Ttl::Left(left) => ("; ttl=", left),
                Ttl::Over(over) => ("; ttl=-", over),
            };
            out.push_str(sign);
            out.push_str(itoa::Buffer::new().format(span.as_secs()));
        }
        if let Some(detail) = self.detail {
            out.push_str("; detail=");
            out.push_str(detail);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(done: Done, ttl: Option<Ttl>, detail: Option<&'static str>) -> String {
        let mut out = String::new();
        Status { done, ttl, detail }.write(&mut out);
        out
    }

    #[test]
    fn section_2_1_of_rfc_9211_a_hit_says_how_long_it_is_fresh() {
        assert_eq!(written(Done::Hit, Some(Ttl::Left(Duration::from_millis(30_900))), None), "sluice; hit; ttl=30");
        let over = Some(Ttl::Over(Duration::from_secs(412)));
        assert_eq!(written(Done::Hit, over, Some("stale-if-error")), "sluice; hit; ttl=-412; detail=stale-if-error");
    }

    #[test]
    fn section_2_2_of_rfc_9211_what_is_forwarded_says_why_and_what_became_of_it() {
        let forwarded = |why| Forwarded { why, status: None, stored: false, collapsed: false };
        let done = |forwarded| written(Done::Forwarded(forwarded), None, None);
        assert_eq!(done(forwarded(Why::UriMiss)), "sluice; fwd=uri-miss");
        let validated = Forwarded { status: Some(304), stored: true, ..forwarded(Why::Stale) };
        assert_eq!(done(validated), "sluice; fwd=stale; fwd-status=304; stored");
        assert_eq!(done(Forwarded { collapsed: true, ..forwarded(Why::VaryMiss) }), "sluice; fwd=vary-miss; collapsed");
    }
}
