//! The verdict on a packet, given the lists. Pure: the maps and the clock are behind a trait.

use crate::entry::{Entry, List, Scope};
use crate::parse::{Packet, Source};

/// The lists and the time, as the kernel maps, a userspace copy or a test's own oracle has them.
pub trait Lists {
    /// The entry with the longest prefix that matches the first `prefix_len` bits of the source,
    /// and is itself no longer than that. This is what an LPM trie answers to a key that long.
    fn longest(&self, list: List, source: &Source, prefix_len: u8) -> Option<Entry>;

    /// Second on CLOCK_BOOTTIME. Asked for only when an entry that expires was found, because the
    /// clock is dearer than the rest of the work on a packet that matches nothing.
    fn now_s(&self) -> u32;
}

/// What becomes of a packet, and by which entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No deny entry speaks about this class of traffic: passes without a lookup.
    Unguarded,
    /// Passes, whatever the deny list says.
    Allowed(Entry),
    /// Passes: nothing in force matches.
    Clean,
    /// Dropped.
    Denied(Entry),
}

impl Verdict {
    pub const fn drops(&self) -> bool {
        matches!(self, Self::Denied(_))
    }

    /// The entry that decided, if one did.
    pub const fn entry(&self) -> Option<&Entry> {
        match self {
            Self::Allowed(entry) | Self::Denied(entry) => Some(entry),
            Self::Unguarded | Self::Clean => None,
        }
    }
}

/// Judges a packet. `guarded` is the union of the scopes of all deny entries, so that traffic no
/// entry speaks about costs nothing.
#[inline(always)]
pub fn decide<L: Lists>(lists: &L, guarded: Scope, packet: &Packet) -> Verdict {
    if !guarded.intersects(packet.class) {
        return Verdict::Unguarded;
    }
    if let Some(entry) = in_force(lists, List::Allow, packet) {
        return Verdict::Allowed(entry);
    }
    match in_force(lists, List::Deny, packet) {
        Some(entry) => Verdict::Denied(entry),
        None => Verdict::Clean,
    }
}

/// The longest entry that matches, lives and speaks about this class of traffic. A trie answers
/// with the longest match alone, so one that is expired or about other ports must not hide a
/// wider one: the walk asks again for less than the prefix it got.
#[inline(always)]
fn in_force<L: Lists>(lists: &L, list: List, packet: &Packet) -> Option<Entry> {
    let bits = packet.source.family().bits();
    let mut prefix_len = bits;
    // Each step shortens the prefix, so 33 steps for v4 and 129 for v6 see every nested entry.
    for _ in 0..=bits {
        let entry = lists.longest(list, &packet.source, prefix_len)?;
        let lives = entry.expires_s == 0 || entry.is_live(lists.now_s());
        if lives && entry.scope.intersects(packet.class) {
            return Some(entry);
        }
        // An entry that claims to be longer than what was asked for must not stop the walk.
        let matched = if entry.prefix_len < prefix_len { entry.prefix_len } else { prefix_len };
        if matched == 0 {
            return None;
        }
        prefix_len = matched - 1;
    }
    None
}
