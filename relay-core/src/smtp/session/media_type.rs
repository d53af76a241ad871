//! Reads what a Content-Type says about parts (RFC 2045 section 5.1), with comments and with
//! parameters in pieces (RFC 2231 sections 3 and 4).
//!
//! Readers disagree about fields that are written in odd ways. Whatever one of them may take for the
//! boundary is taken for one here, so that nobody sees more levels of parts than were counted.

use memchr::memchr;

/// Most boundaries that one field is taken to have.
const BOUNDARIES_MAX: usize = 3;

/// What a Content-Type says about parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MediaType {
    /// `multipart/…`, with this boundary; with several, where it is unclear which one counts.
    Multipart(Vec<Vec<u8>>),
    /// `message/rfc822` or `message/global`: a whole message inside.
    Message,
    /// Anything else, and what cannot be understood.
    Leaf,
}

impl MediaType {
    /// Reads the value of the field, folded or not.
    pub(super) fn parse(value: &[u8]) -> Self {
        let mut reader = Reader { rest: value, has_comments: true, has_quotes: true };
        let kind = reader.word().to_ascii_lowercase();
        if !reader.takes(b'/') {
            return Self::Leaf;
        }
        let subtype = reader.word().to_ascii_lowercase();
        match (&kind[..], &subtype[..]) {
            (b"message", b"rfc822" | b"global") => Self::Message,
            (b"multipart", _) => {
                let boundaries = boundaries(reader);
                if boundaries.is_empty() { Self::Leaf } else { Self::Multipart(boundaries) }
            }
            _ => Self::Leaf,
        }
    }
}

/// All that may be the parameter `boundary`.
fn boundaries(mut reader: Reader<'_>) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut pieces: Vec<(usize, Vec<u8>)> = Vec::new();
    while reader.next_parameter() {
        let name = reader.word().to_ascii_lowercase();
        let Some(suffix) = name.strip_prefix(b"boundary") else { continue };
        if !reader.takes(b'=') {
            continue;
        }
        match Suffix::parse(suffix) {
            None => {}
            Some(Suffix { piece: None, is_encoded: false }) => found.extend(reader.values()),
            Some(Suffix { piece, is_encoded }) => {
                let Some(mut value) = reader.values().into_iter().next() else { continue };
                if is_encoded {
                    value = decode(&value, piece.unwrap_or(0) == 0);
                }
                match piece {
                    Some(piece) => pieces.push((piece, value)),
                    None => found.push(value),
                }
            }
        }
    }
    let next = |at| pieces.iter().find(|(number, _)| *number == at).map(|(_, value)| &value[..]);
    found.push((0..).map_while(next).collect::<Vec<_>>().concat());
    found.retain(|boundary| !boundary.is_empty());
    found.dedup();
    // Readers take the first or the last; every line is compared with all of them.
    if found.len() > BOUNDARIES_MAX {
        found.drain(BOUNDARIES_MAX - 1..found.len() - 1);
    }
    found
}

/// What stands behind the name of a parameter: `*`, `*0`, `*0*` or nothing.
struct Suffix {
    piece: Option<usize>,
    is_encoded: bool,
}

impl Suffix {
    fn parse(suffix: &[u8]) -> Option<Self> {
        let Some(rest) = suffix.strip_prefix(b"*") else {
            return suffix.is_empty().then_some(Self { piece: None, is_encoded: false });
        };
        let (number, is_encoded) =
            rest.strip_suffix(b"*").map_or((rest, false), |number| (number, true));
        if rest.is_empty() {
            return Some(Self { piece: None, is_encoded: true });
        }
        let number = std::str::from_utf8(number).ok()?.parse().ok()?;
        Some(Self { piece: Some(number), is_encoded })
    }
}

