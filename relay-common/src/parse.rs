//! From the bytes of a frame to what the verdict needs: source address and class of traffic.
//!
//! Everything is optional in the eyes of this parser: what is short, malformed or unknown is a
//! value that lets the packet pass and be counted. The stack behind judges it as it always did.
//!
//! Length fields are not read. A frame may be padded to the Ethernet minimum, and an aggregate may
//! carry a length of 0 (BIG TCP); a packet that lies about its length is dropped by the stack.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::entry::Scope;

/// Where a frame's bytes come from: a slice here, the packet pointers in the kernel program.
pub trait Frame {
    /// `N` bytes from `offset`, or `None` where the frame (or its linear part) is shorter.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
}

impl Frame for [u8] {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// Bits of an address, which is the longest prefix.
    pub const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }
}

/// The address a packet claims to come from, in numbers: of arrays the compiler would make the kernel
/// program carry each byte by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The first octet is the most significant.
    V4(u32),
    /// The first and the last 64 bits (RFC 4291 section 2.5.1).
    V6 { network: u64, interface: u64 },
}

impl Source {
    pub const fn family(&self) -> Family {
        match self {
            Self::V4(_) => Family::V4,
            Self::V6 { .. } => Family::V6,
        }
    }
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::V4(v4.to_bits()),
            IpAddr::V6(v6) => {
                let bits = v6.to_bits();
                Self::V6 { network: (bits >> 64) as u64, interface: bits as u64 }
            }
        }
    }
}

impl From<Source> for IpAddr {
    fn from(source: Source) -> Self {
        match source {
            Source::V4(bits) => Ipv4Addr::from_bits(bits).into(),
            Source::V6 { network, interface } => {
                Ipv6Addr::from_bits(u128::from(network) << 64 | u128::from(interface)).into()
            }
        }
    }
}

/// What the verdict is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    pub source: Source,
    /// One bit: the class of the TCP destination port, or "not TCP". All bits of TCP where the
    /// port is hidden.
    pub class: Scope,
    /// The TCP destination port; 0 where there is none, or it is hidden.
    pub port: u16,
    /// The TCP flags; 0 where there are none, or a first fragment ends before them.
    pub flags: u8,
}

impl Packet {
    /// A connection to a TCP port that somebody asks about, of which no frame is at hand.
    pub const fn to_port(source: Source, port: u16) -> Self {
        Self { source, class: Scope::of_tcp_port(port), port, flags: 0 }
    }

    /// Traffic of a class that somebody asks about, of which no frame is at hand.
    pub const fn of_class(source: Source, class: Scope) -> Self {
        Self { source, class, port: 0, flags: 0 }
    }

    /// Whether its ports lie behind more extension headers than are looked through. It may be TCP
    /// to any port, and the stack would answer: from a denied source it must not pass.
    pub const fn hides_its_port(&self) -> bool {
        self.class.bits() == Scope::TCP.bits()
    }

    /// Whether it asks for a connection: SYN without ACK, RST or FIN (RFC 9293 section 3.1).
    pub const fn opens_connection(&self) -> bool {
        self.flags & (FIN | SYN | RST | ACK) == SYN
    }
}

/// Why a frame has no source and class to judge. It passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unjudged {
    /// ARP, LLDP, 802.3 and all else that is not IP.
    NotIp,
    /// A fragment after the first: it has no ports, and without its first it is worth nothing.
    LaterFragment(Family),
    Malformed(Malformed),
}

/// What is wrong with a frame. The numbers are places in the totals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Malformed {
    /// Ends within the Ethernet header or a VLAN tag.
    ShortEthernet = 0,
    /// A third VLAN tag.
    TooManyTags = 1,
    ShortIpv4 = 2,
    /// The version is not 4, or the header length is below five words.
    BadIpv4 = 3,
    ShortIpv6 = 4,
    /// The version is not 6.
    BadIpv6 = 5,
    /// Ends within an extension header.
    ShortExtension = 6,
    /// More extension headers than [`EXTENSIONS_MAX`], from a source that is not denied.
    TooManyExtensions = 7,
    /// TCP without its ports.
    ShortTcp = 8,
}

