//! What the edge says about itself: status, stats, and why an address passes or not.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use relay_common::entry::{List, Reason, Scope};
use relay_common::parse::Family;
use relay_common::totals::{Counter, Totals};
use relay_common::verdict::Verdict;
use relay_core::ban::network_of;
use relay_core::prefix;

use super::desired::Claim;
use super::feeds::verdict_of;
use super::filter::{Attachment, Filter, FilterError, Mode, State};
use super::state::Edge;
use super::store::{RULE_SLOT_MAX, RULE_SLOT_OTHER};
use crate::control::api::{
    Code, EdgeExplain, EdgeStats, EdgeStatus, ExplainQuery, ExplainRow, Health, InterfaceStatus,
    Judged, PacketVerdict, Problem, Row, RuleStats, Time,
};

/// Rules in one answer to `stats`.
const RULES_SHOWN_MAX: usize = 100;

impl<F: Filter> Edge<F> {
    pub fn status(&self) -> Result<EdgeStatus, Problem> {
        let now = self.now();
        let attachments = self.filter.attachments();
        let by_source = self.store.count_by_source()?;
        let sources = by_source.into_iter().map(|(list, of)| (list.name().to_owned(), of));
        let rules = self.store.rules()?.len() as u64;
        let guarded = self.guarded();
        Ok(EdgeStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            time: Time(now.wall_s()),
            started: Time(self.started_s),
            mode: mode_of(&attachments).name().to_owned(),
            interfaces: attachments.into_iter().filter_map(interface_status).collect(),
            entries: List::ALL
                .map(|list| (list.name().to_owned(), self.desired.count(list)))
                .into(),
            sources: sources.collect(),
            observe: self.settings.modes.observes,
            syn_rate: self.settings.modes.syn.map_or(0, |limit| limit.per_s),
            guarded: if guarded == Scope::NONE { "nothing".into() } else { guarded.to_string() },
            live_bans: self.store.live_bans(now.wall_s())?,
            rules,
            rules_exhausted: rules >= u64::from(RULE_SLOT_MAX),
            health: Health {
                pending: self.pending(),
                links_told: self.attachment.told(),
                ..self.health.clone()
            },
            links_unheard: self.attachment.news().lost().map(str::to_owned),
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
            ("dropped, limited", totals.limited()),
            ("passed, observed only", of_both(Totals::observed)),
            ("malformed", totals.malformed()),
            ("later fragments", totals.later_fragments()),
        ];
        let by_reason = |count: fn(&Totals, Reason) -> u64| -> BTreeMap<String, u64> {
            let counts = Reason::ALL.map(|reason| (reason, count(&totals, reason)));
            let counts = counts.into_iter().filter(|(_, count)| *count > 0);
            counts.map(|(reason, count)| (reason.name().to_owned(), count)).collect()
        };
        let events = [
            ("told", Counter::EventTold),
            ("left out", Counter::EventLeftOut),
            ("lost", Counter::EventLost),
        ];
        let events = events.map(|(name, counter)| (name.to_owned(), totals.get(counter)));
        let mut rules = Vec::new();
        for (slot, rule) in self.store.rules()? {
            let rule = self.rule_stats(slot, rule)?;
            if rule.packets + rule.observed > 0 {
                rules.push(rule);
            }
        }
        rules.sort_by(|a, b| {
            let packets = |rule: &RuleStats| rule.packets + rule.observed;
            packets(b).cmp(&packets(a)).then_with(|| a.rule.cmp(&b.rule))
        });
        rules.truncate(RULES_SHOWN_MAX);
        Ok(EdgeStats {
            packets: packets.map(|(name, count)| (name.to_owned(), count)).into(),
            dropped_by_reason: by_reason(Totals::dropped_for),
            observed_by_reason: by_reason(Totals::observed_for),
            events: events.into(),
            rules,
        })
    }

    fn rule_stats(&self, slot: u32, rule: String) -> Result<RuleStats, Problem> {
        let hits = self.filter.rule_hits(slot)?;
        let last_hit = self.wall_of_boot_s(hits.last_s);
        Ok(RuleStats { rule, packets: hits.hits, observed: hits.observed, last_hit })
    }

