use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::smtp::command::BodyType;
use crate::smtp::envelope::Envelope;
use crate::smtp::framing::BareNewlines;
use crate::smtp::options::MailOptions;

#[path = "stopping_tests.rs"]
mod stopping;

#[expect(clippy::disallowed_methods, reason = "there is no other way to an Instant to count from")]
fn start() -> Instant {
    Instant::now()
}

/// Dialogues here come in one piece: whether a client waited is another matter.
fn settings() -> SessionSettings {
    let hostname = "mx.example".to_owned();
    SessionSettings { hostname, enforce_sync: false, ..SessionSettings::default() }
}

fn session(settings: SessionSettings) -> (Session, Instant) {
    let now = start();
    let mut session = Session::new(Arc::new(settings), None, now);
    session.greet(now);
    (session, now)
}

fn tls_info() -> TlsInfo {
    TlsInfo { version: "TLSv1.3".to_owned(), cipher: "TLS_AES_128_GCM_SHA256".to_owned() }
}

/// The answer of a driver that permits everything.
fn agree(effect: &Effect) -> Option<Answer> {
    Some(match effect {
        Effect::CheckMail(_) => Answer::Mail(Verdict::Accept),
        Effect::CheckRecipient(_) => Answer::Recipient(Verdict::Accept),
        Effect::Authenticate(plain) => Answer::Authenticated(Ok(plain.authcid.clone())),
        Effect::StartTls => Answer::TlsStarted(tls_info()),
        Effect::BeginMessage(_) => Answer::MessageOpened(Ok(())),
        Effect::EndMessage => Answer::Stored(Ok("Q1".to_owned())),
        _ => return None,
    })
}

/// Everything the session does with `bytes` when all is permitted; `stop` leaves its question
/// without an answer.
fn effects(
    session: &mut Session,
    bytes: &[u8],
    now: Instant,
    stop: impl Fn(&Effect) -> bool,
) -> Vec<Effect> {
    session.push(bytes, now);
    let mut found = Vec::new();
    while let Some(effect) = session.next_effect(now) {
        if let (false, Some(answer)) = (stop(&effect), agree(&effect)) {
            session.answer(answer, now);
        }
        found.push(effect);
    }
    found
}

fn all(session: &mut Session, bytes: &str, now: Instant) -> Vec<Effect> {
    effects(session, bytes.as_bytes(), now, |_| false)
}

fn codes(effects: &[Effect]) -> Vec<u16> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Reply(reply) => Some(reply.code()),
            _ => None,
        })
        .collect()
}

const TO_DATA: &str = "EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n";

#[test]
fn the_envelope_carries_what_was_said() {
    let now = start();
    let with_auth = SessionSettings { auth: AuthMode::Offer, ..settings() };
    let mut session = Session::new(Arc::new(with_auth), Some(tls_info()), now);
    session.greet(now);
    let dialogue = "EHLO c\r\nAUTH PLAIN AHUAcA==\r\n\
        MAIL FROM:<a@b> SIZE=5 BODY=8BITMIME\r\nRCPT TO:<c@d>\r\nRCPT TO:<Postmaster>\r\nDATA\r\n";
    let envelope = all(&mut session, dialogue, now).into_iter().find_map(|effect| match effect {
        Effect::BeginMessage(envelope) => Some(envelope),
        _ => None,
    });
    let (path, _) = ForwardPath::parse("<c@d>").unwrap();
    let (reverse_path, _) = crate::smtp::address::ReversePath::parse("<a@b>").unwrap();
    let expected = Envelope {
        helo: Helo { name: "c".to_owned(), extended: true },
        tls: Some(tls_info()),
        account: Some("u".to_owned()),
        reverse_path,
        declared_size: Some(5),
        body: BodyType::EightBitMime,
        lmtp: false,
        options: MailOptions::default(),
        recipients: vec![path, ForwardPath::Postmaster],
    };
    assert_eq!(expected.protocol(), "ESMTPSA");
    assert_eq!(envelope, Some(expected));
}

#[test]
fn nothing_is_read_ahead_of_an_answer() {
    let (mut session, now) = session(settings());
    let stop = |effect: &Effect| matches!(effect, Effect::CheckMail(_));
    let found = effects(&mut session, b"EHLO c\r\nMAIL FROM:<a@b>\r\nQUIT\r\n", now, stop);
    assert!(matches!(found.last(), Some(Effect::CheckMail(_))));
    assert!(!session.wants_bytes());
    session.answer(Answer::Mail(Verdict::Accept), now);
    assert_eq!(codes(&all(&mut session, "", now)), [250, 221]);
    assert!(session.is_closed() && !session.wants_bytes());
}

