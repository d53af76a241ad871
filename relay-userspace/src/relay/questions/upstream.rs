//! Clients that a host of ours names by XCLIENT, and for whom it forwards by XFORWARD.

use std::{net::SocketAddr, sync::Arc};

use relay_core::{
    prefix::canonical_ip,
    smtp::{
        reply::Reply,
        session::{ClientFacts, Told, Upstream},
    },
};

use super::Questions;
use crate::{
    dns::{DnsError, Reverse},
    relay::{accepting, source::Source},
};

impl Questions {
    /// What this source may say of others on this listener.
    pub fn upstream(&self) -> Upstream {
        let source = self.source.address;
        Upstream {
            xclient: self.listener.xclient.lookup(source).is_some(),
            xforward: self.listener.xforward.lookup(source).is_some(),
        }
    }

    /// Makes the client that is named the source, for everything. A client that is named so has no
    /// more rights than if it had connected itself: it may not name another one.
    pub(super) async fn name_client(&mut self, facts: &ClientFacts) -> Result<Upstream, Reply> {
        let host = self.source.address;
        tracing::info!(%host, ?facts, "XCLIENT");
        let known = |told: &Option<Told<_>>| told.as_ref().and_then(Told::known).copied();
        if let Some(Told::Unavailable | Told::TemporarilyUnavailable) = facts.address {
            return Err(Reply::new(421, (4, 7, 0), "A client without an address is not served"));
        }
        if let Some(address) = known(&facts.address) {
            let shared = Arc::clone(&self.shared);
            let port_of = |told: &Option<Told<u16>>| told.as_ref().and_then(Told::known).copied();
            let peer = SocketAddr::new(address, port_of(&facts.port).unwrap_or(0));
            let local = SocketAddr::new(
                known(&facts.destination).unwrap_or(self.source.local.ip()),
                port_of(&facts.destination_port).unwrap_or(self.source.local.port()),
            );
            let passed = accepting::pass_on(&shared, &self.listener, &mut self.ticket, address);
            passed.await.map_err(|crowded| accepting::crowded_reply(&shared, crowded))?;
            let named = canonical_ip(address) != host;
            self.source = Source::new(&shared, &self.listener, peer, local, named);
        }
        if let Some(name) = &facts.name {
            self.source.name_is(match name {
                Told::Known(name) => {
                    Reverse::Verified(name.trim_end_matches('.').to_ascii_lowercase())
                }
                Told::Unavailable => Reverse::None,
                Told::TemporarilyUnavailable => {
                    Reverse::Unavailable(DnsError::Failed("[TEMPUNAVAIL] by XCLIENT".to_owned()))
                }
            });
        }
        match self.at_connect().await {
            Some(reply) => Err(reply),
            // Whoever comes through that host must not name others in turn, even where it named
            // itself, or one that may.
            None => Ok(Upstream::default()),
        }
    }
}
