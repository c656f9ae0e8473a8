//! Request targets.
