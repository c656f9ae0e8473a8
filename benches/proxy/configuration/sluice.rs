//! Sluice's configuration: *full*, which is to say that whatever can be switched on is on.

use crate::Outcome;
use crate::contenders::{Setup, free_address};
use crate::workloads::{Face, MANY_ROUTES, many_prefix};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

pub(super) fn text(setup: &Setup, home: &Path, port: u16) -> Outcome<String> {
    let (admin, workers) = (free_address()?, setup.workers);
    let log = if setup.settings.access_log {
        // Not beside the configuration: that folder is watched, and every line would be a change in it.
        let logs = home.join("logs");
        fs::create_dir(&logs)?;
        format!("{{ access: true, format: json, file: {}/access.log }}", logs.display())
    } else {
        "{ access: false }".to_owned()
    };
    let tls = setup.files().map_or(String::new(), |files| {
        let (certificate, key) = (files.certificate.display(), files.key.display());
        let certificates = format!("certificates: [{{ cert: \"{certificate}\", key: \"{key}\" }}]");
        format!("tls: {{ {certificates}, min_version: \"1.2\", handshake_timeout: 10s, handshakes: 100 }}")
    });
    let (connections, home) = (setup.connections.max(20_000), home.display());
    Ok(format!(
        "\
version: 1
workers: {workers}
listeners:
  - name: web
    bind: 127.0.0.1:{port}
    protocols: [http1, http2]
    {tls}
    # Whoever comes from there begins with a PROXY header; each peer is compared with it.
    proxy_protocol: true
    trusted_proxies: [192.0.2.0/24, \"2001:db8::/32\"]
    limits: {{ connections: {connections}, connections_per_address: 1000, header_timeout: 10s, header_bytes: 64KiB,
              headers: 100, body_bytes: 100MiB, idle_timeout: 75s, h2_streams: 128, min_body_rate: 1KiB/s,
              connection_age: 1h }}
admin:
  bind: {admin}
  tokens: [{{ name: operator, token: not-so-secret, role: operate }}]
shutdown: {{ grace: 5s }}
reload: {{ watch: true }}
log: {log}
store: {{ path: {home}/data }}
memory: {{ buffers: 256MiB, cache: 256MiB }}
clients:
  mobile: {{ keys: [dev-key], max_class: high, share: 2 }}
  office: {{ addresses: [127.0.0.0/8], max_class: high, share: 3 }}
  anonymous: {{ max_class: normal }}
{}
{}
{}",
        DEFAULTS.replace("INTERVAL", setup.check_interval()),
        providers(setup),
        routes(setup),
    ))
}

/// Providers and the two pools of them; a spare one stands by.
fn providers(setup: &Setup) -> String {
    let scheme = if setup.face == Face::Grpc { "h2c" } else { "http" };
    let mut text = String::from("providers:\n");
    let mut names = String::new();
    for (at, address) in setup.providers().iter().enumerate() {
        let _ = writeln!(text, "  p{at}: {{ url: \"{scheme}://{address}\" }}");
        let _ = write!(names, "{{ name: p{at}, weight: 1 }}, ");
    }
    let _ = writeln!(text, "  spare: {{ url: \"{scheme}://{}\" }}", setup.upstream);
    let _ = writeln!(text, "pools:\n  main: {{ providers: [{names}{{ name: spare, backup: true }}] }}");
    text + "  last_resort: { providers: [spare] }\n"
}

/// The route that is asked, and others beside it, so that there is something to choose from.
fn routes(setup: &Setup) -> String {
    let cache = if setup.face == Face::Cache { CACHE } else { "" };
    let mut text = format!(
        "\
routes:
  - {{ name: alive, match: {{ path: /alive }}, respond: {{ status: 200, body: \"yes\" }} }}
  - {{ name: old, match: {{ path: /old/* }}, redirect: {{ to: \"https://{{host}}{{path}}{{query}}\" }} }}
  - name: search
    match: {{ hosts: [search.test, \"*.search.test\"], path: /search/*, path_regex: \"/search/[a-z]+\",
             headers: {{ x-tenant: {{ present: true }} }}, query: {{ q: {{ regex: \"^.+$\" }} }} }}
    pool: main
    rewrite: {{ strip_prefix: /search, add_prefix: /v2 }}
  - name: pages
    match: {{ path: /pages/*, methods: [GET, HEAD] }}
    pool: main
    {CACHE}
    degrade: [ {{ stale: {{ max_age: 1h }} }}, {{ static: {{ status: 503, body: \"later\" }} }} ]
  - name: all
    match: {{ path: \"/*\", methods: [GET, HEAD, POST, PUT, DELETE] }}
    pool: main
    {cache}
"
    );
    if setup.face == Face::Many {
        for at in 0..MANY_ROUTES {
            let prefix = many_prefix(at);
            let _ = writeln!(text, "  - {{ name: r{at}, match: {{ path: \"{prefix}/*\" }}, pool: main }}");
        }
    }
    text
}

/// Laid under each provider, pool and route.
const DEFAULTS: &str = "\
defaults:
  provider:
    headers: { set: { x-provider: bench }, remove: [x-internal] }
    limits: { concurrency: 1024, rate: 1000000/s, burst: 10000, max_cooldown: 5m }
    cost: 1.5
    timeouts: { connect: 2s, first_byte: 10s, idle: 60s }
    circuit_breaker: { failure_threshold: 5, failure_rate: 0.5, window: 10s, minimum_requests: 20, recovery_timeout: 5s,
                       half_open_requests: 1, success_threshold: 2, failures: [connect, timeout, reset, 5xx],
                       slow_call: 8s }
    health_check: { path: /healthz, interval: INTERVAL, timeout: 1s, healthy_after: 2, unhealthy_after: 3 }
    host: preserve
    slow_start: 1s
    deadline_header: x-deadline-ms
    connections: { idle: 128, idle_timeout: 30s, max_age: 10m, streams: 100, ping: 30s }
  pool:
    balance: least_connections
    queue: { capacity: 1000, timeout: 5s, weights: { high: 16, normal: 4, low: 1 }, reserve_high: 0.1, heartbeat: 15s }
  route:
    class: { default: normal, header: x-priority }
    timeout: 30s
    stream_timeout: 1h
    rewrite:
      headers: { set: { x-edge: bench }, remove: [x-debug] }
      response_headers: { set: { x-served: bench }, remove: [x-powered-by] }
    retry:
      attempts: 3
      on: [connect, reset, timeout, 429, 502, 503, 504]
      methods: idempotent
      idempotency_key: true
      refused: [429]
      backoff: { initial: 25ms, multiplier: 2, max: 1s, jitter: full }
      attempt_timeout: 10s
      budget: { ratio: 0.2, min_per_second: 10 }
      replay_bytes: 1MiB
      commit: { bytes: 16KiB, within: 100ms }
      # Armed for each request; a quantile would send more of them out, also while all is well.
      hedge: { after: 5s, budget: 0.05 }
    degrade:
      - { pool: last_resort, enter: { error_rate: 0.5 } }
      - { reduced: { set_headers: { x-mode: lite } }, on: [attempts_exhausted] }
      - { static: { status: 503, body: later }, enter: { queue: 0.8, latency: 10s }, leave: { queue: 0.4, latency: 5s } }
";

/// A route's cache.
const CACHE: &str = "cache: { ttl: 60s, stale_while_revalidate: 30s, stale_if_error: 1h, max_object: 4MiB }";
