//! xdp-filter as a peer: its own program, loaded by itself, with room for as many hosts as ours.
//!
//! Its objects come with room for 10,000 addresses. That number stands once in the object's type
//! information, and xdp-filter loads objects from a folder that it is told: so it is given a copy
//! with another number there. The addresses are then put into its map directly, in batches, since
//! its command takes one at a time.

use std::fs;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use postern::edge::kernel::Program;

use super::bpf::ForeignMap;
use super::sources::MILLION;
use crate::netns::{Netns, veth};
use crate::process::output;

const OBJECT: &str = "xdpfilt_alw_ip.o";
const ROOM: u32 = 10_000;
/// A million, and some to spare.
const MORE_ROOM: u32 = 1 << 20;

/// Loads it with everything else passing and hosts of both families denied, mounts and pins where
/// nobody else sees them. The two hosts are models for the others.
const LOAD: &str = "mount -t bpf bpf /sys/fs/bpf && xdp-filter load -m native -f ipv4,ipv6 \"$1\" \
    && xdp-filter ip 192.0.2.255 -m src && xdp-filter ip 2001:db8::ffff -m src";
const MODEL_V4: [u8; 4] = [192, 0, 2, 255];
const MODEL_V6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// xdp-filter on an interface, which it leaves with its namespace.
#[derive(Debug)]
pub(super) struct XdpFilter {
    program: Program,
    _wire: Option<[Netns; 2]>,
}

impl XdpFilter {
    /// On a wire of its own that nothing comes in by. With no hosts it is as it was installed.
    ///
    /// # Errors
    /// As [`Self::on`].
    pub(super) fn alone(hosts: &[IpAddr]) -> Result<Self> {
        let wire = [Netns::new("xdp-filter")?, Netns::new("nobody")?];
        veth(&wire[0], "eth0", &wire[1], "eth0")?;
        let filter = Self::on(&wire[0], "eth0", hosts)?;
        Ok(Self { _wire: Some(wire), ..filter })
    }

    /// On an interface of a namespace.
    ///
    /// # Errors
    /// It cannot be loaded, or is not as it was when this was written.
    pub(super) fn on(ns: &Netns, interface: &str, hosts: &[IpAddr]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let original = installed_object().with_context(|| format!("{OBJECT} is not installed"))?;
        let object = fs::read(original)?;
        let object = if hosts.is_empty() { object } else { with_room(&object)? };
        fs::write(folder.path().join(OBJECT), object)?;
        let mut load = Command::new("unshare");
        load.args(["--mount", "--propagation", "private", "nsenter"]);
        load.arg(format!("--net={}", ns.path().display()));
        load.args(["--", "sh", "-c", LOAD, "sh", interface]);
        output(load.env("LIBXDP_OBJECT_PATH", folder.path()))?.success()?;
        let program = Program::by_id(program_on(ns, interface)?)?;
        let filter = Self { program, _wire: None };
        if !hosts.is_empty() {
            filter.put(hosts)?;
        }
        Ok(filter)
    }

    pub(super) fn program(&self) -> &Program {
        &self.program
    }

    fn put(&self, hosts: &[IpAddr]) -> Result<()> {
        let mut v4 = Vec::new();
        let mut v6 = Vec::new();
        for host in hosts {
            match host {
                IpAddr::V4(host) => v4.extend(host.octets()),
                IpAddr::V6(host) => v6.extend(host.octets()),
            }
        }
        for (name, model, keys) in
            [("filter_ipv4", MODEL_V4.as_slice(), v4), ("filter_ipv6", &MODEL_V6, v6)]
        {
            let map = ForeignMap::of(self.program.as_fd(), name)?;
            ensure!(map.max_entries as usize > MILLION, "{name} has no room for a million");
            map.put_all(&keys, &map.get(model)?)?;
        }
        Ok(())
    }
}

fn with_room(object: &[u8]) -> Result<Vec<u8>> {
    let (room, more) = (ROOM.to_ne_bytes(), MORE_ROOM.to_ne_bytes());
    let places: Vec<usize> = object
        .windows(room.len())
        .enumerate()
        .filter_map(|(at, word)| (word == room).then_some(at))
        .collect();
    let [at] = places[..] else {
        anyhow::bail!("{OBJECT} does not say its number of addresses in one place")
    };
    let mut object = object.to_vec();
    object[at..at + more.len()].copy_from_slice(&more);
    Ok(object)
}

fn installed_object() -> Option<PathBuf> {
    let of_architecture = fs::read_dir("/usr/lib").into_iter().flatten().filter_map(Result::ok);
    let folders = of_architecture.map(|entry| entry.path());
    let mut all = folders
        .chain(["/usr/lib", "/usr/lib64", "/usr/local/lib"].map(|lib| Path::new(lib).to_owned()));
    all.find_map(|lib| Some(lib.join("bpf").join(OBJECT)).filter(|path| path.is_file()))
}

fn program_on(ns: &Netns, interface: &str) -> Result<u32> {
    let text = ns.run("ip", &["-j", "-d", "link", "show", "dev", interface])?;
    let shown: serde_json::Value = serde_json::from_str(&text)?;
    let id = shown[0]["xdp"]["prog"]["id"].as_u64().context("xdp-filter is not attached")?;
    Ok(u32::try_from(id)?)
}
