//! What `line.rs` is built of. `tests/line_model.rs` puts loom's types of the same names here, and tries every order in which
//! threads can meet.

pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
pub(super) use std::sync::{Arc, Mutex, MutexGuard};
