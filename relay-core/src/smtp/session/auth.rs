//! AUTH PLAIN (RFC 4954, RFC 4616): the exchange; whose password it is, others know.

use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::commands::hello_first;
use super::{
    AuthMode, AuthRefusal, Effect, Phase, PlainCredentials, Question, Session, SessionEvent,
};
use crate::smtp::framing::Line;
use crate::smtp::reply::Reply;

/// Longest response line in octets (RFC 4954 section 4.4, item 10).
const RESPONSE_MAX: usize = 12_288;

impl Session {
    pub(super) fn on_auth(&mut self, mechanism: &str, initial: Option<&str>) {
        if self.settings.auth == AuthMode::Off {
            return self.error(Reply::new(502, (5, 5, 1), "AUTH is not implemented"));
        }
        if !self.helo.as_ref().is_some_and(|helo| helo.extended) {
            return self.error(hello_first());
        }
        if self.tls.is_none() {
            let text = "Encryption required for authentication";
            return self.error(Reply::new(538, (5, 7, 11), text));
        }
        // RFC 4954 section 4: once a session, and not during a mail transaction.
        if self.account.is_some() {
            return self.error(Reply::new(503, (5, 5, 1), "Already authenticated"));
        }
        if self.transaction.is_some() || self.incoming.is_some() {
            return self.error(Reply::new(503, (5, 5, 1), "AUTH not during a mail transaction"));
        }
        if !mechanism.eq_ignore_ascii_case("PLAIN") {
            return self.error(Reply::new(504, (5, 5, 4), "Mechanism not supported"));
        }
        match initial {
            None => {
                self.reply(Reply::plain(334, ""));
                self.phase = Phase::AuthLine;
            }
            Some("=") => self.on_response(b""),
            Some(response) => self.on_response(response.as_bytes()),
        }
    }

    /// Takes the line that answers the 334, if it is there.
    pub(super) fn next_auth_line(&mut self, now: Instant) -> bool {
        let Some(line) = self.framing.next_line(RESPONSE_MAX) else { return false };
        self.await_command(now);
        match line {
            Line::Complete(line) if &line[..] == b"*" => {
                self.error(Reply::new(501, (5, 7, 0), "Authentication cancelled"));
            }
            Line::Complete(line) => self.on_response(&line),
            Line::TooLong => {
                self.error(Reply::new(500, (5, 5, 6), "Authentication line too long"));
            }
            refused => self.on_refused_line(&refused),
        }
        true
    }

    /// A response in base64; empty for `=`.
    fn on_response(&mut self, response: &[u8]) {
        let Ok(message) = STANDARD.decode(response) else {
            return self.error(Reply::new(501, (5, 5, 2), "Response is not base64"));
        };
        let Some(credentials) = plain_message(message) else {
            return self.error(Reply::new(501, (5, 5, 2), "Malformed PLAIN response"));
        };
        let name = credentials.authcid.clone();
        // An empty password is no password: to some directories it is an anonymous login.
        if name.is_empty() || credentials.password.is_empty() {
            return self.on_authenticated(name, Err(AuthRefusal::Invalid));
        }
        self.ask(Question::Authentication(name), Effect::Authenticate(credentials));
    }

    pub(super) fn on_authenticated(&mut self, name: String, result: Result<String, AuthRefusal>) {
        match result {
            Ok(account) => {
                self.event(SessionEvent::Authenticated(account.clone()));
                self.account = Some(account);
                self.reply(Reply::new(235, (2, 7, 0), "Authentication successful"));
            }
            Err(AuthRefusal::Unavailable) => {
                let text = "Temporary authentication failure";
                self.reply(Reply::new(454, (4, 7, 0), text));
            }
            Err(AuthRefusal::Invalid) => {
                self.event(SessionEvent::AuthFailed(name));
                self.auth_failures += 1;
                if self.auth_failures >= self.settings.auth_failures_max {
                    let text = "Too many failed authentications";
                    return self.reply_and_close(Reply::new(421, (4, 7, 0), text));
                }
                self.reply(Reply::new(535, (5, 7, 8), "Authentication credentials invalid"));
            }
        }
    }
}

/// `[authzid] NUL authcid NUL passwd`, in UTF-8 (RFC 4616 section 2).
fn plain_message(message: Vec<u8>) -> Option<PlainCredentials> {
    let text = String::from_utf8(message).ok()?;
    let mut parts = text.split('\0').map(str::to_owned);
    let (authzid, authcid, password) = (parts.next()?, parts.next()?, parts.next()?);
    match parts.next() {
        None => Some(PlainCredentials { authzid, authcid, password }),
        Some(_) => None,
    }
}
