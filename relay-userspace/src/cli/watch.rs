//! `status`, `stats` and `explain`: both daemons are asked, and one that is down hides nothing of
//! the other.

use std::io::{self, Write};
use std::net::IpAddr;

use serde::Serialize;

use super::feed::left_out;
use super::lists::scope_of;
use super::output::{counted, expiry, span, table};
use super::session::{Exit, Failure, Session, exit_of};
use crate::control::api::*;
use crate::control::client::ClientError;
use crate::edge::filter::Mode;

/// Both answers, and what stands in the place of one that is missing.
#[derive(Serialize)]
struct Both<E, R> {
    edge: Option<E>,
    relay: Option<R>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<String>,
}

impl<E: Serialize, R: Serialize> Both<E, R> {
    fn new(edge: Result<E, ClientError>, relay: Result<R, ClientError>) -> (Self, Exit) {
        let mut exit = Exit::Done;
        let mut errors = Vec::new();
        let mut failed = |error: ClientError| {
            if exit == Exit::Done {
                exit = exit_of(&error);
            }
            errors.push(error.to_string());
        };
        let edge = edge.map_err(&mut failed).ok();
        let relay = relay.map_err(&mut failed).ok();
        (Self { edge, relay, errors }, exit)
    }

    fn show(
        &self,
        on: &mut Session<'_>,
        human: impl FnOnce(&Self, &mut dyn Write) -> io::Result<()>,
    ) -> Result<(), Failure> {
        on.show(self, human)?;
        if !on.json {
            for error in &self.errors {
                writeln!(on.err, "postern: {error}")?;
            }
        }
        Ok(())
    }
}

type Facts = Vec<(String, String)>;

fn print(facts: Facts, out: &mut dyn Write) -> io::Result<()> {
    table(out, None, facts.into_iter().map(|(name, value)| vec![name, value]))
}

pub(super) async fn status(on: &mut Session<'_>) -> Result<Exit, Failure> {
    let edge = on.edge.get::<EdgeStatus>("/v1/status").await;
    let relay = on.relay.get::<RelayStatus>("/v1/status").await;
    let (both, exit) = Both::new(edge, relay);
    both.show(on, |both, out| {
        let mut facts = Facts::new();
        if let Some(edge) = &both.edge {
            edge_status(edge, &mut facts);
        }
        if let Some(relay) = &both.relay {
            relay_status(relay, &mut facts);
        }
        print(facts, out)
    })?;
    Ok(exit)
}

fn edge_status(edge: &EdgeStatus, facts: &mut Facts) {
    let mut say = |name: &str, value: String| facts.push((name.to_owned(), value));
    let up = span(edge.time.0.saturating_sub(edge.started.0));
    say("edge", format!("up {up}, version {}", edge.version));
    let kind = if edge.interfaces.is_empty() { edge.mode.as_str() } else { "XDP" };
    say("filter", format!("{kind}; looks up {}", edge.guarded));
    for interface in &edge.interfaces {
        say("interface", interface.to_string());
    }
    if edge.observe {
        say("NOTICE", "only observing: nothing is dropped (filter.observe)".to_owned());
    }
    if edge.syn_rate > 0 && edge.mode != Mode::Memory.name() {
        let rate = edge.syn_rate;
        say("limit", format!("{rate} connections a second from one source to the mail ports"));
    }
    for (list, count) in &edge.entries {
        let sources = edge.sources.get(list).into_iter().flatten();
        let sources: Vec<String> =
            sources.map(|(source, rows)| format!("{source} {rows}")).collect();
        let of =
            if sources.is_empty() { String::new() } else { format!(" ({})", sources.join(", ")) };
        say(list, format!("{}{of}", counted(*count, "prefix", "prefixes")));
    }
    if !edge.feeds.is_empty() {
        let feeds = edge.feeds.iter().map(|feed| {
            let entries = counted(feed.entries, "prefix", "prefixes");
            format!("{} {}, {entries}", feed.name, feed.state.name())
        });
        say("feeds", feeds.collect::<Vec<_>>().join("; "));
        for feed in &edge.feeds {
            if let Some(without) = left_out(&feed.left_out) {
                say("notice", format!("feed {}: {without}", feed.name));
            }
        }
    }
    say("bans", counted(edge.live_bans, "in force", "in force"));
    let health = &edge.health;
    let troubles = [
        (health.pending, "write", "writes", " to the filter still to be made"),
        (health.write_failures, "write", "writes", " to the filter failed"),
        (health.drift, "difference", "differences", " between lists and filter repaired"),
        (health.clock_steps, "time", "times", " the clock was set"),
        (health.reattached, "time", "times", " the filter was attached again"),
        (health.pins_made_anew, "pin", "pins", " of the filter removed by somebody and made anew"),
        (health.bans_capped, "ban", "bans", " refused by a cap"),
        (health.bans_protected, "ban", "bans", " refused by a guardrail"),
        (health.list_full, "time", "times", " a list was full"),
        (health.bans_evicted, "ban", "bans", " ended early to make room"),
    ];
    let troubles = troubles.into_iter().filter(|(count, ..)| *count > 0);
    let mut ill: Vec<String> =
        troubles.map(|(count, one, many, what)| counted(count, one, many) + what).collect();
    ill.extend(edge.interfaces.iter().filter_map(interface_ill));
    if let Some(why) = &edge.links_unheard {
        ill.push(format!("changes of interfaces are found every two seconds only: {why}"));
    }
    if edge.rules_exhausted {
        ill.push("new rules share one counter, since all are taken".to_owned());
    }
    for feed in edge.feeds.iter().filter(|feed| feed.state != FeedState::Good) {
        let why = feed.why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        ill.push(format!("feed {} is {}{why}", feed.name, feed.state.name()));
    }
    ill.extend(health.last_failure.as_ref().map(|error| format!("last failure: {error}")));
    say("health", if ill.is_empty() { "good".to_owned() } else { ill.join("; ") });
}

