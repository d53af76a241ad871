//! DATA: content streamed through, watched, and refused where it must be.

use std::time::Instant;

use super::header::{HeaderFault, HeaderLimits, HeaderWatch};
use super::transaction::{Transaction, too_large};
use super::{AbortReason, Effect, NewlinePlace, Phase, Question, Session, SessionEvent};
use crate::smtp::envelope::Envelope;
use crate::smtp::framing::Content;
use crate::smtp::reply::Reply;

/// Octets of a refused message, beyond twice the limit of a good one, after which the session
/// ends instead of waiting for the end of data.
const SKIP_SLACK: u64 = 1024 * 1024;

/// A message on its way in.
#[derive(Debug)]
pub(super) struct Incoming {
    /// Octets so far, refused ones included.
    size: u64,
    header: HeaderWatch,
    /// Why it is refused, once it is.
    fault: Option<AbortReason>,
}

impl Session {
    pub(super) fn on_data(&mut self) {
        match self.transaction.take() {
            None => self.error(Reply::new(503, (5, 5, 1), "Send MAIL and RCPT first")),
            // RFC 5321 section 3.3 and RFC 2920 section 3.1: every recipient was refused.
            Some(transaction) if transaction.recipients.is_empty() => {
                self.transaction = Some(transaction);
                self.error(Reply::new(554, (5, 5, 1), "No valid recipients"));
            }
            Some(transaction) => self.begin_message(transaction),
        }
    }

    fn begin_message(&mut self, transaction: Transaction) {
        let Some(helo) = self.helo.clone() else {
            return self.error(super::commands::hello_first());
        };
        self.messages += 1;
        let Transaction { mail, recipients, .. } = transaction;
        let envelope = Envelope {
            helo,
            tls: self.tls.clone(),
            account: self.account.clone(),
            reverse_path: mail.reverse_path,
            declared_size: mail.size,
            body: mail.body,
            recipients,
        };
        self.ask(Question::Open, Effect::BeginMessage(envelope));
    }

    pub(super) fn on_opened(&mut self, result: Result<(), Reply>, now: Instant) {
        if let Err(reply) = result {
            return self.reply_of_driver(reply);
        }
        self.reply(Reply::plain(354, "End data with <CR><LF>.<CR><LF>"));
        let limits = HeaderLimits {
            bytes_max: self.settings.header_bytes_max,
            lines_max: self.settings.header_lines_max,
            received_max: self.settings.received_max,
        };
        let header = HeaderWatch::new(limits);
        self.phase = Phase::Content(Incoming { size: 0, header, fault: None });
        self.framing.begin_content(crate::smtp::framing::BareNewlines::Reject);
        self.clock.content_begins(now);
    }

    /// Takes the next piece of content, if there is one.
    pub(super) fn next_content(&mut self, now: Instant) -> bool {
        let Some(content) = self.framing.next_content(self.settings.text_line_max) else {
            return false;
        };
        let Phase::Content(incoming) = &mut self.phase else { return false };
        let size_max = self.settings.message_size_max;
        match content {
            Content::Bytes(bytes) => {
                // Faults in the order of their octets, however those were cut.
                let room = usize::try_from(size_max - incoming.size).unwrap_or(usize::MAX);
                let fault = match incoming.header.feed(&bytes[..bytes.len().min(room)]) {
                    Err(HeaderFault::TooLarge) => Some(AbortReason::HeaderTooLarge),
                    Err(HeaderFault::TooManyReceived) => Some(AbortReason::Loop),
                    Ok(()) if bytes.len() > room => Some(AbortReason::TooLarge),
                    Ok(()) => None,
                };
                incoming.size = incoming.size.saturating_add(bytes.len() as u64);
                match fault {
                    None => self.effects.push_back(Effect::Body(bytes)),
                    Some(fault) => {
                        self.refuse_message(fault);
                        self.give_up_on_endless();
                    }
                }
            }
            Content::BareNewline => {
                self.event(SessionEvent::BareNewline(NewlinePlace::Content));
                self.refuse_message(AbortReason::BareNewline);
            }
            Content::Newline => {}
            Content::LineTooLong => self.refuse_message(AbortReason::LineTooLong),
            Content::Skipped(count) => {
                incoming.size = incoming.size.saturating_add(count as u64);
                self.give_up_on_endless();
            }
            Content::End => self.end_message(now),
        }
        true
    }

    /// Drops the message now; the reply follows its end, where the client looks for it.
    fn refuse_message(&mut self, fault: AbortReason) {
        if let Phase::Content(incoming) = &mut self.phase {
            incoming.fault = Some(fault);
            self.framing.skip_content();
            self.effects.push_back(Effect::AbortMessage(fault));
        }
    }

    /// Ends the session when a refused message goes on and on.
    fn give_up_on_endless(&mut self) {
        let size_max = self.settings.message_size_max;
        let Phase::Content(Incoming { size, fault: Some(fault), .. }) = self.phase else { return };
        if size > size_max.saturating_mul(2).saturating_add(SKIP_SLACK) {
            self.reply_and_close(fault_reply(fault));
        }
    }

    fn end_message(&mut self, now: Instant) {
        let fault = match &self.phase {
            Phase::Content(incoming) => incoming.fault,
            _ => None,
        };
        let Some(fault) = fault else {
            return self.ask(Question::Store, Effect::EndMessage);
        };
        // Whoever writes bare newlines disagrees with us about where lines end, and so perhaps about
        // where this message did: what it sends next may be another's smuggled mail.
        if fault == AbortReason::BareNewline {
            return self.reply_and_close(fault_reply(fault));
        }
        self.await_command(now);
        self.reply(fault_reply(fault));
    }

    pub(super) fn on_stored(&mut self, result: Result<String, Reply>) {
        match result {
            Ok(id) => {
                self.idle_commands = 0;
                self.reply(Reply::new(250, (2, 0, 0), format!("Ok: queued as {id}")));
            }
            Err(reply) => self.reply_of_driver(reply),
        }
    }

    /// Drops the message that is open, unless its end has been read: then it is the store's.
    pub(super) fn abort_message(&mut self, reason: AbortReason) {
        let open = match &self.phase {
            Phase::Content(incoming) => incoming.fault.is_none(),
            Phase::Asked(Question::Open) => true,
            _ => false,
        };
        if open {
            self.effects.push_back(Effect::AbortMessage(reason));
        }
    }
}

fn fault_reply(fault: AbortReason) -> Reply {
    match fault {
        AbortReason::BareNewline => {
            Reply::new(554, (5, 6, 11), "Bare CR or LF in message: lines end in CRLF")
        }
        AbortReason::TooLarge => too_large(),
        AbortReason::LineTooLong => Reply::new(554, (5, 6, 0), "Line too long in message"),
        AbortReason::HeaderTooLarge => Reply::new(554, (5, 6, 0), "Message header too large"),
        AbortReason::Loop => {
            Reply::new(554, (5, 4, 6), "Too many hops: this message goes in circles")
        }
        AbortReason::PeerClosed | AbortReason::TimedOut => {
            Reply::new(421, (4, 4, 2), "Connection ended")
        }
    }
}
