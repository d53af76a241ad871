//! What a message carries besides its content.

use crate::smtp::address::{ForwardPath, ReversePath};
use crate::smtp::command::BodyType;

/// How the client introduced itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Helo {
    /// The name it gave: printable ASCII, anything else unchecked.
    pub name: String,
    /// By EHLO.
    pub extended: bool,
}

/// What was negotiated in a TLS handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsInfo {
    /// For instance `TLSv1.3`.
    pub version: String,
    /// The cipher suite's name.
    pub cipher: String,
}

/// The envelope of one message, complete when DATA is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// How the client introduced itself.
    pub helo: Helo,
    /// The TLS that the message came in.
    pub tls: Option<TlsInfo>,
    /// The account that the client authenticated as.
    pub account: Option<String>,
    /// From MAIL.
    pub reverse_path: ReversePath,
    /// SIZE of MAIL: what the client announced, in octets.
    pub declared_size: Option<u64>,
    /// BODY of MAIL.
    pub body: BodyType,
    /// Accepted recipients, in the order of their RCPT; at least one.
    pub recipients: Vec<ForwardPath>,
}

impl Envelope {
    /// The protocol keyword for the Received field (RFC 3848).
    pub fn protocol(&self) -> &'static str {
        match (self.helo.extended, self.tls.is_some(), self.account.is_some()) {
            (true, true, true) => "ESMTPSA",
            (true, true, false) => "ESMTPS",
            (true, false, true) => "ESMTPA",
            (true, false, false) => "ESMTP",
            (false, ..) => "SMTP",
        }
    }
}
