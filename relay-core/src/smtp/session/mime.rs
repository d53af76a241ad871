//! Watches how deeply the parts of a message are nested (RFC 2046 section 5), as it streams by.
//!
//! Whoever takes a message apart needs memory, and often stack, for each level: a limit here spares
//! the hosts behind. Only what bears on the depth is read: boundaries, and the Content-Type of parts;
//! and whether fields of parts are in UTF-8, which makes the message one for SMTPUTF8 (RFC 6531
//! section 3.6).

use memchr::memchr;

use super::media_type::MediaType;

/// Octets of a line, and of a field with its folded lines, that are looked at.
const LINE_MAX: usize = 2048;
/// Octets of a delimiter beside the boundary: `--`, `--` and CRLF.
const DELIMITER_REST: usize = 2 + 2 + 2;

/// A multipart that is open.
#[derive(Debug)]
struct Level {
    boundaries: Vec<Vec<u8>>,
    /// The depth of its parts.
    depth: usize,
}

/// What the next line belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Body,
    Header,
}

/// Reads content from the end of the header section on.
#[derive(Debug)]
pub(super) struct MimeWatch {
    depth_max: usize,
    depth: usize,
    levels: Vec<Level>,
    /// Octets of the longest boundary so far: not all keep to the 70 of RFC 2046 section 5.1.1.
    boundary_max: usize,
    place: Place,
    /// The present line, as far as it is of interest.
    line: Vec<u8>,
    /// The rest of the present line is not.
    skips_line: bool,
    /// The value of Content-Type of the present part, and whether the present field adds to it.
    content_type: Vec<u8>,
    in_content_type: bool,
    /// Octets beyond ASCII: in the present line, and in fields of parts so far.
    line_beyond_ascii: bool,
    beyond_ascii: bool,
}

/// Parts inside parts beyond the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooDeep;

impl MimeWatch {
    /// `None` for a message without parts.
    pub(super) fn of(media_type: MediaType, depth_max: usize) -> Result<Option<Self>, TooDeep> {
        if media_type == MediaType::Leaf {
            return Ok(None);
        }
        let mut watch = Self {
            depth_max,
            depth: 0,
            levels: Vec::new(),
            boundary_max: 0,
            place: Place::Body,
            line: Vec::new(),
            skips_line: false,
            content_type: Vec::new(),
            in_content_type: false,
            line_beyond_ascii: false,
            beyond_ascii: false,
        };
        watch.enter(media_type)?;
        // A message inside begins behind the empty line that is still to come.
        watch.skips_line = true;
        Ok(Some(watch))
    }

    /// The next piece of content, cut anywhere.
    pub(super) fn feed(&mut self, mut piece: &[u8]) -> Result<(), TooDeep> {
        while !piece.is_empty() {
            let end = memchr(b'\n', piece);
            let length = end.map_or(piece.len(), |at| at + 1);
            if self.place == Place::Header {
                self.line_beyond_ascii |= !piece[..length].is_ascii();
            }
            if !self.skips_line {
                self.look(&piece[..length]);
            }
            if end.is_some() {
                if !std::mem::take(&mut self.skips_line) {
                    self.whole_line()?;
                }
                self.line.clear();
                self.line_beyond_ascii = false;
            }
            piece = &piece[length..];
        }
        Ok(())
    }

    /// Whether there were octets beyond ASCII in the fields of parts.
    pub(super) fn is_beyond_ascii(&self) -> bool {
        // The last line may have no end.
        self.beyond_ascii || (self.line_beyond_ascii && self.place == Place::Header)
    }

    /// Keeps as much of the line as it takes to know what it is.
    fn look(&mut self, piece: &[u8]) {
        let is_body = self.place == Place::Body;
        let max = if is_body { self.boundary_max + DELIMITER_REST } else { LINE_MAX };
        let room = max.saturating_sub(self.line.len());
        let (kept, beyond) = piece.split_at(piece.len().min(room));
        self.line.extend_from_slice(kept);
        let may_delimit = self.line.starts_with(b"--") || b"--".starts_with(&self.line);
        // Any white space may stand behind a delimiter.
        self.skips_line = is_body && !(may_delimit && beyond.trim_ascii_start().is_empty());
    }

