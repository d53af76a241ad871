//! Reads the grammar of addresses, octet by octet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use idna::AsciiDenyList;
use idna::uts46::{DnsLength, Hyphens, Uts46};

use super::{
    AddressError, DOMAIN_MAX, Domain, LABEL_MAX, LOCAL_PART_MAX, Mailbox, Path, ROUTE_MAX,
};

/// RFC 5322 section 3.2.3 `atext`, and beyond ASCII RFC 6531 section 3.3.
fn is_atext(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte) || !byte.is_ascii()
}

/// RFC 5321 section 4.1.2 `Dot-string`: what needs no quotes.
pub(super) fn is_dot_string(local: &str) -> bool {
    local.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_atext))
}

/// A cursor over the text of one path. `at` counts octets from its start, and stands between
/// characters: all octets beyond ASCII are taken alike.
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Octets read so far.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Past the opening angle bracket.
    pub(super) fn open_path(text: &'a str) -> Result<Self, AddressError> {
        let mut scanner = Self::new(text);
        scanner.expect(b'<')?;
        Ok(scanner)
    }

    /// `[ A-d-l ":" ] Mailbox ">"`
    pub(super) fn close_path(&mut self) -> Result<Path, AddressError> {
        let mut route = Vec::new();
        if self.peek() == Some(b'@') {
            loop {
                self.expect(b'@')?;
                route.push(self.domain()?);
                if route.len() > ROUTE_MAX {
                    return Err(AddressError::TooLong);
                }
                if !self.take(b',') {
                    break;
                }
            }
            self.expect(b':')?;
        }
        let mailbox = self.mailbox()?;
        self.expect(b'>')?;
        Ok(Path { route, mailbox })
    }

    pub(super) fn mailbox(&mut self) -> Result<Mailbox, AddressError> {
        let local =
            if self.peek() == Some(b'"') { self.quoted_string()? } else { self.dot_string()? };
        if local.len() > LOCAL_PART_MAX {
            return Err(AddressError::TooLong);
        }
        // Those of ASCII are not in the grammar; beyond it there are more (U+0080 to U+009F).
        if local.contains(char::is_control) {
            return Err(AddressError::Syntax);
        }
        self.expect(b'@')?;
        Ok(Mailbox { local, domain: self.domain()? })
    }

    fn dot_string(&mut self) -> Result<String, AddressError> {
        let local = self.run(|byte| is_atext(byte) || byte == b'.');
        if is_dot_string(local) { Ok(local.to_owned()) } else { Err(AddressError::Syntax) }
    }

    /// `DQUOTE *QcontentSMTP DQUOTE`, unquoted.
    fn quoted_string(&mut self) -> Result<String, AddressError> {
        self.expect(b'"')?;
        let mut local = Vec::new();
        loop {
            let byte = match self.next()? {
                b'"' => return String::from_utf8(local).map_err(|_| AddressError::Syntax),
                // A `quoted-pair` is of ASCII alone.
                b'\\' => self.next().and_then(|byte| {
                    if byte.is_ascii() { Ok(byte) } else { Err(AddressError::Syntax) }
                })?,
                byte => byte,
            };
            if !matches!(byte, b' '..=b'~' | 0x80..) {
                return Err(AddressError::Syntax);
            }
            if local.len() > LOCAL_PART_MAX {
                return Err(AddressError::TooLong);
            }
            local.push(byte);
        }
    }

    pub(super) fn domain(&mut self) -> Result<Domain, AddressError> {
        if self.take(b'[') {
            return self.literal();
        }
        // Underscores are not in RFC 5321's grammar, but in names that DNS has.
        let in_name =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | 0x80..);
        let name = self.run(in_name);
        if !name.is_ascii() {
            return u_labels(name);
        }
        // The root's own label: the same name to DNS, and to policy it must be no other.
        let name = name.strip_suffix('.').unwrap_or(name);
        if name.len() > DOMAIN_MAX || name.split('.').any(|label| label.len() > LABEL_MAX) {
            return Err(AddressError::TooLong);
        }
        let label_ok =
            |label: &str| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-');
        if name.split('.').all(label_ok) {
            Ok(Domain::Name(name.to_ascii_lowercase()))
        } else {
            Err(AddressError::Syntax)
        }
    }

    /// RFC 5321 section 4.1.3, after the opening bracket.
    fn literal(&mut self) -> Result<Domain, AddressError> {
        let text = self.run(|byte| matches!(byte, b'!'..=b'Z' | b'^'..=b'~'));
        self.expect(b']')?;
        let tag_end = text.find(':').map_or(0, |colon| colon + 1);
        let (tag, rest) = text.split_at(tag_end);
        let address = if tag.is_empty() {
            IpAddr::V4(text.parse::<Ipv4Addr>().map_err(|_| AddressError::Syntax)?)
        } else if tag.eq_ignore_ascii_case("IPv6:") {
            IpAddr::V6(rest.parse::<Ipv6Addr>().map_err(|_| AddressError::Syntax)?)
        } else {
            return Err(AddressError::UnknownLiteral);
        };
        Ok(Domain::Literal(address))
    }

    fn run(&mut self, accept: impl Fn(u8) -> bool) -> &'a str {
        let rest = &self.text[self.at..];
        let length = rest.bytes().position(|byte| !accept(byte)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn next(&mut self) -> Result<u8, AddressError> {
        let byte = self.peek().ok_or(AddressError::Syntax)?;
        self.at += 1;
        Ok(byte)
    }

    pub(super) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<(), AddressError> {
        if self.take(byte) { Ok(()) } else { Err(AddressError::Syntax) }
    }

    pub(super) fn end(&self) -> Result<(), AddressError> {
        if self.at == self.text.len() { Ok(()) } else { Err(AddressError::Syntax) }
    }
}

/// A name with labels beyond ASCII, as DNS and policy know it (RFC 6531 section 3.2, UTS 46).
fn u_labels(name: &str) -> Result<Domain, AddressError> {
    let name = name.strip_suffix('.').unwrap_or(name);
    // A character of a U-label is at least one of its A-label.
    if name.chars().count() > DOMAIN_MAX {
        return Err(AddressError::TooLong);
    }
    Uts46::new()
        .to_ascii(name.as_bytes(), AsciiDenyList::STD3, Hyphens::CheckFirstLast, DnsLength::Verify)
        .map(|name| Domain::Name(name.into_owned()))
        .map_err(|_| AddressError::Syntax)
}
