//! What a block list's opinion means for a recipient (C3, asked at RCPT).
//!
//! The lists are asked at connect and their opinion is remembered until RCPT, so that a listed
//! sender can still write to postmaster and the like. The relay decision comes first: whoever
//! tries to relay reads that relaying is prohibited, listed or not.

use std::collections::BTreeSet;

use relay_common::entry::Reason;

use super::connection::Standing;
use super::domains::{DomainError, DomainMap, normalise};
use super::relay::{self, Accepted, DomainView, RecipientView, SourceFacts};
use super::{Decision, Refusal};

/// A list that holds the source, as the DNSBL part hands it over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedBy {
    /// The list's display name.
    pub name: String,
    /// The reply, its placeholders filled.
    pub refusal: Refusal,
    /// What was answered, for the reason: `127.0.0.2, 127.0.0.4`.
    pub answers: String,
    /// Whether the listing speaks of abuse; a policy listing alone (PBL) does not.
    pub evidence: bool,
}

/// Recipients that even a listed source may write to.
#[derive(Clone, Debug)]
pub struct ExemptRecipients {
    /// Local parts in lower case, at any domain.
    locals: BTreeSet<String>,
    /// Local parts in lower case by domain; an empty set is the whole domain.
    at: DomainMap<BTreeSet<String>>,
}

impl Default for ExemptRecipients {
    /// Postmaster, whom RFC 5321 section 4.5.1 wants reachable.
    fn default() -> Self {
        Self { locals: BTreeSet::from(["postmaster".to_owned()]), at: DomainMap::new() }
    }
}

impl ExemptRecipients {
    pub fn none() -> Self {
        Self { locals: BTreeSet::new(), at: DomainMap::new() }
    }

    /// Reads `postmaster@` (at every domain), `abuse@example.org` or `@example.org` (all of it).
    pub fn from_patterns<S: AsRef<str>>(
        patterns: impl IntoIterator<Item = S>,
    ) -> Result<Self, DomainError> {
        let mut exempt = Self::none();
        let mut at = std::collections::BTreeMap::<String, BTreeSet<String>>::new();
        let mut whole = BTreeSet::new();
        for pattern in patterns {
            let pattern = pattern.as_ref();
            let wrong = || DomainError::Name(pattern.to_owned());
            let (local, domain) = pattern.rsplit_once('@').ok_or_else(wrong)?;
            match (local, domain) {
                ("", "") => return Err(wrong()),
                (local, "") => {
                    exempt.locals.insert(local.to_ascii_lowercase());
                }
                ("", domain) => {
                    whole.insert(normalise(domain).ok_or_else(wrong)?);
                }
                (local, domain) => {
                    let domain = normalise(domain).ok_or_else(wrong)?;
                    at.entry(domain).or_default().insert(local.to_ascii_lowercase());
                }
            }
        }
        for domain in whole {
            at.insert(domain, BTreeSet::new());
        }
        for (domain, locals) in at {
            exempt.at.insert_with(&domain, |_| locals)?;
        }
        Ok(exempt)
    }

    pub fn holds(&self, recipient: &RecipientView<'_>) -> bool {
        let local = recipient.local.to_ascii_lowercase();
        let at_domain = |locals: &BTreeSet<String>| locals.is_empty() || locals.contains(&local);
        self.locals.contains(&local)
            || matches!(recipient.domain, DomainView::Name(name)
                if self.at.lookup(name).is_some_and(at_domain))
    }
}

#[derive(Clone, Copy, Debug)]
pub struct RecipientFacts<'a> {
    pub recipient: RecipientView<'a>,
    pub from: SourceFacts<'a>,
    pub standing: Standing,
    /// The lists that hold the source, in the administrator's order.
    pub listed_by: &'a [ListedBy],
    pub exempt: &'a ExemptRecipients,
}

