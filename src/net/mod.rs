//! Sockets as the proxy uses them: one byte stream for every kind of connection, and what is read and written through it.

pub mod io;
