//! A steady stream of SYNs from one source, and the count of what comes back: whether a filter ever
//! let go, even for a thousandth of a second.

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::netns::Netns;

/// One SYN each millisecond.
const EVERY: Duration = Duration::from_millis(1);
const SYN: u8 = 0x02;

/// A prober at work. Its threads end with it.
#[derive(Debug)]
pub struct Prober {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    answered: Arc<AtomicU64>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

/// What a prober saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub sent: u64,
    /// SYN-ACKs and RSTs.
    pub answered: u64,
}

impl Prober {
    /// Sends 1,000 SYNs a second from an address of the namespace.
    ///
    /// # Errors
    /// Not root, or the namespace does not have the address.
    pub fn start(ns: &Netns, from: Ipv4Addr, to: SocketAddrV4) -> Result<Self> {
        let socket = ns.enter(|| raw_tcp(from))?.context("a raw socket for the prober")?;
        let stop = Arc::new(AtomicBool::new(false));
        let (sent, answered) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let receiver = socket.try_clone()?;
        receiver.set_read_timeout(Some(Duration::from_millis(50)))?;
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let send = std::thread::spawn(move || send_syns(&socket, from, to, &stopped, &count));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&answered));
        let hear = std::thread::spawn(move || count_answers(receiver, to, &stopped, &count));
        Ok(Self { stop, sent, answered, threads: vec![send, hear] })
    }

    /// What it has seen so far.
    pub fn seen(&self) -> Seen {
        Seen {
            sent: self.sent.load(Ordering::Relaxed),
            answered: self.answered.load(Ordering::Relaxed),
        }
    }

    /// Waits for so many more SYNs.
    ///
    /// # Errors
    /// They are not sent: the prober has ended.
    pub fn after(&self, more: u64) -> Result<()> {
        let until = self.seen().sent + more;
        crate::process::until(
            "SYNs of the prober",
            || Ok((self.seen().sent >= until).then_some(())),
        )
    }

    /// Ends it. What is under way still counts.
    ///
    /// # Errors
    /// A SYN could not be sent, or answers not be read.
    pub fn finish(mut self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in std::mem::take(&mut self.threads) {
            thread.join().map_err(|_| anyhow::anyhow!("the prober has panicked"))??;
        }
        Ok(self.seen())
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Sends one SYN with so many bytes of data behind it, in one frame where the MTU lets it.
///
/// # Errors
/// Not root, or the frame cannot be sent.
pub fn send_syn(ns: &Netns, from: Ipv4Addr, to: SocketAddrV4, data: usize) -> Result<()> {
    let mut packet = syn(from, 9_999, to, 1).to_vec();
    packet.resize(packet.len() + data, 0);
    let address = SockAddr::from(SocketAddrV4::new(*to.ip(), 0));
    let sent = ns.enter(|| raw_tcp(from)?.send_to(&packet, &address))?;
    sent.map(drop).context("sending a SYN")
}

fn raw_tcp(from: Ipv4Addr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP))?;
    socket.bind(&SockAddr::from(SocketAddrV4::new(from, 0)))?;
    Ok(socket)
}

fn send_syns(
    socket: &Socket,
    from: Ipv4Addr,
    to: SocketAddrV4,
    stop: &AtomicBool,
    sent: &AtomicU64,
) -> io::Result<()> {
    let address = SockAddr::from(SocketAddrV4::new(*to.ip(), 0));
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let number = sent.load(Ordering::Relaxed) as u32;
        // Another port each time, so that no connection that exists is meant.
        let port = 10_000 + (number % 50_000) as u16;
        match socket.send_to(&syn(from, port, to, number), &address) {
            Ok(_) => drop(sent.fetch_add(1, Ordering::Relaxed)),
            // The interface is down or away for the moment: so is every answer.
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
        next += EVERY;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

fn is_passing(error: &io::Error) -> bool {
    let passing = [
        nix::errno::Errno::ENETDOWN,
        nix::errno::Errno::ENETUNREACH,
        nix::errno::Errno::EHOSTUNREACH,
        nix::errno::Errno::ENOBUFS,
        nix::errno::Errno::EINVAL,
    ];
    passing.iter().any(|&errno| error.raw_os_error() == Some(errno as i32))
}

/// A raw socket hears every TCP packet to its address, headers of IP and all.
fn count_answers(
    mut socket: Socket,
    from: SocketAddrV4,
    stop: &AtomicBool,
    answered: &AtomicU64,
) -> io::Result<()> {
    let mut packet = [0; 2048];
    loop {
        match socket.read(&mut packet) {
            Ok(length) if is_from(&packet[..length], from) => {
                answered.fetch_add(1, Ordering::Relaxed);
            }
            Ok(_) => {}
            // Only with nothing left to read is it over.
            Err(error) if is_timeout(&error) && stop.load(Ordering::Relaxed) => return Ok(()),
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn is_from(packet: &[u8], from: SocketAddrV4) -> bool {
    let header = usize::from(packet.first().map_or(0, |first| first & 0x0f)) * 4;
    let port = packet.get(header..).and_then(|tcp| tcp.first_chunk().copied());
    packet.get(12..16) == Some(&from.ip().octets()[..])
        && port.map(u16::from_be_bytes) == Some(from.port())
}

/// A TCP header of 20 bytes (RFC 9293, section 3.1).
fn syn(from: Ipv4Addr, port: u16, to: SocketAddrV4, sequence: u32) -> [u8; 20] {
    let mut tcp = [0; 20];
    tcp[..2].copy_from_slice(&port.to_be_bytes());
    tcp[2..4].copy_from_slice(&to.port().to_be_bytes());
    tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
    tcp[12] = 5 << 4;
    tcp[13] = SYN;
    tcp[14..16].copy_from_slice(&64_000u16.to_be_bytes());
    let mut sum = 0u32;
    let pseudo = [from.octets(), to.ip().octets(), [0, 6, 0, 20]].concat();
    for pair in pseudo.chunks_exact(2).chain(tcp.chunks_exact(2)) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    tcp[16..18].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    tcp
}
