//! A block list as configured: its zone, which answers mean listed, and what the sender reads.

use std::net::Ipv4Addr;
use std::str::FromStr;

use thiserror::Error;

use super::meaning::is_error_code;
use super::reply::{ReplyTemplate, TemplateError};

/// Bytes of a zone name, so that the longest query name (64 for the nibbles) fits in 253.
const ZONE_BYTES_MAX: usize = 253 - 64;
const NAME_BYTES_MAX: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ZoneError {
    #[error("{0:?} is not the name of a DNS zone of at most {ZONE_BYTES_MAX} bytes")]
    Zone(String),
    #[error("{0:?} is no display name: 1 to {NAME_BYTES_MAX} printable ASCII characters")]
    Name(String),
    #[error(
        "{0:?} is no answer of a list: any, 127.0.0.2, 127.0.0.4-127.0.0.7, or the mask &0.0.0.4"
    )]
    Answers(String),
    #[error("{0} is a refusal to answer, never a listing")]
    ErrorCode(String),
    #[error("{0}.{1}.{2} is no 4xx or 5xx status for the code {3}")]
    Status(u8, u16, u16, u16),
    #[error(transparent)]
    Template(#[from] TemplateError),
}

/// Answers that a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// Whatever is in 127/8, save the codes by which lists say that they do not answer:
    /// 127.255.255.0/24 everywhere, 127.0.0.1 (URIBL), 127.0.0.255 (DNSWL over its limit).
    Any,
    /// From the first to the last, both included; a single answer is a range of one.
    Range(Ipv4Addr, Ipv4Addr),
    /// A bit of the mask is set in the answer. The first octet (127) is not part of it, and the
    /// codes that [`Answers::Any`] leaves out do not match either.
    Mask(u32),
}

impl Answers {
    pub const fn one(answer: Ipv4Addr) -> Self {
        Self::Range(answer, answer)
    }

    pub fn hold(self, answer: Ipv4Addr) -> bool {
        let says_nothing = matches!(answer.octets(), [127, 0, 0, 1 | 255]);
        if is_error_code(answer) || !answer.is_loopback() {
            return false;
        }
        match self {
            Self::Any => !says_nothing,
            Self::Range(first, last) => (first..=last).contains(&answer),
            Self::Mask(mask) => !says_nothing && u32::from(answer) & mask & 0x00ff_ffff != 0,
        }
    }
}

impl FromStr for Answers {
    type Err = ZoneError;

    fn from_str(text: &str) -> Result<Self, ZoneError> {
        let wrong = || ZoneError::Answers(text.to_owned());
        let address = |part: &str| part.trim().parse::<Ipv4Addr>().map_err(|_| wrong());
        let trimmed = text.trim();
        if trimmed.eq_ignore_ascii_case("any") {
            return Ok(Self::Any);
        }
        if let Some(mask) = trimmed.strip_prefix('&') {
            let mask = u32::from(address(mask)?) & 0x00ff_ffff;
            return if mask == 0 { Err(wrong()) } else { Ok(Self::Mask(mask)) };
        }
        let (first, last) = trimmed.split_once('-').unwrap_or((trimmed, trimmed));
        let (first, last) = (address(first)?, address(last)?);
        if first > last || !first.is_loopback() || !last.is_loopback() {
            return Err(wrong());
        }
        if is_error_code(first) || is_error_code(last) {
            return Err(ZoneError::ErrorCode(text.to_owned()));
        }
        Ok(Self::Range(first, last))
    }
}

/// One list. The administrator's order of zones is the order of their replies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Display name, for replies and logs.
    pub name: String,
    /// Normal form, no trailing dot. May carry a customer's key: shown only redacted
    /// ([`super::reply::redacted`]).
    pub zone: String,
    /// Answers that mean listed.
    pub listed: Vec<Answers>,
    /// Of those, the ones that state a policy (a dynamic address, say) and prove no abuse.
    pub policy: Vec<Answers>,
    pub reply: ReplyTemplate,
    pub code: u16,
    pub enhanced: (u8, u16, u16),
    /// Whether IPv6 addresses are asked, too. Many lists have none.
    pub v6: bool,
}

