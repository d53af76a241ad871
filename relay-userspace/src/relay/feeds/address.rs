//! Where a feed is: an https address, whither it may redirect, and which machines it may be on.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustls_pki_types::ServerName;
use url::{Host, Url};

use super::FetchError;

/// The longest address that is taken. RFC 9110 section 4.1 asks for 8,000 at least.
const ADDRESS_BYTES_MAX: usize = 8_000;
/// The port of https (RFC 9110, section 4.2.2).
const HTTPS_PORT: u16 = 443;

/// An address with scheme https and a host, without a user's name or password. It may hold a
/// customer's key in its path or query, so only the host is ever shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(Url);

impl Address {
    /// # Errors
    /// It is no https address that can be asked.
    pub fn parse(text: &str) -> Result<Self, FetchError> {
        if text.len() > ADDRESS_BYTES_MAX {
            return Err(FetchError::Address("longer than 8000 characters".to_owned()));
        }
        let url = Url::parse(text).map_err(|error| FetchError::Address(error.to_string()))?;
        Self::check(url).map_err(|why| FetchError::Address(why.to_owned()))
    }

    /// Where a redirect leads; `location` may be relative to this address (RFC 9110, section
    /// 10.2.2).
    ///
    /// # Errors
    /// To no https address that can be asked.
    pub fn redirected(&self, location: &str) -> Result<Self, FetchError> {
        let refuse = |why: String| FetchError::Redirect { from: self.to_string(), why };
        if location.len() > ADDRESS_BYTES_MAX {
            return Err(refuse("to more than 8000 characters".to_owned()));
        }
        let url = self.0.join(location).map_err(|error| refuse(error.to_string()))?;
        Self::check(url).map_err(|why| refuse(why.to_owned()))
    }

    fn check(mut url: Url) -> Result<Self, &'static str> {
        if url.scheme() != "https" {
            return Err("not to an https:// address");
        }
        if url.host().is_none() {
            return Err("without a host");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("with a user's name or password");
        }
        // A fragment is never sent (RFC 9110, section 4.2.5).
        url.set_fragment(None);
        Ok(Self(url))
    }

    pub fn host(&self) -> Host<&str> {
        self.0.host().unwrap_or(Host::Domain(""))
    }

    pub fn port(&self) -> u16 {
        self.0.port().unwrap_or(HTTPS_PORT)
    }

    /// The address itself, where the host is one and needs no lookup.
    pub fn literal(&self) -> Option<IpAddr> {
        match self.host() {
            Host::Domain(_) => None,
            Host::Ipv4(v4) => Some(v4.into()),
            Host::Ipv6(v6) => Some(v6.into()),
        }
    }

    /// Whom the server's certificate has to name.
    ///
    /// # Errors
    /// The host can be in no certificate.
    pub fn server_name(&self) -> Result<ServerName<'static>, FetchError> {
        match self.host() {
            Host::Domain(name) => ServerName::try_from(name.trim_end_matches('.').to_owned())
                .map_err(|error| FetchError::Address(error.to_string())),
            Host::Ipv4(v4) => Ok(IpAddr::V4(v4).into()),
            Host::Ipv6(v6) => Ok(IpAddr::V6(v6).into()),
        }
    }

    /// The target of a request to the origin (RFC 9112, section 3.2.1).
    pub fn target(&self) -> String {
        match self.0.query() {
            Some(query) => format!("{}?{query}", self.0.path()),
            None => self.0.path().to_owned(),
        }
    }
}

/// Host, and the port where it is not the usual one: as the Host field has it.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.host().fmt(f)?;
        match self.0.port() {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

/// Whether an address is of this machine, of the networks behind it, or of nobody: what a stranger's
/// redirect must not reach through us (RFC 6890 and the registries it founded).
pub fn is_inside(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => is_inside_v4(v4),
        IpAddr::V6(v6) => is_inside_v6(v6),
    }
}

fn is_inside_v4(address: Ipv4Addr) -> bool {
    let [first, second, third, _] = address.octets();
    match first {
        0 | 10 | 127 => true,
        100 => second & 0xc0 == 64,
        169 => second == 254,
        172 => second & 0xf0 == 16,
        192 => second == 168 || (second == 0 && third == 0),
        198 => second & 0xfe == 18,
        // Multicast, reserved, broadcast.
        224.. => true,
        _ => false,
    }
}

fn is_inside_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let v4 = |high: u16, low: u16| {
        is_inside_v4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
    };
    match segments {
        // Unspecified, loopback, and the IPv4-compatible ones that nobody uses any more.
        [0, 0, 0, 0, 0, 0, ..] => true,
        // An IPv4 address inside: of the translators (RFC 6052), and 6to4 (RFC 3056).
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        [0x64, 0xff9b, 1, ..] => true,
        [0x2002, high, low, ..] => v4(high, low),
        // Unique local, link-local and site-local, multicast.
        [first, ..] => first & 0xfe00 == 0xfc00 || first & 0xff80 == 0xfe80 || first >= 0xff00,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_https_without_credentials() {
        let address = Address::parse("https://Feeds.Example/drop.txt?key=secret#top").unwrap();
        assert_eq!(address.to_string(), "feeds.example");
        assert_eq!(address.target(), "/drop.txt?key=secret");
        assert_eq!(address.port(), 443);
        assert!(!format!("{address:?}").contains("secret"));
        let v6 = Address::parse("https://[2001:db8::1]:8443").unwrap();
        assert_eq!((v6.to_string().as_str(), v6.port()), ("[2001:db8::1]:8443", 8443));
        assert_eq!(v6.literal(), Some("2001:db8::1".parse().unwrap()));
        for bad in ["http://feeds.example/", "https://", "https://a:b@feeds.example/", "drop.txt"] {
            assert!(matches!(Address::parse(bad), Err(FetchError::Address(_))), "{bad}");
        }
    }

    #[test]
    fn redirects_are_relative_and_stay_with_https() {
        let address = Address::parse("https://feeds.example/lists/drop.txt?old").unwrap();
        let led = |location| address.redirected(location).map(|to| format!("{to}{}", to.target()));
        assert_eq!(led("new.txt").unwrap(), "feeds.example/lists/new.txt");
        assert_eq!(led("../new.txt?a=b#c").unwrap(), "feeds.example/new.txt?a=b");
        assert_eq!(led("//other.example/x").unwrap(), "other.example/x");
        assert_eq!(led("https://other.example:444/x").unwrap(), "other.example:444/x");
        for bad in ["http://feeds.example/", "file:///etc/passwd", "https://u@other.example/"] {
            assert!(matches!(led(bad), Err(FetchError::Redirect { .. })), "{bad}");
        }
    }

    #[test]
    fn what_is_inside() {
        let inside = |text: &str| is_inside(text.parse().unwrap());
        for address in [
            "127.0.0.1",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.127.0.1",
            "198.18.0.1",
            "192.0.0.8",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "fd00::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::1",
        ] {
            assert!(inside(address), "{address}");
        }
        for address in [
            "192.0.2.1",
            "203.0.113.10",
            "100.63.0.1",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "198.20.0.1",
            "8.8.8.8",
            "2001:db8::1",
            "2606:4700::1",
            "64:ff9b::808:808",
            "2002:808:808::1",
            "::ffff:8.8.8.8",
        ] {
            assert!(!inside(address), "{address}");
        }
    }
}
