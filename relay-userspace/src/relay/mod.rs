//! The relay: listeners, sessions, the questions they ask, and the control socket over it all.

pub mod listener;
pub mod privileges;
