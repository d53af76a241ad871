//! The forms in which values are written: durations, sizes, hosts, addresses, answer ranges.
//!
//! Each function takes the text and returns the value, or a sentence that says what is wrong and
//! how it should look.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;
use relay_common::entry::{List, Scope};
use relay_core::{policy::domains::normalise, smtp::framing::BareNewlines};

use super::checked::{
    AnswerRange, DomainRoute, Enforce, FeedSource, Host, ListenerTls, LogFormat, Offer, OutboundTls,
};

type Parsed<T> = Result<T, String>;

/// The sentence that permits an open relay, in so many words.
pub(super) const OPEN_RELAY_WANTED: &str = relay_core::policy::audit::OPEN_RELAY_PHRASE;

/// As long as an entry of a list may live; nobody means more.
const DURATION_MAX: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

pub(super) fn duration(text: &str) -> Parsed<Duration> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration > DURATION_MAX => {
            Err("longer than a hundred years; write for example 30s, 10min, 1h or 5days".into())
        }
        Ok(duration) if duration >= Duration::from_secs(1) => Ok(duration),
        Ok(_) => Err("shorter than a second; write for example 30s".into()),
        Err(_) => Err("not a duration; write for example 30s, 10min, 1h or 5days".into()),
    }
}

/// How long clients are kept waiting; 0s: not at all. RFC 5321 section 4.5.3.2.1 has a client wait
/// for five minutes, but many do not.
pub(super) fn short_wait(text: &str) -> Parsed<Duration> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration <= Duration::from_secs(60) => Ok(duration),
        Ok(_) => Err("longer than a minute, which honest clients do not wait; write for example \
                      6s, or 0s for no wait"
            .into()),
        Err(_) => Err("not a duration; write for example 6s, or 0s for no wait".into()),
    }
}

pub(super) fn size_bytes(text: &str) -> Parsed<u64> {
    const UNITS: [(&str, u64); 4] =
        [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];
    let remedy = || "not a size; write for example 100KiB, 50MiB or 1GiB".to_owned();
    let (digits, factor) = UNITS
        .iter()
        .find_map(|&(unit, factor)| text.strip_suffix(unit).map(|digits| (digits.trim(), factor)))
        .ok_or_else(remedy)?;
    digits
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(factor))
        .filter(|&n| n > 0)
        .ok_or_else(remedy)
}

pub(super) fn prefix(text: &str) -> Parsed<IpNet> {
    relay_core::prefix::parse(text).map_err(|error| error.to_string())
}

/// A host of our own that names the sources which come through it, or a few of them. Everybody
/// within can take any source's place, so wide ones are a mistake.
pub(super) fn upstream(text: &str) -> Parsed<IpNet> {
    let net = prefix(text)?;
    if net.max_prefix_len() - net.prefix_len() > 8 {
        return Err("wider than 256 addresses, and whoever is in it can name any source; write \
                    the addresses of your own hosts, for example 10.0.0.5"
            .into());
    }
    Ok(net)
}

pub(super) fn listen_address(text: &str) -> Parsed<SocketAddr> {
    text.parse().map_err(|_| {
        "not an address with a port; write for example 0.0.0.0:25, 192.0.2.1:25 or [::]:25".into()
    })
}

/// A name server: an address, with port 53 where none is written.
pub(super) fn dns_server(text: &str) -> Parsed<SocketAddr> {
    text.parse::<SocketAddr>()
        .or_else(|_| text.parse::<IpAddr>().map(|address| SocketAddr::new(address, 53)))
        .map_err(|_| "not an address; write for example 192.0.2.53 or [2001:db8::53]:53".into())
}

/// A server to send to: `host:port`, `192.0.2.1:25`, `[2001:db8::1]:25`; port 25 where none is
/// written.
pub(super) fn host(text: &str) -> Parsed<Host> {
    let remedy =
        || "not a host; write for example mail.example.org:25 or [2001:db8::1]:25".to_owned();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Host { host: address.to_string(), port: 25 });
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        if address.port() == 0 {
            return Err(remedy());
        }
        return Ok(Host { host: address.ip().to_string(), port: address.port() });
    }
    let (name, port) = match text.split_once(':') {
        Some((name, port)) => {
            (name, port.parse::<u16>().ok().filter(|&p| p > 0).ok_or_else(remedy)?)
        }
        None => (text, 25),
    };
    Ok(Host { host: domain_name(name).map_err(|_| remedy())?, port })
}

/// A server inside: as [`host`], or the path of a Unix socket.
pub(super) fn inside_host(text: &str) -> Parsed<Host> {
    if text.starts_with('/') && !text.contains('\0') {
        return Ok(Host { host: text.to_owned(), port: 0 });
    }
    host(text)
}

