//! What a session tells of its client: counted, logged, and entered as evidence where it is some.

use std::sync::Arc;

use relay_common::entry::Reason;
use relay_core::{
    ban::evidence::Evidence, policy::connection::Standing, smtp::session::SessionEvent,
};

use super::Questions;

impl Questions {
    pub(super) async fn event(&mut self, event: SessionEvent) {
        let source = self.source.address;
        let counters = &self.shared.counters;
        let (reason, rule, detail) = match event {
            SessionEvent::Authenticated(account) => {
                counters.auth_successes.add();
                tracing::info!(%source, account, "authenticated");
                return;
            }
            SessionEvent::AuthFailed(name) => {
                counters.auth_failures.add();
                (Reason::AuthFailure, "password", format!("wrong password for {name:?}"))
            }
            SessionEvent::Pregreet(bytes) => {
                counters.early_talkers.add();
                let said = bytes.escape_ascii();
                (Reason::Pregreet, "pregreet", format!("spoke before the banner: {said}"))
            }
            SessionEvent::RoutingTrick => {
                counters.recipients_relaying_refused.add();
                let detail = "a recipient that asks to be routed".to_owned();
                (Reason::RelayProbe, "no routing in recipients", detail)
            }
            SessionEvent::Http => {
                counters.http_clients.add();
                (Reason::Protocol, "protocol", "speaks HTTP".to_owned())
            }
            SessionEvent::Binary => {
                counters.binary_clients.add();
                (Reason::Protocol, "protocol", "sends binary junk".to_owned())
            }
            SessionEvent::UnauthorisedPipelining => {
                counters.pipelining_unauthorised.add();
                (Reason::Pregreet, "pipelining", "did not wait for a reply it had to".to_owned())
            }
            SessionEvent::PlaintextBehindStartTls => {
                counters.plaintext_behind_starttls.add();
                (Reason::Protocol, "protocol", "sent plain text behind STARTTLS".to_owned())
            }
            SessionEvent::TooManyErrors => {
                counters.sessions_over_limit.add();
                (Reason::Protocol, "protocol", "too many protocol errors".to_owned())
            }
            SessionEvent::AnswerMismatch => {
                counters.defects.add();
                tracing::error!(%source, "a session was answered what it had not asked");
                return;
            }
            // Broken or unlucky clients, not hostile ones.
            harmless => {
                match harmless {
                    SessionEvent::ProxyHeader => counters.proxy_headers_unlisted.add(),
                    SessionEvent::TimedOut => counters.sessions_timed_out.add(),
                    SessionEvent::EndlessLine
                    | SessionEvent::TooManyRefusals
                    | SessionEvent::TooManyOctets => counters.sessions_over_limit.add(),
                    SessionEvent::TlsOnPlainPort => counters.tls_on_plain_port.add(),
                    SessionEvent::BareNewline(_) => counters.bare_newlines.add(),
                    _ => {}
                }
                tracing::info!(%source, event = ?harmless, "session event");
                return;
            }
        };
        self.evidence(reason, rule.to_owned(), detail).await;
    }

    /// Enters evidence; says whether it led to a ban, which it never does for whom the administrator
    /// trusts. The edge, which knows them, is asked only when a ban hangs on it: most strangers are
    /// refused once and never come back, and the question costs more than all the rest.
    pub(super) async fn evidence(&mut self, reason: Reason, rule: String, detail: String) -> bool {
        let shared = Arc::clone(&self.shared);
        // Nor against a host of our own that others come through: all of them would be banned. And a
        // program of this machine has no address.
        if self.source.user.is_some() || shared.known.is_upstream(self.source.address) {
            return false;
        }
        let evidence = Evidence { source: self.source.address, reason, rule, detail };
        let Some(order) = shared.bans.record(evidence) else { return false };
        if self.source.standing(&shared).await == Standing::Trusted {
            return false;
        }
        shared.bans.order(order);
        true
    }
}
