//! Reads the replies of a server (RFC 5321 section 4.2), trusting nothing about them.

use std::fmt;

use bytes::{Buf, BytesMut};
use memchr::memchr2;

use crate::smtp::reply::EnhancedCode;

/// Longest reply line taken, CRLF apart. RFC 5321 section 4.5.3.1.5 says 512; some exceed it.
pub const LINE_MAX: usize = 2048;
/// Most lines of one reply.
pub const LINES_MAX: usize = 128;

/// One complete reply of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The three-digit code, 200 to 599.
    pub code: u16,
    /// The enhanced status code that the first line begins with, if it fits the code's class.
    pub enhanced: Option<EnhancedCode>,
    /// Texts of all lines, without codes; control characters are replaced. At least one.
    pub lines: Vec<String>,
}

impl Response {
    /// 2xx or 3xx.
    pub fn is_positive(&self) -> bool {
        self.code < 400
    }

    /// 5xx: trying again makes no sense.
    pub fn is_permanent(&self) -> bool {
        self.code >= 500
    }
}

/// On one line, for logs and for the Diagnostic-Code of a DSN.
impl fmt::Display for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some((class, subject, detail)) = self.enhanced {
            write!(f, " {class}.{subject}.{detail}")?;
        }
        self.lines.iter().filter(|line| !line.is_empty()).try_for_each(|line| write!(f, " {line}"))
    }
}

/// Why what the server sent is no reply. The connection is of no more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// CR without LF, or LF without CR.
    #[error("a reply line does not end in CRLF")]
    BareNewline,
    /// Longer than [`LINE_MAX`].
    #[error("a reply line is longer than {LINE_MAX} octets")]
    LineTooLong,
    /// More than [`LINES_MAX`] lines.
    #[error("a reply has more than {LINES_MAX} lines")]
    TooManyLines,
    /// No code of three digits from 200 to 599, or no separator behind it.
    #[error("a reply line does not begin with a reply code")]
    NoCode,
    /// The lines of one reply carry different codes.
    #[error("the lines of one reply carry different codes")]
    MixedCodes,
    /// Bytes of a reply where none was due: behind the 220 of STARTTLS, or without a command.
    #[error("the server spoke when no reply was due")]
    Unexpected,
}

/// Collects bytes and yields whole replies.
#[derive(Debug, Default)]
pub struct ResponseReader {
    buffer: BytesMut,
    /// The lines of the reply that is not complete yet.
    partial: Option<Response>,
}

impl ResponseReader {
    /// Appends what the socket read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether nothing is left over: no byte, no begun reply.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty() && self.partial.is_none()
    }

    /// The next whole reply, or `None` while more bytes are needed. After an error the reader
    /// has lost its place and the connection must be closed.
    pub fn next_response(&mut self) -> Result<Option<Response>, ResponseError> {
        while let Some(line) = self.next_line()? {
            let (code, last, text) = split_line(&line)?;
            let response = match self.partial.as_mut() {
                Some(partial) if partial.code != code => return Err(ResponseError::MixedCodes),
                Some(partial) if partial.lines.len() == LINES_MAX => {
                    return Err(ResponseError::TooManyLines);
                }
                Some(partial) => partial,
                None => {
                    let enhanced = leading_enhanced(code, text).map(|(enhanced, _)| enhanced);
                    self.partial.insert(Response { code, enhanced, lines: Vec::new() })
                }
            };
            let text = match (response.enhanced, leading_enhanced(code, text)) {
                (Some(_), Some((_, rest))) => rest,
                _ => text,
            };
            response.lines.push(printable(text));
            if last {
                return Ok(self.partial.take());
            }
        }
        Ok(None)
    }

    /// One line without its CRLF.
    fn next_line(&mut self) -> Result<Option<BytesMut>, ResponseError> {
        let window = &self.buffer[..self.buffer.len().min(LINE_MAX + 1)];
        match memchr2(b'\r', b'\n', window) {
            Some(at) if window[at] == b'\r' => match self.buffer.get(at + 1) {
                Some(b'\n') => {
                    let line = self.buffer.split_to(at);
                    self.buffer.advance(2);
                    Ok(Some(line))
                }
                Some(_) => Err(ResponseError::BareNewline),
                None => Ok(None),
            },
            Some(_) => Err(ResponseError::BareNewline),
            None if window.len() > LINE_MAX => Err(ResponseError::LineTooLong),
            None => Ok(None),
        }
    }
}

/// Code, whether this is the reply's last line, and the text. A bare code is a whole line
/// (RFC 5321 section 4.2: clients must accept it).
fn split_line(line: &[u8]) -> Result<(u16, bool, &[u8]), ResponseError> {
    let (digits, rest) = line.split_at_checked(3).ok_or(ResponseError::NoCode)?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(ResponseError::NoCode);
    }
    let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    if !(200..=599).contains(&code) {
        return Err(ResponseError::NoCode);
    }
    match rest.split_first() {
        None => Ok((code, true, rest)),
        Some((b' ', text)) => Ok((code, true, text)),
        Some((b'-', text)) => Ok((code, false, text)),
        Some(_) => Err(ResponseError::NoCode),
    }
}

