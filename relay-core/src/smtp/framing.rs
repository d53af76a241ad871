//! The only reader of lines in the server: where a command ends, and where a message ends.
//!
//! CRLF alone ends a line (RFC 5321 section 2.3.8), and CRLF.CRLF alone ends a message (section
//! 4.1.1.4). A CR without LF, or a LF without CR, ends nothing anywhere: whoever takes one for a
//! line end sees other commands in the stream than whoever does not, and that is SMTP smuggling.
//! What is refused is skipped up to the line end, or end of data, that every server agrees on.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr2;

mod chunk;

/// Most octets of a refused line that are skipped in search of its CRLF.
pub const SKIP_MAX: usize = 64 * 1024;

/// Octets of buffer that an idle session keeps; a larger one is given back between commands.
const IDLE_BUFFER_MAX: usize = 4096;

/// What was found where a command line was due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A whole line, without its CRLF and without any other CR or LF.
    Complete(BytesMut),
    /// Longer than the limit. The rest, up to its CRLF, will be skipped.
    TooLong,
    /// It holds a CR or LF that is not part of CRLF. The rest, up to its CRLF, will be skipped.
    BareNewline,
    /// [`SKIP_MAX`] octets of a refused line, and still no CRLF.
    Endless,
}

/// What was found where message content was due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Content, exact but for the dots that RFC 5321 section 4.5.2 takes away.
    Bytes(Bytes),
    /// A bare CR or LF where those are refused. What follows comes as [`Content::Skipped`].
    BareNewline,
    /// A bare CR or LF where those stand for CRLF. It ends a line of the content, and nothing else.
    Newline,
    /// A line longer than the limit. What follows comes as [`Content::Skipped`].
    LineTooLong,
    /// This many octets that belong to content refused before.
    Skipped(usize),
    /// The end of the message: all of CRLF.CRLF has been read; or the end of the BDAT chunk.
    End,
}

/// What a bare CR or LF in message content is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BareNewlines {
    /// A fault, for which the message is refused.
    #[default]
    Reject,
    /// The end of a line, which is stored as CRLF; never the end of a message, and the dot behind
    /// it is a dot.
    Normalize,
    /// Content like any other: BODY=BINARYMIME (RFC 3030 section 3), which comes in BDAT alone.
    Keep,
}

/// Bytes from the client, cut into lines or content.
#[derive(Debug, Default)]
pub struct Framing {
    buffer: BytesMut,
    /// Most octets that the buffer held since it was new.
    peak: usize,
    /// Octets at the start of the buffer that hold no CR or LF.
    scanned: usize,
    /// Inside a refused command line: octets skipped so far.
    skipping_line: Option<usize>,
    /// Content: the next octet is the first of its line.
    line_start: bool,
    /// Content: octets of the present line so far.
    line_length: usize,
    /// Content: refused; read on only to find its end.
    skipping_content: bool,
    /// Content: what a bare CR or LF in it is.
    newlines: BareNewlines,
    /// BDAT: octets of the present chunk that are still to come.
    chunk_left: u64,
    /// BDAT: the present chunk is the last.
    chunk_is_last: bool,
    /// BDAT: a CR was read and not given out; a LF may follow, in this chunk or the next.
    chunk_cr: bool,
}

