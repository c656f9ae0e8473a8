//! Who asks, how urgently, and what it asks for on its own account.

use super::dispatch::Errand;
use super::frame::Request;
use super::identity::Peer;
use crate::config::{self, Cidr, ClassRule, Client, HashBy};
use crate::http1::fields::{Fields, Known, elements};
use crate::policy::balance::hash_key;
use crate::policy::class::Class;
use crate::upstream::buffers::Part;
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Finds the client of a request.
#[derive(Debug)]
pub struct Clients {
    /// In the configuration's order; the last is everybody else.
    list: Vec<Arc<Client>>,
    /// What each of them holds of `memory.buffers`, counted from when this configuration was applied.
    parts: Vec<Arc<Part>>,
    by_key: Keys,
    /// Narrowest first.
    by_address: Vec<(Cidr, usize)>,
}

/// Places in [`Clients::list`] by key. A lookup compares only what hashes the same, under a secret of this process, so the
/// time it takes says nothing of how near a guess came.
struct Keys(HashMap<Box<[u8]>, usize>);

/// Whose request it is.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// What the file says of the client.
    pub client: &'a Arc<Client>,
    /// Its place in the configuration.
    pub id: u32,
    /// How urgent the request is.
    pub class: Class,
    /// The fields that showed keys of clients, which are nobody else's business.
    pub key_fields: [Option<Known>; 2],
    /// What it holds of `memory.buffers`.
    pub part: &'a Arc<Part>,
    /// The client's own timeout for this request.
    pub timeout: Option<Duration>,
    /// The client's own ceiling of attempts.
    pub attempts: Option<u32>,
}

// === impl Clients ===

impl Clients {
    /// Prepares the clients of a configuration.
    pub fn new(list: &[Arc<Client>]) -> Self {
        let (list, parts) = (list.to_vec(), list.iter().map(|_| Arc::default()).collect());
        let mut clients = Clients { list, parts, by_key: Keys(HashMap::new()), by_address: Vec::new() };
        for (at, client) in clients.list.iter().enumerate() {
            clients.by_key.0.extend(client.keys.iter().map(|key| (key.expose().as_bytes().into(), at)));
            clients.by_address.extend(client.addresses.iter().map(|range| (*range, at)));
        }
        clients.by_address.sort_by_key(|(range, _)| std::cmp::Reverse(range.bits));
        clients
    }

    /// Whose request this is, and how urgent, on a route of this rule.
    pub fn identify(&self, request: &Request<'_>, rule: &ClassRule, peer: &Peer, trusted: &[Cidr]) -> Caller<'_> {
        let fields = &request.head.fields;
        let address = || peer.client_address(fields, trusted);
        let keys = KEY_FIELDS.map(|field| self.find_key(fields, field));
        let at = keys.into_iter().flatten().next().or_else(|| self.find_by_address(address));
        let id = at.unwrap_or(self.list.len() - 1);
        let client = &self.list[id];
        // A stranger's word about its own request is as good as none: it costs us, and it may be anyone's.
        let named = &*client.name != config::ANONYMOUS;
        Caller {
            client,
            id: id as u32,
            part: &self.parts[id],
            class: class(rule, fields).capped(client.max_class),
            key_fields: [keys[0].and(Some(KEY_FIELDS[0])), keys[1].and(Some(KEY_FIELDS[1]))],
            timeout: if named { fields.get(Known::SluiceTimeout).and_then(timeout) } else { None },
            attempts: if named { fields.get(Known::SluiceAttempts).and_then(attempts) } else { None },
        }
    }

    /// Whose key this field shows.
    fn find_key(&self, fields: &Fields, field: Known) -> Option<usize> {
        if self.by_key.0.is_empty() {
            return None;
        }
        fields.values(field).find_map(|value| {
            let key = if field == Known::Authorization { bearer(value)? } else { value };
            self.by_key.0.get(key).copied()
        })
    }

    fn find_by_address(&self, address: impl FnOnce() -> Option<IpAddr>) -> Option<usize> {
        if self.by_address.is_empty() {
            return None;
        }
        let address = address()?;
        self.by_address.iter().find(|(range, _)| range.contains(address)).map(|(_, at)| *at)
    }
}

/// The token of `Bearer TOKEN` (RFC 6750 §2.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(BEARER.len())?;
    scheme.eq_ignore_ascii_case(BEARER).then(|| token.trim_ascii())
}

/// What the request says of its urgency, else what the route does.
fn class(rule: &ClassRule, fields: &Fields) -> Class {
    let said = rule.header.as_ref().and_then(|name| fields.named(name.as_bytes()).find_map(Class::parse));
    said.or_else(|| urgency(fields)).unwrap_or(rule.default)
}

/// The `u` of `Priority` (RFC 9218 §4.1).
fn urgency(fields: &Fields) -> Option<Class> {
    let members = fields.values(Known::Priority).flat_map(elements);
    // Of a member that is given twice the last counts (RFC 9651 §4.2.2).
    let urgency = members.filter_map(|member| member.strip_prefix(b"u=")).last()?;
    match urgency.split(|byte| *byte == b';').next()?.trim_ascii() {
        [digit @ b'0'..=b'9'] => Class::from_urgency(digit - b'0'),
        _ => None,
    }
}

fn timeout(value: &[u8]) -> Option<Duration> {
    config::parse_duration(std::str::from_utf8(value).ok()?).filter(|timeout| !timeout.is_zero())
}

fn attempts(value: &[u8]) -> Option<u32> {
    std::str::from_utf8(value).ok()?.parse().ok().filter(|attempts| *attempts > 0)
}

/// What a pool that keeps a key with its provider goes by; `None` where the request has none.
pub fn hash(by: &HashBy, errand: &Errand<'_>) -> Option<u64> {
    let fields = &errand.request.head.fields;
    match by {
        HashBy::Header(name) => fields.named(name.as_bytes()).next().map(hash_key),
        HashBy::Cookie(name) => cookie(fields, name.as_bytes()).map(hash_key),
        HashBy::Ip => errand.address().map(|address| match address {
            IpAddr::V4(address) => hash_key(&address.octets()),
            IpAddr::V6(address) => hash_key(&address.octets()),
        }),
        HashBy::Client => Some(hash_key(errand.caller.client.name.as_bytes())),
    }
}

/// The value of a cookie (RFC 6265 §4.2).
fn cookie<'a>(fields: &'a Fields, name: &[u8]) -> Option<&'a [u8]> {
    let pairs = fields.iter().filter(|(_, field, _)| field.eq_ignore_ascii_case(b"cookie"));
    let mut pairs = pairs.flat_map(|(_, _, value)| value.split(|byte| *byte == b';')).map(<[u8]>::trim_ascii);
    pairs.find_map(|pair| pair.strip_prefix(name)?.strip_prefix(b"="))
}

// === impl Keys ===

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

/// Where keys are looked for, in this order.
const KEY_FIELDS: [Known; 2] = [Known::Authorization, Known::XApiKey];

const BEARER: &[u8] = b"bearer ";
