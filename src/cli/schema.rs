//! `sluice schema`.
pub use crate::config::schema;
