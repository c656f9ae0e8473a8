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

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    const MIB: u64 = 1024 * 1024;

    /// A machine of 8 GiB whose files are `files`, paths from the root.
    fn machine(files: &[(&str, &str)]) -> TempDir {
        let root = tempfile::tempdir().expect("a temporary folder");
        let meminfo = ("proc/meminfo", "MemTotal:        8388608 kB\nMemFree:          123456 kB\n");
        for (path, text) in files.iter().chain([&meminfo]) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("files lie in folders")).expect("a folder");
            fs::write(path, text).expect("a file");
        }
        root
    }

    fn limit(files: &[(&str, &str)]) -> (Option<u64>, MemorySource) {
        let root = machine(files);
        let Memory { limit, source } = memory_of(root.path());
        (limit, source)
    }

    #[test]
    fn without_control_groups_the_machine_is_the_limit() {
        assert_eq!(limit(&[]), (Some(8192 * MIB), MemorySource::Machine));
    }

    #[test]
    fn where_nothing_can_be_read_no_limit_is_claimed() {
        let empty = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(memory_of(empty.path()), Memory { limit: None, source: MemorySource::Unknown });
    }

    #[test]
    fn the_groups_own_limit_counts_in_version_2() {
        let files = [("proc/self/cgroup", "0::/app\n"), ("sys/fs/cgroup/app/memory.max", "268435456\n")];
        assert_eq!(limit(&files), (Some(256 * MIB), MemorySource::CgroupV2));
    }

    #[test]
    fn the_tightest_limit_up_the_hierarchy_counts() {
        let files = [
            ("proc/self/cgroup", "0::/kube/pod/app\n"),
            ("sys/fs/cgroup/kube/pod/app/memory.max", "max\n"),
            ("sys/fs/cgroup/kube/pod/memory.max", "134217728\n"),
            ("sys/fs/cgroup/kube/memory.max", "1073741824\n"),
        ];
        assert_eq!(limit(&files), (Some(128 * MIB), MemorySource::CgroupV2));
    }

    #[test]
    fn a_container_whose_path_is_the_hosts_finds_its_limit_at_the_root_of_the_mount() {
        let files =
            [("proc/self/cgroup", "0::/system.slice/docker-4f1.scope\n"), ("sys/fs/cgroup/memory.max", "67108864")];
        assert_eq!(limit(&files), (Some(64 * MIB), MemorySource::CgroupV2));
    }

    #[test]
    fn a_path_that_climbs_out_of_its_namespace_stays_inside_the_mount() {
        let files = [
            ("proc/self/cgroup", "0::/../../elsewhere\n"),
            ("sys/fs/cgroup/memory.max", "67108864"),
            ("elsewhere/memory.max", "1"),
            ("sys/elsewhere/memory.max", "1"),
        ];
        assert_eq!(limit(&files), (Some(64 * MIB), MemorySource::CgroupV2));
    }

    #[test]
    fn version_1_is_read_from_the_memory_controllers_own_hierarchy() {
        let files = [
            ("proc/self/cgroup", "12:cpu,cpuacct:/other\n7:memory:/docker/4f1\n1:name=systemd:/docker/4f1\n"),
            ("sys/fs/cgroup/memory/docker/4f1/memory.limit_in_bytes", "536870912\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ];
        assert_eq!(limit(&files), (Some(512 * MIB), MemorySource::CgroupV1));
    }

    #[test]
    fn a_limit_beyond_the_machine_is_none() {
        let unlimited_v1 = [
            ("proc/self/cgroup", "7:memory:/\n0::/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ];
        assert_eq!(limit(&unlimited_v1), (Some(8192 * MIB), MemorySource::Machine));
        let unlimited_v2 = [("proc/self/cgroup", "0::/a\n"), ("sys/fs/cgroup/a/memory.max", "max\n")];
        assert_eq!(limit(&unlimited_v2), (Some(8192 * MIB), MemorySource::Machine));
    }

    #[test]
    fn a_group_may_have_a_colon_in_its_name() {
        let files = [("proc/self/cgroup", "0::/a:b\n"), ("sys/fs/cgroup/a:b/memory.max", "67108864")];
        assert_eq!(limit(&files), (Some(64 * MIB), MemorySource::CgroupV2));
    }

    #[test]
    fn files_that_hold_something_else_are_passed_over() {
        let files = [
            ("proc/self/cgroup", "\n::\nnonsense\n0::/a\n"),
            ("sys/fs/cgroup/a/memory.max", "a lot"),
            ("sys/fs/cgroup/memory.max", "67108864"),
        ];
        assert_eq!(limit(&files), (Some(64 * MIB), MemorySource::CgroupV2));
    }

    #[test]
    fn this_machine_has_memory_and_a_core() {
        assert!(memory().limit.is_some_and(|limit| limit > MIB));
        assert!(cores() >= 1);
    }

    /// Only the last place of the limit is taken away, so that tests running beside this one never miss it.
    #[test]
    fn the_limit_on_open_files_is_raised_to_the_hard_one_and_both_are_told() {
        let before = getrlimit(Resource::Nofile);
        let hard = before.maximum.expect("the kernel bounds open files");
        setrlimit(Resource::Nofile, Rlimit { current: Some(hard - 1), ..before }).expect("lowering is allowed");
        let raised = raise_open_files().expect("raising to the hard limit is allowed");
        assert_eq!(raised, OpenFiles { soft: hard, hard, was: hard - 1 });
        assert_eq!(getrlimit(Resource::Nofile).current, Some(hard));
        assert_eq!(raise_open_files().expect("nothing to do"), OpenFiles { soft: hard, hard, was: hard });
    }
}
