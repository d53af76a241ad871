//! Address prefixes as administrators write them, and sets of them that answer with the longest.
//!
//! One address has one form here: an IPv4 address that arrives in its IPv6-mapped form (as a
//! dual-stack socket reports it) is taken as IPv4, so that no rule is missed by way of notation.

use std::net::IpAddr;

use ipnet::IpNet;
use thiserror::Error;

mod set;

pub use set::PrefixSet;

/// Longest text that can be a prefix: two mapped IPv6 addresses with spaces around the slash.
const TEXT_BYTES_MAX: usize = 128;
/// The length of `::ffff:0:0/96`, under which IPv4 addresses are mapped (RFC 4291 section 2.5.5.2).
const MAPPED_LEN: u8 = 96;

/// Why a text is no prefix. Each names the value, so that the message can stand in a report alone.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PrefixError {
    #[error("an address or a prefix is missing")]
    Empty,
    #[error("{0:?}… is too long to be an address or a prefix")]
    TooLong(String),
    #[error("{0:?} is not an IP address")]
    Address(String),
    #[error("{length:?} is not a prefix length from 0 to {max}, in {value:?}")]
    Length { value: String, length: String, max: u8 },
    #[error("{mask:?} is not a network mask (ones, then zeros), in {value:?}")]
    Mask { value: String, mask: String },
    #[error("{value:?} mixes an IPv4 and an IPv6 address")]
    MixedFamilies { value: String },
    #[error("{value:?} is IPv4 in IPv6 form: write it as IPv4, or with a length from 96 to 128")]
    MappedLength { value: String },
    #[error("{value:?} has bits set beyond its length; the network is {canonical}")]
    HostBits { value: String, canonical: IpNet },
}

/// Reads `192.0.2.0/24`, `2001:db8::/32`, a bare address, or `192.168.0.0 / 255.255.0.0`.
///
/// The network is returned only in its canonical form: bits beyond the length are refused, because
/// `10.0.0.1/8` may have been meant as the one or as the sixteen million.
pub fn parse(text: &str) -> Result<IpNet, PrefixError> {
    let value = text.trim();
    if value.is_empty() {
        return Err(PrefixError::Empty);
    }
    if value.len() > TEXT_BYTES_MAX {
        return Err(PrefixError::TooLong(value.chars().take(40).collect()));
    }
    let Some((address, suffix)) = value.split_once('/') else {
        return Ok(host(parse_address(value, value)?));
    };
    let (address, suffix) = (address.trim_end(), suffix.trim_start());
    let address = parse_address(address, value)?;
    if suffix.contains(['.', ':']) {
        return with_mask(address, suffix, value);
    }
    let len = parse_length(suffix, max_len(address), value)?;
    with_length(address, len, value)
}

fn parse_address(text: &str, value: &str) -> Result<IpAddr, PrefixError> {
    text.parse().map_err(|_| PrefixError::Address(value.to_owned()))
}

/// Digits alone: `+24`, `024` and `` are typing errors, and a guess would open or close too much.
fn parse_length(length: &str, max: u8, value: &str) -> Result<u8, PrefixError> {
    let plain = length.bytes().all(|b| b.is_ascii_digit())
        && (length.len() == 1 || !length.starts_with('0'));
    match length.parse::<u8>() {
        Ok(len) if plain && len <= max => Ok(len),
        _ => Err(PrefixError::Length { value: value.to_owned(), length: length.to_owned(), max }),
    }
}

fn with_mask(address: IpAddr, mask: &str, value: &str) -> Result<IpNet, PrefixError> {
    let wrong = || PrefixError::Mask { value: value.to_owned(), mask: mask.to_owned() };
    let mask_address: IpAddr = mask.parse().map_err(|_| wrong())?;
    let mixed = || PrefixError::MixedFamilies { value: value.to_owned() };
    // A mask in IPv4 form speaks about IPv4 bits, however the address is written.
    let address = if mask_address.is_ipv4() { canonical_ip(address) } else { address };
    let len = match (address, mask_address) {
        (IpAddr::V4(_), IpAddr::V4(mask)) => {
            let bits = u32::from(mask);
            (bits.leading_ones() + bits.trailing_zeros() >= 32).then(|| bits.leading_ones())
        }
        (IpAddr::V6(_), IpAddr::V6(mask)) => {
            let bits = u128::from(mask);
            (bits.leading_ones() + bits.trailing_zeros() >= 128).then(|| bits.leading_ones())
        }
        _ => return Err(mixed()),
    };
    let len = len.and_then(|len| u8::try_from(len).ok()).ok_or_else(wrong)?;
    with_length(address, len, value)
}

fn with_length(address: IpAddr, len: u8, value: &str) -> Result<IpNet, PrefixError> {
    if is_mapped(address) && len < MAPPED_LEN {
        return Err(PrefixError::MappedLength { value: value.to_owned() });
    }
    let net = net_of(address, len);
    if net.addr() != net.network() {
        let canonical = canonical_net(net);
        return Err(PrefixError::HostBits { value: value.to_owned(), canonical });
    }
    Ok(canonical_net(net))
}

fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

fn max_len(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The prefix of this length that starts at this address; longer lengths are cut to the family's.
fn net_of(address: IpAddr, len: u8) -> IpNet {
    IpNet::new(address, len.min(max_len(address))).unwrap_or_else(|_| IpNet::from(address))
}

/// The address itself, an IPv4 one out of its IPv6-mapped form.
pub fn canonical_ip(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// The network without host bits, one under `::ffff:0:0/96` as the IPv4 network it means.
pub fn canonical_net(net: IpNet) -> IpNet {
    match net.trunc() {
        IpNet::V6(v6) if v6.prefix_len() >= MAPPED_LEN => match v6.addr().to_ipv4_mapped() {
            Some(v4) => net_of(IpAddr::V4(v4), v6.prefix_len() - MAPPED_LEN),
            None => IpNet::V6(v6),
        },
        other => other,
    }
}

/// The prefix that holds this address and no other.
pub fn host(address: IpAddr) -> IpNet {
    IpNet::from(canonical_ip(address))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn every_notation_of_administrators_is_read() {
        for (text, expected) in [
            ("192.0.2.7", "192.0.2.7/32"),
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("  192.0.2.0/24\t", "192.0.2.0/24"),
            ("192.168.0.0/255.255.0.0", "192.168.0.0/16"),
            ("192.168.0.0 / 255.255.0.0", "192.168.0.0/16"),
            ("10.1.2.3/255.255.255.255", "10.1.2.3/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("0.0.0.0/0.0.0.0", "0.0.0.0/0"),
            ("::/0", "::/0"),
            ("2001:DB8::/32", "2001:db8::/32"),
            ("2001:db8::/ffff:ffff::", "2001:db8::/32"),
            ("2001:db8::1", "2001:db8::1/128"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
            ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::ffff:192.168.0.0/255.255.0.0", "192.168.0.0/16"),
        ] {
            assert_eq!(parse(text), Ok(net(expected)), "{text}");
        }
    }

    #[test]
    fn host_bits_are_refused_with_the_network_that_was_perhaps_meant() {
        for (text, expected) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("192.168.1.0 / 255.255.0.0", "192.168.0.0/16"),
            ("2001:db8::1/64", "2001:db8::/64"),
            ("::ffff:192.0.2.1/120", "192.0.2.0/24"),
            ("1.2.3.4/0", "0.0.0.0/0"),
        ] {
            let error = parse(text).unwrap_err();
            let PrefixError::HostBits { canonical, .. } = &error else {
                panic!("{text}: {error:?}")
            };
            assert_eq!(*canonical, net(expected), "{text}");
            assert!(error.to_string().contains(expected) && error.to_string().contains(text));
        }
    }

    #[test]
    fn what_is_no_prefix_is_refused_by_name() {
        for text in [
            "192.0.2.0/33",
            "::/129",
            "192.0.2.0/",
            "192.0.2.0/+24",
            "192.0.2.0/024",
            "192.0.2.0/-1",
            "192.0.2.0/256",
            "192.0.2.0/24/24",
            "192.0.2/24",
            "192.0.2.256",
            "example.org",
            "fe80::1%eth0",
            "[::1]",
            "192.0.2.0/255.0.255.0",
            "192.0.2.0/0.0.0.255",
            "192.0.2.0/ffff::",
            "2001:db8::/255.255.0.0",
            "/24",
            "::ffff:192.0.2.0/24",
            "010.0.0.0/8",
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.to_string().contains(text), "{text}: {error}");
        }
        assert_eq!(parse(" "), Err(PrefixError::Empty));
        assert!(matches!(parse(&"1".repeat(5000)), Err(PrefixError::TooLong(s)) if s.len() == 40));
    }

    #[test]
    fn a_mapped_prefix_wider_than_all_of_ipv4_is_named_as_such() {
        for text in ["::ffff:192.0.2.0/24", "::ffff:0:0/95", "::ffff:10.0.0.0/8"] {
            assert!(matches!(parse(text), Err(PrefixError::MappedLength { .. })), "{text}");
        }
    }

    proptest! {
        #[test]
        fn canonical_networks_survive_writing_and_reading(bits: u128, len in 0u8..=128, v4: bool) {
            let net = if v4 {
                net_of(IpAddr::V4(((bits >> 96) as u32).into()), len % 33)
            } else {
                net_of(IpAddr::V6(bits.into()), len)
            };
            let net = canonical_net(net);
            prop_assert_eq!(parse(&net.to_string()), Ok(net));
            let masked = format!("{}/{}", net.addr(), net.netmask());
            prop_assert_eq!(parse(&masked), Ok(net));
        }

        #[test]
        fn any_text_is_answered(text in ".{0,60}") {
            let _ = parse(&text);
        }
    }
}
