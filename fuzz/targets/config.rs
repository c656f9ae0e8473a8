//! `gateway.yaml`: any bytes are a configuration or a list of problems, soon. Nothing panics, no secret shows.
//!
//! Input: the file. It is read once for a caller who may learn nothing, and once with variables that are known.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice::config::{self, Environment, Loaded, Problems, UnknownEnvironment};
use sluice::proxy::route::Routes;
use std::io;
use std::path::Path;

/// Knows every variable; each is the same secret. Has no files.
struct Secretive;

impl Environment for Secretive {
    fn var(&self, _name: &str) -> Option<String> {
        Some(CANARY.to_owned())
    }

    fn read_file(&self, _path: &Path) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

fuzz_target!(|input: &[u8]| {
    judge(input, config::parse("gateway.yaml", input, &UnknownEnvironment));
    judge(input, config::parse("gateway.yaml", input, &Secretive));
});

fn judge(input: &[u8], parsed: Result<Loaded, Problems>) {
    let shown = match &parsed {
        Err(problems) => {
            assert!(!problems.problems.is_empty(), "refused without a reason");
            problems.to_string()
        }
        Ok(loaded) => {
            let effective = config::effective(&loaded.config);
            assert_eq!(config::diff(&effective, &effective), []);
            drop(Routes::compile(&loaded.config.routes));
            loaded.notes.iter().map(|note| note.render("gateway.yaml")).chain([effective.to_string()]).collect()
        }
    };
    let written = input.windows(CANARY.len()).any(|window| window == CANARY.as_bytes());
    assert!(written || !shown.contains(CANARY), "a secret shows:\n{shown}");
}

const CANARY: &str = "canary-7f3a91";
