//! Notices that the configuration file may have changed.
//!
//! Editors write a new file and rename it; Kubernetes swaps a symbolic link two folders away. So folders are watched, not
//! the file: the one the path names, and the one the file really lies in. What happened there is not believed: whoever is
//! told compares the file's bytes.

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

/// Watches until it is dropped.
#[derive(Debug)]
pub struct Watch {
    /// Dropping it closes the channel, which ends the thread.
    _watcher: RecommendedWatcher,
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
        let mut watcher = notify::recommended_watcher(move |_event| {
            let _: Result<(), _> = tell.try_send(());
        })?;
        for folder in folders(file) {
            watcher.watch(&folder, RecursiveMode::NonRecursive)?;
        }
        std::thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || listen(&told, changed))
            .map_err(notify::Error::io)?;
        Ok(Watch { _watcher: watcher })
    }
}

fn listen(told: &Receiver<()>, changed: impl Fn()) {
    while told.recv().is_ok() {
        // A save is several events. Wait for the last, but not for ever: a busy folder must not keep us from looking.
        for _ in 0..SETTLE_ROUNDS {
            match told.recv_timeout(SETTLE) {
                Ok(()) => {}
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        changed();
    }
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