    fn whole_line(&mut self) -> Result<(), TooDeep> {
        let line = std::mem::take(&mut self.line);
        let text = line.trim_ascii_end();
        if text.starts_with(b"--") && self.delimiter(text) {
            return Ok(());
        }
        if self.place == Place::Header {
            match line.first() {
                _ if text.is_empty() => {
                    let media_type = MediaType::parse(&std::mem::take(&mut self.content_type));
                    self.place = Place::Body;
                    self.enter(media_type)?;
                }
                Some(b' ' | b'\t') if self.in_content_type => self.keep(&line),
                Some(b' ' | b'\t') => {}
                _ => self.field(&line),
            }
            self.beyond_ascii |= self.line_beyond_ascii && self.place == Place::Header;
        }
        Ok(())
    }

    fn field(&mut self, line: &[u8]) {
        let Some(colon) = memchr(b':', line) else {
            // No header after all: what cannot be read has no parts.
            self.place = Place::Body;
            return;
        };
        let is_type = line[..colon].trim_ascii().eq_ignore_ascii_case(b"content-type");
        self.in_content_type = is_type && self.content_type.is_empty();
        if self.in_content_type {
            self.keep(&line[colon + 1..]);
        }
    }

    fn keep(&mut self, text: &[u8]) {
        let room = LINE_MAX.saturating_sub(self.content_type.len());
        self.content_type.extend_from_slice(&text[..text.len().min(room)]);
    }

    /// Whether a line delimits parts: then a part begins, or what encloses it goes on.
    fn delimiter(&mut self, line: &[u8]) -> bool {
        let rest = &line[2..];
        let ends = |level: &Level| {
            level.boundaries.iter().find_map(|boundary| {
                let tail = rest.strip_prefix(boundary.as_slice())?;
                if tail.is_empty() { Some(false) } else { (tail == b"--").then_some(true) }
            })
        };
        // The innermost first: a boundary may be another's beginning, and be used twice.
        let open = self.levels.iter().enumerate().rev();
        let Some((at, is_end)) = open.filter_map(|(at, level)| Some((at, ends(level)?))).next()
        else {
            return false;
        };
        self.depth = self.levels[at].depth;
        self.levels.truncate(at + usize::from(!is_end));
        self.place = if is_end { Place::Body } else { Place::Header };
        self.content_type.clear();
        self.in_content_type = false;
        true
    }

