//! `sluice check`.
use crate::config::{self, Environment};
use std::io::Write;
use std::path::Path;
/// Checks.
pub fn check(path: &Path, env: &dyn Environment, out: &mut dyn Write, _colour: bool) -> i32 {
    match config::load(path, env) {
        Ok(_) => 0,
        Err(p) => {
            let _ = writeln!(out, "{p}");
            1
        }
    }
}
