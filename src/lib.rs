//! Sluice: an HTTP front door for services whose work is done by providers that are slow, rate-limited and sometimes down.
//!
//! # A request's way
//!
//! [`server`] accepts a connection and finds a head on it ([`http1`] says what that is, [`net`] moves the bytes).
//! [`proxy::handle`] takes it from there: frame, route, dispatch, attempt, record. Dispatch leases a provider from a pool in
//! [`upstream`]; the attempt sends the request over one of its connections and brings the answer back, in the same task.
//! [`cache`] holds replies that may be given to others.
//!
//! # Around it
//!
//! [`config`] turns `gateway.yaml` into a checked configuration, [`gateway`] builds everything from it and swaps it for the
//! next, [`admin`] shows and steers, [`overrides`] are what operators changed by it, [`store`] keeps them, [`observe`] counts and
//! logs, [`cli`] is what people type. [`policy`] decides without doing. Only [`clock`] reads time.
#![forbid(unsafe_code)]

pub mod server;
pub mod proxy;
pub mod upstream;
pub mod cache;
pub mod policy;
pub mod http1;
pub mod http2;
pub mod net;
pub mod config;
pub mod gateway;
pub mod watch;
pub mod overrides;
pub mod store;
pub mod admin;
pub mod observe;
pub mod cli;
pub mod instant;
pub mod clock;
