//! The feeds' tables as the kernel holds and asks them, and an oracle that knows only the feeds.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use relay_common::control::{Control, Kind, Table};
use relay_common::entry::{Entry, List, Scope};
use relay_common::parse::{Family, Packet, Source};
use relay_common::touch::Touch;
use relay_common::verdict::{Lists, Verdict, decide};

use crate::feed::prefixes::{Builder, Prefixes};
use crate::feed::resolve::{Feed, FeedClaim, Tally, kind_of, resolve};

pub(super) const NOW_S: u32 = 1_000;
pub(super) const CLASSES: [Scope; 4] =
    [Scope::MX, Scope::of_tcp_port(587), Scope::of_tcp_port(22), Scope::of_other_protocol()];

pub(super) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(super) fn prefixes(nets: &[IpNet]) -> Prefixes {
    let mut builder = Builder::new(nets.len());
    for &net in nets {
        builder.push(net).unwrap();
    }
    builder.finish().0
}

/// A feed with its prefixes as they were published.
#[derive(Clone, Debug)]
pub(super) struct Published {
    pub(super) nets: Vec<IpNet>,
    pub(super) list: List,
    pub(super) claim: FeedClaim,
}

impl Published {
    pub(super) fn says(&self, list: List, address: IpAddr) -> bool {
        self.list == list && self.nets.iter().any(|net| net.contains(&address))
    }
}

/// The feeds' tables as the kernel holds and asks them.
pub(super) struct Tables {
    pub(super) entries: HashMap<(Kind, IpNet), Entry>,
    /// Lengths of any entry, the longest first.
    lens: Vec<u8>,
    pub(super) now_s: u32,
}

impl Tables {
    pub(super) fn of(published: &[Published]) -> Self {
        let sets: Vec<Prefixes> = published.iter().map(|feed| prefixes(&feed.nets)).collect();
        let feed = |(feed, prefixes): (&Published, _)| Feed {
            prefixes,
            list: feed.list,
            claim: feed.claim,
        };
        let feeds: Vec<Feed> = published.iter().zip(&sets).map(feed).collect();
        let resolved: Vec<_> = resolve(&feeds, NOW_S).collect();
        let mut entries = HashMap::new();
        for &(list, net, entry) in &resolved {
            assert_eq!(entry.prefix_len, net.prefix_len());
            assert!(entry.is_live(NOW_S) && !entry.scope.intersects(entry.observed));
            assert!(entry.scope.union(entry.observed) != Scope::NONE);
            let twice = entries.insert((kind_of(list, net), net), entry);
            assert!(twice.is_none(), "{net} twice");
        }
        assert_eq!(resolved.iter().collect::<Tally>().total(), entries.len());
        let mut lens: Vec<u8> = entries.keys().map(|(_, net)| net.prefix_len()).collect();
        lens.sort_unstable_by(|a, b| b.cmp(a));
        lens.dedup();
        Self { entries, lens, now_s: NOW_S }
    }

    fn get(&self, kind: Kind, source: &Source, len: u8) -> Option<Entry> {
        let net = IpNet::new((*source).into(), len).ok()?.trunc();
        self.entries.get(&(kind, net)).copied()
    }

    pub(super) fn verdict(&self, address: IpAddr, class: Scope) -> Verdict {
        let mut control = Control::default().with_guarded(Scope::ALL);
        for (kind, family) in Kind::ALL.into_iter().flat_map(|k| Family::ALL.map(|f| (k, f))) {
            control = control.with_used(Table::Feeds, kind, family, true);
        }
        decide(self, control, &Packet::of_class(address.into(), class))
    }
}

impl Lists for Tables {
    fn touched(&self, _: &Source) -> Touch {
        Touch::ANY
    }

    fn host(&self, table: Table, source: &Source) -> Option<Entry> {
        assert_eq!(table, Table::Feeds);
        self.get(Kind::Hosts, source, source.family().host_len())
    }

    fn longest(&self, table: Table, list: List, source: &Source, len: u8) -> Option<Entry> {
        assert_eq!((table, len), (Table::Feeds, source.family().bits()));
        let kind = if list == List::Allow { Kind::Allow } else { Kind::Deny };
        self.lens.iter().find_map(|&len| self.get(kind, source, len))
    }

    fn now_s(&self) -> u32 {
        self.now_s
    }
}

/// What becomes of a packet, without who decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Clean,
    Allowed,
    Observed,
    Denied,
}

pub(super) fn fate(verdict: &Verdict) -> Fate {
    match verdict {
        Verdict::Clean | Verdict::Unguarded => Fate::Clean,
        Verdict::Allowed(_) => Fate::Allowed,
        Verdict::Observed(_) => Fate::Observed,
        Verdict::Denied(_) => Fate::Denied,
    }
}

/// The oracle: no lengths, no order, every feed asked.
pub(super) fn said(feeds: &[Published], address: IpAddr, class: Scope, now_s: u32) -> Fate {
    let any = |list, scope: fn(&FeedClaim) -> Scope| {
        feeds.iter().any(|feed| {
            let claim = &feed.claim;
            feed.says(list, address) && claim.is_live(now_s) && scope(claim).intersects(class)
        })
    };
    if any(List::Allow, |claim| claim.scope) {
        Fate::Allowed
    } else if any(List::Deny, |claim| claim.scope) {
        Fate::Denied
    } else if any(List::Deny, |claim| claim.observed) {
        Fate::Observed
    } else {
        Fate::Clean
    }
}
