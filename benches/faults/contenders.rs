//! The proxies under test, each configured as well as an operator can who knows what its providers do. `README.md` beside
//! this file says why each is as it is.

use crate::Outcome;
use crate::load::Clients;
use crate::process::{Cores, Group, now};
use crate::provider::ANSWER;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

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

/// The proxies this benchmark knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Ours.
    Sluice,
    /// Debian's nginx.
    Nginx,
    /// Debian's HAProxy.
    Haproxy,
    /// Debian's Caddy.
    Caddy,
}

/// What a contender is configured for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Job {
    /// Providers fail.
    Faults,
    /// Too much is asked of them.
    Overload,
    /// All of them fail, and then the spare one, which is the last that is given.
    Ladder,
}

/// A contender that runs and answers.
#[derive(Debug)]
pub(crate) struct Running {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Where it can be asked how it is, if it is Sluice.
    pub(crate) admin: SocketAddr,
    /// Its processes.
    pub(crate) group: Group,
}

// === impl Kind ===

impl Kind {
    /// In the order they are shown.
    pub(crate) const ALL: [Kind; 4] = [Kind::Sluice, Kind::Nginx, Kind::Haproxy, Kind::Caddy];

    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Sluice => "Sluice",
            Kind::Nginx => "nginx",
            Kind::Haproxy => "HAProxy",
            Kind::Caddy => "Caddy",
        }
    }

    /// Its Debian package, which is named like its program.
    pub(crate) fn package(self) -> Option<&'static str> {
        match self {
            Kind::Sluice => None,
            Kind::Nginx => Some("nginx"),
            Kind::Haproxy => Some("haproxy"),
            Kind::Caddy => Some("caddy"),
        }
    }

    /// Whether it has a queue with classes.
    pub(crate) fn queues(self) -> bool {
        matches!(self, Kind::Sluice | Kind::Haproxy)
    }

    /// Whether it keeps answers and gives them when they are stale.
    pub(crate) fn keeps(self) -> bool {
        matches!(self, Kind::Sluice | Kind::Nginx)
    }

    fn version_argument(self) -> &'static str {
        match self {
            Kind::Sluice => "--version",
            Kind::Nginx | Kind::Haproxy => "-v",
            Kind::Caddy => "version",
        }
    }

    fn arguments(self, file: &Path) -> Vec<String> {
        let file = file.display().to_string();
        match self {
            Kind::Sluice => vec!["run".into(), "-c".into(), file],
            Kind::Nginx => vec!["-c".into(), file],
            Kind::Haproxy => vec!["-db".into(), "-f".into(), file],
            Kind::Caddy => vec!["run".into(), "--adapter".into(), "caddyfile".into(), "--config".into(), file],
        }
    }

    /// The text of its configuration, and the line for each provider.
    fn template(self, job: Job) -> (&'static str, &'static str) {
        match (self, job) {
            (Kind::Sluice, Job::Faults) => (SLUICE, SLUICE_PROVIDER),
            (Kind::Sluice, Job::Overload) => (SLUICE_QUEUE, SLUICE_QUEUE_PROVIDER),
            (Kind::Sluice, Job::Ladder) => (SLUICE_LADDER, SLUICE_LADDER_PROVIDER),
            (Kind::Nginx, Job::Ladder) => (NGINX_LADDER, NGINX_SERVER),
            (Kind::Nginx, _) => (NGINX, NGINX_SERVER),
            (Kind::Haproxy, Job::Faults | Job::Ladder) => (HAPROXY, "  server p{index} {address}\n"),
            (Kind::Haproxy, Job::Overload) => (HAPROXY_QUEUE, "  server p{index} {address} maxconn {places}\n"),
            (Kind::Caddy, _) => (CADDY, " {address}"),
        }
    }

    fn configuration(
        self,
        job: Job,
        home: &Path,
        [address, admin]: [SocketAddr; 2],
        providers: &[SocketAddr],
    ) -> String {
        let (text, line) = self.template(job);
        let line = |(index, address): (usize, &SocketAddr)| {
            line.replace("{index}", &index.to_string()).replace("{address}", &address.to_string())
        };
        let mut lines: Vec<String> = providers.iter().enumerate().map(line).collect();
        let spare = if job == Job::Ladder { lines.pop() } else { None }.unwrap_or_default();
        // nginx's worker would otherwise become a user who may not enter the scratch folder.
        let user = if rustix::process::getuid().is_root() { "user root;" } else { "" };
        let places = [
            ("{providers}", lines.concat()),
            ("{spare}", spare),
            ("{spare's address}", providers.last().map(ToString::to_string).unwrap_or_default()),
            ("{port}", address.port().to_string()),
            ("{admin}", admin.to_string()),
            ("{home}", home.display().to_string()),
            ("{user}", user.to_owned()),
            ("{places}", PLACES.to_string()),
            ("{queue}", QUEUE.to_string()),
            ("{half of the queue}", (QUEUE / 2).to_string()),
            ("{queue less a tenth}", (QUEUE - QUEUE / 10).to_string()),
        ];
        places.iter().fold(text.to_owned(), |text, (place, value)| text.replace(place, value))
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
        let version = text.lines().next().unwrap_or("").split([' ', '/']).find(|word| word.contains('.'));
        let version = version.unwrap_or("of unknown version").trim_start_matches('v').to_owned();
        Ok(Contender { kind, program: program.to_owned(), version })
    }

    /// Starts it before these providers and waits until it answers.
    pub(crate) async fn start(
        &self,
        job: Job,
        providers: &[SocketAddr],
        scratch: &Path,
        cores: Cores,
    ) -> Outcome<Running> {
        let (address, admin) = (free_address()?, free_address()?);
        let home = scratch.join(format!("{}-{}", self.kind.name(), address.port()));
        fs::create_dir(&home)?;
        let file = home.join(if self.kind == Kind::Sluice { "gateway.yaml" } else { "conf" });
        fs::write(&file, self.kind.configuration(job, &home, [address, admin], providers))?;
        let mut group =
            Group::start(&self.program, &self.kind.arguments(&file), cores.contender, &home.join("output"))?;
        let deadline = now() + PATIENCE;
        while answers(address).await.is_none() {
            if !group.alive() || now() > deadline {
                return Err(format!("{} does not answer; it printed: {}", self.kind.name(), group.last_words()).into());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(Running { address, admin, group })
    }
}

/// One whole answer of a provider, without a trace in any ledger.
async fn answers(address: SocketAddr) -> Option<()> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n").await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    (text.starts_with("HTTP/1.1 200 ") && text.len() > ANSWER).then_some(())
}