impl Malformed {
    pub const ALL: [Self; 9] = [
        Self::ShortEthernet,
        Self::TooManyTags,
        Self::ShortIpv4,
        Self::BadIpv4,
        Self::ShortIpv6,
        Self::BadIpv6,
        Self::ShortExtension,
        Self::TooManyExtensions,
        Self::ShortTcp,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::ShortEthernet => "short-ethernet",
            Self::TooManyTags => "too-many-tags",
            Self::ShortIpv4 => "short-ipv4",
            Self::BadIpv4 => "bad-ipv4",
            Self::ShortIpv6 => "short-ipv6",
            Self::BadIpv6 => "bad-ipv6",
            Self::ShortExtension => "short-extension",
            Self::TooManyExtensions => "too-many-extensions",
            Self::ShortTcp => "short-tcp",
        }
    }
}

/// VLAN tags that are looked through: a service tag and a customer tag (IEEE 802.1ad).
pub const TAGS_MAX: usize = 2;
/// Extension headers that are looked through. A packet in the order that RFC 8200 section 4.1
/// recommends has no more than seven.
pub const EXTENSIONS_MAX: usize = 8;

const TAG_CUSTOMER: u16 = 0x8100;
const TAG_SERVICE: u16 = 0x88a8;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;

const PROTOCOL_HOP_BY_HOP: u8 = 0;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_ROUTING: u8 = 43;
const PROTOCOL_FRAGMENT: u8 = 44;
const PROTOCOL_AUTHENTICATION: u8 = 51;
const PROTOCOL_DESTINATION: u8 = 60;
const PROTOCOL_MOBILITY: u8 = 135;
const PROTOCOL_HIP: u8 = 139;
const PROTOCOL_SHIM6: u8 = 140;

/// Reads a frame from its Ethernet header to its TCP ports.
///
/// # Errors
/// The frame has nothing that could be judged; see [`Unjudged`].
#[inline(always)]
pub fn parse<F: Frame + ?Sized>(frame: &F) -> Result<Packet, Unjudged> {
    match ethernet(frame)? {
        (Family::V4, offset) => ipv4(frame, offset),
        (Family::V6, offset) => ipv6(frame, offset),
    }
}

/// What is behind the VLAN tags, and where it begins.
///
/// # Errors
/// It is not IP, or the frame ends before.
#[inline(always)]
pub fn ethernet<F: Frame + ?Sized>(frame: &F) -> Result<(Family, usize), Unjudged> {
    let short = Unjudged::Malformed(Malformed::ShortEthernet);
    let mut ethertype = u16::from_be_bytes(frame.read(12).ok_or(short)?);
    let mut offset = 14;
    for _ in 0..TAGS_MAX {
        if !is_tag(ethertype) {
            break;
        }
        ethertype = u16::from_be_bytes(frame.read(offset + 2).ok_or(short)?);
        offset += 4;
    }
    match ethertype {
        ETHERTYPE_IPV4 => Ok((Family::V4, offset)),
        ETHERTYPE_IPV6 => Ok((Family::V6, offset)),
        tag if is_tag(tag) => Err(Unjudged::Malformed(Malformed::TooManyTags)),
        _ => Err(Unjudged::NotIp),
    }
}

const fn is_tag(ethertype: u16) -> bool {
    ethertype == TAG_CUSTOMER || ethertype == TAG_SERVICE
}

