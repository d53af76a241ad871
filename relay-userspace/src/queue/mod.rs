//! The queue: messages on disk between their 250 and their delivery.
//!
//! One SQLite database in WAL mode with synchronous=FULL. One thread writes it: it drains what
//! waits into one transaction and answers after COMMIT, so 250 means "on disk". Large contents are
//! files, complete and synced before the row that names them. Readers have connections of their
//! own; delivery gets what was just stored without asking the disk. The queue knows nothing of SMTP, of next hops or of policy.

mod accept;
mod apply;
mod body;
mod error;
mod handoff;
mod id;
mod list;
mod message;
mod opening;
mod read;
mod schema;
mod spool;
mod writer;

pub use accept::MessageWriter;
pub use body::Content;
pub use error::StoreError;
pub use handoff::{Fresh, Kept, News};
pub use id::{NotAQueueId, QueueId};
pub(crate) use list::header_length;
pub use list::{Filter, MessageDetail, MessageSummary, QueueStats, RecipientDetail};
pub(crate) use message::domain_of;
pub use message::{
    Attempt, Bounce, Deferral, DueCursor, DueRecipient, Failure, LoadedMessage, NewMessage,
    NewRecipient, Rest, Route, SenderReport,
};
pub use spool::{Spool, SpoolSettings};

#[cfg(test)]
mod tests;
