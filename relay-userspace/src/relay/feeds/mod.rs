//! Feeds from the network: the relay, which may do nothing else that the edge may, fetches them;
//! the edge, which opens no network socket, judges and enforces them.
//!
//! The way of one feed: [`address`] says where it is, [`connect`] gets there, [`fetch`] asks and
//! follows redirects, [`answer`] says what a status means, [`body`] brings the content to disk
//! within its limits, [`hand_over`] takes it to the edge. [`run`] does that for each feed when its
//! time has come, which [`schedule`] says.

pub mod address;
pub mod answer;
pub mod body;
pub mod connect;
pub mod error;
pub mod fetch;
pub mod hand_over;
pub mod run;
pub mod schedule;

#[cfg(test)]
mod tests;

pub use error::FetchError;
pub use fetch::{Content, Fetched, Fetcher, Wanted};
pub use run::run;
