//! Replacing the process: the running one starts the new binary and hands it every listening socket.
//!
//! The two talk over a pair of unix sockets of which the new process finds its end as standard input. Nobody else can reach
//! it: it has no name. When either process ends, the other reads the end of the stream.
//!
//! ```text
//!   the running process                          the new one
//!   HELLO version                 ──────────>    understood?
//!   SOCKETS address + descriptors ──────────>    (as often as there are addresses)
//!   ALL                           ──────────>    reads and checks its configuration
//!                                 <──────────    CHECKED
//!   lets go of what only one
//!   process may hold
//!   RELEASED                      ──────────>    builds everything, listens, accepts
//!                                 <──────────    ADOPTED address (for each), READY
//!   accepts no more, drains
//!   OVER                          ──────────>    says so to the service manager
//! ```
//!
//! Until READY the running process serves as if nothing happened, and whatever goes wrong before leaves it at that: FAILED,
//! the end of the stream, or [`HANDOVER_TIME`] without READY.
//!
//! **Why no connection is lost.** A listening socket is one thing that two processes hold. What waits in its backlog waits
//! for either. The new one closes those it does not need before READY, so the running one is then alone with them and ends
//! them as ever; all others the running one just lets go. It does not empty their backlogs first: that would take clients
//! from a process that lives to one that goes.

pub mod message;
pub mod predecessor;
pub mod successor;

pub use predecessor::Predecessor;
pub use successor::{Program, Successor};

use std::time::Duration;

/// Names, in the new process's environment, the process that hands over to it; its presence says that standard input is the
/// other end.
pub const VARIABLE: &str = "SLUICE_HANDOVER";

/// How long a new process may take until it is ready.
pub const HANDOVER_TIME: Duration = Duration::from_mins(1);

/// What both sides speak. One that does not know the other's version lets it be.
const VERSION: u32 = 1;

#[cfg(test)]
mod tests;
