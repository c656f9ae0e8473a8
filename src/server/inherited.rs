//! Listening sockets that were open before this process began: handed over by the process it replaces, or opened by a
//! service manager (socket activation).
//!
//! Whoever is about to listen asks here first. What nobody asks for is of no use: a socket of the process before is closed
//! again, which leaves it with that one; a service manager's is a mistake in its unit and stops the start.

use super::handover::Predecessor;
use listenfd::ListenFd;
use serde::{Deserialize, Serialize};
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

/// What there is to take over. Empty where a process starts from nothing.
#[derive(Debug, Default)]
pub struct Inherited {
    given: Vec<Given>,
    taken: Vec<Address>,
    before: Option<Predecessor>,
}

/// Which listening sockets: whose, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// Who accepts on them.
    pub role: Role,
    /// `bind` as the configuration says it, which with port 0 is not where they listen.
    pub bind: String,
}

/// Who accepts on a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A listener: clients.
    Listener,
    /// The admin listener: operators.
    Admin,
}

/// The listening sockets of one address, all of them blocking nobody and owned by whoever holds this.
#[derive(Debug)]
pub struct Sockets {
    /// At least one. With `SO_REUSEPORT` each has a backlog of its own.
    pub open: Vec<OwnedFd>,
    /// A service manager holds them too, and goes on doing so when this process ends.
    pub kept: bool,
}

#[derive(Debug)]
struct Given {
    known_as: KnownAs,
    sockets: Sockets,
}

/// How a socket is recognised.
#[derive(Debug)]
enum KnownAs {
    /// By what the configuration of the process before said of it.
    Before(Address),
    /// By the name its unit gives it, or by where it listens.
    Activated { name: String, local: String },
}

// === impl Inherited ===

impl Inherited {
    /// Takes over what a service manager has opened for this process: `LISTEN_FDS` sockets from descriptor 3 on, if
    /// `LISTEN_PID` means us. Call it first of all: it takes these variables out of the environment, and no other thread may
    /// be looking.
    ///
    /// # Errors
    /// A descriptor is no listening stream socket; which one, and what to do.
    pub fn activated() -> Result<Inherited, String> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut sockets = ListenFd::from_env();
        let mut given = Vec::new();
        for index in 0..sockets.len() {
            let name = names.next().filter(|name| !name.is_empty()).unwrap_or("unknown").to_owned();
            let (local, open) = activated(&mut sockets, index).map_err(|error| {
                format!(
                    "descriptor {} (`{name}`) from the service manager cannot be used: {error}; the .socket unit may have \
                     `ListenStream=` lines only",
                    FIRST_ACTIVATED + index
                )
            })?;
            given.push(Given {
                known_as: KnownAs::Activated { name, local },
                sockets: Sockets { open: vec![open], kept: true },
            });
        }
        Ok(Inherited { given, taken: Vec::new(), before: None })
    }

    /// What `before` hands over.
    pub(super) fn from(before: Predecessor, given: Vec<(Address, Sockets)>) -> Inherited {
        let given =
            given.into_iter().map(|(address, sockets)| Given { known_as: KnownAs::Before(address), sockets }).collect();
        Inherited { given, taken: Vec::new(), before: Some(before) }
    }

    /// The sockets for `bind`, where there are any, or for what is called `name`.
    pub fn take(&mut self, role: Role, name: &str, bind: &str) -> Option<Sockets> {
        let mut found: Option<Sockets> = None;
        for given in self.given.extract_if(.., |given| given.known_as.means(role, name, bind)) {
            match &mut found {
                Some(found) => found.open.extend(given.sockets.open),
                None => found = Some(given.sockets),
            }
        }
        if found.is_some() {
            self.taken.push(Address { role, bind: bind.to_owned() });
        }
        found
    }

    /// The local addresses of what nobody has asked for yet, as far as it has a port.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        let sockets = self.given.iter().flat_map(|given| &given.sockets.open);
        sockets.filter_map(|socket| {
            let local = TcpListener::from(socket.try_clone().ok()?).local_addr().ok()?;
            Some(local.port())
        })
    }

    /// The configuration is valid: from here on this process wants what only one may hold.
    ///
    /// # Errors
    /// The process before has ended, or goes on itself.
    pub fn checked(&self) -> Result<(), String> {
        self.before.as_ref().map_or(Ok(()), Predecessor::checked)
    }

    /// That nothing is left of what a service manager opened.
    ///
    /// # Errors
    /// Which socket no listener names, and what to do.
    pub fn used_up(&self) -> Result<(), String> {
        let mut left = self.given.iter().filter_map(|given| match &given.known_as {
            KnownAs::Activated { name, local } => Some(format!("{local} (`{name}`)")),
            KnownAs::Before(_) => None,
        });
        left.next().map_or(Ok(()), |first| {
            let all = left.fold(first, |all, next| format!("{all}, {next}"));
            Err(format!(
                "the service manager has opened {all}, which no listener names: give a listener that `bind`, call the socket \
                 like a listener (`FileDescriptorName=`), or take it out of the .socket unit"
            ))
        })
    }

    /// Closes what nobody asked for, and gives the process before, if there is one, with what was taken of it.
    pub fn settle(self) -> (Option<Predecessor>, Vec<Address>) {
        (self.before, self.taken)
    }
}

