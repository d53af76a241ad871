//! What the lines of a feed look like, and a reader that takes them as they arrive.
//!
//! Reading is strict: one malformed line makes the feed malformed, host bits beyond a prefix's
//! length included, as at an import by hand. A publisher's error page, a format that changed, a
//! file that was cut off in a line: each is better refused than read half. What no line can tell is
//! that a plain list ends too early; whoever fetches compares the length that was announced, and
//! [`judge`](super::judge) the size of the list before.

use memchr::memchr_iter;
use thiserror::Error;

use super::prefixes::{Builder, TooMany};
use crate::prefix::PrefixError;

mod cidr;
mod csv;
mod drop_json;

use drop_json::Metadata;

/// The longest line there can be, in bytes without its end.
pub const LINE_BYTES_MAX: usize = 4096;
/// How much of a wrong line is quoted.
const QUOTED_CHARS_MAX: usize = 60;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How a feed is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An address, a prefix, an address with a mask, or a range `FIRST-LAST` on each line. Comments
    /// begin with `#` or `;`, as in the text form of Spamhaus DROP.
    Cidr,
    /// A JSON object on each line, with the prefix as `cidr`, and one of `"type":"metadata"` that
    /// says in `records` how many there are: Spamhaus DROP.
    DropJson,
    /// Fields between commas, quoted as in RFC 4180 section 2, but never over the end of a line.
    /// The first line may be a header; lines that begin with `#` are comments.
    Csv {
        /// The field that holds the address or prefix, counted from 1.
        column: usize,
    },
}

impl Format {
    /// What a line should have been, for whoever wrote another.
    const fn expected(self) -> &'static str {
        match self {
            Self::Cidr => {
                "a line is: ADDRESS, ADDRESS/LENGTH or FIRST-LAST, then perhaps # comment"
            }
            Self::DropJson => "a line is: {\"cidr\":\"ADDRESS/LENGTH\",…}",
            Self::Csv { .. } => "a line is: fields between commas, one of them ADDRESS/LENGTH",
        }
    }
}

/// What is wrong with a line. Texts from the feed are cut short and escaped.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LineError {
    #[error("it is longer than {LINE_BYTES_MAX} bytes")]
    TooLong,
    #[error("{0:?} is not UTF-8")]
    NotUtf8(String),
    #[error(transparent)]
    Prefix(#[from] PrefixError),
    #[error("{0:?} is no range from a lower to a higher address of one family")]
    Range(String),
    #[error("{text:?} is not such an object: {why}")]
    Json { text: String, why: String },
    #[error("{0:?} has no \"cidr\"")]
    NoCidr(String),
    #[error("the metadata say nothing about \"records\": {0:?}")]
    NoRecords(String),
    #[error("there are metadata already")]
    SecondMetadata,
    #[error("{text:?} has {columns} columns, and column {column} was asked for")]
    Column { text: String, column: usize, columns: usize },
    #[error("{0:?} has a quotation mark that is never closed, or text behind a closed one")]
    Quote(String),
}

/// Why a feed cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FormatError {
    #[error("line {line}: {why} ({expected})")]
    Line { line: u64, why: LineError, expected: &'static str },
    #[error("the line of metadata at the end is missing: the list was cut off")]
    NoMetadata,
    #[error("the metadata speak of {records} records, and there are {read}: the list was cut off")]
    Records { records: u64, read: u64 },
    #[error(transparent)]
    TooMany(#[from] TooMany),
}

/// Why a line was not taken: it is wrong, or one too many.
enum Stop {
    Line(LineError),
    TooMany(TooMany),
}

impl<E: Into<LineError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Line(error.into())
    }
}

/// Reads a feed in pieces, whatever their size, and puts its prefixes into a builder. After an
/// error the feed is lost: neither reader nor builder is of use any more.
#[derive(Debug)]
pub struct Reader {
    format: Format,
    builder: Builder,
    /// Lines that have ended.
    lines: u64,
    /// The head of a line whose end has not arrived.
    head: Vec<u8>,
    metadata: Metadata,
    /// Whether a line of CSV was seen, header or not.
    begun: bool,
}

impl Reader {
    pub fn new(format: Format, builder: Builder) -> Self {
        let (head, metadata) = (Vec::new(), Metadata::default());
        Self { format, builder, lines: 0, head, metadata, begun: false }
    }

    /// Takes the next piece of the feed.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), FormatError> {
        let mut start = 0;
        for end in memchr_iter(b'\n', piece) {
            let line = &piece[start..end];
            start = end + 1;
            if self.head.is_empty() {
                self.line(line)?;
            } else {
                self.keep(line)?;
                let whole = std::mem::take(&mut self.head);
                self.line(&whole)?;
                self.head = whole;
                self.head.clear();
            }
        }
        self.keep(&piece[start..])
    }

    /// What the feed says, once all of it was pushed. The last line needs no end.
    pub fn finish(mut self) -> Result<Builder, FormatError> {
        if !self.head.is_empty() {
            let last = std::mem::take(&mut self.head);
            self.line(&last)?;
        }
        if self.format == Format::DropJson {
            self.metadata.check()?;
        }
        Ok(self.builder)
    }

    /// Prefixes read so far, for whoever shows progress.
    pub fn read(&self) -> usize {
        self.builder.read()
    }

    /// Adds to the head of a line. One byte more than a line may have is kept, for its CR.
    fn keep(&mut self, part: &[u8]) -> Result<(), FormatError> {
        if self.head.len() + part.len() > LINE_BYTES_MAX + 1 {
            self.lines += 1;
            return Err(self.wrong(LineError::TooLong));
        }
        self.head.extend_from_slice(part);
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> Result<(), FormatError> {
        self.lines += 1;
        let line = match self.lines {
            1 => line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line),
            _ => line,
        };
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > LINE_BYTES_MAX {
            return Err(self.wrong(LineError::TooLong));
        }
        let builder = &mut self.builder;
        let taken = match self.format {
            Format::Cidr => cidr::take(line, builder),
            Format::DropJson => drop_json::take(line, &mut self.metadata, builder),
            Format::Csv { column } => csv::take(line, column, &mut self.begun, builder),
        };
        taken.map_err(|stop| match stop {
            Stop::Line(why) => self.wrong(why),
            Stop::TooMany(error) => error.into(),
        })
    }

    fn wrong(&self, why: LineError) -> FormatError {
        FormatError::Line { line: self.lines, why, expected: self.format.expected() }
    }
}

/// The beginning of a line, for an error. Escaping is the error's own.
fn quoted(line: &[u8]) -> String {
    // A character has four bytes at most.
    let line = &line[..line.len().min(QUOTED_CHARS_MAX * 4)];
    let text = String::from_utf8_lossy(line);
    let mut chars = text.chars();
    let mut quoted: String = chars.by_ref().take(QUOTED_CHARS_MAX).collect();
    if chars.next().is_some() {
        quoted.push('…');
    }
    quoted
}

/// A line, or a part of it, as text.
fn text_of(line: &[u8]) -> Result<&str, LineError> {
    std::str::from_utf8(line).map_err(|_| LineError::NotUtf8(quoted(line)))
}

#[cfg(test)]
mod tests;
