//! Notices that the configuration, or a file it names, may have changed.
//!
//! Editors write a new file and rename it; Kubernetes swaps a symbolic link two folders away. So folders are watched, not
//! files: on the way to each file, every folder that holds a link, and the one the file really lies in. The way is walked
//! again whenever something happened, because a link may lead elsewhere by then, and because a reload may have brought
//! other files.
//!
//! What happened is not believed: whoever is told compares the files' bytes. To compare them it opens the files, which the
//! system reports as well; so what only reads is left out here, or every look would be the reason for the next. So is what
//! happens to others in the same folders, of which a log may be one.

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// Watches until it is dropped.
#[derive(Debug)]
pub struct Watch {
    /// The only strong one. Dropping it closes the channel, which ends the thread.
    _folders: Arc<Folders>,
}

/// The folders that are watched.
struct Folders {
    /// Says which files matter now.
    files: Box<dyn Fn() -> Vec<PathBuf> + Send + Sync>,
    /// A std mutex: taken a few times for each change of a file.
    watched: Mutex<Watched>,
    /// Never held while `watched` waits for the watcher, whose thread looks in here.
    interest: Arc<Mutex<Interest>>,
}

#[derive(Debug)]
struct Watched {
    watcher: RecommendedWatcher,
    folders: BTreeSet<PathBuf>,
}

/// What is worth being told about.
#[derive(Debug, Default)]
struct Interest {
    /// The files, and the links on the way to them.
    places: BTreeSet<PathBuf>,
    /// Folders that may have made way for others of the same name.
    stale: BTreeSet<PathBuf>,
}

// === impl Watch ===

impl Watch {
    /// Calls `changed`, on a thread of its own, once things have been quiet for a moment after something happened to one
    /// of `files`. Which files those are is asked again after each call.
    ///
    /// # Errors
    /// The system cannot watch (often: no more inotify instances); reloads by signal and API work all the same.
    pub fn start(
        files: impl Fn() -> Vec<PathBuf> + Send + Sync + 'static,
        changed: impl Fn() + Send + 'static,
    ) -> notify::Result<Watch> {
        // One place: whoever listens only wants to know that something happened since it last looked.
        let (tell, told) = sync_channel(1);
        let interest = Arc::new(Mutex::new(Interest::default()));
        let theirs = Arc::clone(&interest);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // An error may hide a change, so it counts as one.
            if event.is_ok_and(|event| !lock(&theirs).concerns(&event)) {
                return;
            }
            let _: Result<(), _> = tell.try_send(());
        })?;
        let none_yet = Mutex::new(Watched { watcher, folders: BTreeSet::new() });
        let folders = Arc::new(Folders { files: Box::new(files), watched: none_yet, interest });
        if let Err(error) = folders.follow() {
            if lock(&folders.watched).folders.is_empty() {
                return Err(error);
            }
            warn(&error);
        }
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
    /// Watches what is to be watched now, and no longer what was; whether there is a folder that was not watched before.
    fn follow(&self) -> notify::Result<bool> {
        let mut watched = lock(&self.watched);
        let mut places = BTreeSet::new();
        for file in (self.files)() {
            walk(&file, &mut places);
        }
        let wanted: BTreeSet<PathBuf> = places.iter().filter_map(|place| place.parent()).map(Path::to_owned).collect();
        let stale = {
            let mut interest = lock(&self.interest);
            interest.places = places;
            std::mem::take(&mut interest.stale)
        };
        let Watched { watcher, folders } = &mut *watched;
        for gone in folders.iter().filter(|folder| !wanted.contains(*folder) || stale.contains(*folder)) {
            // A folder that was removed is not watched any more anyway.
            let _: notify::Result<()> = watcher.unwatch(gone);
        }
        folders.retain(|folder| wanted.contains(folder) && !stale.contains(folder));
        let (mut new, mut failure) = (false, None);
        for folder in wanted {
            if folders.contains(&folder) {
                continue;
            }
            // One folder that cannot be watched is no reason not to watch the others.
            match watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => new |= folders.insert(folder),
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(new), Err)
    }
}

impl std::fmt::Debug for Folders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Folders").field("watched", &self.watched).finish_non_exhaustive()
    }
}

// === impl Interest ===

impl Interest {
    /// Whether something may have changed for us; notes folders that are no longer what they were.
    fn concerns(&mut self, event: &Event) -> bool {
        if only_reads(event.kind) {
            return false;
        }
        // Without a path: events were lost, perhaps ours.
        let mut concerns = event.paths.is_empty();
        for path in &event.paths {
            concerns |= self.places.contains(path);
            if self.places.iter().any(|place| place.parent() == Some(path)) {
                self.stale.insert(path.clone());
                concerns = true;
            }
        }
        concerns
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
        // Before looking: what happens there from now on is told, what happened before is seen. And again after it: what
        // was just applied may name files in other folders, and they may have changed before those were watched.
        for _ in 0..FOLLOW_ROUNDS {
            if let Some(Err(error)) = folders.upgrade().map(|folders| folders.follow()) {
                warn(&error);
            }
            changed();
            if !folders.upgrade().is_some_and(|folders| matches!(folders.follow(), Ok(true))) {
                break;
            }
        }
    }
}

