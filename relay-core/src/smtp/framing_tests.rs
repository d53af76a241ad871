use super::*;
use crate::smtp::client::DotStuffer;
use proptest::prelude::*;

const LIMIT: usize = 20;

fn lines(bytes: &[u8], chunk: usize) -> Vec<String> {
    let mut framing = Framing::default();
    let mut found = Vec::new();
    for part in bytes.chunks(chunk) {
        framing.push(part);
        while let Some(line) = framing.next_line(LIMIT) {
            found.push(match &line {
                Line::Complete(line) => line.escape_ascii().to_string(),
                other => format!("{other:?}"),
            });
            if line == Line::Endless {
                return found;
            }
        }
    }
    found
}

/// Content joined, then what ended or refused it, for each message in `bytes`.
fn contents(bytes: &[u8], chunk: usize) -> Vec<(Vec<u8>, Content)> {
    let mut framing = Framing::default();
    framing.begin_content(BareNewlines::Reject);
    let (mut found, mut content) = (Vec::new(), Vec::new());
    for part in bytes.chunks(chunk) {
        framing.push(part);
        while let Some(piece) = framing.next_content(LIMIT) {
            match piece {
                Content::Bytes(bytes) => content.extend_from_slice(&bytes),
                Content::Skipped(_) => {}
                Content::End => {
                    found.push((std::mem::take(&mut content), Content::End));
                    framing.begin_content(BareNewlines::Reject);
                }
                // What came before a refusal is dropped by whoever stores it.
                fault => {
                    content.clear();
                    found.push((Vec::new(), fault));
                }
            }
        }
    }
    found
}

/// The same, where bare newlines stand for CRLF: the contents of the messages that ended.
fn normalized(bytes: &[u8], chunk: usize) -> Vec<Vec<u8>> {
    let mut framing = Framing::default();
    framing.begin_content(BareNewlines::Normalize);
    let (mut found, mut content) = (Vec::new(), Vec::new());
    for part in bytes.chunks(chunk) {
        framing.push(part);
        while let Some(piece) = framing.next_content(LIMIT) {
            match piece {
                Content::Bytes(bytes) => content.extend_from_slice(&bytes),
                Content::Newline => content.extend_from_slice(b"\r\n"),
                Content::End => {
                    found.push(std::mem::take(&mut content));
                    framing.begin_content(BareNewlines::Normalize);
                }
                other => panic!("{other:?}"),
            }
        }
    }
    found
}

/// What BDAT chunks of these contents come to, and what is left behind the last.
fn chunked(chunks: &[&[u8]], newlines: BareNewlines, cut: usize) -> (Vec<u8>, Option<Content>) {
    let mut framing = Framing::default();
    framing.begin_content(newlines);
    let mut content = Vec::new();
    for (index, bytes) in chunks.iter().enumerate() {
        framing.begin_chunk(bytes.len() as u64, index + 1 == chunks.len());
        let stream = [bytes, b"NOOP\r\n".as_slice()].concat();
        let mut parts = stream.chunks(cut);
        loop {
            match framing.next_chunk(LIMIT) {
                Some(Content::Bytes(bytes)) => content.extend_from_slice(&bytes),
                Some(Content::Newline) => content.extend_from_slice(b"\r\n"),
                Some(Content::Skipped(_)) => {}
                Some(Content::End) => break,
                Some(fault) => return (Vec::new(), Some(fault)),
                None => framing.push(parts.next().expect("the chunk to end with its octets")),
            }
        }
        parts.for_each(|part| framing.push(part));
        assert_eq!(framing.next_line(LIMIT), Some(Line::Complete("NOOP".into())));
    }
    (content, None)
}

fn ended(content: &[u8]) -> (Vec<u8>, Content) {
    (content.to_vec(), Content::End)
}

#[test]
fn only_crlf_ends_a_line_and_refused_lines_are_skipped_to_it() {
    for chunk in 1..9 {
        assert_eq!(lines(b"NOOP\r\nQUIT\r\n", chunk), ["NOOP", "QUIT"]);
        assert_eq!(lines(b"NOOP\nQUIT\r\nRSET\r\n", chunk), ["BareNewline", "RSET"]);
        assert_eq!(lines(b"NOOP\rQUIT\r\nRSET\r\n", chunk), ["BareNewline", "RSET"]);
        assert_eq!(lines(b"NOOP\r\r\nRSET\r\n", chunk), ["BareNewline", "RSET"]);
        assert_eq!(lines(b"a\nb\nc\rd\r\nRSET\r\n", chunk), ["BareNewline", "RSET"]);
        assert_eq!(lines(b"\r\n\r\n", chunk), ["", ""]);
    }
}

#[test]
fn the_limit_is_exact_and_the_line_behind_it_is_whole() {
    for chunk in 1..9 {
        let full = "x".repeat(LIMIT);
        assert_eq!(lines(format!("{full}\r\nA\r\n").as_bytes(), chunk), [full.as_str(), "A"]);
        assert_eq!(lines(format!("{full}x\r\nA\r\n").as_bytes(), chunk), ["TooLong", "A"]);
        assert_eq!(lines(format!("{full}{full}\r\nA\r\n").as_bytes(), chunk), ["TooLong", "A"]);
    }
}

