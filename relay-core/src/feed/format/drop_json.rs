//! Spamhaus DROP as JSON lines (`drop_v4.json`, `drop_v6.json`): an object for each prefix, with
//! fields of no interest here, and one of metadata, by which a file that was cut off shows.

use serde::Deserialize;

use super::{FormatError, LineError, Stop, quoted};
use crate::feed::prefixes::Builder;
use crate::prefix::parse;

/// What the feed says about itself.
#[derive(Debug, Default)]
pub(super) struct Metadata {
    records: Option<u64>,
    read: u64,
}

impl Metadata {
    pub(super) fn check(&self) -> Result<(), FormatError> {
        let records = self.records.ok_or(FormatError::NoMetadata)?;
        if records != self.read {
            return Err(FormatError::Records { records, read: self.read });
        }
        Ok(())
    }
}

/// Of a line, what matters. A field that stands twice is an error.
#[derive(Deserialize)]
struct Line {
    cidr: Option<String>,
    r#type: Option<String>,
    records: Option<u64>,
}

pub(super) fn take(
    line: &[u8],
    metadata: &mut Metadata,
    builder: &mut Builder,
) -> Result<(), Stop> {
    if line.trim_ascii().is_empty() {
        return Ok(());
    }
    let parsed: Line = serde_json::from_slice(line)
        .map_err(|error| LineError::Json { text: quoted(line), why: why(&error) })?;
    if parsed.r#type.as_deref() == Some("metadata") {
        let records = parsed.records.ok_or_else(|| LineError::NoRecords(quoted(line)))?;
        return match metadata.records.replace(records) {
            None => Ok(()),
            Some(_) => Err(LineError::SecondMetadata.into()),
        };
    }
    let cidr = parsed.cidr.ok_or_else(|| LineError::NoCidr(quoted(line)))?;
    metadata.read += 1;
    builder.push(parse(&cidr)?).map_err(Stop::TooMany)
}

/// What the parser says, without the place in what it takes for a file of one line. It may quote
/// the feed, escaped but at length.
fn why(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let what = message.split_once(" at line ").map_or(&*message, |(what, _)| what);
    quoted(what.as_bytes())
}
