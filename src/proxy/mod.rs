//! One request, in order.

pub mod path;
pub mod route;
