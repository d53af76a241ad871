//! The lists as plain lines, judged without tries, walks or prefix lengths: is there any entry in
//! force that matches?

use ipnet::IpNet;
use postern::edge::clock::boottime_s;
use postern::edge::filter::Filter;
use postern::edge::kernel::Probe;
use relay_common::entry::{Entry, List, Scope};
use relay_common::parse::{self, Source};
use relay_common::totals::{Counter, Totals, is_v4_mapped};

pub(crate) type Line = (List, IpNet, Entry);

/// A program with these lines in its maps, and what it should say to any frame.
pub(crate) struct Checked {
    probe: Probe,
    lines: Vec<Line>,
    guarded: Scope,
    expected: Totals,
}

impl Checked {
    pub(crate) fn new(lines: Vec<Line>, guarded: Scope) -> Self {
        let mut checked =
            Self { probe: crate::probe(), lines, guarded, expected: Totals::default() };
        let filter = &mut checked.probe.filter;
        for (list, prefix, entry) in &checked.lines {
            filter.put(*list, *prefix, *entry).unwrap();
        }
        filter.set_guarded(guarded).unwrap();
        checked
    }

    /// Gives the frame to the kernel, and to the oracle; returns whether both drop it.
    pub(crate) fn frame(&mut self, frame: &[u8], what: &dyn std::fmt::Debug) -> bool {
        let (drops, counter) = self.oracle(frame);
        let outcome = self.probe.run(frame, 1).unwrap();
        assert_eq!(outcome.drops, drops, "{counter:?}: {what:?} {frame:02x?}");
        self.expected.add(counter, 1);
        drops
    }

    /// What the program counted is what was expected of it, counter by counter.
    pub(crate) fn finish(self) -> Totals {
        let counted = self.probe.filter.totals().unwrap();
        assert_eq!(counted, self.expected);
        counted
    }

    fn oracle(&mut self, frame: &[u8]) -> (bool, Counter) {
        let packet = match parse::parse(frame) {
            Ok(packet) => packet,
            Err(why) => return (false, Counter::of_unjudged(why)),
        };
        if is_v4_mapped(&packet.source) {
            self.expected.add(Counter::V4Mapped, 1);
        }
        let family = packet.source.family();
        let tcp = packet.class != Scope::of_other_protocol();
        let hidden = Counter::Malformed(parse::Malformed::TooManyExtensions);
        let passed = |why| {
            let counter = Counter::Passed { family, tcp, why };
            (false, if packet.class == Scope::TCP { hidden } else { counter })
        };
        use relay_common::totals::Pass;
        if !self.guarded.intersects(packet.class) {
            return passed(Pass::Unguarded);
        }
        if self.best(List::Allow, packet.source, packet.class).is_some() {
            return passed(Pass::Allowed);
        }
        match self.best(List::Deny, packet.source, packet.class) {
            Some(entry) => (true, Counter::Dropped { family, reason: entry.reason }),
            None => passed(Pass::Clean),
        }
    }

    fn best(&self, list: List, source: Source, class: Scope) -> Option<Entry> {
        let now_s = boottime_s();
        let address: std::net::IpAddr = match source {
            Source::V4(octets) => octets.into(),
            Source::V6(octets) => octets.into(),
        };
        let in_force = self.lines.iter().filter(|(of, prefix, entry)| {
            *of == list
                && prefix.contains(&address)
                && entry.is_live(now_s)
                && entry.scope.intersects(class)
        });
        // A denied host is named before every prefix.
        let host_len = source.family().host_len();
        let rank = |len: u8| (list == List::Deny && len == host_len, len);
        in_force.max_by_key(|(_, prefix, _)| rank(prefix.prefix_len())).map(|(_, _, entry)| *entry)
    }
}
