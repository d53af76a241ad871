//! SMTP without I/O: RFC 5321 and its extensions, both ends of the dialogue.
//!
//! Server: [`framing`] cuts bytes into lines and content, [`command`] understands lines,
//! [`session`] decides what to do and asks the driver for what it cannot know. [`received`]
//! writes the trace field. Client: [`client`].

pub mod address;
pub mod client;
pub mod command;
pub mod envelope;
pub mod framing;
pub mod options;
pub mod received;
pub mod reply;
pub mod session;
pub mod xtext;

pub use address::{AddressError, Domain, ForwardPath, Mailbox, Path, ReversePath, RoutingTrick};
pub use command::{BodyType, Chunk, MailCommand, RcptCommand};
pub use envelope::{Envelope, Helo, TlsInfo};
pub use options::{MailOptions, Notify, OriginalRecipient, RcptOptions, Returned};
pub use received::{ReceivedField, rfc5322_date};
pub use reply::Reply;
pub use session::{
    AbortReason, Answer, AuthMode, AuthRefusal, Effect, HeaderEnd, NewlinePlace, PlainCredentials,
    Session, SessionEvent, SessionSettings, TlsMode, Verdict,
};
