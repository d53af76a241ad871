//! Frames made byte by byte, so that they can be as wrong as a test wants.

use std::net::IpAddr;

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;
pub(crate) const HOP_BY_HOP: u8 = 0;
pub(crate) const ROUTING: u8 = 43;
pub(crate) const FRAGMENT: u8 = 44;
pub(crate) const AUTHENTICATION: u8 = 51;
pub(crate) const DESTINATION: u8 = 60;

/// What a frame is made of. Every field may lie.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) tags: Vec<u16>,
    pub(crate) source: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) port: u16,
    /// The TCP flags: SYN is 2.
    pub(crate) flags: u8,
    /// IPv4 only: the header's length in words as it claims; options of that size are written.
    pub(crate) ihl: u8,
    /// The version's nibble, when it is not the family's own.
    pub(crate) version: Option<u8>,
    /// In units of eight bytes: of the IPv4 header, or of every IPv6 fragment header.
    pub(crate) fragment_offset: u16,
    /// IPv6 only: kind and content length in bytes of each extension header.
    pub(crate) extensions: Vec<(u8, usize)>,
}

impl Frame {
    /// A plain TCP segment to this port.
    pub(crate) fn tcp(source: IpAddr, port: u16) -> Self {
        Self {
            tags: Vec::new(),
            source,
            protocol: TCP,
            port,
            flags: 0x02,
            ihl: 5,
            version: None,
            fragment_offset: 0,
            extensions: Vec::new(),
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for tag in &self.tags {
            out.extend(tag.to_be_bytes());
            out.extend([0, 100]);
        }
        match self.source {
            IpAddr::V4(source) => {
                out.extend([0x08, 0x00]);
                self.ipv4(&mut out, source.octets());
            }
            IpAddr::V6(source) => {
                out.extend([0x86, 0xdd]);
                self.ipv6(&mut out, source.octets());
            }
        }
        out.extend(40_000u16.to_be_bytes());
        out.extend(self.port.to_be_bytes());
        out.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
        out
    }

    fn ipv4(&self, out: &mut Vec<u8>, source: [u8; 4]) {
        out.push(self.version.unwrap_or(4) << 4 | self.ihl);
        out.extend([0, 0, 40, 0, 1]);
        out.extend(self.fragment_offset.to_be_bytes());
        out.extend([64, self.protocol, 0, 0]);
        out.extend(source);
        out.extend([192, 0, 2, 254]);
        // No-operation options, which read as ports would be neither guarded nor short.
        out.extend(std::iter::repeat_n(1, usize::from(self.ihl.saturating_sub(5)) * 4));
    }

    fn ipv6(&self, out: &mut Vec<u8>, source: [u8; 16]) {
        let kinds: Vec<u8> =
            self.extensions.iter().map(|(kind, _)| *kind).chain([self.protocol]).collect();
        out.extend([self.version.unwrap_or(6) << 4, 0, 0, 0, 0, 20, kinds[0], 64]);
        out.extend(source);
        out.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        for ((kind, length), next) in self.extensions.iter().zip(&kinds[1..]) {
            match *kind {
                FRAGMENT => {
                    out.extend([*next, 0]);
                    out.extend((self.fragment_offset << 3 | 1).to_be_bytes());
                    out.extend([0, 0, 0, 1]);
                }
                AUTHENTICATION => {
                    let words = length.div_ceil(4);
                    out.extend([*next, (words + 1) as u8, 0, 0, 0, 0, 0, 1]);
                    out.extend(vec![0; words * 4]);
                    out.extend([0; 4]);
                }
                _ => {
                    let words = length.div_ceil(8);
                    out.extend([*next, words as u8, 1, 4, 0, 0, 0, 0]);
                    out.extend(vec![0; words * 8]);
                }
            }
        }
    }
}
