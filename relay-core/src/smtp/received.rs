//! The trace field that this gateway puts before a message (RFC 5321 section 4.4).

use std::fmt;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use super::address::Domain;
use super::envelope::{Helo, TlsInfo};
use super::session::{ClientFacts, Told};

/// Longest foreign text taken into the field, in characters.
const FOREIGN_MAX: usize = 255;

/// Everything that a Received field tells; [`fmt::Display`] writes it, folded, with its CRLF.
///
/// What the client chose (its EHLO name) and what DNS says is cut down to harmless characters:
/// it can neither end the line, nor close a comment, nor pass for another clause.
#[derive(Debug, Clone, Copy)]
pub struct ReceivedField<'a> {
    /// How the client introduced itself.
    pub helo: &'a Helo,
    /// Its name by reverse DNS, when forward DNS confirmed it.
    pub verified_name: Option<&'a str>,
    /// Its address.
    pub source: IpAddr,
    /// In place of name and address: the user of this machine (uid) that sent it by a Unix socket.
    pub user: Option<u32>,
    /// For whom that host forwards it, where XFORWARD said so.
    pub forwarded: Option<&'a ClientFacts>,
    /// The name of this gateway.
    pub hostname: &'a str,
    /// The protocol keyword, from [`Envelope::protocol`](super::Envelope::protocol).
    pub protocol: &'a str,
    /// The TLS that it came in.
    pub tls: Option<&'a TlsInfo>,
    /// The account that submitted it, where that may be shown.
    pub account: Option<&'a str>,
    /// The queue id.
    pub id: &'a str,
    /// The recipient, when there is exactly one: several would tell each of the others.
    pub recipient: Option<&'a str>,
    /// When the message was accepted.
    pub at: SystemTime,
}

impl fmt::Display for ReceivedField<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Received: from {} (", host(&self.helo.name))?;
        match self.user {
            Some(uid) => write!(f, "local user, uid {uid}")?,
            None => {
                let name = self.verified_name.map_or("unknown".into(), host);
                write!(f, "{name} {}", Domain::Literal(self.source.to_canonical()))?;
            }
        }
        f.write_str(")\r\n")?;
        if let Some(facts) = self.forwarded {
            let address = facts.address.as_ref().and_then(Told::known);
            let literal = address.map(|&address| format!(" {}", Domain::Literal(address)));
            let known = |told: &Option<Told<String>>| {
                told.as_ref().and_then(Told::known).map_or("unknown".into(), |text| host(text))
            };
            let (helo, name) = (known(&facts.helo), known(&facts.name));
            write!(f, "\t(forwarded for {helo}, {name}{})\r\n", literal.unwrap_or_default())?;
        }
        write!(f, "\tby {} (Postern) with {}", host(self.hostname), host(self.protocol))?;
        if let Some(tls) = self.tls {
            write!(f, "\r\n\t({} {})", host(&tls.version), host(&tls.cipher))?;
        }
        if let Some(account) = self.account {
            write!(f, "\r\n\t(authenticated as {})", account_name(account))?;
        }
        write!(f, "\r\n\tid {}", host(self.id))?;
        if let Some(recipient) = self.recipient.and_then(angle_addr) {
            write!(f, "\r\n\tfor {recipient}")?;
        }
        write!(f, ";\r\n\t{}\r\n", rfc5322_date(self.at))
    }
}

/// A host name, address literal or token: other characters become `?`, an empty one `unknown`.
fn host(text: &str) -> String {
    if text.is_empty() {
        return "unknown".to_owned();
    }
    text.chars().take(FOREIGN_MAX).map(harmless).collect()
}

fn harmless(c: char) -> char {
    match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | '_' | ':' | '[' | ']' => c,
        _ => '?',
    }
}

/// An account's name inside a comment: as a host name, and with what is common in addresses.
fn account_name(name: &str) -> String {
    let local = name.chars().take(FOREIGN_MAX).map(|c| if c == '@' { '@' } else { harmless(c) });
    local.collect()
}

/// `<address>`, when it is an address: its grammar leaves nothing to inject.
fn angle_addr(recipient: &str) -> Option<String> {
    let mailbox = recipient.parse::<super::address::Mailbox>().ok()?;
    Some(format!("<{mailbox}>"))
}

/// Date and time of RFC 5322 section 3.3, in UTC. Times before 1970 become 1970.
pub fn rfc5322_date(at: SystemTime) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let seconds = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil_date(days);
    format!(
        "{}, {day:02} {} {year:04} {:02}:{:02}:{:02} +0000",
        DAYS[(days % 7) as usize],
        MONTHS[month],
        time / 3600,
        time / 60 % 60,
        time % 60,
    )
}

