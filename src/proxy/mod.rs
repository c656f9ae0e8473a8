//! One request, in order.

pub mod path;
pub mod rewrite;
pub mod route;
