//! Message content to the wire form of DATA (RFC 5321 section 4.5.2).

use memchr::memchr2;

/// Adds a dot to each line that begins with one, makes every line end in CRLF, and ends the data.
///
/// Content from the queue has CRLF lines alone; should a bare CR or LF come all the same, it goes
/// out as CRLF, so that no next hop can see an end of data that this gateway did not see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DotStuffer {
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    LineStart,
    Middle,
    /// A CR was read and not yet written: a LF may follow.
    AfterCr,
}

impl DotStuffer {
    /// At the start of a message.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the wire form of the next chunk, cut anywhere, to `out`.
    pub fn encode(&mut self, mut chunk: &[u8], out: &mut Vec<u8>) {
        out.reserve(chunk.len() + 2);
        while let Some(&byte) = chunk.first() {
            if self.state == State::AfterCr {
                out.extend_from_slice(b"\r\n");
                self.state = State::LineStart;
                if byte == b'\n' {
                    chunk = &chunk[1..];
                }
                continue;
            }
            if self.state == State::LineStart && byte == b'.' {
                out.push(b'.');
            }
            let end = memchr2(b'\r', b'\n', chunk).unwrap_or(chunk.len());
            out.extend_from_slice(&chunk[..end]);
            self.state = match chunk.get(end) {
                None => State::Middle,
                Some(b'\r') => State::AfterCr,
                Some(_) => {
                    out.extend_from_slice(b"\r\n");
                    State::LineStart
                }
            };
            chunk = chunk.get(end + 1..).unwrap_or_default();
        }
    }

    /// Ends the last line if it is open, and the data.
    pub fn finish(self, out: &mut Vec<u8>) {
        if self.state != State::LineStart {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b".\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(content: &[u8], chunk: usize) -> Vec<u8> {
        let (mut stuffer, mut out) = (DotStuffer::new(), Vec::new());
        content.chunks(chunk).for_each(|part| stuffer.encode(part, &mut out));
        stuffer.finish(&mut out);
        out
    }

    #[test]
    fn wire_forms() {
        let cases: [(&[u8], &[u8]); 10] = [
            (b"", b".\r\n"),
            (b"a", b"a\r\n.\r\n"),
            (b"a\r\n", b"a\r\n.\r\n"),
            (b".", b"..\r\n.\r\n"),
            (b".\r\n..\r\n", b"..\r\n...\r\n.\r\n"),
            (b"a.b\r\n", b"a.b\r\n.\r\n"),
            (b"a\n.\nb", b"a\r\n..\r\nb\r\n.\r\n"),
            (b"a\r.\rb", b"a\r\n..\r\nb\r\n.\r\n"),
            (b"a\r\n.\r\r\nb", b"a\r\n..\r\n\r\nb\r\n.\r\n"),
            (b"\r", b"\r\n.\r\n"),
        ];
        for (content, wire) in cases {
            for chunk in 1..4 {
                let got = encode(content, chunk);
                assert_eq!(got.escape_ascii().to_string(), wire.escape_ascii().to_string());
            }
        }
    }

    proptest! {
        #[test]
        fn no_bare_newline_and_one_end_of_data(
            content in prop::collection::vec(
                prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), any::<u8>()], 0..80),
            chunk in 1_usize..9,
        ) {
            let wire = encode(&content, chunk);
            prop_assert_eq!(&wire, &encode(&content, usize::MAX));
            let lines: Vec<&[u8]> = {
                let text = wire.strip_suffix(b"\r\n").unwrap();
                let mut lines = Vec::new();
                let mut rest = text;
                while let Some(at) = rest.windows(2).position(|pair| pair == b"\r\n") {
                    lines.push(&rest[..at]);
                    rest = &rest[at + 2..];
                }
                lines.push(rest);
                lines
            };
            prop_assert!(lines.iter().all(|line| memchr2(b'\r', b'\n', line).is_none()));
            prop_assert_eq!(lines.iter().position(|line| *line == b"."), Some(lines.len() - 1));
        }
    }
}