/// Takes away the charset and language in front of the first piece, and the percent-encoding.
fn decode(value: &[u8], is_first: bool) -> Vec<u8> {
    let mut text = value;
    if is_first && let Some(behind) = value.splitn(3, |&byte| byte == b'\'').nth(2) {
        text = behind;
    }
    let mut decoded = Vec::new();
    while let Some((&byte, rest)) = text.split_first() {
        let digit = |at: usize| char::from(*rest.get(at)?).to_digit(16);
        text = rest;
        match (byte, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                decoded.extend(u8::try_from(high * 16 + low));
                text = &rest[2..];
            }
            _ => decoded.push(byte),
        }
    }
    decoded
}

/// Reads the value of a structured field.
struct Reader<'a> {
    rest: &'a [u8],
    /// False once one was found without its end: another search would be in vain, and a field of
    /// openings alone would be searched for each.
    has_comments: bool,
    has_quotes: bool,
}

impl<'a> Reader<'a> {
    /// Passes white space and comments (RFC 5322 section 3.2.2).
    fn skip_space(&mut self) {
        loop {
            self.rest = self.rest.trim_ascii_start();
            if !self.pass_comment() {
                return;
            }
        }
    }

    fn pass_comment(&mut self) -> bool {
        if !(self.has_comments && self.rest.starts_with(b"(")) {
            return false;
        }
        let end = comment_end(self.rest);
        self.has_comments = end.is_some();
        self.rest = &self.rest[end.unwrap_or(0)..];
        self.has_comments
    }

    fn quoted(&mut self) -> Option<Vec<u8>> {
        let quoted = self.rest.strip_prefix(b"\"").filter(|_| self.has_quotes)?;
        let found = unquote(quoted);
        self.has_quotes = found.is_some();
        let (text, behind) = found?;
        self.rest = behind;
        Some(text)
    }

    /// A type, a subtype or a parameter's name, and the space around it.
    fn word(&mut self) -> &'a [u8] {
        self.skip_space();
        let (word, rest) = self.rest.split_at(word_end(self.rest, b"/=;"));
        self.rest = rest;
        self.skip_space();
        word
    }

    fn takes(&mut self, byte: u8) -> bool {
        let behind = self.rest.strip_prefix(&[byte]);
        self.rest = behind.unwrap_or(self.rest);
        behind.is_some()
    }

    /// Goes on behind the next semicolon that is in no quotes and no comment.
    fn next_parameter(&mut self) -> bool {
        while !self.rest.is_empty() {
            if self.takes(b';') {
                return true;
            }
            if !self.pass_comment() && self.quoted().is_none() {
                self.rest = &self.rest[1..];
            }
        }
        false
    }

    /// A parameter's value. Without quotes it ends at a space or comment, or, for some readers, at
    /// the semicolon alone: both are told, the right one first.
    fn values(&mut self) -> Vec<Vec<u8>> {
        let raw = self.rest;
        self.skip_space();
        if self.rest.starts_with(b"\"") {
            return self.quoted().into_iter().collect();
        }
        let (word, rest) = self.rest.split_at(word_end(self.rest, b";"));
        self.rest = rest;
        let end = memchr(b';', raw).unwrap_or(raw.len());
        let sloppy = raw[..end].trim_ascii();
        if sloppy == word { vec![word.to_vec()] } else { vec![word.to_vec(), sloppy.to_vec()] }
    }
}

/// Where a word ends: at one of these, at space or at a comment.
fn word_end(text: &[u8], ends: &[u8]) -> usize {
    let is_end = |byte: &u8| byte.is_ascii_whitespace() || *byte == b'(' || ends.contains(byte);
    text.iter().position(is_end).unwrap_or(text.len())
}

