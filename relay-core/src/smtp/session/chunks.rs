//! BDAT (RFC 3030): content in chunks whose lengths are known, refused ones read to their ends.

use std::time::Instant;

use super::message::Opening;
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
    /// After a refused chunk others may be on their way: they are no errors.
    Follower(Reply),
    /// Its message is refused, in LMTP for each recipient.
    Message { reply: Reply, replies: usize },
}

impl Session {
    pub(super) fn on_bdat(&mut self, chunk: Chunk, now: Instant) {
        if self.incoming.is_some() {
            return self.begin_chunk(chunk, now);
        }
        match self.transaction.take() {
            None => {
                let reply = Reply::new(503, (5, 5, 1), "Send MAIL and RCPT first");
                let follows = self.chunks_refused;
                let skipped =
                    if follows { Skipped::Follower(reply) } else { Skipped::Command(reply) };
                self.skip_chunk(chunk, skipped, now);
            }
            Some(transaction) if transaction.recipients.is_empty() => {
                self.transaction = Some(transaction);
                let code = if self.settings.lmtp { 503 } else { 554 };
                let reply = Reply::new(code, (5, 5, 1), "No valid recipients");
                self.skip_chunk(chunk, Skipped::Command(reply), now);
            }
            Some(transaction) if chunk.size > self.settings.message_size_max => {
                let each = self.settings.lmtp && chunk.is_last;
                let replies = if each { transaction.recipients.len() } else { 1 };
                self.skip_chunk(chunk, Skipped::Message { reply: too_large(), replies }, now);
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
            | Skipped::Follower(reply)
            | Skipped::Message { reply, .. }) = skipped;
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
            Phase::SkippedChunk(skipped) => {
                self.await_command(now);
                self.end_skipped_chunk(skipped);
            }
            other => self.phase = other,
        }
    }

    fn end_skipped_chunk(&mut self, skipped: Skipped) {
        match skipped {
            Skipped::Command(reply) => self.error(reply),
            Skipped::Follower(reply) => self.reply(reply),
            Skipped::Message { reply, replies } => {
                self.chunks_refused = true;
                self.final_replies = replies;
                self.final_reply(&reply);
                if reply.code() == 421 {
                    self.close();
                }
            }
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
