//! A connection that the relay has accepted, as a frame for the kernel program: what the program
//! makes of it is counted and told of like a packet's end.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use super::{drive, maps};
use crate::edge::filter::FilterError;

const ETHERNET: usize = 14;
const TCP: usize = 20;
const PROTOCOL_TCP: u8 = 6;
/// A packet of a connection that stands (RFC 9293): one that opens a connection would be held to the limit
/// on those.
const ACK: u8 = 0x10;

/// Has the program judge a connection.
///
/// # Errors
/// The kernel does not run it.
pub(super) fn count(program: BorrowedFd<'_>, source: IpAddr, port: u16) -> Result<(), FilterError> {
    let ran = drive::test_run(program, &frame(source.to_canonical(), port), 1);
    ran.map(drop).map_err(|error| maps::kernel("to count a connection", error))
}

/// The shortest frame that says whence and to which port. Addresses of ours and checksums are left
/// out: the program looks at neither.
fn frame(source: IpAddr, port: u16) -> Vec<u8> {
    let (ethertype, ip) = match source {
        IpAddr::V4(v4) => {
            let mut header = [0; 20];
            // Version 4 (RFC 791, section 3.1), five words; the whole length; hops; protocol; source.
            header[0] = 0x45;
            header[3] = (20 + TCP) as u8;
            (header[8], header[9]) = (64, PROTOCOL_TCP);
            header[12..16].copy_from_slice(&v4.octets());
            (0x0800_u16, header.to_vec())
        }
        IpAddr::V6(v6) => {
            let mut header = [0; 40];
            // Version 6 (RFC 8200, section 3); length of what follows; next header; hops; source.
            header[0] = 0x60;
            header[5] = TCP as u8;
            (header[6], header[7]) = (PROTOCOL_TCP, 64);
            header[8..24].copy_from_slice(&v6.octets());
            (0x86dd, header.to_vec())
        }
    };
    let mut frame = vec![0; ETHERNET];
    frame[12..].copy_from_slice(&ethertype.to_be_bytes());
    frame.extend(ip);
    let mut tcp = [0; TCP];
    tcp[2..4].copy_from_slice(&port.to_be_bytes());
    // Five words.
    (tcp[12], tcp[13]) = (0x50, ACK);
    frame.extend(tcp);
    frame
}
