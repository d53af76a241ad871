//! Who answers a session: the relay itself, or, in the tests, the rules of a dialogue.

use std::{sync::Arc, time::Duration};

use relay_core::smtp::session::{Answer, Effect, Session};
use rustls::ServerConfig;
use tokio::time::Instant;

use crate::relay::questions::Questions;

/// What the loop of a connection needs besides the session and the socket.
pub(super) trait Answers {
    /// Answers what asks; `None` for what only tells.
    fn answer(
        &mut self,
        effect: Effect,
        session: &Session,
    ) -> impl Future<Output = Option<Answer>> + Send;

    /// What a TLS handshake is made with.
    fn tls(&self) -> &Arc<ServerConfig>;

    /// A handshake went well, or not.
    fn handshake_ended(&self, good: bool);

    /// How long a handshake may take.
    fn handshake_within(&self) -> Duration {
        Duration::from_secs(30)
    }

    /// Ends when a client that has said nothing whole since then has to make room for others.
    /// `known`: it has authenticated.
    fn outstayed(&self, _since: Instant, _known: bool) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}

impl Answers for Questions {
    async fn answer(&mut self, effect: Effect, session: &Session) -> Option<Answer> {
        Questions::answer(self, effect, session).await
    }

    fn tls(&self) -> &Arc<ServerConfig> {
        &self.shared.tls
    }

    fn handshake_ended(&self, good: bool) {
        let counters = &self.shared.counters;
        if good { counters.tls_sessions.add() } else { counters.tls_failures.add() }
    }

    fn handshake_within(&self) -> Duration {
        self.shared.handshake_timeout
    }

    async fn outstayed(&self, since: Instant, known: bool) {
        if known || !self.ticket.is_unknown() {
            return std::future::pending().await;
        }
        self.shared.admission.outstayed(since).await;
        self.shared.counters.sessions_hurried.add();
    }
}
