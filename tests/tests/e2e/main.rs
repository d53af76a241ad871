//! End to end: the real program attached to a veth, the real binary, real DNS, real clients and
//! next hops, each test in namespaces of its own.
//!
//! Needs root, a kernel with BPF, and what `cargo xtask setup` installs; without them every test
//! fails with a sentence that says so.

mod balancer;
mod clients;
mod continuity;
mod crash;
mod feeds;
mod feeds_fetched;
mod filter;
mod full_disk;
mod guarding;
mod interfaces;
mod learning;
mod loading;
mod local;
mod mail;
mod relaying;
mod running;
mod seeing;
mod smuggling;
mod stopping;
mod tls;
mod verbs;
