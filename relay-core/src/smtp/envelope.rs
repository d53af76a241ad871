//! What a message carries besides its content.

use crate::smtp::address::{ForwardPath, ReversePath};
use crate::smtp::command::BodyType;
use crate::smtp::options::MailOptions;

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
    /// It came by LMTP.
    pub lmtp: bool,
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
    /// What MAIL asks of every hop.
    pub options: MailOptions,
    /// Accepted recipients, in the order of their RCPT; at least one.
    pub recipients: Vec<ForwardPath>,
}

impl Envelope {
    /// The protocol keyword for the Received field (RFC 3848, RFC 6531 section 4.3).
    pub fn protocol(&self) -> &'static str {
        // Without security, with AUTH, with TLS, with both.
        let names = match (self.lmtp, self.options.utf8, self.helo.extended) {
            (true, false, _) => ["LMTP", "LMTPA", "LMTPS", "LMTPSA"],
            (true, true, _) => ["UTF8LMTP", "UTF8LMTPA", "UTF8LMTPS", "UTF8LMTPSA"],
            (false, true, _) => ["UTF8SMTP", "UTF8SMTPA", "UTF8SMTPS", "UTF8SMTPSA"],
            (false, false, true) => ["ESMTP", "ESMTPA", "ESMTPS", "ESMTPSA"],
            (false, false, false) => ["SMTP"; 4],
        };
        names[usize::from(self.account.is_some()) + 2 * usize::from(self.tls.is_some())]
    }
}
