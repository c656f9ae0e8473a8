//! The proxies under test: how each is configured for the same job, started, checked, and given up on.
//!
//! The job: one worker, keep-alive to clients and to the upstream, no access log unless asked for, and the forwarding
//! fields that Sluice writes (`X-Forwarded-For`, `X-Forwarded-Proto`, `X-Request-Id`, `Via`) written by everyone. The
//! upstream is asked what it really received, so a contender that does less than the others is not measured.

use crate::Outcome;
use crate::certificates::{Files, Key};
use crate::client::{self, Client};
use crate::load;
use crate::process::{Group, now, pause};
use crate::upstream;
use crate::wire::Dialer;
use crate::workloads::{Face, Visit, Workload};
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A proxy that takes part.
#[derive(Debug, Clone)]
pub(crate) struct Contender {
    /// Which one.
    pub(crate) kind: Kind,
    /// The program.
    pub(crate) program: PathBuf,
    /// What it says its version is.
    pub(crate) version: String,
}

/// The proxies this benchmark knows. To add one: a variant, its name, its configuration, its command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Ours.
    Sluice,
    /// Debian's nginx.
    Nginx,
    /// Debian's Varnish, for what is answered from a cache.
    Varnish,
    /// Debian's HAProxy.
    Haproxy,
}

/// How contenders are configured.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Settings {
    /// Every contender writes its access log to a file
    #[arg(long)]
    pub(crate) access_log: bool,
    /// nginx and HAProxy only forward: they write none of the fields that Sluice does
    #[arg(long)]
    pub(crate) bare_peers: bool,
    /// nginx reads answers in pieces of 16 KiB, as HAProxy does, instead of its default of 4 KiB
    #[arg(long)]
    pub(crate) large_buffers: bool,
}

/// What a contender is started for.
#[derive(Debug, Clone)]
pub(crate) struct Setup<'a> {
    /// What it shows to clients.
    pub(crate) face: Face,
    /// Files of this run, the certificates among them.
    pub(crate) scratch: &'a Path,
    /// A folder in memory, if there is such a thing.
    pub(crate) memory: &'a Path,
    /// Where requests go.
    pub(crate) upstream: SocketAddr,
    /// The contender's core.
    pub(crate) core: usize,
    /// What was asked for on the command line.
    pub(crate) settings: Settings,
    /// Connections it must be able to hold at once, to both sides.
    pub(crate) connections: usize,
    /// A program and its arguments to run the contender under, as a single process; it may be slow.
    pub(crate) under: Vec<String>,
}

/// A contender that runs and answers.
#[derive(Debug)]
pub(crate) struct Running {
    /// Which one.
    pub(crate) kind: Kind,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Its processes.
    pub(crate) group: Group,
}

// === impl Kind ===

impl Kind {
    /// In the order they are shown.
    pub(crate) const ALL: [Kind; 4] = [Kind::Sluice, Kind::Nginx, Kind::Varnish, Kind::Haproxy];

    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Sluice => "Sluice",
            Kind::Nginx => "nginx",
            Kind::Varnish => "Varnish",
            Kind::Haproxy => "HAProxy",
        }
    }

    /// Whether it takes part with this face at all.
    pub(crate) fn has(self, face: Face) -> bool {
        self != Kind::Varnish || face == Face::Cache
    }

    /// Those that Sluice is compared with at this face.
    pub(crate) fn peers(face: Face) -> impl Iterator<Item = Kind> {
        Kind::ALL.into_iter().filter(move |kind| *kind != Kind::Sluice && kind.has(face))
    }

    fn version_argument(self) -> &'static str {
        match self {
            Kind::Sluice => "--version",
            Kind::Nginx | Kind::Haproxy => "-v",
            Kind::Varnish => "-V",
        }
    }

    fn configuration(self, setup: &Setup, home: &Path, port: u16) -> Outcome<String> {
        match self {
            Kind::Sluice => sluice_configuration(setup, home, port),
            Kind::Nginx => nginx_configuration(setup, home, port),
            Kind::Varnish => Ok(varnish_configuration(setup)),
            Kind::Haproxy => Ok(haproxy_configuration(setup, port)),
        }
    }

    fn arguments(self, setup: &Setup, file: &Path, address: SocketAddr) -> Vec<String> {
        let home = file.parent().unwrap_or(Path::new("/")).display();
        let file = file.display().to_string();
        match self {
            Kind::Sluice => vec!["run".into(), "-c".into(), file],
            Kind::Nginx => vec!["-c".into(), file],
            Kind::Varnish => varnish_arguments(setup, &file, &home.to_string(), address),
            // -db: no daemon, no master.
            Kind::Haproxy => vec!["-db".into(), "-f".into(), file],
        }
    }
}

