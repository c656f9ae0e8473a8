//! Overrides as they live: kept in the store, laid over what is alive, ended in time.
//!
//! What is said is done at once and then written; whoever said it hears back when it is on disk. Where the store cannot be
//! used an override works all the same and is kept in memory only. Whoever made it is told, the log says so, and the next
//! write brings to disk whatever is not there yet.
//!
//! A reload knows nothing of overrides: they never edit the file. One whose name is gone stays, without effect, until the
//! name is back or somebody takes it back.

use crate::policy::overrides::{self, Change, Full, Override, Setting, Target};
use crate::store::{self, Record, Shelf, Store};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;

/// What overrides are laid over.
pub trait Steered {
    /// Whether there is such a thing now.
    fn has(&self, target: &Target) -> bool;

    /// Does it; without effect where there is no such thing. Called again with the same change, nothing more happens.
    fn apply(&self, change: &Change<'_>);
}

/// Every override of the gateway.
#[derive(Debug)]
pub struct Overrides {
    store: Arc<dyn Store>,
    /// A std mutex, held while the store works: overrides are made by people, one after the other. Nothing on a request's
    /// way asks for it, and whoever is not to wait for a disk does so from a thread of its own.
    state: Mutex<State>,
    /// The next end may be another one now.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    all: overrides::Overrides,
    /// Whether the store's records are among them.
    loaded: bool,
    /// Targets about which the store says something else.
    unsaved: BTreeSet<Target>,
    /// Another process has them, or is about to.
    released: bool,
}

/// One override as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// What it lies over.
    pub target: Target,
    /// What it does, and until when.
    pub made: Override,
    /// Whether there is such a thing now.
    pub used: bool,
    /// Whether a restart finds it again.
    pub durable: bool,
}

/// Why an override is not made or taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// There is nothing of that name.
    Unknown,
    /// There are too many.
    Full,
    /// A new process has them, or is about to.
    Released,
}

// === impl Overrides ===

