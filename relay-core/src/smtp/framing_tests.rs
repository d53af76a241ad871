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
    framing.begin_content();
    let (mut found, mut content) = (Vec::new(), Vec::new());
    for part in bytes.chunks(chunk) {
        framing.push(part);
        while let Some(piece) = framing.next_content(LIMIT) {
            match piece {
                Content::Bytes(bytes) => content.extend_from_slice(&bytes),
                Content::Skipped(_) => {}
                Content::End => {
                    found.push((std::mem::take(&mut content), Content::End));
                    framing.begin_content();
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
    framing.begin_content();
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
