//! The README and the documents beside it say what is true: tables are those of the code, configurations load, messages are
//! the real ones, links lead somewhere, every command is there.
//!
//! `SLUICE_UPDATE_EXPECTED=1 cargo test --test readme` rewrites the tables; read the difference before keeping it.

use sluice::config::{self, Environment, Loaded, Problems};
use sluice::observe::families::{self, Family, Kind};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Every variable is set; the only files are the certificate and the key that the README makes.
struct Anything;

impl Environment for Anything {
    fn var(&self, _name: &str) -> Option<String> {
        Some("a-value-of-some-length".to_owned())
    }

    fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        static PAIR: OnceLock<[String; 2]> = OnceLock::new();
        let pair = || {
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
            [made.cert.pem(), made.signing_key.serialize_pem()]
        };
        let [cert, key] = PAIR.get_or_init(pair);
        match path.file_name().and_then(|name| name.to_str()) {
            Some("site.pem") => Ok(cert.as_bytes().to_vec()),
            Some("site.key") => Ok(key.as_bytes().to_vec()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// A fenced block.
struct Block {
    /// The document, and the line of the fence.
    place: String,
    /// What follows the fence: `yaml`, `yaml invalid`, `text`.
    kind: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The README, the other documents beside it, and those of `docs`.
fn documents() -> Vec<PathBuf> {
    let is_document = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md");
    let list = |folder: PathBuf| {
        let entries = fs::read_dir(folder).expect("a folder");
        entries.map(|entry| entry.expect("an entry").path()).filter(is_document).collect::<Vec<_>>()
    };
    let mut documents = list(root().to_owned());
    documents.extend(list(root().join("docs")));
    documents.push(root().join("benches/README.md"));
    documents.sort();
    assert!(documents.len() >= 6, "{documents:?}");
    documents
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn name(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

fn blocks(path: &Path) -> Vec<Block> {
    let text = read(path);
    let mut found: Vec<Block> = Vec::new();
    let mut open = false;
    for (number, line) in (1..).zip(text.lines()) {
        match line.strip_prefix("```") {
            Some(_) if open => open = false,
            Some(kind) => {
                open = true;
                let place = format!("{}:{number}", name(path));
                found.push(Block { place, kind: kind.to_owned(), text: String::new() });
            }
            None if open => {
                let block = found.last_mut().expect("a fence opened it");
                block.text.push_str(line);
                block.text.push('\n');
            }
            None => {}
        }
    }
    assert!(!open, "{} leaves a block open", path.display());
    found
}

fn sluice() -> Command {
    Command::new(env!("CARGO_BIN_EXE_sluice"))
}

fn parse(text: &str) -> Result<Loaded, Problems> {
    config::parse("gateway.yaml", text.as_bytes(), &Anything)
}

/// Compares the part of the README between `<!-- name -->` and `<!-- /name -->` with `expected`, or rewrites it.
fn assert_region(name: &str, expected: &str) {
    let path = root().join("README.md");
    let text = read(&path);
    let (open, close) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->\n"));
    let (before, rest) = text.split_once(&open).unwrap_or_else(|| panic!("README.md has no {open}"));
    let (region, after) = rest.split_once(&close).unwrap_or_else(|| panic!("README.md has no {close}"));
    if std::env::var_os("SLUICE_UPDATE_EXPECTED").is_some() {
        let text = format!("{before}{open}{expected}{close}{after}");
        fs::write(&path, text).expect("writable");
    } else {
        assert_eq!(region, expected, "the region `{name}` differs; SLUICE_UPDATE_EXPECTED=1 rewrites it");
    }
}

fn metric_row(table: &mut String, family: &Family) {
    let labels = if family.labels.is_empty() { String::new() } else { format!("{{{}}}", family.labels.join(",")) };
    let kind = match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    writeln!(table, "| `{}{labels}` | {kind} | {} |", family.name, family.help).expect("a String takes all");
}

// One test, because both regions stand in one file, which it may rewrite.
#[test]
fn the_tables_of_keys_and_metrics_are_those_of_the_code() {
    assert_region("keys", &config::key_table());
    let mut metrics = String::from("| metric | kind | meaning |\n|---|---|---|\n");
    for family in families::ALL {
        metric_row(&mut metrics, family);
    }
    assert_region("metrics", &metrics);
}

#[test]
fn every_configuration_in_the_documents_loads_without_a_note() {
    let mut loaded = 0;
    for block in documents().iter().flat_map(|path| blocks(path)) {
        // A Prometheus configuration is the one other kind of YAML that is shown.
        if block.kind != "yaml" || block.text.starts_with("scrape_configs:") {
            continue;
        }
        let found = parse(&block.text).unwrap_or_else(|problems| panic!("{}:\n{problems}", block.place));
        assert_eq!(found.notes, [], "{}", block.place);
        loaded += 1;
    }
    assert!(loaded >= 2, "only {loaded}");
}

#[test]
fn what_check_says_of_a_wrong_configuration_is_shown_below_it() {
    let mut wrong = 0;
    for path in documents() {
        let blocks = blocks(&path);
        for (at, block) in blocks.iter().enumerate().filter(|(_, block)| block.kind == "yaml invalid") {
            let shown = blocks.get(at + 1).filter(|next| next.kind == "text").map_or("", |next| &next.text);
            let folder = tempfile::tempdir().expect("a folder");
            fs::write(folder.path().join("gateway.yaml"), &block.text).expect("writable");
            let checked = sluice().arg("check").current_dir(folder.path()).output().expect("the binary runs");
            assert_eq!(String::from_utf8_lossy(&checked.stdout), shown, "{}", block.place);
            assert_eq!(checked.status.code(), Some(1), "{}", block.place);
            wrong += 1;
        }
    }
    assert!(wrong >= 1);
}

#[test]
fn every_command_is_in_the_readme() {
    let help = sluice().arg("--help").output().expect("the binary runs");
    let help = String::from_utf8(help.stdout).expect("text");
    let (_, commands) = help.split_once("Commands:\n").expect("a list of commands");
    let (commands, _) = commands.split_once("\n\n").expect("something after it");
    let readme = read(&root().join("README.md"));
    let names: Vec<&str> = commands.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.len() >= 7, "{names:?}");
    for command in names {
        assert!(readme.contains(&format!("\n| `sluice {command}")), "`sluice {command}` is not in the table");
    }
}

#[test]
fn every_link_to_a_file_or_a_heading_leads_there() {
    let mut links = 0;
    for document in documents() {
        let text = read(&document);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") || target.contains(char::is_whitespace) {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let folder = document.parent().expect("a folder");
            let file = if file.is_empty() { document.clone() } else { folder.join(file) };
            assert!(file.exists(), "{}: {target} leads nowhere", name(&document));
            if !heading.is_empty() {
                assert!(
                    headings(&read(&file)).any(|known| known == heading),
                    "{}: no heading {target}",
                    name(&document)
                );
            }
            links += 1;
        }
    }
    assert!(links >= 10, "only {links}");
}

/// The headings of a document as links name them.
fn headings(text: &str) -> impl Iterator<Item = String> {
    let anchor = |line: &str| {
        let kept = line.trim_start_matches('#').trim().chars();
        let kept = kept.filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
        kept.map(|letter| if letter == ' ' { '-' } else { letter }).flat_map(char::to_lowercase).collect()
    };
    text.lines().filter(|line| line.starts_with('#')).map(anchor)
}

/// What shows that the cache conforms: its tests by their names, and groups of cases by `AREA: NAME`.
fn shown() -> BTreeSet<String> {
    let list = |folder: &str, extension: &str| -> Vec<PathBuf> {
        let entries = fs::read_dir(root().join(folder)).expect("a folder");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        paths.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
    };
    let mut shown = BTreeSet::new();
    let folders = ["src/policy/freshness", "src/cache", "tests/gateway/cache"];
    let files = folders.iter().flat_map(|folder| list(folder, "rs"));
    for path in files.chain([root().join("tests/gateway/cache.rs")]) {
        for test in read(&path).split("#[test]\n").skip(1) {
            let name = test.trim_start().strip_prefix("fn ").and_then(|rest| rest.split_once('('));
            shown.extend(name.map(|(name, _)| name.to_owned()));
        }
    }
    for path in list("tests/gateway/cache/suite", "cases") {
        let area = path.file_stem().expect("a name").to_string_lossy().into_owned();
        for line in read(&path).lines().filter_map(|line| line.strip_prefix("## ")) {
            let name =
                line.split_once(": ").filter(|(section, _)| section.contains('§')).map_or(line, |(_, name)| name);
            assert!(shown.insert(format!("{area}: {name}")), "{area} has two groups called {name:?}");
        }
    }
    shown
}

#[test]
fn every_requirement_of_the_cache_names_what_shows_it() {
    let text = read(&root().join("docs/cache-conformance.md"));
    let rows = text.lines().filter(|line| line.starts_with("| ")).map(|line| line.trim_matches(['|', ' ']));
    let cells = rows.filter_map(|row| row.rsplit_once(" | ").filter(|(front, _)| front.contains(" | ")));
    let named: BTreeSet<&str> = cells.flat_map(|(_, cell)| cell.split('`').skip(1).step_by(2)).collect();
    let shown = shown();
    let missing: Vec<_> = named.iter().filter(|name| !shown.contains(**name)).collect();
    assert!(missing.is_empty(), "docs/cache-conformance.md names what is not there: {missing:#?}");
    let must_be_named = |name: &&String| name.starts_with("section_") || name.contains(": ");
    let unnamed: Vec<_> = shown.iter().filter(must_be_named).filter(|name| !named.contains(name.as_str())).collect();
    assert!(unnamed.is_empty(), "docs/cache-conformance.md does not name {unnamed:#?}");
    assert!(named.len() > 100, "{}", named.len());
}
