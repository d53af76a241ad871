//! The parts of the `postern` binary: the edge with its kernel maps, the relay with its listeners,
//! DNS, accounts, queue and delivery, the control sockets and the command line over them.

pub mod auth;
pub mod cli;
pub mod config;
pub mod control;
mod database;
pub mod delivery;
pub mod dns;
pub mod edge;
pub mod log;
pub mod queue;
pub mod relay;
pub mod run;
pub mod socket_file;
pub mod tls;
