//! One file per command.

pub mod healthcheck;
