//! The sending half of SMTP, without I/O.
//!
//! - [`response`]: reads replies, strictly and within bounds.
//! - [`capabilities`]: what the peer's EHLO reply offers.
//! - [`stuffing`]: message content to the wire form of DATA.
//! - [`outcome`]: what became of a message, recipient by recipient.
//! - [`session`]: the dialogue; the driver owns socket, TLS and clock.

pub mod capabilities;
pub mod outcome;
pub mod response;
pub mod session;
pub mod stuffing;

pub use capabilities::Capabilities;
pub use outcome::{Failure, FailureKind, Outcome, RecipientStatus, Stage};
pub use response::{Response, ResponseError, ResponseReader};
pub use session::{
    ClientAction, ClientJob, ClientSession, ClientSettings, ClientTls, OutgoingMessage, PlainLogin,
};
pub use stuffing::DotStuffer;
