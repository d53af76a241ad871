//! What a listener permits in its sessions.

use std::time::Duration;

use crate::smtp::framing::BareNewlines;

/// Whether STARTTLS is offered, and whether mail is taken without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// Not offered.
    Off,
    /// Offered.
    Offer,
    /// Offered, and MAIL is refused without it.
    Require,
}

/// Whether AUTH is offered inside TLS, and whether mail is taken without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMode {
    /// Not offered.
    Off,
    /// Offered inside TLS; never in plaintext.
    Offer,
    /// Offered inside TLS, and MAIL is refused without it.
    Require,
}

/// Settings of a session; shared by all of a listener.
#[derive(Debug, Clone)]
pub struct SessionSettings {
    /// The name in the greeting and in replies.
    pub hostname: String,
    /// STARTTLS.
    pub tls: TlsMode,
    /// AUTH.
    pub auth: AuthMode,
    /// LMTP (RFC 2033) instead of SMTP.
    pub lmtp: bool,
    /// Everything that comes is a submission (RFC 6409), as what comes from an account always is:
    /// Date and Message-ID are added where they are missing.
    pub submission: bool,
    /// Bare CR and LF in message content: refused or normalised.
    pub bare_newlines: BareNewlines,
    /// BINARYMIME (RFC 3030) is offered: only for next hops that take it, as nothing is converted.
    pub binary_mime: bool,
    /// REQUIRETLS (RFC 8689) is offered, inside TLS.
    pub require_tls: bool,
    /// Clients that do not wait where they must (RFC 2920 section 3.1) are refused, not only told of.
    pub enforce_sync: bool,
    /// Largest message in octets, dots taken away. Announced with SIZE.
    pub message_size_max: u64,
    /// Most accepted recipients of one message.
    pub recipients_max: usize,
    /// Most messages in one session, stored or not.
    pub messages_max: usize,
    /// Protocol errors that end the session, the last included.
    pub errors_max: u32,
    /// Senders and recipients refused for good that end the session, the last included.
    pub refusals_max: u32,
    /// Failed authentications that end the session, the last included.
    pub auth_failures_max: u32,
    /// Commands that move nothing (NOOP, RSET, VRFY, EXPN, HELP, EHLO, HELO) since the start or
    /// the last stored message; each one beyond counts as an error.
    pub idle_commands_max: u32,
    /// Longest command line in octets, CRLF apart.
    pub command_line_max: usize,
    /// Longest line of content in octets, CRLF apart. RFC 5321 section 4.5.3.1.6 demands 998.
    pub text_line_max: usize,
    /// Largest header block in octets.
    pub header_bytes_max: usize,
    /// Most lines of the header block.
    pub header_lines_max: usize,
    /// Most Received fields: one more is a loop (RFC 5321 section 6.3).
    pub received_max: usize,
    /// Most levels of parts inside parts, messages inside messages included.
    pub mime_depth_max: usize,
    /// Most octets that a client may send in one session.
    pub session_bytes_max: u64,
    /// For a whole command, from the reply to the one before (RFC 5321 section 4.5.3.2.7).
    pub command_timeout: Duration,
    /// For the next octets of content.
    pub data_timeout: Duration,
    /// Content must, after its first `data_timeout`, have come at this rate on the whole, in
    /// octets a second, the time between chunks counted in; so a byte a minute cannot hold a session.
    pub data_rate_min: u64,
    /// For the whole session.
    pub session_timeout: Duration,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            hostname: "localhost".to_owned(),
            tls: TlsMode::Offer,
            auth: AuthMode::Off,
            lmtp: false,
            submission: false,
            bare_newlines: BareNewlines::Reject,
            binary_mime: false,
            require_tls: false,
            enforce_sync: true,
            message_size_max: 50 * 1024 * 1024,
            recipients_max: 100,
            messages_max: 20,
            errors_max: 10,
            refusals_max: 50,
            auth_failures_max: 3,
            idle_commands_max: 50,
            command_line_max: 2048,
            text_line_max: 16 * 1024,
            header_bytes_max: 256 * 1024,
            header_lines_max: 4096,
            received_max: 50,
            mime_depth_max: 100,
            session_bytes_max: 2 * 1024 * 1024 * 1024,
            command_timeout: Duration::from_secs(5 * 60),
            data_timeout: Duration::from_secs(3 * 60),
            data_rate_min: 1024,
            session_timeout: Duration::from_secs(2 * 60 * 60),
        }
    }
}
