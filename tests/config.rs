//! Files of `tests/config`: the valid ones load, the invalid ones say exactly what is expected.
//!
//! `SLUICE_UPDATE_EXPECTED=1 cargo test --test config` rewrites the expectations; read the difference before keeping it.

use sluice::config::{self, Environment, Fallback, Loaded, Problems};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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

    /// In 2030, when one of the certificates has expired.
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_900_000_000)
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
    let bytes = fs::read(&path).expect("readable");
    assert!(config::parse("gateway.yaml", &bytes, &config::UnknownEnvironment).is_ok());
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

fn load_text(text: &str) -> Result<Loaded, Problems> {
    config::parse("gateway.yaml", text.as_bytes(), &Corpus)
}

const WHOLE: &str = "listeners: [{ name: web, bind: \"127.0.0.1:0\" }]\nroutes: [{ name: all, respond: {} }]\n";

#[test]
fn defaults_are_laid_under_and_the_written_wins() {
    let path = folder("valid").join("defaults.yaml");
    let dump = config::effective(&parse(&path).expect("valid").config);
    let alpha = &dump["providers"]["alpha"];
    assert_eq!(alpha["timeouts"], serde_json::json!({ "connect": "1s", "first_byte": "10s", "idle": "3s" }));
    assert_eq!(alpha["headers"]["remove"], serde_json::json!(["cookie"]));
    assert_eq!(dump["providers"]["beta"]["headers"]["remove"], serde_json::json!([]));
    assert_eq!(dump["pools"]["main"]["providers"], serde_json::json!(["alpha"]));
    assert_eq!(dump["pools"]["other"]["providers"], serde_json::json!(["beta"]));
    let [a, b, c] = [&dump["routes"][0], &dump["routes"][1], &dump["routes"][2]];
    assert_eq!((&a["pool"], &a["timeout"]), (&"main".into(), &"7s".into()));
    assert_eq!(a["rewrite"]["headers"]["set"], serde_json::json!({ "x-b": "***", "x-a": "***" }));
    assert!(b.get("pool").is_none(), "a route that answers takes no pool from the defaults");
    assert_eq!((&c["pool"], &c["timeout"]), (&"other".into(), &"1s".into()));
}

/// What is written in the contract's example is what holds where it is not written.
#[test]
fn every_default_is_the_one_of_the_contract() {
    let text = fs::read_to_string(folder("valid").join("contract.yaml")).expect("readable");
    let written = config::effective(&load_text(&text).unwrap_or_else(|problems| panic!("{problems}")).config);
    let bare = "listeners: [{ name: web, bind: \"127.0.0.1:8080\" }]\n\
                providers: { alpha: { url: \"http://127.0.0.1:9001\", health_check: {} } }\n\
                pools: { main: { providers: [alpha] } }\n\
                routes: [{ name: api, pool: main, cache: {} }]\n";
    let bare = config::effective(&load_text(bare).unwrap_or_else(|problems| panic!("{problems}")).config);
    for section in ["listeners", "shutdown", "reload", "log", "store", "memory"] {
        assert_eq!(bare[section], written[section], "{section}");
    }
    assert_eq!(bare["clients"]["anonymous"], serde_json::json!({ "max_class": "normal", "share": 1 }));
    assert_eq!(written["clients"]["anonymous"], bare["clients"]["anonymous"]);
    let (alpha, laid) = (&written["providers"]["alpha"], &bare["providers"]["alpha"]);
    for key in ["timeouts", "circuit_breaker", "health_check", "host", "connections"] {
        assert_eq!(laid[key], alpha[key], "{key}");
    }
    assert_eq!(laid["limits"], serde_json::json!({ "concurrency": 1024, "max_cooldown": "5m" }));
    for key in ["balance", "queue"] {
        assert_eq!(bare["pools"]["main"][key], written["pools"]["main"][key], "{key}");
    }
    for key in ["class", "timeout", "stream_timeout", "retry", "cache"] {
        assert_eq!(bare["routes"][0][key], written["routes"][0][key], "{key}");
    }
}