// === impl KnownAs ===

impl KnownAs {
    fn means(&self, role: Role, name: &str, bind: &str) -> bool {
        match self {
            KnownAs::Before(address) => address.role == role && address.bind == bind,
            KnownAs::Activated { name: known_as, local } => known_as == name || local == bind,
        }
    }
}

/// The activated socket at `index`, and where it listens, spelled as `bind` is.
fn activated(sockets: &mut ListenFd, index: usize) -> io::Result<(String, OwnedFd)> {
    let gone = || io::Error::from(io::ErrorKind::NotFound);
    if let Ok(tcp) = sockets.take_tcp_listener(index) {
        let tcp: TcpListener = tcp.ok_or_else(gone)?;
        tcp.set_nonblocking(true)?;
        return Ok((tcp.local_addr()?.to_string(), tcp.into()));
    }
    let unix: UnixListener = sockets.take_unix_listener(index)?.ok_or_else(gone)?;
    unix.set_nonblocking(true)?;
    let path = unix.local_addr()?.as_pathname().map_or_else(|| "?".to_owned(), |path| path.display().to_string());
    Ok((format!("unix:{path}"), unix.into()))
}

/// Where the descriptors of an activation begin.
const FIRST_ACTIVATED: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn socket() -> OwnedFd {
        TcpListener::bind("127.0.0.1:0").expect("a free port").into()
    }

    fn sockets(kept: bool) -> Sockets {
        Sockets { open: vec![socket()], kept }
    }

    fn activated(name: &str, local: &str) -> Given {
        let known_as = KnownAs::Activated { name: name.to_owned(), local: local.to_owned() };
        Given { known_as, sockets: sockets(true) }
    }

    fn before(role: Role, bind: &str) -> Given {
        Given { known_as: KnownAs::Before(Address { role, bind: bind.to_owned() }), sockets: sockets(false) }
    }

    #[test]
    fn a_socket_of_the_process_before_is_found_by_its_role_and_its_bind() {
        let given = vec![before(Role::Admin, "127.0.0.1:0"), before(Role::Listener, "127.0.0.1:0")];
        let mut inherited = Inherited { given, ..Inherited::default() };
        assert!(inherited.take(Role::Listener, "web", "127.0.0.1:80").is_none());
        assert!(inherited.take(Role::Listener, "web", "127.0.0.1:0").is_some());
        assert!(inherited.take(Role::Listener, "web", "127.0.0.1:0").is_none(), "it was taken");
        inherited.used_up().expect("what a process before had may be left");
        let taken = Address { role: Role::Listener, bind: "127.0.0.1:0".to_owned() };
        assert_eq!(inherited.settle().1, [taken]);
    }

    #[test]
    fn an_activated_socket_is_found_by_its_name_or_its_address_and_several_may_be_one_listeners() {
        let given = vec![activated("web", "[::]:80"), activated("sluice.socket", "127.0.0.1:80"), activated("x", "x")];
        let mut inherited = Inherited { given, ..Inherited::default() };
        let both = inherited.take(Role::Listener, "web", "127.0.0.1:80").expect("two of them");
        assert_eq!((both.open.len(), both.kept), (2, true));
    }

    #[test]
    fn an_activated_socket_that_nobody_names_is_told() {
        let given = vec![activated("sluice.socket", "127.0.0.1:81"), activated("more", "unix:/run/more.sock")];
        let inherited = Inherited { given, ..Inherited::default() };
        let problem = inherited.used_up().expect_err("two are left");
        assert!(problem.contains("127.0.0.1:81 (`sluice.socket`), unix:/run/more.sock (`more`)"), "{problem}");
    }
}
