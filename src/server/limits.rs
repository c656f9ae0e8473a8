//! What the machine, or the container around us, lets this process have: cores, memory, open files.
//!
//! Containers are told apart from machines by control groups. Reading the machine's figures inside a container is the
//! classic mistake: sixteen workers on half a core, caches sized for memory that the kernel will kill us for touching.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// How much memory this process may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Bytes; `None` if nothing tells.
    pub limit: Option<u64>,
    /// What set the limit.
    pub source: MemorySource,
}

/// What sets a limit of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemorySource {
    /// `memory.max` of a control group.
    CgroupV2,
    /// `memory.limit_in_bytes` of a control group.
    CgroupV1,
    /// The machine has no more.
    Machine,
    /// Nothing could be read.
    Unknown,
}

/// The limit on open files, after it was raised. `u64::MAX` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFiles {
    /// What holds now.
    pub soft: u64,
    /// What only root could raise.
    pub hard: u64,
    /// What held before.
    pub was: u64,
}

/// Cores this process may use, at least 1.
///
/// The standard library looks at the affinity mask (and so at cpusets) and at the CPU quota of control groups, version 1
/// and 2, up the hierarchy. It rounds a quota down and never below 1: two and a half cores are two workers, half a core is
/// one. More workers than whole cores would only preempt each other.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The memory this process may use: the tightest limit of its control groups, or what the machine has.
pub fn memory() -> Memory {
    memory_of(Path::new("/"))
}

/// Raises the limit on open files as far as it goes without privileges: every connection is a file, and the usual soft
/// limit of 1024 exists only for programs that still use `select`.
///
/// # Errors
/// When the kernel refuses.
pub fn raise_open_files() -> io::Result<OpenFiles> {
    let before = getrlimit(Resource::Nofile);
    if before.current != before.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: before.maximum, maximum: before.maximum })?;
    }
    let after = getrlimit(Resource::Nofile);
    let count = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
    Ok(OpenFiles { soft: count(after.current), hard: count(after.maximum), was: count(before.current) })
}

/// [`memory`], with the machine's files below `root`.
fn memory_of(root: &Path) -> Memory {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let v2 = group(&groups, "").and_then(|path| tightest(&root.join("sys/fs/cgroup"), &path, "memory.max"));
    let v1 = group(&groups, "memory")
        .and_then(|path| tightest(&root.join("sys/fs/cgroup/memory"), &path, "memory.limit_in_bytes"));
    let machine = machine_memory(root);
    // A group's "no limit" is a number beyond any machine in version 1, so the smallest of them all is the truth.
    [(machine, MemorySource::Machine), (v2, MemorySource::CgroupV2), (v1, MemorySource::CgroupV1)]
        .into_iter()
        .filter_map(|(limit, source)| Some((limit?, source)))
        .min_by_key(|(limit, _)| *limit)
        .map_or(Memory { limit: None, source: MemorySource::Unknown }, |(limit, source)| Memory {
            limit: Some(limit),
            source,
        })
}

/// Our group in the hierarchy of `controller`, from the lines `ID:CONTROLLERS:PATH` of `/proc/self/cgroup`. Version 2 is
/// the line without controllers.
fn group(groups: &str, controller: &str) -> Option<PathBuf> {
    groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        controllers.split(',').any(|name| name == controller).then(|| PathBuf::from(path))
    })
}

/// The smallest limit written in `file` from our group up to the root of the hierarchy.
///
/// In a container the path is often the host's, while the mount begins at the container's own group; then the deeper
/// folders do not exist here, and the limit stands in the mount's root.
fn tightest(mount: &Path, group: &Path, file: &str) -> Option<u64> {
    let inside: PathBuf = group.components().filter(|part| matches!(part, Component::Normal(_))).collect();
    inside
        .ancestors()
        .filter_map(|level| fs::read_to_string(mount.join(level).join(file)).ok()?.trim().parse().ok())
        .min()
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn machine_memory(root: &Path) -> Option<u64> {
    let meminfo = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}
