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
const SOCKET: &str = include_str!("../deploy/sluice.socket");
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
    let end = |config: &Config| (config.shutdown_delay + config.shutdown_grace).as_secs();
    assert!(seconds(SYSTEMD, "TimeoutStopSec=") > end(&load("gateway.yaml", EXAMPLE)));
    let pod = load("kubernetes.yaml", &in_config_map());
    assert!(!pod.shutdown_delay.is_zero(), "its address leaves the Service meanwhile");
    assert!(seconds(KUBERNETES, "terminationGracePeriodSeconds: ") > end(&pod));
}

#[test]
fn the_unit_lets_systemd_follow_a_start_a_reload_a_hand_over_and_a_worker_that_hangs() {
    for line in ["Type=notify-reload", "NotifyAccess=main", "KillMode=mixed", "KillSignal=SIGTERM"] {
        assert!(SYSTEMD.lines().any(|written| written == line), "{line}");
    }
    assert!(seconds(SYSTEMD, "WatchdogSec=") > 0);
    assert!(SYSTEMD.contains("RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX"), "a hand-over goes by unix sockets");
}

#[test]
fn the_socket_unit_is_for_a_listener_of_the_example() {
    let value = |key: &str| SOCKET.lines().find_map(|line| line.strip_prefix(key)).expect("it is there");
    let config = load("gateway.yaml", EXAMPLE);
    let listener = config.listeners.iter().find(|listener| *listener.name == *value("FileDescriptorName="));
    assert_eq!(listener.expect("a listener").bind.to_string(), value("ListenStream="));
}

#[test]
fn the_operations_page_quotes_what_a_hand_over_says() {
    let code = [include_str!("../src/cli/run.rs"), include_str!("../src/server/handover/successor.rs")].concat();
    for words in [
        "USR2: a new process is started to take over",
        "the new process has taken over",
        "draining; a second signal stops at once",
        "taken over from the process before",
        "all that was under way has ended; stopping",
        "the new process did not take over, this one goes on serving",
        "it ended before it was ready",
        "it was not ready within",
        "cannot be started: ",
    ] {
        assert!(code.contains(words) && OPERATIONS.contains(words), "{words}");
    }
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
