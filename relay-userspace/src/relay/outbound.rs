//! Where mail goes from here: the configuration's hosts, in delivery's terms.

use std::sync::Arc;

use relay_core::smtp::client::{ClientTls, PlainLogin};

use super::{listener::Bound, state::Shared};
use crate::{
    config::{Config, DomainRoute, Host, OutboundTls},
    delivery::settings::Resolved,
    delivery::{
        DeliverySettings, HostPort, HostResolver, InsideRoute, NextHop, OwnAddresses, RetrySchedule,
    },
    dns::Resolver,
    tls,
};

/// # Errors
/// TLS towards the next hops cannot be set up.
pub fn settings(
    config: &Config,
    shared: &Shared,
    bound: &[Bound],
    smart_host_password: Option<String>,
) -> anyhow::Result<DeliverySettings> {
    let with_hosts = config
        .domains
        .iter()
        .filter(|domain| domain.route != DomainRoute::Reject && !domain.hosts.is_empty());
    let opportunistic = tls::opportunistic()?;
    let inside = with_hosts.map(|domain| InsideRoute {
        domains: vec![domain.pattern.clone()],
        next_hop: NextHop {
            hosts: domain.hosts.iter().map(host_port).collect(),
            lmtp: domain.lmtp,
            tls: ClientTls::IfOffered,
            tls_config: Some(Arc::clone(&opportunistic)),
            login: None,
        },
    });
    let smart_host = match &config.relay.smart_host {
        Some(host) => {
            let (tls, tls_config) = match config.relay.smart_host_tls {
                OutboundTls::Off => (ClientTls::Off, None),
                OutboundTls::Offer => (ClientTls::IfOffered, Some(Arc::clone(&opportunistic))),
                OutboundTls::Verify => (ClientTls::Required, Some(tls::verified(None)?)),
            };
            let account = config.relay.smart_host_account.as_ref();
            let login = account
                .zip(smart_host_password)
                .map(|((account, _), password)| PlainLogin { name: account.clone(), password });
            Some(NextHop { hosts: vec![host_port(host)], lmtp: false, tls, tls_config, login })
        }
        None => None,
    };
    let defaults = DeliverySettings::default();
    // Who wants retries more often than that wants attempts, not excuses.
    let suspend = config.queue.retry.iter().fold(defaults.suspend, |least, &each| least.min(each));
    Ok(DeliverySettings {
        suspend,
        hostname: config.server.hostname.clone(),
        inside: inside.collect(),
        smart_host,
        retry: RetrySchedule {
            intervals: config.queue.retry.clone(),
            expire: config.queue.expire,
            ..RetrySchedule::default()
        },
        connections_max: config.queue.concurrency,
        connections_per_destination_max: config.queue.concurrency_per_host,
        own: OwnAddresses {
            addresses: crate::edge::protected::read(&Default::default()).own,
            listeners: bound.iter().map(|bound| bound.address).collect(),
        },
        resolver: Arc::new(ByDns(shared.resolver.clone())),
        ..defaults
    })
}

fn host_port(host: &Host) -> HostPort {
    HostPort { host: host.host.clone(), port: host.port }
}

/// Names of next hops are asked of the configured DNS servers, as all other names are.
#[derive(Debug)]
struct ByDns(Resolver);

impl HostResolver for ByDns {
    fn addresses<'a>(&'a self, host: &'a str) -> Resolved<'a> {
        Box::pin(async move {
            match self.0.addresses(host).await {
                Ok(answer) => Ok(answer.records),
                Err(error) => Err(error.to_string()),
            }
        })
    }
}