/// The relay decision, or the refusal of a list when that decision was to accept.
///
/// A trusted source is refused like any other where it tries to relay, and proves nothing by it.
///
/// Whoever may relay here is one of the organisation's own, and block lists judge strangers: such
/// sources, authenticated or by the listener's grants, are not refused for being listed. A home
/// connection is on a policy list by its nature.
pub fn decide(mut relay: Decision<Accepted>, facts: &RecipientFacts<'_>) -> Decision<Accepted> {
    if facts.standing == Standing::Trusted {
        relay.evidence = None;
        return relay;
    }
    let Some(list) = facts.listed_by.first().filter(|_| relay.accepted().is_some()) else {
        return relay;
    };
    if facts.from.account.is_some()
        || (facts.from.never_route.is_none() && relay::grant(&facts.from).is_some())
        || facts.exempt.holds(&facts.recipient)
    {
        return relay;
    }
    let names: Vec<&str> = facts.listed_by.iter().map(|list| list.name.as_str()).collect();
    let reason = format!("the source is listed by {} ({})", names.join(", "), list.answers);
    let proof = facts.listed_by.iter().any(|list| list.evidence).then_some(Reason::Dnsbl);
    Decision::refuse(list.refusal.clone(), format!("dnsbl {}", list.name), reason, proof)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::domains::{DomainTable, Route};
    use crate::policy::relay::{ListenerGrants, RelayFacts, ReverseName, Sources};

    fn listed(evidence: bool) -> ListedBy {
        ListedBy {
            name: "Test".to_owned(),
            refusal: Refusal::new(550, (5, 7, 1), "listed"),
            answers: "127.0.0.2".to_owned(),
            evidence,
        }
    }

    fn ask(
        recipient: (&str, &str),
        standing: Standing,
        change: impl FnOnce(&mut ListenerGrants, &mut Option<&str>),
        listed_by: &[ListedBy],
    ) -> Decision<Accepted> {
        let mut domains = DomainTable::new();
        domains.insert("ours.example", Route::Inbound).unwrap();
        let mut grants = ListenerGrants::default();
        let mut account = None;
        change(&mut grants, &mut account);
        let from = SourceFacts {
            source: "203.0.113.9".parse().unwrap(),
            local: "198.51.100.1".parse().unwrap(),
            user: None,
            account,
            reverse_name: ReverseName::None,
            never_route: None,
            grants: &grants,
        };
        let recipient = RecipientView {
            local: recipient.0,
            quoted: false,
            domain: DomainView::Name(recipient.1),
        };
        let relay = relay::decide(&RelayFacts {
            recipient,
            from,
            domains: &domains,
            bare_postmaster: false,
        });
        let exempt =
            ExemptRecipients::from_patterns(["postmaster@", "abuse@ours.example"]).unwrap();
        let facts = RecipientFacts { recipient, from, standing, listed_by, exempt: &exempt };
        decide(relay, &facts)
    }

    #[test]
    fn a_listed_source_is_refused_with_the_lists_reply() {
        let decision =
            ask(("user", "ours.example"), Standing::Ordinary, |_, _| (), &[listed(true)]);
        assert_eq!(decision.refusal(), Some(&listed(true).refusal));
        assert_eq!(decision.rule, "dnsbl Test");
        assert_eq!(decision.evidence, Some(Reason::Dnsbl));
    }

    #[test]
    fn a_policy_listing_refuses_but_proves_nothing() {
        let to = ("user", "ours.example");
        let policy_alone = ask(to, Standing::Ordinary, |_, _| (), &[listed(false)]);
        assert!(policy_alone.refusal().is_some());
        assert_eq!(policy_alone.evidence, None);
        let both = ask(to, Standing::Ordinary, |_, _| (), &[listed(false), listed(true)]);
        assert_eq!(both.evidence, Some(Reason::Dnsbl));
    }

    #[test]
    fn the_exempt_and_the_organisations_own_are_not_refused() {
        let list = [listed(true)];
        let user = ("user", "ours.example");
        for (decision, what) in [
            (
                ask(("PostMaster", "ours.example"), Standing::Ordinary, |_, _| (), &list),
                "postmaster",
            ),
            (ask(("abuse", "OURS.example."), Standing::Ordinary, |_, _| (), &list), "abuse"),
            (ask(user, Standing::Trusted, |_, _| (), &list), "allow-listed"),
            (ask(user, Standing::Ordinary, |_, a| *a = Some("alice"), &list), "authenticated"),
            (
                ask(user, Standing::Ordinary, |g, _| g.sources = Sources::everyone(), &list),
                "may relay",
            ),
            (ask(user, Standing::Ordinary, |_, _| (), &[]), "not listed"),
        ] {
            assert!(decision.accepted().is_some(), "{what}");
        }
    }

    #[test]
    fn a_listed_source_that_tries_to_relay_reads_about_relaying() {
        let to = ("postmaster", "foreign.example");
        let proof = [(Standing::Ordinary, Some(Reason::RelayProbe)), (Standing::Trusted, None)];
        for (standing, evidence) in proof {
            let decision = ask(to, standing, |_, _| (), &[listed(true)]);
            assert_eq!(decision.refusal(), Some(&relay::RELAYING_IS_PROHIBITED));
            assert_eq!(decision.evidence, evidence);
        }
    }

    #[test]
    fn exemptions_are_addresses_and_nothing_else() {
        for pattern in ["", "@", "postmaster", "a@b c", "@*"] {
            assert!(ExemptRecipients::from_patterns([pattern]).is_err(), "{pattern:?}");
        }
        let whole = ExemptRecipients::from_patterns(["a@x.example", "@x.example"]).unwrap();
        let any =
            RecipientView { local: "any", quoted: false, domain: DomainView::Name("x.example") };
        assert!(whole.holds(&any));
        let no_domain = RecipientView { domain: DomainView::Absent, ..any };
        assert!(!whole.holds(&no_domain));
    }
}
