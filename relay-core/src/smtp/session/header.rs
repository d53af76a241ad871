//! Watches the header section of a message as it streams by: its size, its Received fields, what
//! it lacks, and what its content is.

use memchr::memchr;

use super::beginning::Beginning;
use super::media_type::MediaType;

/// What a header section has too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderFault {
    TooLarge,
    TooManyReceived,
}

/// Limits of a header section; see [`SessionSettings`](super::SessionSettings).
#[derive(Debug, Clone, Copy)]
pub(super) struct HeaderLimits {
    pub bytes_max: usize,
    pub lines_max: usize,
    pub received_max: usize,
}

/// What stood in a header section.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub date: bool,
    pub message_id: bool,
    /// Octets beyond ASCII.
    pub beyond_ascii: bool,
}

/// Longest name of a field that means something here.
const NAME_MAX: usize = 12;
/// Octets of a Content-Type that are looked at.
const CONTENT_TYPE_MAX: usize = 2048;

/// Where in its line the next octet stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    /// In a field's name.
    Name,
    /// Behind the colon, or in a folded line.
    Rest,
    /// Behind the section: it ended with an empty line, or with what cannot be part of it.
    Behind {
        in_order: bool,
    },
}

/// Reads content up to the end of the header section (RFC 5322 section 2.1): the empty line, or
/// the first line that cannot be part of a header.
#[derive(Debug)]
pub(super) struct HeaderWatch {
    limits: HeaderLimits,
    place: Place,
    bytes: usize,
    lines: usize,
    received: usize,
    seen: Seen,
    /// The name of the present field in lower case, as far as it fits.
    name: [u8; NAME_MAX],
    name_length: usize,
    /// The value of Content-Type, and whether the present field adds to it.
    content_type: Vec<u8>,
    in_content_type: bool,
}

impl HeaderWatch {
    pub(super) fn new(limits: HeaderLimits) -> Self {
        Self {
            limits,
            place: Place::Start,
            bytes: 0,
            lines: 0,
            received: 0,
            seen: Seen::default(),
            name: [0; NAME_MAX],
            name_length: 0,
            content_type: Vec::new(),
            in_content_type: false,
        }
    }

    /// What the first octets tell, before they are fed.
    pub(super) fn begin(&mut self, beginning: Beginning) {
        self.place = match beginning {
            Beginning::Header => Place::Start,
            Beginning::Mbox => Place::Rest,
            Beginning::Body => Place::Behind { in_order: true },
        };
    }

    pub(super) fn is_behind(&self) -> bool {
        matches!(self.place, Place::Behind { .. })
    }

    /// Whether a field can be put behind the last: the section has ended, or does here, as it should.
    pub(super) fn ends_in_order(&self) -> bool {
        matches!(self.place, Place::Start | Place::Behind { in_order: true })
    }

    pub(super) fn seen(&self) -> Seen {
        self.seen
    }

    /// What the content is, as far as its parts matter.
    pub(super) fn media_type(&self) -> MediaType {
        MediaType::parse(&self.content_type)
    }

    /// The next piece of content, cut anywhere. Returns how much of it is of the header section:
    /// less than all of it where the section ends.
    pub(super) fn feed(&mut self, piece: &[u8]) -> Result<usize, HeaderFault> {
        let mut at = 0;
        while !self.is_behind() && at < piece.len() {
            let length = self.step(&piece[at..]);
            self.seen.beyond_ascii |= !piece[at..at + length].is_ascii();
            self.bytes += length;
            at += length;
            if self.received > self.limits.received_max {
                return Err(HeaderFault::TooManyReceived);
            }
            if self.bytes > self.limits.bytes_max || self.lines > self.limits.lines_max {
                return Err(HeaderFault::TooLarge);
            }
        }
        Ok(at)
    }

    /// Reads some of a piece that is not empty; returns how much.
    fn step(&mut self, piece: &[u8]) -> usize {
        match (self.place, piece[0]) {
            (Place::Behind { .. }, _) => 0,
            (Place::Rest, _) => self.rest(piece),
            (Place::Start, b' ' | b'\t') => {
                self.place = Place::Rest;
                1
            }
            // Content has no other CR than that of CRLF, but for binary content.
            (Place::Start, b'\r') => {
                self.place = Place::Behind { in_order: true };
                0
            }
            (Place::Start, _) => {
                self.place = Place::Name;
                self.name_length = 0;
                0
            }
            (Place::Name, byte) => self.name(byte),
        }
    }

    fn rest(&mut self, piece: &[u8]) -> usize {
        let (length, ends) = memchr(b'\n', piece).map_or((piece.len(), false), |at| (at + 1, true));
        if self.in_content_type {
            let room = CONTENT_TYPE_MAX.saturating_sub(self.content_type.len());
            self.content_type.extend_from_slice(&piece[..length.min(room)]);
        }
        if ends {
            self.place = Place::Start;
            self.lines += 1;
        }
        length
    }

    fn name(&mut self, byte: u8) -> usize {
        match byte {
            b':' => {
                self.field();
                self.place = Place::Rest;
            }
            // Obsolete syntax: space between name and colon (RFC 5322 section 4.5).
            b' ' | b'\t' => {}
            b'!'..=b'~' => {
                if let Some(place) = self.name.get_mut(self.name_length) {
                    *place = byte.to_ascii_lowercase();
                }
                self.name_length += 1;
            }
            _ => self.place = Place::Behind { in_order: false },
        }
        1
    }

    fn field(&mut self) {
        let name = self.name.get(..self.name_length).unwrap_or_default();
        // Of two, which a reader may take for the one or the other, the first is looked at.
        self.in_content_type = name == b"content-type" && self.content_type.is_empty();
        match name {
            b"received" => self.received += 1,
            b"date" => self.seen.date = true,
            b"message-id" => self.seen.message_id = true,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &str, received_max: usize) -> (Result<usize, HeaderFault>, Seen) {
        let mut results = Vec::new();
        for chunk in 1..content.len() + 1 {
            let limits = HeaderLimits { bytes_max: 120, lines_max: 6, received_max };
            let mut watch = HeaderWatch::new(limits);
            let pieces = content.as_bytes().chunks(chunk);
            let length = pieces
                .map(|piece| watch.feed(piece))
                .try_fold(0, |length, more| more.map(|more| length + more));
            results.push((length, watch.seen()));
        }
        assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "{results:?}");
        results[0]
    }

    fn watch(content: &str, received_max: usize) -> Result<(), HeaderFault> {
        read(content, received_max).0.map(drop)
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

    #[test]
    fn its_end_and_what_stood_in_it() {
        let seen = |date, message_id, beyond_ascii| Seen { date, message_id, beyond_ascii };
        let all = "DATE: x\r\nmessage-id : <a@b>\r\nSubject: ü\r\n";
        let content = format!("{all}\r\nX: ü\r\n");
        assert_eq!(read(&content, 0), (Ok(all.len()), seen(true, true, true)));
        assert_eq!(read("\r\nDate: x\r\n", 0), (Ok(0), seen(false, false, false)));
        assert_eq!(read("X-Date: x\r\n Date: y\r\n", 0).1, seen(false, false, false));
    }
}
