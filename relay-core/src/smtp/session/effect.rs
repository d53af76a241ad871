//! What a session asks of its driver, and what the driver answers.

use std::fmt;

use bytes::Bytes;

use crate::smtp::command::{MailCommand, RcptCommand};
use crate::smtp::envelope::{Envelope, TlsInfo};
use crate::smtp::reply::Reply;

use super::xclient::{ClientFacts, Upstream};

/// Something for the driver to do. Order matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send it. Writes may wait until there is no further effect (RFC 2920 section 3.2), but
    /// must be flushed before [`Effect::StartTls`] and [`Effect::Close`].
    Reply(Reply),
    /// May this sender? Answer with [`Answer::Mail`].
    CheckMail(MailCommand),
    /// May this recipient? Answer with [`Answer::Recipient`].
    CheckRecipient(RcptCommand),
    /// Are these good? Answer with [`Answer::Authenticated`].
    Authenticate(PlainCredentials),
    /// Make the TLS handshake, on bytes read after this only. Answer with
    /// [`Answer::TlsStarted`], or close when it fails.
    StartTls,
    /// Make the client that a host of ours names the source of the connection, where it says the
    /// address. Answer with [`Answer::ClientNamed`].
    NameClient(Box<ClientFacts>),
    /// Open a place for the message. Answer with [`Answer::MessageOpened`].
    BeginMessage(Envelope),
    /// Content to append: exact but for dot-stuffing, with CRLF lines alone, unless the body type
    /// is BINARYMIME.
    Body(Bytes),
    /// The header section ends here, before its empty line if it has one; only where there is
    /// something to say.
    HeaderEnd(HeaderEnd),
    /// MAIL said SMTPUTF8, and there are header fields in UTF-8, of the message or of a part in it:
    /// only a hop that offers it may have them (RFC 6531 section 3.6). Right before
    /// [`Effect::EndMessage`].
    Utf8Fields,
    /// The message is complete: make it durable. Answer with [`Answer::Stored`].
    EndMessage,
    /// Drop the message that is open: nothing of it may stay.
    AbortMessage(AbortReason),
    /// A fact for the log, and perhaps evidence.
    Event(SessionEvent),
    /// Close the connection once replies are flushed. Nothing follows.
    Close,
}

/// The driver's answer to the effect of the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To [`Effect::CheckMail`].
    Mail(Verdict),
    /// To [`Effect::CheckRecipient`].
    Recipient(Verdict),
    /// To [`Effect::Authenticate`]: the account's name, or why not.
    Authenticated(Result<String, AuthRefusal>),
    /// To [`Effect::StartTls`].
    TlsStarted(TlsInfo),
    /// To [`Effect::NameClient`]: what the source may say of others from here on, or the reply that
    /// ends its session.
    ClientNamed(Result<Upstream, Reply>),
    /// To [`Effect::BeginMessage`]: ready, or the reply that says why not.
    MessageOpened(Result<(), Reply>),
    /// To [`Effect::EndMessage`]: the queue id, or the reply that says why not.
    Stored(Result<String, Reply>),
}

/// Policy's word on a sender or recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Accept,
    /// No, with this reply.
    Refuse(Reply),
    /// No, and no more of this session.
    RefuseAndClose(Reply),
}

/// Why authentication failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthRefusal {
    /// Wrong name or password, or an authzid that this account may not use: the client is not
    /// told which.
    Invalid,
    /// It cannot be said now.
    Unavailable,
}

/// The message of the mechanism PLAIN (RFC 4616), not empty in name and password.
#[derive(Clone, PartialEq, Eq)]
pub struct PlainCredentials {
    /// Whom to act as; empty or equal to `authcid` in honest use.
    pub authzid: String,
    /// Whose password it is.
    pub authcid: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for PlainCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlainCredentials")
            .field("authzid", &self.authzid)
            .field("authcid", &self.authcid)
            .finish_non_exhaustive()
    }
}

/// What is to be done at the end of a header section: appended are Date, Message-ID, and
/// the empty line, in this order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeaderEnd {
    /// A submission without Date: append one (RFC 6409 section 8.1).
    pub lacks_date: bool,
    /// A submission without Message-ID: append one (RFC 6409 section 8.3).
    pub lacks_message_id: bool,
    /// There is no header section, all is body: an empty line goes before it, lest it be read as
    /// more of what the relay adds. This comes before the first [`Effect::Body`].
    pub lacks_empty_line: bool,
}

/// Why an open message is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbortReason {
    /// A bare CR or LF in the content.
    BareNewline,
    /// Larger than permitted.
    TooLarge,
    /// A line longer than permitted.
    LineTooLong,
    /// A header block larger than permitted.
    HeaderTooLarge,
    /// Too many Received fields.
    Loop,
    /// Parts inside parts, more than permitted.
    TooDeep,
    /// The client gave it up between two chunks: RSET, EHLO, QUIT.
    Reset,
    /// The connection ended before the message did.
    PeerClosed,
    /// The deadline passed.
    TimedOut,
}

/// Where a bare CR or LF stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewlinePlace {
    /// In a command.
    Command,
    /// In message content.
    Content,
}

/// A fact about the client's conduct.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEvent {
    /// It spoke before the banner; the first octets it said.
    Pregreet(Bytes),
    /// It sent more before the reply that it had to wait for (RFC 2920 section 3.1). Once a
    /// session.
    UnauthorisedPipelining,
    /// Plaintext behind STARTTLS: an injection (RFC 3207 section 6).
    PlaintextBehindStartTls,
    /// A recipient that is no address but asks to be routed: `user%other`, `other!user`.
    RoutingTrick,
    /// It speaks HTTP.
    Http,
    /// It began a TLS handshake where plaintext was due.
    TlsOnPlainPort,
    /// It sent binary junk before any command was understood.
    Binary,
    /// It spoke before the banner as a balancer does, and is none that may.
    ProxyHeader,
    /// A bare CR or LF: a broken client, or smuggling.
    BareNewline(NewlinePlace),
    /// A command line without end.
    EndlessLine,
    /// Wrong credentials for this name.
    AuthFailed(String),
    /// Authenticated as this account.
    Authenticated(String),
    /// More protocol errors than permitted.
    TooManyErrors,
    /// More refused senders and recipients than permitted.
    TooManyRefusals,
    /// A deadline passed.
    TimedOut,
    /// More octets in one session than permitted.
    TooManyOctets,
    /// The driver's answer does not fit what was asked: a defect of this program.
    AnswerMismatch,
}
