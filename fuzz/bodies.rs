//! What the fuzz targets try: each takes any octets, and panics where a property does not hold.
//!
//! Compiled by cargo-fuzz, and by `relay-core/tests/fuzz_corpus.rs`, which replays the corpora.

#![allow(dead_code, clippy::disallowed_methods)]

use std::sync::Arc;
use std::time::Instant;

use relay_core::smtp::client::{Capabilities, ResponseReader};
use relay_core::smtp::command::{self, Command, Dialect};
use relay_core::smtp::framing::{BareNewlines, Content, Framing, Line};
use relay_core::smtp::{
    Answer, AuthMode, AuthRefusal, Domain, Effect, ForwardPath, Mailbox, Reply, ReversePath,
    Session, SessionEvent, SessionSettings, TlsInfo, TlsMode, Verdict,
};

/// Shortest limit of a line that lets lines of both kinds be found soon.
const LINE_MAX: usize = 40;

/// Takes the first octet off; 0 where there is none.
fn first(data: &[u8]) -> (u8, &[u8]) {
    data.split_first().map_or((0, data), |(first, rest)| (*first, rest))
}

fn chunk_of(octet: u8) -> usize {
    usize::from(octet % 16) + 1
}

/// Lines and messages are the same however the stream is cut; no line end is bare in what comes
/// out; CRLF.CRLF alone ends a message.
pub(crate) fn framing(data: &[u8]) {
    let (mode, data) = first(data);
    let newlines = if mode & 1 == 0 { BareNewlines::Reject } else { BareNewlines::Normalize };
    let chunk = chunk_of(mode >> 4);
    assert_eq!(lines(data, chunk), lines(data, usize::MAX));
    let whole = messages(data, newlines, usize::MAX);
    assert_eq!(messages(data, newlines, chunk), whole);
    for (content, ended) in &whole {
        let fenced = [b"\0", content.as_slice(), b"\0"].concat();
        let crlf_alone = fenced.windows(2).all(|two| (two[0] == b'\r') == (two[1] == b'\n'));
        // The last content may end between the two.
        assert!(crlf_alone || !ended && content.ends_with(b"\r"));
    }
    let stream = [b"\r\n", data].concat();
    let ends = stream.windows(5).any(|five| five == b"\r\n.\r\n");
    assert_eq!(whole.iter().any(|(_, ended)| *ended), ends);
    let exact = chunks(data, BareNewlines::Keep, usize::from(mode >> 2), chunk);
    assert_eq!(exact.as_deref(), Some(data));
    let text = chunks(data, newlines, usize::MAX, usize::MAX);
    assert_eq!(chunks(data, newlines, usize::from(mode >> 2), chunk), text);
}

fn lines(data: &[u8], chunk: usize) -> Vec<Line> {
    let mut framing = Framing::default();
    let mut found = Vec::new();
    for part in data.chunks(chunk) {
        framing.push(part);
        while let Some(line) = framing.next_line(LINE_MAX) {
            found.push(line);
            if found.last() == Some(&Line::Endless) {
                return found;
            }
        }
    }
    found
}

/// Contents of messages, one behind the other, and whether each has ended. Refused ones are empty.
fn messages(data: &[u8], newlines: BareNewlines, chunk: usize) -> Vec<(Vec<u8>, bool)> {
    let mut framing = Framing::default();
    framing.begin_content(newlines);
    let (mut found, mut content, mut refused) = (Vec::new(), Vec::new(), false);
    for part in data.chunks(chunk) {
        framing.push(part);
        while let Some(piece) = framing.next_content(LINE_MAX) {
            match piece {
                Content::Bytes(bytes) => content.extend_from_slice(&bytes),
                Content::Newline => content.extend_from_slice(b"\r\n"),
                Content::BareNewline | Content::LineTooLong => {
                    refused = true;
                    content.clear();
                }
                Content::Skipped(_) => assert!(refused),
                Content::End => {
                    found.push((std::mem::take(&mut content), true));
                    refused = false;
                    framing.begin_content(newlines);
                }
            }
        }
    }
    // What has not ended may be cut anywhere by the last read.
    found.push((Vec::new(), false));
    found
}