impl Overrides {
    /// None yet; `store` is where they are kept.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Overrides { store, state: Mutex::default(), changed: Notify::new() }
    }

    /// A panic leaves at worst a target that is written once more, so a poisoned lock is still good.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what the store has, before anything is steered by it.
    pub fn load(&self, live: &dyn Steered, now: SystemTime) {
        self.read(&mut self.state(), live, now);
    }

    /// Lays every override over `live`, which may know names that were not there before.
    pub fn lay_over(&self, live: &dyn Steered) {
        for (target, made) in self.state().all.iter() {
            live.apply(&target.change(Some(made.setting)));
        }
    }

    /// Makes an override, until `until` if that is said.
    ///
    /// # Errors
    /// See [`Refused`]; nothing has changed then.
    pub fn put(
        &self,
        live: &dyn Steered,
        setting: Setting,
        name: &str,
        until: Option<SystemTime>,
        now: SystemTime,
    ) -> Result<Shown, Refused> {
        let mut state = self.open(live, now)?;
        if !live.has(&setting.of(name)) {
            return Err(Refused::Unknown);
        }
        let made = Override { setting, since: now, until };
        let target = state.all.put(name, made).map_err(|Full| Refused::Full)?;
        live.apply(&target.change(Some(setting)));
        tracing::info!(id = %target, setting = setting.as_str(), ends = until.is_some(), "an operator made an override");
        self.save(&mut state, [target.clone()]);
        self.changed.notify_one();
        Ok(Shown { durable: !state.unsaved.contains(&target), used: true, target, made })
    }

    /// Takes an override back; `None` where there is none.
    ///
    /// # Errors
    /// See [`Refused`]; nothing has changed then.
    pub fn clear(&self, live: &dyn Steered, target: &Target, now: SystemTime) -> Result<Option<Shown>, Refused> {
        let mut state = self.open(live, now)?;
        let Some(made) = state.all.clear(target) else {
            return if live.has(target) { Ok(None) } else { Err(Refused::Unknown) };
        };
        live.apply(&target.change(None));
        tracing::info!(id = %target, "an operator took an override back");
        self.save(&mut state, [target.clone()]);
        let durable = !state.unsaved.contains(target);
        Ok(Some(Shown { target: target.clone(), made, used: live.has(target), durable }))
    }

    /// Takes back what is over.
    pub fn expire(&self, live: &dyn Steered, now: SystemTime) {
        let mut state = self.state();
        let over = state.all.expire(now);
        for target in &over {
            live.apply(&target.change(None));
            tracing::info!(id = %target, "an override has ended");
        }
        if !over.is_empty() {
            self.save(&mut state, over);
        }
    }

    /// Waits until the next of them is over, or may be: a wall clock can be set.
    pub async fn next_end(&self, wall: impl Fn() -> SystemTime) {
        loop {
            let next = self.state().all.next_end();
            let Some(next) = next else {
                self.changed.notified().await;
                continue;
            };
            let left = next.duration_since(wall()).unwrap_or_default();
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep(left.min(LOOK_PAUSE)) => return,
            }
        }
    }

    /// All of them.
    pub fn list(&self, live: &dyn Steered) -> Vec<Shown> {
        let state = self.state();
        let shown = |(target, made): (&Target, Override)| Shown {
            target: target.clone(),
            made,
            used: live.has(target),
            durable: !state.unsaved.contains(target),
        };
        state.all.iter().map(shown).collect()
    }

    /// How the store is.
    pub fn store(&self) -> store::Health {
        self.store.health()
    }

    /// Leaves them to another process: they go on working here, and nothing is made or taken back any more.
    pub fn release(&self) {
        // Whoever is about to write has written.
        self.state().released = true;
        self.store.release();
    }

    /// Takes them again from a process that did not come to serve; it may have written.
    pub fn resume(&self, live: &dyn Steered, now: SystemTime) {
        let mut state = self.state();
        if std::mem::take(&mut state.released) {
            self.store.resume();
            self.read(&mut state, live, now);
        }
    }

    /// The state, for a change of it.
    fn open(&self, live: &dyn Steered, now: SystemTime) -> Result<MutexGuard<'_, State>, Refused> {
        let mut state = self.state();
        if state.released {
            return Err(Refused::Released);
        }
        if !state.loaded {
            // It could not be read so far, or what it said is not known: what is made now is not to take its place unseen.
            self.read(&mut state, live, now);
        }
        Ok(state)
    }

    /// What the store says holds, but for what is not written yet.
    fn read(&self, state: &mut State, live: &dyn Steered, now: SystemTime) {
        let records = match self.store.records(Shelf::Overrides) {
            Ok(records) => records,
            Err(error) => {
                tracing::warn!(%error, "overrides are kept in memory only, until the store can be used");
                return;
            }
        };
        state.loaded = true;
        let mut stored = overrides::Overrides::default();
        let mut over = Vec::new();
        for (target, made) in records.iter().filter_map(understand) {
            if made.is_over(now) {
                over.push(target);
            } else if !state.unsaved.contains(&target) && stored.put(&target.name, made).is_err() {
                break;
            }
        }
        let before = std::mem::replace(&mut state.all, stored);
        for (target, made) in before.iter() {
            if state.unsaved.contains(target) {
                // Only what a store that holds the maximum leaves no room for is lost, and then it was in memory only.
                let _: Result<Target, Full> = state.all.put(&target.name, made);
            }
            if state.all.get(target).is_none() {
                live.apply(&target.change(None));
            }
        }
        // To be removed by the next write; that is no reason to write now.
        state.unsaved.extend(over);
        for (target, made) in state.all.iter() {
            live.apply(&target.change(Some(made.setting)));
            tracing::info!(id = %target, setting = made.setting.as_str(), used = live.has(target), "an override holds");
        }
        self.changed.notify_one();
    }

    /// Writes what is not written yet, `changed` among it.
    fn save(&self, state: &mut State, changed: impl IntoIterator<Item = Target>) {
        state.unsaved.extend(changed);
        // Before it is read, writing would take the place of what is there; once it is another's, that one writes.
        if !state.loaded || state.released {
            return;
        }
        let step = |target: &Target| match state.all.get(target) {
            Some(made) => store::Change::Put(target.to_string(), spell(&made)),
            None => store::Change::Remove(target.to_string()),
        };
        let steps: Vec<_> = state.unsaved.iter().map(step).collect();
        match self.store.write(Shelf::Overrides, &steps) {
            Ok(()) => state.unsaved.clear(),
            Err(error) => {
                tracing::warn!(%error, "overrides changed in memory only, until the store can be written");
            }
        }
    }
}

