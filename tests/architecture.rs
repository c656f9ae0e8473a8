//! ARCHITECTURE.md and the source agree: files, functions, who uses whom, dependencies; and the invariants that a search can
//! see hold.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const DOCUMENT: &str = include_str!("../ARCHITECTURE.md");
const MANIFEST: &str = include_str!("../Cargo.toml");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What stands between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The lines of the section under `## heading`.
fn section(heading: &str) -> &'static str {
    let (_, rest) = DOCUMENT.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no section {heading}"));
    rest.split("\n## ").next().unwrap_or(rest)
}

/// The rows of a section's tables, without heads.
fn rows(heading: &str) -> Vec<Vec<&'static str>> {
    let is_row = |line: &&str| line.starts_with('|') && line.contains('`');
    let cells = |line: &'static str| line.trim_matches('|').split('|').map(str::trim).collect();
    section(heading).lines().filter(is_row).map(cells).collect()
}

/// Every source file below `folder` of the crate, by its path from the root.
fn sources(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path: PathBuf = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).expect("below the root").display().to_string();
                found.push((name, fs::read_to_string(&path).expect("text")));
            }
        }
    }
    assert!(!found.is_empty(), "{folder} has no source");
    found
}

/// Production code below `folder`, without tests and comments.
fn production(folder: &str) -> Vec<(String, String)> {
    let is_test = |name: &str| name.ends_with("tests.rs");
    let code = |text: &str| {
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        text.lines().filter(|line| !line.trim_start().starts_with("//")).flat_map(|line| [line, "\n"]).collect()
    };
    sources(folder).into_iter().filter(|(name, _)| !is_test(name)).map(|(name, text)| (name, code(&text))).collect()
}

fn assert_without(folder: &str, words: &[&str]) {
    for (name, code) in production(folder) {
        for (number, line) in (1..).zip(code.lines()) {
            for word in words {
                assert!(!line.contains(word), "{name} has `{word}` (line {number} without comments): {line}");
            }
        }
    }
}

#[test]
fn every_path_that_is_named_exists() {
    let is_path = |word: &&str| ["src/", "tests/", "benches/", "docs/"].iter().any(|folder| word.starts_with(folder));
    let paths: BTreeSet<&str> = quoted(DOCUMENT).filter(is_path).collect();
    assert!(paths.len() >= 80, "only {}", paths.len());
    for path in paths {
        assert!(root().join(path).exists(), "{path} does not exist");
    }
}

#[test]
fn every_room_and_every_file_in_it_is_named() {
    let named: BTreeSet<&str> = quoted(section("Rooms")).collect();
    for (name, _) in sources("src") {
        // A folder's own file says what the folder is; tests say so themselves; the demo is one line.
        let is_known = name.ends_with("/mod.rs") || name.ends_with("tests.rs") || name.starts_with("src/cli/demo/");
        assert!(is_known || named.contains(name.as_str()), "{name} is in no table of rooms");
    }
    for entry in fs::read_dir(root().join("src")).expect("the source") {
        let entry = entry.expect("an entry");
        let slash = if entry.path().is_dir() { "/" } else { "" };
        let name = format!("src/{}{slash}", entry.file_name().to_string_lossy());
        assert!(named.contains(name.as_str()), "{name} is no room");
    }
}

#[test]
fn every_function_on_a_requests_way_is_where_it_is_said_to_be() {
    let rows = rows("A request's way");
    assert!(rows.len() >= 15, "only {}", rows.len());
    for row in rows {
        let [step, functions, files] = row[..] else { panic!("{row:?}") };
        let code: String =
            quoted(files).map(|file| fs::read_to_string(root().join(file)).expect("a source file")).collect();
        for function in quoted(functions) {
            let is_there = code.contains(&format!("fn {function}(")) || code.contains(&format!("fn {function}<"));
            assert!(is_there, "`{function}` is not in {files} ({step})");
        }
    }
}

#[test]
fn rooms_use_each_other_only_as_the_table_says() {
    let mut allowed: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for row in rows("Who uses whom") {
        for room in quoted(row[0]) {
            allowed.entry(room).or_default().extend(quoted(row[1]));
        }
    }
    for (name, code) in production("src") {
        let room = name.trim_start_matches("src/").trim_end_matches(".rs").split('/').next().expect("a name");
        if ["lib", "main"].contains(&room) {
            continue;
        }
        let allowed = allowed.get(room).unwrap_or_else(|| panic!("{room} is not in the table"));
        let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        for used in
            code.split("crate::").skip(1).map(|rest| rest.split(|letter| !is_name(letter)).next().expect("a name"))
        {
            assert!(used == room || allowed.contains(used), "{name} uses {used}");
        }
    }
}

#[test]
fn every_dependency_has_its_reason() {
    let (_, rest) = MANIFEST.split_once("\n[dependencies]\n").expect("dependencies");
    let in_manifest: BTreeSet<&str> = rest
        .lines()
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once(" = ").map(|(name, _)| name))
        .collect();
    let explained: BTreeSet<&str> = rows("Dependencies").iter().flat_map(|row| quoted(row[0])).collect();
    assert_eq!(in_manifest, explained);
}

#[test]
fn policy_decides_without_doing() {
    let doing = ["tokio", "hyper", "fastrand", "rand::", "std::fs", "std::io", "std::net", "std::env", "std::thread"];
    assert_without("src/policy", &doing);
    assert_without("src/policy", &["clock::", "Instant::now", "SystemTime::now", "elapsed()", "async fn", ".await"]);
}

#[test]
fn http1_is_bytes_only() {
    let doing = ["tokio", "std::fs", "std::io", "TcpStream", "clock::", "Instant", "async fn", ".await", "fastrand"];
    assert_without("src/http1", &doing);
}

#[test]
fn only_the_clock_reads_time() {
    for (name, code) in production("src") {
        let reads =
            ["Instant::now", "SystemTime::now", ".elapsed()", "UtcDateTime::now", "Timestamp::now", "Zoned::now"];
        let read = reads.into_iter().find(|word| code.contains(word));
        assert!(name == "src/clock.rs" || read.is_none(), "{name} has {read:?}");
    }
}

#[test]
fn nothing_is_unsafe() {
    assert!(MANIFEST.contains("\nunsafe_code = \"forbid\"\n"));
    assert!(sources("src").iter().any(|(name, text)| name == "src/lib.rs" && text.contains("#![forbid(unsafe_code)]")));
    assert_without("src", &["unsafe {", "unsafe fn", "unsafe impl", "allow(unsafe_code"]);
}
