//! Files of `tests/config`: the valid ones load, the invalid ones say exactly what is expected.
//!
//! `SLUICE_UPDATE_EXPECTED=1 cargo test --test config` rewrites the expectations; read the difference before keeping it.

use sluice::config::{self, Environment, Loaded, Problems};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A few variables, and the files beside the corpus.
struct Corpus;

impl Environment for Corpus {
    fn var(&self, name: &str) -> Option<String> {
        let known = [("PORT", "8080"), ("SECRET", "hunter2-hunter2"), ("EMPTY", ""), ("WORDS", "many words")];
        known.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    }

    fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(folder("files").join(path)).map_err(|error| io::Error::new(error.kind(), "no such file"))
    }
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config").join(name)
}

fn files(name: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder(name)).expect("the corpus is there");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files
}

fn parse(path: &Path) -> Result<Loaded, Problems> {
    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
    config::parse(&name, &fs::read(path).expect("readable"), &Corpus)
}

fn updating() -> bool {
    std::env::var_os("SLUICE_UPDATE_EXPECTED").is_some()
}

/// Compares `found` with the file `path`, or rewrites it.
fn assert_file(path: &Path, found: &str) {
    if updating() {
        fs::write(path, found).expect("writable");
        return;
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    assert_eq!(found, expected, "{} differs; SLUICE_UPDATE_EXPECTED=1 rewrites it", path.display());
}

#[test]
fn every_valid_file_loads_with_the_expected_notes() {
    let files = files("valid");
    assert!(files.len() >= 10, "only {} files", files.len());
    for path in files {
        let loaded = parse(&path).unwrap_or_else(|problems| panic!("{}:\n{problems}", path.display()));
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let notes: String = loaded.notes.iter().map(|note| note.render(&name)).collect();
        if !notes.is_empty() || path.with_extension("expected").exists() {
            assert_file(&path.with_extension("expected"), &notes);
        }
    }
}

#[test]
fn every_invalid_file_says_exactly_what_is_wrong() {
    let files = files("invalid");
    assert!(files.len() >= 60, "only {} files", files.len());
    for path in files {
        let problems = parse(&path).err().unwrap_or_else(|| panic!("{} loads", path.display()));
        let text = problems.to_string();
        assert!(!text.contains("hunter2"), "a secret shows in {}:\n{text}", path.display());
        assert_file(&path.with_extension("expected"), &text);
    }
}

#[test]
fn the_documented_example_loads_without_a_note() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("gateway.yaml");
    let loaded = config::load(&path, &Corpus).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(loaded.notes, []);
    assert_eq!(loaded.config.routes.len(), 5);
    assert_eq!(loaded.hash.len(), 64);
}

#[test]
fn the_schema_beside_the_example_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("gateway.schema.json");
    let schema = serde_json::to_string_pretty(&sluice::cli::schema::schema()).expect("a schema is JSON");
    assert_file(&path, &format!("{schema}\n"));
}

#[test]
fn the_key_table_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let page = fs::read_to_string(&path).expect("the page is there");
    let (begin, end) = ("`the_key_table_is_up_to_date` -->\n", "<!-- end of keys -->");
    let (before, rest) = page.split_once(begin).expect("the table begins");
    let (_, after) = rest.split_once(end).expect("the table ends");
    assert_file(&path, &format!("{before}{begin}{}{end}{after}", config::key_table()));
}
