//! Lines of a DSN: folded, bounded, and free of what could break them.

use super::ORIGINAL_HEADERS_MAX;

/// Columns at which fields and paragraphs are folded (RFC 5322 section 2.1.1: should).
const FOLD_AT: usize = 78;
/// Longest word kept whole; with the field's name it stays below 998 (must).
const WORD_MAX: usize = 900;
/// Longest line, CRLF apart (RFC 5322 section 2.1.1, RFC 2045 section 2.8).
const LINE_MAX: usize = 998;
/// Longest value of a field: a remote server's reply may run to many lines.
const VALUE_MAX: usize = 2000;

/// Printable ASCII and spaces; anything else cannot stand in a 7-bit header.
fn clean(value: &str) -> String {
    let printable = |c: char| match c {
        ' '..='~' => c,
        c if c.is_whitespace() || c.is_control() => ' ',
        _ => '?',
    };
    value.chars().take(VALUE_MAX).map(printable).collect()
}

/// Appends a header field, folded at spaces.
pub(super) fn field(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.push(b':');
    words(out, value, name.len() + 1, b"\r\n ");
    out.extend_from_slice(b"\r\n");
}

/// Appends a field that holds one address, which may be in UTF-8 (RFC 6532).
pub(super) fn address_field(out: &mut Vec<u8>, name: &str, address: &str) {
    let harmless = |c: char| if c.is_control() || matches!(c, '<' | '>') { '?' } else { c };
    let address: String = address.chars().take(WORD_MAX / 4).map(harmless).collect();
    out.extend_from_slice(format!("{name}: <{address}>\r\n").as_bytes());
}

/// Whether a whole message can be returned as it is: CRLF lines within the limit, without NUL.
pub(super) fn is_fit(message: &[u8]) -> bool {
    message.split_inclusive(|byte| *byte == b'\n').all(|line| {
        let text = line.strip_suffix(b"\r\n").unwrap_or(line);
        text.len() <= LINE_MAX && !text.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n'))
    })
}

/// Appends a paragraph of text with an empty line behind it.
pub(super) fn paragraph(out: &mut Vec<u8>, value: &str) {
    // Flush left, so the first word's space goes: it is taken off below.
    let start = out.len();
    words(out, value, 0, b"\r\n");
    if out.get(start) == Some(&b' ') {
        out.remove(start);
    }
    out.extend_from_slice(b"\r\n\r\n");
}

fn words(out: &mut Vec<u8>, value: &str, mut column: usize, fold: &[u8]) {
    let value = clean(value);
    for word in value.split(' ').filter(|word| !word.is_empty()) {
        let word = &word[..word.len().min(WORD_MAX)];
        if column > 0 && column + 1 + word.len() > FOLD_AT {
            out.extend_from_slice(fold);
            column = usize::from(fold.ends_with(b" ")) + word.len();
        } else {
            out.push(b' ');
            column += 1 + word.len();
        }
        out.extend_from_slice(word.as_bytes());
    }
}

/// The original's header section as whole CRLF lines within the line limit, without NUL and bare
/// CR, up to [`ORIGINAL_HEADERS_MAX`]; what is longer is cut off.
pub(super) fn headers_of_original(headers: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(headers.len().min(ORIGINAL_HEADERS_MAX));
    for line in headers.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            // The end of the section; an empty line inside would end the returned headers too.
            break;
        }
        let line = &line[..line.len().min(LINE_MAX)];
        if out.len() + line.len() + 2 > ORIGINAL_HEADERS_MAX {
            break;
        }
        out.extend(line.iter().map(|byte| if matches!(byte, 0 | b'\r') { b'?' } else { *byte }));
        out.extend_from_slice(b"\r\n");
    }
    out
}
