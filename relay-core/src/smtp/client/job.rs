//! What to send, and how to talk to the next hop.

use std::sync::Arc;
use std::time::Duration;

use crate::smtp::options::{MailOptions, RcptOptions};

/// Whether to use TLS towards a next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientTls {
    /// Never.
    Off,
    /// When the server offers it.
    IfOffered,
    /// Always, with a certificate that is checked: without that nothing is sent.
    Required,
    /// The connection is in TLS from its first byte (RFC 8314).
    Implicit,
}

/// Name and password for AUTH PLAIN; sent inside TLS alone.
#[derive(Clone, PartialEq, Eq)]
pub struct PlainLogin {
    /// The authentication identity.
    pub name: String,
    /// The password.
    pub password: String,
}

impl std::fmt::Debug for PlainLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlainLogin").field("name", &self.name).finish_non_exhaustive()
    }
}

/// How to talk to one kind of next hop.
#[derive(Debug, Clone)]
pub struct ClientSettings {
    /// The name given in EHLO: a host name or an address literal.
    pub helo: String,
    /// LMTP (RFC 2033) instead of SMTP: each recipient has its own reply to the end of data.
    pub lmtp: bool,
    /// TLS towards the server.
    pub tls: ClientTls,
    /// Credentials; when given, nothing is sent without them.
    pub login: Option<PlainLogin>,
    /// For the greeting (RFC 5321 section 4.5.3.2.1).
    pub greeting_timeout: Duration,
    /// For the reply to any command (sections 4.5.3.2.2 to 4.5.3.2.4).
    pub command_timeout: Duration,
    /// For each chunk of content to be taken by the server (section 4.5.3.2.5).
    pub content_timeout: Duration,
    /// For the reply to the end of data (section 4.5.3.2.6).
    pub end_timeout: Duration,
    /// For the reply to QUIT: the message is settled by then.
    pub quit_timeout: Duration,
}

impl Default for ClientSettings {
    fn default() -> Self {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        Self {
            helo: "localhost".to_owned(),
            lmtp: false,
            tls: ClientTls::IfOffered,
            login: None,
            greeting_timeout: minutes(5),
            command_timeout: minutes(5),
            content_timeout: minutes(3),
            end_timeout: minutes(10),
            quit_timeout: Duration::from_secs(5),
        }
    }
}

/// One message to hand over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutgoingMessage {
    /// Without angle brackets; empty for the null reverse-path.
    pub reverse_path: String,
    /// At least one.
    pub recipients: Vec<OutgoingRecipient>,
    /// Octets of content, for SIZE (RFC 1870).
    pub size: Option<u64>,
    /// The content was declared BODY=8BITMIME (RFC 6152).
    pub eight_bit: bool,
    /// The content was declared BODY=BINARYMIME (RFC 3030): it goes by BDAT, and needs `size`.
    pub binary: bool,
    /// What the next hop is asked for in turn. `utf8`: there are header fields in UTF-8; addresses
    /// in UTF-8 show that themselves.
    pub options: MailOptions,
}

/// One recipient of a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutgoingRecipient {
    /// Without angle brackets.
    pub address: String,
    /// What the next hop is asked for in turn.
    pub options: RcptOptions,
}

impl From<&str> for OutgoingRecipient {
    fn from(address: &str) -> Self {
        Self { address: address.to_owned(), options: RcptOptions::default() }
    }
}

/// What a session begins with.
#[derive(Debug, Clone)]
pub struct ClientJob {
    /// How to talk.
    pub settings: Arc<ClientSettings>,
    /// The first message.
    pub message: OutgoingMessage,
}
