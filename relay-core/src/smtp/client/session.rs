//! The sending dialogue: bytes and times in, actions out (RFC 5321 section 3, client side).
//!
//! The driver loops: take actions until there is none, doing each; then read, with
//! [`ClientSession::deadline`] as the limit, and [`push`](ClientSession::push) what came.
//! A message ends with [`ClientAction::Done`]. To send another over the same connection, call
//! [`next_message`](ClientSession::next_message) then; otherwise QUIT follows by itself.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::capabilities::Capabilities;
use super::job::{ClientJob, ClientSettings, ClientTls, OutgoingMessage};
use super::outcome::{Failure, FailureKind, Outcome, RecipientStatus, Stage};
use super::response::{Response, ResponseError, ResponseReader};
use crate::smtp::address::Mailbox;

mod envelope;
mod opening;

/// What the driver has to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientAction {
    /// Write these bytes.
    Write(Bytes),
    /// Make the TLS handshake, then call `tls_started` or `tls_failed`. Nothing that was read
    /// before the handshake may be pushed after it.
    StartTls,
    /// Write the content through a fresh [`DotStuffer`](super::DotStuffer), its end included,
    /// then call `content_sent`; or, when it cannot be read to its end, `content_failed`.
    SendBody,
    /// Write the content as it is, nothing before and nothing behind it: the chunk that BDAT has
    /// announced. Then as after [`SendBody`](Self::SendBody).
    SendExactly,
    /// The message is settled: record it before anything else.
    Done(Outcome),
    /// Close the connection; nothing follows.
    Close,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    Handshake,
    /// The response is in the command (RFC 4954 section 4), or follows a 334.
    Auth {
        challenge: bool,
    },
    Reset,
    Envelope,
    Data,
    Content,
    ContentReply,
    /// Done has been given out; another message or QUIT.
    Finished,
    Quit,
    Closed,
}

impl Step {
    fn stage(self) -> Stage {
        match self {
            Self::Greeting => Stage::Greeting,
            Self::Ehlo | Self::Helo => Stage::Hello,
            Self::StartTls | Self::Handshake => Stage::StartTls,
            Self::Auth { .. } => Stage::Auth,
            Self::Reset => Stage::Reset,
            Self::Envelope => Stage::Mail,
            Self::Data => Stage::Data,
            Self::Content | Self::ContentReply => Stage::Content,
            Self::Finished | Self::Quit | Self::Closed => Stage::Quit,
        }
    }
}

/// How far one recipient has come.
#[derive(Debug, Clone)]
enum Slot {
    /// Not asked, or not answered.
    Waiting,
    Accepted,
    /// By LMTP, which settles one after the other.
    Delivered(Response),
    Failed(Failure),
}

/// One connection to a next hop.
#[derive(Debug)]
pub struct ClientSession {
    settings: Arc<ClientSettings>,
    message: OutgoingMessage,
    slots: Vec<Slot>,
    step: Step,
    reader: ResponseReader,
    actions: VecDeque<ClientAction>,
    capabilities: Capabilities,
    tls: bool,
    /// Commands of the envelope without a reply yet; `None` is MAIL, `Some` a recipient.
    in_flight: VecDeque<Option<usize>>,
    /// The recipient to name next.
    next_recipient: usize,
    /// Greeting, EHLO, TLS and AUTH are behind us.
    opened: bool,
    /// A transaction is open at the server: RSET before the next MAIL.
    open_transaction: bool,
    now: Instant,
    deadline: Instant,
}

impl ClientSession {
    /// A session over a fresh connection; it waits for the greeting.
    pub fn new(job: ClientJob, now: Instant) -> Self {
        let ClientJob { settings, message } = job;
        Self {
            slots: vec![Slot::Waiting; message.recipients.len()],
            message,
            step: Step::Greeting,
            reader: ResponseReader::default(),
            actions: VecDeque::new(),
            capabilities: Capabilities::default(),
            tls: settings.tls == ClientTls::Implicit,
            in_flight: VecDeque::new(),
            next_recipient: 0,
            opened: false,
            open_transaction: false,
            now,
            deadline: now + settings.greeting_timeout,
            settings,
        }
    }

    /// What the socket read, at that time.
    pub fn push(&mut self, bytes: &[u8], now: Instant) {
        self.now = now;
        if self.step != Step::Closed {
            self.reader.push(bytes);
        }
    }

    /// The next thing to do; `None` when bytes are needed, or the end of what was asked for.
    pub fn next_action(&mut self) -> Option<ClientAction> {
        loop {
            if let Some(action) = self.actions.pop_front() {
                return Some(action);
            }
            match self.step {
                Step::Closed | Step::Handshake => return None,
                Step::Finished => {
                    self.send(Step::Quit, "QUIT\r\n");
                    self.deadline = self.now + self.settings.quit_timeout;
                }
                _ => match self.reader.next_response() {
                    Ok(Some(response)) => self.on_response(response),
                    Ok(None) => return None,
                    Err(error) => self.abort(FailureKind::Protocol(error)),
                },
            }
        }
    }

    /// The time by which the server must have answered, or taken the chunk.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The deadline passed.
    pub fn timed_out(&mut self) {
        self.abort(FailureKind::TimedOut);
    }

    /// The connection ended or failed.
    pub fn peer_closed(&mut self) {
        self.abort(FailureKind::Closed);
    }

