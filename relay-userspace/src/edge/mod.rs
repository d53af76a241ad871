//! The edge: the one process that holds privileges. It owns the durable lists and the maps that
//! enforce them, ends what has expired, and answers on a Unix socket. It opens no network socket.
//!
//! [`store`] keeps rows, [`desired`] merges them into what the maps should hold, [`state`] writes
//! first the one and then the other, [`daemon`] is the thread that does so, and [`server`] lets the
//! CLI and the relay ask for it.

mod attachment;
pub mod bans;
mod batch;
mod changes;
pub mod clock;
mod commit;
mod configured;
pub mod contract;
mod counters;
pub mod daemon;
pub mod desired;
mod draining;
mod enforce;
pub mod events;
mod feeds;
pub mod filter;
mod guard;
mod heap;
pub mod kernel;
pub mod left_behind;
mod lifting;
pub mod lines;
pub mod links;
mod logins;
pub mod memory;
mod pending;
pub mod protected;
mod repairs;
mod report;
pub mod route;
pub mod serve;
pub mod server;
#[cfg(test)]
mod server_tests;
mod slots;
pub mod sshd;
pub mod state;
pub mod stop;
pub mod store;
#[cfg(test)]
mod tests;
mod verbs;
mod wanted;
mod work;
