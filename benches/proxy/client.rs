//! A blocking HTTP/1 client for what wrk cannot do: exact request counts, checks of an answer, idle connections.

use crate::Outcome;
use crate::process::now;
use socket2::{Domain, Socket, Type};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// One keep-alive connection.
#[derive(Debug)]
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
    host: SocketAddr,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Reply {
    /// The status code.
    pub(crate) status: u16,
    /// The fields, names in lower case.
    pub(crate) fields: Vec<(String, String)>,
    /// The body without its framing.
    pub(crate) body: Vec<u8>,
    /// From the end of the head to the end of the body.
    pub(crate) body_took: Duration,
}

// === impl Client ===

impl Client {
    /// Connects to `address`.
    pub(crate) fn connect(address: SocketAddr) -> Outcome<Client> {
        Client::over(TcpStream::connect_timeout(&address, TIMEOUT)?, address)
    }

    /// Connects to `address` from `source`, whose port is left to the kernel.
    pub(crate) fn connect_from(source: SocketAddr, address: SocketAddr) -> Outcome<Client> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.bind(&source.into())?;
        socket.connect_timeout(&address.into(), TIMEOUT)?;
        Client::over(socket.into(), address)
    }

    fn over(stream: TcpStream, host: SocketAddr) -> Outcome<Client> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Client { stream: BufReader::with_capacity(4096, stream), host })
    }

    /// Sends one request (`what` is method and target) and reads its whole answer.
    pub(crate) fn ask(&mut self, what: &str, body: &[u8]) -> Outcome<Reply> {
        self.ask_with(what, "", body)
    }

    /// The same with a field line more, if it is not empty.
    pub(crate) fn ask_with(&mut self, what: &str, field: &str, body: &[u8]) -> Outcome<Reply> {
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let field = if field.is_empty() { String::new() } else { format!("{field}\r\n") };
        let mut bytes = format!("{what} HTTP/1.1\r\nHost: {}\r\n{length}{field}\r\n", self.host).into_bytes();
        bytes.extend_from_slice(body);
        self.stream.get_mut().write_all(&bytes)?;
        self.read_reply()
    }

    fn read_reply(&mut self) -> Outcome<Reply> {
        let line = self.line()?;
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| format!("no status in {line:?}"))?;
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let head_came = now();
        let mut reply = Reply { status, fields, body: Vec::new(), body_took: Duration::ZERO };
        match reply.field("content-length").map(str::parse) {
            _ if status == 304 => {}
            Some(length) => self.take(length?, &mut reply.body)?,
            None if reply.field("transfer-encoding") == Some("chunked") => self.chunks(&mut reply.body)?,
            None => return Err("the answer has neither a length nor chunks".into()),
        }
        reply.body_took = now() - head_came;
        Ok(reply)
    }

    fn chunks(&mut self, body: &mut Vec<u8>) -> Outcome<()> {
        loop {
            let size = usize::from_str_radix(&self.line()?, 16)?;
            self.take(size, body)?;
            self.line()?;
            if size == 0 {
                return Ok(());
            }
        }
    }

    fn line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err("the connection was closed in the middle of an answer".into());
        }
        line.truncate(line.trim_end().len());
        Ok(line)
    }

    fn take(&mut self, count: usize, body: &mut Vec<u8>) -> Outcome<()> {
        let start = body.len();
        body.resize(start + count, 0);
        Ok(self.stream.read_exact(&mut body[start..])?)
    }
}

// === impl Reply ===

impl Reply {
    /// The first field called `name` (lower case).
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

/// One request over a connection of its own; anything but 200 is an error.
pub(crate) fn fetch(address: SocketAddr, what: &str, body: &[u8]) -> Outcome<Reply> {
    let reply = Client::connect(address)?.ask(what, body)?;
    if reply.status != 200 {
        let text = String::from_utf8_lossy(&reply.body);
        return Err(format!("{what} at {address} gave {}: {}", reply.status, text.trim()).into());
    }
    Ok(reply)
}

/// Long enough for an instrumented server on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(30);