#[test]
fn what_is_off_until_written_has_defaults_of_its_own() {
    let text = "listeners: [{ name: web, bind: \"127.0.0.1:0\" }]\n\
                clients: { web: { addresses: [10.0.0.0/8] } }\n\
                defaults: { provider: { limits: { rate: 500/s } }, route: { retry: { hedge: {} } }, pool: { queue: { capacity: 5 } } }\n\
                providers: { alpha: { url: \"http://a\" }, beta: { url: \"http://b\", limits: { rate: 5/m } } }\n\
                pools: { main: { providers: [alpha, { name: beta, weight: 2 }], queue: { reserve_high: 0.5 } } }\n\
                routes: [{ name: api, pool: main, timeout: 4s, retry: { attempts: 2 } }]\n";
    let config = load_text(text).unwrap_or_else(|problems| panic!("{problems}")).config;
    let names: Vec<&str> = config.clients.iter().map(|client| &*client.name).collect();
    assert_eq!(names, ["web", config::ANONYMOUS], "whoever is nobody else is the last");
    assert_eq!((config.clients[0].max_class.as_str(), config.clients[0].share), ("high", 1));
    let limits = |index: usize| {
        (config.providers[index].limits.rate.map(|rate| rate.to_string()), config.providers[index].limits.burst)
    };
    assert_eq!(limits(0), (Some("500/s".into()), 50), "a tenth of a second's worth");
    assert_eq!(limits(1), (Some("5/m".into()), 1), "at least one");
    let pool = &config.pools[0];
    let members: Vec<(usize, u32, bool)> =
        pool.members.iter().map(|each| (each.provider, each.weight, each.backup)).collect();
    assert_eq!(members, [(0, 1, false), (1, 2, false)]);
    assert_eq!((pool.queue.terms.capacity, pool.queue.terms.reserve_high), (5, 0.5));
    let retry = &config.routes[0].retry;
    assert_eq!((retry.attempts, retry.attempt_timeout), (2, Duration::from_secs(4)), "the shorter of two timeouts");
    let hedge = retry.hedge.expect("laid under");
    assert_eq!((hedge.after.to_string(), hedge.budget), ("p95".into(), 0.05));
}

#[test]
fn an_expanded_value_can_be_a_number_and_never_structure() {
    let loaded = parse(&folder("valid").join("expansion.yaml")).expect("valid");
    assert_eq!(loaded.config.workers.map(std::num::NonZeroUsize::get), Some(3));
    assert_eq!(loaded.config.listeners[0].bind.to_string(), "127.0.0.1:8080");
    let config::Action::Respond { body, .. } = &loaded.config.routes[0].action else { panic!("it answers") };
    assert_eq!(&**body, b"$ costs many words, not $5");
}

#[test]
fn no_secret_and_no_expanded_value_shows_in_any_output() {
    let text = "listeners: [{ name: web, bind: \"127.0.0.1:${PORT}\" }]\n\
                admin: { token: literal-hunter2 }\n\
                providers:\n  alpha:\n    url: http://${SECRET}:9001\n    host: ${SECRET}\n    headers: { set: { authorization: \"Bearer literal-hunter2\" } }\n\
                pools: { main: { providers: [alpha] } }\n\
                routes:\n  - { name: all, pool: main, match: { headers: { x-a: \"${SECRET}\" } } }\n";
    let loaded = load_text(text).unwrap_or_else(|problems| panic!("{problems}"));
    let dump = config::effective(&loaded.config);
    assert!(!dump.to_string().contains("hunter2"), "{dump}");
    assert!(!dump.to_string().contains("8080"), "{dump}");
    assert_eq!(dump["listeners"][0]["bind"], "***");
    assert_eq!(dump["providers"]["alpha"]["url"], "***");
    assert_eq!(dump["routes"][0]["match"]["headers"]["x-a"], "***");
    assert!(!format!("{:?}", loaded.config.admin).contains("hunter2"));
    let wrong = load_text(&format!("{text}wrong: 1\n")).expect_err("an unknown key");
    assert!(!serde_json::to_string(&wrong).expect("JSON").contains("hunter2"));
    assert!(!format!("{wrong:?}").contains("hunter2"));
}

