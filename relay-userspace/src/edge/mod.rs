//! The outer gate: the lists, the kernel filter that enforces them, and who may change them.

pub mod clock;
pub mod contract;
pub mod filter;
pub mod kernel;
pub mod memory;