// === impl Settings ===

impl Settings {
    /// For the head of a report.
    pub(crate) fn describe(self) -> String {
        let log = if self.access_log { "access log on" } else { "access log off" };
        let fields = if self.bare_peers { ", peers add no fields" } else { "" };
        let buffers = if self.large_buffers { ", nginx with buffers of 16 KiB" } else { "" };
        format!("one worker each, {log}{fields}{buffers}")
    }
}

// === impl Contender ===

impl Contender {
    /// A contender whose program runs, with the version it prints.
    pub(crate) fn find(kind: Kind, program: &Path) -> Outcome<Contender> {
        let output = Command::new(program).arg(kind.version_argument()).output();
        let output = output.map_err(|error| format!("{} cannot be run: {error}", program.display()))?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let words = text.lines().next().unwrap_or("").split([' ', '/', '(', '-']);
        let version = words.filter(|word| !word.is_empty()).find(|word| word.contains('.'));
        let version = version.unwrap_or("of unknown version").trim_start_matches("varnish-").to_owned();
        Ok(Contender { kind, program: program.to_owned(), version })
    }

    /// Starts it and waits until it answers as it should.
    pub(crate) fn start(&self, setup: &Setup) -> Outcome<Running> {
        let address = free_address()?;
        let home = setup.scratch.join(format!("{}-{}", self.kind.name(), address.port()));
        fs::create_dir(&home)?;
        let file = home.join(if self.kind == Kind::Sluice { "gateway.yaml" } else { "conf" });
        fs::write(&file, self.kind.configuration(setup, &home, address.port())?)?;

        let mut line = setup.under.clone();
        line.push(self.program.display().to_string());
        line.extend(self.kind.arguments(setup, &file, address));
        let group = Group::start(Path::new(&line[0]), &line[1..], setup.core, &home.join("output"))?;
        let mut running = Running { kind: self.kind, address, group };
        let patience = if setup.under.is_empty() { PATIENCE } else { PATIENCE_INSTRUMENTED };
        running.wait_until_it_answers(setup, patience)?;
        let fields = self.kind == Kind::Sluice || !setup.settings.bare_peers;
        for workload in Workload::of(setup.face) {
            let missed = upstream::asked_for_kept(setup.upstream)?;
            check_answer(workload, address, setup.scratch, fields)
                .map_err(|error| format!("{error} ({})\n  it printed:\n{}", workload.title, running.said()))?;
            let asked = upstream::asked_for_kept(setup.upstream)? - missed;
            if asked > 1 || workload.status == 304 && asked > 0 {
                return Err(format!("{}: it asked the upstream again", workload.title).into());
            }
        }
        Ok(running)
    }
}

// === impl Setup ===

impl Setup<'_> {
    /// The certificate to show, where there is one.
    fn files(&self) -> Option<Files> {
        let key: Option<Key> = if let Face::Tls(key) = self.face { Some(key) } else { None };
        key.map(|key| key.files(self.scratch))
    }
}

// === impl Running ===