/// Year, month from 0, day from 1, of a day counted from 1970-01-01 (proleptic Gregorian).
fn civil_date(days: u64) -> (u64, usize, u64) {
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    // 400 years have 146,097 days: skip them at once, so that the loops are short.
    let (mut year, mut rest) = (1970 + days / 146_097 * 400, days % 146_097);
    while rest >= 365 + u64::from(leap(year)) {
        rest -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while rest >= lengths[month] {
        rest -= lengths[month];
        month += 1;
    }
    (year, month, rest + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn dates() {
        for (seconds, date) in [
            (0, "Thu, 01 Jan 1970 00:00:00 +0000"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 +0000"),
            (951_868_800, "Wed, 01 Mar 2000 00:00:00 +0000"),
            (1_709_251_199, "Thu, 29 Feb 2024 23:59:59 +0000"),
            (1_795_284_118, "Sat, 21 Nov 2026 18:01:58 +0000"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 +0000"),
            (13_569_465_600, "Sat, 01 Jan 2400 00:00:00 +0000"),
        ] {
            assert_eq!(rfc5322_date(at(seconds)), date);
        }
    }

    #[test]
    fn a_full_field_and_a_bare_one() {
        let helo = Helo { name: "client.example".to_owned(), extended: true };
        let tls =
            TlsInfo { version: "TLSv1.3".to_owned(), cipher: "TLS_AES_256_GCM_SHA384".to_owned() };
        let full = ReceivedField {
            helo: &helo,
            verified_name: Some("mail.client.example"),
            source: "192.0.2.7".parse().unwrap(),
            user: None,
            forwarded: None,
            hostname: "mx.example",
            protocol: "ESMTPSA",
            tls: Some(&tls),
            account: Some("ann@x.example"),
            id: "4XyZ",
            recipient: Some("\"a b\"@x.example"),
            at: at(0),
        };
        assert_eq!(
            full.to_string(),
            "Received: from client.example (mail.client.example [192.0.2.7])\r\n\
             \tby mx.example (Postern) with ESMTPSA\r\n\
             \t(TLSv1.3 TLS_AES_256_GCM_SHA384)\r\n\
             \t(authenticated as ann@x.example)\r\n\
             \tid 4XyZ\r\n\
             \tfor <\"a b\"@x.example>;\r\n\
             \tThu, 01 Jan 1970 00:00:00 +0000\r\n"
        );
        let source = "2001:db8::1".parse().unwrap();
        let bare = ReceivedField {
            verified_name: None,
            tls: None,
            account: None,
            recipient: None,
            source,
            ..full
        };
        assert_eq!(
            bare.to_string(),
            "Received: from client.example (unknown [IPv6:2001:db8::1])\r\n\
             \tby mx.example (Postern) with ESMTPSA\r\n\
             \tid 4XyZ;\r\n\
             \tThu, 01 Jan 1970 00:00:00 +0000\r\n"
        );
    }

    #[test]
    fn of_a_local_user_only_the_uid_is_known() {
        let helo = Helo { name: "list.example".to_owned(), extended: true };
        let field = ReceivedField {
            helo: &helo,
            verified_name: None,
            source: "127.0.0.1".parse().unwrap(),
            user: Some(33),
            forwarded: None,
            hostname: "mx.example",
            protocol: "LMTP",
            tls: None,
            account: None,
            id: "4XyZ",
            recipient: None,
            at: at(0),
        };
        let expected = "Received: from list.example (local user, uid 33)\r\n\tby mx.example";
        assert!(field.to_string().starts_with(expected), "{field}");
    }

    #[test]
    fn for_whom_it_was_forwarded_is_a_comment() {
        let helo = Helo { name: "filter.example".to_owned(), extended: true };
        let forwarded = ClientFacts {
            name: Some(Told::Known("client.example".to_owned())),
            address: Some(Told::Known("192.0.2.7".parse().unwrap())),
            helo: Some(Told::Known("a) by evil; (".to_owned())),
            ..ClientFacts::default()
        };
        let field = ReceivedField {
            helo: &helo,
            verified_name: None,
            source: "10.0.0.3".parse().unwrap(),
            user: None,
            forwarded: Some(&forwarded),
            hostname: "mx.example",
            protocol: "ESMTP",
            tls: None,
            account: None,
            id: "4XyZ",
            recipient: None,
            at: at(0),
        };
        let expected = "(unknown [10.0.0.3])\r\n\
                        \t(forwarded for a??by?evil???, client.example [192.0.2.7])\r\n\tby mx.example";
        assert!(field.to_string().contains(expected), "{field}");
    }

    proptest! {
        /// Whatever the client is called, the field keeps its lines, comments and clauses.
        #[test]
        fn nothing_is_injected(name in "\\PC{0,300}|[a-z)(;\r\n\t <>\"\\\\]{0,30}") {
            let helo = Helo { name: name.clone(), extended: true };
            let field = ReceivedField {
                helo: &helo,
                verified_name: Some(&name),
                source: "192.0.2.7".parse().unwrap(),
                user: None,
                forwarded: None,
            hostname: "mx.example",
                protocol: "ESMTP",
                tls: None,
                account: Some(&name),
                id: "1",
                recipient: Some(&format!("{name}>")),
                at: at(0),
            };
            let text = field.to_string();
            prop_assert_eq!(text.matches("\r\n").count(), 5);
            prop_assert_eq!(text.matches('\n').count(), 5);
            prop_assert!(text.lines().skip(1).all(|line| line.starts_with('\t')));
            prop_assert_eq!(text.matches([';', '(', ')']).count(), 7);
            prop_assert!(text.lines().all(|line| line.len() <= 998));
        }
    }
}
