//! Watches the header block of a message as it streams by: its size, and its Received fields.

use memchr::memchr;

/// What a header block has too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderFault {
    TooLarge,
    TooManyReceived,
}

/// Limits of a header block; see [`SessionSettings`](super::SessionSettings).
#[derive(Debug, Clone, Copy)]
pub(super) struct HeaderLimits {
    pub bytes_max: usize,
    pub lines_max: usize,
    pub received_max: usize,
}

const RECEIVED: &[u8] = b"received";

/// Where in its line the next octet stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    /// In a field's name; `matched` octets of it are those of `Received`, while they all are.
    Name {
        matched: Option<usize>,
    },
    /// Behind the colon, or in a folded line.
    Rest,
}

/// Reads content up to the end of the header block (RFC 5322 section 2.1): the empty line, or
/// the first line that cannot be part of a header.
#[derive(Debug)]
pub(super) struct HeaderWatch {
    limits: HeaderLimits,
    place: Place,
    bytes: usize,
    lines: usize,
    received: usize,
    over: bool,
}

impl HeaderWatch {
    pub(super) fn new(limits: HeaderLimits) -> Self {
        Self { limits, place: Place::Start, bytes: 0, lines: 0, received: 0, over: false }
    }

    /// The next piece of content, cut anywhere, in which CR and LF come as CRLF alone.
    pub(super) fn feed(&mut self, mut piece: &[u8]) -> Result<(), HeaderFault> {
        while !self.over && !piece.is_empty() {
            let length = self.step(piece);
            self.bytes += length;
            piece = &piece[length..];
            if self.received > self.limits.received_max {
                return Err(HeaderFault::TooManyReceived);
            }
            if self.bytes > self.limits.bytes_max || self.lines > self.limits.lines_max {
                return Err(HeaderFault::TooLarge);
            }
        }
        Ok(())
    }

    /// Reads some of a piece that is not empty; returns how much.
    fn step(&mut self, piece: &[u8]) -> usize {
        match self.place {
            Place::Rest => {
                let Some(at) = memchr(b'\n', piece) else { return piece.len() };
                self.place = Place::Start;
                self.lines += 1;
                return at + 1;
            }
            Place::Start if matches!(piece[0], b' ' | b'\t') => self.place = Place::Rest,
            Place::Start => {
                self.place = Place::Name { matched: Some(0) };
                return 0;
            }
            Place::Name { matched } => self.name(piece[0], matched),
        }
        1
    }

    fn name(&mut self, byte: u8, matched: Option<usize>) {
        match byte {
            b':' => {
                self.received += usize::from(matched == Some(RECEIVED.len()));
                self.place = Place::Rest;
            }
            // Obsolete syntax: space between name and colon (RFC 5322 section 4.5).
            b' ' | b'\t' => {}
            b'!'..=b'~' => {
                let next = matched
                    .filter(|&matched| RECEIVED.get(matched) == Some(&byte.to_ascii_lowercase()));
                self.place = Place::Name { matched: next.map(|matched| matched + 1) };
            }
            _ => self.over = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(content: &str, received_max: usize) -> Result<(), HeaderFault> {
        let mut results = Vec::new();
        for chunk in 1..content.len() + 1 {
            let limits = HeaderLimits { bytes_max: 120, lines_max: 6, received_max };
            let mut watch = HeaderWatch::new(limits);
            results.push(content.as_bytes().chunks(chunk).try_for_each(|piece| watch.feed(piece)));
        }
        assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "{results:?}");
        results[0]
    }

    #[test]
    fn received_fields_are_counted_in_the_header_alone() {
        let two = "Received: a\r\nX: b\r\n Received: no\r\nrECEIVED : c\r\nReceivedX: d\r\n";
        assert_eq!(watch(two, 2), Ok(()));
        assert_eq!(watch(two, 1), Err(HeaderFault::TooManyReceived));
        assert_eq!(watch("X: a\r\n\r\nReceived: b\r\n", 0), Ok(()));
        assert_eq!(watch("no header\r\nReceived: b\r\n", 0), Ok(()));
        assert_eq!(watch("X-Received: b\r\nReceive: c\r\n", 0), Ok(()));
    }

    #[test]
    fn size_and_lines_are_bounded_but_not_of_the_body() {
        assert_eq!(watch(&format!("X: {}\r\n", "a".repeat(115)), 9), Ok(()));
        assert_eq!(watch(&format!("X: {}\r\n", "a".repeat(116)), 9), Err(HeaderFault::TooLarge));
        assert_eq!(watch(&"X: a\r\n".repeat(6), 9), Ok(()));
        assert_eq!(watch(&"X: a\r\n".repeat(7), 9), Err(HeaderFault::TooLarge));
        assert_eq!(watch(&format!("\r\n{}", "a".repeat(200)), 9), Ok(()));
    }
}
