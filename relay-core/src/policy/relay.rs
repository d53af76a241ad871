//! May this recipient be accepted from this source? (R1 to R5, asked at RCPT.)
//!
//! The order: the recipient's route says reject, or it says inbound or relay and whoever sends is
//! welcome; otherwise it is relaying, which a never-route source may not, and anyone else only by
//! a grant of the listener. With nothing configured, nothing is accepted.

use std::net::IpAddr;

use ipnet::IpNet;
use relay_common::entry::Reason;

use super::domains::{DomainSet, DomainTable, Route};
use super::{Decision, Refusal};
use crate::prefix::{PrefixSet, canonical_ip};

/// The answer to every attempt to relay, whatever the trick (R5).
pub const RELAYING_IS_PROHIBITED: Refusal = Refusal::new(550, (5, 7, 1), "Relaying is prohibited");
const DOMAIN_IS_REFUSED: Refusal =
    Refusal::new(550, (5, 7, 1), "Mail for this domain is not accepted here");
const REVERSE_NAME_UNKNOWN: Refusal =
    Refusal::new(450, (4, 7, 25), "Your reverse name cannot be looked up now, try again later");

/// Characters by which a local part once named a further hop: `user%other`, `other!user`, and
/// `user@other` in quotes. The wide and small forms are those that compatibility mapping turns
/// into them.
const ROUTING_CHARACTERS: [char; 9] = ['@', '%', '!', '＠', '％', '！', '﹫', '﹪', '︕'];

/// A forward-path as the session parsed it. A source route before it, as in
/// `<@a.example:user@b.example>`, is ignored (RFC 5321 section 4.1.1.3): what counts, and where mail
/// goes, is the mailbox alone.
#[derive(Clone, Copy, Debug)]
pub struct RecipientView<'a> {
    /// The local part without its quotes.
    pub local: &'a str,
    /// Whether it stood in quotes.
    pub quoted: bool,
    pub domain: DomainView<'a>,
}

#[derive(Clone, Copy, Debug)]
pub enum DomainView<'a> {
    Name(&'a str),
    /// `[192.0.2.1]`, `[IPv6:2001:db8::1]`; also any other literal, with no address.
    Literal(Option<IpAddr>),
    /// No domain at all, which RFC 5321 section 4.5.1 allows `<postmaster>` alone.
    Absent,
}

/// Sources by prefix; the value of each is the rule as the administrator wrote it.
#[derive(Clone, Debug)]
pub enum Sources {
    /// Only those in the list; an empty list is nobody.
    Only(PrefixSet<String>),
    /// Everyone but those in the list.
    AllExcept(PrefixSet<String>),
}

impl Sources {
    pub fn nobody() -> Self {
        Self::Only(PrefixSet::new())
    }

    pub fn everyone() -> Self {
        Self::AllExcept(PrefixSet::new())
    }

    /// The rule by which the source belongs to them; `None`: it does not.
    pub fn admits(&self, source: IpAddr) -> Option<String> {
        match self {
            Self::Only(list) => list.lookup(source).map(|(net, name)| named(net, name)),
            Self::AllExcept(list) => {
                list.lookup(source).is_none().then(|| "all except the list".to_owned())
            }
        }
    }
}

/// `10.0.0.0/8`, or with its name `office (10.0.0.0/8)`.
pub(super) fn named(net: IpNet, name: &str) -> String {
    if name.is_empty() || name == net.to_string() {
        net.to_string()
    } else {
        format!("{name} ({net})")
    }
}

/// To whom a listener grants relaying (R2). The default: to nobody.
#[derive(Clone, Debug)]
pub struct ListenerGrants {
    /// The listener's name, for reasons.
    pub listener: String,
    pub authenticated: bool,
    pub sources: Sources,
    /// Addresses of this machine that only the inside can reach: connected there is inside.
    pub internal_addresses: Vec<IpAddr>,
    /// Domains in which the source's forward-confirmed reverse name suffices.
    pub reverse_domains: DomainSet,
    /// Users of this machine, on a socket that tells who connects.
    pub users: Vec<LocalUser>,
}

/// A user of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalUser {
    pub uid: u32,
    pub name: String,
}

impl Default for ListenerGrants {
    fn default() -> Self {
        Self {
            listener: String::new(),
            authenticated: false,
            sources: Sources::nobody(),
            internal_addresses: Vec::new(),
            reverse_domains: DomainSet::new(),
            users: Vec::new(),
        }
    }
}

/// What is known about the connection when its recipients are judged.
#[derive(Clone, Copy, Debug)]
pub struct SourceFacts<'a> {
    pub source: IpAddr,
    /// The address of ours that the source connected to.
    pub local: IpAddr,
    /// The user of this machine (uid) that the kernel says connected by a Unix socket.
    pub user: Option<u32>,
    /// The account it authenticated as.
    pub account: Option<&'a str>,
    pub reverse_name: ReverseName<'a>,
    /// The never-route entry that holds the source (R3).
    pub never_route: Option<IpNet>,
    pub grants: &'a ListenerGrants,
}

/// The source's name by forward-confirmed reverse lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReverseName<'a> {
    Verified(&'a str),
    /// It has none, or one that does not lead back.
    None,
    /// The lookup failed: asking again later may help.
    Unavailable,
}

#[derive(Clone, Copy, Debug)]
pub struct RelayFacts<'a> {
    pub recipient: RecipientView<'a>,
    pub from: SourceFacts<'a>,
    pub domains: &'a DomainTable,
    /// Whether the configuration says where `<postmaster>` without a domain goes.
    pub bare_postmaster: bool,
}

