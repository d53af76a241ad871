//! What the end-to-end tests, the lab and the benchmarks share.

pub mod bench_filter;
pub mod netns;
