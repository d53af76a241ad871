//! What a refused sender reads: a template with placeholders, and no customer's key in it.

use std::fmt::Write;
use std::net::IpAddr;
use std::str::FromStr;

use thiserror::Error;

use super::zone::Zone;
use crate::policy::Refusal;
use crate::prefix::canonical_ip;

/// Bytes of a filled reply: the line of RFC 5321 section 4.5.3.1.5 without codes and CRLF.
const REPLY_BYTES_MAX: usize = 512 - "550 5.777.777 \r\n".len();
const TEMPLATE_BYTES_MAX: usize = 400;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TemplateError {
    #[error("a reply is 1 to {TEMPLATE_BYTES_MAX} printable ASCII characters, {0:?} is not")]
    Text(String),
    #[error("a reply knows {{address}}, {{name}} and {{zone}}, not {0:?}")]
    Placeholder(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Address,
    Name,
    Zone,
}

/// Text with `{address}`, `{name}` and `{zone}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyTemplate(Vec<Part>);

impl Default for ReplyTemplate {
    fn default() -> Self {
        let text = |t: &str| Part::Text(t.to_owned());
        Self(vec![
            text("Client host ["),
            Part::Address,
            text("] is listed by "),
            Part::Name,
            text(" ("),
            Part::Zone,
            text(")"),
        ])
    }
}

impl FromStr for ReplyTemplate {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let printable = text.bytes().all(|b| (b' '..=b'~').contains(&b));
        if text.trim().is_empty() || text.len() > TEMPLATE_BYTES_MAX || !printable {
            return Err(TemplateError::Text(text.chars().take(TEMPLATE_BYTES_MAX).collect()));
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            let unknown = || TemplateError::Placeholder(from.chars().take(20).collect());
            let (name, after) =
                from.strip_prefix('{').and_then(|f| f.split_once('}')).ok_or_else(unknown)?;
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(match name {
                "address" => Part::Address,
                "name" => Part::Name,
                "zone" => Part::Zone,
                _ => return Err(unknown()),
            });
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self(parts))
    }
}

impl ReplyTemplate {
    pub fn fill(&self, address: IpAddr, zone: &Zone) -> String {
        let mut reply = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => reply.push_str(text),
                // Writing to a String cannot fail.
                Part::Address => drop(write!(reply, "{}", canonical_ip(address))),
                Part::Name => reply.push_str(&zone.name),
                Part::Zone => reply.push_str(&redacted(&zone.zone)),
            }
        }
        reply.truncate(REPLY_BYTES_MAX); // ASCII throughout
        reply
    }
}

/// The refusal that this zone's listing of the address earns.
pub fn refusal(address: IpAddr, zone: &Zone) -> Refusal {
    Refusal {
        code: zone.code,
        enhanced: zone.enhanced,
        text: zone.reply.fill(address, zone).into(),
        close: false,
    }
}

/// The zone, or a name under it, with the labels hidden that look like a customer's key (Spamhaus
/// DQS and its like put one before `zen.dq.spamhaus.net`). For everything that leaves the process.
pub fn redacted(zone: &str) -> String {
    let hide = |label| if looks_like_a_key(label) { "[key]" } else { label };
    zone.split('.').map(hide).collect::<Vec<_>>().join(".")
}

/// Long, letters and digits mixed or too long for a word: `abcdefghijklmnop1234567890`.
fn looks_like_a_key(label: &str) -> bool {
    let alphanumeric = label.bytes().all(|b| b.is_ascii_alphanumeric());
    let mixed =
        label.bytes().any(|b| b.is_ascii_digit()) && label.bytes().any(|b| b.is_ascii_alphabetic());
    alphanumeric && ((label.len() >= 16 && mixed) || label.len() >= 24)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "abcdefghij1234567890klmnop";

    #[test]
    fn placeholders_are_filled_and_keys_hidden() {
        let address = "::ffff:192.0.2.1".parse().unwrap();
        let zone = Zone::new("Spamhaus", &format!("{KEY}.zen.dq.spamhaus.net")).unwrap();
        let usual = refusal(address, &zone);
        assert_eq!((usual.code, usual.enhanced), (550, (5, 7, 1)));
        assert_eq!(
            usual.text,
            "Client host [192.0.2.1] is listed by Spamhaus ([key].zen.dq.spamhaus.net)"
        );
        let own = zone.with_reply("See https://bl.example/q/{address} {name}{zone}!").unwrap();
        assert_eq!(
            own.reply.fill(address, &own),
            "See https://bl.example/q/192.0.2.1 Spamhaus[key].zen.dq.spamhaus.net!"
        );
    }

    #[test]
    fn keys_are_told_from_words() {
        for word in ["zen", "barracudacentral", "spamhaus", "dnsbl-1", "a-1-b-2-c-3-d-4-e-5"] {
            assert_eq!(redacted(word), word);
        }
        for key in [KEY, "abcdefghijklmnopqrstuvwxyz", "0123456789abcdef"] {
            assert_eq!(
                redacted(&format!("9.2.0.192.{key}.bl.example")),
                "9.2.0.192.[key].bl.example"
            );
        }
    }

    #[test]
    fn a_reply_is_one_short_printable_line() {
        for text in [
            "",
            " ",
            "a\r\nb",
            "a\tb",
            "ü",
            "{ip}",
            "{address",
            "address}",
            "{",
            "{}",
            &"x".repeat(401),
        ] {
            assert!(text.parse::<ReplyTemplate>().is_err(), "{text:?}");
        }
        let zone = Zone::new("X", &["a".repeat(60), "b".repeat(60), "c".repeat(60)].join("."));
        let zone = zone.unwrap().with_reply(&"{zone}".repeat(66)).unwrap();
        let address = "2001:db8::1".parse().unwrap();
        assert_eq!(zone.reply.fill(address, &zone).len(), REPLY_BYTES_MAX);
    }
}
