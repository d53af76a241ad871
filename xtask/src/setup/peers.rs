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

const PEERS: [Peer; 11] = [
    Peer { program: "ip", package: "iproute2" },
    Peer { program: "nsenter", package: "util-linux" },
    Peer { program: "unshare", package: "util-linux" },
    Peer { program: "tcpdump", package: "tcpdump" },
    Peer { program: "dig", package: "bind9-dnsutils" },
    Peer { program: "nc", package: "netcat-openbsd" },
    Peer { program: "openssl", package: "openssl" },
    Peer { program: "python3", package: "python3" },
    Peer { program: "swaks", package: "swaks" },
    Peer { program: "smtp-source", package: POSTFIX },
    Peer { program: "smtp-sink", package: POSTFIX },
];

const POSTFIX: &str = "postfix";

/// What swaks needs for STARTTLS; it is a module, so there is no program to look for.
const PERL_TLS: (&str, &str) = ("Net::SSLeay", "libnet-ssleay-perl");

pub(super) fn provide(setup: &mut Setup) -> Result<()> {
    let (programs, packages) = missing();
    if packages.is_empty() {
        return Ok(());
    }
    let had_postfix = !packages.contains(&POSTFIX);
    let purpose = format!("{}, for the tests", programs.join(", "));
    if !setup.install(&packages, &purpose)? {
        return Ok(());
    }
    if !had_postfix {
        keep_postfix_stopped(setup)?;
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

/// Programs that are not there, and the packages that bring them, each once.
fn missing() -> (Vec<&'static str>, Vec<&'static str>) {
    let mut programs = Vec::new();
    let mut packages = Vec::new();
    for peer in PEERS.iter().filter(|peer| find_program(peer.program).is_none()) {
        programs.push(peer.program);
        packages.push(peer.package);
    }
    let (module, package) = PERL_TLS;
    if output_of(Command::new("perl").args([&format!("-M{module}"), "-e", "1"])).is_none() {
        programs.push(module);
        packages.push(package);
    }
    packages.dedup();
    (programs, packages)
}

/// Postfix is wanted for its programs. Its daemon, started at the next boot, would hold the port
/// that the gateway is to serve.
fn keep_postfix_stopped(setup: &mut Setup) -> Result<()> {
    if !std::path::Path::new("/run/systemd/system").exists() {
        return Ok(());
    }
    setup.act("systemctl disable postfix (only its programs are used; its daemon was not started)");
    let mut systemctl = setup.privilege.command("systemctl", &[], "keeping postfix stopped")?;
    run(systemctl.args(["--quiet", "disable", "postfix"]))
}