    /// The body of a part, or of the message, begins.
    fn enter(&mut self, media_type: MediaType) -> Result<(), TooDeep> {
        if media_type == MediaType::Leaf {
            return Ok(());
        }
        self.depth += 1;
        if self.depth > self.depth_max {
            return Err(TooDeep);
        }
        match media_type {
            MediaType::Multipart(boundaries) => {
                let longest = boundaries.iter().map(Vec::len).max().unwrap_or(0);
                self.boundary_max = self.boundary_max.max(longest);
                self.levels.push(Level { boundaries, depth: self.depth });
            }
            _ => self.place = Place::Header,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `depth` multiparts, each in the one before.
    fn nested(depth: usize) -> String {
        let part = |level: usize| {
            format!(
                "--b{level}\r\nContent-Type: multipart/mixed;\r\n boundary=b{}\r\n\r\n",
                level + 1
            )
        };
        let open: String = (0..depth - 1).map(part).collect();
        format!("\r\n{open}--b{}\r\n\r\nleaf\r\n--b{}--\r\n", depth - 1, depth - 1)
    }

    fn watch(content: &str, depth_max: usize, chunk: usize) -> Result<(), TooDeep> {
        let top = MediaType::Multipart(vec![b"b0".to_vec()]);
        let mut watch = MimeWatch::of(top, depth_max)?.expect("there are parts");
        content.as_bytes().chunks(chunk).try_for_each(|piece| watch.feed(piece))
    }

    #[test]
    fn the_depth_ends_exactly_at_its_limit() {
        for chunk in [1, 2, 7, 4096] {
            assert_eq!(watch(&nested(5), 5, chunk), Ok(()));
            assert_eq!(watch(&nested(6), 5, chunk), Err(TooDeep));
        }
        assert!(MimeWatch::of(MediaType::Message, 0).is_err());
        assert!(matches!(MimeWatch::of(MediaType::Leaf, 0), Ok(None)));
    }

    #[test]
    fn messages_inside_count_and_neighbours_do_not() {
        let message = "Content-Type: message/rfc822\r\n\r\n";
        let inside = format!("\r\n--b0\r\n{}\r\ntext\r\n--b0--\r\n", message.repeat(3));
        let beside = format!(
            "\r\n{}--b0--\r\n",
            format!("--b0\r\n{message}Subject: x\r\n\r\ny\r\n").repeat(9)
        );
        for chunk in [1, 5, 4096] {
            assert_eq!(watch(&inside, 4, chunk), Ok(()));
            assert_eq!(watch(&inside, 3, chunk), Err(TooDeep));
            assert_eq!(watch(&beside, 2, chunk), Ok(()));
        }
    }

    #[test]
    fn fields_of_parts_are_looked_at_and_bodies_are_not() {
        let is_beyond = |content: &str, chunk: usize| {
            let top = MediaType::Multipart(vec![b"b0".to_vec()]);
            let mut watch = MimeWatch::of(top, 9).unwrap().unwrap();
            content.as_bytes().chunks(chunk).for_each(|piece| watch.feed(piece).unwrap());
            watch.is_beyond_ascii()
        };
        let message = "Content-Type: message/global\r\n\r\n";
        for fields in [
            "X: ü\r\n\r\n",
            "X: a\r\n ü\r\n\r\nbody",
            &format!("X: {}ü\r\n", "a".repeat(LINE_MAX)),
            &format!("{message}Subject: ü\r\n"),
            "Content-Type: text/plain; name=\"ü\"",
        ] {
            for chunk in [1, 5, 9999] {
                assert!(is_beyond(&format!("\r\n--b0\r\n{fields}"), chunk), "{fields}");
            }
        }
        for body in ["\r\nX: ü\r\n", "X: a\r\n\r\nü", "ü\r\nX: ü\r\n"] {
            let content = format!("ü\r\n--b0\r\n{body}\r\n--b0--\r\nX: ü\r\n");
            for chunk in [1, 5, 9999] {
                assert!(!is_beyond(&content, chunk), "{body}");
            }
        }
    }

    #[test]
    fn long_boundaries_and_white_space_hide_nothing() {
        let long = "x".repeat(300);
        let padded = format!("--b0{}\r\n", " \t".repeat(200));
        let header = format!("Content-Type: multipart/mixed; boundary={long}\r\n\r\n");
        let inside = "Content-Type: message/rfc822\r\n\r\n";
        let content = format!("\r\n{padded}{header}--{long}\r\n{inside}");
        let beside = format!("\r\n{}x\r\n{header}--{long}\r\n{inside}", padded.trim_end());
        for chunk in [1, 7, 4096] {
            assert_eq!(watch(&content, 3, chunk), Ok(()));
            assert_eq!(watch(&content, 2, chunk), Err(TooDeep));
            assert_eq!(watch(&beside, 1, chunk), Ok(()));
        }
    }

    #[test]
    fn what_only_looks_like_parts_counts_for_nothing() {
        let header = "Content-Type: multipart/mixed; boundary=b1\r\n\r\n";
        let text = format!("\r\n--b\r\n{header}--b00\r\n{header} --b0\r\n{header}");
        assert_eq!(watch(&text, 1, 3), Ok(()));
        let in_body = format!("\r\n--b0\r\n\r\n{header}--b1\r\n{header}");
        assert_eq!(watch(&in_body, 1, 3), Ok(()));
        let closed = format!("\r\n--b0\r\n\r\nx\r\n--b0--\r\n--b0\r\n{header}");
        assert_eq!(watch(&closed, 1, 3), Ok(()));
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter_and_nothing_panics(
            lines in prop::collection::vec(
                "-{0,3}(b0|b1|x)?-{0,2}|[cC]ontent-[tT]ype: (multipart/mixed; boundary=\"?b[01]\"?|message/rfc822)|[ \\t]?[a-z:;\"=]{0,9}|", 0..30),
            chunk in 1_usize..20, depth_max in 1_usize..5,
        ) {
            let content = lines.join("\r\n");
            prop_assert_eq!(watch(&content, depth_max, chunk), watch(&content, depth_max, usize::MAX));
        }
    }
}