fn spell(made: &Override) -> Vec<u8> {
    let since_1970 = |at: SystemTime| milliseconds(at.duration_since(UNIX_EPOCH).unwrap_or_default());
    let until = made.until.map(since_1970);
    json!({ "setting": made.setting.as_str(), "since": since_1970(made.since), "until": until })
        .to_string()
        .into_bytes()
}

/// What a record says. One that a later version wrote and this one cannot read stays as it is.
fn understand((key, value): &Record) -> Option<(Target, Override)> {
    let read = || {
        let value: Value = serde_json::from_slice(value).ok()?;
        let at = |name: &str| value[name].as_u64().and_then(|at| UNIX_EPOCH.checked_add(Duration::from_millis(at)));
        let until = if value["until"].is_null() { None } else { Some(at("until")?) };
        let setting = Setting::parse(value["setting"].as_str()?)?;
        let target = Target::parse(key).filter(|target| target.kind == setting.kind())?;
        Some((target, Override { setting, since: at("since")?, until }))
    };
    let understood = read();
    if understood.is_none() {
        tracing::warn!(%key, "an override of the store is not understood and left as it is; a newer version may have made it");
    }
    understood
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// The longest time between two looks at the wall clock, while something is to end by it.
const LOOK_PAUSE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::circuit::Forced;
    use crate::store::{Embedded, StoreError};
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;
    use std::task::Poll;
    use tempfile::TempDir;

    /// Providers and pools of these names, and what they were told last.
    struct World {
        names: Vec<&'static str>,
        told: RefCell<BTreeMap<String, bool>>,
    }

    impl World {
        fn of(names: &[&'static str]) -> Self {
            World { names: names.to_vec(), told: RefCell::default() }
        }

        /// What lies over what is there.
        fn told(&self) -> Vec<String> {
            self.told.borrow().iter().filter(|(_, holds)| **holds).map(|(what, _)| what.clone()).collect()
        }
    }

    impl Steered for World {
        fn has(&self, target: &Target) -> bool {
            self.names.contains(&&*target.name)
        }

        fn apply(&self, change: &Change<'_>) {
            let (name, steps) = match *change {
                Change::Circuit(name, forced) => {
                    (name, vec![("opens", forced == Some(Forced::Open)), ("closes", forced == Some(Forced::Closed))])
                }
                Change::Drain(name, drained) => (name, vec![("drains", drained)]),
                Change::Pause(name, paused) => (name, vec![("pauses", paused)]),
                Change::Degrade(name, forced) => (name, vec![("degrades", forced.is_some())]),
            };
            if self.names.contains(&name) {
                let told = steps.into_iter().map(|(step, holds)| (format!("{name} {step}"), holds));
                self.told.borrow_mut().extend(told);
            }
        }
    }

    fn at(second: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(second)
    }

    fn overrides(folder: &Path) -> Overrides {
        Overrides::new(Arc::new(Embedded::new(folder)))
    }

    /// As a new process would find it.
    fn restarted(folder: &Path, world: &World, now: SystemTime) -> Overrides {
        let all = overrides(folder);
        all.load(world, now);
        all
    }

    #[test]
    fn an_override_is_done_written_and_found_again_after_a_restart() {
        let folder = TempDir::new().expect("a folder");
        let world = World::of(&["alpha", "main"]);
        let all = restarted(folder.path(), &world, at(0));
        let shown = all.put(&world, Setting::Open, "alpha", None, at(1)).expect("made");
        assert!(shown.durable && shown.used);
        all.put(&world, Setting::Paused, "main", Some(at(60)), at(2)).expect("made");
        assert_eq!(world.told(), ["alpha opens", "main pauses"]);
        let before = all.list(&world);
        drop(all);
        let world = World::of(&["alpha", "main"]);
        let all = restarted(folder.path(), &world, at(59));
        assert_eq!(world.told(), ["alpha opens", "main pauses"]);
        assert_eq!(all.list(&world), before);
        drop(all);
        let world = World::of(&["alpha", "main"]);
        let all = restarted(folder.path(), &world, at(60));
        assert_eq!(world.told(), ["alpha opens"], "the other one ended while nobody was there");
        assert_eq!(all.list(&world).len(), 1);
    }

    #[test]
    fn what_is_taken_back_or_over_is_undone_and_forgotten() {
        let folder = TempDir::new().expect("a folder");
        let world = World::of(&["alpha"]);
        let all = restarted(folder.path(), &world, at(0));
        all.put(&world, Setting::Closed, "alpha", None, at(0)).expect("made");
        all.put(&world, Setting::Drained, "alpha", Some(at(5)), at(0)).expect("made");
        let taken = all.clear(&world, &Setting::Closed.of("alpha"), at(1)).expect("taken back");
        assert!(taken.is_some_and(|shown| shown.durable));
        all.expire(&world, at(4));
        assert_eq!(world.told(), ["alpha drains"]);
        all.expire(&world, at(5));
        assert_eq!(world.told(), Vec::<String>::new());
        drop(all);
        assert_eq!(restarted(folder.path(), &world, at(0)).list(&world), []);
    }

    #[test]
    fn nothing_is_stored_until_there_is_something_to_store() {
        let folder = TempDir::new().expect("a folder");
        let data = folder.path().join("data");
        let world = World::of(&["alpha"]);
        let all = restarted(&data, &world, at(0));
        all.expire(&world, at(1));
        assert_eq!(all.clear(&world, &Setting::Open.of("alpha"), at(1)), Ok(None));
        assert_eq!(all.put(&world, Setting::Open, "beta", None, at(1)), Err(Refused::Unknown));
        assert_eq!(all.clear(&world, &Setting::Open.of("beta"), at(1)), Err(Refused::Unknown));
        assert_eq!(all.list(&world), []);
        all.release();
        all.resume(&world, at(1));
        assert!(!data.exists());
        all.put(&world, Setting::Open, "alpha", None, at(1)).expect("made");
        assert!(data.exists());
    }

    #[test]
    fn a_name_that_is_gone_keeps_its_override_until_it_is_back() {
        let folder = TempDir::new().expect("a folder");
        let (both, one) = (World::of(&["alpha", "beta"]), World::of(&["alpha"]));
        let all = restarted(folder.path(), &both, at(0));
        all.put(&both, Setting::Open, "beta", None, at(0)).expect("made");
        all.lay_over(&one);
        assert_eq!(one.told(), Vec::<String>::new());
        assert!(all.list(&one).iter().all(|shown| !shown.used && shown.durable));
        let again = World::of(&["alpha", "beta"]);
        all.lay_over(&again);
        assert_eq!(again.told(), ["beta opens"]);
        // One that is not there may be taken back as well.
        assert!(all.clear(&one, &Setting::Open.of("beta"), at(1)).is_ok_and(|taken| taken.is_some()));
    }

    #[test]
    fn a_store_that_another_process_has_keeps_nobody_from_steering() {
        let folder = TempDir::new().expect("a folder");
        let world = World::of(&["alpha", "beta"]);
        let first = restarted(folder.path(), &world, at(0));
        first.put(&world, Setting::Drained, "beta", None, at(0)).expect("made");
        let world = World::of(&["alpha", "beta"]);
        let second = restarted(folder.path(), &world, at(0));
        assert!(matches!(second.store().state, store::State::Fails(StoreError::Locked { .. })));
        let shown = second.put(&world, Setting::Open, "alpha", None, at(1)).expect("made");
        assert!(!shown.durable && !second.list(&world)[0].durable);
        assert_eq!(world.told(), ["alpha opens"]);
        drop(first);
        // The next write finds the file free: it takes over what is there, and writes what was not written.
        assert!(second.put(&world, Setting::Closed, "beta", None, at(2)).expect("made").durable);
        assert_eq!(world.told(), ["alpha opens", "beta closes", "beta drains"]);
        drop(second);
        assert!(restarted(folder.path(), &world, at(3)).list(&world).iter().all(|shown| shown.durable));
    }

    #[test]
    fn what_was_taken_back_while_the_disk_was_full_does_not_come_back() {
        let folder = TempDir::new().expect("a folder");
        let data = folder.path().join("data");
        let world = World::of(&["alpha", "beta"]);
        fs::write(&data, "in the way").expect("written");
        let all = overrides(&data);
        all.load(&world, at(0));
        assert!(!all.put(&world, Setting::Open, "alpha", None, at(0)).expect("made").durable);
        assert!(!all.put(&world, Setting::Open, "beta", None, at(0)).expect("made").durable);
        all.clear(&world, &Setting::Open.of("alpha"), at(1)).expect("taken back").expect("it was there");
        fs::remove_file(&data).expect("removed");
        assert!(all.put(&world, Setting::Drained, "beta", None, at(1)).expect("made").durable);
        assert_eq!(world.told(), ["beta drains", "beta opens"]);
        drop(all);
        let world = World::of(&["alpha", "beta"]);
        restarted(&data, &world, at(2));
        assert_eq!(world.told(), ["beta drains", "beta opens"]);
    }

    #[test]
    fn what_is_left_to_another_process_is_as_that_left_it() {
        let folder = TempDir::new().expect("a folder");
        let world = World::of(&["alpha", "main"]);
        let old = restarted(folder.path(), &world, at(0));
        old.put(&world, Setting::Open, "alpha", None, at(0)).expect("made");
        old.release();
        assert_eq!(old.put(&world, Setting::Drained, "alpha", None, at(1)), Err(Refused::Released));
        assert_eq!(old.clear(&world, &Setting::Open.of("alpha"), at(1)), Err(Refused::Released));
        assert_eq!(world.told(), ["alpha opens"], "it goes on working");
        let elsewhere = World::of(&["alpha", "main"]);
        let new = restarted(folder.path(), &elsewhere, at(1));
        assert_eq!(elsewhere.told(), ["alpha opens"]);
        new.clear(&elsewhere, &Setting::Open.of("alpha"), at(2)).expect("taken back");
        new.put(&elsewhere, Setting::Paused, "main", None, at(2)).expect("made");
        drop(new);
        old.resume(&world, at(3));
        assert_eq!(world.told(), ["main pauses"]);
        assert!(old.put(&world, Setting::Drained, "alpha", None, at(4)).expect("made").durable);
    }

    #[test]
    fn records_of_a_later_version_are_left_alone() {
        let folder = TempDir::new().expect("a folder");
        let world = World::of(&["alpha"]);
        let store = Arc::new(Embedded::new(folder.path()));
        let strange = [
            ("flag/new_search", r#"{"setting":"on","since":1,"until":null}"#),
            ("circuit/alpha", r#"{"setting":"half","since":1,"until":null}"#),
            ("circuit/beta", r#"{"setting":"paused","since":1,"until":null}"#),
            ("queue/main", r#"{"setting":"paused","since":1,"until":"noon"}"#),
            ("queue", "not even JSON"),
        ];
        let put = |(key, value): (&str, &str)| store::Change::Put(key.to_owned(), value.as_bytes().to_owned());
        store.write(Shelf::Overrides, &strange.map(put)).expect("written");
        let all = Overrides::new(store.clone());
        all.load(&world, at(0));
        assert_eq!((all.list(&world), world.told()), (vec![], vec![]));
        all.put(&world, Setting::Drained, "alpha", None, at(1)).expect("made");
        assert_eq!(store.records(Shelf::Overrides).expect("read").len(), strange.len() + 1);
    }

    #[tokio::test]
    async fn the_next_end_is_waited_for_also_if_it_is_made_meanwhile() {
        let folder = TempDir::new().expect("a folder");
        let world = World::of(&["alpha"]);
        let all = overrides(folder.path());
        let wall = || at(3);
        let mut ends = std::pin::pin!(all.next_end(wall));
        assert!(std::future::poll_fn(|cx| Poll::Ready(ends.as_mut().poll(cx).is_pending())).await, "nothing can end");
        all.put(&world, Setting::Open, "alpha", Some(at(3)), at(0)).expect("made");
        tokio::time::timeout(Duration::from_secs(10), ends).await.expect("it is over already");
        all.expire(&world, wall());
        assert_eq!(all.list(&world), []);
    }
}
