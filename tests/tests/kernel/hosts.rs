//! Denied hosts beyond what their packed table has room for: lines that are full, and more
//! different denials than there are numbers for.

use std::net::IpAddr;

use ipnet::IpNet;
use postern::edge::filter::{Filter, FilterError, MapSizes};
use postern::edge::kernel::Probe;
use relay_common::entry::{Entry, List, Reason, Scope};
use relay_common::packed::{self, Lines, Place};
use relay_common::parse::{Family, Source};

use crate::frames::Frame;

const ROOM: u32 = 100_000;
/// Somewhere in the middle of either table.
const LINE: u32 = 77;

fn probe() -> Probe {
    let sizes = MapSizes { allow: 1, deny: ROOM, feeds_allow: 1, feeds_deny: ROOM };
    let mut probe = Probe::load(sizes).unwrap_or_else(|error| panic!("{error}"));
    probe.filter.set_guarded(Scope::MX).unwrap();
    probe
}

fn net(source: Source) -> IpNet {
    IpNet::new(source.into(), source.family().host_len()).unwrap()
}

/// Hosts that all belong into one line.
fn of_one_line(family: Family, count: u64) -> Vec<IpNet> {
    let lines = Lines::for_entries(family, ROOM);
    let slot = |rest| if family == Family::V4 { rest } else { rest << 16 };
    let hosts = (0..count).map(|rest| packed::host_of(family, lines, LINE, slot(rest)));
    let hosts: Vec<Source> = hosts.collect();
    assert!(hosts.iter().all(|host| Place::of(host, lines).line == LINE));
    hosts.into_iter().map(net).collect()
}

fn entry(rule: u32) -> Entry {
    Entry::new(Scope::MX, Reason::Import, rule)
}

fn drops(probe: &mut Probe, host: &IpNet) -> bool {
    let frame = Frame::tcp(host.addr(), 25).bytes();
    let in_kernel = probe.run(&frame, 1).unwrap().drops;
    let asked = probe.filter.verdict(host.addr(), Scope::MX, 0).unwrap().drops();
    assert_eq!(in_kernel, asked, "{host}");
    in_kernel
}

#[test]
fn a_full_line_spills_and_nobody_is_lost() {
    for family in Family::ALL {
        let mut probe = probe();
        let hosts = of_one_line(family, 40);
        for (at, host) in hosts.iter().enumerate() {
            assert!(!drops(&mut probe, host), "{host} before it is denied");
            probe.filter.put(List::Deny, *host, entry(at as u32)).unwrap();
        }
        assert!(hosts.iter().all(|host| drops(&mut probe, host)));
        assert_eq!(probe.filter.entries(List::Deny).unwrap().len(), hosts.len());
        // Every second one goes; each other one says something else from now on.
        for (at, host) in hosts.iter().enumerate() {
            if at % 2 == 0 {
                assert!(probe.filter.remove(List::Deny, *host).unwrap());
                assert!(!probe.filter.remove(List::Deny, *host).unwrap());
            } else {
                probe.filter.put(List::Deny, *host, entry(1_000 + at as u32)).unwrap();
            }
        }
        for (at, host) in hosts.iter().enumerate() {
            assert_eq!(drops(&mut probe, host), at % 2 == 1, "{host}");
            let rule = probe.filter.get(List::Deny, *host).unwrap().map(|entry| entry.rule);
            assert_eq!(rule, (at % 2 == 1).then_some(1_000 + at as u32));
        }
    }
}

