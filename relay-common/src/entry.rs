//! One line of an allow or deny list, as the kernel sees it.

use core::fmt;

/// Which of the two lists an entry stands in. Allow beats deny, at insert and at lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum List {
    Allow,
    Deny,
}

impl List {
    pub const ALL: [Self; 2] = [Self::Allow, Self::Deny];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which traffic an entry speaks about: a set of port classes, one bit for each.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scope(u8);

impl Scope {
    pub const NONE: Self = Self(0);
    /// TCP port 25, where other mail servers call.
    pub const MX: Self = Self(1);
    /// TCP ports 465 and 587, where the organisation's own users call.
    pub const SUBMISSION: Self = Self(2);
    /// Every mail port: 25, 465 and 587.
    pub const SMTP: Self = Self(1 | 2);
    /// Every TCP port, SSH included.
    pub const TCP: Self = Self(1 | 2 | 4);
    /// Every packet, ICMP and DNS replies included.
    pub const ALL: Self = Self(1 | 2 | 4 | 8);

    /// The scopes an administrator can name, narrowest first.
    pub const NAMED: [(&'static str, Self); 5] = [
        ("mx", Self::MX),
        ("submission", Self::SUBMISSION),
        ("smtp", Self::SMTP),
        ("tcp", Self::TCP),
        ("all", Self::ALL),
    ];

    /// The class of a TCP packet with this destination port: exactly one bit.
    pub const fn of_tcp_port(port: u16) -> Self {
        match port {
            25 => Self::MX,
            465 | 587 => Self::SUBMISSION,
            _ => Self(4),
        }
    }

    /// The class of a packet that is not TCP: exactly one bit.
    pub const fn of_other_protocol() -> Self {
        Self(8)
    }

    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Unknown bits are dropped.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & Self::ALL.0)
    }

    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The set with these bits changed; for 0, the same. Unlike [`Scope::from_bits`] this says
    /// nothing about the result that the verifier could hold on to.
    #[inline(always)]
    pub const fn mixed(self, bits: u8) -> Self {
        Self(self.0 ^ bits)
    }

    /// The classes of this set that the other has not.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMED.iter().find(|(known, _)| *known == name).map(|&(_, scope)| scope)
    }

    /// The name of a set that has one. Unions that merging made may have none (`mx` with
    /// `submission` is `smtp`, so only sets with holes lack a name).
    pub fn name(self) -> Option<&'static str> {
        Self::NAMED.iter().find(|&&(_, scope)| scope == self).map(|&(name, _)| name)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "0x{:x}", self.0),
        }
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scope({self})")
    }
}

/// Why an entry exists. Drops are counted by reason, so the numbers are part of the map layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Reason {
    /// An administrator's own decision.
    Manual = 0,
    /// A line of an imported file or of a feed.
    Import = 1,
    /// The source is on a DNS block list.
    Dnsbl = 2,
    /// A source on the never-route list tried to relay.
    NeverRoute = 3,
    /// Repeated attempts to relay where that is prohibited.
    RelayProbe = 4,
    /// Guessing passwords.
    AuthFailure = 5,
    /// Talking before the banner.
    Pregreet = 6,
    /// Breaking the protocol.
    Protocol = 7,
    /// Writing to a trap recipient.
    Trap = 8,
}

impl Reason {
    pub const ALL: [Self; 9] = [
        Self::Manual,
        Self::Import,
        Self::Dnsbl,
        Self::NeverRoute,
        Self::RelayProbe,
        Self::AuthFailure,
        Self::Pregreet,
        Self::Protocol,
        Self::Trap,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Import => "import",
            Self::Dnsbl => "dnsbl",
            Self::NeverRoute => "never-route",
            Self::RelayProbe => "relay-probe",
            Self::AuthFailure => "auth-failure",
            Self::Pregreet => "pregreet",
            Self::Protocol => "protocol",
            Self::Trap => "trap",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }

