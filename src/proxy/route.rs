//! Request to route.