/// What the kernel itself takes a denial to say is seen by the port that it closes.
#[test]
fn hosts_of_a_line_share_what_is_said_of_them_until_one_differs() {
    for family in Family::ALL {
        let mut probe = probe();
        probe.filter.set_guarded(Scope::SMTP).unwrap();
        let (mx, smtp) = (entry(5), Entry { scope: Scope::SMTP, ..entry(6) });
        let closes_submission = |probe: &mut Probe, host: &IpNet| {
            probe.run(&Frame::tcp(host.addr(), 587).bytes(), 1).unwrap().drops
        };
        let hosts = of_one_line(family, 6);
        let put = |probe: &mut Probe, host: IpNet, entry| {
            probe.filter.put(List::Deny, host, entry).unwrap();
        };
        hosts.iter().for_each(|&host| put(&mut probe, host, mx));
        let mut said = [mx; 6];
        // One more than was said at first, one in place of another, one that comes back.
        for (at, says) in [(3, smtp), (3, mx), (4, smtp), (1, smtp), (4, mx)] {
            put(&mut probe, hosts[at], says);
            said[at] = says;
            for (host, says) in hosts.iter().zip(&said) {
                assert!(drops(&mut probe, host), "{host}");
                let rule = probe.filter.get(List::Deny, *host).unwrap().unwrap().rule;
                assert_eq!(rule, says.rule, "{host}");
                assert_eq!(closes_submission(&mut probe, host), says.scope == Scope::SMTP);
            }
        }
        for host in &hosts {
            assert!(probe.filter.remove(List::Deny, *host).unwrap());
        }
        put(&mut probe, hosts[2], smtp);
        for (at, host) in hosts.iter().enumerate() {
            assert_eq!(drops(&mut probe, host), at == 2, "{host}");
            assert_eq!(closes_submission(&mut probe, host), at == 2, "{host}");
        }
    }
}

#[test]
fn more_denials_than_numbers_for_them_are_all_in_force() {
    let mut probe = probe();
    let hosts = (0..ROOM).map(|n| net(Source::V4(0xc000_0000 + 37 * n)));
    let hosts: Vec<IpNet> = hosts.collect();
    let entries = |first: u32| -> Vec<(IpNet, Entry)> {
        (first..).zip(&hosts).map(|(rule, host)| (*host, entry(rule))).collect()
    };
    // Twice: the second time every number is out of use before it is taken again.
    for first in [1, 1_000_000] {
        probe.filter.put_all(List::Deny, &entries(first)).unwrap();
        let mut held = probe.filter.entries(List::Deny).unwrap();
        held.sort_by_key(|(_, entry)| entry.rule);
        let due = entries(first).into_iter();
        assert!(
            held.into_iter().eq(due.map(|(net, entry)| (net, Entry { prefix_len: 32, ..entry })))
        );
        for host in hosts.iter().step_by(997) {
            assert!(drops(&mut probe, host), "{host}");
        }
    }
    let one_more = net(Source::from(IpAddr::from([203, 0, 113, 1])));
    let refused = probe.filter.put(List::Deny, one_more, entry(9));
    assert!(matches!(refused, Err(FilterError::Full { capacity: ROOM, .. })), "{refused:?}");
    assert!(!drops(&mut probe, &one_more));
    // What is there can still be changed, and makes room when it goes.
    probe.filter.put(List::Deny, hosts[0], entry(9)).unwrap();
    assert!(probe.filter.remove(List::Deny, hosts[1]).unwrap());
    probe.filter.put(List::Deny, one_more, entry(9)).unwrap();
    assert!(drops(&mut probe, &one_more) && !drops(&mut probe, &hosts[1]));
}

#[test]
fn a_generation_is_cleared_with_what_it_spilled() {
    for family in Family::ALL {
        let mut probe = probe();
        let hosts = of_one_line(family, 40);
        let entries: Vec<_> = hosts.iter().map(|&host| (host, entry(3))).collect();
        for _ in 0..2 {
            probe.filter.feed_fill(List::Deny, &entries).unwrap();
            assert_eq!(probe.filter.feed_count().unwrap(), 40);
            probe.filter.feed_flip(Scope::MX).unwrap();
            assert!(hosts.iter().all(|host| drops(&mut probe, host)));
            // A line holds more than one step may take.
            while !probe.filter.feed_clear(3).unwrap() {}
            assert_eq!(probe.filter.feed_count().unwrap(), 0);
        }
        probe.filter.feed_flip(Scope::MX).unwrap();
        assert!(!hosts.iter().any(|host| drops(&mut probe, host)));
    }
}
