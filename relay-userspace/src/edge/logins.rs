//! Whence somebody is logged in to this machine, by utmp(5). Whoever merely holds a connection to
//! the SSH port is not in there, and so cannot escape a ban by it.

use std::mem::{offset_of, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libc::utmpx;
use relay_core::prefix::canonical_ip;

/// Where login(1) and sshd(8) keep it; absent in containers and where nobody logs in.
pub(super) const UTMP: &str = "/run/utmp";

/// The addresses of the sessions in a utmp file.
pub(super) fn addresses(file: &[u8]) -> Vec<IpAddr> {
    file.chunks_exact(size_of::<utmpx>()).filter_map(of_record).collect()
}

fn of_record(record: &[u8]) -> Option<IpAddr> {
    let at = offset_of!(utmpx, ut_type);
    let kind = i16::from_ne_bytes(record.get(at..at + 2)?.try_into().ok()?);
    if kind != libc::USER_PROCESS {
        return None;
    }
    let at = offset_of!(utmpx, ut_addr_v6);
    let bytes: [u8; 16] = record.get(at..at + 16)?.try_into().ok()?;
    // In network order; an IPv4 address takes the first four bytes alone, a local login none.
    match bytes {
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] => None,
        [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] => Some(Ipv4Addr::new(a, b, c, d).into()),
        bytes => Some(canonical_ip(Ipv6Addr::from(bytes).into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: i16, address: &[u8]) -> Vec<u8> {
        let mut record = vec![0; size_of::<utmpx>()];
        let at = offset_of!(utmpx, ut_type);
        record[at..at + 2].copy_from_slice(&kind.to_ne_bytes());
        let at = offset_of!(utmpx, ut_addr_v6);
        record[at..at + address.len()].copy_from_slice(address);
        record
    }

    #[test]
    fn sessions_from_elsewhere_are_found_and_nothing_else() {
        let v6: Ipv6Addr = "2001:db8::7".parse().unwrap();
        let file = [
            record(libc::USER_PROCESS, &[203, 0, 113, 7]),
            record(libc::USER_PROCESS, &v6.octets()),
            record(libc::USER_PROCESS, &[]),
            record(libc::DEAD_PROCESS, &[203, 0, 113, 8]),
            record(libc::USER_PROCESS, &[203, 0, 113, 9])[..100].to_vec(),
        ];
        assert_eq!(addresses(&file.concat()), [IpAddr::from([203, 0, 113, 7]), v6.into()]);
    }
}