#[test]
fn a_secret_stays_masked_wherever_the_file_breaks_off() {
    let text = "admin: { token: hunter2 }\nproviders:\n  alpha:\n    url: http://a\n    headers:\n      set:\n        authorization: 'Bearer hunter2'\n        x-key: \"hunter2\"\n        x-long: |\n          hunter2\n          hunter2\n";
    for at in 0..text.len() {
        for tail in ["", ": [", "\n\t- x", "\n? {", "\"", "}", "\n]", "\n---\n", ": x: y"] {
            let broken = format!("{}{tail}", &text[..at]);
            let problems = load_text(&broken).expect_err("it is not whole").to_string();
            assert!(!problems.contains("hunt"), "{broken:?} shows it:\n{problems}");
        }
    }
}

#[test]
fn a_secret_that_changed_is_told_and_not_shown() {
    let with = |token: &str, grace: &str| {
        let text = format!("{WHOLE}admin: {{ token: {token} }}\nshutdown: {{ grace: {grace} }}\n");
        config::effective(&load_text(&text).unwrap_or_else(|problems| panic!("{problems}")).config)
    };
    assert_eq!(config::diff(&with("hunter2-a", "1s"), &with("hunter2-a", "1s")), []);
    let changes = config::diff(&with("hunter2-a", "1s"), &with("hunter2-b", "2s"));
    let found: Vec<(&str, &str, &str)> = changes
        .iter()
        .map(|change| (&*change.path, change.from.as_str().unwrap_or("?"), change.to.as_str().unwrap_or("?")))
        .collect();
    assert_eq!(found, [("shutdown.grace", "1s", "2s"), ("admin.tokens[admin].token", "***", "***")]);
}

