//! Which peers are here. One that is not, or that does not do what it is asked, is left out, and
//! the report says so.

use std::fmt;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use crate::process::output;

/// A program that filters by source as ours does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    XdpFilter,
    Nftables,
    Ipset,
}

impl Peer {
    pub(super) const ALL: [Self; 3] = [Self::XdpFilter, Self::Nftables, Self::Ipset];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::XdpFilter => "xdp-filter",
            Self::Nftables => "nftables",
            Self::Ipset => "ipset",
        }
    }

    /// The programs it needs, and the Debian packages that bring them.
    fn programs(self) -> (&'static [&'static str], &'static str) {
        match self {
            Self::XdpFilter => (&["xdp-filter"], "xdp-tools"),
            Self::Nftables => (&["nft"], "nftables"),
            Self::Ipset => (&["ipset", "iptables"], "ipset iptables"),
        }
    }

    /// Asks it what it is.
    fn version(self) -> Option<String> {
        let (program, arguments) = match self {
            // It has no such option; its name will do.
            Self::XdpFilter => ("xdp-filter", ["load", "--version"].as_slice()),
            Self::Nftables => ("nft", ["--version"].as_slice()),
            Self::Ipset => ("ipset", ["--version"].as_slice()),
        };
        let said = output(std::process::Command::new(program).args(arguments)).ok()?.stdout;
        said.lines().next().map(|line| line.trim().to_owned())
    }
}

/// The peers of one run.
#[derive(Debug, Default)]
pub(super) struct Peers {
    here: Vec<(Peer, String)>,
    /// Why another one is not measured, or not everywhere.
    missing: Vec<String>,
}

impl Peers {
    /// Looks for them in PATH.
    pub(super) fn find() -> Self {
        let mut peers = Self::default();
        for peer in Peer::ALL {
            let (programs, packages) = peer.programs();
            let lacking: Vec<&str> =
                programs.iter().copied().filter(|program| !is_in_path(program)).collect();
            if lacking.is_empty() {
                peers.here.push((peer, peer.version().unwrap_or_default()));
            } else {
                let lacking = lacking.join(" and ");
                let name = peer.name();
                peers.missing.push(format!(
                    "{name} is not measured: {lacking} not found; on Debian: apt-get install {packages}"
                ));
            }
        }
        peers
    }

    pub(super) fn has(&self, peer: Peer) -> bool {
        self.here.iter().any(|&(here, _)| here == peer)
    }

    /// Makes something of a peer that is here. What fails is left out, and said.
    pub(super) fn attempt<T>(&mut self, peer: Peer, make: impl FnOnce() -> Result<T>) -> Option<T> {
        if !self.has(peer) {
            return None;
        }
        match make() {
            Ok(made) => Some(made),
            Err(error) => {
                let said = format!("{} is not measured here: {error:#}", peer.name());
                if !self.missing.contains(&said) {
                    self.missing.push(said);
                }
                None
            }
        }
    }

    pub(super) fn json(&self) -> Value {
        let here = self
            .here
            .iter()
            .map(|(peer, version)| json!({ "name": peer.name(), "version": version }));
        json!({ "measured": here.collect::<Vec<_>>(), "missing": self.missing })
    }
}

impl fmt::Display for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let here = self.here.iter().map(|(peer, version)| format!("{} ({version})", peer.name()));
        writeln!(f, "Peers: {}", here.collect::<Vec<_>>().join(", "))?;
        self.missing.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

fn is_in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(|folder| Path::new(folder).to_owned());
    std::env::split_paths(&path).chain(system).any(|folder| folder.join(program).is_file())
}
