//! Which senders are refused whatever they write (S1, asked at MAIL).

use std::collections::BTreeSet;

use super::domains::{DomainError, DomainMap, DomainSet, normalise};
use super::{Decision, Refusal};

const SENDER_IS_REFUSED: Refusal = Refusal::new(550, (5, 7, 1), "This sender is not accepted here");

/// The senders that a listener refuses. Empty by default.
#[derive(Clone, Debug, Default)]
pub struct SenderFilter {
    /// Local parts in lower case, by exact domain.
    addresses: DomainMap<BTreeSet<String>>,
    domains: DomainSet,
    /// The null reverse-path. Refusing it loses every bounce, so only an explicit `<>` sets it.
    blank: bool,
}

impl SenderFilter {
    /// Reads `user@example.org`, `example.org`, `*.example.org` or `<>`.
    pub fn from_patterns<S: AsRef<str>>(
        patterns: impl IntoIterator<Item = S>,
    ) -> Result<Self, DomainError> {
        let mut filter = Self::default();
        let mut addresses = std::collections::BTreeMap::<String, BTreeSet<String>>::new();
        for pattern in patterns {
            let pattern = pattern.as_ref().trim();
            if pattern == "<>" {
                filter.blank = true;
            } else if let Some((local, domain)) = pattern.rsplit_once('@') {
                let wrong = || DomainError::Name(pattern.to_owned());
                let domain = normalise(domain).filter(|_| !local.is_empty()).ok_or_else(wrong)?;
                addresses.entry(domain).or_default().insert(local.to_ascii_lowercase());
            } else {
                filter.domains.insert_with(pattern, str::to_owned)?;
            }
        }
        for (domain, locals) in addresses {
            filter.addresses.insert_with(&domain, |_| locals)?;
        }
        Ok(filter)
    }

    /// `sender`: local part (without quotes) and domain of the reverse-path; `None` for `<>`.
    pub fn decide(&self, sender: Option<(&str, &str)>) -> Decision<()> {
        let matched = match sender {
            None => self.blank.then(|| "<>".to_owned()),
            Some((local, domain)) => self.by_address(local, domain),
        };
        match matched {
            Some(rule) => {
                let reason = "the sender is on the listener's list".to_owned();
                Decision::refuse(SENDER_IS_REFUSED, format!("sender {rule}"), reason, None)
            }
            None => Decision::accept((), "no sender rule", "nothing speaks against the sender"),
        }
    }

    fn by_address(&self, local: &str, domain: &str) -> Option<String> {
        let local = local.to_ascii_lowercase();
        let exact = self.addresses.lookup(domain).filter(|locals| locals.contains(&local));
        match exact {
            Some(_) => Some(format!("{local}@{}", normalise(domain)?)),
            None => self.domains.lookup(domain).cloned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_domains_subdomains_and_the_blank_sender() {
        let patterns = ["Bad@Example.org", "spam.example", "*.spam.example", "<>"];
        let filter = SenderFilter::from_patterns(patterns).unwrap();
        let rule = |sender| filter.decide(sender).rule;
        assert_eq!(rule(Some(("BAD", "example.ORG."))), "sender bad@example.org");
        assert_eq!(rule(Some(("good", "example.org"))), "no sender rule");
        assert_eq!(rule(Some(("any", "spam.example"))), "sender spam.example");
        assert_eq!(rule(Some(("any", "a.spam.example"))), "sender *.spam.example");
        assert_eq!(rule(None), "sender <>");
        assert_eq!(SenderFilter::default().decide(None).accepted(), Some(&()));
        assert!(SenderFilter::from_patterns(["*"]).is_err());
        assert!(SenderFilter::from_patterns(["@example.org"]).is_err());
    }
}
