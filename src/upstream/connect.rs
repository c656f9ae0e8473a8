//! Opening connections.
