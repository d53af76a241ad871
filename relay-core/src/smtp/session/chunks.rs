//! BDAT (RFC 3030): content in chunks whose lengths are known, refused ones read to their ends.

use std::time::Instant;

use super::message::{Opening, fault_reply};
use super::transaction::too_large;
use super::{AbortReason, Phase, Session};
use crate::smtp::command::Chunk;
use crate::smtp::framing::{BareNewlines, Content};
use crate::smtp::reply::Reply;

/// What is said when a chunk that nobody wants has been read away.
#[derive(Debug)]
pub(super) enum Skipped {
    /// Its command was out of place.
    Command(Reply),
    /// Its message is refused.
    Message { refused: RefusedMessage, is_last: bool },
}

/// A message one of whose chunks was refused. Others may be on their way (RFC 3030 section 2): they
/// are no errors, and read the same, as a client may go by the last reply.
#[derive(Debug, Clone)]
pub(super) struct RefusedMessage {
    pub reply: Reply,
    /// Replies due to its last chunk: in LMTP one for each recipient.
    pub replies: usize,
}

impl Session {
    pub(super) fn on_bdat(&mut self, chunk: Chunk, now: Instant) {
        if self.incoming.is_some() {
            return self.begin_chunk(chunk, now);
        }
        match self.transaction.take() {
            None => {
                let out_of_place = Reply::new(503, (5, 5, 1), "Send MAIL and RCPT first");
                let skipped = match self.refused.clone() {
                    Some(refused) => Skipped::Message { refused, is_last: chunk.is_last },
                    None => Skipped::Command(out_of_place),
                };
                self.skip_chunk(chunk, skipped, now);
            }
            Some(transaction) if transaction.recipients.is_empty() => {
                self.transaction = Some(transaction);
                let code = if self.settings.lmtp { 503 } else { 554 };
                let reply = Reply::new(code, (5, 5, 1), "No valid recipients");
                self.skip_chunk(chunk, Skipped::Command(reply), now);
            }
            Some(transaction) if chunk.size > self.settings.message_size_max => {
                let replies = if self.settings.lmtp { transaction.recipients.len() } else { 1 };
                let refused = RefusedMessage { reply: too_large(), replies };
                let skipped = Skipped::Message { refused, is_last: chunk.is_last };
                self.skip_chunk(chunk, skipped, now);
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
    pub(super) fn skip_chunk(&mut self, chunk: Chunk, skipped: Skipped, now: Instant) {
        if chunk.size > self.skip_max() {
            let (Skipped::Command(reply)
            | Skipped::Message { refused: RefusedMessage { reply, .. }, .. }) = skipped;
            return self.reply_and_close(reply);
        }
        self.framing.begin_content(BareNewlines::Keep);
        self.framing.skip_content();
        self.framing.begin_chunk(chunk.size, chunk.is_last);
        self.phase = Phase::SkippedChunk(skipped);
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
            Phase::SkippedChunk(skipped) => self.end_skipped_chunk(skipped, now),
            other => self.phase = other,
        }
    }

    fn end_skipped_chunk(&mut self, skipped: Skipped, now: Instant) {
        match skipped {
            Skipped::Command(reply) => {
                self.await_command(now);
                self.error(reply);
            }
            Skipped::Message { refused, is_last } => {
                let reply = refused.reply.clone();
                self.refuse_chunk(refused, is_last);
                self.await_command(now);
                self.final_reply(&reply);
                if reply.code() == 421 {
                    self.close();
                }
            }
        }
    }

    /// The chunk of a refused message has been read; its reply is due.
    fn refuse_chunk(&mut self, refused: RefusedMessage, is_last: bool) {
        self.final_replies = if is_last { refused.replies } else { 1 };
        self.refused = (!is_last).then_some(refused);
    }

    /// Nothing more comes of a message that was refused.
    pub(super) fn forget_refused(&mut self) {
        self.refused = None;
        self.clock.message_ends();
    }

    fn end_taken_chunk(&mut self, chunk: Chunk, now: Instant) {
        let Some(incoming) = &self.incoming else { return };
        if let Some(fault) = incoming.fault() {
            self.incoming = None;
            let refused = RefusedMessage { reply: fault_reply(fault), replies: self.final_replies };
            self.refuse_chunk(refused, chunk.is_last);
            return self.end_refused(fault, now);
        }
        if chunk.is_last {
            return self.end_message(now);
        }
        self.await_command(now);
        self.reply(Reply::new(250, (2, 0, 0), format!("{} octets received", chunk.size)));
    }
}