#[test]
fn a_message_that_is_being_stored_survives_its_client() {
    let (mut session, now) = session(settings());
    all(&mut session, TO_DATA, now);
    effects(&mut session, b"x\r\n.\r\n", now, |effect| *effect == Effect::EndMessage);
    session.peer_closed();
    assert_eq!(all(&mut session, "", now), [Effect::Close]);
    session.answer(Answer::Stored(Ok("Q1".to_owned())), now);
    assert_eq!(all(&mut session, "", now), []);
}

#[test]
fn a_message_that_has_not_ended_does_not() {
    let (mut session, now) = session(settings());
    all(&mut session, TO_DATA, now);
    all(&mut session, "x\r\n.\r", now);
    session.peer_closed();
    let aborted = Effect::AbortMessage(AbortReason::PeerClosed);
    assert_eq!(all(&mut session, "", now), [aborted, Effect::Close]);
    session.peer_closed();
    assert_eq!(all(&mut session, "NOOP\r\n", now), []);
}

#[test]
fn a_deadline_does_not_count_against_the_client_while_an_answer_is_due() {
    let (mut session, now) = session(settings());
    let stop = |effect: &Effect| matches!(effect, Effect::CheckMail(_));
    effects(&mut session, b"EHLO c\r\nMAIL FROM:<a@b>\r\n", now, stop);
    let late = now + Duration::from_secs(3000);
    session.timed_out(late);
    assert_eq!(all(&mut session, "", late), []);
    session.answer(Answer::Mail(Verdict::Accept), late);
    assert!(session.deadline() > late);
}

#[test]
fn an_answer_to_another_question_ends_the_session() {
    let (mut session, now) = session(settings());
    let stop = |effect: &Effect| matches!(effect, Effect::CheckMail(_));
    effects(&mut session, b"EHLO c\r\nMAIL FROM:<a@b>\r\n", now, stop);
    session.answer(Answer::Recipient(Verdict::Accept), now);
    assert_eq!(codes(&all(&mut session, "", now)), [421]);
    assert!(session.is_closed());
}

/// facts.md, AUTH: to some directories an empty password is an anonymous login.
#[test]
fn an_empty_name_or_password_is_never_asked_about() {
    for response in ["AGFubgA=", "AABwdw=="] {
        let now = start();
        let with_auth = SessionSettings { auth: AuthMode::Offer, ..settings() };
        let mut session = Session::new(Arc::new(with_auth), Some(tls_info()), now);
        session.greet(now);
        let found = all(&mut session, &format!("EHLO c\r\nAUTH PLAIN {response}\r\n"), now);
        assert_eq!(codes(&found), [220, 250, 535]);
    }
}

#[test]
fn a_421_of_the_driver_ends_the_session() {
    let (mut session, now) = session(settings());
    let reply = Reply::new(421, (4, 3, 0), "Lost the queue");
    let stop = |effect: &Effect| *effect == Effect::EndMessage;
    all(&mut session, TO_DATA, now);
    effects(&mut session, b"x\r\n.\r\nNOOP\r\n", now, stop);
    session.answer(Answer::Stored(Err(reply)), now);
    assert_eq!(codes(&all(&mut session, "", now)), [421]);
    assert!(session.is_closed());
}

/// Ten thousand of them wait at once.
#[test]
fn a_session_is_small_and_its_deadlines_cannot_overflow() {
    assert!(size_of::<Session>() <= 1024, "{}", size_of::<Session>());
    let endless = SessionSettings {
        command_timeout: Duration::MAX,
        session_timeout: Duration::MAX,
        data_timeout: Duration::MAX,
        ..settings()
    };
    let (mut session, now) = session(endless);
    all(&mut session, TO_DATA, now);
    all(&mut session, "x\r\n", now);
    assert!(session.deadline() > now);
}

#[test]
fn credentials_do_not_show_in_logs() {
    let plain = PlainCredentials {
        authzid: String::new(),
        authcid: "ann".to_owned(),
        password: "hunter2".to_owned(),
    };
    assert!(!format!("{:?}", Effect::Authenticate(plain)).contains("hunter2"));
}

