//! The receiving session: bytes, times and answers in; effects out.
//!
//! The driver loops: take effects until there is none, doing each and answering those that ask;
//! then, while [`Session::wants_bytes`], read with [`Session::deadline`] as the limit and
//! [`push`](Session::push) what came. Commands are taken strictly one after the other, so replies
//! keep their order under PIPELINING. The driver stops reading while an answer is due: the
//! buffer then never holds more than one read beyond an unfinished line.

mod auth;
mod beginning;
mod chunks;
mod clock;
mod commands;
mod data;
mod effect;
mod foreign;
mod header;
mod media_type;
mod message;
mod mime;
mod settings;
mod transaction;
mod xclient;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

pub use effect::{
    AbortReason, Answer, AuthRefusal, Effect, HeaderEnd, NewlinePlace, PlainCredentials,
    SessionEvent, Verdict,
};
pub use settings::{AuthMode, SessionSettings, TlsMode};
pub use xclient::{ClientFacts, Told, Upstream};

use self::chunks::{RefusedMessage, Skipped};
use self::clock::Clock;
use self::message::{Incoming, Opening};
use self::transaction::Transaction;
use super::address::ForwardPath;
use super::command::{BodyType, Chunk, MailCommand};
use super::envelope::{Helo, TlsInfo};
use super::framing::Framing;
use super::reply::Reply;

/// Where the dialogue stands.
#[derive(Debug)]
enum Phase {
    /// The banner has not been sent.
    Banner,
    /// A command is due.
    Command,
    /// The line that answers a 334 is due.
    AuthLine,
    /// Content is due, to its end of data.
    Content,
    /// A chunk of content is due.
    Chunk(Chunk),
    /// A chunk is due that nobody wants; then this is said.
    SkippedChunk(Skipped),
    /// An answer of the driver is due.
    Asked(Question),
    /// Nothing is due any more.
    Closed,
}

/// What the driver was asked.
#[derive(Debug)]
enum Question {
    Mail(MailCommand),
    Recipient(ForwardPath),
    /// The name that the client gave.
    Authentication(String),
    Tls,
    Client(Box<ClientFacts>),
    Open {
        opening: Opening,
        body: BodyType,
        utf8: bool,
    },
    Store,
}

/// One client connection.
#[derive(Debug)]
pub struct Session {
    settings: Arc<SessionSettings>,
    framing: Framing,
    effects: VecDeque<Effect>,
    phase: Phase,
    clock: Clock,
    tls: Option<TlsInfo>,
    helo: Option<Helo>,
    account: Option<String>,
    transaction: Option<Transaction>,
    /// What this host may say of others.
    upstream: Upstream,
    forwarded: Option<Box<ClientFacts>>,
    /// The message on its way in: from the answer to [`Effect::BeginMessage`] to its end.
    incoming: Option<Incoming>,
    /// Replies due at its end.
    final_replies: usize,
    /// A chunk was refused, and the client may have sent others behind it.
    refused: Option<RefusedMessage>,
    octets: u64,
    messages: usize,
    errors: u32,
    refusals: u32,
    auth_failures: u32,
    idle_commands: u32,
    pipelining_reported: bool,
    shutting_down: bool,
    breaks_in: bool,
}

impl Session {
    /// A session on a fresh connection, silent until [`greet`](Self::greet). `tls_already`: the
    /// connection has been in TLS from its start (RFC 8314).
    pub fn new(settings: Arc<SessionSettings>, tls_already: Option<TlsInfo>, now: Instant) -> Self {
        Self {
            framing: Framing::default(),
            effects: VecDeque::new(),
            phase: Phase::Banner,
            clock: Clock::new(&settings, now),
            tls: tls_already,
            helo: None,
            account: None,
            transaction: None,
            upstream: Upstream::default(),
            forwarded: None,
            incoming: None,
            final_replies: 1,
            refused: None,
            octets: 0,
            messages: 0,
            errors: 0,
            refusals: 0,
            auth_failures: 0,
            idle_commands: 0,
            pipelining_reported: false,
            shutting_down: false,
            breaks_in: false,
            settings,
        }
    }

