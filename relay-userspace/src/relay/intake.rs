//! A message on its way from the session into the queue, with the fields that are added to it.

use std::{
    collections::{HashMap, HashSet},
    time::SystemTime,
};

use relay_core::smtp::{
    command::BodyType,
    envelope::Envelope,
    options::MailOptions,
    received::{ReceivedField, rfc5322_date},
    reply::Reply,
    session::{ClientFacts, HeaderEnd, Session},
};

use super::questions::Questions;
use crate::{
    dns::Reverse,
    queue::{NewMessage, NewRecipient, StoreError},
};

impl Questions {
    pub(super) async fn begin(
        &mut self,
        envelope: &Envelope,
        forwarded: Option<&ClientFacts>,
    ) -> Result<(), StoreError> {
        // The session keeps those that were accepted, each of which stands here.
        let accepted: HashMap<&str, &NewRecipient> =
            self.recipients.iter().map(|each| (each.address.as_str(), each)).collect();
        let mut seen = HashSet::new();
        let recipients: Vec<NewRecipient> = envelope
            .recipients
            .iter()
            .map(|path| self.address_of(path))
            .filter(|address| seen.insert(address.clone()))
            .filter_map(|address| accepted.get(address.as_str()).map(|&each| each.clone()))
            .collect();
        let only = match &recipients[..] {
            [only] => Some(only.address.clone()),
            _ => None,
        };
        let mut message = self.shared.spool.begin(NewMessage {
            reverse_path: envelope.reverse_path.to_string(),
            recipients,
            // Whether there are fields in UTF-8, the session tells when all has come.
            options: MailOptions { utf8: false, ..envelope.options.clone() },
            binary: envelope.body == BodyType::BinaryMime,
            source: self.source.user.is_none().then_some(self.source.address),
            account: envelope.account.clone(),
            helo: envelope.helo.name.clone(),
            listener: self.listener.name.clone(),
        })?;
        let reverse = self.source.reverse(&self.shared.resolver).await;
        let received = ReceivedField {
            helo: &envelope.helo,
            verified_name: match &reverse {
                Reverse::Verified(name) => Some(name),
                _ => None,
            },
            source: self.source.address,
            user: self.source.user,
            forwarded,
            hostname: &self.shared.hostname,
            protocol: envelope.protocol(),
            tls: envelope.tls.as_ref(),
            account: envelope.account.as_deref().filter(|_| self.shared.shows_account),
            id: &message.queue_id().to_string(),
            recipient: only.as_deref(),
            at: SystemTime::now(),
        };
        if let Some(facts) = forwarded {
            tracing::info!(queue_id = %message.queue_id(), ?facts, "XFORWARD");
        }
        message.write(received.to_string().as_bytes())?;
        self.message = Some(message);
        Ok(())
    }

    pub(super) fn write(&mut self, content: &[u8]) {
        if let Some(message) = &mut self.message
            && !message.has_failed()
            && let Err(error) = message.write(content)
        {
            // `commit` will fail with the same error; until then the rest is read away.
            self.tell_not_stored(&error);
        }
    }

    /// What to do at the end of a header section: adds what a submission lacks (RFC 6409 section 8),
    /// and the empty line that keeps content without any header apart from our fields.
    pub(super) fn header_end(&mut self, end: HeaderEnd) {
        let Some(message) = &self.message else { return };
        let id = message.queue_id();
        if end.lacks_date {
            self.write(format!("Date: {}\r\n", rfc5322_date(SystemTime::now())).as_bytes());
        }
        if end.lacks_message_id {
            let field = format!("Message-ID: <{id}@{}>\r\n", self.shared.hostname);
            self.write(field.as_bytes());
        }
        if end.lacks_empty_line {
            self.write(b"\r\n");
        }
    }

    /// Header fields in UTF-8 have come, of a sender that said SMTPUTF8.
    pub(super) fn utf8_fields(&mut self) {
        if let Some(message) = &mut self.message {
            message.set_utf8();
        }
    }

    /// 250 only after this returns the id: the message is on disk then.
    pub(super) async fn store(&mut self, session: &Session) -> Result<String, Reply> {
        let Some(message) = self.message.take() else {
            self.shared.counters.defects.add();
            return Err(Reply::new(451, (4, 3, 0), "Internal error"));
        };
        let (id, size) = (message.queue_id(), message.size());
        let was_told = message.has_failed();
        if let Err(error) = message.commit().await {
            if !was_told {
                self.tell_not_stored(&error);
            }
            return Err(self.put_off(&error));
        }
        self.shared.counters.messages_accepted.add();
        self.accepted += 1;
        for recipient in &self.recipients {
            tracing::info!(
                queue_id = %id, source = %self.source.address, listener = self.listener.name,
                account = session.account(), recipient = recipient.address,
                route = ?recipient.route, rule = recipient.rule, size, "message accepted"
            );
        }
        Ok(id.to_string())
    }

    /// The client keeps its message and comes again.
    pub(super) fn not_begun(&self, error: &StoreError) -> Reply {
        self.tell_not_stored(error);
        self.put_off(error)
    }

    fn put_off(&self, error: &StoreError) -> Reply {
        self.shared.counters.messages_not_stored.add();
        let (code, enhanced) = error.status();
        Reply::new(code, enhanced, "The message cannot be stored now, try again later")
    }

    /// Says so once for a message. Too much at once is what clients do, and no fault here.
    fn tell_not_stored(&self, error: &StoreError) {
        let source = self.source.address;
        if matches!(error, StoreError::Busy(_)) {
            tracing::warn!(%source, %error, "message not stored");
        } else {
            tracing::error!(%source, %error, "message not stored");
        }
    }
}
