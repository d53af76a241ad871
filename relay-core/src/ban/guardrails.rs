//! What may never be banned, whatever the evidence: without these addresses the machine, its
//! administrator or the organisation's mail is cut off.

use std::net::IpAddr;

use ipnet::IpNet;
use thiserror::Error;

use crate::prefix::{canonical_ip, canonical_net};

/// Addresses that must stay reachable, by why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protected {
    /// The machine's own.
    pub own: Vec<IpAddr>,
    pub gateways: Vec<IpAddr>,
    pub resolvers: Vec<IpAddr>,
    /// Where inbound mail is delivered, and the smart host.
    pub inside_hosts: Vec<IpAddr>,
    /// Trusted PROXY senders, behind which everyone comes.
    pub proxies: Vec<IpAddr>,
    /// From where an administrator is logged in.
    pub administrators: Vec<IpAddr>,
    /// From where somebody is logged in, as the SSH daemon's connections show.
    pub ssh: Vec<IpAddr>,
}

impl Protected {
    /// All of them, whatever the reason.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.reasons().map(|(address, _)| address)
    }

    /// All of them, each with what it is.
    pub fn reasons(&self) -> impl Iterator<Item = (IpAddr, &'static str)> {
        self.by_what()
            .into_iter()
            .flat_map(|(addresses, what)| addresses.iter().map(move |&address| (address, what)))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Guardrail {
    #[error("{prefix} holds {address}, {what}; put that on the allow list first")]
    Protected { prefix: IpNet, address: IpAddr, what: &'static str },
    #[error("{prefix} is on the allow list by {allow}, and allow beats deny")]
    Allowed { prefix: IpNet, allow: IpNet },
    #[error("{prefix} is the machine itself (loopback)")]
    Loopback { prefix: IpNet },
    #[error("{allow} keeps {address}, {what}, out of the denial of {denied}")]
    Uncovered { allow: IpNet, address: IpAddr, what: &'static str, denied: IpNet },
}

/// Whether the prefix may be denied. `allow`: the allow list.
///
/// A protected address that the allow list holds is no hindrance, since allow beats deny at every
/// lookup: that is how an administrator denies the whole world but the machine's own lifelines.
pub fn check(prefix: IpNet, protected: &Protected, allow: &[IpNet]) -> Result<(), Guardrail> {
    let prefix = canonical_net(prefix);
    if prefix.addr().is_loopback() && prefix.prefix_len() >= 8 {
        return Err(Guardrail::Loopback { prefix });
    }
    let allow = || allow.iter().map(|&net| canonical_net(net));
    if let Some(allow) = allow().find(|net| net.contains(&prefix)) {
        return Err(Guardrail::Allowed { prefix, allow });
    }
    for (addresses, what) in protected.by_what() {
        for &address in addresses {
            let address = canonical_ip(address);
            if prefix.contains(&address) && !allow().any(|net| net.contains(&address)) {
                return Err(Guardrail::Protected { prefix, address, what });
            }
        }
    }
    Ok(())
}

/// Whether an allow entry may go. `allow`: the allow list without it; `denied`: the deny list.
///
/// What [`check`] permitted because of the entry would be denied then: a protected address must not
/// lose by its end what it would not have lost by the denial.
pub fn check_lifting(
    lifted: IpNet,
    protected: &Protected,
    allow: &[IpNet],
    denied: &[IpNet],
) -> Result<(), Guardrail> {
    let lifted = canonical_net(lifted);
    let holder = |list: &[IpNet], address: &IpAddr| {
        list.iter().map(|&net| canonical_net(net)).find(|net| net.contains(address))
    };
    for (addresses, what) in protected.by_what() {
        for address in addresses.iter().map(|&address| canonical_ip(address)) {
            if lifted.contains(&address)
                && holder(allow, &address).is_none()
                && let Some(denied) = holder(denied, &address)
            {
                return Err(Guardrail::Uncovered { allow: lifted, address, what, denied });
            }
        }
    }
    Ok(())
}

impl Protected {
    fn by_what(&self) -> [(&[IpAddr], &'static str); 7] {
        [
            (&self.own, "an address of this machine"),
            (&self.gateways, "a gateway"),
            (&self.resolvers, "a resolver"),
            (&self.inside_hosts, "a host that mail is delivered to"),
            (&self.proxies, "a trusted proxy"),
            (&self.administrators, "where an administrator is logged in from"),
            (&self.ssh, "from which somebody is logged in over SSH"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn nothing_that_is_needed_can_be_banned() {
        let at = |text: &str| vec![text.parse().unwrap()];
        let protected = Protected {
            own: at("198.51.100.1"),
            gateways: at("2001:db8::1"),
            resolvers: at("192.0.2.53"),
            inside_hosts: at("10.0.0.25"),
            proxies: at("10.0.0.80"),
            administrators: at("::ffff:203.0.113.7"),
            ssh: at("::ffff:203.0.113.9"),
        };
        for (prefix, what) in [
            ("198.51.100.1/32", "machine"),
            ("198.51.100.0/24", "machine"),
            ("2001:db8::/64", "gateway"),
            ("192.0.2.53/32", "resolver"),
            ("10.0.0.25/32", "delivered"),
            ("10.0.0.80/32", "proxy"),
            ("203.0.113.7/32", "administrator"),
            ("::ffff:203.0.113.7/128", "administrator"),
            ("203.0.113.9/32", "logged in over SSH"),
            ("0.0.0.0/0", "machine"),
        ] {
            let error = check(net(prefix), &protected, &[]).expect_err(prefix);
            assert!(error.to_string().contains(what), "{error}");
        }
        for prefix in ["198.51.100.2/32", "2001:db8:0:1::/64", "203.0.113.8/32"] {
            assert_eq!(check(net(prefix), &protected, &[]), Ok(()));
        }
    }

    #[test]
    fn allow_beats_deny_and_lifts_the_guardrail_for_wide_denies() {
        let own = Protected { own: vec!["198.51.100.1".parse().unwrap()], ..Protected::default() };
        let allow = [net("192.0.2.0/24"), net("198.51.100.1/32")];
        assert!(matches!(
            check(net("192.0.2.7/32"), &own, &allow),
            Err(Guardrail::Allowed { allow, .. }) if allow == net("192.0.2.0/24")
        ));
        assert_eq!(check(net("192.0.0.0/16"), &own, &allow), Ok(()));
        assert_eq!(check(net("0.0.0.0/0"), &own, &allow), Ok(()));
        assert!(check(net("0.0.0.0/0"), &own, &allow[..1]).is_err());
    }

    #[test]
    fn an_allow_entry_stays_while_it_alone_keeps_a_protected_address_out_of_a_denial() {
        let own =
            Protected { own: vec!["::ffff:198.51.100.1".parse().unwrap()], ..Protected::default() };
        let check = |lifted, allow: &[IpNet], denied: &[IpNet]| {
            check_lifting(net(lifted), &own, allow, denied).map_err(|error| error.to_string())
        };
        let world = [net("192.0.2.0/24"), net("0.0.0.0/0")];
        let why = "198.51.100.0/24 keeps 198.51.100.1, an address of this machine, out of the \
                   denial of 0.0.0.0/0";
        assert_eq!(check("198.51.100.0/24", &[], &world), Err(why.to_owned()));
        assert!(check("::ffff:198.51.100.1/128", &[net("192.0.2.0/24")], &world).is_err());
        assert_eq!(check("198.51.100.1/32", &[net("198.51.100.0/24")], &world), Ok(()));
        assert_eq!(check("198.51.100.2/32", &[], &world), Ok(()));
        assert_eq!(check("198.51.100.1/32", &[], &world[..1]), Ok(()));
    }

    #[test]
    fn loopback_is_the_machine() {
        for prefix in ["127.0.0.1/32", "127.0.0.0/8", "::1/128", "::ffff:127.0.0.1/128"] {
            let result = check(net(prefix), &Protected::default(), &[]);
            assert!(matches!(result, Err(Guardrail::Loopback { .. })), "{prefix}");
        }
        assert_eq!(check(net("::/0"), &Protected::default(), &[]), Ok(()));
    }
}
