//! Packet captures: tcpdump in a namespace, and what the file says afterwards.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    netns::Netns,
    process::{output, until},
};

/// A capture that is running. It began before [`Capture::start`] returned.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Option<Child>,
    file: PathBuf,
}

impl Capture {
    /// Records everything on `interface` into `file`.
    ///
    /// # Errors
    /// tcpdump is not installed, or does not begin.
    pub fn start(ns: &Netns, interface: &str, file: PathBuf) -> Result<Self> {
        let mut tcpdump = ns
            .command("tcpdump")
            .args(["-i", interface, "-U", "--immediate-mode", "-Z", "root", "-w"])
            .arg(&file)
            .stderr(Stdio::piped())
            .spawn()
            .context("starting tcpdump; `cargo xtask setup` installs it")?;
        let stderr = tcpdump.stderr.take().context("tcpdump's standard error")?;
        let capture = Self { tcpdump: Some(tcpdump), file };
        let mut lines = BufReader::new(stderr).lines();
        let listening =
            lines.by_ref().map_while(Result::ok).find(|line| line.contains("listening on"));
        ensure!(listening.is_some(), "tcpdump ended before it listened");
        // Keeps the pipe open and read to its end, so that tcpdump never meets a closed one.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(capture)
    }

    /// Waits until a SYN-ACK to this address is in the file: tcpdump writes a moment behind the
    /// wire, and what was on it before is then in the file too.
    ///
    /// # Errors
    /// It does not come.
    pub fn until_syn_ack(&self, to: &str, port: u16) -> Result<()> {
        let so_far = Packets { file: self.file.clone() };
        until("a SYN-ACK in the capture", || {
            // A file that ends in the middle of a packet is read in vain, and then again.
            Ok(so_far.syn_acks(to, port).is_ok_and(|count| count > 0).then_some(()))
        })
    }

    /// Ends the capture and returns what it holds.
    ///
    /// # Errors
    /// tcpdump cannot be ended.
    pub fn finish(mut self) -> Result<Packets> {
        self.end()?;
        Ok(Packets { file: self.file.clone() })
    }

    fn end(&mut self) -> Result<()> {
        if let Some(mut tcpdump) = self.tcpdump.take() {
            kill(Pid::from_raw(tcpdump.id().cast_signed()), Signal::SIGINT)?;
            tcpdump.wait()?;
        }
        Ok(())
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ended_already = self.end();
    }
}

/// A finished capture.
#[derive(Debug)]
pub struct Packets {
    file: PathBuf,
}

impl Packets {
    /// How many packets fit a filter in pcap-filter(7) syntax.
    ///
    /// # Errors
    /// tcpdump cannot read the file or the filter.
    pub fn count(&self, filter: &str) -> Result<usize> {
        let listing =
            output(Command::new("tcpdump").args(["-nn", "-r"]).arg(&self.file).arg(filter))?;
        Ok(listing.success()?.stdout.lines().count())
    }

    /// SYNs from this address to this port.
    ///
    /// # Errors
    /// As [`Self::count`].
    pub fn syns(&self, from: &str, port: u16) -> Result<usize> {
        self.count(&format!("src host {from} and dst port {port} and {}", flags(from, "== 0x02")))
    }

    /// SYN-ACKs to this address from this port.
    ///
    /// # Errors
    /// As [`Self::count`].
    pub fn syn_acks(&self, to: &str, port: u16) -> Result<usize> {
        self.count(&format!("dst host {to} and src port {port} and {}", flags(to, "== 0x12")))
    }
}

/// The SYN and ACK bits. pcap's `tcp[…]` reads v4 alone; the v6 header has 40 bytes.
fn flags(address: &str, test: &str) -> String {
    if address.contains(':') {
        format!("ip6[6] == 6 and ip6[53] & 0x12 {test}")
    } else {
        format!("tcp[13] & 0x12 {test}")
    }
}
