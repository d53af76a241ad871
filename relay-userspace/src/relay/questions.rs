//! What a session asks of the world, answered: by policy, by the account store, by the queue.
//!
//! Every answer that accepts or refuses is logged with its rule and reason, and refusals that prove
//! something become evidence.

mod events;
mod upstream;

use std::sync::Arc;

use relay_common::entry::Reason;
use relay_core::{
    policy::{
        Decision, Outcome, Refusal,
        recipient::{self, RecipientFacts},
        relay::{self, Accepted, DomainView, RecipientView, RelayFacts, SourceFacts},
    },
    smtp::{
        address::{Domain, ForwardPath},
        command::RcptCommand,
        reply::Reply,
        session::{Answer, AuthRefusal, Effect, PlainCredentials, Session, Verdict},
    },
};

use super::{
    admission::Ticket,
    source::Source,
    state::{Listener, Shared},
};
use crate::{
    auth,
    dns::Reverse,
    queue::{MessageWriter, NewRecipient, Route},
};

/// One connection's dealings with the world.
#[derive(Debug)]
pub struct Questions {
    pub shared: Arc<Shared>,
    pub listener: Arc<Listener>,
    pub source: Source,
    /// Its place among all connections.
    pub ticket: Ticket,
    /// Recipients of the message under way, as they were accepted.
    pub(super) recipients: Vec<NewRecipient>,
    /// MAIL said REQUIRETLS.
    requires_tls: bool,
    pub(super) message: Option<MessageWriter>,
    /// Messages acknowledged, and recipients refused, for the log.
    pub accepted: u32,
    pub refused: u32,
}

impl Questions {
    pub fn new(
        shared: Arc<Shared>,
        listener: Arc<Listener>,
        source: Source,
        ticket: Ticket,
    ) -> Self {
        Self {
            shared,
            listener,
            source,
            ticket,
            recipients: Vec::new(),
            requires_tls: false,
            message: None,
            accepted: 0,
            refused: 0,
        }
    }

    /// Instead of the banner: a reply for a source that is denied, where no kernel program has
    /// kept it out (C7): there is none, it has seen a balancer's address alone, or its lists close
    /// other ports than this one.
    pub async fn at_connect(&mut self) -> Option<Reply> {
        let Source { user, is_balancer, was_judged, .. } = self.source;
        let seen_by_kernel = !self.shared.filter_here && self.source.is_seen_by_kernel();
        if seen_by_kernel || user.is_some() || is_balancer || was_judged {
            return None;
        }
        self.source.was_judged = true;
        if !self.source.is_denied(&self.shared).await {
            return None;
        }
        self.shared.counters.connections_denied.add();
        tracing::info!(source = %self.source.address, listener = self.listener.name, "denied");
        Some(Reply::new(554, (5, 7, 1), "Your address is not accepted here"))
    }

    /// Answers what asks; `None` for what only tells.
    pub async fn answer(&mut self, effect: Effect, session: &Session) -> Option<Answer> {
        match effect {
            Effect::CheckMail(mail) => {
                self.recipients.clear();
                self.requires_tls = mail.options.require_tls;
                Some(Answer::Mail(Verdict::Accept))
            }
            Effect::CheckRecipient(rcpt) => {
                Some(Answer::Recipient(self.recipient(&rcpt, session).await))
            }
            Effect::Authenticate(credentials) => {
                Some(Answer::Authenticated(Box::pin(self.authenticate(&credentials)).await))
            }
            Effect::NameClient(facts) => Some(Answer::ClientNamed(self.name_client(&facts).await)),
            Effect::BeginMessage(envelope) => {
                let opened = self.begin(&envelope, session.forwarded()).await;
                Some(Answer::MessageOpened(opened.map_err(|error| self.not_begun(&error))))
            }
            Effect::Body(bytes) => {
                self.write(&bytes);
                None
            }
            Effect::HeaderEnd(end) => {
                self.header_end(end);
                None
            }
            Effect::Utf8Fields => {
                self.utf8_fields();
                None
            }
            Effect::EndMessage => Some(Answer::Stored(Box::pin(self.store(session)).await)),
            Effect::AbortMessage(reason) => {
                if let Some(message) = self.message.take() {
                    self.shared.counters.messages_dropped.add();
                    tracing::info!(queue_id = %message.queue_id(), ?reason, "message dropped");
                }
                None
            }
            Effect::Event(event) => {
                self.event(event).await;
                None
            }
            Effect::Reply(_) | Effect::StartTls | Effect::Close => None,
        }
    }

