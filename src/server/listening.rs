//! Sockets that listen: at an address, one for each worker; at a path, one that all workers share.
//!
//! A socket at a path is a file, and files outlive whoever made them. One whose maker is gone is replaced; one that
//! somebody still answers at is not, nor is anything that is no socket. Who may connect is decided by the file's mode, which
//! is 0777 without the bits of the process's umask: writing is what connecting takes.

use super::inherited::Sockets;
use crate::net::io::{Address, Socket};
use socket2::{Domain, Protocol, SockAddr, SockRef, Type};
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::net::{TcpStream, UnixStream};

/// A socket that listens, in nobody's runtime yet.
#[derive(Debug)]
pub enum Listening {
    /// At an address.
    Tcp(TcpListener),
    /// At a path.
    Unix(UnixListener),
}

/// A socket that listens, in a worker's runtime.
#[derive(Debug)]
pub enum Accepting {
    /// At an address.
    Tcp(tokio::net::TcpListener),
    /// At a path.
    Unix(tokio::net::UnixListener),
}

/// The file of a socket that we made. It is removed when this is dropped, unless it is left to somebody else or somebody
/// else's is there by now.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
    ours: AtomicBool,
}

// === impl Listening ===

impl Listening {
    /// Another handle of the same socket.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn try_clone(&self) -> io::Result<Listening> {
        match self {
            Listening::Tcp(socket) => socket.try_clone().map(Listening::Tcp),
            Listening::Unix(socket) => socket.try_clone().map(Listening::Unix),
        }
    }

    /// Takes a connection that the kernel has completed already.
    ///
    /// # Errors
    /// `WouldBlock` where there is none; what the socket says.
    pub fn accept(&self) -> io::Result<(Socket, Address)> {
        match self {
            Listening::Tcp(socket) => {
                let (stream, address) = socket.accept()?;
                stream.set_nonblocking(true)?;
                Ok((Socket::Tcp(TcpStream::from_std(stream)?), address.into()))
            }
            Listening::Unix(socket) => {
                let (stream, _) = socket.accept()?;
                stream.set_nonblocking(true)?;
                Ok((Socket::Unix(UnixStream::from_std(stream)?), Address::Unix))
            }
        }
    }

    /// Enters the runtime of whoever calls.
    ///
    /// # Errors
    /// The runtime cannot watch it.
    pub fn into_accepting(self) -> io::Result<Accepting> {
        match self {
            Listening::Tcp(socket) => tokio::net::TcpListener::from_std(socket).map(Accepting::Tcp),
            Listening::Unix(socket) => tokio::net::UnixListener::from_std(socket).map(Accepting::Unix),
        }
    }
}

impl From<Listening> for OwnedFd {
    fn from(listening: Listening) -> Self {
        match listening {
            Listening::Tcp(socket) => socket.into(),
            Listening::Unix(socket) => socket.into(),
        }
    }
}

// === impl Accepting ===

impl Accepting {
    /// Waits for a connection.
    ///
    /// # Errors
    /// What the socket says.
    pub async fn accept(&self) -> io::Result<(Socket, Address)> {
        match self {
            Accepting::Tcp(socket) => {
                let (stream, address) = socket.accept().await?;
                Ok((Socket::Tcp(stream), address.into()))
            }
            Accepting::Unix(socket) => {
                let (stream, _) = socket.accept().await?;
                Ok((Socket::Unix(stream), Address::Unix))
            }
        }
    }

    /// Leaves its runtime.
    ///
    /// # Errors
    /// The runtime does not let go of it.
    pub fn into_listening(self) -> io::Result<Listening> {
        match self {
            Accepting::Tcp(socket) => socket.into_std().map(Listening::Tcp),
            Accepting::Unix(socket) => socket.into_std().map(Listening::Unix),
        }
    }
}

// === impl SocketFile ===

impl SocketFile {
    /// The file at `path`, as it is now, as ours.
    ///
    /// # Errors
    /// It is not there.
    pub fn of(path: &Path) -> io::Result<Self> {
        Ok(SocketFile { path: path.to_owned(), identity: identity(path)?, ours: AtomicBool::new(true) })
    }

    /// The file at `path`, as it is now, as somebody else's until it is said to be ours.
    ///
    /// # Errors
    /// It is not there.
    pub fn theirs(path: &Path) -> io::Result<Self> {
        let file = SocketFile::of(path)?;
        file.leave();
        Ok(file)
    }

    /// Nobody else listens there any more.
    pub fn take(&self) {
        self.ours.store(true, Ordering::Relaxed);
    }

    /// Somebody else listens there from now on: the file stays.
    pub fn leave(&self) {
        self.ours.store(false, Ordering::Relaxed);
    }