/// A listener with this certificate and key, and a value from a file.
fn secured(name: &str) -> Loaded {
    let text = format!(
        "listeners: [{{ name: web, bind: \"127.0.0.1:0\", tls: {{ certificates: [{{ cert: {name}.pem, key: {name}.key }}] }} }}]\n\
         providers: {{ a: {{ url: \"https://a\", tls: {{ ca: ca.pem, client: {{ cert: rsa.pem, key: rsa.key }} }} }} }}\n\
         pools: {{ main: {{ providers: [a] }} }}\n\
         routes: [{{ name: all, respond: {{ body: \"${{file:key.txt}}\" }} }}]\n"
    );
    load_text(&text).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn a_private_key_shows_nowhere_and_a_new_one_is_told() {
    let (site, other) = (secured("site"), secured("other"));
    let (before, after) = (config::effective(&site.config), config::effective(&other.config));
    let changes = config::diff(&before, &after);
    let shown = format!("{before} {changes:?} {:?} {:?}", site.config, site.inputs);
    for name in ["site.key", "rsa.key"] {
        let key = fs::read_to_string(folder("files").join(name)).expect("readable");
        let secret = key.lines().nth(1).expect("a line of it");
        assert!(!shown.contains(secret), "{shown}");
    }
    // `BEGIN P`, as `Debug` shows bytes.
    assert!(!shown.contains("66, 69, 71, 73, 78, 32, 80"), "{shown}");
    let paths: Vec<&str> = changes.iter().map(|change| &*change.path).collect();
    assert_eq!(paths, ["listeners[web].tls.certificates", "listeners[web].tls.certificates[0].key"]);
}

#[test]
fn every_file_that_was_read_is_listed_and_no_other() {
    let loaded = secured("site");
    let expected = ["ca.pem", "key.txt", "rsa.key", "rsa.pem", "site.key", "site.pem"].map(PathBuf::from);
    assert_eq!(loaded.config.files, expected);
    let problems = load_text(&format!("{WHOLE}admin: {{ token: \"${{file:none}}\" }}\n")).expect_err("no such file");
    assert_eq!(problems.inputs.named().collect::<Vec<_>>(), [Path::new("none")]);
    let unread = load_text(&format!("{WHOLE}x: [ \"${{file:none}}\"\n")).expect_err("not YAML");
    assert_eq!(unread.inputs.named().collect::<Vec<_>>(), [Path::new("none")], "also where the file breaks off");
}

#[test]
fn a_ladder_is_read_as_it_is_meant() {
    let loaded = parse(&folder("valid").join("degrade.yaml")).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(loaded.config.files, [Path::new("sorry.html")], "a change of it is a reload");
    let rungs = |name: &str| {
        let route = loaded.config.routes.iter().find(|route| &*route.name == name).expect("a route");
        route.degrade.iter().map(|rung| rung.rule.kind.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(rungs("whole"), ["pool", "reduced", "reduced", "static", "static"]);
    assert_eq!(rungs("inherits"), ["pool", "static"]);
    assert_eq!(rungs("own"), ["static"], "defaults name the pool that is the route's own");
    assert_eq!(rungs("answers"), [""; 0]);
    let rung = &loaded.config.routes[0].degrade[1];
    let terms = rung.thresholds.expect("thresholds");
    let leave = (terms.leave.queue, terms.leave.latency, terms.leave.error_rate);
    assert_eq!(leave, (Some(0.4), Some(Duration::from_millis(1500)), Some(0.25)), "half, where nothing is written");
    let Fallback::Reduced(reduced) = &rung.what else { panic!("{rung:?}") };
    let json: Vec<_> = reduced.json.set.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(json, ["model=\"small\"", "max_tokens=64", "stream=false", "seed=\"7\""]);
    let Fallback::Static(answer) = &loaded.config.routes[1].degrade[1].what else { panic!("a static rung") };
    assert_eq!((answer.status, &*answer.body), (503, &b"<h1>Back soon</h1>\n"[..]));
}

#[test]
fn a_dump_read_again_is_the_same_configuration() {
    let lease = "listeners: [{ name: web, bind: \"127.0.0.1:0\" }]\n\
                 providers: { a: { url: \"h2c://a\", limits: { rate: 500/s }, cost: 0.5, health_check: {}, discover: dns }, b: { url: \"h2c://b\" } }\n\
                 pools:\n  even: { balance: round_robin, providers: [a, b], queue: { capacity: 0 } }\n  odd: { balance: { consistent_hash: { by: ip } }, providers: [a, { name: b, backup: true }] }\n\
                 routes:\n  - { name: a, match: { path: /a }, pool: even, timeout: 1s, retry: { attempts: 1, methods: all } }\n  - { name: b, pool: odd, class: { header: x-p }, retry: { hedge: { after: p99.9 }, commit: { bytes: 0 } } }\n";
    let ladder = "listeners: [{ name: web, bind: \"127.0.0.1:0\" }]\n\
                  providers: { a: { url: \"h2c://a\" }, b: { url: \"h2c://b\" } }\n\
                  pools: { main: { providers: [a] }, spare: { providers: [b] } }\n\
                  routes:\n  - name: a\n    pool: main\n    degrade:\n\
                  \x20     - { pool: spare, enter: { queue: 0.8, latency: 2s, error_rate: 0.25 } }\n\
                  \x20     - reduced: { pool: spare, path: \"/lite?a=b\", remove_headers: [x-a], json: { set: { a: 1, b: \"1\", c: true }, remove: [d] } }\n\
                  \x20     - { reduced: { path: /lite } }\n\
                  \x20     - { static: { status: 503, body: sorry }, methods: all, on: [deadline] }\n\
                  \x20     - { static: {} }\n";
    let file = fs::read_to_string(folder("valid").join("more_predicates_is_not_a_conflict.yaml")).expect("readable");
    for text in [&*file, lease, ladder] {
        let first = config::effective(&load_text(text).unwrap_or_else(|problems| panic!("{problems}")).config);
        let mut again = first.clone();
        again.as_object_mut().expect("a mapping").remove("secrets");
        let second = load_text(&again.to_string()).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(config::diff(&first, &config::effective(&second.config)), []);
    }
}

#[test]
fn for_a_caller_nothing_is_read_and_every_expansion_fits() {
    struct Forbidden;
    impl Environment for Forbidden {
        fn var(&self, name: &str) -> Option<String> {
            panic!("{name} was asked for")
        }
        fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
            panic!("{} was read", path.display())
        }
        fn is_known(&self) -> bool {
            false
        }
    }
    let text = "workers: ${WORKERS}\n\
                listeners: [{ name: \"${A}\", bind: \"${B}\" }, { name: \"${A}\", bind: \"${B}\" }]\n\
                admin: { bind: \"0.0.0.0:1\", token: \"${file:/etc/shadow}\" }\n\
                providers: { alpha: { url: \"${URL}\", tls: { ca: /etc/shadow }, timeouts: { connect: \"${T:-1s}\" } } }\n\
                pools: { main: { providers: [\"${P}\", \"${P}\"] } }\n\
                routes:\n  - &r { name: \"${N}\", match: { path: \"${P}\", path_regex: \"${R}\", methods: [\"${M}\"] }, pool: \"${POOL}\" }\n  - *r\n";
    assert!(config::parse("x", text.as_bytes(), &Forbidden).is_ok());
    let wrong = config::parse("x", format!("{text}wrokers: 1\n").as_bytes(), &Forbidden).expect_err("a problem");
    assert_eq!(wrong.problems.len(), 1);
    assert!(config::parse("x", text.as_bytes(), &config::UnknownEnvironment).is_ok());
}

#[test]
fn a_bomb_is_refused_before_it_costs_anything() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..30 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.extend([format!("a{level}: &a{level} [{aliases}]\n")]);
    }
    let begun = sluice::clock::now();
    let problems = load_text(&bomb).expect_err("a bomb");
    assert!(problems.problems[0].message.contains("more than 1000000 values"), "{problems}");
    assert!((sluice::clock::now() - begun).as_millis() < 500, "it took too long");
}

