//! The control sockets: what is said over them, who may speak, and both ends of the line.

pub mod api;
pub mod client;
pub mod extract;
mod feed_api;
mod names;
pub mod peer;
mod relay_api;
mod report_api;
pub mod server;