impl Zone {
    /// A list with the usual reply. Any answer means listed; for Spamhaus ZEN and PBL the codes of
    /// the policy list are known, and ZEN's listings are only those that it documents.
    pub fn new(name: &str, zone: &str) -> Result<Self, ZoneError> {
        let printable = name.bytes().all(|b| (b' '..=b'~').contains(&b));
        if name.trim().is_empty() || name.len() > NAME_BYTES_MAX || !printable {
            return Err(ZoneError::Name(name.to_owned()));
        }
        let wrong = || ZoneError::Zone(super::reply::redacted(zone));
        let zone = crate::policy::domains::normalise(zone).ok_or_else(wrong)?;
        if zone.len() > ZONE_BYTES_MAX {
            return Err(wrong());
        }
        let range = |first, last| {
            Answers::Range(Ipv4Addr::new(127, 0, 0, first), Ipv4Addr::new(127, 0, 0, last))
        };
        let labels: Vec<&str> = zone.split('.').collect();
        let spamhaus = labels.contains(&"spamhaus");
        let (listed, policy) = match () {
            () if spamhaus && labels.contains(&"zen") => (vec![range(2, 11)], vec![range(10, 11)]),
            () if spamhaus && labels.contains(&"pbl") => (vec![range(10, 11)], vec![range(10, 11)]),
            () => (vec![Answers::Any], Vec::new()),
        };
        Ok(Self {
            name: name.to_owned(),
            v6: spamhaus,
            zone,
            listed,
            policy,
            reply: ReplyTemplate::default(),
            code: 550,
            enhanced: (5, 7, 1),
        })
    }

    /// Sets the reply's status: a 4xx code with 4.x.x or a 5xx code with 5.x.x (RFC 3463).
    pub fn with_status(mut self, code: u16, enhanced: (u8, u16, u16)) -> Result<Self, ZoneError> {
        let class = u16::from(enhanced.0);
        if !(400..600).contains(&code)
            || code / 100 != class
            || enhanced.1 > 999
            || enhanced.2 > 999
        {
            return Err(ZoneError::Status(enhanced.0, enhanced.1, enhanced.2, code));
        }
        (self.code, self.enhanced) = (code, enhanced);
        Ok(self)
    }

    pub fn with_reply(mut self, template: &str) -> Result<Self, ZoneError> {
        self.reply = template.parse()?;
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(text: &str) -> Answers {
        text.parse().unwrap()
    }

    #[test]
    fn rules_hold_the_answers_they_name() {
        let held = |rule: &str| -> Vec<u8> {
            let rule = answers(rule);
            (0..=255).filter(|&n| rule.hold(Ipv4Addr::new(127, 0, 0, n))).collect()
        };
        assert_eq!(held("127.0.0.2"), [2]);
        assert_eq!(held("127.0.0.4 - 127.0.0.7"), [4, 5, 6, 7]);
        assert_eq!(held("127.0.0.255"), [255]);
        assert_eq!(held("any").len(), 254);
        assert!(!held("any").contains(&1) && !held("Any").contains(&255));
        assert_eq!(held("&0.0.0.128").len(), 127);
    }

    #[test]
    fn no_rule_holds_an_error_or_the_internet() {
        let rules = ["any", "&0.255.255.255", "127.0.0.0-127.255.254.255"].map(answers);
        for rule in
            rules.into_iter().chain([Answers::Range(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST)])
        {
            for answer in ["127.255.255.254", "127.255.255.0", "192.0.2.1", "128.0.0.2", "0.0.0.2"]
            {
                assert!(!rule.hold(answer.parse().unwrap()), "{rule:?} {answer}");
            }
        }
    }

    #[test]
    fn wrong_rules_are_refused() {
        for text in [
            "",
            "127.0.0.9-127.0.0.2",
            "10.0.0.1",
            "&0.0.0.0",
            "&127.0.0.0",
            "127.0.0",
            "127.255.255.254",
            "127.0.0.2-127.255.255.255",
            "some",
        ] {
            assert!(text.parse::<Answers>().is_err(), "{text}");
        }
    }

    #[test]
    fn zones_are_checked_and_spamhaus_is_known() {
        let zen = Zone::new("Spamhaus ZEN", "Zen.Spamhaus.org.").unwrap();
        assert_eq!(zen.zone, "zen.spamhaus.org");
        assert!(zen.v6 && zen.policy == [answers("127.0.0.10-127.0.0.11")]);
        assert_eq!(Zone::new("Other", "bl.example").unwrap().listed, [Answers::Any]);
        let long = "a".repeat(60) + "." + &"b".repeat(63) + "." + &"c".repeat(63) + ".example";
        for (name, zone) in [
            ("", "bl.example"),
            ("a\r\nb", "bl.example"),
            ("ü", "bl.example"),
            ("X", "bl example"),
            ("X", ""),
            ("X", long.as_str()),
        ] {
            assert!(Zone::new(name, zone).is_err(), "{name:?} {zone:?}");
        }
        let zone = || Zone::new("X", "bl.example").unwrap();
        assert!(zone().with_status(451, (4, 7, 1)).is_ok());
        for (code, enhanced) in [(250, (2, 0, 0)), (550, (4, 7, 1)), (650, (6, 0, 0))] {
            assert!(zone().with_status(code, enhanced).is_err());
        }
    }
}