#[test]
fn a_line_without_end_is_given_up() {
    for chunk in [1, 7, 4096, usize::MAX] {
        assert_eq!(lines(&vec![b'x'; SKIP_MAX + 100], chunk), ["TooLong", "Endless"]);
    }
}

/// facts.md, "Framing": none of these ends a message; the session is in step after the real end.
#[test]
fn no_other_sequence_ends_a_message() {
    for trick in [
        "\n.\n",
        "\n.\r\n",
        "\r\n.\n",
        "\r\n.\r\r\n",
        "\r.\r",
        "\r\n.\r",
        "\r.\r\n",
        "\r\n\n.\r\n",
        "\r\n.\0\r\n\n",
        "\n\n.\r\n",
        "\r\r\n.\r\n",
    ] {
        for chunk in 1..9 {
            let stream = format!("body{trick}MAIL FROM:<x>\r\n.\r\nnext\r\n.\r\n");
            let found = contents(stream.as_bytes(), chunk);
            // CR CR LF is a bare CR and then a real line end, so the real end may come early.
            assert_eq!(found[0].1, Content::BareNewline, "{trick:?}");
            assert_eq!(found.last(), Some(&ended(b"next\r\n")), "{trick:?}");
        }
    }
}

/// The same sequences where they are normalised: lines of one message, whose end is the real one.
#[test]
fn a_normalised_newline_ends_a_line_and_never_a_message() {
    for (sent, kept) in [
        ("a\nb\r\n", "a\r\nb\r\n"),
        ("a\rb\r\n", "a\r\nb\r\n"),
        ("a\n.\nb\r\n", "a\r\n.\r\nb\r\n"),
        ("a\n.\r\nb\r\n", "a\r\n.\r\nb\r\n"),
        ("a\r\n.\nb\r\n", "a\r\n\r\nb\r\n"),
        ("a\r\n.\r\r\nb\r\n", "a\r\n\r\n\r\nb\r\n"),
        ("a\r.\rb\r\n", "a\r\n.\r\nb\r\n"),
        ("a\r\n\n.\r\nb\r\n", "a\r\n\r\n.\r\nb\r\n"),
        ("a\n..\r\nb\r\n", "a\r\n..\r\nb\r\n"),
    ] {
        for chunk in 1..9 {
            let found = normalized(format!("{sent}.\r\n").as_bytes(), chunk);
            assert_eq!(found, [kept.as_bytes()], "{sent:?} in chunks of {chunk}");
        }
    }
}

#[test]
fn chunks_are_exact_and_crlf_may_be_cut_by_their_end() {
    for cut in 1..9 {
        let whole = (b"a\r\n.\r\nb\r\n".to_vec(), None);
        let text = [b"a\r".as_slice(), b"\n.\r\n", b"", b"b\r", b"\n"];
        assert_eq!(chunked(&text, BareNewlines::Reject, cut), whole);
        assert_eq!(chunked(&text, BareNewlines::Keep, cut), whole);
        let bare = |chunks: &[&[u8]]| {
            let fault = (Vec::new(), Some(Content::BareNewline));
            assert_eq!(chunked(chunks, BareNewlines::Reject, cut), fault, "{chunks:?}");
        };
        bare(&[b"a\nb"]);
        bare(&[b"a\rb"]);
        bare(&[b"a\r", b"b"]);
        bare(&[b"a\r", b"\r\n"]);
        bare(&[b"a\r"]);
        bare(&[b"a\r", b""]);
        let odd = [b"a\r".as_slice(), b"b\0\n", b"\xff\r"];
        assert_eq!(chunked(&odd, BareNewlines::Keep, cut), (odd.concat(), None));
        let lines = (b"a\r\nb\0\r\n\xff\r\n".to_vec(), None);
        assert_eq!(chunked(&odd, BareNewlines::Normalize, cut), lines);
        let long = [b'x'; LIMIT + 1];
        let fault = (Vec::new(), Some(Content::LineTooLong));
        assert_eq!(chunked(&[&long[1..], b"\r\n"], BareNewlines::Reject, cut).1, None);
        assert_eq!(chunked(&[&long[1..], b"x"], BareNewlines::Reject, cut), fault);
    }
}

#[test]
fn dots_are_taken_away_and_nothing_else() {
    for chunk in 1..9 {
        let found = contents(b"..a\r\n...\r\n.b\r\n\r\nc.\r\n.\r\n.\r\n", chunk);
        assert_eq!(found, [ended(b".a\r\n..\r\nb\r\n\r\nc.\r\n"), ended(b"")]);
    }
}

