//! One question over rtnetlink: what is an interface called, is it up, and which XDP program does it
//! run, in which mode?

use std::io::{self, Read, Write};

use socket2::{Domain, Protocol, Socket, Type};

use super::link::Hook;

/// An interface as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) name: String,
    /// Set up by the administrator; the cable may still be out.
    pub(super) up: bool,
    /// Whether its frames begin with an Ethernet header, as the program takes for granted.
    pub(super) is_ethernet: bool,
    pub(super) program: Option<Attached>,
}

/// The program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attached {
    pub(super) program_id: u32,
    pub(super) hook: Hook,
}

const IFLA_IFNAME: u16 = 3;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
const XDP_ATTACHED_DRV: u8 = 1;
const XDP_ATTACHED_SKB: u8 = 2;
/// Lengths of struct nlmsghdr and struct ifinfomsg.
const HEADER: usize = 16;
const IFINFO: usize = 16;
/// An answer about one interface is some 1.5 KiB; with many virtual functions more.
const ANSWER_MAX: usize = 65_536;

/// The index of an interface in this thread's network namespace.
pub(super) fn ifindex(interface: &str) -> io::Result<u32> {
    Ok(nix::net::if_::if_nametoindex(interface)?)
}

/// An interface by its index; `None` where no interface of this namespace has it.
pub(super) fn device(ifindex: u32) -> io::Result<Option<Device>> {
    let answer = match ask(ifindex) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(None),
        asked => asked?,
    };
    let Some((info, attributes)) =
        answer.get(HEADER..).and_then(|rest| rest.split_at_checked(IFINFO))
    else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    // struct ifinfomsg: family, padding, type, index, then the flags.
    let kind = info[2..].first_chunk().copied().map_or(0, u16::from_ne_bytes);
    let flags = info[8..].first_chunk().copied().map_or(0, u32::from_ne_bytes);
    let name = attribute(attributes, IFLA_IFNAME).unwrap_or_default();
    let name = name.strip_suffix(&[0]).unwrap_or(name);
    Ok(Some(Device {
        name: String::from_utf8_lossy(name).into_owned(),
        is_ethernet: [libc::ARPHRD_ETHER, libc::ARPHRD_LOOPBACK].contains(&kind),
        up: flags & (libc::IFF_UP as u32) != 0,
        program: attribute(attributes, IFLA_XDP).and_then(program_in),
    }))
}

/// The XDP program of an interface, if it runs one.
pub(super) fn attached(ifindex: u32) -> io::Result<Option<Attached>> {
    Ok(device(ifindex)?.and_then(|device| device.program))
}

fn program_in(xdp: &[u8]) -> Option<Attached> {
    let hook = match attribute(xdp, IFLA_XDP_ATTACHED).and_then(|value| value.first()) {
        Some(&XDP_ATTACHED_SKB) => Hook::Generic,
        // Offloaded, or in several modes at once: none of ours, but there.
        Some(&mode) if mode >= XDP_ATTACHED_DRV => Hook::Native,
        _ => return None,
    };
    let id = attribute(xdp, IFLA_XDP_PROG_ID).and_then(|value| value.first_chunk());
    Some(Attached { program_id: id.copied().map_or(0, u32::from_ne_bytes), hook })
}

/// Sends RTM_GETLINK for one interface, and returns the answer, cut to its own length.
fn ask(ifindex: u32) -> io::Result<Vec<u8>> {
    let protocol = Protocol::from(libc::NETLINK_ROUTE);
    let mut socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(protocol))?;
    // Not connected to anyone: a netlink socket then talks with the kernel.
    let mut request = Vec::with_capacity(HEADER + IFINFO);
    request.extend(((HEADER + IFINFO) as u32).to_ne_bytes());
    request.extend(libc::RTM_GETLINK.to_ne_bytes());
    request.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    request.extend([0; 8]); // sequence and port: one question, one answer
    request.extend([0; 4]); // family, padding, type
    request.extend(ifindex.to_ne_bytes());
    request.extend([0; 8]); // flags and their mask
    socket.write_all(&request)?;
    let mut answer = vec![0; ANSWER_MAX];
    let received = socket.read(&mut answer)?;
    answer.truncate(received);
    let length = answer.first_chunk().copied().map_or(0, u32::from_ne_bytes) as usize;
    let kind = answer.get(4..6).and_then(|kind| kind.first_chunk().copied());
    match kind.map(u16::from_ne_bytes) {
        Some(libc::RTM_NEWLINK) => {
            answer.truncate(length);
            Ok(answer)
        }
        // struct nlmsgerr begins with a negative errno.
        Some(kind) if i32::from(kind) == libc::NLMSG_ERROR => {
            let errno = answer.get(HEADER..).and_then(|rest| rest.first_chunk().copied());
            Err(io::Error::from_raw_os_error(-errno.map_or(-libc::EIO, i32::from_ne_bytes)))
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The value of the first attribute of this kind (struct rtattr: length, kind, value, padding).
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let Some(&[l0, l1, k0, k1]) = attributes.first_chunk() {
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        // The two high bits say "nested" and "network byte order".
        let kind = u16::from_ne_bytes([k0, k1]) & 0x3fff;
        let value = attributes.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_named_and_runs_no_program() {
        let device = device(ifindex("lo").unwrap()).unwrap().unwrap();
        assert_eq!((device.name.as_str(), device.program), ("lo", None));
    }

    #[test]
    fn an_index_nobody_has_is_no_device() {
        assert_eq!(device(i32::MAX as u32).unwrap(), None);
    }

    #[test]
    fn attributes_are_found_behind_padding_and_cut_off_ones_are_not() {
        let mut bytes = vec![5, 0, 1, 0, 9, 0, 0, 0];
        bytes.extend([6, 0, 2, 0x80, 7, 8, 0, 0]);
        assert_eq!(attribute(&bytes, 2), Some(&[7, 8][..]));
        assert_eq!(attribute(&bytes, 3), None);
        assert_eq!(attribute(&bytes[..13], 2), None);
        assert_eq!(attribute(&[0, 0, 1, 0, 0, 0, 0, 0], 2), None);
    }
}
