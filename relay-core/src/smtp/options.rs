//! What a sender asks for beyond the path, and what a gateway has to ask the next hop for in turn.

use std::fmt;

use super::xtext;

/// Longest ENVID in octets, as it is meant (RFC 3461 section 4.4).
const ENVID_MAX: usize = 100;
/// Longest ORCPT in octets, as it is written (RFC 3461 section 4.2).
const ORCPT_MAX: usize = 500;

/// The options of MAIL that stay with the message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MailOptions {
    /// SMTPUTF8 (RFC 6531): addresses or header fields are in UTF-8.
    pub utf8: bool,
    /// REQUIRETLS (RFC 8689): every hop must be in TLS that was verified.
    pub require_tls: bool,
    /// RET (RFC 3461 section 4.3).
    pub ret: Option<Returned>,
    /// ENVID (RFC 3461 section 4.4), as it is meant: printable ASCII.
    pub envid: Option<String>,
}

/// The options of RCPT that stay with the recipient.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RcptOptions {
    /// NOTIFY (RFC 3461 section 4.1). Without it the sender hears of failures.
    pub notify: Option<Notify>,
    /// ORCPT (RFC 3461 section 4.2).
    pub orcpt: Option<OriginalRecipient>,
}

impl RcptOptions {
    /// Whether the sender wants to hear that the message was not delivered.
    pub fn wants_failure(&self) -> bool {
        self.notify.is_none_or(|notify| notify.contains(Notify::FAILURE))
    }

    /// Whether the sender wants to hear that it was.
    pub fn wants_success(&self) -> bool {
        self.notify.is_some_and(|notify| notify.contains(Notify::SUCCESS))
    }
}

/// How much of the message a notification of failure returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Returned {
    /// HDRS: its header section.
    Headers,
    /// FULL: the whole of it.
    Full,
}

impl fmt::Display for Returned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Headers => "HDRS",
            Self::Full => "FULL",
        })
    }
}

impl Returned {
    /// The value of RET, in any case.
    pub fn parse(value: &str) -> Option<Self> {
        match value {
            _ if value.eq_ignore_ascii_case("HDRS") => Some(Self::Headers),
            _ if value.eq_ignore_ascii_case("FULL") => Some(Self::Full),
            _ => None,
        }
    }
}

/// What the sender wants to hear of: none of it is NEVER.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notify(u8);

impl Notify {
    /// Nothing at all.
    pub const NEVER: Self = Self(0);
    /// The message was delivered.
    pub const SUCCESS: Self = Self(1);
    /// It cannot be.
    pub const FAILURE: Self = Self(2);
    /// It is late.
    pub const DELAY: Self = Self(4);

