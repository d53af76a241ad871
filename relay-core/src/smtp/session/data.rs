//! DATA (RFC 5321 section 4.1.1.4): content up to its end of data.

use std::time::Instant;

use super::message::Opening;
use super::transaction::message_unfinished;
use super::{Phase, Session};
use crate::smtp::command::BodyType;
use crate::smtp::framing::Content;
use crate::smtp::reply::Reply;

impl Session {
    pub(super) fn on_data(&mut self) {
        match self.transaction.take() {
            None if self.incoming.is_some() => self.error(message_unfinished()),
            None => self.error(Reply::new(503, (5, 5, 1), "Send MAIL and RCPT first")),
            // RFC 5321 section 3.3 and RFC 2920 section 3.1: every recipient was refused. RFC 2033
            // section 4.2 wants 503.
            Some(transaction) if transaction.recipients.is_empty() => {
                self.transaction = Some(transaction);
                let code = if self.settings.lmtp { 503 } else { 554 };
                self.error(Reply::new(code, (5, 5, 1), "No valid recipients"));
            }
            // RFC 3030 section 3.
            Some(transaction) if transaction.mail.body == BodyType::BinaryMime => {
                self.transaction = Some(transaction);
                self.error(Reply::new(503, (5, 5, 1), "BODY=BINARYMIME comes by BDAT"));
            }
            Some(transaction) => self.begin_message(transaction, Opening::Data),
        }
    }

    /// A place for the message is open.
    pub(super) fn begin_data(&mut self, now: Instant) {
        self.reply(Reply::plain(354, "End data with <CR><LF>.<CR><LF>"));
        self.phase = Phase::Content;
        self.clock.content_begins(now);
    }

    /// Takes the next piece of content, if there is one.
    pub(super) fn next_content(&mut self, now: Instant) -> bool {
        match self.framing.next_content(self.settings.text_line_max) {
            None => return false,
            Some(Content::End) => self.end_message(now),
            Some(content) => self.on_content(content),
        }
        true
    }
}
