//! What the end-to-end tests, the lab and the benchmarks share.

pub mod capture;
pub mod dialogue;
pub mod dns;
pub mod netns;
pub mod process;
pub mod recorder;
pub mod tap;
pub mod world;
