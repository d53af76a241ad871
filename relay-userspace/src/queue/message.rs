//! The queue's vocabulary: what is stored, what is read back, what came of an attempt.

use super::QueueId;
use super::body::{BodyFile, Content};
use relay_core::smtp::options::{MailOptions, RcptOptions};
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// An envelope as the session accepted it, with what the log and `queue show` want to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMessage {
    /// `local@domain` as it stands between the angle brackets; empty is the null reverse-path.
    pub reverse_path: String,
    /// At least one.
    pub recipients: Vec<NewRecipient>,
    /// What every hop is asked for. `utf8` says that header fields are in UTF-8, which is known only
    /// when they have come ([`MessageWriter::set_utf8`](super::MessageWriter::set_utf8)).
    pub options: MailOptions,
    /// The content was declared BODY=BINARYMIME.
    pub binary: bool,
    /// The client's address; `None` for mail made here.
    pub source: Option<IpAddr>,
    /// The account the client authenticated as.
    pub account: Option<String>,
    /// What the client called itself.
    pub helo: String,
    /// The listener that took it.
    pub listener: String,
}

/// One recipient of a message, with the decision that admitted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRecipient {
    /// `local@domain` as it stands between the angle brackets.
    pub address: String,
    /// What the next hop is asked for.
    pub options: RcptOptions,
    /// Whither.
    pub route: Route,
    /// The rule that accepted it, for log and `queue show`.
    pub rule: String,
}

/// Which way a recipient goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Route {
    /// One of ours: to the inside host of its domain.
    Inbound,
    /// Passed on: to the smart host, unless an inside host is configured for the domain.
    Relay,
}

/// The domain of `local@domain` in lower case; empty where there is none.
pub(crate) fn domain_of(address: &str) -> String {
    address.rsplit_once('@').map(|(_, domain)| domain.to_ascii_lowercase()).unwrap_or_default()
}

/// A message ready for the writer.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) id: QueueId,
    pub(super) message: NewMessage,
    pub(super) received_ms: i64,
    pub(super) size: u64,
    pub(super) checksum: u64,
    pub(super) eight_bit: bool,
    pub(super) content: Content<BodyFile>,
}

/// A recipient whose time has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueRecipient {
    pub message: QueueId,
    /// Place in the message's list; with `message` it names the recipient.
    pub ordinal: u32,
    pub address: String,
    pub domain: String,
    pub options: RcptOptions,
    pub route: Route,
    pub rule: String,
    /// Attempts made so far.
    pub attempts: u32,
    pub due: SystemTime,
}

/// What comes after a page of what is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// More, behind this place.
    More(DueCursor),
    /// Nothing before this time; `None`: nothing waits for a time.
    Until(Option<SystemTime>),
}

impl Default for Rest {
    fn default() -> Self {
        Self::Until(None)
    }
}

/// Where a scan of the due recipients stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DueCursor {
    pub(super) due_ms: i64,
    pub(super) message: i64,
    pub(super) ordinal: i64,
}

impl DueCursor {
    /// Before all of them.
    pub const START: Self = Self { due_ms: i64::MIN, message: 0, ordinal: 0 };

    /// Right before this recipient.
    pub fn before(recipient: &DueRecipient) -> Self {
        let after = Self::after(recipient);
        Self { ordinal: after.ordinal - 1, ..after }
    }

    /// Right behind this recipient.
    pub fn after(recipient: &DueRecipient) -> Self {
        Self {
            due_ms: to_ms(recipient.due),
            message: recipient.message.row(),
            ordinal: i64::from(recipient.ordinal),
        }
    }

    /// Before all that became due less than `margin` before this place.
    pub fn back(self, margin: Duration) -> Self {
        let margin = i64::try_from(margin.as_millis()).unwrap_or(i64::MAX);
        Self { due_ms: self.due_ms.saturating_sub(margin), message: 0, ordinal: -1 }
    }
}

/// A message read back for delivery; the content has been checked against its checksum.
#[derive(Debug)]
pub struct LoadedMessage {
    pub id: QueueId,
    pub reverse_path: String,
    pub received: SystemTime,
    /// Octets of the content.
    pub size: u64,
    /// The content holds octets above 127, so the next hop must offer 8BITMIME (RFC 6152).
    pub eight_bit: bool,
    /// It may hold anything, so the next hop must offer BINARYMIME (RFC 3030).
    pub binary: bool,
    pub options: MailOptions,
    pub content: Content<std::fs::File>,
}

/// What came of one attempt at some recipients of a message; recorded as a whole or not at all.
#[derive(Debug)]
pub struct Attempt {
    pub message: QueueId,
    pub at: SystemTime,
    /// Taken over by the next hop: removed.
    pub delivered: Vec<u32>,
    /// To be tried again.
    pub deferred: Vec<Deferral>,
    /// Given up: removed, and reported by `report`.
    pub failed: Vec<Failure>,
    /// Where the sender is told, of those that failed and of others that asked for it.
    pub report: SenderReport,
}

/// A recipient to be tried again at `due`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deferral {
    pub ordinal: u32,
    pub due: SystemTime,
    pub error: String,
}

/// A recipient that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub ordinal: u32,
    pub reason: String,
}

/// What becomes of the news for the sender.
#[derive(Debug)]
pub enum SenderReport {
    /// There is none, or none that the sender wants.
    None,
    /// This DSN is queued in the same transaction.
    Bounce(Box<Bounce>),
    /// The message can be neither delivered nor returned: the recipients go to badmail.
    Badmail,
}

/// A DSN to be queued.
#[derive(Debug)]
pub struct Bounce {
    /// From `Spool::allocate`.
    pub id: QueueId,
    /// The recipients it is about.
    pub about: Vec<u32>,
    pub message: NewMessage,
    pub content: Vec<u8>,
}

/// Milliseconds since 1970, the database's unit.
pub(super) fn to_ms(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn from_ms(ms: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}
