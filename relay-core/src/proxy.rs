//! The PROXY protocol, versions 1 and 2, of which a load balancer writes one header before the
//! client's first octet (haproxy's `proxy-protocol.txt`).
//!
//! [`read`] says how much of the header is still to come, so that a driver takes from the socket
//! what belongs to it and not an octet of the client's. Whoever may send a header names any source
//! it likes: whether a peer may is for the driver to know, before it asks here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;

/// Section 2.2: the twelve octets that begin version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const V2_FIXED: usize = 16;
/// The longest header of version 2 that is taken, its TLVs included: the largest that balancers are
/// known to send carry a certificate.
pub const V2_MAX: usize = 4096;

const V1_BEGIN: &[u8; 6] = b"PROXY ";
/// `PROXY UNKNOWN` and CRLF: no header of either version is shorter.
const SHORTEST: usize = 15;
/// Section 2.1: the longest line of version 1, CRLF included.
const V1_MAX: usize = 107;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// The balancer speaks for itself, as when it checks whether we live; or it does not know for
    /// whom. The connection's own addresses count.
    Local,
    /// It passes a connection on.
    Proxied {
        /// The client.
        source: SocketAddr,
        /// Where the client connected to.
        destination: SocketAddr,
    },
}

/// How far a header is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// At least so many octets more belong to it; never 0.
    Need(usize),
    /// It is whole.
    Done(Header),
}

/// Why a header is refused; there is no way to go on after one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ProxyError {
    /// The client's own octets, most likely: the balancer is not told to send a header.
    #[error("no PROXY header; set `send-proxy` or `send-proxy-v2` at the balancer")]
    Missing,
    #[error("a malformed PROXY header")]
    Malformed,
    #[error("a PROXY header longer than permitted")]
    TooLong,
    #[error("a PROXY header for something else than TCP over IPv4 or IPv6")]
    Family,
    #[error("a PROXY header that names a source which no client has")]
    Source,
}

/// Whether these octets are the beginning of a header, of either version.
pub fn is_header(bytes: &[u8]) -> bool {
    bytes.starts_with(SIGNATURE) || bytes.starts_with(V1_BEGIN)
}

/// Reads a header, of which `bytes` have come: no more than earlier answers asked for.
///
/// # Errors
/// These octets begin no header, or one that is not taken.
pub fn read(bytes: &[u8]) -> Result<Step, ProxyError> {
    let begins = |with: &[u8]| {
        let length = bytes.len().min(with.len());
        bytes[..length] == with[..length]
    };
    if !begins(SIGNATURE) && !begins(V1_BEGIN) {
        return Err(ProxyError::Missing);
    }
    if bytes.len() < SHORTEST {
        return Ok(Step::Need(SHORTEST - bytes.len()));
    }
    let header = if begins(SIGNATURE) { version_2(bytes)? } else { version_1(bytes)? };
    if let Step::Done(Header::Proxied { source, .. }) = header {
        let ip = source.ip().to_canonical();
        let nobody = ip.is_unspecified() || ip.is_multicast() || ip == Ipv4Addr::BROADCAST;
        if nobody {
            return Err(ProxyError::Source);
        }
    }
    Ok(header)
}

fn version_1(bytes: &[u8]) -> Result<Step, ProxyError> {
    let Some(line) = bytes.strip_suffix(b"\n") else {
        return if bytes.len() < V1_MAX { Ok(Step::Need(1)) } else { Err(ProxyError::TooLong) };
    };
    let line = line.strip_suffix(b"\r").ok_or(ProxyError::Malformed)?;
    let line = std::str::from_utf8(&line[V1_BEGIN.len()..]).map_err(|_| ProxyError::Malformed)?;
    if line.contains(['\r', '\n']) {
        return Err(ProxyError::Malformed);
    }
    let words: Vec<&str> = line.split(' ').collect();
    match words[..] {
        // Whatever follows is to be ignored.
        ["UNKNOWN", ..] => Ok(Step::Done(Header::Local)),
        ["TCP4", source, destination, source_port, destination_port] => {
            let ip = |text: &str| text.parse::<Ipv4Addr>().ok().map(IpAddr::V4);
            v1_pair(ip(source), ip(destination), source_port, destination_port)
        }
        ["TCP6", source, destination, source_port, destination_port] => {
            let ip = |text: &str| text.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
            v1_pair(ip(source), ip(destination), source_port, destination_port)
        }
        _ => Err(ProxyError::Malformed),
    }
}

fn v1_pair(
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    source_port: &str,
    destination_port: &str,
) -> Result<Step, ProxyError> {
    // A port is written in decimal without leading zeros or signs.
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| port.to_string() == text);
    let address = |ip: Option<IpAddr>, port: Option<u16>| ip.zip(port).map(SocketAddr::from);
    let source = address(source, port(source_port)).ok_or(ProxyError::Malformed)?;
    let destination = address(destination, port(destination_port)).ok_or(ProxyError::Malformed)?;
    Ok(Step::Done(Header::Proxied { source, destination }))
}

fn version_2(bytes: &[u8]) -> Result<Step, ProxyError> {
    let &[command, family, high, low] = match bytes.get(SIGNATURE.len()..V2_FIXED) {
        Some(fixed) => fixed.first_chunk().ok_or(ProxyError::Malformed)?,
        None => return Ok(Step::Need(V2_FIXED - bytes.len())),
    };
    let length = V2_FIXED + usize::from(u16::from_be_bytes([high, low]));
    if length > V2_MAX {
        return Err(ProxyError::TooLong);
    }
    if bytes.len() < length {
        return Ok(Step::Need(length - bytes.len()));
    }
    let addresses = bytes.get(V2_FIXED..length).ok_or(ProxyError::Malformed)?;
    match (command, family) {
        // What it says of addresses is to be ignored (section 2.2).
        (0x20, _) | (0x21, 0x00) => Ok(Step::Done(Header::Local)),
        // TCP over IPv4, over IPv6; what follows the addresses are TLVs.
        (0x21, 0x11) => v2_pair::<4>(addresses),
        (0x21, 0x21) => v2_pair::<16>(addresses),
        // UDP, and Unix sockets.
        (0x21, 0x12 | 0x22 | 0x31 | 0x32) => Err(ProxyError::Family),
        _ => Err(ProxyError::Malformed),
    }
}

/// Source, destination, source port, destination port.
fn v2_pair<const OCTETS: usize>(block: &[u8]) -> Result<Step, ProxyError>
where
    IpAddr: From<[u8; OCTETS]>,
{
    let pair = || {
        let (source, rest) = block.split_first_chunk::<OCTETS>()?;
        let (destination, rest) = rest.split_first_chunk::<OCTETS>()?;
        let (source_port, rest) = rest.split_first_chunk::<2>()?;
        let destination_port = rest.first_chunk::<2>()?;
        let at = |ip: &[u8; OCTETS], port: &[u8; 2]| {
            SocketAddr::new(IpAddr::from(*ip), u16::from_be_bytes(*port))
        };
        Some((at(source, source_port), at(destination, destination_port)))
    };
    let (source, destination) = pair().ok_or(ProxyError::Malformed)?;
    Ok(Step::Done(Header::Proxied { source, destination }))
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
