//! A message on its way in, by DATA or BDAT: watched as it streams through, refused where it must
//! be, ended.

use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::beginning::Beginning;
use super::chunks::{RefusedMessage, Skipped};
use super::header::{HeaderFault, HeaderLimits, HeaderWatch};
use super::mime::{MimeWatch, TooDeep};
use super::transaction::{Transaction, too_large};
use super::{
    AbortReason, Effect, HeaderEnd, NewlinePlace, Phase, Question, Session, SessionEvent,
    SessionSettings,
};
use crate::smtp::command::{BodyType, Chunk};
use crate::smtp::envelope::Envelope;
use crate::smtp::framing::{BareNewlines, Content};
use crate::smtp::reply::Reply;

/// Octets of a refused message, beyond twice the limit of a good one, after which the session
/// ends instead of waiting for its end.
const SKIP_SLACK: u64 = 1024 * 1024;

/// How content comes, once a place for it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    Data,
    Bdat(Chunk),
}

/// A message on its way in.
#[derive(Debug)]
pub(super) struct Incoming {
    /// Octets so far, refused ones included.
    size: u64,
    /// The first octets, until they tell how the content begins.
    first: BytesMut,
    /// How it does, once that is known.
    beginning: Option<Beginning>,
    header: HeaderWatch,
    mime: Option<Box<MimeWatch>>,
    mime_depth_max: usize,
    /// MAIL said SMTPUTF8.
    utf8: bool,
    /// It is a submission: fields that it lacks are added (RFC 6409 section 8).
    completes: bool,
    header_told: bool,
    newline_told: bool,
    /// Why it is refused, once it is.
    fault: Option<AbortReason>,
}

impl Incoming {
    fn new(settings: &SessionSettings, utf8: bool, completes: bool) -> Self {
        let limits = HeaderLimits {
            bytes_max: settings.header_bytes_max,
            lines_max: settings.header_lines_max,
            received_max: settings.received_max,
        };
        Self {
            size: 0,
            first: BytesMut::new(),
            beginning: None,
            header: HeaderWatch::new(limits),
            mime: None,
            mime_depth_max: settings.mime_depth_max,
            utf8,
            completes,
            header_told: false,
            newline_told: false,
            fault: None,
        }
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn fault(&self) -> Option<AbortReason> {
        self.fault
    }

    /// Takes a piece of content, and gives it back behind what was held; `None`: it is held too,
    /// as the beginning is not known yet.
    fn begin(&mut self, piece: Bytes) -> Option<Bytes> {
        if self.beginning.is_some() {
            return Some(piece);
        }
        let piece = if self.first.is_empty() {
            piece
        } else {
            self.first.extend_from_slice(&piece);
            self.first.split().freeze()
        };
        let Some(beginning) = Beginning::of(&piece) else {
            self.first = piece.into();
            return None;
        };
        self.begins(beginning);
        Some(piece)
    }

    fn begins(&mut self, beginning: Beginning) {
        self.beginning = Some(beginning);
        self.header.begin(beginning);
    }

    /// At the end: what was held until now.
    fn begin_at_last(&mut self) -> Bytes {
        if self.beginning.is_none() && !self.first.is_empty() {
            self.begins(Beginning::Body);
        }
        self.first.split().freeze()
    }

    /// Looks at a piece of content; returns how much of it belongs to the header section.
    fn watch(&mut self, piece: &[u8]) -> Result<usize, AbortReason> {
        let was_behind = self.header.is_behind();
        let of_header = self.header.feed(piece).map_err(|fault| match fault {
            HeaderFault::TooLarge => AbortReason::HeaderTooLarge,
            HeaderFault::TooManyReceived => AbortReason::Loop,
        })?;
        let too_deep = |TooDeep| AbortReason::TooDeep;
        if self.header.is_behind() && !was_behind {
            let media_type = self.header.media_type();
            let mime = MimeWatch::of(media_type, self.mime_depth_max).map_err(too_deep)?;
            self.mime = mime.map(Box::new);
        }
        if let Some(mime) = &mut self.mime {
            mime.feed(&piece[of_header..]).map_err(too_deep)?;
        }
        Ok(of_header)
    }

    /// Whether there are fields that only a hop with SMTPUTF8 may have.
    fn has_utf8_fields(&self) -> bool {
        let in_parts = self.mime.as_ref().is_some_and(|mime| mime.is_beyond_ascii());
        self.utf8 && (self.header.seen().beyond_ascii || in_parts)
    }

    /// What is to be said at the end of the header section, once, if anything is.
    fn header_end(&mut self) -> Option<HeaderEnd> {
        if std::mem::replace(&mut self.header_told, true) {
            return None;
        }
        let seen = self.header.seen();
        let completes = self.completes && self.header.ends_in_order();
        let end = HeaderEnd {
            lacks_date: completes && !seen.date,
            lacks_message_id: completes && !seen.message_id,
            lacks_empty_line: self.beginning == Some(Beginning::Body),
        };
        (end != HeaderEnd::default()).then_some(end)
    }
}

impl Session {
    pub(super) fn begin_message(&mut self, transaction: Transaction, opening: Opening) {
        let Some(helo) = self.helo.clone() else {
            return self.error(super::commands::hello_first());
        };
        self.messages += 1;
        let Transaction { mail, recipients, .. } = transaction;
        self.final_replies = if self.settings.lmtp { recipients.len() } else { 1 };
        let envelope = Envelope {
            helo,
            lmtp: self.settings.lmtp,
            tls: self.tls.clone(),
            account: self.account.clone(),
            reverse_path: mail.reverse_path,
            declared_size: mail.size,
            body: mail.body,
            options: mail.options,
            recipients,
        };
        let (body, utf8) = (envelope.body, envelope.options.utf8);
        self.ask(Question::Open { opening, body, utf8 }, Effect::BeginMessage(envelope));
    }

