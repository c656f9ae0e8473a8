//! HTTP/2 on both sides: a request means the same whichever version either side speaks, and a stream keeps to what a
//! connection of its own would.

use crate::world::{BEFORE, Extra, Gateway};
use std::net::SocketAddr;

mod bounds; // limits, deadlines, refusals
mod ends; // a client and a provider, by the `h2` crate
mod faults; // streams and connections that break, and what is sent again
mod flow; // bodies both ways: nothing is held beyond its bound
mod mapping; // fields, bodies, trailers, interim answers: all four pairs of versions
mod websocket; // RFC 8441, on one side or on both

pub(crate) use ends::{Call, Client, Http2Provider, drain, runtime, send_all, values, wait};

/// A gateway whose only route sends everything to `alpha`, which speaks HTTP/2.
fn before_http2(alpha: SocketAddr, extra: Extra<'_>) -> Gateway {
    before("h2c", alpha, extra)
}

/// The same for a provider that is reached by `scheme`.
fn before(scheme: &str, alpha: SocketAddr, extra: Extra<'_>) -> Gateway {
    let places = [("{listener}", extra.listener), ("{provider}", extra.provider), ("{route}", extra.route)];
    let yaml = places.into_iter().fold(BEFORE.replace("http://", &format!("{scheme}://")), |text, (place, more)| {
        text.replace(place, &if more.is_empty() { String::new() } else { format!(", {more}") })
    });
    Gateway::start(&yaml, &[("alpha", alpha)])
}
