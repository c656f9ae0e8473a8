//! `sluice healthcheck`: for Docker and other supervisors that run a command.

/// Asks the gateway whose admin listener is at `admin` (`http://127.0.0.1:9900`) whether it lives and is ready.
/// Returns the exit code: 0, or 1 with a message on standard error.
#[must_use]
pub fn healthcheck(admin: &str) -> i32 {
    let _ = admin;
    1
}