/// What BDAT chunks of that size come to; `None` where they are refused.
fn chunks(data: &[u8], newlines: BareNewlines, size: usize, cut: usize) -> Option<Vec<u8>> {
    let mut framing = Framing::default();
    framing.begin_content(newlines);
    let mut content = Vec::new();
    let mut pieces = data.chunks(size.max(1)).peekable();
    if pieces.peek().is_none() {
        return Some(content);
    }
    while let Some(piece) = pieces.next() {
        framing.begin_chunk(piece.len() as u64, pieces.peek().is_none());
        let mut parts = piece.chunks(cut);
        loop {
            match framing.next_chunk(LINE_MAX) {
                Some(Content::Bytes(bytes)) => content.extend_from_slice(&bytes),
                Some(Content::Newline) => content.extend_from_slice(b"\r\n"),
                Some(Content::End) => break,
                Some(_) => return None,
                None => framing.push(parts.next().expect("a chunk ends with its octets")),
            }
        }
    }
    Some(content)
}

/// A command that is understood is one line, and its paths mean the same when written again.
pub(crate) fn command(data: &[u8]) {
    let (mode, line) = first(data);
    if line.iter().any(|byte| matches!(byte, b'\r' | b'\n')) {
        return;
    }
    let dialect = Dialect { extended: mode & 1 == 1, utf8: mode & 2 == 2 };
    match command::parse(line, dialect) {
        Ok(Command::Mail(mail)) => {
            let written = format!("<{}>", mail.reverse_path);
            let again = ReversePath::parse(&written).expect(&written);
            assert_eq!(again.0.mailbox(), mail.reverse_path.mailbox());
            assert!(
                mail.options.envid.is_none_or(|id| id.bytes().all(|b| matches!(b, b' '..=b'~')))
            );
        }
        Ok(Command::Rcpt(rcpt)) => {
            let written = format!("<{}>", rcpt.forward_path);
            let again = ForwardPath::parse(&written).expect(&written);
            assert_eq!(again.0.mailbox(), rcpt.forward_path.mailbox());
            if let Some(orcpt) = rcpt.options.orcpt {
                let written = orcpt.to_string();
                assert!(written.bytes().all(|byte| byte.is_ascii_graphic()), "{written}");
            }
        }
        Ok(_) => {}
        Err(error) => assert!(error.reply().is_refusal()),
    }
}

/// An address that is understood holds nothing that ends a line or a path, and is read the same
/// when written again.
pub(crate) fn address(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = ForwardPath::parse(text);
    let _ = ReversePath::parse(text);
    if let Ok(mailbox) = text.parse::<Mailbox>() {
        let written = mailbox.to_string();
        assert!(!written.contains(char::is_control), "{written:?}");
        assert_eq!(written.parse::<Mailbox>(), Ok(mailbox), "{written:?}");
    }
    if let Ok(domain) = text.parse::<Domain>() {
        let written = domain.to_string();
        assert!(written.is_ascii(), "{written:?}");
        assert_eq!(written.parse::<Domain>(), Ok(domain), "{written:?}");
    }
}

/// The reader of a server's replies takes any octets in bounded memory, the same however cut.
pub(crate) fn reply(data: &[u8]) {
    let (mode, data) = first(data);
    let read = |chunk: usize| {
        let mut reader = ResponseReader::default();
        let mut found = Vec::new();
        for part in data.chunks(chunk) {
            reader.push(part);
            loop {
                match reader.next_response() {
                    Ok(Some(response)) => {
                        let _ = Capabilities::of(&response);
                        found.push(Ok(response));
                    }
                    Ok(None) => break,
                    Err(error) => {
                        found.push(Err(error));
                        return found;
                    }
                }
            }
        }
        found
    };
    assert_eq!(read(chunk_of(mode)), read(usize::MAX));
}

/// A whole session: its effects do not depend on the cuts; each message that is opened is ended or
/// dropped once, and content comes in between alone; nothing follows the close.
pub(crate) fn session(data: &[u8]) {
    let (modes, data) = first(data);
    let (answers, data) = first(data);
    let (cut, data) = first(data);
    let whole = effects(modes, answers, data, usize::MAX);
    let parts = effects(modes, answers, data, chunk_of(cut));
    assert_eq!(normal(&parts), normal(&whole));
    let mut open = false;
    for effect in &whole {
        match effect {
            Effect::BeginMessage(envelope) => {
                assert!(!std::mem::replace(&mut open, true) && !envelope.recipients.is_empty());
            }
            Effect::EndMessage | Effect::AbortMessage(_) => {
                assert!(std::mem::replace(&mut open, false));
            }
            Effect::Body(bytes) => assert!(open && !bytes.is_empty()),
            Effect::HeaderEnd(_) => assert!(open),
            _ => {}
        }
    }
    assert!(!open);
    assert_eq!(whole.iter().filter(|effect| **effect == Effect::Close).count(), 1);
    assert_eq!(whole.last(), Some(&Effect::Close));
}