    const NAMES: [(Self, &'static str); 3] =
        [(Self::SUCCESS, "SUCCESS"), (Self::FAILURE, "FAILURE"), (Self::DELAY, "DELAY")];

    /// Whether all of `other` is wanted.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The value of NOTIFY, in any case: NEVER alone, or a list of the others.
    pub fn parse(value: &str) -> Option<Self> {
        if value.eq_ignore_ascii_case("NEVER") {
            return Some(Self::NEVER);
        }
        value.split(',').try_fold(Self::NEVER, |all, word| {
            let known = Self::NAMES.iter().find(|(_, name)| word.eq_ignore_ascii_case(name))?;
            Some(Self(all.0 | known.0.0))
        })
    }

    /// The number that the queue keeps it by.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Of that number; bits that mean nothing are left out.
    pub fn from_bits(bits: u8) -> Self {
        Self(bits & 7)
    }
}

impl fmt::Display for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NEVER {
            return f.write_str("NEVER");
        }
        let wanted = Self::NAMES.iter().filter(|(one, _)| self.contains(*one));
        for (index, (_, name)) in wanted.enumerate() {
            write!(f, "{}{name}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// The value of ENVID, decoded.
pub(super) fn parse_envid(value: &str) -> Option<String> {
    xtext::decode(value).filter(|text| (1..=ENVID_MAX).contains(&text.len()))
}

/// Whom the sender wrote to first, before any forwarding: `rfc822;ann@example.org`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginalRecipient {
    kind: String,
    address: String,
}

impl OriginalRecipient {
    /// The value of ORCPT: an address type, `;` and the address in xtext, or for the type `utf-8`
    /// in the encodings of RFC 6533 section 3 or, with SMTPUTF8, as it is.
    pub fn parse(value: &str) -> Option<Self> {
        let (kind, encoded) = value.split_once(';')?;
        let is_atom = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let fits = value.len() <= ORCPT_MAX && !kind.is_empty() && kind.bytes().all(is_atom);
        let address = if kind.eq_ignore_ascii_case("utf-8") {
            xtext::decode_unicode(encoded)?
        } else {
            xtext::decode(encoded)?
        };
        (fits && !address.is_empty()).then(|| Self { kind: kind.to_ascii_lowercase(), address })
    }

    /// The address type, in lower case: `rfc822` or `utf-8`, as a rule.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The address as it is meant.
    pub fn address(&self) -> &str {
        &self.address
    }
}

/// In ASCII, as it can be said to any server.
impl fmt::Display for OriginalRecipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encoded = if self.kind == "utf-8" {
            xtext::encode_unicode(&self.address)
        } else {
            xtext::encode(&self.address)
        };
        write!(f, "{};{encoded}", self.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn notify_is_never_or_a_list() {
        let notify = Notify::parse("success,DELAY").unwrap();
        assert_eq!(notify.to_string(), "SUCCESS,DELAY");
        assert_eq!(Notify::from_bits(notify.bits()), notify);
        assert_eq!(Notify::parse("Never"), Some(Notify::NEVER));
        for bad in ["", "NEVER,FAILURE", "SUCCESS,", "SOMETIMES", "SUCCESS DELAY"] {
            assert_eq!(Notify::parse(bad), None, "{bad:?}");
        }
        let options = |notify| RcptOptions { notify, orcpt: None };
        assert!(options(None).wants_failure() && !options(None).wants_success());
        assert!(!options(Some(Notify::NEVER)).wants_failure());
        assert!(options(Some(notify)).wants_success() && !options(Some(notify)).wants_failure());
    }

    #[test]
    fn an_original_recipient_is_written_as_it_was_meant() {
        let plain = OriginalRecipient::parse("RFC822;a+2Bb@x.example").unwrap();
        assert_eq!((plain.kind(), plain.address()), ("rfc822", "a+b@x.example"));
        assert_eq!(plain.to_string(), "rfc822;a+2Bb@x.example");
        let unicode = OriginalRecipient::parse("utf-8;j\\x{FC}rgen@x.example").unwrap();
        assert_eq!(unicode.address(), "jürgen@x.example");
        assert_eq!(unicode.to_string(), "utf-8;j\\x{FC}rgen@x.example");
        assert_eq!(OriginalRecipient::parse("utf-8;jürgen@x.example"), Some(unicode));
        for bad in ["", "rfc822", "rfc822;", ";a@b", "rfc 822;a", "rfc822;a+0A", "rfc822;ü@b"] {
            assert_eq!(OriginalRecipient::parse(bad), None, "{bad:?}");
        }
        assert_eq!(OriginalRecipient::parse(&format!("rfc822;{}", "a".repeat(494))), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_the_same(address in "\\PC{1,40}", ascii in "[ -~]{1,40}") {
            for (kind, address) in [("utf-8", address), ("rfc822", ascii)] {
                let original = OriginalRecipient { kind: kind.to_owned(), address };
                let written = original.to_string();
                prop_assert!(written.bytes().all(|byte| byte.is_ascii_graphic()), "{written}");
                prop_assert_eq!(OriginalRecipient::parse(&written), Some(original), "{}", written);
            }
        }
    }
}
