//! nginx's configuration.

use crate::Outcome;
use crate::contenders::Setup;
use crate::workloads::{Face, MANY_ROUTES, many_prefix};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

pub(super) fn text(setup: &Setup, home: &Path, port: u16) -> Outcome<String> {
    let (home, connections, workers) = (home.display(), setup.connections, setup.workers);
    let access = if setup.settings.access_log { format!("{home}/access.log combined") } else { "off".into() };
    let buffers = if setup.settings.large_buffers { "proxy_buffer_size 16k; proxy_buffers 8 16k;" } else { "" };
    let fields = if setup.settings.bare_peers { "" } else { FIELDS };
    // Later versions would have `http2 on` instead, and still take this with a warning.
    let listen = match setup.face {
        Face::Http1 | Face::Many | Face::Cache => "",
        Face::Http2 | Face::Grpc => "http2",
        Face::Tls(_) => "ssl http2",
    };
    let tls = setup.files().map_or(String::new(), |files| {
        let (certificate, key) = (files.certificate.display(), files.key.display());
        format!("ssl_certificate {certificate};\n    ssl_certificate_key {key};\n    ssl_protocols TLSv1.2 TLSv1.3;")
    });
    // Of its modules only the one for gRPC speaks HTTP/2 to an upstream.
    let (pass, fields) = match setup.face {
        Face::Grpc => ("grpc_pass grpc:", fields.replace("proxy_", "grpc_")),
        _ => ("proxy_pass http:", fields.to_owned()),
    };
    let cache = if setup.face == Face::Cache {
        let folder = setup.memory.join(format!("nginx-{port}"));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder)?;
        format!("proxy_cache_path {} {CACHE}", folder.display())
    } else {
        String::new()
    };
    let (mut servers, mut locations) = (String::new(), String::new());
    for address in setup.providers() {
        let _ = writeln!(servers, "    server {address};");
    }
    for at in 0..if setup.face == Face::Many { MANY_ROUTES } else { 0 } {
        let _ = writeln!(locations, "    location {}/ {{ {pass}//main; }}", many_prefix(at));
    }
    // Under an instrument there is one process to look at; otherwise a master and its worker, as everywhere.
    let master = if setup.under.is_empty() { "on" } else { "off" };
    // The worker would otherwise become a user who may not enter the scratch folder.
    let user = if rustix::process::getuid().is_root() { "user root;" } else { "" };
    Ok(format!(
        "\
{user}
daemon off;
master_process {master};
worker_processes {workers};
pid {home}/pid;
error_log {home}/error.log warn;
events {{ worker_connections {connections}; }}
http {{
  access_log {access};
  client_body_temp_path {home}/body;
  proxy_temp_path {home}/proxy;
  fastcgi_temp_path {home}/fastcgi;
  uwsgi_temp_path {home}/uwsgi;
  scgi_temp_path {home}/scgi;
  keepalive_timeout 75s;
  keepalive_requests 1000000000;
  # Nothing is spooled to disk: with a client this fast it would only cost nginx time.
  proxy_max_temp_file_size 0;
  {buffers}
  {cache}
  proxy_http_version 1.1;
  proxy_set_header Connection \"\";
  proxy_set_header Host $http_host;
  grpc_set_header Host $http_host;
  {fields}
  upstream main {{
    least_conn;
{servers}
    keepalive {KEPT_CONNECTIONS};
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port} {listen} backlog=4096;
    {tls}
    location / {{ {pass}//main; }}
    location /stream {{ proxy_pass http://main;  }}
    # What is set here replaces all that is set above.
    location /echo {{
      proxy_pass http://main;
      proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection \"upgrade\";
      {fields}
    }}
{locations}
  }}
}}
"
    ))
}

/// What Sluice writes into requests and answers, in nginx's words.
const FIELDS: &str = "\
proxy_set_header X-Forwarded-For $remote_addr;
  proxy_set_header X-Forwarded-Proto $scheme;
  proxy_set_header X-Request-Id $request_id;
  proxy_set_header Via \"1.1 nginx\";
  proxy_set_header X-Edge bench;
  proxy_set_header X-Provider bench;
  proxy_set_header X-Debug \"\";
  proxy_hide_header X-Powered-By;
  add_header X-Request-Id $request_id;
  add_header Via \"1.1 nginx\";
  add_header X-Served bench;";

/// nginx's cache: files in memory, which stay open, sent from memory (for a small answer quicker than `sendfile`).
const CACHE: &str = "\
levels=1:2 keys_zone=kept:8m max_size=64m inactive=1d use_temp_path=off;
  proxy_cache kept;
  open_file_cache max=1000 inactive=1d;
  open_file_cache_valid 1d;
  open_file_cache_min_uses 1;";

/// Idle connections to all providers together; more than any workload leaves.
const KEPT_CONNECTIONS: usize = 512;
