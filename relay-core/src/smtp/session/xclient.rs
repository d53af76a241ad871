//! XCLIENT and XFORWARD: a host of our own names the client that it speaks for (Postfix's
//! XCLIENT_README and XFORWARD_README).
//!
//! XCLIENT begins the session anew as that client's: whatever was known of the connection is
//! forgotten, and policy asks about the named source. XFORWARD changes nothing for policy: what it
//! says goes into the log and the Received field. Only the driver knows which hosts may, and says
//! so by [`Session::permit`].

use std::net::IpAddr;
use std::time::Instant;

use super::{Effect, Phase, Question, Session};
use crate::prefix::canonical_ip;
use crate::smtp::envelope::Helo;
use crate::smtp::reply::Reply;
use crate::smtp::xtext;

/// Longest value, xtext decoded, in octets.
const VALUE_MAX: usize = 255;

/// What the connection's host may say of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Upstream {
    pub xclient: bool,
    pub xforward: bool,
}

/// What one attribute says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told<T> {
    Known(T),
    /// `[UNAVAILABLE]`: there is none.
    Unavailable,
    /// `[TEMPUNAVAIL]`: it cannot be said now.
    TemporarilyUnavailable,
}

impl<T> Told<T> {
    /// The value, if there is one.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unavailable | Self::TemporarilyUnavailable => None,
        }
    }
}

/// What XCLIENT or XFORWARD said; `None`: it did not say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientFacts {
    /// The client's name, by reverse and forward DNS.
    pub name: Option<Told<String>>,
    pub address: Option<Told<IpAddr>>,
    pub port: Option<Told<u16>>,
    /// `SMTP` or `ESMTP`.
    pub protocol: Option<Told<String>>,
    pub helo: Option<Told<String>>,
    /// The account that the client authenticated as. XCLIENT alone.
    pub login: Option<Told<String>>,
    /// Where the client connected to. XCLIENT alone.
    pub destination: Option<Told<IpAddr>>,
    pub destination_port: Option<Told<u16>>,
    /// The message's name at the host that forwards it. XFORWARD alone.
    pub ident: Option<Told<String>>,
}

/// The two commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Xclient,
    Xforward,
}

impl Verb {
    /// The verb and its arguments.
    fn of(line: &[u8]) -> Option<(Self, &[u8])> {
        let end = line.iter().position(|&byte| byte == b' ').unwrap_or(line.len());
        let (word, rest) = line.split_at(end);
        let verb = match word {
            _ if word.eq_ignore_ascii_case(b"XCLIENT") => Self::Xclient,
            _ if word.eq_ignore_ascii_case(b"XFORWARD") => Self::Xforward,
            _ => return None,
        };
        Some((verb, rest))
    }
}

impl ClientFacts {
    /// `NAME=value` separated by blanks, each name once.
    fn parse(verb: Verb, arguments: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(arguments).ok()?;
        let mut facts = Self::default();
        let mut any = false;
        for attribute in text.split(' ').filter(|word| !word.is_empty()) {
            let (name, value) = attribute.split_once('=')?;
            let value = told(value)?;
            let fresh = match (name.to_ascii_uppercase().as_str(), verb) {
                ("NAME", _) => put(&mut facts.name, host_name(value)?),
                ("ADDR", _) => put(&mut facts.address, convert(value, address)?),
                ("PORT", _) => put(&mut facts.port, convert(value, port)?),
                ("PROTO", _) => put(&mut facts.protocol, convert(value, protocol)?),
                ("HELO", _) => put(&mut facts.helo, value),
                ("LOGIN", Verb::Xclient) => put(&mut facts.login, value),
                ("DESTADDR", Verb::Xclient) => {
                    put(&mut facts.destination, convert(value, address)?)
                }
                ("DESTPORT", Verb::Xclient) => {
                    put(&mut facts.destination_port, convert(value, port)?)
                }
                // A name that nobody has confirmed, and where the message came from: of no use.
                ("REVERSE_NAME", Verb::Xclient) | ("SOURCE", Verb::Xforward) => true,
                ("IDENT", Verb::Xforward) => put(&mut facts.ident, value),
                _ => return None,
            };
            if !fresh {
                return None;
            }
            any = true;
        }
        any.then_some(facts)
    }
}

/// `false`: it was said already.
fn put<T>(place: &mut Option<Told<T>>, value: Told<T>) -> bool {
    place.replace(value).is_none()
}

/// A value in xtext (RFC 3461 section 4), of printable ASCII.
fn told(value: &str) -> Option<Told<String>> {
    match value {
        _ if value.eq_ignore_ascii_case("[UNAVAILABLE]") => return Some(Told::Unavailable),
        _ if value.eq_ignore_ascii_case("[TEMPUNAVAIL]") => {
            return Some(Told::TemporarilyUnavailable);
        }
        _ => {}
    }
    // Nothing comes out that could leave its place in a log line, a header field or a reply.
    let text = xtext::decode(value)?;
    (1..=VALUE_MAX).contains(&text.len()).then_some(Told::Known(text))
}

