//! The source's name by forward-confirmed reverse lookup (C4): a name counts only when it leads
//! back to the address, since whoever owns an address writes into its reverse zone what he likes.

use std::net::IpAddr;

use relay_core::policy::relay::ReverseName;

use super::resolver::{DnsError, Resolver};

/// Names of one address that are tried.
const NAMES_MAX: usize = 5;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reverse {
    /// Lower case, without a trailing dot; leads back to the address.
    Verified(String),
    /// The first name found; none leads back.
    Unconfirmed(String),
    /// The address has no name.
    None,
    /// The lookup, or that of every name, failed: asking later may help.
    Unavailable(DnsError),
}

impl Reverse {
    /// As the relay decision sees it.
    pub fn for_policy(&self) -> ReverseName<'_> {
        match self {
            Self::Verified(name) => ReverseName::Verified(name),
            Self::Unconfirmed(_) | Self::None => ReverseName::None,
            Self::Unavailable(_) => ReverseName::Unavailable,
        }
    }
}

/// All of it within the resolver's deadline, as mail waits for it.
pub async fn reverse(resolver: &Resolver, address: IpAddr) -> Reverse {
    let deadline = resolver.deadline();
    match tokio::time::timeout(deadline, confirmed(resolver, address)).await {
        Ok(found) => found,
        Err(_) => Reverse::Unavailable(DnsError::Timeout(deadline)),
    }
}

async fn confirmed(resolver: &Resolver, address: IpAddr) -> Reverse {
    let address = address.to_canonical();
    let mut names = match resolver.ptr(address).await {
        Ok(answer) => answer.records,
        Err(error) => return Reverse::Unavailable(error),
    };
    names.truncate(NAMES_MAX);
    let Some(first) = names.first().cloned() else { return Reverse::None };
    let mut lookups = tokio::task::JoinSet::new();
    for (place, name) in names.into_iter().enumerate() {
        let resolver = resolver.clone();
        lookups.spawn(async move {
            let found = resolver.addresses(&name).await;
            (place, name, found.map(|answer| answer.records.contains(&address)))
        });
    }
    let mut results = lookups.join_all().await;
    results.sort_unstable_by_key(|(place, ..)| *place);
    if let Some((_, name, _)) = results.iter().find(|(_, _, found)| *found == Ok(true)) {
        return Reverse::Verified(name.clone());
    }
    // A name whose lookup failed may be the one that leads back.
    match results.into_iter().find_map(|(_, _, found)| found.err()) {
        Some(DnsError::Name(_)) | None => Reverse::Unconfirmed(first),
        Some(error) => Reverse::Unavailable(error),
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Instant};

    use super::*;
    use crate::dns::test_server::{Behaviour, TestServer, resolver};

    #[tokio::test]
    async fn only_a_name_that_leads_back_is_verified() {
        let server = TestServer::start(&[
            ("1.2.0.192.in-addr.arpa", Behaviour::ptr(&["liar.example.", "Honest.Example."])),
            ("honest.example", Behaviour::a(&["192.0.2.1"], 60)),
            ("liar.example", Behaviour::a(&["198.51.100.1"], 60)),
            ("2.2.0.192.in-addr.arpa", Behaviour::ptr(&["liar.example."])),
            ("3.2.0.192.in-addr.arpa", Behaviour::ServerFailure),
            ("4.2.0.192.in-addr.arpa", Behaviour::ptr(&["broken.example."])),
            ("broken.example", Behaviour::ServerFailure),
        ])
        .await;
        let resolver = resolver(&server);
        let ask = async |address: &str| reverse(&resolver, address.parse().unwrap()).await;
        assert_eq!(ask("192.0.2.1").await, Reverse::Verified("honest.example".to_owned()));
        assert_eq!(ask("::ffff:192.0.2.1").await, Reverse::Verified("honest.example".to_owned()));
        assert_eq!(ask("192.0.2.2").await, Reverse::Unconfirmed("liar.example".to_owned()));
        assert!(matches!(ask("192.0.2.3").await, Reverse::Unavailable(DnsError::Server(_))));
        assert!(matches!(ask("192.0.2.4").await, Reverse::Unavailable(DnsError::Server(_))));
        assert_eq!(ask("192.0.2.5").await, Reverse::None);
        assert_eq!(ask("192.0.2.1").await.for_policy(), ReverseName::Verified("honest.example"));
    }

    /// A slow name and a silent address together cost one deadline, not one each.
    #[tokio::test]
    async fn the_name_and_its_confirmation_share_the_deadline() {
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let Behaviour::Records(slow, _) = Behaviour::ptr(&["silent.example."]) else {
            unreachable!("a PTR is a record")
        };
        let server = TestServer::start(&[
            ("1.2.0.192.in-addr.arpa", Behaviour::Held(Arc::clone(&gate), slow)),
            ("silent.example", Behaviour::Silent),
        ])
        .await;
        let resolver = resolver(&server);
        let deadline = resolver.deadline();
        tokio::spawn(async move {
            tokio::time::sleep(deadline / 2).await;
            gate.add_permits(1);
        });
        let started = Instant::now();
        let found = reverse(&resolver, "192.0.2.1".parse().unwrap()).await;
        assert!(matches!(found, Reverse::Unavailable(_)), "{found:?}");
        assert_eq!(server.questions("silent.example"), 2, "A and AAAA were asked in time");
        assert!(started.elapsed() < deadline * 5 / 4, "{:?}", started.elapsed());
    }
}
