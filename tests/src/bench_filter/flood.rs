//! A flood of SYNs to port 25 from ever other IPv4 sources, as fast as one CPU sends them: a packet
//! socket past the queueing discipline, many frames in one system call. On veth the same CPU goes
//! on into the receiver's hook, so that the time of sending has the cost of receiving in it.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use crate::netns::Netns;

/// Frames of one system call.
const BATCH: usize = 64;
/// An Ethernet frame without its checksum is no shorter.
const FRAME: usize = 60;
const SOURCE_AT: usize = 14 + 12;
const IP_SUM_AT: usize = 14 + 10;
const TCP_SUM_AT: usize = 14 + 20 + 16;

/// Whom a flood is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) mac: [u8; 6],
    pub(super) address: Ipv4Addr,
    pub(super) ethertype: u16,
}

pub(super) const IPV4: u16 = 0x0800;
/// For local experiments (IEEE 802).
pub(super) const NO_PROTOCOL: u16 = 0x88b5;

/// A sender on one interface.
#[derive(Debug)]
pub(super) struct Flood {
    socket: OwnedFd,
    template: Template,
    sources: Arc<[u32]>,
    next: usize,
}

impl Flood {
    /// # Errors
    /// No privilege, or no such interface in the namespace.
    pub(super) fn open(
        ns: &Netns,
        interface: &str,
        target: Target,
        sources: Arc<[u32]>,
    ) -> Result<Self> {
        ensure!(!sources.is_empty(), "a flood needs sources");
        let socket = ns.enter(|| packet_socket(interface, 0))?;
        let socket = socket.with_context(|| format!("a packet socket on {interface}"))?;
        Ok(Self { socket, template: Template::new(target)?, sources, next: 0 })
    }

    /// Sends so many packets. Returns the CPU time that it took this thread, and with it whatever
    /// was done in its context about packets that it delivered.
    ///
    /// # Errors
    /// The kernel did not take a packet.
    pub(super) fn send(&mut self, packets: usize) -> Result<Duration> {
        let mut frames = [[0u8; FRAME]; BATCH];
        let mut parts = frames
            .each_mut()
            .map(|frame| libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: FRAME });
        let started = cpu_time()?;
        let mut left = packets;
        while left > 0 {
            let count = left.min(BATCH);
            for frame in &mut frames[..count] {
                self.template.write(self.sources[self.next], frame);
                self.next = (self.next + 1) % self.sources.len();
            }
            self.send_parts(&mut parts[..count])?;
            left -= count;
        }
        Ok(cpu_time()?.saturating_sub(started))
    }

    fn send_parts(&self, parts: &mut [libc::iovec]) -> io::Result<()> {
        // SAFETY: all zeros is a message header that names and holds nothing.
        let mut messages: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
        for (message, part) in messages.iter_mut().zip(parts.iter_mut()) {
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
        }
        let mut sent = 0;
        while sent < parts.len() {
            let (first, count) = (messages[sent..].as_mut_ptr(), parts.len() - sent);
            // SAFETY: there are `count` messages, each with one part, whose frame outlives the call.
            let result = unsafe { libc::sendmmsg(self.socket.as_raw_fd(), first, count as u32, 0) };
            match usize::try_from(result) {
                Ok(taken) => sent += taken,
                Err(_) => {
                    let error = io::Error::last_os_error();
                    // The receiver's queue is full, as on a wire: the packet is lost.
                    if error.raw_os_error() != Some(libc::ENOBUFS) {
                        return Err(error);
                    }
                    sent += 1;
                }
            }
        }
        Ok(())
    }
}