/// As what a recipient was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// For one of our domains: to its inside host.
    Inbound,
    /// For a domain that is passed on for everyone.
    RelayDomain,
    /// Passed on because the source may relay.
    Granted,
}

pub fn decide(facts: &RelayFacts<'_>) -> Decision<Accepted> {
    let recipient = &facts.recipient;
    match recipient.domain {
        DomainView::Absent => without_domain(facts),
        DomainView::Literal(_) => {
            relaying(&facts.from, "an address literal is never one of our domains")
        }
        DomainView::Name(name) => match facts.domains.lookup(name) {
            Some(rule) => in_table(facts, &rule.pattern, rule.route),
            None => relaying(&facts.from, "the recipient's domain is not ours"),
        },
    }
}

fn in_table(facts: &RelayFacts<'_>, pattern: &str, route: Route) -> Decision<Accepted> {
    let rule = format!("domain {pattern} ({})", route.name());
    if route == Route::Reject {
        let reason = format!("mail for {pattern} is refused");
        return Decision::refuse(DOMAIN_IS_REFUSED, rule, reason, None);
    }
    // The host behind us may still honour the old ways to route, and it trusts us.
    if facts.recipient.local.contains(ROUTING_CHARACTERS) {
        let reason = "the local part names a further hop";
        return prohibited(&facts.from, "no routing in local parts", reason);
    }
    match route {
        Route::Relay => {
            Decision::accept(Accepted::RelayDomain, rule, format!("{pattern} is passed on"))
        }
        _ => Decision::accept(Accepted::Inbound, rule, format!("{pattern} is ours")),
    }
}

fn without_domain(facts: &RelayFacts<'_>) -> Decision<Accepted> {
    if facts.bare_postmaster && is_postmaster(facts.recipient.local) {
        let reason = "postmaster needs no domain (RFC 5321 section 4.5.1)";
        return Decision::accept(Accepted::Inbound, "postmaster", reason);
    }
    let decision =
        prohibited(&facts.from, "no recipient without a domain", "the recipient has no domain");
    // Whoever asks for the postmaster does what RFC 5321 tells them to, and probes nothing.
    let evidence = decision.evidence.filter(|_| !is_postmaster(facts.recipient.local));
    Decision { evidence, ..decision }
}

/// The one local part without a domain (RFC 5321 section 4.5.1).
pub fn is_postmaster(local: &str) -> bool {
    local.eq_ignore_ascii_case("postmaster")
}

/// The recipient is foreign: only a grant helps, and to a never-route source none does.
fn relaying(from: &SourceFacts<'_>, why_foreign: &str) -> Decision<Accepted> {
    if from.never_route.is_none() {
        if let Some(grant) = grant(from) {
            let reason = format!("{why_foreign}, and {} may relay", grant.who);
            return Decision::accept(Accepted::Granted, grant.rule, reason);
        }
        // A permanent refusal would lose mail of a host that relays by its name.
        if from.reverse_name == ReverseName::Unavailable && !from.grants.reverse_domains.is_empty()
        {
            let rule = format!("reverse names of listener {}", from.grants.listener);
            let reason = format!("{why_foreign}, and the source's name cannot be looked up");
            return Decision::refuse(REVERSE_NAME_UNKNOWN, rule, reason, None);
        }
    }
    prohibited(from, "closed by default", why_foreign)
}

fn prohibited(from: &SourceFacts<'_>, rule: &str, reason: &str) -> Decision<Accepted> {
    let refusal = RELAYING_IS_PROHIBITED;
    match from.never_route {
        Some(net) => {
            let rule = format!("never-route {net}");
            let reason = format!("{reason}, and the source may never relay");
            Decision::refuse(refusal, rule, reason, Some(Reason::NeverRoute))
        }
        // An account's own client that asks the wrong listener is a mistake, not a probe; nor is a
        // program of this machine one.
        None => {
            let stranger = from.account.is_none() && from.user.is_none();
            let evidence = stranger.then_some(Reason::RelayProbe);
            Decision::refuse(refusal, rule, reason, evidence)
        }
    }
}

/// Why a source may relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub rule: String,
    /// The subject of "… may relay".
    pub who: String,
}

/// The first grant that holds; any suffices (R2). Says nothing about never-route, which beats it.
pub fn grant(from: &SourceFacts<'_>) -> Option<Grant> {
    let grants = from.grants;
    let on = |rule: String| format!("{rule} on listener {}", grants.listener);
    let source = canonical_ip(from.source);
    if let Some(account) = from.account.filter(|_| grants.authenticated) {
        let who = format!("account {account}");
        return Some(Grant { rule: on("relay for authenticated".to_owned()), who });
    }
    if let Some(uid) = from.user {
        // It has no address that a list could be about.
        let user = grants.users.iter().find(|user| user.uid == uid)?;
        let who = format!("user {}", user.name);
        return Some(Grant { rule: on(format!("relay list {who}")), who });
    }
    if let Some(entry) = grants.sources.admits(source) {
        return Some(Grant { rule: on(format!("relay list {entry}")), who: source.to_string() });
    }
    let local = canonical_ip(from.local);
    if grants.internal_addresses.iter().any(|&internal| canonical_ip(internal) == local) {
        let who = format!("whoever reaches {local}");
        return Some(Grant { rule: on(format!("internal address {local}")), who });
    }
    let ReverseName::Verified(name) = from.reverse_name else { return None };
    let pattern = grants.reverse_domains.lookup(name)?;
    Some(Grant { rule: on(format!("reverse name {pattern}")), who: name.to_owned() })
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
