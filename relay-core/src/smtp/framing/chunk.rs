//! Content in chunks of known length (BDAT, RFC 3030): no dots, no end of data, and CRLF may be cut
//! by the end of a chunk.

use bytes::{Buf, Bytes};
use memchr::memchr2;

use super::{BareNewlines, Content, Framing};

impl Framing {
    /// A chunk of so many octets begins with the next one. Before the first chunk of a message
    /// comes [`begin_content`](Self::begin_content).
    pub fn begin_chunk(&mut self, size: u64, is_last: bool) {
        self.chunk_left = size;
        self.chunk_is_last = is_last;
    }

    /// The next piece of the chunk, as [`next_content`](Self::next_content).
    pub fn next_chunk(&mut self, line_limit: usize) -> Option<Content> {
        if self.chunk_left == 0 {
            let open = self.chunk_is_last && std::mem::take(&mut self.chunk_cr);
            return Some(if open { self.bare_newline() } else { Content::End });
        }
        let left = usize::try_from(self.chunk_left).unwrap_or(usize::MAX);
        let window = self.buffer.len().min(left);
        if window == 0 {
            return None;
        }
        if self.skipping_content {
            self.take_of_chunk(window);
            self.buffer.advance(window);
            return Some(Content::Skipped(window));
        }
        if self.newlines == BareNewlines::Keep {
            return Some(self.chunk_bytes(window));
        }
        if std::mem::take(&mut self.chunk_cr) {
            if self.buffer[0] != b'\n' {
                return Some(self.bare_newline());
            }
            self.take_of_chunk(1);
            self.buffer.advance(1);
            self.line_length = 0;
            return Some(Content::Bytes(Bytes::from_static(b"\r\n")));
        }
        self.next_text(window, line_limit).or_else(|| self.next_chunk(line_limit))
    }

    /// Text at the start of a window that is not empty; `None`: a CR, and what it is the octet
    /// behind it will tell.
    fn next_text(&mut self, window: usize, line_limit: usize) -> Option<Content> {
        // Everything before `at` is content, in one piece.
        let mut at = 0;
        loop {
            let rest = &self.buffer[at..window];
            let length = memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
            let room = line_limit - self.line_length.min(line_limit);
            if length > room {
                // What stands before a fault goes out first, so that faults come in their order.
                if at + room == 0 {
                    return Some(self.refuse_content(0, Content::LineTooLong));
                }
                self.line_length += room;
                return Some(self.chunk_bytes(at + room));
            }
            match &rest[length..] {
                [b'\r', b'\n', ..] => {
                    self.line_length = 0;
                    at += length + 2;
                }
                newline => {
                    let newline = newline.first().copied();
                    self.line_length += length;
                    at += length;
                    if at > 0 {
                        return Some(self.chunk_bytes(at));
                    }
                    self.take_of_chunk(1);
                    self.buffer.advance(1);
                    self.chunk_cr = newline == Some(b'\r') && window == 1;
                    return if self.chunk_cr { None } else { Some(self.bare_newline()) };
                }
            }
        }
    }

    fn chunk_bytes(&mut self, length: usize) -> Content {
        self.take_of_chunk(length);
        Content::Bytes(self.buffer.split_to(length).freeze())
    }

    fn take_of_chunk(&mut self, length: usize) {
        self.chunk_left -= length as u64;
    }
}