impl Running {
    fn wait_until_it_answers(&mut self, setup: &Setup, patience: Duration) -> Outcome<()> {
        let deadline = now() + patience;
        loop {
            let tried = match Workload::of(setup.face).next() {
                Some(workload) if !workload.by_wrk() => ask_once(workload, self.address, setup.scratch),
                _ => client::fetch(self.address, "GET /1k", b"").map(drop),
            };
            let Err(problem) = tried else { return Ok(()) };
            let fate = match (self.group.alive(), now() < deadline) {
                (true, true) => {
                    pause(Duration::from_millis(20));
                    continue;
                }
                (true, false) => format!("did not answer within {} s ({problem})", patience.as_secs()),
                (false, _) => format!("ended: {}", self.group.last_words().lines().next().unwrap_or_default()),
            };
            return Err(format!("it {fate}\n  it printed:\n{}", self.said()).into());
        }
    }

    fn said(&self) -> String {
        indent(&self.group.last_words())
    }
}

/// Whether a workload's answer arrives complete through the proxy at `address`, a stream as it comes, and whether both
/// ends see the fields that all contenders must write.
fn check_answer(workload: &'static Workload, address: SocketAddr, scratch: &Path, fields: bool) -> Outcome<()> {
    if !workload.by_wrk() {
        let dialer = Dialer::new(workload, address, scratch)?;
        return load::runtime()?.block_on(load::within(load::PATIENCE, check_wire(&dialer, workload, fields)));
    }
    // What a cache can answer is asked for twice, of which the second is a hit.
    let mut client = Client::connect(address)?;
    let mut ask = || client.ask_with(&workload.request_line(), workload.field, &workload.body());
    let first = ask()?;
    let reply = if workload.face == Face::Cache { ask()? } else { first };
    if reply.status != workload.status {
        return Err(format!("{} gave {} instead of {}", workload.path, reply.status, workload.status).into());
    }
    if reply.body.len() != workload.answer_bytes {
        let (got, want) = (reply.body.len(), workload.answer_bytes);
        return Err(format!("{} brought {got} bytes instead of {want}", workload.path).into());
    }
    if workload.path == upstream::STREAM_PATH && reply.body_took < upstream::STREAM_TAKES / 2 {
        return Err(format!("it held the stream back: all of it came within {:?}", reply.body_took).into());
    }
    if fields {
        let asked = format!("{} {}", workload.method(), upstream::HEAD_PATH);
        check_fields(&client::fetch(address, &asked, &workload.body())?)?;
        check_answer_fields(&reply)?;
    }
    Ok(())
}

async fn check_wire(dialer: &Dialer, workload: &Workload, fields: bool) -> Outcome<()> {
    dialer.ask(&mut dialer.open_first().await?).await?;
    if workload.visit == Visit::Again {
        // The first connection brought the tickets.
        dialer.ask(&mut dialer.open().await?).await?;
    }
    if fields {
        check_fields(&dialer.ask_for(&mut dialer.open_first().await?, upstream::HEAD_PATH).await?)?;
    }
    Ok(())
}

fn ask_once(workload: &'static Workload, address: SocketAddr, scratch: &Path) -> Outcome<()> {
    let dialer = Dialer::new(workload, address, scratch)?;
    let asking = async { dialer.ask(&mut dialer.open_first().await?).await.map(drop) };
    load::runtime()?.block_on(load::within(load::PATIENCE, asking))
}

/// Whether the upstream, whose answer holds the head it received, and the client see what all contenders must write.
fn check_fields(reply: &client::Reply) -> Outcome<()> {
    let head = String::from_utf8_lossy(&reply.body).to_ascii_lowercase();
    for name in ["x-forwarded-for", "x-forwarded-proto", "x-request-id", "via"] {
        if !head.contains(&format!("\n{name}:")) {
            return Err(format!("it does not send {name} to the upstream, as the others do").into());
        }
    }
    check_answer_fields(reply)
}

fn check_answer_fields(reply: &client::Reply) -> Outcome<()> {
    for name in ["x-request-id", "via"] {
        reply.field(name).ok_or_else(|| format!("its answers lack {name}, which the others write"))?;
    }
    Ok(())
}

// === configurations ===

