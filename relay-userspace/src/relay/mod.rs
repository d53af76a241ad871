//! The relay: listeners, sessions, the questions they ask, and the control socket over it all.
//!
//! [`serve`] puts it together; [`connection`] is one client's way through it.

mod accepting;
pub mod admission;
pub mod bans;
pub mod connection;
pub mod control;
pub mod counters;
pub mod descriptors;
mod door;
pub mod feeds;
mod intake;
pub mod known;
pub mod listener;
pub mod local;
pub mod never_route;
pub mod outbound;
pub mod patience;
pub mod privileges;
pub mod questions;
pub mod serve;
pub mod source;
pub mod sparing;
pub mod state;

#[cfg(test)]
mod tests;
