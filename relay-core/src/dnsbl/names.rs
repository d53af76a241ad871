//! The names that are asked: the address backwards under the zone (RFC 5782 section 2.1 and 2.4).

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::prefix::canonical_ip;

/// `1.2.0.192.zone` for 192.0.2.1, thirty-two nibbles for IPv6. An IPv4 address in IPv6 form is
/// asked as IPv4. Without a trailing dot.
pub fn query_name(address: IpAddr, zone: &str) -> String {
    match canonical_ip(address) {
        IpAddr::V4(v4) => v4_name(v4, zone),
        IpAddr::V6(v6) => v6_name(v6, zone),
    }
}

fn v4_name(address: Ipv4Addr, zone: &str) -> String {
    let [a, b, c, d] = address.octets();
    format!("{d}.{c}.{b}.{a}.{zone}")
}

fn v6_name(address: Ipv6Addr, zone: &str) -> String {
    let mut name = String::with_capacity(64 + zone.len());
    for byte in address.octets().into_iter().rev() {
        // Writing to a String cannot fail.
        let _ = write!(name, "{:x}.{:x}.", byte & 15, byte >> 4);
    }
    name + zone
}

/// Which addresses a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub fn of(address: IpAddr) -> Self {
        match canonical_ip(address) {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// The test entries that every list must have, and must not have (RFC 5782 section 5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestNames {
    /// 127.0.0.2 or ::FFFF:7F00:2.
    pub listed: String,
    /// 127.0.0.1 or ::FFFF:7F00:1: a list that has it lists the world.
    pub unlisted: String,
}

pub fn test_names(family: Family, zone: &str) -> TestNames {
    let name = |last: u8| match family {
        Family::V4 => v4_name(Ipv4Addr::new(127, 0, 0, last), zone),
        // In IPv6 form on purpose: this asks the IPv6 half of the list.
        Family::V6 => v6_name(Ipv4Addr::new(127, 0, 0, last).to_ipv6_mapped(), zone),
    };
    TestNames { listed: name(2), unlisted: name(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_addresses_backwards() {
        let name = |address: &str| query_name(address.parse().unwrap(), "bl.example");
        assert_eq!(name("192.0.2.99"), "99.2.0.192.bl.example");
        assert_eq!(name("::ffff:192.0.2.99"), "99.2.0.192.bl.example");
        // The example of RFC 5782 section 2.4.
        assert_eq!(
            name("2001:db8:1:2:3:4:567:89ab"),
            "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.bl.example"
        );
    }

    #[test]
    fn test_entries_of_rfc_5782_section_5() {
        let v4 = test_names(Family::V4, "bl.example");
        assert_eq!(v4.listed, "2.0.0.127.bl.example");
        assert_eq!(v4.unlisted, "1.0.0.127.bl.example");
        let v6 = test_names(Family::V6, "bl.example");
        let zeros = "0.".repeat(20);
        assert_eq!(v6.listed, format!("2.0.0.0.0.0.f.7.f.f.f.f.{zeros}bl.example"));
        assert_eq!(v6.unlisted, format!("1.0.0.0.0.0.f.7.f.f.f.f.{zeros}bl.example"));
    }
}
