//! Addresses of the SMTP envelope: the grammar of RFC 5321 section 4.1.2, and nothing looser.
//!
//! A quoted local part is stored as what it means (`"a b"` is `a b`), so two spellings of one
//! mailbox compare equal; printing quotes it again where the grammar needs that. Domains are
//! stored in lower case and A-labels, whatever they were written in. UTF-8 is read as RFC 6531 has
//! it; whether it is welcome, [`command`](super::command) knows. Source routes are parsed and kept in sight, for policy to refuse and
//! for routing to ignore (RFC 5321 section 3.6.1 and appendix C).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

mod scan;

use scan::{Scanner, is_dot_string};

/// Longest local part in octets. RFC 5321 section 4.5.3.1.1 promises 64 and asks receivers to
/// take more where they can: bounce-tagging (VERP, SRS, BATV) often needs it.
pub const LOCAL_PART_MAX: usize = 128;
/// Longest domain in octets (RFC 5321 section 4.5.3.1.2).
pub const DOMAIN_MAX: usize = 255;
/// Longest label of a domain in octets (RFC 1035 section 2.3.4).
pub const LABEL_MAX: usize = 63;
/// Most hops of a source route that are kept; a longer one is a syntax error.
pub const ROUTE_MAX: usize = 16;

/// Why a path or an address was not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not in the grammar of RFC 5321 section 4.1.2.
    #[error("malformed address")]
    Syntax,
    /// Local part, domain, label or source route longer than the limits above.
    #[error("address too long")]
    TooLong,
    /// Octets outside ASCII: those need SMTPUTF8 (RFC 6531).
    #[error("address is not ASCII")]
    NotAscii,
    /// An address literal of a kind other than IPv4 and IPv6.
    #[error("unknown kind of address literal")]
    UnknownLiteral,
}

/// The right-hand side of a mailbox: a name in lower case, or an address literal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Domain {
    /// A host or domain name, in lower case, without a trailing dot.
    Name(String),
    /// `[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321 section 4.1.3).
    Literal(IpAddr),
}

impl Domain {
    /// The name, unless this is an address literal.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name),
            Self::Literal(_) => None,
        }
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Literal(IpAddr::V4(address)) => write!(f, "[{address}]"),
            Self::Literal(IpAddr::V6(address)) => write!(f, "[IPv6:{address}]"),
        }
    }
}

impl FromStr for Domain {
    type Err = AddressError;

    /// A whole string that is a domain or an address literal.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let mut scanner = Scanner::new(text);
        let domain = scanner.domain()?;
        scanner.end()?;
        Ok(domain)
    }
}

/// A way to hide a second address inside a local part. All of them are plain local parts to the
/// grammar; only the host that owns the domain may interpret them, so a relay must not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoutingTrick {
    /// `user%elsewhere.example@here.example`
    Percent,
    /// `elsewhere.example!user@here.example`
    Bang,
    /// `"user@elsewhere.example"@here.example`
    NestedAt,
}

/// `local@domain`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mailbox {
    local: String,
    domain: Domain,
}

impl Mailbox {
    /// The local part as it is meant: unquoted, case kept. It may hold anything printable, spaces,
    /// quotes and pipes included.
    pub fn local(&self) -> &str {
        &self.local
    }

    /// The domain.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// The trick that the local part could play on a host that interprets it, if any.
    pub fn routing_trick(&self) -> Option<RoutingTrick> {
        self.local.bytes().find_map(|byte| match byte {
            b'@' => Some(RoutingTrick::NestedAt),
            b'!' => Some(RoutingTrick::Bang),
            b'%' => Some(RoutingTrick::Percent),
            _ => None,
        })
    }

    /// Whether it can be written without UTF-8: its domain always can.
    pub fn is_ascii(&self) -> bool {
        self.local.is_ascii()
    }

    /// Whether this is the postmaster of its domain (RFC 5321 section 4.5.1: in any case).
    pub fn is_postmaster(&self) -> bool {
        self.local.eq_ignore_ascii_case("postmaster")
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_dot_string(&self.local) {
            return write!(f, "{}@{}", self.local, self.domain);
        }
        f.write_str("\"")?;
        for c in self.local.chars() {
            if matches!(c, '"' | '\\') {
                f.write_str("\\")?;
            }
            write!(f, "{c}")?;
        }
        write!(f, "\"@{}", self.domain)
    }
}

impl FromStr for Mailbox {
    type Err = AddressError;

    /// A whole string that is a mailbox, without angle brackets.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let mut scanner = Scanner::new(text);
        let mailbox = scanner.mailbox()?;
        scanner.end()?;
        Ok(mailbox)
    }
}

/// A mailbox and the source route before it, outermost hop first. The route is there to be seen:
/// delivery ignores it, as RFC 5321 section 3.6.1 says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Path {
    /// Hops named before the mailbox; empty in all honest mail.
    pub route: Vec<Domain>,
    /// The mailbox meant.
    pub mailbox: Mailbox,
}

/// The argument of MAIL FROM.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ReversePath {
    /// `<>`: notifications, which must never be answered by another.
    Null,
    /// A mailbox.
    Path(Path),
}

impl ReversePath {
    /// Reads a path with its angle brackets from the start of `text`; returns what follows it.
    pub fn parse(text: &str) -> Result<(Self, &str), AddressError> {
        let mut scanner = Scanner::open_path(text)?;
        let path = if scanner.take(b'>') { Self::Null } else { Self::Path(scanner.close_path()?) };
        Ok((path, &text[scanner.position()..]))
    }

    /// The mailbox, unless this is the null reverse-path.
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            Self::Null => None,
            Self::Path(path) => Some(&path.mailbox),
        }
    }
}

/// Without angle brackets and without the source route: empty for the null reverse-path.
impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.mailbox().map_or(Ok(()), |mailbox| mailbox.fmt(f))
    }
}

/// The argument of RCPT TO.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ForwardPath {
    /// `<postmaster>` without a domain, in any case: this gateway's own (RFC 5321 section 4.5.1).
    Postmaster,
    /// A mailbox.
    Path(Path),
}

impl ForwardPath {
    /// Reads a path with its angle brackets from the start of `text`; returns what follows it.
    pub fn parse(text: &str) -> Result<(Self, &str), AddressError> {
        const POSTMASTER: &str = "<postmaster>";
        let head = text.as_bytes().get(..POSTMASTER.len());
        if head.is_some_and(|head| head.eq_ignore_ascii_case(POSTMASTER.as_bytes())) {
            return Ok((Self::Postmaster, &text[POSTMASTER.len()..]));
        }
        let mut scanner = Scanner::open_path(text)?;
        let path = scanner.close_path()?;
        Ok((Self::Path(path), &text[scanner.position()..]))
    }

    /// The mailbox, unless this is the bare postmaster.
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            Self::Postmaster => None,
            Self::Path(path) => Some(&path.mailbox),
        }
    }

    /// The source route, outermost hop first; empty in all honest mail.
    pub fn route(&self) -> &[Domain] {
        match self {
            Self::Postmaster => &[],
            Self::Path(path) => &path.route,
        }
    }

    /// Whether it reaches a postmaster, with a domain or without.
    pub fn is_postmaster(&self) -> bool {
        self.mailbox().is_none_or(Mailbox::is_postmaster)
    }
}

/// Without angle brackets and without the source route.
impl fmt::Display for ForwardPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postmaster => f.write_str("postmaster"),
            Self::Path(path) => path.mailbox.fmt(f),
        }
    }
}

#[cfg(test)]
#[path = "address_tests.rs"]
mod tests;
