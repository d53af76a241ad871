//! A sorted set of prefixes, packed: a million of IPv4 take 8 MB.

use std::net::IpAddr;

use ipnet::IpNet;
use relay_common::parse::Family;
use thiserror::Error;

use super::span::Span;

mod packed;
mod set;

use packed::{Packed, V4, V6};
use set::Set;

/// More prefixes than the feed may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the list has more than {entries_max} prefixes")]
pub struct TooMany {
    pub entries_max: usize,
}

/// How much there is in a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Prefixes as they were read, those that are said twice included. A range of addresses counts
    /// as the prefixes that make it up.
    pub read: usize,
    /// IPv4 prefixes of the set.
    pub v4: usize,
    /// IPv6 prefixes of the set.
    pub v6: usize,
}

impl Counts {
    /// Prefixes of the set, of both families.
    pub const fn entries(self) -> usize {
        self.v4 + self.v6
    }
}

/// Takes the prefixes of a list in any order.
#[derive(Debug)]
pub struct Builder {
    v4: Vec<V4>,
    v6: Vec<V6>,
    entries_max: usize,
}

impl Builder {
    /// A builder for at most so many prefixes, counted as they are read. It holds 8 bytes for each
    /// of IPv4, and 17 for each of IPv6, besides what a growing vector has in reserve.
    pub fn new(entries_max: usize) -> Self {
        Self { v4: Vec::new(), v6: Vec::new(), entries_max }
    }

    /// Adds a prefix. Host bits are ignored; IPv4 in IPv6-mapped form is IPv4.
    pub fn push(&mut self, net: IpNet) -> Result<(), TooMany> {
        if self.read() >= self.entries_max {
            return Err(TooMany { entries_max: self.entries_max });
        }
        match Span::of(net) {
            (Family::V4, span) => self.v4.push(V4::pack(span)),
            (Family::V6, span) => self.v6.push(V6::pack(span)),
        }
        Ok(())
    }

    /// Prefixes taken so far.
    pub fn read(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// The smallest set of prefixes that covers the same addresses.
    pub fn finish(self) -> (Prefixes, Counts) {
        let read = self.read();
        let prefixes = Prefixes { v4: Set::of(self.v4), v6: Set::of(self.v6) };
        let (v4, v6) = (prefixes.len_v4(), prefixes.len_v6());
        (prefixes, Counts { read, v4, v6 })
    }
}

/// A set of prefixes: sorted by address, none within another, no two halves of a wider one. It
/// remembers of what it was made, so that some of that can be [left out](Self::leave_out).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefixes {
    v4: Set<V4>,
    v6: Set<V6>,
}

impl Prefixes {
    /// IPv4 prefixes.
    pub fn len_v4(&self) -> usize {
        self.v4.kept.len()
    }

    /// IPv6 prefixes.
    pub fn len_v6(&self) -> usize {
        self.v6.kept.len()
    }

    /// Prefixes of both families.
    pub fn len(&self) -> usize {
        self.len_v4() + self.len_v6()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every prefix of the set, IPv4 first, each family by address.
    pub fn iter(&self) -> impl Iterator<Item = IpNet> {
        let of = |family| self.spans(family).map(move |span| span.net(family));
        of(Family::V4).chain(of(Family::V6))
    }

    /// Every prefix that the set was made of, each once, in the same order. Written one a line, they
    /// are a list of [`Format::Cidr`](super::Format::Cidr) that makes up the same set again.
    pub fn said(&self) -> impl Iterator<Item = IpNet> {
        let v4 = self.v4.said().map(|span| span.net(Family::V4));
        v4.chain(self.v6.said().map(|span| span.net(Family::V6)))
    }

    /// The prefixes that the set was made of and that hold the address, the widest first.
    pub fn said_over(&self, address: IpAddr) -> Vec<IpNet> {
        let (family, span) = Span::of(IpNet::from(address));
        let net = |span: Span| span.net(family);
        match family {
            Family::V4 => self.v4.said_over(span).map(net).collect(),
            Family::V6 => self.v6.said_over(span).map(net).collect(),
        }
    }

    /// Makes the set anew without some of the prefixes that it was made of.
    pub fn leave_out(&mut self, nets: &[IpNet]) {
        let spans = |of: Family| {
            let of_family = nets.iter().map(|&net| Span::of(net)).filter(move |(f, _)| *f == of);
            of_family.map(|(_, span)| span).collect::<Vec<Span>>()
        };
        self.v4.leave_out(&spans(Family::V4));
        self.v6.leave_out(&spans(Family::V6));
    }

    /// The prefix of the set that holds the address.
    pub fn covering(&self, address: IpAddr) -> Option<IpNet> {
        self.covering_net(IpNet::from(address))
    }

    /// Whether every address of this prefix is in the set.
    pub fn contains(&self, net: IpNet) -> bool {
        self.covering_net(net).is_some()
    }

    /// The prefix of the set that this one is, or lies in.
    pub fn covering_net(&self, net: IpNet) -> Option<IpNet> {
        let (family, span) = Span::of(net);
        let found = match family {
            Family::V4 => self.v4.covering(span),
            Family::V6 => self.v6.covering(span),
        };
        found.map(|span| span.net(family))
    }

    pub(super) fn spans(&self, family: Family) -> Spans<'_> {
        match family {
            Family::V4 => Spans::V4(self.v4.kept.iter()),
            Family::V6 => Spans::V6(self.v6.kept.iter()),
        }
    }
}

/// The prefixes of one family, by address.
#[derive(Clone, Debug)]
pub(super) enum Spans<'a> {
    V4(std::slice::Iter<'a, V4>),
    V6(std::slice::Iter<'a, V6>),
}

impl Iterator for Spans<'_> {
    type Item = Span;

    fn next(&mut self) -> Option<Span> {
        match self {
            Self::V4(keys) => keys.next().map(|key| key.span()),
            Self::V6(keys) => keys.next().map(|key| key.span()),
        }
    }
}

#[cfg(test)]
mod tests;
