//! What operators see: metrics, logs and the access log. All of it is bounded, and none of it makes a request wait.

pub mod access;
pub mod exposition;
pub mod families;
mod lines;
pub mod logs;
pub mod metrics;
mod process;
mod tally;
mod writer;

pub use access::{Access, AttemptRecord};
pub use exposition::Exposition;
pub use lines::timestamp;
pub use logs::{Logs, Prepared};
pub use metrics::{ListenerMetrics, Metrics, ProviderMetrics, RouteMetrics};
