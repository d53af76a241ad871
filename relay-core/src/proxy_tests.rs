use proptest::prelude::*;

use super::*;

/// Reads as a driver does, never more than was asked for; the header and how much it took.
fn drive(stream: &[u8], at_once: usize) -> Result<Option<(Header, usize)>, ProxyError> {
    let mut taken = 0;
    loop {
        match read(&stream[..taken])? {
            Step::Done(header) => return Ok(Some((header, taken))),
            Step::Need(needed) => {
                assert!(needed > 0 && taken + needed <= V2_MAX);
                let more = needed.min(at_once).min(stream.len() - taken);
                if more == 0 {
                    return Ok(None);
                }
                taken += more;
            }
        }
    }
}

fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    [&SIGNATURE[..], &[command, family], &length, block].concat()
}

fn proxied(source: &str, destination: &str) -> Header {
    Header::Proxied { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

const V4: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 0xdb, 0x94, 0, 25];

#[test]
fn headers_of_both_versions_and_not_an_octet_more() {
    let v6: Vec<u8> = [
        "2001:db8::7".parse::<Ipv6Addr>().unwrap().octets(),
        "2001:db8::1".parse::<Ipv6Addr>().unwrap().octets(),
    ]
    .concat();
    let over_v4 = proxied("192.0.2.7:56212", "198.51.100.1:25");
    let over_v6 = proxied("[2001:db8::7]:56212", "[2001:db8::1]:25");
    // An ALPN and a NOOP of two octets behind the addresses.
    let tlvs = [&V4[..], b"\x01\0\x02h2\x04\0\x02xx"].concat();
    for (header, expected) in [
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 56212 25\r\n".to_vec(), over_v4),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 56212 25\r\n".to_vec(), over_v6),
        (b"PROXY UNKNOWN\r\n".to_vec(), Header::Local),
        (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), Header::Local),
        (v2(0x21, 0x11, &V4), over_v4),
        (v2(0x21, 0x11, &tlvs), over_v4),
        (v2(0x21, 0x21, &[&v6[..], &[0xdb, 0x94, 0, 25]].concat()), over_v6),
        (v2(0x20, 0x00, b""), Header::Local),
        // Section 2.2: LOCAL discards the rest, whatever family it is of.
        (v2(0x20, 0x31, &[0; 216]), Header::Local),
        (v2(0x21, 0x00, b"xyz"), Header::Local),
    ] {
        for at_once in [1, 7, usize::MAX] {
            let stream = [&header[..], b"\x16\x03\x01EHLO client\r\n"].concat();
            let length = header.len();
            assert_eq!(drive(&stream, at_once), Ok(Some((expected, length))), "{expected:?}");
            assert_eq!(drive(&header[..length - 1], at_once), Ok(None), "cut off: {expected:?}");
        }
    }
}

#[test]
fn what_is_no_header_or_a_bad_one_is_refused() {
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100)).into_bytes();
    let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_MAX - 16)).into_bytes();
    assert_eq!(drive(&longest, 1), Ok(Some((Header::Local, V1_MAX))));
    for (stream, expected) in [
        (&b"EHLO client\r\n"[..], ProxyError::Missing),
        (b"\x16\x03\x01", ProxyError::Missing),
        (b"PROXYTCP4 192.0.2.7", ProxyError::Missing),
        (b"proxy TCP4 192.0.2.7", ProxyError::Missing),
        (b"\r\n\r\n\0\r\nQUIX", ProxyError::Missing),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 56212\r\n", ProxyError::Malformed),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 56212 25 \r\n", ProxyError::Malformed),
        (b"PROXY TCP4  192.0.2.7 198.51.100.1 56212 25\r\n", ProxyError::Malformed),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 56212 25\n", ProxyError::Malformed),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 +5621 25\r\n", ProxyError::Malformed),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 05621 25\r\n", ProxyError::Malformed),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 25\r\n", ProxyError::Malformed),
        (b"PROXY TCP4 192.0.2.07 198.51.100.1 56212 25\r\n", ProxyError::Malformed),
        (b"PROXY TCP4 2001:db8::7 2001:db8::1 56212 25\r\n", ProxyError::Malformed),
        (b"PROXY TCP6 192.0.2.7 198.51.100.1 56212 25\r\n", ProxyError::Malformed),
        (b"PROXY TCP4 192.0.2.\xff 198.51.100.1 56212 25\r\n", ProxyError::Malformed),
        (b"PROXY UDP4 192.0.2.7 198.51.100.1 56212 25\r\n", ProxyError::Malformed),
        (b"PROXY TCP4 0.0.0.0 198.51.100.1 56212 25\r\n", ProxyError::Source),
        (b"PROXY TCP6 ff02::1 2001:db8::1 56212 25\r\n", ProxyError::Source),
        (&long, ProxyError::TooLong),
        (&v2(0x21, 0x11, &V4[..11]), ProxyError::Malformed),
        (&v2(0x21, 0x21, &[1; 35]), ProxyError::Malformed),
        (&v2(0x21, 0x12, &V4), ProxyError::Family),
        (&v2(0x21, 0x31, &[b'/'; 216]), ProxyError::Family),
        (&v2(0x21, 0x41, &V4), ProxyError::Malformed),
        (&v2(0x22, 0x11, &V4), ProxyError::Malformed),
        (&v2(0x11, 0x11, &V4), ProxyError::Malformed),
        (&v2(0x21, 0x11, &[0; V2_MAX]), ProxyError::TooLong),
        (&v2(0x21, 0x11, &[255; 12]), ProxyError::Source),
    ] {
        for at_once in [1, usize::MAX] {
            let got = drive(stream, at_once);
            assert_eq!(got, Err(expected), "{}", stream[..stream.len().min(80)].escape_ascii());
        }
    }
}

proptest! {
    /// Whatever comes, nothing panics and how it is cut decides nothing.
    #[test]
    fn any_octets_in_any_pieces(
        begin in prop::sample::select(vec![&b"PROXY "[..], b"PROXY TCP4 ", SIGNATURE, b""]),
        rest in prop::collection::vec(any::<u8>(), 0..300),
        at_once in 1_usize..40,
    ) {
        let stream = [begin, &rest].concat();
        prop_assert_eq!(drive(&stream, at_once), drive(&stream, 1));
    }

    /// What a balancer writes is read back.
    #[test]
    fn what_is_written_is_read(source in any::<(Ipv6Addr, u16)>(), v4 in any::<(Ipv4Addr, u16)>()) {
        let destination: SocketAddr = "[2001:db8::1]:25".parse().unwrap();
        let header = format!("PROXY TCP6 {} 2001:db8::1 {} 25\r\n", source.0, source.1);
        let usual = |ip: IpAddr| {
            let ip = ip.to_canonical();
            !ip.is_unspecified() && !ip.is_multicast() && ip != Ipv4Addr::BROADCAST
        };
        prop_assume!(usual(source.0.into()) && usual(v4.0.into()));
        let expected = Header::Proxied { source: source.into(), destination };
        prop_assert_eq!(drive(header.as_bytes(), 9), Ok(Some((expected, header.len()))));
        let ports = [v4.1.to_be_bytes(), [0, 25]].concat();
        let header = v2(0x21, 0x11, &[&v4.0.octets()[..], &[192, 0, 2, 1], &ports].concat());
        let destination = "192.0.2.1:25".parse().unwrap();
        let expected = Header::Proxied { source: v4.into(), destination };
        prop_assert_eq!(drive(&header, 9), Ok(Some((expected, header.len()))));
    }
}
