//! What `coalesce.rs` and `body.rs` are built of. `tests/cache_model.rs` puts loom's types of the same names here, and tries
//! every order in which threads can meet.

pub(super) use std::sync::{Arc, Mutex, MutexGuard};
