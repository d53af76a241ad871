//! Command lines: what may come when, and the replies that need nobody's opinion.

use std::time::Instant;

use super::{
    AbortReason, AuthMode, Effect, NewlinePlace, Phase, Question, Session, SessionEvent, TlsMode,
};
use crate::smtp::command::{self, Command, CommandError, Dialect};
use crate::smtp::envelope::{Helo, TlsInfo};
use crate::smtp::framing::Line;
use crate::smtp::reply::Reply;

impl Session {
    /// Takes the next command line, if there is one.
    pub(super) fn next_command(&mut self, now: Instant) -> bool {
        if let Some(refused) = self.refuse_foreign() {
            return refused;
        }
        let Some(line) = self.framing.next_line(self.settings.command_line_max) else {
            return false;
        };
        self.clock.command_begins(now);
        match line {
            Line::Complete(line) if self.helo.is_none() && line.contains(&0) => {
                self.refuse_binary();
            }
            Line::Complete(line) if self.takes_upstream_command(&line) => {}
            Line::Complete(line) => {
                match command::parse(&line, self.dialect()) {
                    Ok(command) => self.on_command(command, now),
                    Err(error @ CommandError::Routing) => {
                        self.event(SessionEvent::RoutingTrick);
                        self.refuse(error.reply());
                    }
                    // The content that follows must not be taken for commands.
                    Err(error @ CommandError::Chunk) => self.reply_and_close(error.reply()),
                    Err(error) => self.error(error.reply()),
                }
            }
            refused => self.on_refused_line(&refused),
        }
        true
    }

    pub(super) fn on_refused_line(&mut self, line: &Line) {
        match line {
            Line::TooLong => self.error(Reply::new(500, (5, 5, 2), "Line too long")),
            Line::Endless => {
                self.event(SessionEvent::EndlessLine);
                self.reply_and_close(Reply::new(421, (4, 7, 0), "Line without end"));
            }
            Line::BareNewline | Line::Complete(_) => {
                self.event(SessionEvent::BareNewline(NewlinePlace::Command));
                let text = "Bare CR or LF: lines end in CRLF";
                self.error(Reply::new(500, (5, 5, 2), text));
            }
        }
    }

    fn dialect(&self) -> Dialect {
        Dialect {
            extended: self.helo.as_ref().is_some_and(|helo| helo.extended),
            utf8: self.transaction.as_ref().is_some_and(|open| open.mail.options.utf8),
        }
    }

    fn on_command(&mut self, command: Command<'_>, now: Instant) {
        if self.spoke_too_soon(&command) {
            let text = "You must wait for the reply before you send more";
            return self.reply_and_close(Reply::new(554, (5, 5, 0), text));
        }
        match command {
            Command::Ehlo(name) => self.on_hello(name, true, false),
            Command::Helo(name) => self.on_hello(name, false, false),
            Command::Lhlo(name) => self.on_hello(name, true, true),
            Command::StartTls => self.on_starttls(),
            Command::Auth { mechanism, initial } => self.on_auth(mechanism, initial),
            Command::Mail(mail) => self.on_mail(mail),
            Command::Rcpt(rcpt) => self.on_rcpt(rcpt),
            Command::Data => self.on_data(),
            Command::Bdat(chunk) => self.on_bdat(chunk, now),
            Command::Rset => {
                self.reset_transaction();
                self.idle(Reply::new(250, (2, 0, 0), "Ok"));
            }
            Command::Noop => self.idle(Reply::new(250, (2, 0, 0), "Ok")),
            // RFC 5321 section 3.5.3: neither confirm nor deny.
            Command::Vrfy => {
                let text = "Cannot VRFY, but will take mail and try to deliver it";
                self.idle(Reply::new(252, (2, 5, 0), text));
            }
            Command::Expn => self.idle(Reply::new(502, (5, 5, 1), "EXPN is not implemented")),
            Command::Help => {
                let text = match self.settings.lmtp {
                    true => "LHLO MAIL RCPT DATA BDAT RSET NOOP VRFY QUIT",
                    false => "EHLO HELO STARTTLS AUTH MAIL RCPT DATA BDAT RSET NOOP VRFY QUIT",
                };
                self.idle(Reply::new(214, (2, 0, 0), text));
            }
            Command::Quit => {
                self.reset_transaction();
                self.reply_and_close(Reply::new(221, (2, 0, 0), "Bye"));
            }
            Command::Http => {
                self.event(SessionEvent::Http);
                self.reply_and_close(Reply::new(554, (5, 5, 0), "This is SMTP, not HTTP"));
            }
        }
    }

