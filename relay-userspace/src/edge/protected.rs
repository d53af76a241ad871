//! Addresses that must stay reachable: the machine's own, its gateways, its resolvers, the inside
//! hosts of the configuration, and whence somebody is logged in.
//!
//! Read afresh for each decision, since a lease or a route may have changed since the last one.

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use relay_core::ban::guardrails::Protected;
use relay_core::prefix::canonical_ip;

use super::logins;

/// The most that is read of a file of routes or resolvers.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The machine's addresses as they are now, added to the `configured` ones (inside hosts and
/// resolvers named in the configuration).
///
/// A source that cannot be read adds nothing: a container without /proc/net is no reason to refuse
/// every entry.
pub fn read(configured: &Protected) -> Protected {
    let mut protected = configured.clone();
    protected.own.extend(own_addresses());
    protected.gateways.extend(gateways_v4(&contents("/proc/net/route")));
    protected.gateways.extend(gateways_v6(&contents("/proc/net/ipv6_route")));
    protected.resolvers.extend(resolvers(&contents("/etc/resolv.conf")));
    protected.administrators.extend(logins::addresses(&bytes_of(logins::UTMP)));
    protected
}

fn contents(path: impl AsRef<Path>) -> String {
    String::from_utf8_lossy(&bytes_of(path)).into_owned()
}

fn bytes_of(path: impl AsRef<Path>) -> Vec<u8> {
    let mut bytes = Vec::new();
    // What cannot be read to the end is used as far as it goes.
    let _ = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
    bytes
}

fn own_addresses() -> Vec<IpAddr> {
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| canonical_ip(IpAddr::V6(v6.ip()))))
        })
        .collect()
}

/// Gateways in the form of /proc/net/route: the third column, hexadecimal in native byte order.
fn gateways_v4(text: &str) -> Vec<IpAddr> {
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let gateway = u32::from_str_radix(line.split_whitespace().nth(2)?, 16).ok()?;
            (gateway != 0).then(|| IpAddr::V4(Ipv4Addr::from(gateway.to_ne_bytes())))
        })
        .collect()
}

/// Gateways in the form of /proc/net/ipv6_route: the fifth column, 32 hexadecimal digits.
fn gateways_v6(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| {
            let gateway = u128::from_str_radix(line.split_whitespace().nth(4)?, 16).ok()?;
            (gateway != 0).then(|| IpAddr::V6(Ipv6Addr::from(gateway)))
        })
        .collect()
}

/// The `nameserver` lines of resolv.conf(5).
fn resolvers(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = words.next().filter(|word| *word == "nameserver").and(words.next())?;
            // A link-local resolver carries its interface: fe80::1%eth0.
            let address = address.split('%').next()?;
            address.parse().ok().map(canonical_ip)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn gateways_are_read_as_the_kernel_prints_them() {
        let gateway = u32::from_ne_bytes([192, 0, 2, 1]);
        let text = format!(
            "Iface\tDestination\tGateway\tFlags\neth0\t00000000\t{gateway:08X}\t0003\n\
             eth0\t0002A8C0\t00000000\t0001\nshort\n"
        );
        assert_eq!(gateways_v4(&text), ips(&["192.0.2.1"]));
        let text = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
                    fe800000000000000000000000000001 00000400 00000001 00000000 00000003 eth0\n\
                    00000000000000000000000000000001 80 00000000000000000000000000000000 00 \
                    00000000000000000000000000000000 00000000 00000003 00000000 80200001 lo\n";
        assert_eq!(gateways_v6(text), ips(&["fe80::1"]));
    }

    #[test]
    fn resolvers_are_read_with_comments_and_zones() {
        let text = "# nameserver 192.0.2.9\nsearch example.org\nnameserver 192.0.2.53\n\
                    nameserver fe80::53%eth0\nnameserver ::ffff:192.0.2.54\nnameserver\n";
        assert_eq!(resolvers(text), ips(&["192.0.2.53", "fe80::53", "192.0.2.54"]));
    }

    #[test]
    fn this_machine_protects_its_loopback_and_what_is_configured() {
        let inside: IpAddr = "10.0.0.25".parse().unwrap();
        let configured = Protected { inside_hosts: vec![inside], ..Protected::default() };
        let protected = read(&configured);
        assert!(protected.own.contains(&Ipv4Addr::LOCALHOST.into()));
        assert!(protected.inside_hosts.contains(&inside));
    }
}
