//! A prefix of either family as numbers that one piece of code can work on.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use relay_common::parse::Family;

use crate::prefix::canonical_net;

/// A prefix of a family that the context knows. Sorted by address, the wider of two first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    /// The network, from the highest bit on: an IPv4 address stands in the upper 32. What is beyond
    /// the length is zero.
    pub(super) bits: u128,
    pub(super) len: u8,
}

impl Span {
    /// Host bits are cut off, and an IPv4 network in IPv6 form is taken as IPv4.
    pub(super) fn of(net: IpNet) -> (Family, Self) {
        match canonical_net(net) {
            IpNet::V4(v4) => {
                let bits = u128::from(u32::from(v4.addr())) << 96;
                (Family::V4, Self { bits, len: v4.prefix_len() })
            }
            IpNet::V6(v6) => (Family::V6, Self { bits: v6.addr().into(), len: v6.prefix_len() }),
        }
    }

    pub(super) fn net(self, family: Family) -> IpNet {
        match family {
            Family::V4 => {
                let network = Ipv4Addr::from((self.bits >> 96) as u32);
                IpNet::V4(Ipv4Net::new_assert(network, self.len))
            }
            Family::V6 => IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from(self.bits), self.len)),
        }
    }

    pub(super) fn covers(self, other: Self) -> bool {
        self.len <= other.len && (self.bits ^ other.bits) & mask(self.len) == 0
    }

    /// The prefix of this length, which is no longer than its own, that holds this one.
    pub(super) fn widened(self, len: u8) -> Self {
        Self { bits: self.bits & mask(len), len }
    }

    /// The prefix one bit shorter that this one and the next make up together, if they do. This one
    /// must be the first of the two.
    pub(super) fn joined(self, next: Self) -> Option<Self> {
        let len = self.len.checked_sub(1)?;
        let halves = self.bits ^ next.bits == 1 << (127 - u32::from(len));
        (self.len == next.len && halves).then_some(Self { bits: self.bits, len })
    }
}

fn mask(len: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)
}
