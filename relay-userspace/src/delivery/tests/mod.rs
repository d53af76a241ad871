//! Delivery against scripted next hops over loopback.

mod destinations;
mod handoff;
mod options;
mod replies;
mod sink;
mod stream;

use super::*;
use crate::queue::{
    Filter, MessageSummary, NewMessage, NewRecipient, QueueId, QueueStats, Route, SpoolSettings,
};
use relay_core::smtp::options::{MailOptions, RcptOptions};
use sink::Sink;
use std::time::Duration;
use tokio::task::JoinHandle;

/// A queue with delivery running over it.
struct Gateway {
    spool: Spool,
    shutdown: CancellationToken,
    worker: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

/// Settings for tests: everything to `sink`, retries within milliseconds only where asked for.
fn to_sink(sink: &Sink) -> DeliverySettings {
    DeliverySettings {
        hostname: "gate.example".to_owned(),
        smart_host: Some(NextHop::plain(vec![sink.host()])),
        linger: Duration::from_millis(200),
        suspend: Duration::from_millis(1),
        ..DeliverySettings::default()
    }
}

impl Gateway {
    fn open() -> (Spool, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let settings = SpoolSettings {
            inline_bytes_max: 10_000,
            free_bytes_min: 1,
            ..SpoolSettings::default()
        };
        (Spool::open(folder.path(), settings).unwrap(), folder)
    }

    fn start(settings: DeliverySettings) -> Self {
        let (spool, folder) = Self::open();
        Self::over(spool, folder, settings)
    }

    fn over(spool: Spool, folder: tempfile::TempDir, settings: DeliverySettings) -> Self {
        let shutdown = CancellationToken::new();
        let worker = tokio::spawn(Delivery::run(spool.clone(), settings, shutdown.clone()));
        Self { spool, shutdown, worker, _folder: folder }
    }

    async fn send(&self, from: &str, to: &[&str], content: &[u8]) -> QueueId {
        store(&self.spool, from, to, content).await
    }

    /// Polls until the figures fit; panics with what they are when they never do.
    async fn until(&self, fit: impl Fn(&QueueStats) -> bool) -> QueueStats {
        let mut stats = QueueStats::default();
        for _ in 0..2000 {
            stats = self.spool.stats().await.unwrap();
            if fit(&stats) {
                return stats;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{stats:?} {:?}", self.listed().await);
    }

    async fn until_empty(&self) {
        self.until(|stats| stats.messages == 0).await;
    }

    async fn listed(&self) -> Vec<MessageSummary> {
        self.spool.list(Filter::default(), None, 1000).await.unwrap()
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.worker.await.unwrap();
    }
}

pub(super) async fn store(spool: &Spool, from: &str, to: &[&str], content: &[u8]) -> QueueId {
    let recipient = |address: &&str| NewRecipient {
        address: (*address).to_owned(),
        options: RcptOptions::default(),
        route: Route::Relay,
        rule: "test".to_owned(),
    };
    let message = NewMessage {
        reverse_path: from.to_owned(),
        recipients: to.iter().map(recipient).collect(),
        options: MailOptions::default(),
        binary: false,
        source: None,
        account: None,
        helo: "client.example".to_owned(),
        listener: "mx".to_owned(),
    };
    let mut writer = spool.begin(message).unwrap();
    writer.write(content).unwrap();
    writer.commit().await.unwrap()
}
