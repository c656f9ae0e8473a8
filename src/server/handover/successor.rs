//! The running process's side: starts the new one, hands over, and sees whether it serves.

use super::message::{self, Message, SOCKETS_PER_MESSAGE};
use super::{VARIABLE, VERSION};
use crate::server::inherited::{Address, Sockets};
use rustix::process::{Pid, Signal, kill_process};
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::Interest;

/// What to start: this program, as it was started.
#[derive(Debug, Clone)]
pub struct Program {
    /// Not where links lead: what lies at this path by then is what will run.
    pub path: PathBuf,
    /// Without the program's name.
    pub arguments: Vec<OsString>,
    /// Variables that mean this process and no other.
    pub without: Vec<&'static str>,
}

/// A new process on its way.
#[derive(Debug)]
pub struct Successor {
    child: Child,
    /// Packets with an order and an end; of the runtime's types the one that knows packets.
    socket: tokio::net::UnixDatagram,
}

/// Why a new process did not take over.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// It says so.
    #[error("it says: {0}")]
    Failed(String),
    /// It has ended, or stopped listening to us.
    #[error("it ended before it was ready")]
    Ended,
    /// It says what it should not.
    #[error("it says something unexpected ({0}): is it another program, or a version too far away?")]
    Unexpected(String),
    /// The system refused.
    #[error("{0}")]
    System(#[from] io::Error),
}

// === impl Program ===

impl Program {
    /// This process's own. Ask early: a later upgrade must not change the answer.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn of_this_process() -> io::Result<Program> {
        let running = env::current_exe()?;
        let mut arguments = env::args_os();
        let named = arguments.next().unwrap_or_default();
        let folder = env::current_dir().unwrap_or_default();
        let path = as_started(&named, &folder, env::var_os("PATH").as_deref())
            .filter(|path| is_same_file(path, &running))
            .unwrap_or(running);
        Ok(Program { path, arguments: arguments.collect(), without: Vec::new() })
    }
}

// === impl Successor ===