    pub(super) fn on_opened(
        &mut self,
        (opening, body, utf8): (Opening, BodyType, bool),
        result: Result<(), Reply>,
        now: Instant,
    ) {
        if let Err(reply) = result {
            return match opening {
                Opening::Data => self.reply_of_driver(reply),
                Opening::Bdat(chunk) => {
                    let refused = RefusedMessage { reply, replies: self.final_replies };
                    let skipped = Skipped::Message { refused, is_last: chunk.is_last };
                    self.skip_chunk(chunk, skipped, now);
                }
            };
        }
        let completes = self.settings.submission || self.account.is_some();
        self.incoming = Some(Incoming::new(&self.settings, utf8, completes));
        self.framing.begin_content(match body {
            BodyType::BinaryMime => BareNewlines::Keep,
            BodyType::SevenBit | BodyType::EightBitMime => self.settings.bare_newlines,
        });
        match opening {
            Opening::Data => self.begin_data(now),
            Opening::Bdat(chunk) => self.begin_chunk(chunk, now),
        }
    }

    /// Takes a piece of content, whichever way it came; its end apart.
    pub(super) fn on_content(&mut self, content: Content) {
        match content {
            Content::Bytes(bytes) => self.on_bytes(bytes),
            Content::Newline => {
                if let Some(incoming) = &mut self.incoming
                    && !std::mem::replace(&mut incoming.newline_told, true)
                {
                    self.event(SessionEvent::BareNewline(NewlinePlace::Content));
                }
                self.on_bytes(Bytes::from_static(b"\r\n"));
            }
            Content::BareNewline => {
                self.event(SessionEvent::BareNewline(NewlinePlace::Content));
                self.refuse_message(AbortReason::BareNewline);
            }
            Content::LineTooLong => self.refuse_message(AbortReason::LineTooLong),
            Content::Skipped(count) => {
                if let Some(incoming) = &mut self.incoming {
                    incoming.size = incoming.size.saturating_add(count as u64);
                }
                self.give_up_on_endless();
            }
            Content::End => {}
        }
    }

    fn on_bytes(&mut self, mut bytes: Bytes) {
        let Some(incoming) = &mut self.incoming else { return };
        // Faults in the order of their octets, however those were cut.
        let room = self.settings.message_size_max.saturating_sub(incoming.size);
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        incoming.size = incoming.size.saturating_add(bytes.len() as u64);
        let is_too_large = bytes.len() > room;
        bytes.truncate(room);
        let watched = match incoming.begin(bytes) {
            Some(bytes) => incoming.watch(&bytes).map(|of_header| (bytes, of_header)),
            None => Ok((Bytes::new(), 0)),
        };
        let fault = match watched {
            Err(fault) => fault,
            Ok(_) if is_too_large => AbortReason::TooLarge,
            Ok((bytes, of_header)) => return self.on_watched(bytes, of_header),
        };
        self.refuse_message(fault);
        self.give_up_on_endless();
    }