fn interface_ill(interface: &InterfaceStatus) -> Option<String> {
    let InterfaceStatus { name, called, state, .. } = interface;
    match (state.as_str(), called) {
        ("missing", _) => Some(format!("there is no interface {name}")),
        ("lost", _) => Some(format!("nobody is kept out on {name}: the filter is not on it")),
        (_, Some(called)) => Some(format!("{name} is now called {called}")),
        ("down", _) => Some(format!("{name} is down")),
        _ => None,
    }
}

fn relay_status(relay: &RelayStatus, facts: &mut Facts) {
    let mut say = |name: &str, value: String| facts.push((name.to_owned(), value));
    let up = span(relay.time.0.saturating_sub(relay.started.0));
    say("relay", format!("up {up}, version {}, as {}", relay.version, relay.hostname));
    for listener in &relay.listeners {
        let ListenerStatus { name, address, relays } = listener;
        say("listener", format!("{name} on {address}, relays {relays}"));
    }
    say("sessions", relay.sessions.to_string());
    say("queue", counted(relay.queue_messages, "message", "messages"));
    if !relay.edge_reachable {
        say("notice", "the relay does not reach the edge: nothing is banned".to_owned());
    }
    for notice in &relay.notices {
        say("notice", notice.clone());
    }
}

pub(super) async fn stats(on: &mut Session<'_>) -> Result<Exit, Failure> {
    let edge = on.edge.get::<EdgeStats>("/v1/stats").await;
    let relay = on.relay.get::<RelayStats>("/v1/stats").await;
    let (both, exit) = Both::new(edge, relay);
    both.show(on, |both, out| {
        let mut facts = Facts::new();
        let named =
            |kind: &str, name: &str, count: &u64| (format!("{kind} {name}"), count.to_string());
        if let Some(edge) = &both.edge {
            facts.extend(edge.packets.iter().map(|(name, n)| named("packets", name, n)));
            for (kind, counts) in [
                ("dropped by", &edge.dropped_by_reason),
                ("observed by", &edge.observed_by_reason),
                ("events", &edge.events),
            ] {
                facts.extend(counts.iter().map(|(name, n)| named(kind, name, n)));
            }
        }
        if let Some(relay) = &both.relay {
            facts.extend(relay.counters.iter().map(|(name, n)| named("relay", name, n)));
        }
        print(facts, out)?;
        let Some(edge) = both.edge.as_ref().filter(|edge| !edge.rules.is_empty()) else {
            return Ok(());
        };
        writeln!(out)?;
        let rows = edge.rules.iter().map(|rule| {
            let last = rule.last_hit.map_or_else(String::new, |at| at.to_string());
            vec![rule.rule.clone(), rule.packets.to_string(), rule.observed.to_string(), last]
        });
        table(out, Some(&["RULE", "PACKETS", "OBSERVED", "LAST HIT"]), rows)
    })?;
    Ok(exit)
}