impl Running {
    /// Clients of it.
    pub(crate) fn clients(&self, ledger: &Arc<crate::ledger::Ledger>) -> Arc<Clients> {
        Clients::of(self.address, ledger)
    }
}

/// A loopback address whose port was free a moment ago.
fn free_address() -> Outcome<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

// === configurations ===

const SLUICE: &str = "\
version: 1
workers: 1
listeners: [ { name: web, bind: \"127.0.0.1:{port}\", limits: { connections_per_address: 20000 } } ]
admin: { bind: \"{admin}\" }
log: { access: false }
providers:
{providers}pools:
  main: { balance: least_connections, providers: [p0, p1, p2], queue: { capacity: 4000, timeout: 8s } }
routes:
  - name: all
    match: { path: \"/*\" }
    pool: main
    timeout: 8s
    retry: { attempts: 5, attempt_timeout: 1s, refused: [429, 503], hedge: { after: p95, budget: 0.05 } }
";

const SLUICE_PROVIDER: &str = "  p{index}:
    url: \"http://{address}\"
    timeouts: { connect: 250ms }
    circuit_breaker: { failure_threshold: 3, recovery_timeout: 500ms, max_recovery_timeout: 1s, slow_call: 200ms }
    health_check: { path: /health, interval: 1s, timeout: 500ms, healthy_after: 1, unhealthy_after: 1 }
";

const SLUICE_QUEUE: &str = "\
version: 1
workers: 1
listeners: [ { name: web, bind: \"127.0.0.1:{port}\", limits: { connections_per_address: 20000 } } ]
admin: { bind: \"{admin}\" }
log: { access: false }
clients:
  bench: { addresses: [127.0.0.1/32], max_class: high }
providers:
{providers}pools:
  main: { balance: least_connections, providers: [p0, p1, p2], queue: { capacity: {queue}, timeout: 1s } }
routes:
  - { name: all, match: { path: \"/*\" }, pool: main, class: { default: normal, header: x-priority } }
";

const SLUICE_QUEUE_PROVIDER: &str = "  p{index}: { url: \"http://{address}\", limits: { concurrency: {places} } }\n";

const SLUICE_LADDER: &str = "\
version: 1
workers: 1
listeners: [ { name: web, bind: \"127.0.0.1:{port}\", limits: { connections_per_address: 20000 } } ]
admin: { bind: \"{admin}\" }
log: { access: false }
providers:
{providers}{spare}pools:
  main: { balance: least_connections, providers: [p0, p1, p2] }
  spare: { providers: [p3] }
defaults:
  route: { timeout: 4s, retry: { attempts: 3, attempt_timeout: 1s } }
routes:
  - name: kept
    match: { path: \"/kept/*\" }
    pool: main
    cache: { ttl: 1s, stale_while_revalidate: 2s, stale_if_error: 1h }
  - name: live
    match: { path: \"/*\" }
    pool: main
    degrade: [ { pool: spare }, { static: { body: \"nothing new\" } } ]
";

const SLUICE_LADDER_PROVIDER: &str = "  p{index}:
    url: \"http://{address}\"
    timeouts: { connect: 250ms }
    circuit_breaker: { failure_threshold: 3, recovery_timeout: 500ms, max_recovery_timeout: 1s }
    health_check: { path: /health, interval: 1s, timeout: 500ms, healthy_after: 1, unhealthy_after: 1 }
";

const NGINX_SERVER: &str = "    server {address} max_fails=3 fail_timeout=1s;\n";

const NGINX: &str = "\
{user}
daemon off;
worker_processes 1;
pid {home}/pid;
error_log {home}/error.log crit;
events { worker_connections 20000; }
http {
  access_log off;
  client_body_temp_path {home}/body;
  proxy_temp_path {home}/proxy;
  fastcgi_temp_path {home}/fastcgi;
  uwsgi_temp_path {home}/uwsgi;
  scgi_temp_path {home}/scgi;
  keepalive_requests 1000000000;
  upstream main {
    least_conn;
{providers}    keepalive 128;
  }
  server {
    listen 127.0.0.1:{port} backlog=4096;
    location / {
      proxy_pass http://main;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      proxy_connect_timeout 250ms;
      proxy_read_timeout 1s;
      proxy_next_upstream error timeout invalid_header http_502 http_503 http_504 http_429;
      proxy_next_upstream_tries 3;
      proxy_next_upstream_timeout 8s;
    }
  }
}
";

const NGINX_LADDER: &str = "\
{user}
daemon off;
worker_processes 1;
pid {home}/pid;
error_log {home}/error.log crit;
events { worker_connections 20000; }
http {
  access_log off;
  client_body_temp_path {home}/body;
  proxy_temp_path {home}/proxy;
  fastcgi_temp_path {home}/fastcgi;
  uwsgi_temp_path {home}/uwsgi;
  scgi_temp_path {home}/scgi;
  proxy_cache_path {home}/cache levels=1:2 keys_zone=pages:10m inactive=1h;
  keepalive_requests 1000000000;
  # What an answer says of where it came from, as Sluice does by itself.
  map $upstream_cache_status $stale { STALE stale; UPDATING stale; default \"\"; }
  map $upstream_addr $rung { ~{spare's address}$ pool; default \"\"; }
  upstream kept {
    least_conn;
{providers}    keepalive 128;
  }
  upstream live {
    least_conn;
{providers}    server {spare's address} max_fails=3 fail_timeout=1s backup;
    keepalive 128;
  }
  server {
    listen 127.0.0.1:{port} backlog=4096;
    proxy_http_version 1.1;
    proxy_set_header Connection \"\";
    proxy_connect_timeout 250ms;
    proxy_read_timeout 1s;
    proxy_next_upstream error timeout invalid_header http_502 http_503 http_504 http_429;
    proxy_next_upstream_timeout 4s;
    location /kept/ {
      proxy_pass http://kept;
      proxy_cache pages;
      proxy_cache_valid 200 1s;
      proxy_cache_use_stale error timeout invalid_header updating http_500 http_502 http_503 http_504 http_429;
      proxy_cache_background_update on;
      proxy_cache_lock on;
      add_header X-Degraded $stale always;
    }
    location / {
      proxy_pass http://live;
      proxy_intercept_errors on;
      error_page 429 500 502 503 504 =200 @static;
      add_header X-Degraded $rung always;
    }
    location @static {
      add_header X-Degraded static always;
      return 200 \"nothing new\";
    }
  }
}
";

const HAPROXY: &str = "\
global
  nbthread 1
  maxconn 20000
  no strict-limits
defaults
  mode http
  timeout connect 250ms
  timeout client 75s
  timeout server 1s
  timeout queue 8s
  timeout http-keep-alive 75s
frontend web
  bind 127.0.0.1:{port} backlog 4096
  default_backend main
backend main
  balance leastconn
  retries 3
  option redispatch 1
  retry-on conn-failure empty-response junk-response response-timeout 502 503 504
  # What may have been done is not to be done again: HAProxy itself does not tell methods apart.
  http-request disable-l7-retry if !METH_GET
  option httpchk GET /health
  default-server check inter 1s fall 2 rise 1 observe layer7 error-limit 5 on-error mark-down
{providers}";

const HAPROXY_QUEUE: &str = "\
global
  nbthread 1
  maxconn 20000
  no strict-limits
defaults
  mode http
  timeout connect 5s
  timeout client 75s
  timeout server 60s
  timeout queue 1s
  timeout http-keep-alive 75s
  option abortonclose
frontend web
  bind 127.0.0.1:{port} backlog 4096
  default_backend main
backend main
  balance leastconn
  http-request set-priority-class int(-10) if { req.hdr(x-priority) high }
  http-request set-priority-class int(10) if { req.hdr(x-priority) low }
  # What waits for a backend has no bound of its own, and none by class: with one bound for all, what is not urgent fills
  # the queue and keeps the rest out.
  http-request return status 503 hdr retry-after 1 if { queue(main) ge {queue} }
  http-request return status 503 hdr retry-after 1 if !{ req.hdr(x-priority) high } { queue(main) ge {queue less a tenth} }
  http-request return status 503 hdr retry-after 1 if { req.hdr(x-priority) low } { queue(main) ge {half of the queue} }
{providers}";

const CADDY: &str = "\
{
  admin off
  auto_https off
  log {
    level FATAL
  }
}
http://:{port} {
  bind 127.0.0.1
  reverse_proxy{providers} {
    lb_policy least_conn
    lb_try_duration 8s
    lb_try_interval 25ms
    health_uri /health
    health_interval 1s
    health_timeout 500ms
    fail_duration 1s
    max_fails 3
    unhealthy_status 5xx 429
    unhealthy_latency 200ms
    transport http {
      dial_timeout 250ms
      response_header_timeout 1s
    }
  }
}
";

/// Requests a provider works on at once under overload.
pub(crate) const PLACES: usize = 4;

/// Requests that may wait there.
pub(crate) const QUEUE: usize = 240;

/// How long a contender may take until its first answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks whether it does.
const POLL: Duration = Duration::from_millis(20);
