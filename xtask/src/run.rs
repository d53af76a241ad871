//! `cargo xtask run`: build, become root, and start the gateway on the internet-facing interface.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::build::release_binaries;
use crate::privilege::Privilege;
use crate::setup::{self, Need};
use crate::workspace::release_binary;

/// What `postern` reads where no file is named.
const SYSTEM_CONFIG: &str = "/etc/postern/postern.toml";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The interface to guard [default: the configuration's, or the one of the default route]
    #[arg(long, value_name = "IF")]
    iface: Option<String>,
    /// A configuration file [default: the embedded one, which relays for nobody]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Further arguments for `postern run`
    #[arg(last = true)]
    rest: Vec<String>,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    // Whatever can be refused is refused before the minutes that a first build takes.
    match &args.iface {
        Some(name) => named_interface(name)?,
        // A configuration may name another, or none at all.
        None if args.config.is_none() && !Path::new(SYSTEM_CONFIG).exists() => default_interface()?,
        None => {}
    }
    if let Some(file) = &args.config {
        std::fs::File::open(file)
            .with_context(|| format!("cannot read the configuration {}", file.display()))?;
    }
    let mut postern =
        Privilege::detect().command(release_binary("postern"), &[], "attaching to an interface")?;
    setup::ensure(&[Need::Toolchain, Need::Account])?;
    release_binaries(&[("relay-userspace", "postern")])?;
    postern.args(arguments(args));
    // Replaces this process, so that Ctrl-C and SIGTERM reach the gateway itself.
    Err(postern.exec()).context("cannot start postern")
}

/// What `postern` is told. The interface of the default route is its own choice where nothing
/// names one.
fn arguments(args: &Args) -> Vec<OsString> {
    let mut words = vec![OsString::from("run")];
    if let Some(name) = &args.iface {
        words.extend(["--interface".into(), name.into()]);
    }
    if let Some(file) = &args.config {
        words.extend(["--config".into(), file.into()]);
    }
    words.extend(args.rest.iter().map(OsString::from));
    words
}

fn named_interface(name: &str) -> Result<()> {
    // A name with a slash would leave the directory.
    if name.is_empty() || name.contains('/') || !Path::new("/sys/class/net").join(name).exists() {
        bail!("there is no interface named {name:?}: `ip -brief link` lists those that exist");
    }
    Ok(())
}

fn default_interface() -> Result<()> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    default_of(&read("/proc/net/route"), &read("/proc/net/ipv6_route")).map(drop).context(
        "there is no default route, so the interface must be named: cargo xtask run --iface IF",
    )
}

/// The interface of the default route with the lowest metric, IPv4 before IPv6.
///
/// The arguments are the texts of /proc/net/route and /proc/net/ipv6_route.
fn default_of(route: &str, ipv6_route: &str) -> Option<String> {
    let ipv4 = route.lines().filter_map(ipv4_default).min();
    ipv4.or_else(|| ipv6_route.lines().filter_map(ipv6_default).min()).map(|(_, name)| name)
}

/// RTF_UP and RTF_REJECT of linux/route.h: usable, and not a route that refuses.
const UP: u32 = 0x0001;
const REJECT: u32 = 0x0200;

/// Columns: Iface Destination Gateway Flags RefCnt Use Metric Mask …; numbers but Metric in hex.
fn ipv4_default(line: &str) -> Option<(u32, String)> {
    let column: Vec<&str> = line.split_whitespace().collect();
    let flags = u32::from_str_radix(column.get(3)?, 16).ok()?;
    let is_default = *column.get(1)? == "00000000" && *column.get(7)? == "00000000";
    if !is_default || flags & (UP | REJECT) != UP {
        return None;
    }
    Some((column[6].parse().ok()?, column[0].to_owned()))
}

/// Columns: destination, its length, source, its length, next hop, metric, references, use, flags,
/// interface; numbers in hex.
fn ipv6_default(line: &str) -> Option<(u32, String)> {
    let column: Vec<&str> = line.split_whitespace().collect();
    let flags = u32::from_str_radix(column.get(8)?, 16).ok()?;
    let name = *column.get(9)?;
    let is_default = column[0].bytes().all(|digit| digit == b'0') && column[1] == "00";
    if !is_default || flags & (UP | REJECT) != UP || name == "lo" {
        return None;
    }
    Some((u32::from_str_radix(column[5], 16).ok()?, name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str =
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n";
    const ZEROS: &str = "00000000000000000000000000000000";

    #[test]
    fn the_configurations_interface_is_not_overruled() {
        let args = |iface: Option<&str>| Args {
            iface: iface.map(str::to_owned),
            config: Some("a.toml".into()),
            rest: vec!["--keep-filter".to_owned()],
        };
        assert_eq!(arguments(&args(None)), ["run", "--config", "a.toml", "--keep-filter"]);
        let named = ["run", "--interface", "eth1", "--config", "a.toml", "--keep-filter"];
        assert_eq!(arguments(&args(Some("eth1"))), named);
    }

    #[test]
    fn the_lowest_metric_wins() {
        let table = format!(
            "{HEADER}wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
             eth0\t00000000\t010011AC\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
             eth1\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
        );
        assert_eq!(default_of(&table, ""), Some("eth0".to_owned()));
    }

    #[test]
    fn half_of_the_internet_is_not_a_default_route() {
        let table = format!("{HEADER}tun0\t00000000\t01000A0A\t0003\t0\t0\t0\t00000080\t0\t0\t0\n");
        assert_eq!(default_of(&table, ""), None);
    }

    #[test]
    fn an_ipv6_host_has_a_default_route_too() {
        let hop = "fe800000000000000000000000000001";
        let line = |metric: &str, flags: &str, name: &str| {
            format!("{ZEROS} 00 {ZEROS} 00 {hop} {metric} 00000001 00000000 {flags} {name}\n")
        };
        let table = [
            line("ffffffff", "00200200", "lo"),
            line("00000400", "00000003", "eth6"),
            line("00000800", "00000003", "eth7"),
        ]
        .concat();
        assert_eq!(default_of(HEADER, &table), Some("eth6".to_owned()));
    }

    #[test]
    fn an_unreachable_default_is_none() {
        let reject = format!("{HEADER}*\t00000000\t00000000\t0201\t0\t0\t0\t00000000\t0\t0\t0\n");
        assert_eq!(default_of(&reject, "garbage\n\n"), None);
    }

    #[test]
    fn a_missing_interface_is_named() {
        for name in ["no-such0", "", "../net/lo"] {
            let error = named_interface(name).unwrap_err().to_string();
            assert!(error.contains(&format!("{name:?}")), "{error}");
        }
        assert!(named_interface("lo").is_ok());
    }
}
