//! What the edge says about itself: status, stats, and why an address passes or not.

use std::collections::BTreeMap;

use ipnet::IpNet;
use relay_common::entry::{List, Reason, Scope};
use relay_common::parse::Family;
use relay_common::totals::{Counter, Totals};
use relay_common::verdict::Verdict;
use relay_core::ban::network_of;
use relay_core::prefix;

use super::feeds::verdict_of;
use super::filter::{Filter, FilterError};
use super::state::Edge;
use super::store::RULE_SLOT_MAX;
use crate::control::api::{
    Code, EdgeExplain, EdgeStats, EdgeStatus, ExplainQuery, ExplainRow, Health, Judged,
    PacketVerdict, Problem, RuleStats, Time,
};

/// Rules in one answer to `stats`.
const RULES_SHOWN_MAX: usize = 100;

impl<F: Filter> Edge<F> {
    pub fn status(&self) -> Result<EdgeStatus, Problem> {
        let now = self.now();
        let attachment = self.filter.attachment();
        let by_source = self.store.count_by_source()?;
        let sources = by_source.into_iter().map(|(list, of)| (list.name().to_owned(), of));
        let rules = self.store.rules()?.len() as u64;
        let guarded = self.guarded();
        Ok(EdgeStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            time: Time(now.wall_s()),
            started: Time(self.started_s),
            interface: attachment.interface,
            mode: attachment.mode.name().to_owned(),
            program_id: attachment.program_id,
            entries: List::ALL
                .map(|list| (list.name().to_owned(), self.desired.count(list)))
                .into(),
            sources: sources.collect(),
            guarded: if guarded == Scope::NONE { "nothing".into() } else { guarded.to_string() },
            live_bans: self.store.live_bans(now.wall_s())?,
            rules,
            rules_exhausted: rules >= u64::from(RULE_SLOT_MAX),
            health: Health { pending: self.pending(), ..self.health.clone() },
            feeds: self.feeds_health(),
        })
    }

    pub fn stats(&self) -> Result<EdgeStats, Problem> {
        let totals = self.filter.totals()?;
        let of_both = |count: fn(&Totals, Family) -> u64| -> u64 {
            Family::ALL.into_iter().map(|family| count(&totals, family)).sum()
        };
        let packets = [
            ("seen", totals.seen()),
            ("passed", of_both(Totals::passed)),
            ("passed, allowed", totals.allowed()),
            ("passed, not TCP", totals.not_tcp()),
            ("not IP", totals.get(Counter::NotIp)),
            ("dropped IPv4", totals.dropped(Family::V4)),
            ("dropped IPv6", totals.dropped(Family::V6)),
            ("dropped", of_both(Totals::dropped)),
            ("malformed", totals.malformed()),
            ("later fragments", totals.later_fragments()),
        ];
        let by_reason = Reason::ALL.map(|reason| (reason, totals.dropped_for(reason)));
        let mut rules = Vec::new();
        for (slot, rule) in self.store.rules()? {
            let hits = self.filter.rule_hits(slot)?;
            if hits.hits > 0 {
                rules.push(RuleStats {
                    rule,
                    packets: hits.hits,
                    last_hit: self.wall_of_boot_s(hits.last_s),
                });
            }
        }
        rules.sort_by(|a, b| b.packets.cmp(&a.packets).then_with(|| a.rule.cmp(&b.rule)));
        rules.truncate(RULES_SHOWN_MAX);
        Ok(EdgeStats {
            packets: packets.map(|(name, count)| (name.to_owned(), count)).into(),
            dropped_by_reason: by_reason
                .into_iter()
                .filter(|(_, count)| *count > 0)
                .map(|(reason, count)| (reason.name().to_owned(), count))
                .collect::<BTreeMap<_, _>>(),
            rules,
        })
    }

    pub(super) fn wall_of_boot_s(&self, boot_s: u64) -> Option<Time> {
        let now = self.now();
        let ago_ms = now.boot_ms.saturating_sub(boot_s.saturating_mul(1000));
        (boot_s != 0).then(|| Time(now.wall_ms.saturating_sub(ago_ms) / 1000))
    }

    /// What the maps answer for a packet, what the lists call for, and every row that has a say.
    pub fn explain(&self, query: &ExplainQuery) -> Result<EdgeExplain, Problem> {
        let now = self.now();
        let source = prefix::host(query.address);
        let class = Scope::of_tcp_port(query.port);
        let found = self.filter.verdict(source.addr(), class, now.boot_s())?;
        let verdict = told(&found);
        let decided_by = found.entry().and_then(|entry| {
            IpNet::new(source.addr(), entry.prefix_len).ok().map(|net| net.trunc())
        });
        let feeds = self.explain_feeds(source.addr(), class)?;
        let of_rows = self.desired_verdict(source, class, now.wall_s());
        let desired = match (of_rows, verdict_of(&feeds)) {
            (PacketVerdict::Allowed, _) | (_, PacketVerdict::Allowed) => PacketVerdict::Allowed,
            (PacketVerdict::Pass, of_feeds) => of_feeds,
            (of_rows, _) => of_rows,
        };
        let mut rows = Vec::new();
        for list in List::ALL {
            for (prefix, _) in self.desired.covering(list, source, now.wall_s()) {
                for row in self.store.rows_on((list, prefix))? {
                    let hits = self.filter.rule_hits(self.store.slot_of(&row.rule)?)?;
                    let in_scope = row.scope.intersects(class);
                    rows.push(ExplainRow { list, row, in_scope, packets: hits.hits });
                }
            }
        }
        Ok(EdgeExplain {
            address: source.addr(),
            port: query.port,
            mode: self.filter.attachment().mode.name().to_owned(),
            verdict,
            decided_by,
            desired,
            agrees: (verdict == PacketVerdict::Denied) == (desired == PacketVerdict::Denied),
            rows,
            feeds,
            bans: self.bans_counted(network_of(query.address), now)?,
        })
    }

    /// What becomes of a connection that the relay has accepted, counted as the kernel counts.
    pub fn judge(&mut self, query: &ExplainQuery) -> Result<Judged, Problem> {
        let class = Scope::of_tcp_port(query.port);
        let found = self.filter.judge(query.address, class, self.now().boot_s())?;
        Ok(Judged { verdict: told(&found) })
    }

    /// The lists' own answer: allow beats deny, and any live entry that covers the source counts.
    fn desired_verdict(&self, source: IpNet, class: Scope, wall_s: u64) -> PacketVerdict {
        let speaks = |list| {
            self.desired.covering(list, source, wall_s).any(|(_, c)| c.scope.intersects(class))
        };
        if speaks(List::Allow) {
            PacketVerdict::Allowed
        } else if speaks(List::Deny) {
            PacketVerdict::Denied
        } else {
            PacketVerdict::Pass
        }
    }
}

fn told(verdict: &Verdict) -> PacketVerdict {
    match verdict {
        Verdict::Unguarded | Verdict::Clean => PacketVerdict::Pass,
        Verdict::Allowed(_) => PacketVerdict::Allowed,
        Verdict::Observed(_) => PacketVerdict::Observed,
        Verdict::Denied(_) => PacketVerdict::Denied,
    }
}

impl From<FilterError> for Problem {
    fn from(error: FilterError) -> Self {
        Self::new(Code::Filter, error.to_string())
    }
}