/// A DNS name in lower case (RFC 1035, section 2.3.1, with digits first as RFC 1123 permits), of
/// A-labels where it has others (RFC 5890).
pub(super) fn domain_name(text: &str) -> Parsed<String> {
    let name = match text.is_ascii() {
        true => text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase(),
        false => normalise(text).unwrap_or_default(),
    };
    let label_fits = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() <= 253 && name.split('.').all(label_fits) {
        Ok(name)
    } else {
        Err("not a domain name; write for example mail.example.org".into())
    }
}

pub(super) fn domain_pattern(text: &str) -> Parsed<String> {
    match text.strip_prefix("*.") {
        Some(parent) => domain_name(parent).map(|parent| format!("*.{parent}")),
        None => domain_name(text),
    }
    .map_err(|_| "not a domain; write example.org, or *.example.org for all names below it".into())
}

/// `127.0.0.2` or `127.0.0.2-127.0.0.9`, inside 127.0.0.0/8 (RFC 5782, section 2.3).
pub(super) fn answer_range(text: &str) -> Parsed<AnswerRange> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let parse = |part: &str| part.trim().parse::<Ipv4Addr>().ok().filter(Ipv4Addr::is_loopback);
    match (parse(first), parse(last)) {
        (Some(first), Some(last)) if first <= last => Ok((first, last)),
        _ => Err("not an answer of a block list; write 127.0.0.2 or 127.0.0.2-127.0.0.9".into()),
    }
}

/// `abuse@example.org`, `postmaster@` at every domain, `@example.org` for all of a domain.
pub(super) fn recipient_pattern(text: &str) -> Parsed<String> {
    relay_core::policy::recipient::ExemptRecipients::from_patterns([text])
        .map(|_| text.to_owned())
        .map_err(|_| "not a recipient; write abuse@example.org, postmaster@ or @example.org".into())
}

pub(super) fn not_empty(text: &str) -> Parsed<String> {
    if text.trim().is_empty() {
        return Err("empty; write a value".into());
    }
    if text.chars().any(char::is_control) {
        return Err("holds a control character; remove it".into());
    }
    Ok(text.to_owned())
}

pub(super) fn absolute_path(text: &str) -> Parsed<std::path::PathBuf> {
    let path = std::path::PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err("not an absolute path; begin it with /".into()) }
}

/// A path that fits into the address of a Unix socket (unix(7): 107 bytes).
pub(super) fn socket_path(text: &str) -> Parsed<std::path::PathBuf> {
    let path = absolute_path(text)?;
    if text.ends_with('/') || text.contains('\0') {
        return Err("not the path of a file; write for example /run/postern/lmtp.sock".into());
    }
    if text.len() > 107 {
        return Err("longer than the 107 bytes that a socket's path may have; shorten it".into());
    }
    Ok(path)
}

/// Permission bits in octal digits, as chmod(1) takes them.
pub(super) fn socket_mode(text: &str) -> Parsed<u32> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode & 0o222 == 0 => Err("nobody could connect; write for example 0660".into()),
        Ok(mode) if mode <= 0o777 && (3..=4).contains(&text.len()) => Ok(mode),
        _ => Err("not the mode of a socket; write for example 0660".into()),
    }
}

/// Part of file names and of counters' names, so nothing that means something there.
pub(super) fn feed_name(text: &str) -> Parsed<String> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if (1..=40).contains(&text.len()) && text.bytes().all(fits) {
        Ok(text.to_owned())
    } else {
        Err("not a name for a feed; write up to 40 of a-z, 0-9 and -, as in spamhaus-drop".into())
    }
}

/// An absolute path, or an https address without a password: addresses are shown and logged.
pub(super) fn feed_source(text: &str) -> Parsed<FeedSource> {
    const REMEDY: &str = "not a source; write an absolute path, or https://HOST/PATH";
    if text.starts_with('/') {
        return not_empty(text).and_then(|_| absolute_path(text)).map(FeedSource::File);
    }
    let url: hyper::Uri = text.parse().map_err(|_| REMEDY.to_owned())?;
    match url.scheme_str() {
        Some("https") => {}
        Some("http") => {
            return Err("without TLS anybody on the way can deny whom they like; write https://, \
                        or fetch it yourself and name the file"
                .into());
        }
        _ => return Err(REMEDY.into()),
    }
    let authority = url.authority().filter(|authority| !authority.host().is_empty());
    let authority = authority.ok_or(REMEDY)?;
    if authority.as_str().contains('@') {
        return Err("holds a password, which would be shown and logged; fetch it yourself and \
                    name the file"
            .into());
    }
    Ok(FeedSource::Https(text.to_owned()))
}

