//! What a list's answer means. Whatever is not clearly a listing is no opinion: mail is refused
//! only for what a list really said.

use std::net::Ipv4Addr;

use super::zone::Zone;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opinion {
    NotListed,
    Listed {
        /// The answers that a rule of the zone holds, in order, each once.
        answers: Vec<Ipv4Addr>,
        kind: Kind,
    },
    /// The list was asked and did not speak about the address.
    None(Silence),
}

/// What a listing says about the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Mail from there was abuse: evidence for a ban.
    Abuse,
    /// No mail server should be there. A reason to refuse, never evidence.
    Policy,
}

/// Why an answer is no opinion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// The list says that it does not answer us: a wrong zone, a public resolver, too many
    /// questions (127.255.255.0/24).
    ErrorCode(Ipv4Addr),
    /// An address outside 127/8: a lapsed domain, or a resolver that answers for others.
    OutsideLoopback(Ipv4Addr),
    /// Answers that no rule of the zone holds.
    NoRule,
}

impl Opinion {
    pub const fn is_listed(&self) -> bool {
        matches!(self, Self::Listed { .. })
    }

    pub const fn is_evidence(&self) -> bool {
        matches!(self, Self::Listed { kind: Kind::Abuse, .. })
    }
}

/// 127.255.255.0/24, in which lists say that they refuse to answer.
pub fn is_error_code(answer: Ipv4Addr) -> bool {
    matches!(answer.octets(), [127, 255, 255, _])
}

/// `answers`: the A records, in any order; none means that the name does not exist.
///
/// One error code, or one address outside 127/8, spoils the whole answer.
pub fn meaning(answers: &[Ipv4Addr], zone: &Zone) -> Opinion {
    if let Some(&code) = answers.iter().find(|&&a| is_error_code(a)) {
        return Opinion::None(Silence::ErrorCode(code));
    }
    if let Some(&outside) = answers.iter().find(|a| !a.is_loopback()) {
        return Opinion::None(Silence::OutsideLoopback(outside));
    }
    let by = |rules: &[super::Answers], answer| rules.iter().any(|rule| rule.hold(answer));
    let mut listed: Vec<Ipv4Addr> =
        answers.iter().copied().filter(|&a| by(&zone.listed, a)).collect();
    listed.sort_unstable();
    listed.dedup();
    if listed.is_empty() {
        let no_rule = Opinion::None(Silence::NoRule);
        return if answers.is_empty() { Opinion::NotListed } else { no_rule };
    }
    let policy_alone = listed.iter().all(|&a| by(&zone.policy, a));
    let kind = if policy_alone { Kind::Policy } else { Kind::Abuse };
    Opinion::Listed { answers: listed, kind }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_spamhaus_zen() {
        let zen = Zone::new("ZEN", "zen.spamhaus.org").unwrap();
        let ask = |answers: &[&str]| {
            let answers: Vec<_> = answers.iter().map(|a| a.parse().unwrap()).collect();
            meaning(&answers, &zen)
        };
        assert_eq!(ask(&[]), Opinion::NotListed);
        for abuse in [&["127.0.0.2"][..], &["127.0.0.9"], &["127.0.0.4", "127.0.0.11"]] {
            assert!(ask(abuse).is_evidence(), "{abuse:?}");
        }
        for policy in [&["127.0.0.10"][..], &["127.0.0.10", "127.0.0.11"]] {
            assert!(ask(policy).is_listed() && !ask(policy).is_evidence(), "{policy:?}");
        }
        for silence in [
            &["127.255.255.252"][..],
            &["127.255.255.254"],
            &["127.255.255.255", "127.0.0.2"],
            &["192.0.2.1"],
            &["127.0.0.2", "192.0.2.1"],
            &["127.0.0.1"],
            &["127.0.0.12"],
            &["127.0.0.255"],
            &["127.0.1.2"],
        ] {
            assert!(matches!(ask(silence), Opinion::None(_)), "{silence:?}");
        }
    }

    #[test]
    fn only_the_answers_that_a_rule_holds_are_named() {
        let zone = Zone { listed: vec!["127.0.0.2".parse().unwrap()], ..zone() };
        let answers = ["127.0.0.7", "127.0.0.2", "127.0.0.2"].map(|a| a.parse().unwrap());
        let expected =
            Opinion::Listed { answers: vec!["127.0.0.2".parse().unwrap()], kind: Kind::Abuse };
        assert_eq!(meaning(&answers, &zone), expected);
    }

    fn zone() -> Zone {
        Zone::new("Test", "bl.example").unwrap()
    }
}