/// RFC 791 section 3.1.
///
/// # Errors
/// As [`parse`].
#[inline(always)]
pub fn ipv4<F: Frame + ?Sized>(frame: &F, offset: usize) -> Result<Packet, Unjudged> {
    let short = Unjudged::Malformed(Malformed::ShortIpv4);
    let header: [u8; 20] = frame.read(offset).ok_or(short)?;
    let [first, _, _, _, _, _, fragment_high, fragment_low, _, protocol, ..] = header;
    let [.., s0, s1, s2, s3, _, _, _, _] = header;
    let fragment = u16::from_be_bytes([fragment_high, fragment_low]);
    let source = u32::from_be_bytes([s0, s1, s2, s3]);
    let header_len = usize::from(first & 0x0f) * 4;
    if first >> 4 != 4 || header_len < 20 {
        return Err(Unjudged::Malformed(Malformed::BadIpv4));
    }
    // The low 13 bits are the fragment's offset.
    if fragment & 0x1fff != 0 {
        return Err(Unjudged::LaterFragment(Family::V4));
    }
    let source = Source::V4(source);
    match protocol {
        PROTOCOL_TCP => tcp(frame, source, offset + header_len),
        _ => Ok(Packet::of_class(source, Scope::of_other_protocol())),
    }
}

/// RFC 8200 sections 3 and 4.
///
/// # Errors
/// As [`parse`].
#[inline(always)]
pub fn ipv6<F: Frame + ?Sized>(frame: &F, offset: usize) -> Result<Packet, Unjudged> {
    let short = Unjudged::Malformed(Malformed::ShortIpv6);
    let [first, ..]: [u8; 1] = frame.read(offset).ok_or(short)?;
    let [next]: [u8; 1] = frame.read(offset + 6).ok_or(short)?;
    let network = u64::from_be_bytes(frame.read(offset + 8).ok_or(short)?);
    let interface = u64::from_be_bytes(frame.read(offset + 16).ok_or(short)?);
    let source = Source::V6 { network, interface };
    // The destination is not looked at, but must be there.
    let _: [u8; 1] = frame.read(offset + 39).ok_or(short)?;
    if first >> 4 != 6 {
        return Err(Unjudged::Malformed(Malformed::BadIpv6));
    }
    match skip_extensions(frame, next, offset + 40)? {
        (PROTOCOL_TCP, offset) => tcp(frame, source, offset),
        (protocol, _) if is_extension(protocol) => Ok(Packet::of_class(source, Scope::TCP)),
        _ => Ok(Packet::of_class(source, Scope::of_other_protocol())),
    }
}

/// The first protocol that is no extension header, and where it begins; an extension header behind
/// more of them than are looked through.
#[inline(always)]
fn skip_extensions<F: Frame + ?Sized>(
    frame: &F,
    first: u8,
    start: usize,
) -> Result<(u8, usize), Unjudged> {
    let (mut protocol, mut offset) = (first, start);
    for _ in 0..EXTENSIONS_MAX {
        if !is_extension(protocol) {
            return Ok((protocol, offset));
        }
        let [next, length, high, low]: [u8; 4] =
            frame.read(offset).ok_or(Unjudged::Malformed(Malformed::ShortExtension))?;
        offset += match protocol {
            PROTOCOL_FRAGMENT => {
                // The high 13 bits are the fragment's offset (RFC 8200 section 4.5).
                if u16::from_be_bytes([high, low]) & 0xfff8 != 0 {
                    return Err(Unjudged::LaterFragment(Family::V6));
                }
                8
            }
            // In words of four bytes, two of them not counted (RFC 4302 section 2.2).
            PROTOCOL_AUTHENTICATION => (usize::from(length) + 2) * 4,
            // In words of eight bytes, the first not counted.
            _ => (usize::from(length) + 1) * 8,
        };
        protocol = next;
    }
    Ok((protocol, offset))
}

const fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        PROTOCOL_HOP_BY_HOP
            | PROTOCOL_ROUTING
            | PROTOCOL_FRAGMENT
            | PROTOCOL_AUTHENTICATION
            | PROTOCOL_DESTINATION
            | PROTOCOL_MOBILITY
            | PROTOCOL_HIP
            | PROTOCOL_SHIM6
    )
}

