//! What ships beside the binary agrees with it: the example configuration, the deployment files, the operations page.

use sluice::cli::demo::providers::Sample;
use sluice::config::{self, Config, Environment};
use sluice::observe::families;
use std::io;
use std::path::Path;

/// The variables the deployment files set; no files.
struct Deployed;

impl Environment for Deployed {
    fn var(&self, name: &str) -> Option<String> {
        ["SLUICE_ADMIN_TOKEN", "ALPHA_KEY"].contains(&name).then(|| "a-secret-of-some-length".to_owned())
    }

    fn read_file(&self, _: &Path) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

const EXAMPLE: &str = include_str!("../gateway.yaml");
const KUBERNETES: &str = include_str!("../deploy/kubernetes.yaml");
const SYSTEMD: &str = include_str!("../deploy/sluice.service");
const OPERATIONS: &str = include_str!("../docs/operations.md");

fn load(name: &str, text: &str) -> Config {
    match config::parse(name, text.as_bytes(), &Deployed) {
        Ok(loaded) => loaded.config,
        Err(problems) => panic!("{problems}"),
    }
}

/// The text of the ConfigMap's `gateway.yaml`, its indentation taken away.
fn in_config_map() -> String {
    let (_, rest) = KUBERNETES.split_once("  gateway.yaml: |\n").expect("a literal block");
    let (block, _) = rest.split_once("---\n").expect("another document after it");
    block.lines().flat_map(|line| [line.strip_prefix("    ").unwrap_or(line), "\n"]).collect()
}

/// Seconds written after `key`, as in `TimeoutStopSec=40s`.
fn seconds(text: &str, key: &str) -> u64 {
    let (_, rest) = text.split_once(key).unwrap_or_else(|| panic!("{key} is there"));
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

#[test]
fn the_example_names_the_sample_providers_where_they_listen() {
    let config = load("gateway.yaml", EXAMPLE);
    let named: Vec<_> =
        config.providers.iter().map(|provider| (&*provider.name, provider.url.host(), provider.url.port())).collect();
    assert_eq!(named, Sample::ALL.map(|sample| (sample.name(), "127.0.0.1", Some(sample.port()))));
}

#[test]
fn the_configuration_in_the_kubernetes_example_is_valid_and_reachable_by_probes() {
    let config = load("kubernetes.yaml", &in_config_map());
    assert!(config.admin.bind.ip().is_unspecified(), "probes come from the node");
    assert!(!config.admin.tokens.is_empty(), "and so everything else needs a token");
    assert!(KUBERNETES.contains(&format!(
        "{{ name: web, containerPort: {} }}",
        config.listeners[0].bind.tcp().expect("an address").port()
    )));
    assert!(KUBERNETES.contains(&format!("{{ name: admin, containerPort: {} }}", config.admin.bind.port())));
}

#[test]
fn whoever_stops_the_gateway_waits_longer_than_its_grace() {
    let grace = load("gateway.yaml", EXAMPLE).shutdown_grace.as_secs();
    assert!(seconds(SYSTEMD, "TimeoutStopSec=") > grace);
    let sleep = seconds(KUBERNETES, "[sleep, \"");
    assert!(seconds(KUBERNETES, "terminationGracePeriodSeconds: ") > sleep + grace);
}

#[test]
fn the_operations_page_explains_every_metric() {
    let missing: Vec<_> = families::ALL
        .iter()
        .map(|family| family.name)
        .filter(|name| !OPERATIONS.contains(&format!("`{name}`")) && !OPERATIONS.contains(&format!("`{name}{{")))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