#[test]
fn a_file_beyond_a_bound_is_refused_with_its_name() {
    let long = " ".repeat((32 << 20) + 1);
    assert!(load_text(&long).expect_err("too long").problems[0].message.contains("larger than 32 MiB"));
    let many = format!("{WHOLE}x: [{}]\n", "1,".repeat(1_000_000));
    assert!(load_text(&many).expect_err("too many").problems[0].message.contains("more than 1000000 values"));
    let wrong = (0..2000).map(|index| format!("k{index}: 1\n")).collect::<Vec<_>>().concat();
    let problems = load_text(&format!("{WHOLE}{wrong}")).expect_err("unknown keys");
    assert_eq!((problems.problems.len(), problems.more), (1000, 1000));
    assert!(problems.to_string().ends_with("gateway.yaml: and 1000 more problems\n"));
}

#[test]
fn ten_thousand_routes_load_quickly() {
    let routes = (0..10_000)
        .map(|index| format!("  - {{ name: r{index}, match: {{ hosts: [h{index}.example.com], path: \"/p{index}/*\" }}, pool: main }}\n"))
        .collect::<Vec<_>>()
        .concat();
    let text = format!(
        "listeners: [{{ name: web, bind: \"127.0.0.1:0\" }}]\nproviders: {{ alpha: {{ url: \"http://127.0.0.1:1\" }} }}\npools: {{ main: {{ providers: [alpha] }} }}\nroutes:\n{routes}"
    );
    let begun = sluice::clock::now();
    assert_eq!(load_text(&text).unwrap_or_else(|problems| panic!("{problems}")).config.routes.len(), 10_000);
    // Unoptimised and beside other tests; a release build takes a twentieth of it.
    assert!((sluice::clock::now() - begun).as_secs() < 5, "it took too long");
}

