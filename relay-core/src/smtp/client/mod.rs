//! The sending half of SMTP, without I/O.
//!
//! - [`response`]: reads replies, strictly and within bounds.
//! - [`capabilities`]: what the peer's EHLO reply offers.
//! - [`stuffing`]: message content to the wire form of DATA.
//! - [`job`]: what to send, and how.
//! - [`outcome`]: what became of a message, recipient by recipient.
//! - [`session`]: the dialogue; the driver owns socket, TLS and clock.

pub mod capabilities;
pub mod job;
pub mod outcome;
pub mod response;
pub mod session;
pub mod stuffing;

pub use capabilities::Capabilities;
pub use job::{
    ClientJob, ClientSettings, ClientTls, OutgoingMessage, OutgoingRecipient, PlainLogin,
};
pub use outcome::{Failure, FailureKind, Outcome, RecipientStatus, Stage};
pub use response::{Response, ResponseError, ResponseReader};
pub use session::{ClientAction, ClientSession};
pub use stuffing::DotStuffer;
