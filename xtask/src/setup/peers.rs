//! The programs that the tests, the lab and the benchmarks use: real clients, real next hops, and
//! tools for namespaces and packets.
//!
//! They are looked for as programs, so any distribution that has them will do; only installing
//! them is Debian's way.

use std::process::Command;

use anyhow::Result;

use super::Setup;
use crate::workspace::{find_program, output_of, run};

/// A program and the Debian package it is in.
struct Peer {
    program: &'static str,
    package: &'static str,
}

const PEERS: [Peer; 21] = [
    Peer { program: "ip", package: "iproute2" },
    Peer { program: "nsenter", package: "util-linux" },
    Peer { program: "unshare", package: "util-linux" },
    Peer { program: "bpftool", package: "bpftool" },
    Peer { program: "tcpdump", package: "tcpdump" },
    Peer { program: "dig", package: "bind9-dnsutils" },
    Peer { program: "nsd", package: NSD },
    Peer { program: "ping", package: "iputils-ping" },
    Peer { program: "sysctl", package: "procps" },
    Peer { program: "ss", package: "iproute2" },
    Peer { program: "nc", package: "netcat-openbsd" },
    Peer { program: "openssl", package: "openssl" },
    Peer { program: "python3", package: "python3" },
    Peer { program: "swaks", package: "swaks" },
    Peer { program: "smtp-source", package: POSTFIX },
    Peer { program: "smtp-sink", package: POSTFIX },
    Peer { program: "aiosmtpd", package: "python3-aiosmtpd" },
    Peer { program: "msmtp", package: "msmtp" },
    Peer { program: "curl", package: "curl" },
    Peer { program: "s-nail", package: "s-nail" },
    Peer { program: "haproxy", package: HAPROXY },
];

/// Filters of packets that ours is measured beside. Nothing but the benchmark wants them.
const FILTERS: [Peer; 4] = [
    Peer { program: "xdp-filter", package: "xdp-tools" },
    Peer { program: "nft", package: "nftables" },
    Peer { program: "ipset", package: "ipset" },
    Peer { program: "iptables", package: "iptables" },
];

const POSTFIX: &str = "postfix";
const NSD: &str = "nsd";
const HAPROXY: &str = "haproxy";

/// Packages that bring a daemon besides the programs that are wanted.
const DAEMONS: [&str; 3] = [POSTFIX, NSD, HAPROXY];

/// A module of another language: there is no program to look for, so its language is asked.
struct Module {
    name: &'static str,
    ask: [&'static str; 3],
    package: &'static str,
}

const MODULES: [Module; 2] = [
    // What swaks needs for STARTTLS.
    Module {
        name: "Net::SSLeay",
        ask: ["perl", "-MNet::SSLeay", "-e1"],
        package: "libnet-ssleay-perl",
    },
    // The system's own Python, for which packages are made, whatever stands first in PATH.
    Module {
        name: "aiosmtplib",
        ask: ["/usr/bin/python3", "-c", "import aiosmtplib"],
        package: "python3-aiosmtplib",
    },
];

pub(super) fn provide(setup: &mut Setup) -> Result<()> {
    let (programs, packages) = missing();
    if packages.is_empty() {
        return Ok(());
    }
    let daemons: Vec<&str> =
        DAEMONS.into_iter().filter(|daemon| packages.contains(daemon)).collect();
    let purpose = format!("{}, for the tests", programs.join(", "));
    if !setup.install(&packages, &purpose)? {
        return Ok(());
    }
    for daemon in daemons {
        keep_stopped(setup, daemon)?;
    }
    let (still, packages) = missing();
    if !packages.is_empty() {
        setup.missing.push(format!(
            "{}: not there although {} is installed",
            still.join(", "),
            packages.join(", ")
        ));
    }
    Ok(())
}

pub(super) fn provide_filters(setup: &mut Setup) -> Result<()> {
    let missing: Vec<&Peer> =
        FILTERS.iter().filter(|peer| find_program(peer.program).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let programs: Vec<&str> = missing.iter().map(|peer| peer.program).collect();
    let packages: Vec<&str> = missing.iter().map(|peer| peer.package).collect();
    setup.install(&packages, &format!("{}, to measure beside ours", programs.join(", "))).map(drop)
}

/// Programs that are not there, and the packages that bring them, each once.
fn missing() -> (Vec<&'static str>, Vec<&'static str>) {
    let mut programs = Vec::new();
    let mut packages = Vec::new();
    for peer in PEERS.iter().filter(|peer| find_program(peer.program).is_none()) {
        programs.push(peer.program);
        packages.push(peer.package);
    }
    for Module { name, ask: [language, arguments @ ..], package } in MODULES {
        if output_of(Command::new(language).args(arguments)).is_none() {
            programs.push(name);
            packages.push(package);
        }
    }
    packages.dedup();
    (programs, packages)
}

/// These are wanted for their programs. A daemon of theirs, started at the next boot, would hold a
/// port that the gateway is to serve or to use.
fn keep_stopped(setup: &mut Setup, daemon: &str) -> Result<()> {
    if !std::path::Path::new("/run/systemd/system").exists() {
        return Ok(());
    }
    let act =
        format!("systemctl disable {daemon} (only its programs are used; it was not started)");
    setup.act(&act);
    let why = format!("keeping {daemon} stopped");
    let mut systemctl = setup.privilege.command("systemctl", &[], &why)?;
    run(systemctl.args(["--quiet", "disable", daemon]))
}
