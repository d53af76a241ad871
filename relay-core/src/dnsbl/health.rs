//! Whether a list may be believed: a list that died answers everything or nothing.
//!
//! The test entries of RFC 5782 section 5 are asked at start and then now and again. Until a list
//! has passed once, and from the moment it fails, it scores nothing.

use std::net::Ipv4Addr;

use super::meaning::{Opinion, meaning};
use super::zone::Zone;

/// Tests in a row that a list which failed must pass before it counts again.
const RECOVERS_AFTER: u8 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not tested yet, or no test came through.
    Unknown,
    Healthy,
    Unhealthy {
        fault: Fault,
        /// Tests passed since it failed.
        passed: u8,
    },
}

/// What was wrong with the answers to the test names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("127.0.0.1 is listed, so the list lists everything")]
    ListsEverything,
    #[error("127.0.0.2 is not listed, so the list lists nothing")]
    ListsNothing,
    #[error("the list refuses to answer us ({0})")]
    RefusesToAnswer(Ipv4Addr),
    #[error("answers lie outside 127/8 ({0}), so they are not the list's")]
    NotAList(Ipv4Addr),
}

/// What came back for the two test names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TestResult {
    Answered {
        listed: Vec<Ipv4Addr>,
        unlisted: Vec<Ipv4Addr>,
    },
    /// A timeout or a failing server: says nothing about the list's honesty.
    NoAnswer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    state: State,
}

impl Default for Health {
    fn default() -> Self {
        Self { state: State::Unknown }
    }
}

impl Health {
    pub fn state(self) -> State {
        self.state
    }

    /// Whether the list's opinions count.
    pub fn scores(self) -> bool {
        self.state == State::Healthy
    }

    /// The state after a test; `zone` says what the list's answers mean.
    #[must_use]
    pub fn after(self, result: &TestResult, zone: &Zone) -> Self {
        let TestResult::Answered { listed, unlisted } = result else { return self };
        let state = match (fault(listed, unlisted, zone), self.state) {
            (Some(fault), _) => State::Unhealthy { fault, passed: 0 },
            (None, State::Unhealthy { fault, passed }) if passed + 1 < RECOVERS_AFTER => {
                State::Unhealthy { fault, passed: passed + 1 }
            }
            (None, _) => State::Healthy,
        };
        Self { state }
    }
}

fn fault(listed: &[Ipv4Addr], unlisted: &[Ipv4Addr], zone: &Zone) -> Option<Fault> {
    use super::meaning::Silence::{ErrorCode, OutsideLoopback};
    // Any answer for 127.0.0.1 is wrong, whatever the rules of the zone say about it.
    for opinion in [meaning(unlisted, zone), meaning(listed, zone)] {
        match opinion {
            Opinion::None(ErrorCode(code)) => return Some(Fault::RefusesToAnswer(code)),
            Opinion::None(OutsideLoopback(address)) => return Some(Fault::NotAList(address)),
            _ => {}
        }
    }
    if !unlisted.is_empty() {
        return Some(Fault::ListsEverything);
    }
    // 127.0.0.2 need not carry a code that this configuration refuses for.
    listed.is_empty().then_some(Fault::ListsNothing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> Zone {
        Zone::new("Test", "bl.example").unwrap()
    }

    fn answered(listed: &[&str], unlisted: &[&str]) -> TestResult {
        let parse = |list: &[&str]| list.iter().map(|a| a.parse().unwrap()).collect();
        TestResult::Answered { listed: parse(listed), unlisted: parse(unlisted) }
    }

    #[test]
    fn a_list_counts_once_it_passed_and_not_from_when_it_failed() {
        let pass = answered(&["127.0.0.2"], &[]);
        let mut health = Health::default();
        assert!(!health.scores());
        health = health.after(&TestResult::NoAnswer, &zone());
        assert_eq!(health.state(), State::Unknown);
        health = health.after(&pass, &zone());
        assert!(health.scores());
        health = health.after(&TestResult::NoAnswer, &zone());
        assert!(health.scores());
        health = health.after(&answered(&[], &[]), &zone());
        assert!(!health.scores());
        health = health.after(&pass, &zone());
        assert!(!health.scores(), "one pass is not a recovery");
        health = health.after(&pass, &zone());
        assert!(health.scores());
    }

    #[test]
    fn every_way_to_be_dead_is_named() {
        let fault_of = |result| match Health::default().after(&result, &zone()).state() {
            State::Unhealthy { fault, .. } => fault,
            other => panic!("{other:?}"),
        };
        assert_eq!(fault_of(answered(&["127.0.0.2"], &["127.0.0.2"])), Fault::ListsEverything);
        assert_eq!(fault_of(answered(&[], &[])), Fault::ListsNothing);
        let outside = "192.0.2.1";
        let wildcard = answered(&[outside], &[outside]);
        assert_eq!(fault_of(wildcard), Fault::NotAList(outside.parse().unwrap()));
        let code = "127.255.255.254";
        assert_eq!(fault_of(answered(&[code], &[])), Fault::RefusesToAnswer(code.parse().unwrap()));
    }
}