/// `class.subject.detail` at the start of a text, when the class is the code's (RFC 2034
/// section 4), and what follows it.
fn leading_enhanced(code: u16, text: &[u8]) -> Option<(EnhancedCode, &[u8])> {
    let end = text.iter().position(|&byte| byte == b' ').unwrap_or(text.len());
    let mut parts = std::str::from_utf8(&text[..end]).ok()?.split('.');
    let mut number = |digits_max: usize| {
        let part = parts.next()?;
        let fits = part.len() <= digits_max && part.bytes().all(|byte| byte.is_ascii_digit());
        if fits { part.parse::<u16>().ok() } else { None }
    };
    let (class, subject, detail) = (number(1)?, number(3)?, number(3)?);
    if parts.next().is_some() || class != code / 100 || class == 3 {
        return None;
    }
    let rest = text.get(end + 1..).unwrap_or_default();
    Some(((u8::try_from(class).ok()?, subject, detail), rest))
}

fn printable(text: &[u8]) -> String {
    let clean = |c: char| if c.is_control() { '?' } else { c };
    String::from_utf8_lossy(text).chars().map(clean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(bytes: &[u8]) -> Result<Option<Response>, ResponseError> {
        let mut reader = ResponseReader::default();
        reader.push(bytes);
        reader.next_response()
    }

    #[test]
    fn lines_of_one_reply_are_collected() {
        let response =
            read(b"250-mx.example\r\n250-SIZE 10\r\n250 PIPELINING\r\n").unwrap().unwrap();
        assert_eq!((response.code, response.enhanced), (250, None));
        assert_eq!(response.lines, ["mx.example", "SIZE 10", "PIPELINING"]);
        let response = read(b"550-5.7.1 No\r\n550 5.7.1 never\r\n").unwrap().unwrap();
        assert_eq!(response.enhanced, Some((5, 7, 1)));
        assert_eq!(response.to_string(), "550 5.7.1 No never");
        assert_eq!(read(b"354\r\n").unwrap().unwrap().lines, [""]);
        assert_eq!(read(b"250 2.0.0\r\n").unwrap().unwrap().enhanced, Some((2, 0, 0)));
    }

    #[test]
    fn an_address_in_the_text_is_no_enhanced_code() {
        for text in ["250 192.0.2.1 hello\r\n", "250 5.1.1 x\r\n", "250 2.0.1234 x\r\n"] {
            assert_eq!(read(text.as_bytes()).unwrap().unwrap().enhanced, None, "{text}");
        }
    }

    #[test]
    fn what_is_no_reply_is_an_error() {
        let cases: [(&[u8], ResponseError); 9] = [
            (b"220 a\n", ResponseError::BareNewline),
            (b"220 a\rb\r\n", ResponseError::BareNewline),
            (b"22 a\r\n", ResponseError::NoCode),
            (b"2200 a\r\n", ResponseError::NoCode),
            (b"HTTP/1.1 400\r\n", ResponseError::NoCode),
            (b"150 a\r\n", ResponseError::NoCode),
            (b"600 a\r\n", ResponseError::NoCode),
            (b"\r\n", ResponseError::NoCode),
            (b"250-a\r\n550 b\r\n", ResponseError::MixedCodes),
        ];
        for (bytes, error) in cases {
            assert_eq!(read(bytes), Err(error), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn length_and_number_of_lines_are_bounded() {
        let line = |length: usize| format!("250 {}\r\n", "x".repeat(length - 4));
        assert!(read(line(LINE_MAX).as_bytes()).is_ok());
        assert_eq!(read(line(LINE_MAX + 1).as_bytes()), Err(ResponseError::LineTooLong));
        let endless = "250-x\r\n".repeat(LINES_MAX + 1);
        assert_eq!(read(endless.as_bytes()), Err(ResponseError::TooManyLines));
        assert!(read("250-x\r\n".repeat(LINES_MAX).as_bytes()).is_ok());
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter_and_nothing_panics(
            bytes in prop::collection::vec(prop_oneof![
                Just(b'\r'), Just(b'\n'), Just(b'2'), Just(b'5'), Just(b'0'), Just(b'.'),
                Just(b'-'), Just(b' '), any::<u8>()], 0..60),
            chunk in 1_usize..8,
        ) {
            let read_all = |chunk: usize| {
                let mut reader = ResponseReader::default();
                let mut found = Vec::new();
                for part in bytes.chunks(chunk) {
                    reader.push(part);
                    loop {
                        match reader.next_response() {
                            Ok(Some(response)) => found.push(Ok(response)),
                            Ok(None) => break,
                            Err(error) => { found.push(Err(error)); return found; }
                        }
                    }
                }
                found
            };
            prop_assert_eq!(read_all(chunk), read_all(bytes.len().max(1)));
        }
    }
}
