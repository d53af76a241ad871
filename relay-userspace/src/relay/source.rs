//! What is known about a client: its addresses at once; its listings a moment after it connected; its
//! name once mail is taken from it, since whoever is refused need not be looked up.

use std::{
    fmt::Display,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use relay_core::{
    policy::{connection::Standing, recipient::ListedBy},
    prefix::canonical_ip,
};
use tokio::sync::oneshot;

use super::state::{Listener, Shared};
use crate::{
    control::{
        api::{EdgeExplain, ExplainQuery, Judged, PacketVerdict},
        client::ClientError,
    },
    dns::{self, Resolver, Reverse, dnsbl},
};

/// A client's address, and lookups that begin before their answers are needed, so that they cost it
/// no time.
#[derive(Debug)]
pub struct Source {
    pub address: IpAddr,
    pub local: SocketAddr,
    /// By which the lists are asked ([`Listener::port_of_lists`]).
    pub port: u16,
    /// A balancer or an XCLIENT named it: the kernel has not seen its address.
    pub named: bool,
    /// A balancer that speaks for itself, to see whether we live.
    pub is_balancer: bool,
    /// The lists have been asked at connect.
    pub was_judged: bool,
    /// Of this machine, by a Unix socket (uid): then its address only stands in for one.
    pub user: Option<u32>,
    reverse: Lookup<Reverse>,
    listed_by: Lookup<Vec<ListedBy>>,
    standing: Option<Standing>,
}

#[derive(Debug)]
enum Lookup<T> {
    NotAsked,
    Asked(oneshot::Receiver<T>),
    Known(T),
}

impl<T: Send + 'static> Lookup<T> {
    /// Begins a lookup in a task of its own, of which nothing is left once it has answered: a session
    /// may be idle for long. To be called inside the runtime.
    fn begin(lookup: impl Future<Output = T> + Send + 'static) -> Self {
        let (mut answer, asked) = oneshot::channel();
        tokio::spawn(async move {
            tokio::select! {
                found = lookup => drop(answer.send(found)),
                // What nobody waits for any more need not be asked; lookups shared with others go on.
                () = answer.closed() => {}
            }
        });
        Self::Asked(asked)
    }

    /// The answer, or this in its stead when nobody asked, or the lookup came to grief.
    async fn get(&mut self, instead: impl FnOnce() -> T) -> &T {
        let answer = match self {
            Self::Known(_) => None,
            Self::NotAsked => Some(instead()),
            Self::Asked(asked) => Some(asked.await.unwrap_or_else(|error| {
                tracing::error!(%error, "a lookup failed in an unforeseen way");
                instead()
            })),
        };
        if let Some(answer) = answer {
            *self = Self::Known(answer);
        }
        match self {
            Self::Known(answer) => answer,
            Self::NotAsked | Self::Asked(_) => unreachable!("it was just made known"),
        }
    }
}

impl Source {
    /// Begins the lookups on which a refusal may hang. To be called inside the runtime.
    pub fn new(
        shared: &Arc<Shared>,
        listener: &Listener,
        peer: SocketAddr,
        local: SocketAddr,
        named: bool,
    ) -> Self {
        let address = canonical_ip(peer.ip());
        let listed_by = match shared.dnsbl.clone().filter(|_| listener.ask_dnsbl) {
            Some(lists) => {
                Lookup::begin(async move { dnsbl::listed_by(address, &lists.check(address).await) })
            }
            None => Lookup::Known(Vec::new()),
        };
        let mut source = Self {
            address,
            local: SocketAddr::new(canonical_ip(local.ip()), local.port()),
            port: match named {
                true => listener.port_of_part(),
                false => listener.port_of_lists(local.port()),
            },
            named,
            is_balancer: !named && listener.proxies.lookup(address).is_some(),
            was_judged: false,
            user: None,
            reverse: Lookup::NotAsked,
            listed_by,
            standing: None,
        };
        if !listener.grants.reverse_domains.is_empty() {
            source.ask_reverse(&shared.resolver);
        }
        source
    }

    /// It came by a Unix socket, from this user (uid): it has no address, and so no name.
    pub fn is_user(&mut self, uid: u32) {
        self.user = Some(uid);
        self.name_is(Reverse::None);
    }

    /// Whether the kernel's lists have been asked about it already, if there are any.
    pub fn is_seen_by_kernel(&self) -> bool {
        !self.named && self.port == self.local.port()
    }

    /// Begins the lookup of the name, unless it has begun.
    pub fn ask_reverse(&mut self, resolver: &Resolver) {
        if matches!(self.reverse, Lookup::NotAsked) {
            let (resolver, address) = (resolver.clone(), self.address);
            self.reverse = Lookup::begin(async move { dns::reverse(&resolver, address).await });
        }
    }

    /// A host of ours has looked its name up already.
    pub fn name_is(&mut self, name: Reverse) {
        self.reverse = Lookup::Known(name);
    }

    /// The name, looked up now if it has not been.
    pub async fn reverse(&mut self, resolver: &Resolver) -> Reverse {
        self.ask_reverse(resolver);
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
        let standing = match is_trusted(shared, self.address, self.port).await {
            true => Standing::Trusted,
            false => Standing::Ordinary,
        };
        *self.standing.insert(standing)
    }

    /// Whether the source is denied on the port that it connected to; counted by the edge. One that
    /// does not answer soon denies nobody.
    pub async fn is_denied(&self, shared: &Shared) -> bool {
        let query = ExplainQuery { address: self.address, port: self.port };
        let asking = Box::pin(shared.edge.post::<Judged>("/v1/judge", &query));
        let Some(answer) = shared.patience.wait_for(asking).await else {
            unheard(shared, self.address, &"it keeps clients waiting");
            return false;
        };
        heard(shared, self.address, answer).is_some_and(|it| it.verdict == PacketVerdict::Denied)
    }
}

/// Whether the allow list holds a source, for connections to that port of ours. An edge that does not
/// answer trusts nobody.
pub async fn is_trusted(shared: &Shared, address: IpAddr, port: u16) -> bool {
    let query = ExplainQuery { address: canonical_ip(address), port };
    // Apart from the session's task, which is there all the time, and this seldom.
    let answer = Box::pin(shared.edge.ask::<EdgeExplain>("/v1/explain", &query)).await;
    // The lists' answer, and not the maps': those do not look where nothing is denied.
    let told = heard(shared, address, answer).map(|told| told.desired);
    matches!(told, Some(PacketVerdict::Allowed))
}

/// What the edge says; `None` when it does not answer, which is counted.
fn heard<T>(shared: &Shared, address: IpAddr, answer: Result<T, ClientError>) -> Option<T> {
    answer.inspect_err(|error| unheard(shared, address, error)).ok()
}

fn unheard(shared: &Shared, address: IpAddr, error: &dyn Display) {
    shared.counters.edge_unreachable.add();
    if let Some(left_out) = shared.lines.edge.permit(Instant::now()) {
        let what = "the edge cannot say whether a source is listed";
        tracing::warn!(source = %address, %error, left_out, what);
    }
}
