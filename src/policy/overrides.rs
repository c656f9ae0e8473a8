//! What operators changed at runtime, and until when.
//!
//! An override lies over what the gateway would do by itself: a circuit is forced, a provider drained, a queue paused, a route
//! degraded. There is at most one for each [`Target`]; a later one takes its place. It never ends by being forgotten: only by
//! its time, by somebody who takes it back, or by another. Times are those of the wall clock, since an override outlives the
//! process.

use super::circuit::Forced;
use super::{degrade, ladder};
use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

/// What an override lies over.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// Which side of it.
    pub kind: Kind,
    /// What the configuration calls it.
    pub name: String,
}

/// Kinds of targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The circuit of a provider.
    Circuit,
    /// A provider.
    Provider,
    /// The queue of a pool.
    Queue,
    /// The ladder of a route.
    Degradation,
}

/// What an override does; each is for one kind of target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Setting {
    /// The circuit lets nothing through.
    Open,
    /// The circuit lets everything through.
    Closed,
    /// The provider gets no new attempts.
    Drained,
    /// The queue takes requests and hands out no lease.
    Paused,
    /// Requests of the route begin on a rung of this kind; `None` is its first one.
    Degraded(Option<ladder::Kind>),
}

/// One override.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Override {
    /// What it does.
    pub setting: Setting,
    /// When it was made.
    pub since: SystemTime,
    /// When it ends by itself, if it does.
    pub until: Option<SystemTime>,
}

/// What whatever is alive has to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<'a> {
    /// The circuit of this provider is forced, or left to itself.
    Circuit(&'a str, Option<Forced>),
    /// This provider is drained, or not.
    Drain(&'a str, bool),
    /// The queue of this pool is paused, or not.
    Pause(&'a str, bool),
    /// This route begins on a rung, or is left to itself.
    Degrade(&'a str, Option<degrade::Forced>),
}

/// Every override, by its target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides(BTreeMap<Target, Override>);

/// There are [`OVERRIDES_MAX`] already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

// === impl Target ===

impl Target {
    /// What the live state is told where `setting` lies over this target; `None` leaves it to itself.
    #[must_use]
    pub fn change(&self, setting: Option<Setting>) -> Change<'_> {
        match self.kind {
            Kind::Circuit => Change::Circuit(
                &self.name,
                match setting {
                    Some(Setting::Open) => Some(Forced::Open),
                    Some(Setting::Closed) => Some(Forced::Closed),
                    _ => None,
                },
            ),
            Kind::Provider => Change::Drain(&self.name, setting == Some(Setting::Drained)),
            Kind::Queue => Change::Pause(&self.name, setting == Some(Setting::Paused)),
            Kind::Degradation => Change::Degrade(
                &self.name,
                match setting {
                    Some(Setting::Degraded(None)) => Some(degrade::Forced::First),
                    Some(Setting::Degraded(Some(kind))) => Some(degrade::Forced::On(kind)),
                    _ => None,
                },
            ),
        }
    }

    /// Reads what [`Target`] displays.
    #[must_use]
    pub fn parse(text: &str) -> Option<Target> {
        let (kind, name) = text.split_once('/')?;
        let kind = Kind::parse(kind)?;
        (!name.is_empty()).then(|| Target { kind, name: name.to_owned() })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.as_str(), self.name)
    }
}

// === impl Kind ===

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 4] = [Kind::Circuit, Kind::Provider, Kind::Queue, Kind::Degradation];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Circuit => "circuit",
            Kind::Provider => "provider",
            Kind::Queue => "queue",
            Kind::Degradation => "degradation",
        }
    }

    /// Reads the word for it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

// === impl Setting ===

impl Setting {
    /// All of them.
    pub const ALL: [Setting; 9] = [
        Setting::Open,
        Setting::Closed,
        Setting::Drained,
        Setting::Paused,
        Setting::Degraded(None),
        Setting::Degraded(Some(ladder::Kind::Pool)),
        Setting::Degraded(Some(ladder::Kind::Reduced)),
        Setting::Degraded(Some(ladder::Kind::Stale)),
        Setting::Degraded(Some(ladder::Kind::Static)),
    ];

