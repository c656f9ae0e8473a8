//! Pure decisions: what to do, never how. No IO, no clock, no randomness read inside; `now` and the generator are arguments.

pub mod budget;
pub mod circuit;
pub mod class;
pub mod cooldown;
pub mod outcome;
pub mod overrides;
pub mod pace;
pub mod queue;
pub mod retry;
pub mod window;
pub mod balance;
pub mod load;
