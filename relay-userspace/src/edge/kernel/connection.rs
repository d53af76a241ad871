//! A connection that the relay has accepted, as a frame for the kernel program: what the program
//! makes of it is counted and told of like a packet's end.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;

use etherparse::PacketBuilder;

use super::{drive, maps};
use crate::edge::filter::FilterError;

const HOPS: u8 = 64;

/// Has the program judge a connection.
///
/// # Errors
/// The kernel does not run it.
pub(super) fn count(program: BorrowedFd<'_>, source: IpAddr, port: u16) -> Result<(), FilterError> {
    let ran = frame(source.to_canonical(), port)
        .and_then(|frame| drive::test_run(program, &frame, 1).map(drop));
    ran.map_err(|error| maps::kernel("to count a connection", error))
}

/// A packet that says whence and to which port; where it goes, the program does not look. It belongs
/// to a connection that stands (ACK): one that opens a connection would be held to the limit on those.
fn frame(source: IpAddr, port: u16) -> io::Result<Vec<u8>> {
    let ethernet = PacketBuilder::ethernet2([0; 6], [0; 6]);
    let ip = match source {
        IpAddr::V4(v4) => ethernet.ipv4(v4.octets(), Ipv4Addr::UNSPECIFIED.octets(), HOPS),
        IpAddr::V6(v6) => ethernet.ipv6(v6.octets(), Ipv6Addr::UNSPECIFIED.octets(), HOPS),
    };
    let mut frame = Vec::new();
    ip.tcp(0, port, 0, 0).ack(0).write(&mut frame, &[]).map_err(io::Error::other)?;
    Ok(frame)
}