/// The class of a TCP segment. Its ports are enough: a first fragment may hold no more, and its
/// reassembled whole would still open a connection (RFC 1858 section 3).
#[inline(always)]
fn tcp<F: Frame + ?Sized>(frame: &F, source: Source, offset: usize) -> Result<Packet, Unjudged> {
    if let Some(header) = frame.read::<14>(offset) {
        let port = u16::from_be_bytes([header[2], header[3]]);
        return Ok(Packet { flags: header[13], ..Packet::to_port(source, port) });
    }
    let ports: [u8; 4] = frame.read(offset).ok_or(Unjudged::Malformed(Malformed::ShortTcp))?;
    Ok(Packet::to_port(source, u16::from_be_bytes([ports[2], ports[3]])))
}

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use etherparse::{IpNumber, Ipv6RawExtHeader, PacketBuilder, TcpOptionElement};
    use proptest::prelude::*;

    use super::*;

    fn frame(source: IpAddr, port: u16) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let ip = match source {
            IpAddr::V4(v4) => ethernet.ipv4(v4.octets(), [192, 0, 2, 254], 64),
            IpAddr::V6(v6) => ethernet.ipv6(v6.octets(), [0x20; 16], 64),
        };
        let tcp = ip.tcp(40_000, port, 1, 65_535).syn();
        let mut bytes = Vec::new();
        tcp.options(&[TcpOptionElement::MaximumSegmentSize(1_460)])
            .unwrap()
            .write(&mut bytes, b"")
            .unwrap();
        bytes
    }

    fn malformed<T>(kind: Malformed) -> Result<T, Unjudged> {
        Err(Unjudged::Malformed(kind))
    }

    proptest! {
        /// An independent writer of headers is understood, and cut off anywhere it is "short".
        #[test]
        fn reads_what_another_library_writes(v6: bool, octets: [u8; 16], port: u16, cut in 0usize..200) {
            let source = if v6 { IpAddr::from(octets) } else { IpAddr::from([1, octets[1], 2, 3]) };
            let bytes = frame(source, port);
            let packet = Packet { flags: SYN, ..Packet::to_port(source.into(), port) };
            prop_assert_eq!(parse(&bytes[..]), Ok(packet));
            prop_assert!(packet.opens_connection());
            let ip_end = if v6 { 54 } else { 34 };
            let cut = cut.min(bytes.len());
            let expected = match cut {
                0..14 => malformed(Malformed::ShortEthernet),
                cut if cut < ip_end && v6 => malformed(Malformed::ShortIpv6),
                cut if cut < ip_end => malformed(Malformed::ShortIpv4),
                cut if cut < ip_end + 4 => malformed(Malformed::ShortTcp),
                cut if cut < ip_end + 14 => Ok(Packet { flags: 0, ..packet }),
                _ => Ok(packet),
            };
            prop_assert_eq!(parse(&bytes[..cut]), expected);
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes[..]);
        }
    }

    #[test]
    fn extension_headers_of_another_librarys_making() {
        let mut options = Ipv6RawExtHeader::new_raw(IpNumber::TCP, &[0; 14]).unwrap();
        options.next_header = IpNumber::TCP;
        let mut bytes = frame("2001:db8::1".parse().unwrap(), 25);
        let mut extension = Vec::new();
        options.write(&mut extension).unwrap();
        bytes.splice(54..54, extension.iter().copied());
        bytes[20] = PROTOCOL_DESTINATION;
        assert_eq!(parse(&bytes[..]).unwrap().class, Scope::MX);
        for cut in 54..58 {
            assert_eq!(parse(&bytes[..cut]), malformed(Malformed::ShortExtension));
        }
        assert_eq!(parse(&bytes[..70]), malformed(Malformed::ShortTcp));
    }

    #[test]
    fn reads_beyond_the_end_are_none_even_where_the_sum_overflows() {
        let bytes: &[u8] = &[1, 2, 3];
        assert_eq!(bytes.read::<2>(1), Some([2, 3]));
        assert_eq!(bytes.read::<2>(2), None);
        assert_eq!(bytes.read::<1>(usize::MAX), None);
    }
}