    /// What the rules of these rows did to packets: each is read once, however many rows it has.
    pub(super) fn rules_of(&self, rows: &[Row]) -> Result<Vec<RuleStats>, Problem> {
        let names: BTreeSet<&str> = rows.iter().map(|row| row.rule.as_str()).collect();
        let mut rules = Vec::with_capacity(names.len());
        for name in names {
            let slot = self.store.slot_of(name)?;
            if slot != RULE_SLOT_OTHER {
                rules.push(self.rule_stats(slot, name.to_owned())?);
            }
        }
        Ok(rules)
    }

    /// What the rules of these counter slots are called.
    pub fn rule_names(&self, slots: &[u32]) -> Result<Vec<(u32, String)>, Problem> {
        let mut names = Vec::with_capacity(slots.len());
        for &slot in slots {
            names.extend(self.store.rule_of(slot)?.map(|name| (slot, name)));
        }
        Ok(names)
    }

    pub(super) fn wall_of_boot_s(&self, boot_s: i64) -> Option<Time> {
        self.now().wall_s_at(boot_s).map(Time)
    }

    /// What the maps answer for a packet, what the lists call for, and every row that has a say.
    /// Where the two differ, the maps are soon made to agree.
    pub fn explain(&mut self, query: &ExplainQuery) -> Result<EdgeExplain, Problem> {
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
                    let (packets, observed) = (hits.hits, hits.observed);
                    rows.push(ExplainRow { list, row, in_scope, packets, observed });
                }
            }
        }
        // The limit is asked of what no entry speaks about.
        let limited = verdict == PacketVerdict::Pass && class.intersects(Scope::SMTP);
        let limit = self.settings.modes.syn.filter(|_| limited);
        let agrees = bite(verdict) == bite(desired);
        if !agrees {
            self.reconcile_soon(now);
        }
        Ok(EdgeExplain {
            address: source.addr(),
            port: query.port,
            mode: mode_of(&self.filter.attachments()).name().to_owned(),
            verdict,
            decided_by,
            desired,
            agrees,
            rows,
            feeds,
            bans: self.bans_counted(network_of(query.address), now)?,
            syn_rate: limit.map_or(0, |limit| limit.per_s),
        })
    }

    /// What becomes of a connection that the relay has accepted, counted as the kernel counts.
    pub fn judge(&mut self, query: &ExplainQuery) -> Result<Judged, Problem> {
        let found = self.filter.judge(query.address, query.port, self.now().boot_s())?;
        Ok(Judged { verdict: told(&found) })
    }

    /// The lists' own answer: allow beats deny, and any live entry that covers the source counts.
    fn desired_verdict(&self, source: IpNet, class: Scope, wall_s: u64) -> PacketVerdict {
        let any = |list, said: fn(&Claim) -> Scope| {
            self.desired.covering(list, source, wall_s).any(|(_, it)| said(&it).intersects(class))
        };
        if any(List::Allow, |claim| claim.scope) {
            PacketVerdict::Allowed
        } else if any(List::Deny, |claim| claim.scope) && !self.settings.modes.observes {
            PacketVerdict::Denied
        } else if any(List::Deny, Claim::speaks) {
            PacketVerdict::Observed
        } else {
            PacketVerdict::Pass
        }
    }
}

/// The one word for all interfaces: that of the one which is worst off. One that is not there lets
/// nobody in.
pub(super) fn mode_of(attachments: &[Attachment]) -> Mode {
    let rank = |mode: &Mode| match mode {
        Mode::Native => 0,
        Mode::Generic => 1,
        Mode::Memory => 2,
        Mode::Detached => 3,
    };
    let there = attachments.iter().filter(|of| of.state != State::Missing);
    there.map(|of| of.mode).max_by_key(rank).unwrap_or(Mode::Detached)
}

pub(super) fn interface_status(attachment: Attachment) -> Option<InterfaceStatus> {
    Some(InterfaceStatus {
        name: attachment.interface?,
        called: attachment.called,
        mode: attachment.mode.name().to_owned(),
        state: attachment.state.name().to_owned(),
        program_id: attachment.program_id,
    })
}

/// What a verdict does to a packet.
fn bite(verdict: PacketVerdict) -> u8 {
    match verdict {
        PacketVerdict::Pass | PacketVerdict::Allowed => 0,
        PacketVerdict::Observed => 1,
        PacketVerdict::Denied => 2,
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
