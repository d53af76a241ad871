//! The relay's share of `postern explain`: what a client from this address would meet, in the order
//! in which policy asks.

use std::net::IpAddr;

use axum::{Json, extract::State};
use relay_core::{
    dnsbl::{Kind, Opinion},
    policy::relay::{self, ReverseName, SourceFacts},
    prefix::canonical_ip,
};

use super::{Answered, Relay};
use crate::{
    control::{
        api::{EdgeExplain, ExplainQuery, ExplainStep, PacketVerdict, RelayExplain},
        extract::Ask,
    },
    dns::{self, Reverse, ZoneResult, dnsbl::Finding},
    relay::state::{Listener, Shared},
};

fn step(
    question: &str,
    outcome: &str,
    rule: impl Into<String>,
    reason: impl Into<String>,
) -> ExplainStep {
    ExplainStep {
        question: question.to_owned(),
        outcome: outcome.to_owned(),
        rule: rule.into(),
        reason: reason.into(),
    }
}

pub(super) async fn explain(
    State(shared): Relay,
    Ask(query): Ask<ExplainQuery>,
) -> Answered<RelayExplain> {
    let address = canonical_ip(query.address);
    let reverse = dns::reverse(&shared.resolver, address).await;
    let mut steps = vec![name_step(&reverse)];
    let at_port = |listener: &&std::sync::Arc<Listener>| {
        listener.addresses.iter().any(|bound| bound.port() == query.port)
    };
    // What a list says decides nothing on a listener that does not ask.
    let asks = shared.listeners.iter().filter(at_port).any(|listener| listener.ask_dnsbl);
    let listed = match &shared.dnsbl {
        Some(lists) if asks => lists.check(address).await,
        _ => Vec::new(),
    };
    steps.extend(listed.iter().map(list_step));
    for listener in shared.listeners.iter().filter(at_port) {
        steps.extend(asking(&shared, listener, address, query.port).await);
        steps.push(relaying(&shared, listener, address, &reverse));
    }
    for (reason, count, threshold) in shared.bans.against(address) {
        let rule = format!("ban.threshold {threshold}");
        let reason = format!("{count} of {threshold} refusals for {reason} within the window");
        steps.push(step("evidence", "against it", rule, reason));
    }
    let mut parts = shared.listeners.iter().filter(at_port).map(|it| it.port_of_lists(query.port));
    let asks_as = parts.next().filter(|&part| part != query.port);
    Ok(Json(RelayExplain { steps, asks_as }))
}

/// What the lists say where they do not close the port of a listener, so that the relay asks them.
async fn asking(
    shared: &Shared,
    listener: &Listener,
    address: IpAddr,
    port: u16,
) -> Option<ExplainStep> {
    let asked = ExplainQuery { address, port: listener.port_of_lists(port) };
    if asked.port == port {
        return None;
    }
    let question = format!("lists on {}", listener.name);
    let rule = format!("as on port {}", asked.port);
    let told = shared.edge.ask::<EdgeExplain>("/v1/explain", &asked).await;
    let (outcome, reason) = match told {
        Ok(told) if told.verdict == PacketVerdict::Denied => {
            let by = told.decided_by.map_or_else(String::new, |prefix| format!(" by {prefix}"));
            ("refuse", format!("denied{by}; the relay itself asks on this port"))
        }
        Ok(told) if told.verdict == PacketVerdict::Observed => {
            ("accept", "would be denied, but for being observed only".to_owned())
        }
        Ok(_) => ("accept", "not denied; the relay itself asks on this port".to_owned()),
        Err(error) => {
            ("accept", format!("the edge cannot say, and then nobody is denied: {error}"))
        }
    };
    Some(step(&question, outcome, rule, reason))
}

fn name_step(reverse: &Reverse) -> ExplainStep {
    let (outcome, reason) = match reverse {
        Reverse::Verified(name) => ("verified", name.clone()),
        Reverse::Unconfirmed(name) => ("unconfirmed", format!("{name} does not lead back")),
        Reverse::None => ("none", "the address has no name".to_owned()),
        Reverse::Unavailable(error) => ("unavailable", error.to_string()),
    };
    step("reverse name", outcome, "", reason)
}

fn list_step(result: &ZoneResult) -> ExplainStep {
    let (outcome, reason) = match &result.finding {
        Finding::Opinion(Opinion::Listed { answers, kind }) => {
            let answers: Vec<String> = answers.iter().map(ToString::to_string).collect();
            let kind = if *kind == Kind::Policy { "policy, no evidence" } else { "evidence" };
            ("refuse", format!("listed: {} ({kind})", answers.join(", ")))
        }
        Finding::Opinion(Opinion::NotListed) => ("accept", "not listed".to_owned()),
        Finding::Opinion(Opinion::None(silence)) => ("no opinion", format!("{silence:?}")),
        Finding::Untrusted(state) => ("no opinion", format!("the list fails its tests: {state:?}")),
        Finding::NotAsked => ("no opinion", "the list knows no IPv6".to_owned()),
        Finding::Failed(error) => ("no opinion", error.to_string()),
        Finding::TooLate => ("no opinion", "no answer in time".to_owned()),
    };
    step("block list", outcome, format!("dnsbl {}", result.zone.name), reason)
}

/// Whether the source, not authenticated, may relay through a listener.
fn relaying(
    shared: &Shared,
    listener: &Listener,
    source: IpAddr,
    reverse: &Reverse,
) -> ExplainStep {
    let question = format!("relaying on {}", listener.name);
    if let Some(net) = shared.never_route.lookup(source) {
        let reason = "the source may never relay, authenticated or not";
        return step(&question, "refuse", format!("never-route {net}"), reason);
    }
    let unconfirmed = ReverseName::None;
    let from = SourceFacts {
        source,
        local: listener.addresses.first().map_or(source, |address| address.ip()),
        user: None,
        account: None,
        reverse_name: match reverse {
            Reverse::Verified(_) => reverse.for_policy(),
            _ => unconfirmed,
        },
        never_route: None,
        grants: &listener.grants,
    };
    match relay::grant(&from) {
        Some(grant) => step(&question, "accept", grant.rule, format!("{} may relay", grant.who)),
        None if listener.grants.authenticated => {
            step(&question, "after AUTH", "relay for authenticated", "accounts may relay")
        }
        None => step(&question, "refuse", "closed by default", "no grant holds for the source"),
    }
}
