//! MAIL, RCPT and DATA of one message, several commands in flight when PIPELINING is offered.

use super::{ClientSession, Failure, FailureKind, RecipientStatus, Slot, Stage, Step};
use crate::smtp::client::response::{Response, ResponseError};

/// Most commands in flight: their replies, 512 octets each, fit the smallest receive buffers, so
/// that neither side waits for the other to read (RFC 2920 section 3.1).
const IN_FLIGHT_MAX: usize = 64;

impl ClientSession {
    pub(super) fn begin_envelope(&mut self) {
        self.step = Step::Envelope;
        self.opened = true;
        let Some(mail) = self.mail_command() else { return };
        for (slot, recipient) in self.slots.iter_mut().zip(&self.message.recipients) {
            if Self::wire_address(recipient).is_none() {
                let kind = FailureKind::BadAddress;
                *slot = Slot::Failed(Failure { stage: Stage::Recipient, kind });
            }
        }
        if !self.any(|slot| matches!(slot, Slot::Waiting)) {
            return self.finish_failed(FailureKind::BadAddress);
        }
        self.in_flight.push_back(None);
        self.open_transaction = true;
        self.fill_window(mail);
    }

    /// The MAIL command, or `None` when this server cannot take the message at all.
    fn mail_command(&mut self) -> Option<String> {
        let (message, offered) = (&self.message, self.capabilities);
        let mut command = match message.reverse_path.as_str() {
            "" => "MAIL FROM:<>".to_owned(),
            path => match Self::wire_address(path) {
                Some(address) => format!("MAIL FROM:<{address}>"),
                None => {
                    self.finish_failed(FailureKind::BadAddress);
                    return None;
                }
            },
        };
        if message.eight_bit {
            if !offered.eight_bit_mime {
                self.finish_failed(FailureKind::EightBitNotOffered);
                return None;
            }
            command.push_str(" BODY=8BITMIME");
        }
        if let (Some(limit), Some(size)) = (offered.size, message.size) {
            if limit > 0 && size > limit {
                self.finish_failed(FailureKind::TooLarge { limit });
                return None;
            }
            command.push_str(&format!(" SIZE={size}"));
        }
        command.push_str("\r\n");
        Some(command)
    }

    /// Adds RCPT commands to `commands` while the window has room, and sends the lot.
    fn fill_window(&mut self, mut commands: String) {
        let window = if self.capabilities.pipelining { IN_FLIGHT_MAX } else { 1 };
        while self.in_flight.len() < window && self.next_recipient < self.slots.len() {
            let index = self.next_recipient;
            self.next_recipient += 1;
            let address = Self::wire_address(&self.message.recipients[index]);
            if let (Slot::Waiting, Some(address)) = (&self.slots[index], address) {
                commands.push_str(&format!("RCPT TO:<{address}>\r\n"));
                self.in_flight.push_back(Some(index));
            }
        }
        if !commands.is_empty() {
            self.send(Step::Envelope, commands);
        }
    }

    pub(super) fn on_envelope_reply(&mut self, response: Response) {
        if response.code >= 300 && response.is_positive() {
            return self.abort(FailureKind::Protocol(ResponseError::Unexpected));
        }
        match self.in_flight.pop_front() {
            None => return self.abort(FailureKind::Protocol(ResponseError::Unexpected)),
            Some(None) if !response.is_positive() => {
                // RCPT commands already in flight get their refusals too; MAIL's is the reason.
                self.next_recipient = self.slots.len();
                self.open_transaction = false;
                self.fail_open(Stage::Mail, &response);
            }
            Some(None) => {}
            Some(Some(index)) => {
                if matches!(self.slots[index], Slot::Waiting) {
                    self.slots[index] = if response.is_positive() {
                        Slot::Accepted
                    } else {
                        let kind = FailureKind::Refused(response);
                        Slot::Failed(Failure { stage: Stage::Recipient, kind })
                    };
                }
            }
        }
        self.fill_window(String::new());
        if self.in_flight.is_empty() {
            self.end_envelope();
        }
    }

    /// All replies are in. DATA waits for them: were it pipelined, a server without a valid
    /// recipient could still answer 354 (RFC 2920 section 3.1).
    fn end_envelope(&mut self) {
        if self.any(|slot| matches!(slot, Slot::Accepted)) {
            self.send(Step::Data, "DATA\r\n");
        } else {
            self.finish_failed(FailureKind::BadAddress);
        }
    }

    pub(super) fn on_content_reply(&mut self, response: Response) {
        self.open_transaction = false;
        if response.code >= 300 && response.is_positive() {
            return self.abort(FailureKind::Protocol(ResponseError::Unexpected));
        }
        if response.is_positive() {
            self.finish(|| RecipientStatus::Delivered(response.clone()));
        } else {
            self.finish_failed(FailureKind::Refused(response));
        }
    }

    fn any(&self, what: impl Fn(&Slot) -> bool) -> bool {
        self.slots.iter().any(what)
    }

    fn fail_open(&mut self, stage: Stage, response: &Response) {
        for slot in self.slots.iter_mut().filter(|slot| matches!(slot, Slot::Waiting)) {
            let kind = FailureKind::Refused(response.clone());
            *slot = Slot::Failed(Failure { stage, kind });
        }
    }
}
