//! End to end: a flood over veth from a million denied sources, through each of the filters, in
//! namespaces of their own.
//!
//! What veth itself costs differs from hook to hook (an XDP program on it is dear, on a network
//! card it is the cheapest), so each list is set against something at the same hook that drops
//! everything: the difference is what the list costs.

use std::any::Any;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use postern::config;
use postern::edge::filter::{Filter, MapSizes};
use postern::edge::kernel::{Answer, KernelFilter, KernelSettings, Program};
use postern::edge::serve::modes;
use relay_common::entry::{List, Scope};
use relay_common::parse::Family;

use super::bpf;
use super::flood::{self, Flood, IPV4, NO_PROTOCOL, Target};
use super::peers::{Peer, Peers};
use super::rules::{self, Folder};
use super::sources::{DenyList, MILLION};
use super::xdp_filter::XdpFilter;
use crate::figure::{Bar, Line, Rounds, Table};
use crate::netns::{Netns, veth};

/// Short and many: neighbours on the machine come and go within seconds, and a figure is one side beside
/// another in the same round.
const ROUNDS: usize = 15;
const PACKETS: usize = 200_000;
/// So few that all that is read of them stays in a processor's own caches: what is left is the
/// program's work, and the rest of a million's cost is the memory's.
const FEW: usize = 1_000;
const FEW_HOSTS: &str = "Postern, a thousand hosts";
/// What every list has to do: read the source, and look into memory that holds a million hosts. The
/// lines of ours take 4 MiB.
const BARE: [(&str, Option<u32>); 2] =
    [("bare: read the source", None), ("bare: one load from 4 MiB", Some(4 << 20 >> 3))];
/// Frames of a protocol that nobody has: they end where the kernel looks for one.
const ALONE: &str = "sender and wire alone, no protocol";
const GUARDED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// Where packets are stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hook {
    None,
    Xdp,
    Netdev,
    Prerouting,
}

impl Hook {
    /// What drops everything there.
    fn drop_all(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Xdp => Some("XDP, drop all"),
            Self::Netdev => Some("nftables netdev, drop all"),
            Self::Prerouting => Some("iptables raw, drop all"),
        }
    }
}

/// One of the filters that a flood goes through.
struct Side {
    name: &'static str,
    hook: Hook,
    flood: Flood,
    rounds: Rounds,
    /// The receiver, and what filters there.
    _kept: (Netns, Box<dyn Any>),
}

/// The flood's namespace, and the receivers' on wires to it.
struct Wires {
    sender: Netns,
    sources: Arc<[u32]>,
    sides: Vec<Side>,
}

