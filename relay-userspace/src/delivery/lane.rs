//! A lane: the jobs that wait for one destination, and the connections that carry them.

use super::link::Link;
use super::reach::{self, Reached};
use super::settings::{DeliverySettings, Destination, NextHop};
use super::verdict;
use crate::queue::{DueRecipient, Kept, LoadedMessage, QueueId, Spool, StoreError};
use relay_core::smtp::client::{OutgoingMessage, OutgoingRecipient};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// Names a recipient: message and place in its list.
pub(super) type Claim = (QueueId, u32);

/// Recipients of one message for one destination. Dropping it gives the claims on them back.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) destination: Destination,
    pub(super) message: QueueId,
    /// The message, where it was just stored.
    pub(super) kept: Option<Arc<Kept>>,
    pub(super) recipients: Vec<DueRecipient>,
    pub(super) released: mpsc::UnboundedSender<(Destination, Vec<Claim>)>,
}

impl Drop for Job {
    fn drop(&mut self) {
        let claims = self.recipients.iter().map(|due| (due.message, due.ordinal)).collect();
        // At shutdown nobody keeps claims any more.
        let _ = self.released.send((self.destination, claims));
    }
}

/// What every connection needs.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) spool: Spool,
    pub(super) settings: DeliverySettings,
    pub(super) shutdown: CancellationToken,
}

/// One destination.
#[derive(Debug)]
pub(super) struct Lane {
    /// Or why there is none.
    pub(super) target: Result<NextHop, &'static str>,
    jobs: Mutex<VecDeque<Job>>,
    arrived: Notify,
    /// Connections, and those of them that wait for a job.
    pub(super) links: AtomicUsize,
    pub(super) idle: AtomicUsize,
    suspended: Mutex<Option<Suspension>>,
}

/// Until when, and why, a destination is left alone.
#[derive(Debug)]
struct Suspension {
    until: Instant,
    reason: String,
    /// [`Spool::retries_asked`] when the attempt began that failed: a later one ends this.
    retries_asked: u64,
}

impl Lane {
    pub(super) fn new(target: Result<NextHop, &'static str>) -> Self {
        Self {
            target,
            jobs: Mutex::default(),
            arrived: Notify::new(),
            links: AtomicUsize::new(0),
            idle: AtomicUsize::new(0),
            suspended: Mutex::default(),
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.jobs.lock().expect("no panic while it is held").len()
    }

    pub(super) fn push(&self, job: Job) {
        self.jobs.lock().expect("no panic while it is held").push_back(job);
        self.arrived.notify_one();
    }

    pub(super) fn pop(&self) -> Option<Job> {
        self.jobs.lock().expect("no panic while it is held").pop_front()
    }

    /// Takes the jobs away, at shutdown.
    pub(super) fn clear(&self) {
        while self.pop().is_some() {}
    }

    pub(super) fn suspension(&self, retries_asked: u64) -> Option<String> {
        let mut suspended = self.suspended.lock().expect("no panic while it is held");
        let is_over =
            |it: &Suspension| it.until <= Instant::now() || it.retries_asked != retries_asked;
        if suspended.as_ref().is_some_and(is_over) {
            *suspended = None;
        }
        suspended.as_ref().map(|it| it.reason.clone())
    }

    pub(super) fn suspend(&self, pause: Duration, reason: &str, retries_asked: u64) {
        let (until, reason) = (Instant::now() + pause, reason.to_owned());
        *self.suspended.lock().expect("no panic while it is held") =
            Some(Suspension { until, reason, retries_asked });
    }

    /// The next job; with an open connection waits `linger` for one.
    async fn next(&self, linger: Duration, shutdown: &CancellationToken) -> Option<Job> {
        if shutdown.is_cancelled() {
            return None;
        }
        if let Some(job) = self.pop() {
            return Some(job);
        }
        if linger.is_zero() {
            return None;
        }
        self.idle.fetch_add(1, Ordering::SeqCst);
        let arrival = async {
            loop {
                self.arrived.notified().await;
                if let Some(job) = self.pop() {
                    return job;
                }
            }
        };
        let job = tokio::select! {
            job = timeout(linger, arrival) => job.ok(),
            () = shutdown.cancelled() => None,
        };
        self.idle.fetch_sub(1, Ordering::SeqCst);
        job
    }
}

/// Counts a connection for as long as its task lives, panics included.
struct Counted(Arc<Lane>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.links.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Carries the lane's jobs, one after the other, over one connection while it lasts. The caller
/// has counted it in `links`.
pub(super) async fn carry(context: Arc<Context>, lane: Arc<Lane>) {
    let counted = Counted(Arc::clone(&lane));
    let mut link: Option<Link> = None;
    loop {
        let linger = if link.is_some() { context.settings.linger } else { Duration::ZERO };
        let Some(job) = lane.next(linger, &context.shutdown).await else { break };
        if let Err(error) = attempt(&context, &lane, &mut link, &job).await {
            // Still due: the next sweep of the queue finds it again.
            tracing::error!(queue_id = %job.message, %error, "the message could not be read");
        }
        let spent = |link: &Link| link.messages >= context.settings.messages_per_connection_max;
        if link.as_ref().is_some_and(spent)
            && let Some(link) = link.take()
        {
            link.quit().await;
        }
    }
    drop(counted);
    if let Some(link) = link {
        link.quit().await;
    }
}

async fn attempt(
    context: &Context,
    lane: &Lane,
    link: &mut Option<Link>,
    job: &Job,
) -> Result<(), StoreError> {
    let loaded;
    let message = match job.kept.as_deref().and_then(|kept| context.spool.kept(kept)) {
        Some(message) => message,
        None => {
            let Some(message) = context.spool.load(job.message).await? else { return Ok(()) };
            loaded = message;
            &loaded
        }
    };
    let preface = lane.target.as_ref().ok().and_then(|hop| preface(hop, message));
    let outgoing = OutgoingMessage {
        reverse_path: message.reverse_path.clone(),
        recipients: job.recipients.iter().map(outgoing_recipient).collect(),
        size: Some(message.size + preface.as_ref().map_or(0, |field| field.len() as u64)),
        eight_bit: message.eight_bit,
        binary: message.binary,
        options: message.options.clone(),
    };
    let reached = match &lane.target {
        Err(reason) => Reached::Nobody { reason: (*reason).to_owned(), status: None },
        Ok(hop) => reach::deliver(context, lane, hop, link, outgoing, message, preface).await,
    };
    let outcome = verdict::attempt(context, job, message, &reached, SystemTime::now()).await;
    record(context, outcome).await;
    Ok(())
}

/// Return-Path, which the host writes that makes the final delivery (RFC 5321 section 4.4).
fn preface(hop: &NextHop, message: &LoadedMessage) -> Option<String> {
    hop.lmtp.then(|| format!("Return-Path: <{}>\r\n", message.reverse_path))
}

fn outgoing_recipient(due: &DueRecipient) -> OutgoingRecipient {
    OutgoingRecipient { address: due.address.clone(), options: due.options.clone() }
}

/// Records an attempt, however long the disk takes to come back: until then the claims are held,
/// so that what was delivered is not delivered again.
async fn record(context: &Context, outcome: verdict::Verdict) {
    let mut pause = Duration::from_secs(1);
    loop {
        let Err(error) = context.spool.record(outcome.attempt()).await else {
            return outcome.log();
        };
        let id = outcome.message();
        tracing::error!(queue_id = %id, %error, "an attempt could not be recorded; trying again");
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(Duration::from_secs(30)),
            () = context.shutdown.cancelled() => return,
        }
    }
}
