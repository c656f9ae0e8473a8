//! http1.
pub mod target;
