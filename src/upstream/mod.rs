//! Live state of providers.
pub mod connect;
