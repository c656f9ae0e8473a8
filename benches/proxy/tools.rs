//! The programs the benchmark needs, installed from Debian where they are missing, and the machine it runs on.

use crate::Outcome;
use crate::contenders::Contender;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where `name` is installed.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    // Servers live in sbin, which is often not in a person's PATH.
    let folders = path.split(':').chain(["/usr/sbin", "/sbin", "/usr/local/sbin"]);
    folders.map(|folder| Path::new(folder).join(name)).find(|file| file.is_file())
}

/// Where `name` is installed, or what to do about it.
pub(crate) fn need(name: &str) -> Outcome<PathBuf> {
    Ok(find(name).ok_or_else(|| format!("{name} is missing; install it: apt-get install {name}"))?)
}

/// Installs those of `packages` (each named like its program, or as [`program`] says) that are missing, if this process
/// may.
pub(crate) fn install_missing(packages: &[&str]) -> Outcome<()> {
    let missing: Vec<&str> = packages.iter().copied().filter(|name| find(program(name)).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !rustix::process::getuid().is_root() || find("apt-get").is_none() {
        let advice = format!("run as root: apt-get update && apt-get install -y --no-install-recommends {list}");
        return Err(format!("these programs are missing: {list}\n{advice}").into());
    }
    eprintln!("installing from Debian: {list}");
    let _quiet = QuietServices::hold()?;
    apt_get(&["update"])?;
    apt_get(&[&["install", "-y", "--no-install-recommends"], missing.as_slice()].concat())?;
    let servers: Vec<&str> =
        missing.iter().copied().filter(|name| ["nginx", "haproxy", "varnish", "caddy"].contains(name)).collect();
    if !servers.is_empty() && Path::new("/run/systemd/system").exists() {
        // Installed for this benchmark only: not to be started at the next boot either.
        Command::new("systemctl").arg("disable").args(servers).stderr(Stdio::null()).status()?;
    }
    Ok(())
}

/// What a package's program is called.
fn program(package: &str) -> &str {
    if package == "varnish" { "varnishd" } else { package }
}

fn apt_get(args: &[&str]) -> Outcome<()> {
    let output = Command::new("apt-get").args(args).env("DEBIAN_FRONTEND", "noninteractive").output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("apt-get {} failed: {}", args.join(" "), String::from_utf8_lossy(&output.stderr)).into())
}

/// While it lives, packages do not start their services: Debian asks this script before it starts one.
struct QuietServices {
    ours: bool,
}

// === impl QuietServices ===

impl QuietServices {
    fn hold() -> Outcome<QuietServices> {
        let ours = !Path::new(POLICY).exists();
        if ours {
            fs::write(POLICY, "#!/bin/sh\nexit 101\n")?;
            fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))?;
        }
        Ok(QuietServices { ours })
    }
}

impl Drop for QuietServices {
    fn drop(&mut self) {
        if self.ours {
            // Left behind it would keep every later package from starting its service, so say so.
            if let Err(error) = fs::remove_file(POLICY) {
                eprintln!("cannot remove {POLICY}: {error}; remove it by hand");
            }
        }
    }
}

// === the machine ===

/// Raises the limit of open files for this process and its children as far as it may be; what it is then.
pub(crate) fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: Some(OPEN_FILES), maximum: Some(OPEN_FILES) };
    let within = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Root may raise the maximum; others may only use it up. If neither works, the result says so.
    if setrlimit(Resource::Nofile, raised).is_err() {
        let _ = setrlimit(Resource::Nofile, within);
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// What a reader of the figures has to know about where they come from.
pub(crate) fn facts(contenders: &[Contender]) -> Vec<(&'static str, String)> {
    let first = |file: &str| fs::read_to_string(file).unwrap_or_default().lines().next().unwrap_or("").to_owned();
    let cpu_info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu_info.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let versions: Vec<String> = contenders.iter().map(|one| format!("{} {}", one.kind.name(), one.version)).collect();
    vec![
        ("date", jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string()),
        ("machine", format!("{} × {cores}", model.unwrap_or("unknown processor"))),
        ("system", format!("{}, Linux {}", debian(), first("/proc/sys/kernel/osrelease"))),
        ("contenders", versions.join(", ")),
        ("load before", first("/proc/loadavg").split(' ').next().unwrap_or("?").to_owned()),
    ]
}

fn debian() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("unknown system").trim_matches('"').to_owned()
}

/// Asked by Debian's packages before they start a service.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Ten thousand idle connections need this much at both ends.
const OPEN_FILES: u64 = 40_000;
