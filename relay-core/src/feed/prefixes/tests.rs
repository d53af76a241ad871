use proptest::prelude::*;

use super::*;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn set(texts: &[&str]) -> (Prefixes, Counts) {
    let mut builder = Builder::new(1_000);
    for text in texts {
        builder.push(net(text)).unwrap();
    }
    builder.finish()
}

#[track_caller]
fn check(texts: &[&str], expected: &[&str]) {
    let (prefixes, counts) = set(texts);
    let found: Vec<String> = prefixes.iter().map(|net| net.to_string()).collect();
    assert_eq!(found, expected);
    assert_eq!(counts.read, texts.len());
    assert_eq!(counts.entries(), expected.len());
    assert_eq!(counts.v4, prefixes.len_v4());
}

#[test]
fn what_is_said_twice_is_kept_once() {
    check(&["192.0.2.7/32", "192.0.2.7/32"], &["192.0.2.7/32"]);
    check(&["192.0.2.7/32", "192.0.2.0/24", "192.0.2.128/25"], &["192.0.2.0/24"]);
    check(&["10.0.0.0/8", "2001:db8::1/128", "0.0.0.0/0", "::/0"], &["0.0.0.0/0", "::/0"]);
    check(&[], &[]);
}

#[test]
fn halves_are_joined_again_and_again() {
    check(&["192.0.2.128/25", "192.0.2.0/25"], &["192.0.2.0/24"]);
    check(&["192.0.2.0/26", "192.0.2.64/26", "192.0.2.128/25"], &["192.0.2.0/24"]);
    check(&["192.0.2.3/32", "192.0.2.0/32", "192.0.2.2/32", "192.0.2.1/32"], &["192.0.2.0/30"]);
    check(&["0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"], &["0.0.0.0/0", "::/0"]);
    check(&["2001:db8::/128", "2001:db8::1/128"], &["2001:db8::/127"]);
    // Neighbours, but of two different wholes.
    check(&["192.0.2.1/32", "192.0.2.2/32"], &["192.0.2.1/32", "192.0.2.2/32"]);
}

#[test]
fn ipv4_in_ipv6_form_is_ipv4_and_host_bits_do_not_count() {
    check(&["::ffff:192.0.2.0/121", "192.0.2.128/25"], &["192.0.2.0/24"]);
    check(&["192.0.2.9/24", "2001:db8::9/64"], &["192.0.2.0/24", "2001:db8::/64"]);
    let (prefixes, _) = set(&["192.0.2.0/24"]);
    let mapped = "::ffff:192.0.2.1".parse().unwrap();
    assert_eq!(prefixes.covering(mapped), Some(net("192.0.2.0/24")));
}

#[test]
fn the_prefix_over_the_limit_is_refused() {
    let mut builder = Builder::new(2);
    builder.push(net("192.0.2.1/32")).unwrap();
    builder.push(net("2001:db8::/32")).unwrap();
    let error = builder.push(net("192.0.2.1/32")).unwrap_err();
    assert_eq!(error, TooMany { entries_max: 2 });
    assert_eq!(builder.finish().1, Counts { read: 2, v4: 1, v6: 1 });
}

#[test]
fn a_prefix_takes_8_or_17_bytes() {
    assert_eq!((size_of::<V4>(), size_of::<V6>()), (8, 17));
}

