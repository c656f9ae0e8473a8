//! A connection that was accepted and has said nothing yet: where it comes from, and whether it may stay.

use super::port::Place;
use super::proxy_protocol::{self, PROXY_HEADER_TIME, Refused};
use crate::clock;
use crate::config::{Bind, Listener};
use crate::net::io::{Address, Socket};
use crate::net::proxy_header::Announced;
use crate::observe::metrics::ConnectionRefused;
use crate::proxy::identity::{self, Origin};

/// Finds out where a connection comes from, by its PROXY header where it has to begin with one, and counts it for that
/// address. False: it is to be closed, which has been counted and logged. Whatever follows a header is unread.
pub async fn admit(socket: &mut Socket, place: &mut Place) -> bool {
    let listener = place.port().listener();
    if begins_with_header(&listener, place.origin().address) {
        // The buffer of a header is large and rarely there: apart, it is not part of every connection's task.
        let received = Box::pin(proxy_protocol::receive(socket, clock::after(clock::now(), PROXY_HEADER_TIME))).await;
        match received {
            Ok(announced) => place.comes_from(origin(announced, place.origin().address)),
            Err(Refused::Nothing) => return false,
            Err(refused) => {
                place.refuse(ConnectionRefused::ProxyHeader, &refused);
                return false;
            }
        }
    }
    may_stay(&listener, place)
}

/// Only from whom it is expected: a header from anyone else would let him choose his address.
fn begins_with_header(listener: &Listener, from: Address) -> bool {
    let is_balancer = match listener.bind {
        Bind::Tcp(_) => identity::is_trusted(listener, from),
        Bind::Unix(_) => true,
    };
    listener.proxy_protocol && is_balancer
}

fn origin(announced: Announced, from: Address) -> Origin {
    match announced {
        Announced::Sender => from.into(),
        Announced::Unknown => Origin { anonymous: true, ..from.into() },
        Announced::Client { client, local } => {
            Origin { address: client.into(), local: Some(Box::new(local)), anonymous: false }
        }
    }
}

/// Counts the connection for its address. Trusted proxies stand for many clients and are not counted.
fn may_stay(listener: &Listener, place: &mut Place) -> bool {
    let limit = listener.limits.connections_per_address;
    if identity::is_trusted(listener, place.origin().address) || place.count(limit) {
        return true;
    }
    let why = format_args!("{limit} are open from its address (limits.connections_per_address)");
    place.refuse(ConnectionRefused::PerAddress, &why);
    false
}
