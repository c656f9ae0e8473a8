//! Pure decisions: what to do, never how. No IO, no clock, no randomness read inside; `now` and the generator are arguments.

pub mod class;
pub mod outcome;
pub mod queue;
pub mod pace;
pub mod cooldown;
pub mod retry;
pub mod queue;
pub mod window;
pub mod circuit;
pub mod balance;
pub mod load;
pub mod budget;