    /// Sends the banner. Bytes pushed before are early talk: evidence, and the end of the
    /// session; a driver that waits with the banner learns who does not (RFC 5321 section 3.1).
    pub fn greet(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Banner) {
            let protocol = if self.settings.lmtp { "LMTP" } else { "ESMTP" };
            let banner = format!("{} {protocol} Postern", self.settings.hostname);
            self.reply(Reply::plain(220, banner));
            self.await_command(now);
        }
    }

    /// Instead of the banner: this reply (554 or 421), and the end.
    pub fn turn_away(&mut self, reply: Reply) {
        if matches!(self.phase, Phase::Banner) {
            self.reply_and_close(reply);
        }
    }

    /// Takes what the socket read.
    pub fn push(&mut self, bytes: &[u8], now: Instant) {
        match self.phase {
            _ if bytes.is_empty() => {}
            Phase::Closed => {}
            Phase::Banner => self.refuse_early(bytes),
            // Read before the handshake, so not protected by it.
            Phase::Asked(Question::Tls) => {
                self.event(SessionEvent::PlaintextBehindStartTls);
                self.close();
            }
            _ => {
                self.octets = self.octets.saturating_add(bytes.len() as u64);
                if self.octets > self.settings.session_bytes_max {
                    self.event(SessionEvent::TooManyOctets);
                    let text = "Too much data in one session";
                    return self.reply_and_close(Reply::new(421, (4, 7, 0), text));
                }
                self.clock.octets(bytes.len(), now);
                self.framing.push(bytes);
            }
        }
    }

    /// The next thing to do. `None`: bytes are wanted, or the answer to what was asked.
    pub fn next_effect(&mut self, now: Instant) -> Option<Effect> {
        loop {
            if let Some(effect) = self.effects.pop_front() {
                return Some(effect);
            }
            let progress = match self.phase {
                // A message that comes in chunks comes to its end.
                Phase::Command | Phase::AuthLine
                    if self.shutting_down && self.incoming.is_none() =>
                {
                    self.reply_and_close(shutting_down());
                    true
                }
                Phase::Command => self.next_command(now),
                Phase::AuthLine => self.next_auth_line(now),
                Phase::Content => self.next_content(now),
                Phase::Chunk(_) | Phase::SkippedChunk(_) => self.next_chunk(now),
                Phase::Banner | Phase::Asked(_) | Phase::Closed => false,
            };
            if !progress {
                return None;
            }
        }
    }

    /// Whether the driver should read: no answer is due, and the session is not over. Ask when
    /// [`next_effect`](Self::next_effect) has nothing more.
    pub fn wants_bytes(&self) -> bool {
        !matches!(self.phase, Phase::Asked(_) | Phase::Closed)
    }

    /// Whether nothing will follow.
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// Whether the end came in the middle of a message: the client may read no reply before it has
    /// sent the rest.
    pub fn breaks_in(&self) -> bool {
        self.breaks_in
    }

    /// Takes the answer to the last effect that asked. After the end of the session it is
    /// ignored: the peer may go while the driver looks something up.
    pub fn answer(&mut self, answer: Answer, now: Instant) {
        let question = match std::mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Asked(question) => question,
            Phase::Closed => return,
            other => {
                self.phase = other;
                return self.mismatch();
            }
        };
        self.await_command(now);
        match (question, answer) {
            (Question::Mail(mail), Answer::Mail(verdict)) => self.on_mail_verdict(mail, verdict),
            (Question::Recipient(path), Answer::Recipient(verdict)) => {
                self.on_recipient_verdict(path, verdict);
            }
            (Question::Authentication(name), Answer::Authenticated(result)) => {
                self.on_authenticated(name, result);
            }
            (Question::Tls, Answer::TlsStarted(info)) => self.on_tls_started(info),
            (Question::Client(facts), Answer::ClientNamed(result)) => {
                self.on_client_named(&facts, result, now);
            }
            (Question::Open { opening, body, utf8 }, Answer::MessageOpened(result)) => {
                self.on_opened((opening, body, utf8), result, now);
            }
            (Question::Store, Answer::Stored(result)) => self.on_stored(result),
            _ => self.mismatch(),
        }
    }

    /// The time by which the client must have finished what is due. It counts while the driver
    /// reads, not while it owes an answer.
    pub fn deadline(&self) -> Instant {
        self.clock.deadline(&self.settings)
    }

    /// The deadline passed while the driver was reading, or the time that a service which stops had
    /// for the message to come to its end.
    pub fn timed_out(&mut self, _now: Instant) {
        if self.wants_bytes() {
            self.abort_message(AbortReason::TimedOut);
            // RFC 5321 section 3.8: 421 where the server has to close by itself.
            if self.shutting_down {
                return self.reply_and_close(shutting_down());
            }
            self.event(SessionEvent::TimedOut);
            self.reply_and_close(Reply::new(421, (4, 4, 2), "Timeout: you took too long"));
        }
    }

    /// The service stops: the session ends at the next command boundary, a message that has
    /// begun to arrive first.
    pub fn shut_down(&mut self) {
        self.shutting_down = true;
        if matches!(self.phase, Phase::Banner) {
            self.reply_and_close(shutting_down());
        }
    }

    /// The connection ended or failed, TLS close_notify included. What is unfinished is dropped;
    /// a message that is being stored stays stored, as its end had been read.
    pub fn peer_closed(&mut self) {
        if !self.is_closed() {
            self.abort_message(AbortReason::PeerClosed);
            self.close();
        }
    }

    /// Who the client said it is.
    pub fn helo(&self) -> Option<&Helo> {
        self.helo.as_ref()
    }

    /// The TLS in force.
    pub fn tls(&self) -> Option<&TlsInfo> {
        self.tls.as_ref()
    }

    /// The account that the client authenticated as.
    pub fn account(&self) -> Option<&str> {
        self.account.as_deref()
    }

    fn await_command(&mut self, now: Instant) {
        self.phase = Phase::Command;
        self.clock.command_begins(now);
        if self.incoming.is_none() && self.refused.is_none() {
            self.clock.message_ends();
        }
    }

    fn ask(&mut self, question: Question, effect: Effect) {
        self.phase = Phase::Asked(question);
        self.effects.push_back(effect);
    }

    fn reply(&mut self, reply: Reply) {
        self.effects.push_back(Effect::Reply(reply));
    }

    fn event(&mut self, event: SessionEvent) {
        self.effects.push_back(Effect::Event(event));
    }

    /// A reply that the driver chose: 421 promises that the connection ends (RFC 5321 section
    /// 3.8).
    fn reply_of_driver(&mut self, reply: Reply) {
        if reply.code() == 421 { self.reply_and_close(reply) } else { self.reply(reply) }
    }

    fn reply_and_close(&mut self, reply: Reply) {
        self.reply(reply);
        self.close();
    }

    fn close(&mut self) {
        self.abort_message(AbortReason::PeerClosed);
        self.phase = Phase::Closed;
        self.framing.clear();
        self.transaction = None;
        self.effects.push_back(Effect::Close);
    }

    /// A protocol error: counted, and the last one permitted ends the session in its place.
    fn error(&mut self, reply: Reply) {
        self.errors += 1;
        if self.errors < self.settings.errors_max {
            return self.reply(reply);
        }
        self.event(SessionEvent::TooManyErrors);
        self.reply_and_close(Reply::new(421, (4, 7, 0), "Too many errors"));
    }

    /// A refusal by policy. Those for good are counted, apart from errors, as an honest list may
    /// have some dead recipients; those for now are nobody's fault.
    fn refuse(&mut self, reply: Reply) {
        self.refusals += u32::from(reply.code() >= 500);
        if self.refusals < self.settings.refusals_max {
            return self.reply_of_driver(reply);
        }
        self.event(SessionEvent::TooManyRefusals);
        self.reply_and_close(Reply::new(421, (4, 7, 0), "Too many refused addresses"));
    }

    fn mismatch(&mut self) {
        self.abort_message(AbortReason::PeerClosed);
        self.event(SessionEvent::AnswerMismatch);
        self.reply_and_close(Reply::new(421, (4, 3, 0), "Internal error"));
    }
}

fn shutting_down() -> Reply {
    Reply::new(421, (4, 3, 2), "Service is shutting down")
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
