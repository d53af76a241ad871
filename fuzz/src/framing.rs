//! Lines, content and chunks as they are cut, against a plain model that sees all bytes at once.

use bytes::Buf;
use relay_core::smtp::framing::{BareNewlines, Content, Framing, Line, SKIP_MAX};

use super::{has_crlf_alone, pieces};

/// Small, so that they are met.
const LINE_MAX: usize = 24;
const TEXT_MAX: usize = 16;

/// What a stream comes to, whoever cuts it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    Line(Vec<u8>),
    /// A command line with a fault.
    RefusedLine,
    /// A message that ended, by CRLF.CRLF or by its last chunk; without its content if it had a
    /// fault.
    Message(Option<Vec<u8>>),
}

/// What a line asks for in these streams.
enum Asked {
    Nothing,
    Data,
    Chunk { size: u64, is_last: bool },
}

/// First octet: what bare newlines are. Second: how the rest is cut. The rest: a stream in which
/// the line `DATA` begins content, and `BDAT size` or `BDAT size LAST` a chunk of it.
pub fn check(data: &[u8]) {
    let [mode, seed, stream @ ..] = data else { return };
    if stream.len() > SKIP_MAX {
        return;
    }
    let newlines = match mode % 3 {
        0 => BareNewlines::Reject,
        1 => BareNewlines::Normalize,
        _ => BareNewlines::Keep,
    };
    let whole = read(&[stream], newlines);
    assert_eq!(read(&pieces(stream, *seed), newlines), whole, "the cut matters");
    assert_eq!(model(stream, newlines), whole, "the model says otherwise");
    if newlines != BareNewlines::Keep {
        for found in whole {
            let Found::Message(Some(content)) = found else { continue };
            assert!(has_crlf_alone(&content), "{}", content.escape_ascii());
        }
    }
}

fn asked(line: &[u8]) -> Asked {
    let text = std::str::from_utf8(line).unwrap_or_default();
    let (size, is_last) = match text.strip_prefix("BDAT ") {
        Some(rest) => (rest.strip_suffix(" LAST").unwrap_or(rest), rest.ends_with(" LAST")),
        None if text == "DATA" => return Asked::Data,
        None => return Asked::Nothing,
    };
    size.parse().map_or(Asked::Nothing, |size| Asked::Chunk { size, is_last })
}

/// DATA cannot carry binary content (RFC 3030 section 3).
fn in_data(newlines: BareNewlines) -> BareNewlines {
    if newlines == BareNewlines::Keep { BareNewlines::Reject } else { newlines }
}

#[derive(Default)]
enum Phase {
    #[default]
    Line,
    Data,
    Chunk {
        is_last: bool,
    },
}

#[derive(Default)]
struct Reader {
    framing: Framing,
    phase: Phase,
    /// A message in chunks is open.
    in_chunks: bool,
    content: Vec<u8>,
    has_fault: bool,
    found: Vec<Found>,
}

fn read(pieces: &[&[u8]], newlines: BareNewlines) -> Vec<Found> {
    let mut reader = Reader::default();
    for piece in pieces {
        reader.framing.push(piece);
        while reader.step(newlines) {}
    }
    reader.found
}

impl Reader {
    /// Takes the next thing; `false`: more octets are needed.
    fn step(&mut self, newlines: BareNewlines) -> bool {
        let content = match self.phase {
            Phase::Line => {
                let line = self.framing.next_line(LINE_MAX);
                return line.is_some_and(|line| self.line(line, newlines));
            }
            Phase::Data => self.framing.next_content(TEXT_MAX),
            Phase::Chunk { .. } => self.framing.next_chunk(TEXT_MAX),
        };
        let Some(content) = content else { return false };
        match content {
            Content::Bytes(bytes) => {
                assert!(!self.has_fault, "content behind a fault");
                self.content.extend_from_slice(&bytes);
            }
            Content::Newline => {
                assert_eq!(newlines, BareNewlines::Normalize);
                self.content.extend_from_slice(b"\r\n");
            }
            Content::BareNewline | Content::LineTooLong => self.has_fault = true,
            Content::Skipped(_) => assert!(self.has_fault, "skipped without a fault"),
            Content::End => {
                let is_last = !matches!(self.phase, Phase::Chunk { is_last: false });
                self.phase = Phase::Line;
                if is_last {
                    self.end();
                }
            }
        }
        true
    }

