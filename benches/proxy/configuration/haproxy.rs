//! HAProxy's configuration.

use crate::Outcome;
use crate::contenders::Setup;
use crate::workloads::{Face, MANY_ROUTES, many_prefix};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

pub(super) fn text(setup: &Setup, home: &Path, port: u16) -> Outcome<String> {
    let (connections, workers) = (setup.connections, setup.workers);
    let fields = if setup.settings.bare_peers { "" } else { FIELDS };
    let fields = fields.replace("SCHEME", setup.face.scheme());
    let bind = match (setup.face, setup.files()) {
        (Face::Http1 | Face::Many | Face::Cache, _) => String::new(),
        (_, None) => "proto h2".to_owned(),
        (_, Some(files)) => format!("ssl crt {} alpn h2,http/1.1", files.both.display()),
    };
    let server = if setup.face == Face::Grpc { "proto h2" } else { "" };
    let (cache, use_cache) = match setup.face {
        Face::Cache => (CACHE, USE_CACHE),
        _ => ("", ""),
    };
    // Its standard output is a file here.
    let (log, httplog) = if setup.settings.access_log {
        ("log stdout format raw local0 info", "log global\n  option httplog")
    } else {
        ("", "")
    };
    let mut use_map = String::new();
    if setup.face == Face::Many {
        let map = home.join("routes.map");
        let mut lines = String::new();
        for at in 0..MANY_ROUTES {
            let _ = writeln!(lines, "{}/ main", many_prefix(at));
        }
        fs::write(&map, lines)?;
        use_map = format!("use_backend %[path,map_beg({},main)]", map.display());
    }
    let interval = setup.check_interval();
    let (mut servers, mut followers) = (String::new(), String::new());
    for (at, address) in setup.providers().iter().enumerate() {
        let _ = writeln!(servers, "  server p{at} {address} {server} check inter {interval} fall 3 rise 2");
        let _ = writeln!(followers, "  server p{at} {address} {server} track main/p{at}");
    }
    Ok(format!(
        "\
global
  nbthread {workers}
  maxconn {connections}
  # It asks for two files per connection, also where clients are idle; fewer are no reason not to start.
  no strict-limits
  {log}
{cache}
defaults
  mode http
  {httplog}
  timeout connect 5s
  timeout client 75s
  timeout server 60s
  timeout http-keep-alive 75s
  timeout tunnel 1h
  http-reuse always
  balance leastconn
frontend web
  bind 127.0.0.1:{port} backlog 4096 {bind}
  {fields}
  use_backend stream if {{ path /stream }}
  {use_map}
  default_backend main
backend main
  {use_cache}
  option httpchk GET /healthz
{servers}
backend stream
  # Without it small chunks are held back until the stream ends or 200 ms have passed.
  option http-no-delay
{followers}
"
    ))
}

/// What Sluice writes into requests and answers, in HAProxy's words.
const FIELDS: &str = "\
http-request set-var(txn.id) uuid()
  http-request set-header X-Forwarded-For %[src]
  http-request set-header X-Forwarded-Proto SCHEME
  http-request set-header X-Request-Id %[var(txn.id)]
  http-request add-header Via \"1.1 haproxy\"
  http-request set-header X-Edge bench
  http-request set-header X-Provider bench
  http-request del-header X-Debug
  http-response set-header X-Request-Id %[var(txn.id)]
  http-response add-header Via \"1.1 haproxy\"
  http-response set-header X-Served bench
  http-response del-header X-Powered-By";

/// HAProxy's cache.
const CACHE: &str = "\
cache kept
  total-max-size 64
  max-age 86400";

/// And what makes a backend use it. It says in a `304` how long the body would be; wrk waits for that.
const USE_CACHE: &str = "\
http-request cache-use kept
  http-response cache-store kept
  http-after-response del-header content-length if { status 304 }";
