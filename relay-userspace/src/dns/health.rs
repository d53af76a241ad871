//! Tests of the lists themselves, at start and then now and again (RFC 5782 section 5).

use std::sync::Arc;

use relay_core::dnsbl::health::{State, TestResult};
use relay_core::dnsbl::names::{Family, test_names};
use relay_core::dnsbl::reply::redacted;
use tokio_util::sync::CancellationToken;

use super::dnsbl::DnsblService;

impl DnsblService {
    /// Tests every list once, all at the same time; afterwards those that passed count.
    pub async fn test_all(self: &Arc<Self>) {
        self.test(|_| true).await;
    }

    /// Tests on and on until it is told to stop, the first time after a pause, since
    /// [`Self::test_all`] has just been there; lists that do not count are tested more often.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        stop.run_until_cancelled(self.test_forever()).await;
    }

    async fn test_forever(self: &Arc<Self>) {
        let mut all = tokio::time::interval(self.settings.health_interval);
        let mut broken = tokio::time::interval(self.settings.recovery_interval);
        // The first tick of an interval is now.
        all.tick().await;
        broken.tick().await;
        loop {
            tokio::select! {
                _ = all.tick() => self.test_all().await,
                _ = broken.tick() => self.test(|state| state != State::Healthy).await,
            }
        }
    }

    async fn test(self: &Arc<Self>, which: impl Fn(State) -> bool) {
        let mut tests = tokio::task::JoinSet::new();
        for (place, (zone, v4, v6)) in self.states().into_iter().enumerate() {
            for (family, state) in [(Family::V4, v4), (Family::V6, v6)] {
                if which(state) && (family == Family::V4 || zone.v6) {
                    let service = self.clone();
                    tests.spawn(async move { service.test_one(place, family).await });
                }
            }
        }
        tests.join_all().await;
    }

    async fn test_one(&self, place: usize, family: Family) {
        let zone = &self.zones[place];
        let names = test_names(family, &zone.zone);
        let (listed, unlisted) = tokio::join!(
            self.resolver.a_records(&names.listed),
            self.resolver.a_records(&names.unlisted)
        );
        let result = match (listed, unlisted) {
            (Ok(listed), Ok(unlisted)) => {
                TestResult::Answered { listed: listed.records, unlisted: unlisted.records }
            }
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!(list = %zone.name, %error, "a block list could not be tested");
                TestResult::NoAnswer
            }
        };
        let (before, after) = {
            let mut all = self.health.lock().expect("no holder of this lock can panic");
            let health = all[place].of(family);
            let before = health.state();
            *health = health.after(&result, zone);
            (before, health.state())
        };
        report(&zone.name, &redacted(&zone.zone), family, before, after);
    }
}

fn report(list: &str, zone: &str, family: Family, before: State, after: State) {
    match (before, after) {
        (State::Unhealthy { .. }, State::Unhealthy { .. }) => {}
        (_, State::Unhealthy { fault, .. }) => {
            tracing::error!(list, zone, ?family, %fault, "a block list failed its test and scores nothing");
        }
        (State::Unhealthy { .. }, State::Healthy) => {
            tracing::info!(list, zone, ?family, "a block list has recovered and scores again");
        }
        _ => {}
    }
}