    /// Passes a good piece on, and says in its place that the header section has ended.
    fn on_watched(&mut self, mut bytes: Bytes, of_header: usize) {
        let ended = self.incoming.as_mut().filter(|incoming| incoming.header.is_behind());
        if let Some(end) = ended.and_then(Incoming::header_end) {
            let header = bytes.split_to(of_header);
            self.body(header);
            self.effects.push_back(Effect::HeaderEnd(end));
        }
        self.body(bytes);
    }

    fn body(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.effects.push_back(Effect::Body(bytes));
        }
    }

    /// Drops the message now; the reply follows its end, where the client looks for it.
    pub(super) fn refuse_message(&mut self, fault: AbortReason) {
        if let Some(incoming) = &mut self.incoming
            && incoming.fault.is_none()
        {
            incoming.fault = Some(fault);
            self.framing.skip_content();
            self.effects.push_back(Effect::AbortMessage(fault));
        }
    }

    /// Octets of a refused message that are read in search of its end.
    pub(super) fn skip_max(&self) -> u64 {
        self.settings.message_size_max.saturating_mul(2).saturating_add(SKIP_SLACK)
    }

    /// Ends the session when a refused message goes on and on.
    fn give_up_on_endless(&mut self) {
        let skip_max = self.skip_max();
        let Some(Incoming { size, fault: Some(fault), .. }) = self.incoming else { return };
        if size > skip_max {
            self.reply_and_close(fault_reply(fault));
            self.breaks_in = true;
        }
    }

    /// All of it has come.
    pub(super) fn end_message(&mut self, now: Instant) {
        let Some(mut incoming) = self.incoming.take() else { return };
        if let Some(fault) = incoming.fault {
            return self.end_refused(fault, now);
        }
        let last = incoming.begin_at_last();
        if let Some(end) = incoming.header_end() {
            self.effects.push_back(Effect::HeaderEnd(end));
        }
        self.body(last);
        if incoming.has_utf8_fields() {
            self.effects.push_back(Effect::Utf8Fields);
        }
        self.ask(Question::Store, Effect::EndMessage);
    }

    /// A refused message has ended.
    pub(super) fn end_refused(&mut self, fault: AbortReason, now: Instant) {
        self.await_command(now);
        self.final_reply(&fault_reply(fault));
        // Whoever writes bare newlines disagrees with us about where lines end, and so perhaps about
        // where this message did: what it sends next may be another's smuggled mail.
        if fault == AbortReason::BareNewline {
            self.close();
        }
    }

    pub(super) fn on_stored(&mut self, result: Result<String, Reply>) {
        match result {
            Ok(id) => {
                self.idle_commands = 0;
                self.final_reply(&Reply::new(250, (2, 0, 0), format!("Ok: queued as {id}")));
            }
            Err(reply) => {
                self.final_reply(&reply);
                if reply.code() == 421 {
                    self.close();
                }
            }
        }
    }

    /// The reply to the end of a message; in LMTP one for each recipient (RFC 2033 section 4.2).
    pub(super) fn final_reply(&mut self, reply: &Reply) {
        self.forwarded = None;
        for _ in 0..self.final_replies {
            self.reply(reply.clone());
        }
    }

    /// Drops the message that is open, unless its end has been read: then it is the store's.
    pub(super) fn abort_message(&mut self, reason: AbortReason) {
        let open = match self.incoming.take() {
            Some(incoming) => incoming.fault.is_none(),
            None => matches!(self.phase, Phase::Asked(Question::Open { .. })),
        };
        if open {
            self.effects.push_back(Effect::AbortMessage(reason));
        }
    }
}

pub(super) fn fault_reply(fault: AbortReason) -> Reply {
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
        AbortReason::TooDeep => Reply::new(554, (5, 6, 0), "Message parts nested too deeply"),
        AbortReason::PeerClosed | AbortReason::TimedOut | AbortReason::Reset => {
            Reply::new(421, (4, 4, 2), "Connection ended")
        }
    }
}
