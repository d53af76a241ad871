//! BDAT (RFC 3030): content in chunks whose lengths are known, refused ones read to their ends.

use std::time::Instant;

use super::message::Opening;
use super::transaction::too_large;
use super::{AbortReason, Phase, Session};
use crate::smtp::command::Chunk;
use crate::smtp::framing::{BareNewlines, Content};
use crate::smtp::reply::Reply;

impl Session {
    pub(super) fn on_bdat(&mut self, chunk: Chunk, now: Instant) {
        if self.incoming.is_some() {
            return self.begin_chunk(chunk, now);
        }
        match self.transaction.take() {
            None => {
                // After a refused chunk others may be on their way: they are no errors.
                let is_error = !self.chunks_refused;
                let reply = Reply::new(503, (5, 5, 1), "Send MAIL and RCPT first");
                self.skip_chunk(chunk, reply, is_error, now);
            }
            Some(transaction) if transaction.recipients.is_empty() => {
                self.transaction = Some(transaction);
                let code = if self.settings.lmtp { 503 } else { 554 };
                let reply = Reply::new(code, (5, 5, 1), "No valid recipients");
                self.skip_chunk(chunk, reply, true, now);
            }
            Some(_) if chunk.size > self.settings.message_size_max => {
                self.chunks_refused = true;
                self.skip_chunk(chunk, too_large(), false, now);
            }
            Some(transaction) => self.begin_message(transaction, Opening::Bdat(chunk)),
        }
    }

    /// Reads a chunk of the message that is open.
    pub(super) fn begin_chunk(&mut self, chunk: Chunk, now: Instant) {
        let so_far = self.incoming.as_ref().map_or(0, |incoming| incoming.size());
        if so_far.saturating_add(chunk.size) > self.settings.message_size_max {
            self.refuse_message(AbortReason::TooLarge);
        }
        if chunk.size > self.skip_max() {
            return self.reply_and_close(too_large());
        }
        self.framing.begin_chunk(chunk.size, chunk.is_last);
        self.phase = Phase::Chunk(chunk);
        self.clock.content_begins(now);
    }

    /// Reads a chunk away, and says then why.
    pub(super) fn skip_chunk(&mut self, chunk: Chunk, reply: Reply, is_error: bool, now: Instant) {
        if chunk.size > self.skip_max() {
            return self.reply_and_close(reply);
        }
        self.framing.begin_content(BareNewlines::Keep);
        self.framing.skip_content();
        self.framing.begin_chunk(chunk.size, chunk.is_last);
        self.phase = Phase::SkippedChunk { reply, is_error };
        self.clock.content_begins(now);
    }

    /// Takes the next piece of a chunk, if there is one.
    pub(super) fn next_chunk(&mut self, now: Instant) -> bool {
        match self.framing.next_chunk(self.settings.text_line_max) {
            None => return false,
            Some(Content::End) => self.end_chunk(now),
            Some(content) => self.on_content(content),
        }
        true
    }

    fn end_chunk(&mut self, now: Instant) {
        match std::mem::replace(&mut self.phase, Phase::Command) {
            Phase::Chunk(chunk) => self.end_taken_chunk(chunk, now),
            Phase::SkippedChunk { reply, is_error } => {
                self.await_command(now);
                if is_error {
                    self.error(reply);
                } else {
                    self.reply_of_driver(reply);
                }
            }
            other => self.phase = other,
        }
    }

    fn end_taken_chunk(&mut self, chunk: Chunk, now: Instant) {
        let Some(incoming) = &self.incoming else { return };
        if let Some(fault) = incoming.fault() {
            self.incoming = None;
            self.chunks_refused = true;
            if !chunk.is_last {
                self.final_replies = 1;
            }
            return self.end_refused(fault, now);
        }
        if chunk.is_last {
            return self.end_message(now);
        }
        self.await_command(now);
        self.reply(Reply::new(250, (2, 0, 0), format!("{} octets received", chunk.size)));
    }
}