fn settings(modes: u8) -> SessionSettings {
    let is = |bit: u8| modes >> bit & 1 == 1;
    SessionSettings {
        hostname: "mx.example".to_owned(),
        tls: if is(0) { TlsMode::Offer } else { TlsMode::Off },
        auth: if is(1) { AuthMode::Offer } else { AuthMode::Off },
        lmtp: is(2),
        submission: is(3),
        bare_newlines: if is(4) { BareNewlines::Normalize } else { BareNewlines::Reject },
        binary_mime: is(5),
        require_tls: is(6),
        // Whether more had come already is a matter of how the stream was cut.
        enforce_sync: false,
        message_size_max: 400,
        recipients_max: 3,
        messages_max: 5,
        errors_max: 30,
        idle_commands_max: 10,
        command_line_max: 90,
        text_line_max: 60,
        header_bytes_max: 200,
        header_lines_max: 9,
        received_max: 2,
        mime_depth_max: 2,
        session_bytes_max: 1 << 16,
        ..SessionSettings::default()
    }
}

/// Refuses by the bits of `answers`, each kind of question by its own.
fn answer(effect: &Effect, answers: u8) -> Option<Answer> {
    let refused = |bit: u8| answers >> bit & 1 == 1;
    let no = || Reply::new(550, (5, 7, 1), "No");
    let later = || Reply::new(451, (4, 3, 0), "Later");
    let verdict = |no_more: bool, path: String| match (no_more, path.starts_with('n')) {
        (true, true) => Verdict::RefuseAndClose(no()),
        (false, true) => Verdict::Refuse(no()),
        (_, false) => Verdict::Accept,
    };
    Some(match effect {
        Effect::CheckMail(mail) => Answer::Mail(verdict(refused(0), mail.reverse_path.to_string())),
        Effect::CheckRecipient(rcpt) => {
            Answer::Recipient(verdict(refused(1), rcpt.forward_path.to_string()))
        }
        Effect::Authenticate(plain) => Answer::Authenticated(match refused(2) {
            false => Ok(plain.authcid.clone()),
            true => Err(AuthRefusal::Invalid),
        }),
        Effect::StartTls => {
            Answer::TlsStarted(TlsInfo { version: "TLSv1.3".to_owned(), cipher: "X".to_owned() })
        }
        Effect::BeginMessage(_) => {
            Answer::MessageOpened(if refused(3) { Err(later()) } else { Ok(()) })
        }
        Effect::EndMessage => {
            Answer::Stored(if refused(4) { Err(later()) } else { Ok("Q1".to_owned()) })
        }
        _ => return None,
    })
}

fn effects(modes: u8, answers: u8, data: &[u8], chunk: usize) -> Vec<Effect> {
    let now = Instant::now();
    let tls = TlsInfo { version: "TLSv1.3".to_owned(), cipher: "X".to_owned() };
    let in_tls = (modes >> 7 == 1).then_some(tls);
    let mut session = Session::new(Arc::new(settings(modes)), in_tls, now);
    session.greet(now);
    let mut found = Vec::new();
    let mut drain = |session: &mut Session| {
        while let Some(effect) = session.next_effect(now) {
            if let Some(answer) = answer(&effect, answers) {
                session.answer(answer, now);
            }
            // A message that was not opened is none.
            let failed = matches!(effect, Effect::BeginMessage(_)) && answers >> 3 & 1 == 1;
            if !failed {
                found.push(effect);
            }
        }
    };
    drain(&mut session);
    for part in data.chunks(chunk) {
        if !session.wants_bytes() {
            break;
        }
        session.push(part, now);
        drain(&mut session);
    }
    session.peer_closed();
    drain(&mut session);
    found
}

/// What must not depend on how the stream was cut: bodies are joined, and what was cut off before a
/// refusal is dropped, as a driver does.
fn normal(effects: &[Effect]) -> Vec<String> {
    let (mut found, mut body) = (Vec::new(), Vec::new());
    for effect in effects {
        match effect {
            Effect::Body(bytes) => body.extend_from_slice(bytes),
            Effect::HeaderEnd(end) => body.extend_from_slice(format!("{end:?}").as_bytes()),
            Effect::Event(SessionEvent::UnauthorisedPipelining) => {}
            // STARTTLS ends a read: what is behind it in the same one is plaintext.
            Effect::Event(SessionEvent::PlaintextBehindStartTls) | Effect::StartTls => {
                return found;
            }
            Effect::EndMessage => {
                found.push(format!("{} stored", std::mem::take(&mut body).escape_ascii()));
            }
            Effect::AbortMessage(reason) => {
                body.clear();
                found.push(format!("{reason:?}"));
            }
            other => found.push(format!("{other:?}")),
        }
    }
    found
}