    async fn recipient(&mut self, rcpt: &RcptCommand, session: &Session) -> Verdict {
        let shared = Arc::clone(&self.shared);
        // Asked at connect; waited for here, where its answer matters. A source that is waved
        // through below is not made to wait.
        let reverse = if self.listener.grants.reverse_domains.is_empty() {
            Reverse::None
        } else {
            self.source.reverse(&shared.resolver).await
        };
        let from = SourceFacts {
            source: self.source.address,
            local: self.source.local.ip(),
            user: self.source.user,
            account: session.account(),
            reverse_name: reverse.for_policy(),
            never_route: match self.source.user {
                Some(_) => None,
                None => shared.never_route.lookup(self.source.address),
            },
            grants: &self.listener.grants,
        };
        let view = self.view(&rcpt.forward_path);
        let bare_postmaster = shared.postmaster.is_some();
        let facts = RelayFacts { recipient: view, from, domains: &shared.domains, bare_postmaster };
        let mut decision = relay::decide(&facts);
        if decision.accepted().is_some() {
            let listed_by = self.source.listed_by().await;
            if !listed_by.is_empty() {
                let standing = self.source.standing(&shared).await;
                let facts = RecipientFacts {
                    recipient: view,
                    from,
                    standing,
                    listed_by: &listed_by,
                    exempt: &shared.exempt,
                };
                decision = recipient::decide(decision, &facts);
            }
        }
        self.conclude(rcpt, decision).await
    }

    /// Logs the decision, counts it, keeps what was accepted, and takes evidence from a refusal.
    async fn conclude(&mut self, rcpt: &RcptCommand, decision: Decision<Accepted>) -> Verdict {
        let counters = &self.shared.counters;
        let accepted = decision.accepted().copied();
        tracing::info!(
            source = %self.source.address, listener = self.listener.name,
            recipient = rcpt.forward_path.to_string(), accepted = accepted.is_some(), rule = decision.rule,
            reason = decision.reason, "recipient"
        );
        let refusal = match decision.outcome {
            // RFC 8689 section 4.2: no inside host is verified, and better said now than in a report.
            Outcome::Accept(Accepted::Inbound) if self.requires_tls => {
                counters.recipients_other_refused.add();
                self.refused += 1;
                let text = "REQUIRETLS cannot be had on the way to this recipient";
                return Verdict::Refuse(Reply::new(550, (5, 7, 30), text));
            }
            Outcome::Accept(accepted) => {
                let route =
                    if accepted == Accepted::Inbound { Route::Inbound } else { Route::Relay };
                match route {
                    Route::Inbound => counters.recipients_inbound.add(),
                    Route::Relay => counters.recipients_relayed.add(),
                }
                // For the Received field, which is due at DATA.
                self.source.ask_reverse(&self.shared.resolver);
                self.recipients.push(NewRecipient {
                    address: self.address_of(&rcpt.forward_path),
                    options: rcpt.options.clone(),
                    route,
                    rule: decision.rule,
                });
                return Verdict::Accept;
            }
            Outcome::Refuse(refusal) => refusal,
        };
        self.refused += 1;
        match decision.evidence {
            Some(Reason::Dnsbl) => counters.recipients_listed_refused.add(),
            _ if refusal == relay::RELAYING_IS_PROHIBITED => {
                counters.recipients_relaying_refused.add();
            }
            _ => counters.recipients_other_refused.add(),
        }
        let mut refusal = refusal;
        if let Some(reason) = decision.evidence {
            // From a banned source nothing more will come: its session ends with the reason, not
            // by a timeout that holds its place.
            refusal.close |= self.evidence(reason, decision.rule, decision.reason).await;
        }
        verdict_of(&refusal)
    }

    /// The address a recipient is queued under; `<postmaster>` stands for a real one.
    pub(super) fn address_of(&self, path: &ForwardPath) -> String {
        match (self.view(path).domain, &self.shared.postmaster) {
            (DomainView::Absent, Some(postmaster)) => postmaster.clone(),
            _ => path.to_string(),
        }
    }

    /// What policy sees. This gateway's own postmaster needs no domain of the table: reports to
    /// senders come from there.
    fn view<'a>(&self, path: &'a ForwardPath) -> RecipientView<'a> {
        let view = view(path);
        let ours =
            |name: &str| name == self.shared.hostname && self.shared.domains.lookup(name).is_none();
        match view.domain {
            DomainView::Name(name) if relay::is_postmaster(view.local) && ours(name) => {
                RecipientView { domain: DomainView::Absent, ..view }
            }
            _ => view,
        }
    }

    async fn authenticate(&mut self, plain: &PlainCredentials) -> Result<String, AuthRefusal> {
        let credentials = auth::Credentials {
            authzid: &plain.authzid,
            authcid: &plain.authcid,
            password: &plain.password,
        };
        let outcome = self.shared.accounts.verify(&credentials).await;
        outcome.map_err(|refusal| {
            tracing::info!(
                source = %self.source.address, account = plain.authcid, %refusal, "auth refused"
            );
            if refusal.is_evidence() { AuthRefusal::Invalid } else { AuthRefusal::Unavailable }
        })
    }
}

fn view(path: &ForwardPath) -> RecipientView<'_> {
    match path.mailbox() {
        Some(mailbox) => RecipientView {
            local: mailbox.local(),
            quoted: mailbox.to_string().starts_with('"'),
            domain: match mailbox.domain() {
                Domain::Name(name) => DomainView::Name(name),
                Domain::Literal(address) => DomainView::Literal(Some(*address)),
            },
        },
        None => RecipientView { local: "postmaster", quoted: false, domain: DomainView::Absent },
    }
}

fn verdict_of(refusal: &Refusal) -> Verdict {
    let reply = Reply::new(refusal.code, refusal.enhanced, refusal.text.clone());
    if refusal.close { Verdict::RefuseAndClose(reply) } else { Verdict::Refuse(reply) }
}
