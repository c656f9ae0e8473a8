//! Notices that the configuration file may have changed.
//!
//! Editors write a new file and rename it; Kubernetes swaps a symbolic link two folders away. So folders are watched, not
//! the file: the one the path names, and the one the file really lies in. The latter is looked up again whenever something
//! happened, because a link may lead elsewhere by then.
//!
//! What happened is not believed: whoever is told compares the file's bytes. To compare them it opens the file, which the
//! system reports as well; so what only reads is left out here, or every look would be the reason for the next.

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// Watches until it is dropped.
#[derive(Debug)]
pub struct Watch {
    /// The only strong one. Dropping it closes the channel, which ends the thread.
    _folders: Arc<Folders>,
}

/// The folders that are watched. A std mutex: taken a few times for each change of the file.
#[derive(Debug)]
struct Folders {
    file: PathBuf,
    watched: Mutex<Watched>,
}

#[derive(Debug)]
struct Watched {
    watcher: RecommendedWatcher,
    folders: BTreeSet<PathBuf>,
}

// === impl Watch ===

impl Watch {
    /// Calls `changed`, on a thread of its own, once things have been quiet for a moment after something happened around
    /// `file`.
    ///
    /// # Errors
    /// The system cannot watch (often: no more inotify instances); reloads by signal and API work all the same.
    pub fn start(file: &Path, changed: impl Fn() + Send + 'static) -> notify::Result<Watch> {
        // One place: whoever listens only wants to know that something happened since it last looked.
        let (tell, told) = sync_channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // An error may hide a change, so it counts as one.
            if event.is_ok_and(|event| only_reads(event.kind)) {
                return;
            }
            let _: Result<(), _> = tell.try_send(());
        })?;
        let inside = Mutex::new(Watched { watcher, folders: BTreeSet::new() });
        let folders = Arc::new(Folders { file: file.to_owned(), watched: inside });
        folders.follow()?;
        let theirs = Arc::downgrade(&folders);
        std::thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || listen(&told, &theirs, changed))
            .map_err(notify::Error::io)?;
        Ok(Watch { _folders: folders })
    }
}

// === impl Folders ===

impl Folders {
    /// Watches what is to be watched now, and no longer what was.
    fn follow(&self) -> notify::Result<()> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = folders(&self.file);
        let Watched { watcher, folders } = &mut *watched;
        for gone in folders.difference(&wanted) {
            // A folder that was removed is not watched any more anyway.
            let _: notify::Result<()> = watcher.unwatch(gone);
        }
        folders.retain(|folder| wanted.contains(folder));
        for folder in wanted {
            if !folders.contains(&folder) {
                watcher.watch(&folder, RecursiveMode::NonRecursive)?;
                folders.insert(folder);
            }
        }
        Ok(())
    }
}

fn listen(told: &Receiver<()>, folders: &Weak<Folders>, changed: impl Fn()) {
    while told.recv().is_ok() {
        // A save is several events. Wait for the last, but not for ever: a busy folder must not keep us from looking.
        for _ in 0..SETTLE_ROUNDS {
            match told.recv_timeout(SETTLE) {
                Ok(()) => {}
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        // Before looking: what happens there from now on is told, what happened before is seen.
        let followed = folders.upgrade().map(|folders| folders.follow());
        if let Some(Err(error)) = followed {
            tracing::warn!(%error, "the file's new folder is not watched; reload by SIGHUP or the API");
        }
        changed();
    }
}

/// Whether this is only somebody who reads, perhaps ourselves.
fn only_reads(kind: EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

/// The folder the path names, and the one the file lies in.
fn folders(file: &Path) -> BTreeSet<PathBuf> {
    let parent = |path: &Path| match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    let real = file.canonicalize().ok();
    std::iter::once(parent(file)).chain(real.as_deref().map(parent)).collect()
}

/// How long nothing may happen before we look.
const SETTLE: Duration = Duration::from_millis(50);

/// How often that wait may begin again: two seconds in all.
const SETTLE_ROUNDS: u32 = 40;

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::mpsc::channel;

    /// Long enough for any machine; only a failure takes so long.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// A watch that, as a reload does, reads the file each time, and says what it read.
    fn watch(file: &Path) -> (Watch, Receiver<String>) {
        let (say, said) = channel();
        let own = file.to_owned();
        let changed = move || drop(say.send(fs::read_to_string(&own).unwrap_or_default()));
        (Watch::start(file, changed).expect("inotify"), said)
    }

    /// Reads what is said up to `text`; a slow machine may tell of a save in several steps.
    fn until(said: &Receiver<String>, text: &str) {
        while said.recv_timeout(PATIENCE).expect("the change is told") != text {}
    }

    /// Replaces `file` as editors do.
    fn save(file: &Path, text: &str) {
        let beside = file.with_extension("new");
        fs::write(&beside, text).expect("writable");
        fs::rename(&beside, file).expect("a swap");
    }

    #[test]
    fn looking_at_the_file_is_no_reason_to_look_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("gateway.yaml");
        fs::write(&file, "one").expect("writable");
        let (_watch, said) = watch(&file);
        save(&file, "two");
        until(&said, "two");
        assert_eq!(said.recv_timeout(SETTLE * 6), Err(RecvTimeoutError::Timeout));
    }

    #[test]
    fn a_file_is_followed_to_where_its_link_leads_now() {
        let [here, first, second] = [(); 3].map(|()| tempfile::tempdir().expect("a folder"));
        let file = here.path().join("gateway.yaml");
        for (folder, text) in [(&first, "first"), (&second, "second")] {
            fs::write(folder.path().join("real.yaml"), text).expect("writable");
        }
        symlink(first.path().join("real.yaml"), &file).expect("a link");
        let (_watch, said) = watch(&file);
        let beside = here.path().join("new");
        symlink(second.path().join("real.yaml"), &beside).expect("a link");
        fs::rename(&beside, &file).expect("a swap");
        until(&said, "second");
        save(&second.path().join("real.yaml"), "third");
        until(&said, "third");
    }

    #[test]
    fn a_watch_that_is_dropped_says_nothing_more() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("gateway.yaml");
        let (watch, said) = watch(&file);
        drop(watch);
        assert_eq!(said.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
    }
}