    /// Removes the file, if it is still ours: whoever connects from now on is told that nobody is there.
    pub fn remove(&self) {
        if self.ours.swap(false, Ordering::Relaxed) && identity(&self.path).is_ok_and(|found| found == self.identity) {
            // If it cannot be removed it is a stale socket, and the next start replaces it.
            let _: io::Result<()> = fs::remove_file(&self.path);
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Listens at a path. A file of a socket at which nobody answers is replaced.
///
/// # Errors
/// `AddrInUse` where somebody answers; `AlreadyExists` where a file is no socket; no such folder; no permission.
pub fn at_path(path: &Path) -> io::Result<(Listening, SocketFile)> {
    clear(path)?;
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::of(path)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok((Listening::Unix(socket.into()), file))
}

/// Makes room for a socket at `path`.
fn clear(path: &Path) -> io::Result<()> {
    let before = match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => (found.dev(), found.ino()),
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file is there that is no socket")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A full backlog would let a connect wait; not to be answered at once is an answer too.
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
        _ => return Err(io::ErrorKind::AddrInUse.into()),
    }
    // Another process may have found the same and be ahead of us; then what is there now is alive.
    if identity(path)? == before { fs::remove_file(path) } else { Err(io::ErrorKind::AddrInUse.into()) }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

/// Sockets that somebody else opened, and as many more as give each worker one.
///
/// # Errors
/// No more descriptors; one that is no socket.
pub fn adopt(given: Sockets, workers: usize) -> io::Result<Vec<Listening>> {
    let adopt = |socket: OwnedFd| {
        let unix = SockRef::from(&socket).domain()? == Domain::UNIX;
        Ok(if unix { Listening::Unix(socket.into()) } else { Listening::Tcp(socket.into()) })
    };
    let mut sockets = given.open.into_iter().map(adopt).collect::<io::Result<Vec<_>>>()?;
    let before = sockets.len();
    for index in before..workers {
        // Sockets that were opened for one process alone are shared by its workers: others would be refused beside them.
        let more = match &sockets[index % before] {
            Listening::Tcp(socket) if !given.kept && SockRef::from(socket).reuse_port()? => {
                Listening::Tcp(listen(socket.local_addr()?)?)
            }
            socket => socket.try_clone()?,
        };
        sockets.push(more);
    }
    Ok(sockets)
}

/// Listens at an address, with a socket for each worker. `beside_ours`: this process listens on that port number already,
/// on another address; the one may contain the other (`127.0.0.1` and `0.0.0.0`).
///
/// # Errors
/// The address is in use or not ours.
pub fn at_address(bind: SocketAddr, workers: usize, beside_ours: bool) -> io::Result<Vec<Listening>> {
    let first = if beside_ours { listen(bind)? } else { claim(bind)? };
    let local = first.local_addr()?;
    let mut sockets = vec![Listening::Tcp(first)];
    for _ in 1..workers {
        sockets.push(Listening::Tcp(listen(local)?));
    }
    Ok(sockets)
}

/// The first socket of an address. Others of ours may share it; another process's may not: a plain bind finds that out,
/// which `SO_REUSEPORT` alone would silently allow.
fn claim(bind: SocketAddr) -> io::Result<TcpListener> {
    if bind.port() != 0 {
        socket(bind)?.bind(&bind.into())?;
    }
    listen(bind)
}

fn listen(bind: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(bind)?;
    socket.set_reuse_port(true)?;
    socket.bind(&bind.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn socket(bind: SocketAddr) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(Domain::for_address(bind), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if bind.is_ipv6() {
        // `[::]` is IPv6 only, so that it and `0.0.0.0` can both be listed.
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// Connections the kernel holds for us before they are accepted, for each socket. It caps this at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder")
    }

    #[test]
    fn a_socket_that_nobody_answers_at_is_replaced_and_a_living_one_is_not() {
        let folder = folder();
        let path = folder.path().join("s");
        drop(UnixListener::bind(&path).expect("a socket"));
        assert!(path.exists(), "what a process leaves that was killed");
        let (living, _file) = at_path(&path).expect("it is stale");
        std::os::unix::net::UnixStream::connect(&path).expect("it listens");
        assert_eq!(at_path(&path).expect_err("it is ours").kind(), ErrorKind::AddrInUse);
        std::os::unix::net::UnixStream::connect(&path).expect("it listens still");
        drop(living);
    }

    #[test]
    fn a_living_socket_whose_backlog_is_full_is_alive() {
        let folder = folder();
        let path = folder.path().join("s");
        let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
        socket.bind(&SockAddr::unix(&path).expect("a path")).expect("a free path");
        socket.listen(0).expect("it listens");
        let _first = std::os::unix::net::UnixStream::connect(&path).expect("room for one");
        assert_eq!(at_path(&path).expect_err("it is theirs").kind(), ErrorKind::AddrInUse);
        assert!(path.exists());
    }

    #[test]
    fn what_is_no_socket_is_never_removed() {
        let folder = folder();
        let path = folder.path().join("s");
        fs::write(&path, "precious").expect("a file");
        assert_eq!(at_path(&path).expect_err("a file").kind(), ErrorKind::AlreadyExists);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("a link");
        assert_eq!(at_path(&link).expect_err("a link").kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).expect("it is there"), "precious");
        assert!(link.is_symlink());
    }

    #[test]
    fn the_file_goes_with_its_socket_unless_it_is_left_or_replaced() {
        let folder = folder();
        let path = folder.path().join("s");
        let (_socket, file) = at_path(&path).expect("a free path");
        drop(file);
        assert!(!path.exists());

        let (_socket, file) = at_path(&path).expect("a free path");
        file.leave();
        drop(file);
        assert!(path.exists());
        fs::remove_file(&path).expect("it is there");

        let (_socket, file) = at_path(&path).expect("a free path");
        fs::rename(&path, folder.path().join("old")).expect("it is there");
        let _theirs = UnixListener::bind(&path).expect("a free path");
        drop(file);
        assert!(path.exists(), "another process's");
    }
}
