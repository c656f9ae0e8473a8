//! Replies that are kept and given to others: the shared cache, in memory. What may be kept, and what for, is
//! [`policy::freshness`](crate::policy::freshness)'s to say.
//!
//! A request makes a [`key`]; the [`store`] holds what is whole. On a miss the [`coalesce`] room has one of many equal requests
//! bring the reply, in a [`body`] that the others read while it grows. An [`answer`] is what a kept reply gives to one request,
//! and [`status`] tells what was done.

pub mod key;
pub mod store;
pub mod answer;
pub mod coalesce;
pub mod body;
pub mod status;
pub mod reply;
mod sync;

// Here, because the model of these two is built without them.
#[cfg(test)]
mod body_tests;
#[cfg(test)]
mod coalesce_tests;
