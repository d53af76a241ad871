//! Delivery: takes what is due out of the queue to its next hop, and records what came of it.
//!
//! - [`settings`]: destinations, limits, timeouts.
//! - [`schedule`]: when to try again, and when no more.
//! - `dispatch`: which recipient goes to which destination, and when.
//! - `lane`: one destination's waiting jobs and its connections.
//! - `reach`: from a next hop's names to a connection, and a message over it.
//! - `link`: the sending dialogue over one stream.
//! - `verdict`: from the next hop's words to what the queue records, DSN included.
//!
//! Claims on recipients live in memory alone: after a crash whatever was not recorded is simply due
//! again. Nothing here reads or writes the queue but through the spool's handle.

mod dispatch;
mod lane;
mod link;
mod reach;
pub mod schedule;
pub mod settings;
mod verdict;

pub use schedule::RetrySchedule;
pub use settings::{
    DeliverySettings, HostPort, HostResolver, InsideRoute, NextHop, OwnAddresses, SystemResolver,
    Timeouts,
};

use crate::queue::Spool;
use tokio_util::sync::CancellationToken;

/// The delivery worker.
#[derive(Debug)]
pub struct Delivery;

impl Delivery {
    /// Delivers from when the queue is open until `shutdown`; messages under way then get `shutdown_grace` to end.
    pub async fn run(spool: Spool, settings: DeliverySettings, shutdown: CancellationToken) {
        let opened = shutdown.run_until_cancelled(spool.opened()).await;
        if opened.is_some() {
            dispatch::run(spool, settings, shutdown).await;
        }
    }
}

#[cfg(test)]
mod tests;
