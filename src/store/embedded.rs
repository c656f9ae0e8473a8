//! The store in a file of its own, `sluice.redb` in the folder `store.path`.
//!
//! redb commits by copy on write: a crash leaves the state before or the state after, never one between. It locks the file
//! against other processes. The file is opened by the first call that finds one, and made by the first write; a gateway that
//! stores nothing leaves no trace.
//!
//! redb may panic over a file that somebody else damaged. Such a panic is caught here and is one more way to be broken.

use super::{Change, Health, Record, Shelf, State, Store, StoreError};
use crate::clock;
use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The embedded store.
#[derive(Debug)]
pub struct Embedded {
    file: PathBuf,
    /// A std mutex: redb has one writer anyhow. It is held while the disk works, and only blocking calls ask for it.
    held: Mutex<Held>,
}

/// What is known of the file.
#[derive(Debug, Default)]
struct Held {
    database: Option<Database>,
    released: bool,
    /// Why the latest call failed.
    failed: Option<StoreError>,
    latency: Option<Duration>,
}

// === impl Embedded ===

impl Embedded {
    /// The store below `folder`. Nothing is looked at yet.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Embedded { file: folder.join(FILE), held: Mutex::default() }
    }

    /// A panic is caught before it comes to the lock's end, so a poisoned lock is still good.
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `work` with the database; without one, and without `make`, there is nothing to do. One that failed is closed:
    /// the next call begins anew.
    fn with<T>(
        &self,
        make: bool,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<Option<T>, StoreError> {
        let mut held = self.held();
        if held.released {
            return Err(StoreError::Released { file: self.file.clone() });
        }
        let worked = catch_unwind(AssertUnwindSafe(|| {
            if held.database.is_none() {
                held.database = self.open(make)?;
            }
            let Some(database) = &held.database else { return Ok(None) };
            self.knows_schema(database)?;
            work(database).map(Some).map_err(|error| self.because(&error))
        }));
        let worked = worked.unwrap_or_else(|_| Err(self.broken("its contents make no sense")));
        held.failed = worked.as_ref().err().cloned();
        if held.failed.is_some() {
            close(held.database.take());
        }
        worked
    }

    fn open(&self, make: bool) -> Result<Option<Database>, StoreError> {
        let refused = |error: io::Error| self.refused(&error.to_string());
        if !self.file.try_exists().map_err(refused)? {
            if !make {
                return Ok(None);
            }
            self.make().map_err(refused)?;
        }
        let file = OpenOptions::new().read(true).write(true).open(&self.file).map_err(refused)?;
        let mut builder = Database::builder();
        let backend = FileBackend::new(file);
        let database = backend.and_then(|file| {
            builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true).create_with_backend(file)
        });
        database.map(Some).map_err(|error| self.because(&error.into()))
    }

    /// An empty file that only its owner may read, in a folder that only its owner may enter. Both names are on disk when
    /// this returns: what redb commits into the file would otherwise not be found again.
    fn make(&self) -> io::Result<()> {
        let folder = self.file.parent().unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&self.file)?;
        for folder in folder.canonicalize()?.ancestors().take(2) {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    }

    /// Refuses what a newer version wrote. A file without a schema was made by a write that came no further: it is empty.
    fn knows_schema(&self, database: &Database) -> Result<(), StoreError> {
        match schema(database).map_err(|error| self.because(&error))? {
            Some(schema) if schema > SCHEMA => Err(StoreError::Newer { file: self.file.clone(), schema }),
            _ => Ok(()),
        }
    }

    fn because(&self, error: &redb::Error) -> StoreError {
        use io::ErrorKind::{InvalidData, UnexpectedEof};
        match error {
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => {
                StoreError::Locked { file: self.file.clone() }
            }
            redb::Error::Io(error) if matches!(error.kind(), InvalidData | UnexpectedEof) => {
                self.broken(&error.to_string())
            }
            redb::Error::Io(error) => self.refused(&error.to_string()),
            redb::Error::PreviousIo => self.refused(&error.to_string()),
            error => self.broken(&error.to_string()),
        }
    }

    fn broken(&self, why: &str) -> StoreError {
        StoreError::Broken { file: self.file.clone(), why: why.to_owned() }
    }

    fn refused(&self, why: &str) -> StoreError {
        StoreError::Refused { file: self.file.clone(), why: why.to_owned() }
    }
}

impl Store for Embedded {
    fn records(&self, on: Shelf) -> Result<Vec<Record>, StoreError> {
        self.with(false, |database| read(database, on)).map(Option::unwrap_or_default)
    }