/// `50%`, or `50`.
pub(super) fn percent(value: &toml::Value) -> Parsed<u8> {
    let number = match value {
        toml::Value::Integer(number) => u8::try_from(*number).ok(),
        toml::Value::String(text) => {
            text.strip_suffix('%').and_then(|digits| digits.trim().parse().ok())
        }
        _ => None,
    };
    number
        .filter(|&percent| percent <= 100)
        .ok_or_else(|| "not a percentage; write for example \"50%\" or 50".into())
}

pub(super) fn interface(text: &str) -> Parsed<String> {
    // IFNAMSIZ is 16 with the closing NUL; a slash or a blank would be another file in sysfs.
    let fits = |b: u8| b.is_ascii_graphic() && b != b'/';
    if (1..16).contains(&text.len()) && text.bytes().all(fits) && text != "." && text != ".." {
        Ok(text.to_owned())
    } else {
        Err("not the name of an interface; `ip link` lists them".into())
    }
}

pub(super) fn one_of<T: Copy>(text: &str, known: &[(&str, T)]) -> Parsed<T> {
    known.iter().find(|(name, _)| *name == text).map(|&(_, value)| value).ok_or_else(|| {
        let names: Vec<String> = known.iter().map(|(name, _)| format!("{name:?}")).collect();
        format!("unknown; write one of {}", names.join(", "))
    })
}

pub(super) const OFFERS: [(&str, Offer); 3] =
    [("off", Offer::Off), ("offer", Offer::Offer), ("require", Offer::Require)];
pub(super) const BARE_NEWLINES: [(&str, BareNewlines); 2] =
    [("reject", BareNewlines::Reject), ("normalize", BareNewlines::Normalize)];
pub(super) const LISTENER_TLS: [(&str, ListenerTls); 4] = [
    ("off", ListenerTls::Off),
    ("offer", ListenerTls::Offer),
    ("require", ListenerTls::Require),
    ("implicit", ListenerTls::Implicit),
];
/// Whether it is LMTP.
pub(super) const PROTOCOLS: [(&str, bool); 2] = [("smtp", false), ("lmtp", true)];
pub(super) const ENFORCE: [(&str, Enforce); 2] =
    [("kernel", Enforce::Kernel), ("userspace", Enforce::Userspace)];
pub(super) const ROUTES: [(&str, DomainRoute); 3] = [
    ("inbound", DomainRoute::Inbound),
    ("relay", DomainRoute::Relay),
    ("reject", DomainRoute::Reject),
];
pub(super) const OUTBOUND_TLS: [(&str, OutboundTls); 3] =
    [("off", OutboundTls::Off), ("offer", OutboundTls::Offer), ("verify", OutboundTls::Verify)];
pub(super) const SCOPES: [(&str, Scope); 5] = Scope::NAMED;
pub(super) const LISTS: [(&str, List); 2] = [("deny", List::Deny), ("allow", List::Allow)];
pub(super) const LOG_FORMATS: [(&str, LogFormat); 2] =
    [("text", LogFormat::Text), ("json", LogFormat::Json)];
pub(super) const LOG_LEVELS: [(&str, tracing::Level); 5] = [
    ("error", tracing::Level::ERROR),
    ("warn", tracing::Level::WARN),
    ("info", tracing::Level::INFO),
    ("debug", tracing::Level::DEBUG),
    ("trace", tracing::Level::TRACE),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(size_bytes("50MiB"), Ok(50 << 20));
        assert_eq!(size_bytes("7 B"), Ok(7));
        for wrong in ["", "MiB", "-1MiB", "50", "50MB", "99999999999999GiB", "0KiB"] {
            assert!(size_bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn hosts() {
        assert_eq!(host("mail.Example.org:2525").unwrap().to_string(), "mail.example.org:2525");
        assert_eq!(host("192.0.2.1").unwrap().to_string(), "192.0.2.1:25");
        assert_eq!(host("[2001:db8::1]:24").unwrap().to_string(), "[2001:db8::1]:24");
        assert_eq!(host("2001:db8::1").unwrap().to_string(), "[2001:db8::1]:25");
        assert_eq!(inside_host("/run/dovecot/lmtp").unwrap().to_string(), "/run/dovecot/lmtp");
        for wrong in
            ["", "/run/x", ":25", "mail:0", "192.0.2.1:0", "mail:70000", "a b:25", "mail:25:25"]
        {
            assert!(host(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn answers_stay_inside_127() {
        assert!(answer_range("127.0.0.2-127.0.0.9").is_ok());
        for wrong in ["10.0.0.1", "127.0.0.9-127.0.0.2", "127.0.0.2-8.8.8.8", "x"] {
            assert!(answer_range(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn interfaces() {
        assert!(interface("eth0").is_ok() && interface("enp3s0f1.100").is_ok());
        for wrong in ["", "../eth0", "an-interface-too-long", "a b"] {
            assert!(interface(wrong).is_err(), "{wrong}");
        }
    }
}
