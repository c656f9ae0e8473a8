//! What the two processes say to each other: one JSON text each message, sockets beside it.
//!
//! The sockets are sequenced packets, so that a message comes whole, with its own descriptors, or not at all.

use crate::server::inherited::Address;
use rustix::cmsg_space;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// One message. Fields that a version does not know are passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub(super) enum Message {
    /// The running process begins.
    Hello {
        /// What it speaks.
        version: u32,
    },
    /// Sockets come with this; an address with many has several such messages.
    Sockets {
        /// Whose they are.
        address: Address,
        /// A service manager holds them too.
        kept: bool,
    },
    /// Those were all.
    All,
    /// The new process's configuration is valid.
    Checked,
    /// The running process has let go of what only one may hold.
    Released,
    /// The new process accepts there.
    Adopted {
        /// Whose sockets.
        address: Address,
    },
    /// The new process serves.
    Ready,
    /// It does not and will not.
    Failed {
        /// For an operator.
        why: String,
    },
    /// The running process accepts no more.
    Over,
}

/// The two ends.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends a message with at most [`SOCKETS_PER_MESSAGE`] sockets.
pub(super) fn send(socket: BorrowedFd<'_>, message: &Message, sockets: &[OwnedFd]) -> io::Result<()> {
    let text = serde_json::to_vec(message).map_err(invalid)?;
    let sockets: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !sockets.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&sockets)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many sockets for one message"));
    }
    again(|| sendmsg(socket, &[IoSlice::new(&text)], &mut control, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// Receives a message and its sockets. `UnexpectedEof` where the other side has ended.
pub(super) fn receive(socket: BorrowedFd<'_>) -> io::Result<(Message, Vec<OwnedFd>)> {
    let mut text = vec![0; TEXT_MAX];
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = again(|| recvmsg(socket, &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC))?;
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a message is cut; is the limit of open files too low?",
        ));
    }
    let mut sockets = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            sockets.extend(rights);
        }
    }
    Ok((serde_json::from_slice(&text[..received.bytes]).map_err(invalid)?, sockets))
}

fn invalid(error: serde_json::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// A signal is no reason to give up.
fn again<T>(mut call: impl FnMut() -> Result<T, Errno>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

/// Descriptors in one message. The kernel takes at most 253.
pub(super) const SOCKETS_PER_MESSAGE: usize = 64;

/// Bytes of a message's text; the longest are reasons of a failure, cut well below.
const TEXT_MAX: usize = 64 * 1024;

/// Bytes of a reason.
pub(super) const WHY_MAX: usize = 16 * 1024;

/// For the descriptors of one message.
const SPACE: usize = cmsg_space!(ScmRights(SOCKETS_PER_MESSAGE));