    /// The handshake that [`ClientAction::StartTls`] asked for succeeded.
    pub fn tls_started(&mut self, now: Instant) {
        self.now = now;
        if self.step != Step::Handshake {
            return;
        }
        if !self.reader.is_empty() {
            return self.abort(FailureKind::Protocol(ResponseError::Unexpected));
        }
        self.tls = true;
        // RFC 3207 section 4.2: nothing learned before the handshake counts.
        self.capabilities = Capabilities::default();
        self.hello();
    }

    /// It failed, for this reason.
    pub fn tls_failed(&mut self, reason: impl Into<String>) {
        self.abort(FailureKind::Tls(reason.into()));
    }

    /// A chunk of content was written: the deadline moves on.
    pub fn content_progress(&mut self, now: Instant) {
        self.now = now;
        if self.step == Step::Content {
            self.deadline = now + self.settings.content_timeout;
        }
    }

    /// The content and its end were written.
    pub fn content_sent(&mut self, now: Instant) {
        self.now = now;
        if self.step == Step::Content {
            self.step = Step::ContentReply;
            self.deadline = now + self.settings.end_timeout;
        }
    }

    /// The content could not be read to its end. The connection is closed without an end of
    /// data, so that the server drops what it has (RFC 5321 section 4.1.1.4).
    pub fn content_failed(&mut self) {
        self.abort(FailureKind::ContentUnreadable);
    }

    /// Sends another message over the same connection: only right after
    /// [`ClientAction::Done`]. Gives the message back when the connection takes no more.
    pub fn next_message(
        &mut self,
        message: OutgoingMessage,
        now: Instant,
    ) -> Result<(), OutgoingMessage> {
        if self.step != Step::Finished || !self.opened || !self.actions.is_empty() {
            return Err(message);
        }
        self.now = now;
        self.slots = vec![Slot::Waiting; message.recipients.len()];
        self.message = message;
        self.in_flight.clear();
        self.next_recipient = 0;
        if std::mem::take(&mut self.open_transaction) {
            self.send(Step::Reset, "RSET\r\n");
        } else {
            self.begin_envelope();
        }
        Ok(())
    }

    fn on_response(&mut self, response: Response) {
        // RFC 5321 section 4.2.1: 421 may answer anything, and the server closes.
        if response.code == 421 && self.step != Step::Quit {
            return self.abort(FailureKind::Refused(response));
        }
        self.deadline = self.now + self.settings.command_timeout;
        match self.step {
            Step::Greeting if response.code == 220 => self.hello(),
            Step::Ehlo => self.on_ehlo(&response),
            Step::Helo if response.code == 250 => self.opened(),
            Step::StartTls => self.on_starttls(response),
            Step::Auth { challenge } => self.on_auth(response, challenge),
            Step::Reset if response.code == 250 => self.begin_envelope(),
            Step::Envelope => self.on_envelope_reply(response),
            Step::Data if response.code == 354 => {
                self.step = Step::Content;
                self.deadline = self.now + self.settings.content_timeout;
                self.actions.push_back(ClientAction::SendBody);
            }
            Step::ContentReply => self.on_content_reply(response),
            Step::Quit => self.close(),
            _ if response.is_positive() => {
                self.abort(FailureKind::Protocol(ResponseError::Unexpected));
            }
            // The server refuses in the middle of the content: what remains cannot be taken
            // back, so the connection goes.
            Step::Content => self.abort(FailureKind::Refused(response)),
            _ => self.finish_failed(FailureKind::Refused(response)),
        }
    }

    /// Settles what is open as failed, and closes without QUIT.
    fn abort(&mut self, kind: FailureKind) {
        match self.step {
            Step::Closed => return,
            Step::Finished | Step::Quit => {}
            _ => self.finish_failed(kind),
        }
        self.close();
    }

    fn close(&mut self) {
        self.step = Step::Closed;
        self.actions.retain(|action| matches!(action, ClientAction::Done(_)));
        self.actions.push_back(ClientAction::Close);
    }

    /// Settles the message: whoever has not failed alone fails with this.
    fn finish_failed(&mut self, kind: FailureKind) {
        let failure = Failure { stage: self.step.stage(), kind };
        self.finish(|| RecipientStatus::Failed(failure.clone()));
    }

    fn finish(&mut self, open: impl Fn() -> RecipientStatus) {
        let status = |slot| match slot {
            Slot::Failed(failure) => RecipientStatus::Failed(failure),
            Slot::Delivered(response) => RecipientStatus::Delivered(response),
            Slot::Waiting | Slot::Accepted => open(),
        };
        let recipients = std::mem::take(&mut self.slots).into_iter().map(status).collect();
        let outcome = Outcome { recipients, capabilities: self.capabilities, tls: self.tls };
        self.step = Step::Finished;
        self.actions.push_back(ClientAction::Done(outcome));
    }

    fn send(&mut self, step: Step, command: impl Into<Bytes>) {
        self.step = step;
        self.deadline = self.now + self.settings.command_timeout;
        self.actions.push_back(ClientAction::Write(command.into()));
    }

    /// The wire form of an address from the queue, or `None` when it must not be sent: what
    /// cannot be parsed could carry a line break or a parameter.
    fn wire_address(address: &str) -> Option<String> {
        if address.eq_ignore_ascii_case("postmaster") {
            return Some(address.to_owned());
        }
        address.parse::<Mailbox>().ok().map(|mailbox| mailbox.to_string())
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
