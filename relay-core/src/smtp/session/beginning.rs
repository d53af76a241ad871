//! Tells by its first octets whether content has a header section at all.
//!
//! Our own fields go in front of it. What is no header field would be read as one of ours going on
//! (a line that begins with white space), or as whatever a reader makes of a malformed header. So
//! content that begins with anything else is all body, here and, by the empty line that is put
//! before it, for every host behind (RFC 5322 sections 2.1 and 2.2).

/// Octets that are looked at: no field has a name longer than a line (RFC 5322 section 2.1.1).
const LOOKS_AT: usize = 998;

/// How content begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beginning {
    /// With a header field, or with the empty line behind a header section that has none.
    Header,
    /// With the line that mbox files have before a message: some old clients leave it there. The
    /// fields are behind it.
    Mbox,
    /// With anything else.
    Body,
}

impl Beginning {
    /// Reads the first octets; `None`: more are needed, never beyond [`LOOKS_AT`].
    pub(super) fn of(content: &[u8]) -> Option<Self> {
        let looked_at = content.get(..LOOKS_AT).unwrap_or(content);
        Self::known(looked_at).or((content.len() >= LOOKS_AT).then_some(Self::Body))
    }

    fn known(content: &[u8]) -> Option<Self> {
        if let Some(rest) = content.strip_prefix(b"\r") {
            let next = rest.first()?;
            return Some(if *next == b'\n' { Self::Header } else { Self::Body });
        }
        let quotes = content.iter().take_while(|byte| **byte == b'>').count();
        let mbox = b"From ";
        let rest = &content[quotes..];
        if rest.starts_with(mbox) {
            return Some(Self::Mbox);
        }
        if mbox.starts_with(rest) {
            return None;
        }
        let name = content.iter().take_while(|byte| matches!(byte, b'!'..=b'9' | b';'..=b'~'));
        let name = name.count();
        // Obsolete syntax: space between name and colon (RFC 5322 section 4.5).
        let behind = content[name..].iter().find(|byte| !matches!(byte, b' ' | b'\t'));
        match behind {
            _ if name == 0 => Some(Self::Body),
            None => None,
            Some(b':') => Some(Self::Header),
            Some(_) => Some(Self::Body),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is known of the whole, which must not differ from what is known of a part.
    fn of(content: &[u8]) -> Option<Beginning> {
        let all = Beginning::of(content);
        for end in 0..content.len() {
            let of_part = Beginning::of(&content[..end]);
            assert!(of_part.is_none() || of_part == all, "{}", content[..end].escape_ascii());
        }
        all
    }

    #[test]
    fn fields_and_the_empty_line_begin_a_header() {
        for content in
            [b"Subject: x\r\n" as &[u8], b"x:", b"X \t:", b"From: a\r\n", b">x:", b"\r\n"]
        {
            assert_eq!(of(content), Some(Beginning::Header), "{}", content.escape_ascii());
        }
    }

    #[test]
    fn the_line_of_an_mbox_stands_before_one() {
        for content in [b"From a@b Sat Jan  1 12:00:00" as &[u8], b">From x", b">>From \r\n"] {
            assert_eq!(of(content), Some(Beginning::Mbox), "{}", content.escape_ascii());
        }
        assert_eq!(of(b"Fromage\r\n"), Some(Beginning::Body));
    }

    #[test]
    fn all_else_is_body() {
        for content in [
            b" X: y\r\n" as &[u8],
            b"\tinjected; Fri",
            b"foo bar",
            b"Dear Bob: x",
            b"abc\r\n: x",
            b": x",
            b"X\xc3\xa4: y",
            b"\xffX: y",
            b"\r\tx",
            b"\nX: y",
            b"\0",
        ] {
            assert_eq!(of(content), Some(Beginning::Body), "{}", content.escape_ascii());
        }
    }

    #[test]
    fn a_name_has_an_end() {
        let name = |length: usize| [&vec![b'x'; length][..], b": y\r\n"].concat();
        assert_eq!(of(&name(LOOKS_AT - 1)), Some(Beginning::Header));
        assert_eq!(of(&name(LOOKS_AT)), Some(Beginning::Body));
        for undecided in [b"" as &[u8], b"Subject", b"\r", b">", b"From", b"X  "] {
            assert_eq!(of(undecided), None, "{}", undecided.escape_ascii());
        }
    }
}
