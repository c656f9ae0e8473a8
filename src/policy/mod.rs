//! Pure decisions: what to do, never how. No IO, no clock, no randomness read inside; `now` and the generator are arguments.

pub mod class;
pub mod outcome;
pub mod overrides;
pub mod window;
pub mod circuit;
