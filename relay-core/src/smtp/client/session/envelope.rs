//! MAIL, RCPT and DATA of one message, several commands in flight when PIPELINING is offered.

use super::{
    ClientAction, ClientSession, ClientTls, Failure, FailureKind, RecipientStatus, Slot, Stage,
    Step,
};
use crate::smtp::client::job::OutgoingRecipient;
use crate::smtp::client::response::{Response, ResponseError};
use crate::smtp::options::{MailOptions, RcptOptions};
use crate::smtp::xtext;

/// Most commands in flight: their replies, 512 octets each, fit the smallest receive buffers, so
/// that neither side waits for the other to read (RFC 2920 section 3.1).
const IN_FLIGHT_MAX: usize = 64;

impl ClientSession {
    pub(super) fn begin_envelope(&mut self) {
        self.step = Step::Envelope;
        self.opened = true;
        for (slot, recipient) in self.slots.iter_mut().zip(&self.message.recipients) {
            let address = &recipient.address;
            let kind = match Self::wire_address(address) {
                None => FailureKind::BadAddress,
                Some(_) if address.is_ascii() || self.capabilities.smtp_utf8 => continue,
                Some(_) => FailureKind::Utf8NotOffered,
            };
            *slot = Slot::Failed(Failure { stage: Stage::Recipient, kind });
        }
        if !self.any(|slot| matches!(slot, Slot::Waiting)) {
            return self.finish_failed(FailureKind::BadAddress);
        }
        let Some(mail) = self.mail_command() else { return };
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
        command.push_str(match self.body_parameter() {
            Ok(parameter) => parameter,
            Err(kind) => {
                self.finish_failed(kind);
                return None;
            }
        });
        if let (Some(limit), Some(size)) = (offered.size, message.size) {
            if limit > 0 && size > limit {
                self.finish_failed(FailureKind::TooLarge { limit });
                return None;
            }
            command.push_str(&format!(" SIZE={size}"));
        }
        match self.option_parameters() {
            Ok(parameters) => command.push_str(&parameters),
            Err(kind) => {
                self.finish_failed(kind);
                return None;
            }
        }
        command.push_str("\r\n");
        Some(command)
    }

    /// RFC 6152, RFC 3030: what cannot be said to this server cannot be sent, as nothing is
    /// converted here.
    fn body_parameter(&self) -> Result<&'static str, FailureKind> {
        let (message, offered) = (&self.message, self.capabilities);
        match (message.binary, message.eight_bit) {
            (true, _) if offered.binary_mime && message.size.is_some() => Ok(" BODY=BINARYMIME"),
            (true, _) => Err(FailureKind::BinaryNotOffered),
            (false, true) if offered.eight_bit_mime => Ok(" BODY=8BITMIME"),
            (false, true) => Err(FailureKind::EightBitNotOffered),
            (false, false) => Ok(""),
        }
    }

    /// What the message asks of every hop. RET and ENVID are left out where they are unknown, as
    /// RFC 3461 section 5.2.2 has it; SMTPUTF8 and REQUIRETLS cannot be.
    fn option_parameters(&self) -> Result<String, FailureKind> {
        let (message, offered) = (&self.message, self.capabilities);
        let mut parameters = String::new();
        let in_utf8 = |slot: (&Slot, &OutgoingRecipient)| {
            matches!(slot.0, Slot::Waiting) && !slot.1.address.is_ascii()
        };
        let of_message = message.options.utf8 || !message.reverse_path.is_ascii();
        if of_message || self.slots.iter().zip(&message.recipients).any(in_utf8) {
            if !offered.smtp_utf8 {
                return Err(FailureKind::Utf8NotOffered);
            }
            parameters.push_str(" SMTPUTF8");
        }
        if message.options.require_tls {
            let verified = self.tls && self.settings.tls == ClientTls::Required;
            if !(verified && offered.require_tls) {
                return Err(FailureKind::RequireTlsNotOffered);
            }
            parameters.push_str(" REQUIRETLS");
        }
        if offered.dsn {
            let MailOptions { ret, envid, .. } = &message.options;
            parameters.extend(ret.map(|ret| format!(" RET={ret}")));
            parameters.extend(envid.as_ref().map(|id| format!(" ENVID={}", xtext::encode(id))));
        }
        Ok(parameters)
    }

    /// The parameters of RCPT (RFC 3461 section 5.2.1).
    fn recipient_parameters(&self, options: &RcptOptions) -> String {
        let mut parameters = String::new();
        if self.capabilities.dsn {
            parameters.extend(options.notify.map(|notify| format!(" NOTIFY={notify}")));
            parameters.extend(options.orcpt.as_ref().map(|orcpt| format!(" ORCPT={orcpt}")));
        }
        parameters
    }

    /// Adds RCPT commands to `commands` while the window has room, and sends the lot.
    fn fill_window(&mut self, mut commands: String) {
        let window = if self.capabilities.pipelining { IN_FLIGHT_MAX } else { 1 };
        while self.in_flight.len() < window && self.next_recipient < self.slots.len() {
            let index = self.next_recipient;
            self.next_recipient += 1;
            let recipient = &self.message.recipients[index];
            let address = Self::wire_address(&recipient.address);
            if let (Slot::Waiting, Some(address)) = (&self.slots[index], address) {
                let parameters = self.recipient_parameters(&recipient.options);
                commands.push_str(&format!("RCPT TO:<{address}>{parameters}\r\n"));
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
        if !self.any(|slot| matches!(slot, Slot::Accepted)) {
            return self.finish_failed(FailureKind::BadAddress);
        }
        match self.message.size {
            // RFC 3030 section 2: the chunk follows its command at once.
            Some(size) if self.message.binary => {
                self.send(Step::Content, format!("BDAT {size} LAST\r\n"));
                self.deadline = self.now + self.settings.content_timeout;
                self.actions.push_back(ClientAction::SendExactly);
            }
            _ => self.send(Step::Data, "DATA\r\n"),
        }
    }

    pub(super) fn on_content_reply(&mut self, response: Response) {
        self.open_transaction = false;
        if response.code >= 300 && response.is_positive() {
            return self.abort(FailureKind::Protocol(ResponseError::Unexpected));
        }
        if self.settings.lmtp {
            return self.on_recipient_settled(response);
        }
        if response.is_positive() {
            self.finish(|| RecipientStatus::Delivered(response.clone()));
        } else {
            self.finish_failed(FailureKind::Refused(response));
        }
    }

    /// RFC 2033 section 4.2: a reply for each accepted recipient, in the order of their RCPT.
    fn on_recipient_settled(&mut self, response: Response) {
        let mut accepted = self.slots.iter_mut().filter(|slot| matches!(slot, Slot::Accepted));
        if let Some(slot) = accepted.next() {
            *slot = if response.is_positive() {
                Slot::Delivered(response)
            } else {
                let kind = FailureKind::Refused(response);
                Slot::Failed(Failure { stage: Stage::Content, kind })
            };
        }
        if accepted.next().is_none() {
            self.finish_failed(FailureKind::BadAddress);
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