    fn end(&mut self) {
        self.in_chunks = false;
        let content = std::mem::take(&mut self.content);
        let content = (!std::mem::take(&mut self.has_fault)).then_some(content);
        self.found.push(Found::Message(content));
    }

    fn line(&mut self, line: Line, newlines: BareNewlines) -> bool {
        let line = match line {
            Line::Complete(line) => line,
            Line::TooLong | Line::BareNewline => {
                self.found.push(Found::RefusedLine);
                return true;
            }
            Line::Endless => unreachable!("the stream is shorter than what is skipped"),
        };
        self.found.push(Found::Line(line.chunk().to_vec()));
        match asked(&line) {
            Asked::Nothing => {}
            Asked::Data => {
                self.framing.begin_content(in_data(newlines));
                (self.in_chunks, self.has_fault) = (false, false);
                self.content.clear();
                self.phase = Phase::Data;
            }
            Asked::Chunk { size, is_last } => {
                if !self.in_chunks {
                    self.framing.begin_content(newlines);
                    self.in_chunks = true;
                }
                self.framing.begin_chunk(size, is_last);
                self.phase = Phase::Chunk { is_last };
            }
        }
        true
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// The same by searching for CRLF and CRLF.CRLF in all of the stream.
fn model(mut stream: &[u8], newlines: BareNewlines) -> Vec<Found> {
    let mut found = Vec::new();
    let mut chunks: Option<Vec<u8>> = None;
    while let Some(end) = find(stream, b"\r\n") {
        let line = &stream[..end];
        stream = &stream[end + 2..];
        if line.len() > LINE_MAX || line.contains(&b'\r') || line.contains(&b'\n') {
            found.push(Found::RefusedLine);
            continue;
        }
        found.push(Found::Line(line.to_vec()));
        match asked(line) {
            Asked::Nothing => {}
            Asked::Data => {
                chunks = None;
                let from_line_end = [b"\r\n", stream].concat();
                // Two octets longer, and so the end is where the dot's line begins.
                let Some(end) = find(&from_line_end, b"\r\n.\r\n") else { return found };
                found.push(Found::Message(text(&stream[..end], true, in_data(newlines))));
                stream = &stream[end + 3..];
            }
            Asked::Chunk { size, is_last } => {
                let Ok(size) = usize::try_from(size) else { return found };
                let Some((chunk, rest)) = stream.split_at_checked(size) else { return found };
                chunks.get_or_insert_default().extend_from_slice(chunk);
                stream = rest;
                if let Some(content) = chunks.take_if(|_| is_last) {
                    found.push(Found::Message(text(&content, false, newlines)));
                }
            }
        }
    }
    // A line without its end is refused as soon as it cannot end well any more.
    let line = stream.strip_suffix(b"\r").unwrap_or(stream);
    if line.len() > LINE_MAX || line.contains(&b'\r') || line.contains(&b'\n') {
        found.push(Found::RefusedLine);
    }
    found
}

/// Content as it is stored; `None`: it has a fault.
fn text(raw: &[u8], dotted: bool, newlines: BareNewlines) -> Option<Vec<u8>> {
    if newlines == BareNewlines::Keep {
        return Some(raw.to_vec());
    }
    let mut content = Vec::new();
    let (mut line_start, mut length, mut at) = (true, 0, 0);
    while let Some(&octet) = raw.get(at) {
        at += 1;
        if std::mem::take(&mut line_start) && dotted && octet == b'.' {
            continue;
        }
        match octet {
            b'\r' if raw.get(at) == Some(&b'\n') => {
                at += 1;
                (line_start, length) = (true, 0);
                content.extend_from_slice(b"\r\n");
            }
            b'\r' | b'\n' if newlines == BareNewlines::Reject => return None,
            b'\r' | b'\n' => {
                length = 0;
                content.extend_from_slice(b"\r\n");
            }
            _ if length == TEXT_MAX => return None,
            octet => {
                length += 1;
                content.push(octet);
            }
        }
    }
    Some(content)
}
