//! What the admin listener may know and do: plain values, so that its views never see live types.

use crate::config;
use crate::observe::Metrics;
use crate::overrides::{self, Shown};
use crate::policy::overrides::{Setting, Target};
use serde_json::Value;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The gateway, as operators reach it.
pub trait Control: Send + Sync + 'static {
    /// The tokens and host names of the moment; asked for each request, so that a reload changes them at once.
    fn admin(&self) -> Arc<config::Admin>;

    /// The gateway's metrics.
    fn metrics(&self) -> Arc<Metrics>;

    /// Whether it takes requests.
    fn readiness(&self) -> Readiness;

    /// Every provider, in the order of the file.
    fn providers(&self) -> Vec<ProviderView> {
        Vec::new()
    }

    /// What Sluice itself depends on.
    fn dependencies(&self) -> Vec<Dependency>;

    /// What operators changed at runtime.
    fn overrides(&self) -> Vec<Shown>;

    /// Makes an override, for `ttl` if that is said. It is on disk when this returns, or shown as not durable.
    ///
    /// # Errors
    /// Nothing has changed then.
    fn override_by(&self, setting: Setting, name: &str, ttl: Option<Duration>) -> Result<Shown, overrides::Refused>;

    /// Takes an override back and returns it; `None` where there is none.
    ///
    /// # Errors
    /// Nothing has changed then.
    fn take_back(&self, target: &Target) -> Result<Option<Shown>, overrides::Refused>;

    /// What is applied, and what the file says.
    fn config(&self) -> ConfigStatus;

    /// Reads the file and applies it. It runs to its end also if the caller goes away.
    fn reload(&self) -> Reloading;

    /// Checks `yaml` as a reload would, without reading a file or the environment for its caller. Returns notes.
    ///
    /// # Errors
    /// All problems of the text.
    fn check(&self, yaml: &[u8]) -> Result<Vec<Value>, Rejected>;
}

/// A reload under way.
pub type Reloading = Pin<Box<dyn Future<Output = Result<Reloaded, Rejected>> + Send>>;

/// Whether requests are taken, and why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// Configured, listening, not draining.
    pub ready: bool,
    /// On its way out.
    pub draining: bool,
    /// The parts of the answer.
    pub checks: Vec<Check>,
}

/// One part of readiness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// Whether it is well.
    pub ok: bool,
    /// What was found, for people.
    pub detail: String,
}

/// One provider, for people and scripts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderView {
    /// Its name.
    pub name: String,
    /// Its URL, which holds no secret.
    pub url: String,
    /// Attempts under way.
    pub in_flight: u64,
}

/// Something that Sluice depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// What it is.
    pub name: &'static str,
    /// `ok`, `unused` or `failing`.
    pub state: &'static str,
    /// What was found, for people.
    pub detail: String,
    /// How long its latest answer took.
    pub latency: Option<Duration>,
}

/// The configuration in force and the one in the file.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigStatus {
    /// In force.
    pub applied: Version,
    /// In the file.
    pub on_disk: OnDisk,
    /// From the applied one to the file's; empty where they agree or the file is wrong.
    pub diff: Vec<Value>,
}

/// A configuration in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    /// Of the file's bytes.
    pub hash: String,
    /// When it was applied.
    pub at: SystemTime,
    /// Every setting with its value, secrets redacted.
    pub effective: Value,
}

/// What the file says.
#[derive(Debug, Clone, PartialEq)]
pub struct OnDisk {
    /// Of its bytes, if it could be read.
    pub hash: Option<String>,
    /// When it was last looked at.
    pub seen_at: SystemTime,
    /// Why it cannot be applied, if it cannot.
    pub error: Option<Value>,
}

/// A reload that was applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Reloaded {
    /// Of the file's bytes.
    pub hash: String,
    /// What changed; empty where the file is as before.
    pub changes: Vec<Value>,
    /// What is worth knowing and no problem.
    pub notes: Vec<Value>,
}

/// A configuration that cannot be applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Rejected {
    /// All problems as text, with the source lines.
    pub rendered: String,
    /// The same, one value each.
    pub problems: Vec<Value>,
}