    /// RFC 2920 section 3.1: these commands end a group, as their replies decide what may follow;
    /// and before EHLO's reply no group was offered at all. Whether this client did not wait, and is
    /// refused for it.
    fn spoke_too_soon(&mut self, command: &Command<'_>) -> bool {
        let ends_group = match command {
            Command::Ehlo(_) | Command::Helo(_) | Command::Lhlo(_) => true,
            Command::Data | Command::Auth { .. } => true,
            // Each has its own reply to what follows it.
            Command::StartTls | Command::Http => false,
            _ => !self.helo.as_ref().is_some_and(|helo| helo.extended),
        };
        let too_soon = ends_group && !self.framing.is_empty();
        if too_soon && !self.pipelining_reported {
            self.pipelining_reported = true;
            self.event(SessionEvent::UnauthorisedPipelining);
        }
        too_soon && self.settings.enforce_sync
    }

    /// What MAIL, RCPT and BDAT have built up is given up.
    fn reset_transaction(&mut self) {
        self.transaction = None;
        self.forwarded = None;
        self.abort_message(AbortReason::Reset);
        self.forget_refused();
    }

    /// A reply to a command that moves nothing; a flood of them counts as errors.
    fn idle(&mut self, reply: Reply) {
        self.idle_commands = self.idle_commands.saturating_add(1);
        if self.idle_commands > self.settings.idle_commands_max {
            self.error(Reply::new(450, (4, 7, 0), "Too many commands without a message"));
        } else {
            self.reply(reply);
        }
    }

    /// RFC 5321 section 4.1.4: EHLO clears buffers like RSET.
    /// In LMTP there is LHLO instead (RFC 2033 section 4.1).
    fn on_hello(&mut self, name: &str, extended: bool, lmtp: bool) {
        if lmtp != self.settings.lmtp {
            let text = if lmtp { "This is SMTP: say EHLO" } else { "This is LMTP: say LHLO" };
            return self.error(Reply::new(500, (5, 5, 1), text));
        }
        self.reset_transaction();
        self.helo = Some(Helo { name: name.to_owned(), extended });
        let mut reply = Reply::plain(250, self.settings.hostname.clone());
        if extended {
            reply = self.offers(reply);
        }
        self.idle(reply);
    }

    /// The extensions, as they are on offer now.
    fn offers(&self, mut reply: Reply) -> Reply {
        let settings = &self.settings;
        reply = reply
            .line(format!("SIZE {}", settings.message_size_max))
            .line("8BITMIME")
            .line("PIPELINING")
            .line("ENHANCEDSTATUSCODES")
            .line("SMTPUTF8")
            .line("CHUNKING");
        if settings.binary_mime {
            reply = reply.line("BINARYMIME");
        }
        let (mails, recipients) = (settings.messages_max, settings.recipients_max);
        reply = reply.line("DSN").line(format!("LIMITS MAILMAX={mails} RCPTMAX={recipients}"));
        if self.tls.is_some() && settings.require_tls {
            reply = reply.line("REQUIRETLS");
        }
        if self.tls.is_none() && settings.tls != TlsMode::Off {
            reply = reply.line("STARTTLS");
        }
        if self.tls.is_some() && settings.auth != AuthMode::Off && self.account.is_none() {
            reply = reply.line("AUTH PLAIN");
        }
        for offer in self.offers_of_upstream() {
            reply = reply.line(offer);
        }
        reply
    }

    /// RFC 3207.
    fn on_starttls(&mut self) {
        if self.settings.tls == TlsMode::Off && self.tls.is_none() {
            return self.error(Reply::new(502, (5, 5, 1), "STARTTLS is not implemented"));
        }
        if self.tls.is_some() {
            return self.error(Reply::new(503, (5, 5, 1), "TLS is already active"));
        }
        if self.helo.is_none() {
            return self.error(hello_first());
        }
        // Section 6: what was sent in plaintext must not be taken as said inside TLS.
        if !self.framing.is_empty() {
            self.event(SessionEvent::PlaintextBehindStartTls);
            let text = "Nothing may follow STARTTLS before the handshake";
            return self.reply_and_close(Reply::new(554, (5, 5, 0), text));
        }
        self.reply(Reply::new(220, (2, 0, 0), "Ready to start TLS"));
        self.ask(Question::Tls, Effect::StartTls);
    }

    /// Section 4.2: what was known before the handshake is forgotten. Counters of misconduct and
    /// of messages stay: a handshake does not excuse anything.
    pub(super) fn on_tls_started(&mut self, info: TlsInfo) {
        self.framing.clear();
        self.helo = None;
        self.account = None;
        self.reset_transaction();
        self.tls = Some(info);
        debug_assert!(matches!(self.phase, Phase::Command));
    }
}

pub(super) fn hello_first() -> Reply {
    Reply::new(503, (5, 5, 1), "Send EHLO or HELO first")
}
