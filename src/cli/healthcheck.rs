//! `sluice healthcheck`: for Docker and other supervisors that run a command to see whether a container is well.
//!
//! It asks the admin listener what a supervisor wants to know (does it live, does it take requests) over a plain
//! blocking socket, so that it starts fast and needs no runtime.

use crate::clock;
use crate::instant::Instant;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

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
            return Err(Unwell::Says(path, status, printable(body)));
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
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: sluice-healthcheck\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
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

/// What of a stranger's answer goes to a terminal.
fn printable(body: &str) -> String {
    body.chars().filter(|c| !c.is_control()).take(SHOWN_CHARS_MAX).collect()
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

/// Of a body, in a message.
const SHOWN_CHARS_MAX: usize = 200;

/// More is no health answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    /// Answers every connection with `answer`, and returns its URL.
    fn scripted(answers: &[&'static str]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("port 0 is free");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let answers = answers.to_vec();
        thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().expect("accepted");
                let mut request = [0; 1024];
                let n = stream.read(&mut request).expect("a request");
                assert!(request[..n].ends_with(b"\r\n\r\n"));
                stream.write_all(answer.as_bytes()).expect("sent");
            }
        });
        url
    }

    fn seen(url: &str) -> String {
        let deadline = clock::after(clock::now(), TIME_MAX);
        look(url, deadline).map_or_else(|unwell| unwell.to_string(), |()| "well".into())
    }

    #[test]
    fn a_url_is_taken_apart_or_refused() {
        assert_eq!(authority("http://127.0.0.1:9900").as_deref(), Some("127.0.0.1:9900"));
        assert_eq!(authority("http://[::1]:9900/").as_deref(), Some("[::1]:9900"));
        assert_eq!(authority("http://[::1]").as_deref(), Some("[::1]:80"));
        assert_eq!(authority("http://localhost").as_deref(), Some("localhost:80"));
        for wrong in
            ["", "127.0.0.1:9900", "https://a", "http://", "http://:1", "http://a:x", "http://a/b", "http://a\r\nb"]
        {
            assert_eq!(authority(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn both_probes_must_answer_200() {
        let ok = "HTTP/1.1 200 OK\r\n\r\n";
        assert_eq!(seen(&scripted(&[ok, ok])), "well");
        let draining = "HTTP/1.1 503 Service Unavailable\r\n\r\n{\"status\":\"draining\"}\u{1b}[2J";
        let message = seen(&scripted(&[ok, draining]));
        assert!(message.starts_with("not ready: {\"status\":\"draining\"}[2J; GET /readyz?verbose"), "{message}");
        let message = seen(&scripted(&["HTTP/1.1 421 Misdirected Request\r\n\r\n"]));
        assert_eq!(message, "/livez answered 421; add the host to `admin.hosts` or ask by address");
        let message = seen(&scripted(&["HTTP/1.1 500 Oh\r\n\r\nno"]));
        assert_eq!(message, "/livez answered 500 no; see the gateway's log");
    }

    #[test]
    fn what_does_not_answer_or_is_something_else_is_told_apart() {
        let closed = TcpListener::bind("127.0.0.1:0").expect("port 0 is free").local_addr().expect("bound");
        let message = seen(&format!("http://{closed}"));
        assert!(message.contains("does not answer (Connection refused"), "{message}");
        let message = seen(&scripted(&["SSH-2.0-OpenSSH_9.2\r\n"]));
        assert!(message.contains("is no Sluice admin listener"), "{message}");
        assert!(seen("9900").starts_with("`9900` is no admin URL"));
    }

    #[test]
    fn a_listener_that_never_answers_is_given_up_in_time() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("port 0 is free");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let deadline = clock::after(clock::now(), Duration::from_millis(50));
        assert!(matches!(look(&url, deadline), Err(Unwell::Unreachable(..))));
        assert_eq!(healthcheck("nonsense"), 1);
    }
}