/// # Errors
/// No root or no BPF, in a sentence.
pub(super) fn measure(peers: &mut Peers) -> Result<Table> {
    // On a thread of its own: the parts that follow may run on every CPU.
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            flood::stay_on_one_cpu()?;
            flooded(peers)
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn flooded(peers: &mut Peers) -> Result<Table> {
    let mut hosts = DenyList::hosts_only(Family::V4, MILLION);
    let sources = flood::v4_sources(&hosts.denied());
    let mut wires = Wires { sender: Netns::new("flood")?, sources, sides: Vec::new() };
    wires.add(ALONE, Hook::None, |_| Ok(Box::new(())))?;
    let folder = Folder::new()?;
    let dropping = Program::answering(Answer::Drop)?;
    wires.add("XDP, drop all", Hook::Xdp, |ns| {
        Ok(Box::new(ns.enter(|| bpf::attach(dropping.as_fd(), "eth0"))??))
    })?;
    for (name, words) in BARE {
        let program = Program::of_one_load(Family::V4, words)?;
        wires.add(name, Hook::Xdp, |ns| {
            Ok(Box::new((ns.enter(|| bpf::attach(program.as_fd(), "eth0"))??, program)))
        })?;
    }
    wires.add("Postern, a million hosts", Hook::Xdp, |ns| {
        Ok(Box::new(filter(ns, &folder.path("hosts"), &hosts)?))
    })?;
    let mut mixed = DenyList::mixed(Family::V4, MILLION);
    let of_mixed = flood::v4_sources(&mixed.denied());
    let of_hosts = std::mem::replace(&mut wires.sources, of_mixed);
    wires.add("Postern, hosts and 10 % prefixes", Hook::Xdp, |ns| {
        Ok(Box::new(filter(ns, &folder.path("mixed"), &mixed)?))
    })?;
    let mut few = DenyList::hosts_only(Family::V4, FEW);
    wires.sources = flood::v4_sources(&few.denied());
    wires.add(FEW_HOSTS, Hook::Xdp, |ns| Ok(Box::new(filter(ns, &folder.path("few"), &few)?)))?;
    wires.sources = of_hosts;
    add_peers(&mut wires, &hosts, &folder, peers)?;
    wires.add("no filter, SYN answered", Hook::None, |ns| {
        Ok(Box::new(ns.enter(|| TcpListener::bind((GUARDED, 25)))??))
    })?;
    // Once for the caches and the sizes of what grows.
    for side in &mut wires.sides {
        side.flood.send(PACKETS / 5)?;
    }
    for _ in 0..ROUNDS {
        for side in &mut wires.sides {
            let took = side.flood.send(PACKETS)?;
            side.rounds.push(took.as_nanos() as f64 / PACKETS as f64);
        }
    }
    table(&wires.sides)
}

fn add_peers(
    wires: &mut Wires,
    hosts: &DenyList,
    folder: &Folder,
    peers: &mut Peers,
) -> Result<()> {
    let addresses: Vec<IpAddr> = hosts.prefixes().iter().map(|prefix| prefix.addr()).collect();
    wires.add_peer(peers, Peer::XdpFilter, "xdp-filter, a million hosts", Hook::Xdp, |ns| {
        Ok(Box::new(XdpFilter::on(ns, "eth0", &addresses)?))
    })?;
    wires.add_peer(peers, Peer::Nftables, "nftables netdev, drop all", Hook::Netdev, |ns| {
        let script = folder.write("drop-all.nft", &rules::nft_dropping("", "drop"))?;
        ns.run("nft", &["-f", &script.display().to_string()])?;
        Ok(Box::new(()))
    })?;
    wires.add_peer(
        peers,
        Peer::Nftables,
        "nftables netdev, a set of a million",
        Hook::Netdev,
        |ns| {
            let script = rules::nft_dropping(&rules::nft_set(hosts), "ip saddr @denied drop");
            let script = folder.write("million.nft", &script)?;
            ns.run("nft", &["-f", &script.display().to_string()])?;
            Ok(Box::new(()))
        },
    )?;
    wires.add_peer(peers, Peer::Ipset, "iptables raw, drop all", Hook::Prerouting, |ns| {
        ns.run("iptables", &["-w", "-t", "raw", "-A", "PREROUTING", "-j", "DROP"])?;
        Ok(Box::new(()))
    })?;
    wires.add_peer(peers, Peer::Ipset, "ipset, a million hosts", Hook::Prerouting, |ns| {
        let lines = folder.write("million.ipset", &rules::ipset_lines("denied", hosts))?;
        ns.run("ipset", &["restore", "-file", &lines.display().to_string()])?;
        let rule = ["-w", "-t", "raw", "-A", "PREROUTING", "-m", "set", "--match-set"];
        ns.run("iptables", &[rule.as_slice(), &["denied", "src", "-j", "DROP"]].concat())?;
        Ok(Box::new(()))
    })
}

/// Our filter on eth0 of a namespace, with this list as its feeds and all else as by default.
pub(super) fn filter(ns: &Netns, pin_dir: &Path, list: &DenyList) -> Result<KernelFilter> {
    let sizes = MapSizes { feeds_deny: u32::try_from(MILLION)?, ..MapSizes::default() };
    let pin_dir = pin_dir.to_owned();
    let settings = KernelSettings { pin_dir, sizes, ..KernelSettings::on("eth0") };
    let mut filter = ns.enter(|| KernelFilter::open(&settings))??;
    filter.feed_fill(List::Deny, &list.entries())?;
    filter.feed_flip(Scope::MX)?;
    filter.set_modes(&modes(&config::embedded().filter))?;
    ns.enter(|| filter.activate())??;
    Ok(filter)
}

impl Wires {
    fn add(
        &mut self,
        name: &'static str,
        hook: Hook,
        make: impl FnOnce(&Netns) -> Result<Box<dyn Any>>,
    ) -> Result<()> {
        let number = self.sides.len();
        let (receiver, wire) = (Netns::new("side")?, format!("side{number}"));
        veth(&self.sender, &wire, &receiver, "eth0")?;
        let mac = MAC.map(|byte| format!("{byte:02x}")).join(":");
        receiver.run("ip", &["link", "set", "eth0", "address", &mac])?;
        receiver.addr("eth0", &format!("{GUARDED}/24"))?;
        // Everyone is reached by the wire, so that a SYN is answered as it would be.
        receiver.run("ip", &["route", "add", "default", "via", "203.0.113.2", "dev", "eth0"])?;
        let peer = ["neigh", "add", "203.0.113.2", "lladdr", "02:00:00:00:00:ff", "dev", "eth0"];
        receiver.run("ip", &peer)?;
        let made = make(&receiver).with_context(|| format!("making {name}"))?;
        self.push(name, hook, &wire, (receiver, made))
    }

    fn add_peer(
        &mut self,
        peers: &mut Peers,
        peer: Peer,
        name: &'static str,
        hook: Hook,
        make: impl FnOnce(&Netns) -> Result<Box<dyn Any>>,
    ) -> Result<()> {
        peers.attempt(peer, || self.add(name, hook, make));
        Ok(())
    }

    fn push(
        &mut self,
        name: &'static str,
        hook: Hook,
        wire: &str,
        kept: (Netns, Box<dyn Any>),
    ) -> Result<()> {
        let ethertype = if name == ALONE { NO_PROTOCOL } else { IPV4 };
        let target = Target { mac: MAC, address: GUARDED, ethertype };
        let flood = Flood::open(&self.sender, wire, target, Arc::clone(&self.sources))?;
        self.sides.push(Side { name, hook, flood, rounds: Rounds::default(), _kept: kept });
        Ok(())
    }
}

fn table(sides: &[Side]) -> Result<Table> {
    let mut lines = Vec::new();
    for side in sides {
        let mut line = Line::new(side.name, &side.rounds)?;
        let base = side.hook.drop_all().filter(|&name| name != side.name);
        if let Some(base) = base.and_then(|name| sides.iter().find(|side| side.name == name)) {
            let above = side.rounds.above(&base.rounds)?;
            let has_bar = side.name.starts_with("Postern") && side.name != FEW_HOSTS;
            let bar = has_bar.then_some(Bar::AtMost(120.0));
            line = line.against("above drop-all at its hook", &above, bar)?;
        }
        lines.push(line);
    }
    let title = format!(
        "A SYN flood over veth, each packet from another of a million denied IPv4 sources, or of a \
         thousand where a line says so: CPU time of the one CPU that sends, hands over and drops \
         ({PACKETS} packets in each of {ROUNDS} interleaved rounds)"
    );
    Ok(Table { name: "flood", title, unit: "nanoseconds a packet, sender included", lines })
}
