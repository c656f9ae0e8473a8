//! What must last: records that a restart finds again.
//!
//! [`Store`] is all that the rest of the gateway knows of it. [`Embedded`] keeps a file of its own and needs no other
//! service. Calls block, on a disk at worst: make them where that holds up nobody, never on a worker.
//!
//! A store that cannot be used stops nothing. Whoever writes is told so and keeps what it has in memory; the next write
//! tries again.

mod embedded;

pub use embedded::Embedded;

use std::fmt::Debug;
use std::path::PathBuf;
use std::time::Duration;

/// Where records outlive the process.
pub trait Store: Debug + Send + Sync + 'static {
    /// Every record of a shelf, by key. Where nothing was ever stored there is none, and none is made by asking.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn records(&self, on: Shelf) -> Result<Vec<Record>, StoreError>;

    /// Makes all of `changes` or none. They are on disk when this returns.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn write(&self, on: Shelf, changes: &[Change]) -> Result<(), StoreError>;

    /// Lets go of what only one process may hold, until [`Store::resume`]; every call in between fails.
    fn release(&self);

    /// Takes it again, at the next call that needs it.
    fn resume(&self);

    /// How it is, as far as the latest calls tell.
    fn health(&self) -> Health;
}

/// What kind of thing a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shelf {
    /// Changes that operators made at runtime.
    Overrides,
}

/// A key, unique on its shelf, and what is kept under it.
pub type Record = (String, Vec<u8>);

/// One step of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Keeps this under that key, whatever was there.
    Put(String, Vec<u8>),
    /// Keeps nothing there any more.
    Remove(String),
}

/// How a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Whether what is written lasts.
    pub state: State,
    /// Where it keeps what it keeps.
    pub place: String,
    /// How long the latest write took to be on disk.
    pub latency: Option<Duration>,
}

/// Whether what is written lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nothing had to be stored yet.
    Unused,
    /// It does.
    Works,
    /// It does not, and why.
    Fails(StoreError),
}

/// Why a store cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another process has it.
    #[error(
        "the store {} is in use by another process, and only one may use it: give this gateway a `store.path` of its own, or stop the other one",
        file.display()
    )]
    Locked {
        /// The store's file.
        file: PathBuf,
    },
    /// What is there is no store, or not a whole one.
    #[error(
        "the store {} cannot be read ({why}): move it away to begin with an empty one, or put a good copy in its place",
        file.display()
    )]
    Broken {
        /// The store's file.
        file: PathBuf,
        /// What was met.
        why: String,
    },
    /// It was written by a version that knows more.
    #[error(
        "the store {} has the schema {schema}, and this version of Sluice knows those up to {}: run the version that wrote it, or move the file away",
        file.display(), embedded::SCHEMA
    )]
    Newer {
        /// The store's file.
        file: PathBuf,
        /// Its schema.
        schema: u64,
    },
    /// The system does not let us.
    #[error(
        "the store {} cannot be used: {why}; the user that runs Sluice has to be able to write to that folder, and the disk needs room",
        file.display()
    )]
    Refused {
        /// The store's file.
        file: PathBuf,
        /// What the system said.
        why: String,
    },
    /// It was let go of.
    #[error("the store {} was left to a new process", file.display())]
    Released {
        /// The store's file.
        file: PathBuf,
    },
}
