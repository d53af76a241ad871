//! What is no SMTP at all: a TLS handshake where plain text is due, and binary junk.

use bytes::Bytes;

use super::{Session, SessionEvent};
use crate::{proxy, smtp::reply::Reply};

/// Most octets of early talk that are kept as evidence.
const PREGREET_SHOWN_MAX: usize = 64;

/// What the first octets of a line are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opening {
    /// A command, or something that the parser of commands refuses.
    Text,
    /// It takes more octets to say.
    Unclear,
    /// A TLS handshake record (RFC 8446 section 5.1), or a ClientHello in the form of SSL 2.0,
    /// which old clients offer TLS in (RFC 5246 appendix E.2).
    Tls,
    /// Neither: no command begins with a control character or an octet beyond ASCII.
    Binary,
}

impl Opening {
    fn of(bytes: &[u8]) -> Self {
        match bytes {
            [0x16] => Self::Unclear,
            [0x16, 0x03, ..] => Self::Tls,
            [0x80..=0xff, _, 0x01, 0x00 | 0x03, ..] => Self::Tls,
            [0x80..=0xff] | [0x80..=0xff, _] | [0x80..=0xff, _, 0x01] => Self::Unclear,
            [b'\t' | b'\r' | b'\n' | b' '..=b'~', ..] | [] => Self::Text,
            [_, ..] => Self::Binary,
        }
    }
}

impl Session {
    /// Ends the session when the line that begins is TLS or, before any command was understood,
    /// binary. `None`: it is neither; `false`: it takes more octets to say.
    pub(super) fn refuse_foreign(&mut self) -> Option<bool> {
        let opening = Opening::of(self.framing.line_so_far()?);
        match opening {
            Opening::Tls => self.refuse_tls(),
            Opening::Binary if self.helo.is_none() => self.refuse_binary(),
            Opening::Unclear => return Some(false),
            Opening::Text | Opening::Binary => return None,
        }
        Some(true)
    }

    /// Ends the session of a client that spoke before the banner (RFC 5321 section 3.1). One that
    /// is set to TLS from the start has to speak first, and errs about the port alone.
    pub(super) fn refuse_early(&mut self, bytes: &[u8]) {
        if Opening::of(bytes) == Opening::Tls {
            return self.refuse_tls();
        }
        // A balancer that somebody forgot to list: no reason to ban it.
        if proxy::is_header(bytes) {
            self.event(SessionEvent::ProxyHeader);
            let text = "A PROXY header is not taken from your address";
            return self.reply_and_close(Reply::new(554, (5, 5, 0), text));
        }
        let shown = &bytes[..bytes.len().min(PREGREET_SHOWN_MAX)];
        self.event(SessionEvent::Pregreet(Bytes::copy_from_slice(shown)));
        self.reply_and_close(Reply::new(554, (5, 5, 0), "You spoke before the greeting"));
    }

    fn refuse_tls(&mut self) {
        self.event(SessionEvent::TlsOnPlainPort);
        self.reply_and_close(Reply::new(554, (5, 5, 0), "TLS begins with STARTTLS here"));
    }

    pub(super) fn refuse_binary(&mut self) {
        self.event(SessionEvent::Binary);
        self.reply_and_close(Reply::new(554, (5, 5, 0), "This is SMTP"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openings() {
        for (bytes, opening) in [
            (&b""[..], Opening::Text),
            (b"EHLO", Opening::Text),
            (b"\r\n", Opening::Text),
            (b"\x16", Opening::Unclear),
            (b"\x16\x03\x01", Opening::Tls),
            (b"\x16x", Opening::Binary),
            // SSL 2.0: length with its high bit, CLIENT-HELLO, version 3.1; version 0.2.
            (b"\x80\x2e\x01\x03\x01", Opening::Tls),
            (b"\x80\x2e\x01\x00\x02", Opening::Tls),
            (b"\x80\x2e\x01", Opening::Unclear),
            (b"\x80\x2e", Opening::Unclear),
            (b"\x80", Opening::Unclear),
            (b"\x80\x2e\x02", Opening::Binary),
            (b"\x80\x2e\x01\x05", Opening::Binary),
            (b"\0", Opening::Binary),
            (b"\x03\0\0\x13", Opening::Binary),
            (b"\x7f", Opening::Binary),
        ] {
            assert_eq!(Opening::of(bytes), opening, "{}", bytes.escape_ascii());
        }
    }
}