impl Framing {
    /// Appends what the socket read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        self.peak = self.peak.max(self.buffer.len());
    }

    /// Whether all that was pushed has been taken.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Drops everything that was pushed, and its memory.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// What has come of the next line, and of what is behind it; `None` inside a refused line.
    pub fn line_so_far(&mut self) -> Option<&[u8]> {
        let begun = self.skipping_line.is_none() || self.skip_line() == Some(true);
        begun.then_some(&self.buffer[..])
    }

    /// The next command line of at most `limit` octets, CRLF apart; `None` while it has no end.
    pub fn next_line(&mut self, limit: usize) -> Option<Line> {
        if self.skipping_line.is_some() {
            match self.skip_line() {
                Some(true) => {}
                Some(false) => return Some(Line::Endless),
                None => return None,
            }
        }
        if self.buffer.is_empty() {
            self.release();
            return None;
        }
        // A CR at `limit` is the last place where the line can end.
        let window = self.buffer.len().min(limit + 1);
        let Some(offset) = memchr2(b'\r', b'\n', self.buffer.get(self.scanned..window)?) else {
            self.scanned = window;
            return if window > limit {
                Some(self.refuse_line(window, Line::TooLong))
            } else {
                None
            };
        };
        let at = self.scanned + offset;
        self.scanned = at;
        match (self.buffer[at], self.buffer.get(at + 1)) {
            (b'\r', None) => None,
            (b'\r', Some(b'\n')) => {
                self.scanned = 0;
                let line = self.buffer.split_to(at);
                self.buffer.advance(2);
                Some(Line::Complete(line))
            }
            _ => Some(self.refuse_line(at + 1, Line::BareNewline)),
        }
    }

    /// Ten thousand sessions may be idle: none of them keeps what one read of content took.
    fn release(&mut self) {
        if self.peak > IDLE_BUFFER_MAX {
            self.buffer = BytesMut::new();
            self.peak = 0;
        }
    }

    fn refuse_line(&mut self, length: usize, verdict: Line) -> Line {
        self.buffer.advance(length);
        self.scanned = 0;
        self.skipping_line = Some(0);
        verdict
    }

    /// Skips the rest of a refused line. `Some(true)`: its CRLF was found; `Some(false)`: it has
    /// no end; `None`: more bytes are needed.
    fn skip_line(&mut self) -> Option<bool> {
        let skipped = self.skipping_line.unwrap_or(0);
        let end = memchr::memmem::find(&self.buffer, b"\r\n").map(|at| at + 2);
        let length = end.unwrap_or_else(|| {
            // A CR at the very end may yet be half of the CRLF.
            self.buffer.len() - usize::from(self.buffer.ends_with(b"\r"))
        });
        if skipped + length > SKIP_MAX {
            return Some(false);
        }
        self.buffer.advance(length);
        self.skipping_line = if end.is_some() { None } else { Some(skipped + length) };
        end.map(|_| true)
    }

    /// A message begins with the next octet.
    pub fn begin_content(&mut self, newlines: BareNewlines) {
        self.line_start = true;
        self.line_length = 0;
        self.skipping_content = false;
        self.newlines = newlines;
        self.chunk_cr = false;
    }

    /// From here to the end of the message nothing is wanted.
    pub fn skip_content(&mut self) {
        self.skipping_content = true;
    }

    /// The next piece of content, as large as the bytes at hand allow; `None` while more are
    /// needed. Lines longer than `line_limit` octets, CRLF apart, are refused.
    pub fn next_content(&mut self, line_limit: usize) -> Option<Content> {
        // Everything before `at` is content, in one piece.
        let mut at = 0;
        loop {
            if self.line_start {
                match &self.buffer[at..] {
                    [b'.', ..] if at > 0 => break,
                    [b'.', b'\r', b'\n', ..] => {
                        self.buffer.advance(3);
                        return Some(Content::End);
                    }
                    [] | [b'.'] | [b'.', b'\r'] => break,
                    [b'.', ..] => self.buffer.advance(1),
                    _ => {}
                }
                self.line_start = false;
                self.line_length = 0;
            }
            let rest = &self.buffer[at..];
            let length = memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
            let room = line_limit - self.line_length.min(line_limit);
            let too_long = !self.skipping_content && length > room;
            // What stands before a fault goes out first, so that faults come in their order.
            if too_long && at + room > 0 {
                self.line_length += room;
                at += room;
                break;
            }
            if too_long {
                return Some(self.refuse_content(0, Content::LineTooLong));
            }
            match &rest[length..] {
                [] | [b'\r'] => {
                    self.line_length += length;
                    at += length;
                    break;
                }
                [b'\r', b'\n', ..] => {
                    self.line_start = true;
                    at += length + 2;
                }
                _ if self.skipping_content => at += length + 1,
                _ if at + length > 0 => {
                    self.line_length += length;
                    at += length;
                    break;
                }
                _ => {
                    self.buffer.advance(1);
                    return Some(self.bare_newline());
                }
            }
        }
        match at {
            0 => None,
            _ if self.skipping_content => {
                self.buffer.advance(at);
                Some(Content::Skipped(at))
            }
            _ => Some(Content::Bytes(self.buffer.split_to(at).freeze())),
        }
    }

    /// A bare CR or LF was taken.
    fn bare_newline(&mut self) -> Content {
        if self.newlines == BareNewlines::Reject {
            return self.refuse_content(0, Content::BareNewline);
        }
        // Not `line_start`: to whoever counts CRLF alone, no line begins here.
        self.line_length = 0;
        Content::Newline
    }

    fn refuse_content(&mut self, length: usize, verdict: Content) -> Content {
        self.buffer.advance(length);
        self.skipping_content = true;
        verdict
    }
}

#[cfg(test)]
#[path = "framing_tests.rs"]
mod tests;
