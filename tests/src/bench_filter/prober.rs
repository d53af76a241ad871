//! A steady prober: a thousand SYNs a second from an honest source, and when each came through the
//! interface. The longest gap between two of them is the longest stall of the path of packets.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::flood::{Flood, IPV4, Target};
use crate::netns::Netns;

const EVERY: Duration = Duration::from_millis(1);
/// Longer than a probe may take; the receiver looks this often whether it is over.
const PATIENCE: Duration = Duration::from_millis(100);
/// Of the scheduler's real-time priorities, one in the middle: what is measured is the path of
/// packets, not when other processes let a prober run.
const PRIORITY: i32 = 50;

/// Probes that are under way.
#[derive(Debug)]
pub(super) struct Prober {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<Result<u64>>,
    receiver: JoinHandle<Vec<Instant>>,
}

/// When probes came through.
#[derive(Debug)]
pub(super) struct Arrivals {
    pub(super) sent: u64,
    times: Vec<Instant>,
}

impl Prober {
    /// Probes from `eth0` of one namespace to `eth0` of another.
    ///
    /// # Errors
    /// No privilege, or an interface is missing.
    pub(super) fn start(from: &Netns, to: &Netns, mac: [u8; 6], source: Ipv4Addr) -> Result<Self> {
        let target = Target { mac, address: Ipv4Addr::new(203, 0, 113, 1), ethertype: IPV4 };
        let flood = Flood::open(from, "eth0", target, Arc::new([source.to_bits()]))?;
        let seen = to.enter(|| super::flood::packet_socket("eth0", IPV4))?;
        let seen = seen.context("a packet socket on eth0")?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stop_sender, stop_receiver) = (Arc::clone(&stop), Arc::clone(&stop));
        let sender = std::thread::spawn(move || send(flood, &stop_sender));
        let receiver = std::thread::spawn(move || receive(seen, source, &stop_receiver));
        Ok(Self { stop, sender, receiver })
    }

    /// # Errors
    /// A probe could not be sent.
    pub(super) fn stop(self) -> Result<Arrivals> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let times = self.receiver.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok(Arrivals { sent, times })
    }
}

impl Arrivals {
    pub(super) fn received(&self) -> usize {
        self.times.len()
    }

    /// The longest gap that overlaps this time.
    ///
    /// # Errors
    /// Nothing came through.
    pub(super) fn longest_gap(&self, from: Instant, to: Instant) -> Result<Duration> {
        let pairs = self.times.windows(2).filter(|pair| pair[1] >= from && pair[0] <= to);
        let longest = pairs.map(|pair| pair[1] - pair[0]).max();
        longest.context("no probe came through")
    }
}

fn send(mut flood: Flood, stop: &AtomicBool) -> Result<u64> {
    run_in_real_time()?;
    let mut due = Instant::now();
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        flood.send(1)?;
        sent += 1;
        due += EVERY;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(sent)
}

fn receive(seen: OwnedFd, source: Ipv4Addr, stop: &AtomicBool) -> Vec<Instant> {
    let socket = socket2::Socket::from(seen);
    // Both as far as they go: without them gaps are longer, never shorter.
    let _as_it_is = run_in_real_time();
    let _waits_for_the_next = socket.set_read_timeout(Some(PATIENCE));
    let (mut times, mut frame) = (Vec::new(), [0; 128]);
    while !stop.load(Ordering::Relaxed) {
        if let Ok(length) = (&socket).read(&mut frame)
            && frame[..length].get(26..30) == Some(source.octets().as_slice())
        {
            times.push(Instant::now());
        }
    }
    times
}

fn run_in_real_time() -> Result<()> {
    let parameters = libc::sched_param { sched_priority: PRIORITY };
    // SAFETY: the call reads the one parameter; 0 is the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) };
    ensure!(result == 0, "real-time priority: {}", std::io::Error::last_os_error());
    Ok(())
}

/// An IPv4 source.
pub(super) fn v4(source: IpAddr) -> Result<Ipv4Addr> {
    match source {
        IpAddr::V4(v4) => Ok(v4),
        IpAddr::V6(_) => anyhow::bail!("{source} is no IPv4 address"),
    }
}
