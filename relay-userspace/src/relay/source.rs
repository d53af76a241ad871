//! What is known about a client: its addresses at once, its name and its listings a moment later.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use relay_core::{
    policy::{connection::Standing, recipient::ListedBy},
    prefix::canonical_ip,
};
use tokio::task::JoinHandle;

use super::state::{Listener, Shared};
use crate::{
    control::api::{ExplainQuery, PacketVerdict},
    dns::{self, Reverse, dnsbl},
};

/// The SMTP port, whose traffic the scope of bans is about.
const SMTP_PORT: u16 = 25;

/// A client's address, and lookups that began when it connected, so that they cost it no time.
#[derive(Debug)]
pub struct Source {
    pub address: IpAddr,
    pub local: IpAddr,
    reverse: Lookup<Reverse>,
    listed_by: Lookup<Vec<ListedBy>>,
    standing: Option<Standing>,
}

#[derive(Debug)]
enum Lookup<T> {
    Asked(JoinHandle<T>),
    Known(T),
}

impl<T> Lookup<T> {
    async fn get(&mut self, instead: impl FnOnce() -> T) -> &T {
        if let Self::Asked(task) = self {
            let answer = task.await.unwrap_or_else(|error| {
                tracing::error!(%error, "a lookup failed in an unforeseen way");
                instead()
            });
            *self = Self::Known(answer);
        }
        match self {
            Self::Known(answer) => answer,
            Self::Asked(_) => unreachable!("it was just made known"),
        }
    }
}

impl<T> Drop for Lookup<T> {
    fn drop(&mut self) {
        // What nobody waits for any more need not be asked; lookups shared with others go on.
        if let Self::Asked(task) = self {
            task.abort();
        }
    }
}

impl Source {
    /// Begins the lookups. To be called inside the runtime.
    pub fn new(
        shared: &Arc<Shared>,
        listener: &Listener,
        peer: SocketAddr,
        local: SocketAddr,
    ) -> Self {
        let address = canonical_ip(peer.ip());
        let resolver = shared.resolver.clone();
        let reverse =
            Lookup::Asked(tokio::spawn(async move { dns::reverse(&resolver, address).await }));
        let listed_by = match shared.dnsbl.clone().filter(|_| listener.ask_dnsbl) {
            Some(lists) => Lookup::Asked(tokio::spawn(async move {
                dnsbl::listed_by(address, &lists.check(address).await)
            })),
            None => Lookup::Known(Vec::new()),
        };
        Self { address, local: canonical_ip(local.ip()), reverse, listed_by, standing: None }
    }

    pub async fn reverse(&mut self) -> Reverse {
        self.reverse.get(|| Reverse::None).await.clone()
    }

    pub async fn listed_by(&mut self) -> Vec<ListedBy> {
        self.listed_by.get(Vec::new).await.clone()
    }

    /// Whether the source is on the allow list. The edge is asked once a connection, and only when
    /// a refusal hangs on it.
    pub async fn standing(&mut self, shared: &Shared) -> Standing {
        if let Some(standing) = self.standing {
            return standing;
        }
        let standing = match filter_verdict(shared, self.address).await {
            Some(PacketVerdict::Allowed) => Standing::Trusted,
            Some(_) | None => Standing::Ordinary,
        };
        *self.standing.insert(standing)
    }
}

/// What the lists say of a source; `None` when the edge does not answer, which is counted.
pub async fn filter_verdict(shared: &Shared, address: IpAddr) -> Option<PacketVerdict> {
    let query = ExplainQuery { address, port: SMTP_PORT };
    match shared.edge.ask::<crate::control::api::EdgeExplain>("/v1/explain", &query).await {
        Ok(explained) => Some(explained.verdict),
        Err(error) => {
            shared.counters.edge_unreachable.add();
            tracing::warn!(source = %address, %error, "the edge cannot say whether a source is listed");
            None
        }
    }
}
