//! Live state of providers.
pub mod connect;
pub mod idle;
pub mod resolve;
pub mod tls;