    /// What it is for.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            Setting::Open | Setting::Closed => Kind::Circuit,
            Setting::Drained => Kind::Provider,
            Setting::Paused => Kind::Queue,
            Setting::Degraded(_) => Kind::Degradation,
        }
    }

    /// What it lies over, by name.
    #[must_use]
    pub fn of(self, name: &str) -> Target {
        Target { kind: self.kind(), name: name.to_owned() }
    }

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Setting::Open => "open",
            Setting::Closed => "closed",
            Setting::Drained => "drained",
            Setting::Paused => "paused",
            Setting::Degraded(None) => "degraded",
            Setting::Degraded(Some(ladder::Kind::Pool)) => "degraded_pool",
            Setting::Degraded(Some(ladder::Kind::Reduced)) => "degraded_reduced",
            Setting::Degraded(Some(ladder::Kind::Stale)) => "degraded_stale",
            Setting::Degraded(Some(ladder::Kind::Static)) => "degraded_static",
        }
    }

    /// Reads the word for it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Setting> {
        Setting::ALL.into_iter().find(|setting| setting.as_str() == text)
    }
}

// === impl Override ===

impl Override {
    /// Whether it is over.
    #[must_use]
    pub fn is_over(&self, now: SystemTime) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

// === impl Overrides ===

impl Overrides {
    /// Lays `with` over the setting's target, in the place of what was there.
    ///
    /// # Errors
    /// [`Full`]; nothing has changed then.
    pub fn put(&mut self, name: &str, with: Override) -> Result<Target, Full> {
        let target = with.setting.of(name);
        if self.0.len() >= OVERRIDES_MAX && !self.0.contains_key(&target) {
            return Err(Full);
        }
        self.0.insert(target.clone(), with);
        Ok(target)
    }

    /// Takes an override back.
    pub fn clear(&mut self, target: &Target) -> Option<Override> {
        self.0.remove(target)
    }

    /// Takes back all that are over.
    pub fn expire(&mut self, now: SystemTime) -> Vec<Target> {
        self.0.extract_if(.., |_, one| one.is_over(now)).map(|(target, _)| target).collect()
    }

    /// When the next of them ends by itself.
    #[must_use]
    pub fn next_end(&self) -> Option<SystemTime> {
        self.0.values().filter_map(|one| one.until).min()
    }

    /// The override of this target.
    #[must_use]
    pub fn get(&self, target: &Target) -> Option<Override> {
        self.0.get(target).copied()
    }

    /// All of them, in the order of their targets.
    pub fn iter(&self) -> impl Iterator<Item = (&Target, Override)> {
        self.0.iter().map(|(target, one)| (target, *one))
    }
}

/// Overrides at once: far more than anybody sets by hand, so that what is kept stays small whatever a script does. A
/// further one is refused.
pub const OVERRIDES_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn at(second: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(second)
    }

    fn one(setting: Setting, until: Option<u64>) -> Override {
        Override { setting, since: at(0), until: until.map(at) }
    }

    #[test]
    fn a_later_override_takes_the_place_of_the_one_before() {
        let mut all = Overrides::default();
        let target = all.put("alpha", one(Setting::Open, Some(5))).expect("there is room");
        assert_eq!(all.put("alpha", one(Setting::Closed, None)), Ok(target.clone()));
        all.put("alpha", one(Setting::Drained, None)).expect("another side of it");
        assert_eq!(all.get(&target), Some(one(Setting::Closed, None)));
        assert_eq!(all.iter().count(), 2);
        assert_eq!(all.next_end(), None, "the time of the one before is gone with it");
    }

