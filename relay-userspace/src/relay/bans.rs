//! From refusals to bans: evidence goes into the ledger, and what the ledger orders goes to the
//! edge.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use relay_common::entry::Reason;
use relay_core::ban::{
    BanPolicy,
    evidence::{Evidence, EvidenceLedger},
    order::BanOrder,
};
use tokio::{sync::mpsc, time::sleep};

use super::counters::Counters;
use crate::control::{
    api::{BanOutcome, BanRequest, Code},
    client::{Client, ClientError},
};
use crate::edge::lines::fit_text;

/// Orders that may wait for the edge.
const WAITING_MAX: usize = 1024;
/// How often an order is offered to an edge that does not answer, and how long apart: an edge that
/// is being started again is back within this time.
const ATTEMPTS: u32 = 10;
const BETWEEN_ATTEMPTS: Duration = Duration::from_secs(1);

/// Takes evidence. Cheap to share.
#[derive(Debug)]
pub struct Bans {
    ledger: Mutex<EvidenceLedger>,
    orders: mpsc::Sender<BanOrder>,
    counters: Arc<Counters>,
}

impl Bans {
    /// The taker of evidence, and the orders for [`carry_out`].
    pub fn new(policy: BanPolicy, counters: Arc<Counters>) -> (Self, mpsc::Receiver<BanOrder>) {
        let (orders, waiting) = mpsc::channel(WAITING_MAX);
        (Self { ledger: Mutex::new(EvidenceLedger::new(policy)), orders, counters }, waiting)
    }

    /// Enters a piece of evidence; the ban that is due if it was the one that was missing. Whoever does
    /// not [`order`](Self::order) it lets the source begin anew.
    #[must_use]
    pub fn record(&self, evidence: Evidence) -> Option<BanOrder> {
        self.counters.evidence.add();
        tracing::info!(
            source = %evidence.source, reason = %evidence.reason, rule = evidence.rule,
            detail = evidence.detail, "evidence"
        );
        self.ledger().record(evidence, Instant::now())
    }

    /// Hands a ban on to [`carry_out`].
    pub fn order(&self, order: BanOrder) {
        if let Err(error) = self.orders.try_send(order) {
            self.counters.bans_lost.add();
            tracing::error!(%error, "ban lost: too many are waiting for the edge");
        }
    }

    /// What counts against a source now: reason, pieces, and how many make a ban.
    pub fn against(&self, source: IpAddr) -> Vec<(Reason, usize, u32)> {
        self.ledger().against(source, Instant::now())
    }

    /// The ledger keeps its invariants at every step, so a panic elsewhere cannot tear it.
    fn ledger(&self) -> MutexGuard<'_, EvidenceLedger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Brings orders to the edge, one after the other, until the last [`Bans`] is dropped.
pub async fn carry_out(
    mut orders: mpsc::Receiver<BanOrder>,
    edge: Client,
    counters: Arc<Counters>,
) {
    while let Some(order) = orders.recv().await {
        let request = request(&order);
        carry_out_one(&request, &edge, &counters).await;
    }
}

/// The order as the edge takes it. What a stranger said is part of the evidence, and must not be
/// what gets the ban refused.
fn request(order: &BanOrder) -> BanRequest {
    BanRequest {
        address: order.address,
        scope: order.scope,
        reason: order.reason,
        rule: fit_text(&order.rule),
        evidence: fit_text(&order.evidence),
    }
}

/// Whether the same order may be taken a moment later.
pub(super) fn may_come_back(error: &ClientError) -> bool {
    match error {
        ClientError::NotReachable { .. }
        | ClientError::TimedOut { .. }
        | ClientError::Garbled { .. } => true,
        ClientError::Problem(problem) => {
            matches!(problem.code, Code::Busy | Code::Storage | Code::Internal)
        }
        ClientError::NoPermission { .. } => false,
    }
}

async fn carry_out_one(request: &BanRequest, edge: &Client, counters: &Counters) {
    for attempt in 1..=ATTEMPTS {
        let error = match edge.ban(request).await {
            Ok(answer) => {
                let banned =
                    matches!(answer.outcome, BanOutcome::Banned | BanOutcome::AlreadyBanned);
                if banned {
                    counters.bans.add()
                } else {
                    counters.bans_refused.add()
                }
                tracing::info!(
                    source = %request.address, prefix = %answer.prefix, scope = %request.scope,
                    reason = %request.reason, rule = request.rule, evidence = request.evidence,
                    outcome = ?answer.outcome, until = answer.until.map(tracing::field::display),
                    note = answer.message, "ban"
                );
                return;
            }
            Err(error) => error,
        };
        if !may_come_back(&error) || attempt == ATTEMPTS {
            counters.bans_lost.add();
            tracing::error!(source = %request.address, %error, "ban lost");
            return;
        }
        sleep(BETWEEN_ATTEMPTS).await;
    }
}

#[cfg(test)]
mod tests {
    use relay_common::entry::Scope;
    use relay_core::ban::network_of;

    use super::*;
    use crate::{control::api::Problem, edge::lines::check_text};

    #[test]
    fn what_a_stranger_said_does_not_get_the_ban_refused() {
        let address: IpAddr = "192.0.2.9".parse().unwrap();
        let order = BanOrder {
            address,
            network: network_of(address),
            scope: Scope::MX,
            reason: Reason::AuthFailure,
            rule: "password".into(),
            evidence: format!("wrong password for {:?}\u{9b}2J\n", "ä".repeat(9_000)),
        };
        let request = request(&order);
        assert_eq!(check_text("evidence", &request.evidence), Ok(()));
        assert!(request.evidence.starts_with("wrong password for"));
    }

    #[test]
    fn a_busy_edge_and_a_full_disk_are_tried_again_and_a_refusal_is_not() {
        let problem = |code| ClientError::Problem(Problem::new(code, "for a test"));
        assert!(may_come_back(&problem(Code::Busy)) && may_come_back(&problem(Code::Storage)));
        assert!(!may_come_back(&problem(Code::Invalid)) && !may_come_back(&problem(Code::Refused)));
    }
}