fn convert<T>(value: Told<String>, with: impl Fn(&str) -> Option<T>) -> Option<Told<T>> {
    Some(match value {
        Told::Known(text) => Told::Known(with(&text)?),
        Told::Unavailable => Told::Unavailable,
        Told::TemporarilyUnavailable => Told::TemporarilyUnavailable,
    })
}

/// `192.0.2.1`, or `IPV6:2001:db8::1`.
fn address(text: &str) -> Option<IpAddr> {
    let address = match text.get(..5) {
        Some(prefix) if prefix.eq_ignore_ascii_case("IPV6:") => IpAddr::V6(text[5..].parse().ok()?),
        _ => IpAddr::V4(text.parse().ok()?),
    };
    let address = canonical_ip(address);
    (!address.is_unspecified() && !address.is_multicast()).then_some(address)
}

fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port: &u16| port.to_string() == text)
}

fn protocol(text: &str) -> Option<String> {
    let upper = text.to_ascii_uppercase();
    matches!(upper.as_str(), "SMTP" | "ESMTP").then_some(upper)
}

fn host_name(value: Told<String>) -> Option<Told<String>> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    convert(value, |text| text.chars().all(fits).then(|| text.to_owned()))
}

impl Session {
    /// Permits XCLIENT and XFORWARD, which are offered then; to be called before the banner, and by
    /// a driver whose answer to XCLIENT makes another source of the connection.
    pub fn permit(&mut self, upstream: Upstream) {
        self.upstream = upstream;
    }

    /// What XFORWARD has said for the message under way or the next one.
    pub fn forwarded(&self) -> Option<&ClientFacts> {
        self.forwarded.as_deref()
    }

    /// The lines for EHLO's reply.
    pub(super) fn offers_of_upstream(&self) -> impl Iterator<Item = &'static str> + use<> {
        let Upstream { xclient, xforward } = self.upstream;
        let xclient =
            xclient.then_some("XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT");
        let xforward = xforward.then_some("XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE");
        xclient.into_iter().chain(xforward)
    }

    /// Takes a line that is one of the two commands; `false`: it is neither.
    pub(super) fn takes_upstream_command(&mut self, line: &[u8]) -> bool {
        let Some((verb, arguments)) = Verb::of(line) else { return false };
        let permitted = match verb {
            Verb::Xclient => self.upstream.xclient,
            Verb::Xforward => self.upstream.xforward,
        };
        if !permitted {
            self.error(Reply::new(550, (5, 7, 0), "You may not speak for others"));
        } else if self.transaction.is_some() || self.incoming.is_some() {
            self.error(Reply::new(503, (5, 5, 1), "Not during a mail transaction"));
        } else if let Some(facts) = ClientFacts::parse(verb, arguments) {
            self.on_facts(verb, facts);
        } else {
            self.error(Reply::new(501, (5, 5, 4), "Bad attributes"));
        }
        true
    }

    fn on_facts(&mut self, verb: Verb, facts: ClientFacts) {
        match verb {
            // What follows in the same group was said before the banner of the new session.
            Verb::Xclient if !self.framing.is_empty() => {
                let text = "Nothing may follow XCLIENT before its reply";
                self.reply_and_close(Reply::new(554, (5, 5, 0), text));
            }
            Verb::Xclient => {
                let facts = Box::new(facts);
                self.ask(Question::Client(facts.clone()), Effect::NameClient(facts));
            }
            Verb::Xforward => {
                self.merge_forwarded(facts);
                self.reply(Reply::new(250, (2, 0, 0), "Ok"));
            }
        }
    }

    /// Attributes may come in several commands.
    fn merge_forwarded(&mut self, new: ClientFacts) {
        let old = self.forwarded.take().map_or_else(ClientFacts::default, |old| *old);
        self.forwarded = Some(Box::new(ClientFacts {
            name: new.name.or(old.name),
            address: new.address.or(old.address),
            port: new.port.or(old.port),
            protocol: new.protocol.or(old.protocol),
            helo: new.helo.or(old.helo),
            ident: new.ident.or(old.ident),
            ..ClientFacts::default()
        }));
    }

    /// The driver has made the named client the connection's source: `Ok` with what this one may
    /// say of others, or the reply to refuse it with.
    pub(super) fn on_client_named(
        &mut self,
        facts: &ClientFacts,
        result: Result<Upstream, Reply>,
        now: Instant,
    ) {
        self.account = None;
        self.helo = None;
        self.forwarded = None;
        match result {
            Err(reply) => self.reply_and_close(reply),
            Ok(upstream) => {
                self.upstream = upstream;
                let extended =
                    !matches!(&facts.protocol, Some(Told::Known(name)) if name == "SMTP");
                self.account = facts.login.as_ref().and_then(Told::known).cloned();
                let name = facts.helo.as_ref().and_then(Told::known).cloned();
                self.helo = name.map(|name| Helo { name, extended });
                self.phase = Phase::Banner;
                self.greet(now);
            }
        }
    }
}

#[cfg(test)]
#[path = "xclient_tests.rs"]
mod tests;
