//! What became of a message, recipient by recipient.

use std::fmt;

use super::capabilities::Capabilities;
use super::response::{Response, ResponseError};

/// The step of the dialogue at which something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Waiting for the 220.
    Greeting,
    /// EHLO or HELO.
    Hello,
    /// STARTTLS, its handshake included.
    StartTls,
    /// AUTH.
    Auth,
    /// RSET between two messages.
    Reset,
    /// MAIL.
    Mail,
    /// RCPT.
    Recipient,
    /// DATA, before the content.
    Data,
    /// The content, and the reply to its end.
    Content,
    /// QUIT.
    Quit,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Greeting => "greeting",
            Self::Hello => "EHLO",
            Self::StartTls => "STARTTLS",
            Self::Auth => "AUTH",
            Self::Reset => "RSET",
            Self::Mail => "MAIL",
            Self::Recipient => "RCPT",
            Self::Data => "DATA",
            Self::Content => "end of data",
            Self::Quit => "QUIT",
        })
    }
}

/// Why a recipient has not got the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Where it failed.
    pub stage: Stage,
    /// How.
    pub kind: FailureKind,
}

/// How a delivery failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FailureKind {
    /// The server said no.
    Refused(Response),
    /// What the server sent is no reply.
    Protocol(ResponseError),
    /// The server let the deadline pass.
    TimedOut,
    /// The connection ended.
    Closed,
    /// TLS is required and not offered, or its handshake failed.
    Tls(String),
    /// AUTH is required, and PLAIN inside TLS is not to be had.
    AuthNotOffered,
    /// The message has 8-bit content and the server does not take it (RFC 6152 section 3).
    EightBitNotOffered,
    /// An address or a header field is in UTF-8 and the server does not take it (RFC 6531).
    Utf8NotOffered,
    /// The content is binary and the server does not take it (RFC 3030 section 3).
    BinaryNotOffered,
    /// REQUIRETLS was asked for, and the server does not offer it inside TLS that was verified
    /// (RFC 8689 section 4.2).
    RequireTlsNotOffered,
    /// The message is larger than the server's fixed limit (RFC 1870), in octets.
    TooLarge {
        /// The server's limit.
        limit: u64,
    },
    /// The address is none: it was not sent.
    BadAddress,
    /// The message could not be read from the queue to the end.
    ContentUnreadable,
}

impl Failure {
    /// Whether trying again makes no sense (RFC 5321 section 4.2.1: 5yz). Refusals of this
    /// gateway itself — its greeting, name or credentials — are for now only: they say nothing
    /// about the message.
    pub fn is_permanent(&self) -> bool {
        match &self.kind {
            FailureKind::Refused(response) => {
                response.is_permanent()
                    && !self.is_too_many_recipients(response)
                    && matches!(
                        self.stage,
                        Stage::Mail | Stage::Recipient | Stage::Data | Stage::Content
                    )
            }
            FailureKind::EightBitNotOffered
            | FailureKind::Utf8NotOffered
            | FailureKind::BinaryNotOffered
            | FailureKind::RequireTlsNotOffered
            | FailureKind::TooLarge { .. }
            | FailureKind::BadAddress => true,
            FailureKind::Protocol(_)
            | FailureKind::TimedOut
            | FailureKind::Closed
            | FailureKind::Tls(_)
            | FailureKind::AuthNotOffered
            | FailureKind::ContentUnreadable => false,
        }
    }

    /// RFC 5321 section 4.5.3.1.10: 552 to RCPT, without a better reason, is an old way to say
    /// 452: too many recipients in one transaction.
    fn is_too_many_recipients(&self, response: &Response) -> bool {
        self.stage == Stage::Recipient
            && response.code == 552
            && matches!(response.enhanced, None | Some((5, 5, 3)))
    }

    /// The server's own words, where there are any.
    pub fn response(&self) -> Option<&Response> {
        match &self.kind {
            FailureKind::Refused(response) => Some(response),
            _ => None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = self.stage;
        match &self.kind {
            FailureKind::Refused(response) => write!(f, "{response} (in reply to {stage})"),
            FailureKind::Protocol(error) => write!(f, "{error} (in reply to {stage})"),
            FailureKind::TimedOut => write!(f, "timed out at {stage}"),
            FailureKind::Closed => write!(f, "connection closed at {stage}"),
            FailureKind::Tls(reason) => write!(f, "TLS: {reason}"),
            FailureKind::AuthNotOffered => f.write_str("AUTH PLAIN inside TLS is not offered"),
            FailureKind::EightBitNotOffered => f.write_str("8BITMIME is not offered"),
            FailureKind::Utf8NotOffered => f.write_str("SMTPUTF8 is not offered"),
            FailureKind::BinaryNotOffered => f.write_str("BINARYMIME is not offered"),
            FailureKind::RequireTlsNotOffered => {
                f.write_str("REQUIRETLS is not offered inside verified TLS")
            }
            FailureKind::TooLarge { limit } => {
                write!(f, "larger than the server's limit of {limit} octets")
            }
            FailureKind::BadAddress => f.write_str("address cannot be sent"),
            FailureKind::ContentUnreadable => f.write_str("message could not be read"),
        }
    }
}

/// The end of one recipient's delivery attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecipientStatus {
    /// The server took responsibility, with this reply to the end of data.
    Delivered(Response),
    /// It did not; [`Failure::is_permanent`] says whether to try again.
    Failed(Failure),
}

/// What became of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// One for each recipient of the message, in its order.
    pub recipients: Vec<RecipientStatus>,
    /// What the server offered in the end.
    pub capabilities: Capabilities,
    /// Whether the message went, or would have gone, inside TLS.
    pub tls: bool,
}
