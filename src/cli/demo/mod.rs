//! demo.

mod body;
pub mod providers;
mod websocket;
