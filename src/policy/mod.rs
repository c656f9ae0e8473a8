//! Pure decisions: what to do, never how. No IO, no clock, no randomness read inside; `now` and the generator are arguments.

pub mod class;
pub mod queue;
pub mod flow;
pub mod window;
pub mod circuit;
pub mod health;
pub mod cooldown;
pub mod pace;
pub mod load;
pub mod balance;
pub mod freshness;
pub mod retry;
pub mod budget;
pub mod outcome;
pub mod ladder;
pub mod degrade;
pub mod overrides;
