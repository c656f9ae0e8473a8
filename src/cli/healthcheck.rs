//! `sluice healthcheck`: for Docker and other supervisors that run a command to see whether a container is well.
//!
//! It asks the admin listener what a supervisor wants to know (does it live, does it take requests) over a plain
//! blocking socket, so that it starts fast and needs no runtime.

use crate::clock;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// Why the gateway does not count as well; each says what to do.
#[derive(Debug)]
enum Unwell {
    /// The URL is not `http://HOST:PORT`.
    Url(String),
    /// Nobody answers there.
    Unreachable(String, io::Error),
    /// Something answers, but not as a gateway does.
    Strange(String),
    /// The answer to this path was no.
    Says(&'static str, u16, String),
}

/// Asks the gateway whose admin listener is at `admin` (`http://127.0.0.1:9900`) whether it lives and takes requests.
/// Returns the exit code: 0, or 1 with a message on standard error.
#[must_use]
pub fn healthcheck(admin: &str) -> i32 {
    match look(admin, clock::after(clock::now(), TIME_MAX)) {
        Ok(()) => 0,
        Err(unwell) => {
            // Where nobody can read the message, the exit code still tells.
            let _ = writeln!(io::stderr(), "sluice healthcheck: {unwell}");
            1
        }
    }
}

fn look(admin: &str, deadline: Instant) -> Result<(), Unwell> {
    let authority = authority(admin).ok_or_else(|| Unwell::Url(admin.to_owned()))?;
    for path in ["/livez", "/readyz"] {
        let answer = ask(&authority, path, deadline).map_err(|error| Unwell::Unreachable(admin.to_owned(), error))?;
        let answer = String::from_utf8_lossy(&answer);
        let status = status_of(&answer).ok_or_else(|| Unwell::Strange(admin.to_owned()))?;
        if status != 200 {
            let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body.trim());
            return Err(Unwell::Says(path, status, body.to_owned()));
        }
    }
    Ok(())
}

/// Host and port of `http://HOST[:PORT][/]`.
fn authority(admin: &str) -> Option<String> {
    let authority = admin.strip_prefix("http://")?;
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let plain = authority.bytes().all(|b| b.is_ascii_alphanumeric() || b".:-_[]".contains(&b));
    if authority.is_empty() || !plain {
        return None;
    }
    let port = authority.rsplit_once(':').filter(|(_, port)| !port.contains(']'));
    match port {
        Some((host, port)) => (!host.is_empty() && port.parse::<u16>().is_ok()).then(|| authority.to_owned()),
        None => Some(format!("{authority}:80")),
    }
}

/// The whole answer to one GET.
fn ask(authority: &str, path: &str, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut stream = connect(authority, deadline)?;
    stream.set_write_timeout(Some(left(deadline)?))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: sluice-healthcheck\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while answer.len() < ANSWER_BYTES_MAX {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => answer.extend_from_slice(&chunk[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(answer)
}

/// The first address of the name that accepts.
fn connect(authority: &str, deadline: Instant) -> io::Result<TcpStream> {
    let mut refused = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in authority.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, left(deadline)?.min(CONNECT_TIME_MAX)) {
            Ok(stream) => return Ok(stream),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// The time until `deadline`; none left is an error, because a socket takes a zero for "no timeout".
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(clock::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn status_of(answer: &str) -> Option<u16> {
    answer.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

// === impl Unwell ===

impl fmt::Display for Unwell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unwell::Url(url) => {
                write!(f, "`{url}` is no admin URL; write SLUICE_ADMIN or --admin as http://127.0.0.1:9900")
            }
            Unwell::Unreachable(url, error) => {
                write!(f, "{url} does not answer ({error}); is the gateway running, and is this its `admin.bind`?")
            }
            Unwell::Strange(url) => {
                write!(f, "what answers at {url} is no Sluice admin listener; compare it with `admin.bind`")
            }
            Unwell::Says(path, 421, _) => {
                write!(f, "{path} answered 421; add the host to `admin.hosts` or ask by address")
            }
            Unwell::Says("/readyz", 503, body) => {
                write!(f, "not ready: {body}; GET /readyz?verbose on the admin listener says why")
            }
            Unwell::Says(path, status, body) => write!(f, "{path} answered {status} {body}; see the gateway's log"),
        }
    }
}

/// For everything; Docker's own default is 30 s.
const TIME_MAX: Duration = Duration::from_secs(3);

/// For one address of a name that has several.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(1);

/// More is no health answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