/// Keeps the calling thread on one CPU: the last one, which has the least to do with interrupts.
///
/// # Errors
/// The kernel's own.
pub(super) fn stay_on_one_cpu() -> Result<()> {
    let cpus = std::thread::available_parallelism()?.get();
    let mut set = CpuSet::new();
    set.set(cpus - 1)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

fn cpu_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// Protocol 0 receives nothing.
pub(super) fn packet_socket(interface: &str, protocol: u16) -> io::Result<OwnedFd> {
    let ifindex = nix::net::if_::if_nametoindex(interface)?;
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: the call takes numbers alone.
    let fd = unsafe { libc::socket(libc::AF_PACKET, kind, i32::from(protocol.to_be())) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let yes: libc::c_int = 1;
    // SAFETY: all zeros is an address of no interface.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = ifindex.cast_signed();
    // SAFETY: option and address are of the sizes that are given, and outlive the calls.
    let result = unsafe {
        match libc::setsockopt(
            fd,
            libc::SOL_PACKET,
            libc::PACKET_QDISC_BYPASS,
            (&raw const yes).cast(),
            size_of_val(&yes) as libc::socklen_t,
        ) {
            0 => libc::bind(fd, (&raw const address).cast(), size_of_val(&address) as u32),
            failed => failed,
        }
    };
    if result == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
}

/// A frame from source 0.0.0.0, and the sums of its checksums (RFC 1071) before they are folded.
#[derive(Debug)]
struct Template {
    frame: [u8; FRAME],
    ip_sum: u32,
    tcp_sum: u32,
}

impl Template {
    fn new(target: Target) -> Result<Self> {
        let mut bytes = Vec::with_capacity(FRAME);
        etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 0xff], target.mac)
            .ipv4([0; 4], target.address.octets(), 64)
            .tcp(40_000, 25, 1, 65_535)
            .syn()
            .write(&mut bytes, &[])?;
        bytes.resize(FRAME, 0);
        bytes[12..14].copy_from_slice(&target.ethertype.to_be_bytes());
        let frame: [u8; FRAME] = bytes.try_into().ok().context("a SYN fits the shortest frame")?;
        let sum = |at: usize| u32::from(!u16::from_be_bytes([frame[at], frame[at + 1]]));
        Ok(Self { frame, ip_sum: sum(IP_SUM_AT), tcp_sum: sum(TCP_SUM_AT) })
    }

    fn write(&self, source: u32, frame: &mut [u8; FRAME]) {
        *frame = self.frame;
        frame[SOURCE_AT..SOURCE_AT + 4].copy_from_slice(&source.to_be_bytes());
        for (at, sum) in [(IP_SUM_AT, self.ip_sum), (TCP_SUM_AT, self.tcp_sum)] {
            let sum = sum + (source >> 16) + (source & 0xffff);
            let folded = (sum & 0xffff) + (sum >> 16);
            let folded = (folded & 0xffff) + (folded >> 16);
            frame[at..at + 2].copy_from_slice(&(!(folded as u16)).to_be_bytes());
        }
    }
}

/// IPv4 sources, as a flood takes them.
pub(super) fn v4_sources(sources: &[IpAddr]) -> Arc<[u32]> {
    let v4 = sources.iter().filter_map(|source| match source {
        IpAddr::V4(v4) => Some(v4.to_bits()),
        IpAddr::V6(_) => None,
    });
    v4.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_the_checksums_that_etherparse_computes() {
        let address = Ipv4Addr::new(203, 0, 113, 1);
        let template =
            Template::new(Target { mac: [2, 0, 0, 0, 0, 1], address, ethertype: IPV4 }).unwrap();
        for source in [0x0102_0304, 0xffff_ffff, 0, 0xdfff_0001] {
            let mut frame = [0; FRAME];
            template.write(source, &mut frame);
            let mut wanted = Vec::new();
            etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 0xff], [2, 0, 0, 0, 0, 1])
                .ipv4(source.to_be_bytes(), address.octets(), 64)
                .tcp(40_000, 25, 1, 65_535)
                .syn()
                .write(&mut wanted, &[])
                .unwrap();
            assert_eq!(frame[..wanted.len()], wanted[..]);
        }
    }
}