pub(super) async fn explain(
    address: IpAddr,
    port: u16,
    on: &mut Session<'_>,
) -> Result<Exit, Failure> {
    let query = ExplainQuery { address, port };
    let edge = on.edge.ask::<EdgeExplain>("/v1/explain", &query).await;
    let relay = on.relay.ask::<RelayExplain>("/v1/explain", &query).await;
    let asks_as = relay.as_ref().ok().and_then(|relay| relay.asks_as);
    let edge = match (edge, asks_as) {
        // There the relay's question is all that there is.
        (Ok(told), Some(part)) if told.mode == "userspace" => {
            let query = ExplainQuery { address, port: part };
            let told = on.edge.ask::<EdgeExplain>("/v1/explain", &query).await;
            told.map(|told| EdgeExplain { port, ..told })
        }
        (edge, _) => edge,
    };
    let (both, exit) = Both::new(edge, relay);
    let wall_s = on.wall_s;
    both.show(on, |both, out| {
        if let Some(edge) = &both.edge {
            edge_explain(edge, wall_s, asks_as, out)?;
        }
        if let Some(relay) = &both.relay {
            writeln!(out, "relay:")?;
            let rows = relay.steps.iter().map(|step| {
                let ExplainStep { question, outcome, rule, reason } = step.clone();
                vec![format!("  {question}"), outcome, rule, reason]
            });
            table(out, Some(&["  QUESTION", "OUTCOME", "RULE", "REASON"]), rows)?;
        }
        Ok(())
    })?;
    Ok(exit)
}

fn edge_explain(
    edge: &EdgeExplain,
    wall_s: u64,
    asks_as: Option<u16>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let EdgeExplain { address, port, .. } = edge;
    let by = edge.decided_by.map_or_else(String::new, |prefix| format!(", by {prefix}"));
    let verdict = match edge.verdict {
        PacketVerdict::Pass => "passes the filter; no entry speaks about it",
        PacketVerdict::Allowed => "passes the filter; it is on the allow list",
        PacketVerdict::Denied if edge.mode == "userspace" => "is refused at accept by the filter",
        PacketVerdict::Observed => "would be dropped, but for being observed only",
        PacketVerdict::Denied => "is dropped by the filter",
    };
    writeln!(out, "{address} to port {port} {verdict}{by}")?;
    if let Some(part) = asks_as {
        writeln!(out, "the relay asks the lists itself about that port, as if it were {part}")?;
    }
    if edge.syn_rate > 0 && edge.mode != Mode::Memory.name() {
        let rate = edge.syn_rate;
        writeln!(
            out,
            "what it opens above {rate} connections a second is dropped (filter.syn_rate)"
        )?;
    }
    if !edge.agrees {
        let should = match edge.desired {
            PacketVerdict::Denied => "deny",
            PacketVerdict::Observed => "only observe",
            PacketVerdict::Pass | PacketVerdict::Allowed => "not deny",
        };
        writeln!(out, "the lists differ and {should} it; the filter is repaired within seconds")?;
    }
    if edge.bans > 0 {
        let bans = counted(u64::from(edge.bans), "ban counts", "bans count");
        writeln!(out, "{bans} against it: the next one lasts longer, up to the end of ban.ladder")?;
    }
    let rows = edge.rows.iter().map(|found| {
        let row = &found.row;
        vec![
            found.list.to_string(),
            row.prefix.to_string(),
            format!("{}{}", scope_of(row), if found.in_scope { "" } else { " (other ports)" }),
            row.rule.clone(),
            row.source.clone(),
            row.created.to_string(),
            expiry(row.expires, wall_s),
            found.packets.to_string(),
            found.observed.to_string(),
            row.comment.clone(),
        ]
    });
    let header = [
        "LIST",
        "PREFIX",
        "SCOPE",
        "RULE",
        "SOURCE",
        "SINCE",
        "EXPIRES",
        // Counted by rule, in the kernel: other entries of the rule have their part in it.
        "RULE'S PACKETS",
        "OBSERVED",
        "COMMENT",
    ];
    table(out, Some(&header), rows)?;
    feeds_explain(edge, wall_s, out)
}

fn feeds_explain(edge: &EdgeExplain, wall_s: u64, out: &mut dyn Write) -> io::Result<()> {
    let rows = edge.feeds.iter().map(|found| {
        let effect = match found {
            ExplainFeed { in_scope: false, .. } => " (other ports)",
            ExplainFeed { left_out: true, .. } => " (not enforced: guarded)",
            ExplainFeed { observe: true, .. } => " (observed)",
            _ => "",
        };
        vec![
            found.list.to_string(),
            found.prefix.to_string(),
            format!("{}{effect}", found.scope),
            format!("feed {}", found.feed),
            expiry(Some(found.lease_ends), wall_s),
            found.packets.to_string(),
        ]
    });
    let header = ["LIST", "PREFIX", "SCOPE", "FEED", "EXPIRES", "FEED'S PACKETS"];
    table(out, Some(&header), rows)
}