fn sluice_configuration(setup: &Setup, home: &Path, port: u16) -> Outcome<String> {
    let admin = free_address()?;
    let log = if setup.settings.access_log {
        format!("{{ access: true, format: json, file: {}/access.log }}", home.display())
    } else {
        "{ access: false }".to_owned()
    };
    let tls = setup.files().map_or(String::new(), |files| {
        let (certificate, key) = (files.certificate.display(), files.key.display());
        format!("tls: {{ certificates: [{{ cert: \"{certificate}\", key: \"{key}\" }}] }}")
    });
    let scheme = if setup.face == Face::Grpc { "h2c" } else { "http" };
    let cache = if setup.face == Face::Cache { "cache: {}" } else { "" };
    let upstream = setup.upstream;
    Ok(format!(
        "\
version: 1
workers: 1
listeners:
  - name: web
    bind: 127.0.0.1:{port}
    {tls}
admin:
  bind: {admin}
log: {log}
providers:
  upstream: {{ url: \"{scheme}://{upstream}\" }}
pools:
  main: {{ providers: [upstream] }}
routes:
  - name: all
    match: {{ path: \"/*\" }}
    pool: main
    {cache}
"
    ))
}

fn nginx_configuration(setup: &Setup, home: &Path, port: u16) -> Outcome<String> {
    let (upstream, home, connections) = (setup.upstream, home.display(), setup.connections);
    let access = if setup.settings.access_log { format!("{home}/access.log combined") } else { "off".into() };
    let buffers = if setup.settings.large_buffers { "proxy_buffer_size 16k; proxy_buffers 8 16k;" } else { "" };
    let fields = if setup.settings.bare_peers { "" } else { NGINX_FIELDS };
    // Later versions would have `http2 on` instead, and still take this with a warning.
    let listen = match setup.face {
        Face::Http1 | Face::Cache => "",
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
        fs::create_dir(&folder)?;
        format!("proxy_cache_path {} {NGINX_CACHE}", folder.display())
    } else {
        String::new()
    };
    // Under an instrument there is one process to look at; otherwise a master and its worker, as everywhere.
    let master = if setup.under.is_empty() { "on" } else { "off" };
    // The worker would otherwise become a user who may not enter the scratch folder.
    let user = if rustix::process::getuid().is_root() { "user root;" } else { "" };
    Ok(format!(
        "\
{user}
daemon off;
master_process {master};
worker_processes 1;
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
    server {upstream};
    keepalive 128;
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port} {listen} backlog=4096;
    {tls}
    location / {{ {pass}//main; }}
    location /stream {{ proxy_pass http://main;  }}
  }}
}}
"
    ))
}

fn haproxy_configuration(setup: &Setup, port: u16) -> String {
    let (upstream, connections) = (setup.upstream, setup.connections);
    let fields = if setup.settings.bare_peers { "" } else { HAPROXY_FIELDS };
    let fields = fields.replace("SCHEME", setup.face.scheme());
    let bind = match (setup.face, setup.files()) {
        (Face::Http1 | Face::Cache, _) => String::new(),
        (_, None) => "proto h2".to_owned(),
        (_, Some(files)) => format!("ssl crt {} alpn h2,http/1.1", files.both.display()),
    };
    let server = if setup.face == Face::Grpc { "proto h2" } else { "" };
    let (cache, use_cache) = match setup.face {
        Face::Cache => (HAPROXY_CACHE, HAPROXY_USE_CACHE),
        _ => ("", ""),
    };
    // Its standard output is a file here.
    let (log, httplog) = if setup.settings.access_log {
        ("log stdout format raw local0 info", "log global\n  option httplog")
    } else {
        ("", "")
    };
    format!(
        "\
global
  nbthread 1
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
  http-reuse always
frontend web
  bind 127.0.0.1:{port} backlog 4096 {bind}
  {fields}
  use_backend stream if {{ path /stream }}
  default_backend main
backend main
  {use_cache}
  server upstream {upstream} {server}
backend stream
  # Without it small chunks are held back until the stream ends or 200 ms have passed.
  option http-no-delay
  server upstream {upstream}
"
    )
}

fn varnish_configuration(setup: &Setup) -> String {
    let (address, port) = (setup.upstream.ip(), setup.upstream.port());
    let fields = if setup.settings.bare_peers { "" } else { VARNISH_FIELDS };
    format!(
        "\
vcl 4.1;
backend upstream {{ .host = \"{address}\"; .port = \"{port}\"; }}
{fields}
"
    )
}

/// In the foreground, its cache in memory, as many threads as there are clients and some, which stay.
fn varnish_arguments(setup: &Setup, file: &str, home: &str, address: SocketAddr) -> Vec<String> {
    let words = format!(
        "-F -n {home}/varnish -j none -a {address} -f {file} -s malloc,64M -s Transient=malloc,64M \
         -p thread_pools=1 -p thread_pool_min=64 -p thread_pool_max=64"
    );
    let mut words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
    if !setup.settings.access_log {
        // Its log in shared memory is its access log; whoever wants none masks what requests write there.
        words.extend(["-p".into(), VARNISH_QUIET.into()]);
    }
    words
}

// === small things ===

/// A loopback address whose port was free a moment ago.
fn free_address() -> Outcome<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

/// What Sluice writes into requests and answers, in nginx's words.
const NGINX_FIELDS: &str = "\
proxy_set_header X-Forwarded-For $remote_addr;
  proxy_set_header X-Forwarded-Proto $scheme;
  proxy_set_header X-Request-Id $request_id;
  proxy_set_header Via \"1.1 nginx\";
  add_header X-Request-Id $request_id;
  add_header Via \"1.1 nginx\";";

/// The same in HAProxy's.
const HAPROXY_FIELDS: &str = "\
http-request set-var(txn.id) uuid()
  http-request set-header X-Forwarded-For %[src]
  http-request set-header X-Forwarded-Proto SCHEME
  http-request set-header X-Request-Id %[var(txn.id)]
  http-request add-header Via \"1.1 haproxy\"
  http-response set-header X-Request-Id %[var(txn.id)]
  http-response add-header Via \"1.1 haproxy\"";

/// nginx's cache: files in memory, which stay open, sent from memory (for a small answer quicker than `sendfile`).
const NGINX_CACHE: &str = "\
levels=1:2 keys_zone=kept:8m max_size=64m inactive=1d use_temp_path=off;
  proxy_cache kept;
  open_file_cache max=1000 inactive=1d;
  open_file_cache_valid 1d;
  open_file_cache_min_uses 1;";

/// HAProxy's.
const HAPROXY_CACHE: &str = "\
cache kept
  total-max-size 64
  max-age 86400";

/// And what makes a backend use it. It says in a `304` how long the body would be; wrk waits for that.
const HAPROXY_USE_CACHE: &str = "\
http-request cache-use kept
  http-response cache-store kept
  http-after-response del-header content-length if { status 304 }";

/// What Sluice writes, in Varnish's words. `Age` and `Via` it writes by itself, and a number of the request.
const VARNISH_FIELDS: &str = "\
sub vcl_backend_fetch {
  set bereq.http.X-Forwarded-Proto = \"http\";
  set bereq.http.X-Request-Id = bereq.xid;
  set bereq.http.Via = \"1.1 varnish\";
}
sub vcl_deliver {
  unset resp.http.X-Varnish;
  set resp.http.X-Request-Id = req.xid;
}";

/// Leaves all tags out that a request writes.
const VARNISH_QUIET: &str = "vsl_mask=-Begin,-End,-Link,-ReqStart,-ReqMethod,-ReqURL,-ReqProtocol,-ReqHeader,-ReqUnset,\
-ReqAcct,-RespProtocol,-RespStatus,-RespReason,-RespHeader,-RespUnset,-Hit,-VCL_call,-VCL_return,-VCL_use,-Timestamp,\
-Filters,-Length,-SessOpen,-SessClose";

/// How long a contender may take until its first answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The same under valgrind.
const PATIENCE_INSTRUMENTED: Duration = Duration::from_mins(2);
