//! The new process's side: takes the sockets, says how far it is, says when it serves.

use super::message::{self, Message, WHY_MAX};
use super::{HANDOVER_TIME, VARIABLE, VERSION};
use crate::server::inherited::{Address, Inherited, Sockets};
use rustix::net::SocketType;
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_type};
use rustix::stdio::{dup2_stdin, stdin};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// The process that this one replaces.
#[derive(Debug)]
pub struct Predecessor {
    socket: OwnedFd,
    /// Its process id, as it says.
    pub pid: String,
}

// === impl Predecessor ===

impl Predecessor {
    /// Takes over from the process that started this one for it; `None` where nobody did.
    ///
    /// # Errors
    /// What was wrong, and what to do.
    pub fn hands_over() -> Result<Option<Inherited>, String> {
        let Some(pid) = std::env::var_os(VARIABLE) else { return Ok(None) };
        let pid = pid.to_string_lossy().into_owned();
        let socket = from_stdin().map_err(|error| {
            format!("{VARIABLE} is set, but standard input is no hand-over ({error}): unset it and start again")
        })?;
        Predecessor { socket, pid }.inherit().map(Some)
    }

    /// A predecessor at the other end of `socket`, and what it hands over.
    pub(super) fn inherit(self) -> Result<Inherited, String> {
        match self.sockets() {
            Ok(given) => Ok(Inherited::from(self, given)),
            Err(why) => {
                self.failed(&why);
                Err(why)
            }
        }
    }

    #[cfg(test)]
    pub(super) fn at(socket: OwnedFd) -> Predecessor {
        Predecessor { socket, pid: "1".to_owned() }
    }

    fn sockets(&self) -> Result<Vec<(Address, Sockets)>, String> {
        // Whatever the other side does, this one does not wait for ever.
        set_socket_timeout(&self.socket, Timeout::Recv, Some(HANDOVER_TIME)).map_err(|error| error.to_string())?;
        match self.receive()?.0 {
            Message::Hello { version: VERSION } => {}
            Message::Hello { version } => {
                return Err(format!(
                    "the running process hands over in version {version}, this binary takes version {VERSION}: stop the \
                     running one and start this one instead"
                ));
            }
            other => return Err(unexpected(&other)),
        }
        let mut given: Vec<(Address, Sockets)> = Vec::new();
        loop {
            match self.receive()? {
                (Message::Sockets { address, kept }, open) if !open.is_empty() => match given.last_mut() {
                    Some((last, sockets)) if *last == address => sockets.open.extend(open),
                    _ => given.push((address, Sockets { open, kept })),
                },
                (Message::All, _) => return Ok(given),
                (other, _) => return Err(unexpected(&other)),
            }
        }
    }

    /// This process's configuration is valid. Returns once the other has let go of what only one may hold.
    ///
    /// # Errors
    /// The other has ended, or goes on itself.
    pub fn checked(&self) -> Result<(), String> {
        self.send(&Message::Checked)?;
        match self.receive()?.0 {
            Message::Released => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// This process serves on `adopted`. Returns once the other accepts no more there.
    ///
    /// # Errors
    /// The other has ended, which harms nothing any more.
    pub fn ready(&self, adopted: Vec<Address>) -> Result<(), String> {
        for address in adopted {
            self.send(&Message::Adopted { address })?;
        }
        self.send(&Message::Ready)?;
        match self.receive()?.0 {
            Message::Over => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// This process does not start.
    pub fn failed(&self, why: &str) {
        let end = why.floor_char_boundary(WHY_MAX);
        // The end of the stream says it as well, without a reason.
        let _: Result<(), String> = self.send(&Message::Failed { why: why[..end].to_owned() });
    }

    fn send(&self, message: &Message) -> Result<(), String> {
        message::send(self.socket.as_fd(), message, &[]).map_err(|error| self.gone(&error))
    }

    fn receive(&self) -> Result<(Message, Vec<OwnedFd>), String> {
        message::receive(self.socket.as_fd()).map_err(|error| self.gone(&error))
    }

    fn gone(&self, error: &io::Error) -> String {
        format!("process {} does not hand over any more: {error}", self.pid)
    }
}

/// Takes the socket from standard input, which becomes empty.
fn from_stdin() -> io::Result<OwnedFd> {
    if socket_type(stdin())? != SocketType::SEQPACKET {
        return Err(io::Error::other("it is another kind of socket"));
    }
    let socket = stdin().try_clone_to_owned()?;
    dup2_stdin(File::open("/dev/null")?)?;
    Ok(socket)
}

fn unexpected(message: &Message) -> String {
    format!("the running process says {message:?}, which nobody expects here: stop it and start this one instead")
}
