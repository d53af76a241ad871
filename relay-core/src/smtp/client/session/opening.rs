//! From the greeting to the first MAIL: EHLO or HELO, STARTTLS, AUTH.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Capabilities, ClientAction, ClientSession, ClientTls, FailureKind, Step};
use crate::smtp::client::response::{Response, ResponseError};

/// Longest AUTH command with an initial response, CRLF included: the command line limit of
/// RFC 5321 section 4.5.3.1.4. A longer response waits for the 334.
const AUTH_COMMAND_MAX: usize = 512;

impl ClientSession {
    pub(super) fn hello(&mut self) {
        let verb = if self.settings.lmtp { "LHLO" } else { "EHLO" };
        let command = format!("{verb} {}\r\n", self.settings.helo);
        self.send(Step::Ehlo, command);
    }

    pub(super) fn on_ehlo(&mut self, response: &Response) {
        if response.code == 250 {
            self.capabilities = Capabilities::of(response);
            self.opened();
        } else if response.is_permanent() && !self.settings.lmtp {
            // RFC 5321 section 3.2: a server that knows no EHLO gets HELO.
            let command = format!("HELO {}\r\n", self.settings.helo);
            self.send(Step::Helo, command);
        } else {
            self.finish_failed(FailureKind::Refused(response.clone()));
        }
    }

    /// After each EHLO or HELO: TLS first, then AUTH, then the message.
    pub(super) fn opened(&mut self) {
        if !self.tls && self.settings.tls != ClientTls::Off {
            if self.capabilities.starttls {
                return self.send(Step::StartTls, "STARTTLS\r\n");
            }
            if self.settings.tls == ClientTls::Required {
                return self.finish_failed(FailureKind::Tls("STARTTLS is not offered".to_owned()));
            }
        }
        let Some(login) = &self.settings.login else {
            return self.begin_envelope();
        };
        if !(self.tls && self.capabilities.auth_plain) {
            return self.finish_failed(FailureKind::AuthNotOffered);
        }
        let response = STANDARD.encode(format!("\0{}\0{}", login.name, login.password));
        let command = format!("AUTH PLAIN {response}\r\n");
        if command.len() <= AUTH_COMMAND_MAX {
            self.send(Step::Auth { challenge: false }, command);
        } else {
            self.send(Step::Auth { challenge: true }, "AUTH PLAIN\r\n");
        }
    }

    pub(super) fn on_starttls(&mut self, response: Response) {
        if response.code == 220 {
            // RFC 3207: what came in plaintext behind the 220 is an attacker's.
            if !self.reader.is_empty() {
                return self.abort(FailureKind::Protocol(ResponseError::Unexpected));
            }
            self.step = Step::Handshake;
            self.actions.push_back(ClientAction::StartTls);
        } else if response.is_positive() {
            self.abort(FailureKind::Protocol(ResponseError::Unexpected));
        } else if self.settings.tls == ClientTls::Required {
            self.finish_failed(FailureKind::Refused(response));
        } else {
            // Offered, then refused: opportunistic TLS goes on without it.
            self.capabilities.starttls = false;
            self.opened();
        }
    }

    pub(super) fn on_auth(&mut self, response: Response, challenge: bool) {
        match (response.code, &self.settings.login) {
            (235, _) => self.begin_envelope(),
            (334, Some(login)) if challenge => {
                let line = STANDARD.encode(format!("\0{}\0{}", login.name, login.password));
                self.send(Step::Auth { challenge: false }, format!("{line}\r\n"));
            }
            // RFC 4954 section 4: `*` would cancel; the session is of no use any more, so close.
            _ if response.is_positive() => {
                self.abort(FailureKind::Protocol(ResponseError::Unexpected));
            }
            _ => self.finish_failed(FailureKind::Refused(response)),
        }
    }
}
