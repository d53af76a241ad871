//! The domain table: which domains are ours, which are passed on, which are refused (R4).
//!
//! Names are compared in one form: lower case, A-labels, no trailing dot. An entry is either a name
//! or `*.name`, which means every name below it and not the name itself.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use idna::AsciiDenyList;
use idna::uts46::{DnsLength, Hyphens, Uts46};
use thiserror::Error;

/// Bytes of a name in A-label form without the trailing dot (RFC 1035 section 2.3.4).
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;
/// Bytes of a name before mapping: a U-label character is at most four bytes.
const INPUT_BYTES_MAX: usize = 4 * (NAME_BYTES_MAX + 2);

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DomainError {
    #[error("{0:?} is not a domain name")]
    Name(String),
    #[error("{0:?} is an address, not a domain name")]
    Address(String),
    #[error(
        "{0:?} would mean every domain in the world; name the domains, or `*.` and the one above"
    )]
    Everything(String),
    #[error("{0:?} stands in the table twice")]
    Twice(String),
}

/// The one form in which names are compared; `None` when the text is no domain name.
///
/// Case, one trailing dot, U-labels and full-width forms (RFC 5890, UTS 46) make no difference.
pub fn normalise(name: &str) -> Option<String> {
    if name.len() > INPUT_BYTES_MAX {
        return None;
    }
    let ascii = Uts46::new()
        .to_ascii(name.as_bytes(), AsciiDenyList::EMPTY, Hyphens::Allow, DnsLength::Ignore)
        .ok()?;
    // After the mapping, because the ideographic full stop becomes a dot.
    let ascii = ascii.strip_suffix('.').unwrap_or(&ascii);
    let label_is_valid = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    (ascii.len() <= NAME_BYTES_MAX && ascii.split('.').all(label_is_valid))
        .then(|| ascii.to_ascii_lowercase())
}

/// Values by domain: an exact name first, then the nearest `*.` above.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainMap<T> {
    exact: BTreeMap<String, T>,
    /// Keyed by the name under the `*.`.
    below: BTreeMap<String, T>,
}

impl<T> Default for DomainMap<T> {
    fn default() -> Self {
        Self { exact: BTreeMap::new(), below: BTreeMap::new() }
    }
}

impl<T> DomainMap<T> {
    pub fn new() -> Self {
        Self::default()
    }

    /// Enters `example.org` or `*.example.org`, in any notation. `value` is given the pattern in
    /// its normal form. A bare `*` is refused: no table may open the gateway by one character.
    pub fn insert_with(
        &mut self,
        pattern: &str,
        value: impl FnOnce(&str) -> T,
    ) -> Result<(), DomainError> {
        let pattern = pattern.trim();
        let (map, text) = match pattern.strip_prefix("*.") {
            Some(rest) => (&mut self.below, rest),
            None => (&mut self.exact, pattern),
        };
        if matches!(pattern, "*" | "*." | "." | "*.*" | "@*") {
            return Err(DomainError::Everything(pattern.to_owned()));
        }
        let name = normalise(text).ok_or_else(|| DomainError::Name(pattern.to_owned()))?;
        if name.parse::<Ipv4Addr>().is_ok() {
            return Err(DomainError::Address(pattern.to_owned()));
        }
        if map.contains_key(&name) {
            return Err(DomainError::Twice(pattern.to_owned()));
        }
        let value =
            if pattern.starts_with("*.") { value(&format!("*.{name}")) } else { value(&name) };
        map.insert(name, value);
        Ok(())
    }

    /// What is said about this name, which may be in any notation.
    pub fn lookup(&self, name: &str) -> Option<&T> {
        let name = normalise(name)?;
        if let Some(value) = self.exact.get(&name) {
            return Some(value);
        }
        let mut rest = name.as_str();
        while let Some((_, above)) = rest.split_once('.') {
            if let Some(value) = self.below.get(above) {
                return Some(value);
            }
            rest = above;
        }
        None
    }

    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.below.is_empty()
    }

    pub fn len(&self) -> usize {
        self.exact.len() + self.below.len()
    }

    /// Every value: exact names first, then the wildcards, each in order of name.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.exact.values().chain(self.below.values())
    }
}

/// A set of domains, each remembered in its normal form.
pub type DomainSet = DomainMap<String>;