fn warn(error: &notify::Error) {
    tracing::warn!(%error, "a folder of the configuration is not watched; reload by SIGHUP or the API");
}

/// Whether this is only somebody who reads, perhaps ourselves.
fn only_reads(kind: EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

/// Walks the way to `file` as the system does, and notes where it can change: each link on the way, and its end, by paths
/// that have no link in them. Where the way breaks off, that is the first thing that is missing.
fn walk(file: &Path, places: &mut BTreeSet<PathBuf>) {
    let Ok(file) = std::path::absolute(file) else { return };
    let mut at = PathBuf::from("/");
    let mut ahead: VecDeque<OsString> = parts(&file);
    let mut links = 0;
    while let Some(part) = ahead.pop_front() {
        if part == ".." {
            at.pop();
            continue;
        }
        at.push(&part);
        let Ok(found) = at.symlink_metadata() else { break };
        if !found.is_symlink() {
            continue;
        }
        links += 1;
        let Ok(target) = std::fs::read_link(&at) else { break };
        if links > LINKS_MAX {
            break;
        }
        places.insert(at.clone());
        if target.is_absolute() {
            at = PathBuf::from("/");
        } else {
            at.pop();
        }
        for part in parts(&target).into_iter().rev() {
            ahead.push_front(part);
        }
    }
    places.insert(at);
}

/// The names in a path, and `..`.
fn parts(path: &Path) -> VecDeque<OsString> {
    let named = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    named.map(|part| part.as_os_str().to_owned()).collect()
}

/// How long nothing may happen before we look.
const SETTLE: Duration = Duration::from_millis(50);

/// How often that wait may begin again: two seconds in all.
const SETTLE_ROUNDS: u32 = 40;

/// How often we look again because a reload brought other folders. The next event is a reason to look anyway.
const FOLLOW_ROUNDS: u32 = 5;

/// Links on one way; the system gives up there as well.
const LINKS_MAX: u32 = 40;

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
        let file = file.to_owned();
        (Watch::start(move || vec![file.clone()], changed).expect("inotify"), said)
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

    #[test]
    fn what_happens_to_others_in_the_same_folder_is_not_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("gateway.yaml");
        fs::write(&file, "one").expect("writable");
        let (_watch, said) = watch(&file);
        save(&folder.path().join("log"), "a line");
        save(&file, "two");
        until(&said, "two");
        save(&folder.path().join("log"), "another line");
        assert_eq!(said.recv_timeout(SETTLE * 6), Err(RecvTimeoutError::Timeout));
    }

    /// Kubernetes with `items: [{ path: inner/site.pem }]`: the link that is swapped is two folders above the file.
    #[test]
    fn a_link_in_the_middle_of_the_way_is_followed() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        for version in ["one", "two"] {
            fs::create_dir_all(at(&format!("..{version}/inner"))).expect("folders");
            fs::write(at(&format!("..{version}/inner/site.pem")), version).expect("writable");
        }
        symlink("..one", at("..data")).expect("a link");
        symlink("..data/inner", at("inner")).expect("a link");
        let (_watch, said) = watch(&at("inner/site.pem"));
        symlink("..two", at("..data_tmp")).expect("a link");
        fs::rename(at("..data_tmp"), at("..data")).expect("a swap");
        until(&said, "two");
        save(&at("..two/inner/site.pem"), "three");
        until(&said, "three");
    }

    #[test]
    fn a_folder_that_is_removed_and_made_again_is_watched_again() {
        let outer = tempfile::tempdir().expect("a folder");
        let folder = outer.path().join("tls");
        let file = folder.join("site.pem");
        let (_watch, said) = watch(&file);
        for text in ["one", "two"] {
            fs::create_dir(&folder).expect("a folder");
            fs::write(&file, text).expect("writable");
            until(&said, text);
            save(&file, "again");
            until(&said, "again");
            fs::remove_dir_all(&folder).expect("it goes");
            until(&said, "");
        }
    }

    #[test]
    fn a_file_that_only_a_reload_has_named_is_watched_from_then_on() {
        let [here, there] = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
        let (file, named) = (here.path().join("gateway.yaml"), there.path().join("site.pem"));
        fs::write(&named, "one").expect("writable");
        let (say, said) = channel();
        let (read, reads) = (named.clone(), file.clone());
        let changed = move || drop(say.send(fs::read_to_string(&read).unwrap_or_default()));
        let list = named.clone();
        // As a reload does: the file names the other one once it is there.
        let files = move || if reads.exists() { vec![reads.clone(), list.clone()] } else { vec![reads.clone()] };
        let _watch = Watch::start(files, changed).expect("inotify");
        fs::write(&file, "names the other").expect("writable");
        until(&said, "one");
        save(&named, "two");
        until(&said, "two");
    }

    #[test]
    fn a_way_in_circles_ends() {
        let folder = tempfile::tempdir().expect("a folder");
        symlink("b", folder.path().join("a")).expect("a link");
        symlink("a", folder.path().join("b")).expect("a link");
        let mut places = BTreeSet::new();
        walk(&folder.path().join("a"), &mut places);
        assert_eq!(places.len(), 2);
    }
}
