//! The program in the kernel says what the pure verdict says, to every frame.

use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use relay_common::entry::{Entry, List, Reason, Scope};
use relay_common::totals::Counter;

use crate::frames::{
    AUTHENTICATION, DESTINATION, FRAGMENT, Frame, HOP_BY_HOP, ICMPV6, ROUTING, UDP,
};
use crate::oracle::{Checked, Line};

const V4: &str = "192.0.2.77";
const V6: &str = "2001:db8:7::77";
/// The kernel refuses to test frames without a whole Ethernet header.
const SHORTEST: usize = 14;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn line(list: List, prefix: &str, scope: Scope) -> Line {
    let prefix: IpNet = prefix.parse().unwrap();
    let entry = Entry { prefix_len: prefix.prefix_len(), ..Entry::new(scope, Reason::Dnsbl, 1) };
    (list, prefix, entry)
}

/// Everybody is denied port 25, so whatever is read wrongly shows.
fn all_denied_mx() -> Checked {
    let lines = vec![line(List::Deny, "0.0.0.0/0", Scope::MX), line(List::Deny, "::/0", Scope::MX)];
    Checked::new(lines, Scope::MX)
}

#[test]
fn every_truncation_at_every_vlan_depth() {
    let mut checked = all_denied_mx();
    for source in [V4, V6] {
        for depth in 0..=3 {
            for tag in [0x8100, 0x88a8] {
                let frame = Frame { tags: vec![tag; depth], ..Frame::tcp(ip(source), 25) };
                let bytes = frame.bytes();
                for length in SHORTEST..bytes.len() {
                    checked.frame(&bytes[..length], &(&frame, length));
                }
                assert_eq!(checked.frame(&bytes, &frame), depth <= 2, "{frame:?}");
            }
        }
    }
    let totals = checked.finish();
    for kind in relay_common::parse::Malformed::ALL {
        use relay_common::parse::Malformed::{BadIpv4, BadIpv6, ShortExtension, TooManyExtensions};
        let other = [BadIpv4, BadIpv6, ShortExtension, TooManyExtensions].contains(&kind);
        assert_eq!(totals.get(Counter::Malformed(kind)) > 0, !other, "{kind:?}");
    }
}

#[test]
fn every_ipv4_header_length_and_version() {
    let mut checked = all_denied_mx();
    for ihl in 0..=15 {
        for version in 0..=15 {
            let frame = Frame { ihl, version: Some(version), ..Frame::tcp(ip(V4), 25) };
            let bytes = frame.bytes();
            assert_eq!(checked.frame(&bytes, &frame), ihl >= 5 && version == 4, "{frame:?}");
            for length in SHORTEST..bytes.len() {
                checked.frame(&bytes[..length], &(&frame, length));
            }
        }
    }
    for version in 0..=15 {
        let frame = Frame { version: Some(version), ..Frame::tcp(ip(V6), 25) };
        assert_eq!(checked.frame(&frame.bytes(), &frame), version == 6);
    }
    checked.finish();
}

#[test]
fn ports_and_protocols() {
    let mut checked = all_denied_mx();
    for source in [V4, V6] {
        for port in [25, 465, 587, 22, 80, 0, 65_535, 0x1900] {
            let frame = Frame::tcp(ip(source), port);
            assert_eq!(checked.frame(&frame.bytes(), &frame), port == 25);
        }
        for protocol in 0..=255 {
            let frame = Frame { protocol, ..Frame::tcp(ip(source), 25) };
            checked.frame(&frame.bytes(), &frame);
        }
    }
    for ethertype in [0x0806u16, 0x88cc, 0x9100, 0x0000, 0x05dc, 0xffff] {
        let mut bytes = Frame::tcp(ip(V4), 25).bytes();
        bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
        assert!(!checked.frame(&bytes, &ethertype));
    }
    let totals = checked.finish();
    assert_eq!(totals.get(Counter::NotIp), 6);
}

