//! Values that must never be seen: tokens, keys and every header value an operator sets.

use std::fmt;
use std::sync::Arc;

/// Text that prints as `***` wherever it could leak: `Debug`, `Display`, serialisation.
///
/// [`Secret::expose`] is the one way to the text, so that a search for it lists every place that handles secrets.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Secret(Box<str>);

// === impl Secret ===

impl Secret {
    /// Wraps `text`.
    #[must_use]
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Secret(text.into())
    }

    /// The text itself, for the wire only.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl serde::Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

/// The bytes of a secret file, such as a private key; they print as `***`. Clones share them.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SecretBytes(Arc<[u8]>);

// === impl SecretBytes ===

impl SecretBytes {
    /// Wraps `bytes`.
    #[must_use]
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Self {
        SecretBytes(bytes.into())
    }

    /// The bytes themselves, for cryptography only.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
