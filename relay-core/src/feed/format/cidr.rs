//! Plain lists: what administrators, nftables and most publishers write.

use std::net::IpAddr;

use ipnet::{IpNet, IpSubnets, Ipv4Subnets, Ipv6Subnets};
use memchr::memchr2;

use super::{LineError, Stop, quoted, text_of};
use crate::feed::prefixes::Builder;
use crate::prefix::{canonical_ip, parse};

/// One line, whose comment may be in any encoding.
pub(super) fn take(line: &[u8], builder: &mut Builder) -> Result<(), Stop> {
    let end = memchr2(b'#', b';', line).unwrap_or(line.len());
    take_value(line[..end].trim_ascii(), builder)
}

fn take_value(value: &[u8], builder: &mut Builder) -> Result<(), Stop> {
    if value.is_empty() {
        return Ok(());
    }
    let text = text_of(value)?;
    let Some((first, last)) = text.split_once('-') else {
        return builder.push(parse(text)?).map_err(Stop::TooMany);
    };
    let wrong = || LineError::Range(quoted(value));
    for net in range(first.trim(), last.trim()).ok_or_else(wrong)? {
        builder.push(net).map_err(Stop::TooMany)?;
    }
    Ok(())
}

/// The prefixes that make up a range, which are at most twice as many as an address has bits.
fn range(first: &str, last: &str) -> Option<impl Iterator<Item = IpNet>> {
    let address = |text: &str| text.parse::<IpAddr>().ok().map(canonical_ip);
    let (first, last) = (address(first)?, address(last)?);
    if first > last {
        return None;
    }
    match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            Some(IpSubnets::V4(Ipv4Subnets::new(first, last, 0)))
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            Some(IpSubnets::V6(Ipv6Subnets::new(first, last, 0)))
        }
        _ => None,
    }
}
