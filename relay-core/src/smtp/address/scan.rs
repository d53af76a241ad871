//! Reads the grammar of addresses, octet by octet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    AddressError, DOMAIN_MAX, Domain, LABEL_MAX, LOCAL_PART_MAX, Mailbox, Path, ROUTE_MAX,
};

/// RFC 5322 section 3.2.3 `atext`.
fn is_atext(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

/// RFC 5321 section 4.1.2 `Dot-string`: what needs no quotes.
pub(super) fn is_dot_string(local: &str) -> bool {
    local.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_atext))
}

/// A cursor over the ASCII text of one path. `at` counts octets from the start of `bytes`.
pub(super) struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Result<Self, AddressError> {
        if text.is_ascii() {
            Ok(Self { bytes: text.as_bytes(), at: 0 })
        } else {
            Err(AddressError::NotAscii)
        }
    }

    /// Octets read so far.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Past the opening angle bracket, with the text that `at` counts in.
    pub(super) fn open_path(text: &'a str) -> Result<(Self, &'a str), AddressError> {
        let mut scanner = Self::new(text)?;
        scanner.expect(b'<')?;
        Ok((scanner, text))
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
        let mut local = String::new();
        loop {
            let byte = match self.next()? {
                b'"' => return Ok(local),
                b'\\' => self.next()?,
                byte => byte,
            };
            if !matches!(byte, b' '..=b'~') {
                return Err(AddressError::Syntax);
            }
            if local.len() > LOCAL_PART_MAX {
                return Err(AddressError::TooLong);
            }
            local.push(char::from(byte));
        }
    }

    pub(super) fn domain(&mut self) -> Result<Domain, AddressError> {
        if self.take(b'[') {
            return self.literal();
        }
        let name = self.run(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
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
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|&byte| !accept(byte)).unwrap_or(rest.len());
        self.at += length;
        std::str::from_utf8(&rest[..length]).expect("the scanner holds ASCII alone")
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
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
        if self.at == self.bytes.len() { Ok(()) } else { Err(AddressError::Syntax) }
    }
}