impl Successor {
    /// Starts `program`. Needs a runtime around it.
    ///
    /// # Errors
    /// It cannot be started; nothing is left behind.
    pub fn start(program: &Program) -> io::Result<Successor> {
        let (ours, theirs) = message::pair()?;
        let ours = UnixDatagram::from(ours);
        ours.set_nonblocking(true)?;
        let socket = tokio::net::UnixDatagram::from_std(ours)?;
        let mut command = Command::new(&program.path);
        command.args(&program.arguments).env(VARIABLE, std::process::id().to_string()).stdin(Stdio::from(theirs));
        for variable in &program.without {
            command.env_remove(variable);
        }
        // `theirs` is closed here with `command`, so that the end of the new process is the end of the stream.
        Ok(Successor { child: command.spawn()?, socket })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Hands over, and waits until the new process serves. `release` lets go of what only one process may hold. Returns
    /// where the new one accepts.
    ///
    /// # Errors
    /// It does not take over. It may still run; see [`Successor::end`].
    pub async fn takes_over(
        &mut self,
        sockets: Vec<(Address, Sockets)>,
        release: impl AsyncFnOnce(),
    ) -> Result<Vec<Address>, HandoverError> {
        match self.hand_over(sockets, release).await {
            Err(HandoverError::Ended) => Err(self.last_words()),
            took => took,
        }
    }

    async fn hand_over(
        &mut self,
        sockets: Vec<(Address, Sockets)>,
        release: impl AsyncFnOnce(),
    ) -> Result<Vec<Address>, HandoverError> {
        self.send(&Message::Hello { version: VERSION }, &[]).await?;
        for (address, Sockets { open, kept }) in sockets {
            let message = Message::Sockets { address, kept };
            for some in open.chunks(SOCKETS_PER_MESSAGE) {
                self.send(&message, some).await?;
            }
        }
        self.send(&Message::All, &[]).await?;
        match self.receive().await? {
            Message::Checked => release().await,
            other => return Err(unexpected(&other)),
        }
        self.send(&Message::Released, &[]).await?;
        let mut adopted = Vec::new();
        loop {
            match self.receive().await? {
                Message::Adopted { address } => adopted.push(address),
                Message::Ready => return Ok(adopted),
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// Tells the new process that this one accepts no more, and lets it go its way.
    pub async fn over(self) -> Child {
        // One that has ended by now is told by its exit.
        let _: Result<(), HandoverError> = self.send(&Message::Over, &[]).await;
        self.child
    }

    /// Asks the new process to end, as this one was asked.
    pub fn interrupt(self) -> Child {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            // One that has ended needs no telling.
            let _: rustix::io::Result<()> = kill_process(pid, Signal::TERM);
        }
        self.child
    }

    /// Makes an end of it: it may end by itself for a moment, then it is killed. How it ended, if that was by itself.
    pub async fn end(self) -> Option<ExitStatus> {
        let Successor { mut child, socket } = self;
        // It reads the end of the stream from here on.
        drop(socket);
        let mut status = wait(&mut child).await;
        if status.is_none() {
            let _: io::Result<()> = child.kill();
            wait(&mut child).await;
            status = None;
        }
        status
    }

    /// Why it ended, if it said so. One that ends before it has read everything resets the stream, which is told before what
    /// it had said.
    fn last_words(&self) -> HandoverError {
        for _ in 0..LAST_WORDS {
            match message::receive(self.socket.as_fd()) {
                Ok((Message::Failed { why }, _)) => return HandoverError::Failed(why),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return HandoverError::Unexpected(error.to_string());
                }
                _ => {}
            }
        }
        HandoverError::Ended
    }

    async fn send(&self, message: &Message, sockets: &[OwnedFd]) -> Result<(), HandoverError> {
        self.does(Interest::WRITABLE, |socket| message::send(socket, message, sockets)).await
    }

    async fn receive(&self) -> Result<Message, HandoverError> {
        match self.does(Interest::READABLE, message::receive).await?.0 {
            Message::Failed { why } => Err(HandoverError::Failed(why)),
            message => Ok(message),
        }
    }

    async fn does<T>(
        &self,
        interest: Interest,
        mut call: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> Result<T, HandoverError> {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        let done = self.socket.async_io(interest, || call(self.socket.as_fd())).await;
        done.map_err(|error| match error.kind() {
            BrokenPipe | ConnectionReset | UnexpectedEof => HandoverError::Ended,
            io::ErrorKind::InvalidData => HandoverError::Unexpected(error.to_string()),
            _ => HandoverError::System(error),
        })
    }
}

/// Waits a moment for a process to end.
async fn wait(child: &mut Child) -> Option<ExitStatus> {
    for _ in 0..END_ROUNDS {
        match child.try_wait() {
            Ok(None) => tokio::time::sleep(END_PAUSE).await,
            Ok(status) => return status,
            Err(_) => return None,
        }
    }
    None
}

fn unexpected(message: &Message) -> HandoverError {
    HandoverError::Unexpected(format!("{message:?}"))
}

/// Where the program lies that was started by the name `named`, in the folder `current`, with this `PATH`.
fn as_started(named: &OsStr, current: &Path, path: Option<&OsStr>) -> Option<PathBuf> {
    let named = Path::new(named);
    if named.components().count() > 1 || named.is_absolute() {
        return Some(current.join(named));
    }
    let folders = path.into_iter().flat_map(env::split_paths);
    folders.map(|folder| current.join(folder).join(named)).find(|candidate| candidate.is_file())
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let which = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino()));
    matches!((which(one), which(other)), (Ok(one), Ok(other)) if one == other)
}

/// Messages and errors that are looked through for a reason.
const LAST_WORDS: usize = 16;

/// A new process that ends by itself has this long, in all, to do so.
const END_ROUNDS: u32 = 50;

/// Between two looks.
const END_PAUSE: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_where_it_was_started_and_not_where_links_lead() {
        let folder = tempfile::tempdir().expect("a folder");
        let (bin, other) = (folder.path().join("bin"), folder.path().join("other"));
        for folder in [&bin, &other] {
            fs::create_dir(folder).expect("a folder");
        }
        fs::write(other.join("sluice-1"), "").expect("the folder takes files");
        std::os::unix::fs::symlink(other.join("sluice-1"), bin.join("sluice")).expect("a link");
        let path = env::join_paths([&other, &bin]).expect("paths");
        let found = |named: &str| as_started(OsStr::new(named), folder.path(), Some(&path));
        let link = bin.join("sluice");
        assert_eq!(found("sluice").as_deref(), Some(link.as_path()));
        assert_eq!(found("bin/sluice").as_deref(), Some(link.as_path()));
        assert_eq!(found("./bin/sluice"), Some(folder.path().join("./bin/sluice")));
        assert_eq!(found(&link.display().to_string()).as_deref(), Some(link.as_path()));
        assert_eq!(found("nothing"), None);
        assert!(is_same_file(&link, &other.join("sluice-1")) && !is_same_file(&link, &bin));
    }
}
