//! `gateway.yaml`: from bytes to a [`Config`] that cannot be wrong, or to every problem at once.

mod secret;
mod types;

pub use secret::Secret;
pub use types::*;