/// What must not depend on how the stream was cut: bodies are joined, and what was cut off
/// before a refusal is dropped, as a driver does.
fn normal(effects: Vec<Effect>) -> Vec<String> {
    let (mut found, mut body) = (Vec::new(), Vec::new());
    for effect in effects {
        match effect {
            Effect::Body(bytes) => body.extend_from_slice(&bytes),
            Effect::HeaderEnd(end) => body.extend_from_slice(format!("{end:?}").as_bytes()),
            // Whether more had come already is a matter of how it was cut.
            Effect::Event(SessionEvent::UnauthorisedPipelining) => {}
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

fn tight() -> SessionSettings {
    SessionSettings {
        tls: TlsMode::Off,
        message_size_max: 300,
        recipients_max: 3,
        messages_max: 4,
        errors_max: 30,
        idle_commands_max: 10,
        command_line_max: 60,
        text_line_max: 40,
        header_bytes_max: 100,
        header_lines_max: 5,
        received_max: 2,
        mime_depth_max: 2,
        ..settings()
    }
}

/// Streams that look like SMTP often enough to get deep into it.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let words = [
        "EHLO c\r\n",
        "HELO c\r\n",
        "MAIL FROM:<a@b>\r\n",
        "MAIL FROM:<>\r\n",
        "RCPT TO:<c@d>\r\n",
        "DATA\r\n",
        "BDAT 0\r\n",
        "BDAT 3 LAST\r\nabc",
        "BDAT 7\r\nX: y\r\n\r",
        "BDAT 9\r\ntext\r\n.\r\n",
        "BDAT 400\r\n",
        "BDAT 0 LAST\r\n",
        "BDAT\r\n",
        "MAIL FROM:<a@b> BODY=BINARYMIME\r\n",
        "Content-Type: message/rfc822\r\n\r\n",
        "RSET\r\n",
        "NOOP\r\n",
        "AUTH PLAIN\r\n",
        "STARTTLS\r\n",
        "GET / HTTP/1.1\r\n",
        "QUIT\r\n",
        "\r\n",
        "\n",
        "\r",
        ".",
        ".\r\n",
        "\r\n.\r\n",
        "Received: x\r\n",
        "X: y\r\n",
        "text\r\n",
        "..dots\r\n",
        "x\r\n.\r\n",
    ];
    let envelope = Just(TO_DATA.as_bytes().to_vec());
    let piece = prop_oneof![
        30 => prop::sample::select(words.to_vec()).prop_map(|word| word.as_bytes().to_vec()),
        8 => envelope,
        2 => prop::collection::vec(any::<u8>(), 0..8),
        2 => (1_usize..120).prop_map(|length| vec![b'x'; length]),
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    while let Some(at) = bytes.windows(from.len()).position(|window| window == from) {
        bytes.splice(at..at + from.len(), to.iter().copied());
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn chunks_do_not_matter(
        bytes in stream(), chunk in 1_usize..20, modes in any::<(bool, bool, bool)>(),
    ) {
        let (lmtp, normalize, submission) = modes;
        let bare_newlines = if normalize { BareNewlines::Normalize } else { BareNewlines::Reject };
        let settings = SessionSettings {
            lmtp, bare_newlines, submission, binary_mime: normalize, ..tight()
        };
        let bytes = if lmtp { replace(&bytes, b"EHLO", b"LHLO") } else { bytes };
        let run = |chunk: usize| {
            let (mut session, now) = session(settings.clone());
            let mut found = Vec::new();
            for part in bytes.chunks(chunk) {
                found.extend(effects(&mut session, part, now, |_| false));
            }
            normal(found)
        };
        prop_assert_eq!(run(chunk), run(usize::MAX));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let (mut session, now) = session(settings());
        effects(&mut session, &bytes, now, |_| false);
    }

    /// Every message opened is ended or aborted once, bodies come only in between, and nothing
    /// follows the close; whenever the client goes.
    #[test]
    fn messages_open_and_end_in_pairs(bytes in stream(), chunk in 1_usize..40) {
        let (mut session, now) = session(tight());
        let mut found = Vec::new();
        for part in bytes.chunks(chunk) {
            found.extend(effects(&mut session, part, now, |_| false));
        }
        session.peer_closed();
        found.extend(effects(&mut session, b"", now, |_| false));
        let mut open = false;
        for effect in &found {
            match effect {
                Effect::BeginMessage(_) => prop_assert!(!std::mem::replace(&mut open, true)),
                Effect::EndMessage | Effect::AbortMessage(_) => {
                    prop_assert!(std::mem::replace(&mut open, false));
                }
                Effect::Body(bytes) => prop_assert!(open && !bytes.is_empty()),
                _ => {}
            }
        }
        prop_assert!(!open);
        let closes = found.iter().filter(|effect| **effect == Effect::Close).count();
        prop_assert_eq!((closes, found.last()), (1, Some(&Effect::Close)));
    }
}
