//! How parameters of SMTP write what is no parameter: xtext (RFC 3461 section 4), and its kin for
//! UTF-8 (RFC 6533 section 3).

use std::fmt::Write as _;

/// Decodes xtext: `+` and two upper-case hexadecimal digits stand for one octet. `None`: it is not
/// xtext, or something other than printable ASCII came out.
pub fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = String::new();
    while let Some(byte) = bytes.next() {
        let octet = match byte {
            b'+' => hex(bytes.next()?)? * 16 + hex(bytes.next()?)?,
            b'=' => return None,
            byte => byte,
        };
        if !matches!(octet, b' '..=b'~') {
            return None;
        }
        decoded.push(char::from(octet));
    }
    Some(decoded)
}

/// Encodes printable ASCII.
pub fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && !matches!(byte, b'+' | b'=') {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "+{byte:02X}").expect("a String takes whatever is written");
        }
    }
    encoded
}

/// Decodes `utf-8-addr-xtext` and `utf-8-addr-unitext`: `\x{HEX}` stands for one character.
pub(super) fn decode_unicode(text: &str) -> Option<String> {
    let mut decoded = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        rest = &rest[first.len_utf8()..];
        let meant = match first {
            '\\' => {
                let (digits, behind) = rest.strip_prefix("x{")?.split_once('}')?;
                let is_hex = |byte: u8| hex(byte).is_some();
                if digits.len() > 6 || !digits.bytes().all(is_hex) {
                    return None;
                }
                rest = behind;
                char::from_u32(u32::from_str_radix(digits, 16).ok()?)?
            }
            '+' | '=' | ' ' => return None,
            other => other,
        };
        if meant.is_control() {
            return None;
        }
        decoded.push(meant);
    }
    Some(decoded)
}

/// Encodes as `utf-8-addr-xtext`, which is ASCII.
pub fn encode_unicode(text: &str) -> String {
    let mut encoded = String::new();
    for c in text.chars() {
        if c.is_ascii_graphic() && !matches!(c, '+' | '=' | '\\') {
            encoded.push(c);
        } else {
            write!(encoded, "\\x{{{:02X}}}", u32::from(c)).expect("a String takes it");
        }
    }
    encoded
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}