/// Where the comment ends that begins a text, those in it included; `None` without its end.
fn comment_end(text: &[u8]) -> Option<usize> {
    let mut depth = 0_usize;
    let mut bytes = text.iter().enumerate();
    while let Some((at, &byte)) = bytes.next() {
        match byte {
            b'(' => depth += 1,
            b')' if depth <= 1 => return Some(at + 1),
            b')' => depth -= 1,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
    None
}

/// A quoted-string behind its opening quote, and what follows it.
fn unquote(quoted: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut text = Vec::new();
    let mut bytes = quoted.iter().enumerate();
    while let Some((at, &byte)) = bytes.next() {
        match byte {
            b'"' => return Some((text, &quoted[at + 1..])),
            b'\\' => text.push(*bytes.next()?.1),
            b'\r' | b'\n' => {}
            byte => text.push(byte),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(value: &str) -> MediaType {
        MediaType::parse(value.as_bytes())
    }

    fn multipart(boundaries: &[&str]) -> MediaType {
        let bytes = boundaries.iter().map(|boundary| boundary.as_bytes().to_vec());
        MediaType::Multipart(bytes.collect())
    }

    #[test]
    fn media_types() {
        assert_eq!(parse(" Multipart/Mixed; boundary=abc\r\n"), multipart(&["abc"]));
        assert_eq!(
            parse(" multipart/mixed;\r\n\tx=\"a;b\";\r\n BOUNDARY = \"a \\\"b\""),
            multipart(&["a \"b"])
        );
        assert_eq!(parse("multipart/x; boundary=--=_a/b:c; y"), multipart(&["--=_a/b:c"]));
        assert_eq!(parse("message/RFC822 ; x=y"), MediaType::Message);
        for leaf in [
            "",
            "text/plain",
            "multipart/mixed",
            "multipart/mixed; boundary=",
            "multipart/mixed; boundary",
            "multipart/mixed; boundaryx=a",
            "multipart/mixed; boundary*x=a; boundary*1=b",
            "multipart/x; boundary=\"a",
            "text/x; boundary=a",
        ] {
            assert_eq!(parse(leaf), MediaType::Leaf, "{leaf}");
        }
    }

    #[test]
    fn comments_stand_between_words() {
        for (value, boundary) in [
            ("(c) multipart/mixed; boundary=a", "a"),
            ("(c (d\\)) )multipart (x) / (y)\r\n mixed(;)(z);(w) boundary(v)=(u)\"a\"(t)", "a"),
            ("multipart/mixed; x; y=\"; boundary=b\"; boundary=\"a\" (c); z", "a"),
            ("multipart/mixed; ( boundary=a; boundary=\"a\"", "a"),
        ] {
            assert_eq!(parse(value), multipart(&[boundary]), "{value}");
        }
        assert_eq!(parse("(a) message (b)/(c) global"), MediaType::Message);
        assert_eq!(parse("multipart/mixed (; boundary=a)"), MediaType::Leaf);
    }

    #[test]
    fn parameters_come_in_pieces_and_encoded() {
        for (parameters, boundary) in [
            ("boundary*0=\"a b\"; boundary*1=c", "a bc"),
            ("boundary*1=c; x=y; BOUNDARY*0=ab; boundary*3=d", "abc"),
            ("boundary*=us-ascii'en'a%20%3d%zz'", "a =%zz'"),
            ("boundary*0*=''a%2; boundary*1*=''%41%; boundary*2=%41", "a%2''A%%41"),
        ] {
            assert_eq!(parse(&format!("multipart/x; {parameters}")), multipart(&[boundary]));
        }
    }

    #[test]
    fn where_readers_differ_all_that_they_take_counts() {
        for (parameters, found) in [
            ("boundary=a (c)", &["a", "a (c)"] as &[&str]),
            ("boundary=a b; x", &["a", "a b"]),
            ("boundary=a; boundary*0=b; boundary=\"c\"", &["a", "c", "b"]),
            ("boundary=a; boundary=b; boundary=c; boundary=d", &["a", "b", "d"]),
        ] {
            assert_eq!(parse(&format!("multipart/x; {parameters}")), multipart(found));
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(words in prop::collection::vec(
            "boundary|[*][0-9]?[*]?|[(=;/\"\\\\)' %]|multipart/|[a-f0-9]{0,3}|\\PC", 0..20)) {
            parse(&format!("multipart/mixed;{}", words.concat()));
            parse(&words.concat());
        }
    }
}
