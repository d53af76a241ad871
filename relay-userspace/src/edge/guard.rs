//! Which entries may not be made. Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use relay_common::entry::Scope;
use relay_core::prefix::canonical_ip;
use thiserror::Error;

use super::protected::{Protected, Role};

/// Why a deny entry is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Guardrail {
    #[error("{prefix} covers {address}, {role}")]
    Covers { prefix: IpNet, address: IpAddr, role: Role },
    #[error("{prefix} would have no effect, since {allow} is on the allow list")]
    Allowed { prefix: IpNet, allow: IpNet },
}

/// Whether `prefix` may be denied without cutting off what must stay reachable.
pub fn covers_nobody(prefix: IpNet, protected: &Protected) -> Result<(), Guardrail> {
    match protected.addresses.iter().find(|(address, _)| prefix.contains(address)) {
        None => Ok(()),
        Some(&(address, role)) => Err(Guardrail::Covers { prefix, address, role }),
    }
}

/// Adds the administrator's own address where the scope could cut the session off: mail ports
/// alone cannot.
pub fn with_session(protected: &mut Protected, session: Option<IpAddr>, scope: Scope) {
    if let Some(address) = session
        && scope.intersects(Scope::of_tcp_port(22))
    {
        protected.addresses.push((canonical_ip(address), Role::Session));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wide_prefix_and_the_address_itself_are_refused_by_name() {
        let gateway: IpAddr = "192.0.2.1".parse().unwrap();
        let protected = Protected { addresses: vec![(gateway, Role::Gateway)] };
        for prefix in ["192.0.2.1/32", "192.0.2.0/24", "0.0.0.0/0"] {
            let prefix: IpNet = prefix.parse().unwrap();
            let refused = covers_nobody(prefix, &protected).unwrap_err();
            assert_eq!(
                refused.to_string(),
                format!("{prefix} covers 192.0.2.1, a gateway of this machine")
            );
        }
        for prefix in ["192.0.2.2/32", "198.51.100.0/24", "::/0"] {
            covers_nobody(prefix.parse().unwrap(), &protected).unwrap();
        }
    }

    #[test]
    fn the_session_is_protected_from_scopes_that_reach_it() {
        let session = Some("::ffff:198.51.100.9".parse().unwrap());
        let prefix: IpNet = "198.51.100.0/24".parse().unwrap();
        for (scope, refused) in [(Scope::SMTP, false), (Scope::TCP, true), (Scope::ALL, true)] {
            let mut protected = Protected::default();
            with_session(&mut protected, session, scope);
            assert_eq!(covers_nobody(prefix, &protected).is_err(), refused, "{scope}");
        }
    }
}
