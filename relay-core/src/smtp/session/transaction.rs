//! MAIL and RCPT: the envelope as it grows.

use super::commands::hello_first;
use super::{AuthMode, Effect, Question, Session, TlsMode, Verdict};
use crate::smtp::address::ForwardPath;
use crate::smtp::command::{BodyType, MailCommand, RcptCommand};
use crate::smtp::reply::Reply;

/// Recipients beyond the limit, as a multiple of it, that are refused without counting as errors.
const EXCESS_FACTOR: usize = 20;

/// From an accepted MAIL to the end of data, RSET or EHLO.
#[derive(Debug)]
pub(super) struct Transaction {
    pub mail: MailCommand,
    pub recipients: Vec<ForwardPath>,
    /// RCPT commands beyond the limit.
    pub excess: usize,
}

impl Session {
    pub(super) fn on_mail(&mut self, mail: MailCommand) {
        if self.helo.is_none() {
            return self.error(hello_first());
        }
        // RFC 3207 section 4.
        if self.settings.tls == TlsMode::Require && self.tls.is_none() {
            let text = "Must issue a STARTTLS command first";
            return self.error(Reply::new(530, (5, 7, 0), text));
        }
        // RFC 4954 section 6.
        if self.settings.auth == AuthMode::Require && self.account.is_none() {
            return self.error(Reply::new(530, (5, 7, 0), "Authentication required"));
        }
        if self.incoming.is_some() {
            return self.error(message_unfinished());
        }
        if self.transaction.is_some() {
            return self.error(Reply::new(503, (5, 5, 1), "MAIL was given already"));
        }
        self.forget_refused();
        // RFC 5321 section 4.2.1: 421 ends the session, and the client comes back for the rest.
        if self.messages >= self.settings.messages_max {
            let text = "Too many messages in one session";
            return self.reply_and_close(Reply::new(421, (4, 7, 0), text));
        }
        // RFC 4954 section 5 gives AUTH= to servers that offer AUTH.
        if mail.auth.is_some() && self.settings.auth == AuthMode::Off {
            return self.error(Reply::new(555, (5, 5, 4), "Parameter not recognized"));
        }
        // RFC 3030 section 3, RFC 8689 section 4.1: what is not on offer cannot be asked for.
        if mail.body == BodyType::BinaryMime && !self.settings.binary_mime {
            return self.error(Reply::new(501, (5, 5, 4), "BODY=BINARYMIME is not offered"));
        }
        if mail.options.require_tls && !(self.settings.require_tls && self.tls.is_some()) {
            return self.error(Reply::new(555, (5, 5, 4), "REQUIRETLS is not offered here"));
        }
        // RFC 1870 section 6.1.
        if mail.size.is_some_and(|size| size > self.settings.message_size_max) {
            return self.reply(too_large());
        }
        self.ask(Question::Mail(mail.clone()), Effect::CheckMail(mail));
    }

    pub(super) fn on_mail_verdict(&mut self, mail: MailCommand, verdict: Verdict) {
        match verdict {
            Verdict::Accept => {
                self.transaction = Some(Transaction { mail, recipients: Vec::new(), excess: 0 });
                self.reply(Reply::new(250, (2, 1, 0), "Sender ok"));
            }
            Verdict::Refuse(reply) => self.refuse(reply),
            Verdict::RefuseAndClose(reply) => self.reply_and_close(reply),
        }
    }

    pub(super) fn on_rcpt(&mut self, rcpt: RcptCommand) {
        if self.incoming.is_some() {
            return self.error(message_unfinished());
        }
        let recipients_max = self.settings.recipients_max;
        let Some(transaction) = &mut self.transaction else {
            return self.error(Reply::new(503, (5, 5, 1), "Send MAIL first"));
        };
        // RFC 5321 section 4.5.3.1.10: 452, and the client sends to the rest another time. A
        // long list in one pipelined group is honest, so only a flood counts as errors.
        if transaction.recipients.len() >= recipients_max {
            transaction.excess += 1;
            let flood = transaction.excess > recipients_max.saturating_mul(EXCESS_FACTOR);
            let reply = Reply::new(452, (4, 5, 3), "Too many recipients");
            return if flood { self.error(reply) } else { self.reply(reply) };
        }
        self.ask(Question::Recipient(rcpt.forward_path.clone()), Effect::CheckRecipient(rcpt));
    }

    pub(super) fn on_recipient_verdict(&mut self, path: ForwardPath, verdict: Verdict) {
        match verdict {
            Verdict::Accept => {
                if let Some(transaction) = &mut self.transaction {
                    transaction.recipients.push(path);
                }
                self.reply(Reply::new(250, (2, 1, 5), "Recipient ok"));
            }
            Verdict::Refuse(reply) => self.refuse(reply),
            Verdict::RefuseAndClose(reply) => self.reply_and_close(reply),
        }
    }
}

/// Instead of what would begin or change a message, between two chunks of one (RFC 3030, section 3).
pub(super) fn message_unfinished() -> Reply {
    Reply::new(503, (5, 5, 1), "A message is coming in by BDAT")
}

pub(super) fn too_large() -> Reply {
    Reply::new(552, (5, 3, 4), "Message is larger than permitted")
}
