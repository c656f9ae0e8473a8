//! server.

pub mod limits;
