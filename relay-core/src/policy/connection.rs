//! May this source talk to us at all? (C1, C2 and C7, asked at connect.)
//!
//! The order: the allow-list, the global deny list (which supersedes every listener), the
//! listener's own list, then the bans. The kernel enforces the global lists before TCP; the same
//! answer is given here for connections that were open already and where there is no kernel filter.

use std::net::IpAddr;

use ipnet::IpNet;

use super::relay::Sources;
use super::{Decision, Refusal};

const NOT_WELCOME: Refusal = Refusal {
    code: 554,
    enhanced: (5, 7, 1),
    text: std::borrow::Cow::Borrowed("Your address is not accepted here"),
    close: true,
};

#[derive(Clone, Copy, Debug)]
pub struct ConnectionFacts<'a> {
    pub source: IpAddr,
    /// The longest allow-list entry that holds the source, in force now.
    pub allow: Option<IpNet>,
    /// The longest deny-list entry that holds the source, in force now, and its reason in words.
    pub deny: Option<(IpNet, &'a str)>,
    /// Whom the listener admits.
    pub listener: &'a str,
    pub admits: &'a Sources,
    /// The ban that holds the source, in force now, and its reason in words.
    pub ban: Option<(IpNet, &'a str)>,
}

/// How an admitted source is treated from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// On the allow-list: no block list is asked, nothing is evidence.
    Trusted,
    Ordinary,
}

pub fn decide(facts: &ConnectionFacts<'_>) -> Decision<Standing> {
    if let Some(net) = facts.allow {
        return Decision::accept(
            Standing::Trusted,
            format!("allow {net}"),
            "the source is allowed",
        );
    }
    if let Some((net, why)) = facts.deny {
        return Decision::refuse(NOT_WELCOME, format!("deny {net}"), why, None);
    }
    let Some(entry) = facts.admits.admits(facts.source) else {
        let rule = format!("connection list of listener {}", facts.listener);
        return Decision::refuse(NOT_WELCOME, rule, "the listener does not admit the source", None);
    };
    if let Some((net, why)) = facts.ban {
        return Decision::refuse(NOT_WELCOME, format!("ban {net}"), why, None);
    }
    let rule = format!("connection list of listener {}: {entry}", facts.listener);
    Decision::accept(Standing::Ordinary, rule, "nothing speaks against the source")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn allow_beats_deny_beats_the_listener_beats_bans() {
        let nobody = Sources::nobody();
        let everyone = Sources::everyone();
        let mut facts = ConnectionFacts {
            source: "192.0.2.1".parse().unwrap(),
            allow: Some(net("192.0.2.1/32")),
            deny: Some((net("192.0.2.0/24"), "denied by hand")),
            listener: "mx",
            admits: &nobody,
            ban: Some((net("192.0.2.1/32"), "relay-probe")),
        };
        assert_eq!(decide(&facts).accepted(), Some(&Standing::Trusted));
        facts.allow = None;
        assert_eq!(decide(&facts).rule, "deny 192.0.2.0/24");
        assert_eq!(decide(&facts).reason, "denied by hand");
        facts.deny = None;
        assert_eq!(decide(&facts).rule, "connection list of listener mx");
        facts.admits = &everyone;
        assert_eq!(decide(&facts).rule, "ban 192.0.2.1/32");
        assert!(decide(&facts).refusal().is_some_and(|r| r.close && r.code == 554));
        facts.ban = None;
        assert_eq!(decide(&facts).accepted(), Some(&Standing::Ordinary));
    }

    #[test]
    fn only_the_list_and_all_except_the_list() {
        let list = || [(net("2001:db8::/32"), "lab".to_owned())].into_iter().collect();
        let only = Sources::Only(list());
        let except = Sources::AllExcept(list());
        for (source, listed) in [("2001:db8::5", true), ("2001:db9::5", false), ("10.0.0.1", false)]
        {
            let source = source.parse().unwrap();
            assert_eq!(only.admits(source).is_some(), listed);
            assert_eq!(except.admits(source).is_none(), listed);
        }
    }
}