    fn write(&self, on: Shelf, changes: &[Change]) -> Result<(), StoreError> {
        let begun = clock::now();
        self.with(true, |database| write(database, on, changes))?;
        self.held().latency = Some(clock::now().saturating_duration_since(begun));
        Ok(())
    }

    fn release(&self) {
        let mut held = self.held();
        held.released = true;
        close(held.database.take());
    }

    fn resume(&self) {
        self.held().released = false;
    }

    fn health(&self) -> Health {
        let held = self.held();
        let state = match (&held.failed, &held.database) {
            _ if held.released => State::Fails(StoreError::Released { file: self.file.clone() }),
            (Some(error), _) => State::Fails(error.clone()),
            (None, Some(_)) => State::Works,
            (None, None) => State::Unused,
        };
        Health { state, place: self.file.display().to_string(), latency: held.latency }
    }
}

/// Closing writes too, and may meet the same damage as whatever came before: then there is nothing left to lose.
fn close(database: Option<Database>) {
    let _: std::thread::Result<()> = catch_unwind(AssertUnwindSafe(|| drop(database)));
}

fn schema(database: &Database) -> Result<Option<u64>, redb::Error> {
    let transaction = database.begin_read()?;
    match transaction.open_table(ABOUT) {
        Ok(about) => Ok(about.get(SCHEMA_KEY)?.map(|schema| schema.value())),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn read(database: &Database, shelf: Shelf) -> Result<Vec<Record>, redb::Error> {
    let transaction = database.begin_read()?;
    let table = match transaction.open_table(table(shelf)) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let record = |entry: Result<(redb::AccessGuard<'_, &str>, redb::AccessGuard<'_, &[u8]>), redb::StorageError>| {
        let (key, value) = entry?;
        Ok((key.value().to_owned(), value.value().to_owned()))
    };
    table.iter()?.map(record).collect()
}

fn write(database: &Database, shelf: Shelf, changes: &[Change]) -> Result<(), redb::Error> {
    // Durability is redb's default: the commit returns once the disk has it.
    let transaction = database.begin_write()?;
    {
        transaction.open_table(ABOUT)?.insert(SCHEMA_KEY, SCHEMA)?;
        let mut table = transaction.open_table(table(shelf))?;
        for change in changes {
            match change {
                Change::Put(key, value) => drop(table.insert(key.as_str(), value.as_slice())?),
                Change::Remove(key) => drop(table.remove(key.as_str())?),
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

fn table(shelf: Shelf) -> TableDefinition<'static, &'static str, &'static [u8]> {
    match shelf {
        Shelf::Overrides => TableDefinition::new("overrides"),
    }
}

/// The store's file in its folder.
const FILE: &str = "sluice.redb";

/// The shape of what is stored; raised when an older version could no longer make sense of it.
pub(super) const SCHEMA: u64 = 1;

/// What a store says of itself.
const ABOUT: TableDefinition<&str, u64> = TableDefinition::new("about");

/// Where [`ABOUT`] has its schema.
const SCHEMA_KEY: &str = "schema";

/// Pages that redb keeps in memory. Its own default is a gigabyte; what is stored here is small and read once.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use tempfile::TempDir;

    fn folder() -> TempDir {
        TempDir::new().expect("a temporary folder")
    }

    fn put(key: &str, value: &str) -> Change {
        Change::Put(key.to_owned(), value.as_bytes().to_owned())
    }

    fn record(key: &str, value: &str) -> Record {
        (key.to_owned(), value.as_bytes().to_owned())
    }

    fn file(folder: &TempDir) -> PathBuf {
        folder.path().join(FILE)
    }

    #[test]
    fn asking_an_empty_store_leaves_no_trace() {
        let folder = folder();
        let store = Embedded::new(&folder.path().join("data"));
        assert_eq!(store.records(Shelf::Overrides), Ok(Vec::new()));
        assert_eq!(store.health().state, State::Unused);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
    }

    #[test]
    fn what_is_written_is_found_again_by_the_next_process() {
        let folder = folder();
        let store = Embedded::new(folder.path());
        store.write(Shelf::Overrides, &[put("b", "2"), put("a", "1"), put("c", "3")]).expect("written");
        store.write(Shelf::Overrides, &[Change::Remove("c".to_owned()), put("a", "new")]).expect("written");
        assert_eq!(store.health().state, State::Works);
        assert!(store.health().latency.is_some());
        drop(store);
        let next = Embedded::new(folder.path());
        assert_eq!(next.records(Shelf::Overrides), Ok(vec![record("a", "new"), record("b", "2")]));
    }

    /// What a machine without power would have: the file as it is while the store is open.
    #[test]
    fn what_was_acknowledged_is_in_the_file_already() {
        let (here, there) = (folder(), folder());
        let store = Embedded::new(here.path());
        store.write(Shelf::Overrides, &[put("a", "1")]).expect("written");
        fs::copy(file(&here), file(&there)).expect("a copy");
        assert_eq!(Embedded::new(there.path()).records(Shelf::Overrides), Ok(vec![record("a", "1")]));
    }

    #[test]
    fn only_its_owner_may_look_into_it() {
        let folder = folder();
        let data = folder.path().join("deep/data");
        Embedded::new(&data).write(Shelf::Overrides, &[put("a", "1")]).expect("written");
        let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!((mode(&data), mode(&data.join(FILE))), (0o700, 0o600));
    }

    #[test]
    fn one_process_has_it_until_it_lets_go() {
        let folder = folder();
        let (first, second) = (Embedded::new(folder.path()), Embedded::new(folder.path()));
        first.write(Shelf::Overrides, &[put("a", "1")]).expect("written");
        let locked = StoreError::Locked { file: file(&folder) };
        assert_eq!(second.records(Shelf::Overrides), Err(locked.clone()));
        assert_eq!(second.health().state, State::Fails(locked));
        first.release();
        assert_eq!(second.records(Shelf::Overrides), Ok(vec![record("a", "1")]));
        let released = Err(StoreError::Released { file: file(&folder) });
        assert_eq!(first.write(Shelf::Overrides, &[put("b", "2")]), released);
        drop(second);
        first.resume();
        first.write(Shelf::Overrides, &[put("b", "2")]).expect("it has it again");
        assert_eq!(first.records(Shelf::Overrides), Ok(vec![record("a", "1"), record("b", "2")]));
    }

    #[test]
    fn a_file_that_is_no_store_is_said_to_be_broken_and_stays_as_it_is() {
        let folder = folder();
        for contents in [b"this is no store".repeat(1000), vec![0; 4096], b"x".to_vec()] {
            fs::write(file(&folder), &contents).expect("written");
            let store = Embedded::new(folder.path());
            let error = store.records(Shelf::Overrides).expect_err("it is broken");
            assert!(matches!(error, StoreError::Broken { .. }), "{error:?}");
            assert!(store.write(Shelf::Overrides, &[put("a", "1")]).is_err());
            assert_eq!(fs::read(file(&folder)).expect("it is there"), contents);
        }
    }

    #[test]
    fn damage_anywhere_in_the_file_is_an_error_or_without_effect_and_never_a_panic() {
        let (here, there) = (folder(), folder());
        let store = Embedded::new(here.path());
        let changes: Vec<_> = (0..50).map(|n| put(&format!("key{n}"), &"value".repeat(20))).collect();
        store.write(Shelf::Overrides, &changes).expect("written");
        drop(store);
        let whole = fs::read(file(&here)).expect("it is there");
        let mut refused = 0;
        for at in (0..whole.len()).step_by(whole.len() / 64) {
            let mut damaged = whole.clone();
            damaged[at..].iter_mut().take(64).for_each(|byte| *byte ^= 0xff);
            fs::write(file(&there), damaged).expect("written");
            let store = Embedded::new(there.path());
            refused += usize::from(store.records(Shelf::Overrides).is_err());
            // Whether it can is not the point.
            let _: Result<(), StoreError> = store.write(Shelf::Overrides, &[put("a", "1")]);
        }
        assert!(refused > 0, "no damage was noticed");
    }

    #[test]
    fn a_newer_schema_is_left_alone() {
        let folder = folder();
        let store = Embedded::new(folder.path());
        let raise = |database: &Database| {
            let transaction = database.begin_write()?;
            transaction.open_table(ABOUT)?.insert(SCHEMA_KEY, SCHEMA + 1)?;
            Ok(transaction.commit()?)
        };
        store.with(true, raise).expect("raised");
        let newer = StoreError::Newer { file: file(&folder), schema: SCHEMA + 1 };
        assert_eq!(store.records(Shelf::Overrides), Err(newer.clone()));
        assert_eq!(store.write(Shelf::Overrides, &[put("a", "1")]), Err(newer));
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_refused_until_it_can() {
        let folder = folder();
        let blocked = folder.path().join("data");
        fs::write(&blocked, "a file, where a folder should be").expect("written");
        let store = Embedded::new(&blocked);
        let error = store.write(Shelf::Overrides, &[put("a", "1")]).expect_err("there is no folder");
        assert!(matches!(error, StoreError::Refused { .. }), "{error:?}");
        assert!(error.to_string().contains("data/sluice.redb"), "{error}");
        fs::remove_file(&blocked).expect("removed");
        store.write(Shelf::Overrides, &[put("a", "1")]).expect("it tries again");
        assert_eq!(store.health().state, State::Works);
    }
}