#[test]
fn what_is_left_out_takes_nothing_else_with_it() {
    let said = ["10.0.0.0/8", "10.1.0.0/16", "192.0.2.0/25", "192.0.2.128/25", "2001:db8::/32"];
    let (whole, _) = set(&said);
    let over = |address: &str| whole.said_over(address.parse().unwrap());
    assert_eq!(over("10.1.2.3"), [net("10.0.0.0/8"), net("10.1.0.0/16")]);
    assert_eq!(over("192.0.2.200"), [net("192.0.2.128/25")]);
    assert_eq!(over("2001:db8::7"), [net("2001:db8::/32")]);
    assert_eq!(over("192.0.3.0"), []);
    let without = |texts: &[&str]| {
        let mut rest = whole.clone();
        rest.leave_out(&texts.iter().map(|text| net(text)).collect::<Vec<_>>());
        rest.iter().map(|net| net.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(without(&["10.0.0.0/8"]), ["10.1.0.0/16", "192.0.2.0/24", "2001:db8::/32"]);
    assert_eq!(
        without(&["192.0.2.0/25", "2001:db8::/32", "10.1.0.0/16"]),
        ["10.0.0.0/8", "192.0.2.128/25"]
    );
    // Nobody has said that.
    assert_eq!(without(&["192.0.2.0/24"]), ["10.0.0.0/8", "192.0.2.0/24", "2001:db8::/32"]);
}

/// Addresses are 8 bits here, spread to the top and the bottom of the family's range.
fn spread(v4: bool, address: u8, len: u8) -> IpNet {
    let (address, len) = (u128::from(address), u32::from(len));
    if v4 {
        let bits = (address as u32 >> 4) << 28 | (address as u32 & 15);
        let len = if len <= 4 { len } else { 24 + len };
        net(&format!("{}/{}", std::net::Ipv4Addr::from(bits), len)).trunc()
    } else {
        let bits = (address >> 4) << 124 | (address & 15);
        let len = if len <= 4 { len } else { 120 + len };
        net(&format!("{}/{}", std::net::Ipv6Addr::from(bits), len)).trunc()
    }
}

proptest! {
    #[test]
    fn the_set_covers_the_same_addresses_and_is_the_smallest(
        parts in prop::collection::vec((any::<bool>(), any::<u8>(), 0u8..=8), 0..60),
    ) {
        let nets: Vec<IpNet> =
            parts.iter().map(|&(v4, address, len)| spread(v4, address, len)).collect();
        let mut builder = Builder::new(nets.len());
        for &net in &nets {
            builder.push(net).unwrap();
        }
        let (prefixes, _) = builder.finish();
        let found: Vec<IpNet> = prefixes.iter().collect();
        let keys: Vec<_> = found.iter().map(|net| (net.addr(), net.prefix_len())).collect();
        prop_assert!(keys.is_sorted());
        for (v4, address) in [true, false].into_iter().flat_map(|v4| (0..=255).map(move |a| (v4, a))) {
            let probe = spread(v4, address, 8).addr();
            let expected = nets.iter().any(|net| net.contains(&probe));
            let covering: Vec<_> = found.iter().filter(|net| net.contains(&probe)).collect();
            // At most one: none lies within another.
            prop_assert_eq!(covering.len(), usize::from(expected));
            prop_assert_eq!(prefixes.covering(probe), covering.first().map(|&&net| net));
        }
        // No two make up a whole.
        for pair in found.windows(2) {
            let whole = pair[0].supernet().filter(|whole| pair[1].supernet() == Some(*whole));
            prop_assert!(whole.is_none(), "{:?}", pair);
        }
        for &net in &nets {
            prop_assert!(prefixes.contains(net));
            prop_assert_eq!(
                net.supernet().map(|wider| prefixes.contains(wider)),
                net.supernet().map(|wider| found.iter().any(|kept| kept.contains(&wider)))
            );
        }
    }

    #[test]
    fn without_some_of_what_was_said_the_set_is_that_of_the_rest(
        parts in prop::collection::vec((any::<bool>(), any::<u8>(), 0u8..=8, any::<bool>()), 0..40),
    ) {
        let of = |nets: &mut dyn Iterator<Item = IpNet>| {
            let mut builder = Builder::new(parts.len());
            nets.for_each(|net| builder.push(net).unwrap());
            builder.finish().0
        };
        let nets: Vec<(IpNet, bool)> =
            parts.iter().map(|&(v4, address, len, out)| (spread(v4, address, len), out)).collect();
        let mut set = of(&mut nets.iter().map(|(net, _)| *net));
        prop_assert_eq!(of(&mut set.said()), set.clone());
        for address in (0..=255).map(|address| spread(true, address, 8).addr()) {
            let mut over: Vec<IpNet> =
                nets.iter().map(|(net, _)| *net).filter(|net| net.contains(&address)).collect();
            over.sort_by_key(IpNet::prefix_len);
            over.dedup();
            prop_assert_eq!(set.said_over(address), over);
        }
        let gone: Vec<IpNet> = nets.iter().filter(|(_, out)| *out).map(|(net, _)| *net).collect();
        let stays = |net: &IpNet| !gone.contains(net);
        let rest = of(&mut nets.iter().map(|(net, _)| *net).filter(stays));
        set.leave_out(&gone);
        prop_assert_eq!(set, rest);
    }

    #[test]
    fn full_range_prefixes_agree_with_the_library(
        parts in prop::collection::vec((any::<u128>(), 0u8..=128, any::<bool>()), 0..40),
    ) {
        let nets: Vec<IpNet> = parts.into_iter().map(|(bits, len, v4)| {
            let address: IpAddr = if v4 { IpAddr::V4((bits as u32).into()) } else { IpAddr::V6(bits.into()) };
            IpNet::new(address, if v4 { len % 33 } else { len }).unwrap().trunc()
        }).map(crate::prefix::canonical_net).collect();
        let mut builder = Builder::new(nets.len());
        for &net in &nets {
            builder.push(net).unwrap();
        }
        let mut expected = IpNet::aggregate(&nets);
        expected.sort_by_key(|net| (net.addr(), net.prefix_len()));
        let found: Vec<IpNet> = builder.finish().0.iter().collect();
        prop_assert_eq!(found, expected);
    }
}