    #[test]
    fn an_override_ends_at_its_time_and_not_before() {
        let mut all = Overrides::default();
        let paused = all.put("main", one(Setting::Paused, Some(10))).expect("there is room");
        let open = all.put("alpha", one(Setting::Open, Some(5))).expect("there is room");
        all.put("beta", one(Setting::Open, None)).expect("there is room");
        assert_eq!((all.next_end(), all.expire(at(4))), (Some(at(5)), vec![]));
        assert_eq!(all.expire(at(5)), [open]);
        assert_eq!((all.next_end(), all.expire(at(100))), (Some(at(10)), vec![paused]));
        assert_eq!((all.next_end(), all.iter().count()), (None, 1));
    }

    #[test]
    fn what_is_alive_is_told_what_lies_over_it() {
        let circuit = Setting::Open.of("alpha");
        assert_eq!(circuit.change(Some(Setting::Open)), Change::Circuit("alpha", Some(Forced::Open)));
        assert_eq!(circuit.change(Some(Setting::Closed)), Change::Circuit("alpha", Some(Forced::Closed)));
        assert_eq!(circuit.change(None), Change::Circuit("alpha", None));
        assert_eq!(Setting::Drained.of("alpha").change(Some(Setting::Drained)), Change::Drain("alpha", true));
        assert_eq!(Setting::Drained.of("alpha").change(None), Change::Drain("alpha", false));
        assert_eq!(Setting::Paused.of("main").change(Some(Setting::Paused)), Change::Pause("main", true));
        assert_eq!(Setting::Paused.of("main").change(None), Change::Pause("main", false));
        let (first, on_static) = (Setting::Degraded(None), Setting::Degraded(Some(ladder::Kind::Static)));
        let degrade = |setting| Change::Degrade("api", setting);
        assert_eq!(first.of("api").change(Some(first)), degrade(Some(degrade::Forced::First)));
        let forced = degrade::Forced::On(ladder::Kind::Static);
        assert_eq!(first.of("api").change(Some(on_static)), degrade(Some(forced)));
        assert_eq!(first.of("api").change(None), degrade(None));
    }

    #[test]
    fn one_too_many_is_refused_and_changes_nothing() {
        let mut all = Overrides::default();
        for n in 0..OVERRIDES_MAX {
            all.put(&n.to_string(), one(Setting::Open, None)).expect("there is room");
        }
        let before = all.clone();
        assert_eq!(all.put("more", one(Setting::Open, None)), Err(Full));
        assert_eq!(all, before);
        all.put("7", one(Setting::Closed, None)).expect("it takes a place that is taken");
    }

    #[test]
    fn words_are_read_as_they_are_written() {
        for setting in Setting::ALL {
            assert_eq!(Setting::parse(setting.as_str()), Some(setting));
            let target = setting.of("alpha");
            assert_eq!(Target::parse(&target.to_string()), Some(target));
        }
        assert_eq!(
            Target::parse("circuit/alpha@[::1]:80").map(|target| target.name),
            Some("alpha@[::1]:80".to_owned())
        );
        for text in ["", "circuit", "circuit/", "circle/alpha"] {
            assert_eq!(Target::parse(text), None, "{text}");
        }
    }

    proptest! {
        /// Against a list that is searched from its end.
        #[test]
        fn what_holds_is_what_was_said_last_and_is_not_over(
            steps in prop::collection::vec((0..Setting::ALL.len(), 0..3_u64, prop::option::of(0..40_u64), any::<bool>()), 0..40),
        ) {
            let mut all = Overrides::default();
            let mut said: Vec<(Target, Option<Override>)> = Vec::new();
            for (now, (setting, name, until, clears)) in (0..).zip(steps) {
                let (setting, name) = (Setting::ALL[setting], name.to_string());
                all.expire(at(now));
                if clears {
                    all.clear(&setting.of(&name));
                    said.push((setting.of(&name), None));
                } else {
                    let made = one(setting, until);
                    all.put(&name, made).expect("there is room");
                    said.push((setting.of(&name), Some(made)));
                }
                all.expire(at(now));
                for (target, _) in &said {
                    let last = said.iter().rev().find(|(other, _)| other == target).and_then(|(_, made)| *made);
                    prop_assert_eq!(all.get(target), last.filter(|made| !made.is_over(at(now))));
                }
            }
        }
    }
}
