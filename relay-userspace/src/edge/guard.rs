//! Which deny entries may not be made: the policy of [`guardrails`], fed from the lists. Which
//! allow entries may not go: [`super::lifting`].

use std::net::IpAddr;

use ipnet::IpNet;
use relay_common::entry::Scope;
use relay_core::ban::guardrails::{self, Guardrail, Protected};
use relay_core::prefix::host;

use super::sshd::SshSession;
use super::wanted::Desired;

/// The addresses that must stay reachable, with those from which somebody is connected over SSH,
/// the administrator who asks among them: these matter only to a scope that reaches the port.
pub(super) fn with_sessions(
    protected: &Protected,
    sessions: &[SshSession],
    own: Option<IpAddr>,
    scope: Scope,
) -> Protected {
    let mut protected = protected.clone();
    let reaches_ssh = scope.intersects(Scope::of_tcp_port(22));
    protected.administrators.extend(own.filter(|_| reaches_ssh));
    let reached = sessions.iter().filter(|it| scope.intersects(Scope::of_tcp_port(it.port)));
    protected.ssh.extend(reached.map(|it| it.peer));
    protected
}

/// Whether `prefix` may be denied for `scope`, until after `last_s`, a second since 1970.
///
/// Of the allow list, which may be long, only those entries are looked at that hold the prefix
/// or a protected address, allow all that the scope denies, and do not end before the denial.
pub(super) fn check(
    prefix: IpNet,
    scope: Scope,
    protected: &Protected,
    desired: &Desired,
    last_s: u64,
) -> Result<(), Guardrail> {
    let within = protected.addresses().map(host);
    let allow: Vec<IpNet> = within
        .filter(|address| prefix.contains(address))
        .chain([prefix])
        .filter_map(|net| desired.allow_over(net, scope, last_s))
        .collect();
    guardrails::check(prefix, protected, &allow)
}