    /// The reason with this number; `None` for a number no layout has used.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The value of an LPM node. An update replaces the node whole, so a reader never sees half of it,
/// and counters live elsewhere.
///
/// In the maps: 12 bytes, native byte order, no part wider than four bytes, because the value of a
/// trie with a four-byte key is aligned to four.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Second on CLOCK_BOOTTIME from which the entry is dead; 0 = it never dies.
    pub expires_s: u32,
    /// Index of the entry's rule in the counter map.
    pub rule: u32,
    pub reason: u8,
    /// Traffic that is dropped, or allowed.
    pub scope: Scope,
    /// Traffic that a rule under observation would drop: it passes and is counted.
    pub observed: Scope,
    /// The length of the entry's own prefix, so that a lookup can walk on to the next wider one.
    pub prefix_len: u8,
}

impl Entry {
    pub const SIZE: usize = 12;

    /// An entry of an unspecified prefix that lives for ever and observes nothing.
    pub const fn new(scope: Scope, reason: Reason, rule: u32) -> Self {
        let observed = Scope::NONE;
        Self { expires_s: 0, rule, reason: reason as u8, scope, observed, prefix_len: 0 }
    }

    /// Whether the entry is in force at this second of CLOCK_BOOTTIME.
    pub const fn is_live(&self, now_s: u32) -> bool {
        self.expires_s == 0 || now_s < self.expires_s
    }

    pub const fn to_bytes(self) -> [u8; Self::SIZE] {
        let e = self.expires_s.to_ne_bytes();
        let r = self.rule.to_ne_bytes();
        [
            e[0],
            e[1],
            e[2],
            e[3],
            r[0],
            r[1],
            r[2],
            r[3],
            self.reason,
            self.scope.bits(),
            self.prefix_len,
            self.observed.bits(),
        ]
    }

    pub const fn from_bytes(b: [u8; Self::SIZE]) -> Self {
        Self::from_words([
            u32::from_ne_bytes([b[0], b[1], b[2], b[3]]),
            u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
            u32::from_ne_bytes([b[8], b[9], b[10], b[11]]),
        ])
    }

    /// The same bytes, as the kernel program loads them.
    #[inline(always)]
    pub const fn from_words([expires_s, rule, rest]: [u32; Self::SIZE / 4]) -> Self {
        let [reason, scope, prefix_len, observed] = rest.to_ne_bytes();
        let (scope, observed) = (Scope::from_bits(scope), Scope::from_bits(observed));
        Self { expires_s, rule, reason, scope, observed, prefix_len }
    }

    /// The same in words of 64 bits, as a meaning stands in its map.
    #[inline(always)]
    pub const fn to_meaning(self) -> [u64; 2] {
        let rest = [self.reason, self.scope.bits(), self.prefix_len, self.observed.bits()];
        let rest = u32::from_ne_bytes(rest);
        [self.expires_s as u64 | (self.rule as u64) << 32, rest as u64]
    }

    #[inline(always)]
    pub const fn from_meaning([low, high]: [u64; 2]) -> Self {
        Self::from_words([low as u32, (low >> 32) as u32, high as u32])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_trip() {
        let entry = Entry {
            expires_s: 77,
            rule: 65_000,
            reason: 3,
            scope: Scope::SMTP,
            observed: Scope::MX,
            prefix_len: 24,
        };
        assert_eq!(Entry::from_bytes(entry.to_bytes()), entry);
        assert_eq!(Entry::from_meaning(entry.to_meaning()), entry);
    }

    #[test]
    fn an_entry_dies_at_its_second_and_zero_never_dies() {
        let mut entry = Entry { expires_s: 10, ..Entry::new(Scope::MX, Reason::Manual, 0) };
        assert!(entry.is_live(9));
        assert!(!entry.is_live(10));
        entry.expires_s = 0;
        assert!(entry.is_live(u32::MAX));
    }

    #[test]
    fn scopes_close_the_ports_they_name() {
        let closes = |scope: Scope, port| scope.intersects(Scope::of_tcp_port(port));
        assert!(closes(Scope::MX, 25) && !closes(Scope::MX, 587) && !closes(Scope::MX, 22));
        assert!(closes(Scope::SMTP, 25) && closes(Scope::SMTP, 465) && !closes(Scope::SMTP, 22));
        assert!(closes(Scope::TCP, 22) && !Scope::TCP.intersects(Scope::of_other_protocol()));
        assert!(Scope::ALL.intersects(Scope::of_other_protocol()));
    }

    #[test]
    fn reasons_have_the_numbers_of_their_places() {
        for (place, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
            assert_eq!(Reason::from_name(reason.name()), Some(reason));
        }
    }
}