impl DomainSet {
    /// Reads the patterns of a list; stops at the first that is wrong.
    pub fn from_patterns<S: AsRef<str>>(
        patterns: impl IntoIterator<Item = S>,
    ) -> Result<Self, DomainError> {
        let mut set = Self::new();
        for pattern in patterns {
            set.insert_with(pattern.as_ref(), str::to_owned)?;
        }
        Ok(set)
    }
}

/// What is done with mail for a domain, whoever sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Ours: accepted, and handed to an inside host.
    Inbound,
    /// Not ours, accepted from everyone, and passed on.
    Relay,
    /// Refused, even from those who may relay.
    Reject,
}

impl Route {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Relay => "relay",
            Self::Reject => "reject",
        }
    }
}

/// A line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// In normal form: `example.org` or `*.example.org`.
    pub pattern: String,
    pub route: Route,
}

/// Routes by recipient domain. Empty by default: nothing is ours, nothing is passed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DomainTable(DomainMap<Rule>);

impl DomainTable {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn insert(&mut self, pattern: &str, route: Route) -> Result<(), DomainError> {
        self.0.insert_with(pattern, |pattern| Rule { pattern: pattern.to_owned(), route })
    }

    pub fn lookup(&self, domain: &str) -> Option<&Rule> {
        self.0.lookup(domain)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.0.values()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table() -> DomainTable {
        let mut table = DomainTable::new();
        for (pattern, route) in [
            ("Example.ORG", Route::Inbound),
            ("*.example.org", Route::Relay),
            ("secret.example.org.", Route::Reject),
            ("bücher.example", Route::Inbound),
        ] {
            table.insert(pattern, route).unwrap();
        }
        table
    }

    #[test]
    fn the_nearest_rule_answers_in_any_notation() {
        let table = table();
        for (name, pattern) in [
            ("example.org", Some("example.org")),
            ("EXAMPLE.org.", Some("example.org")),
            ("ｅｘａｍｐｌｅ。org", Some("example.org")),
            ("example.org。", Some("example.org")),
            ("a.example.org", Some("*.example.org")),
            ("b.a.example.org", Some("*.example.org")),
            ("secret.example.org", Some("secret.example.org")),
            ("x.secret.example.org", Some("*.example.org")),
            ("BÜCHER.example", Some("xn--bcher-kva.example")),
            ("XN--BCHER-KVA.example.", Some("xn--bcher-kva.example")),
            ("org", None),
            ("anexample.org", None),
            ("example.org.evil.test", None),
            ("example.org..", None),
            (".example.org", None),
            ("", None),
            (".", None),
            ("example.org\0.evil.test", None),
            ("example.org ", None),
            ("[192.0.2.1]", None),
            ("xn--.example.org", None),
        ] {
            assert_eq!(table.lookup(name).map(|rule| rule.pattern.as_str()), pattern, "{name:?}");
        }
    }

    #[test]
    fn no_pattern_means_the_world_or_an_address() {
        let mut table = table();
        for pattern in [
            "*",
            "*.",
            ".",
            "*.*",
            "@*",
            "",
            " ",
            "a b",
            "*.*.org",
            "192.0.2.1",
            "::1",
            "example.org",
            "exa*mple.org",
            "*@example.org",
            "\u{2a}\u{3002}",
        ] {
            assert!(table.insert(pattern, Route::Relay).is_err(), "{pattern:?}");
        }
        assert_eq!(table.rules().count(), 4);
    }

    #[test]
    fn limits_of_rfc_1035_hold() {
        assert!(normalise(&"a".repeat(63)).is_some());
        assert!(normalise(&"a".repeat(64)).is_none());
        let long = ["a"; 127].join(".");
        assert_eq!(long.len(), 253);
        assert!(normalise(&long).is_some() && normalise(&format!("{long}.")).is_some());
        assert!(normalise(&format!("{long}.a")).is_none());
        assert!(normalise(&"ü".repeat(100_000)).is_none());
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(name in "[a-zA-ZäöüßÄ0-9._-]{0,40}|.{0,20}") {
            if let Some(once) = normalise(&name) {
                prop_assert_eq!(normalise(&once), Some(once.clone()));
                prop_assert_eq!(normalise(&once.to_uppercase()), Some(once));
            }
        }
    }
}
