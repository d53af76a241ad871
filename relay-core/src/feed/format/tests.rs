use proptest::prelude::*;

use super::*;
use crate::feed::prefixes::{Counts, Prefixes};

const DROP_JSON: &str = "\
{\"cidr\":\"1.10.16.0/20\",\"sblid\":\"SBL256894\",\"rir\":\"apnic\"}
{\"cidr\":\"2001:db8::\\/32\",\"sblid\":\"SBL1\",\"rir\":\"ripencc\"}
{\"type\":\"metadata\",\"timestamp\":1735000000,\"size\":150,\"records\":2,\"copyright\":\"(c)\"}
";

fn read_in(format: Format, text: &[u8], piece: usize) -> Result<(Prefixes, Counts), FormatError> {
    let mut reader = Reader::new(format, Builder::new(100));
    for piece in text.chunks(piece) {
        reader.push(piece)?;
    }
    Ok(reader.finish()?.finish())
}

fn read(format: Format, text: &str) -> Result<Vec<String>, FormatError> {
    let (prefixes, _) = read_in(format, text.as_bytes(), usize::MAX)?;
    Ok(prefixes.iter().map(|net| net.to_string()).collect())
}

#[track_caller]
fn check(format: Format, text: &str, expected: &[&str]) {
    let found = read(format, text).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(found, expected);
    for piece in [1, 2, 7] {
        assert!(read_in(format, text.as_bytes(), piece).is_ok());
    }
}

/// The message names the line, and has these words.
#[track_caller]
fn check_wrong(format: Format, text: &str, line: u64, words: &str) {
    let error = read(format, text).expect_err(text);
    let FormatError::Line { line: found, .. } = &error else { panic!("{error}") };
    let message = error.to_string();
    assert_eq!(*found, line, "{message}");
    assert!(message.starts_with(&format!("line {line}: ")) && message.contains(words), "{message}");
}

#[test]
fn plain_lists_are_read_as_their_publishers_write_them() {
    check(
        Format::Cidr,
        "\u{feff}; Spamhaus DROP List\r\n# and others\r\n\r\n1.10.16.0/20 ; SBL256894\r\n\
         \t192.0.2.7\n2001:db8::/32 # doc\n198.51.100.0/255.255.255.0\n;\n::ffff:203.0.113.9",
        &["1.10.16.0/20", "192.0.2.7/32", "198.51.100.0/24", "203.0.113.9/32", "2001:db8::/32"],
    );
    check(Format::Cidr, "", &[]);
    check(Format::Cidr, "\n\n", &[]);
}

#[test]
fn ranges_become_prefixes() {
    check(
        Format::Cidr,
        "192.0.2.0-192.0.2.255\n10.0.0.1 - 10.0.0.4 # some\n2001:db8::-2001:db8::1\n\
         203.0.113.9-203.0.113.9\n::ffff:1.2.3.4-1.2.3.5",
        &[
            "1.2.3.4/31",
            "10.0.0.1/32",
            "10.0.0.2/31",
            "10.0.0.4/32",
            "192.0.2.0/24",
            "203.0.113.9/32",
            "2001:db8::/127",
        ],
    );
    check(
        Format::Cidr,
        "0.0.0.0-255.255.255.255\n::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        &["0.0.0.0/0", "::/0"],
    );
    for text in
        ["10.0.0.2-10.0.0.1", "10.0.0.1-::2", "10.0.0.1-", "-", "10.0.0.0/8-10.0.0.1", "a-b"]
    {
        check_wrong(Format::Cidr, text, 1, "is no range");
    }
}

#[test]
fn one_wrong_line_makes_a_plain_list_malformed() {
    check_wrong(Format::Cidr, "192.0.2.1\n\nfoo\n", 3, "\"foo\" is not an IP address (a line is:");
    check_wrong(Format::Cidr, "192.0.2.1/24", 1, "the network is 192.0.2.0/24");
    check_wrong(Format::Cidr, "<!DOCTYPE html>\n<html>", 1, "<!DOCTYPE html>");
    check_wrong(Format::Cidr, "192.0.2.1 192.0.2.2\n", 1, "is not an IP address");
    check_wrong(Format::Cidr, "\x1b[2J\u{202e}", 1, "\"\\u{1b}[2J\\u{202e}\"");
    let error = read_in(Format::Cidr, b"192.0.2.1\n\xff\xfe1\n", 3).unwrap_err();
    assert!(error.to_string().starts_with("line 2: \"\u{fffd}\u{fffd}1\" is not UTF-8"), "{error}");
}

#[test]
fn a_comment_may_be_in_any_encoding() {
    let (prefixes, _) = read_in(Format::Cidr, b"# caf\xe9\n192.0.2.1 ; \xff", 5).unwrap();
    assert_eq!(prefixes.len(), 1);
}

#[test]
fn lines_are_bounded_however_they_arrive() {
    let text = |bytes: usize| format!("192.0.2.1\n#{}\r\n192.0.2.2", "x".repeat(bytes - 1));
    for piece in [1, 100, LINE_BYTES_MAX, usize::MAX] {
        let read = |text: String| read_in(Format::Cidr, text.as_bytes(), piece);
        assert_eq!(read(text(LINE_BYTES_MAX)).unwrap().1.read, 2);
        let too_long =
            |error| matches!(error, FormatError::Line { line: 2, why: LineError::TooLong, .. });
        assert!(too_long(read(text(LINE_BYTES_MAX + 1)).unwrap_err()), "{piece}");
        assert!(too_long(read(text(LINE_BYTES_MAX * 3)).unwrap_err()), "{piece}");
    }
}

#[test]
fn more_prefixes_than_permitted_end_the_reading() {
    let text = "192.0.2.1\n".repeat(101);
    let error = read(Format::Cidr, &text).unwrap_err();
    assert_eq!(error, FormatError::TooMany(TooMany { entries_max: 100 }));
}

#[test]
fn drop_lists_are_read_with_their_metadata() {
    check(Format::DropJson, DROP_JSON, &["1.10.16.0/20", "2001:db8::/32"]);
    check(Format::DropJson, "{\"type\":\"metadata\",\"records\":0}\n\n", &[]);
}

#[test]
fn a_drop_list_that_was_cut_off_is_malformed_wherever_it_was_cut() {
    let text = DROP_JSON;
    // The end of the last line says nothing.
    for end in 0..text.len() - 1 {
        assert!(read(Format::DropJson, &text[..end]).is_err(), "{:?}", &text[..end]);
    }
    let first_line_lost = text.split_once('\n').unwrap().1;
    assert_eq!(
        read(Format::DropJson, first_line_lost),
        Err(FormatError::Records { records: 2, read: 1 })
    );
    assert_eq!(read(Format::DropJson, ""), Err(FormatError::NoMetadata));
}

#[test]
fn what_is_no_line_of_a_drop_list_is_named() {
    let wrong = |line: &str, words| {
        let text = DROP_JSON.replacen("{\"type", &[line, "\n{\"type"].concat(), 1);
        check_wrong(Format::DropJson, &text, 3, words);
    };
    wrong("1.2.3.4/32", "is not such an object");
    wrong("{\"ip\":\"1.2.3.4\"}", "has no \"cidr\"");
    wrong("{\"cidr\":7}", "invalid type");
    wrong("{\"cidr\":\"1.2.3.4\",\"cidr\":\"1.2.3.5\"}", "duplicate field");
    wrong("{\"cidr\":\"1.2.3.4/8\"}", "the network is 1.0.0.0/8");
    let long = format!("{{\"records\":\"\\u001b[2J{}\"}}", "x".repeat(1_000));
    wrong(&long, "is not such an object: invalid type: string \"\\u{1b}[2Jxxx");
    assert!(read(Format::DropJson, &long).unwrap_err().to_string().len() < 250);
    wrong("{\"type\":\"metadata\"}", "say nothing about \"records\"");
    check_wrong(
        Format::DropJson,
        "{\"type\":\"metadata\",\"records\":0}\n{\"type\":\"metadata\",\"records\":0}",
        2,
        "metadata already",
    );
}

#[test]
fn a_column_of_a_table_is_read_with_or_without_a_header() {
    let second = Format::Csv { column: 2 };
    let lines =
        "2026-01-01,192.0.2.7,443\r\n\"a, \"\"b\"\"\",\"192.0.2.8\",x\n\n# END\n,2001:db8::/32";
    let expected = ["192.0.2.7/32", "192.0.2.8/32", "2001:db8::/32"];
    check(second, lines, &expected);
    check(
        second,
        &format!("# comment, with \"\n\"first_seen\",\"dst_ip\",port\n{lines}"),
        &expected,
    );
    check(Format::Csv { column: 1 }, "192.0.2.7", &["192.0.2.7/32"]);
    check(Format::Csv { column: 1 }, "ip\n 192.0.2.7 ,", &["192.0.2.7/32"]);
}

#[test]
fn what_is_no_line_of_a_table_is_named() {
    let second = Format::Csv { column: 2 };
    check_wrong(second, "a,ip\nb,ip\n", 2, "\"ip\" is not an IP address");
    check_wrong(second, "#\n\na,192.0.2.1/33\n", 3, "is not a prefix length");
    check_wrong(second, "a,fe80::zz\n", 1, "is not an IP address");
    check_wrong(second, "a,ip\nb\n", 2, "has 1 columns, and column 2 was asked for");
    check_wrong(second, "a,ip\n\"b,192.0.2.1\nc,192.0.2.2\n", 2, "never closed");
    check_wrong(second, "a,ip\n\"b\"c,192.0.2.1\n", 2, "never closed");
    check_wrong(second, "a,ip\nb,\n", 2, "an address or a prefix is missing");
    check_wrong(Format::Csv { column: 0 }, "192.0.2.1\n", 1, "column 0 was asked for");
}

fn formats() -> impl Strategy<Value = Format> {
    prop_oneof![
        Just(Format::Cidr),
        Just(Format::DropJson),
        (0usize..4).prop_map(|column| Format::Csv { column })
    ]
}

proptest! {
    #[test]
    fn pieces_make_no_difference(
        format in formats(),
        lines in prop::collection::vec("(192\\.0\\.2\\.[0-9]{1,3}|[\"a,;#-]{0,5}|[0-9.]{0,3},)\r?", 0..8),
        piece in 1usize..20,
    ) {
        let text = lines.join("\n");
        let whole = read_in(format, text.as_bytes(), usize::MAX);
        prop_assert_eq!(read_in(format, text.as_bytes(), piece), whole);
    }

    #[test]
    fn no_bytes_make_the_reader_fall(
        format in formats(), bytes in prop::collection::vec(any::<u8>(), 0..300), piece in 1usize..50,
    ) {
        let _ = read_in(format, &bytes, piece);
    }

    #[test]
    fn what_is_written_one_a_line_is_read_again(
        parts in prop::collection::vec((any::<u128>(), 0u8..=128, any::<bool>()), 0..40),
    ) {
        let mut builder = Builder::new(100);
        for (bits, len, v4) in parts {
            let address: std::net::IpAddr =
                if v4 { std::net::IpAddr::V4((bits as u32).into()) } else { std::net::IpAddr::V6(bits.into()) };
            builder.push(ipnet::IpNet::new(address, if v4 { len % 33 } else { len }).unwrap()).unwrap();
        }
        let (prefixes, _) = builder.finish();
        let text: String = prefixes.said().map(|net| format!("{net}\n")).collect();
        let (again, counts) = read_in(Format::Cidr, text.as_bytes(), 1000).unwrap();
        prop_assert_eq!(counts.read, prefixes.said().count());
        prop_assert_eq!(again, prefixes);
    }
}