#[test]
fn a_long_line_is_refused_at_its_exact_limit() {
    for chunk in 1..9 {
        let full = "x".repeat(LIMIT);
        let found = contents(format!("{full}\r\n.{full}\r\n.\r\n").as_bytes(), chunk);
        assert_eq!(found, [ended(format!("{full}\r\n{full}\r\n").as_bytes())]);
        let found = contents(format!("{full}x\r\n.\r\n.\r\n").as_bytes(), chunk);
        assert_eq!(found, [(Vec::new(), Content::LineTooLong), ended(b""), ended(b"")]);
    }
}

#[test]
fn content_without_dots_at_line_starts_is_one_slice() {
    let mut framing = Framing::default();
    framing.begin_content(BareNewlines::Reject);
    let text = b"line\r\n".repeat(1000);
    framing.push(&text);
    assert_eq!(framing.next_content(LIMIT), Some(Content::Bytes(text.into())));
    assert_eq!(framing.next_content(LIMIT), None);
}

#[test]
fn an_idle_session_keeps_no_large_buffer() {
    let mut framing = Framing::default();
    framing.push(&[b'x'; 60_000]);
    framing.push(b"\r\nNOOP\r\n");
    while framing.next_line(LIMIT).is_some() {}
    assert!(framing.buffer.is_empty() && framing.buffer.capacity() <= IDLE_BUFFER_MAX);
    assert_eq!(framing.peak, 0);
    assert!(size_of::<Framing>() <= 128);
}

fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), Just(b'a'), any::<u8>()];
    prop::collection::vec(byte, 0..120)
}

proptest! {
    #[test]
    fn chunks_do_not_matter(bytes in hostile(), chunk in 1_usize..12) {
        prop_assert_eq!(lines(&bytes, chunk), lines(&bytes, usize::MAX));
        prop_assert_eq!(contents(&bytes, chunk), contents(&bytes, usize::MAX));
    }

    #[test]
    fn what_the_client_stuffs_the_server_unstuffs(
        lines in prop::collection::vec("[.a-z\\x00]{0,15}", 0..20),
        cut in 1_usize..9,
        chunk in 1_usize..9,
    ) {
        let content: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let (mut stuffer, mut wire) = (DotStuffer::new(), Vec::new());
        content.as_bytes().chunks(cut).for_each(|part| stuffer.encode(part, &mut wire));
        stuffer.finish(&mut wire);
        prop_assert_eq!(contents(&wire, chunk), [ended(content.as_bytes())]);
    }

    /// What is normalised has no bare newline, and is what was sent with each of them made CRLF.
    #[test]
    fn normalised_content_has_crlf_alone(bytes in hostile(), chunk in 1_usize..12) {
        let short = |piece: &[u8]| piece.len() <= LIMIT;
        prop_assume!(bytes.split(|byte| matches!(byte, b'\r' | b'\n')).all(short));
        let found = normalized(&bytes, chunk);
        prop_assert_eq!(&found, &normalized(&bytes, usize::MAX));
        for content in found {
            let ends = [b"\0", content.as_slice(), b"\0"].concat();
            prop_assert!(ends.windows(2).all(|pair| (pair[0] == b'\r') == (pair[1] == b'\n')));
        }
    }

    /// Chunks cut anywhere come to the same as one, and to the same whatever the reads.
    #[test]
    fn chunk_ends_do_not_matter(
        bytes in hostile(), ends in prop::collection::vec(0_usize..120, 0..4), cut in 1_usize..12,
    ) {
        let mut ends: Vec<usize> = ends.into_iter().map(|end| end.min(bytes.len())).collect();
        ends.extend([0, bytes.len()]);
        ends.sort_unstable();
        let chunks: Vec<&[u8]> = ends.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        for newlines in [BareNewlines::Reject, BareNewlines::Normalize, BareNewlines::Keep] {
            let whole = chunked(&[&bytes], newlines, usize::MAX);
            prop_assert_eq!(chunked(&chunks, newlines, cut), whole.clone());
            if newlines == BareNewlines::Keep {
                prop_assert_eq!(whole, (bytes.clone(), None));
            }
        }
    }

    /// Against a slow and obvious reading of the rule: the first CRLF.CRLF ends the message.
    #[test]
    fn the_end_is_the_first_crlf_dot_crlf(bytes in hostile()) {
        let stream = [b"\r\n", bytes.as_slice()].concat();
        let end = stream.windows(5).position(|five| five == b"\r\n.\r\n");
        let content = &bytes[..end.unwrap_or(bytes.len())];
        let bare = [b"\r\n", content, b"\r\n"].concat();
        let clean = bare.windows(2).all(|pair| (pair[0] == b'\r') == (pair[1] == b'\n'))
            && content.split(|&byte| byte == b'\n').all(|line| line.len() <= LIMIT);
        let found = contents(&bytes, usize::MAX);
        prop_assert_eq!(found.iter().any(|(_, what)| *what == Content::End), end.is_some());
        if end.is_some() && clean {
            prop_assert_eq!(&found[0].1, &Content::End);
        }
    }
}
