//! What the end-to-end tests, the lab and the benchmarks share.

pub mod bench_filter;
pub mod bench_smtp;
pub mod capture;
pub mod dialogue;
pub mod dns;
mod figure;
pub mod https;
pub mod netns;
pub mod packaged;
pub mod postfix;
pub mod prober;
pub mod process;
pub mod pty;
pub mod recorder;
pub mod tap;
pub mod world;
