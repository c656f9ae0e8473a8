//! What a configuration was read from, so that somebody can tell whether it would be read differently now.

use super::expand::Environment;
use super::{hex, read};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The SHA-256 of a file's bytes.
pub(super) type Digest = [u8; 32];

/// Every file that was read or tried, and what stood in it; the configuration itself first. Never shown: files may be
/// secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Inputs {
    file: PathBuf,
    /// `None` where it could not be read.
    bytes: Option<Digest>,
    named: BTreeMap<PathBuf, Option<Digest>>,
}

// === impl Inputs ===

impl Inputs {
    /// The configuration `file` alone.
    pub(super) fn of_file(file: &Path, bytes: Option<&[u8]>) -> Self {
        Inputs { file: file.to_owned(), bytes: bytes.map(digest), named: BTreeMap::new() }
    }

    /// Adds what the configuration named.
    pub(super) fn extend(&mut self, named: impl Iterator<Item = (PathBuf, Option<Digest>)>) {
        self.named.extend(named);
    }

    /// The files that the configuration named, sorted.
    pub fn named(&self) -> impl Iterator<Item = &Path> {
        self.named.keys().map(PathBuf::as_path)
    }

    /// All files: the configuration, then what it named.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(&*self.file).chain(self.named())
    }

    /// The SHA-256 of the configuration's own bytes, in lower-case hexadecimal; `None` where it could not be read.
    #[must_use]
    pub fn hash(&self) -> Option<String> {
        self.bytes.map(|bytes| hex(&bytes))
    }

    /// Whether any of the files is not what it was when it was read.
    #[must_use]
    pub fn have_changed(&self, env: &dyn Environment) -> bool {
        let now = |path: &Path| env.read_file(path).ok().map(|bytes| digest(&bytes));
        read(&self.file).ok().map(|bytes| digest(&bytes)) != self.bytes
            || self.named.iter().any(|(path, bytes)| now(path) != *bytes)
    }
}

impl std::fmt::Debug for Inputs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.files()).finish()
    }
}

pub(super) fn digest(bytes: &[u8]) -> Digest {
    let mut digest = Digest::default();
    digest.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref());
    digest
}
