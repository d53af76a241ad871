//! How answers look: plain tables, times that can be read and times that can be felt.

use std::io::{self, Write};
use std::time::Duration;

use comfy_table::Table;
use comfy_table::presets::NOTHING;

use crate::control::api::Time;

/// A table without lines or colours; nothing is printed without rows.
pub(super) fn table(
    out: &mut dyn Write,
    header: Option<&[&str]>,
    rows: impl IntoIterator<Item = Vec<String>>,
) -> io::Result<()> {
    let mut table = Table::new();
    table.load_style(NOTHING);
    if let Some(header) = header {
        table.set_header(header.to_vec());
    }
    table.add_rows(rows);
    if table.row_count() == 0 {
        return Ok(());
    }
    for line in table.lines() {
        writeln!(out, "{}", line.trim())?;
    }
    Ok(())
}

/// `2026-11-21T18:00:00Z (in 9m 58s)`, or `never`.
pub(super) fn expiry(expires: Option<Time>, wall_s: u64) -> String {
    match expires {
        None => "never".to_owned(),
        Some(at) if at.0 <= wall_s => format!("{at} (now)"),
        Some(at) => format!("{at} (in {})", span(at.0 - wall_s)),
    }
}

/// `9m 58s`.
pub(super) fn span(seconds: u64) -> String {
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

/// `1 row`, `2 rows`.
pub(super) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