#[test]
fn a_folder_or_a_missing_file_is_a_problem_with_help() {
    for path in ["/", "no/such/gateway.yaml"] {
        let problems = config::load(Path::new(path), &Corpus).expect_err("no file");
        assert_eq!(problems.problems.len(), 1);
        assert!(problems.problems[0].help.is_some());
        assert!(problems.to_string().starts_with(&format!("{path}: the configuration cannot be read: ")));
    }
}

#[test]
fn problems_are_json_for_the_api() {
    let problems = load_text(&format!("{WHOLE}wrokers: 2\n")).expect_err("an unknown key");
    let expected = serde_json::json!({
        "file": "gateway.yaml",
        "problems": [{
            "line": 3,
            "column": 1,
            "path": "wrokers",
            "message": "unknown key `wrokers`",
            "help": "did you mean `workers`?",
            "source": { "text": "wrokers: 2", "start": 0, "width": 7 },
        }],
        "more": 0,
    });
    assert_eq!(serde_json::to_value(&problems).expect("JSON"), expected);
}

/// `PROPTEST_CASES=100000` makes this a long run.
mod any_bytes {
    use super::*;
    use proptest::prelude::*;

    /// Pieces that a configuration is made of, so that random text goes deep.
    fn piece() -> impl Strategy<Value = String> {
        let known = [
            "listeners:",
            "routes:",
            "providers:",
            "pools:",
            "defaults:",
            "route:",
            "admin:",
            "token:",
            "- name: a",
            "bind: 127.0.0.1:80",
            "match:",
            "path: /a/*",
            "path: /",
            "methods: [GET]",
            "respond: {}",
            "pool: main",
            "set:",
            "headers:",
            "url: http://a",
            "\n",
            "\n  ",
            "\n    ",
            "\n- ",
            " ",
            ": ",
            "{",
            "}",
            "[",
            "]",
            ",",
            "&a ",
            "*a",
            "${X}",
            "${X:-y}",
            "$$",
            "\"",
            "'",
            "|\n",
            "\t",
            "\r\n",
            "# c",
            "---",
            "...",
            "!!x ",
            "? ",
            "<<: *a",
            "ä",
            "\u{1F600}",
            "\u{85}",
            "%YAML 1.2\n",
        ];
        prop_oneof![9 => prop::sample::select(known.to_vec()).prop_map(ToOwned::to_owned), 1 => any::<String>()]
    }

    proptest! {
        #[test]
        fn never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = config::parse("x", &bytes, &Corpus);
        }

        #[test]
        fn that_look_like_a_configuration_never_panic(pieces in prop::collection::vec(piece(), 0..40)) {
            let text = pieces.concat();
            match load_text(&text) {
                Ok(loaded) => drop(config::effective(&loaded.config)),
                Err(problems) => {
                    prop_assert!(!problems.problems.is_empty());
                    prop_assert!(problems.problems.is_sorted_by_key(|problem| (problem.line, problem.column)));
                }
            }
        }

        #[test]
        fn of_a_valid_file_with_a_hole_never_panic(from in 0usize..3000, length in 0usize..40) {
            let text = fs::read(folder("valid").join("everything_built.yaml")).expect("readable");
            let from = from.min(text.len());
            let to = (from + length).min(text.len());
            let holed = [&text[..from], &text[to..]].concat();
            if let Err(problems) = config::parse("x", &holed, &Corpus) {
                prop_assert!(!problems.to_string().contains("hunter2"), "{problems}");
            }
        }
    }
}