#[test]
fn extension_header_chains() {
    let mut checked = all_denied_mx();
    let kinds = [HOP_BY_HOP, ROUTING, DESTINATION, AUTHENTICATION, FRAGMENT, 135, 139, 140];
    for depth in 0..=10 {
        for shift in 0..kinds.len() {
            let extensions =
                (0..depth).map(|i| (kinds[(i + shift) % kinds.len()], i * 5)).collect();
            let frame = Frame { extensions, ..Frame::tcp(ip(V6), 25) };
            let bytes = frame.bytes();
            // Beyond eight the port is hidden, which must not help who is denied any.
            assert!(checked.frame(&bytes, &frame), "{frame:?}");
            for length in (SHORTEST..bytes.len()).step_by(3) {
                checked.frame(&bytes[..length], &(&frame, length));
            }
        }
    }
    // Who is not denied passes, and is counted.
    let mut of_others =
        Checked::new(vec![line(List::Deny, "2001:db8:ff::/48", Scope::MX)], Scope::MX);
    let frame = Frame { extensions: vec![(DESTINATION, 8); 9], ..Frame::tcp(ip(V6), 25) };
    assert!(!of_others.frame(&frame.bytes(), &frame));
    let kind = relay_common::parse::Malformed::TooManyExtensions;
    assert_eq!(of_others.finish().get(Counter::Malformed(kind)), 1);
    // The longest chain there can be, and what hides behind protocols that are no extensions.
    let extensions = vec![(DESTINATION, 255 * 8); 1];
    let frame = Frame { extensions, ..Frame::tcp(ip(V6), 25) };
    assert!(checked.frame(&frame.bytes(), &frame));
    for end in [50, 59, UDP, ICMPV6] {
        let extensions = vec![(HOP_BY_HOP, 8), (end, 8)];
        let frame = Frame { extensions, ..Frame::tcp(ip(V6), 25) };
        assert!(!checked.frame(&frame.bytes(), &frame));
    }
    checked.finish();
}

#[test]
fn fragments() {
    let mut checked = all_denied_mx();
    for flags in [0x0000u16, 0x2000, 0x4000, 0x8000] {
        for offset in [0u16, 1, 2, 0x0fff, 0x1fff] {
            let frame = Frame { fragment_offset: flags | offset, ..Frame::tcp(ip(V4), 25) };
            assert_eq!(checked.frame(&frame.bytes(), &frame), offset == 0);
            let frame = Frame {
                fragment_offset: offset,
                extensions: vec![(HOP_BY_HOP, 8), (FRAGMENT, 0), (DESTINATION, 16)],
                ..Frame::tcp(ip(V6), 25)
            };
            assert_eq!(checked.frame(&frame.bytes(), &frame), offset == 0);
        }
    }
    let totals = checked.finish();
    assert_eq!(totals.later_fragments(), 32);
}

#[test]
fn a_v4_mapped_source_is_ipv6_on_the_wire_and_counted() {
    let mut checked = Checked::new(vec![line(List::Deny, "192.0.2.0/24", Scope::MX)], Scope::MX);
    let frame = Frame::tcp(ip("::ffff:192.0.2.1"), 25);
    assert!(!checked.frame(&frame.bytes(), &frame));
    assert_eq!(checked.finish().get(Counter::V4Mapped), 1);
}

#[test]
fn a_chain_of_nested_expired_prefixes_hides_nothing() {
    for (source, bits) in [(V4, 32), (V6, 128)] {
        let mut lines = vec![];
        for prefix_len in 1..=bits {
            let prefix = IpNet::new(ip(source), prefix_len).unwrap().trunc();
            let entry =
                Entry { expires_s: 1, prefix_len, ..Entry::new(Scope::ALL, Reason::NeverRoute, 9) };
            lines.push((List::Deny, prefix, entry));
            lines.push((List::Allow, prefix, entry));
        }
        let everyone = if bits == 32 { "0.0.0.0/0" } else { "::/0" };
        lines.push(line(List::Deny, everyone, Scope::ALL));
        let mut checked = Checked::new(lines, Scope::ALL);
        let frame = Frame::tcp(ip(source), 25);
        assert!(checked.frame(&frame.bytes(), &frame));
        checked.finish();
    }
}

#[test]
fn random_bytes_behind_plausible_beginnings() {
    let mut checked = all_denied_mx();
    let beginnings = prop_oneof![
        Just(vec![]),
        Just(vec![0x08, 0x00]),
        Just(vec![0x08, 0x00, 0x45]),
        Just(vec![0x86, 0xdd]),
        Just(vec![0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 0]),
        Just(vec![0x81, 0x00, 0, 1]),
        Just(vec![0x88, 0xa8, 0, 1, 0x81, 0x00, 0, 1]),
    ];
    let frames = (beginnings, proptest::collection::vec(any::<u8>(), 2..600));
    let mut runner = TestRunner::new(Config { cases: 6_000, ..Config::default() });
    let cell = std::cell::RefCell::new(&mut checked);
    runner
        .run(&frames, |(beginning, rest)| {
            let mut frame = vec![2; 12];
            frame.extend(beginning);
            frame.extend(rest);
            cell.borrow_mut().frame(&frame, &"random");
            Ok(())
        })
        .unwrap();
    checked.finish();
}
