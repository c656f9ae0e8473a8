//! Sluice: an HTTP front door for services whose work is done by providers that are slow, rate-limited and sometimes down.
#![forbid(unsafe_code)]

pub mod admin;
pub mod cli;
pub mod clock;
pub mod config;
pub mod http1;
pub mod net;
pub mod observe;
pub mod policy;
pub mod proxy;
pub mod server;
pub mod upstream;
