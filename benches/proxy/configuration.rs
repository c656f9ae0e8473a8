//! What each contender is configured with: the same job for all, and for Sluice every capability it has beside that.

mod haproxy;
mod nginx;
mod sluice;
mod varnish;

use crate::Outcome;
use crate::contenders::{Kind, Setup};
use std::net::SocketAddr;
use std::path::Path;

/// The text of `kind`'s configuration file. Its folder is `home`, and it listens on `port`.
pub(crate) fn text(kind: Kind, setup: &Setup, home: &Path, port: u16) -> Outcome<String> {
    match kind {
        Kind::Sluice => sluice::text(setup, home, port),
        Kind::Nginx => nginx::text(setup, home, port),
        Kind::Varnish => Ok(varnish::text(setup)),
        Kind::Haproxy => haproxy::text(setup, home, port),
    }
}

/// The words after the program's name that make it read `file` and stay in the foreground.
pub(crate) fn arguments(kind: Kind, setup: &Setup, file: &Path, address: SocketAddr) -> Vec<String> {
    let home = file.parent().unwrap_or(Path::new("/")).display();
    let file = file.display().to_string();
    match kind {
        Kind::Sluice => vec!["run".into(), "-c".into(), file],
        Kind::Nginx => vec!["-c".into(), file],
        Kind::Varnish => varnish::arguments(setup, &file, &home.to_string(), address),
        // -db: no daemon, no master.
        Kind::Haproxy => vec!["-db".into(), "-f".into(), file],
    }
}
