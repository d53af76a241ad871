//! A real name server for a test: NSD, with a DNS block list (RFC 5782) and reverse names.

use std::{fmt::Write as _, fs, net::IpAddr, path::PathBuf, process::Stdio};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use crate::{
    netns::Netns,
    process::{Process, output, until},
};

/// The zone of the test's block list.
pub const ZONE: &str = "dnsbl.test";

/// NSD in a namespace, authoritative for the block list and for all reverse names.
#[derive(Debug)]
pub struct NameServer {
    process: Process,
    folder: PathBuf,
    address: IpAddr,
    serial: u32,
    listed: Vec<(IpAddr, String)>,
    names: Vec<(String, IpAddr)>,
}

impl NameServer {
    /// Starts NSD on port 53 of `address`. `names` are hosts with forward and reverse records.
    ///
    /// # Errors
    /// NSD is not installed or does not answer.
    pub fn start(
        ns: &Netns,
        address: IpAddr,
        folder: PathBuf,
        names: &[(&str, IpAddr)],
    ) -> Result<Self> {
        fs::create_dir_all(&folder)?;
        let config = folder.join("nsd.conf");
        let mut text = format!(
            "server:\n  ip-address: {address}@53\n  username: \"\"\n  chroot: \"\"\n  zonesdir: \"{0}\"\n  \
             pidfile: \"{0}/nsd.pid\"\n  database: \"\"\n  zonelistfile: \"{0}/zone.list\"\n  \
             xfrdfile: \"{0}/xfrd.state\"\n  xfrdir: \"{0}\"\n  server-count: 1\n  \
             zonefiles-check: yes\nremote-control:\n  control-enable: no\n",
            folder.display()
        );
        for zone in [ZONE, "test", "in-addr.arpa", "ip6.arpa"] {
            write!(text, "zone:\n  name: \"{zone}\"\n  zonefile: \"{zone}.zone\"\n")?;
        }
        fs::write(&config, text)?;
        let names: Vec<_> =
            names.iter().map(|&(name, address)| (name.to_owned(), address)).collect();
        // The test entry that every block list has (RFC 5782, section 5).
        let listed = vec![
            ("127.0.0.2".parse()?, "127.0.0.2".to_owned()),
            ("::ffff:127.0.0.2".parse()?, "127.0.0.2".to_owned()),
        ];
        write_zones(&folder, 1, &listed, &names)?;
        let process = Process::start(
            ns.command("/usr/sbin/nsd").arg("-d").arg("-c").arg(&config).stderr(Stdio::null()),
        )?;
        let server = Self { process, folder, address, serial: 1, listed, names };
        server.wait_for_serial(ns)?;
        Ok(server)
    }

    /// Puts an address on the block list, with the answer it gets (`127.0.0.2`).
    ///
    /// # Errors
    /// NSD does not take the new zone.
    pub fn list(&mut self, ns: &Netns, address: &str, answer: &str) -> Result<()> {
        self.listed.push((address.parse()?, answer.to_owned()));
        self.reload(ns)
    }

    /// Takes an address off the block list.
    ///
    /// # Errors
    /// NSD does not take the new zone.
    pub fn unlist(&mut self, ns: &Netns, address: &str) -> Result<()> {
        let address: IpAddr = address.parse()?;
        self.listed.retain(|(listed, _)| *listed != address);
        self.reload(ns)
    }

    fn reload(&mut self, ns: &Netns) -> Result<()> {
        self.serial += 1;
        write_zones(&self.folder, self.serial, &self.listed, &self.names)?;
        self.process.signal(Signal::SIGHUP)?;
        self.wait_for_serial(ns)
    }

    fn wait_for_serial(&self, ns: &Netns) -> Result<()> {
        until("NSD to serve the zone", || {
            let at = format!("@{}", self.address);
            let answer = output(
                ns.command("dig").args(["+short", "+time=1", "+tries=1", &at, ZONE, "SOA"]),
            )?;
            let serial = answer.stdout.split_whitespace().nth(2).map(str::to_owned);
            Ok((serial == Some(self.serial.to_string())).then_some(()))
        })
    }
}

fn write_zones(
    folder: &std::path::Path,
    serial: u32,
    listed: &[(IpAddr, String)],
    names: &[(String, IpAddr)],
) -> Result<()> {
    let head = format!(
        "$TTL 60\n@ IN SOA ns.test. hostmaster.test. {serial} 3600 900 86400 60\n@ IN NS ns.test.\n"
    );
    let mut block_list = head.clone();
    for (address, answer) in listed {
        writeln!(block_list, "{} IN A {answer}", reversed(*address, ""))?;
        writeln!(block_list, "{} IN TXT \"listed for the test\"", reversed(*address, ""))?;
    }
    let mut forward = head.clone();
    let (mut v4, mut v6) = (head.clone(), head);
    for (name, address) in names {
        match address {
            IpAddr::V4(_) => {
                writeln!(forward, "{name}. IN A {address}")?;
                writeln!(v4, "{} IN PTR {name}.", reversed(*address, ".in-addr.arpa."))?;
            }
            IpAddr::V6(_) => {
                writeln!(forward, "{name}. IN AAAA {address}")?;
                writeln!(v6, "{} IN PTR {name}.", reversed(*address, ".ip6.arpa."))?;
            }
        }
    }
    for (zone, text) in
        [(ZONE, block_list), ("test", forward), ("in-addr.arpa", v4), ("ip6.arpa", v6)]
    {
        fs::write(folder.join(format!("{zone}.zone")), text).context("writing a zone")?;
    }
    Ok(())
}

/// 192.0.2.1 is 1.2.0.192; a v6 address is its nibbles, last first (RFC 5782, section 2.4).
fn reversed(address: IpAddr, suffix: &str) -> String {
    let labels: Vec<String> = match address {
        IpAddr::V4(v4) => v4.octets().iter().rev().map(u8::to_string).collect(),
        IpAddr::V6(v6) => v6
            .octets()
            .iter()
            .rev()
            .flat_map(|byte| [format!("{:x}", byte & 15), format!("{:x}", byte >> 4)])
            .collect(),
    };
    labels.join(".") + suffix
}
