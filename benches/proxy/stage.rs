//! What all contenders are given: the upstream, folders, certificates, cores.

use crate::Outcome;
use crate::certificates;
use crate::contenders::{Settings, Setup};
use crate::process::{self, Cores};
use crate::rounds::Driver;
use crate::upstream::Upstream;
use crate::workloads::Face;
use std::path::Path;

/// What all contenders are given. The upstream ends before its folder goes.
pub(crate) struct Stage {
    upstream: Upstream,
    scratch: tempfile::TempDir,
    memory: tempfile::TempDir,
    pub(crate) cores: Cores,
    settings: Settings,
}

// === impl Stage ===

impl Stage {
    /// Starts the upstream and makes the certificates.
    pub(crate) fn set(settings: Settings) -> Outcome<Stage> {
        let scratch = tempfile::Builder::new().prefix("sluice-bench-").tempdir()?;
        process::clean_up_on_signals(scratch.path())?;
        let in_memory = if Path::new(MEMORY).is_dir() { Path::new(MEMORY) } else { scratch.path() };
        let memory = tempfile::Builder::new().prefix("sluice-bench-").tempdir_in(in_memory)?;
        process::remove_on_signals(memory.path());
        let cores = Cores::pick()?;
        certificates::write(scratch.path())?;
        let upstream = Upstream::start(scratch.path(), cores.driver)?;
        Ok(Stage { upstream, scratch, memory, cores, settings })
    }

    /// What makes the load.
    pub(crate) fn driver(&self) -> Driver<'_> {
        Driver::new(self.scratch.path(), self.upstream.address, self.cores)
    }

    /// What a contender is started for, unless somebody wants it otherwise.
    pub(crate) fn setup(&self, face: Face) -> Setup<'_> {
        Setup {
            face,
            scratch: self.scratch.path(),
            memory: self.memory.path(),
            upstream: self.upstream.address,
            cores: self.cores.contender.to_string(),
            workers: 1,
            settings: self.settings,
            connections: CONNECTIONS,
            under: Vec::new(),
        }
    }
}

/// Where Linux keeps files in memory.
const MEMORY: &str = "/dev/shm";

/// More connections than any workload opens, on both sides of a contender.
pub(crate) const CONNECTIONS: usize = 1024;
