//! One column of a table with commas (RFC 4180).
//!
//! Own code rather than the csv crate, which forgives quotation marks in the wrong place: an open
//! one would then swallow the lines that follow, and the list be read without them.

use std::borrow::Cow;

use super::{LineError, Stop, quoted, text_of};
use crate::feed::prefixes::Builder;
use crate::prefix::parse;

pub(super) fn take(
    line: &[u8],
    column: usize,
    begun: &mut bool,
    builder: &mut Builder,
) -> Result<(), Stop> {
    if line.trim_ascii().is_empty() || line.starts_with(b"#") {
        return Ok(());
    }
    let is_first = !std::mem::replace(begun, true);
    let text = text_of(line)?;
    let cell = cell(text, column).map_err(|why| match why {
        Missing::Column { columns } => LineError::Column { text: quoted(line), column, columns },
        Missing::Quote => LineError::Quote(quoted(line)),
    })?;
    match parse(&cell) {
        Ok(net) => builder.push(net).map_err(Stop::TooMany),
        Err(_) if is_first && is_title(&cell) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether a cell of the first line can be a column's title. A damaged address is none.
fn is_title(cell: &str) -> bool {
    !cell.contains([':', '/']) && !cell.trim_start().starts_with(|c: char| c.is_ascii_digit())
}

enum Missing {
    Column { columns: usize },
    Quote,
}

/// The text of a line's column. What follows it is not looked at.
fn cell(line: &str, column: usize) -> Result<Cow<'_, str>, Missing> {
    let mut rest = line;
    let mut number = 1;
    loop {
        let (cell, behind) = match rest.strip_prefix('"') {
            Some(inner) => unquoted(inner)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (Cow::Borrowed(&rest[..end]), &rest[end..])
            }
        };
        if number == column {
            return Ok(cell);
        }
        rest = behind.strip_prefix(',').ok_or(Missing::Column { columns: number })?;
        number += 1;
    }
}

/// A quoted field after its first mark, and what stands behind its last. Two marks are one.
fn unquoted(inner: &str) -> Result<(Cow<'_, str>, &str), Missing> {
    let mut at = 0;
    while let Some(mark) = inner[at..].find('"') {
        at += mark + 1;
        let behind = &inner[at..];
        if behind.is_empty() || behind.starts_with(',') {
            let cell = &inner[..at - 1];
            let cell = match cell.contains('"') {
                true => Cow::Owned(cell.replace("\"\"", "\"")),
                false => Cow::Borrowed(cell),
            };
            return Ok((cell, behind));
        }
        if !behind.starts_with('"') {
            return Err(Missing::Quote);
        }
        at += 1;
    }
    Err(Missing::Quote)
}
