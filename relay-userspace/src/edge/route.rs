//! The interface that faces the internet: the one of the default route.

use anyhow::{Context, bail};

/// RTF_UP and RTF_REJECT of linux/route.h: usable, and not a route that refuses.
const UP: u32 = 0x0001;
const REJECT: u32 = 0x0200;

/// The interface of the default route, IPv4 before IPv6; of several the one with the lowest
/// metric.
///
/// # Errors
/// There is no default route, or the kernel's tables cannot be read.
pub fn default_interface() -> anyhow::Result<String> {
    let v4 = std::fs::read_to_string("/proc/net/route").context("reading /proc/net/route")?;
    if let Some(interface) = of_v4(&v4) {
        return Ok(interface);
    }
    // Absent where the kernel has no IPv6.
    let v6 = std::fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    match of_v6(&v6) {
        Some(interface) => Ok(interface),
        None => bail!(
            "there is no default route to tell which interface faces the internet; name it with \
             --interface or filter.interface (`ip link` lists them)"
        ),
    }
}

/// /proc/net/route: Iface Destination Gateway Flags RefCnt Use Metric Mask …, in hexadecimal but
/// for the metric.
fn of_v4(table: &str) -> Option<String> {
    let routes = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [interface, "00000000", _, flags, _, _, metric, "00000000", ..] = fields[..] else {
            return None;
        };
        let up = u32::from_str_radix(flags, 16).ok()? & (UP | REJECT) == UP;
        up.then_some((metric.parse::<u32>().ok()?, interface.to_owned()))
    });
    routes.min().map(|(_, interface)| interface)
}

/// /proc/net/ipv6_route: destination, its length, source, its length, next hop, metric, reference
/// count, use count, flags, interface; all numbers in hexadecimal.
fn of_v6(table: &str) -> Option<String> {
    let anywhere = "0".repeat(32);
    let routes = table.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [destination, "00", _, _, _, metric, _, _, flags, interface] = fields[..] else {
            return None;
        };
        let up = u32::from_str_radix(flags, 16).ok()? & (UP | REJECT) == UP;
        let metric = u32::from_str_radix(metric, 16).ok()?;
        (destination == anywhere && up && interface != "lo").then(|| (metric, interface.to_owned()))
    });
    routes.min().map(|(_, interface)| interface)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_route_with_the_lowest_metric_wins() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\n\
                     wlan0\t00000000\t0100A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
                     eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
                     *\t00000000\t00000000\t0201\t0\t0\t0\t00000000\t0\t0\t0\n\
                     eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n\
                     down0\t00000000\t0101A8C0\t0002\t0\t0\t1\t00000000\t0\t0\t0\n";
        assert_eq!(of_v4(table).as_deref(), Some("eth0"));
        assert_eq!(of_v4("Iface\tDestination\n"), None);
    }

    #[test]
    fn the_v6_default_route_is_not_the_one_that_says_unreachable() {
        let zero = "0".repeat(32);
        let table = format!(
            "{zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003 eth1\n\
             {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200 lo\n"
        );
        assert_eq!(of_v6(&table).as_deref(), Some("eth1"));
    }
}
